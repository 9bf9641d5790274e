"""How the camera moved from one frame to the next, told by small grey copies of the frames.

A frame is made small once (`shrink`); gate, motion and tracking all look at that copy. Its pixels are whole blocks
of the frame's pixels, so that both lie over each other by one factor and a resting picture stays exactly the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.picture import Image, Picture

Grey = NDArray[np.uint8]
"""``(H, W) uint8`` in [0, 255]."""

Pixels = NDArray[np.integer[Any] | np.floating[Any]]
"""What OpenCV gives back, of whatever type."""

Points = NDArray[np.float64]
"""``(N, 2)``, x then y, in small pixels."""

SMALL_SIDE_PX = 480
"""About how long the longer side of a small picture is."""

FINE_SIDE_PX = 960
"""At most how long the longer side of a fine picture is."""

_EVEN_WINDOW_PX = 21
_EVEN_COARSE_PX = 600
_EVEN_FLOOR = 10.0
_EVEN_SCALE = 32.0
_EVEN_MIDDLE = 128.0

# Following corners: how many, how far apart, how far they are looked for, and how many have to agree how well.
_CORNERS = 160
_CORNER_QUALITY = 0.02
_CORNER_GAP_PX = 10
_MIN_CORNERS = 12
_WINDOW_PX = 13
_LEVELS = 3
_MAX_ERROR_PX = 0.7
_MIN_SHARE = 0.35
_MAX_ZOOM = 1.6
_REST_PX = 0.3
_REST_ADVANTAGE = 1.25

# Telling a camera at rest, in patches of the picture at half its size: how far the clear ones may shift each, and all
# of them together.
_PATCH_PX = 8
_MIN_TEXTURE = 40.0
_MIN_PATCHES = 8
_STILL_PX = 0.08
_STILL_SHARE = 0.6
_CREEP_PX = 0.02

_MAX_REMAINING_PX = 2.0
_REMAINING_ERROR_PX = 0.3

# Two pictures that differ by less in all patches show the same: cameras' noise and codecs leave 1 to 1.5 between
# neighbouring frames of a scene at rest, one letter of a clock more than 10.
_NO_CHANGE = 2.0

# Telling a cut: patches with something on them that differ by less than so much of it are alike. Cuts in real and made
# clips left at most 0.01 of them alike; text running over black left 0.18.
_STRUCTURE = 8.0
_MAX_DIFFERENCE = 0.3
_MIN_ALIKE = 0.1


@dataclass(frozen=True, eq=False)
class Greys:
    """A frame's grey copies. Rows and columns at the right and at the bottom that fill no whole pixel are left out.

    Attributes:
        fine: about 500 to 960 px on its longer side, so that a digit 16 px high in 1080p keeps 8 px of height.
        small: about 360 to 720 px, enough to tell motion.
        fine_factor: how many pixels of the frame lie side by side in one of the fine copy.
        small_factor: the same for the small copy.
    """

    fine: Grey
    small: Grey
    fine_factor: int
    small_factor: int

    @cached_property
    def even(self) -> Grey:
        """The fine copy without its light, see `evened`."""
        return evened(self.fine)


def shrink(shown: Picture) -> Greys:
    """Make the grey copies of a frame; where it is small itself, they have its size.

    One that came as a JPEG is decoded at the fine copy's size alone, where that is one of a JPEG's own fractions.

    Args:
        shown: the frame's picture.

    Raises:
        MalformedRecordError: it cannot be decoded.
    """
    size_wh = shown.size_wh()
    longer, shorter = max(size_wh), min(size_wh)
    small_factor = min(max(1, round(longer / SMALL_SIDE_PX)), shorter)
    fine_factor = min(-(-longer // FINE_SIDE_PX), small_factor)
    reduced = shown.reduced_grey(fine_factor)
    if reduced is not None:
        # A JPEG's last column and row are of blocks that the frame's edge cuts off.
        fine = reduced[: size_wh[1] // fine_factor, : size_wh[0] // fine_factor]
        small_wh = (size_wh[0] // small_factor, size_wh[1] // small_factor)
        covered = fine[: small_wh[1] * small_factor // fine_factor, : small_wh[0] * small_factor // fine_factor]
        small = np.asarray(cv2.resize(covered, small_wh, interpolation=cv2.INTER_AREA), np.uint8)
        return Greys(fine, small, fine_factor, small_factor)
    picture = shown.array()
    if fine_factor % 2 == 0:
        # Halving the colours first leaves a quarter of them to be made grey: half the time.
        half = _grey(_shrunk(picture, 2))
        fine = _shrunk(half, fine_factor // 2)
    else:
        fine = _shrunk(_grey(picture), fine_factor)
    if small_factor % fine_factor == 0:
        small = _shrunk(fine, small_factor // fine_factor)
    elif fine_factor % 2 == 0 and small_factor % 2 == 0:
        small = _shrunk(half, small_factor // 2)
    else:
        small = _shrunk(_grey(picture), small_factor)
    return Greys(fine, small, fine_factor, small_factor)


def is_unchanged(before: Grey, now: Grey) -> bool:
    """Whether two small pictures of one size show the same, but for noise.

    Args:
        before: ``(H, W) uint8``.
        now: the other one.
    """
    if min(now.shape) < _PATCH_PX:
        return False
    return bool(np.abs(_patch_means(cv2.subtract(now, before, dtype=cv2.CV_32F))).max() < _NO_CHANGE)


def evened(grey: Grey) -> Grey:
    """Take the light out of a picture: what is left is each pixel's contrast to its surroundings.

    A pixel becomes ``128 + 32 * (pixel - mean) / (deviation + 10)`` over a window of 21 px, or 42 in a picture larger
    than 600, so neither a change of exposure nor a slow shadow shows, and noise in plain surfaces stays small.

    Args:
        grey: ``(H, W) uint8``.

    Returns:
        ``(H, W) uint8`` around 128.
    """
    # What lies around a pixel changes slowly: in a fine picture every other one tells it.
    coarse = grey if max(grey.shape) <= _EVEN_COARSE_PX or min(grey.shape) < 2 else _shrunk(grey, 2)
    window = (_EVEN_WINDOW_PX, _EVEN_WINDOW_PX)
    mean = cv2.boxFilter(coarse, cv2.CV_32F, window, borderType=cv2.BORDER_REFLECT_101)
    square = cv2.sqrBoxFilter(coarse, cv2.CV_32F, window, borderType=cv2.BORDER_REFLECT_101)
    deviation = np.sqrt(np.maximum(cv2.subtract(square, cv2.multiply(mean, mean)), 0))
    gain = np.asarray(_EVEN_SCALE / (deviation + _EVEN_FLOOR), np.float32)
    offset = np.asarray(_EVEN_MIDDLE - mean * gain, np.float32)
    if coarse is not grey:
        size = (grey.shape[1], grey.shape[0])
        gain, offset = (np.asarray(cv2.resize(values, size), np.float32) for values in (gain, offset))
    return np.asarray(cv2.add(cv2.multiply(grey, gain, dtype=cv2.CV_32F), offset, dtype=cv2.CV_8U), np.uint8)


@dataclass(frozen=True, slots=True, eq=False)
class Motion:
    """Where the still parts of a picture went.

    Attributes:
        matrix: ``(2, 3) float64``, takes points of the earlier small picture to the later one; turn, zoom and shift.
            Pixel centres lie at whole numbers, as OpenCV has it.
    """

    matrix: NDArray[np.float64]

    @classmethod
    def none(cls) -> Self:
        """A camera at rest."""
        return cls(np.eye(2, 3))

    @property
    def is_still(self) -> bool:
        """Whether the camera is at rest; then the matrix is the identity to the last bit."""
        return bool(np.array_equal(self.matrix, np.eye(2, 3)))

    def move(self, points: Points) -> Points:
        """Where points of the earlier picture are in the later one, ``(N, 2)``."""
        moved: Points = points @ self.matrix[:, :2].T + self.matrix[:, 2]
        return moved

    def then(self, later: Motion) -> Self:
        """This motion and, after it, another one."""
        turn, shift = later.matrix[:, :2], later.matrix[:, 2]
        return type(self)(np.column_stack([turn @ self.matrix[:, :2], turn @ self.matrix[:, 2] + shift]))

    def inverse(self) -> Self:
        """The way back."""
        return self if self.is_still else type(self)(np.asarray(cv2.invertAffineTransform(self.matrix), np.float64))

    def scaled(self, factor: float) -> Self:
        """The same motion in pictures whose sides are so many times as long."""
        turn, shift = self.matrix[:, :2], self.matrix[:, 2]
        middle = (np.eye(2) - turn).sum(axis=1) * (factor - 1) / 2
        return type(self)(np.column_stack([turn, factor * shift + middle]))


class MotionEstimator:
    """Tells the camera's motion between the frames of one source.

    It remembers the corners it found in the last frame, which saves looking for them again; the answer does not lean on
    anything else from before.
    """

    def __init__(self) -> None:
        self._seen: _Seen | None = None

    def estimate(self, before: Grey, now: Grey) -> Motion | None:
        """The camera's motion from one small picture to the next.

        What moves by itself is left aside as long as it is not most of the picture.

        Args:
            before: ``(H, W) uint8``, the earlier one.
            now: the later one.

        Returns:
            The motion; None for a cut: another picture, or too little in common with it.
        """
        first = self._seen if self._seen is not None and self._seen.grey is before else _Seen(before)
        second = self._seen = _Seen(now)
        if before.shape != now.shape:
            return None
        if min(first.half.shape) < _PATCH_PX:
            # A sliver has nothing to follow.
            return Motion.none()
        if _is_at_rest(first.half, second.half):
            second.corners = first.corners
            return Motion.none()
        return _followed(first, second)


def remaining_motion(before: Grey, now: Grey, known: Grey) -> Motion:
    """What is left of the motion between two pictures that lie over each other but for about a pixel.

    It may shear the picture too: over a longer time a hand turns the camera towards what it shows.

    Args:
        before: ``(H, W) uint8``, a picture from `evened`.
        now: the other one.
        known: 255 where both show something.

    Returns:
        The motion; none where too little is clear, or where what is clear does not agree.
    """
    known_patches = _patch_means(np.asarray(known[::2, ::2])) > 254.5
    shifts, textures = _patch_shifts(*(np.asarray(cv2.pyrDown(even), np.uint8) for even in (before, now)))
    lengths = np.hypot(shifts[:, 0], shifts[:, 1])
    clear = known_patches.ravel() & (textures > _MIN_TEXTURE) & (lengths < _MAX_REMAINING_PX / 2)
    if clear.sum() < _MIN_PATCHES:
        return Motion.none()
    y, x = np.mgrid[: known_patches.shape[0], : known_patches.shape[1]] * 2 * _PATCH_PX + _PATCH_PX - 1
    at = np.stack([x.ravel(), y.ravel()], axis=-1)[clear].astype(np.float64)
    matrix, agrees = cv2.estimateAffine2D(at, at + 2 * shifts[clear], ransacReprojThreshold=_REMAINING_ERROR_PX)
    if matrix is None or agrees.sum() < max(_MIN_PATCHES, _MIN_SHARE * clear.sum()):
        return Motion.none()
    motion = Motion(np.asarray(matrix, np.float64))
    height, width = before.shape
    corners = np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])
    # Patches in one corner of the picture say little about the others.
    return motion if np.abs(motion.move(corners) - corners).max() < 2 * _MAX_REMAINING_PX else Motion.none()


class _Seen:
    """A small picture with what is worked out of it once."""

    __slots__ = ("corners", "even", "grey", "half")

    def __init__(self, grey: Grey) -> None:
        self.grey = grey
        self.even = evened(grey)
        self.half: Grey = np.asarray(cv2.pyrDown(self.even), np.uint8)
        self.corners: NDArray[np.float32] | None = None


def _is_at_rest(before: Grey, now: Grey) -> bool:
    """Whether most patches that have anything on them are where they were."""
    shifts, textures = _patch_shifts(before, now)
    clear = textures > _MIN_TEXTURE
    if clear.sum() < _MIN_PATCHES:
        return False
    # The picture has half the size, so its shifts count double.
    lengths = 2 * np.hypot(shifts[clear, 0], shifts[clear, 1])
    if np.mean(lengths < _STILL_PX) < _STILL_SHARE:
        return False
    # Noise moves each patch another way; what they have in common is a slow camera.
    return bool(2 * np.hypot(*np.median(shifts[clear], axis=0)) < _CREEP_PX)


def _patch_shifts(before: Grey, now: Grey) -> tuple[Points, NDArray[np.float64]]:
    """Every patch's shift by one Lucas-Kanade step, and the smaller eigenvalue of its structure.

    Shifts below about one pixel are told well, larger ones as "more than that".
    """
    x = cv2.Sobel(before, cv2.CV_32F, 1, 0, scale=1 / 8)
    y = cv2.Sobel(before, cv2.CV_32F, 0, 1, scale=1 / 8)
    t = cv2.subtract(now, before, dtype=cv2.CV_32F)
    products = (cv2.multiply(a, b) for a, b in ((x, x), (x, y), (y, y), (x, t), (y, t)))
    xx, xy, yy, xt, yt = map(_patch_means, products)
    determinant = xx * yy - xy * xy
    smaller = (xx + yy) / 2 - np.sqrt(np.maximum(((xx - yy) / 2) ** 2 + xy * xy, 0))
    safe = np.maximum(determinant, 1e-6)
    shifts = np.stack([(xy * yt - yy * xt) / safe, (xy * xt - xx * yt) / safe], axis=-1)
    return shifts.reshape(-1, 2), smaller.ravel()


def _patch_means(values: Pixels) -> NDArray[np.float64]:
    height, width = (side // _PATCH_PX * _PATCH_PX for side in values.shape)
    size = (width // _PATCH_PX, height // _PATCH_PX)
    return np.asarray(cv2.resize(values[:height, :width], size, interpolation=cv2.INTER_AREA), np.float64)


def _followed(first: _Seen, second: _Seen) -> Motion | None:
    """The motion that most corners agree on, be it as large as a leap."""
    if first.corners is None or len(first.corners) < _CORNERS * 0.6:
        first.corners = _corners(first.even)
    if len(first.corners) < _MIN_CORNERS:
        return _unfollowed(first, second)
    corners = first.corners
    motion = _agreed(first, second, corners, np.zeros(2)) or _unfollowed(first, second)
    return motion or _agreed(first, second, corners, _leap(first.half, second.half))


def _agreed(first: _Seen, second: _Seen, corners: NDArray[np.float32], leap: NDArray[np.float64]) -> Motion | None:
    """The motion that most corners agree on when they are looked for behind a leap; None if they do not."""
    moved, found, _ = cv2.calcOpticalFlowPyrLK(
        first.even,
        second.even,
        corners,
        (corners + leap).astype(np.float32),
        winSize=(_WINDOW_PX, _WINDOW_PX),
        maxLevel=_LEVELS,
        criteria=(cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 12, 0.02),
        flags=cv2.OPTFLOW_USE_INITIAL_FLOW,
    )
    kept = found.ravel() == 1
    before, now = corners[kept], moved[kept]
    least = max(_MIN_CORNERS / 2, _MIN_SHARE * len(corners))
    if len(before) < least:
        return None
    matrix, agrees = cv2.estimateAffinePartial2D(before, now, ransacReprojThreshold=_MAX_ERROR_PX, maxIters=300)
    agreeing = 0 if matrix is None else int(agrees.sum())
    ways = np.hypot(*(now - before).reshape(-1, 2).T)
    resting = int((ways < _REST_PX).sum())
    # A large thing that passes by may hold more corners than the rest; a camera at rest is the likelier story.
    passes_by = agreeing > 0 and float(np.median(ways[agrees.ravel() == 1])) > 2 * _REST_PX
    if resting >= least and resting * _REST_ADVANTAGE >= agreeing and (passes_by or not agreeing):
        second.corners = first.corners
        return Motion.none()
    zoom = 0.0 if matrix is None else float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if agreeing < least or not 1 / _MAX_ZOOM < zoom < _MAX_ZOOM:
        return None
    second.corners = _inside(now[agrees.ravel() == 1], second.grey)
    return Motion(matrix.astype(np.float64))


def _leap(before: Grey, now: Grey) -> NDArray[np.float64]:
    """The shift, in pixels of the small picture, that lays one picture at half its size best over the other."""
    first, second = (np.asarray(half, np.float32) - np.float32(_EVEN_MIDDLE) for half in (before, now))
    window = cv2.createHanningWindow((before.shape[1], before.shape[0]), cv2.CV_32F)
    shift, _ = cv2.phaseCorrelate(first, second, window)
    return 2 * np.array(shift)


def _corners(even: Grey) -> NDArray[np.float32]:
    found = cv2.goodFeaturesToTrack(even, _CORNERS, _CORNER_QUALITY, _CORNER_GAP_PX)
    return np.empty((0, 1, 2), np.float32) if found is None else found.astype(np.float32)


def _inside(points: NDArray[np.float32], grey: Grey) -> NDArray[np.float32]:
    height, width = grey.shape
    x, y = points[:, 0, 0], points[:, 0, 1]
    kept: NDArray[np.float32] = points[(x >= 0) & (y >= 0) & (x <= width - 1) & (y <= height - 1)]
    return kept


def _unfollowed(first: _Seen, second: _Seen) -> Motion | None:
    """Where no motion is found: at rest as long as some of what is there looks as before, or else a cut."""
    first_structure, second_structure = (
        _patch_means(cv2.absdiff(seen.half, np.full_like(seen.half, _EVEN_MIDDLE))) for seen in (first, second)
    )
    # A black border, or a wall behind both, says nothing.
    structure = np.maximum(first_structure, second_structure)
    there = structure > _STRUCTURE
    alike = _patch_means(cv2.absdiff(first.half, second.half)) < _MAX_DIFFERENCE * structure
    if there.any() and float(np.mean(alike[there])) < _MIN_ALIKE:
        return None
    second.corners = first.corners
    return Motion.none()


def _grey(picture: Image) -> Grey:
    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY), np.uint8)


def _shrunk(picture: NDArray[np.uint8], factor: int) -> NDArray[np.uint8]:
    if factor == 1:
        return picture
    size = (picture.shape[1] // factor, picture.shape[0] // factor)
    whole = picture[: size[1] * factor, : size[0] * factor]
    if factor % 2:
        # The same, in half the time.
        middle = factor // 2
        return np.ascontiguousarray(cv2.blur(whole, (factor, factor))[middle::factor, middle::factor], np.uint8)
    return np.asarray(cv2.resize(whole, size, interpolation=cv2.INTER_AREA), np.uint8)
