"""Appearances: one text in one place over time, from what is read of it and where it is seen.

What the readings of a track say together is a `recognizer_consumer.consensus`; here is decided which of them belong
together. An appearance is sent when it begins, when its text or best frame changes, when it was last sent `REFRESH_S`
seconds of its source's time ago, and when it is over.

A line is read when it is new, when its picture has changed, when a better view of it comes, and now and then again.
Between those it is seen *as last read*: that makes its appearance last longer and its path go on, and is no vote.

Another text in the same place begins a new appearance. It takes a picture that has changed, and two readings in a row:
of anything that is nothing like the winner (a slide, a caption), or, where it differs little (a clock, ``B12`` and then
``B2``), of the same text. A reading that then stands there as last read for `HELD_S` counts like two: a second one
would say the same. Where the picture is known to rest between the two, it is enough that what differs is sure, in one
of them or in both together; where nobody compares pictures, both have to be, and the text before them. What differs
little otherwise is a misreading, and voted on; so is whatever differs in a picture that has not changed, unless two
sure readings in a row say the same and are nothing like the winner. Texts that are alike when folded never differ: that
is what a recogniser confuses. Three more are no new text:

- A clearly better view that says something a little different: what was read from worse ones is corrected.
- A word that comes into view, or what is left of a line that leaves: a part of the other in a place that is longer or
  shorter accordingly. The whole word takes over, and what is left is no vote. So does the whole line where the frame's
  edge had cut it off; elsewhere a line that grows by a word says something new.
- What follows readings that were neither sure nor twice the same (a split-flap turning, a slide fading in): it takes
  their appearance over, and they no longer count.

Where a source's frames begin or end (a start, a stop, the border of a replay, a gap in its time) nobody can know
whether a text was steady. There one sure reading is enough: it counts as steady in the first frame, and in the last one
it is an appearance of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from ocrstream.by_source import BySource, Pattern, of_source
from ocrstream.folding import are_alike, folded_letters
from ocrstream.geometry import Polygon, bounding_box
from ocrstream.messages import GONE_AFTER_S, SURE, Appearance, FrameInfo, Region, Text
from ocrstream.storage.superseding import track_of
from recognizer_consumer.appearing import OpenAppearance, Sighting, Trail, Waiting
from recognizer_consumer.calibration import Calibration, calibration_of
from recognizer_consumer.comparing import (
    LIKELY,
    Correction,
    Growth,
    correction,
    growth,
    is_another,
    may_be_another,
    stood_alone,
)
from recognizer_consumer.resuming import IN_PART_S, Lost, Recall, is_in_part, is_on_its_way, nothing_is_known

REFRESH_S = 1.0
HELD_S = 0.2
"""A text that stands there as it was last read for so long is no passing blur."""

READ_BEFORE_S = 0.5
"""A line that stands there as last read for so long without being read was read by somebody else."""

EDGE_PX = 3.0

MOST_OPEN = 2000
"""Open appearances of a source; beyond that those are closed that have not been seen for longest."""


@dataclass(slots=True)
class _Source:
    """A source (or segment) and generation.

    Attributes:
        first: the frame it was followed from.
        last: and to.
        calibration: the engine's.
        patterns: its formats.
        lost: what was in view before; None until there is a line that may be it.
        followed_since_ns: since when the same detector has followed its lines, as in `Crops`.
        votes: its open appearances by track.
        unread: where tracks were seen of which nothing is read yet.
        known_as: tracks that go on under another track's name.
    """

    first: FrameInfo
    last: FrameInfo
    calibration: Calibration
    patterns: tuple[Pattern, ...]
    lost: Lost | None
    followed_since_ns: int
    votes: dict[str, OpenAppearance] = field(default_factory=dict)
    unread: dict[str, Trail] = field(default_factory=dict)
    known_as: dict[str, str] = field(default_factory=dict)


class Ballot:
    """The open appearances of all sources of one process.

    Args:
        formats: what texts look like, by source or shell-style pattern of sources; see `recognizer_consumer.formats`.
        min_confidence: of texts that never were as sure as this nothing is told, 0 to 1.
        recall: what was in view before this process knew of a source.
    """

    def __init__(
        self,
        formats: BySource[Pattern] = (),
        min_confidence: float = 0.0,
        recall: Recall = nothing_is_known,
    ) -> None:
        self._formats = formats
        self._min_confidence = min_confidence
        self._open: dict[tuple[str, int], _Source] = {}
        self._recall = recall
        self._told_of: set[str] = set()

    def count(
        self, info: FrameInfo, lines: Sequence[Sighting | Text], engine: str = "", followed_since_ns: int = 0
    ) -> tuple[Appearance, ...]:
        """Count a frame's lines; the appearances that there is something new to say of.

        A frame older than the last one (delivered again, out of order) is counted too: a vote more changes little.

        Args:
            info: the frame.
            lines: what was read or seen in it; a `Text` is a reading from a view that nobody judged. Lines without a
                track, and lines seen *as last read* of a track of which nothing was read, are passed over.
            engine: the name of the recogniser that has read a source's first frame, and so all of this generation.
            followed_since_ns: as in `Crops`. Another detector knows nothing of the lines before it, and may need a
                while to find them again.

        Raises:
            TransientError: the source is new, and what was in view before cannot be had now.
        """
        key = info.key, info.generation
        news: list[Appearance] = []
        lost: Lost | None = None
        known = self._open.get(key)
        if known is not None and (
            _is_gone(info, known.last.captured_at_ns) or known.followed_since_ns != followed_since_ns
        ):
            closed = self.close(*key)
            news += closed
            # A detector may see a frame, and be gone again before it has found anything.
            if closed or known.lost is not None:
                lost = Lost([*(known.lost.left() if known.lost else ()), *closed], info)
        source = self._open.get(key)
        if source is None:
            calibration, patterns = calibration_of(engine), of_source(self._formats, info.source_id)
            self._open[key] = source = _Source(info, info, calibration, patterns, lost, followed_since_ns)
        source.last = info
        news += self._count_all(source, info, lines)
        news += _told(source.votes, info)
        for track_id in [each for each, place in source.unread.items() if _is_gone(info, place.last.captured_at_ns)]:
            del source.unread[track_id]
        excess = len(source.votes) - MOST_OPEN
        if excess > 0:
            oldest = sorted(source.votes, key=lambda track_id: source.votes[track_id].seen_at_ns())[:excess]
            news += [_ended(source.votes.pop(track_id)) for track_id in oldest]
        return self._sure(news)

    def _count_all(self, source: _Source, info: FrameInfo, lines: Sequence[Sighting | Text]) -> Iterator[Appearance]:
        """Count a frame's lines, those that go on under another track's name under that."""
        in_view = {line.region.track_id for line in lines}
        # A track that is there itself needs nobody to go on for it.
        source.known_as = {track: known for track, known in source.known_as.items() if known not in in_view}
        # Asked for where a line is read for the first time, and then for all such lines of the frame.
        out_of_view = cache(lambda: _out_of_view(source, in_view))
        for line in lines:
            if line.region.track_id is None:
                continue
            sighting = line if isinstance(line, Sighting) else Sighting(line.region, line.text, line.confidence)
            track_id = source.known_as.get(line.region.track_id, line.region.track_id)
            if track_id not in source.votes:
                track_id = self._resume(source, track_id, info, sighting, in_view, out_of_view)
            yield from _count(source, track_id, info, sighting)

    def _resume(
        self,
        source: _Source,
        track_id: str,
        info: FrameInfo,
        line: Sighting,
        in_view: Collection[str | None],
        out_of_view: Callable[[], Mapping[str, Sequence[str]]],
    ) -> str:
        """Let a text go on that is in view again, or under a new name; the track that a line is counted for."""
        if source.lost is None:
            # As of the first frame, which may have held nothing: what was said since is not of before.
            source.lost = Lost(self._recall(source.first) if _may_go_on(source.first) else (), source.first)
        last_words = source.lost.take_track(track_id, info)
        known: str | None = None
        if last_words is None:
            # It may have moved on since it came into view again.
            trail = source.unread.get(track_id) or Trail.begin(info, line.region.polygon, line.before)
            seen_first = replace(line, region=replace(line.region, polygon=trail.path[0][1]))
            if line.fresh:
                taken = {known_as for track, known_as in source.known_as.items() if track in in_view}
                for other in out_of_view().get(folded_letters(line.text), ()):
                    path = source.votes[other].trail.points()
                    if other not in taken and is_on_its_way(path, seen_first, trail.first.at_ms):
                        known = other
                # On the other side of who stands before it.
                for other, vote in source.votes.items():
                    if vote.is_in_part(info) and is_in_part(vote.winner().text, vote.trail.polygon, line):
                        known = other
                if known is None:
                    last_words = source.lost.take_like(seen_first, trail.first)
            elif info.captured_at_ns - trail.first.captured_at_ns >= READ_BEFORE_S * 1e9:
                # By a recogniser that knew it under another name: its detector was started again before.
                last_words = source.lost.take_at(seen_first, trail.first)
        if last_words is not None and track_of(last_words) not in source.votes:
            known = track_of(last_words)
            source.votes[known] = vote = OpenAppearance.resumed(last_words, info, source.calibration, source.patterns)
            # What has come in over the frame's edge may have been read twice, and more of it comes.
            vote.comes_in = _is_at_edge(info, last_words.path[0][1])
            if _is_at_edge(info, last_words.path[-1][1]):
                vote.touch_edge()
            if line.fresh and is_in_part(last_words.text, vote.trail.polygon, line):
                vote.in_part_until_ns = info.captured_at_ns + round(IN_PART_S * 1e9)
            self._told_of.add(last_words.track_id)
        if known is None or known == track_id:
            return track_id
        source.known_as[track_id] = known
        return known

    def known(self, info: FrameInfo, region: Region) -> Region:
        """A region under the name of the track that its line goes on for, as all that is told of it has."""
        source = self._open.get((info.key, info.generation))
        known = source.known_as.get(region.track_id) if source and region.track_id is not None else None
        return region if known is None else replace(region, track_id=known)

    def said_at(self, info: FrameInfo, region: Region) -> Text | None:
        """What stands where a track is, by all that was read of it; None where nothing was, or nothing sure enough."""
        source = self._open.get((info.key, info.generation))
        region = self.known(info, region)
        vote = source.votes.get(region.track_id) if source and region.track_id is not None else None
        said = None if vote is None else vote.said_at(region)
        return None if said is None or said.confidence < self._min_confidence else said

    def close(self, key: str, generation: int) -> tuple[Appearance, ...]:
        """End all open appearances of a source (or segment) and generation; they are sent a last time."""
        source = self._open.pop((key, generation), None)
        if source is None:
            return ()
        ended: list[Appearance] = []
        for track_id, vote in source.votes.items():
            waiting = vote.waiting
            if waiting is not None and waiting.trail.last is source.last and waiting.line.confidence >= SURE:
                ended += [vote.told(closed=True), _taken_up(source, track_id, waiting).told(closed=True)]
            else:
                ended.append(_ended(vote))
        return self._sure(ended)

    def _sure(self, news: Sequence[Appearance]) -> tuple[Appearance, ...]:
        """What of it is sure enough to be told: what was, once, is told to its end."""
        told = []
        for appearance in news:
            if appearance.confidence >= self._min_confidence or appearance.track_id in self._told_of:
                told.append(appearance)
                self._told_of.add(appearance.track_id)
            if appearance.closed:
                self._told_of.discard(appearance.track_id)
        return tuple(told)


def _may_go_on(first: FrameInfo) -> bool:
    """Whether anything is known of the time before a source's first frame.

    Nothing is before a file's beginning. Segments are read side by side: what is known of the one before is of another
    time.
    """
    return first.segment is None and first.media_time_ms != 0


def _out_of_view(source: _Source, in_view: Collection[str | None]) -> dict[str, list[str]]:
    """The open tracks that are not in view, by what they say, folded."""
    tracks: dict[str, list[str]] = {}
    for track_id, vote in source.votes.items():
        if track_id not in in_view:
            tracks.setdefault(folded_letters(vote.winner().text), []).append(track_id)
    return tracks


def _is_gone(info: FrameInfo, seen_at_ns: int) -> bool:
    return info.captured_at_ns - seen_at_ns > GONE_AFTER_S * 1e9


def _told(votes: dict[str, OpenAppearance], info: FrameInfo) -> list[Appearance]:
    """What there is to say of a source's open appearances in a frame; those that are over are let go."""
    news = []
    for track_id, vote in list(votes.items()):
        if _is_gone(info, vote.seen_at_ns()):
            news.append(_ended(votes.pop(track_id)))
            continue
        winner = (vote.winner().text, vote.best_frame_id)
        is_seen = vote.seen_at_ns() == info.captured_at_ns
        due = is_seen and info.captured_at_ns - vote.sent_at_ns >= REFRESH_S * 1e9
        if due or vote.sent != winner:
            vote.sent, vote.sent_at_ns = winner, info.captured_at_ns
            news.append(vote.told(closed=False))
    return news


def _count(source: _Source, track_id: str, info: FrameInfo, line: Sighting) -> list[Appearance]:
    """Count one sighting; the appearance that it ends, where its text has replaced another."""
    vote = source.votes.get(track_id)
    if vote is None:
        if track_id in source.unread:
            source.unread[track_id].see(info, line.region.polygon)
        else:
            source.unread[track_id] = Trail.begin(info, line.region.polygon, line.before)
        if line.fresh:
            # Where it begins with its track, it will have been there when it was not read yet.
            trail = source.unread.pop(track_id)
            source.votes[track_id] = vote = _opened(source, track_id, info, line, trail)
            if info.frame_id == source.first.frame_id and line.confidence >= SURE:
                vote.steady = line.text
        return []
    if _is_at_edge(info, line.region.polygon):
        vote.touch_edge()
    if not line.fresh:
        return _hold(source, track_id, vote, info, line)
    if (kind := correction(vote, line)) is not Correction.NONE:
        vote.correct(info, line, is_better=kind is Correction.BETTER)
        return []
    if vote.says_again(line):
        if vote.before is not None and vote.is_contradicted(line):
            before, reading = vote.before
            waiting = Waiting(reading, Trail.begin(before, reading.region.polygon))
            return _replace(source, track_id, vote, waiting, then=(info, line))
        vote.add(info, line)
        return []
    grown = growth(vote, info, line)
    if grown is Growth.LESS:
        is_said_again = vote.less is not None and are_alike(vote.less, line.text)
        may_be_all = not line.is_changed and not vote.is_at_edge and not vote.is_in_part(info)
        if is_said_again and may_be_all and line.confidence >= LIKELY:
            # In a picture that rests.
            vote.waiting = Waiting(line, Trail.begin(info, line.region.polygon))
            return _replace(source, track_id, vote, vote.waiting)
        # What is left of a line that leaves says nothing new, nor does a piece that is found of it for a moment.
        vote.less = line.text
        vote.see(info, line.region.polygon)
    elif grown is Growth.MORE:
        vote.grow(info, line)
    elif vote.agrees(line.text):
        vote.count_waiting()
        vote.add(info, line)
    elif vote.waiting is None:
        if line.is_changed:
            vote.waiting = Waiting(line, Trail.begin(info, line.region.polygon))
        else:
            # The same picture says the same: one of its readings is a misreading.
            vote.add(info, line)
    elif is_another(vote, vote.waiting.line, line, has_rested=not line.is_changed):
        return _replace(source, track_id, vote, vote.waiting, then=(info, line))
    elif line.is_changed and stood_alone(vote, vote.waiting, info):
        return [*_replace(source, track_id, vote, vote.waiting), *_count(source, track_id, info, line)]
    else:
        is_same = are_alike(vote.waiting.line.text, line.text)
        vote.count_waiting()
        if not line.is_changed or (is_same and line.confidence < SURE):
            vote.add(info, line)
        else:
            vote.waiting = Waiting(line, Trail.begin(info, line.region.polygon))
    return []


def _hold(source: _Source, track_id: str, vote: OpenAppearance, info: FrameInfo, line: Sighting) -> list[Appearance]:
    """Take note of a line that is there as last read; the appearance that has ended, where it is thereby steady."""
    waiting = vote.waiting
    if waiting is None:
        vote.see(info, line.region.polygon)
        if vote.before is not None and _has_held(vote.before[0], info):
            vote.settle(vote.before[1])
        return []
    waiting.trail.see(info, line.region.polygon)
    if not _has_held(waiting.trail.first, info):
        return []
    if is_another(vote, waiting.line, waiting.line, has_rested=True):
        return _replace(source, track_id, vote, waiting)
    if not may_be_another(vote, waiting.line):
        vote.count_waiting()
    return []


def _replace(
    source: _Source,
    track_id: str,
    vote: OpenAppearance,
    waiting: Waiting,
    then: tuple[FrameInfo, Sighting] | None = None,
) -> list[Appearance]:
    """Let the text that has waited take a place; the appearance that ends with it.

    Args:
        source: the place's source.
        track_id: the place.
        vote: what stood there.
        waiting: the other text.
        then: a second reading of what stands there now; None where the first one has held.
    """
    ended = []
    if vote.is_settled:
        ended.append(vote.told(closed=True))
        source.votes[track_id] = vote = _taken_up(source, track_id, waiting)
    else:
        vote.forget_votes()
        vote.count_waiting()
    if then is None:
        vote.settle(waiting.line)
    else:
        vote.add(*then)
    return ended


def _is_at_edge(info: FrameInfo, polygon: Polygon) -> bool:
    """Whether a line touches the frame's edge, which may cut it off."""
    x0, y0, x1, y1 = bounding_box(polygon)
    return min(x0, y0) < EDGE_PX or x1 > info.width_px - EDGE_PX or y1 > info.height_px - EDGE_PX


def _has_held(since: FrameInfo, info: FrameInfo) -> bool:
    return info.captured_at_ns - since.captured_at_ns >= HELD_S * 1e9


def _opened(source: _Source, track_id: str, info: FrameInfo, line: Sighting, trail: Trail) -> OpenAppearance:
    """A new appearance.

    Its id is its track's where it begins with it, so that what is delivered again says the same. Where it begins later
    (another text in the same place, a recogniser that was started again) the frame is part of the id, so that it
    replaces nothing that was said of the track before.

    Args:
        source: its source.
        track_id: its place.
        info: the frame in which it was read first.
        line: what was read then.
        trail: where it was seen until now.
    """
    starts_track = track_id.startswith(trail.first.frame_id)
    appearance_id = track_id if starts_track else f"{track_id}~{trail.first.frame_id}"
    vote = OpenAppearance(appearance_id, source.calibration, source.patterns, trail, info.frame_id)
    if _is_at_edge(trail.first, trail.path[0][1]) or _is_at_edge(info, line.region.polygon):
        vote.touch_edge()
    vote.add(info, line)
    return vote


def _taken_up(source: _Source, track_id: str, waiting: Waiting) -> OpenAppearance:
    """A new appearance of a text that has waited."""
    return _opened(source, track_id, waiting.trail.first, waiting.line, waiting.trail)


def _ended(vote: OpenAppearance) -> Appearance:
    """An appearance as it is sent for the last time; a reading that still waits was a misreading."""
    vote.count_waiting()
    return vote.told(closed=True)
