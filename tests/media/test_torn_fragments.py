"MP4 in fragments, as OBS records by default, that ends within the index of a fragment."
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from running import printed

from highlight_sense.clips import copy_clip, exact_clip
from highlight_sense.media import audio_frame
from highlight_sense.numbered import number_frame, read_number
from highlight_sense.sound import read_audio

RATE_HZ, LENGTH_S, KEPT_S = 8_000, 20, 12


def fragments_of(content: bytes) -> list[tuple[int, int]]:
    "List the first byte and the length of the indexes of fragments."
    at, found = 0, []
    while at < len(content):
        length, kind = struct.unpack_from(">I4s", content, at)
        if kind == b"moof": found.append((at, length))
        at += length
    return found


@pytest.fixture(scope="module")
def torn(tmp_path_factory) -> Path:
    "Record numbered frames and noise for 20 s, and keep 12 s and half of an index."
    place = tmp_path_factory.mktemp("torn")/"a, b,,:c"
    place.mkdir()
    sounds = np.random.default_rng(0).uniform(-0.3, 0.3, (LENGTH_S, RATE_HZ)).astype(np.float32)
    with av.open(str(place/"whole.mp4"), "w", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        picture = container.add_stream("mpeg4", rate=10, options={"g": "10"})
        picture.width, picture.height = 320, 180
        sound = container.add_stream("aac", rate=RATE_HZ, layout="mono")
        for second, piece in enumerate(sounds):
            for number in range(10 * second, 10 * second + 10): container.mux(picture.encode(number_frame(number)))
            container.mux(sound.encode(audio_frame(piece, second * RATE_HZ, RATE_HZ)))
        for stream in (picture, sound): container.mux(stream.encode(None))
    content = (place/"whole.mp4").read_bytes()
    start, length = fragments_of(content)[KEPT_S]
    (place/"torn.mp4").write_bytes(content[:start + length // 2])
    return place/"torn.mp4"


def test_the_fragments_before_are_read(torn):
    "Players refuse such a file (hd-zero/hdzero-goggle#317, FDH2/UxPlay#557)."
    sound, whole = (read_audio(path, (0,), RATE_HZ)[0] for path in (torn, torn.with_stem("whole")))
    assert len(sound) / RATE_HZ == pytest.approx(KEPT_S, abs=0.5)
    np.testing.assert_array_equal(sound[:11 * RATE_HZ], whole[:11 * RATE_HZ])


def test_the_length_is_that_of_the_fragments(torn):
    *_, seconds = next(line for line in printed("info", torn, code=0).splitlines() if "seconds" in line).split()
    assert float(seconds) == pytest.approx(KEPT_S, abs=0.5)


def shown_at(path: Path, second: float) -> int:
    "Read the number of the frame that is on the screen, by the times of the packets."
    with av.open(str(path)) as container:
        frames = [(frame.time, read_number(frame)) for frame in container.decode(video=0)]
    return [number for time, number in frames if time <= second + 1e-3][-1]


@pytest.mark.parametrize("cut", [copy_clip, exact_clip])
def test_the_fragments_before_are_cut(torn, tmp_path, cut):
    "AAC begins 0.128 s early, and fragments have no edit list: frame 78 is on the screen at 8 s."
    clip = cut([torn], 8.0, 11.0, tmp_path/"clip")
    with av.open(str(clip.path)) as container: shown = [read_number(frame) for frame in container.decode(video=0)]
    whole = torn.with_stem("whole")
    first, last = shown_at(whole, 8.0), shown_at(whole, 11.0)
    assert (first, last) == (78, 108)
    assert shown == list(range(shown[0], shown[-1] + 1)) and shown[0] <= first and shown[-1] >= last
    if cut is exact_clip: assert (shown[0], shown[-1]) == (first, last)


def test_a_file_of_nothing_else_is_still_refused(torn, tmp_path):
    content = torn.read_bytes()
    start = content.index(b"moof") - 4
    (tmp_path/"part.mp4").write_bytes(content[start:start + 100])
    assert "found nothing that can be opened as media" in printed("info", tmp_path/"part.mp4")
