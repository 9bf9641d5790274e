"""The detector is asked soon where something new may be, and ever more seldom where it looked in vain."""

from typing import Any

import numpy as np
import pytest

from detector_consumer.asking import EXAMINE_AFTER_S, EXAMINE_IDLE_S, EXAMINE_LOST_S, Asking
from detector_consumer.gating import Changes, Why
from detector_consumer.tracks import Followed
from ocrstream.geometry import Box, box_polygon

SIZE_WH = (640, 360)
TILE_PX = 20
SIGN = box_polygon(40.0, 30.0, 240.0, 74.0)


def changed(*tiles: tuple[int, int]) -> Changes:
    """A frame in which these tiles have changed: row and column."""
    why = np.full((18, 32), Why.QUIET, np.uint8)
    for tile in tiles:
        why[tile] = Why.CHANGED
    return Changes(why, TILE_PX, SIZE_WH)


def line(track_id: str, **changes: Any) -> Followed:
    known: dict[str, Any] = {
        "track_id": track_id,
        "polygon": SIGN,
        "known": SIGN,
        "score": 0.9,
        "moved_px": 0.0,
        "fit": 1.0,
        "is_visible": True,
        "is_whole": True,
        "has_come_in": False,
        "is_doubted": False,
        "is_covered": False,
    }
    return Followed(**known | changes)


def parts(asking: Asking, at_s: float, changes: Changes, *known: Followed, has_time: bool = True) -> list[Box]:
    return asking.parts(changes, known, SIZE_WH, round(at_s * 1e9), has_time=has_time)


def waits_s(asking: Asking, since_s: float, changes: Changes, *known: Followed) -> float:
    """How long after a question the next one comes."""
    return next(wait for wait in np.arange(0, 3, 0.01) if parts(asking, since_s + wait, changes, *known))


def answered(changes: Changes, *known: Followed, found: str = "", times: int = 1) -> Asking:
    """Asked at 0 s, so many times, and answered: what is in sight was found, and these lines."""
    asking = Asking()
    asking.asked(0, changed(), known)
    for _ in range(times):
        asking.asked(0, changes, known)
        seen = [track.track_id for track in known if track.is_visible]
        assert asking.answered([*seen, *found]) == bool(found)
    return asking


def test_at_first_and_after_a_cut_all_of_the_frame_is_looked_at() -> None:
    asking = Asking()
    assert asking.begins
    assert parts(asking, 0, changed(), has_time=False) == [(0.0, 0.0, 640.0, 360.0)]
    asking.asked(0, changed(), ())
    assert not asking.begins
    assert parts(asking, 9, changed()) == []
    asking.begin_anew()
    assert asking.begins


def test_a_line_whose_picture_has_come_to_rest_is_looked_at_though_nothing_changes() -> None:
    asking = answered(changed(), line("a"))
    assert parts(asking, 1, changed(), line("a")) == []
    asked = [
        asking.parts(changed(), [line("a")], SIZE_WH, round(at_s * 1e9), has_time=True, at_rest={"a"})
        for at_s in (EXAMINE_AFTER_S - 0.01, EXAMINE_AFTER_S)
    ]
    ((x0, y0, x1, y1),) = asked[1]
    assert asked[0] == []
    assert (x0, y0, x1, y1) != (0.0, 0.0, 640.0, 360.0)
    assert x0 <= 40
    assert y0 <= 30
    assert x1 >= 240
    assert y1 >= 74


def test_what_is_looked_at_in_vain_is_looked_at_ever_more_seldom_and_elsewhere_soon() -> None:
    fan, banner = changed((15, 28)), changed((15, 28), (2, 2))
    waits = [waits_s(answered(fan, times=times), 0, fan) for times in (1, 2, 3, 9)]
    assert waits == sorted(waits)
    assert waits[0] == pytest.approx(EXAMINE_AFTER_S * 1.5, abs=0.02)
    assert waits[-1] == pytest.approx(EXAMINE_IDLE_S, abs=0.02)
    assert waits_s(answered(fan, times=9), 0, banner) == pytest.approx(EXAMINE_AFTER_S, abs=0.02)
    # Where something was found after all, everything counts again.
    assert waits_s(answered(fan, found="a"), 0, fan) == pytest.approx(EXAMINE_AFTER_S, abs=0.02)


def test_what_was_due_was_not_looked_at_in_vain() -> None:
    caption = changed((2, 2))
    assert waits_s(answered(changed(), times=9), 0, caption) == pytest.approx(EXAMINE_AFTER_S, abs=0.02)


def test_where_a_line_is_lost_it_is_looked_soon() -> None:
    clock = changed((2, 4))
    asking = answered(clock, line("a"), times=9)
    assert waits_s(asking, 0, clock, line("a")) > EXAMINE_AFTER_S
    assert waits_s(asking, 0, clock, line("a", is_visible=False)) == pytest.approx(EXAMINE_LOST_S, abs=0.02)
    assert waits_s(asking, 0, clock, line("b", is_visible=False)) > EXAMINE_AFTER_S


def test_without_time_nothing_but_what_is_entirely_new_is_looked_at() -> None:
    asking = answered(changed())
    assert parts(asking, 5, changed((2, 2)))
    assert parts(asking, 5, changed((2, 2)), has_time=False) == []


def test_where_a_text_has_gone_the_next_one_is_looked_for_soon() -> None:
    caption = changed((2, 4), (2, 5), (3, 8))
    gone = answered(caption, line("a", is_visible=False))
    assert waits_s(gone, 0, caption) == pytest.approx(EXAMINE_AFTER_S, abs=0.02)
    assert waits_s(answered(caption), 0, caption) > EXAMINE_AFTER_S + 0.1
