"""How thorough the long tests are, which kill processes and damage files.

`--times 25` makes them 25 times as thorough; `-m "not long"` leaves them out.
"""
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", type=int, default=1, metavar="N",
                     help="in tests marked long, kill N times as many processes and damage N times as many files")


def pytest_configure(config: pytest.Config) -> None:
    # models in use are the user's own: tests have a folder of theirs, also in the processes that they start
    os.environ["HIGHLIGHT_SENSE_HOME"] = tempfile.mkdtemp(prefix="highlight-sense-home-")
    config.addinivalue_line("markers", "long: kills many processes or damages many files; --times sets how many")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # inherited from a shell job started with &
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_unconfigure() -> None:
    shutil.rmtree(os.environ["HIGHLIGHT_SENSE_HOME"], ignore_errors=True)


@pytest.fixture(scope="session")
def times(request: pytest.FixtureRequest) -> int:
    "How many times as thorough as usual."
    return request.config.getoption("--times")


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    "A headless Chromium. Without one these tests are skipped, but fail in CI."
    found = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if not found or find_spec("playwright") is None:
        assert not os.environ.get("CI"), "found no Chromium or no Python package playwright"
        pytest.skip("needs Chromium and the Python package playwright")
    from playwright.sync_api import sync_playwright
    with sync_playwright() as play:
        options = ["--no-sandbox", "--autoplay-policy=no-user-gesture-required"]
        chromium = play.chromium.launch(executable_path=found, args=options)
        yield chromium
        chromium.close()
