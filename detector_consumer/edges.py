"""Lines that the frame's edge cuts off, and what comes in of them.

Corners are ``(4, 2) float64`` in the frame's pixels, clockwise from the text's own top-left.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrstream.geometry import polygon_size_wh, to_polygon

Line = NDArray[np.float64]
SizeWH = tuple[float, float]

MOST_REST = 8.0
"""Of what comes in behind a line that was cut off so many of its heights are taken for its rest."""

HAS_COME_IN = 0.5
"""A line has left the edge behind when so many of its heights lie between them."""


class Torn(NamedTuple):
    """Where the frame's edge cut a line off when it was found.

    Attributes:
        is_torn: whether it did anywhere.
        left: whether at the line's left end.
        right: whether at its right end.
    """

    is_torn: bool = False
    left: bool = False
    right: bool = False

    @classmethod
    def where(cls, found: Line, size_wh: SizeWH, near_px: float) -> Torn:
        """Whether a line ends where the frame does, or so near to it."""
        left, right = (_left_px(found, end, size_wh) < near_px for end in _ENDS)
        return cls(_within_px(found, size_wh) < near_px, left, right)

    def and_then(self, later: Torn) -> Torn:
        """What is torn still when it was found once more."""
        return Torn(*(before and now for before, now in zip(self, later, strict=True))) if later.is_torn else NOT_TORN

    def with_rest(self, corners: Line, size_wh: SizeWH) -> Line:
        """A line with what has come in behind it since it was found: it goes on up to the frame's edge."""
        most_px = MOST_REST * _height_px(corners)
        whole = corners.copy()
        for end, is_torn in zip(_ENDS, (self.left, self.right), strict=True):
            left_px = _left_px(corners, end, size_wh) if is_torn else 0.0
            if 0 < left_px < most_px:
                whole[list(end)] += left_px * _outwards(corners, end)
        return whole

    def has_come_in(self, corners: Line, size_wh: SizeWH) -> bool:
        """Whether what is known of a torn line has left the frame's edge behind."""
        return self.is_torn and _within_px(corners, size_wh) > HAS_COME_IN * _height_px(corners)


NOT_TORN = Torn()

_ENDS = (0, 3), (1, 2)
"""The corners of a line's left and right end."""


def _within_px(corners: Line, size_wh: SizeWH) -> float:
    """How far the corner that is nearest to the frame's edge is from it; less than 0 outside."""
    return float(np.minimum(corners, np.array(size_wh) - corners).min())


def _left_px(corners: Line, end: tuple[int, int], size_wh: SizeWH) -> float:
    """How far it is from a line's end, along the line, to the frame's edge; less than 0 outside."""
    out, at = _outwards(corners, end), corners[list(end)].mean(axis=0)
    goes = np.abs(out) > 1e-6
    return float(np.where(goes, np.where(out > 0, size_wh - at, -at) / np.where(goes, out, 1.0), np.inf).min())


def _outwards(corners: Line, end: tuple[int, int]) -> Line:
    """The direction, of length 1, in which a line goes on behind an end."""
    (other,) = (each for each in _ENDS if each != end)
    along: Line = corners[list(end)].mean(axis=0) - corners[list(other)].mean(axis=0)
    return along / max(float(np.linalg.norm(along)), 1e-9)


def _height_px(corners: Line) -> float:
    return polygon_size_wh(to_polygon(corners))[1]
