"""`prepare` knows each clip that it made: it resumes, adds and replaces those, and no others."""
import json
from pathlib import Path

import pytest
from running import printed, run, write_stream

from highlight_sense.config import FrontEnd, PrepareConfig
from highlight_sense.tracks import choose_pair

LENGTHS = ((43, 65, 1.0),)
OPTIONS = ("--negative-s", 1, "--lengths", 43, 65, 1, "--game-name", "arena")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "Two labelled recordings of eight seconds."
    place = tmp_path_factory.mktemp("folders")
    for name in ("stream", "other"): write_stream(place/f"{name}.mka")
    for name, labelled in (("stream", ["stream"]), ("both", ["stream", "other"])):
        rows = [f"{one},{times}\n" for one in labelled for times in ("1,2", "5,6")]
        (place/f"{name}.csv").write_text("recording,start_s,end_s\n" + "".join(rows))
    return place


def prepare(place: Path, out: Path, table: str = "stream", *more: object) -> tuple:
    "The words that cut the recordings of a table."
    recordings = [place/"stream.mka", place/"other.mka"][:1 + (table == "both")]
    return "prepare", *recordings, "--labels", place/f"{table}.csv", "-o", out, *OPTIONS, *more


def clips_in(out: Path) -> dict[str, int]:
    "When each clip was written."
    return {path.relative_to(out).as_posix(): path.stat().st_mtime_ns for path in out.rglob("*.pt")}


def listed(out: Path) -> set[str]:
    "The clips in the manifest."
    return set(json.loads((out/"manifest.json").read_text())["files"])


def test_an_own_clip_stays(place, tmp_path):
    "A clip that somebody put among ours, with a name like theirs, outlives them."
    out = tmp_path/"clips"
    printed(*prepare(place, out), code=0)
    own = out/"Positive"/"arena"/"stream_part99.pt"
    own.write_bytes(b"mine")
    printed(*prepare(place, out, "stream", "--seed", 1, "--overwrite"), code=0)
    assert own.exists() and own.read_bytes() == b"mine"
    assert listed(out) == clips_in(out).keys() - {own.relative_to(out).as_posix()}


def test_a_clip_in_the_way(place, tmp_path):
    "A clip with the very name of a planned one is not replaced."
    out = tmp_path/"clips"
    printed(*prepare(place, out), code=0)
    first = next(out.rglob("stream_part1.pt"))
    twin = Path(str(first).replace("stream", "other"))
    twin.write_bytes(b"mine")
    assert "did not write" in printed(*prepare(place, out, "both", "--overwrite")) and twin.read_bytes() == b"mine"


def test_another_recording_is_added(place, tmp_path):
    "The clips that are there stay as they are; without a recording, they are in the way."
    out = tmp_path/"clips"
    printed(*prepare(place, out), code=0)
    first = clips_in(out)
    printed(*prepare(place, out, "both"), code=0)
    second = clips_in(out)
    assert first.items() < second.items() and listed(out) == second.keys()
    assert "clips of other recordings" in printed(*prepare(place, out))
    assert clips_in(out) == second


def test_a_folder_of_an_earlier_version(place, tmp_path):
    "Its note of recordings becomes a manifest of clips, and nothing is made again."
    out, recording = tmp_path/"clips", place/"stream.mka"
    printed(*prepare(place, out), code=0)
    made, config = clips_in(out), PrepareConfig(lengths=LENGTHS, negative_s=1.0)
    row = [recording.name, recording.stat().st_size, [[1.0, 2.0], [5.0, 6.0]], "arena"]
    settings = [str(choose_pair(recording)), str(config), str(FrontEnd())]
    (out/"manifest.json").unlink(missing_ok=True)
    (out/".prepared.json").write_text(json.dumps([row + settings]))
    assert "other recordings, labels or settings" in printed(*prepare(place, out, "stream", "--seed", 1))
    assert run(*prepare(place, out))[0] == 0 and clips_in(out) == made
    assert listed(out) == made.keys() and not (out/".prepared.json").exists()
