"""The weights that are shipped find text, upright and tilted, large and small, and nothing where there is none."""

import math

import cv2
import numpy as np
import pytest

from ocrstream.geometry import bounding_box, box_iou
from ocrstream.models import EngineOptions, load_detector
from ocrstream.models.ctpn import SHIPPED, SHIPPED_HALF, CtpnDetector
from ocrstream.models.weights import read_card, verify
from ocrstream.picture import Image


@pytest.fixture(scope="module")
def detector() -> CtpnDetector:
    found = load_detector("ctpn", EngineOptions(threads=2))
    assert isinstance(found, CtpnDetector)
    return found


def street(degrees: float = 0) -> tuple[Image, list[tuple[float, float, float, float]]]:
    """A shaded wall with words of several sizes, and each word's box, turned about the middle."""
    shade = np.linspace(90, 170, 640, dtype=np.float32)[None, :, None] * np.ones((400, 1, 3), dtype=np.float32)
    picture = shade.astype(np.uint8)
    turn = cv2.getRotationMatrix2D((320, 200), -degrees, 1)
    boxes = []
    for word, x, y, scale in (("BOARDING", 200, 140, 1.6), ("Gate", 190, 220, 1.2), ("24", 295, 220, 1.2)):
        (width, height), _ = cv2.getTextSize(word, cv2.FONT_HERSHEY_DUPLEX, scale, 3)
        cv2.putText(picture, word, (x, y), cv2.FONT_HERSHEY_DUPLEX, scale, (250, 250, 245), 3, cv2.LINE_AA)
        corners = np.array([(x, y - height), (x + width, y - height), (x + width, y), (x, y)], dtype=np.float32)
        turned = cv2.transform(corners[None], turn)[0]
        boxes.append((*turned.min(axis=0).tolist(), *turned.max(axis=0).tolist()))
    picture = cv2.warpAffine(picture, turn, (640, 400), borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)
    return picture, boxes


@pytest.mark.parametrize("degrees", [0, 12, -25])
def test_words_are_found_where_they_are(detector: CtpnDetector, degrees: float) -> None:
    picture, boxes = street(degrees)
    (lines,) = detector.detect([picture])
    words = [word for line in lines for word in line.words or (line.polygon,)]
    for box in boxes:
        best = max(words, key=lambda word: box_iou(bounding_box(word), box))
        assert box_iou(bounding_box(best), box) > 0.5
        (x0, y0), (x1, y1), *_ = best
        assert math.degrees(math.atan2(y1 - y0, x1 - x0)) == pytest.approx(degrees, abs=10)


def test_a_row_of_words_is_one_line(detector: CtpnDetector) -> None:
    picture, boxes = street()
    (lines,) = detector.detect([picture])
    row = (boxes[1][0], boxes[1][1], boxes[2][2], boxes[2][3])
    best = max(lines, key=lambda line: box_iou(bounding_box(line.polygon), row))
    assert box_iou(bounding_box(best.polygon), row) > 0.5
    assert len(best.words) == 2


def test_an_empty_wall_has_no_text(detector: CtpnDetector) -> None:
    assert detector.detect([np.full((300, 500, 3), 128, dtype=np.uint8)]) == [[]]


def test_the_files_are_what_their_cards_say() -> None:
    for path in (SHIPPED, SHIPPED_HALF):
        file = read_card(path)
        assert verify(file).startswith(file.card["sha256"][:12])
        assert file.card["bytes"] == path.stat().st_size < 16e6
        assert (file.card["engine"], file.card["profile"]) == ("ctpn", "light")
        assert file.card["training"]["samples"] > 0
        assert file.card["training"]["curve"]
        assert file.card["scores"]


def test_eight_bits_find_what_single_precision_finds(detector: CtpnDetector) -> None:
    picture, _ = street(8)
    other = CtpnDetector(EngineOptions(threads=2, weights=str(SHIPPED_HALF)))
    ours, theirs = detector.detect([picture])[0], other.detect([picture])[0]
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a.polygon, b.polygon, atol=6)


@pytest.mark.parametrize("inch_px", [30, 60, 110])
@pytest.mark.parametrize("text", ["Gate 7", "Room 3", "Exit B"])
def test_a_single_character_beside_a_word_is_found(detector: CtpnDetector, text: str, inch_px: int) -> None:
    picture = np.full((360, 1280, 3), (110, 40, 20), np.uint8)
    scale = inch_px / 22
    cv2.putText(picture, text, (200, 220), cv2.FONT_HERSHEY_DUPLEX, scale, (250,) * 3, round(2 * scale), cv2.LINE_AA)
    ((line,),) = detector.detect([picture])
    assert len(line.words) == 2
    (word_x0, _, word_x1, _), (x0, _, x1, _) = map(bounding_box, line.words)
    assert 0 < x0 - word_x1 < inch_px
    assert x1 - x0 < min(1.3 * inch_px, word_x1 - word_x0)
