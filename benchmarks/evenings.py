"""Simulate streamers who review their evenings, and measure what the next evening gets.

    python benchmarks/evenings.py recordings out --wanted own=labels.csv funny=funny.csv rage=rage.csv --seeds 0 1 2

Recordings are named STREAMER__anything. The last one of each streamer, by name, is never reviewed: every model is
measured on it. The others are reviewed one after another, with 25 verdicts each. A table of `--wanted` has the columns
recording, start_s and end_s; the reviewer wants exactly these moments. The reviewer

- first adds wanted moments that the model in use did not choose: each comes to mind with a probability of one half,
  and at most half of the verdicts are spent on them;
- then answers the page's questions in their order, and trims what is kept;
- gives the wrong answer to one question in twenty.

Three ways are compared. *ours*: learning as `highlight-sense learn` does, with the page's questions. *random*: the
same, but with questions drawn at random from all candidates. *scratch*: the verdicts of *ours*, but a taste that starts
from nothing: from random weights, and without the network's curve. The streamers learn after 1, 2 and 4 evenings;
OUT/results.jsonl gets a line each time, and a second call resumes.
"""
import argparse
import csv
import dataclasses
import itertools
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from recipes import machine

from highlight_sense.config import DetectConfig
from highlight_sense.detect import Scores, choose_moments, find_moments
from highlight_sense.detections import DetectionRecord, read_detection
from highlight_sense.detector import load_detector
from highlight_sense.device import pick_device
from highlight_sense.learn import (
    Evening,
    average_precision,
    choose_hill,
    choose_threshold,
    compare,
    distinct,
    leave_out,
    may_replace,
    measure_at,
    pool,
    rank,
    read_evening,
    teach,
)
from highlight_sense.metrics import HILL_STEPS, interval_iou
from highlight_sense.models import find_model
from highlight_sense.picks import Pick
from highlight_sense.process import tune_process
from highlight_sense.recordings import detect
from highlight_sense.review import find_candidates, questions
from highlight_sense.taste import Taste, corrected_curve, pretrained_taste

BUDGET, ERRS, REMEMBERS = 25, 0.05, 0.5
AFTER = 1, 2, 4


def spans(pairs: list[tuple[float, float]]) -> np.ndarray: return np.array(pairs, float).reshape(-1, 2)


def read_wanted(path: Path) -> dict[str, np.ndarray]:
    "Read what the reviewer wants: (N, 2) for each recording."
    wanted = defaultdict(list)
    with open(path, encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            if row["start_s"]: wanted[Path(row["recording"]).stem].append((float(row["start_s"]), float(row["end_s"])))
    return {name: spans(pairs) for name, pairs in wanted.items()}


@dataclasses.dataclass(frozen=True)
class Model:
    "The model in use: the network, and what was learned."
    threshold: float
    taste: Taste | None = None

    def curve(self, evening: Evening) -> tuple[np.ndarray, int]:
        if self.taste is None: return evening.curve, HILL_STEPS
        return corrected_curve(self.taste, evening.curve, evening.features), int(self.taste.hill_steps)


def look(evening: Evening, record: DetectionRecord, model: Model) -> tuple[DetectionRecord, Scores]:
    "Detect as the model in use does."
    curve, hill = model.curve(evening)
    scores = Scores(evening.duration_s, pd.DataFrame(), curve, evening.step_s, True, hill)
    settings = dataclasses.replace(record.settings, threshold=model.threshold)
    chosen, near = choose_moments(find_moments(scores, settings), settings, evening.duration_s)
    some = record.highlights or record.near_misses
    made = [[dataclasses.replace(some[0], rank=rank, start_s=one.start_s, end_s=one.end_s, probability=one.probability,
                                 clip_start_s=one.start_s, clip_end_s=one.end_s, window=None, parts=())
             for rank, one in enumerate(moments, 1)] for moments in (chosen, near)]
    return dataclasses.replace(record, settings=settings, highlights=tuple(made[0]), near_misses=tuple(made[1])), scores


def answer(candidate, name: str, wanted: np.ndarray, rng: np.random.Generator) -> Pick:
    "Keep or drop a candidate."
    found = candidate.start_s, candidate.end_s
    overlap = interval_iou(wanted, spans([found]))[:, 0]
    right = bool(len(wanted)) and overlap.max() >= 0.3
    keep = right != (rng.random() < ERRS)
    start_s, end_s = wanted[overlap.argmax()] if keep and right else found
    return Pick(name, start_s, end_s, "keep" if keep else "drop", *found, candidate.probability)


def review(
    evening: Evening, record: DetectionRecord, model: Model, wanted: np.ndarray, way: str, rng: np.random.Generator,
) -> Evening:
    "Spend the verdicts of an evening, and return it with them."
    shown, scores = look(evening, record, model)
    chosen = spans([(one.start_s, one.end_s) for one in shown.highlights])
    unseen = wanted[~(interval_iou(wanted, chosen) >= 0.3).any(1)] if len(chosen) else wanted
    added = unseen[rng.random(len(unseen)) < REMEMBERS][:BUDGET//2]
    picks = [Pick(evening.name, start_s, end_s, "missed") for start_s, end_s in added]
    left = BUDGET - len(picks)
    if way == "random":
        every = find_candidates(shown, scores)
        asked = [every[place] for place in rng.permutation(len(every))[:left]]
    else: asked = questions(shown, scores, picks, left, rng)[:left]
    picks += [answer(one, evening.name, wanted, rng) for one in asked]
    kept = spans([(one.start_s, one.end_s) for one in picks if one.verdict in ("keep", "missed")])
    dropped = spans([(one.start_s, one.end_s) for one in picks if one.verdict == "drop"])
    judged = np.concatenate([kept, dropped, spans([(one.start_s, one.end_s) for one in asked])])
    still_open = chosen[~(interval_iou(judged, chosen) > 0).any(0)] if len(chosen) else chosen
    return dataclasses.replace(evening, wanted=distinct(kept), dropped=dropped, open=still_open)


def learn(evenings: list[Evening], model: Model, start: Callable[[int], Taste] = pretrained_taste) -> Model:
    "Learn as `highlight-sense learn` does: return the new model unless it is clearly worse."
    if not any(len(one.wanted) for one in evenings): return model
    left_out, hill = leave_out(evenings, start=start), choose_hill(evenings)
    parts = [one for one, _ in left_out]
    after = pool([rank(one, curve, hill) for one, curve in left_out])
    before = pool([rank(one, one.curve, HILL_STEPS) for one in parts])
    if not may_replace(sum(len(one.wanted) for one in evenings), compare(before, after)): return model
    return Model(choose_threshold(after), teach(evenings, start=start))


def figures(model: Model, evening: Evening) -> dict[str, float]:
    "Measure a model on the evening that was not reviewed."
    ranking = rank(evening, *model.curve(evening))
    measured = dataclasses.asdict(measure_at(ranking, model.threshold))
    by_iou = [average_precision(rank(evening, *model.curve(evening), iou)) for iou in (0.3, 0.5, 0.7)]
    return {name: round(value, 4) for name, value in measured.items()} | {"mean_ap": round(float(np.mean(by_iou)), 4)}


def simulate(
    evenings: list[Evening], records: list[DetectionRecord], wanted: list[np.ndarray], start: Model, way: str,
    seed: int,
) -> list[dict]:
    "Let a streamer review one evening after another, and learn after each."
    rng, model, seen, rows = np.random.default_rng(seed), start, [], []
    fresh = dataclasses.replace(evenings[-1], wanted=wanted[-1], open=spans([]))
    if way == "ours": rows.append({"evenings": 0, "verdicts": 0} | figures(start, fresh))
    for number, (evening, record, liked) in enumerate(zip(evenings[:-1], records, wanted), 1):
        seen.append(review(evening, record, model, liked, "ours" if way == "scratch" else way, rng))
        if number not in AFTER: continue
        if way == "scratch":
            blank = [dataclasses.replace(one, curve=np.full(len(one.curve), 0.5)) for one in seen]
            model = learn(blank, model, Taste)
            tested = figures(model, dataclasses.replace(fresh, curve=np.full(len(fresh.curve), 0.5)))
        else:
            model = learn(seen, model)
            tested = figures(model, fresh)
        rows.append({"evenings": number, "verdicts": number*BUDGET, "learned": model is not start} | tested)
    return rows


def read_streamers(recordings: Path, out: Path) -> tuple[dict[str, list[Path]], Model, dict]:
    "Detect all recordings with the starter, once."
    _, path = find_model("starter")
    found = detect([recordings], out/"found", path, DetectConfig(), keep_mel=True)
    detector = load_detector(path)
    evenings = {one.name: (read_evening(one.folder, detector), read_detection(one.folder)) for one in found}
    streamers = {streamer: list(names) for streamer, names in itertools.groupby(
        sorted(evenings), key=lambda name: name.split("__")[0])}
    return streamers, Model(detector.info.recording_threshold), evenings


def table(lines: list[dict]) -> None:
    "Print the mean of each figure over streamers and seeds."
    frame = pd.DataFrame(lines)
    names = ["ap", "mean_ap", "f1", "false_alarms_per_hour"]
    print(frame.groupby(["taste", "way", "evenings"])[names].mean().round(3).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--wanted", nargs="+", required=True, metavar="TASTE=TABLE")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ways", nargs="+", default=["ours", "random", "scratch"])
    args = parser.parse_args()
    tune_process()
    args.out.mkdir(parents=True, exist_ok=True)
    results = args.out/"results.jsonl"
    lines = [json.loads(line) for line in results.read_text().splitlines()] if results.exists() else []
    done = {(line["taste"], line["streamer"], line["way"], line["seed"]) for line in lines}
    where = machine(pick_device("cpu"), "auto")
    streamers, start, evenings = read_streamers(args.recordings, args.out)
    tastes = {name: read_wanted(Path(path)) for name, _, path in (text.partition("=") for text in args.wanted)}
    for seed, taste, streamer, way in itertools.product(args.seeds, tastes, streamers, args.ways):
        if (taste, streamer, way, seed) in done: continue
        names = streamers[streamer]
        wanted = [tastes[taste].get(Path(name).stem, spans([])) for name in names]
        heard, records = zip(*(evenings[name] for name in names))
        rows = simulate(list(heard), list(records), wanted, start, way, seed)
        run = {"taste": taste, "streamer": streamer, "way": way, "seed": seed, "machine": where}
        lines += [run | row for row in rows]
        with open(results, "a", encoding="utf-8") as file: file.writelines(json.dumps(run | row) + "\n" for row in rows)
        for row in rows:
            shown = f"{row['evenings']} evenings, AP {row['ap']:.2f}, F1 {row['f1']:.2f}"
            print(f"{taste} {streamer} {way} {seed}: {shown}", flush=True)
    table(lines)


if __name__ == "__main__": main()
