"What a person sees in a terminal, and what a log file gets."
import contextlib
import io
import shutil
from pathlib import Path

import pytest
from running import TRAINING, printed, run, small_model, write_clips, write_stream

from highlight_sense.cli import main


class Screen(io.StringIO):
    "Pretend to be a terminal."
    def isatty(self) -> bool: return True


@pytest.fixture(scope="module")
def detecting(tmp_path_factory: pytest.TempPathFactory) -> tuple:
    "A model and a recording to search, as words of a command."
    place = tmp_path_factory.mktemp("terminal")
    small_model(place/"model.pt")
    write_stream(place/"stream.mka", 12)
    return "detect", "--model", place/"model.pt", place/"stream.mka", "--top", 2, "--device", "cpu"


def test_a_bar_counts_in_clock_times(detecting, tmp_path: Path):
    "A bar over a recording shows its place as a clock does, and no `s/s`."
    screen = Screen()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(screen):
        main([*map(str, detecting), "-o", str(tmp_path)])
    assert "0:00 of 0:12" in screen.getvalue() and "s/s" not in screen.getvalue()


def test_a_pipe_gets_no_bars(detecting, tmp_path: Path):
    "In a log file there is a line for each recording, and nothing that moves."
    code, out, err = run(*detecting, "-o", tmp_path)
    assert code == 0 and "\r" not in err and "%|" not in err
    assert "stream.mka: 1 highlight in 0:12, written to" in out


@pytest.mark.parametrize("words, found", [
    ("detect", "found no --out or -o"),
    ("detect a.mkv", "found no --out or -o"),
    ("detect a.mkv -o out --top", "--top: found no value, expected a whole number"),
    ("detect a.mkv -o out --top three", "--top: found 'three', expected a whole number"),
    ("detect a.mkv -o out --engine fast", "--engine: found 'fast', expected torch or openvino"),
    ("info a b", "found 'b' left over"),
    ("prepare a.mkv --labels l.csv -o out --mixup 3", "unknown option: --mixup"),
    ("train clips -o run --epoch 3", "unknown option: --epoch. Did you mean --epochs?"),
    ("trian clips", 'unknown command "trian". Did you mean "train"?'),
])
def test_a_usage_error_is_short(words: str, found: str):
    "It names what is wrong and where to read on, and no option of another command."
    code, out, err = run(*words.split())
    assert code == 2 and not out and found in err
    assert len(err.splitlines()) <= 3 and len(err) < 240, err
    other = "train" if words.startswith("prepare") else "publish"
    assert f"{other} --help" not in err


def test_a_run_folder_is_not_a_model(detecting, tmp_path: Path):
    "Given a run folder as the model, `detect` names the model in it."
    (tmp_path/"run").mkdir()
    shutil.copy(detecting[2], tmp_path/"run"/"best.pt")
    words = printed("detect", "--model", tmp_path/"run", *detecting[3:], "-o", tmp_path/"out")
    assert words.endswith(f"run: found a run folder, expected a checkpoint; name {tmp_path/'run'/'best.pt'}\n")


@pytest.mark.parametrize("split", ["group", "time", "notebook"])
def test_two_clips_are_too_few(tmp_path: Path, split: str):
    "`train` counts the clips of each class and says how many it needs, in words of its own."
    clips = write_clips(tmp_path/"clips", 1, 3)
    words = printed("train", clips, "-o", tmp_path/"run", "--split", split, "--device", "cpu")
    assert words == (
        "highlight-sense: found 1 positive and 3 negative clips, expected at least 2 of each, to train on one and "
        "validate with another; add clips, or label more highlights\n")


def test_a_model_is_named_by_an_option(detecting, tmp_path: Path):
    "`detect MODEL RECORDING`, an old habit, gets one line that names `--model`; nothing is written."
    _, _, model, stream, *_ = detecting
    (tmp_path/"run").mkdir()
    shutil.copy(model, tmp_path/"run"/"best.pt")
    for given, found in ((model, "a model file"), (tmp_path/"run", "a run folder")):
        words = printed("detect", given, stream, "-o", tmp_path/"out")
        assert f"{given}: found {found}, expected a recording; --model names the model" in words
        file = given if given == model else given/"best.pt"
        assert words.endswith(f"highlight-sense detect RECORDING -o OUT --model {file}\n")
    assert not (tmp_path/"out").exists()
    shutil.copy(stream, tmp_path/"run")  # recordings next to a model are recordings
    assert run(*detecting[:3], tmp_path/"run", "-o", tmp_path/"out", "--top", 1)[0] == 0


def test_the_model_comes_first(detecting, tmp_path: Path):
    "A recording instead of the model, or a folder of them, is called one, and the order of the arguments is shown."
    _, _, model, stream, *_ = detecting
    usage = "evaluate MODEL DATA"
    (tmp_path/"evenings").mkdir()
    shutil.copy(stream, tmp_path/"evenings")
    for place, kind in ((stream, "recording"), (tmp_path/"evenings", "folder of recordings")):
        words = printed("evaluate", place, model, "-o", tmp_path/"out")
        expected = f"found a {kind}, expected a checkpoint; the model comes first: highlight-sense {usage}"
        assert words == f"highlight-sense: {place}: {expected}\n"


def test_recordings_are_evaluated_with_labels(detecting, tmp_path: Path):
    "`evaluate` asks for labels if it gets recordings; a clip folder may have recordings next to its clips."
    _, _, model, stream, *_ = detecting
    clips = write_clips(tmp_path/"clips", 4, 4)
    for place in (tmp_path/"evenings", clips):
        place.mkdir(exist_ok=True)
        shutil.copy(stream, place)
    for place, kind in ((stream, "recording"), (tmp_path/"evenings", "folder of recordings")):
        expected = f"found a {kind}, expected clips; add --labels to evaluate recordings"
        assert printed("evaluate", model, place) == f"highlight-sense: {place}: {expected}\n"
    code, out, _ = run("evaluate", model, clips, "--workers", 0, "--device", "cpu")
    assert code == 0 and "of 4 highlights are recognised" in out


@pytest.mark.parametrize("verb, there, not_there", [
    ("share", "--results PATH", "--empty-results"), ("learn", "--out -o PATH", "--output"),
    ("learn", "--no-adopt", "[default: ()]"), ("fetch", "(default: aadityahh/", "--no-weights")])
def test_help_shows_the_options_that_there_are(verb: str, there: str, not_there: str):
    "No twin of an option that may be repeated, `--out` as in every other command, and each default."
    code, out, _ = run(verb, "--help")
    words = " ".join(out.replace("│", " ").split())
    assert code == 0 and there in words and not_there not in words, words


def test_epochs_that_are_not_kept_are_marked(tmp_path: Path, monkeypatch):
    "An epoch has a remark only if it is clearly worse than the one that is kept."
    verdicts = iter([False, True])
    monkeypatch.setattr("highlight_sense.train.surely_lower", lambda *measured: next(verdicts))
    clips = write_clips(tmp_path/"clips", 8, 8)
    code, out, err = run("train", clips, "-o", tmp_path/"run", *TRAINING, "--epochs", 3, "--workers", 0)
    remarks = [line.endswith(" (clearly worse, not kept)") for line in out.splitlines() if line.startswith("epoch ")]
    assert code == 0 and remarks == [False, False, True] and "(kept)" not in out, err


def test_the_help_of_prepare_has_no_odd_values():
    "A single choice is not listed as `none`, and a table is described instead of printed."
    words = " ".join(printed("prepare", "--help", code=0).replace("│", " ").split())
    assert "[choices: none]" not in words and "[choices: skip, negative]" in words
    assert "((215," not in words and "(default: six ranges, as in the published data set)" in words
