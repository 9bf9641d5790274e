"""Making a message fit a transport's size limit: coarser pictures first, smaller ones then."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import cv2

from ocrstream.messages import Crops, DeadLetter, Frame, Message
from ocrstream.picture import Image, Picture, encode_jpeg

STEPS: tuple[tuple[float, int], ...] = (
    (1.0, 80),
    (1.0, 65),
    (1.0, 50),
    (0.75, 60),
    (0.5, 60),
    (0.35, 60),
    (0.25, 50),
    (0.125, 50),
    (0.05, 50),
)
"""(scale, JPEG quality), each smaller than the one before. Text survives quality 50 better than half the size."""

KEPT_TRACEBACK_CHARACTERS = 2000
KEPT_KEY_CHARACTERS = 200


def smaller_versions(message: Message) -> Iterator[Message]:
    """The same message in less and less space; `FrameInfo` keeps the frame's own size, so polygons stay true.

    Raises:
        MalformedRecordError: a picture cannot be decoded.
    """
    if isinstance(message, Frame):
        for scale, quality in STEPS:
            yield Frame(message.info, _smaller(message.picture, scale, quality))
    elif isinstance(message, Crops):
        for scale, quality in STEPS:
            crops = tuple(
                replace(crop, pictures=tuple(_smaller(picture, scale, quality) for picture in crop.pictures))
                for crop in message.crops
            )
            yield replace(message, crops=crops)
    elif isinstance(message, DeadLetter):
        shorter = replace(message, traceback=message.traceback[-KEPT_TRACEBACK_CHARACTERS:])
        yield shorter
        reason = f"{message.reason} (its value of {len(message.record.value)} bytes was too large to be kept)"
        emptied = replace(shorter, reason=reason, record=replace(message.record, value=b""))
        yield emptied
        yield replace(emptied, record=replace(emptied.record, key=message.key[:KEPT_KEY_CHARACTERS], headers={}))


def _smaller(picture: Picture, scale: float, quality: int) -> Picture:
    return Picture.from_encoded(encode_jpeg(_scaled(picture.array(), scale), quality))


def _scaled(array: Image, scale: float) -> Image:
    if scale == 1.0:
        return array
    size_wh = max(round(array.shape[1] * scale), 1), max(round(array.shape[0] * scale), 1)
    return cv2.resize(array, size_wh, interpolation=cv2.INTER_AREA).astype(array.dtype, copy=False)
