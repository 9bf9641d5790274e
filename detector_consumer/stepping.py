"""The way of all known lines of a source from one small picture to the next: where they are expected, and found.

All lines are handled in one go: their corners are ``(T, 4, 2) float64`` in small pixels, see `detector_consumer.flow`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector_consumer import flow
from detector_consumer.covering import bands, cover
from detector_consumer.flow import Corners, Grey, Patches
from detector_consumer.motion import Motion

STILL_FIT = 0.97
"""A line that looks like this where it was expected is there; its points need not be asked."""
CLEAR_FIT = 0.985
"""In front of a line that looks like this is nothing."""
VISIBLE_FIT = 0.5
"""Below this likeness something is in front of a line, or it has gone."""
SAME_FIT = 0.9
"""Above this likeness nothing of a line has changed."""
SURE_FIT = 0.8
"""Above this likeness it is the detector that missed the line."""

MIN_SUPPORT = 0.4
DRIFT_PX = (1.0, 1.0, 0.5)
"""A line that does not look like itself is looked for around where it should be in such steps; in small pixels."""
ALIKE = 0.02
"""A difference in likeness that means nothing."""
STEADY_PX = 0.1
"""A speed of less than this a frame is noise; in small pixels."""

REST_PX, REST_GAIN = 1.0, 0.1
"""A camera that moves by less than this, in small pixels, tells little of whether a line goes with it. One that stays
where it is has to look so much more like itself there."""


class Step:
    """All lines' way from one small picture to the next, in small pixels.

    Attributes:
        now: ``(T, 4, 2)``, where they are as far as is known.
        fit: ``(T,)``, how much they look like themselves there.
        is_led: ``(T,)``, whether their own points brought them there.
        rests: ``(T,)``, whether they are where they were in the frame while the camera moved.
        is_covered: ``(T,)``, whether something is in front of a part of them, and the rest is where it was expected.
    """

    def __init__(
        self,
        before_grey: Grey,
        grey: Grey,
        before: Corners,
        motion: Motion,
        own: NDArray[np.float64],
        reference: Patches,
    ) -> None:
        """Begin where lines are expected: where the camera's motion and their own take them.

        Args:
            before_grey: the picture in which they were.
            grey: the one to which they go.
            before: where they were.
            motion: the camera's, from one to the other.
            own: ``(T, 2)``, how far they are thought to go beside it.
            reference: what they look like.
        """
        camera = motion.move(before)
        is_steady = np.linalg.norm(own, axis=1) < STEADY_PX
        expected = camera + np.where(is_steady[:, None], 0.0, own)[:, None]
        self._before_grey, self._grey = before_grey, grey
        self._before, self._camera, self._reference = before, camera, reference
        self.now = expected
        self.fit = flow.fit(reference, flow.patches(grey, expected))
        self.is_led = np.zeros(len(expected), np.bool_)
        self.rests = np.zeros(len(expected), np.bool_)
        self.is_covered = np.zeros(len(expected), np.bool_)
        self._expected = expected.copy()

    def own(self) -> NDArray[np.float64]:
        """How far the lines moved beside the camera, ``(T, 2)``."""
        moved: NDArray[np.float64] = (self.now - self._camera).mean(axis=1)
        return moved

    def let_rest(self, did_rest: NDArray[np.bool_]) -> None:
        """Leave lines where they are in the frame that look more like themselves there than where they would go.

        A date that is written into the picture does not go with the camera, and what is behind it draws its points
        along.

        Args:
            did_rest: ``(T,)``, which lines have rested last. They go on where the camera moves too little to tell, and
                where they look like themselves nowhere, as when what moves behind them is as bright as they are.
        """
        is_told = np.linalg.norm((self.now - self._before).mean(axis=1), axis=1) >= REST_PX
        (asked,) = np.nonzero(did_rest | (is_told & (self.fit < STILL_FIT)))
        if not len(asked):
            return
        fit = flow.fit(self._reference.of(asked), flow.patches(self._grey, self._before[asked]))
        gain = fit - self.fit[asked]
        is_lost = np.maximum(fit, self.fit[asked]) < VISIBLE_FIT
        least = np.where(is_told[asked], np.where(did_rest[asked], 0.0, REST_GAIN), -ALIKE)
        rests = np.where(is_lost, did_rest[asked], (fit >= VISIBLE_FIT) & (gain > least))
        chosen = asked[rests]
        self.now[chosen], self.fit[chosen], self.rests[chosen] = self._before[chosen], fit[rests], True
        self._expected[chosen] = self._before[chosen]

    def ask_points(
        self,
        which: NDArray[np.intp],
        expected: Corners | None = None,
        levels: int = flow.LEVELS,
        least_fit: float | NDArray[np.float64] = VISIBLE_FIT,
    ) -> None:
        """Let some lines' own points say where they are, as long as they look like themselves there.

        Args:
            which: their numbers.
            expected: where to look for them, one each; where they are thought to be by default.
            levels: how far around, see `flow.follow`.
            least_fit: how much like themselves they have to look there, one each or all.
        """
        if not len(which):
            return
        expected = self.now[which] if expected is None else expected
        led = flow.follow(self._before_grey, self._grey, self._before[which], expected, levels)
        fit = flow.fit(self._reference.of(which), flow.patches(self._grey, led.corners))
        trusted = (led.support >= MIN_SUPPORT) & (fit >= least_fit) & (fit >= self.fit[which] - ALIKE)
        chosen = which[trusted]
        self.now[chosen], self.fit[chosen], self.is_led[chosen] = led.corners[trusted], fit[trusted], True

    def see_covered(self, clear: Patches, which: NDArray[np.bool_], most: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Leave lines where they were expected that something hides in part: its pixels would take them along.

        Args:
            clear: what they looked like when nothing was in front of them.
            which: ``(T,)``, of which lines that is not long ago.
            most: ``(T,)``, below which share, 0 to 1, each may be hidden; of more it is shorter.

        Returns:
            ``(T,)``, in front of which nothing is.
        """
        is_clear = np.ones(len(self.now), np.bool_)
        (unlike,) = np.nonzero(self.fit < CLEAR_FIT)
        if not len(unlike):
            return is_clear
        expected = cover(clear.of(unlike), bands(self._grey, self._expected[unlike]))
        is_clear[unlike] = expected.is_clear
        is_asked = which[unlike] & expected.is_covered & (expected.fit > self.fit[unlike] + ALIKE)
        is_asked &= expected.hidden < most[unlike]
        asked = unlike[is_asked]
        if not len(asked):
            return is_clear
        # What grows or goes its own way covers more of what is around it, and is all there where its points say.
        is_clear[asked] = cover(clear.of(asked), bands(self._grey, self.now[asked])).is_clear
        is_covered = ~is_clear[asked]
        covered = asked[is_covered]
        self.is_covered[covered], self.is_led[covered] = True, False
        self.now[covered], self.fit[covered] = self._expected[covered], expected.fit[is_asked][is_covered]
        return is_clear

    def ask_companions(self, is_new: NDArray[np.bool_]) -> None:
        """Let new lines that their points lost in one jump go where the nearest line went that moves by itself."""
        strays = np.flatnonzero(is_new & ~self.is_led & (self.fit < VISIBLE_FIT))
        movers = np.flatnonzero(self.is_led & (np.linalg.norm(self.own(), axis=1) > STEADY_PX))
        if not len(strays) or not len(movers):
            return
        middle = self._before.mean(axis=1)
        apart = np.linalg.norm(middle[strays][:, None] - middle[movers][None], axis=2)
        went = self.own()[movers[apart.argmin(axis=1)]]
        self.ask_points(strays, self._camera[strays] + went[:, None], levels=0)

    def look_around(self) -> None:
        """Put lines back that have come off bit by bit: steps from picture to picture are a little off each."""
        (off,) = np.nonzero((self.fit < SURE_FIT) & ~self.is_covered)
        if not len(off):
            return
        reference, places, fit = self._reference.of(off), self.now[off], self.fit[off]
        for step_px in DRIFT_PX:
            began = places.copy()
            for shift in _AROUND:
                there = began + step_px * shift
                fit_there = flow.fit(reference, flow.patches(self._grey, there))
                better = fit_there > fit
                places[better], fit[better] = there[better], fit_there[better]
        # What is hidden looks a little like this or that.
        found = fit >= SURE_FIT
        self.now[off[found]], self.fit[off[found]] = places[found], fit[found]

    def is_restless(self) -> NDArray[np.bool_]:
        """Which lines look unlike themselves, and otherwise than a moment ago, ``(T,)``."""
        restless = np.zeros(len(self.now), np.bool_)
        (unlike,) = np.nonzero(self.fit < SURE_FIT)
        if len(unlike):
            moment_ago = flow.patches(self._before_grey, self._before[unlike])
            restless[unlike] = flow.fit(moment_ago, flow.patches(self._grey, self.now[unlike])) < STILL_FIT
        return restless


_AROUND = np.array([(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1) if x or y], np.float64)
