"""The imported original CTPN against the original program's own blobs, proposals, chains and lines."""

from __future__ import annotations

import lzma
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray

from ocrstream.errors import SourceError
from ocrstream.models.ctpn.caffe_file import (
    COMPARABLE,
    Blobs,
    export_caffemodel,
    import_caffemodel,
    read_caffemodel,
    to_onnx,
)
from ocrstream.models.ctpn.original import (
    MEAN_BGR,
    Connection,
    connect,
    decode_proposals,
    find_lines,
    original_to_tensor,
)
from training.folders import open_picture
from training.parity import Check

Arrays = Mapping[str, NDArray[Any]]

BLOB, PROBABILITY, BOX, ROI_PX, LINE_PX = 2e-4, 1e-4, 5e-5, 2e-3, 1e-2
"""What a faithful implementation keeps within."""


def checks(folder: Path) -> Iterator[Check]:
    """Every comparison that the folder's files allow."""
    for path in sorted(folder.glob("postprocess_cases.npz")):
        yield from _cases(_load(path))
    pictures = sorted(folder.glob("*_input.png"))
    models = sorted([*folder.glob("*.caffemodel"), *folder.glob("*.caffemodel.xz")])
    if pictures and not models:
        raise SourceError(f"{folder} has pictures but no .caffemodel to run on them")
    if not models:
        return
    with tempfile.TemporaryDirectory() as temporary:
        blobs, check = _round_trip(models[0], Path(temporary))
    yield check
    session = onnxruntime.InferenceSession(to_onnx(blobs, also=COMPARABLE), providers=["CPUExecutionProvider"])
    for path in pictures:
        name = path.name.removesuffix("_input.png")
        yield from _picture(name, path, session)


def _round_trip(path: Path, folder: Path) -> tuple[Blobs, Check]:
    """The model's blobs, and whether they come through our format and back to Caffe's unchanged."""
    plain = folder / "original.caffemodel"
    plain.write_bytes(lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes())
    blobs = read_caffemodel(plain)
    import_caffemodel(plain, folder / "imported.onnx")
    again = read_caffemodel(export_caffemodel(folder / "imported.onnx", folder / "exported.caffemodel"))
    apart = max(_apart(a, b) for name in blobs for a, b in zip(blobs[name], again[name], strict=True))
    return blobs, Check("import, export, import: weights", apart, 0)


def _picture(name: str, path: Path, session: onnxruntime.InferenceSession) -> Iterator[Check]:
    expected = _load(path.with_name(f"{name}_gpu.npz"))
    tensor, scale = original_to_tensor(open_picture(path))
    yield Check(f"{name}: scale", abs(scale - float(expected["f"])), 0)
    if (resized := cv2.imread(str(path.with_name(f"{name}_resized.png")))) is not None:
        plain = resized.astype(np.float32) - np.array(MEAN_BGR, dtype=np.float32)
        yield Check(f"{name}: input", _apart(tensor[0].transpose(1, 2, 0), plain), 0)
    output, *others = session.run(None, {"pictures": tensor})
    found = dict(zip(COMPARABLE, others, strict=True))
    yield from _blobs(name, path, expected, found)
    input_hw = (tensor.shape[2], tensor.shape[3])
    probability, box = expected["rpn_cls_prob_reshape"], expected["rpn_bbox_pred"]
    yield Check(f"{name}: probabilities", _apart(output[:, :20], probability), PROBABILITY)
    yield Check(f"{name}: box outputs", _apart(output[:, 20:], box), BOX)
    rois, scores = decode_proposals(np.concatenate([probability, box], axis=1)[0], input_hw)
    yield Check(f"{name}: rois", _apart(rois, expected["rois"]), ROI_PX)
    yield Check(f"{name}: scores", _apart(scores, expected["scores"].ravel()), 0)
    yield from _connection(name, expected, input_hw)
    lines = find_lines(output[0], input_hw)
    yield Check(f"{name}: lines end to end, as a set", _apart_as_sets(lines, expected["lines"]), LINE_PX)
    original = expected["lines_original_coords"][:, :4]
    yield Check(f"{name}: in the picture's pixels", _apart_as_sets(lines[:, :4] / scale, original), LINE_PX)


def _blobs(name: str, path: Path, expected: Arrays, found: Arrays) -> Iterator[Check]:
    """Whole blobs where there is a file of them, and probes: a few places of every blob."""
    whole = path.with_name(f"{name}_blobs_gpu.npz")
    if whole.exists():
        for blob, values in _load(whole).items():
            yield Check(f"{name}: {blob}, whole", _apart(found[blob], values), BLOB)
    for blob in found:
        if f"probe_idx/{blob}" not in expected:
            continue
        yield Check(f"{name}: {blob}, shape", float(found[blob].shape != tuple(expected[f"probe_shape/{blob}"])), 0)
        probes = found[blob].reshape(-1)[expected[f"probe_idx/{blob}"]]
        yield Check(f"{name}: {blob}, probes", _apart(probes, expected[f"probe_val/{blob}"]), BLOB)


def _cases(arrays: Arrays) -> Iterator[Check]:
    for case in sorted({name.partition("/")[0] for name in arrays}):
        expected = {name.partition("/")[2]: value for name, value in arrays.items() if name.startswith(f"{case}/")}
        height, width = (int(side) for side in expected["hw"])
        yield from _connection(case, expected, (height, width))


def _connection(name: str, expected: Arrays, input_hw: tuple[int, int]) -> Iterator[Check]:
    """The original's own proposals through our post-processing: every step is to be exact."""
    rois, scores = expected["rois"].astype(np.float32), expected["scores"].ravel().astype(np.float32)
    ours: Connection = connect(rois, scores, input_hw)
    yield Check(f"{name}: proposals", _apart(ours.proposals, expected["conn_proposals"][:, :4]), 0)
    yield Check(f"{name}: stretched scores", _apart(ours.scores, expected["conn_scores"].ravel()), 1e-6)
    lengths = [len(chain) for chain in ours.chains]
    places = [index for chain in ours.chains for index in chain]
    same = lengths == expected["chain_len"].tolist() and places == expected["chain_idx"].tolist()
    yield Check(f"{name}: chains", float(not same), 0)
    yield Check(f"{name}: a line for each chain", _apart(ours.unfiltered, expected["lines_unfiltered"]), LINE_PX)
    yield Check(f"{name}: lines", _apart(ours.lines, expected["lines"]), LINE_PX)


def _apart(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    """The largest difference; infinite where the shapes differ."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float(np.abs(ours.astype(np.float64) - theirs).max(initial=0))


def _apart_as_sets(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    if ours.shape != theirs.shape:
        return float("inf")
    if not len(ours):
        return 0.0
    distances = np.abs(ours[:, None].astype(np.float64) - theirs[None]).max(axis=2)
    return float(max(distances.min(axis=0).max(), distances.min(axis=1).max()))


def _load(path: Path) -> Arrays:
    try:
        with np.load(path) as archive:
            return dict(archive)
    except (OSError, ValueError) as error:
        raise SourceError(f"{path} cannot be read: {error}") from error
