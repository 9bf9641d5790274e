"""Topics of an Apache Kafka cluster, through kafka-python; the only package that knows that client.

| room | what is in it |
|---|---|
| `KafkaTransport`, here | the transport, put together from the rooms below; the progress of sources |
| `connection` | where the cluster is: properties, TLS, SASL, no password in a log; errors told so that they help |
| `topics` | names, sizes, creating, checking |
| `producing` | sending, confirming, the bound on what is under way; `shrinking` makes large messages fit |
| `consuming` | members of consumer groups: polling, committing, staying alive |
| `reading` | the records of a capture time, or of one place, without a group |
| `internals` | what is relied upon of kafka-python beyond its documented interface, and why |

Progress of a source
    `KafkaTransport.save_progress` stores its text as the metadata of an offset that the group ``ocr-producer-KEY``
    commits on the first partition of ``ocr.frames``: no further topic, and a new process finds it. Brokers forget such
    a group after ``offsets.retention.minutes`` (7 days by default) without a commit.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer
from kafka import errors as kafka_errors
from kafka.structs import OffsetAndMetadata

from ocrstream.config import KafkaSettings
from ocrstream.messages import FRAMES, Message, PictureRef, RawRecord
from ocrstream.metrics import Metrics
from ocrstream.transport import Delivery
from ocrstream.transport.kafka.connection import Cluster, require_crc32c
from ocrstream.transport.kafka.consuming import MAX_POLL_INTERVAL_S, SESSION_TIMEOUT_S, GroupConsumer, fetching
from ocrstream.transport.kafka.producing import Sender
from ocrstream.transport.kafka.reading import LogReader
from ocrstream.transport.kafka.topics import Topics

__all__ = ["KafkaTransport"]


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
        require_crc32c()
        self._cluster = Cluster(settings)
        self._topics = Topics(settings)
        self._sender = Sender(settings, self._cluster, self._topics, metrics if metrics is not None else Metrics())
        self._reader = LogReader(self._cluster, self._topics)
        self._lock = threading.Lock()
        self._admin: Any = None
        self._consumers: list[GroupConsumer] = []

    def publish(self, topic: str, message: Message | RawRecord) -> None:
        """Hand a message over; one that is too large for the topic is shrunk, counted and logged.

        Raises:
            TransportError: the broker takes no more, or does not know the topic; see `check`.
            PoisonError: it cannot be made to fit.
            DeploymentError: the broker refuses this client.
        """
        self._sender.publish(topic, message)

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until everything this thread has published is confirmed.

        Raises:
            TransportError: something is not; those messages must be published again.
            DeploymentError: the broker refuses a record for good; the message says what to change.
        """
        self._sender.flush(timeout_s)

    def consumer(self, topics: Sequence[str], group: str) -> GroupConsumer:
        """Join a consumer group; a new group starts with the oldest record kept.

        Raises:
            TransportError: the broker is away.
            DeploymentError: the broker refuses this client.
        """
        client = self._cluster.open(
            KafkaConsumer,
            group_id=self._topics.wire(group),
            max_poll_interval_ms=int(MAX_POLL_INTERVAL_S * 1000),
            session_timeout_ms=int(SESSION_TIMEOUT_S * 1000),
            # A member learns from the answer to a heartbeat that the group is being rebalanced.
            heartbeat_interval_ms=1000,
            **fetching(self._topics),
        )
        client.subscribe([self._topics.wire(topic) for topic in topics])
        consumer = GroupConsumer(client, self._cluster, self._topics, self._consumers.remove)
        with self._lock:
            self._consumers.append(consumer)
        return consumer

    def read(self, topic: str, since_ns: int | None, until_ns: int | None) -> Iterator[Delivery]:
        """The records of a capture time; see `ocrstream.transport.Transport.read`.

        Everything from the window's beginning to the topic's end is looked at, since frames of files are sent long
        after their capture time.
        """
        return self._reader.read(topic, since_ns, until_ns)

    def recent(self, topic: str, since_ns: int) -> Iterator[Delivery]:
        """The records that were sent since a time; see `ocrstream.transport.Transport.recent`."""
        return self._reader.recent(topic, since_ns)

    def fetch(self, ref: PictureRef) -> Delivery | None:
        """One record by its place, or None when the topic no longer keeps it.

        Raises:
            TransportError: the broker is away.
        """
        return self._reader.fetch(ref)

    def progress(self, source_key: str) -> str | None:
        """How far a source was read; see the package's docstring.

        Raises:
            TransportError: the broker is away.
        """
        group, place = self._progress_group(source_key), self._topics.place(FRAMES, 0)
        with self._lock, self._cluster.translated(f"reading the progress of {source_key}"):
            found = self._admin_now().list_group_offsets({group: [place]}).get(group, {}).get(place)
        return found.metadata or None if found is not None else None

    def save_progress(self, source_key: str, text: str) -> None:
        """Keep how far a source was read; see the package's docstring.

        Raises:
            TransportError: it could not be stored.
        """
        group, place = self._progress_group(source_key), self._topics.place(FRAMES, 0)
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
            self._topics.check(self._admin_now())

    def close(self) -> None:
        """Send what is under way, and let go; consumers still open are closed."""
        with self._lock:
            if self._cluster.closed:
                return
            self._cluster.closed = True
            consumers = list(self._consumers)
        for consumer in consumers:
            consumer.close()
        self._sender.close()
        if self._admin is not None:
            self._admin.close()
        self._reader.close()

    def _progress_group(self, source_key: str) -> str:
        return self._topics.wire(f"ocr-producer-{source_key}")

    def _admin_now(self) -> Any:
        self._cluster.check_open()
        if self._admin is None:
            self._admin = self._cluster.open(KafkaAdminClient)
        return self._admin
