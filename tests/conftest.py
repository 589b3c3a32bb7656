"How thorough the tests are that break things by the dozen: `--times 25` breaks 25 times as many, and `-m 'not long'` leaves them out."
import signal

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", type=int, default=1, metavar="N", help="N times as many kills and damaged files as CI has, in the tests marked long")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: kills processes or damages files, again and again; bounded, unless --times says otherwise")
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN: signal.signal(signal.SIGINT, signal.default_int_handler)  # a job begun with & passes it on


@pytest.fixture(scope="session")
def times(request: pytest.FixtureRequest) -> int:
    "How many times as thorough as in CI."
    return request.config.getoption("--times")
