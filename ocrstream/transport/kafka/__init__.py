"""Topics of an Apache Kafka cluster, through kafka-python; the only module that knows that client.

Record time and capture time
    Kafka deletes by the records' own timestamps: a file filmed three years ago, sent under its capture time, would be
    gone at the broker's next retention check, read or not; and a timestamp more than an hour in the future makes the
    broker refuse the whole batch it travels in. So a record's timestamp is its capture time as long as that is recent
    (`RECENT_S`), which it is for every live frame, and the time of sending otherwise. The capture time itself is in the
    metadata in any case. Since no record is older than what it shows, `read` begins where Kafka finds the window's
    beginning by record time, and filters by capture time from there on.

Progress of a source
    `KafkaTransport.save_progress` stores its text as the metadata of an offset that the group ``ocr-producer-KEY``
    commits on the first partition of ``ocr.frames``: no further topic, and a new process finds it. Brokers forget such
    a group after ``offsets.retention.minutes`` (7 days by default) without a commit.

Late commits
    A commit that comes after a rebalance has taken the partition away is no error: nothing is stored, and the records
    are delivered again to whoever owns the partition now. It is logged.
"""

from __future__ import annotations

import difflib
import importlib.util
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType
from kafka.net.compat import KafkaNetClient
from kafka.structs import OffsetAndMetadata

from ocrstream.config import KafkaSettings, variable_of
from ocrstream.errors import ConfigError, DeploymentError, OcrstreamError, PoisonError, TransportError
from ocrstream.messages import (
    DEAD_LETTERS,
    FRAMES,
    REPLAY,
    TOPICS,
    DeadLetter,
    Message,
    PictureRef,
    RawRecord,
    encode,
)
from ocrstream.metrics import Metrics
from ocrstream.transport import Delivery, Position
from ocrstream.transport.kafka.shrinking import smaller_versions

log = logging.getLogger(__name__)

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 15.0
DELIVERY_TIMEOUT_S = 30.0

RECENT_S = 600.0
"""How old a capture time may be to become its record's timestamp; older ones would cost the record its retention."""

MAX_BYTES_UNDER_WAY = 64 * 1024 * 1024
"""Records handed over and not confirmed. kafka-python has no limit of its own: without this one a producer that is
faster than the network would fill the memory."""

BATCH_BYTES = 1024 * 1024
DEAD_LETTER_ROOM_BYTES = 1_000_000
"""What a dead letter may be larger than the record it holds: reason, traceback, the original's headers."""

RECORD_OVERHEAD_BYTES = 256
"""Kafka's own fields of a batch with one record, rounded up."""

MAX_POLL_INTERVAL_S = 900.0
"""So long may a consumer go without `poll` or `keep_alive` before its partitions are given to others."""

REBALANCE_TIMEOUT_S = 5.0
"""How long one call may wait for the other members of a group that is being rebalanced."""

DEAD_LETTER_RETENTION_S = 14 * 86_400

REFUSED = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.AuthorizationError,
)
LATE_COMMIT = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.UnknownMemberIdError,
)


class KafkaTransport:
    """Topics of a Kafka cluster; connects when something is first asked of it.

    Args:
        settings: the cluster, and how topics are made.
        metrics: where shrunk messages are counted, as ``transport.shrunk``.

    Raises:
        ConfigError: the settings contradict each other or name a property that kafka-python does not have.
        DeploymentError: the package ``crc32c`` is missing.
    """

    def __init__(self, settings: KafkaSettings, metrics: Metrics | None = None) -> None:
        _require_crc32c()
        self._settings = settings
        self._metrics = metrics if metrics is not None else Metrics()
        self._cluster = _Cluster(settings)
        self._max_bytes = int(settings.max_message_mb * 1_000_000)
        self._lock = threading.RLock()
        self._producer: Any = None
        self._admin: Any = None
        self._fetcher: Any = None
        self._fetch_lock = threading.Lock()
        self._under_way = _UnderWay()
        self._unconfirmed = _Unconfirmed()
        self._consumers: list[GroupConsumer] = []
        self._shrunk_sources: set[str] = set()
        self._closed = False

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
            raise TransportError(f"Kafka at {self._settings.servers} has confirmed nothing for {DELIVERY_TIMEOUT_S} s")
        try:
            with self._cluster.translated(f"publishing to {topic}"):
                future = producer.send(
                    self._wire(topic),
                    key=record.key.encode(),
                    value=record.value,
                    headers=list(record.headers.items()),
                    timestamp_ms=self._record_time_ms(record.timestamp_ms),
                )
        except OcrstreamError:
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
            raise DeploymentError(self._limit_advice(topic)) from error
        with self._cluster.translated(f"records for {topic} were not confirmed"):
            raise error

    def consumer(self, topics: Sequence[str], group: str) -> GroupConsumer:
        """Join a consumer group; a new group starts with the oldest record kept.

        Raises:
            TransportError: the broker is away.
            DeploymentError: the broker refuses this client.
        """
        client = self._cluster.open(
            KafkaConsumer,
            group_id=f"{self._settings.topic_prefix}{group}",
            max_poll_interval_ms=int(MAX_POLL_INTERVAL_S * 1000),
            # A member learns from the answer to a heartbeat that the group is being rebalanced.
            heartbeat_interval_ms=1000,
            **self._fetching(),
        )
        client.subscribe([self._wire(topic) for topic in topics])
        consumer = GroupConsumer(client, self._cluster, self._settings.topic_prefix, self._consumers.remove)
        with self._lock:
            self._consumers.append(consumer)
        return consumer

    def read(self, topic: str, since_ns: int | None, until_ns: int | None) -> Iterator[Delivery]:
        """The records of a capture time; see `ocrstream.transport.Transport.read`.

        Everything from the window's beginning to the topic's end is looked at, since frames of files are sent long
        after their capture time.
        """
        client = self._cluster.open(KafkaConsumer, group_id=None, **self._fetching())
        try:
            with self._cluster.translated(f"reading {topic}"):
                for delivery in self._records_since(client, topic, since_ns):
                    at_ns = delivery.captured_at_ns()
                    if (since_ns is None or at_ns >= since_ns) and (until_ns is None or at_ns < until_ns):
                        yield delivery
        finally:
            client.close(timeout_ms=1000)

    def fetch(self, ref: PictureRef) -> Delivery | None:
        """One record by its place, or None when the topic no longer keeps it.

        Raises:
            TransportError: the broker is away.
        """
        place = TopicPartition(self._wire(ref.topic), ref.partition)
        with self._fetch_lock, self._cluster.translated(f"fetching from {ref.topic}"):
            client = self._fetcher_now()
            if ref.partition not in client.partitions_for_topic(place.topic):
                return None
            timeout_ms = CONNECT_TIMEOUT_S * 1000
            if not client.beginning_offsets([place], timeout_ms)[place] <= ref.offset:
                return None
            if not ref.offset < client.end_offsets([place], timeout_ms)[place]:
                return None
            client.assign([place])
            client.seek(place, ref.offset)
            records = client.poll(timeout_ms=timeout_ms, max_records=1).get(place)
        if not records:
            raise TransportError(f"Kafka gave no record of {ref.topic}[{ref.partition}] within {CONNECT_TIMEOUT_S} s")
        delivery = _delivery(records[0], self._settings.topic_prefix)
        return delivery if delivery.offset == ref.offset else None

    def progress(self, source_key: str) -> str | None:
        """How far a source was read; see the module's docstring.

        Raises:
            TransportError: the broker is away.
        """
        group, place = self._progress_group(source_key), self._progress_place()
        with self._lock, self._cluster.translated(f"reading the progress of {source_key}"):
            found = self._admin_now().list_group_offsets({group: [place]}).get(group, {}).get(place)
        return found.metadata or None if found is not None else None

    def save_progress(self, source_key: str, text: str) -> None:
        """Keep how far a source was read; see the module's docstring.

        Raises:
            TransportError: it could not be stored.
        """
        group, place = self._progress_group(source_key), self._progress_place()
        with self._lock, self._cluster.translated(f"saving the progress of {source_key}"):
            results = self._admin_now().alter_group_offsets(group, {place: OffsetAndMetadata(0, text, -1)})
            for error in results.values():
                if error is not kafka_errors.NoError:
                    raise error()

    def check(self) -> None:
        """Create the topics that are missing and see that the others take records of the configured size.

        Raises:
            DeploymentError: a topic is there but takes only smaller records, or the broker refuses to create one.
            TransportError: the broker is away.
        """
        with self._lock, self._cluster.translated("looking at the topics"):
            admin = self._admin_now()
            there = set(admin.list_topics())
            missing = [topic for topic in TOPICS if self._wire(topic) not in there]
            if missing:
                self._create(admin, missing)
            self._check_limits(admin, [topic for topic in TOPICS if topic not in missing])

    def close(self) -> None:
        """Send what is under way, and let go; consumers still open are closed."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            consumers = list(self._consumers)
        for consumer in consumers:
            consumer.close()
        if self._producer is not None:
            _close_producer(self._producer, CONNECT_TIMEOUT_S)
        for client in (self._admin, self._fetcher):
            if client is not None:
                client.close()

    def _wire(self, topic: str) -> str:
        return f"{self._settings.topic_prefix}{topic}"

    def _progress_group(self, source_key: str) -> str:
        return f"{self._settings.topic_prefix}ocr-producer-{source_key}"

    def _progress_place(self) -> Any:
        return TopicPartition(self._wire(FRAMES), 0)

    def _record_time_ms(self, captured_ms: int) -> int:
        """The capture time where it is recent, or now; see the module's docstring."""
        now_ms = time.time_ns() // 1_000_000
        recent_ms = min(RECENT_S, self._settings.retention_hours * 360) * 1000
        return captured_ms if now_ms - recent_ms <= captured_ms <= now_ms else now_ms

    def _producer_now(self) -> Any:
        with self._lock:
            self._check_open()
            if self._producer is None:
                largest = self._max_bytes + DEAD_LETTER_ROOM_BYTES
                self._producer = self._cluster.open(
                    KafkaProducer,
                    acks="all",
                    enable_idempotence=True,
                    # A batch counts against max.message.bytes as a whole.
                    batch_size=min(BATCH_BYTES, self._max_bytes),
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

    def _admin_now(self) -> Any:
        self._check_open()
        if self._admin is None:
            self._admin = self._cluster.open(KafkaAdminClient)
        return self._admin

    def _fetcher_now(self) -> Any:
        with self._lock:
            self._check_open()
            if self._fetcher is None:
                # The smallest answer holds one whole batch, and more than the one record is not wanted.
                few = {**self._fetching(), "max_partition_fetch_bytes": 1, "fetch_max_bytes": 1}
                self._fetcher = self._cluster.open(KafkaConsumer, group_id=None, **few)
            return self._fetcher

    def _check_open(self) -> None:
        if self._closed:
            raise TransportError("the Kafka transport was closed")

    def _fetching(self) -> dict[str, Any]:
        """How consumers fetch: enough at a time to drain hundreds of frames at once."""
        return {
            "enable_auto_commit": False,
            "auto_offset_reset": "earliest",
            "max_partition_fetch_bytes": max(self._max_bytes, 8 * BATCH_BYTES),
            "fetch_max_bytes": 64 * BATCH_BYTES,
            # One request at a time is open to a broker: while it waits for news of the idle partitions, a busy one
            # waits with them. So this bounds what an idle camera costs a busy one.
            "fetch_max_wait_ms": 50,
        }

    def _limit_of(self, topic: str) -> int:
        return self._max_bytes + (DEAD_LETTER_ROOM_BYTES if topic == DEAD_LETTERS else 0)

    def _fitting_record(self, topic: str, message: Message) -> tuple[RawRecord, int]:
        """The record of a message, shrunk where it has to be, and its size."""
        record, limit = encode(message), self._limit_of(topic)
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

    def _records_since(self, client: Any, topic: str, since_ns: int | None) -> Iterator[Delivery]:
        """The records from a record time on, up to those that are there now."""
        partitions = [TopicPartition(self._wire(topic), n) for n in client.partitions_for_topic(self._wire(topic))]
        if not partitions:
            raise TransportError(f"there is no topic {self._wire(topic)}; `ocrstream doctor` tells what is missing")
        ends = client.end_offsets(partitions)
        starts = client.beginning_offsets(partitions)
        # No record is older than what it shows, but for capture times in the future, which are recorded as now.
        if since_ns is not None and since_ns <= time.time_ns():
            found = client.offsets_for_times(dict.fromkeys(partitions, since_ns // 1_000_000))
            starts = {place: ends[place] if at is None else at.offset for place, at in found.items()}
        remaining = {place for place in partitions if starts[place] < ends[place]}
        client.assign(partitions)
        for place in partitions:
            client.seek(place, starts[place])
        client.pause(*(set(partitions) - remaining))
        while remaining:
            records = client.poll(timeout_ms=REQUEST_TIMEOUT_S * 1000)
            if not records:
                raise TransportError(f"Kafka at {self._settings.servers} stopped answering while {topic} was read")
            for place, batch in records.items():
                yield from (_delivery(r, self._settings.topic_prefix) for r in batch if r.offset < ends[place])
                if client.position(place) >= ends[place]:
                    remaining.discard(place)
                    client.pause(place)

    def _create(self, admin: Any, topics: Sequence[str]) -> None:
        wanted = {
            self._wire(topic): {
                "num_partitions": self._settings.partitions,
                "replication_factor": self._settings.replication,
                "configs": self._topic_configs(topic),
            }
            for topic in topics
        }
        answer = admin.create_topics(wanted, raise_errors=False)
        for topic in answer["topics"]:
            error = kafka_errors.for_code(topic["error_code"])
            # Another process that starts at the same time may have been faster.
            if error not in (kafka_errors.NoError, kafka_errors.TopicAlreadyExistsError):
                raise DeploymentError(
                    f"Kafka at {self._settings.servers} does not create the topic {topic['name']}: "
                    f"{topic['error_message'] or error.description}. Create it by hand, or change partitions and "
                    "replication in section [kafka]."
                )
        admin.wait_for_topics(list(wanted), timeout_ms=int(REQUEST_TIMEOUT_S * 1000))

    def _topic_configs(self, topic: str) -> dict[str, str]:
        settings = self._settings
        retention_ms = int(settings.retention_hours * 3_600_000)
        configs = {
            "cleanup.policy": "delete",
            "max.message.bytes": str(self._limit_of(topic)),
            "message.timestamp.type": "CreateTime",
            "retention.ms": str(retention_ms),
            # Only whole segments are deleted, so their length in time bounds how much longer data stays.
            "segment.ms": str(max(retention_ms // 10, 60_000)),
        }
        if topic == DEAD_LETTERS:
            configs["retention.ms"] = str(max(retention_ms, DEAD_LETTER_RETENTION_S * 1000))
        if topic in (FRAMES, REPLAY):
            share = max(int(settings.retention_gb * 1e9 / settings.partitions), 1)
            configs["retention.bytes"] = str(share)
            configs["segment.bytes"] = str(min(max(share // 8, 2 * self._max_bytes, 16 * BATCH_BYTES), 2**30))
        return configs

    def _check_limits(self, admin: Any, topics: Sequence[str]) -> None:
        if not topics:
            return
        resources = [ConfigResource(ConfigResourceType.TOPIC, self._wire(topic)) for topic in topics]
        configs = admin.describe_configs(resources, config_filter="all")["topic"]
        for topic in topics:
            largest = int(configs[self._wire(topic)]["max.message.bytes"]["value"])
            if largest < self._limit_of(topic):
                raise DeploymentError(self._limit_advice(topic, largest))

    def _limit_advice(self, topic: str, largest: int | None = None) -> str:
        have = "smaller records" if largest is None else f"records of at most {largest} bytes"
        servers, wire, wanted = self._settings.servers, self._wire(topic), self._limit_of(topic)
        return (
            f"the topic {wire} takes only {have}, but this program is set up to send up to {wanted} bytes. Raise its "
            f"limit:\n  kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics "
            f"--entity-name {wire} --add-config max.message.bytes={wanted}\n"
            f"or lower max_message_mb in section [kafka], so that larger frames are shrunk to fit."
        )


class GroupConsumer:
    """One member of a consumer group; made by `KafkaTransport.consumer`, used by one thread."""

    def __init__(
        self, client: Any, cluster: _Cluster, topic_prefix: str, forget: Callable[[GroupConsumer], None]
    ) -> None:
        self._client = client
        self._cluster = cluster
        self._prefix = topic_prefix
        self._forget = forget
        self._closed = False

    def poll(self, timeout_s: float, max_records: int) -> list[Delivery]:
        """The next records; empty after the time-out, also while the broker is away and comes back by itself.

        Raises:
            TransportError: this consumer was closed, or the broker answers with an error.
            DeploymentError: the broker refuses this client.
        """
        self._check_open()
        with self._cluster.translated("polling"):
            self._rejoin()
            found = self._client.poll(timeout_ms=timeout_s * 1000, max_records=max_records)
        return [_delivery(record, self._prefix) for records in found.values() for record in records]

    def commit(self, next_offsets: Mapping[Position, int]) -> None:
        """Store the offset to read next, per partition owned; too late a commit stores nothing and is logged.

        Raises:
            TransportError: the broker is away; commit again.
        """
        self._check_open()
        owned = self._client.assignment()
        offsets = {
            place: OffsetAndMetadata(offset, "", -1)
            for place, offset in ((self._place(position), offset) for position, offset in next_offsets.items())
            if place in owned
        }
        if not offsets:
            return
        with self._cluster.translated("committing"):
            try:
                self._client.commit(offsets, timeout_ms=REQUEST_TIMEOUT_S * 1000)
            except LATE_COMMIT as error:
                log.info("the group was rebalanced before a commit; its records are delivered again: %s", error)

    def seek(self, offsets: Mapping[Position, int]) -> None:
        """Deliver again from these offsets, of partitions owned."""
        self._check_open()
        for position, offset in offsets.items():
            place = self._place(position)
            if place in self._client.assignment():
                self._client.seek(place, offset)

    def keep_alive(self) -> None:
        """Take part in the group without being given records: heartbeats, rebalances.

        Raises:
            TransportError: this consumer was closed, or the broker answers with an error.
        """
        self._check_open()
        with self._cluster.translated("staying in the group"):
            self._rejoin()
            self._client.pause(*self._client.assignment())
            try:
                found = self._client.poll(timeout_ms=0, max_records=1)
            finally:
                self._client.resume(*self._client.paused())
            # A partition that was assigned in this very call was not paused yet.
            for place, records in found.items():
                self._client.seek(place, records[0].offset)

    def owned(self) -> set[Position]:
        """The partitions this member owns now."""
        if self._closed:
            return set()
        return {(place.topic.removeprefix(self._prefix), place.partition) for place in self._client.assignment()}

    def lag(self) -> dict[Position, int]:
        """How many offsets lie between this member's place and the end, for each partition it owns.

        Raises:
            TransportError: the broker is away.
        """
        self._check_open()
        places = sorted(self._client.assignment())
        if not places:
            return {}
        timeout_ms = CONNECT_TIMEOUT_S * 1000
        with self._cluster.translated("asking for the lag"):
            ends = self._client.end_offsets(places, timeout_ms)
            positions = {place: self._client.position(place, timeout_ms) for place in places}
        return {
            (place.topic.removeprefix(self._prefix), place.partition): max(ends[place] - (positions[place] or 0), 0)
            for place in places
        }

    def close(self) -> None:
        """Leave the group; nothing is committed by that."""
        if self._closed:
            return
        self._closed = True
        self._forget(self)
        with suppress(kafka_errors.KafkaError):
            self._client.close(autocommit=False, timeout_ms=5000)

    def _rejoin(self) -> None:
        """Join the group where that is due, and wait for it.

        kafka-python 3.0 forgets a join that comes to its end while nobody is inside ``poll``, and begins another one,
        which throws the group into a rebalance again. With short polls two members can disturb each other so without
        end, so the join is waited for in one go, by the call that ``poll`` makes first of all.
        """
        coordinator = self._client._coordinator
        if coordinator.need_rejoin():
            coordinator.poll(timeout_ms=REBALANCE_TIMEOUT_S * 1000)

    def _place(self, position: Position) -> Any:
        return TopicPartition(f"{self._prefix}{position[0]}", position[1])

    def _check_open(self) -> None:
        if self._closed:
            raise TransportError("this consumer was closed")


class _Cluster:
    """Where the cluster is and how to connect to it; opens kafka-python's clients and translates their errors."""

    def __init__(self, settings: KafkaSettings) -> None:
        if not settings.servers:
            raise ConfigError(f"no Kafka address is given; use --kafka HOST:PORT or {variable_of('kafka', 'servers')}")
        self._servers = settings.servers
        self._common = {
            "bootstrap_servers": [server.strip() for server in settings.servers.split(",") if server.strip()],
            "client_id": "ocrstream",
            "bootstrap_timeout_ms": int(CONNECT_TIMEOUT_S * 1000),
            "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000),
            "reconnect_backoff_max_ms": 2000,
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
            **_security(settings),
        }
        self._extra = parse_properties(settings.properties)
        # A broker that refuses a password hangs up, and kafka-python does not always read why before that.
        login = "username, password, sasl_mechanism and " if "SASL" in settings.security_protocol else ""
        self._to_check = f"{login}security_protocol in section [kafka]"

    def open(self, client: Any, **configs: Any) -> Any:
        """A client of kafka-python, connected within `CONNECT_TIMEOUT_S`.

        Raises:
            ConfigError: a property has a value that does not fit.
            DeploymentError: the broker refuses this client.
            TransportError: no broker answers.
        """
        opened: list[Any] = []
        failures: list[Exception] = []

        def network(**options: Any) -> Any:
            opened.append(KafkaNetClient(**options))
            _remember_failures(opened[-1], failures)
            return opened[-1]

        merged = {**self._common, **configs, **self._extra, "kafka_client": network}
        known = {name: value for name, value in merged.items() if name in client.DEFAULT_CONFIG}
        try:
            with self.translated("connecting"):
                try:
                    return _construct(client, known)
                except kafka_errors.KafkaTimeoutError as error:
                    refused = [failure for failure in failures if isinstance(failure, REFUSED)]
                    raise next(iter(refused + failures), error) from error
        except BaseException:
            # kafka-python's constructors leave their network thread behind when they fail.
            for network_client in opened:
                network_client.close()
            raise

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Turn kafka-python's errors into this program's, with the address and what to check."""
        try:
            yield
        except REFUSED as error:
            raise DeploymentError(
                f"Kafka at {self._servers} refuses this client ({doing}): {_describe(error)}. Check username, "
                "password, sasl_mechanism and security_protocol in section [kafka], and the user's rights there."
            ) from error
        except (kafka_errors.KafkaError, OSError) as error:
            raise TransportError(
                f"Kafka at {self._servers} cannot be used ({doing}): {_describe(error)}. Check that a broker runs "
                f"at that address, that its advertised.listeners can be reached from here, and {self._to_check}."
            ) from error


def _remember_failures(network_client: Any, failures: list[Exception]) -> None:
    """Note why connections fail: kafka-python retries until its time is up, and then says only that it is."""
    manager = network_client._manager
    connect = manager.get_connection

    def get_connection(*args: Any, **options: Any) -> Any:
        connection = connect(*args, **options)
        connection.init_future.add_errback(failures.append)
        return connection

    manager.get_connection = get_connection


def _construct(client: Any, configs: Mapping[str, Any]) -> Any:
    try:
        return client(**configs)
    except (kafka_errors.KafkaConfigurationError, ValueError, TypeError) as error:
        raise ConfigError(f"a property of section [kafka] does not fit: {error}") from error


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


def _hide_credentials_on_the_wire() -> None:
    """Keep kafka-python from logging, at level DEBUG, every request it sends: that of SASL PLAIN is the password."""
    for name in ("kafka.net.connection", "kafka.protocol.parser"):
        logger = logging.getLogger(name)
        if logger.level < logging.INFO:
            logger.setLevel(logging.INFO)


class _Password(str):
    """A password that does not show where kafka-python logs its configuration."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


OWN_PROPERTIES = frozenset(
    {
        "allow_auto_create_topics",
        "auto_offset_reset",
        "bootstrap_servers",
        "enable_auto_commit",
        "group_id",
        "max_request_size",
        "sasl_mechanism",
        "sasl_plain_password",
        "sasl_plain_username",
        "security_protocol",
        "ssl_cafile",
    }
)
"""Properties that have a setting of their own, or that this module's promises rest on."""


def parse_properties(text: str) -> dict[str, Any]:
    """Properties of kafka-python from ``NAME=VALUE,NAME=VALUE``, as the types that it expects.

    Raises:
        ConfigError: not of that form, or not a property that can be set; values are never shown, as some are secret.
    """
    clients = (KafkaAdminClient, KafkaConsumer, KafkaProducer)
    known = {name: value for client in clients for name, value in client.DEFAULT_CONFIG.items()}
    properties: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ConfigError("properties in section [kafka] should be NAME=VALUE with commas between them")
        if name in OWN_PROPERTIES:
            raise ConfigError(f"the Kafka property {name!r} is set by ocrstream itself; see docs/configuration.md")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"unknown Kafka property {name!r}{hint}")
        properties[name] = _property_value(name, value, known[name])
    return properties


def _property_value(name: str, text: str, default: Any) -> Any:
    """The text as the type of the property's default."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if name == "api_version":
            return tuple(int(part) for part in text.split("."))
        if isinstance(default, (int, float)) or name.endswith(("_bytes", "_ms")):
            return int(text)
    except (KeyError, ValueError):
        kind = "true or false" if isinstance(default, bool) else "a number"
        raise ConfigError(f"the Kafka property {name!r} should be {kind}") from None
    if default is None or isinstance(default, str):
        return _Password(text) if "password" in name else text
    raise ConfigError(f"the Kafka property {name!r} cannot be written as text")


def _security(settings: KafkaSettings) -> dict[str, Any]:
    protocol = settings.security_protocol
    configs: dict[str, Any] = {"security_protocol": protocol}
    if settings.ca_file:
        if "SSL" not in protocol:
            raise ConfigError(f"ca_file in section [kafka] needs security_protocol SSL or SASL_SSL, not {protocol}")
        if not Path(settings.ca_file).is_file():
            raise ConfigError(f"ca_file in section [kafka]: there is no file {settings.ca_file}")
        configs["ssl_cafile"] = settings.ca_file
    if "SASL" not in protocol:
        if settings.username or settings.sasl_mechanism:
            raise ConfigError(f"a SASL user needs security_protocol SASL_SSL or SASL_PLAINTEXT, not {protocol}")
        return configs
    if not settings.sasl_mechanism:
        raise ConfigError(f"security_protocol {protocol} needs sasl_mechanism in section [kafka]")
    configs["sasl_mechanism"] = settings.sasl_mechanism
    _hide_credentials_on_the_wire()
    if settings.sasl_mechanism == "PLAIN" or settings.sasl_mechanism.startswith("SCRAM"):
        if not settings.username or not settings.password:
            raise ConfigError(
                f"sasl_mechanism {settings.sasl_mechanism} needs username in section [kafka] and its password in "
                f"{variable_of('kafka', 'password')}"
            )
        configs["sasl_plain_username"] = settings.username
        configs["sasl_plain_password"] = _Password(settings.password)
    return configs


def _require_crc32c() -> None:
    if importlib.util.find_spec("crc32c") is None:
        raise DeploymentError(
            "the package crc32c is missing: without it every 100 KB record costs kafka-python 9 ms of checksum. "
            "Install it: pip install 'kafka-python[crc32c]'"
        )


def _close_producer(producer: Any, timeout_s: float) -> None:
    try:
        producer.flush(timeout_s)
    except kafka_errors.KafkaError as error:
        log.warning("a producer is closed before Kafka confirmed everything: %s", error)
        # Otherwise its own close would wait for the same records, fail, and leave the producer open.
        producer._sender.force_close()
    producer.close(timeout=1)


def _describe(error: Exception) -> str:
    return str(error) or type(error).__name__


def _size_of(record: RawRecord) -> int:
    """The record's size as the broker's limit counts it, at most."""
    headers = sum(len(name.encode()) + len(value) + 10 for name, value in record.headers.items())
    return len(record.value) + len(record.key.encode()) + headers + RECORD_OVERHEAD_BYTES


def _delivery(record: Any, topic_prefix: str) -> Delivery:
    raw = RawRecord(
        key=(record.key or b"").decode("utf-8", "replace"),
        value=record.value or b"",
        headers=dict(record.headers),
        timestamp_ms=record.timestamp,
    )
    return Delivery(record.topic.removeprefix(topic_prefix), record.partition, record.offset, raw)
