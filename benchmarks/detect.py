"""How fast `highlight-sense detect` searches a recording with two AAC tracks, and how much memory it needs.

    python benchmarks/detect.py 0.5 4                     hours of the recordings; the default network, random weights
    python benchmarks/detect.py 0.5 --checkpoint best.pt  with a trained network
    python benchmarks/detect.py 4 --engine openvino       with another engine

Each run measures the whole command: start Python, decode, compute log-mels, score, choose, explain, write.
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
from highlight_sense.config import MODELS
from highlight_sense.model import HighlightCRNN
from highlight_sense.sessions import synthetic_session
from highlight_sense.synth import SYNTH_RATE_HZ

RATE_HZ = 48_000
SAMPLES = 1024  # in an AAC packet


def make_recording(path: Path, hours: float) -> None:
    "Repeat ten minutes of a synthetic session, as OBS writes it: two AAC tracks, 48 kHz, stereo, 160 kbit/s."
    session = synthetic_session(seed=0, minutes=10)
    voice, game = (resample_poly(track, RATE_HZ, SYNTH_RATE_HZ).astype(np.float32)
                   for track in (session.voice, session.game))
    tracks = {"Mic/Aux": [voice, voice], "Desktop Audio": [game, np.roll(game, 30)]}  # voice in the middle, wide game
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("aac", rate=RATE_HZ, layout="stereo", bit_rate=160_000) for _ in tracks]
        for stream, title in zip(streams, tracks): stream.metadata["title"] = title
        encoded = [encode(stream, np.stack(sides)) for stream, sides in zip(streams, tracks.values())]
        for number in range(round(hours * 3600 * RATE_HZ / SAMPLES)):
            for stream, packets in zip(streams, encoded):
                container.mux(make_packet(stream, packets[number % len(packets)], number * SAMPLES))


def encode(stream: av.AudioStream, sound: np.ndarray) -> list[bytes]:
    "The packets of a sound, (channels, samples)."
    frame = av.AudioFrame.from_ndarray(sound, format="fltp", layout="stereo")
    frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, 0, Fraction(1, RATE_HZ)
    return [bytes(packet) for part in (frame, None) for packet in stream.encode(part)]


def make_packet(stream: av.AudioStream, content: bytes, start: int) -> av.Packet:
    "A packet that starts at a sample."
    packet = av.Packet(content)
    packet.stream = stream
    packet.time_base = Fraction(1, RATE_HZ)
    packet.is_keyframe = True
    packet.pts = packet.dts = start
    packet.duration = SAMPLES
    return packet


# Linux counts the memory of this process towards its children, so the child prints its own peak.
DETECT = """
from highlight_sense.cli import main
main()
print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


def measure(checkpoint: Path, recording: Path, out: Path, options: list[str]) -> tuple[float, float, float]:
    "Detect once in a process of its own, and return wall seconds, CPU seconds and peak memory in GiB."
    start_s = time.perf_counter()
    command = [sys.executable, "-c", DETECT, "detect", "-m", checkpoint, recording, "-o", out, "--top", "10", *options]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    printed = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status: raise SystemExit(f"the detection exited with status {status}")
    peak_kib = int(printed.split()[-2])
    return time.perf_counter() - start_s, usage.ru_utime + usage.ru_stime, peak_kib / 1024 ** 2


def described(values: list[float], digits: int) -> str:
    "Median, lowest and highest."
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def measure_length(hours: float, checkpoint: Path, folder: Path, options: argparse.Namespace) -> str:
    "Detect several times in a recording of this length, each time in a new folder, and return a line of figures."
    recording = folder/f"{hours:g} h.mkv"
    make_recording(recording, hours)
    words = ["--engine", options.engine, "--precision", options.precision]
    runs = [measure(checkpoint, recording, folder/f"{hours:g} h, {number}", words) for number in range(options.repeats)]
    recording.unlink()
    settings = json.loads(next(folder.glob(f"{hours:g} h, 0/*/highlights.json")).read_text())["settings"]
    walls_s, cpus_s, peaks_gib = zip(*runs)
    return (f"{hours:g} h, {settings['engine']}, {settings['precision']}, "
            f"median (lowest to highest) of {len(runs)}: {described(walls_s, 1)} s, "
            f"{described([hours * 3600 / wall_s for wall_s in walls_s], 1)} times real time, "
            f"{described(cpus_s, 1)} s of CPU time, peak {described(peaks_gib, 2)} GiB, load {os.getloadavg()[0]:.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("hours", nargs="+", type=float)
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--engine", default="torch")
    parser.add_argument("--precision", default="auto")
    options = parser.parse_args()
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
          f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f}")
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = options.checkpoint or Path(folder)/"random.pt"
        network = HighlightCRNN.from_config(MODELS["default"])
        if not options.checkpoint: save_checkpoint(checkpoint, network, epochs=0, threshold=0.5)
        for hours in options.hours: print(measure_length(hours, checkpoint, Path(folder), options), flush=True)


if __name__ == "__main__": main()
