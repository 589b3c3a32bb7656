"The first command of the README, as a newcomer runs it."
import json
import shlex
import subprocess
import sys

import av
import pytest

from highlight_sense.cli import main

LIMIT_KIB = 2 * 1024 ** 2  # 2 GiB of memory

MEASURED = '''
import resource, sys
from pathlib import Path
from highlight_sense.cli import main
main()
status, peak = Path("/proc/self/status"), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
if status.exists(): kib = status.read_text().partition("VmHWM:")[2].split()[0]  # ru_maxrss includes the parent process
else: kib = peak // 1024 if sys.platform == "darwin" else peak
print("peak", kib)
'''


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    "Run `highlight-sense demo`; return its folder, its output and its peak memory in KiB."
    pytest.importorskip("resource")  # not on Windows
    out = tmp_path_factory.mktemp("demo")/"out"
    ended = subprocess.run([sys.executable, "-c", MEASURED, "demo", "-o", out], text=True, capture_output=True)
    assert ended.returncode == 0, ended.stderr[-2000:]
    printed, _, peak = ended.stdout.rpartition("peak ")
    return out, printed, int(peak)


def test_it_learns_more_than_loudness(demo):
    "The model does well on held-out sessions; loudness or length alone do not."
    out, *_ = demo
    summary = json.loads((out/"summary.json").read_text())
    assert summary["held-out"]["ap"] >= 0.9 and summary["held-out"]["clips"] >= 80
    assert max(summary["probes"].values()) <= 0.75


def test_it_leaves_everything_behind(demo):
    "The demo leaves a checkpoint, metrics and pictures, and prints where they are and the main figures."
    out, printed, _ = demo
    run = ("best.pt", "last.pt", "config.json", "metrics.jsonl", "metrics.csv", "history.png", "attention.png")
    evaluation = ("metrics.json", "precision_recall.png", "confusion.png")
    for path in (*(out/"run"/name for name in run), *(out/"evaluation"/name for name in evaluation)):
        assert path.stat().st_size > 100, path
    ap = json.loads((out/"summary.json").read_text())["held-out"]["ap"]
    assert str(out) in printed and f"{ap:.3f}" in printed
    assert list((out/"sessions").rglob("*.mkv")) and not list(out.rglob(".*.part*"))


def test_it_ends_with_highlights(demo):
    "Highlights are detected in the held-out sessions and published for one of them."
    out, printed, _ = demo
    events = json.loads((out/"summary.json").read_text())["events"]
    assert events["recordings"] == 8 and events["mean_ap"] >= 0.35 and events["precision_iou30"] >= 0.5
    report, = out.glob("found/*/report.html")
    assert str(report) in printed and len(list(out.glob("found/*/highlights.json"))) == 8
    found = len(json.loads((report.parent/"highlights.json").read_text())["highlights"])
    assert found and report.read_text().count("<article") == found
    files = {name: len(list((report.parent/name).iterdir())) for name in ("clips", "timelines", "chapters")}
    assert files == {"clips": found, "timelines": 7, "chapters": 3}


def test_its_last_lines_are_commands_that_repeat_it(demo):
    "The two printed commands run and find the same highlights."
    out, printed, _ = demo
    report, = out.glob("found/*/report.html")
    def highlights() -> list: return json.loads((report.parent/"highlights.json").read_text())["highlights"]
    before = highlights()
    commands = [shlex.split(line) for line in printed.splitlines()[-2:]]
    report.unlink()
    for command in commands: main(command[1:])
    assert highlights() == before and report.exists()
    assert [command[1] for command in commands] == ["detect", "publish"]


def test_it_stays_within_its_memory(demo):
    "The demo needs at most 2 GiB."
    assert demo[2] <= LIMIT_KIB


def test_its_clips_are_videos(demo):
    "A clip of a held-out session shows the drawn game."
    out, *_ = demo
    clips = sorted((out/"found").rglob("clips/*.mkv"))
    assert clips
    with av.open(str(clips[0])) as container: assert next(container.decode(video=0)).width == 320
