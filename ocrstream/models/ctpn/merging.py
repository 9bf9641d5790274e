"""Pieces to words: where the network left a gap inside a word, its pieces lie over each other."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ocrstream.models.ctpn.decode import Array, Words
from ocrstream.models.ctpn.joining import MAX_STEP, MAX_TURN, MIN_SIMILARITY, Strokes

MIN_OVERLAP = 0.5
"""From so many text heights on that two pieces share along their line they are one word: every slice tells where its
word ends, and slices of two words tell ends that lie apart."""


def merge(words: Words) -> Words:
    """The words that pieces make, each piece as good as its length.

    Args:
        words: of one picture, some of them in pieces.
    """
    groups = _groups(_same(words.quads)) if len(words.quads) > 1 else []
    if not groups:
        return words
    alone = np.ones(len(words.quads), dtype=bool)
    alone[np.concatenate(groups)] = False
    quads = [_around(words.quads[group]) for group in groups]
    scores = [words.scores[group].mean() for group in groups]
    return Words(np.concatenate([words.quads[alone], quads]), np.concatenate([words.scores[alone], scores]))


def _same(quads: Array) -> NDArray[np.bool_]:
    """Which pieces are of one word: ``(N, N)``."""
    strokes = Strokes.of(quads)
    middle = (strokes.start + strokes.end) / 2
    length = np.linalg.norm(strokes.end - strokes.start, axis=1)
    between = middle[None] - middle[:, None]
    along = np.abs(np.einsum("ijk,ik->ij", between, strokes.along))
    beside = np.abs(between[..., 1] * strokes.along[:, None, 0] - between[..., 0] * strokes.along[:, None, 1])
    lower, higher = (way(strokes.height[:, None], strokes.height[None]) for way in (np.minimum, np.maximum))
    shared = (length[:, None] + length[None]) / 2 - along
    # A piece of one letter may be shorter than that.
    enough = np.minimum(MIN_OVERLAP * lower, 0.5 * np.minimum(length[:, None], length[None]))
    turn = np.arctan2(strokes.along[:, 1], strokes.along[:, 0])
    turn = np.abs(turn[:, None] - turn[None])
    same = (shared >= enough) & (beside <= MAX_STEP * lower) & (lower >= MIN_SIMILARITY * higher) & (turn <= MAX_TURN)
    np.fill_diagonal(same, False)
    return np.asarray(same & same.T)


def _groups(same: NDArray[np.bool_]) -> list[NDArray[np.intp]]:
    """What hangs together, two and more."""
    waiting = set(np.flatnonzero(same.any(axis=1)).tolist())
    groups = []
    while waiting:
        reached = [waiting.pop()]
        for index in reached:
            near = waiting.intersection(np.flatnonzero(same[index]).tolist())
            waiting -= near
            reached += sorted(near)
        groups.append(np.array(sorted(reached), dtype=np.intp))
    return groups


def _around(quads: Array) -> Array:
    """One quadrilateral for a word's pieces: from end to end, as high as they are on average."""
    strokes = Strokes.of(quads)
    length = np.linalg.norm(strokes.end - strokes.start, axis=1)
    weight = length / max(float(length.sum()), 1e-6)
    along = (strokes.along * weight[:, None]).sum(axis=0)
    along /= max(float(np.linalg.norm(along)), 1e-6)
    down = np.array([-along[1], along[0]])
    left, right = (quads @ along).min(), (quads @ along).max()
    top, bottom = ((quads[:, side] @ down).mean(axis=1) @ weight for side in ([0, 1], [2, 3]))
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return np.array([x * along + y * down for x, y in corners])
