"""How well each recipe does on held-out streamers, on the same clips, by seed and by number of training positives.

    # clips of each side; recordings.py makes train.pack and test.pack as well
    highlight-sense prepare recordings/train --labels train.csv -o clips/train
    highlight-sense prepare recordings/test --labels test.csv -o clips/test

    # both recipes, with fewer and fewer positives
    python benchmarks/recipes.py clips/train clips/test runs --seeds 0 1 2 --positives all 200 100 50

    # the default recipe with one change at a time
    python benchmarks/recipes.py clips/train clips/test runs --recipes default --positives 100 \\
        --change no-mixup constant shift stripes curves

    # every clip padded to the longest, next to the same from packs
    python benchmarks/recipes.py clips/train clips/test slow --recipes default --positives 100 \\
        --change padded --precision fp32

    # initialised from networks trained on other clips
    python benchmarks/recipes.py clips/others clips/test begun --recipes default --positives 50 \\
        --init runs/default-all-{seed}/last.pt

A run is a recipe, a seed, a number of positives and at most one change. The seed draws whole recordings until they
hold that many positives. A run leaves `last.pt` and `best.pt` in its folder and a line in `runs/results.jsonl`, with
the logits of the last epoch. An interrupted run resumes after its last finished epoch; a run with a line is not
repeated. The table at the end covers all lines.

`benchmarks/recipes.jsonl`, `recipes-short.jsonl`, `recipes-begun.jsonl` and `recipes-gpu.jsonl` are the lines behind
RESULTS.md: copy one to `runs/results.jsonl` to add to it. Use another folder for other --epochs, --init or
--precision.
"""
import argparse
import itertools
import json
import os
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pandas as pd
import torch

from highlight_sense import train as training
from highlight_sense.batches import ClipLoader, EvaluationPlans
from highlight_sense.checkpoint import NOTEBOOK_FLAGS, CheckpointInfo, load_checkpoint
from highlight_sense.config import MODELS, ModelConfig, TrainConfig
from highlight_sense.data import index_clips, split_clips
from highlight_sense.device import pick_device, pick_precision
from highlight_sense.evaluate import peaks_inside
from highlight_sense.model import HighlightCRNN
from highlight_sense.run_folder import RunFolder
from highlight_sense.train import Evaluation, TrainState, fit, judge, make_loaders, predict


def draw_recordings(index: pd.DataFrame, positives: int | None, seed: int) -> pd.DataFrame:
    "Draw whole recordings until they hold this many positives (default: all recordings)."
    if positives is None: return index
    order = np.random.default_rng(seed).permutation(sorted(index.group.unique()))
    drawn = index.groupby("group").label.sum().loc[order].cumsum()
    return index[index.group.isin(order[:int((drawn < positives).sum()) + 1])].reset_index(drop=True)


# --- changes to the default recipe

def frames_of(mask: torch.Tensor) -> slice:
    "The frames of a clip that are sound, not padding."
    return slice(0, int(mask.sum()))


def shift(specs: torch.Tensor, masks: torch.Tensor, clips: np.ndarray) -> torch.Tensor:
    "Start every clip at a random frame, and move what was before it to the end."
    for spec, mask in zip(specs, masks):
        sound = frames_of(mask)
        spec[..., sound] = spec[..., sound].roll(int(torch.randint(sound.stop, ())), -1)
    return specs


def stripes(specs: torch.Tensor, masks: torch.Tensor, clips: np.ndarray) -> torch.Tensor:
    """SpecAugment (Park et al. 2019, https://arxiv.org/abs/1904.08779).

    The clip's mean fills two stripes of up to 12 mel bands and two of up to a second.
    """
    for spec, mask in zip(specs, masks):
        sound = frames_of(mask)
        fill = spec[..., sound].mean((1, 2), keepdim=True)
        for most, axis in ((12, 1), (12, 1), (43, 2), (43, 2)):
            size = spec.shape[1] if axis == 1 else sound.stop
            width = min(int(torch.randint(most + 1, ())), size)
            start = int(torch.randint(size - width + 1, ()))
            stripe = spec.narrow(axis, start, width)
            stripe.copy_(fill.expand_as(stripe))
    return specs


def curves(specs: torch.Tensor, masks: torch.Tensor, clips: np.ndarray) -> torch.Tensor:
    """FilterAugment, the linear kind (Nam et al. 2022, https://arxiv.org/abs/2110.03282).

    Each track passes a filter with 3 to 6 corners, of at most 6 dB.
    """
    bands = specs.shape[2]
    for clip in specs:
        for track in clip:  # flattening the batch could copy it
            points = int(torch.randint(3, 7, ()))
            corners = np.r_[0, np.sort(torch.randperm(bands - 2)[:points - 2].numpy() + 1), bands - 1]
            gains_db = 12 * torch.rand(points).numpy() - 6
            gains = np.interp(np.arange(bands), corners, gains_db) * np.log(10) / 10
            track += torch.from_numpy(gains).float().to(track.device)[:, None]
    return specs


CHANGES = {"no-mixup": None, "constant": None, "padded": None, "shift": shift, "stripes": stripes, "curves": curves}


# --- one run

def score(labels: np.ndarray, logits: np.ndarray, scaling: tuple[float, float], threshold: float) -> dict:
    "Metrics of the held-out clips as a user sees them, and calibration before it was fitted."
    before = judge(labels, logits, 0.5)
    after = judge(labels, logits, threshold, None, scaling)
    names = ("ap", "roc_auc", "precision", "recall", "f1", "ece", "brier", "threshold")
    return {name: after.metrics[name] for name in names} | {f"{name}_before": before.metrics[name]
                                                            for name in ("ece", "brier")}


@dataclass
class Watch:
    "Measures every epoch on the held-out clips, and writes a line of JSON for each."
    path: Path
    config: TrainConfig
    model_config: ModelConfig
    held_loader: ClipLoader
    device: torch.device
    precision: str

    def __post_init__(self) -> None: self.start_clocks()

    def start_clocks(self) -> None:
        self.wall_start_s = time.perf_counter()
        self.cpu_start_s = time.process_time()

    def rows(self) -> list[dict]:
        "One row for each epoch; the later one of an epoch that was repeated."
        if not self.path.exists(): return []
        return list({row["epoch"]: row for row in map(json.loads, self.path.read_text().splitlines())}.values())

    def times_of(self, epoch: int) -> dict[str, float]:
        "Wall seconds and CPU seconds of the training up to this epoch."
        before = {"seconds": 0.0, "processor_s": 0.0}
        before = next((row for row in self.rows() if row["epoch"] == epoch - 1), before)
        return {"seconds": before["seconds"] + time.perf_counter() - self.wall_start_s,
                "processor_s": before["processor_s"] + time.process_time() - self.cpu_start_s}

    def __call__(self, state: TrainState, measured: Evaluation) -> None:
        "Add a line."
        best, epoch = state.best_epoch == state.epoch, state.epoch
        row = {"epoch": epoch, "best": best, **self.times_of(epoch),
               "train_loss": state.history[-1]["train_loss"], "validation_ap": measured.metrics["ap"]}
        if self.config.recipe == "default" or best or epoch == self.config.epochs:
            scaling = CheckpointInfo(self.model_config, calibration=measured.calibration).scaling
            labels, logits = predict(state.model, self.held_loader, self.device, self.precision)
            row |= score(labels, logits, scaling, measured.metrics["threshold"])
        shown = {name: round(value, 4) for name, value in row.items()}
        print(f"{self.path.parent.name} {json.dumps(shown)}", flush=True)
        if epoch == self.config.epochs:
            row |= {"labels": labels.tolist(), "logits": logits.round(4).tolist(),
                    "validation_labels": measured.labels.tolist(),
                    "validation_logits": measured.logits.round(4).tolist()}
        with open(self.path, "a") as file: file.write(json.dumps(row) + "\n")
        self.start_clocks()


@dataclass
class WatchedRun(RunFolder):
    "A run folder whose epochs are measured before they are saved."
    watch: Watch | None = None

    def save_epoch(self, state: TrainState, measured: Evaluation, kept: bool) -> None:
        "Measure, then save."
        self.watch(state, measured)
        super().save_epoch(state, measured, kept)


def always_full_rate(*_: object) -> float:
    "A learning rate that neither warms up nor decays."
    return 1.0


@dataclass(frozen=True)
class Kind:
    "What makes one run differ from another."
    recipe: str
    change: str | None
    seed: int
    positives: int | None

    @property
    def name(self) -> str:
        parts = self.recipe, self.change, self.positives or "all", self.seed
        return "-".join(str(part) for part in parts if part is not None)

    def is_of(self, line: dict) -> bool:
        "Whether a line of results is of such a run."
        return asdict(self) == {name: line[name] for name in asdict(self)}


def run(
    kind: Kind,
    epochs: int,
    sides: tuple[pd.DataFrame, pd.DataFrame],  # training clips, held-out clips
    out: Path,
    device: torch.device,
    precision: str = "auto",
    init: Path | None = None,
) -> dict:
    """Train, or resume training, and return the line of results.

    The default recipe is measured on the held-out clips after every epoch, the notebook's at its best and at its end.
    """
    recipe, change, seed = kind.recipe, kind.change, kind.seed
    if change and recipe == "notebook":
        raise SystemExit(f"--change: found {change} with the notebook's recipe, expected the default; leave one out")
    size = 32 if recipe == "notebook" else None
    config = TrainConfig(recipe=recipe, seed=seed, epochs=epochs, batch_size=size, save_minutes=1e6,
                         device=str(device), precision=precision).settled()
    if change == "no-mixup": config = replace(config, mixup=0.0)
    model_config = ModelConfig(**NOTEBOOK_FLAGS) if recipe == "notebook" else MODELS["default"]
    precision = pick_precision(device, precision)
    drawn = draw_recordings(sides[0], kind.positives, seed)
    train_table, val_table = split_clips(drawn, "group", config.val_split, seed)
    train_loader, val_loader = make_loaders(train_table, val_table, config, device)
    if CHANGES.get(change): train_loader.change = CHANGES[change]
    if change == "padded":  # slow; slowest from a clip folder, without a pack
        train_loader.padded_to = config.max_frames
        train_loader.workers = 0
    held_plans = EvaluationPlans(sides[1], 64 if device.type == "cuda" else 16, config.max_frames)
    padded_to = None if model_config.mask_aware else config.max_frames
    held_loader = ClipLoader(sides[1], held_plans, device, 1, padded_to)
    out.mkdir(parents=True, exist_ok=True)
    watch = Watch(out/"rows.jsonl", config, model_config, held_loader, device, precision)
    torch.manual_seed(seed)
    model = HighlightCRNN.from_config(model_config)
    if init and not (out/"last.pt").exists(): model.load_state_dict(load_checkpoint(init)[0].state_dict())
    rate = always_full_rate if change == "constant" else training.rate_at
    with patch.object(training, "rate_at", rate):
        fit(model, train_loader, val_loader, config, WatchedRun(out, config, watch=watch), False)
    positives = sides[1].path[sides[1].label == 1]
    inside = peaks_inside(model.eval(), positives, config.max_frames, precision)
    return {**asdict(kind), "training": [len(train_table), int(train_table.label.sum())],
            "validation": [len(val_table), int(val_table.label.sum())],
            "init": init and init.parent.name, "machine": machine(device, precision),
            "config": asdict(config), "rows": watch.rows(), "peak_inside": inside and inside[0]}


def machine(device: torch.device, precision: str) -> str:
    "What computed the run."
    return (f"{os.cpu_count()} cores, torch {torch.__version__}, {device}, {pick_precision(device, precision)}, "
            f"{torch.get_num_threads()} threads")


# --- the table

def spread(values: list[float]) -> str:
    "Mean and range."
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def table(lines: list[dict]) -> str:
    "Mean and range over the seeds."
    kinds, rows_of_table = {}, []
    for line in lines:
        kind = str(line["positives"] or "all"), line["recipe"], line["change"] or ""
        kinds.setdefault(kind, []).append(line)
    names = ("ap", "roc_auc", "f1", "ece_before", "ece", "brier_before", "brier")
    for (positives, recipe, change), runs in sorted(kinds.items()):
        last = [one["rows"][-1] for one in runs]
        best = [next(row for row in reversed(one["rows"]) if row["best"]) for one in runs]
        for when, rows in {"best": best, "last": last}.items():
            figures = ", ".join(f"{name} {spread([row[name] for row in rows])}" for name in names)
            rows_of_table.append(f"{positives:>4} positives, {recipe:8} {change:8}, {when:8}, "
                                 f"{len(rows)} seeds: {figures}")
        inside = np.mean(np.array([one["peak_inside"] for one in runs], float))
        wall_s = np.mean([row["seconds"] for row in last])
        cpu_s = np.mean([row["processor_s"] for row in last])
        rows_of_table.append(f"{'':>16}peak inside {inside:.3f}, {wall_s:.0f} s, {cpu_s:.0f} s of CPU time")
    return "\n".join(rows_of_table)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("held_out", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--recipes", nargs="+", default=["default", "notebook"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--positives", nargs="+", default=["all"], help="numbers, or all")
    parser.add_argument("--change", nargs="+", default=[None], choices=list(CHANGES), help="one change for each run")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--init", help="checkpoint to initialise from; {seed} in its name stands for the seed")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    device, results = pick_device(options.device), options.out/"results.jsonl"
    options.out.mkdir(parents=True, exist_ok=True)
    print(machine(device, options.precision), flush=True)
    sides = index_clips(options.train), index_clips(options.held_out)
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    numbers = [None if number == "all" else int(number) for number in options.positives]
    for positives, recipe, change, seed in itertools.product(numbers, options.recipes, options.change, options.seeds):
        kind = Kind(recipe, change, seed, positives)
        if any(kind.is_of(line) for line in lines): continue
        init = Path(options.init.format(seed=seed)) if options.init else None
        lines.append(run(kind, options.epochs, sides, options.out/kind.name, device, options.precision, init))
        with open(results, "a") as file: file.write(json.dumps(lines[-1]) + "\n")
    print(table(lines))


if __name__ == "__main__": main()
