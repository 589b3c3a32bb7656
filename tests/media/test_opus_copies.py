"Copied clips of Opus have all of their sound, whatever pre-skip the recording states."
import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from highlight_sense.clips import copy_clip
from highlight_sense.numbered import find_in

RATE_HZ, TRIMMED_S = 48_000, 1.0
NOISE = 0.2 * np.random.default_rng(0).uniform(-1, 1, 8 * RATE_HZ).astype(np.float32)


def checksum(page: bytes) -> int:
    "The checksum of an Ogg page, computed with its own place at 0."
    value = 0
    for byte in page:
        value ^= byte << 24
        for _ in range(8): value = (value << 1 ^ 0x04c11db7 if value >> 31 else value << 1) & 0xffffffff
    return value


def trimmed(pre_skip: int) -> bytes:
    "An Ogg file whose player drops this much of the noise at the start, as one that was trimmed without encoding."
    memory = io.BytesIO()
    with av.open(memory, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=RATE_HZ, layout="mono")
        for start in range(0, len(NOISE), RATE_HZ):
            frame = av.AudioFrame.from_ndarray(NOISE[None, start:start + RATE_HZ], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, start, Fraction(1, RATE_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    data = bytearray(memory.getvalue())
    header = data.index(b"OpusHead")  # on a page of its own
    data[header + 10:header + 12] = pre_skip.to_bytes(2, "little")
    data[22:26] = bytes(4)
    data[22:26] = checksum(data[:header + 19]).to_bytes(4, "little")
    return bytes(data)


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> Path:
    "Noise whose first second is skipped."
    path = tmp_path_factory.mktemp("opus")/"sound.opus"
    path.write_bytes(trimmed(312 + round(TRIMMED_S * RATE_HZ)))
    return path


def store(sound: Path, path: Path, picture: bool) -> Path:
    "Copy the sound to another container, beside a picture with a key frame every second."
    with av.open(str(sound)) as old, av.open(str(path), "w") as new:
        image = new.add_stream("libx264", rate=10, options={"preset": "ultrafast", "g": "10"}) if picture else None
        copy = new.add_stream_from_template(old.streams.audio[0], opaque=True)
        if image: image.width, image.height, image.pix_fmt = 64, 36, "yuv420p"
        for number in range(70 if picture else 0):
            frame = av.VideoFrame.from_ndarray(np.full((54, 64), number, np.uint8), format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 10)
            new.mux(image.encode(frame))
        if image: new.mux(image.encode(None))
        for packet in old.demux(audio=0):
            if packet.pts is None: continue
            packet.stream = copy
            new.mux(packet)
    return path


def played(path: Path) -> tuple[float, np.ndarray]:
    "What a player plays: when the sound starts, and its samples."
    with av.open(str(path)) as container:
        frames = [(frame.time, frame.to_ndarray()[0]) for frame in container.decode(audio=0)]
        start_s = max(0, container.start_time or 0) / av.time_base
    return frames[0][0] - start_s, np.concatenate([samples for _, samples in frames])


@pytest.mark.parametrize("name", ["sound.opus", "sound.mka", "film.mkv"])
@pytest.mark.parametrize("span", [(3.2, 5.7), (0.0, 1.5)])
def test_all_of_the_sound(name, span, sound, tmp_path):
    "The clip sounds from its 0:00 on, for as long as it says, and at the right time."
    path = sound if name == "sound.opus" else store(sound, tmp_path/name, picture=name.startswith("film"))
    clip = copy_clip([path], *span, tmp_path/"clip")
    late_s, samples = played(clip.path)
    assert clip.start_s <= span[0] + 1e-3 and span[1] - 1e-3 <= clip.end_s
    assert abs(late_s) < 0.03 and len(samples) / RATE_HZ > span[1] - clip.start_s - 0.03
    place = find_in(samples[:RATE_HZ], NOISE) / RATE_HZ
    assert abs(place - late_s - clip.start_s - TRIMMED_S) < 0.002
