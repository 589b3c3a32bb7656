"""Extreme sounds, tiny data sets, full disks, missing inputs.

A command gives finite results or one line, and earlier files stay.
"""
import errno
import importlib
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from running import RATE_HZ, TRAINING, printed, small_model, write_clips, write_stream

from highlight_sense.files import only_writer
from highlight_sense.media import write_recording

SECONDS = 8
TIMES_S = np.arange(SECONDS * RATE_HZ) / RATE_HZ
SOUNDS = {
    "silence": np.zeros(len(TIMES_S)), "clipped": np.sign(np.sin(2000 * TIMES_S)),
    "offset": np.full(len(TIMES_S), 0.9), "tone": 0.5 * np.sin(6000 * TIMES_S),
    "faint": np.full(len(TIMES_S), 1e-9), "click": np.where(np.arange(len(TIMES_S)) == 70_000, 1.0, 0.0),
    "noise": np.random.default_rng(0).uniform(-1, 1, len(TIMES_S))}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    "A folder with clips, a labelled recording, a checkpoint and a detection."
    place = tmp_path_factory.mktemp("limits")
    write_clips(place/"clips", 12, 12)
    write_stream(place/"stream.mka", SECONDS)
    (place/"labels.csv").write_text("recording,start_s,end_s\nstream,1,2\nstream,5,6\n")
    small_model(place/"model.pt")
    printed("detect", "--model", place/"model.pt", place/"stream.mka", "-o", place/"found", "--top", 2, code=0)
    printed("pack", place/"clips", "-o", place/"clips.pack", code=0)
    return place


# --- extreme sounds and tiny data sets

def require_finite(output: str) -> None:
    "Require that the metrics on the last line are finite."
    measured = json.loads(output.splitlines()[-1])
    numbers = [value for value in measured.values() if not isinstance(value, (list, str))]
    assert all(value is None or math.isfinite(value) for value in numbers)


@pytest.mark.parametrize("name", SOUNDS)
def test_sounds(healthy, tmp_path, name):
    "Any sound as voice, as game and as both gives finite scores, and clips that can be evaluated."
    sound, other = SOUNDS[name].astype(np.float32), SOUNDS["tone"].astype(np.float32)
    for number, (voice, game) in enumerate(((sound, other), (other, sound), (sound, sound))):
        path = tmp_path/f"stream{number}.mka"
        write_recording(path, {"Mic/Aux": voice, "Desktop Audio": game}, RATE_HZ)
        printed("detect", "--model", healthy/"model.pt", path, "-o", tmp_path/"found", "--top", 2, code=0)
        table = pd.read_csv(tmp_path/"found"/path.stem/"scores.csv")
        windows, curve = table[table.kind == "window"], table[table.kind == "curve"]
        assert len(windows) > 5 and np.isfinite(windows[["logit", "probability", "peak_s"]].to_numpy()).all()
        assert curve.probability.between(0, 1).all()
        json.loads((tmp_path/"found"/path.stem/"highlights.json").read_text(), parse_constant=pytest.fail)
    lines = [f"stream{number},{at},{at + 1}\n" for number in range(3) for at in (1, 5)]
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\n" + "".join(lines))
    recordings = [tmp_path/f"stream{number}.mka" for number in range(3)]
    printed("prepare", *recordings, "--labels", tmp_path/"labels.csv", "-o", tmp_path/"clips",
         "--negative-s", 1, "--lengths", 43, 65, 1, code=0)
    require_finite(printed("evaluate", healthy/"model.pt", tmp_path/"clips", "--json", "--workers", 0, code=0))


@pytest.mark.parametrize("samples", [1, 2, 500])
def test_short_files(healthy, tmp_path, samples):
    "A recording shorter than a window is refused; `info` still describes it."
    sound = np.full(samples, 0.5, np.float32)
    write_recording(tmp_path/"short.mka", {"Mic/Aux": sound, "Desktop Audio": sound}, RATE_HZ)
    message = printed("detect", "--model", healthy/"model.pt", tmp_path/"short.mka", "-o", tmp_path/"found")
    assert "found a recording of 0.0" in message
    assert "recording" in printed("info", tmp_path/"short.mka", code=0)


def test_clips_of_one_frame(healthy, tmp_path):
    "Clips shorter than one step of the network, with constant and huge values, give finite metrics and weights."
    clips = write_clips(tmp_path/"clips", 8, 8, 1)
    for path, value in zip(sorted(clips.rglob("*.pt")), (0.0, -20.7, 30.0, -1e30, 1e30)):
        torch.save({"tensor": torch.full((2, 80, 1), value)}, path)
    require_finite(printed("evaluate", healthy/"model.pt", clips, "--json", "--workers", 0, code=0))
    printed("train", clips, "-o", tmp_path/"run", *TRAINING, code=0)
    weights = torch.load(tmp_path/"run"/"best.pt", weights_only=True)["model"]
    assert all(value.isfinite().all() for value in weights.values())


@pytest.mark.parametrize("positives, negatives", [(0, 0), (1, 0), (1, 1), (6, 0), (0, 6)])
def test_small_sets(healthy, tmp_path, positives, negatives):
    "Too few clips to train or evaluate on are refused before anything is written."
    clips = write_clips(tmp_path/"clips", positives, negatives)
    printed("train", clips, "-o", tmp_path/"run", *TRAINING)
    assert not (tmp_path/"run").exists() or not list((tmp_path/"run").iterdir())
    if positives and negatives: return
    for words in (("evaluate", healthy/"model.pt", clips), ("audit", healthy/"model.pt", clips),
                  ("pack", clips, "-o", tmp_path/"new.pack"), ("info", clips)):
        printed(*words)
    assert not list(tmp_path.glob("new*"))


def test_non_finite_batches(healthy, tmp_path, monkeypatch):
    "Training stops after many non-finite batches in a row, across short epochs too, and keeps its last good weights."
    from highlight_sense import train as training
    assert "in a row" in printed("train", healthy/"clips", "-o", tmp_path/"never", *TRAINING, "--pos-weight", 1e38)
    assert not (tmp_path/"never"/"best.pt").exists()
    start_epoch = training.start_epoch

    def spoil_batches(state, loader, *given):
        start_epoch(state, loader, *given)
        if state.epoch: loader.change = lambda specs, masks, clips: torch.full_like(specs, np.nan)

    monkeypatch.setattr(training, "start_epoch", spoil_batches)
    assert "in a row" in printed("train", healthy/"clips", "-o", tmp_path/"later", *TRAINING[2:], "--epochs", 4)
    for name in ("best.pt", "last.pt"):
        record = torch.load(tmp_path/"later"/name, weights_only=True)
        assert record["epochs"] == 1 and all(value.isfinite().all() for value in record["model"].values())


def test_non_finite_weights(healthy, tmp_path, monkeypatch):
    "Broken weights are not saved in the middle of an epoch, so the run can be resumed."
    from highlight_sense import train as training
    start_epoch = training.start_epoch

    def spoil_weights(state, *given):
        start_epoch(state, *given)
        if state.epoch:
            with torch.no_grad():
                for weights in state.model.parameters(): weights.fill_(3e38)

    words = ("train", healthy/"clips", "-o", tmp_path/"run", *TRAINING[2:], "--epochs", 2, "--save-minutes", 0)
    with monkeypatch.context() as patched:
        patched.setattr(training, "start_epoch", spoil_weights)
        assert "in a row" in printed(*words)
    printed("train", "-o", tmp_path/"run", "--resume", code=0)
    assert torch.load(tmp_path/"run"/"last.pt", weights_only=True)["epochs"] == 2


def test_non_finite_validation(healthy, tmp_path):
    "A pack with NaN is refused before anything is computed or written."
    shutil.copytree(healthy/"clips.pack", tmp_path/"clips.pack")
    mels = np.load(tmp_path/"clips.pack"/"mels.npy", mmap_mode="r+")
    mels[...] = np.nan
    mels.flush()
    assert "NaN or infinity" in printed("train", tmp_path/"clips.pack", "-o", tmp_path/"run", *TRAINING)
    assert not (tmp_path/"run").exists()


# --- full disks, missing rights, missing inputs

def prepare(healthy: Path, out: Path, longest: int = 65) -> tuple:
    "The words that cut the recording into clips."
    return ("prepare", healthy/"stream.mka", "--labels", healthy/"labels.csv", "-o", out, "--negative-s", 1,
            "--lengths", 43, longest, 1)


def verbs(healthy: Path, place: Path) -> dict[str, tuple]:
    "Every command that writes, writing into `place`."
    model, clips, new = healthy/"model.pt", healthy/"clips", place/"new"
    return {
        "prepare": prepare(healthy, new),
        "pack": ("pack", clips, "-o", place/"new.pack"),
        "train": ("train", clips, "-o", new, *TRAINING),
        "evaluate": ("evaluate", model, clips, "--workers", 0, "-o", new),
        "audit": ("audit", model, clips, "--training", clips, "-o", new),  # the same clips: a finding, exit code 3
        "detect": ("detect", "--model", model, healthy/"stream.mka", "-o", new, "--top", 2),
        "publish": ("publish", place/"found"),
        "export": ("export", model, "-o", place/"new.xml"),
        "demo": ("demo", "-o", new)}


VERBS = {  # verb, and the largest file that it may write, in bytes
    "prepare": 3000, "pack": 3000, "train": 30_000, "evaluate": 3000, "audit": 100, "detect": 1500, "publish": 3000,
    "export": 3000, "demo": 100_000}
LIMITED = '''
import json, resource, sys
from highlight_sense import (
    audio, audit, checkpoint, cli, demo, detect, engine, evaluate, packing, prepare, publish, recordings, run,
    sessions, train)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
cli.main(json.loads(sys.argv[2]))
'''


def contents(place: Path) -> dict[str, bytes]:
    "The content of every file in a folder."
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.skipif(os.name == "nt", reason="the size of files is limited the POSIX way")
@pytest.mark.parametrize("verb", VERBS)
def test_no_room(healthy, tmp_path, verb):
    """On a full disk a command ends with one line and leaves no half-written file; with room it succeeds.

    Files limited to a few kilobytes stand for the full disk.
    """
    shutil.copytree(healthy/"found", tmp_path/"found")
    words, before = [str(word) for word in verbs(healthy, tmp_path)[verb]], contents(tmp_path/"found")
    command = [sys.executable, "-c", LIMITED, str(VERBS[verb]), json.dumps(words)]
    ended = subprocess.run(command, text=True, capture_output=True, timeout=200)
    errors = re.findall("highlight-sense: (?!warning: |the network runs on )", ended.stderr)
    assert ended.returncode == 2 and len(errors) == 1 and "Traceback" not in ended.stderr, ended.stderr[-2000:]
    after = contents(tmp_path/"found")
    assert all(after[name] == content for name, content in before.items() if not name.endswith("manifest.json"))
    for path in tmp_path.rglob("*"):
        if path.name.startswith("."): continue
        if path.suffix == ".json": json.loads(path.read_text())
        if path.suffix == ".pt": torch.load(path, weights_only=True)
    if verb == "demo": return  # needs an empty folder and takes minutes: see test_demo.py
    if verb == "train": words += ["--resume"]
    printed(*words, code=3 if verb == "audit" else 0)


RIGHTS = [
    *((verb, errno.EROFS) for verb in VERBS),
    ("detect", errno.ENOSPC), ("pack", errno.EACCES), ("publish", errno.EACCES)]


@pytest.mark.parametrize("verb, number", RIGHTS)
def test_no_rights(healthy, tmp_path, monkeypatch, verb, number):
    "In a folder where no file can be created, every command ends with one line and changes nothing."
    shutil.copytree(healthy/"found", tmp_path/"found")
    before, make = contents(tmp_path/"found"), tempfile.mkstemp

    def refuse(*given, dir=None, **named):
        elsewhere = dir is None or not Path(dir).resolve().is_relative_to(tmp_path.resolve())
        if elsewhere: return make(*given, dir=dir, **named)
        raise OSError(number, os.strerror(number), str(dir))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    printed(*verbs(healthy, tmp_path)[verb])
    assert contents(tmp_path/"found") == before


INTERRUPTED = [  # verb, and the function in which Ctrl-C arrives
    ("prepare", "prepare", "write_record"), ("pack", "packing", "_only_packer"), ("detect", "recordings", "combine"),
    ("evaluate", "train", "judge"), ("publish", "publish", "do_each"), ("demo", "demo", "make_sessions")]


@pytest.mark.parametrize(("verb", "module", "name"), INTERRUPTED)
def test_interrupted(healthy, tmp_path, monkeypatch, verb, module, name):
    "Ctrl-C ends every command with one line that says how to resume; the next call finishes the work."
    words = verbs(healthy, tmp_path)[verb]
    shutil.copytree(healthy/"found", tmp_path/"found")
    with monkeypatch.context() as patched:
        def interrupted(*_, **__): raise KeyboardInterrupt
        patched.setattr(importlib.import_module(f"highlight_sense.{module}"), name, interrupted)
        line = printed(*words, code=130).splitlines()[-1]
    assert line.startswith("highlight-sense: stopped; ") and ("resumes" in line or "starts afresh" in line)
    if verb != "demo": printed(*words, code=0)


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be locked there")
def test_two_writers(healthy, tmp_path):
    "While one process writes into a folder, others refuse to and change nothing."
    shutil.copytree(healthy/"found", tmp_path/"found")
    before, new = contents(tmp_path/"found"), tmp_path/"new"
    with only_writer(tmp_path/"found"/"stream"), only_writer(new):
        for words in (("detect", "-m", healthy/"model.pt", healthy/"stream.mka", "-o", tmp_path/"found", "--top", 1),
                      ("publish", tmp_path/"found"),
                      ("train", healthy/"clips", "-o", new, *TRAINING),
                      ("train", healthy/"clips", "-o", new, "--resume", *TRAINING),
                      prepare(healthy, new, 86)):
            assert "another process that writes into this folder" in printed(*words)
    assert contents(tmp_path/"found") == before and not new.exists()


@pytest.mark.skipif(os.name == "nt", reason="processes are interrupted the POSIX way")
def test_interrupted_with_workers(healthy, tmp_path):
    "Ctrl-C in a terminal also reaches the worker processes, started or not: one line, and no process is left."
    for name in "abcd": shutil.copy(healthy/"stream.mka", tmp_path/f"{name}.mka")
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\n" + "".join(f"{name},1,2\n" for name in "abcd"))
    recordings = [tmp_path/f"{name}.mka" for name in "abcd"]
    words = [*recordings, "--labels", tmp_path/"labels.csv", "-o", tmp_path/"clips", "--workers", 2, "--negative-s", 1]
    code = "from highlight_sense import prepare; from highlight_sense.cli import main; print('go', flush=True); main()"
    command = [sys.executable, "-c", code, "prepare", *map(str, words)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    process.stdout.readline()
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    err = process.communicate(timeout=100)[1]
    assert process.returncode == 130 and "Traceback" not in err, err[-2000:]
    assert err.count("highlight-sense: stopped; ") == 1, err[-2000:]
    deadline = time.monotonic() + 30
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < deadline:  # multiprocessing's own helper takes a moment to exit
            os.killpg(process.pid, 0)
            time.sleep(0.1)


@pytest.mark.skipif(os.name == "nt", reason="terminals and pipes of POSIX")
def test_terminals_and_pipes(healthy):
    "On a colour terminal the error is the same plain line, and a closed pipe (`| head`) gives no traceback."
    import pty
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", "from highlight_sense.cli import main; main()"]
    environment = {**os.environ, "TERM": "xterm-256color"}
    for more, expected in (((), "-o"), (("-o", "c", "--top", "0"), "top: found 0, expected a number above 0")):
        words = [*command, "detect", "--model", "a.pt", "b.mkv", *more]
        ended = subprocess.run(words, stdout=theirs, stderr=subprocess.PIPE, text=True, env=environment)
        assert ended.returncode == 2 and expected in ended.stderr, ended.stderr
        assert "x1b" not in ended.stderr and len(ended.stderr.splitlines()) == 1, ended.stderr
    os.close(ours)
    os.close(theirs)
    for words in (("info", str(healthy/"model.pt")), ("detect", "--help")):
        reading, writing = os.pipe()
        os.close(reading)
        ended = subprocess.run([*command, *words], stdout=writing, stderr=subprocess.PIPE, text=True)
        os.close(writing)
        assert ended.returncode == 1 and not ended.stderr, ended.stderr


def test_missing_inputs(healthy, tmp_path):
    "Every command prints one line about a missing input, or one of another kind."
    gone, model, clips, out = tmp_path/"gone", healthy/"model.pt", healthy/"clips", ("-o", tmp_path/"out")
    labels, stream = healthy/"labels.csv", healthy/"stream.mka"
    missing = (
        ("info", gone), ("prepare", gone, "--labels", labels, *out), ("prepare", stream, "--labels", gone, *out),
        ("pack", gone, "-o", tmp_path/"new.pack"), ("train", gone, *out), ("train", clips, *out, "--init", gone),
        ("train", *out, "--from-run", gone), ("evaluate", gone, clips), ("evaluate", model, gone),
        ("evaluate", model, stream, "--labels", gone), ("audit", model, gone), ("audit", gone, clips),
        ("export", gone, "-o", tmp_path/"new.xml"), ("detect", "--model", gone, stream, *out),
        ("detect", "--model", model, gone, *out), ("publish", gone))
    of_another_kind = (
        ("detect", "--model", clips, stream, *out), ("detect", "--model", model, labels, *out),
        ("evaluate", model, labels), ("info", __file__), ("audit", labels, clips), ("train", stream, *out))
    for words in (*missing, *of_another_kind): printed(*words)
    for words in (("train", clips, *out, "--init", gone), ("detect", "--model", gone, stream, *out)):
        assert f"{gone}: found no such file, expected a checkpoint" in printed(*words)  # birdnet-team/geomodel#13


def test_vanishing_inputs(healthy, tmp_path, monkeypatch):
    "A clip may vanish between the index and its batch, and a recording before it is published."
    from highlight_sense import run as training
    shutil.copytree(healthy/"clips", tmp_path/"clips")
    split = training.split_clips

    def split_and_lose(table, *given):
        sides = split(table, *given)
        Path(sides[0].path.iloc[0]).unlink()
        return sides

    monkeypatch.setattr(training, "split_clips", split_and_lose)
    assert "no such file" in printed("train", tmp_path/"clips", "-o", tmp_path/"run", *TRAINING)
    shutil.copy(healthy/"stream.mka", tmp_path/"stream.mka")
    printed("detect", "--model", healthy/"model.pt", tmp_path/"stream.mka", "-o", tmp_path/"found", "--top", 2, code=0)
    (tmp_path/"stream.mka").unlink()
    before = contents(tmp_path/"found")
    assert "--recordings" in printed("publish", tmp_path/"found") and contents(tmp_path/"found") == before


@pytest.mark.parametrize("verb", ["prepare", "export"])
def test_replacing_on_a_full_disk(healthy, tmp_path, monkeypatch, verb):
    "Earlier results stay until the new files are safely on disk."
    words = [str(word) for word in verbs(healthy, tmp_path)[verb]]
    printed(*words, code=0)
    made = {name: content for name, content in contents(tmp_path).items() if name.endswith((".pt", ".xml", ".bin"))}
    if verb == "prepare": words += ["--overwrite"]
    def full(file) -> None: raise OSError(errno.ENOSPC, "No space left on device")
    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        printed(*words)
    assert made and made.items() <= contents(tmp_path).items()
    printed(*words, code=0)
    assert {name for name in contents(tmp_path) if name.endswith((".pt", ".xml", ".bin"))} == made.keys()
