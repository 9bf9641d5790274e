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
from multiprocessing.connection import Connection
from typing import Any

import av
import av.error
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from ocrstream.errors import SourceError
from producers.decoding import Decoded, Handover, NoPictureError, Request, Video, upright_wh
from producers.sampling import View

MOST_SLOTS = 4
"""How many slots the other end may lend."""


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
        width, height = upright_wh(frame)
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
        reason = "no-picture" if isinstance(error, NoPictureError) else "unusable"
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
