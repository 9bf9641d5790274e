"""The names of kafka-python that `ocrstream.transport.kafka.internals` relies on are there in the installed version.

Where one of these fails after an update: read the entry in that module's docstring, and find what the new version
has in its place. No broker is needed: a client that is told the broker's version does not wait for its first answer.
"""

from __future__ import annotations

import importlib
import inspect
import logging
import socket
from collections.abc import Iterator
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import kafka
import pytest
from kafka.errors import KafkaConnectionError
from kafka.future import Future
from kafka.net.connection import KafkaConnection
from kafka.net.manager import KafkaConnectionManager
from kafka.producer.future import FutureRecordMetadata

from ocrstream.transport.kafka.internals import (
    WIRE_LOGGERS,
    Network,
    abandon,
    hide_credentials_on_the_wire,
    options_of,
    rejoin,
)

CLIENTS = (kafka.KafkaAdminClient, kafka.KafkaConsumer, kafka.KafkaProducer)


@pytest.fixture
def configs() -> Iterator[dict[str, Any]]:
    """How to reach somebody who accepts connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield {"bootstrap_servers": f"127.0.0.1:{listening.getsockname()[1]}", "api_version": (3, 5)}


@pytest.fixture
def consumer(configs: dict[str, Any]) -> Iterator[Any]:
    client = kafka.KafkaConsumer(group_id="g", **configs)
    yield client
    client.close(autocommit=False, timeout_ms=0)


@pytest.fixture
def producer(configs: dict[str, Any]) -> Iterator[Any]:
    client = kafka.KafkaProducer(**configs)
    yield client
    client.close(timeout=1)


def needs(thing: Any, name: str) -> Any:
    """The attribute, or a failure that says where to look."""
    try:
        return attrgetter(name)(thing)
    except AttributeError as error:
        pytest.fail(
            f"kafka-python {kafka.__version__} no longer has {name} ({error}); "
            "see ocrstream/transport/kafka/internals.py for what it was for"
        )


@pytest.mark.parametrize("client", CLIENTS)
def test_each_client_lists_its_options_and_takes_a_network(client: Any) -> None:
    needs(client, "DEFAULT_CONFIG")
    assert {"bootstrap_servers", "request_timeout_ms", "kafka_client"} <= set(options_of(client))


def test_a_network_notes_why_connections_fail(configs: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    needs(KafkaConnectionManager, "get_connection")
    needs(KafkaConnection, "init_future")
    needs(Future, "add_errback")
    # Not a real one: kafka-python leaves the socket of a connection that ends halfway to the garbage collector.
    connection = SimpleNamespace(init_future=Future())
    monkeypatch.setattr(KafkaConnectionManager, "get_connection", lambda self, node_id: connection)
    network = Network()
    assert needs(network(**configs), "_manager.get_connection")("bootstrap-0") is connection
    hung_up = KafkaConnectionError("hung up")
    connection.init_future.failure(hung_up)
    assert network.failures == [hung_up]
    network.close()


def test_a_client_uses_the_network_it_is_given(configs: dict[str, Any]) -> None:
    network = Network()
    client = kafka.KafkaProducer(kafka_client=network, **configs)
    assert len(network._opened) == 1
    client.close(timeout=1)


def test_a_consumer_says_whether_it_has_to_join_and_can_be_made_to(consumer: Any) -> None:
    consumer.subscribe(["t"])
    assert needs(consumer, "_coordinator.need_rejoin")() is True
    assert "timeout_ms" in inspect.signature(needs(consumer, "_coordinator.poll")).parameters
    assert needs(consumer, "_coordinator._join_task") is None
    needs(consumer, "_coordinator.request_rejoin")()
    rejoin(consumer, timeout_s=0)


def test_a_producer_can_be_made_to_give_up(producer: Any) -> None:
    needs(producer, "_sender.force_close")
    assert producer._sender.is_alive()
    abandon(producer)
    producer._sender.join(10)
    assert not producer._sender.is_alive()


@pytest.mark.parametrize("name", ["add_both", "succeeded", "is_done"])
def test_what_send_returns_has(name: str) -> None:
    needs(FutureRecordMetadata, name)


@pytest.mark.parametrize("name", WIRE_LOGGERS)
def test_what_travels_is_logged_where_it_is_hidden(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    logger = needs(importlib.import_module(name), "log")
    assert logger is logging.getLogger(name)
    monkeypatch.setattr(logger, "filters", [])
    hide_credentials_on_the_wire()
    hide_credentials_on_the_wire()
    assert logger.level == logging.NOTSET, "it follows the levels above it"
    with caplog.at_level(logging.DEBUG, name):
        logger.debug("the password is open-sesame")
        logger.info("connected")
    assert caplog.messages == ["connected"]
