"""1/4  Source -> Frame: publishes what a source gives, and loses no frame of a file."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from ocrstream.errors import MalformedRecordError, TransportError
from ocrstream.messages import FRAMES, Frame, FrameInfo, source_key
from ocrstream.metrics import Metrics
from ocrstream.transport import Transport
from ocrstream.wire import frame_from_json, frame_to_json
from producers.progress import Event
from producers.resuming import check_size
from producers.sources import Source

log = logging.getLogger(__name__)

FLUSH_EVERY_S = 0.5
FLUSH_EVERY_FRAMES = 64
"""Frames wait this long at most to be confirmed; they are kept until then, so that they can be sent again."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.2, 15.0


class Producer:
    """Sends one source's frames to `FRAMES`.

    It counts, in all and for the source, ``producer.frames`` (confirmed), ``producer.dropped`` (a live source's, lost
    to a slow reader or while the transport was away), ``producer.reconnects`` and ``producer.skipped`` (damaged).

    Args:
        source: where frames come from; it is not closed here.
        transport: where they go.
        metrics: where they are counted.
        clock: seconds that never go back, for the flushes.
    """

    def __init__(
        self, source: Source, transport: Transport, metrics: Metrics, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._source = source
        self._transport = transport
        self._metrics = metrics
        self._clock = clock
        self._unconfirmed: list[Frame] = []
        self._flushed_s = clock()
        self._skipped = 0
        source.progress.on_event = self._count

    def run(
        self, stop: threading.Event, after: FrameInfo | None = None, known: Callable[[str], bool] | None = None
    ) -> None:
        """Publish until the source ends or ``stop`` is set.

        While the transport is away, a file's reading waits, and a live source goes on with its newest frame.

        Args:
            stop: ends it within a second.
            after: the last frame that was read before; a file goes on behind it. Where it is None it goes on behind
                the frame that the transport remembers, if it does.
            known: whether the frame of this id was read before; such images are left out. Where it is None all are
                sent, again too: that costs time and changes nothing.

        Raises:
            SourceError: the source cannot be read (any more); everything before is published.
        """
        if after is None and not self._source.live:
            after = self._last_sent(stop)
        gave_frames = False
        try:
            for frame in self._source.frames(stop, after, known):
                if not gave_frames:
                    check_size(after, frame.info)
                gave_frames = True
                self._publish(replace(frame, info=replace(frame.info, taken_at_ns=time.time_ns())), stop)
                if stop.is_set():
                    break
        finally:
            self._confirm(stop)
            if self._skipped:
                log.warning("%s: %d damaged frames were skipped", self._source.source_id, self._skipped)
        if after is not None and not gave_frames and not stop.is_set():
            log.info(
                "%s: all of it was read before; to read it with other options give it another name (NAME=FILE)",
                source_key(self._source.source_id, self._source.segment),
            )

    def _publish(self, frame: Frame, stop: threading.Event) -> None:
        if not self._hand_over(frame, stop):
            return
        self._unconfirmed.append(frame)
        due = self._clock() - self._flushed_s >= FLUSH_EVERY_S
        if due or len(self._unconfirmed) >= FLUSH_EVERY_FRAMES:
            self._confirm(stop)

    def _hand_over(self, frame: Frame, stop: threading.Event) -> bool:
        """Publish one frame; False when it was given up: a live one for a newer, any one for a stop."""
        pauses = _Pauses(self._source.source_id)
        while True:
            try:
                self._transport.publish(FRAMES, frame)
            except TransportError as error:
                stopped = pauses.wait(stop, error)
                if stopped or self._source.live:
                    self._give_up(1)
                    return False
            else:
                return True

    def _confirm(self, stop: threading.Event) -> None:
        """Flush; what was not confirmed is published again (a file's) or given up (a live source's)."""
        pauses = _Pauses(self._source.source_id)
        while self._unconfirmed:
            try:
                self._transport.flush()
            except TransportError as error:
                stopped = pauses.wait(stop, error)
                if stopped or self._source.live:
                    self._give_up(len(self._unconfirmed))
                    self._unconfirmed.clear()
                    break
                self._unconfirmed = [frame for frame in self._unconfirmed if self._hand_over(frame, stop)]
            else:
                self._metrics.add("producer.frames", len(self._unconfirmed), source_id=self._source.source_id)
                self._remember(self._unconfirmed[-1].info)
                self._unconfirmed.clear()
        self._flushed_s = self._clock()

    def _last_sent(self, stop: threading.Event) -> FrameInfo | None:
        """The frame that the transport remembers; waits for a transport that is away, as a new broker is at first."""
        key, pauses = source_key(self._source.source_id, self._source.segment), _Pauses(self._source.source_id)
        kept: str | None = None
        while not stop.is_set():
            try:
                kept = self._transport.progress(key)
                break
            except TransportError as error:
                pauses.wait(stop, error)
        if kept is None:
            return None
        try:
            return frame_from_json(json.loads(kept))
        except (ValueError, MalformedRecordError) as error:
            log.warning("%s: read from the start, its last position is damaged: %s", self._source.source_id, error)
            return None

    def _remember(self, info: FrameInfo) -> None:
        if self._source.live:
            return
        try:
            self._transport.save_progress(info.key, json.dumps(frame_to_json(info)))
        except TransportError as error:
            # Frames that are sent again have the same identity: this costs time at the next start, nothing else.
            log.warning("%s: its position could not be kept: %s", self._source.source_id, error)

    def _give_up(self, amount: int) -> None:
        # A file's frames are only put off: the next run goes on behind the last one that was confirmed.
        if self._source.live:
            self._count("dropped", amount)

    def _count(self, event: Event, amount: int) -> None:
        if event == "skipped":
            self._skipped += amount
        self._metrics.add(f"producer.{event}", amount, source_id=self._source.source_id)


class _Pauses:
    """Growing pauses between attempts; the first says why."""

    def __init__(self, source_id: str) -> None:
        self._source_id = source_id
        self._pause_s = FIRST_PAUSE_S

    def wait(self, stop: threading.Event, error: TransportError) -> bool:
        """Wait before the next attempt; True when a stop is asked for."""
        if self._pause_s == FIRST_PAUSE_S and not stop.is_set():
            log.warning("%s: frames cannot be sent, trying again: %s", self._source_id, error)
        stopped = stop.wait(self._pause_s)
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        return stopped
