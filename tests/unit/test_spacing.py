"""Lines are cut where the spaces are."""

import cv2
import numpy as np
import pytest

from ocrstream.geometry import Polygon, box_polygon
from ocrstream.spacing import cut_into_words


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
    words = cut_into_words(picture, line, "will BOARDING 24")
    assert [word for _, word in words] == ["will", "BOARDING", "24"]
    back = cv2.invertAffineTransform(turn)
    edges = [cv2.transform(np.array([polygon], dtype=np.float32), back)[0] for polygon, _ in words]
    assert 60 + ends[0] - 3 <= edges[0][1][0] <= 143
    assert 140 + ends[1] - 3 <= edges[1][1][0] <= 303
    assert edges[1][0][0] == pytest.approx(edges[0][1][0], abs=0.1)
