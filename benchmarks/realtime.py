"""Videos with exact labels, read by this program with and without its parts, and by RapidOCR frame by frame.

python -m benchmarks.realtime CLIPS_DIR [--kinds still …] [--systems ocrstream …] [--save]
"""

from __future__ import annotations

import argparse
import contextlib
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.clips import FPS, SeenWord, load_labels
from benchmarks.pairs import Said, appearances, frame_ms, pairs, said_at
from ocrstream.config import Configuration, ProducerSettings
from ocrstream.messages import Appearance
from ocrstream.metrics import Metrics
from ocrstream.storage import Filter
from ocrstream.storage.embedded import EmbeddedStore
from ocrstream.storage.opening import open_frames
from ocrstream.transport.memory import MemoryTransport
from pipeline.dead_letters import FOLDER, DeadLetterFolder
from pipeline.embedded import Embedded
from producers.sources import open_sources
from producers.stage import Producer
from search.timeline import Sighting


@dataclass(slots=True)
class Outcome:
    """What a system made of a clip.

    Attributes:
        said: of each frame.
        sightings: its appearances.
        wall_s: from the first frame to the last text.
        cpu_s: processor seconds in that time, the video decoder's included.
    """

    said: list[list[Said]]
    sightings: list[Sighting]
    wall_s: float
    cpu_s: float
    counts: dict[str, int] = field(default_factory=dict)


def cpu_s() -> float:
    """Processor seconds of this process and of its children that have ended."""
    return sum(
        used.ru_utime + used.ru_stime
        for used in (resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN))
    )


def sighting_of(appearance: Appearance) -> Sighting:
    """An appearance as it is drawn and judged."""
    return Sighting(
        appearance.text, appearance.confidence, appearance.first_ms or 0.0, appearance.last_ms or 0.0, appearance.path
    )


def read_with_ocrstream(video: Path, frames: int, settings: dict[str, str] | None = None) -> Outcome:
    """What ``ocrstream run VIDEO`` does; the engines are loaded before the clock starts."""
    with (
        tempfile.TemporaryDirectory(prefix="ocrstream-realtime-") as folder,
        contextlib.closing(EmbeddedStore(folder)) as store,
    ):
        store.check()
        metrics = Metrics()
        configuration = Configuration(environment={"OCRSTREAM_DATA_DIR": folder, **(settings or {})})
        letters = DeadLetterFolder(Path(folder) / FOLDER)
        embedded = Embedded(configuration, store, open_frames(configuration), letters, metrics, live=False)
        began_s, began_cpu_s = time.perf_counter(), cpu_s()
        (source,) = open_sources([str(video)], ProducerSettings())

        def feed(transport: MemoryTransport, stop: threading.Event) -> None:
            Producer(source, transport, metrics).run(stop)

        with contextlib.closing(source):
            embedded.start([feed])
            embedded.wait()
            wall_s = time.perf_counter() - began_s
            embedded.close()
        spent_s = cpu_s() - began_cpu_s
        sightings = [sighting_of(appearance) for appearance in store.appearances(Filter())]
    said = [said_at(sightings, frame_ms(index)) for index in range(frames)]
    return Outcome(said, sightings, wall_s, spent_s, metrics.counts())


def judge(labels: list[list[SeenWord]], outcome: Outcome) -> dict[str, object]:
    """The figures of a clip."""
    return {
        "pairs": pairs(labels, outcome.said).figures(),
        "appearances": appearances(labels, outcome.sightings).figures(),
        "frames_per_s": round(len(labels) / outcome.wall_s, 1),
        "cpu_s_per_s": round(outcome.cpu_s / (len(labels) / FPS), 3),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.realtime")
    parser.add_argument("clips", type=Path, metavar="CLIPS_DIR")
    options = parser.parse_args(argv)
    for video in sorted(options.clips.glob("*.mp4")):
        labels = load_labels(video.with_suffix(".jsonl"))
        outcome = read_with_ocrstream(video, len(labels))
        print(video.stem, judge(labels, outcome), flush=True)
        counted = pairs(labels, outcome.said)
        print("  missed", counted.missed.most_common(12), "\n  wrong", counted.wrong.most_common(12), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
