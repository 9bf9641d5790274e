"""State dicts are read without PyTorch, and nothing in a file is executed."""

import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from ocrstream.errors import EngineError
from ocrstream.models.torch_file import read_state_dict


class Evil:
    """What a file of somebody else's may hold: a call of any function."""

    def __init__(self, witness: Path) -> None:
        self._witness = witness

    def __reduce__(self) -> tuple[object, ...]:
        return (Path.touch, (self._witness,))


@pytest.mark.parametrize("in_zip", [True, False])
def test_a_file_that_would_call_a_function_is_refused_and_calls_nothing(tmp_path: Path, in_zip: bool) -> None:
    witness, file = tmp_path / "witness", tmp_path / "evil.pth"
    pickled = pickle.dumps(OrderedDict(weight=Evil(witness)))
    if in_zip:
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("evil/data.pkl", pickled)
    else:
        file.write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1001) + pickled)
    with pytest.raises(EngineError, match=r"evil.pth is not a PyTorch state dict.*which no state dict needs"):
        read_state_dict(file)
    assert not witness.exists()


@pytest.mark.parametrize(
    "content", [b"", b"PK\x03\x04", b"not a pickle", pickle.dumps({"a": 1}), pickle.dumps(b"x" * 99)]
)
def test_what_is_no_state_dict_is_refused_in_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.pth").write_bytes(content)
    with pytest.raises(EngineError, match=r"x\.pth is not a PyTorch state dict, or a damaged one"):
        read_state_dict(tmp_path / "x.pth")


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"none.pth cannot be read: No such file"):
        read_state_dict(tmp_path / "none.pth")


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_come_as_pytorch_wrote_them(tmp_path: Path, zipped: bool) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra training)")
    whole = torch.arange(24, dtype=torch.float32).reshape(4, 6)
    # Views of one storage: a part of it, and one that runs across it.
    tensors = {
        "whole": whole,
        "part": whole[1:3, 2:],
        "turned": whole.T,
        "half": whole.half(),
        "count": torch.tensor(7),
        "brain": torch.tensor([1.5, -2.0, 3e38]).bfloat16(),
    }
    torch.save(OrderedDict(tensors), tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    read = read_state_dict(tmp_path / "x.pth")
    assert read.keys() == tensors.keys()
    tensors["brain"] = tensors["brain"].float()
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.numpy().dtype
        np.testing.assert_array_equal(read[name], tensor.numpy())


@pytest.mark.parametrize("key", ["state_dict", "model_state_dict", "model"])
def test_a_state_dict_may_lie_in_a_checkpoint(tmp_path: Path, key: str) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra training)")
    torch.save({"epoch": 3, key: {"weight": torch.ones(2)}}, tmp_path / "x.pth")
    assert read_state_dict(tmp_path / "x.pth")["weight"].tolist() == [1, 1]


def test_a_file_that_was_cut_off_is_refused(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra training)")
    for zipped in (True, False):
        torch.save({"weight": torch.ones(999)}, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
        content = (tmp_path / "x.pth").read_bytes()
        (tmp_path / "x.pth").write_bytes(content[: len(content) // 2])
        with pytest.raises(EngineError, match="or a damaged one"):
            read_state_dict(tmp_path / "x.pth")


def test_a_pickle_of_tuples_without_end_is_refused_and_ends_nothing(tmp_path: Path) -> None:
    deep = b"\x80\x02}(K\x01" + b"\x85" * 1_000_000 + b"K\x01u."
    with zipfile.ZipFile(tmp_path / "deep.pth", "w") as archive:
        archive.writestr("deep/data.pkl", deep)
    (tmp_path / "old.pth").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C) + pickle.dumps(1001) + deep)
    for name in ("deep.pth", "old.pth"):
        with pytest.raises(EngineError, match="it holds 1000000 tuples, which no state dict needs"):
            read_state_dict(tmp_path / name)


def test_a_zip_that_is_damaged_or_locked_is_refused_in_a_sentence(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("x/data.pkl", pickle.dumps({"a": list(range(5000))}))
    content = bytearray((tmp_path / "x.pth").read_bytes())
    for change in ("damaged", "locked"):
        changed = bytearray(content)
        if change == "damaged":
            changed[100:140] = b"\xff" * 40
        else:
            changed[6] |= 1
            changed[content.index(b"PK\x01\x02") + 8] |= 1
        (tmp_path / "x.pth").write_bytes(changed)
        with pytest.raises(EngineError, match="is not a PyTorch state dict, or a damaged one"):
            read_state_dict(tmp_path / "x.pth")


def test_a_tensor_is_no_larger_than_its_storage(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra training)")
    torch.save({"bomb": torch.ones(1).expand(2**29)}, tmp_path / "bomb.pth")
    with pytest.raises(EngineError, match=r"a tensor of shape \(536870912,\) is larger than its storage"):
        read_state_dict(tmp_path / "bomb.pth")
