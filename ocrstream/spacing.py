"""Cuts a text line that was read into its words: where each stands in the picture."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ocrstream.cropping import cut
from ocrstream.geometry import Point, Polygon
from ocrstream.picture import Image

NARROW, WIDE = frozenset("iIl1jtfr.,:;'!|()[]-"), frozenset("mwMW@%")
NARROW_WIDTH, WIDE_WIDTH, SPACE_WIDTH = 0.55, 1.5, 0.6
"""How wide a letter is against the usual one: enough to know about where a space is."""

REACH = 0.75
"""A gap is looked for this far from where the space should be, in line heights."""


def cut_into_words(picture: Image, polygon: Polygon, text: str) -> list[tuple[Polygon, str]]:
    """The words of a line, each with its part of the line's polygon.

    About where each space is follows from the letters; the cut is made at the emptiest place near it.

    Args:
        picture: ``(H, W, 3) uint8 BGR``.
        polygon: the line's, clockwise from the text's top-left, in the picture's pixels.
        text: what it says, with its spaces.
    """
    words = text.split()
    if len(words) < 2:
        return [(polygon, word) for word in words]
    crop = cut(picture, polygon)
    ink = _ink(crop)
    reach = max(1, round(REACH * crop.shape[0]))
    cuts = [0.0]
    for expected in _expected_spaces(words):
        middle = round(expected * len(ink))
        low, high = max(0, middle - reach), min(len(ink), middle + reach + 1)
        distance = np.abs(np.arange(low, high) - middle) / reach
        # A little dearer with the distance, so that of equal gaps the nearest is taken.
        place = low + int(np.argmin(ink[low:high] + 0.2 * distance))
        cuts.append(max((place + 0.5) / len(ink), cuts[-1]))
    cuts.append(1.0)
    return [(_part(polygon, start, end), word) for start, end, word in zip(cuts, cuts[1:], words, strict=False)]


def _expected_spaces(words: list[str]) -> list[float]:
    """The middle of each space, as a share of the line's length."""
    widths = [sum(_width(letter) for letter in word) for word in words]
    total = sum(widths) + SPACE_WIDTH * (len(words) - 1)
    ends = np.cumsum(widths)[:-1] + SPACE_WIDTH * (np.arange(len(words) - 1) + 0.5)
    return [float(end / total) for end in ends]


def _width(letter: str) -> float:
    if letter in NARROW:
        return NARROW_WIDTH
    return WIDE_WIDTH if letter in WIDE else 1.0


def _ink(crop: Image) -> NDArray[np.float64]:
    """How much happens in each column, ``(w,)``, 0 to 1: the spread of its values from top to bottom."""
    grey = crop.mean(axis=2)
    inner = grey[len(grey) // 8 : max(len(grey) - len(grey) // 8, 1)]
    spread = inner.std(axis=0)
    return np.asarray(spread / max(float(spread.max()), 1e-6), dtype=np.float64)


def _part(polygon: Polygon, start: float, end: float) -> Polygon:
    top_left, top_right, bottom_right, bottom_left = polygon
    return (
        _between(top_left, top_right, start),
        _between(top_left, top_right, end),
        _between(bottom_left, bottom_right, end),
        _between(bottom_left, bottom_right, start),
    )


def _between(a: Point, b: Point, share: float) -> Point:
    return round(a[0] + (b[0] - a[0]) * share, 2), round(a[1] + (b[1] - a[1]) * share, 2)
