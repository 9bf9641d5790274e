"""What several readings of one text line say together: aligned, voted on character by character.

As in ROVER (Fiscus, A Post-Processing System to Yield Reduced Word Error Rates, 1997): each reading is aligned by edit
distance to the columns that the readings before it made, and gives each column a character, or none. A column says what
has the most weight there, which may be that no character stands in it. A reading can so be right in its beginning and
another one in its end.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ocrstream.by_source import Pattern
from recognizer_consumer.calibration import AS_SAID, Calibration, Evidence, log_odds
from recognizer_consumer.formats import Edit, confusions, nearest_match

LONGEST_TEXT = 500
"""Characters of a reading that are voted on; no engine reads so many in one line, and an alignment's time grows with
the square."""

MOST_LETTERS = 8
"""Different characters that a column remembers; beyond that the one with the least weight is given up."""

OF_READING, OF_CHARACTER = 2.0, 0.5
"""A character's weight is the reading's confidence to the one power times its own to the other: a blurred picture makes
all characters of a reading doubtful, whatever the engine says of each."""

NOTHING = 0.6
"""What a reading without a character in a column weighs there, against a character of the reading's own confidence:
recognisers lose thin and blurred characters more often than they invent some."""

LEAST_WEIGHT = 1e-6
"""A reading of no confidence or from no view still says more than none."""

ROOM = 16
"""Columns that are kept beyond twice the length of the text."""

REMEMBERED = 32
"""Alignments that are kept: a sign gives the same few readings again and again."""


class Voted(NamedTuple):
    """What the readings say together: the text, and how likely it is right, 0 to 1."""

    text: str
    confidence: float


@dataclass(slots=True)
class _Column:
    """One place of the text.

    Attributes:
        letters: the weight of each character that a reading had here.
        filled: of the weight that readings give to an empty column, the part of those that had a character here.
    """

    letters: dict[str, float] = field(default_factory=dict)
    filled: float = 0.0

    def add(self, letter: str, weight: float, nothing: float) -> None:
        self.letters[letter] = self.letters.get(letter, 0.0) + weight
        self.filled += nothing
        if len(self.letters) > MOST_LETTERS:
            weakest = min((other for other in self.letters if other != letter), key=self.letters.__getitem__)
            del self.letters[weakest]


class Consensus:
    """A vote; what it holds is bounded by the length of the texts, however many they are."""

    def __init__(self) -> None:
        self._columns: list[_Column] = []
        self._nothing = 0.0
        """The weight that all readings together give to a column in which none had a character."""
        self._readings = 0
        self._log_odds = 0.0
        """Of all readings, added up."""
        self._places: dict[str, list[int]] = {}
        """For a text that was read: the column of each of its characters."""

    def add(self, text: str, confidence: float, characters: Sequence[float] = (), view: float = 1.0) -> None:
        """Count a reading.

        Args:
            text: what was read.
            confidence: of the whole reading, 0 to 1.
            characters: of each of its characters; empty where the engine does not tell.
            view: how well the line could be seen, 0 to 1.
        """
        text = text[:LONGEST_TEXT]
        sure = characters if len(characters) >= len(text) else [confidence] * len(text)
        of_reading = view * math.pow(max(confidence, 0.0), OF_READING)
        nothing = max(NOTHING * of_reading * math.pow(max(confidence, 0.0), OF_CHARACTER), LEAST_WEIGHT)
        columns = [self._columns[place] for place in self._aligned(text)]
        for column, letter, letter_sure in zip(columns, text, sure, strict=False):
            weight = max(of_reading * math.pow(max(letter_sure, 0.0), OF_CHARACTER), LEAST_WEIGHT)
            column.add(letter, weight, nothing)
        self._nothing += nothing
        self._readings += 1
        self._log_odds += log_odds(confidence)
        if len(self._columns) > ROOM + 2 * len(text):
            voted = sum(map(bool, self._pieces()))
            self._give_up_weakest(ROOM + 2 * max(len(text), voted))

    def voted(self, calibration: Calibration = AS_SAID, patterns: Sequence[Pattern] = ()) -> Voted:
        """The text with the most weight in each column.

        Args:
            calibration: the engine's.
            patterns: formats; where the text has none of them, a near neighbour that has one is preferred.
        """
        pieces = self._pieces()
        text = "".join(pieces)
        if not text:
            return Voted("", 0.0)
        if patterns:
            text = nearest_match(pieces, self._edits(pieces), patterns) or text
        return Voted(text, calibration.probability(self.evidence()))

    def evidence(self) -> Evidence:
        """What tells how likely the voted text is right; at least one reading must have been counted."""
        voted = [(column, piece) for column, piece in zip(self._columns, self._pieces(), strict=True) if piece]
        agreed = sum(self._shares(column)[piece] for column, piece in voted) / len(voted)
        return Evidence(self._log_odds / self._readings, agreed)

    def _pieces(self) -> list[str]:
        """What each column says: a character, or none; where none says anything, the best of them speaks."""
        pieces = [self._best_of(column) for column in self._columns]
        if self._columns and not any(pieces):
            weights = [sum(column.letters.values()) for column in self._columns]
            best = weights.index(max(weights))
            pieces[best] = max(self._columns[best].letters, key=self._columns[best].letters.__getitem__)
        return pieces

    def _best_of(self, column: _Column) -> str:
        """The character with the most weight; the empty string where that is none."""
        # Readings that disagree on a character agree that there is one.
        if sum(column.letters.values()) < self._nothing - column.filled:
            return ""
        return max(column.letters, key=lambda found: (column.letters[found], found))

    def _edits(self, pieces: Sequence[str]) -> list[Edit]:
        """What may be read otherwise: as other readings have it, or as what is confused with it."""
        edits = [
            edit._replace(cost=edit.cost + self._shares(self._columns[edit.start])[pieces[edit.start]])
            for edit in confusions(pieces)
        ]
        for place, (column, piece) in enumerate(zip(self._columns, pieces, strict=True)):
            shares = self._shares(column)
            edits += [
                Edit(math.log(shares[piece] / share), place, place + 1, letter)
                for letter, share in shares.items()
                if letter != piece and share > 0
            ]
        return edits

    def _aligned(self, text: str) -> list[int]:
        """The column of each character, new columns made where there was none."""
        if text not in self._places:
            places = _align(text, [self._shares(column) for column in self._columns])
            if any(place is None for place in places):
                places = self._insert(places)
            if len(self._places) >= REMEMBERED:
                self._places.clear()
            self._places[text] = [place for place in places if place is not None]
        return self._places[text]

    def _insert(self, places: list[int | None]) -> list[int | None]:
        """Make a column for each character that has none; the places of all characters then."""
        columns, found = [], []
        behind = 0
        for place in places:
            if place is not None:
                columns += self._columns[behind:place]
                behind = place + 1
            found.append(len(columns))
            columns.append(_Column() if place is None else self._columns[place])
        self._columns = columns + self._columns[behind:]
        self._places.clear()
        return list(found)

    def _shares(self, column: _Column) -> dict[str, float]:
        """The share of the weight that each character has, and none (the empty string)."""
        nothing = max(self._nothing - column.filled, 0.0)
        total = nothing + sum(column.letters.values())
        return {"": nothing / total, **{letter: weight / total for letter, weight in column.letters.items()}}

    def _give_up_weakest(self, room: int) -> None:
        """Keep so many columns, those with the most weight."""
        if len(self._columns) > room:
            weights = [sum(column.letters.values()) for column in self._columns]
            least = sorted(weights)[len(weights) - room]
            self._columns = [c for c, weight in zip(self._columns, weights, strict=True) if weight >= least][:room]
            self._places.clear()


def _align(text: str, columns: Sequence[Mapping[str, float]]) -> list[int | None]:
    """The column of each character of a text, None where there is none for it, by the least sum of costs.

    A character costs what share of a column says something else; a column without a character, what share has one; a
    character without a column costs 1.

    Args:
        text: ``M`` characters.
        columns: the share of each character in each of ``N`` columns, the empty string's for none.
    """
    skips = np.array([1.0 - column.get("", 0.0) for column in columns])
    skipped = np.concatenate([[0.0], np.cumsum(skips)])
    others = {letter: np.array([1.0 - column.get(letter, 0.0) for column in columns]) for letter in set(text)}
    costs = np.empty((len(text) + 1, len(columns) + 1))
    costs[0] = skipped
    for row, letter in enumerate(text, start=1):
        costs[row] = costs[row - 1] + 1.0
        costs[row, 1:] = np.minimum(costs[row, 1:], costs[row - 1, :-1] + others[letter])
        # A column that is skipped adds to what came before it in the same row.
        costs[row] = skipped + np.minimum.accumulate(costs[row] - skipped)
    return _traced(text, costs, others, skips)


def _traced(
    text: str, costs: NDArray[np.float64], others: Mapping[str, NDArray[np.float64]], skips: NDArray[np.float64]
) -> list[int | None]:
    places: list[int | None] = [None] * len(text)
    row, place = len(text), len(skips)
    while row:
        step = others[text[row - 1]][place - 1] if place else math.inf
        if place and math.isclose(costs[row, place], costs[row - 1, place - 1] + step, abs_tol=1e-9):
            row, place = row - 1, place - 1
            places[row] = place
        elif place and math.isclose(costs[row, place], costs[row, place - 1] + skips[place - 1], abs_tol=1e-9):
            place -= 1
        else:
            row -= 1
    return places
