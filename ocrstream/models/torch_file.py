"""State dicts out of PyTorch's files, without PyTorch and without executing anything that is in them.

A file is a pickle beside raw numbers: since PyTorch 1.6 in a zip archive, before one after the other. A pickle may name
any function and have it called; here only the handful that a state dict needs are known, each by a stand-in that builds
an array, and any other name ends the reading.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ocrstream.errors import EngineError

Array = NDArray[np.generic]

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_MAX_BYTES = 4 * 2**30
_MAX_PICKLE_BYTES = 64 * 2**20
_MOST_TUPLES = 30_000
"""A tensor takes four."""

_TYPES: dict[str, np.dtype[Any]] = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype("<u2"),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}

_UPPER_HALVES = "BFloat16Storage"
"""NumPy has no such numbers: they are the upper halves of single-precision ones."""


@dataclass(slots=True)
class _Storage:
    """Numbers that tensors are views of; in the old format they come after the pickle that names them."""

    kind: str
    length: int
    numbers: Array | None = None

    @property
    def size_bytes(self) -> int:
        """What it takes up in the file."""
        return self.length * _TYPES[self.kind].itemsize

    def fill(self, content: bytes) -> None:
        """Take its numbers out of what the file has of them."""
        numbers = np.frombuffer(content, _TYPES[self.kind], self.length)
        if self.kind == _UPPER_HALVES:
            numbers = (numbers.astype(np.uint32) << 16).view(np.float32)
        self.numbers = numbers


@dataclass(frozen=True, slots=True)
class _View:
    """A tensor: where it lies in its storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def array(self) -> Array:
        numbers = self.storage.numbers
        if numbers is None:
            raise pickle.UnpicklingError("a tensor's numbers are missing")
        if len(self.shape) != len(self.strides) or min((*self.shape, *self.strides, self.offset), default=0) < 0:
            raise pickle.UnpicklingError(f"a tensor of shape {self.shape} has strides {self.strides}")
        # The tensors of a state dict share no numbers with themselves: a small file would fill the memory so.
        if math.prod(self.shape) > len(numbers):
            raise pickle.UnpicklingError(f"a tensor of shape {self.shape} is larger than its storage")
        last = self.offset + sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))
        if 0 in self.shape:
            return np.zeros(self.shape, dtype=numbers.dtype)
        if last >= len(numbers):
            raise pickle.UnpicklingError(f"a tensor of shape {self.shape} is larger than its storage")
        steps = [step * numbers.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.shape, steps, writeable=False).copy()


class _Dict(OrderedDict[Any, Any]):
    """An ordered dict that lets go of the attributes that PyTorch pickles with a state dict."""

    def __setstate__(self, _state: object) -> None:
        pass


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *_rest: Any) -> _View:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return _View(storage, int(offset), tuple(map(int, shape)), tuple(map(int, strides)))


def _parameter(data: Any, *_rest: Any) -> Any:
    return data


_KNOWN: dict[tuple[str, str], Callable[..., Any] | type] = {
    ("collections", "OrderedDict"): _Dict,
    ("torch._utils", "_rebuild_tensor"): _rebuild,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


class _Unpickler(pickle.Unpickler):
    """Knows the names of `_KNOWN` and of storages, and no other."""

    def __init__(self, file: IO[bytes], storage_of: Callable[[str, str, int], _Storage]) -> None:
        super().__init__(file, encoding="latin1")
        self._storage_of = storage_of

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _KNOWN:
            return _KNOWN[module, name]
        if module == "torch" and name in _TYPES:
            return name
        raise pickle.UnpicklingError(f"it names {module}.{name}, which no state dict needs")

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, _location, length, *_view = pid
        if kind != "storage" or storage_type not in _TYPES:
            raise pickle.UnpicklingError(f"it refers to {kind!r} {storage_type!r}, not to numbers")
        return self._storage_of(str(key), storage_type, int(length))


def read_state_dict(path: Path) -> dict[str, Array]:
    """Every tensor of a state dict that ``torch.save`` wrote, by name.

    A state dict that lies under ``state_dict``, ``model_state_dict`` or ``model`` in the file is found there; numbers
    in bfloat16 are given in single precision.

    Raises:
        EngineError: the file is missing or damaged, or holds anything but a state dict.
    """
    try:
        with path.open("rb") as file:
            content = _from_zip(file) if zipfile.is_zipfile(file) else _from_legacy(file)
        return {name: view.array() for name, view in _views(content).items()}
    except OSError as error:
        raise EngineError(f"{path} cannot be read: {error.strerror or error}") from error
    # What a damaged pickle raises depends on where it breaks.
    except (pickle.UnpicklingError, zipfile.BadZipFile, zlib.error, EOFError, ValueError, KeyError, TypeError,
            AttributeError, IndexError, struct.error, MemoryError, OverflowError, RuntimeError) as error:  # fmt: skip
        why = f": {error}" if isinstance(error, pickle.UnpicklingError) else ""
        raise EngineError(f"{path} is not a PyTorch state dict, or a damaged one{why}") from error


def _views(content: Any) -> dict[str, _View]:
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if isinstance(content, dict):
        views = {str(name): view for name, view in content.items() if isinstance(view, _View)}
        if views:
            return views
    raise pickle.UnpicklingError("it holds no tensors by name")


def _from_zip(file: IO[bytes]) -> Any:
    with zipfile.ZipFile(file) as archive:
        (pickled,) = (name for name in archive.namelist() if name.rpartition("/")[2] == "data.pkl")
        folder = pickled.removesuffix("data.pkl")
        storages: dict[str, _Storage] = {}

        def storage_of(key: str, storage_type: str, length: int) -> _Storage:
            if key not in storages:
                info = archive.getinfo(f"{folder}data/{key}")
                storage = _Storage(storage_type, length)
                if info.file_size > _MAX_BYTES or info.file_size < storage.size_bytes:
                    raise pickle.UnpicklingError(f"its storage {key} has {info.file_size} bytes for {length} numbers")
                storage.fill(archive.read(info))
                storages[key] = storage
            return storages[key]

        if archive.getinfo(pickled).file_size > _MAX_PICKLE_BYTES:
            raise pickle.UnpicklingError(f"its pickle has {archive.getinfo(pickled).file_size} bytes")
        content = io.BytesIO(archive.read(pickled))
        _check_nesting(content)
        return _Unpickler(content, storage_of).load()


def _check_nesting(file: IO[bytes]) -> None:
    """Refuse the pickle that comes next in a file if it can hold tuples within tuples without end.

    To take such a thing for a key ends the process: Python hashes it on the stack.
    """
    place = file.tell()
    tuples = sum(opcode.name.startswith(("TUPLE", "FROZENSET")) for opcode, _, _ in pickletools.genops(file))
    if tuples > _MOST_TUPLES:
        raise pickle.UnpicklingError(f"it holds {tuples} tuples, which no state dict needs")
    file.seek(place)


def _from_legacy(file: IO[bytes]) -> Any:
    """Magic number, protocol, the machine's sizes, the object, the storages' keys: a pickle each; then the storages."""
    file.seek(0)
    storages: dict[str, _Storage] = {}

    def storage_of(key: str, storage_type: str, length: int) -> _Storage:
        return storages.setdefault(key, _Storage(storage_type, length))

    def load() -> Any:
        _check_nesting(file)
        return _Unpickler(file, storage_of).load()

    if load() != _LEGACY_MAGIC or load() != _LEGACY_PROTOCOL:
        raise pickle.UnpicklingError("it does not begin as PyTorch's files do")
    if load().get("little_endian") is not True:
        raise pickle.UnpicklingError("its numbers are big-endian")
    content = load()
    for key in load():
        storage = storages[str(key)]
        (length,) = struct.unpack("<q", file.read(8))
        if length != storage.length or storage.size_bytes > _MAX_BYTES:
            raise pickle.UnpicklingError(f"its storage {key} has {length} numbers, not {storage.length}")
        storage.fill(file.read(storage.size_bytes))
    return content
