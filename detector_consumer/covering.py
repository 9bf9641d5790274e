"""Tells that something is in front of a line from that it says something else.

Whoever walks past a sign hides the wall above and below it, too, in the same places, and leaves the rest of it as it
was, and does so bit by bit. A text that changes does so between its edges, or at once with the plate it stands on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from detector_consumer import flow
from detector_consumer.flow import Corners, Grey, Patches

COLUMNS, BAND_ROWS = 40, 4
"""A line is looked at in three bands: itself, and so much of its height above and below."""
BAND_HEIGHT = 0.6

DIFFERS_LEVELS, DIFFERS_SHARE = 10.0, 0.15
"""Levels of grey are others when they differ by so much, and by this share of what a line and its surroundings span."""
HIDDEN_SHARE, HIDDEN_LETTERS_SHARE = 0.5, 0.25
"""Of a column that is hidden so much has changed above or below the line, and in it: its plate may be as dark as what
is in front of it."""
LEAST_HIDDEN, LEAST_LEFT = 2, 0.2
"""Something is in front of a line where so many columns are hidden, and this share of them looks as before."""
LEFT_FIT, OTHER_FIT = 0.87, 0.7
"""And it is so much like it: signs of one scene are at least .92 where somebody walks past them. Where its letters are
less alike than the second the text is another one, and its plate has changed with it."""
MOST_A_SECOND, LEAST_AT_ONCE = 2.5, 0.1
"""Who comes in front of a line hides so many times its length a second at most. Where more of it, and at least the
second share, is gone from one frame to the next, the plate that it stands on has become shorter."""
EDGE_COLUMNS, ASKEW_COLUMNS = 2, 6
"""So many columns beside those that are hidden are not looked at, and the latter where they have changed, too: the edge
of what is in front may be askew or round."""


COVERED_S = 30.0
"""What has been in front of a line for so long stays there; what can be read then is what there is."""
CLEAR_S = 0.3
"""A line in front of which nothing is is remembered so often, as the light changes."""


@dataclass(frozen=True, slots=True)
class Front:
    """What is known of what has been in front of one line.

    Attributes:
        clear: what the line looked like when nothing was in front of it last, one line's `bands`.
        clear_at_ns: and when that was.
        covered_at_ns: when something was seen in front of it last; None when nothing has been since.
    """

    clear: Patches | None = None
    clear_at_ns: int = 0
    covered_at_ns: int | None = None

    def is_fresh(self, at_ns: int) -> bool:
        """Whether it is not long ago that nothing was in front of the line."""
        return at_ns - self.clear_at_ns < COVERED_S * 1e9

    def hides(self, at_ns: int) -> bool:
        """Whether something has come in front of the line of late."""
        return self.covered_at_ns is not None and self.is_fresh(at_ns)

    def gone(self) -> Front:
        """When all of the line has been found: it has grown, or the light is another."""
        return replace(self, covered_at_ns=None)

    def come(self, at_ns: int) -> Front:
        """When something is seen in front of the line."""
        return replace(self, covered_at_ns=at_ns)

    def after_clear(self, grey: Grey, corners: Corners, at_ns: int) -> Front:
        """When nothing is in front of the line, as far as can be told, in a small picture at ``(1, 4, 2)``."""
        if self.covered_at_ns is not None and at_ns - self.covered_at_ns < CLEAR_S * 1e9:
            # A bit of what goes may be there still.
            return self
        # What comes slowly would become a part of what is clear bit by bit.
        if at_ns - self.clear_at_ns >= CLEAR_S * 1e9:
            return Front(bands(grey, corners), at_ns)
        return self.gone()


def most_at_once(seconds: float) -> float:
    """The share of a line, 0 to 1, that something may hide that comes in front of it in so many seconds."""
    return max(MOST_A_SECOND * seconds, LEAST_AT_ONCE)


class Cover(NamedTuple):
    """What is in front of lines.

    Attributes:
        is_covered: ``(T,)``, whether something hides a part of the line, and the rest is there as before.
        hidden: ``(T,)``, the share of their length that is hidden, 0 to 1.
        is_clear: ``(T,)``, whether nothing of it is hidden, or what is left of it is another text.
        fit: ``(T,)``, how much what is not hidden looks like itself, -1 to 1.
    """

    is_covered: NDArray[np.bool_]
    hidden: NDArray[np.float64]
    is_clear: NDArray[np.bool_]
    fit: NDArray[np.float64]


def bands(grey: Grey, corners: Corners) -> Patches:
    """What lines look like with what is above and below them; samples in three bands, each of rows of columns."""
    return flow.sampled(grey, corners, _WEIGHTS)


def cover(before: Patches, now: Patches) -> Cover:
    """Compare lines with what they looked like when nothing was in front of them.

    Args:
        before: their `bands` then.
        now: those where they are expected.
    """
    seen = before.inside & now.inside
    least = DIFFERS_LEVELS + DIFFERS_SHARE * (before.levels.max(axis=1) - before.levels.min(axis=1))
    differs = (np.abs(now.levels - before.levels) > least[:, None]) & seen
    # (T, 3, COLUMNS): the share of each band's column that is other.
    share = differs.reshape(_SHAPE).sum(axis=2) / np.maximum(seen.reshape(_SHAPE).sum(axis=2), 1)
    changed = share[:, 1] >= HIDDEN_LETTERS_SHARE
    hidden = changed & (np.maximum(share[:, 0], share[:, 2]) >= HIDDEN_SHARE)
    left = ~(_grown(hidden, EDGE_COLUMNS) | (changed & _grown(hidden, ASKEW_COLUMNS)))
    # What is above and below it, too: behind what is written over a picture, the picture moves.
    where = np.tile(left, (1, 3 * BAND_ROWS))
    fit, letters = _fit(before, now, where), _fit(before, now, where & _IN_LINE)
    is_enough_left = left.mean(axis=1) >= LEAST_LEFT
    is_alike = (fit >= LEFT_FIT) & (letters >= LEFT_FIT)
    is_covered = (hidden.sum(axis=1) >= LEAST_HIDDEN) & is_enough_left & is_alike
    is_other = is_enough_left & (letters < OTHER_FIT)
    return Cover(is_covered, hidden.mean(axis=1), ~hidden.any(axis=1) | is_other, fit)


def _fit(before: Patches, now: Patches, where: NDArray[np.bool_]) -> NDArray[np.float64]:
    return flow.fit(Patches(before.levels, before.inside & where), now)


def _grown(columns: NDArray[np.bool_], by: int) -> NDArray[np.bool_]:
    return np.asarray(cv2.dilate(columns.astype(np.uint8), np.ones((1, 2 * by + 1), np.uint8)) > 0)


_SHAPE = -1, 3, BAND_ROWS, COLUMNS
_IN_LINE = np.repeat([False, True, False], BAND_ROWS * COLUMNS)
_WEIGHTS = flow.spread(
    np.concatenate(
        [(flow.evenly(BAND_ROWS) - 1) * BAND_HEIGHT, flow.evenly(BAND_ROWS), 1 + flow.evenly(BAND_ROWS) * BAND_HEIGHT]
    ),
    flow.evenly(COLUMNS),
)
