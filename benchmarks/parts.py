"""The program without one of the parts that spare it work or better its texts, so that each one's gain is seen.

========= =============================================================================================
gate      the detector looks at every frame, as a whole
following a line stays where the detector found it, until it looks there again
cache     every line in sight is read in every frame
voting    of all that was read of a line the surest reading counts, instead of what they say together
========= =============================================================================================
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

from detector_consumer import glancing, tracking
from detector_consumer.asking import Asking
from detector_consumer.examining import frame_box
from detector_consumer.gating import Changes
from detector_consumer.views import Album, Look
from detector_consumer.watching import Watch
from ocrstream.geometry import Box
from recognizer_consumer.consensus import Consensus, Voted


def _without_gate(stack: ExitStack) -> None:
    def whole(
        _asking: Asking, _changes: Changes, _known: Any, size_wh: tuple[int, int], *_: Any, **__: Any
    ) -> list[Box]:
        return [frame_box(size_wh)]

    stack.enter_context(patch.object(Asking, "parts", whole))
    _without_passing_over(stack)


def _without_passing_over(stack: ExitStack) -> None:
    stack.enter_context(patch.object(glancing, "is_unchanged", lambda *_: False))


def _without_following(stack: ExitStack) -> None:
    def stay(source: Any, _grey: object, _motion: object, at_ns: int) -> None:
        for track in source.tracks:
            track.seen_at_ns = at_ns

    stack.enter_context(patch.object(tracking, "_move", stay))
    # Where nothing is followed, a line that moves or goes is a change that nothing explains.
    stack.enter_context(patch.object(Changes, "unexplained_by", lambda changes, _polygons: changes))


def _without_cache(stack: ExitStack) -> None:
    stack.enter_context(patch.object(Album, "look", lambda *_: Look.CHANGED))
    stack.enter_context(patch.object(Watch, "_is_time_to_look", lambda _watch: True))
    _without_passing_over(stack)


def _without_voting(stack: ExitStack) -> None:
    best: dict[Consensus, Voted] = {}
    count = Consensus.add

    def add(
        consensus: Consensus, text: str, confidence: float, characters: Sequence[float] = (), view: float = 1.0
    ) -> None:
        count(consensus, text, confidence, characters, view)
        if consensus not in best or confidence > best[consensus].confidence:
            best[consensus] = Voted(text, confidence)

    stack.callback(best.clear)
    stack.enter_context(patch.object(Consensus, "add", add))
    stack.enter_context(patch.object(Consensus, "voted", lambda consensus, *_: best[consensus]))


PARTS: dict[str, Callable[[ExitStack], None]] = {
    "gate": _without_gate,
    "following": _without_following,
    "cache": _without_cache,
    "voting": _without_voting,
}


@contextmanager
def without(part: str | None) -> Iterator[None]:
    """Run the program without a part of it; with all of them for None."""
    with ExitStack() as stack:
        if part is not None:
            PARTS[part](stack)
        yield
