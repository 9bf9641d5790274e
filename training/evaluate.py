"""Judges engines by every protocol that a data folder's labels allow, several side by side in one run.

    python -m training.evaluate --detector NAME … --recognizer NAME … --data DIR [--limit N] [--json]

Of photos (``gt.jsonl``): each detector by ICDAR15's IoU and ICDAR13's DetEval; each pair of a detector and a recogniser
by searchable words, and by IoU once more with its lines cut into words; each recogniser on the words cut out by their
labels. Of crops (``gt.tsv``): each recogniser. ``tesseract`` and ``rapidocr`` are whole programs, where they
are installed: as a ``--detector`` they find and read, as a ``--recognizer`` they read what is cut out. Times are of
this process on this machine, engines in turn.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from ocrstream.config import RecognizerSettings
from ocrstream.cropping import cut
from ocrstream.errors import EngineError, OcrstreamError, SourceError
from ocrstream.geometry import Polygon, to_polygon
from ocrstream.lines import cut_into_words, cut_line, put_together
from ocrstream.models import Detector, EngineOptions, Reading, Recognizer, TextLine, load_detector, load_recognizer
from ocrstream.picture import Image
from training.bounds import check
from training.folders import Photo, Word, open_picture, read_folder
from training.programs import PROGRAMS, READERS, Program, Reader
from training.protocols import DetEval, IcdarIou, Quad, Recognition, SearchableWords, words_of

Given = TypeVar("Given")
Result = TypeVar("Result")

Line = list[tuple[Polygon, str]]
"""The words of a line, each with its place."""


@dataclass(slots=True)
class DetectorScore:
    """A detector's figures."""

    iou: IcdarIou = field(default_factory=IcdarIou)
    deteval: DetEval = field(default_factory=DetEval)
    times_ms: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """All of them by name."""
        return {
            "icdar15_iou": self.iou.figures(),
            "icdar13_deteval": self.deteval.figures(),
            "time": _times(self.times_ms),
        }


@dataclass(slots=True)
class PairScore:
    """A pair's figures, or a whole program's."""

    words: SearchableWords = field(default_factory=SearchableWords)
    word_iou: IcdarIou = field(default_factory=IcdarIou)
    times_ms: list[float] = field(default_factory=list)
    lines: int = 0

    def add(self, photo: Photo, lines: Sequence[Line], time_ms: float) -> None:
        """Count one photo."""
        words = [word for line in lines for word in line]
        labelled = {word for region in photo.regions if not region.ignore for word in words_of(region.text)}
        self.words.add(words, labelled, [region.quad for region in photo.regions if region.ignore])
        self.word_iou.add([_quad(polygon) for polygon, _ in words], *_labels(photo))
        self.times_ms.append(time_ms)
        self.lines += len(lines)

    def figures(self) -> dict[str, Any]:
        """All of them by name."""
        return {
            "searchable_words": self.words.figures(),
            "icdar15_iou_words_read": self.word_iou.figures(),
            "lines_read": self.lines,
            "time": _times(self.times_ms),
        }


@dataclass(slots=True)
class RecognizerScore:
    """A recogniser's figures."""

    words: Recognition = field(default_factory=Recognition)
    times_ms: list[float] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """All of them by name."""
        return {**self.words.figures(), "crops": self.words.crops, "time": _times(self.times_ms)}


@dataclass(frozen=True, slots=True)
class Engines:
    """What is judged, by name."""

    detectors: dict[str, Detector]
    recognizers: dict[str, Recognizer]
    programs: dict[str, Program]


MIN_CONFIDENCE = RecognizerSettings().min_confidence
"""As the recogniser's stage has it by default: readings below are not kept."""


def evaluate(
    engines: Engines,
    data: Path,
    limit: int | None = None,
    min_confidence: float = MIN_CONFIDENCE,
    recall_only: bool = False,
) -> dict[str, Any]:
    """Judge engines on a data folder.

    Args:
        engines: what is judged.
        data: the folder.
        limit: only the first so many photos and crops.
        min_confidence: readings below do not count as read in photos.
        recall_only: the photos' labels do not tell all text, so that precision and F mean nothing.

    Returns:
        ``data``, the folder's name; ``photos``, how many; ``detectors``, ``pairs`` (``DETECTOR + RECOGNIZER``) and
        ``recognizers``, each by name. Parts that nothing was judged for are left out.

    Raises:
        SourceError: the folder has no labels for these engines, or a picture cannot be read.
    """
    folder = read_folder(data)
    report: dict[str, Any] = {"data": folder.name}
    if folder.photos and (engines.detectors or engines.programs):
        report |= _judge_photos(engines, folder.photos[:limit], min_confidence)
    crops = list(_crops(folder.words[:limit], folder.photos[:limit])) if engines.recognizers else []
    if crops:
        report["recognizers"] = _judge_crops(engines.recognizers, crops)
    if recall_only:
        _leave_recall(report)
    if report.keys() == {"data"}:
        raise SourceError(
            f"{data} has no labels for these engines: detectors and programs are judged on photos (gt.jsonl), "
            "recognisers on crops (gt.tsv) too"
        )
    return report


def _leave_recall(report: dict[str, Any]) -> None:
    judged = [*report.get("detectors", {}).values(), *report.get("pairs", {}).values()]
    for protocol in (each for figures in judged for each in figures.values() if isinstance(each, dict)):
        protocol.pop("precision", None)
        protocol.pop("f", None)


def _judge_photos(engines: Engines, photos: Sequence[Photo], min_confidence: float) -> dict[str, Any]:
    detectors = {name: DetectorScore() for name in [*engines.detectors, *engines.programs]}
    pairs = {f"{first} + {second}": PairScore() for first in engines.detectors for second in engines.recognizers}
    pairs |= {name: PairScore() for name in engines.programs}
    order = [*engines.detectors, *engines.programs]
    for photo in photos:
        picture = open_picture(photo.image)
        for name in order:
            if name in engines.programs:
                lines, time_ms = _timed(engines.programs[name], picture)
                quads = [_quad(polygon) for polygon, _ in lines]
                words = [_in_words(picture, polygon, text) for polygon, text in lines]
                pairs[name].add(photo, words, time_ms)
            else:
                detector = engines.detectors[name]
                (found,), time_ms = _timed(detector.detect, [picture])
                # Cutting is part of the way from lines to text, but belongs to neither engine: it is not timed.
                cuts = [cut_line(picture, line.polygon, line.words, detector.margin) for line in found]
                quads = _surest_first(found)
                for second, recognizer in engines.recognizers.items():
                    readings, reading_ms = _timed(recognizer.read, [crop for crops in cuts for crop in crops])
                    pairs[f"{name} + {second}"].add(
                        photo, _read(found, cuts, readings, min_confidence), time_ms + reading_ms
                    )
            score = detectors[name]
            score.iou.add(quads, *_labels(photo))
            score.deteval.add(quads, *_labels(photo))
            score.times_ms.append(time_ms)
        # Who is first finds the caches cold.
        order.reverse()
    return {
        "photos": len(photos),
        "detectors": {name: score.figures() for name, score in detectors.items()},
        "pairs": {name: score.figures() for name, score in pairs.items()},
    }


def _read(
    found: Sequence[TextLine], cuts: Sequence[Sequence[Image]], readings: Sequence[Reading], min_confidence: float
) -> list[Line]:
    lines: list[Line] = []
    following = iter(readings)
    for line, crops in zip(found, cuts, strict=True):
        read = put_together(line.polygon, line.words, crops, [next(following) for _ in crops], min_confidence)
        if read is not None and read.words:
            lines.append([(word.polygon, word.text) for word in read.words])
        elif read is not None:
            lines.append([(line.polygon, read.text)])
    return lines


def _in_words(picture: Image, polygon: Polygon, text: str) -> Line:
    return cut_into_words(cut(picture, polygon), polygon, text)


BATCH = 32
"""Crops given to a recogniser together."""


def _judge_crops(recognizers: dict[str, Recognizer], crops: Sequence[tuple[Image, str]]) -> dict[str, Any]:
    scores = {name: RecognizerScore() for name in recognizers}
    for start in range(0, len(crops), BATCH):
        batch = crops[start : start + BATCH]
        for name, recognizer in recognizers.items():
            readings, time_ms = _timed(recognizer.read, [crop for crop, _ in batch])
            scores[name].times_ms += [time_ms / len(batch)] * len(batch)
            for reading, (_, label) in zip(readings, batch, strict=True):
                scores[name].words.add(reading.text, label)
    return {name: score.figures() for name, score in scores.items()}


def _crops(words: Sequence[Word], photos: Sequence[Photo]) -> Iterator[tuple[Image, str]]:
    for word in words:
        yield open_picture(word.image), word.text
    for photo in photos:
        legible = [region for region in photo.regions if not region.ignore]
        picture = open_picture(photo.image) if legible else None
        for region in legible:
            assert picture is not None
            yield cut(picture, to_polygon(region.quad)), region.text


def _timed(work: Callable[[Given], Result], given: Given) -> tuple[Result, float]:
    began = time.perf_counter()
    result = work(given)
    return result, (time.perf_counter() - began) * 1000


def _times(times_ms: Sequence[float]) -> dict[str, float]:
    # The first holds what an engine does only once.
    counted = times_ms[1:] or times_ms or [0.0]
    p50, p99 = np.percentile(counted, (50, 99))
    return {"p50_ms": round(float(p50), 2), "p99_ms": round(float(p99), 2)}


def _quad(polygon: Polygon) -> Quad:
    return np.array(polygon, dtype=np.float32)


def _surest_first(lines: Sequence[TextLine]) -> list[Quad]:
    surest_first = sorted(lines, key=lambda line: -line.score)
    return [_quad(polygon) for line in surest_first for polygon in line.words or (line.polygon,)]


def _labels(photo: Photo) -> tuple[list[Quad], list[bool]]:
    return [region.quad for region in photo.regions], [region.ignore for region in photo.regions]


def load_engines(detectors: Iterable[str], recognizers: Iterable[str], options: EngineOptions) -> Engines:
    """Load engines by their names; ``NAME:FILE`` loads one with other weights.

    Raises:
        EngineError: one is not there.
    """
    names = list(detectors)
    return Engines(
        {name: load_detector(*_parted(name, options)) for name in names if name not in PROGRAMS},
        {name: Reader(name) if name in READERS else load_recognizer(*_parted(name, options)) for name in recognizers},
        {name: PROGRAMS[name]() for name in names if name in PROGRAMS},
    )


def _parted(name: str, options: EngineOptions) -> tuple[str, EngineOptions]:
    engine, _, weights = name.partition(":")
    return engine, EngineOptions(options.device, options.threads, weights)


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number of 1 or more, not {text!r}")
    return int(text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Judge and report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m training.evaluate", description=__doc__)
    parser.add_argument("--detector", action="append", default=[], metavar="NAME", help="repeat it for several")
    parser.add_argument("--recognizer", action="append", default=[], metavar="NAME", help="repeat it for several")
    parser.add_argument("--data", type=Path, required=True, help="a data folder: gt.jsonl, gt.tsv")
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N photos and crops, 1 or more")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N")
    parser.add_argument("--threads", type=int, default=0, help="inference threads; 0 fits them to the cores")
    parser.add_argument(
        "--min-confidence",
        type=float,
        default=MIN_CONFIDENCE,
        help=f"readings below do not count (default: {MIN_CONFIDENCE})",
    )
    parser.add_argument(
        "--recall-only", action="store_true", help="the photos' labels do not tell all text: no precision, no F"
    )
    parser.add_argument("--json", action="store_true", help="everything as one JSON object")
    options = parser.parse_args(arguments)
    try:
        check(options, threads=(0, 1024), min_confidence=(0, 1))
        if not options.detector and not options.recognizer:
            raise EngineError("nothing to judge: name a --detector, a --recognizer, or both")
        engines = load_engines(options.detector, options.recognizer, EngineOptions(options.device, options.threads))
        report = evaluate(engines, options.data, options.limit, options.min_confidence, options.recall_only)
    except OcrstreamError as error:
        sys.stderr.write(f"training.evaluate: {error}\n")
        return 2
    sys.stdout.write((json.dumps(report, indent=2) if options.json else as_text(report)) + "\n")
    return 0


def as_text(report: dict[str, Any]) -> str:
    """A report for people: one line a figure."""
    lines = [f"{report['data']}: {report['photos']} photos"] if "photos" in report else []
    for part in ("detectors", "pairs", "recognizers"):
        for name, figures in report.get(part, {}).items():
            lines.append(f"{part[:-1]} {name}")
            for protocol, value in figures.items():
                shown = (
                    " ".join(f"{key} {number}" for key, number in value.items()) if isinstance(value, dict) else value
                )
                lines.append(f"  {protocol:28} {shown}")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
