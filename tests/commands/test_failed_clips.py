"A clip that cannot be cut costs only itself."
import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import pytest
from running import RATE_HZ, run, write_rated

from highlight_sense.detections import fingerprint

SECONDS = 60


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A folder with a recording and its detection, in `out/stream`."
    place = tmp_path_factory.mktemp("failed")
    write_rated(place, SECONDS, RATE_HZ)
    code, printed, complaint = run(
        "detect", "--model", place/"model.pt", place/"stream.mka", "-o", place/"out", "--top", 2, "--max-length", 6,
        "--device", "cpu")
    assert code == 0 and "2 highlights" in printed, complaint
    return place


@pytest.fixture
def folder(place, tmp_path) -> Path:
    "A copy of the detection."
    return Path(shutil.copytree(place/"out"/"stream", tmp_path/"stream"))


def put_in_the_way(folder: Path, rank: int) -> Path:
    "Put a file of the user's at the place of a clip."
    one = json.loads((folder/"highlights.json").read_text())["highlights"][rank - 1]
    minutes, seconds = divmod(int(one["clip_start_s"]), 60)
    path = folder/"clips"/f"00h{minutes:02}m{seconds:02}s_score{round(100 * one['probability']):02}.mka"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(b"mine")
    return path


def sizes_in(folder: Path) -> dict[str, int]:
    "The sizes of the files in `clips/`."
    return {path.name: path.stat().st_size for path in (folder/"clips").iterdir()}


def test_the_others_are_published(folder):
    "The other clips, timelines, chapters and report are there, a warning gives the reason, and the next call cuts it."
    second = put_in_the_way(folder, 2)
    code, printed, complaints = run("publish", folder)
    assert code == 0, complaints
    assert len(sizes_in(folder)) == 2 and second.read_bytes() == b"mine"
    assert "1 clip in clips/, 1 failed, 7 timeline files" in printed and (folder/"report.html").is_file()
    assert complaints.count(f"highlight-sense: warning: clip {second.stem}: {second}: found") == 1
    second.unlink()
    others = sizes_in(folder)
    assert min(others.values()) > 10_000
    code, printed, complaints = run("publish", folder)
    assert code == 0 and "2 clips in clips/, 7 timeline" in printed and "warning" not in complaints
    assert sizes_in(folder).items() > others.items() and second.stat().st_size > 10_000


def test_all_clips_fail(folder):
    "Without any clip the exit code is 2; timelines and chapters are written all the same."
    for rank in 1, 2: put_in_the_way(folder, rank)
    code, _, complaints = run("publish", folder, "--clips", "--timeline", "--chapters")
    assert code == 2 and complaints.splitlines()[-1].startswith(f"highlight-sense: {folder}: found 2 highlights whose")
    assert len(list((folder/"chapters").iterdir())) == 3 and len(list((folder/"timelines").iterdir())) == 7


def test_a_picture_that_cannot_be_decoded(folder, place, tmp_path):
    "The report plays the sound; copied clips need no decoder; exact ones fail, each with its reason."
    film = tmp_path/"stream.mka"  # the recording with a picture, under its old name
    with av.open(str(place/"stream.mka")) as old, av.open(str(film), "w", format="matroska") as new:
        image = new.add_mux_stream("vp8", rate=5, width=64, height=36)
        copies = [new.add_stream_from_template(stream, opaque=True) for stream in old.streams.audio]
        for second in range(SECONDS):
            packet = av.Packet(b"\xff" * 50)
            packet.pts, packet.dts, packet.duration, packet.time_base = second, second, 1, Fraction(1)
            packet.is_keyframe, packet.stream = True, image
            new.mux(packet)
        for packet in old.demux():
            if packet.pts is None: continue
            packet.stream = copies[packet.stream_index]
            new.mux(packet)
    record = json.loads((folder/"highlights.json").read_text())
    record["recording"]["files"] = [str(film)]
    record["recording"]["fingerprints"] = [fingerprint(film)]
    for side in "voice", "game": record[side]["path"] = str(film)
    (folder/"highlights.json").write_text(json.dumps(record))
    code, printed, complaints = run("publish", folder, "--clips", "--report")
    assert code == 0 and "2 clips in clips/" in printed, complaints
    assert "report, highlight 1: " in complaints and "found a picture that cannot be decoded" in complaints
    page = (folder/"report.html").read_text()
    assert page.count("<audio controls preload") == 2 + len(record["near_misses"]) and "<video" not in page
    code, _, complaints = run("publish", folder, "--clips", "--exact")
    assert code == 2 and complaints.count("found a picture that cannot be decoded") >= 3
