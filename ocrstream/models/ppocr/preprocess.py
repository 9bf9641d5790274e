"""Pictures and crops as the PP-OCR networks want them, with what undoes it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.picture import Image

SHORT_SIDE_PX = 736
"""A picture whose short side is smaller is scaled up to it (RapidOCR: ``Det.limit_side_len``, ``limit_type: min``)."""

LONG_SIDE_PX = 2000
"""A picture whose long side is larger is scaled down to it first (RapidOCR: ``Global.max_side_len``)."""

STRIDE_PX = 32
"""Both sides of the detector's input are multiples of this."""

MAX_ASPECT = 8
MIN_SIDE_PX = 30
"""A picture longer than 8:1, or thinner than this, gets bars: scaled to ``SHORT_SIDE_PX`` it would be enormous
(RapidOCR: ``width_height_ratio`` and ``min_height``)."""

CROP_HEIGHT_PX = 48
MIN_CROP_WIDTH_PX = 160
MAX_CROP_WIDTH_PX = 3200
CROP_WIDTH_STEP_PX = 32
"""A crop is scaled to 48 pixels of height (RapidOCR: ``rec_img_shape``) and padded with grey on its right to a width of
this grid, a function of the crop alone. RapidOCR pads to 320 at least; half of that reads as well in half the time."""

# Both networks take (x / 255 - 0.5) / 0.5, BGR; a table is exact and an eighth of the time of the arithmetic.
_NORMALISED: NDArray[np.float32] = ((np.arange(256) / 255 - 0.5) / 0.5).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a picture lies in the detector's input: input = (picture + margin) * scale.

    Attributes:
        width_px: the picture's width.
        height_px: the picture's height.
        left_px: bar at its left (and right), in its own pixels.
        top_px: bar above (and below) it.
        scale_x: input pixels a picture pixel.
        scale_y: likewise.
    """

    width_px: int
    height_px: int
    left_px: int
    top_px: int
    scale_x: float
    scale_y: float


def picture_to_tensor(picture: Image) -> tuple[NDArray[np.float32], Placement]:
    """A picture as the detector's input.

    Args:
        picture: ``(H, W, 3) uint8 BGR``.

    Returns:
        ``(1, 3, h, w) float32 BGR in [-1, 1]``, h and w multiples of 32, and what undoes it.
    """
    height_px, width_px = picture.shape[:2]
    left_px, top_px = _margin_px(width_px, height_px), _margin_px(height_px, width_px)
    full_w, full_h = width_px + 2 * left_px, height_px + 2 * top_px
    scale = _scale(full_w, full_h)
    input_w, input_h = _to_stride(full_w * scale), _to_stride(full_h * scale)
    placement = Placement(width_px, height_px, left_px, top_px, input_w / full_w, input_h / full_h)
    if left_px or top_px:
        # In the colour of most of the picture, so that its edge is not taken for a letter's.
        colour = np.median(picture, axis=(0, 1)).tolist()
        picture = cv2.copyMakeBorder(picture, top_px, top_px, left_px, left_px, cv2.BORDER_CONSTANT, value=colour)  # type: ignore[assignment]
    tensor = np.empty((1, 3, input_h, input_w), dtype=np.float32)
    _normalise(_resize(picture, input_w, input_h), tensor[0])
    return tensor, placement


def crop_to_tensor(crop: Image) -> NDArray[np.float32]:
    """A crop as the recogniser's input.

    Args:
        crop: ``(H, W, 3) uint8 BGR``, not empty.

    Returns:
        ``(1, 3, 48, w) float32 BGR in [-1, 1]``, w a multiple of 32, with 0 (grey) right of the text.
    """
    height_px, width_px = crop.shape[:2]
    scaled_px = min(math.ceil(CROP_HEIGHT_PX * width_px / height_px), MAX_CROP_WIDTH_PX)
    padded_px = max(MIN_CROP_WIDTH_PX, math.ceil(scaled_px / CROP_WIDTH_STEP_PX) * CROP_WIDTH_STEP_PX)
    tensor = np.zeros((1, 3, CROP_HEIGHT_PX, padded_px), dtype=np.float32)
    _normalise(_resize(crop, scaled_px, CROP_HEIGHT_PX), tensor[0, :, :, :scaled_px])
    return tensor


def _margin_px(side_px: int, other_px: int) -> int:
    """The bar on each end of a side that is too short for the other one."""
    if side_px > MIN_SIDE_PX and other_px <= MAX_ASPECT * side_px:
        return 0
    return max(other_px // MAX_ASPECT, MIN_SIDE_PX) - side_px // 2


def _scale(width_px: int, height_px: int) -> float:
    return max(min(1.0, LONG_SIDE_PX / max(width_px, height_px)), SHORT_SIDE_PX / min(width_px, height_px))


def _to_stride(side_px: float) -> int:
    return max(1, round(side_px / STRIDE_PX)) * STRIDE_PX


def _resize(picture: Image, width_px: int, height_px: int) -> cv2.typing.MatLike:
    # Bilinear as RapidOCR, until that would skip pixels.
    shrinks = 2 * height_px < picture.shape[0]
    return cv2.resize(picture, (width_px, height_px), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)


def _normalise(pixels: cv2.typing.MatLike, planes: NDArray[np.float32]) -> None:
    for channel in range(3):
        planes[channel] = cv2.LUT(pixels[:, :, channel], _NORMALISED)
