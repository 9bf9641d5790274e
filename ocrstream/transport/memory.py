"""Topics inside one process: partitioned logs with offsets, consumer groups, redelivery and backpressure.

This is the embedded mode's transport, not a test double: messages go by reference and are never encoded.
"""

from __future__ import annotations

import threading
import zlib
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ocrstream.errors import TransportClosedError, TransportError
from ocrstream.messages import (
    FRAMES,
    TOPICS,
    Frame,
    Message,
    PictureRef,
    RawRecord,
    key_of,
)
from ocrstream.metrics import Metrics
from ocrstream.transport import Delivery, Position


class MemoryTransport:
    """Topics in this process's memory.

    A record is kept until every group that ever joined its topic has committed it; while a partition holds
    ``capacity`` such records, publishing to it blocks. Two exceptions:

    - a frame of a live source does not wait: the oldest live frame of its partition that nobody has been given yet
      makes room for it, counted as ``transport.dropped``. It waits only where there is none, because the partition is
      full of frames of files or of frames being worked on;
    - a topic that no group has joined keeps its newest ``capacity`` records and never blocks. So consumers have to join
      before producers start.

    Args:
        partitions: partitions of every topic; so many members of a group can share the work.
        capacity: records a partition holds before publishing waits.
        metrics: where dropped frames are counted.
    """

    def __init__(self, partitions: int = 4, capacity: int = 64, metrics: Metrics | None = None) -> None:
        if partitions < 1 or capacity < 1:
            raise ValueError(f"partitions and capacity should be at least 1, got {partitions} and {capacity}")
        self._capacity = capacity
        self._metrics = metrics if metrics is not None else Metrics()
        # One condition for everything: publishers, consumers and `wait_handled` wait for some change of the logs, and
        # with a handful of threads and records in the hundreds a second, finer locks would buy nothing.
        self._changed = threading.Condition()
        self._logs = {(topic, number): _Log() for topic in TOPICS for number in range(partitions)}
        self._partitions = partitions
        self._members: list[MemoryConsumer] = []
        self._progress: dict[str, str] = {}
        self._closed = False

    def publish(self, topic: str, message: Message | RawRecord) -> None:
        """Append a message; see the class for when this waits.

        Raises:
            TransportClosedError: the transport was closed, before or while this waited.
        """
        position = topic, zlib.crc32(_key_of(message).encode()) % self._partitions
        log = self._log(position)
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._has_room(position, message))
            self._check_open()
            log.append(message)
            self._changed.notify_all()

    def flush(self, timeout_s: float = 30.0) -> None:
        """Nothing to wait for: what was published is there."""

    def consumer(self, topics: Sequence[str], group: str) -> MemoryConsumer:
        """Join a consumer group; a new group starts with the oldest record kept."""
        with self._changed:
            self._check_open()
            for topic in topics:
                for number in range(self._partitions):
                    self._log((topic, number)).join(group)
            member = MemoryConsumer(self, tuple(topics), group)
            self._members.append(member)
            self._rebalance(group)
            return member

    def read(self, topic: str, since_ns: int | None, until_ns: int | None) -> Iterator[Delivery]:
        """The records of a time that are kept now, by capture time; see `ocrstream.transport.Transport.read`."""
        for delivery in self.recent(topic, 0):
            at_ns = delivery.captured_at_ns()
            if (since_ns is None or at_ns >= since_ns) and (until_ns is None or at_ns < until_ns):
                yield delivery

    def recent(self, topic: str, since_ns: int) -> Iterator[Delivery]:
        """The records that are kept now, whenever they were sent; see `ocrstream.transport.Transport.recent`."""
        del since_ns
        with self._changed:
            kept = [
                Delivery(topic, number, offset, content)
                for number in range(self._partitions)
                for offset, content in self._log((topic, number)).records.items()
            ]
        yield from kept

    def fetch(self, ref: PictureRef) -> Delivery | None:
        """One record by its place, or None when it is no longer kept."""
        with self._changed:
            log = self._logs.get((ref.topic, ref.partition))
            content = log.records.get(ref.offset) if log is not None else None
        return None if content is None else Delivery(ref.topic, ref.partition, ref.offset, content)

    def progress(self, source_key: str) -> str | None:
        """What `save_progress` kept last for this source, in this process."""
        with self._changed:
            return self._progress.get(source_key)

    def save_progress(self, source_key: str, text: str) -> None:
        """Keep how far a source was read."""
        with self._changed:
            self._progress[source_key] = text

    def wait_handled(self, topic: str, timeout_s: float | None = None) -> bool:
        """Wait until every group that takes a topic has committed every record of it.

        Returns:
            Whether all is done; False when the time-out came first.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._is_handled(topic), timeout_s)
            return self._closed or self._is_handled(topic)

    def check(self) -> None:
        """Nothing to create: the topics are always there."""

    def close(self) -> None:
        """Let everything go; whoever waits in `publish` or a consumer's ``poll`` gets a `TransportClosedError`."""
        with self._changed:
            self._closed = True
            self._members.clear()
            self._changed.notify_all()

    def _log(self, position: Position) -> _Log:
        try:
            return self._logs[position]
        except KeyError:
            raise ValueError(f"there is no topic {position[0]!r}; known: {', '.join(TOPICS)}") from None

    def _check_open(self) -> None:
        if self._closed:
            raise TransportClosedError("the in-process transport was closed")

    def _has_room(self, position: Position, message: Message | RawRecord) -> bool:
        """Whether a record can be appended now, having made room where that is allowed."""
        log = self._logs[position]
        if len(log.records) < self._capacity:
            return True
        if not log.groups:
            log.records.popitem(last=False)
            return True
        if position[0] != FRAMES or not _is_live_frame(message):
            return False
        dropped = log.drop_oldest_waiting_live_frame()
        if dropped is None:
            return False
        self._metrics.add("transport.dropped", source_id=dropped.info.source_id)
        return True

    def _rebalance(self, group: str) -> None:
        """Deal the partitions of each topic out to the group's members in the order they joined."""
        members = [member for member in self._members if member.group == group]
        before = {position: member for member in members for position in member.positions}
        for member in members:
            member.positions = []
        for position, log in self._logs.items():
            takers = [member for member in members if position[0] in member.topics]
            if not takers:
                continue
            owner = takers[position[1] % len(takers)]
            owner.positions.append(position)
            if before.get(position) is not owner:
                # What the previous owner was given and did not commit is delivered again.
                log.groups[group].rewind()
        self._changed.notify_all()

    def _is_handled(self, topic: str) -> bool:
        return not any(log.groups and log.records for position, log in self._logs.items() if position[0] == topic)


class MemoryConsumer:
    """One member of a consumer group; made by `MemoryTransport.consumer`.

    Attributes:
        topics: what it consumes.
        group: the group it is a member of.
        positions: the partitions it owns; written by the transport, under its lock.
    """

    def __init__(self, transport: MemoryTransport, topics: tuple[str, ...], group: str) -> None:
        self.topics = topics
        self.group = group
        self.positions: list[Position] = []
        self._transport = transport
        self._changed = transport._changed
        self._turn = 0

    def poll(self, timeout_s: float, max_records: int) -> list[Delivery]:
        """The next records, one of each partition in turn; empty after the time-out.

        Raises:
            TransportError: this consumer or the transport was closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: not self._is_member() or self._has_next(), timeout_s)
            self._check_member()
            return self._take(max_records)

    def commit(self, next_offsets: Mapping[Position, int]) -> None:
        """Store the offset to read next, per partition owned; others are left out.

        Raises:
            TransportError: this consumer or the transport was closed.
        """
        with self._changed:
            self._check_member()
            for position in self._owned_of(next_offsets):
                self._transport._logs[position].commit(self.group, next_offsets[position])
            self._changed.notify_all()

    def seek(self, offsets: Mapping[Position, int]) -> None:
        """Deliver again from these offsets, of partitions owned."""
        with self._changed:
            for position in self._owned_of(offsets):
                self._cursor(position).position = offsets[position]
            self._changed.notify_all()

    def keep_alive(self) -> None:
        """Nothing to do: in process a member is a member until it closes."""

    def owned(self) -> set[Position]:
        """The partitions this member owns now."""
        with self._changed:
            return set(self.positions) if self._is_member() else set()

    def lag(self) -> dict[Position, int]:
        """How many records this member has not been given yet, for each partition it owns."""
        with self._changed:
            if not self._is_member():
                return {}
            return {
                position: sum(offset >= self._cursor(position).position for offset in self._records(position))
                for position in self.positions
            }

    def close(self) -> None:
        """Leave the group; what was not committed goes to the other members, or to the next one that joins."""
        with self._changed:
            if not self._is_member():
                return
            self._transport._members.remove(self)
            for position in self.positions:
                self._cursor(position).rewind()
            self.positions = []
            self._transport._rebalance(self.group)

    def _is_member(self) -> bool:
        return self in self._transport._members

    def _check_member(self) -> None:
        self._transport._check_open()
        if not self._is_member():
            raise TransportError(f"this consumer of group {self.group} was closed")

    def _owned_of(self, offsets: Mapping[Position, int]) -> list[Position]:
        return [position for position in offsets if position in self.positions]

    def _cursor(self, position: Position) -> _Cursor:
        return self._transport._logs[position].groups[self.group]

    def _records(self, position: Position) -> Mapping[int, Message | RawRecord]:
        return self._transport._logs[position].records

    def _has_next(self) -> bool:
        return any(self._transport._logs[position].waiting(self.group) for position in self.positions)

    def _take(self, max_records: int) -> list[Delivery]:
        """Up to so many records; the first partition changes from call to call, so that none starves."""
        taken: list[Delivery] = []
        if not self.positions:
            return taken
        self._turn = (self._turn + 1) % len(self.positions)
        ring = deque(self.positions)
        ring.rotate(-self._turn)
        while ring and len(taken) < max_records:
            position = ring.popleft()
            found = self._transport._logs[position].take(self.group)
            if found is not None:
                taken.append(Delivery(*position, *found))
                ring.append(position)
        return taken


@dataclass(slots=True)
class _Cursor:
    """Where one group is in one partition.

    Attributes:
        committed: the offset the group has stored: everything before it is done.
        position: the offset its owner is given next.
    """

    committed: int
    position: int

    def rewind(self) -> None:
        """Back to what was committed."""
        self.position = self.committed


@dataclass(slots=True)
class _Log:
    """One partition: the records kept, by rising offset (with gaps where frames were dropped), and each group's place.

    The transport's lock guards it.
    """

    records: OrderedDict[int, Message | RawRecord] = field(default_factory=OrderedDict)
    groups: dict[str, _Cursor] = field(default_factory=dict)
    end: int = 0

    def append(self, content: Message | RawRecord) -> None:
        """Put a record at the end."""
        self.records[self.end] = content
        self.end += 1

    def join(self, group: str) -> None:
        """Let a group begin with the oldest record kept, if it is not known already."""
        oldest = next(iter(self.records), self.end)
        self.groups.setdefault(group, _Cursor(oldest, oldest))

    def waiting(self, group: str) -> bool:
        """Whether there is a record this group has not been given."""
        last = next(reversed(self.records), -1)
        return last >= self.groups[group].position

    def take(self, group: str) -> tuple[int, Message | RawRecord] | None:
        """The group's next record with its offset, or None at the end."""
        if not self.waiting(group):
            return None
        cursor = self.groups[group]
        offset = max(cursor.position, next(iter(self.records)))
        while offset not in self.records:
            offset += 1
        cursor.position = offset + 1
        return offset, self.records[offset]

    def commit(self, group: str, next_offset: int) -> None:
        """Store a group's offset and let go of what every group is done with."""
        cursor = self.groups[group]
        cursor.committed = min(next_offset, self.end)
        done = min(other.committed for other in self.groups.values())
        while self.records and next(iter(self.records)) < done:
            self.records.popitem(last=False)

    def drop_oldest_waiting_live_frame(self) -> Frame | None:
        """Take the oldest live frame that no group has been given out of the log."""
        given = max(cursor.position for cursor in self.groups.values())
        for offset, content in self.records.items():
            if offset >= given and isinstance(content, Frame) and content.info.live:
                del self.records[offset]
                return content
        return None


def _is_live_frame(message: Message | RawRecord) -> bool:
    return isinstance(message, Frame) and message.info.live


def _key_of(message: Message | RawRecord) -> str:
    return message.key if isinstance(message, RawRecord) else key_of(message)
