"""5  Serves the search page: ``python -m search``, the same as ``ocrstream serve``."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager

from ocrstream.config import (
    Configuration,
    DataSettings,
    ElasticsearchSettings,
    KafkaSettings,
    SearchSettings,
    add_flags,
)
from ocrstream.metrics import Metrics
from ocrstream.process import Command, run_as_program, stop_on_signals
from ocrstream.storage import DocumentStore, Pictures
from ocrstream.storage.elastic import ElasticStore
from ocrstream.storage.opening import open_documents, open_frames
from ocrstream.transport.kafka import KafkaTransport
from search.pictures import KafkaPictures, NoPictures, StoredPictures
from search.server import PageServer
from search.web import build_app

log = logging.getLogger("search")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The page's flags."""
    add_flags(parser, DataSettings, ElasticsearchSettings, KafkaSettings, SearchSettings)


def run(arguments: argparse.Namespace) -> int:
    """Serve until stopped; returns the exit code."""
    configuration = Configuration(arguments)
    settings = configuration.section(SearchSettings)
    with stop_on_signals() as stop, _open(configuration) as (store, pictures):
        app = build_app(store, pictures, Metrics())
        with PageServer(app, settings.host, settings.port) as server:
            log.info("search page: %s", server.address)
            stop.wait()
    return 0


@contextmanager
def _open(configuration: Configuration) -> Iterator[tuple[DocumentStore, Pictures]]:
    """The store that the settings name, and where its pictures are."""
    elastic = configuration.section(ElasticsearchSettings)
    if not elastic.url:
        with open_documents(configuration) as store:
            yield store, StoredPictures(open_frames(configuration))
        return
    kafka = configuration.section(KafkaSettings)
    with ExitStack() as stack:
        # Not checked: Elasticsearch and Kafka may be away for now, the page says so and recovers.
        remote = stack.enter_context(closing(ElasticStore(elastic)))
        pictures: Pictures = NoPictures()
        if kafka.servers:
            pictures = KafkaPictures(stack.enter_context(closing(KafkaTransport(kafka))))
        yield remote, pictures


COMMAND = Command("serve", "Serve the search page over a store.", add_arguments, run)

if __name__ == "__main__":
    sys.exit(run_as_program(COMMAND))
