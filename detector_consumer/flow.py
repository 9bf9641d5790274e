"""How the pixels of known lines moved from one small grey picture to the next.

All lines are handled in one go: their corners are ``(T, 4, 2) float64`` in small pixels, clockwise from the text's own
top-left, and nothing here loops over lines. Small pictures are ``(h, w) uint8``, see `detector_consumer.motion`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Corners = NDArray[np.float64]
"""``(T, 4, 2)``, in small pixels."""

Grey = NDArray[np.uint8]

PATCH_ROWS, PATCH_COLUMNS = 8, 40
NOISE_VARIANCE = 2.0
"""Of a small picture's grey levels: a patch that varies no more than this looks like any other such patch."""

POINT_ROWS, POINT_COLUMNS = 2, 8
"""A line's points are spread evenly, so that all of it has a say, not only its boldest letter. Asking for the best
corners instead costs a millisecond a frame and follows no better: letters leave no empty places."""

WINDOW_PX = 11
LEVELS = 3
ROUND_TRIP_PX = 0.5
"""A point that does not come back to where it began, this near, was lost."""
LINEAR_PRIOR_PX2 = 100.0
"""How firmly a line keeps its size and tilt: its points are good to 0.1 px, and it turns or grows by 1 % a frame."""
FAR_OFF_PX = 0.6
"""A point this far from where its line went saw something else."""


class Patches(NamedTuple):
    """What lines look like, whatever their place, size and tilt.

    Attributes:
        levels: ``(T, S) float32`` in [0, 255], in rows from the text's top-left.
        inside: ``(T, S) bool``, whether the sample lies in the picture.
    """

    levels: NDArray[np.float32]
    inside: NDArray[np.bool_]

    def of(self, numbers: NDArray[np.intp] | list[int]) -> Patches:
        """Those of some of the lines."""
        return Patches(self.levels[numbers], self.inside[numbers])


def stacked(seen: Iterable[Patches]) -> Patches:
    """The patches of lines that were looked at apart; at least one."""
    return Patches(*(np.concatenate(part) for part in zip(*seen, strict=True)))


class Moved(NamedTuple):
    """Where lines went.

    Attributes:
        corners: where each line is now; where it was expected if nothing was seen of it.
        support: ``(T,)`` in [0, 1], the share of its points that agree on it.
    """

    corners: Corners
    support: NDArray[np.float64]


def patches(grey: Grey, corners: Corners) -> Patches:
    """What the lines at these corners look like."""
    return sampled(grey, corners, _PATCH_WEIGHTS)


def sampled(grey: Grey, corners: Corners, weights: NDArray[np.float64]) -> Patches:
    """What a picture shows at places in and around lines, each a mean of a line's corners, see `spread`."""
    places = weights @ corners
    x, y = (np.ascontiguousarray(places[..., axis], np.float32) for axis in (0, 1))
    levels = cv2.remap(grey, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return Patches(levels.astype(np.float32), _is_inside(places, grey))


def within(seen: Patches, corners: Corners, parts: Corners) -> Patches:
    """What lines look like, in parts of them only.

    Args:
        seen: the lines' patches.
        corners: where the lines are.
        parts: ``(T, 4, 2)``, convex, likewise in small pixels.
    """
    places = _PATCH_WEIGHTS @ corners
    side = np.roll(parts, -1, axis=1) - parts
    off = places[:, :, None] - parts[:, None]
    is_right_of = side[:, None, :, 0] * off[..., 1] - side[:, None, :, 1] * off[..., 0] >= 0
    return Patches(seen.levels, seen.inside & is_right_of.all(axis=2))


def fit(reference: Patches, now: Patches) -> NDArray[np.float64]:
    """How alike patches are whatever the light: normalised correlation over what both saw, ``(T,)`` in [-1, 1]."""
    seen = (reference.inside & now.inside).astype(np.float32)
    count = np.maximum(seen.sum(axis=1), 1)
    a = (reference.levels - _mean(reference.levels, seen, count)) * seen
    b = (now.levels - _mean(now.levels, seen, count)) * seen
    together, alone_a, alone_b = ((p * q).sum(axis=1) / count for p, q in ((a, b), (a, a), (b, b)))
    # A patch without any contrast is unlike one with much: noise is added to each before they are compared.
    likeness = (together + NOISE_VARIANCE) / np.sqrt((alone_a + NOISE_VARIANCE) * (alone_b + NOISE_VARIANCE))
    return np.asarray(np.clip(likeness, -1, 1), np.float64)


def follow(before: Grey, now: Grey, corners: Corners, expected: Corners, levels: int = LEVELS) -> Moved:
    """Find lines again, each by its own points.

    Args:
        before: the picture in which the lines were at ``corners``.
        now: the picture in which they are looked for.
        corners: where they were.
        expected: where they should be if nothing but the camera and their last speed moved them.
        levels: how often the pictures are halved: each doubles how far off a line may be from where it is expected,
            and how much of what is around it has a say.
    """
    points, hoped_for = _POINT_WEIGHTS @ corners, _POINT_WEIGHTS @ expected
    wanted = _is_inside(points, before)
    if not wanted.any():
        return Moved(expected.copy(), np.zeros(len(corners)))
    began, hoped = points[wanted].astype(np.float32), hoped_for[wanted].astype(np.float32)
    ended, is_found = _flow(before, now, began, hoped, levels)
    back, is_back = _flow(now, before, ended, began + (ended - hoped), levels)
    strayed = np.linalg.norm(back - began, axis=1)
    is_good = np.zeros(wanted.shape, np.bool_)
    is_good[wanted] = is_found & is_back & (strayed < ROUND_TRIP_PX)
    off = np.zeros(points.shape)
    off[wanted] = ended - hoped
    return _agreed(expected, hoped_for, off, is_good, wanted)


def _agreed(
    expected: Corners,
    hoped: NDArray[np.float64],
    off: NDArray[np.float64],
    is_good: NDArray[np.bool_],
    wanted: NDArray[np.bool_],
) -> Moved:
    """The one similarity a line that most of its points agree on.

    Args:
        expected: the corners that the points were expected to go with.
        hoped: ``(T, P, 2)``, where each point was expected.
        off: ``(T, P, 2)``, how far from there it was found.
        is_good: ``(T, P)``, whether it was found.
        wanted: ``(T, P)``, whether it was looked for.
    """
    # As complex numbers a similarity is one factor and one shift, and a least-squares fit is a division.
    z, r = hoped[..., 0] + 1j * hoped[..., 1], off[..., 0] + 1j * off[..., 1]
    corners = expected[..., 0] + 1j * expected[..., 1]
    middle = corners.mean(axis=1, keepdims=True)
    z, spread = z - middle, np.abs(corners - middle).max(axis=1, keepdims=True)
    shift, turn = _median(r, is_good), np.zeros_like(middle)
    # At first a line may turn and grow, which takes its ends away from the median.
    near = 1.0 + 0.03 * spread
    for _ in range(2):
        agrees = is_good & (np.abs(r - shift - turn * z) < near)
        shift, turn = _least_squares(z, r, agrees)
        near = np.full_like(near, FAR_OFF_PX)
    agrees = is_good & (np.abs(r - shift - turn * z) < near)
    went = corners + shift + turn * (corners - middle)
    support = agrees.sum(axis=1) / np.maximum(wanted.sum(axis=1), 1)
    # Two points always agree with each other.
    support[agrees.sum(axis=1) < 3] = 0.0
    went = np.where(support[:, None] > 0, went, corners)
    return Moved(np.stack([went.real, went.imag], axis=-1), support)


def _least_squares(
    z: NDArray[np.complex128], r: NDArray[np.complex128], agrees: NDArray[np.bool_]
) -> tuple[NDArray[np.complex128], NDArray[np.complex128]]:
    count = np.maximum(agrees.sum(axis=1, keepdims=True), 1)
    z_mean = (z * agrees).sum(axis=1, keepdims=True) / count
    r_mean = (r * agrees).sum(axis=1, keepdims=True) / count
    z_off, r_off = (z - z_mean) * agrees, (r - r_mean) * agrees
    turn = (z_off.conj() * r_off).sum(axis=1, keepdims=True) / (
        (np.abs(z_off) ** 2).sum(axis=1, keepdims=True) + LINEAR_PRIOR_PX2
    )
    return r_mean - turn * z_mean, turn


def _median(values: NDArray[np.complex128], is_good: NDArray[np.bool_]) -> NDArray[np.complex128]:
    """The median of each row's good values, part by part; 0 where there is none."""
    middle = np.maximum((is_good.sum(axis=1, keepdims=True) - 1) // 2, 0)
    x, y = (
        np.take_along_axis(np.sort(np.where(is_good, part, np.inf), axis=1), middle, axis=1)
        for part in (values.real, values.imag)
    )
    is_known = is_good.any(axis=1, keepdims=True)
    return np.where(is_known, x, 0) + 1j * np.where(is_known, y, 0)


def _flow(
    before: Grey, now: Grey, points: NDArray[np.float32], hoped: NDArray[np.float32], levels: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    ended, is_found, _ = cv2.calcOpticalFlowPyrLK(
        before,
        now,
        points,
        hoped.astype(np.float32),
        winSize=(WINDOW_PX, WINDOW_PX),
        maxLevel=levels,
        criteria=(cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 0.02),
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    return np.asarray(ended, np.float32), is_found.ravel() > 0


def _is_inside(places: NDArray[np.float64], grey: Grey) -> NDArray[np.bool_]:
    height, width = grey.shape
    x, y = places[..., 0], places[..., 1]
    return np.asarray((x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1))


def _mean(levels: NDArray[np.float32], seen: NDArray[np.float32], count: NDArray[np.float32]) -> NDArray[np.float32]:
    mean: NDArray[np.float32] = ((levels * seen).sum(axis=1) / count)[:, None]
    return mean


def evenly(count: int) -> NDArray[np.float64]:
    """``(count,)``: the middles of so many equal parts of 0 to 1."""
    return (np.arange(count) + 0.5) / count


def spread(rows: NDArray[np.float64], columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(R * C, 4)``: places in a four-point shape, each as a mean of its corners.

    Args:
        rows: how far down they are, 0 at the top and 1 at the bottom, ``(R,)``; others lie outside.
        columns: how far to the right, likewise, ``(C,)``.
    """
    v, u = np.meshgrid(rows, columns, indexing="ij")
    return np.stack([(1 - u) * (1 - v), u * (1 - v), u * v, (1 - u) * v], axis=-1).reshape(-1, 4)


_PATCH_WEIGHTS = spread(evenly(PATCH_ROWS), evenly(PATCH_COLUMNS))
_POINT_WEIGHTS = spread(evenly(POINT_ROWS), evenly(POINT_COLUMNS))
