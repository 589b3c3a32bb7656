"With --json, a command prints one document for programs, and nothing else on its output."
import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from running import run, write_clips, write_rated

from highlight_sense import audit, recordings
from highlight_sense import learn as learning
from highlight_sense.learn import Figures, Gain, Learned


def document(*words: object) -> dict:
    "Run a command; return its document, after a check that its output holds nothing else."
    code, out, complaint = run(*words, "--json")
    assert code == 0 and out.count("\n") == 1, complaint
    return json.loads(out, parse_constant=pytest.fail)  # NaN is no JSON


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A recording, and a model that rates its moments."
    place = tmp_path_factory.mktemp("json")
    write_rated(place, 20, 22_050)
    return place


def test_detect(place, tmp_path):
    "Each recording with its highlights, as in highlights.json; a second run says that it reused the scores."
    words = "detect", place/"stream.mka", "-m", place/"model.pt", "-o", tmp_path/"out", "--top", 2, "--window", 5
    found = document(*words, "--device", "cpu")
    stored = json.loads((tmp_path/"out"/"stream"/"highlights.json").read_text())
    recording, = found["recordings"]
    assert found["out"] == str(tmp_path/"out") and recording["folder"] == str(tmp_path/"out"/"stream")
    for name in ("highlights", "near_misses"):
        kept = [{key: value for key, value in one.items() if key != "window"} for one in stored[name]]
        assert recording[name] == kept
    assert len(recording["highlights"]) == 2 and not recording["reused"]
    assert document(*words, "--device", "cpu")["recordings"][0]["reused"]
    assert run(*words, "--json", "--review")[0] == 2


def test_detect_with_failures(place, tmp_path):
    "What was found is printed beside every reason why another recording failed, and the exit code says so."
    bad = [tmp_path/"a.mkv", tmp_path/"b.mkv"]
    for path in bad: path.write_bytes(b"no recording")
    words = "-m", place/"model.pt", "-o", tmp_path/"out", "--top", 2, "--window", 5, "--device", "cpu", "--json"
    code, out, complaint = run("detect", bad[0], place/"stream.mka", bad[1], *words)
    found = json.loads(out)
    assert code == 2 and out.count("\n") == 1 and "2 of 3 recordings failed" in complaint
    assert [one["recording"] for one in found["recordings"]] == ["stream.mka"]
    assert [reason.split(": ")[0] for reason in found["failed"]] == [str(path) for path in bad]


def test_info(place, tmp_path):
    "The names of the table, with values that keep their types."
    model = document("info", place/"model.pt")
    assert model["kind"] == "checkpoint" and model["model"]["rnn_hidden"] == 8 and model["threshold"] == 0.9
    assert model["front end"]["n_mels"] == 80 and model["calibration"] is None
    clips = write_clips(tmp_path/"clips", 2, 2)
    for file in (place/"stream.mka", clips, next(clips.rglob("*.pt"))): assert document("info", file)["kind"]
    table = run("info", place/"model.pt")[1]
    assert [line.split("  ")[0] for line in table.splitlines()] == list(model)


def test_learn(tmp_path, monkeypatch):
    "What was learned, before and after, and whether it may replace the model in use."
    figures = Figures(0.5, 0.4, 0.3, 0.35, float("nan"))
    gain = Gain(*[0.1] * len(Gain._fields))
    learned = Learned(tmp_path/"mine.pt", "starter", "the starter", {"keep": 3}, 1, 2.0, figures, figures, gain, 0.5)
    asked = {}

    def learn(*words: object, **named: object) -> Learned:
        asked.update(named)
        return learned

    monkeypatch.setattr(learning, "learn", learn)
    found = document("learn", tmp_path, "-o", tmp_path/"mine.pt")
    assert found["path"] == str(tmp_path/"mine.pt") and found["verdicts"] == {"keep": 3} and not asked["progress"]
    assert found["before"]["ap"] == 0.5 and found["after"]["false_alarms_per_hour"] is None and found["adopted"] is None
    assert found["gain"]["low"] == 0.1 and found["may_replace"] is True and found["sentence"]


def test_no_nan(place, monkeypatch):
    "A figure that is not defined is null, whichever command prints it."
    undefined = {"ap": float("nan"), "best_threshold": float("inf")}
    monkeypatch.setattr(recordings, "evaluate_recordings", lambda *words, **named: undefined)
    monkeypatch.setattr(audit, "audit", lambda *words, **named: SimpleNamespace(passed=True, record=lambda: undefined))
    expected = {"ap": None, "best_threshold": None}
    assert document("evaluate", place/"model.pt", place/"stream.mka", "--labels", place/"labels.csv") == expected
    assert document("audit", place/"model.pt", place) == expected
