"""A real Apache Kafka broker: one node in KRaft mode, from Maven's registry."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.services import free_port, unavailable
from tests.services.server import Server

ADDRESS_VARIABLE = "OCRSTREAM_TEST_KAFKA"
ROOT = Path(__file__).resolve().parents[2]
POM = Path(__file__).with_name("kafka-pom.xml")
CACHE = ROOT / ".cache" / "services" / "kafka"
READY_MARK = "Kafka Server started"
START_TIMEOUT_S = 90.0
CLUSTER_ID = "b2Nyc3RyZWFtLXRlc3Qtay"


class KafkaServer(Server):
    """One broker.

    Args:
        properties: broker properties beside the usual ones.
    """

    def __init__(self, properties: Mapping[str, str] | None = None) -> None:
        super().__init__("Kafka", READY_MARK, START_TIMEOUT_S)
        self._port, self._controller_port = free_port(), free_port()
        self._properties = dict(properties or {})
        self._formatted = False

    @property
    def servers(self) -> str:
        """Its address, HOST:PORT."""
        return f"127.0.0.1:{self._port}"

    def _launch(self) -> subprocess.Popen[str]:
        classpath = f"{libraries()}/*"
        if not self._formatted:
            self._format(classpath)
        return subprocess.Popen(
            ["java", "-Xmx512m", "-cp", classpath, "kafka.Kafka", str(self._settings)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "LC_ALL": "C"},
        )

    @property
    def _settings(self) -> Path:
        return self._folder / "server.properties"

    def _format(self, classpath: str) -> None:
        loopback = "127.0.0.1"
        settings = {
            "process.roles": "broker,controller",
            "node.id": "1",
            "controller.quorum.voters": f"1@{loopback}:{self._controller_port}",
            "controller.listener.names": "CONTROLLER",
            "listeners": f"CLIENTS://{self.servers},CONTROLLER://{loopback}:{self._controller_port}",
            "advertised.listeners": f"CLIENTS://{self.servers}",
            "inter.broker.listener.name": "CLIENTS",
            "listener.security.protocol.map": "CLIENTS:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self._folder / "data"),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "4",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            # Without this a topic that does not exist would come up with the broker's defaults instead of ours.
            "auto.create.topics.enable": "false",
            # By default a minute and five: too long to see in a test what retention does.
            "log.initial.task.delay.ms": "100",
            "log.retention.check.interval.ms": "500",
            **self._properties,
        }
        self._settings.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
        command = ["java", "-cp", classpath, "kafka.tools.StorageTool", "format", "-t", CLUSTER_ID]
        done = subprocess.run(
            [*command, "-c", str(self._settings)], capture_output=True, text=True, timeout=60, check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"the broker's storage could not be formatted:\n{done.stdout}{done.stderr}")
        self._formatted = True


def libraries() -> Path:
    """The folder of Kafka's jars, fetched once by Maven into this checkout's cache.

    Raises:
        RuntimeError: Java or Maven is missing, or Maven could not fetch them.
    """
    folder, complete = CACHE / "libs", CACHE / "complete"
    if shutil.which("java") is None:
        raise RuntimeError("Java is not installed (tests/services/install.sh installs it)")
    if complete.exists() and complete.read_text() == POM.read_text():
        return folder
    if shutil.which("mvn") is None:
        raise RuntimeError("Maven is not installed (tests/services/install.sh installs it)")
    shutil.rmtree(folder, ignore_errors=True)
    command = ["mvn", "-q", "-B", "-f", str(POM), "dependency:copy-dependencies", f"-DoutputDirectory={folder}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"Maven could not fetch Kafka:\n{done.stdout}{done.stderr}")
    complete.write_text(POM.read_text())
    return folder


def require_broker_files() -> None:
    """Skip the test (in CI: fail it) where a broker cannot be started."""
    try:
        libraries()
    except RuntimeError as error:
        unavailable(f"Kafka cannot be started: {error}")


@pytest.fixture(scope="session")
def kafka_servers() -> Iterator[str]:
    """The address of a broker that all tests share: OCRSTREAM_TEST_KAFKA, or one started for this session."""
    if given := os.environ.get(ADDRESS_VARIABLE):
        yield given
        return
    require_broker_files()
    server = KafkaServer()
    try:
        server.start()
        yield server.servers
    finally:
        server.close()


@pytest.fixture
def kafka_server() -> Iterator[KafkaServer]:
    """A broker of the test's own, not yet started, to stop and start."""
    require_broker_files()
    server = KafkaServer()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture
def topic_prefix() -> str:
    """A prefix that gives a test topics of its own on the shared broker."""
    return f"test-{uuid.uuid4().hex[:8]}-"
