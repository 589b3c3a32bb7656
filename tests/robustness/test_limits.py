"Extreme sounds, tiny data sets, full disks, missing inputs: a command ends with finite numbers or one line, and earlier files stay."
import errno
import importlib
import json
import math
import os
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
from running import RATE_HZ, TRAINING, small_model, told, write_clips, write_stream

from highlight_sense.files import only_writer
from highlight_sense.media import write_recording

SECONDS = 8
TIMES_S = np.arange(SECONDS * RATE_HZ) / RATE_HZ
SOUNDS = {
    "silence": np.zeros(len(TIMES_S)), "clipped": np.sign(np.sin(2000 * TIMES_S)), "offset": np.full(len(TIMES_S), 0.9), "tone": 0.5 * np.sin(6000 * TIMES_S),
    "faint": np.full(len(TIMES_S), 1e-9), "click": np.where(np.arange(len(TIMES_S)) == 70_000, 1.0, 0.0),
    "noise": np.random.default_rng(0).uniform(-1, 1, len(TIMES_S))}


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    "Clips, a recording with labels, a checkpoint, and a detection."
    place = tmp_path_factory.mktemp("limits")
    write_clips(place/"clips", 12, 12)
    write_stream(place/"stream.mka", SECONDS)
    (place/"labels.csv").write_text("recording,start_s,end_s\nstream,1,2\nstream,5,6\n")
    small_model(place/"model.pt")
    told("detect", place/"model.pt", place/"stream.mka", "-o", place/"found", "--top", 2, code=0)
    told("pack", place/"clips", "-o", place/"clips.pack", code=0)
    return place


# --- numbers

@pytest.mark.parametrize("name", SOUNDS)
def test_sounds(healthy, tmp_path, name):
    "Any sound as voice, as game, and as both gives finite scores, and clips that can be evaluated."
    other = SOUNDS["tone"]
    for number, tracks in enumerate(((SOUNDS[name], other), (other, SOUNDS[name]), (SOUNDS[name], SOUNDS[name]))):
        path = tmp_path/f"stream{number}.mka"
        write_recording(path, dict(zip(("Mic/Aux", "Desktop Audio"), (track.astype(np.float32) for track in tracks))), RATE_HZ)
        told("detect", healthy/"model.pt", path, "-o", tmp_path/"found", "--top", 2, code=0)
        table = pd.read_csv(tmp_path/"found"/path.stem/"scores.csv")
        windows, curve = table[table.kind == "window"], table[table.kind == "curve"]
        assert len(windows) > 5 and np.isfinite(windows[["logit", "probability", "peak_s"]].to_numpy()).all() and curve.probability.between(0, 1).all()
        json.loads((tmp_path/"found"/path.stem/"highlights.json").read_text(), parse_constant=lambda word: pytest.fail(word))
    lines = [f"stream{number},{at},{at + 1}\n" for number in range(3) for at in (1, 5)]
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\n" + "".join(lines))
    told("prepare", *(tmp_path/f"stream{number}.mka" for number in range(3)), "--labels", tmp_path/"labels.csv", "-o", tmp_path/"clips",
         "--negative-s", 1, "--lengths", 43, 65, 1, code=0)
    measured = json.loads(told("evaluate", healthy/"model.pt", tmp_path/"clips", "--json", "--workers", 0, code=0).splitlines()[-1])
    assert all(value is None or math.isfinite(value) for value in measured.values() if not isinstance(value, (list, str)))


@pytest.mark.parametrize("samples", [1, 2, 500])
def test_short_files(healthy, tmp_path, samples):
    "A recording shorter than a window is refused; `info` still describes it."
    write_recording(tmp_path/"short.mka", {name: np.full(samples, 0.5, np.float32) for name in ("Mic/Aux", "Desktop Audio")}, RATE_HZ)
    assert "at least one window" in told("detect", healthy/"model.pt", tmp_path/"short.mka", "-o", tmp_path/"found")
    assert "recording" in told("info", tmp_path/"short.mka", code=0)


def test_clips_of_one_frame(healthy, tmp_path):
    "Clips shorter than one step of the network, with constant and huge values, give finite metrics and weights."
    clips = write_clips(tmp_path/"clips", 8, 8, 1)
    for path, value in zip(sorted(clips.rglob("*.pt")), (0.0, -20.7, 30.0, -1e30, 1e30)): torch.save({"tensor": torch.full((2, 80, 1), value)}, path)
    measured = json.loads(told("evaluate", healthy/"model.pt", clips, "--json", "--workers", 0, code=0).splitlines()[-1])
    assert all(value is None or math.isfinite(value) for value in measured.values() if not isinstance(value, (list, str)))
    told("train", clips, "-o", tmp_path/"run", *TRAINING, code=0)
    assert all(value.isfinite().all() for value in torch.load(tmp_path/"run"/"best.pt", weights_only=True)["model"].values())


@pytest.mark.parametrize("positives, negatives", [(0, 0), (1, 0), (1, 1), (6, 0), (0, 6)])
def test_small_sets(healthy, tmp_path, positives, negatives):
    "Too few clips to train or evaluate on are refused before anything is written."
    clips = write_clips(tmp_path/"clips", positives, negatives)
    told("train", clips, "-o", tmp_path/"run", *TRAINING)
    assert not (tmp_path/"run").exists() or not list((tmp_path/"run").iterdir())
    if not (positives and negatives):
        model = healthy/"model.pt"
        for words in (("evaluate", model, clips), ("audit", model, clips), ("pack", clips, "-o", tmp_path/"new.pack"), ("info", clips)): told(*words)
        assert not list(tmp_path.glob("new*"))


def test_non_finite_batches(healthy, tmp_path, monkeypatch):
    "Training stops after many non-finite batches in a row, across short epochs too, and keeps its last good weights."
    from highlight_sense import train as training
    assert "in a row" in told("train", healthy/"clips", "-o", tmp_path/"never", *TRAINING, "--pos-weight", 1e38)
    assert not (tmp_path/"never"/"best.pt").exists()
    start_epoch = training.start_epoch

    def spoilt(state, loader, *given):
        start_epoch(state, loader, *given)
        if state.epoch: loader.change = lambda specs, masks, clips: torch.full_like(specs, np.nan)

    monkeypatch.setattr(training, "start_epoch", spoilt)
    assert "in a row" in told("train", healthy/"clips", "-o", tmp_path/"later", *TRAINING[2:], "--epochs", 4)
    for name in ("best.pt", "last.pt"):
        record = torch.load(tmp_path/"later"/name, weights_only=True)
        assert record["epochs"] == 1 and all(value.isfinite().all() for value in record["model"].values())


def test_non_finite_weights(healthy, tmp_path, monkeypatch):
    "Broken weights are not saved in the middle of an epoch, so the run can be resumed."
    from highlight_sense import train as training
    start_epoch = training.start_epoch

    def spoilt(state, *given):
        start_epoch(state, *given)
        if state.epoch:
            with torch.no_grad():
                for weights in state.model.parameters(): weights.fill_(3e38)

    with monkeypatch.context() as patched:
        patched.setattr(training, "start_epoch", spoilt)
        assert "in a row" in told("train", healthy/"clips", "-o", tmp_path/"run", *TRAINING[2:], "--epochs", 2, "--save-minutes", 0)
    told("train", "-o", tmp_path/"run", "--resume", code=0)
    assert torch.load(tmp_path/"run"/"last.pt", weights_only=True)["epochs"] == 2


def test_non_finite_validation(healthy, tmp_path):
    "NaN in a validation clip of a pack is found before anything is computed or written."
    shutil.copytree(healthy/"clips.pack", tmp_path/"clips.pack")
    mels = np.load(tmp_path/"clips.pack"/"mels.npy", mmap_mode="r+")
    mels[...] = np.nan
    mels.flush()
    assert "NaN or infinity" in told("train", tmp_path/"clips.pack", "-o", tmp_path/"run", *TRAINING)
    assert not (tmp_path/"run").exists()


# --- room, rights, inputs

def verbs(healthy: Path, place: Path) -> dict[str, tuple]:
    "Every command that writes, writing into `place`."
    return {"prepare": ("prepare", healthy/"stream.mka", "--labels", healthy/"labels.csv", "-o", place/"new", "--negative-s", 1, "--lengths", 43, 65, 1),
            "pack": ("pack", healthy/"clips", "-o", place/"new.pack"), "train": ("train", healthy/"clips", "-o", place/"new", *TRAINING),
            "evaluate": ("evaluate", healthy/"model.pt", healthy/"clips", "--workers", 0, "-o", place/"new"),
            "audit": ("audit", healthy/"model.pt", healthy/"clips", "--training", healthy/"clips", "-o", place/"new"),  # trained on: bad
            "detect": ("detect", healthy/"model.pt", healthy/"stream.mka", "-o", place/"new", "--top", 2), "publish": ("publish", place/"found"),
            "export": ("export", healthy/"model.pt", "-o", place/"new.xml"), "demo": ("demo", "-o", place/"new")}


VERBS = {"prepare": 3000, "pack": 3000, "train": 30_000, "evaluate": 3000, "audit": 100, "detect": 1500, "publish": 3000,
         "export": 3000, "demo": 100_000}  # most bytes of a file
LIMITED = '''
import json, resource, sys
from highlight_sense import audio, audit, checkpoint, cli, demo, detect, engine, evaluate, packing, prepare, publish, recordings, run, sessions, train
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]),) * 2)
cli.main(json.loads(sys.argv[2]))
'''


def contents(place: Path) -> dict[str, bytes]:
    "The content of every file in a folder."
    return {str(path.relative_to(place)): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.mark.skipif(os.name == "nt", reason="the size of files is limited the POSIX way")
@pytest.mark.parametrize("verb", VERBS)
def test_no_room(healthy, tmp_path, verb):
    "With files limited to a few kilobytes, as on a full disk, a command ends with one line and leaves no half-written file; with room it succeeds."
    shutil.copytree(healthy/"found", tmp_path/"found")
    words, before = [str(word) for word in verbs(healthy, tmp_path)[verb]], contents(tmp_path/"found")
    ended = subprocess.run([sys.executable, "-c", LIMITED, str(VERBS[verb]), json.dumps(words)], text=True, capture_output=True, timeout=200)
    lines = [line for line in ended.stderr.replace("\r", "\n").splitlines() if line.startswith("highlight-sense: ")]
    assert ended.returncode == 2 and len(lines) == 1 and "Traceback" not in ended.stderr, ended.stderr[-2000:]
    after = contents(tmp_path/"found")
    assert all(after[name] == content for name, content in before.items() if name != "manifest.json")
    for path in tmp_path.rglob("*"):
        if path.name.startswith("."): continue
        if path.suffix == ".json": json.loads(path.read_text())
        if path.suffix == ".pt": torch.load(path, weights_only=True)
    if verb == "demo": return  # needs an empty folder and takes minutes: see test_demo.py
    if verb == "train": words += ["--resume"]
    told(*words, code=3 if verb == "audit" else 0)


RIGHTS = [*((verb, errno.EROFS) for verb in VERBS), ("detect", errno.ENOSPC), ("pack", errno.EACCES), ("publish", errno.EACCES)]


@pytest.mark.parametrize("verb, number", RIGHTS)
def test_no_rights(healthy, tmp_path, monkeypatch, verb, number):
    "In a folder where no file can be created, every command ends with one line and changes nothing."
    shutil.copytree(healthy/"found", tmp_path/"found")
    before, make = contents(tmp_path/"found"), tempfile.mkstemp

    def refuse(*given, dir=None, **named):
        if dir is None or not Path(dir).resolve().is_relative_to(tmp_path.resolve()): return make(*given, dir=dir, **named)
        raise OSError(number, os.strerror(number), str(dir))

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    told(*verbs(healthy, tmp_path)[verb])
    assert contents(tmp_path/"found") == before


INTERRUPTED = [  # verb, and the function in which Ctrl-C arrives
    ("prepare", "prepare", "write_record"), ("pack", "packing", "only_packer"), ("detect", "recordings", "combine"),
    ("evaluate", "train", "judge"), ("publish", "publish", "do_each"), ("demo", "demo", "make_sessions")]


@pytest.mark.parametrize(("verb", "module", "name"), INTERRUPTED)
def test_interrupted(healthy, tmp_path, monkeypatch, verb, module, name):
    "Ctrl-C ends every command with one line that says how to resume; the next call finishes the work."
    words = {"prepare": ("prepare", healthy/"stream.mka", "--labels", healthy/"labels.csv", "-o", tmp_path/"new", "--negative-s", 1, "--lengths", 43, 86, 1),
             "pack": ("pack", healthy/"clips", "-o", tmp_path/"new.pack"), "demo": ("demo", "-o", tmp_path/"demo"),
             "detect": ("detect", healthy/"model.pt", healthy/"stream.mka", "-o", tmp_path/"new", "--top", 1),
             "evaluate": ("evaluate", healthy/"model.pt", healthy/"clips", "--workers", 0, "-o", tmp_path/"new"),
             "publish": ("publish", tmp_path/"found", "--chapters")}[verb]
    shutil.copytree(healthy/"found", tmp_path/"found")
    with monkeypatch.context() as patched:
        def interrupted(*_, **__): raise KeyboardInterrupt
        patched.setattr(importlib.import_module(f"highlight_sense.{module}"), name, interrupted)
        said = told(*words, code=130).splitlines()[-1]
    assert said.startswith("highlight-sense: stopped; ") and ("resumes" in said or "starts afresh" in said)
    if verb != "demo": told(*words, code=0)


@pytest.mark.skipif(os.name == "nt", reason="folders cannot be locked there")
def test_two_at_a_time(healthy, tmp_path):
    "While one process writes into a folder, others refuse to and change nothing."
    shutil.copytree(healthy/"found", tmp_path/"found")
    before, new = contents(tmp_path/"found"), tmp_path/"new"
    with only_writer(tmp_path/"found"/"stream"), only_writer(new):
        for words in (("detect", healthy/"model.pt", healthy/"stream.mka", "-o", tmp_path/"found", "--top", 1), ("publish", tmp_path/"found"),
                      ("train", healthy/"clips", "-o", new, *TRAINING), ("train", healthy/"clips", "-o", new, "--resume", *TRAINING),
                      ("prepare", healthy/"stream.mka", "--labels", healthy/"labels.csv", "-o", new, "--negative-s", 1, "--lengths", 43, 86, 1)):
            assert "another process that writes into this folder" in told(*words)
    assert contents(tmp_path/"found") == before and not new.exists()


@pytest.mark.skipif(os.name == "nt", reason="processes are interrupted the POSIX way")
def test_interrupted_with_workers(healthy, tmp_path):
    "Ctrl-C in a terminal also reaches the worker processes, started or not: one line, and no process is left."
    for name in "abcd": shutil.copy(healthy/"stream.mka", tmp_path/f"{name}.mka")
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\n" + "".join(f"{name},1,2\n" for name in "abcd"))
    words = *(tmp_path/f"{name}.mka" for name in "abcd"), "--labels", tmp_path/"labels.csv", "-o", tmp_path/"clips", "--workers", 2, "--negative-s", 1
    begin = "from highlight_sense import prepare; from highlight_sense.cli import main; print('go', flush=True); main()"
    command = [sys.executable, "-c", begin, "prepare", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    process.stdout.readline()
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    err = process.communicate(timeout=100)[1]
    assert process.returncode == 130 and "Traceback" not in err and err.count("highlight-sense: stopped; ") == 1, err[-2000:]
    patience = time.monotonic() + 30
    with pytest.raises(ProcessLookupError):
        while time.monotonic() < patience: os.killpg(process.pid, 0); time.sleep(0.1)  # multiprocessing's own helper takes a moment


@pytest.mark.skipif(os.name == "nt", reason="terminals and pipes of POSIX")
def test_terminals_and_pipes(healthy):
    "On a colour terminal the error is the same plain line, and a closed pipe (`| head`) gives no traceback."
    import pty
    ours, theirs = pty.openpty()
    for more, expected in (((), "-o"), (("-o", "c", "--top", "0"), "top: found 0, expected a number above 0")):
        command = [sys.executable, "-c", "from highlight_sense.cli import main; main()", "detect", "a.pt", "b.mkv", *more]
        ended = subprocess.run(command, stdout=theirs, stderr=subprocess.PIPE, text=True, env={**os.environ, "TERM": "xterm-256color"})
        assert ended.returncode == 2 and expected in ended.stderr and "x1b" not in ended.stderr and len(ended.stderr.splitlines()) == 1, ended.stderr
    os.close(ours); os.close(theirs)
    for words in (("info", str(healthy/"model.pt")), ("detect", "--help")):
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-c", "from highlight_sense.cli import main; main()", *words]
        ended = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True)
        os.close(writing)
        assert ended.returncode == 1 and not ended.stderr, ended.stderr


def test_missing_inputs(healthy, tmp_path):
    "Missing inputs, and inputs of another kind: one line from every command."
    gone, model, clips, found = tmp_path/"gone", healthy/"model.pt", healthy/"clips", tmp_path/"out"
    labels, stream = healthy/"labels.csv", healthy/"stream.mka"
    for words in (("info", gone), ("prepare", gone, "--labels", labels, "-o", found), ("prepare", stream, "--labels", gone, "-o", found),
                  ("pack", gone, "-o", tmp_path/"new.pack"), ("train", gone, "-o", found), ("train", clips, "-o", found, "--init", gone),
                  ("train", "-o", found, "--from-run", gone), ("evaluate", gone, clips), ("evaluate", model, gone),
                  ("evaluate", model, stream, "--labels", gone),
                  ("audit", model, gone), ("audit", gone, clips), ("export", gone, "-o", tmp_path/"new.xml"), ("detect", gone, stream, "-o", found),
                  ("detect", model, gone, "-o", found), ("publish", gone), ("detect", clips, stream, "-o", found), ("detect", model, labels, "-o", found),
                  ("evaluate", model, labels), ("info", labels), ("audit", labels, clips), ("train", stream, "-o", found)):
        told(*words)


def test_vanishing_inputs(healthy, tmp_path, monkeypatch):
    "A clip that disappears between the index and its batch; a recording that disappears before it is published."
    from highlight_sense import run as training
    shutil.copytree(healthy/"clips", tmp_path/"clips")
    split = training.split_clips

    def split_and_lose(table, *given):
        sides = split(table, *given)
        Path(sides[0].path.iloc[0]).unlink()
        return sides

    monkeypatch.setattr(training, "split_clips", split_and_lose)
    assert "no such file" in told("train", tmp_path/"clips", "-o", tmp_path/"run", *TRAINING)
    shutil.copy(healthy/"stream.mka", tmp_path/"stream.mka")
    told("detect", healthy/"model.pt", tmp_path/"stream.mka", "-o", tmp_path/"found", "--top", 2, code=0)
    (tmp_path/"stream.mka").unlink()
    before = contents(tmp_path/"found")
    assert "--recordings" in told("publish", tmp_path/"found") and contents(tmp_path/"found") == before


@pytest.mark.parametrize("verb", ["prepare", "export"])
def test_replacing_on_a_full_disk(healthy, tmp_path, monkeypatch, verb):
    "Earlier results stay until the new files are safely on disk."
    words = [str(word) for word in verbs(healthy, tmp_path)[verb]]
    told(*words, code=0)
    made = {name: content for name, content in contents(tmp_path).items() if name.endswith((".pt", ".xml", ".bin"))}
    again, sync = words + ["--overwrite"] * (verb == "prepare"), os.fsync
    def full(file) -> None: raise OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(os, "fsync", full)
    told(*again)
    assert made and made.items() <= contents(tmp_path).items()
    monkeypatch.setattr(os, "fsync", sync)
    told(*again, code=0)
    assert {name for name in contents(tmp_path) if name.endswith((".pt", ".xml", ".bin"))} == made.keys()
