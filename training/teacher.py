"""Let an engine label what nobody labelled: ``python -m training.teacher --data DIR --out DIR``.

The unlabelled regions of photos (``ignore``), and with ``--detector`` whatever else it finds, are cut and read; what is
read with confidence becomes a folder of training data, ``teacher_NAME/gt.jsonl``, whose images are links to the photos.
They are trained on, never measured on.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from ocrstream.cropping import cut
from ocrstream.errors import UserError
from ocrstream.geometry import Box, to_polygon
from ocrstream.models import Detector, EngineOptions, Recognizer, load_detector, load_recognizer
from training.folders import Folder, Photo, Quad, Region, read_folders

MIN_HEIGHT_PX = 8
"""Lower than this even a good reader guesses."""


def read_unlabelled(
    photo: Photo, recognizer: Recognizer, least: float, detector: Detector | None = None
) -> list[Region]:
    """The photo's unlabelled regions that the recogniser reads with at least this confidence, as labelled ones.

    Args:
        photo: the photo with its regions.
        recognizer: reads them.
        least: the least confidence, 0 to 1.
        detector: finds text that has no region at all, too.
    """
    loaded = cv2.imread(str(photo.image))
    if loaded is None:
        return []
    picture = loaded.astype(np.uint8, copy=False)
    regions = [region for region in photo.regions if region.ignore]
    if detector is not None:
        boxes = [_box(region.quad) for region in photo.regions]
        quads = [np.array(line.polygon, dtype=np.float32) for line in detector.detect([picture])[0]]
        regions += [Region(quad, "", True) for quad in quads if not any(_touch(_box(quad), box) for box in boxes)]
    regions = [region for region in regions if _readable(region)]
    crops = [cut(picture, to_polygon(region.quad)) for region in regions]
    readings = recognizer.read(crops)
    return [
        Region(region.quad, reading.text, False)
        for region, reading in zip(regions, readings, strict=True)
        if reading.text and reading.confidence >= least
    ]


def _box(quad: Quad) -> Box:
    x0, y0 = quad.min(axis=0).tolist()
    x1, y1 = quad.max(axis=0).tolist()
    return x0, y0, x1, y1


def _touch(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def _readable(region: Region) -> bool:
    quad = region.quad
    height, width = math.dist(quad[0], quad[3]), math.dist(quad[0], quad[1])
    return height >= MIN_HEIGHT_PX and width >= 0.5 * height


def label(
    folder: Folder, recognizer: Recognizer, out: Path, least: float, detector: Detector | None = None
) -> Iterator[int]:
    """Write the folder ``teacher_NAME``; yields how many regions each photo gave."""
    target = out / f"teacher_{folder.name}"
    target.mkdir(parents=True, exist_ok=True)
    with (target / "gt.jsonl").open("w", encoding="utf-8") as labels:
        for photo in folder.photos:
            regions = read_unlabelled(photo, recognizer, least, detector)
            if regions:
                link = target / photo.image.name
                link.unlink(missing_ok=True)
                link.symlink_to(photo.image.resolve())
                entries = [{"poly": region.quad.tolist(), "text": region.text, "ignore": False} for region in regions]
                line = {"image": photo.image.name, "regions": entries}
                labels.write(json.dumps(line, ensure_ascii=False) + "\n")
            yield len(regions)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m training.teacher", description="Label unlabelled regions.")
    parser.add_argument("--data", type=Path, required=True, help="folder of training data")
    parser.add_argument("--out", type=Path, required=True, help="folder that the new sets are made in")
    parser.add_argument("--recognizer", default="ppocr", help="engine that reads (default: ppocr)")
    parser.add_argument("--detector", help="engine that finds text without a region; without it only ignored regions")
    parser.add_argument("--confidence", type=float, default=0.9, help="least confidence of a reading that is kept")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        recognizer = load_recognizer(options.recognizer, EngineOptions(threads=options.threads))
        found = options.detector and load_detector(options.detector, EngineOptions(threads=options.threads))
        for folder in read_folders(options.data):
            if folder.photos:
                counts = list(label(folder, recognizer, options.out, options.confidence, found or None))
                print(f"{folder.name}: {sum(counts)} regions of {len(counts)} photos")
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
