"""This project's CTPN: slices and what they are decoded to, the network in both runtimes, the engine around it."""

import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from ocrstream.errors import EngineError
from ocrstream.geometry import box_polygon
from ocrstream.models import EngineOptions, TextLine
from ocrstream.models.ctpn import MARGIN, CtpnDetector, _to_lines
from ocrstream.models.ctpn.decode import DecodeRule, Words, decode
from ocrstream.models.ctpn.joining import around, join
from ocrstream.models.ctpn.merging import merge
from ocrstream.models.ctpn.preprocess import resized, to_tensor
from ocrstream.models.ctpn.slices import MEAN_BGR, cell_centres, to_distance_px
from ocrstream.models.ordering import in_reading_order
from ocrstream.models.session import Session

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra training)")
pytest.importorskip("onnx", reason="the package onnx is not installed (extra training)")

from ocrstream.models.ctpn.gpu import TorchNetwork  # noqa: E402
from ocrstream.models.ctpn.network import Ctpn  # noqa: E402
from ocrstream.models.ctpn.onnx_file import read_state, to_onnx  # noqa: E402
from training.folders import Region  # noqa: E402
from training.scenes import NO_TEXT, TEXT, UNKNOWN, targets  # noqa: E402

Quad = NDArray[np.float32]


def tilted(centre: tuple[float, float], size: tuple[float, float], degrees: float) -> Quad:
    """A word's corners, clockwise from its own top-left."""
    half = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * np.array(size) / 2
    angle = math.radians(degrees)
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    quad: Quad = (half @ turn + centre).astype(np.float32)
    return quad


def perfect(regions: list[Region], size_px: int = 320) -> NDArray[np.float32]:
    """What a network that has learnt everything would give."""
    score, geometry, _ = targets(regions, size_px)
    logits = np.where(score == TEXT, 6.0, -6.0)[None]
    return np.concatenate([logits, geometry]).astype(np.float32)


@pytest.mark.parametrize("degrees", [0, 10, -20, 30, -35, 40])
@pytest.mark.parametrize("size", [(200, 30), (24, 14), (60, 50), (28, 10)])
def test_a_word_comes_back_from_its_slices(size: tuple[float, float], degrees: float) -> None:
    quad = tilted((163, 150), size, degrees)
    words = decode(perfect([Region(quad, "gate", False)]))
    assert len(words.quads) == 1
    np.testing.assert_allclose(words.quads[0], quad, atol=max(1.5, 0.05 * max(size)))
    assert words.scores[0] > 0.99


def test_neighbouring_words_and_lines_stay_apart() -> None:
    texts = [
        Region(tilted((80, 100), (100, 24), 0), "boarding", False),
        Region(tilted((165, 100), (58, 24), 0), "gate", False),
        Region(tilted((80, 126), (100, 24), 0), "flight", False),
    ]
    words = decode(perfect(texts))
    assert len(words.quads) == 3
    found = sorted(words.quads.mean(axis=1).round().tolist())
    np.testing.assert_allclose(found, [[80, 100], [80, 126], [165, 100]], atol=1)


@pytest.mark.parametrize("degrees", [0, 25, -30])
def test_words_behind_each_other_become_a_line(degrees: float) -> None:
    """Two on a line, one on the next, one far behind, one that is much larger."""
    places = [((60, 100), (80, 20)), ((150, 100), (70, 22)), ((100, 126), (160, 20)), ((300, 100), (60, 20))]
    places.append(((240, 60), (60, 60)))
    turn = cv2.getRotationMatrix2D((160, 160), -degrees, 1)
    quads = [cv2.transform(tilted(*place, 0)[None], turn)[0].astype(np.float64) for place in places]
    lines = join(Words(np.array(quads), np.ones(5)))
    assert lines == [[0, 1], [2], [3], [4]]
    whole = around(np.array([quads[0], quads[1]]))
    # As wide as both, as high as the higher one, and turned like them.
    expected = cv2.transform(np.array([[(20, 89), (185, 89), (185, 111), (20, 111)]], dtype=np.float64), turn)[0]
    np.testing.assert_allclose(whole, expected, atol=0.1)


def test_a_line_of_three_words_is_one_line_and_words_beside_it_are_not() -> None:
    row = [tilted((x, 50), (60, 20), 0).astype(np.float64) for x in (170, 30, 100)]
    assert join(Words(np.array(row), np.ones(3))) == [[1, 2, 0]]
    np.testing.assert_allclose(around(np.array(row)[[1, 2, 0]]), [row[1][0], row[0][1], row[0][2], row[1][3]])
    beside = [tilted((30, 50), (60, 20), 0), tilted((100, 60), (60, 20), 0)]
    assert join(Words(np.array(beside, dtype=np.float64), np.ones(2))) == [[0], [1]]


def test_tilted_words_are_one_line_though_short_ones_are_found_less_turned() -> None:
    # What the shipped weights find of "Boarding Gate 12" that is turned by 30 degrees.
    boarding = [(462, 216), (653, 342), (626, 383), (435, 257)]
    gate = [(666, 351), (770, 395), (751, 437), (648, 393)]
    twelve = [(780, 414), (853, 430), (841, 483), (768, 467)]
    found = np.array([boarding, gate, twelve], dtype=np.float64)
    assert join(Words(found, np.ones(3))) == [[0, 1, 2]]
    # The same boxes in a level line would be two lines.
    x, y = np.cos(-0.52), np.sin(-0.52)
    level = found @ np.array([[x, y], [-y, x]])
    level[2] += (0, 12)
    assert join(Words(level, np.ones(3))) == [[0, 1], [2]]


@pytest.mark.parametrize("degrees", [0, 25, -30])
def test_pieces_that_lie_over_each_other_are_one_word(degrees: float) -> None:
    """Two pieces of a word, a third over the second, and around them what is no part of it."""
    places = [((60, 100), (80, 20)), ((110, 101), (60, 22)), ((150, 99), (50, 20))]
    others = [((60, 125), (80, 20)), ((215, 100), (78, 20)), ((110, 100), (100, 60))]
    turn = cv2.getRotationMatrix2D((160, 160), -degrees, 1)
    quads = [cv2.transform(tilted(*place, 0)[None], turn)[0].astype(np.float64) for place in places + others]
    merged = merge(Words(np.array(quads), np.array([0.9, 0.7, 0.8, 0.95, 0.96, 0.97])))
    assert merged.scores.tolist() == pytest.approx([0.95, 0.96, 0.97, 0.8])
    np.testing.assert_array_equal(merged.quads[:3], quads[3:])
    # From the first one's left to the third one's right; the middles and heights by the pieces' lengths.
    height = (80 * 20 + 60 * 22 + 50 * 20) / 190
    middle = (80 * 100 + 60 * 101 + 50 * 99) / 190
    box = [(20, middle - height / 2), (175, middle - height / 2), (175, middle + height / 2), (20, middle + height / 2)]
    np.testing.assert_allclose(merged.quads[3], cv2.transform(np.array([box]), turn)[0], atol=0.1)


def test_words_that_only_touch_stay_apart() -> None:
    quads = np.array([tilted((x, 50), (60, 20), 0) for x in (30, 85, 146)], dtype=np.float64)
    words = merge(Words(quads, np.ones(3)))
    np.testing.assert_array_equal(words.quads, quads)
    assert len(merge(Words(quads[:1], np.ones(1))).quads) == 1
    assert len(merge(Words(quads[:0], np.ones(0))).quads) == 0


def test_nothing_and_noise_give_no_words() -> None:
    output = np.full((6, 20, 30), -5, dtype=np.float32)
    assert len(decode(output).quads) == 0
    # Cells that are hardly text do not make a word, nor does one without a size.
    output[0, 5:8, 5:20] = 0.3
    assert len(decode(output, DecodeRule(word_score=0.7)).quads) == 0
    output[0, 5:8, 5:20] = 5
    output[1:5] = -5
    assert len(decode(output).quads) == 0


def test_slices_measure_from_their_middles() -> None:
    np.testing.assert_array_equal(cell_centres(3), [2, 6, 10])
    np.testing.assert_allclose(to_distance_px(np.log(np.array([0.5, 2], dtype=np.float32))), [8, 32], rtol=1e-6)
    assert np.isfinite(to_distance_px(np.array([1e9], dtype=np.float32))).all()


def test_targets_know_text_its_surroundings_and_what_cannot_be_told() -> None:
    quads = [tilted((60, 40), (80, 20), 0), tilted((200, 40), (80, 20), 0), tilted((60, 120), (80, 5), 0)]
    quads.append(tilted((60, 160), (80, 3), 0))
    upright = np.array([(150, 100), (150, 180), (130, 180), (130, 100)], dtype=np.float32)
    regions = [Region(quads[0], "gate", False), Region(quads[1], "###", True), Region(quads[2], "tiny", False)]
    regions.append(Region(quads[3], "tinier", False))
    score, geometry, known = targets([*regions, Region(upright, "down", False)], 256)
    row, column = 40 // 4, 60 // 4
    assert score[row, column] == TEXT
    np.testing.assert_allclose(np.exp(geometry[:4, row, column].astype(float)) * 16, [12, 8, 42, 38], rtol=0.01)
    assert known[row, column] == 2
    # Above the core but still inside the word there is no text: lines must not touch.
    assert score[28 // 4, column] == NO_TEXT
    # A don't-care region says where it is, but not whether it is text.
    assert score[row, 200 // 4] == UNKNOWN
    assert known[row, 200 // 4]
    # Small text is a hint to look closer, and no more.
    assert score[120 // 4, column] == TEXT
    assert not known[120 // 4, column]
    # Too small even for that, and running down: neither text nor none.
    assert score[160 // 4, column] == UNKNOWN
    assert score[140 // 4, 140 // 4] == UNKNOWN
    assert score[200 // 4, 200 // 4] == NO_TEXT


@pytest.mark.parametrize("profile", ["light", "vgg16"])
def test_both_runtimes_compute_the_same_for_each_picture_of_a_batch(profile: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    network = Ctpn(profile).eval()
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.copy_(torch.rand_like(buffer) + 0.5)
    # Enough for the features to reach the output.
    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(module.weight)
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    path = tmp_path / "weights.onnx"
    path.write_bytes(to_onnx(state, profile, half=False))
    random = np.random.default_rng(2)
    pictures = [random.normal(0, 50, (1, 3, *shape)).astype("f") for shape in ((64, 96), (96, 64), (64, 96))]
    with torch.inference_mode():
        expected = [network(torch.from_numpy(picture)).numpy() for picture in pictures]
    assert expected[0].shape == (1, 6, 16, 24)
    assert np.std(expected[0]) > 0.1
    session = Session(path.read_bytes(), "weights", 1, "")
    gpu = TorchNetwork(path, path.read_bytes(), "cpu")
    assert session.metadata("profile") == gpu.metadata("profile") == profile
    for ours, other, theirs in zip(session.run_each(pictures), gpu.run_each(pictures), expected, strict=True):
        spread = np.abs(theirs).max()
        np.testing.assert_allclose(ours, theirs, atol=2e-5 * spread)
        np.testing.assert_allclose(other, theirs, atol=2e-5 * spread)

    again, name = read_state(path)
    assert name == profile
    for tensor, array in again.items():
        np.testing.assert_array_equal(array, state[tensor])
    assert len(again) == len([name for name in state if "num_batches" not in name])


def test_a_first_convolution_on_squares_computes_the_same(tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = {name: tensor.numpy() for name, tensor in Ctpn().eval().state_dict().items()}
    picture = np.random.default_rng(4).normal(0, 50, (1, 3, 64, 96)).astype("f")
    plain = Session(to_onnx(state, "light", half=False), "plain", 1, "").run(picture)
    folded = Session(to_onnx(state, "light", half=False, fold=True), "folded", 1, "").run(picture)
    np.testing.assert_allclose(folded, plain, atol=1e-4 * np.abs(plain).max())
    assert np.std(plain) > 0


def test_the_backbone_sees_what_its_initial_weights_were_made_for() -> None:
    tensor = to_tensor(np.full((500, 750, 3), (10, 20, 30), dtype=np.uint8))
    assert tensor.shape == (1, 3, 512, 768)
    np.testing.assert_allclose(tensor[0, :, 0, 0], np.array((10, 20, 30)) - MEAN_BGR)
    assert not tensor[0, :, 500:].any()
    assert not tensor[0, :, :, 750:].any()


@pytest.mark.parametrize(
    ("scale", "shape"), [(1.0, (40, 61, 3)), (0.5, (20, 30, 3)), (2.0, (80, 122, 3)), (0.01, (1, 1, 3))]
)
def test_a_picture_is_seen_so_many_times_as_large(scale: float, shape: tuple[int, ...]) -> None:
    picture = np.full((40, 61, 3), 77, dtype=np.uint8)
    assert resized(picture, scale).shape == shape
    assert (resized(picture, scale) == 77).all()


def test_boxes_are_in_the_pictures_own_pixels_and_inside_it() -> None:
    quads = np.array([tilted((100, 50), (80, 20), 0), tilted((400, 50), (80, 20), 0), tilted((900, 50), (80, 20), 0)])
    lines = _to_lines(Words(quads.astype(np.float64), np.array([0.9, 0.8, 0.7])), (420, 200))
    assert [line.polygon for line in lines] == [box_polygon(60, 40, 140, 60), box_polygon(360, 40, 420, 60)]
    assert [line.score for line in lines] == [0.9, 0.8]


def test_reading_order_is_by_rows() -> None:
    boxes = [box_polygon(50, 12, 90, 32), box_polygon(0, 40, 40, 60), box_polygon(0, 10, 40, 30)]
    lines = in_reading_order([TextLine(box, 1.0) for box in boxes])
    assert [line.polygon for line in lines] == [boxes[2], boxes[0], boxes[1]]


def test_mistakes_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot be read"):
        CtpnDetector(EngineOptions(weights=str(tmp_path / "nothing.onnx")))
    path = tmp_path / "damaged.onnx"
    path.write_bytes(b"no onnx")
    with pytest.raises(EngineError, match="damaged"):
        CtpnDetector(EngineOptions(weights=str(path)))
    with pytest.raises(EngineError, match="is not a weight file of ctpn"):
        read_state(path)
    with pytest.raises(EngineError, match="a recogniser's: name a detector's, or use --recognizer-weights"):
        CtpnDetector(EngineOptions(weights="crnn_light_int8"))
    path.write_bytes(to_onnx({name: t.numpy() for name, t in Ctpn().state_dict().items()}, "light"))
    for device, sentence in (
        ("cuda:99", "is not there"),
        ("tpu", "is no device"),
        ("cpu:0", "is no device"),
        ("cuda:01", "is no device"),
        ("cuda:128", "is not there"),
    ):
        with pytest.raises(EngineError, match=sentence):
            CtpnDetector(EngineOptions(device, weights=str(path)))


def test_a_trained_network_would_be_used_from_picture_to_lines(tmp_path: Path) -> None:
    """A head of constants: every cell says the same, wherever the picture shows something."""
    network = Ctpn()
    with torch.no_grad():
        network.head.weight.zero_()
        network.head.load_state_dict(
            {"weight": network.head.weight, "bias": torch.tensor([9.0, -1.0, -1.0, -3.0, -3.0, 0.0])}
        )
    path = tmp_path / "constant.onnx"
    path.write_bytes(to_onnx({name: tensor.numpy() for name, tensor in network.state_dict().items()}, "light"))
    detector = CtpnDetector(EngineOptions(threads=1, weights=str(path)))
    picture = cv2.resize(np.zeros((4, 4, 3), dtype=np.uint8), (640, 384)).astype(np.uint8)
    (line,), nothing = detector.detect([picture, np.zeros((0, 0, 3), dtype=np.uint8)])
    assert nothing == []
    # All cells are one word around the middle, 12 pixels high in a patch, where the picture is twice as large. Each
    # says that it stands at the very end, and those within a text height of it are believed alike.
    np.testing.assert_allclose(line.polygon, [(3, 189), (637, 189), (637, 195), (3, 195)], atol=2)
    assert detector.margin == MARGIN
    assert detector.info.name == "ctpn"
    assert len(detector.info.weights) == 12
