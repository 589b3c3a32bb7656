"Timelines and chapters, read back by programs that did not write them."
import html
import json
import re
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote, urlparse
from xml.etree import ElementTree as ET

import av
import numpy as np
import opentimelineio
import pycmx
import pytest
import webvtt
from opentimelineio.opentime import from_timecode

from highlight_sense.edl_marks import edl_marks
from highlight_sense.files import InputError
from highlight_sense.media import MediaInfo, VideoTrack, probe
from highlight_sense.reel import Span
from highlight_sense.timelines import make_timeline, write_chapters, write_timelines

HOURS_S = 4 * 3600.0
SPANS = [Span(10_000.0, 10_030.0, "1 clutch --> a;b", "score = 0.97; #1"),
         Span(61.26, 75.01, "2 <x> & \"y\"\n[CHAPTER]"), Span(0.4, 9.0, "3 ü 😀 \\ 12:30"),
         Span(HOURS_S - 3, HOURS_S, "4 the end")]
RATES = {  # in the file: of the timeline
    Fraction(24_000, 1001): Fraction(24_000, 1001), Fraction(25): Fraction(25),
    Fraction(30_000, 1001): Fraction(30_000, 1001), Fraction(30): Fraction(30),
    Fraction(60_000, 1001): Fraction(60_000, 1001), Fraction(87_169_000, 2_905_633): Fraction(30),
    Fraction(120_000, 1001): Fraction(60_000, 1001),
    Fraction(15): Fraction(30)}
ENDINGS = ("otio", "edl", "xml", "fcpxml", "mlt", "kdenlive", "markers.edl")
LAYOUTS = ((), ("mono",), ("stereo",), ("mono", "stereo"), ("mono", "stereo", "mono"), ("stereo",) * 6)
CHANNELS = {"mono": 1, "stereo": 2}
DROP = Fraction(30_000, 1001)


def record(path: Path, layouts: tuple[str, ...], rate: Fraction | None, timecode: str | None = None) -> MediaInfo:
    "Write a short file with this sound and picture, and describe it as one of four hours."
    with av.open(str(path), "w") as container:
        if timecode: container.metadata["timecode"] = timecode
        video = container.add_stream("mpeg4", rate=rate) if rate else None
        sounds = [container.add_stream("aac", rate=48_000, layout=layout) for layout in layouts]
        for number, stream in enumerate(sounds): stream.metadata["title"] = f"Track {number} & <co>"
        if video:
            video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")
            for _ in range(5): container.mux(video.encode(frame))
            container.mux(video.encode(None))
        for stream, layout in zip(sounds, layouts):
            samples = np.zeros((CHANNELS[layout], 4800), np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = 48_000, 0, Fraction(1, 48_000)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return replace(probe(path), duration_s=HOURS_S)


RECORDINGS = [  # sound, rate in the file, start timecode
    *((layouts, rate, None) for layouts in LAYOUTS for rate in (DROP, None) if layouts or rate),
    *((("mono", "stereo"), rate, None) for rate in RATES),
    *((("mono", "stereo"), DROP, timecode) for timecode in ("10:00:00:00", "10:00:00;00", "23:00:00;10"))]


def named(made: tuple) -> str:
    "Name a recording."
    layouts, rate, timecode = made
    return f"{'+'.join(layouts) or 'silent'} {str(rate).replace('/', ' by ')} {timecode}"


@pytest.fixture(scope="module", params=RECORDINGS, ids=named)
def written(request, tmp_path_factory):
    "Write the timelines of a recording; return it, the timeline's rate, the number of its first frame, and the files."
    layouts, rate, timecode = request.param
    folder = tmp_path_factory.mktemp("Abend & Spiele #1 100% ü")
    media = record(folder/"my <best> stream & more #2 'ö'.mkv", layouts, Fraction(30) if rate else None, timecode)
    if rate: media = replace(media, video=VideoTrack("mpeg4", 1920, 1080, rate))  # a rate that a muxer need not keep
    paths = write_timelines([media], SPANS, folder/"timelines", "reel")
    assert [path.name for path in paths] == [f"reel.{ending}" for ending in ENDINGS]
    assert sorted(paths) == sorted((folder/"timelines").iterdir())
    pace = RATES[rate] if rate else Fraction(30)
    origin = int(from_timecode(timecode, float(pace)).value) if timecode else 0
    return media, pace, origin, {path.name.removeprefix("reel"): path.read_text(encoding="utf-8") for path in paths}


def expected(pace: Fraction) -> list[tuple[int, int]]:
    "List the first frame of every highlight and the one after its last, from the start of the recording."
    return [(round(Fraction(span.start_s) * pace), round(Fraction(span.end_s) * pace)) for span in SPANS]


def is_recording(url: str, media: MediaInfo) -> bool:
    "Return whether a link leads to the recording, read as a browser would."
    parts = urlparse(url)
    if parts.scheme != "file" or parts.fragment or parts.query: return False
    return Path(unquote(parts.path)).samefile(media.path)


def test_the_frame_of_ten_thousand_seconds():
    "At 29.97 frames per second, 10 000 s is frame 299 700, not 300 000."
    assert expected(DROP)[0][0] == 299_700


def test_edl(written, tmp_path):
    "pycmx finds every event, its source and record times to the frame, and all tracks that fit."
    media, pace, origin, files = written
    (tmp_path/"reel.edl").write_text(files[".edl"], encoding="utf-8")
    with open(tmp_path/"reel.edl", encoding="utf-8") as file: edl = pycmx.parse_cmx3600(file)
    events = list(edl.events)
    assert edl.format == "3600" and not list(edl.unrecognized_statements)
    assert [event.number for event in events] == [1, 2, 3, 4]
    drop = next(statement.drop for statement in edl.event_statements if type(statement).__name__ == "StmtFCM")
    frames = lambda name: int(from_timecode(name, float(pace)).value)
    at = frames("01:00:00;00" if drop else "01:00:00:00")
    for event, (first, end) in zip(events, expected(pace), strict=True):
        edit, = event.edits
        assert {";" in edit.source_in, ";" in edit.record_out} == {drop}
        day = frames("23:59:59;29") + 1 if drop else 86_400 * round(pace)
        assert (frames(edit.source_in), frames(edit.source_out)) == ((origin + first) % day, (origin + end) % day)
        assert (frames(edit.record_in), frames(edit.record_out)) == (at, at + end - first)
        assert edit.channels.video == (media.video is not None)
        assert sorted(edit.channels.channels) == list(range(1, 1 + min(4, len(media.tracks))))
        assert edit.clip_name == media.path.name and edit.transition.cut
        at += end - first


def test_otio(written):
    "The JSON has a picture track if there is a picture, and a track for every sound, all of the same file."
    media, pace, origin, files = written
    timeline = json.loads(files[".otio"])
    tracks = timeline["tracks"]["children"]
    assert [track["kind"] for track in tracks] == ["Video"] * bool(media.video) + ["Audio"] * len(media.tracks)
    assert [track["name"] for track in tracks if track["kind"] == "Audio"] == [track.title for track in media.tracks]
    assert timeline["global_start_time"]["rate"] == float(pace)
    for track in tracks:
        for clip, (first, end) in zip(track["children"], expected(pace), strict=True):
            source = clip["source_range"]
            assert (source["start_time"]["value"], source["duration"]["value"]) == (origin + first, end - first)
            assert source["start_time"]["rate"] == source["duration"]["rate"] == float(pace)
            file = clip["media_references"][clip["active_media_reference_key"]]
            assert is_recording(file["target_url"], media)
            available = file["available_range"]
            times = available["start_time"]["value"], available["duration"]["value"]
            assert times == (origin, round(Fraction(HOURS_S) * pace))


def test_fcp7_xml(written):
    "Positions are right, and every channel of the file plays once, on its own track, linked to the picture."
    media, pace, origin, files = written
    sequence = ET.fromstring(files[".xml"]).find("sequence")
    inside = {id(rate) for file in sequence.iter("file") for rate in file.iter("rate")}  # the file's own
    for rate in (rate for rate in sequence.iter("rate") if id(rate) not in inside):
        ntsc = Fraction(1000, 1001) if rate.findtext("ntsc") == "TRUE" else 1
        assert int(rate.findtext("timebase")) * ntsc == pace
    pictures, sounds = sequence.findall("media/video/track"), sequence.findall("media/audio/track")
    channels = sum(track.channels for track in media.tracks)
    assert len(pictures) == bool(media.video) and len(sounds) == channels
    for track in pictures + sounds:
        at = 0
        for clip, (first, end) in zip(track.findall("clipitem"), expected(pace), strict=True):
            found = [int(clip.findtext(tag)) for tag in ("in", "out", "start", "end")]
            assert found == [first, end, at, at + end - first]
            at += end - first
        assert at == int(sequence.findtext("duration"))
    for index, track in enumerate(sounds, 1):
        assert {clip.findtext("sourcetrack/trackindex") for clip in track.findall("clipitem")} == {str(index)}
    clips = {clip.get("id"): clip for clip in sequence.iter("clipitem")}
    assert len(clips) == len(SPANS) * (len(pictures) + channels)
    for clip in clips.values():
        links = [clips[link.findtext("linkclipref")] for link in clip.findall("link")]
        assert len(links) == len(pictures) + channels
        assert {link.findtext("in") for link in links} == {clip.findtext("in")}
    file, = [file for file in sequence.iter("file") if len(file)]
    assert is_recording(file.findtext("pathurl"), media) and int(file.findtext("timecode/frame")) == origin
    counts = [int(count.text) for count in file.findall("media/audio/channelcount")]
    assert counts == [track.channels for track in media.tracks]
    numbers = [int(channel.text) for channel in file.findall("media/audio/audiochannel/sourcechannel")]
    assert numbers == list(range(1, channels + 1))
    assert next(sequence.iter("file")) is file  # described where it is first used


def test_fcpxml(written):
    "All times are whole frames and add up, and the asset is the file with all its audio."
    media, pace, origin, files = written
    root = ET.fromstring(files[".fcpxml"])
    seconds = lambda element, name: Fraction(element.get(name).removesuffix("s"))
    frame = seconds(root.find("resources/format"), "frameDuration")
    assert 1 / frame == pace
    for element in root.iter():
        for name in {"start", "duration", "offset", "tcStart"}.intersection(element.keys()):
            assert element.get(name).endswith("s") and (seconds(element, name) / frame).denominator == 1
    asset, sequence, clips = root.find("resources/asset"), root.find(".//sequence"), root.findall(".//spine/asset-clip")
    assert is_recording(asset.find("media-rep").get("src"), media) and seconds(asset, "start") == origin * frame
    assert int(asset.get("audioSources") or 0) == len(media.tracks)
    assert asset.get("hasVideo") == ("1" if media.video else None)
    at = seconds(sequence, "tcStart")
    for clip, (first, end) in zip(clips, expected(pace), strict=True):
        times = [seconds(clip, name) for name in ("start", "duration", "offset")]
        assert times == [(origin + first) * frame, (end - first) * frame, at]
        assert clip.get("ref") == asset.get("id")
        played = [source.get("srcCh").split(",") for source in clip.findall("audio-channel-source")]
        channels_played = [int(number) for numbers in played for number in numbers]
        assert channels_played == list(range(1, 1 + sum(track.channels for track in media.tracks)))
        at += seconds(clip, "duration")
    assert at - seconds(sequence, "tcStart") == seconds(sequence, "duration")


# Two files: a recording with a picture, and a microphone that stops in the middle of the first highlight.

def streams_of(path: Path) -> tuple[list[int], list[int]]:
    "The numbers of the pictures and of the audio tracks, among all streams of a file."
    with av.open(str(path)) as container:
        kinds = [stream.type for stream in container.streams]
    return tuple([index for index, kind in enumerate(kinds) if kind == wanted] for wanted in ("video", "audio"))


def properties(element: ET.Element) -> dict[str, str]:
    "The properties directly below an element of MLT."
    return {one.get("name"): one.text for one in element.findall("property")}


@pytest.mark.parametrize("suffix", [".mlt", ".kdenlive"])
def test_mlt(written, suffix):
    "Every track plays one stream of the recording, for exactly the frames of the highlights."
    media, pace, _, files = written
    root = ET.fromstring(files[suffix])
    profile = root.find("profile").attrib
    assert Fraction(int(profile["frame_rate_num"]), int(profile["frame_rate_den"])) == pace
    named = {one.get("id"): one for one in root if one.get("id")}
    played, frames = [], sum(end - first for first, end in expected(pace))
    for track in root.findall("tractor")[-1].findall("track")[1:]:
        playlist = named[track.get("producer")]
        if playlist.tag == "tractor": playlist = named[playlist.find("track").get("producer")]
        cuts = [(int(one.get("in")), int(one.get("out")) + 1) for one in playlist.findall("entry")]
        assert cuts == expected(pace) and not playlist.findall("blank")
        plays = {(one["audio_index"], one["video_index"], one["resource"], int(one["length"]) >= cuts[-1][1])
                 for one in (properties(named[entry.get("producer")]) for entry in playlist.findall("entry"))}
        assert len(plays) == 1
        played += plays
    pictures, sounds = streams_of(media.path)
    assert int(root.findall("tractor")[-1].get("out")) == frames - 1
    assert {Path(one[2]) for one in played} == {media.path} and all(one[3] for one in played)
    streams = [("-1", str(index)) for index in pictures] + [(str(index), "-1") for index in sounds]
    assert [one[:2] for one in played] == (streams if suffix == ".mlt" else streams[::-1])


def test_markers_of_resolve(written):
    "The markers are in the form that Resolve writes; read back, they are the highlights, from 01:00:00:00 on."
    _, pace, _, files = written
    text = files[".markers.edl"]
    drop = "FCM: DROP FRAME" in text
    event = re.compile(r"(\d{3})  001      V     C        (\S{11}) (\S{11}) \2 \3")
    below = re.compile(r"[^|]* \|C:ResolveColorGreen \|M:[^|]+ \|D:(\d+)")
    title, fcm, *lines = [line for line in text.splitlines() if line]
    assert title.startswith("TITLE: ") and fcm.startswith("FCM: ")
    events = [event.fullmatch(line) for line in lines[::2]]
    lengths = [int(below.fullmatch(line)[1]) for line in lines[1::2]]
    begin = int(from_timecode("01:00:00;00" if drop else "01:00:00:00", float(pace)).value)
    found = [int(from_timecode(one[2], float(pace)).value) - begin for one in events]
    cuts = sorted(expected(pace))
    assert list(zip(found, lengths)) == [(first, end - first) for first, end in cuts]
    marks = edl_marks(text, pace)
    assert [round((mark.end_s - mark.start_s) * pace) for mark in marks] == lengths
    assert [round(mark.start_s * pace) - begin for mark in marks] == found


MIC_S = 10_012.0


@pytest.fixture(scope="module", params=[DROP, None], ids=["picture", "sound only"])
def apart(request, tmp_path_factory):
    "Write the timelines of two files; return the files, the rate, each file's first frame by name, and the timelines."
    folder = tmp_path_factory.mktemp("two files & more")
    mic = replace(record(folder/"mic <1> #2.mka", ("mono",), None, "01:00:00:00"), duration_s=MIC_S)
    game = record(folder/"game.mkv", ("stereo", "mono"), request.param, "10:00:00:00")
    pace = request.param or Fraction(30)
    paths = write_timelines([mic, game], SPANS, folder/"timelines", "both")
    assert [path.name for path in paths] == [f"both.{ending}" for ending in ENDINGS]
    origin = {game.path.name: 36_000 * round(pace), mic.path.name: 3600 * round(pace)}
    return mic, game, pace, origin, {path.name.removeprefix("both"): path for path in paths}


def parts(pace: Fraction) -> list[tuple[int, int, int, int]]:
    "List for each highlight: place in the reel, first frame, frames, and how many of them the microphone has."
    found, at, end = [], 0, round(Fraction(MIC_S) * pace)
    for first, last in expected(pace):
        found.append((at, first, last - first, max(0, min(last, end) - first)))
        at += last - first
    assert [0 < mic < whole for _, _, whole, mic in found] == [True, False, False, False] and found[3][3] == 0
    return found


def test_two_files_edl(apart):
    "Events of both files are at the same place in the reel, on channels of their own."
    mic, game, pace, origin, files = apart
    with open(files[".edl"], encoding="utf-8") as file: edl = pycmx.parse_cmx3600(file)
    assert not list(edl.unrecognized_statements)
    found = {}
    for event in edl.events:
        edit, = event.edits
        names = edit.source_in, edit.source_out, edit.record_in, edit.record_out
        times = [int(from_timecode(name, float(pace)).value) for name in names]
        found.setdefault((edit.clip_name, edit.channels.video, *sorted(edit.channels.channels)), []).append(times)
    begin = 3600 * round(pace)
    alone, all_of_it = [], []
    for at, first, whole, own in parts(pace):
        for lines, name, frames in ((alone, mic.path.name, own), (all_of_it, game.path.name, whole)):
            source, place = origin[name] + first, begin + at
            if frames: lines.append([source, source + frames, place, place + frames])
    shown = {("game.mkv", True, 1, 2): all_of_it, (mic.path.name, False, 3): alone}
    assert found == (shown if game.video else {(mic.path.name, False, 1): alone, ("game.mkv", False, 2, 3): all_of_it})


def test_two_files_otio(apart):
    "OpenTimelineIO's own reader finds tracks of equal length, and at every frame of the reel the right frame or a gap."
    mic, game, pace, origin, files = apart
    timeline = opentimelineio.adapters.read_from_file(str(files[".otio"]))
    sounds = {str(track.name): track for track in timeline.audio_tracks()}
    assert len(timeline.video_tracks()) == (game.video is not None)
    assert set(sounds) == {"Track 0 & <co>", "Track 1 & <co>"}
    assert len(timeline.audio_tracks()) == 3
    for track in timeline.tracks:
        assert track.duration().value == sum(whole for _, _, whole, _ in parts(pace))
        media = {Path(unquote(urlparse(clip.media_reference.target_url).path)) for clip in track.find_clips()}
        path, = media
        media = {one.path: one for one in (mic, game)}[path]
        for at, first, whole, own in parts(pace):
            have = own if media is mic else whole
            for offset in {0, have - 1, have, whole - 1}.intersection(range(whole)):
                item = track.child_at_time(opentimelineio.opentime.RationalTime(at + offset, float(pace)))
                assert isinstance(item, opentimelineio.schema.Clip) == (offset < have)
                if offset < have:
                    time = opentimelineio.opentime.RationalTime(at + offset, float(pace))
                    inside = track.transformed_time(time, item)
                    assert inside.value == origin[path.name] + first + offset
                    assert item.available_range().start_time.value == origin[path.name]


def test_two_files_fcp7_xml(apart):
    "Each file is described once, each channel has a track of its own, and links lead to the clips that they name."
    mic, game, pace, origin, files = apart
    sequence = ET.parse(files[".xml"]).getroot().find("sequence")
    described = [file for file in sequence.iter("file") if len(file)]
    paths = [Path(unquote(urlparse(file.findtext("pathurl")).path)) for file in described]
    assert set(paths) == {mic.path, game.path} and len(described) == 2
    assert {file.findtext("name"): int(file.findtext("timecode/frame")) for file in described} == origin
    pictured = {file.findtext("name"): len(file.findall("media/video")) for file in described}
    assert pictured == {"game.mkv": int(game.video is not None), mic.path.name: 0}
    name = {file.get("id"): file.findtext("name") for file in described}
    pictures, sounds = sequence.findall("media/video/track"), sequence.findall("media/audio/track")
    assert len(pictures) == (game.video is not None) and len(sounds) == 4
    placed = []
    for track in pictures + sounds:
        clips = track.findall("clipitem")
        file, = {name[clip.find("file").get("id")] for clip in clips}
        placed.append((file, *{clip.findtext("sourcetrack/trackindex") for clip in clips}))
        want = [(at, first, own if file == mic.path.name else whole) for at, first, whole, own in parts(pace)]
        assert [[int(clip.findtext(tag)) for tag in ("start", "end", "in", "out")] for clip in clips] == [
            [at, at + frames, first, first + frames] for at, first, frames in want if frames]
    channels = [("game.mkv", "1"), ("game.mkv", "2"), ("game.mkv", "3"), (mic.path.name, "1")]
    assert sorted(placed[len(pictures):]) == channels
    for clip in sequence.iter("clipitem"):
        for link in clip.findall("link"):
            lane = (pictures if link.findtext("mediatype") == "video" else sounds)[int(link.findtext("trackindex")) - 1]
            clips = lane.findall("clipitem")
            assert clips[int(link.findtext("clipindex")) - 1].get("id") == link.findtext("linkclipref")


def test_two_files_fcpxml(apart):
    "Both files are connected at the same frame along the whole storyline, and no microphone clip follows its end."
    mic, game, pace, origin, files = apart
    root = ET.parse(files[".fcpxml"]).getroot()
    sources = {asset.get("id"): asset.find("media-rep").get("src") for asset in root.iter("asset")}
    assets = {name: Path(unquote(urlparse(source).path)) for name, source in sources.items()}
    assert set(assets.values()) == {mic.path, game.path}
    assert len(root.findall(".//asset[@hasVideo]")) == (game.video is not None)
    frames = lambda element, key: Fraction(element.get(key).removesuffix("s")) * pace
    found = {mic.path.name: [], game.path.name: []}
    begin = at = frames(root.find(".//sequence"), "tcStart")
    for item in root.find(".//spine"):
        assert frames(item, "offset") == at
        for clip in [item] * (item.tag == "asset-clip") + item.findall("asset-clip"):
            place = at if clip is item else at + frames(clip, "offset") - frames(item, "start")
            file = assets[clip.get("ref")].name
            found[file].append((place - begin, frames(clip, "start") - origin[file], frames(clip, "duration")))
            played = [source.get("srcCh").split(",") for source in clip.findall("audio-channel-source")]
            channels = [int(number) for numbers in played for number in numbers]
            assert channels == ([1] if file == mic.path.name else [1, 2, 3])
        at += frames(item, "duration")
    assert at - begin == frames(root.find(".//sequence"), "duration")
    assert found[game.path.name] == [(at, first, whole) for at, first, whole, _ in parts(pace)]
    assert found[mic.path.name] == [(at, first, own) for at, first, _, own in parts(pace) if own]


def test_make_timeline_reads_the_start(tmp_path):
    "The timecode is read from the file."
    media = record(tmp_path/"a.mov", ("mono",), DROP, "10:00:00;00")
    timeline = make_timeline([media], SPANS)
    start = from_timecode("10:00:00;00", float(DROP)).value
    assert timeline.tracks[0][1].source_range.start_time.value == start + expected(DROP)[1][0]


def test_chapters(tmp_path):
    "webvtt-py and FFmpeg find the chapters of the YouTube text, whatever is in the titles."
    text, vtt, ffmeta = write_chapters(SPANS, HOURS_S, tmp_path, "stream")
    lines = [line.split(" ", 1) for line in text.read_text(encoding="utf-8").splitlines()]
    clock_s = [sum(int(part) * 60 ** i for i, part in enumerate(reversed(time.split(":")))) for time, _ in lines]
    assert lines[0][0] == "0:00" and len(lines) >= 3
    assert all(b - a >= 10 for a, b in zip(clock_s, [*clock_s[1:], HOURS_S]))
    cues = list(webvtt.read(vtt))
    assert [int(cue.start_in_seconds) for cue in cues] == clock_s
    assert [cue.end for cue in cues[:-1]] == [cue.start for cue in cues[1:]]
    with av.open(str(ffmeta), format="ffmetadata") as container: chapters = container.chapters()
    titles = [chapter["metadata"]["title"] for chapter in chapters]
    assert [html.unescape(cue.raw_text) for cue in cues] == titles
    assert [int(chapter["start"] * chapter["time_base"]) for chapter in chapters] == clock_s
    assert chapters[-1]["end"] == 1000 * HOURS_S
    named = ["3 ü 😀 \\ 12:30", '2 <x> & "y" [CHAPTER]', "1 clutch --> a;b", "4 the end"]
    assert [title for title in titles if title[0] in "1234"] == named


def test_chapters_go_into_a_file(tmp_path):
    "FFmpeg finds the chapters in a recording to which they were added."
    *_, ffmeta = write_chapters(SPANS, HOURS_S, tmp_path, "stream")
    with av.open(str(ffmeta), format="ffmetadata") as container: chapters = container.chapters()
    with av.open(str(tmp_path/"with.mkv"), "w") as container:
        container.set_chapters(chapters)
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    with av.open(str(tmp_path/"with.mkv")) as container: found = container.chapters()
    assert [chapter["metadata"]["title"] for chapter in found] == [chapter["metadata"]["title"] for chapter in chapters]


def test_bad_input_leaves_nothing(tmp_path):
    "Bad input gives one line, and leaves no file."
    media = record(tmp_path/"a.mkv", ("mono",), DROP)
    (tmp_path/"a file").touch()
    for spans, folder in (([], "out"), ([Span(HOURS_S + 1, HOURS_S + 2, "beyond")], "out"), (SPANS, "a file")):
        for write, what in ((write_timelines, [media]), (write_chapters, None)):
            arguments = (what, spans) if what else (spans, HOURS_S)
            with pytest.raises(InputError) as error: write(*arguments, tmp_path/folder, "reel")
            assert "\n" not in str(error.value)
    assert not (tmp_path/"out").exists()


def test_opentimelineio_is_loaded_late():
    "`import highlight_sense.timelines` does not load OpenTimelineIO."
    ask = "import sys, highlight_sense.timelines; print('opentimelineio' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", ask], check=True, text=True, capture_output=True)
    assert ended.stdout.strip() == "False"
