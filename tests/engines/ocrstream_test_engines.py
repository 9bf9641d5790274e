"""Engines that read patterns instead of letters, exactly and in milliseconds, installed as a third party's would be.

`make_picture` draws lines of text as blocks of black and white cells; these engines read them back, also after JPEG or
video compression and resizing, as long as a cell keeps about three pixels::

    picture = make_picture([("Gate B12", (40, 30, 240, 74))])
    load_detector("blocks").detect([picture])       # one line, polygon = that box
    load_recognizer("plain").read([crop])           # "Gate B12", confidence 0.95

=========  ==================================================================
detector   what it does
=========  ==================================================================
blocks     finds the blocks, in reading order, score 0.9
=========  ==================================================================

==========  =================================================================
recogniser  what it does
==========  =================================================================
plain       reads a block; what is no block reads as an empty text
shout       the same in upper case and with "!": another engine for a replay
poison      the same, but raises RuntimeError for a text with "poison" in it
slow        the same, but waits until `GATE` is opened
==========  =================================================================

pytest finds this folder through ``pythonpath`` in ``pyproject.toml``; a test that starts processes gives them
``process_environment()``.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ocrstream.geometry import Box, box_polygon
from ocrstream.messages import EngineInfo
from ocrstream.models import NO_MARGIN, EngineOptions, Reading, TextLine
from ocrstream.picture import Image

BACKGROUND = 230
MIN_CELL_PX = 3
ROWS = 11
"""A block's cells from top to bottom: border, a row that alternates, eight bits of a byte, border."""

SCORE = 0.9
CONFIDENCE = 0.95


class Gate:
    """What the recogniser ``slow`` waits for; ``entered`` tells that somebody waits."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.opened = threading.Event()

    def reset(self) -> None:
        """Close it again, for the next test."""
        self.entered.clear()
        self.opened.clear()


GATE = Gate()


def process_environment() -> dict[str, str]:
    """This process's environment, in which child processes find these engines too."""
    paths = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def make_picture(lines: Sequence[tuple[str, Box]], size_wh: tuple[int, int] = (640, 360)) -> Image:
    """A light picture with each text as a block that fills its box.

    Args:
        lines: the texts and where they are, in whole pixels; boxes must not touch.
        size_wh: the picture's width and height in pixels.

    Raises:
        ValueError: a box is outside, or too small for its text (3 pixels a cell: 33 pixels high, 3 * (bytes + 2) wide).
    """
    width_px, height_px = size_wh
    picture = np.full((height_px, width_px, 3), BACKGROUND, dtype=np.uint8)
    for text, (left, top, right, bottom) in lines:
        cells = _encode(text)
        x0, y0, x1, y1 = round(left), round(top), round(right), round(bottom)
        need_w, need_h = (MIN_CELL_PX * cells.shape[1], MIN_CELL_PX * cells.shape[0])
        if x1 - x0 < need_w or y1 - y0 < need_h or min(x0, y0) < 0 or x1 > width_px or y1 > height_px:
            raise ValueError(f"{text!r} needs a box of {need_w}x{need_h} pixels inside {size_wh}, got {x0, y0, x1, y1}")
        block = cv2.resize(cells, (x1 - x0, y1 - y0), interpolation=cv2.INTER_NEAREST)
        picture[y0:y1, x0:x1] = block[:, :, None]
    return picture


class BlocksDetector:
    """Finds the blocks of `make_picture`."""

    def __init__(self, options: EngineOptions) -> None:
        self.info = EngineInfo("blocks", "b10c5b10c5b1")
        self.margin = NO_MARGIN

    def detect(self, pictures: Sequence[Image]) -> list[list[TextLine]]:
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: Image) -> list[TextLine]:
        dark = (cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY) < BACKGROUND // 2).astype(np.uint8)
        contours, _ = cv2.findContours(dark, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
        boxes = [(y, x, h, w) for x, y, w, h in map(cv2.boundingRect, contours) if h >= ROWS and w >= 2]
        return [TextLine(box_polygon(x, y, x + w, y + h), SCORE) for y, x, h, w in sorted(boxes)]


class PlainRecognizer:
    """Reads a block as it is."""

    NAME = "plain"

    def __init__(self, options: EngineOptions) -> None:
        self.info = EngineInfo(self.NAME, f"{self.NAME.encode().hex():0<12}"[:12])

    def read(self, crops: Sequence[Image]) -> list[Reading]:
        texts = [self.say(_decode(crop)) for crop in crops]
        return [Reading(text, CONFIDENCE if text else 0.0) for text in texts]

    def say(self, text: str) -> str:
        return text


class ShoutRecognizer(PlainRecognizer):
    """Reads a block in upper case."""

    NAME = "shout"

    def say(self, text: str) -> str:
        return f"{text.upper()}!" if text else ""


class PoisonRecognizer(PlainRecognizer):
    """Breaks on some crops, whatever else is in the batch."""

    NAME = "poison"

    def say(self, text: str) -> str:
        if "poison" in text:
            raise RuntimeError(f"cannot digest {text!r}")
        return text


class SlowRecognizer(PlainRecognizer):
    """Reads nothing before `GATE` is opened."""

    NAME = "slow"

    def read(self, crops: Sequence[Image]) -> list[Reading]:
        GATE.entered.set()
        if not GATE.opened.wait(timeout=60):
            raise TimeoutError("nobody opened the gate of the recogniser slow")
        return super().read(crops)


def _encode(text: str) -> Image:
    """``(ROWS, bytes + 2) uint8`` cells, 0 or 255: a column a byte, most significant bit on top."""
    data = np.frombuffer(text.encode(), dtype=np.uint8)
    cells = np.zeros((ROWS, len(data) + 2), dtype=np.uint8)
    cells[1, 1:-1:2] = 1
    cells[2:-1, 1:-1] = np.unpackbits(data).reshape(-1, 8).T
    return cells * np.uint8(255)


def _decode(crop: Image) -> str:
    light = cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY) > BACKGROUND // 2 if crop.size else np.zeros((1, 1), dtype=bool)
    height_px, width_px = light.shape
    ys = ((np.arange(ROWS) + 0.5) * height_px / ROWS).astype(int)
    edges = np.flatnonzero(np.diff(light[ys[1]].astype(np.int8)))
    if len(edges) < 2:
        return ""
    # From the alternating row's first edge to its last: the cells' width to a fraction of a pixel.
    columns = round(width_px * (len(edges) - 1) / float(edges[-1] - edges[0]))
    xs = ((np.arange(1, columns - 1) + 0.5) * width_px / columns).astype(int)
    return np.packbits(light[np.ix_(ys[2:-1], xs)].T.ravel()).tobytes().decode(errors="replace")
