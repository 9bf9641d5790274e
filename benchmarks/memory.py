"""Memory of `ocrstream run demo:` over a live run: flat, or not.

    python -m benchmarks.memory [--minutes 10] [--page] [--save]

The program runs as a process, as a user starts it; the resident memory of it and of all its children is taken every
five seconds. The first fifth of the run (two of ten minutes) fills caches and pools, so the slope is that of the rest:
least squares, with its standard error widened by the correlation of neighbouring residuals (a sawtooth is not noise).
With ``--page`` the search page is served and asked for hits and a picture every ten seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

from benchmarks.environment import ROOT, environment
from benchmarks.recording import add_save_flag, conclude
from ocrstream.storage.embedded import EmbeddedStore
from tests.services import free_port

SAMPLE_EVERY_S = 5.0
QUERY_EVERY_S = 10.0
WARM_UP_SHARE = 0.2
MB = 1e6
REQUEST_TIMEOUT_S = 30.0
END_TIMEOUT_S = 120.0
WORDS = ("boarding", "gate*", "exit~", '"platform 4"', "sale OR open")


@dataclass(frozen=True, slots=True)
class Slope:
    """A straight line's rise and its standard error, both in MB an hour."""

    mb_per_h: float
    error_mb_per_h: float


def slope_of(times_s: Sequence[float], sizes_mb: Sequence[float]) -> Slope:
    """The least-squares slope of sizes over time.

    The error is the usual one times sqrt((1 + r) / (1 - r)), where r is the correlation of neighbouring residuals
    (Santer et al. 2000, Journal of Geophysical Research 105, equation 6): neighbours that are alike say less.

    Args:
        times_s: seconds, at least three.
        sizes_mb: megabytes at those times.
    """
    hours, sizes = np.asarray(times_s) / 3600, np.asarray(sizes_mb)
    centred = hours - hours.mean()
    rise = float((centred * sizes).sum() / (centred**2).sum())
    residuals = sizes - sizes.mean() - rise * centred
    error = float(np.sqrt((residuals**2).sum() / (len(sizes) - 2) / (centred**2).sum()))
    variance = float((residuals**2).sum())
    alike = float((residuals[1:] * residuals[:-1]).sum()) / variance if variance > 0 else 0.0
    alike = min(max(alike, 0.0), 0.99)
    return Slope(round(rise, 2), round(error * float(np.sqrt((1 + alike) / (1 - alike))), 2))


def resident_mb(process: psutil.Process) -> float:
    """Resident memory of a process and all its children, in megabytes."""
    total = 0
    for member in (process, *process.children(recursive=True)):
        # A child may end between the listing and the question.
        with contextlib.suppress(psutil.NoSuchProcess):
            total += member.memory_info().rss
    return total / MB


def sample(process: subprocess.Popen[bytes], minutes: float) -> Iterator[tuple[float, float]]:
    """Yield ``(seconds, megabytes)`` until the time is over.

    Raises:
        RuntimeError: the process ended before.
    """
    family = psutil.Process(process.pid)
    began = time.monotonic()
    for number in itertools.count(1):
        yield time.monotonic() - began, resident_mb(family)
        due_s = number * SAMPLE_EVERY_S
        if due_s > minutes * 60:
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            code = process.wait(max(began + due_s - time.monotonic(), 0))
            raise RuntimeError(f"ocrstream ended by itself with exit code {code}; see what it said above")


class Visitor(threading.Thread):
    """Somebody who looks for a word now and then, and at the best hit's picture."""

    def __init__(self, address: str) -> None:
        super().__init__(name="visitor", daemon=True)
        self._address = address
        self._left = threading.Event()
        self.answers = 0
        self.pictures = 0
        self.failures: list[str] = []

    def run(self) -> None:
        """Visit until told to leave."""
        for word in itertools.cycle(WORDS):
            if self._left.wait(QUERY_EVERY_S):
                return
            query = urllib.parse.quote(word)
            try:
                self._get(f"/?q={query}")
                hits = json.loads(self._get(f"/api/search?q={query}"))["hits"]
                self.answers += 1
                if hits:
                    self._get(f"/frames/{hits[0]['frame_id']}.jpg?w=640")
                    self.pictures += 1
            except (OSError, ValueError, KeyError) as error:
                self.failures.append(f"{word}: {error!r}")

    def leave(self) -> None:
        """Stop visiting."""
        self._left.set()
        self.join()

    def _get(self, path: str) -> bytes:
        with urllib.request.urlopen(self._address + path, timeout=REQUEST_TIMEOUT_S) as answer:
            content: bytes = answer.read()
            return content


@contextlib.contextmanager
def live_run(data: str, serving: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """``ocrstream run demo:`` with its output passed on, ended by Ctrl-C's signal."""
    command = [sys.executable, "-m", "pipeline.cli", "run", "demo:", "--data", data, *serving]
    process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    try:
        yield process
        process.send_signal(signal.SIGINT)
        process.wait(END_TIMEOUT_S)
    finally:
        process.kill()
        process.wait()


def measure(minutes: float, page: bool) -> dict[str, object]:
    """Run and sum up."""
    port = free_port()
    serving = ["--port", str(port)] if page else ["--no-serve"]
    visitor = Visitor(f"http://127.0.0.1:{port}")
    with tempfile.TemporaryDirectory(prefix="ocrstream-memory-") as data:
        with live_run(data, serving) as process:
            if page:
                visitor.start()
            samples = list(sample(process, minutes))
            if page:
                visitor.leave()
        with contextlib.closing(EmbeddedStore(data)) as store:
            frames = sum(source.frames for source in store.sources())
        stored_mb = sum(path.stat().st_size for path in Path(data).rglob("*") if path.is_file()) / MB
    figures = summary(samples, minutes)
    figures |= {"page_served": page, "frames_stored": frames, "stored_mb": round(stored_mb, 1)}
    figures["exit_code"] = process.returncode
    if page:
        figures |= {"answers": visitor.answers, "pictures": visitor.pictures, "failures": visitor.failures}
    return figures


def summary(samples: Sequence[tuple[float, float]], minutes: float) -> dict[str, object]:
    """Megabytes at some moments, and the slope after the warm-up."""
    times_s, sizes_mb = zip(*samples, strict=True)
    steady = [(at_s, size) for at_s, size in samples if at_s >= minutes * 60 * WARM_UP_SHARE]
    slope = slope_of(*zip(*steady, strict=True))
    moments = {f"{share * minutes:g} min": share * minutes * 60 for share in (0.1, 0.2, 0.5, 1.0)}
    return {
        "mb_at": {name: round(float(np.interp(at_s, times_s, sizes_mb)), 1) for name, at_s in moments.items()},
        "highest_mb": round(max(sizes_mb), 1),
        "slope_mb_per_h": slope.mb_per_h,
        "slope_error_mb_per_h": slope.error_mb_per_h,
        "steady_first_half_mb": _median(steady[: len(steady) // 2]),
        "steady_second_half_mb": _median(steady[len(steady) // 2 :]),
        "samples_mb": " ".join(f"{size:.0f}" for size in sizes_mb),
    }


def _median(samples: Sequence[tuple[float, float]]) -> float:
    return round(float(np.median([size for _, size in samples])), 1)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.memory", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="how long (default: 10)")
    parser.add_argument("--page", action="store_true", help="serve the search page and visit it now and then")
    add_save_flag(parser)
    options = parser.parse_args(arguments)
    circumstances = environment("ocrstream", "onnxruntime", "opencv-python-headless", "numpy", "uvicorn")
    name = "memory-page" if options.page else "memory"
    conclude(name, circumstances, measure(options.minutes, options.page), save=options.save)


if __name__ == "__main__":
    main()
