"""Whether what the detector found is a piece of a known line, or a known line a piece of what it found."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector_consumer import flow
from detector_consumer.matching import SAME_PLACE_IOU, Overlap, beyond
from detector_consumer.stepping import SAME_FIT, SURE_FIT, VISIBLE_FIT
from detector_consumer.tracks import Source, Track
from ocrstream.geometry import polygon_size_wh, to_polygon

MOST_LEFT = 0.95
"""A piece of a line is at most this share of it long."""
BLANK, WRITTEN = 0.3, 0.5
"""What is left of the line has at least the first share of the piece's contrast, and where it does not look as before
the second one."""
LETTER, MIN_BIT, MOST_BIT = 1.2, 0.5, 0.5
"""A bit of a line is at most so many times as long as high, lies so far in it, and is at most this share of it long."""


def is_piece(found: NDArray[np.float64], track: Track, pair: Overlap, source: Source) -> bool:
    """Whether what was found is a piece of a line that is there as before, or that something hides in part.

    Where words stand far apart the detector joins them in one frame and not in the next. A shorter text in the place of
    another is no piece of that: it does not look as the line did there.
    """
    if source.grey is None or track.reference is None or not pair.is_part:
        return False
    if pair.iou >= SAME_PLACE_IOU and track.fit < SAME_FIT:
        # It may say something else that is a little shorter.
        return False
    if length_px(found) >= MOST_LEFT * length_px(source.in_frame(track.corners)):
        return False
    corners = track.corners[None] * source.scale
    now = flow.patches(source.grey, corners)
    fit = float(flow.fit(flow.within(track.reference, corners, found[None] * source.scale), now)[0])
    if track.front.hides(source.at_ns):
        # A piece beside what is in front of a line reaches over its edge.
        return fit >= VISIBLE_FIT
    return fit >= SURE_FIT and all(_is_there(rest, found, now, track, source) for rest in beyond(track.corners, found))


def _is_there(
    rest: NDArray[np.float64], found: NDArray[np.float64], now: flow.Patches, track: Track, source: Source
) -> bool:
    """Whether a line that looks like this now still has letters in a part of it that was not found.

    Where a text dissolves into a shorter one in its place, the line looked like a mixture of both when it was last
    found, and in the shorter one's place it looks like that still.
    """
    assert source.grey is not None
    assert track.reference is not None
    here, there = (flow.patches(source.grey, part[None] * source.scale).levels.std() for part in (rest, found))
    if here < BLANK * there:
        return False
    seen = flow.within(track.reference, track.corners[None] * source.scale, rest[None] * source.scale)
    fit = float(flow.fit(seen, now)[0])
    return fit >= VISIBLE_FIT or here >= WRITTEN * there


def is_bit(track: Track, found: NDArray[np.float64], pair: Overlap) -> bool:
    """Whether what is known of a line is a bit of one that was found: a letter, or less at the frame's edge."""
    length, height = polygon_size_wh(to_polygon(track.corners))
    is_letter = track.torn.is_torn or length < LETTER * height
    return is_letter and pair.contained >= MIN_BIT and length < MOST_BIT * length_px(found)


def length_px(corners: NDArray[np.float64]) -> float:
    """How long a line is, ``(4, 2)``, in pixels."""
    return polygon_size_wh(to_polygon(corners))[0]
