"A training that is killed at any moment and resumed ends as if nothing had happened."
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from running import launch, needs_fork, printed, small_model, write_rising_clips

from highlight_sense import train as training
from highlight_sense.checkpoint import load_checkpoint
from highlight_sense.config import MODELS, ModelConfig, TrainConfig
from highlight_sense.data import load_index, split_clips
from highlight_sense.model import HighlightCRNN, count_multiply_adds
from highlight_sense.packing import pack_clips
from highlight_sense.run import train
from highlight_sense.stored_recordings import store_recording

RUNS, EXACT = 10, ("best.pt", "metrics.jsonl", "metrics.csv", "split.csv")

SCRIPT = '''
import torch._dynamo  # which every optimizer imports: once, not in each process
from highlight_sense.config import ModelConfig, TrainConfig
from highlight_sense.run import train

clips, out, moments = json.loads(sys.argv[1])
small = ModelConfig(cnn_channels=(4, 4, 8, 8), rnn_hidden=8, rnn_layers=2, att_dim=8)
config = TrainConfig(epochs=3, batch_size=4, workers=1, val_split=0.3, max_duration_s=4, save_minutes=0,
                     device="cpu", precision="fp32")
torch.set_num_threads(1)
def begin(name, *prepare):
    return start(lambda: train(clips, Path(out)/name, config, small, progress=False, resume=True), *prepare)


status(begin("warm"))
began = time.monotonic()
ended = {"unharmed": [status(begin("unharmed"))], "moment": [], "file": []}
whole_s = time.monotonic() - began
for n, moment in enumerate(moments):
    name = f"moment{n}"
    for part in (moment, 0.5 * moment):  # the resumed run is killed too
        ended["moment"].append(kill_while_it_runs(lambda: begin(name), Path(out)/name, part * whole_s))
    assert status(begin(name)) == 0
for n in (1, 2, 3, 6, 9, 10, 11, 12, 17, 20):
    ended["file"].append(status(begin(f"file{n}", lambda: die_at(n, bool(n % 2)))))
    assert status(begin(f"file{n}")) == 0
print(json.dumps(ended))
'''


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    return write_rising_clips(tmp_path_factory.mktemp("train")/"clips", count=24, rise=4)


@pytest.mark.long
@needs_fork
def test_killed_at_any_moment(clips, tmp_path, times):
    """By `kill -9`, in steps, validations and writes, twice in each run, and before and after files are renamed into
    place: the results are the same to the last bit."""
    moments = np.random.default_rng(7).uniform(0.05, 0.95, times * RUNS).round(3).tolist()
    how = launch(SCRIPT, clips, tmp_path, moments, timeout_s=times * 600)
    assert how["unharmed"] == [0] and how["moment"].count(-9) == 2 * len(moments) and how["file"].count(-9) >= 8
    def weights(name: str) -> torch.Tensor:
        model, _ = load_checkpoint(tmp_path/name/"last.pt")
        return torch.cat([value.flatten().double() for value in model.state_dict().values()])
    expected = weights("unharmed")
    runs = sorted(path.name for path in tmp_path.iterdir() if path.name.startswith(("moment", "file")))
    assert len(runs) == len(moments) + len(how["file"])
    for name in runs:
        assert weights(name).equal(expected), name
        for file in EXACT:
            assert (tmp_path/name/file).read_bytes() == (tmp_path/"unharmed"/file).read_bytes(), (name, file)
        assert not [path for path in (tmp_path/name).iterdir() if ".part" in path.name], name


def store_whole(clips: Path, place: Path) -> Path:
    "Copy clips, and store a recording of two highlights for each of their streams."
    shutil.copytree(clips, place)
    rng = np.random.default_rng(1)
    for number in range(6):
        mel = rng.normal(-8, 2, (2, 80, 600)).astype(np.float32)
        for start in (129, 388): mel[:, :40, start:start + 43] += 4
        path = place/"Recording"/"game"/f"stream{number}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        store_recording([torch.from_numpy(mel)], path, f"stream{number}.mkv", [(3.0, 4.0), (9.0, 10.0)])
    return place


WAYS = ("from other weights", "frozen at first", "the notebook's", "no prefetching", "two threads", "from a pack",
        "half precision", "from whole recordings")


def arguments_of(way: str, clips: Path, tmp_path: Path) -> tuple[Path, TrainConfig, dict]:
    "Clips, settings, and what else `train` is given."
    plain = TrainConfig(epochs=2, batch_size=4, workers=1, val_split=0.3, max_duration_s=4, save_minutes=0,
                        device="cpu", precision="fp32")
    init = {"init": small_model(tmp_path/"model.pt")}
    if way == "from whole recordings": return store_whole(clips, tmp_path/"whole"), replace(plain, workers=2), {}
    if way == "from a pack": return pack_clips(clips, tmp_path/"clips.pack", progress=False)[0].path, plain, {}
    return {"from other weights": (clips, plain, init),
            "frozen at first": (clips, replace(plain, frozen_epochs=1), init),
            "the notebook's": (clips, replace(plain, recipe="notebook", workers=2), {}),
            "no prefetching": (clips, replace(plain, workers=0), {}),
            "two threads": (clips, replace(plain, workers=2), {}),
            "half precision": (clips, replace(plain, precision="fp16"), {})}[way]


@pytest.mark.parametrize("way", WAYS)
def test_stopped_whatever_the_way(clips, tmp_path, monkeypatch, way):
    "Every way to train resumes as if nothing had happened, wherever in an epoch it was stopped."
    data, config, more = arguments_of(way, clips, tmp_path)
    small = ModelConfig(cnn_channels=(4, 4, 8, 8), rnn_hidden=8, att_dim=8)
    def run(name: str) -> None:
        started = (tmp_path/name/"config.json").exists()
        train(data, tmp_path/name, config, small, progress=False, resume=started, **({} if started else more))
    run("unharmed")
    step = training.step_if_finite
    for most in (2, 5):
        left = iter(range(most))
        def stop_after(*given, left=left):
            if next(left, None) is None: raise RuntimeError("the machine disappears")
            return step(*given)
        monkeypatch.setattr(training, "step_if_finite", stop_after)
        with pytest.raises(RuntimeError, match="disappears"): run("stopped")
    monkeypatch.setattr(training, "step_if_finite", step)
    run("stopped")
    states = [load_checkpoint(tmp_path/name/"last.pt")[0].state_dict() for name in ("unharmed", "stopped")]
    assert all(value.equal(states[1][name]) for name, value in states[0].items())
    for file in EXACT: assert (tmp_path/"stopped"/file).read_bytes() == (tmp_path/"unharmed"/file).read_bytes(), file
    assert json.loads((tmp_path/"unharmed"/"config.json").read_text())["versions"]["torch"] == torch.__version__


def test_whole_recordings(clips, tmp_path):
    "Stored recordings give the same weights from a folder and from a pack, and the command says what it hears of them."
    whole = store_whole(clips, tmp_path/"whole")
    packed, _ = pack_clips(whole, tmp_path/"whole.pack", progress=False)
    settings = ("--epochs", 1, "--batch-size", 4, "--max-duration-s", 4, "--device", "cpu", "--val-split", 0.3,
                "--precision", "fp32", "--draws", 1)
    weights = []
    for data, name in ((whole, "files"), (packed.path, "packed")):
        text = printed("train", data, "-o", tmp_path/name, *settings, code=0)
        found = re.search(r"(\d) stored recordings: windows around (\d+) highlights", text)
        assert int(found[2]) == 2 * int(found[1]) and 3 <= int(found[1]) <= 5
        weights.append(load_checkpoint(tmp_path/name/"last.pt")[0].state_dict())
    assert all(value.equal(weights[1][name]) for name, value in weights[0].items())
    path = next((whole/"Recording").rglob("*.pt"))
    torch.save(torch.load(path) | {"highlights_s": [[3.0, 4.5]]}, path)
    assert "other clips" in printed("train", "-o", tmp_path/"files", "--more-epochs", 1)


def test_where_unknown(clips, tmp_path):
    "Clips that do not say where their highlights are train to the last bit as without the loss of steps."
    known, weights = tmp_path/"known", []
    shutil.copytree(clips, known)
    for path in known.rglob("*.pt"):
        torch.save(torch.load(path) | {"highlights_s": [[0.45, 0.95]] if "Positive" in path.parts else []}, path)
    for data, step_weight in ((clips, 0.0), (clips, 1.0), (known, 0.0), (known, 1.0)):
        config = TrainConfig(epochs=1, batch_size=4, workers=0, max_duration_s=4, device="cpu", precision="fp32",
                             step_weight=step_weight)
        torch.manual_seed(0)
        model = HighlightCRNN(cnn_channels=(4, 4, 8, 8), rnn_hidden=8, rnn_layers=1, att_dim=8)
        training.fit(model, *training.make_loaders(*split_clips(load_index(data)[0]), config), config, progress=False)
        weights.append(torch.cat([value.flatten() for value in model.state_dict().values()]))
    assert weights[0].equal(weights[1]) and weights[0].equal(weights[2]) and not weights[0].equal(weights[3])


def test_other_contents(clips, tmp_path):
    "A run resumes with the clips that it was started with, in files or packed; not with others of the same names."
    place = tmp_path/"clips"
    shutil.copytree(clips, place)
    settings = ("--epochs", 1, "--batch-size", 8, "--max-duration-s", 4, "--device", "cpu", "--val-split", 0.3)
    printed("train", place, "-o", tmp_path/"run", *settings, code=0)
    pack_clips(place, tmp_path/"clips.pack", progress=False)
    printed("train", tmp_path/"clips.pack", "-o", tmp_path/"again", "--from-run", tmp_path/"run", code=0)
    path = next(place.rglob("*.pt"))
    torch.save({"tensor": torch.load(path)["tensor"] + 0.1}, path)
    for words in (("-o", tmp_path/"run", "--resume"), ("-o", tmp_path/"other", "--from-run", tmp_path/"run")):
        assert "other clips" in printed("train", *words)


def test_default_network(clips, tmp_path):
    "`train` builds the small network, and refuses a model that contradicts the recipe, the run or the initial weights."
    run, call = tmp_path/"run", ("train", clips, "-o", tmp_path/"other")
    printed("train", clips, "-o", run, "--epochs", 1, "--max-duration-s", 4, "--device", "cpu", code=0)
    model = load_checkpoint(run/"best.pt")[0]
    assert model.config == MODELS["default"]
    costs = [sum(count_multiply_adds(config).values()) for config in (model.config, MODELS["notebook"])]
    assert str(costs[0]) in printed("info", run/"best.pt", code=0) and costs[0] < 0.25 * costs[1]
    assert "network" in printed(*call, "--recipe", "notebook", "--model", "default", code=2)
    assert "leave one out" in printed(*call, "--init", run/"best.pt", "--model", "notebook", code=2)
    assert "expected model default" in printed(*call, "--from-run", run, "--model", "notebook", code=2)


INTERRUPTED = """
import os, signal
import highlight_sense.train as training
from highlight_sense.cli import main
step = training.step_if_finite
def interrupted(*given):
    os.kill(os.getpid(), signal.SIGINT)
    return step(*given)
training.step_if_finite = interrupted
main()
"""


def test_interrupt_says_how_to_resume(clips, tmp_path):
    "Ctrl-C: one line, exit code 130; the same command with --resume finishes the run, and --from-run repeats it."
    def call(*arguments: object) -> list[str]:
        return [sys.executable, "-c", "from highlight_sense.cli import main; main()", "train", *map(str, arguments)]
    settings = ["--epochs", 2, "--batch-size", 8, "--max-duration-s", 4, "--device", "cpu", "--precision", "fp32",
                "--val-split", 0.3]
    def run(command: list[str]) -> subprocess.CompletedProcess:
        return subprocess.run(command, text=True, capture_output=True, timeout=300)
    stopped = run([sys.executable, "-c", INTERRUPTED, "train", *map(str, (clips, "-o", tmp_path/"run", *settings))])
    assert stopped.returncode == 130 and "Traceback" not in stopped.stderr
    assert f"train -o {tmp_path/'run'} --resume` resumes" in stopped.stderr.splitlines()[-1]
    resumed = run(call("-o", tmp_path/"run", "--resume"))
    again = run(call("-o", tmp_path/"again", "--from-run", tmp_path/"run"))
    assert (resumed.returncode, again.returncode) == (0, 0), resumed.stderr + again.stderr
    assert "the same file" in again.stdout
    assert (tmp_path/"run"/"best.pt").read_bytes() == (tmp_path/"again"/"best.pt").read_bytes()
    assert "found epochs 5, expected epochs 2" in printed("train", "-o", tmp_path/"run", "--resume", "--epochs", 5)
    assert load_checkpoint(tmp_path/"run"/"last.pt")[1].epochs == 2 != TrainConfig().epochs


def test_more_epochs_for_a_finished_run(clips, tmp_path):
    "`--more-epochs` resumes a finished run: the first epochs stay, and two calls give the same weights."
    words = ("train", clips, "--epochs", 2, "--batch-size", 8, "--max-duration-s", 3, "--val-split", 0.3)
    printed(*words, "-o", tmp_path/"one", "--device", "cpu", "--precision", "fp32", code=0)
    shutil.copytree(tmp_path/"one", tmp_path/"other")
    before = (tmp_path/"one"/"metrics.jsonl").read_text().splitlines()
    for name in ("one", "other"): printed("train", "-o", tmp_path/name, "--more-epochs", 1, code=0)
    after = (tmp_path/"one"/"metrics.jsonl").read_text().splitlines()
    assert after[:2] == before and [json.loads(row)["epoch"] for row in after] == [1, 2, 3]
    models = [load_checkpoint(tmp_path/name/"last.pt") for name in ("one", "other")]
    assert models[0][1].epochs == 3
    weights = [model.state_dict() for model, _ in models]
    assert all(weights[0][name].equal(value) for name, value in weights[1].items())
    assert "expected at least 1" in printed("train", "-o", tmp_path/"one", "--more-epochs", 0)
