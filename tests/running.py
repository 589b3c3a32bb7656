"""What tests of the command line share.

Commands in this process, commands in processes that are killed, and small models, clips and recordings to give them.
"""
import contextlib
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from highlight_sense.checkpoint import save_checkpoint
from highlight_sense.cli import main
from highlight_sense.config import ModelConfig
from highlight_sense.media import write_recording
from highlight_sense.model import HighlightCRNN

RATE_HZ = 22_050
TRAINING = (
    "--epochs", 1, "--batch-size", 4, "--max-duration-s", 3, "--val-split", 0.4,
    "--device", "cpu", "--precision", "fp32")


def run(*words: object) -> tuple[int, str, str]:
    "Run a command in this process; return its exit code, its output and its error stream."
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try: main([str(word) for word in words])
        except SystemExit as exit: code = exit.code or 0
    return code, out.getvalue(), err.getvalue()


def printed(*words: object, code: int = 2) -> str:
    "Run a command that exits with this code; return both streams. An error must be one line, with warnings before it."
    found, out, err = run(*words)
    assert found == code and "Traceback" not in err, (words, found, err[-2000:])
    if code == 2:
        errors = re.findall("highlight-sense: (?!warning: |the network runs on )", err)
        assert len(errors) == 1 and "expected" in err and err.endswith("\n"), err
    return out + err


# --- small models, clips and recordings

def small_model(path: Path) -> Path:
    "Write a checkpoint with random weights, for clips of three seconds."
    torch.manual_seed(0)
    model = HighlightCRNN(cnn_channels=(4, 4, 8, 8), rnn_hidden=8, att_dim=8)
    save_checkpoint(path, model, epochs=1, max_frames=130, threshold=0.4)
    return path


def rating_model(path: Path) -> Path:
    "Write a checkpoint with random weights and one layer, for windows of any length."
    torch.manual_seed(0)
    shape = ModelConfig(cnn_channels=(4, 4, 8, 8), rnn_hidden=8, rnn_layers=1, att_dim=4)
    save_checkpoint(path, HighlightCRNN.from_config(shape), epochs=1, threshold=0.9)
    return path


def uneven_noise(seconds: int, rate_hz: int) -> np.ndarray:  # (2, samples)
    "Make noise for two tracks, with another level in every second, so that some moments score higher than others."
    rng = np.random.default_rng(0)
    levels = np.repeat(rng.uniform(0.01, 0.3, (2, seconds)), rate_hz, axis=1)
    return levels * rng.normal(size=levels.shape)


def write_rated(place: Path, seconds: int, rate_hz: int) -> None:
    "Write a recording of uneven noise, `stream.mka`, and a model that rates its moments, `model.pt`."
    mic, game = uneven_noise(seconds, rate_hz)
    write_recording(place/"stream.mka", {"Mic": mic, "Game": game}, rate_hz)
    rating_model(place/"model.pt")


def detect_rated(place: Path, out: Path, *options: object) -> str:
    "Detect in what `write_rated` wrote, the best three unless the options say otherwise; return what is printed."
    words = "detect", "-m", place/"model.pt", place/"stream.mka", "-o", out, "--max-length", 8, "--device", "cpu"
    code, said, complaint = run(*words, *(options or ("--top", 3)))
    assert code == 0, complaint
    return said


def write_clips(place: Path, positives: int, negatives: int, frames: int = 60) -> Path:
    "Write clips of noise; each stream has both classes."
    rng = np.random.default_rng(0)
    for label, count in (("Positive", positives), ("Negative", negatives)):
        (place/label/"game").mkdir(parents=True)
        for number in range(count):
            mel = torch.from_numpy(rng.normal(-8, 2, (2, 80, frames)).astype(np.float32))
            part = 2 * (number % 4) + (label == "Positive")
            torch.save({"tensor": mel}, place/label/"game"/f"stream{number // 4}_part{part}.pt")
    return place


def write_rising_clips(place: Path, count: int, rise: float, tell: bool = False) -> Path:
    "Write clips of noise, of many lengths; positives are louder for a while, and with `tell` most say when."
    rng = np.random.default_rng(0)
    for number in range(count):
        mel = rng.normal(-8, 2, (2, 80, int(rng.integers(60, 160)))).astype(np.float32)
        if number % 2: mel[:, :40, 20:40] += rise
        record = {"tensor": torch.from_numpy(mel)}
        if tell and number % 5: record["highlights_s"] = [[0.4, 1.0]] if number % 2 else []
        path = place/("Positive" if number % 2 else "Negative")/"game"/f"stream{number // 4}_part{number % 4}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(record, path)
    return place


def write_stream(path: Path, seconds: int = 8, voice: str = "Mic/Aux") -> Path:
    "Write a recording whose two tracks sound for two seconds in every four."
    times_s = np.arange(seconds * RATE_HZ) / RATE_HZ

    def tone(hz: float) -> np.ndarray:
        return (0.3 * np.sin(2 * np.pi * hz * times_s) * (times_s % 4 < 2)).astype(np.float32)

    write_recording(path, {voice: tone(300), "Desktop Audio": tone(900)}, RATE_HZ, "aac")
    return path


# --- processes that are killed: forks of a warm process, so they import nothing

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

LAUNCHER = '''
import json, os, shutil, signal, sys, time, traceback
from pathlib import Path
from highlight_sense.cli import main
from highlight_sense.config import ModelConfig

def start(job, prepare=lambda: None, errors=os.devnull):
    "Start a command, given by its words, or a function in a process of its own; return its id."
    pid = os.fork()
    if pid: return pid
    for stream, place in ((1, os.devnull), (2, errors)): os.dup2(os.open(place, os.O_WRONLY | os.O_CREAT), stream)
    code = 1
    try:
        prepare()
        job() if callable(job) else main(job)
        code = 0
    except SystemExit as exit: code = exit.code or 0
    except BaseException: traceback.print_exc()
    finally: os._exit(code)

def status(pid):
    "Wait for a process, and return its exit code."
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

def kill_after(pid, wait_s):
    "Kill a process after some seconds, and return its exit code: 0 if it finished first."
    time.sleep(wait_s)
    os.kill(pid, signal.SIGKILL)
    return status(pid)

def kill_while_it_runs(begin, place, wait_s):
    "Kill a process that writes only to `place`; if it finishes first, restore `place` and kill the next one sooner."
    kept = place.with_name(place.name + " before")
    if place.exists(): shutil.copytree(place, kept)
    while (code := kill_after(begin(), wait_s)) == 0:
        shutil.rmtree(place)
        if kept.exists(): shutil.copytree(kept, place)
        wait_s /= 2
    shutil.rmtree(kept, ignore_errors=True)
    return code

def die_at(n, after=False, names=("replace",)):
    "Have this process kill itself at the n-th call of these functions of `os`, just before the call or just after."
    calls = iter(range(1, 100_000))
    def counted(function):
        def count(*arguments, **named):
            last = next(calls) == n
            if last and not after: os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **named)
            if last: os.kill(os.getpid(), signal.SIGKILL)
            return result
        return count
    for name in names: setattr(os, name, counted(getattr(os, name)))
'''


def launch(script: str, *arguments: object, timeout_s: float = 600) -> object:
    "Run a script that starts such processes: `json.loads(sys.argv[1])` are its arguments, its JSON output is returned."
    command = [sys.executable, "-c", LAUNCHER + script, json.dumps(arguments, default=str)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, text=True, capture_output=True, timeout=timeout_s, env=environment)
    assert ended.returncode == 0, ended.stderr[-2000:]
    return json.loads(ended.stdout)
