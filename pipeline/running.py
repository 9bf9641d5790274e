"""``ocrstream run``: sources in, a search page out, all in this process."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Self

from ocrstream.config import (
    Configuration,
    DataSettings,
    DetectorSettings,
    ProducerSettings,
    RecognizerSettings,
    SearchSettings,
    add_flags,
)
from ocrstream.metrics import Metrics
from ocrstream.process import Command, set_up_logging, stop_on_signals
from ocrstream.storage import DocumentStore
from ocrstream.storage.opening import open_documents, open_frames
from ocrstream.transport.memory import MemoryTransport
from pipeline.dead_letters import FOLDER, DeadLetterFolder
from pipeline.embedded import Embedded, Feed
from pipeline.status import Gauge, StatusLine, describe, summarise
from producers.sources import SOURCES_HELP, Source, open_sources
from producers.stage import Producer
from search import web
from search.pictures import StoredPictures

log = logging.getLogger(__name__)

STATUS_EVERY_S = 0.5


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
        reading = stack.enter_context(Reading(configuration, arguments.sources, store, line))
        if not arguments.no_serve:
            search = configuration.section(SearchSettings)
            app = web.build_app(store, StoredPictures(reading.frames), reading.metrics, reading.page_status)
            server = stack.enter_context(web.PageServer(app, search.host, search.port))
            log.info("search page: %s (stop with Ctrl-C)", server.address)
        reading.run()
    directory = configuration.section(DataSettings).dir
    sys.stderr.write(f"Search it: ocrstream search WORD --data {directory}, or ocrstream serve --data {directory}\n")
    return 0


class Reading:
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
            letters = DeadLetterFolder(Path(configuration.section(DataSettings).dir) / FOLDER)
            live = any(source.live for source in self._sources)
            self._embedded = Embedded(configuration, store, self.frames, letters, self.metrics, live=live)
            opening.callback(self._embedded.close)
            self._stack = opening.pop_all()
        self._gauge = Gauge(self.metrics, [partial(_share_done, source) for source in self._sources])

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def run(self) -> None:
        """Read to the end, or until a stop is asked for.

        Raises:
            OcrstreamError: a stage or a source failed.
        """
        self._embedded.start([_feed(source, self._store, self.metrics) for source in self._sources])
        follow(self._embedded, self._gauge, self._line)
        self._line.finish(summarise(self._gauge.read()))
        self._stack.close()

    def page_status(self) -> web.Status:
        """The status as the search page shows it."""
        status = self._gauge.read()
        return web.Status(status.frames_in, status.read, status.dropped, status.delay_s, status.texts_per_s)


def follow(embedded: Embedded, gauge: Gauge, line: StatusLine) -> None:
    """Show the status until the end; the first Ctrl-C (or SIGTERM) drains, a second one ends at once."""
    with stop_on_signals() as stop:
        drained = False
        try:
            while not embedded.wait(STATUS_EVERY_S):
                if stop.is_set() and not drained:
                    drained = True
                    log.info("stopping: finishing what was taken in (Ctrl-C again ends at once)")
                    embedded.drain()
                status = describe(gauge.read())
                line.show(f"finishing | {status}" if drained else status)
        except KeyboardInterrupt:
            embedded.abort()
            raise


def _feed(source: Source, store: DocumentStore, metrics: Metrics) -> Feed:
    def feed(transport: MemoryTransport, stop: threading.Event) -> None:
        producer = Producer(source, transport, metrics)
        last = None if source.live else store.last_frame(source.source_id, source.segment)
        if last is not None:
            log.info("%s: goes on behind what was read before", source.source_id)
        producer.run(stop, None if last is None else last.info, lambda frame_id: store.get(frame_id) is not None)

    return feed


def _share_done(source: Source) -> float | None:
    """How far a source with an end is, 0 to 1."""
    if source.total_frames:
        return min(source.progress.position_frames / source.total_frames, 1.0)
    if source.total_ms and source.progress.position_ms is not None:
        return min(source.progress.position_ms / source.total_ms, 1.0)
    return None


COMMAND = Command("run", "Read sources and serve the search page, all in one process.", add_arguments, run)
