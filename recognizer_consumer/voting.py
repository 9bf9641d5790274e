"""Appearances: one text in one place over time, from what is read of it and where it is seen.

What the readings of a track say together is a `recognizer_consumer.consensus`; here is decided which of them belong
together. An appearance is sent when it begins, when its text or best frame changes, when it was last sent `REFRESH_S`
seconds of its source's time ago, and when it is over.

A line is read when it is new, when its picture has changed, and when a better view of it comes. Between those it is
seen *as last read*: that makes its appearance last longer and its path go on, and is no vote.

Another text in the same place begins a new appearance. It takes two readings in a row: of anything that is nothing like
the winner (a slide, a caption), or, where it differs little (a clock, ``B12`` and then ``B2``), of the same text, both
sure, behind a text that was read so too. A reading that then stands there as last read for `HELD_S` counts like two: a
second one would say the same. What differs little otherwise is a misreading, and voted on. Texts that are alike when
folded never differ: that is what a recogniser confuses. Two more are no new text:

- A clearly better view that says something a little different: what was read from worse ones is corrected.
- What follows readings that were neither sure nor twice the same (a split-flap turning, a slide fading in): it takes
  their appearance over, and they no longer count.

Where a source's frames begin or end (a start, a stop, the border of a replay, a gap in its time) nobody can know
whether a text was steady. There one sure reading is enough: it counts as steady in the first frame, and in the last one
it is an appearance of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from rapidfuzz.distance import Levenshtein

from ocrstream.folding import are_alike, folded_text
from ocrstream.geometry import Polygon, polygon_shift, polygon_size_wh
from ocrstream.messages import GONE_AFTER_S, SURE, Appearance, FrameInfo, Region, Text
from recognizer_consumer.calibration import Calibration, calibration_of
from recognizer_consumer.consensus import Consensus, Voted
from recognizer_consumer.formats import Formats, Pattern

REFRESH_S = 1.0
HELD_S = 0.2
"""A text that stands there as it was last read for so long is no passing blur."""

MOVED_PX = 4.0
"""A path point is kept when the line has moved this far from the last one."""

LONGEST_PATH = 128
"""A sign may be in view for months, before a camera that shakes: of a longer path every second point is let go."""

UNLIKE = 0.5
"""Texts whose edit distance is a larger share of the longer one are different texts and not one text misread."""

BETTER_VIEW = 1.25
"""A view whose score is so many times the best one's so far is clearly better."""

MOST_OPEN = 2000
"""Open appearances of a source; beyond that those are closed that have not been seen for longest."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """A text line of a track in one frame.

    Attributes:
        region: where it is.
        text: what was read; without meaning where nothing was.
        confidence: of the reading, 0 to 1; likewise.
        characters: of each character of the text; empty where the engine does not tell.
        view: how well the line can be seen, 0 to 1.
        fresh: whether it was read in this frame; otherwise it is there as it was last read.
    """

    region: Region
    text: str
    confidence: float
    characters: tuple[float, ...] = ()
    view: float = 1.0
    fresh: bool = True


@dataclass(slots=True)
class _Waiting:
    """A reading that differs, and where it was seen since, as last read."""

    info: FrameInfo
    line: Sighting
    last: FrameInfo
    last_polygon: Polygon


@dataclass(slots=True)
class _Votes:
    """An open appearance.

    Attributes:
        before: the reading that was counted last, and when.
        steady: the text that was steadily read last: twice in a row, both sure.
        is_settled: whether anything was read surely, or twice in a row; what was not is passing.
        waiting: a reading that differs; what follows tells whether it was a misreading or another text.
        clearest: the best view's score.
        best_view: how good the best frame is: its view's score by its confidence and height.
    """

    appearance_id: str
    calibration: Calibration
    patterns: tuple[Pattern, ...]
    first: FrameInfo
    last: FrameInfo
    path: list[tuple[float, Polygon]]
    last_polygon: Polygon
    best_frame_id: str
    best_view: float = 0.0
    clearest: float = 0.0
    readings: int = 0
    consensus: Consensus = field(default_factory=Consensus)
    before: tuple[FrameInfo, Sighting] | None = None
    steady: str | None = None
    is_settled: bool = False
    waiting: _Waiting | None = None
    sent: tuple[str, str] | None = None
    sent_at_ns: int = 0
    _winner: Voted | None = None

    def winner(self) -> Voted:
        if self._winner is None:
            self._winner = self.consensus.voted(self.calibration, self.patterns)
        return self._winner

    def agrees(self, text: str) -> bool:
        return are_alike(text, self.winner().text) or (self.steady is not None and are_alike(text, self.steady))

    def seen_at_ns(self) -> int:
        """When its place was last seen, whatever it said."""
        return (self.waiting.last if self.waiting else self.last).captured_at_ns

    def vote(self, line: Sighting) -> None:
        self.consensus.add(line.text, line.confidence, line.characters, line.view)
        self._winner = None

    def forget_votes(self) -> None:
        self.consensus, self._winner = Consensus(), None
        self.clearest = self.best_view = 0.0


@dataclass(slots=True)
class _Unread:
    """A track of which nothing was read yet: where it was so far."""

    first: FrameInfo
    last: FrameInfo
    path: list[tuple[float, Polygon]]
    last_polygon: Polygon


@dataclass(slots=True)
class _Source:
    """A source (or segment) and generation: the frames it was followed from and to, and its votes by track."""

    first: FrameInfo
    last: FrameInfo
    calibration: Calibration
    patterns: tuple[Pattern, ...]
    votes: dict[str, _Votes] = field(default_factory=dict)
    unread: dict[str, _Unread] = field(default_factory=dict)


class Ballot:
    """The open appearances of all sources of one process.

    Args:
        formats: what texts look like, by source or shell-style pattern of sources; see `recognizer_consumer.formats`.
        min_confidence: of texts that never were as sure as this nothing is told, 0 to 1.
    """

    def __init__(self, formats: Mapping[str, Sequence[Pattern]] | None = None, min_confidence: float = 0.0) -> None:
        self._formats = Formats(formats or {})
        self._min_confidence = min_confidence
        self._open: dict[tuple[str, int], _Source] = {}
        self._told_of: set[str] = set()

    def count(self, info: FrameInfo, lines: Sequence[Sighting | Text], engine: str = "") -> tuple[Appearance, ...]:
        """Count a frame's lines; the appearances that there is something new to say of.

        A frame older than the last one (delivered again, out of order) is counted too: a vote more changes little.

        Args:
            info: the frame.
            lines: what was read or seen in it; a `Text` is a reading from a view that nobody judged. Lines without a
                track, and lines seen *as last read* of a track of which nothing was read, are passed over.
            engine: the name of the recogniser that has read a source's first frame, and so all of this generation.
        """
        key = info.key, info.generation
        news: list[Appearance] = []
        if key in self._open and _is_gone(info, self._open[key].last.captured_at_ns):
            news += self.close(*key)
        source = self._open.get(key)
        if source is None:
            calibration, patterns = calibration_of(engine), self._formats.of(info.source_id)
            self._open[key] = source = _Source(info, info, calibration, patterns)
        source.last = info
        for line in lines:
            track_id = line.region.track_id
            if track_id is not None:
                sighting = line if isinstance(line, Sighting) else Sighting(line.region, line.text, line.confidence)
                news += _count(source, track_id, info, sighting)
        news += _told(source.votes, info)
        for track_id in [each for each, place in source.unread.items() if _is_gone(info, place.last.captured_at_ns)]:
            del source.unread[track_id]
        excess = len(source.votes) - MOST_OPEN
        if excess > 0:
            oldest = sorted(source.votes, key=lambda track_id: source.votes[track_id].seen_at_ns())[:excess]
            news += [_ended(source.votes.pop(track_id)) for track_id in oldest]
        return self._sure(news)

    def last_read(self, info: FrameInfo, track_id: str) -> Voted | None:
        """What stands where a track is seen as last read, and how surely; None where nothing of it was read."""
        source = self._open.get((info.key, info.generation))
        vote = source.votes.get(track_id) if source else None
        if vote is None:
            return None
        waiting = vote.waiting.line if vote.waiting else None
        if waiting is not None and (waiting.confidence >= SURE or _is_unlike(waiting.text, vote.winner().text)):
            return Voted(waiting.text, waiting.confidence)
        return vote.winner()

    def close(self, key: str, generation: int) -> tuple[Appearance, ...]:
        """End all open appearances of a source (or segment) and generation; they are sent a last time."""
        source = self._open.pop((key, generation), None)
        if source is None:
            return ()
        ended: list[Appearance] = []
        for track_id, vote in source.votes.items():
            waiting = vote.waiting
            if waiting is not None and waiting.last is source.last and waiting.line.confidence >= SURE:
                ended += [
                    _appearance(vote, closed=True),
                    _appearance(_taken_up(source, track_id, waiting), closed=True),
                ]
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


def _is_gone(info: FrameInfo, seen_at_ns: int) -> bool:
    return info.captured_at_ns - seen_at_ns > GONE_AFTER_S * 1e9


def _told(votes: dict[str, _Votes], info: FrameInfo) -> list[Appearance]:
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
            news.append(_appearance(vote, closed=False))
    return news


def _count(source: _Source, track_id: str, info: FrameInfo, line: Sighting) -> list[Appearance]:
    """Count one sighting; the appearance that it ends, where its text has replaced another."""
    vote = source.votes.get(track_id)
    if vote is None:
        if not line.fresh:
            _wait_for_reading(source.unread, track_id, info, line.region.polygon)
        else:
            since = source.unread.pop(track_id, None)
            source.votes[track_id] = vote = _opened(source, track_id, info, line, since)
            if info.frame_id == source.first.frame_id and line.confidence >= SURE:
                vote.steady = line.text
        return []
    if not line.fresh:
        return _hold(source, track_id, vote, info, line)
    if vote.agrees(line.text) or _corrects(vote, line):
        _count_waiting(vote)
        _add(vote, info, line)
    elif vote.waiting is None:
        vote.waiting = _Waiting(info, line, info, line.region.polygon)
    elif _is_another(vote, vote.waiting.line, line):
        return _replace(source, track_id, vote, vote.waiting, then=(info, line))
    else:
        is_same = are_alike(vote.waiting.line.text, line.text)
        _count_waiting(vote)
        if is_same and line.confidence < SURE:
            _add(vote, info, line)
        else:
            vote.waiting = _Waiting(info, line, info, line.region.polygon)
    return []


def _hold(source: _Source, track_id: str, vote: _Votes, info: FrameInfo, line: Sighting) -> list[Appearance]:
    """Take note of a line that is there as last read; the appearance that has ended, where it is thereby steady."""
    waiting = vote.waiting
    if waiting is None:
        _see(vote, info, line.region.polygon)
        if vote.before is not None and _has_held(vote.before[0], info):
            _settle(vote, vote.before[1])
        return []
    waiting.last, waiting.last_polygon = info, line.region.polygon
    if not _has_held(waiting.info, info):
        return []
    if _is_another(vote, waiting.line, waiting.line):
        return _replace(source, track_id, vote, waiting)
    _count_waiting(vote)
    _settle(vote, waiting.line)
    return []


def _replace(
    source: _Source, track_id: str, vote: _Votes, waiting: _Waiting, then: tuple[FrameInfo, Sighting] | None = None
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
        ended.append(_appearance(vote, closed=True))
        source.votes[track_id] = vote = _taken_up(source, track_id, waiting)
    else:
        vote.forget_votes()
        _count_waiting(vote)
    if then is None:
        _settle(vote, waiting.line)
    else:
        _add(vote, *then)
    return ended


def _is_another(vote: _Votes, first: Sighting, second: Sighting) -> bool:
    """Whether two readings in a row, neither of which agrees with the vote, are another text in its place."""
    if all(_is_unlike(reading.text, vote.winner().text) for reading in (first, second)):
        return True
    return vote.steady is not None and _are_steady(first, second)


def _corrects(vote: _Votes, line: Sighting) -> bool:
    """Whether a reading that differs is to be voted on because it comes from a clearly better view."""
    if vote.waiting is not None or line.view < BETTER_VIEW * vote.clearest or _is_unlike(line.text, vote.winner().text):
        return False
    # What was taken to stand there was read from worse views.
    vote.steady = None
    return True


def _count_waiting(vote: _Votes) -> None:
    """Vote on the reading that differed: it was a misreading."""
    waiting, vote.waiting = vote.waiting, None
    if waiting is not None:
        _add(vote, waiting.info, waiting.line)
        _see(vote, waiting.last, waiting.last_polygon)


def _settle(vote: _Votes, line: Sighting) -> None:
    """Take note that a reading has held."""
    vote.is_settled = True
    if line.confidence >= SURE:
        vote.steady = line.text


def _has_held(since: FrameInfo, info: FrameInfo) -> bool:
    return info.captured_at_ns - since.captured_at_ns >= HELD_S * 1e9


def _are_steady(first: Sighting, second: Sighting) -> bool:
    return min(first.confidence, second.confidence) >= SURE and are_alike(first.text, second.text)


def _taken_up(source: _Source, track_id: str, waiting: _Waiting) -> _Votes:
    """A new appearance of a text that has waited."""
    vote = _opened(source, track_id, waiting.info, waiting.line)
    _see(vote, waiting.last, waiting.last_polygon)
    return vote


def _wait_for_reading(unread: dict[str, _Unread], track_id: str, info: FrameInfo, polygon: Polygon) -> None:
    """Remember where a track is of which nothing was read yet: it will have been there when something is."""
    if track_id in unread:
        _see(unread[track_id], info, polygon)
    else:
        unread[track_id] = _Unread(info, info, [(_at_ms(info), polygon)], polygon)


def _opened(source: _Source, track_id: str, info: FrameInfo, line: Sighting, since: _Unread | None = None) -> _Votes:
    """A new appearance, which began with its track where it is the first that is read of it.

    Its id is its track's where it begins with it, so that what is delivered again says the same. Where it begins later
    (another text in the same place, a recogniser that was started again) the frame is part of the id, so that it
    replaces nothing that was said of the track before.
    """
    place = since or _Unread(info, info, [(_at_ms(info), line.region.polygon)], line.region.polygon)
    starts_track = track_id.startswith(place.first.frame_id)
    vote = _Votes(
        track_id if starts_track else f"{track_id}~{place.first.frame_id}",
        source.calibration,
        source.patterns,
        place.first,
        place.last,
        place.path,
        place.last_polygon,
        info.frame_id,
    )
    _add(vote, info, line)
    return vote


def _is_unlike(text: str, other: str) -> bool:
    return Levenshtein.normalized_distance(folded_text(text), folded_text(other)) > UNLIKE


def _add(vote: _Votes, info: FrameInfo, line: Sighting) -> None:
    """Count a reading."""
    _see(vote, info, line.region.polygon)
    vote.readings += 1
    vote.vote(line)
    if vote.before is not None:
        before = vote.before[1]
        vote.is_settled = vote.is_settled or are_alike(before.text, line.text)
        if _are_steady(before, line):
            vote.steady = line.text
    vote.is_settled = vote.is_settled or line.confidence >= SURE
    vote.before = info, line
    vote.clearest = max(vote.clearest, line.view)
    view = line.view * line.confidence * polygon_size_wh(line.region.polygon)[1]
    # A view that is hardly better is not worth another best frame.
    if view > vote.best_view * 1.1:
        vote.best_view, vote.best_frame_id = view, info.frame_id


def _see(vote: _Votes | _Unread, info: FrameInfo, polygon: Polygon) -> None:
    """Take note of where the line is; a frame that was overtaken tells nothing more of that."""
    if info.captured_at_ns < vote.last.captured_at_ns:
        return
    if polygon_shift(vote.path[-1][1], polygon) >= MOVED_PX:
        if vote.path[-1][0] != _at_ms(vote.last):
            # The line stood still until the last frame: without this point it would seem to have drifted all along.
            vote.path.append((_at_ms(vote.last), vote.last_polygon))
        vote.path.append((_at_ms(info), polygon))
        if len(vote.path) > LONGEST_PATH:
            del vote.path[1:-1:2]
    vote.last, vote.last_polygon = info, polygon


def _ended(vote: _Votes) -> Appearance:
    """An appearance as it is sent for the last time; a reading that still waits was a misreading."""
    _count_waiting(vote)
    return _appearance(vote, closed=True)


def _appearance(vote: _Votes, *, closed: bool) -> Appearance:
    text, confidence = vote.winner()
    path = list(vote.path)
    if path[-1][0] != _at_ms(vote.last):
        path.append((_at_ms(vote.last), vote.last_polygon))
    return Appearance(
        track_id=vote.appearance_id,
        source_id=vote.first.source_id,
        text=text,
        confidence=round(confidence, 4),
        first_at_ns=vote.first.captured_at_ns,
        last_at_ns=vote.last.captured_at_ns,
        first_ms=vote.first.media_time_ms,
        last_ms=vote.last.media_time_ms,
        best_frame_id=vote.best_frame_id,
        readings=vote.readings,
        path=tuple(path),
        closed=closed,
        generation=vote.first.generation,
    )


def _at_ms(info: FrameInfo) -> float:
    return info.media_time_ms if info.media_time_ms is not None else info.captured_at_ns / 1e6
