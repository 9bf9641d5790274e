"""The released CTPN around its network: how a picture goes in, and how proposals become text lines, to the last rule.

Everything is as the original program (Tian et al., 2016, the Caffe release) computes it, in NumPy, single precision
where it computes so. `docs/models.md` tells what is peculiar about it; `decode` is what this project does instead.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.picture import Image

Floats = NDArray[np.float32]
Indices = NDArray[np.intp]

SHORT_SIDE_PX, LONG_SIDE_PX = 600, 1000
"""A picture's short side becomes 600 pixels, smaller pictures enlarged, unless its long side would pass 1,000."""

MEAN_BGR = (102.9801, 115.9465, 122.7717)

STRIDE_PX = 16
"""A proposal's width, and the distance between two cells of the network's output."""

HEIGHTS_PX = (11, 16, 23, 33, 48, 68, 97, 139, 198, 283)
"""The anchors' heights by name; cut to whole pixels as Python 2 does, some are 1 pixel lower (`base_anchors`)."""

PROPOSAL_MIN_SCORE = 0.7
PROPOSAL_NMS = 0.3
MAX_HORIZONTAL_GAP_PX = 50
MIN_V_OVERLAP = 0.7
MIN_SIZE_SIMILARITY = 0.7
MIN_RATIO = 1.2
LINE_MIN_SCORE = 0.7
MIN_PROPOSALS = 2
LINE_NMS = 0.3
"""The release's configuration, its names shortened."""


def original_to_tensor(picture: Image) -> tuple[Floats, float]:
    """A picture as the released network's input.

    Args:
        picture: ``(H, W, 3) uint8 BGR``, not empty.

    Returns:
        ``(1, 3, h, w) float32 BGR``, 0 to 255 less the mean, and the scale: input = picture * scale.
    """
    shorter, longer = sorted(picture.shape[:2])
    scale = SHORT_SIDE_PX / shorter
    if scale * longer > LONG_SIDE_PX:
        scale = LONG_SIDE_PX / longer
    # Of a picture that is long and thin nothing would be left across, which is no picture: one pixel stays.
    fy, fx = (scale if round(side * scale) else 1 / side for side in picture.shape[:2])
    # By its factors, not to a size: OpenCV then samples at other places.
    resized = cv2.resize(picture, None, fx=fx, fy=fy, interpolation=cv2.INTER_LINEAR)
    tensor = resized.astype(np.float32) - np.array(MEAN_BGR, dtype=np.float32)
    return np.ascontiguousarray(tensor.transpose(2, 0, 1)[None]), scale


def base_anchors() -> NDArray[np.int32]:
    """The ten anchors of the cell at the top left: ``(10, 4) int32``, x0, y0, x1, y1, both ends inclusive."""
    centre = (STRIDE_PX - 1) / 2
    anchors = np.zeros((len(HEIGHTS_PX), 4))
    anchors[:, 2] = STRIDE_PX - 1
    # Half a height is a whole number under Python 2, and the corners are cut towards zero.
    halves = np.array([height // 2 for height in HEIGHTS_PX])
    anchors[:, 1], anchors[:, 3] = centre - halves, centre + halves
    return np.trunc(anchors).astype(np.int32)


def decode_proposals(output: Floats, input_hw: tuple[int, int]) -> tuple[Floats, Floats]:
    """Every anchor's box and score, by row, column, anchor.

    Args:
        output: ``(40, h, w) float32``: probabilities (10 of background, 10 of text), then each anchor's dy and dh.
        input_hw: height and width of the network's input.

    Returns:
        ``(N, 4) float32`` boxes in pixels of the input, inside it, and ``(N,) float32`` scores.
    """
    count, (rows, columns) = len(HEIGHTS_PX), output.shape[1:]
    anchors = base_anchors().astype(np.float32)
    scores = output[count : 2 * count].transpose(1, 2, 0)
    deltas = output[2 * count :].reshape(count, 2, rows, columns).transpose(2, 3, 0, 1)
    down = (np.arange(rows, dtype=np.float32) * STRIDE_PX)[:, None, None]
    right = (np.arange(columns, dtype=np.float32) * STRIDE_PX)[None, :, None]
    anchor_height = anchors[:, 3] - anchors[:, 1] + 1
    middle = (anchors[:, 1] + anchors[:, 3]) / 2 + down
    height = np.exp(deltas[..., 1]) * anchor_height
    top = deltas[..., 0] * anchor_height + middle - height / 2
    boxes = np.empty((rows, columns, count, 4), dtype=np.float32)
    boxes[..., 0], boxes[..., 1] = anchors[:, 0] + right, top
    boxes[..., 2], boxes[..., 3] = anchors[:, 2] + right, top + height
    return _clipped(boxes.reshape(-1, 4), input_hw), np.ascontiguousarray(scores.reshape(-1))


def find_lines(output: Floats, input_hw: tuple[int, int], *, min_max: bool = True) -> Floats:
    """The text lines in a network's output.

    Args:
        output: as of `decode_proposals`.
        input_hw: height and width of the network's input.
        min_max: stretch each picture's scores to 0 to 1 as the original does: its weakest proposal counts nothing then.

    Returns:
        ``(N, 5) float32``: x0, y0, x1, y1 in pixels of the network's input, and the score.
    """
    return connect(*decode_proposals(output, input_hw), input_hw, min_max=min_max).lines


@dataclass(frozen=True, slots=True)
class Connection:
    """What became of proposals, step by step.

    Attributes:
        proposals: ``(N, 4) float32``, those that were kept, the surest first.
        scores: ``(N,) float32``, after the stretching.
        chains: indices into them, one list a line.
        unfiltered: ``(M, 5) float32``, a line for every chain.
        lines: ``(K, 5) float32``, what is left of them.
    """

    proposals: Floats
    scores: Floats
    chains: list[list[int]]
    unfiltered: Floats
    lines: Floats


def connect(boxes: Floats, scores: Floats, input_hw: tuple[int, int], *, min_max: bool = True) -> Connection:
    """Text lines from proposals, with every step between.

    Args:
        boxes: ``(N, 4) float32``.
        scores: ``(N,) float32``.
        input_hw: height and width of the network's input.
        min_max: see `find_lines`.
    """
    likely = scores > PROPOSAL_MIN_SCORE
    boxes, scores = boxes[likely], scores[likely]
    order = np.argsort(scores)[::-1]
    boxes, scores = boxes[order], scores[order]
    kept = suppress(boxes, scores, PROPOSAL_NMS)
    boxes, scores = boxes[kept], scores[kept]
    if min_max:
        scores = _stretched(scores)
    chains = _Connector(boxes, scores, input_hw).chains()
    unfiltered = np.zeros((len(chains), 5), dtype=np.float32)
    for index, chain in enumerate(chains):
        unfiltered[index] = _line(boxes[chain], scores[chain])
    unfiltered[:, :4] = _clipped(unfiltered[:, :4], input_hw)
    lines = unfiltered[_is_line(unfiltered)]
    return Connection(boxes, scores, chains, unfiltered, lines[suppress(lines[:, :4], lines[:, 4], LINE_NMS)])


def suppress(boxes: Floats, scores: Floats, threshold: float) -> Indices:
    """Non-maximum suppression: of boxes that overlap by the threshold or more, only the surest is kept.

    Args:
        boxes: ``(N, 4) float32``, both ends inclusive.
        scores: ``(N,) float32``.
        threshold: intersection over union.
    """
    sizes = boxes[:, 2:] - boxes[:, :2] + 1
    areas = sizes[:, 0] * sizes[:, 1]
    waiting = np.argsort(scores)[::-1]
    kept = []
    while len(waiting):
        first, waiting = waiting[0], waiting[1:]
        kept.append(first)
        shared = np.minimum(boxes[first, 2:], boxes[waiting, 2:]) - np.maximum(boxes[first, :2], boxes[waiting, :2]) + 1
        overlap = np.prod(np.maximum(shared, 0), axis=1)
        share = overlap / (areas[first] + areas[waiting] - overlap)
        waiting = waiting[share.astype(np.float64) < threshold]
    return np.array(kept, dtype=np.intp)


class _Connector:
    """Which proposals follow each other (CTPN, section 3.2, as released)."""

    def __init__(self, boxes: Floats, scores: Floats, input_hw: tuple[int, int]) -> None:
        self._boxes = boxes
        self._scores = scores
        self._heights: Floats = boxes[:, 3] - boxes[:, 1] + 1
        self._width_px = input_hw[1]
        self._columns: list[list[int]] = [[] for _ in range(self._width_px)]
        for index, left in enumerate(boxes[:, 0]):
            self._columns[int(left)].append(index)

    def chains(self) -> list[list[int]]:
        """Each begins at a proposal that follows none; one that follows two may stand in two."""
        following: dict[int, int] = {}
        for index in range(len(self._boxes)):
            after = self._neighbours(index, step=1)
            if not after:
                continue
            # The first of the best, as everywhere in NumPy.
            best = after[int(np.argmax(self._scores[after]))]
            before = self._neighbours(best, step=-1)
            if self._scores[index] >= self._scores[before].max():
                following[index] = best
        followed = set(following.values())
        chains = []
        for index in following:
            if index in followed:
                continue
            chain = [index]
            while chain[-1] in following:
                chain.append(following[chain[-1]])
            chains.append(chain)
        return chains

    def _neighbours(self, index: int, step: int) -> list[int]:
        """The compatible proposals of the nearest column that has any, to the right or to the left."""
        left = self._boxes[index, 0]
        if step > 0:
            columns = range(int(left) + 1, min(int(left) + MAX_HORIZONTAL_GAP_PX + 1, self._width_px))
        else:
            columns = range(int(left) - 1, max(int(left - MAX_HORIZONTAL_GAP_PX), 0) - 1, -1)
        for column in columns:
            found = [other for other in self._columns[column] if self._compatible(index, other)]
            if found:
                return found
        return []

    def _compatible(self, a: int, b: int) -> bool:
        height_a, height_b = self._heights[a], self._heights[b]
        top, bottom = max(self._boxes[a, 1], self._boxes[b, 1]), min(self._boxes[a, 3], self._boxes[b, 3])
        lower = min(height_a, height_b)
        # In double precision an overlap of exactly 0.7 passes, in single precision a similarity of 0.7 does not.
        overlap = max(0.0, float(bottom) - float(top) + 1) / float(lower)
        similarity = float(lower / max(height_a, height_b))
        return overlap >= MIN_V_OVERLAP and similarity >= MIN_SIZE_SIMILARITY


def _stretched(scores: Floats) -> Floats:
    """To 0 to 1; all 0 where they are equal."""
    if not len(scores):
        return scores
    low, high = scores.min(), scores.max()
    stretched: Floats = (scores - low) / (high - low) if high > low else scores - low
    return stretched


def _line(boxes: Floats, scores: Floats) -> list[float]:
    """One axis-aligned box: straight lines through tops and bottoms, taken at the middles of both ends."""
    left, right = boxes[:, 0].min(), boxes[:, 2].max()
    half = (boxes[0, 2] - boxes[0, 0]) * 0.5
    tops = _fit(boxes[:, 0], boxes[:, 1], left + half, right - half)
    bottoms = _fit(boxes[:, 0], boxes[:, 3], left + half, right - half)
    return [left, min(tops), right, max(bottoms), scores.sum() / len(scores)]


def _fit(x: Floats, y: Floats, first: float, last: float) -> tuple[float, float]:
    if (x == x[0]).all():
        return float(y[0]), float(y[0])
    slope, start = np.polyfit(x, y, 1)
    return float(slope * first + start), float(slope * last + start)


def _is_line(lines: Floats) -> NDArray[np.bool_]:
    widths, heights = lines[:, 2] - lines[:, 0] + 1, lines[:, 3] - lines[:, 1] + 1
    wide: Any = widths / heights > MIN_RATIO
    return np.asarray(wide & (lines[:, 4] > LINE_MIN_SCORE) & (widths > STRIDE_PX * MIN_PROPOSALS))


def _clipped(boxes: Floats, input_hw: tuple[int, int]) -> Floats:
    height_px, width_px = input_hw
    highest = np.array([width_px - 1, height_px - 1] * 2, dtype=np.float32)
    clipped: Floats = np.clip(boxes, np.float32(0), highest)
    return clipped
