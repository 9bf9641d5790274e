"""What is written on the things that a camera sees: words in every case, numbers, codes, times, prices, and lines."""

from __future__ import annotations

import string
from collections.abc import Sequence
from pathlib import Path

from numpy.random import Generator

from ocrstream.errors import SourceError
from ocrstream.models.crnn.charset import normalise

WORD_LISTS = Path("/usr/share/dict")

_ENGLISH = ("american-english", "british-english", "words")
_CURRENCIES = "$€£¥"
_ENDINGS = (".com", ".org", ".net", ".co.uk", ".fr", ".de", ".info", ".sg")
_MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
LINES_SHARE = 0.25
"""Share of texts that hold spaces. At 0.14 spaces beside a number were lost in tilted and in drawn text."""

_SHORT = (
    "a",
    "the",
    "of",
    "to",
    "in",
    "is",
    "on",
    "it",
    "by",
    "or",
    "and",
    "for",
    "I",
    "no",
    "we",
    "at",
    "as",
    "&",
    "-",
)
_GLUE = ("&", "-", "\u2013", "/", "•", "|", "+")


class Texts:
    """Writes one text after the other.

    Args:
        charset: the characters that a text may have.
        labels: texts of the training set, whose words are what is really on signs.
        word_lists: a folder of word lists, one word a line.

    Raises:
        SourceError: there is no word list in the folder.
    """

    def __init__(self, charset: str, labels: Sequence[str], word_lists: Path = WORD_LISTS) -> None:
        known = frozenset(charset)
        self._all = [character for character in charset if character != " "]
        self._english: list[str] = []
        self._other: list[str] = []
        for path in sorted({path.resolve() for path in word_lists.glob("*") if path.is_file()}):
            if path.name.startswith("README"):
                continue
            words = [normalise(line) for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
            words = [word for word in words if 0 < len(word) <= 18 and known.issuperset(word)]
            (self._english if path.name in _ENGLISH else self._other).extend(words)
        if not self._english and not self._other:
            raise SourceError(
                f"no word list in {word_lists}: install the packages wamerican and wfrench, or name a folder"
            )
        self._english = self._english or self._other
        self._other = self._other or self._english
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
        line = line.upper() if case < 0.35 else line.title() if case < 0.5 else line
        return normalise(line)[:40].strip()

    def sentence(self, rng: Generator, count: int) -> list[str]:
        """Words of running text: mostly lower case, a capital first, with punctuation, numbers and short words."""
        words = []
        for _ in range(count):
            kind = rng.random()
            word = (
                self._plain(rng).lower()
                if kind < 0.6
                else str(rng.choice(_SHORT))
                if kind < 0.78
                else self._plain(rng).capitalize()
                if kind < 0.86
                else str(rng.integers(0, 10))
                if kind < 0.89
                else self.word(rng).replace(" ", "")
            )
            words.append(word + (str(rng.choice(list(",.;:?!"))) if rng.random() < 0.1 else ""))
        words[0] = words[0][:1].upper() + words[0][1:] if rng.random() < 0.8 else words[0]
        return words if rng.random() < 0.85 else [word.upper() if "ß" not in word else word for word in words]

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
        source = self._seen if kind < 0.25 else self._english if kind < 0.8 else self._other
        word = source[int(rng.integers(0, len(source)))]
        return word.removesuffix("'s") if rng.random() < 0.9 else word

    @staticmethod
    def _cased(word: str, rng: Generator) -> str:
        kind = rng.random()
        if kind < 0.42:
            return word.upper() if "ß" not in word else word
        return word.capitalize() if kind < 0.68 else word.lower() if kind < 0.92 else word

    @staticmethod
    def _punctuated(word: str, rng: Generator) -> str:
        kind = int(rng.integers(0, 10))
        if kind < 5:
            return word + ".,:!)"[kind]
        return (f"({word})", f'"{word}"', f"{word}'s", f"“{word}”", f"({word}")[kind - 5]

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
