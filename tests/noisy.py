"Small recordings whose frames are numbered by grey levels and whose tracks are noise, so that clips can be measured."
import functools
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from running import run, small_model

RATE_HZ, FPS, SECONDS = 48_000, 10, 9
KEY_FRAMES_S = 2


@functools.cache
def noise(track: int) -> np.ndarray:
    "Make the sound of a track, (samples,)."
    white = np.random.default_rng(track).normal(size=SECONDS * RATE_HZ)
    return (0.15 * np.convolve(white, np.hanning(9) / 4, "same")).astype(np.float32)


def write(
    path: Path, titles: Sequence[str], sounds: Sequence[np.ndarray], picture: bool = True, key_s: int = KEY_FRAMES_S,
    codec: str = "aac", picture_codec: str = "libx264", timecode: str | None = None,
) -> Path:
    "Write a recording; frame n shows grey level 16 + n."
    options = {"g": str(key_s * FPS)}
    if picture_codec == "libx264": options |= {"bf": "2", "sc_threshold": "0", "preset": "ultrafast"}
    with av.open(str(path), "w") as container:
        image = container.add_stream(picture_codec, rate=FPS, options=options) if picture else None
        if timecode: container.metadata["timecode"] = timecode
        if image: image.width, image.height, image.pix_fmt = 64, 32, "yuv420p"
        tracks = [container.add_stream(codec, rate=RATE_HZ, layout="mono") for _ in sounds]
        for stream, title in zip(tracks, titles): stream.metadata["title"] = title
        for second in range(SECONDS):
            for number in range(second * FPS, (second + 1) * FPS) if image else ():
                planes = np.full((48, 64), 16 + number, np.uint8)
                planes[32:] = 128
                frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                container.mux(image.encode(frame))
            for stream, samples in zip(tracks, sounds):
                part = samples[None, second * RATE_HZ:][:, :RATE_HZ]
                if not part.size: continue
                if codec.startswith("pcm"): part = (part * 32767).astype(np.int16)
                frame = av.AudioFrame.from_ndarray(part, format="s16" if codec.startswith("pcm") else "fltp",
                                                   layout="mono")
                frame.sample_rate, frame.pts = RATE_HZ, second * RATE_HZ
                frame.time_base = Fraction(1, RATE_HZ)
                container.mux(stream.encode(frame))
        for stream in [image, *tracks] if image else tracks: container.mux(stream.encode(None))
    return path


def place_of(sound: np.ndarray, whole: np.ndarray) -> int:
    "Find the sample of `whole` at which `sound` begins."
    size = 2 ** (len(sound) + len(whole) - 1).bit_length()
    likeness = np.fft.irfft(np.fft.rfft(whole, size) * np.conj(np.fft.rfft(sound, size)), size)
    best = int(np.argmax(likeness))
    return best if best < len(whole) else best - size


class Clip:
    "What a player makes of a file."
    def __init__(self, path: Path):
        self.path = path
        with av.open(str(path)) as container:
            audio = container.streams.audio
            self.titles = [stream.metadata.get("title") or stream.metadata.get("name") for stream in audio]
            self.default = [bool(stream.disposition & stream.disposition.default) for stream in audio]
            self.kinds = [stream.type for stream in container.streams]
            self.start_s = max(0, container.start_time or 0) / av.time_base
            self.coding = [(stream.codec_context.name, stream.profile, stream.codec_context.layout.name)
                           for stream in audio]

    def sound(self, track: int) -> tuple[float, np.ndarray]:
        "Decode a track: when it starts, and its samples (channels, samples)."
        with av.open(str(self.path)) as container:
            frames = list(container.decode(audio=track))
        return frames[0].time - self.start_s, np.concatenate([frame.to_ndarray() for frame in frames], axis=1)

    def zero_s(self) -> float:
        "Find the moment of the recording that is shown as 0:00, by the grey level of the frames."
        with av.open(str(self.path)) as container:
            frames = [(round(np.frombuffer(frame.planes[0], np.uint8)[:64].mean()) - 16, frame.time - self.start_s)
                      for frame in container.decode(video=0)]
        return float(np.median([number / FPS - time_s for number, time_s in frames]))

    def track_zero_s(self, track: int, whole: np.ndarray, channel: int = 0) -> float:
        "The same by the sound of a track."
        start_s, samples = self.sound(track)
        return place_of(samples[channel], whole) / RATE_HZ - start_s


def detect(folder: Path, *words: object) -> Path:
    "Detect one highlight, and return the folder with it."
    model = small_model(folder/"best.pt")
    code, _, complaint = run("detect", "--model", model, *words, "-o", folder/"out", "--top", 1, "--device", "cpu")
    assert code == 0, complaint
    return next((folder/"out").iterdir())
