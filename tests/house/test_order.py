"Two floors: the course, read in order, and the machinery below it. Imports point one way."
import ast
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COURSE = sorted((ROOT/"nbs").glob("[0-9]*.ipynb"))
MACHINERY = sorted((ROOT/"nbs"/"machinery").rglob("*.ipynb"))
# machinery that works on what a lesson defines; `decisions` gives kept moments the context that `detect` gives its own;
# `locate` compares log-mels; `previews` cuts and draws as the report does, and `review_server` shows scores; `__main__`
# is the command line
SERVES_A_LESSON = {
    "__main__", "batches", "checkpoint", "decisions", "detections", "detector", "engine", "kernels", "locate",
    "previews", "review_server", "run", "run_folder"}


def module_of(notebook: Path) -> str:
    "The module that a notebook exports, without the package's name."
    first = "".join(json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]["source"])
    return re.fullmatch(r"#\| default_exp (\S+)", first.strip())[1]


def source_of(module: str) -> Path:
    "The file of a module."
    return ROOT.joinpath("highlight_sense", *module.split(".")).with_suffix(".py")


def imports_of(module: str) -> set[str]:
    "The modules of the package that a module imports, at its top or inside a function."
    found, level = set(), module.count(".") + 1
    for node in ast.walk(ast.parse(source_of(module).read_text(encoding="utf-8"))):
        if not isinstance(node, ast.ImportFrom): continue
        inside = node.level > 0 or (node.module or "").split(".")[0] == "highlight_sense"
        if not inside: continue
        name = (node.module or "").removeprefix("highlight_sense").strip(".")
        if node.level == 1 and level > 1: name = ".".join([*module.split(".")[:-1], *([name] if name else [])])
        candidates = [name, f"{name}.__init__"] if name else [alias.name for alias in node.names]
        found |= {each for each in candidates if each in MODULES}
        found |= {f"{name}.{alias.name}" for alias in node.names if name and f"{name}.{alias.name}" in MODULES}
    return found - {module}


LESSONS = [module_of(path) for path in COURSE]
BELOW = [module_of(path) for path in MACHINERY]
MODULES = {*LESSONS, *BELOW}


@pytest.mark.parametrize("module", sorted(MODULES))
def test_imports_within_the_package_are_relative(module):
    "`nbdev_export` leaves one as it is if its last line is shorter than its `from highlight_sense.module`."
    assert "from highlight_sense." not in re.sub(r"(?m)^ .*", "", source_of(module).read_text(encoding="utf-8"))


def serves(module: str) -> bool:
    "Whether a machinery module may import the lesson that it serves."
    return module.split(".")[0] in SERVES_A_LESSON


@pytest.mark.parametrize("module", LESSONS)
def test_a_lesson_imports_only_earlier_lessons(module):
    "A lesson imports only lessons before it, so a reader meets nothing unexplained."
    earlier = set(LESSONS[:LESSONS.index(module)])
    assert imports_of(module) & set(LESSONS) <= earlier


@pytest.mark.parametrize("module", BELOW)
def test_machinery_stands_on_its_own(module):
    "Machinery imports no lesson, unless it serves one."
    lessons = imports_of(module) & set(LESSONS)
    assert not lessons or serves(module), f"{module} imports {sorted(lessons)}"


def test_no_circles():
    "Some order exists in which every module comes after all those that it imports."
    waiting, done = {module: imports_of(module) for module in MODULES}, set()
    while ready := {module for module, needs in waiting.items() if needs <= done}:
        done |= ready
        waiting = {module: needs for module, needs in waiting.items() if module not in ready}
    assert not waiting, waiting


def test_the_network_is_plain_pytorch():
    "`02_model` imports nothing from the package but its configuration."
    assert imports_of("model") == {"config"}


STEPS = (
    "download the data set", "configuration", "import what is needed", "index the data set",
    "split into training and validation", "dataset and augmentation", "data loaders", "model architecture",
    "training and evaluation", "clean up")


def test_ten_steps_of_the_colab_notebook():
    "Every step has a heading with its number and name, in order, in `00_data` to `03_train`."
    found = []
    for name in ("00_data", "01_dataset_aug", "02_model", "03_train"):
        cells = json.loads((ROOT/"nbs"/f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        found += re.findall(r"^#+ Step (\d+): (.+)$", text, re.MULTILINE)
    assert found == [(str(number), name) for number, name in enumerate(STEPS, 1)]
