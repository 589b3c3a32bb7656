"A training in several processes ends as in one, also if one of them is killed and another number continues."
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from running import launch, needs_fork, run, write_rising_clips

from highlight_sense.checkpoint import load_checkpoint

pytestmark = needs_fork
KILLS, EPOCHS, STEPS = 2, 2, 10  # ten kills: --times 5
# Rounding differs by 1e-7. Where it makes a max-pool choose the other of two values, so small a network's loss moves by
# 1e-5; anything forgotten, such as one clip's dropout, moves it by 1e-3.
SAME_LOSS = 1e-4

SCRIPT = '''
import socket
import torch._dynamo  # which every optimizer imports: once, not in each process
from highlight_sense import ranks, train as lesson
from highlight_sense.config import ModelConfig, TrainConfig
from highlight_sense.run import train

small = ModelConfig(cnn_channels=(4, 4, 8, 8), rnn_hidden=8, rnn_layers=2, att_dim=8)
torch.set_num_threads(1)

def note_losses(place):
    "Write down the loss of every step."
    step = lesson.step_if_finite
    def noting(state, loss, *rest):
        with open(place, "a") as file: print(repr(loss.item()), file=file)
        step(state, loss, *rest)
    lesson.step_if_finite = noting

def at_sum(n, act):
    "Have this process act at the n-th time that it tells the others something."
    add_up, calls = ranks._add_up, iter(range(1, 10**6))
    def counting(values):
        if next(calls) == n: act()
        return add_up(values)
    ranks._add_up = counting

def send(sign): return lambda: os.kill(os.getpid(), sign)

def begin(count, clips, out, settings, prepare=lambda rank: None):
    "Start a training in some processes, as torchrun does; return their ids."
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    config = TrainConfig(batch_size=6, workers=1, val_split=0.3, max_duration_s=4, save_minutes=0, device="cpu",
                         precision="fp32", **settings)
    def set_up(rank):
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": count, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        os.environ.update({name: str(value) for name, value in names.items()})
        prepare(rank)
    def job(): return train(clips, out, config, small, progress=False, resume=True)
    return [start(job, lambda rank=rank: set_up(rank), f"{out}.{rank}.txt") for rank in range(count)]
'''

SAME = '''
clips, out, epochs = json.loads(sys.argv[1])
ended = []
for recipe, count in (("default", 1), ("default", 2), ("default", 4), ("notebook", 1), ("notebook", 4)):
    name = f"{out}/{recipe}{count}"
    settings = {"recipe": recipe, "epochs": epochs if recipe == "default" else 1}
    ended += map(status, begin(count, clips, name, settings, lambda rank: note_losses(f"{name}.{rank}.losses")))
print(json.dumps(ended))
'''

KILLED = '''
clips, out, epochs, kills = json.loads(sys.argv[1])
ended = []
for number, (count, victim, n, others) in enumerate(kills):
    place, settings = f"{out}/killed{number}", {"epochs": epochs}
    began = time.monotonic()
    pids = begin(count, clips, place, settings, lambda rank: rank == victim and at_sum(n, send(signal.SIGKILL)))
    codes = [status(pid) for pid in pids]
    ended.append([codes, time.monotonic() - began, *map(status, begin(others, clips, place, settings))])
print(json.dumps(ended))
'''

SILENT = '''
clips, out = json.loads(sys.argv[1])
ended = []
for silent in (1, 0):
    def prepare(rank):
        ranks._BEAT_S, ranks._SILENT_S = 0.2, 2
        if rank == silent: at_sum(15, send(signal.SIGSTOP))
    pids = begin(2, clips, f"{out}/silent{silent}", {"epochs": 1}, prepare)
    code = status(pids[1 - silent])
    os.kill(pids[silent], signal.SIGKILL)
    ended.append([code, status(pids[silent])])
print(json.dumps(ended))
'''


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_rising_clips(tmp_path_factory.mktemp("ranks")/"clips", count=80, rise=2, tell=True)


@pytest.fixture(scope="module")
def trained(clips, tmp_path_factory) -> Path:
    "Folders of trainings in one, two and four processes."
    place = tmp_path_factory.mktemp("trained")
    assert set(launch(SCRIPT + SAME, clips, place, EPOCHS)) == {0}
    return place


def losses(place: Path) -> np.ndarray:
    "The noted losses of a process."
    return np.array([float(line) for line in place.read_text().split()])


def figures(run: Path) -> list[dict]:
    "The rows of a run's history."
    return [json.loads(line) for line in (run/"metrics.jsonl").read_text().splitlines()]


def require_same(run: Path, alone: Path) -> None:
    "A run must end as another one."
    for found, expected in zip(figures(run), figures(alone), strict=True):
        assert abs(found["ap"] - expected["ap"]) < 0.002
        for name in ("train_loss", "val_loss"): assert abs(found[name] - expected[name]) < SAME_LOSS, name
    (model, info), (other, known) = (load_checkpoint(place/"best.pt") for place in (run, alone))
    assert info.epochs == known.epochs
    with torch.no_grad():
        clip = torch.randn(3, 2, 80, 96)
        torch.testing.assert_close(model(clip)[0], other(clip)[0], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("recipe, count", [("default", 2), ("default", 4), ("notebook", 4)])
def test_any_number_of_processes(trained, recipe, count):
    "The losses of all steps, and the figures of all epochs, are the same."
    alone = losses(trained/f"{recipe}1.0.losses")
    assert recipe == "notebook" or len(alone) == EPOCHS * STEPS
    for rank in range(count):
        apart = np.abs(losses(trained/f"{recipe}{count}.{rank}.losses") - alone)
        assert apart[:10].max() < 1e-6 and apart.max() < SAME_LOSS, (rank, apart)
    require_same(trained/f"{recipe}{count}", trained/f"{recipe}1")


@pytest.mark.long
def test_another_number_continues(clips, trained, tmp_path, times):
    "Killed at any moment, in any process, and continued by another number; the others end, with a line."
    rng, kills = np.random.default_rng(5), []
    for number in range(times * KILLS):
        count = (2, 4)[number % 2]
        others = (4, 1, 2)[number % 3]
        kills.append([count, int(rng.integers(count)), int(rng.integers(1, 150)), others])
    for number, (kill, ended) in enumerate(zip(kills, launch(SCRIPT + KILLED, clips, tmp_path, EPOCHS, kills))):
        count, victim, _, others = kill
        codes, seconds, *continued = ended
        assert codes[victim] == -9 and set(continued) == {0} and len(continued) == others, (kill, ended)
        assert seconds < 30
        for rank in {*range(count)} - {victim}:
            line, = (tmp_path/f"killed{number}.{rank}.txt").read_text().splitlines()[-1:]
            assert "another process ended" in line and "--resume" in line, (kill, line)
        require_same(tmp_path/f"killed{number}", trained/"default1")


def test_a_silent_machine(clips, tmp_path):
    "A process that no longer moves, but whose connections stay open, ends the others; also the one that counts."
    assert launch(SCRIPT + SILENT, clips, tmp_path) == [[2, -9]] * 2
    for silent in (0, 1):
        text = (tmp_path/f"silent{silent}.{1 - silent}.txt").read_text()
        assert f"no sign of life of process {silent}" in text


def test_torchrun(clips, tmp_path):
    "The command that a user types; the first process alone prints, and only clips must be where all find them."
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    options = "--epochs", "1", "--max-duration-s", "2", "--device", "cpu", "--precision", "fp32", "--workers", "0"
    command += ["-m", "highlight_sense", "train", str(clips), "-o", str(tmp_path/"run"), *options]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.count("best.pt has AP") == 1 and ended.stdout.count("training clips") == 1
    assert len(figures(tmp_path/"run")) == 1


def test_variables_of_no_torchrun(clips, tmp_path, monkeypatch):
    "What another program has set ends in one line, before anything waits or is written."
    for count in ("2", "a"):
        monkeypatch.setenv("WORLD_SIZE", count)
        code, _, complaint = run("train", clips, "-o", tmp_path/"run")
        assert code == 2 and complaint.count("\n") == 1 and f"found WORLD_SIZE={count}, expected RANK" in complaint
    assert not (tmp_path/"run").exists()
