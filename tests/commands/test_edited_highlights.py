"A person edits highlights.csv: it is published as edited, kept by `detect`, and refused in one line where it is wrong."
import csv
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import opentimelineio
import pytest
from running import detect_rated, printed, run, write_rated

SECONDS, RATE_HZ = 60, 8000


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A recording, a model, and three highlights in `out/stream`."
    place = tmp_path_factory.mktemp("edited")
    write_rated(place, SECONDS, RATE_HZ)
    assert "3 highlights" in detect_rated(place, place/"out")
    return place


@pytest.fixture
def folder(place, tmp_path) -> Path:
    "A copy of the detection."
    return Path(shutil.copytree(place/"out"/"stream", tmp_path/"stream"))


def edit(folder: Path, change: Callable[[list[dict]], list[dict]]) -> bytes:
    "Change the rows of the table, in order of time, as a text editor would; return the new content."
    path = folder/"highlights.csv"
    rows = sorted(csv.DictReader(io.StringIO(path.read_text())), key=lambda row: float(row["start_s"]))
    names = list(rows[0])
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(change(rows))
    path.write_text(text.getvalue())
    return path.read_bytes()


def cuts(folder: Path) -> list[tuple[float, float]]:
    "Publish the timelines; return start and end of each cut, to a thirtieth of a second."
    code, _, complaint = run("publish", folder, "--timeline")
    assert code == 0, complaint
    track = opentimelineio.adapters.read_from_file(str(folder/"timelines"/"stream.otio")).tracks[0]
    spans = [clip.source_range for clip in track]
    return [(span.start_time.to_seconds(), span.end_time_exclusive().to_seconds()) for span in spans]


def found(folder: Path) -> list[tuple[float, float]]:
    "The clips of highlights.json, in order of time."
    highlights = json.loads((folder/"highlights.json").read_text())["highlights"]
    return sorted((one["clip_start_s"], one["clip_end_s"]) for one in highlights)


def assert_close(one: list[tuple[float, float]], other: list[tuple[float, float]]) -> None:
    np.testing.assert_allclose(np.array(one).reshape(-1, 2), np.array(other).reshape(-1, 2), atol=0.04)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_trimmed_a_deleted_and_an_added_row(folder):
    "The timeline has what the table says, and `publish` says what was changed; the table stays as it is."
    before = found(folder)
    length_s = before[0][1] - before[0][0]
    trimmed = before[0][0] + 0.4 * length_s, before[0][1] - 0.3 * length_s

    def change(rows: list[dict]) -> list[dict]:
        first = {**rows[0], "start_s": trimmed[0], "end_s": trimmed[1]}
        return [first, rows[2], {"start_s": 57, "end_s": 59.5}]

    content = edit(folder, change)
    code, out, complaint = run("publish", folder, "--timeline", "--chapters")
    assert code == 0 and "highlights.csv was edited: 2 of 3 highlights, 1 trimmed, 1 added" in out, complaint
    assert_close(cuts(folder), [trimmed, before[2], (57, 59.5)])
    assert (folder/"highlights.csv").read_bytes() == content and found(folder) == before
    assert (folder/"chapters"/"stream.chapters.txt").read_text().count("Highlight") == 3
    ranks = [line[-1] for line in (folder/"timelines"/"stream.edl").read_text().splitlines() if "COMMENT: rank" in line]
    assert ranks == ["4"] * 3  # "rank 4 of 4", not of 3


def test_times_of_the_clip(folder):
    "A changed time of the clip counts, and leaves the other end as it was found."
    before = found(folder)
    edit(folder, lambda rows: [{**rows[0], "clip_end_s": before[0][1] - 0.5}, *rows[1:]])
    assert_close(cuts(folder), [(before[0][0], before[0][1] - 0.5), *before[1:]])


def as_excel(text: str) -> bytes:  # in a country with decimal commas
    return ("\ufeff" + text.replace(",", ";").replace(".", ",").replace("\n", "\r\n") + ";;;;;;;\r\n").encode()


def as_tabs(text: str) -> bytes: return text.replace(",", "\t").encode("utf-16")


def turned(text: str) -> bytes:
    "Reverse the columns, write their names with capitals, and times as hours, minutes and seconds."
    rows = [line.split(",")[::-1] for line in text.splitlines()]
    clock = lambda time_s: f"{int(float(time_s)) // 3600}:{int(float(time_s)) // 60 % 60:02}:{float(time_s) % 60:06.3f}"
    place = [name.title() for name in rows[0]].index("Start_S")
    lines = [",".join(name.title() for name in rows[0])]
    lines += [",".join([*row[:place], clock(row[place]), *row[place + 1:]]) for row in rows[1:]]
    return "\n".join(lines).encode()


@pytest.mark.parametrize("save", [as_excel, as_tabs, turned])
def test_as_a_spreadsheet_saves_it(save, folder):
    "Other separators, decimal commas, another order of the columns: what was not changed is as it was found."
    before, path = found(folder), folder/"highlights.csv"
    lines = path.read_text().replace("stream.mka", "stream").splitlines()
    path.write_bytes(save("\n".join(lines) + "\n"))
    code, out, complaint = run("publish", folder, "--timeline")
    assert code == 0 and "edited" not in out, complaint
    path.write_bytes(save("\n".join([lines[0], *lines[2:]]) + "\n"))  # without the best
    code, out, complaint = run("publish", folder, "--timeline")
    assert code == 0 and "highlights.csv was edited: 2 of 3 highlights\n" in out, complaint
    best = json.loads((folder/"highlights.json").read_text())["highlights"][0]
    assert_close(cuts(folder), [times for times in before if times != (best["clip_start_s"], best["clip_end_s"])])


def test_a_row_behind_a_hash(folder):
    "It is a comment: its highlight is not published."
    before = found(folder)
    lines = (folder/"highlights.csv").read_text().splitlines()
    best = json.loads((folder/"highlights.json").read_text())["highlights"][0]
    (folder/"highlights.csv").write_text("\n".join(["# mine", lines[0], "#" + lines[1], *lines[2:], ""]))
    assert_close(cuts(folder), [times for times in before if times != (best["clip_start_s"], best["clip_end_s"])])


def test_everything_follows(folder):
    "Clips and the report, too: a card for each highlight of the table, also for one that the model did not choose."
    assert run("publish", folder, "--clips", "--report")[0] == 0
    clips = contents(folder/"clips")
    edit(folder, lambda rows: [rows[0], {"start_s": 33, "end_s": 36}])
    code, out, complaint = run("publish", folder, "--clips", "--report")
    assert code == 0 and "1 of 3 highlights, 1 added" in out, complaint
    now, page = contents(folder/"clips"), (folder/"report.html").read_text()
    assert len(now) == 2 and len(set(now) & set(clips)) == 1 and any(name.startswith("00h00m33s") for name in now)
    assert page.count("<article") == 2 and "highlights.csv was edited: 1 of 3 highlights, 1 added" in page


def test_no_row_is_left(folder):
    "Without rows nothing is published, and what was published before is removed."
    assert cuts(folder)
    edit(folder, lambda rows: [])
    code, out, _ = run("publish", folder)
    assert code == 0 and "no highlight was kept" in out and "0 of 3 highlights" in out
    assert not (folder/"timelines").exists() and not (folder/"clips").exists()


def test_detect_keeps_the_table(place, tmp_path):
    "`detect` writes what it finds now into highlights.json and says so; `publish` takes the table until it is removed."
    out = Path(shutil.copytree(place/"out", tmp_path/"out"))
    folder = out/"stream"
    content = edit(folder, lambda rows: [{**rows[1], "start_s": rows[1]["peak_s"]}, rows[2]])
    wanted = cuts(folder)
    said = detect_rated(place, out, "--top", 1)
    assert "highlights.csv was edited, so it is kept" in said and "--force" in said
    assert (folder/"highlights.csv").read_bytes() == content and len(found(folder)) == 1
    assert_close(cuts(folder), wanted)
    (folder/"highlights.csv").unlink()
    assert_close(cuts(folder), found(folder))
    assert "edited" not in detect_rated(place, out, "--top", 1) and (folder/"highlights.csv").exists()
    (folder/"highlights.csv").write_bytes(content)
    assert "edited" not in detect_rated(place, out, "--top", 3, "--force")
    assert (folder/"highlights.csv").read_bytes() == (place/"out"/"stream"/"highlights.csv").read_bytes()


@pytest.mark.parametrize(("text", "words"), [
    ("start_s,end_s\n20,30\n30,20\n", "line 3: found a highlight from 30 s to 20 s"),
    ("start_s,end_s\n50,75\n", "line 2: found a highlight from 50 s to 75 s"),
    ("start_s,end_s\n-5,20\n", "line 2: found a highlight from -5 s to 20 s"),
    ("start_s,end_s\nsoon,20\n", "line 2: found start_s 'soon'"),
    ("start_s,end_s\n3:53,4:01\n", "line 2: found start_s '3:53', expected seconds with a point (80.5) or hours"),
    ("start_s,end_s\n3:53,4:01\n", "; did you mean 0:03:53?\n"),
    ("start_s,end_s\n,20\n", "line 2: found start_s ''"),
    ("start_s,end_s,clip_start_s\n10,20,25\n", "line 2: found a clip from 25 s to 20 s"),
    ("start_s,stop\n10,20\n", "line 1: found the columns start_s, stop"),
    ("", "found nothing")])
def test_a_wrong_table(text, words, folder):
    "One line says where and what; nothing is written, removed or lost."
    assert cuts(folder)
    (folder/"highlights.csv").write_text(text)
    before = contents(folder)
    message = printed("publish", folder)
    assert "highlights.csv" in message and words in message
    assert contents(folder) == before
