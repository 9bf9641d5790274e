"""What each thing gains that our slices tell and those of the released CTPN do not.

    python -m training.ablation --data DIR [--weights FILE] [--last N]

Each is taken away from the network's output before it is decoded, and the words that come out are judged by ICDAR15's
IoU. The network itself stays as it is: it was trained with all of them, so this tells what the decoding makes of them,
and not what a network would do that was never asked.

========== ==========================================================================================
all        as the engine decodes
no-ends    no slice tells where its text ends: half a slice and `CORE_END` heights beyond the last one
no-slope   no slice tells its text's slope: words lie as a line through their middles does
wide       slices as wide as the original's, 16 px
low        rows of slices 16 px apart: the pyramid's coarse level
========== ==========================================================================================
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.errors import OcrstreamError
from ocrstream.models import EngineOptions
from ocrstream.models.ctpn import CtpnDetector
from ocrstream.models.ctpn.decode import DecodeRule
from ocrstream.models.ctpn.slices import CORE_END, STRIDE_PX, UNIT_PX, to_distance_px
from ocrstream.models.session import Network
from training.folders import Photo, open_picture, read_folder
from training.protocols import IcdarIou

Output = NDArray[np.float32]
"""``(6, h, w) float32``, channels as in `ocrstream.models.ctpn.slices.OUTPUTS`."""

WIDE = 4
"""So many of our slices lie side by side in one of the original's."""

SCORE, TOP, BOTTOM, LEFT, RIGHT, SLOPE = range(6)


def without_ends(output: Output) -> Output:
    """Every slice's ends are those of its component, as far as its slices reach."""
    output = output.copy()
    _, labels = cv2.connectedComponents((output[SCORE] > 0).astype(np.uint8), connectivity=8, ltype=cv2.CV_32S)
    rows, columns = np.nonzero(labels)
    component = np.asarray(labels)[rows, columns]
    count = int(component.max(initial=0)) + 1
    first, last = np.full(count, np.inf), np.full(count, -np.inf)
    np.minimum.at(first, component, columns)
    np.maximum.at(last, component, columns)
    heights = to_distance_px(output[[TOP, BOTTOM]][:, rows, columns]).sum(axis=0)
    height = np.bincount(component, heights, count) / np.maximum(np.bincount(component, minlength=count), 1)
    beyond = (CORE_END * height + STRIDE_PX / 2)[component]
    output[LEFT, rows, columns] = _to_log((columns - first[component]) * STRIDE_PX + beyond)
    output[RIGHT, rows, columns] = _to_log((last[component] - columns) * STRIDE_PX + beyond)
    return output


def with_wide_slices(output: Output) -> Output:
    """One slice of four speaks for all of them."""
    return _shared(output, axis=2, before=LEFT, behind=RIGHT)


def with_low_rows(output: Output) -> Output:
    """One row of four speaks for all of them."""
    return _shared(output, axis=1, before=TOP, behind=BOTTOM)


def _shared(output: Output, axis: int, before: int, behind: int) -> Output:
    length = output.shape[axis]
    spoken_for = np.minimum(np.arange(length) // WIDE * WIDE + WIDE // 2, length - 1)
    shared: Output = np.take(output, spoken_for, axis=axis)
    step_px = (np.arange(length) - spoken_for) * STRIDE_PX
    step_px = step_px[None, :] if axis == 2 else step_px[:, None]
    shared[before] = _to_log(to_distance_px(shared[before]) + step_px)
    shared[behind] = _to_log(to_distance_px(shared[behind]) - step_px)
    return shared


def _to_log(distance_px: NDArray[np.floating]) -> NDArray[np.float32]:
    logs: NDArray[np.float32] = np.log(np.maximum(distance_px, 0.5) / UNIT_PX).astype(np.float32)
    return logs


def without_slope(output: Output) -> Output:
    """No slice leans."""
    output = output.copy()
    output[SLOPE] = 0
    return output


def _as_it_is(output: Output) -> Output:
    return output


TAKEN_AWAY: dict[str, Callable[[Output], Output]] = {
    "all": _as_it_is,
    "no-ends": without_ends,
    "no-slope": without_slope,
    "wide": with_wide_slices,
    "low": with_low_rows,
}


class _Without(CtpnDetector):
    """The engine without something."""

    def __init__(self, weights: str, name: str) -> None:
        # Where slopes are not told, nothing draws a line to them.
        rule = DecodeRule(slope_prior=1e-6) if name == "no-slope" else None
        super().__init__(EngineOptions(weights=weights), rule=rule)
        self._network = _Changed(self._network, TAKEN_AWAY[name])


class _Changed:
    """A network with another output, see `ocrstream.models.session.Network`."""

    def __init__(self, network: Network, change: Callable[[Output], Output]) -> None:
        self._network, self._change = network, change
        self.weights = network.weights

    def metadata(self, key: str) -> str:
        return self._network.metadata(key)

    def run_each(self, tensors: Iterable[Output]) -> Iterator[Output]:
        for output in self._network.run_each(tensors):
            yield self._change(output[0])[None]


def ablate(weights: str, photos: Sequence[Photo]) -> dict[str, dict[str, float]]:
    """The figures by what was taken away.

    Args:
        weights: a weight file of ours; empty for the shipped one.
        photos: with their labels.

    Raises:
        EngineError: the weights cannot be used.
        SourceError: a photo cannot be read.
    """
    protocols = {name: IcdarIou() for name in TAKEN_AWAY}
    detectors = {name: _Without(weights, name) for name in TAKEN_AWAY}
    for photo in photos:
        image = open_picture(photo.image)
        for name, detector in detectors.items():
            (lines,) = detector.detect([image])
            lines = sorted(lines, key=lambda line: -line.score)
            quads = [np.array(word, dtype=np.float32) for line in lines for word in line.words or (line.polygon,)]
            regions = photo.regions
            protocols[name].add(quads, [region.quad for region in regions], [region.ignore for region in regions])
    return {name: protocol.figures() for name, protocol in protocols.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="python -m training.ablation", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="folder with gt.jsonl")
    parser.add_argument("--weights", type=Path, help="weight file of ours (default: the shipped one)")
    parser.add_argument("--last", type=int, metavar="N", help="only the last photos, which training keeps back")
    options = parser.parse_args(arguments)
    try:
        photos = read_folder(options.data).photos
        figures = ablate(str(options.weights or ""), photos[-options.last :] if options.last else photos)
    except OcrstreamError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
