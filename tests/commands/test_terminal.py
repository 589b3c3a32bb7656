"What a person sees in a terminal, and what a log file gets."
import contextlib
import io
from pathlib import Path

import pytest
from running import run, small_model, write_stream

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
    return "detect", place/"model.pt", place/"stream.mka", "--top", 2, "--device", "cpu"


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
    ("detect", "found no CHECKPOINT"),
    ("detect model.pt", "found no --out or -o"),
    ("detect model.pt a.mkv -o out --top", "--top: found no value, expected a whole number"),
    ("detect model.pt a.mkv -o out --top three", "--top: found 'three', expected a whole number"),
    ("detect model.pt a.mkv -o out --engine fast", "--engine: found 'fast', expected torch or openvino"),
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
