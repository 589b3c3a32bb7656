"""Make the pictures of nbs/images from the folder of `highlight-sense demo`: every page and plot, all synthetic.

    highlight-sense demo && python tools/pictures.py highlight-sense-demo
"""
import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from highlight_sense.recordings import detect

IMAGES = Path(__file__).resolve().parent.parent/"nbs"/"images"
LARGEST_BYTES = 150_000
WIDEST = 1280  # pixels
PLAYING = "() => [...document.querySelectorAll('video')].some(one => one.currentTime > 1.5 && one.offsetParent)"
# the demo's model makes hardly a mistake; two epochs make one whose plots show something
BRIEFLY = ("--epochs", "2", "--max-duration-s", "16", "--init", "random")


def save(picture: Image.Image, name: str) -> None:
    "Write a picture with 256 colours or fewer, small enough for a page."
    if picture.width > WIDEST: picture = picture.resize((WIDEST, round(picture.height * WIDEST / picture.width)))
    for colours in (256, 128, 64):
        written = BytesIO()
        picture.convert("RGB").quantize(colours, Image.Quantize.MEDIANCUT).save(written, "PNG", optimize=True)
        if len(written.getvalue()) < LARGEST_BYTES: break
    (IMAGES/f"{name}.png").write_bytes(written.getvalue())
    print(f"{name}.png: {picture.width} x {picture.height}, {colours} colours, {len(written.getvalue()) / 1000:.0f} kB")


def call(*words: object) -> None:
    "Run a command."
    command = [sys.executable, "-m", "highlight_sense", *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def shoot(page: Page, name: str, **options: object) -> None:
    "Save what a page of the browser shows."
    save(Image.open(BytesIO(page.screenshot(**options))), name)


def open_page(browser: Browser, address: str, width: int, height: int) -> Page:
    "Open an address in a window of this size, and wait for its pictures."
    page = browser.new_page(viewport={"width": width, "height": height})
    page.goto(address)
    page.wait_for_timeout(3000)
    return page


def shoot_review(browser: Browser, out: Path) -> None:
    "Serve a review, pass four verdicts, and save the page on a desk and on a phone."
    command = [sys.executable, "-m", "highlight_sense", "review", out, "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as serving:
        try:
            address = re.search(r"http\S+", serving.stdout.readline())[0]
            page = open_page(browser, address, 1265, 910)
            for key in ("ArrowUp", "ArrowDown", "ArrowUp", "u"):
                page.keyboard.press(key)
                page.wait_for_timeout(2500)
            page.wait_for_function(PLAYING)
            shoot(page, "review")
            page.close()
            page = open_page(browser, address, 390, 844)
            page.wait_for_function(PLAYING)
            shoot(page, "review_phone")
        finally: serving.terminate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("demo", type=Path, help="folder of `highlight-sense demo`")
    demo = parser.parse_args().demo
    train, test, model = demo/"clips"/"train", demo/"clips"/"test", demo/"run"/"best.pt"
    save(Image.open(demo/"run"/"history.png"), "history")
    save(Image.open(demo/"evaluation"/"attention.png"), "attention")
    report, = demo.glob("found/*/report.html")
    save(Image.open(report.parent/"evaluation.png"), "evaluation")
    session, = demo.glob(f"sessions/test/*/{report.parent.name}.mkv")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as play:
        work = Path(folder)
        call("train", train, "-o", work/"run", *BRIEFLY)
        call("evaluate", work/"run"/"best.pt", test, "-o", work/"measured")
        for name in ("precision_recall", "confusion", "reliability"):
            save(Image.open(work/"measured"/f"{name}.png"), name)
        call("audit", model, test, "--training", train, "-o", work/"audit")
        save(Image.open(work/"audit"/"audit.png"), "audit")
        detect([session], work/"out", model, keep_mel=True)
        found = next(shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome"))
        browser = play.chromium.launch(
            executable_path=found, args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"])
        shoot(open_page(browser, report.resolve().as_uri(), 1000, 1000), "report")
        shoot_review(browser, work/"out")
        browser.close()


if __name__ == "__main__": main()
