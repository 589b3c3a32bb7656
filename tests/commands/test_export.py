"An exported network gives PyTorch's scores to a program without PyTorch."
import itertools
import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from running import printed, rating_model, run

from highlight_sense.checkpoint import load_checkpoint
from highlight_sense.metrics import to_probabilities
from highlight_sense.starter import starter_path
from highlight_sense.stored_recordings import store_recording
from highlight_sense.taste import Taste, save_taste

EXAMPLE = Path(__file__).parents[2]/"examples"/"score_onnx.py"


@pytest.fixture(scope="module")
def starter(tmp_path_factory) -> Path:
    "The starter, exported."
    out = tmp_path_factory.mktemp("export")/"starter.onnx"
    assert printed("export", "starter", "-o", out, code=0) == f"wrote {out}\n"
    return out


def log_mels(count: int, frames: int) -> torch.Tensor:  # (count, 2, 80, frames)
    "Make noise with levels as log-mels have them."
    return 3 * torch.randn(count, 2, 80, frames, generator=torch.Generator().manual_seed(frames)) - 8


@pytest.mark.parametrize(("frames", "count"), list(itertools.product((160, 1280, 2576), (1, 3))))
def test_parity(starter, frames, count):
    "Logits, attention and step logits are those of PyTorch, whatever the length and the number of windows."
    session = onnxruntime.InferenceSession(starter)
    mels, (model, _) = log_mels(count, frames), load_checkpoint(starter_path())
    with torch.no_grad(): expected = model.score_steps(mels)
    for found, wanted in zip(session.run(None, {"log_mels": mels.numpy()}), expected, strict=True):
        np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_the_example(starter, tmp_path):
    "It prints the calibrated probabilities of PyTorch, and imports neither PyTorch nor this package."
    mels, (model, info) = log_mels(1, 2000)[0], load_checkpoint(starter_path())
    store_recording([mels], tmp_path/"log-mel.pt", "stream.mkv", [])
    mels = torch.load(tmp_path/"log-mel.pt")["tensor"].float()
    np.save(tmp_path/"log_mel.npy", torch.load(tmp_path/"log-mel.pt")["tensor"].numpy())
    alone = ("import runpy, sys; sys.modules.update(torch=None, highlight_sense=None); "
             "runpy.run_path(sys.argv.pop(1), run_name='__main__')")
    words = [sys.executable, "-c", alone, EXAMPLE, starter, tmp_path/"log_mel.npy"]
    said = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    found = np.array([line.split() for line in said.splitlines()])[:, [0, 2]].astype(float)
    size = 1280  # of 30 s, 1291 frames hold 80 whole steps
    starts = np.array([0, size // 2, 2000 - size])  # the last window ends with the recording
    windows = torch.stack([mels[..., start:start + size] for start in starts])
    with torch.no_grad(): logits = model.score_steps(windows)[0][:, 0].numpy()
    np.testing.assert_allclose(found[:, 0], starts * 512 / 22050, atol=0.05)
    np.testing.assert_allclose(found[:, 1], to_probabilities(logits, *info.scaling), atol=2e-4)
    assert len(EXAMPLE.read_text().splitlines()) <= 50


def test_the_example_with_little_sound(starter):
    "A recording shorter than a window is scored up to its end; less than a step is refused in a line."
    scorer = runpy.run_path(str(EXAMPLE))["Scorer"](starter)
    for frames, starts in ((16, [0]), (39, [0, 7]), (1300, [0, 20])):
        found = scorer.score(log_mels(1, frames)[0].numpy())
        np.testing.assert_allclose([start_s for start_s, _ in found], np.array(starts) * 512 / 22050)
    with pytest.raises(SystemExit, match="found 15 frames, expected at least 16"):
        scorer.score(log_mels(1, 15)[0].numpy())


def test_formats(starter, tmp_path):
    "The ending chooses the format, --format must fit it, and foreign files stay."
    (tmp_path/"notes.onnx").write_text("notes")
    for name, words, expected in (
            ("notes.onnx", (), "did not write"), ("a.xml", ("--format", "onnx"), "without .onnx"),
            ("a.onnx", ("--format", "openvino"), "without .xml"), ("a", (), "without .xml")):
        assert expected in printed("export", rating_model(tmp_path/"model.pt"), "-o", tmp_path/name, *words)
    assert (tmp_path/"notes.onnx").read_text() == "notes" and not (tmp_path/"a.onnx").exists()
    assert "network for ONNX" in printed("info", starter, code=0)
    assert "found no network" in printed("info", tmp_path/"notes.onnx")


PACKAGES = ("onnx", "new.onnx"), ("onnxruntime", "new.onnx"), ("openvino", "new.xml")


@pytest.mark.parametrize(("package", "file"), PACKAGES)
def test_without_the_package(package, file, tmp_path, monkeypatch):
    "A line says what to install, and nothing is written."
    monkeypatch.setitem(sys.modules, package, None)
    said = printed("export", "starter", "-o", tmp_path/file)
    assert f"found no {package}, expected it for" in said and "; run pip install o" in said
    assert not list(tmp_path.iterdir())


def test_a_taste_is_not_exported(tmp_path):
    "A learned model is exported without its taste, with a warning; the notebook's network is refused."
    save_taste(tmp_path/"learned.pt", rating_model(tmp_path/"model.pt"), Taste(4 * 80))
    code, _, complaint = run("export", tmp_path/"learned.pt", "-o", tmp_path/"learned.onnx")
    assert code == 0 and "lacks the taste" in complaint
    model, _ = load_checkpoint(tmp_path/"model.pt")
    torch.save({"model": model.state_dict(), "epochs": 1}, tmp_path/"colab.pt")
    assert "expected a mask-aware one" in printed("export", tmp_path/"colab.pt", "-o", tmp_path/"colab.onnx")
