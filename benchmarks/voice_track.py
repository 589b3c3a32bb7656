"""How often the voice is recognised by its sound among two tracks without titles, and how sure that is.

    python benchmarks/voice_track.py RECORDINGS... --sessions 24

The first audio track of each recording holds the voice, the second the game. Each is tried as it is, and in harder
versions made from its excerpts: tracks that leak into each other, a hum or a keyboard on the microphone, a noise gate,
a voice in one excerpt of five, a game that is mostly silent. Scores do not depend on the order of tracks; `--swapped`
writes files without titles in both orders and checks that.
"""
import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd

from highlight_sense.excerpts import read_excerpts
from highlight_sense.labels import find_recordings
from highlight_sense.media import probe, write_recording
from highlight_sense.sessions import synthetic_session
from highlight_sense.sound import read_audio
from highlight_sense.speech import SPEECH_RATE_HZ, speech_score
from highlight_sense.track_guess import guess_tracks

Version = Callable[[np.ndarray, np.ndarray, np.random.Generator], tuple[np.ndarray, np.ndarray]]
SURE_ENOUGH = 0.75  # below it, the order decides


def rms(sound: np.ndarray) -> float:
    return float(np.sqrt(np.mean(sound**2)) + 1e-9)


def gain(db: float) -> float:
    return 10 ** (db / 20)


def as_it_is(voice: np.ndarray, game: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    return voice, game


def leaking(voice: np.ndarray, game: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    "Each track leaks into the other, at -25 to -8 dB and at -28 to -8 dB."
    into_voice, into_game = gain(rng.uniform(-25, -8)), gain(rng.uniform(-28, -8))
    return voice + game * rms(voice) / rms(game) * into_voice, game + voice * rms(game) / rms(voice) * into_game


def humming(voice: np.ndarray, game: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    "The mains hum on the microphone, 15 to 35 dB below the voice."
    time_s = np.arange(voice.size).reshape(voice.shape) / SPEECH_RATE_HZ
    hum = sum(np.sin(2 * np.pi * 50 * k * time_s) / k for k in (1, 2, 3, 4, 5, 6, 8, 10))
    return voice + hum * rms(voice) / rms(hum) * gain(rng.uniform(-35, -15)), game


def typing(voice: np.ndarray, game: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    "Two to eight strokes of a keyboard in a second."
    noisy = voice.ravel().copy()
    for at in rng.integers(0, noisy.size - 800, int(noisy.size / SPEECH_RATE_HZ * rng.uniform(2, 8))):
        decay = np.exp(-np.arange(800) / rng.uniform(50, 200))
        noisy[at:at + 800] += rng.standard_normal(800) * decay * gain(rng.uniform(-45, -22))
    return noisy.reshape(voice.shape), game


def gated(voice: np.ndarray, game: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    "A noise gate: silence wherever the voice is 30 dB below its loudest."
    frames = voice.reshape(-1, SPEECH_RATE_HZ // 50)
    levels_db = 10 * np.log10((frames**2).mean(axis=1) + 1e-12)
    is_open = np.convolve(levels_db > np.percentile(levels_db, 97) - 30, np.ones(10), "same") > 0
    return (frames * is_open[:, None]).reshape(voice.shape), game


def rare(voice: np.ndarray, game: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    "The streamer speaks in every fifth excerpt only."
    speaks = np.arange(len(voice)) % 5 == rng.integers(5)
    noise = rng.standard_normal(voice.shape) * gain(rng.uniform(-75, -55))
    return voice * speaks[:, None] + noise, game


def quiet_game(voice: np.ndarray, game: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    "The game is silent in seven of ten excerpts."
    return voice, game * (np.arange(len(game)) % 10 < 3)[:, None]


VERSIONS: list[Version] = [as_it_is, leaking, humming, typing, gated, rare, quiet_game]


def probability_of(voice: np.ndarray, game: np.ndarray) -> float:
    "The probability that the first of two tracks, (excerpts, samples) each, is the voice."
    return 1 / (1 + np.exp(speech_score(game) - speech_score(voice)))


def excerpts_of(path: Path) -> np.ndarray:  # (2, excerpts, samples)
    return np.stack(list(read_excerpts([(path, 0), (path, 1)])), axis=1)


def is_right_when_swapped(path: Path, place: Path) -> bool:
    "Whether the voice is recognised in a file without titles, before and behind the game (five minutes of it)."
    sound = read_audio(path, (0, 1), 22_050, 0, 300)
    for order in ((0, 1), (1, 0)):
        write_recording(place/"swapped.mka", {f"Track{k + 1}": sound[row] for k, row in enumerate(order)}, 22_050)
        if guess_tracks(probe(place/"swapped.mka"))[0].number != order.index(0): return False
    return True


def measure(name: str, source: str, excerpts: np.ndarray) -> list[dict]:
    "Try all versions of a recording."
    rng, rows = np.random.default_rng(sum(map(ord, name))), []
    for version in VERSIONS:
        voice, game = version(excerpts[0], excerpts[1], rng)
        rows.append({"source": source, "version": version.__name__, "p": probability_of(voice, game)})
    return rows


def report(rows: pd.DataFrame) -> None:
    "Print the accuracy, by source and version, and what a stated probability is worth."
    rows["stated"] = np.maximum(rows.p, 1 - rows.p)
    rows["right"], rows["sure"] = rows.p > 0.5, rows.stated >= SURE_ENOUGH
    rows["wrong and sure"] = rows.sure & ~rows.right
    for column in ("source", "version"):
        print(rows.groupby(column, sort=False).agg(
            {"p": ["size", "min", "median"], "right": "mean", "sure": "mean", "wrong and sure": "sum"}
        ).round(3).to_string())
    bins = pd.cut(rows.stated, [0.5, 0.75, 0.9, 0.97, 1.0], include_lowest=True)
    print(rows.groupby(bins, observed=True).agg({"right": ["size", "mean"], "stated": "mean"}).round(3).to_string())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recordings", nargs="*", type=Path, help="files or folders; a:0 is the voice, a:1 the game")
    parser.add_argument("--sessions", type=int, default=0, help="synthetic sessions to try as well")
    parser.add_argument("--swapped", action="store_true", help="also write both orders to files, and guess from them")
    options = parser.parse_args()
    rows, wrong = [], []
    with tempfile.TemporaryDirectory() as folder:
        for place in options.recordings:
            for path in find_recordings(place):
                rows += measure(path.stem, str(place), excerpts_of(path))
                if options.swapped and not is_right_when_swapped(path, Path(folder)): wrong.append(path.name)
        for number in range(options.sessions):
            session = synthetic_session(100 + number, 2.0, number)
            path = Path(folder)/"session.mka"
            write_recording(path, {"Voice": session.voice, "Game": session.game}, session.rate_hz)
            rows += measure(session.name, "synthetic sessions", excerpts_of(path))
    report(pd.DataFrame(rows))
    if options.swapped: print(f"wrong in a file, before or behind the game: {', '.join(wrong) or 'none'}")


if __name__ == "__main__": main()
