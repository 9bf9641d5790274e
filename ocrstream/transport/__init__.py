"""How messages travel: one protocol, two implementations (`memory` and `kafka`).

A stage never knows which one it runs on. Both are partitioned logs with offsets, consumer groups and redelivery of
what was not committed; the same contract tests run on both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from ocrstream.errors import MalformedRecordError
from ocrstream.messages import DeadLetter, Frame, Message, PictureRef, RawRecord
from ocrstream.wire import decode, encode

Position = tuple[str, int]
"""A topic and one of its partitions."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """One record as a consumer gets it.

    Over Kafka ``content`` is the raw record, in process it is the message itself; `open` and `raw` hide which.
    """

    topic: str
    partition: int
    offset: int
    content: Message | RawRecord

    @property
    def position(self) -> Position:
        """Topic and partition."""
        return self.topic, self.partition

    def open(self) -> Message:
        """The message.

        Raises:
            MalformedRecordError: the record is not one of this program, or damaged.
        """
        if not isinstance(self.content, RawRecord):
            return self.content
        message = decode(self.content)
        if isinstance(message, Frame) and message.info.picture is None:
            # A frame that came over Kafka can be fetched from there again: the index holds the reference.
            ref = PictureRef(self.topic, self.partition, self.offset)
            return replace(message, info=replace(message.info, picture=ref))
        return message

    def captured_at_ns(self) -> int:
        """When what it holds was taken, nanoseconds since 1970; a record that cannot be opened has its own time."""
        try:
            message = self.open()
        except MalformedRecordError:
            return self.raw().timestamp_ms * 1_000_000
        if isinstance(message, DeadLetter):
            return message.record.timestamp_ms * 1_000_000
        return message.info.captured_at_ns

    def raw(self) -> RawRecord:
        """The record as the wire has it."""
        return self.content if isinstance(self.content, RawRecord) else encode(self.content)


class Consumer(Protocol):
    """One member of a consumer group; used by one thread."""

    def poll(self, timeout_s: float, max_records: int) -> list[Delivery]:
        """The next records of the partitions this member owns, in order within a partition; empty after the time-out.

        Raises:
            TransportError: the broker is away; polling again continues where it was.
        """

    def commit(self, next_offsets: Mapping[Position, int]) -> None:
        """Store the offset to read next, per partition. Partitions that have moved to another member are left out.

        Raises:
            TransportError: it could not be stored; the records will be delivered again.
        """

    def seek(self, offsets: Mapping[Position, int]) -> None:
        """Deliver again from these offsets; partitions that this member no longer owns are left out."""

    def keep_alive(self) -> None:
        """Stay a member while records are being worked on: no record is delivered, heartbeats go on."""

    def owned(self) -> set[Position]:
        """The partitions this member owns now."""

    def lag(self) -> dict[Position, int]:
        """How many records wait, for each partition this member owns."""

    def close(self) -> None:
        """Leave the group; nothing is committed by that."""


class Transport(Protocol):
    """Topics to publish to and to consume from; safe to share between threads."""

    def publish(self, topic: str, message: Message | RawRecord) -> None:
        """Hand a message over; `flush` tells whether it arrived.

        Blocks while the topic is full (in process only, where frames of live sources make room by dropping the oldest).

        Raises:
            TransportError: nothing was handed over; the same message may be published again.
        """

    def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until everything this thread has published is confirmed.

        Raises:
            TransportError: something is not; those messages must be published again.
        """

    def consumer(self, topics: Sequence[str], group: str) -> Consumer:
        """Join a consumer group; a new group starts with the oldest record kept."""

    def read(self, topic: str, since_ns: int | None, until_ns: int | None) -> Iterator[Delivery]:
        """The records of a time (by capture time, until exclusive), without a group, in order within a partition.

        Ends at the records that were there when it began.

        Raises:
            TransportError: the broker is away.
        """

    def recent(self, topic: str, since_ns: int) -> Iterator[Delivery]:
        """The records that were sent since a time (not: that show it), without a group, in order within a partition.

        Ends at the records that were there when it began. In process all that are kept, which are few.

        Raises:
            TransportError: the broker is away.
        """

    def fetch(self, ref: PictureRef) -> Delivery | None:
        """One record by its place, or None when the topic no longer keeps it.

        Raises:
            TransportError: the broker is away.
        """

    def progress(self, source_key: str) -> str | None:
        """How far a source was read: what `save_progress` kept last for it, or None.

        Raises:
            TransportError: the broker is away.
        """

    def save_progress(self, source_key: str, text: str) -> None:
        """Keep how far a source was read, so that its producer resumes there; over Kafka a new process finds it too.

        Args:
            source_key: the source's record key (`ocrstream.messages.FrameInfo.key`).
            text: whatever the producer needs, a few hundred characters at most.

        Raises:
            TransportError: it could not be stored.
        """

    def check(self) -> None:
        """See that the topics are there and usable, creating those that are missing.

        Raises:
            DeploymentError: a topic is there but cannot be used; the message says what to change.
            TransportError: the broker is away.
        """

    def close(self) -> None:
        """Flush and let go; consumers still open are closed."""
