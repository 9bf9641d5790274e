"""What goes on after nobody looked: texts that were in view before a start, a rebalance or a gap in a source's time.

What a recogniser knows of the texts in view is in its memory. A new one, or one that is given a source by a rebalance,
takes it from what was said of them last (`Recall`): every open text is spoken of every second of its source's time. A
detector that was started again follows the same lines under new names; they go on under their old ones.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from ocrstream.errors import MalformedRecordError
from ocrstream.folding import are_alike, folded_text
from ocrstream.geometry import Polygon, polygon_at, polygon_size_wh, to_polygon
from ocrstream.messages import GONE_AFTER_S, LONGEST_GAP_S, SURE, TEXTS, Appearance, FrameInfo, Texts
from ocrstream.storage import DocumentStore, Filter
from ocrstream.storage.superseding import track_of
from ocrstream.transport import Delivery, Transport
from recognizer_consumer.appearing import Sighting
from recognizer_consumer.likeness import is_part, is_unlike

Recall = Callable[[FrameInfo], Iterable[Appearance]]
"""What was said of the texts of a frame's source and generation last, before that frame; what is older than
`LONGEST_GAP_S` may be missing, and of a file some of what lies a little behind the frame may be there.

Raises:
    TransientError: whoever knows is away.
"""

SAME_PLACE = 1.0
"""A line stands where another stood if its middle is no further away than so many text heights: cameras shake."""

SAME_WAY = 0.2
"""Or, where it has moved on, by this share of the way more."""

SPEED_MS, LONGEST_WAY_MS = 300.0, 10_000.0
"""How fast a text moves is told by the last of its path, and where it is then for so long."""

SAME_SIZE = 1.5
"""And if neither is so many times as high or as long as the other."""

MARGIN_S = 30.0
"""How long a record may be on its way to the topic after its frame was taken."""

SPOKEN_OF_S = GONE_AFTER_S + 2.0
"""What is in view was spoken of in a source's last seconds: every second, and it may have been lost since."""

MOST_RECORDS = 600
"""Of a source so many records are kept until it is asked for: these seconds at 60 frames a second, and as much in which
nothing was found."""

OVERLAP_S = 5.0
"""So much of a file may be read again where it goes on."""

TAKEN_UP_S = 5.0
"""What was in view goes on if it is seen again so soon after looking has begun again: a detector needs a while to find
everything. What comes later comes anew."""

IN_PART_S = 30.0
"""What is less of a text is all that can be seen of it for so long after looking has begun again: somebody may stand
before it."""

FRESH_S = 5.0
"""Sources that come one after the other, as after a rebalance, are served by one look at the topic."""


Path = Sequence[tuple[float, Polygon]]
"""Where a text was: `(media or capture time in ms, polygon)`, at least one."""

_ShiftPx = Callable[[Polygon, Appearance, Sighting, float], float | None]
"""How far a line is from where a text is expected, which has moved so far; None where it cannot be that text."""


class Lost:
    """Texts that were in view when their source was last looked at.

    Args:
        last_words: what was said last of texts of the source.
        info: the frame with which looking begins again.
    """

    def __init__(self, last_words: Iterable[Appearance], info: FrameInfo) -> None:
        # A file goes on behind the last frame that is stored, and its texts had been followed beyond that.
        latest_ns = info.captured_at_ns + round(OVERLAP_S * 1e9)
        before = [each for each in last_words if each.first_at_ns <= latest_ns]
        newest_ns = max((each.last_at_ns for each in before), default=0)
        since_ns = max(newest_ns - round(GONE_AFTER_S * 1e9), info.captured_at_ns - round(LONGEST_GAP_S * 1e9))
        # Of two texts of one track the later one was in view.
        in_view = sorted((each for each in before if each.last_at_ns >= since_ns), key=lambda each: each.last_at_ns)
        self._by_track = {track_of(each): each for each in in_view}
        self._until_ns = min(newest_ns + round(LONGEST_GAP_S * 1e9), info.captured_at_ns + round(TAKEN_UP_S * 1e9))

    def left(self) -> Iterable[Appearance]:
        """What nobody has taken."""
        return self._by_track.values()

    def take_track(self, track_id: str, info: FrameInfo) -> Appearance | None:
        """What was in view of a track that is seen in a frame, once."""
        if info.captured_at_ns > self._until_ns:
            self._by_track.clear()
        return self._by_track.pop(track_id, None)

    def take_like(self, line: Sighting, info: FrameInfo) -> Appearance | None:
        """What was in view where a line stands and said the same, or what the line may well be read as; once.

        What said something else there has gone.
        """
        taken = self._take_nearest(line, info, _shift_of_like_px)
        if taken is None and line.confidence >= SURE:
            for track_id, each in list(self._by_track.items()):
                if _whole_shift_px(each.path[-1][1], line) is not None and is_unlike(line.text, each.text):
                    del self._by_track[track_id]
        return taken

    def take_at(self, line: Sighting, info: FrameInfo) -> Appearance | None:
        """What was in view where a line stands that somebody else has read; once."""
        return self._take_nearest(line, info, _shift_of_any_px)

    def _take_nearest(self, line: Sighting, info: FrameInfo, shift_px: _ShiftPx) -> Appearance | None:
        there = [
            (min(shifts), track_id)
            for track_id, each in self._by_track.items()
            if (
                shifts := [
                    shift
                    for polygon, far_px in _expected(each.path, info.at_ms)
                    if (shift := shift_px(polygon, each, line, far_px)) is not None
                ]
            )
        ]
        return self.take_track(min(there)[1], info) if there else None


def is_on_its_way(path: Path, line: Sighting, at_ms: float) -> bool:
    """Whether a line stands at a time where a text was last, or where that is by then if it has moved on."""
    return any(_whole_shift_px(polygon, line, far_px) is not None for polygon, far_px in _expected(path, at_ms))


def is_in_part(text: str, polygon: Polygon, line: Sighting) -> bool:
    """Whether a line says what a text begins or ends with, where that text begins or ends."""
    part, whole = folded_text(line.text), folded_text(text)
    return 0 < len(part) < len(whole) and is_part(part, whole) and bool(_end_shifts_px(polygon, line))


def _end_shifts_px(polygon: Polygon, line: Sighting, far_px: float = 0.0) -> list[float]:
    """How far those ends of a line are from where they should be that may be there."""
    return [shift for end in _ENDS if (shift := _shift_px(polygon, line, end, far_px)) is not None]


def _expected(path: Path, at_ms: float) -> list[tuple[Polygon, float]]:
    """Where a text may be at a time: where it was last, and where it is if it has moved on; and how far it has then."""
    places = [(polygon_at(path, at_ms), 0.0)]
    end_ms = path[-1][0]
    speed = np.subtract(path[-1][1], polygon_at(path, end_ms - SPEED_MS)) / SPEED_MS
    way = (speed * (at_ms - end_ms)).mean(axis=0)
    if end_ms - path[0][0] >= SPEED_MS and 0 < at_ms - end_ms <= LONGEST_WAY_MS and np.linalg.norm(way) >= 1:
        places.append((to_polygon(np.array(path[-1][1]) + way), float(np.linalg.norm(way))))
    return places


def _shift_of_any_px(polygon: Polygon, appearance: Appearance, line: Sighting, far_px: float) -> float | None:
    """How far a line is from where a text is expected that it may be, whatever it says."""
    del appearance
    return _whole_shift_px(polygon, line, far_px)


def _shift_of_like_px(polygon: Polygon, appearance: Appearance, line: Sighting, far_px: float) -> float | None:
    """How far a line is from where a text is expected that it may be; None where it cannot be that."""
    short, long = sorted((folded_text(line.text), folded_text(appearance.text)), key=len)
    if are_alike(line.text, appearance.text) or (3 <= len(short) < len(long) and is_part(short, long)):
        # More of a line is read that comes in, or less of one that leaves; or its place was still that of a longer text
        # before it. One of its ends is where it was.
        return min(_end_shifts_px(polygon, line, far_px), default=None)
    if line.confidence >= SURE or is_unlike(line.text, appearance.text):
        return None
    return _whole_shift_px(polygon, line, far_px)


def _whole_shift_px(polygon: Polygon, line: Sighting, far_px: float = 0.0) -> float | None:
    """How far a line's middle is from where it should be; None where that is too far, or the line another size."""
    width, old_width = (max(polygon_size_wh(each)[0], 1.0) for each in (line.region.polygon, polygon))
    return _shift_px(polygon, line, _MIDDLE, far_px) if 1 / SAME_SIZE < width / old_width < SAME_SIZE else None


_MIDDLE = (0, 1, 2, 3)
_ENDS = ((0, 3), (1, 2))
"""The corners of a polygon between which its middle is, and those of its left and right end."""


def _shift_px(polygon: Polygon, line: Sighting, corners: Sequence[int], far_px: float) -> float | None:
    """How far the middle of these corners is from where it should be; None where it is too far, or the height another.

    Args:
        polygon: where the line should be.
        line: where it is.
        corners: their numbers.
        far_px: how far it has moved there: by a share of that it may have gone farther, or less far.
    """
    height, old_height = (max(polygon_size_wh(each)[1], 1.0) for each in (line.region.polygon, polygon))
    if not 1 / SAME_SIZE < height / old_height < SAME_SIZE:
        return None
    here, there = (np.mean([each[corner] for corner in corners], axis=0) for each in (line.region.polygon, polygon))
    shift_px = float(np.linalg.norm(here - there))
    return shift_px if shift_px <= SAME_PLACE * max(height, old_height) + SAME_WAY * far_px else None


def nothing_is_known(info: FrameInfo) -> Sequence[Appearance]:
    """The `Recall` of who has nowhere to look."""
    del info
    return ()


class StoreRecall:
    """What a store holds: the embedded mode's `Recall`.

    Args:
        store: where appearances are.
    """

    def __init__(self, store: DocumentStore) -> None:
        self._store = store

    def __call__(self, info: FrameInfo) -> Iterable[Appearance]:
        """See `Recall`."""
        since_ns, until_ns = (info.captured_at_ns + round(s * 1e9) for s in (-LONGEST_GAP_S, OVERLAP_S))
        found = self._store.appearances(Filter((info.source_id,), since_ns, until_ns))
        return [each for each in found if each.generation == info.generation]


class TopicRecall:
    """What recognisers have sent lately: the distributed mode's `Recall`; used by one thread.

    Args:
        transport: where they send it.
    """

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._read_at_s = float("-inf")
        self._sent: dict[str, deque[Delivery]] = {}

    def __call__(self, info: FrameInfo) -> Iterable[Appearance]:
        """See `Recall`."""
        if time.monotonic() - self._read_at_s > FRESH_S:
            self._read()
            self._read_at_s = time.monotonic()
        last_words: dict[str, Appearance] = {}
        newest_ns = 0
        # To read the topic takes little, to open what is in it takes long: no more of it than is needed, and once.
        for texts in map(_opened, reversed(self._sent.pop(info.key, ()))):
            if texts is None or texts.info.generation != info.generation:
                continue
            if texts.info.captured_at_ns >= info.captured_at_ns:
                continue
            if texts.appearances:
                newest_ns = max(newest_ns, texts.info.captured_at_ns)
            if newest_ns - texts.info.captured_at_ns > SPOKEN_OF_S * 1e9:
                break
            for appearance in texts.appearances:
                last_words.setdefault(appearance.track_id, appearance)
        return last_words.values()

    def _read(self) -> None:
        self._sent = {}
        since_ns = time.time_ns() - round((LONGEST_GAP_S + MARGIN_S) * 1e9)
        for delivery in self._transport.recent(TEXTS, since_ns):
            self._sent.setdefault(delivery.raw().key, deque(maxlen=MOST_RECORDS)).append(delivery)


def _opened(delivery: Delivery) -> Texts | None:
    """A record's texts; nothing of one that cannot be read, which the indexer sets aside."""
    try:
        message = delivery.open()
    except MalformedRecordError:
        return None
    return message if isinstance(message, Texts) else None
