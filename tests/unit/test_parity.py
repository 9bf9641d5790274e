"""``python -m training.parity`` checks what a folder holds, and finds what is not as the original computed it."""

import json
import lzma
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocrstream.models.crnn.charset import ORIGINAL
from ocrstream.models.crnn.decode import greedy
from ocrstream.models.crnn.preprocess import original_to_tensor

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra training)")
pytest.importorskip("onnx", reason="the package onnx is not installed (extra training)")

from ocrstream.models.crnn.network import OriginalCrnn  # noqa: E402
from training import parity  # noqa: E402


def write_golden(folder: Path, change: float = 0.0) -> Path:
    """A folder as the original's own outputs come, made by a network of chance; one logit off by the change."""
    torch.manual_seed(6)
    network = OriginalCrnn().eval()
    with torch.no_grad():
        for parameter in network.parameters():
            # Three values only: they pack small and fast.
            parameter.copy_(torch.randint(-1, 2, parameter.shape) * parameter.abs().mean())
    crop = np.random.default_rng(6).integers(0, 256, (20, 60, 3), dtype=np.uint8)

    def run(tensor: Any) -> Any:
        with torch.inference_mode():
            return network(torch.from_numpy(tensor)).numpy()

    squashed = original_to_tensor(crop[:, :, ::-1])
    wide, batch = (np.random.default_rng(n).uniform(-1, 1, (n, 1, 32, 64)).astype(np.float32) for n in (1, 2))
    logits = run(squashed)[0]
    tensors = {
        "rgb_0": crop,
        "input_0": squashed[0],
        "logits_0": logits + np.float32(change) * np.eye(*logits.shape, dtype=np.float32),
        "w64_input": wide[0],
        "w64_logits": run(wide)[0],
        "k1_input": batch,
        "k1_logits": run(batch).transpose(1, 0, 2),
    }
    told = {
        "crops": [{"n": 0, "simplified": greedy(logits, ORIGINAL)}],
        "widths": [{"width": 64, "simplified": greedy(run(wide)[0], ORIGINAL)}],
        "keep_ratio_k1": {"simplified": [greedy(row, ORIGINAL) for row in run(batch)]},
    }
    target = folder / "crnn"
    target.mkdir(parents=True)
    np.savez(target / "crnn_golden.npz", allow_pickle=False, **tensors)
    (target / "crnn_golden.json").write_text(json.dumps(told))
    torch.save(network.state_dict(), folder / "crnn.pth")
    (target / "crnn.pth.xz").write_bytes(lzma.compress((folder / "crnn.pth").read_bytes(), preset=0))
    return folder


def test_a_faithful_import_holds_and_a_wrong_value_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert parity.main([str(write_golden(tmp_path / "right"))]) == 0
    told = capsys.readouterr().out
    assert "ok   crnn crop 0: logits, ONNX Runtime" in told
    assert "ok   crnn w64: logits, PyTorch" in told
    assert told.splitlines()[-1] == "10 of 10 hold"
    assert parity.main([str(write_golden(tmp_path / "wrong", change=0.01))]) == 1
    told = capsys.readouterr().out
    assert "FAIL crnn crop 0: logits, PyTorch: 0.01" in told
    assert told.splitlines()[-1] == "8 of 10 hold"


def test_a_folder_without_outputs_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder, sentence in ((tmp_path, "nothing to compare in"), (tmp_path / "x", "holds no outputs of the original")):
        (tmp_path / "x" / "crnn").mkdir(parents=True, exist_ok=True)
        with pytest.raises(SystemExit) as stopped:
            parity.main([str(folder)])
        assert stopped.value.code == 2
        assert sentence in capsys.readouterr().err


def test_a_difference_that_is_no_number_does_not_hold() -> None:
    assert not parity.Check("x", float("nan"), 1.0).holds
    assert parity.Check("x", 1.0, 1.0).holds
