"""Judges engines on drawn pages, size by size: ``python -m training.page_reading --detector NAME --recognizer NAME``.

Street photos say nothing about pages and screens. Here pages of known text are drawn, plain ones, by a seed and in
fonts that `training.pages` holds back from training, and read as ``ocrstream read`` does. ``--detector ctpn:FILE``
judges other weights. A size is a font's: capitals are about 0.7 of it.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.random import Generator

from ocrstream.config import RecognizerSettings
from ocrstream.errors import OcrstreamError
from ocrstream.lines import cut_line, put_together
from ocrstream.models import Detector, EngineOptions, Recognizer
from ocrstream.models.crnn.charset import LATIN
from ocrstream.picture import Image
from training.evaluate import load_engines
from training.folders import Quad
from training.pages import HELD_OUT
from training.protocols import IcdarIou, recall_precision_f
from training.synthesis import FONTS, find_fonts
from training.texts import Texts
from training.word_lists import WORD_LISTS
from training.writing import Font, Page, Pens, plain

SIZES_PX = (12, 14, 18, 24, 48, 100, 200, 300)

FEW_PX = 100
"""From this size on, four times as many pages are drawn."""

PAGE_WH = (1280, 720)

GROUNDS = ((255, 255, 255), (32, 28, 24), (236, 240, 224), (120, 70, 20))
"""Pages' colours in turn, BGR: white, a dark screen, paper, a blue slide."""

INKS = ((0, 0, 0), (230, 230, 230), (60, 40, 40), (255, 255, 255))
"""What is written with on each."""


@dataclass(frozen=True, slots=True)
class DrawnPage:
    """A page and what it says.

    Attributes:
        picture: ``(H, W, 3) uint8 BGR``.
        lines: each line's words.
        places: each word's quadrilateral, line by line.
    """

    picture: Image
    lines: list[list[str]]
    places: list[Quad]


@dataclass(slots=True)
class PageScore:
    """Figures of one size."""

    found: IcdarIou = field(default_factory=IcdarIou)
    lines: int = 0
    lines_right: int = 0
    words: int = 0
    words_read: int = 0
    words_right: int = 0

    def add(self, page: DrawnPage, places: Sequence[Quad], texts: Sequence[str]) -> None:
        """Count one page.

        Args:
            page: what it shows.
            places: the words that were found, the surest first.
            texts: the lines that were read.
        """
        self.found.add(places, page.places, [False] * len(page.places))
        self.lines += len(page.lines)
        self.lines_right += _common([" ".join(line) for line in page.lines], texts)
        wanted, read = [word for line in page.lines for word in line], [word for text in texts for word in text.split()]
        self.words += len(wanted)
        self.words_read += len(read)
        self.words_right += _common(wanted, read)

    def figures(self) -> dict[str, Any]:
        """Words found by IoU, words read, and lines read right to the last character."""
        return {
            "found": self.found.figures(),
            "read": recall_precision_f(self.words_right, self.words, self.words_right, self.words_read),
            "lines": self.lines,
            "lines_right": self.lines_right,
        }


def _common(wanted: Sequence[str], given: Sequence[str]) -> int:
    return (Counter(wanted) & Counter(given)).total()


def draw_page(size_px: int, number: int, texts: Texts, fonts: Sequence[Font], seed: int = 7) -> DrawnPage:
    """A page of lines of one size: running text, and lines with single characters and wide gaps.

    Args:
        size_px: the font's size.
        number: which page; the same number is always the same page.
        texts: what is written.
        fonts: of `training.synthesis.find_fonts`.
        seed: of everything random.
    """
    random = np.random.default_rng((seed, size_px, number))
    width, height = PAGE_WH
    ground = np.full((height, width, 3), GROUNDS[number % len(GROUNDS)], dtype=np.uint8)
    page = Page(ground)
    pen = Pens(fonts).pen(int(random.integers(len(fonts))), size_px, INKS[number % len(INKS)], random)
    lines: list[list[str]] = []
    leading, left = size_px * random.uniform(1.3, 1.8), 20 + 0.3 * size_px
    baseline = 10.0 + size_px
    while baseline + 0.3 * size_px < height:
        before = len(page.regions)
        x = left
        for piece in _pieces(texts, random, most=int(width / (0.8 * size_px))):
            x = page.write(piece, x, baseline, pen, width - 20) + 2 * pen.size_px
        lines.append([region.text for region in page.regions[before:]])
        baseline += leading
    return DrawnPage(page.picture, [line for line in lines if line], [region.quad for region in page.regions])


def _pieces(texts: Texts, random: Generator, most: int) -> list[list[str]]:
    """A line's words; in one of three lines with a digit alone and wide gaps, as on a board of departures."""
    count = int(random.integers(3, 9))
    words = [word for word in texts.sentence(random, 12) if any(map(str.isalnum, word)) and len(word) <= most][:count]
    if random.random() < 0.67 or not words:
        return [words]
    time = f"{random.integers(0, 24):02d}:{random.integers(0, 60):02d}"
    return [[words[0], str(random.integers(0, 10)), *words[1:3]], [time], [str(random.integers(1, 10))]]


def judge(
    detector: Detector, recognizer: Recognizer, pages: Sequence[DrawnPage], min_confidence: float
) -> dict[str, Any]:
    """A pair's figures on pages."""
    score = PageScore()
    for page in pages:
        (found,) = detector.detect([page.picture])
        texts = []
        for line in found:
            crops = cut_line(page.picture, line.polygon, line.words, detector.margin)
            read = put_together(line.polygon, line.words, crops, recognizer.read(crops), min_confidence)
            if read is not None:
                texts.append(read.text)
        surest = sorted(found, key=lambda line: -line.score)
        places = [np.array(place, np.float32) for line in surest for place in line.words or (line.polygon,)]
        score.add(page, places, texts)
    return score.figures()


def main(arguments: Sequence[str] | None = None) -> int:
    """Draw, read, report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.page_reading", description=__doc__)
    parser.add_argument("--detector", action="append", required=True, metavar="NAME", help="repeat it for several")
    parser.add_argument("--recognizer", default="crnn", metavar="NAME")
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES_PX, metavar="PX", help="of the fonts")
    parser.add_argument("--pages", type=int, default=4, help="of each size; of 100 px and more four times as many")
    parser.add_argument("--fonts", type=Path, default=FONTS, help="folder with fonts")
    parser.add_argument("--word-lists", type=Path, action="append", help="folder of word lists; may repeat")
    parser.add_argument("--cache", type=Path, required=True, help="where the training keeps its list of fonts")
    parser.add_argument("--threads", type=int, default=0, help="inference threads; 0 fits them to the cores")
    parser.add_argument("--json", action="store_true", help="everything as one JSON object")
    options = parser.parse_args(arguments)
    try:
        report = _report(options)
    except OcrstreamError as error:
        sys.stderr.write(f"training.page_reading: {error}\n")
        return 2
    sys.stdout.write((json.dumps(report, indent=2) if options.json else _as_text(report)) + "\n")
    return 0


def _report(options: argparse.Namespace) -> dict[str, Any]:
    held = find_fonts(options.fonts, LATIN, options.cache)[::HELD_OUT]
    fonts = plain(held) or held
    texts = Texts(LATIN, [], options.word_lists or WORD_LISTS)
    engines = load_engines(options.detector, [options.recognizer], EngineOptions("cpu", options.threads))
    recognizer = engines.recognizers[options.recognizer]
    report: dict[str, Any] = {name: {} for name in engines.detectors}
    for size in options.sizes:
        # Large letters leave room for a few words only.
        count = options.pages * (4 if size >= FEW_PX else 1)
        pages = [draw_page(size, number, texts, fonts) for number in range(count)]
        for name, detector in engines.detectors.items():
            sys.stderr.write(f"{size} px: {len(pages)} pages with {name}\n")
            report[name][str(size)] = judge(detector, recognizer, pages, RecognizerSettings().min_confidence)
    return report


def _as_text(report: dict[str, Any]) -> str:
    lines = []
    for name, sizes in report.items():
        lines.append(f"{name}\n  px  found R  found P   read R   read P  lines right")
        for size, part in sizes.items():
            found, read = part["found"], part["read"]
            values = (found["recall"], found["precision"], read["recall"], read["precision"])
            shown = " ".join(f"{value:8.3f}" for value in values)
            lines.append(f"{size:>4} {shown}  {part['lines_right']} of {part['lines']}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
