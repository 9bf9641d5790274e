"""Documents as the page and the API show them: highlighted texts, folded hits, and plain JSON."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

from ocrstream.messages import EngineInfo, Text, Texts
from ocrstream.storage import Hit
from search.asking import NS_PER_S
from search.fields import frame_fields, line_fields

Spans = tuple[tuple[int, int], ...]

FOLD_WITHIN_NS = 30 * NS_PER_S
"""Frames that show the same words no further apart than this are one thing to look at, not many."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a line's text, and whether it is what was asked for."""

    text: str
    found: bool


@dataclass(frozen=True, slots=True)
class Line:
    """One line as the page shows it.

    Attributes:
        line: the line.
        pieces: its text, cut where the highlighting changes.
        found: whether it holds something asked for.
    """

    line: Text
    pieces: tuple[Piece, ...]
    found: bool

    @property
    def points(self) -> str:
        """The polygon as SVG writes it, in the frame's pixels."""
        return " ".join(f"{x:g},{y:g}" for x, y in self.line.region.polygon)


@dataclass(frozen=True, slots=True)
class Card:
    """Hits that are shown as one: the best of them, and the others by time."""

    texts: Texts
    lines: tuple[Line, ...]
    others: tuple[Texts, ...] = ()

    @property
    def found(self) -> tuple[Line, ...]:
        """The lines that hold something asked for."""
        return tuple(line for line in self.lines if line.found)

    @property
    def rest(self) -> tuple[Line, ...]:
        """The other lines."""
        return tuple(line for line in self.lines if not line.found)

    @property
    def first_and_last(self) -> tuple[Texts, Texts]:
        """The earliest and the latest frame of the card."""
        frames = sorted((self.texts, *self.others), key=lambda texts: texts.info.captured_at_ns)
        return frames[0], frames[-1]


def cut(text: str, spans: Spans) -> tuple[Piece, ...]:
    """A text cut into what was found and what was not; overlapping spans become one."""
    pieces: list[Piece] = []
    at = 0
    for start, end in sorted(spans):
        start, end = max(start, at), min(end, len(text))
        if start >= end:
            continue
        if start > at:
            pieces.append(Piece(text[at:start], False))
        if pieces and pieces[-1].found:
            pieces[-1] = Piece(pieces[-1].text + text[start:end], True)
        else:
            pieces.append(Piece(text[start:end], True))
        at = end
    if at < len(text):
        pieces.append(Piece(text[at:], False))
    return tuple(pieces)


def lines_of(texts: Texts, matches: Mapping[int, Spans], min_confidence: float = 0.0) -> tuple[Line, ...]:
    """A frame's lines with what was found in them, in reading order."""
    return tuple(
        Line(line, cut(line.text, matches.get(number, ())), number in matches)
        for line in texts.lines
        if line.confidence >= min_confidence
        for number in [line.region.line_number]
    )


def fold(hits: Sequence[Hit], min_confidence: float = 0.0) -> list[Card]:
    """Put hits together that show the same words of the same source at nearly the same time.

    A camera that looks at a sign for ten seconds finds it in a hundred frames. The first hit stays the one that is
    shown, so the order of the best is kept.
    """
    alike: defaultdict[object, list[int]] = defaultdict(list)
    for index, hit in enumerate(hits):
        alike[_words_of(hit)].append(index)
    cards: dict[int, Card] = {}
    for indices in alike.values():
        for group in _near_in_time(hits, indices):
            best, *others = sorted(group)
            by_time = sorted((hits[index].texts for index in others), key=lambda texts: texts.info.captured_at_ns)
            hit = hits[best]
            cards[best] = Card(hit.texts, lines_of(hit.texts, hit.matches, min_confidence), tuple(by_time))
    return [cards[index] for index in sorted(cards)]


def _words_of(hit: Hit) -> object:
    """What makes two hits the same to a person; a hit without matches (browsing) is like no other."""
    if not hit.matches:
        return hit.texts.info.frame_id
    found = [line.text.casefold() for line in hit.texts.lines if line.region.line_number in hit.matches]
    return hit.texts.info.source_id, tuple(sorted(found))


def _near_in_time(hits: Sequence[Hit], indices: Sequence[int]) -> Iterator[list[int]]:
    def at_ns(index: int) -> int:
        return hits[index].texts.info.captured_at_ns

    group: list[int] = []
    for index in sorted(indices, key=at_ns):
        if group and at_ns(index) - at_ns(group[-1]) > FOLD_WITHIN_NS:
            yield group
            group = []
        group.append(index)
    if group:
        yield group


def frame_json(texts: Texts, matches: Mapping[int, Spans] | None = None) -> dict[str, Any]:
    """A frame as the API gives it; ``docs/api.md`` describes the fields."""
    info = texts.info
    return {
        **frame_fields(info),
        "detector": _engine_json(texts.detector),
        "recognizer": _engine_json(texts.recognizer),
        "picture": f"/frames/{quote(info.frame_id, safe='')}.jpg",
        "page": f"/frame/{quote(info.frame_id, safe='')}",
        "text": texts.text,
        "lines": [_line_json(line, (matches or {}).get(line.region.line_number, ())) for line in texts.lines],
    }


def hit_json(hit: Hit) -> dict[str, Any]:
    """A hit as the API gives it: the frame, its score, and the spans in each line."""
    return {"score": hit.score, **frame_json(hit.texts, hit.matches)}


def format_media_time(ms: float) -> str:
    """A place in a video as ``M:SS.t`` or ``H:MM:SS.t``, to the tenth of a second, cut off, not rounded."""
    tenths = int(ms // 100)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{clock}:{rest // 10:02d}.{rest % 10}"


def _engine_json(engine: EngineInfo) -> dict[str, str]:
    return {"name": engine.name, "weights": engine.weights}


def _line_json(line: Text, spans: Spans) -> dict[str, Any]:
    return {
        **line_fields(line),
        "matches": [list(span) for span in spans],
    }
