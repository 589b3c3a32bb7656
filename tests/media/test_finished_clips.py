"Finished clips are found in the recording that they were cut from, whatever an editor did, and in no other."
from pathlib import Path

import numpy as np
import pytest
import torch

from highlight_sense.audio import log_mel
from highlight_sense.locate import Located, locate_clips
from highlight_sense.media import write_recording
from highlight_sense.sessions import synthetic_session
from highlight_sense.stored_recordings import store_recording

RATE_HZ = 22_050
START_S, END_S = 20.0, 31.0


def with_song(seed: int, song: np.ndarray) -> np.ndarray:  # (2, samples)
    "Make a minute of voice and game, with the same song in every evening."
    session = synthetic_session(seed, minutes=1)
    return np.stack([session.voice, session.game + song]).astype(np.float32)


def between(tracks: np.ndarray, start_s: float = START_S, end_s: float = END_S) -> np.ndarray:
    "Cut from two tracks."
    return tracks[:, round(start_s * RATE_HZ):round(end_s * RATE_HZ)]


@pytest.fixture(scope="module")
def evenings() -> list[np.ndarray]:
    "Make two evenings."
    rng = np.random.default_rng(0)
    notes = np.repeat(rng.choice(220 * 2 ** (np.arange(13) / 12), 300), RATE_HZ // 5)
    phase = np.cumsum(2 * np.pi * notes / RATE_HZ)
    decay = np.tile(np.exp(-np.arange(RATE_HZ // 5) / 1500), 300)  # a note has an attack
    song = 0.05 * decay * sum(np.sin(k * phase) for k in range(1, 16))
    return [with_song(seed, song) for seed in (3, 4)]


@pytest.fixture(scope="module")
def stored(evenings: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    "Store their log-mels; the recordings themselves are gone."
    place = tmp_path_factory.mktemp("evenings")
    for number, tracks in enumerate(evenings):
        store_recording([log_mel(torch.from_numpy(tracks))], place/f"{number}.pt", f"{number}.mkv", ())
    return [place/f"{number}.pt" for number in range(len(evenings))]


def located(folder: Path, stored: list[Path], codec: str = "aac", **tracks: np.ndarray) -> Located:
    "Write a clip with these tracks, and locate it."
    write_recording(folder/"clip.mka", tracks, RATE_HZ, codec)
    found, = locate_clips([folder/"clip.mka"], stored)
    return found


def test_a_clip_with_both_tracks_in_another_codec(tmp_path, evenings, stored):
    "Opus is stored at 48 kHz."
    mic, game = between(evenings[1])
    found = located(tmp_path, stored, "libopus", mic=mic, game=game)
    assert found.recording == stored[1] and found.score > 0.9
    assert abs(found.start_s - START_S) < 0.05 and abs(found.end_s - END_S) < 0.1


def test_silence_around_the_clip(tmp_path, evenings, stored):
    "An editor's black frames are not part of the piece."
    silence = np.zeros(3 * RATE_HZ)
    found = located(tmp_path, stored, mix=np.concatenate([silence, between(evenings[0]).mean(axis=0), silence]))
    assert found.recording == stored[0]
    assert abs(found.start_s - START_S) < 0.6 and abs(found.end_s - END_S) < 0.6


def test_the_longest_of_several_cuts(tmp_path, evenings, stored):
    "A clip of two cuts is located where the longer one comes from."
    cuts = [between(evenings[0], 2, 7), between(evenings[0], 40, 52)]
    found = located(tmp_path, stored, mix=np.concatenate(cuts, axis=1).mean(axis=0))
    assert found.recording == stored[0]
    assert abs(found.start_s - 40) < 0.6 and abs(found.end_s - 52) < 0.1


def test_the_same_song_in_another_evening(tmp_path, evenings, stored):
    "Music that plays in two evenings at the same time does not confuse them."
    found = located(tmp_path, stored[:1], mix=between(evenings[1]).mean(axis=0))
    assert found == Located(tmp_path/"clip.mka")
    assert located(tmp_path, stored, mix=between(evenings[1]).mean(axis=0)).recording == stored[1]


def test_a_clip_that_cannot_be_located_spoils_no_other(tmp_path, evenings, stored, caplog):
    "A short clip and a file of another kind are named, and the rest is located."
    write_recording(tmp_path/"short.mka", {"mix": between(evenings[0], 10, 13).mean(axis=0)}, RATE_HZ)
    write_recording(tmp_path/"good.mka", {"mix": between(evenings[0]).mean(axis=0)}, RATE_HZ)
    (tmp_path/"notes.mp4").write_text("no clip")
    paths = [tmp_path/name for name in ("short.mka", "notes.mp4", "good.mka")]
    found = locate_clips(paths, stored)
    assert [each.clip for each in found] == paths
    assert [each.recording for each in found] == [None, None, stored[0]]
    assert "short.mka: found 3.0 s of sound, expected at least 5 s" in caplog.text and "notes.mp4" in caplog.text


def test_no_clips_or_no_recordings(tmp_path, evenings, stored):
    "Nothing is found in nothing."
    assert locate_clips([], stored) == []
    assert located(tmp_path, [], mix=between(evenings[0]).mean(axis=0)).recording is None


def test_a_silent_clip(tmp_path, evenings, stored):
    "A clip of digital silence has no peaks, and is found nowhere."
    assert located(tmp_path, stored, mix=np.zeros(8 * RATE_HZ)).recording is None
