"""How pages are laid out: running text, tables, screens, slides, subtitles, large letters, and characters alone."""

from __future__ import annotations

import string
from collections.abc import Callable

import numpy as np
from numpy.random import Generator

from training.texts import Texts
from training.writing import Colour, Page, Pen, Pens, as_colour, ink_on

SMALL_PX, LARGE_PX = 9.0, 34.0
"""Sizes of what one reads: most are between 10 and 28 pixels."""


class _Hand:
    """What a layout needs to write: texts, pens, chance, and a page."""

    def __init__(self, page: Page, texts: Texts, pens: Pens, random: Generator) -> None:
        self.page, self.texts, self.random = page, texts, random
        self._pens = pens
        self._font = pens.choose(random)
        self._other = pens.choose(random)

    def size(self, low: float = SMALL_PX, high: float = LARGE_PX) -> float:
        """A size, as often between 10 and 20 as between 20 and 40."""
        return float(np.exp(self.random.uniform(np.log(low), np.log(high))))

    def pen(self, size_px: float, ground: Colour | None = None, other: bool = False) -> Pen:
        """A pen for a ground; by default for the page's own, as it is at the middle."""
        if ground is None:
            ground = self.page.ground((0, 0, self.page.width_px, self.page.height_px))
        return self._pens.pen(self._other if other else self._font, size_px, ink_on(ground, self.random), self.random)

    def short(self) -> list[str]:
        """What stands in a cell or on a button: a word or two, a number, or one character."""
        kind = self.random.random()
        if kind < 0.2:
            return [self.single()]
        if kind < 0.45:
            return [str(self.random.integers(0, 1000))]
        words = self.texts.word(self.random).split()
        return words + self.texts.word(self.random).split() if kind > 0.85 else words

    def single(self) -> str:
        """One character, a digit more often than a letter."""
        alphabet = string.digits if self.random.random() < 0.6 else string.ascii_uppercase
        return str(self.random.choice(list(alphabet)))

    def chance(self, share: float) -> bool:
        return bool(self.random.random() < share)

    def near(self, colour: Colour, far: float = 40.0) -> Colour:
        """A colour like another one."""
        return as_colour(np.array(colour, dtype=np.float64) + self.random.normal(0, far, 3))


def lay_out(page: Page, texts: Texts, pens: Pens, random: Generator, over_photo: bool) -> None:
    """Write a page full.

    Args:
        page: is written on.
        texts: what is written.
        pens: in what fonts.
        random: decides everything.
        over_photo: its ground is a photo, in which other things are to be seen.
    """
    hand = _Hand(page, texts, pens, random)
    if over_photo:
        (_subtitle if hand.chance(0.7) else _scattered)(hand)
        return
    layouts: tuple[tuple[Callable[[_Hand], None], float], ...] = (
        (_prose, 0.3),
        (_table, 0.22),
        (_screen, 0.2),
        (_slide, 0.08),
        (_large, 0.12),
        (_scattered, 0.08),
    )
    shares = np.array([share for _, share in layouts])
    layouts[int(random.choice(len(layouts), p=shares / shares.sum()))][0](hand)


def _prose(hand: _Hand) -> None:
    """Paragraphs, in one column or two, sometimes justified, with headings here and there."""
    page, random = hand.page, hand.random
    size = hand.size()
    pen, heading = hand.pen(size), hand.pen(size * random.uniform(1.2, 2.2), other=hand.chance(0.5))
    leading, justified = size * random.uniform(1.1, 1.8), hand.chance(0.25)
    two = size < 18 and hand.chance(0.25)
    gutter = size * random.uniform(1.0, 3.0)
    start, width = random.uniform(-0.15, 0.15) * page.width_px, random.uniform(0.5, 1.3) * page.width_px
    columns = [(start, width)] if not two else [(start, width / 2 - gutter), (start + width / 2, width / 2 - gutter)]
    for left, wide in columns:
        y = random.uniform(0.3, 2.0) * size
        while y < page.height_px + size:
            if hand.chance(0.08):
                y += heading.size_px
                page.write(hand.texts.sentence(random, 4), left, y, heading, left + wide)
                y += 1.3 * leading
            words = hand.texts.sentence(random, int(random.integers(12, 30)))
            if hand.chance(0.06):
                words[int(random.integers(len(words)))] = hand.single()
            y = _paragraph(hand, words, left, y, wide, leading, pen, justified)
            y += random.choice([0, leading * 0.6, leading])


def _paragraph(
    hand: _Hand, words: list[str], left: float, y: float, wide: float, leading: float, pen: Pen, justified: bool
) -> float:
    """Words in lines; returns where the next line would stand."""
    line: list[str] = []
    length = 0.0
    for word in [*words, ""]:
        wanted = pen.font.getlength(word)
        if line and (not word or length + wanted > wide):
            gaps = len(line) - 1
            spare = (wide - length + pen.space_px) / gaps if justified and word and gaps else 0.0
            x = left
            for written in line:
                x = hand.page.write([written], x, y, pen) + spare
            line, length, y = [], 0.0, y + leading
        line.append(word)
        length += wanted + pen.space_px
    return y


def _table(hand: _Hand) -> None:
    """A timetable, a form: columns of short texts, numbers and single characters, sometimes with lines between them."""
    page, random = hand.page, hand.random
    size = hand.size(high=28)
    own = page.ground((0, 0, page.width_px, page.height_px))
    pen, row = hand.pen(size), size * random.uniform(1.3, 2.8)
    count = int(random.integers(2, max(3, min(7, int(page.width_px / (3 * size))))))
    edges = np.cumsum(random.uniform(0.4, 1.6, count + 1))
    edges = (edges - edges[0]) / (edges[-1] - edges[0]) * page.width_px * random.uniform(0.8, 1.2)
    edges += random.uniform(-0.1, 0.1) * page.width_px
    kinds = random.integers(0, 5, count)
    aligned = random.choice(3, count, p=[0.5, 0.25, 0.25])
    rules, ruled_down, striped = hand.chance(0.5), hand.chance(0.3), hand.chance(0.25)
    stripe, line = hand.near(own, 12), hand.near(own, 80)
    y = random.uniform(-0.5, 1.0) * row
    head = hand.chance(0.5)
    while y < page.height_px:
        ground = own
        if head:
            ground = as_colour(random.uniform(0, 255, 3))
            page.board((edges[0], y, edges[-1], y + row), ground)
        elif striped and int(y / row) % 2:
            ground = stripe
            page.board((edges[0], y, edges[-1], y + row), ground)
        used = hand.pen(size, ground) if head else pen
        for column, kind in enumerate(kinds):
            if hand.chance(0.1):
                continue
            words = hand.short() if head or kind < 2 else [hand.single()] if kind == 2 else _figures(hand)
            _cell(page, words, (edges[column] + 0.3 * size, edges[column + 1]), y + row / 2, used, int(aligned[column]))
        if rules:
            page.rule((edges[0], y + row), (edges[-1], y + row), line)
        head = False
        y += row + 1
    for edge in edges if ruled_down else ():
        page.rule((edge, 0), (edge, page.height_px), line)


def _figures(hand: _Hand) -> list[str]:
    random = hand.random
    choices = (
        f"{random.integers(0, 24):02d}:{random.integers(0, 60):02d}",
        f"{random.integers(0, 100)}.{random.integers(0, 100):02d}",
        str(random.integers(0, 10)),
        str(random.integers(10, 100)),
        str(random.integers(1000, 100000)),
        f"{random.integers(0, 101)}%",
    )
    return [choices[int(random.integers(len(choices)))]]


def _cell(page: Page, words: list[str], span: tuple[float, float], middle: float, pen: Pen, aligned: int) -> None:
    """Words between two ends: from the left, from the right, or in the middle."""
    left, right = span
    length = sum(pen.font.getlength(word) + pen.space_px for word in words) - pen.space_px
    x = left if aligned == 0 else right - length - 0.2 * pen.size_px if aligned == 1 else (left + right - length) / 2
    page.write(words, max(left, x), middle + 0.35 * pen.size_px, pen, right)


def _screen(hand: _Hand) -> None:
    """Rows of what a program shows: menus, buttons, names with values far from them, keys, lines of text."""
    page, random = hand.page, hand.random
    size = hand.size(high=26)
    own = page.ground((0, 0, page.width_px, page.height_px))
    pen = hand.pen(size)
    y = random.uniform(0.0, 1.0) * size
    while y < page.height_px:
        kind = int(random.integers(6))
        height = size * random.uniform(1.4, 3.0)
        middle = y + height / 2
        if kind == 0:
            bar = hand.near(own, 50)
            page.board((0, y, page.width_px, y + height), bar)
            _spread(hand, middle, hand.pen(size, bar), (1.0, 4.0))
        elif kind == 1:
            _buttons(hand, y, height, size)
        elif kind == 2:
            _cell(page, hand.short(), (0.5 * size, page.width_px * 0.6), middle, pen, 0)
            _cell(page, hand.short(), (page.width_px * 0.6, page.width_px - 0.5 * size), middle, pen, 1)
        elif kind == 3:
            for place in np.arange(random.uniform(0, 2) * size, page.width_px, size * random.uniform(1.5, 5.0)):
                page.write([hand.single()], place, middle + 0.35 * size, pen, page.width_px)
        elif kind == 4:
            big = hand.pen(size * random.uniform(1.2, 2.5), other=hand.chance(0.5))
            height = max(height, 1.5 * big.size_px)
            page.write(hand.texts.sentence(random, 4), size, y + height * 0.5 + 0.35 * big.size_px, big)
        else:
            if hand.chance(0.5):
                page.blob(size, middle, size * random.uniform(0.2, 0.6), hand.near(own, 90), hand.chance(0.5))
            page.write(hand.texts.sentence(random, 12), 2 * size, middle + 0.35 * size, pen, page.width_px)
        y += height + size * random.uniform(0.1, 0.8)


def _spread(hand: _Hand, middle: float, pen: Pen, gaps: tuple[float, float]) -> None:
    """Short texts in a row with wide gaps."""
    x = hand.random.uniform(-1, 1) * pen.size_px
    while x < hand.page.width_px:
        x = hand.page.write(hand.short(), x, middle + 0.35 * pen.size_px, pen)
        x += pen.size_px * hand.random.uniform(*gaps)


def _buttons(hand: _Hand, y: float, height: float, size: float) -> None:
    x = hand.random.uniform(0, 2) * size
    colour = as_colour(hand.random.uniform(0, 255, 3))
    pen = hand.pen(size, colour)
    while x < hand.page.width_px:
        words = hand.short()
        length = sum(pen.font.getlength(word) + pen.space_px for word in words)
        wide = length + size * hand.random.uniform(0.6, 2.5)
        border = hand.near(colour, 80) if hand.chance(0.4) else None
        if hand.page.board((x, y, x + wide, y + height), colour, border):
            _cell(hand.page, words, (x, x + wide), y + height / 2, pen, 2)
        x += wide + size * hand.random.uniform(0.3, 2.0)


def _slide(hand: _Hand) -> None:
    """A title, and points below it."""
    page, random = hand.page, hand.random
    size = hand.size(14, 40)
    pen, title = hand.pen(size), hand.pen(size * random.uniform(1.3, 2.2), other=hand.chance(0.5))
    left = random.uniform(-0.1, 0.2) * page.width_px
    y = random.uniform(0.5, 1.5) * title.size_px
    page.write(hand.texts.sentence(random, 6), left, y, title)
    y += title.size_px * random.uniform(1.0, 2.0)
    bullets, rounded = hand.chance(0.7), hand.chance(0.6)
    while y < page.height_px + size:
        if bullets:
            page.blob(left + size * 0.4, y - 0.3 * size, size * random.uniform(0.12, 0.25), pen.colour, rounded)
        page.write(hand.texts.sentence(random, 10), left + (size if bullets else 0), y, pen)
        y += size * random.uniform(1.3, 2.2)


def _subtitle(hand: _Hand) -> None:
    """One or two lines in the middle, with an outline, a shadow, or on a board."""
    page, random = hand.page, hand.random
    size = hand.size(12, 44)
    count = int(random.integers(1, 3))
    y = random.uniform(0.2, 0.98) * page.height_px - (count - 1) * 1.2 * size
    way = int(random.integers(3))
    for _ in range(count):
        words = hand.texts.sentence(random, int(random.integers(2, 8)))
        trial = hand.pen(size)
        length = sum(trial.font.getlength(word) + trial.space_px for word in words)
        x = (page.width_px - length) / 2 if hand.chance(0.8) else random.uniform(-0.3, 0.3) * page.width_px
        box = (x - 0.4 * size, y - 0.95 * size, x + length + 0.2 * size, y + 0.3 * size)
        if page.taken(box):
            continue
        if way == 0:
            board = as_colour(random.uniform(0, 255, 3) if hand.chance(0.4) else np.full(3, random.uniform(0, 40)))
            page.board(box, board)
            page.write(words, x, y, hand.pen(size, board))
        else:
            light: Colour = (255, 255, 255) if hand.chance(0.7) else (0, 235, 255)
            base = hand.pen(size, (0, 0, 0))
            edge = max(1, round(size / 14)) if way == 1 else 0
            shadow = max(1, round(size / 16)) if way == 2 else 0
            pen = Pen(
                base.font, base.characters, base.size_px, light, edge, (0, 0, 0), shadow, base.space_px + 2 * edge
            )
            page.write(words, x, y, pen)
        y += 1.25 * size


def _large(hand: _Hand) -> None:
    """Letters and words of 50 to 300 pixels, sometimes with small text below."""
    page, random = hand.page, hand.random
    size = hand.size(45, 300)
    y = size * random.uniform(0.6, 1.1)
    while y < page.height_px + 0.3 * size:
        kind = random.random()
        words = (
            [hand.single()]
            if kind < 0.25
            else [str(random.integers(0, 1000))]
            if kind < 0.45
            else [hand.texts.word(random).split()[0][:8]]
            if kind < 0.85
            else hand.texts.sentence(random, 3)
        )
        page.write(words, random.uniform(-0.4, 0.5) * page.width_px, y, hand.pen(size))
        y += size * random.uniform(0.3, 0.5)
        if hand.chance(0.5):
            small = hand.pen(hand.size(), other=True)
            y += 1.2 * small.size_px
            page.write(hand.texts.sentence(random, 8), random.uniform(-0.1, 0.3) * page.width_px, y, small)
        y += size * random.uniform(0.8, 1.1)


def _scattered(hand: _Hand) -> None:
    """Characters and short texts alone, of many sizes."""
    page, random = hand.page, hand.random
    for _ in range(int(random.integers(3, 16))):
        size = hand.size(10, 70)
        x, y = random.uniform(0, page.width_px), random.uniform(size, page.height_px)
        length = 3 * size
        around = (x - size, y - 1.3 * size, x + length, y + 0.6 * size)
        if page.taken(around):
            continue
        words = [hand.single()] if hand.chance(0.6) else hand.short()
        page.write(words, x, y, hand.pen(size, page.ground(around), other=hand.chance(0.5)))
