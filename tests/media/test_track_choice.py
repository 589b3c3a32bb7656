"""Which track is the voice: titles in many languages, speech by its sound, mixes, silence and copies."""
import logging
import re
from pathlib import Path

import av
import numpy as np
import pytest
from running import printed

from highlight_sense import tracks
from highlight_sense.files import InputError
from highlight_sense.media import probe, write_recording
from highlight_sense.sound import read_audio
from highlight_sense.synth import GAME_STYLES, SYNTH_RATE_HZ, Levels, game_track, voice_track

RATE_HZ = SYNTH_RATE_HZ
SECONDS = 12


@pytest.fixture(scope="module")
def sounds() -> tuple[np.ndarray, np.ndarray]:
    "A synthetic voice and a synthetic game."
    rng = np.random.default_rng(1)
    levels = Levels(voice=-25.0, mic_noise=-60.0, gunfire=-22.0, music=-28.0, ambience=-40.0)
    voice = voice_track([("calm", 1, 4), ("excited", 6, 9)], SECONDS * RATE_HZ, levels, rng)
    game = game_track([("music", 0, 6), ("fight", 4, 9)], SECONDS * RATE_HZ, levels, GAME_STYLES[1], rng)
    return voice, game


def recorded(path: Path, named: dict[str, np.ndarray]) -> Path:
    write_recording(path, named, RATE_HZ, "aac")
    return path


def numbers(pair: tracks.Pair) -> tuple[int, int]:
    return pair.voice.number, pair.game.number


@pytest.mark.parametrize("titles", [
    ("Spiel", "Mikrofon"), ("게임", "마이크/Aux"), ("Desktop-Audio", "Mikrofon/AUX"), ("音频输出捕获", "音频输入捕获"),
    ("Audio Output Capture", "Audio Input Capture"), ("Dźwięk pulpitu", "Przechwytywanie wejścia dźwięku"),
    ("Звук рабочего стола", "Микрофон"), ("Capture Audio (Sortie)", "Capture Audio (Entrée)")])
def test_titles_in_other_languages(titles, tmp_path):
    "The second track is the microphone, whatever it sounds like."
    noise = np.random.default_rng(0).normal(scale=0.1, size=(2, RATE_HZ))
    pair = tracks.choose_pair(recorded(tmp_path/"stream.mkv", dict(zip(titles, noise))))
    assert numbers(pair) == (1, 0) and pair.why == "by their titles"


@pytest.mark.parametrize("titles", [("Chat", "Game"), ("Sistema", "Microfono")])
def test_a_guess_by_one_title_can_be_overruled(titles, tmp_path):
    "Where only one title tells, the choice is called a guess, and the options that overrule it are named."
    noise = np.random.default_rng(0).normal(scale=0.1, size=(2, RATE_HZ))
    pair = tracks.choose_pair(recorded(tmp_path/"stream.mkv", dict(zip(titles, noise))))
    assert pair.why.startswith("a guess: only a:1") and pair.why.endswith("--mic and --game overrule it")


@pytest.mark.parametrize("order", ["voice first", "voice second"])
def test_the_voice_is_recognised_by_its_sound(order, sounds, tmp_path):
    "In both orders, the same way each time, and with a probability."
    voice, game = sounds
    both = (voice, game) if order == "voice first" else (game, voice)
    path = recorded(tmp_path/"stream.mkv", dict(zip(("Track1", "Track2"), both)))
    pair = tracks.choose_pair(path)
    assert numbers(pair) == ((0, 1) if order == "voice first" else (1, 0))
    reason = rf"a guess: a:{pair.voice.number} sounds like speech, 9\d% sure; --mic and --game overrule it"
    assert re.fullmatch(reason, pair.why)
    assert tracks.choose_pair(path) == pair
    assert " (" not in pair.why, "clip folders are compared without what follows the last bracket"
    assert numbers(tracks.choose_pair(path, mic="a:1", game="a:0")) == (1, 0)
    described = printed("info", path, code=0)
    assert re.search(rf"^voice +a:{pair.voice.number}$", described, re.M) and "sounds like speech" in described


def test_a_stream_without_an_index(sounds, tmp_path):
    "A transport stream is read from its start, and its tracks have no titles."
    voice, game = sounds
    source = recorded(tmp_path/"stream.mkv", {"Track1": game, "Track2": voice})
    with av.open(str(source)) as old, av.open(str(tmp_path/"stream.ts"), "w") as new:
        copies = [new.add_stream_from_template(stream) for stream in old.streams]
        for packet in old.demux():
            if packet.dts is None: continue
            packet.stream = copies[packet.stream.index]
            new.mux(packet)
    pair = tracks.choose_pair(tmp_path/"stream.ts")
    assert numbers(pair) == (1, 0) and "sounds like speech" in pair.why


def test_a_mix_is_neither(sounds, tmp_path):
    "Without titles, the first of three tracks is a mix of the others; the voice is the last."
    voice, game = sounds
    path = recorded(tmp_path/"obs.mkv", {"Track1": voice + game, "Track2": game, "Track3": voice})
    assert numbers(tracks.choose_pair(path)) == (2, 1)


@pytest.mark.parametrize("order", ["voice, friend, game", "game, friend, voice", "friend, voice, game"])
def test_the_voice_of_a_friend_is_not_the_game(order, sounds, tmp_path):
    "Of three tracks without titles, the game is the one least like speech; the percentage is that of the voice."
    levels = Levels(voice=-32.0, mic_noise=-45.0, gunfire=-22.0, music=-28.0, ambience=-40.0)
    speech = [("calm", 2, 3), ("calm", 7, 8), ("calm", 10, 11)]
    friend = voice_track(speech, SECONDS * RATE_HZ, levels, np.random.default_rng(10))
    tracks_of = {"voice": sounds[0], "friend": friend, "game": sounds[1]}
    names = order.split(", ")
    path = recorded(tmp_path/"stream.mkv", {f"Track{k + 1}": tracks_of[name] for k, name in enumerate(names)})
    pair = tracks.choose_pair(path)
    voice, game = names.index("voice"), names.index("game")
    assert numbers(pair) == (voice, game)
    assert re.match(rf"a guess: a:{voice} sounds like speech, \d\d% sure, and a:{game} least like it; ", pair.why)


def test_another_microphone_is_not_the_game(sounds, tmp_path):
    "Of two tracks titled as voices, one is the voice, and the game is a track without a title."
    voice, game = sounds
    noise = np.random.default_rng(0).normal(scale=0.1, size=voice.size)
    path = recorded(tmp_path/"stream.mkv", {"Mic": voice, "Mic 2": noise, "Track3": game})
    assert numbers(tracks.choose_pair(path)) == (0, 2)


def test_unsure_is_the_usual_order(tmp_path, caplog):
    "Two noises: a guess by order, with a line on how to overrule it."
    noise = np.random.default_rng(0).normal(scale=0.1, size=(2, SECONDS * RATE_HZ))
    pair = tracks.choose_pair(recorded(tmp_path/"stream.mkv", dict(zip(("Track1", "Track2"), noise))))
    assert numbers(pair) == (0, 1) and pair.why.startswith("a guess by the usual order; ")
    [line] = caplog.messages
    assert "stream.mkv: found neither" in line and line.endswith("--mic and --game overrule it")


@pytest.mark.parametrize("fault", ["silent voice", "silent game", "same sound", "quieter copy"])
def test_tracks_that_are_not_what_they_seem(fault, sounds, tmp_path, caplog):
    "One warning says what is wrong."
    voice, game = sounds
    mix = voice + game
    named = {"silent voice": (0 * voice, game), "silent game": (voice, 0 * game), "same sound": (mix, mix),
             "quieter copy": (mix, 0.3 * mix)}[fault]
    tracks.choose_pair(recorded(tmp_path/"stream.mkv", dict(zip(("Mic", "Game"), named))))
    [line] = caplog.messages
    expected = {"silent voice": "no sound in the track of the voice, a:0,",
                "silent game": "no sound in the track of the game, a:1,"}
    assert expected.get(fault, "the same sound in a:0 and a:1") in line and "--" in line


@pytest.mark.parametrize(("named", "expected"), [
    ({"mic": "a:1", "game": "two"}, "found --mic a:1 and --game two, which name the same track, expected two"),
    ({"mic": "a:0", "game": "a:0"}, "found --mic a:0 and --game a:0, which name the same track, expected two")])
def test_one_track_named_twice(named, expected, sounds, tmp_path, caplog):
    "The error says so, instead of how to record two tracks; with `--separate` it may be meant."
    path = recorded(tmp_path/"stream.mkv", dict(zip(("one", "two"), sounds)))
    with pytest.raises(InputError) as refused: tracks.choose_pair(path, **named)
    assert expected in str(refused.value) and "Record two tracks" not in str(refused.value)
    assert tracks.choose_pair(path, **named, separate="none").mixed
    assert tracks.choose_pair(recorded(tmp_path/"mix.mkv", {"one": sounds[0]}), "a:0", "a:0").mixed
    assert "Record two tracks" in caplog.text


def test_info_warns(sounds, tmp_path):
    "As `detect`, `prepare` and `evaluate` do."
    path = recorded(tmp_path/"stream.mkv", {"Mic": sounds[0], "Game": sounds[0]})
    assert "the same sound in a:0 and a:1" in printed("info", path, code=0)


@pytest.mark.parametrize("codec", ["flac", "aac"])
def test_inverted_channels(codec, sounds, tmp_path, caplog):
    "A microphone with one channel inverted is silent in mono, and the warning says why."
    path = tmp_path/"inverted.mka"
    with av.open(str(path), "w") as container:
        mic = container.add_stream(codec, rate=RATE_HZ, layout="stereo")
        game = container.add_stream(codec, rate=RATE_HZ, layout="mono")
        for stream, title, channels in ((mic, "Mic", [1, -1]), (game, "Game", [1])):
            stream.metadata["title"] = title
            samples = np.outer(channels, sounds[0 if stream is mic else 1])
            resampler = av.AudioResampler(format=stream.format, layout=stream.layout, rate=RATE_HZ)
            frame = av.AudioFrame.from_ndarray(samples.astype(np.float32), "fltp", stream.layout.name)
            frame.sample_rate, frame.pts = RATE_HZ, 0
            for part in resampler.resample(frame): container.mux(stream.encode(part))
            container.mux(stream.encode(None))
    tracks.choose_pair(path)
    [line] = caplog.messages
    assert "found channels that cancel each other in the track of the voice, a:0" in line


def test_clear_titles_need_one_look(sounds, tmp_path, monkeypatch):
    "Five seconds of one place are read, not sixteen places."
    reads = []

    def read_and_count(*given: object) -> np.ndarray:
        reads.append(given)
        return read_audio(*given)

    monkeypatch.setattr("highlight_sense.excerpts.read_audio", read_and_count)
    tracks.choose_pair(recorded(tmp_path/"stream.mkv", dict(zip(("Mic/Aux", "Desktop Audio"), sounds))))
    assert len(reads) == 1


@pytest.mark.parametrize("unknown", [0, 1])
def test_a_track_in_an_unknown_codec_is_passed_over(unknown, sounds, tmp_path, caplog):
    "A phone's track in Apple's spatial codec: the other one is a mix, and keeps its number."
    path = tmp_path/"phone.mp4"
    with av.open(str(path), "w") as container:
        streams = [container.add_stream("aac", rate=RATE_HZ, layout="mono") for _ in range(2)]
        for stream, sound in zip(streams, sounds):
            frame = av.AudioFrame.from_ndarray(sound[None].astype(np.float32), "fltp", "mono")
            frame.sample_rate, frame.pts = RATE_HZ, 0
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    content = path.read_bytes()
    at = (content.rindex if unknown else content.index)(b"mp4a", content.index(b"moov"))
    content = content[:at] + b"apac" + content[at + 4:]
    at = content.index(b"esds", at)
    path.write_bytes(content[:at] + b"dapa" + content[at + 4:])
    assert [track.codec == "unknown" for track in probe(path).tracks] == [unknown == 0, unknown == 1]
    pair = tracks.choose_pair(path)
    assert "one track for both voice and game" in caplog.text
    assert pair.mixed and pair.voice.number == 1 - unknown
    assert tracks.choose_pair(None, str(path), str(path), "none").voice.number == 1 - unknown


@pytest.fixture(autouse=True)
def warnings_only(caplog):
    caplog.set_level(logging.WARNING, "highlight_sense")
