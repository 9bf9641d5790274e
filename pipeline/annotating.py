"""``ocrstream annotate``: a copy of a video with what was read in it drawn in.

What it reads for that is kept only where a data folder is named; then also what was read there before is used.
"""

from __future__ import annotations

import argparse
import tempfile
from contextlib import ExitStack
from pathlib import Path

from ocrstream.config import (
    Configuration,
    DataSettings,
    DetectorSettings,
    ElasticsearchSettings,
    ProducerSettings,
    RecognizerSettings,
    add_flags,
)
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
        )
    sound = ", with its sound" if report.has_sound else ""
    texts, frames = count_of(report.texts, "text"), count_of(report.frames, "frame")
    line.finish(f"{arguments.output}: {texts} drawn into {frames} ({report.codec}){sound}")
    return 0


COMMAND = Command("annotate", "Draw boxes and texts into a copy of a video.", add_arguments, run)
