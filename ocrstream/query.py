"""The query language, one for both stores: words, phrases, exclusions, alternatives, beginnings and near misses.

====================  =================================================================================
``gate b12``          frames that show all these words, anywhere, in any order, on any of their lines
``"gate b12"``        these words one after the other; a phrase may run on from one line to the next
``gate -closed``      ``gate``, and no ``closed``
``gate OR platform``  either; ``OR`` (in capitals) binds looser than words side by side
``a (b OR c)``        parentheses
``board*``            words that begin so
``boarding~``         words that nearly read so: no letter wrong in 1 or 2, one in 3 to 5, two in longer words
====================  =================================================================================

A word that falls into several pieces (``10:30``, ``B-12``, Chinese) is a phrase of them. A word without a letter or
digit (``&``) is ignored beside others. An empty query (or ``*``) finds every frame, and a query that only excludes
(``-closed``) every frame but those; both give the newest first.

`parse` makes the tree, `Query.match` walks it over a frame's lines, and each store translates it into its own terms;
what they find is the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from rapidfuzz.distance import OSA

from ocrstream.errors import QueryError
from ocrstream.folding import Token, fold

MAX_QUERY_LENGTH = 1000
MAX_DEPTH = 20

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Phrase:
    """Tokens one after the other; a plain word is a phrase of one.

    Attributes:
        tokens: folded, as the index holds them.
        exact: the same, unfolded: a frame that holds these ranks higher.
        prefix: whether the last token is only the beginning of one.
        written: as it was typed, for a store that takes text apart in its own way.
    """

    tokens: tuple[str, ...]
    exact: tuple[str, ...]
    prefix: bool = False
    written: str = field(default="", compare=False)


@dataclass(frozen=True, slots=True)
class Fuzzy:
    """A token that may be misread in a few places.

    Attributes:
        token: folded.
        exact: unfolded.
    """

    token: str
    exact: str

    @property
    def max_distance(self) -> int:
        """How many letters may be wrong, missing, too many or swapped with their neighbour."""
        return fuzzy_distance(self.token)


@dataclass(frozen=True, slots=True)
class Not:
    """Frames that do not match."""

    node: Node


@dataclass(frozen=True, slots=True)
class And:
    """Frames that match every part; without parts, every frame."""

    nodes: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Frames that match at least one part."""

    nodes: tuple[Node, ...]


Node = Phrase | Fuzzy | Not | And | Or

EVERYTHING = And(())


def fuzzy_distance(token: str) -> int:
    """The edit distance a fuzzy token allows: Elasticsearch's AUTO."""
    return 0 if len(token) < 3 else 1 if len(token) < 6 else 2


def is_near(token: str, other: str) -> bool:
    """Whether a token of a text is a near miss of a query's; a swap of neighbours counts as one edit."""
    limit = fuzzy_distance(token)
    return OSA.distance(token, other, score_cutoff=limit) <= limit


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed search.

    Attributes:
        text: what was typed.
        root: its tree.
    """

    text: str
    root: Node

    @property
    def is_ranked(self) -> bool:
        """Whether something has to be there; if not (empty, exclusions only), the newest come first."""
        return _asks_for_something(self.root)

    def without_exclusions(self) -> Query:
        """A wider query: what this one finds in some of a frame's lines, the wider one finds in all of them."""
        return Query(self.text, _widened(self.root))

    def match(self, lines: Sequence[str | None]) -> dict[int, tuple[Span, ...]] | None:
        """Which lines of a frame hold what is asked for.

        Args:
            lines: the texts in reading order; None for a line that does not count, over which no phrase runs.

        Returns:
            Index of a line -> spans ``(start, end)`` in it, in order and apart from each other; empty where nothing
            had to be there. None when the lines together do not fit.
        """
        tokens = _tokens_of(lines)
        found = _evaluate(self.root, tokens)
        return None if found is None else _spans(found, tokens)


def parse(text: str) -> Query:
    """Parse what a person typed.

    Raises:
        QueryError: it cannot be understood; the message says what to change.
    """
    if len(text) > MAX_QUERY_LENGTH:
        raise QueryError(f"the search is {len(text)} characters long; at most {MAX_QUERY_LENGTH} are understood")
    parser = _Parser(text)
    root = parser.alternatives(depth=0)
    if root is None:
        if parser.ignored and set(parser.ignored) != {"*"}:
            raise QueryError(f"there is no letter or digit to search for in {text.strip()!r}")
        root = EVERYTHING
    return Query(text, root)


_QUOTES = '"“”„‟«»'
_LEXER = re.compile(
    rf"""\s* (?:
        (?P<minus> -+ (?=[^\s-]) )
      | (?P<quote> [{_QUOTES}] (?P<phrase> [^{_QUOTES}]*) (?P<closing> [{_QUOTES}])? )
      | (?P<open> \( )
      | (?P<close> \) )
      | (?P<word> [^\s)]+ )
    )""",
    re.VERBOSE,
)


class _Parser:
    """Recursive descent: alternatives -> conjunction -> term. A part that asks for nothing is None."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._position = 0
        self.ignored: list[str] = []

    def alternatives(self, depth: int) -> Node | None:
        if depth > MAX_DEPTH:
            raise QueryError(f"the parentheses are nested more than {MAX_DEPTH} deep")
        parts = [self._conjunction(depth)]
        while self._take_or():
            parts.append(self._conjunction(depth))
        if len(parts) == 1:
            return parts[0]
        if None in parts:
            raise QueryError('OR needs something on both sides; to search for the word, put it in quotes: "OR"')
        return Or(tuple(part for part in parts if part is not None))

    def _conjunction(self, depth: int) -> Node | None:
        parts: list[Node] = []
        while (match := _LEXER.match(self._text, self._position)) is not None:
            if match["word"] == "OR" or (match["close"] and depth > 0):
                break
            self._position = match.end()
            part = self._term(match, depth)
            parts += [part] if part is not None else []
        return None if not parts else parts[0] if len(parts) == 1 else And(tuple(parts))

    def _term(self, match: re.Match[str], depth: int) -> Node | None:
        if match["minus"]:
            following = _LEXER.match(self._text, self._position)
            assert following is not None  # the lexer saw that something follows
            if following["close"]:
                return None
            self._position = following.end()
            part = self._term(following, depth)
            return None if part is None else Not(part)
        if match["quote"]:
            if not match["closing"]:
                raise QueryError(f'the phrase {match["quote"].strip()!r} has no closing quote: add " at its end')
            return self._phrase(match["phrase"], match["quote"])
        if match["open"]:
            return self._group(depth)
        return self._word(match["word"] or "")

    def _group(self, depth: int) -> Node | None:
        inner = self.alternatives(depth + 1)
        closing = _LEXER.match(self._text, self._position)
        if closing is None or not closing["close"]:
            raise QueryError("an opening parenthesis is never closed: add ) where the group ends")
        self._position = closing.end()
        return inner

    def _phrase(self, content: str, written: str, *, prefix: bool = False) -> Node | None:
        tokens = fold(content)
        if not tokens:
            self.ignored.append(written)
            return None
        return Phrase(tuple(t.folded for t in tokens), tuple(t.exact for t in tokens), prefix, content)

    def _word(self, word: str) -> Node | None:
        if not word.endswith("~"):
            return self._phrase(word, word, prefix=word.endswith("*"))
        tokens = fold(word)
        if all(fuzzy_distance(token.folded) == 0 for token in tokens):
            return self._phrase(word, word)
        parts = tuple(Fuzzy(token.folded, token.exact) for token in tokens)
        return parts[0] if len(parts) == 1 else And(parts)

    def _take_or(self) -> bool:
        match = _LEXER.match(self._text, self._position)
        if match is None or match["word"] != "OR":
            return False
        self._position = match.end()
        return True


def _asks_for_something(node: Node) -> bool:
    match node:
        case Not(inner):
            return not _asks_for_something(inner)
        case And(nodes):
            return any(map(_asks_for_something, nodes))
        case Or(nodes):
            return all(map(_asks_for_something, nodes))
        case _:
            return True


def _widened(node: Node) -> Node:
    match node:
        case Not():
            return EVERYTHING
        case And(nodes):
            kept = tuple(part for part in map(_widened, nodes) if part != EVERYTHING)
            return kept[0] if len(kept) == 1 else And(kept)
        case Or(nodes):
            parts = tuple(map(_widened, nodes))
            return EVERYTHING if EVERYTHING in parts else Or(parts)
        case _:
            return node


class _Placed(NamedTuple):
    """A token and the line it is on; the token is None where a line does not count, and nothing runs over it."""

    line: int
    token: Token | None

    @property
    def folded(self) -> str | None:
        return self.token.folded if self.token is not None else None


def _tokens_of(lines: Sequence[str | None]) -> list[_Placed]:
    placed: list[_Placed] = []
    for index, line in enumerate(lines):
        if line is None:
            placed.append(_Placed(index, None))
        else:
            placed.extend(_Placed(index, token) for token in fold(line))
    return placed


_Occurrences = list[tuple[int, int]]
"""Ranges ``(first, end)`` of positions in the token list."""


def _evaluate(node: Node, tokens: list[_Placed]) -> _Occurrences | None:
    """Where a part is found; None if it is not, and an empty list where nothing had to be."""
    match node:
        case Phrase():
            return _find_phrase(node, tokens) or None
        case Fuzzy(token):
            found = [(i, i + 1) for i, placed in enumerate(tokens) if placed.folded and is_near(token, placed.folded)]
            return found or None
        case Not(inner):
            return [] if _evaluate(inner, tokens) is None else None
        case And(nodes):
            parts = [_evaluate(part, tokens) for part in nodes]
            return None if None in parts else [place for part in parts if part is not None for place in part]
        case Or(nodes):
            fitting = [part for part in (_evaluate(part, tokens) for part in nodes) if part is not None]
            return [place for part in fitting for place in part] if fitting else None


def _find_phrase(phrase: Phrase, tokens: list[_Placed]) -> _Occurrences:
    words, last, size = phrase.tokens[:-1], phrase.tokens[-1], len(phrase.tokens)
    found = []
    for first in range(len(tokens) - size + 1):
        ending = tokens[first + size - 1].folded
        if ending is None or not (ending.startswith(last) if phrase.prefix else ending == last):
            continue
        if all(tokens[first + i].folded == word for i, word in enumerate(words)):
            found.append((first, first + size))
    return found


def _spans(found: _Occurrences, tokens: list[_Placed]) -> dict[int, tuple[Span, ...]]:
    by_line: dict[int, list[Span]] = {}
    for first, end in sorted(set(found)):
        pieces: dict[int, list[Token]] = {}
        for placed in tokens[first:end]:
            assert placed.token is not None
            pieces.setdefault(placed.line, []).append(placed.token)
        for line, parts in pieces.items():
            by_line.setdefault(line, []).append((parts[0].start, parts[-1].end))
    return {line: _apart(spans) for line, spans in sorted(by_line.items())}


def _apart(spans: list[Span]) -> tuple[Span, ...]:
    """Spans in order, with those that overlap made one."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start < merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)
