"The sound of exact clips, to the sample: no hole that the source has not, and no channel less."
from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from highlight_sense.clips import exact_clip

RATE_HZ, PACKET = 48_000, 960  # 20 ms
SOUND = (0.3 * np.random.default_rng(0).uniform(-1, 1, 8 * RATE_HZ) * 2 ** 15).astype(np.int16)


def write(path: Path, times_ms: Iterable[int | None], codec: str = "pcm_s16le") -> Path:
    "Write the sound as packets of 20 ms, each at this time; None: the packet is lost."
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE_HZ, layout="mono")
        for number, time_ms in enumerate(times_ms):
            if time_ms is None: continue
            frame = av.AudioFrame.from_ndarray(SOUND[None, number * PACKET:][:, :PACKET], format="s16", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, time_ms * 48, Fraction(1, RATE_HZ)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def samples_of(path: Path) -> np.ndarray:
    "Decode a clip of one track: (channels, samples) of 16 bits."
    with av.open(str(path)) as container:
        pieces = [frame.to_ndarray().reshape(-1, frame.layout.nb_channels) for frame in container.decode(audio=0)]
    return np.concatenate(pieces).T


@pytest.mark.parametrize("tremble_ms", [(15, 16, 15), (-14, -15, -14), (19, 12, 17), (0, 18, 18, 18, 18, 0)], ids=str)
def test_trembling_timestamps(tremble_ms, tmp_path):
    "Some packets in every 0.7 s come with a wrong time: the sound of the clip is whole."
    late_ms = dict(enumerate(tremble_ms))
    path = write(tmp_path/"live.mka", (number * 20 + late_ms.get(number % 35 - 5, 0) for number in range(400)))
    clip = exact_clip([path], 1.5, 7.5, tmp_path/"clip")
    np.testing.assert_array_equal(samples_of(clip.path)[0], SOUND[72_000:360_000])


@pytest.mark.parametrize("lost", [1, 2, 30])
def test_lost_packets(lost, tmp_path):
    "Where packets are missing there is silence, from the first sample to the last; what follows is at its time."
    path = write(tmp_path/"lossy.mka", (None if 200 <= number < 200 + lost else number * 20 for number in range(400)))
    clip = exact_clip([path], 1.5, 7.5, tmp_path/"clip")
    expected = SOUND[72_000:360_000].copy()
    expected[4 * RATE_HZ - 72_000:][:lost * PACKET] = 0
    np.testing.assert_array_equal(samples_of(clip.path)[0], expected)


def write_channels(path: Path, layout: str, codec: str = "flac", picture: bool = True) -> Path:
    "Write 4 s with a tone in each channel, 30 Hz apart (AAC keeps only such of a subwoofer), and a still picture."
    channels, seconds = av.AudioLayout(layout).nb_channels, 4
    times_s = np.arange(seconds * RATE_HZ) / RATE_HZ
    tones = 0.1 * np.sin(2 * np.pi * 30 * (1 + np.arange(channels)[:, None]) * times_s)
    with av.open(str(path), "w") as container:
        image = container.add_stream("libx264", rate=5, options={"preset": "ultrafast"}) if picture else None
        stream = container.add_stream(codec, rate=RATE_HZ, layout=layout)
        if image: image.width, image.height, image.pix_fmt = 64, 36, "yuv420p"
        for number in range(5 * seconds if image else 0):
            frame = av.VideoFrame(64, 36, "yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 5)
            container.mux(image.encode(frame))
        packed = np.round(tones.T * 2 ** 15).astype(np.int16).reshape(1, -1)
        for start in range(0, packed.shape[1], channels * RATE_HZ):
            frame = av.AudioFrame.from_ndarray(packed[:, start:start + channels * RATE_HZ], format="s16", layout=layout)
            frame.sample_rate, frame.pts, frame.time_base = RATE_HZ, start // channels, Fraction(1, RATE_HZ)
            container.mux(stream.encode(frame))
        for each in filter(None, (image, stream)): container.mux(each.encode(None))
    return path


def tones_in(path: Path) -> tuple[str, list[int]]:
    "The layout of a clip, and for each channel the number of its loudest tone; 0 for silence."
    with av.open(str(path)) as container:
        layout = container.streams.audio[0].codec_context.layout.name
        to_packed = av.AudioResampler(format="flt")
        pieces = [piece.to_ndarray().reshape(-1, piece.layout.nb_channels)
                  for frame in container.decode(audio=0) for piece in to_packed.resample(frame)]
    spectrum = np.abs(np.fft.rfft(np.concatenate(pieces)[24_000:72_000], axis=0))  # a second; bins of 1 Hz
    return layout, [round(int(np.argmax(one)) / 30) if one.max() > 100 else 0 for one in spectrum.T]


@pytest.mark.parametrize(("layout", "kept", "tones"), [
    ("7.1", "7.1", [1, 2, 3, 4, 5, 6, 7, 8]), ("5.1", "5.1", [1, 2, 3, 4, 5, 6]),
    ("2.1", "5.1", [1, 2, 0, 3, 0, 0]), ("4.1", "5.1", [1, 2, 3, 4, 5, 5])])
def test_every_channel_is_kept(layout, kept, tones, tmp_path, caplog):
    "An exact clip with a picture, in AAC, has all channels of OBS's layouts, each in its place."
    clip = exact_clip([write_channels(tmp_path/"film.mkv", layout)], 0.5, 3.5, tmp_path/"clip")
    assert clip.path.suffix == ".mp4" and tones_in(clip.path) == (kept, tones) and not caplog.messages


def test_more_channels_than_aac_holds(tmp_path, caplog):
    "The first eight are kept, and a warning says so. Without a picture, WAV keeps all."
    path = write_channels(tmp_path/"film.mkv", "10 channels", "pcm_s16le")
    assert tones_in(exact_clip([path], 0.5, 3.5, tmp_path/"clip").path) == ("7.1", [1, 2, 3, 4, 5, 6, 7, 8])
    line, = caplog.messages
    assert line.startswith(f"{path}: audio track 0: found 10 channels, expected at most 8 in an exact clip")
    sound = write_channels(tmp_path/"sound.mka", "10 channels", "pcm_s16le", picture=False)
    assert tones_in(exact_clip([sound], 0.5, 3.5, tmp_path/"sound").path)[1] == list(range(1, 11))
    assert len(caplog.messages) == 1


def test_a_damaged_packet(tmp_path, caplog):
    "A packet that cannot be decoded is silence, from its first sample to its last."
    whole, path = write(tmp_path/"whole.mka", (number * 20 for number in range(400)), "flac"), tmp_path/"damaged.mka"
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        copy = new.add_stream_from_template(old.streams.audio[0], opaque=True)
        packets = [packet for packet in old.demux(audio=0) if packet.pts is not None]
        spoiled = packets[len(packets) // 2]
        first, size = spoiled.pts * RATE_HZ // 1000, spoiled.duration * RATE_HZ // 1000
        for packet in packets:
            if packet is spoiled: packet.update(b"\xff" * packet.size)
            packet.stream = copy
            new.mux(packet)
    clip = exact_clip([path], 1.5, 7.5, tmp_path/"clip")
    expected = SOUND[72_000:360_000].copy()
    expected[first - 72_000:][:size] = 0
    np.testing.assert_array_equal(samples_of(clip.path)[0], expected)
    line, = caplog.messages
    assert "found damaged sound at 0:04" in line
