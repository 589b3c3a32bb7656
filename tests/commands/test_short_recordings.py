"Recordings of a second or less: a line about their length, and about a window that fits."
from pathlib import Path

import numpy as np
import pytest
from running import RATE_HZ, printed, small_model

from highlight_sense.media import write_recording


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return small_model(tmp_path_factory.mktemp("model")/"model.pt")


def write_noise(path: Path, seconds: float) -> Path:
    "Write a recording of two tracks of noise."
    noise = np.random.default_rng(0).normal(0, 0.1, (2, round(seconds * RATE_HZ))).astype(np.float32)
    write_recording(path, dict(zip(("Mic", "Game"), noise)), RATE_HZ)
    return path


@pytest.mark.parametrize(("seconds", "shown"), [(0.05, "0.05"), (0.3, "0.28")])  # in whole frames
def test_too_short_for_any_window(checkpoint, tmp_path, seconds, shown):
    message = printed("detect", "-m", checkpoint, write_noise(tmp_path/"blink.mkv", seconds), "-o", tmp_path/"found")
    assert f"blink.mkv: found a recording of {shown} s" in message
    assert "expected at least 0.4 s; choose a longer one" in message and "--window" not in message


def test_a_window_that_fits(checkpoint, tmp_path):
    words = "detect", "--model", checkpoint, write_noise(tmp_path/"second.mkv", 1.0), "-o", tmp_path/"found"
    message = printed(*words)
    assert "found a recording of 1.0 s, expected at least one window of 2.9 s; choose a shorter --window" in message
    window_s = message.rstrip().rsplit(" ", 1)[1]
    assert 0.9 <= float(window_s) <= 1 and " in 0:01, " in printed(*words, "--window", window_s, code=0)


def test_a_window_that_is_too_short(checkpoint, tmp_path):
    path = write_noise(tmp_path/"second.mkv", 1.0)
    for name in ("window", "stride"):
        message = printed("detect", "--model", checkpoint, path, "-o", tmp_path/"found", f"--{name}", 0.05)
        assert f"{name}: found 0.05 s, expected at least 0.37 s; choose more" in message
