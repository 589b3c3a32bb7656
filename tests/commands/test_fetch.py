"The download against a small Kaggle on this machine: broken connections, refused accounts, damaged archives."
import base64
import errno
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch
from kagglesdk import kaggle_env  # kagglehub's own client

from highlight_sense import kaggle as kaggle_room
from highlight_sense import transfer
from highlight_sense.files import InputError
from highlight_sense.packing import pack_clips

HANDLE = "owner/two-games"
MIB = 2**20


def clips() -> dict[str, bytes]:
    "Files of a data set, incompressible, so that the archive is longer than kagglehub's blocks of 1 MiB."
    noise = np.random.default_rng(0)
    return {f"{label}/game/clip_{n}.pt": noise.bytes(MIB) for label in ("Positive", "Negative") for n in range(2)}


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items(): archive.writestr(name, content)
    return buffer.getvalue()


class SmallKaggle(ThreadingHTTPServer):
    "The three answers that kagglehub needs: a data set's version, a redirect to the storage, and the archive there."
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.archive = zipped(clips())
        self.status = 200                  # of the API
        self.answer: bytes | None = None   # of the API, instead of its own
        self.accept: str | None = None     # the Authorization that it requires, if any
        self.cuts: list[int] = []          # bytes after which a transfer breaks, one for each transfer
        self.range_status = 206            # of a request for a part
        digest = hashlib.md5(self.archive).digest()
        self.checksum: str | None = base64.b64encode(digest).decode()  # that the storage announces
        self.hang: threading.Event | None = None  # instead of breaking, a transfer waits for this
        self.seen: list[str | None] = []   # Authorization of each API request
        self.ranges: list[int] = []        # first byte of each request for a part
        self.whole = 0                     # requests for the whole archive
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class Answer(BaseHTTPRequestHandler):
    server: SmallKaggle

    def log_message(self, *_) -> None: pass

    def reply(self, status: int, body: bytes, **headers: object) -> None:
        self.send_response(status)
        headers = {"Content_Length": len(body), **headers}
        for name, value in headers.items(): self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        try: self.wfile.write(body)
        except OSError: pass  # kagglehub does not read a whole archive when it has a part of it

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert [request["ownerSlug"], request["datasetSlug"]] == HANDLE.split("/")
        self.server.seen.append(self.headers["Authorization"])
        refused = self.server.accept and self.headers["Authorization"] != self.server.accept
        status = 401 if refused else self.server.status
        if self.server.answer is not None: return self.reply(status, self.server.answer, Content_Type="text/html")
        refusal, version = b'{"code": %d, "message": "refused"}' % status, b'{"currentVersionNumber": 3}'
        if status != 200: return self.reply(status, refusal, Content_Type="application/json")
        if self.path.endswith("/GetDataset"): return self.reply(200, version, Content_Type="application/json")
        assert self.path.endswith("/DownloadDataset") and request["datasetVersionNumber"] == 3
        self.reply(302, b"", Location=f"{self.server.url}/storage?signature=secret")

    def do_GET(self) -> None:
        archive, part = self.server.archive, self.headers["Range"]
        headers = {"Accept_Ranges": "bytes", "Content_Type": "application/zip"}
        if self.server.checksum: headers["x_goog_hash"] = f"crc32c=AAAAAA==,md5={self.server.checksum}"
        if part is None:
            self.server.whole += 1
            if self.server.whole > 1: return self.reply(200, archive, **headers)
            start = 0
        else:
            start = int(re.fullmatch(r"bytes=(\d+)-", part)[1])
            self.server.ranges.append(start)
            if self.server.range_status != 206: return self.reply(self.server.range_status, b"<html>busy</html>")
            headers["Content_Range"] = f"bytes {start}-{len(archive) - 1}/{len(archive)}"
        cut = self.server.cuts.pop(0) if self.server.cuts else len(archive)
        self.send_response(200 if part is None else 206)
        self.send_header("Content-Length", str(len(archive) - start))
        for name, value in headers.items(): self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        try: self.wfile.write(archive[start:start + cut])
        except OSError: return  # a client that only asked for the address hangs up
        if self.server.hang: self.server.hang.wait()


@pytest.fixture
def kaggle(monkeypatch, tmp_path):
    "A small Kaggle, and a machine without credentials that knows no other."
    for name in [name for name in os.environ if name.startswith(("KAGGLE", "COLAB", "TBE_"))]: monkeypatch.delenv(name)
    for name in ("HOME", "USERPROFILE"): monkeypatch.setenv(name, str(tmp_path/"home"))
    for name in ("NO_PROXY", "no_proxy"): monkeypatch.setenv(name, "127.0.0.1")
    (tmp_path/"home").mkdir()
    monkeypatch.setattr(transfer, "PAUSES_S", (0, 0, 0))
    server = SmallKaggle()
    monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, server.url)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def content(folder) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def refusal(*arguments) -> str:
    "The message of an `InputError`: one line, without a secret, and nothing secret behind it in a traceback."
    with pytest.raises(InputError) as caught: kaggle_room.fetch_dataset(*arguments)
    message = str(caught.value)
    assert "\n" not in message and "secret" not in message
    assert caught.value.__cause__ is None and (caught.value.__context__ is None or caught.value.__suppress_context__)
    return message


def test_public_set_needs_no_account(kaggle, tmp_path):
    before = dict(os.environ)
    folder = kaggle_room.fetch_dataset(HANDLE, tmp_path/"cache")
    assert content(folder) == clips() and tmp_path/"cache" in folder.parents
    assert kaggle.seen == [None, None]
    assert not list((tmp_path/"cache").rglob("*.archive"))
    assert kaggle_room.fetch_dataset(HANDLE, tmp_path/"cache") == folder and kaggle.whole == 1  # no second download
    assert dict(os.environ) == before


def test_named_version_is_found_without_network(kaggle, tmp_path):
    folder = kaggle_room.fetch_dataset(HANDLE, tmp_path)
    kaggle.status = 503
    assert kaggle_room.fetch_dataset(f"{HANDLE}/versions/3", tmp_path) == folder


def test_broken_connection_resumes_within_one_call(kaggle, tmp_path):
    kaggle.cuts = [2 * MIB + 1000, MIB + 1000]
    assert content(kaggle_room.fetch_dataset(HANDLE, tmp_path)) == clips()
    assert kaggle.ranges == [2 * MIB, 3 * MIB]  # kagglehub keeps whole blocks of 1 MiB and asks for the rest


@pytest.mark.parametrize("checksum", [True, False])
def test_broken_connection_resumes_in_the_next_call(kaggle, tmp_path, monkeypatch, checksum):
    kaggle.cuts = [2 * MIB + 1000]
    if not checksum: kaggle.checksum = None
    with monkeypatch.context() as impatient:
        impatient.setattr(transfer, "PAUSES_S", (0,))
        message = refusal(HANDLE, tmp_path)
    assert "ChunkedEncodingError" in message and "continues where it stopped" in message
    archive, = tmp_path.rglob("*.archive")
    assert archive.stat().st_size == 2 * MIB and kaggle.ranges == []
    assert content(kaggle_room.fetch_dataset(HANDLE, tmp_path)) == clips()
    assert kaggle.ranges == [2 * MIB] and not archive.exists()


def test_killed_download_resumes(kaggle, tmp_path):
    kaggle.cuts, kaggle.hang = [2 * MIB + 1000], threading.Event()
    code = f"""
from kagglesdk import kaggle_env
kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.LOCAL] = {kaggle.url!r}
from highlight_sense.kaggle import fetch_dataset
fetch_dataset({HANDLE!r}, {str(tmp_path)!r})
"""
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        patience = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < patience:
            if any(archive.stat().st_size == 2 * MIB for archive in tmp_path.rglob("*.archive")): break
            time.sleep(0.02)
        assert process.poll() is None and list(tmp_path.rglob("*.archive"))
    finally:
        process.kill()
        process.wait()
        kaggle.hang.set()
    assert content(kaggle_room.fetch_dataset(HANDLE, tmp_path)) == clips() and kaggle.ranges == [2 * MIB]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_no_credentials(kaggle, tmp_path, status):
    kaggle.status = status
    message = refusal(HANDLE, tmp_path)
    assert message.startswith(f"{HANDLE}: ") and "no Kaggle credentials" in message and str(status) in message
    for advice in (str(tmp_path/"home"/".kaggle"), "kaggle.com/settings", "KAGGLE_API_TOKEN"): assert advice in message
    assert len(kaggle.seen) == 1  # asking again would not help


def test_kaggle_json(kaggle, tmp_path, monkeypatch):
    kaggle.accept = "Basic " + base64.b64encode(b"anna:secret").decode()
    (tmp_path/"kaggle.json").write_text('{"username": "anna", "key": "secret"}')
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    assert content(kaggle_room.fetch_dataset(HANDLE, tmp_path)) == clips()
    (tmp_path/"kaggle.json").write_text('{"username": "anna", "key": "old secret"}')
    assert "Kaggle rejects the user 'anna' (401)" in refusal(HANDLE, tmp_path)


def test_kaggle_json_uploaded_to_colab(kaggle, tmp_path, monkeypatch):
    kaggle.accept = "Basic " + base64.b64encode(b"anna:secret").decode()
    (tmp_path/"content").mkdir()
    (tmp_path/"content"/"kaggle.json").write_text('{"username": "anna", "key": "secret"}')
    monkeypatch.setattr(kaggle_room, "_COLAB_FOLDER", tmp_path/"content")
    refusal(HANDLE, tmp_path)
    monkeypatch.setenv("COLAB_RELEASE_TAG", "release")
    assert content(kaggle_room.fetch_dataset(HANDLE, tmp_path)) == clips()


def test_variables(kaggle, tmp_path, monkeypatch):
    kaggle.accept = "Basic " + base64.b64encode(b"ben:secret").decode()
    monkeypatch.setenv("KAGGLE_USERNAME", "ben")
    monkeypatch.setenv("KAGGLE_KEY", "secret")
    assert content(kaggle_room.fetch_dataset(HANDLE, tmp_path)) == clips()
    kaggle.accept = "Bearer secret token"
    assert "Kaggle rejects the user 'ben' (401)" in refusal(HANDLE, tmp_path)
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret token")
    assert kaggle_room.fetch_dataset(HANDLE, tmp_path)
    kaggle.accept = "Bearer another token"
    assert "Kaggle rejects the API token (401)" in refusal(HANDLE, tmp_path)


@pytest.mark.parametrize("status", [403, 404])
def test_private_set_of_another_user(kaggle, tmp_path, monkeypatch, status):
    kaggle.status = status
    monkeypatch.setenv("KAGGLE_API_TOKEN", "secret")
    message = refusal(HANDLE, tmp_path)
    for words in ("nothing that the API token may read", str(status), f"kaggle.com/datasets/{HANDLE}"):
        assert words in message


@pytest.mark.parametrize("text", [
    b"", b"\xff\xfe", b"{", b"[]", b"5", b"null",
    b'{"key": "secret"}', b'{"username": "anna", "key": ""}', b'{"username": 5, "key": 5}',
])
def test_malformed_kaggle_json(kaggle, tmp_path, monkeypatch, text):
    (tmp_path/"kaggle.json").write_bytes(text)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    message = refusal(HANDLE, tmp_path)
    assert message.startswith(f"{tmp_path/'kaggle.json'}: found a file with") and kaggle.seen == []


def test_kaggle_json_that_is_a_folder(kaggle, tmp_path):
    (tmp_path/"home"/".kaggle"/"kaggle.json").mkdir(parents=True)
    assert "which cannot be read" in refusal(HANDLE, tmp_path)


def test_kaggle_is_busy(kaggle, tmp_path):
    kaggle.status = 503
    assert "Kaggle answered 503" in refusal(HANDLE, tmp_path) and len(kaggle.seen) == len(transfer.PAUSES_S)


def test_answer_of_another_server(kaggle, tmp_path):
    kaggle.answer = b"<html>Welcome to the hotel's network</html>"
    assert "the answer was not Kaggle's" in refusal(HANDLE, tmp_path)


def test_no_connection(kaggle, tmp_path):
    kaggle.shutdown()
    kaggle.server_close()
    message = refusal(HANDLE, tmp_path)
    assert "no connection to Kaggle in 3 tries (ConnectionError)" in message and "check the network" in message


@pytest.mark.parametrize("checksum", [True, False])
def test_damaged_archive_is_removed(kaggle, tmp_path, checksum):
    good = kaggle.archive
    if not checksum: kaggle.checksum = None
    kaggle.archive = good[:2 * MIB] + bytes(len(good) - 2 * MIB)
    assert "damaged archive" in refusal(HANDLE, tmp_path)
    assert not list(tmp_path.rglob("*.archive"))
    kaggle.archive = good
    assert content(kaggle_room.fetch_dataset(HANDLE, tmp_path)) == clips()


def test_storage_that_refuses_to_continue(kaggle, tmp_path):
    "kagglehub writes the refusal into the archive; without a checksum it only fails to unpack."
    kaggle.cuts, kaggle.range_status, kaggle.checksum = [2 * MIB + 1000], 503, None
    assert "damaged archive" in refusal(HANDLE, tmp_path)
    assert content(kaggle_room.fetch_dataset(HANDLE, tmp_path)) == clips()


def test_cache_that_cannot_be_written(kaggle, tmp_path):
    (tmp_path/"cache").write_text("a file")
    assert "cannot be written" in refusal(HANDLE, tmp_path/"cache")


def test_disk_is_full(kaggle, tmp_path, monkeypatch):
    def full(handle): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr("kagglehub.dataset_download", full)
    assert "space for twice the data" in refusal(HANDLE, tmp_path)


# Packed as it arrives

@pytest.fixture
def packable(kaggle, monkeypatch, tmp_path):
    "The small Kaggle with clips to pack, and what a pack of them holds; kagglehub's cache should stay empty."
    rng, files = np.random.default_rng(0), {}
    for n in range(40):
        mel = torch.from_numpy(rng.normal(-8, 3, (2, 80, int(rng.integers(50, 300)))).astype(np.float32))
        torch.save({"tensor": mel}, buffer := io.BytesIO())
        files[f"{('Negative', 'Positive')[n // 20]}/game/stream{n // 4:02}_part{n % 4}.pt"] = buffer.getvalue()
    kaggle.archive, kaggle.checksum = zipped(files), None
    for name, clip in files.items():
        (tmp_path/"files"/name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path/"files"/name).write_bytes(clip)
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path/"cache"))
    return kaggle, content(pack_clips(tmp_path/"files", tmp_path/"expected.pack", progress=False)[0].path)


def test_packed_as_it_arrives(packable, tmp_path):
    "The pack equals the folder's, byte for byte, though connections break; the archive is read once, in order."
    kaggle, expected = packable
    size = len(kaggle.archive)
    kaggle.cuts = [size, size, size, size, MIB, MIB, 1000]
    packed, unusable = pack_clips(HANDLE, tmp_path/"arrived.pack", consume=True, progress=False)
    assert content(packed.path) == expected and unusable == []
    assert not list((tmp_path/"cache").rglob("*"))
    contents, reading = kaggle.ranges[:-4], kaggle.ranges[-4:]  # the table of contents at the end, then the clips
    assert reading[0] == 0 and reading == sorted(reading) and min(contents) > size - 10_000 and len(kaggle.ranges) < 10


def test_damaged_clip_is_left_out(packable, tmp_path):
    kaggle, _ = packable
    at = kaggle.archive.index(b"stream03_part2.pt") + 2000
    kaggle.archive = kaggle.archive[:at] + b"damage" + kaggle.archive[at + 6:]
    packed, unusable = pack_clips(HANDLE, tmp_path/"arrived.pack", consume=True, progress=False)
    damaged = f"{HANDLE}/Negative/game/stream03_part2.pt: found a file that cannot be read"
    assert len(packed.rows) == 39 and len(unusable) == 1 and unusable[0].startswith(damaged)
    assert set(content(packed.path)) == {"mels.npy", "index.jsonl", "pack.json", "unusable.txt"}


@pytest.mark.parametrize("trouble", ["storage refuses", "no archive", "refused", "zip archives"])
def test_nothing_arrives(packable, tmp_path, trouble):
    "One line, and nothing stays behind."
    kaggle, expected = packable
    good = kaggle.archive
    if trouble == "storage refuses": kaggle.range_status = 403
    if trouble == "no archive": kaggle.archive = bytes(MIB)
    if trouble == "refused": kaggle.status = 403
    if trouble == "zip archives": kaggle.archive = zipped({"Positive/a.pt": b"", "shard.zip": b""})
    with pytest.raises(InputError) as caught: pack_clips(HANDLE, tmp_path/"arrived.pack", consume=True, progress=False)
    words = {"storage refuses": "storage answered 403", "no archive": "found no zip archive",
             "refused": "no Kaggle credentials", "zip archives": "leave --consume out"}
    message = str(caught.value)
    assert words[trouble] in message and "\n" not in message and "secret" not in message
    assert not list(tmp_path.glob("arrived*"))
    kaggle.range_status, kaggle.archive, kaggle.status = 206, good, 200
    assert content(pack_clips(HANDLE, tmp_path/"arrived.pack", consume=True, progress=False)[0].path) == expected


def test_killed_while_it_arrives(packable, tmp_path):
    "Packed clips are not downloaded again, and the version stays, even when there is a newer one."
    kaggle, expected = packable
    code = f"""
from kagglesdk import kaggle_env
kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.LOCAL] = {kaggle.url!r}
from highlight_sense import packing
packing._FLUSH_BYTES = 100_000
packing.pack_clips({HANDLE!r}, {str(tmp_path/"arrived.pack")!r}, consume=True)
"""
    size = len(kaggle.archive)
    kaggle.cuts, kaggle.hang = [size, size, size, size, size // 2], threading.Event()
    index = tmp_path/"arrived.pack.part"/"index.jsonl"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        patience = time.monotonic() + 60
        while process.poll() is None and time.monotonic() < patience:
            if index.exists() and index.read_bytes().count(b"\n") > 5: break
            time.sleep(0.02)
        assert process.poll() is None and index.exists()
    finally:
        process.kill()
        process.wait()
        kaggle.hang.set()
    asked, kaggle.ranges[:] = len(kaggle.seen), []
    packed, _ = pack_clips(HANDLE, tmp_path/"arrived.pack", consume=True, progress=False)
    assert content(packed.path) == expected and min(kaggle.ranges) > size // 10
    assert len(kaggle.seen) == asked + 1  # for the archive's address, not for the newest version


def test_downloaded_before(packable, tmp_path):
    "The files in the cache are consumed, and kagglehub knows that it must download them again."
    kaggle, expected = packable
    folder = kaggle_room.fetch_dataset(HANDLE)
    packed, _ = pack_clips(HANDLE, tmp_path/"arrived.pack", consume=True, progress=False)
    assert content(packed.path) == expected and content(folder) == {} and kaggle.whole == 1
    assert len(content(kaggle_room.fetch_dataset(HANDLE))) == 40 and kaggle.whole == 2


def test_mark_of_another(tmp_path, monkeypatch):
    "Files next to a folder outside kagglehub's cache belong to its owner."
    monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path/"cache"))
    for label in ("Positive", "Negative"):
        place = tmp_path/"my"/"versions"/"3"/label/"clip.pt"
        place.parent.mkdir(parents=True)
        torch.save({"tensor": torch.zeros(2, 80, 50)}, place)
    (tmp_path/"my"/"3.complete").write_text("mine")
    pack_clips(tmp_path/"my"/"versions"/"3", tmp_path/"mine.pack", consume=True, progress=False)
    assert content(tmp_path/"my") == {"3.complete": b"mine"}
