"""Clips per second of training and of reading: the notebook's way and the package's, in turn, in one run.

    python benchmarks/training.py                  two ways to train, three ways to read, on the fastest device here
    python benchmarks/training.py --clips 2112 --steps 12 --precision bf16 fp16 --batch-size 16 64 128     for a GPU
    python benchmarks/training.py --cold           all of it again with the files on the disk, not in memory
    python benchmarks/training.py --pack-gb 20     only how much memory training from a pack of this size takes

The clips are noise with the lengths of the published set. The notebook's way is the notebook's loop and network: one `.pt`
file for each clip, read by a bare `torch.load` in the training process, single precision, every clip padded to a minute,
32 at a time, the plain network, nothing recorded, and the system's own allocator. The package trains by `fit`. On a GPU
each way has some epochs to warm up, in which it meets the shapes that its steps are recorded for.
"""
import argparse
import ctypes
import itertools
import json
import mmap
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from itertools import count, islice
from pathlib import Path
from queue import Queue
from threading import Thread

import numpy as np
import pandas as pd
import torch
from torch.utils.data import DataLoader

from highlight_sense.batches import ClipLoader, ClipReader, TrainingPlans, gather
from highlight_sense.checkpoint import NOTEBOOK_FLAGS
from highlight_sense.config import FrontEnd, TrainConfig
from highlight_sense.data import index_clips
from highlight_sense.dataset_aug import BalancedSampler, HighlightSenseDataset, sample_frame_count, set_epoch
from highlight_sense.device import pick_device, pick_precision
from highlight_sense.files import hash_file
from highlight_sense.model import HighlightCRNN
from highlight_sense.pack import open_pack
from highlight_sense.packing import HEAD, pack_clips, write_head
from highlight_sense.process import keep_memory, prefetch
from highlight_sense.train import Loader, fit, make_loaders


class PlainClips(HighlightSenseDataset):
    "The notebook's data set: what `torch.load` gives is taken as it is."
    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, int]:
        index, position = item
        mel, label = torch.load(self.file_paths[index])["tensor"].float(), self.labels[index]
        self.rng = np.random.default_rng([self.seed, self.epoch, position])
        mel = mel * self.rng.uniform(0.5, 1.5)
        return *self.pad_or_truncate(mel if label else self.augment_negative_tensor(mel)), label


def plain_loader(table: pd.DataFrame) -> DataLoader:
    "The notebook's loader: 32 clips at a time, read in this process when they are asked for."
    dataset = PlainClips(table.path, table.label)
    return DataLoader(dataset, 32, sampler=BalancedSampler(dataset.labels))


def make_clips(root: Path, number: int) -> Path:
    "Noise, of the lengths that the published clips have: 1.2 negatives of 30 s for each positive."
    rng = np.random.default_rng(0)
    for i in range(number):
        label, frames = ("Positive", sample_frame_count(rng)) if i % 11 < 5 else ("Negative", 1292)
        place = root/label/"game"/f"stream{i // 11}_part{i % 11}.pt"
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"tensor": torch.from_numpy(rng.normal(-8, 4, (2, 80, frames)).astype(np.float32))}, place)
    return root


class Turns:
    "A loader for `fit` that waits for its turn before each epoch, and measures the epoch in clips a second."
    def __init__(self, loader: Loader, steps: int | None, device: torch.device):
        self.loader, self.steps, self.device = loader, steps or len(loader), device
        self.turns, self.speeds, self.speed = Queue(), Queue(), None

    def __len__(self) -> int: return self.steps

    def set_epoch(self, epoch: int) -> None: set_epoch(self.loader, epoch)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        if self.speed is not None: self.speeds.put(self.speed)  # only now: validation is not to run beside another way
        self.turns.get()
        finish(self.device)
        clips, began = 0, time.perf_counter()
        for batch in islice(self.loader, self.steps):
            yield batch
            clips += len(batch[2])
        finish(self.device)
        self.speed = clips / (time.perf_counter() - began)


def training(config: TrainConfig, loader: Loader, device: torch.device, precision: str, steps: int | None) -> Callable[[], float]:
    "A function that has `fit` train for the first steps of the next epoch, or all of them, and returns the clips a second."
    config = replace(config, device=str(device), precision=precision, epochs=10**6)
    model = HighlightCRNN(**NOTEBOOK_FLAGS) if config.recipe == "notebook" else HighlightCRNN()
    turns, validation = Turns(loader, steps, device), [(torch.zeros(2, 2, 80, 64), torch.ones(2, 64), torch.tensor([0, 1]))]

    def train() -> None:
        try: fit(model, turns, validation, config, progress=False)
        except Exception as error: turns.speeds.put(error)

    def run() -> float:
        turns.turns.put(True)
        speed = turns.speeds.get()
        if isinstance(speed, Exception): raise speed
        return speed

    Thread(target=train, daemon=True).start()
    return run


def notebook_training(loader: DataLoader, device: torch.device, steps: int) -> Callable[[], float]:
    "A function that trains as the notebook does, by its own loop, and returns the clips a second."
    model, criterion, epochs = HighlightCRNN(**NOTEBOOK_FLAGS).to(device).train(), torch.nn.BCEWithLogitsLoss(), count()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-5)

    def run() -> float:
        set_epoch(loader, next(epochs))
        finish(device)
        clips, began = 0, time.perf_counter()
        for specs, masks, labels in islice(loader, steps):
            optimizer.zero_grad()
            logits, _ = model(specs.to(device), masks.to(device))
            loss = criterion(logits, labels.unsqueeze(1).to(device).float())
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            loss.item()
            clips += len(labels)
        finish(device)
        return clips / (time.perf_counter() - began)
    return run


def finish(device: torch.device) -> None:
    "Wait until everything is computed that was asked for."
    if device.type == "cuda": torch.cuda.synchronize(device)


def system_memory(run: Callable[[], float]) -> Callable[[], float]:
    "The same without `keep_memory`, which the notebook does not have either; what was kept until now is given back."
    libc, trim_threshold, mmap_threshold, most_mmaps, most_arenas = ctypes.CDLL("libc.so.6"), -1, -3, -4, -8

    def with_it() -> float:  # where glibc's own adjustment arrives once a buffer of 32 MiB was freed; its first values would cost more page faults
        libc.malloc_trim(0)
        for name, value in ((trim_threshold, 64 * 2**20), (mmap_threshold, 32 * 2**20), (most_mmaps, 65536), (most_arenas, 0)): libc.mallopt(name, value)
        try: return run()
        finally: libc.malloc_trim(0); keep_memory()
    return with_it


def reading(batches: Callable[[], Iterator[int]], device: torch.device) -> Callable[[], float]:
    "A function that reads some batches and returns the clips of a second."
    def run() -> float:
        finish(device)
        began = time.perf_counter()
        clips = sum(batches())
        finish(device)
        return clips / (time.perf_counter() - began)
    return run


def evict(folder: Path) -> None:
    "Have the system forget what it keeps in memory of the files of a folder."
    for path in folder.glob("*.pack"): open_pack(path).release()  # pages that a process has mapped would stay
    for path in (path for path in folder.rglob("*") if path.is_file()):
        with open(path, "rb") as file: os.fsync(file.fileno()); os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_share(folder: Path) -> float:
    "How much of the files of a folder the system has in memory."
    mincore, found = ctypes.CDLL("libc.so.6").mincore, []
    for path in (path for path in folder.rglob("*") if path.is_file() and path.stat().st_size):
        mapped = np.memmap(path, np.uint8, "r")
        pages = np.zeros(-(-len(mapped) // mmap.PAGESIZE), np.uint8)
        failed = mincore(ctypes.c_void_p(mapped.ctypes.data), ctypes.c_size_t(len(mapped)), ctypes.c_void_p(pages.ctypes.data))
        assert not failed, path
        found.append(pages & 1)
    return float(np.concatenate(found).mean())


def from_disk(run: Callable[[], float], folder: Path) -> Callable[[], float]:
    "The same, with files that must be read from the disk again."
    def with_it() -> float:
        evict(folder)
        return run()
    return with_it


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
    config = TrainConfig(workers=1)
    run = training(config, make_loaders(table, table, config, device)[0], device, precision, 60)
    for steps in range(60, 301, 60): run(); print(f", {peak_gib():.2f} after {steps} steps of training", end="", flush=True)
    print()


def report(title: str, ways: dict[str, Callable[[], float]], repeats: int, unit: str = "clips/s", warm: int = 1) -> None:
    "Measure several ways in turn, and say how they compare with the first."
    for run in [*ways.values()] * warm: run()
    found = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items(): found[name].append(run())
    first = found[next(iter(ways))]
    print(f"\n{title}: {unit}, median (lowest to highest) of {repeats}; ratio to the first in the same turn")
    for name, speeds in found.items():
        ratios = [speed / base for speed, base in zip(speeds, first)]
        spread = lambda values: f"({min(values):.1f} to {max(values):.1f})"
        print(f"  {name:58} {statistics.median(speeds):9.1f} {spread(speeds):20} {statistics.median(ratios):6.1f} {spread(ratios)}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=528)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", nargs="+", default=["auto"])
    parser.add_argument("--batch-size", nargs="+", type=int, default=[TrainConfig().settled().batch_size], help="of our way")
    parser.add_argument("--cold", action="store_true", help="measure again with the files forgotten by the system before each turn of each way")
    parser.add_argument("--reading", action="store_true", help="measure only how fast batches are read")
    parser.add_argument("--pack-gb", type=float, help="measure only the memory, with a pack of this size")
    parser.add_argument("--steps", type=int, default=2, help="of 32 clips that the notebook's way is measured on")
    chosen = parser.parse_args()
    device = pick_device(chosen.device)
    precisions = [pick_precision(device, each) for each in chosen.precision]
    keep_memory()
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}, {', '.join(precisions)}"
          + (f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""))
    with tempfile.TemporaryDirectory() as folder:
        if chosen.pack_gb: return memory(Path(folder), chosen.pack_gb, device, precisions[0])
        files = index_clips(make_clips(Path(folder)/"clips", chosen.clips))
        packed = index_clips(pack_clips(Path(folder)/"clips", Path(folder)/"clips.pack", progress=False)[0].path)
        notebook = TrainConfig(recipe="notebook", batch_size=32, workers=0)
        plans, read, plain = TrainingPlans(packed.label, packed.frames, 32), ClipReader(packed.path), plain_loader(files)
        checked, pinned = make_loaders(files, files, notebook, device)[0], device.type == "cuda"
        side_by_side = lambda plan: gather(plan, read, None, pinned)
        from_packs = {"from a pack, augmented on the device": ClipLoader(packed, plans, device, 2)}
        augmented = lambda loader: reading(lambda: (len(labels) for *_, labels in loader), device)
        readers = {
            "the notebook's loader": system_memory(reading(lambda: (len(labels) for *_, labels in islice(plain, 4)), device)),
            "from a pack, side by side": reading(lambda: (len(side_by_side(plan).plan.clips) for plan in plans), device),
            "planned, nothing read": reading(lambda: (len(plan.clips) for plan in plans), device),
            "from a pack, by two threads": reading(lambda: (len(one.plan.clips) for one in prefetch(side_by_side, plans, 4, 2)), device),
            **{name: augmented(loader) for name, loader in from_packs.items()},
        }
        trainings = {"the notebook's way, fp32": system_memory(notebook_training(plain, device, chosen.steps)),
                     "--recipe notebook, fp32": training(notebook, checked, device, "fp32", chosen.steps)}
        for each, size in itertools.product(precisions, chosen.batch_size):
            ours, steps = TrainConfig(batch_size=size, workers=2), 16 if each == "fp32" else None
            name = f"default recipe, from a pack, {each}, {size} at a time"
            from_packs[name] = make_loaders(packed, packed, ours, device)[0]
            trainings[name] = training(ours, from_packs[name], device, each, steps)
            trainings[f"{name}, plain"] = training(replace(ours, kernels="plain"), make_loaders(packed, packed, ours, device)[0],
                                                   device, each, chosen.steps)
        for where in ("in memory", "on the disk")[:1 + chosen.cold]:
            if where == "on the disk":
                readers, trainings = ({name: from_disk(run, Path(folder)) for name, run in ways.items()} for ways in (readers, trainings))
                evict(Path(folder)); print(f"\n{cached_share(Path(folder)):.1%} of the files are in memory when a way begins")
            report(f"reading batches, one process, files {where}", readers, chosen.repeats)
            if not chosen.reading: report(f"training, files {where}", trainings, chosen.repeats, warm=4 if pinned and where == "in memory" else 1)


if __name__ == "__main__": main()
