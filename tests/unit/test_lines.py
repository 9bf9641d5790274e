"""Lines are cut where the spaces are."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from ocrstream.cropping import cut
from ocrstream.geometry import Polygon, box_polygon
from ocrstream.lines import LineReading, cut_into_words, cut_line, place_words, put_together
from ocrstream.messages import Word
from ocrstream.models import NO_MARGIN, Margin, Reading


def test_a_line_of_one_word_stays_whole() -> None:
    picture = np.zeros((20, 60, 3), dtype=np.uint8)
    polygon = box_polygon(0, 0, 60, 20)
    assert cut_into_words(picture, polygon, "gate") == [(polygon, "gate")]
    assert cut_into_words(picture, polygon, "  ") == []


@pytest.mark.parametrize("degrees", [0, -20, 25])
def test_the_cut_lies_in_the_gap(degrees: float) -> None:
    picture = np.full((400, 400, 3), 200, dtype=np.uint8)
    # "will" is far narrower than four usual letters, so that only the picture tells where the gap is.
    for x, word in ((60, "will"), (140, "BOARDING"), (300, "24")):
        cv2.putText(picture, word, (x, 200), cv2.FONT_HERSHEY_SIMPLEX, 0.9, (20, 20, 20), 2)
    ends = [cv2.getTextSize(word, cv2.FONT_HERSHEY_SIMPLEX, 0.9, 2)[0][0] for word in ("will", "BOARDING", "24")]
    turn = cv2.getRotationMatrix2D((200, 200), -degrees, 1)
    picture = cv2.warpAffine(picture, turn, (400, 400), borderValue=(200, 200, 200)).astype(np.uint8)
    corners = cv2.transform(np.array([box_polygon(58, 172, 300 + ends[2], 210)], dtype=np.float32), turn)[0]
    a, b, c, d = (tuple(map(float, corner)) for corner in corners)
    line: Polygon = (a, b, c, d)  # type: ignore[assignment]
    words = cut_into_words(cut(picture, line), line, "will BOARDING 24")
    assert [word for _, word in words] == ["will", "BOARDING", "24"]
    back = cv2.invertAffineTransform(turn)
    edges = [cv2.transform(np.array([polygon], dtype=np.float32), back)[0] for polygon, _ in words]
    assert 60 + ends[0] - 3 <= edges[0][1][0] <= 143
    assert 140 + ends[1] - 3 <= edges[1][1][0] <= 303
    assert edges[1][0][0] == pytest.approx(edges[0][1][0], abs=0.1)


def test_words_are_read_one_by_one_and_put_together() -> None:
    line, words = box_polygon(0, 0, 100, 20), (box_polygon(0, 0, 40, 20), box_polygon(50, 0, 100, 20))
    picture = np.full((20, 100, 3), 255, dtype=np.uint8)
    crops = cut_line(picture, line, words, NO_MARGIN)
    assert [crop.shape[:2] for crop in crops] == [(20, 40), (20, 50)]
    read = put_together(line, words, crops, [Reading("Gate", 0.9), Reading("B12", 0.6, (0.9, 0.5, 0.4))])
    assert read is not None
    # As its letters are, each as much as the other.
    assert read.confidence == pytest.approx((4 * 0.9 + 3 * 0.6) / 7, abs=1e-4)
    assert replace(read, confidence=0.0) == LineReading(
        "Gate B12",
        0.0,
        (0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.5, 0.4),
        (Word("Gate", words[0], 0.9), Word("B12", words[1], 0.6)),
    )


@pytest.mark.parametrize(
    ("before", "after", "gap_px", "text"),
    [
        ("18", ":59", 2, "18:59"),
        ("10", ".25", 5, "10.25"),
        ("10:", "41", 2, "10:41"),
        ("10:", ":41", 2, "10:41"),
        ("2027", "-03", 2, "2027-03"),
        ("14/", "03", 2, "14/03"),
        ("18", ":59", 12, "18 :59"),
        ("Zone", ".25", 2, "Zone .25"),
        ("1,", "2", 2, "1, 2"),
        ("10", ".", 2, "10 ."),
        ("10:", ".41", 2, "10: .41"),
        (":", ":41", 2, ": :41"),
    ],
)
def test_a_number_that_was_cut_apart_is_one_word(before: str, after: str, gap_px: int, text: str) -> None:
    line, words = box_polygon(0, 0, 100, 20), (box_polygon(0, 0, 40, 20), box_polygon(40 + gap_px, 0, 100, 20))
    crops = cut_line(np.zeros((20, 100, 3), dtype=np.uint8), line, words, NO_MARGIN)
    read = put_together(line, words, crops, [Reading(before, 0.9), Reading(after, 0.6)])
    assert read is not None
    assert read.text == text
    assert len(read.characters) == len(text)
    assert read.words == () or " ".join(word.text for word in read.words) == text


def test_unsure_words_are_left_out_and_a_line_of_none_is_nothing() -> None:
    line, words = box_polygon(0, 0, 100, 20), (box_polygon(0, 0, 40, 20), box_polygon(50, 0, 100, 20))
    crops = cut_line(np.zeros((20, 100, 3), dtype=np.uint8), line, words, NO_MARGIN)
    read = put_together(line, words, crops, [Reading("|", 0.3), Reading("gate", 0.7)], min_confidence=0.5)
    assert read == LineReading("gate", 0.7, (0.7,) * 4, ())
    assert put_together(line, words, crops, [Reading("|", 0.3), Reading("", 0.9)], min_confidence=0.5) is None
    # Nobody searches for dots and strokes alone; beside a word they stay.
    assert put_together(line, words, crops, [Reading("|", 0.9), Reading(".-", 0.9)]) is None
    beside = put_together(line, words, crops, [Reading("-", 0.9), Reading("4", 0.9)])
    assert beside is not None
    assert beside.text == "- 4"


def test_a_line_that_was_found_whole_is_cut_at_its_spaces() -> None:
    line = box_polygon(10, 10, 110, 30)
    picture = np.full((40, 120, 3), 255, dtype=np.uint8)
    picture[12:28, 12:50:4] = picture[12:28, 70:108:4] = 0
    crops = cut_line(picture, line, (), NO_MARGIN)
    read = put_together(line, (), crops, [Reading("Gate  B12a", 0.8)])
    assert read is not None
    assert (read.text, read.confidence) == ("Gate B12a", 0.8)
    assert len(read.characters) == len(read.text)
    (_, (x1, _), *_), ((x2, _), *_) = (word.polygon for word in read.words)
    assert 48 <= x1 == x2 <= 72


def test_a_word_of_a_line_is_as_sure_as_its_engine_says() -> None:
    line = box_polygon(0, 0, 100, 20)
    crops = cut_line(np.zeros((20, 100, 3), dtype=np.uint8), line, (), NO_MARGIN)
    sure = (0.9, 0.8, 1.0, 0.5, 0.5)
    told = put_together(line, (), crops, [Reading("ab de", 0.5, sure, (0.72, 0.25))])
    assert told is not None
    assert [word.confidence for word in told.words] == [0.72, 0.25]
    # Of an engine that says nothing of words, as sure as their letters.
    untold = put_together(line, (), crops, [Reading("ab de", 0.5, sure)])
    assert untold is not None
    assert [word.confidence for word in untold.words] == [0.85, 0.5]


def test_words_that_were_read_before_move_and_turn_with_their_line() -> None:
    was = box_polygon(0, 0, 100, 20)
    known = [box_polygon(0, 0, 40, 20), box_polygon(50, 0, 100, 20)]
    larger = box_polygon(10, 10, 210, 50)
    assert place_words("to B12", larger, known, was) == [
        ("to", box_polygon(10, 10, 90, 50)),
        ("B12", box_polygon(110, 10, 210, 50)),
    ]
    upright: Polygon = ((30, 0), (30, 100), (10, 100), (10, 0))
    (_, turned), _ = place_words("to B12", upright, known, was)
    assert turned == ((30, 0), (30, 40), (10, 40), (10, 0))


def test_words_whose_places_are_not_known_stand_where_their_letters_may() -> None:
    line = box_polygon(0, 0, 100, 20)
    (first, left), (second, right) = place_words("Gate to", line, [line], line)
    assert (first, second) == ("Gate", "to")
    assert left[0][0] == 0
    assert right[1][0] == 100
    assert left[1][0] == right[0][0]
    assert 55 < left[1][0] < 75
    assert place_words("Gate", line) == [("Gate", line)]


def test_a_margin_is_cut_out_around_each_word() -> None:
    picture = np.arange(60 * 120, dtype=np.uint32).reshape(60, 120, 1).repeat(3, axis=2).astype(np.uint8)
    words = [box_polygon(20, 20, 40, 30), box_polygon(50, 20, 90, 30)]
    crops = cut_line(picture, box_polygon(20, 20, 90, 30), words, Margin(along=0.3, across=0.2))
    np.testing.assert_array_equal(crops[0], picture[18:32, 17:43])
    np.testing.assert_array_equal(crops[1], picture[18:32, 47:93])
