"""``ocrstream models``: which weights there are, whether they are whole, and other programs' weights into ours."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ocrstream.errors import ConfigError, EngineError
from ocrstream.models.crnn.charset import ORIGINAL
from ocrstream.models.crnn.importing import PYTORCH, TORCH7
from ocrstream.models.crnn.importing import import_weights as import_crnn
from ocrstream.models.weights import WeightFile, find, shipped, to_path, verify, verify_content
from ocrstream.process import Command

LONGEST_LINE = 400
"""Characters of a card's line as it is shown."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """How an engine's weights come in and go out.

    Attributes:
        suffix: of the files that are imported.
        bring: file, target and the command's arguments to the path of the new card.
        format: what it is exported to.
        hand: weight file and target to the path written; nothing where an engine exports nothing.
    """

    suffix: str
    bring: Callable[[Path, Path, argparse.Namespace], Path]
    format: str = ""
    hand: Callable[[Path, Path], Path] | None = None


def _import_ctpn(source: Path, out: Path, options: argparse.Namespace) -> Path:
    del options
    # The packages it needs are no part of the default install.
    from ocrstream.models.ctpn.caffe_file import import_caffemodel

    return import_caffemodel(source, out)


def _export_ctpn(weights: Path, out: Path) -> Path:
    from ocrstream.models.ctpn.caffe_file import export_caffemodel

    return export_caffemodel(weights, out)


EXCHANGES: dict[str, Exchange] = {
    "ctpn": Exchange(".caffemodel", _import_ctpn, "caffemodel", _export_ctpn),
    "crnn": Exchange(
        ".pth",
        lambda source, out, options: import_crnn(source, out, options.charset or ORIGINAL, options.gates or PYTORCH),
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument(
        "action", choices=sorted(_ACTIONS), metavar="ACTION", help=f"what to do: {', '.join(sorted(_ACTIONS))}"
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="`card`, `verify`: weight files by name or path; `import`, `export`: an engine and a file, or its name",
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE",
        help="file that `import` or `export` writes (default: the file's name with another ending; of `import` in "
        "the current folder)",
    )
    parser.add_argument("--format", metavar="NAME", help="what `export` writes: caffemodel")
    parser.add_argument(
        "--charset", metavar="TEXT", help="`import crnn` alone: the characters it writes (default: 0-9a-z)"
    )
    parser.add_argument(
        "--gates",
        choices=(PYTORCH, TORCH7),
        help=f"`import crnn` alone: order of the LSTMs' gates in the file (default: {PYTORCH})",
    )


def run(arguments: argparse.Namespace) -> int:
    """Do what the action says; returns 0."""
    asked = f"{arguments.action} {' '.join(arguments.names[:1])}"
    for flag, for_whom in _FOR_WHOM.items():
        if getattr(arguments, flag) is not None and not asked.startswith(for_whom):
            raise ConfigError(f"--{flag} is for {' and '.join(f'`models {each}`' for each in for_whom)}")
    if arguments.charset == "":
        raise ConfigError("--charset names the characters that the network writes, in its order")
    _ACTIONS[arguments.action](arguments)
    return 0


def _list(arguments: argparse.Namespace) -> None:
    _expect(arguments, 0, "models list takes no names")
    for file in shipped():
        sys.stdout.write(_line(file) + "\n")


def _line(file: WeightFile) -> str:
    card = file.card
    size_mb = card.get("bytes", 0) / 1e6
    engine = f"{card.get('engine', '?')} {card.get('profile', '')}".strip()
    return f"{file.name:<16} {engine:<16} {size_mb:6.1f} MB  {card['sha256'][:12]}"


def _verify(arguments: argparse.Namespace) -> None:
    names = arguments.names or [file.name for file in shipped()]
    wrong = 0
    for name in names:
        try:
            file = find(name)
            sys.stdout.write(f"ok    {file.name:<16} {verify(file)}\n")
        except EngineError as error:
            wrong += 1
            sys.stderr.write(f"ocrstream: {error}\n")
    if wrong:
        raise EngineError(f"{wrong} of {len(names)} weight files cannot be used")


def _card(arguments: argparse.Namespace) -> None:
    _expect(arguments, 1, "models card takes the name of one weight file, see: ocrstream models list")
    file = find(arguments.names[0])
    # The long part last.
    shown = dict(sorted(file.card.items(), key=lambda entry: entry[0] == "training"))
    sys.stdout.write(_as_json(shown) + "\n")
    verify(file)


def _as_json(content: object, indent: str = "") -> str:
    """JSON for people: what holds nothing but numbers and texts stands in one line, as a line of a curve does."""
    is_flat = not isinstance(content, dict | list) or not any(
        isinstance(each, dict | list) for each in (content.values() if isinstance(content, dict) else content)
    )
    if is_flat and len(line := json.dumps(content, ensure_ascii=False)) + len(indent) <= LONGEST_LINE:
        return line
    if not isinstance(content, dict | list):
        return json.dumps(content, ensure_ascii=False)
    deeper = indent + " "
    if isinstance(content, dict):
        parts = [f"{json.dumps(name, ensure_ascii=False)}: {_as_json(each, deeper)}" for name, each in content.items()]
    else:
        parts = [_as_json(each, deeper) for each in content]
    first, last = "{}" if isinstance(content, dict) else "[]"
    inside = f",\n{deeper}".join(parts)
    return f"{first}\n{deeper}{inside}\n{indent}{last}"


def _import(arguments: argparse.Namespace) -> None:
    _expect(arguments, 2, f"models import takes an engine and a file; engines: {', '.join(EXCHANGES)}")
    engine, source = _exchange(arguments.names[0]), Path(arguments.names[1])
    out = _target(arguments.out or Path(f"{source.stem}.onnx"), source)
    card = engine.bring(source, out, arguments)
    sys.stdout.write(f"{out} and its card {card.name} are written.\n")


def _export(arguments: argparse.Namespace) -> None:
    _expect(arguments, 2, "models export takes an engine and a weight file")
    engine, weights = _exchange(arguments.names[0]), to_path(arguments.names[1])
    wanted = arguments.format or engine.format
    if engine.hand is None or wanted != engine.format:
        able = ", ".join(f"{name} as {each.format}" for name, each in EXCHANGES.items() if each.hand)
        raise ConfigError(
            f"{arguments.names[0]} cannot be exported{f' as {wanted}' if wanted else ''}; this can: {able}"
        )
    out = _target(arguments.out or Path(arguments.names[1]).with_suffix(f".{engine.format}"), weights)
    verify_content(weights)
    sys.stdout.write(f"{engine.hand(weights, out)} is written.\n")


def _target(out: Path, source: Path) -> Path:
    if out.resolve() == source.resolve():
        raise ConfigError(f"{out} would be written over itself: name another file with --out")
    return out


def _exchange(name: str) -> Exchange:
    if name not in EXCHANGES:
        raise ConfigError(f"there is no importer for {name!r}: it is one of {', '.join(EXCHANGES)}")
    return EXCHANGES[name]


def _expect(arguments: argparse.Namespace, count: int, sentence: str) -> None:
    if len(arguments.names) != count:
        raise ConfigError(sentence)


_FOR_WHOM = {
    "out": ("import", "export"),
    "format": ("export",),
    "charset": ("import crnn",),
    "gates": ("import crnn",),
}
"""Flags, and which actions, or actions on which engine, they are for."""

_ACTIONS: dict[str, Callable[[argparse.Namespace], None]] = {
    "list": _list,
    "verify": _verify,
    "card": _card,
    "import": _import,
    "export": _export,
}

COMMAND = Command("models", "List, check, describe, import and export weight files.", add_arguments, run)
