r"""Settings that are given by source: a table whose keys are sources, or shell-style patterns of them.

    [recognizer.formats]
    "platform-*" = ['[A-Z]\d\d']

In the environment the same stands as JSON: ``{"platform-*": ["[A-Z]\\d\\d"]}``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import numpy as np
import regex

from ocrstream.geometry import Point

T = TypeVar("T")

BySource = tuple[tuple[str, tuple[T, ...]], ...]
"""What holds for the sources that fit a pattern, in the order in which it was given."""

Pattern = regex.Pattern[str]
"""As Python's own, but it can be given up: one that a user wrote may take for ever with a text."""

Zone = tuple[Point, ...]
"""A polygon of three points or more, as shares of a frame's width and height, 0 to 1."""


def of_source(given: BySource[T], source_id: str) -> tuple[T, ...]:
    """All that holds for a source."""
    return tuple(each for name, values in given if fnmatchcase(source_id, name) for each in values)


def unused(given: BySource[T], source_ids: Iterable[str]) -> list[str]:
    """The patterns that none of these sources fits: names that were misspelt."""
    known = tuple(source_ids)
    return [name for name, _ in given if not any(fnmatchcase(source_id, name) for source_id in known)]


def read_patterns(value: object) -> BySource[Pattern]:
    """Regular expressions by source.

    Raises:
        ValueError: it is no table of lists of them; the message says what is wrong.
    """
    return _read(value, _pattern, "regular expressions, \"platform-*\" = ['[A-Z]\\d\\d']")


def read_zones(value: object) -> BySource[Zone]:
    """Parts of the frame by source.

    Raises:
        ValueError: it is no table of lists of them; the message says what is wrong.
    """
    return _read(value, _zone, 'polygons, "hall" = [[[0.0, 0.9], [1.0, 0.9], [1.0, 1.0], [0.0, 1.0]]]')


def _read(value: object, read: Callable[[Any], T], what: str) -> BySource[T]:
    if isinstance(value, str):
        value = _from_json(value)
    expected = f"expected a table of sources, each with a list of {what}"
    if not isinstance(value, dict):
        raise ValueError(f"{expected}; got {value!r:.80}")  # noqa: TRY004 reported as a ConfigError
    found = []
    for name, entries in value.items():
        if not isinstance(entries, list):
            raise ValueError(f"{expected}; {name!r} has {entries!r:.80}")  # noqa: TRY004 likewise
        try:
            found.append((name, tuple(map(read, entries))))
        except ValueError as error:
            raise ValueError(f"{name!r}: {error}") from error
    return tuple(found)


def _from_json(value: str) -> object:
    if not value.strip():
        return {}
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


def _pattern(entry: Any) -> Pattern:
    if not isinstance(entry, str):
        raise ValueError(f"a regular expression is a string, got {entry!r:.80}")  # noqa: TRY004 likewise
    if not entry.strip():
        raise ValueError("a regular expression is empty: no text looks like that")
    try:
        return regex.compile(entry)
    except (regex.error, RecursionError, OverflowError) as error:
        raise ValueError(f"{entry!r:.80} is no regular expression: {error}") from error


def _zone(entry: Any) -> Zone:
    try:
        points = tuple((_share(x), _share(y)) for x, y in entry)
    except (TypeError, ValueError):
        points = ()
    if len(points) < 3:
        raise ValueError(
            "a zone is three points [x, y] or more, each 0 to 1 as a share of the frame's width or height; "
            f"got {entry!r:.80}"
        )
    if np.linalg.matrix_rank(np.subtract(points, points[0])) < 2:
        raise ValueError(f"the points of a zone lie on one line, so there is nothing in it: {entry!r:.80}")
    return points


def _share(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= 1:
        raise ValueError("no share")
    return float(value)
