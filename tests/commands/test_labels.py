"""Tables of labels as people type them and spreadsheets save them.

Each table is given to `prepare`; where the highlights are is read from the clips, where training reads it.
"""
import unicodedata
from pathlib import Path

import numpy as np
import pytest
import torch
from running import printed, run, small_model

from highlight_sense.files import InputError
from highlight_sense.labels import read_labels
from highlight_sense.media import write_recording

HEADER = "recording,start_s,end_s\n"
MONDAY = {"monday.mkv": [(5.25, 6.5)]}
CLIPS = ("--negative-s", 1, "--lengths", 65, 86, 1)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    "A folder with three recordings of twenty seconds; one name has a letter with two Unicode forms."
    place = tmp_path_factory.mktemp("labels")/"streams"
    place.mkdir()
    noise = np.random.default_rng(0).normal(0, 0.1, 20 * 8000).astype(np.float32)
    for name in ("monday", "tuesday", unicodedata.normalize("NFC", "übung")):
        write_recording(place/f"{name}.mkv", {"Mic": noise, "Game": noise}, 8000)
    small_model(place.parent/"model.pt")
    return place


def prepare(recordings: Path, out: Path, table: str | bytes, *more: object) -> tuple:
    "The words that cut the recordings into clips by a table."
    (out/"labels.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
    return "prepare", recordings, "--labels", out/"labels.csv", "-o", out/"clips", *CLIPS, *more


def labelled(clips: Path) -> dict[str, list[tuple[float, float]]]:
    "Where the highlights of each recording are, by its clips; [] for one with negatives only."
    found = {}
    for path in sorted(clips.glob("*tive/*/*.pt")):
        clip = torch.load(path, weights_only=True)
        times = [tuple(round(clip["start_s"] + time_s, 6) for time_s in one) for one in clip["highlights_s"]]
        found[clip["recording"]] = found.get(clip["recording"], []) + times
    return found


SPREADSHEETS = {
    "blanks in the header": "recording, start_s, end_s\nmonday.mkv, 5.25, 6.5\n",
    "capitals": "Recording,Start_S,END_S\nmonday.mkv,5.25,6.5\n",
    "empty rows": HEADER + "\nmonday.mkv,5.25,6.5\n,,\n,,\n",
    "filled up": "recording,start_s,end_s,,\nmonday.mkv,5.25,6.5,,\n",
    "semicolons": "recording;start_s;end_s\nmonday.mkv;5,25;6,5\n",
    "semicolons and points": "recording;start_s;end_s\nmonday.mkv;5.25;6.5\n",
    "its separator": "sep=;\nrecording;start_s;end_s\nmonday.mkv;5,25;6,5\n",
    "tabs": "recording\tstart_s\tend_s\nmonday.mkv\t5.25\t6.5\n",
    "CSV UTF-8": (HEADER + "monday.mkv,5.25,6.5\n").encode("utf-8-sig"),
    "Unicode text": "recording\tstart_s\tend_s\r\nmonday.mkv\t5,25\t6,5\r\n".encode("utf-16"),
    "line ends of a Mac": HEADER.replace("\n", "\r") + "monday.mkv,5.25,6.5\r",
    "hours": HEADER + "monday.mkv,0:00:05.25,00:00:06.500\n",
    "one-digit seconds": HEADER + "monday.mkv,0:0:5.25,0:00:6.5\n",
    "comments": "# mine, \"all\n" + HEADER + "#monday.mkv,1,2\nmonday.mkv,5.25,6.5\n # tuesday,1,2\n",
    "capitals of another system": HEADER + "Monday.MKV,5.25,6.5\n",
    "capitals without an extension": HEADER + "MONDAY,5.25,6.5\n",
    "capitals in a full path": HEADER + "c:\\videos\\MONDAY.MKV,5.25,6.5\nC:\\Videos\\Monday.mkv,5.25,6.5\n",
    "a path": HEADER + "streams/monday.mkv,5.25,6.5\n",
    "a path from here": HEADER + "./streams/monday,5.25,6.5\n",
    "a path from the folder beside": HEADER + "../streams/monday.mkv,5.25,6.5\n",
    "a path of Windows": HEADER + "streams\\monday.mkv,5.25,6.5\n",
    "a path from home": HEADER + "~/Videos/monday.mkv,5.25,6.5\n",
    "a full path of Windows": HEADER + "C:\\Users\\me\\Videos\\monday.mkv,5.25,6.5\n"}


@pytest.mark.parametrize("table", SPREADSHEETS.values(), ids=SPREADSHEETS)
def test_a_table_is_read(recordings, tmp_path, table):
    "The same two times, whatever a person or a spreadsheet makes of the table."
    printed(*prepare(recordings, tmp_path, table), code=0)
    assert labelled(tmp_path/"clips") == MONDAY


@pytest.mark.parametrize("form", ["NFC", "NFD"])
def test_unicode_forms(recordings, tmp_path, form):
    "A name that macOS composes of other characters means the same recording."
    name = unicodedata.normalize("NFC", "übung.mkv")
    printed(*prepare(recordings, tmp_path, HEADER + unicodedata.normalize(form, f"{name},5.25,6.5\n")), code=0)
    assert labelled(tmp_path/"clips") == {name: [(5.25, 6.5)]}


@pytest.mark.parametrize(("table", "message"), [
    (HEADER + "monday.mkv,5,12,9,5\n", "labels.csv: line 2: found 5 values, expected 3 (recording, start_s, end_s)"),
    ("recording,start_s,end_s,,\nmonday.mkv,5,12,9,5\n", "line 2: found 5 values, expected 3"),
    (HEADER + 'monday.mkv,5,"12,5"\n', "line 2: found end_s '12,5', expected seconds with a point (80.5)"),
    (HEADER + "monday.mkv,0:05,0:12\n", "line 2: found start_s '0:05', expected seconds with a point (80.5) or hours"),
    (HEADER + "monday.mkv,3:53,3:59\n", "or hours:minutes:seconds (0:01:20.5); did you mean 0:03:53?\n"),
    (HEADER + "monday.mkv,1,75:4.5\n", "line 2: found end_s '75:4.5', expected seconds with a point (80.5) or"),
    (HEADER + "monday.mkv,1,75:4.5\n", "; did you mean 1:15:04.5?\n"),
    (HEADER + "monday.mkv,1,3:75\n", "; correct the line\n"),
    ("recording\tstart_s\tend_s\nmonday.mkv\t1,250\t2,5\n", "line 2: found start_s '1,250', expected seconds with"),
    ("monday.mkv,5,12\n", "line 1: found monday.mkv, 5, 12 where the names of the columns should be"),
    ("recording;start;end_s\nmonday.mkv;5;12\n", "line 1: found the columns recording, start, end_s, expected"),
    (HEADER + "monday.mkv,5\n", "line 2: found end_s ''"),
    (HEADER + 'monday.mkv,5,"12\n', "labels.csv: found no table (unexpected end of data)"),
    ((HEADER + "übung.mkv,5,12\n").encode("latin-1"), "labels.csv: found bytes that are not UTF-8"),
    (HEADER + "sunday.mkv,5,12\n", "line 2: found the recording 'sunday.mkv', expected one of the 3 given")])
def test_a_table_in_doubt(recordings, tmp_path, table, message):
    "A table that could mean something else is refused, with the line and the remedy."
    assert message in printed(*prepare(recordings, tmp_path, table))


def test_a_table_for_more_recordings(recordings, tmp_path):
    "Rows of recordings that are not given are counted."
    table = HEADER + "sunday.mkv,1,2\nmonday.mkv,5.25,6.5\nsunday.mkv,3,4\ntuesday.mkv,,\nübung,,\n"
    code, _, errors = run(*prepare(recordings, tmp_path, table))
    assert code == 0 and labelled(tmp_path/"clips")["monday.mkv"] == MONDAY["monday.mkv"]
    assert "labels.csv: found 2 rows of other recordings (sunday.mkv), expected one of the 3 given" in errors


def test_a_path_of_another_recording(recordings, tmp_path):
    "A label of `saturday/monday.mkv` is not one of `streams/monday.mkv`."
    table = HEADER + "streams/monday.mkv,5.25,6.5\nsaturday/monday.mkv,1,2\nD:\\saturday\\monday.mkv,1,2\n"
    code, _, errors = run(*prepare(recordings, tmp_path, table))
    assert code == 0 and labelled(tmp_path/"clips") == MONDAY
    assert "found 2 rows of other recordings" in errors


def test_names_that_differ_in_case(tmp_path):
    "Where there is a choice, case decides, or the line is refused; a name that begins with # follows an apostrophe."
    names = "monday.mkv", "MONDAY.mkv", "#1.mkv"
    noise = np.random.default_rng(0).normal(0, 0.1, 8 * 8000).astype(np.float32)
    for number, name in enumerate(names):  # a disk on which case makes no difference would keep one of two
        (tmp_path/str(number)).mkdir()
        write_recording(tmp_path/str(number)/name, {"Mic": noise, "Game": noise}, 8000)
    paths, table = [tmp_path/str(number)/name for number, name in enumerate(names)], tmp_path/"labels.csv"
    table.write_text(HEADER + "MONDAY.mkv,3,4\nmonday,1,2\n'#1.mkv,5,6\n\"#1.mkv\",6,7\n")
    assert read_labels(table, paths) == dict(zip(paths, ([(1, 2)], [(3, 4)], [(5, 6), (6, 7)])))
    table.write_text(HEADER + "Monday,3,4\n")
    with pytest.raises(InputError, match="line 2: found the recording 'Monday' 2 times"): read_labels(table, paths)


def test_whole_minutes(recordings, tmp_path):
    "Minutes and seconds that a spreadsheet has turned into hours and minutes are pointed out."
    table = HEADER + "monday.mkv,0:00:00,0:05:00\n"
    code, _, errors = run(*prepare(recordings, tmp_path, table))
    assert code == 2 and "found whole minutes only, such as 0:00:00" in errors
    assert "found a label that ends at 300.000 s" in errors


@pytest.mark.parametrize(("rows", "options", "expected"), [
    ("", (), {}),
    ("tuesday.mkv,,\n", (), {"tuesday.mkv": []}),
    ("", ("--unlabelled", "negative"), {"tuesday.mkv": [], "übung.mkv": []})])
def test_recordings_without_a_row(recordings, tmp_path, rows, options, expected):
    "They are left out, unless a row without times or an option says that they hold no highlights."
    words = prepare(recordings, tmp_path, HEADER + "monday.mkv,5.25,6.5\n" + rows, "--quiet-s", 10, *options)
    code, _, errors = run(*words)
    names = {unicodedata.normalize("NFC", name): times for name, times in expected.items()}
    assert code == 0 and labelled(tmp_path/"clips") == MONDAY | names
    missing = "found no row for 1 of" if rows else "found no row for 2 of"
    assert missing in errors and ("left out" in errors) != bool(options)


def test_evaluate_leaves_them_out(recordings, tmp_path):
    "What is found in a recording without a row is no false alarm."
    (tmp_path/"labels.csv").write_text(HEADER + "monday.mkv,5.25,6.5\n")
    words = "evaluate", recordings.parent/"model.pt", recordings, "--labels", tmp_path/"labels.csv"
    code, _, errors = run(*words, "-o", tmp_path/"out")
    assert code == 0 and "found no row for 2 of the recordings" in errors
    assert {path.name for path in (tmp_path/"out").iterdir() if path.is_dir()} == {"monday"}


def test_a_single_mix(recordings, tmp_path):
    "A recording with a single track is prepared and measured as it is detected: with one warning, and none on request."
    noise = np.random.default_rng(0).normal(0, 0.1, 20 * 8000).astype(np.float32)
    write_recording(tmp_path/"mix.mka", {"Mix": noise}, 8000)
    (tmp_path/"labels.csv").write_text(HEADER + "mix,5.25,6.5\n")
    table = "--labels", tmp_path/"labels.csv"
    for words in (("evaluate", recordings.parent/"model.pt", tmp_path/"mix.mka", *table),
                  ("prepare", tmp_path/"mix.mka", *table, "-o", tmp_path/"clips", *CLIPS)):
        assert printed(*words, code=0).count("highlights in a mix are found less reliably") == 1
        assert "warning" not in printed(*words, "--separate", "none", code=0)
    mels = [torch.load(path, weights_only=True)["tensor"] for path in (tmp_path/"clips").rglob("*.pt")]
    assert mels and all(torch.equal(*mel) for mel in mels)


def test_game_is_a_track(recordings, tmp_path):
    "`--game` names a track, as in `detect`; `--game-name` names the game."
    table = HEADER + "monday.mkv,5.25,6.5\n"
    words = prepare(recordings, tmp_path, table, "--mic", "a:1", "--game", "a:0", "--game-name", "Freedoom")
    printed(*words, code=0)
    assert {path.parent.name for path in (tmp_path/"clips").rglob("*.pt")} == {"Freedoom"}
    code, _, errors = run(*prepare(recordings, tmp_path, table, "--game", "Freedoom"))
    assert code == 2 and "found no audio track 'Freedoom'" in errors
