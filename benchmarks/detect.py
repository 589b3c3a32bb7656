"""How fast a recording with two AAC tracks is searched for highlights, and how much memory that takes.

    python benchmarks/detect.py 0.5 4                     hours of the recordings; a full-size network with random weights
    python benchmarks/detect.py 0.5 --checkpoint best.pt  with a trained one

The whole of `highlight-sense detect` is measured: starting Python, decoding, log-mel, scoring, choosing, explaining, writing.
"""
import argparse
import os
import platform
import subprocess
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from highlight_sense.audio import write_pieces
from highlight_sense.checkpoint import save_checkpoint
from highlight_sense.model import HighlightCRNN
from highlight_sense.sessions import SYNTH_RATE_HZ, synthetic_session


def make_recording(path: Path, hours: float) -> None:
    "Ten minutes of a synthetic session, over and over."
    session = synthetic_session(seed=0, minutes=10)
    tracks, second = np.stack([session.voice, session.game]), SYNTH_RATE_HZ
    seconds = range(round(hours * 3600))
    pieces = ((number, second * k, tracks[number, second * (k % 600):second * (k % 600 + 1)]) for k in seconds for number in (0, 1))
    write_pieces(path, ["Mic/Aux", "Desktop Audio"], pieces, SYNTH_RATE_HZ, "aac")


def measure(checkpoint: Path, recording: Path, out: Path) -> tuple[float, float, float]:  # wall s, processor s, peak memory in GiB
    "One detection, as a process of its own."
    began = time.perf_counter()
    command = ["highlight-sense", "detect", checkpoint, recording, "-o", out, "--top", "10"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    if status: raise SystemExit(f"the detection ended with status {status}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024 ** 2


def main() -> None:
    "A line for each length."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hours", nargs="+", type=float)
    parser.add_argument("--checkpoint", type=Path)
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = options.checkpoint or Path(folder)/"random.pt"
        if options.checkpoint is None: save_checkpoint(checkpoint, HighlightCRNN(), epochs=0, threshold=0.5)
        for hours in options.hours:
            recording = Path(folder)/f"{hours:g} h.mkv"
            make_recording(recording, hours)
            wall_s, processor_s, peak_gib = measure(checkpoint, recording, Path(folder)/"out")
            print(f"{hours:g} h: {wall_s:.0f} s, {hours * 3600 / wall_s:.0f} times real time, {processor_s:.0f} s of processor, "
                  f"{peak_gib:.2f} GiB, load {os.getloadavg()[0]:.1f}", flush=True)
            recording.unlink()


if __name__ == "__main__": main()
