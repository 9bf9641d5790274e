"""What only the Kafka transport does: topics, limits, old films, brokers that are away, security."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import cv2
import numpy as np
import pytest

from ocrstream.config import KafkaSettings
from ocrstream.errors import DeploymentError, PoisonError, TransportError
from ocrstream.messages import (
    CROPS,
    DEAD_LETTERS,
    FRAMES,
    TEXTS,
    TOPICS,
    Crop,
    Crops,
    DeadLetter,
    EngineInfo,
    Frame,
    FrameInfo,
    RawRecord,
    Region,
    Text,
    Texts,
)
from ocrstream.metrics import Metrics
from ocrstream.picture import Picture
from ocrstream.transport import Consumer, Delivery
from ocrstream.transport.kafka import KafkaTransport, producing
from tests.services import free_port
from tests.services.kafka import ADDRESS_VARIABLE, KafkaServer, require_broker_files

PATIENCE_S = 60.0
INFO = FrameInfo("cam", "f", time.time_ns(), 640, 360, live=True)
POLYGON = ((0.0, 0.0), (9.0, 0.0), (9.0, 5.0), (0.0, 5.0))


@pytest.fixture
def settings(kafka_servers: str, topic_prefix: str) -> KafkaSettings:
    return KafkaSettings(servers=kafka_servers, topic_prefix=topic_prefix, partitions=2, max_message_mb=0.1)


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def transport(settings: KafkaSettings, metrics: Metrics) -> Iterator[KafkaTransport]:
    made = KafkaTransport(settings, metrics)
    made.check()
    yield made
    made.close()


def noise(width_px: int, height_px: int) -> Picture:
    """Pixels that compress badly."""
    pixels = np.random.default_rng(1).integers(0, 255, (height_px, width_px, 3), dtype=np.uint8)
    return Picture.from_array(cv2.GaussianBlur(pixels, (3, 3), 0).astype(np.uint8))


def take(consumer: Consumer, count: int) -> list[Delivery]:
    taken: list[Delivery] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(taken) < count and time.monotonic() < deadline:
        taken += consumer.poll(0.5, count - len(taken))
    assert len(taken) == count
    return taken


def until(condition: Callable[[], bool]) -> None:
    deadline, pause = time.monotonic() + PATIENCE_S, threading.Event()
    while not condition():
        assert time.monotonic() < deadline
        pause.wait(0.02)


def topic_configs(transport: KafkaTransport, topic: str) -> dict[str, str]:
    from kafka.admin import ConfigResource, ConfigResourceType

    name = transport._topics.wire(topic)
    resource = ConfigResource(ConfigResourceType.TOPIC, name)
    described = transport._admin_now().describe_configs([resource], config_filter="all")["topic"][name]
    return {key: value["value"] for key, value in described.items()}


def test_check_creates_the_topics_as_configured(transport: KafkaTransport, settings: KafkaSettings) -> None:
    described = transport._admin_now().describe_topics([transport._topics.wire(topic) for topic in TOPICS])
    assert {topic["name"]: len(topic["partitions"]) for topic in described} == {
        f"{settings.topic_prefix}{topic}": 2 for topic in TOPICS
    }
    frames, letters = topic_configs(transport, FRAMES), topic_configs(transport, DEAD_LETTERS)
    assert frames["max.message.bytes"] == "100000"
    assert frames["retention.ms"] == str(24 * 3_600_000)
    assert frames["retention.bytes"] == str(10_000_000_000)
    assert frames["message.timestamp.type"] == "CreateTime"
    assert topic_configs(transport, TEXTS)["retention.bytes"] == "-1"
    assert letters["retention.ms"] == str(14 * 86_400_000)
    assert int(letters["max.message.bytes"]) > 100_000


def test_two_processes_may_create_the_topics_at_once(settings: KafkaSettings) -> None:
    transports = [KafkaTransport(settings) for _ in range(3)]
    threads = [threading.Thread(target=transport.check) for transport in transports]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for transport in transports:
        transport.check()
        transport.close()


def test_a_topic_that_takes_too_little_is_told_with_the_command(
    transport: KafkaTransport, settings: KafkaSettings
) -> None:
    larger = KafkaTransport(replace(settings, max_message_mb=2.0))
    with pytest.raises(DeploymentError) as caught:
        larger.check()
    wire = f"{settings.topic_prefix}{FRAMES}"
    assert f"the topic {wire} takes only records of at most 100000 bytes" in str(caught.value)
    assert (
        f"kafka-configs.sh --bootstrap-server {settings.servers} --alter --entity-type topics --entity-name {wire} "
        "--add-config max.message.bytes=2000000" in str(caught.value)
    )
    larger.close()


def test_a_record_the_broker_finds_too_large_is_told_on_flush(
    transport: KafkaTransport, settings: KafkaSettings
) -> None:
    larger = KafkaTransport(replace(settings, max_message_mb=2.0))
    larger.publish(FRAMES, RawRecord("cam", b"x" * 500_000, {}, 0))
    with pytest.raises(DeploymentError, match=r"kafka-configs\.sh"):
        larger.flush()
    larger.publish(FRAMES, RawRecord("cam", b"x", {}, 0))
    larger.flush()
    larger.close()


def test_too_many_copies_are_told(settings: KafkaSettings) -> None:
    transport = KafkaTransport(replace(settings, replication=77))
    with pytest.raises(DeploymentError, match=r"does not create the topic .*replication"):
        transport.check()
    transport.close()


def test_an_oversized_frame_is_shrunk_counted_and_told_once(
    transport: KafkaTransport, metrics: Metrics, caplog: pytest.LogCaptureFixture
) -> None:
    consumer = transport.consumer([FRAMES], "g")
    with caplog.at_level(logging.WARNING, producing.log.name):
        for _ in range(2):
            transport.publish(FRAMES, Frame(INFO, noise(640, 360)))
    transport.flush()
    for delivery in take(consumer, 2):
        assert len(delivery.raw().value) < 100_000
        frame = delivery.open()
        assert isinstance(frame, Frame)
        assert (frame.info.width_px, frame.info.height_px) == (640, 360)
        width_px, height_px = frame.picture.size_wh()
        assert width_px / height_px == pytest.approx(640 / 360, rel=0.02)
    assert metrics.count("transport.shrunk", source_id="cam") == 2
    (told,) = [record.getMessage() for record in caplog.records if record.name == producing.log.name]
    assert told.startswith("cam: a record for ocr.frames has ")
    assert "max_message_mb" in told


def test_oversized_crops_are_shrunk_all_together(transport: KafkaTransport, metrics: Metrics) -> None:
    consumer = transport.consumer([CROPS], "g")
    crops = tuple(Crop(Region(number, POLYGON, 0.5), (noise(640, 96),)) for number in range(8))
    transport.publish(CROPS, Crops(INFO, EngineInfo("ppocr", "0"), crops))
    transport.flush()
    back = take(consumer, 1)[0].open()
    assert isinstance(back, Crops)
    assert [crop.region.line_number for crop in back.crops] == list(range(8))
    assert len({crop.pictures[0].size_wh() for crop in back.crops}) == 1
    assert metrics.count("transport.shrunk", source_id="cam") == 1


def test_a_frame_within_the_limit_is_untouched(transport: KafkaTransport, metrics: Metrics) -> None:
    consumer = transport.consumer([FRAMES], "g")
    picture = noise(64, 36)
    transport.publish(FRAMES, Frame(INFO, picture))
    transport.flush()
    assert take(consumer, 1)[0].raw().value == picture.encoded()
    assert metrics.count("transport.shrunk") == 0


def test_what_cannot_be_shrunk_is_told(transport: KafkaTransport) -> None:
    lines = (Text(Region(0, POLYGON, 0.5), "word " * 50_000, 0.5),)
    engine = EngineInfo("ppocr", "0")
    with pytest.raises(PoisonError, match="cannot be made to fit into 100000 bytes"):
        transport.publish(TEXTS, Texts(INFO, engine, engine, lines))


def test_a_dead_letter_always_fits(transport: KafkaTransport) -> None:
    consumer = transport.consumer([DEAD_LETTERS], "g")
    for size in (99_000, 3_000_000):
        record = RawRecord("cam", b"x" * size, {"ocr-schema": b"frame/1"}, 5)
        transport.publish(DEAD_LETTERS, DeadLetter(FRAMES, 1, 2, "detector", "why", "line\n" * 400_000, record))
    transport.flush()
    kept, cut = sorted((take(consumer, 2)), key=lambda delivery: delivery.offset)
    whole, emptied = kept.open(), cut.open()
    assert isinstance(whole, DeadLetter)
    assert isinstance(emptied, DeadLetter)
    assert len(whole.record.value) == 99_000
    assert whole.traceback.endswith("line\n")
    assert emptied.record.value == b""
    assert emptied.reason == "why (its value of 3000000 bytes was too large to be kept)"


def test_an_old_film_is_still_there_after_a_retention_check(settings: KafkaSettings) -> None:
    if os.environ.get(ADDRESS_VARIABLE):
        pytest.skip("a broker of somebody else's may look at its retention every five minutes only")
    transport = KafkaTransport(replace(settings, partitions=1, retention_hours=1.0))
    transport.check()
    years_ago_ns = time.time_ns() - 3 * 365 * 86_400 * 10**9
    transport.publish(FRAMES, Frame(replace(INFO, captured_at_ns=years_ago_ns, live=False), noise(16, 16)))
    # A record that goes out under its capture time is what gets lost: it tells when the check has run.
    doomed = transport._topics.wire(CROPS)
    transport._sender._producer_now().send(doomed, key=b"k", value=b"v", timestamp_ms=years_ago_ns // 10**6).get(10)
    transport.flush()
    wait_until_emptied(transport, doomed)
    (found,) = transport.read(FRAMES, years_ago_ns, years_ago_ns + 1)
    assert found.captured_at_ns() == years_ago_ns
    transport.close()


def wait_until_emptied(transport: KafkaTransport, wire: str) -> None:
    from kafka import TopicPartition

    place = TopicPartition(wire, 0)
    client, pause = transport._reader._fetcher_now(), threading.Event()
    deadline = time.monotonic() + PATIENCE_S
    while client.beginning_offsets([place])[place] == 0:
        assert time.monotonic() < deadline, "the broker never ran its retention check"
        pause.wait(0.2)


def test_progress_is_found_by_another_process_start(settings: KafkaSettings, transport: KafkaTransport) -> None:
    transport.save_progress("film", "frame 4711")
    transport.close()
    another = KafkaTransport(settings)
    assert another.progress("film") == "frame 4711"
    assert another.progress("other film") is None
    another.close()


def test_nobody_at_the_address_is_told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ocrstream.transport.kafka.connection.CONNECT_TIMEOUT_S", 0.5)
    address = f"127.0.0.1:{free_port()}"
    transport = KafkaTransport(KafkaSettings(servers=address))
    with pytest.raises(TransportError, match=f"Kafka at {address} cannot be used .*Check that a broker runs"):
        transport.check()
    transport.close()
    transport.close()


def test_a_topic_that_is_not_there_is_told(settings: KafkaSettings) -> None:
    transport = KafkaTransport(settings)
    with pytest.raises(TransportError, match=f"there is no topic {settings.topic_prefix}ocr.frames"):
        list(transport.read(FRAMES, None, None))
    transport.close()


def test_a_join_that_ended_while_nobody_waited_for_it_is_made_good(
    settings: KafkaSettings, transport: KafkaTransport
) -> None:
    consumer = transport.consumer([FRAMES], "group")
    until(lambda: consumer.poll(0.1, 1) == [] and len(consumer.owned()) == 2)
    coordinator = consumer._client._coordinator
    transport._admin_now().create_partitions({f"{settings.topic_prefix}{FRAMES}": 3})
    coordinator._cluster.request_update()
    until(coordinator.need_rejoin)
    # As the client itself does in a poll that has little time left when the news comes in.
    until(lambda: coordinator.poll(timeout_ms=0) is False and coordinator._join_task is not None)
    until(lambda: coordinator._join_task.is_done)
    until(lambda: consumer.poll(0.1, 1) == [] and len(consumer.owned()) == 3)
    assert coordinator._join_task is None


def test_a_broker_goes_away_and_comes_back(kafka_server: KafkaServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for room in ("connection", "consuming"):
        monkeypatch.setattr(f"ocrstream.transport.kafka.{room}.REQUEST_TIMEOUT_S", 3.0)
    kafka_server.start()
    transport = KafkaTransport(KafkaSettings(servers=kafka_server.servers, partitions=1))
    transport.check()
    consumer = transport.consumer([FRAMES], "g")
    transport.publish(FRAMES, RawRecord("cam", b"0", {}, 0))
    transport.flush()
    assert [delivery.raw().value for delivery in take(consumer, 1)] == [b"0"]

    kafka_server.kill()
    transport.publish(FRAMES, RawRecord("cam", b"1", {}, 0))
    with pytest.raises(TransportError, match=r"records for ocr\.frames were not confirmed"):
        transport.flush(timeout_s=0.5)
    with pytest.raises(TransportError):
        consumer.commit({(FRAMES, 0): 1})

    kafka_server.start()
    transport.publish(FRAMES, RawRecord("cam", b"2", {}, 0))
    transport.flush(timeout_s=PATIENCE_S)
    consumer.commit({(FRAMES, 0): 1})
    values: list[bytes] = []
    deadline = time.monotonic() + PATIENCE_S
    while values[-1:] != [b"2"] and time.monotonic() < deadline:
        values += [delivery.raw().value for delivery in consumer.poll(0.5, 10)]
    # The one that was not confirmed in time may have arrived after all: that is "at least once".
    assert values in ([b"1", b"2"], [b"2"])
    transport.close()


def test_a_password_opens_the_door_and_a_wrong_one_is_told(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_broker_files()
    login = 'org.apache.kafka.common.security.plain.PlainLoginModule required username="ocr" password="open-sesame"'
    server = KafkaServer(
        {
            "listener.security.protocol.map": "CLIENTS:SASL_PLAINTEXT,CONTROLLER:PLAINTEXT",
            "listener.name.clients.sasl.enabled.mechanisms": "PLAIN",
            "sasl.mechanism.inter.broker.protocol": "PLAIN",
            "listener.name.clients.plain.sasl.jaas.config": f'{login} user_ocr="open-sesame";',
        }
    )
    try:
        server.start()
        right = KafkaSettings(
            servers=server.servers,
            security_protocol="SASL_PLAINTEXT",
            sasl_mechanism="PLAIN",
            username="ocr",
            password="open-sesame",
            partitions=1,
        )
        with caplog.at_level(logging.DEBUG):
            transport = KafkaTransport(right)
            transport.check()
            transport.publish(FRAMES, RawRecord("cam", b"v", {}, 0))
            transport.flush()
            assert [delivery.raw().value for delivery in transport.read(FRAMES, None, None)] == [b"v"]
            transport.close()
            monkeypatch.setattr("ocrstream.transport.kafka.connection.CONNECT_TIMEOUT_S", 6.0)
            wrong = KafkaTransport(replace(right, password="open-barley"))
            # Nearly always a DeploymentError; the broker's answer is lost where it hangs up too quickly.
            with pytest.raises((DeploymentError, TransportError), match=r"Check .*username, password, sasl_mechanism"):
                wrong.check()
            wrong.close()
        assert "open-sesame" not in caplog.text
        assert "open-barley" not in caplog.text
        assert "open-sesame" not in repr(right)
    finally:
        server.close()
