"""Damaged and hostile files by the thousand: each must give finite results, or one clear line and exit code 2.

    python tests/robustness/fuzz.py 50000 --processes 2     cases of all kinds in turn
    python tests/robustness/fuzz.py --case media:1234       one case again, in the folder that it prints

A case is a kind of file and a number; its damage depends on nothing else. Findings are uncaught exceptions, missing or
broken messages, non-finite results, crashed processes, and cases that take more than a minute or more than 2 GiB. They
are printed as they appear, and the exit code is then 1.
"""
import argparse
import contextlib
import copy
import faulthandler
import io
import json
import math
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # as pytest does
from running import run

SLOWEST_S, MOST_BYTES = 60, 2 * 2**30
HOSTILE = (
    None, True, -1, 0, 1.5, 2**31, 2**63, 10**30, 1e308, math.nan, math.inf,
    "", "x" * 5000, "../../../../tmp/out", "/etc/passwd", "=1+1", "<b>&'\"", "a\nb\r\x00\x1b[2J", "\ud800",
    "\u202e\u0301é",
    [], {}, [[]], {"a": {}}, [1, "a", None], ["x"] * 100)


# --- the files that are damaged

def make_originals(root: Path) -> None:
    "Write one healthy file of each kind."
    import torch

    from highlight_sense.checkpoint import EventDecision, save_checkpoint, save_decision
    from highlight_sense.config import ModelConfig, TrainConfig
    from highlight_sense.media import write_recording
    from highlight_sense.model import HighlightCRNN
    from highlight_sense.pack_source import read_for_pack
    from highlight_sense.packing import PackWriter
    from highlight_sense.run import train
    small = {"cnn_channels": (4, 4, 8, 8), "rnn_hidden": 8, "att_dim": 8}
    rng = np.random.default_rng(0)
    clips = root/"clips"
    for number in range(12):
        mel = torch.from_numpy(rng.normal(-8, 2, (2, 80, 30 + 5 * number)).astype(np.float32))
        place = clips/("Positive" if number % 2 else "Negative")/"game"/f"stream{number // 4}_part{number % 4}.pt"
        place.parent.mkdir(parents=True, exist_ok=True)
        record = {"tensor": mel, "clip_name": place.stem, "game": "game", "label": number % 2}
        torch.save(record | {"highlights_s": [[0.1, 0.5]]}, place)
    torch.manual_seed(0)
    model = HighlightCRNN(**small)
    save_checkpoint(root/"ours.pt", model, epochs=1, max_frames=130, threshold=0.4, metrics={"ap": 0.5},
                    calibration={"temperature": 1.2, "offset": 0.1})
    save_decision(root/"ours.pt", 0.6, EventDecision("F1", 2, 1.0, 9, 0.9, 0.8, 0.85, 2.0, 0.7))
    torch.save({"model": model.state_dict(), "epochs": 1}, root/"notebook.pt")
    names = {".norm.": ".bn.", "attn.fc1.": "attention.W.", "attn.fc2.": "attention.V."}
    published = dict(model.state_dict())
    for ours, theirs in names.items():
        published = {name.replace(ours, theirs): value for name, value in published.items()}
    torch.save({"model": published}, root/"published.pt")
    with zipfile.ZipFile(root/"shard.zip", "w", zipfile.ZIP_DEFLATED) as shard:
        for path in sorted(clips.rglob("*.pt")): shard.write(path, path.relative_to(clips))
    recordings = root/"recordings"
    recordings.mkdir()
    seconds = np.arange(6 * 22_050) / 22_050
    tracks = {}
    for title, hz in (("Mic/Aux", 300), ("Desktop Audio", 900)):
        sound = 0.2 * np.sin(2 * np.pi * hz * seconds) * (seconds % 2 < 1) + rng.normal(0, 0.01, len(seconds))
        tracks[title] = sound.astype(np.float32)
    write_recording(recordings/"stream.mkv", tracks, 22_050, "aac")
    for ending in ENDINGS[1:]: convert(recordings/"stream.mkv", recordings/f"stream.{ending}")
    (root/"labels.csv").write_text("recording,start_s,end_s\nstream.mkv,1.0,2.0\nstream.mkv,4,5.5\n")
    for call in (["pack", clips, "-o", root/"clips.pack"],
                 ["detect", "--model", root/"ours.pt", recordings/"stream.mkv", "-o", root/"found", "--top", "2"]):
        code, _, wrong = run(*call)
        if code: raise SystemExit(f"the originals could not be made: {wrong}")
    join_parts(root/"found"/"stream"/"highlights.json")
    short = TrainConfig(
        epochs=2, batch_size=4, max_duration_s=3, device="cpu", precision="fp32", val_split=0.4, workers=0)
    train(clips, root/"run", short, ModelConfig(**small), progress=False)
    for picture in (root/"run").glob("*.png"): picture.unlink()
    (root/"interrupted").mkdir()
    writer = PackWriter(root/"interrupted")
    for path in sorted(map(str, clips.rglob("*.pt")))[:7]: writer.add(read_for_pack(path, clips))
    writer.flush()


ENDINGS = ("mkv", "mp4", "ts", "flv", "mov")


def join_parts(path: Path) -> None:
    "Make the first highlight of a short recording a streak of two."
    record = json.loads(path.read_text())
    part = {name: record["highlights"][0][name] for name in ("start_s", "end_s", "peak_s", "probability")}
    record["highlights"][0]["parts"] = [part, part]
    path.write_text(json.dumps(record))


def convert(source: Path, target: Path) -> None:
    "Copy the packets into another container."
    import av
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        for packet in old.demux():
            if packet.dts is None: continue
            packet.stream = streams[packet.stream_index]
            new.mux(packet)


# --- damage

def damaged(content: bytes, rng: np.random.Generator) -> bytes:
    "Change, remove or repeat some of the bytes."
    data = bytearray(content)
    for _ in range(int(rng.integers(1, 5))):
        if not data: return bytes(data)
        at = int(rng.integers(len(data)) if rng.random() < 0.7 else min(len(data) - 1, rng.integers(200)))
        size = int(rng.choice([1, 2, 4, 8, 64, 1000]))
        kind = rng.integers(7)
        if kind == 0: data[at] ^= 1 << int(rng.integers(8))
        elif kind == 1: data[at:at + size] = rng.bytes(size)
        elif kind == 2: data[at:at + size] = bytes([int(rng.choice([0, 255, 127, 128]))]) * size
        elif kind == 3: del data[at:at + size]
        elif kind == 4: data[at:at] = data[at:at + size]
        elif kind == 5:
            number = int(rng.choice([0, 1, 2**31 - 1, 2**31, 2**32 - 1]))
            data[at:at + 4] = number.to_bytes(4, str(rng.choice(["little", "big"])))
        else: del data[at:]
    return bytes(data)


def damaged_member(content: bytes, rng: np.random.Generator) -> bytes:
    "Damage one member of a zip archive and fix its checksum, or rename, repeat or remove the member."
    with zipfile.ZipFile(io.BytesIO(content)) as whole:
        members = [(entry.filename, whole.read(entry)) for entry in whole.infolist()]
    chosen, how = int(rng.integers(len(members))), rng.random()
    name, inside = members[chosen]
    if how < 0.7: members[chosen] = name, damaged(inside, rng)
    elif how < 0.8:
        others = ["../" * 5 + "tmp/out.pt", "/tmp/out.pt", "Positive/game/a\nb.pt", name + "\x1b[2J.pt", "/"]
        members[chosen] = str(rng.choice(others)), inside
    elif how < 0.9: members.append((name, inside))
    else: del members[chosen]
    method, out = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)[int(rng.random() < 0.2)], io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", method) as archive:
        warnings.simplefilter("ignore")
        for name, inside in members: archive.writestr(name, inside)
    return out.getvalue()


def places(value: object, path: tuple = ()) -> Iterator[tuple]:
    "The path of every value inside a nested one."
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in inside:
        yield (*path, key)
        yield from places(part, (*path, key))


def twisted(value: object, rng: np.random.Generator, hostile: Callable[[np.random.Generator], object]) -> object:
    "Remove or replace some values inside a nested one."
    ways = list(places(value))
    for _ in range(int(rng.integers(1, 4))):
        *way, key = ways[int(rng.integers(len(ways)))]
        holder = value
        try:
            for step in way: holder = holder[step]
            if rng.random() < 0.2: del holder[key]
            else: holder[key] = hostile(rng)
        except Exception: continue  # an earlier change removed it, or it is a tensor
    return value


def hostile_value(rng: np.random.Generator) -> object:
    "A value that no reader expects."
    return copy.deepcopy(HOSTILE[int(rng.integers(len(HOSTILE)))])


def hostile_tensor(rng: np.random.Generator) -> object:
    "A value or tensor that no reader expects in a `.pt` file."
    import torch
    tensors = (
        torch.zeros(()), torch.zeros(0), torch.full((2, 80, 9), math.nan), torch.zeros(2, 80, 9) + 1e30,
        torch.zeros(1).expand(2, 80, 10**9), torch.ones(3, 80, 9), torch.zeros(2, 80, 9, dtype=torch.int64),
        torch.zeros(2, 80, 9, dtype=torch.complex64), torch.zeros(2, 80, 9).to_sparse(), torch.zeros(2, 80, 0),
        torch.zeros(1).expand(10**6, 10**6), torch.zeros(2, 80, 1),
        torch.zeros(2, 80, 9, dtype=torch.float64) - 1e300, torch.ones(2, 80, 9, dtype=torch.bool))
    return tensors[int(rng.integers(len(tensors)))] if rng.random() < 0.5 else hostile_value(rng)


def damage_record(path: Path, rng: np.random.Generator) -> None:
    "Damage a file of `torch.save`: its bytes, a member, or its values."
    import torch
    kind = rng.random()
    if kind < 0.3: path.write_bytes(damaged(path.read_bytes(), rng))
    elif kind < 0.6: path.write_bytes(damaged_member(path.read_bytes(), rng))
    else:
        record = torch.load(path, weights_only=True)
        record = twisted(record, rng, hostile_tensor) if rng.random() < 0.95 else hostile_tensor(rng)
        torch.save(record, path)


def damage_json(path: Path, rng: np.random.Generator) -> None:
    "Damage a file of JSON or JSON lines: its bytes or its values."
    text = path.read_text()
    if rng.random() < 0.3:
        path.write_bytes(damaged(text.encode(), rng))
        return
    lines = path.suffix == ".jsonl"
    whole = twisted([json.loads(line) for line in text.splitlines()] if lines else json.loads(text), rng, hostile_value)
    path.write_text("".join(json.dumps(row) + "\n" for row in whole) if lines else json.dumps(whole))


CELLS = [
    "", "nan", "inf", "-1", "1e400", "0x10", "1;2", '"', "stream", "../stream.mkv", "é\x00", "9" * 400, "=1+1", "1e6"]


def damage_table(path: Path, rng: np.random.Generator) -> None:
    "Damage a CSV file: its bytes, or some of its cells."
    text = path.read_text()
    if rng.random() < 0.4:
        path.write_bytes(damaged(text.encode(), rng))
        return
    rows = [line.split(",") for line in text.splitlines()]
    for _ in range(int(rng.integers(1, 4))):
        row = rows[int(rng.integers(len(rows)))]
        if row: row[int(rng.integers(len(row)))] = str(rng.choice(CELLS))
    path.write_text("\n".join(",".join(row) for row in rows), errors="replace")


# --- kinds of cases: each damages a copy in `place` and returns the commands to run

def clip_case(root: Path, place: Path, rng: np.random.Generator) -> list[list[str]]:
    "A clip, alone and among others."
    shutil.copytree(root/"clips", place/"clips")
    path = place/"clips"/"Positive"/"game"/"stream0_part1.pt"
    damage_record(path, rng)
    evaluate = ["evaluate", root/"ours.pt", place/"clips", "--json", "--workers", "0"]
    return [["info", path], evaluate] if rng.random() < 0.2 else [["info", path]]


def shard_case(root: Path, place: Path, rng: np.random.Generator) -> list[list[str]]:
    "A zip archive of clips to pack."
    (place/"clips").mkdir()
    content = (root/"shard.zip").read_bytes()
    damage = damaged_member if rng.random() < 0.6 else damaged
    (place/"clips"/"shard.zip").write_bytes(damage(content, rng))
    return [["pack", place/"clips", "-o", place/"new.pack", "--threads", "1"], ["info", place/"new.pack"]]


def pack_case(root: Path, place: Path, rng: np.random.Generator) -> list[list[str]]:
    "A pack, mostly with its digest corrected after the damage."
    from highlight_sense.files import hash_file
    shutil.copytree(root/"clips.pack", place/"clips.pack")
    name = str(rng.choice(["index.jsonl", "index.jsonl", "pack.json", "mels.npy"]))
    path = place/"clips.pack"/name
    if name == "mels.npy": path.write_bytes(damaged(path.read_bytes(), rng))
    else: damage_json(path, rng)
    if name == "index.jsonl" and rng.random() < 0.8:
        known = json.loads((place/"clips.pack"/"pack.json").read_text())
        (place/"clips.pack"/"pack.json").write_text(json.dumps({**known, "index_sha256": hash_file(path)}))
    info = ["info", place/"clips.pack"]
    evaluate = ["evaluate", root/"ours.pt", place/"clips.pack", "--json", "--workers", "0"]
    return [info, evaluate] if rng.random() < 0.3 else [info]


def checkpoint_case(root: Path, place: Path, rng: np.random.Generator) -> list[list[str]]:
    "A checkpoint of any dialect."
    path = place/"model.pt"
    shutil.copy(root/str(rng.choice(["ours.pt", "ours.pt", "notebook.pt", "published.pt"])), path)
    damage_record(path, rng)
    recording = root/"recordings"/"stream.mkv"
    detect = ["detect", "--model", path, recording, "-o", place/"found", "--top", "1", "--window", "3"]
    return [["info", path], detect] if rng.random() < 0.25 else [["info", path]]


def labels_case(root: Path, place: Path, rng: np.random.Generator) -> list[list[str]]:
    "Labels, to cut clips or to evaluate with."
    shutil.copy(root/"labels.csv", place/"labels.csv")
    damage_table(place/"labels.csv", rng)
    recording = root/"recordings"/"stream.mkv"
    labels = ["--labels", place/"labels.csv"]
    if rng.random() < 0.3: return [["evaluate", root/"ours.pt", recording, *labels, "--json"]]
    return [["prepare", recording, *labels, "-o", place/"new", "--negative-s", "1", "--lengths", "43", "86", "1"]]


def found_case(root: Path, place: Path, rng: np.random.Generator) -> list[list[str]]:
    "A detection to publish."
    from highlight_sense.results import MANIFEST
    shutil.copytree(root/"found", place/"found")
    name = str(rng.choice(["highlights.json"] * 5 + ["highlights.csv"] * 2 + ["scores.csv", "manifest"]))
    path = next((place/"found").rglob(MANIFEST if name == "manifest" else name))
    (damage_table if path.suffix == ".csv" else damage_json)(path, rng)
    kinds = [["--chapters", "--timeline"]]
    if rng.random() < 0.1: kinds = [["--chapters"], ["--timeline"], ["--clips"], ["--report"]]
    return [["publish", place/"found", *kind] for kind in kinds]


def media_case(root: Path, place: Path, rng: np.random.Generator) -> list[list[str]]:
    "A short recording."
    source = root/"recordings"/f"stream.{rng.choice(ENDINGS)}"
    path = place/f"stream{source.suffix}"
    path.write_bytes(damaged(source.read_bytes(), rng))
    detect = ["detect", "--model", root/"ours.pt", path, "-o", place/"found", "--top", "1"]
    return [["info", path], detect] if rng.random() < 0.3 else [["info", path]]


def interrupted_case(root: Path, place: Path, rng: np.random.Generator) -> list[list[str]]:
    "An interrupted pack to resume."
    clips, part = place/"clips", place/"new.pack.part"
    shutil.copytree(root/"clips", clips)
    shutil.copytree(root/"interrupted", part)
    (part/"source.json").write_text(json.dumps({"source": str(clips), "folder": str(clips)}))
    path = part/str(rng.choice(["index.jsonl", "index.jsonl", "mels.npy", "source.json"]))
    if path.name == "mels.npy": path.write_bytes(damaged(path.read_bytes(), rng))
    else: damage_json(path, rng)
    return [["pack", clips, "-o", place/"new.pack", "--threads", "1", *["--consume"][:int(rng.integers(2))]]]


def run_case(root: Path, place: Path, rng: np.random.Generator) -> list[list[str]]:
    "A run folder to describe, resume or repeat."
    shutil.copytree(root/"run", place/"run")
    path = place/"run"/str(rng.choice(["last.pt", "last.pt", "best.pt", "config.json"]))
    if path.suffix == ".pt": damage_record(path, rng)
    else: damage_json(path, rng)
    if rng.random() < 0.9: return [["info", path]] if path.suffix == ".pt" else []
    if rng.random() < 0.6: return [["train", "-o", place/"run", "--resume"]]
    return [["train", "-o", place/"again", "--from-run", place/"run"]]


KINDS = {
    "clip": clip_case, "shard": shard_case, "pack": pack_case, "checkpoint": checkpoint_case, "labels": labels_case,
    "found": found_case, "media": media_case, "interrupted": interrupted_case, "run": run_case}


# --- running a case

def refuse_constant(word: str) -> float:
    "Refuse NaN and infinity, which JSON does not have."
    raise ValueError(f"{word} in the result")


def require_finite(call: list[str], printed: str, place: Path) -> None:
    "Raise `ValueError` if the results of a successful call are not finite."
    if "--json" in call: json.loads(printed, parse_constant=refuse_constant)
    if call[0] != "detect": return
    for path in (place/"found").rglob("highlights.json"): json.loads(path.read_text(), parse_constant=refuse_constant)
    for path in place.rglob("scores.csv"):
        if any(word in path.read_text().lower() for word in ("nan", "inf")): raise ValueError("non-finite scores")


def complaint(call: list[str], place: Path) -> str | None:
    "Run a command and return what is wrong with how it ended, or None."
    try:
        code, printed, wrong = run(*call)
        logged = [line for line in wrong.replace("\r", "\n").splitlines() if line.startswith("highlight-sense: ")]
        lines = [line for line in logged if not line.startswith("highlight-sense: warning: ")]
        if code == 0:
            require_finite(call, printed, place)
            return None
        if code != 2 or not wrong.strip(): return f"exit code {code}, {wrong[-300:]!r}"
        if len(lines) != 1 or "expected" not in wrong or not lines[0].isprintable():
            return f"{len(lines)} lines: {wrong[-600:]!r}"
    except (Exception, KeyboardInterrupt): return traceback.format_exc(limit=-3)
    return None


def packed_clips(folder: Path, digests: dict[str, int]) -> set[str]:
    "The undamaged clips in a pack, finished or not."
    try: lines, frames = (folder/"index.jsonl").read_bytes().splitlines(), (folder/"mels.npy").read_bytes()[128:]
    except OSError: return set()
    found = set()
    for line in lines:
        with contextlib.suppress(ValueError, TypeError, KeyError, RecursionError):  # this line is damaged
            row = json.loads(line)
            content = frames[320 * row["offset"]:320 * (row["offset"] + row["frames"])]
            if zlib.crc32(content) == digests.get(row["clip"]): found.add(row["clip"])
    return found


def lost_clips(root: Path, place: Path) -> set[str]:
    "The clips of a folder that are now neither there nor in the pack."
    digests = {row["clip"]: row["crc32"] for row in map(json.loads, open(root/"clips.pack"/"index.jsonl"))}
    left = {path.relative_to(place/"clips").as_posix() for path in (place/"clips").rglob("*.pt")}
    packed = packed_clips(place/"new.pack", digests) | packed_clips(place/"new.pack.part", digests)
    return digests.keys() - left - packed


def findings_of(root: Path, kind: str, number: int, place: Path) -> list[str]:
    "Run a case and return its findings."
    before = set(os.listdir(root)) | set(os.listdir(place.parent))
    calls = KINDS[kind](root, place, np.random.default_rng([list(KINDS).index(kind), number]))
    complaints = [(call[0], complaint(call, place)) for call in calls]
    found = [f"{verb}: {wrong}" for verb, wrong in complaints if wrong]
    if set(os.listdir(root)) | set(os.listdir(place.parent)) != before: found.append("a file outside its folder")
    lost = lost_clips(root, place) if kind == "interrupted" else ()
    if lost: found.append(f"lost: {', '.join(sorted(lost))}")
    return found


def work(root: Path, first: int, last: int, step: int) -> None:
    "Run cases; print the name of each before it and its findings after it."
    import torch
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + MOST_BYTES,) * 2)
    for number in range(first, last, step):
        kind = list(KINDS)[number % len(KINDS)]
        print(json.dumps({"case": f"{kind}:{number}", "number": number}), flush=True)
        faulthandler.dump_traceback_later(SLOWEST_S, exit=True)
        with tempfile.TemporaryDirectory(dir=root.parent) as folder:
            place = Path(folder, "case")
            place.mkdir()
            for finding in findings_of(root, kind, number, place): print(json.dumps({"found": finding}), flush=True)
        faulthandler.cancel_dump_traceback_later()


def fuzz(cases: int, first: int = 0, processes: int = 1) -> list[tuple[str, str]]:  # case, what happened
    "Run cases in separate processes; start a new one when one dies."
    found = []
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "originals")
        root.mkdir()
        make_originals(root)
        starts = [first + number for number in range(processes)]
        running = {number: start_work(root, starts[number], first + cases, processes) for number in range(processes)}
        case = {}
        while running:
            for number, process in list(running.items()):
                for line in process.stdout:
                    record = json.loads(line)
                    if "case" in record:
                        case[number] = record
                        break
                    found.append((case[number]["case"], record["found"]))
                    print(f"{case[number]['case']}  {record['found']}", flush=True)
                else:
                    if process.wait():
                        log = Path(folder, f"log-{starts[number]}").read_text(errors="replace")[-1500:]
                        found.append((case[number]["case"], f"died with {process.returncode}: {log}"))
                        print(*found[-1], flush=True)
                        starts[number] = case[number]["number"] + processes
                        running[number] = start_work(root, starts[number], first + cases, processes)
                    else: del running[number]
    return found


def start_work(root: Path, first: int, last: int, step: int) -> subprocess.Popen:
    "Start a process that runs cases."
    log = open(root.parent/f"log-{first}", "w")
    command = [sys.executable, __file__, "--work", root, str(first), str(last), str(step)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="?", type=int, default=2000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--case")
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(Path(options.work[0]), *map(int, options.work[1:]))
        return
    if options.case:
        kind, number = options.case.split(":")
        folder = Path(tempfile.mkdtemp())
        for name in ("originals", "case"): (folder/name).mkdir()
        make_originals(folder/"originals")
        print(folder, *findings_of(folder/"originals", kind, int(number), folder/"case"), sep="\n")
        return
    found = fuzz(options.cases, options.first, options.processes)
    print(f"{options.cases} cases, {len(found)} findings")
    sys.exit(bool(found))


if __name__ == "__main__": main()
