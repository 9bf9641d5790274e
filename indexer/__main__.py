"""4/4  Runs the indexer over Kafka and Elasticsearch: ``python -m indexer``, the same as ``ocrstream index``."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from contextlib import closing
from functools import partial

from indexer.closing import close_every_minute
from indexer.retention import enforce_hourly
from indexer.stage import build
from ocrstream.config import (
    Configuration,
    DataSettings,
    ElasticsearchSettings,
    IndexerSettings,
    KafkaSettings,
    add_flags,
)
from ocrstream.errors import ConfigError
from ocrstream.metrics import Metrics
from ocrstream.process import Command, kafka_transport, log_counts, run_as_program, stop_on_signals, wait_until_usable
from ocrstream.storage.elastic import ElasticStore

log = logging.getLogger("indexer")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's flags."""
    add_flags(parser, KafkaSettings, ElasticsearchSettings, IndexerSettings)


def run(arguments: argparse.Namespace) -> int:
    """Run until stopped; returns the exit code."""
    configuration = Configuration(arguments)
    metrics = Metrics()
    days = configuration.section(DataSettings).retention_days
    elastic = configuration.section(ElasticsearchSettings)
    if not elastic.url:
        raise ConfigError("which Elasticsearch? Give --elasticsearch URL, or set OCRSTREAM_ELASTICSEARCH_URL")
    with (
        stop_on_signals() as stop,
        closing(ElasticStore(elastic)) as store,
        kafka_transport(configuration, metrics, stop) as transport,
    ):
        wait_until_usable(store.check, stop)
        keeping = [
            threading.Thread(target=enforce_hourly, args=(store, days, stop), name="retention"),
            # Other indexers and recognisers may be at work: only what stays as it is is over.
            threading.Thread(target=partial(close_every_minute, store, stop), name="closing"),
        ]
        for thread in keeping:
            thread.start()
        # Kafka keeps the pictures; the documents refer to them there.
        runner = build(configuration.section(IndexerSettings), store, None, transport, metrics)
        log.info("ready")
        try:
            runner.run(stop)
            log_counts(metrics)
        finally:
            stop.set()
            for thread in keeping:
                thread.join()
    return 0


COMMAND = Command("index", "Write the texts in Kafka into Elasticsearch.", add_arguments, run)

if __name__ == "__main__":
    sys.exit(run_as_program(COMMAND))
