"""What only the in-process transport does: backpressure, dropping of live frames, letting go of what is done."""

import threading
from collections.abc import Callable

import numpy as np
import pytest

from ocrstream.errors import TransportError
from ocrstream.messages import DEAD_LETTERS, FRAMES, REPLAY, Frame, FrameInfo, Message, RawRecord
from ocrstream.metrics import Metrics
from ocrstream.picture import Picture
from ocrstream.transport import Position
from ocrstream.transport.memory import MemoryConsumer, MemoryTransport

PICTURE = Picture.from_array(np.zeros((2, 3, 3), dtype=np.uint8))


def frame(number: int, *, live: bool = False, source: str = "cam") -> Frame:
    return Frame(FrameInfo(source, f"{source}-{number}", number * 1_000_000, 3, 2, live=live), PICTURE)


def numbers(consumer: MemoryConsumer, most: int = 100) -> list[int]:
    messages = [delivery.content for delivery in consumer.poll(0, most)]
    return [m.info.captured_at_ns // 1_000_000 for m in messages if isinstance(m, Frame)]


class Started:
    """A call in a thread of its own, and how it ended."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.error: Exception | None = None
        self.done = threading.Event()
        self._call = call
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        try:
            self._call()
        except TransportError as error:
            self.error = error
        self.done.set()


class Watched(MemoryTransport):
    """Tells when a publisher has found no room."""

    def __init__(self, capacity: int, metrics: Metrics | None = None) -> None:
        super().__init__(partitions=1, capacity=capacity, metrics=metrics)
        self.full = threading.Event()

    def _has_room(self, position: Position, message: Message | RawRecord) -> bool:
        room = super()._has_room(position, message)
        if not room:
            self.full.set()
        return room


def test_messages_travel_by_reference() -> None:
    transport = MemoryTransport(partitions=1)
    consumer = transport.consumer([FRAMES], "g")
    sent = frame(1)
    transport.publish(FRAMES, sent)
    (delivery,) = consumer.poll(0, 10)
    assert delivery.content is sent
    assert delivery.open() is sent


def test_publish_waits_while_the_partition_is_full_and_goes_on_after_a_commit() -> None:
    transport = Watched(capacity=2)
    consumer = transport.consumer([FRAMES], "g")
    transport.publish(FRAMES, frame(0))
    transport.publish(FRAMES, frame(1))
    third = Started(lambda: transport.publish(FRAMES, frame(2)))
    assert transport.full.wait(5)
    assert numbers(consumer) == [0, 1]
    assert not third.done.is_set()
    consumer.commit({(FRAMES, 0): 1})
    assert third.done.wait(5)
    assert third.error is None
    assert numbers(consumer) == [2]


def test_a_waiting_publish_and_poll_are_interrupted_by_close() -> None:
    transport = Watched(capacity=1)
    consumer = transport.consumer([FRAMES, REPLAY], "g")
    transport.publish(FRAMES, frame(0))
    consumer.poll(0, 10)
    publishing = Started(lambda: transport.publish(FRAMES, frame(1)))
    polling = Started(lambda: consumer.poll(60, 10))
    assert transport.full.wait(5)
    transport.close()
    assert publishing.done.wait(5)
    assert polling.done.wait(5)
    assert "closed" in str(publishing.error)
    assert "closed" in str(polling.error)
    with pytest.raises(TransportError, match="closed"):
        transport.publish(FRAMES, frame(2))


def test_a_live_frame_takes_the_place_of_the_oldest_live_frame_nobody_was_given() -> None:
    metrics = Metrics()
    transport = MemoryTransport(partitions=1, capacity=4, metrics=metrics)
    consumer = transport.consumer([FRAMES], "g")
    transport.publish(FRAMES, frame(0, live=True))
    assert numbers(consumer, 1) == [0]
    transport.publish(FRAMES, frame(1, source="file"))
    for number in (2, 3, 4, 5):
        transport.publish(FRAMES, frame(number, live=True))
    # 0 is being worked on and 1 is a file's, so 2 and 3 had to go.
    assert numbers(consumer) == [1, 4, 5]
    assert metrics.count("transport.dropped", source_id="cam") == 2
    assert metrics.count("transport.dropped") == 2


def test_a_live_frame_waits_where_nothing_may_be_dropped() -> None:
    metrics = Metrics()
    transport = Watched(capacity=1, metrics=metrics)
    consumer = transport.consumer([FRAMES], "g")
    transport.publish(FRAMES, frame(0, source="file"))
    waiting = Started(lambda: transport.publish(FRAMES, frame(1, live=True)))
    assert transport.full.wait(5)
    assert numbers(consumer) == [0]
    consumer.commit({(FRAMES, 0): 1})
    assert waiting.done.wait(5)
    assert numbers(consumer) == [1]
    assert metrics.count("transport.dropped") == 0


def test_frames_to_be_read_again_are_never_dropped() -> None:
    transport = Watched(capacity=1)
    transport.consumer([REPLAY], "g")
    transport.publish(REPLAY, frame(0, live=True))
    waiting = Started(lambda: transport.publish(REPLAY, frame(1, live=True)))
    assert transport.full.wait(5)
    assert not waiting.done.is_set()
    transport.close()
    assert waiting.done.wait(5)


def test_a_topic_nobody_consumes_keeps_the_newest() -> None:
    transport = MemoryTransport(partitions=1, capacity=3)
    for number in range(5):
        transport.publish(DEAD_LETTERS, RawRecord(f"k{number}", b"", {}, number))
    assert [delivery.offset for delivery in transport.read(DEAD_LETTERS, None, None)] == [2, 3, 4]
    late = transport.consumer([DEAD_LETTERS], "g")
    assert [delivery.offset for delivery in late.poll(0, 10)] == [2, 3, 4]


def test_records_are_let_go_when_the_last_group_commits() -> None:
    transport = MemoryTransport(partitions=1)
    first, second = transport.consumer([FRAMES], "first"), transport.consumer([FRAMES], "second")
    for number in range(3):
        transport.publish(FRAMES, frame(number))
    first.commit({(FRAMES, 0): 3})
    assert len(list(transport.read(FRAMES, None, None))) == 3
    second.commit({(FRAMES, 0): 2})
    assert [delivery.offset for delivery in transport.read(FRAMES, None, None)] == [2]
    assert numbers(second) == [2]


def test_offsets_go_on_over_dropped_frames() -> None:
    transport = MemoryTransport(partitions=1, capacity=2)
    consumer = transport.consumer([FRAMES], "g")
    for number in range(5):
        transport.publish(FRAMES, frame(number, live=True))
    assert consumer.lag() == {(FRAMES, 0): 2}
    deliveries = consumer.poll(0, 10)
    assert [delivery.offset for delivery in deliveries] == [3, 4]
    assert consumer.lag() == {(FRAMES, 0): 0}
    consumer.commit({(FRAMES, 0): 5})
    assert transport.wait_handled(FRAMES, 0)


def test_partitions_take_turns_in_a_batch() -> None:
    transport = MemoryTransport(partitions=2)
    consumer = transport.consumer([FRAMES], "g")
    for number in range(3):
        for source in ("a", "b", "c", "d"):
            transport.publish(FRAMES, frame(number, source=source))
    partitions = [delivery.partition for delivery in consumer.poll(0, 4)]
    assert sorted(partitions) == [0, 0, 1, 1]


def test_wait_handled_ends_with_the_last_commit() -> None:
    transport = MemoryTransport(partitions=1)
    consumer = transport.consumer([FRAMES], "g")
    transport.publish(FRAMES, frame(0))
    consumer.poll(0, 10)
    assert not transport.wait_handled(FRAMES, 0)
    drained = Started(lambda: transport.wait_handled(FRAMES, 5))
    consumer.commit({(FRAMES, 0): 1})
    assert drained.done.wait(5)
    assert transport.wait_handled(FRAMES, 0)


def test_a_closed_consumer_says_so() -> None:
    transport = MemoryTransport()
    consumer = transport.consumer([FRAMES], "g")
    consumer.close()
    consumer.close()
    with pytest.raises(TransportError, match="consumer of group g was closed"):
        consumer.poll(0, 1)


def test_wrong_use_is_told() -> None:
    with pytest.raises(ValueError, match="at least 1, got 0 and 64"):
        MemoryTransport(partitions=0)
    with pytest.raises(ValueError, match=r"no topic 'ocr\.frame'"):
        MemoryTransport().publish("ocr.frame", frame(0))
