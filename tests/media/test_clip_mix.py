"A clip begins with a mix of voice and game: what a player plays, where it lies, and how it is chosen."
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from noisy import RATE_HZ, SECONDS, Clip, detect, noise, write
from running import run

from highlight_sense.clips import copy_clip, exact_clip
from highlight_sense.media import probe
from highlight_sense.tracks import Pair, Track


@pytest.fixture(scope="module")
def voice_and_game(tmp_path_factory) -> Path:
    "A detection in a recording with two tracks."
    folder = tmp_path_factory.mktemp("two")
    return detect(folder, write(folder/"two.mkv", ("Mic", "Game"), (noise(0), noise(1))))


@pytest.fixture
def detected(voice_and_game, tmp_path) -> Path:
    return Path(shutil.copytree(voice_and_game, tmp_path/"two"))


def publish(folder: Path, *options: object) -> Clip:
    "Publish clips, and return the only one."
    code, _, complaint = run("publish", folder, "--clips", *options)
    assert code == 0, complaint
    clip, = (folder/"clips").iterdir()
    return Clip(clip)


@pytest.mark.parametrize("options", [(), ("--exact",)], ids=["copy", "exact"])
def test_the_default_track_is_a_mix(options, detected):
    "The first track is the default, holds voice and game at their levels, and is in sync with picture and tracks."
    clip = publish(detected, *options)
    assert clip.titles == ["Mix", "Mic", "Game"] and clip.default == [True, False, False]
    assert clip.kinds == ["video", "audio", "audio", "audio"]
    zero_s = clip.zero_s()
    for channel in 0, 1:
        for whole in noise(0), noise(1), noise(0) + noise(1):
            assert abs(clip.track_zero_s(0, whole, channel) - zero_s) < 0.0015
    for track in 0, 1: assert abs(clip.track_zero_s(track + 1, noise(track)) - zero_s) < 0.0015
    _, mixed = clip.sound(0)
    level = mixed[:, RATE_HZ // 2:-RATE_HZ // 2].std() / (noise(0) + noise(1)).std()
    assert 0.95 < level < 1.05
    if options: check_that_it_can_be_posted(clip)


def check_that_it_can_be_posted(clip: Clip) -> None:
    "Check that a clip is an MP4 with H.264 High in 4:2:0, AAC-LC in stereo, and the index in front."
    with av.open(str(clip.path)) as container:
        picture = container.streams.video[0]
        assert (picture.codec_context.name, picture.profile, picture.pix_fmt) == ("h264", "High", "yuv420p")
    data = clip.path.read_bytes()
    assert clip.coding[0] == ("aac", "LC", "stereo") and data.index(b"moov") < data.index(b"mdat")


def test_copies_stay_copies(detected, voice_and_game):
    "Picture and separate tracks of a copied clip have the packets of the recording; only the mix is encoded."
    clip = publish(detected)
    with av.open(str(voice_and_game.parents[1]/"two.mkv")) as container:
        packets = {(packet.stream_index, bytes(packet)) for packet in container.demux() if packet.size}
    with av.open(str(clip.path)) as container:
        copied = [(packet.stream_index, bytes(packet)) for packet in container.demux() if packet.size]
    there = {0: 0, 2: 1, 3: 2}  # stream of the clip: stream of the recording
    assert all((there[index], data) in packets for index, data in copied if index in there)
    assert {index for index, _ in copied} == {0, 1, 2, 3}


@pytest.mark.parametrize(("words", "titles"), [
    ("mix", ["Mix"]), ("all", ["Mic", "Game"]), ("game, voice", ["Game", "Mic"]), ("mix,a:1", ["Mix", "Game"])])
def test_tracks_are_chosen(words, titles, detected):
    "`--tracks` lists them in order, and the first is the default."
    clip = publish(detected, "--tracks", words)
    assert clip.titles == titles and clip.default == [True] + [False] * (len(titles) - 1)
    code, _, complaint = run("publish", detected, "--clips", "--tracks", "chat")
    assert code == 2 and "--tracks: found 'chat', expected mix, voice, game, all or a:0 to a:1" in complaint


def cut(stem: Path, *files: Path, voice: tuple[int, int], game: tuple[int, int], exact: bool = False) -> Clip:
    "Cut 2.5 s to 6.5 s with the usual tracks; voice and game are given as file and track."
    from highlight_sense.clip_tracks import DEFAULT_TRACKS, choose_sounds
    pair = Pair(*(Track(files[file], number) for file, number in (voice, game)), "as asked for")
    sounds = choose_sounds(DEFAULT_TRACKS, list(map(probe, files)), pair)
    return Clip((exact_clip if exact else copy_clip)(files, 2.5, 6.5, stem, sounds).path)


def test_loud_tracks_do_not_clip(tmp_path):
    "Where voice and game are loud together, the mix stays below full scale; elsewhere it has their level."
    times_s = np.arange(SECONDS * RATE_HZ) / RATE_HZ
    tone = np.sin(2 * np.pi * 440 * times_s).astype(np.float32)
    loud = np.where(times_s % 2 < 1, 0.95, 0.2).astype(np.float32) * tone
    path = write(tmp_path/"loud.mkv", ("Mic", "Game"), (loud, loud), picture=False)
    clip = cut(tmp_path/"clip", path, voice=(0, 0), game=(0, 1))
    (_, mixed), (_, voice) = clip.sound(0), clip.sound(1)
    size = min(mixed.shape[1], voice.shape[1]) // 4800 * 4800
    peaks, before = (np.abs(sound[0, :size]).reshape(-1, 4800).max(axis=1) for sound in (mixed, voice))
    assert mixed.max() <= 1 and 0.85 < np.quantile(peaks, 0.9) < 0.95
    quiet = (before > 0.18) & (before < 0.22)
    assert quiet.sum() > 5 and abs(np.median(peaks[quiet] / before[quiet]) - 2) < 0.05


@pytest.mark.parametrize("titles", [["Full Mix", "Mic/Aux", "Desktop Audio"], ["Track1", "Track2", "Track3"]])
def test_a_mix_that_was_recorded_is_used(titles, tmp_path):
    "A track that is the mix, by its title or by its sound, comes first, as a copy, and is not mixed again."
    sounds = noise(0) + noise(1), noise(0), noise(1)
    path = write(tmp_path/"obs.mkv", titles, sounds, picture=False)
    clip = cut(tmp_path/"clip", path, voice=(0, 1), game=(0, 2))
    assert clip.titles == titles and clip.default == [True, False, False]
    assert [layout for _, _, layout in clip.coding] == ["mono"] * 3


def test_one_mixed_track_needs_no_mix(tmp_path):
    path = write(tmp_path/"one.mkv", ("Sound",), (noise(0),), picture=False)
    clip = cut(tmp_path/"clip", path, voice=(0, 0), game=(0, 0))
    assert clip.titles == ["Sound"] and clip.default == [True]


def test_two_files(tmp_path):
    "Voice and game in files of their own: the clip has the picture of one, and a mix in sync with it."
    mic = write(tmp_path/"mic.wav", ("",), (noise(0),), picture=False, codec="pcm_s16le")
    game = write(tmp_path/"game.mkv", ("Game",), (noise(1),))
    for exact in False, True:
        clip = cut(tmp_path/"clip", mic, game, voice=(0, 0), game=(1, 0), exact=exact)
        assert clip.kinds == ["video"] + ["audio"] * 3 and clip.titles[0] == "Mix" and clip.default[0]
        for whole in noise(0), noise(1): assert abs(clip.track_zero_s(0, whole) - clip.zero_s()) < 0.0015


def test_rare_key_frames(tmp_path):
    "One warning says that copied clips are much longer than asked, and names the remedy."
    sounds = noise(0), noise(1)
    found = detect(tmp_path, write(tmp_path/"rare.mkv", ("Mic", "Game"), sounds, key_s=SECONDS))
    _, _, complaint = run("publish", found, "--clips")
    assert complaint.count("longer than asked") == 1 and "rare.mkv: found key frames so rare that 1 of 1" in complaint
    assert "cut them with --exact" in complaint
    _, _, complaint = run("publish", found, "--clips", "--exact")
    assert not complaint


def test_exact_is_no_choice_of_products(detected):
    "`--exact` alone makes all four kinds; where clips are not asked for, it says so."
    code, _, complaint = run("publish", detected, "--exact")
    assert code == 0, complaint
    assert {"clips", "timelines", "chapters", "report.html"} <= {path.name for path in detected.iterdir()}
    code, _, complaint = run("publish", detected, "--exact", "--chapters")
    assert code == 2 and "--exact: found chapters without clips" in complaint


def test_without_an_encoder(detected, monkeypatch):
    "A build of FFmpeg without x264 gives a line that says what to do, and copies can still be cut."
    monkeypatch.setattr(av, "codecs_available", av.codecs_available - {"libx264"})
    code, _, complaint = run("publish", detected, "--clips", "--exact")
    assert code == 2 and "found a build of FFmpeg without the encoder libx264" in complaint
    assert publish(detected).titles == ["Mix", "Mic", "Game"]


def test_a_track_that_has_ended(tmp_path):
    "Where a file has no sound in a clip, the mix has the sound of the other."
    short = write(tmp_path/"mic.mka", ("Mic",), (noise(0)[:RATE_HZ],), picture=False)
    game = write(tmp_path/"game.mkv", ("Game",), (noise(1),))
    clip = cut(tmp_path/"clip", short, game, voice=(0, 0), game=(1, 0))
    assert clip.titles == ["Mix", "Mic", "Game"] and abs(clip.track_zero_s(0, noise(1)) - clip.zero_s()) < 0.0015
    assert 0.95 < clip.sound(0)[1].std() / noise(1).std() < 1.05
