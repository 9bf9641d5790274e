"""Pictures of texts: hundreds of fonts on pieces of photos, with outlines, shadows, curves and odd spacing.

Only what a camera's bad sight would not do is done here; that is `training.augmentation`, at each visit anew.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from ocrstream.errors import SourceError
from training.letters import base_letter
from training.words import Sample

Grey = NDArray[np.uint8]
Levels = NDArray[np.floating[Any]]

FONTS = Path("/usr/share/fonts")

log = logging.getLogger(__name__)

FONT_LIST = "fonts.json"
"""The list of fonts that were found, in the cache of a training."""

Font = tuple[str, frozenset[str]]
"""A font's path, and the characters that it has."""

_NEEDED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789.-")
_UNASSIGNED = "\uffff"


FONTS_A_WORD = 500
"""Progress is told after so many fonts."""


def find_fonts(folder: Path, charset: str, cache: Path) -> list[Font]:
    """The fonts below a folder that can write Latin, each look once, with the characters that each has.

    Raises:
        SourceError: there is none.
    """
    kept = cache / FONT_LIST
    listed = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
    asked = {"folder": str(folder.resolve()), "charset": charset}
    if {name: listed.get(name) for name in asked} != asked:
        log.info("looking at the fonts below %s, which takes minutes where there are thousands", folder)
        listed = {**asked, "fonts": _look_at_fonts(folder, charset)}
        if not listed["fonts"]:
            raise SourceError(
                f"no font with Latin letters below {folder}: install Debian's fonts-* packages, or name a folder"
            )
        cache.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(listed), encoding="utf-8")
    found = listed["fonts"]
    return [(path, frozenset(characters)) for path, characters in found]


def _look_at_fonts(folder: Path, charset: str) -> list[tuple[str, str]]:
    looks: set[bytes] = set()
    found = []
    paths = sorted([*folder.rglob("*.ttf"), *folder.rglob("*.otf"), *folder.rglob("*.TTF"), *folder.rglob("*.OTF")])
    for number, path in enumerate(paths, 1):
        if number % FONTS_A_WORD == 0:
            log.info("%d of %d fonts", number, len(paths))
        try:
            font = ImageFont.truetype(str(path), 24)
            missing = _shape(font, _UNASSIGNED)
            shapes = {character: _shape(font, character) for character in charset if character != " "}
        except (OSError, ValueError, ZeroDivisionError):
            continue
        characters = {character for character, shape in shapes.items() if shape not in (missing, b"")}
        characters -= {character for character in characters if _looks_plain(character, shapes)}
        look = b"".join(shapes.get(character, b"") for character in "Hamburg25")
        distinct = len({shapes.get(character) for character in _NEEDED}) >= len(_NEEDED) - 28
        if characters >= _NEEDED and distinct and look not in looks:
            looks.add(look)
            found.append((str(path), "".join(sorted(characters | {" "}))))
    return found


def _looks_plain(character: str, shapes: dict[str, bytes]) -> bool:
    """Whether a font draws a letter without its accent, as some do that only fill the place."""
    plain = base_letter(character)
    # A font of capitals draws the i without a dot like the one that has one.
    return plain != character and character != "\u0131" and shapes[character] == shapes.get(plain)


def _shape(font: ImageFont.FreeTypeFont, character: str) -> bytes:
    mask = font.getmask(character)
    return bytes(mask.size[0] % 256 for _ in "x") + bytes(mask) if any(mask.size) else b""


class Written(Protocol):
    """Gives one text after the other."""

    def text(self, rng: Generator) -> str:
        """The next one, of a charset's characters."""


class Renderer:
    """Draws texts.

    Args:
        texts: what is written, such as `training.texts.Texts`.
        fonts: of `find_fonts`.
        backgrounds: pieces of photos without text, ``(H, W) uint8``; may be empty.
    """

    def __init__(self, texts: Written, fonts: Sequence[Font], backgrounds: Sequence[Grey]) -> None:
        self._texts = texts
        self._fonts = fonts
        self._backgrounds = backgrounds
        self._loaded: dict[tuple[int, int], ImageFont.FreeTypeFont] = {}

    def sample(self, rng: Generator) -> Sample:
        """A text drawn with a margin around it."""
        text, index = self._text_and_font(rng)
        ink = self._ink(text, index, rng)
        height, width = ink.shape
        margin = math.ceil(0.3 * height)
        ink = np.pad(ink, margin)
        quad = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float32) + margin
        # Boxes drawn by hand or found by a detector are seldom tight.
        left, top, right, bottom = rng.uniform(0, 0.13, 4) * height
        quad += np.array([(-left, -top), (right, -top), (right, bottom), (-left, bottom)], dtype=np.float32)
        ink, quad = self._bent(ink, quad, rng)
        return Sample(self._painted(ink, rng), quad, text)

    def ink(self, rng: Generator) -> tuple[str, Grey]:
        """A text, and how much ink there is, ``(H, W) uint8``, cut to it: for who paints it elsewhere."""
        text, index = self._text_and_font(rng)
        return text, self._ink(text, index, rng)

    def _text_and_font(self, rng: Generator) -> tuple[str, int]:
        while True:
            text = self._texts.text(rng)
            # Fonts with all letters are fewer: rare letters are to come as often as they are written.
            for _ in range(8):
                index = int(rng.integers(0, len(self._fonts)))
                if text and self._fonts[index][1].issuperset(text):
                    return text, index

    def _font(self, index: int, size: int) -> ImageFont.FreeTypeFont:
        key = (index, size)
        if key not in self._loaded:
            if len(self._loaded) > 400:
                self._loaded.clear()
            self._loaded[key] = ImageFont.truetype(self._fonts[index][0], size)
        return self._loaded[key]

    def _ink(self, text: str, index: int, rng: Generator) -> Grey:
        """How much ink there is, ``(H, W) uint8``, cut to the text with up to a little room."""
        size = int(rng.choice([28, 36, 44]))
        font = self._font(index, size)
        ascent, descent = font.getmetrics()
        # An accent on a capital stands out above what a font calls its ascent.
        room = size // 2
        spacing = float(rng.normal(0, 0.05)) if rng.random() < 0.25 else 0.0
        spacing = spacing if rng.random() < 0.8 else float(rng.uniform(0, 0.4))
        if spacing:
            # Letters that stand apart leave their spaces as narrow as a printer's, or widen them as well.
            tight = rng.random() < 0.5
            advances = [
                font.getlength(character) + (0 if tight and character == " " else spacing * size) for character in text
            ]
            canvas = Image.new("L", (math.ceil(sum(map(abs, advances))) + 2 * size, ascent + descent + 2 * room), 0)
            draw = ImageDraw.Draw(canvas)
            x = float(size)
            for character, advance in zip(text, advances, strict=True):
                draw.text((x, room), character, 255, font)
                x += max(advance, 1)
        else:
            canvas = Image.new("L", (math.ceil(font.getlength(text)) + 2 * size, ascent + descent + 2 * room), 0)
            ImageDraw.Draw(canvas).text((size, room), text, 255, font)
        ink = np.asarray(canvas)
        rows, columns = np.flatnonzero(ink.max(axis=1) > 60), np.flatnonzero(ink.max(axis=0) > 60)
        if not len(rows):
            return np.zeros((8, 8), dtype=np.uint8)
        top, bottom = int(rows[0]), int(rows[-1]) + 1
        if rng.random() < 0.25:
            # Annotators often box a word from ascender to descender whether it has them or not.
            top, bottom = min(top, room + ascent // 5), max(bottom, room + ascent + descent // 2)
        return ink[top:bottom, int(columns[0]) : int(columns[-1]) + 1]

    @staticmethod
    def _bent(ink: Grey, quad: NDArray[np.float32], rng: Generator) -> tuple[Grey, NDArray[np.float32]]:
        """Sometimes along an arc, sometimes in perspective, sometimes a little turned."""
        kind = rng.random()
        height, width = ink.shape
        if kind < 0.1 and width > 2 * height:
            rise = float(rng.uniform(-0.35, 0.35)) * height
            x = np.linspace(-1, 1, width, dtype=np.float32)
            pad = math.ceil(abs(rise))
            padded = np.pad(ink, ((pad, pad), (0, 0)))
            rows, columns = np.indices(padded.shape, dtype=np.float32)
            bow: NDArray[np.float32] = (rows + rise * (1 - x**2)).astype(np.float32)
            along: NDArray[np.float32] = np.asarray(columns, dtype=np.float32)
            bent = cv2.remap(padded, along, bow, cv2.INTER_LINEAR)
            moved = quad + np.array([(0, pad)], dtype=np.float32)
            moved[:2, 1] -= max(rise, 0)
            moved[2:, 1] -= min(rise, 0)
            return bent.astype(np.uint8, copy=False), moved
        if kind < 0.4:
            corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float32)
            moved = corners + rng.normal(0, 0.07 * height, (4, 2)).astype(np.float32)
            transform = cv2.getPerspectiveTransform(corners, moved)
            warped = cv2.warpPerspective(ink, transform, (width, height), flags=cv2.INTER_LINEAR)
            followed = cv2.perspectiveTransform(quad[None], transform)[0].astype(np.float32)
            # The box around it, as a detector of upright lines gives; or the tilted one, as labelled by hand.
            if rng.random() < 0.5:
                (x0, y0), (x1, y1) = followed.min(axis=0), followed.max(axis=0)
                followed = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float32)
            return warped.astype(np.uint8, copy=False), followed
        return ink, quad

    def _painted(self, ink: Grey, rng: Generator) -> Grey:
        ground: Levels = self._ground(ink.shape[0], ink.shape[1], rng)
        level = float(ground.mean())
        contrast = float(rng.uniform(25, 200)) if rng.random() < 0.6 else float(rng.uniform(70, 220))
        up = level + contrast <= 255 and (level - contrast < 0 or rng.random() < 0.5)
        colour = float(np.clip(level + contrast if up else level - contrast, 0, 255))
        alpha: Levels = ink.astype(np.float32) / 255
        if rng.random() < 0.15:
            size = int(rng.integers(2, 4))
            kernel = np.ones((size, size), dtype=np.uint8)
            thinner = cv2.dilate(ink, kernel) if rng.random() < 0.6 else cv2.erode(ink, kernel)
            alpha = thinner.astype(np.float32) / 255
        edge = rng.random()
        if edge < 0.12:
            around = cv2.dilate(ink, np.ones((5, 5), dtype=np.uint8)).astype(np.float32) / 255
            ground = ground + (float(rng.uniform(0, 255)) - ground) * around
        elif edge < 0.25:
            dx, dy = rng.integers(-4, 5, 2).tolist()
            shadow = cv2.GaussianBlur(np.roll(alpha, (dy, dx), (0, 1)), (0, 0), float(rng.uniform(0.5, 2.5)))
            ground = ground + (float(rng.choice([0, 20, 235])) - ground) * shadow * float(rng.uniform(0.3, 0.9))
        elif edge < 0.29:
            # Only its outline is drawn.
            outline = cv2.morphologyEx(ink, cv2.MORPH_GRADIENT, np.ones((3, 3), dtype=np.uint8))
            alpha = outline.astype(np.float32) / 255
        if rng.random() < 0.2:
            alpha = alpha * float(rng.uniform(0.5, 0.95))
        paint: Levels = np.full_like(alpha, colour)
        if rng.random() < 0.2:
            paint = (
                paint + np.linspace(rng.uniform(-40, 40), rng.uniform(-40, 40), ink.shape[0], dtype=np.float32)[:, None]
            )
        return np.clip(ground + (paint - ground) * alpha, 0, 255).astype(np.uint8)

    def _ground(self, height: int, width: int, rng: Generator) -> Levels:
        """Flat, shaded, or a piece of a photo."""
        kind = rng.random()
        if kind < 0.55 and self._backgrounds:
            piece = self._backgrounds[int(rng.integers(0, len(self._backgrounds)))]
            zoom = float(rng.uniform(0.4, 2.0))
            take_h = max(min(int(height * zoom), piece.shape[0]), 2)
            take_w = max(min(int(width * zoom), piece.shape[1]), 2)
            y = int(rng.integers(0, piece.shape[0] - take_h + 1))
            x = int(rng.integers(0, piece.shape[1] - take_w + 1))
            photo = cv2.resize(piece[y : y + take_h, x : x + take_w], (width, height)).astype(np.float32)
            mean = float(photo.mean())
            calm = float(rng.uniform(0.15, 1.0))
            return (photo - mean) * np.float32(calm) + np.float32(mean)
        ground: Levels = np.full((height, width), rng.uniform(0, 255), dtype=np.float32)
        if kind > 0.8:
            across = np.linspace(0, rng.uniform(-60, 60), width, dtype=np.float32)[None, :]
            down = np.linspace(0, rng.uniform(-60, 60), height, dtype=np.float32)[:, None]
            ground = ground + across + down
        return ground
