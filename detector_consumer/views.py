"""How well a crop can be read, and whether it shows anything that was not read already.

A track's first crop is always sent to be read. A later one is sent if its picture changed, or if it is clearly better;
`Album` keeps what was sent of each track of a source::

    view = view_of(cut(picture, track.polygon), track.polygon, is_whole=track.is_whole)
    if album.look(track.track_id, view, at_ns).is_wanted:
        ...  # send the crop; other tracks in sight go on without pixels, as last read

Two crops of one text differ by exposure, noise and compression, by a shift of a pixel, by a little blur. All of these
are sums of a few known patterns: the picture itself, its slopes, its curvature. What is left of a crop when the best
such sum has been taken away is news; where it is much within the width of one letter, the picture has changed.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.geometry import Polygon
from ocrstream.picture import Image

Descriptor = NDArray[np.float32]
"""``(ROWS, w) float32`` grey in [0, 255], as wide as the crop is in proportion to its height."""

ROWS = 20
MAX_COLUMNS = 800
MARGIN_PX = 2
"""So far may one crop be shifted against the other as a whole."""
LETTER_COLUMNS = 10
"""News is looked for in windows of about a letter's width, or a change of one letter would drown in a long line."""
MAX_STRETCH = 1.15
"""Crops of one text differ in their proportions at most so much, or one shows more of it than the other."""

MAX_NEWS = 0.15
NOISE_VARIANCE = 9.0
"""What a camera and a video's compression leave of their noise in a descriptor, in grey levels squared."""
QUIET_SHARE = 0.25
"""A window with less than this share of the whole picture's variance is background, and its noise is no news."""

FULL_HEIGHT_PX = 40
"""Letters higher than this are read no better for it."""
FULL_SHARPNESS = 0.3
"""What letters with crisp edges have, 20 px high."""
CUT_SCORE = 0.5
"""What a crop is worth that the frame's edge cuts off, against a whole one."""
CLEARLY = 1.3
JUST_READABLE = 0.02
"""Scores this low differ by chance."""

RESTLESS_S = 0.3
"""A picture that changes at every look, as behind somebody who walks by, is sent when it has come to rest, or so long
after what was sent before it."""
RESTLESS_LOOKS = 3
"""A picture that has changed at so many looks in a row, and then does not, has come to rest; after less it has changed.
"""
RESTS_NEWS, JUMP_NEWS = 0.01, 0.5
"""A picture rests where it shows no more news than that since the last look, and has jumped where it shows so much.
What lies between is on its way, as where one text dissolves into another: what could be read is neither."""
ON_ITS_WAY_S = 0.8
"""And is waited for so long."""


@dataclass(frozen=True, eq=False)
class View:
    """One look at a line.

    Attributes:
        score: how well it can be read, 0 to 1: the product of height, sharpness, straightness and completeness.
        descriptor: what it looks like.
        is_whole: whether all of the line is in the frame.
    """

    score: float
    descriptor: Descriptor
    is_whole: bool = True

    @cached_property
    def patterns(self) -> _Patterns:
        """What the next views are held against, but for a margin."""
        return _Patterns(_inner(self.descriptor))


class Look(Enum):
    """What a look at a line shows, against what was sent of it."""

    SAME = "same"
    """The same picture: reading it again can at most correct what was read."""
    BETTER = "better"
    """The same picture, clearly better to read."""
    CHANGED = "changed"
    """Another picture, or the first one; what it says may be another text."""
    RESTLESS = "restless"
    """Another picture that is changing; it is waited for a moment that it comes to rest."""

    @property
    def is_wanted(self) -> bool:
        """Whether the crop is to be sent."""
        return self in (Look.BETTER, Look.CHANGED)


class Album:
    """What was sent of each track of one source, to tell what is worth sending next.

    Attributes:
        at_rest: the tracks whose pictures have changed for a while and have come to rest, until somebody clears them: a
            text may have dissolved into another one there.
    """

    def __init__(self) -> None:
        self.at_rest: set[str] = set()
        self._sent: dict[str, tuple[View, int]] = {}
        self._looked_at: dict[str, View] = {}
        self._restless: dict[str, _Restless] = {}

    def look(self, track_id: str, view: View, at_ns: int) -> Look:
        """Judge a look; what is wanted is taken as sent.

        Args:
            track_id: a track that is in sight; this is to be called at every look at it.
            view: how it looks.
            at_ns: when.
        """
        look = self._judged(track_id, view, at_ns)
        self._looked_at[track_id] = view
        if look.is_wanted:
            self._sent[track_id] = view, at_ns
        return look

    def keep(self, track_ids: Collection[str]) -> None:
        """Forget all other tracks."""
        for track_id in self._looked_at.keys() - track_ids:
            del self._looked_at[track_id], self._sent[track_id]
            self._restless.pop(track_id, None)
        self.at_rest &= set(track_ids)

    def _judged(self, track_id: str, view: View, at_ns: int) -> Look:
        if track_id not in self._sent:
            return Look.CHANGED
        sent, sent_at_ns = self._sent[track_id]
        if is_same_picture(sent, view):
            self._rest(track_id)
            return Look.BETTER if is_clearly_better(view, sent) else Look.SAME
        restless = self._restless.setdefault(track_id, _Restless(at_ns))
        lately = news(self._looked_at[track_id], view)
        # What changes at once after a while, as a clock does, is told at once; but more of a line, or less, may be
        # found just now because another text comes up there.
        has_jumped = lately >= JUMP_NEWS and _is_as_long(self._looked_at[track_id], view)
        is_told = has_jumped and not 0 <= at_ns - sent_at_ns < RESTLESS_S * 1e9
        is_late = not 0 <= at_ns - restless.since_ns < ON_ITS_WAY_S * 1e9
        if not (is_told or is_late or lately < RESTS_NEWS):
            restless.looks += 1
            return Look.RESTLESS
        self._rest(track_id)
        return Look.CHANGED

    def _rest(self, track_id: str) -> None:
        restless = self._restless.pop(track_id, None)
        if restless is not None and restless.looks >= RESTLESS_LOOKS:
            self.at_rest.add(track_id)


@dataclass(slots=True)
class _Restless:
    """Since when a picture has been another one than that sent, and how many looks it changed at since."""

    since_ns: int
    looks: int = 0


def view_of(crop: Image, polygon: Polygon, *, is_whole: bool = True) -> View:
    """Judge a crop.

    Args:
        crop: the line, upright, ``(h, w, 3) uint8 BGR`` at the frame's scale.
        polygon: where it was cut out, in the frame's pixels.
        is_whole: whether all of the line is in the frame.
    """
    grey = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
    height = min(grey.shape[0], FULL_HEIGHT_PX) / FULL_HEIGHT_PX
    score = height * sharpness(grey) * straightness(polygon) * (1.0 if is_whole else CUT_SCORE)
    return View(round(score, 4), _descriptor(grey), is_whole)


def is_same_picture(known: View, view: View) -> bool:
    """Whether a crop shows what a known one shows, or a part of it while the line leaves the frame.

    Reading it would be work done twice.
    """
    return news(known, view) < MAX_NEWS


def is_clearly_better(view: View, known: View) -> bool:
    """Whether a crop can be read so much better than a known one of the same text that it is worth reading, too."""
    return view.score > CLEARLY * known.score + JUST_READABLE


def news(known: View, view: View) -> float:
    """The largest part of one letter's width of a crop that a known one does not explain, 0 to 1."""
    old, new = known.descriptor, view.descriptor
    if not view.is_whole and view.score * MAX_STRETCH < known.score:
        # What leaves over an edge is cut lower and askew, and was read better before.
        return 0.0
    if new.shape[1] < old.shape[1] and not view.is_whole:
        inner = _inner(new)
        place = _place_of(inner, old)
        return 0.0 if _is_alike(place, inner) else _Patterns(place).unexplained(inner)
    if not _is_as_long(known, view):
        return 1.0
    if new.shape != old.shape:
        new = np.asarray(cv2.resize(new, (old.shape[1], ROWS), interpolation=cv2.INTER_LINEAR), np.float32)
    inner = _inner(old)
    place = _place_of(inner, new)
    return 0.0 if _is_alike(inner, place) else known.patterns.unexplained(place)


def _is_as_long(known: View, view: View) -> bool:
    """Whether two crops may show as much of a line."""
    stretch: float = view.descriptor.shape[1] / known.descriptor.shape[1]
    return 1 / MAX_STRETCH <= stretch <= MAX_STRETCH


def sharpness(grey: NDArray[np.uint8]) -> float:
    """How crisp a crop's edges are, 0 to 1.

    In a blurred picture neighbouring pixels differ little against those a few pixels away; the weaker of the two
    directions counts, since a camera that moves blurs one of them only. Noise is taken off both.

    Args:
        grey: ``(h, w) uint8``.
    """
    # Shrunk alike: a blur of two pixels is nothing to large letters.
    small = _with_height(grey, min(grey.shape[0], ROWS)).astype(np.float32)
    noise = 2 * NOISE_VARIANCE * (small.shape[0] / grey.shape[0]) ** 2
    shares = []
    for axis in (0, 1):
        if small.shape[axis] < 4:
            return 0.0
        near = _steps(small, 1, axis)
        far = _steps(small, 3, axis)
        shares.append(max(near - noise, 0.0) / max(far, 2 * NOISE_VARIANCE))
    return float(min(min(shares) / FULL_SHARPNESS, 1.0))


def straightness(polygon: Polygon) -> float:
    """How little a line is seen from the side or askew, 0 to 1.

    It is the sine of the angle at which its edges meet, times the lower one of its two ends over the higher one. Turned
    text is cut out upright and loses nothing.
    """
    a, b, c, d = (np.array(point) for point in polygon)
    along, down = (b - a) + (c - d), (d - a) + (c - b)
    length, height = float(np.hypot(*along)), float(np.hypot(*down))
    if min(length, height) <= 0:
        return 0.0
    sine = abs(float(along[0] * down[1] - along[1] * down[0])) / (length * height)
    left, right = math.dist(a, d), math.dist(b, c)
    return min(sine * min(left, right) / max(left, right, 1e-9), 1.0)


def _descriptor(grey: NDArray[np.uint8]) -> Descriptor:
    small = _with_height(grey, ROWS, MAX_COLUMNS)
    # A little blur makes a shift of half a pixel a small matter.
    return np.asarray(cv2.GaussianBlur(small, (0, 0), 0.7), np.float32)


def _with_height(grey: NDArray[np.uint8], rows: int, most_columns: int = 1 << 14) -> NDArray[np.uint8]:
    columns = min(max(round(grey.shape[1] * rows / grey.shape[0]), 1), most_columns)
    shrinks = rows < grey.shape[0]
    small = cv2.resize(grey, (columns, rows), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return small.astype(np.uint8, copy=False)


def _steps(grey: NDArray[np.float32], pixels: int, axis: int) -> float:
    """The mean squared difference of pixels so far apart."""
    ahead, behind = (grey[pixels:], grey[:-pixels]) if axis == 0 else (grey[:, pixels:], grey[:, :-pixels])
    return float(np.mean((ahead - behind) ** 2))


def _inner(whole: Descriptor) -> Descriptor:
    """Without a margin, so that it can be found in another one that is shifted."""
    return whole[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] if whole.shape[1] > 4 * MARGIN_PX else whole


def _place_of(inner: Descriptor, whole: Descriptor) -> Descriptor:
    """The part of a descriptor that is most like another one, as large as that."""
    _, _, _, (x, y) = cv2.minMaxLoc(cv2.matchTemplate(whole, inner, cv2.TM_CCOEFF_NORMED))
    return whole[y : y + inner.shape[0], x : x + inner.shape[1]]


class _Patterns:
    """The patterns of which sums are made: a picture, its slopes and its curvature, and how alike they are."""

    __slots__ = ("inverse", "old", "patterns", "step", "width")

    def __init__(self, old: Descriptor) -> None:
        self.old = old
        self.width = min(LETTER_COLUMNS, old.shape[1])
        self.step = max(self.width // 4, 1)
        self.patterns = np.stack(
            [
                np.ones_like(old),
                old,
                cv2.Sobel(old, cv2.CV_32F, 1, 0, scale=1 / 8),
                cv2.Sobel(old, cv2.CV_32F, 0, 1, scale=1 / 8),
                cv2.Laplacian(old, cv2.CV_32F),
            ]
        )
        # (P, P, w): sums over columns first, then over windows.
        squares = _windows(np.einsum("prc,qrc->pqc", self.patterns, self.patterns), self.width)[..., :: self.step]
        matrix = squares.transpose(2, 0, 1) + 1e-3 * self.width * old.shape[0] * np.eye(len(self.patterns))
        self.inverse = np.linalg.inv(matrix)

    def unexplained(self, new: Descriptor) -> float:
        """The largest share of a new picture's variance, in any window, that is no sum of these."""
        width, step, count = self.width, self.step, self.width * self.old.shape[0]
        along = _windows(np.einsum("prc,rc->pc", self.patterns, new), width)[..., ::step].T
        energy = _windows((new * new).sum(axis=0), width)[::step]
        total = _windows(new.sum(axis=0), width)[::step]
        explained = np.einsum("wp,wpq,wq->w", along, self.inverse, along)
        left = np.maximum((energy - explained) / count - NOISE_VARIANCE, 0.0)
        variance = energy / count - (total / count) ** 2
        return float(np.clip(left / np.maximum(variance, QUIET_SHARE * new.var() + NOISE_VARIANCE), 0, 1).max())


def _is_alike(old: Descriptor, new: Descriptor) -> bool:
    """Whether they differ by no more than noise in any window.

    Then the best sum leaves no more, which takes ten times as long to tell.
    """
    width = min(LETTER_COLUMNS, old.shape[1])
    return bool(_windows(((new - old) ** 2).sum(axis=0), width).max() <= NOISE_VARIANCE * width * old.shape[0])


def _windows(columns: NDArray[np.float32], width: int) -> NDArray[np.float64]:
    """Sums over every run of so many columns."""
    sums = np.cumsum(columns, axis=-1, dtype=np.float64)
    sums = np.concatenate([np.zeros((*sums.shape[:-1], 1)), sums], axis=-1)
    return sums[..., width:] - sums[..., :-width]
