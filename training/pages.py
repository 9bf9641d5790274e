"""Pages, slides, screens, tables, forms and subtitles drawn as whole scenes, each word with its outline as a label.

A street photo has few words, far apart; a page has lines of small ones whose letters stand on one baseline. Fonts
write here as they do on a screen: at their own size, spacing and kerning, hinted to pixels. What the words stand in is
in `training.layouts`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ocrstream.models.crnn.charset import LATIN
from ocrstream.models.ctpn.looking import SEEN_AT
from ocrstream.picture import Image
from training.augmentation import compressed
from training.folders import Region
from training.layouts import lay_out
from training.synthesis import find_fonts
from training.texts import Texts
from training.writing import Font, Page, Pens

HELD_OUT = 8
"""Every so-many-th font writes no page in training: `training.page_reading` judges with these."""


class PagePainter:
    """Draws pages.

    Args:
        texts: what is written.
        fonts: of `training.synthesis.find_fonts`.
    """

    def __init__(self, texts: Texts, fonts: Sequence[Font]) -> None:
        self._texts = texts
        self._pens = Pens(fonts)

    @classmethod
    def with_fonts(cls, folder: Path, labels: Sequence[str], cache: Path) -> PagePainter:
        """Words from the lists that are installed and from the labels, in the fonts below a folder.

        Raises:
            SourceError: there is no font, or no word list.
        """
        fonts = find_fonts(folder, LATIN, cache)
        learnt = [font for number, font in enumerate(fonts) if number % HELD_OUT] or fonts
        return cls(Texts(LATIN, labels), learnt)

    def paint(self, backdrop: Image, regions: Sequence[Region], random: Generator) -> tuple[Image, list[Region]]:
        """A page, and its texts.

        Args:
            backdrop: a scene of a photo, ``(S, S, 3) uint8 BGR``; stays as it is.
            regions: its texts.
            random: decides everything.

        Returns:
            ``(S, S, 3) uint8 BGR``, and the texts in its pixels. Of the backdrop's those that are still to be seen.
        """
        side = backdrop.shape[0]
        zoom = _zoom(random)
        inner = math.ceil(side / zoom)
        over_photo = random.random() < 0.15
        if over_photo:
            small = cv2.resize(backdrop, (inner, inner), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
            scale = np.float32(inner / side)
            page = Page(small, [Region(region.quad * scale, region.text, region.ignore) for region in regions])
        else:
            page = Page(_ground(inner, backdrop, random))
        lay_out(page, self._texts, self._pens, random, over_photo)
        return _seen(page, side, zoom, random)


def _zoom(random: Generator) -> float:
    """Pixels of the network's input a pixel of the page."""
    kind = random.random()
    closest, first = SEEN_AT
    # And as a camera before a screen or a page sees them.
    return closest if kind < 0.3 else first if kind < 0.55 else float(np.exp(random.uniform(np.log(0.4), np.log(2.0))))


def _ground(side: int, photo: Image, random: Generator) -> Image:
    """What a page is written on: plain, shaded, or a photo out of focus in which nothing can be read."""
    kind = random.random()
    if kind < 0.4:
        colour = np.full(3, random.uniform(225, 255)) + random.normal(0, 4, 3)
    elif kind < 0.6:
        colour = np.full(3, random.uniform(0, 50)) + random.normal(0, 8, 3)
    else:
        colour = random.uniform(0, 255, 3)
    ground: NDArray[np.float32] = np.broadcast_to(colour, (side, side, 3)).astype(np.float32)
    if kind >= 0.75:
        ends = random.uniform(-60, 60, (2, 3))
        steps = np.linspace(0, 1, side, dtype=np.float32)
        ground = ground + (steps[:, None, None] * ends[0] + steps[None, :, None] * ends[1]).astype(np.float32)
    if kind >= 0.88:
        blurred = cv2.GaussianBlur(cv2.resize(photo, (side, side)), (0, 0), random.uniform(8, 20))
        share = random.uniform(0.4, 1.0)
        ground = (ground * (1 - share) + blurred * share).astype(np.float32)
    if random.random() < 0.15:
        ground = ground + random.normal(0, random.uniform(1, 5), (side, side, 1)).astype(np.float32)
    return np.clip(ground, 0, 255).astype(np.uint8)


def _seen(page: Page, side: int, zoom: float, random: Generator) -> tuple[Image, list[Region]]:
    """A page as it is captured: straight from the screen, or by a camera before it, a little turned."""
    scale = side / page.width_px
    way = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    picture = cv2.resize(page.picture, (side, side), interpolation=way).astype(np.uint8, copy=False)
    matrix = np.diag([scale, scale, 1.0])
    if zoom not in SEEN_AT and random.random() < 0.6:
        corners = np.array([(0, 0), (side, 0), (side, side), (0, side)], dtype=np.float32)
        moved = corners + random.normal(0, 0.015 * side, (4, 2)).astype(np.float32)
        angle = random.normal(0, 0.05)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]], dtype=np.float32)
        turned = ((moved - side / 2) @ turn.T + side / 2).astype(np.float32)
        before = cv2.getPerspectiveTransform(corners, turned)
        matrix = before @ matrix
        # From pixel to pixel's middles, as a resize does.
        half = np.array([[1, 0, 0.5], [0, 1, 0.5], [0, 0, 1]])
        picture = cv2.warpPerspective(
            picture, np.linalg.inv(half) @ before @ half, (side, side), borderMode=cv2.BORDER_REPLICATE
        ).astype(np.uint8, copy=False)
    if random.random() < 0.35:
        picture = compressed(picture, int(random.integers(30, 95)))
    moved_regions = [
        Region(cv2.perspectiveTransform(region.quad[None], matrix)[0].astype(np.float32), region.text, region.ignore)
        for region in page.regions
    ]
    return picture, moved_regions
