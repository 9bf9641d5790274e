"""The process that opens and decodes a video: ``python -m producers.decoder_process CONTROL_FD MEMORY_FD``.

FFmpeg can hang in a dead camera and crash on damaged files; here it can be killed without taking anything with it.
`producers.decoder` is the other end. Control messages are JSON over a socket, pixels go through shared memory that is
cut into slots. The other end lends slots; each comes back with a frame in it.

=======================  ==========================================================================================
from the other end       to the other end
=======================  ==========================================================================================
the `Request`            ``started``: the process runs, time-outs count from now
``go``: where to begin   ``opened``: what the file is, and that its first frame could be decoded
``slot``: one is lent    ``frame``: it is in that slot (or, of a JPEG stream, its bytes follow); ``memory``: slots are
                         larger from now; ``alive``: nothing to send, but decoding; ``end``; ``failed``: and why
=======================  ==========================================================================================

The process ends when the other end goes away, so that none is ever left behind.
"""

from __future__ import annotations

import json
import math
import mmap
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from ocrstream.errors import SourceError
from producers.sampling import Sampler, View

LONGEST_SIDE_PX = 16_384
MOST_PIXELS = 100_000_000
"""Larger frames are refused, as `ocrstream.picture` does with images."""

MOST_SLOTS = 4
"""How many slots the other end may lend."""

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


class _NoPictureError(SourceError):
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
            raise _NoPictureError("no picture could be decoded from it")
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
            yield Decoded(frame, _upright_wh(frame), self._media_ms(frame.pts, frame.time_base), at_ns)

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


class Sender:
    """Writes frames into the slots that are lent and tells the other end."""

    def __init__(self, control: Connection, memory_fd: int, view: View) -> None:
        self._control = control
        self._memory_fd = memory_fd
        self._view = view
        self._reformatter = VideoReformatter()
        self._slot_bytes = 0
        self._memory: mmap.mmap | None = None
        self.slots: queue.Queue[int] = queue.Queue()

    def tell(self, **message: Any) -> None:
        """Send a control message."""
        self._control.send_bytes(json.dumps(message).encode())

    def send(self, frame: Decoded, slot: int, *, dropped: int, skipped: int) -> None:
        """Send one frame in one slot."""
        about = {"media_ms": frame.media_ms, "at_ns": frame.at_ns, "dropped": dropped, "skipped": skipped, "slot": slot}
        if isinstance(frame.content, bytes):
            self.tell(kind="frame", size_wh=frame.size_wh, jpeg=True, **about)
            self._control.send_bytes(frame.content)
            return
        pixels = self._pixels(frame.content)
        height, width = pixels.shape[:2]
        memory = self._room_for(pixels.nbytes)
        offset = (slot + 1) * self._slot_bytes
        target = np.frombuffer(memory, np.uint8, pixels.nbytes, offset)
        np.copyto(target.reshape(height, width, 3), pixels)
        self.tell(kind="frame", size_wh=(width, height), offset=offset, jpeg=False, **about)

    def _room_for(self, nbytes: int) -> mmap.mmap:
        """The shared memory, grown for the frame: at its first, or when the stream's size changes."""
        if self._memory is None or nbytes > self._slot_bytes:
            # The new slots begin behind all old ones, where frames may still wait to be fetched. What lies before
            # them is never touched again, so it costs addresses only.
            old_end = len(self._memory) if self._memory is not None else 0
            self._slot_bytes = -(-max(nbytes, old_end) // mmap.PAGESIZE) * mmap.PAGESIZE
            total = self._slot_bytes * (MOST_SLOTS + 1)
            os.ftruncate(self._memory_fd, total)
            self._memory = mmap.mmap(self._memory_fd, total)
            self.tell(kind="memory", bytes=total)
        return self._memory

    def _pixels(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        """The part of a frame that is taken, upright: ``(H, W, 3) uint8 BGR``, a view where it can be one."""
        quarter_turns = round(frame.rotation / 90) % 4
        width, height = _upright_wh(frame)
        x, y, box_width, box_height = self._view.box(width, height)
        out_wh = self._view.output_wh(width, height)
        if (box_width, box_height) == (width, height):
            lying_wh = out_wh[::-1] if quarter_turns % 2 else out_wh
            return np.rot90(self._bgr(frame, lying_wh), quarter_turns)
        pixels = np.rot90(self._bgr(frame, (frame.width, frame.height)), quarter_turns)
        pixels = pixels[y : y + box_height, x : x + box_width]
        if out_wh == (box_width, box_height):
            return pixels
        return self._bgr(av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="bgr24"), out_wh)

    def _bgr(self, frame: av.VideoFrame, size_wh: tuple[int, int]) -> NDArray[np.uint8]:
        same = size_wh == (frame.width, frame.height)
        converted = self._reformatter.reformat(
            frame,
            *size_wh,
            "bgr24",
            interpolation=Interpolation.FAST_BILINEAR if same else Interpolation.AREA,
            threads=1,
        )
        plane = converted.planes[0]
        rows: NDArray[np.uint8] = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
        return rows[: size_wh[1], : size_wh[0] * 3].reshape(size_wh[1], size_wh[0], 3)


def run(control: Connection, memory_fd: int) -> None:
    """Serve one request."""
    request = Request.from_json(control.recv_bytes())
    video = None
    sender = Sender(control, memory_fd, request.view)
    going: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(control, sender.slots, going), daemon=True).start()
    sender.tell(kind="started")
    began_s = time.monotonic()
    try:
        video = Video(request)
        sender.tell(kind="opened", **video.describe())
        _send_all(video, request, sender, going.get())
    except SourceError as error:
        reason = "no-picture" if isinstance(error, _NoPictureError) else "unusable"
        sender.tell(kind="failed", reason=reason, message=str(error))
    except (av.error.FFmpegError, OSError) as error:
        silent_s = video.idle_s if video is not None else time.monotonic() - began_s
        sender.tell(kind="failed", **_reason(error, request.timeout_s, silent_s))
    except MemoryError:
        sender.tell(kind="failed", reason="unusable", message="its frames do not fit into memory")


def _listen(control: Connection, slots: queue.Queue[int], going: queue.Queue[dict[str, Any]]) -> None:
    """Take what the other end says; end the process when it has gone, whatever FFmpeg is doing."""
    while True:
        try:
            message = json.loads(control.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)
        if "slot" in message:
            slots.put(message["slot"])
        else:
            going.put(message)


def _send_all(video: Video, request: Request, sender: Sender, go: dict[str, Any]) -> None:
    frames = video.frames(go["start_ms"], math.inf if go["end_ms"] is None else go["end_ms"], go["behind_ms"])
    handover = Handover(4, drops=request.live)
    failures: list[Exception] = []

    def decode() -> None:
        try:
            for frame in frames:
                handover.put(frame)
        except Exception as error:
            failures.append(error)
        finally:
            handover.finish()

    threading.Thread(target=decode, daemon=True).start()
    beat_s = 1.0 if not request.timeout_s else min(request.timeout_s / 3, 1.0)
    skipped = 0
    while not handover.is_done:
        slot = sender.slots.get()
        while (frame := handover.get(beat_s)) is None and not handover.is_done:
            # Packets come, but none of their frames is taken: a low frame rate, or the way to a place in the file.
            if video.idle_s < beat_s:
                sender.tell(kind="alive", skipped=video.skipped - skipped)
                skipped = video.skipped
        if frame is not None:
            now_skipped = video.skipped
            sender.send(frame, slot, dropped=handover.take_dropped(), skipped=now_skipped - skipped)
            skipped = now_skipped
    if failures:
        raise failures[0]
    sender.tell(kind="end", skipped=video.skipped - skipped)


def _open(request: Request) -> InputContainer:
    timeout = (request.timeout_s, request.timeout_s) if request.timeout_s else None
    try:
        return av.open(request.url, format=request.format, options=dict(request.options), timeout=timeout)
    except av.error.ArgumentError:
        if request.format is None:
            raise
        # A camera that has nothing like what was asked for is taken as it is.
        return av.open(request.url, format=request.format, timeout=timeout)


def _upright_wh(frame: av.VideoFrame) -> tuple[int, int]:
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


def _reason(error: Exception, timeout_s: float, silent_s: float) -> dict[str, str]:
    """Why it failed, in the words of `producers.decoder`, and without the address that FFmpeg's message repeats."""
    # A camera that never answers is reported as sending nonsense, when the time is over.
    if timeout_s and silent_s > timeout_s * 0.9:
        return {"reason": "timeout", "message": f"nothing came for {timeout_s:g} seconds"}
    kinds: list[tuple[tuple[type[Exception], ...], str]] = [
        ((av.error.HTTPUnauthorizedError, av.error.HTTPForbiddenError), "credentials"),
        ((av.error.HTTPNotFoundError, FileNotFoundError), "not-found"),
        ((PermissionError,), "forbidden"),
        ((av.error.InvalidDataError,), "nonsense"),
        ((av.error.DemuxerNotFoundError, av.error.DecoderNotFoundError, av.error.ProtocolNotFoundError), "unusable"),
        ((av.error.ExitError, TimeoutError), "timeout"),
    ]
    reason = next((reason for kind, reason in kinds if isinstance(error, kind)), "away")
    return {"reason": reason, "message": getattr(error, "strerror", None) or type(error).__name__}


def main() -> None:
    """The process."""
    # Ctrl-C reaches the whole terminal; whether and when this process ends is for the other end to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        run(Connection(int(sys.argv[1])), int(sys.argv[2]))
    except (BrokenPipeError, ConnectionResetError):
        os._exit(0)
    # Threads may still be in FFmpeg; leaving without them is what this process is for.
    os._exit(0)


if __name__ == "__main__":
    main()
