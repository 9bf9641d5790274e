"""What the detector is asked of a frame: some parts of it, or all.

    examination = Examination(picture, parts)
    while not examination.take(detector.detect(examination.pictures)):
        pass                     # a line goes on beyond the parts: they are larger now, and at last the whole frame
    examination.lines

An examination holds all that it takes to be answered, so this can go on in another thread while later frames come in.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from detector_consumer.gating import Changes
from detector_consumer.masks import is_masked
from ocrstream.by_source import Zone
from ocrstream.geometry import Box, Polygon, bounding_box, polygon_size_wh, to_polygon
from ocrstream.models import TextLine
from ocrstream.picture import Image

MARGINS_TILES = 2, 1
WHOLE_SHARE = 0.4
MOST_PARTS = 3
"""Changed tiles are looked at with so much around them; above this share of the frame, or in more parts, with less
around them, then apart, and else all of it: a new sign is found sooner in two parts than in the whole frame."""
TREMBLE = 0.25
"""A known line is looked at with so much of its height around it: it is not found again exactly where it was."""

BORDER_PX = 3.0
ROOM = 2.0
"""A line that reaches beyond a part is looked at with so many times its height above and below it, and twice that at
its ends."""

SMALL_PX, LARGE_PX = 12.0, 96.0
LEAST_FACTOR, MOST_FACTOR = 0.5, 2.0
"""A part whose lowest known line is lower than the one is enlarged, and made smaller where that is higher than the
other, as far as to this height and by these factors: small text is found more surely, and large text costs less. It is
made no smaller than that: what comes up beside a large sign may be small."""


class Examination:
    """Parts of one frame, and what the detector finds in them.

    Args:
        picture: the frame's, ``(H, W, 3) uint8 BGR``.
        parts: in its pixels.
        masks: lines whose middle lies in one are left out.
        known: the lines in sight; how high they are says how large their part has to be seen.

    Attributes:
        lines: what was found, in the picture's pixels.
    """

    def __init__(
        self, picture: Image, parts: Sequence[Box], masks: Sequence[Zone] = (), known: Sequence[Polygon] = ()
    ) -> None:
        self.lines: list[TextLine] = []
        self._picture = picture
        self._size_wh = (picture.shape[1], picture.shape[0])
        self._parts = list(parts)
        self._is_wider = False
        self._masks = masks
        self._known = [(bounding_box(polygon), polygon_size_wh(polygon)[1]) for polygon in known]

    @property
    def parts(self) -> list[Box]:
        """What has to be looked at."""
        return self._parts

    @property
    def pictures(self) -> list[Image]:
        """The pixels of these parts, as large as their text wants to be seen."""
        return [self._seen(part) for part in self._parts]

    def _seen(self, part: Box) -> Image:
        x0, y0, x1, y1 = map(round, part)
        pixels, factor = self._picture[y0:y1, x0:x1], self._factor(part)
        if factor == 1.0:
            return pixels
        way = cv2.INTER_AREA if factor < 1 else cv2.INTER_LINEAR
        seen = cv2.resize(pixels, None, fx=factor, fy=factor, interpolation=way)
        return seen.astype(np.uint8, copy=False)

    def _factor(self, part: Box) -> float:
        """How many times as large as in the frame a part is looked at; a whole frame may show anything."""
        height_px = min((height for box, height in self._known if _touch(box, part)), default=SMALL_PX)
        if part == frame_box(self._size_wh) or SMALL_PX <= height_px <= LARGE_PX:
            return 1.0
        wanted_px = SMALL_PX if height_px < SMALL_PX else LARGE_PX
        return min(max(wanted_px / max(height_px, 1.0), LEAST_FACTOR), MOST_FACTOR)

    def take(self, found: Sequence[Sequence[TextLine]]) -> bool:
        """Take note of what the detector found.

        Args:
            found: of each of the `pictures`, in its pixels.

        Returns:
            Whether that was enough: where a line reaches beyond a part, more of the frame has to be looked at, once,
            and then all of it.
        """
        lines = [
            _placed(line, part, self._factor(part))
            for part, mine in zip(self._parts, found, strict=True)
            for line in mine
        ]
        lines = [line for line in lines if not is_masked(line.polygon, self._masks, self._size_wh)]
        whole = frame_box(self._size_wh)
        reaching = [line.polygon for line in lines if _reaches_out(line.polygon, self._parts, whole)]
        if self._parts != [whole] and reaching:
            self._parts = [whole] if self._is_wider else self._wider(reaching, whole)
            self._is_wider = True
            return False
        self.lines = lines
        return True

    def _wider(self, lines: Sequence[Polygon], whole: Box) -> list[Box]:
        """The parts with room for lines that reach beyond them."""
        room = [_grown(bounding_box(line), ROOM * polygon_size_wh(line)[1], whole) for line in lines]
        parts = _joined([*self._parts, *room])
        return parts if _area(parts) <= WHOLE_SHARE * _area([whole]) else [whole]

    def holds(self, polygon: Polygon) -> bool:
        """Whether all of a line lies in one of the parts."""
        x0, y0, x1, y1 = bounding_box(polygon)
        return any(a <= x0 and b <= y0 and x1 <= c and y1 <= d for a, b, c, d in self._parts)

    def tiles(self, changes: Changes) -> NDArray[np.bool_]:
        """The tiles that lie in them."""
        rows, columns = changes.why.shape
        seen = np.zeros((rows, columns), np.bool_)
        for x0, y0, x1, y1 in self._parts:
            first_row, first_column = (int(-(-side // changes.tile_px)) for side in (y0, x0))
            # The last row and column are cut off by the frame's edge.
            last_row = rows if y1 >= changes.size_wh[1] else int(y1 // changes.tile_px)
            last_column = columns if x1 >= changes.size_wh[0] else int(x1 // changes.tile_px)
            seen[first_row:last_row, first_column:last_column] = True
        return seen


def parts_to_examine(changes: Changes, asked: Sequence[Polygon], known: Sequence[Polygon], whole: Box) -> list[Box]:
    """The parts of a frame in which its changes can be looked at; often none.

    Args:
        changes: what a gate decided on it.
        asked: lines to be looked at whatever the gate says.
        known: the lines in sight. One that a part touches is looked at as a whole, or only a piece would be found.
        whole: the frame, see `frame_box`.
    """
    boxes = [*changes.boxes(), *map(bounding_box, asked)]
    lines = [bounding_box(polygon) for polygon in known]
    for grown in _with_margins(boxes, changes.tile_px, whole):
        parts = _joined(grown)
        touched = [
            _grown(line, BORDER_PX + 1 + TREMBLE * (line[3] - line[1]), whole)
            for line in lines
            if any(_touch(line, part) for part in parts)
        ]
        parts = _joined([*parts, *touched])
        if len(parts) <= MOST_PARTS and _area(parts) <= WHOLE_SHARE * _area([whole]):
            return parts
    return [whole]


def _with_margins(boxes: Sequence[Box], tile_px: int, whole: Box) -> Iterator[list[Box]]:
    """Boxes with what is around them: with much, with less, and apart; each is worked out where it is asked for."""
    grown: list[Box] = []
    for tiles in MARGINS_TILES:
        grown = [_grown(box, tiles * tile_px, whole) for box in boxes]
        yield grown
    yield _kept_apart(boxes, grown)


def _kept_apart(boxes: Sequence[Box], grown: Sequence[Box]) -> list[Box]:
    """Grown boxes, cut half way between those that touch only since they have grown, as where a sign changes places."""
    apart = [list(box) for box in grown]
    for (first, one), (second, other) in itertools.combinations(enumerate(boxes), 2):
        gaps = [(other[k] - one[k + 2], first, second, k) for k in (0, 1)]
        gaps += [(one[k] - other[k + 2], second, first, k) for k in (0, 1)]
        gap_px, before, behind, axis = max(gaps)
        if gap_px > 0:
            middle = boxes[before][axis + 2] + gap_px / 2
            apart[before][axis + 2] = min(apart[before][axis + 2], middle - 1)
            apart[behind][axis] = max(apart[behind][axis], middle + 1)
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in apart]


def frame_box(size_wh: tuple[int, int]) -> Box:
    """All of a picture of this width and height."""
    return 0.0, 0.0, float(size_wh[0]), float(size_wh[1])


def _area(boxes: Sequence[Box]) -> float:
    return sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in boxes)


def _placed(line: TextLine, part: Box, factor: float) -> TextLine:
    """A line of a part that was looked at so many times as large, in the frame."""

    def in_frame(polygon: Polygon) -> Polygon:
        return to_polygon(np.array(polygon, dtype=np.float64) / factor + np.round(part[:2]))

    return TextLine(in_frame(line.polygon), line.score, tuple(map(in_frame, line.words)))


def _reaches_out(polygon: Polygon, parts: Sequence[Box], whole: Box) -> bool:
    """Whether a line touches a part's edge that is not the frame's: then it may go on behind it."""
    x0, y0, x1, y1 = bounding_box(polygon)
    for a, b, c, d in parts:
        if not (a - 1 <= x0 and b - 1 <= y0 and x1 <= c + 1 and y1 <= d + 1):
            continue
        near = (x0 - a < BORDER_PX and a > 0) or (y0 - b < BORDER_PX and b > 0)
        if near or (c - x1 < BORDER_PX and c < whole[2]) or (d - y1 < BORDER_PX and d < whole[3]):
            return True
    return False


def _grown(box: Box, margin: float, whole: Box) -> Box:
    x0, y0, x1, y1 = box
    # Text goes on to the side sooner than above or below.
    return max(x0 - 2 * margin, 0.0), max(y0 - margin, 0.0), min(x1 + 2 * margin, whole[2]), min(y1 + margin, whole[3])


def _joined(boxes: Sequence[Box]) -> list[Box]:
    """Boxes that do not touch: those that do, as one around both."""
    joined: list[Box] = []
    for box in boxes:
        current = box
        while touching := [other for other in joined if _touch(current, other)]:
            for other in touching:
                joined.remove(other)
                current = (
                    min(current[0], other[0]), min(current[1], other[1]), max(current[2], other[2]),
                    max(current[3], other[3]),
                )  # fmt: skip
        joined.append(current)
    return joined


def _touch(a: Box, b: Box) -> bool:
    return a[0] <= b[2] and b[0] <= a[2] and a[1] <= b[3] and b[1] <= a[3]
