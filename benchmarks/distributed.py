"""Cameras through the distributed mode: the program's own commands over a real Kafka and a real Elasticsearch.

``ocrstream produce``, ``detect``, ``recognize`` and ``index`` run as processes of their own, on the machine of both
servers (those of the tests). What is measured is as in `benchmarks.camera`; a search asks Elasticsearch.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from benchmarks.environment import ROOT
from benchmarks.latency import stat_of
from benchmarks.onlooker import Onlooker, frame_rates
from ocrstream.config import ElasticsearchSettings
from ocrstream.storage.elastic import ElasticStore
from tests.services.elasticsearch import ElasticsearchServer
from tests.services.kafka import KafkaServer

LOOK_EVERY_S = 0.05
"""A search of Elasticsearch costs more than one of SQLite, and both cores are busy."""

PATIENCE_S = 120.0
QUIET_S = 3.0
"""So long after the cameras have gone nothing is under way any more."""

_COUNT = re.compile(r"([a-z]+\.[a-z_]+) (\d+)")


class _Stage:
    """One command in a process of its own, with what it says in a file."""

    def __init__(self, folder: Path, command: str, *arguments: str) -> None:
        self._log = folder / f"{command}.log"
        self._command = command
        with self._log.open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pipeline.cli", command, *arguments], cwd=ROOT, stdout=log, stderr=log
            )

    def wait_until_it_says(self, words: str) -> None:
        """Wait for words in its output.

        Raises:
            RuntimeError: they do not come.
        """
        began_s = time.monotonic()
        while words not in (said := self._log.read_text()):
            if self.process.poll() is not None or time.monotonic() - began_s > PATIENCE_S:
                raise RuntimeError(f"{self._command} did not say {words!r}:\n{said}")
            time.sleep(0.05)

    def end(self) -> dict[str, int]:
        """Stop it in good order; what it has counted."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(PATIENCE_S)
        return {name: int(count) for name, count in _COUNT.findall(self._log.read_text().rpartition("stopped: ")[2])}


def watch_distributed(sources: Sequence[str], seconds: float, fps: float = 0.0) -> dict[str, Any]:
    """Read cameras for a while.

    Args:
        sources: ``NAME=ADDRESS``.
        seconds: for so long after the first text of each was found.
        fps: how many of each one's frames a second the producer takes at most; 0 takes all.

    Raises:
        RuntimeError: a server or a stage does not start, or nothing is found.
    """
    with _servers() as (kafka, url), tempfile.TemporaryDirectory(prefix="ocrstream-distributed-") as name:
        folder = Path(name)
        reader = ElasticStore(ElasticsearchSettings(url=url))
        reader.check()
        onlooker = Onlooker(reader, [source.partition("=")[0] for source in sources], LOOK_EVERY_S)
        elasticsearch = ("--elasticsearch", url)
        stages: list[_Stage] = []
        try:
            for command, more in (("index", elasticsearch), ("recognize", ()), ("detect", ())):
                stages.append(_Stage(folder, command, "--kafka", kafka, *more))
                stages[-1].wait_until_it_says("ready")
            onlooker.start()
            began_s = time.monotonic()
            stages.append(_Stage(folder, "produce", *sources, "--kafka", kafka, "--fps", f"{fps:g}"))
            onlooker.wait_for_all(PATIENCE_S)
            since_ns, before = time.time_ns(), _spent_s([stage.process.pid for stage in stages])
            time.sleep(seconds)
            until_ns, after = time.time_ns(), _spent_s([stage.process.pid for stage in stages])
            counts, ran_s = stages[-1].end(), time.monotonic() - began_s
            time.sleep(QUIET_S)
            for stage in stages[:-1]:
                counts |= stage.end()
        finally:
            onlooker.stop()
            for stage in stages:
                stage.process.kill()
                stage.process.wait()
            reader.close()
    # All that was counted is of the whole run, the producer's start (a second or two) included.
    return {
        "cameras": len(sources),
        "seconds": seconds,
        "fps": fps,
        **frame_rates(counts, ran_s),
        **onlooker.figures(since_ns, until_ns),
        "cpu_s_per_s": round((after - before) / seconds, 3),
    }


@contextlib.contextmanager
def _servers() -> Iterator[tuple[str, str]]:
    kafka, elasticsearch = KafkaServer(), ElasticsearchServer()
    try:
        kafka.start()
        elasticsearch.start()
        yield kafka.servers, elasticsearch.url
    finally:
        kafka.close()
        elasticsearch.close()


def _spent_s(processes: Sequence[int]) -> float:
    """Processor seconds of these processes and of what they have started."""
    spent_s: dict[int, float] = {}
    children: defaultdict[int, list[int]] = defaultdict(list)
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            _, parent, spent_s[int(folder.name)] = stat_of(folder)
        except OSError:
            continue  # it ended just now
        children[parent].append(int(folder.name))
    waiting, total_s = list(processes), 0.0
    while waiting:
        process = waiting.pop()
        total_s += spent_s.get(process, 0.0)
        waiting += children[process]
    return total_s
