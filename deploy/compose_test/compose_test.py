"""Bring the project's own Dockerfile and docker-compose.yml up for real, and find a text of ``demo:`` in them.

``make compose-test`` runs this. It takes a Docker engine that is there; as root on Debian it installs one and runs it
by itself, with its data under `WORK`. No image registry is needed: the servers' images are stand-ins made of the
packages that the tests use, and Kibana is left out (`stand-ins.yml`). Nothing stays running afterwards; images and
downloads stay in the cache, so that a second run takes a fraction of the first one's time.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.services import elasticsearch, free_port, kafka  # noqa: E402 needs the path above

HERE = Path(__file__).parent
WORK = Path("/var/tmp/ocrstream-compose-test")  # noqa: S108 root's own folder; a cache that outlives the checkout
PROJECT = "ocrstream-compose-test"
BASE_IMAGE = f"{PROJECT}/base"
STAGES = ("produce", "detect", "recognize", "index", "serve")
QUERY = "boarding"
"""A word that `demo:` shows."""

MOST_RESTARTS = 2
ENGINE_PATIENCE_S = 60.0
SEARCH_PATIENCE_S = 300.0

R = TypeVar("R")


class FailedError(Exception):
    """The deployment does not do what it should; the message says what was seen."""


def main() -> int:
    """Run everything; returns the exit code."""
    signal.signal(signal.SIGTERM, _end)
    started = time.monotonic()
    WORK.mkdir(parents=True, exist_ok=True)
    try:
        with engine() as environment:
            build_stand_ins(environment)
            with deployment(environment) as compose:
                check_search(compose)
                check_health(compose)
                check_scaling(compose)
                check_stopping(compose)
    except FailedError as error:
        say(f"FAILED after {time.monotonic() - started:.0f} s: {error}")
        return 1
    say(f"passed in {time.monotonic() - started:.0f} s")
    return 0


def say(text: str) -> None:
    """One line for the person who waits."""
    sys.stdout.write(f"{time.strftime('%H:%M:%S')} {text}\n")
    sys.stdout.flush()


def run(command: list[str], environment: dict[str, str] | None = None, *, quiet: bool = True) -> str:
    """Run a command and return what it printed.

    Raises:
        FailedError: it failed; the message ends with its last lines.
    """
    output: list[str] = []
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            output.append(line)
            if not quiet:
                sys.stdout.write(f"         | {line}")
    if process.returncode != 0:
        raise FailedError(f"{' '.join(command)} ended with code {process.returncode}:\n{''.join(output[-40:])}")
    return "".join(output)


def until(what: str, patience_s: float, look: Callable[[], R | None]) -> R:
    """Look once a second until there is something to see.

    Raises:
        FailedError: the patience is over.
    """
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        seen = look()
        if seen is not None:
            return seen
        time.sleep(1)
    raise FailedError(f"no {what} within {patience_s:.0f} s")


@contextlib.contextmanager
def engine() -> Iterator[dict[str, str]]:
    """An environment in which ``docker`` and ``docker-compose`` answer.

    Raises:
        FailedError: there is none, and none can be installed.
    """
    # A person's own settings do not belong to this test.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OCRSTREAM_")}
    environment |= {"DOCKER_BUILDKIT": "1", "COMPOSE_DOCKER_CLI_BUILD": "1"}
    if _answers(environment):
        yield environment
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise FailedError("no Docker engine answers: start one (or run this as root on Debian, which installs one)")
    _install("docker.io", "docker-compose")
    # Debian's client first: another one may lack the plug-in that builds images.
    environment |= {"PATH": f"/usr/bin:/usr/sbin:{os.environ['PATH']}", "DOCKER_HOST": f"unix://{WORK}/docker.sock"}
    with _daemon(environment):
        yield environment


def _answers(environment: dict[str, str]) -> bool:
    try:
        command = ["docker", "info"]
        return subprocess.run(command, env=environment, capture_output=True, timeout=30, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def _install(*packages: str) -> None:
    status = subprocess.run(["dpkg", "-s", *packages], capture_output=True, check=False)
    if status.returncode == 0:
        return
    say(f"installing {', '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    run(["apt-get", "update", "-qq"], environment)
    run(["apt-get", "install", "-y", "-qq", "--no-install-recommends", *packages], environment)


@contextlib.contextmanager
def _daemon(environment: dict[str, str]) -> Iterator[None]:
    """A Docker engine of our own, beside any other: its data, its socket and its log are in `WORK`."""
    say("starting a Docker engine")
    open_files = min(resource.getrlimit(resource.RLIMIT_NOFILE)[1], 65536)
    command = ["dockerd", "--data-root", f"{WORK}/docker", "--exec-root", f"/run/{PROJECT}"]
    command += ["--pidfile", f"{WORK}/dockerd.pid", "--host", environment["DOCKER_HOST"]]
    command += ["--default-ulimit", f"nofile={open_files}:{open_files}"]
    with (WORK / "dockerd.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment, start_new_session=True)
    try:
        until(f"answer of the engine ({WORK}/dockerd.log)", ENGINE_PATIENCE_S, lambda: _answers(environment) or None)
        yield
        # What earlier versions of the images have left would fill the disk in time.
        run(["docker", "image", "prune", "--force"], environment)
        run(["docker", "builder", "prune", "--force", "--keep-storage", "4GB"], environment)
    finally:
        process.terminate()
        process.wait(timeout=60)


def build_stand_ins(environment: dict[str, str]) -> None:
    """The base image and the two servers, as far as they are not in the cache.

    Raises:
        FailedError: one of them cannot be made.
    """
    if not run(["docker", "image", "ls", "-q", BASE_IMAGE], environment).strip():
        _build_base(environment)
    try:
        packages = {"kafka": kafka.libraries(), "elasticsearch": elasticsearch.distribution()}
    except RuntimeError as error:
        raise FailedError(str(error)) from error
    for name, package in packages.items():
        say(f"building the stand-in for {name}")
        context = WORK / "contexts" / name
        shutil.rmtree(context, ignore_errors=True)
        shutil.copytree(HERE / name, context)
        if package.is_dir():
            shutil.copytree(package, context / "package")
        else:
            shutil.copy(package, context / "package")
        command = ["docker", "build", "-t", f"{PROJECT}/{name}", "--build-arg", f"BASE_IMAGE={BASE_IMAGE}"]
        run([*command, str(context)], environment)


def _build_base(environment: dict[str, str]) -> None:
    """Debian 12 from its registry, else from its packages, knowing this machine's pip certificates and index.

    Raises:
        FailedError: there is no registry, and packages may not be unpacked here.
    """
    with contextlib.suppress(FailedError):
        run(["docker", "pull", "debian:bookworm-slim"], environment)
        run(["docker", "tag", "debian:bookworm-slim", BASE_IMAGE], environment)
        return
    say("building the base image from Debian's packages")
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        raise FailedError("no image registry answers; without one the base image can be made as root on Debian only")
    _install("debootstrap")
    root = WORK / "rootfs"
    shutil.rmtree(root, ignore_errors=True)
    run(["debootstrap", "--variant=minbase", "bookworm", str(root), "http://deb.debian.org/debian"])
    settings = ["[global]"]
    if certificates := _pip("cert"):
        (root / "etc/ssl").mkdir(exist_ok=True)
        shutil.copy(certificates, root / "etc/ssl/pip.crt")
        settings.append("cert = /etc/ssl/pip.crt")
    if index := _pip("index-url"):
        settings.append(f"index-url = {index}")
    (root / "etc/pip.conf").write_text("\n".join(settings) + "\n")
    archive = WORK / "rootfs.tar"
    run(["tar", "-C", str(root), "--exclude=./var/cache/apt/archives/*.deb", "-cf", str(archive), "."])
    run(["docker", "import", str(archive), BASE_IMAGE], environment)
    archive.unlink()
    shutil.rmtree(root)


def _pip(setting: str) -> str | None:
    """What this machine's pip is set to, in its environment or its files."""
    for scope in (":env:", "global"):
        command = [sys.executable, "-m", "pip", "config", "get", f"{scope}.{setting}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode == 0:
            return done.stdout.strip()
    return None


class Compose:
    """The project's compose file as a running project of its own, with ports of its own.

    Attributes:
        port: the search page's, on this machine.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        self.port = free_port()
        ports = {"OCRSTREAM_SEARCH_PORT": self.port, "KAFKA_PORT": free_port(), "ELASTICSEARCH_PORT": free_port()}
        self._environment = environment | {name: str(port) for name, port in ports.items()}
        plugin = subprocess.run(["docker", "compose", "version"], env=environment, capture_output=True, check=False)
        self._command = ["docker", "compose"] if plugin.returncode == 0 else ["docker-compose"]
        # Nor does a person's own .env.
        nothing = WORK / "empty.env"
        nothing.touch()
        self._command += ["--env-file", str(nothing), "-p", PROJECT]
        self._command += ["-f", str(ROOT / "docker-compose.yml"), "-f", str(HERE / "stand-ins.yml")]

    def __call__(self, *arguments: str, quiet: bool = True) -> str:
        """Run a compose command and return what it printed."""
        return run([*self._command, *arguments], self._environment, quiet=quiet)

    def containers(self, *services: str) -> list[dict[str, Any]]:
        """What the engine says of the services' containers, stopped ones too."""
        ids = run(["docker", "ps", "-aq", "--filter", f"label=com.docker.compose.project={PROJECT}"], self._environment)
        all_containers = json.loads(run(["docker", "inspect", *ids.split()], self._environment))
        return [c for c in all_containers if not services or service_of(c) in services]

    def image_size_mb(self) -> int:
        """How large the project's image is."""
        size = run(["docker", "image", "inspect", "-f", "{{.Size}}", f"{PROJECT}/ocrstream"], self._environment)
        return int(size) // 1_000_000


def service_of(container: dict[str, Any]) -> str:
    """The service that a container belongs to."""
    return str(container["Config"]["Labels"]["com.docker.compose.service"])


@contextlib.contextmanager
def deployment(environment: dict[str, str]) -> Iterator[Compose]:
    """``docker compose up``, and afterwards everything down again, its data too."""
    compose = Compose(environment)
    compose("down", "--volumes", "--remove-orphans")
    say("building the image from the project's Dockerfile")
    started = time.monotonic()
    compose("build", *STAGES)
    say(f"the image has {compose.image_size_mb()} MB, built in {time.monotonic() - started:.0f} s")
    try:
        say("docker compose up: each service waits until what it needs is healthy")
        started = time.monotonic()
        compose("up", "-d", "--no-build", quiet=False)
        say(f"everything was started after {time.monotonic() - started:.0f} s")
        yield compose
    except FailedError:
        log = ROOT / ".cache" / "compose-test.log"
        log.parent.mkdir(exist_ok=True)
        log.write_text(compose("logs", "--no-color", "--timestamps"))
        say(compose("ps"))
        say(f"the services' logs: {log}")
        raise
    finally:
        say("docker compose down")
        compose("down", "--volumes", "--remove-orphans")


def check_search(compose: Compose) -> None:
    """Find a text of the built-in camera, and its picture, through the published port."""
    page = f"http://127.0.0.1:{compose.port}"

    def found() -> dict[str, Any] | None:
        failing = [service_of(c) for c in compose.containers() if c["RestartCount"] > MOST_RESTARTS]
        if failing:
            raise FailedError(f"{', '.join(failing)} fails again and again")
        answer = fetch(f"{page}/api/search?q={QUERY}")
        hits = json.loads(answer)["hits"] if answer is not None else []
        return hits[0] if hits else None

    started = time.monotonic()
    hit = until(f"hit for {QUERY!r} at {page}", SEARCH_PATIENCE_S, found)
    say(f"found {QUERY!r} after {time.monotonic() - started:.0f} s at {page}/api/search?q={QUERY}:")
    lines = [line for line in hit["lines"] if QUERY in line["text"].lower()]
    if not lines:
        raise FailedError(f"the first hit does not hold {QUERY!r}: {hit['text']!r}")
    say(f"{lines[0]['text']!r}, confidence {lines[0]['confidence']}, at {lines[0]['polygon']}")
    say(f"in frame {hit['frame_id']} of {hit['source']!r}, captured at {hit['captured_at']}")
    address = f"{page}/frames/{hit['frame_id']}.jpg"
    picture = fetch(address)
    if picture is None or not picture.startswith(b"\xff\xd8\xff"):
        raise FailedError(f"{address} is not a JPEG picture: {picture!r:.80}")
    say(f"its picture: {address}, {len(picture)} bytes")


def fetch(address: str) -> bytes | None:
    """What an address answers with, or None where it does not answer yet."""
    try:
        with urllib.request.urlopen(address, timeout=10) as answer:  # noqa: S310 our own page on loopback
            content: bytes = answer.read()
            return content
    except (urllib.error.URLError, OSError):
        return None


def check_health(compose: Compose) -> None:
    """See every service healthy, and our own ones without rights they do not need."""

    def all_healthy() -> list[dict[str, Any]] | None:
        containers = compose.containers()
        return containers if all(health_of(c) == "healthy" for c in containers) else None

    containers = until("health of every service", 60, all_healthy)
    say("healthy: " + ", ".join(sorted(service_of(c) for c in containers)))
    for container in compose.containers(*STAGES):
        if container["Config"]["User"] in ("", "root", "0") or not container["HostConfig"]["ReadonlyRootfs"]:
            raise FailedError(f"{service_of(container)} runs as root or may write to its image")
    for container in containers:
        bindings = [b for ports in container["NetworkSettings"]["Ports"].values() for b in ports or []]
        if any(binding["HostIp"] != "127.0.0.1" for binding in bindings):
            raise FailedError(f"{service_of(container)} is published beyond this machine: {bindings}")


def health_of(container: dict[str, Any]) -> str:
    """healthy, unhealthy, starting, or that it is not running at all."""
    state = container["State"]
    return str(state["Health"]["Status"]) if state["Running"] else "not running"


def check_scaling(compose: Compose) -> None:
    """``--scale detect=2`` gives a second healthy detector."""
    compose("up", "-d", "--no-build", "--no-recreate", "--scale", "detect=2")

    def both() -> bool | None:
        healthy = [c for c in compose.containers("detect") if health_of(c) == "healthy"]
        return True if len(healthy) == 2 else None

    until("second healthy detector", 120, both)
    say("--scale detect=2: two healthy detectors")


def check_stopping(compose: Compose) -> None:
    """Every stage ends by itself, and in good order, when it is told to stop."""
    started = time.monotonic()
    compose("stop", *STAGES)
    codes = {service_of(c): c["State"]["ExitCode"] for c in compose.containers(*STAGES)}
    say(f"docker compose stop took {time.monotonic() - started:.0f} s; exit codes: {codes}")
    if any(codes.values()):
        raise FailedError("a stage had to be killed, or failed at its end")


def _end(_number: int, _frame: FrameType | None) -> NoReturn:
    # Unwinds through every `finally`, so that nothing stays running.
    raise SystemExit(143)


if __name__ == "__main__":
    sys.exit(main())
