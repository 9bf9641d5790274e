"""Letters and their forms: the plain letter below an accent, and capitals as the languages write them."""

from __future__ import annotations

import unicodedata

_WITHOUT_DECOMPOSITION = dict(zip("ĐđÐðĦħ\u0131ŁłŊŋØøŦŧÞþẞß", "DdDdHhiLlNnOoTtPpBB", strict=True))
_TURKISH = frozenset("ğĞ\u0131İşŞ")
_TURKISH_CAPITALS, _TURKISH_SMALL = str.maketrans({"i": "İ"}), str.maketrans({"I": "\u0131", "İ": "i"})


def base_letter(character: str) -> str:
    """The plain letter that a letter is a form of, or looks like; the character itself where there is none."""
    plain = _WITHOUT_DECOMPOSITION.get(character) or unicodedata.normalize("NFD", character)[0]
    return plain if plain.isalpha() else character


def is_marked(character: str) -> bool:
    """Whether this is a letter beyond a to z."""
    return character.isalpha() and not character.isascii()


def upper(word: str) -> str:
    """In capitals; a word with a letter that only Turkish has keeps the dot of its i."""
    return (word.translate(_TURKISH_CAPITALS) if _TURKISH & set(word) else word).upper()


def lower(word: str) -> str:
    """In small letters; a word with a letter that only Turkish has keeps its i without a dot."""
    return (word.translate(_TURKISH_SMALL) if _TURKISH & set(word) else word).lower()


def capital(word: str) -> str:
    """With a capital first."""
    head = "İ" if word[:1] == "i" and _TURKISH & set(word) else word[:1].upper()
    return head + lower(word[1:])
