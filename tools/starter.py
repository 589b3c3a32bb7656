"""Make the starter: the small model in the package, for a user who has no labels yet.

    python tools/doom_sessions.py -o doom             # the sound of a real engine; see there for what it needs
    python tools/starter.py make WORK --doom doom     # sessions, clips, pack, training: highlight_sense/starter.pt
    python tools/starter.py measure real=FOLDER,labels.csv --work WORK/found        # figures for the card
    python tools/starter.py card                      # highlight_sense/starter.md, from benchmarks/starter.json

This repository makes everything that the starter is trained on: varied synthetic sessions, and ViZDoom playing
Freedoom, with synthetic voices over both. The same seed gives the same sessions. WORK needs about 15 GB.
"""
import argparse
import csv
import json
import sys
import wave
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from highlight_sense.checkpoint import load_checkpoint
from highlight_sense.config import DetectConfig, PrepareConfig, TrainConfig
from highlight_sense.evenings import plan_voice
from highlight_sense.games import spoil
from highlight_sense.media import write_recording
from highlight_sense.music import compose
from highlight_sense.packing import pack_clips
from highlight_sense.prepare import prepare
from highlight_sense.process import run_jobs
from highlight_sense.recordings import evaluate_recordings
from highlight_sense.records import load_record, write_record
from highlight_sense.run import train
from highlight_sense.sessions import make_sessions
from highlight_sense.synth import SYNTH_RATE_HZ, Levels, add_at, band, draw_levels, shaped_noise, with_level
from highlight_sense.voices import various_voice_track

ROOT = Path(__file__).resolve().parent.parent
STARTER = ROOT/"highlight_sense/starter.pt"
CARD = STARTER.with_suffix(".md")
FIGURES = ROOT/"benchmarks/starter.json"
ABOUT = "starter model of highlight-sense, from synthetic sessions and ViZDoom with Freedoom only"
LARGEST_MB = 3
VARIETY = 0.85  # share of the synthetic sessions that are as varied as real ones
Scene = tuple[str, float, float]  # kind, start_s, end_s


# ---------------------------------------------------------------- sessions of a real engine
def read_scenes(path: Path) -> list[Scene]:
    "Read what happens in a recording of tools/doom_sessions.py; a fight with few kills counts as a skirmish."
    with open(path, encoding="utf-8") as file: rows = list(csv.DictReader(file))
    return [("skirmish" if row["kind"] == "fight" and int(row["kills"]) < 3 else row["kind"],
             float(row["start_s"]), float(row["end_s"])) for row in rows]


def read_game(path: Path) -> np.ndarray:
    "Read a game's sound."
    with wave.open(str(path)) as file: sound = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    return sound.astype(np.float32) / 32768


def add_music(track: np.ndarray, levels: Levels, rng: np.random.Generator) -> None:
    "Add pieces of music to a game's track, and a background; some games have neither."
    share, start_s, length_s = rng.choice([0, 0.5, 0.9]), 0.0, len(track)/SYNTH_RATE_HZ
    while start_s < length_s:
        piece_s = min(rng.uniform(45, 200), length_s - start_s)
        if rng.random() < share:
            piece = np.resize(compose(rng), int(piece_s*SYNTH_RATE_HZ))
            add_at(track, with_level(piece, rng.normal(levels.music, 3)), start_s)
        start_s += piece_s
    if rng.random() < 0.2: return
    noise = shaped_noise(16*SYNTH_RATE_HZ, band(rng.uniform(60, 1500), rng.uniform(0.5, 2)), rng)
    track += with_level(np.resize(noise, len(track)), rng.normal(levels.ambience, 3))


def cut(game: np.ndarray, scenes: list[Scene], piece: int, pieces: int) -> tuple[np.ndarray, list[Scene]]:
    "Take one of several equal pieces of a recording, and the scenes inside it."
    length_s = len(game) / SYNTH_RATE_HZ / pieces
    first_s = piece * length_s
    inside = [(kind, start_s - first_s, end_s - first_s) for kind, start_s, end_s in scenes
              if first_s <= start_s and end_s < first_s + length_s]
    first, last = round(first_s*SYNTH_RATE_HZ), round((first_s + length_s)*SYNTH_RATE_HZ)
    return game[first:last], inside


def make_doom_session(
    recording: Path, out: Path, piece: int, pieces: int, take: int, seed: int,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    "Give a piece of the engine's recording a voice, and write both; return its labels and its events."
    rng = np.random.default_rng([seed, take, piece, *recording.stem.encode()])
    game, scenes = cut(read_game(recording), read_scenes(recording.with_suffix(".csv")), piece, pieces)
    said, highlights = plan_voice(scenes, rng.uniform(0.4, 0.8), len(game)/SYNTH_RATE_HZ, rng)
    levels = draw_levels(rng)
    voice = various_voice_track(said, len(game), levels, rng)
    game = with_level(game, levels.gunfire - 3)
    add_music(game, levels, rng)
    voice, game = spoil(voice, np.tanh(game).astype(np.float32), rng)
    path = out/"Doom"/f"{recording.stem}_{piece}_take{take}.mkv"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_recording(path, {"Voice": voice, "Game": game}, SYNTH_RATE_HZ)
    labels = pd.DataFrame(highlights, columns=["start_s", "end_s"]).assign(recording=path.name)
    events = [("voice", *passage) for passage in said] + [("game", *scene) for scene in scenes]
    return labels, pd.DataFrame(events, columns=["track", "kind", "start_s", "end_s"]).assign(recording=path.name)


# ---------------------------------------------------------------- the model
def make_data(args: argparse.Namespace) -> Path:
    "Make all sessions, cut them into clips and pack them; return the pack."
    sessions = args.work/"sessions"
    make_sessions(sessions, args.sessions, args.minutes, args.seed, args.workers, variety=VARIETY)
    if args.doom:
        jobs = [(recording, sessions, piece, args.pieces, take, args.seed)
                for recording in sorted(args.doom.glob("*.wav"))
                for piece in range(args.pieces) for take in range(args.takes)]
        for name, more in zip(("labels", "events"), zip(*run_jobs(make_doom_session, jobs, args.workers))):
            table = sessions/f"{name}.csv"
            every = pd.concat([pd.read_csv(table), *more], ignore_index=True)
            every.round(3).to_csv(table, index=False, lineterminator="\n")
    prepare(sessions, sessions/"labels.csv", args.work/"clips", PrepareConfig(half=True), workers=args.workers)
    pack_clips(args.work/"clips", args.work/"sessions.pack")
    return args.work/"sessions.pack"


def halved(checkpoint: Path) -> dict:
    "Read a checkpoint and round its weights to half precision."
    record = load_record(checkpoint, "a checkpoint", "train one")
    weights = {name: value.half() if value.is_floating_point() else value for name, value in record["model"].items()}
    for name, value in weights.items():
        if not torch.isfinite(value).all(): raise SystemExit(f"{checkpoint}: {name} does not fit in half precision")
    kept = {name: value for name, value in record.items() if name != "training"}
    return kept | {"model": weights, "about": ABOUT}


def make(args: argparse.Namespace) -> None:
    "Make the starter."
    args.work.mkdir(parents=True, exist_ok=True)
    data = args.work/"sessions.pack"
    if not data.exists(): data = make_data(args)
    config = TrainConfig(epochs=args.epochs, lr=2e-3, seed=args.seed, device=args.device, workers=0)
    train(data, args.work/"run", config, init="random")
    write_record(halved(args.work/"run/best.pt"), STARTER)
    size_mb = STARTER.stat().st_size / 1e6
    if size_mb > LARGEST_MB: raise SystemExit(f"{STARTER}: found {size_mb:.1f} MB, expected at most {LARGEST_MB}")
    known = load_checkpoint(STARTER)[1]
    labels = pd.read_csv(args.work/"sessions/labels.csv").dropna()
    doom = len(list(args.doom.glob("*.wav"))) if args.doom else 0
    made = {
        "date": str(date.today()), "sessions": args.sessions, "minutes": args.minutes, "variety": VARIETY,
        "doom_sessions": doom, "takes": args.takes*args.pieces, "highlights": len(labels), "seed": args.seed,
        "epochs": known.epochs, "size_mb": round(size_mb, 2), "threshold": known.recording_threshold,
        "command": args.command_line}
    FIGURES.write_text(json.dumps({"made": made, "measured": {}}, indent=1) + "\n", encoding="utf-8")
    write_card()


# ---------------------------------------------------------------- its figures
def measure(args: argparse.Namespace) -> None:
    "Measure the starter on labelled recordings, and keep the figures."
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    for text in args.sets:
        name, _, places = text.partition("=")
        recordings, labels = map(Path, places.split(","))
        config, place = DetectConfig(device=args.device), args.work/recordings.name
        figures["measured"][name] = evaluate_recordings(STARTER, [recordings], labels, config, place)
        FIGURES.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
    write_card()


CARD_TEXT = """# The starter

The model that `highlight-sense detect` uses until you have one of your own. It finds one kind of moment: **a burst of
action in a game, and an excited voice that starts up to 2.5 s later**. It knows nothing of your game, your voice or
your taste; a model trained on your own labels is better.

## What it is made of

- A network of the default size (`train --model default`), {made[size_mb]} MB in half precision; {made[epochs]} epochs.
- {made[sessions]} synthetic sessions of {made[minutes]:g} minutes (`make_sessions(..., variety={made[variety]})`):
  drawn voices, rooms, microphones, games, music and levels; in some sessions the tracks bleed into each other, or are
  one mix.
- {made[doom_sessions]} recordings of ViZDoom (MIT), which plays Freedoom (BSD-3-Clause), made by
  `tools/doom_sessions.py`, each with {made[takes]} synthetic streamers.
- {made[highlights]} highlights in all. **None of it is recorded speech or a real stream.** The weights are under the
  licence of this package (MIT).

The same sessions taught `taste.pt` which sounds there are (`tools/pretrain_taste.py`); `learn` starts from it.

Made on {made[date]} by

```
python tools/doom_sessions.py -o doom --rounds 2
python {made[command]}
```

## How well it does

{table}

Mean AP is over IoU 0.3, 0.5 and 0.7; F1, precision and recall are at IoU 0.3 and at the threshold of the starter,
{made[threshold]:.2f}.
None of these recordings was used in training. But their game is ViZDoom, as in some of the training sessions: expect
less of games of another kind.

{sets}

## Where it fails

- It recognises excitement by pitch, pace and brightness. A streamer who whispers, or who is always loud, is hard.
- It recognises action by many sounds in quick succession. Games whose great moments are quiet (puzzles, strategy)
  are not what it learned from.
- It does not find *funny* or *angry* moments without a fight, and is not meant to: see the last rows.
- Its probabilities are calibrated on sessions like those it was trained on; elsewhere, only their order counts.
"""
SETS = {
    "real": "- *real*: acted speech of 16 people (RAVDESS; it measures, and never trains) over ViZDoom on other levels",
    "held out": "- *held out*: the four of these people on whom models trained on the other twelve are measured",
    "bleeding": "- *bleeding*: the held-out recordings, each track in the other, 15 to 28 dB weaker",
    "one mix": "- *one mix*: the held-out recordings, both tracks mixed into one",
    "sample": "- *sample*: two recordings of six minutes",
    "funny": "- *funny*: the recordings of *real*, but the wanted moments are interrupting dogs, babies, sneezes",
    "rage": "- *rage*: the recordings of *real*, but the wanted moments are excitement without a fight",
}


def write_card() -> None:
    "Write the card from the figures."
    figures = json.loads(FIGURES.read_text(encoding="utf-8"))
    columns = {"recordings": "recordings", "hours": "hours", "labels": "moments", "mean_ap": "mean AP",
               "ap_iou30": "AP at 0.3", "f1_iou30": "F1", "precision_iou30": "precision",
               "recall_iou30": "recall", "false_alarms_per_hour": "false alarms an hour"}
    rows = [f"| {name} | " + " | ".join(show(metrics[key]) for key in columns) + " |"
            for name, metrics in figures["measured"].items()]
    table = "\n".join([f"| set | {' | '.join(columns.values())} |", "|---" * (1 + len(columns)) + "|", *rows])
    sets = "\n".join(text for name, text in SETS.items() if name in figures["measured"])
    CARD.write_text(CARD_TEXT.format(made=figures["made"], table=table, sets=sets), encoding="utf-8")


def show(value: float | None) -> str:
    "Format a figure of the table."
    if value is None: return ""
    return str(value) if isinstance(value, int) else f"{value:.2f}" if value < 10 else f"{value:.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    making = verbs.add_parser("make", help="make sessions, train, write the starter and its card")
    making.add_argument("work", type=Path, help="folder for sessions, clips and the run")
    making.add_argument("--doom", type=Path, help="folder of tools/doom_sessions.py (default: synthetic games only)")
    making.add_argument("--sessions", type=int, default=300, help="synthetic sessions (default: 300)")
    making.add_argument("--minutes", type=float, default=4, help="length of a synthetic session (default: 4)")
    making.add_argument("--pieces", type=int, default=2, help="pieces of each recording of the engine (default: 2)")
    making.add_argument("--takes", type=int, default=6, help="streamers for each of these pieces (default: 6)")
    making.add_argument("--seed", type=int, default=27, help="seed of every random choice (default: 27)")
    making.add_argument("--epochs", type=int, default=9, help="passes over the data (default: 9)")
    making.add_argument("--workers", type=int, default=1, help="sessions made at the same time (default: 1)")
    making.set_defaults(work_on=make)
    measuring = verbs.add_parser("measure", help="measure the starter and put the figures on its card")
    measuring.add_argument("sets", nargs="+", metavar="NAME=RECORDINGS,LABELS", help="a folder and its labels.csv")
    measuring.add_argument("--work", type=Path, required=True, help="folder for what was detected")
    measuring.set_defaults(work_on=measure)
    for verb in (making, measuring): verb.add_argument("--device", default="auto", help="cpu, cuda (default: auto)")
    verbs.add_parser("card", help="write the card again").set_defaults(work_on=lambda _: write_card())
    args = parser.parse_args()
    args.command_line = " ".join(["tools/starter.py", *map(str, sys.argv[1:])])
    args.work_on(args)


if __name__ == "__main__": main()
