"""1/4  Sends frames into Kafka: ``python -m producers SOURCE…``, the same as ``ocrstream produce``."""

from __future__ import annotations

import argparse
import logging
import sys
import threading

from ocrstream.config import Configuration, KafkaSettings, ProducerSettings, add_flags
from ocrstream.errors import OcrstreamError
from ocrstream.metrics import Metrics
from ocrstream.process import Command, kafka_transport, log_counts, run_as_program, stop_on_signals
from producers.sources import SOURCES_HELP, open_sources
from producers.stage import Producer

log = logging.getLogger("producers")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The stage's flags."""
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help=SOURCES_HELP)
    add_flags(parser, KafkaSettings, ProducerSettings)


def run(arguments: argparse.Namespace) -> int:
    """Run until every source has ended or a stop is asked for; returns the exit code."""
    configuration = Configuration(arguments)
    sources = open_sources(arguments.sources, configuration.section(ProducerSettings))
    metrics = Metrics()
    failed: list[str] = []
    with stop_on_signals() as stop, kafka_transport(configuration, metrics, stop) as transport:

        def produce(producer: Producer, source_id: str) -> None:
            try:
                producer.run(stop)
            except OcrstreamError as error:
                log.error("%s: %s", source_id, error)  # noqa: TRY400 the sentence says it all
                failed.append(source_id)
            except Exception:
                log.exception("%s: unexpected failure", source_id)
                failed.append(source_id)

        threads = [
            threading.Thread(target=produce, args=(Producer(source, transport, metrics), source.source_id))
            for source in sources
        ]
        for thread in threads:
            thread.start()
        log.info("sending frames of %s", ", ".join(source.source_id for source in sources))
        for thread in threads:
            thread.join()
    log.info("%d frames sent", metrics.count("producer.frames"))
    log_counts(metrics)
    return 1 if failed else 0


COMMAND = Command("produce", "Send the frames of cameras, streams, files and folders into Kafka.", add_arguments, run)

if __name__ == "__main__":
    sys.exit(run_as_program(COMMAND))
