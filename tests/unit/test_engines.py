"""The engines that the tests use do what they say, and are found as a third party's engines are."""

import numpy as np
import pytest
from ocrstream_test_engines import BACKGROUND, GATE, make_picture

from ocrstream.cropping import cut
from ocrstream.errors import EngineError
from ocrstream.geometry import Box, box_polygon
from ocrstream.models import detector_names, load_detector, load_recognizer, recognizer_names
from ocrstream.picture import Image, Picture, encode_jpeg

LINES: list[tuple[str, Box]] = [
    ("Gate B12", (40, 30, 240, 74)),
    ("A", (300, 31, 340, 91)),
    ("ab", (40, 120, 90, 160)),
    ("Ströme fließen, 24 Stück", (60, 200, 601, 277)),
]


def crops_of(picture: Image, lines: list[tuple[str, Box]] = LINES) -> list[Image]:
    return [cut(picture, box_polygon(*box)) for _, box in lines]


def test_installed_engines_are_found_by_name() -> None:
    assert {"blocks", "ppocr"} <= set(detector_names())
    assert {"plain", "shout", "poison", "slow", "ppocr"} <= set(recognizer_names())


def test_an_unknown_engine_names_those_there_are() -> None:
    with pytest.raises(EngineError, match=r"there is no detector 'ctpm'; installed: .*blocks.*ppocr"):
        load_detector("ctpm")


def test_blocks_are_found_where_they_were_drawn_in_reading_order() -> None:
    found = load_detector("blocks").detect([make_picture(LINES), make_picture([])])
    assert [[line.polygon for line in lines] for lines in found] == [[box_polygon(*box) for _, box in LINES], []]


@pytest.mark.parametrize("quality", [None, 90, 50])
def test_texts_are_read_back_exactly(quality: int | None) -> None:
    picture = make_picture(LINES)
    if quality:
        picture = Picture.from_encoded(encode_jpeg(picture, quality)).array()
    readings = load_recognizer("plain").read(crops_of(picture))
    assert [reading.text for reading in readings] == [text for text, _ in LINES]


def test_what_is_no_block_reads_as_nothing() -> None:
    empty = np.full((20, 50, 3), BACKGROUND, dtype=np.uint8)
    readings = load_recognizer("shout").read([empty, empty[:0]])
    assert [(reading.text, reading.confidence) for reading in readings] == [("", 0.0), ("", 0.0)]


def test_shout_reads_otherwise() -> None:
    assert load_recognizer("shout").read(crops_of(make_picture(LINES)))[0].text == "GATE B12!"


def test_poison_breaks_on_its_crop_only() -> None:
    lines: list[tuple[str, Box]] = [("fine", (10, 10, 60, 60)), ("poisoned", (80, 10, 180, 60))]
    fine, poisoned = crops_of(make_picture(lines), lines)
    recognizer = load_recognizer("poison")
    assert recognizer.read([fine])[0].text == "fine"
    with pytest.raises(RuntimeError, match="cannot digest 'poisoned'"):
        recognizer.read([fine, poisoned])


def test_slow_reads_when_its_gate_is_open() -> None:
    GATE.opened.set()
    try:
        assert load_recognizer("slow").read(crops_of(make_picture(LINES)))[0].text == "Gate B12"
        assert GATE.entered.is_set()
    finally:
        GATE.reset()


def test_a_box_too_small_for_its_text_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'Gate' needs a box of 18x33 pixels"):
        make_picture([("Gate", (0, 0, 17, 33))])
