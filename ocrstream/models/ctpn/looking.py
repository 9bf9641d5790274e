"""From a picture to its words: one look at all of it from some way off, and a close one where text may be small.

Most of a picture holds no text, and large text needs few pixels. So the whole picture is seen at half its size
or less. Wherever the network has the least suspicion of text too low to be found well there, patches are
seen several times as large; and one more look, from further off, is for text larger than the network sees in one
piece. A word is taken from the look furthest off that shows it high enough.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.models.ctpn.beside import decode_with_faint, with_those_beside
from ocrstream.models.ctpn.decode import NO_WORDS, DecodeRule, Words, side_by_side
from ocrstream.models.ctpn.joining import Strokes
from ocrstream.models.ctpn.merging import merge
from ocrstream.models.ctpn.preprocess import resized, resized_wh, to_tensor
from ocrstream.models.ctpn.slices import INPUT_STEP_PX, OUTPUTS, STRIDE_PX, to_distance_px, to_logit
from ocrstream.models.session import Network
from ocrstream.picture import Image

FIRST_LOOK_PX = 1280 * 720
"""The first look has about so many pixels at most. With fewer, small print that fills a large picture gives no hint."""

CLOSER = 4.0
CLOSEST = 2.0
"""How many times as large as in the first look a patch is seen, and as in the picture at most: so the first look shows
a small picture at half its size."""

SEEN_AT = (CLOSEST, CLOSEST / CLOSER)
"""How many times as large as a small picture is a patch of it seen, and all of it in the first look."""

CLOSE_LOOK_PX = 1600 * 928
"""All patches of a picture together have about so many pixels at most, and are seen less large where they would have
more."""

FURTHER = (0.25, 0.5)
"""The sizes of the looks from further off, of the first one's."""

HIGH_PX = 24.0
"""Words this high in a look are found well there; patches are for lower ones."""

HINT = 0.05
"""From this score of a cell on there may be text."""

FAINT_HINT = 0.02
"""And where it hangs together with such, from this one on: a word may give hints at its ends only."""

SAME = 0.5
"""A word of which so much lies under words of another look is one of them, or a piece."""

MARGIN_STEPS = 1
SLACK_STEPS = 4
"""How far a patch reaches beyond the hints, and how much more a patch for two others may cover than they did, in
squares of `INPUT_STEP_PX`: a patch costs something of itself."""

SURELY_SEEN = 1.25
"""Patches are not for text from so many times that height on: what they show as high is a piece of something else."""

_STEP = INPUT_STEP_PX

Output = NDArray[np.float32]
Patch = tuple[int, int, int, int]
"""``(x0, y0, x1, y1)`` in steps of `INPUT_STEP_PX`, of the picture as it is seen closely; x1 and y1 exclusive."""


def find_words(network: Network, pictures: Sequence[Image], rule: DecodeRule) -> list[Words]:
    """The words of several pictures.

    Args:
        network: of the profile ``light`` or ``vgg16``.
        pictures: ``(H, W, 3) uint8 BGR`` each, not empty.
        rule: thresholds.

    Returns:
        Each one's, in its own pixels.
    """
    looks = [_Looks(picture, rule) for picture in pictures]
    outputs = network.run_each(tensor for look in looks for tensor in look.from_far())
    for look in looks:
        look.take([output[0] for output in islice(outputs, len(FURTHER) + 1)])
    outputs = network.run_each(tensor for look in looks for tensor in look.closely())
    return [look.words([output[0] for output in islice(outputs, len(look.patches))]) for look in looks]


class _Looks:
    """One picture and how it is looked at.

    Attributes:
        patches: what is to be looked at closely, once the first look was taken.
    """

    def __init__(self, picture: Image, rule: DecodeRule) -> None:
        self.patches: list[Patch] = []
        self._picture = picture
        self._rule = rule
        height_px, width_px = picture.shape[:2]
        self._scale = min(SEEN_AT[1], math.sqrt(FIRST_LOOK_PX / (width_px * height_px)))
        self._close_scale = min(CLOSEST, CLOSER * self._scale)
        self._scales = [*(self._scale * share for share in FURTHER), self._scale]
        self._large = NO_WORDS
        self._faint = NO_WORDS

    def from_far(self) -> Iterator[Output]:
        """The network's inputs for the looks at all of the picture, from the furthest to the first."""
        for scale in self._scales:
            yield to_tensor(resized(self._picture, scale))

    def take(self, outputs: Sequence[Output]) -> None:
        """Keep what is large, and choose patches for what is not.

        Args:
            outputs: ``(6, h, w)`` each, the network's for `from_far`.
        """
        for output, scale in zip(outputs, self._scales, strict=True):
            words, candidates = self._seen(output, scale, from_px=HIGH_PX)
            self._large = _together(self._large, words)
            self._faint = side_by_side(self._faint, candidates)
        first = outputs[-1]
        self.patches = self._patches(first)
        pixels = INPUT_STEP_PX**2 * sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in self.patches)
        if pixels > CLOSE_LOOK_PX:
            self._close_scale *= math.sqrt(CLOSE_LOOK_PX / pixels)
            self.patches = self._patches(first)

    def closely(self) -> Iterator[Output]:
        """The network's inputs for the patches."""
        if self.patches:
            close = resized(self._picture, self._close_scale)
            for x0, y0, x1, y1 in self.patches:
                yield to_tensor(close[y0 * _STEP : y1 * _STEP, x0 * _STEP : x1 * _STEP])

    def words(self, outputs: Sequence[Output]) -> Words:
        """All words, given the network's outputs for the patches."""
        if not outputs:
            return with_those_beside(self._large, self._faint)
        cells = _STEP // STRIDE_PX
        columns, rows = max(patch[2] for patch in self.patches), max(patch[3] for patch in self.patches)
        # Patches may lie over each other at their corners: the surer cell counts.
        whole = np.full((len(OUTPUTS), rows * cells, columns * cells), -np.inf, dtype=np.float32)
        for (x0, y0, x1, y1), output in zip(self.patches, outputs, strict=True):
            there = whole[:, y0 * cells : y1 * cells, x0 * cells : x1 * cells]
            np.copyto(there, output, where=output[:1] > there[:1])
        # What is much higher than what patches are for was seen in full before.
        below_px = SURELY_SEEN * HIGH_PX * self._close_scale / self._scale
        words, candidates = self._seen(whole, self._close_scale, below_px=below_px)
        return with_those_beside(_together(self._large, words), side_by_side(self._faint, candidates))

    def _seen(
        self, output: Output, scale: float, *, from_px: float = 0.0, below_px: float = math.inf
    ) -> tuple[Words, Words]:
        """The words of a look, and its faint ones, whose height in it is at least the one and less than the other."""
        words, faint = decode_with_faint(output, self._rule)
        both = []
        for found in (merge(words), faint):
            height_px = Strokes.of(found.quads).height
            both.append(self._placed(found.of((height_px >= from_px) & (height_px < below_px)), scale))
        return both[0], both[1]

    def _placed(self, words: Words, scale: float) -> Words:
        """The words of a look in the picture's pixels."""
        size_wh = np.array(self._picture.shape[1::-1])
        return Words(words.quads * (size_wh / resized_wh(self._picture, scale)), words.scores)

    def _patches(self, first: Output) -> list[Patch]:
        """Rectangles around every hint of text that no look from far found, and that is not too high for a patch."""
        hinted = (first[0] > to_logit(FAINT_HINT)).astype(np.uint8)
        known = np.round(self._large.quads * (self._scale / STRIDE_PX) - 0.5).astype(np.int32)
        cv2.fillPoly(hinted, list(known), 0)
        rows, columns = np.nonzero(hinted)
        low = to_distance_px(first[1:3, rows, columns]).sum(axis=0) < SURELY_SEEN * HIGH_PX
        rows, columns = rows[low], columns[low]
        step = STRIDE_PX * self._close_scale / self._scale / _STEP
        steps = [math.ceil(side_px / _STEP) for side_px in reversed(resized_wh(self._picture, self._close_scale))]
        hints = np.full(steps, -np.inf, dtype=np.float32)
        places = [
            np.minimum(((cells + 0.5) * step).astype(int), count - 1)
            for cells, count in zip((rows, columns), steps, strict=True)
        ]
        np.maximum.at(hints, (places[0], places[1]), first[0, rows, columns])
        is_hinted = np.isfinite(hints).astype(np.uint8)
        count, labels, boxes, _ = cv2.connectedComponentsWithStats(is_hinted, connectivity=8)
        surest = np.full(count, -np.inf)
        np.maximum.at(surest, np.asarray(labels, dtype=np.intp), hints)
        return _rectangles(
            (
                max(x - MARGIN_STEPS, 0),
                max(y - MARGIN_STEPS, 0),
                min(x + width + MARGIN_STEPS, steps[1]),
                min(y + height + MARGIN_STEPS, steps[0]),
            )
            for x, y, width, height, _ in boxes[surest >= to_logit(HINT)].tolist()
        )


def _rectangles(patches: Iterable[Patch]) -> list[Patch]:
    """Fewer of them: two are one where that covers hardly more than both."""
    kept: list[Patch] = []
    for patch in patches:
        current = patch
        while other := next(
            (each for each in kept if _area(_around(current, each)) <= _area(current) + _area(each) + SLACK_STEPS), None
        ):
            kept.remove(other)
            current = _around(current, other)
        kept.append(current)
    return kept


def _area(patch: Patch) -> int:
    return (patch[2] - patch[0]) * (patch[3] - patch[1])


def _around(a: Patch, b: Patch) -> Patch:
    return min(a[0], b[0]), min(a[1], b[1]), max(a[2], b[2]), max(a[3], b[3])


def _together(larger: Words, smaller: Words) -> Words:
    """The words of two looks: those of the first one, and those of the second that do not lie under them."""
    return side_by_side(larger, smaller.of(smaller.share_under(larger) < SAME))
