"""From verdicts to a model: `learn` writes it, `detect` uses it, `models` lists it."""
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from running import printed, rating_model, run, small_model, write_rated

from highlight_sense import learn as learning
from highlight_sense.checkpoint import load_checkpoint
from highlight_sense.detections import read_scores
from highlight_sense.media import write_recording
from highlight_sense.picks import PICKS, Pick, read_picks, save_picks
from highlight_sense.recordings import detect
from highlight_sense.records import load_record, write_record
from highlight_sense.taste import load_taste

RATE_HZ = 22_050
WANTED_S = [(start_s, start_s + 4.0) for start_s in range(8, 100, 14)]  # a high tone
DROPPED_S = [(start_s, start_s + 4.0) for start_s in range(1, 100, 14)]  # a low one


def write_evening(path: Path, seed: int) -> Path:
    "Write a recording in which the streamer whistles, high or low."
    rng = np.random.default_rng(seed)
    times_s = np.arange(105*RATE_HZ) / RATE_HZ
    voice = 0.01*rng.normal(size=len(times_s))
    for hz, spans in ((3000, WANTED_S), (300, DROPPED_S)):
        inside = np.any([(start_s <= times_s) & (times_s < end_s) for start_s, end_s in spans], 0)
        voice += 0.2*np.sin(2*np.pi*hz*times_s)*inside
    write_recording(path, {"Mic": voice, "Game": 0.01*rng.normal(size=len(times_s))}, RATE_HZ)
    return path


@pytest.fixture(scope="module")
def evenings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "A folder with two reviewed detections, and the model that made them."
    place = tmp_path_factory.mktemp("learning")
    streams = [write_evening(place/f"evening{seed}.mka", seed) for seed in range(2)]
    model = rating_model(place/"base.pt")
    for one in detect(streams, place/"out", model, keep_mel=True, progress=False):
        picks = [Pick(one.name, *span, "missed") for span in WANTED_S]
        save_picks(one.folder/PICKS, picks + [Pick(one.name, *span, "drop", *span, 0.5) for span in DROPPED_S])
    return place


@pytest.fixture(autouse=True, scope="module")
def quick(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    "Learn in a second, with a list of models of its own."
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HIGHLIGHT_SENSE_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setattr(learning, "_LEAST_BATCHES", 60)
        patch.setattr(learning, "_PASSES", 1)
        yield


@pytest.fixture(scope="module")
def learned(evenings: Path, quick: None) -> tuple[Path, str]:
    "A model, and what was printed."
    out = printed("learn", evenings/"out", "-o", evenings/"mine.pt", "--model", evenings/"base.pt", code=0)
    return evenings/"mine.pt", out


def test_it_says_whether_it_is_better_and_uses_it(learned):
    "The sentence has both figures, and the list of models says how the new one was made."
    path, out = learned
    assert "surely better" in out and "base.pt" in out and "mine is in use from now on" in out
    assert "* mine" in printed("models", code=0)
    record = torch.load(path, weights_only=True)
    assert len(record["learned_from"]) == 2 and record["events"]["labels"] == 14


def test_detection_with_it_finds_what_was_wanted(learned, evenings, tmp_path):
    "On an evening without verdicts, most of what is found is a high whistle."
    fresh = write_evening(tmp_path/"fresh.mka", 2)
    printed("detect", fresh, "-o", tmp_path/"out", "--model", learned[0], code=0)
    assert "a taste learned from 30 verdicts on 2 recordings" in printed("info", tmp_path/"out"/"fresh", code=0)
    found = json.loads((tmp_path/"out"/"fresh"/"highlights.json").read_text())["highlights"]
    middles_s = np.array([(one["start_s"] + one["end_s"])/2 for one in found])
    right = [any(start_s < middle_s < end_s for start_s, end_s in WANTED_S) for middle_s in middles_s]
    assert np.mean(right) > 0.8 and sum(right) >= 5
    scores = read_scores(tmp_path/"out"/"fresh"/"scores.csv")
    assert scores.steps_taught and scores.hill_steps == int(load_taste(learned[0], 80).hill_steps)


def test_no_adoption_and_the_moved_recording(learned, evenings, tmp_path):
    "Only the stored log-mels are needed, and `--no-adopt` leaves the model in use alone."
    before = printed("models", code=0)
    for path in evenings.glob("*.mka"): path.rename(tmp_path/path.name)
    try: out = printed("learn", evenings/"out"/"evening0", "-o", tmp_path/"one.pt", "--no-adopt", code=0)
    finally:
        for path in tmp_path.glob("*.mka"): path.rename(evenings/path.name)
    assert "mine stays in use" in out and printed("models", code=0) == before
    assert len(load_record(tmp_path/"one.pt", "a checkpoint")["learned_from"]) == 1


def test_learning_again_from_the_learned_model_keeps_its_network(learned, tmp_path):
    "The network does not change, however often it learns."
    first, second = (load_checkpoint(path)[0].state_dict() for path in (learned[0], learned[0].parent/"base.pt"))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_copy_of_an_evening_does_not_count_twice(evenings, tmp_path):
    "Left out must mean left out: the same recording in another folder is passed over. Odd rows are, too."
    shutil.copytree(evenings/"out"/"evening0", tmp_path/"out"/"evening0")
    shutil.copytree(evenings/"out"/"evening0", tmp_path/"copy"/"evening0")
    picks = tmp_path/"out"/"evening0"/PICKS
    save_picks(picks, [Pick("evening0.mka", 9000, 9004, "missed"), Pick("another.mka", 1, 4, "missed"),
                       Pick("evening0.mka", 103, 120, "drop")])
    words = "learn", tmp_path/"out", tmp_path/"copy", "-o", tmp_path/"one.pt", "--model", evenings/"base.pt"
    out = printed(*words, "--no-adopt", code=0)
    assert "found the recording of" in out and "rows about other recordings" in out
    events = load_checkpoint(tmp_path/"one.pt")[1].events
    assert events.recordings == 1 and events.labels == len(WANTED_S) + 1


def test_nothing_else_is_replaced(evenings, learned, tmp_path):
    "Only a learned model may be replaced."
    for taken in (evenings/"evening0.mka", evenings/"base.pt", evenings/"out"):
        assert "found a file or folder that `learn` did not write" in printed("learn", evenings/"out", "-o", taken)
    assert load_taste(evenings/"base.pt", 80) is None


def test_what_it_knows_by_heart_is_not_compared(learned, evenings, tmp_path):
    "Learning again from the same evenings compares with the network; from others, it says what would be lost."
    out = printed("learn", evenings/"out", "-o", tmp_path/"again.pt", "--model", learned[0], "--no-adopt", code=0)
    assert "the network of mine.pt" in out and "what they taught is lost" not in out
    words = "learn", evenings/"out"/"evening0", "-o", tmp_path/"less.pt", "--model", learned[0]
    out = printed(*words, "--no-adopt", code=0)
    assert "learned from 1 recordings that are not among these" in out


def test_nothing_to_learn_from(evenings, tmp_path):
    "No detection, no verdicts, no wanted moment: a line each, and no file."
    write_rated(tmp_path, 12, RATE_HZ)
    run("detect", tmp_path/"stream.mka", "-o", tmp_path/"out", "-m", tmp_path/"model.pt", "--window", 8, "--top", 2)
    assert "found no picks.csv" in printed("learn", tmp_path/"out", "-o", tmp_path/"mine.pt")
    save_picks(tmp_path/"out"/"stream"/PICKS, [Pick("stream.mka", 1, 4, "drop")])
    line = printed("learn", tmp_path/"out", "-o", tmp_path/"mine.pt", "--model", tmp_path/"model.pt")
    assert "found no moment that was kept or added" in line
    assert "found no highlights.json" in printed("learn", tmp_path, "-o", tmp_path/"mine.pt")
    assert not (tmp_path/"mine.pt").exists() and len(read_picks(tmp_path/"out"/"stream"/PICKS)) == 1


@pytest.mark.parametrize("damage", ["shape", "nan", "hill", "kind"])
def test_a_taste_that_does_not_fit(learned, tmp_path, damage):
    "A damaged or hostile taste gets one line."
    record = load_record(learned[0], "a checkpoint")
    weights = dict(record["taste"])
    if damage == "shape": weights["leave.weight"] = torch.zeros(1, 7, 1)
    if damage == "nan": weights["trust"] = torch.tensor(float("nan"))
    if damage == "hill": weights["hill_steps"] = torch.tensor(10**6)
    write_record(record | {"taste": [1] if damage == "kind" else weights}, tmp_path/"bad.pt")
    small_model(tmp_path/"m.pt")
    assert "found a taste that does not fit" in printed(
        "detect", learned[0].parent/"evening0.mka", "-o", tmp_path/"out", "--model", tmp_path/"bad.pt")


@pytest.mark.parametrize("wanted", [2, 3])
def test_how_few_wanted_moments_suffice(evenings, tmp_path, monkeypatch, wanted):
    "A model that learned from three wanted moments is used unless it does harm; two are too few."
    monkeypatch.setenv("HIGHLIGHT_SENSE_HOME", str(tmp_path/"home"))
    shutil.copytree(evenings/"out"/"evening0", tmp_path/"out"/"evening0")
    spans = [(span, "missed") for span in WANTED_S[:wanted]] + [(span, "drop") for span in DROPPED_S[:wanted]]
    (tmp_path/"out"/"evening0"/PICKS).unlink()
    save_picks(tmp_path/"out"/"evening0"/PICKS, [Pick("evening0.mka", *span, verdict) for span, verdict in spans])
    out = printed("learn", tmp_path/"out", "-o", tmp_path/"one.pt", "--model", evenings/"base.pt", code=0)
    assert ("one is in use from now on" in out) == (wanted == 3) == ("too few to learn from" not in out)
