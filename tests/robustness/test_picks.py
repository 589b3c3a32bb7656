"Verdicts survive two programs that write at once, kills at any moment, and a full disk."
import csv
import errno
import os
import signal
import sys

import pytest
from running import launch, needs_fork

from highlight_sense.picks import Pick, read_picks, remove_pick, save_pick


def pick(number: int) -> Pick:
    "A verdict on the number-th moment."
    return Pick("evening.mkv", 10.0 * number + 1, 10.0 * number + 6, "keep", 10.0 * number, 10.0 * number + 8, 0.5)


@needs_fork
def test_two_programs_at_once(tmp_path):
    "Three processes write 20 verdicts each into the same file, and all 60 are there."
    script = '''
from highlight_sense.picks import Pick, save_pick
path, = json.loads(sys.argv[1])

def decide(first):
    for number in range(first, first + 20):
        save_pick(path, Pick("evening.mkv", 10.0 * number, 10.0 * number + 8, "keep", 10.0 * number, 10.0 * number + 8))

pids = [start(lambda first=first: decide(first)) for first in (0, 20, 40)]
print(json.dumps([status(pid) for pid in pids]))
'''
    assert launch(script, tmp_path/"picks.csv") == [0, 0, 0]
    assert sorted(one.start_s for one in read_picks(tmp_path/"picks.csv")) == [10.0 * number for number in range(60)]


@needs_fork
def test_killed(tmp_path):
    "A process that is killed while it writes leaves every confirmed verdict, and no lock."
    script = '''
from highlight_sense.picks import Pick, save_pick
path, confirmed = json.loads(sys.argv[1])

def decide():
    for number in range(10_000):
        save_pick(path, Pick("evening.mkv", 10.0 * number, 10.0 * number + 8, "drop"))
        with open(confirmed, "a") as file: file.write(f"{number}\\n")

def die(n, after):
    return start(decide, lambda: die_at(n, after, ("replace", "fsync")))

codes = [status(die(n, after)) for n in range(1, 10) for after in (False, True)]
codes += [kill_after(start(decide), 0.005 * n) for n in range(1, 12)]
print(json.dumps(codes))
'''
    codes = launch(script, tmp_path/"picks.csv", tmp_path/"confirmed")
    assert codes == [-signal.SIGKILL] * 29
    numbers = {int(line) for line in (tmp_path/"confirmed").read_text().split()}
    assert len(numbers) > 3 and {10.0 * number for number in numbers} <= {
        one.start_s for one in read_picks(tmp_path/"picks.csv")}
    save_pick(tmp_path/"picks.csv", pick(99_999))


@pytest.mark.parametrize("at", ["fsync", "replace", "open"])
def test_full_disk(at, tmp_path, monkeypatch):
    "The error names the table; earlier verdicts are there, and no unfinished file is left."
    path = tmp_path/"picks.csv"
    save_pick(path, pick(1))
    before = path.read_bytes()

    def full(*arguments: object, **named: object) -> None: raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, at, full)
        for change in (save_pick, remove_pick):
            with pytest.raises(OSError, match="No space left") as raised: change(path, pick(1))
            assert raised.value.filename == str(path)
    assert path.read_bytes() == before and {one.name for one in tmp_path.iterdir()} <= {path.name, ".picks.lock"}
    remove_pick(path, pick(1))
    assert read_picks(path) == []


def test_written_by_a_script(tmp_path):
    "Four columns are enough; the page adds to such a table, replaces one of its rows, and keeps the notes in it."
    path = tmp_path/"picks.csv"
    rows = ["recording,start_s,end_s,verdict,why", "evening,11,16,keep,loud", "evening,0:00:21,26.5,missed,",
            "evening,31,36,perhaps,", "evening,46,41,drop,", "evening,51,56"]
    path.write_text("\n".join(rows) + "\n")
    save_pick(path, Pick("evening.mkv", 11, 16, "drop"))
    assert [(one.start_s, one.verdict) for one in read_picks(path)] == [(21, "missed"), (11, "drop")]
    assert (tmp_path/"picks.before-1.csv").read_text().splitlines() == rows
    with open(path, "a", newline="") as file: csv.writer(file).writerow(["evening", 61, 66, "keep"])
    save_pick(path, pick(9))
    assert [one.start_s for one in read_picks(path)] == [21, 11, 61, 91]
    assert not (tmp_path/"picks.before-2.csv").exists()


def test_unreadable_tables_stay(tmp_path):
    "A file that is not a table of picks is never replaced."
    from highlight_sense.files import InputError
    path = tmp_path/"picks.csv"
    for content in (b"\x89PNG\r\n\x1a\n\0\0", b"start,end\n1,2\n", b'recording,start_s,end_s,verdict\na,1,2,"keep\n'):
        path.write_bytes(content)
        with pytest.raises(InputError, match=r"picks\.csv.*expected"): save_pick(path, pick(1))
        assert path.read_bytes() == content


@pytest.mark.skipif(sys.platform == "win32", reason="links need rights")
def test_a_link(tmp_path):
    "A link may lead to anything: it is neither read nor replaced."
    from highlight_sense.files import InputError
    (tmp_path/"elsewhere.csv").write_text("recording,start_s,end_s,verdict\n")
    (tmp_path/"picks.csv").symlink_to(tmp_path/"elsewhere.csv")
    with pytest.raises(InputError, match="found a link"): save_pick(tmp_path/"picks.csv", pick(1))
