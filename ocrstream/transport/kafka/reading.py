"""Reading outside of groups: the records of a capture time, and one record by its place.

No record's own time is older than what it shows (see `producing`), so `LogReader.read` begins where Kafka finds the
window's beginning by record time, and filters by capture time from there on.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

from kafka import KafkaConsumer

from ocrstream.errors import TransportError
from ocrstream.messages import PictureRef
from ocrstream.transport import Delivery
from ocrstream.transport.kafka.connection import CONNECT_TIMEOUT_S, REQUEST_TIMEOUT_S, Cluster
from ocrstream.transport.kafka.consuming import delivery_of, fetching
from ocrstream.transport.kafka.topics import Topics


class LogReader:
    """Reads what is kept; safe to share between threads."""

    def __init__(self, cluster: Cluster, topics: Topics) -> None:
        self._cluster = cluster
        self._topics = topics
        self._lock = threading.Lock()
        self._fetcher: Any = None
        self._fetch_lock = threading.Lock()

    def read(self, topic: str, since_ns: int | None, until_ns: int | None) -> Iterator[Delivery]:
        """The records of a capture time; see `ocrstream.transport.Transport.read`.

        Everything from the window's beginning to the topic's end is looked at, since frames of files are sent long
        after their capture time.
        """
        for delivery in self.recent(topic, since_ns):
            at_ns = delivery.captured_at_ns()
            if (since_ns is None or at_ns >= since_ns) and (until_ns is None or at_ns < until_ns):
                yield delivery

    def recent(self, topic: str, since_ns: int | None) -> Iterator[Delivery]:
        """The records from a record time on; see `ocrstream.transport.Transport.recent`."""
        client = self._cluster.open(KafkaConsumer, group_id=None, **fetching(self._topics))
        try:
            with self._cluster.translated(f"reading {topic}"):
                yield from self._records_since(client, topic, since_ns)
        finally:
            client.close(timeout_ms=1000)

    def fetch(self, ref: PictureRef) -> Delivery | None:
        """One record by its place, or None when the topic no longer keeps it.

        Raises:
            TransportError: the broker is away.
        """
        place = self._topics.place(ref.topic, ref.partition)
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
        delivery = delivery_of(records[0], self._topics)
        return delivery if delivery.offset == ref.offset else None

    def close(self) -> None:
        """Let go; `Cluster.closed` is set before, so that nothing is opened again."""
        with self._lock:
            fetcher, self._fetcher = self._fetcher, None
        if fetcher is not None:
            fetcher.close()

    def _fetcher_now(self) -> Any:
        with self._lock:
            self._cluster.check_open()
            if self._fetcher is None:
                # The smallest answer holds one whole batch, and more than the one record is not wanted.
                few = {**fetching(self._topics), "max_partition_fetch_bytes": 1, "fetch_max_bytes": 1}
                self._fetcher = self._cluster.open(KafkaConsumer, group_id=None, **few)
            return self._fetcher

    def _records_since(self, client: Any, topic: str, since_ns: int | None) -> Iterator[Delivery]:
        """The records from a record time on, up to those that are there now."""
        wire = self._topics.wire(topic)
        partitions = [self._topics.place(topic, number) for number in client.partitions_for_topic(wire)]
        if not partitions:
            raise TransportError(f"there is no topic {wire}; `ocrstream doctor` tells what is missing")
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
                raise TransportError(f"Kafka at {self._cluster.servers} stopped answering while {topic} was read")
            for place, batch in records.items():
                yield from (delivery_of(r, self._topics) for r in batch if r.offset < ends[place])
                if client.position(place) >= ends[place]:
                    remaining.discard(place)
                    client.pause(place)
