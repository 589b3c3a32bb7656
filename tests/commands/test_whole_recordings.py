"""`prepare` stores whole recordings next to the clips, `pack` takes them along, and nothing counts them as clips."""
import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
import torch
from running import printed, write_stream

from highlight_sense.audio import read_log_mel
from highlight_sense.clip_files import list_clips
from highlight_sense.clip_table import load_index
from highlight_sense.stored_recordings import load_recordings, recording_frames
from highlight_sense.tracks import choose_pair

OPTIONS = ("--negative-s", 1, "--lengths", 43, 65, 1, "--game-name", "Positive")  # a game may be called so


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    "Two labelled recordings of eight seconds, prepared."
    place = tmp_path_factory.mktemp("whole")
    for name in ("evening_part2", "other"): write_stream(place/f"{name}.mka")
    rows = [f"{name},{times}\n" for name in ("evening_part2", "other") for times in ("1,2", "5,6")]
    (place/"labels.csv").write_text("recording,start_s,end_s\n" + "".join(rows))
    said = printed(*prepare(place, place/"clips"), code=0)
    assert "negative clips and 2 whole recordings in" in said, said
    return place


def prepare(place: Path, out: Path) -> tuple:
    "The words that cut both recordings."
    return "prepare", *sorted(place.glob("*.mka")), "--labels", place/"labels.csv", "-o", out, *OPTIONS


def files_in(folder: Path) -> dict[str, bytes]:
    "The content of each file of a clip folder."
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*.pt")}


def test_a_recording_is_kept_whole(place):
    "It has all frames and all highlights, and the group of its clips; clips are counted without it."
    index, recordings = load_index(place/"clips")[0], load_recordings(place/"clips")
    assert set(recordings.group) == set(index.group) == {"evening_part2", "other"}
    assert len(index) == len(list_clips(place/"clips")) == len(files_in(place/"clips")) - 2
    for row in recordings.itertuples():
        whole = torch.cat(list(read_log_mel(choose_pair(place/f"{row.group}.mka"))), dim=2).half()
        assert torch.equal(torch.from_numpy(recording_frames(row.path)).permute(1, 2, 0), whole)
        assert row.frames == whole.shape[2] and row.highlights == [(1.0, 2.0), (5.0, 6.0)] and row.game == "Positive"


@pytest.mark.parametrize("consume", [False, True])
def test_a_pack_has_the_same_recordings(place, tmp_path, consume):
    "Its index says the same of them as their files; with --consume, these are removed."
    clips, packed = tmp_path/"clips", tmp_path/"clips.pack"
    shutil.copytree(place/"clips", clips)
    printed("pack", clips, "-o", packed, *["--consume"] * consume, code=0)
    assert len(files_in(clips)) == (0 if consume else len(files_in(place/"clips")))
    mine, theirs = load_recordings(packed), load_recordings(place/"clips")
    pd.testing.assert_frame_equal(mine.drop(columns="path"), theirs.drop(columns="path"))
    for one, other in zip(mine.path, theirs.path): assert (recording_frames(one) == recording_frames(other)).all()
    described = printed("info", packed, code=0)
    assert "whole recordings" in described and "whole recordings" in printed("info", place/"clips", code=0)
    assert len(load_index(packed)[0]) == len(load_index(place/"clips")[0])


def test_a_folder_of_an_earlier_version_gets_its_recordings(place, tmp_path):
    "What it lacks is added when prepare runs again; the clips are not touched."
    out = tmp_path/"clips"
    shutil.copytree(place/"clips", out)
    shutil.rmtree(out/"Recording")
    known = json.loads((out/"manifest.json").read_text())
    known["files"] = {name: entry for name, entry in known["files"].items() if not name.startswith("Recording/")}
    (out/"manifest.json").write_text(json.dumps(known))
    written = {path: path.stat().st_mtime_ns for path in out.rglob("*.pt")}
    printed(*prepare(place, out), code=0)
    assert files_in(out) == files_in(place/"clips")
    assert all(path.stat().st_mtime_ns == time for path, time in written.items())


def test_a_damaged_recording_is_left_out(place, tmp_path):
    "A folder loads without it, with a line for the user; a pack leaves it out; its clips stay."
    clips, packed = tmp_path/"clips", tmp_path/"clips.pack"
    shutil.copytree(place/"clips", clips)
    path = clips/"Recording"/"Positive"/"other.pt"
    path.write_bytes(path.read_bytes()[:-3000])
    described = printed("info", clips, code=0)
    assert "other.pt: found a file that cannot be read" in described and "left out" in described
    assert list(load_recordings(clips).group) == ["evening_part2"]
    for number in range(20): shutil.copy(next((clips/"Positive").rglob("*.pt")), clips/"Positive"/f"more{number}.pt")
    assert "left out 1 unusable" in printed("pack", clips, "-o", packed, code=0)
    assert list(load_recordings(packed).group) == ["evening_part2"]


def test_odd_files(place, tmp_path):
    "PyTorch's old format, an invalid name and endless times: each is read, or left out of the list of highlights."
    clips = tmp_path/"clips"
    shutil.copytree(place/"clips", clips)
    path = clips/"Recording"/"Positive"/"other.pt"
    record = torch.load(path, weights_only=True)
    odd = os.fsdecode(os.fsencode(path.parent) + b"/odd\xff.pt")
    shutil.copy(path, odd)
    torch.save(record | {"highlights_s": [[1.0, 2.0], [3.0, 1e308]]}, path, _use_new_zipfile_serialization=False)
    for each in (path, odd): assert "whole recording" in printed("info", each, code=0)
    rows = load_recordings(clips).set_index("path")
    assert len(rows) == 3 and rows.highlights[str(path)] == [(1.0, 2.0)]
    assert (recording_frames(str(path)) == recording_frames(odd)).all()
