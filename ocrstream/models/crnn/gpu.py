"""The CRNN in PyTorch, for a GPU: crops of like width in one batch, padded and masked, in bfloat16."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ocrstream.errors import EngineError
from ocrstream.models.crnn.network import LightCrnn, OriginalCrnn, light_steps
from ocrstream.models.crnn.onnx_file import LIGHT, Description, read_state
from ocrstream.models.crnn.preprocess import batch_to_tensor
from ocrstream.models.torch_network import find_device, infer, load_state

Floats = NDArray[np.float32]

BATCH_COLUMNS = 65536
"""Pixel columns of a batch at most, its padding counted: what fills a GPU and fits into any."""

WASTE = 0.25
"""A crop joins a batch if at most this share of the batch's width would be padding for it."""


class TorchNetwork:
    """The weights of an ONNX file of ours in PyTorch, behind the same calls as `ocrstream.models.session.Session`.

    Args:
        path: the file.
        content: its bytes.
        device: ``cuda`` or ``cuda:N``; ``cpu`` works too, in single precision.

    Raises:
        EngineError: the file is not one of ours, or the device is not there.
    """

    def __init__(self, path: Path, content: bytes, device: str) -> None:
        self._device = find_device(device)
        self.weights = hashlib.sha256(content).hexdigest()[:12]
        state, self._description = read_state(path)
        self._network = _build(state, self._description).to(self._device).eval()
        self._network.to(memory_format=torch.channels_last)

    def metadata(self, key: str) -> str:
        """An entry of the file's metadata."""
        return str(getattr(self._description, key))

    def run_each(self, tensors: Iterable[Floats]) -> Iterator[Floats]:
        """The logits of each ``(1, 1, h, w)`` crop, ``(1, T, C) float32``, in their order."""
        crops = list(tensors)
        outputs: list[Floats | None] = [None] * len(crops)
        for batch in batches([crop.shape[3] for crop in crops]):
            pixels, widths = batch_to_tensor([crops[index] for index in batch])
            logits = self._run(pixels, widths)
            for row, index in enumerate(batch):
                steps = light_steps(int(widths[row])) if self._description.profile == LIGHT else None
                outputs[index] = logits[row : row + 1, :steps]
        yield from (output for output in outputs if output is not None)

    def _run(self, pixels: Floats, widths: NDArray[np.int64]) -> Floats:
        tensor = torch.from_numpy(pixels).to(self._device, non_blocking=True)
        if (widths == widths[0]).all():
            return infer(self._network, self._device, tensor)
        return infer(self._network, self._device, tensor, torch.from_numpy(widths))


def batches(widths_px: list[int]) -> Iterator[list[int]]:
    """Indices of crops by width, in batches that are not too large and hold little padding."""
    waiting: list[int] = []
    for index in sorted(range(len(widths_px)), key=lambda index: -widths_px[index]):
        widest = widths_px[waiting[0]] if waiting else widths_px[index]
        if waiting and (widths_px[index] < (1 - WASTE) * widest or (len(waiting) + 1) * widest > BATCH_COLUMNS):
            yield waiting
            waiting = []
        waiting.append(index)
    if waiting:
        yield waiting


def _build(state: dict[str, Floats], description: Description) -> torch.nn.Module:
    classes = len(description.charset) + 1
    network = LightCrnn(classes) if description.profile == LIGHT else OriginalCrnn(classes)
    wrong = load_state(network, state)
    if wrong:
        raise EngineError(f"the weights are not those of the profile {description.profile}: {', '.join(wrong[:3])}")
    return network
