"""The engine ppocr reads rendered words, where they are and whatever is read beside them."""

import os
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import pytest

from ocrstream.cropping import cut
from ocrstream.errors import EngineError
from ocrstream.geometry import Box, Polygon, bounding_box, box_iou
from ocrstream.models import EngineOptions, Reading
from ocrstream.models.ppocr import PpocrDetector, PpocrRecognizer, network
from ocrstream.models.ppocr.decode import decode_lines, decode_reading
from ocrstream.models.ppocr.preprocess import Placement, crop_to_tensor, picture_to_tensor
from ocrstream.picture import Image

BLACK, WHITE = (0, 0, 0), (255, 255, 255)


@pytest.fixture(scope="module")
def detector() -> PpocrDetector:
    return PpocrDetector(EngineOptions())


@pytest.fixture(scope="module")
def recognizer() -> PpocrRecognizer:
    return PpocrRecognizer(EngineOptions())


def render(lines: list[tuple[str, tuple[int, int], int]], size_wh: tuple[int, int]) -> Image:
    """Black text on white: each line's text, its top-left corner and its size, in pixels."""
    image = PIL.Image.new("RGB", size_wh, WHITE)
    drawing = PIL.ImageDraw.Draw(image)
    for text, corner, size_px in lines:
        drawing.text(corner, text, BLACK, PIL.ImageFont.load_default(size_px))
    return np.asarray(image)[:, :, ::-1].copy()


def read_all(detector: PpocrDetector, recognizer: PpocrRecognizer, picture: Image) -> list[tuple[Polygon, str]]:
    lines = detector.detect([picture])[0]
    readings = recognizer.read([cut(picture, line.polygon) for line in lines])
    return [(line.polygon, reading.text) for line, reading in zip(lines, readings, strict=True)]


def ink_box(picture: Image) -> Box:
    x, y, width_px, height_px = cv2.boundingRect((picture.min(axis=2) < 128).astype(np.uint8))
    return x, y, x + width_px, y + height_px


# Two lines of a column beside each other, so that the order of reading shows; wide and tall pictures.
@pytest.mark.parametrize("size_wh", [(1000, 400), (500, 900)])
def test_words_are_read_where_they_are_in_reading_order(
    detector: PpocrDetector, recognizer: PpocrRecognizer, size_wh: tuple[int, int]
) -> None:
    lines = [("Gate B12", (20, 40), 40), ("Boarding", (270, 46), 40), ("Flight to Reykjavik", (30, 200), 36)]
    read = read_all(detector, recognizer, render(lines, size_wh))
    assert [text for _, text in read] == ["Gate B12", "Boarding", "Flight to Reykjavik"]
    for (polygon, _), line in zip(read, lines, strict=True):
        box = bounding_box(polygon)
        ink = ink_box(render([line], size_wh))
        assert box[0] < ink[0] < ink[2] < box[2], "the line's box holds its ink from left to right"
        assert box[1] < ink[1] < ink[3] < box[3], "and from top to bottom"
        assert box_iou(box, ink) > 0.4


@pytest.mark.parametrize("degrees", [-20, 20])
def test_a_tilted_line_is_read(detector: PpocrDetector, recognizer: PpocrRecognizer, degrees: int) -> None:
    picture = render([("Departures", (150, 170), 56)], (640, 400))
    turn = cv2.getRotationMatrix2D((320, 200), degrees, 1)
    tilted = cv2.warpAffine(picture, turn, (640, 400), borderValue=WHITE).astype(np.uint8)
    ((polygon, text),) = read_all(detector, recognizer, tilted)
    assert text == "Departures"
    (ax, ay), (bx, by) = polygon[:2]
    assert np.degrees(np.arctan2(ay - by, bx - ax)) == pytest.approx(degrees, abs=2)


def test_a_line_that_runs_down_starts_at_its_top_right(detector: PpocrDetector, recognizer: PpocrRecognizer) -> None:
    picture = np.ascontiguousarray(np.rot90(render([("Platform 9", (40, 60), 48)], (400, 200)), k=-1))
    ((polygon, text),) = read_all(detector, recognizer, picture)
    assert text == "Platform 9"
    assert polygon[0][0] > polygon[3][0], "the letters' tops are at the right"
    assert polygon[0][1] < polygon[1][1], "the text runs down"


def test_a_reading_does_not_depend_on_its_neighbours(recognizer: PpocrRecognizer) -> None:
    crops = [
        render([(text, (4, 4), 32)], (width_px, 44))
        for text, width_px in [
            ("Go", 60),
            ("Arrivals", 150),
            ("a considerably longer line of text", 560),
            ("Exit 4", 120),
        ]
    ]
    together = recognizer.read(crops)
    assert [reading.text for reading in together] == ["Go", "Arrivals", "a considerably longer line of text", "Exit 4"]
    assert min(reading.confidence for reading in together) > 0.9
    assert together == [recognizer.read([crop])[0] for crop in crops]
    assert recognizer.read(crops[::-1]) == together[::-1]


def test_nothing_gives_nothing(detector: PpocrDetector, recognizer: PpocrRecognizer) -> None:
    assert detector.detect([]) == []
    assert recognizer.read([]) == []
    empty = np.zeros((0, 10, 3), dtype=np.uint8)
    assert recognizer.read([empty, empty.transpose(1, 0, 2)]) == [Reading("", 0.0), Reading("", 0.0)]


@pytest.mark.parametrize("size_hw", [(1, 1), (300, 1), (16, 16)])
def test_tiny_and_thin_pictures_hold_no_text(
    detector: PpocrDetector, recognizer: PpocrRecognizer, size_hw: tuple[int, int]
) -> None:
    picture = np.full((*size_hw, 3), 90, dtype=np.uint8)
    assert detector.detect([picture]) == [[]]
    assert recognizer.read([picture])[0].text == ""


def test_a_text_strip_is_read(detector: PpocrDetector, recognizer: PpocrRecognizer) -> None:
    strip = render([("strip of film", (300, 2), 20)], (900, 28))
    assert [text for _, text in read_all(detector, recognizer, strip)] == ["strip of film"]


def test_large_pictures_are_scaled_down_and_their_lines_back() -> None:
    tensor, placement = picture_to_tensor(np.zeros((6000, 9000, 3), dtype=np.uint8))
    assert tensor.shape == (1, 3, 1344, 1984)
    whole = np.zeros((1344, 1984), dtype=np.float32)
    whole[600:700, 400:1400] = 0.9
    (line,) = decode_lines(whole, placement)
    x0, y0, x1, y1 = bounding_box(line.polygon)
    grown_px = 1000 * 100 * 1.6 / 2200
    scale_x, scale_y = 9000 / 1984, 6000 / 1344
    assert (x0, x1) == pytest.approx(((400 - grown_px) * scale_x, (1400 + grown_px) * scale_x), abs=1.5 * scale_x)
    assert (y0, y1) == pytest.approx(((600 - grown_px) * scale_y, (700 + grown_px) * scale_y), abs=1.5 * scale_y)
    assert line.score == pytest.approx(0.9, abs=0.02)


def test_pictures_become_bgr_planes_from_minus_one_to_one() -> None:
    picture = np.empty((736, 960, 3), dtype=np.uint8)
    picture[:] = (0, 51, 255)
    tensor, placement = picture_to_tensor(picture)
    assert tensor.shape == (1, 3, 736, 960)
    np.testing.assert_allclose(tensor[0, :, 100, 200], (-1.0, -0.6, 1.0), atol=1e-6)
    assert placement == Placement(960, 736, 0, 0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("size_wh", "margins", "input_wh"),
    [
        ((1280, 720), (0, 0), (1312, 736)),
        ((640, 360), (0, 0), (1312, 736)),
        ((900, 28), (0, 98), (2944, 736)),
        ((28, 900), (98, 0), (736, 2944)),
        ((1, 1), (30, 30), (736, 736)),
    ],
)
def test_the_detectors_input_keeps_shape_and_bounds(
    size_wh: tuple[int, int], margins: tuple[int, int], input_wh: tuple[int, int]
) -> None:
    tensor, placement = picture_to_tensor(np.zeros((size_wh[1], size_wh[0], 3), dtype=np.uint8))
    assert (placement.left_px, placement.top_px) == margins
    assert (tensor.shape[3], tensor.shape[2]) == pytest.approx(input_wh, abs=64)
    assert placement.scale_x == pytest.approx(tensor.shape[3] / (size_wh[0] + 2 * margins[0]))


def test_crops_keep_their_aspect_and_are_padded_with_grey() -> None:
    crop = np.full((24, 100, 3), 255, dtype=np.uint8)
    tensor = crop_to_tensor(crop)
    assert tensor.shape == (1, 3, 48, 224)
    assert (tensor[..., :200] == 1).all()
    assert (tensor[..., 200:] == 0).all()
    assert crop_to_tensor(crop[:, :10]).shape == (1, 3, 48, 160)
    assert crop_to_tensor(np.zeros((10, 100_000, 3), dtype=np.uint8)).shape == (1, 3, 48, 3200)


def test_ctc_drops_repeats_and_blanks_and_averages_what_is_kept() -> None:
    # Timesteps: a a blank a b b; T = 6 differs from C = 4.
    probability = np.full((6, 4), 0.05, dtype=np.float32)
    for step, (index, value) in enumerate([(1, 0.9), (1, 0.5), (0, 0.8), (1, 0.7), (2, 0.6), (2, 0.8)]):
        probability[step, index] = value
    reading = decode_reading(probability, ("a", "b", " "))
    assert reading.text == "aab"
    assert reading.confidence == pytest.approx((0.9 + 0.7 + 0.6) / 3)
    assert reading.characters == pytest.approx((0.9, 0.7, 0.6))
    probability[:, 0] = 1
    assert decode_reading(probability, ("a", "b", " ")) == Reading("", 0.0)


def test_characters_have_confidences_of_their_own_without_the_spaces_around_them() -> None:
    # Timesteps: space a space b blank space; T = 6 differs from C = 4.
    probability = np.full((6, 4), 0.02, dtype=np.float32)
    for step, (index, value) in enumerate([(3, 0.5), (1, 0.9), (3, 0.6), (2, 1.0002), (0, 0.9), (3, 0.4)]):
        probability[step, index] = value
    reading = decode_reading(probability, ("a", "b", " "))
    assert reading.text == "a b"
    assert reading.characters == pytest.approx((0.9, 0.6, 1.0))
    assert max(reading.characters) == 1.0
    only_space = np.full((2, 4), 0.1, dtype=np.float32)
    only_space[:, 3] = 0.7
    nothing = decode_reading(only_space, ("a", "b", " "))
    assert (nothing.text, nothing.characters) == ("", ())


def test_faint_and_thin_regions_are_no_lines() -> None:
    placement = Placement(300, 200, 0, 0, 1.0, 1.0)
    probability = np.zeros((200, 300), dtype=np.float32)
    probability[20:40, 20:120] = 0.45
    probability[100:102, 20:200] = 0.9
    assert decode_lines(probability, placement) == []
    probability[150:170, 50:150] = 0.8
    assert [round(line.score, 1) for line in decode_lines(probability, placement)] == [0.8]


def test_lines_come_in_rows_although_some_sit_a_little_higher() -> None:
    placement = Placement(300, 200, 0, 0, 1.0, 1.0)
    probability = np.zeros((200, 300), dtype=np.float32)
    boxes = {"left": (20, 24), "right": (200, 20), "below": (110, 70), "last": (20, 110)}
    for x, y in boxes.values():
        probability[y : y + 12, x : x + 60] = 0.9
    lines = decode_lines(probability, placement)
    lefts = [bounding_box(line.polygon)[0] for line in lines]
    assert lefts == pytest.approx([20 - 8, 200 - 8, 110 - 8, 20 - 8], abs=1.5)


def test_weights_are_named_by_their_hash(detector: PpocrDetector, recognizer: PpocrRecognizer) -> None:
    # RapidOCR's own list of models has the same hashes.
    assert (detector.info.name, detector.info.weights) == ("ppocr", "090f04abcd9d")
    assert (recognizer.info.name, recognizer.info.weights) == ("ppocr", "6f327246b503")


def test_another_device_is_refused() -> None:
    with pytest.raises(EngineError, match="use --device cpu"):
        PpocrDetector(EngineOptions(device="cuda"))


def test_missing_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(network, "_models_folder", lambda: tmp_path)
    with pytest.raises(EngineError, match=r"cannot be read \(No such file or directory\); install it again with: pip"):
        PpocrDetector(EngineOptions())


def test_damaged_weights_say_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "PP-OCRv6_rec_small.onnx").write_bytes(b"not a network")
    monkeypatch.setattr(network, "_models_folder", lambda: tmp_path)
    with pytest.raises(EngineError, match=r"PP-OCRv6_rec_small.onnx are damaged .*install it again with: pip"):
        PpocrRecognizer(EngineOptions())


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(EngineError, match=r"needs the package rapidocr; install it with: pip"):
        PpocrRecognizer(EngineOptions())


def test_nobody_is_told_how_it_is_used() -> None:
    assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
