"How many highlights `--per-hour` asks for."
import pytest

from highlight_sense.config import DetectConfig
from highlight_sense.detect import Moment, choose_moments


@pytest.mark.parametrize(("per_hour", "duration_s", "count"), [
    (4, 5400.0, 6), (4, 5400.1, 6), (4, 5399.9, 6), (4, 3600.4, 4), (1, 10_799.0, 3), (0.2, 3600.0, 1), (4, 60.0, 1)])
def test_whole_highlights(per_hour, duration_s, count):
    "The number is rounded, so that a recording which is a moment too long has none too many; one is the least."
    moments = [Moment(10 * number, 10 * number + 5, 10 * number + 2, 0.9 - number / 1000) for number in range(30)]
    chosen, _ = choose_moments(moments, DetectConfig(per_hour=per_hour), duration_s)
    assert len(chosen) == count
