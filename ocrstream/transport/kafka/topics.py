"""The topics as the cluster has them: their names, their sizes, how they are made and checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kafka import TopicPartition
from kafka import errors as kafka_errors
from kafka.admin import ConfigResource, ConfigResourceType

from ocrstream.config import KafkaSettings
from ocrstream.errors import DeploymentError
from ocrstream.messages import DEAD_LETTERS, FRAMES, REPLAY, TOPICS
from ocrstream.transport.kafka.connection import REQUEST_TIMEOUT_S

BATCH_BYTES = 1024 * 1024
DEAD_LETTER_ROOM_BYTES = 1_000_000
"""What a dead letter may be larger than the record it holds: reason, traceback, the original's headers."""

DEAD_LETTER_RETENTION_S = 14 * 86_400


class Topics:
    """The topics under their prefix, and how large a record each has to take.

    Attributes:
        max_bytes: the largest record of every topic but the dead letters'; see `limit_of`.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        self._settings = settings
        self.max_bytes = int(settings.max_message_mb * 1_000_000)

    def wire(self, name: str) -> str:
        """What the cluster calls a topic or a consumer group."""
        return f"{self._settings.topic_prefix}{name}"

    def topic_of(self, wire: str) -> str:
        """The topic that the cluster calls so."""
        return wire.removeprefix(self._settings.topic_prefix)

    def place(self, topic: str, partition: int) -> Any:
        """A partition, for kafka-python."""
        return TopicPartition(self.wire(topic), partition)

    def check(self, admin: Any) -> None:
        """Create the topics that are missing and see that the others take records of the configured size.

        Raises:
            DeploymentError: a topic is there but takes only smaller records, or the broker refuses to create one.
            KafkaError: the broker is away.
        """
        there = set(admin.list_topics())
        missing = [topic for topic in TOPICS if self.wire(topic) not in there]
        if missing:
            self._create(admin, missing)
        self._check_limits(admin, [topic for topic in TOPICS if topic not in missing])

    def limit_of(self, topic: str) -> int:
        """The largest record a topic has to take, in bytes."""
        return self.max_bytes + (DEAD_LETTER_ROOM_BYTES if topic == DEAD_LETTERS else 0)

    def limit_advice(self, topic: str, largest: int | None = None) -> str:
        """What to do about a topic that takes only smaller records than are sent to it."""
        have = "smaller records" if largest is None else f"records of at most {largest} bytes"
        servers, wire, wanted = self._settings.servers, self.wire(topic), self.limit_of(topic)
        return (
            f"the topic {wire} takes only {have}, but this program is set up to send up to {wanted} bytes. Raise its "
            f"limit:\n  kafka-configs.sh --bootstrap-server {servers} --alter --entity-type topics "
            f"--entity-name {wire} --add-config max.message.bytes={wanted}\n"
            f"or lower max_message_mb in section [kafka], so that larger frames are shrunk to fit."
        )

    def _create(self, admin: Any, topics: Sequence[str]) -> None:
        wanted = {
            self.wire(topic): {
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
            "max.message.bytes": str(self.limit_of(topic)),
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
            configs["segment.bytes"] = str(min(max(share // 8, 2 * self.max_bytes, 16 * BATCH_BYTES), 2**30))
        return configs

    def _check_limits(self, admin: Any, topics: Sequence[str]) -> None:
        if not topics:
            return
        resources = [ConfigResource(ConfigResourceType.TOPIC, self.wire(topic)) for topic in topics]
        configs = admin.describe_configs(resources, config_filter="all")["topic"]
        for topic in topics:
            largest = int(configs[self.wire(topic)]["max.message.bytes"]["value"])
            if largest < self.limit_of(topic):
                raise DeploymentError(self.limit_advice(topic, largest))
