"""Votes over a track's readings: what many sightings of one text line say together.

Every reading votes for its text with its confidence; the text with the most weight wins, and its confidence is the
mean of the readings that voted for it. An appearance is sent when it begins, when its text or best frame changes, when
it was last sent `REFRESH_S` seconds of its source's time ago, and when it is over.

Another text in the same place begins a new appearance. It takes two readings in a row: of anything that is nothing like
the winner (a slide, a caption), or, where it differs little (a clock, ``B12`` and then ``B2``), of the same text, both
sure, behind a text that was read so too. What differs little otherwise is a misreading, and voted on. Texts that are
alike when folded never differ: that is what a recogniser confuses.

Where a source's frames begin or end (a start, a stop, the border of a replay, a gap in its time) nobody can know
whether a text was steady. There one sure reading is enough: it counts as steady in the first frame, and in the last one
it is an appearance of its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from rapidfuzz.distance import Levenshtein

from ocrstream.folding import are_alike, folded_text
from ocrstream.geometry import Polygon, polygon_size_wh
from ocrstream.messages import GONE_AFTER_S, SURE, Appearance, FrameInfo, Text

REFRESH_S = 1.0
MOVED_PX = 4.0
"""A path point is kept when the line has moved this far from the last one."""

LONGEST_PATH = 128
"""A sign may be in view for months, before a camera that shakes: of a longer path every second point is let go."""

UNLIKE = 0.5
"""Texts whose edit distance is a larger share of the longer one are different texts and not one text misread."""

MOST_CANDIDATES = 32
"""Texts that are voted on; beyond that the weakest is given up."""


@dataclass(slots=True)
class _Candidate:
    """One text of a track: the confidences that were counted for it, added up, and how many they were."""

    weight: float = 0.0
    votes: int = 0


@dataclass(slots=True)
class _Votes:
    """An open appearance.

    Attributes:
        before: the reading that was counted last.
        steady: the text that was steadily read last: twice in a row, both sure.
        waiting: a reading that differs; the next one tells whether it was a misreading or another text.
    """

    appearance_id: str
    first: FrameInfo
    last: FrameInfo
    path: list[tuple[float, Polygon]]
    last_polygon: Polygon
    best_frame_id: str
    best_view: float = 0.0
    readings: int = 0
    candidates: dict[str, _Candidate] = field(default_factory=dict)
    before: Text | None = None
    steady: str | None = None
    waiting: tuple[FrameInfo, Text] | None = None
    sent: tuple[str, str] | None = None
    sent_at_ns: int = 0

    def winner(self) -> tuple[str, float]:
        text, candidate = max(self.candidates.items(), key=lambda found: (found[1].weight, found[0]))
        return text, candidate.weight / candidate.votes

    def agrees(self, text: str) -> bool:
        return are_alike(text, self.winner()[0]) or (self.steady is not None and are_alike(text, self.steady))

    def seen_at_ns(self) -> int:
        """When its place was last read, whatever it said."""
        return (self.waiting[0] if self.waiting else self.last).captured_at_ns

    def vote(self, text: str, confidence: float) -> None:
        candidate = self.candidates.setdefault(text, _Candidate())
        candidate.weight += confidence
        candidate.votes += 1
        if len(self.candidates) > MOST_CANDIDATES:
            others = (other for other in self.candidates if other != text)
            del self.candidates[min(others, key=lambda other: self.candidates[other].weight)]


@dataclass(slots=True)
class _Source:
    """A source (or segment) and generation: the frames it was followed from and to, and its votes by track."""

    first: FrameInfo
    last: FrameInfo
    votes: dict[str, _Votes] = field(default_factory=dict)


class Ballot:
    """The open appearances of all sources of one process."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], _Source] = {}

    def count(self, info: FrameInfo, lines: tuple[Text, ...]) -> tuple[Appearance, ...]:
        """Count a frame's readings; the appearances that there is something new to say of.

        A frame older than the last one (delivered again, out of order) is counted too: a vote more changes little.
        """
        key = info.key, info.generation
        news: list[Appearance] = []
        if key in self._open and _is_gone(info, self._open[key].last.captured_at_ns):
            news += self.close(*key)
        source = self._open.setdefault(key, _Source(info, info))
        source.last, votes = info, source.votes
        for line in lines:
            if line.region.track_id is not None:
                is_first = info.frame_id == source.first.frame_id
                news += _count(votes, line.region.track_id, info, line, is_first=is_first)
        for track_id, vote in list(votes.items()):
            closed = _is_gone(info, vote.seen_at_ns())
            if closed:
                _count_waiting(vote)
            winner = (vote.winner()[0], vote.best_frame_id)
            is_seen = vote.seen_at_ns() == info.captured_at_ns
            due = is_seen and info.captured_at_ns - vote.sent_at_ns >= REFRESH_S * 1e9
            if closed or due or vote.sent != winner:
                vote.sent, vote.sent_at_ns = winner, info.captured_at_ns
                news.append(_appearance(vote, closed=closed))
            if closed:
                del votes[track_id]
        return tuple(news)

    def close(self, key: str, generation: int) -> tuple[Appearance, ...]:
        """End all open appearances of a source (or segment) and generation; they are sent a last time."""
        source = self._open.pop((key, generation), None)
        if source is None:
            return ()
        ended = []
        for track_id, vote in source.votes.items():
            last = vote.waiting
            if last is not None and last[0] is source.last and last[1].confidence >= SURE:
                ended += [vote, _opened(track_id, *last)]
            else:
                _count_waiting(vote)
                ended.append(vote)
        return tuple(_appearance(vote, closed=True) for vote in ended)


def _is_gone(info: FrameInfo, seen_at_ns: int) -> bool:
    return info.captured_at_ns - seen_at_ns > GONE_AFTER_S * 1e9


def _count(votes: dict[str, _Votes], track_id: str, info: FrameInfo, line: Text, *, is_first: bool) -> list[Appearance]:
    """Count one reading; the appearance that it ends, where its text has replaced another."""
    vote = votes.get(track_id)
    if vote is None:
        votes[track_id] = vote = _opened(track_id, info, line)
        if is_first and line.confidence >= SURE:
            vote.steady = line.text
        return []
    if vote.agrees(line.text):
        _count_waiting(vote)
        _add(vote, info, line)
    elif vote.waiting is None:
        vote.waiting = info, line
    elif _is_another(vote, vote.waiting[1], line):
        votes[track_id] = _opened(track_id, *vote.waiting)
        _add(votes[track_id], info, line)
        return [_appearance(vote, closed=True)]
    else:
        is_same = are_alike(vote.waiting[1].text, line.text)
        _count_waiting(vote)
        if is_same and line.confidence < SURE:
            _add(vote, info, line)
        else:
            vote.waiting = info, line
    return []


def _is_another(vote: _Votes, first: Text, second: Text) -> bool:
    """Whether two readings in a row, neither of which agrees with the vote, are another text in its place."""
    if all(_is_unlike(reading.text, vote.winner()[0]) for reading in (first, second)):
        return True
    return vote.steady is not None and _are_steady(first, second)


def _count_waiting(vote: _Votes) -> None:
    """Vote on the reading that differed: it was a misreading."""
    if vote.waiting is not None:
        _add(vote, *vote.waiting)
        vote.waiting = None


def _are_steady(first: Text, second: Text) -> bool:
    return min(first.confidence, second.confidence) >= SURE and are_alike(first.text, second.text)


def _opened(track_id: str, info: FrameInfo, line: Text) -> _Votes:
    """A new appearance. Its id is its track's where it begins with it, so that what is delivered again says the same.

    Where it begins later (another text in the same place, a recogniser that was started again) the frame is part of the
    id, so that it replaces nothing that was said of the track before.
    """
    starts_track = track_id.startswith(info.frame_id)
    polygon = line.region.polygon
    vote = _Votes(
        track_id if starts_track else f"{track_id}~{info.frame_id}",
        info,
        info,
        [(_at_ms(info), polygon)],
        polygon,
        info.frame_id,
    )
    _add(vote, info, line)
    return vote


def _is_unlike(text: str, other: str) -> bool:
    return Levenshtein.normalized_distance(folded_text(text), folded_text(other)) > UNLIKE


def _add(vote: _Votes, info: FrameInfo, line: Text) -> None:
    polygon = line.region.polygon
    if _distance_px(vote.path[-1][1], polygon) >= MOVED_PX:
        if vote.path[-1][0] != _at_ms(vote.last):
            # The line stood still until the last frame: without this point it would seem to have drifted all along.
            vote.path.append((_at_ms(vote.last), vote.last_polygon))
        vote.path.append((_at_ms(info), polygon))
        if len(vote.path) > LONGEST_PATH:
            del vote.path[1:-1:2]
    vote.last, vote.last_polygon = info, polygon
    vote.readings += 1
    vote.vote(line.text, line.confidence)
    if vote.before is not None and _are_steady(vote.before, line):
        vote.steady = line.text
    vote.before = line
    view = line.confidence * polygon_size_wh(polygon)[1]
    # A view that is hardly better is not worth another best frame.
    if view > vote.best_view * 1.1:
        vote.best_view, vote.best_frame_id = view, info.frame_id


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


def _distance_px(a: Polygon, b: Polygon) -> float:
    return max(max(abs(p[0] - q[0]), abs(p[1] - q[1])) for p, q in zip(a, b, strict=True))
