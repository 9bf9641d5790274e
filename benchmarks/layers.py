"""What a virtual camera sees: flat pictures with words on them, one before the other, each going its way.

Over all lie motion blur (a shutter of half a frame), slow changes of exposure and sensor noise.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.geometry import Polygon, to_polygon
from ocrstream.picture import Image

FPS = 30
SHUTTER_S = 1 / 60
EXPOSURES = 3
"""A frame is the mean of so many pictures, spread over the time the shutter is open."""

NOISE_SIGMA = 3.0

Matrix = NDArray[np.float64]
"""``(3, 3)``, from a layer's pixels to the frame's."""

Size = tuple[int, int]
"""Width and height, in pixels."""


class Word(NamedTuple):
    """A labelled word: of a photo, of a layer or of a frame, whose pixels its polygon is in."""

    id: int
    text: str
    polygon: Polygon
    ignore: bool


class SeenWord(NamedTuple):
    """A word of one frame, and the share of its area that can be seen, above 0 and up to 1."""

    word: Word
    visible: float


@dataclass(frozen=True, slots=True)
class Layer:
    """A flat picture in front of the camera.

    Attributes:
        image: what is on it.
        words: its labels, in its own pixels.
        place: where it is at a time in seconds; None while it is not there.
        opacity: how much of it is there at a time, 0 to 1.
    """

    image: Image
    words: tuple[Word, ...]
    place: Callable[[float], Matrix | None]
    opacity: Callable[[float], float] = lambda _time_s: 1.0


@dataclass(frozen=True, slots=True)
class Clip:
    """What the camera sees, back to front, and for how long."""

    layers: Sequence[Layer]
    size: Size
    seconds: float
    seed: int
    fps: int = FPS

    def __len__(self) -> int:
        return round(self.seconds * self.fps)

    def pictures(self) -> Iterator[Image]:
        """Every frame, ``(H, W, 3) uint8 BGR``."""
        rng = np.random.default_rng(self.seed)
        width, height = self.size
        noise = rng.normal(0, NOISE_SIGMA, (height + 64, width + 64, 3)).astype(np.float32)
        phase = rng.uniform(0, 2 * math.pi)
        for index in range(len(self)):
            time_s = index / self.fps
            light = np.zeros((height, width, 3), np.float32)
            for step in range(EXPOSURES):
                light += self._seen_at(time_s + SHUTTER_S * (step / (EXPOSURES - 1) - 0.5))
            gain = (1 + 0.05 * math.sin(phase + time_s / 1.3)) / EXPOSURES
            y, x = rng.integers(0, 64, 2)
            picture = light * gain + noise[y : y + height, x : x + width]
            yield np.clip(picture, 0, 255).astype(np.uint8)

    def words(self, index: int) -> list[SeenWord]:
        """The words of a frame, wholly or in part."""
        time_s = index / self.fps
        places = [layer.place(time_s) for layer in self.layers]
        seen = []
        for depth, (layer, place) in enumerate(zip(self.layers, places, strict=True)):
            if place is None or layer.opacity(time_s) < 0.5:
                continue
            above = [
                moved(outline(other.image), other_place)
                for other, other_place in zip(self.layers[depth + 1 :], places[depth + 1 :], strict=True)
                if other_place is not None and other.opacity(time_s) >= 0.5
            ]
            for word in layer.words:
                corners = moved(np.array(word.polygon), place)
                if visible := visible_share(corners, self.size, above):
                    seen.append(SeenWord(word._replace(polygon=to_polygon(corners)), visible))
        return seen

    def _seen_at(self, time_s: float) -> Image:
        canvas: Image = np.zeros((self.size[1], self.size[0], 3), np.uint8)
        for layer in self.layers:
            place, opacity = layer.place(time_s), layer.opacity(time_s)
            if place is None or opacity <= 0:
                continue
            below = canvas.copy() if opacity < 1 else canvas
            cv2.warpPerspective(layer.image, place, self.size, dst=canvas, borderMode=cv2.BORDER_TRANSPARENT)
            if opacity < 1:
                canvas = cv2.addWeighted(canvas, opacity, below, 1 - opacity, 0).astype(np.uint8)
        return canvas


def visible_share(corners: Matrix, size: Size, above: Sequence[Matrix] = ()) -> float:
    """How much of a polygon is in a frame, and not under others, 0 to 1."""
    area = cv2.contourArea(corners.astype(np.float32))
    frame = outline_of(*size).astype(np.float32)
    inside, part = cv2.intersectConvexConvex(corners.astype(np.float32), frame)
    if area <= 0 or inside <= 0:
        return 0.0
    covered = sum(cv2.intersectConvexConvex(part, other.astype(np.float32))[0] for other in above)
    return round(float(np.clip((inside - covered) / area, 0, 1)), 3)


def scaling(scale: float, x: float, y: float) -> Matrix:
    """Scales by a factor, and puts the top left corner at a point."""
    return np.array([[scale, 0, x], [0, scale, y], [0, 0, 1]], float)


def outline(image: Image) -> Matrix:
    """A picture's corners, ``(4, 2)``, clockwise from the top left."""
    return outline_of(image.shape[1], image.shape[0])


def outline_of(width: int, height: int) -> Matrix:
    """Those of a picture of a size."""
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], float)


def moved(corners: Matrix, matrix: Matrix) -> Matrix:
    """Where corners, ``(4, 2)``, are taken by a matrix."""
    taken = np.hstack([corners, np.ones((len(corners), 1))]) @ matrix.T
    there: Matrix = taken[:, :2] / taken[:, 2:]
    return there
