"""Words to lines: words that stand behind each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ocrstream.models.ctpn.decode import Array, Words

MAX_GAP = 1.0
"""Two words of a line are at most this many text heights apart."""

MAX_OVERLAP = 0.3
"""Their ends may lie over each other by this many text heights."""

MAX_STEP = 0.3
"""How far the next word's start may lie beside the line, in text heights."""

MIN_SIMILARITY = 0.65
"""The lower word's height as a share of the higher one's."""

MAX_TURN = 0.2
"""Between two words' directions, in radians."""

TILTED_STEP, TILTED_TURN = 0.4, 0.4
"""By so much more of each, times the sine of the steeper one's tilt, may words differ: of a short word it is not known
well how far it is turned."""


@dataclass(frozen=True, slots=True)
class Strokes:
    """Words as strokes.

    Attributes:
        start: ``(N, 2)``, the middle of the left end.
        end: ``(N, 2)``, that of the right end.
        along: ``(N, 2)``, from one to the other, of length 1.
        height: ``(N,)``.
    """

    start: Array
    end: Array
    along: Array
    height: Array

    @classmethod
    def of(cls, quads: Array) -> Strokes:
        """Those of words' quadrilaterals, ``(N, 4, 2)``."""
        start, end = (quads[:, 0] + quads[:, 3]) / 2, (quads[:, 1] + quads[:, 2]) / 2
        length = np.linalg.norm(end - start, axis=1, keepdims=True)
        down = (quads[:, 3] - quads[:, 0] + quads[:, 2] - quads[:, 1]) / 2
        return cls(start, end, (end - start) / np.maximum(length, 1e-6), np.linalg.norm(down, axis=1))


def join(words: Words) -> list[list[int]]:
    """The lines that words make: the indices of each one's words, from left to right.

    Args:
        words: of one picture; a word alone is a line.
    """
    if len(words.quads) < 2:
        return [[index] for index in range(len(words.quads))]
    nexts = following(Strokes.of(words.quads))
    followed = set(nexts.values())
    lines = []
    for first in range(len(words.quads)):
        if first in followed:
            continue
        chain = [first]
        while chain[-1] in nexts:
            chain.append(nexts[chain[-1]])
        lines.append(chain)
    return lines


def around(quads: Array) -> Array:
    """The quadrilateral of a line: along its words, and as high as it takes to hold them.

    Args:
        quads: its words', ``(N, 4, 2)``, from left to right.

    Returns:
        ``(4, 2)``.
    """
    if len(quads) == 1:
        return np.asarray(quads[0], dtype=np.float64)
    middles = (quads[:, :2].mean(axis=1) + quads[:, 2:].mean(axis=1)) / 2
    along = middles[-1] - middles[0]
    along = along / max(float(np.linalg.norm(along)), 1e-6)
    down = np.array([-along[1], along[0]])
    points = quads.reshape(-1, 2)
    (left, right), (top, bottom) = ((values.min(), values.max()) for values in (points @ along, points @ down))
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return np.array([x * along + y * down for x, y in corners])


def following(strokes: Strokes) -> dict[int, int]:
    """Each word's next one on its line: the nearest behind it, unless that has one nearer before it."""
    between = strokes.start[None] - strokes.end[:, None]
    along = np.einsum("ijk,ik->ij", between, strokes.along)
    beside = np.abs(between[..., 1] * strokes.along[:, None, 0] - between[..., 0] * strokes.along[:, None, 1])
    lower = np.minimum(strokes.height[:, None], strokes.height[None])
    higher = np.maximum(strokes.height[:, None], strokes.height[None])
    turn = np.abs(np.outer(strokes.along[:, 0], strokes.along[:, 1]))
    turn = np.abs(turn - turn.T)
    tilt = np.maximum.outer(np.abs(strokes.along[:, 1]), np.abs(strokes.along[:, 1]))
    fits = (along <= MAX_GAP * lower) & (along >= -MAX_OVERLAP * lower)
    fits &= beside <= (MAX_STEP + TILTED_STEP * tilt) * lower
    fits &= (lower >= MIN_SIMILARITY * higher) & (turn <= MAX_TURN + TILTED_TURN * tilt)
    np.fill_diagonal(fits, False)
    distance = np.where(fits, np.abs(along) + beside, np.inf)
    nexts: dict[int, int] = {}
    for index, nearest in enumerate(distance.argmin(axis=1).tolist()):
        # Only words further to the right: a line has an end.
        onwards = strokes.end[nearest, 0] > strokes.end[index, 0]
        if np.isfinite(distance[index, nearest]) and onwards and distance[:, nearest].argmin() == index:
            nexts[index] = nearest
    return nexts
