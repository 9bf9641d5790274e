"""``ocrstream run``: sources in, a search page out, all in this process."""

from __future__ import annotations

import argparse
import logging
import threading
from contextlib import ExitStack
from functools import partial
from pathlib import Path

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
from pipeline.status import Gauge, StatusLine, describe
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
    metrics = Metrics()
    with ExitStack() as stack:
        sources = open_sources(arguments.sources, configuration.section(ProducerSettings))
        for source in sources:
            stack.callback(source.close)
        store = stack.enter_context(open_documents(configuration, create=True))
        frames = open_frames(configuration)
        directory = Path(configuration.section(DataSettings).dir)
        embedded = Embedded(configuration, store, frames, DeadLetterFolder(directory / FOLDER), metrics)
        stack.callback(embedded.close)
        gauge = Gauge(metrics, [partial(_share_done, source) for source in sources])
        if not arguments.no_serve:
            search = configuration.section(SearchSettings)
            app = web.build_app(store, StoredPictures(frames), metrics, partial(_page_status, gauge))
            server = stack.enter_context(web.PageServer(app, search.host, search.port))
            log.info("search page: %s (stop with Ctrl-C)", server.address)
        embedded.start([_feed(source, store, metrics) for source in sources])
        follow(embedded, gauge, line)
        line.finish(describe(gauge.read()))
    return 0


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


def _feed(source: Source, store: DocumentStore, metrics: Metrics) -> Feed:
    def feed(transport: MemoryTransport, stop: threading.Event) -> None:
        producer = Producer(source, transport, metrics)
        last = None if source.live else store.last_frame(source.source_id, source.segment)
        if last is not None:
            log.info("%s: goes on behind what was read before", source.source_id)
        producer.run(stop, None if last is None else last.info)

    return feed


def _share_done(source: Source) -> float | None:
    """How far a source with an end is, 0 to 1."""
    if source.total_frames:
        return min(source.progress.position_frames / source.total_frames, 1.0)
    if source.total_ms and source.progress.position_ms is not None:
        return min(source.progress.position_ms / source.total_ms, 1.0)
    return None


def _page_status(gauge: Gauge) -> web.Status:
    status = gauge.read()
    return web.Status(status.frames_in, status.read, status.dropped, status.delay_s, status.texts_per_s)


COMMAND = Command("run", "Read sources and serve the search page, all in one process.", add_arguments, run)
