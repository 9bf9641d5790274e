"""Test sets of drawn words and lines, one a word list: ``python -m training.drawn --out DIR --data DIR --cache DIR``.

No photos with labels are at hand for most of Europe's languages. What is drawn here is of words and in fonts that are
never drawn for training (`training.word_lists.is_held_out`, `training.words.held_out`), seen as through a camera.
``LIST_test/gt.tsv`` is what `training.evaluate` reads.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.random import Generator

from ocrstream.errors import SourceError, UserError
from ocrstream.models.crnn.charset import LATIN
from training.augmentation import augment
from training.letters import capital, is_marked, upper
from training.synthesis import FONTS, Font, Grey, Renderer, find_fonts
from training.word_lists import WORD_LISTS, is_held_out, read_word_lists
from training.words import BACKGROUND, held_out, load

STRENGTH = 0.5
"""Of the augmentation: harder than print, and still legible."""

LINES_SHARE = 0.2


class HeldOut:
    """Texts of held-out words, most of them with a letter beyond a to z; the way of `training.texts.Texts`.

    Args:
        words: of one list.
    """

    def __init__(self, words: Sequence[str]) -> None:
        self._words = [word for word in words if is_held_out(word) and len(word) > 1]
        self._marked = [word for word in self._words if any(map(is_marked, word))] or self._words

    def __len__(self) -> int:
        return len(self._words)

    def text(self, rng: Generator) -> str:
        """A word, or a line of two or three."""
        count = int(rng.integers(2, 4)) if rng.random() < LINES_SHARE else 1
        words = [self._word(rng) for _ in range(count)]
        case = rng.random()
        if case < 0.35:
            return " ".join(map(upper, words))
        return " ".join(map(capital, words)) if case < 0.6 else " ".join(words)

    def _word(self, rng: Generator) -> str:
        source = self._marked if rng.random() < 0.8 else self._words
        return source[int(rng.integers(0, len(source)))]


def draw(
    words: Sequence[str],
    count: int,
    fonts: Sequence[Font],
    backgrounds: Sequence[Grey],
    seed: int,
) -> Iterator[tuple[Grey, str]]:
    """Crops of held-out words of a list, and their texts; none where the list has hardly any."""
    texts = HeldOut(words)
    chance = np.random.default_rng(seed)
    renderer = Renderer(texts, fonts, backgrounds)
    drawn = 0
    while len(texts) >= 20 and drawn < count:
        sample = renderer.sample(chance)
        crop = augment(sample, chance, STRENGTH)
        if crop is not None:
            drawn += 1
            yield crop, sample.text


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m training.drawn", description="Draw test sets, one a word list.")
    parser.add_argument("--out", type=Path, required=True, help="folder that the sets are made in")
    parser.add_argument("--data", type=Path, action="append", default=[], help="training data, for its backgrounds")
    parser.add_argument("--cache", type=Path, required=True, help="cache of a training: its list of fonts, its crops")
    parser.add_argument("--count", type=int, default=150, help="crops a set (default: 150)")
    parser.add_argument("--fonts", type=Path, default=FONTS)
    parser.add_argument("--word-lists", type=Path, action="append", help="folder of word lists; may repeat")
    options = parser.parse_args(arguments)
    try:
        fonts = [font for font in find_fonts(options.fonts, LATIN, options.cache) if held_out(Path(font[0]).name)]
        if not fonts:
            raise SourceError("none of these fonts is held out: install more")
        pieces = load(options.data, LATIN, options.cache).train.get(BACKGROUND, []) if options.data else []
        lists = read_word_lists(options.word_lists or WORD_LISTS, frozenset(LATIN))
        for seed, (name, words) in enumerate(sorted(lists.items())):
            crops = list(draw(words, options.count, fonts, [piece.grey for piece in pieces], seed))
            if crops:
                _write(options.out / f"{name}_test", crops)
                print(f"{name}: {len(crops)} crops")
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


def _write(folder: Path, crops: Sequence[tuple[Grey, str]]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (crop, text) in enumerate(crops):
        cv2.imwrite(str(folder / f"{number:04d}.png"), crop)
        lines.append(f"{number:04d}.png\t{text}\n")
    (folder / "gt.tsv").write_text("".join(lines), encoding="utf-8")


if __name__ == "__main__":
    raise SystemExit(main())
