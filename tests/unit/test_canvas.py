"""Frames lie on the canvas where they belong, however the camera moved, and layers stay with the scene."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from detector_consumer.canvas import TILE_PX, Canvas
from detector_consumer.motion import Grey, Motion

SHAPE = (200, 330)
ROWS, COLUMNS = 7, 11


def spots() -> Grey:
    """A picture without repeats, smooth enough to be resampled."""
    noise = np.random.default_rng(3).integers(0, 255, SHAPE).astype(np.uint8)
    blurred = cv2.GaussianBlur(noise, (0, 0), 6)
    return np.asarray(cv2.normalize(blurred, np.empty_like(blurred), 0, 255, cv2.NORM_MINMAX), np.uint8)


def moved_by(dx: float, dy: float, degrees: float = 0, zoom: float = 1) -> Motion:
    matrix = np.asarray(cv2.getRotationMatrix2D((SHAPE[1] / 2, SHAPE[0] / 2), degrees, zoom), np.float64)
    matrix[:, 2] += np.array([dx, dy])
    return Motion(matrix)


def test_a_camera_at_rest_lies_on_whole_tiles() -> None:
    canvas, picture = Canvas(SHAPE), spots()
    canvas.follow(Motion.none())
    laid = canvas.lay(picture)
    assert laid.shape == (ROWS * TILE_PX, COLUMNS * TILE_PX)
    assert np.array_equal(laid[: SHAPE[0], : SHAPE[1]], picture)
    assert (canvas.visible[: SHAPE[0], : SHAPE[1]] == 255).all()
    assert canvas.visible.sum() == 255 * SHAPE[0] * SHAPE[1]
    assert not canvas.has_moved


@pytest.mark.parametrize("motion", [moved_by(7.5, -3.2), moved_by(0, 0, 4), moved_by(5, 5, -3, 1.1), moved_by(400, 90)])
def test_what_moved_with_the_camera_lies_where_it_was(motion: Motion) -> None:
    canvas, picture = Canvas(SHAPE), spots()
    layer, shown = canvas.pixel_layer(), canvas.pixel_layer()
    layer[canvas.pixels], shown[canvas.pixels] = canvas.lay(picture), canvas.visible
    canvas.follow(motion)
    now = np.asarray(cv2.warpAffine(picture, motion.matrix, SHAPE[::-1]), np.uint8)
    both = (shown[canvas.pixels] == 255) & (canvas.visible == 255)
    assert canvas.has_moved
    if abs(motion.matrix[0, 2]) < SHAPE[1]:
        assert both.mean() > 0.4
        assert cv2.absdiff(layer[canvas.pixels], canvas.lay(now))[both].max() < 12
    else:
        assert not both.any()


def test_layers_stay_with_the_scene_when_the_canvas_is_laid_out_anew() -> None:
    canvas, picture = Canvas(SHAPE), spots()
    pixels, tiles = canvas.pixel_layer(), canvas.tile_layer(-1, np.int64)
    pixels[canvas.pixels] = canvas.lay(picture)
    tiles[canvas.tiles] = np.arange(ROWS * COLUMNS).reshape(ROWS, COLUMNS)
    for _ in range(8):
        canvas.follow(moved_by(-TILE_PX, 0))
    found = tiles[canvas.tiles]
    assert found.shape == (ROWS, COLUMNS)
    assert found[0].tolist() == [8, 9, 10, *[-1] * 8]
    assert found[1, :3].tolist() == [19, 20, 21]
    assert np.array_equal(pixels[canvas.pixels][: SHAPE[0], : SHAPE[1] - 8 * TILE_PX], picture[:, 8 * TILE_PX :])


def test_a_correction_takes_back_what_the_frame_was_off() -> None:
    canvas, picture = Canvas(SHAPE), spots()
    layer = canvas.pixel_layer()
    layer[canvas.pixels] = canvas.lay(picture)
    canvas.follow(moved_by(6, 2))
    # The camera had in truth moved by one pixel more to the right.
    now = np.asarray(cv2.warpAffine(picture, np.array([[1.0, 0, 7], [0, 1, 2]]), SHAPE[::-1]), np.uint8)
    canvas.correct(moved_by(1, 0))
    inner = cv2.erode(canvas.visible, np.ones((25, 25), np.uint8)) == 255
    assert inner.mean() > 0.4
    assert cv2.absdiff(layer[canvas.pixels], canvas.lay(now))[inner].max() == 0


def test_tiles_of_the_window_are_told_for_the_frame() -> None:
    canvas = Canvas(SHAPE)
    values = np.zeros((ROWS, COLUMNS), np.uint8)
    values[2, 3], values[6, 10] = 3, 1
    assert np.array_equal(canvas.in_frame(values), values)
    canvas.follow(moved_by(-20, 0))
    wider: NDArray[np.uint8] = np.zeros((ROWS, COLUMNS + 1), np.uint8)
    wider[2, 3] = 3
    told = canvas.in_frame(wider[:, : canvas.lay(spots()).shape[1] // TILE_PX])
    # Tile 3 of the canvas lies 20 px further left in the frame, over its tiles 2 and 3.
    assert told[2].tolist() == [0, 0, 3, 3, 0, 0, 0, 0, 0, 0, 0]
    assert told.sum() == 6


def test_tiles_of_the_frame_cover_the_window() -> None:
    canvas = Canvas(SHAPE)
    tiles = np.zeros((ROWS, COLUMNS), bool)
    tiles[1, 2] = True
    canvas.follow(moved_by(-3, 0))
    covered = canvas.lay_tiles(tiles)
    assert covered.sum() == 255 * TILE_PX * TILE_PX
    assert (covered[TILE_PX : 2 * TILE_PX, 2 * TILE_PX + 3 : 3 * TILE_PX + 3] == 255).all()


def test_what_is_left_out_goes_with_the_frame() -> None:
    canvas = Canvas(SHAPE, [np.array([[100.0, 50], [149, 50], [149, 99], [100, 99]])])
    assert (canvas.visible[50:100, 100:150] == 0).all()
    assert canvas.visible[49, 99] == 255
    canvas.follow(moved_by(-10, 0))
    assert (canvas.visible[50:100, 110:160] == 0).all()
    assert canvas.visible[60, 108] == 255
