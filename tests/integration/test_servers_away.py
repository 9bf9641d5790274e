"""Kafka, Elasticsearch and disks that go away and come back, and records that nobody should have written."""

from __future__ import annotations

import json
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocrstream.config import KafkaSettings
from ocrstream.errors import MalformedRecordError
from ocrstream.geometry import box_polygon
from ocrstream.messages import (
    CROPS,
    DEAD_LETTERS,
    FRAMES,
    MESSAGE_OF_TOPIC,
    REPLAY,
    TEXTS,
    Crop,
    Crops,
    DeadLetter,
    EngineInfo,
    Frame,
    FrameInfo,
    Message,
    RawRecord,
    Region,
    Text,
    Texts,
)
from ocrstream.picture import Picture
from ocrstream.transport import Delivery
from ocrstream.transport.kafka import KafkaTransport
from ocrstream.wire import META_HEADER, SCHEMA_HEADER, encode
from tests.e2e.commands import PATIENCE_S, ocrstream, running, until
from tests.e2e.test_distributed import Deployment
from tests.e2e.test_embedded import pictures
from tests.e2e.videos import write_video
from tests.services import free_port
from tests.services.elasticsearch import ElasticsearchServer
from tests.services.kafka import KafkaServer

ENGINE = EngineInfo("stranger", "0")
PICTURE = Picture.from_array(np.full((36, 64, 3), 230, np.uint8))
REGION = Region(0, box_polygon(1.0, 2.0, 9.0, 8.0), 0.5)


def info(frame_id: str, **fields: Any) -> FrameInfo:
    return FrameInfo("stranger", frame_id, 1_767_268_800 * 10**9, 64, 36, live=False, **fields)


def good(frame_id: str) -> dict[str, Message]:
    """A message for each topic that the stages can process."""
    at = info(frame_id)
    frame = Frame(at, PICTURE)
    return {
        FRAMES: frame,
        REPLAY: replace(frame, info=replace(at, frame_id=f"{frame_id}replay")),
        CROPS: Crops(replace(at, frame_id=f"{frame_id}crops"), ENGINE, (Crop(REGION, (PICTURE,)),)),
        TEXTS: Texts(replace(at, frame_id=f"{frame_id}texts"), ENGINE, ENGINE, (Text(REGION, "landed", 0.9),)),
    }


def with_meta(message: Message, **changes: Any) -> RawRecord:
    """The record of a message with other metadata; ``frame__live`` reaches inside."""
    record = encode(message)
    meta = json.loads(record.headers.get(META_HEADER, record.value))
    for name, value in changes.items():
        *outer, last = name.split("__")
        target = meta
        for part in outer:
            target = target[int(part) if part.isdigit() else part]
        target[last] = value
    content = json.dumps(meta).encode()
    if META_HEADER in record.headers:
        return replace(record, headers={**record.headers, META_HEADER: content})
    return replace(record, value=content)


def junk() -> Iterator[RawRecord]:
    """Records that are wrong in every topic."""
    schemas = ("frame/1", "crops/1", "texts/1", "dead-letter/1")
    yield RawRecord("k", b"", {}, 0)
    yield RawRecord("k\ufffd", b"\x00\xff" * 100, {"other": b"\xff"}, 0)
    yield RawRecord("", b"{}", {SCHEMA_HEADER: b"frame/2", META_HEADER: b"{}"}, 0)
    yield RawRecord("k", b"", {SCHEMA_HEADER: b"x" * 300_000}, 0)
    for schema in schemas:
        yield RawRecord("k", b"", {SCHEMA_HEADER: schema.encode()}, 0)
        for meta in (b"{", b"[]", b"{}", b"\xff", b"[" * 100_000, b"[" * 990 + b"]" * 990, b"1" * 5000):
            yield RawRecord("k", meta, {SCHEMA_HEADER: schema.encode(), META_HEADER: meta}, 0)


def poison() -> dict[str, list[RawRecord]]:
    """For each topic records that are nearly right."""
    messages = good("poison")
    frame, crops, texts = messages[FRAMES], messages[CROPS], messages[TEXTS]
    assert isinstance(frame, Frame)
    whole = encode(frame)
    frames = [
        with_meta(frame, width_px=-1),
        with_meta(frame, height_px=20_000),
        with_meta(frame, captured_at_ns=-5),
        with_meta(frame, captured_at_ns=float("nan")),
        with_meta(frame, media_time_ms=float("nan")),
        with_meta(frame, media_time_ms=10**400),
        with_meta(frame, live="yes"),
        with_meta(frame, source_id="x" * 10_000),
        with_meta(frame, detector="psychic"),
        with_meta(frame, path="x" * 1_000_000),
        replace(whole, value=whole.value[: len(whole.value) // 2]),
        replace(whole, value=b""),
    ]
    cut = encode(crops)
    return {
        FRAMES: frames,
        REPLAY: frames,
        CROPS: [
            with_meta(crops, crops__0__bytes=10**9),
            with_meta(crops, crops__0__bytes=-1),
            with_meta(crops, crops__0__polygon=[[float("nan"), 0]] * 4),
            with_meta(crops, crops__0__polygon=[[10**400, 0]] * 4),
            with_meta(crops, crops__0__detector_score=float("inf")),
            with_meta(crops, frame__recognizer="psychic"),
            replace(cut, value=cut.value[:-20]),
            replace(cut, value=b"\x00" * len(cut.value)),
        ],
        TEXTS: [
            with_meta(texts, lines__0__confidence=float("nan")),
            with_meta(texts, lines__0__text=["a", "list"]),
            with_meta(texts, lines__0__line_number=2**63 - 1),
            with_meta(texts, lines__0__polygon=[[1e300, 1e300]] * 4),
            with_meta(texts, appearances=[{}]),
            with_meta(texts, frame__generation=10**30),
        ],
    }


@pytest.fixture
def deployment(kafka_servers: str, elasticsearch_url: str) -> Iterator[Deployment]:
    with ExitStack() as stack:
        yield Deployment(kafka_servers, elasticsearch_url, stack)


def stray(topic: str) -> Iterator[RawRecord]:
    """Records that belong into other topics."""
    letter = DeadLetter(topic, 0, 0, "nobody", "why not", "", RawRecord("k", b"", {}, 0))
    for other, message in {**good("stray"), DEAD_LETTERS: letter}.items():
        if MESSAGE_OF_TOPIC[other] is not MESSAGE_OF_TOPIC[topic]:
            yield encode(message)


def test_records_nobody_should_have_written_are_set_aside_one_by_one(deployment: Deployment) -> None:
    stages = deployment.start_stages()
    bad = {topic: [*junk(), *stray(topic), *records] for topic, records in poison().items()}
    prefix = deployment.environment["OCRSTREAM_KAFKA_TOPIC_PREFIX"]
    with closing(KafkaTransport(KafkaSettings(servers=deployment.kafka[1], topic_prefix=prefix))) as transport:
        for topic, message in good("before").items():
            transport.publish(topic, message)
        for topic, records in {**bad, DEAD_LETTERS: [*junk(), *stray(DEAD_LETTERS)]}.items():
            for record in records:
                transport.publish(topic, record)
        for topic, message in good("after").items():
            transport.publish(topic, message)
        transport.flush()

        def letters() -> list[DeadLetter]:
            return [opened for d in transport.read(DEAD_LETTERS, None, None) if (opened := opened_letter(d))]

        total = sum(len(records) for records in bad.values())
        until(lambda: len(letters()) >= total, f"{total} dead letters")
        expected_frames = {f"{when}{what}" for when in ("before", "after") for what in ("", "replay", "crops", "texts")}
        until(lambda: deployment.frame_ids() == expected_frames, "the good frames")
        found = letters()
    counts = Counter(letter.topic for letter in found)
    # The frame with the endless path goes a long way, to Elasticsearch, which refuses it.
    assert counts == {
        FRAMES: len(bad[FRAMES]) - 1,
        REPLAY: len(bad[REPLAY]) - 1,
        CROPS: len(bad[CROPS]),
        TEXTS: len(bad[TEXTS]) + 2,
    }
    for stage in stages:
        said = stage.end(signal.SIGTERM)
        assert "Traceback" not in said
        assert "unexpected failure" not in said
    listed = ocrstream("dead-letters", *deployment.kafka, environment=deployment.environment)
    assert f"{total} dead letters." in listed.stderr
    assert "is no dead letter" in listed.stderr
    again = ocrstream("replay", *deployment.kafka, environment=deployment.environment)
    assert "left out" in again.stderr
    assert "4 frames sent to be read again" in again.stderr


def opened_letter(delivery: Delivery) -> DeadLetter | None:
    try:
        message = delivery.open()
    except MalformedRecordError:
        return None
    return message if isinstance(message, DeadLetter) else None


def test_files_arrive_whole_though_the_servers_go_away_and_come_back(
    kafka_server: KafkaServer, elasticsearch_server: ElasticsearchServer, tmp_path: Path
) -> None:
    clip, long_clip = tmp_path / "clip.mkv", tmp_path / "long.mkv"
    write_video(clip, pictures(20), fps=25)
    write_video(long_clip, pictures(1500), fps=25)
    with ExitStack() as stack:
        deployment = Deployment(kafka_server.servers, elasticsearch_server.url, stack)
        producer = deployment.begin("produce", f"first={clip}", *deployment.kafka)
        stages = [
            deployment.begin("detect", *deployment.kafka, "--detector", "blocks", "--read", "all"),
            deployment.begin("recognize", *deployment.kafka, "--recognizer", "plain"),
            deployment.begin("index", *deployment.kafka, *deployment.elasticsearch),
        ]
        for process in (producer, *stages):
            process.say("Check that a broker runs at that address")
            process.say("trying again in 1 s")
        kafka_server.start()
        until(lambda: len(deployment.regions()) == 30, "the first file")
        assert producer.process.wait(PATIENCE_S) == 0

        elasticsearch_server.kill()
        assert "20 frames sent" in deployment.produce(f"second={clip}")
        stages[-1].say("does not answer")
        stages[-1].say("nothing is lost")
        elasticsearch_server.start()
        until(lambda: len(deployment.regions()) == 60, "the second file")

        producer = deployment.begin("produce", f"third={long_clip}", *deployment.kafka)
        until(lambda: len(deployment.regions()) > 60, "some of the third file")
        kafka_server.kill()
        kafka_server.start()
        assert producer.process.wait(PATIENCE_S) == 0
        until(lambda: len(deployment.regions()) == 60 + 2250, "the third file")
        found = Counter((r["source"], r["text"]) for r in deployment.regions())
        assert found == Counter(
            (name, text)
            for name, count in (("first", 20), ("second", 20), ("third", 1500))
            for text in [f"number {number:03d}" for number in range(count)] + ["Gate B12"] * (count // 2)
        )

        kafka_server.kill()
        elasticsearch_server.kill()
        for process in stages:
            assert "Traceback" not in process.end(signal.SIGINT)


def test_waiting_for_a_server_at_the_start_ends_when_asked(kafka_servers: str, topic_prefix: str) -> None:
    nobody, prefix = f"127.0.0.1:{free_port()}", {"OCRSTREAM_KAFKA_TOPIC_PREFIX": topic_prefix}
    with (
        running("detect", "--detector", "blocks", "--kafka", nobody) as detect,
        running("index", "--kafka", kafka_servers, "--elasticsearch", f"http://{nobody}", **prefix) as index,
    ):
        index.say(f"Elasticsearch at http://{nobody} does not answer")
        assert "stopped before everything was there" in index.end(signal.SIGTERM, expect=3)
        detect.say("trying again in 1 s")
        assert "stopped before everything was there" in detect.end(signal.SIGINT, expect=3)


def test_a_login_that_the_broker_does_not_take_is_told_in_one_line(kafka_servers: str) -> None:
    login = {
        "OCRSTREAM_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT",
        "OCRSTREAM_KAFKA_SASL_MECHANISM": "PLAIN",
        "OCRSTREAM_KAFKA_USERNAME": "somebody",
        "OCRSTREAM_KAFKA_PASSWORD": "open-barley",
    }
    with running("detect", "--detector", "blocks", "--kafka", kafka_servers, **login) as detect:
        detect.say("and username, password, sasl_mechanism and security_protocol in section [kafka]")
        said = detect.end(signal.SIGTERM, expect=3)
    assert "open-barley" not in said
    assert len(said.splitlines()) == 2, said


def test_a_topic_that_takes_too_little_ends_every_stage_with_what_to_do(deployment: Deployment) -> None:
    deployment.environment["OCRSTREAM_KAFKA_MAX_MESSAGE_MB"] = "1"
    deployment.ask("dead-letters", *deployment.kafka)
    deployment.environment["OCRSTREAM_KAFKA_MAX_MESSAGE_MB"] = "2"
    for command in (["produce", "demo:"], ["detect", "--detector", "blocks"]):
        said = ocrstream(*command, *deployment.kafka, environment=deployment.environment, expect=2).stderr
        assert "takes only records of at most 1000000 bytes" in said
        assert "--add-config max.message.bytes=2000000" in said


class Answering(BaseHTTPRequestHandler):
    """A server that is something else than it should be."""

    status = 200
    body: Mapping[str, Any] = {}

    def do_GET(self) -> None:
        content = json.dumps(self.body).encode()
        self.send_response(self.status)
        for name, value in (
            ("X-Elastic-Product", "Elasticsearch"),
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
        ):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""


@pytest.mark.parametrize(
    ("status", "body", "message"),
    [
        (200, {"version": {"number": "7.17.9"}}, "is version 7.17.9; this program works with version 8"),
        (200, {"version": {"number": "9.1.0"}}, "is version 9.1.0; this program works with version 8"),
        (200, {"hello": "world"}, "is not Elasticsearch 8"),
        (401, {"error": "no"}, "refuses the credentials: set OCRSTREAM_ELASTICSEARCH_USERNAME"),
        (403, {"error": {"reason": "not yours"}}, "give the user the cluster privileges"),
    ],
)
def test_an_elasticsearch_that_cannot_be_used_is_explained(status: int, body: dict[str, Any], message: str) -> None:
    handler = type("Handler", (Answering,), {"status": status, "body": body})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            said = ocrstream(
                "search", "x", "--elasticsearch", f"http://127.0.0.1:{server.server_port}", expect=2
            ).stderr
        finally:
            server.shutdown()
            thread.join()
    assert message in said
    assert len(said.splitlines()) == 1
