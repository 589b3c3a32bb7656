"Models go to the Hugging Face Hub and come back: the same scores, nothing executed, one line for what goes wrong."
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from hub_server import Hub
from running import printed, rating_model, run, write_clips, write_stream

from highlight_sense.models import Origin, adopt
from highlight_sense.taste import Taste, save_taste

OWN = {".gitattributes", "README.md", "config.json", "model.safetensors"}


def connect(monkeypatch, address: str) -> None:
    "Have the Hub's library talk to another server."
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)


@pytest.fixture(autouse=True)
def hub(tmp_path, monkeypatch) -> Iterator[Hub]:
    "A Hub of our own, the account of Anna, and an empty cache."
    with Hub().serving() as hub:
        for name, value in (("HF_HUB_CACHE", str(tmp_path/"cache")), ("HF_HUB_DISABLE_XET", True)):
            monkeypatch.setattr(huggingface_hub.constants, name, value)
        connect(monkeypatch, hub.address)
        for name, value in (("HF_TOKEN", "hf_anna"), ("HIGHLIGHT_SENSE_HOME", str(tmp_path/"home"))):
            monkeypatch.setenv(name, value)
        yield hub


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A recording, a model, and one with a taste."
    place = tmp_path_factory.mktemp("hub")
    write_stream(place/"stream.mka", 12)
    torch.manual_seed(1)
    save_taste(place/"learned.pt", rating_model(place/"mine.pt"), Taste(4 * 80), about="a taste of mine",
               learned_from=["private evening.mkv"], network_threshold=0.25)
    return place


def scores(place: Path, out: Path, model: object) -> bytes:
    "Detect with a model; return the scores."
    printed("detect", place/"stream.mka", "-m", model, "-o", out, "--top", 1, "--window", 3, "--device", "cpu", code=0)
    return (out/"stream"/"scores.csv").read_bytes()


def test_info_on_a_folder(place, tmp_path):
    "A model that was written into a folder, to look at, is described as such."
    printed("share", place/"learned.pt", "--to", tmp_path/"shared", "--licence", "mit", code=0)
    said = printed("info", tmp_path/"shared", code=0)
    assert "model to share" in said and "a taste of mine" in said and "threshold" in said


def test_there_and_back(place, hub, tmp_path):
    "A learned model scores the same to the bit, wherever it is named, and its card says what it was made from."
    adopt(place/"learned.pt", Origin("starter", ("/my/evenings",), {"keep": 9, "drop": 14}, sentence="probably better"))
    said = printed("share", "learned", "--to", "hf://anna/mine", "--licence", "cc-by-4.0", code=0)
    assert f"{hub.address}/anna/mine" in said and "--model hf://anna/mine" in said
    files = hub.files("anna/mine")
    card = files["README.md"].decode()
    assert files.keys() == OWN and "license: cc-by-4.0" in card and "drop 14, keep 9" in card and "Not audited" in card
    for private in ("private evening", "/my/evenings", str(place)):
        assert not any(private.encode() in content for content in files.values())
    for address in ("hf://anna/mine", f"hf://anna/mine@{hub.repos['anna/mine']['commits'][-1][0]}"):
        assert scores(place, tmp_path/address[-3:], address) == scores(place, tmp_path/"here", place/"learned.pt")
    assert sum("GET /anna/mine/resolve" in asked for asked in hub.asked) == 2  # each file once
    clips = write_clips(tmp_path/"clips", 6, 6)
    for words in (("evaluate", "hf://anna/mine", clips, "--json", "--workers", 0), ("info", "hf://anna/mine")):
        by_file = [place/"learned.pt" if word == "hf://anna/mine" else word for word in words]
        assert run(*words)[:2] == run(*by_file)[:2] and run(*words)[0] == 0


def test_the_card_has_results(place, hub, tmp_path):
    "What `evaluate` and `audit` wrote is quoted, the bad findings too; a folder shows the files first."
    clips = write_clips(tmp_path/"clips", 6, 6)
    printed("evaluate", place/"mine.pt", clips, "-o", tmp_path/"evaluated", "--workers", 0, code=0)
    code, _, complaint = run("audit", place/"mine.pt", clips, "-o", tmp_path/"audited", "--workers", 0)
    assert code == 3, complaint
    results = "--results", tmp_path/"evaluated", "--results", tmp_path/"audited"
    words = "--licence", "mit", "--to", tmp_path/"look", *results
    printed("share", place/"mine.pt", *words, code=0)
    card = (tmp_path/"look"/"README.md").read_text()
    assert "| bad |" in card and "over recordings" in card and "12 other clips" in card and not hub.repos
    assert "expected one of" in printed("share", place/"learned.pt", *words)


def test_private_models(place, hub, monkeypatch):
    "A private model is for its account; others, and unknown and gated ones, get a line each."
    printed("share", place/"mine.pt", "--to", "hf://anna/mine", "--licence", "mit", "--private", code=0)
    hub.add("bert/gated", hub.files("anna/mine"), gated=True)
    printed("info", "hf://anna/mine", code=0)
    monkeypatch.setenv("HF_TOKEN", "hf_carl")
    for name, found in (("anna/mine", "a private one"), ("anna/none", "a private one"), ("bert/gated", "on request")):
        assert f"hf://{name}: found" in (line := printed("info", f"hf://{name}")) and found in line, line
    assert "found no permission" in printed("share", place/"mine.pt", "--to", "hf://anna/new", "--licence", "mit")
    monkeypatch.setenv("HF_TOKEN", "hf_anna")
    assert "found no such revision" in printed("info", "hf://anna/mine@v9")


def test_without_a_connection(place, hub, monkeypatch):
    "An earlier download serves; a model that is not here gets a line."
    printed("share", place/"mine.pt", "--to", "hf://anna/mine", "--licence", "mit", code=0)
    before = printed("info", "hf://anna/mine", code=0)
    connect(monkeypatch, "http://127.0.0.1:9")
    assert printed("info", "hf://anna/mine", code=0) == before
    assert "found no connection" in printed("info", "hf://anna/other")


class Trap:
    "A pickle that writes a file when it is read."
    def __reduce__(self): return Path.touch, (Path(os.environ["TRAP"]),)


def test_hostile_files(place, hub, tmp_path, monkeypatch):
    "Nothing in a repository is executed, and nothing is read that does not fit."
    monkeypatch.setenv("TRAP", str(tmp_path/"sprung"))
    printed("share", place/"mine.pt", "--to", "hf://anna/mine", "--licence", "mit", code=0)
    good = hub.files("anna/mine")
    config = json.loads(good["config.json"])
    deep, nan = b"[" * 10**5, good["config.json"].replace(b'"epochs": 1', b'"epochs": NaN')
    cases = [
        {"model.safetensors": pickle.dumps(Trap())}, {"model.safetensors": good["model.safetensors"][:-9]},
        {"model.safetensors": b"\xff" * 8 + b"{}"}, {"config.json": deep}, {"config.json": nan}, {"config.json": b"{}"},
        {"config.json": json.dumps(config | {"auto_map": "model.py", "model_type": "other"}).encode()},
        {"config.json": json.dumps(config | {"format": 2}).encode()}, {"config.json": b" " * 2**21}]
    for number, changed in enumerate(cases):
        hub.add(f"carl/{number}", good | changed | {"model.py": b"raise", "../../evil": b"x", "best.pt": b"x"})
        assert f"hf://carl/{number}: found" in printed("info", f"hf://carl/{number}")
    hub.sizes["model.safetensors"] = 2**40
    assert "expected at most" in printed("info", "hf://anna/mine")
    assert not (tmp_path/"sprung").exists() and not list(tmp_path.rglob("*evil*")) and not list(tmp_path.rglob("*.py"))


def test_what_is_not_shared(place, hub, tmp_path):
    "No licence, one that the Hub does not know, a foreign repository, an address that is none: a line, and no upload."
    hub.add("anna/bert", {"config.json": b'{"model_type": "bert"}', "model.safetensors": b""})
    hub.add("anna/code", {"main.py": b""})
    torch.save({"model": torch.load(place/"mine.pt")["model"], "epochs": 1}, tmp_path/"colab.pt")
    mine, colab = place/"mine.pt", tmp_path/"colab.pt"
    for model, to, licence, found in (
            (mine, "anna/x", "", "licence: found none"), (mine, "anna/x", "do what you want", "licence: found"),
            (mine, "anna/x", "gpl-9", "check the licence"), (mine, "anna", "mit", "found no address"),
            (mine, "anna/bert", "mit", "(config.json)"), (mine, "anna/code", "mit", "(main.py)"),
            (mine, "anna/x@v1", "mit", "found a revision"), (colab, "anna/x", "mit", "without its front end")):
        words = "share", model, "--to", f"hf://{to}", *(["--licence", licence] if licence else [])
        assert found in printed(*words), words
    assert "found --private" in printed("share", place/"mine.pt", "--to", tmp_path/"x", "--licence", "mit", "--private")
    assert {name for repo in hub.repos for name in hub.files(repo)} <= {*OWN, "main.py"}


def test_by_environment(place, hub, tmp_path):
    "A process of its own finds server, account and cache by the variables of the Hub's library."
    printed("share", place/"mine.pt", "--to", "hf://anna/mine", "--licence", "mit", "--private", code=0)
    environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HOME": str(tmp_path/"hf")}
    words = [sys.executable, "-m", "highlight_sense", "info", "hf://anna/mine"]
    ended = subprocess.run(words, capture_output=True, text=True, env=environment)
    assert ended.returncode == 0 and ended.stdout == printed("info", place/"mine.pt", code=0) and not ended.stderr
    assert list((tmp_path/"hf"/"hub").glob("models--anna--mine/snapshots/*/model.safetensors"))
