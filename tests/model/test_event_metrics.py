"Metrics of highlights in whole recordings, compared with COCO's own code, scikit-learn, SciPy and plain loops."
import math
from pathlib import Path

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching
from sklearn.metrics import precision_recall_curve

from highlight_sense.files import InputError
from highlight_sense.metrics import event_metrics, interpolated_ap, interval_iou, match_events

IOUS = 0.3, 0.5, 0.7


def random_recording(rng, span_s, whole, labels=8, found=24):
    "Labels, which may overlap, and highlights with distinct scores, half of them near a label: (N, 2) and (M, 3)."
    def times(count):
        start_s = rng.uniform(0, span_s, count)
        return np.c_[start_s, start_s + rng.uniform(2, 30, count)]
    known, count = times(rng.integers(labels + 1)), rng.integers(found + 1)
    rows = times(count)
    if len(known):
        near = rng.random(count) < 0.5
        shifted = known[rng.integers(len(known), size=near.sum())] + rng.normal(0, 4, (near.sum(), 2))
        rows[near] = np.sort(np.maximum(0, shifted), axis=1)
    if whole: known, rows = known.round(), rows.round()
    rows[:, 1] = np.maximum(rows[:, 1], rows[:, 0] + 1)
    return known, np.c_[rows, rng.permutation(count) + 1.0]


def random_set(seed, whole=False, recordings=4):
    "Recordings of at most an hour, the scores distinct over all of them, at least one label."
    rng = np.random.default_rng(seed)
    names = [f"recording {number}" for number in range(rng.integers(1, recordings + 1))]
    span_s = rng.choice([60, 300, 1500])
    drawn = {name: random_recording(rng, span_s, whole) for name in names}
    labels = {name: known for name, (known, _) in drawn.items()}
    if not any(map(len, labels.values())): labels[names[0]] = np.array([[10.0, 20.0]])
    scores = iter((1 + rng.permutation(sum(len(rows) for _, rows in drawn.values()))) / 100)
    found = {name: np.c_[rows[:, :2], [next(scores) for _ in rows]] for name, (_, rows) in drawn.items()}
    return labels, found


def coco_dataset(events):
    "Intervals as boxes of height 1, in COCO's form; annotations are numbered from 1, since 0 means no match."
    rows = [(image, event) for image, of_one in enumerate(events.values(), 1) for event in of_one]
    annotations = []
    for number, (image, event) in enumerate(rows, 1):
        start_s, length_s = float(event[0]), float(event[1] - event[0])
        box = [start_s, 0.0, length_s, 1.0]
        annotation = {"id": number, "image_id": image, "category_id": 1, "iscrowd": 0, "area": length_s, "bbox": box}
        if len(event) == 3: annotation["score"] = float(event[2])
        annotations.append(annotation)
    coco = COCO()
    images = [{"id": image} for image in range(1, len(events) + 1)]
    coco.dataset = {"images": images, "categories": [{"id": 1}], "annotations": annotations}
    coco.createIndex()
    return coco


def coco_evaluated(labels, found, seen=()):
    "COCO's evaluation; its precision is read at the middle of every step of recall, so the mean is the exact area."
    evaluation = COCOeval(coco_dataset(labels), coco_dataset(found), "bbox")
    total = sum(map(len, labels.values()))
    evaluation.params.iouThrs, evaluation.params.recThrs = np.array(IOUS), (np.arange(total) + 0.5) / total
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
    evaluation.params.maxDets = [*seen, 10_000]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation


def coco_matches(evaluation, image, threshold, first_label):
    "For each highlight of a recording, by falling score, the number of its label there, or -1."
    of_image = next((one for one in evaluation.evalImgs if one and one["image_id"] == image), None)
    if of_image is None: return []
    return [int(number) - first_label if number else -1 for number in of_image["dtMatches"][threshold]]


@pytest.mark.parametrize("whole", [False, True], ids=["seconds", "whole seconds"])
@pytest.mark.parametrize("seed", range(100))
def test_coco_agrees(seed, whole):
    "Pairs in every recording, and AP, precision and recall; whole seconds cause ties and IoUs of exactly a threshold."
    labels, found = random_set(seed, whole)
    # among labels of equal IoU, COCO takes the last, we the first
    reversed_labels = {name: known[::-1] for name, known in labels.items()}
    coco = coco_evaluated(reversed_labels, found)
    figures = event_metrics(labels, found, dict.fromkeys(labels, 3600.0))
    count = sum(map(len, found.values()))
    hits = np.zeros(len(IOUS))
    for threshold, min_iou in enumerate(IOUS):
        first_label = 1
        for image, (name, rows) in enumerate(found.items(), 1):
            ours = match_events(labels[name], rows[:, :2], rows[:, 2], min_iou)[np.argsort(-rows[:, 2])]
            theirs = np.array(coco_matches(coco, image, threshold, first_label), dtype=int)
            first_label += len(labels[name])
            np.testing.assert_array_equal(ours, np.where(theirs < 0, -1, len(labels[name]) - 1 - theirs))
            hits[threshold] += (theirs >= 0).sum()
    ap = coco.eval["precision"][:, :, 0, 0, 0].mean(1)
    np.testing.assert_allclose([figures["ap_iou30"], figures["ap_iou50"], figures["ap_iou70"]], ap, atol=1e-9)
    assert math.isclose(figures["mean_ap"], ap.mean(), abs_tol=1e-9)
    for percent, right, recall in zip((30, 50), hits, coco.eval["recall"][:, 0, 0, 0]):
        precision = figures[f"precision_iou{percent}"]
        assert math.isclose(figures[f"recall_iou{percent}"], recall) and math.isclose(precision, right / max(count, 1))
        f1 = 2 * precision * recall / (precision + recall) if precision + recall else 0
        assert math.isclose(figures[f"f1_iou{percent}"], f1)
    assert math.isclose(figures["false_alarms_per_hour"], (count - hits[0]) / len(labels))


@pytest.mark.parametrize("seed", range(100))
def test_coco_agrees_on_the_best_of_each_recording(seed):
    "Recall at k per hour is COCO's recall with k detections per picture, if all recordings last equally long."
    labels, found = random_set(1000 + seed)
    for duration_s, seen in ((3600, (5, 10, 20)), (1800, (3, 5, 10))):
        figures = event_metrics(labels, {}, dict.fromkeys(labels, duration_s), found)
        recall = coco_evaluated(labels, found, seen).eval["recall"][0, 0, 0, :3]
        np.testing.assert_allclose([figures[f"recall_at_{k}_per_hour"] for k in (5, 10, 20)], recall)


@pytest.mark.parametrize("seed", range(100))
def test_pairs_are_one_to_one_and_complete(seed):
    "At most as many pairs as the largest matching has, at least half as many, and no possible pair is left."
    known, rows = random_recording(np.random.default_rng(2000 + seed), 90, whole=seed % 2 == 0)
    for min_iou in IOUS:
        match = match_events(known, rows[:, :2], rows[:, 2], min_iou)
        close = interval_iou(known, rows[:, :2]) >= min_iou
        pairs = match[match >= 0]
        assert len(set(pairs.tolist())) == len(pairs) and close[pairs, np.flatnonzero(match >= 0)].all()
        largest = 0
        if close.size: largest = (maximum_bipartite_matching(csr_array(close), perm_type="column") >= 0).sum()
        assert largest / 2 <= len(pairs) <= largest
        assert not np.delete(close, pairs, axis=0)[:, match < 0].any()


def test_the_largest_matching_can_be_larger():
    "The rule is greedy, like that of the benchmarks: the first highlight may take the label that the second needed."
    known, rows = np.array([[0, 10], [8, 18]]), np.array([[3, 13], [0, 9]])
    assert match_events(known, rows, [.9, .8], 0.3).tolist() == [0, -1]
    assert match_events(known, rows, [.8, .9], 0.3).tolist() == [1, 0]
    assert (maximum_bipartite_matching(csr_array(interval_iou(known, rows) >= 0.3)) >= 0).sum() == 2


@pytest.mark.parametrize("seed", range(100))
def test_iou_by_counting(seed):
    "With whole seconds, the covered ones can be counted."
    rng = np.random.default_rng(3000 + seed)
    a, b = (np.c_[start_s := rng.integers(0, 30, 6), start_s + rng.integers(1, 20, 6)] for _ in range(2))
    seconds_a, seconds_b = ([set(range(*row)) for row in rows] for rows in (a, b))
    counted = [[len(x & y) / len(x | y) for y in seconds_b] for x in seconds_a]
    np.testing.assert_array_equal(interval_iou(a, b), counted)


@pytest.mark.parametrize("seed", range(100))
def test_equal_scores_are_one_step_of_the_threshold(seed):
    "The oracle is scikit-learn's curve, with the best precision at every recall or a higher one."
    rng = np.random.default_rng(4000 + seed)
    hits, scores = rng.random(40) < 0.4, rng.integers(0, rng.choice([1, 3, 10, 1000]), 40) / 10
    hits[0] = True
    labels = int(hits.sum() + rng.integers(10))
    precision, recall, _ = precision_recall_curve(hits, scores)
    best = [precision[recall >= level].max() for level in recall]
    expected = -np.sum(np.diff(recall) * best[:-1]) * hits.sum() / labels
    assert math.isclose(interpolated_ap(scores, hits, labels), expected)
    order = rng.permutation(40)
    assert interpolated_ap(scores[order], hits[order], labels) == interpolated_ap(scores, hits, labels)


def plain_figures(labels, found, durations_s, candidates):
    "Errors at the edges, false alarms and recall at k, from sorted lists and loops; and F1 above any threshold."
    def pairs_of(name, rows):
        free, pairs = [tuple(label) for label in labels.get(name, [])], []
        for start_s, end_s, _ in sorted(rows, key=lambda row: -row[2]):
            def iou(label):
                shared = min(end_s, label[1]) - max(start_s, label[0])  # noqa: B023
                return shared / (max(end_s, label[1]) - min(start_s, label[0])) if shared > 0 else 0  # noqa: B023
            best = max(free, key=iou, default=None)
            if best is None or iou(best) < 0.3: continue
            free.remove(best)
            pairs.append((abs(start_s - best[0]), abs(end_s - best[1])))
        return pairs
    total, hours = sum(map(len, labels.values())), sum(durations_s.values()) / 3600
    pairs = [pair for name, rows in found.items() for pair in pairs_of(name, rows)]
    figures = {"false_alarms_per_hour": (sum(map(len, found.values())) - len(pairs)) / hours,
               "start_error_s": np.median([start_s for start_s, _ in pairs]) if pairs else None,
               "end_error_s": np.median([end_s for _, end_s in pairs]) if pairs else None}
    for k in (5, 10, 20):
        right = 0
        for name, rows in candidates.items():
            count = -int(-k * durations_s[name] // 3600)
            right += len(pairs_of(name, sorted(rows, key=lambda row: -row[2])[:count]))
        figures[f"recall_at_{k}_per_hour"] = right / total
    def f1_above(threshold):
        picked = {name: [row for row in rows if row[2] > threshold] for name, rows in candidates.items()}
        right = sum(len(pairs_of(name, rows)) for name, rows in picked.items())
        return 2 * right / (total + sum(map(len, picked.values())))
    figures["best_f1_iou30"] = max((f1_above(row[2] - 1e-9) for rows in candidates.values() for row in rows), default=0)
    return figures, f1_above


@pytest.mark.parametrize("seed", range(100))
def test_recordings_of_any_length(seed):
    "Compared with plain loops: some recordings have no label or no highlight, and each has its own length."
    labels, candidates = random_set(5000 + seed)
    rng = np.random.default_rng(seed)
    durations_s = {name: float(rng.choice([1800, 3600, rng.uniform(1600, 9000)])) for name in labels}
    durations_s["dull"] = float(rng.uniform(60, 5000))
    found = {name: rows[rng.random(len(rows)) < 0.5] for name, rows in candidates.items()}
    if seed % 3 == 0: found.popitem()
    figures = event_metrics(labels, found, durations_s, candidates)
    expected, f1_above = plain_figures(labels, found, durations_s, candidates)
    for name, value in expected.items():
        assert figures[name] == value if value is None else math.isclose(figures[name], value, abs_tol=1e-12), name
    if figures["candidates"]: assert math.isclose(f1_above(figures["best_threshold"]), figures["best_f1_iou30"])
    assert figures["candidates"] == sum(map(len, candidates.values()))
    assert figures["found"] == sum(map(len, found.values()))


@pytest.mark.parametrize("seed", range(50))
def test_what_changes_nothing(seed):
    "A shifted time axis, another order of recordings or rows, another scale of scores; times are exact in binary."
    rng = np.random.default_rng(6000 + seed)
    labels, found = ({name: np.c_[np.round(rows[:, :2] * 64) / 64, rows[:, 2:]] for name, rows in events.items()}
                     for events in random_set(6000 + seed))
    durations_s = dict.fromkeys(labels, 3600.0)
    expected = event_metrics(labels, found, durations_s)
    shift_s = rng.integers(1, 64 * 1000) / 64
    shift = [shift_s, shift_s, 0]
    later = [{name: rows + shift[:rows.shape[1]] for name, rows in events.items()} for events in (labels, found)]
    shuffled = [{name: rng.permutation(rows) for name, rows in reversed(events.items())} for events in (labels, found)]
    scaled = {name: rows * [1, 1, 8] - [0, 0, 5] for name, rows in found.items()}
    assert event_metrics(*later, durations_s) == expected
    again = event_metrics(*shuffled, dict(reversed(durations_s.items())))
    for name, value in expected.items():
        assert again[name] == value if value is None else math.isclose(again[name], value)
    other_scale = event_metrics(labels, scaled, durations_s)
    assert {name for name, value in other_scale.items() if value != expected[name]} <= {"best_threshold"}
    plain_labels, plain_found = ({Path(name): rows.tolist() for name, rows in events.items()}
                                 for events in (labels, found))
    assert event_metrics(plain_labels, plain_found, {Path(name): 3600 for name in labels}) == expected


@pytest.mark.parametrize("seed", range(50))
def test_perfect_detections(seed):
    "A detector that finds the labels themselves is right in every figure, with any scores and beside a dull recording."
    labels, _ = random_set(7000 + seed)
    rng = np.random.default_rng(seed)
    found = {name: np.c_[rows, rng.integers(0, 3, len(rows))] for name, rows in labels.items()}
    figures = event_metrics(labels, found, dict.fromkeys([*labels, "dull"], 4 * 3600.0))
    starts = "precision", "recall", "f1", "best_f1", "ap", "mean_ap"
    shares = [value for name, value in figures.items() if name.startswith(starts)]
    assert len(shares) == 14 and set(shares) == {1.0}
    assert figures["start_error_s"] == figures["end_error_s"] == figures["false_alarms_per_hour"] == 0


def test_one_bad_recording_among_many_is_named():
    "The message says which one, and what is wrong with it."
    labels, found = random_set(8000)
    durations_s = dict.fromkeys(labels, 3600.0)
    name = next(iter(labels))
    bad_rows = (("labels", [5.0, 4.0]), ("labels", [math.nan, 4.0]),
                ("found", [1.0, 4.0, math.inf]), ("found", [-1.0, 4.0, 0.5]))
    for kind, row in bad_rows:
        given = {"labels": labels, "found": found}
        given[kind] = given[kind] | {name: [row]}
        message = f"^{kind} of {name}: found .*, expected .*; [^\n]*$"
        with pytest.raises(InputError, match=message): event_metrics(**given, durations_s=durations_s)
