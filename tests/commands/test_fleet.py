"Recordings spread over machines: shards, a Ray cluster, and processes and machines that die in the middle of a job."
import errno
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from running import RATE_HZ, printed, rating_model, run, uneven_noise

from highlight_sense.config import DetectConfig
from highlight_sense.detector import SentModel
from highlight_sense.files import InputError
from highlight_sense.fleet import Fleet, SomeFailed, do_each
from highlight_sense.jobs import Job
from highlight_sense.log import kept_warnings
from highlight_sense.media import write_recording
from highlight_sense.recordings import _detect_far
from highlight_sense.results import Manifest

NAMES = ("friday", "monday", "sunday", "tuesday")
PLAIN = DetectConfig(max_length=8.0, device="cpu", top=3)
OPTIONS = "--max-length", 8, "--device", "cpu", "--top", 3
SMALL = {"object_store_memory": 100 * 2**20, "include_dashboard": False}


def tree(place: Path) -> dict[str, bytes]:
    "All files of a folder."
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "Four recordings, a model, and what `detect` finds without a cluster."
    place = tmp_path_factory.mktemp("fleet")
    (place/"vods").mkdir()
    mic, game = uneven_noise(40, RATE_HZ)
    for number, name in enumerate(NAMES):
        start = number * RATE_HZ
        write_recording(place/"vods"/f"{name}.mka", {"Mic": mic[start:], "Game": game[start:]}, RATE_HZ)
    rating_model(place/"model.pt")
    printed("detect", place/"vods", "-m", place/"model.pt", "-o", place/"plain", *OPTIONS, code=0)
    return place


@pytest.fixture(scope="module")
def ray() -> object:
    "The package. Without it these tests are skipped, but fail in CI."
    if find_spec("ray") is None:
        assert not os.environ.get("CI"), "found no Python package ray"
        pytest.skip("needs the Python package ray")
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray
    return ray


@pytest.fixture(scope="module")
def local(ray) -> Iterator[None]:
    "A cluster of two processes on this computer, for several tests."
    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level="ERROR", **SMALL)
    yield
    ray.shutdown()


def test_shards(place):
    "Two shards leave the same bytes as one call, and a third machine has nothing left to do."
    out = place/"shards"
    for shard, mine in (("1/2", ("friday", "sunday")), ("2/2", ("monday", "tuesday"))):
        said = printed("detect", place/"vods", "-m", place/"model.pt", "-o", out, "--shard", shard, *OPTIONS, code=0)
        assert f"shard {shard}: 2 of 4 recordings" in said
        assert [name for name in NAMES if f"{name}.mka: 3 highlights" in said] == list(mine)
    assert tree(out) == tree(place/"plain")
    empty = printed("detect", place/"vods", "-m", place/"model.pt", "-o", out, "--shard", "5/5", *OPTIONS, code=0)
    assert "0 of 4 recordings" in empty and "next:" not in empty
    assert "expected I/N" in printed("detect", place/"vods", "-m", place/"model.pt", "-o", out, "--shard", "3/2")


def test_the_same_bytes(place, local, tmp_path):
    "A recording that fails is reported, the others have the bytes of a plain call, and a repeated call keeps them."
    for name in NAMES: shutil.copy(place/"vods"/f"{name}.mka", tmp_path)
    plain, out = tmp_path/"plain", tmp_path/"ray"
    (tmp_path/"torn.mka").write_bytes(b"no recording")
    call = "detect", tmp_path, "-m", place/"model.pt", *OPTIONS
    expected = printed(*call, "-o", plain)
    said = printed(*call, "-o", out, "--ray", "local")
    assert tree(out) == tree(plain) and len(tree(out)) == 4 * len(NAMES)
    for line in ("friday.mka: voice: friday.mka a:0 'Mic'", "failed: ", "1 of 5 recordings failed, the others are in "):
        assert line in said and line in expected, line
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.csv")}
    shutil.rmtree(out/"sunday")  # as if the first call had been stopped before it
    printed(*call, "-o", out, "--ray", "local")
    assert tree(out) == tree(plain)
    assert all(path.stat().st_mtime_ns == before[path] for path in before if "sunday" not in path.parts)


def dies_once(work: Callable, marker: Path, undo: Callable = lambda job: None) -> Callable:
    "Make a function that does a job, but kills its process in the first one, before that job is finished."
    def fatal(job: object, **options: object) -> object:
        found = work(job, **options)
        if marker.exists(): return found
        marker.touch()
        undo(job)
        os.kill(os.getpid(), signal.SIGKILL)
    return fatal


def test_prepare_and_pack(place, local, tmp_path, monkeypatch):
    """`prepare` and `pack` also write the bytes of a plain call, although one of their processes is killed. A recording
    that fails is reported; the next call makes its clips, and keeps the others."""
    from highlight_sense import pack_source
    from highlight_sense import prepare as preparing
    deaths, mended = (tmp_path/"in prepare", tmp_path/"in pack"), tmp_path/"mended"
    cut_whole, read = preparing._prepare_far, pack_source.read_for_pack

    def cut(job: object) -> dict:
        if job.recording.stem != "sunday" or mended.exists(): return cut_whole(job)
        raise InputError(f"{job}: found it torn, expected it whole; copy it again")

    def forget_recording(job: object) -> None: (job.out/list(job.files)[-1]).unlink()

    table = "recording,start_s,end_s\n" + "".join(f"{name},{at},{at + 3}\n" for name in NAMES for at in (5, 20))
    (tmp_path/"labels.csv").write_text(table)
    options = "--labels", tmp_path/"labels.csv", "--negative-s", 2, "--lengths", 130, 215, 1
    printed("prepare", place/"vods", "-o", tmp_path/"plain", *options, code=0)
    printed("pack", tmp_path/"plain", "-o", tmp_path/"plain.pack", code=0)
    monkeypatch.setattr(preparing, "_prepare_far", dies_once(cut, deaths[0], forget_recording))
    monkeypatch.setattr(pack_source, "read_for_pack", dies_once(read, deaths[1]))
    call = "prepare", place/"vods", "-o", tmp_path/"ray", *options, "--ray", "local"
    said = printed(*call)
    assert "1 of 4 recordings failed, the others are in " in said and "the first: sunday.mka: found it torn" in said
    made = {path: path.stat().st_mtime_ns for path in (tmp_path/"ray").rglob("*.pt")}
    mended.touch()
    said = printed(*call, code=0)
    assert "sunday.mka: 2 positive and" in said and "4 whole recordings in" in said
    assert tree(tmp_path/"ray") == tree(tmp_path/"plain") and len(tree(tmp_path/"ray")) > len(made) + 4
    assert all(path.stat().st_mtime_ns == moment for path, moment in made.items())
    printed("pack", tmp_path/"ray", "-o", tmp_path/"ray.pack", "--ray", "local", code=0)
    assert tree(tmp_path/"ray.pack") == tree(tmp_path/"plain.pack") and all(death.exists() for death in deaths)


def search(place: Path, out: Path) -> tuple[list[Job], partial]:
    "The jobs for the recordings, and what does them in another process."
    jobs = [Job(place/"vods"/f"{name}.mka", f"{name}.mka", out/name) for name in NAMES]
    return jobs, partial(_detect_far, SentModel(place/"model.pt", (place/"model.pt").read_bytes(), PLAIN))


def test_a_dead_process_is_replaced(place, local, tmp_path):
    "The job of a process that is killed in the middle starts again."
    jobs, work = search(place, tmp_path/"out")
    fatal = dies_once(work, tmp_path/"died", lambda job: (job.folder/"highlights.json").unlink())
    found = do_each(jobs, fatal, str, "are done", progress=False, fleet=Fleet("local", "detect", 0.5))
    assert (tmp_path/"died").exists() and [one.name for one in found] == [job.name for job in jobs]
    assert tree(tmp_path/"out") == tree(place/"plain")


def test_needs(local):
    "Ray gives a job the cores and the memory that it asked for."
    def ask(job: str) -> dict[str, float]:
        import ray
        return ray.get_runtime_context().get_assigned_resources()

    for cores in (1, 2):
        given = do_each(["a"], ask, str, "", progress=False, fleet=Fleet("local", "detect", 0.25, cores))
        assert given == [{"CPU": cores, "memory": 0.25 * 2**30}]


def test_a_deadly_job_is_reported(local, tmp_path):
    "A job that kills every process is reported after four of them, and the others are done."
    def deadly(job: str) -> str:
        if job != "poison": return job.upper()
        with open(tmp_path/"deaths", "a") as file: file.write("x")
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(InputError, match="1 of 3 recordings failed, the others are done; the first: poison: found "):
        do_each(["a", "poison", "b"], deadly, str, "are done", fleet=Fleet("local", "x", 0.1))
    assert (tmp_path/"deaths").read_text() == "xxxx"


@pytest.mark.parametrize("fleet", [None, Fleet("local", "x", 0.1)], ids=["here", "ray"])
def test_a_full_disk(local, fleet):
    "A recording whose results cannot be written is reported, here and in a cluster; the others are done."
    def fill(job: str) -> str:
        if job == "b": raise OSError(errno.ENOSPC, "No space left on device", "b/scores.csv")
        return job.upper()

    line = "1 of 3 recordings failed, the others are done; the first: b/scores.csv: found a full or read-only disk"
    with pytest.raises(SomeFailed, match=line) as caught: do_each(["a", "b", "c"], fill, str, "are done", fleet=fleet)
    assert caught.value.done == ["A", "C"]


def test_warnings_and_bugs_arrive(local):
    "A warning in another process is one here; a bug in a job ends the call with its traceback."
    def complain(job: str) -> str:
        from highlight_sense.log import warn
        warn(f"{job}: found a hole")
        return job.upper()

    def divide(job: int) -> float: return job / 0

    with kept_warnings() as kept: assert do_each(["a"], complain, str, "", fleet=Fleet("local", "x", 0.1)) == ["A"]
    assert kept == ["a: found a hole"]
    with pytest.raises(ZeroDivisionError): do_each([1], divide, str, "", fleet=Fleet("local", "x", 0.1))


def test_results_elsewhere(place, local, tmp_path, monkeypatch):
    "A machine without the folder of the call does nothing, and one with other files is found out."
    def lose(job: str) -> str: return job.upper()

    def check(found: str) -> None:
        if found == "B": raise InputError("b: found no such file here")

    with pytest.raises(InputError, match="1 of 2 recordings failed, the others are done; the first: b: found no such"):
        do_each(["a", "b"], lose, str, "are done", progress=False, fleet=Fleet("local", "x", 0.1, check=check))
    monkeypatch.setattr(os, "getcwd", lambda: str(tmp_path/"laptop"))
    out = tmp_path/"out"
    said = printed("detect", place/"vods", "-m", place/"model.pt", "-o", out, *OPTIONS, "--ray", "local")
    assert "4 of 4 recordings failed" in said and "laptop: found no such folder on " in said and not tree(out)


def test_a_dead_machine_is_replaced(place, ray, tmp_path):
    "Of two machines one dies in the middle of its recording, which the other one then searches."
    from ray.cluster_utils import Cluster
    ray.shutdown()
    jobs, work = search(place, tmp_path/"out")
    seen, dead = tmp_path/"seen", tmp_path/"dead"
    seen.mkdir()

    def slow(job: Job) -> object:
        "Note the machine and the recording, hold the folder, and work once the other machine is dead."
        import ray

        from highlight_sense.files import only_writer
        (seen/f"{job.name} on {ray.get_runtime_context().get_node_id()}").touch()
        with only_writer(job.folder):
            while not dead.exists(): time.sleep(0.1)
        return work(job)

    impatient = {"health_check_period_ms": 500, "health_check_failure_threshold": 3}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "_system_config": impatient, **SMALL})
    try:
        mortal = cluster.add_node(num_cpus=1, object_store_memory=SMALL["object_store_memory"])
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")

        def kill_one() -> None:
            while len(list(seen.iterdir())) < 2: time.sleep(0.1)
            cluster.remove_node(mortal, allow_graceful=False)
            dead.touch()

        killer = threading.Thread(target=kill_one, daemon=True)
        killer.start()
        found = do_each(jobs, slow, str, "are done", progress=False, fleet=Fleet("local", "detect", 0.5))
        killer.join()
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert [one.name for one in found] == [job.name for job in jobs]
    assert tree(tmp_path/"out") == tree(place/"plain")
    starts = [path.name.partition(" on ") for path in seen.iterdir()]
    killed = [name for name, _, node in starts if node == mortal.node_id]
    assert len(killed) == 1 and [name for name, *_ in starts].count(killed[0]) == 2, starts


@contextmanager
def one_core() -> Iterator[None]:
    "Let processes that are started in the block use one core only."
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try: yield
    finally: os.sched_setaffinity(0, cores)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_killed_command_continues(place, ray, tmp_path):
    "A command that is killed leaves no process behind, and the same command finishes its work."
    marker = f"HIGHLIGHT_SENSE_TEST={tmp_path.name}-{os.getpid()}"
    words = ["detect", place/"vods", "-m", place/"model.pt", "-o", tmp_path/"out", *OPTIONS, "--ray", "local"]
    command = [sys.executable, "-m", "highlight_sense", *map(str, words)]
    name, _, value = marker.partition("=")
    with one_core():  # a second process of the cluster would take seconds more to start
        first = subprocess.Popen(command, env={**os.environ, name: value}, stdout=subprocess.DEVNULL)

    def left() -> list[Path]:
        "The processes of the command."
        return [path for path in Path("/proc").glob("[0-9]*/environ") if marker.encode() in read(path)]

    def read(path: Path) -> bytes:
        try: return path.read_bytes()
        except OSError: return b""  # it has just ended, or is not ours

    until = time.monotonic() + 120
    while not list(tmp_path.glob("out/*/scores.csv")) and first.poll() is None and time.monotonic() < until:
        time.sleep(0.02)
    first.kill()
    first.wait()
    until = time.monotonic() + 120
    while left() and time.monotonic() < until: time.sleep(0.2)
    assert not left()
    folders = [path.parent for path in tmp_path.glob("out/*/highlights.json")]
    finished = [folder/"highlights.json" for folder in folders if Manifest(folder).files["highlights.json"].sha256]
    before = {path: path.stat().st_mtime_ns for path in finished}
    code, _, errors = run(*words[:-2])  # without Ray, for a change
    assert code == 0, errors
    assert tree(tmp_path/"out") == tree(place/"plain")
    assert all(path.stat().st_mtime_ns == moment for path, moment in before.items())


def test_without_ray(place, monkeypatch):
    "Without the package, or without the cluster, one line says what to do."
    call = "detect", place/"vods", "-m", place/"model.pt", "-o", place/"none", "--device", "cpu", "--ray"
    missing = SimpleNamespace(is_initialized=lambda: False, init=_no_cluster)
    monkeypatch.setitem(sys.modules, "ray", missing)
    assert "found no Ray cluster (nothing answers)" in printed(*call, "10.9.8.7:6379")
    monkeypatch.setitem(sys.modules, "ray", None)
    assert "run pip install ray" in printed(*call, "local") and not (place/"none").exists()


def _no_cluster(**options: object) -> None: raise ConnectionError("nothing answers")
