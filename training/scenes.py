"""Crops of photos with what the detector should say about them: one slice for every cell (`ocrstream.models.ctpn`)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.models.ctpn.slices import (
    CORE_END,
    CORE_HEIGHT,
    MIN_CORE_PX,
    STRIDE_PX,
    UNIT_PX,
    cell_centres,
)
from ocrstream.picture import Image
from training.augmentation import compressed, motion_kernel
from training.folders import Region
from training.pages import PagePainter
from training.photos import PhotoCache
from training.signs import SignPainter

MIN_HEIGHT_PX = 7.0
"""Where text lower than this in the crop stands cannot be told: no geometry is asked of the network there."""

MIN_HINT_PX = 3.5
"""But that there is text, on a page from this height on: the detector then looks closer
(`ocrstream.models.ctpn.looking`). What is as small on a photo could be anything, and costs time at every look."""

LEGIBLE_SMEARS = 1.5
"""Text is still text where it is this many times as high as blur and motion together spread a point."""

MAX_TILT = 1.2
"""Text steeper than this (rise over run) is left to the teacher: columns say nothing useful about it."""

TEXT, NO_TEXT, UNKNOWN = 255, 0, 128
"""The score plane's values for what labels say; a teacher's opinion may take the place of ``UNKNOWN``."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A crop and its targets.

    Attributes:
        picture: ``(S, S, 3) uint8 BGR``.
        score: ``(S / 4, S / 4) uint8``, ``TEXT``, ``NO_TEXT`` or ``UNKNOWN``.
        geometry: ``(5, S / 4, S / 4) float16``: log distances to top, bottom, left, right, and slope, where `known`.
        known: ``(S / 4, S / 4) uint8``: 1 where the geometry holds, 2 where it is also near an end, else 0.
    """

    picture: Image
    score: NDArray[np.uint8]
    geometry: NDArray[np.float16]
    known: NDArray[np.uint8]


class SceneMaker:
    """Makes scenes out of photos, by chance, each of its own number.

    Args:
        sources: photos, with the share of scenes each takes.
        allowed: for each source the photos that may be used.
        size_px: the scenes' side.
        seed: scene n of a seed is always the same.
        painter: draws signs into some of the scenes; none where there is none.
        painted: their share.
        pager: draws pages in place of some of the scenes; none where there is none.
        pages: their share.
    """

    def __init__(
        self,
        sources: Sequence[tuple[PhotoCache, float]],
        allowed: Sequence[Sequence[int]],
        size_px: int,
        seed: int,
        painter: SignPainter | None = None,
        painted: float = 0.0,
        pager: PagePainter | None = None,
        pages: float = 0.0,
    ) -> None:
        self._painter = painter
        self._painted = painted
        self._pager = pager
        self._pages = pages
        self._sources = [cache for cache, _ in sources]
        shares = np.array([share for _, share in sources])
        self._shares = shares / shares.sum()
        self._allowed = [np.asarray(indices) for indices in allowed]
        self._size_px = size_px
        self._seed = seed

    def scene(self, number: int) -> Scene:
        """The scene of a number."""
        random = np.random.default_rng((self._seed, number))
        which = int(random.choice(len(self._sources), p=self._shares))
        cache = self._sources[which]
        index = int(random.choice(self._allowed[which]))
        regions = cache.regions(index)
        matrix = _placement(regions, cache.size_hw(index), self._size_px, random)
        size = (self._size_px, self._size_px)
        warped = cv2.warpAffine(
            cache.photo(index),
            matrix,
            size,
            flags=cv2.INTER_LINEAR,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=random.integers(0, 255, 3).tolist(),
        )
        moved = [Region(cv2.transform(region.quad[None], matrix)[0], region.text, region.ignore) for region in regions]
        picture: Image = warped.astype(np.uint8, copy=False)
        if self._pager and random.random() < self._pages:
            picture, moved = self._pager.paint(picture, moved, random)
            # A third of them are captured as they are.
            if random.random() < 0.65:
                picture, moved = weathered(picture, moved, random)
            hint_px = MIN_HINT_PX
        else:
            if self._painter and random.random() < self._painted:
                picture, signs = self._painter.paint(picture, moved, random)
                moved += signs
            picture, moved = weathered(picture, moved, random)
            hint_px = MIN_HEIGHT_PX
        score, geometry, known = targets(moved, self._size_px, hint_px)
        return Scene(picture, score, geometry, known)


def _placement(
    regions: Sequence[Region], size_hw: tuple[int, int], size_px: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """Photo to scene, ``(2, 3)``: a word somewhere inside, at a height between 4 and 100 pixels, a little turned."""
    height_px, width_px = size_hw
    scale = float(np.exp(random.uniform(np.log(0.35), np.log(2.0))))
    legible = [region for region in regions if not region.ignore]
    chosen = legible or regions
    if chosen and random.random() < 0.9:
        quad = chosen[int(random.integers(len(chosen)))].quad
        centre = quad.mean(axis=0)
        text_px = max(_height_px(quad), 1.0)
        scale = float(np.clip(scale, 4 / text_px, max(100 / text_px, 0.1)))
    else:
        centre = np.array([random.uniform(0, width_px), random.uniform(0, height_px)])
    degrees = random.uniform(-35, 35) if random.random() < 0.15 else random.normal(0, 4)
    stretch = float(np.exp(random.normal(0, 0.1)))
    angle = np.deg2rad(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    linear = turn @ np.diag([scale * stretch, scale / stretch])
    # The crop's middle in the photo, moved so that the crop lies inside where it can: what is outside teaches nothing.
    reach = np.abs(np.linalg.inv(linear)) @ np.full(2, size_px / 2)
    middle = centre + np.linalg.inv(linear) @ (random.uniform(-0.35, 0.35, 2) * size_px)
    low, high = reach, np.array([width_px, height_px]) - reach
    middle = np.where(low < high, np.clip(middle, low, high), np.array([width_px, height_px]) / 2)
    return np.concatenate([linear, (np.full(2, size_px / 2) - linear @ middle)[:, None]], axis=1)


def weathered(picture: Image, regions: Sequence[Region], random: np.random.Generator) -> tuple[Image, list[Region]]:
    """Light, colour, blur, noise and compression as a camera's that may move; what they smear is text no longer."""
    if random.random() < 0.7:
        gain = np.exp(random.normal(0, 0.2)) * np.exp(random.normal(0, 0.06, 3))
        shift = random.normal(0, 15)
        values = np.arange(256, dtype=np.float64)[:, None] * gain + shift
        gamma = np.exp(random.normal(0, 0.2))
        table = 255 * (np.clip(values, 0, 255) / 255) ** gamma
        picture = cv2.LUT(picture, table.astype(np.uint8)[:, None, :])  # type: ignore[assignment]
    smeared_px = 0.0
    if random.random() < 0.3:
        sigma_px = float(random.uniform(0.5, 1.8))
        smeared_px = 2 * sigma_px
        picture = cv2.GaussianBlur(picture, (0, 0), sigma_px)  # type: ignore[assignment]
    if random.random() < 0.25:
        length_px = int(random.integers(3, 9))
        smeared_px += length_px
        kernel = motion_kernel(length_px, random.uniform(0, np.pi))
        picture = cv2.filter2D(picture, -1, kernel, borderType=cv2.BORDER_REPLICATE).astype(np.uint8)
    if random.random() < 0.05:
        picture = 255 - picture
    if random.random() < 0.25:
        noise = random.normal(0, random.uniform(3, 12), (*picture.shape[:2], 1))
        picture = np.clip(picture + noise, 0, 255).astype(np.uint8)
    if random.random() < 0.2:
        picture = compressed(picture, int(random.integers(25, 90)))
    least_px = LEGIBLE_SMEARS * smeared_px
    return picture, [
        Region(region.quad, region.text, region.ignore or _height_px(region.quad) < least_px) for region in regions
    ]


def targets(
    regions: Sequence[Region], size_px: int, hint_px: float = MIN_HINT_PX
) -> tuple[NDArray[np.uint8], NDArray[np.float16], NDArray[np.uint8]]:
    """What every cell of a square crop should say.

    Args:
        regions: the texts, in the crop's pixels.
        size_px: the crop's side, a multiple of 4.
        hint_px: from this height on text is said to be there, even where it is too small to say where.

    Returns:
        Score, geometry and known, as in `Scene`.
    """
    count = size_px // STRIDE_PX
    score = np.full((count, count), NO_TEXT, dtype=np.uint8)
    geometry = np.zeros((5, count, count), dtype=np.float16)
    known = np.zeros((count, count), dtype=np.uint8)
    centres = cell_centres(count)
    ordered = sorted(regions, key=lambda region: not region.ignore)
    for region in ordered:
        low, high = region.quad.min(axis=0), region.quad.max(axis=0)
        if (high <= 0).any() or (low >= size_px).any():
            continue
        shape = _Shape.of(region.quad)
        if region.ignore or shape is None or shape.height_px < hint_px:
            cv2.fillPoly(score, [np.round(region.quad / STRIDE_PX - 0.5).astype(np.int32)], UNKNOWN)
        if shape is None or shape.height_px < hint_px:
            continue
        x0, y0 = np.clip(np.floor(low / STRIDE_PX).astype(int), 0, count)
        x1, y1 = np.clip(np.ceil(high / STRIDE_PX).astype(int), 0, count)
        core, near_end, values = shape.cells(centres[None, x0:x1], centres[y0:y1, None])
        if shape.height_px >= MIN_HEIGHT_PX:
            known[y0:y1, x0:x1][core] = 1
            known[y0:y1, x0:x1][core & near_end] = 2
            geometry[:, y0:y1, x0:x1][:, core] = values[:, core]
        if not region.ignore:
            score[y0:y1, x0:x1][core] = TEXT
    return score, geometry, known


@dataclass(frozen=True, slots=True)
class _Shape:
    """A text's outline as functions of x: its top and bottom lines, and its ends."""

    top: tuple[float, float]
    bottom: tuple[float, float]
    left_px: float
    right_px: float
    height_px: float
    slope: float

    @classmethod
    def of(cls, quad: NDArray[np.float32]) -> _Shape | None:
        """None where the text runs steeply, or backwards, or has no size."""
        top_left, top_right, bottom_right, bottom_left = quad.astype(np.float64)
        left, right = (top_left + bottom_left) / 2, (top_right + bottom_right) / 2
        run, rise = right - left
        if run < 1 or abs(rise) > MAX_TILT * run:
            return None
        if min(top_right[0] - top_left[0], bottom_right[0] - bottom_left[0]) < 0.5:
            return None
        lines = [_line(top_left, top_right), _line(bottom_left, bottom_right)]
        middle_x = (left[0] + right[0]) / 2
        height = _at(lines[1], middle_x) - _at(lines[0], middle_x)
        if any(abs(slope) > 2 * MAX_TILT for slope, _ in lines) or height <= 0:
            return None
        slope = rise / run
        return cls(lines[0], lines[1], left[0], right[0], height / np.hypot(1, slope), slope)

    def cells(
        self, x: NDArray[np.float32], y: NDArray[np.float32]
    ) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.float16]]:
        """Of cells at x (1, w) and y (h, 1): which are in the core, which of these near an end, and all geometry."""
        top, bottom = _at(self.top, x), _at(self.bottom, x)
        column_px = np.maximum(bottom - top, 1)
        half = np.maximum(CORE_HEIGHT * column_px, MIN_CORE_PX)
        width_px = self.right_px - self.left_px
        margin_px = min(CORE_END * self.height_px, 0.3 * width_px, max(0.0, (width_px - STRIDE_PX) / 2))
        inside = (x >= self.left_px + margin_px) & (x < self.right_px - margin_px)
        core = (np.abs(y - (top + bottom) / 2) <= half) & inside
        near_end = np.minimum(x - self.left_px, self.right_px - x) <= 2 * self.height_px
        distances = np.stack(np.broadcast_arrays(y - top, bottom - y, x - self.left_px, self.right_px - x))
        values = np.empty((5, *distances.shape[1:]), dtype=np.float16)
        values[:4] = np.log(np.maximum(distances, 0.5) / UNIT_PX)
        values[4] = self.slope
        return core, np.broadcast_to(near_end, core.shape), values


def _height_px(quad: NDArray[np.float32]) -> float:
    return float(np.linalg.norm(quad[3] - quad[0]) + np.linalg.norm(quad[2] - quad[1])) / 2


def _line(start: NDArray[np.float64], end: NDArray[np.float64]) -> tuple[float, float]:
    """Slope and height at x = 0 of a line through two points."""
    run = end[0] - start[0]
    slope = (end[1] - start[1]) / run
    return float(slope), float(start[1] - slope * start[0])


def _at(line: tuple[float, float], x: Any) -> Any:
    return line[0] * x + line[1]
