"The review page: in a real browser, by keys, by mouse and on a phone; and requests that it must refuse."
import csv
import errno
import http.client
import json
import os
import shutil
import time
import urllib.error
import urllib.request
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from queue import Queue
from threading import Thread
from urllib.parse import parse_qs, urlsplit

import av
import numpy as np
import pytest
from running import rating_model, run, uneven_noise

from highlight_sense.files import InputError

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 900}
SECONDS, RATE_HZ = 60, 22_050
CHOICE = ("--top", 3, "--window", 10, "--max-length", 8, "--device", "cpu", "--kernels", "plain")


def record(path: Path) -> Path:
    "Write a minute of video with two tracks of noise that changes in level every second."
    with av.open(str(path), "w") as container:
        image = container.add_stream("libx264", rate=5, options={"preset": "ultrafast", "g": "5"})
        image.width, image.height, image.pix_fmt = 160, 90, "yuv420p"
        sounds = [container.add_stream("aac", rate=RATE_HZ, layout="mono") for _ in range(2)]
        for stream, title in zip(sounds, ("Mic/Aux", "Desktop Audio")): stream.metadata["title"] = title
        for number in range(5 * SECONDS):
            frame = av.VideoFrame.from_ndarray(np.full((90, 160, 3), number % 256, np.uint8))
            frame.pts = number
            container.mux(image.encode(frame))
        for stream, noise in zip(sounds, uneven_noise(SECONDS, RATE_HZ).astype(np.float32)):
            frame = av.AudioFrame.from_ndarray(noise[None].clip(-1, 1), "fltp", "mono")
            frame.sample_rate = RATE_HZ
            container.mux(stream.encode(frame))
        for stream in (image, *sounds): container.mux(stream.encode(None))
    return path


class Review:
    "A review that a command serves in another thread, and what it prints in the end."

    def __init__(self, words: tuple, folder: Path, patch: pytest.MonkeyPatch):
        addresses, self.folder, self.ended = Queue(), folder, []
        patch.setattr(webbrowser, "open", addresses.put)
        self.thread = Thread(target=lambda: self.ended.append(run(*words)), daemon=True)
        self.thread.start()
        self.address = addresses.get(timeout=60)

    def ask(self, path: str, **headers: str) -> tuple[int, bytes]:
        "Send a request with the token."
        parts = urlsplit(self.address)
        query = parts.query + path.partition("?")[2].join(["&", ""])
        address = f"http://{parts.netloc}/{path.partition('?')[0]}?{query}"
        try:
            with urllib.request.urlopen(urllib.request.Request(address, headers=headers), timeout=30) as found:
                return found.status, found.read()
        except urllib.error.HTTPError as error: return error.code, error.read()

    def state(self) -> dict:
        "The state of the only recording."
        return json.loads(self.ask("state")[1])["recordings"][0]

    def picks(self) -> list[dict]:
        "The rows on disk."
        path = self.folder/"picks.csv"
        return list(csv.DictReader(path.open())) if path.exists() else []

    def close(self) -> str:
        "Close the review as its page does; return what the command printed."
        if self.thread.is_alive(): self.ask("close")
        self.thread.join(30)
        code, out, err = self.ended[0]
        assert code == 0 and "Traceback" not in err, err
        return out


@contextmanager
def reviewing(*words: object, folder: Path) -> Iterator[Review]:
    "Serve a review for the length of a block."
    with pytest.MonkeyPatch.context() as patch:
        review = Review(words, folder, patch)
        try: yield review
        finally: review.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A folder with a recording, and a detection that was made for a review."
    place = tmp_path_factory.mktemp("review")
    record(place/"my evening.mkv")
    rating_model(place/"model.pt")
    words = ("detect", "-m", place/"model.pt", place/"my evening.mkv", "-o", place/"out", *CHOICE, "--review")
    with reviewing(*words, folder=place/"out"/"my evening") as review:
        assert review.state()["name"] == "my evening.mkv"
        printed = review.close()
    assert "3 highlights" in printed and "review: http://127.0.0.1:" in printed and "no verdict, in" in printed
    return place


@pytest.fixture
def review(place, tmp_path) -> Iterator[Review]:
    "A review of a copy of the detection."
    shutil.copytree(place/"out", tmp_path/"out")
    with reviewing("review", tmp_path/"out", folder=tmp_path/"out"/"my evening") as review: yield review


def until(condition: Callable[[], object], wait_s: float = 15) -> object:
    "Wait until a condition holds, and return what it gives."
    end_s = time.monotonic() + wait_s
    while not (found := condition()):
        assert time.monotonic() < end_s, "still not so"
        time.sleep(0.03)
    return found


class Visit:
    "The page in the browser, and what it logs."

    def __init__(self, browser: object, address: str, size: dict[str, int] = DESKTOP, **options: object):
        self.context = browser.new_context(viewport=size, **options)
        self.context.set_default_timeout(15_000)
        self.page = self.context.new_page()
        self.complaints, self.requests = [], []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(address)
        self.page.locator("#pictures img").first.wait_for()

    def shown(self, name: str) -> str:
        "The text of an element."
        return self.page.locator(name).inner_text()

    def press(self, *keys: str) -> None:
        for key in keys: self.page.keyboard.press(key)

    def value(self, script: str) -> object: return self.page.evaluate(script)

    def wait_for_clip(self) -> None: until(lambda: self.value("document.getElementById('clip').readyState") >= 2)


@pytest.fixture
def visit(browser, review) -> Iterator[Callable[..., Visit]]:
    "A function that opens the page."
    visits = []

    def open_page(*arguments: object, **options: object) -> Visit:
        visits.append(Visit(browser, review.address, *arguments, **options))
        return visits[-1]

    yield open_page
    for one in visits: one.context.close()


# --- without a browser

def test_detect_review_stores_what_the_page_needs(place):
    "`detect --review` stores the log-mel as one of its files; the page it opens asks about the best and others."
    folder = place/"out"/"my evening"
    listed = json.loads((folder/"manifest.json").read_text())["files"]
    assert listed["log-mel.pt"]["sha256"] and (folder/"log-mel.pt").stat().st_size > 2 * 80 * 2 * 43 * SECONDS * 0.95


def test_foreign_requests_are_refused(review):
    "No token, another token, a foreign name, a foreign page and POST are refused, and write nothing."
    number = review.state()["asked"][0]
    path = f"verdict/0/{number}?verdict=keep&start=1&end=5"
    parts = urlsplit(review.address)
    for query in ("", "token=", "token=" + parse_qs(parts.query)["token"][0][:-1] + "!", "token=%FF%00"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://{parts.netloc}/{path}&{query}", timeout=10)
        assert refused.value.code == 403
    for headers in ({"Host": "evil.example"}, {"Origin": "http://evil.example"}, {"Origin": "null"},
                    {"Sec-Fetch-Site": "cross-site"}):
        assert review.ask(path, **headers)[0] == 403, headers
    connection = http.client.HTTPConnection(parts.netloc, timeout=10)
    connection.request("POST", f"/{path}&{parts.query}")
    assert connection.getresponse().status == 403
    connection.close()
    assert review.picks() == []
    assert review.ask(path)[0] == 200 and review.picks()[0]["verdict"] == "keep"


def test_it_sends_short_clips_never_the_recording(review, place):
    "A clip covers the moment and ten seconds around it; no path leads elsewhere; no stored log-mel is needed."
    (review.folder/"log-mel.pt").unlink()
    assert len(json.loads(review.ask("picture/0/0")[1])["pictures"]) == 2
    one = review.state()["candidates"][0]
    status, content = review.ask("preview/0/0")
    assert status == 200
    (review.folder/"clip.mp4").write_bytes(content)
    with av.open(str(review.folder/"clip.mp4")) as clip:
        assert abs(clip.duration / 1e6 - (one["to"] - one["from"])) < 0.3
        assert [stream.codec_context.name for stream in clip.streams] == ["h264", "aac"]
    for path in ("preview/0/99999", "preview/9/0", "../picks.csv", "preview/0/0/../../picks.csv", "preview/0/-1"):
        assert review.ask(path)[0] == 404, path
    huge = "bytes=" + ",".join(f"{n}-" for n in range(3000))
    assert review.ask("preview/0/0", Range=huge)[0] < 500


def test_a_moved_recording(place, tmp_path):
    "Without the recording, the page says so; pictures and verdicts still work, and --recordings finds it again."
    shutil.copytree(place/"out", tmp_path/"out")
    folder = tmp_path/"out"/"my evening"
    record_path = folder/"highlights.json"
    record_path.write_text(record_path.read_text().replace("my evening.mkv\"", "moved away.mkv\""))
    with reviewing("review", tmp_path/"out", folder=folder) as review:
        status, content = review.ask("preview/0/0")
        line = json.loads(content)["error"]
        assert status == 400 and "moved away.mkv: found no such file" in line and "--recordings" in line
        assert review.ask("picture/0/0")[0] == 200
        assert review.ask("verdict/0/0?verdict=drop&start=1&end=5")[0] == 200 and len(review.picks()) == 1
    shutil.copy(place/"my evening.mkv", tmp_path/"moved away.mkv")
    with reviewing("review", tmp_path/"out", "--recordings", tmp_path, folder=folder) as review:
        assert review.ask("preview/0/0")[0] == 200


def test_another_machine_is_served_when_asked_for(place, tmp_path):
    "`--host 0.0.0.0` prints an address of this machine in its network, which works with the token only."
    shutil.copytree(place/"out", tmp_path/"out")
    with reviewing("review", tmp_path/"out", "--host", "0.0.0.0", folder=tmp_path/"out"/"my evening") as review:
        assert "0.0.0.0" not in review.address and review.ask("state")[0] == 200
        assert review.ask("state", Host="192.0.2.7:80")[0] == 200  # as through a router
        with pytest.raises(urllib.error.HTTPError): urllib.request.urlopen(review.address.partition("?")[0], timeout=10)


def test_bad_options_are_one_line(place, tmp_path):
    "A folder without a detection, a taken port and an impossible address are explained."
    for words in ((tmp_path,), (place/"out", "--port", 70_000), (place/"out", "--host", "999.1.1.1"),
                  (place/"out", "--budget", -1)):
        code, _, err = run("review", *words)
        assert code == 2 and "expected" in err and "Traceback" not in err and err.count("\n") == 1, err


# --- by keys

def test_an_evening_by_keys(visit, review):
    "Each key does what the help says; each verdict is on disk before the next moment is shown."
    seen = visit()
    seen.wait_for_clip()
    asked = review.state()["asked"]
    first = seen.shown("#when")
    assert seen.shown("#counts").split() == [str(len(asked)), "to", "do", "0", "kept", "0", "dropped"]
    for key, verdict, count in (("k", "keep", 1), ("ArrowDown", "drop", 2), ("u", "unsure", 3), ("ArrowUp", "keep", 4)):
        before = seen.shown("#when")
        seen.press(key)
        until(lambda before=before: seen.shown("#when") != before)
        assert [row["verdict"] for row in review.picks()][-1] == verdict and len(review.picks()) == count
    assert seen.shown("#counts").split()[::2][:1] == [str(len(asked) - 4)] and "1 unsure" in seen.shown("#counts")
    until(lambda: seen.value("clips.size") >= 6)  # those shown, and the next two, fetched ahead
    for count in (3, 2, 1, 0):
        seen.press("ArrowLeft")
        until(lambda count=count: len(review.picks()) == count)
    until(lambda: seen.shown("#when") == first)
    seen.press("ArrowRight")
    until(lambda: seen.shown("#when") != first)
    assert review.picks() == [] and seen.complaints == []
    places = {urlsplit(url).netloc for url in seen.requests if url.startswith("http")}
    assert places == {urlsplit(review.address).netloc}


def test_playing_and_trimming_by_keys(visit, review):
    "The clip plays by itself to the end of the moment; comma, point and brackets trim it; A adds a moment."
    seen = visit()
    seen.wait_for_clip()
    one = review.state()["candidates"][review.state()["asked"][0]]
    until(lambda: seen.value("document.getElementById('clip').currentTime") > one["start"] - one["from"] + 0.2)
    seen.press("4")
    assert seen.value("document.getElementById('clip').playbackRate") == 3
    until(lambda: seen.value("document.getElementById('clip').paused"))
    assert abs(seen.value("document.getElementById('clip').currentTime") - (one["end"] - one["from"])) < 0.3
    seen.press(",", ",", "]")
    seen.press(" ")
    until(lambda: not seen.value("document.getElementById('clip').paused"))
    seen.press(" ")
    until(lambda: seen.value("document.getElementById('clip').paused"))
    seen.press("[", "k")
    row = until(review.picks)[0]
    assert one["start"] <= float(row["start_s"]) < float(row["end_s"]) <= one["end"] - 0.7
    assert float(row["found_end_s"]) == one["end"] and row["probability"]
    seen.wait_for_clip()
    seen.press("a")
    added = until(lambda: [row for row in review.picks() if row["verdict"] == "missed"])[0]
    assert not added["found_start_s"] and 5 < float(added["end_s"]) - float(added["start_s"]) <= 10
    until(lambda: "added" in seen.shown("#verdict"))
    seen.press("x")  # it was a mistake
    until(lambda: len(review.picks()) == 1)
    french = {"key": '"', "code": "Digit3", "bubbles": True}
    seen.page.evaluate("one => document.body.dispatchEvent(new KeyboardEvent('keydown', one))", french)
    assert seen.value("document.getElementById('clip').playbackRate") == 2
    seen.press("?")
    assert seen.page.locator("#help").is_visible()
    seen.press("Escape")
    assert not seen.page.locator("#help").is_visible() and seen.complaints == []


def test_the_end_of_an_evening(visit, review, capsys):
    "After the last verdict the page says so, asks ten more if wanted, and ends the command."
    seen = visit()
    for _ in review.state()["asked"]:
        count = len(review.picks())
        seen.press("x")
        until(lambda count=count: len(review.picks()) > count)
        until(lambda: seen.value("!busy"))
    until(lambda: "That was the last one" in seen.shown("#endtitle"))
    assert "0 kept" in seen.shown("#endtext") and "Everything is saved" in seen.shown("#endtext")
    seen.page.locator("#more").click()
    until(lambda: "no more moments" in seen.shown("#notice"))
    seen.press("ArrowLeft")
    until(lambda: seen.page.locator("#keep").is_visible())
    seen.press("k")
    until(lambda: "1 kept" in seen.shown("#endtext"))
    seen.page.locator("#close").click()
    printed = review.close() + capsys.readouterr().out  # pytest takes the streams back between fixture and test
    assert "1 kept" in printed and "next: highlight-sense publish" in printed


# --- by mouse, and on a phone

def drag(page: object, name: str, start: float, end: float) -> None:
    "Drag over an element, between two shares of its width."
    box = page.locator(name).bounding_box()
    at_y = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + start * box["width"], at_y)
    page.mouse.down()
    for step in range(1, 6): page.mouse.move(box["x"] + (start + (end - start) * step / 5) * box["width"], at_y)
    page.mouse.up()


def test_by_mouse(visit, review):
    "Buttons pass verdicts, handles trim, marks on the curve lead to moments, and dragging on it adds one."
    seen = visit()
    seen.wait_for_clip()
    number = review.state()["asked"][0]
    one = review.state()["candidates"][number]
    tracks = seen.page.locator("#tracks").bounding_box()
    handle = seen.page.locator("#end").bounding_box()
    seen.page.mouse.move(handle["x"] + 5, handle["y"] + 20)
    seen.page.mouse.down()
    seen.page.mouse.move(tracks["x"] + 0.9 * tracks["width"], handle["y"] + 20, steps=4)
    seen.page.mouse.up()
    seen.page.locator("#keep").click()
    row = until(review.picks)[0]
    assert abs(float(row["end_s"]) - (one["from"] + 0.9 * (one["to"] - one["from"]))) < 0.2
    seen.page.locator(".pin[data-verdict=keep]").click()
    until(lambda: "kept" in seen.shown("#verdict"))
    for name, verdict in (("#drop", "drop"), ("#unsure", "unsure")):
        seen.page.locator(name).click()
        until(lambda verdict=verdict: verdict in [row["verdict"] for row in review.picks()])
    seen.page.locator("#undo").click()
    until(lambda: len(review.picks()) == 1)
    drag(seen.page, "#plot", 0.2, 0.4)
    added = until(lambda: [row for row in review.picks() if row["verdict"] == "missed"])[0]
    assert abs(float(added["start_s"]) - 12) < 0.2 and abs(float(added["end_s"]) - 24) < 0.2
    seen.page.locator("#speed").select_option("2")
    seen.page.locator("#keys").click()
    assert seen.page.locator("#help").is_visible() and seen.complaints == []


def test_the_slider(visit, review):
    "The slider shows what would be kept; what is dropped is replaced by the next best."
    seen = visit()
    seen.page.locator("#amount").fill("4")
    seen.page.locator("#amount").dispatch_event("input")
    assert seen.value("document.querySelectorAll('#wanted rect').length") == 4
    assert "4 clips: 0 kept, 4 not looked at (probability 0." in seen.shown("#amounts")
    candidates = review.state()["candidates"]
    best = sorted(range(len(candidates)), key=lambda number: -candidates[number]["probability"])
    assert seen.value("wantedOf(0).open") == best[:4]
    seen.value(f"show({best[0]})")
    seen.press("x")
    until(review.picks)
    until(lambda: seen.value("wantedOf(0).open") == best[1:5])


def test_on_a_phone(visit, review):
    "Everything fits a phone; verdicts, trimming and adding work by touch."
    seen = visit(PHONE, has_touch=True, is_mobile=True, device_scale_factor=2)
    outside = '''[...document.querySelectorAll("body *")].filter(one => {
        const box = one.getBoundingClientRect();
        return box.width && !one.matches(".handle, .pin") && (box.right > innerWidth + 1 || box.left < -1)
    }).map(one => one.outerHTML.slice(0, 80))'''
    assert seen.value(outside) == [] and seen.value("document.documentElement.scrollWidth <= innerWidth")
    small = '''[...document.querySelectorAll(".verdicts button")].map(one => one.getBoundingClientRect())
        .filter(box => box.height < 44 || box.width < 44 || box.bottom > innerHeight).length'''
    assert seen.value(small) == 0
    seen.wait_for_clip()
    seen.page.locator("#keep").tap()
    until(review.picks)
    seen.page.locator("#undo").tap()
    until(lambda: not review.picks())
    seen.page.locator("#add").tap()
    until(lambda: [row["verdict"] for row in review.picks()] == ["missed"])
    assert seen.complaints == []


def test_why(place, tmp_path, browser):
    "A chosen moment is explained at once, another soon after it is shown; a taste is not part of it, as the page says."
    folder = Path(shutil.copytree(place/"out", tmp_path/"out"))/"my evening"
    values = json.loads((folder/"highlights.json").read_text())
    known = values["near_misses"][-1].pop("window")["probability"]
    values["near_misses"][-1]["window"] = None
    values["checkpoint"]["about"] = "the starter with a taste learned from 30 verdicts on 2 recordings"
    (folder/"highlights.json").write_text(json.dumps(values))
    with reviewing("review", tmp_path/"out", folder=folder) as review:
        other = next(number for number, one in enumerate(review.state()["candidates"]) if not one["why"])
        seen = Visit(browser, review.address)
        assert seen.shown("#why").startswith("Why: ") and "By the network alone" in seen.shown("#why")
        assert "neither" in seen.value("whyLine([.2, .2, .19])")
        assert "either alone" in seen.value("whyLine([.9, .9, .8])")
        seen.value(f"show({other})")
        assert seen.shown("#why") == ""
        until(lambda: "without the voice" in seen.shown("#why"))
        assert abs(json.loads(review.ask(f"why/0/{other}")[1])["why"][0] - known) < 0.01 and seen.complaints == []
        seen.context.close()


def test_in_a_notebook(review, browser):
    "The page works in a frame of a foreign page, as a notebook shows it."
    context = browser.new_context(viewport=DESKTOP)
    page = context.new_page()
    page.set_content(f"<iframe src='{review.address}' style='width: 100%; height: 860px'></iframe>")
    frame = page.frame_locator("iframe")
    frame.locator("#pictures img").first.wait_for()
    frame.locator("#keep").click()
    until(review.picks)
    context.close()


def test_several_recordings(place, tmp_path, browser):
    "Each has its own questions and table; after the last moment of one comes the first of the next."
    shutil.copytree(place/"out"/"my evening", tmp_path/"out"/"a")
    shutil.copytree(place/"out"/"my evening", tmp_path/"out"/"b")
    with reviewing("review", tmp_path/"out", "--budget", 1, folder=tmp_path/"out"/"b") as review:
        seen = Visit(browser, review.address)
        assert seen.shown("#counts").startswith("2 to do") and seen.page.locator("#which").is_visible()
        seen.press("k")
        until(lambda: seen.value("at.recording") == 1)
        assert not review.picks() and (tmp_path/"out"/"a"/"picks.csv").exists()
        seen.press("x")
        until(review.picks)
        until(lambda: "1 kept, 1 dropped" in seen.shown("#endtext"))
        seen.context.close()


def test_nothing_was_found(place, tmp_path, browser):
    "Where nothing was found, the page says so, and a missed moment can still be added."
    folder = Path(shutil.copytree(place/"out", tmp_path/"out"))/"my evening"
    values = json.loads((folder/"highlights.json").read_text()) | {"highlights": [], "near_misses": []}
    (folder/"highlights.json").write_text(json.dumps(values))
    rows = list(csv.DictReader((folder/"scores.csv").open()))
    with (folder/"scores.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(row | ({"probability": 0} if row["kind"] != "recording" else {}) for row in rows)
    with reviewing("review", tmp_path/"out", folder=folder) as review:
        context = browser.new_context(viewport=DESKTOP)
        page, complaints = context.new_page(), []
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(review.address)
        until(lambda: page.locator("#endtitle").inner_text() == "Nothing was found")
        for key in ("k", "[", " ", "ArrowRight", "a"): page.keyboard.press(key)
        page.locator("#enough").click()
        drag(page, "#plot", 0.5, 0.6)
        until(review.picks)
        page.locator("#pictures img").first.wait_for()
        assert complaints == [] and [row["verdict"] for row in review.picks()] == ["missed"]
        context.close()


def test_learning_from_the_page(place, tmp_path, browser, monkeypatch):
    "The page starts learning, and shows its progress and its result."
    from highlight_sense import learn as learning
    steps = Queue()

    def learn(folders: list[Path], out: Path, progress: Callable[[float, str], None]) -> str:
        progress(0.5, "listening again")
        steps.get(timeout=30)
        if out.exists(): raise InputError("a line about what is wrong")
        out.touch()
        return f"Better than before: {len(folders)} recording."

    monkeypatch.setattr(learning, "learn", learn)
    shutil.copytree(place/"out", tmp_path/"out")
    with reviewing("review", tmp_path/"out", folder=tmp_path/"out"/"my evening") as review:
        seen = Visit(browser, review.address)
        seen.press("k")
        until(review.picks)
        seen.page.locator("#enough").click()
        for line in ("Better than before: 1 recording.", "a line about what is wrong"):
            until(lambda: seen.page.locator("#learn").is_enabled())
            seen.page.locator("#learn").click()
            until(lambda: "listening again" in seen.shown("#learned"))
            assert seen.value("document.getElementById('share').value") == 0.5
            steps.put(None)
            until(lambda line=line: seen.shown("#learned") == line)
        assert seen.complaints == [] or all("400" in line for line in seen.complaints)
        seen.context.close()


# --- what goes wrong

def test_two_tabs_and_a_reload(visit, review):
    "Both tabs write to the same table; a tab that is shown again knows the verdicts of the other; a reload resumes."
    one, other = visit(), visit()
    one.press("k")
    until(lambda: len(review.picks()) == 1)
    other.press("ArrowRight", "x")
    until(lambda: len(review.picks()) == 2)
    until(lambda: "1 kept" in other.shown("#counts") and "1 dropped" in other.shown("#counts"))
    one.page.reload()
    one.page.locator("#pictures img").first.wait_for()
    assert "1 dropped" in one.shown("#counts") and "Moment 3" in one.shown("#place")
    one.press("ArrowLeft")
    until(lambda: [row["verdict"] for row in review.picks()] == ["drop"])


def test_undo_after_a_restart(place, tmp_path, browser):
    "Undo takes back what this review wrote, never what an earlier one did, even at the same port in the same tab."
    shutil.copytree(place/"out", tmp_path/"out")
    folder = tmp_path/"out"/"my evening"
    with reviewing("review", tmp_path/"out", folder=folder) as review:
        seen, number = Visit(browser, review.address), review.state()["asked"][0]
        seen.press("k")
        until(review.picks)
        port = urlsplit(review.address).port
    with reviewing("review", tmp_path/"out", "--port", port, folder=folder) as review:
        seen.page.goto(review.address)
        seen.page.locator("#pictures img").first.wait_for()
        assert seen.page.locator("#undo").is_disabled()
        assert "Nothing was undone" in json.loads(review.ask(f"undo/0/{number}")[1])["nothing"]
        seen.press("x")
        until(lambda: len(review.picks()) == 2)
        until(lambda: seen.value("!busy"))
        seen.press("ArrowLeft", "ArrowLeft")
        until(lambda: len(review.picks()) == 1)
        assert review.picks()[0]["verdict"] == "keep"
        seen.context.close()


def test_a_full_disk_and_a_stopped_server(visit, review, monkeypatch):
    "If a verdict cannot be saved, the page says why, and stays at the moment; also if the server is gone."
    seen = visit()
    when = seen.shown("#when")
    with monkeypatch.context() as full:
        def fail(descriptor: int) -> None: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        full.setattr(os, "fsync", fail)
        seen.press("k")
        until(lambda: "full or read-only disk" in seen.shown("#notice"))
        assert seen.shown("#when") == when and review.picks() == []
    seen.press("k")
    until(lambda: seen.shown("#when") != when)
    assert len(review.picks()) == 1 and not seen.page.locator("#notice").is_visible()
    review.close()
    when = seen.shown("#when")
    seen.press("x")
    until(lambda: "Every verdict so far is saved" in seen.shown("#notice"))
    assert seen.shown("#when") == when and len(review.picks()) == 1


def test_names_are_only_names(place, tmp_path, browser):
    "A hostile name of a recording is shown as text and does nothing."
    shutil.copytree(place/"out", tmp_path/"out")
    folder = tmp_path/"out"/"my evening"
    name = "<img src=x onerror=alert(1)></script><script>alert(2)</script>.mkv"
    record_path = folder/"highlights.json"
    values = json.loads(record_path.read_text())
    values["recording"]["name"] = name
    record_path.write_text(json.dumps(values))
    with reviewing("review", tmp_path/"out", folder=folder) as review:
        seen = Visit(browser, review.address)
        assert seen.shown("#name") == name and seen.complaints == []
        assert seen.value("document.querySelectorAll('script').length") == 1
        seen.context.close()


SCREENS = {"light": (DESKTOP, "?"), "dark": (PHONE, "end")}


@pytest.mark.parametrize("scheme", SCREENS)
def test_everyone_can_use_it(visit, scheme):
    "axe-core finds no serious fault on the page, in the help and at the end."
    if find_spec("axe_playwright_python") is None: pytest.skip("needs the Python package axe-playwright-python")
    from axe_playwright_python.sync_playwright import Axe
    size, then = SCREENS[scheme]
    seen = visit(size, color_scheme=scheme, bypass_csp=True, reduced_motion="reduce")
    for step in ("page", then):
        if step == "?": seen.press("?")
        if step == "end": seen.page.locator("#enough").click()
        found = Axe().run(seen.page).response
        serious = [(fault["id"], [node["html"][:90] for node in fault["nodes"]][:3])
                   for fault in found["violations"] if fault["impact"] in ("serious", "critical")]
        assert not serious and len(found["passes"]) > 10, (step, serious)
