"""CRNN weights as an ONNX file, and back: the one format that is shipped, run on the CPU, and trained on from.

Needs the package ``onnx`` (extra ``gpu`` or ``training``); running a file on the CPU does not. A tensor has the name
and layout that it has in PyTorch, but for the LSTMs', which ONNX wants in one piece. Weights are stored in half
precision where asked and computed with in single precision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrstream.errors import EngineError

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as missing:
    raise EngineError("this needs the package onnx: pip install 'ocrstream[training]'") from missing

Array = NDArray[np.float32]
State = Mapping[str, Array]

LIGHT, ORIGINAL = "light", "original"

_OPSET = 17
_IR_VERSION = 9
_EPSILON = 1e-5

# PyTorch keeps the gates of an LSTM as i, f, g, o; ONNX as i, o, f, c (c is g).
_TO_ONNX = (0, 3, 1, 2)
_TO_TORCH = (0, 2, 3, 1)


@dataclass(frozen=True, slots=True)
class Description:
    """What must be known to run a file, kept in its metadata.

    Attributes:
        profile: ``light`` or ``original``.
        charset: the characters, without the blank.
        temperature: what logits are divided by for calibrated confidences.
    """

    profile: str
    charset: str
    temperature: float = 1.0


def to_onnx(state: State, description: Description, half: bool = True, folded: bool = False) -> bytes:
    """A network's tensors as an ONNX file.

    Args:
        state: the state dict of `LightCrnn` or `OriginalCrnn`, each tensor ``float32``.
        description: goes into the file's metadata.
        half: store in half precision.
        folded: put each norm into the convolution before it; such a file can be run and quantised, not trained on.

    Returns:
        A model from ``crops (N, 1, 32, W) float32`` to ``logits (N, W // 4 + 1, C) float32``.
    """
    graph = _Graph(fold_norms(state) if folded else state, half)
    (_light if description.profile == LIGHT else _original)(graph)
    classes = len(description.charset) + 1
    inputs = [helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["N", 1, 32, "W"])]
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", "T", classes])]
    model = helper.make_model(
        helper.make_graph(graph.nodes, f"crnn-{description.profile}", inputs, outputs, graph.initializers),
        opset_imports=[helper.make_opsetid("", _OPSET)],
        ir_version=_IR_VERSION,
        producer_name="ocrstream",
    )
    entries = {
        "profile": description.profile,
        "charset": description.charset,
        "temperature": repr(description.temperature),
    }
    helper.set_model_props(model, entries)
    onnx.checker.check_model(model, full_check=True)
    content: bytes = model.SerializeToString()
    return content


def fold_norms(state: State) -> dict[str, Array]:
    """The same network without its norms, each of which scales and shifts the output of the convolution before it."""
    folded = dict(state)
    for name in [name.removesuffix(".running_var") for name in state if name.endswith(".running_var")]:
        layer = name.replace("batchnorm", "conv").replace("norm", "conv")
        weight, bias, mean, variance = (
            folded.pop(f"{name}.{kind}") for kind in ("weight", "bias", "running_mean", "running_var")
        )
        scale = weight / np.sqrt(variance + _EPSILON)
        folded[f"{layer}.weight"] = (state[f"{layer}.weight"] * scale[:, None, None, None]).astype(np.float32)
        folded[f"{layer}.bias"] = ((state[f"{layer}.bias"] - mean) * scale + bias).astype(np.float32)
    return folded


def store_half(content: bytes, least: int = 65536) -> bytes:
    """A file whose large tensors of single precision are stored in half precision and cast when it is loaded.

    Args:
        content: the file's bytes.
        least: tensors with fewer numbers stay as they are.
    """
    model = onnx.load_from_string(content)
    for tensor in list(model.graph.initializer):
        if tensor.data_type == TensorProto.FLOAT and int(np.prod(tensor.dims)) >= least:
            stored = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), f"{tensor.name}.half")
            model.graph.initializer.remove(tensor)
            model.graph.initializer.append(stored)
            model.graph.node.insert(0, helper.make_node("Cast", [stored.name], [tensor.name], to=TensorProto.FLOAT))
    smaller: bytes = model.SerializeToString()
    return smaller


def read_state(path: Path) -> tuple[dict[str, Array], Description]:
    """The tensors of a file that `to_onnx` made, as PyTorch wants them, ``float32``.

    Raises:
        EngineError: the file is missing, damaged, or not of this kind.
    """
    try:
        model = onnx.load(path)
        entries = {entry.key: entry.value for entry in model.metadata_props}
        description = Description(entries["profile"], entries["charset"], float(entries["temperature"]))
    # Protobuf's own class of error is not onnx's to promise.
    except Exception as error:
        raise EngineError(f"{path} is not a weight file of crnn ({error})") from error
    if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        raise EngineError(f"{path} is quantised and runs on the CPU only: name the file that it was made from")
    state: dict[str, Array] = {}
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor)
        if array.dtype == np.int64:
            continue
        _put(state, tensor.name, array.astype(np.float32))
    return state, description


def _put(state: dict[str, Array], name: str, array: Array) -> None:
    layer, _, kind = name.rpartition(".")
    if kind not in ("W", "R", "B"):
        state[name] = array
        return
    for direction, suffix in enumerate(("", "_reverse")):
        if kind == "B":
            for part, half in (
                ("ih", array[direction][: array.shape[1] // 2]),
                ("hh", array[direction][array.shape[1] // 2 :]),
            ):
                state[f"{layer}.bias_{part}_l0{suffix}"] = _blocks(half, _TO_TORCH)
        else:
            state[f"{layer}.weight_{'ih' if kind == 'W' else 'hh'}_l0{suffix}"] = _blocks(array[direction], _TO_TORCH)


def _blocks(array: Array, order: tuple[int, ...]) -> Array:
    """The four gates of an LSTM tensor in another order."""
    gates = np.split(array, 4)
    return np.concatenate([gates[index] for index in order])


class _Graph:
    """Nodes in a row: each method adds one layer to `value` and names its output after it."""

    def __init__(self, state: State, half: bool) -> None:
        self._state = state
        self._half = half
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.value = "crops"

    def conv(self, name: str, pads: int = 1) -> None:
        kernel = self._state[f"{name}.weight"].shape[2:]
        inputs = [self._weight(f"{name}.weight"), self._weight(f"{name}.bias")]
        self._node("Conv", inputs, f"{name}.out", kernel_shape=kernel, pads=[pads] * 4)

    def norm(self, name: str) -> None:
        kinds = ("weight", "bias", "running_mean", "running_var")
        if f"{name}.running_var" not in self._state:
            # Folded into the convolution before it.
            return
        self._node(
            "BatchNormalization", [self._weight(f"{name}.{kind}") for kind in kinds], f"{name}.out", epsilon=_EPSILON
        )

    def relu(self) -> None:
        self._node("Relu", [], f"{self.value}.relu")

    def pool(self, strides: tuple[int, int], pads: tuple[int, int]) -> None:
        up, side = pads
        self._node("MaxPool", [], f"{self.value}.pool", kernel_shape=[2, 2], strides=strides, pads=[up, side, up, side])

    def to_sequence(self) -> None:
        """``(N, C, 1, T)`` to ``(T, N, C)``."""
        self._node("Squeeze", [self._constant("height", [2])], "squeezed")
        self._node("Transpose", [], "sequence", perm=[2, 0, 1])

    def lstm(self, name: str) -> None:
        """``(T, N, C)`` to ``(T, N, 2 H)``."""
        tensors = {
            kind: np.stack([self._state[f"{name}.{kind}_l0{suffix}"] for suffix in ("", "_reverse")])
            for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        }
        ordered = {kind: np.stack([_blocks(one, _TO_ONNX) for one in both]) for kind, both in tensors.items()}
        weights = [
            self._weight(f"{name}.W", ordered["weight_ih"]),
            self._weight(f"{name}.R", ordered["weight_hh"]),
            self._weight(f"{name}.B", np.concatenate([ordered["bias_ih"], ordered["bias_hh"]], axis=1)),
        ]
        hidden = ordered["weight_hh"].shape[2]
        self._node("LSTM", weights, f"{name}.out", direction="bidirectional", hidden_size=hidden)
        self._node("Transpose", [], f"{name}.transposed", perm=[0, 2, 1, 3])
        self._node("Reshape", [self._constant(f"{name}.shape", [0, 0, 2 * hidden])], f"{name}.joined")

    def linear(self, name: str) -> None:
        weight = self._weight(f"{name}.weight")
        self.nodes.append(helper.make_node("Transpose", [weight], [f"{name}.turned"], perm=[1, 0]))
        self._node("MatMul", [f"{name}.turned"], f"{name}.product")
        self._node("Add", [self._weight(f"{name}.bias")], f"{name}.out")

    def finish(self) -> None:
        """``(T, N, C)`` to the output ``(N, T, C)``."""
        self._node("Transpose", [], "logits", perm=[1, 0, 2])

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        self.nodes.append(helper.make_node(kind, [self.value, *inputs], [output], **attributes))
        self.value = output

    def _weight(self, name: str, array: Array | None = None) -> str:
        value = self._state[name] if array is None else array
        # A variance may be smaller than half precision holds.
        if not self._half or name.endswith(("running_var", "running_mean")):
            self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float32), name))
            return name
        self.initializers.append(numpy_helper.from_array(np.ascontiguousarray(value, dtype=np.float16), name))
        self.nodes.append(helper.make_node("Cast", [name], [f"{name}.single"], to=TensorProto.FLOAT))
        return f"{name}.single"

    def _constant(self, name: str, values: list[int]) -> str:
        self.initializers.append(numpy_helper.from_array(np.array(values, dtype=np.int64), name))
        return name


def _light(graph: _Graph) -> None:
    for index in range(6):
        graph.conv(f"conv{index}", pads=0 if index == 5 else 1)
        if index in (2, 4, 5):
            graph.norm(f"norm{index}")
        graph.relu()
        if index in (0, 1):
            graph.pool((2, 2), (0, 0))
        elif index in (3, 4):
            graph.pool((2, 1), (0, 1))
    graph.to_sequence()
    graph.lstm("lstm")
    graph.linear("output")
    graph.finish()


def _original(graph: _Graph) -> None:
    for index in range(7):
        graph.conv(f"cnn.conv{index}", pads=0 if index == 6 else 1)
        if index in (2, 4, 6):
            graph.norm(f"cnn.batchnorm{index}")
        graph.relu()
        if index in (0, 1):
            graph.pool((2, 2), (0, 0))
        elif index in (3, 5):
            graph.pool((2, 1), (0, 1))
    graph.to_sequence()
    for layer in ("rnn.0", "rnn.1"):
        graph.lstm(f"{layer}.rnn")
        graph.linear(f"{layer}.embedding")
    graph.finish()
