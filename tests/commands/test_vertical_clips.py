"Vertical clips as a product of their own, next to the others."
import json
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from running import printed, rating_model, run

SECONDS, RATE_HZ, FPS = 40, 8000, 1


@pytest.fixture(scope="module")
def detected(tmp_path_factory) -> Path:
    "Two highlights of a recording with a picture, a microphone and a game."
    place = tmp_path_factory.mktemp("vertical")
    rng = np.random.default_rng(0)
    with av.open(str(place/"stream.mkv"), "w") as container:
        image = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "g": str(FPS)})
        image.width, image.height, image.pix_fmt = 128, 72, "yuv420p"
        sounds = [container.add_stream("aac", rate=RATE_HZ, layout="mono") for _ in range(2)]
        for stream, title in zip(sounds, ("Mic", "Game")): stream.metadata["title"] = title
        for number in range(SECONDS * FPS):
            frame = av.VideoFrame.from_ndarray(np.full((108, 128), 128, np.uint8), format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(image.encode(frame))
        for second in range(SECONDS):
            for stream in sounds:
                samples = rng.normal(0, rng.uniform(0.01, 0.3), (1, RATE_HZ)).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, second * RATE_HZ, Fraction(1, RATE_HZ)
                container.mux(stream.encode(frame))
        for stream in (image, *sounds): container.mux(stream.encode(None))
    rating_model(place/"model.pt")
    code, _, complaint = run("detect", "-m", place/"model.pt", place/"stream.mkv", "-o", place/"out", "--top", 2,
                             "--max-length", 2, "--device", "cpu")
    assert code == 0, complaint
    return place/"out"/"stream"


@pytest.fixture
def folder(detected, tmp_path) -> Path:
    "A copy of the detection."
    return Path(shutil.copytree(detected, tmp_path/"stream"))


def test_next_to_the_others(folder):
    "`--vertical` alone makes vertical clips; the other clips stay, and the report shows those."
    assert run("publish", folder, "--clips", "--report")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in (*(folder/"clips").iterdir(), folder/"report.html")}
    code, said, complaint = run("publish", folder, "--vertical", "blur")
    assert code == 0 and said.endswith(": 2 clips in vertical/\n"), complaint
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not (folder/"timelines").exists()
    highlights = sorted(json.loads((folder/"highlights.json").read_text())["highlights"],
                        key=lambda one: one["clip_start_s"])
    clips = sorted((folder/"vertical").iterdir())
    assert [path.stem for path in clips] == sorted(path.stem for path in (folder/"clips").iterdir())
    for one, path in zip(highlights, clips):
        with av.open(str(path)) as container:
            picture = container.streams.video[0]
            titles = [stream.metadata["name"] for stream in container.streams.audio]
            assert (picture.width, picture.height, titles) == (1080, 1920, ["Mix", "Mic", "Game"])
            assert abs(container.duration / av.time_base - (one["clip_end_s"] - one["clip_start_s"])) < 0.1


def test_both_kinds_at_once_and_again(folder):
    "Both kinds are made in one call; another choice replaces the vertical clips only, and without a choice they stay."
    code, said, complaint = run(
        "publish", folder, "--clips", "--vertical", "left", "--tracks", "mix", "--name", "{rank}")
    assert code == 0 and ": 2 clips in clips/, 2 clips in vertical/\n" in said, complaint
    kept = {path: path.stat().st_mtime_ns for path in (folder/"clips").iterdir()}
    assert "2 clips in vertical/ (2 now centre instead of left)\n" in run(
        "publish", folder, "--vertical", "centre", "--tracks", "mix", "--name", "{rank}")[1]
    names = sorted(path.name for path in (folder/"vertical").iterdir())
    assert names == ["1.mp4", "2.mp4"] and {path: path.stat().st_mtime_ns for path in kept} == kept
    assert run("publish", folder, "--chapters")[0] == 0
    assert sorted(path.name for path in (folder/"vertical").iterdir()) == names


def test_what_is_refused(detected, tmp_path):
    "Another word, and options of other products."
    assert "--vertical" in printed("publish", detected, "--vertical", "top")
    said = printed("publish", detected, "--vertical", "blur", "--exact")
    assert "--exact: found vertical without clips, expected clips among the products; add --clips" in said
