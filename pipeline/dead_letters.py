"""``ocrstream dead-letters``: kept on disk in the embedded mode, listed and sent again in both.

Over Kafka the topic ``ocr.dead-letters`` keeps them. In process nothing would outlive the run, so a last stage writes
each into a file of its own, as the record it would have been in Kafka.
"""

from __future__ import annotations

import argparse
import base64
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from ocrstream.config import Configuration, DataSettings, KafkaSettings, add_flags
from ocrstream.errors import ConfigError, MalformedRecordError, StoreError
from ocrstream.messages import DEAD_LETTERS, TOPICS, DeadLetter, Message, RawRecord
from ocrstream.metrics import Metrics
from ocrstream.process import Command, kafka_transport, stop_on_signals
from ocrstream.runner import Flow, Runner
from ocrstream.transport import Delivery, Transport
from ocrstream.wire import decode, encode
from pipeline.status import count_of

log = logging.getLogger(__name__)

FOLDER = "dead-letters"
"""Its place in the data folder."""

MOST_KEPT = 1000
"""So many of the newest are kept: a source that is damaged for days must not fill the disk."""


class DeadLetterFolder:
    """Dead letters as files, the oldest going when there are too many."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, letter: DeadLetter) -> None:
        """Keep a letter; the same letter again replaces itself.

        Raises:
            StoreError: the disk cannot take it.
        """
        record = encode(letter)
        content = {
            "key": record.key,
            "timestamp_ms": record.timestamp_ms,
            "headers": {name: _text(value) for name, value in record.headers.items()},
            "value": _text(record.value),
        }
        name = f"{record.timestamp_ms:015d}-{letter.topic}-{letter.partition}-{letter.offset}.json"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            (self._directory / name).write_text(json.dumps(content))
            for old in self._files()[:-MOST_KEPT]:
                old.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"a dead letter cannot be written to {self._directory}: {error.strerror}") from error

    def scan(self) -> Iterator[tuple[Path, DeadLetter]]:
        """Every letter that is kept, oldest first, with its file.

        Raises:
            MalformedRecordError: a file is not one of these.
        """
        for path in self._files():
            try:
                content = json.loads(path.read_text())
                headers = {name: base64.b64decode(value) for name, value in content["headers"].items()}
                value = base64.b64decode(content["value"])
                letter = decode(RawRecord(content["key"], value, headers, content["timestamp_ms"]))
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise MalformedRecordError(f"{path} is not a dead letter: {error}") from error
            if not isinstance(letter, DeadLetter):
                raise MalformedRecordError(f"{path} holds a {type(letter).__name__}, not a dead letter")
            yield path, letter

    def _files(self) -> list[Path]:
        return sorted(self._directory.glob("*.json"))


class DeadLetterStage:
    """Keeps dead letters in a folder."""

    name = "dead-letters"

    def __init__(self, folder: DeadLetterFolder) -> None:
        self._folder = folder

    def handle(self, letters: Sequence[DeadLetter]) -> list[Message]:
        """Keep a batch of letters; nothing follows from it."""
        for letter in letters:
            self._folder.put(letter)
        return []

    def finish(self) -> list[Message]:
        """Nothing is held back."""
        return []


def build(folder: DeadLetterFolder, transport: Transport, metrics: Metrics) -> Runner:
    """The stage with its loop."""
    flow = Flow((DEAD_LETTERS,), None, "ocr-dead-letters", batch=16, deadline_s=0.0, keep_live=1)
    return Runner(DeadLetterStage(folder), flow, transport, metrics)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("--resend", action="store_true", help="send them again to the topics they came from (Kafka)")
    parser.add_argument("--traceback", action="store_true", help="show where in the code it happened")
    add_flags(parser, KafkaSettings, DataSettings)


def run(arguments: argparse.Namespace) -> int:
    """List dead letters, or send them again; returns the exit code."""
    configuration = Configuration(arguments)
    if not configuration.section(KafkaSettings).servers:
        if arguments.resend:
            raise ConfigError("--resend needs --kafka; in the embedded mode `ocrstream replay` reads frames again")
        folder = DeadLetterFolder(Path(configuration.section(DataSettings).dir) / FOLDER)
        return _list([letter for _, letter in folder.scan()], with_traceback=arguments.traceback)
    with stop_on_signals() as stop, kafka_transport(configuration, Metrics(), stop) as transport:
        letters = [letter for delivery in transport.read(DEAD_LETTERS, None, None) if (letter := _opened(delivery))]
        if arguments.resend:
            for letter in letters:
                transport.publish(letter.topic, letter.record)
            transport.flush()
            sys.stderr.write(f"{count_of(len(letters), 'record')} sent again.\n")
            return 0
    return _list(letters, with_traceback=arguments.traceback)


def _opened(delivery: Delivery) -> DeadLetter | None:
    try:
        message = delivery.open()
    except MalformedRecordError as error:
        log.warning("%s[%d]@%d is no dead letter: %s", *delivery.position, delivery.offset, error)
        return None
    if not isinstance(message, DeadLetter) or message.topic not in TOPICS:
        log.warning("%s[%d]@%d is no dead letter of ocrstream's", *delivery.position, delivery.offset)
        return None
    return message


def _list(letters: Sequence[DeadLetter], *, with_traceback: bool) -> int:
    for letter in letters:
        sys.stdout.write(f"{letter.topic}[{letter.partition}]@{letter.offset} {letter.key}\n")
        sys.stdout.write(f"    the {letter.stage} stage: {letter.reason}\n")
        if with_traceback:
            sys.stdout.write("".join(f"    {row}\n" for row in letter.traceback.splitlines()))
    sys.stderr.write(f"{count_of(len(letters), 'dead letter')}.\n")
    return 0


COMMAND = Command("dead-letters", "List what could not be processed, or send it again.", add_arguments, run)


def _text(value: bytes) -> str:
    return base64.b64encode(value).decode("ascii")
