"What an editor finds in published timelines, and a viewer in chapters: what sounds, what it is called, how long it is."
import re
import shutil
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import opentimelineio
import pytest
from running import rating_model, run, uneven_noise

from highlight_sense.media import write_recording

TITLES = ("Stream mix", "Mic/Aux", "Desktop Audio", "Discord")  # as OBS records them
SECONDS, RATE_HZ = 60, 8000
OPTIONS = "--top", 3, "--max-length", 8, "--device", "cpu", "--mic", "a:1", "--game", "a:2"


@pytest.fixture(scope="module")
def detected(tmp_path_factory) -> Path:
    "Three highlights of a recording with a mix, a microphone, a game and a chat."
    place = tmp_path_factory.mktemp("mix")
    mic, game = uneven_noise(SECONDS, RATE_HZ)
    chat = np.zeros_like(mic)
    write_recording(place/"stream.mka", dict(zip(TITLES, (mic + game, mic, game, chat))), RATE_HZ)
    rating_model(place/"model.pt")
    code, printed, complaint = run("detect", "-m", place/"model.pt", place/"stream.mka", "-o", place/"out", *OPTIONS)
    assert code == 0 and "3 highlights" in printed, complaint
    return place/"out"/"stream"


@pytest.fixture(scope="module")
def texts(detected) -> dict[str, str]:
    "The texts of the timelines and chapters."
    code, _, complaint = run("publish", detected, "--timeline", "--chapters")
    assert code == 0, complaint
    paths = [*(detected/"timelines").iterdir(), *(detected/"chapters").iterdir()]
    return {path.suffix: path.read_text(encoding="utf-8") for path in paths if ".markers" not in path.name}


def test_everything_sounds_once(texts):
    "The mix is there, but muted in all formats; voice, game and chat sound."
    timeline = opentimelineio.adapters.read_from_string(texts[".otio"], "otio_json")
    lanes = list(timeline.audio_tracks())
    assert [(lane.name, lane.enabled) for lane in lanes] == list(zip(TITLES, (False, True, True, True)))
    assert [{clip.enabled for clip in lane} for lane in lanes] == [{False}, {True}, {True}, {True}]
    tracks = ET.fromstring(texts[".xml"]).findall(".//media/audio/track")
    assert [track.get("MZ.TrackName") for track in tracks] == list(TITLES)
    for track, sounds in zip(tracks, ("FALSE", "TRUE", "TRUE", "TRUE")):
        assert {one.text for one in track.iter("enabled")} == {sounds}
    for clip in ET.fromstring(texts[".fcpxml"]).iter("asset-clip"):
        sources = [(one.get("srcCh"), one.get("enabled", "1")) for one in clip.iter("audio-channel-source")]
        assert sources == [("1", "0"), ("2", "1"), ("3", "1"), ("4", "1")]
    for suffix in ".mlt", ".kdenlive":
        rows = ET.fromstring(texts[suffix]).findall("tractor")[-1].findall("track")[1:]
        hidden = [row.get("hide") for row in rows]
        assert hidden == ["both", "video", "video", "video"][::1 if suffix == ".mlt" else -1]
    assert re.findall(r"^\d+  AX +(\S+) +C .*\n(.+)$", texts[".edl"], re.MULTILINE) == [("A2", "AUD  3    4")] * 3
    assert texts[".edl"].splitlines()[-1].startswith("* AUDIO TRACK 1 IS MUTED")


def test_names_tell_time_and_score(texts):
    "Clips in a timeline and chapters are in order of time, and named by time and score."
    names = [clip.name for clip in opentimelineio.adapters.read_from_string(texts[".otio"], "otio_json").tracks[0]]
    assert all(re.fullmatch(r"Highlight at 0:\d\d, score 0\.\d\d", name) for name in names) and names == sorted(names)
    lines = texts[".txt"].splitlines()
    titled = [line.split(" ", 1) for line in lines]
    seconds = [int(time.partition(":")[2]) for time, _ in titled]
    assert seconds[0] == 0 and all(later - earlier >= 10 for earlier, later in pairwise(seconds))
    assert len(lines) >= 3 and "In between" not in texts[".txt"]
    numbers = re.findall(r"Highlight (\d), score 0\.\d\d", texts[".txt"])
    assert numbers == ["1", "2", "3"]


def test_clips_are_named_by_time_and_score(detected, tmp_path):
    "A folder lists clips in the order of the recording."
    folder = Path(shutil.copytree(detected, tmp_path/"stream"))
    assert run("publish", folder, "--clips")[0] == 0
    names = sorted(path.name for path in (folder/"clips").iterdir())
    assert len(names) == 3 and all(re.fullmatch(r"00h00m\d\ds_score\d\d\.mka", name) for name in names)


def test_a_header_that_promises_too_little(detected, tmp_path):
    "Highlights after the end that a header promises are in the timelines, because `detect` heard them."
    place, folder = detected.parent.parent, tmp_path/"out"/"stream"
    data = bytearray((place/"stream.mka").read_bytes())
    at = data.index(b"\x44\x89\x88") + 3  # Matroska's Duration
    data[at:at + 8] = np.array(5000.0, ">f8").tobytes()
    (tmp_path/"stream.mka").write_bytes(data)
    assert run("detect", "--model", place/"model.pt", tmp_path/"stream.mka", "-o", tmp_path/"out", *OPTIONS)[0] == 0
    code, _, complaint = run("publish", folder, "--timeline")
    assert code == 0, complaint
    asset = ET.parse(folder/"timelines"/"stream.fcpxml").find("resources/asset")
    assert abs(Fraction(asset.get("duration").removesuffix("s")) - SECONDS) < 1
