"""A decoder process from the outside: start it, take its frames, kill it when it hangs."""

from __future__ import annotations

import json
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from multiprocessing.connection import Connection
from typing import Any, Literal, NamedTuple

import numpy as np

from ocrstream.picture import JPEG_QUALITY, Picture
from producers.decoding import Request
from producers.progress import Progress

Reason = Literal[
    "credentials", "not-found", "forbidden", "unusable", "nonsense", "no-picture", "timeout", "away", "crashed"
]
"""Why decoding failed: ``unusable`` is a video that cannot be read as asked, ``nonsense`` is no video,
``no-picture`` looks like one and none of its frames can be decoded."""

STARTING_S = 60.0
"""How long the process itself may take to start, on a machine that is busy with other things."""

LOOK_FOR_STOP_S = 0.1
SLOTS_OF_A_FILE = 3
"""So many frames of a file are decoded ahead. A live source's are asked for one by one, so that none gets old here."""


class DecoderError(Exception):
    """Decoding failed.

    Attributes:
        reason: what kind of failure it is.
    """

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Opened(NamedTuple):
    """What was opened.

    Attributes:
        size_wh: of the upright first frame, in pixels.
        duration_ms: None where it is not known.
        creation_time: as the container tells it (ISO 8601, usually); None where it does not.
        codec: FFmpeg's name of it.
    """

    size_wh: tuple[int, int]
    duration_ms: float | None
    creation_time: str | None
    codec: str


class Arrival(NamedTuple):
    """One frame: its time in the file, and the clock's when it was read."""

    picture: Picture
    media_ms: float
    at_ns: int


class Decoder:
    """One decoder process; used by one thread.

    Args:
        request: what it reads.
        progress: told of dropped and damaged frames.
        jpeg_quality: of the pictures, where they are encoded.
        stdin: lets it read this process's standard input.
    """

    def __init__(
        self, request: Request, progress: Progress, *, jpeg_quality: int = JPEG_QUALITY, stdin: bool = False
    ) -> None:
        self._request = request
        self._jpeg_quality = jpeg_quality
        self._progress = progress
        self._memory: mmap.mmap | None = None
        self._memory_fd = _anonymous_file()
        ours, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(  # noqa: S603 our own module, no shell
                [
                    sys.executable,
                    "-P",
                    "-m",
                    "producers.decoder_process",
                    str(theirs.fileno()),
                    str(self._memory_fd),
                ],
                stdin=None if stdin else subprocess.DEVNULL,
                # FFmpeg's messages hold the address with its credentials.
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), self._memory_fd),
                env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            )
        except BaseException:
            ours.close()
            os.close(self._memory_fd)
            raise
        finally:
            theirs.close()
        self._control = Connection(ours.detach())
        self._deadline_s = time.monotonic() + STARTING_S
        self._control.send_bytes(request.to_json())

    def open(self, stop: threading.Event) -> Opened | None:
        """Wait until its first frame could be decoded; None when a stop was asked for meanwhile.

        Raises:
            DecoderError: it cannot be opened, or takes too long to.
        """
        message = self._receive(stop)
        if message is None:
            return None
        width, height = message["size_wh"]
        return Opened((width, height), message["duration_ms"], message["creation_time"], message["codec"])

    def begin(self, start_ms: float = 0.0, end_ms: float | None = None, behind_ms: float | None = None) -> None:
        """Say which part is read: from ``start_ms``, or behind the frame at ``behind_ms``, up to before ``end_ms``.

        Raises:
            DecoderError: it has ended.
        """
        self._tell(start_ms=start_ms, end_ms=end_ms, behind_ms=behind_ms)
        if not self._request.live:
            for slot in range(SLOTS_OF_A_FILE):
                self._tell(slot=slot)

    def read(self, stop: threading.Event) -> Arrival | None:
        """The next frame; None at the end, or when a stop is asked for.

        Raises:
            DecoderError: it failed, or nothing came for the request's ``timeout_s``.
        """
        if self._request.live:
            self._tell(slot=0)
        self._await_sign_of_life()
        message = self._receive(stop)
        if message is None or message["kind"] == "end":
            return None
        picture = self._fetch(message)
        if not self._request.live:
            self._tell(slot=message["slot"])
        return Arrival(picture, message["media_ms"], message["at_ns"])

    def kill(self) -> None:
        """End the process, whatever it is doing; safe to call twice."""
        if self._control.closed:
            return
        self._process.kill()
        self._process.wait()
        self._control.close()
        if self._memory is not None:
            self._memory.close()
        os.close(self._memory_fd)

    def _receive(self, stop: threading.Event) -> dict[str, Any] | None:
        """The next message that is not this end's own business; None on a stop."""
        while not stop.is_set():
            try:
                if not self._control.poll(LOOK_FOR_STOP_S):
                    if time.monotonic() > self._deadline_s:
                        raise DecoderError("timeout", f"nothing came for {self._request.timeout_s:g} seconds")
                    continue
                message: dict[str, Any] = json.loads(self._control.recv_bytes())
            except (EOFError, OSError):
                raise DecoderError("crashed", self._last_words()) from None
            self._await_sign_of_life()
            self._progress.count("dropped", message.get("dropped", 0))
            self._progress.count("skipped", message.get("skipped", 0))
            match message["kind"]:
                case "failed":
                    raise DecoderError(message["reason"], message["message"])
                case "memory":
                    self._map(message["bytes"])
                case "opened" | "frame" | "end":
                    return message
        return None

    def _fetch(self, message: dict[str, Any]) -> Picture:
        if message["jpeg"]:
            return Picture.from_encoded(self._control.recv_bytes())
        assert self._memory is not None
        width, height = message["size_wh"]
        pixels = np.frombuffer(self._memory, np.uint8, width * height * 3, message["offset"])
        return Picture.from_array(pixels.reshape(height, width, 3).copy(), self._jpeg_quality)

    def _map(self, nbytes: int) -> None:
        if self._memory is not None:
            self._memory.close()
        self._memory = mmap.mmap(self._memory_fd, nbytes, prot=mmap.PROT_READ)

    def _await_sign_of_life(self) -> None:
        self._deadline_s = time.monotonic() + self._request.timeout_s if self._request.timeout_s else float("inf")

    def _tell(self, **message: Any) -> None:
        try:
            self._control.send_bytes(json.dumps(message).encode())
        except OSError:
            # It may have said why before it went; `read` will find that, or that it crashed.
            return

    def _last_words(self) -> str:
        return f"the decoder process ended unexpectedly (exit status {self._process.wait()})"


def _anonymous_file() -> int:
    """A file without a name: in memory where the system can, beyond the small /dev/shm of a container."""
    if sys.platform == "linux":
        return os.memfd_create("ocrstream-frames")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
