"""Each frame is held against the one before by its picture alone, ahead of time where there is a thread for that."""

from concurrent.futures import Executor, ThreadPoolExecutor
from itertools import pairwise

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from detector_consumer.glancing import FOLLOW_AFTER_S, Glance, Glances
from ocrstream.errors import MalformedRecordError
from ocrstream.messages import FrameInfo
from ocrstream.picture import Image, Picture

FRAME_S = 1 / 30
SIZE_WH = (1280, 720)


def hall(shift_px: int = 0, clock: str = "10:41") -> Image:
    """A wall with posters, seen from so far to the right, and a small clock on it."""
    rng = np.random.default_rng(1)
    picture = np.full((SIZE_WH[1], SIZE_WH[0] + 200, 3), 150, np.uint8)
    for _ in range(80):
        x, y, w, h = (int(rng.integers(low, high)) for low, high in ((0, 1400), (0, 700), (30, 200), (30, 200)))
        cv2.rectangle(picture, (x, y), (x + w, y + h), rng.integers(20, 240, 3).tolist(), -1)
    cv2.rectangle(picture, (600, 320), (680, 350), (20, 20, 20), -1)
    cv2.putText(picture, clock, (606, 342), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (230, 230, 230), 2)
    return picture[:, shift_px : shift_px + SIZE_WH[0]].copy()


def noisy(picture: Image, seed: int, light: float = 0.0) -> Picture:
    """As a camera takes it, in a little more light."""
    noise: NDArray[np.float64] = np.random.default_rng(seed).normal(light, 4.0, picture.shape)
    return Picture.from_array(np.clip(picture + noise, 0, 255).astype(np.uint8))


def info(at_s: float) -> FrameInfo:
    return FrameInfo("hall", f"frame {at_s:.3f}", round((100 + at_s) * 1e9), *SIZE_WH, live=False)


def look(glances: Glances, pictures: list[Picture], fps: float = 30.0) -> list[Glance]:
    return [glances.take(info(number / fps), picture) for number, picture in enumerate(pictures)]


def test_a_scene_at_rest_is_unchanged_but_not_for_long() -> None:
    glances = look(Glances(), [noisy(hall(), seed) for seed in range(12)])

    # Before one step of the camera was seen nobody knows that it is at rest.
    assert [glance.is_unchanged for glance in glances[:3]] == [False, False, True]
    changed = [number for number, glance in enumerate(glances) if not glance.is_unchanged][1:]
    most = FOLLOW_AFTER_S / FRAME_S + 1
    assert len(changed) > 2
    assert all(1 < after - before <= most for before, after in pairwise(changed))
    assert glances[0].motion is None
    assert all(glance.motion is not None and glance.motion.is_still for glance in glances[1:])


@pytest.mark.parametrize("changed", [hall(clock="10:42"), hall(shift_px=2)], ids=["a digit", "two pixels"])
def test_what_has_changed_is_told(changed: Image) -> None:
    *_, before, now = look(Glances(), [noisy(hall(), 0), noisy(hall(), 1), noisy(hall(), 2), noisy(changed, 3)])

    assert (before.is_unchanged, now.is_unchanged) == (True, False)


def test_slow_change_adds_up() -> None:
    glances = look(Glances(), [noisy(hall(), seed, light=seed * 0.8) for seed in range(8)], fps=1000)

    assert glances[2].is_unchanged
    assert not all(glance.is_unchanged for glance in glances[2:])


def test_a_frame_from_before_the_last_begins_afresh() -> None:
    glances = Glances()
    look(glances, [noisy(hall(), seed) for seed in range(3)])

    glance = glances.take(info(0.0), noisy(hall(), 9))

    assert (glance.motion, glance.is_unchanged) == (None, False)


def in_words(glances: list[Glance]) -> list[object]:
    return [(None if each.motion is None else each.motion.matrix.tolist(), each.is_unchanged) for each in glances]


def moving() -> list[Picture]:
    shifts = [0, 0, 0, 0, 3, 8, 14, 14, 14, 14, 14, 20, 26]
    return [noisy(hall(shift), seed) for seed, shift in enumerate(shifts)]


@pytest.fixture
def aside() -> Executor:
    return ThreadPoolExecutor(max_workers=1)


def test_what_is_worked_out_ahead_is_the_same(aside: Executor) -> None:
    pictures, glances, seen = moving(), Glances(aside), []

    for number, picture in enumerate(pictures):
        seen.append(glances.take(info(number * FRAME_S), picture))
        if number + 1 < len(pictures):
            glances.expect(info((number + 1) * FRAME_S), pictures[number + 1])

    assert in_words(seen) == in_words(look(Glances(), pictures))


def test_a_frame_that_was_not_expected_is_held_against_the_last_that_came(aside: Executor) -> None:
    pictures, glances, seen = moving(), Glances(aside), []

    for number, picture in enumerate(pictures):
        seen.append(glances.take(info(number * FRAME_S), picture))
        glances.expect(info((number + 1) * FRAME_S), noisy(hall(90), 77))

    expected = look(Glances(), pictures)
    assert [glance.is_unchanged for glance in seen] == [glance.is_unchanged for glance in expected]
    for now, then in zip(seen[1:], expected[1:], strict=True):
        assert now.motion is not None
        assert then.motion is not None
        # It is told by other corners.
        assert now.motion.matrix == pytest.approx(then.motion.matrix, abs=0.1)


def test_a_damaged_picture_is_told_when_its_turn_comes_and_changes_nothing(aside: Executor) -> None:
    pictures, glances = moving(), Glances(aside)
    seen = [glances.take(info(0.0), pictures[0])]
    damaged = Picture.from_encoded(b"no picture")

    glances.expect(info(FRAME_S), damaged)
    with pytest.raises(MalformedRecordError):
        glances.take(info(FRAME_S), damaged)
    seen += [glances.take(info(number * FRAME_S), picture) for number, picture in enumerate(pictures) if number]

    assert in_words(seen) == in_words(look(Glances(), pictures))
