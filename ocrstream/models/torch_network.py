"""What engines on PyTorch do alike: find their device, and take a file's weights over. Imports PyTorch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from ocrstream.errors import EngineError
from ocrstream.models import EngineOptions


def find_device(name: str) -> torch.device:
    """The device of a name: ``cuda`` or ``cuda:N``; ``cpu`` works too.

    Raises:
        EngineError: there is no such device, or not here; the message says what there is.
    """
    kind, _, index = EngineOptions(name).device.partition(":")
    # PyTorch itself takes an index that is too large for another one.
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise EngineError(
            f"the device {name!r} is not there: PyTorch sees {torch.cuda.device_count()} GPUs; use --device cpu"
        )
    return torch.device(name)


@contextmanager
def inference(device: torch.device) -> Iterator[None]:
    """The context of a forward pass: no gradients, and on a GPU bfloat16."""
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
        yield


def infer(network: torch.nn.Module, device: torch.device, *tensors: torch.Tensor) -> NDArray[np.float32]:
    """A network's output, ``float32``; on a GPU it is computed in bfloat16."""
    with inference(device):
        output = network(*tensors)
    result: NDArray[np.float32] = output.float().cpu().numpy()
    return result


def load_state(network: torch.nn.Module, state: Mapping[str, NDArray[np.float32]]) -> list[str]:
    """Give a network its weights; returns the names that are missing or too many, none where all is well."""
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    missing, unexpected = network.load_state_dict(tensors, strict=False)
    # What a file leaves out is only how many batches a norm has seen.
    return [name for name in missing if not name.endswith("num_batches_tracked")] + list(unexpected)
