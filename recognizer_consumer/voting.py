"""Votes over a track's readings: what many sightings of one text line say together.

Every reading votes for its text with its confidence; the text with the most weight wins, and its confidence is the
mean of the readings that voted for it. An appearance is sent when it begins, when its text or best frame changes, when
it was last sent `REFRESH_S` seconds of its source's time ago, and when it is over.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ocrstream.geometry import Polygon, polygon_size_wh
from ocrstream.messages import Appearance, FrameInfo, Text

CLOSED_AFTER_S = 2.0
REFRESH_S = 1.0
MOVED_PX = 4.0
"""A path point is kept when the line has moved this far from the last one."""

LONGEST_PATH = 128
"""A sign may be in view for months, before a camera that shakes: of a longer path every second point is let go."""

MOST_CANDIDATES = 32
"""Texts that are voted on; beyond that the weakest is given up."""


@dataclass(slots=True)
class _Candidate:
    """One text of a track: the confidences that were counted for it, added up, and how many they were."""

    weight: float = 0.0
    votes: int = 0


@dataclass(slots=True)
class _Votes:
    first: FrameInfo
    last: FrameInfo
    path: list[tuple[float, Polygon]]
    last_polygon: Polygon
    best_frame_id: str
    best_view: float = 0.0
    readings: int = 0
    candidates: dict[str, _Candidate] = field(default_factory=dict)
    sent: tuple[str, str] | None = None
    sent_at_ns: int = 0

    def winner(self) -> tuple[str, float]:
        text, candidate = max(self.candidates.items(), key=lambda found: (found[1].weight, found[0]))
        return text, candidate.weight / candidate.votes

    def vote(self, text: str, confidence: float) -> None:
        candidate = self.candidates.setdefault(text, _Candidate())
        candidate.weight += confidence
        candidate.votes += 1
        if len(self.candidates) > MOST_CANDIDATES:
            others = (other for other in self.candidates if other != text)
            del self.candidates[min(others, key=lambda other: self.candidates[other].weight)]


class Ballot:
    """The open appearances of all sources of one process."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], dict[str, _Votes]] = {}

    def count(self, info: FrameInfo, lines: tuple[Text, ...]) -> tuple[Appearance, ...]:
        """Count a frame's readings; the appearances that there is something new to say of.

        A frame older than the last one (delivered again, out of order) is counted too: a vote more changes little.
        """
        votes = self._open.setdefault((info.key, info.generation), {})
        for line in lines:
            if line.region.track_id is not None:
                _add(votes, line.region.track_id, info, line)
        news = []
        for track_id, vote in list(votes.items()):
            closed = info.captured_at_ns - vote.last.captured_at_ns > CLOSED_AFTER_S * 1e9
            winner = (vote.winner()[0], vote.best_frame_id)
            due = info.captured_at_ns - vote.sent_at_ns >= REFRESH_S * 1e9 and vote.last is info
            if closed or due or vote.sent != winner:
                vote.sent, vote.sent_at_ns = winner, info.captured_at_ns
                news.append(_appearance(track_id, vote, closed=closed))
            if closed:
                del votes[track_id]
        return tuple(news)

    def close(self, key: str, generation: int) -> tuple[Appearance, ...]:
        """End all open appearances of a source (or segment) and generation; they are sent a last time."""
        votes = self._open.pop((key, generation), {})
        return tuple(_appearance(track_id, vote, closed=True) for track_id, vote in votes.items())


def _add(votes: dict[str, _Votes], track_id: str, info: FrameInfo, line: Text) -> None:
    polygon = line.region.polygon
    if track_id not in votes:
        votes[track_id] = _Votes(info, info, [(_at_ms(info), polygon)], polygon, info.frame_id)
    vote = votes[track_id]
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
    view = line.confidence * polygon_size_wh(polygon)[1]
    # A view that is hardly better is not worth another best frame.
    if view > vote.best_view * 1.1:
        vote.best_view, vote.best_frame_id = view, info.frame_id


def _appearance(track_id: str, vote: _Votes, *, closed: bool) -> Appearance:
    text, confidence = vote.winner()
    path = list(vote.path)
    if path[-1][0] != _at_ms(vote.last):
        path.append((_at_ms(vote.last), vote.last_polygon))
    return Appearance(
        track_id=track_id,
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
