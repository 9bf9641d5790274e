"""What the networks ask of a GPU and how fast they get it: the arithmetic, on the CPU in small sizes."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="PyTorch is not installed (extra training)")
pytest.importorskip("onnx", reason="the package onnx is not installed (extra training)")

import torch

from benchmarks import gpu, recording
from ocrstream.models.ctpn.network import Ctpn

CPU = torch.device("cpu")


class Small(torch.nn.Module):
    """A convolution, and an LSTM along its rows."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = torch.nn.Conv2d(3, 8, 3, padding=1)
        self.lstm = torch.nn.LSTM(8, 5, bidirectional=True, batch_first=True)

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        features = self.convolution(pictures)
        rows: torch.Tensor = self.lstm(features.mean(dim=2).transpose(1, 2))[0]
        return rows


def test_operations_are_those_of_convolutions_and_lstms() -> None:
    convolution = 2 * (7 * 9) * 8 * 3 * 3 * 3
    # Nine positions; four gates of five numbers each, both ways, from eight inputs and five of the step before.
    lstm = 2 * 9 * 2 * 4 * 5 * (8 + 5)
    network = Small()
    assert gpu.operations(network, torch.zeros(1, 3, 7, 9)) == convolution + lstm
    assert gpu.operations(network, torch.zeros(4, 3, 7, 9)) == 4 * (convolution + lstm)
    assert network.lstm(torch.zeros(1, 9, 8))[0].shape == (1, 9, 10), "the network itself is as it was"


def test_vgg16_asks_for_what_is_known_of_it() -> None:
    # 15.3 thousand million multiply-adds at 224x224 (He et al., 2016, section 3.3), and our own part.
    asked = gpu.operations(Ctpn("vgg16"), torch.zeros(1, 3, 224, 224))
    backbone = gpu.operations(Ctpn("vgg16").backbone, torch.zeros(1, 3, 224, 224))
    assert backbone == pytest.approx(2 * 15.3e9, rel=0.01)
    assert 1.0 < asked / backbone < 1.3


def test_figures_follow_from_the_calls() -> None:
    figures = gpu.told([0.5, 0.5, 1.0], count=4, asked=10**12, matrix_tflop_per_s=24.0)
    assert figures == {
        "per_s": 6.0,
        "tflop_per_s": 6.0,
        "share_of_matrix_rate": 0.25,
        "batch_ms_p50": 500.0,
        "batch_ms_p99": 990.0,
        "batch_ms_max": 1000.0,
        "batches": 3,
    }
    assert gpu.told("not measured: no compiler", 4, 1, 1.0) == "not measured: no compiler"


def test_what_cannot_be_run_is_told_and_the_others_take_turns() -> None:
    calls: list[str] = []

    def way(name: str) -> Callable[[], gpu.Run]:
        return lambda: lambda: calls.append(name)

    def refused() -> gpu.Run:
        raise RuntimeError("no compiler\nand much more")

    took = gpu.times_s({"a": way("a"), "broken": refused, "b": way("b")}, CPU, seconds=0.0)
    assert took["broken"] == "not measured: no compiler"
    assert calls[2 * gpu.WARM_UP :] == ["a", "b"] * gpu.LEAST_ROUNDS
    assert len(took["a"]) == len(took["b"]) == gpu.LEAST_ROUNDS


@pytest.mark.parametrize("compare", [False, True])
def test_a_small_run_measures_both_networks_and_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, compare: bool
) -> None:
    compiled = []

    def compile_nothing(network: torch.nn.Module, **_options: object) -> torch.nn.Module:
        compiled.append(network)
        return network

    monkeypatch.setattr(torch, "compile", compile_nothing)
    monkeypatch.setattr(recording, "RESULTS", tmp_path)
    sizes = ["--size", "40", "70", "--pictures", "1", "--crops", "1", "2", "--matrix", "64", "--seconds", "0"]
    gpu.main(["--device", "cpu", "--save", *sizes, *(["--compare"] if compare else [])])
    (path,) = tmp_path.iterdir()
    figures = json.loads(path.read_text())["figures"]
    assert list(figures) == ["matrix", "ctpn_vgg16, 1 of 64x96", "crnn_light, 1 of 48x160", "crnn_light, 2 of 48x160"]
    ways = ["product", "eager", "compile"] if compare else ["product", "eager"]
    for batch in list(figures.values())[1:]:
        assert list(batch) == ["gflop_each", *ways]
        assert all(batch[way]["per_s"] > 0 and batch[way]["batches"] >= gpu.LEAST_ROUNDS for way in ways)
    assert figures["crnn_light, 1 of 48x160"]["gflop_each"] == figures["crnn_light, 2 of 48x160"]["gflop_each"]
    assert len(compiled) == (3 if compare else 0)


def test_a_device_that_is_not_there_and_an_empty_batch_get_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    missing = f"cuda:{torch.cuda.device_count()}"
    for arguments, sentence in (
        (["--device", missing], f"python -m benchmarks.gpu: the device '{missing}' is not there: PyTorch sees"),
        (["--device", "cpu", "--crops", "0"], "sizes and numbers are 1 and more"),
    ):
        with pytest.raises(SystemExit) as left:
            gpu.main(arguments)
        assert left.value.code == 2
        assert sentence in capsys.readouterr().err
