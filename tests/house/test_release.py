"What a release is made from: the section of CHANGELOG.md, the pinned versions, the record for citations."
import importlib.util
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
CHANGELOG = """# Changelog

## 0.2.0 - unreleased

- Later.

## 0.1.0 - 2026-12-01

### Added

- First.

## 0.0.1 - 2026-01-01
"""


def tool(name: str) -> object:
    "Import a script of tools/."
    spec = importlib.util.spec_from_file_location(name, ROOT/"tools"/f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_notes_are_the_section_of_a_version():
    "A version without a section or a date is refused."
    notes = tool("release_notes").release_notes
    assert notes(CHANGELOG, "0.1.0") == "### Added\n\n- First.\n"
    with pytest.raises(ValueError, match="- unreleased, expected"): notes(CHANGELOG, "0.2.0")
    with pytest.raises(ValueError, match="found no section"): notes(CHANGELOG, "0.3.0")


def test_every_requirement_is_pinned():
    "constraints.txt, the lock file for development, has a version of each, and one that settings.ini allows."
    settings = ConfigParser()
    settings.read(ROOT/"settings.ini", encoding="utf-8")
    lines = (ROOT/"constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    versions = {canonicalize_name(pin.name): next(iter(pin.specifier)).version for pin in pins}
    wanted = [Requirement(word) for name, words in settings["DEFAULT"].items() if name.endswith("requirements")
              for word in words.split()]
    assert len(wanted) > 30
    for one in wanted:
        if one.name == "triton": continue  # a CUDA build of torch requires a version of its own
        assert one.specifier.contains(versions[canonicalize_name(one.name)]), str(one)
