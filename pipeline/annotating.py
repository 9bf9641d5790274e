"""``ocrstream annotate``: a copy of a video with what was read in it drawn in.

What it reads for that is kept only where a data folder is named; then also what was read there before is used.

With ``--debug gate`` the copy also shows what the gate decided on each frame: it is run over the video once more.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from detector_consumer.asking import EXAMINE_AFTER_S
from detector_consumer.gating import Gate, GateSettings, draw
from detector_consumer.motion import Greys, MotionEstimator, shrink
from detector_consumer.overlays import Overlays
from ocrstream.by_source import of_source
from ocrstream.config import (
    Configuration,
    DataSettings,
    DetectorSettings,
    ElasticsearchSettings,
    ProducerSettings,
    RecognizerSettings,
    add_flags,
)
from ocrstream.geometry import Polygon
from ocrstream.picture import Image, Picture
from ocrstream.process import Command, set_up_logging
from ocrstream.storage.opening import open_documents
from pipeline.documents import add_filter, filter_of
from pipeline.running import Run
from pipeline.status import StatusLine, count_of
from producers.sources import parse_source
from search.annotate import annotate, check_files


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The command's flags."""
    parser.add_argument("video", metavar="VIDEO", help="a video file, read first where it was not; NAME=FILE names it")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="the copy: .mp4, .mkv or .mov")
    parser.add_argument(
        "--debug",
        choices=("gate",),
        help="paint what a gate decides that asks for the detector every 0.3 s, too: dark was not looked at, red has "
        "changed, blue is new, yellow was due; framed in grey is left out",
    )
    add_filter(parser, with_source=False)
    add_flags(parser, ProducerSettings, DetectorSettings, RecognizerSettings, DataSettings, ElasticsearchSettings)


def run(arguments: argparse.Namespace) -> int:
    """Read the video where that is still to be done, then draw; returns the exit code."""
    where = filter_of(arguments)
    spec, output = parse_source(arguments.video), Path(arguments.output)
    check_files(spec.path, output)
    line = StatusLine()
    set_up_logging(line)
    with ExitStack() as stack:
        configuration = Configuration(arguments)
        is_embedded = not configuration.section(ElasticsearchSettings).url
        if is_embedded and not configuration.is_set(DataSettings, "dir"):
            # Nobody asked for anything but the copy.
            arguments.setting_data = stack.enter_context(tempfile.TemporaryDirectory(prefix="ocrstream-annotate-"))
            configuration = Configuration(arguments)
        store = stack.enter_context(open_documents(configuration, create=is_embedded))
        if is_embedded:
            # A file that was read before is over at once: it resumes at its end.
            with Run(configuration, [arguments.video], store, line) as reading:
                reading.run()
        report = annotate(
            spec.path,
            store,
            output,
            spec.source_id,
            where,
            progress=lambda share: line.show(f"drawing {share:4.0%}"),
            under=_painter_of(configuration, spec.source_id).paint if arguments.debug else None,
        )
    sound = ", with its sound" if report.has_sound else ""
    texts, frames = count_of(report.texts, "text"), count_of(report.frames, "frame")
    line.finish(f"{arguments.output}: {texts} drawn into {frames} ({report.codec}){sound}")
    return 0


def _painter_of(configuration: Configuration, source_id: str) -> GatePainter:
    settings = configuration.section(DetectorSettings)
    gate = Gate(GateSettings(masks=of_source(settings.masks, source_id)))
    return GatePainter(gate, Overlays() if settings.overlays == "leave-out" else None)


class GatePainter:
    """Runs a gate over the frames of a video and paints its decisions into them.

    What it asks for is taken to be examined as the detector's stage does it at the most: every `EXAMINE_AFTER_S`.

    Args:
        gate: the gate.
        overlays: learns, from the texts that are known, what else is left out; None where nothing is.
    """

    def __init__(self, gate: Gate, overlays: Overlays | None = None) -> None:
        self._gate = gate
        self._overlays = overlays
        self._motion = MotionEstimator()
        self._before: Greys | None = None
        self._examined_at_ms: float | None = None

    def paint(self, picture: Image, at_ms: float, known: Sequence[Polygon]) -> Image:
        """A copy of the next frame with the gate's decisions on it.

        Args:
            picture: ``(H, W, 3) uint8 BGR``.
            at_ms: its time.
            known: where the texts are that were there before: changes that they account for are no news.
        """
        greys, before = shrink(Picture.from_array(picture)), self._before
        motion = None if before is None else self._motion.estimate(before.small, greys.small)
        self._before = greys
        at_ns = round(at_ms * 1e6)
        if self._overlays is not None and self._overlays.see(greys.small, motion, 1 / greys.small_factor, known, at_ns):
            self._gate.leave_out(self._overlays.zones)
        changes = self._gate.look(greys, motion, at_ns).unexplained_by(known)
        if motion is None or self._examined_at_ms is None or at_ms - self._examined_at_ms >= EXAMINE_AFTER_S * 1000:
            self._gate.examined(changes.tiles)
            self._examined_at_ms = at_ms
        return draw(picture, changes, self._gate.left_out)


COMMAND = Command("annotate", "Draw boxes and texts into a copy of a video.", add_arguments, run)
