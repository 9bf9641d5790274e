"""Sending: records made to fit and confirmed, with a bound on what is under way.

Record time and capture time
    Kafka deletes by the records' own timestamps: a file filmed three years ago, sent under its capture time, would be
    gone at the broker's next retention check, read or not; and a timestamp more than an hour in the future makes the
    broker refuse the whole batch it travels in. So a record's timestamp is its capture time as long as that is recent
    (`RECENT_S`), which it is for every live frame, and the time of sending otherwise. The capture time itself is in the
    metadata in any case.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from kafka import KafkaProducer
from kafka import errors as kafka_errors

from ocrstream.config import KafkaSettings
from ocrstream.errors import DeploymentError, PoisonError, TransportError
from ocrstream.messages import DeadLetter, Message, RawRecord
from ocrstream.metrics import Metrics
from ocrstream.transport.kafka.connection import CONNECT_TIMEOUT_S, Cluster
from ocrstream.transport.kafka.internals import abandon
from ocrstream.transport.kafka.shrinking import smaller_versions
from ocrstream.transport.kafka.topics import BATCH_BYTES, DEAD_LETTER_ROOM_BYTES, Topics
from ocrstream.wire import encode

log = logging.getLogger(__name__)

DELIVERY_TIMEOUT_S = 30.0

RECENT_S = 600.0
"""How old a capture time may be to become its record's timestamp; older ones would cost the record its retention."""

MAX_BYTES_UNDER_WAY = 64 * 1024 * 1024
"""Records handed over and not confirmed. kafka-python has no limit of its own: without this one a producer that is
faster than the network would fill the memory."""

RECORD_OVERHEAD_BYTES = 256
"""Kafka's own fields of a batch with one record, rounded up."""


class Sender:
    """Publishes for every thread of a transport through one client, which is opened when it is first needed."""

    def __init__(self, settings: KafkaSettings, cluster: Cluster, topics: Topics, metrics: Metrics) -> None:
        self._settings = settings
        self._cluster = cluster
        self._topics = topics
        self._metrics = metrics
        self._lock = threading.Lock()
        self._producer: Any = None
        self._under_way = _UnderWay()
        self._unconfirmed = _Unconfirmed()
        self._shrunk_sources: set[str] = set()

    def publish(self, topic: str, message: Message | RawRecord) -> None:
        """Hand a message over; one that is too large for the topic is shrunk, counted and logged.

        Raises:
            TransportError: the broker takes no more, or does not know the topic; see `check`.
            PoisonError: it cannot be made to fit.
            DeploymentError: the broker refuses this client.
        """
        if isinstance(message, RawRecord):
            record, size = message, _size_of(message)
        else:
            record, size = self._fitting_record(topic, message)
        producer = self._producer_now()
        if not self._under_way.enter(size, DELIVERY_TIMEOUT_S):
            raise TransportError(f"Kafka at {self._cluster.servers} has confirmed nothing for {DELIVERY_TIMEOUT_S} s")
        try:
            with self._cluster.translated(f"publishing to {topic}"):
                future = producer.send(
                    self._topics.wire(topic),
                    key=_key(record),
                    value=record.value,
                    headers=list(record.headers.items()),
                    timestamp_ms=self._record_time_ms(record.timestamp_ms),
                )
        except BaseException:
            self._under_way.leave(size)
            raise
        future.add_both(lambda _: self._under_way.leave(size))
        self._unconfirmed.add(_Sent(topic, future, producer))

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until everything this thread has published is confirmed.

        Raises:
            TransportError: something is not; those messages must be published again.
            DeploymentError: the broker refuses a record for good; the message says what to change.
        """
        deadline = time.monotonic() + timeout_s
        failure: tuple[_Sent, Exception] | None = None
        for sent in self._unconfirmed.take():
            try:
                sent.future.get(timeout=max(deadline - time.monotonic(), 0))
            except kafka_errors.KafkaError as failed:
                failure = failure or (sent, failed)
        if failure is None:
            return
        sent, error = failure
        topic = sent.topic
        if sent.future.is_done:
            self._discard(sent.producer)
        if isinstance(error, (kafka_errors.MessageSizeTooLargeError, kafka_errors.RecordListTooLargeError)):
            raise DeploymentError(self._topics.limit_advice(topic)) from error
        with self._cluster.translated(f"records for {topic} were not confirmed"):
            raise error

    def close(self) -> None:
        """Send what is under way, and let go; `Cluster.closed` is set before, so that nothing is opened again."""
        with self._lock:
            producer, self._producer = self._producer, None
        if producer is not None:
            _close_producer(producer, CONNECT_TIMEOUT_S)

    def _record_time_ms(self, captured_ms: int) -> int:
        """The capture time where it is recent, or now; see the module's docstring."""
        now_ms = time.time_ns() // 1_000_000
        recent_ms = min(RECENT_S, self._settings.retention_hours * 360) * 1000
        return captured_ms if now_ms - recent_ms <= captured_ms <= now_ms else now_ms

    def _producer_now(self) -> Any:
        with self._lock:
            self._cluster.check_open()
            if self._producer is None:
                largest = self._topics.max_bytes + DEAD_LETTER_ROOM_BYTES
                self._producer = self._cluster.open(
                    KafkaProducer,
                    acks="all",
                    enable_idempotence=True,
                    # A batch counts against max.message.bytes as a whole.
                    batch_size=min(BATCH_BYTES, self._topics.max_bytes),
                    linger_ms=0,
                    max_request_size=max(largest, 4 * BATCH_BYTES),
                    max_block_ms=int(CONNECT_TIMEOUT_S * 1000),
                    delivery_timeout_ms=int(DELIVERY_TIMEOUT_S * 1000),
                )
            return self._producer

    def _discard(self, producer: Any) -> None:
        """Let go of a producer that failed: an idempotent one refuses everything after an error it cannot repair.

        What other threads have under way on it fails with it, and they publish it again.
        """
        with self._lock:
            if self._producer is producer:
                self._producer = None
        _close_producer(producer, 0)

    def _fitting_record(self, topic: str, message: Message) -> tuple[RawRecord, int]:
        """The record of a message, shrunk where it has to be, and its size."""
        record, limit = encode(message), self._topics.limit_of(topic)
        first_size = size = _size_of(record)
        if size <= limit:
            return record, size
        for smaller in smaller_versions(message):
            record = encode(smaller)
            size = _size_of(record)
            if size <= limit:
                self._tell_shrunk(topic, message, first_size, size)
                return record, size
        raise PoisonError(
            f"a record of {first_size} bytes for {topic} cannot be made to fit into {limit} bytes; raise "
            "max_message_mb in section [kafka], and max.message.bytes of the topics with it"
        )

    def _tell_shrunk(self, topic: str, message: Message, before: int, after: int) -> None:
        source = message.topic if isinstance(message, DeadLetter) else message.info.source_id
        self._metrics.add("transport.shrunk", source_id=source)
        with self._lock:
            if source in self._shrunk_sources:
                return
            self._shrunk_sources.add(source)
        log.warning(
            "%s: a record for %s has %d bytes, more than max_message_mb = %g allows; it was shrunk to %d, and so will "
            "be the next ones. Raise max_message_mb in section [kafka] (and max.message.bytes of the topics), or send "
            "smaller frames (--resize).",
            source,
            topic,
            before,
            self._settings.max_message_mb,
            after,
        )


@dataclass(slots=True)
class _UnderWay:
    """The bytes handed to the client and not confirmed yet, bounded."""

    _changed: threading.Condition = field(default_factory=threading.Condition)
    _bytes: int = 0
    _waiting: int = 0

    def enter(self, size: int, timeout_s: float) -> bool:
        """Wait for room; False when there was none in time."""
        with self._changed:
            self._waiting += 1
            room = self._changed.wait_for(
                lambda: not self._bytes or self._bytes + size <= MAX_BYTES_UNDER_WAY, timeout_s
            )
            self._waiting -= 1
            if room:
                self._bytes += size
            return room

    def leave(self, size: int) -> None:
        """Give room back."""
        with self._changed:
            self._bytes -= size
            if self._waiting:
                self._changed.notify_all()


@dataclass(frozen=True, slots=True)
class _Sent:
    """A record handed to the client."""

    topic: str
    future: Any
    producer: Any


class _Unconfirmed(threading.local):
    """Each thread's own records that `flush` has to look at."""

    def __init__(self) -> None:
        self._sent: deque[_Sent] = deque()

    def add(self, sent: _Sent) -> None:
        """Remember a record; those at the front that arrived are forgotten."""
        self._sent.append(sent)
        while self._sent and self._sent[0].future.succeeded():
            self._sent.popleft()

    def take(self) -> list[_Sent]:
        """All of them, once."""
        taken = list(self._sent)
        self._sent.clear()
        return taken


def _close_producer(producer: Any, timeout_s: float) -> None:
    try:
        producer.flush(timeout_s)
    except kafka_errors.KafkaError as error:
        log.warning("a producer is closed before Kafka confirmed everything: %s", error)
        # Otherwise its own close would wait for the same records, fail, and leave the producer open.
        abandon(producer)
    producer.close(timeout=1)


def _size_of(record: RawRecord) -> int:
    """The record's size as the broker's limit counts it, at most."""
    headers = sum(len(name.encode()) + len(value) + 10 for name, value in record.headers.items())
    return len(record.value) + len(_key(record)) + headers + RECORD_OVERHEAD_BYTES


def _key(record: RawRecord) -> bytes:
    # Half characters have no UTF-8.
    return record.key.encode("utf-8", "replace")
