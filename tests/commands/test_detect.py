"`highlight-sense detect` on what recorders write, on what goes wrong, and killed at any moment."
import contextlib
import errno
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
import torch
from running import launch, needs_fork, run
from scipy.signal import resample_poly

from highlight_sense import separation, tracks
from highlight_sense.audio import log_mel
from highlight_sense.checkpoint import save_checkpoint
from highlight_sense.config import ModelConfig
from highlight_sense.detections import read_detection, read_scores
from highlight_sense.media import write_recording
from highlight_sense.model import HighlightCRNN
from highlight_sense.sound import read_audio

RATE_HZ, SECONDS = 22_050, 32
WINDOWS = 8    # of 15 s
PRODUCTS = ("scores.csv", "highlights.csv", "highlights.json")
# two logits of the same sound, resampled or well encoded; swapping voice and game changes them by three times that
CLOSE = 0.25
UNTITLED = "found neither a telling title nor a track that clearly sounds like speech"


def sound(number: int, seconds: int = SECONDS) -> np.ndarray:
    "(samples,): noise whose level changes every second, with calls in it."
    rng, n = np.random.default_rng(number), seconds * RATE_HZ
    level = np.repeat(0.1 * rng.uniform(0.2, 1, seconds) ** 2, RATE_HZ)
    width = 6 + 6 * number
    samples = np.convolve(rng.normal(size=n) * level, np.ones(width) / width ** 0.5, "same")
    call = 0.2 * np.sin(2 * np.pi * (300 + 700 * number) * np.arange(2 * RATE_HZ) / RATE_HZ)
    for at in rng.integers(2 * RATE_HZ, n - 2 * RATE_HZ, 6): samples[at:at + len(call)] += call
    return samples.astype(np.float32)


VOICE, GAME = sound(0), sound(1)


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "A folder for recordings, checkpoints and detections."
    return tmp_path_factory.mktemp("detect")


@pytest.fixture(scope="module")
def checkpoint(place) -> Path:
    "A small random network; its normalisation is measured and its classifier loud, so logits differ by sound."
    torch.manual_seed(0)
    model = HighlightCRNN.from_config(ModelConfig(cnn_channels=(4, 4, 8, 8), rnn_hidden=8, rnn_layers=1, att_dim=4))
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d): layer.momentum = 1.0
    with torch.no_grad():
        model.train()(log_mel(torch.from_numpy(np.stack([VOICE, GAME])))[None])
        for weights in model.classifier.parameters(): weights.mul_(5)
    save_checkpoint(place/"best.pt", model.eval(), epochs=1, threshold=0.9)
    return place/"best.pt"


def call(*arguments: object) -> tuple[int, str, str]:
    "Exit code, output and error stream of a command, without progress bars."
    code, out, err = run(*arguments)
    return code, out, complaint_of(err)


def complaint_of(errors: str) -> str:
    "The error stream without progress bars, and without the line about kernels, which a process logs once."
    lines = [line for line in re.split(r"[\r\n]+", errors) if line.strip() and "the network runs on " not in line]
    return "\n".join(line for line in lines if not re.search(r"\[\d+:\d\d[,<]", line))


def refused(*arguments: object) -> str:
    "The one line that refuses bad input."
    code, _, complaint = call(*arguments)
    assert code == 2 and "\n" not in complaint and complaint.startswith("highlight-sense: "), (code, complaint)
    return complaint.removeprefix("highlight-sense: ")


def detect(checkpoint: Path, *arguments: object, out: Path, window_s: float = 15, warned: str | None = None) -> str:
    "The output of a successful `detect`, in single precision, whose logits are comparable on any CPU."
    settings = "--device", "cpu", "--precision", "fp32", "--window", window_s
    code, printed, complaint = call("detect", "--model", checkpoint, *arguments, "-o", out, *settings)
    if warned is None: assert (code, complaint) == (0, ""), complaint
    else: assert code == 0 and complaint.startswith("highlight-sense: warning: ") and warned in complaint, complaint
    return printed


def logits_of(folder: Path) -> np.ndarray:
    "The logits (windows,) of the one recording in a folder."
    path, = folder.glob("*/scores.csv")
    table = pd.read_csv(path)
    return table[table.kind == "window"].logit.to_numpy()


@pytest.fixture(scope="module")
def score(checkpoint, place) -> Callable[..., np.ndarray]:
    "A function that detects into a new folder and returns the logits."
    numbers = iter(range(1000))

    def run(*arguments: object, warned: str | None = None) -> np.ndarray:
        detect(checkpoint, *arguments, out=(out := place/f"scored{next(numbers)}"), warned=warned)
        return logits_of(out)

    return run


# Recordings as recorders write them

@dataclass(frozen=True)
class Sound:
    "A track to record."
    samples: np.ndarray
    title: str | None = None
    rate_hz: int = 48_000
    layout: str = "stereo"     # all channels are equal
    late_s: int = 0            # nothing is recorded before
    gap_s: tuple[int, int] = (0, 0)  # nor in between

    def at_rate(self) -> np.ndarray:
        "(samples,) at its own rate."
        if self.rate_hz == RATE_HZ: return self.samples
        return resample_poly(self.samples, self.rate_hz // 150, RATE_HZ // 150)

    def silenced(self) -> np.ndarray:
        "(samples,) at `RATE_HZ`, with silence where nothing is recorded."
        second = np.arange(len(self.samples)) // RATE_HZ
        missing = (second < self.late_s) | ((second >= self.gap_s[0]) & (second < self.gap_s[1]))
        return np.where(missing, 0, self.samples).astype(np.float32)


def record(
    path: Path,
    sounds: Sequence[Sound],
    codec: str = "flac",
    options: dict[str, str] | None = None,
    picture: bool = False,
) -> Path:
    "Encode tracks and, where wanted, a picture into one file."
    with av.open(str(path), "w", options=options or {}) as container:
        streams = [container.add_stream(codec, rate=one.rate_hz, layout=one.layout) for one in sounds]
        for stream, one in zip(streams, sounds):
            if codec == "aac": stream.bit_rate = 256_000
            if one.title: stream.metadata.update({"title": one.title, "handler_name": one.title})
        if picture:
            image = container.add_stream("libx264", rate=10, options={"bf": "0", "g": "20", "preset": "ultrafast"})
            image.width, image.height, image.pix_fmt = 64, 48, "yuv420p"
        waves = [one.at_rate() for one in sounds]
        for second in range(SECONDS):
            for number in range(10 * second, 10 * second + 10) if picture else ():
                frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), number % 256, np.uint8))
                frame.pts, frame.time_base = number, Fraction(1, 10)
                container.mux(image.encode(frame))
            for stream, one, wave in zip(streams, sounds, waves):
                if second < one.late_s or one.gap_s[0] <= second < one.gap_s[1]: continue
                part = wave[second * one.rate_hz:(second + 1) * one.rate_hz]
                samples = to_samples(part, stream.format.name, stream.layout.nb_channels)
                frame = av.AudioFrame.from_ndarray(samples, stream.format.name, one.layout)
                frame.sample_rate, frame.pts = one.rate_hz, second * one.rate_hz
                frame.time_base = Fraction(1, one.rate_hz)
                container.mux(stream.encode(frame))
        for stream in [*streams, *([image] if picture else [])]: container.mux(stream.encode(None))
    return path


def to_samples(wave: np.ndarray, kind: str, channels: int) -> np.ndarray:
    "A waveform on every channel, in the format of an encoder."
    many = np.tile(np.clip(wave, -1, 1).astype(np.float32), (channels, 1))
    if kind == "fltp": return many
    assert kind == "s16"
    return np.round(many.T.reshape(1, -1) * 32767).astype(np.int16)


def remux(source: Path, path: Path, options: dict[str, str] | None = None, only_track: int | None = None) -> Path:
    "The same packets in another container."
    with av.open(str(source)) as old, av.open(str(path), "w", options=options or {}) as new:
        keep = [*old.streams.video, *(old.streams.audio if only_track is None else [old.streams.audio[only_track]])]
        copies = {stream.index: new.add_stream_from_template(stream) for stream in keep}
        for packet in old.demux(keep):
            if packet.dts is None: continue
            packet.stream = copies[packet.stream_index]
            new.mux(packet)
    return path


@pytest.fixture(scope="module")
def plain(place) -> Path:
    "The recording that every other one is compared with: nothing resampled, nothing lost."
    write_recording(place/"plain.mkv", {"Mic": VOICE, "Game": GAME}, RATE_HZ)
    return place/"plain.mkv"


@pytest.fixture(scope="module")
def expected(plain, score) -> np.ndarray:
    "Its logits."
    return score(plain)


@pytest.fixture(scope="module")
def obs(place) -> Path:
    "As OBS writes: a picture and two AAC tracks."
    tracks = [Sound(VOICE, "Mic", layout="mono"), Sound(GAME, "Game", layout="mono")]
    return record(place/"obs.mkv", tracks, "aac", picture=True)


def picture_start_s(path: Path) -> float:
    "When the first frame is shown, of a recording whose picture and sound begin together."
    with av.open(str(path)) as container:
        return float(min(packet.pts * packet.time_base for packet in container.demux(video=0) if packet.pts is not None)
                     - Fraction(max(0, container.start_time), av.time_base))


def assert_same(found: np.ndarray, expected: np.ndarray, tolerance: float = CLOSE) -> None:
    "As many windows, and the same logits."
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_the_network_listens(expected, place, score):
    "The other tests rely on it: logits change by far more than `CLOSE` where tracks are swapped, silent or late."
    assert len(expected) == WINDOWS and np.ptp(expected) > 2 * CLOSE
    late = np.concatenate([np.zeros(RATE_HZ, np.float32), GAME[:-RATE_HZ]])
    silence = 0 * VOICE
    pairs = {"swapped": (GAME, VOICE), "no_voice": (silence, GAME), "no_game": (VOICE, silence), "late": (VOICE, late)}
    for name, pair in pairs.items():
        write_recording(place/f"{name}.mkv", {"Mic": pair[0], "Game": pair[1]}, RATE_HZ)
        warned = "no sound in the track" if name.startswith("no_") else None
        found = score(place/f"{name}.mkv", warned=warned)
        assert np.abs(found - expected).max() > (2 if name == "late" else 3) * CLOSE, name


@pytest.mark.parametrize(("ending", "options"), [
    ("mkv", None), ("mp4", {"movflags": "faststart"}), ("mp4", {"movflags": "frag_keyframe+empty_moov"}),
    ("mp4", {"movflags": "hybrid_fragmented"}),
    ("mov", None), ("ts", None), ("ts", {"output_ts_offset": "1.4"}), ("flv", None)],
    ids=lambda value: value if isinstance(value, str) else "+".join((value or {"": "plain"}).values()))
def test_containers(ending, options, obs, place, score, expected):
    "The container makes no difference, except that some start picture and sound a moment later."
    path = remux(obs, place/f"box{'_'.join(re.findall('[a-z]+', str(options)))}.{ending}", options)
    shown_later = np.zeros(round(picture_start_s(path) * RATE_HZ), np.float32)
    assert len(shown_later) < 0.03 * RATE_HZ
    later = {"Mic": np.concatenate([shown_later, VOICE]), "Game": np.concatenate([shown_later, GAME])}
    write_recording(place/"later.mkv", later, RATE_HZ)
    found, same = score(path, warned=UNTITLED), score(place/"later.mkv")
    assert_same(found[:WINDOWS], same[:WINDOWS])
    assert len(found) - len(expected) in (0, 1)  # the padding of the last packet


def test_two_tracks_in_flv_are_published(obs, place, checkpoint):
    "Both are in each clip."
    two = remux(obs, place/"two.flv")
    detect(checkpoint, two, "--top", 2, "--max-length", 5, out=place/"two", warned=UNTITLED)
    assert call("publish", place/"two", "--clips", "--timeline", "--report")[0] == 0
    clips = list((place/"two"/"two"/"clips").iterdir())
    assert len(clips) == 2 and all(np.abs(read_audio(clip, (0, 1))).mean(axis=1).min() > 1e-3 for clip in clips)


def test_half_of_a_transport_stream(obs, place, checkpoint):
    "It promises no length, so it is a shorter recording, and its length is printed."
    (place/"half.ts").write_bytes((whole := remux(obs, place/"full.ts").read_bytes())[:len(whole) * 6 // 10])
    printed = detect(checkpoint, place/"half.ts", out=place/"half", warned=UNTITLED)
    assert re.search(r"half\.ts: \d+ highlights? in 0:(1[789]|2\d),", printed)
    assert 2 <= len(logits_of(place/"half")) < WINDOWS


def test_flv_with_one_track(obs, place, score, checkpoint):
    "A single mixed track serves as voice and game; one warning says what would be better, and `none` hides it."
    flv = remux(obs, place/"stream.flv", only_track=1)
    code, _, warning = call("detect", "--model", checkpoint, flv, "-o", place/"flv", "--device", "cpu", "--window", 15)
    assert code == 0 and "\n" not in warning, warning
    assert all(way in warning for way in ("less reliably", "--separate demucs", "--separate none", "OBS"))
    record = json.loads((place/"flv"/"stream"/"highlights.json").read_text())
    assert record["voice"] == record["game"]
    later = np.concatenate([np.zeros(round(picture_start_s(flv) * RATE_HZ), np.float32), read_audio(obs, (1,))[0]])
    write_recording(place/"mix.mkv", {"Mic": later, "Game": later}, RATE_HZ)
    found, same = score(flv, "--separate", "none"), score(place/"mix.mkv", warned="the same sound")
    assert_same(found[1:], same[1:])  # before the first sound, the encoder's run-up is not quite silent


SOUNDS = {
    "44.1 kHz, mono": [Sound(VOICE, "Mic", 44_100, "mono"), Sound(GAME, "Game", 44_100, "mono")],
    "different rates and layouts": [Sound(VOICE, "Mic", 48_000, "mono"), Sound(GAME, "Game", 44_100, "5.1")],
    "late": [Sound(VOICE, "Mic"), Sound(GAME, "Game", late_s=1)],
    "later than a block": [Sound(VOICE, "Mic", late_s=12), Sound(GAME, "Game")],
    "gap": [Sound(VOICE, "Mic", gap_s=(15, 17)), Sound(GAME, "Game")],
    "shorter": [Sound(VOICE, "Mic"), Sound(GAME, "Game", gap_s=(21, SECONDS))],
}


@pytest.mark.parametrize("case", SOUNDS)
def test_tracks_of_all_kinds(case, place, score):
    "What is not recorded is silence, at the time a player shows."
    sounds, name = SOUNDS[case], re.sub(r"\W", "_", case)
    write_recording(place/f"ref_{name}.mkv", dict(zip(("Mic", "Game"), (one.silenced() for one in sounds))), RATE_HZ)
    assert_same(score(record(place/f"{name}.mkv", sounds)), score(place/f"ref_{name}.mkv"))


def test_tracks_are_picked(place, score, checkpoint, expected):
    "By number, by title, by a guess that is printed, from two files."
    titled = {"Alpha": GAME, "Beta": 0 * GAME, "Gamma": VOICE}
    three = record(place/"three.mkv", [Sound(samples, title, RATE_HZ, "mono") for title, samples in titled.items()])
    for voice, game in (("a:2", "a:0"), ("gamma", "Alpha"), ("2", "alp")):
        assert_same(score(three, "--mic", voice, "--game", game), expected, 0.01)
    printed = detect(checkpoint, three, out=place/"guess", warned=UNTITLED)
    assert "voice: three.mkv a:0 'Alpha'" in printed and "a guess by the usual order" in printed
    assert np.abs(logits_of(place/"guess") - expected).max() > 3 * CLOSE
    write_recording(place/"mic.mka", {"Track": VOICE}, RATE_HZ)
    write_recording(place/"game.mka", {"Track": GAME}, RATE_HZ)
    assert_same(score("--mic", place/"mic.mka", "--game", place/"game.mka"), expected, 0.01)
    assert_same(score(three, "--mic", place/"mic.mka", "--game", "Alpha"), expected, 0.01)


def test_silence(place, score):
    "Finite scores, all alike."
    write_recording(place/"silence.mkv", {"Mic": 0 * VOICE, "Game": 0 * GAME}, RATE_HZ)
    found = score(place/"silence.mkv", warned="no sound in the track")
    assert np.isfinite(found).all() and np.ptp(found) < 1e-3 and len(found) == WINDOWS


def test_weights_as_published(plain, place):
    "They have no threshold: the best ten, or fewer where there are no more."
    golden = torch.load(Path(__file__).parents[1]/"data"/"tiny_crnn.pt", weights_only=True)
    for dialect in ("published", "notebook"):
        torch.save(golden[dialect], place/f"{dialect}.pt")
        printed = detect(place/f"{dialect}.pt", plain, "--max-length", 4, "--merge", 0, out=place/dialect)
        assert "no threshold in this checkpoint, so the best 10 are taken" in printed and "no calibration" in printed
        record = json.loads((place/dialect/"plain"/"highlights.json").read_text())
        settings = record["settings"]
        assert (settings["top"], settings["threshold"], record["checkpoint"]["dialect"]) == (10, None, dialect)
        table = pd.read_csv(place/dialect/"plain"/"highlights.csv")
        assert 1 <= len(table) <= 10 and len(table) == len(record["highlights"])
        assert table.probability.is_monotonic_decreasing
    assert logits_of(place/"published") == pytest.approx(logits_of(place/"notebook"), abs=1e-5)


def test_taught_steps(plain, checkpoint, place):
    "Windows overlap by half, and a highlight is as probable as its steps on average."
    torch.save(torch.load(checkpoint, weights_only=True) | {"steps_taught": True}, place/"taught.pt")
    detect(place/"taught.pt", plain, "--top", 3, "--max-length", 10, out=place/"taught")
    assert len(logits_of(place/"taught")) == 4  # of 15 s, one every 7.5 s
    scores = read_scores(place/"taught"/"plain"/"scores.csv")
    record = read_detection(place/"taught"/"plain")
    assert scores.steps_taught and record.checkpoint.steps_taught and len(record.highlights) == 3
    for one in record.highlights:
        assert one.probability == pytest.approx(scores.mean_between(one.start_s, one.end_s), abs=1e-3)
        assert one.window.start_s <= one.start_s and one.end_s <= one.window.end_s


# Several at once

@pytest.fixture(scope="module")
def folder_of_many(place, obs, plain) -> Path:
    "Three recordings, one of them cut off, among bad ones."
    many = place/"many"
    (many/"deeper").mkdir(parents=True)
    shutil.copy(plain, many/"first.mkv")
    shutil.copy(obs, many/"deeper"/"second.mkv")
    whole = remux(obs, place/"whole.mp4").read_bytes()
    (many/"torn.mp4").write_bytes(whole[:len(whole) // 2])                     # its index is at the end
    (many/"cut.mkv").write_bytes(obs.read_bytes()[:obs.stat().st_size * 2 // 3])  # its length is at the beginning
    key, kid = "00112233445566778899aabbccddeeff", "0123456789abcdef0123456789abcdef"
    encryption = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": key, "encryption_kid": kid}
    remux(obs, many/"locked.mp4", encryption)
    write_recording(many/"short.mkv", {"Mic": VOICE[:RATE_HZ], "Game": GAME[:RATE_HZ]}, RATE_HZ)
    with av.open(str(many/"mute.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(20):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), number, np.uint8))))
        container.mux(stream.encode(None))
    return many


def test_a_folder_with_bad_ones(folder_of_many, checkpoint, place):
    "Bad recordings are named, the others continue. A second call scores nothing, another threshold only chooses anew."
    command = ["detect", "--model", checkpoint, folder_of_many, "-o", place/"batch", "--window", 15, "--device", "cpu"]
    code, printed, complaint = call(*command)
    assert code == 2 and "4 of 7 recordings failed" in complaint
    failed = [line for line in printed.splitlines() if line.startswith("failed: ")]
    assert re.search(r"cut\.mkv: found 21\.\d s, expected the 32\.0 s that its header promises", complaint)
    reasons = {
        "torn": "repair it with untrunc", "locked": "encrypted", "short": "shorter --window", "mute": "no audio track"}
    for name, reason in reasons.items():
        line, = (line for line in failed if f"{name}.m" in line)
        assert reason in line, line
    assert len(failed) == 4
    good = {path.parent.name for path in (place/"batch").rglob("highlights.json")}
    assert good == {"first", "second", "cut"}
    assert {path.parent.name for path in (place/"batch").rglob("scores.csv")} == good
    def written() -> list: return [(path, path.stat().st_mtime_ns) for path in (place/"batch").rglob("*.*")]
    times = written()
    assert call(*command)[0] == 2 and times == written()
    assert call(*command, "--threshold", 0)[0] == 2
    changed = {path.name for path, time in times if path.stat().st_mtime_ns != time}
    assert changed == {"highlights.json", "highlights.csv", "manifest.json"}


def test_all_that_failed_is_printed(brief, place, tmp_path):
    "Missing recordings too, before anything is scored."
    command = [*brief[0][:3], tmp_path/"nope1.mkv", tmp_path/"nope2.mkv", *brief[0][3:], tmp_path/"out"]
    code, printed, complaint = call(*command)
    assert code == 2 and "2 of 3 recordings failed" in complaint and (tmp_path/"out"/"brief"/"highlights.json").exists()
    failed = [line for line in printed.splitlines() if line.startswith("failed: ")]
    assert len(failed) == 2 and "nope1" in failed[0] and "nope2" in failed[1]
    both = call(*command[:5], *brief[0][4:], tmp_path/"none")[2]
    assert f"2 of 2 recordings failed; the first: {tmp_path/'nope1.mkv'}: found" in both


def test_the_next_command_is_named(checkpoint, brief, place, tmp_path):
    "It is `publish`, unless there is nothing to publish."
    options = "--window", 8, "--device", "cpu", "-o", tmp_path
    for threshold, found in (0, True), (0.9999, False):
        code, printed, _ = call("detect", "--model", checkpoint, place/"brief.mkv", *options, "--threshold", threshold)
        assert code == 0 and ("brief.mkv: 0 highlights" not in printed) == found
        assert (f"next: highlight-sense publish {tmp_path}" in printed) == found


def test_another_recording_of_that_name(brief, place, tmp_path):
    "It does not replace the first without --force. The first is recognised after it was moved."
    for folder in ("A", "B"): (tmp_path/folder).mkdir()
    shutil.copy(place/"brief.mkv", tmp_path/"A"/"brief.mkv")
    write_recording(tmp_path/"B"/"brief.mkv", {"Mic": GAME[:20 * RATE_HZ], "Game": VOICE[:20 * RATE_HZ]}, RATE_HZ)
    command = lambda folder: [*brief[0][:3], tmp_path/folder/"brief.mkv", *brief[0][4:], tmp_path/"out"]
    assert call(*command("A"))[0] == 0
    first = products_in(tmp_path/"out")
    message = refused(*command("B"))
    assert all(str(tmp_path/folder/"brief.mkv") in message for folder in "AB") and "--force" in message
    assert products_in(tmp_path/"out") == first
    (tmp_path/"C").mkdir()
    (tmp_path/"A"/"brief.mkv").rename(tmp_path/"C"/"brief.mkv")
    assert call(*command("C"))[0] == 0 and products_in(tmp_path/"out")["scores.csv"] == first["scores.csv"]
    assert call(*command("B"), "--force")[0] == 0 and products_in(tmp_path/"out")["scores.csv"] != first["scores.csv"]


def test_results_among_the_recordings(brief, place, tmp_path):
    "Clips of an earlier call are skipped, the user's own folders next to them are not."
    shutil.copy(place/"brief.mkv", tmp_path/"a.mkv")
    command = [*brief[0][:3], tmp_path, *brief[0][4:], tmp_path]
    assert call(*command)[0] == 0 and call("publish", tmp_path, "--clips")[0] == 0
    (tmp_path/"day1").mkdir()
    shutil.copy(place/"brief.mkv", tmp_path/"day1"/"b.mkv")
    code, printed, _ = call(*command)
    assert code == 0 and f"skipped: {tmp_path/'a'}: 3 media files" in printed
    assert {path.parent.name for path in tmp_path.rglob("highlights.json")} == {"a", "b"}


# What ends a run

@pytest.fixture(scope="module")
def brief(place, checkpoint) -> tuple[list[str], dict[str, bytes]]:
    "A command for a short recording, without its output folder, and the files that it writes."
    write_recording(place/"brief.mkv", {"Mic": VOICE[:20 * RATE_HZ], "Game": GAME[:20 * RATE_HZ]}, RATE_HZ)
    options = "--window", 8, "--top", 3, "--max-length", 4, "--device", "cpu", "-o"
    command = [str(part) for part in ("detect", "--model", checkpoint, place/"brief.mkv", *options)]
    assert call(*command, place/"unharmed")[0] == 0
    return command, products_in(place/"unharmed")


def products_in(out: Path) -> dict[str, bytes]:
    "The files of the short recording's detection."
    return {name: (out/"brief"/name).read_bytes() for name in PRODUCTS}


@pytest.fixture(scope="module")
def ended(brief, place, times) -> dict[str, list[int]]:
    "Exit codes of calls that were killed or ran out of room; their output is in folders of these names and numbers."
    moments = np.random.default_rng(3).uniform(0.05, 0.95, times * 6).round(3).tolist()
    return launch('''
import resource
import torch
import highlight_sense.recordings
from highlight_sense.audio import log_mel
log_mel(torch.zeros(22050))  # takes seconds the first time
command, out, moments, limits = json.loads(sys.argv[1])
def tighten(limit):
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
run = lambda name, n, *prepare: start(command + [f"{out}/{name}{n}"], *prepare)
began = time.monotonic()
ended = {"whole": [status(run("whole", 0))], "moment": [], "file": [], "limit": []}
whole_s = time.monotonic() - began
for n, moment in enumerate(moments): ended["moment"].append(kill_after(run("moment", n), moment * whole_s))
while 0 not in ended["file"]:
    n = len(ended["file"])
    ended["file"].append(status(run("file", n, lambda: die_at(n + 1))))
ended["limit"] = [status(run("limit", limit, lambda: tighten(limit))) for limit in limits]
print(json.dumps(ended))
''', brief[0], place/"ended", moments, LIMITS_BYTES, timeout_s=times * 600)


LIMITS_BYTES = [2000, 100]


@pytest.mark.long
@needs_fork
@pytest.mark.parametrize("how", ["moment", "file"])
def test_killed_at_any_moment(how, brief, ended, place):
    "By `kill -9`, at six random moments and before each rename: the same call leaves the usual files."
    command, unharmed = brief
    assert ended["whole"] == [0] and products_in(place/"ended"/"whole0") == unharmed
    assert ended[how].count(-9) >= 3 and set(ended[how]) <= {-9, 0}
    if how == "file": assert len(ended[how]) > 6 and ended[how].index(0) == len(ended[how]) - 1
    for n in range(len(ended[how])):
        out = place/"ended"/f"{how}{n}"
        assert call(*command, out)[0] == 0
        assert products_in(out) == unharmed, out.name
        assert {path.name for path in (out/"brief").iterdir()} == {*PRODUCTS, "manifest.json"}, out.name


@needs_fork
def test_file_too_large(brief, ended, place):
    "Where files may not exceed some size, there is no traceback and nothing half written."
    command, unharmed = brief
    assert ended["limit"] == [2] * len(LIMITS_BYTES)
    for limit in LIMITS_BYTES:
        out = place/"ended"/f"limit{limit}"
        assert not [path for path in out.rglob("*") if path.name in PRODUCTS or ".part" in path.name]
        assert call(*command, out)[0] == 0 and products_in(out) == unharmed


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS])
def test_disk_full_at_any_file(number, brief, place, tmp_path, monkeypatch):
    "One line, earlier files stay whole, and with room again the same call finishes."
    command, unharmed = brief
    sync, left = os.fsync, [0]

    def fails(handle: int) -> None:
        left[0] -= 1
        if left[0] == 0: raise OSError(number, os.strerror(number))
        sync(handle)

    monkeypatch.setattr(os, "fsync", fails)
    fewer = ["1" if word == "3" else word for word in command]  # of --top
    for n in range(1, 100):
        left[0] = n if number == errno.ENOSPC else 2 * n
        out = tmp_path/str(n)
        shutil.copytree(place/"unharmed", out)
        code, _, complaint = call(*fewer, out)
        if not code: break
        assert code == 2 and complaint.startswith(f"highlight-sense: {out/'brief'}")
        assert "\n" not in complaint and os.strerror(number) in complaint
        found = products_in(out)
        assert found["scores.csv"] == unharmed["scores.csv"] and json.loads(found["highlights.json"])
        assert not list(out.rglob("*.part*"))
        if n % 3 == 1: assert call(*command, out)[0] == 0 and products_in(out) == unharmed
    assert n > 2 and len(pd.read_csv(out/"brief"/"highlights.csv")) == 1


# Bad usage

@pytest.mark.parametrize(("arguments", "words"), [
    (["{place}/many/mute.mkv"], "no audio track"),
    (["{place}/plain.mkv", "--mic", "a:7"], "a:1 (Game)"),
    (["{place}/plain.mkv", "--game", "Discord"], "a:1 (Game)"),
    (["{place}/plain.mkv", "--mic", "a:0", "--game", "a:0"], "which name the same track"),
    (["{place}/plain.mkv", "--mic", "0", "--game", "Mic"], "--separate none"),
    (["{place}/plain.mkv", "--separate", "demucs"], "name it"),
    (["{place}/plain.mkv", "--separate", "magic"], "magic"),
    (["{place}/plain.mkv", "--window", "61"], "60.0 s"),
    (["{place}/plain.mkv", "--window", "40"], "shorter --window"),
    (["{place}/plain.mkv", "--window", "0.1"], "at least"),
    (["{place}/plain.mkv", "--window", "5", "--stride", "6"], "at most the 5 s of a window"),
    (["{place}/plain.mkv", "{place}/obs.mkv", "--mic", "{place}/mic.mka", "--game", "{place}/mic.mka"], "2 recordings"),
    (["{place}/plain.mkv", "--threshold", "2"], "from 0 to 1"),
    (["{place}/plain.mkv", "--top", "0"], "above 0"),
    (["{place}/plain.mkv", "--min-length", "9", "--max-length", "5"], "at most"),
    (["{place}/plain.mkv", "--top", "many"], "many"),
    (["{place}/nothing.mkv"], "found no such file or folder"),
    (["{place}/best.pt"], "--model names the model"),
    ([], "--mic and --game"),
    (["--mic", "{place}/mic.mka"], "--mic and --game"),
    (["{place}/empty"], "no media file"),
    (["ftp://example.org/stream.mkv"], "found no such file or folder"),
], ids=lambda value: " ".join(value).replace("{place}/", "") if isinstance(value, list) else "")
def test_bad_usage(arguments, words, checkpoint, plain, folder_of_many, place, tmp_path):
    "One line says what to do, and nothing is written."
    (place/"empty").mkdir(exist_ok=True)
    if not (place/"mic.mka").exists(): write_recording(place/"mic.mka", {"Track": VOICE}, RATE_HZ)
    words_of = [argument.format(place=place) for argument in arguments]
    message = refused("detect", "--model", checkpoint, *words_of, "-o", tmp_path/"out", "--device", "cpu")
    assert words in message, message
    assert not [path for path in (tmp_path/"out").rglob("*") if path.is_file()]


def test_bad_checkpoint_or_folder(checkpoint, plain, place, tmp_path):
    "The recording as a checkpoint, a file as the output folder, several recordings of one name."
    assert "checkpoint" in refused("detect", "--model", plain, plain, "-o", tmp_path/"out")
    (tmp_path/"file").write_text("mine")
    assert "found a file" in refused("detect", "--model", checkpoint, plain, "-o", tmp_path/"file")
    assert (tmp_path/"file").read_text() == "mine"
    (tmp_path/"other").mkdir()
    shutil.copy(plain, tmp_path/"other"/"plain.mkv")
    twins = plain, tmp_path/"other", "-o", tmp_path/"out"
    assert "2 recordings of that name" in refused("detect", "--model", checkpoint, *twins)


@pytest.mark.parametrize("name", [*PRODUCTS, "manifest.json"])
def test_foreign_files(name, brief, place, tmp_path):
    "They stay, and nothing is written next to them. `--force` replaces those in the way and no others."
    command, unharmed = brief
    (tmp_path/"brief").mkdir()
    (tmp_path/"brief"/"notes.txt").write_text("my notes")
    assert all(word in refused(*command, tmp_path) for word in ("notes.txt", "--force", str(tmp_path/"brief")))
    (tmp_path/"brief"/name).write_text("mine")
    assert "--force" in refused(*command, tmp_path)
    contents = {path.name: path.read_text() for path in (tmp_path/"brief").iterdir()}
    assert contents == {name: "mine", "notes.txt": "my notes"}
    assert call(*command, tmp_path, "--force")[0] == 0 and products_in(tmp_path) == unharmed
    assert (tmp_path/"brief"/"notes.txt").read_text() == "my notes"
    (tmp_path/"brief"/"highlights.json").write_text("edited by hand")
    assert "changed" in refused(*command, tmp_path, "--threshold", 0)
    assert (tmp_path/"brief"/"highlights.json").read_text() == "edited by hand"


# Downloads and mixes

class Quiet(SimpleHTTPRequestHandler):
    "Serves a folder and remembers the requests."
    asked: list[str]

    def log_message(self, *_) -> None: pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        with contextlib.suppress(ConnectionError): super().do_GET()  # a client that only probes hangs up early


@pytest.fixture
def web(place, monkeypatch) -> Iterator[tuple[str, list[str]]]:
    "The address of a server for the folder of recordings, and the paths that were requested."
    for name in ("NO_PROXY", "no_proxy"): monkeypatch.setenv(name, "127.0.0.1")
    handler = type("Handler", (Quiet,), {"asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(place)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", handler.asked
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(find_spec("yt_dlp") is None, reason='yt-dlp is not installed: pip install "yt-dlp[default]"')
def test_address(web, plain, checkpoint, place, expected):
    "A recording is downloaded once, into the output folder. A bad address is reported, the others continue."
    url, asked = web
    detect(checkpoint, f"{url}/plain.mkv", out=place/"web")
    downloaded, = (place/"web"/"downloads").iterdir()
    assert downloaded.read_bytes() == plain.read_bytes() and "/plain.mkv" in asked
    assert_same(logits_of(place/"web"), expected, 0)
    times, asked[:] = [path.stat().st_mtime_ns for path in sorted((place/"web").rglob("*"))], []
    detect(checkpoint, f"{url}/plain.mkv", out=place/"web")
    assert not asked and times == [path.stat().st_mtime_ns for path in sorted((place/"web").rglob("*"))]
    options = "-o", place/"web2", "--window", 15, "--device", "cpu"
    code, _, complaint = call("detect", "--model", checkpoint, f"{url}/missing.mkv", plain, *options)
    assert code == 2 and "1 of 2 recordings failed" in complaint and (place/"web2"/"plain"/"highlights.json").exists()
    assert "404" in refused("detect", "--model", checkpoint, f"{url}/missing.mkv", "-o", place/"web3")


def test_demucs_is_missing(checkpoint, place, monkeypatch):
    "One line says what to install."
    write_recording(place/"mixed.mkv", {"Stream": VOICE[:12 * RATE_HZ] + GAME[:12 * RATE_HZ]}, RATE_HZ)
    for name in ("demucs", "demucs.pretrained"): monkeypatch.setitem(sys.modules, name, None)
    message = refused("detect", "-m", checkpoint, place/"mixed.mkv", "--separate", "demucs", "-o", place/"no_demucs")
    assert "pip install demucs" in message
    assert not [path for path in (place/"no_demucs").rglob("*") if path.name in PRODUCTS or ".part" in path.name]


def test_demucs_takes_a_mix_apart(checkpoint, place, monkeypatch):
    "A random network of its class separates once; the parts add up to the mix and are scored, the mix is cut."
    htdemucs = pytest.importorskip("demucs.htdemucs")
    torch.manual_seed(0)
    sources, size = ["drums", "bass", "other", "vocals"], {"channels": 8, "depth": 3, "bottom_channels": 16}
    network = htdemucs.HTDemucs(sources, t_layers=1, t_heads=2, segment=2, nfft=1024, **size)
    monkeypatch.setattr(separation, "_load_separator", lambda: network)
    write_recording(place/"mixed.mkv", {"Stream": 0.5 * (VOICE[:12 * RATE_HZ] + GAME[:12 * RATE_HZ])}, RATE_HZ)
    command = [place/"mixed.mkv", "--separate", "demucs", "--top", 2]
    assert "separated by Demucs" in detect(checkpoint, *command, out=place/"apart", window_s=8)
    folder = place/"apart"/"mixed"
    parts = tracks.read_pair(separation.separated_pair(folder/"separated.mka"), 44_100)
    whole = tracks.read_pair(tracks.choose_pair(place/"mixed.mkv", separate="none"), 44_100)
    voice, game = np.concatenate(list(parts), axis=1)
    mix = np.concatenate(list(whole), axis=1)[0]
    np.testing.assert_allclose(voice + game, mix[:len(voice)], atol=2e-3)
    assert np.abs(voice).mean() > 1e-4 and abs(len(voice) - len(mix)) < 44
    record = json.loads((folder/"highlights.json").read_text())
    assert [Path(path).name for path in record["recording"]["files"]] == ["mixed.mkv"]
    assert Path(record["game"]["path"]).name == "separated.mka"
    times = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    monkeypatch.setattr(separation, "_load_separator", lambda: pytest.fail("separated again"))
    detect(checkpoint, *command, out=place/"apart", window_s=8)
    assert times == {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert call("publish", place/"apart", "--clips", "--report")[0] == 0
    assert len(list((folder/"clips").iterdir())) == len(record["highlights"]) > 0
