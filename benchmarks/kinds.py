"""The kinds of clips that `benchmarks.clips` makes: how photos stand before the virtual camera, and how it moves."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks.layers import Layer, Matrix, Size, Word, moved, outline_of, scaling
from ocrstream.geometry import Polygon, clip_polygon, to_polygon
from ocrstream.picture import Image

MARGIN = 1.12
"""A photo is so much larger than the frame, so that a shaking hand stays within it."""


class Photos:
    """Annotated photos in an order of chance; every word that is taken gets an id of its own."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        entries = [json.loads(line) for line in (folder / "gt.jsonl").read_text(encoding="utf-8").splitlines()]
        readable = [entry for entry in entries if sum(map(_is_readable, entry["regions"])) >= 2]
        order = rng.permutation(len(readable))
        self._folder, self._ids = folder, count(1)
        self._entries = iter([readable[place] for place in order])

    def next(self, size: Size) -> tuple[Image, tuple[Word, ...]]:
        """The next photo, so large that it covers a size, and cut to it around its middle."""
        entry = next(self._entries, None)
        if entry is None:
            sys.exit("there are too few photos with two readable words for these clips; make fewer or shorter ones")
        image = cv2.imread(str(self._folder / entry["image"]))
        if image is None:
            sys.exit(f"{self._folder / entry['image']} cannot be read as a picture")
        scale = max(size[0] / image.shape[1], size[1] / image.shape[0])
        fit = scaling(scale, -(image.shape[1] * scale - size[0]) / 2, -(image.shape[0] * scale - size[1]) / 2)
        fitted = cv2.warpAffine(image, fit[:2], size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        words = tuple(
            Word(next(self._ids), region["text"], to_polygon(moved(np.array(region["poly"], float), fit)), ignore)
            for region in entry["regions"]
            for ignore in [bool(region["ignore"])]
        )
        return fitted.astype(np.uint8), words


def still(photos: Photos, size: Size, rng: np.random.Generator, seconds: float) -> list[Layer]:
    """A fixed camera; somebody walks through the picture."""
    return [_backdrop(photos, size), _passer_by(size, rng, seconds)]


def handheld(photos: Photos, size: Size, rng: np.random.Generator, seconds: float) -> list[Layer]:
    """The same in a hand that shakes."""
    phases = rng.uniform(0, 2 * math.pi, 7)

    def shake(time_s: float) -> Matrix:
        def sway(slow_hz: float, quick_hz: float, at: int) -> float:
            slow = math.sin(2 * math.pi * slow_hz * time_s + phases[at])
            return 0.7 * slow + 0.3 * math.sin(2 * math.pi * quick_hz * time_s + phases[at + 1])

        reach = size[1] * 0.03
        turned = cv2.getRotationMatrix2D(
            (size[0] / 2, size[1] / 2), 1.2 * sway(0.31, 1.7, 0), 1 + 0.012 * sway(0.23, 1.1, 5)
        )
        matrix = np.vstack([turned, [0, 0, 1]])
        matrix[0, 2] += reach * sway(0.4, 2.3, 2)
        matrix[1, 2] += reach * sway(0.37, 2.9, 4)
        return matrix

    return [_seen_through(layer, shake) for layer in still(photos, size, rng, seconds)]


def pan(photos: Photos, size: Size, _rng: np.random.Generator, seconds: float) -> list[Layer]:
    """From one photo to the next, with a rest at each, and a zoom at the end."""
    rest_s, move_s, zoom_s = 1.5, 4.0, min(3.0, seconds / 4)
    stops = max(2, round((seconds - zoom_s) / (rest_s + move_s)) + 1)

    def camera(time_s: float) -> Matrix:
        turn, since_s = divmod(min(time_s, (stops - 1) * (rest_s + move_s)), rest_s + move_s)
        share = min(max(since_s - rest_s, 0) / move_s, 1)
        eased = share * share * (3 - 2 * share)
        zoom = 1 + 0.5 * max(0.0, time_s - (seconds - zoom_s)) / zoom_s
        towards = scaling(zoom, size[0] / 2 * (1 - zoom), size[1] / 2 * (1 - zoom))
        return towards @ scaling(1, -(turn + eased) * size[0], 0)

    layers = []
    for stop in range(stops):
        image, words = photos.next(size)
        layers.append(_seen_through(Layer(image, words, _resting(scaling(1, stop * size[0], 0))), camera))
    return layers


def ticker(photos: Photos, size: Size, _rng: np.random.Generator, seconds: float) -> list[Layer]:
    """Words running through a band below a photo."""
    height, speed_px_s = size[1] // 14, size[0] // 8
    band_height = height * 2
    pieces: list[Image] = []
    words: list[Word] = []
    x, end = size[0], size[0] + speed_px_s * seconds
    while x < end:
        image, labelled = photos.next(size)
        for word in labelled:
            piece = None if word.ignore or len(word.text) < 3 else _straightened(image, word.polygon, height)
            if piece is None:
                continue
            top, width = (band_height - height) // 2, piece.shape[1]
            box = [[x, top], [x + width, top], [x + width, top + height], [x, top + height]]
            words.append(word._replace(polygon=to_polygon(np.array(box, float))))
            pieces.append(piece)
            x += width + height
    band: Image = np.full((band_height, x, 3), 40, np.uint8)
    for piece, word in zip(pieces, words, strict=True):
        left, upper = (int(value) for value in word.polygon[0])
        band[upper : upper + piece.shape[0], left : left + piece.shape[1]] = piece
    y = size[1] - band_height - size[1] // 20
    running = Layer(band, tuple(words), lambda time_s: scaling(1, -speed_px_s * time_s, y))
    return [_backdrop(photos, size), running]


def slides(photos: Photos, size: Size, _rng: np.random.Generator, seconds: float) -> list[Layer]:
    """A photo every four seconds, by a cut or a fade."""
    each_s, fade_s = 4.0, 0.6
    layers = []
    for number in range(math.ceil(seconds / each_s)):
        image, words = photos.next(size)
        begin_s, is_cut = number * each_s, number % 2 == 0

        def place(time_s: float, begin_s: float = begin_s) -> Matrix | None:
            return np.eye(3) if begin_s <= time_s < begin_s + each_s + fade_s else None

        def opacity(time_s: float, begin_s: float = begin_s, is_cut: bool = is_cut) -> float:
            return 1.0 if is_cut else min(max((time_s - begin_s) / fade_s, 0.0), 1.0)

        layers.append(Layer(image, words, place, opacity))
    # The first one is there when the shutter opens, before time 0.
    return [replace(layers[0], place=lambda time_s: np.eye(3) if time_s < each_s + fade_s else None), *layers[1:]]


def traffic(photos: Photos, size: Size, rng: np.random.Generator, seconds: float) -> list[Layer]:
    """Pieces of photos that come nearer and pass by."""
    layers = [_backdrop(photos, size)]
    every_s, pass_s = 3.0, 4.0
    for number in range(math.ceil(seconds / every_s)):
        image, words = photos.next(size)
        piece, inside = _piece_around(image, words, rng)
        begin_s, y = number * every_s, size[1] * rng.uniform(0.15, 0.6)

        def place(time_s: float, begin_s: float = begin_s, y: float = y, wide: int = piece.shape[1]) -> Matrix | None:
            share = (time_s - begin_s) / pass_s
            if not 0 <= share <= 1:
                return None
            scale = 0.8 + 0.7 * share
            return scaling(scale, size[0] - share * (size[0] + wide * 1.5), y + size[1] * 0.1 * share)

        layers.append(Layer(piece, inside, place))
    return layers


def _backdrop(photos: Photos, size: Size) -> Layer:
    wide: Size = (round(size[0] * MARGIN), round(size[1] * MARGIN))
    image, words = photos.next(wide)
    return Layer(image, words, _resting(scaling(1, -(wide[0] - size[0]) / 2, -(wide[1] - size[1]) / 2)))


def _passer_by(size: Size, rng: np.random.Generator, seconds: float) -> Layer:
    width, height = size[0] // 9, round(size[1] * 0.8)
    cloth = cv2.GaussianBlur(rng.integers(20, 90, (height, width, 3), dtype=np.uint8), (0, 0), 6).astype(np.uint8)
    crossing_s = min(5.0, seconds)

    def place(time_s: float) -> Matrix | None:
        share = (time_s - (seconds - crossing_s) / 2) / crossing_s
        return scaling(1, share * (size[0] + width) - width, size[1] - height) if 0 <= share <= 1 else None

    return Layer(cloth, (), place)


def _resting(there: Matrix) -> Callable[[float], Matrix | None]:
    return lambda _time_s: there


def _seen_through(layer: Layer, camera: Callable[[float], Matrix]) -> Layer:
    def place(time_s: float) -> Matrix | None:
        there = layer.place(time_s)
        return None if there is None else camera(time_s) @ there

    return replace(layer, place=place)


def _straightened(image: Image, polygon: Polygon, height: int) -> Image | None:
    """A word's own picture, upright and of a height; None where it is too small or too wide to be shown so."""
    (ax, ay), (bx, by), _, (dx, dy) = polygon
    wide, high = math.dist((ax, ay), (bx, by)), math.dist((ax, ay), (dx, dy))
    if high < height / 3 or not 0.5 < wide / max(high, 1) < 20:
        return None
    width = round(wide / high * height)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(np.array(polygon, np.float32), corners)
    return cv2.warpPerspective(image, matrix, (width, height), flags=cv2.INTER_AREA).astype(np.uint8)


def _piece_around(image: Image, words: Sequence[Word], rng: np.random.Generator) -> tuple[Image, tuple[Word, ...]]:
    """A part of a photo around one of its readable words, with the words that lie in it wholly."""
    readable = [word for word in words if not word.ignore and len(word.text) >= 3]
    middle = np.mean(readable[int(rng.integers(len(readable)))].polygon, axis=0) if readable else [0, 0]
    height, width = image.shape[:2]
    wide, high = width * 2 // 5, height * 2 // 5
    x = int(np.clip(middle[0] - wide / 2, 0, width - wide))
    y = int(np.clip(middle[1] - high / 2, 0, height - high))
    inside = []
    for word in words:
        corners = np.array(word.polygon) - [x, y]
        within = (corners >= 0).all() and (corners <= [wide, high]).all()
        touches = cv2.intersectConvexConvex(corners.astype(np.float32), outline_of(wide, high).astype(np.float32))[0]
        if within or touches > 0:
            # What the cut runs through can be read in part at most.
            shown = clip_polygon(to_polygon(corners), wide, high)
            inside.append(word._replace(polygon=shown, ignore=word.ignore or not within))
    return image[y : y + high, x : x + wide].copy(), tuple(inside)


def _is_readable(region: dict[str, Any]) -> bool:
    return not region["ignore"] and len(region["text"]) >= 3


KINDS: dict[str, Callable[[Photos, Size, np.random.Generator, float], list[Layer]]] = {
    "still": still,
    "handheld": handheld,
    "pan": pan,
    "ticker": ticker,
    "slides": slides,
    "traffic": traffic,
}
