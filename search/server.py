"""The server that the search page runs on: one thread, one port, on loopback unless told otherwise."""

from __future__ import annotations

import errno
import ipaddress
import socket
import threading
from types import TracebackType
from typing import Self

import uvicorn
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ocrstream.errors import ConfigError


class PageServer:
    """Serves an app on a thread of its own; also a context manager.

    Args:
        app: what `search.web.build_app` made.
        host: the address to listen on. On a loopback address only loopback names are answered to.
        port: the port; 0 takes a free one.

    Attributes:
        address: what to open in a browser.

    Raises:
        ConfigError: the address cannot be listened on; the message says what to do.
    """

    def __init__(self, app: ASGIApp, host: str = "127.0.0.1", port: int = 8077) -> None:
        # Bound here and not by uvicorn, so that a port that is taken is this call's error and port 0 has a number.
        self._socket = _listen(host, port)
        self.address = _address(host, self._socket.getsockname()[1])
        guarded = _LoopbackOnly(app, host) if _is_loopback(host) else app
        config = uvicorn.Config(
            guarded,
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            ws="none",
            timeout_graceful_shutdown=5,
        )
        self._server = _Server(config)
        self._thread = threading.Thread(target=self._run, name="search-page", daemon=True)

    def start(self) -> None:
        """Begin to answer; returns once it does."""
        self._thread.start()
        self._server.answering.wait()

    def stop(self) -> None:
        """Finish the requests under way, for at most five seconds, and free the port."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _run(self) -> None:
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._server.answering.set()


class _Server(uvicorn.Server):
    """Tells when it answers."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.answering = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.answering.set()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise ConfigError(f"{host!r} is no address of this machine ({error}); give one with --host") from error
    listening = socket.socket(family, kind, protocol)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise ConfigError(_why_not(host, port, error)) from error
    return listening


def _why_not(host: str, port: int, error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken on {host}: give another with --port, or --port 0 for any that is free"
    if error.errno == errno.EACCES:
        return f"this user may not listen on port {port}: give one from 1024 up with --port"
    return f"cannot listen on {host} port {port}: {error.strerror}; give an address of this machine with --host"


def _address(host: str, port: int) -> str:
    if host in ("", "0.0.0.0", "::"):  # noqa: S104 compared, not bound
        host = "localhost"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class _LoopbackOnly:
    """Answers to loopback names only.

    Another site's page can make its own name resolve to 127.0.0.1 and then read what this page shows (DNS rebinding);
    the browser still sends that name as Host.
    """

    def __init__(self, app: ASGIApp, host: str) -> None:
        self._app = app
        self._names = {"localhost", "127.0.0.1", "::1", host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            name = _host_name(Headers(scope=scope).get("host", ""))
            if name not in self._names and not name.endswith(".localhost"):
                answer = PlainTextResponse("This page answers to the name localhost only.\n", 421)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _host_name(host: str) -> str:
    """The name in a Host header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0].lower()
    return host.partition(":")[0].lower()
