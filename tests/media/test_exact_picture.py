"The picture of clips: turned and mirrored as players show it, as long as asked for, and with its tracks' titles."
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from highlight_sense.clips import copy_clip, exact_clip

WAYS = {  # degrees, mirrored: how players show what is stored
    (0, False): lambda grey: grey,
    (90, False): np.rot90,
    (180, False): lambda grey: np.rot90(grey, 2),
    (270, False): lambda grey: np.rot90(grey, 3),
    (0, True): np.fliplr,
    (90, True): lambda grey: np.rot90(grey, 2).T,
    (180, True): np.flipud,
    (270, True): np.transpose,
}


def record(path: Path, rate: int = 10, seconds: int = 4, way: tuple[int, bool] = (0, False)) -> Path:
    "Write a recording in which one corner is white, with two titled tracks of silence."
    with av.open(str(path), "w") as container:
        image = container.add_stream("libx264", rate=rate, options={"preset": "ultrafast", "g": str(rate)})
        image.width, image.height, image.pix_fmt = 96, 64, "yuv420p"
        if way != (0, False): image.set_display_rotation(way[0], hflip=way[1])
        sounds = [container.add_stream("aac", rate=8000, layout="mono") for _ in range(2)]
        for stream, title in zip(sounds, ("Mic", "Game")): stream.metadata["title"] = title
        grey = np.full((96, 96), 128, np.uint8)
        grey[:32, :48] = 235
        for number in range(rate * seconds):
            frame = av.VideoFrame.from_ndarray(grey, format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            container.mux(image.encode(frame))
        for second in range(seconds):
            for stream in sounds:
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), format="fltp", layout="mono")
                frame.sample_rate, frame.pts, frame.time_base = 8000, second * 8000, Fraction(1, 8000)
                container.mux(stream.encode(frame))
        for stream in (image, *sounds): container.mux(stream.encode(None))
    return path


def first_frame(path: Path) -> tuple[np.ndarray, object]:
    "The first frame of a file as stored: the grey of (height, width), and its display matrix."
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        matrix = frame.side_data.get("DISPLAYMATRIX")
        return frame.to_ndarray(format="gray"), bytes(matrix) if matrix else None


@pytest.mark.parametrize("way", WAYS, ids=str)
def test_turned_and_mirrored(way, tmp_path):
    "An exact clip stores what players show of its recording; a copied clip keeps the matrix."
    path = record(tmp_path/"phone.mp4", seconds=2, way=way)
    stored, matrix = first_frame(path)
    assert (stored[:32, :48] > 200).all() and (stored > 200).mean() == 0.25
    shown, none = first_frame(exact_clip([path], 0.5, 1.5, tmp_path/"exact").path)
    np.testing.assert_array_equal(shown > 180, WAYS[way](stored) > 180)
    assert none is None
    copied = copy_clip([path], 0.5, 1.5, tmp_path/"copy")
    assert first_frame(copied.path)[1] == matrix


@pytest.mark.parametrize("rate", [1, 3, 5])
@pytest.mark.parametrize("span", [(1.1, 2.15), (1.0, 2.9)])
def test_a_slow_screencast_is_not_too_long(rate, span, tmp_path):
    "A clip lasts as long as it says, and ends where it was asked to, or at the next frame if that is close."
    clip = exact_clip([record(tmp_path/"slow.mkv", rate=rate)], *span, tmp_path/"clip")
    with av.open(str(clip.path)) as container: seconds = container.duration / av.time_base
    assert abs(seconds - (clip.end_s - clip.start_s)) < 0.002
    assert clip.start_s <= span[0] and span[1] <= clip.end_s < span[1] + 0.1


@pytest.mark.parametrize("cut", [copy_clip, exact_clip])
def test_titles_where_programs_look(cut, tmp_path):
    "Both the name and the handler of a track in an MP4 are its title; ffprobe and many players read only the second."
    clip = cut([record(tmp_path/"film.mov", seconds=2)], 0.5, 1.5, tmp_path/"clip")
    assert clip.path.suffix == ".mp4"
    with av.open(str(clip.path)) as container:
        labels = [(stream.metadata["name"], stream.metadata["handler_name"]) for stream in container.streams.audio]
    assert labels == [("Mic", "Mic"), ("Game", "Game")]
