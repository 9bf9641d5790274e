"""Where documents live: one protocol, two implementations (`embedded` on SQLite, `elastic` on Elasticsearch).

What goes in and comes out is `messages.Texts`: a frame with its lines. Each store lays it out in its own way (frames,
regions, appearances), and both answer the same queries; the same contract tests run on both.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from ocrstream.messages import Appearance, FrameInfo, Texts
from ocrstream.query import Query

DAY_NS = 86_400 * 10**9

COUNT_LIMIT = 10_000
"""Hits are counted out up to here; a person is served as well by "more than 10,000"."""

EXACT_BONUS = 1000.0
"""What a hit's score gains where the words stand there as typed, accents and all: more than any relevance."""


@dataclass(frozen=True, slots=True)
class Filter:
    """Which frames (or appearances) are meant; None means all.

    Attributes:
        sources: any of these sources; empty means every source.
        since_ns: captured at or after, nanoseconds since 1970.
        until_ns: captured before.
        min_confidence: only lines read with at least this confidence count, 0 to 1.
    """

    sources: tuple[str, ...] = ()
    since_ns: int | None = None
    until_ns: int | None = None
    min_confidence: float = 0.0


@dataclass(frozen=True, slots=True)
class Hit:
    """A frame that a search found.

    Attributes:
        texts: the frame and all its lines.
        score: how well it fits; comparable within one page of one store only.
        matches: for each line that holds something asked for: line number -> spans ``(start, end)`` in its text.
    """

    texts: Texts
    score: float
    matches: dict[int, tuple[tuple[int, int], ...]]


@dataclass(frozen=True, slots=True)
class Page:
    """One page of hits, and how many there are in all (``total_is_exact`` tells whether that was counted out)."""

    hits: tuple[Hit, ...]
    total: int
    total_is_exact: bool = True


@dataclass(frozen=True, slots=True)
class SourceSummary:
    """What the store holds of one source."""

    source_id: str
    frames: int
    first_at_ns: int
    last_at_ns: int


@dataclass(frozen=True, slots=True)
class WriteReport:
    """What became of a batch.

    Attributes:
        written: frames that are stored now.
        outdated: frames left alone since a reading of a higher generation is there.
        refused: index in the batch -> reason, for what the store will never take (it becomes a dead letter).
    """

    written: int = 0
    outdated: int = 0
    refused: dict[int, str] = field(default_factory=dict)


class DocumentStore(Protocol):
    """Frames, regions and appearances; safe to share between threads."""

    def write(self, batch: Sequence[Texts]) -> WriteReport:
        """Store readings, once.

        Of a frame that is not kept only the appearances are stored.

        The same again changes nothing; a higher generation supersedes all lines of the frame (those it does not see
        are gone) and takes its time out of the appearances of lower generations (see `superseding`); a lower one
        changes nothing. On return it is durable, and visible to `search` within a second.

        Raises:
            StoreError: the server is away or the disk full; nothing is lost, offer the same batch again.
            BackpressureError: the server asks for a pause.
        """

    def search(
        self, query: Query, where: Filter, *, limit: int = 20, offset: int = 0, newest_first: bool = False
    ) -> Page:
        """Frames whose lines together hold what is asked for, best first (or newest first).

        Raises:
            QueryError: the page lies beyond what the store pages through (Elasticsearch: 10,000 hits).
            StoreError: the server is away.
        """

    def scan(self, where: Filter) -> Iterator[Texts]:
        """Every frame of a filter, by source and capture time (without appearances).

        Frames come whole: with a confidence asked for, those that have such a line, with all their lines.
        """

    def appearances(self, where: Filter) -> Iterator[Appearance]:
        """Every appearance of a filter that overlaps its time, by source and first sighting."""

    def unfinished(self) -> Iterator[Appearance]:
        """Every appearance that is not closed, by source and first sighting."""

    def get(self, frame_id: str) -> Texts | None:
        """One frame."""

    def last_frame(self, source_id: str, segment: int | None = None) -> Texts | None:
        """The last frame by place (media time, else capture time) of a source, where a file resumes.

        Of this segment; without one, of the frames that belong to no segment.
        """

    def sources(self) -> list[SourceSummary]:
        """Every source there is, by name."""

    def drop_before(self, before_ns: int) -> int:
        """Retention: drop the whole days (UTC) that end at or before this time; returns how many days went."""

    def check(self) -> None:
        """See that the store is there and usable, creating what is missing.

        Raises:
            DeploymentError: it is there but cannot be used; the message says what to change.
            StoreError: it is away.
        """

    def close(self) -> None:
        """Let go; what `write` returned for is kept."""


class Pictures(Protocol):
    """Where the frames' pictures lie: on disk in the embedded mode, in Kafka in the distributed one."""

    def get(self, info: FrameInfo) -> bytes | None:
        """The encoded image of a frame, or None when it is no longer kept.

        Raises:
            TransientError: the disk or the broker is away.
        """


def hit_of(query: Query, texts: Texts, min_confidence: float, score: float) -> Hit | None:
    """The hit of a frame, looking only at lines of enough confidence; None where those do not fit the query.

    With a confidence asked for, a frame has to have at least one such line, also for a query that asks for nothing.
    """
    counted = [line.text if line.confidence >= min_confidence else None for line in texts.lines]
    if min_confidence > 0 and all(line is None for line in counted):
        return None
    found = query.match(counted)
    if found is None:
        return None
    return Hit(texts, score, {texts.lines[index].region.line_number: spans for index, spans in found.items()})


_SURROGATES = re.compile("[\ud800-\udfff]")


def storable(text: str) -> str:
    """The text with lone surrogates, which no encoding takes, replaced one by one (spans stay where they are)."""
    return text if text.isascii() else _SURROGATES.sub("\ufffd", text)


def storable_or_none(text: str | None) -> str | None:
    """The same of a text that may be missing."""
    return None if text is None else storable(text)


def refusal(texts: Texts) -> str | None:
    """Why no store can ever take a reading; None where it can."""
    info = texts.info
    times = [info.captured_at_ns, *(t for a in texts.appearances for t in (a.first_at_ns, a.last_at_ns))]
    if any(not 0 <= time_ns < 2**63 for time_ns in times):
        return "a capture time is before 1970 or after 2262"
    picture = (info.picture.partition, info.picture.offset) if info.picture else ()
    sizes = (info.width_px, info.height_px, info.segment or 0, info.generation, *picture)
    counts = (number for a in texts.appearances for number in (a.generation, a.readings))
    if any(not 0 <= number < 2**63 for number in (*sizes, *counts)):
        return "a size, generation or offset is below zero or beyond 63 bits"
    line_numbers = [line.region.line_number for line in texts.lines]
    if len(set(line_numbers)) != len(line_numbers) or any(number < 0 for number in line_numbers):
        return "two lines have the same number, or a number is below zero"
    if not all(math.isfinite(number) for number in _numbers(texts)):
        return "a confidence, score, coordinate or media time is not a finite number"
    return None


def _numbers(texts: Texts) -> Iterator[float]:
    yield texts.info.media_time_ms or 0.0
    for line in texts.lines:
        yield line.confidence
        yield line.region.detector_score
        for point in line.region.polygon:
            yield from point
    for appearance in texts.appearances:
        yield from (appearance.confidence, appearance.first_ms or 0.0, appearance.last_ms or 0.0)
        for at_ms, polygon in appearance.path:
            yield at_ms
            for point in polygon:
                yield from point
