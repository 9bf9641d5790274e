"""Videos with exact labels, read by this program with and without its parts, and by RapidOCR frame by frame.

    python -m benchmarks.realtime CLIPS_DIR [--kinds still …] [--systems ocrstream …] [--every N] [--fps N] [--words]
    python -m benchmarks.realtime CLIPS_DIR --live SECONDS [--cameras N] [--distributed [--fps N]] [--save]

CLIPS_DIR holds what `benchmarks.clips` makes. What is measured of texts: `benchmarks.pairs`. Other videos there have no
labels: of those the number of texts is told, and with ``--words`` what they say. Beside that, frames a
second, and processor seconds for a second of video: this process and its video decoder, from the first frame to the
last text; engines are loaded before. One system runs at a time.

============== ======================================================================================
ocrstream      ``ocrstream run CLIP``
read-all       the same with ``--read all``: every line of every frame
no-gate …      without a part, see `benchmarks.parts`
rapidocr       RapidOCR at its default settings on every frame. What it reads is kept in CLIPS_DIR/rapidocr
rapidocr-nth   on every Nth frame, which holds until the next; without ``--every`` N is such that it has
               the processor time that ``ocrstream`` took of the clip
============== ======================================================================================

``--live`` plays each clip in a loop, as a camera does, see `benchmarks.camera`; with ``--cameras N`` so many at once,
which take the clips in turn; with ``--distributed`` through Kafka and Elasticsearch.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.camera import cpu_s, measure_live
from benchmarks.clips import ALL_KINDS, load_labels
from benchmarks.embedded import embedded_run
from benchmarks.environment import environment
from benchmarks.layers import FPS, SeenWord
from benchmarks.pairs import Counts, Said, appearances, frame_ms, linked, pairs, said_at, said_words
from benchmarks.parts import PARTS, without
from benchmarks.recording import add_save_flag, conclude
from ocrstream.errors import OcrstreamError
from ocrstream.geometry import Polygon, polygon_of
from ocrstream.messages import Appearance
from ocrstream.storage import Filter
from ocrstream.storage.embedded import EmbeddedStore
from search.timeline import Sighting
from training.programs import rapidocr

SYSTEMS = ("ocrstream", "read-all", *(f"no-{part}" for part in PARTS), "rapidocr", "rapidocr-nth")


@dataclass(slots=True)
class Outcome:
    """What a system made of a clip.

    Attributes:
        said: of each frame.
        sightings: its appearances.
        wall_s: from the first frame to the last text.
        cpu_s: processor seconds in that time, the video decoder's included.
        every: which frames were given to it.
    """

    said: list[list[Said]]
    sightings: list[Sighting]
    wall_s: float
    cpu_s: float
    every: int = 1


@dataclass(frozen=True, slots=True)
class Readings:
    """What RapidOCR read of a clip, frame by frame, and what each frame took."""

    lines: list[list[tuple[Polygon, str]]]
    wall_s: list[float]
    cpu_s: list[float]
    decoding_s: float

    def outcome(self, every: int) -> Outcome:
        """As if only every Nth frame had been read, and held until the next."""
        read = [[word for line in lines for word in said_words(line[1], line[0])] for lines in self.lines[::every]]
        return Outcome(
            [read[index // every] for index in range(len(self.lines))],
            linked(read, every),
            self.decoding_s + sum(self.wall_s[::every]),
            self.decoding_s + sum(self.cpu_s[::every]),
            every,
        )

    def every_within(self, budget_s: float) -> int:
        """Of how many frames one can be read in so much processor time."""
        room_s = max(budget_s - self.decoding_s, 1e-6)
        return max(math.ceil(sum(self.cpu_s) / room_s), 1)


def sighting_of(appearance: Appearance) -> Sighting:
    """An appearance as it is drawn and judged."""
    first_ms, last_ms = appearance.first_ms or 0.0, appearance.last_ms or 0.0
    return Sighting(appearance.text, appearance.confidence, first_ms, last_ms, appearance.path)


def read_with_ocrstream(video: Path, frames: int, settings: dict[str, str]) -> Outcome:
    """What ``ocrstream run VIDEO`` does, with settings as the environment names them."""
    with (
        tempfile.TemporaryDirectory(prefix="ocrstream-realtime-") as folder,
        contextlib.closing(EmbeddedStore(folder)) as reader,
    ):
        with embedded_run(folder, [str(video)], settings) as run:
            began_s, began_cpu_s = time.perf_counter(), cpu_s()
            run.run()
            wall_s, spent_s = time.perf_counter() - began_s, cpu_s() - began_cpu_s
        sightings = [sighting_of(appearance) for appearance in reader.appearances(Filter())]
    said = [said_at(sightings, frame_ms(index)) for index in range(frames)]
    return Outcome(said, sightings, wall_s, spent_s)


def read_with_rapidocr(video: Path) -> Readings:
    """What RapidOCR reads of every frame; from a file where it has done so before."""
    digest = hashlib.sha256(video.read_bytes()).hexdigest()[:12]
    kept = video.parent / "rapidocr" / f"{video.stem}-{digest}-{version('rapidocr')}.json"
    if kept.exists():
        found = json.loads(kept.read_text(encoding="utf-8"))
        lines = [[(polygon_of(polygon), text) for polygon, text in frame] for frame in found.pop("lines")]
        return Readings(lines, **found)
    read = rapidocr()
    readings = Readings([], [], [], 0.0)
    began_cpu_s = cpu_s()
    with av.open(str(video)) as container:
        for frame in container.decode(video=0):
            picture = frame.to_ndarray(format="bgr24").astype(np.uint8, copy=False)
            frame_began_s, frame_began_cpu_s = time.perf_counter(), cpu_s()
            readings.lines.append(read(picture))
            readings.wall_s.append(time.perf_counter() - frame_began_s)
            readings.cpu_s.append(cpu_s() - frame_began_cpu_s)
    decoding_s = cpu_s() - began_cpu_s - sum(readings.cpu_s)
    readings = Readings(readings.lines, readings.wall_s, readings.cpu_s, decoding_s)
    kept.parent.mkdir(exist_ok=True)
    kept.write_text(json.dumps(asdict(readings)), encoding="utf-8")
    return readings


class Contest:
    """Systems side by side, clip by clip.

    Args:
        systems: which of `SYSTEMS`.
        every: of how many frames ``rapidocr-nth`` reads one; None for as many as fit ``ocrstream``'s time.
        fps: how many frames a second of the clips this program takes; 0 for all.
        shows_words: whether to print what was missed and what was wrong most often. It is never kept: the words are
            the data's.
    """

    def __init__(self, systems: Sequence[str], every: int | None, fps: float = 0.0, *, shows_words: bool) -> None:
        self._systems = systems
        self._every = every
        self._fps = fps
        self._shows_words = shows_words
        self._sums: dict[str, _Sum] = {}

    def run(self, videos: Iterable[Path]) -> dict[str, dict[str, dict[str, Any]]]:
        """The figures by clip and system, and those of all clips together."""
        figures: dict[str, dict[str, dict[str, Any]]] = {}
        for video in videos:
            labels = load_labels(labels_of(video)) if labels_of(video).is_file() else None
            frames, spent_s = count_frames(video) if labels is None else len(labels), math.nan
            for system in self._systems:
                outcome = self._read(system, video, frames, spent_s)
                if system == "ocrstream":
                    spent_s = outcome.cpu_s
                one = _Sum()
                one.add(labels, outcome)
                if labels is not None:
                    self._sums.setdefault(system, _Sum()).add(labels, outcome)
                figures.setdefault(video.stem, {})[system] = one.figures()
                print(_row(video.stem, system, one.figures()), flush=True)
                if self._shows_words:
                    print(one.words() if labels is not None else _texts(outcome.sightings), flush=True)
        if self._sums:
            figures["all"] = {system: together.figures() for system, together in self._sums.items()}
        for system, together in figures.get("all", {}).items():
            print(_row("all", system, together))
        return figures

    def _read(self, system: str, video: Path, frames: int, spent_s: float) -> Outcome:
        if system == "rapidocr":
            return read_with_rapidocr(video).outcome(1)
        if system == "rapidocr-nth":
            readings = read_with_rapidocr(video)
            return readings.outcome(self._every or readings.every_within(spent_s))
        read = "all" if system == "read-all" else "new"
        settings = {"OCRSTREAM_DETECTOR_READ": read, "OCRSTREAM_PRODUCER_FPS": str(self._fps)}
        with without(system.removeprefix("no-") if system.startswith("no-") else None):
            return read_with_ocrstream(video, frames, settings)


class _Sum:
    """What one system did on some clips."""

    def __init__(self) -> None:
        self._pairs, self._appearances = Counts(), Counts()
        self._frames, self._wall_s, self._cpu_s = 0, 0.0, 0.0
        self._every: set[int] = set()
        self._texts: int | None = None

    def add(self, labels: Sequence[Sequence[SeenWord]] | None, outcome: Outcome) -> None:
        if labels is None:
            self._texts = (self._texts or 0) + len(outcome.sightings)
        else:
            self._pairs += pairs(labels, outcome.said)
            self._appearances += appearances(labels, outcome.sightings)
        self._frames += len(outcome.said)
        self._wall_s += outcome.wall_s
        self._cpu_s += outcome.cpu_s
        self._every.add(outcome.every)

    def figures(self) -> dict[str, Any]:
        of_texts: dict[str, Any] = {"texts": self._texts}
        if self._texts is None:
            of_texts = {"pairs": self._pairs.figures(), "appearances": self._appearances.figures()}
        return {
            **of_texts,
            "frames_per_s": round(self._frames / self._wall_s, 2),
            "cpu_s_per_s": round(self._cpu_s / (self._frames / FPS), 3),
            "every": sorted(self._every),
        }

    def words(self) -> str:
        return f"  missed {self._pairs.missed.most_common(12)}\n  wrong {self._pairs.wrong.most_common(12)}"


HEAD = (
    f"{'':12} {'':13} {'pairs':^20} {'appearances':^20} {'frames':>8} {'CPU s':>7} {'every':>6}\n"
    f"{'clip':12} {'system':13} " + f"{'rec.':>6} {'prec.':>6} {'F':>6} " * 2 + f"{'/s':>8} {'/s':>7} {'Nth':>6}"
)


def _row(clip: str, system: str, figures: dict[str, Any]) -> str:
    if "texts" in figures:
        numbers = f"{figures['texts']:34} texts "
    else:
        shares = [figures[of][name] for of in ("pairs", "appearances") for name in ("recall", "precision", "f")]
        numbers = " ".join(f"{share:6.3f}" for share in shares)
    every = "-".join(str(bound) for bound in sorted({figures["every"][0], figures["every"][-1]}))
    return f"{clip:12} {system:13} {numbers} {figures['frames_per_s']:8.2f} {figures['cpu_s_per_s']:7.3f} {every:>6}"


def _texts(sightings: Sequence[Sighting]) -> str:
    """What was said of a video, as it can be looked at."""
    rows = [
        f"  {each.start_ms / 1000:7.2f} - {each.end_ms / 1000:7.2f} s  {each.confidence:.2f}  {each.text}"
        for each in sorted(sightings, key=lambda each: each.start_ms)
    ]
    return "\n".join(rows)


def labels_of(video: Path) -> Path:
    """Where a clip's labels are, if it has any."""
    return video.with_suffix(".jsonl")


def count_frames(video: Path) -> int:
    """How many frames a video has."""
    with av.open(str(video)) as container:
        return sum(1 for _ in container.decode(video=0))


def find_clips(folder: Path, kinds: Sequence[str]) -> list[Path]:
    """The clips of these kinds that have labels; where all kinds are asked for, then the videos without.

    Raises:
        ValueError: there are none.
    """
    found = [video for kind in kinds for video in sorted(folder.glob(f"{kind}-*.mp4")) if labels_of(video).is_file()]
    if set(kinds) == set(ALL_KINDS):
        found += [video for video in sorted(folder.glob("*.mp4")) if not labels_of(video).is_file()]
    if not found:
        raise ValueError(
            f"{folder} holds no labelled clip of {', '.join(kinds)}: "
            f"make some by python -m benchmarks.clips DATA_DIR {folder}"
        )
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.realtime", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("clips", type=Path, metavar="CLIPS_DIR", help="what benchmarks.clips made")
    parser.add_argument("--kinds", nargs="+", choices=ALL_KINDS, default=list(ALL_KINDS), help="only these kinds")
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), help="only these systems")
    parser.add_argument("--every", type=int, metavar="N", help="rapidocr-nth: reads every Nth frame")
    parser.add_argument("--live", type=float, metavar="SECONDS", help="each clip as a camera, for so long")
    parser.add_argument("--cameras", type=int, metavar="N", help="with --live: so many cameras at once")
    parser.add_argument("--distributed", action="store_true", help="with --live: over Kafka and Elasticsearch")
    parser.add_argument(
        "--fps",
        type=float,
        default=0.0,
        help="frames a second that ocrstream takes; not with --live, but for --distributed",
    )
    parser.add_argument("--words", action="store_true", help="print what was missed and wrong most often; never kept")
    add_save_flag(parser)
    options = parser.parse_args(argv)
    if options.every is not None and options.every < 1:
        parser.error("--every is a number of frames, 1 or more")
    if options.live is None and (options.cameras is not None or options.distributed):
        parser.error("--cameras and --distributed go with --live SECONDS")
    if options.fps and options.live is not None and not options.distributed:
        parser.error("--fps goes with files and --distributed: of a camera in one process every frame is taken")
    if options.cameras is not None and options.cameras < 1:
        parser.error("--cameras is a number of cameras, 1 or more")
    # Its budget is what ocrstream took, which therefore comes first.
    systems = [system for system in SYSTEMS if system in options.systems]
    if "rapidocr-nth" in systems and options.every is None and "ocrstream" not in systems:
        parser.error("rapidocr-nth takes as long as ocrstream did: name that among the systems too, or give --every")
    try:
        videos = find_clips(options.clips, options.kinds)
    except ValueError as error:
        parser.error(str(error))
    circumstances = environment("ocrstream", "rapidocr", "onnxruntime", "opencv-python-headless", "av", "numpy")
    figures: dict[str, Any]
    try:
        if options.live is not None:
            watched = {video.stem: [video] for video in videos}
            if options.cameras is not None:
                watched = {"together": list(islice(cycle(videos), options.cameras))}
            figures = {
                name: measure_live(of, options.live, distributed=options.distributed, fps=options.fps)
                for name, of in watched.items()
            }
        else:
            print(HEAD)
            figures = Contest(systems, options.every, options.fps, shows_words=options.words).run(videos)
    except OcrstreamError as error:
        sys.exit(str(error))
    name = "realtime" if options.live is None else "realtime-live"
    if options.distributed:
        name = "realtime-distributed"
    conclude(name, circumstances, figures, save=options.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
