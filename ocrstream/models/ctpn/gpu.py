"""The detector in PyTorch, for a GPU: pictures of one shape in one batch, in bfloat16, channels last."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from ocrstream.errors import EngineError
from ocrstream.models.ctpn.network import Ctpn
from ocrstream.models.ctpn.onnx_file import read_state
from ocrstream.models.torch_network import find_device, infer, load_state

Floats = NDArray[np.float32]

BATCH_PIXELS = 8 * 1280 * 736
"""Pixels of a batch at most: what fills a GPU, and fits into any."""


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
        state, self._profile = read_state(path)
        network = Ctpn(self._profile)
        wrong = load_state(network, state)
        if wrong:
            raise EngineError(
                f"{path} does not hold the profile {self._profile} ({', '.join(wrong[:3])}): a file in 8 bits runs "
                "on the CPU only, and ctpn_light_half is the shipped one for a GPU"
            )
        self._network = network.to(self._device).to(memory_format=torch.channels_last).eval()

    def metadata(self, key: str) -> str:
        """An entry of the file's metadata: its profile."""
        return {"profile": self._profile}[key]

    def run_each(self, tensors: Iterable[Floats]) -> Iterator[Floats]:
        """The output for each ``(1, 3, H, W)`` picture, ``(1, 6, H / 4, W / 4) float32``, in their order."""
        pictures = list(tensors)
        outputs: dict[int, Floats] = {}
        shapes: dict[tuple[int, ...], list[int]] = defaultdict(list)
        for index, picture in enumerate(pictures):
            shapes[picture.shape].append(index)
        for shape, indices in shapes.items():
            size = max(1, BATCH_PIXELS // (shape[2] * shape[3]))
            for start in range(0, len(indices), size):
                batch = indices[start : start + size]
                found = self._run(np.concatenate([pictures[index] for index in batch]))
                outputs |= {index: found[row : row + 1] for row, index in enumerate(batch)}
        yield from (outputs[index] for index in range(len(pictures)))

    def _run(self, pictures: Floats) -> Floats:
        tensor = torch.from_numpy(pictures).to(self._device, memory_format=torch.channels_last, non_blocking=True)
        return infer(self._network, self._device, tensor)
