"""The folder formats of training data: photos with regions (``gt.jsonl``), and word crops (``gt.tsv``).

A folder given to training is searched for these files, itself and below; what is found is used.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.errors import SourceError
from ocrstream.picture import Image

log = logging.getLogger(__name__)

Quad = NDArray[np.float32]
"""``(4, 2) float32``, x then y in the picture's pixels, clockwise from the text's top-left."""


FARTHEST_PX = 1e5
"""No picture is so large."""


@dataclass(frozen=True, slots=True)
class Region:
    """One labelled text of a photo; ``ignore`` where it is text that nobody could label."""

    quad: Quad
    text: str
    ignore: bool


@dataclass(frozen=True, slots=True)
class Photo:
    """A photo and its regions."""

    image: Path
    regions: list[Region]


@dataclass(frozen=True, slots=True)
class Word:
    """A crop and its label."""

    image: Path
    text: str


@dataclass(frozen=True, slots=True)
class Folder:
    """One set of data: its folder's name, and its photos or its words."""

    name: str
    photos: list[Photo]
    words: list[Word]


def fingerprint(picture: Path) -> str:
    """What tells a picture from another one of its set, and from itself when it has been changed.

    Raises:
        SourceError: it is missing.
    """
    try:
        status = picture.stat()
    except OSError as error:
        raise SourceError(f"{picture} is not a picture that can be read ({error})") from error
    return f"{picture.name} {status.st_size} {status.st_mtime_ns}"


def open_picture(path: Path) -> Image:
    """A picture in colour.

    Raises:
        SourceError: it is missing, or no picture that can be read.
    """
    # OpenCV says in its own words, and on its own, what it cannot open.
    try:
        decoded = cv2.imdecode(np.fromfile(path, dtype=np.uint8), cv2.IMREAD_COLOR)
    except (OSError, cv2.error) as error:
        raise SourceError(f"{path} is not a picture that can be read ({error})") from error
    if decoded is None:
        raise SourceError(f"{path} is not a picture that can be read")
    return decoded.astype(np.uint8, copy=False)


def read_folders(path: Path) -> list[Folder]:
    """Every set of data at and below a folder, those named ``*_test`` left out.

    Raises:
        SourceError: there is none, or a label file is not as documented.
    """
    _check_there(path)
    folders = []
    passed_over = []
    # A set may be a link to where the data lies.
    below = [
        Path(folder) / name
        for folder, _, names in os.walk(path, followlinks=True)
        for name in ("gt.jsonl", "gt.tsv")
        if name in names
    ]
    for labels in sorted(below):
        if labels.parent.name.endswith("_test"):
            passed_over.append(str(labels.parent))
            continue
        photos = list(_photos(labels)) if labels.suffix == ".jsonl" else []
        words = list(_words(labels)) if labels.suffix == ".tsv" else []
        folders.append(Folder(labels.parent.name, photos, words))
    if not folders and passed_over:
        raise SourceError(f"nothing is trained on what ends in _test, as {', '.join(passed_over[:3])} does")
    if not folders:
        raise SourceError(
            f"no training data below {path}: a set is a folder with a gt.jsonl or a gt.tsv, see docs/training.md"
        )
    return folders


def read_folder(path: Path) -> Folder:
    """One set of data, test sets too.

    Raises:
        SourceError: the folder or both label files are not there, or one is not as documented.
    """
    _check_there(path)
    photos, words = path / "gt.jsonl", path / "gt.tsv"
    if not photos.exists() and not words.exists():
        sets = sorted({labels.parent for name in ("gt.jsonl", "gt.tsv") for labels in path.glob(f"*/{name}")})
        hint = f"name one of the sets in it, as {sets[0]}" if sets else "see docs/training.md"
        raise SourceError(f"{path} has neither a gt.jsonl nor a gt.tsv: {hint}")
    return Folder(
        path.name, list(_photos(photos)) if photos.exists() else [], list(_words(words)) if words.exists() else []
    )


def _check_there(folder: Path) -> None:
    if not folder.is_dir():
        raise SourceError(f"{folder} is {'a file, and no folder' if folder.exists() else 'not there'}")


def _photos(labels: Path) -> Iterator[Photo]:
    flat = 0
    for number, line in _lines(labels):
        try:
            entry = json.loads(line)
            regions = [
                Region(_quad(region["poly"]), str(region["text"]), bool(region.get("ignore", False)))
                for region in entry["regions"]
            ]
            image = str(entry["image"])
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(
                f'{labels}, line {number}: not {{"image", "regions": [{{"poly", "text", "ignore"}}]}} ({error!r})'
            ) from error
        flat += sum(not region.ignore and _is_flat(region.quad) for region in regions)
        regions = [replace(region, ignore=region.ignore or _is_flat(region.quad)) for region in regions]
        yield Photo(labels.parent / image, regions)
    if flat:
        log.warning("%s: %d regions have no area, and nothing is learnt from them", labels, flat)


def _is_flat(quad: Quad) -> bool:
    return cv2.contourArea(quad) <= 0


def _quad(points: list[list[float]]) -> Quad:
    quad = np.asarray(points, dtype=np.float32)
    if quad.shape != (4, 2):
        raise ValueError(f"a poly has four points, this has the shape {quad.shape}")
    # NaN, too, is not below it.
    if not (np.abs(quad) < FARTHEST_PX).all():
        raise ValueError(f"a poly has four points in its picture's pixels, and not {points}")
    return quad


def _words(labels: Path) -> Iterator[Word]:
    for number, line in _lines(labels):
        image, tab, text = line.partition("\t")
        if not tab:
            raise SourceError(f"{labels}, line {number}: not a path, a tab and a text")
        yield Word(labels.parent / image, text)


def _lines(labels: Path) -> Iterator[tuple[int, str]]:
    try:
        with labels.open(encoding="utf-8") as file:
            yield from ((number, line.rstrip("\r\n")) for number, line in enumerate(file, 1) if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{labels} cannot be read: {error}") from error
