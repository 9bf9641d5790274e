"""Weights to begin from: our own, or out of ONNX files that Python packages carry.

The latter hold a network's convolutions in its own order; nothing but their weights and biases is taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

from ocrstream.errors import EngineError
from ocrstream.models.crnn.charset import BLANK
from ocrstream.models.ctpn.network import Ctpn
from ocrstream.models.ctpn.onnx_file import read_state
from ocrstream.models.torch_network import load_state
from training.letters import base_letter

UNLIKELY = 3.0
"""How far below its plain letter's logit a letter begins that a network did not know: what it read it reads on."""


def start_state(path: Path, profile: str) -> dict[str, NDArray[np.float32]]:
    """The tensors of a weight file of ``ctpn`` that a training may begin from, or be averaged with.

    Raises:
        EngineError: the file cannot be read, is of another engine or profile, or is stored in 8 bits.
    """
    state, found = read_state(path)
    wrong = load_state(Ctpn(found), state)
    if wrong:
        raise EngineError(
            f"{path} does not hold the tensors of ctpn's profile {found} ({', '.join(wrong[:3])}): it is of another "
            "engine, or in 8 bits, which cannot be undone; ctpn_light_half is the shipped file to begin from"
        )
    if found != profile:
        raise EngineError(f"{path} is of the profile {found}, this training is of {profile}: add --profile {found}")
    return state


def load_backbone(backbone: nn.Module, path: Path) -> None:
    """Fill a backbone's convolutions from an ONNX file of the same network.

    Args:
        backbone: `ocrstream.models.ctpn.network.LightBackbone` or ``VggBackbone``; its convolutions in the order in
            which they are declared, a block's shortcut last.
        path: the file.

    Raises:
        EngineError: the file cannot be read, or its convolutions are not the backbone's.
    """
    theirs = _convolutions(path)
    ours = [(name, module) for name, module in backbone.named_modules() if isinstance(module, nn.Conv2d)]
    if len(theirs) != len(ours):
        raise EngineError(f"{path} has {len(theirs)} convolutions with biases, the backbone has {len(ours)}")
    _fill(_shortcuts_first(ours), theirs, path)


def load_first_convolutions(network: nn.Module, path: Path) -> None:
    """Fill a network's convolutions from the first ones of an ONNX file, which may have more of them and see colours.

    A grey picture is one whose colours are alike, so a first convolution's weights for them are added up.

    Args:
        network: its convolutions in the order in which the file runs them.
        path: the file.

    Raises:
        EngineError: the file cannot be read, or begins with other convolutions.
    """
    ours = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    theirs = _convolutions(path)[: len(ours)]
    if len(theirs) < len(ours):
        raise EngineError(f"{path} has {len(theirs)} convolutions with biases, the network has {len(ours)}")
    if ours[0][1].in_channels == 1:
        weight, bias = theirs[0]
        theirs[0] = weight.sum(1, keepdim=True), bias
    _fill(ours, theirs, path)


def with_charset(
    state: Mapping[str, NDArray[np.float32]], known: str, charset: str, seed: int = 1
) -> dict[str, NDArray[np.float32]]:
    """A recogniser's tensors for other characters than it was trained on.

    The rows of the output are taken over for what both charsets have. A new letter begins as the plain letter below its
    accent, less likely and with a little chance, so that it can part from it; what has none begins as the mean of all.

    Args:
        state: the state dict of `LightCrnn`.
        known: the characters that it writes.
        charset: the characters that it is to write.
        seed: of the chance.
    """
    weight, bias = state["output.weight"], state["output.bias"]
    row_of = {character: index + 1 for index, character in enumerate(known)}
    chance = np.random.default_rng(seed)
    new_weight = np.empty((len(charset) + 1, weight.shape[1]), dtype=np.float32)
    new_bias = np.empty(len(charset) + 1, dtype=np.float32)
    new_weight[BLANK], new_bias[BLANK] = weight[BLANK], bias[BLANK]
    for row, character in enumerate(charset, 1):
        old = row_of.get(character, row_of.get(base_letter(character)))
        new_weight[row] = weight.mean(axis=0) if old is None else weight[old]
        new_bias[row] = bias.mean() if old is None else bias[old]
        if character not in row_of:
            new_weight[row] += chance.normal(0, 0.1 * weight.std(), weight.shape[1])
            new_bias[row] -= UNLIKELY
    return {**state, "output.weight": new_weight, "output.bias": new_bias}


def _convolutions(path: Path) -> list[tuple[Tensor, Tensor]]:
    """Weight and bias of every convolution that has both, in the order in which the file runs them."""
    try:
        graph = onnx.load(path).graph
    # The readers of protobuf raise their own kinds.
    except Exception as error:
        raise EngineError(f"the initial weights {path} cannot be read ({error})") from error
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    made_by = {output: node for node in graph.node for output in node.output}
    added = {name: node for node in graph.node if node.op_type == "Add" for name in node.input}
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for node in graph.node:
        if node.op_type != "Conv" or node.input[1] not in tensors:
            continue
        bias = node.input[2] if len(node.input) == 3 else _added_to(node.output[0], added, made_by)
        if bias in tensors:
            weight = torch.from_numpy(numpy_helper.to_array(tensors[node.input[1]]).copy())
            found[node.input[1]] = weight, torch.from_numpy(numpy_helper.to_array(tensors[bias]).copy()).flatten()
    return list(found.values())


def _added_to(output: str, added: dict[str, onnx.NodeProto], made_by: dict[str, onnx.NodeProto]) -> str:
    """The tensor that is added to a convolution's output, through whatever only gives it another shape."""
    node = added.get(output)
    if node is None:
        return ""
    name: str = next(each for each in node.input if each != output)
    while name in made_by and made_by[name].op_type in ("Reshape", "Identity", "Cast"):
        name = made_by[name].input[0]
    return name


def _fill(ours: list[tuple[str, nn.Conv2d]], theirs: list[tuple[Tensor, Tensor]], path: Path) -> None:
    for (name, module), (weight, bias) in zip(ours, theirs, strict=True):
        if weight.shape != module.weight.shape:
            raise EngineError(f"{path}: {name} is {tuple(weight.shape)}, not {tuple(module.weight.shape)}")
        module.load_state_dict({"weight": weight, "bias": bias})


def _shortcuts_first(named: list[tuple[str, nn.Conv2d]]) -> list[tuple[str, nn.Conv2d]]:
    """A block's shortcut before its other convolutions: the order in which the file runs them."""

    def place(item: tuple[int, tuple[str, nn.Conv2d]]) -> tuple[int, int]:
        index, (name, _) = item
        return (index - 3, 0) if name.endswith(".shortcut") else (index, 1)

    return [entry for _, entry in sorted(enumerate(named), key=place)]
