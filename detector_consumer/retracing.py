"""Tells since when a line has been there that the detector has only just found.

The detector is asked seldom, and its answer takes a while: meanwhile new text stands there unseen. What a source showed
of late is kept for so long, and a line that is found is followed back through it, as others are followed on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from detector_consumer import flow
from detector_consumer.flow import Corners, Grey
from detector_consumer.matching import Lines, beyond, overlaps
from detector_consumer.motion import Motion
from detector_consumer.stepping import STILL_FIT, Step
from ocrstream.geometry import Polygon, to_polygon
from ocrstream.messages import FrameInfo, Sight

REMEMBERED_S = 2.0
MOMENT_S = 0.1
"""So far apart are the pictures that are kept: a line is known to have been there to this time."""

THERE_FIT = 0.9
"""A line was there where a picture looks so much like it: two texts in one place are more alike than a text and a wall.
"""
THERE_SHARE = 0.5
"""And where so much of it was in the frame."""
TAKEN_IOU, TAKEN_SHARE = 0.3, 0.5
"""A place was another line's where both lie on each other so far, or the smaller one in the other."""

OVERLOOKED_S = 1.5
"""What has been there for so long when it is found has been overlooked: what comes up is found sooner."""


class Moment(NamedTuple):
    """What a source showed at a time.

    Attributes:
        info: the frame.
        grey: its small picture.
        scale: how many small pixels a pixel of the frame has along a side.
        motion: the camera's, from the moment before.
        in_sight: the lines that were known to be there, ``(T, 4, 2)`` in the frame's pixels.
    """

    info: FrameInfo
    grey: Grey
    scale: float
    motion: Motion
    in_sight: Lines


class Past:
    """What one source showed of late, since the last cut."""

    def __init__(self) -> None:
        self._moments: list[Moment] = []

    def note(self, info: FrameInfo, grey: Grey, scale: float, motion: Motion | None, in_sight: Lines) -> None:
        """Take in the next frame; see `Moment`. A motion of None is a cut."""
        if motion is None:
            self._moments = [Moment(info, grey, scale, Motion.none(), in_sight)]
            return
        # The frame before stays until the next one: how fast a line moves by itself is told by frames close together.
        if len(self._moments) > 2 and _apart_s(self._moments[-3], self._moments[-2]) < MOMENT_S:
            dropped = self._moments.pop(-2)
            last = self._moments.pop()
            self._moments.append(last._replace(motion=dropped.motion.then(last.motion)))
        self._moments.append(Moment(info, grey, scale, motion, in_sight))
        while _apart_s(self._moments[0], self._moments[-1]) > REMEMBERED_S:
            del self._moments[0]

    def moments(self) -> tuple[Moment, ...]:
        """What is remembered as of now, the newest frame last."""
        return tuple(self._moments)


class Traced(NamedTuple):
    """A line's way to where it was found.

    Attributes:
        sights: where it was seen at the moments before, oldest first, without a gap; empty where it was not.
        speed_px_s: how fast it moves beside the camera, ``(2,)`` in the frame's pixels; None where that is not known.
    """

    sights: tuple[Sight, ...]
    speed_px_s: NDArray[np.float64] | None


def retraced(moments: Sequence[Moment], found: Lines) -> list[Traced]:
    """Where lines were before they were found.

    Args:
        moments: what the source showed, up to the frame in which they were found.
        found: where they were found there, ``(N, 4, 2)`` in the frame's pixels.
    """
    sights: list[list[Sight]] = [[] for _ in found]
    speeds: list[NDArray[np.float64] | None] = [None] * len(found)
    newest = moments[-1]
    now = found * newest.scale
    reference = flow.patches(newest.grey, now)
    back_px_s = np.zeros((len(found), 2))
    followed = np.arange(len(found))
    for later, earlier in zip(reversed(moments[1:]), reversed(moments[:-1]), strict=True):
        if not len(followed):
            break
        step, seconds = _step_back(later, earlier, now, back_px_s, reference), _apart_s(earlier, later)
        is_there = _is_there(step, earlier)
        if seconds > 0:
            back_px_s = np.where(step.is_led[:, None], step.own() / seconds, back_px_s)
        now, reference, back_px_s = step.now[is_there], reference.of(np.flatnonzero(is_there)), back_px_s[is_there]
        followed = followed[is_there]
        for number, corners, back in zip(followed.tolist(), _in_frame(now, earlier), back_px_s, strict=True):
            sight = Sight(earlier.info.captured_at_ns, earlier.info.media_time_ms, to_polygon(corners.round(2)))
            sights[number].append(sight)
            if later is newest:
                speeds[number] = -back / newest.scale
    return [Traced(tuple(reversed(mine)), speed) for mine, speed in zip(sights, speeds, strict=True)]


def was_overlooked(moments: Sequence[Moment], known: Polygon, found: Polygon) -> bool:
    """Whether a line was found with more of its text than was known, and all of that has been there for a while.

    Args:
        moments: as in `retraced`.
        known: where the line was thought to be in the last of them.
        found: where it was found.
    """
    more = beyond(np.array(found), np.array(known))
    if not more:
        return False
    since_ns = [sights[0].at_ns if sights else None for sights, _ in retraced(moments, np.array(more))]
    oldest_ns, newest_ns = (moments[end].info.captured_at_ns for end in (0, -1))
    # As of a source's beginning, or a cut, nobody knows what was there before.
    latest_ns = max(newest_ns - round(OVERLOOKED_S * 1e9), oldest_ns)
    return all(at_ns is not None and at_ns <= latest_ns for at_ns in since_ns)


def _step_back(
    later: Moment, earlier: Moment, now: Corners, back_px_s: NDArray[np.float64], reference: flow.Patches
) -> Step:
    own = back_px_s * _apart_s(earlier, later)
    step = Step(later.grey, earlier.grey, now, later.motion.inverse(), own, reference)
    if not later.motion.is_still:
        step.let_rest(np.zeros(len(now), np.bool_))
    step.ask_points(np.flatnonzero((step.fit < STILL_FIT) & ~step.rests))
    # What lies around a line that moves by itself leads its points astray, the farther the moments are apart.
    step.ask_points(np.flatnonzero((step.fit < STILL_FIT) & ~step.rests & ~step.is_led), levels=0)
    step.look_around()
    return step


def _is_there(step: Step, moment: Moment) -> NDArray[np.bool_]:
    """Which lines were there, and were no others that were known."""
    inside = flow.patches(moment.grey, step.now).inside.mean(axis=1)
    is_there: NDArray[np.bool_] = (step.fit >= THERE_FIT) & (inside >= THERE_SHARE)
    lines = _in_frame(step.now, moment)
    if len(moment.in_sight) and len(lines):
        for (number, _), pair in overlaps(lines, moment.in_sight).items():
            if pair.iou >= TAKEN_IOU or pair.contained >= TAKEN_SHARE:
                is_there[number] = False
    return is_there


def _in_frame(corners: Corners, moment: Moment) -> Lines:
    """Small corners, moved into the frame, in its pixels."""
    height, width = moment.grey.shape
    return np.minimum(np.maximum(corners, 0), (width, height)) / moment.scale


def _apart_s(earlier: Moment, later: Moment) -> float:
    return (later.info.captured_at_ns - earlier.info.captured_at_ns) / 1e9
