"""The released CTPN's weights: ``.caffemodel`` files in and out, and the network as an ONNX file.

A ``.caffemodel`` is a protobuf message; only the few fields of Caffe's schema that hold layers and their numbers are
declared here. Every layer's name and every blob's shape is checked. Needs the packages ``protobuf`` and ``onnx`` (extra
``gpu`` or ``training``); running the ONNX file does not.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from ocrstream.errors import EngineError
from ocrstream.files import whole_file
from ocrstream.models.ctpn.onnx_graph import Array, Graph, State, read_file
from ocrstream.models.lstm import reordered
from ocrstream.models.weights import write_weights

try:
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from google.protobuf.message import DecodeError
except ImportError as missing:
    raise EngineError("this needs the package protobuf: pip install 'ocrstream[training]'") from missing

PROFILE = "caffe"

CONVOLUTIONS = {
    f"conv{block}_{layer}": (outputs, inputs if layer == 1 else outputs)
    for block, (inputs, outputs, layers) in enumerate(
        ((3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3)), 1
    )
    for layer in range(1, layers + 1)
}
"""VGG16's: outputs and inputs of each."""

HIDDEN, FEATURES, FC, ANCHOR_OUTPUTS = 128, 512, 512, 20

LSTMS = ("lstm", "rlstm")
"""Left to right and right to left. Rows of a blob are the gates i, f, o, g; there is one bias."""

SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    **{name: ((outputs, inputs, 3, 3), (outputs,)) for name, (outputs, inputs) in CONVOLUTIONS.items()},
    **dict.fromkeys(LSTMS, ((4 * HIDDEN, 9 * FEATURES), (4 * HIDDEN, HIDDEN), (4 * HIDDEN,))),
    "fc": ((FC, 2 * HIDDEN, 1, 1), (FC,)),
    "rpn_cls_score": ((ANCHOR_OUTPUTS, FC, 1, 1), (ANCHOR_OUTPUTS,)),
    "rpn_bbox_pred": ((ANCHOR_OUTPUTS, FC, 1, 1), (ANCHOR_OUTPUTS,)),
}
"""Each layer with weights, and its blobs' shapes, in the order of the file."""

_TYPES = {**dict.fromkeys(SHAPES, "Convolution"), **dict.fromkeys(LSTMS, "Lstm")}

# Caffe's gates i, f, o, g; ONNX's i, o, f, c (c is g).
_TO_ONNX = (0, 2, 1, 3)

Blobs = dict[str, tuple[Array, ...]]
"""Each layer's blobs, ``float32``."""


def read_caffemodel(path: Path) -> Blobs:
    """The released network's blobs.

    Raises:
        EngineError: the file is missing, damaged, or of another network.
    """
    message = _message("NetParameter")()
    try:
        message.ParseFromString(path.read_bytes())
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror}") from error
    except DecodeError as error:
        raise EngineError(f"{path} is not a .caffemodel, or a damaged one ({error})") from error
    filled = [layer for layer in message.layer if layer.blobs]
    layers = {layer.name: layer for layer in filled}
    if not layers:
        raise EngineError(f"{path} holds no layers with weights: it is not a .caffemodel that Caffe saved")
    if len(layers) < len(filled):
        twice = Counter(layer.name for layer in filled).most_common(1)[0][0]
        raise EngineError(f"{path} holds the layer {twice} more than once: which of them is meant is not known")
    if missing := [name for name in SHAPES if name not in layers]:
        raise EngineError(f"{path} is not CTPN's: it has no layer {', '.join(missing[:3])}")
    if unknown := [name for name in layers if name not in SHAPES]:
        raise EngineError(f"{path} is not CTPN's: it has weights for {', '.join(unknown[:3])}")
    return {name: tuple(_blobs(path, name, layers[name].blobs)) for name in SHAPES}


def _blobs(path: Path, name: str, blobs: Any) -> list[Array]:
    expected = SHAPES[name]
    if len(blobs) != len(expected):
        raise EngineError(f"{path}: layer {name} has {len(blobs)} blobs, not {len(expected)}")
    arrays = []
    for index, (blob, shape) in enumerate(zip(blobs, expected, strict=True)):
        # Files of 2015 and before give four sizes instead of a shape.
        sizes = tuple(blob.shape.dim) if blob.HasField("shape") else (blob.num, blob.channels, blob.height, blob.width)
        found = sizes if len(sizes) == len(shape) else sizes[len(sizes) - len(shape) :]
        array = np.array(blob.data, dtype=np.float32)
        if found != shape or array.size != np.prod(shape) or np.prod(sizes) != array.size:
            raise EngineError(
                f"{path}: blob {index} of layer {name} has the shape {sizes} and {array.size} numbers, not {shape}"
            )
        if not np.isfinite(array).all():
            raise EngineError(f"{path}: blob {index} of layer {name} has numbers that are not finite")
        arrays.append(array.reshape(shape))
    return arrays


def write_caffemodel(blobs: Blobs, path: Path) -> None:
    """Write a file that Caffe loads into the released network: layers by name, their blobs, nothing else.

    Args:
        blobs: as `read_caffemodel` gives them.
        path: the file.
    """
    message = _message("NetParameter")()
    message.name = "CTPN"
    for name, arrays in blobs.items():
        layer = message.layer.add()
        layer.name, layer.type = name, _TYPES[name]
        for array in arrays:
            blob = layer.blobs.add()
            blob.shape.dim.extend(array.shape)
            blob.data.extend(array.reshape(-1).tolist())
    with whole_file(path) as beside:
        beside.write_bytes(message.SerializeToString())


def to_onnx(blobs: Blobs, half: bool = False, also: tuple[str, ...] = ()) -> bytes:
    """The released network as an ONNX file.

    The im2col layer and an LSTM's input weights are one 3x3 convolution, which gives the gates' inputs for all cells.

    Args:
        blobs: as `read_caffemodel` gives them.
        half: store in half precision; half the size, and no longer the release's own numbers.
        also: blobs to give out beside the result, by Caffe's names, for comparisons.

    Returns:
        A model from ``pictures (N, 3, H, W) float32`` to ``(N, 40, H / 16, W / 16) float32``: 10 probabilities of
        background, 10 of text, and dy, dh of each anchor; see `original`.
    """
    graph = Graph(_state(blobs), half)
    named: dict[str, str] = {}
    value = "pictures"
    for name in CONVOLUTIONS:
        if name.endswith("_1") and name != "conv1_1":
            # Caffe's pools round their size up.
            value = graph.pool(value, 2, (0, 0, 0, 0), ceil=True)
            named[f"pool{int(name[4]) - 1}"] = value
        value = named[name] = graph.relu(graph.conv(value, name))
    inputs = named["gates"] = graph.conv(value, "gates")
    value = named["lstm_output"] = graph.rows(inputs, "lstms", _lstm_tensors(blobs), HIDDEN)
    value = named["fc"] = graph.relu(graph.conv(value, "fc"))
    scores = named["rpn_cls_score"] = graph.conv(value, "rpn_cls_score")
    pairs = graph.constant("pairs", [0, 2, ANCHOR_OUTPUTS // 2, -1])
    likely = graph.node("Softmax", [graph.node("Reshape", [scores, pairs], "pairs.scores")], "pairs.likely", axis=1)
    shape = graph.node("Shape", [scores], "scores.shape")
    likely = named["rpn_cls_prob_reshape"] = graph.node("Reshape", [likely, shape], "probability")
    boxes = named["rpn_bbox_pred"] = graph.conv(value, "rpn_bbox_pred")
    output = graph.node("Concat", [likely, boxes], "proposals", axis=1)
    return graph.model(
        f"ctpn-{PROFILE}",
        output,
        2 * ANCHOR_OUTPUTS,
        {"profile": PROFILE},
        also=[(named[name], _channels(name)) for name in also],
    )


def _channels(name: str) -> int:
    if name in CONVOLUTIONS:
        return CONVOLUTIONS[name][0]
    if name.startswith("pool"):
        return CONVOLUTIONS[f"conv{name[4:]}_1"][0]
    return {"gates": 8 * HIDDEN, "lstm_output": 2 * HIDDEN, "fc": FC}.get(name, ANCHOR_OUTPUTS)


COMPARABLE = (
    *CONVOLUTIONS, "pool1", "pool2", "pool3", "pool4", "lstm_output", "fc",
    "rpn_cls_score", "rpn_cls_prob_reshape", "rpn_bbox_pred",
)  # fmt: skip
"""Blobs that `to_onnx` can give out, by Caffe's names."""


def read_onnx(path: Path) -> Blobs:
    """The blobs of a file that `to_onnx` made.

    Raises:
        EngineError: the file is missing, damaged, or of another profile.
    """
    tensors, entries = read_file(path)
    if entries.get("profile") != PROFILE:
        raise EngineError(f"{path} is of the profile {entries.get('profile')!r}: only {PROFILE!r} can go back to Caffe")
    single = {name: array.astype(np.float32) for name, array in tensors.items() if array.dtype.kind == "f"}
    try:
        return _from_tensors(single)
    except (KeyError, ValueError) as error:
        raise EngineError(f"{path} does not hold the released network's weights ({error}): import it again") from error


def _from_tensors(single: State) -> Blobs:
    blobs: Blobs = {}
    for name in SHAPES:
        if name not in LSTMS:
            blobs[name] = (single[f"{name}.weight"], single[f"{name}.bias"])
            continue
        direction = LSTMS.index(name)
        rows = slice(4 * HIDDEN * direction, 4 * HIDDEN * (direction + 1))
        blobs[name] = (
            single["gates.weight"][rows].reshape(SHAPES[name][0]),
            reordered(single["lstms.R"][direction], _TO_ONNX),
            single["gates.bias"][rows],
        )
    return blobs


def _state(blobs: Blobs) -> State:
    """The blobs as weights and biases of convolutions."""
    state = {}
    for name, arrays in blobs.items():
        if name not in LSTMS:
            state[f"{name}.weight"], state[f"{name}.bias"] = arrays
    # im2col's channels are c * 9 + row * 3 + column: a convolution's weights, laid flat.
    weights = [blobs[name][0].reshape(4 * HIDDEN, FEATURES, 3, 3) for name in LSTMS]
    state["gates.weight"] = np.concatenate(weights)
    state["gates.bias"] = np.concatenate([blobs[name][2] for name in LSTMS])
    return state


def _lstm_tensors(blobs: Blobs) -> tuple[Array, Array, Array]:
    """ONNX's W, R and B: the inputs are the gates already, so that W only puts them where they belong."""
    ordered = reordered(np.eye(4 * HIDDEN, dtype=np.float32), _TO_ONNX)
    nothing = np.zeros_like(ordered)
    inputs = np.stack([np.concatenate([ordered, nothing], axis=1), np.concatenate([nothing, ordered], axis=1)])
    recurrent = np.stack([reordered(blobs[name][1], _TO_ONNX) for name in LSTMS])
    return inputs, recurrent, np.zeros((2, 8 * HIDDEN), dtype=np.float32)


def import_caffemodel(path: Path, out: Path) -> Path:
    """Turn a ``.caffemodel`` into a weight file for ``--detector-weights``, with its card; returns the card's path.

    Args:
        path: the release's file.
        out: the ``.onnx`` file to write.

    Raises:
        EngineError: the file is missing, damaged, or of another network, or ``out`` cannot be written.
    """
    content = to_onnx(read_caffemodel(path))
    card = {
        "engine": "ctpn",
        "profile": PROFILE,
        "input": "BGR less the release's mean; short side 600 px unless the long side would pass 1,000 px",
        "training": {"imported_from": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        "scores": {},
    }
    return write_weights(out, content, card)


def export_caffemodel(weights: Path, out: Path) -> Path:
    """Turn a weight file of the profile ``caffe`` back into a ``.caffemodel``; returns its path.

    Raises:
        EngineError: the file is missing, damaged, or of another profile, or ``out`` cannot be written.
    """
    blobs = read_onnx(weights)
    try:
        write_caffemodel(blobs, out)
    except OSError as error:
        raise EngineError(f"{out} cannot be written: {error.strerror}") from error
    return out


def _message(name: str) -> Any:
    """A message class of Caffe's schema, as far as it is needed here; field numbers from Caffe's ``caffe.proto``."""
    kinds = descriptor_pb2.FieldDescriptorProto
    schema = descriptor_pb2.FileDescriptorProto(
        name="ocrstream_caffe.proto", package="ocrstream_caffe", syntax="proto2"
    )

    def declare(message: str, *fields: tuple[str, int, int, bool]) -> None:
        entry = schema.message_type.add(name=message)
        for field, number, kind, repeated in fields:
            label = kinds.LABEL_REPEATED if repeated else kinds.LABEL_OPTIONAL
            added = entry.field.add(name=field, number=number, label=label, type=kinds.Type.ValueType(kind))
            if kind == kinds.TYPE_MESSAGE:
                added.type_name = f".ocrstream_caffe.{_MESSAGES[field]}"
            elif repeated and kind in (kinds.TYPE_FLOAT, kinds.TYPE_INT64):
                added.options.packed = True

    text, whole, message = kinds.TYPE_STRING, kinds.TYPE_INT32, kinds.TYPE_MESSAGE
    declare("BlobShape", ("dim", 1, kinds.TYPE_INT64, True))
    sizes = [(size, number, whole, False) for number, size in enumerate(("num", "channels", "height", "width"), 1)]
    declare("BlobProto", *sizes, ("data", 5, kinds.TYPE_FLOAT, True), ("shape", 7, message, False))
    ends = [("bottom", 3, text, True), ("top", 4, text, True)]
    declare("LayerParameter", ("name", 1, text, False), ("type", 2, text, False), *ends, ("blobs", 7, message, True))
    declare("NetParameter", ("name", 1, text, False), ("layer", 100, message, True))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(schema)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName(f"ocrstream_caffe.{name}"))


_MESSAGES = {"shape": "BlobShape", "blobs": "BlobProto", "layer": "LayerParameter"}
"""What a field that is a message holds."""
