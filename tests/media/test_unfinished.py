"""Recordings that are shorter than their header promises, or still being written.

What is there is searched and cut, and one line says what is missing.
"""
import io
import logging
import re
from pathlib import Path

import av
import numpy as np
import pytest
from running import printed, small_model

from highlight_sense.clips import copy_clip, exact_clip
from highlight_sense.media import audio_frame, write_recording
from highlight_sense.numbered import number_frame, read_number
from highlight_sense.sound import read_audio, read_blocks

RATE_HZ, LENGTH_S = 8_000, 20


def noise(rate_hz: int = RATE_HZ) -> np.ndarray:  # (samples,)
    "Make the sound of a recording."
    return np.random.default_rng(0).uniform(-0.3, 0.3, LENGTH_S * rate_hz).astype(np.float32)


def encode(
    place: Path | io.RawIOBase, form: str, options: dict[str, str] | None = None, rate_hz: int = RATE_HZ,
) -> None:
    "Write a recording: numbered frames, ten per second, and noise."
    file = str(place) if isinstance(place, Path) else place
    with av.open(file, "w", format=form, options=options or {}) as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width, picture.height = 320, 180
        sound = container.add_stream("aac" if form in ("mp4", "mpegts") else "flac", rate=rate_hz, layout="mono")
        for second, piece in enumerate(noise(rate_hz).reshape(LENGTH_S, rate_hz)):
            for number in range(10 * second, 10 * second + 10): container.mux(picture.encode(number_frame(number)))
            container.mux(sound.encode(audio_frame(piece, second * rate_hz, rate_hz)))
        for stream in (picture, sound): container.mux(stream.encode(None))


class Tape(io.RawIOBase):
    "A file that cannot be rewound, as a recorder that crashed leaves it."
    def __init__(self): self.content = b""

    def writable(self) -> bool: return True

    def write(self, data: bytes) -> int:
        self.content += bytes(data)
        return len(data)


def warnings_of(caplog) -> list[str]:
    "List the warnings of the package, and forget them."
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    caplog.clear()
    return lines


@pytest.fixture(scope="module", params=["mkv", "mp4"])
def torn(request, tmp_path_factory) -> Path:
    "The first 60 % of a recording, whose header promises 20 s."
    place = tmp_path_factory.mktemp("torn")
    if request.param == "mkv": encode(place/"whole.mkv", "matroska")
    else: encode(place/"whole.mp4", "mp4", {"movflags": "faststart"})
    content = (place/f"whole.{request.param}").read_bytes()
    (place/f"torn.{request.param}").write_bytes(content[:len(content) * 6 // 10])
    return place/f"torn.{request.param}"


def test_what_is_there_is_read(torn, caplog):
    sound, = read_audio(torn, (0,), RATE_HZ)
    whole, = read_audio(torn.with_stem("whole"), (0,), RATE_HZ)
    assert 11 < len(sound) / RATE_HZ < 13
    np.testing.assert_array_equal(sound[:11 * RATE_HZ], whole[:11 * RATE_HZ])
    assert any(re.search(r"torn.m..: found 1[12]\.\d s, expected the 20\.\d s that its header promises", line)
               for line in warnings_of(caplog))


def test_what_is_there_is_searched(torn, tmp_path):
    words = "--model", small_model(tmp_path/"model.pt"), torn, "-o", tmp_path/"found", "--separate", "none"
    output = printed("detect", *words, code=0)
    assert re.search(r"torn.m..: \d highlights? in 0:1[12], ", output)
    assert output.count("warning: ") == 1 and "the file is cut off, and only what is there is used" in output


@pytest.mark.parametrize("cut", [copy_clip, exact_clip])
def test_what_is_there_is_cut(torn, tmp_path, cut):
    clip = cut([torn], 4.0, 7.0, tmp_path/"clip")
    with av.open(str(clip.path)) as container: shown = [read_number(frame) for frame in container.decode(video=0)]
    assert shown == list(range(shown[0], shown[-1] + 1)) and shown[0] <= 40 and shown[-1] >= 69
    if cut is exact_clip: assert (shown[0], shown[-1]) == (40, 69)


def test_an_mp4_without_its_index_names_the_remedy(tmp_path):
    encode(tmp_path/"whole.mp4", "mp4")
    content = (tmp_path/"whole.mp4").read_bytes()
    (tmp_path/"obs.mp4").write_bytes(content[:len(content) * 6 // 10])
    detect = "detect", "--model", small_model(tmp_path/"m.pt"), tmp_path/"obs.mp4", "-o", tmp_path/"out"
    for words in (("info", tmp_path/"obs.mp4"), detect):
        message = printed(*words)
        assert "obs.mp4: found an MP4 without its index (moov), which a recorder writes last" in message
        assert "repair it with untrunc, and record to MKV or hybrid MP4" in message


# --- recordings that grow

@pytest.fixture(scope="module", params=["matroska", "mpegts", "mp4"])
def tape(request) -> bytes:
    "What a recorder has written, without a length in the header."
    content = Tape()
    encode(content, request.param, {"movflags": "frag_keyframe+empty_moov"} if request.param == "mp4" else None)
    return content.content


def test_a_recording_that_is_still_being_written(tape, tmp_path, caplog):
    path, half = tmp_path/"live.media", len(tape) // 2
    path.write_bytes(tape[:half])
    before, = read_audio(path, (0,), RATE_HZ)
    assert 8 < len(before) / RATE_HZ < 12 and warnings_of(caplog) == []
    blocks = read_blocks(path, (0,), RATE_HZ, block_s=1)
    first = next(blocks)
    with open(path, "ab") as recorder: recorder.write(tape[half:half + 1000])
    sound = np.concatenate([first, *blocks], axis=1)[0]
    np.testing.assert_array_equal(sound[:8 * RATE_HZ], before[:8 * RATE_HZ])
    line, = warnings_of(caplog)
    assert re.search(r"found a file that is still being written, read up to 0:(0[89]|1\d), expected", line)


def test_clips_of_a_recording_that_has_grown_since(tmp_path):
    encode(content := Tape(), "matroska", rate_hz=48_000)
    path, half = tmp_path/"live.mkv", len(content.content) * 2 // 3
    assert half > 2**20
    path.write_bytes(content.content[:half])
    words = "detect", "--model", small_model(tmp_path/"model.pt"), path, "-o", tmp_path/"found", "--separate", "none"
    assert " in 0:1" in printed(*words, code=0)
    with open(path, "ab") as recorder: recorder.write(content.content[half:])
    output = printed("publish", tmp_path/"found", "--clips", code=0)
    assert "live.mkv: found a recording that has grown since its highlights were found" in output
    assert len(list((tmp_path/"found"/"live"/"clips").iterdir())) >= 1
    write_recording(path, {"Mic": np.tile(noise(48_000), 3)}, 48_000)  # finished: the header has changed too
    assert path.stat().st_size > half and " in 1:00, " in printed(*words, code=0)


def test_what_is_there_is_prepared(torn, tmp_path):
    "The second label lies where the sound is missing."
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\ntorn,2,5\ntorn,16,18\n")
    words = "--labels", tmp_path/"labels.csv", "-o", tmp_path/"clips", "--negative-s", 2, "--separate", "none"
    output = printed("prepare", torn, *words, code=0)
    assert re.search(r"found 1 label after the end of its sound at 0:1[12], expected none; left out", output)
    assert len(list((tmp_path/"clips"/"Positive").rglob("*.pt"))) == 1
