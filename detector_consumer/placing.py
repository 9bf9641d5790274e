"""Where a line is in its frame: the picture that was looked at may have been shrunk to be sent."""

from __future__ import annotations

from ocrstream.geometry import Polygon, clip_polygon, scale_polygon
from ocrstream.messages import FrameInfo, Region
from ocrstream.models import TextLine


def to_region(
    number: int, line: TextLine, info: FrameInfo, size_wh: tuple[int, int], track_id: str | None = None
) -> Region:
    """A line of a picture as a region in the frame's own pixels.

    Args:
        number: its place in reading order.
        line: in the picture's pixels.
        info: the frame.
        size_wh: the picture's width and height in pixels.
        track_id: the track that it is a sighting of, where one is known.
    """
    scale_x, scale_y = info.width_px / size_wh[0], info.height_px / size_wh[1]

    def placed(polygon: Polygon) -> Polygon:
        return clip_polygon(scale_polygon(polygon, scale_x, scale_y), info.width_px, info.height_px)

    score = round(min(max(line.score, 0.0), 1.0), 4)
    return Region(number, placed(line.polygon), score, track_id, tuple(map(placed, line.words)))
