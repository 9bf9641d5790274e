"""ImageNet weights for the detector's backbones, out of ONNX files that Python packages carry.

The files hold a backbone's convolutions in its own order; nothing but their weights and biases is taken.
"""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import numpy_helper
from torch import nn

from ocrstream.errors import EngineError


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Fill a backbone's convolutions from an ONNX file of the same network.

    Args:
        backbone: `ocrstream.models.ctpn.network.LightBackbone` or ``VggBackbone``; its convolutions in the order in
            which they are declared, a block's shortcut last.
        path: the file.

    Raises:
        EngineError: the file cannot be read, or its convolutions are not the backbone's.
    """
    try:
        graph = onnx.load(path).graph
    # The readers of protobuf raise their own kinds.
    except Exception as error:
        raise EngineError(f"the initial weights {path} cannot be read ({error})") from error
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    theirs = {
        name: (tensors[name], tensors[node.input[2]])
        for node in graph.node
        if node.op_type == "Conv" and len(node.input) == 3 and (name := node.input[1]) in tensors
    }
    ours = [(name, module) for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d)]
    if len(theirs) != len(ours):
        raise EngineError(f"{path} has {len(theirs)} convolutions with biases, the backbone has {len(ours)}")
    unused = list(theirs.values())
    for name, module in _shortcuts_first(ours):
        weight, bias = (torch.from_numpy(numpy_helper.to_array(tensor).copy()) for tensor in unused.pop(0))
        if weight.shape != module.weight.shape:
            raise EngineError(f"{path}: {name} is {tuple(weight.shape)}, not {tuple(module.weight.shape)}")
        module.load_state_dict({"weight": weight, "bias": bias})


def _shortcuts_first(named: list[tuple[str, nn.Conv2d]]) -> list[tuple[str, nn.Conv2d]]:
    """A block's shortcut before its other convolutions: the order in which the file runs them."""

    def place(item: tuple[int, tuple[str, nn.Conv2d]]) -> tuple[int, int]:
        index, (name, _) = item
        return (index - 3, 0) if name.endswith(".shortcut") else (index, 1)

    return [entry for _, entry in sorted(enumerate(named), key=place)]
