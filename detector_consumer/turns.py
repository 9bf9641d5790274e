"""When a line's turn to be read comes, where its picture does not tell: once more, or now that it has come in."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from detector_consumer.tracks import Followed

READ_AGAIN_S, READ_SELDOM_S, READ_FACTOR = 0.3, 60.0, 1.5
"""A line that stands still is read again after this time, then after half as much more, and so on: noise differs, and
a vote needs voices. When its picture has changed this begins anew: it may have been read while it still changed."""

COMING_IN_S = 1.0
"""A line that the frame's edge cuts off is read after this time, and again, at the latest."""


class Turns:
    """When the lines of one source were read, and when they are to be read again."""

    def __init__(self) -> None:
        self._read: dict[str, _Read] = {}
        self._first_ns: dict[str, int] = {}

    def note(self, track_id: str, at_ns: int, *, is_changed: bool) -> None:
        """Take note that a line is read now, and whether its picture is another one than before."""
        read = self._read.get(track_id)
        wait_s = READ_AGAIN_S if read is None or is_changed else min(READ_FACTOR * read.wait_s, READ_SELDOM_S)
        self._read[track_id] = _Read(at_ns, wait_s)

    def is_due(self, line: Followed, at_ns: int) -> bool:
        """Whether a line that shows nothing new is to be read once more."""
        read = self._read.get(line.track_id)
        return read is not None and line.is_whole and at_ns - read.at_ns >= read.wait_s * 1e9

    def is_coming_in(self, line: Followed, at_ns: int) -> bool:
        """Whether the frame's edge cuts off a line that was read or came into view just now: soon more is there."""
        since_ns = self._first_ns.setdefault(line.track_id, at_ns)
        if line.track_id in self._read:
            since_ns = self._read[line.track_id].at_ns
        return not line.is_whole and at_ns - since_ns < COMING_IN_S * 1e9

    def keep(self, track_ids: Collection[str]) -> None:
        """Forget all other lines."""
        for kept in (self._read, self._first_ns):
            for track_id in kept.keys() - track_ids:
                del kept[track_id]


class _Read(NamedTuple):
    """When a line was sent to be read last, and how long it then is before it is sent again."""

    at_ns: int
    wait_s: float
