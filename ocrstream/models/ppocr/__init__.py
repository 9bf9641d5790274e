"""The engine ``ppocr``: PP-OCRv6 small, detector and recogniser, as the ``rapidocr`` package ships them.

Only the two ONNX files are RapidOCR's; what happens before and after the networks follows its parameters and is done
here (`preprocess`, `decode`), so that batches, threads and coordinates are this program's own. Nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Sequence

from ocrstream.messages import EngineInfo
from ocrstream.models import NO_MARGIN, EngineOptions, Reading, TextLine
from ocrstream.models.ppocr.decode import decode_lines, decode_reading
from ocrstream.models.ppocr.network import open_network
from ocrstream.models.ppocr.preprocess import crop_to_tensor, picture_to_tensor
from ocrstream.picture import Image

NAME = "ppocr"


class PpocrDetector:
    """Finds text lines, tilted ones too; safe to share between threads.

    Raises:
        EngineError: the weights are missing or damaged, or the device is not ``cpu``.
    """

    def __init__(self, options: EngineOptions) -> None:
        self._network = open_network("PP-OCRv6_det_small.onnx", options)
        self.info = EngineInfo(NAME, self._network.weights)
        # Its polygons are made wider already, see `decode`.
        self.margin = NO_MARGIN

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
        self._network = open_network("PP-OCRv6_rec_small.onnx", options)
        self._charset = (*self._network.metadata("character").splitlines(), " ")
        self.info = EngineInfo(NAME, self._network.weights)

    def read(self, crops: Sequence[Image]) -> list[Reading]:
        """What each crop says, see `ocrstream.models.Recognizer.read`; an empty crop says nothing."""
        readings = [Reading("", 0.0)] * len(crops)
        filled = [index for index, crop in enumerate(crops) if crop.size]
        # Each crop runs alone, at its own width and beside others: padding crops to one width for a batch costs more
        # than a batch gains on a CPU, and would let a reading depend on its neighbours.
        outputs = self._network.run_each(crop_to_tensor(crops[index]) for index in filled)
        for index, output in zip(filled, outputs, strict=True):
            readings[index] = decode_reading(output[0], self._charset)
        return readings
