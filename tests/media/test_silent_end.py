"Recordings whose picture or subtitles outlast their sound."
from fractions import Fraction

import av
import numpy as np
import torch
from running import printed

from highlight_sense.media import audio_frame

RATE_HZ, SOUND_S, PICTURE_S = 22_050, 40, 200


def write_outlasted(path):
    "Write two tracks of 40 s and a picture of 200 s: the end of the sound is well before the end of the file."
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, RATE_HZ).astype(np.float32)
    with av.open(str(path), "w") as container:
        image = container.add_stream("mpeg4", rate=Fraction(1))
        image.width, image.height, image.pix_fmt = 64, 48, "yuv420p"
        sounds = [container.add_stream("flac", rate=RATE_HZ, layout="mono") for _ in range(2)]
        for stream, title in zip(sounds, ("Mic/Aux", "Desktop Audio")): stream.metadata["title"] = title
        for second in range(PICTURE_S):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), second, np.uint8))
            frame.pts, frame.time_base = second, Fraction(1)
            container.mux(image.encode(frame))
            for stream in sounds if second < SOUND_S else ():
                container.mux(stream.encode(audio_frame(noise, second * RATE_HZ, RATE_HZ)))
        for stream in (image, *sounds): container.mux(stream.encode(None))
    return path


def test_prepare_cuts_only_where_there_is_sound(tmp_path):
    "Negatives come from the 40 s with sound (mbunkus/mkvtoolnix#1721, anthwlock/untrunc#153)."
    recording = write_outlasted(tmp_path/"monday.mkv")
    (tmp_path/"labels.csv").write_text("recording,start_s,end_s\nmonday,10,12\n")
    words = "prepare", recording, "--labels", tmp_path/"labels.csv", "-o", tmp_path/"clips"
    said = printed(*words, "--negative-s", 3, "--ratio", 4, code=0)
    assert "found sound until 0:39, expected it until 3:20" in said  # whole seconds
    clips = [torch.load(path, weights_only=True) for path in (tmp_path/"clips").rglob("*.pt")]
    assert sum(clip["label"] == "Negative" for clip in clips) == 4
    assert max(clip["end_s"] for clip in clips) < SOUND_S + 0.1
