"""Frames through Kafka next to bare kafka-python, and regions into both document stores, on real servers.

    python -m benchmarks.throughput frames [--records 2000] [--rounds 9] [--save]
    python -m benchmarks.throughput index [--batches 100] [--save]

``frames``: the same 100 KB JPEGs through `KafkaTransport` (publish and flush as the producer stage does it; poll, open
and commit as a consuming stage does it) and through kafka-python alone, taking turns at who is first, with the same
settings (see `BareProducer`). ``bare`` flushes as often as ours does, so that as little is unconfirmed at any time;
``bare_unflushed`` flushes once, at the very end of a round. Both consumers read the same topic, which ours fills: how
fast a topic can be read depends on the size of the batches in it, and so on how it was filled.

``index``: `DocumentStore.write` of frames with ten text lines each, in batches as the indexer writes them, into SQLite
and into Elasticsearch. Afterwards every frame and every line is read back and counted.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.structs import OffsetAndMetadata

from benchmarks.environment import environment
from benchmarks.recording import add_save_flag, conclude, median_ratio, percentiles
from ocrstream.config import ElasticsearchSettings, IndexerSettings, KafkaSettings
from ocrstream.geometry import box_polygon
from ocrstream.messages import FRAMES, EngineInfo, Frame, FrameInfo, Region, Text, Texts, make_frame_id
from ocrstream.picture import Picture, encode_jpeg
from ocrstream.query import parse
from ocrstream.runner import DRAIN_RECORDS
from ocrstream.storage import DocumentStore, Filter
from ocrstream.storage.elastic import ElasticStore
from ocrstream.storage.embedded import EmbeddedStore
from ocrstream.transport import Consumer, Position
from ocrstream.transport.kafka import KafkaTransport
from ocrstream.transport.kafka.topics import BATCH_BYTES
from producers.scene import DemoScene
from producers.stage import FLUSH_EVERY_FRAMES
from recognizer_consumer.voting import Ballot
from tests.services.elasticsearch import ElasticsearchServer
from tests.services.kafka import KafkaServer

MB = 1e6
OUR_PREFIX = "ours-"
FRAME_BYTES = 100_000
CAMERAS = 6
PATIENCE_S = 120.0
"""How long records and documents may take to arrive before a run is given up."""

POLL_S = 0.2
JOIN_POLL_S = 5.0
"""On a busy machine kafka-python forgets a join that takes longer than the poll it began in, and begins again."""

REGIONS_A_FRAME = 10
FRAME_INTERVAL_NS = 100_000_000
VISIBLE_FRAMES = 80
"""So many frames a sign stays in view: 8 seconds at 10 frames a second."""

BEGAN_NS = 1_767_268_800_000_000_000
"""2026-01-01T12:00:00Z: all documents of a run lie in one day."""

ENGINE = EngineInfo("ppocr", "0123456789ab")
NEEDLE = "lighthouse"
# fmt: off
WORDS = (
    "arrivals", "baggage", "boarding", "café", "closed", "customs", "delayed", "departures",
    "emergency", "exit", "express", "gate", "information", "level", "lounge", "mind",
    "north", "open", "parking", "passengers", "platform", "please", "proceed", "restricted",
)
# fmt: on


class Ours:
    """`KafkaTransport`, used as the stages use it."""

    def __init__(self, servers: str) -> None:
        self._transport = KafkaTransport(KafkaSettings(servers=servers, topic_prefix=OUR_PREFIX))
        self._transport.check()
        self._consumer: Consumer = self._transport.consumer([FRAMES], "benchmark")
        _wait_until(lambda: self._consumer.poll(POLL_S, 1) or self._consumer.owned(), "partitions for our consumer")

    def produce(self, frames: Sequence[Frame]) -> None:
        """Publish, and flush as often as the producer stage does."""
        for number, frame in enumerate(frames, 1):
            self._transport.publish(FRAMES, frame)
            if number % FLUSH_EVERY_FRAMES == 0:
                self._transport.flush()
        self._transport.flush()

    def consume(self, count: int) -> int:
        """Poll, open each record, commit; returns the bytes of their pictures."""
        taken = size = 0
        deadline_s = time.monotonic() + PATIENCE_S
        while taken < count and time.monotonic() < deadline_s:
            next_offsets: dict[Position, int] = {}
            for delivery in self._consumer.poll(POLL_S, DRAIN_RECORDS):
                message = delivery.open()
                assert isinstance(message, Frame)
                size += len(message.picture.encoded())
                taken += 1
                next_offsets[delivery.position] = delivery.offset + 1
            self._consumer.commit(next_offsets)
        return size

    def close(self) -> None:
        """Leave the group and flush."""
        self._transport.close()


class BareProducer:
    """kafka-python with ``crc32c`` and nothing around it.

    The settings are the transport's own, where they touch speed: ``acks=all``, idempotent, batches of 1 MiB, no linger,
    no compression, six partitions, the same keys. It has less to do: no headers, no metadata, no bound on what is under
    way.

    Args:
        servers: the broker.
        prefix: of its topic.
        flush_every: records between two flushes; None flushes at the end only.
    """

    def __init__(self, servers: str, prefix: str, flush_every: int | None) -> None:
        with contextlib.closing(KafkaTransport(KafkaSettings(servers=servers, topic_prefix=prefix))) as transport:
            transport.check()
        self._topic = f"{prefix}{FRAMES}"
        self._flush_every = flush_every
        self._client: Any = KafkaProducer(
            bootstrap_servers=[servers],
            metrics_enabled=False,
            acks="all",
            enable_idempotence=True,
            batch_size=BATCH_BYTES,
            linger_ms=0,
            max_request_size=9 * BATCH_BYTES,
        )

    def produce(self, frames: Sequence[Frame]) -> None:
        """Send, and flush; every record has to be confirmed."""
        sent = []
        for number, frame in enumerate(frames, 1):
            value = frame.picture.encoded()
            sent.append(self._client.send(self._topic, key=frame.info.key.encode(), value=value))
            if self._flush_every and number % self._flush_every == 0:
                self._client.flush()
        self._client.flush()
        for future in sent:
            future.get(timeout=0)

    def close(self) -> None:
        """Let go."""
        self._client.close(timeout=5)


class BareConsumer:
    """kafka-python on the topic that ours fills, with the transport's settings: fetches of up to 64 MiB, 50 ms."""

    def __init__(self, servers: str) -> None:
        self._client: Any = KafkaConsumer(
            f"{OUR_PREFIX}{FRAMES}",
            bootstrap_servers=[servers],
            metrics_enabled=False,
            group_id="bare-benchmark",
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            max_partition_fetch_bytes=8 * BATCH_BYTES,
            fetch_max_bytes=64 * BATCH_BYTES,
            fetch_max_wait_ms=50,
            max_poll_interval_ms=900_000,
        )
        _wait_until(
            lambda: self._client.poll(timeout_ms=JOIN_POLL_S * 1000) or self._client.assignment(),
            "partitions for the bare consumer",
        )

    def consume(self, count: int) -> int:
        """Poll and commit; returns the bytes of the values."""
        taken = size = 0
        deadline_s = time.monotonic() + PATIENCE_S
        while taken < count and time.monotonic() < deadline_s:
            found = self._client.poll(timeout_ms=POLL_S * 1000, max_records=DRAIN_RECORDS)
            offsets: dict[TopicPartition, OffsetAndMetadata] = {}
            for place, records in found.items():
                size += sum(len(record.value) for record in records)
                taken += len(records)
                offsets[place] = OffsetAndMetadata(records[-1].offset + 1, "", -1)
            if offsets:
                self._client.commit(offsets)
        return size

    def close(self) -> None:
        """Leave the group."""
        self._client.close(autocommit=False)


@dataclass(slots=True)
class Rounds:
    """One way through Kafka, a value a round: how fast, and what it costs this process."""

    mb_per_s: list[float] = field(default_factory=list)
    cpu_ms_a_record: list[float] = field(default_factory=list)

    def add(self, records: int, took: Took) -> None:
        """Count a round."""
        self.mb_per_s.append(records * FRAME_BYTES / MB / took.wall_s)
        self.cpu_ms_a_record.append(took.cpu_s * 1000 / records)

    def as_json(self) -> dict[str, list[float]]:
        """Megabytes and records a second, and CPU time."""
        return {
            "mb_per_s": [round(rate, 1) for rate in self.mb_per_s],
            "records_per_s": [round(rate * MB / FRAME_BYTES) for rate in self.mb_per_s],
            "cpu_ms_a_record": [round(cost, 3) for cost in self.cpu_ms_a_record],
        }


@dataclass(frozen=True, slots=True)
class Took:
    """Time of the clock, and of the processor by all threads of this process, in seconds."""

    wall_s: float
    cpu_s: float

    @classmethod
    def by(cls, work: Callable[[], object]) -> Took:
        """What a piece of work takes."""
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        work()
        return cls(time.perf_counter() - wall_s, time.process_time() - cpu_s)


def measure_frames(records: int, rounds: int) -> dict[str, Any]:
    """Send and take frames through a broker of this run's own, all contestants in every round."""
    jpeg = padded_jpeg(FRAME_BYTES)
    server = KafkaServer()
    with contextlib.ExitStack() as stack:
        stack.callback(server.close)
        server.start()
        ours = stack.enter_context(contextlib.closing(Ours(server.servers)))
        bare = stack.enter_context(contextlib.closing(BareProducer(server.servers, "bare-", FLUSH_EVERY_FRAMES)))
        unflushed = stack.enter_context(contextlib.closing(BareProducer(server.servers, "unflushed-", None)))
        consumer = stack.enter_context(contextlib.closing(BareConsumer(server.servers)))
        produce = {"ours": ours.produce, "bare": bare.produce, "bare_unflushed": unflushed.produce}
        consume = {"ours": ours.consume, "bare": consumer.consume}
        produced, consumed = ({name: Rounds() for name in names} for names in (produce, consume))
        for number in range(rounds + 1):
            frames = list(_frames(jpeg, number, records))
            # The first round warms the broker and the clients up.
            for name in _turned(list(produce), number):
                took = Took.by(partial(produce[name], frames))
                if number:
                    produced[name].add(records, took)
            for name in _turned(list(consume), number):
                took = Took.by(partial(_consume_all, consume[name], records))
                if number:
                    consumed[name].add(records, took)
    results = {"produced": produced, "consumed": consumed}
    return {
        "record_bytes": FRAME_BYTES,
        "records_a_round": records,
        **{way: {name: values.as_json() for name, values in result.items()} for way, result in results.items()},
        "median_ratio_of_mb_per_s": _ratios(results, lambda values: values.mb_per_s),
        "median_ratio_of_cpu_ms": _ratios(results, lambda values: values.cpu_ms_a_record),
    }


def _consume_all(consume: Callable[[int], int], records: int) -> None:
    size = consume(records)
    if size != records * FRAME_BYTES:
        raise RuntimeError(f"{size} of {records * FRAME_BYTES} bytes came back within {PATIENCE_S:.0f} s")


def _turned(names: list[str], by: int) -> list[str]:
    """The names from another one on, so that each is first in its turn."""
    start = by % len(names)
    return names[start:] + names[:start]


def _ratios(results: dict[str, dict[str, Rounds]], values: Callable[[Rounds], list[float]]) -> dict[str, float]:
    """Ours to each other contestant, both ways."""
    return {
        f"{way}_to_{name}": median_ratio(values(result["ours"]), values(rounds))
        for way, result in results.items()
        for name, rounds in result.items()
        if name != "ours"
    }


def padded_jpeg(size: int) -> bytes:
    """A frame of the demo as a JPEG of exactly so many bytes (zeros behind its end; readers ignore them)."""
    image = DemoScene().render(0)
    fitting = (jpeg for quality in range(95, 10, -5) if len(jpeg := encode_jpeg(image, quality)) <= size)
    return next(fitting).ljust(size, b"\0")


def _frames(jpeg: bytes, number: int, records: int) -> Iterator[Frame]:
    """Frames of several cameras in turn, taken now."""
    now_ns = time.time_ns()
    for index in range(records):
        source_id = f"camera-{index % CAMERAS}"
        frame_id = make_frame_id(source_id, number, index)
        yield Frame(FrameInfo(source_id, frame_id, now_ns + index, 1280, 720, live=True), Picture.from_encoded(jpeg))


def _wait_until(condition: Callable[[], object], what: str) -> None:
    deadline_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"{what} did not come within {PATIENCE_S:.0f} s")


def measure_index(batches: int) -> dict[str, Any]:
    """Fill both stores one after the other; each is alone on the machine while it is filled."""
    frames_a_batch = IndexerSettings().batch
    figures: dict[str, Any] = {
        "frames_a_batch": frames_a_batch,
        "regions_a_frame": REGIONS_A_FRAME,
        "batches": batches,
    }
    with (
        tempfile.TemporaryDirectory(prefix="ocrstream-index-") as folder,
        contextlib.closing(EmbeddedStore(folder)) as embedded,
    ):
        figures["sqlite"] = _fill(embedded, batches, frames_a_batch)
    server = ElasticsearchServer()
    try:
        server.start()
        with contextlib.closing(ElasticStore(ElasticsearchSettings(url=server.url))) as elastic:
            figures["elasticsearch"] = _fill(elastic, batches, frames_a_batch)
    finally:
        server.close()
    return figures


def _fill(store: DocumentStore, batches: int, frames_a_batch: int) -> dict[str, Any]:
    store.check()
    hall = Hall()
    times: list[Took] = []
    appearances = 0
    for _ in range(batches):
        # Made outside the clock: the recogniser stage does that, not the store.
        batch = [hall.next_frame() for _ in range(frames_a_batch)]
        appearances += sum(len(texts.appearances) for texts in batch)
        times.append(Took.by(partial(_write, store, batch)))
    frames = batches * frames_a_batch
    _verify(store, frames, hall.needles)
    regions = frames * REGIONS_A_FRAME
    times_ms = [took.wall_s * 1000 for took in times]
    seconds = sum(times_ms) / 1000
    return {
        "regions": regions,
        "appearances": appearances,
        "frames_per_s": round(frames / seconds),
        "regions_per_s": round(regions / seconds),
        "regions_per_own_cpu_s": round(regions / sum(took.cpu_s for took in times)),
        "batch_ms": percentiles(times_ms, (50, 99)),
        "regions_per_s_of_a_batch": {
            "p50": round(frames_a_batch * REGIONS_A_FRAME / (float(np.percentile(times_ms, 50)) / 1000)),
            "p1": round(frames_a_batch * REGIONS_A_FRAME / (float(np.percentile(times_ms, 99)) / 1000)),
        },
        "verified": f"{frames} frames, {regions} regions, {hall.needles} hits of {NEEDLE!r}",
    }


def _write(store: DocumentStore, batch: Sequence[Texts]) -> None:
    report = store.write(batch)
    if report.written != len(batch):
        raise RuntimeError(f"only {report.written} of {len(batch)} frames were stored: {report}")


def _verify(store: DocumentStore, frames: int, needles: int) -> None:
    """See that everything written is there and found.

    Raises:
        RuntimeError: it is not.
    """
    query, everything = parse(NEEDLE), Filter()
    pause, deadline_s = threading.Event(), time.monotonic() + PATIENCE_S
    # A store may take a second until what it holds is visible.
    while (hits := store.search(query, everything, limit=1).total) < needles and time.monotonic() < deadline_s:
        pause.wait(0.1)
    counted = [len(texts.lines) for texts in store.scan(everything)]
    if (len(counted), sum(counted), hits) != (frames, frames * REGIONS_A_FRAME, needles):
        raise RuntimeError(
            f"{len(counted)} frames, {sum(counted)} regions and {hits} hits are stored instead of {frames}, "
            f"{frames * REGIONS_A_FRAME} and {needles}"
        )


class Hall:
    """Signs in front of four cameras, ten in view at a time: frames as the recogniser stage hands them on."""

    SOURCES = 4
    NEEDLE_EVERY = 50

    def __init__(self, seed: int = 1) -> None:
        self._random = random.Random(seed)
        self._ballot = Ballot()
        self._count = 0
        self._signs: dict[str, str] = {}
        self.needles = 0

    def next_frame(self) -> Texts:
        """The next frame, of the next camera."""
        number, camera = divmod(self._count, self.SOURCES)
        self._count += 1
        source_id = f"hall-{camera}"
        at_ns = BEGAN_NS + number * FRAME_INTERVAL_NS
        info = FrameInfo(source_id, make_frame_id(source_id, at_ns), at_ns, 1280, 720, live=True)
        lines = tuple(self._line(source_id, number, place) for place in range(REGIONS_A_FRAME))
        if self._count % self.NEEDLE_EVERY == 0:
            # One reading of one frame: so many frames hold the word, and no other does.
            lines = (*lines[:-1], Text(lines[-1].region, f"{NEEDLE} {number}", lines[-1].confidence))
            self.needles += 1
        return Texts(info, ENGINE, ENGINE, lines, self._ballot.count(info, lines))

    def _line(self, source_id: str, number: int, place: int) -> Text:
        # Signs change one after the other, not all ten in the same frame.
        turn = (number + place * VISIBLE_FRAMES // REGIONS_A_FRAME) // VISIBLE_FRAMES
        track_id = f"{make_frame_id(source_id, turn)}-{place:03d}"
        if track_id not in self._signs:
            words = self._random.choices(WORDS, k=self._random.randint(1, 4))
            self._signs[track_id] = " ".join([*words, f"{self._random.choice('ABCDEF')}{self._random.randint(1, 99)}"])
        left, top = 60.0 + self._random.gauss(0, 1), 40.0 + 66 * place + self._random.gauss(0, 1)
        polygon = box_polygon(left, top, left + 14.5 * len(self._signs[track_id]), top + 41.25)
        score, confidence = (round(self._random.uniform(0.6, 0.99), 4) for _ in range(2))
        return Text(Region(place, polygon, score, track_id), self._signs[track_id], confidence)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.throughput",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=("frames", "index"))
    parser.add_argument("--records", type=int, default=2000, help="frames: records a round (default: 2000)")
    parser.add_argument("--rounds", type=int, default=9, help="frames: rounds after the first (default: 9)")
    parser.add_argument("--batches", type=int, default=100, help="index: batches into each store (default: 100)")
    add_save_flag(parser)
    options = parser.parse_args(arguments)
    circumstances = environment("ocrstream", "kafka-python", "crc32c", "elasticsearch", "numpy")
    if options.what == "frames":
        figures = measure_frames(options.records, options.rounds)
    else:
        figures = measure_index(options.batches)
    conclude(f"throughput-{options.what}", circumstances, figures, save=options.save)


if __name__ == "__main__":
    main()
