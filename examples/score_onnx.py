"""Score a log-mel with ONNX Runtime and NumPy alone.

    highlight-sense export starter -o starter.onnx
    python score_onnx.py starter.onnx log_mel.npy   # (2, bands, frames): voice and game, as the note in the file says

`highlight-sense detect --review` stores the log-mel of each recording as log-mel.pt. To convert it, where PyTorch is:

    numpy.save("log_mel.npy", torch.load("log-mel.pt")["tensor"].numpy())
"""
import json
import sys

import numpy as np
import onnxruntime


class Scorer:
    "An exported network, and what the note in its file says about it."
    def __init__(self, path: str):
        self.session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        self.note = json.loads(self.session.get_modelmeta().custom_metadata_map["highlight_sense"])
        front_end = self.note["front_end"]
        self.frame_s = front_end["hop_length"] / front_end["sample_rate"]

    def window_frames(self, frames: int, window_s: float = 30.0) -> int:
        "Return the length of a window, in whole steps: less than 30 s if training clips or the log-mel are shorter."
        longest = min(frames, self.note["longest_clip_frames"], int(window_s / self.frame_s))
        return longest // self.note["frames_of_a_step"] * self.note["frames_of_a_step"]

    def score(self, log_mel: np.ndarray) -> list[tuple[float, float]]:  # start in seconds, probability of a highlight
        "Score windows that overlap by half; the last one ends where the recording does."
        frames, size = log_mel.shape[2], self.window_frames(log_mel.shape[2])
        if not size: sys.exit(f"found {frames} frames, expected at least {self.note['frames_of_a_step']}")
        starts = [*range(0, frames - size, size // 2), frames - size]
        windows = np.stack([log_mel[:, :, start:start + size] for start in starts]).astype(np.float32)
        logits, = self.session.run(["logits"], {"log_mels": windows})
        calibrated = logits[:, 0] / self.note["temperature"] + self.note["offset"]
        return [(start * self.frame_s, float(p)) for start, p in zip(starts, 1 / (1 + np.exp(-calibrated)))]


if __name__ == "__main__":
    for start_s, probability in Scorer(sys.argv[1]).score(np.load(sys.argv[2])):
        print(f"{start_s:8.1f} s  {probability:.4f}")
