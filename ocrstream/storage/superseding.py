"""What is left of a text over time where some of its time was read again, by a replay.

A later reading takes the place of an earlier one frame by frame, but a text over time may reach beyond the frames that
were read again. So it is cut: the time that was read again is taken out of what earlier generations say, and what lies
before and behind it stays, as appearances of their own. Two frames that were read again, at most `GONE_AFTER_S` apart,
take the time between them along, as a track does. What shows none of the text any more is gone. The stores look things
up (`History`); what follows is decided here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from ocrstream.geometry import Polygon, polygon_at
from ocrstream.messages import FIRST_READING, GONE_AFTER_S, Appearance, FrameInfo

GONE_AFTER_NS = round(GONE_AFTER_S * 1e9)

PART_MARK = "+"
"""In the id of a part, before the id of the frame behind which it begins."""

COUNTED_NS = 600 * 10**9
"""The readings of a part up to so long are counted; of a longer one that would hold up the writing."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A frame that was read again."""

    captured_at_ns: int
    frame_id: str
    generation: int


@dataclass(frozen=True, slots=True)
class Stretch:
    """A time that was read again without a gap: from one frame to another, both of it; they may be the same."""

    begin_ns: int
    end: Mark


@dataclass(frozen=True, slots=True)
class Cut:
    """What becomes of one appearance: it goes, and its parts are there instead.

    Attributes:
        whole: as it was.
        parts: what is left of it, by time; those before the cut keep its id.
        generation: of the reading that took the rest.
    """

    whole: Appearance
    parts: tuple[Appearance, ...]
    generation: int


class History(Protocol):
    """What a store knows of a source's past, up to the moment."""

    def read_again(
        self, source_id: str, generation: int, since_ns: int, until_ns: int, *, last_only: bool = False
    ) -> Iterable[Mark]:
        """Frames captured from one time to another (both of it), read as this generation or a later one; last first."""

    def older(self, source_id: str, generation: int, since_ns: int, until_ns: int) -> Iterable[Appearance]:
        """Appearances of generations below this one that reach into a time."""

    def known(self, appearance: Appearance, behind: Mark) -> Appearance | None:
        """The part of an appearance behind that frame, else all of it, as it is stored as of its generation."""

    def frame_showing(self, appearance: Appearance) -> str | None:
        """A frame within its time that shows it, its best frame where that is one; None where none is stored."""

    def readings(self, appearance: Appearance, since_ns: int, until_ns: int) -> int:
        """How many readings of its track and generation are stored from one time to another (both of it)."""


def cuts_of(info: FrameInfo, history: History) -> list[Cut]:
    """What a frame that is read again takes out of older appearances; to be asked before the frame is stored."""
    at_ns, generation = info.captured_at_ns, info.generation
    if generation <= FIRST_READING:
        return []
    before = _last(history, info.source_id, generation, at_ns - GONE_AFTER_NS, at_ns - 1)
    stretch = Stretch(before.captured_at_ns if before else at_ns, Mark(at_ns, info.frame_id, generation))
    older = history.older(info.source_id, generation, stretch.begin_ns, at_ns)
    return [Cut(whole, _left(whole, stretch, history), generation) for whole in older]


def cut_of(appearance: Appearance, history: History) -> Cut | None:
    """What is still to be stored of an appearance; None where nothing of its time was read again since: all of it.

    Of one that is stored already only what lies behind the last frame that was read again is new: the rest was cut
    when those frames came.
    """
    source_id, later = appearance.source_id, appearance.generation + 1
    first_ns, last_ns = appearance.first_at_ns, appearance.last_at_ns
    last = _last(history, source_id, later, first_ns, last_ns)
    if last is None:
        return None
    known = history.known(appearance, last)
    if known is not None:
        parts = _parts(appearance, [Stretch(first_ns, last)])
        if known.first_at_ns > last.captured_at_ns:
            unheard = history.readings(appearance, known.last_at_ns + 1, last_ns)
            parts = [replace(part, readings=known.readings + unheard) for part in parts]
        else:
            parts = [_counted(part, history) for part in parts]
    else:
        # From before its beginning: the frame that begins a stretch may lie there, and the gap behind it in its time.
        stretches = _stretches(history.read_again(source_id, later, first_ns - GONE_AFTER_NS, last_ns))
        parts = [_counted(part, history) for part in _parts(appearance, stretches)]
    return Cut(appearance, tuple(_shown(parts, appearance, history)), last.generation)


def part_id(track_id: str, behind: str) -> str:
    """The id of the part of an appearance that begins behind a frame."""
    return f"{track_id.partition(PART_MARK)[0]}{PART_MARK}{behind}"


def track_of(appearance: Appearance) -> str:
    """The track that an appearance, or a part of one, was read from; see `recognizer_consumer.voting` for ids."""
    return appearance.track_id.partition(PART_MARK)[0].partition("~")[0]


def _last(history: History, source_id: str, generation: int, since_ns: int, until_ns: int) -> Mark | None:
    return next(iter(history.read_again(source_id, generation, since_ns, until_ns, last_only=True)), None)


def _stretches(marks: Iterable[Mark]) -> Iterator[Stretch]:
    """Frames that were read again, last first, as stretches, last first."""
    stretch: Stretch | None = None
    for mark in marks:
        if stretch is not None and stretch.begin_ns - mark.captured_at_ns <= GONE_AFTER_NS:
            stretch = replace(stretch, begin_ns=mark.captured_at_ns)
            continue
        if stretch is not None:
            yield stretch
        stretch = Stretch(mark.captured_at_ns, mark)
    if stretch is not None:
        yield stretch


def _left(whole: Appearance, stretch: Stretch, history: History) -> tuple[Appearance, ...]:
    """What is left of an appearance that is stored; its readings add up to those of the whole without the stretch's.

    What the stretch takes is counted, and of two parts the shorter one, so that a long one is never gone through.
    """
    parts = list(_shown(_parts(whole, [stretch]), whole, history))
    since_ns = max(stretch.begin_ns, whole.first_at_ns)
    until_ns = min(stretch.end.captured_at_ns, whole.last_at_ns)
    left = whole.readings - history.readings(whole, since_ns, until_ns)
    if len(parts) > 1:
        shorter = min(range(2), key=lambda number: _lasts_ns(parts[number]))
        parts[shorter] = _counted(parts[shorter], history)
        longer, left = 1 - shorter, left - parts[shorter].readings
        parts[longer] = replace(parts[longer], readings=max(left, 1))
        return tuple(parts)
    return tuple(replace(part, readings=max(left, 1)) for part in parts)


def _parts(whole: Appearance, stretches: Iterable[Stretch]) -> list[Appearance]:
    """What lies of an appearance between stretches, by time."""
    parts: list[Appearance] = [whole]
    for stretch in stretches:
        parts = [left for part in parts for left in _without(part, stretch)]
    return sorted(parts, key=lambda part: part.first_at_ns)


def _shown(parts: Iterable[Appearance], whole: Appearance, history: History) -> Iterator[Appearance]:
    """Those of the parts that any frame shows, each with such a frame."""
    for part in parts:
        best = part.best_frame_id if part is whole else history.frame_showing(part)
        if best is not None:
            yield replace(part, best_frame_id=best)


def _counted(part: Appearance, history: History) -> Appearance:
    """A part with its readings counted, where it is short; a long one keeps its share by time."""
    if _lasts_ns(part) > COUNTED_NS:
        return part
    return replace(part, readings=max(history.readings(part, part.first_at_ns, part.last_at_ns), 1))


def _lasts_ns(appearance: Appearance) -> int:
    return appearance.last_at_ns - appearance.first_at_ns


def _without(appearance: Appearance, stretch: Stretch) -> Iterator[Appearance]:
    first_ns, last_ns = appearance.first_at_ns, appearance.last_at_ns
    if stretch.end.captured_at_ns < first_ns or stretch.begin_ns > last_ns:
        yield appearance
        return
    if stretch.begin_ns > first_ns:
        yield replace(_within(appearance, first_ns, stretch.begin_ns - 1), closed=True)
    if stretch.end.captured_at_ns < last_ns:
        behind = _within(appearance, stretch.end.captured_at_ns + 1, last_ns)
        yield replace(behind, track_id=part_id(appearance.track_id, stretch.end.frame_id))


def _within(appearance: Appearance, first_ns: int, last_ns: int) -> Appearance:
    """The same text from one time to another; its readings are shared out by time."""
    start_ms = appearance.first_ms if appearance.first_ms is not None else appearance.first_at_ns / 1e6
    first_ms, last_ms = (start_ms + (at_ns - appearance.first_at_ns) / 1e6 for at_ns in (first_ns, last_ns))
    has_media_time = appearance.first_ms is not None
    share = (last_ns - first_ns) / max(appearance.last_at_ns - appearance.first_at_ns, 1)
    return replace(
        appearance,
        first_at_ns=first_ns,
        last_at_ns=last_ns,
        first_ms=first_ms if has_media_time else None,
        last_ms=last_ms if has_media_time else None,
        readings=max(round(appearance.readings * share), 1),
        path=_path_within(appearance.path, first_ms, last_ms),
    )


def _path_within(
    path: tuple[tuple[float, Polygon], ...], first_ms: float, last_ms: float
) -> tuple[tuple[float, Polygon], ...]:
    if not path:
        return ()
    first = (first_ms, polygon_at(path, first_ms))
    if last_ms <= first_ms:
        return (first,)
    between = (entry for entry in path if first_ms < entry[0] < last_ms)
    return (first, *between, (last_ms, polygon_at(path, last_ms)))
