"""What the detector is shown of a frame, how large, and where what it finds lies."""

import cv2
import numpy as np
import pytest

from detector_consumer.examining import Examination, frame_box, parts_to_examine
from detector_consumer.gating import Changes, Why
from ocrstream.geometry import Box, bounding_box, box_polygon
from ocrstream.models import TextLine
from ocrstream.picture import Image

PART = (100.4, 50.4, 300.4, 350.4)


@pytest.fixture
def picture() -> Image:
    return np.random.default_rng(2).integers(0, 255, (480, 640, 3), dtype=np.uint8)


@pytest.mark.parametrize(
    ("height_px", "factor"), [(6, 2.0), (3, 2.0), (8, 1.5), (12, 1.0), (30, 1.0), (96, 1.0), (120, 0.8), (250, 0.5)]
)
def test_a_part_is_seen_as_large_as_its_lowest_line_wants(picture: Image, height_px: int, factor: float) -> None:
    lowest, higher, elsewhere = (
        box_polygon(150, 60, 280, 60 + height_px),
        box_polygon(110, 60, 140, 61 + height_px),
        box_polygon(400, 400, 500, 402),
    )
    examination = Examination(picture, [PART], known=[higher, lowest, elsewhere])
    (seen,) = examination.pictures
    assert seen.shape == (round(300 * factor), round(200 * factor), 3)
    expected = picture[50:350, 100:300].astype(np.float32)
    assert np.abs(cv2.resize(seen.astype(np.float32), (200, 300)).mean() - expected.mean()) < 3
    inside = TextLine(box_polygon(20 * factor, 10 * factor, 120 * factor, 30 * factor), 0.9)
    assert examination.take([[inside]])
    (line,) = examination.lines
    assert bounding_box(line.polygon) == pytest.approx((120, 60, 220, 80))


def test_what_is_looked_at_as_a_whole_or_for_the_first_time_keeps_its_size(picture: Image) -> None:
    small = box_polygon(150, 60, 280, 66)
    whole = Examination(picture, [(0.0, 0.0, 640.0, 480.0)], known=[small])
    assert [seen.shape for seen in whole.pictures] == [picture.shape]
    unknown = Examination(picture, [PART])
    np.testing.assert_array_equal(unknown.pictures[0], picture[50:350, 100:300])


def changed(*boxes: Box) -> Changes:
    """Of a frame of 1920x1080 in tiles of 64 px, those in these boxes."""
    why = np.zeros((17, 30), np.uint8)
    for x0, y0, x1, y1 in boxes:
        why[round(y0 / 64) : round(y1 / 64), round(x0 / 64) : round(x1 / 64)] = Why.CHANGED
    return Changes(why, 64, (1920, 1080))


WHOLE = frame_box((1920, 1080))


def test_changes_are_looked_at_with_what_is_around_them() -> None:
    assert parts_to_examine(changed(), [], [], WHOLE) == []
    assert parts_to_examine(changed((640, 320, 960, 448)), [], [], WHOLE) == [(384, 192, 1216, 576)]
    assert parts_to_examine(changed((0, 0, 1920, 640)), [], [], WHOLE) == [WHOLE]


def test_a_sign_that_changes_its_place_is_looked_at_in_two_parts() -> None:
    was, comes = (256, 320, 960, 512), (1088, 576, 1728, 768)
    one, other = parts_to_examine(changed(was, comes), [], [], WHOLE)
    assert (one[2], other[0]) == (1023, 1025), "both need room, and share what is between them"
    for part, place in ((one, was), (other, comes)):
        assert part[0] <= place[0]
        assert part[1] <= place[1] - 60
        assert part[2] >= place[2]
        assert part[3] >= place[3] + 60


def test_a_known_line_is_looked_at_with_room_around_it() -> None:
    known = box_polygon(200, 500, 900, 580)
    ((x0, y0, x1, y1),) = parts_to_examine(changed((640, 320, 960, 448)), [], [known], WHOLE)
    assert x0 < 200 - 20
    assert y1 >= 580 + 20
    assert (y0, x1) == (192, 1216)


def test_where_a_line_goes_on_more_is_looked_at_and_then_all_of_it(picture: Image) -> None:
    examination = Examination(picture, [(100.0, 100.0, 260.0, 160.0)])
    cut_off = TextLine(box_polygon(100, 20, 159, 40), 0.9)
    assert not examination.take([[cut_off]])
    assert examination.parts == [(100, 80, 339, 180)]
    assert not examination.take([[TextLine(box_polygon(100, 40, 238, 60), 0.9)]])
    assert examination.parts == [(0, 0, 640, 480)]
    assert examination.take([[TextLine(box_polygon(200, 120, 400, 140), 0.9)]])
    assert bounding_box(examination.lines[0].polygon) == (200, 120, 400, 140)


def test_where_much_goes_on_all_of_it_is_looked_at_at_once(picture: Image) -> None:
    examination = Examination(picture, [(100.0, 100.0, 260.0, 260.0)])
    assert not examination.take([[TextLine(box_polygon(100, 20, 159, 120), 0.9)]])
    assert examination.parts == [(0, 0, 640, 480)]
