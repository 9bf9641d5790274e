"""A picture that is encoded or decoded when somebody first needs it, and never twice.

In the embedded mode frames travel as arrays and are encoded only if they are kept; over Kafka they travel encoded and
are decoded once, in the stage that looks at them, and at the size that it needs.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from typing import Self

import cv2
import numpy as np
import PIL.Image
from numpy.typing import NDArray

from ocrstream.errors import MalformedRecordError

Image = NDArray[np.uint8]
"""``(H, W, 3) uint8 BGR in [0, 255]``, OpenCV's own order."""

MAX_SIDE_PX = 16_384
MAX_PIXELS = 100_000_000
"""Beyond these a picture is refused before it is decoded: 300 MB decoded is a mistake or an attack, not a frame."""

JPEG_QUALITY = 90

_JPEG_BEGINS = b"\xff\xd8\xff"
_REDUCED_GREY = {
    2: cv2.IMREAD_REDUCED_GRAYSCALE_2,
    4: cv2.IMREAD_REDUCED_GRAYSCALE_4,
    8: cv2.IMREAD_REDUCED_GRAYSCALE_8,
}

_EXIF_ORIENTATION = 0x0112
_EXIF_FIRST_TURNED = 5
"""Orientations 5 to 8 are the ones on their side."""


class Picture:
    """One image, with its encoded and decoded forms kept as they come up; safe to share between threads."""

    __slots__ = ("_array", "_encoded", "_jpeg_quality", "_lock", "_size_wh")

    def __init__(
        self, *, array: Image | None = None, encoded: bytes | None = None, jpeg_quality: int = JPEG_QUALITY
    ) -> None:
        if array is None and encoded is None:
            raise ValueError("a picture needs an array or encoded bytes")
        self._array = array
        self._encoded = encoded
        self._jpeg_quality = jpeg_quality
        self._size_wh: tuple[int, int] | None = None
        self._lock = threading.Lock()

    @classmethod
    def from_array(cls, array: Image, jpeg_quality: int = JPEG_QUALITY) -> Self:
        """A picture from pixels.

        Args:
            array: ``(H, W, 3) uint8 BGR``; it is shared, not copied, so it must not be written to afterwards.
            jpeg_quality: what it is encoded with, where nobody asks for another.

        Raises:
            ValueError: another shape or type.
        """
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype != np.uint8 or 0 in array.shape:
            raise ValueError(f"expected (H, W, 3) uint8 with H, W > 0, got {array.shape} {array.dtype}")
        return cls(array=array, jpeg_quality=jpeg_quality)

    @classmethod
    def from_encoded(cls, encoded: bytes) -> Self:
        """A picture from a JPEG, PNG, WebP, … file's bytes; they are not looked at before they are needed."""
        return cls(encoded=encoded)

    def array(self) -> Image:
        """The pixels, ``(H, W, 3) uint8 BGR``; do not write to them.

        Raises:
            MalformedRecordError: the bytes are no image, or one beyond the size limits.
        """
        with self._lock:
            if self._array is None:
                assert self._encoded is not None
                self._array = _decode(self._encoded, cv2.IMREAD_COLOR)
            return self._array

    def reduced_grey(self, factor: int) -> NDArray[np.uint8] | None:
        """The grey picture at a whole fraction of its size, where that saves decoding all of it.

        A JPEG's blocks can be decoded to a half, a quarter or an eighth of their side: of 1080p at half the side that
        takes 2.3 ms in place of 10.9.

        Args:
            factor: how many pixels lie side by side in one.

        Returns:
            ``(⌈H / factor⌉, ⌈W / factor⌉) uint8``; None where the pixels are known already, or cannot be had this way.

        Raises:
            MalformedRecordError: the bytes are no image, or one beyond the size limits.
        """
        with self._lock:
            if self._array is not None or self._encoded is None or factor not in _REDUCED_GREY:
                return None
            if not self._encoded.startswith(_JPEG_BEGINS):
                return None
            return _decode(self._encoded, _REDUCED_GREY[factor])

    def encoded(self, quality: int | None = None) -> bytes:
        """The bytes of an image file: those it came with, or a JPEG of this quality (1 to 100) made once."""
        with self._lock:
            if self._encoded is None:
                assert self._array is not None
                self._encoded = encode_jpeg(self._array, self._jpeg_quality if quality is None else quality)
            return self._encoded

    def size_wh(self) -> tuple[int, int]:
        """Width and height in pixels, read from the header where the pixels are not decoded yet.

        Raises:
            MalformedRecordError: the bytes are no image, or one beyond the size limits.
        """
        with self._lock:
            if self._array is not None:
                return self._array.shape[1], self._array.shape[0]
            if self._size_wh is None:
                assert self._encoded is not None
                self._size_wh = _header_size_wh(self._encoded)
            return self._size_wh


def encode_jpeg(array: Image, quality: int = JPEG_QUALITY) -> bytes:
    """JPEG bytes of ``(H, W, 3) uint8 BGR`` pixels at a quality of 1 to 100."""
    ok, data = cv2.imencode(".jpg", array, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not ok:
        raise ValueError(f"cannot encode an image of shape {array.shape} as JPEG (65,500 pixels a side at most)")
    return data.tobytes()


def check_size(width_px: int, height_px: int) -> None:
    """Refuse pictures that no camera makes.

    Raises:
        MalformedRecordError: a side of zero, or more than ``MAX_SIDE_PX`` a side or ``MAX_PIXELS`` in all.
    """
    if width_px < 1 or height_px < 1:
        raise MalformedRecordError(f"the image is empty ({width_px}x{height_px} pixels)")
    if max(width_px, height_px) > MAX_SIDE_PX or width_px * height_px > MAX_PIXELS:
        raise MalformedRecordError(
            f"the image is {width_px}x{height_px} pixels; at most {MAX_SIDE_PX} a side and {MAX_PIXELS // 10**6} "
            "megapixels are read. Scale it down first."
        )


def _header_size_wh(encoded: bytes) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
            with PIL.Image.open(io.BytesIO(encoded)) as header:
                width_px, height_px = header.size
                check_size(width_px, height_px)
                # Where a PNG holds no note, Pillow would decode all of it to look for one behind the pixels.
                noted = header.format != "PNG" or "exif" in header.info
                if noted and header.getexif().get(_EXIF_ORIENTATION, 1) >= _EXIF_FIRST_TURNED:
                    # Decoding turns the picture upright, so its sides change places.
                    width_px, height_px = height_px, width_px
    except PIL.Image.DecompressionBombError as error:
        raise MalformedRecordError(
            f"the image is too large: at most {MAX_SIDE_PX} pixels a side and {MAX_PIXELS // 10**6} megapixels are "
            "read. Scale it down first."
        ) from error
    except PIL.UnidentifiedImageError as error:
        raise MalformedRecordError(f"not an image ({len(encoded)} bytes)") from error
    except (OSError, ValueError, SyntaxError, struct.error) as error:
        raise MalformedRecordError(f"not an image ({len(encoded)} bytes): {error}") from error
    return width_px, height_px


def _decode(encoded: bytes, way: int) -> NDArray[np.uint8]:
    _header_size_wh(encoded)
    array = cv2.imdecode(np.frombuffer(encoded, dtype=np.uint8), way)
    if array is None:
        raise MalformedRecordError(f"the image is damaged ({len(encoded)} bytes): its pixels cannot be decoded")
    return array.astype(np.uint8, copy=False)
