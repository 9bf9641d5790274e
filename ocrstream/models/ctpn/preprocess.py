"""Pictures as the networks want them, with what undoes it."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.models.ctpn.slices import INPUT_STEP_PX, MEAN_BGR
from ocrstream.picture import Image

LONG_SIDE_PX = 1600
"""No picture becomes larger than this, and a larger one is scaled down to it: the time is a function of the size."""

ENLARGEMENT = 1.25
"""Every picture is enlarged by this: text of 8 pixels is found more often then, for half as much time again."""

SHORT_SIDE_PX = 384
MAX_ENLARGEMENT = 2.0
"""A picture whose short side is smaller is enlarged to it, at most twice: its text is usually small too."""


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a picture lies in the network's input: input = picture * scale; what is to its right and below is empty.

    Attributes:
        width_px: the picture's width.
        height_px: the picture's height.
        scale_x: input pixels a picture pixel.
        scale_y: likewise.
    """

    width_px: int
    height_px: int
    scale_x: float
    scale_y: float


def picture_to_tensor(picture: Image) -> tuple[NDArray[np.float32], Placement]:
    """A picture as the input of the profiles ``light`` and ``vgg16``.

    Args:
        picture: ``(H, W, 3) uint8 BGR``, not empty.

    Returns:
        ``(1, 3, h, w) float32 BGR``, 0 to 255 less the mean, h and w multiples of 32, and what undoes it.
    """
    height_px, width_px = picture.shape[:2]
    scale = _scale(width_px, height_px)
    inner_w, inner_h = max(1, round(width_px * scale)), max(1, round(height_px * scale))
    if (inner_w, inner_h) != (width_px, height_px):
        way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        picture = cv2.resize(picture, (inner_w, inner_h), interpolation=way)  # type: ignore[assignment]
    # Zeros are the mean's colour.
    tensor = np.zeros((1, 3, _to_step(inner_h), _to_step(inner_w)), dtype=np.float32)
    np.subtract(picture.transpose(2, 0, 1), _MEAN, out=tensor[0, :, :inner_h, :inner_w])
    return tensor, Placement(width_px, height_px, inner_w / width_px, inner_h / height_px)


_MEAN = np.array(MEAN_BGR, dtype=np.float32)[:, None, None]


def _scale(width_px: int, height_px: int) -> float:
    shorter, longer = sorted((width_px, height_px))
    wanted = max(ENLARGEMENT, min(SHORT_SIDE_PX / shorter, MAX_ENLARGEMENT))
    return min(wanted, LONG_SIDE_PX / longer)


def _to_step(side_px: int) -> int:
    return math.ceil(side_px / INPUT_STEP_PX) * INPUT_STEP_PX
