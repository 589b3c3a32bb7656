"""Sound of which a few packets cannot be decoded.

A damaged packet costs its place: silence as long as it, everything else where it belongs, and one line for the user.
"""
import logging
import re
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from running import printed, small_model

from highlight_sense.clips import exact_clip
from highlight_sense.files import InputError
from highlight_sense.media import audio_frame, probe, write_recording
from highlight_sense.sound import read_audio

RATE_HZ, PACKET = 8_000, 576  # samples per second, and in each packet of FLAC: 0.072 s


def sounds(seconds: int) -> np.ndarray:  # (2, samples)
    "Make noise with 16 bits per sample, without zeros, for two tracks."
    numbers = np.random.default_rng(0).integers(1, 6_000, (2, seconds * RATE_HZ))
    return (numbers / 2**15).astype(np.float32)


def damage(source: Path, copy: Path, broken: dict[int, list[int]]) -> Path:
    "Copy a recording; by stream, the packets with these numbers become noise of the same time and length."
    rng, seen = np.random.default_rng(1), {}
    with av.open(str(source)) as old, av.open(str(copy), "w") as new:
        copies = [new.add_stream_from_template(stream) for stream in old.streams]
        for stream, twin in zip(old.streams, copies): twin.metadata["title"] = stream.metadata["title"]
        for packet in old.demux():
            if not packet.size: continue
            index = packet.stream.index
            number = seen[index] = seen.get(index, -1) + 1
            if number in broken.get(index, ()):
                noise = av.Packet(rng.bytes(packet.size))
                noise.pts, noise.dts, noise.duration = packet.pts, packet.dts, packet.duration
                noise.time_base, noise.is_keyframe, packet = packet.time_base, True, noise
            packet.stream = copies[index]
            new.mux(packet)
    return copy


def write_whole(path: Path, seconds: int = 12) -> Path:
    "Write a recording of two tracks."
    write_recording(path, dict(zip(("Mic", "Desktop Audio"), sounds(seconds))), RATE_HZ)
    return path


def warnings_of(caplog) -> list[str]:
    "List the warnings of the package, and forget them."
    lines = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    caplog.clear()
    return lines


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_whole(tmp_path_factory.mktemp("whole")/"evening.mkv")


@pytest.fixture(scope="module")
def scratched(whole, tmp_path_factory) -> Path:
    "The same recording, with two damaged places in the first track and one in the second."
    return damage(whole, tmp_path_factory.mktemp("scratched")/"evening.mkv", {0: [50, 51, 150], 1: [90]})


def test_a_damaged_packet_costs_its_place(scratched, caplog):
    expected = sounds(12)
    for track, first, last in ((0, 50, 52), (0, 150, 151), (1, 90, 91)):
        expected[track, first * PACKET:last * PACKET] = 0
    np.testing.assert_array_equal(read_audio(scratched, (0, 1), RATE_HZ), expected)
    line, = warnings_of(caplog)
    assert re.search(r"evening.mkv: found damaged sound from 0:03 on \(3 places, 0\.29 s\), expected", line)


def test_a_part_without_damage_is_read_without_a_word(scratched, caplog):
    sound = read_audio(scratched, (0, 1), RATE_HZ, start_s=11.5)
    np.testing.assert_array_equal(sound, sounds(12)[:, 92_000:])
    assert warnings_of(caplog) == []


def test_detect_warns_in_one_line(scratched, tmp_path):
    output = printed("detect", "--model", small_model(tmp_path/"model.pt"), scratched, "-o", tmp_path/"found", code=0)
    line, = (line for line in output.splitlines() if "warning: " in line)
    assert "found damaged sound from 0:03 on (3 places, 0.29 s)" in line and " in 0:12, " in output


def test_prepare_cuts_clips_from_a_damaged_recording(tmp_path):
    write_whole(tmp_path/"whole.mkv", 60)
    path = damage(tmp_path/"whole.mkv", tmp_path/"evening.mkv", {0: [250], 1: [251]})
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\nevening,15,20\n")
    words = "--labels", tmp_path/"labels.csv", "-o", tmp_path/"clips", "--negative-s", 5
    output = printed("prepare", path, *words, code=0)
    assert "found damaged sound from 0:18 on (2 places, 0.14 s)" in output
    assert len(list((tmp_path/"clips"/"Positive").rglob("*.pt"))) == 1


def test_an_exact_clip_is_silent_where_the_recording_is_damaged(scratched, tmp_path):
    clip = exact_clip([scratched], 3.0, 5.0, tmp_path/"clip")
    expected = sounds(12)[0, 3 * RATE_HZ:5 * RATE_HZ]
    expected[50 * PACKET - 24_000:52 * PACKET - 24_000] = 0
    np.testing.assert_allclose(read_audio(clip.path, (0, 1), RATE_HZ)[0], expected, atol=2**-15)


def test_most_of_a_track_is_too_much(whole, tmp_path):
    path = damage(whole, tmp_path/"ruin.mkv", {1: [*range(40, 150)]})
    message = printed("detect", "--model", small_model(tmp_path/"model.pt"), path, "-o", tmp_path/"found")
    assert "audio track 1: found 7.9 s of 12.0 s that cannot be decoded, expected at most half" in message
    with pytest.raises(InputError, match=r"found 7\.9 s of 12\.0 s"): read_audio(path, (0, 1), RATE_HZ)
    np.testing.assert_array_equal(read_audio(path, (0,), RATE_HZ)[0], sounds(12)[0])


# --- floating point

def write_floats(path: Path, samples: np.ndarray) -> Path:
    "Write samples (samples, channels) as a WAV file of 32-bit floating point."
    data = samples.astype("<f4").tobytes()
    channels = samples.shape[1]
    form = struct.pack("<HHIIHH", 3, channels, RATE_HZ, 4 * channels * RATE_HZ, 4 * channels, 32)
    chunks = b"fmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", len(data)) + data
    path.write_bytes(b"RIFF" + struct.pack("<I", 4 + len(chunks)) + b"WAVE" + chunks)
    return path


def test_samples_that_are_no_numbers(tmp_path, caplog):
    good = sounds(4).T
    bad = good.copy()
    bad[24_000:24_100, 0] = np.nan
    bad[28_000, 1] = np.inf
    path = write_floats(tmp_path/"mixer.wav", bad)
    sound, = read_audio(path, (0,), RATE_HZ)
    expected = good.mean(axis=1)
    expected[24_000:24_100] = expected[28_000] = 0
    np.testing.assert_array_equal(sound, expected)
    line, = warnings_of(caplog)
    assert "mixer.wav: found damaged sound from 0:03 on (2 places, 0.01 s), expected sound that can be played" in line
    assert " in 0:04, " in printed(
        "detect", "-m", small_model(tmp_path/"model.pt"), path, "-o", tmp_path/"found", "--separate", "none", code=0)


# --- MP3

def write_steps(path: Path) -> bytes:
    "Write an MP3 of a tone that gets louder every second."
    times_s = np.arange(8 * RATE_HZ) / RATE_HZ
    tone = (0.1 * (1 + np.floor(times_s)) * np.sin(2 * np.pi * 250 * times_s)).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libmp3lame", rate=RATE_HZ, layout="mono")
        for second, piece in enumerate(tone.reshape(8, RATE_HZ)):
            container.mux(stream.encode(audio_frame(piece, second * RATE_HZ, RATE_HZ)))
        container.mux(stream.encode(None))
    return path.read_bytes()


def loudness_at(sound: np.ndarray, times_s: list[float]) -> list[float]:
    "Measure the amplitude in half a second around these times."
    pieces = [sound[round((time_s - 0.25) * RATE_HZ):round((time_s + 0.25) * RATE_HZ)] for time_s in times_s]
    return [float(np.sqrt(2) * piece.std()) for piece in pieces]


def test_garbage_before_an_mp3(tmp_path, caplog):
    mp3 = write_steps(tmp_path/"steps.mp3")
    (tmp_path/"page.mp3").write_bytes(np.random.default_rng(3).bytes(100_000) + mp3)
    sound, = read_audio(tmp_path/"page.mp3", (0,), RATE_HZ)
    late_s = len(sound) / RATE_HZ - len(read_audio(tmp_path/"steps.mp3", (0,), RATE_HZ)[0]) / RATE_HZ
    assert 0 <= late_s < 4 and np.abs(sound[:round((late_s - 0.1) * RATE_HZ)]).max(initial=0) < 0.01
    loudness = loudness_at(sound, [late_s + k + 0.5 for k in range(8)])
    assert loudness == pytest.approx([0.1 * k for k in range(1, 9)], rel=0.08)
    line, = warnings_of(caplog)
    assert re.search(r"page.mp3: found damaged sound (at|from) 0:00 ", line)


def test_badly_joined_mp3(tmp_path, caplog):
    mp3 = write_steps(tmp_path/"steps.mp3")
    (tmp_path/"joined.mp3").write_bytes(mp3[:len(mp3) // 2 - 77] + mp3)
    sound, = read_audio(tmp_path/"joined.mp3", (0,), RATE_HZ)
    loudness = loudness_at(sound, [0.5, 1.5, 2.5, 3.5, 5.7, 6.7, 9.7])
    assert loudness == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.2, 0.3, 0.6], abs=0.03)
    line, = warnings_of(caplog)
    assert re.search(r"joined.mp3: found damaged sound (at|from) 0:0[34] ", line)


def test_the_length_of_an_mp3_is_counted(tmp_path):
    "Its first packets are small, and it has no header, so a guess from the bit rate is far too long."
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, (30, RATE_HZ))
    noise[:15] = 0
    coding = av.CodecContext.create("libmp3lame", "w")
    coding.sample_rate, coding.layout, coding.format, coding.time_base = RATE_HZ, "mono", "fltp", Fraction(1, RATE_HZ)
    coding.options = {"flags": "+qscale", "global_quality": "472"}
    packets = [coding.encode(audio_frame(piece, k * RATE_HZ, RATE_HZ)) for k, piece in enumerate(noise)]
    content = b"".join(bytes(packet) for part in (*packets, coding.encode(None)) for packet in part)
    (tmp_path/"quiet first.mp3").write_bytes(content)
    assert probe(tmp_path/"quiet first.mp3").duration_s == pytest.approx(30, abs=0.3)
    assert "seconds  30." in printed("info", tmp_path/"quiet first.mp3", code=0)
