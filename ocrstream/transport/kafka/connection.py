"""The way to the cluster: properties, TLS, SASL, no password in a log, errors told so that they help.

Settings are checked when a `Cluster` is made, before the first connection.
"""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka import errors as kafka_errors

from ocrstream.config import KafkaSettings, variable_of
from ocrstream.errors import ConfigError, DeploymentError, TransportError
from ocrstream.transport.kafka.internals import Network, hide_credentials_on_the_wire, options_of

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 15.0

REFUSED = (
    kafka_errors.SaslAuthenticationFailedError,
    kafka_errors.AuthorizationError,
)

OWN_PROPERTIES = frozenset(
    {
        "allow_auto_create_topics",
        "auto_offset_reset",
        "bootstrap_servers",
        "enable_auto_commit",
        "group_id",
        "max_request_size",
        "sasl_mechanism",
        "sasl_plain_password",
        "sasl_plain_username",
        "security_protocol",
        "ssl_cafile",
    }
)
"""Properties that have a setting of their own, or that this package's promises rest on."""


class Cluster:
    """Where the cluster is and how to connect to it; opens kafka-python's clients and translates their errors.

    Attributes:
        servers: the addresses, as the settings have them.
        closed: the transport was closed; see `check_open`.
    """

    def __init__(self, settings: KafkaSettings) -> None:
        if not settings.servers:
            raise ConfigError(f"no Kafka address is given; use --kafka HOST:PORT or {variable_of('kafka', 'servers')}")
        self.servers = settings.servers
        self.closed = False
        self._common = {
            "bootstrap_servers": [server.strip() for server in settings.servers.split(",") if server.strip()],
            "client_id": "ocrstream",
            "bootstrap_timeout_ms": int(CONNECT_TIMEOUT_S * 1000),
            "request_timeout_ms": int(REQUEST_TIMEOUT_S * 1000),
            "reconnect_backoff_max_ms": 2000,
            "allow_auto_create_topics": False,
            "metrics_enabled": False,
            **_security(settings),
        }
        self._extra = parse_properties(settings.properties)
        # A broker that refuses a password hangs up, and kafka-python does not always read why before that.
        login = "username, password, sasl_mechanism and " if "SASL" in settings.security_protocol else ""
        self._to_check = f"{login}security_protocol in section [kafka]"

    def open(self, client: Any, **configs: Any) -> Any:
        """A client of kafka-python, connected within `CONNECT_TIMEOUT_S`.

        Raises:
            ConfigError: a property has a value that does not fit.
            DeploymentError: the broker refuses this client.
            TransportError: no broker answers.
        """
        network = Network()
        merged = {**self._common, **configs, **self._extra, "kafka_client": network}
        known = {name: value for name, value in merged.items() if name in options_of(client)}
        try:
            with self.translated("connecting"):
                try:
                    return _construct(client, known)
                except kafka_errors.KafkaTimeoutError as error:
                    refused = [failure for failure in network.failures if isinstance(failure, REFUSED)]
                    raise next(iter(refused + network.failures), error) from error
        except BaseException:
            network.close()
            raise

    def check_open(self) -> None:
        """Raise a `TransportError` once the transport is closed."""
        if self.closed:
            raise TransportError("the Kafka transport was closed")

    @contextmanager
    def translated(self, doing: str) -> Iterator[None]:
        """Turn kafka-python's errors into this program's, with the address and what to check."""
        try:
            yield
        except REFUSED as error:
            raise DeploymentError(
                f"Kafka at {self.servers} refuses this client ({doing}): {_describe(error)}. Check username, "
                "password, sasl_mechanism and security_protocol in section [kafka], and the user's rights there."
            ) from error
        except (kafka_errors.KafkaError, OSError) as error:
            raise TransportError(
                f"Kafka at {self.servers} cannot be used ({doing}): {_describe(error)}. Check that a broker runs "
                f"at that address, that its advertised.listeners can be reached from here, and {self._to_check}."
            ) from error


def _construct(client: Any, configs: Mapping[str, Any]) -> Any:
    try:
        return client(**configs)
    except (kafka_errors.KafkaConfigurationError, ValueError, TypeError) as error:
        raise ConfigError(f"a property of section [kafka] does not fit: {error}") from error


def parse_properties(text: str) -> dict[str, Any]:
    """Properties of kafka-python from ``NAME=VALUE,NAME=VALUE``, as the types that it expects.

    Raises:
        ConfigError: not of that form, or not a property that can be set; values are never shown, as some are secret.
    """
    clients = (KafkaAdminClient, KafkaConsumer, KafkaProducer)
    known = {name: value for client in clients for name, value in options_of(client).items()}
    properties: dict[str, Any] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (part.strip() for part in item.partition("="))
        if not equals:
            raise ConfigError("properties in section [kafka] should be NAME=VALUE with commas between them")
        if name in OWN_PROPERTIES:
            raise ConfigError(f"the Kafka property {name!r} is set by ocrstream itself; see docs/configuration.md")
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ConfigError(f"unknown Kafka property {name!r}{hint}")
        properties[name] = _property_value(name, value, known[name])
    return properties


def _property_value(name: str, text: str, default: Any) -> Any:
    """The text as the type of the property's default."""
    try:
        if isinstance(default, bool):
            return {"true": True, "false": False}[text.lower()]
        if name == "api_version":
            return tuple(int(part) for part in text.split("."))
        if isinstance(default, (int, float)) or name.endswith(("_bytes", "_ms")):
            return int(text)
    except (KeyError, ValueError):
        kind = "true or false" if isinstance(default, bool) else "a number"
        raise ConfigError(f"the Kafka property {name!r} should be {kind}") from None
    if default is None or isinstance(default, str):
        return _Password(text) if "password" in name else text
    raise ConfigError(f"the Kafka property {name!r} cannot be written as text")


class _Password(str):
    """A password that does not show where kafka-python logs its configuration."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


def _security(settings: KafkaSettings) -> dict[str, Any]:
    protocol = settings.security_protocol
    configs: dict[str, Any] = {"security_protocol": protocol}
    if settings.ca_file:
        if "SSL" not in protocol:
            raise ConfigError(f"ca_file in section [kafka] needs security_protocol SSL or SASL_SSL, not {protocol}")
        if not Path(settings.ca_file).is_file():
            raise ConfigError(f"ca_file in section [kafka]: there is no file {settings.ca_file}")
        configs["ssl_cafile"] = settings.ca_file
    if "SASL" not in protocol:
        if settings.username or settings.sasl_mechanism:
            raise ConfigError(f"a SASL user needs security_protocol SASL_SSL or SASL_PLAINTEXT, not {protocol}")
        return configs
    if not settings.sasl_mechanism:
        raise ConfigError(f"security_protocol {protocol} needs sasl_mechanism in section [kafka]")
    configs["sasl_mechanism"] = settings.sasl_mechanism
    hide_credentials_on_the_wire()
    if settings.sasl_mechanism == "PLAIN" or settings.sasl_mechanism.startswith("SCRAM"):
        if not settings.username or not settings.password:
            raise ConfigError(
                f"sasl_mechanism {settings.sasl_mechanism} needs username in section [kafka] and its password in "
                f"{variable_of('kafka', 'password')}"
            )
        configs["sasl_plain_username"] = settings.username
        configs["sasl_plain_password"] = _Password(settings.password)
    return configs


def require_crc32c() -> None:
    """Raise a `DeploymentError` where checksums would be computed in Python."""
    if importlib.util.find_spec("crc32c") is None:
        raise DeploymentError(
            "the package crc32c is missing: without it every 100 KB record costs kafka-python 9 ms of checksum. "
            "Install it: pip install 'kafka-python[crc32c]'"
        )


def _describe(error: Exception) -> str:
    if isinstance(error, kafka_errors.KafkaTimeoutError):
        # What it says itself is a number of seconds with fourteen digits.
        return "no answer in time"
    return str(error) or type(error).__name__
