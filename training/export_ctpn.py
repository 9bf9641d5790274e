"""A trained detector as a weight file with its card: ``python -m training.export_ctpn``, see docs/training.md."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ocrstream.errors import EngineError
from ocrstream.models.ctpn.onnx_file import to_onnx
from ocrstream.models.weights import write_card
from training import checkpoints
from training.loop import CHECKPOINT, CURVE

_AVERAGE = "module."


def export(run: Path, out: Path, half: bool = True) -> None:
    """Write the averaged weights of a run's checkpoint, with a card that tells how they came about.

    Args:
        run: the folder that ``python -m training.ctpn --out`` wrote.
        out: the ``.onnx`` file.
        half: store in half precision.

    Raises:
        EngineError: the folder has no whole checkpoint.
    """
    checkpoint = checkpoints.load(run / CHECKPOINT)
    try:
        settings = json.loads((run / "settings.json").read_text(encoding="utf-8"))
        average = checkpoint["task"]["average"]
    except (OSError, ValueError, KeyError) as error:
        raise EngineError(f"{run} is not the folder of a detector's training ({error!r})") from error
    state = {
        name.removeprefix(_AVERAGE): tensor.float().numpy()
        for name, tensor in average.items()
        if name.startswith(_AVERAGE) and tensor.is_floating_point()
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(to_onnx(state, settings["settings"]["profile"], half))
    write_card(out, card(settings, checkpoint["position"], _curve(run)))


def card(settings: dict[str, Any], position: dict[str, Any], curve: list[dict[str, Any]]) -> dict[str, Any]:
    """What a weight file's card says of its training."""
    minutes: dict[int, float] = {}
    for line in curve:
        minutes[line["piece"]] = line["minutes"]
    return {
        "engine": "ctpn",
        "profile": settings["settings"]["profile"],
        "input": "BGR less the ImageNet mean; long side 1600 px at most, short side 384 px or more, padded to 32 px",
        "training": {
            **settings,
            "samples": position["samples"],
            "steps": position["steps"],
            "minutes": round(float(np.sum(list(minutes.values()))), 1),
            "notes": list(dict.fromkeys(line["note"] for line in curve if "note" in line)),
            "curve": _thinned([line for line in curve if "score" in line]),
            "validation": [line for line in curve if any(name.startswith("eval_") for name in line)],
        },
        "scores": {},
    }


def _curve(run: Path) -> list[dict[str, Any]]:
    lines = (run / CURVE).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def _thinned(lines: list[dict[str, Any]], most: int = 40) -> list[dict[str, Any]]:
    """At most so many lines, evenly spread, without their notes."""
    places = np.unique(np.linspace(0, len(lines) - 1, min(most, len(lines)), dtype=int)).tolist() if lines else []
    return [{name: value for name, value in lines[place].items() if name != "note"} for place in places]


def main(arguments: Sequence[str] | None = None) -> None:
    """Export."""
    parser = argparse.ArgumentParser(prog="python -m training.export_ctpn", description=__doc__)
    parser.add_argument("run", type=Path, help="the folder that training wrote")
    parser.add_argument("out", type=Path, help="the .onnx file to write; its card goes beside it")
    parser.add_argument("--single", action="store_true", help="store in single precision, twice as large")
    options = parser.parse_args(arguments)
    export(options.run, options.out, half=not options.single)


if __name__ == "__main__":
    main()
