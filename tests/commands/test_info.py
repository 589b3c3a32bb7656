"`info` says what any file or folder is that the package reads or writes."
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from running import TRAINING, printed, small_model, write_clips, write_rated, write_stream

from highlight_sense import run as runs
from highlight_sense.files import InputError
from highlight_sense.sessions import make_sessions
from highlight_sense.stored_recordings import store_recording


def told(place: Path) -> dict[str, str]:
    "Read the table that `info` prints."
    lines = printed("info", place, code=0).splitlines()
    return dict(re.split(r"  +", line, maxsplit=1) for line in lines)


def test_a_run_before_and_after_its_first_epoch(tmp_path, monkeypatch):
    "A run that was stopped at once is described as such; a later one, with its best checkpoint."
    clips, out = write_clips(tmp_path/"clips", 8, 8), tmp_path/"run"

    def stop(*arguments: object) -> None: raise InputError("found a test, expected none; stop here")

    monkeypatch.setattr(runs, "fit", stop)
    printed("train", clips, "-o", out, *TRAINING)
    described = told(out)
    assert (described["kind"], described["epochs"]) == ("run", "0 of 1 finished")
    assert "not yet" in described["checkpoint"]
    small_model(out/"best.pt")
    (out/"metrics.jsonl").write_text("{}\n")
    described = told(out)
    assert described["epochs"] == "1 of 1 finished" and described["parameters"] == told(out/"best.pt")["parameters"]
    (out/"config.json").write_text("{")
    assert "config.json: found" in printed("info", out)


def test_detections(tmp_path):
    "A folder of detections, one of them, its highlights.json, and its tables; a damaged one does not hide the others."
    write_rated(tmp_path, 20, 22_050)
    printed("detect", tmp_path/"stream.mka", "-m", tmp_path/"model.pt", "-o", tmp_path/"out", "--top", 2, "--window", 5,
            "--device", "cpu", code=0)
    found = tmp_path/"out"/"stream"
    assert told(found) == told(found/"highlights.json") and told(found)["kind"] == "detection"
    shutil.copytree(found, tmp_path/"out"/"torn")
    (tmp_path/"out"/"torn"/"highlights.json").write_text("{")
    described = told(tmp_path/"out")
    assert described["recordings"] == "2" and re.fullmatch(r"2 highlights in 0:2\d", described["stream"])
    assert "found a file that does not fit" in described["torn"]
    for name, kind, rows in (("highlights.csv", "highlights", "2"), ("scores.csv", "scores of a recording", None)):
        assert told(found/name)["kind"] == kind and told(found/name)["rows"] == (rows or told(found/name)["rows"])


def test_a_recording(tmp_path):
    "Its tracks are counted in words, its frame rate is a decimal number; a file that is missing is called so."
    write_stream(tmp_path/"evening.mka", 6)
    assert "1 channel, starts at" in told(tmp_path/"evening.mka")["audio 0"]
    make_sessions(tmp_path/"sessions", count=1, minutes=0.5, picture=True)
    session, = (tmp_path/"sessions").rglob("*.mkv")
    assert re.fullmatch(r"h264, \d+x\d+, [\d.]+ frames/s", told(session)["video"])
    for name in ("missing.mkv", "missing.md", "missing.csv"):
        assert f"{name}: found no such file or folder, expected one" in printed("info", tmp_path/name)


@pytest.mark.parametrize(("labels", "words"), [
    (None, "found no labels.csv"), ("evening,1,2\nevening,4,5\n", "2 highlights in 1 of the recordings"),
    ("evening,1,99\n", "line 2: found a label that ends at 99")])
def test_recordings(tmp_path, labels, words):
    "A folder of recordings is described with its labels, and a table of labels by its kind."
    write_stream(tmp_path/"evening.mka", 6)
    if labels:
        (tmp_path/"labels.csv").write_text("recording,start_s,end_s\n" + labels)
        assert told(tmp_path/"labels.csv")["kind"] == "labels"
    described = told(tmp_path)
    assert (described["kind"], described["recordings"]) == ("recordings", "1") and words in described["labels"]


def test_whole_recordings_are_not_read(tmp_path, monkeypatch):
    "Their hours come from the shape of a mapped tensor."
    clips = write_clips(tmp_path/"clips", 2, 2)
    (clips/"Recording"/"game").mkdir(parents=True)
    store_recording([torch.zeros(2, 80, 77_520)], clips/"Recording"/"game"/"stream0.pt", "stream0.mkv", [])
    monkeypatch.setattr(np, "ascontiguousarray", _small_only)
    assert told(clips)["their hours"] == "0.5"


def _small_only(values: np.ndarray, make=np.ascontiguousarray) -> np.ndarray:
    "Copy what a clip holds; fail for an hour."
    assert values.size < 1e6, "a whole recording was read"
    return make(values)


def test_another_table(tmp_path):
    "Any table is described, and anything else gets one line."
    (tmp_path/"a.csv").write_text(json.dumps({"a": 1}) + "\n1\n")
    assert told(tmp_path/"a.csv")["kind"] == "table"
    (tmp_path/"b.csv").write_bytes(b"\xff\x00\x01")
    assert "b.csv: found bytes" in printed("info", tmp_path/"b.csv")
