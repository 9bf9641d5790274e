"""One suite for every transport: what a stage may rely on, wherever it runs."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator

import cv2
import numpy as np
import pytest

from ocrstream.config import KafkaSettings
from ocrstream.errors import MalformedRecordError
from ocrstream.messages import DEAD_LETTERS, FRAMES, REPLAY, Frame, FrameInfo, PictureRef, RawRecord
from ocrstream.picture import Picture
from ocrstream.transport import Consumer, Delivery, Transport
from ocrstream.transport.kafka import KafkaTransport
from ocrstream.transport.memory import MemoryTransport
from ocrstream.wire import SCHEMA_HEADER

PARTITIONS = 4
ALL_PARTITIONS = {(FRAMES, number) for number in range(PARTITIONS)}
NOW_NS = time.time_ns() // 1_000_000 * 1_000_000
PATIENCE_S = 30.0

Open = Callable[[], Transport]


@pytest.fixture(params=["memory", "kafka"])
def transport(request: pytest.FixtureRequest) -> Iterator[Transport]:
    made: Transport
    if request.param == "memory":
        made = MemoryTransport(partitions=PARTITIONS, capacity=1000)
    else:
        servers = request.getfixturevalue("kafka_servers")
        prefix = request.getfixturevalue("topic_prefix")
        made = KafkaTransport(KafkaSettings(servers=servers, topic_prefix=prefix, partitions=PARTITIONS))
    made.check()
    yield made
    made.close()


@pytest.fixture
def group() -> str:
    return f"group-{uuid.uuid4().hex[:8]}"


def frame(source: str, number: int, captured_at_ns: int = NOW_NS) -> Frame:
    shade = np.full((2, 3, 3), number % 256, dtype=np.uint8)
    ok, png = cv2.imencode(".png", shade)
    assert ok
    info = FrameInfo(source, f"{source}-{number}", captured_at_ns, 3, 2, live=False)
    return Frame(info, Picture.from_encoded(png.tobytes()))


def send(transport: Transport, source: str, numbers: range) -> None:
    for number in numbers:
        transport.publish(FRAMES, frame(source, number))
    transport.flush()


def frame_id(delivery: Delivery) -> str:
    message = delivery.open()
    assert isinstance(message, Frame)
    return message.info.frame_id


def take(consumer: Consumer, count: int) -> list[Delivery]:
    """So many records, however many polls they take."""
    taken: list[Delivery] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(taken) < count and time.monotonic() < deadline:
        taken += consumer.poll(0.5, count - len(taken))
    assert len(taken) == count
    return taken


def nothing_follows(consumer: Consumer) -> bool:
    return consumer.poll(0.3, 10) == []


def commit(consumer: Consumer, deliveries: list[Delivery]) -> None:
    consumer.commit({delivery.position: delivery.offset + 1 for delivery in deliveries})


def test_a_frame_arrives_as_it_was_sent(transport: Transport, group: str) -> None:
    sent = frame("camera-é", 7)
    consumer = transport.consumer([FRAMES], group)
    transport.publish(FRAMES, sent)
    transport.flush()
    (delivery,) = take(consumer, 1)
    got = delivery.open()
    assert isinstance(got, Frame)
    assert (got.info.source_id, got.info.captured_at_ns) == ("camera-é", NOW_NS)
    assert got.picture.array().tolist() == sent.picture.array().tolist()
    assert delivery.topic == FRAMES
    assert delivery.raw().key == "camera-é"
    assert delivery.captured_at_ns() == NOW_NS


def test_one_key_stays_in_order_on_one_partition(transport: Transport, group: str) -> None:
    consumer = transport.consumer([FRAMES], group)
    for number in range(20):
        for source in ("a", "b", "c"):
            transport.publish(FRAMES, frame(source, number))
    transport.flush()
    deliveries = take(consumer, 60)
    for source in ("a", "b", "c"):
        mine = [delivery for delivery in deliveries if frame_id(delivery).startswith(f"{source}-")]
        assert [frame_id(delivery) for delivery in mine] == [f"{source}-{number}" for number in range(20)]
        assert len({delivery.partition for delivery in mine}) == 1
        assert [delivery.offset for delivery in mine] == sorted(delivery.offset for delivery in mine)


def test_what_was_not_committed_is_delivered_again(transport: Transport, group: str) -> None:
    first = transport.consumer([FRAMES], group)
    send(transport, "cam", range(3))
    assert [frame_id(delivery) for delivery in take(first, 3)] == ["cam-0", "cam-1", "cam-2"]
    first.close()
    second = transport.consumer([FRAMES], group)
    assert [frame_id(delivery) for delivery in take(second, 3)] == ["cam-0", "cam-1", "cam-2"]


def test_a_new_member_goes_on_after_the_commit(transport: Transport, group: str) -> None:
    first = transport.consumer([FRAMES], group)
    send(transport, "cam", range(5))
    commit(first, take(first, 5)[:2])
    first.close()
    second = transport.consumer([FRAMES], group)
    again = take(second, 3)
    assert [frame_id(delivery) for delivery in again] == ["cam-2", "cam-3", "cam-4"]
    commit(second, again)
    second.close()
    assert nothing_follows(transport.consumer([FRAMES], group))


def test_groups_do_not_disturb_each_other(transport: Transport, group: str) -> None:
    one, other = transport.consumer([FRAMES], group), transport.consumer([FRAMES], f"{group}-2")
    send(transport, "cam", range(2))
    commit(one, take(one, 2))
    assert [frame_id(delivery) for delivery in take(other, 2)] == ["cam-0", "cam-1"]


def test_seek_delivers_again(transport: Transport, group: str) -> None:
    consumer = transport.consumer([FRAMES], group)
    send(transport, "cam", range(4))
    deliveries = take(consumer, 4)
    consumer.seek({deliveries[1].position: deliveries[1].offset, (FRAMES, 999): 0})
    assert [frame_id(delivery) for delivery in take(consumer, 3)] == ["cam-1", "cam-2", "cam-3"]


def test_keep_alive_delivers_nothing_and_loses_nothing(transport: Transport, group: str) -> None:
    consumer = transport.consumer([FRAMES], group)
    send(transport, "cam", range(3))
    assert frame_id(take(consumer, 1)[0]) == "cam-0"
    for _ in range(5):
        consumer.keep_alive()
    assert [frame_id(delivery) for delivery in take(consumer, 2)] == ["cam-1", "cam-2"]


def test_two_members_share_the_partitions_and_one_takes_over_what_the_other_left(
    transport: Transport, group: str
) -> None:
    sources = [f"cam{number}" for number in range(12)]
    first = transport.consumer([FRAMES], group)
    for source in sources:
        transport.publish(FRAMES, frame(source, 0))
    transport.flush()
    before = take(first, 12)
    second = transport.consumer([FRAMES], group)
    share_evenly(first, second)
    assert first.owned() | second.owned() == ALL_PARTITIONS

    commit(first, before)
    for source in sources:
        transport.publish(FRAMES, frame(source, 1))
    transport.flush()
    seen: set[str] = set()
    given: list[Delivery] = []
    deadline = time.monotonic() + PATIENCE_S
    while not {f"{source}-1" for source in sources} <= seen and time.monotonic() < deadline:
        for member in (first, second):
            deliveries = member.poll(0.1, 100)
            assert {delivery.position for delivery in deliveries} <= member.owned()
            seen |= {frame_id(delivery) for delivery in deliveries}
            given += deliveries if member is second else []
    assert {f"{source}-1" for source in sources} <= seen

    # The second leaves without a commit: the first gets its partitions, and its records again.
    second.close()
    wanted, again = {frame_id(delivery) for delivery in given}, set[str]()
    assert wanted
    while not wanted <= again and time.monotonic() < deadline:
        again |= {frame_id(delivery) for delivery in first.poll(0.2, 100)}
    assert wanted <= again
    assert first.owned() == ALL_PARTITIONS


def share_evenly(first: Consumer, second: Consumer) -> None:
    """Let both take part in the group until each has half: one as if it worked, the other as if it waited."""
    shared = threading.Event()

    def work() -> None:
        while not shared.wait(0.05):
            first.keep_alive()

    worker = threading.Thread(target=work)
    worker.start()
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline and not len(first.owned()) == len(second.owned()) == PARTITIONS // 2:
        for delivery in second.poll(0.1, 1):
            second.seek({delivery.position: delivery.offset})
    shared.set()
    worker.join()
    assert (len(first.owned()), len(second.owned())) == (PARTITIONS // 2, PARTITIONS // 2)


def test_a_commit_for_partitions_that_moved_is_left_out(transport: Transport, group: str) -> None:
    first = transport.consumer([FRAMES], group)
    for number in range(12):
        send(transport, f"cam{number}", range(1))
    deliveries = take(first, 12)
    second = transport.consumer([FRAMES], group)
    share_evenly(first, second)
    theirs = [delivery for delivery in deliveries if delivery.position in second.owned()]
    assert theirs
    commit(first, deliveries)
    assert {frame_id(delivery) for delivery in take(second, len(theirs))} == {frame_id(d) for d in theirs}


def test_lag_counts_what_waits(transport: Transport, group: str) -> None:
    consumer = transport.consumer([FRAMES], group)
    send(transport, "cam", range(5))
    (delivery,) = take(consumer, 1)
    assert consumer.lag()[delivery.position] == 4
    assert sum(consumer.lag().values()) == 4
    take(consumer, 4)
    assert consumer.lag()[delivery.position] == 0
    assert set(consumer.lag()) == consumer.owned()


def test_one_consumer_takes_several_topics(transport: Transport, group: str) -> None:
    consumer = transport.consumer([FRAMES, REPLAY], group)
    transport.publish(FRAMES, frame("a", 1))
    transport.publish(REPLAY, frame("a", 2))
    transport.flush()
    got = {(delivery.topic, frame_id(delivery)) for delivery in take(consumer, 2)}
    assert got == {(FRAMES, "a-1"), (REPLAY, "a-2")}


@pytest.mark.parametrize("age_s", [0, 3 * 365 * 86_400], ids=["live", "filmed three years ago"])
def test_read_gives_the_records_of_a_time(transport: Transport, age_s: int) -> None:
    start_ns = NOW_NS - age_s * 10**9 - 60 * 10**9
    for number in range(6):
        for source in ("a", "b"):
            transport.publish(FRAMES, frame(source, number, start_ns + number * 10**9))
    transport.flush()
    window = transport.read(FRAMES, start_ns + 2 * 10**9, start_ns + 4 * 10**9)
    got = [frame_id(delivery) for delivery in window]
    assert sorted(got) == ["a-2", "a-3", "b-2", "b-3"]
    assert [name for name in got if name.startswith("a")] == ["a-2", "a-3"]
    assert len(list(transport.read(FRAMES, None, None))) == 12
    assert len(list(transport.read(FRAMES, start_ns + 4 * 10**9, None))) == 4
    assert len(list(transport.read(FRAMES, None, start_ns + 10**9))) == 2
    assert list(transport.read(FRAMES, NOW_NS + 3600 * 10**9, None)) == []
    assert list(transport.read(REPLAY, None, None)) == []


def test_what_was_sent_lately_is_read_whatever_it_shows(transport: Transport) -> None:
    now_ns = time.time_ns()
    transport.publish(FRAMES, frame("file", 1, now_ns - 400 * 86_400 * 10**9))
    transport.publish(FRAMES, frame("cam", 2, now_ns))
    transport.flush()
    assert sorted(frame_id(each) for each in transport.recent(FRAMES, now_ns - 10**9)) == ["cam-2", "file-1"]
    assert list(transport.recent(REPLAY, now_ns)) == []


def test_fetch_gives_one_record_by_its_place(transport: Transport, group: str) -> None:
    consumer = transport.consumer([FRAMES], group)
    send(transport, "cam", range(3))
    for delivery in reversed(take(consumer, 3)):
        found = transport.fetch(PictureRef(FRAMES, delivery.partition, delivery.offset))
        assert found is not None
        assert (found.topic, found.position, found.offset) == (FRAMES, delivery.position, delivery.offset)
        assert frame_id(found) == frame_id(delivery)
    assert transport.fetch(PictureRef(FRAMES, delivery.partition, 999)) is None
    assert transport.fetch(PictureRef(FRAMES, 999, 0)) is None
    assert transport.fetch(PictureRef("ocr.nowhere", 0, 0)) is None


def test_a_malformed_record_is_delivered_and_says_what_is_wrong(transport: Transport, group: str) -> None:
    consumer = transport.consumer([FRAMES], group)
    record = RawRecord("cam", b"not an image", {SCHEMA_HEADER: b"frame/1"}, NOW_NS // 1_000_000)
    transport.publish(FRAMES, record)
    transport.publish(FRAMES, frame("cam", 1))
    transport.flush()
    broken, sound = take(consumer, 2)
    with pytest.raises(MalformedRecordError, match="no ocr-meta header"):
        broken.open()
    assert broken.raw() == record
    assert broken.captured_at_ns() == NOW_NS
    assert frame_id(sound) == "cam-1"


def test_flush_without_anything_published(transport: Transport) -> None:
    transport.flush(timeout_s=0.1)


def test_a_topic_nobody_consumes_can_be_read(transport: Transport) -> None:
    transport.publish(DEAD_LETTERS, RawRecord("k", b"v", {"h": b"1"}, NOW_NS // 1_000_000))
    transport.flush()
    (delivery,) = transport.read(DEAD_LETTERS, None, None)
    assert (delivery.raw().key, delivery.raw().value, dict(delivery.raw().headers)) == ("k", b"v", {"h": b"1"})


def test_progress_is_kept_per_source(transport: Transport) -> None:
    assert transport.progress("film #1") is None
    transport.save_progress("film #1", "12.5 s")
    transport.save_progress("film #2", "é")
    transport.save_progress("film #1", "13.0 s")
    assert transport.progress("film #1") == "13.0 s"
    assert transport.progress("film #2") == "é"


def test_check_twice_is_fine(transport: Transport) -> None:
    transport.check()
