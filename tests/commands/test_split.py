"""Few recordings: what is held out, and what the command says about it."""
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from running import TRAINING, run

from highlight_sense.files import InputError
from highlight_sense.media import write_recording

HIGHLIGHTS = "1,2 7,8 12,13 18,19 23,24 29,30 33,34 37,38".split()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A folder with recordings of forty and twenty seconds, and tables of their highlights."
    place = tmp_path_factory.mktemp("few")
    noise = np.random.default_rng(0).normal(0, 0.1, 40 * 8000).astype(np.float32)
    for name, seconds in (("monday", 40), ("tuesday", 20)):
        write_recording(place/f"{name}.mkv", {"Mic": noise[:8000*seconds], "Game": noise[:8000*seconds]}, 8000)
    rows = [f"monday,{times}" for times in HIGHLIGHTS] + [f"tuesday,{times}" for times in HIGHLIGHTS[:4]]
    for name, kept in (("one", rows[:8]), ("two", rows), ("quiet", [*rows[:8], "tuesday,,"])):
        (place/f"{name}.csv").write_text("\n".join(["recording,start_s,end_s", *kept]))
    return place


@pytest.fixture(autouse=True)
def only_split(monkeypatch) -> None:
    "End each training where its first step would be: the split is written by then."
    def stop(*arguments: object) -> None: raise InputError("found a test, expected none; stop here")
    monkeypatch.setattr("highlight_sense.run.fit", stop)


def train(place: Path, out: Path, name: str, *more: object) -> tuple[pd.DataFrame, str]:
    "Prepare by a table and begin to train; return the two sides of the split, with times, and the error stream."
    recordings = [place/"monday.mkv"] if name == "one" else [place/"monday.mkv", place/"tuesday.mkv"]
    options = "--negative-s", 1, "--lengths", 43, 65, 1, "--quiet-s", 4
    code, _, errors = run("prepare", *recordings, "--labels", place/f"{name}.csv", "-o", out/"clips", *options)
    assert code == 0, errors
    _, _, errors = run("train", out/"clips", "-o", out/"run", *TRAINING, "--val-split", 0.25, *more)
    assert "stop here" in errors, errors
    split = pd.read_csv(out/"run"/"split.csv")
    clips = [torch.load(path, weights_only=True) for path in split.path]
    return split.assign(start_s=[clip["start_s"] for clip in clips], end_s=[clip["end_s"] for clip in clips]), errors


@pytest.mark.parametrize(("name", "options", "message"), [
    ("one", (), "found clips of 1 recording, expected enough"),
    ("quiet", (), "found clips of 2 recordings, expected enough"),
    ("two", ("--split", "time"), "")])
def test_blocks_of_time(place, tmp_path, name, options, message):
    "No moment is on both sides, both sides have both classes, and the share is about the one that was asked for."
    split, errors = train(place, tmp_path, name, *options)
    training, validation = (split[split.side == side] for side in ("training", "validation"))
    assert training.label.nunique() == validation.label.nunique() == 2
    for clip in validation.itertuples():
        same = training[training.group == clip.group]
        assert not ((same.start_s < clip.end_s) & (same.end_s > clip.start_s)).any()
    assert 0.1 < len(validation) / len(split) < 0.4
    assert message in errors and ("blocks of time are held out" in errors) == bool(message)


def test_two_recordings(place, tmp_path):
    "Each stays whole, the shorter one is held out, and the share is said."
    split, errors = train(place, tmp_path, "two")
    assert set(split[split.side == "validation"].group) == {"tuesday"}
    assert "found 2 recordings to keep whole, so 3" in errors and "expected 25%; --split time holds out" in errors
