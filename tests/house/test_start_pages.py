"""The start pages: their commands run in the order of the page, their links and pictures exist, and they follow
RESULTS.md, CHANGELOG.md and settings.ini.
"""
import importlib.util
import json
import re
import shlex
import shutil
import subprocess
import sys
import webbrowser
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from running import TRAINING, run, write_clips

from highlight_sense import learn as learning
from highlight_sense.review_server import ReviewServer
from highlight_sense.sessions import make_sessions

ROOT = Path(__file__).parents[2]
START = ROOT/"nbs"/"start"
PAGES = sorted(START.glob("*.md"))
SHELL = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
NETWORK = {"fetch", "demo"}  # tested elsewhere; what they make lies there


@pytest.fixture(scope="module")
def streams(tmp_path_factory: pytest.TempPathFactory) -> Path:
    "Two synthetic streams of a minute, with labels."
    streams = tmp_path_factory.mktemp("streams")
    make_sessions(streams, count=2, minutes=1, seed=2, picture=True)
    return streams


@pytest.fixture
def place(streams: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    "A folder with all that the pages name, in which the review page is answered by a program and learning is short."
    names = ("monday.mkv", "tuesday.mkv")
    paths = sorted(streams.rglob("*.mkv"))
    table = (streams/"labels.csv").read_text()
    for path, name in zip(paths, names): table = table.replace(path.name, name)
    for folder in ("recordings", "others"):
        (tmp_path/folder).mkdir()
        for path, name in zip(paths, names): shutil.copy(path, tmp_path/folder/name)
    shutil.copy(paths[0], tmp_path/"stream.mkv")
    for name in ("labels.csv", "others.csv"): (tmp_path/name).write_text(table)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HIGHLIGHT_SENSE_HOME", str(tmp_path/"home"))
    monkeypatch.setattr(webbrowser, "open", lambda address: None)
    monkeypatch.setattr(ReviewServer, "wait", answer)
    monkeypatch.setattr(learning, "_LEAST_BATCHES", 20)
    monkeypatch.setattr(learning, "_PASSES", 1)
    return tmp_path


def answer(server: ReviewServer) -> None:
    "Keep the moments above the threshold, and drop the others, as a person does on the page."
    for one in server._room.reviews:
        for number in one.asked:
            moment = one.verdicts.candidates[number]
            verdict = "keep" if moment.probability >= (one.threshold or 0.5) else "drop"
            one.verdicts.judge(number, verdict, moment.start_s, moment.end_s)


def commands(page: str) -> list[list[str]]:
    "The words of each command of highlight-sense in the shell blocks of a page, in order."
    text = (START/page).read_text(encoding="utf-8")
    lines = [line for block in SHELL.findall(text) for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("highlight-sense ")]


def shortened(words: list[str]) -> list[str]:
    "A command as it is, but `train` takes one epoch of short clips, and `prepare` cuts clips that fit into a minute."
    if words[0] == "prepare": return [*words, "--lengths", "172", "345", "1", "--negative-s", "8"]
    if words[0] != "train": return words
    kept = [word for before, word in pairwise(["", *words]) if not {before, word} & set(TRAINING[::2])]
    return [*kept, *map(str, TRAINING), "--draws", "1"]


def follow(page: str, after: Callable[[str], object] = str) -> str:
    "Run the commands of a page, and after each of them what the reader does next; return what is printed."
    printed = []
    for words in commands(page):
        if words[0] in NETWORK: continue
        code, said, complaint = run(*shortened(words))
        assert code == 0 or (words[0], code) == ("audit", 3), (words, complaint[-2000:])
        printed.append(said)
        after(words[0])
    return "\n".join(printed)


def test_a_streamer_gets_clips_and_a_model(place):
    "The page of the streamer ends with MP4 clips that later commands leave alone, and a sentence on the new model."
    printed = follow("streamer.md")
    made = place/"evening"/"stream"
    assert all(list(made.glob(kind)) for kind in ("chapters/*.txt", "report.html", "timelines/*.xml"))
    clips = list((place/"evening"/"stream"/"clips").glob("*.mp4"))
    assert clips and all(re.fullmatch(r"\d\dh\d\dm\d\ds_score\d+\.mp4", path.name) for path in clips)
    assert "kept" in printed and "mine" in printed and (place/"mine.pt").is_file()


def test_an_editor_gets_timelines(place):
    "The page of the editor ends with every timeline that it names, and with clips."
    found = place/"found"/"monday"

    def keep_list(command: str) -> None:
        if command == "publish": shutil.copy(found/"timelines"/"monday.edl", place/"marks.edl")

    follow("editor.md", keep_list)
    named = set(re.findall(r"\| `(monday\.[\w.]+)`", (START/"editor.md").read_text(encoding="utf-8")))
    assert len(named) >= 4 and named <= {path.name for path in (found/"timelines").iterdir()}
    assert (found/"report.html").is_file() and list((found/"clips").iterdir())
    assert all((place/"found"/day/"timelines").is_dir() for day in ("monday", "tuesday"))


def test_a_researcher_gets_figures(place):
    "The page of the researcher, and the last command of the page on figures, end with measured models."
    for folder in ("highlight-sense-demo/clips/train", "highlight-sense-demo/clips/test", "downloaded"):
        write_clips(place/folder, 6, 6)
    printed = follow("researcher.md")
    assert all((place/f"measured-{name}"/"metrics.json").is_file() for name in ("default", "notebook"))
    assert printed.count("ap_low") == 2 and "labelled highlights are found" in printed
    assert "labelled highlights are found" in follow("good.md")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_and_pictures_exist(page):
    "Each link of a page leads somewhere; each picture has a description and is small."
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!\w+:)([^)#]+)", text): assert (START/target).exists(), target
    assert re.search(r"^# .+\n\n> .+$", text, re.MULTILINE) and "![](" not in text
    for name in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", text): assert (START/name).stat().st_size <= 150_000, name


def test_the_index_names_every_page():
    "README leads to all of them."
    readme = (ROOT/"README.md").read_text(encoding="utf-8")
    for page in START.iterdir(): assert f"](nbs/start/{page.name})" in readme, page.name


def test_install_lines_name_a_python():
    "Each asks for a version that setup.py allows, whatever the reader's machine has."
    pages = [ROOT/"README.md", ROOT/"nbs"/"index.ipynb", *PAGES]
    lines = [line for page in pages for line in page.read_text(encoding="utf-8").splitlines()]
    installing = [line for line in lines if re.search("uv tool install|pipx install", line)]
    assert len(installing) >= 6 and all("--python 3.13" in line for line in installing)
    assert "<3.14" in (ROOT/"setup.py").read_text(encoding="utf-8")


# --- what tools/sync.py writes

def load_sync(place: Path = ROOT) -> ModuleType:
    "The script, as a module of its own."
    spec = importlib.util.spec_from_file_location("sync", place/"tools"/"sync.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("day", ["unreleased", "2027-01-31"])
def test_pages_of_a_release_install_its_wheel(tmp_path, monkeypatch, day):
    "Once CHANGELOG.md has a date, install cells, commands and badges name the release; until then, the branch."
    (tmp_path/"tools").mkdir()
    for name in ("tools/sync.py", "settings.ini"): shutil.copy(ROOT/name, tmp_path/name)
    version = re.search(r"^version = (\S+)", (ROOT/"settings.ini").read_text(), re.MULTILINE)[1]
    (tmp_path/"CHANGELOG.md").write_text(f"# Changelog\n\n## {version} - {day}\n\n## 0.0.1 - 2020-01-01\n")
    sync = load_sync(tmp_path)
    installed = f"highlight-sense=={version}" if day[0] == "2" else f"git+{sync.REPO['git_url']}@main"
    calls = []
    monkeypatch.setitem(sys.modules, "google.colab", ModuleType("google.colab"))
    monkeypatch.setattr(subprocess, "run", lambda words, check: calls.append(words))
    exec(sync.INSTALL_CELL, {})
    assert [words[-1] for words in calls] == [installed]
    assert ("/blob/v" if day[0] == "2" else "/blob/main/") in sync.badge(tmp_path/"nbs"/"05d_demo.ipynb")
    (tmp_path/"page.md").write_text("uv tool install somewhere --python 3.13 --torch-backend=auto")
    assert sync.page(tmp_path/"page.md", "") == f"uv tool install {installed} --python 3.13 --torch-backend=auto"


def test_figures_come_from_the_results(tmp_path):
    "A figure follows its table; a row that is gone is named."
    sync, page = load_sync(), tmp_path/"page.md"
    table = "| | before | now |\n|---|---|---|\n| F1, by day | 0.5 | **0.75 (0.7 to 0.8)** |\n"
    page.write_text("F1 <!-- F1, by | now | 3 -->?<!-- / -->.")
    assert sync.page(page, table) == "F1 <!-- F1, by | now | 3 -->0.8<!-- / -->."
    with pytest.raises(SystemExit, match="row 'F1, by'"): sync.page(page, table.replace("F1, by day", "F1"))


def test_on_the_site_no_link_leads_out():
    "Links to files that are no page of the site become addresses; the sidebar holds each page once."
    sync = load_sync()
    for path, text in sync.for_the_site():
        if path.suffix == ".md":
            cells = [text]
            assert re.match(r'---\ntitle: ".+"\ndescription: ".+"\n---\n\n[^#]', text), path
        else: cells = ["".join(cell["source"]) for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        for target in sync.RELATIVE.findall("\n".join(cells)):
            there = (path.parent/target.partition("#")[0]).resolve()
            assert there.is_relative_to(sync.NBS) and there.is_file(), (path, target)
    listed = re.findall(r"- (\S+\.(?:ipynb|md))", sync.sidebar())
    assert len(listed) == len(set(listed)) and all((sync.NBS/name).is_file() for name in listed)
    assert {*sync.NBS.rglob("*.ipynb"), *PAGES} == {sync.NBS/name for name in listed}
