"""The engine ``ctpn``: this project's own detector, and whatever is imported into its format.

`CtpnDetector` puts looking, network and joining together. On the CPU the network is an ONNX file run by ONNX Runtime;
on a GPU it is the same file's weights in PyTorch (extra ``gpu``). Without ``EngineOptions.weights`` the shipped file is
used, profile ``light``; one that ``ocrstream models import ctpn`` wrote is of the profile ``caffe``: the released
network with its own post-processing, in `original`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ocrstream.geometry import box_polygon, scale_polygon, to_polygon
from ocrstream.messages import EngineInfo
from ocrstream.models import NO_MARGIN, EngineOptions, Margin, TextLine
from ocrstream.models.ctpn.decode import DecodeRule, Words
from ocrstream.models.ctpn.joining import around, join
from ocrstream.models.ctpn.looking import find_words
from ocrstream.models.ctpn.original import find_lines, original_to_tensor
from ocrstream.models.ordering import in_reading_order
from ocrstream.models.session import Network, open_network
from ocrstream.models.weights import to_path
from ocrstream.picture import Image

NAME = "ctpn"
CAFFE = "caffe"
SHIPPED = Path(__file__).parent / "weights" / "ctpn_light.onnx"
SHIPPED_HALF = SHIPPED.with_name("ctpn_light_half.onnx")
"""The same network in 8 bits, for CPUs, and in half precision, for GPUs and to train on from."""

MARGIN = Margin(along=0.1, across=0.15)
"""More words are read right with it: a recogniser misses half of a letter more than it minds some wall."""

Floats = NDArray[np.float32]


class CtpnDetector:
    """Finds text, tilted to 30 degrees and more; safe to share between threads.

    Args:
        options: device, threads, and weights other than the shipped ones.
        rule: thresholds; those the weights were judged with, unless told.
        min_max: with imported weights, whether scores are stretched over each picture as the original does.

    Raises:
        EngineError: the weights are missing or damaged, or the device is not there.
    """

    def __init__(self, options: EngineOptions, *, rule: DecodeRule | None = None, min_max: bool = True) -> None:
        path = to_path(options.weights) if options.weights else SHIPPED if options.device == "cpu" else SHIPPED_HALF
        self._network = open_network(NAME, path, options, _in_torch)
        self._profile = self._network.metadata("profile")
        self._rule = rule or DecodeRule()
        self._min_max = min_max
        self.info = EngineInfo(NAME, self._network.weights)
        self.margin = NO_MARGIN if self._profile == CAFFE else MARGIN

    def detect(self, pictures: Sequence[Image]) -> list[list[TextLine]]:
        """The lines of each picture, see `ocrstream.models.Detector.detect`; an empty picture has none.

        Each with its words, because recognisers read more of them right one by one; imported weights give lines alone,
        as the original does.
        """
        found: list[list[TextLine]] = [[] for _ in pictures]
        filled = [index for index, picture in enumerate(pictures) if picture.size]
        if self._profile == CAFFE:
            originals = [original_to_tensor(pictures[index]) for index in filled]
            outputs = self._network.run_each(tensor for tensor, _ in originals)
            for index, output, (tensor, scale) in zip(filled, outputs, originals, strict=True):
                found[index] = self._original_lines(output[0], tensor.shape, scale)
            return found
        words = find_words(self._network, [pictures[index] for index in filled], self._rule)
        for index, each in zip(filled, words, strict=True):
            height_px, width_px = pictures[index].shape[:2]
            found[index] = _to_lines(each, (width_px, height_px))
        return found

    def _original_lines(self, output: Floats, shape: tuple[int, ...], scale: float) -> list[TextLine]:
        if 1 in shape[2:]:
            # Whatever is found there has no height or no width.
            return []
        lines = find_lines(output, (shape[2], shape[3]), min_max=self._min_max)
        return in_reading_order(
            [
                TextLine(scale_polygon(box_polygon(*box), 1 / scale, 1 / scale), min(score, 1.0))
                for *box, score in lines.tolist()
            ]
        )


def _to_lines(words: Words, size_wh: tuple[int, int]) -> list[TextLine]:
    """Lines with their words; what lies outside the picture, of this width and height, is cut off."""
    points = np.clip(words.quads, 0, size_wh)
    seen = np.ptp(points, axis=1).min(axis=1) >= 1
    words = Words(points[seen], words.scores[seen])
    found = []
    for line in join(words):
        quads = words.quads[line]
        places = tuple(map(to_polygon, quads)) if len(quads) > 1 else ()
        whole = np.clip(around(quads), 0, size_wh)
        found.append(TextLine(to_polygon(whole), float(words.scores[line].mean()), places))
    return in_reading_order(found)


def _in_torch(path: Path, content: bytes, device: str) -> Network:
    from ocrstream.models.ctpn.gpu import TorchNetwork

    return TorchNetwork(path, content, device)
