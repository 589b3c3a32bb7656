"""Measure detection: train on some recordings, and measure on others, which are clean, bleed or are mixed.

    # the default recipe, three seeds, on recordings of other speakers
    python benchmarks/recordings.py recordings labels.csv out --held-out "_(13|14|15|16)__" --seeds 0 1 2

    # variants: a name, and the fields of TrainConfig and ModelConfig that differ, or `init`, the weights to start from
    python benchmarks/recordings.py recordings labels.csv out --held-out "_(13|14|15|16)__" \\
        --variants default 'nothing:init="random"' 'notebook:recipe="notebook"' "narrow:cnn_channels=(16,32,48,96)"

    # checkpoints as they are, such as one that was trained on other recordings
    python benchmarks/recordings.py recordings labels.csv out --held-out "_(13|14|15|16)__" \\
        --variants --models highlight_sense/starter.pt

The recordings have two tracks. Those whose names match --held-out are only measured, with the defaults of `detect`: as
they are; with tracks that bleed, each into the other, 15 to 28 dB below; and with a single track, the sum of both. One
without labels counts as a recording without highlights.

OUT holds the clips of both sides, packed (`train.pack`, `test.pack`, also for recipes.py), the changed recordings, the
runs, and a line of JSON for each run in `results.jsonl`. A second call resumes: a run with a line is not repeated. The
table at the end covers all lines. Twelve hours of recordings take about an hour on two cores for each run.
"""
import argparse
import ast
import csv
import json
import re
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path

import numpy as np
from recipes import machine, spread
from scipy.signal import butter, sosfilt

import highlight_sense
from highlight_sense.checkpoint import load_checkpoint
from highlight_sense.config import MODELS, DetectConfig, ModelConfig, TrainConfig
from highlight_sense.device import pick_device
from highlight_sense.evaluate import evaluate_checkpoint
from highlight_sense.labels import read_labels
from highlight_sense.media import write_pieces
from highlight_sense.model import count_multiply_adds
from highlight_sense.packing import pack_clips
from highlight_sense.prepare import prepare
from highlight_sense.process import tune_process
from highlight_sense.recordings import evaluate_recordings
from highlight_sense.run import train
from highlight_sense.tracks import choose_pair, read_pair

RATE_HZ = 22_050


# --- harder recordings

LEAK_DB = -28, -15     # of the other track
DELAY_S = 0.004, 0.025  # from the loudspeaker to the microphone
LOUDSPEAKER_HZ = 150, 5000


def leak(blocks: Iterator[np.ndarray], rng: np.random.Generator) -> Iterator[np.ndarray]:
    "Let the game reach the microphone as from a loudspeaker in the room, and the voice reach the game's track."
    to_voice, to_game = 10 ** (rng.uniform(*LEAK_DB, 2) / 20)
    delay = round(rng.uniform(*DELAY_S) * RATE_HZ)
    loudspeaker = butter(2, LOUDSPEAKER_HZ, "band", fs=RATE_HZ, output="sos")
    state, late = np.zeros((len(loudspeaker), 2)), np.zeros(delay)
    for voice, game in blocks:
        leaked, state = sosfilt(loudspeaker, game, zi=state)
        leaked = np.concatenate([late, leaked])
        late = leaked[len(voice):]
        yield np.float32([voice + to_voice * leaked[:len(voice)], game + to_game * voice])


def mix(blocks: Iterator[np.ndarray], rng: np.random.Generator) -> Iterator[np.ndarray]:
    "Add both tracks."
    for block in blocks: yield block.sum(0, keepdims=True)


CHANGES = {"bleeding": (leak, ["voice", "game"], {}), "mixed": (mix, ["mix"], {"separate": "none"})}


def write_changed(recording: Path, out: Path, change: str) -> None:
    "Write a changed recording, the same every time, as lossless sound."
    function, titles, _ = CHANGES[change]
    rng = np.random.default_rng(zlib.crc32(recording.name.encode()))

    def pieces() -> Iterator[tuple[int, int, np.ndarray]]:
        start = 0
        for block in function(read_pair(choose_pair(recording), RATE_HZ), rng):
            for number, samples in enumerate(block): yield number, start, np.ascontiguousarray(samples)
            start += block.shape[1]
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.exists(): write_pieces(out, titles, pieces(), RATE_HZ)


# --- both sides of the recordings

@dataclass(frozen=True)
class Side:
    "The recordings to train on, or to measure on."
    recordings: list[Path]
    labels: Path              # labels.csv
    clips: Path               # pack


def make_side(name: str, highlights: dict[Path, list[tuple[float, float]]], out: Path) -> Side:
    "Prepare and pack the recordings of a side, unless that was done before."
    side = Side(list(highlights), out/f"{name}.csv", out/f"{name}.pack")
    if not any(highlights.values()): raise SystemExit(f"{name}: found no labelled recording; change --held-out")
    with open(side.labels, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["recording", "start_s", "end_s"])
        for recording, times in highlights.items(): rows.writerows([recording.stem, *each] for each in times)
    if not side.clips.exists():
        prepare(side.recordings, side.labels, out/"clips"/name, unlabelled="negative", overwrite=True)
        pack_clips(out/"clips"/name, side.clips)
    return side


def changed_recordings(side: Side, out: Path, change: str) -> list[Path]:
    "Write the recordings of a side with a change, unless that was done before."
    paths = [out/change/f"{recording.stem}.mka" for recording in side.recordings]
    for recording, path in zip(side.recordings, paths): write_changed(recording, path, change)
    return paths


# --- one run

@dataclass(frozen=True)
class Variant:
    "A name, and the settings that differ from the default recipe."
    name: str
    settings: dict[str, object] = field(default_factory=dict)  # fields of TrainConfig and ModelConfig

    @classmethod
    def parse(cls, text: str) -> "Variant":
        "Read `name` or `name:field=value,field=value`."
        name, _, settings = text.partition(":")
        keywords = ast.parse(f"dict({settings})", mode="eval").body.keywords
        return cls(name, {each.arg: ast.literal_eval(each.value) for each in keywords})

    def configs(self, **given: object) -> tuple[TrainConfig, ModelConfig]:
        "Return the settings of a run."
        of_model = {each.name for each in fields(ModelConfig)}
        unknown = self.settings.keys() - of_model - {each.name for each in fields(TrainConfig)} - {"init"}
        if unknown:
            raise SystemExit(f"{self.name}: found {', '.join(unknown)}, expected fields of TrainConfig or ModelConfig")
        others = {name: value for name, value in self.settings.items() if name not in of_model | {"init"}}
        config = TrainConfig(**given, **others)
        changes = {name: value for name, value in self.settings.items() if name in of_model}
        return config, replace(MODELS[config.settled().model], **changes)


def train_run(variant: Variant, seed: int, side: Side, out: Path, precision: str) -> tuple[Path, dict]:
    "Train, or resume training; return the checkpoint, and the time since it was last resumed."
    config, model_config = variant.configs(seed=seed, precision=precision)
    wall_s, cpu_s = time.perf_counter(), time.process_time()
    init = None if (out/"config.json").exists() else variant.settings.get("init")
    state = train(side.clips, out, config, model_config, progress=False, init=init, resume=True)
    took = {"train_s": time.perf_counter() - wall_s, "train_cpu_s": time.process_time() - cpu_s}
    return out/"best.pt", took | {"epoch": state.best_epoch, "validation_ap": state.best.metrics["ap"]}


def measure(checkpoint: Path, side: Side, changed: dict[str, list[Path]], precision: str) -> dict:
    "Measure a checkpoint on clips and on whole recordings, clean and changed."
    model, info = load_checkpoint(checkpoint)
    clips = evaluate_checkpoint(checkpoint, side.clips, precision=precision, progress=False).metrics
    config = DetectConfig(precision=precision)
    found = {"clean": evaluate_recordings(checkpoint, side.recordings, side.labels, config, progress=False,
                                          unlabelled="negative")}
    for change, paths in changed.items():
        found[change] = evaluate_recordings(checkpoint, paths, side.labels, config, progress=False,
                                            unlabelled="negative", **CHANGES[change][2])
    parameters = sum(weights.numel() for weights in model.parameters())
    return {"clips": clips, **found, "multiply_adds": sum(count_multiply_adds(info.config).values()),
            "parameters": parameters}


# --- the table

COLUMNS = {  # title: where its value is
    "F1 at IoU 0.3": ("clean", "f1_iou30"), "false alarms an hour": ("clean", "false_alarms_per_hour"),
    "mean AP": ("clean", "mean_ap"), "AP at IoU 0.7": ("clean", "ap_iou70"),
    "start error, s": ("clean", "start_error_s"), "end error, s": ("clean", "end_error_s"),
    "clip AP": ("clips", "ap"), "calibration error": ("clips", "ece"),
    "mean AP, bleeding": ("bleeding", "mean_ap"), "mean AP, mixed": ("mixed", "mean_ap")}


def cell(runs: list[dict], part: str, name: str) -> str:
    "Mean and range of a figure over the seeds."
    values = [run[part][name] for run in runs if run[part].get(name) is not None]
    if len(values) < 2: return "".join(f"{value:.3f}" for value in values)
    return spread(values)


def table(lines: list[dict]) -> str:
    "One row for each variant."
    runs = {}
    for line in lines: runs.setdefault(line["variant"], []).append(line)
    head = ["variant", "seeds", *COLUMNS, "million multiply-adds"]
    rows = [head, ["---"] * len(head)]
    for name, some in runs.items():
        figures = [cell(some, *place) for place in COLUMNS.values()]
        rows.append([name, str(len(some)), *figures, f"{some[0]['multiply_adds'] / 1e6:.0f}"])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def parse_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("labels", type=Path, help="labels.csv: recording, start_s, end_s")
    parser.add_argument("out", type=Path)
    parser.add_argument("--held-out", required=True, help="regular expression: names of recordings to measure on")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--variants", nargs="*", type=Variant.parse, default=[Variant("default")],
                        help="name, or name:field=value,field=value")
    parser.add_argument("--models", nargs="*", type=Path, default=[], help="checkpoints to measure as they are")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"])
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    out, results = options.out, options.out/"results.jsonl"
    out.mkdir(parents=True, exist_ok=True)
    tune_process("train")
    highlights = read_labels(options.labels, options.recordings, "negative")
    held = {path: bool(re.search(options.held_out, path.name)) for path in highlights}
    training, test = (make_side(name, {path: highlights[path] for path in highlights if held[path] == side}, out)
                      for name, side in (("train", False), ("test", True)))
    changed = {change: changed_recordings(test, out, change) for change in CHANGES}
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(line["variant"], line["seed"]) for line in lines}
    facts = {"machine": machine(pick_device("auto"), options.precision), "version": highlight_sense.__version__}
    wanted = [(model.stem, None, model) for model in options.models]
    wanted += [(variant.name, seed, variant) for seed in options.seeds for variant in options.variants]
    for name, seed, what in wanted:
        if (name, seed) in done: continue
        print(f"{name}, seed {seed}", flush=True)
        line = {"variant": name, "seed": seed, **facts}
        if isinstance(what, Variant):
            checkpoint, took = train_run(what, seed, training, out/"runs"/f"{name}-{seed}", options.precision)
            line |= {"settings": what.settings, **took}
        else: checkpoint = what
        line |= measure(checkpoint, test, changed, options.precision)
        lines.append(line)
        with open(results, "a") as file: file.write(json.dumps(line) + "\n")
        print(table([line]), flush=True)
    print(table(lines))


if __name__ == "__main__": main()
