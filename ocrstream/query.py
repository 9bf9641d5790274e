"""The query language, one for both stores."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed search."""

    def match(self, lines: Sequence[str]) -> dict[int, tuple[tuple[int, int], ...]] | None:
        """Which lines of a frame hold what is asked for; None when the lines together do not."""
        raise NotImplementedError


def parse(text: str) -> Query:
    """Parse what a person typed."""
    raise NotImplementedError
