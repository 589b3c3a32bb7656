"The model that comes with the package: `detect` uses it without `--model`, and everything says so."
import importlib.resources
import json
from pathlib import Path

import pytest
from running import printed, small_model, write_stream

from highlight_sense.starter import starter_path


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    "A detection without a model, and what was printed."
    place = tmp_path_factory.mktemp("first evening")
    stream = write_stream(place/"stream.mka", 12)
    out = printed("detect", stream, "-o", place/"out", "--top", 1, "--window", 8, "--device", "cpu", code=0)
    return place/"out"/"stream", out


def test_it_says_so_in_one_line(found):
    "The line says what the starter is, and what names another."
    said, = (line for line in found[1].splitlines() if line.startswith("model: "))
    assert "starter" in said and "--model" in said and "1 highlight in 0:12" in found[1]


def test_the_files_say_which_model(found):
    "highlights.json, the report and `info` repeat what the model says about itself."
    folder, _ = found
    checkpoint = json.loads((folder/"highlights.json").read_text())["checkpoint"]
    assert Path(checkpoint["path"]) == starter_path().resolve() and "starter" in checkpoint["about"]
    printed("publish", folder, "--report", code=0)
    assert f"starter.pt\n({checkpoint['about']})" in (folder/"report.html").read_text().replace("</bdi>", "")
    for place in (folder, starter_path()): assert checkpoint["about"] in printed("info", place, code=0)


def test_another_model_is_silent(found, tmp_path):
    "With `--model` nothing is said about the starter, and the scores are computed anew."
    folder, _ = found
    small = small_model(tmp_path/"m.pt")
    stream = folder.parent.parent/"stream.mka"
    words = "detect", stream, "-m", small, "-o", tmp_path/"out", "--top", 1, "--device", "cpu"
    assert "starter" not in printed(*words, code=0)
    checkpoint = json.loads((tmp_path/"out"/"stream"/"highlights.json").read_text())["checkpoint"]
    assert checkpoint["about"] is None


def test_a_package_without_it(found, tmp_path, monkeypatch):
    "A broken installation gets one line, which says what to do."
    monkeypatch.setattr(importlib.resources, "files", lambda name: tmp_path)
    line = printed("detect", found[0].parent.parent/"stream.mka", "-o", tmp_path/"out")
    assert f"{tmp_path/'starter.pt'}: found no starter model" in line and "install highlight-sense again" in line


def test_it_is_small_and_has_a_card():
    "At most 3 MB, and a card that says what it is made of."
    assert starter_path().stat().st_size <= 3e6
    card = starter_path().with_suffix(".md").read_text()
    assert "synthetic" in card.lower() and len(card.split()) > 50
