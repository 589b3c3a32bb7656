"""How long the demo takes, how much memory it holds, and what it reaches, for several seeds.

    python benchmarks/demo.py 0 1 2
"""
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path


def run_demo(seed: int, out: Path) -> dict[str, float]:
    "Figures of one demo, run as a process of its own."
    began = time.perf_counter()
    process = subprocess.Popen(["highlight-sense", "demo", "-o", out, "--seed", str(seed)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - began
    if status: raise SystemExit(f"seed {seed}: the demo ended with status {status}")
    summary = json.loads((out/"summary.json").read_text())
    return {"seed": seed, "wall_s": seconds, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_gib": usage.ru_maxrss / 1024 ** 2,
            "ap": summary["held-out"]["ap"], "roc_auc": summary["held-out"]["roc_auc"], "probe": max(summary["probes"].values())}


def main() -> None:
    "One line for each seed."
    assert sys.platform == "linux", "reads the memory as Linux reports it"
    print(f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}")
    for seed in map(int, sys.argv[1:] or ["0"]):
        with tempfile.TemporaryDirectory() as folder:
            figures = run_demo(seed, Path(folder)/"demo")
        print(", ".join(f"{name} {value:.3f}" if isinstance(value, float) else f"{name} {value}" for name, value in figures.items()), flush=True)


if __name__ == "__main__": main()
