"""What is written into the picture stays where it is while the camera moves, whatever passes behind it."""

import math
from collections.abc import Sequence

import cv2
import numpy as np
import pytest

from detector_consumer.motion import Grey, Motion
from detector_consumer.stepping import VISIBLE_FIT
from detector_consumer.tracking import Tracker
from detector_consumer.tracks import Followed
from ocrstream.geometry import bounding_box, box_polygon
from ocrstream.messages import Region

KEY = ("hall", 0)
SIZE_WH = (480, 270)
REACH = 400
CAPTION = (20.0, 14.0, 140.0, 30.0)
SIGN = (230.0, 130.0, 320.0, 146.0)


def at_ns(number: int) -> int:
    return round((100 + number / 30) * 1e9)


def wall() -> Grey:
    """A wall with bricks, larger than the picture, with a sign on it."""
    size = SIZE_WH[0] + 2 * REACH, SIZE_WH[1] + 2 * REACH
    rng = np.random.default_rng(3)
    picture = cv2.resize(rng.uniform(110, 200, (size[1] // 9, size[0] // 9)).astype(np.float32), size)
    brick = np.clip(picture, 0, 255).astype(np.uint8)
    x0, y0, x1, y1 = (round(side + REACH) for side in SIGN)
    brick[y0:y1, x0:x1] = 230
    cv2.putText(brick, "GATE B12", (x0 + 4, y1 - 3), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 20, 1, cv2.LINE_AA)
    return brick


OUTLINED = ((10, 3), (250, 1))


def seen(scene: Grey, x: float, y: float, strokes: Sequence[tuple[int, int]] = OUTLINED) -> Grey:
    """The wall from where the camera is, and a caption without a ground of its own, drawn in strokes (level, width)."""
    matrix = np.array([[1, 0, -REACH - x], [0, 1, -REACH - y]], np.float64)
    picture = cv2.warpAffine(scene, matrix, SIZE_WH).astype(np.uint8)
    for level, width in strokes:
        cv2.putText(picture, "28.11. 12:04", (22, 27), cv2.FONT_HERSHEY_SIMPLEX, 0.55, level, width, cv2.LINE_AA)
    return picture


@pytest.mark.parametrize("reach", [0.9, 6.0, 30.0])
def test_a_caption_stays_and_a_sign_goes_with_a_camera_that_turns_round(reach: float) -> None:
    def camera(number: int) -> tuple[float, float]:
        return reach * math.sin(number / 3), 0.6 * reach * math.sin(number / 4)

    scene, tracker = wall(), Tracker()
    tracker.advance(KEY, seen(scene, *camera(0)), 1.0, None, at_ns(0))
    regions = [Region(number, box_polygon(*box), 0.9) for number, box in enumerate((CAPTION, SIGN))]
    first = tracker.associate(KEY, "f0", regions, at_ns(0))
    tracks: list[Followed] = []
    for number in range(1, 61):
        (x, y), (before_x, before_y) = camera(number), camera(number - 1)
        motion = Motion(np.array([[1, 0, before_x - x], [0, 1, before_y - y]]))
        tracks = tracker.advance(KEY, seen(scene, x, y), 1.0, motion, at_ns(number))
        assert [track.track_id for track in tracks] == [track.track_id for track in first]
        assert all(track.is_visible for track in tracks)
        caption, sign = (bounding_box(track.polygon) for track in tracks)
        assert caption == pytest.approx(CAPTION, abs=1.5)
        assert sign == pytest.approx(np.array(SIGN) - [x, y, x, y], abs=1.5)


def test_a_caption_stays_though_what_moves_behind_it_is_as_bright_as_it_is() -> None:
    scene, tracker = wall(), Tracker()
    # A bright plate passes behind it.
    scene[REACH : REACH + 45, REACH + 160 : REACH + 320] = 250
    plain = ((250, 2),)
    tracker.advance(KEY, seen(scene, 0, 0, plain), 1.0, None, at_ns(0))
    (first,) = tracker.associate(KEY, "f0", [Region(0, box_polygon(*CAPTION), 0.9)], at_ns(0))
    fits = []
    for number in range(1, 40):
        motion = Motion(np.array([[1, 0, -10.0], [0, 1, 0]]))
        (track,) = tracker.advance(KEY, seen(scene, 10.0 * number, 0, plain), 1.0, motion, at_ns(number))
        assert track.track_id == first.track_id
        assert bounding_box(track.polygon) == pytest.approx(CAPTION, abs=1.5)
        fits.append(track.fit)
    assert min(fits) < VISIBLE_FIT


def test_lines_that_are_of_no_interest_any_more_are_forgotten() -> None:
    tracker = Tracker()
    tracker.advance(KEY, seen(wall(), 0, 0), 1.0, None, at_ns(0))
    regions = [Region(number, box_polygon(*box), 0.9) for number, box in enumerate((CAPTION, SIGN))]
    tracker.associate(KEY, "f0", regions, at_ns(0))
    tracker.forget(KEY, lambda polygon: polygon[0][1] < 100)
    assert [bounding_box(track.polygon) for track in tracker.tracks(KEY)] == [SIGN]
    tracker.forget(("stairs", 0), lambda _polygon: True)
