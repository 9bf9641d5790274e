"""CRNN weights as an ONNX file, and back: the one format that is shipped, run on the CPU, and trained on from.

Needs the package ``onnx`` (extra ``gpu`` or ``training``); running a file on the CPU does not. A tensor has the name
and layout that it has in PyTorch, but for the LSTMs', which ONNX wants in one piece. Weights are stored in half
precision where asked and computed with in single precision.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrstream.errors import EngineError
from ocrstream.models import lstm
from ocrstream.models.crnn.preprocess import HEIGHT_PX, ORIGINAL_HEIGHT_PX

try:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
except ImportError as missing:
    raise EngineError("this needs the package onnx: pip install 'ocrstream[training]'") from missing

Array = NDArray[np.float32]
State = Mapping[str, Array]

LIGHT, ORIGINAL = "light", "original"

_OPSET = 20
_IR_VERSION = 9
_EPSILON = 1e-5


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


def to_onnx(state: State, description: Description, half: bool = True) -> bytes:
    """A network's tensors as an ONNX file.

    Args:
        state: the state dict of `LightCrnn` or `OriginalCrnn`, each tensor ``float32``.
        description: goes into the file's metadata.
        half: store in half precision.

    Returns:
        A model from ``crops (N, 1, H, W) float32`` to ``logits (N, T, C) float32``, see `network`.
    """
    graph = _Graph(state, half)
    is_light = description.profile == LIGHT
    (_light if is_light else _original)(graph)
    classes = len(description.charset) + 1
    height_px = HEIGHT_PX if is_light else ORIGINAL_HEIGHT_PX
    inputs = [helper.make_tensor_value_info("crops", TensorProto.FLOAT, ["N", 1, height_px, "W"])]
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
    except KeyError as error:
        raise EngineError(f"{path} is not a weight file of crnn: it tells no {error.args[0]}") from error
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
        layer, _, kind = tensor.name.rpartition(".")
        single = array.astype(np.float32)
        state |= lstm.to_torch(layer, kind, single) if kind in ("W", "R", "B") else {tensor.name: single}
    return state, description


class _Graph:
    """Nodes in a row: each method adds one layer to `value` and names its output after it."""

    def __init__(self, state: State, half: bool) -> None:
        self._state = state
        self._half = half
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.value = "crops"

    def has(self, name: str) -> bool:
        """Whether there is such a convolution."""
        return f"{name}.weight" in self._state

    def channels(self, name: str) -> int:
        """The channels that a convolution gives out."""
        return int(self._state[f"{name}.weight"].shape[0])

    def conv(self, name: str, pads: Sequence[int] = (1, 1), **attributes: Any) -> None:
        """A convolution; ``pads`` is as `_pads` wants it."""
        kernel = self._state[f"{name}.weight"].shape[2:]
        inputs = [self._weight(f"{name}.weight"), self._weight(f"{name}.bias")]
        self._node("Conv", inputs, f"{name}.out", kernel_shape=kernel, pads=_pads(pads), **attributes)

    def norm(self, name: str) -> None:
        kinds = ("weight", "bias", "running_mean", "running_var")
        self._node(
            "BatchNormalization", [self._weight(f"{name}.{kind}") for kind in kinds], f"{name}.out", epsilon=_EPSILON
        )

    def relu(self) -> None:
        self._node("Relu", [], f"{self.value}.relu")

    def gelu(self) -> None:
        self._node("Gelu", [], f"{self.value}.gelu")

    def pool(self, strides: tuple[int, int], pads: Sequence[int]) -> None:
        self._node("MaxPool", [], f"{self.value}.pool", kernel_shape=[2, 2], strides=strides, pads=_pads(pads))

    def weigh(self, name: str) -> None:
        """Each channel times a weight that its means decide."""
        weighed = self.value
        self._node("GlobalAveragePool", [], f"{name}.mean")
        self.conv(f"{name}.down", (0, 0))
        self.relu()
        self.conv(f"{name}.up", (0, 0))
        self._node("HardSigmoid", [], f"{name}.weights", alpha=1 / 6, beta=0.5)
        self.combine("Mul", weighed)

    def combine(self, kind: str, other: str, **attributes: Any) -> None:
        """The value of another place together with this one, ``other`` first."""
        self.nodes.append(helper.make_node(kind, [other, self.value], [f"{self.value}.{kind}"], **attributes))
        self.value = f"{self.value}.{kind}"

    def mean_of_rows(self) -> None:
        """``(N, C, H, T)`` to ``(N, C, 1, T)``."""
        self._node("ReduceMean", [self._constant("rows", [2])], "columns", keepdims=1)

    def to_sequence(self) -> None:
        """``(N, C, 1, T)`` to ``(T, N, C)``."""
        self._node("Squeeze", [self._constant("height", [2])], "squeezed")
        self._node("Transpose", [], "sequence", perm=[2, 0, 1])

    def lstm(self, name: str) -> None:
        """``(T, N, C)`` to ``(T, N, 2 H)``."""
        tensors = lstm.to_onnx(self._state, name)
        weights = [self._weight(f"{name}.{kind}", array) for kind, array in zip("WRB", tensors, strict=True)]
        hidden = tensors[1].shape[2]
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
        self.nodes.append(helper.make_node(kind, [self.value, *inputs], [output], output, **attributes))
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


def _pads(pads: Sequence[int]) -> list[int]:
    """What is added around: above and below, then at both sides; or four numbers: above, left, below, right."""
    return [*pads, *pads] if len(pads) == 2 else list(pads)


def _light(graph: _Graph) -> None:
    beyond = (0, 0, 1, 1)
    graph.conv("stem.first", strides=[2, 2])
    graph.relu()
    first = graph.value
    graph.pool((1, 1), beyond)
    pooled, graph.value = graph.value, first
    for name in ("stem.left", "stem.right"):
        graph.conv(name, beyond)
        graph.relu()
    graph.combine("Concat", pooled, axis=1)
    graph.conv("stem.joined", strides=[2, 2])
    graph.relu()
    graph.conv("stem.last", (0, 0))
    graph.relu()
    for index in itertools.takewhile(lambda index: graph.has(f"blocks.{index}.spatial"), itertools.count()):
        name = f"blocks.{index}"
        inputs, outputs = graph.channels(f"{name}.spatial"), graph.channels(f"{name}.project")
        graph.conv(f"{name}.spatial", group=inputs, strides=[1 if inputs == outputs else 2, 1])
        if graph.has(f"{name}.weighing.up"):
            graph.weigh(f"{name}.weighing")
        residual = graph.value
        graph.conv(f"{name}.expand", (0, 0))
        graph.gelu()
        graph.conv(f"{name}.project", (0, 0))
        if inputs == outputs:
            graph.combine("Add", residual)
    graph.mean_of_rows()
    graph.to_sequence()
    graph.lstm("lstm")
    graph.linear("output")
    graph.finish()


def _original(graph: _Graph) -> None:
    for index in range(7):
        graph.conv(f"cnn.conv{index}", (0, 0) if index == 6 else (1, 1))
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
