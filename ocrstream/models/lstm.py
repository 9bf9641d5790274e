"""A bidirectional LSTM's tensors as PyTorch keeps them and as ONNX does: other names, other order of the four gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float32]

# PyTorch keeps the gates as i, f, g, o; ONNX as i, o, f, c (c is g).
_TO_ONNX = (0, 3, 1, 2)
_TO_TORCH = (0, 2, 3, 1)
_DIRECTIONS = ("", "_reverse")


def reordered(array: Array, order: Sequence[int]) -> Array:
    """An LSTM tensor's four blocks of rows in another order."""
    blocks = np.split(array, 4)
    return np.concatenate([blocks[index] for index in order])


def to_onnx(state: Mapping[str, Array], layer: str) -> tuple[Array, Array, Array]:
    """ONNX's W ``(2, 4 H, I)``, R ``(2, 4 H, H)`` and B ``(2, 8 H)`` of a layer of a state dict."""
    weight_ih, weight_hh, bias_ih, bias_hh = (
        np.stack([reordered(state[f"{layer}.{kind}_l0{suffix}"], _TO_ONNX) for suffix in _DIRECTIONS])
        for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    return weight_ih, weight_hh, np.concatenate([bias_ih, bias_hh], axis=1)


def to_torch(layer: str, kind: str, array: Array) -> dict[str, Array]:
    """The entries of a state dict that one of ONNX's tensors holds; ``kind`` is W, R or B."""
    entries: dict[str, Array] = {}
    for direction, suffix in enumerate(_DIRECTIONS):
        if kind == "B":
            named = zip(("bias_ih", "bias_hh"), np.split(array[direction], 2), strict=True)
        else:
            named = zip(("weight_ih" if kind == "W" else "weight_hh",), (array[direction],), strict=True)
        entries |= {f"{layer}.{name}_l0{suffix}": reordered(part, _TO_TORCH) for name, part in named}
    return entries
