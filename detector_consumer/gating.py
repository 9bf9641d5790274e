"""Tells which parts of a frame have to be looked at again, so that the rest costs no detection.

A frame's fine grey copy is laid over a canvas that stands still while the camera moves. There every tile is held
against the picture in which it was last examined, not against the last frame, so that slow change adds up. The light
is taken out of both pictures first, and each tile learns how much it flickers by itself, and how much it differs where
nothing new is found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from detector_consumer.canvas import TILE_PX, Canvas
from detector_consumer.motion import Grey, Greys, Motion, Points, remaining_motion
from ocrstream.by_source import Zone
from ocrstream.geometry import Box, Point
from ocrstream.picture import Image

EXAMINE_EVERY_S = 5.0

Tiles = NDArray[np.bool_]
"""``(rows, columns) bool``, one value a tile of the frame."""


class Why(IntEnum):
    """Why a tile has to be examined; of two reasons the larger one is told."""

    QUIET = 0
    """It has not to be."""
    DUE = 1
    """It was last examined too long ago."""
    NEW = 2
    """It came into view, or was never examined."""
    CHANGED = 3
    """It looks different from when it was last examined."""


@dataclass(frozen=True, slots=True)
class GateSettings:
    """What a gate is told about its source.

    Attributes:
        examine_every_s: a tile that was not examined for so long is due.
        masks: zones that are never looked at: polygons of three points or more, as shares of the frame's width and
            height, 0 to 1.
    """

    examine_every_s: float = EXAMINE_EVERY_S
    masks: tuple[Zone, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """What a gate decided on one frame.

    Attributes:
        why: ``(rows, columns) uint8`` of `Why`: the frame's tiles from its top left, the last ones cut off by its edge.
        tile_px: the side of a tile in the frame's pixels.
        size_wh: width and height of the frame in its pixels, up to what the last tiles cover.
    """

    why: NDArray[np.uint8]
    tile_px: int
    size_wh: tuple[int, int]

    @property
    def tiles(self) -> Tiles:
        """The tiles that have to be examined."""
        return np.asarray(self.why != Why.QUIET)

    @property
    def news(self) -> Tiles:
        """Those of them that show anything else than when they were examined last."""
        return np.asarray(self.why > Why.DUE)

    @property
    def share(self) -> float:
        """The share of the frame's tiles that have to be examined, 0 to 1."""
        return float(np.mean(self.tiles))

    def boxes(self) -> list[Box]:
        """Boxes around the tiles that have to be examined, one for each group that hangs together, in frame pixels."""
        _, _, stats, _ = cv2.connectedComponentsWithStats(self.tiles.astype(np.uint8), connectivity=8)
        width, height = self.size_wh
        return [
            (
                float(x * self.tile_px),
                float(y * self.tile_px),
                float(min((x + columns) * self.tile_px, width)),
                float(min((y + rows) * self.tile_px, height)),
            )
            for x, y, columns, rows, _ in stats[1:].tolist()
        ]

    def unexplained_by(self, polygons: Sequence[Sequence[Point]]) -> Changes:
        """The same without the changes that known texts account for.

        Args:
            polygons: where the known texts are and are followed, in frame pixels. A tile that lies mostly in them has
                not changed by anything else. What is new or due stays so.
        """
        explained = self.covered_by(polygons, 0.5) & (self.why == Why.CHANGED)
        return replace(self, why=np.where(explained, Why.QUIET, self.why).astype(np.uint8))

    def covered_by(self, polygons: Sequence[Sequence[Point]], share: float = 0.0) -> Tiles:
        """The tiles of which more than a share lies in places in the frame's pixels."""
        rows, columns = self.why.shape
        covered: Grey = np.zeros((rows * TILE_PX, columns * TILE_PX), np.uint8)
        for polygon in polygons:
            corners = np.array(polygon) * (TILE_PX / self.tile_px) - 0.5
            cv2.fillPoly(covered, [np.round(corners).astype(np.int32)], 255)
        return np.asarray(_shares(covered) > share)


class Gate:
    """The gate of one source.

    Call `look` with every frame, and `examined` when the detector has looked at tiles of the frame looked at last.
    """

    def __init__(self, settings: GateSettings | None = None) -> None:
        self._settings = settings or GateSettings()
        self._overlays: tuple[Zone, ...] = ()
        self._memory: _Memory | None = None
        self._shape_hw = (0, 0)
        self._looked_at_ns = 0

    def look(self, greys: Greys, motion: Motion | None, now_ns: int) -> Changes:
        """Decide what of a frame has to be examined.

        Args:
            greys: the frame's grey copies.
            motion: the camera's motion since the frame looked at before, in pixels of the small copy; None for a cut,
                and for the first frame.
            now_ns: the frame's capture time. A frame from before the last one starts afresh.
        """
        memory, fine = self._memory, greys.fine
        height, width = shape_hw = (fine.shape[0], fine.shape[1])
        if memory is None or motion is None or now_ns < self._looked_at_ns or shape_hw != self._shape_hw:
            memory, motion = _Memory(Canvas(shape_hw, self._left_out(shape_hw))), Motion.none()
            self._shape_hw = shape_hw
        self._memory, self._looked_at_ns = memory, now_ns
        memory.see(greys.even, motion.scaled(greys.small_factor / greys.fine_factor))
        why = memory.judge(now_ns, self._settings.examine_every_s)
        return Changes(why, TILE_PX * greys.fine_factor, (width * greys.fine_factor, height * greys.fine_factor))

    def leave_out(self, overlays: Sequence[Zone]) -> None:
        """Look at these zones no more, as at the masks; at those of the last call again."""
        self._overlays = tuple(overlays)
        if self._memory is not None:
            self._memory.leave_out(self._left_out(self._shape_hw))

    @property
    def left_out(self) -> tuple[Zone, ...]:
        """The zones that are not looked at: the masks and what `leave_out` was last called with."""
        return (*self._settings.masks, *self._overlays)

    def _left_out(self, shape_hw: tuple[int, int]) -> list[Points]:
        """The same in pixels of the fine copy."""
        return [np.array(zone) * shape_hw[::-1] - 0.5 for zone in self.left_out]

    def examined(self, tiles: Tiles | None = None) -> None:
        """Take note that the detector has seen tiles of the frame looked at last; all of them by default.

        Raises:
            ValueError: no frame was looked at yet, or the tiles are not laid out as its `Changes` are.
        """
        if self._memory is None:
            raise ValueError("no frame was looked at yet")
        self._memory.examine(tiles, self._looked_at_ns)

    def in_vain(self) -> None:
        """Take note that the detector found nothing new in the tiles that were examined last.

        So small a change of theirs means nothing, as where a codec draws a rough wall anew from time to time.
        """
        if self._memory is not None:
            self._memory.note_in_vain()


def draw(picture: Image, changes: Changes, left_out: Sequence[Zone] = ()) -> Image:
    """A copy of a frame with a gate's decisions painted over it.

    Quiet tiles are dimmed; the others have a frame: red where something changed, blue where something is new, yellow
    where they are due. What is left out has a grey one.

    Args:
        picture: ``(H, W, 3) uint8 BGR``, the frame.
        changes: what was decided on it.
        left_out: zones that are not looked at.
    """
    height, width = picture.shape[:2]
    side = changes.tile_px
    rows, columns = changes.why.shape
    dimmed = cv2.resize(changes.why, (columns * side, rows * side), interpolation=cv2.INTER_NEAREST)[:height, :width]
    painted = picture.copy()
    painted[: dimmed.shape[0], : dimmed.shape[1]][dimmed == Why.QUIET] //= 2
    for row, column in zip(*np.nonzero(changes.tiles), strict=True):
        corner = (int(column) * side + 1, int(row) * side + 1)
        opposite = (min(corner[0] + side, width) - 2, min(corner[1] + side, height) - 2)
        cv2.rectangle(painted, corner, opposite, _COLOURS[Why(changes.why[row, column])], max(1, side // 24))
    for zone in left_out:
        corners = np.round(np.array(zone) * [width - 1, height - 1]).astype(np.int32)
        cv2.polylines(painted, [corners], True, _LEFT_OUT, max(1, side // 24))
    return painted


_COLOURS = {Why.DUE: (0, 220, 255), Why.NEW: (255, 140, 0), Why.CHANGED: (40, 40, 255)}
_LEFT_OUT = (150, 150, 150)

# Differences are in steps of `evened`: 32 is once the contrast around. A pixel may differ by a share of the contrast
# to its neighbours; a tile has changed where one pixel differs by more than that and the tile's limit, which is so many
# times what it flickers by. The least of it is what a digit 16 px high in 1080p still exceeds.
_RESTING_TOLERANCE = 0.05
_MOVING_TOLERANCE = 0.4
_BLUR_TOLERANCE = 0.03
_MOST_TOLERANCE = 0.8
_LEAST_DIFFERENCE = 15.0
_MOST_DIFFERENCE = 48.0
_TIMES_FLICKER = 1.7
_CLEARLY = 2.0
_FLICKER_QUANTILE = 0.7
_FLICKER_STEP = 2.0
_LEARN_EVERY = 5
_TIMES_IN_VAIN = 1.1
_STILL_IN_VAIN = 0.999
_SCATTERED = 3
_LEAST_SHARE = 0.25

_ALIGN_EVERY = 15
_ALIGN_MOVING_EVERY = 3
_OFF_PX = 0.2


class _Compared(NamedTuple):
    """What a frame is compared with, in the window of a canvas.

    Attributes:
        pose: where the frame lies.
        both: 255 in the pixels that both frame and reference show.
        seen: the share of each tile that the frame shows.
        known: the share of it that the reference shows too.
        tolerance: how far each pixel may be from the reference.
    """

    pose: int
    both: Grey
    seen: NDArray[np.float64]
    known: NDArray[np.float64]
    tolerance: Grey


class _Memory:
    """What is known of one scene: how its tiles looked when they were examined, and how much they flicker."""

    def __init__(self, canvas: Canvas) -> None:
        self._canvas = canvas
        self._reference, self._known = canvas.pixel_layer(), canvas.pixel_layer()
        self._last, self._last_visible = canvas.pixel_layer(), canvas.pixel_layer()
        self._examined_ns = canvas.tile_layer(-1, np.int64)
        self._examined_in_pose = canvas.tile_layer(-1, np.int64)
        self._flicker = canvas.tile_layer(-1, np.float64)
        self._was_over = canvas.tile_layer(0, np.bool_)
        self._asked = canvas.tile_layer(0, np.float64)
        self._in_vain = canvas.tile_layer(0, np.float64)
        self._now = canvas.visible
        self._looks = self._looks_since_aligned = self._last_pose = 0
        self._speed_px = 0.0
        self._slightly = np.zeros(self._was_over[canvas.tiles].shape)
        self._last_compared: _Compared | None = None

    def leave_out(self, polygons: Sequence[Points]) -> None:
        """Show others of the frame's pixels from the next frame on."""
        self._canvas.leave_out(polygons)
        self._last_compared = None

    def see(self, even: Grey, motion: Motion) -> None:
        """Lay a frame over the scene."""
        canvas = self._canvas
        canvas.follow(motion)
        middle = np.array(even.shape[::-1])[None] / 2
        self._speed_px = float(np.hypot(*(motion.move(middle) - middle)[0]))
        self._now = canvas.lay(even)
        self._looks_since_aligned += 1
        if self._looks_since_aligned < (_ALIGN_EVERY if motion.is_still else _ALIGN_MOVING_EVERY):
            return
        # Small errors add up along the way, and a camera may creep.
        self._looks_since_aligned = 0
        both = self._both(self._known)
        off = remaining_motion(self._reference[canvas.pixels], self._now, both)
        height, width = self._now.shape
        corners = np.array([[0.0, 0.0], [width, 0.0], [0.0, height], [width, height]])
        if np.abs(off.move(corners) - corners).max() > _OFF_PX:
            canvas.correct(off)
            self._now = canvas.lay(even)

    def judge(self, now_ns: int, examine_every_s: float) -> NDArray[np.uint8]:
        """`Changes.why` of the frame seen last."""
        tiles = self._canvas.tiles
        compared = self._compared()
        apart = _largest(self._beyond(self._reference, compared.tolerance, compared.both))
        usual = np.maximum(self._learnt_flicker() * _TIMES_FLICKER, self._in_vain[tiles] * _TIMES_IN_VAIN)
        limit = np.clip(usual, _LEAST_DIFFERENCE, _MOST_DIFFERENCE)
        is_over = apart > limit
        # What lasts for two frames has changed; in one alone it may be a flash or a burst of noise.
        changed = is_over & (self._was_over[tiles] | (apart > limit * _CLEARLY))
        self._was_over[:] = False
        self._was_over[tiles] = is_over
        # A moving camera's frames are laid over each other a little off, otherwise in each.
        is_slight = changed & (apart <= limit * _CLEARLY) & (self._examined_in_pose[tiles] == self._canvas.pose)
        self._slightly = np.where(is_slight, apart, 0.0)
        # A moving camera has slivers of tiles along its edges that come and go.
        least_share = _LEAST_SHARE if self._canvas.has_moved else 0.0
        new = compared.seen - compared.known > least_share
        due = (now_ns - self._examined_ns[tiles] >= examine_every_s * 1e9) & (compared.seen > least_share)
        why = np.select([changed, new, due], [Why.CHANGED, Why.NEW, Why.DUE], Why.QUIET)
        return self._canvas.in_frame(why.astype(np.uint8))

    def examine(self, tiles: Tiles | None, now_ns: int) -> None:
        """Remember how tiles of the frame seen last look; None for all of them.

        Raises:
            ValueError: the tiles are not laid out as the frame's are.
        """
        canvas = self._canvas
        area = canvas.visible
        if tiles is not None:
            if tiles.shape != canvas.frame_tiles:
                raise ValueError(f"expected {canvas.frame_tiles} tiles (rows, columns), got {tiles.shape}")
            area = np.asarray(cv2.bitwise_and(area, canvas.lay_tiles(tiles)), np.uint8)
        cv2.copyTo(self._now, area, self._reference[canvas.pixels])
        cv2.copyTo(area, area, self._known[canvas.pixels])
        share = _shares(area)
        mostly = (share > 0) & (share >= 0.5 * _shares(canvas.visible))
        self._examined_ns[canvas.tiles][mostly] = now_ns
        self._examined_in_pose[canvas.tiles][mostly] = canvas.pose
        self._was_over[canvas.tiles][mostly] = False
        self._asked[:] = 0
        self._asked[canvas.tiles][mostly] = self._slightly[mostly]
        self._last_compared = None

    def note_in_vain(self) -> None:
        """Remember how much those tiles differed that were examined last.

        Where some here and there did, the others may as well.
        """
        groups, _ = cv2.connectedComponents((self._asked > 0).astype(np.uint8))
        is_everywhere = groups > _SCATTERED
        everywhere = float(np.median(self._asked[self._asked > 0])) if is_everywhere else 0.0
        self._in_vain[:] = np.maximum(_STILL_IN_VAIN * self._in_vain, np.maximum(self._asked, everywhere))

    def _both(self, other: Grey) -> Grey:
        """Where the frame and a layer both show something."""
        return np.asarray(cv2.bitwise_and(other[self._canvas.pixels], self._canvas.visible), np.uint8)

    def _compared(self) -> _Compared:
        """What the frame is compared with; worked out once as long as nothing moves."""
        canvas, last = self._canvas, self._last_compared
        if last is None or last.pose != canvas.pose or self._speed_px:
            both = self._both(self._known)
            poses = self._examined_in_pose[canvas.tiles]
            tolerance = self._tolerance(self._reference, bool(((poses >= 0) & (poses != canvas.pose)).any()))
            last = _Compared(canvas.pose, both, _shares(canvas.visible), _shares(both), tolerance)
            self._last_compared = last
        return last

    def _tolerance(self, layer: Grey, is_moved: bool) -> Grey:
        """How far a frame may be from a layer without having changed."""
        # A sharp edge differs by much where the pictures are off by a part of a pixel, and a fast camera blurs it.
        edges = cv2.morphologyEx(layer[self._canvas.pixels], cv2.MORPH_GRADIENT, _AROUND)
        share = min(_MOVING_TOLERANCE + _BLUR_TOLERANCE * self._speed_px, _MOST_TOLERANCE)
        return np.asarray(cv2.convertScaleAbs(edges, alpha=share if is_moved else _RESTING_TOLERANCE), np.uint8)

    def _beyond(self, layer: Grey, tolerance: Grey, both: Grey) -> Grey:
        """How much further than that it is."""
        beyond = cv2.subtract(cv2.absdiff(layer[self._canvas.pixels], self._now), tolerance)
        return np.asarray(cv2.bitwise_and(beyond, both), np.uint8)

    def _learnt_flicker(self) -> NDArray[np.float64]:
        """How much each tile of the window differs from one moment to the next, most of the time."""
        canvas = self._canvas
        flicker = self._flicker[canvas.tiles]
        self._looks += 1
        if self._looks > 2 and self._looks % _LEARN_EVERY:
            return flicker
        both = self._both(self._last_visible)
        tolerance = self._tolerance(self._last, is_moved=canvas.pose != self._last_pose)
        apart = _largest(self._beyond(self._last, tolerance, both))
        step = np.where(apart > flicker, _FLICKER_QUANTILE, _FLICKER_QUANTILE - 1) * _FLICKER_STEP
        learnt = np.where(flicker < 0, apart, np.maximum(flicker + step, 0))
        # What moves all the time is no flicker.
        flicker[:] = np.where(_shares(both) > 0, np.minimum(learnt, _MOST_DIFFERENCE / _TIMES_FLICKER), flicker)
        self._last[canvas.pixels] = self._now
        self._last_pose = canvas.pose
        self._last_visible[:] = 0
        self._last_visible[canvas.pixels] = canvas.visible
        return flicker


_AROUND = np.ones((3, 3), np.uint8)


def _shares(mask: Grey) -> NDArray[np.float64]:
    """The share of each tile that a mask of whole tiles covers."""
    height, width = mask.shape
    size = (width // TILE_PX, height // TILE_PX)
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_AREA), np.float64) / 255


def _largest(values: Grey) -> NDArray[np.uint8]:
    """The largest value of each tile."""
    height, width = values.shape
    rows = values.reshape(height // TILE_PX, TILE_PX, width).max(axis=1)
    largest: NDArray[np.uint8] = rows.reshape(height // TILE_PX, width // TILE_PX, TILE_PX).max(axis=2)
    return largest
