"""``ocrstream run``: sources in, a search page out, all in this process."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self

from ocrstream.by_source import unused
from ocrstream.config import (
    Configuration,
    DataSettings,
    DetectorSettings,
    ProducerSettings,
    RecognizerSettings,
    SearchSettings,
    add_flags,
)
from ocrstream.errors import StoreError
from ocrstream.messages import source_key
from ocrstream.metrics import Metrics
from ocrstream.process import Command, set_up_logging, stop_on_signals
from ocrstream.storage import DocumentStore
from ocrstream.storage.opening import open_documents, open_frames
from ocrstream.transport.memory import MemoryTransport
from pipeline.dead_letters import FOLDER, DeadLetterFolder
from pipeline.embedded import Embedded, Feed
from pipeline.status import Gauge, Goal, RunStatus, StatusLine, count_of, describe, describe_within, summarise
from producers.resuming import say_place
from producers.sources import SOURCES_HELP, Source, open_sources
from producers.stage import Producer
from search import web
from search.pictures import StoredPictures
from search.server import PageServer

log = logging.getLogger(__name__)

STATUS_EVERY_S = 0.5

DRAIN_PATIENCE_S = 30.0
"""How long draining waits while nothing moves: a full disk would keep it waiting for ever."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help=SOURCES_HELP)
    parser.add_argument("--no-serve", action="store_true", help="no search page")
    add_flags(parser, ProducerSettings, DetectorSettings, RecognizerSettings, DataSettings, SearchSettings)


def run(arguments: argparse.Namespace) -> int:
    """Run until every source has ended or a stop is asked for; returns the exit code."""
    configuration = Configuration(arguments)
    line = StatusLine()
    set_up_logging(line)
    with ExitStack() as stack:
        store = stack.enter_context(open_documents(configuration, create=True))
        this_run = stack.enter_context(Run(configuration, arguments.sources, store, line))
        if not arguments.no_serve:
            search = configuration.section(SearchSettings)
            app = web.build_app(store, StoredPictures(this_run.frames), this_run.metrics, this_run.page_status)
            server = stack.enter_context(PageServer(app, search.host, search.port))
            log.info("search page: %s (stop with Ctrl-C)", server.address)
        this_run.run()
    if this_run.metrics.count("indexer.frames"):
        place = f"--data {configuration.section(DataSettings).dir}"
        sys.stderr.write(f"Search it: ocrstream search WORD {place}, or ocrstream serve {place}\n")
    return 0


class Run:
    """Sources read into an embedded store, with a status line; a context manager.

    Args:
        configuration: the settings.
        sources: as the user wrote them.
        store: where documents go.
        line: where the status is shown.

    Raises:
        SourceError: a source cannot be read.
        EngineError: an engine is unknown or cannot be loaded.
    """

    def __init__(
        self, configuration: Configuration, sources: Sequence[str], store: DocumentStore, line: StatusLine
    ) -> None:
        self.metrics = Metrics()
        self.frames = open_frames(configuration)
        self._store = store
        self._line = line
        self._stack = ExitStack()
        with ExitStack() as opening:
            self._sources = open_sources(sources, configuration.section(ProducerSettings))
            for source in self._sources:
                opening.callback(source.close)
            _warn_of_unused(configuration, self._sources)
            letters = DeadLetterFolder(Path(configuration.section(DataSettings).dir) / FOLDER)
            self._embedded = Embedded(
                configuration,
                store,
                self.frames,
                letters,
                self.metrics,
                live=any(source.live for source in self._sources),
            )
            opening.callback(self._embedded.close)
            self._stack = opening.pop_all()
        self._gauge = Gauge(self.metrics, [self._goal(source) for source in self._sources])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self) -> None:
        """Read to the end, or until a stop is asked for.

        Raises:
            StoreError: a stop was asked for, and the store takes nothing.
            OcrstreamError: a stage or a source failed.
        """
        feeds = [_feed(source, self._store, self.metrics) for source in self._sources]
        self._embedded.start(feeds, begun={source.source_id for source in self._sources})
        has_file = any(not source.live for source in self._sources)
        follow(self._embedded, self._gauge, self._line, advice="; a file goes on there next time" if has_file else "")
        self._line.finish(summarise(self._gauge.read()))
        self._stack.close()

    def page_status(self) -> web.Status:
        """The status as the search page shows it."""
        status = self._gauge.read()
        return web.Status(status.frames_in, status.read, status.dropped, status.delay_s, status.texts_per_s)

    def _goal(self, source: Source) -> Goal:
        """How far a source is, what earlier runs have stored of it included."""
        stored = 0
        if source.total_frames is not None:
            stored = sum(known.frames for known in self._store.sources() if known.source_id == source.source_id)
        elif source.total_ms is not None and not source.live:
            last = self._store.last_frame(source.source_id, source.segment)
            if last is not None and last.info.media_time_ms is not None:
                self.metrics.set("indexer.media_time_ms", last.info.media_time_ms, source_id=last.info.key)
        return partial(share_searchable, source, self.metrics, stored)


def _warn_of_unused(configuration: Configuration, sources: Sequence[Source]) -> None:
    """Tell of masks and formats for sources that are not there: a name that is misspelt would mask nothing."""
    names = sorted({source.source_id for source in sources})
    masks, formats = configuration.section(DetectorSettings).masks, configuration.section(RecognizerSettings).formats
    for what, given in (("masks", unused(masks, names)), ("formats", unused(formats, names))):
        for name in given:
            log.warning("%s for %r: no source is called so here; there is %s", what, name, ", ".join(names))


def follow(embedded: Embedded, gauge: Gauge, line: StatusLine, *, advice: str = "") -> None:
    """Show the status until the end; the first Ctrl-C (or SIGTERM) drains, a second one ends at once.

    Args:
        embedded: what runs.
        gauge: its status.
        line: where that is shown.
        advice: how what could not be stored is read another time; what is live is gone.

    Raises:
        KeyboardInterrupt: a second signal came; what was not stored by then is lost to this run.
        StoreError: while draining nothing moved for `DRAIN_PATIENCE_S`; likewise.
    """
    with stop_on_signals() as stop:
        draining: _Draining | None = None
        try:
            while not embedded.wait(STATUS_EVERY_S):
                if stop.is_set() and draining is None:
                    log.info("stopping: finishing what was taken in (Ctrl-C again ends at once)")
                    embedded.drain()
                    draining = _Draining(embedded.metrics, advice)
                status = gauge.read()
                doing = "" if draining is None else "finishing | "
                line.show(doing + describe_within(status, line.width - len(doing)))
                if draining is not None:
                    draining.check(status)
        except (KeyboardInterrupt, StoreError):
            embedded.abort()
            line.finish(describe(gauge.read()))
            raise


class _Draining:
    """Notices that nothing moves any more: no counter changes but those of attempts."""

    def __init__(self, metrics: Metrics, advice: str) -> None:
        self._metrics = metrics
        self._advice = advice
        self._seen: dict[str, int] = {}
        self._since_s = time.monotonic()

    def check(self, status: RunStatus) -> None:
        """Look whether anything has moved.

        Raises:
            StoreError: the patience is over.
        """
        counts = self._metrics.counts()
        moved = {name: counts[name] for name in counts if not name.endswith((".retries", ".backpressure"))}
        if moved != self._seen:
            self._seen, self._since_s = moved, time.monotonic()
        elif time.monotonic() - self._since_s >= DRAIN_PATIENCE_S:
            raise StoreError(_not_stored(status) + self._advice)


def _not_stored(status: RunStatus) -> str:
    left = max(status.frames_in - status.read - status.dropped, 0)
    return f"the store takes nothing; {count_of(left, 'frame')} taken in {'was' if left == 1 else 'were'} not stored"


def _feed(source: Source, store: DocumentStore, metrics: Metrics) -> Feed:
    def feed(transport: MemoryTransport, stop: threading.Event) -> None:
        producer = Producer(source, transport, metrics)
        last = store.last_frame(source.source_id, source.segment)
        if source.live:
            if last is not None and not last.info.live:
                say_place(last.info.key, last.info, None)
            last = None
        if last is not None and source.total_frames is not None:
            log.info("%s: the images that were read before are left out", source.source_id)
        producer.run(stop, None if last is None else last.info, lambda frame_id: store.get(frame_id) is not None)

    return feed


def share_searchable(source: Source, metrics: Metrics, stored: int = 0) -> float | None:
    """How much of a source with an end can be searched, 0 to 1; None for one without.

    Args:
        source: how long it is and how far it is read.
        metrics: how far it is indexed.
        stored: of a folder, the frames that an earlier run has stored.
    """
    if source.total_frames:
        done = stored + sum(metrics.count(name, source_id=source.source_id) for name in _DONE_WITH)
        # The store may hold images that are no longer in the folder.
        return min(done, source.progress.position_frames) / source.total_frames
    if not source.total_ms:
        return None
    if source.live:
        return min((source.progress.position_ms or 0.0) / source.total_ms, 1.0)
    place_ms = metrics.gauge("indexer.media_time_ms", source_id=source_key(source.source_id, source.segment))
    return 0.0 if place_ms is None else min(max(place_ms - source.start_ms, 0.0) / source.total_ms, 1.0)


_DONE_WITH = ("indexer.frames", "producer.skipped")
"""What counts the images of a folder that nothing is left to do for: stored, or damaged."""


COMMAND = Command("run", "Read sources and serve the search page, all in one process.", add_arguments, run)
