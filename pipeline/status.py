"""The live status of a run: one line that stays where it is on a terminal, a line now and then in a log file."""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TextIO

from ocrstream.metrics import Metrics

EVERY_S = 0.5
EVERY_S_IN_A_LOG = 30.0
WINDOW_S = 5.0
"""Rates are over the last so many seconds; before that a log is told nothing, as there is little to tell."""

BAR_WIDTH = 20


Goal = Callable[[], float | None]
"""How far one source is, 0 to 1; None while that is not known, as for a camera."""


@dataclass(frozen=True, slots=True)
class RunStatus:
    """What a run is doing now; rates are per second over the last seconds."""

    frames_in: int
    read: int
    dropped: int
    texts: int
    frames_in_per_s: float
    read_per_s: float
    texts_per_s: float
    delay_s: float | None
    dead_letters: int
    share_done: float | None
    left_s: float | None


class Gauge:
    """Turns counters into a status; `read` is meant to be called about twice a second, by any thread."""

    def __init__(self, metrics: Metrics, goals: Sequence[Goal] = ()) -> None:
        self._metrics = metrics
        self._goals = goals
        self._first: tuple[float, float] | None = None
        self._samples: deque[tuple[float, int, int, int]] = deque()
        self._lock = threading.Lock()

    def read(self) -> RunStatus:
        """The status as of now."""
        counts = self._metrics.counts()
        now = time.monotonic()
        # What a camera gave and nobody took has come in too, and is among the dropped.
        frames_in = counts.get("producer.frames", 0) + counts.get("producer.dropped", 0)
        read, texts = counts.get("indexer.frames", 0), counts.get("indexer.texts", 0)
        with self._lock:
            self._samples.append((now, frames_in, read, texts))
            while now - self._samples[0][0] > WINDOW_S:
                self._samples.popleft()
            oldest = self._samples[0]
        seconds = max(now - oldest[0], EVERY_S)
        latency = self._metrics.latency("indexer.delay")
        share = self._share_done()
        return RunStatus(
            frames_in=frames_in,
            read=read,
            dropped=sum(count for name, count in counts.items() if name.endswith(".dropped")),
            texts=texts,
            frames_in_per_s=(frames_in - oldest[1]) / seconds,
            read_per_s=(read - oldest[2]) / seconds,
            texts_per_s=(texts - oldest[3]) / seconds,
            delay_s=latency.p50_s if latency else None,
            dead_letters=sum(count for name, count in counts.items() if name.endswith(".dead_letters")),
            share_done=share,
            left_s=self._left_s(now, share),
        )

    def _share_done(self) -> float | None:
        shares = [share for goal in self._goals if (share := goal()) is not None]
        return sum(shares) / len(shares) if shares and len(shares) == len(self._goals) else None

    def _left_s(self, now: float, share: float | None) -> float | None:
        """Time left at the pace since the first look: a file that is resumed does not begin at zero."""
        if share is None:
            return None
        if self._first is None:
            self._first = now, share
        elapsed_s, done = now - self._first[0], share - self._first[1]
        return elapsed_s * (1 - share) / done if done > 0 else None


def describe(status: RunStatus) -> str:
    """A status as one line for people."""
    return describe_within(status, sys.maxsize)


def describe_within(status: RunStatus, width: int) -> str:
    """The same in so many characters: the bar goes first, then the rates of frames, then that of texts."""
    for kept in ("bar frames texts", "frames texts", "texts", ""):
        text = _describe(status, kept)
        if len(text) <= width:
            break
    return text


def _describe(status: RunStatus, kept: str) -> str:
    def rated(number: int, per_s: float, what: str) -> str:
        return f"{number} ({per_s:.1f}/s)" if what in kept else str(number)

    parts = []
    if status.share_done is not None:
        filled = round(status.share_done * BAR_WIDTH)
        bar = f"[{'#' * filled}{'-' * (BAR_WIDTH - filled)}] " if "bar" in kept else ""
        parts.append(f"{bar}{status.share_done:4.0%}")
        if status.left_s is not None:
            parts.append(f"{_clock(status.left_s)} left")
    parts.append(f"in {rated(status.frames_in, status.frames_in_per_s, 'frames')}")
    parts.append(f"read {rated(status.read, status.read_per_s, 'frames')}")
    parts.append(f"dropped {status.dropped}")
    if status.delay_s is not None and status.share_done is None:
        parts.append(f"delay {status.delay_s:.2f} s")
    parts.append(f"texts {rated(status.texts, status.texts_per_s, 'texts')}")
    if status.dead_letters:
        parts.append(f"set aside {status.dead_letters}")
    return " | ".join(parts)


def summarise(status: RunStatus) -> str:
    """What a run has done, as one line for its end."""
    parts = [f"done: {count_of(status.frames_in, 'frame')} in", f"{status.read} read", f"{status.dropped} dropped"]
    parts.append(count_of(status.texts, "text"))
    if status.dead_letters:
        parts.append(f"{status.dead_letters} set aside (ocrstream dead-letters)")
    return ", ".join(parts)


def count_of(number: int, noun: str) -> str:
    """A number of things as people say it: ``1 frame``, ``2 frames``."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _clock(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class StatusLine(logging.Handler):
    """Shows a status that stays on the last line, and lets log messages pass above it.

    Install it as the logging handler too, so that messages and the line do not run into each other.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        super().__init__()
        self._stream = stream or sys.stderr
        self._is_terminal = self._stream.isatty()
        self._shown = ""
        self._next_in_log: float | None = None

    @property
    def width(self) -> int:
        """How many characters it can show; without a terminal there is no end."""
        return shutil.get_terminal_size().columns - 1 if self._is_terminal else sys.maxsize

    def show(self, text: str) -> None:
        """Put a text on the status line; in a log file it appears after some seconds, and every half minute."""
        with self.lock or threading.RLock():
            if self._is_terminal:
                self._shown = text[: self.width]
                self._write(f"\r\x1b[2K{self._shown}")
                return
            now_s = time.monotonic()
            if self._next_in_log is None:
                self._next_in_log = now_s + WINDOW_S
            elif now_s >= self._next_in_log:
                self._next_in_log = now_s + EVERY_S_IN_A_LOG
                self._write(f"{text}\n")

    def finish(self, text: str) -> None:
        """Replace the status line by a last text that stays."""
        with self.lock or threading.RLock():
            self._write(f"\r\x1b[2K{text}\n" if self._is_terminal else f"{text}\n")
            self._shown = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a log message above the status line."""
        message = self.format(record)
        self._write(f"\r\x1b[2K{message}\n{self._shown}" if self._is_terminal else f"{message}\n")

    def _write(self, text: str) -> None:
        self._stream.write(text)
        self._stream.flush()
