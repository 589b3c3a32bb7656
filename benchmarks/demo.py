"""How long the demo takes, how much memory it needs, and what it scores, for several seeds.

    python benchmarks/demo.py 0 1 2
"""
import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run_demo(seed: int, out: Path) -> dict[str, float]:
    "Run one demo in a process of its own, and return its figures."
    start_s = time.perf_counter()
    command = ["highlight-sense", "demo", "-o", out, "--seed", str(seed)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - start_s
    if status: raise SystemExit(f"seed {seed}: the demo exited with status {status}")
    summary = json.loads((out/"summary.json").read_text())
    return {
        "seed": seed, "wall_s": wall_s, "cpu_s": usage.ru_utime + usage.ru_stime,
        "peak_gib": usage.ru_maxrss / 1024 ** 2,
        "ap": summary["held-out"]["ap"], "roc_auc": summary["held-out"]["roc_auc"],
        "probe": max(summary["probes"].values())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("seeds", nargs="*", type=int, default=[0])
    seeds = parser.parse_args().seeds
    assert sys.platform == "linux", "peak memory is read as Linux reports it"
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
          f"load {os.getloadavg()[0]:.1f}")
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder: figures = run_demo(seed, Path(folder)/"demo")
        print(", ".join(f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}"
                        for name, value in figures.items()), flush=True)


if __name__ == "__main__": main()
