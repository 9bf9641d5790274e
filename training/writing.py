"""Writing on a page: pens of the fonts that are there, and where each word that was written stands."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageDraw, ImageFont

from ocrstream.picture import Image
from training.folders import Region

Colour = tuple[int, int, int]

Font = tuple[str, frozenset[str]]
"""A font file, and the characters that it has."""

PLAIN = ("Liberation", "DejaVu", "Lato", "OpenSans", "Roboto", "Noto", "Carlito", "Inter", "Free", "Ubuntu", "texgyre")
"""In the names of fonts that pages and screens are set in; half of the pages are in one of these."""

MIN_CONTRAST = 45
"""Grey levels between ink and ground at least."""


@dataclass(frozen=True, slots=True)
class Pen:
    """How words are written.

    Attributes:
        font: a font at its size.
        characters: those that it has.
        size_px: its size, the height of a line set solid.
        colour: the letters', BGR.
        stroke_px: how wide their outline is.
        stroke: the outline's colour, BGR.
        shadow_px: how far their shadow lies to the right and below; 0 for none.
        space_px: how wide a space is.
    """

    font: ImageFont.FreeTypeFont
    characters: frozenset[str]
    size_px: float
    colour: Colour
    stroke_px: int = 0
    stroke: Colour = (0, 0, 0)
    shadow_px: int = 0
    space_px: float = 0.0

    def box(self, word: str) -> tuple[float, float, float, float]:
        """A word's left, top, right and bottom from where it begins on the baseline.

        As photos are labelled: to the ink's ends on all sides; but the top is never lower than the capitals', so that
        "on" and "Platform" of one line are about as high.
        """
        left, top, right, bottom = self.font.getbbox(word, anchor="ls")
        capitals = self.font.getbbox("H", anchor="ls")[1]
        return left, min(top, capitals), right, max(bottom, 0)


def plain(fonts: Sequence[Font]) -> list[Font]:
    """Those of the fonts that pages and screens are set in."""
    return [font for font in fonts if Path(font[0]).name.startswith(PLAIN)]


class Page:
    """A page in the making.

    Args:
        ground: what it is written on, ``(H, W, 3) uint8 BGR``.
        regions: the texts that the ground shows already; nothing is written over them.
    """

    def __init__(self, ground: Image, regions: Sequence[Region] = ()) -> None:
        self._image = Pillow.fromarray(ground)
        self._draw = ImageDraw.Draw(self._image)
        self._taken = np.zeros(ground.shape[:2], dtype=np.uint8)
        self.regions = list(regions)
        for region in regions:
            cv2.fillPoly(self._taken, [np.round(region.quad).astype(np.int32)], (1,))
        self.height_px, self.width_px = ground.shape[:2]

    @property
    def picture(self) -> Image:
        """What it looks like so far, ``(H, W, 3) uint8 BGR``."""
        return np.asarray(self._image, dtype=np.uint8)

    def write(self, words: Sequence[str], x: float, baseline: float, pen: Pen, right: float = math.inf) -> float:
        """Write words behind each other, as far as there is room.

        Args:
            words: without spaces; one that the font cannot write is left out.
            x: where the first begins.
            baseline: on which they stand.
            pen: how.
            right: nothing goes beyond this.

        Returns:
            Where the next word would begin.
        """
        for word in words:
            if not word or not pen.characters.issuperset(word):
                continue
            width = pen.font.getlength(word)
            if x + width > right or not self._word(word, round(x), round(baseline), pen):
                break
            x += width + pen.space_px
        return x

    def _word(self, word: str, x: int, y: int, pen: Pen) -> bool:
        """Write one; False where something is there already."""
        left, top, right, bottom = pen.box(word)
        box = (x + left, y + top, x + right, y + bottom)
        if right - left < 1:
            return True
        if box[0] >= self.width_px or box[1] >= self.height_px or box[2] <= 0 or box[3] <= 0:
            return True
        (x0, x1), (y0, y1) = ((max(0, int(low)), math.ceil(high)) for low, high in (box[0::2], box[1::2]))
        if self._taken[y0:y1, x0:x1].any():
            return False
        self._taken[y0:y1, x0:x1] = 1
        if pen.shadow_px:
            self._draw.text((x + pen.shadow_px, y + pen.shadow_px), word, pen.stroke, pen.font, anchor="ls")
        self._draw.text(
            (x, y), word, pen.colour, pen.font, anchor="ls", stroke_width=pen.stroke_px, stroke_fill=pen.stroke
        )
        corners = [(box[0], box[1]), (box[2], box[1]), (box[2], box[3]), (box[0], box[3])]
        self.regions.append(Region(np.array(corners, dtype=np.float32), word, False))
        return True

    def board(self, box: tuple[float, float, float, float], colour: Colour, border: Colour | None = None) -> bool:
        """Fill a rectangle, sometimes with a border; False, and nothing done, where there is text under it."""
        x0, y0, x1, y1 = (round(value) for value in box)
        if x1 <= x0 or y1 <= y0 or self._taken[max(0, y0) : max(0, y1), max(0, x0) : max(0, x1)].any():
            return False
        self._draw.rectangle((x0, y0, x1, y1), colour, border)
        return True

    def blob(self, x: float, y: float, radius: float, colour: Colour, round_: bool) -> None:
        """A bullet, an icon: what is no text."""
        box = (x - radius, y - radius, x + radius, y + radius)
        if not self.taken(box):
            (self._draw.ellipse if round_ else self._draw.rectangle)(box, colour)

    def rule(self, start: tuple[float, float], end: tuple[float, float], colour: Colour, width: int = 1) -> None:
        """A straight line."""
        self._draw.line((*start, *end), colour, width)

    def taken(self, box: tuple[float, float, float, float]) -> bool:
        """Whether there is text in a rectangle already, x0, y0, x1, y1."""
        x0, y0, x1, y1 = (max(0, int(value)) for value in box)
        return bool(self._taken[y0 : y1 + 1, x0 : x1 + 1].any())

    def ground(self, box: tuple[float, float, float, float]) -> Colour:
        """The mean colour of a rectangle, BGR."""
        x0, y0, x1, y1 = (max(0, int(value)) for value in box)
        piece = self.picture[y0 : y1 + 1, x0 : x1 + 1]
        return as_colour(piece.reshape(-1, 3).mean(axis=0) if piece.size else np.full(3, 128.0))


class Pens:
    """Makes pens of the fonts that are there.

    Args:
        fonts: of `training.synthesis.find_fonts`.
    """

    def __init__(self, fonts: Sequence[Font]) -> None:
        self._fonts = fonts
        known = plain(fonts)
        self._plain = [number for number, font in enumerate(fonts) if font in known]
        self._loaded: dict[tuple[int, int], ImageFont.FreeTypeFont] = {}

    def choose(self, random: Generator) -> int:
        """The number of a font."""
        if self._plain and random.random() < 0.5:
            return int(random.choice(self._plain))
        return int(random.integers(len(self._fonts)))

    def pen(self, font: int, size_px: float, colour: Colour, random: Generator) -> Pen:
        """A pen of a font; mostly without outline and shadow."""
        size = max(6, round(size_px))
        key = (font, size)
        if key not in self._loaded:
            if len(self._loaded) > 400:
                self._loaded.clear()
            self._loaded[key] = ImageFont.truetype(self._fonts[font][0], size)
        loaded = self._loaded[key]
        # Some fonts have next to no space.
        space = max(loaded.getlength(" "), 0.2 * size) * (random.uniform(0.9, 1.4) if random.random() < 0.4 else 1.0)
        return Pen(loaded, self._fonts[font][1], size, colour, space_px=space)


def as_colour(values: NDArray[Any]) -> Colour:
    """Three numbers as a colour."""
    blue, green, red = np.clip(values, 0, 255).astype(int).tolist()
    return blue, green, red


def luminance(colour: Colour) -> float:
    """How bright a colour is, 0 to 255."""
    blue, green, red = colour
    return 0.114 * blue + 0.587 * green + 0.299 * red


def ink_on(ground: Colour, random: Generator) -> Colour:
    """A colour that can be told from the ground; mostly a grey, black or white."""
    behind = luminance(ground)
    least = MIN_CONTRAST if random.random() < 0.25 else 110
    for _ in range(20):
        if random.random() < 0.65:
            dark = behind > 128
            grey = random.uniform(0, 90) if dark else random.uniform(165, 255)
            colour = as_colour(np.full(3, grey))
        else:
            colour = as_colour(random.uniform(0, 255, 3))
        if abs(luminance(colour) - behind) >= least:
            return colour
    return (0, 0, 0) if behind > 128 else (255, 255, 255)
