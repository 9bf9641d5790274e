"""A real Elasticsearch: one node of Elastic's own build 8.7.1, from Maven's registry."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.services import free_port, unavailable
from tests.services.server import Server

ADDRESS_VARIABLE = "OCRSTREAM_TEST_ELASTICSEARCH"
ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "services" / "elasticsearch"
VERSION = "8.7.1"
ARTIFACT = f"org.elasticsearch.distribution.integ-test-zip:elasticsearch:{VERSION}:zip"
READY_MARK = "] started {"
START_TIMEOUT_S = 120.0
UNPRIVILEGED_ID = 65534
"""The user nobody: Elasticsearch refuses to run as root."""


class ElasticsearchServer(Server):
    """One node, with its program and configuration in the folder of its data.

    Args:
        settings: lines of ``elasticsearch.yml`` beside the usual ones.
    """

    def __init__(self, settings: Mapping[str, str] | None = None) -> None:
        archive = distribution()
        super().__init__("Elasticsearch", READY_MARK, START_TIMEOUT_S)
        self._port, self._transport_port = free_port(), free_port()
        with zipfile.ZipFile(archive) as content:
            content.extractall(self._folder)
        self._home = self._folder / f"elasticsearch-{VERSION}"
        self._settings = dict(settings or {})
        self._configure()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._port}"

    def _launch(self) -> subprocess.Popen[str]:
        identity = {"user": UNPRIVILEGED_ID, "group": UNPRIVILEGED_ID, "extra_groups": []} if _is_root() else {}
        process: subprocess.Popen[str] = subprocess.Popen(
            [str(self._home / "bin" / "elasticsearch")],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self._folder,
            start_new_session=True,
            env={
                "PATH": os.environ["PATH"],
                "ES_PATH_CONF": str(self._folder / "config"),
                "ES_JAVA_HOME": _java_home(),
                "ES_JAVA_OPTS": "-Xms1g -Xmx1g",
                "ES_TMPDIR": str(self._folder / "tmp"),
                "LC_ALL": "C",
            },
            **identity,  # type: ignore[call-overload]
        )
        return process

    def _configure(self) -> None:
        for name in ("config", "data", "logs", "tmp"):
            (self._folder / name).mkdir()
        shutil.copytree(self._home / "config", self._folder / "config", dirs_exist_ok=True)
        lines = {
            "cluster.name": "ocrstream-test",
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": str(self._port),
            "transport.port": str(self._transport_port),
            "path.data": str(self._folder / "data"),
            "path.logs": str(self._folder / "logs"),
            "xpack.security.enabled": "false",
            # A machine with a fuller disk than its defaults like is good enough for tests.
            "cluster.routing.allocation.disk.threshold_enabled": "false",
            **self._settings,
        }
        text = "".join(f"{name}: {value}\n" for name, value in lines.items())
        (self._folder / "config" / "elasticsearch.yml").write_text(text, encoding="utf-8")
        for script in (self._home / "bin").iterdir():
            script.chmod(0o755)
        self._folder.chmod(0o755)
        if _is_root():
            for path in (self._folder, *self._folder.rglob("*")):
                os.chown(path, UNPRIVILEGED_ID, UNPRIVILEGED_ID)

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request("GET", "/_cluster/health?wait_for_status=yellow&timeout=30s")
            return connection.getresponse().status in (200, 401)
        finally:
            connection.close()


def distribution() -> Path:
    """Elasticsearch's archive, fetched once by Maven into this checkout's cache.

    Raises:
        RuntimeError: Java or Maven is missing, or Maven could not fetch it.
    """
    archive = CACHE / f"elasticsearch-{VERSION}.zip"
    for command in ("java", "mvn"):
        if shutil.which(command) is None and not (command == "mvn" and archive.exists()):
            raise RuntimeError(f"{command} is not installed; or name a server in {ADDRESS_VARIABLE}")
    if archive.exists():
        return archive
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as folder:
        done = subprocess.run(
            ["mvn", "-q", "-B", "dependency:copy", f"-Dartifact={ARTIFACT}", f"-DoutputDirectory={folder}"],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
            cwd=folder,
        )
        fetched = Path(folder) / archive.name
        if done.returncode != 0 or not fetched.exists():
            raise RuntimeError(f"Maven could not fetch {ARTIFACT}:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        # In one step, so that a second test run beside this one never sees half an archive.
        fetched.replace(archive)
    return archive


@pytest.fixture(scope="session")
def elasticsearch_url() -> Iterator[str]:
    """The address of an Elasticsearch that lasts for the test session; every test uses index names of its own."""
    given = os.environ.get(ADDRESS_VARIABLE)
    if given:
        yield given
        return
    server = _new_server()
    try:
        server.start()
        yield server.url
    finally:
        server.close()


@pytest.fixture
def elasticsearch_server() -> Iterator[ElasticsearchServer]:
    """A started node of the test's own, to be taken away and brought back."""
    server = _new_server()
    try:
        server.start()
        yield server
    finally:
        server.close()


def _new_server() -> ElasticsearchServer:
    try:
        return ElasticsearchServer()
    except RuntimeError as error:
        unavailable(str(error))


def _java_home() -> str:
    java = shutil.which("java")
    assert java is not None  # distribution() has seen to it
    return str(Path(java).resolve().parents[1])


def _is_root() -> bool:
    return os.geteuid() == 0
