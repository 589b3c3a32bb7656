"`prepare` and `publish`, killed at any moment and repeated, leave the same bytes as one undisturbed call."
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from running import RATE_HZ, launch, needs_fork, printed

from highlight_sense.checkpoint import save_checkpoint
from highlight_sense.media import write_recording
from highlight_sense.model import HighlightCRNN

pytestmark = [pytest.mark.long, needs_fork]
MOMENTS = 7

SCRIPT = '''
# imported and compiled once, not in each process
import torch
from highlight_sense import audio, checkpoint, prepare, publish
audio.log_mel(torch.zeros(22050))

call, origin, root, moments, files = json.loads(sys.argv[1])
torch.set_num_threads(1)

def begin(name, *prepare):
    place = Path(root)/name
    if origin and not place.exists(): shutil.copytree(origin, place)
    return start([str(place) if word == "PLACE" else word for word in call], *prepare)

began = time.monotonic()
ended = {"unharmed": status(begin("unharmed")), "killed": [], "again": []}
whole_s = time.monotonic() - began

def repeat(code, name):
    ended["killed"].append(code)
    if code: ended["again"].append(status(begin(name)))  # otherwise it had finished before

for n, moment in enumerate(moments):
    name = f"moment{n}"
    repeat(kill_while_it_runs(lambda: begin(name), Path(root)/name, moment * whole_s), name)
for n in files: repeat(status(begin(f"file{n}", lambda: die_at(n, n % 2 == 0))), f"file{n}")
print(json.dumps(ended))
'''


def tree(place: Path) -> dict[str, bytes]:
    "All files of a folder."
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def stop_and_repeat(call: list, start: Path | None, root: Path, files: list[int], times: int) -> None:
    "Kill a command at fourteen moments, seven of them random; repeated, it leaves the files of one undisturbed call."
    root.mkdir()
    moments = np.random.default_rng(3).uniform(0.05, 0.95, times * MOMENTS).round(3).tolist()
    ended = launch(SCRIPT, [str(word) for word in call], start, root, moments, files, timeout_s=times * 600)
    assert ended["unharmed"] == 0 and set(ended["again"]) == {0}, ended
    assert ended["killed"].count(-9) >= len(moments) + len(files) - 4, ended
    expected, places = tree(root/"unharmed"), [place for place in root.iterdir() if place.name != "unharmed"]
    assert len(places) == len(moments) + len(files) and expected
    for place in places:
        found = tree(place)
        assert found.keys() == expected.keys(), (place.name, found.keys() ^ expected.keys())
        for name, content in expected.items():
            assert found[name].replace(place.name.encode(), b"unharmed") == content, (place.name, name)


@pytest.fixture(scope="module")
def recordings(tmp_path_factory) -> Path:
    "Three recordings of 40 seconds with labels."
    place = tmp_path_factory.mktemp("stopped")/"recordings"
    place.mkdir()
    rng, times_s = np.random.default_rng(0), np.arange(40 * RATE_HZ) / RATE_HZ
    for number in range(3):
        tracks = {}
        for title, hz in (("Mic/Aux", 300), ("Desktop Audio", 900 + 50 * number)):
            calls = 0.3 * np.sin(2 * np.pi * hz * times_s) * (times_s % 10 < 3)
            tracks[title] = (calls + rng.normal(0, 0.02, len(times_s))).astype(np.float32)
        write_recording(place/f"stream{number}.mka", tracks, RATE_HZ, "aac")
    lines = [f"stream{number},{at},{at + 3}\n" for number in range(3) for at in (10, 20, 30)]
    (place.parent/"labels.csv").write_text("recording,start_s,end_s\n" + "".join(lines))
    return place


def test_prepare(recordings, tmp_path, times):
    "Clips of three recordings."
    options = "--labels", recordings.parent/"labels.csv", "--negative-s", 2, "--lengths", 130, 215, 1
    call = ["prepare", recordings, "-o", "PLACE", *options]
    stop_and_repeat(call, None, tmp_path/"runs", [1, 2, 5, 8, 11, 14, 17], times)


def test_publish(recordings, tmp_path, times):
    "Clips, timelines, chapters and report of a detection."
    model = HighlightCRNN(cnn_channels=(4, 4, 8, 8), rnn_hidden=8, att_dim=8)
    save_checkpoint(tmp_path/"model.pt", model, epochs=1, max_frames=215, threshold=0.5)
    printed("detect", "-m", tmp_path/"model.pt", recordings/"stream0.mka", "-o", tmp_path/"found", "--top", 3, code=0)
    call = ["publish", "PLACE", "--clips", "--timeline", "--chapters", "--report"]
    stop_and_repeat(call, tmp_path/"found", tmp_path/"runs", [1, 2, 3, 6, 9, 14, 20], times)


WORKERS = "import time; from highlight_sense.process import run_jobs; list(run_jobs(time.sleep, [(600,), (600,)], 2))"


def alive(parent: int | None = None, among: set[int] | None = None) -> set[int]:
    "The running processes that are children of one, or among some."
    found = set()
    for place in Path("/proc").glob("[0-9]*"):
        try: state, above = (place/"stat").read_text().rpartition(")")[2].split()[:2]
        except OSError: continue  # it has just ended
        wanted = int(above) == parent if among is None else int(place.name) in among
        if state != "Z" and wanted: found.add(int(place.name))
    return found


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_workers_end_with_their_parent():
    "Processes that cut clips end when the process that started them is killed."
    parent = subprocess.Popen([sys.executable, "-c", WORKERS])
    workers, until = set(), time.monotonic() + 120
    while len(workers) < 3 and time.monotonic() < until:  # two, and multiprocessing's own
        workers = alive(parent=parent.pid)
        time.sleep(0.1)
    time.sleep(10)  # they import what they need
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    until = time.monotonic() + 60
    while alive(among=workers) and time.monotonic() < until: time.sleep(0.2)
    left = alive(among=workers)
    for pid in left: os.kill(pid, signal.SIGKILL)
    assert len(workers) >= 3 and not left
