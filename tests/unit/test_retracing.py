"""Since when a line was there that was found only now."""

from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from detector_consumer.matching import Lines
from detector_consumer.motion import Grey, Motion, MotionEstimator
from detector_consumer.retracing import MOMENT_S, OVERLOOKED_S, REMEMBERED_S, Past, retraced, was_overlooked
from ocrstream.geometry import bounding_box, box_polygon
from ocrstream.messages import FrameInfo, Sight

SIZE_WH = (480, 270)
FPS = 30
NOBODY = np.zeros((0, 4, 2))
UNSEEN = [((), None)]
PLATE = (120, 90, 210, 106)


def info(number: int) -> FrameInfo:
    ms = number * 1000 / FPS
    return FrameInfo("hall", f"f{number}", round((100 + ms / 1000) * 1e9), *SIZE_WH, live=False, media_time_ms=ms)


def wall() -> Grey:
    rng = np.random.default_rng(5)
    coarse = cv2.resize(rng.uniform(40, 220, (36, 64)).astype(np.float32), SIZE_WH, interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse, 0, 255).astype(np.uint8)


def with_sign(picture: Grey, x: int = PLATE[0], text: str = "GATE B12") -> Grey:
    _, y0, _, y1 = PLATE
    drawn = picture.copy()
    cv2.rectangle(drawn, (x, y0), (x + 90, y1), 230, -1)
    cv2.putText(drawn, text, (x + 4, y1 - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 20, 1, cv2.LINE_AA)
    return drawn


def line(x0: float, y0: float, x1: float, y1: float) -> Lines:
    return np.array([box_polygon(x0, y0, x1, y1)], np.float64)


def past(pictures: list[Grey], in_sight: Lines = NOBODY) -> Past:
    """What a source that showed these pictures remembers."""
    seen, estimator = Past(), MotionEstimator()
    before: Grey | None = None
    for number, picture in enumerate(pictures):
        noise = np.random.default_rng(number).normal(0, 2, picture.shape)
        now = np.clip(picture + noise, 0, 255).astype(np.uint8)
        motion = None if before is None else estimator.estimate(before, now)
        seen.note(info(number), now, 1.0, motion, in_sight)
        before = now
    return seen


def began_ms(sights: Sequence[Sight]) -> float:
    """When a line was seen first, in media time."""
    assert sights[0].media_time_ms is not None
    return sights[0].media_time_ms


def test_a_sign_was_there_since_it_came_up_and_not_before() -> None:
    seen = past([wall()] * 20 + [with_sign(wall())] * 25)
    ((sights, _),) = retraced(seen.moments(), line(*PLATE))
    assert 20 * 1000 / FPS <= began_ms(sights) <= 20 * 1000 / FPS + MOMENT_S * 1000 + 1
    assert sights[0].at_ns == 100_000_000_000 + round(began_ms(sights) * 1e6)
    times_ms = [sight.media_time_ms for sight in sights if sight.media_time_ms is not None]
    assert times_ms == sorted(times_ms)
    assert max(np.diff(times_ms)) <= 1000 * MOMENT_S + 1000 / FPS + 1
    assert all(bounding_box(sight.polygon) == pytest.approx(PLATE, abs=0.5) for sight in sights)


def test_a_sign_that_goes_its_own_way_is_followed_back() -> None:
    seen = past([with_sign(wall(), 40 + 2 * n) for n in range(40)])
    ((sights, speed_px_s),) = retraced(seen.moments(), line(118, 90, 208, 106))
    assert speed_px_s == pytest.approx((2 * FPS, 0), abs=5)
    assert len(sights) > 8
    for sight in sights:
        assert sight.media_time_ms is not None
        x = 40 + 2 * sight.media_time_ms * FPS / 1000
        assert bounding_box(sight.polygon) == pytest.approx((x, 90, x + 90, 106), abs=1.5)


def test_a_sign_goes_back_with_the_camera() -> None:
    sign = with_sign(wall())
    pictures = [np.roll(sign, 3 * n, axis=1)[:, 120:420] for n in range(30)]
    seen = past([np.ascontiguousarray(picture) for picture in pictures])
    ((sights, _),) = retraced(seen.moments(), line(87, 90, 177, 106))
    assert len(sights) >= 8
    first = sights[0]
    # Half of it had come in over the left edge.
    assert bounding_box(first.polygon)[0] == pytest.approx(0, abs=0.2)
    assert bounding_box(first.polygon)[2] == pytest.approx(90 + 3 * began_ms(sights) * FPS / 1000, abs=1.5)
    assert bounding_box(first.polygon)[2] >= 45


def test_what_stood_there_before_under_another_name_is_another_line() -> None:
    pictures = [with_sign(wall())] * 30
    assert retraced(past(pictures, line(*PLATE)).moments(), line(*PLATE)) == UNSEEN
    elsewhere = retraced(past(pictures, line(120, 200, 210, 216)).moments(), line(*PLATE))
    assert len(elsewhere[0].sights) > 5
    assert retraced(past(pictures, line(120, 90, 165, 106)).moments(), line(*PLATE)) == UNSEEN, "a piece of it"


def test_another_text_in_the_same_place_is_not_the_line() -> None:
    seen = past([with_sign(wall(), text="MIND GAP")] * 15 + [with_sign(wall())] * 15)
    ((sights, _),) = retraced(seen.moments(), line(*PLATE))
    assert began_ms(sights) >= 15 * 1000 / FPS


def test_nothing_is_remembered_of_before_a_cut_and_not_for_longer_than_is_said() -> None:
    seen = past([with_sign(wall())] * 90)
    ((sights, _),) = retraced(seen.moments(), line(*PLATE))
    assert 0 <= 89 * 1000 / FPS - began_ms(sights) - (REMEMBERED_S - MOMENT_S) * 1000 <= 150
    assert len(seen.moments()) <= REMEMBERED_S / MOMENT_S + 2
    seen.note(info(90), with_sign(wall()), 1.0, None, NOBODY)
    assert retraced(seen.moments(), line(*PLATE)) == UNSEEN


def test_several_lines_each_have_their_own_beginning() -> None:
    def shown(number: int) -> Grey:
        picture = with_sign(wall())
        if number >= 30:
            cv2.rectangle(picture, (300, 180), (420, 200), 10, -1)
            cv2.putText(picture, "PLATFORM", (304, 196), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 240, 1, cv2.LINE_AA)
        return picture

    seen = past([shown(number) for number in range(45)])
    (sign, _), (platform, _) = retraced(seen.moments(), np.concatenate([line(*PLATE), line(300, 180, 420, 200)]))
    assert began_ms(sign) == 0
    assert 1000 <= began_ms(platform) <= 1000 + MOMENT_S * 1000 + 1


def test_a_motion_and_its_inverse_lead_nowhere() -> None:
    there = Motion(np.array([[1.1, -0.02, 5.0], [0.02, 1.1, -3.0]]))
    assert there.then(there.inverse()).matrix == pytest.approx(np.eye(2, 3))
    assert Motion.none().inverse().is_still


@pytest.mark.parametrize(
    ("known", "since_s", "is_overlooked"),
    [
        ((120, 90, 170, 106), 0.0, True),
        ((160, 90, 210, 106), 0.0, True),
        ((120, 90, 206, 106), 0.0, False),
        ((120, 90, 170, 106), 1.0, False),
    ],
    ids=["its end", "its beginning", "hardly more", "has come up"],
)
def test_a_part_of_a_line_that_was_there_all_the_time_was_overlooked(
    known: tuple[float, float, float, float], since_s: float, is_overlooked: bool
) -> None:
    # Of the sign the middle is a gap, so that it stands in two words.
    count = round((OVERLOOKED_S + 0.4) * FPS)
    pictures = [with_sign(wall(), text="GATE  B12" if n >= since_s * FPS else "GATE") for n in range(count)]
    moments = past(pictures, line(*known)).moments()
    assert was_overlooked(moments, box_polygon(*known), box_polygon(*PLATE)) == is_overlooked


@pytest.mark.parametrize(("since_s", "is_overlooked"), [(0.0, True), (0.2, False)])
def test_a_part_of_a_line_that_was_there_since_the_beginning_was_overlooked(
    since_s: float, is_overlooked: bool
) -> None:
    known = (120, 90, 170, 106)
    pictures = [with_sign(wall(), text="GATE  B12" if n >= since_s * FPS else "GATE") for n in range(round(0.6 * FPS))]
    moments = past(pictures, line(*known)).moments()
    assert was_overlooked(moments, box_polygon(*known), box_polygon(*PLATE)) == is_overlooked
