"""What the frames of one source tell by their pictures alone, worked out ahead where there is time.

One frame after the other is taken; while it is dealt with, the one after it can be looked at already::

    glances = Glances(aside)
    glance = glances.take(info, shown)
    glances.expect(next_info, next_shown)
"""

from __future__ import annotations

from concurrent.futures import Executor, Future
from typing import NamedTuple

from detector_consumer.motion import Greys, Motion, MotionEstimator, is_unchanged, shrink
from ocrstream.messages import FrameInfo
from ocrstream.picture import Picture

FOLLOW_AFTER_S = 0.1
"""A frame that shows what the last one did is passed over for so long; slow change adds up to more than that."""


class Glance(NamedTuple):
    """A look at a frame.

    Attributes:
        greys: its grey copies.
        motion: the camera's since the frame before; None for a cut, and for the first frame.
        is_unchanged: whether it shows what the last one did that was no such frame, and that is not long ago.
    """

    greys: Greys
    motion: Motion | None
    is_unchanged: bool


class _Last(NamedTuple):
    """What the next frame is held against.

    Attributes:
        greys: of the last frame that had changed, or was not told from it.
        is_still: whether the camera was at rest then.
        changed_at_ns: when that was taken.
        at_ns: when the last frame was taken.
    """

    greys: Greys
    is_still: bool
    changed_at_ns: int
    at_ns: int


class Glances:
    """Looks at the frames of one source, in their order. A frame from before the last begins afresh.

    Args:
        aside: one thread, or something like it, that looks at frames while those before them are dealt with; None: all
            is worked out when it is asked for.
    """

    def __init__(self, aside: Executor | None = None) -> None:
        self._aside = aside
        self._estimator = MotionEstimator()
        self._last: _Last | None = None
        self._expected: tuple[Picture, Future[tuple[Glance, _Last]]] | None = None

    def take(self, info: FrameInfo, shown: Picture) -> Glance:
        """Look at the next frame.

        Raises:
            MalformedRecordError: the picture cannot be decoded; then nothing has happened.
        """
        expected, self._expected = self._expected, None
        if expected is not None and expected[0] is shown:
            glance, self._last = expected[1].result()
            return glance
        if expected is not None:
            # Another frame comes: what was made of that one is of no use, and must not be in the making any more.
            expected[1].exception()
        glance, self._last = self._look(self._last, info, shown)
        return glance

    def expect(self, info: FrameInfo, shown: Picture) -> None:
        """Begin to look at the frame that is taken next, if there is a thread for it."""
        if self._aside is not None:
            self._expected = shown, self._aside.submit(self._look, self._last, info, shown)

    def _look(self, last: _Last | None, info: FrameInfo, shown: Picture) -> tuple[Glance, _Last]:
        greys, at_ns = shrink(shown), info.captured_at_ns
        motion = None
        if last is not None and last.greys.small.shape == greys.small.shape and at_ns >= last.at_ns:
            is_soon = at_ns - last.changed_at_ns < FOLLOW_AFTER_S * 1e9
            if last.is_still and is_soon and is_unchanged(last.greys.small, greys.small):
                return Glance(greys, Motion.none(), is_unchanged=True), last._replace(at_ns=at_ns)
            motion = self._estimator.estimate(last.greys.small, greys.small)
        # The gate asks for it soon.
        _ = greys.even
        return Glance(greys, motion, is_unchanged=False), _Last(
            greys, motion is not None and motion.is_still, at_ns, at_ns
        )
