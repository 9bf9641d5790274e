"""Image files as frames: one image, a folder, or a glob."""

from __future__ import annotations

import datetime
import glob
import io
import logging
import re
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import PIL.ImageOps

from ocrstream.config import ProducerSettings
from ocrstream.errors import MalformedRecordError, SourceError
from ocrstream.messages import Frame, FrameInfo, make_frame_id
from ocrstream.picture import Image, Picture
from producers.fingerprint import fingerprint
from producers.progress import Progress
from producers.resuming import say_place
from producers.sampling import View
from producers.specs import SourceSpec

log = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".jpe", ".png", ".webp", ".bmp", ".tif", ".tiff", ".jp2", ".pgm", ".ppm", ".pnm", ".gif")

_EXIF_IFD, _TAKEN_AT, _TAKEN_OFFSET, _TAKEN_SUBSEC, _ORIENTATION = 0x8769, 0x9003, 0x9011, 0x9291, 0x0112


class ImageFiles:
    """Images in the order a person would put them in: ``2.png`` before ``10.png``.

    A frame's id comes from the image's content and its path inside the folder, its capture time from the camera's note
    in the image, or the file's own time. An image that cannot be read is skipped, counted and named in the log; a
    source that is one image only fails instead.

    Args:
        spec: its name and path.
        settings: which images, and which part of them.
        paths: the images, in order.
        root: the folder that paths are told from in ids.
    """

    live = False
    segment: int | None = None
    start_ms = 0.0
    total_ms: float | None = None

    def __init__(self, spec: SourceSpec, settings: ProducerSettings, paths: Sequence[Path], root: Path) -> None:
        self.source_id = spec.source_id
        self.progress = Progress()
        self._view = View.of(settings)
        self._jpeg_quality = settings.jpeg_quality
        self._root = root
        self._paths = list(paths)[:: settings.every]
        self._is_one_image = len(paths) == 1
        if self._is_one_image:
            self._read(self._paths[0])

    @property
    def total_frames(self) -> int | None:
        """How many images are read."""
        return len(self._paths)

    def frames(
        self,
        stop: threading.Event,
        after: FrameInfo | None = None,
        known: Callable[[str], bool] | None = None,
    ) -> Iterator[Frame]:
        """Yield a frame for each image that is not ``known``; see `Source.frames`.

        Where an earlier run stopped tells nothing: an image may be added before the last one that was read.
        """
        if after is not None and after.media_time_ms is not None:
            say_place(self.source_id, after, None)
        for number, path in enumerate(self._paths, start=1):
            if stop.is_set():
                return
            self.progress.position_frames = number
            try:
                if known is not None and known(self._frame_id(path)):
                    continue
                frame = self._read(path)
            except SourceError as error:
                if self._is_one_image:
                    raise
                log.warning("%s: a damaged image is skipped: %s", self.source_id, error)
                self.progress.count("skipped")
                continue
            yield frame

    def close(self) -> None:
        """There is nothing to let go of."""

    def _frame_id(self, path: Path) -> str:
        try:
            content_id = fingerprint(path)
        except OSError as error:
            raise SourceError(f"{path}: it cannot be read: {error.strerror}") from error
        return make_frame_id(self.source_id, content_id, path.relative_to(self._root).as_posix())

    def _read(self, path: Path) -> Frame:
        frame_id = self._frame_id(path)
        try:
            content, modified_ns = path.read_bytes(), path.stat().st_mtime_ns
        except OSError as error:
            raise SourceError(f"{path}: it cannot be read: {error.strerror}") from error
        if not content:
            raise SourceError(f"{path}: the file is empty")
        try:
            picture, taken_ns = _look(content, self._view, self._jpeg_quality)
            width_px, height_px = picture.size_wh()
        except (MalformedRecordError, SourceError) as error:
            raise SourceError(f"{path}: {error}") from error
        info = FrameInfo(
            source_id=self.source_id,
            frame_id=frame_id,
            captured_at_ns=max(modified_ns if taken_ns is None else taken_ns, 0),
            width_px=width_px,
            height_px=height_px,
            live=False,
            path=str(path),
        )
        return Frame(info, picture)


def find_images(spec: SourceSpec) -> tuple[list[Path], Path] | None:
    """The images that a path stands for, in natural order, and their folder; None where it is no image.

    Folders are searched with their sub-folders; hidden files are left out.

    Raises:
        SourceError: a folder or glob holds no image.
    """
    path = spec.path
    if path.is_dir():
        found = [file for file in path.rglob("*") if not _is_hidden(file.relative_to(path))]
        root, what = path, "the folder and its sub-folders hold"
    elif path.is_file():
        return ([path], path.parent) if path.suffix.lower() in SUFFIXES or _looks_like_image(path) else None
    elif any(character in str(path) for character in "*?["):
        found = [Path(name) for name in glob.glob(str(path), recursive=True)]  # noqa: PTH207 Path.glob needs a root
        root, what = _fixed_part(path), "it matches"
    else:
        return None
    images = sorted((file for file in found if file.suffix.lower() in SUFFIXES and file.is_file()), key=_order)
    if not images:
        others = sum(file.is_file() for file in found)
        hint = f"; the {others} other files: give videos one by one, each as a source" if others else ""
        raise SourceError(f"{spec.shown}: {what} no images ({', '.join(s[1:] for s in SUFFIXES)}){hint}")
    return images, root


def cut_out(image: Image, view: View) -> Image:
    """The part of an ``(H, W, 3) uint8 BGR`` image that a view takes, scaled down as it says.

    Raises:
        SourceError: the region does not lie in the image.
    """
    if view.is_whole:
        return image
    height_px, width_px = image.shape[:2]
    x, y, width, height = view.box(width_px, height_px)
    size_wh = view.output_wh(width_px, height_px)
    part = image[y : y + height, x : x + width]
    if size_wh != (width, height):
        part = cv2.resize(part, size_wh, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
    return np.ascontiguousarray(part)


def _look(content: bytes, view: View, jpeg_quality: int) -> tuple[Picture, int | None]:
    """The picture of a file's bytes, upright and opaque, and when it was taken.

    The bytes stay as they are where every reader sees the same in them. The pixels are decoded in any case: only that
    tells whether the image is whole.
    """
    original = Picture.from_encoded(content)
    original.size_wh()
    with PIL.Image.open(io.BytesIO(content)) as header:
        exif = _exif(header)
        taken_ns = _taken_ns(exif)
        see_through = "transparency" in header.info or header.mode in ("RGBA", "LA", "PA")
        # MPO is what Pillow calls the JPEG of a phone that holds a second picture behind the first.
        plain = header.format in ("JPEG", "MPO", "PNG") and exif.get(_ORIENTATION, 1) == 1 and not see_through
        if see_through:
            array = _on_white(header)
        elif header.format == "GIF":
            array = np.asarray(header.convert("RGB"))[:, :, ::-1].copy()
        else:
            array = original.array()
    if plain and view.is_whole:
        return original, taken_ns
    return Picture.from_array(cut_out(array, view), jpeg_quality), taken_ns


def _exif(header: PIL.Image.Image) -> PIL.Image.Exif:
    """What the camera wrote into the file; nothing where it is damaged, since the picture may be whole."""
    # Pillow decodes a whole PNG to look for it, and cameras write no PNG.
    if header.format == "PNG":
        return PIL.Image.Exif()
    try:
        return header.getexif()
    except (OSError, ValueError, SyntaxError, struct.error):
        return PIL.Image.Exif()


def _on_white(header: PIL.Image.Image) -> Image:
    """A transparent image as it looks on paper: the colour under transparent pixels is often black, like the text."""
    try:
        rgba = PIL.ImageOps.exif_transpose(header).convert("RGBA")
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        raise SourceError(f"the image is damaged: {error}") from error
    white = PIL.Image.new("RGBA", rgba.size, "white")
    return np.asarray(PIL.Image.alpha_composite(white, rgba).convert("RGB"))[:, :, ::-1].copy()


def _taken_ns(exif: PIL.Image.Exif) -> int | None:
    """When a camera says it took the image; local time where it does not tell the offset from UTC."""
    details = exif.get_ifd(_EXIF_IFD)
    told = str(details.get(_TAKEN_AT, ""))
    offset = str(details.get(_TAKEN_OFFSET, "")).strip("\0 ")
    try:
        taken = datetime.datetime.strptime(told.strip("\0 "), "%Y:%m:%d %H:%M:%S")
        if re.fullmatch(r"[+-]\d\d:\d\d", offset):
            taken = datetime.datetime.fromisoformat(taken.isoformat() + offset)
        seconds = int(taken.timestamp())
    except (ValueError, OverflowError):
        return None
    fraction = re.sub(r"\D", "", str(details.get(_TAKEN_SUBSEC, "")))[:9]
    return seconds * 10**9 + int(fraction.ljust(9, "0")) if seconds > 0 else None


def _order(path: Path) -> list[list[tuple[int, int, str]]]:
    """Natural order: digits count as numbers, folder by folder."""
    return [
        [(0, int(piece), piece) if piece.isdecimal() else (1, 0, piece) for piece in re.split(r"(\d+)", part.lower())]
        for part in path.parts
    ]


def _is_hidden(relative: Path) -> bool:
    return any(part.startswith(".") for part in relative.parts)


def _fixed_part(pattern: Path) -> Path:
    """The folders of a glob before its first wildcard."""
    fixed = Path()
    for part in pattern.parts[:-1]:
        if any(character in part for character in "*?["):
            break
        fixed /= part
    return fixed


def _looks_like_image(path: Path) -> bool:
    try:
        with PIL.Image.open(path):
            return True
    except (OSError, ValueError, SyntaxError, PIL.Image.DecompressionBombError):
        return False
