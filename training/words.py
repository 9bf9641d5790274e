"""Word and line crops out of real photos, cut once with a margin around and kept, so that each visit may cut anew.

Beside the labelled words: lines of several, joined from neighbours, because a text line holds spaces and few sets label
them; and whatever a teacher has read (`training.teacher`).
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.errors import SourceError
from ocrstream.models.crnn.charset import normalise
from training.folders import Folder, Quad, Region, fingerprint, open_picture, read_folders

log = logging.getLogger(__name__)

Grey = NDArray[np.uint8]

MARGIN = 0.35
"""Pixels kept around a crop, as a share of its height: what a detector's looser or shifted box would show."""

STORED_HEIGHT_PX = 64
VALIDATION_SHARE = 0.06
MIN_SIDE_PX = 5

LEARNT_ONLY = ("teacher", "spelt")
"""Sets whose names begin so come from an engine and never validate."""

BACKGROUND = "background"
"""The set of pieces of photos without text, to draw on; their label is empty."""


@dataclass(frozen=True, slots=True)
class Sample:
    """A picture of a text.

    Attributes:
        grey: ``(H, W) uint8``.
        quad: where the text lies in it, ``(4, 2) float32``.
        text: its label, normalised.
    """

    grey: Grey
    quad: Quad
    text: str


@dataclass(frozen=True, slots=True)
class Split:
    """Samples by the set that they come from."""

    train: dict[str, list[Sample]]
    validation: dict[str, list[Sample]]


def load(data: Iterable[Path], charset: str, cache: Path) -> Split:
    """Cut every crop of these folders, or take them from the cache that an earlier call left.

    A photo is in the validation split by a hash of its name, with all its words and lines; teacher-read crops are
    never in it.
    """
    folders = [folder for path in data for folder in read_folders(path)]
    path = cache / f"crops-{_key(folders, charset)}"
    if not path.with_suffix(".json").exists():
        cache.mkdir(parents=True, exist_ok=True)
        left_out = _left_out(folders, frozenset(charset))
        for name, texts in left_out.items():
            log.warning(
                "%d labels of %s have a character that the network does not write, as %r, and are left out",
                len(texts), name, texts[0],
            )  # fmt: skip
        _write(path, _cut_all(folders, frozenset(charset)))
    return _read(path)


def _key(folders: list[Folder], charset: str) -> str:
    """What changes with all that crops are made of."""
    key = hashlib.sha256(repr((charset, MARGIN, STORED_HEIGHT_PX)).encode())
    for folder in folders:
        key.update(folder.name.encode())
        for word in folder.words:
            key.update(repr((fingerprint(word.image), word.text)).encode())
        for photo in folder.photos:
            regions = [(region.quad.tolist(), region.text, region.ignore) for region in photo.regions]
            key.update(repr((fingerprint(photo.image), regions)).encode())
    return key.hexdigest()[:16]


def _left_out(folders: list[Folder], known: frozenset[str]) -> dict[str, list[str]]:
    """The labels that cannot be trained on since they have a character of no charset, by their set."""
    left_out: dict[str, list[str]] = {}
    for folder in folders:
        words = [word.text for word in folder.words]
        words += [region.text for photo in folder.photos for region in photo.regions if not region.ignore]
        for text in words:
            if (label := normalise(text)) and not usable(label, known):
                left_out.setdefault(folder.name, []).append(text)
    return left_out


def _cut_all(folders: list[Folder], known: frozenset[str]) -> Iterator[tuple[str, bool, Sample]]:
    for folder in folders:
        for word in folder.words:
            text = normalise(word.text)
            if usable(text, known):
                grey = _open(word.image)
                height, width = grey.shape
                quad = np.array([(0, 0), (width, 0), (width, height), (0, height)], dtype=np.float32)
                yield folder.name, held_out(word.image.name), shrink(Sample(grey, quad, text))
        for photo in folder.photos:
            grey = _open(photo.image)
            held = held_out(photo.image.name)
            for name, region in _regions(folder.name, photo.regions):
                text = normalise(region.text)
                if usable(text, known) and (sample := cut(grey, region.quad, text)) is not None:
                    yield name, held, sample
            if not held and not folder.name.startswith(LEARNT_ONLY):
                yield from ((BACKGROUND, False, piece) for piece in _backgrounds(grey, photo.regions))


def _regions(name: str, regions: list[Region]) -> Iterator[tuple[str, Region]]:
    yield from ((name, region) for region in regions if not region.ignore)
    # A teacher leaves out what it is not sure of: two of its words may not be neighbours.
    if not name.startswith("teacher"):
        yield from ((f"{name}:lines", region) for region in join_words(regions))


def _backgrounds(grey: Grey, regions: list[Region]) -> Iterator[Sample]:
    """Up to two pieces of 96x288 pixels that no region touches, at places that follow from the photo alone."""
    height, width = 96, 288
    boxes = [(*region.quad.min(axis=0), *region.quad.max(axis=0)) for region in regions]
    places = np.random.default_rng(int(grey[::7, ::7].sum()))
    found = 0
    for _ in range(12):
        if found == 2 or grey.shape[0] < height or grey.shape[1] < width:
            return
        y, x = places.integers(0, (grey.shape[0] - height + 1, grey.shape[1] - width + 1)).tolist()
        if all(x1 < x or x0 > x + width or y1 < y or y0 > y + height for x0, y0, x1, y1 in boxes):
            found += 1
            yield Sample(grey[y : y + height, x : x + width], np.zeros((4, 2), dtype=np.float32), "")


def protocol(text: str) -> str:
    """A text as the usual protocol compares it: lower case, letters a to z and digits only."""
    return "".join(character for character in text.lower() if character.isascii() and character.isalnum())


def usable(text: str, known: frozenset[str]) -> bool:
    """Whether a label can be trained on: not empty, and of the charset."""
    return bool(text) and known.issuperset(text)


def held_out(name: str) -> bool:
    """Whether an image belongs to the validation split."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big") < VALIDATION_SHARE * 2**32


def cut(grey: Grey, quad: Quad, text: str) -> Sample | None:
    """A region straightened, with its margin; nothing where it is too small or stands upright."""
    width = (math.dist(quad[0], quad[1]) + math.dist(quad[3], quad[2])) / 2
    height = (math.dist(quad[0], quad[3]) + math.dist(quad[1], quad[2])) / 2
    if min(width, height) < MIN_SIDE_PX or (len(text) > 2 and height > 1.4 * width):
        return None
    scale = min(1.0, STORED_HEIGHT_PX / height)
    inner_w, inner_h = max(round(width * scale), 2), max(round(height * scale), 2)
    margin = math.ceil(MARGIN * inner_h)
    inner = np.array([(0, 0), (inner_w, 0), (inner_w, inner_h), (0, inner_h)], dtype=np.float32) + margin
    source = quad
    if scale < 0.7:
        # The warp takes single pixels: the picture is made small first.
        grey = cv2.resize(grey, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA).astype(np.uint8)
        source = quad * np.float32(scale)
    size = (inner_w + 2 * margin, inner_h + 2 * margin)
    flags = cv2.INTER_LINEAR
    cropped = cv2.warpPerspective(
        grey, cv2.getPerspectiveTransform(source, inner), size, flags=flags, borderMode=cv2.BORDER_REPLICATE
    )
    return Sample(cropped.astype(np.uint8, copy=False), inner, text)


def shrink(sample: Sample) -> Sample:
    """A sample no higher than is kept."""
    height, width = sample.grey.shape
    scale = STORED_HEIGHT_PX / height
    if scale >= 1:
        return sample
    size = (max(round(width * scale), 2), STORED_HEIGHT_PX)
    grey = cv2.resize(sample.grey, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return Sample(grey, sample.quad * np.float32(scale), sample.text)


def join_words(regions: list[Region]) -> list[Region]:
    """Lines of two to six words: neighbours of like height on one baseline, with nothing between them."""
    words = [region for region in regions if not region.ignore and len(region.text) > 0]
    following: dict[int, int] = {}
    for index, word in enumerate(words):
        candidates = [
            (gap, other)
            for other, candidate in enumerate(words)
            if other != index and (gap := _gap(word.quad, candidate.quad)) is not None
        ]
        if candidates:
            following[index] = min(candidates)[1]
    preceded = set(following.values())
    lines = []
    for start in range(len(words)):
        if start in preceded or start not in following:
            continue
        chain = [start]
        while (after := following.get(chain[-1])) is not None and after not in chain and len(chain) < 6:
            chain.append(after)
        first, last = words[chain[0]].quad, words[chain[-1]].quad
        quad = np.stack([first[0], last[1], last[2], first[3]])
        lines.append(Region(quad, " ".join(words[index].text for index in chain), False))
    return lines


def _gap(left: Quad, right: Quad) -> float | None:
    """The gap from a word to the one at its right as a share of its height; nothing where they are not of one line."""
    top, bottom = left[1], left[2]
    height = float(np.linalg.norm(bottom - top))
    other_height = float(np.linalg.norm(right[3] - right[0]))
    along = (left[1] - left[0] + left[2] - left[3]) / 2
    other_along = (right[1] - right[0] + right[2] - right[3]) / 2
    length, other_length = float(np.linalg.norm(along)), float(np.linalg.norm(other_along))
    if min(height, other_height, length, other_length) < MIN_SIDE_PX:
        return None
    if not 0.7 < other_height / height < 1.4 or float(along @ other_along) / (length * other_length) < 0.985:
        return None
    step = (right[0] + right[3]) / 2 - (top + bottom) / 2
    ahead = float(step @ along) / length / height
    aside = abs(float(step[0] * along[1] - step[1] * along[0])) / length / height
    return ahead if -0.1 < ahead < 0.9 and aside < 0.2 else None


def _open(path: Path) -> Grey:
    return cv2.cvtColor(open_picture(path), cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)


def _write(path: Path, samples: Iterable[tuple[str, bool, Sample]]) -> None:
    """Pixels one after the other in one file, and an index beside it that is written last.

    Raises:
        SourceError: there is no sample.
    """
    index = []
    with path.with_suffix(".raw").open("wb") as file:
        for name, held, sample in samples:
            file.write(sample.grey.tobytes())
            index.append([name, held, sample.text, *sample.grey.shape, *sample.quad.ravel().tolist()])
    if not any(text for _, _, text, *_ in index):
        raise SourceError("no text in the data can be trained on: docs/training.md says what is left out, and why")
    path.with_suffix(".json").write_text(json.dumps(index), encoding="utf-8")


def _read(path: Path) -> Split:
    pixels = np.memmap(path.with_suffix(".raw"), dtype=np.uint8, mode="r")
    split = Split({}, {})
    offset = 0
    for name, held, text, height, width, *quad in json.loads(path.with_suffix(".json").read_text(encoding="utf-8")):
        grey = pixels[offset : offset + height * width].reshape(height, width)
        offset += height * width
        sample = Sample(grey, np.array(quad, dtype=np.float32).reshape(4, 2), text)
        if not held:
            split.train.setdefault(name, []).append(sample)
        elif not name.startswith(LEARNT_ONLY):
            split.validation.setdefault(name, []).append(sample)
    return split
