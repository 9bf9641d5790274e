"""The released CTPN against an independent reading of its specification in NumPy, with every trap of it."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ocrstream.errors import EngineError
from ocrstream.models import EngineOptions
from ocrstream.models.ctpn import CtpnDetector
from ocrstream.models.ctpn.original import (
    MEAN_BGR,
    base_anchors,
    connect,
    decode_proposals,
    find_lines,
    original_to_tensor,
    suppress,
)
from ocrstream.models.session import Session

pytest.importorskip("onnx", reason="the package onnx is not installed (extra training)")

from ocrstream.models.ctpn.caffe_file import (
    CONVOLUTIONS,
    SHAPES,
    Blobs,
    _message,
    export_caffemodel,
    import_caffemodel,
    read_caffemodel,
    to_onnx,
    write_caffemodel,
)

Array = Any


def random_blobs(seed: int) -> Blobs:
    random = np.random.default_rng(seed)
    blobs: Blobs = {}
    for name, shapes in SHAPES.items():
        spread = np.sqrt(2 / np.prod(shapes[0][1:]))
        blobs[name] = tuple(random.normal(0, spread if len(shape) > 1 else 0.3, shape).astype("f") for shape in shapes)
    return blobs


# The specification, read once more and slowly


def conv(x: Array, weight: Array, bias: Array) -> Array:
    pad = weight.shape[2] // 2
    rows, columns = x.shape[1:]
    x = np.pad(x, ((0, 0), (pad, pad), (pad, pad)))
    out = np.zeros((weight.shape[0], rows, columns))
    for dy in range(weight.shape[2]):
        for dx in range(weight.shape[3]):
            out += np.einsum(
                "oc,chw->ohw", weight[:, :, dy, dx], x[:, dy : dy + rows, dx : dx + columns], optimize=True
            )
    return out + bias[:, None, None]


def pool(x: Array) -> Array:
    """Sizes are rounded up; the last window may hang over."""
    rows, columns = -(-x.shape[1] // 2), -(-x.shape[2] // 2)
    return np.array(
        [[x[:, 2 * r : 2 * r + 2, 2 * c : 2 * c + 2].max(axis=(1, 2)) for c in range(columns)] for r in range(rows)]
    ).transpose(2, 0, 1)


def lstm(sequence: Array, w: Array, u: Array, bias: Array) -> Array:
    """``(T, 4608)`` to ``(T, 128)``; Caffe's gates in the order i, f, o, g, one bias."""
    h = c = np.zeros(u.shape[1])
    out = []
    for x in sequence:
        i, f, o, g = np.split(w @ x + u @ h + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
        out.append(h)
    return np.array(out)


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def specified(x: Array, blobs: Blobs) -> tuple[Array, Array]:
    """``(3, H, W)`` to the probabilities and the box outputs, each ``(20, h, w)``."""
    for name in CONVOLUTIONS:
        if name.endswith("_1") and name != "conv1_1":
            x = pool(x)
        x = np.maximum(conv(x, *blobs[name]), 0)
    _, rows, columns = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    # im2col: the channel first, then the kernel's row and column.
    patches = np.array([[padded[:, r : r + 3, c : c + 3].ravel() for c in range(columns)] for r in range(rows)])
    forward = np.array([lstm(row, *blobs["lstm"]) for row in patches])
    backward = np.array([lstm(row[::-1], *blobs["rlstm"])[::-1] for row in patches])
    x = np.maximum(conv(np.concatenate([forward, backward], axis=2).transpose(2, 0, 1), *blobs["fc"]), 0)
    scores = conv(x, *blobs["rpn_cls_score"])
    text = sigmoid(scores[10:] - scores[:10])
    return np.concatenate([1 - text, text]), conv(x, *blobs["rpn_bbox_pred"])


def test_the_network_is_as_specified() -> None:
    blobs = random_blobs(1)
    # Sizes that no pool divides: 50 -> 25 -> 13 -> 7 -> 4 where rounding down gives 3.
    pictures = np.random.default_rng(2).normal(0, 50, (2, 3, 50, 75)).astype(np.float32)
    output = Session(to_onnx(blobs), "small", 1, "").run(pictures)
    assert output.shape == (2, 40, 4, 5)
    for picture, ours in zip(pictures, output, strict=True):
        probability, boxes = specified(picture, blobs)
        np.testing.assert_allclose(ours[:20], probability, atol=1e-4)
        np.testing.assert_allclose(ours[20:], boxes, atol=1e-4 * np.abs(boxes).max())


def test_a_batch_is_not_mixed_in_rows() -> None:
    """The original runs two pictures silently and interleaves them."""
    session = Session(to_onnx(random_blobs(3)), "small", 1, "")
    pictures = np.random.default_rng(4).normal(0, 50, (3, 3, 33, 65)).astype(np.float32)
    alone = np.concatenate([session.run(picture[None]) for picture in pictures])
    np.testing.assert_allclose(session.run(pictures), alone, atol=1e-5)


def test_anchors_are_cut_as_python_2_does() -> None:
    anchors = base_anchors()
    assert anchors[:, 1:4:2].tolist() == [
        [2, 12], [0, 15], [-3, 18], [-8, 23], [-16, 31], [-26, 41], [-40, 55], [-61, 76], [-91, 106], [-133, 148],
    ]  # fmt: skip
    assert (anchors[:, 3] - anchors[:, 1] + 1).tolist() == [11, 16, 22, 32, 48, 68, 96, 138, 198, 282]
    assert (anchors[:, ::2] == (0, 15)).all()


def test_proposals_go_by_row_column_anchor_and_boxes_are_interleaved() -> None:
    output = np.zeros((40, 2, 3), dtype=np.float32)
    output[10 + 4, 1, 2] = 0.9
    output[20 + 2 * 4, 1, 2], output[20 + 2 * 4 + 1, 1, 2] = 0.25, np.log(0.5)
    output[7, 0, 0] = 0.8
    boxes, scores = decode_proposals(output, (400, 600))
    assert np.flatnonzero(scores).tolist() == [(1 * 3 + 2) * 10 + 4]
    # Anchor 4 is 48 high around 7.5: moved down by a quarter of that and a cell of 16, and half as high.
    middle = 7.5 + 16 + 12
    np.testing.assert_allclose(boxes[scores > 0], [[32, middle - 12, 47, middle + 12]], atol=1e-4)
    boxes, _ = decode_proposals(output, (30, 40))
    assert boxes.min() == 0
    assert boxes[:, 2].max() == 39
    assert boxes[:, 3].max() == 29


def test_the_input_is_resized_by_its_factor_and_has_the_mean_taken() -> None:
    picture = np.random.default_rng(5).integers(0, 255, (90, 802, 3), dtype=np.uint8)
    tensor, scale = original_to_tensor(picture)
    assert scale == 1000 / 802
    assert tensor.shape == (1, 3, 112, 1000)
    resized = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(tensor[0].transpose(1, 2, 0), resized.astype("f") - np.array(MEAN_BGR, dtype="f"))
    assert original_to_tensor(np.zeros((100, 120, 3), dtype=np.uint8))[1] == 6.0


@pytest.mark.parametrize(
    ("hw", "input_hw"), [((1, 5000), (1, 1000)), ((5000, 1), (1000, 1)), ((3, 5000), (1, 1000)), ((1, 1), (600, 600))]
)
def test_of_a_thin_picture_a_pixel_stays_across(hw: tuple[int, int], input_hw: tuple[int, int]) -> None:
    picture = np.full((*hw, 3), 200, dtype=np.uint8)
    tensor, scale = original_to_tensor(picture)
    assert tensor.shape == (1, 3, *input_hw)
    assert scale == max(input_hw) / max(hw)
    np.testing.assert_allclose(tensor[0, :, -1, -1], 200 - np.array(MEAN_BGR, dtype="f"), rtol=1e-6)


def row(*lefts: int, top: float = 100, height: float = 20) -> Array:
    return np.array([[left, top, left + 15, top + height - 1] for left in lefts], dtype=np.float32)


WEAK = row(500, top=10)
"""A proposal elsewhere: the least score of a picture becomes 0."""


def joined(boxes: Array, scores: list[float], **options: bool) -> tuple[list[list[int]], Array]:
    connection = connect(np.asarray(boxes, dtype="f"), np.array(scores, dtype="f"), (300, 600), **options)
    return connection.chains, connection.lines


def test_scores_are_stretched_over_the_picture_and_all_equal_ones_vanish() -> None:
    boxes = row(16, 32, 48, 64)
    assert len(joined(boxes, [0.9] * 4)[1]) == 0
    assert joined(boxes, [0.9] * 4, min_max=False)[1].tolist() == [[16, 100, 79, 119, pytest.approx(0.9)]]
    lines = joined(np.concatenate([boxes, WEAK]), [0.95, 0.9, 0.95, 0.9, 0.75])[1]
    assert lines[0, 4] == pytest.approx((1 + 0.75 + 1 + 0.75) / 4, abs=1e-5)


@pytest.mark.parametrize(("gap_px", "chains"), [(50, 1), (51, 0)])
def test_neighbours_are_at_most_fifty_pixels_apart(gap_px: int, chains: int) -> None:
    assert len(joined(np.concatenate([row(16, 16 + gap_px), WEAK]), [0.95, 0.9, 0.75])[0]) == chains


def test_an_overlap_of_seven_tenths_passes_and_a_height_ratio_of_it_does_not() -> None:
    shifted = np.concatenate([row(16), row(32, top=106), WEAK])
    assert len(joined(shifted, [0.95, 0.9, 0.75])[0]) == 1
    lower = np.concatenate([row(16), row(32, top=103, height=14), WEAK])
    assert len(joined(lower, [0.95, 0.9, 0.75])[0]) == 0


def test_a_proposal_with_two_predecessors_stands_in_two_chains() -> None:
    # The last sees only the nearest column before it, the first sees past the middle one, which is too high for it.
    boxes = np.concatenate([row(0, height=20), row(16, top=98, height=29), row(32, top=99, height=24), WEAK])
    chains, _ = joined(boxes, [0.95, 0.93, 0.9, 0.75])
    assert sorted(chains) == [[0, 2], [1, 2]]


def test_a_stronger_neighbour_takes_the_successor() -> None:
    boxes = np.concatenate([row(0), row(0, top=104), row(16, top=102), WEAK])
    # Their overlap is under the limit of suppression: both stay, and the stronger leads on.
    kept = suppress(boxes, np.array([0.8, 0.95, 0.9, 0.75], dtype="f"), 0.7)
    assert len(kept) == 4
    chains = connect(boxes[[1, 2, 3]], np.array([0.95, 0.9, 0.75], dtype="f"), (300, 600)).chains
    assert chains == [[0, 1]]


def test_a_falling_line_becomes_an_upright_box_through_fitted_ends() -> None:
    boxes = np.concatenate([*(row(16 * n, top=100 + 3 * n) for n in range(8)), WEAK])
    lines = joined(boxes, [0.95] * 8 + [0.75])[1]
    # At both ends' middles, half a slice inside: tops 100 + 3 * 7.5 / 16 and on; the fit is exact.
    np.testing.assert_allclose(lines[0, :4], [0, 100 + 3 * 7.5 / 16, 127, 119 + 3 * (127 - 7.5) / 16], atol=1e-3)


def test_lines_must_be_wide_enough_and_overlapping_ones_go() -> None:
    assert len(joined(np.concatenate([row(16, 32), WEAK]), [0.95, 0.9, 0.75])[1]) == 0
    assert len(joined(np.concatenate([row(16, 32, height=40), WEAK]), [0.95, 0.95, 0.75])[1]) == 0
    boxes = np.array([[0, 0, 99, 19], [0, 10, 99, 29], [0, 0, 99, 19]], dtype=np.float32)
    # IoU of the first two: 1000 / 3000 = 0.33, over the limit of 0.3; of equal scores the last stands first.
    assert suppress(boxes, np.array([0.8, 0.9, 0.7], dtype="f"), 0.3).tolist() == [1]
    assert sorted(suppress(boxes, np.array([0.8, 0.9, 0.7], dtype="f"), 0.34).tolist()) == [0, 1]


def test_weights_come_in_and_go_out_unchanged(tmp_path: Path) -> None:
    blobs = random_blobs(6)
    write_caffemodel(blobs, tmp_path / "a.caffemodel")
    card = import_caffemodel(tmp_path / "a.caffemodel", tmp_path / "a.onnx")
    assert '"profile": "caffe"' in card.read_text()
    export_caffemodel(tmp_path / "a.onnx", tmp_path / "b.caffemodel")
    again = read_caffemodel(tmp_path / "b.caffemodel")
    assert sum(array.size for arrays in again.values() for array in arrays) == 19_717_480
    for name, arrays in blobs.items():
        for ours, theirs in zip(again[name], arrays, strict=True):
            np.testing.assert_array_equal(ours, theirs)

    picture = np.random.default_rng(7).integers(0, 255, (12, 100, 3), dtype=np.uint8)
    detector = CtpnDetector(EngineOptions(threads=1, weights=str(tmp_path / "a.onnx")), min_max=False)
    found, none, thin = detector.detect([picture, *(np.zeros(hw, dtype=np.uint8) for hw in ((0, 5, 3), (1, 5000, 3)))])
    assert none == []
    assert thin == []
    tensor, scale = original_to_tensor(picture)
    output = Session((tmp_path / "a.onnx").read_bytes(), "a", 1, "").run(tensor)[0]
    lines = find_lines(output, (tensor.shape[2], tensor.shape[3]), min_max=False)
    boxes = sorted((line.polygon[0], line.polygon[2]) for line in found)
    expected = sorted(((x0, y0), (x1, y1)) for x0, y0, x1, y1 in (lines[:, :4] / scale).tolist())
    np.testing.assert_allclose(boxes, expected, atol=0.02)


def test_a_file_of_ours_without_all_its_weights_does_not_go_back(tmp_path: Path) -> None:
    import onnx

    whole = onnx.load_from_string(to_onnx(random_blobs(3)))
    for lost in list(whole.graph.initializer):
        if lost.name == "fc.weight":
            whole.graph.initializer.remove(lost)
    onnx.save(whole, tmp_path / "a.onnx")
    with pytest.raises(EngineError, match=r"a.onnx does not hold the released network's weights .*fc.weight"):
        export_caffemodel(tmp_path / "a.onnx", tmp_path / "b.caffemodel")
    assert not (tmp_path / "b.caffemodel").exists()


def test_files_of_other_networks_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.caffemodel"
    blobs = random_blobs(8)

    def refused(sentence: str) -> None:
        with pytest.raises(EngineError, match=sentence):
            read_caffemodel(path)

    refused("cannot be read")
    path.write_bytes(b"\xff\xfe not protobuf")
    refused("is not a .caffemodel")
    path.write_bytes(b"")
    refused("holds no layers with weights")
    write_caffemodel({name: arrays for name, arrays in blobs.items() if name != "rlstm"}, path)
    refused("has no layer rlstm")
    weights, bias = blobs["fc"]
    write_caffemodel({**blobs, "fc": (weights[:, :-1], bias)}, path)
    refused(r"blob 0 of layer fc has the shape \(512, 255, 1, 1\)")
    write_caffemodel({**blobs, "fc": (weights,)}, path)
    refused("layer fc has 1 blobs, not 2")
    write_caffemodel({**blobs, "fc": (weights * np.nan, bias)}, path)
    refused("not finite")
    write_caffemodel(blobs, path)
    # Messages that stand one behind the other are one, with the layers of both.
    path.write_bytes(2 * path.read_bytes())
    refused("holds the layer conv1_1 more than once")


def test_four_sizes_in_place_of_a_shape_are_understood(tmp_path: Path) -> None:
    blobs = random_blobs(9)
    write_caffemodel(blobs, tmp_path / "x.caffemodel")
    message = _message("NetParameter")()
    message.ParseFromString((tmp_path / "x.caffemodel").read_bytes())
    for layer in message.layer:
        for blob in layer.blobs:
            sizes = [1] * (4 - len(blob.shape.dim)) + list(blob.shape.dim)
            blob.num, blob.channels, blob.height, blob.width = sizes
            blob.ClearField("shape")
    (tmp_path / "x.caffemodel").write_bytes(message.SerializeToString())
    again = read_caffemodel(tmp_path / "x.caffemodel")
    np.testing.assert_array_equal(again["lstm"][2], blobs["lstm"][2])
    assert again["conv1_1"][0].shape == (64, 3, 3, 3)
