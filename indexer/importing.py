"""Takes back what ``ocrstream export --format jsonl`` gave out, as often as one likes: it is stored once."""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from ocrstream.errors import BackpressureError, MalformedRecordError
from ocrstream.messages import Appearance, Texts
from ocrstream.storage import DocumentStore, WriteReport
from ocrstream.wire import appearance_from_json, texts_from_json

BATCH = 200
MAX_PROBLEMS = 1000
"""A file that is not an export at all should not fill the memory with complaints."""

_FRAME_FIELDS = {
    "source": "source_id",
    "frame_id": "frame_id",
    "captured_at_ns": "captured_at_ns",
    "width_px": "width_px",
    "height_px": "height_px",
    "live": "live",
    "media_time_ms": "media_time_ms",
    "path": "path",
    "segment": "segment",
    "generation": "generation",
    "asked_detector": "detector",
    "asked_recognizer": "recognizer",
}
_LINE_FIELDS = ("line_number", "text", "confidence", "detector_score", "polygon", "track_id", "words")
_FRAME_ID = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.-]{0,199}")


@dataclass(frozen=True, slots=True)
class Problem:
    """A line that was not taken, by its number from 1, and why."""

    line: int
    reason: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.reason}"


@dataclass(slots=True)
class ImportReport:
    """What became of an import.

    Attributes:
        frames: frames stored (again or for the first time).
        regions: text lines in them.
        appearances: texts over time.
        outdated: frames left alone, since the store holds a later reading of them.
        problems: what was not taken, at most ``MAX_PROBLEMS``.
        refused: how many problems there were.
    """

    frames: int = 0
    regions: int = 0
    appearances: int = 0
    outdated: int = 0
    problems: list[Problem] = field(default_factory=list)
    refused: int = 0

    def refuse(self, line: int, reason: str) -> None:
        """Note a line that was not taken."""
        self.refused += 1
        if len(self.problems) < MAX_PROBLEMS:
            self.problems.append(Problem(line, reason))


@dataclass(slots=True)
class _Group:
    """The lines of one frame, as far as they have been read."""

    texts: Texts
    line: int
    expected: int | None
    whole: bool = True


def import_regions(
    lines: Iterable[str], store: DocumentStore, pause: Callable[[float], None] = time.sleep
) -> ImportReport:
    """Store exported frames, with their lines, and exported appearances.

    A frame is stored whole or not at all: when a line of it is malformed or missing, the frame is reported and left
    out, and the import goes on behind it. The same file again changes nothing.

    Args:
        lines: JSON lines; the lines of one frame follow one another, appearances come after their frames.
        store: where they go.
        pause: waits for so many seconds, when the store asks for it.

    Raises:
        StoreError: the store is away; what was stored stays, and the import can be run again from the start.
    """
    report = ImportReport()
    frames: list[tuple[int, Texts]] = []
    appearances: list[tuple[int, Appearance]] = []
    for line, entry in _entries(lines, report):
        if isinstance(entry, Appearance):
            appearances.append((line, entry))
        else:
            frames.append((line, entry))
        if len(frames) + len(appearances) >= BATCH:
            _write(frames, appearances, store, report, pause)
    _write(frames, appearances, store, report, pause)
    return report


def _entries(lines: Iterable[str], report: ImportReport) -> Iterator[tuple[int, Texts | Appearance]]:
    """Whole frames and appearances, each with the number of its first line."""
    group: _Group | None = None
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = _object(line)
            if record.get("kind") == "appearance":
                yield from _finished(group, report)
                group = None
                yield number, _appearance(record)
                continue
            texts = _texts(record)
        except MalformedRecordError as error:
            report.refuse(number, str(error))
            if group is not None:
                group.whole = group.whole and not _belongs(line, group)
            continue
        if group is not None and group.texts.info == texts.info:
            _add(group, texts, number, report)
            continue
        yield from _finished(group, report)
        group = _Group(texts, number, record.get("lines_in_frame"))
    yield from _finished(group, report)


def _object(line: str) -> dict[str, Any]:
    try:
        line.encode()
        record = json.loads(line)
    except UnicodeEncodeError as error:
        raise MalformedRecordError("not UTF-8") from error
    except (ValueError, RecursionError) as error:
        raise MalformedRecordError(f"not JSON: {error}") from error
    if not isinstance(record, dict):
        raise MalformedRecordError(f"a JSON {type(record).__name__}, not an object: this is no export of ocrstream")
    if record.get("kind") not in ("region", "frame", "appearance"):
        raise MalformedRecordError(
            f"field 'kind' should be region, frame or appearance, got {record.get('kind')!r:.40}: "
            "only what `ocrstream export --format jsonl` writes is taken"
        )
    return record


def _texts(record: dict[str, Any]) -> Texts:
    """A frame with the one line of a record (or none)."""
    if not isinstance(record.get("frame_id"), str) or not _FRAME_ID.fullmatch(record["frame_id"]):
        raise MalformedRecordError(f"field 'frame_id' should be letters and digits, got {record.get('frame_id')!r:.40}")
    expected = record.get("lines_in_frame")
    if expected is not None and (not isinstance(expected, int) or isinstance(expected, bool)):
        raise MalformedRecordError(f"field 'lines_in_frame' should be a whole number, got {expected!r:.40}")
    meta = {
        "frame": {name: record.get(field) for field, name in _FRAME_FIELDS.items()} | _picture(record),
        "detector": {"name": record.get("detector"), "weights": record.get("detector_weights")},
        "recognizer": {"name": record.get("recognizer"), "weights": record.get("recognizer_weights")},
        "lines": [{name: record.get(name) for name in _LINE_FIELDS}] if record["kind"] == "region" else [],
        "appearances": [],
        "kept": True,
    }
    try:
        return texts_from_json(meta)
    except MalformedRecordError as error:
        raise MalformedRecordError(_in_export_words(str(error))) from error


def _picture(record: dict[str, Any]) -> dict[str, Any]:
    place = record.get("picture")
    if place is None:
        return {}
    if not isinstance(place, list) or len(place) != 3:
        raise MalformedRecordError(f"field 'picture' should be [topic, partition, offset], got {place!r:.80}")
    return {"picture": dict(zip(("topic", "partition", "offset"), place, strict=True))}


def _appearance(record: dict[str, Any]) -> Appearance:
    try:
        appearance = appearance_from_json({**record, "source_id": record.get("source")})
    except MalformedRecordError as error:
        raise MalformedRecordError(_in_export_words(str(error))) from error
    # An export tells times in milliseconds of cameras too, which have no media time.
    is_media_time = appearance.first_ms != appearance.first_at_ns / 1e6
    return appearance if is_media_time else replace(appearance, first_ms=None, last_ms=None)


def _in_export_words(reason: str) -> str:
    """The reader's complaint without the names of the inner layout, which the file does not show."""
    for engine in ("detector", "recognizer"):
        reason = reason.replace(f"field 'name' of texts/1.{engine}", f"field '{engine}'")
        reason = reason.replace(f"field 'weights' of texts/1.{engine}", f"field '{engine}_weights'")
    reason = re.sub(r"^(texts/1|appearance): ", "", reason)
    reason = re.sub(r" of (texts/1|appearance)[.\w\[\]]*", "", reason)
    return reason.replace("'source_id'", "'source'")


def _belongs(line: str, group: _Group) -> bool:
    return f'"{group.texts.info.frame_id}"' in line


def _add(group: _Group, texts: Texts, number: int, report: ImportReport) -> None:
    known = group.texts.lines
    if (texts.detector, texts.recognizer) != (group.texts.detector, group.texts.recognizer):
        report.refuse(number, "one frame read by two engines: these are two exports mixed together")
        group.whole = False
    elif known and texts.lines and texts.lines[0].region.line_number <= known[-1].region.line_number:
        report.refuse(number, f"line_number {texts.lines[0].region.line_number} does not follow the one before it")
        group.whole = False
    else:
        group.texts = replace(group.texts, lines=(*known, *texts.lines))


def _finished(group: _Group | None, report: ImportReport) -> Iterator[tuple[int, Texts]]:
    if group is None:
        return
    frame_id, found = group.texts.info.frame_id, len(group.texts.lines)
    if not group.whole:
        report.refuse(group.line, f"the frame {frame_id} is left out, since one of its lines cannot be read")
    elif group.expected is not None and group.expected != found:
        report.refuse(
            group.line,
            f"the frame {frame_id} is left out: it should have {group.expected} lines next to each other, not {found}",
        )
    else:
        yield group.line, group.texts


def _write(
    frames: list[tuple[int, Texts]],
    appearances: list[tuple[int, Appearance]],
    store: DocumentStore,
    report: ImportReport,
    pause: Callable[[float], None],
) -> None:
    """Frames first: an appearance is stored with its best frame, which may be among them."""
    outcome = _offer([texts for _, texts in frames], store, pause)
    report.outdated += outcome.outdated
    report.frames += outcome.written
    for index, (line, texts) in enumerate(frames):
        if index in outcome.refused:
            report.refuse(line, outcome.refused[index])
        else:
            report.regions += len(texts.lines)
    frames.clear()
    carriers = list(_carriers(appearances, store, report))
    outcome = _offer([texts for _, texts in carriers], store, pause)
    for index, (line, texts) in enumerate(carriers):
        if index in outcome.refused:
            report.refuse(line, outcome.refused[index])
        else:
            report.appearances += len(texts.appearances)
    appearances.clear()


def _carriers(
    appearances: list[tuple[int, Appearance]], store: DocumentStore, report: ImportReport
) -> Iterator[tuple[int, Texts]]:
    """The best frames of appearances as they are stored, each with its appearances."""
    by_frame: defaultdict[str, list[tuple[int, Appearance]]] = defaultdict(list)
    for line, appearance in appearances:
        by_frame[appearance.best_frame_id].append((line, appearance))
    for frame_id, mine in by_frame.items():
        frame = store.get(frame_id)
        if frame is not None:
            yield mine[0][0], replace(frame, appearances=tuple(appearance for _, appearance in mine))
            continue
        for line, appearance in mine:
            report.refuse(
                line, f"its frame {frame_id} is not in the store: import the regions of {appearance.source_id} first"
            )


def _offer(batch: list[Texts], store: DocumentStore, pause: Callable[[float], None]) -> WriteReport:
    while batch:
        try:
            return store.write(batch)
        except BackpressureError as busy:
            pause(busy.retry_after_s)
    return WriteReport()
