"""What the API and the exports both tell of a frame and of a line, under the same names."""

from __future__ import annotations

from typing import Any

from ocrstream.messages import FrameInfo, Text
from ocrstream.wire import words_to_json
from search.asking import format_time


def frame_fields(info: FrameInfo) -> dict[str, Any]:
    """A frame's identity and origin; times in words and in nanoseconds."""
    return {
        "source": info.source_id,
        "frame_id": info.frame_id,
        "captured_at": format_time(info.captured_at_ns),
        "captured_at_ns": info.captured_at_ns,
        "media_time_ms": info.media_time_ms,
        "path": info.path,
        "width_px": info.width_px,
        "height_px": info.height_px,
        "live": info.live,
        "generation": info.generation,
    }


def line_fields(line: Text) -> dict[str, Any]:
    """A line: where it is and what it says."""
    return {
        "line_number": line.region.line_number,
        "text": line.text,
        "confidence": line.confidence,
        "detector_score": line.region.detector_score,
        "polygon": [list(point) for point in line.region.polygon],
        "track_id": line.region.track_id,
        "words": words_to_json(line.words),
    }
