"Folders of recordings as disks and people leave them, and tables that name a highlight twice."
import os
import shutil

import torch
from running import printed, run, small_model, write_stream


def test_which_files_of_a_folder_are_recordings(tmp_path):
    """Deleted files and thumbnails are not; what a link leads to is, once, whatever its ending.

    navidrome/navidrome#1074, guilhermefeitosa66/OpenEmux#228, birdnet-team/BirdNET-Analyzer#395.
    """
    stream, disk, place = write_stream(tmp_path/"stream.mkv", 4), tmp_path/"usb", tmp_path/"recordings"
    for name in (".Trash-1000/files/deleted.mkv", "@eaDir/thumbnail.mkv", "$RECYCLE.BIN/old.mkv", "2024/Sony.MTS"):
        (disk/name).parent.mkdir(parents=True)
        shutil.copy(stream, disk/name)
    place.mkdir()
    shutil.copy(stream, place/"phone.m4v")
    for link in ("external", "again"): os.symlink(disk, place/link)
    os.symlink(place, disk/"2024"/"back")
    code, _, err = run("detect", "--model", small_model(tmp_path/"m.pt"), place, "-o", tmp_path/"out", "--window", 2)
    assert code == 0, err
    assert {folder.name for folder in (tmp_path/"out").iterdir()} == {"phone", "Sony"}


def test_a_repeated_row_counts_once(tmp_path):
    "Two names of a recording, and one highlight in three rows."
    write_stream(tmp_path/"monday.mkv", 40)
    rows = "monday.mkv,10,12", "monday,10,12", "monday.mkv,10.0,12.00", "monday,20,22"
    (tmp_path/"labels.csv").write_text("\n".join(["recording,start_s,end_s", *rows, ""]))
    words = "prepare", tmp_path/"monday.mkv", "--labels", tmp_path/"labels.csv", "-o", tmp_path/"clips"
    said = printed(*words, "--negative-s", 3, code=0)
    assert "2 rows that repeat others" in said and "2 positive" in said
    clips = (tmp_path/"clips"/"Positive").rglob("*.pt")
    marked = [torch.load(path, weights_only=True) for path in clips]
    starts = sorted({round(clip["start_s"] + start_s, 3) for clip in marked for start_s, _ in clip["highlights_s"]})
    assert len(marked) == 2 and starts == [10, 20]
