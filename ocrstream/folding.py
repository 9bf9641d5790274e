"""How text is made comparable: one tokeniser and one folding for both stores, for queries and for highlights.

A text becomes tokens: runs of letters and digits, in small letters, without accents. What a recogniser confuses looks
the same afterwards (0 and O, 1 and l and I and |, 5 and S, rn and m, vv and w), so that *B0ARD1NG* is found by
*boarding*. Scripts written without spaces give one token a character, so that a word of theirs is found as a phrase.

Two-letter confusions are folded by taking the single letter apart (m becomes rn): folding a beginning of a word then
always gives a beginning of the folded word, which is what makes ``prefix*`` work.
"""

from __future__ import annotations

import functools
import unicodedata
from typing import NamedTuple

FOLDING_VERSION = 2
"""Changes whenever the same text would give other tokens: what a store has folded before must then be folded again."""

MAX_TOKEN_LENGTH = 100
"""Longer runs are cut into several tokens; Elasticsearch would cut them too, at another place."""

_CONFUSED = str.maketrans({"0": "o", "1": "l", "i": "l", "\u0131": "l", "|": "l", "5": "s", "m": "rn", "w": "vv"})
_LETTERS_WITHOUT_DECOMPOSITION = str.maketrans(
    {"ł": "l", "ø": "o", "đ": "d", "ð": "d", "ħ": "h", "ŧ": "t", "æ": "ae", "œ": "oe", "þ": "th", "ŋ": "n"}
)
# Thai and Lao, Myanmar, Hangul letters, Khmer, CJK radicals to kana and bopomofo, Han, Hangul, rare Han.
_SPACELESS = (
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1100, 0x11FF),
    (0x1780, 0x17FF),
    (0x2E80, 0x2FDF),
    (0x3005, 0x3007),
    (0x3021, 0x3029),
    (0x3040, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xA960, 0xA97F),
    (0xAC00, 0xD7FF),
    (0x20000, 0x3FFFF),
)


class Token(NamedTuple):
    """One searchable piece of a text.

    Attributes:
        folded: what is compared.
        exact: the same letters in small letters only, accents and confusions kept: what ranks higher.
        start: where it begins in the text.
        end: where it ends, exclusive.
    """

    folded: str
    exact: str
    start: int
    end: int


def fold(text: str) -> tuple[Token, ...]:
    """The tokens of a text, in order; any string is fine, also one with lone surrogates or control characters."""
    # A sign is read again and again; what is long is rarely the same twice and would fill the memory.
    return _fold_remembered(text) if len(text) <= 200 else _fold(text)


def folded_text(text: str) -> str:
    """A text's folded tokens with single spaces between them: what the stores index."""
    return " ".join(token.folded for token in fold(text))


def are_alike(text: str, other: str) -> bool:
    """Whether two texts are the same when folded, spaces aside: what differs then is what a recogniser confuses."""
    return folded_letters(text) == folded_letters(other)


def folded_letters(text: str) -> str:
    """What is the same of all texts that are alike."""
    # What has no letter and no digit folds to nothing.
    return "".join(token.folded for token in fold(text)) or text


_GAP, _WORD, _SINGLE, _MARK = range(4)


class _Characters(dict[str, tuple[int, str, str]]):
    """What becomes of a character: its kind, its folded and its exact form; worked out when it is first met."""

    def __missing__(self, character: str) -> tuple[int, str, str]:
        self[character] = found = _character(character)
        return found


def _character(character: str) -> tuple[int, str, str]:
    if character == "|":
        return _WORD, "l", "|"
    small = unicodedata.normalize("NFKD", unicodedata.normalize("NFKD", character).casefold())
    category = unicodedata.category(character)
    if category == "Cf" and character != "\u200b":  # soft hyphens and joiners sit inside words
        return _MARK, "", ""
    letters = "".join(c for c in small if _is_letter(c))
    if not letters:
        is_mark = category.startswith("M") and bool(small)
        return (_MARK, "", unicodedata.normalize("NFKC", character)) if is_mark else (_GAP, "", "")
    exact = unicodedata.normalize("NFC", character.casefold())
    if any(_is_spaceless(c) for c in letters):
        return _SINGLE, unicodedata.normalize("NFC", letters), exact
    letters = "".join(str(unicodedata.decimal(c, c)) for c in letters)
    return _WORD, letters.translate(_LETTERS_WITHOUT_DECOMPOSITION).translate(_CONFUSED), exact


def _is_letter(character: str) -> bool:
    if character.isalnum():
        return True
    # Vowel signs of Indian scripts are marks that make another word; accents are marks that do not.
    is_sign = unicodedata.category(character) in ("Mn", "Mc") and not unicodedata.combining(character)
    return is_sign and not _is_spaceless(character) and not 0xFE00 <= ord(character) <= 0xFE0F


def _is_spaceless(character: str) -> bool:
    code = ord(character)
    return code >= 0x0E00 and any(first <= code <= last for first, last in _SPACELESS)


_CHARACTERS = _Characters()


def _fold(text: str) -> tuple[Token, ...]:
    tokens: list[Token] = []
    folded, exact, start, end = "", "", 0, 0
    for position, character in enumerate(text):
        kind, character_folded, character_exact = _CHARACTERS[character]
        if kind == _WORD:
            if len(folded) >= MAX_TOKEN_LENGTH:
                _add(tokens, folded, exact, start, end)
                folded = exact = ""
            if not folded:
                start = position
            folded, exact, end = folded + character_folded, exact + character_exact, position + 1
        elif kind == _MARK:
            exact, end = (exact + character_exact, position + 1) if folded else (exact, end)
        else:
            _add(tokens, folded, exact, start, end)
            folded = exact = ""
            if kind == _SINGLE:
                _add(tokens, character_folded, character_exact, position, position + 1)
    _add(tokens, folded, exact, start, end)
    return tuple(tokens)


_fold_remembered = functools.lru_cache(maxsize=20_000)(_fold)


def _add(tokens: list[Token], folded: str, exact: str, start: int, end: int) -> None:
    # Bars alone are a separator on a sign, not letters.
    if folded and exact.strip("|"):
        tokens.append(Token(folded, exact if exact.isascii() else unicodedata.normalize("NFC", exact), start, end))
