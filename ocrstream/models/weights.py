"""Weight files and their cards: what a file is, what it was trained on, what it scored, and whether it is whole.

Beside ``NAME.onnx`` lies ``NAME.json``, its card: the file's SHA-256 and size, the engine and profile, the charset and
input rule where there are any, how it was trained, and measured scores.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocrstream.errors import EngineError
from ocrstream.files import whole_file

MODELS = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class WeightFile:
    """A weight file and what its card says.

    Attributes:
        path: the file.
        card: its card.
    """

    path: Path
    card: dict[str, Any]

    @property
    def name(self) -> str:
        """The file's name without its ending."""
        return self.path.stem


def shipped() -> list[WeightFile]:
    """The weight files that this installation brings, by name.

    Raises:
        EngineError: a card cannot be read.
    """
    return [read_card(card.with_suffix(".onnx")) for card in sorted(MODELS.glob("*/weights/*.json"))]


def find(name: str) -> WeightFile:
    """A shipped weight file by its name, or any by its path.

    Raises:
        EngineError: there is none, or it has no card.
    """
    for file in (known := shipped()):
        if name == file.name:
            return file
    if Path(name).suffix == ".onnx":
        return read_card(Path(name))
    names = ", ".join(file.name for file in known) or "none"
    raise EngineError(f"there is no weight file {name!r}: name one of {names}, or the path of an .onnx file")


def to_path(name: str) -> Path:
    """Where a shipped weight file lies, by its name; any other is taken for a path."""
    return next((file.path for file in shipped() if file.name == name), Path(name))


def read_card(path: Path) -> WeightFile:
    """A weight file with its card.

    Raises:
        EngineError: the card is missing or damaged.
    """
    card = path.with_suffix(".json")
    try:
        content = json.loads(card.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"the card {card} cannot be read ({error}): it belongs beside its weight file") from error
    told = content if isinstance(content, dict) else {}
    if missing := [name for name in ("sha256", "engine") if not isinstance(told.get(name), str)]:
        raise EngineError(f"{card} is not the card of a weight file: it has no {' and no '.join(missing)}")
    return WeightFile(path, content)


def verify(file: WeightFile) -> str:
    """Compare a weight file with its card; returns its SHA-256.

    Raises:
        EngineError: the file is missing, or is another than the card tells.
    """
    try:
        found = hashlib.sha256(file.path.read_bytes()).hexdigest()
    except OSError as error:
        raise EngineError(f"the weights {file.path} cannot be read: {error.strerror}") from error
    if found != file.card["sha256"]:
        raise _another(file, found)
    return found


def verify_content(path: Path) -> None:
    """Compare a weight file with its card, where it has one.

    Raises:
        EngineError: it is another than its card tells, or missing beside it.
    """
    if path.with_suffix(".json").exists():
        verify(read_card(path))


def check_content(path: Path, sha256: str) -> None:
    """Compare what was read of a weight file with its card, where it has one: a file of one's own need not.

    Args:
        path: the file.
        sha256: of its bytes, hexadecimal.

    Raises:
        EngineError: it is another than its card tells, or the card is damaged.
    """
    if path.with_suffix(".json").exists():
        file = read_card(path)
        if sha256 != file.card["sha256"]:
            raise _another(file, sha256)


def _another(file: WeightFile, found: str) -> EngineError:
    return EngineError(
        f"{file.path} is damaged or another: its SHA-256 is {found[:12]}…, its card says "
        f"{file.card['sha256'][:12]}…; install, import or export it again"
    )


def write_card(path: Path, card: dict[str, Any]) -> Path:
    """Write a weight file's card beside it, with its SHA-256 and size; returns the card's path."""
    content = path.read_bytes()
    whole = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content), **card}
    target = path.with_suffix(".json")
    target.write_text(json.dumps(whole, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return target


def check_name(out: Path) -> None:
    """See to it that weights are written where they will be found again.

    Raises:
        EngineError: the file's name ends otherwise.
    """
    if out.suffix != ".onnx":
        raise EngineError(f"weights are written to a file that ends in .onnx, not to {out}")


def write_weights(out: Path, content: bytes, card: dict[str, Any]) -> Path:
    """Write a weight file and its card; returns the card's path.

    Raises:
        EngineError: they cannot be written, or would not be found again under that name.
    """
    check_name(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(out) as beside:
            beside.write_bytes(content)
        return write_card(out, card)
    except OSError as error:
        raise EngineError(f"{out} cannot be written: {error.strerror}") from error
