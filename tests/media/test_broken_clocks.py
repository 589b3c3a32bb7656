"""Recordings of live streams whose clock wraps, jumps or restarts: every time is right, from reading to cutting.

The recordings show a number on each frame, and their sound can be located, so each clip says what it really holds.
"""
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from running import run, small_model

from highlight_sense.clips import copy_clip, exact_clip
from highlight_sense.editors import remux
from highlight_sense.files import InputError
from highlight_sense.media import audio_frame, probe
from highlight_sense.numbered import FPS, NOISE_HZ, find_in, measure, noise, number_frame, read_number, write_numbered
from highlight_sense.reel import Span
from highlight_sense.sound import read_audio
from highlight_sense.timelines import write_timelines

WRAP = 2**33                # ticks of 90 kHz after which the clock of a transport stream starts again
WRAP_S = WRAP / 90_000      # 26.5 hours
EARLY_S = 1024 / NOISE_HZ   # AAC starts this much before the picture


# --- transport streams with another clock

def _read_stamp(field: bytes) -> int:
    "Read a timestamp of 33 bits from the header of a PES packet."
    middle, low = (int.from_bytes(field[at:at + 2], "big") >> 1 for at in (1, 3))
    return (field[0] >> 1 & 7) << 30 | middle << 15 | low


def _write_stamp(first: int, stamp: int) -> bytes:
    "Write a timestamp of 33 bits; `first` has the marker bits of the field."
    middle, low = (((stamp >> bits & 0x7FFF) << 1 | 1).to_bytes(2, "big") for bits in (15, 0))
    return bytes([first & 0xF1 | stamp >> 29 & 14]) + middle + low


def reclock(stream: bytes, setting: Callable[[int], int], pid: int | None = None) -> bytes:
    "Set the clock of a transport stream, or of one of its tracks: `setting` converts decode times (ticks of 90 kHz)."
    data = bytearray(stream)
    for at in range(0, len(data), 188):
        if pid is not None and int.from_bytes(data[at + 1:at + 3], "big") & 0x1FFF != pid: continue
        has_field, has_data = data[at + 3] & 0x20, data[at + 3] & 0x10
        payload = at + 4 + (1 + data[at + 4] if has_field else 0)
        if not (data[at + 1] & 0x40 and has_data and data[payload:payload + 3] == b"\0\0\1"): continue
        flags, pts_at, dts_at = data[payload + 7] >> 6, payload + 9, payload + 14
        if not flags & 2: continue
        pts = _read_stamp(data[pts_at:pts_at + 5])
        dts = _read_stamp(data[dts_at:dts_at + 5]) if flags == 3 else pts
        moved = setting(dts) - dts
        data[pts_at:pts_at + 5] = _write_stamp(data[pts_at], (pts + moved) % WRAP)
        if flags == 3: data[dts_at:dts_at + 5] = _write_stamp(data[dts_at], (dts + moved) % WRAP)
    return bytes(data)


def step(*changes: tuple[float, float]) -> Callable[[int], int]:
    "Let a clock jump: from each time on (s), by so much (s)."
    def setting(ticks: int) -> int:
        return ticks + sum(round(by_s * 90_000) for from_s, by_s in changes if ticks >= from_s * 90_000)
    return setting


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A folder with the numbered recording as a transport stream."
    folder = tmp_path_factory.mktemp("clocks")
    write_numbered(folder/"even.ts")
    return folder


# --- what a recording holds where

def late_s(path: Path, time_s: float) -> float:
    "Read a little sound at a time, and find how much later in the file it is than in the numbered recording."
    piece = read_audio(path, (0,), NOISE_HZ, start_s=time_s, end_s=time_s + 0.4)[0]
    return time_s - find_in(piece, noise(0)) / NOISE_HZ


def check_clips(path: Path, start_s: float, end_s: float, later_s: float, late_ms: float = 1) -> None:
    "Cut from `path`, where the recording starts at `later_s`, and compare frames and sound with the request."
    for cut in (copy_clip, exact_clip):
        clip = cut([path], start_s, end_s, path.with_name(f"{path.stem} {cut.__name__}"))
        held = measure(clip.path)
        first, last = held.frames
        assert first / FPS + later_s <= start_s + 1e-3 and (last + 1) / FPS + later_s >= end_s - 1e-3, (path, held)
        assert abs(clip.start_s - later_s - held.zero_s) < 0.002 and max(map(abs, held.late_ms)) < late_ms, (path, held)
        if cut is exact_clip: assert (last + 1 - first) / FPS < end_s - start_s + 2.1 / FPS, held


# --- a clock that is set while the recording continues

SETTINGS = {
    "wraps in the first minute": (step((0, WRAP_S - 5)), None),
    "jumps forward": (step((6, 90)), "at 0:06 (by +90.0 s)"),
    "jumps back": (step((0, 200), (6, -90)), "at 0:06 (by -90.0 s)"),
    "jumps below zero": (step((6, -90)), "at 0:06 (by -90.0 s)"),
    "jumps often": (step((3, 90), (5, -40), (8, 500), (10, -3)), "at 0:08 (by +500.0 s) and 1 more"),
}


@pytest.mark.parametrize("what", SETTINGS)
def test_times_are_those_of_the_recording(place, caplog, what):
    setting, warning = SETTINGS[what]
    path = place/f"{what}.ts"
    path.write_bytes(reclock((place/"even.ts").read_bytes(), setting))
    assert abs(probe(path).duration_s - probe(place/"even.ts").duration_s) < 1e-3
    even, read = (read_audio(source, (0, 1), 8000) for source in (place/"even.ts", path))
    assert even.shape == read.shape and np.array_equal(even, read)
    assert np.allclose([late_s(path, time_s) for time_s in (2.5, 5.8, 10.9)], EARLY_S, atol=1e-3)
    check_clips(path, 7.5, 8.5, EARLY_S)
    about = [line for line in caplog.messages if path.name in line]
    assert len(about) == bool(warning) and all(warning in line for line in about), about


def test_a_wrap_after_the_first_minute(tmp_path):
    path = tmp_path/"late.ts"
    rng = np.random.default_rng(0)
    sound = (0.3 * rng.standard_normal(75 * 8000)).astype(np.float32)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mp2", rate=16_000, layout="mono")
        for at in range(0, len(sound), 8000):
            container.mux(stream.encode(audio_frame(np.repeat(sound[at:at + 8000], 2), 2 * at, 16_000)))
        container.mux(stream.encode(None))
    even = read_audio(path, (0,), 8000)
    cut_s = copy_clip([path], 71, 73, tmp_path/"even").start_s
    path.write_bytes(reclock(path.read_bytes(), step((0, WRAP_S - 68))))
    assert np.array_equal(read_audio(path, (0,), 8000), even) and abs(probe(path).duration_s - 75) < 0.1
    assert np.abs(read_audio(path, (0,), 8000, 72, 73) - even[:, 72*8000:73*8000]).max() < 0.01
    clip = copy_clip([path], 71, 73, tmp_path/"wrapped")
    assert abs(clip.start_s - cut_s) < 1e-3 and clip.end_s - clip.start_s < 2.5


# --- segments joined as bytes

def test_the_second_segment_is_found_and_cut(place, caplog):
    path = place/"joined.ts"
    path.write_bytes(2 * (place/"even.ts").read_bytes())
    length_s = probe(place/"even.ts").duration_s
    assert abs(probe(path).duration_s - 2 * length_s) < 0.05
    later_s = late_s(path, 14.5)
    assert abs(later_s - length_s - EARLY_S) < 1 / FPS and abs(late_s(path, 22.5) - later_s) < 1e-3
    check_clips(path, 19.5, 20.5, later_s)
    assert any("joined.ts: found a clock that jumps at 0:12 (by -12.0 s)" in line for line in caplog.messages)


def test_an_exact_clip_crosses_from_one_segment_to_the_next(place):
    path = place/"crossed.ts"
    path.write_bytes(2 * (place/"even.ts").read_bytes())
    clip = exact_clip([path], 11, 13, place/"crossing")
    with av.open(str(clip.path)) as container: shown = [(f.time, read_number(f)) for f in container.decode(video=0)]
    numbers = [number for _, number in shown]
    first = numbers.index(0)
    assert numbers == [*range(numbers[0], 360), *range(len(numbers) - first)] and len(numbers) - first > 20
    assert np.abs(np.diff([time_s for time_s, _ in shown]) - 1 / FPS).max() < 1 / FPS


def bursts(path: Path, rate_hz: int, codec: str = "aac", streams_from: int = 256, silent_s: int = 0) -> Path:
    "Write 8 s of near silence with a burst at 1 s and at 6 s; after 4 s, nothing is stored for some seconds."
    times_s = np.arange(8 * rate_hz) / rate_hz
    sound = np.where((times_s - 1) % 5 < 0.2, 0.5, 0.001) * np.sin(2000 * times_s)
    options = {"mpegts_start_pid": str(streams_from)} if path.suffix == ".ts" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=rate_hz, layout="mono")
        for start in range(0, len(sound), rate_hz):
            late = silent_s * rate_hz if start >= 4 * rate_hz else 0
            container.mux(stream.encode(audio_frame(sound[start:start + rate_hz], start + late, rate_hz)))
        container.mux(stream.encode(None))
    return path


def heard_s(path: Path) -> np.ndarray:
    "Find when bursts begin, in seconds from the start of a file."
    loud = np.flatnonzero(np.abs(read_audio(path, (0,), 16_000)[0]) > 0.2) / 16_000
    return loud[np.diff(loud, prepend=-1) > 1]


@pytest.mark.parametrize("rates_hz", [(48_000, 16_000), (16_000, 48_000)])
def test_segments_of_different_settings(tmp_path, rates_hz):
    segments = [bursts(tmp_path/f"{rate_hz}.ts", rate_hz, "aac", 256 + rate_hz // 100) for rate_hz in rates_hz]
    path = tmp_path/"joined.ts"
    path.write_bytes(b"".join(segment.read_bytes() for segment in segments))
    found_s = heard_s(path)
    assert len(found_s) == 4 and np.allclose(found_s, [1, 6, 9, 14], atol=0.2), found_s
    first_s, second_s = (probe(segment).duration_s for segment in segments)
    assert abs(probe(path).duration_s - first_s - second_s) < 0.05 and abs(found_s[3] - found_s[2] - 5) < 0.01


def test_a_flash_video_that_starts_again(place):
    write_numbered(place/"one.flv", ("Mic",))
    data = (place/"one.flv").read_bytes()
    path = place/"again.flv"
    path.write_bytes(data + data[13:])  # without the second header
    later_s = late_s(path, 14.5)
    assert abs(later_s - 12 - 2 * EARLY_S) < 1 / FPS and abs(probe(path).duration_s - 24.05) < 0.05
    check_clips(path, 19.5, 20.5, later_s)


def test_chained_ogg_files(tmp_path):
    path = tmp_path/"chained.ogg"
    path.write_bytes(2 * bursts(tmp_path/"one.ogg", 48_000, "libopus").read_bytes())
    assert np.allclose(heard_s(path), [1, 6, 9, 14], atol=0.05) and abs(probe(path).duration_s - 16) < 0.1
    assert abs(heard_s(copy_clip([path], 12, 15, tmp_path/"clip").path)[0] - 2) < 0.3


def test_an_ogg_file_may_pause(tmp_path, caplog):
    path = bursts(tmp_path/"one.ogg", 48_000, "libopus", silent_s=30)
    assert np.allclose(heard_s(path), [1, 36], atol=0.05) and not caplog.messages


def test_detect_info_and_timelines_cover_both_segments(place, tmp_path):
    path = place/"evening.ts"
    path.write_bytes(2 * (place/"even.ts").read_bytes())
    model = small_model(tmp_path/"model.pt")
    code, _, err = run("detect", "-m", model, path, "-o", tmp_path/"out", "--top", 1, "--mic", "a:0", "--game", "a:1")
    assert code == 0 and err.count("warning: ") == 1 and "evening.ts: found a clock that jumps at 0:12" in err, err
    found = json.loads((tmp_path/"out"/"evening"/"highlights.json").read_text())
    assert abs(found["recording"]["duration_s"] - 24.06) < 0.1
    assert "24.06" in run("info", path)[1]
    edl = write_timelines([probe(path)], [Span(18, 20, "late")], tmp_path, "reel")[1].read_text()
    assert "00:00:18:00 00:00:20:00" in edl, edl


# --- holes, and streams that pause or step back

def test_a_hole_keeps_its_place(place, caplog):
    data = (place/"even.ts").read_bytes()
    packets = len(data) // 188
    path = place/"lossy.ts"
    path.write_bytes(data[:packets // 2 * 188] + data[packets * 7 // 10 * 188:])
    even, read = (read_audio(source, (0,), 8000)[0] for source in (place/"even.ts", path))
    assert abs(probe(path).duration_s - probe(place/"even.ts").duration_s) < 1e-3
    assert np.abs(even[:47_000] - read[:47_000]).max() < 0.01 and abs(late_s(path, 9.5) - EARLY_S) < 1e-3
    assert np.abs(read[int(6.5 * 8000):int(8.2 * 8000)]).max() == 0
    holes = [line for line in caplog.messages if "lossy.ts: found a hole of 2.4 s at 0:06" in line]
    assert len(holes) == 1 and "it counts as silence" in holes[0], caplog.messages


def test_a_clip_of_nothing_is_refused(tmp_path):
    path = bursts(tmp_path/"hole.ts", 16_000, silent_s=9)
    with pytest.raises(InputError, match=r"hole.ts: found nothing from 6.0 to 11.0 s"):
        copy_clip([path], 6, 11, tmp_path/"clip")


def test_a_track_that_steps_back_alone_stays_in_sync(place, caplog):
    path = place/"stepped.ts"
    path.write_bytes(reclock((place/"even.ts").read_bytes(), step((6, -0.4)), pid=257))
    assert abs(late_s(path, 9) - EARLY_S + 0.4) < 1e-3
    assert not [line for line in caplog.messages if "clock" in line]


def test_a_track_that_pauses_is_no_jump(tmp_path, caplog):
    path = tmp_path/"paused.ts"
    sound = (0.3 * np.random.default_rng(0).standard_normal(24 * 8000)).astype(np.float32)
    with av.open(str(path), "w") as container:
        picture = container.add_stream("mpeg2video", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        track = container.add_stream("mp2", rate=16_000, layout="mono")
        for second in range(24):
            for number in range(25 * second, 25 * second + 25):
                frame = number_frame(number, 64, 48)
                frame.pts = number
                container.mux(picture.encode(frame))
            if 4 <= second < 20: continue
            piece = np.repeat(sound[second * 8000:(second + 1) * 8000], 2)
            container.mux(track.encode(audio_frame(piece, second * 16_000, 16_000)))
        for stream in (picture, track): container.mux(stream.encode(None))
    read = read_audio(path, (0,), 8000)[0]
    assert abs(len(read) / 8000 - 24) < 0.2 and not caplog.messages
    at = find_in(read[21 * 8000:22 * 8000], sound) / 8000
    assert abs(at - 21) < 0.15 and np.abs(read[6 * 8000:19 * 8000]).max() == 0


def test_one_damaged_timestamp_moves_nothing(place):
    def setting(ticks: int) -> int: return ticks + 5000 * 90_000 * (6 * 90_000 <= ticks < 6.03 * 90_000)

    data = reclock((place/"even.ts").read_bytes(), setting, pid=257)
    cells = [data[at:at + 188] for at in range(0, len(data), 188)]
    sound = [number for number, cell in enumerate(cells) if int.from_bytes(cell[1:3], "big") & 0x1FFF == 257]
    lost = {*sound[len(sound) * 52 // 100:len(sound) * 56 // 100]}  # just after the damage
    path = place/"damaged.ts"
    path.write_bytes(b"".join(cell for number, cell in enumerate(cells) if number not in lost))
    assert abs(late_s(path, 9) - EARLY_S) < 1e-3


def test_copies_of_two_codings_play(tmp_path):
    segments = [bursts(tmp_path/f"{rate_hz}.ts", rate_hz) for rate_hz in (16_000, 48_000)]
    path = tmp_path/"joined.ts"
    path.write_bytes(b"".join(segment.read_bytes() for segment in segments))
    remux(path, tmp_path/"edit.m4a", 16.0, progress=False)
    assert np.allclose(heard_s(tmp_path/"edit.m4a"), [1.06, 6.06, 9.1, 14.1], atol=0.1)
    clip = copy_clip([path], 5, 10, tmp_path/"clip")
    found_s = heard_s(clip.path) + clip.start_s
    assert clip.path.suffix == ".ts" and len(found_s) == 2 and np.allclose(found_s, [6.06, 9.1], atol=0.1), found_s
