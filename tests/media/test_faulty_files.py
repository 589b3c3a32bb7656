"Clips of files with faults: what can be cut is cut, and a warning names the rest."
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from highlight_sense.clips import CutClip, copy_clip, exact_clip
from highlight_sense.numbered import FPS, measure, read_number, write_numbered

CUTS = pytest.mark.parametrize("cut", [copy_clip, exact_clip])


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    "A recording of 12 s with a key frame every 2 s and two tracks."
    return write_numbered(tmp_path_factory.mktemp("whole")/"whole.mp4")


def remux(source: Path, target: Path, sounds: int = 2, from_s: float = 0.0, zero_s: float = 0.0) -> Path:
    "Copy the picture and so many tracks, from the packets of `from_s` on; `zero_s` becomes 0:00."
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        kept = [*old.streams.video, *old.streams.audio[:sounds]]
        copies = {stream.index: new.add_stream_from_template(stream, opaque=True) for stream in kept}
        for packet in old.demux(kept):
            if packet.pts is None or packet.dts * packet.time_base < from_s - 0.1: continue
            packet.pts -= round(zero_s / packet.time_base)
            packet.dts -= round(zero_s / packet.time_base)
            packet.stream = copies[packet.stream_index]
            new.mux(packet)
    return target


def numbers_in(path: Path) -> list[int]:
    "The numbers of the frames that a clip shows; as in a player, what cannot be decoded is left out."
    numbers = []
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            try: numbers += [read_number(frame) for frame in packet.decode()]
            except av.FFmpegError: continue
    return numbers


@CUTS
def test_a_codec_that_ffmpeg_does_not_know(cut: Callable[..., CutClip], whole, tmp_path, caplog):
    "A track of an unknown codec is left out, with one line for all clips; picture and known track are cut."
    path, data = tmp_path/"phone.mov", bytearray(whole.read_bytes())
    entry = data.rindex(b"mp4a")  # of the second track
    data[entry:entry + 4] = b"apac"
    box = data.index(b"esds", entry)  # says that it is AAC
    data[box:box + 4] = b"dapa"
    path.write_bytes(data)
    for start_s in 1.1, 5.2:
        clip = cut([path], start_s, start_s + 2.5, tmp_path/str(start_s))
        found = measure(clip.path)
        assert found.in_sync and found.titles == ["Mic"] and abs(found.zero_s - clip.start_s) < 0.002
        assert found.frames[0] <= start_s * FPS and found.frames[1] >= (start_s + 2.5) * FPS - 1
    line, = caplog.messages
    assert line.startswith(f"{path}: found a codec in stream 2 (audio) that FFmpeg does not know, expected")


@CUTS
def test_a_packet_that_the_receiver_flagged(cut, whole, tmp_path, caplog):
    "A transport packet with its error flag set costs at most some frames; picture and sound stay in sync."
    path = remux(whole, tmp_path/"air.ts")
    data = bytearray(path.read_bytes())
    starts = range(0, len(data), 188)
    picture = [at for at in starts if data[at + 1] & 0x1f == 1 and data[at + 2] == 0]  # PID 0x100
    data[picture[len(picture) // 2] + 1] |= 0x80
    path.write_bytes(data)
    clip = cut([path], 4.2, 7.7, tmp_path/"clip")
    numbers = numbers_in(clip.path)
    first, last = (120, 239) if clip.copied else (125, 230)
    assert abs(numbers[0] - first) <= 1 and abs(numbers[-1] - last) <= 1
    assert (last - first) * 0.7 < len(set(numbers)) <= last - first + 1
    line, = caplog.messages
    assert line.startswith(f"{path}: found damaged data at 0:0") and "hitch" in line


@CUTS
def test_a_file_that_is_broken_off(cut, whole, tmp_path, caplog):
    "An FLV that ends in the middle of a packet is cut up to there."
    path = remux(whole, tmp_path/"live.flv", sounds=1)
    path.write_bytes(path.read_bytes()[:path.stat().st_size * 9 // 10])
    clip = cut([path], 8.2, 10.5, tmp_path/"clip")
    numbers = numbers_in(clip.path)
    assert numbers[0] == (240 if clip.copied else 245) and numbers[-1] >= 312
    assert all("found" in line and "expected" in line for line in caplog.messages)


@CUTS
def test_a_file_that_was_trimmed_without_encoding(cut, whole, tmp_path):
    "Its first key frame is stored but not shown; a clip that reaches its start needs it all the same."
    path = remux(whole, tmp_path/"trimmed.mp4", from_s=2.0, zero_s=3.3)
    with av.open(str(path)) as container:
        first = next(packet for packet in container.demux(video=0))
        assert first.is_keyframe and first.is_discard and first.pts < 0
    clip = cut([path], 0, 2, tmp_path/"clip")
    found = measure(clip.path)
    assert found.frames == (99, 179 if clip.copied else 158) and found.in_sync
    assert clip.start_s == 0 and abs(found.zero_s - 3.3) < 0.002


@pytest.fixture(scope="module")
def late(tmp_path_factory) -> Path:
    "A transport stream whose second track begins at 14 s, long after a player has looked for its channels."
    path = tmp_path_factory.mktemp("late")/"late.ts"
    with av.open(str(path), "w") as container:
        image = container.add_stream("libx264", rate=5, options={"preset": "ultrafast", "g": "5"})
        image.width, image.height, image.pix_fmt = 64, 36, "yuv420p"
        sounds = [container.add_stream("aac", rate=8000, layout="mono") for _ in range(2)]
        for second in range(18):
            for number in range(5 * second, 5 * second + 5):
                frame = av.VideoFrame.from_ndarray(np.full((54, 64), number, np.uint8), format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 5)
                container.mux(image.encode(frame))
            for stream in sounds if second >= 14 else sounds[:1]:
                tone = 0.1 * np.sin(np.arange(8000))[None].astype(np.float32)
                frame = av.AudioFrame.from_ndarray(tone, format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 8000, 8000 * second, Fraction(1, 8000)
                container.mux(stream.encode(frame))
        for stream in (image, *sounds): container.mux(stream.encode(None))
    with av.open(str(path)) as container: assert container.streams.audio[1].codec_context.layout.nb_channels == 0
    return path


def test_a_track_without_channels_in_its_header(late, tmp_path, caplog):
    "An exact clip takes them from the sound; a copied clip leaves the track out, with a line."
    for cut, channels in (exact_clip, [1, 1]), (copy_clip, [1]):
        clip = cut([late], 15.1, 16.9, tmp_path/cut.__name__)
        with av.open(str(clip.path)) as container:
            assert [stream.codec_context.layout.nb_channels for stream in container.streams.audio] == channels
            assert clip.path.suffix == ".mp4" and len(container.streams.video) == 1
    line, = caplog.messages
    assert line.startswith(f"{late}: found no channels in the header of stream 2 (audio), expected some; copied clips")
