"""Signs drawn into photos where there is no text yet: rows of words, each with its outline as a label."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.models.crnn.charset import LATIN
from ocrstream.picture import Image
from training.folders import Region
from training.synthesis import Renderer, find_fonts
from training.texts import Texts

Ink = NDArray[np.uint8]

POOL = 4000
"""Words drawn once and used again and again, at other sizes, colours and places."""

TRIES = 12
"""How often a free place is looked for."""


class SignPainter:
    """Draws signs.

    Args:
        words: texts with how much ink there is, ``(h, w) uint8``, cut to the text.
    """

    def __init__(self, words: Sequence[tuple[str, Ink]]) -> None:
        self._words = words

    @classmethod
    def with_fonts(cls, fonts: Path, labels: Sequence[str], cache: Path, seed: int) -> SignPainter:
        """Words from the lists that are installed and from the labels, in every font below a folder.

        Args:
            fonts: the folder.
            labels: texts of the training set.
            cache: where the list of fonts is kept.
            seed: of everything random.

        Raises:
            SourceError: there is no font, or no word list.
        """
        rng = np.random.default_rng(seed)
        renderer = Renderer(Texts(LATIN, labels), find_fonts(fonts, LATIN, cache), [])
        words: list[tuple[str, Ink]] = []
        while len(words) < POOL:
            text, ink = renderer.ink(rng)
            if " " not in text and min(ink.shape) >= 8:
                words.append((text, ink))
        return cls(words)

    def paint(
        self, picture: Image, regions: Sequence[Region], random: np.random.Generator
    ) -> tuple[Image, list[Region]]:
        """A picture with signs on it, and the regions they add.

        Args:
            picture: ``(H, W, 3) uint8 BGR``; stays as it is.
            regions: its texts, which no sign covers.
            random: decides everything.
        """
        painted = picture.copy()
        taken = np.zeros(picture.shape[:2], dtype=np.uint8)
        for region in regions:
            cv2.fillPoly(taken, [np.round(region.quad).astype(np.int32)], (1,))
        added: list[Region] = []
        for _ in range(int(random.integers(1, 4))):
            ink, words = self._sign(random)
            place = self._place(ink.shape, taken, random)
            if place is None:
                continue
            size = (picture.shape[1], picture.shape[0])
            board = cv2.warpAffine(np.ones(ink.shape, dtype=np.uint8), place, size) > 0
            taken[board] = 1
            letters = cv2.warpAffine(ink, place, size, flags=cv2.INTER_AREA).astype(np.uint8, copy=False)
            _colour(painted, letters, board, random)
            for text, quad in words:
                added.append(Region(cv2.transform(quad[None], place)[0].astype(np.float32), text, False))
        return painted, added

    def _sign(self, random: np.random.Generator) -> tuple[Ink, list[tuple[str, NDArray[np.float32]]]]:
        """One to three rows of one to four words, all of one height: ink with a margin, and each word's corners."""
        height = 48
        rows, words, y = [], [], height // 3
        space, leading = round(height * random.uniform(0.25, 0.6)), round(height * random.uniform(1.15, 1.7))
        for _ in range(int(random.integers(1, 4))):
            x, row = height // 3, []
            for _ in range(int(random.integers(1, 5))):
                text, ink = self._words[int(random.integers(len(self._words)))]
                width = max(4, round(ink.shape[1] * height / ink.shape[0]))
                if x + width > 12 * height:
                    break
                row.append((x, cv2.resize(ink, (width, height), interpolation=cv2.INTER_AREA)))
                corners = [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]
                words.append((text, np.array(corners, dtype=np.float32)))
                x += width + space
            rows.append((y, row))
            y += leading
        extent = max((x + word.shape[1] for _, row in rows for x, word in row), default=height) + height // 3
        canvas = np.zeros((y + height // 3, extent), dtype=np.uint8)
        for y, row in rows:
            for x, word in row:
                canvas[y : y + height, x : x + word.shape[1]] = word
        return canvas, words

    @staticmethod
    def _place(
        shape: tuple[int, ...], taken: NDArray[np.uint8], random: np.random.Generator
    ) -> NDArray[np.float64] | None:
        """A sign's way into the picture, ``(2, 3)``; none where no free place was found."""
        for _ in range(TRIES):
            scale = float(np.exp(random.uniform(np.log(9), np.log(60)))) / 48
            angle = random.normal(0, 0.08) if random.random() < 0.8 else random.uniform(-0.6, 0.6)
            shear = random.normal(0, 0.1)
            turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
            linear = turn @ np.array([[1, shear], [0, 1]]) * scale
            middle = random.uniform(0.1, 0.9, 2) * (taken.shape[1], taken.shape[0])
            place = np.concatenate([linear, (middle - linear @ (np.array([shape[1], shape[0]]) / 2))[:, None]], axis=1)
            where = cv2.warpAffine(np.ones(shape[:2], dtype=np.uint8), place, (taken.shape[1], taken.shape[0]))
            if where.any() and not taken[where > 0].any():
                return place
        return None


def _colour(picture: Image, ink: Ink, inside: NDArray[np.bool_], random: np.random.Generator) -> None:
    """Paint letters, sometimes on a board, in a colour that can be told from what is behind."""
    if random.random() < 0.5:
        board = random.uniform(0, 255, 3)
        strength = random.uniform(0.6, 1.0)
        picture[inside] = (picture[inside] * (1 - strength) + board * strength).astype(np.uint8)
    behind = picture[inside].mean(axis=0)
    contrast = random.uniform(40, 200) * (1 if behind.mean() < 128 else -1)
    colour = np.clip(behind + contrast + random.normal(0, 30, 3), 0, 255)
    share = (ink.astype(np.float32) / 255 * random.uniform(0.7, 1.0))[..., None]
    picture[:] = (picture * (1 - share) + colour * share).astype(np.uint8)
