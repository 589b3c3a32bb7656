"Hostile files run no code, exhaust no memory and write nothing outside their folder."
import copy
import csv
import json
import os
import pickle
import shutil
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from running import TRAINING, printed, small_model, write_clips, write_stream

from highlight_sense.clip_files import list_clips
from highlight_sense.clip_table import load_index
from highlight_sense.files import hash_file

CLIPS = 60  # of which a few may be unusable
FORMULA = "=cmd|' /C calc'!A0"


class Planted:
    "Makes a file when it is unpickled."
    def __init__(self, place: Path): self.place = place
    def __reduce__(self): return open, (str(self.place), "w")


@pytest.fixture(scope="module")
def healthy(tmp_path_factory) -> Path:
    "Clips, a recording, a checkpoint and its detection."
    place = tmp_path_factory.mktemp("hostile")
    write_clips(place/"clips", CLIPS // 2, CLIPS // 2)
    write_stream(place/"stream.mka")
    small_model(place/"model.pt")
    printed("pack", place/"clips", "-o", place/"clips.pack", code=0)
    printed("detect", "--model", place/"model.pt", place/"stream.mka", "-o", place/"found", "--top", 2, code=0)
    return place


def with_pickles(sample: dict, planted: Planted, folder: Path) -> list[Path]:
    "The same record with a pickle that acts, in every way in which a file can hold one."
    files = [folder/f"{name}.pt" for name in ("raw", "whole", "inside", "legacy", "key")]
    files[0].write_bytes(pickle.dumps(planted, protocol=2))
    torch.save(planted, files[1])
    torch.save({**sample, "more": planted}, files[2])
    torch.save({**sample, "more": planted}, files[3], _use_new_zipfile_serialization=False)
    torch.save({**sample, "epochs": [planted]}, files[4])
    return files


def test_pickles(healthy, tmp_path):
    "In clips, in archives of them, in packs, in checkpoints of every dialect, and in what `--resume` reads."
    planted, model = Planted(tmp_path/"owned"), torch.load(healthy/"model.pt", weights_only=True)
    clip = next((healthy/"clips").rglob("*.pt"))
    (tmp_path/"c").mkdir(); (tmp_path/"m").mkdir()
    for path in with_pickles(torch.load(clip, weights_only=True), planted, tmp_path/"c"):
        printed("info", path)
        with zipfile.ZipFile(tmp_path/"shard.zip", "w") as shard: shard.write(path, "Positive/game/evil.pt")
        printed("info", f"{tmp_path/'shard.zip'}::Positive/game/evil.pt")
        clips = tmp_path/f"clips-{path.stem}"
        shutil.copytree(healthy/"clips", clips)
        shutil.copy(path, clips/"Positive"/"game"/"evil.pt")
        shutil.copy(tmp_path/"shard.zip", clips/"shard.zip")
        assert len(load_index(clips)[1]) == 2
        printed("pack", clips, "-o", tmp_path/f"{path.stem}.pack", code=0)
        printed("evaluate", healthy/"model.pt", clips, "--workers", 0, code=0)
    renamed = dict(model["model"])
    for ours, published in ((".norm.", ".bn."), ("attn.fc1.", "attention.W."), ("attn.fc2.", "attention.V.")):
        renamed = {name.replace(ours, published): value for name, value in renamed.items()}
    for sample in (model, {"model": model["model"], "epochs": 1}, {"model": renamed}):
        for path in with_pickles(sample, planted, tmp_path/"m"):
            printed("info", path)
            printed("detect", "--model", path, healthy/"stream.mka", "-o", tmp_path/"out")
            for verb in ("evaluate", "audit"): printed(verb, path, healthy/"clips")
            printed("train", healthy/"clips", "-o", tmp_path/"run", "--init", path, "--frozen-epochs", 1)
    printed("train", healthy/"clips", "-o", tmp_path/"whole", *TRAINING, code=0)
    for path in with_pickles(torch.load(tmp_path/"whole"/"last.pt", weights_only=True), planted, tmp_path/"m"):
        shutil.copy(path, tmp_path/"whole"/"last.pt")
        printed("train", "-o", tmp_path/"whole", "--resume")
    shutil.copytree(healthy/"clips.pack", tmp_path/"objects.pack")
    np.save(tmp_path/"objects.pack"/"mels.npy", np.array([planted], dtype=object), allow_pickle=True)
    printed("info", tmp_path/"objects.pack")
    assert not planted.place.exists()
    pickle.loads((tmp_path/"c"/"raw.pt").read_bytes()).close()  # read carelessly, it does act
    assert planted.place.exists()


def test_paths_in_archives(healthy, tmp_path):
    "Members whose paths lead elsewhere are read in the archive, and nothing is written outside the new pack."
    content = next((healthy/"clips").rglob("*.pt")).read_bytes()
    (tmp_path/"deep"/"clips").mkdir(parents=True)
    ways = ("../..", "/tmp", "a/../../..", ".")
    names = [f"{way}/{label}/g/c{number}.pt" for label in ("Positive", "Negative") for number, way in enumerate(ways)]
    with zipfile.ZipFile(tmp_path/"deep"/"clips"/"shard.zip", "w") as shard:
        for name in names: shard.writestr(name, content)
    before = set(tmp_path.rglob("*"))
    printed("pack", tmp_path/"deep"/"clips", "-o", tmp_path/"deep"/"new.pack", code=0)
    written = {path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("*") if path not in before}
    assert written == {("deep", "new.pack")}
    assert not any(Path(f"/tmp/{label}/g").exists() for label in ("Positive", "Negative"))
    printed("info", tmp_path/"deep"/"new.pack", code=0)


def test_names_in_clips(healthy, tmp_path):
    "The name that a clip carries is only ever a name."
    shutil.copytree(healthy/"clips", tmp_path/"clips")
    names = "../../../up", "/tmp/absolute", FORMULA, "a\x1b[2Jb\nc", "<script>", "x" * 5000
    for path, name in zip(sorted((tmp_path/"clips").rglob("*.pt")), names):
        torch.save({**torch.load(path, weights_only=True), "clip_name": name, "game": FORMULA}, path)
    before = set(tmp_path.iterdir())
    output = printed("train", tmp_path/"clips", "-o", tmp_path/"run", *TRAINING, code=0)
    clips = tmp_path/"clips"
    output += printed("audit", healthy/"model.pt", clips, "--training", clips, "-o", tmp_path/"audit", code=3)
    output += printed("info", next((tmp_path/"clips").rglob("stream0_part3.pt")), code=0)
    assert "\x1b[2J" not in output and set(tmp_path.iterdir()) - before == {tmp_path/"run", tmp_path/"audit"}
    with open(tmp_path/"run"/"split.csv", newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert "'" + FORMULA in cells and not any(cell.startswith(("=", "+", "@", "-")) for cell in cells)


def test_names_of_recordings(healthy, tmp_path):
    "Formulas, tags and control characters in the names of files and tracks."
    name = "=1+1 <img src=x onerror=alert(1)> & ~'\".mka"
    title = "\x1b]0;owned\x07<script>alert(1)</script>"
    write_stream(tmp_path/name, voice=title)
    output = printed("info", tmp_path/name, code=0)
    tracks = "--mic", "a:0", "--game", "a:1"
    found = "-o", tmp_path/"found", *tracks, "--top", 2
    output += printed("detect", "--model", healthy/"model.pt", tmp_path/name, *found, code=0)
    output += printed("publish", tmp_path/"found", code=0)
    assert "\x1b" not in output and "\x07" not in output
    folder = next(path for path in (tmp_path/"found").iterdir() if path.is_dir())
    with open(folder/"highlights.csv", newline="") as file:
        assert {row["recording"] for row in csv.DictReader(file)} == {"'" + name}
    page = (folder/"report.html").read_text(encoding="utf-8")
    assert "<img src=x" not in page and "<script>alert" not in page and "&lt;img src=x" in page
    for path in (folder/"chapters").iterdir(): assert path.read_text(encoding="utf-8")
    for path in folder.rglob("*"): assert path.resolve().is_relative_to(tmp_path/"found")


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_links(healthy, tmp_path):
    "A folder of results in which a link leads elsewhere, and a clip folder with links."
    outside = tmp_path/"outside"
    outside.mkdir()
    (outside/"precious.txt").write_text("precious")
    for linked in ("clips", "timelines", "chapters"):
        shutil.copytree(healthy/"found", tmp_path/linked)
        (tmp_path/linked/"stream"/linked).symlink_to(outside)
        option = "--timeline" if linked == "timelines" else f"--{linked}"
        output = printed("publish", tmp_path/linked, "--force", option)
        assert "a link that leads to" in output
    shutil.copytree(healthy/"found", tmp_path/"work")
    (tmp_path/"work"/"stream"/".unfinished").symlink_to(outside)
    for name in ("report.html", "highlights.csv"):
        (tmp_path/"work"/"stream"/name).unlink(missing_ok=True)
        (tmp_path/"work"/"stream"/name).symlink_to(outside/"precious.txt")
    printed("publish", tmp_path/"work", "--clips", code=0)
    printed("publish", tmp_path/"work", "--report", "--force", code=0)
    record = json.loads((tmp_path/"work"/"stream"/"manifest.json").read_text())
    record["files"]["clips/../../../outside/precious.txt"] = {"made_from": "x", "sha256": "0" * 64}
    (tmp_path/"work"/"stream"/"manifest.json").write_text(json.dumps(record))
    printed("publish", tmp_path/"work", "--clips")
    assert {path.name: path.read_text() for path in outside.iterdir()} == {"precious.txt": "precious"}
    shutil.copytree(healthy/"clips", tmp_path/"data")
    (tmp_path/"data"/"Positive"/"game"/"link.pt").symlink_to(outside/"precious.txt")
    (tmp_path/"data"/"Positive"/"more").symlink_to(healthy/"clips"/"Positive")
    assert len(load_index(tmp_path/"data")[1]) == 1 and len(list_clips(tmp_path/"data")) == CLIPS + 1
    printed("pack", tmp_path/"data", "-o", tmp_path/"data.pack", "--consume", code=0)
    assert (outside/"precious.txt").exists() and len(list((healthy/"clips").rglob("*.pt"))) == CLIPS


def test_other_files(healthy, tmp_path):
    "A detection that names another file of the user as its recording does not get it into its products."
    shutil.copytree(healthy/"found", tmp_path/"found")
    secret, place = tmp_path/"secret.txt", tmp_path/"found"/"stream"/"highlights.json"
    secret.write_text("a secret")
    record = json.loads(place.read_text())
    record["recording"]["files"] = [str(secret)]
    for side in ("voice", "game"): record[side]["path"] = str(secret)
    place.write_text(json.dumps(record))
    assert "expected" in printed("publish", tmp_path/"found")
    assert not any(b"a secret" in path.read_bytes() for path in (tmp_path/"found").rglob("*") if path.is_file())


BOMB = '''
import resource, sys
import torch
from highlight_sense.cli import main
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**30,) * 2)
main(sys.argv[1:])
'''


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="memory is limited the Linux way")
def test_bombs(healthy, tmp_path):
    "Small files that would need terabytes, in a process that may use one gigabyte more."
    model = torch.load(healthy/"model.pt", weights_only=True)
    torch.save({"tensor": torch.zeros(1).expand(2, 80, 10**10)}, tmp_path/"clip.pt")
    torch.save({**model, "config": {**model["config"], "rnn_hidden": 10**6}}, tmp_path/"config.pt")
    torch.save({**model, "max_frames": 10**11}, tmp_path/"frames.pt")
    torch.save({**model, "max_frames": 8}, tmp_path/"few.pt")
    torch.save({**model, "config": {**model["config"], "cnn_channels": [1] * 30}}, tmp_path/"blocks.pt")
    torch.save({**model, "calibration": {"temperature": 1e-300, "offset": 0.0}}, tmp_path/"sure.pt")
    weights = {**model["model"], "rnn.weight_ih_l0": torch.zeros(1).expand(3 * 10**6, 10**6)}
    torch.save({"model": weights, "epochs": 1}, tmp_path/"weights.pt")
    torch.save({"tensor": torch.zeros(2, 80, 2**21)}, tmp_path/"plain.pt")  # 1.3 GB that compress to nothing
    small = zipfile.ZipFile(tmp_path/"packed.pt", "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with zipfile.ZipFile(tmp_path/"plain.pt") as plain, small:
        for entry in plain.infolist():
            with plain.open(entry) as source, small.open(entry.filename, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 2**20)
    with zipfile.ZipFile(tmp_path/"shard.zip", "w", zipfile.ZIP_DEFLATED, compresslevel=1) as shard:
        with shard.open("Positive/g/a.pt", "w", force_zip64=True) as target:
            for _ in range(2**11): target.write(bytes(2**20))
    (tmp_path/"plain.pt").unlink()
    shutil.copytree(healthy/"clips.pack", tmp_path/"shape.pack")
    with open(tmp_path/"shape.pack"/"mels.npy", "r+b") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f2", "fortran_order": False, "shape": (10**12, 2, 80)})
    for name in ("few", "blocks", "sure"): printed("evaluate", tmp_path/f"{name}.pt", healthy/"clips", "--workers", 0)
    files = "clip.pt", "config.pt", "weights.pt", "packed.pt", "shard.zip::Positive/g/a.pt", "shape.pack"
    calls = [("info", tmp_path/name) for name in files]
    calls.append(("detect", "--model", tmp_path/"frames.pt", healthy/"stream.mka", "-o", tmp_path/"out"))
    for words in calls:
        command = [sys.executable, "-c", BOMB, *map(str, words)]
        ended = subprocess.run(command, text=True, capture_output=True, timeout=120)
        assert ended.returncode == 2 and len(ended.stderr.strip().splitlines()) == 1, (words, ended.stderr[-2000:])


class Call:
    "Pickles as a call of a function that PyTorch permits."
    def __init__(self, function, *given): self.function, self.given = function, given
    def __reduce__(self): return self.function, self.given


def test_small_records(healthy, tmp_path):
    "Records of a few kilobytes that become gigabytes when they are read or printed."
    clip, lists = torch.load(next((healthy/"clips").rglob("*.pt")), weights_only=True), ["ha"]
    for _ in range(7): lists = [lists] * 10
    calls = {"call of torch FloatTensor": Call(torch.FloatTensor, 2, 80, 4 * 10**6),
             "call of __builtin__ bytearray": Call(bytearray, 2 * 10**9)}
    for name, more in {**calls, "many times over": lists}.items():
        for new in (True, False):
            torch.save({**clip, "more": more}, tmp_path/"clip.pt", _use_new_zipfile_serialization=new)
            assert (tmp_path/"clip.pt").stat().st_size < 200_000 and name in printed("info", tmp_path/"clip.pt")


@pytest.mark.parametrize(("method", "mib", "why"), [
    (zipfile.ZIP_DEFLATED, 1200, "BadZipFile"), (zipfile.ZIP_BZIP2, 10, "compression method 12")])
def test_wrong_sizes(method, mib, why, tmp_path):
    "A member that is larger than the archive states is not unpacked."
    shard = tmp_path/"shard.zip"
    with zipfile.ZipFile(shard, "w", method) as archive, archive.open("Positive/g/a.pt", "w") as target:
        for _ in range(mib): target.write(bytes(2**20))
    content = bytearray(shard.read_bytes())
    at = content.rindex(b"PK\x01\x02") + 24
    content[at:at + 4] = struct.pack("<I", 1000)
    shard.write_bytes(content)
    command = [sys.executable, "-c", BOMB, "info", f"{shard}::Positive/g/a.pt"]
    ended = subprocess.run(command, text=True, capture_output=True, timeout=120)
    assert ended.returncode == 2 and why in ended.stderr, ended.stderr[-2000:]


def changed(record: dict, *path: object) -> dict:
    "A deep copy with one value replaced."
    record = copy.deepcopy(record)
    *places, name, value = path
    within = record
    for place in places: within = within[place]
    within[name] = value
    return record


def test_unfinished_runs(healthy, tmp_path):
    "`--resume` and `--from-run` refuse optimizer state of a wrong shape, figures that are no numbers, huge networks."
    run = tmp_path/"run"
    printed("train", healthy/"clips", "-o", run, "--init", healthy/"model.pt", *TRAINING, code=0)
    settings, whole = json.loads((run/"config.json").read_text()), torch.load(run/"last.pt", weights_only=True)
    memory = whole["training"]["optimizer"]["state"]
    wrong = [("optimizer", "state", 0, "exp_avg", torch.zeros(1)),
             ("optimizer", "state", 0, "exp_avg_sq", memory[0]["exp_avg_sq"].double()),
             ("optimizer", "state", {0: {"step": torch.tensor(1.0)}}), ("optimizer", "state", {10**6: memory[0]}),
             ("schedule", "_last_lr", ["x"]), ("schedule", "last_epoch", "x"), ("scaler", None), ("history", "ab"),
             ("history", [{}]), ("history", 0, "ap", "x"), ("best", None), ("best", "logits", torch.zeros(1)),
             ("best", "metrics", {}), ("best_epoch", "x"), ("best_epoch", 2), ("tally", {}), ("tally", "steps", "x"),
             ("tally", "loss", torch.zeros(3)), ("random", "x"), ("random", {"cpu": torch.zeros(3)})]
    for at, path in enumerate(wrong):
        shutil.copytree(run, tmp_path/f"changed{at}")
        torch.save(changed(whole, "training", *path), tmp_path/f"changed{at}"/"last.pt")
        if path != ("scaler", None): printed("train", "-o", tmp_path/f"changed{at}", "--resume")
    wrong = [("train", "batch_size", 5.5), ("train", "precision", "fp8"), ("train", "mixup", None),
             ("model", "n_mels", "x"), ("model", "rnn_hidden", 5 * 10**6), ("model", "rnn_layers", 2**40),
             ("model", "cnn_channels", []), ("init", 3), ("data", 3)]
    for at, path in enumerate(wrong):
        (tmp_path/f"other{at}").mkdir()
        (tmp_path/f"other{at}"/"config.json").write_text(json.dumps(changed(settings, *path)))
        printed("train", "-o", tmp_path/"new", "--from-run", tmp_path/f"other{at}")
    for content in ("[" * 10**5, "[]", "\xff"):
        (tmp_path/"other0"/"config.json").write_text(content, encoding="latin-1")
        printed("train", "-o", tmp_path/"new", "--from-run", tmp_path/"other0")
    torch.save({}, tmp_path/"changed0"/"last.pt")
    printed("train", "-o", tmp_path/"changed0", "--resume")
    printed("train", "-o", run, "--resume", "--init", healthy/"model.pt")
    printed("train", "-o", run, "--resume", code=0)


def test_odd_names(healthy, tmp_path):
    "Clips named in TeX, invalid text or control characters are trained on, measured and packed; nothing obeys a name."
    shutil.copytree(healthy/"clips", tmp_path/"clips")
    sample = torch.load(next((healthy/"clips").rglob("*.pt")), weights_only=True)
    place = tmp_path/"clips"/"Positive"/"game"
    for at, name in enumerate((r"a$\foo{$b", "win $5 or $^_", "a\ud800b")):
        torch.save({**sample, "clip_name": f"{name}_part1"}, place/f"named{at}.pt")
    for path in sorted((healthy/"clips"/"Positive").rglob("*.pt")):
        (place/path.name).rename(place/f"a$\\foo{{$b{path.name}")
    torch.save(sample, os.path.join(os.fsencode(str(place)), b"bad\xff_part1.pt").decode(errors="surrogateescape"))
    (place/"e\x1b[2Jvil\nX.pt").write_bytes(b"x")
    torch.save({**sample, 5: "five", b"x": None}, place/"keys.pt")
    clips = tmp_path/"clips"
    for words in (("train", clips, "-o", tmp_path/"run", *TRAINING), ("pack", clips, "-o", tmp_path/"new.pack"),
                  ("evaluate", healthy/"model.pt", clips, "--workers", 0, "-o", tmp_path/"measured"),
                  ("info", place/"keys.pt")):
        assert "\x1b" not in printed(*words, code=0).replace("\x1b[A", "")  # of a progress bar


def test_odd_archives(healthy, tmp_path):
    "Archives with an invalid name or of a future version; a folder and a broken link called `.zip`."
    invalid_name = ("\u00e9".encode(), b"\xff\xfe")
    future_version = (b"PK\x01\x02\x14\x03\x14", b"PK\x01\x02\x14\x03\x63")
    for at, (old, new) in enumerate((invalid_name, future_version)):
        shutil.copytree(healthy/"clips", tmp_path/f"clips{at}")
        with zipfile.ZipFile(tmp_path/f"clips{at}"/"shard.zip", "w") as archive:
            archive.writestr("Positive/g/\u00e9_part1.pt", b"x")
        content = (tmp_path/f"clips{at}"/"shard.zip").read_bytes()
        assert old in content
        (tmp_path/f"clips{at}"/"shard.zip").write_bytes(content.replace(old, new))
        printed("info", tmp_path/f"clips{at}")
    shutil.copytree(healthy/"clips", tmp_path/"clips")
    (tmp_path/"clips"/"folder.zip").mkdir()
    (tmp_path/"clips"/"link.zip").symlink_to(tmp_path/"nowhere")
    printed("pack", tmp_path/"clips", "-o", tmp_path/"new.pack", code=0)


def test_unfinished_packs(healthy, tmp_path, monkeypatch):
    "A planted unfinished pack overwrites nothing and removes nothing that it should not."
    part, precious = tmp_path/"new.pack.part", tmp_path/"precious"
    precious.write_text("precious")
    for name in ("mels.npy", "index.jsonl", "source.json"):
        part.mkdir()
        (part/name).symlink_to(precious)
        printed("pack", healthy/"clips", "-o", tmp_path/"new.pack")
        assert precious.read_text() == "precious"
        shutil.rmtree(part)
    for name in ("mine", "others"): shutil.copytree(healthy/"clips", tmp_path/name)
    for note in ({"source": str(tmp_path/"mine"), "folder": str(tmp_path/"others")}, {}, [], {"source": 5}):
        part.mkdir(exist_ok=True)
        (part/"source.json").write_text(json.dumps(note))
        printed("pack", tmp_path/"mine", "-o", tmp_path/"new.pack", "--consume")
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path/"cache"))
    for folder in (tmp_path/"others", tmp_path/"cache"/"datasets"/".."/".."/"others"):
        part.mkdir(exist_ok=True)
        (part/"source.json").write_text(json.dumps({"source": "owner/clips", "folder": str(folder)}))
        printed("pack", "owner/clips", "-o", tmp_path/"new.pack", "--consume")
    assert len(list_clips(tmp_path/"mine")) == len(list_clips(tmp_path/"others")) == CLIPS
    shutil.rmtree(part, ignore_errors=True)
    for at, line in enumerate(("5", "[]", "{}", '{"offset": "x", "frames": 1}', "[" * 10**5)):
        (tmp_path/f"{at}.pack.part").mkdir()
        (tmp_path/f"{at}.pack.part"/"index.jsonl").write_text(line + "\n")
        assert "found clip 1 damaged" in printed("pack", healthy/"clips", "-o", tmp_path/f"{at}.pack")


def test_odd_results(healthy, tmp_path):
    "A folder of results with endlessly nested lists, impossible file names, or highlights that are no highlights."
    def folder() -> Path:
        shutil.rmtree(tmp_path/"found", ignore_errors=True)
        shutil.copytree(healthy/"found", tmp_path/"found")
        return tmp_path/"found"/"stream"
    detect = ("detect", "--model", healthy/"model.pt", healthy/"stream.mka", "-o", tmp_path/"found", "--top", 1)
    publish = "publish", tmp_path/"found"
    for name, words in (("highlights.json", publish), ("manifest.json", publish), ("manifest.json", detect)):
        (folder()/name).write_text("[" * 10**5)
        printed(*words)
    for name in ("clips/a\0b", "clips/" + 300 * "x", "clips/" + 3000 * "y/" + "z"):
        place = folder()/"manifest.json"
        entry = {"made_from": "x", "sha256": 64 * "0"}
        place.write_text(json.dumps(changed(json.loads(place.read_text()), "files", name, entry)))
        printed("publish", tmp_path/"found", "--clips")
    for text in ("{", "{}", "[]", '{"recording": {"fingerprints": 5}}'):
        place = folder()
        record = json.loads((place/"manifest.json").read_text())
        (place/"manifest.json").write_text(json.dumps(changed(record, "files", "highlights.json", "sha256", None)))
        (place/"highlights.json").write_text(text)
        printed(*detect)


def test_times_without_end(healthy, tmp_path):
    "Scores that claim an endless recording; a track that a link in the folder leads elsewhere."
    shutil.copytree(healthy/"found", tmp_path/"found")
    place = tmp_path/"found"/"stream"
    lines = (place/"scores.csv").read_text().splitlines()
    lines[1] = lines[1].replace("8.0", "1e13") if ",8.0" in lines[1] else "recording,0.0,1e13,,,"
    (place/"scores.csv").write_text("\n".join(lines) + "\n")
    assert "no scores" in printed("publish", tmp_path/"found", "--report")
    shutil.copy(healthy/"found"/"stream"/"scores.csv", place/"scores.csv")
    (place/"private.mka").symlink_to(healthy/"stream.mka")
    record = json.loads((place/"highlights.json").read_text())
    for side in ("voice", "game"): record[side]["path"] = "/nowhere/private.mka"
    (place/"highlights.json").write_text(json.dumps(record))
    assert "found a link" in printed("publish", tmp_path/"found", "--report")


def test_names_of_dots(healthy, tmp_path, monkeypatch):
    "Recordings whose names are hidden or mean the folder above."
    monkeypatch.chdir(tmp_path)
    for name in ("...mka", ".stream.mka"): shutil.copy(healthy/"stream.mka", tmp_path/name)
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\n...mka,1,2\n")
    assert "a name of dots" in printed("detect", "-m", healthy/"model.pt", tmp_path/"...mka", "-o", ".out", "--force")
    tracks = "--mic", healthy/"stream.mka", "--game", tmp_path/"...mka"
    assert "a name of dots" in printed("detect", "--model", healthy/"model.pt", *tracks, "-o", ".out", "--force")
    labels = "--labels", tmp_path/"labels.csv"
    assert "begins with a dot" in printed("prepare", tmp_path/"...mka", *labels, "-o", "clips")
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\n.stream,1,2\n")
    assert "begins with a dot" in printed("prepare", tmp_path/".stream.mka", *labels, "-o", "clips")
    assert "no media file" in printed("detect", "--model", healthy/"model.pt", tmp_path, "-o", "out")
    assert not (tmp_path/"manifest.json").exists() and not list(tmp_path.rglob("*.pt"))


def test_names_without_end(healthy, tmp_path):
    "A clip or a recording with a name of hundreds of thousands of characters gets a quick and short message."
    shutil.copytree(healthy/"clips.pack", tmp_path/"clips.pack")
    rows = [json.loads(line) for line in (tmp_path/"clips.pack"/"index.jsonl").read_text().splitlines()]
    rows[0]["clip"], rows[0]["crc32"] = "Positive/game/" + "a-" * 200_000 + ".pt", 1
    (tmp_path/"clips.pack"/"index.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    note = json.loads((tmp_path/"clips.pack"/"pack.json").read_text())
    note["index_sha256"] = hash_file(tmp_path/"clips.pack"/"index.jsonl")
    (tmp_path/"clips.pack"/"pack.json").write_text(json.dumps(note))
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\n" + "a-" * 60_000 + ",1,2\n")
    prepare = "prepare", healthy/"stream.mka", "--labels", tmp_path/"labels.csv", "-o", tmp_path/"clips"
    for words in (("info", tmp_path/"clips.pack"), prepare):
        began = time.monotonic()
        assert len(printed(*words)) < 3000 and time.monotonic() - began < 20


def test_playlists_and_promises(healthy, tmp_path):
    "Media files that lead to others or claim an endless length; a pipe instead of a clip."
    lines = "#EXTM3U", "#EXT-X-TARGETDURATION:10", "#EXTINF:8.0,", str(healthy/"stream.mka"), "#EXT-X-ENDLIST", ""
    (tmp_path/"list.m3u8").write_text("\n".join(lines))
    (tmp_path/"list.mkv").write_text("ffconcat version 1.0\nfile stream.mka\n")
    shutil.copy(healthy/"stream.mka", tmp_path/"stream.mka")
    for name in ("list.m3u8", "list.mkv"):
        printed("detect", "--model", healthy/"model.pt", tmp_path/name, "-o", tmp_path/"out")
    content = (healthy/"stream.mka").read_bytes()
    at = content.find(b"\x44\x89\x88") + 3
    (tmp_path/"stream.mka").write_bytes(content[:at] + struct.pack(">d", 1e15) + content[at + 8:])
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\nstream,1,2\n")
    printed("prepare", tmp_path/"stream.mka", "--labels", tmp_path/"labels.csv", "-o", tmp_path/"clips")
    os.mkfifo(tmp_path/"pipe.pt")
    printed("info", tmp_path/"pipe.pt")


@pytest.mark.parametrize("words", [
    ("train", "{}", "-o", "x"), ("train", "clips", "--init", "{}", "-o", "x"), ("fetch", "{}"),
    ("pack", "{}", "-o", "x.pack"), ("info", "{}"), ("evaluate", "{}", "clips"), ("evaluate", "model.pt", "{}"),
    ("audit", "{}", "clips"),
    ("prepare", "{}", "--labels", "x.csv", "-o", "x"), ("detect", "x.mka", "-o", "x", "--model", "{}"),
    ("publish", "{}")])
def test_addresses_with_secrets(words, tmp_path, monkeypatch):
    "A message about an address instead of a path does not repeat its password."
    monkeypatch.chdir(tmp_path)
    output = printed(*(word.format("https://user:SECRET@example.org/clips?token=TOKEN") for word in words))
    assert "SECRET" not in output and "TOKEN" not in output


@pytest.mark.parametrize("words", [
    ("detect", "--model", "MODEL", "STREAM", "-o", "OUT", "--merge", 1e308),
    ("detect", "--model", "MODEL", "STREAM", "-o", "OUT", "--batch-size", 10**20),
    ("detect", "--model", "MODEL", "STREAM", "-o", "OUT", "--max-length", 1e300),
    ("detect", "--model", "MODEL", "x" * 10_000, "-o", "OUT"), ("detect", "x" * 300 + ".pt", "-o", "OUT"),
    ("detect", "--model", "MODEL", "STREAM", "-o", "x" * 300), ("pack", "CLIPS", "-o", "OUT.pack", "--threads", 0),
    ("demo", "-o", "OUT", "--seed", 2**32), ("train", "CLIPS", "-o", "OUT", "--pos-weight", 1e308),
    ("train", "CLIPS", "-o", "OUT", "--max-duration-s", 1e308), ("info", "x" * 5000),
    ("evaluate", "MODEL", "CLIPS", "--device", "meta")], ids=lambda words: f"{words[0]} {str(words[-1])[:9]}")
def test_odd_numbers_and_names(healthy, tmp_path, words):
    "Numbers and names too large for a clock, a counter or a disk get one line."
    places = {"MODEL": healthy/"model.pt", "CLIPS": healthy/"clips", "STREAM": healthy/"stream.mka",
              "OUT": tmp_path/"out", "OUT.pack": tmp_path/"out.pack"}
    printed(*(places.get(word, word) for word in words))


def test_two_of_one_rank(healthy, tmp_path):
    "Clips are named by their ranks: two of the same rank would be one file."
    shutil.copytree(healthy/"found", tmp_path/"found")
    place = tmp_path/"found"/"stream"/"highlights.json"
    record = json.loads(place.read_text())
    place.write_text(json.dumps({**record, "highlights": 2 * record["highlights"][:1]}))
    assert "two highlights with the same rank" in printed("publish", tmp_path/"found")


def test_long_names(healthy, tmp_path):
    "A recording with the longest possible name is published."
    stream = tmp_path/f"{'ж' * 125}.mka"
    shutil.copy(healthy/"stream.mka", stream)
    printed("detect", "--model", healthy/"model.pt", stream, "-o", tmp_path/"found", "--top", 1, code=0)
    printed("publish", tmp_path/"found", code=0)
    assert (tmp_path/"found"/stream.stem/"timelines"/f"{'ж' * 100}.edl").exists()


def test_foreign_files_stay(healthy, tmp_path):
    "Foreign files where an export, an unfinished pack or clips would be written."
    (tmp_path/"notes.bin").write_text("precious")
    output = printed("export", healthy/"model.pt", "-o", tmp_path/"notes.xml")
    assert "found a file that highlight-sense did not write" in output
    (tmp_path/"new.pack.part").mkdir()
    (tmp_path/"new.pack.part"/"holiday.jpg").write_text("precious")
    (tmp_path/"none"/"Positive").mkdir(parents=True)
    printed("pack", tmp_path/"none", "-o", tmp_path/"new.pack")
    assert (tmp_path/"notes.bin").read_text() == (tmp_path/"new.pack.part"/"holiday.jpg").read_text() == "precious"
    shutil.copytree(healthy/"clips", tmp_path/"clips")
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\nstream,1,2\n")
    lengths = "--negative-s", 1, "--lengths", 43, 86, 1
    options = "--labels", tmp_path/"labels.csv", "-o", tmp_path/"clips", "--overwrite", *lengths
    words = "prepare", healthy/"stream.mka", *options
    assert "clips that `prepare` did not make" in printed(*words) and len(list_clips(tmp_path/"clips")) == CLIPS
    words = [tmp_path/"made" if word == tmp_path/"clips" else word for word in words]
    printed(*words, code=0)
    for name in ("made.new", "run"): (tmp_path/name).mkdir()
    precious = "made.new/notes.txt", "run/config.json", "run/.thesis.part1.docx"
    for name in precious: (tmp_path/name).write_text("precious")
    printed(*words, "--seed", 9, code=0)
    output = printed("train", healthy/"clips", "-o", tmp_path/"run", *TRAINING)
    assert "config.json: found a file that highlight-sense did not write" in output
    (tmp_path/"run"/"config.json").rename(tmp_path/"run"/"mine.json")
    printed("train", healthy/"clips", "-o", tmp_path/"run", *TRAINING, code=0)
    kept = "made.new/notes.txt", "run/mine.json", "run/.thesis.part1.docx"
    assert {(tmp_path/name).read_text() for name in kept} == {"precious"}


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes here")
@pytest.mark.parametrize("name", [
    "labels.csv", "stream.mka", "found/highlights.json", "run/config.json",
    "clips.pack/index.jsonl", "clips.pack/mels.npy"])
def test_pipes(healthy, tmp_path, name):
    "No command waits for a pipe that nothing writes to."
    (tmp_path/name).parent.mkdir(parents=True, exist_ok=True)
    if name.startswith("clips.pack"):
        shutil.copytree(healthy/"clips.pack", tmp_path/"clips.pack", dirs_exist_ok=True)
        (tmp_path/name).unlink()
    os.mkfifo(tmp_path/name)
    calls = {"labels.csv": ("evaluate", healthy/"model.pt", healthy/"stream.mka", "--labels", tmp_path/name),
             "stream.mka": ("info", tmp_path/name), "found/highlights.json": ("publish", tmp_path/"found"),
             "run/config.json": ("train", "-o", tmp_path/"again", "--from-run", tmp_path/"run")}
    printed(*calls.get(name, ("info", tmp_path/"clips.pack")))


LISTENING = '''
import socket, sys
def asked(host, *rest, **named): print("asked for", host, flush=True); raise OSError("nobody there")
socket.getaddrinfo = asked
from highlight_sense.cli import main
main(sys.argv[1:])
'''


def test_export_reports_to_nobody(healthy, tmp_path):
    "OpenVINO would report to its makers what it converts."
    words = [str(word) for word in ("export", healthy/"model.pt", "-o", tmp_path/"network.xml")]
    (tmp_path/"home").mkdir()
    environment = {name: value for name, value in os.environ.items() if name != "CI"}  # where it is silent anyway
    environment["HOME"], command = str(tmp_path/"home"), [sys.executable, "-c", LISTENING, *words]
    ended = subprocess.run(command, env=environment, text=True, capture_output=True, timeout=200)
    assert ended.returncode == 0 and ended.stdout.startswith("wrote"), ended.stderr[-2000:]
    assert "asked for" not in ended.stdout, ended.stdout
    assert not (tmp_path/"home"/"intel").exists()
