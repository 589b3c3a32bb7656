"""Measure how often a finished clip is found in the recording that it was cut from, and in no other.

    python benchmarks/locate.py RECORDINGS --music MUSIC --clips 200

Clips of 6 to 40 s are cut at random and encoded as AAC at 96 kbit/s: a quarter keep their two tracks, a quarter are
mixed into one, and half, of both kinds, have a piece of music added, 12 dB below the clip. Each clip is searched for in
all recordings, then in the half of them without its own. `--stored` keeps the recordings' log-mels for another run.
"""
import argparse
import resource
import tempfile
import time
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from highlight_sense.audio import read_log_mel
from highlight_sense.labels import find_recordings
from highlight_sense.locate import Located, locate_clips
from highlight_sense.media import probe
from highlight_sense.sound import read_audio
from highlight_sense.stored_recordings import store_recording
from highlight_sense.tracks import choose_pair

MUSIC_DB = -12
TOLERANCE_S = 0.1


@dataclass(frozen=True)
class Cut:
    "A clip, and where it is from."
    clip: Path
    kind: str
    recording: Path
    start_s: float
    end_s: float


def write_aac(path: Path, tracks: np.ndarray, rate_hz: int) -> None:  # (tracks, samples)
    "Write an MP4 of AAC at 96 kbit/s: a single track as stereo, several as mono."
    layout = "stereo" if len(tracks) == 1 else "mono"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("aac", rate=rate_hz, layout=layout) for _ in tracks]
        for stream in streams: stream.bit_rate = 96_000
        for start in range(0, tracks.shape[1], rate_hz):
            for stream, samples in zip(streams, tracks[:, start:start + rate_hz]):
                channels = np.repeat(np.clip(samples, -1, 1)[None], 1 + (layout == "stereo"), axis=0)
                frame = av.AudioFrame.from_ndarray(channels.astype(np.float32), format="fltp", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = rate_hz, start, Fraction(1, rate_hz)
                container.mux(stream.encode(frame))
        for stream in streams: container.mux(stream.encode(None))


def with_music(sound: np.ndarray, music: Path, rate_hz: int, rng: np.random.Generator) -> np.ndarray:
    "Add music to each track of a clip."
    start_s = rng.uniform(0, max(0, probe(music).duration_s - 40))
    tune = np.resize(read_audio(music, (0,), rate_hz, start_s, start_s + 40)[0], sound.shape[1])
    levels = np.sqrt((sound**2).mean(axis=1, keepdims=True) / (tune**2).mean()) * 10 ** (MUSIC_DB / 20)
    return sound + tune * levels


def cut_clip(number: int, recordings: list[Path], music: list[Path], folder: Path, rng: np.random.Generator) -> Cut:
    "Cut a clip at random."
    kind = ("two tracks", "mixed", "two tracks, music", "mixed, music")[number % 4]
    recording = recordings[rng.integers(len(recordings))]
    rate_hz, length_s = int(rng.choice([44_100, 48_000])), rng.uniform(6, 40)
    start_s = rng.uniform(0, probe(recording).duration_s - length_s)
    sound = read_audio(recording, (0, 1), rate_hz, start_s, start_s + length_s)
    if "mixed" in kind: sound = sound.mean(axis=0, keepdims=True)
    if "music" in kind: sound = with_music(sound, music[rng.integers(len(music))], rate_hz, rng)
    path = folder/f"{number:03d}.mp4"
    write_aac(path, sound * rng.uniform(0.5, 1.2), rate_hz)
    return Cut(path, kind, recording, start_s, start_s + length_s)


def store(recordings: list[Path], folder: Path) -> dict[Path, Path]:
    "Store the log-mel of each recording, unless that was done before."
    folder.mkdir(parents=True, exist_ok=True)
    stored = {recording: folder/f"{recording.stem}.pt" for recording in recordings}
    for recording, path in stored.items():
        if not path.exists(): store_recording(read_log_mel(choose_pair(recording)), path, recording.name, ())
    return stored


def report(cuts: list[Cut], found: list[Located], stored: dict[Path, Path]) -> None:
    "Print how many clips of each kind were found."
    right = [each.recording == stored[cut.recording] for cut, each in zip(cuts, found)]
    errors_s = np.array([max(abs(each.start_s - cut.start_s), abs(each.end_s - cut.end_s)) if known else np.inf
                         for cut, each, known in zip(cuts, found, right)])
    for kind in dict.fromkeys(cut.kind for cut in cuts):
        of_kind = errors_s[[cut.kind == kind for cut in cuts]]
        print(f"{kind}: both ends within {TOLERANCE_S} s: {np.sum(of_kind <= TOLERANCE_S)} of {len(of_kind)}")
    starts_s = [abs(each.start_s - cut.start_s) for cut, each, known in zip(cuts, found, right) if known]
    close = np.mean(errors_s <= TOLERANCE_S)
    print(f"found {sum(right)} of {len(cuts)}, both ends within {TOLERANCE_S} s: {close:.1%}, "
          f"starts: {np.mean(np.array(starts_s) <= TOLERANCE_S) * np.mean(right):.1%}; "
          f"median error of a start {1000 * np.median(starts_s):.0f} ms")
    print(f"in a wrong recording: {sum(each.recording is not None for each in found) - sum(right)}; "
          f"lowest likeness {min([each.score for each, known in zip(found, right) if known]):.3f}")
    for cut, each, error_s in zip(cuts, found, errors_s):
        if error_s > TOLERANCE_S: print(f"  {cut.clip.name} {cut.kind} {cut.start_s:.2f} to {cut.end_s:.2f}: {each}")


def search_elsewhere(cuts: list[Cut], stored: dict[Path, Path]) -> None:
    "Search for each clip in the half of the recordings without its own."
    recordings = sorted(stored)
    halves, false = (set(recordings[::2]), set(recordings[1::2])), []
    for half in halves:
        clips = [cut.clip for cut in cuts if cut.recording not in half]
        false += [each for each in locate_clips(clips, [stored[path] for path in sorted(half)]) if each.recording]
    print(f"found although their recording is absent: {len(false)} of {len(cuts)}", *false, sep="\n  ")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recordings", type=Path, nargs="+")
    parser.add_argument("--music", type=Path, required=True, help="folder of music")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stored", type=Path, help="folder for the log-mels of the recordings")
    options = parser.parse_args()
    recordings, rng = find_recordings(options.recordings), np.random.default_rng(options.seed)
    music = sorted(path for path in options.music.iterdir() if path.is_file())
    with tempfile.TemporaryDirectory() as place:
        cuts = [cut_clip(k, recordings, music, Path(place), rng) for k in range(options.clips)]
        began, cpu = time.perf_counter(), time.process_time()
        stored = store(recordings, options.stored or Path(place)/"stored")
        print(f"log-mels: {time.perf_counter() - began:.0f} s, {time.process_time() - cpu:.0f} s of CPU")
        began, cpu = time.perf_counter(), time.process_time()
        found = locate_clips([cut.clip for cut in cuts], list(stored.values()))
        print(f"{len(cuts)} clips in {len(recordings)} recordings: {time.perf_counter() - began:.0f} s, "
              f"{time.process_time() - cpu:.0f} s of CPU, "
              f"peak {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
        report(cuts, found, stored)
        search_elsewhere(cuts, stored)


if __name__ == "__main__": main()
