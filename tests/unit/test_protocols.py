"""Each protocol counts as its source says."""

import numpy as np

from ocrstream.geometry import box_polygon
from training.programs import parse_table
from training.protocols import DetEval, IcdarIou, Quad, Recognition, SearchableWords


def box(x0: float, y0: float, x1: float, y1: float) -> Quad:
    return np.array(box_polygon(x0, y0, x1, y1), dtype=np.float32)


def test_icdar_iou_is_one_to_one_above_a_half() -> None:
    score = IcdarIou()
    # Shifted by a fifth of its width: IoU 2/3. The second detection of the same word is one too many.
    score.add([box(20, 0, 120, 20), box(0, 0, 100, 20)], [box(0, 0, 100, 20)], [False])
    assert (score.labelled, score.detected, score.matched) == (1, 2, 1)
    # Half as wide: an IoU of exactly 0.5 is not above it.
    score.add([box(0, 0, 50, 20)], [box(0, 0, 100, 20)], [False])
    assert (score.labelled, score.detected, score.matched) == (2, 3, 1)
    assert score.figures() == {"recall": 0.5, "precision": 0.3333, "f": 0.4}


def test_icdar_iou_leaves_out_what_lies_in_a_dont_care_region() -> None:
    score = IcdarIou()
    regions = [box(0, 0, 100, 20), box(200, 0, 300, 20)]
    score.add([box(210, 0, 250, 20), box(0, 0, 100, 20), box(295, 0, 400, 20)], regions, [False, True])
    assert (score.labelled, score.detected, score.matched) == (1, 2, 1)


def test_icdar_iou_knows_tilted_regions() -> None:
    diamond = np.array([(50, 0), (100, 50), (50, 100), (0, 50)], dtype=np.float32)
    score = IcdarIou()
    # Its upright box is twice as large: exactly one half.
    score.add([box(0, 0, 100, 100)], [diamond], [False])
    score.add([diamond + 5], [diamond], [False])
    assert score.matched == 1


def test_deteval_takes_a_line_for_its_words_and_pieces_for_a_word() -> None:
    score = DetEval()
    words = [box(0, 0, 40, 20), box(50, 0, 100, 20)]
    score.add([box(0, 0, 100, 20)], words, [False, False])
    assert (score.found, score.right, score.labelled, score.detected) == (2.0, 1.0, 2, 1)
    score = DetEval()
    score.add([box(0, 0, 45, 20), box(50, 0, 100, 20)], [box(0, 0, 100, 20)], [False])
    assert (score.found, score.right, score.labelled, score.detected) == (0.8, 1.6, 1, 2)


def test_deteval_wants_most_of_the_word_and_not_too_much_beside_it() -> None:
    score = DetEval()
    score.add([box(0, 0, 79, 20)], [box(0, 0, 100, 20)], [False])
    score.add([box(0, 0, 100, 60)], [box(0, 0, 100, 20)], [False])
    assert (score.found, score.detected) == (0.0, 2)
    score.add([box(0, 0, 100, 48)], [box(0, 0, 100, 20)], [False])
    assert (score.found, score.right) == (1.0, 1.0)


def test_searchable_words_count_once_a_photo_and_not_in_dont_care_regions() -> None:
    score = SearchableWords()
    lines = [(box_polygon(0, 0, 40, 10), "GATE gate b12"), (box_polygon(82, 2, 98, 9), "blurred")]
    found = score.add(lines, {"gate", "b12", "exit"}, [box(80, 0, 100, 10)])
    assert found == {"gate", "b12"}
    assert score.figures() == {"recall": 0.6667, "precision": 1.0, "f": 0.8}


def test_recognition_compares_letters_and_digits_and_beside_it_everything() -> None:
    score = Recognition()
    score.add("its", "It's")
    score.add("It's", "It's")
    score.add("lts", "It's")
    score.add("anything", "!?")
    assert score.crops == 3
    assert score.figures() == {"words": 66.67, "exact": 33.33}
    score.add("Łodź Główna", "Łódź Główna")
    assert (score.marked, score.marked_right) == (5, 4)
    assert score.figures() == {"words": 50.0, "exact": 25.0, "marked": 80.0}


def test_tesseracts_table_gives_words_with_a_confidence() -> None:
    header = "level\tpage_num\tblock_num\tpar_num\tline_num\tword_num\tleft\ttop\twidth\theight\tconf\ttext\n"
    table = header + '4\t1\t1\t1\t1\t0\t5\t5\t60\t9\t-1\t\n5\t1\t1\t1\t1\t1\t5\t6\t30\t8\t91.5\t"Gate\n'
    assert parse_table(table) == [(box_polygon(5, 6, 35, 14), '"Gate')]
