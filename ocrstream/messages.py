"""What travels between the stages, as typed payloads; `ocrstream.wire` says how they look as records.

==========  ===================================  ==========================================================
message     topic                                what it is
==========  ===================================  ==========================================================
Frame       ``ocr.frames``, ``ocr.replay``       one image of a source, for the first time or once again
Crops       ``ocr.crops``                        the text lines of one frame, cut out
Texts       ``ocr.texts``                        what they say
DeadLetter  ``ocr.dead-letters``                 a record that could not be processed, with its reason
==========  ===================================  ==========================================================
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from ocrstream.geometry import Polygon
from ocrstream.picture import Picture

FRAMES = "ocr.frames"
CROPS = "ocr.crops"
TEXTS = "ocr.texts"
REPLAY = "ocr.replay"
DEAD_LETTERS = "ocr.dead-letters"
TOPICS = (FRAMES, CROPS, TEXTS, REPLAY, DEAD_LETTERS)

FIRST_READING = 1
"""The generation of a frame's first reading; a replay's generation is its start in milliseconds since 1970."""

MAX_ID_LENGTH = 200

GONE_AFTER_S = 2.0
"""A text line that is not seen for so long, in its source's time, has gone: its track and its appearance are over."""

LONGEST_GAP_S = 60.0
"""Nobody knows what was in view for longer than this while nobody looked: what is open and not heard of is over, and
what is seen then is another text."""

SURE = 0.9
"""A reading of at least this confidence is sure; two alike in a row are steady: such a text is taken to stand there."""


def source_key(source_id: str, segment: int | None = None) -> str:
    """The record key of a source, or of one segment of a long file."""
    return source_id if segment is None else f"{source_id}#{segment}"


def make_frame_id(source_id: str, *position: str | int) -> str:
    """The identity of a frame: the same frame of the same source always gets the same id.

    Args:
        source_id: the source.
        position: the capture time in nanoseconds (live), or what identifies a place in a file for good (its
            fingerprint and media time).

    Returns:
        24 hexadecimal digits, fit for a document id, a file name and a URL.
    """
    text = "\x1f".join([source_id, *map(str, position)])
    # A file name of another encoding holds surrogates.
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=12).hexdigest()


@dataclass(frozen=True, slots=True)
class PictureRef:
    """Where a frame's picture lies in Kafka, as long as the topic keeps it."""

    topic: str
    partition: int
    offset: int


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What made a reading.

    Attributes:
        name: the engine's name, as in ``--detector ppocr``.
        weights: the first 12 hexadecimal digits of the SHA-256 of its weights.
    """

    name: str
    weights: str


@dataclass(frozen=True, slots=True)
class FrameInfo:
    """A frame's identity and origin, without its picture.

    Attributes:
        source_id: the camera, stream or file it comes from, as the user named it.
        frame_id: see `make_frame_id`.
        captured_at_ns: when it was taken, nanoseconds since 1970 UTC.
        width_px: the frame's width; polygons are in these pixels, also where the picture was shrunk to be sent.
        height_px: the frame's height.
        live: whether time does not wait for it: under load the frames of a live source are dropped, newest kept.
        media_time_ms: its place in a video file, in milliseconds from the start; None otherwise.
        path: the image file it is, for images and folders; None otherwise.
        segment: the part of a long file it belongs to, so that a backfill spreads over partitions; None otherwise.
        generation: which reading of the frame this is: `FIRST_READING`, or a replay's; a higher one supersedes.
        detector: the engine a replay asks for; None means the consumer's own.
        recognizer: likewise.
        picture: where the picture lies in Kafka; None in the embedded mode.
        taken_at_ns: when the producer handed it on, to measure delays with; no part of what the frame is.
    """

    source_id: str
    frame_id: str
    captured_at_ns: int
    width_px: int
    height_px: int
    live: bool
    media_time_ms: float | None = None
    path: str | None = None
    segment: int | None = None
    generation: int = FIRST_READING
    detector: str | None = None
    recognizer: str | None = None
    picture: PictureRef | None = None
    taken_at_ns: int = field(default=0, compare=False)

    @property
    def at_ms(self) -> float:
        """Its time on a path: its place in the video file, or when it was taken, in milliseconds."""
        return self.captured_at_ns / 1e6 if self.media_time_ms is None else self.media_time_ms

    @property
    def key(self) -> str:
        """The record key: one source's (or segment's) frames stay in order on one partition."""
        return source_key(self.source_id, self.segment)


@dataclass(frozen=True, slots=True)
class Frame:
    """One image of a source."""

    info: FrameInfo
    picture: Picture


@dataclass(frozen=True, slots=True)
class Region:
    """Where one text line is in a frame.

    Attributes:
        line_number: its place in reading order, from 0; with the frame id it is the line's identity.
        polygon: four points in the frame's own pixels, clockwise from the text's top-left.
        detector_score: how sure the detector is that this is text, 0 to 1.
        track_id: the text line followed over frames that this is one sighting of; None where nothing follows.
        words: where each of its words stands, in the frame's own pixels, as the detector found them; empty where it
            found lines only.
    """

    line_number: int
    polygon: Polygon
    detector_score: float
    track_id: str | None = None
    words: tuple[Polygon, ...] = ()


@dataclass(frozen=True, slots=True)
class Sight:
    """Where a line was at a time: capture time in nanoseconds since 1970 UTC, and media time for files."""

    at_ns: int
    media_time_ms: float | None
    polygon: Polygon


@dataclass(frozen=True, slots=True)
class Crop:
    """A region's pixels, upright: the text runs from left to right.

    Attributes:
        region: where it is.
        pictures: one a word, or one of the whole line; none where it is seen *as last read*: it is a known line, and
            nothing new can be read of it.
        view: how well it can be read, 0 to 1.
        is_changed: whether its picture is another one than what was read of the line before, or may be: then it may
            say another text, and otherwise it is one more reading of the same.
        before: where it was before this frame, oldest first, as far as nothing was said of that: it was there a while
            when the detector found it.
    """

    region: Region
    pictures: tuple[Picture, ...]
    view: float = 1.0
    is_changed: bool = True
    before: tuple[Sight, ...] = ()


@dataclass(frozen=True, slots=True)
class Crops:
    """All lines of one frame that are in sight, also when there are none: then the frame is known to hold no text.

    Attributes:
        info: the frame.
        detector: what found the lines.
        crops: the lines.
        is_kept: whether a document is made of the frame; of others only where known lines are is told.
        is_whole: whether all of its lines are to be read, so that a newer frame can stand in for it.
        followed_since_ns: capture time of the first frame from which this detector has followed the source's lines;
            another one names them anew. 0 where nothing is followed.
        picture: the whole frame's; it stays in the process and is never sent over Kafka.
    """

    info: FrameInfo
    detector: EngineInfo
    crops: tuple[Crop, ...]
    is_kept: bool = True
    is_whole: bool = True
    followed_since_ns: int = 0
    picture: Picture | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a line: what it says, where it stands in the frame's own pixels, and how sure that is, 0 to 1."""

    text: str
    polygon: Polygon
    confidence: float


@dataclass(frozen=True, slots=True)
class Text:
    """A region that was read.

    Attributes:
        region: where it is.
        text: what it says.
        confidence: the recogniser's, 0 to 1.
        words: the text's words, in their order; empty where it is only one.
    """

    region: Region
    text: str
    confidence: float
    words: tuple[Word, ...] = ()


@dataclass(frozen=True, slots=True)
class Appearance:
    """One text over time: what its track's readings say together, as of now.

    Attributes:
        track_id: identity; the same track sends itself again, with a higher version, whenever it changes.
        source_id: where it was seen.
        text: by vote over the readings.
        confidence: of the voted text, 0 to 1.
        first_at_ns: first seen, nanoseconds since 1970 UTC.
        last_at_ns: last seen.
        first_ms: the same in media time, for files.
        last_ms: likewise.
        best_frame_id: the frame that shows it best.
        readings: how many readings were voted on.
        path: `(media or capture time in ms, polygon)`, straight between two entries.
        closed: whether it has gone.
        generation: the reading's generation, as in `FrameInfo`.
    """

    track_id: str
    source_id: str
    text: str
    confidence: float
    first_at_ns: int
    last_at_ns: int
    first_ms: float | None
    last_ms: float | None
    best_frame_id: str
    readings: int
    path: tuple[tuple[float, Polygon], ...]
    closed: bool
    generation: int = FIRST_READING

    @property
    def version(self) -> tuple[int, int]:
        """Later readings and later sightings win."""
        return self.generation, self.last_at_ns


@dataclass(frozen=True, slots=True)
class Texts:
    """Everything that was read in one frame, in reading order: what the index holds of it.

    Attributes:
        info: the frame.
        detector: what found the lines.
        recognizer: what read them.
        lines: those that say anything.
        appearances: what there is new to say of texts over time.
        is_kept: whether a document is made of the frame; where not, there are no lines.
        picture: the whole frame's; it stays in the process.
    """

    info: FrameInfo
    detector: EngineInfo
    recognizer: EngineInfo
    lines: tuple[Text, ...]
    appearances: tuple[Appearance, ...] = ()
    is_kept: bool = True
    picture: Picture | None = field(default=None, compare=False)

    @property
    def text(self) -> str:
        """All lines in reading order, one a line."""
        return "\n".join(line.text for line in self.lines)


@dataclass(frozen=True, slots=True)
class RawRecord:
    """A record as the wire has it."""

    key: str
    value: bytes
    headers: Mapping[str, bytes]
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that could not be processed, with its reason; it can be sent again as it was."""

    topic: str
    partition: int
    offset: int
    stage: str
    reason: str
    traceback: str
    record: RawRecord

    @property
    def key(self) -> str:
        """The record's own key."""
        return self.record.key


Message = Frame | Crops | Texts | DeadLetter

MESSAGE_OF_TOPIC: Mapping[str, type[Message]] = {
    FRAMES: Frame,
    REPLAY: Frame,
    CROPS: Crops,
    TEXTS: Texts,
    DEAD_LETTERS: DeadLetter,
}


def key_of(message: Message) -> str:
    """The record key of a message."""
    return message.key if isinstance(message, DeadLetter) else message.info.key


def timestamp_ms_of(message: Message) -> int:
    """The record timestamp of a message: capture time, in milliseconds since 1970."""
    if isinstance(message, DeadLetter):
        return message.record.timestamp_ms
    return message.info.captured_at_ns // 1_000_000
