"""Word lists: one word a line, as Debian's packages ``w*`` have them, or the ``.dic`` files of hunspell."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from ocrstream.models.crnn.charset import normalise

WORD_LISTS = (Path("/usr/share/dict"), Path("/usr/share/hunspell"))

MOST = 30_000
"""Words of a list at most, from all over it: some hold millions of inflected forms."""

MAX_LETTERS = 18

HELD_SHARE = 0.03
"""The share of all words that is never drawn for training, so that it can be measured on."""


def read_word_lists(folders: Sequence[Path], known: frozenset[str]) -> dict[str, list[str]]:
    """The words of every list in these folders, by the name of the list; lists without a usable word are left out.

    Args:
        folders: one that is not there has no lists.
        known: the characters that a word may have.
    """
    lists: dict[str, list[str]] = {}
    for path in sorted({path.resolve() for folder in folders for path in folder.glob("*") if path.is_file()}):
        if path.name.startswith("README") or path.suffix == ".aff":
            continue
        words = [normalise(word) for word in _some(list(_words(path)))]
        words = [word for word in words if 0 < len(word) <= MAX_LETTERS and known.issuperset(word)]
        if words:
            lists[path.stem] = words
    return lists


def is_held_out(word: str) -> bool:
    """Whether a word is kept for measuring, whatever its case."""
    return int.from_bytes(hashlib.sha256(word.casefold().encode()).digest()[:4], "big") < HELD_SHARE * 2**32


def _some(lines: list[str]) -> list[str]:
    return lines[:: max(-(-len(lines) // MOST), 1)]


def _words(path: Path) -> Iterator[str]:
    if path.suffix != ".dic":
        yield from path.read_text(encoding="utf-8", errors="replace").splitlines()
        return
    # The first line counts the others; after a word stand the flags of its endings, and what else is known of it.
    text = path.read_text(encoding=_encoding(path.with_suffix(".aff")), errors="replace")
    yield from (re.split(r"[/\s]", line, maxsplit=1)[0] for line in text.splitlines()[1:])


def _encoding(aff: Path) -> str:
    """What hunspell's table of endings says of its own encoding and its word list's."""
    if aff.exists():
        found = re.search(rb"^(?:\xef\xbb\xbf)?SET\s+(\S+)", aff.read_bytes(), re.MULTILINE)
        if found:
            name = found[1].decode("ascii", "replace")
            return name.lower().replace("microsoft-cp", "cp")
    return "utf-8"
