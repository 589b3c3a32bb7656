"From a recording with a picture to everything that is published of it; and the report in a real browser."
import contextlib
import io
import json
import os
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from fractions import Fraction
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image

from highlight_sense.checkpoint import save_checkpoint
from highlight_sense.cli import main
from highlight_sense.core import ModelConfig
from highlight_sense.model import HighlightCRNN

SECONDS, FPS, RATE_HZ, GROUP_S = 60, Fraction(30_000, 1001), 48_000, 2.002
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
EVERYTHING = ("--clips", "--timeline", "--chapters", "--report")


def record(path: Path) -> Path:
    "As OBS writes: 29.97 frames per second with B-frames, a key frame every 2 s, two titled AAC tracks with noise that comes and goes."
    rng, columns = np.random.default_rng(0), np.arange(320)
    with av.open(str(path), "w") as container:
        image = container.add_stream("libx264", rate=FPS, options={"g": "60", "bf": "2", "preset": "ultrafast", "sc_threshold": "0", "crf": "30"})
        image.width, image.height, image.pix_fmt = 320, 180, "yuv420p"
        sounds = [container.add_stream("aac", rate=RATE_HZ, layout="stereo") for _ in range(2)]
        for stream, title in zip(sounds, ("Mic/Aux", "Desktop Audio")): stream.metadata["title"] = title
        for second in range(SECONDS):
            for number in range(*(int(np.ceil(at * FPS)) for at in (second, second + 1))):
                picture = np.zeros((180, 320, 3), np.uint8)
                picture[:, :, 0], picture[:, :, 1] = (columns + 4 * number) % 256, 4 * second % 256
                frame = av.VideoFrame.from_ndarray(picture)
                frame.pts, frame.time_base = number, 1 / FPS
                container.mux(image.encode(frame))
            for stream, level in zip(sounds, rng.uniform(0.01, 0.3, 2)):
                frame = av.AudioFrame.from_ndarray((level * rng.normal(size=(2, RATE_HZ))).clip(-1, 1).astype(np.float32), "fltp", "stereo")
                frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, second * RATE_HZ, Fraction(1, RATE_HZ)
                container.mux(stream.encode(frame))
        for stream in (image, *sounds): container.mux(stream.encode(None))
    return path


def call(*arguments: object) -> tuple[int, str, str]:
    "What the command line answers: exit code, output, and the last line on the error stream."
    out, err, code = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try: main([str(argument) for argument in arguments])
        except SystemExit as ended: code = ended.code or 0
    assert "Traceback" not in err.getvalue()
    return code, out.getvalue(), (err.getvalue().splitlines() or [""])[-1]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A folder with a recording, a random network, and three highlights in `out/`, not yet published."
    place = tmp_path_factory.mktemp("publish")
    torch.manual_seed(0)
    model = HighlightCRNN.from_config(ModelConfig(cnn_channels=(4, 4, 8, 8), rnn_hidden=8, rnn_layers=1, att_dim=4))
    save_checkpoint(place/"best.pt", model, epochs=1, threshold=0.9)
    record(place/"my stream.mkv")
    command = ["detect", place/"best.pt", place/"my stream.mkv", "-o", place/"out", "--top", 3, "--max-length", 8, "--device", "cpu"]
    code, printed, complaint = call(*command)
    assert code == 0 and "3 highlights" in printed, complaint
    return place


@pytest.fixture
def detected(place, tmp_path) -> Path:
    "A copy of the folder with the highlights."
    return Path(shutil.copytree(place/"out", tmp_path/"out"))/"my stream"


@pytest.fixture(scope="module")
def published(place, tmp_path_factory) -> Path:
    "A copy of it with everything."
    out = Path(shutil.copytree(place/"out", tmp_path_factory.mktemp("published")/"out"))
    code, printed, complaint = call("publish", out, *EVERYTHING)
    assert code == 0 and "3 clips" in printed and "report.html" in printed, complaint
    return out/"my stream"


def highlights_in(folder: Path) -> list[dict]:
    return json.loads((folder/"highlights.json").read_text())["highlights"]


def names_in(folder: Path) -> set[str]:
    "All files but those that `detect` wrote."
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {
        "highlights.json", "highlights.csv", "scores.csv", "manifest.json"}


def seconds_of(path: Path) -> tuple[float, list[float]]:
    "Decodes a clip: how long its picture lasts, and each of its tracks."
    sounds = {}
    with av.open(str(path)) as container:
        frames = sum(1 for _ in container.decode(video=0))
        titles = [stream.metadata.get("title") or stream.metadata.get("name") for stream in container.streams.audio]
        for number in range(len(titles)):
            container.seek(0)
            sounds[number] = sum(frame.samples for frame in container.decode(audio=number)) / RATE_HZ
    assert titles == ["Mic/Aux", "Desktop Audio"]
    return float(frames / FPS), list(sounds.values())


def test_everything_is_there(published):
    "And no file besides: three clips, timelines, chapters, a page."
    names = names_in(published)
    assert len([name for name in names if name.startswith("clips/") and name.endswith(".mkv")]) == 3
    assert {name for name in names if not name.startswith("clips/")} == {
        "report.html", *(f"timelines/my stream.{ending}" for ending in ("otio", "edl", "xml", "fcpxml")),
        *(f"chapters/my stream.chapters.{ending}" for ending in ("txt", "vtt", "ffmeta"))}
    for ending in ("xml", "fcpxml"): assert ElementTree.parse(published/"timelines"/f"my stream.{ending}").getroot().tag in ("xmeml", "fcpxml")
    edits = (published/"timelines"/"my stream.edl").read_text()
    cues = (published/"chapters"/"my stream.chapters.vtt").read_text()
    assert cues.startswith("WEBVTT") and sum(f"Highlight {rank}" in cues for rank in (1, 2, 3)) == 3 and "my stream.mkv" in edits


def test_clips_play(published):
    "Named by rank and time, all tracks, from at most a key frame early to at most one late."
    for one, path in zip(highlights_in(published), sorted((published/"clips").iterdir())):
        start_s = one["clip_start_s"]
        assert path.stem == f"{one['rank']:02}_00h{int(start_s) // 60:02}m{int(start_s) % 60:02}s"
        wanted_s = one["clip_end_s"] - start_s
        picture_s, sounds_s = seconds_of(path)
        assert wanted_s - 0.1 < picture_s < wanted_s + 2 * GROUP_S + 0.1
        assert all(abs(sound_s - picture_s) < 0.2 for sound_s in sounds_s)


def test_again(published):
    "A second call writes nothing; a third, after something was lost, writes that."
    times = {path: path.stat().st_mtime_ns for path in published.rglob("*")}
    assert call("publish", published.parent, *EVERYTHING)[0] == 0
    assert call("publish", published)[0] == 0  # the folder of one recording, and everything by custom
    assert {path: path.stat().st_mtime_ns for path in published.rglob("*")} == times
    lost = sorted((published/"clips").iterdir())[1]
    content = lost.read_bytes()
    lost.unlink()
    assert call("publish", published.parent, "--clips")[0] == 0 and lost.read_bytes() == content
    changed = {path for path, time in times.items() if path.stat().st_mtime_ns != time and path.is_file()}
    assert changed == {lost, published/"manifest.json"}


def test_exact(detected):
    "To the frame, instead of the copies that were there; a report that showed those shows these."
    assert call("publish", detected, "--clips", "--report")[0] == 0
    before = {path.name: path.stat().st_size for path in (detected/"clips").iterdir()}
    assert call("publish", detected, "--exact")[0] == 0
    assert {path.stem for path in (detected/"clips").iterdir()} == {Path(name).stem for name in before}
    assert names_in(detected) == {"report.html", *(f"clips/{path.name}" for path in (detected/"clips").iterdir())}
    page = (detected/"report.html").read_text()
    assert all(path.name in page for path in (detected/"clips").iterdir()) and not any(name in page for name in before)
    for one, path in zip(highlights_in(detected), sorted((detected/"clips").iterdir())):
        picture_s, sounds_s = seconds_of(path)
        wanted_s = one["clip_end_s"] - one["clip_start_s"]
        assert abs(picture_s - wanted_s) < 2 / FPS and all(abs(sound_s - picture_s) < 0.06 for sound_s in sounds_s)


@pytest.mark.parametrize(("choice", "folders"), [
    ("--timeline", {"timelines"}), ("--chapters", {"chapters"}), ("--report", {"report.html"}), ("--clips", {"clips"})])
def test_one_kind(choice, folders, detected):
    "Only what was asked for."
    assert call("publish", detected.parent, choice)[0] == 0
    assert {name.partition("/")[0] for name in names_in(detected)} == folders


def test_what_is_not_ours_stays(detected, place):
    "A report of the user's own, a recording that was moved or exchanged: one line each; `--force` and `--recordings` help."
    (detected/"report.html").write_text("mine")
    code, _, complaint = call("publish", detected, "--report")
    assert code == 2 and "--force" in complaint and (detected/"report.html").read_text() == "mine"
    assert call("publish", detected, "--report", "--force")[0] == 0 and (detected/"report.html").read_text() != "mine"
    source, attic = place/"my stream.mkv", place/"attic"
    attic.mkdir()
    try:
        source.rename(attic/source.name)
        code, _, complaint = call("publish", detected, "--chapters")
        assert code == 2 and "--recordings" in complaint and not (detected/"chapters").exists()
        assert call("publish", detected, "--chapters", "--recordings", attic)[0] == 0 and (detected/"chapters").exists()
        source.write_bytes((attic/source.name).read_bytes()[:-1000])
        code, _, complaint = call("publish", detected, "--timeline")
        assert code == 2 and "another file" in complaint and not (detected/"timelines").exists()
    finally: (attic/source.name).replace(source)
    attic.rmdir()
    code, _, complaint = call("publish", place/"nowhere")
    assert code == 2 and "highlight-sense detect" in complaint


# In a browser

@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    "A headless Chromium; a machine that tests every change has to have one."
    found = next((place for name in ("chromium", "chromium-browser", "google-chrome") if (place := shutil.which(name))), None)
    if find_spec("playwright") is None: found = None
    if found is None:
        assert not os.environ.get("CI"), "found no Chromium or no Python package playwright"
        pytest.skip("needs Chromium and the Python package playwright")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as play:
        chromium = play.chromium.launch(executable_path=found, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"])
        yield chromium
        chromium.close()


class Visit:
    "A page in the browser, with all that it asked for and complained about."
    def __init__(self, browser: object, path: Path, size: dict[str, int], scale: int = 1, scheme: str = "light"):
        self.requests, self.complaints = [], []
        self.context = browser.new_context(viewport=size, device_scale_factor=scale, color_scheme=scheme)
        self.page = self.context.new_page()
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.goto(path.as_uri(), wait_until="load")

    def ask(self, script: str) -> object:
        return self.page.evaluate(script)


@pytest.fixture
def visit(browser, published) -> Iterator[Callable[..., Visit]]:
    "Opens the report."
    visits = []
    yield lambda *arguments: visits.append(Visit(browser, published/"report.html", *arguments)) or visits[-1]
    for one in visits: one.context.close()


def colours(path: Path) -> int:
    "How many different colours a picture has."
    with Image.open(path) as picture: return len(picture.convert("RGB").getcolors(2 ** 24))


@pytest.mark.parametrize(("size", "scale", "scheme"), [(PHONE, 2, "light"), (DESKTOP, 1, "light"), (DESKTOP, 1, "dark")], ids=["phone", "desktop", "dark"])
def test_it_looks_right(size, scale, scheme, visit, published, tmp_path):
    "Fits the screen, shows everything, asks nobody for anything and has nothing to complain about."
    seen = visit(size, scale, scheme)
    assert seen.ask("document.documentElement.scrollWidth <= innerWidth")
    outside = '''[...document.querySelectorAll("body *")].filter(one => { const box = one.getBoundingClientRect();
                 return box.width && (box.right > innerWidth + 1 || box.left < -1) }).map(one => one.outerHTML.slice(0, 80))'''
    assert seen.ask(outside) == []
    broken = '''[...document.querySelectorAll(".ticks span, th")].filter(one => {
                const range = document.createRange(); range.selectNodeContents(one);
                return range.getClientRects().length > one.textContent.split(" ").length }).map(one => one.textContent)'''
    assert seen.ask(broken) == []  # no word over two lines
    assert seen.ask('[...document.images].every(one => one.complete && one.naturalWidth > 100)') and seen.ask("document.images.length") == 6
    assert seen.ask('document.querySelectorAll("article").length') == len(highlights_in(published)) == 3
    seen.page.screenshot(path=tmp_path/"page.png", full_page=True)
    with Image.open(tmp_path/"page.png") as picture:
        assert picture.width == scale * size["width"] and picture.height > 1.2 * scale * size["height"]
        brightness = np.asarray(picture.convert("L"))[-8:, :8].mean()
    assert colours(tmp_path/"page.png") > 1000 and (brightness < 60) == (scheme == "dark")
    assert {url.partition(":")[0] for url in seen.requests} <= {"file", "data"}
    assert [url for url in seen.requests if url.startswith("file:")] == [(published/"report.html").as_uri()]
    assert seen.complaints == []


def test_clips_in_the_report_play(visit, published):
    "Picture and sound of each clip, as long as the clip; the picture moves and the sound is not silence."
    seen = visit(DESKTOP)
    seen.page.wait_for_function('[...document.querySelectorAll("video")].every(one => one.readyState >= 1)', timeout=20_000)
    clips = seen.ask('[...document.querySelectorAll("video")].map(one => [one.duration, one.videoWidth, one.videoHeight])')
    for (duration_s, width, height), one in zip(clips, highlights_in(published), strict=True):
        assert abs(duration_s - (one["clip_end_s"] - one["clip_start_s"])) < 0.2 and width > 100 and abs(width / height - 16 / 9) < 0.05
    for number in range(len(clips)):
        heard = seen.page.evaluate('''async number => { const video = document.querySelectorAll("video")[number];
            await video.play(); while (video.currentTime < 0.5) await new Promise(next => setTimeout(next, 50)); video.pause();
            return [video.currentTime, video.webkitAudioDecodedByteCount, video.getVideoPlaybackQuality().totalVideoFrames] }''', number)
        assert heard[0] >= 0.5 and heard[1] > 1000 and heard[2] > 4


def test_a_highlight_leads_to_its_card(visit):
    "From the curve over the recording to the card."
    for size in (DESKTOP, PHONE):
        seen = visit(size)
        for rank, place in ((3, "nav"), (1, "svg"), (2, "nav"), (3, "svg")):
            seen.page.evaluate("scrollTo(0, 0)")
            seen.page.locator(f'.plot {place} a[href="#h{rank}"]').click()
            seen.page.wait_for_timeout(100)
            top = seen.page.evaluate("rank => document.getElementById('h' + rank).getBoundingClientRect().top", rank)
            assert seen.page.url.endswith(f"#h{rank}") and -2 <= top < size["height"] - 50
        assert seen.complaints == []


def test_links_lead_to_the_clips(visit, published):
    "Beside the page, in the folder that it is published in."
    links = visit(DESKTOP).ask('[...document.querySelectorAll("article header a")].map(one => decodeURI(one.href))')
    assert sorted(Path(link.removeprefix("file://")) for link in links) == sorted((published/"clips").iterdir())
