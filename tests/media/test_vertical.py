"Vertical clips: 9:16 from pictures of every shape, with nothing stretched, and a free third below the whole picture."
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from highlight_sense.clips import exact_clip
from highlight_sense.files import InputError
from highlight_sense.media import write_recording


def record(path: Path, size: tuple[int, int], aspect: Fraction = Fraction(1), degrees: int = 0, full: bool = False):
    "Write four frames with a white square in the middle, as players show it: half as wide as the shorter side."
    width, height = size
    side = min(width * aspect, height) / 2
    across, down = round(side / aspect / 2), round(side / 2)
    grey = np.full((height, width), 80, np.uint8)
    grey[height // 2 - down:height // 2 + down, width // 2 - across:width // 2 + across] = 255
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"preset": "ultrafast", "crf": "5"})
        stream.width, stream.height = size
        stream.pix_fmt = "yuvj444p" if full else "yuv444p"  # with odd sizes too
        if degrees: stream.set_display_rotation(degrees)
        stream.codec_context.sample_aspect_ratio = aspect
        for number in range(4):
            frame = av.VideoFrame.from_ndarray(np.dstack([grey] * 3), "rgb24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def first_frame(path: Path, how: str) -> np.ndarray:  # (height, width)
    "The brightness of the first frame of a vertical clip, which has square pixels."
    with av.open(str(exact_clip([path], 0.2, 0.3, path.with_name(how), vertical=how).path)) as container:
        assert container.streams.video[0].sample_aspect_ratio in (None, 1)
        (frame,) = container.decode(video=0)
        return frame.to_ndarray(format="rgb24")[..., 1].astype(int)


def square_in(frame: np.ndarray) -> tuple[int, int, int, int]:
    "Where the white square is: left, top, width, height."
    rows, columns = (np.flatnonzero((frame > 190).any(axis=axis)) for axis in (1, 0))
    return columns[0], rows[0], len(columns), len(rows)


SOURCES = {
    "wide": ("centre", (320, 180), {}),
    "4:3": ("blur", (160, 120), {}),
    "vertical": ("blur", (90, 160), {}),
    "narrow": ("centre", (90, 200), {}),
    "phone": ("centre", (160, 90), {"degrees": 90}),
    "odd": ("centre", (321, 181), {}),
    "PAL": ("centre", (180, 144), {"aspect": Fraction(64, 45)}),
    "anamorphic phone": ("blur", (180, 144), {"aspect": Fraction(64, 45), "degrees": 90}),
}


@pytest.mark.parametrize("source", SOURCES)
def test_nothing_is_stretched(source, tmp_path):
    "A square stays square, in the middle of the frame, or of its upper two thirds."
    how, size, options = SOURCES[source]
    frame = first_frame(record(tmp_path/"film.mp4", size, **options), how)
    assert frame.shape == (1920, 1080)
    left, top, width, height = square_in(frame)
    assert width == pytest.approx(height, rel=0.06)
    assert 2 * left + width == pytest.approx(1080, abs=24)
    assert 2 * top + height == pytest.approx(1920 if how == "centre" else 1280, abs=24)


def test_the_lower_third_is_free(tmp_path):
    "With `blur`, nothing below two thirds is brighter than the darkened background."
    frame = first_frame(record(tmp_path/"film.mp4", (320, 180)), "blur")
    assert frame[1290:].max() < 165 and frame[:1280].max() > 250


@pytest.mark.parametrize("how", ["left", "right"])
def test_a_side(how, tmp_path):
    "The side is what is there in the picture, from its edge; the square in the middle is not."
    path = record(tmp_path/"film.mp4", (320, 180), full=True)
    assert (abs(first_frame(path, how) - 80) < 8).all()


def test_full_range(tmp_path):
    "White stays white and grey stays grey in a recording with the levels of a screen."
    frame = first_frame(record(tmp_path/"screen.mp4", (320, 180), full=True), "blur")
    left, top, width, height = square_in(frame)
    assert frame[top + height // 2, left + width // 2] > 250
    assert frame[top + height // 2, left // 2] == pytest.approx(80, abs=4)


def test_without_a_picture(tmp_path):
    "Sound alone cannot be made vertical."
    write_recording(tmp_path/"talk.mka", {"Mic": np.zeros(16_000, np.float32)}, 8000)
    with pytest.raises(InputError, match=r"found no picture .* expected one for a vertical clip"):
        exact_clip([tmp_path/"talk.mka"], 0.5, 1.0, tmp_path/"clip", vertical="blur")
    assert [path.name for path in tmp_path.iterdir()] == ["talk.mka"]
