"""What the detector is shown of a frame, how large, and where what it finds lies."""

import cv2
import numpy as np
import pytest

from detector_consumer.examining import Examination
from ocrstream.geometry import bounding_box, box_polygon
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
