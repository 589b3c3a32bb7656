"""Pretrain the taste: teach its layers to tell the sounds of synthetic sessions apart.

    python tools/starter.py make WORK --doom doom    # writes the sessions, their events and their log-mels
    python tools/pretrain_taste.py WORK              # highlight_sense/taste.pt

Each step of a session has a target for every kind of event (excited and calm speech, fights, dogs, sneezes, ...) and
for the highlights. The last layer, which names the kinds, is dropped: `learn` teaches a new one.
"""
import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import average_precision_score
from torch import nn
from torch.nn import functional as F

from highlight_sense.config import FrontEnd
from highlight_sense.decide import stored_blocks
from highlight_sense.learn import augment, share_inside
from highlight_sense.records import write_record
from highlight_sense.stored_recordings import recording_frames
from highlight_sense.taste import PRETRAINED, Taste, relative_features, summarise

STEP = 16            # frames
STRETCH = 80         # steps, 30 s
BATCH, RATE, DROPOUT = 16, 2e-3, 0.2
VALIDATION = 60      # sessions
ABOUT = "taste of highlight-sense that knows synthetic sounds, and no one's taste"


class Session:
    "The features of a session, and what happens in it."
    def __init__(self, path: Path, events: pd.DataFrame, kinds: list[str]):
        step_s = FrontEnd().seconds(STEP)
        summary = summarise(stored_blocks(recording_frames(str(path))), STEP)
        self.features = relative_features(summary).T.astype(np.float16)  # (4 * n_mels, steps)
        times_s = (np.arange(self.features.shape[1]) + 0.5) * step_s
        self.targets = np.zeros((len(kinds), len(times_s)), np.float32)
        for kind, table in events.groupby("kind"):
            self.targets[kinds.index(kind)] = share_inside(table[["start_s", "end_s"]].to_numpy(), times_s)
        self.middles = [(row.kind, int((row.start_s + row.end_s) / 2 / step_s)) for row in events.itertuples()]

    def cut(self, start: int) -> tuple[torch.Tensor, torch.Tensor]:  # (4 * n_mels, STRETCH), (kinds, STRETCH)
        "Take a stretch."
        start = int(np.clip(start, 0, self.features.shape[1] - STRETCH))
        parts = self.features, self.targets
        return tuple(torch.from_numpy(np.float32(part[:, start:start + STRETCH])) for part in parts)


def read_sessions(work: Path) -> tuple[dict[str, Session], list[str]]:
    "Read all sessions, and list the kinds of what happens in them."
    labels = pd.read_csv(work/"sessions/labels.csv").dropna().assign(kind="highlight")
    events = pd.concat([pd.read_csv(work/"sessions/events.csv"), labels])
    kinds = sorted(events.kind.unique())
    by_name = dict(list(events.groupby(events.recording.str.rpartition(".")[0])))
    paths = sorted((work/"clips/Recording").rglob("*.pt"))
    return {path.stem: Session(path, by_name.get(path.stem, events[:0]), kinds) for path in paths}, kinds


def draw(
    sessions: list[Session], places: dict[str, list[tuple[Session, int]]], rng: np.random.Generator,
) -> tuple[torch.Tensor, torch.Tensor]:
    "Cut a stretch: often around an event, so that each kind has its turn; else anywhere."
    if rng.random() < 0.6:
        of_kind = places[rng.choice(sorted(places))]
        session, middle = of_kind[rng.integers(len(of_kind))]
        return session.cut(middle - rng.integers(STRETCH // 8, STRETCH - STRETCH // 8))
    session = sessions[rng.integers(len(sessions))]
    return session.cut(rng.integers(session.features.shape[1]))


def pretrain(sessions: list[Session], kinds: list[str], batches: int, seed: int) -> Taste:
    "Train a taste with an output for each kind."
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    places = {kind: [(one, middle) for one in sessions for name, middle in one.middles if name == kind]
              for kind in kinds}
    places = {kind: found for kind, found in places.items() if found}
    taste = Taste(len(sessions[0].features), dropout=DROPOUT)
    taste.leave = nn.Conv1d(taste.leave.in_channels, len(kinds), 1)
    optimizer = torch.optim.AdamW(taste.parameters(), RATE, weight_decay=0.01)
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, batches, pct_start=0.1, cycle_momentum=False)
    for number in range(1, batches + 1):
        features, targets = map(torch.stack, zip(*(draw(sessions, places, rng) for _ in range(BATCH))))
        (features, targets), _ = augment(features, [targets], rng)
        logits = taste.leave(taste.encode(features))
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rates.step()
        if number % 1000 == 0: print(f"batch {number}: loss {loss.item():.2f}", flush=True)
    return taste.eval()


@torch.no_grad()
def measure(taste: Taste, sessions: list[Session], kinds: list[str]) -> dict[str, float]:
    "Compute the average precision by step of each kind."
    found = [taste.leave(taste.encode(torch.from_numpy(np.float32(one.features))[None]))[0].numpy()
             for one in sessions]
    scores = np.concatenate(found, 1)
    truth = np.concatenate([one.targets for one in sessions], 1) > 0.5
    return {kind: round(float(average_precision_score(truth[row], scores[row])), 2)
            for row, kind in enumerate(kinds) if truth[row].any()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder of tools/starter.py make")
    parser.add_argument("--out", type=Path, default=PRETRAINED, help="file to write (default: that of the package)")
    parser.add_argument("--batches", type=int, default=6000, help="of 16 stretches of 30 s (default: 6000)")
    parser.add_argument("--seed", type=int, default=27, help="seed of every random choice (default: 27)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    sessions, kinds = read_sessions(args.work)
    order = np.random.default_rng(args.seed).permutation(sorted(sessions)).tolist()
    held_out, training = ([sessions[name] for name in part] for part in (order[:VALIDATION], order[VALIDATION:]))
    taste = pretrain(training, kinds, args.batches, args.seed)
    print(json.dumps(measure(taste, held_out, kinds)))
    weights = {name: value.half() for name, value in taste.state_dict().items() if name.startswith(("enter", "widen"))}
    write_record({"taste": weights, "kinds": kinds, "about": ABOUT}, args.out)


if __name__ == "__main__": main()
