"""The recipes on the same clips: how well each does on held-out streamers, by seed and by number of training positives.

    highlight-sense prepare recordings/train --labels train.csv -o clips/train      # as real_audio.sh does
    highlight-sense prepare recordings/test --labels test.csv -o clips/test
    python benchmarks/recipes.py clips/train clips/test runs --seeds 0 1 2 --positives all 200 100 50
    python benchmarks/recipes.py clips/train clips/test runs --recipes default --positives 100 \\
        --change no-mixup constant shift stripes curves
    python benchmarks/recipes.py clips/train clips/test slow --recipes default --positives 100 --change padded \\
        --precision fp32                                                        # next to the same from packs
    python benchmarks/recipes.py clips/others clips/test begun --recipes default --positives 50 \\
        --init runs/default-all-{seed}/last.pt

A run is a recipe, perhaps with one thing changed, a seed and a number of positives: whole recordings, drawn by the seed
until they hold that many. Each run leaves `last.pt` and `best.pt` in its folder and a line in `runs/results.jsonl`, with
the logits of its last epoch. A stopped run resumes after its last finished epoch; one that has its line is not repeated.
The table at the end covers all lines. `benchmarks/recipes.jsonl`, `recipes-short.jsonl`, `recipes-begun.jsonl` and
`recipes-gpu.jsonl` hold the lines behind the published figures: copy one to `runs/results.jsonl` to add to it. Other
--epochs, another --init or another --precision need a folder of their own.
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
from highlight_sense.config import ModelConfig, TrainConfig
from highlight_sense.data import index_clips, split_clips
from highlight_sense.device import pick_device, pick_precision
from highlight_sense.evaluate import peaks_inside
from highlight_sense.model import HighlightCRNN
from highlight_sense.run import RunFolder
from highlight_sense.train import Evaluation, TrainState, fit, judge, make_loaders, predict


def draw_recordings(index: pd.DataFrame, positives: int | None, seed: int) -> pd.DataFrame:
    "Whole recordings until they hold this many positives (default: all of them)."
    if positives is None: return index
    order = np.random.default_rng(seed).permutation(sorted(index.group.unique()))
    held = index.groupby("group").label.sum().loc[order].cumsum()
    return index[index.group.isin(order[:int((held < positives).sum()) + 1])].reset_index(drop=True)


def stretch(row: torch.Tensor) -> slice:
    "The frames of a clip that are sound, by its mask."
    return slice(0, int(row.sum()))


def shift(specs: torch.Tensor, masks: torch.Tensor, clips: np.ndarray) -> torch.Tensor:
    "Every clip begins at a random place of its own, what was before it follows at the end."
    for spec, mask in zip(specs, masks):
        sound = stretch(mask)
        spec[..., sound] = spec[..., sound].roll(int(torch.randint(sound.stop, ())), -1)
    return specs


def stripes(specs: torch.Tensor, masks: torch.Tensor, clips: np.ndarray) -> torch.Tensor:
    "SpecAugment (Park et al. 2019, https://arxiv.org/abs/1904.08779): two stripes of at most 12 bands and two of at most a second, filled with the mean."
    for spec, mask in zip(specs, masks):
        sound, fill = stretch(mask), spec[..., stretch(mask)].mean((1, 2), keepdim=True)
        for most, axis in ((12, 1), (12, 1), (43, 2), (43, 2)):
            width = min(int(torch.randint(most + 1, ())), (spec.shape[1], sound.stop)[axis - 1])
            begin = int(torch.randint((spec.shape[1], sound.stop)[axis - 1] - width + 1, ()))
            spec.narrow(axis, begin, width).copy_(fill.expand_as(spec.narrow(axis, begin, width)))
    return specs


def curves(specs: torch.Tensor, masks: torch.Tensor, clips: np.ndarray) -> torch.Tensor:
    "FilterAugment, the linear kind (Nam et al. 2022, https://arxiv.org/abs/2110.03282): each track through a filter of 3 to 6 points within 6 dB."
    bands = specs.shape[2]
    for spec in (track for clip in specs for track in clip):  # flattened they could be a copy
        points = int(torch.randint(3, 7, ()))
        at = np.r_[0, np.sort(torch.randperm(bands - 2)[:points - 2].numpy() + 1), bands - 1]
        gains_db = 12 * torch.rand(points).numpy() - 6
        spec += torch.from_numpy(np.interp(np.arange(bands), at, gains_db) * np.log(10) / 10).float().to(spec.device)[:, None]
    return specs


CHANGES = {"no-mixup": None, "constant": None, "padded": None, "shift": shift, "stripes": stripes, "curves": curves}


def score(labels: np.ndarray, logits: np.ndarray, scaling: tuple[float, float], threshold: float) -> dict:
    "What a user would see of the held-out clips."
    before, after = judge(labels, logits, 0.5), judge(labels, logits, threshold, None, scaling)
    names = ("ap", "roc_auc", "precision", "recall", "f1", "ece", "brier", "threshold")
    return {name: after.metrics[name] for name in names} | {f"{name}_before": before.metrics[name] for name in ("ece", "brier")}


def run(recipe: str, change: str | None, seed: int, positives: int | None, epochs: int, sides: tuple[pd.DataFrame, pd.DataFrame], out: Path,
        device: torch.device, precision: str = "auto", init: Path | None = None) -> dict:
    "One training, or the rest of one, measured on the held-out clips after every epoch, or, with the notebook's recipe, at its best and at its end."
    if change and recipe == "notebook": raise SystemExit(f"found the notebook's recipe and --change {change}, expected the default recipe; leave one out")
    size = 32 if recipe == "notebook" else None
    config = TrainConfig(recipe=recipe, seed=seed, epochs=epochs, batch_size=size, save_minutes=1e6, device=str(device), precision=precision).settled()
    if change == "no-mixup": config = replace(config, mixup=0.0)
    model_config = ModelConfig(**NOTEBOOK_FLAGS) if recipe == "notebook" else ModelConfig()
    precision = pick_precision(device, precision)
    train_table, val_table = split_clips(draw_recordings(sides[0], positives, seed), "group", config.val_split, seed)
    train_loader, val_loader = make_loaders(train_table, val_table, config, device)
    if CHANGES.get(change): train_loader.change = CHANGES[change]
    if change == "padded": train_loader.padded_to, train_loader.workers = config.max_frames, 0  # the slow way; of clips, not of a pack, the slowest
    held_plans = EvaluationPlans(sides[1], 64 if device.type == "cuda" else 16, config.max_frames)
    held_loader = ClipLoader(sides[1], held_plans, device, 1, None if model_config.mask_aware else config.max_frames)
    out.mkdir(parents=True, exist_ok=True)
    watch = Watch(out/"rows.jsonl", config, model_config, held_loader, device, precision)
    torch.manual_seed(seed)
    model = HighlightCRNN.from_config(model_config)
    if init and not (out/"last.pt").exists(): model.load_state_dict(load_checkpoint(init)[0].state_dict())
    rate = (lambda *_: 1.0) if change == "constant" else training.rate_at
    with patch.object(training, "rate_at", rate): fit(model, train_loader, val_loader, config, WatchedRun(out, config, watch=watch), False)
    inside = peaks_inside(model.eval(), sides[1].path[sides[1].label == 1], config.max_frames, precision)
    return {"recipe": recipe, "change": change, "seed": seed, "positives": positives, "training": [len(train_table), int(train_table.label.sum())],
            "validation": [len(val_table), int(val_table.label.sum())], "init": init and init.parent.name, "machine": machine(device, precision),
            "config": asdict(config), "rows": watch.rows(), "peak_inside": inside and inside[0]}


@dataclass
class Watch:
    "What is measured of every epoch, a line of JSON for each."
    path: Path
    config: TrainConfig
    model_config: ModelConfig
    held_loader: ClipLoader
    device: torch.device
    precision: str

    def __post_init__(self) -> None: self.begin()

    def begin(self) -> None: self.began, self.used = time.perf_counter(), time.process_time()

    def rows(self) -> list[dict]:
        "One for each epoch; of one that was started twice, the later."
        if not self.path.exists(): return []
        return list({row["epoch"]: row for row in map(json.loads, self.path.read_text().splitlines())}.values())

    def __call__(self, state: TrainState, measured: Evaluation) -> None:
        "Add a line."
        best, epoch = state.best_epoch == state.epoch, state.epoch
        before = next((row for row in self.rows() if row["epoch"] == epoch - 1), {"seconds": 0.0, "processor_s": 0.0})
        row = {"epoch": epoch, "best": best, "seconds": before["seconds"] + time.perf_counter() - self.began,
               "processor_s": before["processor_s"] + time.process_time() - self.used,
               "train_loss": state.history[-1]["train_loss"], "validation_ap": measured.metrics["ap"]}
        if self.config.recipe == "default" or best or epoch == self.config.epochs:
            scaling = CheckpointInfo(self.model_config, calibration=measured.calibration).scaling
            labels, logits = predict(state.model, self.held_loader, self.device, self.precision)
            row |= score(labels, logits, scaling, measured.metrics["threshold"])
        print(f"{self.path.parent.name} {json.dumps({name: round(value, 4) for name, value in row.items()})}", flush=True)
        if epoch == self.config.epochs:
            row |= {"labels": labels.tolist(), "logits": logits.round(4).tolist(), "validation_labels": measured.labels.tolist(),
                    "validation_logits": measured.logits.round(4).tolist()}
        with open(self.path, "a") as file: file.write(json.dumps(row) + "\n")
        self.begin()


@dataclass
class WatchedRun(RunFolder):
    "A run folder whose epochs are measured before they are saved."
    watch: Watch | None = None

    def save_epoch(self, state: TrainState, measured: Evaluation, kept: bool) -> None:
        "Measure, then save."
        self.watch(state, measured)
        super().save_epoch(state, measured, kept)


def machine(device: torch.device, precision: str) -> str:
    "What was computed on."
    return f"{os.cpu_count()} cores, torch {torch.__version__}, {device}, {pick_precision(device, precision)}, {torch.get_num_threads()} threads"


def spread(values: list[float]) -> str:
    "Mean and range."
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def table(lines: list[dict]) -> str:
    "Mean and range over the seeds."
    kinds, words = {}, []
    for line in lines: kinds.setdefault((str(line["positives"] or "all"), line["recipe"], line["change"] or ""), []).append(line)
    names = ("ap", "roc_auc", "f1", "ece_before", "ece", "brier_before", "brier")
    for (positives, recipe, change), runs in sorted(kinds.items()):
        ends = {"best": [next(row for row in reversed(one["rows"]) if row["best"]) for one in runs], "last": [one["rows"][-1] for one in runs]}
        for when, rows in ends.items():
            words.append(f"{positives:>4} positives, {recipe:8} {change:8}, {when:8}, {len(rows)} seeds: "
                         + ", ".join(f"{name} {spread([row[name] for row in rows])}" for name in names))
        words.append(f"{'':>16}peak inside {np.mean(np.array([one['peak_inside'] for one in runs], float)):.3f}, "
                     + ", ".join(f"{name} {np.mean([row[name] for row in ends['last']]):.0f}" for name in ("seconds", "processor_s")))
    return "\n".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path); parser.add_argument("held_out", type=Path); parser.add_argument("out", type=Path)
    parser.add_argument("--recipes", nargs="+", default=["default", "notebook"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--positives", nargs="+", default=["all"], help="numbers, or all")
    parser.add_argument("--change", nargs="+", default=[None], choices=list(CHANGES), help="with one thing changed")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--init", help="checkpoint to begin with; {seed} in its name stands for the seed")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    chosen = parser.parse_args()
    device, results = pick_device(chosen.device), chosen.out/"results.jsonl"
    chosen.out.mkdir(parents=True, exist_ok=True)
    print(machine(device, chosen.precision), flush=True)
    sides = index_clips(chosen.train), index_clips(chosen.held_out)
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for positives in (None if number == "all" else int(number) for number in chosen.positives):
        for recipe, change, seed in itertools.product(chosen.recipes, chosen.change, chosen.seeds):
            if any((line["recipe"], line["change"], line["seed"], line["positives"]) == (recipe, change, seed, positives) for line in lines): continue
            name = "-".join(str(part) for part in (recipe, change, positives or "all", seed) if part is not None)
            init = chosen.init and Path(chosen.init.format(seed=seed))
            lines.append(run(recipe, change, seed, positives, chosen.epochs, sides, chosen.out/name, device, chosen.precision, init))
            with open(results, "a") as file: file.write(json.dumps(lines[-1]) + "\n")
    print(table(lines))


if __name__ == "__main__":
    main()
