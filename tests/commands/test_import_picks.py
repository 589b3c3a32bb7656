"Marks from other programs become picks: every kind of source, recognised by its content, in the right recording."
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from running import printed, rating_model, run, uneven_noise, write_rated

from highlight_sense.detections import RankedHighlight, read_detection
from highlight_sense.media import audio_frame, write_recording
from highlight_sense.picks import PICKS, Pick, read_picks, save_pick

SECONDS, RATE_HZ = 60, 8000
CHAPTERS_S = (0.0, 21.5, 58.0)


def write_chapters(path: Path) -> None:
    "Write two tracks of uneven noise, with chapters as OBS writes them: one at the start, and one for each press."
    starts_ms = [round(1000 * start_s) for start_s in CHAPTERS_S]
    chapters = [
        {"id": number, "start": start, "end": end, "time_base": Fraction(1, 1000), "metadata": {"title": title}}
        for number, (start, end, title) in enumerate(zip(
            starts_ms, [*starts_ms[1:], 1000 * SECONDS], ("Start", "Unnamed 1", "Unnamed 2")))]
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("aac" if path.suffix == ".mp4" else "flac", rate=RATE_HZ, layout="mono")
                   for _ in range(2)]
        container.set_chapters(chapters)
        for stream, samples in zip(streams, uneven_noise(SECONDS, RATE_HZ)):
            samples = samples if path.suffix == ".mp4" else samples[::-1]
            container.mux(stream.encode(audio_frame(samples, 0, RATE_HZ)))
            container.mux(stream.encode(None))


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "Two recordings, a model, and three highlights of each in `out`."
    place = tmp_path_factory.mktemp("marks")
    rating_model(place/"model.pt")
    (place/"recordings").mkdir()
    for name in ("evening v42.mp4", "monday.mkv"): write_chapters(place/"recordings"/name)
    code, _, complaint = run("detect", "-m", place/"model.pt", place/"recordings", "-o", place/"out", "--top", 3,
                             "--max-length", 8, "--device", "cpu")
    assert code == 0, complaint
    return place


@pytest.fixture
def out(place, tmp_path) -> Path:
    "A copy of the detections."
    return Path(shutil.copytree(place/"out", tmp_path/"out"))


def best(folder: Path) -> RankedHighlight: return read_detection(folder).highlights[0]


def times(folder: Path) -> list[tuple[float, float]]:
    return [(round(pick.start_s, 2), round(pick.end_s, 2)) for pick in read_picks(folder/PICKS)]


SOURCES = {
    "markers of Twitch": "0:00:07,Broadcaster,NightOwl,\n0:00:40,Moderator,helper,\"ha, again\"\n",
    "with a header": "Timestamp,Role,User,Description\n0:00:07,Broadcaster,NightOwl,\n0:00:40,Editor,ann,x\n",
    "labels of Audacity": "7.000000\t7.000000\t\n\\\t100.0\t200.0\n40.000000\t40.000000\tha\n",
    "an EDL of Resolve": "TITLE: Timeline 1\nFCM: NON-DROP FRAME\n\n"
        "001  001      V     C        01:00:07:00 01:00:07:01 01:00:07:00 01:00:07:01\n |C:ResolveColorBlue |M:a |D:1\n"
        "\n002  001      V     C        01:00:40:00 01:00:40:01 01:00:40:00 01:00:40:01\nha |C:ResolveRed |M:b |D:1\n",
    "locators": "TITLE: x\nFCM: NON-DROP FRAME\n* LOC: 00:00:07:00 RED     \n* LOC: 00:00:40:00 GREEN   ha\n"}


@pytest.mark.parametrize("source", SOURCES)
def test_points(source, out, tmp_path):
    "Two points, at 7 s and at 40 s, stand for what the model found before them, or else for the seconds before."
    path = tmp_path/"download"
    path.write_text(SOURCES[source], encoding="utf-8-sig" if "Twitch" in source else "utf-8")
    code, said, complaint = run("picks", "import", path, "--to", out/"monday", "--length", 4)
    assert code == 0 and "2 new from download" in said, complaint
    record = read_detection(out/"monday")
    for pick, at_s in zip(read_picks(out/"monday"/PICKS), (7, 40)):
        before = [one for one in (*record.highlights, *record.near_misses)
                  if one.start_s < at_s and one.end_s > at_s - 4]
        found = max(before, key=lambda one: one.probability, default=None)
        assert (pick.start_s, pick.end_s) == ((found.start_s, found.end_s) if found else (at_s - 4, at_s))
        assert pick.verdict == "keep" and pick.found_start_s == (found and found.start_s)
        assert pick.probability == (found and found.probability)


def test_clips_of_twitch(out, tmp_path):
    "The number of the video is in the name of the recording; clips of other videos and of deleted ones are left out."
    one = next(one for one in read_detection(out/"evening v42").highlights if one.end_s < 45)
    rows = [f"A1,\"ace, again\",2026-11-28,{one.end_s - one.start_s},42,{one.start_s}", "B2,cat,2026-11-28,30,,",
            "C3,dog,2026-11-27,30,41,3", "D4,end,2026-11-28,30,42,50"]
    path = tmp_path/"clips.csv"
    path.write_text("\n".join(["ID,title,createdAt,duration,VodID,VodOffset", *rows]) + "\n")
    code, said, complaint = run("picks", "import", path, "--to", out)
    assert code == 0 and "2 new" in said and "found 1 of 4 clips without an offset" in complaint
    assert "found 1 of 3 marks of other recordings (video 41)" in complaint
    picks = read_picks(out/"evening v42"/PICKS)
    assert len(picks) == 2 and picks[0].found_start_s == one.start_s and not (out/"monday"/PICKS).exists()
    assert picks[0].model == read_detection(out/"evening v42").checkpoint.sha256[:12]
    assert picks[1].end_s == read_detection(out/"evening v42").recording.duration_s


@pytest.mark.parametrize("name", ["evening v42.mp4", "monday.mkv"])
def test_chapters(name, place, out):
    "A press of the hotkey is a mark; the chapter at the start is not."
    code, said, complaint = run("picks", "import", place/"recordings"/name, "--to", out)
    assert code == 0 and f"2 new from {name}" in said, complaint
    assert len(times(out/Path(name).stem)) == 2 and len(list(out.glob("*/picks.csv"))) == 1


def test_our_own_cuts(out):
    "An imported timeline of a detection keeps what it shows, to within a frame."
    assert run("publish", out/"monday", "--timeline")[0] == 0
    expected = sorted((one.clip_start_s, one.clip_end_s) for one in read_detection(out/"monday").highlights)
    code, said, complaint = run("picks", "import", out/"monday"/"timelines"/"monday.edl", "--to", out)
    assert code == 0 and "3 new from monday.edl, 3 of them found by the model" in said, complaint
    for found, wanted in zip(sorted(times(out/"monday")), expected): assert found == pytest.approx(wanted, abs=0.05)


def test_finished_clips(out, tmp_path):
    "Clips without times are located by their sound, and others are left out."
    cut = tmp_path/"cut"
    cut.mkdir()
    mixed = uneven_noise(SECONDS, RATE_HZ).sum(axis=0)[::-1] / 2
    for name, start_s in (("ace", 8), ("cat", 33)):
        write_recording(cut/f"{name}.mka", {"Mix": mixed[start_s * RATE_HZ:(start_s + 14) * RATE_HZ]}, RATE_HZ)
    write_recording(cut/"elsewhere.mka", {"Mic": np.random.default_rng(9).normal(0, 0.1, 14 * RATE_HZ)}, RATE_HZ)
    code, said, complaint = run("picks", "import", cut, "--to", out)
    assert code == 0 and "2 new from cut" in said and "(elsewhere.mka)" in complaint
    for found, wanted in zip(times(out/"monday"), [(8, 22), (33, 47)]): assert found == pytest.approx(wanted, abs=0.1)
    assert not (out/"evening v42"/PICKS).exists()


def test_names(out, tmp_path):
    "A table names its recordings; the labels of Audacity are named after theirs."
    rows = "recording;start_s;end_s\nMonday;1,5;3\nevening v42.mp4;0:00:52;55\nfriday;1;2\n"
    (tmp_path/"labels.csv").write_text(rows)
    (tmp_path/"monday.txt").write_text("33.5\t36\tha\n")
    code, _, complaint = run("picks", "import", tmp_path/"labels.csv", tmp_path/"monday.txt", "--to", out)
    assert code == 0 and "(friday)" in complaint
    assert times(out/"monday") == [(1.5, 3), (33.5, 36)] and times(out/"evening v42") == [(52, 55)]


def test_shift(out, tmp_path):
    "The stream started 20 s before the recording: its times are shifted, and what is outside is left out."
    (tmp_path/"a.txt").write_text("5\t9\t\n18\t24\t\n25\t27.5\t\n")
    code, _, complaint = run("picks", "import", tmp_path/"a.txt", "--to", out/"monday", "--shift", -20)
    assert code == 0 and "found 1 of 3 marks outside monday.mkv" in complaint
    assert times(out/"monday") == [(0, 4), (5, 7.5)]


def test_decided_before(out, tmp_path):
    "A verdict of the review page stays, and a second import adds nothing; `publish` takes all of it."
    one = best(out/"monday")
    save_pick(out/"monday"/PICKS, Pick("monday.mkv", one.start_s, one.end_s, "drop", one.start_s, one.end_s))
    (tmp_path/"a.txt").write_text(f"{one.start_s}\t{one.end_s}\t\n0.5\t1.5\t\n")
    for new, before in ((1, 1), (0, 2)):
        code, said, _ = run("picks", "import", tmp_path/"a.txt", "--to", out/"monday")
        assert code == 0 and f"{new} new from a.txt" in said and f"{before} repeated or judged before" in said
    assert [pick.verdict for pick in read_picks(out/"monday"/PICKS)] == ["drop", "keep"]
    assert "picks.csv: 1 kept, 1 dropped" in run("publish", out/"monday", "--chapters")[1]


@pytest.mark.parametrize(("text", "words"), [
    ("0:01:00 laugh\n", "found a text that is none of these, expected markers or clips of Twitch"),
    ("1.0\t2.0\t\n", "found marks that fit 2 recordings"),
    ("recording,start_s,end_s\nfriday,1,2\n", "found 1 of 1 marks of other recordings (friday)"),
    ("recording,start_s,end_s\nmonday,2,1\n", "line 2: found a moment from 2 s to 1 s"),
    ("recording,start_s,end_s\nmonday,1:10,2\n", "line 2: found start_s '1:10', expected seconds"),
    ("id,creator_name,duration\na,b,30\n", "found a list of clips without their places in a video"),
    ("TITLE: x\nFCM: NON-DROP FRAME\n", "found no mark")])
def test_wrong_sources(text, words, out, tmp_path):
    "One line says what is wrong, and nothing is written."
    (tmp_path/"source").write_text(text)
    assert words in printed("picks", "import", tmp_path/"source", "--to", out)
    assert not list(out.glob("*/picks.csv"))


def test_wrong_usage(place, out, tmp_path):
    "No source, a file that is not there, a recording that was not searched, a folder without detections."
    write_rated(tmp_path, 2, RATE_HZ)
    for words in (("--to", out), (tmp_path/"none.csv", "--to", out), (tmp_path/"stream.mka", "--to", out),
                  (place/"recordings"/"monday.mkv", "--to", place/"recordings")):
        printed("picks", "import", *words)
    assert "above 0" in printed("picks", "import", tmp_path/"stream.mka", "--to", out, "--length", 0)
