"""When each text of a source was there and where: what subtitles and the annotated video are made of.

The same text in one frame after the other is one sighting. It is made from what each frame shows and not from the
appearances: those follow a place, and what was read there once or unsurely is voted on with its neighbours.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from ocrstream.geometry import Polygon, polygon_between
from ocrstream.messages import GONE_AFTER_S, FrameInfo, Texts
from ocrstream.storage import DocumentStore, Filter

LONGEST_HOLD_MS = 1000.0
"""How long a text is taken to stay after the frame it was last seen in; in the last frame, for as long as a frame."""


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
        at = bisect_right(self.path, at_ms, key=lambda entry: entry[0])
        if at == 0:
            return self.path[0][1]
        if at == len(self.path):
            return self.path[-1][1]
        (before_ms, before), (after_ms, after) = self.path[at - 1], self.path[at]
        return polygon_between(before, after, (at_ms - before_ms) / (after_ms - before_ms))


@dataclass(frozen=True, slots=True)
class Timeline:
    """Everything that was seen in one source.

    Attributes:
        sightings: by start.
        size_wh: the frames' size in pixels, which polygons are in; None where there is no frame.
        frames: how many frames were read.
    """

    sightings: tuple[Sighting, ...]
    size_wh: tuple[int, int] | None
    frames: int


_Line = tuple[int, str, float, Polygon]
"""The frame's number, then text, confidence and polygon of one of its lines."""


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
    frames = [replace(texts, appearances=(), picture=None) for texts in store.scan(where)]
    if not frames:
        return Timeline((), None, 0)
    zero_ms = 0.0 if frames[0].info.media_time_ms is not None else frames[0].info.captured_at_ns / 1e6
    # By place, as a file's segments may have been read side by side.
    frames.sort(key=lambda texts: _at_ms(texts.info, zero_ms))
    times_ms = [_at_ms(texts.info, zero_ms) for texts in frames]
    sightings = list(_put_together(list(_lines(frames, where.min_confidence)), times_ms))
    sightings.sort(key=lambda sighting: (sighting.start_ms, sighting.path[0][1][0][::-1]))
    info = frames[0].info
    return Timeline(tuple(sightings), (info.width_px, info.height_px), len(frames))


def _lines(frames: list[Texts], min_confidence: float) -> Iterator[_Line]:
    for number, texts in enumerate(frames):
        for line in texts.lines:
            if line.confidence >= min_confidence and line.text.strip():
                yield number, line.text, line.confidence, line.region.polygon


def _at_ms(info: FrameInfo, zero_ms: float) -> float:
    return info.media_time_ms if info.media_time_ms is not None else info.captured_at_ns / 1e6 - zero_ms


def _until(last_ms: float, times_ms: list[float]) -> float:
    """A text stays until the first frame that no longer shows it, but for no longer than the hold.

    The last frame of all is taken to last as long as the one before it: then the source, or what was read of it, ends.
    """
    after = bisect_right(times_ms, last_ms)
    if after < len(times_ms):
        until_ms = times_ms[after]
    else:
        before = bisect_left(times_ms, last_ms)
        until_ms = last_ms + (last_ms - times_ms[before - 1] if before else LONGEST_HOLD_MS)
    return min(until_ms, last_ms + LONGEST_HOLD_MS)


def _put_together(lines: list[_Line], times_ms: list[float]) -> Iterator[Sighting]:
    """Join the sightings of the same text in frame after frame; two of them in one frame stay two."""
    open_runs: dict[tuple[str, int], list[tuple[int, float, Polygon]]] = {}
    frame_of: dict[tuple[str, int], int] = {}
    for frame, text, confidence, polygon in lines:
        count = 0
        while frame_of.get((text, count)) == frame:
            count += 1
        key = (text, count)
        frame_of[key] = frame
        run = open_runs.setdefault(key, [])
        if run and not _goes_on(run[-1][0], frame, times_ms):
            yield _of_run(text, run, times_ms)
            run.clear()
        run.append((frame, confidence, polygon))
    for (text, _), run in open_runs.items():
        yield _of_run(text, run, times_ms)


def _goes_on(before: int, frame: int, times_ms: list[float]) -> bool:
    # One frame between them may have missed it.
    return frame - before <= 2 and times_ms[frame] - times_ms[before] <= GONE_AFTER_S * 1000


def _of_run(text: str, run: list[tuple[int, float, Polygon]], times_ms: list[float]) -> Sighting:
    start_ms, last_ms = times_ms[run[0][0]], times_ms[run[-1][0]]
    confidence = sum(confidence for _, confidence, _ in run) / len(run)
    path = tuple((times_ms[frame], polygon) for frame, _, polygon in run)
    return Sighting(text, round(confidence, 4), start_ms, _until(last_ms, times_ms), path)


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
