"""How two texts stand to each other, beyond being alike when folded (`ocrstream.folding.are_alike`)."""

from __future__ import annotations

from rapidfuzz.distance import Levenshtein

from ocrstream.folding import folded_text

UNLIKE = 0.5
"""Texts whose edit distance is a larger share of the longer one are different texts and not one text misread."""

PART_OFF = 0.2
"""A part of a text is it up to so many edits a character."""

MOST_LEFT, LONG_ENOUGH = 0.6, 5
"""Of a text that something hides in part so much is left, and so many characters."""


def is_unlike(text: str, other: str) -> bool:
    """Whether two texts are different ones, rather than one misread."""
    return Levenshtein.normalized_distance(folded_text(text), folded_text(other)) > UNLIKE


def is_part(short: str, long: str, torn: int = 0) -> bool:
    """Whether a text is another one's beginning or end, whatever so many letters say at the side where it goes on.

    Args:
        short: the part, folded.
        long: the whole, folded.
        torn: letters of the part that may be anything.
    """
    length = max(len(short) - torn, 0)
    parts = (short[:length], long[:length]), (short[len(short) - length :], long[len(long) - length :])
    return min(Levenshtein.distance(*part) for part in parts) <= PART_OFF * len(short)


def lacks_letters(text: str, whole: str) -> bool:
    """Whether a text is another one without some letters that stand together, and no digit, of which most are left.

    Something may stand before them. Texts in which a letter counts, such as ``B12`` and ``12``, are short.
    """
    text, whole = text.casefold(), whole.casefold()
    count = len(whole) - len(text)
    if count <= 0 or len(text) < MOST_LEFT * len(whole) or len(text) < LONG_ENOUGH:
        return False
    begin = next((place for place, (a, b) in enumerate(zip(text, whole, strict=False)) if a != b), len(text))
    return whole[begin + count :] == text[begin:] and whole[begin : begin + count].replace(" ", "").isalpha()
