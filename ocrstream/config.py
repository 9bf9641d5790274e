"""Settings: one frozen dataclass a section; a file is overridden by the environment, and that by a flag.

=========  ===============================================================
where      how ``servers`` of section ``kafka`` is spelt
=========  ===============================================================
file       ``[kafka]`` then ``servers = "broker:9092"`` (TOML, ``--config``)
variable   ``OCRSTREAM_KAFKA_SERVERS=broker:9092``
flag       ``--kafka broker:9092`` (the settings that have one)
=========  ===============================================================

An unknown key is an error. Secrets come from the environment only. What is given by source is a table in the file, and
JSON in the environment (`ocrstream.by_source`).
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import tomllib
import types
import typing
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ocrstream.by_source import Pattern, Zone, read_patterns, read_zones
from ocrstream.errors import ConfigError

ENVIRONMENT_PREFIX = "OCRSTREAM_"

OTHERS_VARIABLES = frozenset({"OCRSTREAM_CONFIG", "OCRSTREAM_SOURCES", "OCRSTREAM_IMAGE", "OCRSTREAM_GPU_IMAGE"})
"""Variables that are no settings: the configuration file's name, and what docker-compose.yml takes for itself."""


def setting(
    default: Any,
    help: str,
    *,
    flag: str | None = None,
    metavar: str | None = None,
    secret: bool = False,
    lowest: float | None = None,
    highest: float | None = None,
    choices: tuple[str, ...] | None = None,
    read: Callable[[object], Any] | None = None,
) -> Any:
    """A field of a settings dataclass.

    Args:
        default: its value where nobody sets it.
        help: one sentence for ``--help`` and ``docs/configuration.md``.
        flag: its command line flag, ``--kafka``; None for the environment and the file only.
        metavar: what the flag's value is called in ``--help``.
        secret: taken from the environment only, and never shown.
        lowest: the smallest number it takes.
        highest: the largest.
        choices: the words it takes.
        read: makes it of what stands in the file or the environment, and raises a ValueError that says what is wrong.
    """
    metadata = {
        "help": help,
        "flag": flag,
        "metavar": metavar,
        "secret": secret,
        "lowest": lowest,
        "highest": highest,
        "choices": choices,
        "read": read,
    }
    return dataclasses.field(default=default, metadata=metadata, repr=not secret)


@dataclasses.dataclass(frozen=True, slots=True)
class KafkaSettings:
    """The broker, and how this program's topics are made."""

    SECTION: typing.ClassVar[str] = "kafka"

    servers: str = setting("", "Kafka's address, HOST:PORT, several with commas", flag="--kafka", metavar="HOST:PORT")
    security_protocol: str = setting(
        "PLAINTEXT", "how to connect", choices=("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
    )
    ca_file: str = setting("", "certificate authority that signed the broker's certificate (PEM file)")
    sasl_mechanism: str = setting(
        "", "SASL mechanism", choices=("", "PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "GSSAPI", "OAUTHBEARER")
    )
    username: str = setting("", "SASL user")
    password: str = setting("", "SASL password", secret=True)
    properties: str = setting(
        "", "any other property of kafka-python, NAME=VALUE with commas: ssl_certfile=/run/client.pem"
    )
    topic_prefix: str = setting("", "put before every topic's name, so that several installations can share a cluster")
    partitions: int = setting(
        6, "partitions of a topic this program creates; as many consumers can share the work", lowest=1
    )
    replication: int = setting(1, "copies of each partition, for topics this program creates", lowest=1)
    retention_hours: float = setting(24.0, "how long topics keep frames, crops and texts", lowest=0.01)
    retention_gb: float = setting(
        20.0, "how many gigabytes ocr.frames and ocr.replay keep at most, all partitions together", lowest=0.01
    )
    max_message_mb: float = setting(8.0, "largest record, in megabytes; larger frames are shrunk to fit", lowest=0.1)


@dataclasses.dataclass(frozen=True, slots=True)
class ElasticsearchSettings:
    """The search cluster."""

    SECTION: typing.ClassVar[str] = "elasticsearch"

    url: str = setting("", "Elasticsearch's address", flag="--elasticsearch", metavar="URL")
    username: str = setting("", "user for basic authentication")
    password: str = setting("", "password for basic authentication", secret=True)
    api_key: str = setting("", "API key, instead of user and password", secret=True)
    ca_file: str = setting("", "certificate authority that signed the server's certificate (PEM file)")
    prefix: str = setting("ocr", "first part of the index names: PREFIX-frames-YYYY.MM.DD")
    shards: int = setting(1, "primary shards of each daily index", lowest=1)
    replicas: int = setting(0, "copies of each shard", lowest=0)
    refresh_ms: int = setting(250, "how soon what was written can be searched, in milliseconds", lowest=50)
    timeout_s: float = setting(30.0, "how long a request may take, in seconds", lowest=0.1)


@dataclasses.dataclass(frozen=True, slots=True)
class DataSettings:
    """The embedded store and the pictures kept beside it."""

    SECTION: typing.ClassVar[str] = "data"

    dir: str = setting("ocrstream-data", "folder of the embedded store", flag="--data", metavar="DIR")
    frames_gb: float = setting(2.0, "how many gigabytes of pictures are kept", lowest=0.0)
    frames_days: float = setting(7.0, "how many days pictures are kept", lowest=0.0)
    retention_days: int = setting(0, "how many days documents are kept, by capture time; 0 keeps them", lowest=0)


@dataclasses.dataclass(frozen=True, slots=True)
class ProducerSettings:
    """Which frames of a source are taken, and in what form."""

    SECTION: typing.ClassVar[str] = "producer"

    fps: float = setting(0.0, "take at most this many frames a second; 0 takes all", flag="--fps", lowest=0.0)
    every: int = setting(1, "take every Nth frame", flag="--every", metavar="N", lowest=1)
    start: str = setting("", "where to begin in a file: seconds or H:MM:SS", flag="--start", metavar="TIME")
    end: str = setting("", "where to end in a file: seconds or H:MM:SS", flag="--end", metavar="TIME")
    resize: str = setting("", "scale frames to at most WIDTHxHEIGHT, aspect kept", flag="--resize", metavar="WxH")
    roi: str = setting(
        "", "look only at this part of the frame: X,Y,WIDTH,HEIGHT in pixels", flag="--roi", metavar="BOX"
    )
    jpeg_quality: int = setting(90, "quality of the JPEG frames that are sent and kept", lowest=1, highest=100)
    timeout_s: float = setting(10.0, "a source that gives nothing for this long is opened again", lowest=0.1)
    segments: int = setting(
        1, "cut a file into this many parts that are read side by side", flag="--segments", lowest=1
    )


_WEIGHTS = "weights in place of the engine's own: a file, or a shipped one's name"


@dataclasses.dataclass(frozen=True, slots=True)
class DetectorSettings:
    """The stage that finds text lines."""

    SECTION: typing.ClassVar[str] = "detector"

    engine: str = setting("ctpn", "what finds text lines", flag="--detector", metavar="NAME")
    device: str = setting("cpu", "where it runs: cpu, cuda, cuda:N", flag="--device")
    threads: int = setting(0, "inference threads; 0 fits them to the cores", lowest=0)
    weights: str = setting("", _WEIGHTS, flag="--detector-weights", metavar="FILE")
    read: str = setting(
        "new",
        "what is read of videos and cameras: new, all that is new or changed, at the camera's rate; all, every line of "
        "each frame that is taken",
        flag="--read",
        choices=("new", "all"),
    )
    masks: tuple[tuple[str, tuple[Zone, ...]], ...] = setting(
        (), "parts of the frame in which nothing is read, by source; see Masks and formats", read=read_zones
    )
    overlays: str = setting(
        "keep",
        "what happens to text that a moving camera carries along, its date or logo: keep, it is read like other text; "
        "leave-out, it is learned and left out",
        flag="--overlays",
        choices=("keep", "leave-out"),
    )
    batch: int = setting(4, "frames of several sources looked at together", lowest=1)
    deadline_ms: float = setting(2.0, "how long a batch waits for more frames", lowest=0.0)
    group: str = setting("ocr-detector", "consumer group")


@dataclasses.dataclass(frozen=True, slots=True)
class RecognizerSettings:
    """The stage that reads text lines."""

    SECTION: typing.ClassVar[str] = "recognizer"

    engine: str = setting("crnn", "what reads text lines", flag="--recognizer", metavar="NAME")
    device: str = setting("cpu", "where it runs: cpu, cuda, cuda:N", flag="--device")
    threads: int = setting(0, "inference threads; 0 fits them to the cores", lowest=0)
    weights: str = setting("", _WEIGHTS, flag="--recognizer-weights", metavar="FILE")
    batch: int = setting(8, "frames whose crops are read together", lowest=1)
    deadline_ms: float = setting(2.0, "how long a batch waits for more crops", lowest=0.0)
    min_confidence: float = setting(
        0.4, "readings below this are not kept, nor texts over time that never were as sure", lowest=0.0, highest=1.0
    )
    formats: tuple[tuple[str, tuple[Pattern, ...]], ...] = setting(
        (), "what texts look like, by source; see Masks and formats", read=read_patterns
    )
    group: str = setting("ocr-recognizer", "consumer group")


@dataclasses.dataclass(frozen=True, slots=True)
class IndexerSettings:
    """The stage that writes documents."""

    SECTION: typing.ClassVar[str] = "indexer"

    batch: int = setting(200, "frames written together", lowest=1)
    deadline_ms: float = setting(0.0, "how long a batch waits for more frames", lowest=0.0)
    group: str = setting("ocr-indexer", "consumer group")


@dataclasses.dataclass(frozen=True, slots=True)
class SearchSettings:
    """The search page."""

    SECTION: typing.ClassVar[str] = "search"

    host: str = setting("127.0.0.1", "address the search page listens on", flag="--host")
    port: int = setting(8077, "port of the search page; 0 takes a free one", flag="--port", lowest=0, highest=65535)


SECTIONS: tuple[type[Any], ...] = (
    KafkaSettings,
    ElasticsearchSettings,
    DataSettings,
    ProducerSettings,
    DetectorSettings,
    RecognizerSettings,
    IndexerSettings,
    SearchSettings,
)

S = TypeVar("S")


ONLY_FOLLOWING = "--read", "--overlays"
"""Flags that mean nothing to a command which follows nothing from frame to frame."""


def add_flags(parser: argparse.ArgumentParser, *sections: type[Any], without: Collection[str] = ()) -> None:
    """Give a parser ``--config`` and the flags of these sections; a flag that two sections share sets both.

    Args:
        parser: a command's.
        sections: what it can be set by.
        without: flags that mean nothing to it.
    """
    parser.add_argument("--config", metavar="FILE", help="TOML file with settings; see docs/configuration.md")
    for option in {f.metadata["flag"]: f for section in sections for f in dataclasses.fields(section)}.items():
        flag, field = option
        if flag is None or flag in without:
            continue
        default = f" (default: {field.default})" if field.default not in ("", 0, 0.0) else ""
        parser.add_argument(
            flag,
            dest=_destination(flag),
            metavar=field.metadata["metavar"] or field.name.upper(),
            help=f"{field.metadata['help']}{default}".replace("%", "%%"),
        )


class Configuration:
    """The settings of one run, read once and checked as a whole.

    Args:
        arguments: what a parser with `add_flags` returned; its ``config`` names the file.
        environment: ``os.environ`` where not given.

    Raises:
        ConfigError: the file is missing or not TOML, or a section or key is unknown.
    """

    def __init__(
        self, arguments: argparse.Namespace | None = None, environment: Mapping[str, str] | None = None
    ) -> None:
        self._flags = vars(arguments) if arguments is not None else {}
        self._environment = os.environ if environment is None else environment
        self._file = _read_file(self._flags.get("config") or self._environment.get("OCRSTREAM_CONFIG"))
        _check_variables(self._environment)

    def section(self, cls: type[S]) -> S:
        """The settings of one section.

        Raises:
            ConfigError: a value does not fit; the message names where it was set.
        """
        name: str = cls.SECTION  # type: ignore[attr-defined]
        kinds = typing.get_type_hints(cls)
        values: dict[str, Any] = {}
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            found = self._find(name, field)
            if found is not None:
                values[field.name] = _convert(found[0], kinds[field.name], field, found[1])
        return cls(**values)

    def is_set(self, cls: type[Any], name: str) -> bool:
        """Whether somebody has chosen a setting, be it as its default would be."""
        (field,) = [field for field in dataclasses.fields(cls) if field.name == name]
        return self._find(cls.SECTION, field) is not None

    def _find(self, section: str, field: dataclasses.Field[Any]) -> tuple[Any, str] | None:
        flag = field.metadata["flag"]
        if flag and self._flags.get(_destination(flag)) is not None:
            return self._flags[_destination(flag)], flag
        variable = variable_of(section, field.name)
        if variable in self._environment:
            return self._environment[variable], variable
        if field.name in self._file.get(section, {}):
            if field.metadata["secret"]:
                raise ConfigError(f"{section}.{field.name} is a secret: set {variable} in the environment instead")
            return self._file[section][field.name], f"{section}.{field.name}"
        return None


def variable_of(section: str, name: str) -> str:
    """The environment variable of a setting."""
    return f"{ENVIRONMENT_PREFIX}{section}_{name}".upper()


def _destination(flag: str) -> str:
    return "setting_" + flag.lstrip("-").replace("-", "_")


def _read_file(path: str | None) -> dict[str, dict[str, Any]]:
    if not path:
        return {}
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"the configuration file {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"the configuration file {path} is not TOML: {error}") from error
    known = {section.SECTION: [f.name for f in dataclasses.fields(section)] for section in SECTIONS}
    for section, values in content.items():
        if section in known and not isinstance(values, dict):
            raise ConfigError(f"{path}: {section} should be a section, [{section}], with its keys below it")
        if section not in known:
            raise ConfigError(f"{path}: {_unknown('section', section, known)}")
        for key in values:
            if key not in known[section]:
                raise ConfigError(f"{path}, section [{section}]: {_unknown('key', key, known[section])}")
    return content


def _check_variables(environment: Mapping[str, str]) -> None:
    known = {variable_of(s.SECTION, f.name) for s in SECTIONS for f in dataclasses.fields(s)}
    known |= OTHERS_VARIABLES
    for variable in environment:
        # OCRSTREAM_TEST_… and OCRSTREAM_BENCH_… are the tests' and benchmarks' own.
        if variable.startswith(ENVIRONMENT_PREFIX) and variable not in known:
            if variable.startswith((f"{ENVIRONMENT_PREFIX}TEST_", f"{ENVIRONMENT_PREFIX}BENCH_")):
                continue
            raise ConfigError(_unknown("environment variable", variable, known))


def _unknown(what: str, word: str, known: typing.Iterable[str]) -> str:
    close = difflib.get_close_matches(word, list(known), n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(known))}"
    return f"unknown {what} {word!r}; {hint}"


def _convert(value: Any, kind: Any, field: dataclasses.Field[Any], where: str) -> Any:
    if field.metadata["read"] is not None:
        try:
            return field.metadata["read"](value)
        except ValueError as error:
            raise ConfigError(f"{where}: {error}") from error
    try:
        converted = _as_kind(value, kind)
    except ValueError as error:
        raise ConfigError(f"{where}: expected {_kind_name(kind)}, got {value!r}") from error
    choices, lowest, highest = (field.metadata[name] for name in ("choices", "lowest", "highest"))
    if choices is not None and converted not in choices:
        raise ConfigError(f"{where}: {value!r} is not one of {', '.join(c for c in choices if c)}")
    if (lowest is not None and not converted >= lowest) or (highest is not None and not converted <= highest):
        limits = f"at least {lowest}" if highest is None else f"{lowest} to {highest}"
        raise ConfigError(f"{where}: should be {limits}, got {value!r}")
    return converted


def _as_kind(value: Any, kind: Any) -> Any:
    if kind is bool:
        if isinstance(value, bool):
            return value
        words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
        if str(value).lower() not in words:
            raise ValueError("neither true nor false")
        return words[str(value).lower()]
    if isinstance(value, bool):
        raise ValueError("true and false are not numbers or words here")  # noqa: TRY004 reported as a ConfigError
    if kind is str:
        if not isinstance(value, str):
            raise ValueError("not a string")
        return value
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise ValueError("not whole")
    if kind in (int, float):
        return kind(value)
    raise ValueError(f"no setting is a {kind}")


def _kind_name(kind: Any) -> str:
    names: dict[Any, str] = {int: "a whole number", float: "a number", str: "a string", bool: "true or false"}
    return names.get(kind, str(kind) if not isinstance(kind, types.UnionType) else "a value")
