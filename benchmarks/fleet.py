"""What it brings to spread recordings over the cores of one computer with Ray, and what Ray costs for a single one.

    python benchmarks/fleet.py RECORDING... --repeats 2

Whole commands are timed, in turn: `detect` in one process with a thread on each core, and `detect --ray local`, whose
processes have a core each; both on all recordings, then on the first one alone. The files must be the same.
"""
import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from highlight_sense.media import probe

WAYS = {"one process": (), "--ray local": ("--ray", "local")}


def contents(folder: Path) -> dict[str, bytes]:
    "All files of a folder."
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def detect(recordings: list[Path], out: Path, way: tuple[str, ...]) -> float:
    "Run the command, and return how many seconds it took."
    command = [sys.executable, "-m", "highlight_sense", "detect", *map(str, recordings), "-o", str(out), *way]
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    began = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
    return time.monotonic() - began


def compare(recordings: list[Path], repeats: int) -> None:
    "Time both ways in turn, and print a row for each."
    hours = sum(probe(path, measured=False).duration_s for path in recordings) / 3600
    walls = {name: [] for name in WAYS}
    for _ in range(repeats):
        with tempfile.TemporaryDirectory() as place:
            for name, way in WAYS.items(): walls[name].append(detect(recordings, Path(place, name), way))
            found = [contents(Path(place, name)) for name in WAYS]
            assert found[0] == found[1] and found[0], "the files differ"
    print(f"{len(recordings)} recordings, {hours:.2f} hours")
    for name, seconds in walls.items():
        middle = statistics.median(seconds)
        print(f"  {name:12}  {middle:6.1f} s ({min(seconds):.1f} to {max(seconds):.1f}), "
              f"{3600 * hours / middle:.0f} times real time")
    plain, ray = walls.values()
    ratios = [one / other for one, other in zip(plain, ray)]
    more = [other - one for one, other in zip(plain, ray)]
    print(f"  ratio {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}), "
          f"difference {statistics.median(more):.1f} s ({min(more):.1f} to {max(more):.1f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--repeats", type=int, default=2)
    given = parser.parse_args()
    compare(given.recordings, given.repeats)
    compare(given.recordings[:1], given.repeats)
