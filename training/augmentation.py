"""From a picture of a text to what a camera would hand to the recogniser: cut loosely, seen badly."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ocrstream.models.crnn.preprocess import HEIGHT_PX, MAX_WIDTH_PX, input_width_px, least_width_px
from training.words import Sample

Grey = NDArray[np.uint8]


def least_timesteps(text: str) -> int:
    """Timesteps that CTC needs: one a character, and a blank between two alike (Graves et al., 2006, section 3)."""
    return len(text) + sum(a == b for a, b in itertools.pairwise(text))


def width_for(text: str, quad_width: float, quad_height: float, stretch: float = 1.0) -> int | None:
    """The width to read a sample at: its own, or what its label needs; nothing where no width would do."""
    width = max(input_width_px(quad_width * stretch, quad_height), least_width_px(least_timesteps(text) + 1))
    return width if width <= MAX_WIDTH_PX else None


def upright(sample: Sample) -> Grey | None:
    """A sample as it is read, unharmed: ``(48, w) uint8``; nothing if its label is too long."""
    width = _upright_width(sample)
    return None if width is None else _warp(sample.grey, sample.quad, width)


def is_too_long(sample: Sample) -> bool:
    """Whether no width that the network reads has enough timesteps for a sample's label."""
    return _upright_width(sample) is None


def _upright_width(sample: Sample) -> int | None:
    quad = sample.quad
    return width_for(sample.text, float(quad[1, 0] - quad[0, 0]), float(quad[3, 1] - quad[0, 1]))


def augment(sample: Sample, rng: Generator, strength: float = 1.0) -> Grey | None:
    """A sample cut and seen differently each time: ``(48, w) uint8``, w a multiple of 8; nothing if it cannot fit.

    Args:
        sample: the picture.
        rng: where chance comes from.
        strength: 0 for none to 1.
    """
    quad = sample.quad.copy()
    height = float(np.linalg.norm(quad[3] - quad[0]))
    width = float(np.linalg.norm(quad[1] - quad[0]))
    loose = rng.random() < 0.3
    # Sides move on their own (a detector's box), then corners a little (its tilt); outwards further than inwards.
    scale = (0.14 if loose else 0.05) * strength * height
    left, top, right, bottom = rng.normal(0.03 * height * strength, scale, 4).clip(-0.07 * height, 0.4 * height)
    quad += np.array([(-left, -top), (right, -top), (right, bottom), (-left, bottom)], dtype=np.float32)
    quad += rng.normal(0, 0.025 * height * strength, (4, 2)).clip(-0.06 * height, 0.06 * height).astype(np.float32)
    if rng.random() < 0.2 * strength:
        shear = rng.normal(0, 0.15) * height
        quad[:2, 0] += shear / 2
        quad[2:, 0] -= shear / 2
    stretch = float(np.exp(np.clip(rng.normal(0, 0.12 * strength), -0.3, 0.3)))
    target = width_for(sample.text, width + left + right, height + top + bottom, stretch)
    if target is None:
        return None
    grey = sample.grey
    if rng.random() < 0.3 * strength:
        grey, quad = _coarser(grey, quad, rng)
    return _photometric(_warp(grey, quad, target), rng, strength)


def _warp(grey: Grey, quad: NDArray[np.float32], width: int) -> Grey:
    corners = np.array([(0, 0), (width, 0), (width, HEIGHT_PX), (0, HEIGHT_PX)], dtype=np.float32)
    height = float(np.linalg.norm(quad[3] - quad[0]))
    shrink = HEIGHT_PX / max(height, 1)
    if shrink < 0.67:
        grey = cv2.resize(grey, None, fx=shrink, fy=shrink, interpolation=cv2.INTER_AREA).astype(np.uint8)
        quad = quad * np.float32(shrink)
    # A pixel's middle is at 0.5 here and at 0 there.
    transform = cv2.getPerspectiveTransform(quad - np.float32(0.5), corners - np.float32(0.5))
    warped = cv2.warpPerspective(
        grey, transform, (width, HEIGHT_PX), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
    )
    return warped.astype(np.uint8, copy=False)


def _coarser(grey: Grey, quad: NDArray[np.float32], rng: Generator) -> tuple[Grey, NDArray[np.float32]]:
    """As if seen from further away: the text 8 to 22 pixels high."""
    height = float(np.linalg.norm(quad[3] - quad[0]))
    scale = rng.uniform(8, 22) / max(height, 1)
    if scale >= 1:
        return grey, quad
    size = (max(round(grey.shape[1] * scale), 2), max(round(grey.shape[0] * scale), 2))
    method = cv2.INTER_AREA if rng.random() < 0.7 else cv2.INTER_LINEAR
    small = cv2.resize(grey, size, interpolation=method).astype(np.uint8, copy=False)
    factors = np.array([size[0] / grey.shape[1], size[1] / grey.shape[0]], dtype=np.float32)
    return small, quad * factors


def _photometric(grey: Grey, rng: Generator, strength: float) -> Grey:
    if rng.random() < 0.22 * strength:
        grey = cv2.GaussianBlur(grey, (0, 0), float(rng.uniform(0.4, 1.6))).astype(np.uint8, copy=False)
    elif rng.random() < 0.12 * strength:
        grey = cv2.filter2D(grey, -1, motion_kernel(int(rng.integers(3, 8)), rng.uniform(0, np.pi))).astype(np.uint8)
    if rng.random() < 0.35 * strength:
        table = np.arange(256, dtype=np.float32) / 255
        table = table ** float(np.exp(rng.normal(0, 0.35)))
        contrast = float(np.exp(rng.normal(-0.15, 0.35)))
        table = (table - 0.5) * contrast + 0.5 + rng.normal(0, 0.12)
        grey = cv2.LUT(grey, (table * 255).clip(0, 255).astype(np.uint8)).astype(np.uint8, copy=False)
    if rng.random() < 0.1 * strength:
        ramp = np.linspace(rng.uniform(-50, 50), rng.uniform(-50, 50), grey.shape[1], dtype=np.float32)
        grey = (grey + ramp).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.25 * strength:
        noise = rng.standard_normal(grey.shape, dtype=np.float32) * np.float32(rng.uniform(2, 16))
        grey = (grey + noise).clip(0, 255).astype(np.uint8)
    if rng.random() < 0.12 * strength:
        grey = compressed(grey, int(rng.integers(12, 60)))
    if rng.random() < 0.08 * strength:
        grey = 255 - grey
    return grey


def compressed(picture: NDArray[np.uint8], quality: int) -> NDArray[np.uint8]:
    """What JPEG of a quality, 1 to 100, makes of a picture: ``(h, w) uint8`` or ``(h, w, 3) uint8``."""
    coded = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    decoded = cv2.imdecode(coded, cv2.IMREAD_UNCHANGED)
    return picture if decoded is None else decoded.astype(np.uint8, copy=False)


def motion_kernel(length_px: int, angle: float) -> NDArray[np.float32]:
    """A line through the middle of a square kernel that adds up to 1."""
    kernel = np.zeros((length_px, length_px), dtype=np.float32)
    middle = (length_px - 1) / 2
    reach = middle * np.array([np.cos(angle), np.sin(angle)])
    start, end = np.round(middle - reach).astype(int).tolist(), np.round(middle + reach).astype(int).tolist()
    cv2.line(kernel, start, end, (1.0,))
    blurred: NDArray[np.float32] = (kernel / kernel.sum()).astype(np.float32)
    return blurred
