"""Follows text lines from frame to frame, so that many sightings become one appearance.

Between detections every known line is carried along by its own pixels: `Tracker.advance`, once a frame. When a frame
was looked at by the detector, `Tracker.associate` tells which line is which and takes the places from the detector::

    greys = shrink(picture)
    grey, scale = greys.small, 1 / greys.small_factor
    motion = None if before is None else estimator.estimate(before, grey)  # None is a cut: all tracks end
    known = tracker.advance(key, grey, scale, motion, info.captured_at_ns)
    if gate_wants_the_detector:
        found = tracker.associate(key, info.frame_id, regions, info.captured_at_ns, examined=gate.looked_at)
        # found[n] is the track of regions[n]
        known = tracker.tracks(key)
    shown = [track for track in known if track.is_visible]

A line moves with what its own points agree on. Where they agree on nothing, or on something that does not look like
the line any more (whoever walks in front of it moves, too), it moves with the camera and its own last speed. It stays
known for `GONE_AFTER_S` without being seen, so that it is the same track when it comes out again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detector_consumer import flow
from detector_consumer.covering import Front, bands, most_at_once
from detector_consumer.flow import Grey
from detector_consumer.matching import SAME_PLACE_IOU, Lines, Overlap, match, overlaps
from detector_consumer.motion import Motion
from detector_consumer.pieces import is_bit, is_piece, length_px
from detector_consumer.stepping import SAME_FIT, STILL_FIT, SURE_FIT, VISIBLE_FIT, Step
from detector_consumer.tracks import Followed, Source, Track
from ocrstream.geometry import Polygon, polygon_size_wh, to_polygon
from ocrstream.messages import GONE_AFTER_S, FrameInfo, Region

Key = tuple[str, int]
"""A source (or its segment) and the generation of its frames."""

STRANGER_FIT = 0.25
"""Below this likeness a line that is found nearby is another one."""

MAX_TREMBLE = 0.5
MIN_GAIN = 0.3
"""A place from the detector counts at least so much against where the line was thought to be."""
ALL_OF_IT = 0.97
"""Of what is found so much of a known line long nothing is hidden."""
FADED, LAST_CONTRAST = 0.5, 0.7
"""What has less than this share of its contrast has faded; at each find at most this share of it is let go."""
MISSES, MISSES_IN_SIGHT = 2, 4
"""So many examinations in a row without a find end a line; more while it looks as it did."""
CROWDED = 0.1
"""But where another line that was found shares so much of its place, it may have been a piece of what dissolved."""


class Tracker:
    """The tracks of all sources of one process.

    A track's id is the id of the frame it began in and its line number there, so that frames delivered again after a
    restart give the same ids again. Nothing here outlives its loss: a tracker that knows nothing begins anew.
    """

    def __init__(self) -> None:
        self._sources: dict[Key, Source] = {}

    def copy(self) -> Tracker:
        """One that knows the same and goes its own way from here."""
        other = Tracker()
        other._sources = {
            key: replace(source, tracks=[replace(track) for track in source.tracks])
            for key, source in self._sources.items()
        }
        return other

    def advance(self, key: Key, grey: Grey, scale: float, motion: Motion | None, at_ns: int) -> list[Followed]:
        """Carry a source's tracks on to its next frame.

        Args:
            key: the source.
            grey: the frame's small picture, ``(h, w) uint8``; it is kept, so it must not be written to afterwards.
            scale: how many small pixels a pixel of the frame has along a side.
            motion: the camera's, from the last small picture to this one; None for a cut, which ends all tracks. So
                do a frame that is older than the last one, one of another size, and a gap of `GONE_AFTER_S`.
            at_ns: when the frame was taken.
        """
        source = self._sources.get(key)
        is_next = source is not None and source.grey is not None and source.grey.shape == grey.shape
        if source is None or motion is None or not is_next or not 0 <= at_ns - source.at_ns <= GONE_AFTER_S * 1e9:
            self._sources[key] = Source(at_ns, grey, scale)
            return []
        if source.tracks:
            _move(source, grey, motion, at_ns)
        source.at_ns, source.grey, source.scale = at_ns, grey, scale
        source.let_go()
        return self.tracks(key)

    def tracks(self, key: Key) -> list[Followed]:
        """A source's tracks as of its newest frame, those out of sight too, oldest first."""
        source = self._sources.get(key)
        if source is None:
            return []
        if source.followed is None:
            source.followed = source.told(source.tracks)
        return source.followed

    def associate(
        self,
        key: Key,
        frame_id: str,
        regions: Sequence[Region],
        at_ns: int,
        examined: Callable[[Polygon], bool] = lambda _polygon: True,
    ) -> list[Followed]:
        """Tell which track each detected line of a frame is; lines of no track begin one.

        Args:
            key: the source.
            frame_id: of the frame that `advance` was last called with.
            regions: what the detector found in it.
            at_ns: when it was taken.
            examined: whether the detector has looked at a place, as it may have looked at a part of the frame only.

        Returns:
            One track a region, in their order.
        """
        source = self._sources.get(key)
        if source is None or not 0 <= at_ns - source.at_ns <= GONE_AFTER_S * 1e9:
            source = self._sources[key] = Source(at_ns)
        source.at_ns = at_ns
        source.let_go()
        found = np.array([region.polygon for region in regions], np.float64).reshape(-1, 4, 2)
        known = source.tracks
        pairs = _pairs(found, source)
        wholes = {
            line: track
            for (line, track), pair in sorted(pairs.items())
            if is_piece(found[line], known[track], pair, source)
        }
        # What is known of a piece alone has merged into the whole.
        matched = match({numbers: pair for numbers, pair in pairs.items() if wholes.get(*numbers) == numbers[1]})
        # Where another text has come up in a part of a line, it goes on as that, and what is left is a line by itself.
        line_of = {track: line for line, track in matched.items()}
        wholes = {
            line: track
            for line, track in wholes.items()
            if line_of.get(track, line) in wholes or known[track].front.hides(at_ns)
        }
        merged = {
            track for (line, track), pair in pairs.items() if pair.is_part or is_bit(known[track], found[line], pair)
        }
        crowded = {track for (_, track), pair in pairs.items() if pair.contained >= CROWDED}
        _count_misses(source, set(matched.values()), merged, crowded, examined)
        tracks = []
        news = []
        for number, (region, corners) in enumerate(zip(regions, found, strict=True)):
            if number in wholes:
                track = known[wholes[number]]
            elif number in matched:
                track = known[matched[number]]
                if length_px(corners) >= ALL_OF_IT * length_px(source.in_frame(track.corners)):
                    track.front = track.front.gone()
                if not track.front.hides(at_ns):
                    _correct(track, corners, source)
            else:
                track = Track(f"{frame_id}-{region.line_number:03d}", corners, region.detector_score, at_ns)
                track.torn = source.torn(corners)
                source.tracks.append(track)
            track.is_doubted = False
            if not track.front.hides(at_ns) and _is_to_remember(track, is_piece=number in wholes):
                news.append(track)
            track.score, track.seen_at_ns = region.detector_score, at_ns
            track.misses, track.fit, track.is_visible = 0, 1.0, True
            tracks.append(track)
        _remember(news, source)
        return source.told(tracks)

    def note_speed(self, key: Key, track_id: str, speed_px_s: NDArray[np.float64]) -> None:
        """Take note of how fast a line that has begun moves beside the camera, ``(2,)``."""
        for track in self._sources[key].tracks:
            if track.track_id == track_id:
                track.speed_px_s, track.is_speed_known = speed_px_s, True

    def forget(self, key: Key, is_left_out: Callable[[Polygon], bool]) -> None:
        """End a source's tracks that are of no interest any more, by where they are in its newest frame."""
        source = self._sources.get(key)
        if source is not None:
            source.tracks = [
                track for track in source.tracks if not is_left_out(to_polygon(source.in_frame(track.corners)))
            ]
            source.followed = None

    def follow(self, info: FrameInfo, regions: list[Region]) -> list[Region]:
        """The regions of a frame with their tracks' ids, where nothing is followed between the frames.

        A frame older than one already followed (delivered again, out of order) starts its source's tracks afresh.
        """
        key = (info.key, info.generation)
        tracks = self.associate(key, info.frame_id, regions, info.captured_at_ns, lambda _polygon: False)
        return [replace(region, track_id=track.track_id) for region, track in zip(regions, tracks, strict=True)]


def _move(source: Source, grey: Grey, motion: Motion, at_ns: int) -> None:
    """Carry a source's tracks from its last small picture to the next one."""
    assert source.grey is not None
    tracks, seconds = source.tracks, (at_ns - source.at_ns) / 1e9
    before = np.stack([track.corners for track in tracks]) * source.scale
    own = np.stack([track.speed_px_s for track in tracks]) * (source.scale * seconds)
    reference = flow.stacked(track.reference for track in tracks if track.reference is not None)
    step = Step(source.grey, grey, before, motion, own, reference)
    if not motion.is_still:
        step.let_rest(np.array([track.rests for track in tracks]))
    is_behind = np.array([track.front.hides(at_ns) for track in tracks])
    asked = np.flatnonzero((step.fit < STILL_FIT) & ~step.rests)
    # What comes to hide all of a line takes its points along.
    step.ask_points(asked, least_fit=np.where(is_behind[asked], SURE_FIT, VISIBLE_FIT))
    is_clear = step.see_covered(
        flow.stacked(track.front.clear for track in tracks if track.front.clear is not None),
        np.array([track.front.is_fresh(at_ns) for track in tracks]),
        np.where(is_behind, 1.0, most_at_once(seconds)),
    )
    step.ask_companions(np.array([not track.is_speed_known for track in tracks]))
    step.look_around()
    is_restless = step.is_restless()
    for number, track in enumerate(tracks):
        if not motion.is_still:
            track.rests = bool(step.rests[number])
        # What begins to hide a line drags some of its points along, which is no speed to go on with.
        is_sure = bool(step.fit[number] >= SURE_FIT)
        if step.is_led[number] and seconds > 0 and (is_sure or not track.is_speed_known):
            went = step.own()[number] / (source.scale * seconds)
            track.speed_px_s = (track.speed_px_s + went) / 2 if track.is_speed_known else went
        track.is_speed_known |= is_sure or bool(step.is_led[number])
        corners = step.now[number] / source.scale
        track.moved_px = float(np.linalg.norm((corners - track.corners).mean(axis=0)))
        track.corners, track.fit = corners, float(step.fit[number])
        track.is_restless = bool(is_restless[number])
        if step.is_covered[number]:
            track.front = track.front.come(at_ns)
        elif is_clear[number] or track.fit >= SAME_FIT:
            track.front = track.front.after_clear(grey, step.now[[number]], at_ns)
        # What the detector has just missed, or something was in front of, has to look like itself to count as there.
        is_doubtful = track.misses or (track.front.hides(at_ns) and not step.is_covered[number])
        track.is_visible = track.fit >= (SURE_FIT if is_doubtful else VISIBLE_FIT)
        if track.is_visible:
            track.seen_at_ns = at_ns


def _pairs(found: Lines, source: Source) -> dict[tuple[int, int], Overlap]:
    """What was found that can be what was known, by their numbers."""
    if not source.tracks or not len(found):
        return {}
    shown = source.in_frame(np.stack([track.corners for track in source.tracks]))
    return {
        (line, number): pair
        for (line, number), pair in overlaps(found, shown).items()
        # What is nearby and looks unlike all that was known there is another line; a text can change in its place.
        if source.tracks[number].fit >= STRANGER_FIT
        or pair.iou >= SAME_PLACE_IOU
        or source.tracks[number].front.hides(source.at_ns)
    }


def _correct(track: Track, found: NDArray[np.float64], source: Source) -> None:
    """Take a line's place from the detector, as far as it is news."""
    track.finds += 1
    shown = source.in_frame(track.corners)
    off = found - shown
    far_px = np.linalg.norm(off, axis=1).max()
    # The detector's places tremble by a share of the height; what is further off grew, or was split or merged.
    if far_px > MAX_TREMBLE * polygon_size_wh(to_polygon(found))[1]:
        track.corners, track.torn, track.reference = found, source.torn(found), None
        return
    track.torn = track.torn.and_then(source.torn(found))
    # Where the frame cuts a line off, the detector does not know how it goes on.
    is_seen = np.abs(shown - track.corners).max(axis=1) < 1
    gain = max(MIN_GAIN, 1 / track.finds)
    track.corners = track.corners + gain * (off if is_seen.all() else off[is_seen].mean(axis=0) if is_seen.any() else 0)


def _count_misses(
    source: Source, seen: set[int], merged: set[int], crowded: set[int], examined: Callable[[Polygon], bool]
) -> None:
    """End the tracks that should have been found and were not, and those that have merged into others.

    Args:
        source: theirs.
        seen: the numbers of those that were found.
        merged: of those of which something larger was found.
        crowded: of those in whose place something was found.
        examined: whether the detector has looked at a place.
    """
    kept = []
    for number, track in enumerate(source.tracks):
        if number not in seen and examined(to_polygon(source.in_frame(track.corners))):
            if number in merged:
                continue
            if track.front.covered_at_ns == source.at_ns:
                kept.append(track)
                continue
            # What is in front of a line hides it from the detector, too: then time decides.
            track.misses += track.is_visible
            track.is_visible = track.fit >= SURE_FIT
            if track.misses >= (MISSES_IN_SIGHT if track.is_visible and number not in crowded else MISSES):
                continue
            track.is_doubted |= number in crowded
        kept.append(track)
    source.tracks = kept


def _is_to_remember(track: Track, *, is_piece: bool) -> bool:
    """Whether how a line looks where it was found is how it looks: what is in front of it is not to be followed."""
    if track.reference is None:
        return True
    if is_piece:
        return track.fit >= SAME_FIT
    # What does not look like the line at all, and was found in its place, is another text.
    return track.fit < VISIBLE_FIT or not track.is_restless


def _remember(tracks: list[Track], source: Source) -> None:
    """Keep what lines look like where the detector has just found them."""
    if source.grey is None or not tracks:
        return
    corners = np.stack([track.corners for track in tracks]) * source.scale
    seen, clear = flow.patches(source.grey, corners), bands(source.grey, corners)
    for number, (track, contrast) in enumerate(zip(tracks, seen.levels.std(axis=1).tolist(), strict=True)):
        track.reference = seen.of([number])
        track.front = Front(clear.of([number]), source.at_ns)
        track.is_doubted = contrast < FADED * track.contrast
        # In other light it stays the same text, which is found again and again.
        track.contrast = max(contrast, LAST_CONTRAST * track.contrast)
