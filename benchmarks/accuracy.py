"""Searchable words in photos: `ocrstream read` next to RapidOCR's own pipeline, photo by photo in the same run.

    python -m benchmarks.accuracy DATA_DIR [--limit N] [--json]

DATA_DIR holds ``gt.jsonl``, one line an image: ``{"image", "regions": [{"poly": [[x, y], …], "text", "ignore"}]}``.

The protocol, *searchable words*: words are runs of letters and digits, without regard to case, and those of three or
more count, each once a photo, as in a search. Recall is the share of labelled words that the output of their photo
contains; precision is the share of the output's words that are labelled, those in lines whose middle lies in a
don't-care region left out.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.environment import environment
from ocrstream.config import RecognizerSettings
from ocrstream.geometry import Polygon, to_polygon
from ocrstream.models import load_detector, load_recognizer
from ocrstream.picture import Image, Picture
from pipeline.reading import Reader

MIN_LENGTH = 3

ReadText = tuple[Polygon, str]
"""A line of an engine's output: where it is and what it says."""

Region = NDArray[np.float32]
"""``(N, 2) float32``, x then y, in pixels."""

Engine = Callable[[Image], list[ReadText]]


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo and its labels."""

    path: Path
    words: set[str]
    ignored: list[Region]


@dataclass(slots=True)
class Score:
    """What one engine found and how long it took, over all photos so far."""

    labelled: int = 0
    found: int = 0
    read: int = 0
    right: int = 0
    times_ms: list[float] = field(default_factory=list)

    def add(self, photo: Photo, lines: Sequence[ReadText], time_ms: float) -> set[str]:
        """Count one photo; returns the labelled words that were found in it."""
        found = photo.words & {word for _, text in lines for word in words_of(text)}
        judged = {word for polygon, text in lines if not _is_ignored(polygon, photo) for word in words_of(text)}
        self.labelled += len(photo.words)
        self.found += len(found)
        self.read += len(judged)
        self.right += len(judged & photo.words)
        self.times_ms.append(time_ms)
        return found

    def summary(self) -> dict[str, float]:
        """Recall, precision, F and times; the first photo's time is left out, it holds the engines' start."""
        recall, precision = self.found / max(self.labelled, 1), self.right / max(self.read, 1)
        times_ms = self.times_ms[1:] or self.times_ms
        return {
            "labelled": self.labelled,
            "found": self.found,
            "read": self.read,
            "recall": round(recall, 4),
            "precision": round(precision, 4),
            "f": round(2 * recall * precision / max(recall + precision, 1e-9), 4),
            "p50_ms": round(float(np.percentile(times_ms, 50)), 1),
            "p99_ms": round(float(np.percentile(times_ms, 99)), 1),
            "total_s": round(sum(times_ms) / 1000, 1),
        }


def load_photos(folder: Path, limit: int | None) -> Iterator[Photo]:
    """The photos of a data folder, in the order of its labels."""
    with (folder / "gt.jsonl").open(encoding="utf-8") as labels:
        for _, line in zip(range(limit or sys.maxsize), labels, strict=False):
            entry = json.loads(line)
            texts = [region["text"] for region in entry["regions"] if not region["ignore"]]
            ignored = [np.array(region["poly"], dtype=np.float32) for region in entry["regions"] if region["ignore"]]
            yield Photo(folder / entry["image"], {word for text in texts for word in words_of(text)}, ignored)


def words_of(text: str) -> list[str]:
    """The words that count: lower case, letters and digits only, three or more."""
    return re.findall(f"[0-9a-z]{{{MIN_LENGTH},}}", text.lower())


def _is_ignored(polygon: Polygon, photo: Photo) -> bool:
    middle = (sum(x for x, _ in polygon) / 4, sum(y for _, y in polygon) / 4)
    return any(cv2.pointPolygonTest(region, middle, False) >= 0 for region in photo.ignored)


def ocrstream_engine() -> Engine:
    """What `ocrstream read` does, at its default settings."""
    reader = Reader(load_detector("ppocr"), load_recognizer("ppocr"), RecognizerSettings().min_confidence)
    return lambda picture: [(line.polygon, line.text) for line in reader.read([picture])[0]]


def rapidocr_engine() -> Engine:
    """RapidOCR's own pipeline at its default settings."""
    from rapidocr import RapidOCR

    pipeline: Any = RapidOCR(params={"Global.log_level": "error"})

    def read(picture: Image) -> list[ReadText]:
        output = pipeline(picture)
        if output.boxes is None:
            return []
        return [(to_polygon(box), text) for box, text in zip(output.boxes, output.txts, strict=True)]

    return read


def compare(photos: Iterable[Photo], engines: dict[str, Engine]) -> dict[str, Any]:
    """Run two engines on every photo, taking turns at who is first."""
    scores = {name: Score() for name in engines}
    found: dict[str, set[str]] = {name: set() for name in engines}
    order = list(engines)
    for photo in photos:
        picture = Picture.from_encoded(photo.path.read_bytes()).array()
        for name in order:
            began = time.perf_counter()
            lines = engines[name](picture)
            time_ms = (time.perf_counter() - began) * 1000
            found[name] |= {f"{photo.path.name}:{word}" for word in scores[name].add(photo, lines, time_ms)}
        order.reverse()
    everywhere = set.intersection(*found.values())
    return {name: {**score.summary(), "only_here": sorted(found[name] - everywhere)} for name, score in scores.items()}


def main(arguments: Sequence[str] | None = None) -> None:
    """Compare and report."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("data", type=Path, help="folder with gt.jsonl and the photos")
    parser.add_argument("--limit", type=int, help="only the first N photos")
    parser.add_argument("--json", action="store_true", help="everything as one JSON object")
    options = parser.parse_args(arguments)
    engines = {"ocrstream": ocrstream_engine(), "rapidocr": rapidocr_engine()}
    report = {
        "environment": environment("ocrstream", "rapidocr", "onnxruntime", "opencv-python-headless", "numpy"),
        "photos": options.limit or "all",
        "engines": compare(load_photos(options.data, options.limit), engines),
    }
    print(json.dumps(report, indent=2) if options.json else _as_text(report))


def _as_text(report: dict[str, Any]) -> str:
    names = ("labelled", "found", "read", "recall", "precision", "f", "p50_ms", "p99_ms", "total_s")
    lines = [f"{name}: {value}" for name, value in report["environment"].items()]
    lines += ["", " ".join([f"{'':12}", *(f"{name:>10}" for name in names)])]
    for engine, score in report["engines"].items():
        lines.append(" ".join([f"{engine:12}", *(f"{score[name]:>10}" for name in names)]))
    for engine, score in report["engines"].items():
        lines += ["", f"only {engine} found {len(score['only_here'])} words: {' '.join(score['only_here'])}"]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
