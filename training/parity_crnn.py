"""The imported original CRNN against the original's own tensors and strings."""

from __future__ import annotations

import json
import lzma
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrstream.errors import SourceError
from ocrstream.models import EngineOptions
from ocrstream.models.crnn import CrnnRecognizer
from ocrstream.models.crnn.charset import ORIGINAL
from ocrstream.models.crnn.decode import greedy
from ocrstream.models.crnn.gpu import TorchNetwork
from ocrstream.models.crnn.importing import import_weights
from ocrstream.models.crnn.preprocess import original_to_tensor
from ocrstream.models.session import Session
from training.parity import Check

LOGITS = 1e-4
"""Two faithful implementations differ by rounding: about 1e-6 here, on logits of up to 10."""


def checks(folder: Path) -> Iterator[Check]:
    """Every comparison that the folder's files allow: inputs, logits at each width, strings, on both runtimes."""
    tensors, told = _read(folder)
    with _imported(folder) as path:
        content = path.read_bytes()
        session, torch_network = Session(content, path.name, 1, ""), TorchNetwork(path, content, "cpu")
        recognizer = CrnnRecognizer(EngineOptions(threads=1, weights=str(path)))
        for crop in told["crops"]:
            number = crop["n"]
            rgb = tensors[f"rgb_{number}"]
            tensor = original_to_tensor(rgb[:, :, ::-1])
            yield Check(f"crop {number}: input", _apart(tensor[0], tensors[f"input_{number}"]), 1e-6)
            yield from _logits(f"crop {number}", tensor, tensors[f"logits_{number}"], session, torch_network)
            read = recognizer.read([rgb[:, :, ::-1]])[0].text
            yield Check(f"crop {number}: text {read!r}", float(read != crop["simplified"]), 0)
        for width in told["widths"]:
            name = f"w{width['width']}"
            tensor = tensors[f"{name}_input"][None]
            yield from _logits(name, tensor, tensors[f"{name}_logits"], session, torch_network)
            yield _text(name, session.run(tensor)[0], width["simplified"])
        output = session.run(tensors["k1_input"])
        yield Check("keep-ratio batch: logits", _apart(output, tensors["k1_logits"].transpose(1, 0, 2)), LOGITS)
        for row, text in zip(output, told["keep_ratio_k1"]["simplified"], strict=True):
            yield _text("keep-ratio batch", row, text)


def _logits(
    name: str, tensor: NDArray[np.float32], expected: NDArray[np.float32], session: Session, other: TorchNetwork
) -> Iterator[Check]:
    yield Check(f"{name}: logits, ONNX Runtime", _apart(session.run(tensor)[0], expected), LOGITS)
    yield Check(f"{name}: logits, PyTorch", _apart(next(other.run_each([tensor]))[0], expected), LOGITS)


def _text(name: str, logits: NDArray[np.float32], expected: str) -> Check:
    read = greedy(logits, ORIGINAL)
    return Check(f"{name}: text {read!r}", float(read != expected), 0)


def _apart(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    return float(np.abs(one - other).max()) if one.shape == other.shape else float("nan")


def _read(folder: Path) -> tuple[Mapping[str, NDArray[Any]], dict[str, Any]]:
    try:
        with np.load(folder / "crnn_golden.npz", allow_pickle=False) as file:
            tensors = dict(file)
        told: dict[str, Any] = json.loads((folder / "crnn_golden.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise SourceError(f"{folder} holds no outputs of the original CRNN ({error})") from error
    return tensors, told


@contextmanager
def _imported(folder: Path) -> Iterator[Path]:
    """The folder's weights in our format."""
    with tempfile.TemporaryDirectory() as temporary:
        weights = Path(temporary) / "crnn.pth"
        try:
            weights.write_bytes(lzma.decompress((folder / "crnn.pth.xz").read_bytes()))
        except (OSError, lzma.LZMAError) as error:
            raise SourceError(f"{folder / 'crnn.pth.xz'} cannot be read ({error})") from error
        out = Path(temporary) / "crnn.onnx"
        import_weights(weights, out)
        yield out
