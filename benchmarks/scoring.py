"""Windows per second: the Colab notebook's way and those of `detect`, in turn, in one run.

    python benchmarks/scoring.py                  on this machine's fastest device
    python benchmarks/scoring.py --device cuda --precision fp16

Windows of 30 s from a log-mel of noise; networks with random weights. The Colab notebook scores one window at
a time, padded to a minute. Nothing is decoded here: `benchmarks/detect.py` measures the whole command. ONNX Runtime is
measured where `pip install onnx onnxruntime` was run; nothing else needs it.
"""
import argparse
import io
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from training import report, system_memory

from highlight_sense.checkpoint import NOTEBOOK_FLAGS, CheckpointInfo
from highlight_sense.config import MODELS, DetectConfig, FrontEnd, ModelConfig
from highlight_sense.dataset_aug import pad_or_truncate
from highlight_sense.detector import FastDetector, plan_windows, score_in_batches
from highlight_sense.device import has_fast_bf16, pick_device, pick_precision
from highlight_sense.engine import OpenVINOEngine, WholeWindows
from highlight_sense.kernels import accelerate, kernels_in_use
from highlight_sense.model import HighlightCRNN
from highlight_sense.process import keep_memory, usable_cores


class ONNXEngine:
    "The network in ONNX Runtime, on a CPU, in single precision, for comparison with `OpenVINOEngine`."
    def __init__(self, network: HighlightCRNN, precision: str = "fp32"):
        import onnxruntime
        self.precision, file = precision, io.BytesIO()
        example = torch.zeros(1, 2, network.config.n_mels, 4 * network.shrink)
        with warnings.catch_warnings():  # this exporter is deprecated, but the new one has written wrong GRUs
            warnings.simplefilter("ignore")
            torch.onnx.export(WholeWindows(network).eval(), (example,), file, dynamo=False, input_names=["log_mels"],
                              output_names=["logits", "attention", "step_logits"],
                              dynamic_axes={"log_mels": {0: "windows", 3: "frames"}})
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_cores()
        self.session = onnxruntime.InferenceSession(file.getvalue(), options, providers=["CPUExecutionProvider"])

    def __call__(self, specs: torch.Tensor) -> tuple[np.ndarray, ...]:
        "Score log-mels (B, 2, n_mels, T): logits (B, 1), attention and step logits (B, steps)."
        return tuple(self.session.run(None, {"log_mels": specs.contiguous().numpy()}))


def one_by_one(model: HighlightCRNN, mels: list[torch.Tensor], device: torch.device) -> Callable[[], float]:
    "A function that scores one window after the other and returns windows per second."
    def run() -> float:
        start_s = time.perf_counter()
        for mel in mels:
            spec, mask = pad_or_truncate(mel, 2584)
            with torch.no_grad(): torch.sigmoid(model(spec[None].to(device), mask[None].to(device))[0]).item()
        return len(mels) / (time.perf_counter() - start_s)
    return run


def make_network(config: ModelConfig) -> HighlightCRNN:
    "A network with random weights, the same every time, and a logit of about 0.6, where a sigmoid is steep."
    torch.manual_seed(0)
    model = HighlightCRNN.from_config(config).eval()
    for block in model.cnn[1:]:
        torch.nn.init.normal_(block.norm.running_mean)
        torch.nn.init.uniform_(block.norm.running_var, 0.5, 2)
    for weight in model.classifier.parameters(): weight.data.mul_(2)
    return model


def make_detector(
    config: ModelConfig,
    device: torch.device,
    precision: str,
    engine: type | None = None,
    kernels: str = "auto",
) -> FastDetector:
    "A network ready to score windows in PyTorch or in an engine."
    info, model = CheckpointInfo(config), make_network(config).to(device)
    computes = engine and engine(model, precision)
    if not engine: accelerate(model, device, kernels)
    windows = plan_windows(DetectConfig(), info, FrontEnd())
    return FastDetector(model, windows, FrontEnd(), info.scaling, Path("none"), "", info, precision, computes)


def batched(detector: FastDetector, mels: list[torch.Tensor]) -> Callable[[], float]:
    "A function that scores windows as `detect` does and returns windows per second."
    def run() -> float:
        start_s = time.perf_counter()
        score_in_batches(detector, enumerate(mels))
        return len(mels) / (time.perf_counter() - start_s)
    return run


def parity(detector: FastDetector, mels: list[torch.Tensor]) -> str:
    "How far probabilities are from the plain network's in single precision, at three lengths and two batch sizes."
    exact = make_detector(detector.info.config, detector.device, "fp32", kernels="plain")
    differences, spread = [], []
    for frames in (160, 640, 1280):
        for windows in (1, 4):
            batch = [mel[..., :frames] for mel in mels[:windows]]
            found, expected = (1 / (1 + np.exp(-one.score(batch)[0])) for one in (detector, exact))
            differences.append(np.abs(found - expected).max())
            spread += [*expected]
    return f"{max(differences):.1e} at most, where probabilities are {min(spread):.2f} to {max(spread):.2f}"


def detectors_of(device: torch.device, precision: str) -> dict[str, FastDetector]:
    "The default network in everything that this machine has."
    precisions = list(dict.fromkeys(["fp32", precision]))
    ways = {f"in plain PyTorch, {each}": (each, None, "plain") for each in precisions}
    ways |= {f"in batches, {each}": (each, None) for each in precisions}
    engines = (("OpenVINO", OpenVINOEngine, "openvino", ["fp32"] + ["bf16"] * has_fast_bf16(device)),
               ("ONNX Runtime", ONNXEngine, "onnx onnxruntime", ["fp32"]))
    for name, engine, packages, its_precisions in engines:
        if device.type != "cpu": print(f"{name}: left out, it computes on a CPU; --device cpu measures it")
        elif not all(map(find_spec, packages.split())): print(f"{name}: left out; pip install {packages}")
        else: ways |= {f"in {name}, {each}": (each, engine) for each in its_precisions}
    return {f"the default network {name}": make_detector(MODELS["default"], device, *how) for name, how in ways.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--windows", type=int, default=192)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    chosen = parser.parse_args()
    device = pick_device(chosen.device)
    precision = pick_precision(device, chosen.precision)
    keep_memory()
    machine = f", {torch.cuda.get_device_name(device)}" if device.type == "cuda" else ""
    print(f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, {device}, "
          f"{precision}, {kernels_in_use(device, precision)}{machine}")
    rng = np.random.default_rng(0)
    mels = [torch.from_numpy(rng.normal(-8, 4, (2, 80, 1280)).astype(np.float32)) for _ in range(chosen.windows)]
    few = mels[:max(4, chosen.windows // 12)]
    detectors = detectors_of(device, precision)
    for name, detector in detectors.items():
        print(f"{name}: differs from plain PyTorch in single precision by {parity(detector, mels)}", flush=True)
    notebook, some = ModelConfig(**NOTEBOOK_FLAGS), mels[:2 * len(few)]
    plain = HighlightCRNN.from_config(notebook).to(device).eval()
    report("scoring windows of 30 s", {
        "one window at a time, padded to a minute, fp32": system_memory(one_by_one(plain, few, device)),
        "the notebook's network in batches, fp32": batched(make_detector(notebook, device, "fp32"), some),
        **{name: batched(one, some if "plain" in name else mels) for name, one in detectors.items()},
    }, chosen.repeats, "windows/s")


if __name__ == "__main__": main()
