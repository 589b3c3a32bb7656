"Plain PyTorch computes where it is asked for, and gives the same scores."
import json

import numpy as np
import torch
from running import write_clips

from highlight_sense.checkpoint import save_checkpoint
from highlight_sense.config import DetectConfig, ModelConfig, TrainConfig
from highlight_sense.detector import load_detector
from highlight_sense.kernels import is_accelerated
from highlight_sense.model import HighlightCRNN
from highlight_sense.run import train


def test_a_detector_scores_alike(tmp_path, monkeypatch):
    "With fused kernels, and without them by option or environment variable."
    monkeypatch.delenv("HIGHLIGHT_SENSE_KERNELS", raising=False)
    torch.manual_seed(0)
    model = HighlightCRNN(cnn_channels=(8, 8, 16, 16), rnn_hidden=16, att_dim=16)
    save_checkpoint(tmp_path/"model.pt", model, epochs=1)
    fast = load_detector(tmp_path/"model.pt", DetectConfig(precision="fp32"))
    plain = [load_detector(tmp_path/"model.pt", DetectConfig(precision="fp32", kernels="plain"))]
    monkeypatch.setenv("HIGHLIGHT_SENSE_KERNELS", "plain")
    plain.append(load_detector(tmp_path/"model.pt", DetectConfig(precision="fp32")))
    assert is_accelerated(fast.model) and not any(is_accelerated(one.model) for one in plain)
    mels = list(torch.randn(3, 2, 80, 320) - 6)
    for one in plain:
        for found, expected in zip(fast.score(mels), one.score(mels), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_run_records_its_kernels(tmp_path, monkeypatch):
    "In `config.json`, under the names that earlier versions gave them."
    monkeypatch.delenv("HIGHLIGHT_SENSE_KERNELS", raising=False)
    clips = write_clips(tmp_path/"clips", 12, 12)
    small = ModelConfig(cnn_channels=(4, 4, 8, 8), rnn_hidden=8, att_dim=8)
    state = train(clips, tmp_path/"run", TrainConfig(epochs=1, workers=0, kernels="plain"), small, progress=False)
    record = json.loads((tmp_path/"run"/"config.json").read_text())
    assert not is_accelerated(state.model) and record["kernels"] == record["train"]["kernels"] == "plain"
    state = train(clips, tmp_path/"fast", TrainConfig(epochs=1, workers=0), small, progress=False)
    record = json.loads((tmp_path/"fast"/"config.json").read_text())
    assert is_accelerated(state.model) and record["kernels"] in ("operations", "cpu_kernels", "gpu_kernels")
