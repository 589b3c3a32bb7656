"What MLT itself makes of our projects: the frames and the sound that `melt` renders, where that program is installed."
import os
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from highlight_sense.media import open_media, probe
from highlight_sense.numbered import FPS, NOISE_HZ, find_in, noise, read_number, write_numbered
from highlight_sense.reel import Span
from highlight_sense.timelines import write_timelines

MELT = shutil.which("melt") or shutil.which("melt-7")
SPANS = [Span(7.7, 9.0, "third & <last>"), Span(1.5, 2.5, "first"), Span(5.2, 6.2, "second")]
FRAMES = [(231, 269), (45, 74), (156, 185)]  # first and last


def render(project: Path) -> tuple[list[int], np.ndarray]:
    "Render a project; return the numbers of its frames, and its sound."
    film = project.with_name(f"{project.suffix[1:]} rendered.mkv")
    coding = "vcodec=libx264", "acodec=pcm_s16le", "real_time=-1"
    words = [MELT, project.name, "-consumer", f"avformat:{film.name}", *coding]
    environment = {**os.environ, "QT_QPA_PLATFORM": "offscreen"}
    subprocess.run(words, cwd=project.parent, check=True, capture_output=True, timeout=300, env=environment)
    with open_media(film) as container:
        numbers = [read_number(frame) for frame in container.decode(video=0)]
        container.seek(0)
        sound = [frame.to_ndarray().reshape(frame.samples, -1).mean(axis=1) for frame in container.decode(audio=0)]
    return numbers, np.concatenate(sound) / 2 ** 15


@pytest.mark.skipif(MELT is None, reason="needs melt, the program of MLT")
@pytest.mark.parametrize("ending", ["mlt", "kdenlive"])
def test_melt_plays_the_highlights(ending, tmp_path):
    "Exactly the frames of the highlights, one after the other, with both tracks in time."
    recording = write_numbered(tmp_path/"stream & more #1 100%.mkv")
    paths = write_timelines([probe(recording)], SPANS, tmp_path/"out", "reel")
    numbers, sound = render(next(path for path in paths if path.suffix == f".{ending}"))
    assert numbers == [number for first, last in FRAMES for number in range(first, last + 1)]
    at = 0
    for first, last in FRAMES:
        piece = sound[at * NOISE_HZ // FPS:(at + last + 1 - first) * NOISE_HZ // FPS][2000:-2000]
        for track in (0, 1): assert abs(find_in(piece, noise(track)) - 2000 - first * NOISE_HZ / FPS) < 0.002 * NOISE_HZ
        at += last + 1 - first
