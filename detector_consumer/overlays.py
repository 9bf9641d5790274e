"""Learns what a camera writes into its picture: a date, a clock, a logo, which stand still while all around them moves.

    overlays = Overlays()                                 # of one source
    if overlays.see(greys.small, motion, scale, lines, at_ns):
        zones = overlays.zones                            # they have changed

A line is an overlay where the camera has carried its surroundings away under it for long and far enough and it has not
moved by half a small pixel. That takes a camera that moves: before one at rest, a sign looks no different.

Whether a line stays is told by its pixels and not by its track, so that neither a trembling place nor a line that is
found anew begins it all again; a clock's digits may change. What else stands still in the frame while something moves
is kept apart like this: where a large thing passes by before a camera at rest, and is taken for the moving scene, the
surroundings of a sign stand still as well, or other parts of the frame do. What a camera follows, a sign on a vehicle,
stays near its place but not within half a pixel for seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from detector_consumer import flow
from detector_consumer.flow import Corners, Patches
from detector_consumer.motion import Grey, Motion
from ocrstream.by_source import Zone
from ocrstream.geometry import Box, Polygon

STRIDE_PX, STRIDE_S = 4.0, 1.0
"""Pictures are compared when the camera has moved by so much since the last time; in small pixels. One that takes
longer for it creeps."""

CARRIED_PX = 2.0
"""And where it has moved by so much at the line itself: turning and zooming leave some places where they are."""

LEAST_S = 3.0
LEAST_HEIGHTS, LEAST_PX = 5.0, 24.0
"""So long, and so far by the line's height and in small pixels, its surroundings have to be carried along."""

ASIDE = 0.2
"""A share of that in another direction: what passes by goes one way."""

ONE_WAY = 1.6
"""So many times as far it has to be where all goes one way, and then all of the frame has to go along."""

STILL_CELLS, STILL_CELLS_ONE_WAY = 0.15, 0.05
"""For each part of the frame that goes along, so many may stand still: other overlays, a dirty lens."""

LIKE_FIT, FIRST_FIT = 0.4, 0.7
"""How much a line has to look like itself; the scene shows between its letters, and a clock goes on. And how much at
first: a line that is partly of the scene is none."""

REFERENCE_S = 3.0
"""What it looked like so long ago at most; what is followed has come off its place by then."""

MOST_DOUBTS = 2
"""So many times in a row it may look otherwise, before it is no overlay after all."""

EXPIRES_S = 60.0
"""A suspicion that nothing has been added to for so long is given up."""

GONE_S = 3.0
"""An overlay that was not in its place for so long, while the camera moved, is gone."""

MOST = 32
"""Lines under suspicion, and overlays, of one source."""

_CELL_PX = 8
_CLEARLY, _LEAST_SQUARE = 0.4, 4.0
"""A cell goes along, or stands still, where the one leaves this share of the squared difference that the other leaves,
and the other so much, in grey levels squared."""
_LEAST_SHARE = 0.3
"""A cell of which lines cover more than the rest says nothing."""
_LEAST_CELLS, _LEAST_AROUND, _MOSTLY = 20, 4, 3
"""So many cells have to go along in the frame, and tell something around a line; where so many times as many stand
still as go along, the line is one of the scene."""

_AROUND_HEIGHTS, _AROUND_PX = 2.0, 12.0
"""How far around a line its surroundings reach: so many of its heights, or so many small pixels."""

_ALONG_HEIGHTS, _ACROSS_HEIGHTS = 1.0, 0.35
"""An overlay's zone is so much larger than its lines: a text may grow by a digit, a place may tremble."""

_SECTORS = 8
_ASKEW = 2
"""Ways that are so many sectors apart are two directions."""

_BLOCK = np.ones((3, 3), np.uint8)
_SHIFTS = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], np.float64)


@dataclass(slots=True, eq=False)
class _Place:
    """Where a line stands that may be an overlay, or is known to be one.

    Attributes:
        corners: ``(4, 2)``, as it was found first, in small pixels.
        box: around all that was found there.
        reference: what it looked like.
        referred_at_ns: and when.
        fed_at_ns: when the camera was last seen to carry its surroundings.
        way_px: how far it did, by direction, ``(_SECTORS,)``.
        together_px: how far all of the frame went along.
        carried_s: for how long it did; the same of all of the frame.
        doubts: how many times in a row it was not in its place.
        gone_s: for how long it was not, once it is known.
    """

    corners: NDArray[np.float64]
    box: Box
    reference: Patches
    referred_at_ns: int
    fed_at_ns: int
    way_px: NDArray[np.float64] = field(default_factory=lambda: np.zeros(_SECTORS))
    together_px: float = 0.0
    carried_s: float = 0.0
    together_s: float = 0.0
    doubts: int = 0
    gone_s: float = 0.0
    is_known: bool = False

    @property
    def height_px(self) -> float:
        sides = self.corners[[3, 2]] - self.corners[[0, 1]]
        return float(np.linalg.norm(sides, axis=1).mean())

    def holds(self, middle: NDArray[np.float64]) -> bool:
        """Whether a line with this middle belongs here."""
        x0, y0, x1, y1 = self.box
        return bool(x0 <= middle[0] <= x1 and y0 <= middle[1] <= y1)

    def feed(self, way: NDArray[np.float64], seconds: float, at_ns: int, *, is_together: bool) -> None:
        """Its surroundings were carried a way, and all of the frame with them or not; see whether that is enough."""
        far_px = float(np.hypot(*way))
        sector = round(float(np.arctan2(way[1], way[0])) / (2 * np.pi / _SECTORS)) % _SECTORS
        self.way_px[sector] += far_px
        self.carried_s += seconds
        if is_together:
            self.together_px += far_px
            self.together_s += seconds
        self.fed_at_ns = at_ns
        least_px = max(LEAST_HEIGHTS * self.height_px, LEAST_PX)
        is_enough = self.carried_s >= LEAST_S and self.way_px.sum() >= least_px and self._has_turned(ASIDE * least_px)
        self.is_known |= is_enough or (self.together_s >= LEAST_S and self.together_px >= ONE_WAY * least_px)

    def _has_turned(self, least_px: float) -> bool:
        """Whether there are two directions."""
        ways = np.flatnonzero(self.way_px >= least_px)
        apart = np.abs(ways[:, None] - ways[None])
        return bool((np.minimum(apart, _SECTORS - apart) >= _ASKEW).any())

    def zone(self, size_wh: tuple[int, int]) -> Zone:
        """The part of the frame to be left out."""
        (x0, y0, x1, y1), (width, height) = self.box, size_wh
        along, across = _ALONG_HEIGHTS * self.height_px, _ACROSS_HEIGHTS * self.height_px
        left, right = max(x0 - along, 0) / width, min(x1 + along, width) / width
        top, bottom = max(y0 - across, 0) / height, min(y1 + across, height) / height
        return (left, top), (right, top), (right, bottom), (left, bottom)


class _Anchor(NamedTuple):
    """The picture that the next one is compared with, and the camera's motion since then."""

    grey: Grey
    at_ns: int
    since: Motion


class Overlays:
    """The overlays of one source, and the lines that may be some.

    They are kept when the scene is cut, as overlays are, and forgotten with the watch they belong to.

    Attributes:
        zones: where they are.
    """

    def __init__(self) -> None:
        self.zones: tuple[Zone, ...] = ()
        self._places: list[_Place] = []
        self._anchor: _Anchor | None = None

    def see(self, grey: Grey, motion: Motion | None, scale: float, lines: Sequence[Polygon], at_ns: int) -> bool:
        """Take in the next frame.

        Args:
            grey: its small picture, ``(h, w) uint8``; it is kept, so it must not be written to afterwards.
            motion: the camera's since the last one; None for a cut.
            scale: how many small pixels a pixel of the frame has along a side.
            lines: those in sight, in the frame's pixels.
            at_ns: when it was taken. A frame from before the last one, or of another size, begins afresh.

        Returns:
            Whether `zones` has changed.
        """
        anchor = self._anchor
        if anchor is None or anchor.grey.shape != grey.shape or at_ns < anchor.at_ns:
            self._places, self._anchor = [], _Anchor(grey, at_ns, Motion.none())
            return self._note_zones(grey)
        is_slow = at_ns - anchor.at_ns > STRIDE_S * 1e9
        if motion is None or is_slow or (motion.is_still and anchor.since.is_still):
            self._anchor = _Anchor(grey, at_ns, Motion.none())
            return False
        since = anchor.since.then(motion)
        if _largest_way(since, grey) < STRIDE_PX:
            self._anchor = anchor._replace(since=since)
            return False
        self._compare(anchor, _Anchor(grey, at_ns, since), np.array(lines, np.float64).reshape(-1, 4, 2) * scale)
        self._anchor = _Anchor(grey, at_ns, Motion.none())
        return self._note_zones(grey)

    def _note_zones(self, grey: Grey) -> bool:
        size_wh = grey.shape[1], grey.shape[0]
        before, self.zones = self.zones, tuple(place.zone(size_wh) for place in self._places if place.is_known)
        return before != self.zones

    def _compare(self, anchor: _Anchor, now: _Anchor, lines: Corners) -> None:
        """Hold a picture against the one from before the camera has moved."""
        self._suspect(anchor, now, lines)
        self._places = [
            place for place in self._places if place.is_known or now.at_ns - place.fed_at_ns < EXPIRES_S * 1e9
        ]
        if not self._places:
            return
        seconds = (now.at_ns - anchor.at_ns) / 1e9
        corners = np.stack([place.corners for place in self._places])
        ways = _ways(now.since, corners)
        scene = _Scene(anchor.grey, now, [*lines, *(_corners_of(place.box) for place in self._places)])
        stays = _stay(flow.stacked(place.reference for place in self._places), now.grey, corners)
        stays_now = _stay(flow.patches(anchor.grey, corners), now.grey, corners)
        kept = []
        for number, place in enumerate(self._places):
            if np.hypot(*ways[number]) < CARRIED_PX:
                kept.append(place)
            elif place.is_known:
                place.gone_s = 0.0 if stays_now[number] else place.gone_s + seconds
                kept += [place] if place.gone_s < GONE_S else []
            elif self._is_still_suspect(place, bool(stays[number]), ways[number], seconds, scene, now):
                kept.append(place)
        self._places = kept

    def _is_still_suspect(
        self, place: _Place, stays: bool, way: NDArray[np.float64], seconds: float, scene: _Scene, now: _Anchor
    ) -> bool:
        """Add what was seen of a place to what is known of it; whether it may be an overlay."""
        if not stays:
            place.doubts += 1
            return place.doubts < MOST_DOUBTS
        place.doubts = 0
        goes = scene.goes_along(place.box, place.height_px)
        if goes is False:
            return False
        if goes and scene.still_share <= STILL_CELLS:
            place.feed(way, seconds, now.at_ns, is_together=scene.still_share <= STILL_CELLS_ONE_WAY)
        if now.at_ns - place.referred_at_ns > REFERENCE_S * 1e9:
            place.reference, place.referred_at_ns = flow.patches(now.grey, place.corners[None]), now.at_ns
        return True

    def _suspect(self, anchor: _Anchor, now: _Anchor, lines: Corners) -> None:
        """Note the lines that have stayed where they were though the camera has moved."""
        if not len(lines):
            return
        reference = flow.patches(anchor.grey, lines)
        is_carried = np.hypot(*_ways(now.since, lines).T) >= CARRIED_PX
        for number in np.flatnonzero(is_carried & _stay(reference, now.grey, lines, FIRST_FIT)).tolist():
            corners = lines[number]
            box = _box_of(corners)
            found = [place for place in self._places if _belongs(place, corners, box)]
            if found:
                self._join(found, box)
            elif len(self._places) < MOST:
                self._places.append(_Place(corners, box, reference.of([number]), anchor.at_ns, now.at_ns))

    def _join(self, places: Sequence[_Place], box: Box) -> None:
        """Take note that one line stands in some places: of all but one nothing is said any more."""
        first = max(places, key=lambda place: (place.is_known, place.carried_s))
        for place in places:
            first.box = _around(first.box, place.box)
        first.box = _around(first.box, box)
        self._places = [place for place in self._places if place is first or place not in places]


class _Scene:
    """How two pictures differ, cell by cell, when the second is laid over the first as it is, and as the camera moved.

    Attributes:
        still_share: how many cells stand still for each that goes along; infinite where too few do.
    """

    def __init__(self, before: Grey, now: _Anchor, lines: Sequence[NDArray[np.float64]]) -> None:
        size = before.shape[1], before.shape[0]
        covered: Grey = np.zeros_like(before)
        for line in lines:
            cv2.fillPoly(covered, [np.round(line).astype(np.int32)], 255)
        covered = np.asarray(cv2.dilate(covered, _BLOCK), np.uint8)
        matrix, flags = now.since.matrix, cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        # Noise is no difference.
        first, second = (cv2.blur(grey, (3, 3)).astype(np.float32) for grey in (before, now.grey))
        laid = cv2.warpAffine(second, matrix, size, flags=flags)
        hidden = cv2.warpAffine(covered, matrix, size, flags=flags, borderMode=cv2.BORDER_CONSTANT, borderValue=255)
        # What lines cover, or will, says nothing of what is behind them.
        shown = ((covered == 0) & (hidden == 0)).astype(np.float32)
        share, stood, went = (
            _cells(each) for each in (shown, shown * (first - second) ** 2, shown * (first - laid) ** 2)
        )
        is_seen = share >= _LEAST_SHARE
        stood, went = (np.where(is_seen, each / np.maximum(share, _LEAST_SHARE), 0.0) for each in (stood, went))
        self._go = (stood >= _LEAST_SQUARE) & (went <= _CLEARLY * stood)
        self._stand = (went >= _LEAST_SQUARE) & (stood <= _CLEARLY * went)
        go = int(self._go.sum())
        self.still_share = float(self._stand.sum()) / go if go >= _LEAST_CELLS else np.inf

    def goes_along(self, box: Box, height_px: float) -> bool | None:
        """Whether what is around a place goes with the camera; None where that is not clear."""
        around = max(_AROUND_HEIGHTS * height_px, _AROUND_PX)
        x0, y0 = (max(int((side - around) / _CELL_PX), 0) for side in box[:2])
        x1, y1 = (int((side + around) / _CELL_PX) + 1 for side in box[2:])
        go, stand = (int(cells[y0:y1, x0:x1].sum()) for cells in (self._go, self._stand))
        if go + stand < _LEAST_AROUND:
            return None
        return True if go >= stand else False if stand >= _MOSTLY * go else None


def _cells(values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean of each cell."""
    height, width = values.shape
    size = max(width // _CELL_PX, 1), max(height // _CELL_PX, 1)
    return np.asarray(cv2.resize(values, size, interpolation=cv2.INTER_AREA), np.float64)


def _stay(reference: Patches, grey: Grey, corners: Corners, least: float = LIKE_FIT) -> NDArray[np.bool_]:
    """Which lines look like themselves in their places, and more so than a pixel beside them, ``(T,)``."""
    fits = np.stack([flow.fit(reference, flow.patches(grey, corners + shift)) for shift in _SHIFTS])
    stay: NDArray[np.bool_] = (fits[0] >= least) & (fits[0] >= fits[1:].max(axis=0))
    return stay


def _ways(motion: Motion, corners: Corners) -> NDArray[np.float64]:
    """How far the camera carries what is at the lines' middles, ``(T, 2)``."""
    middles = corners.mean(axis=1)
    ways: NDArray[np.float64] = motion.move(middles) - middles
    return ways


def _largest_way(motion: Motion, grey: Grey) -> float:
    height, width = grey.shape
    corners = np.array([[0.0, 0.0], [width, 0.0], [width, height], [0.0, height]])
    return float(np.linalg.norm(motion.move(corners) - corners, axis=1).max())


def _belongs(place: _Place, corners: NDArray[np.float64], box: Box) -> bool:
    """Whether a line is one that stands in a place, a part of it, or goes on with it."""
    x, y = place.corners.mean(axis=0)
    return place.holds(corners.mean(axis=0)) or (box[0] <= x <= box[2] and box[1] <= y <= box[3])


def _box_of(corners: NDArray[np.float64]) -> Box:
    (x0, y0), (x1, y1) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
    return x0, y0, x1, y1


def _around(a: Box, b: Box) -> Box:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _corners_of(box: Box) -> NDArray[np.float64]:
    x0, y0, x1, y1 = box
    return np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]])
