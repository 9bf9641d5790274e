"""The loop that drives every consuming stage: poll, handle, publish, flush, commit.

A stage is a pure handler; everything that can go wrong around it is dealt with here, once:

1. **poll**: take what is there, up to a batch or a deadline. Of a live source only the newest frames are kept.
2. **handle**: in a worker thread, while this thread keeps the group membership alive: slow inference is no eviction.
3. **publish**: what the stage made, and a dead letter for each record that can never be processed.
4. **flush**: every record is confirmed, or all are published again.
5. **commit**: only now. A crash anywhere before re-does work and changes nothing, since documents have an identity.

Errors decide a record's fate (``ocrstream.errors``): transient ones and backpressure are waited out, with nothing
committed; a server that cannot be used as it is ends the stage, likewise; anything else that happens to a batch, also
when its results are sent, is looked for record by record, and the guilty one is set aside.
"""

from __future__ import annotations

import logging
import threading
import time
import traceback
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from ocrstream.errors import (
    BackpressureError,
    DeploymentError,
    MalformedRecordError,
    OcrstreamError,
    PoisonError,
    TransientError,
    TransportClosedError,
    TransportError,
)
from ocrstream.messages import DEAD_LETTERS, FIRST_READING, MESSAGE_OF_TOPIC, Crops, DeadLetter, Message
from ocrstream.metrics import Metrics
from ocrstream.transport import Consumer, Delivery, Position, Transport

log = logging.getLogger(__name__)

R = TypeVar("R")

KEEP_ALIVE_EVERY_S = 0.5
IDLE_POLL_S = 0.2
LONGEST_BACKOFF_S = 30.0
DRAIN_RECORDS = 512
"""How many records one poll may take, so that a consumer that fell behind reaches the newest frame at once."""

QUIET_S = 10.0
"""When nothing has come for so long the stage says what it still has to say: over Kafka nobody tells a stream's end."""

LONGEST_REASON = 2000
"""Characters of a dead letter's reason: some errors quote the record, which can be as large as it likes."""

FAILURES_IN_A_ROW = 25
"""So many unexpected failures one after the other are the stage's fault, not the records': it stops instead of setting
the whole stream aside."""


class Stage(Protocol):
    """A pure handler: no transport, no clock, no environment in it."""

    name: str

    def handle(self, messages: Sequence[Any]) -> Iterable[Message]:
        """Turn a batch into what follows from it; may be called again with messages it has seen (redelivery).

        Raises:
            TransientError: may work later.
            BackpressureError: later, please.
            PoisonError: one of them can never be processed; the runner finds out which.
        """

    def finish(self) -> Iterable[Message]:
        """What is still to be said when nothing more comes: at the end of the stream, and when it has gone quiet."""


class StageFailedError(OcrstreamError):
    """A stage fails on every record it gets; setting them all aside would empty the stream."""


@dataclass(frozen=True, slots=True)
class Flow:
    """Where a stage stands in the stream, and how it takes its records.

    Attributes:
        takes: topics in.
        gives: topic out; None for the last stage.
        group: consumer group.
        batch: messages handled together at most.
        deadline_s: how long a batch that is not full waits for more.
        keep_live: of each live source, so many of the newest waiting messages are kept, older ones are dropped.
    """

    takes: tuple[str, ...]
    gives: str | None
    group: str
    batch: int
    deadline_s: float
    keep_live: int


@dataclass(slots=True)
class _Waiting:
    """A record that was taken and not handled yet."""

    delivery: Delivery
    message: Message | None
    error: MalformedRecordError | None = None

    @property
    def live_key(self) -> str | None:
        """The key of a live source's first reading; None for what must never be dropped.

        Crops that hold only what is new must not: the detector will not send it again.
        """
        if self.message is None or isinstance(self.message, DeadLetter):
            return None
        if isinstance(self.message, Crops) and self.message.is_kept and not self.message.is_whole:
            return None
        info = self.message.info
        return info.key if info.live and info.generation == FIRST_READING else None


class Runner:
    """Drives one stage; `run` returns when it is told to stop or when everything upstream is finished.

    Args:
        stage: the handler.
        flow: what it takes and gives.
        transport: what that travels on.
        metrics: where it is counted.
        admits: asked before anything is taken, with how long it may wait, in seconds; nothing is taken while it says
            no. So a stage can leave the newest frame to be taken when there is time for it.
        is_upstream_idle: whether the stage before has nothing in hand. While it works on something, that nothing comes
            means no quiet. Over Kafka nobody knows.
    """

    def __init__(
        self,
        stage: Stage,
        flow: Flow,
        transport: Transport,
        metrics: Metrics,
        admits: Callable[[float], bool] | None = None,
        is_upstream_idle: Callable[[], bool] = lambda: True,
    ) -> None:
        self._admits = admits
        self._is_upstream_idle = is_upstream_idle
        self._stage = stage
        self.flow = flow
        self._transport = transport
        self._metrics = metrics
        self._consumer: Consumer | None = None
        self._waiting: deque[_Waiting] = deque()
        self._next: dict[Position, int] = {}
        self._failures_in_a_row = 0
        self._worker = ThreadPoolExecutor(max_workers=1, thread_name_prefix=f"{stage.name}-handler")

    def join(self) -> None:
        """Become a member of the consumer group before `run`, where somebody has to know that it is one."""
        self._consumer = self._transport.consumer(self.flow.takes, self.flow.group)

    def run(self, stop: threading.Event, upstream_finished: threading.Event | None = None) -> None:
        """Consume until told to stop.

        Args:
            stop: end after the batch in hand; what was not committed is delivered again next time.
            upstream_finished: end once this is set and nothing waits any more.

        Raises:
            StageFailedError: the stage fails on every record.
            DeploymentError: a server is there and cannot be used as it is; nothing of the batch in hand is committed.
        """
        if self._consumer is None:
            self.join()
        consumer = self._consumer
        assert consumer is not None
        last_work_s: float | None = None
        try:
            while not stop.is_set():
                if self._admits is not None and not self._admits(IDLE_POLL_S):
                    continue
                self._collect(consumer, stop)
                if self._waiting:
                    self._work(consumer, stop)
                    last_work_s = time.monotonic()
                elif last_work_s is not None and not self._is_upstream_idle():
                    last_work_s = time.monotonic()
                elif last_work_s is not None and time.monotonic() - last_work_s > QUIET_S:
                    last_work_s = None
                    self._publish(list(self._stage.finish()), consumer, stop)
                elif upstream_finished is not None and upstream_finished.is_set() and self._is_drained(consumer):
                    self._publish(list(self._stage.finish()), consumer, stop)
                    return
        finally:
            consumer.close()
            self._worker.shutdown(wait=True)

    def _is_drained(self, consumer: Consumer) -> bool:
        return sum(consumer.lag().values()) == 0

    def _collect(self, consumer: Consumer, stop: threading.Event) -> None:
        """Poll until a batch is full or its deadline is over."""
        deadline: float | None = None
        while len(self._waiting) < self.flow.batch and not stop.is_set():
            remaining_s = IDLE_POLL_S if deadline is None else deadline - time.monotonic()
            if remaining_s <= 0:
                return
            try:
                deliveries = consumer.poll(min(remaining_s, IDLE_POLL_S), DRAIN_RECORDS)
            except TransportError as error:
                if stop.is_set():
                    return
                self._metrics.add(f"{self._stage.name}.retries")
                log.warning("%s: %s; trying again", self._stage.name, error)
                stop.wait(1.0)
                return
            self._take(deliveries, consumer.owned())
            if not self._waiting:
                return
            if deadline is None:
                deadline = time.monotonic() + self.flow.deadline_s

    def _take(self, deliveries: Sequence[Delivery], owned: set[Position]) -> None:
        if any(waiting.delivery.position not in owned for waiting in self._waiting):
            self._waiting = deque(waiting for waiting in self._waiting if waiting.delivery.position in owned)
        for delivery in deliveries:
            if delivery.offset < self._next.get(delivery.position, 0):
                # A rebalance gave the partition back and it starts again at what was committed.
                self._forget(delivery.position, delivery.offset)
            self._next[delivery.position] = delivery.offset + 1
            self._waiting.append(_open(delivery))
        self._drop_old_live_frames()

    def _forget(self, position: Position, from_offset: int) -> None:
        self._waiting = deque(
            waiting
            for waiting in self._waiting
            if waiting.delivery.position != position or waiting.delivery.offset < from_offset
        )

    def _drop_old_live_frames(self) -> None:
        """Keep the newest of each live source, in the place of its oldest: no camera's turn comes later for that.

        But in their own place where records wait between them that must not be dropped: a source's order stays.
        """
        places: defaultdict[str, list[int]] = defaultdict(list)
        ordered: set[str] = set()
        for place, waiting in enumerate(self._waiting):
            if waiting.live_key is not None:
                places[waiting.live_key].append(place)
            elif isinstance(waiting.message, Crops):
                ordered.add(waiting.message.info.key)
        kept: dict[int, _Waiting] = dict(enumerate(self._waiting))
        for key, mine in places.items():
            newest = [kept.pop(place) for place in mine][-self.flow.keep_live :]
            if len(newest) < len(mine):
                self._metrics.add(f"{self._stage.name}.dropped", len(mine) - len(newest), source_id=key)
            kept.update(zip(mine[-len(newest) :] if key in ordered else mine[: len(newest)], newest, strict=True))
        self._waiting = deque(kept[place] for place in sorted(kept))

    def _work(self, consumer: Consumer, stop: threading.Event) -> None:
        """Settle one batch and commit what is behind it."""
        batch = [self._waiting.popleft() for _ in range(min(self.flow.batch, len(self._waiting)))]
        self._metrics.add(f"{self._stage.name}.in", len(batch))
        damaged = [(waiting, waiting.error) for waiting in batch if waiting.error is not None]
        good = [waiting for waiting in batch if waiting.error is None]
        if damaged and not self._set_aside(damaged, consumer, stop):
            return
        if good and not self._settle(good, consumer, stop):
            return
        try:
            consumer.commit(self._committable())
        except TransportClosedError:
            raise  # the run was ended in the middle of its work; who resumes it reads these records again
        except TransportError as error:
            log.warning("%s: the position was not stored, records may be read twice: %s", self._stage.name, error)

    def _committable(self) -> dict[Position, int]:
        """Per partition the first record not handled yet."""
        offsets = dict(self._next)
        for waiting in self._waiting:
            delivery = waiting.delivery
            offsets[delivery.position] = min(offsets[delivery.position], delivery.offset)
        return offsets

    def _settle(self, batch: list[_Waiting], consumer: Consumer, stop: threading.Event) -> bool:
        """Handle a batch and send on what follows, record by record where the whole fails; False when stopped."""
        try:
            made = self._handle(batch, consumer, stop)
            if made is None or not self._publish(made, consumer, stop):
                return False
        except DeploymentError:
            # No record's fault: every one of them would fail.
            raise
        except Exception as error:
            if len(batch) > 1:
                return all(self._settle([waiting], consumer, stop) for waiting in batch)
            self._count_failure(error)
            return self._set_aside([(batch[0], error)], consumer, stop)
        self._failures_in_a_row = 0
        self._metrics.add(f"{self._stage.name}.out", len(made))
        return True

    def _handle(self, batch: list[_Waiting], consumer: Consumer, stop: threading.Event) -> list[Message] | None:
        """What follows from a batch; None when stopped before it worked."""
        messages = [waiting.message for waiting in batch]
        started = time.monotonic()
        made = self._insist(lambda: list(self._stage.handle(messages)), consumer, stop)
        if made is not None:
            self._metrics.observe(f"{self._stage.name}.handle", time.monotonic() - started)
        return made

    def _set_aside(
        self, records: Sequence[tuple[_Waiting, Exception]], consumer: Consumer, stop: threading.Event
    ) -> bool:
        """Send dead letters of records that can never be processed; False when stopped before they were out."""
        letters = [self._dead_letter(waiting, error) for waiting, error in records]
        if not self._publish(letters, consumer, stop, DEAD_LETTERS):
            return False
        self._metrics.add(f"{self._stage.name}.dead_letters", len(letters))
        for letter in letters:
            log.warning("%s: set aside %s[%d]@%d: %s", *_place(letter), letter.reason)
        return True

    def _count_failure(self, error: Exception) -> None:
        if isinstance(error, PoisonError):
            return
        self._failures_in_a_row += 1
        log.error("%s: unexpected failure", self._stage.name, exc_info=error)
        if self._failures_in_a_row >= FAILURES_IN_A_ROW:
            raise StageFailedError(
                f"the {self._stage.name} stage failed on {FAILURES_IN_A_ROW} records in a row, last with: {error!r}. "
                "It stops so that the stream is not set aside as a whole; nothing after these records is lost."
            ) from error

    def _publish(
        self, messages: Sequence[Message], consumer: Consumer, stop: threading.Event, topic: str | None = None
    ) -> bool:
        """Send messages to a topic, the stage's own where none is named; False when stopped before they were out."""
        topic = topic or self.flow.gives

        def publish() -> bool:
            assert topic is not None
            for message in messages:
                self._transport.publish(topic, message)
            self._transport.flush()
            return True

        return not messages or self._insist(publish, consumer, stop) is not None

    def _insist(self, work: Callable[[], R], consumer: Consumer, stop: threading.Event) -> R | None:
        """Do something in the worker thread until it works; None when stopped in between."""
        backoff_s = 0.5
        while True:
            try:
                return self._await(self._worker.submit(work), consumer)
            except BackpressureError as error:
                wait_s = error.retry_after_s
                self._metrics.add(f"{self._stage.name}.backpressure")
            except TransientError as error:
                if stop.is_set():
                    return None
                wait_s, backoff_s = backoff_s, min(backoff_s * 2, LONGEST_BACKOFF_S)
                self._metrics.add(f"{self._stage.name}.retries")
                log.warning("%s: %s; trying again in %.1f s, nothing is lost", self._stage.name, error, wait_s)
            if self._rest(wait_s, consumer, stop):
                return None

    @staticmethod
    def _await(future: Future[R], consumer: Consumer) -> R:
        while True:
            try:
                return future.result(timeout=KEEP_ALIVE_EVERY_S)
            except TimeoutError:
                if future.done():
                    raise
                _keep_alive(consumer)

    @staticmethod
    def _rest(seconds: float, consumer: Consumer, stop: threading.Event) -> bool:
        """Wait without losing the membership; True when told to stop."""
        until = time.monotonic() + seconds
        while (left_s := until - time.monotonic()) > 0:
            if stop.wait(min(left_s, KEEP_ALIVE_EVERY_S)):
                return True
            _keep_alive(consumer)
        return stop.is_set()

    def _dead_letter(self, waiting: _Waiting, error: BaseException) -> DeadLetter:
        delivery = waiting.delivery
        expected = isinstance(error, PoisonError)
        return DeadLetter(
            topic=delivery.topic,
            partition=delivery.partition,
            offset=delivery.offset,
            stage=self._stage.name,
            reason=(str(error) if expected else f"{type(error).__name__}: {error}")[:LONGEST_REASON],
            traceback="".join(traceback.format_exception(error)),
            record=delivery.raw(),
        )


def _open(delivery: Delivery) -> _Waiting:
    try:
        message, expected = delivery.open(), MESSAGE_OF_TOPIC[delivery.topic]
        if not isinstance(message, expected):
            raise MalformedRecordError(  # noqa: TRY301 damage of the same kind as what opening finds
                f"a {type(message).__name__} record has no place in {delivery.topic}, which holds {expected.__name__}"
            )
    except MalformedRecordError as error:
        return _Waiting(delivery, None, error)
    return _Waiting(delivery, message)


def _keep_alive(consumer: Consumer) -> None:
    try:
        consumer.keep_alive()
    except TransportError as error:
        # The work goes on; if the membership is lost the records come again.
        log.warning("the broker does not answer: %s", error)


def _place(letter: DeadLetter) -> tuple[str, str, int, int]:
    return letter.stage, letter.topic, letter.partition, letter.offset
