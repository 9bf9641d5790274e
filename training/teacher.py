"""Let an engine label what nobody labelled: ``python -m training.teacher --data DIR --out DIR``.

The unlabelled regions of photos (``ignore``), and with ``--detector`` whatever else it finds, are cut and read; what is
read with confidence becomes a folder of training data, ``teacher_NAME/gt.jsonl``, whose images are links to the photos.
They are trained on, never measured on.

With ``--spelling`` labels that give letters and digits only, as many sets do, get the case and the punctuation that
the engine reads, where it reads the same letters and digits. With ``--fonts`` the list of fonts in the cache of a
training is cut down to those that the engine can read: a font of ornaments teaches nothing.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import PIL.Image
from PIL import ImageDraw, ImageFont
from rapidfuzz.distance import Levenshtein

from ocrstream.cropping import cut
from ocrstream.errors import UserError
from ocrstream.geometry import Box, to_polygon
from ocrstream.models import Detector, EngineOptions, Reading, Recognizer, load_detector, load_recognizer
from ocrstream.picture import Image
from training.folders import Folder, Photo, Quad, Region, open_picture, read_folders
from training.synthesis import FONT_LIST
from training.words import protocol

Font = tuple[str, str]
"""A font's path, and the characters that it has."""

_SPECIMENS = ("Hamburgefonstiv", "QUICK FOX JUMPY", "0123456789")

LEGIBLE = 0.8
"""The least share of a specimen's characters that must be read right: script and bold display fonts pass."""

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
    picture = open_picture(photo.image)
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


def spelt(label: str, reading: Reading, least: float) -> str:
    """A label in the spelling of a reading that has the same letters and digits; else as it is."""
    return reading.text if reading.confidence >= least and protocol(reading.text) == protocol(label) else label


def respell(folder: Folder, recognizer: Recognizer, out: Path, least: float) -> int:
    """Write the folder ``spelt_NAME`` with the labelled regions or words anew; returns how many labels changed."""
    target = out / f"spelt_{folder.name}"
    target.mkdir(parents=True, exist_ok=True)
    changed = 0
    if folder.words:
        lines = []
        for word in folder.words:
            text = spelt(word.text, recognizer.read([open_picture(word.image)])[0], least)
            changed += text != word.text
            _link(target, word.image)
            lines.append(f"{word.image.name}\t{text}\n")
        (target / "gt.tsv").write_text("".join(lines), encoding="utf-8")
    else:
        with (target / "gt.jsonl").open("w", encoding="utf-8") as labels:
            for photo in folder.photos:
                picture = open_picture(photo.image)
                regions = [region for region in photo.regions if not region.ignore]
                readings = recognizer.read([cut(picture, to_polygon(region.quad)) for region in regions])
                pairs = zip(regions, readings, strict=True)
                anew = [Region(region.quad, spelt(region.text, reading, least), False) for region, reading in pairs]
                changed += sum(new.text != old.text for new, old in zip(anew, regions, strict=True))
                _link(target, photo.image)
                labels.write(_line(photo, [*anew, *(region for region in photo.regions if region.ignore)]))
    return changed


def legible(fonts: list[Font], recognizer: Recognizer) -> list[Font]:
    """The fonts whose letters and digits the recogniser reads, nearly all of them."""
    kept = []
    for font in fonts:
        drawn = ImageFont.truetype(font[0], 40)
        readings = recognizer.read([_sheet(drawn, text) for text in _SPECIMENS])
        pairs = zip(_SPECIMENS, readings, strict=True)
        right = [Levenshtein.normalized_similarity(protocol(text), protocol(reading.text)) for text, reading in pairs]
        if min(right) >= LEGIBLE:
            kept.append(font)
    return kept


def _sheet(font: ImageFont.FreeTypeFont, text: str) -> Image:
    left, top, right, bottom = font.getbbox(text)
    sheet = PIL.Image.new("RGB", (max(round(right - left) + 20, 32), max(round(bottom - top) + 20, 32)), "white")
    ImageDraw.Draw(sheet).text((10 - left, 10 - top), text, "black", font)
    return np.asarray(sheet)


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
                _link(target, photo.image)
                labels.write(_line(photo, regions))
            yield len(regions)


def _link(folder: Path, image: Path) -> None:
    link = folder / image.name
    link.unlink(missing_ok=True)
    link.symlink_to(image.resolve())


def _line(photo: Photo, regions: Sequence[Region]) -> str:
    entries = [{"poly": region.quad.tolist(), "text": region.text, "ignore": region.ignore} for region in regions]
    return json.dumps({"image": photo.image.name, "regions": entries}, ensure_ascii=False) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m training.teacher", description="Label unlabelled regions.")
    parser.add_argument("--data", type=Path, default=Path(), help="folder of training data")
    parser.add_argument("--out", type=Path, default=Path(), help="folder that the new sets are made in")
    parser.add_argument("--recognizer", default="ppocr", help="engine that reads (default: ppocr)")
    parser.add_argument("--detector", help="engine that finds text without a region; without it only ignored regions")
    parser.add_argument("--confidence", type=float, default=0.9, help="least confidence of a reading that is kept")
    parser.add_argument("--spelling", action="store_true", help="give labels case and punctuation instead")
    parser.add_argument("--fonts", type=Path, metavar="CACHE", help="cut down the fonts of a training's cache instead")
    parser.add_argument("--threads", type=int, default=0)
    options = parser.parse_args(arguments)
    try:
        recognizer = load_recognizer(options.recognizer, EngineOptions(threads=options.threads))
        found = options.detector and load_detector(options.detector, EngineOptions(threads=options.threads))
        if options.fonts:
            listed = options.fonts / FONT_LIST
            found = json.loads(listed.read_text(encoding="utf-8"))
            fonts = [(path, characters) for path, characters in found["fonts"]]
            kept = legible(fonts, recognizer)
            listed.write_text(json.dumps(found | {"fonts": kept}), encoding="utf-8")
            print(f"{len(kept)} of {len(fonts)} fonts are legible")
            return 0
        for folder in read_folders(options.data):
            if options.spelling:
                print(f"{folder.name}: {respell(folder, recognizer, options.out, options.confidence)} labels respelt")
            elif folder.photos:
                counts = list(label(folder, recognizer, options.out, options.confidence, found or None))
                print(f"{folder.name}: {sum(counts)} regions of {len(counts)} photos")
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
