"""When the detector is asked about a source's frames, and about which parts of them."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import cv2
import numpy as np

from detector_consumer.examining import frame_box, parts_to_examine
from detector_consumer.gating import Changes, Tiles
from detector_consumer.tracks import Followed
from ocrstream.geometry import Box

EXAMINE_AFTER_S, EXAMINE_IDLE_S = 0.3, 1.0
"""The detector is not asked again sooner, however much changes: text has to stand a while to be read by anybody. While
it finds nothing new where something changes (somebody walks by, trees move, a clock ticks) it is asked less and less
often of that."""

IDLE_FACTOR = 1.5

VAIN_TILES = 2
"""Changes so near to where nothing new was found are more of the same."""

EXAMINE_LOST_S = 0.1
"""But so soon, once, where a line is seen no more: another one is likely in its place."""


class Asking:
    """What the detector was asked of one source, and has answered, as far as it decides on the next question."""

    def __init__(self) -> None:
        self._at_ns: int | None = None
        self._wait_s = EXAMINE_AFTER_S
        self._in_vain: Tiles | None = None
        self._tiles: Tiles | None = None
        self._gone: Tiles | None = None
        self._in_sight: frozenset[str] = frozenset()
        self._stayed: frozenset[str] = frozenset()
        self._found: frozenset[str] = frozenset()

    @property
    def begins(self) -> bool:
        """Whether the next frame is asked about as a whole, whatever it shows."""
        return self._at_ns is None

    def begin_anew(self) -> None:
        """Take note of a cut, or that the detector has failed."""
        self._at_ns = None

    def asked(self, at_ns: int, changes: Changes, known: Sequence[Followed]) -> None:
        """Take note of a question.

        Args:
            at_ns: when the frame was taken.
            changes: what has changed in it, that no known line explains.
            known: the known lines, those out of sight too.
        """
        self._at_ns, self._tiles = at_ns, changes.news
        self._gone = changes.covered_by([track.polygon for track in known if not track.is_visible])
        in_sight = frozenset(track.track_id for track in known if track.is_visible)
        # Another caption in the place of one that has gone may look like it at once.
        self._stayed = in_sight & (self._in_sight | self._found)
        self._in_sight, self._found = in_sight, frozenset()

    def answered(self, found: Collection[str]) -> bool:
        """Take note of an answer; whether a line was found that was not in sight all the time since the last question.

        Args:
            found: the lines that were found.
        """
        assert self._tiles is not None
        assert self._gone is not None
        self._found = frozenset(found)
        if self._found - self._stayed:
            self._wait_s, self._in_vain = EXAMINE_AFTER_S, None
            return True
        if not self._tiles.any():
            # What is only due says nothing of when to look again.
            return False
        self._wait_s = min(IDLE_FACTOR * self._wait_s, EXAMINE_IDLE_S)
        # Where a text has gone the next one may come.
        in_vain = _grown(self._tiles) & ~_grown(self._gone)
        if self._in_vain is not None and self._in_vain.shape == in_vain.shape:
            in_vain |= self._in_vain
        self._in_vain = in_vain
        return False

    def parts(
        self,
        changes: Changes,
        known: Sequence[Followed],
        size_wh: tuple[int, int],
        at_ns: int,
        *,
        has_time: bool,
        at_rest: Collection[str] = (),
    ) -> list[Box]:
        """The parts of a frame that the detector is to look at; often none.

        Args:
            changes: what has changed in it, that no known line explains.
            known: the known lines, those out of sight too.
            size_wh: the frame's size.
            at_ns: when it was taken.
            has_time: whether there is time for more than what is entirely new.
            at_rest: the lines whose pictures have changed for a while and have come to rest since the last question:
                meanwhile they may have been found in pieces, or with some of what was there before.
        """
        whole = frame_box(size_wh)
        if self._at_ns is None:
            return [whole]
        in_sight = [track for track in known if track.is_visible]
        # The rest of a line that the frame's edge cut off when it was found.
        come_in = [track.polygon for track in in_sight if track.has_come_in]
        out_of_sight = [track for track in known if not track.is_visible]
        is_lost = any(track.track_id in self._in_sight for track in out_of_sight)
        # What was found and not taken for what it is has not changed since.
        mistaken = [track.polygon for track in out_of_sight if track.track_id in self._found and not track.is_covered]
        if is_lost or mistaken:
            wait_s = EXAMINE_LOST_S
        elif come_in or at_rest or self._is_elsewhere(changes.tiles):
            wait_s = EXAMINE_AFTER_S
        else:
            wait_s = self._wait_s
        if not has_time or at_ns - self._at_ns < wait_s * 1e9:
            return []
        doubted = [track.polygon for track in in_sight if track.is_doubted or track.track_id in at_rest]
        return parts_to_examine(changes, [*come_in, *doubted, *mistaken], [track.polygon for track in in_sight], whole)

    def _is_elsewhere(self, tiles: Tiles) -> bool:
        """Whether anything has changed where nothing was looked for in vain of late."""
        if self._in_vain is None or self._in_vain.shape != tiles.shape:
            return bool(tiles.any())
        return bool((tiles & ~self._in_vain).any())


def _grown(tiles: Tiles) -> Tiles:
    """Tiles, and those that are so near to them that what changes there is more of the same."""
    size = 2 * VAIN_TILES + 1
    return np.asarray(cv2.dilate(tiles.astype(np.uint8), np.ones((size, size), np.uint8)) > 0)
