"""A real server's process: started until it says that it is ready, stopped, killed, started again with its data."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from collections import deque
from pathlib import Path


class Server(ABC):
    """A server on loopback, with its data in a temporary folder.

    It can be stopped and started again on the same port with the same data, to take it away from a test.

    Args:
        name: what it is called where something goes wrong.
        ready_mark: what it logs when it is ready.
        start_timeout_s: how long that may take.
    """

    def __init__(self, name: str, ready_mark: str, start_timeout_s: float) -> None:
        self._name = name
        self._ready_mark = ready_mark
        self._start_timeout_s = start_timeout_s
        self._folder = Path(tempfile.mkdtemp(prefix=f"ocrstream-{name.lower()}-"))
        self._process: subprocess.Popen[str] | None = None
        self._follower: threading.Thread | None = None

    def start(self) -> None:
        """Start it and wait until it is ready.

        Raises:
            RuntimeError: it ended instead; the message is what it logged last.
        """
        self._process = self._launch()
        self._wait_until_ready(self._process)

    def stop(self) -> None:
        """Stop it in good order; its data stays."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a power cut does."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Stop it and remove its data."""
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    @abstractmethod
    def _launch(self) -> subprocess.Popen[str]:
        """Its process, in a session of its own, with what it logs on its standard output."""

    def _is_healthy(self) -> bool:
        """Whether it answers, once it has said that it is ready."""
        return True

    def _wait_until_ready(self, process: subprocess.Popen[str]) -> None:
        last: deque[str] = deque(maxlen=40)
        decided, ready = threading.Event(), threading.Event()

        def follow() -> None:
            # To the end, so that the server never blocks on a full pipe.
            assert process.stdout is not None
            with process.stdout:
                for line in process.stdout:
                    last.append(line)
                    if self._ready_mark in line:
                        ready.set()
                        decided.set()
            decided.set()

        self._follower = threading.Thread(target=follow, name=f"{self._name}-log", daemon=True)
        self._follower.start()
        decided.wait(timeout=self._start_timeout_s)
        if not ready.is_set() or not self._is_healthy():
            self.kill()
            raise RuntimeError(f"{self._name} did not start; its log ends with:\n{''.join(last)}")

    def _end(self, how: signal.Signals) -> None:
        if self._process is None:
            return
        if how == signal.SIGKILL:
            # A launcher and the server may be two processes: the session lets both be ended at once.
            os.killpg(self._process.pid, how)
        else:
            self._process.send_signal(how)
        self._process.wait(timeout=60)
        if self._follower is not None:
            self._follower.join(timeout=30)
        self._process = self._follower = None
