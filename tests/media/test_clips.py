"Cut clips from every kind of file that recorders write; the numbers on frames and the noise in tracks measure them."
import functools
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from scipy import fft

from highlight_sense import copying, packets
from highlight_sense.clips import CutClip, copy_clip, exact_clip, preview
from highlight_sense.files import InputError

FPS, SECONDS, GROUP = 30, 12, 60  # a key frame every 2 s
EVEN = [Fraction(n, FPS) for n in range(SECONDS * FPS)]
STEPS_MS = np.random.default_rng(0).integers(10, 80, 400)
UNEVEN = [Fraction(int(ms), 1000) for ms in np.cumsum(STEPS_MS) if ms < 12_000]  # variable rate
PAUSED = [time for time in EVEN if not 5 < time < 8]  # nothing moves for three seconds
X264 = {"g": str(GROUP), "bf": "2", "preset": "superfast", "sc_threshold": "0", "crf": "23"}


@dataclass(frozen=True)
class Recipe:
    "How to make a recording."
    name: str
    sounds: tuple[str, ...] = ("aac",) * 2  # codec of each track
    layouts: tuple[str, ...] = ("mono", "stereo")
    rate_hz: int = 48_000
    late_s: tuple[int, ...] = (0, 0)        # where each track begins
    times: Sequence[Fraction] = tuple(EVEN)  # of the frames
    codec: str | None = "libx264"           # of the picture
    picture: tuple[tuple[str, str], ...] = tuple(X264.items())
    size: tuple[int, int] = (160, 96)
    pixels: str = "yuv420p"
    options: tuple[tuple[str, str], ...] = ()
    turn: int = 0                            # degrees
    torn: bool = False                       # as a recorder that crashed leaves a file: no index, no duration

    def __str__(self) -> str: return self.name


MKV = Recipe("stream.mkv")
VIDEOS = [
    MKV,
    Recipe("faststart.mp4", options=(("movflags", "faststart"),)),
    Recipe("fragmented.mp4", options=(("movflags", "frag_keyframe+empty_moov"),)),
    Recipe("hybrid.mp4", options=(("movflags", "hybrid_fragmented"),)),
    Recipe("film.mov", layouts=("stereo", "5.1")),
    Recipe("stream.flv", ("aac",), ("stereo",), 44_100),
    Recipe("stream.ts", rate_hz=44_100, options=(("output_ts_offset", "1.4"),)),
    Recipe("opus.mkv", ("libopus",) * 2, ("stereo", "5.1")),
    Recipe("uneven.mkv", times=tuple(UNEVEN)),
    Recipe("uneven.mp4", times=tuple(UNEVEN)),
    Recipe("crashed.mkv", torn=True),
    Recipe("late.mkv", late_s=(0, 6)),
]
SOUNDS = [
    Recipe("sound.wav", ("pcm_s16le",), ("stereo",), 44_100, codec=None),
    Recipe("deep.wav", ("pcm_s24le",), ("mono",), codec=None),
    Recipe("sound.m4a", ("aac",), ("stereo",), 44_100, codec=None),
    Recipe("sound.mp3", ("libmp3lame",), ("stereo",), 44_100, codec=None),
    Recipe("sound.flac", ("flac",), ("5.1",), codec=None),
    Recipe("sound.opus", ("libopus",), ("mono",), codec=None),
    Recipe("sounds.mka", ("flac", "aac"), ("mono", "5.1"), 44_100, codec=None),
]


def picture(number: int, width: int, height: int) -> np.ndarray:
    "Draw a number as a grey image (height, width): two rows of eight blocks, its bits."
    bits = ((number >> np.arange(16)) & 1).reshape(2, 8)
    return np.where(bits[np.arange(height) * 2 // height][:, np.arange(width) * 8 // width], 200, 50).astype(np.uint8)


def number_of(frame: av.VideoFrame) -> int:
    "Read the number that a frame shows."
    plane = frame.planes[0]
    grey = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:frame.height, :frame.width]
    if grey.shape[0] > grey.shape[1]: grey = np.rot90(grey, 1)  # was turned clockwise
    rows, columns = (np.arange(n) * 2 + 1 for n in (2, 8))
    middles = grey[np.ix_(rows * grey.shape[0] // 4, columns * grey.shape[1] // 16)]
    return int(((middles > 125).reshape(-1) << np.arange(16)).sum())


@functools.cache
def noise(track: int, rate_hz: int) -> np.ndarray:
    "Make the noise of a track, (samples,), which resembles itself only where it is not shifted."
    white = np.random.default_rng(track).normal(size=SECONDS * rate_hz)
    return (0.1 * np.convolve(white, np.hanning(9) / 4, "same")).astype(np.float32)


class Pipe:
    "A file that cannot be rewound."
    def __init__(self, path: Path): self.file = open(path, "wb")
    def write(self, data: bytes) -> int: return self.file.write(data)


def make(folder: Path, recipe: Recipe) -> Path:
    "Write a recording."
    path, clock = folder/recipe.name, Fraction(1, 90_000)
    target, kind = (Pipe(path), "matroska") if recipe.torn else (str(path), None)
    with av.open(target, "w", format=kind, options=dict(recipe.options)) as container:
        images = []
        if recipe.codec: images.append(container.add_stream(recipe.codec, rate=FPS, options=dict(recipe.picture)))
        for stream in images:
            (stream.width, stream.height), stream.pix_fmt = recipe.size, recipe.pixels
            stream.codec_context.time_base = clock
            if recipe.turn: stream.set_display_rotation(recipe.turn)
        sounds = [container.add_stream(codec, rate=recipe.rate_hz, layout=layout)
                  for codec, layout in zip(recipe.sounds, recipe.layouts)]
        for title, stream in zip(("Mic", "Game"), sounds): stream.metadata["title"] = title
        for second in range(SECONDS):
            for number, time in enumerate(recipe.times):
                if not images or not second <= time < second + 1: continue
                grey = picture(number, *recipe.size)
                frame = av.VideoFrame.from_ndarray(grey, format="gray").reformat(format=recipe.pixels)
                frame.pts, frame.time_base = round(time / clock), clock
                container.mux(images[0].encode(frame))
            for track, (stream, layout, late_s) in enumerate(zip(sounds, recipe.layouts, recipe.late_s)):
                if second < late_s: continue
                samples = noise(track, recipe.rate_hz)[second * recipe.rate_hz:][:recipe.rate_hz]
                channels = np.tile(samples, (av.AudioLayout(layout).nb_channels, 1))
                frame = av.AudioFrame.from_ndarray(channels, format="fltp", layout=layout)
                frame.sample_rate, frame.pts = recipe.rate_hz, second * recipe.rate_hz
                frame.time_base = Fraction(1, recipe.rate_hz)
                container.mux(stream.encode(frame))
        for stream in images + sounds: container.mux(stream.encode(None))
    if recipe.torn: target.file.close()
    return path


@pytest.fixture(scope="session")
def record(tmp_path_factory) -> Callable[[Recipe], Path]:
    "Make each recording once."
    folder, made = tmp_path_factory.mktemp("recordings"), {}
    return lambda recipe: made.get(recipe) or made.setdefault(recipe, make(folder, recipe))


def place_in(sound: np.ndarray, whole: np.ndarray) -> tuple[float, float]:
    "Find where a piece of sound begins in the whole, in samples, and how similar they are there, 0 to 1."
    size = fft.next_fast_len(len(sound) + len(whole), real=True)
    spectrum = fft.rfft(whole.astype(np.float32), size) * np.conj(fft.rfft(sound.astype(np.float32), size))
    likeness = fft.irfft(spectrum, size)
    best = int(np.argmax(likeness))
    start = best if best < len(whole) else best - size
    part = whole[max(0, start):max(0, start + len(sound))]
    return start, float(likeness[best] / (np.linalg.norm(part) * np.linalg.norm(sound) + 1e-9))


@dataclass(frozen=True)
class Found:
    "What a file plays. Times are seconds from 0:00, as FFmpeg's own tools count them."
    frames: list[tuple[int, float]]          # number and time of each
    sounds: list[tuple[float, np.ndarray]]   # of each track: start, (samples,) of the first channel
    titles: list[str | None]
    rates_hz: list[int]
    channels: list[int]
    turns: set[int]

    def zero_s(self, times: Sequence[Fraction]) -> float:
        "What time, of those at which frames were recorded, is shown as 0:00."
        return float(np.median([float(times[number]) - time_s for number, time_s in self.frames]))

    def track_zero_s(self, track: int, alike: float = 0.9) -> float:
        "The same by the sound of a track."
        start_s, samples = self.sounds[track]
        place, likeness = place_in(samples, noise(track, self.rates_hz[track]))
        assert likeness > alike, (track, likeness)
        return place / self.rates_hz[track] - start_s


def on_one_line(parts: list[tuple[float, np.ndarray]], rate_hz: int) -> tuple[float, np.ndarray]:
    "Put decoded parts on one line, and return where it starts; gaps up to 2 ms, the clock of some formats, are closed."
    first_s, line, end = parts[0][0] if parts else 0.0, np.zeros(SECONDS * rate_hz + rate_hz), 0
    for time_s, part in parts:
        at = round((time_s - first_s) * rate_hz)
        at = end if abs(at - end) < 0.002 * rate_hz else at
        line[at:at + len(part)] = part
        end = at + len(part)
    return first_s, line[:end]


def play(path: Path) -> Found:
    "Decode a whole file; what cannot be decoded raises."
    frames, turns, pieces = [], set(), {}
    with av.open(str(path)) as container:
        start_s = max(0, container.start_time or 0) / av.time_base
        audio = container.streams.audio
        for packet in container.demux([*container.streams.video, *audio]):
            if packet.stream.disposition & av.stream.Disposition.attached_pic: continue
            for frame in packet.decode():
                if isinstance(frame, av.VideoFrame):
                    frames.append((number_of(frame), frame.time - start_s))
                    turns.add(frame.rotation)
                else:
                    values = frame.to_ndarray()
                    if not frame.format.is_planar: values = values.reshape(-1, frame.layout.nb_channels).T
                    scale = {"i2": 2 ** 15, "i4": 2 ** 31}.get(values.dtype.str[1:], 1)
                    sound = values[0].astype(float) / scale
                    pieces.setdefault(packet.stream.index, []).append((frame.time - start_s, sound))
        sounds = [on_one_line(pieces.get(stream.index, []), stream.rate) for stream in audio]
        titles = [stream.metadata.get("title") or stream.metadata.get("name") for stream in audio]
        rates_hz = [stream.rate for stream in audio]
        channels = [stream.codec_context.layout.nb_channels for stream in audio]
        return Found(frames, sounds, titles, rates_hz, channels, turns)


def numbers_of(found: Found) -> list[int]:
    "List the frames in the order in which they are shown."
    times = [time_s for _, time_s in found.frames]
    assert all(a < b for a, b in pairwise(times))
    return [number for number, _ in found.frames]


def check_common(found: Found, cut: CutClip, recipe: Recipe, offset_s: float, tolerance_s: float) -> None:
    "Check that no frame is missing or late, that every track is in sync, and that the cut reports what it covers."
    numbers = numbers_of(found)
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    zero_s = found.zero_s(recipe.times)
    assert max(abs(float(recipe.times[number]) - time_s - zero_s) for number, time_s in found.frames) < 0.0015
    assert abs(zero_s + offset_s - cut.start_s) < 0.0015
    untitled = recipe.name.endswith((".ts", ".flv"))
    titles = [None] * len(recipe.sounds) if untitled else ["Mic", "Game"][:len(recipe.sounds)]
    assert found.titles == titles and found.rates_hz == [recipe.rate_hz] * len(titles)
    assert found.channels == [av.AudioLayout(layout).nb_channels for layout in recipe.layouts]
    for track, late_s in enumerate(recipe.late_s[:len(titles)]):
        alike = 0.9 if late_s < cut.start_s else 0.7  # where part of the clip comes before the track
        if late_s < cut.end_s - 0.5: assert abs(found.track_zero_s(track, alike) - zero_s) < tolerance_s, track


COPIED = [*((recipe, (5.2, 7.7)) for recipe in VIDEOS), *((recipe, (0, 1.1)) for recipe in VIDEOS[::2]),
          *((recipe, (10.6, 12.0)) for recipe in VIDEOS[1::2])]
EXACT = [*((recipe, (5.215, 7.695)) for recipe in VIDEOS), *((recipe, (0, 1.1)) for recipe in VIDEOS[:6])]


@pytest.mark.parametrize(("recipe", "span"), COPIED, ids=str)
def test_copy(recipe, span, record, tmp_path):
    "A copy runs from the last key frame at or before the start to just before the first at or after the end."
    path = record(recipe)
    offset_s = -play_once(path).zero_s(recipe.times)  # frame 0 is shown this late, in some formats
    cut = copy_clip([path], *span, tmp_path/"clip")
    found = play(cut.path)
    keys = range(0, len(recipe.times), GROUP)
    first = max((n for n in keys if recipe.times[n] + offset_s < span[0] + 1e-3), default=0)
    after = min((n for n in keys if recipe.times[n] + offset_s > span[1] - 1e-3), default=len(recipe.times))
    assert numbers_of(found)[0] == first and numbers_of(found)[-1] == after - 1
    assert cut.copied and cut.start_s < span[0] + 1e-3 and cut.end_s > span[1] - 0.05
    check_common(found, cut, recipe, offset_s, 0.0015)
    family = {".flv": ".mp4", ".ts": ".mp4", ".mov": ".mp4"}.get(path.suffix, path.suffix)
    assert cut.path.suffix == family and list(tmp_path.iterdir()) == [cut.path]


@pytest.mark.parametrize(("recipe", "span"), EXACT, ids=str)
def test_exact(recipe, span, record, tmp_path):
    "An exact clip runs from the frame shown at the start to the one shown at the end, with sound to the millisecond."
    path = record(recipe)
    offset_s = -play_once(path).zero_s(recipe.times)
    cut = exact_clip([path], *span, tmp_path/"clip")
    found = play(cut.path)
    shown = [n for n, time in enumerate(recipe.times) if time + offset_s < span[1] - 1e-3]
    first = max((n for n in shown if recipe.times[n] + offset_s < span[0] + 1e-3), default=0)
    assert (numbers_of(found)[0], numbers_of(found)[-1]) == (first, shown[-1])
    assert not cut.copied and span[0] - 0.1 < cut.start_s <= span[0] + 1e-3
    assert span[1] - 1e-3 <= cut.end_s < span[1] + 0.1
    tolerance_s = 0.0015 if path.suffix == ".mkv" else 0.001  # Matroska counts milliseconds
    check_common(found, cut, recipe, offset_s, tolerance_s)
    seconds = [len(samples) / rate_hz + start_s for (start_s, samples), rate_hz in zip(found.sounds, found.rates_hz)]
    assert all(-0.001 < length_s - (cut.end_s - cut.start_s) < 0.025 for length_s in seconds)


PLAYED: dict[Path, Found] = {}


def play_once(path: Path) -> Found:
    "Decode a recording once for all tests."
    return PLAYED.get(path) or PLAYED.setdefault(path, play(path))


@pytest.mark.parametrize("recipe", SOUNDS, ids=str)
def test_sound_copy(recipe, record, tmp_path):
    "A copy takes whole packets around the interval, and sounds right from the requested start on."
    for number, span in enumerate([(5.2, 7.7), (0, 1), (10.6, 12)]):
        cut = copy_clip([record(recipe)], *span, tmp_path/str(number))
        found = play(cut.path)
        assert cut.path.suffix == {".flac": ".mka"}.get(Path(recipe.name).suffix, Path(recipe.name).suffix)
        assert cut.start_s < span[0] + 1e-3 and span[0] - 0.5 < cut.start_s
        assert span[1] - 1e-3 < cut.end_s < span[1] + 0.15
        for track in range(len(recipe.sounds)):
            assert abs(found.track_zero_s(track) - cut.start_s) < 0.0015, (cut, found.track_zero_s(track))
            begin = round((span[0] - cut.start_s - found.sounds[track][0]) * recipe.rate_hz)
            wanted = found.sounds[track][1][max(0, begin):][:round((span[1] - span[0]) * recipe.rate_hz)]
            assert place_in(wanted[:4800], noise(track, recipe.rate_hz))[1] > 0.9  # even in its first tenth of a second


@pytest.mark.parametrize("recipe", SOUNDS, ids=str)
def test_sound_exact(recipe, record, tmp_path):
    "An exact clip of sound is right to the sample; from a lossless source it has the same values."
    start_s, end_s = 5.2347, 7.7001
    cut = exact_clip([record(recipe)], start_s, end_s, tmp_path/"clip")
    found = play(cut.path)
    plain = len(recipe.sounds) == 1 and recipe.name != "deep.wav"
    assert cut == CutClip(tmp_path/("clip.wav" if plain else "clip.mka"), start_s, end_s, False)
    assert found.channels == [av.AudioLayout(layout).nb_channels for layout in recipe.layouts[:len(recipe.sounds)]]
    first, size = round(start_s * recipe.rate_hz), round((end_s - start_s) * recipe.rate_hz)
    for track, codec in enumerate(recipe.sounds):
        samples, expected = found.sounds[track][1], noise(track, recipe.rate_hz)[first:first + size]
        assert len(samples) == size
        if codec == "pcm_s24le": np.testing.assert_allclose(samples, expected, rtol=0, atol=2.0 ** -23)
        elif plain and codec in ("flac", "pcm_s16le"):
            np.testing.assert_allclose(samples, expected, rtol=0, atol=2.0 ** -15)
        else:  # to a tick of Matroska's clock
            assert abs(found.track_zero_s(track, 0.9999 if codec == "flac" else 0.9) - start_s) < 0.00105


def test_several_files(record, tmp_path):
    "A recording may be a microphone file and a game file, or a video and a microphone file."
    layouts = {"mic.wav": "mono", "game.wav": "stereo"}
    wavs = [record(Recipe(name, ("pcm_s16le",), (layout,), 44_100, codec=None)) for name, layout in layouts.items()]
    cut = copy_clip(wavs, 5.2, 7.7, tmp_path/"pair")
    found = play(cut.path)  # both hold the noise of track 0
    assert cut.path.name == "pair.mka" and found.channels == [1, 2]
    for start_s, samples in found.sounds:
        assert abs(place_in(samples, noise(0, 44_100))[0] / 44_100 - start_s - cut.start_s) < 0.0015
    exact = exact_clip(wavs, 5.2, 7.7, tmp_path/"exact")
    first, second = (samples for _, samples in play(exact.path).sounds)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, noise(0, 44_100)[229_320:339_570], rtol=0, atol=2.0 ** -15)
    video = record(MKV)
    both = [video, wavs[0]]
    for cut in copy_clip(both, 5.2, 7.7, tmp_path/"both"), exact_clip(both, 5.2, 7.7, tmp_path/"both"):
        found = play(cut.path)
        assert cut.path.suffix == (".mkv" if cut.copied else ".mp4") and found.rates_hz == [48_000, 48_000, 44_100]
        start_s, samples = found.sounds[2]
        assert abs(place_in(samples, noise(0, 44_100))[0] / 44_100 - start_s - found.zero_s(EVEN)) < 0.0015


def test_track_that_begins_after_the_clip(record, tmp_path):
    "A track that begins after the clip is kept, but silent. MP4 cannot hold it, so the copy becomes Matroska."
    for name in ("late.mkv", "late.mp4"):
        path = record(Recipe(name, late_s=(0, 6)))
        clips = [cut([path], 1.0, 3.0, tmp_path/f"{name} {cut.__name__}") for cut in (copy_clip, exact_clip)]
        copied, exact = (play(clip.path) for clip in clips)
        assert copied.titles == exact.titles == ["Mic", "Game"]
        assert not copied.sounds[1][1].any() and not exact.sounds[1][1].any()
        assert abs(copied.track_zero_s(0) - copied.zero_s(EVEN)) < 0.0015
    assert (tmp_path/"late.mp4 copy_clip.mkv").exists()


def test_long_still(record, tmp_path):
    "A frame that is shown for three seconds is cut at the requested start, and shown from 0:00 on."
    cut = exact_clip([record(Recipe("paused.mkv", times=tuple(PAUSED)))], 6.5, 9.0, tmp_path/"clip")
    found = play(cut.path)
    still = PAUSED.index(Fraction(5))
    assert (cut.start_s, cut.end_s) == (6.5, 9.0) and found.frames[0] == (still, 0.0)
    assert numbers_of(found)[-1] == PAUSED.index(Fraction(9)) - 1
    assert abs(found.frames[1][1] - 1.5) < 0.0015 and abs(found.track_zero_s(0) - 6.5) < 0.001
    copied = copy_clip([record(Recipe("paused.mkv", times=tuple(PAUSED)))], 6.5, 9.0, tmp_path/"copy")
    assert copied.start_s <= 5 and numbers_of(play(copied.path))[-1] >= PAUSED.index(Fraction(9)) - 1


@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_open_groups(codec, record, tmp_path):
    "Frames shown before the key frame of an open group are left out at the start, and complete at the end."
    options = {"g": "60", "bf": "3", "preset": "ultrafast", "x264-params" if codec == "libx264" else "x265-params":
               "open-gop=1:scenecut=0:keyint=60:min-keyint=60:bframes=3:b-adapt=0"
               + (":log-level=none" if codec == "libx265" else "")}
    path = record(Recipe(f"open {codec}.mp4", codec=codec, picture=tuple(options.items())))
    with av.open(str(path)) as container:
        order = [(packet.pts, packet.is_keyframe) for packet in container.demux(video=0) if packet.pts is not None]
    leading = [place for place, ((pts, key), (after, _)) in enumerate(pairwise(order)) if key and after < pts]
    assert leading  # there are open groups in it
    cut, exact = copy_clip([path], 5.2, 7.7, tmp_path/"copy"), exact_clip([path], 5.2, 7.7, tmp_path/"exact")
    numbers = numbers_of(play(cut.path))
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert numbers[0] in (117, 118, 119, 120) and 239 <= numbers[-1] <= 241
    assert numbers_of(play(exact.path)) == list(range(156, 231))
    if codec == "libx265":
        with av.open(str(cut.path)) as container: assert container.streams.video[0].codec_context.codec_tag == "hvc1"


def test_rotation(record, tmp_path):
    "A copy keeps the rotation as an entry in the file; an exact clip and a preview are turned upright."
    path = record(Recipe("phone.mp4", turn=-90))
    copied, exact = copy_clip([path], 5.2, 7.7, tmp_path/"copy"), exact_clip([path], 5.2, 7.7, tmp_path/"exact")
    assert play(copied.path).turns == {-90} and numbers_of(play(copied.path))[0] == 120
    small = preview([path], 5.2, 7.7, tmp_path/"small.mp4", np.zeros((1, 22_050 * 2), np.float32), 22_050)
    for cut in exact, small:
        found = play(cut.path)
        assert found.turns == {0} and numbers_of(found)[0] == 156
        with av.open(str(cut.path)) as container: stream = container.streams.video[0]
        assert (stream.width, stream.height) == (96, 160)


def test_odd_pixels(record, tmp_path):
    "Odd widths and heights, which 4:2:0 cannot hold, and other pixel formats are converted."
    for name, size, pixels in (("odd.mkv", (161, 97), "yuv444p"), ("full.mkv", (160, 96), "yuvj420p")):
        cut = exact_clip([record(Recipe(name, size=size, pixels=pixels))], 5.2, 7.7, tmp_path/name)
        assert numbers_of(play(cut.path)) == list(range(156, 231))
        with av.open(str(cut.path)) as container:
            assert container.streams.video[0].codec_context.pix_fmt in ("yuv420p", "yuvj420p")


def test_clip_of_a_clip(record, tmp_path):
    "A clip can be cut again, although it has sound before 0:00 that players skip."
    for recipe in VIDEOS[0], VIDEOS[1]:
        first = copy_clip([record(recipe)], 2.5, 9.0, tmp_path/f"{recipe.name} first")
        again = copy_clip([first.path], 2.5, 4.5, tmp_path/"copy"), exact_clip([first.path], 2.5, 4.5, tmp_path/"exact")
        for cut in again:
            found = play(cut.path)
            assert numbers_of(found)[0] == (120 if cut.copied else 135)
            assert abs(found.zero_s(EVEN) - first.start_s - cut.start_s) < 0.0015
            assert max(abs(found.track_zero_s(track) - found.zero_s(EVEN)) for track in (0, 1)) < 0.0015


def test_cover_is_not_a_picture(record, tmp_path):
    "Album art neither makes a clip a video nor moves its start."
    with av.open(str(record(SOUNDS[2]))) as source, av.open(str(tmp_path/"album.m4a"), "w", format="mp4") as album:
        sound, cover = album.add_stream_from_template(source.streams.audio[0]), album.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 64, 64, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        album.mux(cover.encode(av.VideoFrame(64, 64, "yuvj420p")) + cover.encode(None))
        for packet in source.demux():
            if packet.pts is None: continue
            packet.stream = sound
            album.mux(packet)
    assert copy_clip([tmp_path/"album.m4a"], 5, 6, tmp_path/"clip").path.name == "clip.m4a"
    assert exact_clip([tmp_path/"album.m4a"], 5, 6, tmp_path/"clip").path.name == "clip.wav"
    small = preview([tmp_path/"album.m4a"], 5, 6, tmp_path/"small.mp4", noise(0, 22_050)[None], 22_050)
    assert small.path.name == "small.m4a"


def test_subtitles(record, tmp_path):
    "Subtitles are copied if the format of the clip supports them."
    with av.open(str(record(MKV))) as source, av.open(str(tmp_path/"talk.mkv"), "w") as talk:
        streams = {stream.index: talk.add_stream_from_template(stream, opaque=True) for stream in source.streams}
        lines = talk.add_mux_stream("subrip", time_base=Fraction(1, 1000))
        for second in range(0, 12, 3):
            packet = av.Packet(f"line at {second}".encode())
            packet.pts = packet.dts = 1000 * second
            packet.duration, packet.time_base, packet.stream = 1000, Fraction(1, 1000), lines
            talk.mux(packet)
        for packet in source.demux():
            if packet.pts is None: continue
            if packet.dts is None: packet.dts = packet.pts - 70
            packet.stream = streams[packet.stream_index]
            talk.mux(packet)
    cut = copy_clip([tmp_path/"talk.mkv"], 5.2, 7.7, tmp_path/"clip")
    with av.open(str(cut.path)) as container:
        packets = [packet for packet in container.demux(subtitles=0) if packet.pts is not None]
        lines = [(packet.pts * packet.time_base, bytes(packet)) for packet in packets]
    assert [(round(float(time_s) + cut.start_s, 2), text) for time_s, text in lines] == [(6.0, b"line at 6")]
    assert exact_clip([tmp_path/"talk.mkv"], 5.2, 7.7, tmp_path/"exact").path.suffix == ".mp4"


@pytest.fixture(scope="session")
def long_recording(tmp_path_factory) -> Path:
    "Record ten minutes at five small frames per second, with a key frame every 2 s and quiet sound."
    path = tmp_path_factory.mktemp("long")/"long.mp4"
    with av.open(str(path), "w") as container:
        image = container.add_stream("libx264", rate=5, options={"preset": "ultrafast", "g": "10", "sc_threshold": "0"})
        image.width, image.height, image.pix_fmt = 64, 36, "yuv420p"
        sound = container.add_stream("aac", rate=8_000, layout="mono")
        for second in range(600):
            for number in range(second * 5, second * 5 + 5):
                grey = np.full((54, 64), 128, np.uint8)
                grey[:36] = picture(number, 64, 36)
                frame = av.VideoFrame.from_ndarray(grey, format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, 5)
                container.mux(image.encode(frame))
            frame = av.AudioFrame.from_ndarray(np.full((1, 8_000), 0.01, np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 8_000, second * 8_000, Fraction(1, 8_000)
            container.mux(sound.encode(frame))
        for stream in (image, sound): container.mux(stream.encode(None))
    return path


def remux(source: Path, target: str | Pipe, kind: str | None = None, options: dict[str, str] | None = None) -> None:
    "Copy all packets to another container."
    with av.open(str(source)) as old, av.open(target, "w", format=kind, options=options or {}) as new:
        streams = [new.add_stream_from_template(stream, opaque=True) for stream in old.streams]
        for packet in old.demux():
            if packet.pts is None: continue
            packet.stream = streams[packet.stream_index]
            new.mux(packet)


@pytest.mark.parametrize("name", ["long.mkv", "long.mp4", "long.ts", "long.flv", "fragments.mp4"])
def test_reads_only_what_it_needs(name, long_recording, tmp_path, monkeypatch):
    "A clip from a recording of ten minutes reads about half a minute of it."
    options = {"movflags": "frag_keyframe+empty_moov"} if name.startswith("frag") else {}
    remux(long_recording, str(tmp_path/name), options=options)
    read, times = packets.read_packets, []

    def counted(source):
        for packet in read(source):
            times.append(packet.pts)
            yield packet

    for module in packets, copying: monkeypatch.setattr(module, "read_packets", counted)
    cut = copy_clip([tmp_path/name], 500.3, 505.1, tmp_path/"clip")
    assert 1 < len(times) < 13 * 2 * 40  # 13 packets a second; two passes
    numbers = numbers_of(play(cut.path))
    assert numbers[0] in (2490, 2500) and numbers[-1] in (2529, 2539)


def test_no_index_far_in(long_recording, tmp_path):
    "In the file of a crashed recorder, which has no index, the place is found by reading."
    path = tmp_path/"crashed.mkv"
    pipe = Pipe(path)
    remux(long_recording, pipe, "matroska")
    pipe.file.close()
    path.write_bytes(path.read_bytes()[:path.stat().st_size * 9 // 10])
    with av.open(str(path)) as container:
        late_s = float(next(container.demux(video=0)).pts * container.streams.video[0].time_base)
    exact = exact_clip([path], late_s + 500.2, late_s + 505.0, tmp_path/"clip")
    assert numbers_of(play(exact.path)) == list(range(2501, 2525))
    with pytest.raises(InputError, match="within the recording's 5"): copy_clip([path], 590, 595, tmp_path/"late")


def test_damage(record, tmp_path):
    "A clip after the end of a cut file gives one line with file and time; one across damage has a hitch."
    whole = bytearray(record(MKV).read_bytes())
    rng = np.random.default_rng(0)
    cut_short = {"cut.mkv": whole[:len(whole) * 6 // 10], "cut.mp4": record(VIDEOS[1]).read_bytes()[:-150_000]}
    for name, data in cut_short.items():
        (tmp_path/name).write_bytes(data)
        for cut in copy_clip, exact_clip:
            with pytest.raises(InputError, match=rf"{name}: found .*8\.5 .* within .*\d\.\d s;") as caught:
                cut([tmp_path/name], 8.5, 9.5, tmp_path/"clips"/"clip")
            assert "\n" not in str(caught.value)
        rest = copy_clip([tmp_path/name], 1, 2.5, tmp_path/"whole")  # what came before the damage can be cut
        assert numbers_of(play(rest.path))[0] == 0
    spoiled = bytearray(whole)
    spoiled[len(whole) // 2:len(whole) // 2 + 30_000] = rng.bytes(30_000)
    (tmp_path/"spoiled.mkv").write_bytes(spoiled)
    clip = exact_clip([tmp_path/"spoiled.mkv"], 4.5, 9.5, tmp_path/"clips"/"clip")
    shown = numbers_of(play(clip.path))
    assert shown[0] == 135 and shown[-1] == 284 and shown == sorted(shown)  # with a hitch


FULL = """
import resource, sys
from pathlib import Path
import numpy as np
from highlight_sense import clips
from highlight_sense.files import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
sound = np.random.default_rng(0).uniform(-0.5, 0.5, (2, 55_125)).astype(np.float32)
for path in sys.argv[2:]:
    for cut in clips.copy_clip, clips.exact_clip, lambda *arguments: clips.preview(*arguments, sound, 22_050):
        try: cut([Path(path)], 5.2, 7.7, Path(sys.argv[1])/"clip.mp4")
        except InputError as error: print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files")
def test_disk_full(record, tmp_path):
    "A full disk gives one line for each clip, and leaves no file."
    paths = [str(record(VIDEOS[0])), str(record(VIDEOS[1]))]
    command = [sys.executable, "-c", FULL, str(tmp_path/"clips"), *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    lines = done.stdout.splitlines()
    assert done.returncode == 0 and len(lines) == 6, done.stderr
    assert all("found a disk" in line and "make room" in line for line in lines)
    assert not list((tmp_path/"clips").iterdir())


def test_preview_without_a_track(record, tmp_path):
    "A preview of a variable frame rate has at most fifteen frames per second, and sound that is too long is cut."
    sound = noise(0, 22_050)[None, :9 * 22_050]
    small = preview([record(Recipe("uneven.mkv", times=tuple(UNEVEN)))], 3.0, 9.0, tmp_path/"small.mp4", sound, 22_050)
    found = play(small.path)
    times = [time_s for _, time_s in found.frames]
    assert times[0] == 0 and len(times) <= 6 * 15 and len(times) > 6 * 12 and found.rates_hz == [22_050]
    assert abs(found.frames[20][1] + 3 - float(UNEVEN[found.frames[20][0]])) < 0.0015
    assert abs(len(found.sounds[0][1]) / 22_050 - 6) < 0.05 and abs(found.track_zero_s(0)) < 0.001
    sound = np.full((2, 9), np.nan, np.float32)
    with pytest.raises(InputError, match="NaN or infinite"):
        preview([record(MKV)], 3, 4, tmp_path/"small.mp4", sound, 22_050)
