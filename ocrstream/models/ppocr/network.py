"""A network out of the ``rapidocr`` package's ``models`` folder, run by ONNX Runtime: tensor in, tensor out."""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ocrstream.errors import EngineError
from ocrstream.models import EngineOptions

_INSTALL = "install it again with: pip install --force-reinstall 'rapidocr>=3.10,<4'"


class Network:
    """One ONNX file with one input and one output; safe to share between threads.

    Args:
        file_name: the file in the ``rapidocr`` package's ``models`` folder.
        options: device and threads.

    Attributes:
        weights: the first 12 hexadecimal digits of the file's SHA-256.

    Raises:
        EngineError: the file is missing or damaged, or the device is not ``cpu``.
    """

    def __init__(self, file_name: str, options: EngineOptions) -> None:
        if options.device != "cpu":
            raise EngineError(f"ppocr runs on the CPU only, not on {options.device!r}: use --device cpu")
        content = _read(_models_folder() / file_name)
        self.weights = hashlib.sha256(content).hexdigest()[:12]
        try:
            self._session = onnxruntime.InferenceSession(
                content, _session_options(options), providers=["CPUExecutionProvider"]
            )
        # ONNX Runtime's exceptions have no common class of their own but Exception.
        except Exception as error:
            raise EngineError(f"the weights {file_name} are damaged ({error}); {_INSTALL}") from error
        self._input = self._session.get_inputs()[0].name

    def metadata(self, key: str) -> str:
        """An entry of the file's metadata.

        Raises:
            EngineError: it is not there.
        """
        entries: dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        if key not in entries:
            raise EngineError(f"the ppocr weights have no {key!r} in their metadata; {_INSTALL}")
        return entries[key]

    def run(self, tensor: NDArray[np.float32]) -> NDArray[np.float32]:
        """The network's output for its input."""
        output: NDArray[np.float32] = self._session.run(None, {self._input: tensor})[0]
        return output


def _models_folder() -> Path:
    # Not importlib.resources: that would import rapidocr itself, of which nothing but its files is needed.
    spec = importlib.util.find_spec("rapidocr")
    if spec is None or not spec.submodule_search_locations:
        raise EngineError(f"the engine ppocr needs the package rapidocr; {_INSTALL}")
    return Path(spec.submodule_search_locations[0]) / "models"


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise EngineError(f"the weights {path} cannot be read ({error.strerror}); {_INSTALL}") from error


def _session_options(options: EngineOptions) -> onnxruntime.SessionOptions:
    session = onnxruntime.SessionOptions()
    session.intra_op_num_threads = options.threads or len(os.sched_getaffinity(0))
    session.log_severity_level = 4
    # Both model stages run side by side in the embedded mode: a pool that spins takes the cores from the other one.
    session.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return session
