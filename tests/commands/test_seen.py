"""`evaluate` says when it measures a checkpoint on what it was trained on."""
import shutil
from pathlib import Path

import pandas as pd
import pytest
from running import TRAINING, run, small_model, write_clips, write_stream

from highlight_sense.files import InputError

LABELS = "recording,start_s,end_s\n{name},1,2\n"


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    "A run on clips of stream0 and stream1, with a small model instead of the one that training would end with."
    place = tmp_path_factory.mktemp("seen")
    write_clips(place/"clips", 8, 8)

    def stop(*arguments: object) -> None: raise InputError("found a test, expected none; stop here")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("highlight_sense.run.fit", stop)
        _, _, errors = run("train", place/"clips", "-o", place/"run", *TRAINING)
    assert "stop here" in errors, errors
    small_model(place/"run"/"best.pt")
    return place


def evaluated(*words: object) -> str:
    "The error stream of an evaluation."
    code, _, errors = run("evaluate", *words, "--json")
    assert code == 0, errors
    return errors


def test_its_own_clips(trained, tmp_path):
    "They are known by their log-mels, wherever they are; other clips of the same streams by name."
    best = trained/"run"/"best.pt"
    message = "found 16 of 16 clips that it was trained or validated on, expected others; the figures flatter it"
    for name in ("Positive", "Negative"):
        for path in sorted((trained/"clips"/name/"game").iterdir()):
            target = tmp_path/"renamed"/name/"game"/f"new-{path.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    for clips in (trained/"clips", tmp_path/"renamed"):
        assert message in evaluated(best, clips, "--workers", 0)
    longer = write_clips(tmp_path/"longer", 4, 4, frames=70)
    said = evaluated(best, longer, "--workers", 0)
    assert "found clips of recordings (stream0) with names that it was trained" in said
    shutil.copy(best, tmp_path/"moved.pt")
    assert "trained" not in evaluated(tmp_path/"moved.pt", trained/"clips", "--workers", 0)


def test_its_own_recordings(trained, tmp_path):
    "A recording with the name of one that the clips were cut from is pointed out."
    for name, known in (("stream0", True), ("evening", False)):
        write_stream(tmp_path/f"{name}.mka")
        (tmp_path/"labels.csv").write_text(LABELS.format(name=name))
        words = tmp_path/f"{name}.mka", "--labels", tmp_path/"labels.csv"
        assert ("found recordings with names that" in evaluated(trained/"run"/"best.pt", *words)) == known


def test_a_namesake(trained, tmp_path):
    "A recording whose highlights are elsewhere is another one, whatever its name."
    split = pd.read_csv(trained/"run"/"split.csv")
    shutil.copy(trained/"run"/"best.pt", tmp_path)
    write_stream(tmp_path/"stream0.mka")
    (tmp_path/"labels.csv").write_text(LABELS.format(name="stream0"))
    for start_s, known in ((0, True), (4, False)):
        timed = split.assign(start_s=split.label.map({1: start_s, 0: 5}), end_s=split.label.map({1: start_s + 3, 0: 8}))
        timed.to_csv(tmp_path/"split.csv", index=False)
        said = evaluated(tmp_path/"best.pt", tmp_path/"stream0.mka", "--labels", tmp_path/"labels.csv")
        assert ("found recordings with names that" in said) == known
