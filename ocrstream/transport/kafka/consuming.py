"""Being a member of a consumer group.

Late commits
    A commit that comes after a rebalance has taken the partition away is no error: nothing is stored, and the records
    are delivered again to whoever owns the partition now. It is logged.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from kafka import errors as kafka_errors
from kafka.structs import OffsetAndMetadata

from ocrstream.errors import TransportError
from ocrstream.messages import RawRecord
from ocrstream.transport import Delivery, Position
from ocrstream.transport.kafka.connection import CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S, Cluster
from ocrstream.transport.kafka.internals import rejoin
from ocrstream.transport.kafka.topics import BATCH_BYTES, Topics

log = logging.getLogger(__name__)

MAX_POLL_INTERVAL_S = 900.0
"""So long may a consumer go without `poll` or `keep_alive` before its partitions are given to others."""

SESSION_TIMEOUT_S = 15.0
"""A member that was killed is missed after so long, and its partitions are given to others; until then its cameras are
read by nobody. A thread of its own sends the heartbeats, however long the work takes."""

REBALANCE_TIMEOUT_S = 5.0
"""How long one call may wait for the other members of a group that is being rebalanced."""

LATE_COMMIT = (
    kafka_errors.CommitFailedError,
    kafka_errors.IllegalGenerationError,
    kafka_errors.RebalanceInProgressError,
    kafka_errors.UnknownMemberIdError,
)


class GroupConsumer:
    """One member of a consumer group; made by `KafkaTransport.consumer`, used by one thread."""

    def __init__(self, client: Any, cluster: Cluster, topics: Topics, forget: Callable[[GroupConsumer], None]) -> None:
        self._client = client
        self._cluster = cluster
        self._topics = topics
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
            rejoin(self._client, REBALANCE_TIMEOUT_S)
            found = self._client.poll(timeout_ms=timeout_s * 1000, max_records=max_records)
        return [delivery_of(record, self._topics) for records in found.values() for record in records]

    def commit(self, next_offsets: Mapping[Position, int]) -> None:
        """Store the offset to read next, per partition owned; too late a commit stores nothing and is logged.

        Raises:
            TransportError: the broker is away; commit again.
        """
        self._check_open()
        owned = self._client.assignment()
        offsets = {
            place: OffsetAndMetadata(offset, "", -1)
            for place, offset in ((self._topics.place(*position), offset) for position, offset in next_offsets.items())
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
            place = self._topics.place(*position)
            if place in self._client.assignment():
                self._client.seek(place, offset)

    def keep_alive(self) -> None:
        """Take part in the group without being given records: heartbeats, rebalances.

        Raises:
            TransportError: this consumer was closed, or the broker answers with an error.
        """
        self._check_open()
        with self._cluster.translated("staying in the group"):
            rejoin(self._client, REBALANCE_TIMEOUT_S)
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
        return {(self._topics.topic_of(place.topic), place.partition) for place in self._client.assignment()}

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
            (self._topics.topic_of(place.topic), place.partition): max(ends[place] - (positions[place] or 0), 0)
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

    def _check_open(self) -> None:
        if self._closed:
            raise TransportError("this consumer was closed")


def fetching(topics: Topics) -> dict[str, Any]:
    """How consumers fetch: enough at a time to drain hundreds of frames at once."""
    return {
        "enable_auto_commit": False,
        "auto_offset_reset": "earliest",
        "max_partition_fetch_bytes": max(topics.max_bytes, 8 * BATCH_BYTES),
        "fetch_max_bytes": 64 * BATCH_BYTES,
        # One request at a time is open to a broker: while it waits for news of the idle partitions, a busy one
        # waits with them. So this bounds what an idle camera costs a busy one.
        "fetch_max_wait_ms": 50,
    }


def delivery_of(record: Any, topics: Topics) -> Delivery:
    """A record of kafka-python as the program knows it."""
    raw = RawRecord(
        key=(record.key or b"").decode("utf-8", "replace"),
        value=record.value or b"",
        headers={name: value or b"" for name, value in record.headers},
        timestamp_ms=record.timestamp,
    )
    return Delivery(topics.topic_of(record.topic), record.partition, record.offset, raw)
