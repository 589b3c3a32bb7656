"The package as users get it: built and installed, without the checkout."
import os
import re
import shutil
import subprocess
import sys
import textwrap
from configparser import ConfigParser
from pathlib import Path

ROOT = Path(__file__).parents[2]


def files_of(package: Path) -> set[str]:
    "All files of a package, installed or in the checkout, except compiled ones."
    return {path.relative_to(package).as_posix() for path in package.rglob("*")
            if path.is_file() and "__pycache__" not in path.parts}


def test_wheel_holds_every_file(tmp_path):
    "The wheel holds every module and every data file, and the installed command runs."
    source = tmp_path/"source"  # building leaves files behind
    shutil.copytree(ROOT/"highlight_sense", source/"highlight_sense", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.py", "settings.ini", "README.md", "LICENSE", "MANIFEST.in"): shutil.copy(ROOT/name, source)
    quiet = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*quiet, "wheel", "--no-deps", "--wheel-dir", tmp_path, source], check=True, cwd=tmp_path)
    wheel, = tmp_path.glob("*.whl")
    subprocess.run([*quiet, "install", "--no-deps", "--target", tmp_path/"site", wheel], check=True)
    assert files_of(tmp_path/"site"/"highlight_sense") == files_of(ROOT/"highlight_sense")
    ask = "import highlight_sense.cli as cli; print(cli.__file__); cli.main(['--help'])"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path/"site")}
    command = [sys.executable, "-c", ask]
    ended = subprocess.run(command, env=environment, cwd=tmp_path, text=True, capture_output=True)
    assert ended.returncode == 0, ended.stderr
    assert str(tmp_path/"site") in ended.stdout and "train" in ended.stdout


def test_lowest_versions_cover_every_extra():
    "The workflow's script gives a version for each requirement that users may install."
    workflow = (ROOT/".github"/"workflows"/"test.yaml").read_text(encoding="utf-8")
    script = textwrap.dedent(re.search(r"<< 'END'\n(.*?)^ +END$", workflow, re.DOTALL | re.MULTILINE)[1])
    printed = subprocess.check_output([sys.executable, "-c", script], cwd=ROOT, text=True)
    settings = ConfigParser()
    settings.read(ROOT/"settings.ini", encoding="utf-8")
    extras = [key for key in settings["DEFAULT"] if key.endswith("requirements") and key != "dev_requirements"]
    wanted = {re.split(r"[\[>]", each)[0] for key in extras for each in settings["DEFAULT"][key].split()}
    assert len(extras) >= 7 and {line.split("==")[0] for line in printed.splitlines()} == wanted


def test_what_to_install_for_an_extra():
    "The packages that an error names are those of `settings.ini`, and each extra has some."
    from highlight_sense.extras import _PACKAGES
    settings = ConfigParser()
    settings.read(ROOT/"settings.ini", encoding="utf-8")
    listed = {key.removesuffix("_requirements"): re.sub(r"[<>=][^ \n]*", "", value).split()
              for key, value in settings["DEFAULT"].items() if key.endswith("_requirements")}
    assert _PACKAGES.keys() == listed.keys() - {"dev"}
    for extra, packages in _PACKAGES.items():
        assert set(packages.replace('"', "").split()) <= set(listed[extra]), extra
