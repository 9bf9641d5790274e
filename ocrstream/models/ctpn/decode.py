"""From slices to words: connected slices become one quadrilateral each, in NumPy.

Slices whose cells touch belong to one word; the network leaves a gap between two words, so that no rule has to
say how far apart slices may lie. A straight line is fitted through the slices' middles, as the original does with tops
and bottoms, and the slices near each end say where the word ends (side-refinement).
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.models.ctpn.slices import STRIDE_PX, cell_centres, to_distance_px, to_logit

Array = NDArray[np.float64]

END_WINDOW = 1.0
"""Slices at most this many text heights from a component's end have a say in where the word ends."""


@dataclass(frozen=True, slots=True)
class DecodeRule:
    """Thresholds.

    Attributes:
        cell_score: a cell is text above this.
        word_score: a word counts from this mean of its cells' scores on.
        min_height_px: words lower than this in the network's input are noise.
        slope_prior: weight of the slices' own slope against the fitted line's, as if it had been measured over so many
            text heights.
    """

    cell_score: float = 0.5
    word_score: float = 0.73
    min_height_px: float = 4.0
    slope_prior: float = 1.0


@dataclass(frozen=True, slots=True)
class Words:
    """The words of one picture.

    Attributes:
        quads: ``(N, 4, 2) float64``, x then y in pixels of the network's input, clockwise from the top-left.
        scores: ``(N,) float64``, 0 to 1.
    """

    quads: Array
    scores: Array

    def of(self, chosen: NDArray[np.bool_] | NDArray[np.intp]) -> Words:
        """Some of the words."""
        return Words(self.quads[chosen], self.scores[chosen])

    def share_under(self, others: Words) -> Array:
        """How much of each lies under others: ``(N,)``, 0 to 1, and more where those lie over each other."""
        boxes = [np.concatenate([each.quads.min(axis=1), each.quads.max(axis=1)], axis=1) for each in (self, others)]
        low, high = (way(boxes[0][:, None], boxes[1][None]) for way in (np.maximum, np.minimum))
        touching = (low[..., :2] < high[..., 2:]).all(axis=2)
        share = np.zeros(len(self.quads))
        for index in np.flatnonzero(touching.any(axis=1)).tolist():
            quad = self.quads[index].astype(np.float32)
            shared = sum(
                cv2.intersectConvexConvex(quad, others.quads[other].astype(np.float32))[0]
                for other in np.flatnonzero(touching[index]).tolist()
            )
            share[index] = shared / max(float(cv2.contourArea(quad)), 1e-6)
        return share


NO_WORDS = Words(np.zeros((0, 4, 2)), np.zeros(0))


def side_by_side(a: Words, b: Words) -> Words:
    """All words of both, in this order."""
    return Words(np.concatenate([a.quads, b.quads]), np.concatenate([a.scores, b.scores]))


def decode(output: NDArray[np.float32], rule: DecodeRule | None = None) -> Words:
    """The words in a network's output.

    Args:
        output: ``(6, h, w) float32``, one picture's, channels as in `slices.OUTPUTS`.
        rule: the thresholds.
    """
    rule = rule or DecodeRule()
    # Compared as logits: the sigmoid is only taken of the few cells that are text.
    mask = (output[0] > to_logit(rule.cell_score)).astype(np.uint8)
    count, labels = cv2.connectedComponents(mask, connectivity=8, ltype=cv2.CV_32S)
    if count <= 1:
        return NO_WORDS
    rows, columns = np.nonzero(mask)
    component = np.asarray(labels)[rows, columns] - 1
    raw = output[:, rows, columns].astype(np.float64)
    x = cell_centres(output.shape[2]).astype(np.float64)[columns]
    y = cell_centres(output.shape[1]).astype(np.float64)[rows]
    top, bottom, left, right = to_distance_px(raw[1:5].astype(np.float32)).astype(np.float64)
    cells = _Cells(component, count - 1, 1 / (1 + np.exp(-raw[0])))

    middle, height = y + (bottom - top) / 2, top + bottom
    mean_x, mean_y, mean_height = cells.mean(x), cells.mean(middle), cells.mean(height)
    slope = _slope(cells, x - mean_x[component], middle - mean_y[component], raw[5], rule.slope_prior * mean_height**2)
    window = END_WINDOW * mean_height[component]
    at_left = x <= (cells.smallest(x))[component] + window
    at_right = x >= (cells.largest(x))[component] - window
    x0, x1 = cells.mean(x - left, at_left), cells.mean(x + right, at_right)
    score = cells.plain_mean(cells.weight)
    kept = (score >= rule.word_score) & (mean_height >= rule.min_height_px) & (x1 - x0 >= STRIDE_PX)
    quads = _quads(x0, x1, mean_x, mean_y, slope, mean_height)
    return Words(quads, score).of(kept)


class _Cells:
    """Sums over the cells of each component."""

    def __init__(self, component: NDArray[np.intp], count: int, weight: Array) -> None:
        self.component, self.count, self.weight = component, count, weight

    def total(self, values: Array) -> Array:
        return np.bincount(self.component, values, self.count).astype(np.float64, copy=False)

    def mean(self, values: Array, where: NDArray[np.bool_] | None = None) -> Array:
        weight = self.weight if where is None else self.weight * where
        return self.total(values * weight) / self.total(weight)

    def plain_mean(self, values: Array) -> Array:
        return self.total(values) / self.total(np.ones_like(values))

    def smallest(self, values: Array) -> Array:
        result = np.full(self.count, np.inf)
        np.minimum.at(result, self.component, values)
        return result

    def largest(self, values: Array) -> Array:
        return -self.smallest(-values)


def _slope(cells: _Cells, x: Array, y: Array, slope: Array, prior: Array) -> Array:
    """Least squares through the middles, drawn to the mean of the slices' own slopes where a word is short.

    Args:
        cells: the sums.
        x: cells' positions from their component's middle, in pixels.
        y: likewise.
        slope: each cell's own.
        prior: how much each component's mean of these weighs, in square pixels.
    """
    prior = prior * cells.total(cells.weight)
    fitted = cells.total(x * y * cells.weight) + prior * cells.mean(slope)
    return fitted / (cells.total(x * x * cells.weight) + prior)


def _quads(x0: Array, x1: Array, mean_x: Array, mean_y: Array, slope: Array, height: Array) -> Array:
    """Rectangles around centre lines: ``(N, 4, 2)``."""
    length = np.sqrt(1 + slope**2)
    # A distance measured down a column is longer than one across the text; ends are cut at right angles.
    half = height / length / 2
    across = np.stack([-slope / length * half, half / length], axis=1)
    start = np.stack([x0, mean_y + (x0 - mean_x) * slope], axis=1)
    end = np.stack([x1, mean_y + (x1 - mean_x) * slope], axis=1)
    return np.stack([start - across, end - across, end + across, start + across], axis=1)
