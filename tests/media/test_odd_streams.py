"""Sound next to other streams, or with many channels.

Chapters, timecodes and attachments are streams too. Seven point one and more is what surround recordings and audio
interfaces write.
"""
import wave
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from running import printed, small_model

from highlight_sense.clips import copy_clip, exact_clip, preview
from highlight_sense.media import audio_frame
from highlight_sense.numbered import number_frame, read_number
from highlight_sense.sound import read_audio

RATE_HZ = 8_000


def steps(seconds: int = 4) -> np.ndarray:  # (samples,)
    "Make a tone that gets louder every second."
    times_s = np.arange(seconds * RATE_HZ) / RATE_HZ
    return (0.1 * (1 + np.floor(times_s)) * np.sin(2 * np.pi * 250 * times_s)).astype(np.float32)


def loudness(sound: np.ndarray, rate_hz: int) -> list[float]:
    "Measure the amplitude in the middle of each second."
    middles = [sound[round((k + 0.25) * rate_hz):round((k + 0.75) * rate_hz)] for k in range(len(sound) // rate_hz)]
    return [round(float(np.sqrt(2) * middle.std()), 2) for middle in middles]


# --- many channels

def write_wave(path: Path, channels: int) -> Path:
    "Write the tone on the first and the last channel of a WAV file."
    samples = np.zeros((4 * RATE_HZ, channels), np.int16)
    samples[:, 0] = samples[:, -1] = np.round(steps() * 32_767)
    with wave.open(str(path), "wb") as file:
        file.setparams((channels, 2, RATE_HZ, len(samples), "NONE", ""))
        file.writeframes(samples.tobytes())
    return path


def write_surround(path: Path, codec: str) -> Path:
    "Write the tone on the first and the last channel of 7.1."
    samples = np.zeros((4 * 48_000, 8), np.float32)
    samples[:, 0] = samples[:, -1] = np.repeat(steps(), 6)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=48_000, layout="7.1")
        frame = av.AudioFrame.from_ndarray(samples.reshape(1, -1), format="flt", layout="7.1")
        frame.sample_rate, frame.pts = 48_000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("channels", [8, 16, 24, 64])
def test_the_mono_mix_is_the_mean_of_all_channels(tmp_path, channels):
    sound, = read_audio(write_wave(tmp_path/"many.wav", channels), (0,), RATE_HZ)
    np.testing.assert_allclose(sound, steps() * 2 / channels, atol=1e-4)


@pytest.mark.parametrize(("name", "codec"), [
    ("a.flac", "flac"), ("a.mka", "flac"), ("a.m4a", "aac"), ("a.wav", "pcm_s16le")])
def test_seven_point_one_in_any_codec(tmp_path, name, codec):
    sound, = read_audio(write_surround(tmp_path/name, codec), (0,), 48_000)
    assert loudness(sound[:4 * 48_000], 48_000) == pytest.approx([0.025, 0.05, 0.075, 0.1], abs=0.006)


def detect(path: Path, folder: Path, code: int = 0) -> str:
    "Detect in one mixed track; return what the command prints."
    words = "--model", small_model(folder/"model.pt"), path, "-o", folder/"found", "--separate", "none"
    return printed("detect", *words, code=code)


def test_detect_reads_seven_point_one(tmp_path):
    assert " in 0:04, " in detect(write_surround(tmp_path/"obs.mka", "flac"), tmp_path)
    table = (tmp_path/"found"/"obs"/"scores.csv").read_text()
    assert table.count("\n") > 4 and "nan" not in table


def test_more_channels_than_can_be_mixed(tmp_path):
    message = detect(write_wave(tmp_path/"wall.wav", 65), tmp_path, code=2)
    assert "audio track 0: found 65 channels, expected at most 64; mix them down first" in message


# --- sound as the first stream, next to streams of another kind

CHAPTERS = [{"id": k, "start": 2000 * k, "end": 2000 * (k + 1), "time_base": Fraction(1, 1000),
             "metadata": {"title": f"part {k}"}} for k in range(2)]


def write_first_sound(path: Path) -> Path:
    "Write the tone as stream 0, then by the ending: chapters, a picture with a timecode, or an attachment."
    with av.open(str(path), "w") as container:
        sound = container.add_stream("flac" if path.suffix == ".mka" else "aac", rate=RATE_HZ, layout="mono")
        encoders = [sound]
        if path.suffix == ".m4a": container.set_chapters(CHAPTERS)
        if path.suffix == ".mka": container.add_attachment("notes.txt", "text/plain", b"a text")
        if path.suffix == ".mov":
            container.metadata["timecode"] = "01:00:00:00"
            encoders.append(container.add_stream("mpeg4", rate=10))
            encoders[1].width, encoders[1].height = 320, 180
        for second, piece in enumerate(steps().reshape(4, RATE_HZ)):
            container.mux(sound.encode(audio_frame(piece, second * RATE_HZ, RATE_HZ)))
            for number in range(10 * (len(encoders) - 1)):
                container.mux(encoders[1].encode(number_frame(10 * second + number)))
        for encoder in encoders: container.mux(encoder.encode(None))
    return path


@pytest.fixture(scope="module", params=["m4a", "mov", "mka"])
def first_sound(request, tmp_path_factory) -> Path:
    "A recording whose sound is stream 0, and whose last stream is neither sound nor picture."
    path = write_first_sound(tmp_path_factory.mktemp("first")/f"a.{request.param}")
    with av.open(str(path)) as container:
        assert container.streams[0].type == "audio" and container.streams[-1].type in ("data", "attachment")
    return path


def test_sound_is_read_to_its_end(first_sound):
    sound, = read_audio(first_sound, (0,), RATE_HZ)
    assert loudness(sound, RATE_HZ) == pytest.approx([0.1, 0.2, 0.3, 0.4], abs=0.02)
    assert 4 <= len(sound) / RATE_HZ < 4.1


def test_detect_reads_sound_next_to_other_streams(first_sound, tmp_path):
    assert " in 0:04, " in detect(first_sound, tmp_path)


def test_clips_of_sound_next_to_other_streams(first_sound, tmp_path):
    exact = exact_clip([first_sound], 1.0, 3.0, tmp_path/"exact")
    assert loudness(read_audio(exact.path, (0,), RATE_HZ)[0], RATE_HZ) == pytest.approx([0.2, 0.3], abs=0.02)
    copied = copy_clip([first_sound], 1.0, 3.0, tmp_path/"copied")
    assert copied.start_s <= 1.0 and copied.end_s >= 3.0
    small = preview([first_sound], 1.0, 3.0, tmp_path/"small", steps()[None, RATE_HZ:3 * RATE_HZ], RATE_HZ)
    assert loudness(read_audio(small.path, (0,), RATE_HZ)[0], RATE_HZ) == pytest.approx([0.2, 0.3], abs=0.02)
    if first_sound.suffix != ".mov": return
    for clip in (exact.path, small.path):
        with av.open(str(clip)) as container: shown = [read_number(frame) for frame in container.decode(video=0)]
        assert shown == list(range(10, 30)), clip
