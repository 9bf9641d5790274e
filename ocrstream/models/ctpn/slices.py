"""What a slice is: the one place where training's targets and serving's decoding agree on numbers.

A cell of the network's output stands for a slice of the picture 4 pixels wide, around the cell's centre. Its
distances, up to the text's top line, down to its bottom line, and along x to the middles of its left and right ends,
are in pixels of the network's input; the network gives their logarithms in units of 16 pixels.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

PROFILES = ("light", "vgg16")
"""This project's networks: for CPUs and for GPUs."""

INPUT_STEP_PX = 32
"""Both sides of an input are multiples of this."""

MEAN_BGR = (104.0, 117.0, 123.0)
"""Taken from a picture's values of 0 to 255, as those did who trained the backbones' initial weights on ImageNet."""

OUTPUTS = ("score", "top", "bottom", "left", "right", "slope")
"""The output's channels: a logit; the logarithms of four distances in units of 16 pixels; rise over run."""

STRIDE_PX = 4
"""A slice's width, and the distance between two cells of the output, both ways."""

UNIT_PX = 16.0
"""The network's unit of length."""

MAX_LOG = 5.0
"""Distances are at most ``exp(5)`` units, so that no output overflows."""

CORE_HEIGHT = 0.3
CORE_END = 0.3
"""A cell is text where it is at most 0.3 of the text's height from its centre line, and as far from its ends: two
neighbouring words or lines never touch."""

MIN_CORE_PX = 2.1
"""Half the core's height is at least this, so that each column has a cell in the smallest text."""


def cell_centres(count: int) -> NDArray[np.float32]:
    """Where the centres of ``count`` cells in a row lie: ``(count,) float32`` in pixels."""
    return (np.arange(count, dtype=np.float32) + 0.5) * STRIDE_PX


def to_logit(score: float) -> float:
    """The network's output for a score between 0 and 1."""
    return math.log(score / (1 - score))


def to_distance_px(output: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distances in pixels from the network's logarithms, any shape."""
    distance_px: NDArray[np.float32] = np.exp(np.clip(output, -MAX_LOG, MAX_LOG)) * np.float32(UNIT_PX)
    return distance_px
