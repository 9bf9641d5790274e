"""Zones of the frame in which nothing is read: a camera's date and logo, a window onto the street."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from ocrstream.by_source import Zone
from ocrstream.geometry import Polygon


def is_masked(polygon: Polygon, zones: Sequence[Zone], size_wh: tuple[int, int]) -> bool:
    """Whether a line's middle lies in one of the zones.

    Args:
        polygon: the line's, in the picture's pixels.
        zones: as shares of the picture's width and height.
        size_wh: the picture's width and height in pixels.
    """
    x, y = np.mean(polygon, axis=0) / size_wh
    return any(cv2.pointPolygonTest(np.array(zone, np.float32), (float(x), float(y)), False) >= 0 for zone in zones)
