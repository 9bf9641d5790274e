"""The loop: what is published, committed, dropped, retried and set aside, over the in-process transport."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ocrstream import runner as runner_module
from ocrstream.errors import (
    BackpressureError,
    DeploymentError,
    PoisonError,
    StoreError,
    TransportClosedError,
    TransportError,
)
from ocrstream.messages import (
    CROPS,
    DEAD_LETTERS,
    FRAMES,
    REPLAY,
    TEXTS,
    Crops,
    DeadLetter,
    EngineInfo,
    Frame,
    FrameInfo,
    Message,
    RawRecord,
    make_frame_id,
)
from ocrstream.metrics import Metrics
from ocrstream.picture import Picture
from ocrstream.runner import FAILURES_IN_A_ROW, LONGEST_REASON, Flow, Runner, StageFailedError
from ocrstream.transport.memory import MemoryTransport
from ocrstream.wire import encode

PICTURE = Picture.from_array(np.zeros((4, 6, 3), np.uint8))
FLOW = Flow((FRAMES, REPLAY), CROPS, "group", batch=4, deadline_s=0.0, keep_live=1)


def frame(number: int, source_id: str = "file", *, live: bool = False) -> Frame:
    info = FrameInfo(source_id, make_frame_id(source_id, number), number, width_px=6, height_px=4, live=live)
    return Frame(info, PICTURE)


ENDED = threading.Event()
ENDED.set()


class Recorder:
    """A stage that passes frames on as empty crops and remembers what it was given."""

    name = "recorder"

    def __init__(self, misbehave: Callable[[Sequence[Frame]], None] = lambda frames: None) -> None:
        self.batches: list[list[int]] = []
        self._misbehave = misbehave

    def handle(self, frames: Sequence[Frame]) -> list[Message]:
        self.batches.append([f.info.captured_at_ns for f in frames])
        self._misbehave(frames)
        return [Crops(f.info, EngineInfo("none", "0"), ()) for f in frames]

    def finish(self) -> list[Message]:
        return [Crops(frame(999).info, EngineInfo("none", "0"), ())]


class Bench:
    """A runner over a transport with everything upstream already published."""

    def __init__(
        self, stage: Recorder, flow: Flow = FLOW, transport: MemoryTransport | None = None, **more: Any
    ) -> None:
        self.metrics = Metrics()
        self.transport = transport or MemoryTransport(partitions=1, capacity=100)
        self.out = self.transport.consumer([CROPS], "out")
        self.letters = self.transport.consumer([DEAD_LETTERS], "letters")
        self.runner = Runner(stage, flow, self.transport, self.metrics, **more)
        self.runner.join()

    def publish(self, *messages: Message | RawRecord, topic: str = FRAMES) -> None:
        for message in messages:
            self.transport.publish(topic, message)

    def run(self) -> None:
        self.runner.run(threading.Event(), ENDED)

    def numbers(self) -> list[int]:
        found = []
        for delivery in self.out.poll(0, 1000):
            message = delivery.open()
            assert isinstance(message, Crops)
            found.append(message.info.captured_at_ns)
        return found

    def dead_letters(self) -> list[DeadLetter]:
        found = []
        for delivery in self.letters.poll(0, 1000):
            message = delivery.open()
            assert isinstance(message, DeadLetter)
            found.append(message)
        return found


def test_everything_goes_through_in_order_and_the_end_is_said() -> None:
    stage = Recorder()
    bench = Bench(stage)
    bench.publish(*(frame(number) for number in range(10)))
    bench.run()
    assert bench.numbers() == [*range(10), 999]
    assert stage.batches == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert bench.transport.consumer(FLOW.takes, FLOW.group).poll(0, 100) == []
    assert bench.metrics.count("recorder.in") == 10


def test_of_a_live_source_only_the_newest_is_kept_and_files_lose_nothing() -> None:
    stage = Recorder()
    bench = Bench(stage)
    for number in range(6):
        bench.publish(frame(number, "camera", live=True), frame(100 + number, "file"))
    bench.run()
    assert bench.numbers() == [5, 100, 101, 102, 103, 104, 105, 999]
    assert bench.metrics.count("recorder.dropped", source_id="camera") == 5
    assert bench.metrics.count("recorder.dropped") == 5


def test_what_must_not_be_dropped_comes_in_its_order() -> None:
    stage = Recorder()
    bench = Bench(stage, flow=replace(FLOW, takes=(CROPS,), gives=TEXTS, batch=10))
    for number in range(8):
        info = frame(number, "camera", live=True).info
        # Every third holds what is new; the others only tell where the known lines are.
        bench.publish(Crops(info, EngineInfo("none", "0"), (), number % 3 == 0, is_whole=False), topic=CROPS)
    bench.runner.run(threading.Event(), ENDED)
    assert stage.batches == [[0, 3, 6, 7]]
    assert bench.metrics.count("recorder.dropped", source_id="camera") == 4


def test_a_camera_that_sends_more_does_not_wait_longer_for_its_turn() -> None:
    stage = Recorder()
    bench = Bench(stage, flow=replace(FLOW, batch=2))
    for number in range(3):
        for camera in "abcd":
            bench.publish(frame(number * 10 + ord(camera), camera, live=True))
    bench.run()
    assert stage.batches == [[20 + ord("a"), 20 + ord("b")], [20 + ord("c"), 20 + ord("d")]]


def test_a_stream_that_has_gone_quiet_is_told_to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "QUIET_S", 0.0)
    bench = Bench(Recorder())
    bench.publish(frame(1))
    stop = threading.Event()
    thread = threading.Thread(target=bench.runner.run, args=(stop,))
    thread.start()
    found: list[int] = []
    for _ in range(100):
        found += [delivery.open().info.captured_at_ns for delivery in bench.out.poll(0.1, 10)]  # type: ignore[union-attr]
        if len(found) == 2:
            break
    stop.set()
    thread.join()
    assert found == [1, 999]


def test_nothing_is_quiet_while_the_stage_before_is_at_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner_module, "QUIET_S", 0.0)
    asked: list[bool] = []
    enough = threading.Event()

    def is_idle() -> bool:
        asked.append(False)
        if len(asked) >= 5:
            enough.set()
        return False

    bench = Bench(Recorder(), is_upstream_idle=is_idle)
    bench.publish(frame(1))
    stop = threading.Event()
    thread = threading.Thread(target=bench.runner.run, args=(stop,))
    thread.start()
    assert enough.wait(30)
    stop.set()
    thread.join()
    assert bench.numbers() == [1], "it was not told that the stream has ended"


def test_a_replayed_frame_of_a_live_source_is_never_dropped() -> None:
    bench = Bench(Recorder())
    for number in range(5):
        live = frame(number, "camera", live=True)
        bench.publish(replace(live, info=replace(live.info, generation=7)), topic=REPLAY)
    bench.run()
    assert bench.numbers() == [0, 1, 2, 3, 4, 999]


def test_a_malformed_record_is_set_aside_with_its_place_and_the_stream_goes_on() -> None:
    bench = Bench(Recorder())
    raw = RawRecord("file", b"noise", {"ocr-schema": b"frame/9"}, 5)
    bench.publish(frame(1), raw, frame(2))
    bench.run()
    assert bench.numbers() == [1, 2, 999]
    (letter,) = bench.dead_letters()
    assert (letter.topic, letter.partition, letter.offset, letter.stage) == (FRAMES, 0, 1, "recorder")
    assert "unknown schema 'frame/9'" in letter.reason
    assert letter.record == raw


def test_the_guilty_record_of_a_batch_is_found_and_the_others_go_through() -> None:
    def choke(frames: Sequence[Frame]) -> None:
        if any(f.info.captured_at_ns == 2 for f in frames):
            raise PoisonError("two is too much")

    bench = Bench(Recorder(choke))
    bench.publish(*(frame(number) for number in range(4)))
    bench.run()
    assert bench.numbers() == [0, 1, 3, 999]
    (letter,) = bench.dead_letters()
    assert (letter.offset, letter.reason) == (2, "two is too much")
    assert "PoisonError" in letter.traceback


@pytest.mark.parametrize("error", [StoreError("away"), BackpressureError("slow down", retry_after_s=0.01)])
def test_what_may_work_later_is_tried_again_with_nothing_lost(error: Exception) -> None:
    calls = []

    def fail_twice(frames: Sequence[Frame]) -> None:
        calls.append(len(frames))
        if len(calls) <= 2:
            raise error

    bench = Bench(Recorder(fail_twice))
    bench.publish(frame(1), frame(2))
    bench.run()
    assert calls == [2, 2, 2]
    assert bench.numbers() == [1, 2, 999]
    assert bench.dead_letters() == []


def test_a_stop_while_waiting_commits_nothing() -> None:
    stop = threading.Event()

    def away(frames: Sequence[Frame]) -> None:
        stop.set()
        raise StoreError("away")

    bench = Bench(Recorder(away))
    bench.publish(frame(1))
    bench.runner.run(stop)
    again = bench.transport.consumer(FLOW.takes, FLOW.group).poll(0, 10)
    assert [delivery.offset for delivery in again] == [0]


def test_who_closes_the_transport_to_end_at_once_is_not_warned_of_it(caplog: pytest.LogCaptureFixture) -> None:
    class Store(Recorder):
        def handle(self, frames: Sequence[Frame]) -> list[Message]:
            super().handle(frames)
            return []

    transport = MemoryTransport(partitions=1, capacity=100)
    bench = Bench(Store(lambda frames: transport.close()), transport=transport)
    bench.publish(frame(1))
    with pytest.raises(TransportClosedError):
        bench.run()
    assert caplog.messages == []


def test_a_stage_that_fails_on_everything_stops_instead_of_emptying_the_stream() -> None:
    def bug(frames: Sequence[Frame]) -> None:
        raise ZeroDivisionError("a bug")

    bench = Bench(Recorder(bug))
    bench.publish(*(frame(number) for number in range(60)))
    with pytest.raises(StageFailedError, match="ZeroDivisionError"):
        bench.run()
    assert len(bench.dead_letters()) < FAILURES_IN_A_ROW


def test_a_record_of_another_topics_kind_is_set_aside() -> None:
    bench = Bench(Recorder())
    stray = encode(Crops(frame(2).info, EngineInfo("none", "0"), ()))
    bench.publish(frame(1), stray, frame(3))
    bench.run()
    assert bench.numbers() == [1, 3, 999]
    (letter,) = bench.dead_letters()
    assert letter.reason == "a Crops record has no place in ocr.frames, which holds Frame"


class NarrowTransport(MemoryTransport):
    """Takes no crops of one frame, however they are made smaller, as Kafka does of what is too large."""

    def publish(self, topic: str, message: Message | RawRecord) -> None:
        if isinstance(message, Crops) and message.info.captured_at_ns == 2:
            raise PoisonError("cannot be made to fit")
        super().publish(topic, message)


def test_a_record_whose_results_cannot_be_sent_is_set_aside_and_the_others_go_through() -> None:
    bench = Bench(Recorder(), transport=NarrowTransport(partitions=1, capacity=100))
    bench.publish(*(frame(number) for number in range(1, 5)))
    bench.run()
    assert sorted(set(bench.numbers())) == [1, 3, 4, 999]
    (letter,) = bench.dead_letters()
    assert (letter.offset, letter.reason) == (1, "cannot be made to fit")
    assert bench.transport.consumer(FLOW.takes, FLOW.group).poll(0, 100) == []


def test_a_server_that_cannot_be_used_ends_the_stage_and_costs_no_record() -> None:
    def refuse(frames: Sequence[Frame]) -> None:
        raise DeploymentError("the password was changed")

    bench = Bench(Recorder(refuse))
    bench.publish(*(frame(number) for number in range(4)))
    with pytest.raises(DeploymentError, match="the password was changed"):
        bench.run()
    assert bench.dead_letters() == []
    again = bench.transport.consumer(FLOW.takes, FLOW.group).poll(0, 100)
    assert [delivery.offset for delivery in again] == [0, 1, 2, 3]


def test_a_reason_that_quotes_the_record_is_cut() -> None:
    def quote(frames: Sequence[Frame]) -> None:
        raise ValueError("x" * 10**6)

    bench = Bench(Recorder(quote))
    bench.publish(frame(1))
    bench.run()
    (letter,) = bench.dead_letters()
    assert letter.reason.startswith("ValueError: xxx")
    assert len(letter.reason) == LONGEST_REASON


class FlakyTransport(MemoryTransport):
    """Fails the first flush after having taken the messages, as a broker that dies between the two."""

    failures = 1

    def flush(self, timeout_s: float = 30.0) -> None:
        if self.failures:
            self.failures -= 1
            raise TransportError("not confirmed")


def test_what_was_not_confirmed_is_published_again_before_anything_is_committed() -> None:
    bench = Bench(Recorder(), transport=FlakyTransport(partitions=1, capacity=100))
    bench.publish(frame(1), frame(2))
    bench.run()
    assert bench.numbers() == [1, 2, 1, 2, 999]


def test_records_of_a_partition_that_comes_back_are_handled_once_more_not_twice() -> None:
    stage = Recorder()
    bench = Bench(stage, flow=replace(FLOW, batch=1))
    bench.publish(frame(1), frame(2), frame(3))
    original = bench.transport.consumer
    seen: list[Any] = []

    def rebalance_after_first(frames: Sequence[Frame]) -> None:
        if not seen:
            # Another member joins and leaves: the partitions come back rewound to what was committed.
            seen.append(original(FLOW.takes, FLOW.group))
            seen[0].close()

    stage._misbehave = rebalance_after_first
    bench.run()
    assert sorted(set(bench.numbers())) == [1, 2, 3, 999]
    assert len(stage.batches) <= 4
