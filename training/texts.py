"""What is written on the things that a camera sees: words in every case, numbers, codes, times, prices, and lines."""

from __future__ import annotations

import string
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from numpy.random import Generator

from ocrstream.errors import SourceError
from ocrstream.models.crnn.charset import normalise
from training.letters import base_letter, capital, is_marked, lower, upper
from training.word_lists import WORD_LISTS, is_held_out, read_word_lists

_ENGLISH = ("american-english", "british-english", "words")
_CURRENCIES = "$€£¥€₺"
_AFTER = ("zł", "Kč", "Ft", "lei", "kr", "TL", "din", "€")
_ENDINGS = (".com", ".org", ".net", ".co.uk", ".fr", ".de", ".info", ".sg", ".pl", ".cz", ".hu", ".ro", ".eu")
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
LINES_SHARE = 0.25
"""Share of texts that hold spaces. At 0.14 spaces beside a number were lost in tilted and in drawn text."""

_QUOTES = ("„”", "„“", "«»", "»«", "\u201a\u2018", "\u2039\u203a", "\u203a\u2039")
# fmt: off
_SHORT = ("a", "the", "of", "to", "in", "is", "on", "it", "by", "or", "and", "for", "I", "no", "we", "at", "as", "&")
# fmt: on
_GLUE = ("&", "-", "\u2013", "/", "•", "|", "+")
_SEEN, _PLAIN, _ANY, _MARKED, _BY_LETTER = 0.2, 0.45, 0.57, 0.75, 0.93
"""How words are shared out, added up: of the labels, English, of any list, with an accent by list, by letter."""

_OF_A_LETTER = 3000

Item = TypeVar("Item")


class Texts:
    """Writes one text after the other.

    Args:
        charset: the characters that a text may have.
        labels: texts of the training set, whose words are what is really on signs.
        word_lists: folders of word lists, see `training.word_lists`.

    Raises:
        SourceError: there is no word list in the folders.
    """

    def __init__(self, charset: str, labels: Sequence[str], word_lists: Path | Sequence[Path] = WORD_LISTS) -> None:
        known = frozenset(charset)
        folders = (word_lists,) if isinstance(word_lists, Path) else tuple(word_lists)
        self._all = [character for character in charset if character != " "]
        self._forms: dict[str, list[str]] = defaultdict(list)
        for character in filter(is_marked, charset):
            self._forms[base_letter(character)].append(character)
        lists = read_word_lists(folders, known)
        if not lists:
            raise SourceError(
                f"no word list in {', '.join(map(str, folders))}: install the packages wamerican and wfrench, or name "
                "a folder"
            )
        lists = {name: [word for word in words if not is_held_out(word)] or words for name, words in lists.items()}
        self._lists = [words for name, words in lists.items() if name not in _ENGLISH] or list(lists.values())
        self._english = [word for name, words in lists.items() if name in _ENGLISH for word in words]
        self._english = self._english or self._lists[0]
        marked = [[word for word in words if any(map(is_marked, word))] for words in self._lists]
        self._marked = [words for words in marked if words] or self._lists
        self._by_letter = _by_letter(self._marked)
        self._seen = [word for label in labels for word in label.split()] or self._english

    def text(self, rng: Generator) -> str:
        """A word, or (one in four) a line of several."""
        if rng.random() > LINES_SHARE:
            return self.word(rng)
        # Half of them of two: what a detector takes for one word is most often two that stand close, one a number.
        count = 2 if rng.random() < 0.5 else int(rng.integers(3, 6))
        words = [self._plain(rng) if rng.random() < 0.65 else self.word(rng) for _ in range(count)]
        if rng.random() < 0.15:
            words[int(rng.integers(0, len(words)))] = str(rng.choice(_GLUE))
        case = rng.random()
        line = " ".join(words)
        if case < 0.5:
            line = " ".join(upper(word) if case < 0.35 else capital(word) for word in words)
        return normalise(line)[:40].strip()

    def sentence(self, rng: Generator, count: int) -> list[str]:
        """Words of running text: mostly lower case, a capital first, with punctuation, numbers and short words."""
        words = [self._of_running_text(rng) for _ in range(count)]
        if rng.random() < 0.8:
            words[0] = capital(words[0])
        return words if rng.random() < 0.85 else [upper(word) for word in words]

    def _of_running_text(self, rng: Generator) -> str:
        kind = rng.random()
        if kind < 0.6:
            word = self._plain(rng).lower()
        elif kind < 0.78:
            word = str(rng.choice(_SHORT))
        elif kind < 0.86:
            word = capital(self._plain(rng))
        elif kind < 0.89:
            word = str(rng.integers(0, 10))
        else:
            word = self.word(rng).replace(" ", "")
        return word + (str(rng.choice(list(",.;:?!"))) if rng.random() < 0.1 else "")

    def word(self, rng: Generator) -> str:
        """One word, number, code, or what else stands between two spaces."""
        kind = rng.random()
        if kind < 0.58:
            return self._cased(self._plain(rng), rng)
        if kind < 0.67:
            return self._punctuated(self._cased(self._plain(rng), rng), rng)
        if kind < 0.83:
            return self._number(rng)
        if kind < 0.88:
            return self._code(rng)
        if kind < 0.91:
            return self._address(rng)
        if kind < 0.95:
            return "".join(rng.choice(list(string.ascii_letters), int(rng.integers(1, 8))))
        return "".join(rng.choice(self._all, int(rng.integers(1, 7))))

    def _plain(self, rng: Generator) -> str:
        kind = rng.random()
        if kind < _PLAIN:
            word = _one(self._seen if kind < _SEEN else self._english, rng)
            return word.removesuffix("'s") if rng.random() < 0.9 else word
        if kind < _MARKED:
            return _one(_one(self._lists if kind < _ANY else self._marked, rng), rng)
        if kind < _BY_LETTER and self._by_letter:
            return _one(_one(self._by_letter, rng), rng)
        return self._with_marks(_one(self._english, rng), rng)

    def _with_marks(self, word: str, rng: Generator) -> str:
        """Accents where no language has them: a letter is to be known by its look, not by its word alone."""
        changed = [
            _one(self._forms[letter], rng) if letter in self._forms and rng.random() < 0.25 else letter
            for letter in (word if rng.random() < 0.6 else word.upper())
        ]
        return "".join(changed)

    @staticmethod
    def _cased(word: str, rng: Generator) -> str:
        kind = rng.random()
        if kind < 0.42:
            return upper(word.replace("ß", "ẞ") if rng.random() < 0.5 else word)
        return capital(word) if kind < 0.68 else lower(word) if kind < 0.92 else word

    @staticmethod
    def _punctuated(word: str, rng: Generator) -> str:
        kind = int(rng.integers(0, 14))
        if kind < 5:
            return word + ".,:!)"[kind]
        quotes = _QUOTES[int(rng.integers(0, len(_QUOTES)))]
        usual = (f"({word})", f'"{word}"', f"{word}'s", f"“{word}”", f"({word}", f"„{word}", f"{word}?", f"{word}-")
        return (*usual, quotes[0] + word + quotes[1])[kind - 5]

    @staticmethod
    def _number(rng: Generator) -> str:
        def digits(least: int, most: int) -> str:
            return "".join(rng.choice(list(string.digits), int(rng.integers(least, most + 1))))

        price = f"{rng.integers(0, 1000)}{rng.choice(['.', ','])}{digits(2, 2)}"
        currency = str(rng.choice(list(_CURRENCIES)))
        choices = (
            digits(1, 4),
            digits(1, 4),
            digits(2, 8),
            price,
            currency + price,
            price + currency,
            f"{price} {currency}",
            f"{price} {rng.choice(_AFTER)}",
            f"{digits(1, 3)}{rng.choice([' m²', ' km²', ' m³', 'm²', 'm³', '½', '/²', 'º', 'ª'])}",
            f"{rng.choice(['№ ', '№', '±', 'Nº '])}{digits(1, 3)}",
            f"{rng.integers(0, 24)}:{rng.integers(0, 60):02d}",
            f"{rng.integers(1, 13)}{rng.choice(['am', 'pm', 'AM', 'PM', 'h'])}",
            f"{rng.integers(1, 32):02d}/{rng.integers(1, 13):02d}/{rng.integers(1950, 2035)}",
            f"{rng.integers(1, 32)} {rng.choice(_MONTHS)} {rng.integers(1950, 2035)}",
            f"{digits(2, 4)}-{digits(2, 4)}{rng.choice(['', '-' + digits(2, 4)])}",
            f"+{digits(2, 2)} {digits(3, 4)} {digits(3, 4)}",
            f"{rng.integers(0, 101)}%",
            f"#{digits(1, 2)}-{digits(2, 3)}",
            str(rng.integers(1900, 2040)),
        )
        return str(choices[int(rng.integers(0, len(choices)))])

    @staticmethod
    def _code(rng: Generator) -> str:
        pattern = str(
            rng.choice(["LLDDDD", "LLDDLLL", "LD", "LLD", "DDL", "LDDD", "L-DDD", "LLL-DDDD", "DLLLDDD", "LD-DD"])
        )
        return "".join(
            str(rng.choice(list(string.ascii_uppercase if kind == "L" else string.digits))) if kind in "LD" else kind
            for kind in pattern
        )

    def _address(self, rng: Generator) -> str:
        name = "".join(
            character for character in self._plain(rng).lower() if character.isascii() and character.isalnum()
        )
        kind = rng.random()
        ending = str(rng.choice(_ENDINGS))
        return f"www.{name}{ending}" if kind < 0.6 else f"{name}{ending}" if kind < 0.8 else f"info@{name}{ending}"


def _one(options: Sequence[Item], rng: Generator) -> Item:
    return options[int(rng.integers(0, len(options)))]


def _by_letter(lists: Sequence[Sequence[str]]) -> list[list[str]]:
    """Words for each letter beyond a to z, so that rare letters come as often as usual ones."""
    found: dict[str, list[str]] = defaultdict(list)
    # By turns from all lists, as many lists as there are share a letter.
    for place in range(max((len(words) for words in lists), default=0)):
        for words in lists:
            if place < len(words):
                for letter in {lower(character) for character in words[place] if is_marked(character)}:
                    if len(found[letter]) < _OF_A_LETTER:
                        found[letter].append(words[place])
    return list(found.values())
