"""Counts and latencies of a running process, for the status line and the search page's status.

Counters are named ``stage.event`` (``producer.frames``, ``detector.dropped``); gauges hold a source's latest value
(``indexer.media_time_ms``); latencies keep the last 2,000 values.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict, deque
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles over the values kept, in seconds."""

    p50_s: float
    p95_s: float
    p99_s: float
    count: int


class Metrics:
    """A registry shared by the threads of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()
        self._by_source: Counter[tuple[str, str]] = Counter()
        self._gauges: dict[tuple[str, str], float] = {}
        self._values: defaultdict[str, deque[float]] = defaultdict(lambda: deque(maxlen=2000))

    def add(self, name: str, amount: int = 1, *, source_id: str | None = None) -> None:
        """Count events; with a source they are counted for it too."""
        with self._lock:
            self._counts[name] += amount
            if source_id is not None:
                self._by_source[name, source_id] += amount

    def set(self, name: str, value: float, *, source_id: str) -> None:
        """Note a source's latest value."""
        with self._lock:
            self._gauges[name, source_id] = value

    def gauge(self, name: str, *, source_id: str) -> float | None:
        """A source's latest value; None before the first."""
        with self._lock:
            return self._gauges.get((name, source_id))

    def observe(self, name: str, seconds: float) -> None:
        """Keep one duration."""
        with self._lock:
            self._values[name].append(seconds)

    def count(self, name: str, *, source_id: str | None = None) -> int:
        """How many events were counted, in all or of one source."""
        with self._lock:
            return self._counts[name] if source_id is None else self._by_source[name, source_id]

    def counts(self) -> dict[str, int]:
        """All counters."""
        with self._lock:
            return dict(self._counts)

    def latency(self, name: str) -> Latency | None:
        """Percentiles of a duration's latest values; None before the first."""
        with self._lock:
            values = sorted(self._values[name])
        if not values:
            return None
        p50_s, p95_s, p99_s = (values[min(int(len(values) * share), len(values) - 1)] for share in (0.5, 0.95, 0.99))
        return Latency(p50_s, p95_s, p99_s, len(values))
