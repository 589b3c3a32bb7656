"Two thousand damaged and hostile files; `python tests/fuzz.py 50000` is the long way."
import subprocess
import sys
from pathlib import Path

import pytest

CASES = 2000


@pytest.mark.skipif(sys.platform == "win32", reason="memory is limited the POSIX way")
def test_damaged_files():
    "None ends in a traceback, a hang or a crash: success with finite numbers, or one line and exit code 2."
    ended = subprocess.run([sys.executable, Path(__file__).with_name("fuzz.py"), str(CASES)], text=True, capture_output=True, timeout=800)
    assert ended.returncode == 0 and ended.stdout.endswith(f"{CASES} cases, 0 findings\n"), ended.stdout[-6000:] + ended.stderr[-2000:]
