"""What a GPU computes (PyTorch, bfloat16, half-precision weights) says what a CPU computes (ONNX Runtime, 8 bits).

Without a GPU the same code computes on the CPU, with every weight and every layer's output rounded as bfloat16 rounds
it: computing in bfloat16 itself takes a minute a picture where the processor has no units for it. `docs/models.md`
states the tolerance.
"""

from typing import NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="PyTorch is not installed: it comes with the extra training")

import torch

from ocrstream.lines import cut_line
from ocrstream.models import (
    EngineOptions,
    TextLine,
    torch_network,
)
from ocrstream.models.crnn import CrnnRecognizer
from ocrstream.models.crnn import gpu as crnn_gpu
from ocrstream.models.ctpn import SHIPPED_HALF, CtpnDetector
from ocrstream.models.ctpn import gpu as ctpn_gpu
from ocrstream.picture import Image
from producers.scene import DemoScene

SURE = 0.8
"""Words that the detector scores so high, and readings above half of it, are compared."""

EXACT_PX, NEAR_PX, NEAR_SHARE = 1.0, 4.0, 0.85
CONFIDENCE = 0.1
"""The tolerances that `docs/models.md` states."""


class Engines(NamedTuple):
    """A detector and a recogniser on one device."""

    detector: CtpnDetector
    recognizer: CrnnRecognizer


def rounded(network: torch.nn.Module, device: torch.device, *tensors: torch.Tensor) -> NDArray[np.float32]:
    """`torch_network.infer`, with bfloat16's eight digits."""

    def is_rounded(_module: torch.nn.Module, _inputs: object, output: object) -> object:
        return output.bfloat16().float() if isinstance(output, torch.Tensor) else output

    hooks = [module.register_forward_hook(is_rounded) for module in network.modules()]
    for parameter in network.parameters():
        parameter.data = parameter.data.bfloat16().float()
    output = torch_network.infer(network, device, *tensors)
    for hook in hooks:
        hook.remove()
    return output


@pytest.fixture(scope="module")
def on_cpu() -> Engines:
    options = EngineOptions(threads=2)
    return Engines(CtpnDetector(options), CrnnRecognizer(options))


@pytest.fixture
def on_gpu(monkeypatch: pytest.MonkeyPatch) -> Engines:
    if not torch.cuda.is_available():
        for module in (ctpn_gpu, crnn_gpu):
            monkeypatch.setattr(module, "find_device", lambda _name: torch.device("cpu"))
            monkeypatch.setattr(module, "infer", rounded)
    options = EngineOptions(device="cuda")
    return Engines(CtpnDetector(options), CrnnRecognizer(options))


@pytest.fixture(scope="module")
def hall() -> Image:
    return DemoScene(seed=1).render(60)[160:560, 380:1020].copy()


def off_px(ours: list[TextLine], theirs: list[TextLine]) -> NDArray[np.float64]:
    """How far each sure word of ours is from the nearest of theirs; which words make a line hangs on a pixel's gap."""
    words, others = (
        [np.array(word) for line in lines for word in line.words or (line.polygon,)]
        for lines in ([line for line in ours if line.score >= SURE], theirs)
    )
    assert len(words) > 10
    return np.array([min(np.abs(word - other).max() for other in others) for word in words])


def test_a_gpu_finds_the_same_words_as_single_precision(on_gpu: Engines, hall: Image) -> None:
    single = CtpnDetector(EngineOptions(threads=2, weights=str(SHIPPED_HALF)))
    (here,), (there,) = single.detect([hall]), on_gpu.detector.detect([hall])
    assert off_px(here, there).max() < EXACT_PX
    assert off_px(there, here).max() < EXACT_PX


def test_a_gpu_finds_the_same_words_as_eight_bits(on_cpu: Engines, on_gpu: Engines, hall: Image) -> None:
    (here,), (there,) = on_cpu.detector.detect([hall]), on_gpu.detector.detect([hall])
    for off in (off_px(here, there), off_px(there, here)):
        assert np.mean(off < NEAR_PX) >= NEAR_SHARE
        assert off.max() < 4 * NEAR_PX


def test_a_gpu_reads_the_same_as_eight_bits(on_cpu: Engines, on_gpu: Engines, hall: Image) -> None:
    (lines,) = on_cpu.detector.detect([hall])
    margin = on_cpu.detector.margin
    crops = [crop for line in lines if line.score >= SURE for crop in cut_line(hall, line.polygon, line.words, margin)]
    here, there = on_cpu.recognizer.read(crops), on_gpu.recognizer.read(crops)
    sure = [pair for pair in zip(here, there, strict=True) if pair[0].confidence > SURE / 2]
    assert len(sure) > 10
    for ours, theirs in sure:
        assert theirs.text == ours.text
        assert theirs.confidence == pytest.approx(ours.confidence, abs=CONFIDENCE)
