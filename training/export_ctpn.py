"""A trained detector as a weight file with its card: ``python -m training.export_ctpn``, see docs/training.md."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from ocrstream.errors import EngineError, OcrstreamError
from ocrstream.models.ctpn.looking import CLOSER, CLOSEST, FIRST_LOOK_PX, SEEN_AT
from ocrstream.models.ctpn.onnx_file import to_onnx
from ocrstream.models.ctpn.preprocess import resized, to_tensor
from ocrstream.models.ctpn.slices import INPUT_STEP_PX
from ocrstream.models.weights import check_name, read_card, to_path, write_card, write_weights
from training import checkpoints
from training.folders import open_picture, read_folders
from training.initial import start_state
from training.loop import CHECKPOINT, CURVE

_AVERAGE = "module."


def export(run: Path, out: Path, half: bool = True, mean_with: Path | None = None) -> None:
    """Write the averaged weights of a run's checkpoint, with a card that tells how they came about.

    Args:
        run: the folder that ``python -m training.ctpn --out`` wrote.
        out: the ``.onnx`` file.
        half: store in half precision.
        mean_with: a weight file of ours; the mean of its weights and the run's is written.

    Raises:
        EngineError: the folder has no whole checkpoint, or the other file is of another profile.
    """
    state, settings, checkpoint = _average(run, mean_with)
    content = to_onnx(state, settings["settings"]["profile"], half)
    write_weights(out, content, card(settings, checkpoint["position"], _curve(run)))


def quantise(run: Path, out: Path, data: Path, photos: int = 24, mean_with: Path | None = None) -> None:
    """Write the same in 8 bits, for the CPU: half of the size and about half of the time.

    Args:
        run: the folder that ``python -m training.ctpn --out`` wrote.
        out: the ``.onnx`` file.
        data: folders with photos, from which the range of each value is taken.
        photos: how many of them.
        mean_with: as for `export`.
    """
    # A large package's part that nothing else needs.
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    state, settings, checkpoint = _average(run, mean_with)
    with tempfile.TemporaryDirectory() as temporary:
        single, prepared, small = (Path(temporary) / f"{name}.onnx" for name in ("single", "prepared", "small"))
        single.write_bytes(to_onnx(state, settings["settings"]["profile"], half=False, fold=True))
        quant_pre_process(single, prepared, skip_symbolic_shape=True)
        quantize_static(
            prepared,
            small,
            _Calibration(data, photos),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            # Weights of 8 bits beside activations of 8 bits overflow on processors without VNNI: scores were off by up
            # to 5 there. With 7 bits both kinds compute the same.
            reduce_range=True,
            op_types_to_quantize=["Conv", "Add", "Relu", "MaxPool", "Resize"],
            # Its six outputs have ranges of their own, and eight bits for all of them would be too coarse.
            nodes_to_exclude=["head.out"],
        )
        model = onnx.load(small)
    onnx.helper.set_model_props(model, {"profile": settings["settings"]["profile"]})
    told = card(settings, checkpoint["position"], _curve(run))
    told["stored"] = "7 bits a weight, 8 an activation, ranges from photos of the training sets"
    write_weights(out, model.SerializeToString(), told)


class _Calibration:
    """Pictures for the quantiser, one at a time: pieces of training photos."""

    def __init__(self, data: Path, count: int) -> None:
        photos = [photo for folder in read_folders(data) for photo in folder.photos]
        paths = [photos[place].image for place in np.linspace(0, len(photos) - 1, count, dtype=int)]
        # As patches and as first looks show them, in turn.
        self._waiting = zip(paths, cycle(SEEN_AT), strict=False)

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        path, scale = next(self._waiting, (None, 0.0))
        if path is None:
            return None
        return {"pictures": to_tensor(resized(open_picture(path)[:480, :640], scale))}

    def set_range(self, start_index: int, end_index: int) -> None:
        """The quantiser asks for this where it reads in pieces; all is read at once."""


def card(settings: dict[str, Any], position: dict[str, Any], curve: list[dict[str, Any]]) -> dict[str, Any]:
    """What a weight file's card says of its training; what it began from came about as ``before`` tells."""
    minutes: dict[int, float] = {}
    for line in curve:
        minutes[line["piece"]] = line["minutes"]
    before = settings.get("before", [])
    return {
        "engine": "ctpn",
        "profile": settings["settings"]["profile"],
        "input": (
            f"BGR less the ImageNet mean, padded to {INPUT_STEP_PX} px: the whole picture at {FIRST_LOOK_PX} pixels at "
            f"most, and smaller yet; patches of it {CLOSER:g} times as large, at most {CLOSEST:g} times as the picture"
        ),
        "training": {
            **settings,
            "initial": settings.get("initial") or next((part["initial"] for part in before if part.get("initial")), ""),
            "samples": position["samples"],
            "steps": position["steps"],
            "minutes": round(float(np.sum(list(minutes.values()))), 1),
            "notes": list(dict.fromkeys(line["note"] for line in curve if "note" in line)),
            "curve": _thinned([line for line in curve if "score" in line]),
            "validation": [line for line in curve if any(name.startswith("eval_") for name in line)],
        },
        "scores": {},
    }


def add_scores(weights: Path, report: Path) -> None:
    """Write what an evaluation measured into a weight file's card.

    Args:
        weights: the ``.onnx`` file.
        report: what ``python -m training.evaluate --json`` printed.

    Raises:
        EngineError: one of them cannot be read.
    """
    if not weights.exists():
        raise EngineError(f"{weights} is not there yet: write it without --scores first")
    known = read_card(weights).card
    try:
        content = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{report} is not a report of training.evaluate --json ({error})") from error
    scores = {part: content[part] for part in ("data", "photos", "detectors", "pairs") if part in content}
    write_card(weights, {**known, "scores": scores})


def _average(
    run: Path, mean_with: Path | None = None
) -> tuple[dict[str, NDArray[np.float32]], dict[str, Any], dict[str, Any]]:
    """A run's averaged weights, or their mean with others, its settings, and its checkpoint."""
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
    if mean_with:
        other = start_state(mean_with, settings["settings"]["profile"])
        state = {name: ((array + other[name]) / 2).astype(np.float32) for name, array in state.items()}
        settings = {**settings, "mean_with": mean_with.name}
    return state, settings, checkpoint


def _curve(run: Path) -> list[dict[str, Any]]:
    if not (run / CURVE).exists():
        # It was stopped in its first half minute.
        return []
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
    parser.add_argument(
        "--scores",
        type=Path,
        metavar="FILE",
        help="write nothing but these into the card: a report of training.evaluate --json",
    )
    parser.add_argument("--single", action="store_true", help="store in single precision, twice as large")
    parser.add_argument("--int8", type=Path, metavar="DIR", help="store in 8 bits; ranges from the photos in DIR")
    parser.add_argument(
        "--mean-with", metavar="NAME", help="write the mean of the run's weights and these, a file's or a shipped one's"
    )
    options = parser.parse_args(arguments)
    try:
        check_name(options.out)
        other = to_path(options.mean_with) if options.mean_with else None
        if options.scores:
            add_scores(options.out, options.scores)
        elif options.int8:
            quantise(options.run, options.out, options.int8, mean_with=other)
        else:
            export(options.run, options.out, not options.single, other)
    except OcrstreamError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")


if __name__ == "__main__":
    main()
