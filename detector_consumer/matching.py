"""Which detected line is which known one, by where they are.

Lines are ``(4, 2) float64`` corners in the frame's pixels, clockwise from the text's own top-left.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.geometry import polygon_part, to_polygon

Line = NDArray[np.float64]
Lines = NDArray[np.float64]

MIN_IOU = 0.3
MIN_CONTAINED = 0.7
"""A line that lies in another so far is a part of it: they split or merged, or it came into the frame bit by bit."""
MIN_ALIKE_HEIGHT = 0.6
"""But a small line in a tall one is another, whose letters the tall one's frame surrounds."""
SAME_PLACE_IOU = 0.7
"""What lies on a line so far is in its place, whatever it says."""
LEAST_BEYOND = 0.4
"""A line is longer than another at an end where it is so by this share of its height."""


class Overlap(NamedTuple):
    """How two lines lie on each other.

    Attributes:
        iou: shared area over the area of both, 0 to 1.
        contained: the shared part of the smaller one, 0 to 1.
        alike_height: the lower one's height over the higher one's, 0 to 1.
    """

    iou: float
    contained: float
    alike_height: float

    @property
    def is_one_line(self) -> bool:
        """Whether both can be sightings of one line."""
        return self.iou >= MIN_IOU or self.is_part

    @property
    def is_part(self) -> bool:
        """Whether one is a piece of the other."""
        return self.contained >= MIN_CONTAINED and self.alike_height >= MIN_ALIKE_HEIGHT


NO_OVERLAP = Overlap(0.0, 0.0, 0.0)


def overlap(a: Line, b: Line) -> Overlap:
    """How two lines lie on each other; their shapes are those that text has, convex."""
    p, q = a.astype(np.float32), b.astype(np.float32)
    area_a, area_b = cv2.contourArea(p), cv2.contourArea(q)
    shared = cv2.intersectConvexConvex(p, q)[0]
    if min(area_a, area_b, shared) <= 0:
        return NO_OVERLAP
    heights = _height(a), _height(b)
    return Overlap(
        min(shared / (area_a + area_b - shared), 1.0),
        min(shared / min(area_a, area_b), 1.0),
        min(heights) / max(*heights, 1e-9),
    )


def overlaps(found: Lines, known: Lines) -> dict[tuple[int, int], Overlap]:
    """How found lines, ``(N, 4, 2)``, lie on known ones, ``(T, 4, 2)``: by their numbers, those that touch."""
    low, high = found.min(axis=1)[:, None], found.max(axis=1)[:, None]
    touch = ((low < known.max(axis=1)) & (high > known.min(axis=1))).all(axis=2)
    return {(line, track): overlap(found[line], known[track]) for line, track in np.argwhere(touch).tolist()}


def match(pairs: Mapping[tuple[int, int], Overlap]) -> dict[int, int]:
    """Pair lines with tracks one to one, the closest pairs first.

    Where a line splits, or two merge, the largest part so keeps the track, which the sum that an optimal assignment
    looks at would not grant it. Between lines apart from each other both say the same.

    Args:
        pairs: what lies on what, by the found line's number and the known one's.

    Returns:
        The known line's number by the found line's.
    """
    matched: dict[int, int] = {}
    taken: set[int] = set()
    for _, line, track in sorted((-pair.iou, *numbers) for numbers, pair in pairs.items() if pair.is_one_line):
        if line not in matched and track not in taken:
            matched[line] = track
            taken.add(track)
    return matched


def beyond(line: Line, other: Line) -> list[Line]:
    """The parts of a line, at its beginning and its end, by which it is longer than another one in its place."""
    (start, end), (other_start, other_end) = (
        ((corners[0] + corners[3]) / 2, (corners[1] + corners[2]) / 2) for corners in (line, other)
    )
    length = float(np.linalg.norm(end - start))
    if not length:
        return []
    along = (end - start) / length
    left, right = (float(more @ along) / length for more in (other_start - start, end - other_end))
    least = LEAST_BEYOND * _height(line) / length
    parts = ((0.0, left), left), ((1.0 - right, 1.0), right)
    whole = to_polygon(line)
    return [np.array(polygon_part(whole, *part), np.float64) for part, share in parts if least <= share <= 1]


def _height(line: Line) -> float:
    (ax, ay), (bx, by), (cx, cy), (dx, dy) = line.tolist()
    return (math.dist((ax, ay), (dx, dy)) + math.dist((bx, by), (cx, cy))) / 2
