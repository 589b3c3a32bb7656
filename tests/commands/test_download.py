"Downloads of weights and recordings from a small web server that breaks, refuses and lies."
import base64
import errno
import os
import shutil
import subprocess
import sys
import threading
import time
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from highlight_sense import cli, download, transfer
from highlight_sense.checkpoint import load_checkpoint
from highlight_sense.files import InputError
from highlight_sense.media import audio_frame, probe, write_recording

BLOCK = download._BLOCK_BYTES
needs_yt_dlp = pytest.mark.skipif(find_spec("yt_dlp") is None, reason='needs yt-dlp: pip install "yt-dlp[default]"')


class SmallWeb(ThreadingHTTPServer):
    "Files by path, and what can go wrong with each request."
    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.files: dict[str, tuple[str, bytes]] = {}
        self.statuses: list[int] = []      # of the next answers; 200: as usual
        self.cuts: list[int] = []          # bytes after which the next transfers break
        self.knows_ranges = True
        self.sends_length = True
        self.sends_whole = True            # the whole length, with a 416
        self.shift = 0                     # of the first byte that a 206 names
        self.accept: str | None = None     # the Authorization that it requires, if any
        self.hang: threading.Event | None = None      # instead of breaking, a transfer waits for this
        self.requests: list[tuple[str, int]] = []     # path and first byte of each request
        self.sent: list[int] = []                     # bytes of each transfer that began in the middle of a file
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def ranges(self) -> list[int]:
        return [start for _, start in self.requests if start]


class Answer(BaseHTTPRequestHandler):
    server: SmallWeb

    def log_message(self, *_) -> None: pass

    def reply(self, status: int, **headers: object) -> None:
        self.send_response(status)
        for name, value in headers.items(): self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def do_GET(self) -> None:
        web, path = self.server, self.path.partition("?")[0]
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        web.requests.append((path, start))
        if web.accept and self.headers["Authorization"] != web.accept:
            return self.reply(401, Content_Length=0, WWW_Authenticate="Basic")
        status = web.statuses.pop(0) if web.statuses else 200
        if path not in web.files: status = 404
        if status != 200: return self.reply(status, Content_Length=0)
        kind, content = web.files[path]
        if not web.knows_ranges: start = 0
        if start and start >= len(content):
            whole = {"Content_Range": f"bytes */{len(content)}"} if web.sends_whole else {}
            return self.reply(416, Content_Length=0, **whole)
        cut = web.cuts.pop(0) if web.cuts else None
        body = content[start:] if cut is None else content[start:start + cut]
        if start: web.sent.append(len(body))
        headers = {"Content_Type": kind}
        if web.sends_length: headers["Content_Length"] = len(content) - start
        if start: headers["Content_Range"] = f"bytes {start + web.shift}-{len(content) - 1}/{len(content)}"
        self.reply(206 if start else 200, **headers)
        try: self.wfile.write(body)
        except OSError: return  # the client hangs up
        if web.hang and cut is not None: web.hang.wait()


@pytest.fixture
def web(monkeypatch):
    for name in ("NO_PROXY", "no_proxy"): monkeypatch.setenv(name, "127.0.0.1")
    monkeypatch.setattr(transfer, "PAUSES_S", (0, 0, 0))
    server = SmallWeb()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def stop(web: SmallWeb) -> None:
    web.shutdown()
    web.server_close()


def refusal(function, *arguments, **options) -> str:
    "The message of an `InputError`: one printable line, without a secret, and nothing secret behind it in a traceback."
    with pytest.raises(InputError) as caught: function(*arguments, **options)
    message = str(caught.value)
    assert message.isprintable() and "secret" not in message
    assert caught.value.__cause__ is None and (caught.value.__context__ is None or caught.value.__suppress_context__)
    return message


def listing(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*")) if folder.exists() else []


def kill_in_transfer(web: SmallWeb, call: str, part: Path, bytes_wanted: int) -> None:
    "Run a download in another process, and kill it when its file has so many bytes."
    web.hang = threading.Event()
    process = subprocess.Popen([sys.executable, "-c", f"from highlight_sense import download; download.{call}"])
    try:
        deadline = time.monotonic() + 60
        while not (part.exists() and part.stat().st_size >= bytes_wanted):
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
        web.hang.set()
    web.hang = None


# Weights

@pytest.fixture
def weights(web, tmp_path):
    "A small file of the published dialect on the server, and its blob id."
    golden = torch.load(Path(__file__).parents[1]/"data"/"tiny_crnn.pt", weights_only=True)
    torch.save(golden["published"], tmp_path/"original.pt")
    content = (tmp_path/"original.pt").read_bytes()
    assert len(content) > 5 * BLOCK
    web.files["/best_model.pt"] = ("application/octet-stream", content)
    web.blob = download._blob_id(tmp_path/"original.pt")
    return content


def fetch(web: SmallWeb, folder: Path) -> Path:
    return download.fetch_weights(folder, f"{web.url}/best_model.pt", progress=False, blob=web.blob)


@pytest.mark.skipif(shutil.which("git") is None, reason="git, the oracle, is not installed")
def test_blob_id_is_gits(tmp_path):
    for length in (0, 1, 2**20, 3 * 2**20 + 1):
        (tmp_path/"file").write_bytes(np.random.default_rng(length).bytes(length))
        command = ["git", "hash-object", "--no-filters", "file"]
        hashed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
        assert download._blob_id(tmp_path/"file") == hashed.stdout.strip()


def test_fetched_weights_load(web, weights, tmp_path, capfd):
    path = fetch(web, tmp_path/"new"/"models")
    assert path == tmp_path/"new"/"models"/"best_model.pt" and path.read_bytes() == weights
    model, info = load_checkpoint(path)
    assert info.dialect == "published" and info.threshold is None and info.calibration is None and not model.training
    stop(web)
    assert fetch(web, tmp_path/"new"/"models") == path
    assert listing(tmp_path/"new") == ["models", "models/best_model.pt"]
    assert capfd.readouterr() == ("", "")


def test_the_verb_of_the_command_line(web, weights, tmp_path, monkeypatch, capsys):
    "`fetch --weights` leaves the file, and prints where it is and what it is worth."
    published = partial(download.fetch_weights, source=f"{web.url}/best_model.pt", blob=web.blob)
    monkeypatch.setattr(download, "fetch_weights", published)
    cli.main(["fetch", "--weights", "-o", str(tmp_path/"models")])
    assert capsys.readouterr().out == f"{tmp_path/'models'/'best_model.pt'}\n{download.WEIGHTS_NOTICE}\n"
    assert listing(tmp_path/"models") == ["best_model.pt"]
    assert (tmp_path/"models"/"best_model.pt").read_bytes() == weights
    with pytest.raises(SystemExit) as ended:
        cli.main(["fetch", "owner/clips", "--weights", "-o", str(tmp_path/"other")])
    assert ended.value.code == 2 and "'owner/clips' and --weights" in capsys.readouterr().err
    assert not (tmp_path/"other").exists()


def test_defaults_name_the_published_file():
    repository = "https://raw.githubusercontent.com/mrmilohd/highlight-sense"
    assert download._PUBLISHED_WEIGHTS_URL == f"{repository}/main/best_model.pt"
    assert download._PUBLISHED_WEIGHTS_BLOB == "8091fafbc94cff16e2d010a825576ba50e7d4129"
    assert all(word in download.WEIGHTS_NOTICE for word in ("accuracy", "threshold", "calibration"))


@pytest.mark.parametrize("terminal", [True, False])
def test_progress_goes_to_stderr(web, weights, tmp_path, capfd, monkeypatch, terminal):
    "A terminal sees a bar; a pipe gets none."
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    download.fetch_weights(tmp_path/"models", f"{web.url}/best_model.pt", blob=web.blob)
    out, err = capfd.readouterr()
    assert out == "" and ("weights" in err and "100%" in err if terminal else "%|" not in err)


def test_broken_transfers_resume(web, weights, tmp_path):
    web.cuts = [2 * BLOCK, 2 * BLOCK + 100]
    assert fetch(web, tmp_path/"models").read_bytes() == weights
    assert web.ranges() == [2 * BLOCK, 4 * BLOCK] and web.sent == [2 * BLOCK + 100, len(weights) - 4 * BLOCK]


def test_next_call_resumes(web, weights, tmp_path):
    web.cuts, web.statuses = [2 * BLOCK], [200, 503, 503]
    message = refusal(fetch, web, tmp_path/"models")
    assert "in 3 tries (the server answered 503)" in message and "run again" in message
    assert (tmp_path/"models"/"best_model.pt.part").read_bytes() == weights[:2 * BLOCK]
    assert fetch(web, tmp_path/"models").read_bytes() == weights and web.sent == [len(weights) - 2 * BLOCK]
    assert listing(tmp_path/"models") == ["best_model.pt"]


def test_killed_process_resumes(web, weights, tmp_path):
    web.cuts = [3 * BLOCK]
    call = f"fetch_weights({str(tmp_path/'models')!r}, '{web.url}/best_model.pt', False, '{web.blob}')"
    kill_in_transfer(web, call, tmp_path/"models"/"best_model.pt.part", 2 * BLOCK)
    assert fetch(web, tmp_path/"models").read_bytes() == weights and web.ranges()[0] >= 2 * BLOCK


def test_server_without_ranges(web, weights, tmp_path):
    web.cuts, web.knows_ranges = [2 * BLOCK], False
    assert fetch(web, tmp_path/"models").read_bytes() == weights
    assert web.requests == [("/best_model.pt", 0), ("/best_model.pt", 2 * BLOCK)]


def test_server_that_continues_elsewhere(web, weights, tmp_path):
    web.cuts, web.shift = [2 * BLOCK], -1
    assert fetch(web, tmp_path/"models").read_bytes() == weights and web.ranges() == [2 * BLOCK]


@pytest.mark.parametrize("sends_whole", [True, False])
def test_whole_part_file(web, weights, tmp_path, sends_whole):
    "After a kill at the last byte nothing is downloaded again, unless the server does not give the file's length."
    web.sends_whole = sends_whole
    (tmp_path/"models").mkdir()
    (tmp_path/"models"/"best_model.pt.part").write_bytes(weights)
    assert fetch(web, tmp_path/"models").read_bytes() == weights and len(web.requests) == (1 if sends_whole else 2)


def test_part_file_of_something_longer(web, weights, tmp_path):
    (tmp_path/"models").mkdir()
    (tmp_path/"models"/"best_model.pt.part").write_bytes(weights + b"more")
    assert fetch(web, tmp_path/"models").read_bytes() == weights


def test_part_file_of_something_else(web, weights, tmp_path):
    "It is found when the file is complete, and removed, so that the next call succeeds."
    (tmp_path/"models").mkdir()
    (tmp_path/"models"/"best_model.pt.part").write_bytes(b"something else")
    assert "it is removed; run again" in refusal(fetch, web, tmp_path/"models") and listing(tmp_path/"models") == []
    assert fetch(web, tmp_path/"models").read_bytes() == weights


@pytest.mark.parametrize("status", [500, 502, 429, 408])
def test_busy_server(web, weights, tmp_path, status):
    web.statuses = [status, status]
    assert fetch(web, tmp_path/"models").read_bytes() == weights and len(web.requests) == 3


@pytest.mark.parametrize("status", [404, 403, 410])
def test_file_that_is_gone(web, weights, tmp_path, status):
    web.statuses = [status]
    assert f"the server answered {status}" in refusal(fetch, web, tmp_path/"models") and len(web.requests) == 1
    assert listing(tmp_path/"models") == []


def test_silent_server(web, weights, tmp_path, monkeypatch):
    monkeypatch.setattr(transfer, "TIMEOUT_S", 0.3)
    web.cuts, web.hang = [2 * BLOCK], threading.Event()
    try: assert fetch(web, tmp_path/"models").read_bytes() == weights and web.ranges() == [2 * BLOCK]
    finally: web.hang.set()


def test_no_connection(web, weights, tmp_path):
    stop(web)
    assert "in 3 tries (ConnectionError)" in refusal(fetch, web, tmp_path/"models")


def test_other_weights(web, weights, tmp_path):
    web.files["/best_model.pt"] = ("application/octet-stream", weights[:-1])
    message = refusal(fetch, web, tmp_path/"models")
    (tmp_path/"cut").write_bytes(weights[:-1])
    assert f"found the git blob {download._blob_id(tmp_path/'cut')}, expected {web.blob}" in message
    assert listing(tmp_path/"models") == []


def test_transfer_that_ends_early_unnoticed(web, weights, tmp_path):
    web.cuts, web.sends_length = [2 * BLOCK], False
    assert "found the git blob" in refusal(fetch, web, tmp_path/"models") and listing(tmp_path/"models") == []
    assert fetch(web, tmp_path/"models").read_bytes() == weights


def test_lfs_pointer_is_no_model(web, weights, tmp_path):
    "Even where the blob id is the pointer's."
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 24000000\n"
    (tmp_path/"pointer").write_bytes(pointer)
    web.files["/best_model.pt"], web.blob = ("text/plain", pointer), download._blob_id(tmp_path/"pointer")
    assert "found a pointer of Git LFS" in refusal(fetch, web, tmp_path/"models") and listing(tmp_path/"models") == []


@pytest.mark.parametrize("sends_length", [True, False])
def test_file_that_is_too_large(web, weights, tmp_path, monkeypatch, sends_length):
    monkeypatch.setattr(download, "_LARGEST_BYTES", len(weights) - 1)
    web.sends_length = sends_length
    assert "found more than" in refusal(fetch, web, tmp_path/"models")
    assert listing(tmp_path/"models") == [] and len(web.requests) == 1


def test_own_file_stays(web, weights, tmp_path):
    (tmp_path/"best_model.pt").write_bytes(b"mine")
    assert "move that file away" in refusal(fetch, web, tmp_path)
    assert (tmp_path/"best_model.pt").read_bytes() == b"mine" and not web.requests
    (tmp_path/"folder"/"best_model.pt").mkdir(parents=True)
    assert "found a folder" in refusal(fetch, web, tmp_path/"folder")
    assert "found a file" in refusal(fetch, web, tmp_path/"best_model.pt")


def test_full_disk(web, weights, tmp_path, monkeypatch):
    def fail(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(download, "_write_blocks", fail)
    assert os.strerror(errno.ENOSPC) in refusal(fetch, web, tmp_path/"models") and len(web.requests) == 1


def test_secrets_of_the_address(web, weights, tmp_path):
    "They reach the server, but no message."
    web.accept = "Basic " + base64.b64encode(b"anna:secret").decode()
    address = web.url.replace("//", "//anna:secret@") + "/best_model.pt?token=secret"
    assert "git blob" in refusal(download.fetch_weights, tmp_path/"models", address, False, "0" * 40)
    assert download.fetch_weights(tmp_path/"models", address, False, web.blob).read_bytes() == weights
    web.accept = "Basic other"
    assert "answered 401" in refusal(download.fetch_weights, tmp_path/"more", address, False, web.blob)
    stop(web)
    refusal(download.fetch_weights, tmp_path/"more", address, False, web.blob)
    refusal(download.fetch_weights, tmp_path/"more", "file://anna:secret@host/best_model.pt?secret", False, web.blob)


# Recordings

def noise(seconds: int) -> np.ndarray:
    return np.random.default_rng(seconds).uniform(-0.5, 0.5, seconds * 22_050)


@pytest.fixture(scope="module")
def media(tmp_path_factory) -> bytes:
    "A recording of two tracks that does not compress: 690 kB, more than the buffers between two processes."
    path = tmp_path_factory.mktemp("media")/"stream.mkv"
    write_recording(path, {"microphone": noise(8), "game": -noise(8)}, 22_050)
    return path.read_bytes()


@pytest.fixture(scope="module")
def pieces(tmp_path_factory) -> dict[str, bytes]:
    "A recording as streaming sites offer it: a list and pieces of a second."
    folder = tmp_path_factory.mktemp("pieces")
    options = {"hls_time": "1", "hls_list_size": "0", "hls_playlist_type": "vod"}
    with av.open(str(folder/"list.m3u8"), "w", format="hls", options=options) as container:
        stream = container.add_stream("aac", rate=22_050, layout="mono")
        for second in range(5):
            start = second * 22_050
            container.mux(stream.encode(audio_frame(noise(5)[start:start + 22_050], start, 22_050)))
        container.mux(stream.encode(None))
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def serve_pieces(web: SmallWeb, pieces: dict[str, bytes]) -> bytes:
    "Put the pieces on the server; return them joined."
    kinds = {".m3u8": "application/vnd.apple.mpegurl", ".ts": "video/mp2t"}
    for name, content in pieces.items(): web.files[f"/{name}"] = (kinds[Path(name).suffix], content)
    return b"".join(content for name, content in pieces.items() if name.endswith(".ts"))


def record(address: str, folder: Path) -> Path:
    return download.download_recording(address, folder, progress=False)


@needs_yt_dlp
@pytest.mark.parametrize("path, kind", [
    ("/my stream.mkv", "video/x-matroska"), ("/stream", "audio/x-matroska"),
    ("/stream.mkv", "application/octet-stream")])
def test_direct_link(web, media, tmp_path, capfd, path, kind):
    web.files[path.replace(" ", "%20")] = (kind, media)
    address = web.url + path.replace(" ", "%20")
    found = record(address, tmp_path/"new"/"out")
    assert found.read_bytes() == media and [track.title for track in probe(found).tracks] == ["microphone", "game"]
    assert found.name.startswith(path.strip("/").partition(".")[0].replace(" ", "_") + "-")
    assert listing(found.parent) == [found.name]
    stop(web)
    assert record(address, tmp_path/"new"/"out") == found
    assert "no recording" in refusal(record, address + "?another", tmp_path/"new"/"out")
    assert capfd.readouterr() == ("", "")


@needs_yt_dlp
@pytest.mark.parametrize("terminal", [True, False])
def test_recording_shows_progress(web, media, tmp_path, capfd, monkeypatch, terminal):
    "A terminal sees a bar; a pipe gets none."
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
    web.files["/stream.mkv"] = ("video/x-matroska", media)
    download.download_recording(f"{web.url}/stream.mkv", tmp_path)
    out, err = capfd.readouterr()
    assert out == "" and ("recording" in err and "100%" in err if terminal else "%|" not in err)


@needs_yt_dlp
def test_broken_recording_resumes(web, media, tmp_path):
    "yt-dlp probes the file, downloads a part of it, and fails; the next call downloads only the rest."
    web.files["/stream.mkv"] = ("video/x-matroska", media)
    web.cuts, web.statuses = [len(media), 300_000], [200, 200, 503, 503]
    assert "503" in refusal(record, f"{web.url}/stream.mkv", tmp_path)
    (name,) = listing(tmp_path)
    held = (tmp_path/name).stat().st_size
    assert name.endswith(".mkv.part") and 0 < held <= 300_000 and (tmp_path/name).read_bytes() == media[:held]
    web.requests.clear()
    found = record(f"{web.url}/stream.mkv", tmp_path)
    assert found.read_bytes() == media and listing(tmp_path) == [found.name]
    assert web.requests == [("/stream.mkv", 0), ("/stream.mkv", held)] and web.sent == [len(media) - held]


@needs_yt_dlp
def test_broken_recording_resumes_at_once(web, media, tmp_path):
    web.files["/stream.mkv"] = ("video/x-matroska", media)
    web.cuts = [len(media), 300_000, 100_000]
    assert record(f"{web.url}/stream.mkv", tmp_path).read_bytes() == media and len(web.ranges()) == 2
    assert sum(web.sent) < len(media)


@needs_yt_dlp
def test_killed_recording_resumes(web, media, tmp_path):
    web.files["/stream.mkv"] = ("video/x-matroska", media)
    address = f"{web.url}/stream.mkv"
    web.cuts = [len(media), 300_000]
    key = download._address_key(address)
    call = f"download_recording({address!r}, {str(tmp_path)!r}, False)"
    kill_in_transfer(web, call, tmp_path/f"{key}.mkv.part", 10_000)
    assert download._finished_recording(tmp_path, key) is None
    assert record(address, tmp_path).read_bytes() == media and len(web.ranges()) == 1 and web.ranges()[0] >= 10_000


@needs_yt_dlp
def test_killed_before_it_got_its_name(web, media, tmp_path):
    web.files["/stream.mkv"] = ("video/x-matroska", media)
    address = f"{web.url}/stream.mkv"
    (tmp_path/f"{download._address_key(address)}.mkv").write_bytes(media)
    found = record(address, tmp_path)
    assert found.read_bytes() == media and found.name.startswith("stream-")
    assert len(web.requests) == 1 and listing(tmp_path) == [found.name]


@needs_yt_dlp
def test_recording_from_a_server_without_ranges(web, media, tmp_path):
    web.files["/stream.mkv"] = ("video/x-matroska", media)
    web.cuts, web.knows_ranges = [len(media), 300_000], False
    assert record(f"{web.url}/stream.mkv", tmp_path).read_bytes() == media


@needs_yt_dlp
def test_pieces_are_joined(web, pieces, tmp_path):
    "A missing piece stops the download; the next call asks for what is missing."
    joined = serve_pieces(web, pieces)
    last = web.files.pop("/list3.ts")
    assert "no recording" in refusal(record, f"{web.url}/list.m3u8", tmp_path) and ".part" in "".join(listing(tmp_path))
    web.files["/list3.ts"] = last
    web.requests.clear()
    found = record(f"{web.url}/list.m3u8", tmp_path)
    assert found.read_bytes() == joined and listing(tmp_path) == [found.name]
    assert [path for path, _ in web.requests if path.endswith(".ts")] == ["/list3.ts", "/list4.ts", "/list5.ts"]
    assert [(track.codec, round(track.duration_s)) for track in probe(found).tracks] == [("aac", 5)]


@needs_yt_dlp
def test_nothing_else_is_run_or_read(web, pieces, media, tmp_path):
    "Programs and configuration files are ignored; yt-dlp may ask ffmpeg for its version, and no more."
    programs, marker = tmp_path/"bin", tmp_path/"marker"
    programs.mkdir()
    for name in ("ffmpeg", "ffprobe", "aria2c", "curl", "wget", "deno", "node"):
        (programs/name).write_text(f'#!/bin/sh\necho "{name} $@" >> "{marker}"\necho "ffmpeg version 7.0"\n')
        (programs/name).chmod(0o755)
    for folder in ("home/.config/yt-dlp", "home/.yt-dlp", "home/yt-dlp"):
        (tmp_path/folder).mkdir(parents=True, exist_ok=True)
        (tmp_path/folder/"config").write_text(f"--exec 'touch {marker}'\n--write-info-json\n-o elsewhere\n")
    serve_pieces(web, pieces)
    web.files["/stream.mkv"] = ("video/x-matroska", media)
    encrypted = b'#EXT-X-KEY:METHOD=SAMPLE-AES,URI="/key"\n#EXTINF'  # yt-dlp leaves that to ffmpeg
    sealed = pieces["list.m3u8"].replace(b"#EXTINF", encrypted, 1)
    web.files["/sealed.m3u8"] = ("application/vnd.apple.mpegurl", sealed)
    places = {"HOME": f"{tmp_path}/home", "XDG_CONFIG_HOME": f"{tmp_path}/home/.config",
              "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    for name in ("list.m3u8", "stream.mkv", "sealed.m3u8"):
        code = f"from highlight_sense import download; download.download_recording('{web.url}/{name}', 'out', False)"
        command = [sys.executable, "-c", code]
        result = subprocess.run(command, cwd=tmp_path, env=os.environ | places, capture_output=True, text=True)
        if name == "sealed.m3u8":
            assert result.returncode and "InputError" in result.stderr and "no recording" in result.stderr
        else: assert (result.returncode, result.stdout, result.stderr) == (0, "", "")
    assert len(listing(tmp_path/"out")) == 2 and not list(tmp_path.rglob(".cache"))
    assert not marker.exists() or set(marker.read_text().splitlines()) <= {"ffmpeg -bsfs", "ffprobe -bsfs"}


PAGE = "<html><head><title>{}</title></head><body>{}</body></html>"
VIDEO = "<video src='/stream.mkv'></video>"
FEED = "<?xml version='1.0'?><rss version='2.0'><channel><title>All</title>{}</channel></rss>"
ITEM = "<item><title>One</title><enclosure url='/stream.mkv' type='video/mp4'/></item>"


@needs_yt_dlp
@pytest.mark.parametrize("kind, text, expected", [
    ("text/html", PAGE.format("secret", "nothing here"), "no recording that can be downloaded (Unsupported URL"),
    ("text/html", PAGE.format("two", VIDEO + VIDEO.replace("/stream", "/other")), "a list of recordings"),
    ("application/rss+xml", FEED.format(ITEM * 3), "a list of recordings"),
    ("application/rss+xml", FEED.format(""), "a list of recordings"),
], ids=["page", "two", "feed", "empty"])
def test_addresses_without_a_recording(web, tmp_path, kind, text, expected):
    web.files["/place"] = (kind, text.encode())
    message = refusal(record, web.url.replace("//", "//anna:secret@") + "/place?token=secret#secret", tmp_path/"out")
    assert expected in message and f"{web.url}/place?...:" in message
    assert listing(tmp_path) == [] and {path for path, _ in web.requests} == {"/place"}


@needs_yt_dlp
@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_server_that_refuses(web, media, tmp_path, status):
    for place in ("/stream.mkv", "/"):  # yt-dlp names the second one after its query
        web.files[place], web.statuses = ("video/x-matroska", media), [status]
        message = refusal(record, web.url.replace("//", "//anna:secret@") + f"{place}?token=secret", tmp_path/"out")
        assert f"(Unable to download webpage: HTTP Error {status}" in message and listing(tmp_path) == []


@needs_yt_dlp
def test_live_stream(web, pieces, tmp_path):
    serve_pieces(web, pieces)
    live = pieces["list.m3u8"].replace(b"#EXT-X-ENDLIST\n", b"").replace(b"#EXT-X-PLAYLIST-TYPE:VOD\n", b"")
    web.files["/list.m3u8"] = ("application/vnd.apple.mpegurl", live)
    assert "a stream that is not over" in refusal(record, f"{web.url}/list.m3u8", tmp_path/"out")
    assert listing(tmp_path) == [] and not [path for path, _ in web.requests if path.endswith(".ts")]


@needs_yt_dlp
@pytest.mark.parametrize("title, name", [
    ("../../Evil", "Evil_1"), ("-rf $HOME %(id)s", "rf_HOME_id_s_1"), ("C:\\CON", "C_CON_1"),
    ("\u202e\U0001f480", "1"), ("x" * 500, "x" * 80)])
def test_title_of_a_stranger(web, media, tmp_path, title, name):
    web.files["/page"] = ("text/html", PAGE.format(title, VIDEO).encode())
    web.files["/stream.mkv"] = ("video/x-matroska", media)
    found, key = record(f"{web.url}/page", tmp_path/"out"), download._address_key(f"{web.url}/page")
    assert found == tmp_path/"out"/f"{name}-{key}.mkv" and listing(tmp_path) == ["out", f"out/{found.name}"]


@needs_yt_dlp
def test_secrets_stay_out_of_names(web, media, tmp_path):
    web.accept = "Basic " + base64.b64encode(b"anna:secret").decode()
    web.files["/"] = ("video/x-matroska", media)
    for place in ("/", "/?token=secret"):
        found = record(web.url.replace("//", "//anna:secret@") + place, tmp_path)
        assert found.read_bytes() == media and found.name.startswith("recording-")
    assert len(listing(tmp_path)) == 2


@needs_yt_dlp
def test_folder_with_an_odd_name(web, media, tmp_path):
    web.files["/stream.mkv"] = ("video/x-matroska", media)
    folder = tmp_path/"100%(title)s & ~more"
    found = record(f"{web.url}/stream.mkv", folder)
    assert found.parent == folder and record(f"{web.url}/stream.mkv", folder) == found
    (tmp_path/"file").touch()
    assert "found a file" in refusal(record, f"{web.url}/stream.mkv", tmp_path/"file"/"out")


def write_segments(folder: Path, seconds: int = 2) -> list[bytes]:
    "Write a noise as a transport stream in segments of a second, as streaming sites keep it."
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 48_000)
    with av.open(str(folder/"%d.ts"), "w", format="segment", options={"segment_time": "1"}) as container:
        stream = container.add_stream("aac", rate=48_000, layout="mono")
        for second in range(seconds): container.mux(stream.encode(audio_frame(noise, second * 48_000, 48_000)))
        container.mux(stream.encode(None))
    return [path.read_bytes() for path in sorted(folder.glob("*.ts"))]


@needs_yt_dlp
def test_joined_segments_are_named_as_what_they_are(web, tmp_path):
    "Premiere refuses a transport stream named .mp4, as yt-dlp names it (ytdl-org/youtube-dl#8716)."
    segments = write_segments(tmp_path)
    listed = "".join(f"#EXTINF:1.0,\n{number}.ts\n" for number in range(len(segments)))
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXT-X-PLAYLIST-TYPE:VOD\n{listed}#EXT-X-ENDLIST\n"
    web.files |= {f"/{number}.ts": ("video/mp2t", content) for number, content in enumerate(segments)}
    web.files["/live.m3u8"] = ("application/vnd.apple.mpegurl", playlist.encode())
    found = record(f"{web.url}/live.m3u8", tmp_path/"downloads")
    assert found.suffix == ".ts" and found.read_bytes() == b"".join(segments)
    assert abs(probe(found).duration_s - 2) < 0.1
    web.files.clear()
    assert record(f"{web.url}/live.m3u8", tmp_path/"downloads") == found


def test_without_yt_dlp(web, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yt_dlp", None)
    address = f"{web.url}/stream.mkv"
    assert 'pip install "yt-dlp[default]"' in refusal(record, address, tmp_path) and not web.requests
    finished = tmp_path/f"stream-{download._address_key(address)}.mkv"
    finished.touch()
    assert record(address, tmp_path) == finished


@needs_yt_dlp
@pytest.mark.parametrize("formats, chosen", [
    ({"sound": "-a", "picture": "v- 1080", "both": "va 720"}, "both"),
    ({"huge": "va 2160", "large": "va 1080", "small": "va 360"}, "large"),
    ({"huge": "va 2160", "larger": "va 4320"}, "larger"),
    ({"unknown": "??"}, "unknown"),
    ({"sound": "-a", "picture": "v- 1080"}, "sound"),
    ({"sound": "-a"}, "sound"),
    ({"sound": "-a", "both": "va 720 rtmp"}, "sound"),
    ({"pieces": "va 1080 m3u8_native", "sound": "-a"}, "pieces"),
])
def test_one_file_without_ffmpeg(tmp_path, formats, chosen):
    "Which of a site's formats is chosen: v picture, a sound, - without, ? unknown; lines; protocol."
    import yt_dlp
    codecs = {"-": "none", "?": None}
    offered = []
    for name, text in formats.items():
        kinds, lines, protocol = (text.split() + ["", ""])[:3]
        vcodec, acodec = codecs.get(kinds[0], "avc1"), codecs.get(kinds[1], "mp4a")
        offered.append({"format_id": name, "url": "https://example.org/a", "ext": "mp4",
                        "vcodec": vcodec, "acodec": acodec,
                        "height": int(lines) if lines else None, "protocol": protocol or "https"})
    info = {"id": "a", "title": "a", "extractor": "a", "extractor_key": "A",
            "webpage_url": "https://example.org", "formats": offered}
    with yt_dlp.YoutubeDL(download._download_options("https://example.org", tmp_path, "key")) as downloader:
        assert downloader.process_ie_result(info, download=False)["format_id"] == chosen
