"Copies of recordings whose codecs fit neither into MP4 nor into Matroska."
from fractions import Fraction
from pathlib import Path

import av

from highlight_sense.clips import copy_clip
from highlight_sense.numbered import FPS, NOISE_HZ, measure, noise, number_frame, read_number

SECONDS = 6


def record(path: Path, picture: str, size: tuple[int, int], sound: str, **options: str) -> Path:
    "Write the numbered recording, with a key frame every second, in these codecs; the options are the muxer's."
    with av.open(str(path), "w", options=options) as container:
        image = container.add_stream(picture, rate=FPS, options={"g": str(FPS)})
        (image.width, image.height), image.pix_fmt = size, "yuv420p"
        track = container.add_stream(sound, rate=NOISE_HZ, layout="mono")
        track.codec_context.bit_rate = 64_000
        for second in range(SECONDS):
            for number in range(second * FPS, (second + 1) * FPS):
                frame = number_frame(number, *size)
                frame.pts, frame.time_base = number, Fraction(1, FPS)
                container.mux(image.encode(frame))
            samples = noise(0)[None, second * NOISE_HZ:][:, :NOISE_HZ]
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = NOISE_HZ, second * NOISE_HZ, Fraction(1, NOISE_HZ)
            container.mux(track.encode(frame))
        for stream in image, track: container.mux(stream.encode(None))
    return path


def test_a_phone_of_old(tmp_path):
    "H.263 of a 3GP comes in a MOV, with picture and sound in sync."
    path = record(tmp_path/"phone.3gp", "h263", (176, 144), "aac")
    whole, clip = measure(path), copy_clip([path], 2.3, 3.6, tmp_path/"clip")
    found = measure(clip.path)
    assert clip.path.suffix == ".mov" and found.frames == (60, 119)
    assert abs(found.late_ms[0] - whole.late_ms[0]) < 2 and abs(found.zero_s - whole.zero_s - clip.start_s) < 0.002


def test_windows_media(tmp_path):
    "WMV stays WMV. (It stores no presentation times, so the frames are counted.)"
    clip = copy_clip([record(tmp_path/"old.wmv", "wmv2", (160, 96), "wmav2")], 2.3, 3.6, tmp_path/"clip")
    with av.open(str(clip.path)) as container:
        numbers = [read_number(frame) for frame in container.decode(video=0)]
        starts_s = [float(stream.start_time * stream.time_base) for stream in container.streams]
    assert clip.path.suffix == ".wmv" and numbers == list(range(60, 120)) and clip.copied
    assert abs(starts_s[0] - starts_s[1]) < 0.05


def test_television(tmp_path):
    "AAC in LATM, as some television has it, comes in a transport stream, in sync."
    path = record(tmp_path/"film.ts", "libx264", (160, 96), "aac", mpegts_flags="latm")
    with av.open(str(path)) as container: assert container.streams.audio[0].codec_context.name == "aac_latm"
    clip = copy_clip([path], 2.3, 3.6, tmp_path/"clip")
    found = measure(clip.path)
    assert clip.path.suffix == ".ts" and found.frames[0] <= 2.3 * FPS and found.frames[1] >= 3.5 * FPS
    assert found.in_sync and abs(found.zero_s - measure(path).zero_s - clip.start_s) < 0.002
