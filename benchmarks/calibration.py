"""What calibrating on the validation clips does to the held-out ones, by the width of the prior on temperature and offset.

    python benchmarks/calibration.py train.pack test.pack benchmarks/recipes.jsonl benchmarks/recipes-gpu.jsonl

The lines are those of recipes.py, with the logits of each last epoch; the packs have the labels. Every run of the default recipe is calibrated anew.
"""
import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from recipes import draw_recordings

from highlight_sense.data import load_index, split_clips
from highlight_sense.metrics import calibration_error, fast_average_precision, fit_calibration, to_probabilities

WIDTHS = None, 2.0, 1.0, 0.7, 0.5  # of the prior; None: no calibration at all


def measure(line: dict, training: pd.DataFrame, labels: np.ndarray) -> np.ndarray:  # (widths, 2) calibration error, Brier score
    "The held-out clips of a run by each prior."
    last, config = line["rows"][-1], line["config"]
    _, validation = split_clips(draw_recordings(training, line["positives"], line["seed"]), config["split"], config["val_split"], config["seed"])
    known, logits, held = validation.label.to_numpy(), *(np.array(last[name]) for name in ("validation_logits", "logits"))
    aps = fast_average_precision(known, logits), fast_average_precision(labels, held)
    assert np.allclose(aps, (last["validation_ap"], last["ap"]), atol=1e-3), "other clips than those of the run"
    scalings = [(1.0, 0.0) if width is None else fit_calibration(known, logits, width) for width in WIDTHS]
    probabilities = [to_probabilities(held, *scaling) for scaling in scalings]
    return np.array([(calibration_error(labels, one), np.mean((one - labels) ** 2)) for one in probabilities])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", nargs=2, type=Path)
    parser.add_argument("lines", nargs="+", type=Path)
    chosen = parser.parse_args()
    training, labels = load_index(chosen.packs[0])[0], load_index(chosen.packs[1])[0].label.to_numpy()
    for path in chosen.lines:
        runs = defaultdict(list)
        for line in map(json.loads, path.read_text().splitlines()):
            if line["recipe"] == "default" and not line["change"]: runs[line["positives"], line["config"]["epochs"]].append(measure(line, training, labels))
        for (positives, epochs), figures in runs.items():
            for name, values in zip(("calibration error", "Brier score"), np.mean(figures, axis=0).T):
                words = ", ".join(f"{'none' if width is None else width}: {value:.4f}" for width, value in zip(WIDTHS, values))
                print(f"{path.name}, {positives or 'all'} positives, {epochs} epochs, {len(figures)} seeds, {name}: {words}")


if __name__ == "__main__": main()
