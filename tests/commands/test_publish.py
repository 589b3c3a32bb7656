"From a video recording to everything that is published, and the report in a real browser."
import base64
import io
import json
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from PIL import Image
from running import run

from highlight_sense.checkpoint import save_checkpoint
from highlight_sense.config import ModelConfig
from highlight_sense.model import HighlightCRNN

SECONDS, FPS, RATE_HZ, GROUP_S = 60, Fraction(30_000, 1001), 48_000, 2.002
PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
ENDINGS = ("otio", "edl", "xml", "fcpxml", "mlt", "kdenlive", "markers.edl")  # of timelines
EVERYTHING = ("--clips", "--timeline", "--chapters", "--report")


def record(path: Path) -> Path:
    """Write a recording as OBS does.

    29.97 fps with B-frames, a key frame every 2 s, and two titled AAC tracks of noise that changes in level.
    """
    rng, columns = np.random.default_rng(0), np.arange(320)
    encoding = {"g": "60", "bf": "2", "preset": "ultrafast", "sc_threshold": "0", "crf": "30"}
    with av.open(str(path), "w") as container:
        image = container.add_stream("libx264", rate=FPS, options=encoding)
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
                noise = (level * rng.normal(size=(2, RATE_HZ))).clip(-1, 1).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(noise, "fltp", "stereo")
                frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, second * RATE_HZ, Fraction(1, RATE_HZ)
                container.mux(stream.encode(frame))
        for stream in (image, *sounds): container.mux(stream.encode(None))
    return path


def call(*arguments: object) -> tuple[int, str, str]:
    "Run a command; return its exit code, output, and last error line."
    code, out, err = run(*arguments)
    assert "Traceback" not in err
    return code, out, (err.splitlines() or [""])[-1]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A folder with a recording, a random network, and three unpublished highlights in `out/`."
    place = tmp_path_factory.mktemp("publish")
    torch.manual_seed(0)
    model = HighlightCRNN.from_config(ModelConfig(cnn_channels=(4, 4, 8, 8), rnn_hidden=8, rnn_layers=1, att_dim=4))
    save_checkpoint(place/"best.pt", model, epochs=1, threshold=0.9)
    record(place/"my stream.mkv")
    options = ("--top", 3, "--max-length", 8, "--device", "cpu")
    code, printed, complaint = call("detect", "-m", place/"best.pt", place/"my stream.mkv", "-o", place/"out", *options)
    assert code == 0 and "3 highlights" in printed, complaint
    return place


@pytest.fixture
def detected(place, tmp_path) -> Path:
    "A copy of the folder with the highlights."
    return Path(shutil.copytree(place/"out", tmp_path/"out"))/"my stream"


@pytest.fixture(scope="module")
def published(place, tmp_path_factory) -> Path:
    "A copy with everything published."
    out = Path(shutil.copytree(place/"out", tmp_path_factory.mktemp("published")/"out"))
    code, printed, complaint = call("publish", out, *EVERYTHING)
    assert code == 0 and "3 clips" in printed and "report.html" in printed, complaint
    return out/"my stream"


def highlights_in(folder: Path) -> list[dict]:
    return json.loads((folder/"highlights.json").read_text())["highlights"]


def in_time(highlights: list[dict]) -> list[dict]: return sorted(highlights, key=lambda one: one["clip_start_s"])


def names_in(folder: Path) -> set[str]:
    "All files that `detect` did not write."
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} - {
        "highlights.json", "highlights.csv", "scores.csv", "manifest.json"}


def seconds_of(path: Path) -> tuple[float, list[float]]:
    "Decode a clip; return the duration of its picture and of each track."
    sounds = {}
    with av.open(str(path)) as container:
        frames = sum(1 for _ in container.decode(video=0))
        titles = [stream.metadata.get("title") or stream.metadata.get("name") for stream in container.streams.audio]
        for number in range(len(titles)):
            container.seek(0)
            sounds[number] = sum(frame.samples for frame in container.decode(audio=number)) / RATE_HZ
    assert titles == ["Mix", "Mic/Aux", "Desktop Audio"]
    return float(frames / FPS), list(sounds.values())


def test_everything_is_there(published):
    "Three clips, timelines, chapters, a report, and nothing else."
    names = names_in(published)
    assert len([name for name in names if name.startswith("clips/") and name.endswith(".mkv")]) == 3
    assert {name for name in names if not name.startswith("clips/")} == {
        "report.html", *(f"timelines/my stream.{ending}" for ending in ENDINGS),
        *(f"chapters/my stream.chapters.{ending}" for ending in ("txt", "vtt", "ffmeta"))}
    for ending in ("xml", "fcpxml"):
        timeline = ElementTree.parse(published/"timelines"/f"my stream.{ending}")
        assert timeline.getroot().tag in ("xmeml", "fcpxml")
    edits = (published/"timelines"/"my stream.edl").read_text()
    cues = (published/"chapters"/"my stream.chapters.vtt").read_text()
    assert cues.startswith("WEBVTT")
    scores = [one["probability"] for one in in_time(highlights_in(published))]
    named = [f"Highlight {number}, score {score:.2f}" for number, score in enumerate(scores, 1)]
    assert [line for line in cues.splitlines() if line.startswith("Highlight")] == named  # numbered in order of time
    assert "Highlight at 0:" in edits and "In between" not in cues
    assert "my stream.mkv" in edits


def test_clips_play(published):
    "Clips are named by time and score, have all tracks, and start and end within a key frame."
    for one, path in zip(in_time(highlights_in(published)), sorted((published/"clips").iterdir())):
        start_s = one["clip_start_s"]
        score = round(100 * one["probability"])
        assert path.stem == f"00h{int(start_s) // 60:02}m{int(start_s) % 60:02}s_score{score:02}"
        wanted_s = one["clip_end_s"] - start_s
        picture_s, sounds_s = seconds_of(path)
        assert wanted_s - 0.1 < picture_s < wanted_s + 2 * GROUP_S + 0.1
        assert all(abs(sound_s - picture_s) < 0.2 for sound_s in sounds_s)


def test_publishing_again(published):
    "A second call writes nothing; after a clip is lost, a third call writes only that clip."
    times = {path: path.stat().st_mtime_ns for path in published.rglob("*")}
    assert call("publish", published.parent, *EVERYTHING)[0] == 0
    assert call("publish", published)[0] == 0  # the folder of one recording; everything by default
    assert {path: path.stat().st_mtime_ns for path in published.rglob("*")} == times
    lost = sorted((published/"clips").iterdir())[1]
    content = lost.read_bytes()
    lost.unlink()
    assert call("publish", published.parent, "--clips")[0] == 0 and lost.read_bytes() == content
    changed = {path for path, time in times.items() if path.stat().st_mtime_ns != time and path.is_file()}
    assert changed == {lost, published/"manifest.json"}


def test_exact_clips(detected):
    "Exact clips replace the copies, and the report shows them instead."
    assert call("publish", detected, "--clips", "--report")[0] == 0
    before = {path.name: path.stat().st_size for path in (detected/"clips").iterdir()}
    code, printed, complaint = call("publish", detected, "--clips", "--exact")
    assert code == 0 and "3 clips in clips/ (3 now exact instead of copied), report" in printed, complaint
    assert {path.stem for path in (detected/"clips").iterdir()} == {Path(name).stem for name in before}
    assert names_in(detected) == {"report.html", *(f"clips/{path.name}" for path in (detected/"clips").iterdir())}
    page = (detected/"report.html").read_text()
    assert all(path.name in page for path in (detected/"clips").iterdir())
    assert not any(name in page for name in before)
    for one, path in zip(in_time(highlights_in(detected)), sorted((detected/"clips").iterdir())):
        picture_s, sounds_s = seconds_of(path)
        wanted_s = one["clip_end_s"] - one["clip_start_s"]
        assert abs(picture_s - wanted_s) < 2 / FPS and all(abs(sound_s - picture_s) < 0.06 for sound_s in sounds_s)
    assert "3 clips in clips/ (3 now copied instead of exact), report" in call("publish", detected, "--clips")[1]
    assert "3 clips in clips/, report" in call("publish", detected, "--clips")[1]
    mixed = call("publish", detected, "--clips", "--tracks", "mix")[1]
    assert "3 clips in clips/ (3 now with other tracks), report" in mixed


@pytest.mark.parametrize(("choice", "folders"), [
    ("--timeline", {"timelines"}), ("--chapters", {"chapters"}), ("--report", {"report.html"}), ("--clips", {"clips"})])
def test_one_kind(choice, folders, detected):
    "Only the chosen kind is written."
    assert call("publish", detected.parent, choice)[0] == 0
    assert {name.partition("/")[0] for name in names_in(detected)} == folders


def test_foreign_files_stay(detected, place):
    "An edited report, a moved recording and a replaced one give one line each, which names the option that helps."
    report = detected/"report.html"
    report.write_text("mine")
    code, _, complaint = call("publish", detected, "--report")
    assert code == 2 and "--force" in complaint and report.read_text() == "mine"
    assert call("publish", detected, "--report", "--force")[0] == 0 and report.read_text() != "mine"
    source, attic = place/"my stream.mkv", place/"attic"
    attic.mkdir()
    try:
        source.rename(attic/source.name)
        code, _, complaint = call("publish", detected, "--chapters")
        assert code == 2 and "--recordings" in complaint and not (detected/"chapters").exists()
        assert call("publish", detected, "--chapters", "--recordings", attic)[0] == 0
        assert (detected/"chapters").exists()
        source.write_bytes((attic/source.name).read_bytes()[:-1000])
        code, _, complaint = call("publish", detected, "--timeline")
        assert code == 2 and "another file" in complaint and not (detected/"timelines").exists()
    finally: (attic/source.name).replace(source)
    attic.rmdir()
    code, _, complaint = call("publish", place/"nowhere")
    assert code == 2 and "highlight-sense detect" in complaint


@pytest.mark.parametrize("name", ["chapters/my stream.chapters.txt", "timelines/my stream.edl", "report.html"])
def test_an_edited_file_stops_everything(name, detected):
    "Before a clip is cut or replaced."
    assert call("publish", detected, "--timeline", "--chapters", "--report")[0] == 0
    with (detected/name).open("a") as edited: edited.write("mine")
    before = {path: path.stat().st_mtime_ns for path in detected.rglob("*") if path.is_file()}
    code, _, complaint = call("publish", detected)
    assert code == 2 and f"{detected/name}: found a file that was changed" in complaint and "--force" in complaint
    assert {path: path.stat().st_mtime_ns for path in detected.rglob("*") if path.is_file()} == before


# --- the report in a browser

class Visit:
    "A page in the browser, with its requests and what it logs."

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
    "A function that opens the report."
    visits = []

    def open_report(*arguments: object) -> Visit:
        visits.append(Visit(browser, published/"report.html", *arguments))
        return visits[-1]

    yield open_report
    for one in visits: one.context.close()


def colours(path: Path) -> int:
    "The number of different colours in a picture."
    with Image.open(path) as picture: return len(picture.convert("RGB").getcolors(2 ** 24))


SCREENS = {"phone": (PHONE, 2, "light"), "desktop": (DESKTOP, 1, "light"), "dark": (DESKTOP, 1, "dark")}


@pytest.mark.parametrize(("size", "scale", "scheme"), SCREENS.values(), ids=SCREENS)
def test_it_looks_right(size, scale, scheme, visit, published, tmp_path):
    "The report fits the screen, shows everything, loads nothing and logs no error."
    seen = visit(size, scale, scheme)
    assert seen.ask("document.documentElement.scrollWidth <= innerWidth")
    outside = '''[...document.querySelectorAll("body *")].filter(one => {
        const box = one.getBoundingClientRect();
        return box.width && (box.right > innerWidth + 1 || box.left < -1) }).map(one => one.outerHTML.slice(0, 80))'''
    assert seen.ask(outside) == []
    broken = '''[...document.querySelectorAll(".ticks span, .y, .pins a")].filter(one => {
        const range = document.createRange();
        range.selectNodeContents(one);
        return range.getClientRects().length > one.textContent.split(" ").length }).map(one => one.textContent)'''
    assert seen.ask(broken) == []  # no word over two lines
    assert seen.ask("[...document.images].every(one => one.complete && one.naturalWidth > 100)")
    assert seen.ask("document.images.length") == 6
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
    "Each clip plays for its whole length, with a moving picture and decoded sound."
    seen = visit(DESKTOP)
    ready = '[...document.querySelectorAll("video")].every(one => one.readyState >= 1)'
    seen.page.wait_for_function(ready, timeout=20_000)
    facts = '[...document.querySelectorAll("video")].map(one => [one.duration, one.videoWidth, one.videoHeight])'
    clips = seen.ask(facts)
    for (duration_s, width, height), one in zip(clips, highlights_in(published), strict=True):
        assert abs(duration_s - (one["clip_end_s"] - one["clip_start_s"])) < 0.2
        assert width > 100 and abs(width / height - 16 / 9) < 0.05
    play = '''async number => {
        const video = document.querySelectorAll("video")[number];
        await video.play();
        while (video.currentTime < 0.5) await new Promise(next => setTimeout(next, 50));
        video.pause();
        const frames = video.getVideoPlaybackQuality().totalVideoFrames;
        return [video.currentTime, video.webkitAudioDecodedByteCount, frames] }'''
    for number in range(len(clips)):
        played_s, sound_bytes, frames = seen.page.evaluate(play, number)
        assert played_s >= 0.5 and sound_bytes > 1000 and frames > 4


def test_players_show_something_before_they_play(visit, published, tmp_path):
    "Each player has a small still, which is a frame of its highlight."
    seen = visit(DESKTOP)
    posters = seen.ask('[...document.querySelectorAll("video")].map(one => one.poster)')
    for poster, one in zip(posters, highlights_in(published), strict=True):
        content = base64.b64decode(poster.removeprefix("data:image/jpeg;base64,"))
        assert len(content) < 40_000
        with Image.open(io.BytesIO(content)) as picture: shade = np.asarray(picture.convert("RGB"))[:, :, 1].mean()
        assert abs(shade - 4 * (one["start_s"] + one["end_s"]) / 2) < 8  # the recording gets greener by 4 every second


def test_near_misses_play(visit, published):
    "Near misses play, are at most ten seconds long and small, and the curve links to them."
    seen = visit(PHONE)
    near = json.loads((published/"highlights.json").read_text())["near_misses"]
    ready = '[...document.querySelectorAll("audio")].every(one => one.readyState >= 1)'
    seen.page.wait_for_function(ready, timeout=20_000)
    lasts = seen.ask('[...document.querySelectorAll(".misses audio")].map(one => [one.duration, one.src.length])')
    for (duration_s, size), one in zip(lasts, near, strict=True):
        assert abs(duration_s - min(10, one["clip_end_s"] - one["clip_start_s"])) < 0.2 and size < 80_000
    sound_bytes = seen.ask('''(async () => {
        const audio = document.querySelector(".misses audio");
        await audio.play();
        while (audio.currentTime < 0.5) await new Promise(next => setTimeout(next, 50));
        audio.pause();
        return audio.webkitAudioDecodedByteCount })()''')
    assert sound_bytes > 500
    seen.page.evaluate("scrollTo(0, 0)")
    seen.page.locator('.plot svg a[href="#m1"]').click(force=True)
    seen.page.wait_for_timeout(100)
    top = seen.ask('document.getElementById("m1").getBoundingClientRect().top')
    assert seen.page.url.endswith("#m1") and 0 <= top < PHONE["height"] - 50


def test_the_picture_holds_clip_and_window(visit, published):
    "Marks on a card are in the right place, to a hundredth of the width."
    places = visit(DESKTOP).ask('''[...document.querySelectorAll("article")].map(card =>
        [".mark", ".row .pick", ".row .clip", ".row .window"].map(name => {
            const box = card.querySelector(name).getBoundingClientRect();
            const whole = card.querySelector(".field").getBoundingClientRect();
            return [(box.left - whole.left) / whole.width, (box.right - whole.left) / whole.width] }))''')
    for found, one in zip(places, highlights_in(published), strict=True):
        window = one["window"]
        first_s, last_s = min(window["start_s"], one["clip_start_s"]), max(window["end_s"], one["clip_end_s"])
        clip_s, window_s = (one["clip_start_s"], one["clip_end_s"]), (window["start_s"], window["end_s"])
        times_s = [(one["start_s"], one["end_s"])] * 2 + [clip_s, window_s]
        np.testing.assert_allclose(found, (np.array(times_s) - first_s) / (last_s - first_s), atol=0.01)


def test_the_threshold_line(detected, browser):
    "Highlights reach above the threshold line, near misses stay below it."
    record = json.loads((detected/"highlights.json").read_text())
    chances = [one["probability"] for one in record["highlights"] + record["near_misses"]]
    record["settings"]["threshold"] = threshold = (chances[2] + chances[3]) / 2
    (detected/"highlights.json").write_text(json.dumps(record))
    assert call("publish", detected, "--report")[0] == 0
    seen = Visit(browser, detected/"report.html", DESKTOP)
    height = '''name => [...document.querySelectorAll(name)].map(line => {
        const [own, plot] = [line, document.querySelector(".plot svg")].map(one => one.getBoundingClientRect());
        return (plot.bottom - (own.top + own.bottom) / 2) / plot.height })'''
    line, = seen.page.evaluate(height, ".plot .threshold")
    caps = seen.page.evaluate(height, ".plot .cap")
    assert abs(line - threshold) < 0.01 and sorted(caps) == pytest.approx(sorted(chances), abs=0.01)
    labels = seen.ask('[...document.querySelectorAll(".plot .y")].map(one => one.textContent)')
    seen.context.close()
    assert labels == ["0", "0.5", "1"] and sum(cap > line for cap in caps) == len(record["highlights"])


HOSTILE = (
    '"\'><img src=http://example.com/x onerror=alert(1)><script>alert(2)</script>" onload="alert(3)" '
    '{{ 7 * 7 }} javascript:alert(4) &lt;b&gt; \u202e\udcff')


def test_names_are_only_names(detected, browser, tmp_path):
    "Hostile names of recordings, tracks and checkpoints are shown as text and do nothing."
    record = json.loads((detected/"highlights.json").read_text())
    for one in (record["voice"], record["game"]): one["title"] = HOSTILE
    record["recording"]["name"] = record["tracks"] = record["version"] = HOSTILE
    record["checkpoint"]["path"] = HOSTILE.replace("/", "")
    (detected/"highlights.json").write_text(json.dumps(record))
    assert call("publish", detected, "--clips", "--report")[0] == 0
    seen, dialogs = Visit(browser, detected/"report.html", PHONE), []

    def note(dialog: object) -> None:
        dialogs.append(dialog.message)
        dialog.dismiss()

    seen.page.on("dialog", note)
    seen.page.reload(wait_until="load")
    seen.page.mouse.move(200, 200)
    seen.page.wait_for_timeout(300)
    shown = HOSTILE.replace("\udcff", "\\udcff")
    assert seen.ask("document.querySelector('h1').textContent") == shown
    assert seen.page.title() == " ".join(f"Highlights of {shown}".split())
    assert seen.ask("document.querySelector('.heard b').textContent") == f"voice: {shown}"
    assert seen.ask("document.querySelector('.heard img').alt") == f"Log-mel spectrogram, voice: {shown}"
    assert seen.ask('document.querySelectorAll("script, [onload], [onerror]").length') == 0
    assert seen.ask("document.images.length") == 6
    assert seen.ask("document.documentElement.scrollWidth <= innerWidth")
    assert dialogs == seen.complaints == [] and {url.partition(":")[0] for url in seen.requests} <= {"file", "data"}
    seen.context.close()


def test_two_files_and_a_mix(place, tmp_path):
    "Two files give one set of timelines and a report that names both; the report of a mix compares nothing."
    with av.open(str(place/"my stream.mkv")) as source:
        for number, name in enumerate(("mic.mka", "game.mka")):
            with av.open(str(tmp_path/name), "w") as container:
                copy = container.add_stream_from_template(source.streams.audio[number])
                if number == 0: copy.metadata["title"] = "Mic/Aux"
                source.seek(0)
                for packet in source.demux(audio=number):
                    if packet.dts is None: continue
                    packet.stream = copy
                    container.mux(packet)
    options = ("--top", 2, "--max-length", 8, "--device", "cpu", "-o", tmp_path/"out")
    two, mix = tmp_path/"out"/"game", tmp_path/"out"/"mic"
    files = "--mic", tmp_path/"mic.mka", "--game", tmp_path/"game.mka"
    assert call("detect", "--model", place/"best.pt", *files, *options)[0] == 0
    assert call("publish", two, "--timeline", "--report")[0] == 0
    timelines = {path.name for path in (two/"timelines").iterdir()}
    assert timelines == {f"game.{ending}" for ending in ENDINGS}
    page = (two/"report.html").read_text()
    assert "mic.mka, Mic/Aux (a:0)" in page and "game.mka (a:0)" in page
    assert "as asked for" in page and "one mix" not in page
    words = " ".join(page.split())
    assert "how sure the model is in one window around it, with and without each track; the sound" in words
    assert "</span>probability of a highlight or near miss</span>" in words and "its probability<" not in words
    assert call("detect", "--model", place/"best.pt", tmp_path/"mic.mka", "--separate", "none", *options)[0] == 0
    assert call("publish", mix, "--report")[0] == 0
    page = (mix/"report.html").read_text()
    assert "scores are worse than with two tracks" in page and "without the" not in page
    assert page.count("<img ") == 2 and page.count("mix: Mic/Aux") == 4


def test_the_curve_links_to_the_cards(visit):
    "Each mark on the curve, and each link below it, scrolls to its card."
    for size in (DESKTOP, PHONE):
        seen = visit(size)
        for rank, place in ((3, "nav"), (1, "svg"), (2, "nav"), (3, "svg")):
            seen.page.evaluate("scrollTo(0, 0)")
            seen.page.locator(f'.plot {place} a[href="#h{rank}"]').click()
            seen.page.wait_for_timeout(100)
            top = seen.page.evaluate("rank => document.getElementById('h' + rank).getBoundingClientRect().top", rank)
            assert seen.page.url.endswith(f"#h{rank}") and -2 <= top < size["height"] - 50
        assert seen.complaints == []


def test_links_to_the_clips(visit, published):
    "The links lead to the published clips."
    hrefs = '[...document.querySelectorAll("article header a")].map(one => decodeURI(one.href))'
    links = [Path(link.removeprefix("file://")) for link in visit(DESKTOP).ask(hrefs)]
    assert sorted(links) == sorted((published/"clips").iterdir())
