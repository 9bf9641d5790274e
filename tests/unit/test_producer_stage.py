from __future__ import annotations

import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from ocrstream.errors import SourceError, TransportError
from ocrstream.messages import FRAMES, Frame, FrameInfo, Message, RawRecord, make_frame_id
from ocrstream.metrics import Metrics
from ocrstream.picture import Picture
from producers import stage
from producers.progress import Progress
from producers.stage import Producer


def frame(number: int, live: bool) -> Frame:
    info = FrameInfo("cam", make_frame_id("cam", number), number, 4, 4, live, None if live else float(number))
    return Frame(info, Picture.from_array(np.zeros((4, 4, 3), np.uint8)))


class Numbers:
    """A source of so many frames."""

    source_id = "cam"
    segment: int | None = None
    start_ms = 0.0
    total_ms: float | None = None
    total_frames: int | None = None

    def __init__(self, count: int, *, live: bool = False, fails: bool = False) -> None:
        self.live = live
        self.progress = Progress()
        self.known: Callable[[str], bool] | None = None
        self._count = count
        self._fails = fails

    def frames(
        self, stop: threading.Event, after: FrameInfo | None = None, known: Callable[[str], bool] | None = None
    ) -> Iterator[Frame]:
        self.known = known
        first = 0 if after is None else after.captured_at_ns + 1
        for number in range(first, self._count):
            self.progress.position_ms = number * 10.0
            self.progress.position_frames = number + 1
            yield frame(number, self.live)
        if self._fails:
            raise SourceError("cam: gone")

    def close(self) -> None:
        """Nothing is held."""


class FlakyTransport:
    """Keeps what is published; publishing, flushing and remembering fail when their scripts say so (x: fails)."""

    def __init__(self, publish: str = "", flush: str = "", progress: str = "") -> None:
        self.arrived: list[int] = []
        self.flushes = 0
        self.kept: dict[str, str] = {}
        self._pending: list[int] = []
        self._publish = iter(publish)
        self._flush = iter(flush)
        self._progress = iter(progress)

    def publish(self, topic: str, message: Message | RawRecord) -> None:
        assert topic == FRAMES
        assert isinstance(message, Frame)
        assert message.info.taken_at_ns > 0
        if next(self._publish, ".") == "x":
            raise TransportError("the broker is away")
        self._pending.append(message.info.captured_at_ns)

    def flush(self, timeout_s: float = 30.0) -> None:
        self.flushes += 1
        if next(self._flush, ".") == "x":
            self._pending.clear()
            raise TransportError("not confirmed")
        self.arrived += self._pending
        self._pending.clear()

    def progress(self, key: str) -> str | None:
        if next(self._progress, ".") == "x":
            raise TransportError("the coordinator is not available")
        return self.kept.get(key)

    def save_progress(self, key: str, value: str) -> None:
        self.kept[key] = value


def run(source: Numbers, transport: FlakyTransport, after: FrameInfo | None = None) -> tuple[Producer, Metrics]:
    metrics = Metrics()
    producer = Producer(source, transport, metrics, clock=lambda: 0.0)  # type: ignore[arg-type]
    producer.run(threading.Event(), after)
    return producer, metrics


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "FIRST_PAUSE_S", 0.0)
    monkeypatch.setattr(stage, "LONGEST_PAUSE_S", 0.0)


def test_every_frame_arrives_and_is_counted() -> None:
    transport = FlakyTransport()
    _, metrics = run(Numbers(150), transport)
    assert transport.arrived == list(range(150))
    assert metrics.count("producer.frames", source_id="cam") == metrics.count("producer.frames") == 150
    assert transport.flushes == 3


def test_it_goes_on_behind_a_frame() -> None:
    transport = FlakyTransport()
    run(Numbers(10), transport, after=frame(6, live=False).info)
    assert transport.arrived == [7, 8, 9]


def test_it_goes_on_behind_what_the_transport_remembers() -> None:
    transport = FlakyTransport()
    run(Numbers(4), transport)
    run(Numbers(6), transport)
    assert transport.arrived == [0, 1, 2, 3, 4, 5]
    transport.kept["cam"] = "{damaged"
    run(Numbers(2), transport)
    assert transport.arrived[6:] == [0, 1]


def test_a_source_with_nothing_left_says_so(caplog: pytest.LogCaptureFixture) -> None:
    transport = FlakyTransport()
    run(Numbers(4), transport)
    assert "read before" not in caplog.text
    run(Numbers(4), transport)
    assert transport.arrived == [0, 1, 2, 3]
    assert "cam: all of it was read before; to read it with other options give it another name" in caplog.text


def test_the_source_is_told_what_is_known() -> None:
    source = Numbers(1)
    Producer(source, FlakyTransport(), Metrics()).run(threading.Event(), known="a".__eq__)  # type: ignore[arg-type]
    assert source.known is not None
    assert (source.known("a"), source.known("b")) == (True, False)


def test_a_broker_that_does_not_remember_yet_is_asked_again() -> None:
    transport = FlakyTransport(progress="xx")
    run(Numbers(4), transport)
    assert transport.arrived == [0, 1, 2, 3]
    again = FlakyTransport(progress="xx")
    again.kept = transport.kept
    run(Numbers(6), again)
    assert again.arrived == [4, 5]


def test_a_file_loses_nothing_while_the_transport_is_away() -> None:
    transport = FlakyTransport(publish="..xxx.x", flush="x.xx.")
    _, metrics = run(Numbers(100), transport)
    assert sorted(set(transport.arrived)) == list(range(100))
    assert metrics.count("producer.frames") == 100
    assert metrics.count("producer.dropped") == 0


def test_a_live_source_goes_on_with_its_newest_frame() -> None:
    transport = FlakyTransport(publish=".xx.", flush=".")
    _, metrics = run(Numbers(6, live=True), transport)
    assert transport.arrived == [0, 3, 4, 5]
    assert (metrics.count("producer.dropped", source_id="cam"), metrics.count("producer.frames")) == (2, 4)


def test_a_live_source_gives_up_what_was_not_confirmed() -> None:
    transport = FlakyTransport(flush="x")
    _, metrics = run(Numbers(5, live=True), transport)
    assert transport.arrived == []
    assert metrics.count("producer.dropped") == 5


def test_what_was_read_before_a_failure_is_sent() -> None:
    transport = FlakyTransport()
    with pytest.raises(SourceError, match="gone"):
        run(Numbers(3, fails=True), transport)
    assert transport.arrived == [0, 1, 2]


def test_a_stop_ends_the_wait_for_the_transport(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "FIRST_PAUSE_S", 60.0)
    stop = threading.Event()
    transport = FlakyTransport(publish="x" * 100)
    producer = Producer(Numbers(5), transport, Metrics())  # type: ignore[arg-type]
    thread = threading.Thread(target=producer.run, args=(stop,))
    thread.start()
    stop.set()
    thread.join(timeout=10)
    assert not thread.is_alive()
    assert transport.arrived == []
    assert transport.kept == {}


def test_the_sources_events_are_counted_for_it() -> None:
    source, metrics = Numbers(0), Metrics()
    Producer(source, FlakyTransport(), metrics)  # type: ignore[arg-type]
    source.progress.count("skipped", 3)
    source.progress.count("reconnects")
    source.progress.count("dropped", 0)
    assert metrics.count("producer.skipped", source_id="cam") == 3
    assert metrics.count("producer.reconnects", source_id="cam") == 1
    assert "producer.dropped" not in metrics.counts()
