"""Tells that something is in front of a line from that it says something else.

Whoever walks past a sign hides the wall above and below it, too, in the same places, and leaves the rest of it as it
was. A text that changes does so between its edges.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from detector_consumer import flow
from detector_consumer.flow import Corners, Grey

COLUMNS, BAND_ROWS = 40, 4
"""A line is looked at in three bands: itself, and so much of its height above and below."""
BAND_HEIGHT = 0.6

DIFFERS_LEVELS, DIFFERS_SHARE = 10.0, 0.15
"""Levels of grey are others when they differ by so much, and by this share of what a line and its surroundings span."""
HIDDEN_SHARE, HIDDEN_LETTERS_SHARE = 0.5, 0.25
"""Of a column that is hidden so much has changed above or below the line, and in it: its plate may be as dark as what
is in front of it."""
LEAST_HIDDEN, LEAST_LEFT = 2, 0.2
"""Something is in front of a line where so many columns are hidden, and this share of them looks as before."""
LEFT_FIT = 0.87
"""And it is so much like it: signs of one scene are at least .92 where somebody walks past them."""
EDGE_COLUMNS, ASKEW_COLUMNS = 2, 6
"""So many columns beside those that are hidden are not looked at, and the latter where they have changed, too: the edge
of what is in front may be askew or round."""


class Bands(NamedTuple):
    """What lines look like, with what is above and below them.

    Attributes:
        levels: ``(T, 3, BAND_ROWS, COLUMNS) float32`` in [0, 255]: above, the line, below.
        inside: likewise ``bool``, whether the sample lies in the picture.
    """

    levels: NDArray[np.float32]
    inside: NDArray[np.bool_]

    def of(self, numbers: NDArray[np.intp] | list[int]) -> Bands:
        """Those of some of the lines."""
        return Bands(self.levels[numbers], self.inside[numbers])

    @classmethod
    def stacked(cls, seen: Iterable[Bands]) -> Bands:
        """Those of lines that were looked at apart; at least one."""
        return cls(*(np.concatenate(part) for part in zip(*seen, strict=True)))


class Cover(NamedTuple):
    """What is in front of lines.

    Attributes:
        is_covered: ``(T,)``, whether something hides a part of the line, and the rest is there as before.
        is_clear: ``(T,)``, whether nothing of it is hidden.
        fit: ``(T,)``, how much what is not hidden looks like itself, -1 to 1.
    """

    is_covered: NDArray[np.bool_]
    is_clear: NDArray[np.bool_]
    fit: NDArray[np.float64]


def bands(grey: Grey, corners: Corners) -> Bands:
    """What the lines at these corners look like, ``(T, 4, 2)`` in small pixels."""
    places = _WEIGHTS @ corners
    x, y = (np.ascontiguousarray(places[..., axis], np.float32) for axis in (0, 1))
    levels = cv2.remap(grey, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    height, width = grey.shape
    inside = (x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)
    shape = (len(corners), 3, BAND_ROWS, COLUMNS)
    return Bands(levels.astype(np.float32).reshape(shape), inside.reshape(shape))


def cover(before: Bands, now: Bands) -> Cover:
    """Compare lines with what they looked like when nothing was in front of them.

    Args:
        before: then.
        now: where they are expected.
    """
    seen = before.inside & now.inside
    flat = before.levels.reshape(len(before.levels), -1)
    least = DIFFERS_LEVELS + DIFFERS_SHARE * (flat.max(axis=1) - flat.min(axis=1))
    differs = (np.abs(now.levels - before.levels) > least[:, None, None, None]) & seen
    # (T, 3, COLUMNS): the share of each band's column that is other.
    share = differs.sum(axis=2) / np.maximum(seen.sum(axis=2), 1)
    changed = share[:, 1] >= HIDDEN_LETTERS_SHARE
    hidden = changed & (np.maximum(share[:, 0], share[:, 2]) >= HIDDEN_SHARE)
    left = ~(_grown(hidden, EDGE_COLUMNS) | (changed & _grown(hidden, ASKEW_COLUMNS)))
    # What is above and below it, too: behind what is written over a picture, the picture moves.
    fit = _fit(before.levels, now.levels, seen & left[:, None, None])
    is_covered = (hidden.sum(axis=1) >= LEAST_HIDDEN) & (left.mean(axis=1) >= LEAST_LEFT) & (fit >= LEFT_FIT)
    return Cover(is_covered, ~hidden.any(axis=1), fit)


def _grown(columns: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    return np.asarray(cv2.dilate(columns.astype(np.uint8), np.ones((1, 2 * by + 1), np.uint8)) > 0)


def _fit(before: NDArray[np.float32], now: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.float64]:
    rows = len(before)
    shape = (rows, -1)
    return flow.fit(
        flow.Patches(before.reshape(shape), seen.reshape(shape)), flow.Patches(now.reshape(shape), seen.reshape(shape))
    )


def _weights() -> NDArray[np.float64]:
    """``(3 * BAND_ROWS * COLUMNS, 4)``: each place as a mean of a line's corners."""
    line = (np.arange(BAND_ROWS) + 0.5) / BAND_ROWS
    v = np.concatenate([(line - 1) * BAND_HEIGHT, line, 1 + line * BAND_HEIGHT])
    v, u = np.meshgrid(v, (np.arange(COLUMNS) + 0.5) / COLUMNS, indexing="ij")
    return np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], axis=-1).reshape(-1, 4)


_WEIGHTS = _weights()
