"""Record the sound of a real game engine: ViZDoom plays Freedoom, and this script decides who fights whom, and when.

    pip install vizdoom                                            # MIT; Freedoom (BSD) comes with it
    apt-get install libopenal1                                     # the engine's sound library
    python tools/doom_sessions.py -o doom --minutes 10 --seed 1    # one session for each level

It needs NumPy and ViZDoom, nothing of this package, and writes for each session `doom/NAME.wav` (the game alone, mono,
22 050 Hz) and `doom/NAME.csv` (kind, start_s, end_s, kills). What exists is kept. `tools/starter.py` gives the sessions
synthetic voices.

A session alternates between walking about and a *scene*. In a fight, four to twelve monsters attack, and the player
shoots until they are dead; in a skirmish there are one or two. In a practice, the player shoots at nothing; in a
horde, monsters grunt and prowl, and nobody shoots.
"""
import argparse
import csv
import os
import tempfile
import wave
from dataclasses import dataclass, field
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import vizdoom

TICS_PER_S = 35
STEP = 5              # tics between two decisions: a seventh of a second
ENGINE_HZ = 44_100    # the only rate at which the engine's sound is reliable
RATE_HZ = 22_050
LEVELS = {            # to train on; all other levels remain for measuring
    "freedoom1.wad": ("E1M8", "E1M9", "E2M8", "E2M9", "E3M5", "E3M6", "E3M7", "E3M8", "E4M5", "E4M6", "E4M7", "E4M8"),
    "freedoom2.wad": ("MAP30",),
}
WEAK = ("ZombieMan", "ShotgunGuy", "DoomImp", "Demon", "Spectre", "LostSoul")
STRONG = ("ChaingunGuy", "HellKnight", "Cacodemon", "Revenant", "BaronOfHell", "Arachnotron", "Fatso", "WolfensteinSS")
FIRST_GAME_HAS = ("ZombieMan", "ShotgunGuy", "DoomImp", "Demon", "Spectre", "LostSoul", "Cacodemon", "BaronOfHell")
SCENES = {"fight": 0.5, "skirmish": 0.2, "practice": 0.17, "horde": 0.13}  # how often each is played
WEAPONS = (2, 3, 4, 5, 6)  # pistol, shotgun, chaingun, rocket launcher, plasma gun
BUTTONS = ("ATTACK", "MOVE_FORWARD", "MOVE_LEFT_RIGHT_DELTA", "TURN_LEFT_RIGHT_DELTA", "USE",
           *(f"SELECT_WEAPON{number}" for number in WEAPONS))


@dataclass
class Scene:
    "Something that the game does."
    kind: str
    length_s: float          # of practice and horde; the longest for the others
    monsters: list[str]
    gaps_s: list[float]      # before each monster appears
    weapon: int
    kills: int = 0
    start_s: float = 0.0
    end_s: float = 0.0


@dataclass
class Session:
    "A game that runs, and the sound that it has made."
    game: vizdoom.DoomGame
    rng: np.random.Generator
    monsters: set[str]
    sound: list[np.ndarray] = field(default_factory=list)

    @property
    def time_s(self) -> float: return len(self.sound) * STEP / TICS_PER_S


def start_game(wad: str, level: str, seed: int, rng: np.random.Generator) -> vizdoom.DoomGame:
    "Start a level without monsters, picture or music."
    game = vizdoom.DoomGame()
    game.set_doom_game_path(str(Path(vizdoom.__file__).with_name(wad)))
    game.set_doom_map(level)
    game.set_seed(seed)
    game.set_window_visible(False)
    game.set_screen_resolution(vizdoom.ScreenResolution.RES_160X120)
    game.set_mode(vizdoom.Mode.PLAYER)
    game.set_available_buttons([getattr(vizdoom.Button, name) for name in BUTTONS])
    game.set_available_game_variables([
        vizdoom.GameVariable.KILLCOUNT, vizdoom.GameVariable.POSITION_X, vizdoom.GameVariable.POSITION_Y,
        vizdoom.GameVariable.ANGLE, vizdoom.GameVariable.HITCOUNT])
    game.set_objects_info_enabled(True)
    game.set_sound_enabled(True)
    game.set_audio_buffer_enabled(True)
    game.set_audio_sampling_rate(vizdoom.SamplingRate.SR_44100)
    game.set_audio_buffer_size(STEP)
    game.set_episode_timeout(0)
    volume = rng.uniform(0.25, 0.6)  # below 0.6, a fight does not clip all the time
    game.add_game_args(f"-nomonsters +snd_efx 0 +snd_sfxvolume {volume:.2f} +sv_cheats 1 +sv_infiniteammo 1")
    game.init()
    return game


def begin_level(session: Session) -> None:
    "Enter the level again, with every weapon; the player feels pain but cannot die."
    session.game.new_episode()
    for command in ("buddha", "give all"): session.game.send_game_command(command)


def act(session: Session, **actions: float) -> None:
    "Do something for a few tics and keep the sound of it; a turn is spread over them."
    if session.game.is_episode_finished(): begin_level(session)
    values = [float(actions.get(name, 0)) for name in BUTTONS]
    session.game.make_action([v/STEP if "DELTA" in name else v for name, v in zip(BUTTONS, values)], STEP)
    if session.game.is_episode_finished():
        session.sound.append(np.zeros(ENGINE_HZ * STEP // TICS_PER_S, np.float32))
        return
    stereo = np.asarray(session.game.get_state().audio_buffer, np.float32)
    session.sound.append(stereo.mean(axis=1) / 32768)


def place(session: Session) -> np.ndarray:  # x, y, angle in degrees
    "Return where the player is and which way it looks."
    if session.game.is_episode_finished(): begin_level(session)
    return np.array(session.game.get_state().game_variables[1:4])


def count(session: Session, what: int) -> int:
    "Return how many monsters the player has killed (0), or how often it hit one (4)."
    return 0 if session.game.is_episode_finished() else int(session.game.get_state().game_variables[what])


def nearest(session: Session) -> tuple[int, float] | None:
    "Return how many monsters are near, and how far the player must turn (in degrees, clockwise) to face the nearest."
    x, y, angle = place(session)
    near = []
    for each in session.game.get_state().objects:
        away = np.hypot(each.position_x - x, each.position_y - y)
        if each.name in session.monsters and away < 2000: near.append((away, each.position_x - x, each.position_y - y))
    if not near: return None
    _, ahead_x, ahead_y = min(near)
    turn = angle - np.degrees(np.arctan2(ahead_y, ahead_x))
    return len(near), float((turn + 180) % 360 - 180)


def wander(session: Session, length_s: float) -> None:
    "Walk about; turn where there is no way on."
    end_s, before, turn, still = session.time_s + length_s, place(session), 0.0, session.rng.random() < 0.15
    while session.time_s < end_s:
        if session.rng.random() < 0.03: still = session.rng.random() < 0.25
        act(session, MOVE_FORWARD=not still, TURN_LEFT_RIGHT_DELTA=turn, USE=session.rng.random() < 0.04)
        now = place(session)
        stuck = not still and np.hypot(*(now - before)[:2]) < 2
        turn = session.rng.uniform(-90, 90) if stuck else session.rng.normal(0, 4)
        before = now


def summon(session: Session, monster: str) -> None:
    "Let a monster appear in front of the player."
    session.game.send_game_command(f"summon {monster}")


def play(session: Session, scene: Scene) -> None:
    "Play a scene; it starts with its first monster or shot and ends with its last."
    rng = session.rng
    act(session, **{f"SELECT_WEAPON{scene.weapon}": 1})
    for _ in range(5): act(session)  # until the weapon is up
    scene.start_s, before, hits = session.time_s, count(session, 0), 0
    waiting = list(zip(scene.start_s + np.cumsum(scene.gaps_s), scene.monsters))
    seen_s, hit_s, pause_s = session.time_s, session.time_s, 0.0
    while session.time_s < scene.start_s + scene.length_s:
        target = nearest(session)
        if target: seen_s = session.time_s
        if target is None or count(session, 4) > hits: hit_s, hits = session.time_s, count(session, 4)
        if session.time_s > hit_s + 2.5 and scene.kind in ("fight", "skirmish"):  # they are behind a wall
            session.game.send_game_command("kill monsters")
            waiting += [(session.time_s + 0.3, str(name)) for name in rng.choice(scene.monsters, min(target[0], 6))]
            act(session, TURN_LEFT_RIGHT_DELTA=rng.uniform(90, 270))
            hit_s, target = session.time_s, None
        missing = waiting and session.time_s >= waiting[0][0] and (target[0] if target else 0) < 5
        if missing: summon(session, waiting.pop(0)[1])
        turn = np.clip(target[1], -90, 90) + rng.normal(0, 2) if target else rng.normal(0, 15)
        shoots = scene.kind == "practice" and rng.random() < 0.7
        if scene.kind in ("fight", "skirmish"): shoots = target is not None and abs(target[1]) < 40
        if rng.random() < 0.05: pause_s = session.time_s + rng.uniform(0.2, 1.2)
        side = rng.uniform(-20, 20) if scene.kind != "practice" else 0
        act(session, ATTACK=shoots and session.time_s >= pause_s, TURN_LEFT_RIGHT_DELTA=turn,
            MOVE_LEFT_RIGHT_DELTA=side, MOVE_FORWARD=rng.random() < 0.2)
        over = not waiting and target is None and session.time_s > seen_s + 0.6
        if over and scene.kind in ("fight", "skirmish"): break
    scene.end_s, scene.kills = session.time_s, max(0, count(session, 0) - before)
    session.game.send_game_command("kill monsters")


def draw_scene(session: Session, wad: str) -> Scene:
    "Decide what happens next."
    rng = session.rng
    kind = str(rng.choice(list(SCENES), p=list(SCENES.values())))
    some = [name for name in (*WEAK, *STRONG) if wad != "freedoom1.wad" or name in FIRST_GAME_HAS]
    weapon = int(rng.choice(WEAPONS))
    if kind == "skirmish" or weapon == 2 or rng.random() < 0.6: some = [name for name in some if name in WEAK]
    count = {"fight": int(rng.integers(4, 13)), "skirmish": int(rng.integers(1, 3)), "practice": 0,
             "horde": int(rng.integers(1, 5))}[kind]
    length_s = {"fight": rng.uniform(8, 22), "skirmish": rng.uniform(4, 9), "practice": rng.uniform(3, 12),
                "horde": rng.uniform(4, 10)}[kind]
    monsters = [str(name) for name in rng.choice(some, count)]
    gap_s = rng.uniform(0.15, 0.9)
    gaps_s = [0.0, *rng.exponential(gap_s, max(0, count - 1))][:count]
    return Scene(kind, float(length_s), monsters, gaps_s, weapon)


def halved(sound: np.ndarray) -> np.ndarray:
    "Halve the sampling rate: a windowed-sinc low-pass, then every second sample."
    offsets = np.arange(-40, 41)
    taps = np.sinc(offsets * 0.48) * 0.48 * np.hanning(83)[1:-1]
    return np.convolve(sound, taps.astype(np.float32), "same")[::2]


def record(job: tuple[Path, str, str, float, int]) -> None:
    "Play one session, and write its sound and what happened in it."
    folder, wad, level, minutes, seed = job
    rng = np.random.default_rng([seed, *level.encode()])
    name = f"{Path(wad).stem}_{level.lower()}_{seed}"
    if (folder/f"{name}.csv").exists(): return
    with tempfile.TemporaryDirectory() as scratch:  # the engine leaves files in its working directory
        os.chdir(scratch)
        session = Session(start_game(wad, level, int(rng.integers(2**31)), rng), rng, {*WEAK, *STRONG})
        begin_level(session)
        for _ in range(10): act(session)
        session.sound.clear()
        scenes, pace = [], rng.uniform(0.6, 1.4)
        while session.time_s < 60*minutes - 40:
            wander(session, pace * rng.uniform(8, 28))
            scenes.append(draw_scene(session, wad))
            play(session, scenes[-1])
        wander(session, 60*minutes - session.time_s)
        session.game.close()
        os.chdir(folder)
    sound = halved(np.concatenate(session.sound))
    with wave.open(str(folder/f"{name}.wav"), "wb") as file:
        file.setparams((1, 2, RATE_HZ, 0, "NONE", ""))
        file.writeframes((np.clip(sound, -1, 1) * 32767).astype("<i2").tobytes())
    with open(folder/f"{name}.csv", "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["kind", "start_s", "end_s", "kills"])
        rows.writerows([one.kind, f"{one.start_s:.3f}", f"{one.end_s:.3f}", one.kills] for one in scenes)
    print(f"{name}: {len(scenes)} scenes, {sum(one.kind == 'fight' for one in scenes)} fights", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--minutes", type=float, default=10, help="length of a session (default: 10)")
    parser.add_argument("--rounds", type=int, default=1, help="sessions for each level (default: 1)")
    parser.add_argument("--seed", type=int, default=1, help="seed of every random choice (default: 1)")
    parser.add_argument("--workers", type=int, default=1, help="sessions at the same time (default: 1)")
    args = parser.parse_args()
    folder = args.output.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    jobs = [(folder, wad, level, args.minutes, args.seed + number) for number in range(args.rounds)
            for wad, levels in LEVELS.items() for level in levels]
    with Pool(args.workers) as pool: list(pool.imap(record, jobs))


if __name__ == "__main__": main()
