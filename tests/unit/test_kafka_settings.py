"""How the settings of section [kafka] become properties of kafka-python."""

from pathlib import Path
from typing import Any

import pytest

from ocrstream.config import KafkaSettings
from ocrstream.errors import ConfigError, DeploymentError
from ocrstream.transport.kafka import KafkaTransport
from ocrstream.transport.kafka.connection import Cluster, parse_properties


def connection(**settings: Any) -> dict[str, Any]:
    return Cluster(KafkaSettings(servers="a:9092, b:9093", **settings))._common


def test_several_servers() -> None:
    assert connection()["bootstrap_servers"] == ["a:9092", "b:9093"]
    assert connection()["security_protocol"] == "PLAINTEXT"


def test_tls_with_a_certificate_authority(tmp_path: Path) -> None:
    authority = tmp_path / "ca.pem"
    authority.write_text("-")
    configs = connection(security_protocol="SSL", ca_file=str(authority))
    assert (configs["security_protocol"], configs["ssl_cafile"]) == ("SSL", str(authority))


def test_sasl_over_tls_hides_the_password() -> None:
    configs = connection(security_protocol="SASL_SSL", sasl_mechanism="SCRAM-SHA-512", username="u", password="p4ss")
    assert (configs["sasl_mechanism"], configs["sasl_plain_username"]) == ("SCRAM-SHA-512", "u")
    assert configs["sasl_plain_password"] == "p4ss"
    assert configs["sasl_plain_password"].encode() == b"p4ss"
    assert "p4ss" not in repr(configs)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ca_file": "/nowhere"}, "needs security_protocol SSL or SASL_SSL, not PLAINTEXT"),
        ({"ca_file": "/nowhere", "security_protocol": "SSL"}, "there is no file /nowhere"),
        ({"username": "u"}, "a SASL user needs security_protocol SASL_SSL or SASL_PLAINTEXT, not PLAINTEXT"),
        ({"security_protocol": "SASL_SSL"}, "security_protocol SASL_SSL needs sasl_mechanism"),
        (
            {"security_protocol": "SASL_SSL", "sasl_mechanism": "PLAIN", "username": "u"},
            "PLAIN needs username in section [kafka] and its password in OCRSTREAM_KAFKA_PASSWORD",
        ),
        ({"properties": "linger"}, "should be NAME=VALUE"),
    ],
)
def test_contradictions_are_told(settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        connection(**settings)
    assert message in str(caught.value)


def test_no_address_is_told() -> None:
    with pytest.raises(ConfigError, match="--kafka HOST:PORT or OCRSTREAM_KAFKA_SERVERS"):
        KafkaTransport(KafkaSettings())


def test_properties_get_the_types_kafka_python_expects() -> None:
    text = "linger_ms=5, check_crcs=false,ssl_certfile=/a=b.pem,api_version=3.5,receive_buffer_bytes=65536,retries=3"
    assert parse_properties(text) == {
        "linger_ms": 5,
        "check_crcs": False,
        "ssl_certfile": "/a=b.pem",
        "api_version": (3, 5),
        "receive_buffer_bytes": 65536,
        "retries": 3,
    }
    assert parse_properties("") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lingerms=5", "unknown Kafka property 'lingerms'; did you mean 'linger_ms'?"),
        ("linger_ms=soon", "the Kafka property 'linger_ms' should be a number"),
        ("check_crcs=maybe", "the Kafka property 'check_crcs' should be true or false"),
        ("group_id=mine", "the Kafka property 'group_id' is set by ocrstream itself"),
        ("sasl_plain_password=s3cret", "the Kafka property 'sasl_plain_password' is set by ocrstream itself"),
        ("partitioner=mine", "the Kafka property 'partitioner' cannot be written as text"),
        ("s3cret", "should be NAME=VALUE"),
    ],
)
def test_wrong_properties_are_named_and_values_never_shown(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_properties(text)
    assert message in str(caught.value)
    assert "s3cret" not in str(caught.value)


def test_a_password_among_the_properties_does_not_show() -> None:
    assert "s3cret" not in repr(parse_properties("ssl_password=s3cret"))


def test_crc32c_has_to_be_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DeploymentError, match=r"pip install 'kafka-python\[crc32c\]'"):
        KafkaTransport(KafkaSettings(servers="a:9092"))
