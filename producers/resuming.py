"""What is said where a recording is read under a name that the store or the transport knows already."""

from __future__ import annotations

import logging

from ocrstream.messages import FrameInfo

log = logging.getLogger(__name__)


def say_place(key: str, after: FrameInfo | None, place_ms: float | None) -> None:
    """Tell where a recording goes on, or that what was read under its name was another one.

    Args:
        key: the source's, or its segment's.
        after: the last frame that was read under the name; None where nothing was.
        place_ms: where that frame is in this recording; None where it is not of it.
    """
    if after is None or after.key != key:
        return
    if place_ms is None:
        log.warning(
            "%s: another source was read under this name before, and what is read now is added to it; "
            "to keep them apart give this one another name (NAME=SOURCE)",
            key,
        )
    else:
        log.info(
            "%s: goes on behind what was read before, %.1f s; what lies before stays as it was read: "
            "for other options there give it another name (NAME=FILE)",
            key,
            place_ms / 1000,
        )


def check_size(after: FrameInfo | None, info: FrameInfo) -> None:
    """Warn where the frames of a recording have another size than those an earlier run has read."""
    if after is None or after.key != info.key or after.media_time_ms is None or info.media_time_ms is None:
        return
    before_wh, now_wh = (after.width_px, after.height_px), (info.width_px, info.height_px)
    if before_wh != now_wh:
        log.warning(
            "%s: its frames were %dx%d before and are %dx%d from here on (--resize, --roi): "
            "to read all of it alike give it another name (NAME=FILE)",
            info.key,
            *before_wh,
            *now_wh,
        )
