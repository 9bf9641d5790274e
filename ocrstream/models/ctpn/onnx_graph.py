"""Layers of a detector as nodes of an ONNX graph, each named after its weights; weights in half precision where asked.

Needs the package ``onnx`` (extra ``gpu`` or ``training``); running a file on the CPU does not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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

_OPSET = 17
_IR_VERSION = 9


def read_file(path: Path) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """An ONNX file's tensors by name, and its metadata.

    Raises:
        EngineError: the file is missing, damaged, or not of the engine ``ctpn``.
    """
    try:
        model = onnx.load(path)
        entries = {entry.key: entry.value for entry in model.metadata_props}
        tensors = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    # Protobuf's own class of error is not onnx's to promise.
    except Exception as error:
        raise EngineError(f"{path} is not a weight file of ctpn ({error})") from error
    return tensors, entries


class Graph:
    """A graph under construction. Each method adds a layer to the value of a name, and returns its output's name.

    Args:
        state: the network's tensors by name; a convolution's are ``NAME.weight`` and ``NAME.bias``.
        half: store them in half precision.
    """

    def __init__(self, state: State, half: bool) -> None:
        self._state = state
        self._half = half
        self._nodes: list[onnx.NodeProto] = []
        self._initializers: dict[str, onnx.TensorProto] = {}

    def conv(self, value: str, name: str, stride: int = 1, pads: tuple[int, int, int, int] | None = None) -> str:
        """A convolution that keeps the size, or divides it by its stride; with a bias where the state has one."""
        weight = self._state[f"{name}.weight"]
        side = weight.shape[2]
        inputs = [value, self.weight(f"{name}.weight")]
        if f"{name}.bias" in self._state:
            inputs.append(self.weight(f"{name}.bias"))
        attributes = {"kernel_shape": [side, side], "strides": [stride, stride], "pads": pads or [side // 2] * 4}
        return self.node("Conv", inputs, f"{name}.out", **attributes)

    def norm(self, value: str, name: str) -> str:
        """Batch normalisation with the numbers training found."""
        kinds = ("weight", "bias", "running_mean", "running_var")
        return self.node(
            "BatchNormalization",
            [value, *(self.weight(f"{name}.{kind}") for kind in kinds)],
            f"{name}.out",
            epsilon=1e-5,
        )

    def relu(self, value: str) -> str:
        """Nothing below zero."""
        return self.node("Relu", [value], f"{value}.relu")

    def add(self, first: str, second: str) -> str:
        """The sum of two values of one shape."""
        return self.node("Add", [first, second], f"{first}.sum")

    def pool(self, value: str, side: int, pads: tuple[int, int, int, int], ceil: bool = False) -> str:
        """The largest in each square, every second square."""
        attributes = {"kernel_shape": [side, side], "strides": [2, 2], "pads": pads, "ceil_mode": int(ceil)}
        return self.node("MaxPool", [value], f"{value}.pool", **attributes)

    def folded(self, value: str) -> str:
        """Each square of 2x2 pixels as one of four times the channels: row of the square, column, channel."""
        return self.node("SpaceToDepth", [value], f"{value}.folded", blocksize=2)

    def doubled(self, value: str) -> str:
        """Each cell four times."""
        scales = self.constant("doubled", np.array([1, 1, 2, 2], dtype=np.float32))
        attributes = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return self.node("Resize", [value, "", scales], f"{value}.doubled", **attributes)

    def rows(self, value: str, name: str, tensors: tuple[Array, Array, Array], hidden: int) -> str:
        """Two LSTMs along each row, ``(N, C, H, W)`` to ``(N, 2 * hidden, H, W)``.

        Args:
            value: the input.
            name: prefix of the weights' names.
            tensors: ONNX's W, R and B, gates i, o, f, c, both directions.
            hidden: numbers each direction gives.
        """
        inputs = tensors[0].shape[2]
        turned = self.node("Transpose", [value], f"{name}.turned", perm=[3, 0, 2, 1])
        width_count_height = self.node(
            "Slice",
            [self.node("Shape", [turned], f"{name}.shape"), self.constant("zero", [0]), self.constant("three", [3])],
            f"{name}.places",
        )
        sequence = self.node("Reshape", [turned, self.constant(f"{name}.flat", [0, -1, inputs])], f"{name}.sequence")
        weights = [self.weight(f"{name}.{kind}", array) for kind, array in zip("WRB", tensors, strict=True)]
        both = self.node("LSTM", [sequence, *weights], f"{name}.both", direction="bidirectional", hidden_size=hidden)
        together = self.node("Transpose", [both], f"{name}.together", perm=[0, 2, 1, 3])
        shape = self.node(
            "Concat", [width_count_height, self.constant(f"{name}.outputs", [2 * hidden])], f"{name}.back", axis=0
        )
        placed = self.node("Reshape", [together, shape], f"{name}.placed")
        return self.node("Transpose", [placed], f"{name}.out", perm=[1, 3, 2, 0])

    def node(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        """Any node of one output."""
        self._nodes.append(helper.make_node(kind, inputs, [output], name=output, **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        """A constant, integers unless it is an array."""
        array = values if isinstance(values, np.ndarray) else np.array(values, dtype=np.int64)
        self._initializers[name] = numpy_helper.from_array(array, name)
        return name

    def weight(self, name: str, array: Array | None = None) -> str:
        """One of the network's tensors, in single precision whatever it is stored in."""
        value = self._state[name] if array is None else array
        # A variance may be smaller than half precision holds.
        half = self._half and "running" not in name
        kept = np.ascontiguousarray(value, dtype=np.float16 if half else np.float32)
        self._initializers[name] = numpy_helper.from_array(kept, name)
        if not half:
            return name
        return self.node("Cast", [name], f"{name}.single", to=TensorProto.FLOAT)

    def model(
        self,
        name: str,
        output: str,
        channels: int,
        entries: dict[str, str],
        also: Sequence[tuple[str, int]] = (),
    ) -> bytes:
        """The file: one input ``pictures (N, 3, H, W) float32``, one output.

        Args:
            name: the graph's.
            output: the value that is its output.
            channels: the output's.
            entries: the file's metadata.
            also: further values to give out, with their channels.
        """
        inputs = [helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["N", 3, "H", "W"])]
        outputs = [
            helper.make_tensor_value_info(value, TensorProto.FLOAT, ["N", count, f"h{index}", f"w{index}"])
            for index, (value, count) in enumerate([(output, channels), *also])
        ]
        graph = helper.make_graph(self._nodes, name, inputs, outputs, list(self._initializers.values()))
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", _OPSET)],
            ir_version=_IR_VERSION,
            producer_name="ocrstream",
        )
        helper.set_model_props(model, entries)
        onnx.checker.check_model(model, full_check=True)
        content: bytes = model.SerializeToString()
        return content
