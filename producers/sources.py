"""Sources: what frames come from, behind one protocol, and how each is found from what the user wrote."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Protocol

from ocrstream.config import ProducerSettings
from ocrstream.errors import SourceError
from ocrstream.messages import Frame, FrameInfo
from producers.demo import DemoSource
from producers.progress import Progress
from producers.specs import KNOWN, SourceSpec, parse_source, parse_sources

__all__ = ["SOURCES_HELP", "Source", "SourceSpec", "open_source", "open_sources", "parse_source", "parse_sources"]

SOURCES_HELP = f"{KNOWN}; NAME=SOURCE gives it a name"


class Source(Protocol):
    """Something that gives frames.

    Attributes:
        source_id: its name.
        live: whether time does not wait for it; then the oldest frames are dropped when nobody takes them.
        segment: which part of a file it reads; None for all of it.
        total_ms: the length of what is read, where it is known.
        total_frames: the number of images in a folder; None for anything else.
        progress: how far it is, and whom to tell what happens.
    """

    source_id: str
    live: bool
    segment: int | None
    total_ms: float | None
    total_frames: int | None
    progress: Progress

    def frames(self, stop: threading.Event, after: FrameInfo | None = None) -> Iterator[Frame]:
        """Yield frames until the source ends or ``stop`` is set (then within a second).

        Args:
            stop: set by anyone who wants it to end.
            after: a frame of an earlier run: files and folders go on behind it, with the ids they would have had.

        Raises:
            SourceError: it cannot be read (any more), and trying again would not help.
        """

    def close(self) -> None:
        """Let go of files and processes; safe to call twice."""


def open_source(spec: SourceSpec, settings: ProducerSettings) -> Source:
    """Open one source, whole.

    Raises:
        SourceError: it cannot be read, as far as can be known before its first frame.
        ConfigError: a setting of the producer cannot be read.
    """
    if spec.scheme == "demo":
        return DemoSource(spec, settings)
    raise SourceError(f"{spec.shown}: not a source; a source is {KNOWN}")


def open_sources(texts: Sequence[str], settings: ProducerSettings) -> list[Source]:
    """Open several sources as the user wrote them; a file that is cut into segments gives one source for each.

    Raises:
        SourceError: one cannot be read, or two have the same name; those already open are closed.
        ConfigError: a setting of the producer cannot be read.
    """
    opened: list[Source] = []
    try:
        for spec in parse_sources(texts):
            opened.append(open_source(spec, settings))  # noqa: PERF401 what is open must be known when one fails
    except BaseException:
        for source in opened:
            source.close()
        raise
    return opened
