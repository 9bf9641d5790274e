"""Labelled photos decoded once into a file that is mapped into memory, so that a crop of one costs a millisecond."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ocrstream.files import whole_file
from ocrstream.picture import Image
from training.folders import Folder, Photo, Region, fingerprint, open_picture


class PhotoCache:
    """The photos of one data folder as arrays; decoded on the first use, into a folder of the caller's.

    Args:
        folder: the data folder; its photos count, its words do not.
        kept_in: where the decoded photos go: ``NAME-DIGEST.bin`` and ``NAME-DIGEST.json``.

    Raises:
        SourceError: a photo cannot be read.
    """

    def __init__(self, folder: Folder, kept_in: Path) -> None:
        self.name = folder.name
        self._photos = folder.photos
        pictures = "\n".join(fingerprint(photo.image) for photo in folder.photos)
        self._stem = kept_in / f"{folder.name}-{hashlib.sha256(pictures.encode()).hexdigest()[:12]}"
        places = self._stem.with_suffix(".json")
        if not places.exists():
            kept_in.mkdir(parents=True, exist_ok=True)
            _decode(folder.photos, self._stem)
        self._places: list[tuple[int, int, int]] = [tuple(place) for place in json.loads(places.read_text("utf-8"))]
        self._pixels: NDArray[np.uint8] = self._mapped()

    def __len__(self) -> int:
        return len(self._photos)

    def __getstate__(self) -> dict[str, Any]:
        # A worker maps the file anew: a mapped array would be sent as a copy.
        return {name: value for name, value in vars(self).items() if name != "_pixels"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._pixels = self._mapped()

    def _mapped(self) -> NDArray[np.uint8]:
        return np.memmap(self._stem.with_suffix(".bin"), dtype=np.uint8, mode="r")

    def photo(self, index: int) -> Image:
        """``(H, W, 3) uint8 BGR``, read-only."""
        start, height, width = self._places[index]
        return self._pixels[start : start + height * width * 3].reshape(height, width, 3)

    def size_hw(self, index: int) -> tuple[int, int]:
        """A photo's height and width, without touching its pixels."""
        _, height, width = self._places[index]
        return height, width

    def regions(self, index: int) -> Sequence[Region]:
        """A photo's labelled texts."""
        return self._photos[index].regions


def _decode(photos: Sequence[Photo], stem: Path) -> None:
    places = []
    start = 0
    with whole_file(stem.with_suffix(".bin")) as unfinished, unfinished.open("wb") as file:
        for photo in _pictures(photos):
            file.write(photo.tobytes())
            places.append((start, photo.shape[0], photo.shape[1]))
            start += photo.size
    stem.with_suffix(".json").write_text(json.dumps(places), encoding="utf-8")


def _pictures(photos: Sequence[Photo]) -> Iterator[Image]:
    for photo in photos:
        yield open_picture(photo.image)
