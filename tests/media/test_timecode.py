"The timecode and the frame rate of a file, in all four kinds of timelines."
import re
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from xml.etree import ElementTree as ET

import av
import numpy as np
import opentimelineio
import pytest
from opentimelineio.opentime import from_timecode

from highlight_sense.media import VideoTrack, probe
from highlight_sense.reel import Span
from highlight_sense.timecode import start_timecode
from highlight_sense.timelines import write_timelines

SPANS = [Span(12.5, 20.25, "a"), Span(700.1, 711.0, "b")]
SEQUENCES = {  # frames per second of the file: of the timeline
    Fraction(24_000, 1001): None, Fraction(24): None, Fraction(25): None, Fraction(30_000, 1001): None,
    Fraction(30): None, Fraction(50): None, Fraction(60_000, 1001): None, Fraction(60): None,
    Fraction(120): Fraction(60), Fraction(10): Fraction(30)}


def film(path: Path, timecode: str | None, rate: Fraction = Fraction(30)) -> Path:
    "Write three frames that start at this timecode."
    with av.open(str(path), "w") as container:
        if timecode: container.metadata["timecode"] = timecode
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        grey = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 128, np.uint8), format="rgb24")
        for packet in (*(packet for _ in range(3) for packet in stream.encode(grey)), *stream.encode(None)):
            container.mux(packet)
    return path


def timelines(path: Path, rate: Fraction) -> dict[str, str]:
    "Write the timelines of an hour of this film, at a frame rate that a short file need not keep; return their texts."
    media = replace(probe(path), duration_s=3600.0, video=VideoTrack("mpeg4", 1280, 720, rate))
    written = write_timelines([media], SPANS, path.parent/"out", path.stem)
    return {one.name.removeprefix(path.stem): one.read_text(encoding="utf-8") for one in written}


def seconds(text: str) -> Fraction: return Fraction(text.removesuffix("s"))


def count(name: str, base: int, drop: bool) -> int:
    "Count the names before this one, from midnight on."
    hours, minutes, second, frame = map(int, re.split("[:;]", name))
    before = ((hours * 60 + minutes) * 60 + second) * base + frame
    skipped = sum(base // 15 for minute in range(1, hours * 60 + minutes + 1) if minute % 10)
    return before - skipped if drop else before


@pytest.mark.parametrize(("rate", "start"), [(Fraction(30), Fraction(298_851, 5)), (Fraction(60), None)])
def test_drop_frame_names_at_a_whole_rate(rate, start, tmp_path):
    "Final Cut Pro 12.3 places 16:37:10;02 of a file of exactly 30 frames per second at 298851/5 s."
    texts = timelines(film(tmp_path/"phone.mov", "16:37:10;02", rate), rate)
    asset = ET.fromstring(texts[".fcpxml"]).find("resources/asset")
    assert seconds(asset.get("start")) == (start or Fraction(count("16:37:10;02", 60, True), 60))
    first = ET.fromstring(texts[".fcpxml"]).find(".//asset-clip")
    assert seconds(first.get("start")) - seconds(asset.get("start")) == Fraction(25, 2)
    assert first.get("tcFormat") == "DF"


@pytest.mark.parametrize("flag", [False, True], ids=["plain", "drop"])
@pytest.mark.parametrize("rate", SEQUENCES, ids=lambda rate: f"{float(rate):.2f}")
def test_all_formats_agree(rate, flag, tmp_path):
    "The first frame of the file, and of every clip in it, is the same in all four formats."
    name = f"10:05:07{';' if flag else ':'}06"
    texts, pace, base = timelines(film(tmp_path/"a.mkv", name), rate), SEQUENCES[rate] or rate, round(rate)
    drop = flag and base % 30 == 0
    first = count(name, base, drop)
    begins = first * (pace / rate)  # in frames of the timeline
    sources = [round(Fraction(span.start_s) * pace) for span in SPANS]

    root = ET.fromstring(texts[".fcpxml"])
    formats = {one.get("id"): seconds(one.get("frameDuration")) for one in root.iter("format")}
    asset = root.find("resources/asset")
    assert 1 / formats[asset.get("format")] == rate and 1 / formats[root.find(".//sequence").get("format")] == pace
    assert seconds(asset.get("start")) == first / rate
    finals = [seconds(clip.get("start")) * pace for clip in root.iter("asset-clip")]
    assert finals == [begins + source for source in sources]
    assert {clip.find("conform-rate") is not None for clip in root.iter("asset-clip")} == {pace != rate}

    sequence = ET.fromstring(texts[".xml"]).find("sequence")
    file = next(sequence.iter("file"))
    ntsc = Fraction(1000, 1001) if file.findtext("rate/ntsc") == "TRUE" else 1
    assert int(file.findtext("rate/timebase")) * ntsc == rate
    assert int(file.findtext("timecode/frame")) == first
    assert file.findtext("timecode/string") == f"10:05:07{';' if drop else ':'}06"
    assert file.findtext("timecode/displayformat") == ("DF" if drop else "NDF")
    assert [int(clip.findtext("in")) for clip in sequence.iter("clipitem")] == sources

    timeline = opentimelineio.adapters.read_from_string(texts[".otio"], "otio_json")
    clips = list(timeline.find_clips())
    assert [clip.source_range.start_time.value for clip in clips] == [int(begins) + source for source in sources]
    assert {clip.available_range().start_time.value for clip in clips} == {int(begins)}

    events = re.findall(r"C {8}(\S+) (\S+) (\S+) (\S+)$", texts[".edl"], re.MULTILINE)
    assert [count(event[0], round(pace), drop) for event in events] == [int(begins) + source for source in sources]
    assert {";" in event[0] for event in events} == {drop}
    counted = drop and pace in (Fraction(30_000, 1001), Fraction(60_000, 1001))  # what a timeline may count in
    assert ("FCM: DROP FRAME" in texts[".edl"]) == counted and events[0][2] == f"01:00:00{';' if counted else ':'}00"
    if drop == counted: assert from_timecode(events[0][0], float(pace)).value == int(begins) + sources[0]
    assert timeline.global_start_time.value == count("01:00:00:00", round(pace), counted)


def test_a_drop_frame_flag_at_24(tmp_path):
    "FFmpeg refuses such a track; its number is the first frame all the same: 19:35:00:00."
    data = bytearray(film(tmp_path/"24.mov", "19:35:00:00", Fraction(24)).read_bytes())
    entry = data.index(b"tmcd\0\0\0\0\0\0\0\1")  # in the sample description: reserved, reference, reserved, flags
    data[entry + 19] |= 1
    (tmp_path/"flag.mov").write_bytes(data)
    with av.open(str(tmp_path/"flag.mov")) as container:
        assert not any("timecode" in stream.metadata for stream in container.streams)
    assert start_timecode(tmp_path/"flag.mov") == "19:35:00:00"
    asset = ET.fromstring(timelines(tmp_path/"flag.mov", Fraction(24))[".fcpxml"]).find("resources/asset")
    assert asset.get("start") == "70500s"


@pytest.mark.parametrize(("name", "rate"), [("01:00:00:100", Fraction(120)), ("01:00:00:7", Fraction(8))])
def test_frames_of_one_and_three_digits(name, rate, tmp_path):
    "FFmpeg writes one digit below 10 frames per second, and three above 100."
    assert start_timecode(film(tmp_path/"a.mov", name, rate)) == name
