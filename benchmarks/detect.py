"""How fast a recording with two AAC tracks is searched for highlights, and how much memory that takes.

    python benchmarks/detect.py 0.5 4                     hours of the recordings; a full-size network with random weights
    python benchmarks/detect.py 0.5 --checkpoint best.pt  with a trained one

The whole of `highlight-sense detect` is measured: starting Python, decoding, log-mel, scoring, choosing, explaining, writing.
"""
import argparse
import os
import platform
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
from highlight_sense.sessions import SYNTH_RATE_HZ, synthetic_session

RATE_HZ = 48_000
SAMPLES = 1024  # in a packet of AAC


def make_recording(path: Path, hours: float) -> None:
    "Ten minutes of a synthetic session, over and over, as OBS writes sound: two tracks of AAC, 48 kHz, stereo, 160 kbit/s."
    session = synthetic_session(seed=0, minutes=10)
    voice, game = (resample_poly(track, RATE_HZ, SYNTH_RATE_HZ).astype(np.float32) for track in (session.voice, session.game))
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


def measure(checkpoint: Path, recording: Path, out: Path) -> tuple[float, float, float]:  # wall s, processor s, peak memory in GiB
    "One detection, as a process of its own, which says itself how much it held: what the system reports counts this process too."
    began = time.perf_counter()
    code = "from highlight_sense.cli import main; main(); print(next(line for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    command = [sys.executable, "-c", code, "detect", checkpoint, recording, "-o", out, "--top", "10"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status: raise SystemExit(f"the detection ended with status {status}")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, int(printed.split()[-2]) / 1024 ** 2


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
