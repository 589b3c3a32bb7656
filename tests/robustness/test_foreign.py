"""Foreign files stay, and a killed command resumes.

No command replaces or removes a file that it did not write, and none follows a link.
"""
import contextlib
import itertools
import json
import shutil
from pathlib import Path

import pytest
import torch
from running import TRAINING, launch, needs_fork, printed, run, small_model, write_clips, write_stream

PREPARE = ("--negative-s", 1, "--lengths", 43, 65, 1)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    "A folder with clips, two labelled recordings and a checkpoint."
    place = tmp_path_factory.mktemp("foreign")
    write_clips(place/"clips", 12, 12)
    for name in ("stream", "other"):
        write_stream(place/f"{name}.mka")
        (place/f"{name}.csv").write_text(f"recording,start_s,end_s\n{name},1,2\n{name},5,6\n")
    small_model(place/"model.pt")
    return place


def prepare(healthy: Path, name: str, out: object, *more: object) -> tuple:
    "The words that cut a recording into clips."
    return ("prepare", healthy/f"{name}.mka", "--labels", healthy/f"{name}.csv", "-o", out, *PREPARE, *more)


def names(place: Path) -> set[str]:
    "The files of a folder."
    return {path.relative_to(place).as_posix() for path in place.rglob("*") if path.is_file()}


def test_other_clips_stay(healthy, tmp_path):
    "`prepare --overwrite` keeps clips that it did not make, even in the current folder."
    printed(*prepare(healthy, "stream", tmp_path/"clips"), code=0)
    own = tmp_path/"clips"/"Positive"/"mine"/"own_part1.pt"
    own.parent.mkdir()
    own.write_bytes(b"mine")
    with contextlib.chdir(tmp_path/"clips"): printed(*prepare(healthy, "other", ".", "--overwrite"), code=0)
    left = names(tmp_path/"clips")
    assert own.read_bytes() == b"mine"
    assert not any("stream" in name for name in left) and any("other_part" in name for name in left)


@pytest.mark.parametrize("linked", [True, False])
def test_a_foreign_work_folder(healthy, tmp_path, linked):
    "A foreign folder, or a link, is refused where `prepare` would make new clips."
    printed(*prepare(healthy, "stream", tmp_path/"clips"), code=0)
    place = tmp_path/"thesis" if linked else tmp_path/".clips.part"
    place.mkdir()
    (place/"thesis.txt").write_text("mine")
    if linked: (tmp_path/".clips.part").symlink_to(place)
    before = names(tmp_path/"clips")
    assert ".clips.part" in printed(*prepare(healthy, "other", tmp_path/"clips", "--overwrite"))
    assert names(place) == {"thesis.txt"} and names(tmp_path/"clips") == before


def test_links_are_not_followed(healthy, tmp_path):
    "Links that lead out of a clip folder or a folder of detections are refused."
    printed(*prepare(healthy, "stream", tmp_path/"elsewhere"), code=0)
    printed(*prepare(healthy, "stream", tmp_path/"clips"), code=0)
    (tmp_path/"clips"/"Negative").rename(tmp_path/"away")
    (tmp_path/"clips"/"Negative").symlink_to(tmp_path/"elsewhere"/"Negative")
    before = names(tmp_path/"elsewhere")
    assert "a link" in printed(*prepare(healthy, "other", tmp_path/"clips", "--overwrite"))
    assert names(tmp_path/"elsewhere") == before
    printed("detect", "--model", healthy/"model.pt", healthy/"stream.mka", "-o", tmp_path/"found", "--top", 2, code=0)
    (tmp_path/"links").mkdir()
    (tmp_path/"links"/"stream").symlink_to(tmp_path/"found"/"stream")
    before = names(tmp_path/"found")
    assert "a link" in printed("publish", tmp_path/"links", "--chapters")
    assert names(tmp_path/"found") == before


@pytest.mark.parametrize("name", [
    "best.pt", "metrics.csv", "history.png", "unusable.txt", ".download.part", ".holidays.part.mkv"])
def test_a_folder_with_foreign_files(healthy, tmp_path, name):
    "In a folder with a foreign file, `train --resume` without a run and `evaluate` refuse or leave the file alone."
    write_clips(tmp_path/"clips", 12, 12)
    (tmp_path/"clips"/"Positive"/"game"/"broken_part1.pt").write_bytes(b"no clip")
    train = ("train", tmp_path/"clips", "--resume", *TRAINING)
    for words in (train, ("evaluate", healthy/"model.pt", tmp_path/"clips", "--workers", 0)):
        out = tmp_path/words[0]
        out.mkdir()
        (out/name).write_text("mine")
        code, _, errors = run(*words, "-o", out)
        assert (out/name).read_text() == "mine", errors
        refused = name == "unusable.txt" or (words[0] == "train" and "part" not in name)
        assert code == (2 if refused else 0), errors


def test_a_run_without_settings(healthy, tmp_path):
    "A run folder without its `config.json` is not resumed with other settings."
    words = ("train", healthy/"clips", "-o", tmp_path/"run", *TRAINING)
    printed(*words, code=0)
    (tmp_path/"run"/"config.json").unlink()
    assert "expected a new folder" in printed(*words, "--resume", "--seed", 5)
    assert not (tmp_path/"run"/"config.json").exists()


def test_a_run_is_not_repeated_into_itself(healthy, tmp_path):
    "`--from-run` refuses to write into the run that it repeats."
    printed("train", healthy/"clips", "-o", tmp_path/"run", *TRAINING, code=0)
    before = {name: (tmp_path/"run"/name).read_bytes() for name in names(tmp_path/"run")}
    assert "expected a new folder" in printed("train", "-o", tmp_path/"run", "--from-run", tmp_path/"run")
    assert {name: (tmp_path/"run"/name).read_bytes() for name in names(tmp_path/"run")} == before


def test_a_foreign_audit(healthy, tmp_path):
    "A foreign `audit.json` stays, even with some of an audit's keys."
    (tmp_path/"audit.json").write_text('{"findings": "mine"}')
    assert "audit.json" in printed("audit", healthy/"model.pt", healthy/"clips", "-o", tmp_path)
    assert (tmp_path/"audit.json").read_text() == '{"findings": "mine"}'


KILLED = '''
import importlib.util
# imported and compiled once, not in each process
import torch._dynamo
from highlight_sense import audio, engine, prepare
if importlib.util.find_spec("openvino"): import openvino.frontend.pytorch.ts_decoder
audio.log_mel(torch.zeros(22050))

words, then, most, origin, root = json.loads(sys.argv[1])
codes = []
for n in range(1, most + 1):
    for after in (False, True):
        places = [Path(root)/f"{n}{after}{call}" for call in range(len(then) + 1)]
        for place, source, call in zip(places, [origin, *places], [words, *then]):
            shutil.copytree(source, place)  # each call gets a copy of what the previous one left
            command = [word.replace("PLACE", str(place)) for word in call]
            codes.append(status(start(command, lambda: die_at(n, after)) if call is words else start(command)))
print(json.dumps(codes))
'''


def kill(words: list, then: list[list], most: int, origin: Path, root: Path) -> list[list[tuple[int, Path]]]:
    """Kill a command before or after each of its first renames, each time in a copy of a folder.

    Call others afterwards, and return exit codes and folders.
    """
    codes = launch(KILLED, words, then, most, origin, root)
    runs = itertools.product(range(1, most + 1), (False, True), range(len(then) + 1))
    ended = [(codes.pop(0), root/f"{n}{after}{call}") for n, after, call in runs]
    return [ended[first:first + len(then) + 1] for first in range(0, len(ended), len(then) + 1)]


@needs_fork
def test_killed_while_clips_are_replaced(healthy, tmp_path):
    "After a kill between two renames, the old clips are whole or refused, and the new ones can still be made."
    def contents(place): return {name: (place/"clips"/name).read_bytes() for name in names(place/"clips")}
    def words(place, *more): return [str(word) for word in prepare(healthy, "stream", place, *more)]
    again, other = words("PLACE/clips"), words("PLACE/clips", "--overwrite", "--seed", 9)
    printed(*words(tmp_path/"old"/"clips"), code=0)
    shutil.copytree(tmp_path/"old", tmp_path/"new")
    printed(*words(tmp_path/"new"/"clips", "--overwrite", "--seed", 9), code=0)
    ended = kill(other, [again, other], 11, tmp_path/"old", tmp_path/"runs")
    assert [first for (first, _), *_ in ended].count(-9) > 10
    assert {code for _, (code, _), _ in ended} == {0, 2}
    for _, (code, place), (last, end) in ended:
        if code == 0: assert contents(place) == contents(tmp_path/"old"), place
        assert last == 0 and contents(end) == contents(tmp_path/"new"), end


@needs_fork
def test_killed_while_a_network_is_exported(healthy, tmp_path):
    "An export is two files: after a kill between them, a second call leaves both and nothing else."
    pytest.importorskip("openvino")
    (tmp_path/"old").mkdir()
    printed("export", healthy/"model.pt", "-o", tmp_path/"old"/"net.xml", code=0)
    words = ["export", str(healthy/"model.pt"), "-o", "PLACE/net.xml"]
    ended = kill(words, [words], 3, tmp_path/"old", tmp_path/"runs")
    assert [first for (first, _), _ in ended].count(-9) == 4, ended
    assert {code for _, (code, _) in ended} == {0}, ended
    for _, (_, place) in ended: assert names(place) == {"net.xml", "net.bin"}


def saved(tensor: torch.Tensor) -> torch.Tensor:
    "A view that negates."
    return torch.complex(tensor, tensor).conj().imag


@pytest.mark.parametrize("kind", [torch.nn.Parameter, saved, lambda tensor: tensor.clone().requires_grad_()])
def test_odd_tensors(healthy, tmp_path, kind):
    "Clips that PyTorch saves but NumPy does not convert directly are read."
    write_clips(tmp_path/"clips", 12, 12)
    for path in sorted((tmp_path/"clips").rglob("*.pt"))[:3]:
        torch.save({"tensor": kind(torch.load(path)["tensor"])}, path)
    printed("info", tmp_path/"clips", code=0)
    printed("pack", tmp_path/"clips", "-o", tmp_path/"clips.pack", code=0)
    printed("evaluate", healthy/"model.pt", tmp_path/"clips", "--workers", 0, code=0)


@pytest.mark.parametrize("lengths", [(43, 65, "inf"), (43, 65, 1e308, 43, 65, 1e308), (43, 99999999999999999999, 1)])
def test_impossible_lengths(healthy, tmp_path, lengths):
    "Lengths and shares that are infinite or absurd are refused."
    labels = healthy/"stream.csv"
    printed("prepare", healthy/"stream.mka", "--labels", labels, "-o", tmp_path/"new", "--lengths", *lengths)
    printed(*prepare(healthy, "stream", tmp_path/"new", "--quiet-s", "1e-310"))


def test_odd_tables(healthy, tmp_path):
    "A table with an endless header, a manifest with an empty name, and a calibration with NaN are refused."
    (tmp_path/"labels.csv").write_text("recording," + "x" * 200_000 + ",start_s,end_s\n")
    printed("prepare", healthy/"stream.mka", "--labels", tmp_path/"labels.csv", "-o", tmp_path/"new")
    printed("detect", "--model", healthy/"model.pt", healthy/"stream.mka", "-o", tmp_path/"found", "--top", 2, code=0)
    manifest = tmp_path/"found"/"stream"/"manifest.json"
    record = json.loads(manifest.read_text())
    for name in ("", "."):
        files = record["files"] | {name: {"made_from": "", "sha256": None}}
        manifest.write_text(json.dumps(record | {"files": files, "shown": {"clips": "x"}}))
        printed("detect", "--model", healthy/"model.pt", healthy/"stream.mka", "-o", tmp_path/"found", "--top", 2)
    record = torch.load(healthy/"model.pt", weights_only=True)
    record["calibration"] = {"temperature": 1.0, "offset": 0.0, "x": float("nan")}
    torch.save(record, tmp_path/"model.pt")
    printed("info", tmp_path/"model.pt")


def test_closed_streams(healthy, monkeypatch):
    "A command works with its output streams closed."
    from highlight_sense.cli import main
    for stream in ("sys.stdout", "sys.stderr"): monkeypatch.setattr(stream, None)
    main(["info", str(healthy/"model.pt")])


def test_control_characters_in_games(healthy, tmp_path):
    "Control characters in the name of a game are shown as text."
    for number, game in enumerate(("one\x1b]0;owned\x07", "two")):
        write_clips(tmp_path/str(number), 12, 12)
        for label in ("Positive", "Negative"):
            for path in (tmp_path/str(number)/label/"game").glob("*.pt"):
                place = tmp_path/"clips"/label/game/f"{number}{path.name}"
                place.parent.mkdir(parents=True, exist_ok=True)
                path.rename(place)
    shown = printed("audit", healthy/"model.pt", tmp_path/"clips", "--training", tmp_path/"clips", code=3)
    assert "the model on one" in shown and "\x1b" not in shown and "\x07" not in shown
