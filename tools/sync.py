"""Rewrite what follows from settings.ini, CHANGELOG.md, benchmarks/RESULTS.md and the notebooks: badges, install cells
and commands, the table of the course, the sidebar of the site, llms.txt, the figures in nbs/start, README.md,
CITATION.cff. It also joins the pieces of a cell's output.

    python tools/sync.py                             write what is out of date
    python tools/sync.py --check                     write nothing; name what is out of date and exit with 1
    python tools/sync.py --notebook nbs/index.ipynb  only what follows from this notebook
    python tools/sync.py --site                      before nbdev_docs: in the pages, turn links to files that are not
                                                     on the site into addresses; never commit that
"""
import argparse
import itertools
import json
import re
import sys
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SETTINGS = ConfigParser()
SETTINGS.read(ROOT/"settings.ini", encoding="utf-8")
REPO = SETTINGS["DEFAULT"]
NBS = ROOT/REPO["nbs_path"]
INDEX = NBS/REPO["readme_nb"]

BADGE = re.compile(r"^(\[badge\]|\[!\[.*\]\(.*\))$", re.MULTILINE)  # the placeholder, or the badge that replaced it
CLONE = re.compile(r"git clone \S+ && cd [\w.-]+")
INSTALL = "#| hide\n# install"                                      # how an install cell begins
RELATIVE = re.compile(r"\]\((?!\w+:|#)([^)]+)\)")                   # a link to a file of this repository
COURSE = "<!-- course -->"                                          # how the cell with the table of the course begins
TOOL = re.compile(r"(?<=uv tool install )\S+")                      # what uv installs
FIGURE = re.compile(r"<!-- ([^|>]+) \| ([^|>]+) \| (\d) -->.*?<!-- / -->")  # row, column, which number of the cell
NUMBER = re.compile(r"\d+(?:\.\d+)?")
HEAD = re.compile(r"\A# (.+)\n\n> (.+)\n")                           # of a page in Markdown
FRONT_MATTER = '---\ntitle: "\\1"\ndescription: "\\2"\n---\n'         # as nbdev writes it for notebooks
RESULTS = ROOT/"benchmarks"/"RESULTS.md"
START = ("streamer.md", "editor.md", "student.ipynb", "researcher.md", "good.md", "pictures.md")


def is_released() -> bool:
    "Whether CHANGELOG.md gives the version of this tree a date."
    heading = rf"^## {re.escape(REPO['version'])} - \d{{4}}-\d\d-\d\d$"
    return bool(re.search(heading, (ROOT/"CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE))


# pages of a release install its wheel, and their badges open them as released; others follow the branch
RELEASED = is_released()
REF = f"v{REPO['version']}" if RELEASED else REPO["branch"]
PACKAGE = f"{REPO['repo']}=={REPO['version']}" if RELEASED else f"git+{REPO['git_url']}@{REPO['branch']}"

INSTALL_CELL = f"""{INSTALL} the package on Colab; elsewhere it is already installed
import subprocess
import sys

if "google.colab" in sys.modules:
    source = "{PACKAGE}"
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", source], check=True)"""


def start() -> list[Path]: return [NBS/"start"/name for name in START]


def course() -> list[Path]: return sorted(NBS.glob("[0-9]*.ipynb"))


def machinery() -> list[Path]: return sorted((NBS/"machinery").rglob("*.ipynb"))


def numbered() -> list[Path]: return [*course(), *machinery()]


def read(path: Path) -> dict:
    "The notebook at `path`, each source as one string."
    notebook = json.loads(path.read_text(encoding="utf-8"))
    for cell in notebook["cells"]: cell["source"] = "".join(cell["source"])
    return notebook


def text_of(notebook: dict) -> str:
    "The notebook as a file, formatted as nbdev_clean does: neither undoes the other's work."
    cells = [cell | {"source": cell["source"].splitlines(keepends=True)} for cell in notebook["cells"]]
    return json.dumps(notebook | {"cells": cells}, sort_keys=True, indent=1, ensure_ascii=False) + "\n"


def badge(path: Path) -> str:
    "The badge under a title: a notebook opens in Colab; the index shows whether tests pass, and opens the demo."
    if path == INDEX:
        tests = f"{REPO['git_url']}/actions/workflows/test.yaml"
        demo = badge(NBS/"05d_demo.ipynb").replace("Open in Colab", "Demo in Colab")
        return f"[![Tests]({tests}/badge.svg?branch={REPO['branch']})]({tests}) {demo}"
    colab = "https://colab.research.google.com"
    place = f"{REPO['user']}/{REPO['repo']}/blob/{REF}/{path.relative_to(ROOT).as_posix()}"
    return f"[![Open in Colab]({colab}/assets/colab-badge.svg)]({colab}/github/{place})"


def table() -> str:
    "One row for each notebook of the course: its name, the line under its title, its badge."
    rows = [COURSE, "", "| notebook | what it is about | |", "|---|---|---|"]
    for path in course():
        line = re.search(r"^> (.+)$", title_cell(path, read(path))["source"], re.MULTILINE)
        if not line: raise SystemExit(f"{path.name}: found no line that begins with '> ' under the title; add one")
        rows.append(f"| [{path.stem}]({path.relative_to(NBS).as_posix()}) | {line[1]} | {badge(path)} |")
    return "\n".join(rows)


def title_cell(path: Path, notebook: dict) -> dict:
    "The first markdown cell that begins with a title."
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown" and cell["source"].startswith("# "): return cell
    raise SystemExit(f"{path.name}: found no markdown cell that begins with '# Title'")


def joined(outputs: list[dict]) -> list[dict]:
    "A cell's outputs, with pieces of one stream as one: where a notebook divides them depends on timing."
    whole = []
    for output in outputs:
        same = bool(whole) and output["output_type"] == whole[-1]["output_type"] == "stream"
        if same and output["name"] == whole[-1]["name"]: whole[-1]["text"] += output["text"]
        else: whole.append(output)
    return whole


def synced(path: Path) -> dict:
    "The notebook at `path` as it should be."
    notebook = read(path)
    title = title_cell(path, notebook)
    if not BADGE.search(title["source"]): raise SystemExit(f"{path.name}: found no line '[badge]' in the title cell")
    title["source"] = BADGE.sub(badge(path), title["source"], count=1)
    if path != INDEX and not any(cell["source"].startswith(INSTALL) for cell in notebook["cells"]):
        raise SystemExit(f"{path.name}: found no cell that begins with {INSTALL!r}; add one below the title")
    for cell in notebook["cells"]:
        if cell["source"].startswith(INSTALL): cell["source"] = INSTALL_CELL
        if cell["source"].startswith(COURSE): cell["source"] = table()
        if "outputs" in cell: cell["outputs"] = joined(cell["outputs"])
        cell["source"] = CLONE.sub(f"git clone {REPO['git_url']} && cd {REPO['repo']}", cell["source"])
        cell["source"] = TOOL.sub(PACKAGE, cell["source"])
    return notebook


def shown(output: dict) -> str:
    "The text of a cell's output; the README shows no pictures."
    return "".join(output.get("text") or output.get("data", {}).get("text/plain", []))


def blocks(notebook: dict) -> Iterator[str]:
    "The cells of a notebook as Markdown."
    for cell in notebook["cells"]:
        if cell["cell_type"] == "markdown": yield RELATIVE.sub(from_root, cell["source"])
        elif not cell["source"].startswith("#| hide"):
            yield f"```python\n{cell['source']}\n```"
            if text := "".join(map(shown, cell["outputs"])).rstrip(): yield f"```\n{text}\n```"


def from_root(link: re.Match) -> str:
    "A link that starts in the notebooks' folder, as seen from the folder above."
    target = link[1]
    return f"]({target[3:]})" if target.startswith("../") else f"]({REPO['nbs_path']}/{target})"


def readme(index: dict) -> str:
    "README.md, from the index."
    origin = f"<!-- Made from {INDEX.relative_to(ROOT).as_posix()} by tools/sync.py: edit that notebook. -->"
    return "\n\n".join([*(block.strip() for block in blocks(index)), origin]) + "\n"


def sections() -> dict[str, list[Path]]:
    "The pages of the site by section, in reading order."
    return {"Start here": start(), "The course": course(), "Machinery": machinery()}


def sidebar() -> str:
    "The sidebar of the site: all pages, in reading order."
    lines = ["website:", "  sidebar:", "    contents:", f"      - {INDEX.name}"]
    for title, pages in sections().items():
        lines += [f"      - section: {title}", "        contents:"]
        lines += [f"          - {page.relative_to(NBS).as_posix()}" for page in pages]
    return "\n".join(lines) + "\n"


def entry(path: Path) -> str:
    "A page in llms.txt: its title, its address and what it is about."
    text = path.read_text(encoding="utf-8") if path.suffix == ".md" else title_cell(path, read(path))["source"]
    title, line = (re.search(rf"^{mark} (.+)$", text, re.MULTILINE)[1] for mark in ("#", ">"))
    place = path.relative_to(NBS).with_suffix(".html").as_posix()
    return f"- [{title}]({REPO['doc_host']}{REPO['doc_baseurl']}/{place}): {line}"


def llms() -> str:
    "What the project is, and what each page is about, for language models; the form is that of llmstxt.org."
    about = ("A Python package and a command line. `highlight-sense --help` lists the commands; with `--json`, "
             "`detect`, `info`, `learn`, `evaluate` and `audit` print one JSON document. Exit codes: 0, 1 for a bug, "
             "2 for bad usage or input, with one line that says what was found, what was expected and what to do. "
             f"Source: {REPO['git_url']}")
    lines = [f"# {REPO['title']}", "", f"> {REPO['description']}.", "", about]
    for title, pages in sections().items():
        lines += ["", f"## {'Optional' if title == 'Machinery' else title}", "", *map(entry, pages)]
    return "\n".join(lines) + "\n"


def rows_of(results: str) -> list[tuple[dict[str, str], str]]:
    "Each row of each table in RESULTS.md: its cells by the heading of their column, and its first cell."
    rows, headings = [], None
    for line in results.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")] if line.startswith("|") else None
        if cells is None: headings = None
        elif headings is None: headings = cells
        elif set(line) - set("|-"): rows.append((dict(zip(headings, cells)), cells[0]))
    return rows


def figure(marked: re.Match, results: str) -> str:
    "A figure between its marks, as RESULTS.md has it: the row and the column are named by how they begin."
    row, column, number = marked.groups()
    found = [value for cells, first in rows_of(results) if first.startswith(row)
             for heading, value in cells.items() if heading.startswith(column)]
    numbers = NUMBER.findall(found[0]) if len(found) == 1 else []
    if len(numbers) < int(number):
        raise SystemExit(f"RESULTS.md: found {found} in row '{row}', column '{column}', expected one cell with "
                         f"{number} numbers; mend the row or the mark in nbs/start")
    return f"<!-- {row} | {column} | {number} -->{numbers[int(number) - 1]}<!-- / -->"


def page(path: Path, results: str) -> str:
    "A page of nbs/start with what it installs and its figures as they are now."
    text = TOOL.sub(PACKAGE, path.read_text(encoding="utf-8"))
    return FIGURE.sub(lambda marked: figure(marked, results), text)


CITATION = f"""# Made from settings.ini by tools/sync.py.
cff-version: 1.2.0
message: If you use this software, please cite it as below.
type: software
title: {REPO['title']}
abstract: {REPO['description']}.
authors:
  - name: {REPO['author']}
license: {REPO['license'].upper()}
repository-code: {REPO['git_url']}
keywords: [{REPO['keywords'].replace(' ', ', ')}]
"""


def derived(notebooks: list[Path]) -> Iterator[tuple[Path, str]]:
    "Every file that follows from these notebooks and settings.ini, with what it should hold."
    for path in notebooks:
        notebook = synced(path)
        yield path, text_of(notebook)
        if path == INDEX:
            yield ROOT/"README.md", readme(notebook)
            yield ROOT/"CITATION.cff", CITATION


def derived_pages() -> Iterator[tuple[Path, str]]:
    "The sidebar, llms.txt and the pages in Markdown, with what they should hold."
    yield NBS/"sidebar.yml", sidebar()
    yield NBS/"llms.txt", llms()
    results = RESULTS.read_text(encoding="utf-8")
    for path in start():
        if path.suffix == ".md": yield path, page(path, results)


def to_address(link: re.Match, folder: Path) -> str:
    "A link in a page in `folder`: as it is, or the address of its file on GitHub if that is no page of the site."
    target, mark, part = link[1].partition("#")
    path = (folder/target).resolve()
    if path.is_relative_to(NBS) and path.is_file(): return link[0]
    kind = "tree" if path.is_dir() else "blob"
    return f"]({REPO['git_url']}/{kind}/{REF}/{path.relative_to(ROOT).as_posix()}{mark}{part})"


def for_the_site() -> Iterator[tuple[Path, str]]:
    "All pages, with links that also work on the site, and the titles of those in Markdown as quarto reads them."
    for path in [*start(), *numbered(), INDEX]:
        def addressed(text: str, folder: Path = path.parent) -> str:
            return RELATIVE.sub(lambda link: to_address(link, folder), text)
        if path.suffix == ".md": yield path, HEAD.sub(FRONT_MATTER, addressed(path.read_text(encoding="utf-8")))
        else:
            notebook = read(path)
            for cell in notebook["cells"]:
                if cell["cell_type"] == "markdown": cell["source"] = addressed(cell["source"])
            yield path, text_of(notebook)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if a file is out of date")
    parser.add_argument("--notebook", type=Path, help="only this notebook, and README.md where it is the index")
    parser.add_argument("--site", action="store_true", help="only turn links to files not on the site into addresses")
    options = parser.parse_args()
    if options.site: files = for_the_site()
    elif options.notebook: files = derived([options.notebook.resolve()])
    else: files = itertools.chain(derived([*numbered(), NBS/"start"/"student.ipynb", INDEX]), derived_pages())
    stale = [(path, text) for path, text in files
             if not path.exists() or path.read_text(encoding="utf-8") != text]
    for path, text in stale:
        print(f"{path.relative_to(ROOT)}: {'out of date; run python tools/sync.py' if options.check else 'written'}")
        if not options.check: path.write_text(text, encoding="utf-8", newline="\n")
    return 1 if options.check and stale else 0


if __name__ == "__main__": sys.exit(main())
