"""A canvas that stands still while the camera moves: frames are laid over it where they belong.

It is cut into tiles, of which a frame covers some: the *window*. What somebody wants to remember of the scene is kept
in layers, one value a pixel or one a tile, that the canvas moves along when the camera has gone too far and it has to
be laid out anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from detector_consumer.motion import Grey, Motion, Points

TILE_PX = 32
"""Side of a tile in pixels of the fine picture: 64 px of a 1080p frame."""

_MARGIN_TILES = 5
"""How far the camera can move in any direction before the canvas is laid out anew."""

_BAND_PX = 12
"""So much of a moving camera's frame is left out along its edges: there the light is taken out by another measure."""

_MAX_TURN = 0.2
_MAX_ZOOM = 1.2
_SAMPLES = 4
"""A tile of the frame asks the canvas at so many points a side."""

Matrix = NDArray[np.float64]
"""``(3, 3)``, moves points given as ``(x, y, 1)``."""

Values = TypeVar("Values", bound=np.generic)


class Canvas:
    """Where a frame lies in a scene.

    Attributes:
        visible: 255 in the window's pixels that the frame shows and that are not left out.
        pose: counts the places the frame has had; frames with the same number lie over each other pixel by pixel.
        tiles: the window, as an index into tile layers.
        pixels: the window, as an index into pixel layers.

    Args:
        shape_hw: the frame's height and width.
        left_out: polygons of three points or more in the frame's pixels that are of no interest.
    """

    def __init__(self, shape_hw: tuple[int, int], left_out: Sequence[Points] = ()) -> None:
        self._shape_hw = height, width = shape_hw
        self._left_out = left_out
        self.frame_tiles = (-(-height // TILE_PX), -(-width // TILE_PX))
        self._tiles = (self.frame_tiles[0] + 2 * _MARGIN_TILES, self.frame_tiles[1] + 2 * _MARGIN_TILES)
        self._pixel_layers: list[Grey] = []
        self._tile_layers: list[tuple[NDArray[np.generic], float]] = []
        self.pose = 0
        self._place_at(_shift(_MARGIN_TILES * TILE_PX, _MARGIN_TILES * TILE_PX), moving=False)

    def pixel_layer(self) -> Grey:
        """A new layer with a value a pixel, all 0; written to in place."""
        layer: Grey = np.zeros((self._tiles[0] * TILE_PX, self._tiles[1] * TILE_PX), np.uint8)
        self._pixel_layers.append(layer)
        return layer

    def tile_layer(self, fill: float, dtype: type[Values]) -> NDArray[Values]:
        """A new layer with a value a tile, all the same; written to in place."""
        layer = np.full(self._tiles, fill, dtype)
        self._tile_layers.append((layer, fill))
        return layer

    def leave_out(self, polygons: Sequence[Points]) -> None:
        """Show others of the frame's pixels from now on."""
        self._left_out = polygons
        self._place_at(self._place, moving=self.has_moved)

    @property
    def has_moved(self) -> bool:
        """Whether the frame has had another place than its first."""
        return self.pose > 1

    def follow(self, motion: Motion) -> None:
        """Move the frame as the camera moved."""
        if motion.is_still:
            return
        self._place_at(self._place @ np.linalg.inv(_square(motion.matrix)))
        if not self._is_within():
            self._lay_out_anew()

    def correct(self, motion: Motion) -> None:
        """Move the frame back by what a part of the window was found to be off."""
        self._place_at(np.linalg.inv(_within(_square(motion.matrix), self._corner)) @ self._place)
        if not self._is_within():
            self._lay_out_anew()

    def lay(self, picture: Grey) -> Grey:
        """A frame's pixels where they lie in the window; where there are none, anything."""
        return self._laid(picture)

    def lay_tiles(self, tiles: NDArray[np.bool_]) -> Grey:
        """255 in the window's pixels that these tiles of the frame cover."""
        height, width = self._shape_hw
        pixels = np.repeat(np.repeat(tiles, TILE_PX, axis=0), TILE_PX, axis=1)[:height, :width]
        laid = self._laid(pixels.astype(np.uint8) * 255)
        return np.asarray(cv2.threshold(laid, 254, 255, cv2.THRESH_BINARY)[1], np.uint8)

    def in_frame(self, values: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """For each tile of the frame the largest of the window's values that it lies on, ``frame_tiles`` in shape."""
        rows, columns = self.frame_tiles
        step = TILE_PX / _SAMPLES
        # From numbers of samples in the frame to numbers of tiles in the window, both by their centres.
        samples = np.array([[step, 0, step / 2 - 0.5], [0, step, step / 2 - 0.5], [0, 0, 1]])
        tiles = np.array([[1 / TILE_PX, 0, 0.5 / TILE_PX - 0.5], [0, 1 / TILE_PX, 0.5 / TILE_PX - 0.5], [0, 0, 1]])
        matrix = tiles @ _shift(-self._corner[0], -self._corner[1]) @ self._place @ samples
        flags = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP
        sampled = cv2.warpAffine(values, matrix[:2], (columns * _SAMPLES, rows * _SAMPLES), flags=flags)
        largest = sampled.reshape(rows, _SAMPLES, columns, _SAMPLES).max(axis=(1, 3))
        return np.asarray(largest, np.uint8)

    def _place_at(self, place: Matrix, moving: bool = True) -> None:
        """Take a new place: a matrix from the frame's pixels to the canvas's."""
        self._place = place
        self.pose += 1
        corners = self._frame_corners()
        limit_y, limit_x = (count * TILE_PX for count in self._tiles)
        left, top = (max(0, int(value // TILE_PX) * TILE_PX) for value in corners.min(axis=0) + 1e-6)
        right = min(limit_x, -int(-(corners[:, 0].max() + 1 - 1e-6) // TILE_PX) * TILE_PX)
        bottom = min(limit_y, -int(-(corners[:, 1].max() + 1 - 1e-6) // TILE_PX) * TILE_PX)
        right, bottom = max(right, left + TILE_PX), max(bottom, top + TILE_PX)
        self._corner, self._size = (left, top), (right - left, bottom - top)
        self.pixels = (slice(top, bottom), slice(left, right))
        self.tiles = (slice(top // TILE_PX, bottom // TILE_PX), slice(left // TILE_PX, right // TILE_PX))
        self.visible = self._shown(_BAND_PX if moving else 0)

    def _laid(self, picture: Grey) -> Grey:
        place = _shift(-self._corner[0], -self._corner[1]) @ self._place
        x, y = place[0, 2], place[1, 2]
        if np.array_equal(place[:, :2], np.eye(3)[:, :2]) and x == int(x) >= 0 and y == int(y) >= 0:
            height, width = picture.shape
            laid: Grey = np.zeros((self._size[1], self._size[0]), np.uint8)
            laid[int(y) : int(y) + height, int(x) : int(x) + width] = picture
            return laid
        return np.asarray(cv2.warpAffine(picture, place[:2], self._size), np.uint8)

    def _shown(self, band_px: float) -> Grey:
        height, width = self._shape_hw
        low, right, bottom = float(band_px), width - 1.0 - band_px, height - 1.0 - band_px
        shown: Grey = np.zeros((self._size[1], self._size[0]), np.uint8)
        if right > low and bottom > low:
            self._fill(shown, np.array([[low, low], [right, low], [right, bottom], [low, bottom]]), 255)
        for polygon in self._left_out:
            self._fill(shown, polygon, 0)
        return shown

    def _fill(self, window: Grey, polygon: Points, value: int) -> None:
        places = polygon @ self._place[:2, :2].T + self._place[:2, 2] - self._corner
        cv2.fillPoly(window, [np.round(places).astype(np.int32)], value)

    def _frame_corners(self) -> NDArray[np.float64]:
        height, width = self._shape_hw
        corners = np.array([[0, 0, 1], [width - 1, 0, 1], [width - 1, height - 1, 1], [0, height - 1, 1]])
        found: NDArray[np.float64] = (corners @ self._place.T)[:, :2]
        return found

    def _is_upright(self) -> bool:
        zoom = float(np.hypot(self._place[0, 0], self._place[1, 0]))
        turn = float(np.arctan2(self._place[1, 0], self._place[0, 0]))
        return 1 / _MAX_ZOOM < zoom < _MAX_ZOOM and abs(turn) < _MAX_TURN

    def _is_within(self) -> bool:
        corners = self._frame_corners()
        limits = np.array(self._tiles[::-1]) * TILE_PX - 1
        return self._is_upright() and bool((corners >= 0).all() and (corners <= limits).all())

    def _lay_out_anew(self) -> None:
        """Bring the frame back to the middle, and every layer with it."""
        middle = _shift(_MARGIN_TILES * TILE_PX, _MARGIN_TILES * TILE_PX)
        if self._is_upright():
            # By whole tiles: nothing is resampled.
            away = self._frame_corners().mean(axis=0) - (np.array(self._shape_hw[::-1]) - 1) / 2
            columns, rows = np.round(away / TILE_PX).astype(int) - _MARGIN_TILES
            change = _shift(-columns * TILE_PX, -rows * TILE_PX)
        else:
            change = middle @ np.linalg.inv(self._place)
        self._move_layers(change)
        self._place_at(change @ self._place)

    def _move_layers(self, change: Matrix) -> None:
        rows, columns = self._tiles
        for pixels in self._pixel_layers:
            pixels[:] = cv2.warpAffine(pixels, change[:2], (columns * TILE_PX, rows * TILE_PX))
        to_old = np.linalg.inv(change)
        y, x = np.mgrid[:rows, :columns] * TILE_PX + (TILE_PX - 1) / 2
        old = np.floor((np.stack([x, y, np.ones_like(x)], axis=-1) @ to_old.T + 0.5) / TILE_PX).astype(int)
        old_x, old_y = old[..., 0], old[..., 1]
        kept = (old_x >= 0) & (old_y >= 0) & (old_x < columns) & (old_y < rows)
        for layer, fill in self._tile_layers:
            moved = np.full_like(layer, fill)
            moved[kept] = layer[old_y[kept], old_x[kept]]
            layer[:] = moved


def _square(matrix: NDArray[np.float64]) -> Matrix:
    return np.vstack([matrix, [0.0, 0.0, 1.0]])


def _shift(x: float, y: float) -> Matrix:
    return np.array([[1.0, 0, x], [0, 1.0, y], [0, 0, 1.0]])


def _within(motion: Matrix, corner: tuple[int, int]) -> Matrix:
    """A motion of the window's pixels as one of the canvas's."""
    return _shift(*corner) @ motion @ _shift(-corner[0], -corner[1])
