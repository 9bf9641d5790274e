"""A network out of the ``rapidocr`` package's ``models`` folder."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ocrstream.errors import EngineError
from ocrstream.models import EngineOptions
from ocrstream.models.session import Session

_INSTALL = "install it with: pip install 'ocrstream[ppocr]'"
_AGAIN = "install it again with: pip install --force-reinstall 'rapidocr>=3.10,<4'"


def open_network(file_name: str, options: EngineOptions) -> Session:
    """The ONNX file of this name, ready to run.

    Raises:
        EngineError: the file is missing or damaged, the device is not ``cpu``, or other weights are asked for.
    """
    if options.device != "cpu":
        raise EngineError(f"ppocr runs on the CPU only, not on {options.device!r}: use --device cpu")
    if options.weights:
        raise EngineError(f"ppocr has its own weights and takes no others, not {options.weights!r}")
    return Session(_read(_models_folder() / file_name), file_name, options.threads, _AGAIN)


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
        raise EngineError(f"the weights {path} cannot be read ({error.strerror}); {_AGAIN}") from error
