"""CPU time of the default network for a 30-s window: scoring and a training step, with kernels and in plain PyTorch.

    OMP_NUM_THREADS=1 python benchmarks/network.py

Single precision, one thread, windows of noise: the best of four scorings and of two steps, in milliseconds. To compare
two versions, run it in turn with PYTHONPATH set to one checkout and to the other.
"""
import json
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from highlight_sense import config
from highlight_sense.kernels import accelerate
from highlight_sense.model import HighlightCRNN
from highlight_sense.process import keep_memory

FRAMES, SCORED, TRAINED = 1280, 4, 8  # frames of a window, windows at a time


def cpu_ms(work: Callable[[], None], repeats: int) -> float:
    "Return the CPU time of the fastest repeat, after a warm-up."
    work()
    times_s = []
    for _ in range(repeats):
        start_s = time.process_time()
        work()
        times_s.append(time.process_time() - start_s)
    return 1000 * min(times_s)


def measure(kernels: str) -> dict[str, float]:
    "Measure the network, auto or plain."
    sizes = config.MODELS["default"] if hasattr(config, "MODELS") else config.ModelConfig()
    model = accelerate(HighlightCRNN.from_config(sizes), torch.device("cpu"), kernels)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, fused=True)
    windows = 4 * torch.randn(TRAINED, 2, 80, FRAMES) - 8
    mask = torch.ones(TRAINED, FRAMES)
    mask[::3, FRAMES - 180:] = 0
    labels = (torch.arange(TRAINED) % 2).float()

    @torch.no_grad()
    def score() -> None: model.score_steps(windows[:SCORED])

    def train() -> None:
        optimizer.zero_grad(set_to_none=False)
        logits, _, step_logits = model.score_steps(windows, mask)
        loss = F.binary_cross_entropy_with_logits(logits.squeeze(1), labels) + 0.01 * step_logits.square().mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    model.eval()
    scoring = cpu_ms(score, 4) / SCORED
    model.train()
    return {"scoring": round(scoring, 1), "training": round(cpu_ms(train, 2) / TRAINED, 1)}


if __name__ == "__main__":
    keep_memory()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(json.dumps({kernels: measure(kernels) for kernels in ("auto", "plain")}))
