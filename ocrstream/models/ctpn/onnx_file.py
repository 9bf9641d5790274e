"""This project's CTPN as an ONNX file, and back: the one format that is shipped, run on the CPU, and trained on from.

Needs the package ``onnx`` (extra ``gpu`` or ``training``); running a file on the CPU does not. A tensor has the name
and layout that it has in PyTorch, but for the LSTMs', which ONNX wants in one piece.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ocrstream.errors import EngineError
from ocrstream.models import lstm
from ocrstream.models.ctpn.onnx_graph import Array, Graph, State, read_file
from ocrstream.models.ctpn.slices import OUTPUTS, PROFILES

_LSTM = "recurrence.lstm"
_STEM = "backbone.stem"


def to_onnx(state: State, profile: str, half: bool = True, fold: bool = False) -> bytes:
    """A network's tensors as an ONNX file.

    Args:
        state: the state dict of `ocrstream.models.ctpn.network.Ctpn`, each tensor ``float32``.
        profile: ``light`` or ``vgg16``.
        half: store in half precision; computed with in single precision all the same.
        fold: give the first convolution of ``light`` squares of 2x2 pixels. It computes the same and is several times
            faster in 8 bits; `read_state` cannot undo it.

    Returns:
        A model from ``pictures (N, 3, H, W) float32`` to ``(N, 6, H / 4, W / 4) float32``.
    """
    if fold:
        state = {**state, f"{_STEM}.weight": folded(state[f"{_STEM}.weight"])}
    graph = Graph(state, half)
    at4, at8, at16, at32 = _light(graph, "pictures", fold) if profile == "light" else _vgg16(graph, "pictures")
    lateral32 = _conv_norm(graph, at32, "lateral32")
    merged = graph.relu(graph.add(_conv_norm(graph, at16, "lateral16"), graph.doubled(lateral32)))
    tensors = lstm.to_onnx(state, _LSTM)
    context = graph.rows(merged, _LSTM, tensors, tensors[1].shape[2])
    merged = graph.add(graph.conv(context, "recurrence.merge"), merged)
    merged = graph.relu(_conv_norm(graph, merged, "smooth16"))
    merged = graph.relu(graph.add(_conv_norm(graph, at8, "lateral8"), graph.doubled(merged)))
    merged = _conv_norm(graph, graph.relu(_conv_norm(graph, merged, "smooth8")), "narrow8")
    merged = graph.relu(graph.add(_conv_norm(graph, at4, "lateral4"), graph.doubled(merged)))
    output = graph.conv(graph.relu(_conv_norm(graph, merged, "smooth4")), "head")
    return graph.model(f"ctpn-{profile}", output, len(OUTPUTS), {"profile": profile})


def read_state(path: Path) -> tuple[dict[str, Array], str]:
    """The tensors of a file that `to_onnx` made, as PyTorch wants them, ``float32``, and their profile.

    Raises:
        EngineError: the file is missing, damaged, or not of this kind.
    """
    tensors, entries = read_file(path)
    profile = entries.get("profile", "")
    if profile not in PROFILES:
        raise EngineError(
            f"{path} is of the profile {profile!r}, which runs on the CPU only; this needs {' or '.join(PROFILES)}"
        )
    state: dict[str, Array] = {}
    for name, array in tensors.items():
        if name.endswith((".weight", ".bias", ".running_mean", ".running_var")):
            state[name] = array.astype(np.float32)
        elif name.startswith(f"{_LSTM}.") and name[-1] in "WRB":
            state |= lstm.to_torch(_LSTM, name[-1], array.astype(np.float32))
    return state, profile


def _conv_norm(graph: Graph, value: str, name: str) -> str:
    return graph.norm(graph.conv(value, f"{name}.0"), f"{name}.1")


def folded(weight: Array) -> Array:
    """A 7x7 convolution of stride 2 as one of 4x4 and stride 1 on squares of 2x2 pixels.

    Args:
        weight: ``(O, C, 7, 7)``.

    Returns:
        ``(O, 4 * C, 4, 4)``, for pads of 2 before and 1 behind; input channels: row in the square, column, channel.
    """
    outputs, inputs = weight.shape[:2]
    # One tap of zeros before, so that taps come in twos as the pixels of squares do.
    taps = np.pad(weight, ((0, 0), (0, 0), (1, 0), (1, 0))).reshape(outputs, inputs, 4, 2, 4, 2)
    return np.ascontiguousarray(taps.transpose(0, 3, 5, 1, 2, 4).reshape(outputs, 4 * inputs, 4, 4))


def _light(graph: Graph, picture: str, fold: bool) -> list[str]:
    stem = graph.conv(graph.folded(picture), _STEM, pads=(2, 2, 1, 1)) if fold else graph.conv(picture, _STEM, 2)
    value = graph.pool(graph.relu(stem), 3, (0, 0, 1, 1))
    outputs = []
    for stride, blocks in ((4, 3), (8, 4), (16, 6), (32, 3)):
        for block in range(blocks):
            name = f"backbone.stage{stride}.{block}"
            step = 2 if block == 0 and stride > 4 else 1
            shortcut = graph.conv(value, f"{name}.shortcut", step) if block == 0 else value
            inner = graph.relu(graph.conv(value, f"{name}.reduce", step))
            inner = graph.conv(graph.relu(graph.conv(inner, f"{name}.conv")), f"{name}.expand")
            value = graph.relu(graph.add(inner, shortcut))
        outputs.append(value)
    return outputs


def _vgg16(graph: Graph, picture: str) -> list[str]:
    value, outputs = picture, []
    for block, layers in enumerate((2, 2, 3, 3, 3), 1):
        if block > 1:
            value = graph.pool(value, 2, (0, 0, 0, 0))
        for layer in range(1, layers + 1):
            value = graph.relu(graph.conv(value, f"backbone.blocks.{block - 1}.conv{block}_{layer}"))
        outputs.append(value)
    return [*outputs[2:], graph.pool(value, 2, (0, 0, 0, 0))]
