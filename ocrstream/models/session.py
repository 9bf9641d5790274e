"""Where a network runs: an ONNX file in ONNX Runtime on the CPU, tensor in, tensor out, several at work at once.

`open_network` chooses for an engine whose weights run on a GPU too.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ocrstream.errors import EngineError
from ocrstream.models import EngineOptions
from ocrstream.models.weights import check_content

# ONNX Runtime would tell its maker how it is used, and decides that when it is imported.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
import onnxruntime

onnxruntime.disable_telemetry_events()

Tensor = NDArray[np.float32]


class Network(Protocol):
    """Where the network of an engine runs; see `Session`."""

    weights: str

    def metadata(self, key: str) -> str:
        """An entry of the weight file's metadata."""

    def run_each(self, tensors: Iterable[Tensor]) -> Iterator[Tensor]:
        """The outputs for several inputs, in their order."""


def open_network(
    engine: str, path: Path, options: EngineOptions, in_torch: Callable[[Path, bytes, str], Network]
) -> Network:
    """A weight file on the device of the options.

    Args:
        engine: its name, for errors.
        path: the weight file.
        options: the device; threads; whether the weights are the user's own, for what to advise.
        in_torch: makes of path, content and device a network in PyTorch; imports PyTorch only when it is called, as
            that is no part of the default install.

    Raises:
        EngineError: the weights are missing, damaged or other than their card says, or the device or PyTorch is not
            there.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EngineError(
            f"the weights {path} cannot be read ({error.strerror}): name one that import or training wrote"
        ) from error
    # Bytes may change on a disk and still be a network: what it reads would be wrong and nobody would know.
    check_content(path, hashlib.sha256(content).hexdigest())
    if options.device == "cpu":
        remedy = "import or train it again" if options.weights else "install ocrstream again"
        session = Session(content, path.name, options.threads, remedy)
        _check_kind(engine, path, session)
        return session
    try:
        return in_torch(path, content, options.device)
    except ImportError as error:
        raise EngineError(
            f"{engine} on {options.device!r} needs PyTorch ({error}): pip install 'ocrstream[gpu]', or use --device cpu"
        ) from error


def _check_kind(engine: str, path: Path, session: Session) -> None:
    """Raise `EngineError` where a weight file of ours is one of the other kind of engine."""
    reads = session.has("charset")
    if session.has("profile") and reads != (engine == "crnn"):
        found, wanted = ("recogniser", "detector") if reads else ("detector", "recogniser")
        flag = "--recognizer-weights" if reads else "--detector-weights"
        raise EngineError(f"the weights {path} are a {found}'s: name a {wanted}'s, or use {flag}")


class Session:
    """One ONNX model with one input and one output; safe to share between threads.

    Args:
        content: the ONNX file's bytes.
        name: what to call it in errors.
        threads: inference threads; 0 fits them to the cores this process may use.
        remedy: what a person can do where the file is damaged.

    Attributes:
        weights: the first 12 hexadecimal digits of the file's SHA-256.

    Raises:
        EngineError: the bytes are not an ONNX model that ONNX Runtime takes.
    """

    def __init__(self, content: bytes, name: str, threads: int, remedy: str) -> None:
        self.weights = hashlib.sha256(content).hexdigest()[:12]
        self._name = name
        self._remedy = remedy
        self._threads = threads or len(os.sched_getaffinity(0))
        try:
            self._session = _load(content, self._threads)
        # ONNX Runtime's exceptions have no class of their own but Exception.
        except Exception as error:
            raise EngineError(f"the weights {name} are damaged ({error}); {remedy}") from error
        self._input = self._session.get_inputs()[0].name

    def has(self, key: str) -> bool:
        """Whether the file's metadata have such an entry."""
        return key in self._session.get_modelmeta().custom_metadata_map

    def metadata(self, key: str) -> str:
        """An entry of the file's metadata.

        Raises:
            EngineError: it is not there.
        """
        entries: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        if key not in entries:
            raise EngineError(f"the weights {self._name} have no {key!r} in their metadata; {self._remedy}")
        return entries[key]

    def run(self, tensor: Tensor) -> Tensor:
        """The network's output for its input."""
        return self._start(tensor).result()

    def run_each(self, tensors: Iterable[Tensor]) -> Iterator[Tensor]:
        """The outputs for several inputs, in their order, with as many at work as there are threads."""
        started: deque[Future[Tensor]] = deque()
        for tensor in tensors:
            started.append(self._start(tensor))
            if len(started) > self._threads:
                yield started.popleft().result()
        while started:
            yield started.popleft().result()

    def _start(self, tensor: Tensor) -> Future[Tensor]:
        future: Future[Tensor] = Future()

        # The tensor is a default argument so that it lives until the network is done with its memory.
        def done(outputs: list[Tensor], _: object, error: str, tensor: Tensor = tensor) -> None:  # noqa: ARG001
            if error:
                future.set_exception(RuntimeError(f"ONNX Runtime: {error}"))
            else:
                future.set_result(outputs[0])

        # In ONNX Runtime's own threads, not in this one: see `_load`.
        self._session.run_async(None, {self._input: tensor}, done, None)
        return future


def _load(content: bytes, threads: int) -> onnxruntime.InferenceSession:
    """A session whose own threads treat denormal numbers as zero.

    A detector's activations are full of denormals, and without this it takes four times as long for the same output.
    The calling thread would not do so, hence no work is done in it: `run_async`, and one thread more than are to work
    (ONNX Runtime counts the caller in). The first session of a process also changes the thread that makes it, in which
    NumPy then warns about its limits, hence a thread for that.
    """
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.set_denormal_as_zero", "1")
    options.intra_op_num_threads = threads + 1
    # Both model stages run side by side in the embedded mode: threads that spin take the cores from the other one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    # A plan of memory is kept for each shape ever seen, and frames and crops come in many.
    options.enable_mem_pattern = False
    options.log_severity_level = 4
    with ThreadPoolExecutor(max_workers=1) as maker:
        return maker.submit(onnxruntime.InferenceSession, content, options, providers=["CPUExecutionProvider"]).result()
