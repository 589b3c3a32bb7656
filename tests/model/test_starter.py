"""The starter: the file in the package, its card, and the sessions that tools/starter.py makes for it."""
import importlib.util
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


def test_a_fight_with_few_kills_is_a_skirmish(tmp_path):
    path = tmp_path/"level.csv"
    path.write_text("kind,start_s,end_s,kills\nfight,1,9,4\nfight,20,24,2\nhorde,30,33,0\n", encoding="utf-8")
    assert maker().read_scenes(path) == [("fight", 1.0, 9.0), ("skirmish", 20.0, 24.0), ("horde", 30.0, 33.0)]


def test_a_piece_of_a_recording_keeps_the_scenes_that_lie_in_it():
    scenes = [("fight", start_s, start_s + 4.0) for start_s in (1.0, 8.0, 13.0)]
    game, inside = maker().cut(np.arange(20*22_050), scenes, 1, 2)
    assert game[0] == 10*22_050 and len(game) == 10*22_050
    assert inside == [("fight", 3.0, 7.0)]
