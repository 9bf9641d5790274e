"""Runs the program as a user does: as a process, with the tests' engines installed."""

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ocrstream_test_engines import process_environment

PROGRAM = [sys.executable, "-m", "pipeline.cli"]
PATIENCE_S = 120.0


def ocrstream(
    *arguments: str | Path,
    expect: int | None = 0,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = PATIENCE_S,
) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end and check its exit code (None: any)."""
    done = subprocess.run(
        [*PROGRAM, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**process_environment(), **(environment or {})},
        check=False,
    )
    said = f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert expect is None or done.returncode == expect, said
    assert "Traceback" not in done.stderr, said
    return done


def json_lines(text: str) -> list[dict[str, Any]]:
    """The objects of JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


class Running:
    """A command that runs in the background, with what it has said so far."""

    def __init__(self, arguments: Sequence[str | Path], environment: dict[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [*PROGRAM, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**process_environment(), **(environment or {})},
        )
        self._command = " ".join(map(str, arguments))
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def output(self) -> str:
        """What it has said so far."""
        with self._changed:
            return "".join(self._lines)

    def wait_for(self, condition: Callable[[str], bool], what: str) -> str:
        """Wait until its output fulfils a condition; returns the output."""
        with self._changed:
            met = self._changed.wait_for(
                lambda: condition("".join(self._lines)) or self.process.poll() is not None, PATIENCE_S
            )
            said = "".join(self._lines)
        assert met, f"{what} did not come:\n{said}"
        assert condition(said), f"it ended before {what} (exit code {self.process.poll()}):\n{said}"
        return said

    def say(self, text: str) -> str:
        """Wait until it says something; returns the output."""
        return self.wait_for(lambda said: text in said, repr(text))

    def end(self, number: int = signal.SIGTERM, expect: int = 0) -> str:
        """Signal it and wait for its end; returns the output."""
        self.process.send_signal(number)
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert code == expect, f"exit code {code}\n{self.output}"
        return self.output

    def kill(self) -> None:
        """End it as a power cut would; what it has said is shown with a test that fails."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        assert self.process.stdout is not None
        if not self.process.stdout.closed:
            self.process.stdout.close()
            sys.stdout.write(f"{self._command}, exit code {self.process.returncode}:\n{self.output}\n")

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()


@contextmanager
def running(*arguments: str | Path, **environment: str) -> Iterator[Running]:
    """A command in the background, killed at the end if it still runs."""
    command = Running(arguments, environment)
    try:
        yield command
    finally:
        command.kill()


def until(condition: Callable[[], bool], what: str, patience_s: float = PATIENCE_S) -> None:
    """Ask again and again until something outside this process has become true."""
    pause, deadline_s = threading.Event(), time.monotonic() + patience_s
    while time.monotonic() < deadline_s:
        if condition():
            return
        pause.wait(0.2)
    raise AssertionError(f"{what} did not come about in {patience_s:.0f} s")
