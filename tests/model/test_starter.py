"""The starter: the file in the package, its card, and the sessions that tools/starter.py makes for it."""
import importlib.util
import itertools
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import torch

from highlight_sense.checkpoint import load_checkpoint
from highlight_sense.records import load_record
from highlight_sense.starter import starter_path

ROOT = Path(__file__).resolve().parents[2]


def maker() -> ModuleType:
    "Import tools/starter.py."
    spec = importlib.util.spec_from_file_location("make_starter", ROOT/"tools/starter.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_file_is_small_and_holds_half_precision_weights_only():
    record = load_record(starter_path(), "a checkpoint")
    assert starter_path().stat().st_size <= 3_000_000
    weights = [value for value in record["model"].values() if value.is_floating_point()]
    assert {value.dtype for value in weights} == {torch.float16}
    assert all(torch.isfinite(value).all() for value in weights)
    assert "training" not in record


def test_it_says_what_it_is_and_chose_its_threshold_on_recordings():
    model, info = load_checkpoint(starter_path())
    assert "starter" in info.about and info.steps_taught
    assert info.event_threshold is not None and info.events.recordings > 0
    assert next(model.parameters()).dtype == torch.float32


def test_the_card_shows_the_figures_that_were_measured():
    figures = json.loads((ROOT/"benchmarks/starter.json").read_text(encoding="utf-8"))
    card = (ROOT/"highlight_sense/starter.md").read_text(encoding="utf-8")
    assert figures["made"]["command"] in card
    for name, metrics in figures["measured"].items():
        row = next(line for line in card.splitlines() if line.startswith(f"| {name} |"))
        assert f"{metrics['mean_ap']:.2f}" in row and f"{metrics['f1_iou30']:.2f}" in row


def test_a_highlight_is_a_fight_and_an_excited_voice_that_follows():
    kinds = ("fight", "skirmish", "fight", "practice", "horde") * 4
    scenes = [{"kind": kind, "start_s": 25.0*k + 5, "end_s": 25.0*k + 15, "kills": 5*(kind == "fight")}
              for k, kind in enumerate(kinds)]
    starts = {row["start_s"] for row in scenes if row["kind"] == "fight"}
    for seed in range(5):
        said, highlights = maker().plan_voice(scenes, 510.0, np.random.default_rng(seed))
        excited = [(start_s, end_s) for kind, start_s, end_s in said if kind == "excited"]
        assert 2 < len(highlights) < len(excited)
        for first_s, last_s in highlights:
            assert first_s in starts and any(0.3 <= a - first_s <= 2.5 and b == last_s for a, b in excited)
        alone = [a for a, b in excited if b not in {last_s for _, last_s in highlights}]
        assert not any(start_s < a < start_s + 10 for a in alone for start_s in starts)
        assert all(one[2] <= other[1] for one, other in itertools.pairwise(said))


def test_a_piece_of_a_recording_keeps_the_scenes_that_lie_in_it():
    scenes = [{"kind": "fight", "start_s": str(start_s), "end_s": str(start_s + 4)} for start_s in (1, 8, 13)]
    game, inside = maker().cut(np.arange(20*22_050), scenes, 1, 2)
    assert game[0] == 10*22_050 and len(game) == 10*22_050
    assert [(row["start_s"], row["end_s"]) for row in inside] == [(3.0, 7.0)]
