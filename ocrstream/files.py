"""Files that are there whole or not at all: written beside their place, which they take when they are complete."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

UNFINISHED = ".part"
"""In the name of a file that is being written, before its suffix; one that lies about was left by a killed process."""


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Where to write what is to be at a path: it takes that place at the end, and is removed where that fails.

    Its suffix is the path's, by which some writers tell what to write.

    Raises:
        OSError: it cannot take its place.
    """
    beside = path.with_name(f".{secrets.token_hex(8)}{UNFINISHED}{path.suffix}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
