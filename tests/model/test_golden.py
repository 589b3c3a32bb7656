"The notebook code's own numbers, which both dialects of its files must reproduce."
from pathlib import Path

import pytest
import torch

from highlight_sense.checkpoint import load_checkpoint
from highlight_sense.config import ModelConfig

GOLDEN = Path(__file__).parents[1]/"data"/"tiny_crnn.pt"


@pytest.mark.parametrize("dialect", ["notebook", "published"])
def test_reproduces_the_notebook(dialect, tmp_path):
    "Logits, attention and mask-free logits within 1e-5, from the weights alone."
    golden = torch.load(GOLDEN, weights_only=True)
    torch.save(golden[dialect], tmp_path/"model.pt")
    model, info = load_checkpoint(tmp_path/"model.pt")
    settings = {**golden["config"], "cnn_channels": tuple(golden["config"]["cnn_channels"])}
    config = ModelConfig(**settings, mask_aware=False, level_free=False)
    assert (info.dialect, info.epochs, info.config) == (dialect, 3, config)
    with torch.no_grad():
        logits, attention = model(golden["x"].float(), golden["mask"])
        without_mask, _ = model(golden["x"].float())
    for found, expected in ((logits, "logits"), (attention, "attention"), (without_mask, "logits_without_mask")):
        torch.testing.assert_close(found, golden[expected], rtol=0, atol=1e-5)
