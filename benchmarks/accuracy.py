"""Searchable words in photos: `ocrstream read` next to RapidOCR's own pipeline, photo by photo in the same run.

    python -m benchmarks.accuracy DATA_DIR [--limit N] [--json]

DATA_DIR is a data folder of photos (`training.folders`). The protocol is `training.protocols.SearchableWords`; every
other protocol, and any pair of engines: ``python -m training.evaluate``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.environment import environment
from ocrstream.config import RecognizerSettings
from ocrstream.geometry import Polygon
from ocrstream.models import load_detector, load_recognizer
from ocrstream.picture import Image, Picture
from pipeline.reading import Reader
from training.folders import Photo, read_folder
from training.programs import rapidocr
from training.protocols import SearchableWords, words_of

ReadText = tuple[Polygon, str]
"""A line of an engine's output: where it is and what it says."""

Engine = Callable[[Image], list[ReadText]]


@dataclass(slots=True)
class Score:
    """What one engine found and how long it took, over all photos so far."""

    words: SearchableWords = field(default_factory=SearchableWords)
    times_ms: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """Counts, recall, precision, F and times; the first photo's time is left out, it holds the engines' start."""
        times_ms = self.times_ms[1:] or self.times_ms
        return {
            "labelled": self.words.labelled,
            "found": self.words.found,
            "read": self.words.read,
            **self.words.figures(),
            "p50_ms": round(float(np.percentile(times_ms, 50)), 1),
            "p99_ms": round(float(np.percentile(times_ms, 99)), 1),
            "total_s": round(sum(times_ms) / 1000, 1),
        }


def ocrstream_engine() -> Engine:
    """What `ocrstream read` does, at its default settings."""
    reader = Reader(load_detector("ppocr"), load_recognizer("ppocr"), RecognizerSettings().min_confidence)
    return lambda picture: [(line.polygon, line.text) for line in reader.read([picture])[0]]


def compare(photos: Iterable[Photo], engines: dict[str, Engine]) -> dict[str, Any]:
    """Run two engines on every photo, taking turns at who is first."""
    scores = {name: Score() for name in engines}
    found: dict[str, set[str]] = {name: set() for name in engines}
    order = list(engines)
    for photo in photos:
        picture = Picture.from_encoded(photo.image.read_bytes()).array()
        labels = [region for region in photo.regions if not region.ignore]
        wanted = {word for region in labels for word in words_of(region.text)}
        ignored = [region.quad for region in photo.regions if region.ignore]
        for name in order:
            began = time.perf_counter()
            lines = engines[name](picture)
            scores[name].times_ms.append((time.perf_counter() - began) * 1000)
            here = scores[name].words.add(lines, wanted, ignored)
            found[name] |= {f"{photo.image.name}:{word}" for word in here}
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
    engines = {"ocrstream": ocrstream_engine(), "rapidocr": rapidocr()}
    report = {
        "environment": environment("ocrstream", "rapidocr", "onnxruntime", "opencv-python-headless", "numpy"),
        "photos": options.limit or "all",
        "engines": compare(read_folder(options.data).photos[: options.limit], engines),
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
