"""Clips per second of training and of reading: the notebook's way and ours, in turn, in one run.

    python benchmarks/training.py                  two ways to train, three ways to read, on this machine's fastest device
    python benchmarks/training.py --device cuda --precision fp16
    python benchmarks/training.py --pack-gb 20     only how much memory training from a pack of this size takes

The clips are noise with the lengths of the published set. The notebook's way is one `.pt` file for each clip through `torch.load` in the training process,
single precision, every clip padded to a minute, 32 at a time, and the network of plain PyTorch modules that the notebook has.
"""
import argparse
import ctypes
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F

from highlight_sense.batches import ClipLoader, ClipReader, TrainingPlans, gather
from highlight_sense.checkpoint import BEFORE
from highlight_sense.core import FrontEnd, ModelConfig, TrainConfig, hash_file
from highlight_sense.data import index_clips
from highlight_sense.dataset_aug import sample_frame_count
from highlight_sense.model import HighlightCRNN, downsample_mask
from highlight_sense.pack import HEAD, pack_clips, write_head
from highlight_sense.train import Loader, keep_memory, make_loaders, pick_device, pick_precision, start_training, train_step


class PlainCRNN(HighlightCRNN):
    "The notebook's network as the notebook computes it: one module after the other."
    def follow(self, x: torch.Tensor, mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        for block in self.cnn: x = block.pool(F.relu(block.norm(block.conv(x))))
        states, _ = self.rnn(x.permute(0, 3, 1, 2).flatten(2))
        return states, downsample_mask(mask.to(x.device), self.shrink, states.shape[1])


def make_clips(root: Path, number: int) -> Path:
    "Noise, of the lengths that the published clips have: 1.2 negatives of 30 s for each positive."
    rng = np.random.default_rng(0)
    for i in range(number):
        label, frames = ("Positive", sample_frame_count(rng)) if i % 11 < 5 else ("Negative", 1292)
        place = root/label/"game"/f"stream{i // 11}_part{i % 11}.pt"
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"tensor": torch.from_numpy(rng.normal(-8, 4, (2, 80, frames)).astype(np.float32))}, place)
    return root


def training(network: type, config: TrainConfig, table: pd.DataFrame, device: torch.device, precision: str, steps: int | None) -> Callable[[], float]:
    "A function that trains for some steps, or an epoch, and returns the clips of a second."
    config = config.settled()
    model_config = ModelConfig(**BEFORE) if config.recipe == "notebook" else ModelConfig()
    loader, _ = make_loaders(table, table, config, device)
    state = start_training(network.from_config(model_config).train(), config, device, precision)
    batches = cycle_of(loader)

    def run() -> float:
        clips, began = 0, time.perf_counter()
        for batch in islice(batches, steps or len(loader)): train_step(state, batch, config, device, precision); clips += len(batch[2])
        if device.type == "cuda": torch.cuda.synchronize()
        return clips / (time.perf_counter() - began)
    return run


def system_memory(run: Callable[[], float]) -> Callable[[], float]:
    "The same without `keep_memory`, which the notebook does not have either; what was kept until now is given back."
    libc, trim_threshold, most_mmaps = ctypes.CDLL("libc.so.6"), -1, -4

    def with_it() -> float:
        libc.malloc_trim(0); libc.mallopt(trim_threshold, 128 * 2**10); libc.mallopt(most_mmaps, 65536)  # glibc's defaults
        try: return run()
        finally: libc.malloc_trim(0); keep_memory()
    return with_it


def cycle_of(loader: Loader) -> Iterator[tuple]:
    "Its batches, epoch after epoch."
    while True: yield from loader


def reading(batches: Callable[[], Iterator[int]]) -> Callable[[], float]:
    "A function that reads some batches and returns the clips of a second."
    def run() -> float:
        began = time.perf_counter()
        return sum(batches()) / (time.perf_counter() - began)
    return run


def sparse_pack(path: Path, gigabytes: float) -> Path:
    "A pack of that size whose clips of 30 s are silence that takes no room on the disk."
    path.mkdir()
    clips = round(gigabytes * 1e9 / (1292 * 320))
    row = lambda i: {"clip": f"{('Positive', 'Negative')[i % 2]}/game/stream{i // 8}_part{i % 8}.pt", "name": f"stream{i // 8}_part{i % 8}", "label": 1 - i % 2,
                     "game": "game", "group": f"stream{i // 8}", "offset": 1292 * i, "frames": 1292, "crc32": 0, "more": {}}
    (path/"index.jsonl").write_text("".join(json.dumps(row(i)) + "\n" for i in range(clips)))
    with open(path/"mels.npy", "w+b") as file: write_head(file, 1292 * clips, 80); file.truncate(HEAD + 1292 * clips * 320)
    (path/"pack.json").write_text(json.dumps({"version": 1, "front_end": asdict(FrontEnd()), "index_sha256": hash_file(path/"index.jsonl")}))
    return path


def peak_gib() -> float:
    "The most memory that this process has held."
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 2**20


def memory(folder: Path, gigabytes: float, device: torch.device, precision: str) -> None:
    "Say what each stage of a training adds to the most memory held."
    print(f"peak memory: {peak_gib():.2f} GiB at the start", end="", flush=True)
    table = index_clips(sparse_pack(folder/"large.pack", gigabytes))
    print(f", {peak_gib():.2f} with the index of {len(table)} clips", end="", flush=True)
    plans, read = TrainingPlans(table.label, table.frames, 16), ClipReader(table.path)
    for plan in plans: gather(plan, read)
    print(f", {peak_gib():.2f} after reading all of them", end="", flush=True)
    run = training(HighlightCRNN, TrainConfig(workers=1), table, device, precision, 60)
    run()
    print(f", {peak_gib():.2f} after sixty steps of training")


def report(title: str, ways: dict[str, Callable[[], float]], repeats: int, unit: str = "clips/s") -> None:
    "Measure several ways in turn, and say how they compare with the first."
    for run in ways.values(): run()  # warm
    found = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items(): found[name].append(run())
    first = found[next(iter(ways))]
    print(f"\n{title}: {unit}, median (lowest to highest) of {repeats}; ratio to the first")
    for name, speeds in found.items():
        ratio = statistics.median(speed / base for speed, base in zip(speeds, first))
        print(f"  {name:58} {statistics.median(speeds):9.1f} ({min(speeds):.1f} to {max(speeds):.1f})  {ratio:6.1f}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=528)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--batch-size", type=int, help="of our way; none: the recipe's")
    parser.add_argument("--pack-gb", type=float, help="measure only the memory, with a pack of this size")
    parser.add_argument("--steps", type=int, default=2, help="of 32 clips that the notebook's way is measured on")
    chosen = parser.parse_args()
    device = pick_device(chosen.device)
    precision = pick_precision(device, chosen.precision)
    keep_memory()
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}, {precision}"
          + (f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""))
    with tempfile.TemporaryDirectory() as folder:
        if chosen.pack_gb: return memory(Path(folder), chosen.pack_gb, device, precision)
        files = index_clips(make_clips(Path(folder)/"clips", chosen.clips))
        packed = index_clips(pack_clips(Path(folder)/"clips", Path(folder)/"clips.pack", progress=False)[0].path)
        notebook = TrainConfig(recipe="notebook", batch_size=32, workers=0)
        ours = TrainConfig(batch_size=chosen.batch_size, workers=1)
        plans, read = TrainingPlans(packed.label, packed.frames, 32), ClipReader(packed.path)
        report("reading batches, one process", {
            "the notebook's loader": reading(lambda: (len(labels) for *_, labels in islice(make_loaders(files, files, notebook)[0], 4))),
            "from a pack, side by side": reading(lambda: (len(gather(plan, read).plan.clips) for plan in plans)),
            "from a pack, augmented on the device": reading(lambda: (len(labels) for *_, labels in ClipLoader(packed, plans, device))),
        }, chosen.repeats)
        report("training", {
            "the notebook's way, fp32": system_memory(training(PlainCRNN, notebook, files, device, "fp32", chosen.steps)),
            "--recipe notebook, fp32": training(HighlightCRNN, notebook, files, device, "fp32", chosen.steps),
            f"--recipe notebook, {precision}": training(HighlightCRNN, notebook, files, device, precision, chosen.steps),
            "default recipe, from a pack, fp32": training(HighlightCRNN, ours, packed, device, "fp32", 16),
            f"default recipe, from a pack, {precision}": training(HighlightCRNN, ours, packed, device, precision, None),
        }, chosen.repeats)


if __name__ == "__main__": main()
