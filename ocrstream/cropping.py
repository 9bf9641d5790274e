"""Cuts text lines out of pictures, upright."""

from __future__ import annotations

import math

import cv2
import numpy as np

from ocrstream.geometry import Polygon, polygon_size_wh
from ocrstream.picture import Image


def cut(picture: Image, polygon: Polygon) -> Image:
    """The pixels of a four-point region, straightened, so that its first edge is the crop's top.

    Args:
        picture: ``(H, W, 3) uint8 BGR``.
        polygon: in the picture's pixels, clockwise from the text's top-left; parts outside repeat the picture's edge.

    Returns:
        ``(h, w, 3) uint8 BGR``, as large as the region in the picture, at least one pixel a side.
    """
    # No line in a picture is longer than its diagonal: this bounds the memory a senseless polygon can ask for.
    diagonal_px = math.ceil(math.hypot(*picture.shape[:2]))
    width_px, height_px = (min(max(round(side), 1), diagonal_px) for side in polygon_size_wh(polygon))
    corners = np.array([(0, 0), (width_px, 0), (width_px, height_px), (0, height_px)], dtype=np.float32)
    to_picture = cv2.getPerspectiveTransform(corners, np.array(polygon, dtype=np.float32))
    return cv2.warpPerspective(
        picture,
        to_picture,
        (width_px, height_px),
        flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.uint8, copy=False)
