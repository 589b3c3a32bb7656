"`publish` makes what the user kept on the review page, in all its products."
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import numpy as np
import opentimelineio
import pytest
from running import detect_rated, printed, run, write_rated

from highlight_sense.picks import PICKS, Pick, save_pick

SECONDS, RATE_HZ = 60, 8000


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A recording, a model, and three highlights in `out/stream`."
    place = tmp_path_factory.mktemp("kept")
    write_rated(place, SECONDS, RATE_HZ)
    assert "3 highlights" in detect_rated(place, place/"out")
    return place


@pytest.fixture
def folder(place, tmp_path) -> Path:
    "A copy of the detection."
    return Path(shutil.copytree(place/"out"/"stream", tmp_path/"stream"))


def decide(folder: Path, rank: int, verdict: str, later_s: float = 0.0) -> Pick:
    "Pass a verdict on the highlight with this rank, which starts so much later."
    one = json.loads((folder/"highlights.json").read_text())["highlights"][rank - 1]
    found = one["start_s"], one["end_s"]
    return save_pick(folder/PICKS, Pick("stream", found[0] + later_s, found[1], verdict, *found, one["probability"]))


def cuts(folder: Path) -> list[tuple[float, float]]:
    "Start and end of each cut in the published timeline."
    track = opentimelineio.adapters.read_from_file(str(folder/"timelines"/"stream.otio")).tracks[0]
    spans = [clip.source_range for clip in track]
    return [(span.start_time.to_seconds(), span.end_time_exclusive().to_seconds()) for span in spans]


def with_context(*moments: tuple[float, float]) -> list[tuple[float, float]]:
    "Three seconds before a moment, two after it, and half of the pause between two that are closer."
    ordered = sorted(moments)
    ends = [0.0, *((one[1] + other[0]) / 2 for one, other in pairwise(ordered)), float(SECONDS)]
    return [(max(ends[place], start_s - 3), min(ends[place + 1], end_s + 2))
            for place, (start_s, end_s) in enumerate(ordered)]


def test_everything_follows(folder):
    "Kept ones as trimmed and an added one, with their context, in all products; what was dropped is gone."
    assert run("publish", folder, "--clips")[0] == 0
    trimmed, _ = decide(folder, 1, "keep", 0.5), decide(folder, 2, "drop")
    one = json.loads((folder/"highlights.json").read_text())["highlights"]
    free_s = next(start_s for start_s in range(2, SECONDS) if all(
        start_s + 2 < each["start_s"] or each["end_s"] < start_s for each in one))
    save_pick(folder/PICKS, Pick("stream.mka", free_s, free_s + 2, "missed"))
    code, said, complaint = run("publish", folder)
    assert code == 0, complaint
    assert "picks.csv: 1 kept, 1 added, 1 dropped; 1 of 3 highlights was not looked at" in said
    expected = with_context((trimmed.start_s, trimmed.end_s), (free_s, free_s + 2))
    np.testing.assert_allclose(cuts(folder), expected, atol=0.04)
    assert len(list((folder/"clips").iterdir())) == 2
    assert (folder/"chapters"/"stream.chapters.txt").read_text().count("Highlight") == 2
    page = (folder/"report.html").read_text()
    assert page.count("<article") == 2 and "1 kept, 1 added, 1 dropped; 1 of 3 highlights was not looked at" in page
    assert run("info", folder)[1].splitlines()[-1].split(maxsplit=1) == ["decided", "1 kept, 1 added, 1 dropped"]


def test_ranks_follow_the_probability(folder):
    "What was added has ranks after what was found, and in the order in which the report shows it: the best first."
    for start_s in range(2, SECONDS - 4, 8): save_pick(folder/PICKS, Pick("stream.mka", start_s, start_s + 3, "missed"))
    assert run("publish", folder, "--report")[0] == 0
    ranks = [int(rank) for rank in re.findall(r"(\d+)\. 0:\d\d to 0:\d\d", (folder/"report.html").read_text())]
    added = [rank for rank in ranks if rank > 3]  # three were found
    assert len(added) > 3 and added == sorted(added), ranks


def test_nothing_kept(folder):
    "If everything was dropped, what was published before is removed."
    assert run("publish", folder, "--timeline")[0] == 0
    decide(folder, 3, "drop")
    code, said, _ = run("publish", folder)
    assert code == 0 and "no highlight was kept" in said and "2 of 3 highlights were not looked at" in said
    assert not (folder/"timelines").exists() and not (folder/"clips").exists()


def test_decisions_and_an_edited_table(folder):
    "It does not guess which of the two counts; a table that a spreadsheet only saved again does not matter."
    pick, table = decide(folder, 1, "keep"), folder/"highlights.csv"
    text = table.read_text()
    table.write_text("\n".join(text.splitlines()[:-1]) + "\n")
    message = printed("publish", folder)
    assert "found verdicts in picks.csv and changes in highlights.csv" in message
    assert "remove highlights.csv to publish what was kept" in message
    table.write_text(text.replace(",", ";"))
    assert run("publish", folder, "--timeline")[0] == 0 and len(cuts(folder)) == 1
    (folder/PICKS).rename(folder/"mine.csv")
    assert run("publish", folder, "--timeline")[0] == 0 and len(cuts(folder)) == 3
    assert pick.verdict == "keep"


def test_detect_again(place, tmp_path):
    "Another detection leaves the verdicts, and says that they count."
    out = Path(shutil.copytree(place/"out", tmp_path/"out"))
    trimmed = decide(out/"stream", 2, "keep", 0.5)
    content = (out/"stream"/PICKS).read_bytes()
    assert "picks.csv: 1 kept; `publish` uses what was kept" in detect_rated(place, out, "--top", 1)
    assert (out/"stream"/PICKS).read_bytes() == content
    code, said, _ = run("publish", out, "--timeline")
    assert code == 0 and "1 of 1 highlights was not looked at" in said
    np.testing.assert_allclose(cuts(out/"stream"), with_context((trimmed.start_s, trimmed.end_s)), atol=0.04)


def test_as_labels(place, folder, tmp_path):
    "`prepare` reads the table: what was kept is a positive, what was dropped is not."
    decide(folder, 1, "keep"), decide(folder, 2, "drop"), decide(folder, 3, "unsure")
    code, said, complaint = run("prepare", place/"stream.mka", "--labels", folder/PICKS, "-o", tmp_path/"clips")
    assert code == 0 and "1 positive and" in said, complaint


def test_an_unreadable_table(place, folder, tmp_path):
    "It is one line, nothing is published or lost, and `detect` does its work."
    (folder/PICKS).write_text("keep\n")
    assert "picks.csv: line 1: found keep where the names" in printed("publish", folder)
    assert not (folder/"clips").exists()
    out = Path(shutil.copytree(folder.parent, tmp_path/"out"))
    assert "1 highlight" in detect_rated(place, out, "--top", 1) and (folder/PICKS).read_text() == "keep\n"
