"""Decides, frame by frame of one source, what has to be looked at and what of it has to be read.

    watch = Watch()                                # of one source
    examination = watch.see(info, shown)           # a frame: what the detector has to look at, often nothing
    if examination is not None:
        ...                                        # at once, or while the next frames are seen and told
        watch.found(examination)
    crops = watch.tell(detector, shown)            # the lines in sight, and crops of those that say anything new

A glance tells how the camera moved, and that a frame shows what the one before did: that one is passed over. The gate
tells what has changed, the tracker where known lines went, and the album which crops show anything new. All of it
follows from the frames and their times alone, and can be lost at any time: then all is looked at anew. A frame that
came encoded is decoded as a whole only where something has to be looked at or cut out.

What is found in a frame when others have been seen since is taken into account as if it had been known then: the
tracker of that moment takes it, and goes the way to the newest frame once more, by the pictures and motions it was led
by before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import NamedTuple

import numpy as np

from detector_consumer.asking import Asking
from detector_consumer.examining import Examination, frame_box, parts_to_examine
from detector_consumer.gating import Changes, Gate, GateSettings
from detector_consumer.glancing import Glances
from detector_consumer.masks import is_masked
from detector_consumer.motion import Grey, Motion
from detector_consumer.overlays import Overlays
from detector_consumer.placing import to_region
from detector_consumer.retracing import Moment, Past, retraced, was_overlooked
from detector_consumer.tracking import Tracker
from detector_consumer.tracks import Followed
from detector_consumer.turns import Turns
from detector_consumer.views import Album, Look, view_of
from ocrstream.cropping import cut
from ocrstream.geometry import Box, Polygon, bounding_box, polygon_shift, polygon_size_wh, to_polygon
from ocrstream.lines import carry, cut_line
from ocrstream.messages import Crop, Crops, FrameInfo, Region, Sight
from ocrstream.models import Detector, Margin, TextLine
from ocrstream.models.ordering import in_reading_order
from ocrstream.picture import Picture

LOOK_AFTER_S = 0.1
"""So often lines in sight are held against what was sent of them."""

KEEP_AFTER_S = 1.5
"""A frame without anything new is kept so often: time that is read again later has no gaps (`GONE_AFTER_S`)."""

KEEP_GONE_AFTER_S = 0.5
"""And so soon where a line has gone: a kept frame without it tells when it ended."""

TELL_AFTER_S = 0.5
MOVED_SHARE = 0.15
"""Where lines are is told when one has moved by this share of its height, and at least so often."""

MOST_READ_AGAIN = 3
"""So many lines are read again together at most."""


class Watch:
    """What is known of one source (or segment) and generation.

    Args:
        settings: of the gate; nothing is read in its masks.
        leaves_out_overlays: whether what the camera writes into its picture is learned, and left out like a mask.
        aside: one thread, or something like it, that has its part in the work; None: everything is done here.
    """

    def __init__(
        self,
        settings: GateSettings | None = None,
        *,
        leaves_out_overlays: bool = False,
        aside: Executor | None = None,
    ) -> None:
        self._gate = Gate(settings)
        self._overlays = Overlays() if leaves_out_overlays else None
        self._masks = self._configured = settings.masks if settings else ()
        self._aside = aside
        self._glances = Glances(aside)
        self._tracker = Tracker()
        self._album = Album()
        self._words: dict[str, _Words] = {}
        self._turns = Turns()
        self._past = Past()
        self._came: dict[str, tuple[Sight, ...]] = {}
        self._has_rested = self._is_passed_over = False
        self._info: FrameInfo | None = None
        self._changes: Changes | None = None
        self._asking = Asking()
        self._asked: _Asked | None = None
        self._has_answer = False
        self._come_in_last: set[str] = set()
        self._overlooked: set[str] = set()
        self._has_time = True
        self._looked_at_ns = self._kept_at_ns = self._told_at_ns = self._followed_since_ns = 0
        self._told: dict[str, Polygon] = {}
        self._ended: set[str] = set()
        self._in_sight_before: tuple[FrameInfo | None, list[Followed]] = None, []

    def see(
        self,
        info: FrameInfo,
        shown: Picture,
        *,
        coming: tuple[FrameInfo, Picture] | None = None,
        has_time: bool = True,
        may_ask: bool = True,
    ) -> Examination | None:
        """Take in the next frame.

        Args:
            info: the frame. One from before the last begins afresh.
            shown: its picture.
            coming: the frame after it and its picture, where they are there already.
            has_time: whether there is time for the detector, but for what is entirely new; and for reading again.
            may_ask: whether the detector can be asked at all. It never is before it has answered.

        Returns:
            What the detector has to look at, to be given to `found` or `unanswered`; often None.

        Raises:
            MalformedRecordError: the picture cannot be decoded; then nothing has happened.
        """
        greys, motion, is_unchanged = self._glances.take(info, shown)
        # What the detector has found meanwhile goes the way to the newest frame; where it has failed it is asked again.
        is_settled = self._asked is None and not self._has_answer and not self._asking.begins
        self._has_rested, self._is_passed_over = self._is_passed_over, is_unchanged and is_settled
        if self._info is None:
            self._followed_since_ns = info.captured_at_ns
        self._info, self._has_time = info, has_time
        look = partial(self._gate.look, greys, motion, info.captured_at_ns)
        gate = None if self._is_passed_over else self._beside(look)
        if coming is not None:
            self._glances.expect(*coming)
        if gate is None:
            return None
        step = _Step(greys.small, 1 / greys.small_factor, motion, info.captured_at_ns)
        known = self._tracker.advance(_KEY, *step)
        changes = gate()
        if self._overlays is not None:
            known = self._without_overlays(self._overlays, step, known, shown.size_wh())
        in_sight = [track.polygon for track in known if track.is_visible]
        self._past.note(info, step.grey, step.scale, motion, np.array(in_sight).reshape(-1, 4, 2))
        self._changes = changes.unexplained_by(in_sight)
        if motion is None:
            self._begin_anew()
        if self._asked is not None:
            self._asked.since.append(step)
        elif may_ask and (
            parts := self._asking.parts(
                self._changes,
                known,
                shown.size_wh(),
                info.captured_at_ns,
                has_time=has_time,
                at_rest=self._album.at_rest,
            )
        ):
            return self._ask(shown, parts, in_sight)
        return None

    def see_last(self, shown: Picture) -> Examination | None:
        """What the detector has to look at in the frame seen last, after which no other may come; often nothing.

        Args:
            shown: the frame's picture.
        """
        in_sight = [track for track in self._tracker.tracks(_KEY) if track.is_visible]
        come_in = {track.track_id: track.polygon for track in in_sight if track.has_come_in}
        self._come_in_last = set(come_in)
        if self._changes is None or self._asked is not None or not come_in:
            return None
        known = [track.polygon for track in in_sight]
        parts = parts_to_examine(self._changes, list(come_in.values()), known, frame_box(shown.size_wh()))
        return self._ask(shown, parts, known)

    def found(self, examination: Examination) -> None:
        """Take note of what the detector found in the last frame that it was asked of.

        Lines that are new begin in the frame seen last.
        """
        asked = self._asked
        if asked is None or asked.examination is not examination:
            # There was a cut since: it was another scene.
            return
        assert self._info is not None
        self._asked, self._has_answer = None, True
        frame_id, tracker = self._info.frame_id, asked.tracker
        regions = [Region(number, line.polygon, line.score) for number, line in enumerate(examination.lines)]
        thought = {track.track_id: track.known for track in tracker.tracks(_KEY) if track.is_whole}
        tracks = tracker.associate(_KEY, frame_id, regions, asked.at_ns, examination.holds)
        news = [track for track in tracks if track.track_id.startswith(frame_id)]
        if not self._asking.answered([track.track_id for track in tracks]):
            self._gate.in_vain()
        self._came |= asked.trace(news)
        for track in tracks:
            if (was := thought.get(track.track_id)) and track.is_whole and was_overlooked(asked.past, was, track.known):
                self._overlooked.add(track.track_id)
        for track, line in zip(tracks, examination.lines, strict=True):
            # Of a line that is hidden in part only the rest was found, and only the words there.
            is_all_of_it = polygon_shift(line.polygon, track.polygon) < polygon_size_wh(line.polygon)[1]
            if is_all_of_it or track.track_id not in self._words:
                self._words[track.track_id] = _Words(track.known, line.words)
        for step in asked.since:
            tracker.advance(_KEY, *step)
        self._tracker = tracker
        if not asked.since:
            # It may have become the whole frame.
            self._note_examined(examination)

    def unanswered(self, examination: Examination) -> None:
        """Take note that the detector failed: the next frame is looked at as a whole."""
        if self._asked is not None and self._asked.examination is examination:
            self._begin_anew()

    def _begin_anew(self) -> None:
        self._asked = None
        self._asking.begin_anew()

    def _beside(self, look: Callable[[], Changes]) -> Callable[[], Changes]:
        """Begin something that goes on beside this; what is given back waits for it."""
        return look if self._aside is None else self._aside.submit(look).result

    def _ask(self, shown: Picture, parts: Sequence[Box], in_sight: Sequence[Polygon]) -> Examination:
        assert self._changes is not None
        examination = Examination(shown.array(), parts, self._masks, in_sight)
        self._asked = _Asked(examination, self._past.moments(), self._tracker.copy(), [])
        self._asking.asked(self._at_ns(), self._changes, self._tracker.tracks(_KEY))
        self._album.at_rest.clear()
        # What changes from now on is to be looked at next time.
        self._note_examined(examination)
        return examination

    def _note_examined(self, examination: Examination) -> None:
        assert self._changes is not None
        self._gate.examined(examination.tiles(self._changes))

    def tell(self, detector: Detector, shown: Picture, *, is_last: bool = False) -> list[Crops]:
        """What there is to say of the frame, and before that of the one before, where a line was seen there last.

        Args:
            detector: what looked at it.
            shown: its picture.
            is_last: whether no other frame may come: it is kept in any case, and what has come in is read as it is.
        """
        info = self._info
        assert info is not None
        if self._is_passed_over and not is_last:
            # Lines were seen in it where they were in the one before.
            self._in_sight_before = info, self._in_sight_before[1]
            return [self._crops(info, detector, (), picture=shown)]
        known, size_wh = self._tracker.tracks(_KEY), shown.size_wh()
        # A line may move into a mask, too.
        in_sight = _ordered(
            [track for track in known if track.is_visible and not is_masked(track.polygon, self._masks, size_wh)]
        )
        wanted = self._wanted(in_sight, shown, is_last=is_last) if is_last or self._is_time_to_look() else {}
        ids = {track.track_id for track in known}
        self._album.keep(ids)
        self._overlooked &= ids
        self._turns.keep(ids)
        for kept in (self._words, self._came):
            for track_id in kept.keys() - ids:
                del kept[track_id]
        at_ns = info.captured_at_ns
        since_kept_s = (at_ns - self._kept_at_ns) / 1e9
        gone = self._told.keys() - {track.track_id for track in in_sight}
        changed = {track_id for track_id, each in wanted.items() if each.is_changed}
        told = self._last_sight((gone | changed) - self._ended, detector, shown)
        self._ended = gone
        self._in_sight_before = info, in_sight
        is_due = since_kept_s >= (KEEP_GONE_AFTER_S if gone else KEEP_AFTER_S)
        # What is there is known only when the detector has answered.
        is_kept = is_last or bool(wanted) or (is_due and self._asked is None)
        if not is_kept and not self._has_news_of_places(in_sight):
            return [*told, self._crops(info, detector, (), picture=shown)]
        self._told_at_ns, self._told = at_ns, {track.track_id: track.polygon for track in in_sight}
        if is_kept:
            self._kept_at_ns = at_ns
        crops = [
            self._crop(info, number, track, wanted.get(track.track_id), shown, detector.margin)
            for number, track in enumerate(in_sight)
        ]
        return [*told, self._crops(info, detector, crops, is_kept=is_kept, picture=shown)]

    def _last_sight(self, ended: Collection[str], detector: Detector, shown: Picture) -> list[Crops]:
        """The frame before, where lines that have gone or say something else since were seen there last.

        Where lines are is told so seldom that they would seem to have gone half a second before.

        Args:
            ended: the tracks.
            detector: what looked at the frames.
            shown: a picture of their size.
        """
        info, tracks = self._in_sight_before
        if info is None or not self._told_at_ns < info.captured_at_ns < self._at_ns():
            return []
        if not any(track.track_id in ended and track.track_id in self._told for track in tracks):
            return []
        lines = [self._crop(info, number, track, None, shown, detector.margin) for number, track in enumerate(tracks)]
        return [self._crops(info, detector, lines)]

    def _crops(
        self,
        info: FrameInfo,
        detector: Detector,
        crops: Sequence[Crop],
        *,
        is_kept: bool = False,
        picture: Picture | None = None,
    ) -> Crops:
        since_ns = self._followed_since_ns
        return Crops(info, detector.info, tuple(crops), is_kept, False, followed_since_ns=since_ns, picture=picture)

    def _without_overlays(
        self, overlays: Overlays, step: _Step, known: list[Followed], size_wh: tuple[int, int]
    ) -> list[Followed]:
        """The known lines without those that turn out to be overlays."""
        in_sight = [track.polygon for track in known if track.is_visible]
        if not overlays.see(step.grey, step.motion, step.scale, in_sight, step.at_ns):
            return known
        self._gate.leave_out(overlays.zones)
        self._masks = (*self._configured, *overlays.zones)
        for tracker in [self._tracker, *([self._asked.tracker] if self._asked else [])]:
            tracker.forget(_KEY, lambda polygon: is_masked(polygon, overlays.zones, size_wh))
        return self._tracker.tracks(_KEY)

    def _is_time_to_look(self) -> bool:
        assert self._info is not None
        at_ns = self._info.captured_at_ns
        # After frames that were passed over something may have changed just now.
        is_soon = 0 <= at_ns - self._looked_at_ns < LOOK_AFTER_S * 1e9 and not self._has_rested
        if is_soon and not self._has_answer:
            return False
        self._looked_at_ns, self._has_answer = at_ns, False
        return True

    def _wanted(self, tracks: Sequence[Followed], shown: Picture, *, is_last: bool) -> dict[str, _Wanted]:
        """The lines of which a crop is to be sent."""
        wanted: dict[str, _Wanted] = {}
        due: dict[str, _Wanted] = {}
        at_ns = self._at_ns()
        for track in tracks:
            has_come_in = is_last and track.track_id in self._come_in_last
            if track.is_covered or (self._turns.is_coming_in(track, at_ns) and not has_come_in):
                continue
            view = view_of(cut(shown.array(), track.polygon), track.polygon, is_whole=track.is_whole)
            look = self._album.look(track.track_id, view, at_ns)
            if look.is_wanted or has_come_in:
                # Of what looks otherwise only because more of it was found, nothing has changed.
                is_changed = look is Look.CHANGED and track.track_id not in self._overlooked
                self._overlooked.discard(track.track_id)
                wanted[track.track_id] = _Wanted(view.score, is_changed)
            elif look is Look.SAME and self._turns.is_due(track, at_ns):
                due[track.track_id] = _Wanted(view.score, is_changed=False)
        # What is new goes before what was read already.
        if self._has_time and self._asked is None:
            # Those that can be read worst first: they gain most, and then wait longer, so that the others' turn comes.
            first = sorted(due, key=lambda track_id: due[track_id].view)[:MOST_READ_AGAIN]
            wanted |= {track_id: due[track_id] for track_id in first}
        for track_id, each in wanted.items():
            self._turns.note(track_id, at_ns, is_changed=each.is_changed)
        return wanted

    def _at_ns(self) -> int:
        assert self._info is not None
        return self._info.captured_at_ns

    def _has_news_of_places(self, tracks: Sequence[Followed]) -> bool:
        assert self._info is not None
        if not tracks and not self._told:
            return False
        if not 0 <= self._info.captured_at_ns - self._told_at_ns < TELL_AFTER_S * 1e9:
            return True
        for track in tracks:
            told = self._told.get(track.track_id)
            if told is None or polygon_shift(told, track.polygon) > MOVED_SHARE * polygon_size_wh(track.polygon)[1]:
                return True
        return False

    def _crop(
        self, info: FrameInfo, number: int, track: Followed, wanted: _Wanted | None, shown: Picture, margin: Margin
    ) -> Crop:
        words: tuple[Polygon, ...] = ()
        if wanted is not None and (found := self._words.get(track.track_id)) is not None:
            words = _in_frame(carry(found.places, found.line, track.known), shown.size_wh())
        line = TextLine(track.polygon, track.score, words)
        region = to_region(number, line, info, shown.size_wh(), track.track_id)
        before = self._came.pop(track.track_id, ())
        if wanted is None:
            return Crop(region, (), before=before)
        pictures = tuple(map(Picture.from_array, cut_line(shown.array(), track.polygon, words, margin)))
        return Crop(region, pictures, wanted.view, wanted.is_changed, before)


class _Wanted(NamedTuple):
    """How well a line that is to be read can be read, 0 to 1, and whether its picture is another one than before."""

    view: float
    is_changed: bool


class _Words(NamedTuple):
    """Where the detector found the words of a line, and where the line was then, as `Followed.known`."""

    line: Polygon
    places: tuple[Polygon, ...]


class _Step(NamedTuple):
    """What leads a tracker on to a frame, see `Tracker.advance`."""

    grey: Grey
    scale: float
    motion: Motion | None
    at_ns: int


class _Asked(NamedTuple):
    """What the detector was asked and has not answered.

    Attributes:
        examination: the question.
        past: what the source had shown, up to the frame it is about.
        tracker: what was known then.
        since: the frames that came in since.
    """

    examination: Examination
    past: tuple[Moment, ...]
    tracker: Tracker
    since: list[_Step]

    @property
    def at_ns(self) -> int:
        """When the frame that it is about was taken."""
        return self.past[-1].info.captured_at_ns

    def trace(self, news: Sequence[Followed]) -> dict[str, tuple[Sight, ...]]:
        """Where lines that begin now were before the newest frame; how fast they move is told the tracker."""
        if not news:
            return {}
        info, came = self.past[-1].info, {}
        traced = retraced(self.past, np.array([track.known for track in news], np.float64))
        for track, (before, speed_px_s) in zip(news, traced, strict=True):
            if speed_px_s is not None:
                self.tracker.note_speed(_KEY, track.track_id, speed_px_s)
            last = (Sight(info.captured_at_ns, info.media_time_ms, track.polygon),) if self.since else ()
            came[track.track_id] = (*before, *last)
        return came


_KEY = ("", 0)
"""A tracker can hold many sources; each watch has its own."""


def _in_frame(words: Sequence[Polygon], size_wh: tuple[int, int]) -> tuple[Polygon, ...]:
    """The words of which half and more is in the frame, moved into it."""
    width, height = size_wh
    inside = []
    for word in words:
        x0, y0, x1, y1 = bounding_box(word)
        seen_px = max(min(x1, width) - max(x0, 0), 0) * max(min(y1, height) - max(y0, 0), 0)
        if seen_px >= 0.5 * (x1 - x0) * (y1 - y0):
            inside.append(to_polygon(np.clip(word, 0, size_wh)))
    return tuple(inside)


def _ordered(tracks: Sequence[Followed]) -> list[Followed]:
    """Tracks in reading order."""
    lines = [TextLine(track.polygon, track.score) for track in tracks]
    of_line = {id(line): track for line, track in zip(lines, tracks, strict=True)}
    return [of_line[id(line)] for line in in_reading_order(lines)]
