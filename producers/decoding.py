"""A video opened and decoded by FFmpeg: the work of the decoder process (`producers.decoder_process`)."""

from __future__ import annotations

import json
import math
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any, NamedTuple

import av
import av.error
from av.container import InputContainer

from ocrstream.errors import SourceError
from producers.sampling import Sampler, View

LONGEST_SIDE_PX = 16_384
MOST_PIXELS = 100_000_000
"""Larger frames are refused, as `ocrstream.picture` does with images."""

GIVE_UP_AFTER = 200
"""So many failures without a frame between them are no damage but no video."""

GRAIN_MS = 0.0006
"""Media times are rounded to microseconds, so two that are closer than this are the same."""

JPEG_STREAMS = {"mjpeg", "mpjpeg", "jpeg_pipe", "image2pipe", "video4linux2,v4l2"}
"""Containers (as FFmpeg names them) whose packets are whole JPEG files, without rotation."""


@dataclass(frozen=True)
class Request:
    """What is to be read, and how.

    Attributes:
        url: what FFmpeg opens; it may hold credentials and is in no command line.
        format: FFmpeg's name of the container or device; None lets it look.
        options: FFmpeg's.
        timeout_s: how long opening and each read may take; 0 for as long as it wants.
        live: the oldest frames are dropped when they are not taken, and times are the clock's.
        roi: as in `View`.
        limit_wh: as in `View`.
        fps: as in `Sampler`.
        every: as in `Sampler`.
    """

    url: str
    format: str | None = None
    options: dict[str, str] = field(default_factory=dict)
    timeout_s: float = 0.0
    live: bool = False
    roi: tuple[int, int, int, int] | None = None
    limit_wh: tuple[int, int] | None = None
    fps: float = 0.0
    every: int = 1

    def to_json(self) -> bytes:
        """The request as it is sent."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, content: bytes) -> Request:
        """The request as it arrives."""
        fields = json.loads(content)
        for name in ("roi", "limit_wh"):
            fields[name] = None if fields[name] is None else tuple(fields[name])
        return cls(**fields)

    @property
    def view(self) -> View:
        """The part of each frame that is taken."""
        return View(self.roi, self.limit_wh)


class Decoded(NamedTuple):
    """One frame that is taken: still as FFmpeg has it, or the bytes of a JPEG that need no decoding."""

    content: av.VideoFrame | bytes
    size_wh: tuple[int, int]
    media_ms: float
    at_ns: int


class Handover:
    """Decoded frames between the thread that decodes and the one that sends; full, it waits or drops the oldest."""

    def __init__(self, capacity: int, *, drops: bool) -> None:
        self._frames: deque[Decoded] = deque()
        self._capacity = capacity
        self._drops = drops
        self._dropped = 0
        self._finished = False
        self._changed = threading.Condition()

    def put(self, frame: Decoded) -> None:
        """Add a frame."""
        with self._changed:
            if self._drops and len(self._frames) >= self._capacity:
                self._frames.popleft()
                self._dropped += 1
            self._changed.wait_for(lambda: len(self._frames) < self._capacity)
            self._frames.append(frame)
            self._changed.notify_all()

    def finish(self) -> None:
        """Tell that no frame follows."""
        with self._changed:
            self._finished = True
            self._changed.notify_all()

    def get(self, timeout_s: float) -> Decoded | None:
        """Take the oldest frame; None when none came in time, or none follows."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._finished, timeout_s)
            if not self._frames:
                return None
            frame = self._frames.popleft()
            self._changed.notify_all()
            return frame

    def take_dropped(self) -> int:
        """How many frames were dropped since this was last asked."""
        with self._changed:
            dropped, self._dropped = self._dropped, 0
            return dropped

    @property
    def is_done(self) -> bool:
        """Whether all frames were taken and none follows."""
        with self._changed:
            return self._finished and not self._frames


class NoPictureError(SourceError):
    """It opens like a video, and none of its frames can be decoded."""


class Video:
    """An opened video whose frames are taken as the request says."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._container = _open(request)
        if not self._container.streams.video:
            raise SourceError("there is sound but no picture in it")
        self._stream = self._container.streams.video[0]
        # Threads that work on several frames at once delay each by as many frames; a camera must not wait.
        self._stream.thread_type = "SLICE" if request.live else "AUTO"
        start = self._container.start_time
        self._start_ms = start / 1000 if start is not None else 0.0
        is_jpeg = self._container.format.name in JPEG_STREAMS and self._stream.codec_context.name == "mjpeg"
        self._passes_jpeg = is_jpeg and request.view.is_whole
        self._last_ms = -math.inf
        self._read_s = time.monotonic()
        self.skipped = 0
        self._frames = self._decode()
        # The first frame shows whether this is a video at all, and its rotation.
        self._first = next(self._frames, None)
        if self._first is None:
            raise NoPictureError("no picture could be decoded from it")
        request.view.output_wh(*self._first.size_wh)

    def describe(self) -> dict[str, Any]:
        """What the other end wants to know of it."""
        assert self._first is not None
        duration = self._container.duration
        return {
            "size_wh": self._first.size_wh,
            "duration_ms": duration / 1000 if duration and duration > 0 else None,
            "creation_time": self._container.metadata.get("creation_time"),
            "codec": self._stream.codec_context.name,
        }

    def frames(self, start_ms: float, end_ms: float, behind_ms: float | None) -> Iterator[Decoded]:
        """Yield the frames that are taken from ``start_ms`` (or from behind ``behind_ms``) up to before ``end_ms``."""
        sampler = Sampler(self._request.fps, self._request.every)
        target_ms = start_ms if behind_ms is None else behind_ms
        for frame in self._from(target_ms):
            if self._request.live:
                if sampler.takes(frame.at_ns / 1e6):
                    yield frame
                continue
            if frame.media_ms >= end_ms - GRAIN_MS:
                return
            # The frame to go on behind was taken, so the sampler counts from it.
            if frame.media_ms < target_ms - GRAIN_MS or not sampler.takes(frame.media_ms):
                continue
            if behind_ms is None or frame.media_ms > behind_ms + GRAIN_MS:
                yield frame

    def _from(self, target_ms: float) -> Iterator[Decoded]:
        """Frames from a time at the latest; those before it come along where seeking is not exact."""
        first, self._first = self._first, None
        if first is None or target_ms <= first.media_ms or self._request.live:
            if first is not None:
                yield first
            yield from self._frames
            return
        for back_ms in (0.0, 10_000.0, math.inf):
            try:
                frames = self._sought(max(target_ms - back_ms, 0.0))
                landed = next(frames, None)
            except av.error.FFmpegError:
                break
            # Some containers land behind the place they were asked for; then another run-up is taken.
            if landed is not None and (landed.media_ms <= target_ms + GRAIN_MS or back_ms == math.inf):
                yield landed
                yield from frames
                return
        if self._last_ms == first.media_ms:
            # It cannot seek and has not tried: a stream that can only be read on.
            yield first
            yield from self._frames
            return
        self._container.close()
        self._container = _open(self._request)
        self._stream = self._container.streams.video[0]
        self._last_ms = -math.inf
        yield from self._decode()

    def _sought(self, target_ms: float) -> Iterator[Decoded]:
        self._container.seek(int((target_ms + self._start_ms) * 1000), backward=True)
        self._last_ms = -math.inf
        return self._decode()

    def _decode(self) -> Iterator[Decoded]:
        """Decode on, past what is damaged."""
        failures = 0
        moved = True
        while moved and failures < GIVE_UP_AFTER:
            moved = False
            try:
                for packet in self._container.demux(self._stream):
                    moved = True
                    self._read_s = time.monotonic()
                    for frame in self._decode_packet(packet):
                        failures = 0
                        yield frame
            except av.error.InvalidDataError:
                # Damage ends the demuxer's iteration, not the file: it goes on behind it, if it moves at all.
                failures += 1
                self.skipped += 1
            except av.error.EOFError:
                return
            else:
                return

    def _decode_packet(self, packet: av.Packet[av.VideoStream]) -> Iterator[Decoded]:
        at_ns = time.time_ns()
        if self._passes_jpeg and packet.size:
            data = bytes(packet)
            if _is_whole_jpeg(data):
                context = self._stream.codec_context
                yield Decoded(
                    data, (context.width, context.height), self._media_ms(packet.pts, packet.time_base), at_ns
                )
                return
        try:
            frames = packet.decode()
        except av.error.InvalidDataError:
            self.skipped += 1
            return
        for frame in frames:
            if not isinstance(frame, av.VideoFrame):
                continue
            if frame.is_corrupt:
                self.skipped += 1
                continue
            yield Decoded(frame, upright_wh(frame), self._media_ms(frame.pts, frame.time_base), at_ns)

    def _media_ms(self, pts: int | None, time_base: Fraction | None) -> float:
        """Milliseconds since the start, always rising: frames without a time come one frame interval later."""
        rate = self._stream.average_rate or self._stream.guessed_rate or 25
        media_ms = -math.inf
        if pts is not None and time_base is not None:
            media_ms = round(float(pts * time_base * 1000) - self._start_ms, 3)
        if media_ms <= self._last_ms or media_ms < 0:
            media_ms = max(round(self._last_ms + 1000 / float(rate), 3), 0.0)
        self._last_ms = media_ms
        return media_ms

    @property
    def idle_s(self) -> float:
        """How long ago the last packet came."""
        return time.monotonic() - self._read_s


def _open(request: Request) -> InputContainer:
    timeout = (request.timeout_s, request.timeout_s) if request.timeout_s else None
    try:
        return av.open(request.url, format=request.format, options=dict(request.options), timeout=timeout)
    except av.error.ArgumentError:
        if request.format is None:
            raise
        # A camera that has nothing like what was asked for is taken as it is.
        return av.open(request.url, format=request.format, timeout=timeout)


def upright_wh(frame: av.VideoFrame) -> tuple[int, int]:
    """The size of a frame as a player shows it.

    Raises:
        SourceError: no camera makes frames so large.
    """
    size_wh = (frame.width, frame.height)
    if max(size_wh) > LONGEST_SIDE_PX or size_wh[0] * size_wh[1] > MOST_PIXELS:
        raise SourceError(
            f"its frames are {size_wh[0]}x{size_wh[1]} pixels; at most {LONGEST_SIDE_PX} a side and "
            f"{MOST_PIXELS // 10**6} megapixels are read. Scale it down first."
        )
    return size_wh[::-1] if round(frame.rotation / 90) % 2 else size_wh


def _is_whole_jpeg(data: bytes) -> bool:
    """Whether a JPEG can be used as it is: whole, and with the Huffman tables that webcams like to leave out."""
    scan = data.find(b"\xff\xda")
    return data[:2] == b"\xff\xd8" and b"\xff\xd9" in data[-32:] and 0 <= data.find(b"\xff\xc4") < scan
