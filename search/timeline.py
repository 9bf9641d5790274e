"""When each text of a source was there and where: what subtitles and the annotated video are made of.

Each appearance is one sighting: its text is what all its readings say together, and its path tells where it was in all
frames, also in those that were not kept. The frames that were kept tell when a text was no longer there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from ocrstream.geometry import Polygon, polygon_at
from ocrstream.messages import Appearance, FrameInfo
from ocrstream.storage import DocumentStore, Filter

LONGEST_HOLD_MS = 1000.0
"""How long a text is taken to stay after it was last seen, unless a frame that was kept no longer shows it."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """One text over time.

    Attributes:
        text: what it says.
        confidence: 0 to 1.
        start_ms: first seen: media time for files, since the source's first frame for live sources.
        end_ms: seen until.
        path: `(time in ms, polygon in the frame's pixels)`, by time, at least one; straight between two entries.
    """

    text: str
    confidence: float
    start_ms: float
    end_ms: float
    path: tuple[tuple[float, Polygon], ...]

    def polygon_at(self, at_ms: float) -> Polygon:
        """Where the text is at a time; before and after the path it stands still."""
        return polygon_at(self.path, at_ms)


@dataclass(frozen=True, slots=True)
class Timeline:
    """Everything that was seen in one source.

    Attributes:
        sightings: by start.
        size_wh: the frames' size in pixels, which polygons are in; None where there is no frame.
        frames: how many frames were kept.
    """

    sightings: tuple[Sighting, ...]
    size_wh: tuple[int, int] | None
    frames: int


def timeline(store: DocumentStore, source_id: str, where: Filter | None = None) -> Timeline:
    """What was seen in a source, in order.

    Args:
        store: where it is looked up.
        source_id: the source.
        where: a time and a confidence to keep to; its sources are not looked at.

    Raises:
        StoreError: the store is away.
    """
    where = replace(where or Filter(), sources=(source_id,))
    # Frames are looked up whatever was read in them: one that shows nothing tells that a text has gone.
    frames = [texts.info for texts in store.scan(replace(where, min_confidence=0.0))]
    if not frames:
        return Timeline((), None, 0)
    zero_ms = 0.0 if frames[0].media_time_ms is not None else frames[0].captured_at_ns / 1e6
    # By place, as a file's segments may have been read side by side.
    times_ms = sorted(_at_ms(info, zero_ms) for info in frames)
    found = (_sighting(appearance, where, zero_ms, times_ms) for appearance in store.appearances(where))
    sightings = [sighting for sighting in found if sighting is not None]
    sightings.sort(key=lambda sighting: (sighting.start_ms, sighting.polygon_at(sighting.start_ms)[0][::-1]))
    return Timeline(tuple(sightings), (frames[0].width_px, frames[0].height_px), len(frames))


def _at_ms(info: FrameInfo, zero_ms: float) -> float:
    return info.media_time_ms if info.media_time_ms is not None else info.captured_at_ns / 1e6 - zero_ms


def _sighting(appearance: Appearance, where: Filter, zero_ms: float, times_ms: list[float]) -> Sighting | None:
    """The part of an appearance that lies in the time that is asked for; nothing where it says nothing."""
    first_ns, last_ns = appearance.first_at_ns, appearance.last_at_ns
    if where.since_ns is not None:
        first_ns = max(first_ns, where.since_ns)
    if where.until_ns is not None:
        last_ns = min(last_ns, where.until_ns - 1)
    if first_ns > last_ns or not appearance.text.strip() or appearance.confidence < where.min_confidence:
        return None
    began_ms = appearance.first_ms if appearance.first_ms is not None else appearance.first_at_ns / 1e6 - zero_ms
    start_ms, last_ms = (began_ms + (at_ns - appearance.first_at_ns) / 1e6 for at_ns in (first_ns, last_ns))
    path = tuple((at_ms - zero_ms, polygon) for at_ms, polygon in appearance.path)
    return Sighting(appearance.text, appearance.confidence, start_ms, _until(last_ms, times_ms), path)


def _until(last_ms: float, times_ms: list[float]) -> float:
    """A text stays until the next frame that is known, which no longer shows it, but for no longer than the hold.

    The last frame of all is taken to last as long as the one before it: then the source, or what was read of it, ends.
    """
    # Times of a file are worked out from its frames' capture times: half a millisecond is no later frame.
    after = bisect_right(times_ms, last_ms + 0.5)
    if after < len(times_ms):
        until_ms = times_ms[after]
    else:
        before = bisect_left(times_ms, last_ms - 0.5)
        until_ms = last_ms + (last_ms - times_ms[before - 1] if before else LONGEST_HOLD_MS)
    return min(until_ms, last_ms + LONGEST_HOLD_MS)


@dataclass(frozen=True, slots=True)
class Cue:
    """What is to be read on the screen from one time to another: the texts there, top to bottom."""

    start_ms: float
    end_ms: float
    texts: tuple[str, ...]


def cues(sightings: tuple[Sighting, ...]) -> Iterator[Cue]:
    """Cut overlapping sightings into cues that follow one another; equal neighbours become one.

    Players stack overlapping cues in whatever order they like, so there are none.
    """
    edges = sorted({round(edge) for sighting in sightings for edge in (sighting.start_ms, sighting.end_ms)})
    waiting = sorted(sightings, key=lambda sighting: sighting.start_ms, reverse=True)
    there: list[Sighting] = []
    current: Cue | None = None
    for start_ms, end_ms in pairwise(edges):
        while waiting and round(waiting[-1].start_ms) <= start_ms:
            there.append(waiting.pop())
        there = [sighting for sighting in there if round(sighting.end_ms) > start_ms]
        texts = _top_to_bottom(there, start_ms)
        if current is not None and current.texts == texts and current.end_ms == start_ms:
            current = replace(current, end_ms=end_ms)
            continue
        if current is not None and current.texts:
            yield current
        current = Cue(start_ms, end_ms, texts)
    if current is not None and current.texts:
        yield current


def _top_to_bottom(there: list[Sighting], at_ms: float) -> tuple[str, ...]:
    def place(sighting: Sighting) -> tuple[float, float]:
        polygon = sighting.polygon_at(at_ms)
        return min(y for _, y in polygon), min(x for x, _ in polygon)

    # The same words twice at once (two signs, a reflection) are worth reading once.
    return tuple(dict.fromkeys(sighting.text for sighting in sorted(there, key=place)))
