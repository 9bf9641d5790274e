"""Documents and pictures that tests of the readers' side are about: a hall with signs."""

from __future__ import annotations

import numpy as np

from ocrstream.errors import StoreError
from ocrstream.geometry import Polygon, box_polygon
from ocrstream.messages import Appearance, EngineInfo, FrameInfo, Region, Text, Texts, make_frame_id
from ocrstream.picture import encode_jpeg

NOON_NS = 1_767_268_800_000_000_000
"""2026-01-01T12:00:00Z."""

DETECTOR = EngineInfo("ppocr", "0123456789ab")
RECOGNIZER = EngineInfo("crnn", "ba9876543210")


def line(
    number: int,
    text: str,
    confidence: float = 0.9,
    polygon: Polygon | None = None,
    track_id: str | None = None,
) -> Text:
    """A text line; without a polygon it stands in a column at x 100 to 300."""
    y0 = 50.0 + 60 * number
    return Text(Region(number, polygon or box_polygon(100.0, y0, 300.0, y0 + 40), 0.75, track_id), text, confidence)


def frame(
    source_id: str,
    at_s: float,
    *lines: str | Text,
    media: bool = False,
    path: str | None = None,
    generation: int = 1,
    width_px: int = 640,
    height_px: int = 360,
    appearances: tuple[Appearance, ...] = (),
) -> Texts:
    """A frame of a source so many seconds after noon, with its lines in order."""
    at_ns = NOON_NS + round(at_s * 1e9)
    info = FrameInfo(
        source_id=source_id,
        frame_id=make_frame_id(source_id, at_ns),
        captured_at_ns=at_ns,
        width_px=width_px,
        height_px=height_px,
        live=not media and path is None,
        media_time_ms=at_s * 1000 if media else None,
        path=path,
        generation=generation,
    )
    numbered = tuple(line(n, item) if isinstance(item, str) else item for n, item in enumerate(lines))
    return Texts(info, DETECTOR, RECOGNIZER, numbered, appearances)


def appearance(
    text: str,
    first: Texts,
    last: Texts,
    *polygons: Polygon,
    confidence: float = 0.9,
    closed: bool = True,
) -> Appearance:
    """A text that was there from one frame to another, at these places at even distances; else it stands still."""
    starts_ms, ends_ms = (
        info.captured_at_ns / 1e6 if info.media_time_ms is None else info.media_time_ms
        for info in (first.info, last.info)
    )
    places = polygons or (line(0, text).region.polygon,) * 2
    step_ms = (ends_ms - starts_ms) / max(len(places) - 1, 1)
    return Appearance(
        track_id=f"{first.info.frame_id}-{text}",
        source_id=first.info.source_id,
        text=text,
        confidence=confidence,
        first_at_ns=first.info.captured_at_ns,
        last_at_ns=last.info.captured_at_ns,
        first_ms=first.info.media_time_ms,
        last_ms=last.info.media_time_ms,
        best_frame_id=first.info.frame_id,
        readings=3,
        path=tuple((starts_ms + number * step_ms, place) for number, place in enumerate(places)),
        closed=closed,
        generation=first.info.generation,
    )


def picture(width_px: int = 640, height_px: int = 360) -> bytes:
    """A JPEG of grey that gets lighter to the right."""
    shades = np.linspace(60, 180, width_px).astype(np.uint8)
    return encode_jpeg(np.ascontiguousarray(np.broadcast_to(shades[None, :, None], (height_px, width_px, 3))))


class PictureTable:
    """Pictures in memory, by frame id."""

    def __init__(self) -> None:
        self.by_frame: dict[str, bytes] = {}
        self.away: StoreError | None = None

    def get(self, info: FrameInfo) -> bytes | None:
        """The picture of a frame."""
        if self.away:
            raise self.away
        return self.by_frame.get(info.frame_id)
