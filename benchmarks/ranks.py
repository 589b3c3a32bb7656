"""Training in several processes: how fast, and how far from one process.

    python benchmarks/ranks.py CLIPS            one process with two threads and two with one, in turn
    python benchmarks/ranks.py CLIPS --losses   losses of every step in 1, 2 and 4 processes, and the validation AP;
                                                also of one process that rounds its first gradient otherwise

CLIPS is a clip folder or a pack. Each training is a call of `torchrun` for two epochs by defaults, in single precision,
except that it draws one window around each highlight. Speeds are those of the steps after the first five of each epoch.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import torch

from highlight_sense import train as lesson
from highlight_sense.config import TrainConfig
from highlight_sense.run import train

WARM = 5  # steps of an epoch that do not count


def nudge(state) -> None:
    "Move a third of the gradient up by one part in 2**23, and a third down."
    for weights in state.model.parameters():
        if weights.grad is None: continue
        turn = torch.arange(weights.numel()).view_as(weights) % 3 - 1
        weights.grad.mul_(1 + turn * 2.0 ** -23)


def work(clips: Path, out: Path, device: str, nudged: bool) -> None:
    "Train in this process, together with its like, and note each step."
    step, notes = lesson.step_if_finite, []

    def noting(state, loss, norm, clips) -> None:
        if nudged and not notes: nudge(state)
        step(state, loss, norm, clips)
        notes.append([state.epoch, time.perf_counter(), loss.item(), clips])

    config = TrainConfig(epochs=2, draws=1, device=device, precision="fp32")
    with mock.patch.object(lesson, "step_if_finite", noting): state = train(clips, out, config, progress=False)
    if os.environ["RANK"] == "0": (out/"steps.json").write_text(json.dumps([notes, state.history]))


def train_by(processes: int, threads: int, clips: Path, device: str, *options: str) -> tuple[list, list]:
    "Train in new processes; return what was noted of the steps, and the history."
    with tempfile.TemporaryDirectory() as folder:
        run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        run += [__file__, str(clips), "--work", f"{folder}/run", "--device", device, *options]
        subprocess.run(run, check=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        return json.loads(Path(folder, "run", "steps.json").read_text())


def speed(notes: list) -> float:
    "Clips per second."
    seconds = clips = 0
    for epoch in {note[0] for note in notes}:
        steps = [note for note in notes if note[0] == epoch][WARM:]
        seconds += steps[-1][1] - steps[0][1]
        clips += sum(note[3] for note in steps[1:])
    return clips / seconds


def measure_speed(clips: Path, device: str, turns: int) -> None:
    "Print how two processes compare with one."
    ratios = []
    for _ in range(turns):
        one, two = (speed(train_by(*way, clips, device)[0]) for way in ((1, 2), (2, 1)))
        ratios.append(two / one)
        print(f"one process, two threads: {one:.1f} clips/s; two processes, one thread each: {two:.1f}", flush=True)
    print(f"ratio: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")


def measure_losses(clips: Path, device: str) -> None:
    "Print how far the losses of several ways to train are from those of one process."
    ways = {"one process": (1,), "one process, nudged": (1, "--nudge"), "two": (2,), "four": (4,)}
    alone = None
    for name, (processes, *options) in ways.items():
        notes, history = train_by(processes, 1, clips, device, *options)
        losses = np.array([note[2] for note in notes])
        if alone is None: alone = losses
        apart = ", ".join(f"{np.abs(losses - alone)[:steps].max():.1e} in {steps}" for steps in (10, 25, 50))
        ap = ", ".join(f"{row['ap']:.6f}" for row in history)
        print(f"{name}: losses apart by at most {apart} steps; AP {ap}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clips", type=Path)
    parser.add_argument("--losses", action="store_true")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--nudge", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work: work(options.clips, options.work, options.device, options.nudge)
    elif options.losses: measure_losses(options.clips, options.device)
    else: measure_speed(options.clips, options.device, options.turns)


if __name__ == "__main__": main()
