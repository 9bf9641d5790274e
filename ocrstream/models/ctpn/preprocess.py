"""Pictures as the networks want them."""

from __future__ import annotations

import math

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.models.ctpn.slices import INPUT_STEP_PX, MEAN_BGR
from ocrstream.picture import Image

_MEAN = np.array(MEAN_BGR, dtype=np.float32)[:, None, None]


def resized(picture: Image, scale: float) -> Image:
    """A picture so many times as large, as near to it as whole pixels allow.

    Args:
        picture: ``(H, W, 3) uint8 BGR``, not empty.
        scale: above 0.
    """
    size_wh = resized_wh(picture, scale)
    if size_wh == picture.shape[1::-1]:
        return picture
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    return cv2.resize(picture, size_wh, interpolation=way).astype(np.uint8, copy=False)


def resized_wh(picture: Image, scale: float) -> tuple[int, int]:
    """Width and height of what `resized` makes, in pixels."""
    height_px, width_px = picture.shape[:2]
    return max(1, round(width_px * scale)), max(1, round(height_px * scale))


def to_tensor(picture: Image) -> NDArray[np.float32]:
    """A picture as the input of the profiles ``light`` and ``vgg16``.

    Args:
        picture: ``(H, W, 3) uint8 BGR``, not empty.

    Returns:
        ``(1, 3, h, w) float32 BGR``, 0 to 255 less the mean; h and w are multiples of 32, and what lies to the right of
        the picture and below it is of the mean's colour.
    """
    height_px, width_px = picture.shape[:2]
    tensor = np.zeros((1, 3, _to_step(height_px), _to_step(width_px)), dtype=np.float32)
    np.subtract(picture.transpose(2, 0, 1), _MEAN, out=tensor[0, :, :height_px, :width_px])
    return tensor


def _to_step(side_px: int) -> int:
    return math.ceil(side_px / INPUT_STEP_PX) * INPUT_STEP_PX
