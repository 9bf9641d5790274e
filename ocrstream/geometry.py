"""Shapes in a picture: four-point polygons and axis-aligned boxes, in pixels.

The origin is the picture's top-left corner, x runs right and y down. A polygon's points run clockwise from the text's
own top-left corner, so that its first edge is the top of the letters, also where the text is tilted.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Point = tuple[float, float]
Polygon = tuple[Point, Point, Point, Point]
Box = tuple[float, float, float, float]
"""``(x0, y0, x1, y1)`` in pixels, x1 and y1 exclusive."""


def to_polygon(points: NDArray[np.floating] | list[list[float]]) -> Polygon:
    """Turn four points into a polygon.

    Args:
        points: ``(4, 2)``, x then y, in pixels.

    Raises:
        ValueError: not four finite points.
    """
    array = np.asarray(points, dtype=np.float64)
    if array.shape != (4, 2) or not np.isfinite(array).all():
        raise ValueError(f"a polygon has four finite points, got shape {array.shape}: {array.tolist()!s:.200}")
    a, b, c, d = ((round(float(x), 2), round(float(y), 2)) for x, y in array)
    return a, b, c, d


def polygon_of(points: Sequence[Sequence[float]]) -> Polygon:
    """A polygon from four pairs of numbers, as JSON has them, that were a polygon before."""
    a, b, c, d = ((float(x), float(y)) for x, y in points)
    return a, b, c, d


def box_polygon(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    """The polygon of an axis-aligned box."""
    return (x0, y0), (x1, y0), (x1, y1), (x0, y1)


def bounding_box(polygon: Polygon) -> Box:
    """The smallest axis-aligned box around a polygon, in the polygon's pixels."""
    xs = [x for x, _ in polygon]
    ys = [y for _, y in polygon]
    return min(xs), min(ys), max(xs), max(ys)


def scale_polygon(polygon: Polygon, scale_x: float, scale_y: float) -> Polygon:
    """The same polygon in a picture whose sides are ``scale_x`` and ``scale_y`` times as long."""
    a, b, c, d = ((round(x * scale_x, 2), round(y * scale_y, 2)) for x, y in polygon)
    return a, b, c, d


def clip_polygon(polygon: Polygon, width_px: float, height_px: float) -> Polygon:
    """The polygon with every point moved into a picture of that size."""
    a, b, c, d = ((min(max(x, 0.0), float(width_px)), min(max(y, 0.0), float(height_px))) for x, y in polygon)
    return a, b, c, d


def grown_polygon(polygon: Polygon, along_px: float, across_px: float) -> Polygon:
    """The polygon so much longer at both ends of the text, and so much higher above and below it."""
    corners = np.array(polygon, dtype=np.float64)
    along, down = corners[[1, 2]] - corners[[0, 3]], corners[[3, 2]] - corners[[0, 1]]
    along, down = (sides.sum(axis=0) / max(float(np.linalg.norm(sides.sum(axis=0))), 1e-6) for sides in (along, down))
    signs = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)])
    return to_polygon(corners + signs[:, :1] * along_px * along + signs[:, 1:] * across_px * down)


def polygon_part(polygon: Polygon, start: float, end: float) -> Polygon:
    """A part of a line, from one share of its length, 0 to 1, to another."""
    a, b, c, d = polygon
    return _between(a, b, start), _between(a, b, end), _between(d, c, end), _between(d, c, start)


def _between(a: Point, b: Point, share: float) -> Point:
    return round(a[0] + (b[0] - a[0]) * share, 2), round(a[1] + (b[1] - a[1]) * share, 2)


def polygon_at(path: Sequence[tuple[float, Polygon]], at_ms: float) -> Polygon:
    """Where a line is at a time.

    Args:
        path: `(time in ms, polygon)`, by time, at least one; straight between two, and standing still outside.
        at_ms: the time.
    """
    after = bisect_right(path, at_ms, key=lambda entry: entry[0])
    if after in (0, len(path)):
        return path[min(after, len(path) - 1)][1]
    (begin_ms, begin), (end_ms, end) = path[after - 1], path[after]
    share = (at_ms - begin_ms) / (end_ms - begin_ms)
    p, q, r, s = (
        (x0 + (x1 - x0) * share, y0 + (y1 - y0) * share) for (x0, y0), (x1, y1) in zip(begin, end, strict=True)
    )
    return p, q, r, s


def polygon_size_wh(polygon: Polygon) -> tuple[float, float]:
    """Length of the text's top or bottom edge (the longer) and of its left or right edge, in pixels."""
    a, b, c, d = polygon
    return max(math.dist(a, b), math.dist(d, c)), max(math.dist(a, d), math.dist(b, c))


def polygon_shift(a: Polygon, b: Polygon) -> float:
    """How far the corner that moved furthest from one to the other moved along x or y, in pixels."""
    return max(max(abs(p[0] - q[0]), abs(p[1] - q[1])) for p, q in zip(a, b, strict=True))


def box_iou(a: Box, b: Box) -> float:
    """Intersection over union of two boxes, 0 to 1."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    intersection = width * height
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - intersection
    return intersection / union
