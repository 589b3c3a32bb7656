"""Weights that other programs saved: NumPy's numbers among the figures, names with prefixes, nothing but weights."""
from pathlib import Path

import numpy as np
import pytest
import torch
from running import printed, small_model

from highlight_sense.checkpoint import load_checkpoint


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_model(tmp_path_factory.mktemp("model")/"ours.pt")


def saved(content: object, place: Path) -> Path:
    "Save a record as another program would."
    torch.save(content, place)
    return place


def test_figures_of_scikit_learn_are_numbers(ours: Path, tmp_path: Path):
    record = torch.load(ours, weights_only=True)
    metrics = {"f1": np.float64(0.8125), "ap": np.float32(0.75), "clips": np.int64(12)}
    place = saved(record | {"metrics": metrics, "epochs": np.int64(7)}, tmp_path/"numpy.pt")
    _, info = load_checkpoint(place)
    assert info.metrics == {"f1": 0.8125, "ap": 0.75, "clips": 12} and info.epochs == 7
    lines = printed("info", place, code=0).splitlines()
    assert [line.split()[-1] for line in lines if line.startswith("validation ")] == ["0.8125", "0.75", "12"]


def test_numpy_values_that_are_no_numbers_are_refused(ours: Path, tmp_path: Path):
    record = torch.load(ours, weights_only=True)
    for value in (np.zeros(1, "V100000")[0], np.datetime64("2026-11-30"), np.array([1.0])):
        assert "cannot be read" in printed("info", saved(record | {"metrics": {"f1": value}}, tmp_path/"odd.pt"))


@pytest.mark.parametrize("wrap", [
    lambda weights: weights,
    lambda weights: {"state_dict": weights, "epoch": 3},
    lambda weights: {"model_state_dict": weights},
    lambda weights: {"model": {f"module.{name}": value for name, value in weights.items()}, "epochs": 3},
    lambda weights: {f"_orig_mod.module.{name}": value for name, value in weights.items()},
    lambda weights: {"state_dict": {f"model.{name}": value for name, value in weights.items()}},
], ids=["bare", "state_dict", "model_state_dict", "module", "compiled", "lightning"])
def test_wrapped_weights_give_the_same_logits(ours: Path, tmp_path: Path, wrap):
    weights = torch.load(ours, weights_only=True)["model"]
    plain, _ = load_checkpoint(saved({"model": weights, "epochs": 3}, tmp_path/"plain.pt"))
    model, info = load_checkpoint(saved(wrap(weights), tmp_path/"wrapped.pt"))
    x = torch.randn(2, 2, 80, 100, generator=torch.manual_seed(0))
    with torch.no_grad(): assert model(x)[0].equal(plain(x)[0])
    assert info.dialect == "notebook"


@pytest.mark.parametrize("ending", ["pth", "ckpt", "bin"])
def test_other_endings_are_checkpoints(ours: Path, tmp_path: Path, ending: str):
    place = tmp_path/f"weights.{ending}"
    place.write_bytes(ours.read_bytes())
    assert "checkpoint" in printed("info", place, code=0).splitlines()[0]
