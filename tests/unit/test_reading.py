"""A picture's lines are found, read, sorted out and given back in its own pixels."""

from collections.abc import Sequence
from dataclasses import replace

from ocrstream_test_engines import CONFIDENCE, SCORE, PlainRecognizer, make_picture

from ocrstream.geometry import Box, box_polygon
from ocrstream.models import EngineOptions, Reading, load_detector, load_recognizer
from ocrstream.picture import Image
from pipeline.reading import Reader, ReadLine


class Counting(PlainRecognizer):
    """Reads like ``plain``, keeps how many crops came at once, and is unsure of what ends in a question mark."""

    def __init__(self) -> None:
        super().__init__(EngineOptions())
        self.calls: list[int] = []

    def read(self, crops: Sequence[Image]) -> list[Reading]:
        self.calls.append(len(crops))
        readings = super().read(crops)
        return [Reading(reading.text, 0.2) if reading.text.endswith("?") else reading for reading in readings]


FIRST: list[tuple[str, Box]] = [("Gate B12", (40, 30, 240, 74)), ("now", (300, 31, 340, 91))]
SECOND: list[tuple[str, Box]] = [("maybe?", (10, 20, 90, 60)), ("yes", (10, 100, 90, 140))]


def test_lines_come_with_their_place_scores_and_text() -> None:
    reader = Reader(load_detector("blocks"), load_recognizer("plain"))
    (lines,) = reader.read([make_picture(FIRST)])
    assert [replace(line, characters=(), words=()) for line in lines] == [
        ReadLine(box_polygon(*box), SCORE, text, CONFIDENCE) for text, box in FIRST
    ]
    assert [len(line.characters) == len(line.text) for line in lines] == [True] * len(lines)
    assert [[word.text for word in line.words] for line in lines] == [["Gate", "B12"], []]


def test_all_pictures_are_read_as_one_batch() -> None:
    recognizer = Counting()
    reader = Reader(load_detector("blocks"), recognizer)
    pictures = [make_picture(FIRST), make_picture([], (50, 20)), make_picture(SECOND, (100, 200))]
    texts = [[line.text for line in lines] for lines in reader.read(pictures)]
    assert texts == [["Gate B12", "now"], [], ["maybe?", "yes"]]
    assert recognizer.calls == [4]


def test_unsure_and_empty_readings_are_left_out() -> None:
    reader = Reader(load_detector("blocks"), Counting(), min_confidence=0.3)
    picture = make_picture([*SECOND, ("", (10, 150, 90, 190))], (100, 200))
    assert [line.text for line in reader.read([picture])[0]] == ["yes"]


def test_no_pictures_give_no_lines() -> None:
    assert Reader(load_detector("blocks"), load_recognizer("plain")).read([]) == []
