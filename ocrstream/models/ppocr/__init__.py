"""The engine ``ppocr``: PP-OCRv6 small, detector and recogniser, as the ``rapidocr`` package ships them.

Only the two ONNX files are RapidOCR's; what happens before and after the networks follows its parameters and is done
here (`preprocess`, `decode`), so that batches, threads and coordinates are this program's own. Nothing is downloaded.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence

import numpy as np

from ocrstream.messages import EngineInfo
from ocrstream.models import EngineOptions, Reading, TextLine
from ocrstream.models.ppocr.decode import decode_lines, decode_readings
from ocrstream.models.ppocr.network import Network
from ocrstream.models.ppocr.preprocess import crop_to_tensor, padded_width_px, picture_to_tensor
from ocrstream.picture import Image

NAME = "ppocr"

MAX_BATCH_PX = 1280
"""Crops read in one run of the network, by their widths together: more gains nothing on a CPU and costs memory."""


class PpocrDetector:
    """Finds text lines, tilted ones too; safe to share between threads.

    Raises:
        EngineError: the weights are missing or damaged, or the device is not ``cpu``.
    """

    def __init__(self, options: EngineOptions) -> None:
        self._network = Network("PP-OCRv6_det_small.onnx", options)
        self.info = EngineInfo(NAME, self._network.weights)

    def detect(self, pictures: Sequence[Image]) -> list[list[TextLine]]:
        """The text lines of each picture, see `ocrstream.models.Detector.detect`."""
        return [self._detect(picture) for picture in pictures]

    def _detect(self, picture: Image) -> list[TextLine]:
        tensor, placement = picture_to_tensor(picture)
        return decode_lines(self._network.run(tensor)[0, 0], placement)


class PpocrRecognizer:
    """Reads one text line a crop, with its spaces; safe to share between threads.

    Raises:
        EngineError: the weights are missing or damaged, or the device is not ``cpu``.
    """

    def __init__(self, options: EngineOptions) -> None:
        self._network = Network("PP-OCRv6_rec_small.onnx", options)
        self._charset = (*self._network.metadata("character").splitlines(), " ")
        self.info = EngineInfo(NAME, self._network.weights)

    def read(self, crops: Sequence[Image]) -> list[Reading]:
        """What each crop says, see `ocrstream.models.Recognizer.read`; an empty crop says nothing."""
        readings = [Reading("", 0.0)] * len(crops)
        for batch in _batches([padded_width_px(crop) for crop in crops]):
            tensors = np.concatenate([crop_to_tensor(crops[index]) for index in batch])
            for index, reading in zip(batch, decode_readings(self._network.run(tensors), self._charset), strict=True):
                readings[index] = reading
        return readings


def _batches(widths_px: Sequence[int]) -> Iterator[list[int]]:
    """Indices of crops that run together: only crops of one padded width, so that none depends on its neighbours."""
    by_width: defaultdict[int, list[int]] = defaultdict(list)
    for index, width_px in enumerate(widths_px):
        if width_px:
            by_width[width_px].append(index)
    for width_px, indices in sorted(by_width.items()):
        size = max(1, MAX_BATCH_PX // width_px)
        for start in range(0, len(indices), size):
            yield indices[start : start + size]
