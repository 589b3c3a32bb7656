"Recordings that were renamed between two commands."
import av
from running import run, small_model, write_stream


def test_publish_finds_a_renamed_recording(tmp_path):
    "By its content, as OpenShot/openshot-qt#1829 wishes; a file of the same size is not enough."
    source, attic = write_stream(tmp_path/"monday.mka"), tmp_path/"attic"
    found = run("detect", "-m", small_model(tmp_path/"m.pt"), source, "-o", tmp_path/"out", "--top", 1, "--window", 2)
    assert found[0] == 0, found
    attic.mkdir()
    (attic/"a decoy.mka").write_bytes(bytes(source.stat().st_size))
    source.rename(attic/"best evening.mka")
    code, _, err = run("publish", tmp_path/"out", "--clips", "--recordings", attic)
    assert code == 0, err
    clip, = (tmp_path/"out"/"monday"/"clips").iterdir()
    with av.open(str(clip)) as container: assert container.duration > 0
    (attic/"best evening.mka").unlink()
    code, _, err = run("publish", tmp_path/"out", "--timeline", "--recordings", attic)
    assert code == 2 and f"nor the same one in {attic}" in err
