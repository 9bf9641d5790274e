"""Draws what was read into a video: a box around each line, and its text beside it.

Sizes, frame times (also uneven ones) and sound stay as they are. Between the frames that were read, boxes move along
their path or stand still, see `search.timeline`. Texts are drawn with the font inside OpenCV: Latin, Greek, Cyrillic,
Chinese, Japanese, Korean, Vietnamese; Hebrew and Arabic letters unjoined; Thai and Indic scripts come out as ``?``.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from av.audio.stream import AudioStream
from av.container import InputContainer, OutputContainer
from av.video.stream import VideoStream

from ocrstream.errors import ConfigError, SourceError
from ocrstream.files import whole_file
from ocrstream.geometry import Polygon, bounding_box, polygon_size_wh, scale_polygon
from ocrstream.picture import Image
from ocrstream.storage import DocumentStore, Filter
from search.timeline import Sighting, Timeline, timeline

SUFFIXES = (".mp4", ".mkv", ".mov")
"""Containers that keep the time of every frame."""

Painter = Callable[[Image, float, Sequence[Polygon]], Image]
"""Makes the picture that texts are drawn into: of a frame, its time in milliseconds, and where the texts are in it that
were there before."""

_SOUND_IN_MP4 = {"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac"}
_BOX_BGR = (127, 4, 240)
_LABEL_BGR = (30, 26, 22)
_LABEL_OPACITY = 0.8
_SMALLEST_LETTERS_PX = 11
_LARGEST_LETTERS_PX = 34


@dataclass(frozen=True, slots=True)
class Annotated:
    """What became of a video.

    Attributes:
        frames: frames written.
        texts: texts that were drawn.
        codec: how the pictures are encoded.
        has_sound: whether the sound came along; False too where there was none.
    """

    frames: int
    texts: int
    codec: str
    has_sound: bool


def annotate(
    video: Path,
    store: DocumentStore,
    out: Path,
    source_id: str,
    where: Filter | None = None,
    progress: Callable[[float], None] | None = None,
    under: Painter | None = None,
) -> Annotated:
    """Write a copy of a video with what the store knows of it drawn in.

    Args:
        video: the video file.
        store: what was read in it.
        out: where the copy goes: an .mp4, .mkv or .mov; it is there only when it is complete.
        source_id: what the video is called in the store.
        where: a time and a confidence to keep to.
        progress: called with the share that is done, 0 to 1; where the video's length is unknown, never.
        under: paints each frame before the texts are drawn into it.

    Raises:
        SourceError: the video cannot be read, or the copy cannot be written.
        ConfigError: the store has nothing of that source, it was read in a part of the picture only, or the copy's
            name will not do.
        StoreError: the store is away.
    """
    check_files(video, out)
    seen = timeline(store, source_id, where)
    if seen.size_wh is None:
        raise ConfigError(f"nothing of {source_id!r} is stored: read it first with `ocrstream run {video}`")
    try:
        with whole_file(out) as unfinished:
            return _copy(video, unfinished, seen, progress, under)
    except av.error.FFmpegError as error:
        raise SourceError(f"cannot annotate {video}: {error.strerror or error}") from error
    except OSError as error:
        raise SourceError(f"cannot write {out}: {error.strerror or error}; give another place with -o") from error


def check_files(video: Path, out: Path) -> None:
    """See that there is a video and a place for its copy, before hours go into reading it.

    Raises:
        SourceError: there is no such file, or no folder for the copy.
        ConfigError: the copy's name will not do.
    """
    if not video.is_file():
        raise SourceError(f"{video} is not there, or no file: only video files can be annotated")
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"cannot write {out.name}: give a name that ends in {', '.join(SUFFIXES)}")
    if not out.parent.is_dir():
        raise SourceError(f"cannot write {out}: there is no folder {out.parent}")
    if out.exists() and out.samefile(video):
        raise ConfigError(f"{out} is the video itself: give the copy another name")


def _copy(
    video: Path, out: Path, seen: Timeline, progress: Callable[[float], None] | None, under: Painter | None
) -> Annotated:
    with av.open(str(video)) as source, av.open(str(out), "w") as target:
        if not source.streams.video:
            raise SourceError(f"{video} has no picture in it")
        return _Copying(source, target, seen, under).run(progress)


class _Copying:
    """One video on its way through; the output's streams are made when the first frame shows its size."""

    def __init__(self, source: InputContainer, target: OutputContainer, seen: Timeline, under: Painter | None) -> None:
        self._source = source
        self._target = target
        self._seen = seen
        self._under = under
        self._video = source.streams.video[0]
        self._video.thread_type = "AUTO"
        self._sound = source.streams.audio[0] if source.streams.audio and _takes(target, source) else None
        self._sound_out: AudioStream | None = None
        self._out: VideoStream | None = None
        self._start_ms = (source.start_time or 0) / 1000
        self._last_ms = -1.0
        self._frames = 0

    def run(self, progress: Callable[[float], None] | None) -> Annotated:
        there = _There(self._seen.sightings)
        duration_ms = (self._source.duration or 0) / 1000
        waiting: list[av.Packet[Any]] = []
        for item in self._items():
            if isinstance(item, av.Packet):
                waiting.append(item)
            else:
                self._write(item, there)
                if progress is not None and duration_ms > 0:
                    progress(min(self._last_ms / duration_ms, 1.0))
            # Sound that comes before the first picture waits until the file's head can be written.
            if self._out is not None:
                self._write_sound(waiting)
        if self._out is None:
            raise SourceError("no picture could be decoded from the video")
        self._target.mux(self._out.encode(None))
        return Annotated(self._frames, there.count, self._out.codec_context.name, self._sound_out is not None)

    def _items(self) -> Iterator[av.VideoFrame | av.Packet[Any]]:
        """Pictures decoded, sound as it is, in the file's order; what is damaged is left out."""
        streams = [self._video] if self._sound is None else [self._video, self._sound]
        for packet in self._source.demux(streams):
            if packet.stream is self._sound:
                if packet.dts is not None:
                    yield packet
                continue
            with contextlib.suppress(av.error.InvalidDataError):
                for frame in packet.decode():
                    if isinstance(frame, av.VideoFrame):
                        yield frame

    def _write(self, frame: av.VideoFrame, there: _There) -> None:
        at_ms = self._media_ms(frame)
        image = _upright(frame)
        if self._out is None:
            self._open(image)
        assert self._out is not None
        scale_x, scale_y = self._scale(image)
        shown = [
            (scale_polygon(sighting.polygon_at(at_ms), scale_x, scale_y), sighting) for sighting in there.at(at_ms)
        ]
        if self._under is not None:
            image = self._under(image, at_ms, [polygon for polygon, each in shown if each.start_ms < at_ms - 0.5])
        for polygon, sighting in shown:
            draw(image, polygon, sighting.text)
        drawn = av.VideoFrame.from_ndarray(image, format="bgr24")
        time_base = self._out.codec_context.time_base
        drawn.time_base, drawn.pts = time_base, round((at_ms + self._start_ms) / 1000 / time_base)
        self._target.mux(self._out.encode(drawn))
        self._frames += 1

    def _media_ms(self, frame: av.VideoFrame) -> float:
        """The frame's place from the start, always rising: one without a time comes one interval later."""
        at_ms = -1.0
        if frame.pts is not None and frame.time_base is not None:
            at_ms = float(frame.pts * frame.time_base) * 1000 - self._start_ms
        if at_ms <= self._last_ms:
            at_ms = self._last_ms + 1000 / float(self._video.average_rate or 25)
        self._last_ms = at_ms
        return at_ms

    def _open(self, image: Image) -> None:
        height_px, width_px = image.shape[:2]
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        out = self._target.add_stream(codec, rate=self._video.average_rate or 25)
        assert isinstance(out, VideoStream)
        out.width, out.height = width_px, height_px
        # 4:2:0 halves the colours' sides, which takes even ones.
        out.pix_fmt = "yuv420p" if width_px % 2 == height_px % 2 == 0 else "yuv444p"
        # MPEG-4 counts time in at most 65,535ths of a second; this base keeps every common frame rate exact enough.
        out.codec_context.time_base = Fraction(1, 60_000)
        if codec == "libx264":
            out.options = {"preset": "veryfast", "crf": "20"}
        self._out = out
        if self._sound is not None:
            sound_out = self._target.add_stream_from_template(self._sound)
            assert isinstance(sound_out, AudioStream)
            self._sound_out = sound_out

    def _write_sound(self, waiting: list[av.Packet[Any]]) -> None:
        for packet in waiting:
            assert self._sound_out is not None
            packet.stream = self._sound_out
            self._target.mux(packet)
        waiting.clear()

    def _scale(self, image: Image) -> tuple[float, float]:
        assert self._seen.size_wh is not None
        scale_x, scale_y = image.shape[1] / self._seen.size_wh[0], image.shape[0] / self._seen.size_wh[1]
        if not 0.98 < scale_x / scale_y < 1.02:
            raise ConfigError(
                f"the frames that were read are {'x'.join(map(str, self._seen.size_wh))}, the video's are "
                f"{image.shape[1]}x{image.shape[0]}: it was read with --roi, or it is another video"
            )
        return scale_x, scale_y


def _takes(target: OutputContainer, source: InputContainer) -> bool:
    return target.format.name == "matroska" or source.streams.audio[0].codec_context.name in _SOUND_IN_MP4


def _upright(frame: av.VideoFrame) -> Image:
    """The frame's pixels as a player shows them, ``(H, W, 3) uint8 BGR``, free to draw on."""
    pixels = frame.to_ndarray(format="bgr24")
    return np.ascontiguousarray(np.rot90(pixels, round(frame.rotation / 90) % 4)).astype(np.uint8, copy=False)


class _There:
    """The sightings at a time, for times that rise.

    Attributes:
        count: how many have been there so far.
    """

    def __init__(self, sightings: tuple[Sighting, ...]) -> None:
        self._waiting = sorted(sightings, key=lambda sighting: sighting.start_ms, reverse=True)
        self._now: list[Sighting] = []
        self.count = 0

    def at(self, at_ms: float) -> list[Sighting]:
        # Half a millisecond of slack: the store's times are rounded.
        while self._waiting and self._waiting[-1].start_ms <= at_ms + 0.5:
            self._now.append(self._waiting.pop())
            self.count += 1
        self._now = [sighting for sighting in self._now if sighting.end_ms > at_ms + 0.5]
        return self._now


def draw(image: Image, polygon: Polygon, text: str) -> None:
    """Draw a line's box and, above it or where there is no room below it, its text.

    Args:
        image: ``(H, W, 3) uint8 BGR``, drawn on.
        polygon: in the image's pixels.
        text: what to write.
    """
    corners = np.array(polygon, dtype=np.float64).round().astype(np.int32)
    thickness_px = max(round(image.shape[0] / 480), 1)
    cv2.polylines(image, [corners], isClosed=True, color=_BOX_BGR, thickness=thickness_px, lineType=cv2.LINE_AA)
    letters_px = round(min(max(polygon_size_wh(polygon)[1] * 0.5, _SMALLEST_LETTERS_PX), _LARGEST_LETTERS_PX))
    label = _label(" ".join(text.split())[:120], letters_px)
    x0, y0, _, y1 = bounding_box(polygon)
    top = y0 - label.shape[0] - thickness_px
    _lay(image, label, round(x0), round(top if top >= 0 else y1 + thickness_px))


@lru_cache(maxsize=512)
def _label(text: str, letters_px: int) -> Image:
    """A strip with a text on it, ``(h, w, 3) uint8 BGR``."""
    font, pad_px = _font(), max(letters_px // 8, 1)
    _, _, width_px, _ = cv2.getTextSize((0, 0), text, (0, 0), font, letters_px)
    strip = np.full((letters_px + 2 * pad_px, max(width_px, 1) + 2 * pad_px, 3), _LABEL_BGR, np.uint8)
    cv2.putText(strip, text, (pad_px, pad_px + round(letters_px * 0.85)), (255, 255, 255), font, letters_px)
    return strip


@lru_cache(maxsize=1)
def _font() -> cv2.FontFace:
    return cv2.FontFace("uni")


def _lay(image: Image, label: Image, x: int, y: int) -> None:
    """Lay a label over an image; what lies outside is cut off, after it was moved in sideways as far as it goes."""
    height_px, width_px = image.shape[:2]
    x = max(min(x, width_px - label.shape[1]), 0)
    y = max(min(y, height_px - label.shape[0]), 0)
    under = image[y : y + label.shape[0], x : x + label.shape[1]]
    over = label[: under.shape[0], : under.shape[1]]
    cv2.addWeighted(over, _LABEL_OPACITY, under, 1 - _LABEL_OPACITY, 0, dst=under)
