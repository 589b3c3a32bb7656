"""Clips per second of training and of reading: the Colab notebook's way and ours, taking turns.

    python benchmarks/training.py              every way to train and to read, on this machine's fastest device
    python benchmarks/training.py --cold       everything again, with the files on the disk whenever a way starts
    python benchmarks/training.py --pack-gb 20 only the memory that training from a pack of this size takes

    # for a GPU, which finishes soon
    python benchmarks/training.py --clips 2112 --steps 12 --precision bf16 fp16 --batch-size 16 64 128

The clips are noise with the lengths of the published set. The notebook's way: one `.pt` file for each clip, a bare
`torch.load` in the training process, single precision, every clip padded to a minute, 32 at a time, plain PyTorch
modules, no recorded steps, the system's memory settings. On a GPU each way warms up for some epochs, to meet the
shapes that its steps are recorded for.
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
from highlight_sense.config import MODELS, FrontEnd, TrainConfig
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
    "The notebook's data set, which trusts whatever `torch.load` returns."
    def __getitem__(self, item: tuple[int, int]) -> tuple[torch.Tensor, torch.Tensor, int]:
        index, position = item
        mel, label = torch.load(self.file_paths[index])["tensor"].float(), self.labels[index]
        self.rng = np.random.default_rng([self.seed, self.epoch, position])
        mel = mel * self.rng.uniform(0.5, 1.5)
        return *self.pad_or_truncate(mel if label else self.augment_negative_tensor(mel)), label


def plain_loader(table: pd.DataFrame) -> DataLoader:
    "The notebook's loader: 32 clips at a time, each batch read in this process when it is needed."
    dataset = PlainClips(table.path, table.label)
    return DataLoader(dataset, 32, sampler=BalancedSampler(dataset.labels))


def make_clips(root: Path, number: int) -> Path:
    "Write clips of noise with the published lengths: 1.2 negatives of 30 s for each positive."
    rng = np.random.default_rng(0)
    for i in range(number):
        label, frames = ("Positive", sample_frame_count(rng)) if i % 11 < 5 else ("Negative", 1292)
        place = root/label/"game"/f"stream{i // 11}_part{i % 11}.pt"
        place.parent.mkdir(parents=True, exist_ok=True)
        torch.save({"tensor": torch.from_numpy(rng.normal(-8, 4, (2, 80, frames)).astype(np.float32))}, place)
    return root


class Turns:
    "A loader for `fit` that waits for its turn before each epoch, and measures the epoch in clips per second."

    def __init__(self, loader: Loader, steps: int | None, device: torch.device):
        self.loader, self.steps, self.device = loader, steps or len(loader), device
        self.turns, self.speeds, self.speed = Queue(), Queue(), None

    def __len__(self) -> int: return self.steps

    def set_epoch(self, epoch: int) -> None: set_epoch(self.loader, epoch)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        if self.speed is not None: self.speeds.put(self.speed)  # not earlier: validation must not overlap another way
        self.turns.get()
        finish(self.device)
        clips, start_s = 0, time.perf_counter()
        for batch in islice(self.loader, self.steps):
            yield batch
            clips += len(batch[2])
        finish(self.device)
        self.speed = clips / (time.perf_counter() - start_s)


def training(
    config: TrainConfig,
    loader: Loader,
    device: torch.device,
    precision: str,
    steps: int | None,  # of each epoch; default: all
) -> Callable[[], float]:
    "Return a function that has `fit` train for one more epoch and returns clips per second."
    config = replace(config, device=str(device), precision=precision, epochs=10**6)
    model = HighlightCRNN.from_config(MODELS[config.settled().model])
    if config.recipe == "notebook": model = HighlightCRNN(**NOTEBOOK_FLAGS)
    turns = Turns(loader, steps, device)
    validation = [(torch.zeros(2, 2, 80, 64), torch.ones(2, 64), torch.tensor([0, 1]))]

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
    "Return a function that trains with the notebook's own loop and returns clips per second."
    model, epochs = HighlightCRNN(**NOTEBOOK_FLAGS).to(device).train(), count()
    criterion = torch.nn.BCEWithLogitsLoss()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=1e-5)

    def run() -> float:
        set_epoch(loader, next(epochs))
        finish(device)
        clips, start_s = 0, time.perf_counter()
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
        return clips / (time.perf_counter() - start_s)
    return run


def finish(device: torch.device) -> None:
    "Wait for all work queued on the device."
    if device.type == "cuda": torch.cuda.synchronize(device)


# Options of glibc's mallopt, with the values that its own adjustment reaches once a buffer of 32 MiB was freed.
# Its first values would cost more page faults.
GLIBC = {"trim threshold": (-1, 64 * 2**20), "mmap threshold": (-3, 32 * 2**20), "most mmaps": (-4, 65536),
         "most arenas": (-8, 0)}


def system_memory(run: Callable[[], float]) -> Callable[[], float]:
    "Run without `keep_memory`, which the notebook does not have either, and give back what was kept so far."
    libc = ctypes.CDLL("libc.so.6")

    def with_it() -> float:
        libc.malloc_trim(0)
        for option, value in GLIBC.values(): libc.mallopt(option, value)
        try: return run()
        finally:
            libc.malloc_trim(0)
            keep_memory()
    return with_it


def reading(batches: Callable[[], Iterator[int]], device: torch.device) -> Callable[[], float]:
    "Return a function that reads some batches and returns clips per second."
    def run() -> float:
        finish(device)
        start_s = time.perf_counter()
        clips = sum(batches())
        finish(device)
        return clips / (time.perf_counter() - start_s)
    return run


# --- files that are not in memory

def files_in(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def evict(folder: Path) -> None:
    "Have the system drop its cached pages of a folder's files."
    for path in folder.glob("*.pack"): open_pack(path).release()  # pages that a process has mapped would stay
    for path in files_in(folder):
        with open(path, "rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def cached_share(folder: Path) -> float:
    "The share of a folder's pages that the system has cached."
    mincore, found = ctypes.CDLL("libc.so.6").mincore, []
    for path in files_in(folder):
        if not path.stat().st_size: continue
        mapped = np.memmap(path, np.uint8, "r")
        pages = np.zeros(-(-len(mapped) // mmap.PAGESIZE), np.uint8)
        start, length = ctypes.c_void_p(mapped.ctypes.data), ctypes.c_size_t(len(mapped))
        failed = mincore(start, length, ctypes.c_void_p(pages.ctypes.data))
        assert not failed, path
        found.append(pages & 1)
    return float(np.concatenate(found).mean())


def from_disk(run: Callable[[], float], folder: Path) -> Callable[[], float]:
    "Run with files that must be read from the disk again."
    def with_it() -> float:
        evict(folder)
        return run()
    return with_it


# --- memory

def sparse_row(i: int) -> dict:
    "The row of a pack for one silent clip of 30 s."
    name = f"stream{i // 8}_part{i % 8}"
    return {"clip": f"{('Positive', 'Negative')[i % 2]}/game/{name}.pt", "name": name, "label": 1 - i % 2,
            "game": "game", "group": f"stream{i // 8}", "offset": 1292 * i, "frames": 1292, "crc32": 0, "more": {}}


def sparse_pack(path: Path, gigabytes: float) -> Path:
    "Make a pack of this size from silent clips of 30 s, as a sparse file that takes no room on the disk."
    path.mkdir()
    clips = round(gigabytes * 1e9 / (1292 * 320))
    (path/"index.jsonl").write_text("".join(json.dumps(sparse_row(i)) + "\n" for i in range(clips)))
    with open(path/"mels.npy", "w+b") as file:
        write_head(file, 1292 * clips, 80)
        file.truncate(HEAD + 1292 * clips * 320)
    note = {"version": 1, "front_end": asdict(FrontEnd()), "index_sha256": hash_file(path/"index.jsonl")}
    (path/"pack.json").write_text(json.dumps(note))
    return path


def peak_gib() -> float:
    "The most memory that this process has used."
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) / 2**20


def measure_memory(folder: Path, gigabytes: float, device: torch.device, precision: str) -> None:
    "Print the peak memory after each stage of a training."
    print(f"peak memory: {peak_gib():.2f} GiB at the start", end="", flush=True)
    table = index_clips(sparse_pack(folder/"large.pack", gigabytes))
    print(f", {peak_gib():.2f} with the index of {len(table)} clips", end="", flush=True)
    read = ClipReader(table.path)
    for plan in TrainingPlans(table.label, table.frames): gather(plan, read)
    print(f", {peak_gib():.2f} after reading all of them", end="", flush=True)
    config = TrainConfig(workers=1)
    run = training(config, make_loaders(table, table, config, device)[0], device, precision, 60)
    for steps in range(60, 301, 60):
        run()
        print(f", {peak_gib():.2f} after {steps} steps of training", end="", flush=True)
    print()


# --- the ways in turn

def spread(values: list[float]) -> str:
    "Lowest and highest."
    return f"({min(values):.1f} to {max(values):.1f})"


def report(
    title: str,
    ways: dict[str, Callable[[], float]],  # each returns its speed
    repeats: int,
    unit: str = "clips/s",
    warm: int = 1,                         # turns before those that count
) -> None:
    "Measure several ways in turn, and print how they compare with the first."
    for _ in range(warm):
        for run in ways.values(): run()
    found = {name: [] for name in ways}
    for _ in range(repeats):
        for name, run in ways.items(): found[name].append(run())
    first = found[next(iter(ways))]
    print(f"\n{title}: {unit}, median (lowest to highest) of {repeats}; ratio to the first in the same turn")
    for name, speeds in found.items():
        ratios = [speed / base for speed, base in zip(speeds, first)]
        print(f"  {name:58} {statistics.median(speeds):9.1f} {spread(speeds):20} "
              f"{statistics.median(ratios):6.1f} {spread(ratios)}", flush=True)


def describe_machine(device: torch.device) -> str:
    "Cores, threads, PyTorch and device."
    name = f" ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else ""
    return f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}{name}"


def ways_to_read(plain: DataLoader, packed: pd.DataFrame, device: torch.device) -> dict[str, Callable[[], float]]:
    "The notebook's loader, the stages of ours, and ours."
    plans = TrainingPlans(packed.label, packed.frames, TrainConfig(batch_size=32, mixup=0))
    read, pinned = ClipReader(packed.path), device.type == "cuda"
    loader = ClipLoader(packed, plans, device, 2)

    def from_files() -> Iterator[int]: return (len(labels) for *_, labels in islice(plain, 4))
    def gather_plan(plan: object) -> object: return gather(plan, read, None, pinned)
    def gathered() -> Iterator[int]: return (len(gather_plan(plan).plan.clips) for plan in plans)
    def planned() -> Iterator[int]: return (len(plan.clips) for plan in plans)
    def by_threads() -> Iterator[int]: return (len(one.plan.clips) for one in prefetch(gather_plan, plans, 4, 2))
    def augmented() -> Iterator[int]: return (len(labels) for *_, labels in loader)

    return {
        "the notebook's loader": system_memory(reading(from_files, device)),
        "from a pack, gathered": reading(gathered, device),
        "planned, nothing read": reading(planned, device),
        "from a pack, gathered by two threads": reading(by_threads, device),
        "from a pack, augmented on the device": reading(augmented, device)}


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", type=int, default=528)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", nargs="+", default=["auto"])
    parser.add_argument("--batch-size", nargs="+", type=int, default=[TrainConfig().settled().batch_size],
                        help="of the default recipe")
    parser.add_argument("--cold", action="store_true",
                        help="measure again, with the files dropped from memory before each turn")
    parser.add_argument("--reading", action="store_true", help="measure only how fast batches are read")
    parser.add_argument("--pack-gb", type=float, help="measure only the memory, with a pack of this size")
    parser.add_argument("--steps", type=int, default=2, help="of 32 clips, for the notebook's way")
    return parser.parse_args()


def measure_speed(folder: Path, options: argparse.Namespace, device: torch.device, precisions: list[str]) -> None:
    "Measure every way to read and to train."
    files = index_clips(make_clips(folder/"clips", options.clips))
    packed = index_clips(pack_clips(folder/"clips", folder/"clips.pack", progress=False)[0].path)
    from_files = plain_loader(files)
    notebook = TrainConfig(recipe="notebook", batch_size=32, workers=0)
    checked = make_loaders(files, files, notebook, device)[0]
    trainings = {"the notebook's way, fp32": system_memory(notebook_training(from_files, device, options.steps)),
                 "--recipe notebook, fp32": training(notebook, checked, device, "fp32", options.steps)}
    for precision, size in itertools.product(precisions, options.batch_size):
        config = TrainConfig(batch_size=size, workers=2)
        name = f"default recipe, from a pack, {precision}, {size} at a time"
        loader = make_loaders(packed, packed, config, device)[0]
        trainings[name] = training(config, loader, device, precision, 16 if precision == "fp32" else None)
        plain_config, loader = replace(config, kernels="plain"), make_loaders(packed, packed, config, device)[0]
        trainings[f"{name}, plain"] = training(plain_config, loader, device, precision, options.steps)
    readers = ways_to_read(from_files, packed, device)
    warm = 4 if device.type == "cuda" else 1
    report("reading batches, one process, files in memory", readers, options.repeats)
    if not options.reading: report("training, files in memory", trainings, options.repeats, warm=warm)
    if not options.cold: return
    readers = {name: from_disk(run, folder) for name, run in readers.items()}
    trainings = {name: from_disk(run, folder) for name, run in trainings.items()}
    evict(folder)
    print(f"\n{cached_share(folder):.1%} of the files are in memory when a way starts")
    report("reading batches, one process, files on the disk", readers, options.repeats)
    if not options.reading: report("training, files on the disk", trainings, options.repeats)


def main() -> None:
    options = parse_options()
    device = pick_device(options.device)
    precisions = [pick_precision(device, each) for each in options.precision]
    keep_memory()
    print(f"{describe_machine(device)}, {', '.join(precisions)}")
    with tempfile.TemporaryDirectory() as folder:
        if options.pack_gb: measure_memory(Path(folder), options.pack_gb, device, precisions[0])
        else: measure_speed(Path(folder), options, device, precisions)


if __name__ == "__main__": main()
