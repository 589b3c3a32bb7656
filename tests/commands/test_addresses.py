"Recordings and results in object storage, on a local S3 server."
import json
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from running import RATE_HZ, printed, rating_model, uneven_noise, write_clips

from highlight_sense.addresses import files_at, place_of
from highlight_sense.files import InputError
from highlight_sense.media import probe, write_recording
from highlight_sense.sound import read_audio

OPTIONS = "--max-length", 8, "--device", "cpu", "--top", 3
MIB = 2**20


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    "The address of an empty bucket. Without the packages these tests are skipped, but fail in CI."
    if not all(map(find_spec, ("moto", "s3fs", "upath"))):
        assert not os.environ.get("CI"), "found no Python package moto, s3fs or upath"
        pytest.skip("needs the Python packages moto, s3fs and universal-pathlib")
    import logging

    from moto.server import ThreadedMotoServer
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
                "AWS_DEFAULT_REGION": "us-east-1"}
    before = {name: os.environ.get(name) for name in settings}
    os.environ |= settings
    place_of("s3://vods").fs.mkdir("vods")
    yield "s3://vods"
    server.stop()
    for name, value in before.items():
        if value is None: del os.environ[name]
        else: os.environ[name] = value


@pytest.fixture(scope="module")
def place(tmp_path_factory, bucket) -> Path:
    "Two recordings and a model, here; the recordings also in the bucket, one in a folder with a blank in its name."
    place = tmp_path_factory.mktemp("addresses")
    mic, game = uneven_noise(40, RATE_HZ)
    for number, name in enumerate(("friday.mka", "late show/monday.mka")):
        tracks = {"Mic": mic[number * RATE_HZ:], "Game": game[number * RATE_HZ:]}
        write_recording(place/"in"/name, tracks, RATE_HZ)
        (place_of(bucket)/"in"/name).write_bytes((place/"in"/name).read_bytes())
    rating_model(place/"model.pt")
    printed("detect", place/"in", "-m", place/"model.pt", "-o", place/"plain", *OPTIONS, code=0)
    return place


def contents(folder: Path) -> dict[str, bytes]:
    "The files of a folder, here or in the bucket, by their names in it."
    files = files_at(folder) if "://" in str(folder) else [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("way", [(), ("--ray", "local")])
def test_detect(place, bucket, way):
    "What `detect` writes into a bucket about recordings in a bucket is what it writes here about the same ones here."
    if way and find_spec("ray") is None: pytest.skip("needs the Python package ray")
    out = place_of(f"{bucket}/found{len(way)}")
    call = "detect", f"{bucket}/in", "-m", place/"model.pt", "-o", out, *OPTIONS, *way
    said = printed(*call, code=0)
    assert f"friday.mka: 3 highlights in 0:40, written to {out}/friday" in said and "next:" not in said
    found, expected = contents(out), contents(place/"plain")
    assert found.keys() == expected.keys() and len(found) == 8
    for name, content in found.items():
        if name.endswith("csv"): assert content == expected[name], name
    json_there, json_here = (json.loads(all_of["monday/highlights.json"]) for all_of in (found, expected))
    assert json_there["recording"].pop("files") == [f"{bucket}/in/late show/monday.mka"]
    assert json_here["recording"].pop("files") == [str(place/"in/late show/monday.mka")]
    for track in ("voice", "game"): assert json_there[track].pop("path") and json_here[track].pop("path")
    assert json_there == json_here
    if way: return  # a second cluster would take seconds
    times = {path: path.stat().st_mtime_ns for path in files_at(out)}
    (out/"monday"/"highlights.json").unlink()
    printed(*call, code=0)
    assert contents(out) == found
    assert {path.name for path in files_at(out) if path.stat().st_mtime_ns != times[path]} <= {
        "highlights.csv", "highlights.json", "manifest.json"}


def test_recordings_among_results(place, bucket, tmp_path):
    "Clips in a folder of results are no recordings."
    vods = place_of(bucket)/"mixed"
    (vods/"friday.mka").write_bytes((place/"in"/"friday.mka").read_bytes())
    (vods/"old"/"manifest.json").write_text("{}")
    (vods/"old"/"clips"/"01.mka").write_bytes(b"no recording")
    said = printed("detect", vods, "-m", place/"model.pt", "-o", tmp_path/"out", *OPTIONS, code=0)
    assert f"skipped: {vods}/old: 1 media file among results" in said and "friday.mka: 3 highlights" in said


def test_prepare(place, bucket, tmp_path):
    "`prepare` reads recordings in a bucket and writes its clips there, the same as here."
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\nfriday,5,8\nmonday,20,23\n")
    options = "--labels", tmp_path/"labels.csv", "--negative-s", 2, "--lengths", 130, 215, 1
    printed("prepare", place/"in", "-o", tmp_path/"clips", *options, code=0)
    out = place_of(bucket)/"clips"
    for _ in range(2):
        assert f"2 whole recordings in {out}\n" in printed("prepare", f"{bucket}/in", "-o", out, *options, code=0)
    assert contents(out) == contents(tmp_path/"clips") and len(contents(out)) > 6
    refused = printed("prepare", f"{bucket}/in", "-o", out, *options, "--ray", "10.9.8.7:6379")
    assert "expected a folder that all machines see" in refused


def test_pack(place, bucket, tmp_path):
    "`pack` reads clips in a bucket, and writes its pack there, the same as here; nothing there is replaced or removed."
    clips, out = place_of(bucket)/"to pack", place_of(bucket)/"sent.pack"
    for name, content in contents(write_clips(tmp_path/"clips", 3, 3)).items(): (clips/name).write_bytes(content)
    said = printed("pack", tmp_path/"clips", "-o", out, code=0)
    assert f"6 clips, 0.00 GB, in {out}" in said
    assert "6 clips" in printed("pack", clips, "-o", tmp_path/"fetched.pack", code=0)
    assert "6 clips" in printed("pack", tmp_path/"clips", "-o", tmp_path/"plain.pack", code=0)
    expected = contents(tmp_path/"plain.pack")
    assert expected.keys() == {"index.jsonl", "mels.npy", "pack.json"}
    assert contents(out) == contents(tmp_path/"fetched.pack") == expected
    assert "found a folder of that name" in printed("pack", clips, "-o", out)
    assert "expected a clip folder to consume" in printed("pack", clips, "-o", tmp_path/"new.pack", "--consume")
    assert "expected a place on this computer for train" in printed("train", out, "-o", tmp_path/"run")
    assert len(files_at(clips)) == 6 and not (tmp_path/"new.pack.part").exists()


def test_pack_without_a_connection(place, bucket, tmp_path, monkeypatch):
    "A clip that cannot be fetched ends the call; the next one goes on, and leaves nothing out."
    import s3fs
    clips = place_of(bucket)/"far"
    for name, content in contents(write_clips(tmp_path/"clips", 3, 3)).items(): (clips/name).write_bytes(content)
    fetch = s3fs.core.S3File._fetch_range

    def cut(file: object, start: int, end: int) -> bytes:
        if file.path.endswith("Positive/game/stream0_part5.pt"): raise OSError("the line is cut")
        return fetch(file, start, end)

    with monkeypatch.context() as patch:
        patch.setattr(s3fs.core.S3File, "_fetch_range", cut)
        assert "stream0_part5.pt: found no way to it" in printed("pack", clips, "-o", tmp_path/"clips.pack")
    assert "6 clips" in printed("pack", clips, "-o", tmp_path/"clips.pack", code=0)
    printed("pack", tmp_path/"clips", "-o", tmp_path/"plain.pack", code=0)
    assert contents(tmp_path/"clips.pack") == contents(tmp_path/"plain.pack")


def test_a_recording_that_fails(place, bucket, tmp_path, monkeypatch):
    "The clips of the other recordings are sent, and not made again."
    from highlight_sense import prepare as preparing
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\nfriday,5,8\nmonday,20,23\n")
    call = "prepare", f"{bucket}/in", "-o", f"{bucket}/half", "--labels", tmp_path/"labels.csv", "--negative-s", 2
    cut = preparing._prepare_recording

    def tear(recording: Path, *rest: object) -> dict:
        if recording.stem == "monday": raise InputError(f"{rest[2]}: found it torn, expected it whole; copy it again")
        return cut(recording, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(preparing, "_prepare_recording", tear)
        assert f"highlight-sense: {bucket}/half: found it torn" in printed(*call)
    made = {path: path.stat().st_mtime_ns for path in files_at(place_of(f"{bucket}/half")) if "friday" in path.name}
    assert len(made) > 2
    printed(*call, code=0)
    now = files_at(place_of(f"{bucket}/half"))
    assert len(now) > len(made) + 2 and all(path.stat().st_mtime_ns == made.get(path) for path in made)


def test_only_ranges_travel(bucket, tmp_path, monkeypatch):
    "Of a recording with a large picture, the header and two stretches of sound are read, and not the rest."
    import s3fs
    rng = np.random.default_rng(0)
    frames = (rng.integers(0, 255, (960, 960), np.uint8) for _ in range(60))
    sound = rng.normal(0, 0.1, 60 * RATE_HZ).astype(np.float32)
    path = tmp_path/"large.mkv"
    write_recording(path, {"Mic": sound}, RATE_HZ, "aac", frames, 1)
    address = place_of(bucket)/"large.mkv"
    address.write_bytes(path.read_bytes())
    assert path.stat().st_size > 24 * MIB
    fetched, whole = [], s3fs.core.S3File._fetch_range

    def counted(file: object, start: int, end: int) -> bytes:
        fetched.append(end - start)
        return whole(file, start, end)

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", counted)
    assert probe(address, measured=False).duration_s == probe(path).duration_s
    assert 0 < sum(fetched) < path.stat().st_size / 2
    fetched.clear()
    there, here = (read_audio(one, (0,), start_s=40.0, end_s=42.0) for one in (address, path))
    np.testing.assert_array_equal(there, here)
    assert 0 < sum(fetched) < path.stat().st_size / 2
    assert max(fetched) <= 2 * MIB


def test_names_that_lead_out(place, bucket, tmp_path, monkeypatch):
    "Nothing is fetched from a folder with a name that would be written outside its copy here."
    import tempfile
    fs = place_of(bucket).fs
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path/"inside"))
    (tmp_path/"inside").mkdir()
    call = "-m", place/"model.pt", *OPTIONS
    for number, name in enumerate(("../../escaped", r"..\escaped")):
        for path in (f"vods/bad{number}/friday/scores.csv", f"vods/bad{number}/friday/{name}"): fs.pipe(path, b"text")
        with monkeypatch.context() as patch:
            patch.setattr(fs, "get", lambda *names: pytest.fail("fetched"))
            said = printed("detect", f"{bucket}/in/friday.mka", "-o", f"{bucket}/bad{number}", *call)
        assert f"bad{number}/friday: found the name " in said and "escaped" in said
    fs.pipe(r"vods/worse/a\..\escaped.mka", b"text")
    assert "found the name " in printed("detect", f"{bucket}/worse", "-o", tmp_path/"out", *call)
    assert not list(tmp_path.rglob("*escaped*"))


def test_refusals(place, bucket, tmp_path):
    "What is not there, or cannot be reached, is one line."
    call = "-m", place/"model.pt", "--device", "cpu"
    assert "found no file below" in printed("detect", f"{bucket}/typo", "-o", tmp_path/"out", *call)
    assert "s3://no-such-bucket" in printed("detect", "s3://no-such-bucket/in", "-o", tmp_path/"out", *call)
    assert "no way to it (ImportError" in printed("detect", "az://there/in", "-o", tmp_path/"out", *call)
    page = "https://example.com/vod"
    assert "found a web address" in printed("detect", page, "-o", f"{bucket}/out", *call)
    assert "expected a folder to review" in printed("detect", place/"in", "-o", f"{bucket}/out", *call, "--review")


def test_commands_that_need_files_here(tmp_path):
    "One line says that a command does not work with an address."
    learn = "learn", "s3://vods/out", "-o", tmp_path/"new.pt"
    train = "train", "s3://vods/clips", "-o", tmp_path/"run"
    evaluate = "evaluate", "best.pt", "s3://vods/clips"
    calls = learn, train, evaluate, ("publish", "s3://vods/out"), ("review", "s3://vods/out")
    for call in calls: assert ": found an address, expected a place on this computer for" in printed(*call), call
