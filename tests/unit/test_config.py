"""Settings: the file, the environment, the flags, in that order, and every mistake named."""

import argparse
from pathlib import Path

import pytest

from ocrstream.by_source import of_source, unused
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


FORMATS = """
[recognizer.formats]
"platform-*" = ['[A-Z]\\d\\d', "gate"]
"hall" = ['\\d\\d:\\d\\d']
"""
MASKS = """
[detector]
engine = "blocks"
[detector.masks]
"hall" = [[[0.0, 0.9], [1, 0.9], [1.0, 1.0], [0.0, 1.0]], [[0, 0], [0.5, 0], [0, 0.5]]]
"""


def test_formats_and_masks_are_tables_of_sources(tmp_path: Path) -> None:
    read = Configuration(parsed("--config", written(tmp_path, FORMATS + MASKS)), {})
    formats = read.section(RecognizerSettings).formats
    assert [(name, [pattern.pattern for pattern in patterns]) for name, patterns in formats] == [
        ("platform-*", [r"[A-Z]\d\d", "gate"]),
        ("hall", [r"\d\d:\d\d"]),
    ]
    detector = read.section(DetectorSettings)
    assert detector.engine == "blocks"
    assert detector.masks == (
        ("hall", (((0.0, 0.9), (1.0, 0.9), (1.0, 1.0), (0.0, 1.0)), ((0.0, 0.0), (0.5, 0.0), (0.0, 0.5)))),
    )
    assert (of_source(formats, "door"), len(of_source(formats, "platform-3"))) == ((), 2)
    assert unused(formats, ["platform-3"]) == [name for name, _ in formats if not name.startswith("platform")]
    assert Configuration(None, {}).section(RecognizerSettings).formats == ()


def test_in_the_environment_they_are_json() -> None:
    environment = {"OCRSTREAM_RECOGNIZER_FORMATS": '{"p*": ["B\\\\d"]}', "OCRSTREAM_DETECTOR_MASKS": ""}
    read = Configuration(None, environment)
    ((name, (pattern,)),) = read.section(RecognizerSettings).formats
    assert (name, pattern.pattern) == ("p*", r"B\d")
    assert read.section(DetectorSettings).masks == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[recognizer]\nformats = 5", "recognizer.formats: expected a table of sources, each with a list of regular"),
        ("[recognizer]\nformats = '['", r"expected a table of sources.*; got '\['"),
        ("[recognizer.formats]\nhall = 'B12'", "recognizer.formats: expected a table of .*; 'hall' has 'B12'"),
        ("[recognizer.formats]\nhall = [12]", "recognizer.formats: 'hall': a regular expression is a string, got 12"),
        (
            "[recognizer.formats]\nhall = ['[A-Z']",
            r"recognizer.formats: 'hall': '\[A-Z' is no regular expression: unterminated character set at position 4",
        ),
        ("[detector.masks]\nhall = [[[0, 0], [1, 0]]]", "detector.masks: 'hall': a zone is three points"),
        ("[detector.masks]\nhall = [[[0, 0], [640, 0], [0, 1]]]", "each 0 to 1 as a share of the frame's width or"),
        ("[detector.masks]\nhall = [[0.1, 0.2, 0.3]]", "a zone is three points"),
        ("[detector.masks]\nhall = [[[0, 0], [0.5, 0.5], [1, 1]]]", "the points of a zone lie on one line"),
        ("[recognizer.formats]\nhall = ['']", "recognizer.formats: 'hall': a regular expression is empty"),
        ("[detector.masks]\nhall = 0.5", "detector.masks: expected a table of sources, each with a list of polygons"),
    ],
)
def test_a_mistake_in_formats_or_masks_is_named(tmp_path: Path, text: str, message: str) -> None:
    read = Configuration(parsed("--config", written(tmp_path, text)), {})
    with pytest.raises(ConfigError, match=message):
        [read.section(section) for section in (DetectorSettings, RecognizerSettings)]


def test_a_command_has_no_flags_that_mean_nothing_to_it(capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser(exit_on_error=False)
    add_flags(parser, DetectorSettings, without=("--read",))
    assert parser.parse_args(["--detector", "x"]).__dict__.keys() >= {"config"}
    with pytest.raises(SystemExit):
        parser.parse_args(["--read", "all"])
    assert "unrecognized arguments: --read all" in capsys.readouterr().err
    assert Configuration(parser.parse_args([])).section(DetectorSettings).read == "new"
