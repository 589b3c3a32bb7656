"""How fast `highlight-sense detect` searches a recording with two AAC tracks, and how much memory it takes.

    python benchmarks/detect.py 0.5 4                     hours; a full-size network with random weights
    python benchmarks/detect.py 0.5 --checkpoint best.pt  with a trained one
    python benchmarks/detect.py 4 --engine openvino       in OpenVINO

The whole command is measured, several times: Python, decoding, log-mel, scoring, choosing, explaining, writing.
"""
import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from scipy.signal import resample_poly

from highlight_sense.checkpoint import save_checkpoint
from highlight_sense.model import HighlightCRNN
from highlight_sense.sessions import synthetic_session
from highlight_sense.synth import SYNTH_RATE_HZ

RATE_HZ = 48_000
SAMPLES = 1024  # in a packet of AAC


def make_recording(path: Path, hours: float) -> None:
    "Repeat ten minutes of a synthetic session as OBS writes sound: two tracks of AAC, 48 kHz, stereo, 160 kbit/s."
    session = synthetic_session(seed=0, minutes=10)
    tracks = session.voice, session.game
    voice, game = (resample_poly(track, RATE_HZ, SYNTH_RATE_HZ).astype(np.float32) for track in tracks)
    sides = [voice, voice], [game, np.roll(game, 30)]  # a voice in the middle, a game that has width
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("aac", rate=RATE_HZ, layout="stereo", bit_rate=160_000) for _ in sides]
        for stream, title in zip(streams, ("Mic/Aux", "Desktop Audio")): stream.metadata["title"] = title
        tracks = [encode(stream, np.stack(side)) for stream, side in zip(streams, sides)]
        for number in range(round(hours * 3600 * RATE_HZ / SAMPLES)):
            for stream, track in zip(streams, tracks):
                packet = av.Packet(track[number % len(track)])
                packet.stream, packet.time_base, packet.is_keyframe = stream, Fraction(1, RATE_HZ), True
                packet.pts = packet.dts = number * SAMPLES
                packet.duration = SAMPLES
                container.mux(packet)


def encode(stream: av.AudioStream, sound: np.ndarray) -> list[bytes]:
    "The packets of a sound, (channels, samples)."
    frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
    return [bytes(packet) for part in (frame, None) for packet in stream.encode(part)]


def measure(
    checkpoint: Path,
    recording: Path,
    out: Path,
    options: list[str],
) -> tuple[float, float, float]:  # wall s, CPU s, peak memory in GiB
    "Run a detection in its own process, which prints its peak memory; the system's figure would include this process."
    began = time.perf_counter()
    peak = "print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    code = f"from highlight_sense.cli import main; main(); {peak}"
    command = [sys.executable, "-c", code, "detect", checkpoint, recording, "-o", out, "--top", "10", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status: raise SystemExit(f"the detection ended with status {status}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, int(printed.split()[-2]) / 1024 ** 2


def described(values: list[float], digits: int) -> str:
    "The median, the lowest and the highest value."
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def main() -> None:
    "Print a line for each length."
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hours", nargs="+", type=float)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--precision", default="auto")
    chosen = parser.parse_args()
    versions = f"Python {platform.python_version()}, torch {torch.__version__}"
    print(f"{platform.machine()}, {os.cpu_count()} cores, {versions}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = chosen.checkpoint or Path(folder)/"random.pt"
        if chosen.checkpoint is None: save_checkpoint(checkpoint, HighlightCRNN(), epochs=0, threshold=0.5)
        for hours in chosen.hours:
            recording = Path(folder)/f"{hours:g} h.mkv"
            options = ["--engine", chosen.engine, "--precision", chosen.precision]
            make_recording(recording, hours)
            outs = [Path(folder)/f"{hours:g} h, {number}" for number in range(chosen.repeats)]  # new: nothing is reused
            runs = [measure(checkpoint, recording, out, options) for out in outs]
            settings = json.loads(next(outs[0].glob("*/highlights.json")).read_text())["settings"]
            walls_s, cpus_s, peaks_gib = zip(*runs)
            speeds = described([hours * 3600 / wall_s for wall_s in walls_s], 1)
            print(f"{hours:g} h, {settings['engine']}, {settings['precision']}, "
                  f"median (lowest to highest) of {len(runs)}: "
                  f"{described(walls_s, 1)} s, {speeds} times real time, {described(cpus_s, 1)} s of CPU, "
                  f"peak {described(peaks_gib, 2)} GiB, load {os.getloadavg()[0]:.1f}", flush=True)
            recording.unlink()


if __name__ == "__main__": main()
