"""Windows per second: one window at a time, padded to a minute, as the notebook's network needs it, and the ways that `detect` has, in turn, in one run.

    python benchmarks/scoring.py                  on this machine's fastest device
    python benchmarks/scoring.py --device cuda --precision fp16

Windows of 30 s from a log-mel of noise; full-size networks with random weights. Nothing is decoded here: `benchmarks/detect.py` measures the whole command.
"""
import argparse
import os
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from training import PlainCRNN, report

from highlight_sense.checkpoint import BEFORE, CheckpointInfo
from highlight_sense.core import DetectConfig, FrontEnd, ModelConfig
from highlight_sense.dataset_aug import pad_or_truncate
from highlight_sense.detect import Detector, plan_windows, score_windows
from highlight_sense.engine import OpenVINOEngine
from highlight_sense.model import HighlightCRNN
from highlight_sense.train import keep_memory, pick_device, pick_precision


def one_by_one(model: PlainCRNN, mels: list[torch.Tensor], device: torch.device) -> Callable[[], float]:
    "A function that scores windows one after the other and returns how many in a second."
    def run() -> float:
        began = time.perf_counter()
        for mel in mels:
            spec, mask = pad_or_truncate(mel, 2584)
            with torch.no_grad(): torch.sigmoid(model(spec[None].to(device), mask[None].to(device))[0]).item()
        return len(mels) / (time.perf_counter() - began)
    return run


def batched(config: ModelConfig, mels: list[torch.Tensor], device: torch.device, precision: str, openvino: bool = False) -> Callable[[], float]:
    "A function that scores windows as `detect` does and returns how many in a second."
    info = CheckpointInfo(config)
    model = HighlightCRNN.from_config(config).to(device).eval()
    detector = Detector(Path("none"), "", model, info, FrontEnd(), plan_windows(DetectConfig(), info, FrontEnd()), precision,
                        OpenVINOEngine(model, precision) if openvino else None)

    def run() -> float:
        began = time.perf_counter()
        score_windows(detector, enumerate(mels))
        return len(mels) / (time.perf_counter() - began)
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=96)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    chosen = parser.parse_args()
    device = pick_device(chosen.device)
    precision = pick_precision(device, chosen.precision)
    keep_memory()
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}, {precision}"
          + (f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""))
    rng = np.random.default_rng(0)
    mels = [torch.from_numpy(rng.normal(-8, 4, (2, 80, 1280)).astype(np.float32)) for _ in range(chosen.windows)]
    few = mels[:max(4, chosen.windows // 12)]
    engines = {f"the default network in OpenVINO, {each}": batched(ModelConfig(), mels, device, each, True)
               for each in dict.fromkeys(["fp32", precision]) if device.type == "cpu" and find_spec("openvino")}
    report("scoring windows of 30 s", {
        "one window at a time, padded to a minute, fp32": one_by_one(PlainCRNN(**BEFORE).to(device).eval(), few, device),
        "the notebook's network in batches, fp32": batched(ModelConfig(**BEFORE), few, device, "fp32"),
        "the default network in batches, fp32": batched(ModelConfig(), mels, device, "fp32"),
        f"the default network in batches, {precision}": batched(ModelConfig(), mels, device, precision), **engines,
    }, chosen.repeats, "windows/s")


if __name__ == "__main__": main()
