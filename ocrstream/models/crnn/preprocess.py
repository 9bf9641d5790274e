"""Crops as the CRNN wants them: grey, of one height, as wide as their text is long."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from ocrstream.picture import Image

HEIGHT_PX = 48
STEP_PX = 4
"""Pixel columns to a timestep."""

WIDTH_STEP_PX = 8
MIN_WIDTH_PX = 48
MAX_WIDTH_PX = 3200
"""A width is a function of the crop alone, on a grid, so that batches of one width fill and kernels are found again."""

ORIGINAL_WIDTH_PX, ORIGINAL_HEIGHT_PX = 100, 32
"""The released network squashes every crop to this size."""

# (x / 255 - 0.5) / 0.5, as a table.
_NORMALISED: NDArray[np.float32] = ((np.arange(256) / 255 - 0.5) / 0.5).astype(np.float32)


def input_width_px(width_px: float, height_px: float) -> int:
    """The width at which a crop of this size is read."""
    steps = round(HEIGHT_PX * width_px / max(height_px, 1) / WIDTH_STEP_PX)
    return min(max(steps * WIDTH_STEP_PX, MIN_WIDTH_PX), MAX_WIDTH_PX)


def to_grey(crop: Image) -> NDArray[np.uint8]:
    """``(H, W, 3) uint8 BGR`` as ``(H, W) uint8``."""
    return cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)


def crop_to_tensor(crop: Image) -> NDArray[np.float32]:
    """A crop as the network's input.

    Args:
        crop: ``(H, W, 3) uint8 BGR``, not empty.

    Returns:
        ``(1, 1, 48, w) float32 in [-1, 1]``, w a multiple of 8.
    """
    return normalise(resize(to_grey(crop), input_width_px(crop.shape[1], crop.shape[0])))[None, None]


def original_to_tensor(crop: Image) -> NDArray[np.float32]:
    """A crop as the released network's own programs make it: squashed by Pillow, which smooths where it shrinks.

    Args:
        crop: ``(H, W, 3) uint8 BGR``, not empty.

    Returns:
        ``(1, 1, 32, 100) float32 in [-1, 1]``.
    """
    grey = PIL.Image.fromarray(np.ascontiguousarray(crop[:, :, ::-1])).convert("L")
    squashed = grey.resize((ORIGINAL_WIDTH_PX, ORIGINAL_HEIGHT_PX), PIL.Image.Resampling.BILINEAR)
    return normalise(np.asarray(squashed))[None, None]


def resize(grey: NDArray[np.uint8], width_px: int) -> NDArray[np.uint8]:
    """``(H, W) uint8`` at 48 pixels of height; bilinear until that would skip pixels."""
    shrinks = grey.shape[0] > 1.5 * HEIGHT_PX
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return cv2.resize(grey, (width_px, HEIGHT_PX), interpolation=method).astype(np.uint8, copy=False)


def normalise(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """``uint8`` of any shape as ``float32 in [-1, 1]``."""
    return _NORMALISED[grey]


def batch_to_tensor(crops: Sequence[NDArray[np.float32]]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Crops of `crop_to_tensor` side by side, each with zeros at its right.

    Returns:
        ``(N, 1, h, W) float32`` and each crop's own width, ``(N,) int64``.
    """
    widths = np.array([crop.shape[3] for crop in crops], dtype=np.int64)
    batch = np.zeros((len(crops), *crops[0].shape[1:3], int(widths.max())), dtype=np.float32)
    for row, crop in enumerate(crops):
        batch[row, :, :, : crop.shape[3]] = crop[0]
    return batch, widths


def aspect_for(width_px: int) -> float:
    """The true width to height of a crop that is read at this width."""
    return width_px / HEIGHT_PX


def least_width_px(timesteps: int) -> int:
    """The narrowest input on the grid with at least this many timesteps (one every 4 pixels)."""
    return max(math.ceil(timesteps * STEP_PX / WIDTH_STEP_PX) * WIDTH_STEP_PX, MIN_WIDTH_PX)
