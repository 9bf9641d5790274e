"""Queries in SQLite's terms: an SQL statement around an FTS5 expression."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from rapidfuzz import process
from rapidfuzz.distance import OSA

from ocrstream.query import EVERYTHING, And, Fuzzy, Node, Not, Or, Phrase, Query
from ocrstream.storage import COUNT_LIMIT, EXACT_BONUS, Filter
from ocrstream.storage.embedded_layout import FRAME_COLUMNS, frame_clause

MAX_NEAR_WORDS = 1_000


class Statement:
    """A query and a filter as SQL.

    Args:
        connection: where near misses are looked up.
        query: what is asked for.
        where: in which frames.
    """

    def __init__(self, connection: sqlite3.Connection, query: Query, where: Filter) -> None:
        clause, filter_arguments = frame_clause(where)
        self._expression = "" if query.root == EVERYTHING else _folded(connection, query.root)[1]
        self._is_ranked = query.is_ranked
        self._exact = _exact(query.root) if self._is_ranked else ""
        if self._is_ranked:
            self._from = "search JOIN frames f ON f.id = search.rowid"
            self._where, self._arguments = f"search MATCH ? AND {clause}", [self._expression, *filter_arguments]
        elif self._expression:
            self._from = "frames f"
            self._where = f"f.id NOT IN (SELECT rowid FROM search WHERE search MATCH ?) AND {clause}"  # noqa: S608
            self._arguments = [self._expression, *filter_arguments]
        else:
            self._from, self._where, self._arguments = "frames f", clause, filter_arguments

    def count(self, connection: sqlite3.Connection) -> int:
        """How many frames fit, counted to just beyond `COUNT_LIMIT`."""
        found = connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {self._from} WHERE {self._where} LIMIT ?)",  # noqa: S608
            (*self._arguments, COUNT_LIMIT + 1),
        )
        return int(found.fetchone()[0])

    def rows(
        self, connection: sqlite3.Connection, newest_first: bool, limit: int = -1, offset: int = 0
    ) -> sqlite3.Cursor:
        """Rows with ``score``: frames that hold the words unfolded come first, then BM25 decides, then the newest."""
        score = "-bm25(search)" if self._is_ranked else "0.0"
        if self._exact:
            score += f" + {EXACT_BONUS} * (f.id IN (SELECT rowid FROM search WHERE search MATCH ?))"  # noqa: S608
        order = "f.captured_at_ns DESC, f.frame_id"
        if self._is_ranked and not newest_first:
            order = f"score DESC, {order}"
        return connection.execute(
            f"SELECT f.id, {FRAME_COLUMNS}, {score} AS score "  # noqa: S608
            f"FROM {self._from} WHERE {self._where} ORDER BY {order} LIMIT ? OFFSET ?",
            (*([self._exact] if self._exact else []), *self._arguments, limit, offset),
        )


def _folded(connection: sqlite3.Connection, node: Node) -> tuple[bool, str]:
    """A part as an FTS5 expression, and whether frames that match it are meant (or those that do not).

    FTS5 has no NOT without a left side, so exclusions are carried as complements and moved outwards by De Morgan.
    """
    match node:
        case Phrase():
            return True, f"folded : {_quoted(node.tokens, node.prefix)}"
        case Fuzzy(token):
            words = _near_words(connection, token)
            return True, f"folded : ({' OR '.join(_quoted([word]) for word in words)})"
        case Not(inner):
            is_positive, expression = _folded(connection, inner)
            return not is_positive, expression
        case And(nodes):
            wanted, unwanted = _sorted_parts(connection, nodes)
            if not wanted:
                return False, _joined(" OR ", unwanted)
            return True, _without(_joined(" AND ", wanted), unwanted)
        case Or(nodes):
            wanted, unwanted = _sorted_parts(connection, nodes)
            if not unwanted:
                return True, _joined(" OR ", wanted)
            return False, _without(_joined(" AND ", unwanted), wanted)


def _sorted_parts(connection: sqlite3.Connection, nodes: tuple[Node, ...]) -> tuple[list[str], list[str]]:
    parts = [_folded(connection, part) for part in nodes]
    return [e for is_positive, e in parts if is_positive], [e for is_positive, e in parts if not is_positive]


def _joined(operator: str, expressions: list[str]) -> str:
    return f"({operator.join(expressions)})"


def _without(expression: str, unwanted: list[str]) -> str:
    return f"({expression} NOT {_joined(' OR ', unwanted)})" if unwanted else expression


def _quoted(tokens: Sequence[str], prefix: bool = False) -> str:
    content = " ".join(tokens).replace('"', '""')
    return f'"{content}"*' if prefix else f'"{content}"'


def _near_words(connection: sqlite3.Connection, token: str) -> list[str]:
    """The indexed words within the edit distance, nearest first; the word itself where there is none."""
    distance = Fuzzy(token, token).max_distance
    words = connection.execute(
        "SELECT term FROM words WHERE col = 'folded' AND length(term) BETWEEN ? AND ?",
        (len(token) - distance, len(token) + distance),
    )
    near = process.extract(
        token, [word for (word,) in words], scorer=OSA.distance, score_cutoff=distance, limit=MAX_NEAR_WORDS
    )
    return [word for word, _, _ in near] or [token]


def _exact(node: Node) -> str:
    """The frames that hold the wanted words as they were typed, as an FTS5 expression; empty where that is unclear."""
    match node:
        case Phrase():
            return f"exact : {_quoted(node.exact, node.prefix)}"
        case Fuzzy():
            return f"exact : {_quoted([node.exact])}"
        case Not():
            return ""
        case And(nodes):
            # What is excluded is excluded already, folded.
            parts = [_exact(part) for part in nodes if not isinstance(part, Not)]
            return _joined(" AND ", parts) if parts and all(parts) else ""
        case Or(nodes):
            parts = [part for part in map(_exact, nodes) if part]
            return _joined(" OR ", parts) if parts else ""
