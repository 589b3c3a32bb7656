"Disks that are not ours alone: network shares and FAT disks, which keep no permissions."
import errno
import os
from pathlib import Path

from running import run, write_clips

from highlight_sense.pack import open_pack


def test_a_disk_without_permissions_can_be_written(tmp_path, monkeypatch):
    "CIFS and FAT refuse chmod (overviewer/Minecraft-Overviewer#1061, girder/girder#931)."
    def refuse(path: object, *_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    clips = write_clips(tmp_path/"clips", 2, 2)
    monkeypatch.setattr(os, "chmod", refuse)
    monkeypatch.setattr(Path, "chmod", refuse)
    code, _, err = run("pack", clips, "-o", tmp_path/"clips.pack")
    assert code == 0, err
    assert len(open_pack(tmp_path/"clips.pack").by_clip) == 4
    assert not list(tmp_path.rglob(".unfinished*"))
