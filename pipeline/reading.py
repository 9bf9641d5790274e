"""``ocrstream read``: the text of single pictures, without stages and without a store."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ocrstream.config import ONLY_FOLLOWING, Configuration, DetectorSettings, RecognizerSettings, add_flags
from ocrstream.errors import MalformedRecordError, SourceError
from ocrstream.geometry import Polygon
from ocrstream.lines import cut_line, put_together
from ocrstream.messages import Word
from ocrstream.models import (
    Detector,
    EngineOptions,
    Reading,
    Recognizer,
    TextLine,
    load_detector,
    load_recognizer,
)
from ocrstream.picture import Image, Picture
from ocrstream.process import Command
from ocrstream.wire import words_to_json


@dataclass(frozen=True, slots=True)
class ReadLine:
    """One text line of a picture.

    Attributes:
        polygon: four points in the picture's pixels, clockwise from the text's top-left.
        detector_score: how sure the detector is that this is text, 0 to 1.
        text: what it says, never empty.
        confidence: the recogniser's, 0 to 1.
        characters: the confidence of each of the text's characters, 0 to 1.
        words: the text's words, in their order; empty where it is only one.
    """

    polygon: Polygon
    detector_score: float
    text: str
    confidence: float
    characters: tuple[float, ...] = ()
    words: tuple[Word, ...] = ()


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
        crops = [
            [cut_line(picture, line.polygon, line.words, self._detector.margin) for line in lines]
            for picture, lines in zip(pictures, found, strict=True)
        ]
        readings = iter(self._recognizer.read([crop for frame in crops for line in frame for crop in line]))
        return [list(self._kept(lines, cuts, readings)) for lines, cuts in zip(found, crops, strict=True)]

    def _kept(
        self, lines: Sequence[TextLine], cuts: Sequence[Sequence[Image]], readings: Iterator[Reading]
    ) -> Iterator[ReadLine]:
        for line, crops in zip(lines, cuts, strict=True):
            mine = [next(readings) for _ in crops]
            read = put_together(line.polygon, line.words, crops, mine, self._min_confidence)
            if read is not None:
                yield ReadLine(line.polygon, line.score, read.text, read.confidence, read.characters, read.words)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("pictures", nargs="+", metavar="IMAGE", help="image files; - for standard input")
    parser.add_argument("--json", action="store_true", help="one JSON object a picture, with boxes and confidences")
    add_flags(parser, DetectorSettings, RecognizerSettings, without=ONLY_FOLLOWING)


def run(arguments: argparse.Namespace) -> int:
    """Print the text of pictures; one that cannot be read does not keep the others from it. Returns the exit code."""
    configuration = Configuration(arguments)
    detecting, recognizing = configuration.section(DetectorSettings), configuration.section(RecognizerSettings)
    reader = Reader(
        load_detector(detecting.engine, EngineOptions(detecting.device, detecting.threads, detecting.weights)),
        load_recognizer(
            recognizing.engine, EngineOptions(recognizing.device, recognizing.threads, recognizing.weights)
        ),
        recognizing.min_confidence,
    )
    failed = False
    for name in arguments.pictures:
        try:
            (lines,) = reader.read([_load(name)])
        except SourceError as error:
            sys.stderr.write(f"ocrstream: {error}\n")
            failed = True
            continue
        if len(arguments.pictures) > 1 and not arguments.json:
            sys.stdout.write(f"{name}:\n")
        sys.stdout.write(_as_json(name, lines) if arguments.json else "".join(f"{line.text}\n" for line in lines))
        sys.stdout.flush()
    return 2 if failed else 0


def _load(name: str) -> Image:
    try:
        encoded = sys.stdin.buffer.read() if name == "-" else Path(name).read_bytes()
        return Picture.from_encoded(encoded).array()
    except IsADirectoryError as error:
        raise SourceError(f"{name} is a folder: give image files, or `ocrstream run {name}` for a folder") from error
    except OSError as error:
        raise SourceError(f"{name} cannot be read: {error.strerror}") from error
    except MalformedRecordError as error:
        raise SourceError(f"{name}: {error}") from error


def _as_json(name: str, lines: Sequence[ReadLine]) -> str:
    content = {
        "path": name,
        "lines": [
            {
                "text": line.text,
                "confidence": round(line.confidence, 4),
                "characters": [round(character, 4) for character in line.characters],
                "detector_score": round(line.detector_score, 4),
                "polygon": line.polygon,
                "words": words_to_json(line.words),
            }
            for line in lines
        ],
    }
    return json.dumps(content, ensure_ascii=False) + "\n"


COMMAND = Command("read", "Print the text of pictures; nothing is stored.", add_arguments, run)
