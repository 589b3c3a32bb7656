"Adopted models: which one `detect` uses, how to return to another, and what survives kills and full disks."
import json
import os
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from running import TRAINING, launch, needs_fork, printed, rating_model, run, small_model, write_clips, write_stream

from highlight_sense.models import Origin, adopt, find_model, go_back, model_in_use
from highlight_sense.starter import starter_path


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch) -> Path:
    "An empty folder of models."
    monkeypatch.setenv("HIGHLIGHT_SENSE_HOME", str(tmp_path/"home"))
    return tmp_path/"home"/"models"


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A recording and two models."
    place = tmp_path_factory.mktemp("models")
    write_stream(place/"stream.mka", 12)
    rating_model(place/"mine.pt")
    small_model(place/"other.pt")
    return place


def detected(place: Path, out: Path, *words: object) -> tuple[str, str]:
    "Detect with the model in use; return what was printed, and the file of the model."
    words = "detect", place/"stream.mka", "-o", out, "--top", 1, "--window", 3, "--device", "cpu", *words
    lines = printed(*words, code=0)
    record = json.loads((out/"stream"/"highlights.json").read_text())
    return next(line for line in lines.splitlines() if line.startswith("model: ")), record["checkpoint"]["path"]


def test_from_evening_to_evening(place, home, tmp_path):
    "`detect` uses the adopted model, each name stands for its own model, and the starter can return."
    assert adopt(place/"mine.pt", Origin("starter", ("a", "b"), {"keep": 7, "drop": 13}, sentence="better")) == "mine"
    said, used = detected(place, tmp_path/"1")
    assert said == "model: mine, the one in use; `highlight-sense models` lists others"
    assert Path(used) == (home/"mine.pt").resolve()
    adopt(place/"other.pt", name="mine")
    said, used = detected(place, tmp_path/"2", "--model", "mine")
    assert said == "model: mine" and Path(used).name == "mine.pt"
    listed = printed("models", code=0)
    assert "20 verdicts in 2 folders, better" in listed and "* mine-2" in listed and "* starter" not in listed
    assert printed("models", "use", "starter", code=0) == "starter is in use\n"
    said, used = detected(place, tmp_path/"3", "--window", 8)
    assert "starter" in said and Path(used) == starter_path().resolve()


def test_every_command_takes_names(place, tmp_path):
    "A name stands for its file wherever a command takes a model; an unknown name is refused with those in the list."
    adopt(place/"other.pt", name="mine")
    clips, labels = write_clips(tmp_path/"clips", 6, 6), tmp_path/"labels.csv"
    labels.write_text("recording,start_s,end_s\nstream,4,6\n")
    on_clips = "evaluate", "MODEL", clips, "--json", "--workers", 0
    commands = [
        on_clips, ("evaluate", "MODEL", place/"stream.mka", "--labels", labels, "--threshold", 0.5, "--device", "cpu"),
        ("info", "MODEL"), ("train", clips, "--init", "MODEL", "-o", tmp_path/"run", *TRAINING),
        ("audit", "MODEL", clips, "--workers", 0)]
    if find_spec("openvino"): commands.append(("export", "MODEL", "-o", tmp_path/"network.xml"))

    def with_model(words: Sequence, model: object) -> list:
        return [model if word == "MODEL" else word for word in words]

    for words in commands:
        assert "a model in the list (starter, mine)" in printed(*with_model(words, "theirs"))
        code, _, complaint = run(*with_model(words, "mine"))
        assert code in (0, 3), complaint
    assert run(*with_model(on_clips, "mine")) == run(*with_model(on_clips, place/"other.pt"))
    assert json.loads((tmp_path/"run"/"config.json").read_text())["init"]["path"].endswith("mine.pt")


PROCESSES = """
from highlight_sense.models import adopt
place, home = json.loads(sys.argv[1])
os.environ["HIGHLIGHT_SENSE_HOME"] = home

def there():
    listed = json.loads(Path(home, "models", "models.json").read_text())
    for model in listed["models"]: assert Path(home, "models", model["name"] + ".pt").is_file()
    return listed["used"][-1]

def one(number): return lambda: adopt(f"{place}/{('mine', 'again')[number % 2]}.pt")
codes = [status(pid) for pid in [start(one(number)) for number in range(6)]]
in_use, found = there(), []
for n, after in ((1, False), (1, True), (2, False), (2, True)):
    found.append(status(start(lambda: adopt(f"{place}/other.pt"), lambda: die_at(n, after))))
    found.append(there().replace(in_use, "as before"))
print(json.dumps([codes, found]))
"""


@needs_fork
def test_processes(place, home):
    "Several processes adopt at once, and no model is lost; a kill before or after any renaming leaves a valid list."
    torch.save(torch.load(place/"mine.pt", weights_only=True) | {"epochs": 2}, place/"again.pt")
    codes, found = launch(PROCESSES, place, home.parent)
    assert codes == [0] * 6 and found == [-9, "as before"] * 3 + [-9, "other"]
    names = {model["name"] for model in json.loads((home/"models.json").read_text())["models"]}
    assert names == {"mine", "again", "other"} == {path.stem for path in home.glob("*.pt")}
    assert adopt(place/"other.pt") == "other" and find_model(None) == ("other", home/"other.pt")


@pytest.mark.parametrize("damage", ["{", "[]", '{"models": 3}', '{"models": [], "used": ["mine"]}', "\0" * 50])
def test_damaged_list(place, home, tmp_path, damage):
    "`detect` refuses to guess; a new list keeps the models, and the damaged one is kept as it was."
    adopt(place/"mine.pt")
    (home/"models.json").write_text(damage)
    words = "detect", place/"stream.mka", "-o", tmp_path/"out"
    for command in (words, ("models",)):
        assert "models.json: found" in (said := printed(*command)) and "models use starter" in said
    assert "theirs: found no model" in printed("models", "use", "theirs")
    assert (home/"models.json").read_text() == damage
    assert "kept as models.damaged-1.json" in printed("models", "use", "mine", code=0)
    assert model_in_use() == home/"mine.pt" and (home/"models.damaged-1.json").read_text() == damage


def test_a_model_that_vanished(place, home, tmp_path):
    "The line names the missing model, and says how to continue without it."
    adopt(place/"mine.pt")
    (home/"mine.pt").unlink()
    said = printed("detect", place/"stream.mka", "-o", tmp_path/"out")
    assert "mine.pt: found no such file" in said and "highlight-sense models use starter" in said
    assert not (tmp_path/"out").exists() and "its file is gone" in printed("models", code=0)
    assert adopt(place/"mine.pt") == "mine" and model_in_use().is_file()  # adopted again


def test_removing(place, home):
    "A model that is not in use can be removed, and what was in use before it follows."
    adopt(place/"mine.pt")
    adopt(place/"other.pt")
    assert "mine is removed" in printed("models", "remove", "mine", code=0) and not (home/"mine.pt").exists()
    assert "found the model in use" in printed("models", "remove", "other") and (home/"other.pt").exists()
    assert "found no name" in printed("models", "remove")
    assert "starter: found the starter, which stays, expected an adopted" in printed("models", "remove", "starter")
    assert go_back() == "starter" and "mine" not in printed("models", code=0)


def test_full_disk(place, home, monkeypatch):
    "Neither a copy nor the list is half written."
    adopt(place/"mine.pt")
    before = {path.name: path.read_bytes() for path in home.iterdir()}

    def full(descriptor: int) -> None: raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space") as error: adopt(place/"other.pt")
        assert Path(error.value.filename) == home/"other.pt"
        assert "models.json: found a full or read-only disk" in printed("models", "use", "starter")
    assert {path.name: path.read_bytes() for path in home.iterdir()} == before


def test_a_damaged_copy(place, home, tmp_path):
    "A copy that was cut off is an error that names it, not another model."
    adopt(place/"mine.pt")
    os.truncate(home/"mine.pt", 1000)
    assert f"{home/'mine.pt'}: found" in printed("detect", place/"stream.mka", "-o", tmp_path/"out")
    with pytest.raises(ValueError, match="expected a checkpoint"): adopt(home/"mine.pt")
    torch.save({"a": 1}, tmp_path/"a.pt")
    with pytest.raises(ValueError, match="expected a checkpoint"): adopt(tmp_path/"a.pt")
