"""Lines are cut out where they are, the right way up."""

import cv2
import numpy as np
import pytest

from ocrstream.cropping import cut
from ocrstream.geometry import Polygon, box_polygon, to_polygon
from ocrstream.picture import Image


@pytest.fixture
def picture() -> Image:
    """60 wide and 40 high; every pixel says where it is: blue = x, green = y, red = 7."""
    y, x = np.mgrid[0:40, 0:60]
    return np.dstack([x, y, np.full_like(x, 7)]).astype(np.uint8)


def test_an_upright_box_gives_its_own_pixels(picture: Image) -> None:
    np.testing.assert_array_equal(cut(picture, box_polygon(10, 5, 31, 17)), picture[5:17, 10:31])


def test_a_line_that_runs_down_is_turned_upright(picture: Image) -> None:
    # Letters' tops at the right: the text's top-left is the picture's top-right.
    down: Polygon = ((20, 5), (20, 30), (10, 30), (10, 5))
    crop = cut(picture, down)
    assert crop.shape == (10, 25, 3)
    # From left to right the crop goes down the picture, from top to bottom it goes left.
    np.testing.assert_array_equal(crop[0, :3, 1], [5, 6, 7])
    np.testing.assert_array_equal(crop[:3, 0, 0], [20, 19, 18])


def test_a_tilted_box_is_straightened(picture: Image) -> None:
    corners = np.array([cv2.boxPoints(((30, 20), (24, 8), 30))[index] for index in (1, 2, 3, 0)])
    crop = cut(picture, to_polygon(corners))
    assert crop.shape == (8, 24, 3)
    # Along the text x grows by the cosine and y by the sine of 30 degrees a pixel.
    along = crop[4, 20].astype(float) - crop[4, 4].astype(float)
    np.testing.assert_allclose(along, (16 * 0.866, 16 * 0.5, 0), atol=1)


def test_parts_outside_repeat_the_edge(picture: Image) -> None:
    crop = cut(picture, box_polygon(50, 30, 70, 50))
    assert crop.shape == (20, 20, 3)
    np.testing.assert_array_equal(crop[0, :, 0], [*range(50, 60), *[59] * 10])
    np.testing.assert_array_equal(crop[:, 0, 1], [*range(30, 40), *[39] * 10])


@pytest.mark.parametrize(
    ("polygon", "size_wh"),
    [
        (box_polygon(10, 10, 10, 10), (1, 1)),
        (box_polygon(10, 10, 10.4, 30), (1, 20)),
        (box_polygon(0, 0, 1_000_000, 20), (73, 20)),
    ],
)
def test_senseless_polygons_give_small_crops(picture: Image, polygon: Polygon, size_wh: tuple[int, int]) -> None:
    crop = cut(picture, polygon)
    assert (crop.shape[1], crop.shape[0]) == size_wh
    assert crop.dtype == np.uint8
