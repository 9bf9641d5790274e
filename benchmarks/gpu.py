"""The networks in PyTorch, as a GPU runs them: pictures and crops a second, and what share of the chip that is.

    python -m benchmarks.gpu [--device cuda] [--seconds 5] [--compare] [--save]

CTPN's profile vgg16 sees pictures of 600x1067, with weights of chance (the arithmetic is the same), the shipped CRNN
reads crops 160 px wide; in small batches, as one camera makes them, and in large ones. Beside them a large product of
two matrices is timed, which is the most that the chip can be asked for: a network's share is its own arithmetic
(convolutions, products and LSTMs, a multiplication and an addition taken for two) a second, to that.

========= ===============================================================================================
product   as `ocrstream.models` runs a batch: there from the computer's memory, computed, and back again
eager     computed alone, the batch being on the device
compile   the same through `torch.compile` (only with ``--compare``)
graphs    the same as one CUDA graph (only with ``--compare``, on a GPU)
========= ===============================================================================================

What is compared takes turns, batch by batch. On a CPU everything is single precision, and convolutions may be quicker
than the product of matrices: there it only shows that this runs.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.environment import environment
from benchmarks.recording import add_save_flag, conclude, percentiles
from ocrstream.errors import EngineError
from ocrstream.models.crnn import SHIPPED
from ocrstream.models.crnn.network import LightCrnn
from ocrstream.models.crnn.onnx_file import read_state
from ocrstream.models.crnn.preprocess import crop_to_tensor
from ocrstream.models.ctpn.network import Ctpn
from ocrstream.models.ctpn.preprocess import to_tensor
from ocrstream.models.torch_network import find_device, infer, inference, load_state

PICTURE_HW = (600, 1067)
CROP_HW = (48, 160)
"""A word of about eight letters."""

PICTURES, CROPS = (1, 8), (16, 256)
"""Of a batch: what one camera brings, and what fills a GPU."""

MATRIX_SIDE = {"cuda": 8192, "cpu": 1024}
WARM_UP = 3
LEAST_ROUNDS = 3

Run = Callable[[], object]
"""Computes a batch."""


def operations(network: nn.Module, batch: Tensor) -> int:
    """Multiplications and additions of one pass over a batch; what is done to each number alone is not counted.

    Args:
        network: convolutions, linear layers, LSTMs.
        batch: its input.
    """
    in_lstms = 0

    def forward(lstm: nn.LSTM, x: Tensor) -> tuple[Tensor, None]:
        # PyTorch counts an LSTM on some devices and not on others: each weight meets each position once.
        nonlocal in_lstms
        positions = x.shape[0] * x.shape[1]
        weights = sum(tensor.numel() for name, tensor in lstm.named_parameters() if name.startswith("weight"))
        in_lstms += 2 * positions * weights
        return x.new_zeros(*x.shape[:2], lstm.hidden_size * (2 if lstm.bidirectional else 1)), None

    # Without numbers in it, it takes no time.
    skeleton = copy.deepcopy(network).to("meta")
    with patch.object(nn.LSTM, "forward", forward), FlopCounterMode(display=False) as counter, torch.no_grad():
        skeleton(batch.to("meta"))
    return int(counter.get_total_flops()) + in_lstms


def variants(
    network: nn.Module, device: torch.device, batch: NDArray[np.float32], compare: bool
) -> dict[str, Callable[[], Run]]:
    """What makes each way to run a network over a batch ready; RuntimeError, there or in its runs: it cannot be had."""

    def upload() -> Tensor:
        return torch.from_numpy(batch).to(device, memory_format=torch.channels_last, non_blocking=True)

    def on_device(module: Callable[[Tensor], Tensor]) -> Run:
        tensor = upload()

        def run() -> Tensor:
            with inference(device):
                return module(tensor)

        return run

    ways: dict[str, Callable[[], Run]] = {
        "product": lambda: lambda: infer(network, device, upload()),
        "eager": lambda: on_device(network),
    }
    if compare:
        ways["compile"] = lambda: on_device(torch.compile(network, dynamic=False))
    if compare and device.type == "cuda":
        ways["graphs"] = lambda: _graph(network, device, upload())
    return ways


def _graph(network: nn.Module, device: torch.device, tensor: Tensor) -> Run:
    """A pass whose kernels are recorded once and started together; a new batch is copied to where the first one lay."""
    place = tensor.clone()
    # Recording wants every kernel chosen and every buffer made before, and that on another stream.
    beside = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    beside.wait_stream(torch.cuda.current_stream(device))
    with torch.cuda.stream(beside), inference(device):
        for _ in range(WARM_UP):
            network(place)
    torch.cuda.current_stream(device).wait_stream(beside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), inference(device):
        output: Tensor = network(place)

    def run() -> Tensor:
        place.copy_(tensor)
        graph.replay()
        return output

    return run


def times_s(
    ways: Mapping[str, Callable[[], Run]], device: torch.device, seconds: float
) -> dict[str, list[float] | str]:
    """Seconds of each call, by name, `seconds` for each in all; or why a way could not be run, in its own words."""
    measured: dict[str, tuple[Run, list[float]]] = {}
    failed: dict[str, str] = {}
    for name, ready in ways.items():
        try:
            run = ready()
            for _ in range(WARM_UP):
                run()
            _finish(device)
        except RuntimeError as error:
            failed[name] = f"not measured: {str(error).strip().partition(chr(10))[0]}"
        else:
            measured[name] = run, []
    until = time.perf_counter() + seconds * len(measured)
    rounds = 0
    while measured and (rounds < LEAST_ROUNDS or time.perf_counter() < until):
        rounds += 1
        for run, calls in measured.values():
            began = time.perf_counter()
            run()
            _finish(device)
            calls.append(time.perf_counter() - began)
    return {**{name: calls for name, (_, calls) in measured.items()}, **failed}


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, side: int, seconds: float) -> dict[str, Any]:
    """Operations a second of a product of two square matrices, in what a network computes in on this device."""
    kind = torch.bfloat16 if device.type == "cuda" else torch.float32
    left, right = (torch.randn(side, side, device=device, dtype=kind) for _ in range(2))
    calls = times_s({"product": lambda: lambda: left @ right}, device, seconds)["product"]
    if isinstance(calls, str):
        raise EngineError(f"a product of matrices of {side}x{side} cannot be computed on {device}: {calls}")
    rates = [2 * side**3 / call / 1e12 for call in calls]
    # The best rounds are the chip's, the others what else it did.
    best = float(np.percentile(rates, 90))
    return {"side": side, "kind": str(kind).removeprefix("torch."), "tflop_per_s": float(f"{best:.4g}")}


def measure(
    device: torch.device,
    seconds: float,
    compare: bool,
    picture_hw: tuple[int, int] = PICTURE_HW,
    pictures: Sequence[int] = PICTURES,
    crops: Sequence[int] = CROPS,
    matrix_side: int = 0,
) -> dict[str, Any]:
    """All figures.

    Args:
        device: where.
        seconds: for each way of each batch.
        compare: whether `torch.compile` and CUDA graphs are tried, too.
        picture_hw: size of the pictures.
        pictures: how many there are in a batch, once for each of these numbers.
        crops: how many crops, likewise.
        matrix_side: of the matrices that are multiplied; 0 for what suits the device.

    Raises:
        EngineError: the shipped weights cannot be read.
    """
    if device.type == "cuda":
        torch.cuda.set_device(device)
    chance = np.random.default_rng(1)
    picture = to_tensor(chance.integers(0, 256, (*picture_hw, 3), dtype=np.uint8))
    crop = crop_to_tensor(chance.integers(0, 256, (*CROP_HW, 3), dtype=np.uint8))
    state, description = read_state(SHIPPED)
    reader = LightCrnn(len(description.charset) + 1)
    load_state(reader, state)
    matrix = matrix_rate(device, matrix_side or MATRIX_SIDE[device.type], seconds)
    figures: dict[str, Any] = {"matrix": matrix}
    networks = (("ctpn_vgg16", Ctpn("vgg16"), picture, pictures), ("crnn_light", reader, crop, crops))
    for name, network, one, counts in networks:
        network.to(device).to(memory_format=torch.channels_last).eval()
        for count in counts:
            batch = np.repeat(one, count, axis=0)
            asked = operations(network, torch.from_numpy(one))
            calls = times_s(variants(network, device, batch, compare), device, seconds)
            figures[f"{name}, {count} of {one.shape[2]}x{one.shape[3]}"] = {
                "gflop_each": round(asked / 1e9, 3),
                **{way: told(took, count, asked, matrix["tflop_per_s"]) for way, took in calls.items()},
            }
    return figures


def told(took: list[float] | str, count: int, asked: int, matrix_tflop_per_s: float) -> dict[str, Any] | str:
    """A way's figures: items a second over all its calls, its operations a second, their share, and a batch's time."""
    if isinstance(took, str):
        return took
    per_s = count * len(took) / sum(took)
    tflop_per_s = per_s * asked / 1e12
    batch_ms = percentiles([1e3 * call for call in took], (50, 99))
    return {
        "per_s": round(per_s, 2),
        "tflop_per_s": float(f"{tflop_per_s:.4g}"),
        "share_of_matrix_rate": float(f"{tflop_per_s / matrix_tflop_per_s:.3g}"),
        **{f"batch_ms_{name}" if name != "count" else "batches": value for name, value in batch_ms.items()},
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda", help="cuda, cuda:N or cpu (default: cuda)")
    parser.add_argument("--seconds", type=float, default=5.0, help="for each figure (default: 5)")
    parser.add_argument("--compare", action="store_true", help="torch.compile and CUDA graphs too, side by side")
    parser.add_argument("--size", type=int, nargs=2, default=PICTURE_HW, metavar=("H", "W"), help="of the pictures")
    parser.add_argument("--pictures", type=int, nargs="+", default=PICTURES, help="of a batch, one or more numbers")
    parser.add_argument("--crops", type=int, nargs="+", default=CROPS, help="of a batch, one or more numbers")
    parser.add_argument("--matrix", type=int, default=0, help="side of the matrices; 0: what suits the device")
    add_save_flag(parser)
    options = parser.parse_args(arguments)
    if min(*options.size, *options.pictures, *options.crops) < 1 or options.matrix < 0:
        parser.error("sizes and numbers are 1 and more")
    circumstances: dict[str, Any] = environment("torch", "triton", "numpy")
    try:
        device = find_device(options.device)
        if device.type == "cuda":
            circumstances["gpu"] = torch.cuda.get_device_name(device)
        figures = measure(
            device,
            options.seconds,
            options.compare,
            tuple(options.size),
            options.pictures,
            options.crops,
            options.matrix,
        )
    except EngineError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    conclude("gpu", circumstances, figures, save=options.save)


if __name__ == "__main__":
    main()
