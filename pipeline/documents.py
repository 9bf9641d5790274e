"""The commands over what was read: ``search``, ``export``, ``import`` and ``retention``."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import TextIO

from indexer.importing import import_regions
from indexer.retention import enforce
from ocrstream.config import Configuration, DataSettings, ElasticsearchSettings, add_flags
from ocrstream.errors import ConfigError, QueryError, StoreError
from ocrstream.files import whole_file
from ocrstream.messages import FrameInfo
from ocrstream.process import Command
from ocrstream.query import parse
from ocrstream.storage import DocumentStore, Filter
from ocrstream.storage.frames import FrameStore
from ocrstream.storage.opening import open_documents, open_frames
from pipeline.status import count_of
from search.asking import parse_time
from search.export import FORMATS, KINDS, SUBTITLES, BoxesReport, OriginalPictures, export, export_boxes
from search.pictures import StoredPictures
from search.showing import Card, fold, format_media_time, hit_json


def add_filter(parser: argparse.ArgumentParser, *, with_source: bool = True, with_confidence: bool = True) -> None:
    """The flags that say which frames are meant."""
    if with_source:
        parser.add_argument(
            "--source", action="append", default=[], metavar="NAME", help="only this source; may be repeated"
        )
    parser.add_argument("--since", metavar="TIME", help="from then on: 2026-11-22T21:30, or how long ago: 15m, 1h, 7d")
    parser.add_argument("--until", metavar="TIME", help="before then")
    if with_confidence:
        parser.add_argument(
            "--min-confidence", type=_share, default=0.0, metavar="SHARE", help="only lines read this surely, 0 to 1"
        )


def filter_of(arguments: argparse.Namespace) -> Filter:
    """The filter of `add_filter`'s flags.

    Raises:
        QueryError: a time cannot be understood, or the end lies before the beginning.
    """
    now_ns = time.time_ns()
    since_ns, until_ns = (
        None if text is None else parse_time(text, now_ns) for text in (arguments.since, arguments.until)
    )
    if since_ns is not None and until_ns is not None and until_ns <= since_ns:
        raise QueryError(f"--until {arguments.until} does not lie behind --since {arguments.since}")
    return Filter(
        tuple(getattr(arguments, "source", ())), since_ns, until_ns, getattr(arguments, "min_confidence", 0.0)
    )


def check_sources(store: DocumentStore, where: Filter) -> None:
    """See that the sources a filter names are there.

    Raises:
        ConfigError: one is not; the message says which there are.
    """
    there = sorted({source.source_id for source in store.sources()})
    missing = [name for name in where.sources if name not in there]
    if missing:
        raise ConfigError(f"there is no source {missing[0]!r}; there are: {', '.join(there) or 'none yet'}")


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not 0 <= value <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not a share from 0 to 1")
    return value


def _add_search(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("query", metavar="QUERY", nargs="*", help='words, "phrases", -not, OR, prefix*, fuzzy~')
    parser.add_argument("--limit", type=int, default=20, metavar="N", help="frames to look at (default: 20)")
    parser.add_argument("--newest", action="store_true", help="newest first, not best first")
    parser.add_argument("--json", action="store_true", help="every hit as JSON, one a line")
    add_filter(parser)
    add_flags(parser, DataSettings, ElasticsearchSettings)


def _search(arguments: argparse.Namespace) -> int:
    if arguments.limit < 1:
        raise ConfigError(f"--limit should be at least 1, got {arguments.limit}")
    configuration = Configuration(arguments)
    query, where = parse(" ".join(arguments.query)), filter_of(arguments)
    with open_documents(configuration) as store:
        page = store.search(query, where, limit=arguments.limit, newest_first=arguments.newest)
    if arguments.json:
        for hit in page.hits:
            _say(json.dumps(hit_json(hit), ensure_ascii=False))
        return 0
    is_embedded = not configuration.section(ElasticsearchSettings).url
    frames = open_frames(configuration) if is_embedded else None
    for card in fold(page.hits, where.min_confidence):
        _say_card(card, _picture_of(card.texts.info, frames))
    if not page.hits:
        sys.stderr.write("Nothing found. Try fewer words, a beginning (board*) or a near miss (boarding~).\n")
        return 1
    more = "" if page.total_is_exact else "at least "
    sys.stderr.write(f"{len(page.hits)} of {more}{count_of(page.total, 'frame')}.\n")
    return 0


def _say_card(card: Card, picture: str) -> None:
    info = card.texts.info
    when = datetime.fromtimestamp(info.captured_at_ns / 1e9).astimezone()
    place = f" at {format_media_time(info.media_time_ms)}" if info.media_time_ms is not None else ""
    also = f" and {count_of(len(card.others), 'more frame')} nearby" if card.others else ""
    _say(f"{when:%Y-%m-%d %H:%M:%S}  {info.source_id}{place}{also}")
    for line in card.found or card.lines:
        _say(f"    {line.line.confidence:4.0%}  {line.line.text}")
    _say(f"          {picture}")


def _picture_of(info: FrameInfo, frames: FrameStore | None) -> str:
    """Where a person can look at a frame."""
    if info.path is not None:
        return info.path
    if frames is not None:
        path = frames.path_of(info.frame_id, info.captured_at_ns)
        return str(path) if path.exists() else "its picture is no longer kept"
    ref = info.picture
    return "no picture" if ref is None else f"{ref.topic}[{ref.partition}]@{ref.offset} in Kafka"


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--format", choices=FORMATS, default="jsonl", help="default: jsonl")
    parser.add_argument("--kind", choices=KINDS, default="regions", help="default: regions")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: standard output")
    parser.add_argument(
        "--boxes", metavar="DIR", help="instead: write every line's crop to DIR/boxes and a table of text to DIR"
    )
    add_filter(parser)
    add_flags(parser, DataSettings, ElasticsearchSettings)


def _export(arguments: argparse.Namespace) -> int:
    configuration, where = Configuration(arguments), filter_of(arguments)
    with open_documents(configuration) as store:
        check_sources(store, where)
        if arguments.boxes:
            pictures = OriginalPictures(StoredPictures(open_frames(configuration)))
            return _say_boxes(export_boxes(store, where, pictures, Path(arguments.boxes)), arguments.boxes)
        with _written(arguments.output) as out:
            count = export(store, where, arguments.format, out, kind=arguments.kind)
    noun = "cue" if arguments.format in SUBTITLES else arguments.kind.removesuffix("s")
    sys.stderr.write(f"{count_of(count, noun)} exported.\n")
    return 0


def _say_boxes(report: BoxesReport, directory: str) -> int:
    crops, pictures = count_of(report.crops, "crop"), count_of(report.frames, "picture")
    sys.stderr.write(f"{crops} of {pictures} in {directory}.\n")
    for name in report.without_picture:
        sys.stderr.write(f"left out, its picture is not there any more: {name}\n")
    return 1 if report.without_picture else 0


@contextmanager
def _read(path: str) -> Iterator[TextIO]:
    """A text file to read, or standard input for ``-``.

    Raises:
        ConfigError: it cannot be read.
    """
    is_standard = path == "-"
    try:
        # What is no UTF-8 is found line by line, so that one such line does not cost the others.
        place = sys.stdin.fileno() if is_standard else path
        file = open(place, encoding="utf-8", errors="surrogateescape", newline="", closefd=not is_standard)  # noqa: SIM115
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from error
    with file:
        yield file


@contextmanager
def _written(path: str | None) -> Iterator[TextIO]:
    """A text file to write, or standard output for ``-`` and None; a file has its name once it is complete.

    Raises:
        ConfigError: it cannot be opened.
        StoreError: it cannot be written to the end; a file of that name is left as it was.
    """
    if path is None or path == "-":
        with _told_of_a_full_disk("standard output"):
            yield sys.stdout
            sys.stdout.flush()
        return
    name = Path(path)
    # A pipe, a device or a link stays what it is.
    is_plain = not name.is_symlink() and (name.is_file() or not name.exists())
    with _told_of_a_full_disk(path), whole_file(name) if is_plain else nullcontext(name) as place:
        try:
            file = place.open("w", encoding="utf-8", newline="")
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}") from error
        with file:
            yield file


@contextmanager
def _told_of_a_full_disk(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        if name == "standard output":
            # Python would write what is left in its buffer once more at exit, and complain.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise StoreError(
            f"{name} cannot be written to its end: {error.strerror}; make room, or give another place with -o"
        ) from error


def _add_import(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="JSONL that `ocrstream export` wrote; - for standard input")
    add_flags(parser, DataSettings, ElasticsearchSettings)


def _import(arguments: argparse.Namespace) -> int:
    configuration = Configuration(arguments)
    with _read(arguments.file) as lines, open_documents(configuration, create=True) as store:
        report = import_regions(lines, store)
    name = "standard input" if arguments.file == "-" else arguments.file
    for problem in report.problems:
        sys.stderr.write(f"{name}, {problem}\n")
    if report.refused > len(report.problems):
        sys.stderr.write(f"... and {report.refused - len(report.problems)} more\n")
    sys.stderr.write(
        f"{count_of(report.frames, 'frame')} with {count_of(report.regions, 'region')} and "
        f"{count_of(report.appearances, 'appearance')} stored, {report.outdated} left unchanged since a later reading "
        f"is there, {count_of(report.refused, 'line')} not taken.\n"
    )
    return 1 if report.refused else 0


def _add_retention(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--days", type=int, metavar="N", help="keep so many days (default: retention_days of [data])")
    add_flags(parser, DataSettings, ElasticsearchSettings)


def _retention(arguments: argparse.Namespace) -> int:
    configuration = Configuration(arguments)
    days = configuration.section(DataSettings).retention_days if arguments.days is None else arguments.days
    if days < 1:
        raise ConfigError("how many days are to be kept? Give --days N, or set retention_days in section [data]")
    with open_documents(configuration) as store:
        dropped = enforce(store, days)
    sys.stderr.write(f"{count_of(dropped, 'day')} of documents dropped; the last {count_of(days, 'day')} kept.\n")
    return 0


SEARCH = Command("search", "Find the frames that show some words.", _add_search, _search)
EXPORT = Command("export", "Write what was read as JSONL, CSV or subtitles.", _add_export, _export)
IMPORT = Command("import", "Take back what export wrote as JSONL.", _add_import, _import)
RETENTION = Command("retention", "Drop documents older than so many days.", _add_retention, _retention)
