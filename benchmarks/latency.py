"""From capture to searchable, and what the pipeline costs beside inference.

    python -m benchmarks.latency clip [--seconds 2] [--rounds 2] [--save]
    python -m benchmarks.latency live [--seconds 60] [--save]

``clip``: a 720p video of the demo through the embedded pipeline (`pipeline.embedded`, file decoder, SQLite, pictures
kept: what `ocrstream run CLIP --detector ppocr --recognizer ppocr --read all` does) and through a loop that decodes the
same file, calls RapidOCR on every frame and keeps the text in a list, taking turns at who is first. A file's frames are
never dropped, so they queue before the detector: their delay says how long the queues are, the frames a second say how
fast it is.

``live``: `ocrstream run demo:` as a process of its own. Of a live source the newest frame is taken when the detector
is free, so the delay is what a frame needs to get through.

Searchable means found: a second reader asks the store, by a search for the newest frames, again and again; a frame's
delay ends when an answer holds it. For clips it begins when the producer takes the frame in, live at its capture time.

What the pipeline costs is counted in processor time, which a busy machine does not change much: inference is what the
calls of `Detector.detect` and `Recognizer.read` use, in their own thread and in ONNX Runtime's; the pipeline's own is
everything else that this process and its video decoder use.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import av

from benchmarks.environment import ROOT, environment
from benchmarks.onlooker import Onlooker
from benchmarks.recording import add_save_flag, conclude, median_ratio, percentiles
from ocrstream.config import Configuration, ProducerSettings
from ocrstream.messages import Texts
from ocrstream.metrics import Metrics
from ocrstream.models.ppocr import PpocrDetector, PpocrRecognizer
from ocrstream.storage import WriteReport
from ocrstream.storage.embedded import EmbeddedStore
from ocrstream.storage.opening import open_frames
from ocrstream.transport.memory import MemoryTransport
from pipeline.dead_letters import FOLDER, DeadLetterFolder
from pipeline.embedded import Embedded
from producers.demo import write_clip
from producers.sources import open_sources
from producers.stage import Producer
from training.programs import rapidocr

AS_THE_LOOP = {
    "OCRSTREAM_DETECTOR_ENGINE": "ppocr",
    "OCRSTREAM_RECOGNIZER_ENGINE": "ppocr",
    "OCRSTREAM_DETECTOR_READ": "all",
}
"""The networks that RapidOCR runs, and every frame whole, as the loop beside it reads it."""

R = TypeVar("R")

TICK_S = 1 / os.sysconf("SC_CLK_TCK")
END_TIMEOUT_S = 300.0


class _CpuByThread:
    """Processor time of every thread of this process by its name, also of those that have ended by now."""

    def __init__(self) -> None:
        self._seen: dict[int, tuple[str, float]] = {}
        self._before = {number: cpu_s for number, _, cpu_s in _threads()}

    def look(self) -> None:
        """Take the threads' times."""
        names = {thread.native_id: thread.name for thread in threading.enumerate()}
        for number, command, cpu_s in _threads():
            known = self._seen.get(number, (f"native {command}", 0.0))[0]
            self._seen[number] = names.get(number, known), cpu_s - self._before.get(number, 0.0)

    def seconds(self, without: set[int]) -> dict[str, float]:
        """Seconds by name, for those of 10 ms and more."""
        sums: defaultdict[str, float] = defaultdict(float)
        for number, (name, cpu_s) in self._seen.items():
            if number not in without:
                sums[name] += cpu_s
        return {name: cpu_s for name, cpu_s in sorted(sums.items(), key=lambda item: -item[1]) if cpu_s >= TICK_S}


def _threads() -> Iterator[tuple[int, str, float]]:
    """Number, command and processor seconds of each thread of this process, see proc(5)."""
    for folder in Path("/proc/self/task").iterdir():
        try:
            command, _, cpu_s = stat_of(folder)
        except OSError:
            continue  # it ended just now
        yield int(folder.name), command, cpu_s


def stat_of(folder: Path) -> tuple[str, int, float]:
    """Command, parent's number and processor seconds of a process or thread, by its folder, see proc(5).

    Raises:
        OSError: it is there no more.
    """
    command, _, rest = (folder / "stat").read_text().partition("(")[2].rpartition(")")
    fields = rest.split()
    return command, int(fields[1]), (int(fields[11]) + int(fields[12])) * TICK_S


class Inference:
    """What the engines' calls use while this is entered: calls are wrapped, ONNX Runtime's threads are known."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._in_calls_s: defaultdict[str, float] = defaultdict(float)
        self.wall_s: defaultdict[str, float] = defaultdict(float)
        self.own_threads: set[int] = set()

    @property
    def cpu_s(self) -> float:
        """Seconds in the calls' threads and in ONNX Runtime's."""
        native_s = sum(cpu_s for number, _, cpu_s in _threads() if number in self.own_threads)
        return native_s + sum(self._in_calls_s.values())

    @property
    def in_calls_s(self) -> dict[str, float]:
        """Seconds in the calling threads alone: preparing tensors, decoding outputs."""
        return dict(self._in_calls_s)

    @contextlib.contextmanager
    def wrapped(self) -> Iterator[None]:
        """Measure `detect` and `read`."""
        detect, read = PpocrDetector.detect, PpocrRecognizer.read
        try:
            PpocrDetector.detect = self._timed("detector", detect)  # type: ignore[method-assign]
            PpocrRecognizer.read = self._timed("recognizer", read)  # type: ignore[method-assign]
            yield
        finally:
            PpocrDetector.detect, PpocrRecognizer.read = detect, read  # type: ignore[method-assign]

    @contextlib.contextmanager
    def loading(self) -> Iterator[None]:
        """Whatever threads are there after the engines were loaded, and were not before, are ONNX Runtime's."""
        before = {number for number, _, _ in _threads()}
        yield
        self.own_threads = {number for number, _, _ in _threads()} - before

    def _timed(self, name: str, call: Callable[..., R]) -> Callable[..., R]:
        @wraps(call)
        def timed(*arguments: Any) -> R:
            cpu_s, wall_s = time.thread_time(), time.perf_counter()
            try:
                return call(*arguments)
            finally:
                with self._lock:
                    self._in_calls_s[name] += time.thread_time() - cpu_s
                    self.wall_s[name] += time.perf_counter() - wall_s

        return timed


class NotingStore(EmbeddedStore):
    """The embedded store; remembers when the producer took each frame in, which no document holds."""

    def __init__(self, directory: str | Path) -> None:
        super().__init__(directory)
        self.taken_at_ns: dict[str, int] = {}
        self.lines = 0

    def write(self, batch: Sequence[Texts]) -> WriteReport:
        """See `EmbeddedStore.write`."""
        for texts in batch:
            if texts.info.frame_id not in self.taken_at_ns:
                self.lines += len(texts.lines)
            self.taken_at_ns[texts.info.frame_id] = texts.info.taken_at_ns
        return super().write(batch)


def run_pipeline(clip: Path, frames: int) -> dict[str, Any]:
    """The clip through the embedded pipeline; engines are loaded before the clock starts, as for the loop.

    Raises:
        RuntimeError: not every frame was found.
    """
    inference = Inference()
    with (
        tempfile.TemporaryDirectory(prefix="ocrstream-latency-") as folder,
        contextlib.closing(NotingStore(folder)) as store,
        contextlib.closing(EmbeddedStore(folder)) as reader,
        inference.wrapped(),
    ):
        store.check()
        metrics = Metrics()
        with inference.loading():
            embedded = _load(folder, store, metrics)
        threads = _CpuByThread()
        onlooker = Onlooker(reader, meanwhile=threads.look)
        before = Spent.by_now(inference)
        _run_to_its_end(embedded, clip, metrics, onlooker)
        spent = Spent.by_now(inference) - before
    found = onlooker.found_at_ns
    if len(found) != frames:
        raise RuntimeError(f"{len(found)} of {frames} frames can be found: {metrics.counts()}")
    pipeline_s = spent.process_s + spent.children_s - spent.inference_s - onlooker.cpu_s
    return {
        "frames_per_s": round(frames / onlooker.looked_s, 3),
        "delay_s": percentiles([(found[frame_id] - at_ns) / 1e9 for frame_id, at_ns in store.taken_at_ns.items()]),
        "lines_a_frame": round(store.lines / frames, 1),
        "cpu_s": {
            "inference": round(spent.inference_s, 2),
            "pipeline": round(pipeline_s, 2),
            "pipeline_share_of_inference": round(pipeline_s / spent.inference_s, 4),
        },
        "wall_s_in_calls": {name: round(wall_s, 2) for name, wall_s in inference.wall_s.items()},
        "pipeline_cpu_s_by_thread": {
            "video decoder (a process)": round(spent.children_s, 2),
            **_by_thread(threads, onlooker.name, inference),
        },
    }


def _load(folder: str, store: EmbeddedStore, metrics: Metrics) -> Embedded:
    configuration = Configuration(environment={"OCRSTREAM_DATA_DIR": folder, **AS_THE_LOOP})
    letters = DeadLetterFolder(Path(folder) / FOLDER)
    return Embedded(configuration, store, open_frames(configuration), letters, metrics, live=False)


def _run_to_its_end(embedded: Embedded, clip: Path, metrics: Metrics, onlooker: Onlooker) -> None:
    """Read the clip; its decoder process starts and ends herein."""
    (source,) = open_sources([str(clip)], ProducerSettings())

    def feed(transport: MemoryTransport, stop: threading.Event) -> None:
        Producer(source, transport, metrics).run(stop)

    with contextlib.closing(source):
        onlooker.start()
        embedded.start([feed])
        embedded.wait()
        onlooker.stop()
        embedded.close()


@dataclass(frozen=True, slots=True)
class Spent:
    """Processor seconds: of this process, of its children that have ended, and of inference (part of the first)."""

    process_s: float
    children_s: float
    inference_s: float

    @classmethod
    def by_now(cls, inference: Inference) -> Spent:
        """Since the process began."""
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return cls(time.process_time(), children.ru_utime + children.ru_stime, inference.cpu_s)

    def __sub__(self, earlier: Spent) -> Spent:
        return Spent(
            self.process_s - earlier.process_s,
            self.children_s - earlier.children_s,
            self.inference_s - earlier.inference_s,
        )


def _by_thread(threads: _CpuByThread, without: str, inference: Inference) -> dict[str, float]:
    """Where the pipeline's own processor time goes, in steps of 10 ms."""
    seconds = threads.seconds(without=inference.own_threads)
    for name, in_calls_s in inference.in_calls_s.items():
        for thread in seconds:
            if thread.startswith(f"{name}-handler"):
                seconds[thread] -= in_calls_s
    return {name: round(max(cpu_s, 0.0), 2) for name, cpu_s in seconds.items() if name != without}


def run_loop(clip: Path, read: Callable[[Any], list[Any]]) -> dict[str, Any]:
    """RapidOCR on every frame of the clip, the text into a list."""
    texts: list[list[str]] = []
    delays_s = []
    began_s = time.perf_counter()
    with av.open(str(clip)) as container:
        for frame in container.decode(video=0):
            taken_s = time.perf_counter()
            texts.append([text for _, text in read(frame.to_ndarray(format="bgr24"))])
            delays_s.append(time.perf_counter() - taken_s)
    wall_s = time.perf_counter() - began_s
    return {
        "frames_per_s": round(len(texts) / wall_s, 3),
        "delay_s": percentiles(delays_s),
        "lines_a_frame": round(sum(map(len, texts)) / len(texts), 1),
    }


def measure_clip(seconds: float, rounds: int) -> dict[str, Any]:
    """Both on the same clip, in every round."""
    read = rapidocr()
    results: dict[str, list[dict[str, Any]]] = {"ocrstream": [], "rapidocr_loop": []}
    with tempfile.TemporaryDirectory(prefix="ocrstream-clip-") as folder:
        clip = Path(folder) / "clip.mp4"
        frames = round(seconds * write_clip(clip, seconds).fps)
        contestants: dict[str, Callable[[], dict[str, Any]]] = {
            "ocrstream": lambda: run_pipeline(clip, frames),
            "rapidocr_loop": lambda: run_loop(clip, read),
        }
        for number in range(rounds):
            for name in sorted(contestants, reverse=number % 2 == 1):
                results[name].append(contestants[name]())
    rates = {name: [result["frames_per_s"] for result in list_] for name, list_ in results.items()}
    return {
        "clip": f"{frames} frames of 1280x720",
        **{name: {f"round {number}": result for number, result in enumerate(of, 1)} for name, of in results.items()},
        "median_ratio_of_frames_per_s": median_ratio(rates["ocrstream"], rates["rapidocr_loop"]),
    }


def measure_live(seconds: float) -> dict[str, Any]:
    """The built-in camera for a while, watched by this process.

    Raises:
        RuntimeError: a frame that the store holds was never found, or the program failed.
    """
    with (
        tempfile.TemporaryDirectory(prefix="ocrstream-live-") as folder,
        contextlib.closing(EmbeddedStore(folder)) as reader,
    ):
        reader.check()
        onlooker = Onlooker(reader)
        source = f"demo:?seconds={seconds:g}"
        command = [sys.executable, "-m", "pipeline.cli", "run", source, "--data", folder, "--no-serve"]
        process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
        try:
            onlooker.start()
            code = process.wait(seconds + END_TIMEOUT_S)
        finally:
            process.kill()
            process.wait()
            onlooker.stop()
        stored = sum(summary.frames for summary in reader.sources())
    if code != 0 or stored != len(onlooker.found_at_ns) or not stored:
        raise RuntimeError(f"exit code {code}; {len(onlooker.found_at_ns)} of {stored} stored frames were found")
    delays_s = [
        (found_ns - onlooker.captured_at_ns[frame_id]) / 1e9 for frame_id, found_ns in onlooker.found_at_ns.items()
    ]
    times_ns = onlooker.captured_at_ns.values()
    return {
        "seconds": seconds,
        "frames_read": stored,
        "frames_per_s": round((stored - 1) / max((max(times_ns) - min(times_ns)) / 1e9, 1e-9), 3),
        "delay_s": percentiles(delays_s),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and report."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.latency", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=("clip", "live"))
    parser.add_argument("--seconds", type=float, help="length of the clip (default: 2) or of the live run (60)")
    parser.add_argument("--rounds", type=int, default=2, help="clip: rounds (default: 2)")
    add_save_flag(parser)
    options = parser.parse_args(arguments)
    circumstances = environment("ocrstream", "rapidocr", "onnxruntime", "opencv-python-headless", "av", "numpy")
    if options.what == "clip":
        figures = measure_clip(options.seconds or 2.0, options.rounds)
    else:
        figures = measure_live(options.seconds or 60.0)
    conclude(f"latency-{options.what}", circumstances, figures, save=options.save)


if __name__ == "__main__":
    main()
