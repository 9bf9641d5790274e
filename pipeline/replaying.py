"""``ocrstream replay``: frames are read again, and what is read now supersedes what was read then."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

from ocrstream.config import (
    ONLY_FOLLOWING,
    Configuration,
    DataSettings,
    DetectorSettings,
    KafkaSettings,
    RecognizerSettings,
    add_flags,
)
from ocrstream.errors import EngineError
from ocrstream.metrics import Metrics
from ocrstream.models import detector_names, recognizer_names
from ocrstream.process import Command, kafka_transport, set_up_logging, stop_on_signals
from ocrstream.storage import Filter
from ocrstream.storage.opening import open_documents, open_frames
from ocrstream.transport.memory import MemoryTransport
from pipeline.dead_letters import FOLDER, DeadLetterFolder
from pipeline.documents import add_filter, check_sources, filter_of
from pipeline.embedded import Embedded
from pipeline.running import follow
from pipeline.status import Gauge, StatusLine, count_of, summarise
from producers.replay import Reprocessing, frames_in_store, frames_in_transport, send

log = logging.getLogger(__name__)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add_filter(parser, with_confidence=False)
    add_flags(parser, KafkaSettings, DataSettings, DetectorSettings, RecognizerSettings, without=ONLY_FOLLOWING)


def run(arguments: argparse.Namespace) -> int:
    """Replay over Kafka where a broker is named, else over the embedded store; returns the exit code."""
    configuration, where = Configuration(arguments), filter_of(arguments)
    detector, recognizer = arguments.setting_detector, arguments.setting_recognizer
    for kind, name, known in (("detector", detector, detector_names()), ("recognizer", recognizer, recognizer_names())):
        if name is not None and name not in known:
            raise EngineError(f"there is no {kind} {name!r}; installed: {', '.join(known)}")
    how = Reprocessing(generation=time.time_ns() // 1_000_000, detector=detector, recognizer=recognizer)
    if configuration.section(KafkaSettings).servers:
        return _over_kafka(configuration, where, how)
    return _embedded(configuration, where, how)


def _over_kafka(configuration: Configuration, where: Filter, how: Reprocessing) -> int:
    metrics = Metrics()
    with stop_on_signals() as stop, kafka_transport(configuration, metrics, stop) as transport:
        send(frames_in_transport(transport, where), how, transport, metrics, stop)
    count = metrics.count("producer.frames")
    sys.stderr.write(
        f"{count_of(count, 'frame')} sent to be read again, as generation {how.generation}; the consumers are at it.\n"
    )
    return 0 if count else _nothing()


def _embedded(configuration: Configuration, where: Filter, how: Reprocessing) -> int:
    line = StatusLine()
    set_up_logging(line)
    metrics = Metrics()
    with ExitStack() as stack:
        store = stack.enter_context(open_documents(configuration))
        check_sources(store, where)
        frames = open_frames(configuration)
        letters = DeadLetterFolder(Path(configuration.section(DataSettings).dir) / FOLDER)
        embedded = Embedded(configuration, store, frames, letters, metrics, live=False)
        stack.callback(embedded.close)

        def feed(transport: MemoryTransport, stop: threading.Event) -> None:
            send(frames_in_store(store, frames, where, metrics), how, transport, metrics, stop)

        gauge = Gauge(metrics)
        embedded.start([feed])
        follow(embedded, gauge, line, advice="; replay them again")
        line.finish(summarise(gauge.read()))
    gone = metrics.count("replay.gone")
    if gone:
        sys.stderr.write(
            f"{count_of(gone, 'frame')} left unchanged: no picture of them is kept any more (frames_gb, frames_days).\n"
        )
    return 0 if metrics.count("producer.frames") else _nothing()


def _nothing() -> int:
    sys.stderr.write(
        "No frame of that source and time is kept. `ocrstream search` without words lists what there is.\n"
    )
    return 1


COMMAND = Command("replay", "Read frames again, with a better model say.", add_arguments, run)
