"Highlights that follow one another become a streak with `--merge`: found, published, edited, and taken apart again."
import json
import re
import shutil
from itertools import pairwise
from pathlib import Path

import pandas as pd
import pytest
from running import printed, run, write_rated

SECONDS, RATE_HZ, LONGEST_S = 60, 8000, 4


def detect(place: Path, out: Path, *options: object) -> str:
    "Detect short highlights, as the options say; return what is printed."
    words = ("detect", "-m", place/"model.pt", place/"stream.mka", "-o", out,
             "--max-length", LONGEST_S, "--device", "cpu")
    return printed(*words, *options, code=0)


def highlights(folder: Path) -> list[dict]: return json.loads((folder/"highlights.json").read_text())["highlights"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A recording, a model, and its scores in `out/stream`."
    place = tmp_path_factory.mktemp("merging")
    write_rated(place, SECONDS, RATE_HZ)
    assert "streak of" not in detect(place, place/"out", "--top", 6)
    return place


@pytest.fixture(scope="module")
def joined(place) -> Path:
    "A copy, in which the best six are joined across pauses of six seconds."
    out = Path(shutil.copytree(place/"out", place/"joined"))
    pauses_s = sorted(highlights(out/"stream"), key=lambda one: one["start_s"])
    least = min(one["probability"] for one in pauses_s)
    said = detect(place, out, "--threshold", least - 1e-4, "--merge", 6)
    assert re.search(r"probability 0\.\d\d  streak of \d+\n", said), said
    return out/"stream"


def test_a_streak_is_found(joined):
    "It is longer than `--max-length`, its parts are not, and it is as probable as the best of them."
    streak = max(highlights(joined), key=lambda one: len(one["parts"]))
    parts = streak["parts"]
    assert streak["end_s"] - streak["start_s"] > LONGEST_S
    assert (parts[0]["start_s"], parts[-1]["end_s"]) == (streak["start_s"], streak["end_s"])
    assert streak["probability"] == max(part["probability"] for part in parts)
    assert all(part["end_s"] - part["start_s"] < LONGEST_S + 0.01 for part in parts)
    assert all(0 <= after["start_s"] - before["end_s"] <= 6 for before, after in pairwise(parts))
    table = pd.read_csv(joined/"highlights.csv")
    assert table.parts.tolist() == [len(one["parts"]) or 1 for one in highlights(joined)]


def test_the_same_moments_without_merging(place, joined, tmp_path):
    "Kept apart, they are what the streaks are made of; near misses inside a streak are none."
    out = shutil.copytree(place/"out", tmp_path/"out")
    record = json.loads((joined/"highlights.json").read_text())
    detect(place, out, "--threshold", record["settings"]["threshold"])
    alone = sorted((one["start_s"], one["end_s"]) for one in highlights(out/"stream"))
    parts = sorted((part["start_s"], part["end_s"]) for one in highlights(joined) for part in one["parts"] or [one])
    assert alone == parts and len(alone) > len(highlights(joined))
    for near in record["near_misses"]:
        assert all(near["end_s"] <= one["start_s"] or one["end_s"] <= near["start_s"] for one in highlights(joined))


def test_top_counts_a_streak_once(place, joined, tmp_path):
    "`--top 2 --merge 6` gives two clips, one of them a streak, if the best moments follow one another."
    out = shutil.copytree(place/"out", tmp_path/"out")
    assert "2 highlights" in detect(place, out, "--top", 2, "--merge", 3.5)
    assert len(highlights(out/"stream")) == 2
    assert "1 highlight " in detect(place, out, "--top", 2, "--merge", 60)  # everything is one streak


def test_a_streak_is_published(joined, tmp_path):
    "One clip shows all of it; timelines, chapters and the report say what it is."
    folder = Path(shutil.copytree(joined, tmp_path/"stream"))
    printed("publish", folder, code=0)
    streak = max(highlights(folder), key=lambda one: len(one["parts"]))
    words = f"streak of {len(streak['parts'])}"
    for name in ("timelines/stream.edl", "timelines/stream.otio", "chapters/stream.chapters.txt", "report.html"):
        assert words in (folder/name).read_text(), name
    page = " ".join((folder/"report.html").read_text().split())
    assert page.count("<article") == len(highlights(folder)) and "highlights at most 6 s apart" in page
    assert page.count('class="cap"') == sum(len(one["parts"]) or 1 for one in (
        *highlights(folder), *json.loads((folder/"highlights.json").read_text())["near_misses"]))


def test_products_of_streaks_are_outdated_without_them(place, joined, tmp_path):
    "`detect` says so when the same moments are kept apart, and nothing when nothing changed."
    out = tmp_path/"out"
    folder = Path(shutil.copytree(joined, out/"stream"))
    printed("publish", folder, "--chapters", code=0)
    threshold = json.loads((folder/"highlights.json").read_text())["settings"]["threshold"]
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "earlier choice" not in detect(place, out, "--threshold", threshold, "--merge", 6)
    assert before == {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert "chapters: from an earlier choice" in detect(place, out, "--threshold", threshold)


def test_a_streak_is_trimmed(place, joined, tmp_path):
    "A person who cuts a streak down to two parts, then to one, gets what is left of it."
    folder = Path(shutil.copytree(joined, tmp_path/"out"/"stream"))
    table = pd.read_csv(folder/"highlights.csv").sort_values("parts").tail(1)
    streak = max(highlights(folder), key=lambda one: len(one["parts"]))
    for count, words in ((2, ", streak of 2, "), (1, "Highlight 1, score ")):
        last = streak["parts"][count - 1]
        table.assign(end_s=last["end_s"] + 0.01, clip_end_s="").to_csv(folder/"highlights.csv", index=False)
        assert "1 trimmed" in printed("publish", folder, "--chapters", "--report", code=0)
        assert words in (folder/"chapters"/"stream.chapters.txt").read_text()
        page = (folder/"report.html").read_text()
        assert page.count("<article") == 1 and ("streak of" in page) == (count > 1)
    said = detect(place, tmp_path/"out", "--top", 1)
    assert "highlights.csv was edited, so it is kept" in said and len(pd.read_csv(folder/"highlights.csv")) == 1


def test_a_detection_from_before_streaks(place, tmp_path):
    "highlights.json without parts, and with the setting of that time, is published as it was."
    folder = Path(shutil.copytree(place/"out"/"stream", tmp_path/"stream"))
    record = json.loads((folder/"highlights.json").read_text())
    del record["checkpoint"]["about"]
    for one in (*record["highlights"], *record["near_misses"]): del one["parts"]
    record["settings"]["merge"] = 2.0
    (folder/"highlights.json").write_text(json.dumps(record))
    code, _, complaint = run("publish", folder, "--chapters", "--report")
    assert code == 0 and "streak" not in (folder/"chapters"/"stream.chapters.txt").read_text(), complaint
    assert "streak" not in re.sub("<style>.*</style>", "", (folder/"report.html").read_text(), flags=re.DOTALL)
