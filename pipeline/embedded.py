"""All stages in one process: threads over the in-process transport, the same stage code as over Kafka.

The threads end in the order of the stream: when the sources have ended (or were told to) and the detector has nothing
left, the recogniser may end, then the indexer. So everything that was taken in is searchable before `wait` returns.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Collection, Sequence
from functools import partial

from detector_consumer import stage as detector
from indexer import stage as indexer
from indexer.closing import close_every_minute
from indexer.retention import enforce_hourly
from ocrstream.config import Configuration, DataSettings, DetectorSettings, IndexerSettings, RecognizerSettings
from ocrstream.errors import OcrstreamError, TransportError
from ocrstream.messages import CROPS, FRAMES
from ocrstream.metrics import Metrics
from ocrstream.runner import Runner
from ocrstream.storage import DocumentStore
from ocrstream.storage.frames import FrameStore
from ocrstream.transport.memory import MemoryTransport
from pipeline import dead_letters
from pipeline.dead_letters import DeadLetterFolder
from recognizer_consumer import stage as recognizer
from recognizer_consumer.resuming import StoreRecall

log = logging.getLogger(__name__)

CAPACITY = 16
"""Records a partition holds before its producer waits; decoded frames are large, and a queue is only delay."""

Feed = Callable[[MemoryTransport, threading.Event], None]
"""What brings frames in: publishes until its source ends or the event is set."""


class Embedded:
    """The whole pipeline over one store.

    Args:
        configuration: the settings of the stages.
        store: where documents go.
        frames: where pictures go.
        letters: where records go that cannot be processed.
        metrics: counts of all stages.
        live: whether a camera is among the sources. Then, where every frame is read, the detector takes no frame before
            what it found in the last one is read: both want all cores, so side by side every text would only be late.

    Raises:
        EngineError: an engine is unknown or cannot be loaded.
    """

    def __init__(
        self,
        configuration: Configuration,
        store: DocumentStore,
        frames: FrameStore,
        letters: DeadLetterFolder,
        metrics: Metrics,
        *,
        live: bool,
    ) -> None:
        self.metrics = metrics
        self._transport = MemoryTransport(partitions=4, capacity=CAPACITY, metrics=metrics)
        self._store = store
        self._retention_days = configuration.section(DataSettings).retention_days
        self._runners: dict[str, Runner] = {
            "detector": detector.prepare(
                configuration.section(DetectorSettings),
                is_idle=partial(self._transport.wait_handled, CROPS, 0.0),
                admits=partial(self._transport.wait_handled, CROPS) if live else None,
            )(self._transport, metrics),
            "recognizer": recognizer.prepare(
                configuration.section(RecognizerSettings),
                # Or a detector that needs long for a frame, on a busy machine, would end every text in sight.
                is_upstream_idle=partial(self._transport.wait_handled, FRAMES, 0.0),
                recall=StoreRecall(store),
            )(self._transport, metrics),
            "indexer": indexer.build(configuration.section(IndexerSettings), store, frames, self._transport, metrics),
            "dead-letters": dead_letters.build(letters, self._transport, metrics),
        }
        self._stop_feeds = threading.Event()
        self._stop = threading.Event()
        self._done = threading.Event()
        self._failures: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, feeds: Sequence[Feed], begun: Collection[str] = ()) -> None:
        """Start everything; consumers first, since they have to be there when the first frame comes.

        Args:
            feeds: what brings frames in.
            begun: the sources that are read anew: what an earlier run has left open of them is over. Of others it may
                not be, since another process may be reading them into the same store.
        """
        feeds_ended = threading.Event()
        upstream_ended = feeds_ended
        for name, runner in self._runners.items():
            ended = threading.Event()
            runner.join()
            self._spawn(name, partial(runner.run, self._stop, upstream_ended), ended.set)
            upstream_ended = ended
        left = len(feeds)
        lock = threading.Lock()

        def ended_one() -> None:
            nonlocal left
            with lock:
                left -= 1
                if left == 0:
                    feeds_ended.set()

        for number, feed in enumerate(feeds):
            self._spawn(f"feed-{number}", partial(feed, self._transport, self._stop_feeds), ended_one)
        if not feeds:
            feeds_ended.set()
        self._spawn("retention", partial(enforce_hourly, self._store, self._retention_days, self._done))
        self._spawn("closing", partial(close_every_minute, self._store, self._done, frozenset(begun)))
        threading.Thread(target=self._watch, args=(upstream_ended,), name="watch", daemon=True).start()

    def drain(self) -> None:
        """Take nothing more in; what was taken in goes through to the end."""
        self._stop_feeds.set()

    def abort(self) -> None:
        """End at once; what is not indexed yet is lost to this run (a file resumes there)."""
        self._stop_feeds.set()
        self._stop.set()
        self._transport.close()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the end; returns whether it has come."""
        return self._done.wait(timeout_s)

    def close(self) -> None:
        """Wait for every thread and let go.

        Raises:
            OcrstreamError: the first failure of a stage or source, if there was one.
        """
        self._done.set()
        self._stop_feeds.set()
        for thread in self._threads:
            thread.join()
        self._transport.close()
        if self._failures:
            first = self._failures[0]
            if isinstance(first, OcrstreamError):
                raise first
            raise RuntimeError("a stage ended unexpectedly") from first

    def _spawn(self, name: str, work: Callable[[], None], ended: Callable[[], None] = lambda: None) -> None:
        def body() -> None:
            try:
                work()
            except TransportError as error:
                if not self._stop.is_set():
                    self._fail(name, error)
            except BaseException as error:
                self._fail(name, error)
            finally:
                ended()

        thread = threading.Thread(target=body, name=name)
        self._threads.append(thread)
        thread.start()

    def _fail(self, name: str, error: BaseException) -> None:
        """A source that fails ends alone; a stage that fails ends the run, for nothing could get past it."""
        self._failures.append(error)
        if name.startswith("feed-"):
            log.error("%s", error, exc_info=None if isinstance(error, OcrstreamError) else error)
        else:
            self.abort()

    def _watch(self, last_stage_ended: threading.Event) -> None:
        last_stage_ended.wait()
        self._done.set()
