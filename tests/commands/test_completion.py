"A shell completes verbs, options and their values."
import os
import shutil
import subprocess

import pytest
from running import run

ASK = """
. "$1"
COMP_WORDS=(highlight-sense "${@:2}"); COMP_CWORD=$(($# - 1))
_highlight_sense
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.mark.skipif(not shutil.which("bash") or os.name == "nt", reason="needs bash")
def test_bash(tmp_path, monkeypatch):
    "The script that `completion` writes is one that bash understands."
    monkeypatch.setenv("HOME", str(tmp_path))  # with the .bashrc that is to load the script
    code, out, err = run("completion", "--shell", "bash", "--output", tmp_path/"completion")
    assert code == 0 and str(tmp_path) in out, err
    assert str(tmp_path/"completion") in (tmp_path/".bashrc").read_text(encoding="utf-8")

    def complete(*words: str) -> list[str]:
        command = ["bash", "-c", ASK, "bash", str(tmp_path/"completion"), *words]
        return subprocess.run(command, text=True, capture_output=True, check=True).stdout.split()

    assert complete("de") == ["demo", "detect"]
    assert complete("detect", "--eng") == ["--engine"]
    assert complete("detect", "--engine", "") == ["torch", "openvino"]
