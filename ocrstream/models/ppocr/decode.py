"""What the PP-OCR networks' outputs mean, in NumPy and OpenCV: lines out of a probability map, text out of CTC.

The detector is a differentiable-binarisation network (Liao et al., Real-time Scene Text Detection with Differentiable
Binarization, 2020, section 3.5): its map shows text lines shrunk, and each region of it is grown back.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.geometry import Polygon, polygon_size_wh, to_polygon
from ocrstream.models import Reading, TextLine
from ocrstream.models.ordering import in_reading_order
from ocrstream.models.ppocr.preprocess import Placement

PIXEL_THRESHOLD = 0.3
LINE_THRESHOLD = 0.5
MAX_LINES = 1000
UNCLIP_RATIO = 1.6
MIN_REGION_PX = 3
"""RapidOCR's ``Det`` section: a pixel is text above 0.3, a region a line above 0.5 on average; at most 1,000 regions,
grown by area * 1.6 / perimeter; regions thinner than 3 pixels are noise."""

MIN_LINE_PX = 3
"""A line this thin in the picture's own pixels cannot be read."""

VERTICAL_ASPECT = 1.5
"""From this height to width on, a line is taken to run from top to bottom."""

BLANK = 0
"""The CTC blank's index in the recogniser's output; character i of the charset is at i + 1."""

Quad = NDArray[np.float32]
"""``(4, 2) float32``, x then y: top-left, top-right, bottom-right, bottom-left."""


def decode_lines(probability: NDArray[np.float32], placement: Placement) -> list[TextLine]:
    """The text lines in a detector's output, in reading order, in the picture's own pixels.

    Args:
        probability: ``(h, w) float32 in [0, 1]``, for each pixel of the detector's input.
        placement: where the picture lies in that input.
    """
    lines = []
    mask = cv2.dilate((probability > PIXEL_THRESHOLD).view(np.uint8), np.ones((2, 2), dtype=np.uint8))
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    for contour in contours[:MAX_LINES]:
        (width_px, height_px) = (rectangle := cv2.minAreaRect(contour))[1]
        if min(width_px, height_px) < MIN_REGION_PX:
            continue
        score = _mean_inside(probability, cv2.boxPoints(rectangle))
        if score < LINE_THRESHOLD:
            continue
        polygon = _to_picture(_grow(rectangle), placement)
        if min(polygon_size_wh(polygon)) > MIN_LINE_PX:
            lines.append(TextLine(_along_text(polygon), min(score, 1.0)))
    return in_reading_order(lines)


def decode_reading(probability: NDArray[np.float32], charset: Sequence[str]) -> Reading:
    """Greedy CTC: the best character of each timestep, repeats and blanks dropped.

    Args:
        probability: ``(T, C) float32``, each timestep's characters adding up to 1.
        charset: C - 1 characters, without the blank.

    Returns:
        The text without spaces around it, the mean probability of the characters kept (those spaces too), 0 where there
        are none, and each of the text's characters' own.
    """
    best = probability.argmax(axis=1)
    kept = best != BLANK
    kept[1:] &= best[1:] != best[:-1]
    steps = np.flatnonzero(kept)
    text = "".join(charset[index - 1] for index in best[steps])
    chosen = probability[steps, best[steps]]
    confidence = float(chosen.mean()) if len(steps) else 0.0
    first, length = len(text) - len(text.lstrip()), len(text.strip())
    characters = np.minimum(chosen[first : first + length], 1.0).tolist()
    return Reading(text.strip(), min(confidence, 1.0), tuple(characters))


def _mean_inside(probability: NDArray[np.float32], quad: cv2.typing.MatLike) -> float:
    height_px, width_px = probability.shape
    left, top = np.clip(np.floor(quad.min(axis=0)).astype(int), 0, (width_px - 1, height_px - 1))
    right, bottom = np.clip(np.ceil(quad.max(axis=0)).astype(int), 0, (width_px - 1, height_px - 1))
    mask = np.zeros((bottom - top + 1, right - left + 1), dtype=np.uint8)
    cv2.fillPoly(mask, [(quad - (left, top)).astype(np.int32)], (1,))
    return float(cv2.mean(probability[top : bottom + 1, left : right + 1], mask)[0])


def _grow(rectangle: cv2.typing.RotatedRect) -> Quad:
    """A rectangle grown by the same distance on all four sides, top-left corner first."""
    (x, y), (width_px, height_px), angle = rectangle
    # The dilation by 2x2 made the region a pixel larger to the right and down: half of that is in its centre.
    centre = (x - 0.5, y - 0.5)
    distance_px = width_px * height_px * UNCLIP_RATIO / (2 * (width_px + height_px))
    grown = cv2.boxPoints((centre, (width_px + 2 * distance_px, height_px + 2 * distance_px), angle))
    left, right = np.split(grown[np.argsort(grown[:, 0], kind="stable")], 2)
    (top_left, bottom_left), (top_right, bottom_right) = (side[np.argsort(side[:, 1])] for side in (left, right))
    return np.array([top_left, top_right, bottom_right, bottom_left], dtype=np.float32)


def _to_picture(quad: Quad, placement: Placement) -> Polygon:
    points = quad / (placement.scale_x, placement.scale_y) - (placement.left_px, placement.top_px)
    return to_polygon(np.clip(points, 0, (placement.width_px, placement.height_px)))


def _along_text(polygon: Polygon) -> Polygon:
    """Start a tall line's polygon at its top-right: its text is taken to run down, the letters' tops at the right."""
    a, b, c, d = polygon
    across, down = max(math.dist(a, b), math.dist(d, c)), max(math.dist(a, d), math.dist(b, c))
    return (b, c, d, a) if down >= VERTICAL_ASPECT * across else polygon
