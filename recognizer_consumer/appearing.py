"""One open appearance: what was read of it, what these readings say together, and where it was.

Which readings belong to it is decided in `recognizer_consumer.voting`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ocrstream.by_source import Pattern
from ocrstream.folding import are_alike
from ocrstream.geometry import Polygon, bounding_box, polygon_shift, polygon_size_wh
from ocrstream.lines import place_words
from ocrstream.messages import SURE, Appearance, FrameInfo, Region, Sight, Text, Word
from recognizer_consumer.calibration import Calibration
from recognizer_consumer.consensus import Consensus, Voted
from recognizer_consumer.likeness import is_unlike

MOVED_PX = 4.0
"""A path point is kept when the line has moved this far from the last one."""

LONGEST_PATH = 128
"""A sign may be in view for months, before a camera that shakes: of a longer path every second point is let go."""

NEAR_EDGE = 3.0
"""What has come in over the frame's edge may be found without its last word while the edge is so many heights away."""

WEIGHTY = 10
"""What was read before a restart weighs as much as so many readings at most."""


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
        is_changed: whether its picture is another one than what was read before, or may be.
        words: the text's words and where they stand; empty where it is only one.
        before: where the line was before this frame, as in `Crop`.
    """

    region: Region
    text: str
    confidence: float
    characters: tuple[float, ...] = ()
    view: float = 1.0
    fresh: bool = True
    is_changed: bool = True
    words: tuple[Word, ...] = ()
    before: tuple[Sight, ...] = ()


@dataclass(slots=True)
class Trail:
    """Where a line was, from one frame to another.

    Attributes:
        first: the frame in which it was seen first.
        last: and last.
        path: `(media or capture time in ms, polygon)` where it moved.
        polygon: where it was last.
    """

    first: FrameInfo
    last: FrameInfo
    path: list[tuple[float, Polygon]]
    polygon: Polygon

    @classmethod
    def begin(cls, info: FrameInfo, polygon: Polygon, before: Sequence[Sight] = ()) -> Trail:
        """A line that is seen for the first time, and that was there before, as in `Crop`."""
        # Of the frames before only the times are known.
        seen = [
            (replace(info, captured_at_ns=sight.at_ns, media_time_ms=sight.media_time_ms), sight.polygon)
            for sight in before
        ]
        (first, place), *later = [*seen, (info, polygon)]
        trail = cls(first, first, [(first.at_ms, place)], place)
        for frame, place in later:
            trail.see(frame, place)
        return trail

    def see(self, info: FrameInfo, polygon: Polygon) -> None:
        """Take note of where the line is; a frame that was overtaken tells nothing more of that."""
        if info.captured_at_ns < self.last.captured_at_ns:
            return
        if polygon_shift(self.path[-1][1], polygon) >= MOVED_PX:
            if self.path[-1][0] != self.last.at_ms:
                # The line stood still until the last frame: without this point it would seem to have drifted all along.
                self.path.append((self.last.at_ms, self.polygon))
            self.path.append((info.at_ms, polygon))
            if len(self.path) > LONGEST_PATH:
                del self.path[1:-1:2]
        self.last, self.polygon = info, polygon

    def points(self) -> tuple[tuple[float, Polygon], ...]:
        """The path, up to where the line was last."""
        end = () if self.path[-1][0] == self.last.at_ms else ((self.last.at_ms, self.polygon),)
        return (*self.path, *end)


@dataclass(slots=True)
class Waiting:
    """A reading that differs, and where it was seen since, as last read."""

    line: Sighting
    trail: Trail


@dataclass(slots=True)
class OpenAppearance:
    """A text that stands in a place as of now.

    Attributes:
        before: the reading that was counted last, and when.
        steady: the text that was steadily read last: twice in a row, both sure.
        is_settled: whether anything was read surely, or twice in a row; what was not is passing.
        is_torn: whether the frame's edge has cut it off, and no more of it was read since.
        is_at_edge: whether it was seen at the frame's edge since it was read last.
        comes_in: whether the frame's edge has ever cut it off before it was read twice: more of it may come in.
        less: what was read of it last, where that was less than stands there.
        in_part_until_ns: until when what is less of it is all that can be seen of it.
        waiting: a reading that differs; what follows tells whether it was a misreading or another text.
        clearest: the best view's score.
        tallest_px: how high the line was at most where it was read.
        best_view: how good the best frame is: its view's score by its confidence and height.
        sent: its text and best frame as they were told last.
    """

    appearance_id: str
    calibration: Calibration
    patterns: tuple[Pattern, ...]
    trail: Trail
    best_frame_id: str
    best_view: float = 0.0
    clearest: float = 0.0
    tallest_px: float = 0.0
    readings: int = 0
    consensus: Consensus = field(default_factory=Consensus)
    before: tuple[FrameInfo, Sighting] | None = None
    steady: str | None = None
    is_settled: bool = False
    is_torn: bool = False
    is_at_edge: bool = False
    comes_in: bool = False
    less: str | None = None
    in_part_until_ns: int = 0
    waiting: Waiting | None = None
    sent: tuple[str, str] | None = None
    sent_at_ns: int = 0
    _winner: Voted | None = None

    @classmethod
    def resumed(
        cls, appearance: Appearance, info: FrameInfo, calibration: Calibration, patterns: tuple[Pattern, ...]
    ) -> OpenAppearance:
        """An appearance that goes on, as far as what was said of it last tells.

        Args:
            appearance: what was said.
            info: any frame of its source and generation.
            calibration: the engine's.
            patterns: the source's formats.
        """
        # Of its frames only the times are known.
        first = replace(info, captured_at_ns=appearance.first_at_ns, media_time_ms=appearance.first_ms)
        last = replace(info, captured_at_ns=appearance.last_at_ns, media_time_ms=appearance.last_ms)
        polygon = appearance.path[-1][1]
        path = list(appearance.path)
        if len(path) > 1 and polygon_shift(path[-2][1], polygon) < MOVED_PX:
            path.pop()  # it stood still until then
        trail = Trail(first, last, path, polygon)
        vote = cls(appearance.track_id, calibration, patterns, trail, appearance.best_frame_id)
        sure = calibration.reading_for(appearance.confidence)
        line = Sighting(Region(0, polygon, 1.0), appearance.text, sure)
        for _ in range(min(appearance.readings, WEIGHTY)):
            vote.consensus.add(line.text, sure)
        vote.readings, vote.before, vote.is_settled = appearance.readings, (last, line), True
        vote.steady = line.text
        # How well it was seen is not known: no view is clearly better, and the best frame stays for now.
        vote.tallest_px = polygon_size_wh(polygon)[1]
        vote.clearest, vote.best_view = 1.0, vote.tallest_px * sure
        return vote

    def winner(self) -> Voted:
        """What its readings say together."""
        if self._winner is None:
            self._winner = self.consensus.voted(self.calibration, self.patterns)
        return self._winner

    def agrees(self, text: str) -> bool:
        """Whether a text is what stands here."""
        return are_alike(text, self.winner().text) or (self.steady is not None and are_alike(text, self.steady))

    def says_again(self, line: Sighting) -> bool:
        """Whether a reading is of the same picture as the last one that counts, and says the same."""
        assert self.before is not None
        return self.waiting is None and not line.is_changed and are_alike(line.text, self.before[1].text)

    def is_contradicted(self, line: Sighting) -> bool:
        """Whether a reading and the last one that counts both say surely what is nothing like all readings together."""
        assert self.before is not None
        return are_steady(self.before[1], line) and is_unlike(line.text, self.winner().text)

    def said_at(self, region: Region) -> Text:
        """What stands here now, where the line is."""
        assert self.before is not None
        waiting = self.waiting
        if waiting is None:
            winner, read = self.winner(), self.before[1]
        else:
            # Its picture has changed: what was read before is old, whichever of them is right.
            alone = Consensus()
            read = waiting.line
            alone.add(read.text, read.confidence, read.characters, read.view)
            winner = alone.voted(self.calibration, self.patterns)
        confidence = round(winner.confidence, 4)
        known = [word.polygon for word in read.words]
        places = place_words(winner.text, region.polygon, known, read.region.polygon)
        words = tuple(Word(word, place, confidence) for word, place in places)
        return Text(region, winner.text, confidence, words if len(words) > 1 else ())

    def seen_at_ns(self) -> int:
        """When its place was last seen, whatever it said."""
        return (self.waiting.trail if self.waiting else self.trail).last.captured_at_ns

    def is_in_part(self, info: FrameInfo) -> bool:
        """Whether only a part of it can be seen in a frame: its place is then not the part's."""
        return info.captured_at_ns < self.in_part_until_ns

    def see(self, info: FrameInfo, polygon: Polygon) -> None:
        """Take note of where it is seen."""
        self.trail.see(info, self.trail.polygon if self.is_in_part(info) else polygon)

    def touch_edge(self) -> None:
        """Take note that the frame's edge may cut the line off, where it is not known already what it says."""
        self.is_at_edge = True
        if self.comes_in or not (self.is_settled and self.readings > 1):
            self.is_torn = self.comes_in = True

    def may_come_in(self) -> bool:
        """Whether more may be read of the line because it came in only just before it was read last."""
        assert self.before is not None
        info, line = self.before
        x0, _, x1, _ = bounding_box(line.region.polygon)
        near_px = NEAR_EDGE * polygon_size_wh(line.region.polygon)[1]
        return self.is_torn or (self.comes_in and min(x0, info.width_px - x1) <= near_px)

    def grow(self, info: FrameInfo, line: Sighting) -> None:
        """Count a reading of more of the line: what was read of less was no vote."""
        self.waiting = None
        self.forget_votes()
        # What was found at the edge may have been read when it had left it.
        self.is_torn = self.is_at_edge
        self.add(info, line)

    def correct(self, info: FrameInfo, line: Sighting, *, is_better: bool) -> None:
        """Count a reading that differs, as it was seen from nearer, or better, than what was read before."""
        self.steady = None
        if is_better:
            self.forget_votes()
        self.add(info, line)

    def add(self, info: FrameInfo, line: Sighting) -> None:
        """Count a reading."""
        self.is_at_edge, self.less, self.in_part_until_ns = False, None, 0
        self.trail.see(info, line.region.polygon)
        self.readings += 1
        self.consensus.add(line.text, line.confidence, line.characters, line.view)
        self._winner = None
        if self.before is not None:
            before = self.before[1]
            self.is_settled = self.is_settled or are_alike(before.text, line.text)
            if are_steady(before, line):
                self.steady = line.text
        self.is_settled = self.is_settled or line.confidence >= SURE
        self.before = info, line
        self.clearest = max(self.clearest, line.view)
        height_px = polygon_size_wh(line.region.polygon)[1]
        self.tallest_px = max(self.tallest_px, height_px)
        view = line.view * line.confidence * height_px
        # A view that is hardly better is not worth another best frame.
        if view > self.best_view * 1.1:
            self.best_view, self.best_frame_id = view, info.frame_id

    def count_waiting(self) -> None:
        """Vote on the reading that differed: it was a misreading."""
        waiting, self.waiting = self.waiting, None
        if waiting is not None:
            self.add(waiting.trail.first, waiting.line)
            self.trail.see(waiting.trail.last, waiting.trail.polygon)

    def forget_votes(self) -> None:
        """Begin the vote anew: what was read so far was passing."""
        self.consensus, self._winner = Consensus(), None
        self.clearest = self.tallest_px = self.best_view = 0.0

    def settle(self, line: Sighting) -> None:
        """Take note that a reading has held."""
        self.is_settled = True
        if line.confidence >= SURE:
            self.steady = line.text

    def told(self, *, closed: bool) -> Appearance:
        """The appearance as it is sent."""
        text, confidence = self.winner()
        first, last = self.trail.first, self.trail.last
        return Appearance(
            track_id=self.appearance_id,
            source_id=first.source_id,
            text=text,
            confidence=round(confidence, 4),
            first_at_ns=first.captured_at_ns,
            last_at_ns=last.captured_at_ns,
            first_ms=first.media_time_ms,
            last_ms=last.media_time_ms,
            best_frame_id=self.best_frame_id,
            readings=self.readings,
            path=self.trail.points(),
            closed=closed,
            generation=first.generation,
        )


def are_steady(first: Sighting, second: Sighting) -> bool:
    """Whether two readings are alike and both sure."""
    return min(first.confidence, second.confidence) >= SURE and are_alike(first.text, second.text)
