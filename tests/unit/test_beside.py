"""A character that nobody is sure of counts beside a word, and nowhere else."""

import numpy as np
import pytest
from numpy.typing import NDArray

from ocrstream.models.ctpn.beside import decode_with_faint, with_those_beside
from ocrstream.models.ctpn.decode import NO_WORDS, DecodeRule, Words, decode
from ocrstream.models.ctpn.slices import UNIT_PX, cell_centres

Box = tuple[float, float, float, float]

WORD: Box = (20, 40, 120, 64)


def words(*boxes: Box, scores: tuple[float, ...] = ()) -> Words:
    quads = [[(x0, y0), (x1, y0), (x1, y1), (x0, y1)] for x0, y0, x1, y1 in boxes]
    return Words(np.array(quads, np.float64).reshape(-1, 4, 2), np.array(scores or [0.9] * len(boxes)))


@pytest.mark.parametrize(
    "box",
    [(132, 40, 146, 64), (2, 41, 14, 63), (119, 40, 134, 64)],
    ids=["behind", "before", "touching"],
)
def test_what_stands_right_beside_a_word_counts(box: Box) -> None:
    found = with_those_beside(words(WORD), words(box, scores=(0.35,)))
    np.testing.assert_array_equal(found.quads, words(WORD, box).quads)
    assert found.scores.tolist() == [0.9, 0.35]


@pytest.mark.parametrize(
    "box",
    [(160, 40, 174, 64), (132, 60, 146, 84), (132, 40, 138, 50), (60, 40, 74, 64), (110, 40, 126, 64)],
    ids=["far off", "on another line", "much lower", "a piece of the word", "half a piece"],
)
def test_what_does_not_is_nothing(box: Box) -> None:
    assert len(with_those_beside(words(WORD), words(box, scores=(0.35,))).quads) == 1


def test_of_two_in_one_place_the_surer_counts() -> None:
    lower, surer = (130, 40, 146, 64), (132, 41, 145, 63)
    found = with_those_beside(words(WORD), words(lower, surer, scores=(0.35, 0.5)))
    np.testing.assert_array_equal(found.quads[1:], words(surer).quads)


def test_it_takes_a_word() -> None:
    assert not len(with_those_beside(NO_WORDS, words(WORD)).quads)
    assert len(with_those_beside(words(WORD), NO_WORDS).quads) == 1


def output_of(*boxes: tuple[Box, float]) -> NDArray[np.float32]:
    """A network's output that has each box's cells with such a score."""
    output = np.full((6, 32, 64), -9, np.float32)
    for (x0, y0, x1, y1), score in boxes:
        for row, y in enumerate(cell_centres(32)):
            for column, x in enumerate(cell_centres(64)):
                # As the network was taught: near the middle line.
                if abs(y - (y0 + y1) / 2) <= 0.3 * (y1 - y0) and x0 < x < x1:
                    output[0, row, column] = np.log(score / (1 - score))
                    distances = np.maximum([y - y0, y1 - y, x - x0, x1 - x], 1e-3)
                    output[1:5, row, column] = np.log(distances / UNIT_PX)
                    output[5, row, column] = 0
    return output


@pytest.mark.parametrize(("score", "is_found"), [(0.9, True), (0.6, True), (0.35, True), (0.25, False)])
def test_faint_ones_are_short_and_not_too_faint(score: float, is_found: bool) -> None:
    rule, digit = DecodeRule(), (132.0, 40.0, 152.0, 64.0)
    output = output_of((WORD, 0.95), (digit, score))
    assert len(decode(output, rule).quads) == 1 + (score >= rule.word_score)
    # The word itself is too long to be a character.
    sure, found = decode_with_faint(output, rule)
    np.testing.assert_array_equal(sure.quads, decode(output, rule).quads)
    assert (len(found.quads) > 0) == is_found
    assert all(found.quads[:, 0, 0] > WORD[2])
    assert len(with_those_beside(decode(output, rule), found).quads) == 1 + is_found
