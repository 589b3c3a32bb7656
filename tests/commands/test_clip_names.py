"Names of clips after a template: fields, collisions, what is refused, and what happens to earlier names."
import os
import shutil
from datetime import datetime
from pathlib import Path

import pytest
from running import detect_rated, printed, run, write_rated


@pytest.fixture(scope="module")
def detected(tmp_path_factory) -> Path:
    "Three highlights of a recording of the thirtieth of November 2026."
    place = tmp_path_factory.mktemp("names")
    write_rated(place, 60, 8000)
    made = datetime(2026, 11, 30, 20, 15).timestamp()
    os.utime(place/"stream.mka", (made, made))
    detect_rated(place, place/"out")
    return place/"out"/"stream"


@pytest.fixture
def folder(detected, tmp_path) -> Path:
    "A copy of the detection."
    return Path(shutil.copytree(detected, tmp_path/"stream"))


def clips_in(folder: Path) -> dict[str, bytes]:
    "The contents of the clips, by their names."
    return {path.stem: path.read_bytes() for path in sorted((folder/"clips").iterdir())}


def publish(folder: Path, *options: str) -> str:
    "Publish clips, and return what is printed."
    code, said, complaint = run("publish", folder, "--clips", *options)
    assert code == 0, complaint
    return said


def test_fields(folder):
    "A clip is named by the day of its recording, its rank and its score; the same clips get other names at once."
    publish(folder)
    usual = clips_in(folder)
    said = publish(folder, "--name", "{date}_{rank}_{score}")
    named = clips_in(folder)
    scores = [name.rpartition("score")[2] for name in usual]
    assert "3 clips in clips/\n" in said and sorted(named.values()) == sorted(usual.values())
    assert [name.rpartition("_")[0] for name in named] == [f"2026-11-30_{rank}" for rank in (1, 2, 3)]
    assert sorted(name.rpartition("_")[2] for name in named) == sorted(scores)
    times = {path: path.stat().st_mtime_ns for path in (folder/"clips").iterdir()}
    publish(folder, "--name", "{date}_{rank}_{score}")
    assert {path: path.stat().st_mtime_ns for path in (folder/"clips").iterdir()} == times  # nothing is written twice
    publish(folder)
    assert clips_in(folder) == usual


def test_equal_names_are_numbered(folder):
    "A template without fields names all clips; what Windows forbids becomes an underscore."
    publish(folder, "--name", "Best: of?")
    assert list(clips_in(folder)) == ["Best_ of_", "Best_ of__2", "Best_ of__3"]
    publish(folder, "--name", "con.{rank}")
    assert list(clips_in(folder)) == ["_con.1", "_con.2", "_con.3"]


def test_a_file_of_the_users_stays(folder):
    "A clip whose name is taken fails with a warning; nothing of the user's is replaced."
    publish(folder)
    before = clips_in(folder)
    (folder/"clips"/"2.mka").write_bytes(b"mine")
    code, said, complaint = run("publish", folder, "--clips", "--name", "{rank}")
    assert code == 0 and "2 clips in clips/, 1 failed" in said and "clip 2: " in complaint
    after = clips_in(folder)  # the second keeps its earlier name
    assert after.pop("2") == b"mine" and {"1", "3"} < set(after) and len(after) == 3
    assert sorted(after.values()) == sorted(before.values())


@pytest.mark.parametrize("template", ["{date}_{rnak}", "{rank:03}", "{score", "{rank.real}", "{}", " . ", ""])
def test_what_is_refused(template, detected):
    "A template that gives no name is refused in one line, before anything is written."
    before = sorted(detected.rglob("*"))
    assert f"--name: found {template!r}, expected" in printed("publish", detected, "--clips", "--name", template)
    assert sorted(detected.rglob("*")) == before


def test_only_clips_have_names(detected):
    "A template is an error where no clips are asked for."
    said = printed("publish", detected, "--chapters", "--name", "{rank}")
    assert "--name: found chapters without clips, expected clips among the products; add --clips" in said
