"""What is known of the lines of one source, which `detector_consumer.tracking` follows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from numpy.typing import NDArray

from detector_consumer.covering import Front
from detector_consumer.edges import NOT_TORN, Torn
from detector_consumer.flow import Grey, Patches
from ocrstream.geometry import Polygon, polygon_of
from ocrstream.messages import GONE_AFTER_S

EDGE_PX = 1.0
"""A line that is found so near to the frame's edge is cut off there; in small pixels."""
MIN_INSIDE = 0.15
"""A line of which less is left in the frame has left."""


@dataclass(frozen=True, slots=True)
class Followed:
    """A known line as it is in the newest frame.

    Attributes:
        track_id: the same as long as it is known.
        polygon: where it is, in the frame's pixels, clipped to the frame.
        known: where what is known of it is, also outside of the frame.
        score: the detector's, when it last found it.
        moved_px: how far its middle moved since the frame before.
        fit: how much it looks as it did when the detector last found it, -1 to 1.
        is_visible: whether it is seen; False where something is in front of it or it has gone.
        is_whole: whether all of it is in the frame and known. Of a line that the frame's edge cut off when it was found
            the rest is known when it is found again.
        has_come_in: whether it is known in part only, and that part has left the frame's edge behind by more than half
            of its height: the rest is taken to reach up to the edge until it is found.
        is_doubted: whether it has to be found once more: it had faded much when it was found last, and what is behind
            it would be taken for it; or it was missed, and something else was found in its place.
        is_covered: whether something has come in front of it and has not gone: what can be read is not what it says.
    """

    track_id: str
    polygon: Polygon
    known: Polygon
    score: float
    moved_px: float
    fit: float
    is_visible: bool
    is_whole: bool
    has_come_in: bool
    is_doubted: bool
    is_covered: bool


@dataclass(slots=True)
class Track:
    """One line.

    Attributes:
        track_id: as in `Followed`; so are score, moved_px, fit, is_visible and is_doubted.
        corners: ``(4, 2)``, in the frame's pixels, also outside of the frame.
        seen_at_ns: when it was seen last.
        finds: how often the detector has found it.
        misses: and has missed it since.
        speed_px_s: its own, beside the camera's, ``(2,)``.
        is_speed_known: whether anything has told that.
        rests: whether it stays where it is in the frame while the camera moves, as a date does that is written into it.
        reference: what it looked like where it was found last.
        front: what has been in front of it.
        is_restless: whether it looks unlike itself, and otherwise from frame to frame: something moves in front of it.
        contrast: of what it looked like of late, in levels of grey.
        torn: where the frame's edge cut it off when it was found: it goes on beyond its corners there.
    """

    track_id: str
    corners: NDArray[np.float64]
    score: float
    seen_at_ns: int
    finds: int = 1
    misses: int = 0
    speed_px_s: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    is_speed_known: bool = False
    rests: bool = False
    reference: Patches | None = None
    front: Front = field(default_factory=Front)
    moved_px: float = 0.0
    fit: float = 1.0
    is_visible: bool = True
    is_restless: bool = False
    contrast: float = 0.0
    is_doubted: bool = False
    torn: Torn = NOT_TORN


@dataclass(slots=True)
class Source:
    """The lines of one source, as of its newest frame.

    Attributes:
        at_ns: when that was taken.
        grey: its small picture; None where only places are known.
        scale: how many small pixels a pixel of the frame has along a side.
        tracks: the lines, oldest first.
        followed: what is told of them, once somebody has asked for it.
    """

    at_ns: int
    grey: Grey | None = None
    scale: float = 1.0
    tracks: list[Track] = field(default_factory=list)
    followed: list[Followed] | None = None

    def size_wh(self) -> tuple[float, float]:
        """The frame's size in its own pixels; without end where no picture is known."""
        if self.grey is None:
            return np.inf, np.inf
        return self.grey.shape[1] / self.scale, self.grey.shape[0] / self.scale

    def torn(self, found: NDArray[np.float64]) -> Torn:
        """Where the frame's edge cuts a line off that was found, ``(4, 2)``."""
        return NOT_TORN if self.grey is None else Torn.where(found, self.size_wh(), EDGE_PX / self.scale)

    def in_frame(self, corners: NDArray[np.float64]) -> NDArray[np.float64]:
        """Corners, ``(…, 2)``, moved into the frame."""
        return np.minimum(np.maximum(corners, 0), self.size_wh())

    def let_go(self) -> None:
        """Keep the lines that were seen of late and have not left the frame."""
        kept = [track for track in self.tracks if 0 <= self.at_ns - track.seen_at_ns <= GONE_AFTER_S * 1e9]
        if self.grey is not None and kept:
            corners = np.stack([track.corners for track in kept])
            is_inside = (self.in_frame(corners) == corners).all(axis=(1, 2)).tolist()
            kept = [track for track, inside in zip(kept, is_inside, strict=True) if inside or self._is_left(track)]
        self.tracks, self.followed = kept, None

    def _is_left(self, track: Track) -> bool:
        """Whether enough of a line is left in the frame."""
        width, height = self.size_wh()
        frame = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
        corners = track.corners.astype(np.float32)
        area = cv2.contourArea(corners)
        return area > 0 and cv2.intersectConvexConvex(corners, frame)[0] >= MIN_INSIDE * area

    def told(self, tracks: Sequence[Track]) -> list[Followed]:
        """What is told of some of the lines."""
        if not tracks:
            return []
        corners = np.stack([track.corners for track in tracks])
        is_inside = (self.in_frame(corners) == corners).all(axis=(1, 2)).tolist()
        wholes = corners.copy()
        for number, track in enumerate(tracks):
            if track.torn.is_torn:
                wholes[number] = track.torn.with_rest(track.corners, self.size_wh())
        shown = self.in_frame(wholes)
        return [
            Followed(
                track.track_id,
                polygon_of(polygon),
                polygon_of(known),
                track.score,
                track.moved_px,
                track.fit,
                track.is_visible,
                inside and not track.torn.is_torn,
                track.torn.has_come_in(track.corners, self.size_wh()),
                track.is_doubted,
                track.front.hides(self.at_ns),
            )
            for track, polygon, known, inside in zip(
                tracks, shown.round(2).tolist(), corners.round(2).tolist(), is_inside, strict=True
            )
        ]
