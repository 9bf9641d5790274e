"""A clip as a camera shows it: sent in a loop at its own rate, and taken as a live source by the embedded pipeline.

A process of its own sends the clip's packets as they are (MPEG-TS over TCP, nothing is encoded), as an IP camera would;
the pipeline takes them like any address of a camera, decoder process included. A frame's delay begins when the decoder
has it, and ends when a search finds it (`benchmarks.onlooker`). A document is made only of frames that show
something new, and of one every so often; those are measured. What the detector finds in a frame is told of a later one,
so the time that its engine takes is not in this delay: a new text is found by so much later than it comes into view.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from benchmarks.distributed import watch_distributed
from benchmarks.embedded import embedded_run
from benchmarks.environment import ROOT
from benchmarks.onlooker import Onlooker, frame_rates
from ocrstream.metrics import Metrics
from ocrstream.storage.embedded import EmbeddedStore

START_TIMEOUT_S = 30.0

LISTENING = "0A"
"""The state in /proc/net/tcp, see proc(5)."""


def cpu_s() -> float:
    """Processor seconds of this process and of its children that have ended."""
    return time.process_time() + _children_s()


def packets_in_a_loop(video: Path) -> Iterator[tuple[float, av.Packet[Any], av.VideoStream]]:
    """A clip's packets without end: when each is due in seconds, and its stream to make one like it of."""
    offset = Fraction(0)
    while True:
        with av.open(str(video)) as container:
            stream = container.streams.video[0]
            assert stream.time_base is not None
            assert stream.average_rate is not None
            end = Fraction(0)
            for packet in container.demux(stream):
                if packet.dts is None or packet.pts is None:
                    continue
                end = max(end, packet.pts * stream.time_base + 1 / stream.average_rate)
                shift = int(offset / stream.time_base)
                due_s = float(packet.dts * stream.time_base + offset)
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                yield due_s, packet, stream
        offset += end


def send(video: Path, port: int) -> None:
    """Be the camera: wait for one viewer on a port of this machine, and show it the clip until it goes.

    Of each packet its time in the clip is printed, in seconds, and when it was sent, in nanoseconds since 1970.
    """
    address = f"tcp://127.0.0.1:{port}?listen=1"
    shown, began_s = None, 0.0
    # The viewer's going ends it.
    with (
        contextlib.suppress(OSError),
        av.open(address, "w", format="mpegts", options={"flush_packets": "1"}) as out,
    ):
        for due_s, packet, stream in packets_in_a_loop(video):
            if shown is None:
                shown = packet.stream = out.add_stream_from_template(stream)
                # Waits for the viewer: time that passes until then is not to be made up for.
                out.mux_one(packet)
                began_s = time.monotonic() - due_s
                continue
            time.sleep(max(began_s + due_s - time.monotonic(), 0))
            packet.stream = shown
            out.mux_one(packet)
            print(f"{due_s:.3f} {time.time_ns()}", flush=True)


def measure_live(
    videos: Sequence[Path], seconds: float, *, distributed: bool = False, fps: float = 0.0
) -> dict[str, Any]:
    """Read clips as so many cameras for a while.

    Args:
        videos: the cameras' clips.
        seconds: how long.
        distributed: over Kafka and Elasticsearch, see `benchmarks.distributed`; else in this process.
        fps: with ``distributed``: how many frames a second the producer takes at most; 0 takes all.

    Raises:
        RuntimeError: no frame was stored, or one that was stored was never found.
    """
    with ExitStack() as stack:
        sources = [
            f"camera-{number}=tcp://127.0.0.1:{stack.enter_context(camera(video))}"
            for number, video in enumerate(videos, 1)
        ]
        if distributed:
            return watch_distributed(sources, seconds, fps)
        return _watch(sources, seconds)


@contextlib.contextmanager
def camera(video: Path, sent: Path = Path(os.devnull)) -> Iterator[int]:
    """A camera that waits at a port of this machine.

    Args:
        video: what it shows.
        sent: where it writes what `send` prints.
    """
    port = _free_port()
    command = [sys.executable, "-m", "benchmarks.camera", str(video), str(port)]
    with sent.open("w") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log)
    try:
        _wait_for("the camera does not start", lambda: _is_listened_to(port))
        yield port
    finally:
        process.kill()
        process.wait()


def _watch(sources: Sequence[str], seconds: float) -> dict[str, Any]:
    with (
        tempfile.TemporaryDirectory(prefix="ocrstream-camera-") as folder,
        contextlib.closing(EmbeddedStore(folder)) as reader,
    ):
        onlooker = Onlooker(reader, [source.partition("=")[0] for source in sources])
        with embedded_run(folder, sources) as run:
            stop = _Stop(run.metrics, seconds)
            children_s = _children_s()
            onlooker.start()
            stop.start()
            run.run()
            onlooker.stop()
        # The decoders live no longer than the seconds that are measured, but for their start and their end.
        spent_s = stop.cpu_s + _children_s() - children_s - onlooker.cpu_s
        stored = sum(summary.frames for summary in reader.sources())
    if stored != len(onlooker.found_at_ns):
        raise RuntimeError(f"{len(onlooker.found_at_ns)} of {stored} stored frames were found: {run.metrics.counts()}")
    return {
        "cameras": len(sources),
        "seconds": seconds,
        **frame_rates(stop.counts, seconds),
        **onlooker.figures(),
        "cpu_s_per_s": round(spent_s / seconds, 3),
    }


class _Stop(threading.Thread):
    """Asks this process to stop, as Ctrl-C does, so many seconds after the first frame came.

    Attributes:
        counts: of these seconds. Frames are counted as they are confirmed, every half second.
        cpu_s: processor seconds that this process used in them.
    """

    def __init__(self, metrics: Metrics, seconds: float) -> None:
        super().__init__(name="stop", daemon=True)
        self._metrics = metrics
        self._seconds = seconds
        self.counts: dict[str, int] = {}
        self.cpu_s = 0.0

    def run(self) -> None:
        try:
            _wait_for("the camera gives nothing", lambda: self._metrics.count("producer.frames"))
            before, before_s = self._metrics.counts(), time.process_time()
            time.sleep(self._seconds)
            self.counts = {name: count - before.get(name, 0) for name, count in self._metrics.counts().items()}
            self.cpu_s = time.process_time() - before_s
        finally:
            os.kill(os.getpid(), signal.SIGTERM)


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _wait_for(failure: str, has_come: Callable[[], object]) -> None:
    began_s = time.perf_counter()
    while not has_come():
        if time.perf_counter() - began_s > START_TIMEOUT_S:
            raise RuntimeError(f"{failure}, {START_TIMEOUT_S:g} s long")
        time.sleep(0.01)


def _is_listened_to(port: int) -> bool:
    """Whether somebody waits at a port, without calling there: the camera answers one caller only."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]]
    return any(row[1].endswith(f":{port:04X}") and row[3] == LISTENING for row in rows)


def _free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        port: int = server.getsockname()[1]
        return port


if __name__ == "__main__":
    send(Path(sys.argv[1]), int(sys.argv[2]))
