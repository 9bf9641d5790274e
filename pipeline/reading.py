"""Reads single pictures: a detector and a recogniser one after the other, without stages and without a store."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ocrstream.cropping import cut
from ocrstream.geometry import Polygon
from ocrstream.models import Detector, Reading, Recognizer, TextLine
from ocrstream.picture import Image


@dataclass(frozen=True, slots=True)
class ReadLine:
    """One text line of a picture.

    Attributes:
        polygon: four points in the picture's pixels, clockwise from the text's top-left.
        detector_score: how sure the detector is that this is text, 0 to 1.
        text: what it says, never empty.
        confidence: the recogniser's, 0 to 1.
    """

    polygon: Polygon
    detector_score: float
    text: str
    confidence: float


class Reader:
    """A detector and a recogniser as one.

    Args:
        detector: finds the lines.
        recognizer: reads them.
        min_confidence: readings below this are left out, 0 to 1.
    """

    def __init__(self, detector: Detector, recognizer: Recognizer, min_confidence: float = 0.0) -> None:
        self._detector = detector
        self._recognizer = recognizer
        self._min_confidence = min_confidence

    def read(self, pictures: Sequence[Image]) -> list[list[ReadLine]]:
        """The text of each picture, in reading order; the lines of all pictures are read as one batch.

        Args:
            pictures: ``(H, W, 3) uint8 BGR`` each; sizes may differ.
        """
        found = self._detector.detect(pictures)
        crops = [cut(picture, line.polygon) for picture, lines in zip(pictures, found, strict=True) for line in lines]
        readings = iter(self._recognizer.read(crops))
        return [list(self._kept(lines, readings)) for lines in found]

    def _kept(self, lines: Sequence[TextLine], readings: Iterator[Reading]) -> Iterator[ReadLine]:
        for line in lines:
            reading = next(readings)
            if reading.text and reading.confidence >= self._min_confidence:
                yield ReadLine(line.polygon, line.score, reading.text, reading.confidence)
