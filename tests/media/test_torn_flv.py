"FLV recordings that broke off: their header still says that they last 0 s."
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from running import printed

from highlight_sense.media import audio_frame, probe

RATE_HZ, LENGTH_S, KEPT_S = 44_100, 40, 30


class Pipe:
    "A file that cannot be rewound, so that the header stays as it was at the start."
    def __init__(self, path: Path): self.file = open(path, "wb")
    def write(self, data: bytes) -> int: return self.file.write(data)


@pytest.fixture
def torn(tmp_path):
    "Write 40 s of sound as a live stream is saved, and keep the first three quarters of the bytes."
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, RATE_HZ).astype(np.float32)
    pipe = Pipe(tmp_path/"monday.flv")
    with av.open(pipe, "w", format="flv") as container:
        stream = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        for second in range(LENGTH_S): container.mux(stream.encode(audio_frame(noise, second * RATE_HZ, RATE_HZ)))
        container.mux(stream.encode(None))
    pipe.file.close()
    whole = (tmp_path/"monday.flv").read_bytes()
    (tmp_path/"monday.flv").write_bytes(whole[:len(whole) * KEPT_S // LENGTH_S])
    return tmp_path/"monday.flv"


def test_the_length_is_that_of_the_packets(torn):
    "The header says 0 s (MediaArea/MediaInfoLib#1704)."
    with av.open(str(torn)) as container: assert container.duration == 0
    assert probe(torn).duration_s == pytest.approx(KEPT_S, abs=0.5)


def test_labels_are_accepted_up_to_the_end(torn, tmp_path):
    "A label in the 30 s that were kept becomes a clip, at its time."
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\nmonday,25,27\n")
    words = "prepare", torn, "--labels", tmp_path/"labels.csv", "-o", tmp_path/"clips"
    printed(*words, "--ratio", 1, "--separate", "none", code=0)
    clips = [torch.load(path, weights_only=True) for path in (tmp_path/"clips").rglob("*.pt")]
    [clip] = (clip for clip in clips if clip["label"] == "Positive")
    assert clip["start_s"] + np.array(clip["highlights_s"]) == pytest.approx(np.array([[25, 27]]), abs=0.01)
    assert clip["end_s"] == pytest.approx(KEPT_S, abs=0.5)
