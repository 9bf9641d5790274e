"""Everything of kafka-python that is relied upon beyond its documented interface, and why.

``tests/unit/test_kafka_internals.py`` fails, by name, where an update drops one of these:

``DEFAULT_CONFIG`` of each client (`options_of`)
    The only list of the options a client knows: it tells a mistyped property from a real one, and its type.
``kafka_client``, an option of each client, and ``kafka.net.compat.KafkaNetClient`` (`Network`)
    A constructor that fails leaves its network thread behind; only this option gives a hold on it, to close it.
``KafkaNetClient._manager.get_connection``, and ``init_future.add_errback`` of what it returns (`Network`)
    Why connections fail: kafka-python retries until its time is up, and then says only that it is.
``KafkaConsumer._coordinator.need_rejoin``, ``.request_rejoin``, ``.poll`` and ``._join_task`` (`rejoin`)
    Joins have to be waited for in one go, and one that nobody waited for has to be made good.
``KafkaProducer._sender.force_close`` (`abandon`)
    Closing without waiting for records that will never be confirmed.
``add_both``, ``succeeded`` and ``is_done`` of the future that ``KafkaProducer.send`` returns (`producing`)
    How much is under way, and whether a failure is the record's own or only the wait's.
The loggers `WIRE_LOGGERS` (`hide_credentials_on_the_wire`)
    They write what travels, passwords included.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from kafka.net.compat import KafkaNetClient

WIRE_LOGGERS = ("kafka.net.connection", "kafka.protocol.parser")


class Network:
    """The network beneath a client under construction, for its option ``kafka_client``."""

    def __init__(self) -> None:
        self.failures: list[Exception] = []
        """Why connections failed, in order."""
        self._opened: list[Any] = []

    def __call__(self, **options: Any) -> Any:
        """What the client calls to get its network."""
        network_client = KafkaNetClient(**options)
        self._opened.append(network_client)
        manager = network_client._manager
        connect = manager.get_connection

        def get_connection(*args: Any, **arguments: Any) -> Any:
            connection = connect(*args, **arguments)
            connection.init_future.add_errback(self.failures.append)
            return connection

        manager.get_connection = get_connection
        return network_client

    def close(self) -> None:
        """End the threads and sockets of a client that could not be constructed."""
        for network_client in self._opened:
            network_client.close()


def options_of(client: Any) -> Mapping[str, Any]:
    """The options that a class of clients knows, with their defaults."""
    options: Mapping[str, Any] = client.DEFAULT_CONFIG
    return options


def rejoin(consumer: Any, timeout_s: float) -> None:
    """Join the consumer's group where that is due, and wait for it.

    kafka-python 3.0 forgets a join that comes to its end while nobody is inside ``poll``, and begins another one, which
    throws the group into a rebalance again. With short polls two members can disturb each other so without end, so the
    join is waited for in one go, by the call that ``poll`` makes first of all.

    A join may still begin inside ``poll``, when news of a topic's partitions comes in there, and outlast it. Once it
    has ended, kafka-python sees no reason to look at its outcome: the member keeps the partitions it had (at its start
    none), sends no more heartbeats, and turns in circles for good. So a join under way counts as a reason.
    """
    coordinator = consumer._coordinator
    if coordinator._join_task is not None:
        coordinator.request_rejoin()
    if coordinator.need_rejoin():
        coordinator.poll(timeout_ms=timeout_s * 1000)


def abandon(producer: Any) -> None:
    """Give up what a producer has under way, so that closing it does not wait for that."""
    producer._sender.force_close()


def hide_credentials_on_the_wire() -> None:
    """Keep kafka-python from logging, at level DEBUG, every request it sends: that of SASL PLAIN is the password."""
    for name in WIRE_LOGGERS:
        # No level of their own: that would let through what the levels above them keep back.
        logging.getLogger(name).addFilter(_above_debug)


def _above_debug(record: logging.LogRecord) -> bool:
    return record.levelno > logging.DEBUG
