"Training ends with a threshold for recordings: chosen on those held out, or corrected from that of clips."
import json
import re

import numpy as np
import pytest
import torch
from running import TRAINING, printed, write_clips, write_stream

from highlight_sense import decide
from highlight_sense import run as runs
from highlight_sense.checkpoint import EventDecision, load_checkpoint, save_checkpoint, save_decision
from highlight_sense.config import ModelConfig, TrainConfig
from highlight_sense.decide import choose_event_threshold, correct_for_rarity
from highlight_sense.model import HighlightCRNN
from highlight_sense.packing import pack_clips
from highlight_sense.stored_recordings import store_recording

SMALL = ModelConfig(cnn_channels=(4, 4, 8, 8), rnn_hidden=8, rnn_layers=1, att_dim=8)
CONFIG = TrainConfig(epochs=1, batch_size=8, max_duration_s=3, val_split=0.4, device="cpu", precision="fp32", workers=0)


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    "A clip folder of four streams, of which each is also stored whole: a minute with seven highlights."
    place = write_clips(tmp_path_factory.mktemp("clips")/"clips", 16, 16)
    for number in range(4):
        mels = torch.from_numpy(np.random.default_rng(number).normal(-8, 2, (2, 80, 2584)).astype(np.float32))
        path = place/"Recording"/"game"/f"stream{number}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        store_recording([mels], path, f"stream{number}.mkv", [(8.0 * k, 8.0 * k + 4) for k in range(7)])
    return place


def decision(path):
    _, info = load_checkpoint(path)
    return info.event_threshold, info.events


@pytest.fixture(scope="module")
def finished(clips, tmp_path_factory):
    "A run folder."
    out = tmp_path_factory.mktemp("finished")/"run"
    runs.train(clips, out, CONFIG, SMALL, progress=False)
    return out


def test_on_recordings(clips, finished, tmp_path):
    "The held-out recordings choose, in a clip folder as in a pack, and `info` shows it."
    threshold, events = decision(finished/"best.pt")
    assert events.chosen_by == "F1" and events.labels >= 7 and events.f1 > 0 and not decision(finished/"last.pt")[1]
    pack_clips(clips, tmp_path/"clips.pack", progress=False)
    lines = printed("train", tmp_path/"clips.pack", "-o", tmp_path/"packed", "--from-run", finished, code=0)
    packed, again = decision(tmp_path/"packed"/"best.pt")
    assert packed == pytest.approx(threshold, abs=1e-3) and (again.labels, again.hours) == (events.labels, events.hours)
    assert f"threshold {packed:.3g} has the best F1 on {again.recordings} validation recordings" in lines
    shown = printed("info", finished, code=0)
    assert re.search(rf"event_threshold +{threshold:.4g}", shown) and f"labels {events.labels}" in shown


def test_killed_before_the_decision(clips, finished, tmp_path, monkeypatch):
    "Killed between the last epoch and the decision, and while it is written: the resumed run has the same file."
    def disappear(*arguments, **named): raise RuntimeError("the machine disappears")
    out, whole = tmp_path/"run", (finished/"best.pt").read_bytes()
    for place, name in ((runs, "decide_threshold"), (decide, "save_decision")):
        with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="disappears"):
            patch.setattr(place, name, disappear)
            runs.train(clips, out, CONFIG, SMALL, progress=False, resume=True)
        assert decision(out/"best.pt") == (None, None)
    for _ in range(2):
        runs.train(None, out, progress=False, resume=True)
        assert (out/"best.pt").read_bytes() == whole
    printed("train", "-o", out, "--more-epochs", 1, code=0)
    assert decision(out/"best.pt")[1].chosen_by == "F1"


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    "Initial weights for a small network."
    path = tmp_path_factory.mktemp("start")/"model.pt"
    torch.manual_seed(0)
    save_checkpoint(path, HighlightCRNN.from_config(SMALL), epochs=1)
    return path


def test_limit_of_false_alarms(clips, start, tmp_path):
    "The limit holds on the recordings that it was chosen on, and the line says that it decided."
    words = ("train", clips, *TRAINING, "--init", start, "-o", tmp_path/"run", "--false-alarms-per-hour")
    assert "expected 0 or more" in printed(*words, -1)
    said = printed(*words, 30, code=0)
    assert "has the best recall within the allowed false alarms" in said
    assert "found 14 labels in 0.033 h" in said and "the limit allows 0 false alarms" in said
    _, events = decision(tmp_path/"run"/"best.pt")
    assert events.chosen_by == "false alarms" and 0 <= events.false_alarms_per_hour <= 30


@pytest.mark.parametrize(("positives", "placed", "taught"), [(40, 5, False), (40, 40, True), (12, 12, True)])
def test_few_places(start, tmp_path, positives, placed, taught):
    "A few clips with the places of their highlights, among many without, teach no steps, in a folder as in a pack."
    clips = write_clips(tmp_path/"clips", positives, 12)
    for path in sorted((clips/"Positive").rglob("*.pt"))[:placed]:
        torch.save(torch.load(path) | {"highlights_s": [[0.3, 0.9]]}, path)
    pack_clips(clips, tmp_path/"clips.pack", progress=False)
    for data in (clips, tmp_path/"clips.pack"):
        out = tmp_path/f"run of {data.name}"
        printed("train", data, *TRAINING, "--init", start, "-o", out, code=0)
        assert load_checkpoint(out/"best.pt")[1].steps_taught == taught


def test_only_clips(start, tmp_path):
    "Without whole recordings, the threshold of clips is corrected, and `train`, `detect` and `evaluate` say so."
    clips, stream = write_clips(tmp_path/"clips", 16, 16), write_stream(tmp_path/"stream.mkv")
    out = tmp_path/"run"
    lines = printed("train", clips, *TRAINING, "--init", start, "-o", out, "--highlights-per-hour", 2, code=0)
    assert "corrected for 2 highlights an hour; no validation recordings" in lines
    threshold, events = decision(out/"best.pt")
    assert load_checkpoint(out/"best.pt")[1].threshold < threshold
    assert events == EventDecision("rarity", highlights_per_hour=2)
    said = printed("detect", "--model", out/"best.pt", stream, "-o", tmp_path/"out", code=0)
    record = json.loads((tmp_path/"out"/"stream"/"highlights.json").read_text())
    assert "corrected for 2 highlights an hour" in said and record["settings"]["threshold"] == threshold
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\nstream,2,4\n")
    for option, expected in (((), (threshold, "rarity")), (("--threshold", 0.2), (0.2, "option"))):
        words = ("evaluate", out/"best.pt", stream, "--labels", tmp_path/"labels.csv", "--json", *option)
        measured = json.loads(printed(*words, code=0).splitlines()[0])
        assert (measured["threshold"], measured["threshold_chosen_by"]) == expected


def test_an_older_checkpoint(start, tmp_path):
    "A checkpoint with a threshold of clips alone still picks by it, and `detect` says what to expect."
    older, stream = tmp_path/"older.pt", write_stream(tmp_path/"stream.mkv")
    save_checkpoint(older, load_checkpoint(start)[0], epochs=1, max_frames=130, threshold=0.4)
    said = printed("detect", "--model", older, stream, "-o", tmp_path/"out", code=0)
    assert "threshold 0.4 was chosen on clips; highlights are rarer in recordings" in said


@pytest.mark.parametrize("wrong", [
    {"event_threshold": 2.0}, {"event_threshold": "high"}, {"event_threshold": None}, {"events": None}, {"events": [1]},
    {"events": {"chosen_by": "F1", "f1": float("nan")}}, {"events": {"chosen_by": "F1", "labels": -1}}])
def test_a_hostile_decision(start, tmp_path, wrong):
    "Values that no training could have written end in one line."
    save_checkpoint(tmp_path/"model.pt", load_checkpoint(start)[0], epochs=1)
    save_decision(tmp_path/"model.pt", 0.5, EventDecision("rarity", highlights_per_hour=10.0))
    torch.save(torch.load(tmp_path/"model.pt", weights_only=True) | wrong, tmp_path/"model.pt")
    assert "that do not fit" in printed("info", tmp_path/"model.pt")


@pytest.mark.parametrize("seed", range(5))
def test_limits_hold(seed):
    "Whatever the moments: no more false alarms than allowed, and no threshold with more hits within the limit."
    rng = np.random.default_rng(seed)
    logits, hits = rng.normal(size=60).round(1), rng.random(60) < 0.4
    for per_hour in (0, 1, 5, 100):
        threshold = choose_event_threshold(logits, hits, 40, 2.0, false_alarms_per_hour=per_hour)
        picked = logits > np.log(threshold / (1 - threshold))
        assert (picked & ~hits).sum() <= 2 * per_hour
        for each in np.unique(logits) - 0.05:
            if (~hits[logits > each]).sum() <= 2 * per_hour: assert hits[logits > each].sum() <= hits[picked].sum()


def test_rarity():
    "A threshold that is best among clips is moved to where Bayes' rule has it among far more negatives."
    rng = np.random.default_rng(0)
    hits, others = rng.normal(1.5, 1.5, 100_000), rng.normal(-1.5, 1.5, 100_000)
    grid = np.linspace(0.02, 0.98, 49)

    def best(share: float) -> float:  # where a miss costs as much as three false alarms
        limits = 0.75 * (np.log(grid / (1 - grid)) - np.log(0.4 / 0.6))  # of a classifier calibrated at a share of 0.4
        costs = [3 * share * (hits <= limit).mean() + (1 - share) * (others > limit).mean() for limit in limits]
        return float(grid[np.argmin(costs)])

    corrected = correct_for_rarity(best(0.4), 0.4, -np.log1p(-0.02) * 3600 / 5, 5.0)
    assert best(0.4) == pytest.approx(0.25, abs=0.03) and corrected == pytest.approx(best(0.02), abs=0.03)
