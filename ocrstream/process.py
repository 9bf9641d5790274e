"""What every command and every stage process does alike: settings, signals, logging, errors, exit codes.

========= =====================================================================
exit code meaning
========= =====================================================================
0         done, or stopped on request after finishing what was in hand
1         something went wrong on the way, and what was accepted is not lost;
          or there is nothing: no hit, no frame to replay; or a check failed
2         what was asked cannot be done; the message says what to do
3         a server or the disk could not be reached or used; may work later
130       interrupted a second time, before the end
========= =====================================================================
"""

from __future__ import annotations

import argparse
import errno
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import TypeVar

import cv2

from ocrstream.config import Configuration, KafkaSettings, add_flags
from ocrstream.errors import ConfigError, OcrstreamError, StoreError, TransientError, TransportError, UserError
from ocrstream.metrics import Metrics
from ocrstream.runner import Runner
from ocrstream.transport import Transport
from ocrstream.transport.kafka import KafkaTransport

log = logging.getLogger(__name__)

S = TypeVar("S")

START_PATIENCE_S = 60.0
"""How long a process waits at its start for a server that is still coming up; later it waits for ever."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of the program.

    Attributes:
        name: as in ``ocrstream NAME``.
        description: one sentence.
        add_arguments: gives a parser the command's flags.
        run: does it and returns the exit code.
    """

    name: str
    description: str
    add_arguments: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]


def execute(work: Callable[[argparse.Namespace], int], arguments: argparse.Namespace) -> int:
    """Run a command; a person's mistake ends with one sentence, not a traceback. Returns the exit code."""
    try:
        code = work(arguments)
        sys.stdout.flush()
    except UserError as error:
        return _complain(error, 2)
    except TransientError as error:
        return _complain(error, 3)
    except OcrstreamError as error:
        return _complain(error, 1)
    except BrokenPipeError:
        # The reader of our output has gone (``| head``).
        _let_go_of_output()
        return 0
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _let_go_of_output()
        return _complain(StoreError("the output cannot be written: the disk is full; make room, or write elsewhere"), 3)
    except KeyboardInterrupt:
        return 130
    return code


def _let_go_of_output() -> None:
    """Python would complain again when it flushes what is left at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _complain(error: OcrstreamError, code: int) -> int:
    sys.stderr.write(f"ocrstream: {error}\n")
    return code


def run_as_program(command: Command, argv: Sequence[str] | None = None) -> int:
    """The body of a stage's ``__main__``: parse, set up logging, run."""
    parser = argparse.ArgumentParser(description=command.description)
    command.add_arguments(parser)
    arguments = parser.parse_args(argv)
    set_up_logging()
    return execute(command.run, arguments)


def set_up_logging(handler: logging.Handler | None = None) -> None:
    """Log to standard error, warnings and worse of libraries, everything from info on of our own."""
    handler = handler or logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    # Kafka's client reports every reconnection at length; the transport says the same in one line.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    logging.getLogger("elastic_transport").setLevel(logging.ERROR)
    # OpenCV writes past the handlers; what it finds in a damaged image is told by who reads the image.
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_ERROR)
    for ours in ("ocrstream", "pipeline", "producers", "detector_consumer", "recognizer_consumer", "indexer", "search"):
        logging.getLogger(ours).setLevel(logging.INFO)


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM or SIGINT sets; a second one of either interrupts for good."""
    stop = threading.Event()

    def ask(_number: int, _frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    previous = {number: signal.signal(number, ask) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def kafka_transport(configuration: Configuration, metrics: Metrics, stop: threading.Event) -> Iterator[Transport]:
    """The Kafka transport of the settings, its topics checked.

    Raises:
        ConfigError: no broker is named.
        DeploymentError: a topic cannot be used as it is.
        TransportError: the broker did not answer within a minute.
    """
    settings = configuration.section(KafkaSettings)
    if not settings.servers:
        raise ConfigError("which Kafka? Give --kafka HOST:PORT, or set OCRSTREAM_KAFKA_SERVERS")
    transport = KafkaTransport(settings, metrics)
    try:
        wait_until_usable(transport.check, stop)
        yield transport
    finally:
        try:
            transport.close()
        except TransportError as error:
            log.warning("the broker was gone when this process left it: %s", error)


def wait_until_usable(check: Callable[[], None], stop: threading.Event, patience_s: float = START_PATIENCE_S) -> None:
    """Give a server that is still starting some time.

    Raises:
        TransientError: it is still away when the patience is over, or a stop was asked for.
    """
    began_s, pause_s = time.monotonic(), 1.0
    while True:
        try:
            with _ending_at_once(stop):
                return check()
        except TransientError as error:
            if time.monotonic() - began_s >= patience_s or stop.is_set():
                raise
            log.warning("%s; trying again in %.0f s", error, pause_s)
        if stop.wait(pause_s):
            raise TransientError("stopped before everything was there")
        pause_s = min(pause_s * 2, 10.0)


@contextmanager
def _ending_at_once(stop: threading.Event) -> Iterator[None]:
    """Let a signal interrupt what is done meanwhile: nothing is in hand yet that would have to be finished."""

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        stop.set()
        raise TransientError("stopped before everything was there")

    previous = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def stage_command(
    name: str, description: str, settings: type[S], prepare: Callable[[S], Callable[[Transport, Metrics], Runner]]
) -> Command:
    """The command of a stage that needs Kafka and settings of its own, and nothing else.

    Args:
        name: as in ``ocrstream NAME``.
        description: one sentence.
        settings: the class of its settings.
        prepare: whatever of the stage can fail without Kafka; gives what builds the rest of it.
    """

    def run(arguments: argparse.Namespace) -> int:
        configuration = Configuration(arguments)
        mine = configuration.section(settings)
        # A mistake in what was asked is told at once, not after a minute of waiting for a broker.
        return run_stage(configuration, prepare(mine))

    return Command(name, description, lambda parser: add_flags(parser, KafkaSettings, settings), run)


def run_stage(configuration: Configuration, build: Callable[[Transport, Metrics], Runner]) -> int:
    """Run one consuming stage over Kafka until SIGTERM or SIGINT; returns the exit code."""
    metrics = Metrics()
    with stop_on_signals() as stop, kafka_transport(configuration, metrics, stop) as transport:
        runner = build(transport, metrics)
        log.info("ready")
        runner.run(stop)
        log_counts(metrics)
    return 0


def log_counts(metrics: Metrics) -> None:
    """Say at the end what a process has done."""
    counts = ", ".join(f"{name} {count}" for name, count in sorted(metrics.counts().items()) if count)
    log.info("stopped: %s", counts or "nothing was done")
