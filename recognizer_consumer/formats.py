"""Formats that a user has given for the texts of a source: platform ``B12``, clock ``12:30:41``, number plate.

A text that has none of its source's formats, but hardly differs from one that has, was probably misread: ``8l2`` where
a letter and two digits are to stand is ``B12``. Nothing is invented: what is put in its place was read there too, in
another reading, or is what recognisers confuse with what was read (`ocrstream.folding`, `LOOKALIKES`, and `GAP`). Which
formats a source has is told by `ocrstream.by_source`.
"""

from __future__ import annotations

import functools
import heapq
import logging
import string
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from ocrstream.by_source import Pattern
from ocrstream.folding import folded_text

log = logging.getLogger(__name__)

LOOKALIKES = ("8B", "2Z", "6G", "0D", "0Q")
"""Pairs that are confused now and then; a search keeps them apart, a format may tell which of them it is."""

GAP = ("", *"-:.")
"""A space may be none, and a mark that was not seen."""

CONFUSED_COST, LOOKALIKE_COST = 0.5, 0.7
"""What it costs to take a character for one it is confused with, often or now and then, and its share in its column on
top of that."""

LONGEST_MATCH_S = 0.05
"""A regular expression that takes longer for a text may take for ever: it does not hold then."""

MOST_TRIES = 1000
"""Combinations of edits that are tried: up to three of the two dozen that a text of eight characters has."""


class Edit(NamedTuple):
    """One way to read a text otherwise: the pieces from ``start`` to before ``end`` become ``letters``."""

    cost: float
    start: int
    end: int
    letters: str


def confusions(pieces: Sequence[str]) -> list[Edit]:
    """What recognisers confuse with a text's characters.

    Args:
        pieces: one character each, or none.
    """
    filled = [place for place, piece in enumerate(pieces) if piece]
    spans = [(place, place) for place in filled] + list(pairwise(filled))
    return [
        Edit(cost, first, last + 1, other)
        for first, last in spans
        for cost, other in _confused_with("".join(pieces[first : last + 1]))
    ]


def nearest_match(pieces: Sequence[str], edits: Sequence[Edit], patterns: Sequence[Pattern]) -> str | None:
    """The text that has one of the formats and takes the fewest, cheapest edits; None where none is near.

    No more than half of the characters are edited, rounded up: beyond that it is another text.

    Args:
        pieces: the text, one character or none each.
        edits: what may be read otherwise, in any order.
        patterns: the formats.
    """
    in_order = sorted(edits)
    places = tuple((edit.start, edit.end, edit.letters) for edit in in_order)
    costs = tuple(round(edit.cost, 1) for edit in in_order)
    try:
        return _nearest_match(tuple(pieces), places, costs, tuple(patterns))
    except TimeoutError:
        return None


@functools.lru_cache(maxsize=1024)
def _nearest_match(
    pieces: tuple[str, ...],
    edits: tuple[tuple[int, int, str], ...],
    costs: tuple[float, ...],
    patterns: tuple[Pattern, ...],
) -> str | None:
    most_edits = (sum(map(bool, pieces)) + 1) // 2
    # Each subset of the edits once, the cheapest first: of a subset follow the one with the next edit in place of its
    # last one, and the one with the next edit as well.
    waiting: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    for _ in range(MOST_TRIES):
        if not waiting:
            break
        cost, chosen = heapq.heappop(waiting)
        text = _edited(pieces, [edits[index] for index in chosen])
        if text is not None and any(_holds(pattern, text) for pattern in patterns):
            return text
        following = chosen[-1] + 1 if chosen else 0
        if following < len(edits):
            if len(chosen) < most_edits:
                heapq.heappush(waiting, (cost + costs[following], (*chosen, following)))
            if chosen:
                heapq.heappush(waiting, (cost + costs[following] - costs[chosen[-1]], (*chosen[:-1], following)))
    return None


def _holds(pattern: Pattern, text: str) -> bool:
    try:
        return pattern.fullmatch(text, timeout=LONGEST_MATCH_S) is not None
    except TimeoutError:
        _warn_of(pattern)
        raise


@functools.cache
def _warn_of(pattern: Pattern) -> None:
    """Tell, once, of a format that cannot be used."""
    log.warning(
        "the format %r takes too long for what is read and is passed over there: write it without repetitions inside "
        "repetitions",
        pattern.pattern,
    )


def _edited(pieces: Sequence[str], edits: Sequence[tuple[int, int, str]]) -> str | None:
    """The text with some edits made; None where they overlap."""
    parts, behind = [], 0
    for start, end, letters in sorted(edits):
        if start < behind:
            return None
        parts += [*pieces[behind:start], letters]
        behind = end
    return "".join([*parts, *pieces[behind:]])


def _confused_with(letters: str) -> list[tuple[float, str]]:
    if letters == " ":
        return [(CONFUSED_COST, other) for other in GAP]
    same = [(CONFUSED_COST, other) for other in _ALIKE.get(_folded(letters), ())]
    same += [(LOOKALIKE_COST, other) for other in _LOOKALIKE.get(letters, ())]
    return [(cost, other) for cost, other in same if other != letters]


def _folded(letters: str) -> str:
    # A bar alone is no letter to the folding, one inside a word is.
    return folded_text(f"x{letters}")[1:]


def _alike() -> dict[str, tuple[str, ...]]:
    found = defaultdict(list)
    for letter in f"{string.digits}{string.ascii_letters}|":
        found[_folded(letter)].append(letter)
        # What is folded to two letters (m to rn) may have been read as them.
        if len(_folded(letter)) > 1:
            found[_folded(letter)].append(_folded(letter))
    return {folded: tuple(dict.fromkeys(letters)) for folded, letters in found.items()}


_ALIKE = _alike()
_LOOKALIKE = {
    letter: tuple(other for pair in LOOKALIKES if letter in pair for other in pair) for letter in "".join(LOOKALIKES)
}
