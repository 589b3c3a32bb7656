"Recordings that editing programs do not read: a warning, and an MP4 with the same times for the timelines."
import shutil
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import av
import pytest
from noisy import FPS, SECONDS, Clip, detect, noise, write
from running import run


@pytest.fixture(scope="module")
def matroska(tmp_path_factory) -> Path:
    "A detection in a recording with H.264 and FLAC in Matroska."
    folder = tmp_path_factory.mktemp("matroska")
    return detect(folder, write(folder/"two.mkv", ("Mic", "Game"), (noise(0), noise(1)), codec="flac"))


@pytest.fixture
def detected(matroska, tmp_path) -> Path:
    return Path(shutil.copytree(matroska, tmp_path/"two"))


def publish(folder: Path, *options: object) -> str:
    "Publish timelines, and return the warnings."
    code, _, complaint = run("publish", folder, "--timeline", *options)
    assert code == 0, complaint
    return complaint


def files_of(folder: Path) -> set[str]:
    "List the names of the files that the timelines refer to."
    final_cut = ElementTree.parse(folder/"timelines"/"two.fcpxml")
    premiere = ElementTree.parse(folder/"timelines"/"two.xml")
    places = [node.get("src") for node in final_cut.iter("media-rep")]
    places += [node.text for node in premiere.iter("pathurl")]
    return {place.rpartition("/")[2] for place in places}


def times_of(folder: Path) -> list[str]:
    "List the times of all clips in Final Cut's timeline."
    clips = ElementTree.parse(folder/"timelines"/"two.fcpxml").iter("asset-clip")
    return [clip.get(name) for clip in clips for name in ("offset", "start", "duration")]


def pictures(path: Path) -> list[tuple[bytes, float]]:
    "Read the packets of the picture: the last bytes of each, and when it is shown."
    with av.open(str(path)) as container:
        start_s = max(0, container.start_time or 0) / av.time_base
        packets = [packet for packet in container.demux(video=0) if packet.size]
        return [(bytes(packet)[-50:], float(packet.pts * packet.time_base) - start_s) for packet in packets]


def test_a_warning_names_the_remedy(detected, tmp_path):
    "Where Final Cut and Premiere do not read a recording, timelines come with a warning; an MP4 gets none."
    complaint = publish(detected)
    expected = "two.mkv: found matroska, flac, expected MP4 or MOV with H.264 and AAC for Final Cut and Premiere"
    assert complaint.count("warning") == 1 and expected in complaint and "`publish --remux`" in complaint
    assert publish(detected) == "" and files_of(detected) == {"two.mkv"}
    film = detect(tmp_path, write(tmp_path/"film.mp4", ("Mic", "Game"), (noise(0), noise(1))))
    assert publish(film) == ""


def test_the_help_says_what_is_encoded():
    "The MP4 holds copies of what editing programs read, and the rest in other codecs."
    code, text, _ = run("publish", "--help")
    words = " ".join(text.replace("│", " ").split())
    assert code == 0 and "sound that they cannot read are re-encoded, the others copied" in words


def test_the_same_times(detected, matroska):
    "The MP4 has the packets of the picture and all tracks as AAC, each where it was, at an even frame rate."
    publish(detected)
    times = times_of(detected)
    assert publish(detected, "--remux") == "" and files_of(detected) == {"two.mp4"} and times_of(detected) == times
    made = detected/"timelines"/"two.mp4"
    before, after = pictures(matroska.parents[1]/"two.mkv"), pictures(made)
    assert [data for data, _ in after] == [data for data, _ in before] and len(after) == SECONDS * FPS
    assert max(abs(one - other) for (_, one), (_, other) in zip(before, after)) < 0.00101
    clip = Clip(made)
    assert clip.titles == ["Mic", "Game"] and [codec for codec, _, _ in clip.coding] == ["aac", "aac"]
    for track in 0, 1: assert abs(clip.track_zero_s(track, noise(track))) < 0.0005
    assert abs(clip.zero_s()) < 0.0005
    with av.open(str(made)) as container: assert container.streams.video[0].average_rate == FPS


def test_it_is_made_once(detected):
    "A second call writes nothing, and without `--remux` the timelines keep the MP4."
    publish(detected, "--remux")
    times = {path: path.stat().st_mtime_ns for path in (detected/"timelines").iterdir()}
    assert len(times) == 8 and publish(detected, "--remux") == publish(detected) == ""
    assert {path: path.stat().st_mtime_ns for path in (detected/"timelines").iterdir()} == times
    code, _, complaint = run("publish", detected, "--clips", "--remux")
    assert code == 2 and "--remux: found clips without timelines" in complaint


def test_it_is_written_whole_or_not_at_all(detected, monkeypatch):
    "If the disk is full, the timelines refer to the recording, and a warning says why."
    from highlight_sense import editors

    def full(*given: object) -> None: raise OSError(28, "No space left on device")

    monkeypatch.setattr(editors._CopiedTrack, "encode", full)
    complaint = publish(detected, "--remux")
    assert "--remux: " in complaint and "No space left on device" in complaint
    assert files_of(detected) == {"two.mkv"} and len(list((detected/"timelines").iterdir())) == 7


def test_other_pictures_are_encoded(tmp_path):
    "VP8 and Opus become H.264 and AAC, frame for frame, with the timecode of the recording."
    from highlight_sense.editors import remux, unread_by_editors
    from highlight_sense.timecode import start_timecode
    path = write(tmp_path/"film.mkv", ("Mic",), (noise(0),), codec="libopus", picture_codec="libvpx",
                 timecode="10:00:00:00")
    assert unread_by_editors(path) == ["matroska", "opus", "vp8"]
    remux(path, tmp_path/"edit.mp4", SECONDS, progress=False)
    assert unread_by_editors(tmp_path/"edit.mp4") == []
    assert start_timecode(tmp_path/"edit.mp4").startswith("10:00:00:0")  # with as many digits as the rate needs
    clip = Clip(tmp_path/"edit.mp4")
    assert abs(clip.zero_s()) < 0.001 and abs(clip.track_zero_s(0, noise(0))) < 0.0015
    with av.open(str(tmp_path/"edit.mp4")) as container: assert len(list(container.decode(video=0))) == SECONDS * FPS
