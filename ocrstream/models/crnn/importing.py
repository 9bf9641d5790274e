"""The released CRNN's weights into this project's format, every tensor's name and shape checked."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocrstream.errors import EngineError
from ocrstream.models.crnn.charset import ORIGINAL as ORIGINAL_CHARSET
from ocrstream.models.lstm import reordered
from ocrstream.models.torch_file import read_state_dict
from ocrstream.models.weights import write_weights

Array = NDArray[np.float32]

PYTORCH, TORCH7 = "pytorch", "torch7"
"""Order of an LSTM's gates: PyTorch's i, f, g, o, or that of a state dict converted from Torch7, i, f, o, g."""

_FROM_TORCH7 = (0, 1, 3, 2)

_CHANNELS = (1, 64, 128, 256, 256, 512, 512, 512)
_HIDDEN = 256


def expected_shapes(classes: int) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor of the released network.

    Args:
        classes: characters and the blank; 37 as released.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for index in range(7):
        side = 2 if index == 6 else 3
        outputs = _CHANNELS[index + 1]
        shapes[f"cnn.conv{index}.weight"] = (outputs, _CHANNELS[index], side, side)
        shapes[f"cnn.conv{index}.bias"] = (outputs,)
        if index in (2, 4, 6):
            shapes |= {
                f"cnn.batchnorm{index}.{kind}": (outputs,) for kind in ("weight", "bias", "running_mean", "running_var")
            }
    for layer, inputs, outputs in ((0, 512, _HIDDEN), (1, _HIDDEN, classes)):
        for suffix in ("", "_reverse"):
            shapes[f"rnn.{layer}.rnn.weight_ih_l0{suffix}"] = (4 * _HIDDEN, inputs)
            shapes[f"rnn.{layer}.rnn.weight_hh_l0{suffix}"] = (4 * _HIDDEN, _HIDDEN)
            shapes[f"rnn.{layer}.rnn.bias_ih_l0{suffix}"] = (4 * _HIDDEN,)
            shapes[f"rnn.{layer}.rnn.bias_hh_l0{suffix}"] = (4 * _HIDDEN,)
        shapes[f"rnn.{layer}.embedding.weight"] = (outputs, 2 * _HIDDEN)
        shapes[f"rnn.{layer}.embedding.bias"] = (outputs,)
    return shapes


def read_original(path: Path, charset: str = ORIGINAL_CHARSET, gates: str = PYTORCH) -> dict[str, Array]:
    """The released network's tensors out of a ``.pth`` file, names without ``module.``, ``float32``.

    Args:
        path: a state dict that ``torch.save`` wrote; nothing in it is executed.
        charset: the characters it writes, without the blank.
        gates: ``pytorch`` or ``torch7``.

    Raises:
        EngineError: the file cannot be read, or is of another network.
    """
    if len(set(charset)) < len(charset):
        raise EngineError(f"a charset has each character once, not as {charset!r:.80}")
    if gates not in (PYTORCH, TORCH7):
        raise EngineError(f"the gate order is {PYTORCH} or {TORCH7}, not {gates!r}")
    read = [(name.removeprefix("module."), tensor) for name, tensor in read_state_dict(path).items()]
    tensors = {name: tensor for name, tensor in read if not name.endswith("num_batches_tracked")}
    if len(dict(read)) < len(read):
        raise EngineError(f"{path} holds tensors twice, with module. before their names and without: which count?")
    if whole := [name for name, tensor in tensors.items() if tensor.dtype.kind != "f"]:
        raise EngineError(f"{path} is not the released CRNN: {whole[0]} holds {tensors[whole[0]].dtype} numbers")
    _check(path, tensors, expected_shapes(len(charset) + 1))
    state = {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in tensors.items()}
    if not all(np.isfinite(tensor).all() for tensor in state.values()):
        raise EngineError(f"{path} holds numbers that are not finite: it is damaged, or its training went wrong")
    if any((tensor < 0).any() for name, tensor in state.items() if name.endswith("running_var")):
        raise EngineError(f"{path} holds variances below 0: it is damaged, or its training went wrong")
    return {
        name: reordered(tensor, _FROM_TORCH7) if gates == TORCH7 and ".rnn." in name else tensor
        for name, tensor in state.items()
    }


def _check(path: Path, tensors: Mapping[str, NDArray[np.generic]], expected: Mapping[str, tuple[int, ...]]) -> None:
    missing = sorted(expected.keys() - tensors.keys())
    unknown = sorted(tensors.keys() - expected.keys())
    if missing or unknown:
        told = [
            f"without {', '.join(missing[:3])}" if missing else "",
            f"with {', '.join(unknown[:3])}" if unknown else "",
        ]
        raise EngineError(f"{path} is not the released CRNN: a state dict {' and '.join(filter(None, told))}")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            hint = "; name its characters with --charset" if name.startswith("rnn.1.embedding") else ""
            raise EngineError(f"{path} is not the released CRNN: {name} is {tensors[name].shape}, not {shape}{hint}")


def import_weights(source: Path, out: Path, charset: str = ORIGINAL_CHARSET, gates: str = PYTORCH) -> Path:
    """Write a released network's file as one of ours, with its card; returns the path of the card.

    Args:
        source: a ``.pth`` file.
        out: the ``.onnx`` file to write; full precision, so that outputs stay the original's.
        charset: the characters it writes, without the blank.
        gates: ``pytorch`` or ``torch7``.

    Raises:
        EngineError: the file cannot be read, is of another network, or ``out`` cannot be written.
    """
    # The package onnx is no part of the default install.
    from ocrstream.models.crnn.onnx_file import ORIGINAL, Description, to_onnx

    state = read_original(source, charset, gates)
    content = to_onnx(state, Description(ORIGINAL, charset), half=False)
    card = {
        "engine": "crnn",
        "profile": ORIGINAL,
        "charset": charset,
        "input": "grey, squashed to 100x32, (x / 255 - 0.5) / 0.5",
        "training": {"imported_from": source.name, "sha256": hashlib.sha256(source.read_bytes()).hexdigest()},
        "scores": {},
    }
    return write_weights(out, content, card)
