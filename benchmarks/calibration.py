"""How much calibration on the validation clips helps on held-out clips, for several widths of its prior.

    python benchmarks/calibration.py train.pack test.pack benchmarks/recipes.jsonl benchmarks/recipes-gpu.jsonl

The prior pulls the temperature towards 1 and the offset towards 0; a narrower one pulls harder. The packs hold the
labels. The `.jsonl` files are results of recipes.py, with the logits of each last epoch; every run of the default
recipe is calibrated anew.
"""
import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pandas as pd
from recipes import draw_recordings

from highlight_sense.clip_table import load_index
from highlight_sense.data import split_clips
from highlight_sense.metrics import calibration_error, fast_average_precision, fit_calibration, to_probabilities

WIDTHS = None, 2.0, 1.0, 0.7, 0.5  # of the prior; None: not calibrated


def validation_labels(line: dict, training: pd.DataFrame) -> np.ndarray:
    "The labels of the clips that a run was validated on."
    drawn = draw_recordings(training, line["positives"], line["seed"])
    config = line["config"]
    _, validation = split_clips(drawn, config["split"], config["val_split"], config["seed"])
    return validation.label.to_numpy()


def measure(line: dict, training: pd.DataFrame, test_labels: np.ndarray) -> np.ndarray:
    "Calibration error and Brier score of a run on the held-out clips, (widths, 2)."
    last = line["rows"][-1]
    labels = validation_labels(line, training)
    logits, test_logits = np.array(last["validation_logits"]), np.array(last["logits"])
    aps = fast_average_precision(labels, logits), fast_average_precision(test_labels, test_logits)
    assert np.allclose(aps, (last["validation_ap"], last["ap"]), atol=1e-3), "the packs hold other clips than the run"
    scalings = [(1.0, 0.0) if width is None else fit_calibration(labels, logits, width) for width in WIDTHS]
    probabilities = [to_probabilities(test_logits, *scaling) for scaling in scalings]
    return np.array([(calibration_error(test_labels, each), np.mean((each - test_labels) ** 2))
                     for each in probabilities])


def describe(values: np.ndarray) -> str:
    "One figure for each width of the prior."
    return ", ".join(f"{width or 'not calibrated'}: {value:.4f}" for width, value in zip(WIDTHS, values))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("packs", nargs=2, type=Path, help="the training pack and the held-out pack")
    parser.add_argument("results", nargs="+", type=Path, help="files of recipes.py, one run a line")
    options = parser.parse_args()
    training = load_index(options.packs[0])[0]
    test_labels = load_index(options.packs[1])[0].label.to_numpy()
    for path in options.results:
        runs = defaultdict(list)
        for line in map(json.loads, path.read_text().splitlines()):
            if line["recipe"] != "default" or line["change"]: continue
            runs[line["positives"], line["config"]["epochs"]].append(measure(line, training, test_labels))
        for (positives, epochs), figures in runs.items():
            title = f"{path.name}, {positives or 'all'} positives, {epochs} epochs, {len(figures)} seeds"
            for name, values in zip(("calibration error", "Brier score"), np.mean(figures, axis=0).T):
                print(f"{title}, {name}: {describe(values)}")


if __name__ == "__main__": main()
