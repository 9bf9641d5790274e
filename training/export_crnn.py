"""A trained recogniser as a weight file with its card: ``python -m training.export_crnn``, see docs/training.md.

The temperature of its confidences is fitted here, on the validation split. Beside ``NAME.onnx``, from which training
can go on and which a GPU runs, comes ``NAME_int8.onnx`` for the CPU: its convolutions have 8-bit weights and
activations, with ranges from crops of the training split.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from ocrstream.errors import EngineError, UserError
from ocrstream.models import Reading
from ocrstream.models.crnn.charset import LATIN
from ocrstream.models.crnn.decode import greedy_reading
from ocrstream.models.crnn.network import LightCrnn
from ocrstream.models.crnn.onnx_file import LIGHT, Description, store_half, to_onnx
from ocrstream.models.crnn.preprocess import HEIGHT_PX, MIN_WIDTH_PX, WIDTH_STEP_PX, normalise
from ocrstream.models.weights import check_name, find, to_path, write_weights
from training import checkpoints
from training.augmentation import upright
from training.crnn import initial
from training.words import BACKGROUND, Sample, Split, load

_TEMPERATURES = np.geomspace(0.3, 3.0, 40)


def logits_of(network: torch.nn.Module, samples: Sequence[Sample]) -> list[tuple[NDArray[np.float32], str]]:
    """Each sample's logits, read alone in single precision, and its label."""
    found = []
    with torch.inference_mode():
        for sample in samples:
            crop = upright(sample)
            if crop is not None:
                logits = network(torch.from_numpy(normalise(crop))[None, None])[0].numpy()
                found.append((logits, sample.text))
    return found


def right_words(read: str, label: str) -> float:
    """The share of a reading's words that stand at their place in the label."""
    words = read.split()
    expected = label.split()
    return sum(word == other for word, other in zip(words, expected, strict=False)) / max(len(words), 1)


MIN_SAMPLES = 200
"""Of fewer validation samples nobody can tell a temperature: most are right by chance, and all would be called sure."""


def shipped_temperature() -> float:
    """That of the weights that are shipped, for what was trained from them on little data."""
    return float(find("crnn_light").card["calibration"]["temperature"])


def fit_temperature(logits: Sequence[tuple[NDArray[np.float32], str]], charset: str) -> tuple[float, float]:
    """The temperature whose confidences are the likeliest, and the calibration error that is left.

    Returns:
        The temperature, and the expected calibration error over ten bins, 0 to 1.
    """
    best = (np.inf, 1.0, 0.0)
    for temperature in _TEMPERATURES.tolist():
        readings = [greedy_reading(each, charset, temperature) for each, _ in logits]
        right = np.array(
            [right_words(reading.text, label) for reading, (_, label) in zip(readings, logits, strict=True)]
        )
        sure = np.array([reading.confidence for reading in readings]).clip(1e-4, 1 - 1e-4)
        loss = float(-(right * np.log(sure) + (1 - right) * np.log(1 - sure)).mean())
        if loss < best[0]:
            best = (loss, temperature, calibration_error(sure, right))
    return round(best[1], 4), best[2]


def calibration_error(confidences: NDArray[np.float64], right: NDArray[np.float64]) -> float:
    """How far confidence and share of right ones are apart, the mean over ten bins of confidence (Guo et al., 2017)."""
    bins = np.minimum((confidences * 10).astype(int), 9)
    gaps = [abs((confidences[bins == b] - right[bins == b]).mean()) * (bins == b).mean() for b in np.unique(bins)]
    return float(sum(gaps))


def read_back(logits: Sequence[tuple[NDArray[np.float32], str]], charset: str, temperature: float) -> list[Reading]:
    """The readings that the engine would give."""
    return [greedy_reading(each, charset, temperature) for each, _ in logits]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m training.export_crnn", description="Write a weight file.")
    parser.add_argument("--checkpoint", type=Path, required=True, help="checkpoint.pt of a training run")
    parser.add_argument("--data", type=Path, action="append", required=True, help="the training data, for its split")
    parser.add_argument("--cache", type=Path, required=True, help="the folder of cut crops of the training run")
    parser.add_argument("--out", type=Path, required=True, help="the .onnx file to write; its card goes beside it")
    parser.add_argument("--training", type=Path, help="JSON file that tells how it was trained, kept in the card")
    parser.add_argument("--scores", type=Path, help="JSON file of measured scores, kept in the card")
    parser.add_argument(
        "--mean-with",
        action="append",
        default=[],
        metavar="NAME",
        help="write the mean of the run's weights and these, a file's or a shipped one's; repeat it for several",
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        check_name(options.out)
        told, scores = _json(options.training), _json(options.scores)
        kept = checkpoints.load(options.checkpoint)
        others = [to_path(name) for name in options.mean_with]
        network = averaged([initial(options.checkpoint), *map(initial, others)])
        split = load(options.data, LATIN, options.cache)
        calibration = _calibration(logits_of(network, _validation(split)))
        state = {name: tensor.float().numpy() for name, tensor in network.state_dict().items()}
        state = {name: array for name, array in state.items() if not name.endswith("num_batches_tracked")}
        description = Description(LIGHT, LATIN, calibration["temperature"])
        int8 = options.out.with_stem(f"{options.out.stem}_int8")
        quantised = quantise(to_onnx(state, description, half=False), calibration_crops(split))
        card = {
            "engine": "crnn",
            "profile": LIGHT,
            "charset": LATIN,
            "input": f"grey, {HEIGHT_PX} px high, width by its aspect on a grid of {WIDTH_STEP_PX} px, "
            f"at least {MIN_WIDTH_PX} px, (x / 255 - 0.5) / 0.5",
            "calibration": calibration,
            "training": told
            | {"position": kept.get("position", {})}
            | ({"mean_with": [other.name for other in others]} if others else {}),
            "scores": scores,
        }
        whole = card | {"precision": "half, computed in single"}
        print(write_weights(options.out, to_onnx(state, description), whole))
        print(write_weights(int8, quantised, card | {"precision": "convolutions int8", "made_from": options.out.name}))
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


def averaged(networks: Sequence[LightCrnn]) -> LightCrnn:
    """The network whose weights are the mean of several networks'; the first of them, changed."""
    mean = networks[0].eval()
    states = [network.state_dict() for network in networks]
    with torch.no_grad():
        for name, tensor in states[0].items():
            if tensor.is_floating_point():
                tensor.copy_(torch.stack([state[name] for state in states]).mean(dim=0))
    return mean


def _calibration(logits: Sequence[tuple[NDArray[np.float32], str]]) -> dict[str, float]:
    if len(logits) >= MIN_SAMPLES:
        temperature, error = fit_temperature(logits, LATIN)
        return {"temperature": temperature, "expected_error": round(error, 4), "samples": len(logits)}
    temperature = shipped_temperature()
    sys.stderr.write(
        f"{len(logits)} validation samples are too few to fit confidences on ({MIN_SAMPLES} are needed): "
        f"the temperature stays that of crnn_light, {temperature}\n"
    )
    return {"temperature": temperature, "samples": len(logits)}


def quantise(single: bytes, crops: Iterable[NDArray[np.uint8]]) -> bytes:
    """A file of single precision, norms folded, with 8-bit convolutions.

    Args:
        single: the ONNX file.
        crops: what the ranges of the activations are measured on, ``(48, w) uint8``.
    """
    tensors = ({"crops": normalise(crop)[None, None]} for crop in crops)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "single.onnx", Path(folder) / "int8.onnx"
        source.write_bytes(single)
        # It advises what `to_onnx` has done already.
        logging.disable(logging.WARNING)
        try:
            quantize_static(
                source,
                target,
                _Reader(tensors),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "Relu", "MaxPool"],
                nodes_to_exclude=_kept_exact(single),
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                per_channel=True,
                # Ranges of the usual crop: those of the most extreme one leave too few steps for all others.
                extra_options={"CalibMovingAverage": True},
            )
        finally:
            logging.disable(logging.NOTSET)
        return store_half(target.read_bytes())


def _kept_exact(single: bytes) -> list[str]:
    """The convolutions that 8 bits make worse or no faster: the first, those of one channel each, and the weighing."""
    nodes = onnx.load_from_string(single).graph.node
    kept = ("stem.first", ".spatial", ".weighing.")
    return [node.name for node in nodes if node.op_type == "Conv" and any(part in node.name for part in kept)]


class _Reader(CalibrationDataReader):  # type: ignore[misc]
    """The inputs that the ranges are measured on, as ONNX Runtime asks for them."""

    def __init__(self, tensors: Iterator[dict[str, NDArray[np.float32]]]) -> None:
        self._tensors = tensors

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        """The next one; nothing after the last."""
        return next(self._tensors, None)


def calibration_crops(split: Split, each: int = 30) -> Iterator[NDArray[np.uint8]]:
    """A few crops of every set of the training split."""
    chance = np.random.default_rng(1)
    for name, samples in sorted(split.train.items()):
        if name == BACKGROUND:
            continue
        for index in chance.permutation(len(samples))[:each].tolist():
            crop = upright(samples[index])
            if crop is not None:
                yield crop


def _validation(split: Split) -> list[Sample]:
    return [sample for samples in split.validation.values() for sample in samples]


def _json(path: Path | None) -> dict[str, object]:
    if path is None:
        return {}
    try:
        content: dict[str, object] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise EngineError(f"{path} is not a JSON file that can be read ({error})") from error
    return content


if __name__ == "__main__":
    raise SystemExit(main())
