"""Which looks a picture gets, and which look each word is taken from."""

from collections.abc import Iterable, Iterator

import numpy as np
import pytest
from numpy.typing import NDArray

from ocrstream.models.ctpn import looking
from ocrstream.models.ctpn.decode import DecodeRule, Words
from ocrstream.models.ctpn.looking import CLOSE_LOOK_PX, FIRST_LOOK_PX, FURTHER, HIGH_PX, find_words
from ocrstream.models.ctpn.slices import MEAN_BGR, STRIDE_PX, UNIT_PX, cell_centres
from ocrstream.picture import Image

Floats = NDArray[np.float32]


class Bars:
    """Sees every bright bar as a word: a network that has learnt one thing, at whatever size."""

    weights = "0" * 12

    def __init__(self) -> None:
        self.seen: list[tuple[int, int]] = []

    def metadata(self, key: str) -> str:
        return {"profile": "light"}[key]

    def run_each(self, tensors: Iterable[Floats]) -> Iterator[Floats]:
        for tensor in tensors:
            self.seen.append((tensor.shape[3], tensor.shape[2]))
            yield self._output(tensor[0, 0] + MEAN_BGR[0])[None]

    def _output(self, grey: Floats) -> Floats:
        bright = grey > 150
        rows, columns = (side // STRIDE_PX for side in grey.shape)
        output = np.full((6, rows, columns), -9, dtype=np.float32)
        for row, y in enumerate(cell_centres(rows)):
            for column, x in enumerate(cell_centres(columns)):
                if not bright[int(y), int(x)]:
                    continue
                top, bottom = _reach(bright[:, int(x)], int(y))
                left, right = _reach(bright[int(y)], int(x))
                height = top + bottom
                # As the network was taught: cells near the middle line, and unsure where the text is low.
                if abs(top - bottom) / 2 <= max(0.3 * height, 2.1):
                    output[0, row, column] = 4.0 if height >= 10 else -2.0
                    output[1:5, row, column] = np.log(np.array([top, bottom, left, right]) / UNIT_PX)
                    output[5, row, column] = 0
        return output


def _reach(line: NDArray[np.bool_], at: int) -> tuple[float, float]:
    before, behind = at, at
    while before > 0 and line[before - 1]:
        before -= 1
    while behind + 1 < len(line) and line[behind + 1]:
        behind += 1
    return at - before + 0.5, behind - at + 0.5


def wall(*bars: tuple[int, int, int, int], size_wh: tuple[int, int] = (1280, 720)) -> Image:
    picture = np.zeros((size_wh[1], size_wh[0], 3), dtype=np.uint8)
    for x0, y0, x1, y1 in bars:
        picture[y0:y1, x0:x1] = 255
    return picture


def boxes(words: Words) -> list[list[float]]:
    found = np.concatenate([words.quads.min(axis=1), words.quads.max(axis=1)], axis=1)
    return sorted(found.round().tolist())


SMALL, MIDDLE, LARGE = (100, 600, 220, 616), (600, 100, 900, 160), (100, 100, 500, 300)


def test_each_word_comes_once_from_the_look_that_shows_it_best() -> None:
    network = Bars()
    (words,) = find_words(network, [wall(SMALL, MIDDLE, LARGE)], DecodeRule())
    for box, bar in zip(boxes(words), sorted([SMALL, MIDDLE, LARGE]), strict=True):
        np.testing.assert_allclose(box, bar, atol=0.2 * (bar[3] - bar[1]))
    whole, patches = network.seen[: len(FURTHER) + 1], network.seen[len(FURTHER) + 1 :]
    assert max(width * height for width, height in whole) <= 1.1 * 640 * 360 <= FIRST_LOOK_PX
    # Only the small word is looked at closely.
    assert len(patches) == 1
    assert patches[0][0] * patches[0][1] < 0.05 * 2560 * 1440


def test_where_nothing_hints_at_small_text_nothing_is_looked_at_closely() -> None:
    network = Bars()
    (words,) = find_words(network, [wall(MIDDLE)], DecodeRule())
    assert len(words.quads) == 1
    assert len(network.seen) == len(FURTHER) + 1


def test_every_picture_gets_its_own_words() -> None:
    pictures = [wall(SMALL), wall(size_wh=(64, 48)), wall(MIDDLE, LARGE), wall((8, 8, 40, 20), size_wh=(64, 48))]
    found = find_words(Bars(), pictures, DecodeRule())
    assert [len(words.quads) for words in found] == [1, 0, 2, 1]
    for words, picture in zip(found, pictures, strict=True):
        (alone,) = find_words(Bars(), [picture], DecodeRule())
        assert boxes(words) == boxes(alone)


@pytest.mark.parametrize("size_wh", [(1500, 807), (1280, 721), (64, 33), (32, 32), (5, 3), (1, 1), (3000, 1)])
def test_a_patch_ends_where_the_picture_does(size_wh: tuple[int, int]) -> None:
    width, height = size_wh
    picture = wall((0, max(height - 14, 0), width, height), size_wh=size_wh)
    (words,) = find_words(Bars(), [picture], DecodeRule())
    assert (words.quads >= -3).all()
    assert (words.quads <= np.array([width, height]) + 3).all()


@pytest.mark.parametrize("size_wh", [(3840, 2160), (1280, 720), (2000, 40), (1920, 1081), (1913, 1077)])
def test_a_picture_full_of_small_text_is_seen_no_larger_than_time_allows(size_wh: tuple[int, int]) -> None:
    network = Bars()
    width, height = size_wh
    bars = [(x, y, x + 60, y + 14) for y in range(6, height - 14, 40) for x in range(10, width - 60, 90)]
    find_words(network, [wall(*bars, size_wh=size_wh)], DecodeRule())
    patches = network.seen[len(FURTHER) + 1 :]
    assert sum(width * height for width, height in patches) <= 1.15 * CLOSE_LOOK_PX


def test_a_piece_of_a_larger_word_is_not_told_again() -> None:
    def quads(*bars: tuple[int, int, int, int]) -> Words:
        corners = [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for x0, y0, x1, y1 in bars]
        return Words(np.array(corners, dtype=np.float64).reshape(-1, 4, 2), np.full(len(bars), 0.9))

    larger, smaller = quads(LARGE), quads((120, 110, 200, 290), (480, 200, 700, 220), MIDDLE)
    assert boxes(looking._together(larger, smaller)) == boxes(quads(LARGE, (480, 200, 700, 220), MIDDLE))
    assert boxes(looking._together(quads(), smaller)) == boxes(smaller)
    assert boxes(looking._together(larger, quads())) == boxes(larger)


def test_patches_that_lie_close_are_one() -> None:
    joined = looking._rectangles([(0, 0, 4, 2), (5, 0, 9, 2), (30, 0, 33, 2), (0, 2, 9, 4)])
    assert sorted(joined) == [(0, 0, 9, 4), (30, 0, 33, 2)]
    assert HIGH_PX > STRIDE_PX


@pytest.mark.parametrize("size_wh", [(1366, 767), (903, 517)])
def test_places_do_not_drift_where_sizes_are_rounded(size_wh: tuple[int, int]) -> None:
    width, height = size_wh
    right, middle = (width - 150, height - 40, width - 30, height - 26), (width - 300, 50, width - 10, 130)
    (words,) = find_words(Bars(), [wall(right, middle, size_wh=size_wh)], DecodeRule())
    for box, bar in zip(boxes(words), sorted([right, middle]), strict=True):
        np.testing.assert_allclose(box, bar, atol=0.1 * (bar[3] - bar[1]) + 1)
