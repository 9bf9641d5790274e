"""The loop over a real broker: slow work, rebalances and crashes lose nothing and cost nobody the membership."""

import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import numpy as np
import pytest

from ocrstream.config import KafkaSettings
from ocrstream.messages import (
    CROPS,
    FRAMES,
    Crops,
    EngineInfo,
    Frame,
    FrameInfo,
    Message,
    make_frame_id,
)
from ocrstream.metrics import Metrics
from ocrstream.picture import Picture
from ocrstream.runner import Flow, Runner
from ocrstream.transport.kafka import KafkaTransport

PICTURE = Picture.from_array(np.zeros((4, 6, 3), np.uint8))
MAX_POLL_INTERVAL_S = 3.0


class Passing:
    """A stage that passes frames on, after whatever a test wants to happen first."""

    name = "passing"

    def __init__(self, before: Callable[[Sequence[Frame]], None] = lambda frames: None) -> None:
        self.handled: list[int] = []
        self._before = before

    def handle(self, frames: Sequence[Frame]) -> list[Message]:
        self._before(frames)
        self.handled += [frame.info.captured_at_ns for frame in frames]
        return [Crops(frame.info, EngineInfo("none", "0"), ()) for frame in frames]

    def finish(self) -> list[Message]:
        return []


@pytest.fixture
def settings(kafka_servers: str) -> KafkaSettings:
    """Topics of this test's own, and a consumer that would be evicted after three seconds without a poll."""
    return KafkaSettings(
        servers=kafka_servers,
        topic_prefix=f"runner-{uuid.uuid4().hex[:8]}.",
        partitions=2,
        properties=f"max_poll_interval_ms={MAX_POLL_INTERVAL_S * 1000:.0f},session_timeout_ms=6000",
    )


@contextmanager
def opened(settings: KafkaSettings) -> Iterator[KafkaTransport]:
    with closing(KafkaTransport(settings)) as transport:
        transport.check()
        yield transport


@contextmanager
def running(settings: KafkaSettings, stage: Passing) -> Iterator[threading.Event]:
    """A runner in a thread, stopped at the end; a failure of it fails the test."""
    stop, failures = threading.Event(), []

    def work() -> None:
        try:
            with closing(KafkaTransport(settings)) as transport:
                flow = Flow((FRAMES,), CROPS, "passing", batch=4, deadline_s=0.0, keep_live=1)
                Runner(stage, flow, transport, Metrics()).run(stop)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join(60)
    assert failures == []


def publish(transport: KafkaTransport, numbers: Sequence[int]) -> None:
    for number in numbers:
        source_id = f"source-{number % 7}"
        info = FrameInfo(source_id, make_frame_id(source_id, number), number, width_px=6, height_px=4, live=False)
        transport.publish(FRAMES, Frame(info, PICTURE))
    transport.flush()


def crops(transport: KafkaTransport, count: int) -> list[int]:
    """The numbers of the crops that came out, once so many different ones are there."""
    found: list[int] = []
    with closing(transport.consumer([CROPS], f"reader-{uuid.uuid4().hex[:8]}")) as consumer:
        for _ in range(300):
            for delivery in consumer.poll(0.2, 500):
                message = delivery.open()
                assert isinstance(message, Crops)
                found.append(message.info.captured_at_ns)
            if len(set(found)) >= count:
                return found
    raise AssertionError(f"only {sorted(set(found))} came out")


def test_work_that_takes_longer_than_the_poll_interval_costs_nobody_the_membership(settings: KafkaSettings) -> None:
    never = threading.Event()

    def dawdle(frames: Sequence[Frame]) -> None:
        if not stage.handled:
            # The wait is the point here: the batch takes longer than a consumer may go without polling.
            never.wait(MAX_POLL_INTERVAL_S + 1.5)

    stage = Passing(dawdle)
    with opened(settings) as transport:
        publish(transport, range(6))
        with running(settings, stage):
            assert sorted(crops(transport, 6)) == list(range(6))
    assert sorted(stage.handled) == list(range(6))


def test_members_that_come_and_go_lose_nothing(settings: KafkaSettings) -> None:
    first, second = Passing(), Passing()
    with opened(settings) as transport:
        publish(transport, range(20))
        with running(settings, first):
            crops(transport, 20)
            with running(settings, second):
                publish(transport, range(20, 40))
                crops(transport, 40)
            publish(transport, range(40, 60))
            assert set(crops(transport, 60)) == set(range(60))
    assert set(first.handled) | set(second.handled) == set(range(60))


class CrashError(BaseException):
    """What a test raises between publishing and committing, as a power cut would."""


def test_a_crash_between_publishing_and_committing_repeats_and_loses_nothing(
    settings: KafkaSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage = Passing()
    with opened(settings) as transport:
        publish(transport, range(8))
        with closing(KafkaTransport(settings)) as doomed:
            flow = Flow((FRAMES,), CROPS, "passing", batch=4, deadline_s=0.0, keep_live=1)
            runner = Runner(stage, flow, doomed, Metrics())
            runner.join()
            consumer = runner._consumer
            assert consumer is not None

            def crash(next_offsets: object) -> None:
                raise CrashError

            monkeypatch.setattr(consumer, "commit", crash)
            with pytest.raises(CrashError):
                runner.run(threading.Event())
        lost = set(stage.handled)
        assert 1 <= len(lost) <= 4
        with running(settings, stage):
            found = crops(transport, 8)
    assert set(found) == set(range(8))
    assert all(stage.handled.count(number) == 2 for number in lost)
