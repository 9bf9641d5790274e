"""``ocrstream doctor``: looks at everything a deployment depends on, and says what to do about what is missing."""

from __future__ import annotations

import argparse
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import av
import numpy as np

from ocrstream.config import (
    Configuration,
    DataSettings,
    DetectorSettings,
    ElasticsearchSettings,
    KafkaSettings,
    RecognizerSettings,
    SearchSettings,
    add_flags,
)
from ocrstream.errors import DeploymentError, OcrstreamError
from ocrstream.messages import TOPICS
from ocrstream.models import EngineOptions, load_detector, load_recognizer
from ocrstream.process import Command
from ocrstream.storage.elastic import ElasticStore
from ocrstream.storage.embedded import FILE_NAME, EmbeddedStore
from ocrstream.transport.kafka import KafkaTransport
from pipeline.status import count_of

LITTLE_SPACE_GB = 5.0
PACKAGES = ("av", "opencv-python-headless", "onnxruntime", "kafka-python", "crc32c", "elasticsearch")


@dataclass(frozen=True, slots=True)
class Check:
    """One thing looked at: what it is, and a function that says how it is or raises what is wrong with it."""

    name: str
    look: Callable[[], str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    add_flags(
        parser, KafkaSettings, ElasticsearchSettings, DataSettings, DetectorSettings, RecognizerSettings, SearchSettings
    )


def run(arguments: argparse.Namespace) -> int:
    """Run every check and print its outcome; returns 0 when all is well."""
    bad = 0
    for check in _checks(Configuration(arguments)):
        try:
            outcome, mark = check.look(), "ok"
        except OcrstreamError as error:
            outcome, mark, bad = str(error), "FAIL", bad + 1
        sys.stdout.write(f"{mark:<5} {check.name:<15} {outcome}\n")
        sys.stdout.flush()
    sys.stdout.write("All is well.\n" if not bad else f"{bad} of these need attention.\n")
    return 1 if bad else 0


def _checks(configuration: Configuration) -> Iterator[Check]:
    yield Check("python", lambda: sys.version.split()[0])
    yield Check("packages", _packages)
    yield Check("ffmpeg", lambda: f"{av.ffmpeg_version_info} in PyAV {av.__version__}")
    detecting, recognizing = configuration.section(DetectorSettings), configuration.section(RecognizerSettings)
    yield Check("detector", lambda: _detector(detecting))
    yield Check("recognizer", lambda: _recognizer(recognizing))
    kafka, elastic = configuration.section(KafkaSettings), configuration.section(ElasticsearchSettings)
    if kafka.servers:
        yield Check("kafka", lambda: _kafka(kafka))
    if elastic.url:
        yield Check("elasticsearch", lambda: _elasticsearch(elastic))
    if not kafka.servers and not elastic.url:
        yield Check("data folder", lambda: _data(configuration.section(DataSettings)))
        yield Check("search page", lambda: _port(configuration.section(SearchSettings)))


def _packages() -> str:
    found = []
    for name in PACKAGES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError as error:
            raise DeploymentError(f"the package {name} is missing: pip install {name}") from error
    return ", ".join(found)


def _detector(settings: DetectorSettings) -> str:
    detector = load_detector(settings.engine, EngineOptions(settings.device, settings.threads, settings.weights))
    picture = np.full((720, 1280, 3), 255, np.uint8)
    detector.detect([picture])
    started = time.perf_counter()
    detector.detect([picture])
    took_ms = (time.perf_counter() - started) * 1000
    return f"{detector.info.name} {detector.info.weights} on {settings.device}, {took_ms:.0f} ms a 1280x720 frame"


def _recognizer(settings: RecognizerSettings) -> str:
    recognizer = load_recognizer(settings.engine, EngineOptions(settings.device, settings.threads, settings.weights))
    crops = [np.full((48, 320, 3), 255, np.uint8)] * 8
    recognizer.read(crops)
    started = time.perf_counter()
    recognizer.read(crops)
    took_ms = (time.perf_counter() - started) * 1000 / len(crops)
    return f"{recognizer.info.name} {recognizer.info.weights} on {settings.device}, {took_ms:.1f} ms a crop"


def _kafka(settings: KafkaSettings) -> str:
    with closing(KafkaTransport(settings)) as transport:
        transport.check()
    return f"{settings.servers}: topics {', '.join(settings.topic_prefix + topic for topic in TOPICS)} can be used"


def _elasticsearch(settings: ElasticsearchSettings) -> str:
    with closing(ElasticStore(settings)) as store:
        store.check()
        sources = store.sources()
    frames = sum(source.frames for source in sources)
    return f"templates are in place; {count_of(frames, 'frame')} of {count_of(len(sources), 'source')}"


def _data(settings: DataSettings) -> str:
    directory = Path(settings.dir)
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=directory):
            free_gb = shutil.disk_usage(directory).free / 1e9
    except OSError as error:
        raise DeploymentError(
            f"{directory.resolve()} cannot be written to ({error.strerror}): name another folder with --data"
        ) from error
    needed_gb = settings.frames_gb + LITTLE_SPACE_GB
    if free_gb < needed_gb:
        raise DeploymentError(
            f"{free_gb:.1f} GB are free in {directory.resolve()}, {needed_gb:.0f} are wanted "
            f"({settings.frames_gb:g} for pictures): free some, or lower frames_gb"
        )
    frames = 0
    if (directory / FILE_NAME).exists():
        with closing(EmbeddedStore(directory)) as store:
            store.check()
            frames = sum(source.frames for source in store.sources())
    return f"{directory.resolve()}: {frames} frames, {free_gb:.0f} GB free"


def _port(settings: SearchSettings) -> str:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((settings.host, settings.port))
        except OSError as error:
            raise DeploymentError(
                f"{settings.host}:{settings.port} cannot be listened on ({error.strerror}): is a page running there "
                "already? Name another with --port"
            ) from error
    return f"{settings.host}:{settings.port} is free"


COMMAND = Command("doctor", "Check everything a deployment depends on, and say what to do.", add_arguments, run)
