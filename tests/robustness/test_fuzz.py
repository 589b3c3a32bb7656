"Two thousand damaged and hostile files; with `--times 25`, fifty thousand."
import subprocess
import sys
from pathlib import Path

import pytest

CASES = 2000


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="memory is limited the POSIX way")
def test_damaged_files(times):
    "Each gives finite results, or one line and exit code 2: no traceback, no hang, no crash."
    command = [sys.executable, Path(__file__).with_name("fuzz.py"), str(times * CASES)]
    ended = subprocess.run(command, text=True, capture_output=True, timeout=times * 800)
    expected = f"{times * CASES} cases, 0 findings\n"
    assert ended.returncode == 0 and ended.stdout.endswith(expected), ended.stdout[-6000:] + ended.stderr[-2000:]
