"What other systems do differently, as far as one system can act like another."
import io
import os
import sys
from pathlib import Path

import pytest
import torch
from running import small_model, write_rated

from highlight_sense import files
from highlight_sense.cli import main
from highlight_sense.config import DetectConfig
from highlight_sense.detector import load_detector
from highlight_sense.download import is_url
from highlight_sense.files import InputError, only_writer, write_atomically
from highlight_sense.jobs import plan_jobs
from highlight_sense.kernels import cpu
from highlight_sense.kernels.choice import kernels_in_use
from highlight_sense.text import shown_url


@pytest.mark.parametrize("words", (
    ["detect", "Жили-были → ✓.mka", "-o", "out", "--top", 2, "--window", 8],
    ["--help"], ["train", "--help"], ["info", "missing ✓.mkv"]), ids=["detect", "help", "train", "info"])
def test_consoles_of_windows(words, tmp_path, monkeypatch):
    "A console or a pipe that knows few letters gets the others escaped."
    monkeypatch.chdir(tmp_path)
    if words[0] == "detect":
        write_rated(tmp_path, 20, 8000)
        (tmp_path/"stream.mka").rename(tmp_path/words[1])
        words = [*words, "--model", "model.pt"]
    out = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    err = io.TextIOWrapper(io.BytesIO(), encoding="cp1252", errors="backslashreplace")  # as Python opens it
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    with pytest.raises(SystemExit) if words[0] == "info" or "--help" in words else monkeypatch.context():
        main([str(word) for word in words])
    out.flush()
    err.flush()
    printed = (out.buffer.getvalue() + err.buffer.getvalue()).decode("cp1252")
    if words[0] in ("detect", "info"): assert "\\u2713" in printed
    else: assert "highlight-sense" in printed


def test_one_writer_without_folder_locks(tmp_path, monkeypatch):
    "Windows locks no folder."
    monkeypatch.setattr(files, "fcntl", None)
    with only_writer(tmp_path/"new"/"run"):
        with pytest.raises(InputError, match="another process"), only_writer(tmp_path/"new"/"run"): pass
        with only_writer(tmp_path/"new"/"other"): pass
    assert not any(tmp_path.iterdir())


def test_a_file_that_another_program_has_open(tmp_path, monkeypatch, capsys):
    "Windows refuses to replace it: for a moment, or as long as a spreadsheet shows it."
    write_rated(tmp_path, 20, 8000)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(files, "_PAUSES_S", (0, 0))
    replace, busy = os.replace, [True, True]

    def refuse(source: Path, target: Path) -> None:
        if Path(target).name == "highlights.csv" and busy:
            busy.pop()
            raise PermissionError(13, "Access is denied", str(source), None, str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    words = ["detect", "stream.mka", "-o", "out", "--model", "model.pt", "--window", "8", "--top", "2"]
    main(words)
    assert (tmp_path/"out"/"stream"/"highlights.csv").exists() and not busy
    busy.extend([True] * 9)
    with pytest.raises(SystemExit): main([*words[:-1], "3"])
    assert "highlights.csv: found no permission" in capsys.readouterr().err
    assert not list((tmp_path/"out"/"stream").glob(".unfinished*"))
    busy.clear()
    main([*words[:-1], "3"])


@pytest.mark.parametrize("names, folders", (
    (["Stream.mkv", "stream.mp4"], ["Stream.mkv", "stream.mp4"]),   # one folder on Windows and macOS
    (["Wait....mkv", "end .mkv"], ["Wait....mkv", "end .mkv"]),     # Windows would cut off dots and spaces
    (["Stream 1.mkv", "Stream 2.mkv"], ["Stream 1", "Stream 2"])))
def test_folders_exist_everywhere(names, folders, tmp_path):
    "The folder of a recording has a name that no system changes, and no other recording's."
    paths = [tmp_path/str(number)/name for number, name in enumerate(names)]
    for path in paths:
        path.parent.mkdir()
        path.write_bytes(b"")
    jobs, failed = plan_jobs(paths, tmp_path/"out", progress=False)
    assert [job.folder.name for job in jobs] == folders and not failed


def test_drives_are_no_addresses():
    "The letter of a drive is no scheme."
    for path in (r"C:\streams\monday.mkv", "C:/streams/monday.mkv?", "D:monday.mkv", r"\\server\streams\monday.mkv"):
        assert not is_url(path) and shown_url(path) == path


@pytest.fixture
def forgotten():
    "Let each test look for compiled kernels anew."
    cpu._load.cache_clear()
    yield
    cpu._load.cache_clear()


def test_without_a_compiler(tmp_path, monkeypatch, forgotten):
    "Where there is no GCC, PyTorch's own operations compute the same scores."
    mels = list(torch.randn(3, 2, 80, 320, generator=torch.manual_seed(0)) - 6)
    small_model(tmp_path/"model.pt")
    config = DetectConfig(precision="fp32")
    expected = load_detector(tmp_path/"model.pt", config).score(mels)
    cpu._load.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert kernels_in_use(torch.device("cpu")) == "operations"
    found = load_detector(tmp_path/"model.pt", config).score(mels)
    for one, other in zip(found, expected, strict=True): torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_names_of_any_language(tmp_path):
    "A file is written under a name that the encoding of a console does not hold."
    with write_atomically(tmp_path/"Ежедневно 配信 🎮.json") as path: path.write_text("{}", encoding="utf-8")
    assert [path.name for path in tmp_path.iterdir()] == ["Ежедневно 配信 🎮.json"]
