"""Checkpoints on disk: written whole or not at all, read without executing anything, split on request.

    python -m training.checkpoints split build/ctpn/checkpoint.pt parts    # parts/checkpoint.pt.000 and so on
    python -m training.checkpoints join parts/checkpoint.pt.000 checkpoint.pt

Parts are for stores of files that take no larger ones.
"""

from __future__ import annotations

import argparse
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import nn

from ocrstream.errors import EngineError
from ocrstream.files import whole_file

PART_BYTES = 15 * 2**20
"""A part of a split checkpoint: under the 16 MB that many stores of files take."""


def save(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint; a crash while it is written leaves the one before."""
    with whole_file(path) as unfinished:
        torch.save(content, unfinished)


def load(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU; nothing in it is executed.

    Raises:
        EngineError: it is missing, damaged, or no checkpoint of this program.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise EngineError(f"there is no checkpoint {path}") from None
    # A pickle that is none makes the unpickler stumble anywhere.
    except Exception as error:
        # What PyTorch advises of a pickle that it refuses is to execute it.
        told = "" if isinstance(error, UnpicklingError) else str(error)
        reason = told.splitlines()[0] if told else "it is damaged, or none of this program's"
        raise EngineError(f"the checkpoint {path} cannot be read ({reason}); remove it to begin anew") from error
    if not isinstance(content, dict) or "network" not in content:
        raise EngineError(f"{path} is not a checkpoint of this program: it has no entry 'network'")
    return content


def fill(network: nn.Module, tensors: dict[str, torch.Tensor], source: Path) -> None:
    """Put a checkpoint's tensors into a network of the same names and shapes.

    Raises:
        EngineError: a name is missing or too many, or a shape differs.
    """
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        known = network.state_dict()
        odd = [name for name in (*known, *tensors) if name not in known or name not in tensors]
        odd += [name for name, own in known.items() if name in tensors and tensors[name].shape != own.shape]
        raise EngineError(
            f"{source} is of another network: {len(odd)} tensors are missing, too many or of another shape, "
            f"such as {', '.join(odd[:3])}"
        ) from error


def split(path: Path, folder: Path, part_bytes: int = PART_BYTES) -> list[Path]:
    """Cut a file into numbered parts, ``NAME.000`` and so on; further ones of an earlier split are removed.

    Raises:
        EngineError: it is empty.
        OSError: it cannot be read, or a part not be written.
    """
    if not path.stat().st_size:
        raise EngineError(f"{path} is empty")
    folder.mkdir(parents=True, exist_ok=True)
    parts: list[Path] = []
    with path.open("rb") as file:
        while chunk := file.read(part_bytes):
            part = folder / f"{path.name}.{len(parts):03d}"
            part.write_bytes(chunk)
            parts.append(part)
    for number, part in _numbered(folder / path.name).items():
        if number >= len(parts):
            part.unlink()
    return parts


def join(first: Path, path: Path) -> None:
    """Put the parts that `split` made together again; a file that is there already stays where that fails.

    Args:
        first: the part ``NAME.000``.
        path: the checkpoint to write.

    Raises:
        EngineError: there is no such part, one of the others is missing, or together they are no checkpoint.
        OSError: a part cannot be read, or the checkpoint not be written.
    """
    if not first.name.endswith(".000") or not first.exists():
        raise EngineError(f"{first} is not the first part of a split file: its name ends in .000")
    stem = first.with_suffix("")
    parts = _numbered(stem)
    last = max(parts)
    missing = [f"{stem.name}.{number:03d}" for number in range(last) if number not in parts]
    if missing:
        raise EngineError(f"of the parts up to {parts[last]} there is no {', '.join(missing[:3])}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as unfinished:
        with unfinished.open("wb") as file:
            for number in range(last + 1):
                file.write(parts[number].read_bytes())
        try:
            load(unfinished)
            # What reads a checkpoint does not look at its checksums.
            with zipfile.ZipFile(unfinished) as archive:
                is_whole = archive.testzip() is None
        except (EngineError, zipfile.BadZipFile):
            is_whole = False
        if not is_whole:
            raise EngineError(
                f"the parts {first.name} to {parts[last].name} are no whole checkpoint: there may have been a "
                f"{stem.name}.{last + 1:03d}, or one of them is damaged or of another file"
            )


def _numbered(stem: Path) -> dict[int, Path]:
    """The parts of a file that are there, by their number."""
    numbered = re.compile(re.escape(stem.name) + r"\.(\d{3,})")
    found = ((numbered.fullmatch(path.name), path) for path in stem.parent.iterdir())
    return {int(match[1]): path for match, path in found if match}


def main(arguments: Sequence[str] | None = None) -> int:
    """Split or join; returns 0."""
    parser = argparse.ArgumentParser(prog="python -m training.checkpoints", description="Split a checkpoint, or join.")
    parser.add_argument("action", choices=("split", "join"), help="what to do")
    parser.add_argument("source", type=Path, help="the checkpoint, or the first of its parts, NAME.000")
    parser.add_argument("target", type=Path, help="the folder of the parts, or the checkpoint")
    options = parser.parse_args(arguments)
    try:
        if options.action == "join":
            join(options.source, options.target)
        else:
            parts = split(options.source, options.target)
            print(f"{parts[0]} and {len(parts) - 1} more")
    except (EngineError, OSError) as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
