"""The recipes on the same clips: how well each does on held-out streamers, by seed and by how many positives there are to learn from.

    highlight-sense prepare recordings/train --labels train.csv -o clips/train      # as real_audio.sh does
    highlight-sense prepare recordings/test --labels test.csv -o clips/test
    python benchmarks/recipes.py clips/train clips/test runs --seeds 0 1 2 --positives all 200 100 50

A run is a recipe, a seed and a number of positives (whole recordings, drawn by the seed until they hold so many). Each leaves `last.pt` and `best.pt` in its
folder and a line in `runs/results.jsonl`; a run that has its line is not done again. The table at the end is of all lines.
"""
import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from highlight_sense.batches import ClipLoader, EvaluationPlans
from highlight_sense.checkpoint import BEFORE, save_checkpoint
from highlight_sense.core import FrontEnd, ModelConfig, TrainConfig
from highlight_sense.data import index_clips, split_clips
from highlight_sense.dataset_aug import seed_of, set_epoch
from highlight_sense.metrics import surely_lower
from highlight_sense.model import HighlightCRNN
from highlight_sense.train import (
    Evaluation,
    calibrate,
    evaluate,
    judge,
    keep_memory,
    make_loaders,
    new_tally,
    peaks_inside,
    pick_device,
    pick_precision,
    predict,
    start_training,
    train_epoch,
)


def draw_recordings(index: pd.DataFrame, positives: int | None, seed: int) -> pd.DataFrame:
    "Whole recordings until they hold so many positives; none: all of them."
    if positives is None: return index
    order = np.random.default_rng(seed).permutation(sorted(index.group.unique()))
    held = index.groupby("group").label.sum().loc[order].cumsum()
    return index[index.group.isin(order[:int((held < positives).sum()) + 1])].reset_index(drop=True)


def settle(validation: Evaluation, held_out: tuple[np.ndarray, np.ndarray], config: TrainConfig) -> dict:
    "Calibrate on the validation clips, and measure on the others as a user would."
    calibrated, known = calibrate(validation, config)
    scaling = (known["temperature"], known["offset"]) if known else (1.0, 0.0)
    before, after = judge(*held_out, 0.5), judge(*held_out, calibrated.metrics["threshold"], None, scaling)
    names = ("ap", "roc_auc", "precision", "recall", "f1", "ece", "brier", "threshold")
    return {name: after.metrics[name] for name in names} | {f"{name}_before": before.metrics[name] for name in ("ece", "brier")}


def run(recipe: str, seed: int, positives: int | None, epochs: int, sides: tuple[pd.DataFrame, pd.DataFrame], out: Path, device: torch.device) -> dict:
    "One training, measured on the held-out clips after every epoch, or, with the notebook's recipe, at its best and at its end."
    config = TrainConfig(recipe=recipe, seed=seed, epochs=epochs, batch_size=32 if recipe == "notebook" else None).settled()
    model_config = ModelConfig(**BEFORE) if recipe == "notebook" else ModelConfig()
    precision = pick_precision(device)
    train_table, val_table = split_clips(draw_recordings(sides[0], positives, seed), "group", config.val_split, seed)
    train_loader, val_loader = make_loaders(train_table, val_table, config, device)
    held_loader = ClipLoader(sides[1], EvaluationPlans(sides[1], 16, config.max_frames), device, 1, None if model_config.mask_aware else config.max_frames)
    torch.manual_seed(seed)
    state = start_training(HighlightCRNN.from_config(model_config), config, device, precision, epochs * len(train_loader))
    rows, best, seconds = [], None, 0.0
    for epoch in range(epochs):
        began = time.perf_counter()
        set_epoch(train_loader, epoch)
        torch.manual_seed(seed_of(seed, epoch))
        train_epoch(state, train_loader, config, device, precision, None, False)
        validation = evaluate(state.model, val_loader, device, 0.5, None, precision)
        seconds += time.perf_counter() - began
        loss = float(state.tally["loss"] / state.tally["clips"])
        state.history.append({})
        state.tally = new_tally(device)
        improved = state.best is None or not surely_lower(validation.labels, validation.logits, state.best.logits)
        row = {"epoch": epoch + 1, "seconds": seconds, "train_loss": loss,
               "validation_ap": validation.metrics["ap"], "validation_loss": validation.metrics["loss"]}
        if recipe == "default" or improved or epoch + 1 == epochs:
            row |= settle(validation, predict(state.model, held_loader, device, precision), config)
            calibrated, calibration = calibrate(validation, config)
            known = epoch + 1, FrontEnd(), config.max_frames, calibrated.metrics["threshold"], calibrated.metrics, None, calibration
            for name in ["last.pt"] + ["best.pt"] * improved: save_checkpoint(out/name, state.model, *known)
        if improved: best, state.best = row, validation
        rows.append(row)
        print(f"{out.name} " + json.dumps({name: round(value, 4) for name, value in row.items()}), flush=True)
    return {"recipe": recipe, "seed": seed, "positives": positives, "training": [len(train_table), int(train_table.label.sum())],
            "validation": [len(val_table), int(val_table.label.sum())], "precision": precision, "config": asdict(config),
            "rows": rows, "last": rows[-1], "best": best,
            "peak_inside": peaks_inside(state.model, sides[1].path[sides[1].label == 1], config.max_frames, precision)[0]}


def spread(values: list[float]) -> str:
    "Mean and range."
    return f"{np.mean(values):.3f} ({min(values):.3f} to {max(values):.3f})"


def table(lines: list[dict]) -> str:
    "Mean and range over the seeds."
    kinds, words = {}, []
    for line in lines: kinds.setdefault((str(line["positives"] or "all"), line["recipe"]), []).append(line)
    for (positives, recipe), runs in sorted(kinds.items()):
        for when in ("best", "last"):
            words.append(f"{positives:>4} positives, {recipe:8}, {when} epoch, {len(runs)} seeds: " + ", ".join(
                f"{name} {spread([one[when][name] for one in runs])}" for name in ("ap", "roc_auc", "f1", "ece_before", "ece", "brier_before", "brier")))
        words.append(f"{'':>16}peak inside {np.mean([one['peak_inside'] for one in runs]):.3f}, {np.mean([one['last']['seconds'] for one in runs]):.0f} s")
    return "\n".join(words)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path); parser.add_argument("held_out", type=Path); parser.add_argument("out", type=Path)
    parser.add_argument("--recipes", nargs="+", default=["default", "notebook"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--positives", nargs="+", default=["all"], help="numbers, or all")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--device", default="auto")
    chosen = parser.parse_args()
    device, results = pick_device(chosen.device), chosen.out/"results.jsonl"
    keep_memory()
    chosen.out.mkdir(parents=True, exist_ok=True)
    print(f"{os.cpu_count()} cores, torch {torch.__version__}, {device}, {pick_precision(device)}", flush=True)
    sides = index_clips(chosen.train), index_clips(chosen.held_out)
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    for positives in (None if number == "all" else int(number) for number in chosen.positives):
        for seed in chosen.seeds:
            for recipe in chosen.recipes:
                if any((line["recipe"], line["seed"], line["positives"]) == (recipe, seed, positives) for line in lines): continue
                lines.append(run(recipe, seed, positives, chosen.epochs, sides, chosen.out/f"{recipe}-{positives or 'all'}-{seed}", device))
                with open(results, "a") as file: file.write(json.dumps(lines[-1]) + "\n")
    print(table(lines))


if __name__ == "__main__":
    main()
