"The demo's recordings look like a streamer's: a picture and two tracks."
from pathlib import Path

import av
import numpy as np

from highlight_sense.sessions import make_sessions, synthetic_session


def test_a_session_with_a_picture_keeps_its_sound(tmp_path: Path):
    "The picture is as long as the sound, and the sound is the same as without it."
    for name in ("heard", "seen"): make_sessions(tmp_path/name, 1, 0.2, seed=3, picture=name == "seen")
    sounds = []
    for name in ("heard", "seen"):
        path, = (tmp_path/name).rglob("*.mkv")
        with av.open(str(path)) as container:
            if name == "seen":
                frames = [frame.time for frame in container.decode(video=0)]
                assert len(frames) == 120 and frames[0] == 0 and frames[-1] == 11.9
                container.seek(0)
            sounds.append([frame.to_ndarray() for frame in container.decode(audio=1)])
    assert all(np.array_equal(one, other) for one, other in zip(*sounds, strict=True))


def test_variety_is_the_share_of_various_sessions():
    "At 0 every session is a simple one, at 1 none is, and the same arguments make the same sound."
    simple, still_simple, various, again = (synthetic_session(6, 0.1, 1, variety) for variety in (0.0, 1e-9, 1.0, 1.0))
    assert np.array_equal(simple.voice, synthetic_session(6, 0.1, 1).voice)
    assert np.array_equal(simple.game, still_simple.game) and not np.array_equal(simple.game, various.game)
    assert np.array_equal(various.voice, again.voice) and np.array_equal(various.game, again.game)
