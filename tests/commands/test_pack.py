"Packing by real processes: killed anywhere, two at a time, and where files cannot be removed."
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from running import launch, needs_fork, run

from highlight_sense.clip_files import list_clips
from highlight_sense.files import hash_file

PARTS = ("mels.npy", "index.jsonl", "pack.json")
MOMENTS = 4  # of a kill, for each way to pack

FEW = '''
import kagglehub.config
import highlight_sense.packing
highlight_sense.packing._FLUSH_BYTES = 100_000  # a few clips
'''


def call(*arguments: object) -> tuple[int, str]:
    "The exit code of a command and the last line of its error stream."
    code, _, err = run(*arguments)
    return code, re.split(r"[\r\n]+", err.strip())[-1]


def write_clips(root: Path, number: int) -> Path:
    "Clips of noise, a third of them in an archive."
    rng = np.random.default_rng(number)
    for n in range(number):
        place = root/("Positive", "Negative")[n % 2]/"apex"/f"stream{n // 4}_part{n % 4}.pt"
        place.parent.mkdir(parents=True, exist_ok=True)
        mel = rng.normal(-8, 3, (2, 80, int(rng.integers(20, 200)))).astype(np.float32)
        torch.save({"tensor": torch.from_numpy(mel)}, place)
    with zipfile.ZipFile(root/"shard.zip", "w") as archive:
        for path in sorted(root.rglob("*.pt"))[::3]:
            archive.write(path, path.relative_to(root).as_posix())
            path.unlink()
    return root


def contents(pack: Path) -> dict[str, str]:
    "The digests of a pack's parts."
    names = {path.name for path in pack.iterdir()}
    assert names - {"source.json"} == set(PARTS)  # a kill just after the renaming leaves source.json behind
    return {name: hash_file(pack/name) for name in PARTS}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A folder for everything."
    return tmp_path_factory.mktemp("pack")


@pytest.fixture(scope="module")
def many(place) -> tuple[Path, dict[str, str]]:
    "Clips, and the digests of their pack when nothing goes wrong."
    clips = write_clips(place/"many"/"clips", 90)
    assert call("pack", clips, "-o", place/"many.pack")[0] == 0
    return clips, contents(place/"many.pack")


def check_resuming(folder: Path, whole: dict[str, str], consume: list[str]) -> None:
    "A second call after a kill gives the same pack as if nothing had happened."
    if not (folder/"clips.pack").exists():
        assert call("pack", folder/"clips", "-o", folder/"clips.pack", *consume)[0] == 0
    assert contents(folder/"clips.pack") == whole, folder
    assert not (folder/"clips.pack.part").exists()
    if consume: assert not list_clips(folder/"clips") and not (folder/"clips"/"shard.zip").exists()


@pytest.mark.long
@needs_fork
@pytest.mark.parametrize("consume", [[], ["--consume"]], ids=["keeping", "consuming"])
def test_killed_at_any_moment(consume, many, place, times):
    "By `kill -9`, at random; every second time, the resumed call is killed as well."
    clips, whole = many
    kills = times * MOMENTS
    folders = [place/f"moment{len(consume)}-{n}" for n in range(kills + 1)]
    for folder in folders: shutil.copytree(clips, folder/"clips")
    moments = np.random.default_rng(len(consume)).uniform(0.05, 0.95, (kills, 2)).round(3).tolist()
    ended = launch(FEW + '''
folders, moments, consume = json.loads(sys.argv[1])
run = lambda folder: start(["pack", folder + "/clips", "-o", folder + "/clips.pack", *consume])
began = time.monotonic()
ended = [status(run(folders[-1]))]
whole_s = time.monotonic() - began
for n, (folder, pair) in enumerate(zip(folders, moments)):
    for moment in pair[:1 + n % 2]:
        ended.append(kill_after(run(folder), moment * whole_s))
print(json.dumps(ended))
''', folders, moments, consume, timeout_s=times * 600)
    assert ended[0] == 0 and ended.count(-9) >= kills - times, ended
    for folder in folders: check_resuming(folder, whole, consume)


@needs_fork
def test_killed_before_every_step(place):
    "By `kill -9`, just before each sync, renaming and removal."
    clips = write_clips(place/"few"/"clips", 6)
    assert call("pack", clips, "-o", place/"few.pack")[0] == 0
    whole = contents(place/"few.pack")
    ended = launch(FEW + '''
STEPS = "fsync", "replace", "unlink"
clips, place = json.loads(sys.argv[1])
ended = []
while 0 not in ended:
    folder = f"{place}/step{len(ended)}"
    shutil.copytree(clips, folder + "/clips")
    command = ["pack", folder + "/clips", "-o", folder + "/clips.pack", "--consume"]
    ended.append(status(start(command, lambda: die_at(len(ended) + 1, names=STEPS))))
print(json.dumps(ended))
''', clips, place)
    assert len(ended) > 12 and set(ended[:-1]) == {-9}, ended
    for n in range(len(ended)): check_resuming(place/f"step{n}", whole, ["--consume"])


WAITING = '''
import sys, time
from pathlib import Path
from highlight_sense import packing
go, packing._FLUSH_BYTES, add = Path(sys.argv[3]), 100_000, packing.PackWriter.add
def wait(writer, clip):  # with a few rows in the index, and a clip that is not safe yet
    add(writer, clip)
    while len(writer.rows) > 5 and writer.fresh and not go.exists():
        Path(sys.argv[3] + ".ready").touch(); time.sleep(0.02)
packing.PackWriter.add = wait
packing.pack_clips(sys.argv[1], sys.argv[2], consume=True, progress=False)
'''


@pytest.mark.skipif(sys.platform == "win32", reason="no locks there")
def test_two_processes(many, place):
    "The second refuses and takes nothing away from the first."
    clips, whole = many
    shutil.copytree(clips, place/"two"/"clips")
    arguments = [str(place/"two"/"clips"), str(place/"two"/"clips.pack"), str(place/"two"/"go")]
    process = subprocess.Popen([sys.executable, "-c", WAITING, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        patience = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < patience:
            if (place/"two"/"go.ready").exists(): break
            time.sleep(0.02)
        growing = place/"two"/"clips.pack.part"
        sizes = [(path.name, path.stat().st_size) for path in sorted(growing.iterdir())]
        left = list_clips(place/"two"/"clips")
        for consume in ([], ["--consume"]):
            code, complaint = call("pack", *arguments[:1], "-o", arguments[1], *consume)
            assert code == 2 and "another process that writes into this folder, expected none; wait" in complaint
        assert sizes == [(path.name, path.stat().st_size) for path in sorted(growing.iterdir())] and 0 < len(left) < 90
        assert left == list_clips(place/"two"/"clips")
        (place/"two"/"go").touch()
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
    check_resuming(place/"two", whole, ["--consume"])
    assert "found a folder of that name" in call("pack", clips, "-o", place/"two"/"clips.pack")[1]


@needs_fork
def test_files_that_cannot_be_removed(many):
    "The command notices before it packs the first clip; without --consume it works."
    clips, whole = many
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o777)  # for a user other than root, whom no permission stops
        shutil.copytree(clips, place/"clips")
        for path in (place/"clips", *(place/"clips").rglob("*")): path.chmod(0o777)
        (place/"clips"/"Negative"/"apex").chmod(0o555)
        command = ["pack", str(place/"clips"), "-o", str(place/"clips.pack")]
        ended = launch(FEW + '''
command, errors, warm = json.loads(sys.argv[1])
import highlight_sense.cli
highlight_sense.packing.pack_clips(command[1], warm, progress=False)  # imports what another user perhaps cannot read
highlight_sense.cli.parse(command)  # so does this
nobody = lambda: os.setuid(65534) if os.getuid() == 0 else None
print(json.dumps([status(start(command + ["--consume"], nobody, errors)), status(start(command, nobody))]))
''', command, place/"errors", place/"warm.pack")
        complaint = (place/"errors").read_text().strip().splitlines()
        assert ended == [2, 0], "\n".join(complaint)[-300:]
        assert len(complaint) == 1 and complaint[0].endswith("leave --consume out") and "Negative/apex" in complaint[0]
        assert len(list_clips(place/"clips")) == 90 and contents(place/"clips.pack") == whole
        (place/"clips"/"Negative"/"apex").chmod(0o755)
