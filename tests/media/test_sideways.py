"Pictures that a phone stores sideways, and pictures of pixels that are not square."
import xml.etree.ElementTree as ElementTree
from fractions import Fraction

import av
import numpy as np
import pytest

from highlight_sense.media import probe
from highlight_sense.reel import Span
from highlight_sense.timelines import write_timelines


def write_sideways(path, degrees: int, aspect: Fraction = Fraction(1)):
    "Write two seconds of a picture of 160 x 90 that players turn, of pixels of this aspect."
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(30), options={"preset": "ultrafast"})
        stream.width, stream.height, stream.pix_fmt = 160, 90, "yuv420p"
        if degrees: stream.set_display_rotation(degrees)
        stream.codec_context.sample_aspect_ratio = aspect
        for number in range(60):
            gray = av.VideoFrame.from_ndarray(np.full((90, 160), 4 * number, np.uint8), "gray")
            frame = gray.reformat(format="yuv420p")
            frame.pts, frame.time_base = number, Fraction(1, 30)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("degrees, aspect, width, height", [
    (0, "1", 160, 90), (90, "1", 90, 160), (180, "1", 160, 90), (-90, "1", 90, 160),
    (0, "16/11", 232, 90), (0, "9/10", 144, 90), (90, "16/11", 90, 232)])
def test_timelines_are_as_players_show_the_picture(tmp_path, degrees, aspect, width, height):
    """Final Cut and Resolve turn the picture, so the sequence must be upright too.

    barefootford/buttercut#149; Kruk2/jasna#125.
    """
    path = write_sideways(tmp_path/"phone.mp4", degrees, Fraction(aspect))
    write_timelines([probe(path)], [Span(0.5, 1.5, "x")], tmp_path, "reel")
    final = ElementTree.parse(tmp_path/"reel.fcpxml")
    sequence, assets = final.find(".//sequence"), final.findall(".//asset")
    formats = {one.get("id"): (int(one.get("width")), int(one.get("height"))) for one in final.iter("format")}
    assert {formats[one.get("format")] for one in (sequence, *assets)} == {(width, height)}
    premiere = ElementTree.parse(tmp_path/"reel.xml")
    sizes = {(int(one.findtext("width")), int(one.findtext("height")))
             for one in premiere.iter("samplecharacteristics") if one.find("width") is not None}
    assert sizes == {(width, height)}
