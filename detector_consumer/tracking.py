"""Follows text lines from frame to frame, so that many sightings become one appearance.

A line of this frame continues the track whose last box it overlaps most; what overlaps none begins a track. A track
that is not seen for `GONE_AFTER_S` seconds of its source's time is over.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ocrstream.geometry import Box, bounding_box, box_iou
from ocrstream.messages import GONE_AFTER_S, FrameInfo, Region

MIN_IOU = 0.3


@dataclass(slots=True)
class _Track:
    track_id: str
    box: Box
    seen_at_ns: int


class Tracker:
    """The tracks of all sources of one process.

    A track's id is the id of the frame it began in and its line number there, so that frames delivered again after a
    restart give the same ids again.
    """

    def __init__(self) -> None:
        self._tracks: dict[tuple[str, int], list[_Track]] = {}

    def follow(self, info: FrameInfo, regions: list[Region]) -> list[Region]:
        """The regions of a frame with their tracks' ids.

        A frame older than one already followed (delivered again, out of order) starts its source's tracks afresh.
        """
        key = (info.key, info.generation)
        tracks = [track for track in self._tracks.get(key, []) if _is_alive(track, info.captured_at_ns)]
        pairs = sorted(
            (
                (box_iou(track.box, bounding_box(region.polygon)), region.line_number, number)
                for number, track in enumerate(tracks)
                for region in regions
            ),
            reverse=True,
        )
        matched: dict[int, _Track] = {}
        taken: set[int] = set()
        for iou, line_number, number in pairs:
            if iou >= MIN_IOU and line_number not in matched and number not in taken:
                matched[line_number] = tracks[number]
                taken.add(number)
        followed = []
        for region in regions:
            box = bounding_box(region.polygon)
            track = matched.get(region.line_number)
            if track is None:
                track = _Track(f"{info.frame_id}-{region.line_number:03d}", box, info.captured_at_ns)
                tracks.append(track)
            track.box, track.seen_at_ns = box, info.captured_at_ns
            followed.append(replace(region, track_id=track.track_id))
        self._tracks[key] = tracks
        return followed


def _is_alive(track: _Track, now_ns: int) -> bool:
    return 0 <= now_ns - track.seen_at_ns <= GONE_AFTER_S * 1e9
