"""The real servers the tests run against, from package registries, on free ports, in temporary folders."""

import os
import socket
from typing import NoReturn

import pytest


def unavailable(reason: str) -> NoReturn:
    """Skip the test with its reason; in CI, where every server has to be there, fail instead."""
    if os.environ.get("CI"):
        pytest.fail(f"in CI this has to be there: {reason}")
    pytest.skip(reason)


def free_port() -> int:
    """A TCP port on the loopback address that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
