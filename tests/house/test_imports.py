"Importing the package has no effects: a library does not own the process that imports it."
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for path in (ROOT/"highlight_sense").rglob("*.py") if path.name not in ("__init__.py", "_modidx.py"))

WATCH = '''
import ast, ctypes, importlib, os, signal, sys, threading
from pathlib import Path

modules = sys.argv[1:]


def imported_from_elsewhere(module):
    "The modules from outside the package that a module imports at its top."
    path = Path(importlib.util.find_spec(module).origin)
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Import): yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and not node.level: yield node.module


import importlib.util
for name in {name for module in modules for name in imported_from_elsewhere(module)}:
    if not name.startswith("highlight_sense"): importlib.import_module(name)  # their effects are not tested here
import torch

calls = []


def noted(function):
    "A function that notes each call from the package."
    def wrapped(*arguments, **settings):
        if "highlight_sense" in sys._getframe(1).f_globals["__name__"]: calls.append(function.__name__)
        return function(*arguments, **settings)
    return wrapped


def state():
    "Everything that an import might change."
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    files = sorted(str(path) for place in (Path.cwd(), Path.home()) for path in place.rglob("*"))
    threads = torch.get_num_threads(), threading.active_count()
    return dict(os.environ), handlers, files, threads, torch.get_default_dtype()


class Library(ctypes.CDLL):
    "A library that notes each look-up of malloc's options."
    def __getattr__(self, name):
        if name.startswith("mall"): calls.append(name)
        return super().__getattr__(name)


ctypes.CDLL = Library
os.register_at_fork, signal.signal = noted(os.register_at_fork), noted(signal.signal)
before = state()
for module in modules:
    importlib.import_module(module)
    assert state() == before, f"{module}: {[(old, new) for old, new in zip(before, state()) if old != new]}"
    assert not calls, f"{module}: {calls}"
print("ok", len(modules))
'''


def run_watched(tmp_path: Path, modules: list[str], folder: Path = ROOT) -> subprocess.CompletedProcess:
    "Import modules one after the other in a new process, and compare its state before and after each."
    home = tmp_path/"home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home/".cache"),
                   "MPLCONFIGDIR": str(tmp_path/"matplotlib"), "PYTHONPATH": str(folder),
                   "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", WATCH, *modules]
    return subprocess.run(command, cwd=home, env=environment, text=True, capture_output=True)


def test_imports_have_no_effects(tmp_path):
    "Importing a module changes no environment variable, signal handler, malloc option, fork hook, thread or file."
    ended = run_watched(tmp_path, MODULES)
    assert ended.returncode == 0, ended.stderr[-2000:]
    assert ended.stdout.endswith(f"ok {len(MODULES)}\n")


def test_each_effect_is_noticed(tmp_path):
    "The test above would fail for a module with any of these effects."
    effects = {
        "variable": "import os; os.environ['HIGHLIGHT_SENSE'] = '1'",
        "handler": "import signal; signal.signal(signal.SIGUSR1, signal.SIG_IGN)",
        "malloc": "import ctypes; ctypes.CDLL(None).mallopt",
        "fork": "import os; os.register_at_fork(after_in_child=print)",
        "file": "from pathlib import Path; Path('made').touch()"}
    package = tmp_path/"highlight_sense"
    package.mkdir()
    (package/"__init__.py").touch()
    for name, code in effects.items():
        (package/f"{name}.py").write_text(code)
        place = tmp_path/name
        place.mkdir()
        ended = run_watched(place, [f"highlight_sense.{name}"], tmp_path)
        assert ended.returncode == 1, name
        assert "AssertionError: highlight_sense." in ended.stderr, (name, ended.stderr[-1000:])
