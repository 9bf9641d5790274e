"""Settings: the file, the environment, the flags, in that order, and every mistake named."""

import argparse
from pathlib import Path

import pytest

from ocrstream.config import (
    Configuration,
    DetectorSettings,
    ElasticsearchSettings,
    KafkaSettings,
    ProducerSettings,
    RecognizerSettings,
    SearchSettings,
    add_flags,
)
from ocrstream.errors import ConfigError


def parsed(*argv: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_flags(parser, KafkaSettings, DetectorSettings, RecognizerSettings, ProducerSettings, SearchSettings)
    return parser.parse_args(argv)


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "ocrstream.toml"
    path.write_text(text)
    return str(path)


def test_a_flag_beats_the_environment_and_that_beats_the_file(tmp_path: Path) -> None:
    path = written(tmp_path, '[kafka]\nservers = "file:1"\npartitions = 3\n[search]\nport = 1\n')
    environment = {"OCRSTREAM_KAFKA_SERVERS": "environment:2", "OCRSTREAM_KAFKA_PARTITIONS": "4"}
    read = Configuration(parsed("--config", path, "--kafka", "flag:3"), environment)
    kafka = read.section(KafkaSettings)
    assert (kafka.servers, kafka.partitions, kafka.replication) == ("flag:3", 4, 1)
    assert read.section(SearchSettings).port == 1


def test_a_flag_that_two_sections_share_sets_both() -> None:
    read = Configuration(parsed("--device", "cuda:1", "--detector", "a", "--recognizer", "b"), {})
    assert read.section(DetectorSettings).device == read.section(RecognizerSettings).device == "cuda:1"
    assert (read.section(DetectorSettings).engine, read.section(RecognizerSettings).engine) == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[kafkaa]\n", "unknown section 'kafkaa'; did you mean 'kafka'"),
        ("[kafka]\nserver = 'x'\n", "section .kafka.*unknown key 'server'; did you mean 'servers'"),
        ("[kafka]\npartitions = 'many'\n", "kafka.partitions: expected a whole number, got 'many'"),
        ("[kafka]\npartitions = 0\n", "kafka.partitions: should be at least 1, got 0"),
        ("[kafka]\npartitions = true\n", "expected a whole number"),
        ("[kafka]\npartitions = 2.5\n", "expected a whole number, got 2.5"),
        ("[kafka]\npassword = 'x'\n", "is a secret: set OCRSTREAM_KAFKA_PASSWORD"),
        ("[kafka]\nsecurity_protocol = 'TLS'\n", "'TLS' is not one of PLAINTEXT, SSL"),
        ("kafka = 1\n", r"kafka should be a section, \[kafka\]"),
        ("kafcka = 1\n", "unknown section 'kafcka'; did you mean 'kafka'"),
        ("[kafka\n", "is not TOML"),
    ],
)
def test_a_mistake_in_the_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Configuration(parsed("--config", written(tmp_path, text)), {}).section(KafkaSettings)


def test_mistakes_elsewhere_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read: No such file"):
        Configuration(parsed("--config", str(tmp_path / "none.toml")), {})
    with pytest.raises(ConfigError, match="unknown environment variable 'OCRSTREAM_KAFKA_SERVER'; did you mean"):
        Configuration(None, {"OCRSTREAM_KAFKA_SERVER": "x"})
    with pytest.raises(ConfigError, match="--port: should be 0 to 65535, got '70000'"):
        Configuration(parsed("--port", "70000"), {}).section(SearchSettings)
    with pytest.raises(ConfigError, match="--fps: expected a number, got 'fast'"):
        Configuration(parsed("--fps", "fast"), {}).section(ProducerSettings)
    with pytest.raises(ConfigError, match="--fps: should be at least"):
        Configuration(parsed("--fps", "nan"), {}).section(ProducerSettings)


def test_secrets_come_from_the_environment_and_are_never_shown() -> None:
    settings = Configuration(None, {"OCRSTREAM_ELASTICSEARCH_PASSWORD": "hush"}).section(ElasticsearchSettings)
    assert settings.password == "hush"
    assert "hush" not in repr(settings)
