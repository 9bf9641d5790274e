"""Gives documents out: JSON lines (exact, `indexer.importing` takes them back), CSV (for people), SRT and WebVTT.

JSON lines hold one record a line, told apart by ``kind``:

==============  ====================================================================================
``region``      one text line of one frame, with all that is known of the frame
``frame``       a frame in which nothing was read (left out where a confidence is asked for)
``appearance``  one text over time (``kind="appearances"``)
==============  ====================================================================================
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TextIO

from ocrstream.cropping import cut
from ocrstream.errors import ConfigError, MalformedRecordError, SourceError
from ocrstream.geometry import scale_polygon
from ocrstream.messages import Appearance, FrameInfo, Text, Texts
from ocrstream.picture import Image, Picture, encode_jpeg
from ocrstream.storage import DocumentStore, Filter, Pictures
from ocrstream.wire import appearance_to_json
from search.asking import format_time
from search.fields import frame_fields, line_fields
from search.timeline import Cue, cues, timeline

Format = Literal["jsonl", "csv", "srt", "vtt"]
Kind = Literal["regions", "appearances"]
FORMATS: tuple[Format, ...] = ("jsonl", "csv", "srt", "vtt")
SUBTITLES: tuple[Format, ...] = ("srt", "vtt")
"""Made of cues, whatever the kind."""
KINDS: tuple[Kind, ...] = ("regions", "appearances")

REGION_COLUMNS = (
    "source",
    "frame_id",
    "captured_at",
    "media_time_ms",
    "path",
    "line_number",
    "text",
    "confidence",
    "detector_score",
    *(f"{axis}{corner}_px" for corner in range(4) for axis in "xy"),
    "track_id",
    "detector",
    "recognizer",
)
APPEARANCE_COLUMNS = (
    "source",
    "track_id",
    "text",
    "confidence",
    "first_at",
    "last_at",
    "first_ms",
    "last_ms",
    "readings",
    "best_frame_id",
)
BOX_COLUMNS = ("path", "frame_id", "media_time_ms", "line_number", "text", "confidence", *REGION_COLUMNS[9:17], "crop")


def export(store: DocumentStore, where: Filter, format: Format, out: TextIO, kind: Kind = "regions") -> int:
    """Write what a filter means.

    Args:
        store: where it is.
        where: what is wanted.
        format: ``jsonl``, ``csv``, ``srt`` or ``vtt``; subtitles are of one source, whatever the kind.
        out: a text stream, opened with ``newline=""`` and UTF-8.
        kind: ``regions`` (text lines of frames) or ``appearances`` (texts over time).

    Returns:
        How many records or cues were written.

    Raises:
        ConfigError: subtitles of several sources were asked for, or an unknown format or kind.
        StoreError: the store is away; what was written by then is incomplete.
    """
    if format not in FORMATS or kind not in KINDS:
        raise ConfigError(f"cannot export {kind} as {format}: give {', '.join(FORMATS)}, and {' or '.join(KINDS)}")
    if format in SUBTITLES:
        source_id = _only_source(store, where, format)
        return _write_cues(cues(timeline(store, source_id, where).sightings), format, out)
    if format == "csv":
        return _write_csv(store, where, out, kind)
    count = 0
    for record in _appearance_records(store, where) if kind == "appearances" else _region_records(store, where):
        out.write(_one_line(record) + "\n")
        count += 1
    return count


# Line breaks to Unicode, and so to many a reader of lines, though not to JSON.
_BREAKS = str.maketrans({"\x85": "\\u0085", "\u2028": "\\u2028", "\u2029": "\\u2029"})


def _one_line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False, separators=(",", ":")).translate(_BREAKS)


def _region_records(store: DocumentStore, where: Filter) -> Iterator[dict[str, Any]]:
    for texts in store.scan(where):
        lines = _lines(texts, where)
        frame = _frame_record(texts, len(lines))
        if not lines and not where.min_confidence:
            yield {"kind": "frame", **frame}
        for line in lines:
            yield {"kind": "region", **frame, **line_fields(line)}


def _lines(texts: Texts, where: Filter) -> list[Text]:
    return [line for line in texts.lines if line.confidence >= where.min_confidence]


def _frame_record(texts: Texts, lines: int) -> dict[str, Any]:
    info = texts.info
    picture = info.picture
    return {
        **frame_fields(info),
        "segment": info.segment,
        "detector": texts.detector.name,
        "detector_weights": texts.detector.weights,
        "recognizer": texts.recognizer.name,
        "recognizer_weights": texts.recognizer.weights,
        "asked_detector": info.detector,
        "asked_recognizer": info.recognizer,
        "picture": [picture.topic, picture.partition, picture.offset] if picture else None,
        "lines_in_frame": lines,
    }


def _appearance_records(store: DocumentStore, where: Filter) -> Iterator[dict[str, Any]]:
    for appearance in store.appearances(where):
        if appearance.confidence >= where.min_confidence:
            record = appearance_to_json(appearance)
            record["first_ms"], record["last_ms"] = _times_ms(appearance)
            yield {
                "kind": "appearance",
                "source": record.pop("source_id"),
                "first_at": format_time(appearance.first_at_ns),
                "last_at": format_time(appearance.last_at_ns),
                **record,
            }


def _write_csv(store: DocumentStore, where: Filter, out: TextIO, kind: Kind) -> int:
    writer = csv.writer(out)
    count = 0
    if kind == "appearances":
        writer.writerow(APPEARANCE_COLUMNS)
        for appearance in store.appearances(where):
            if appearance.confidence >= where.min_confidence:
                writer.writerow(_appearance_row(appearance))
                count += 1
        return count
    writer.writerow(REGION_COLUMNS)
    for texts in store.scan(where):
        for line in _lines(texts, where):
            writer.writerow(_region_row(texts, line))
            count += 1
    return count


def _region_row(texts: Texts, line: Text) -> list[object]:
    info = texts.info
    return [
        as_cell(info.source_id),
        info.frame_id,
        format_time(info.captured_at_ns),
        info.media_time_ms,
        as_cell(info.path),
        line.region.line_number,
        as_cell(line.text),
        line.confidence,
        line.region.detector_score,
        *(side for point in line.region.polygon for side in point),
        line.region.track_id,
        texts.detector.name,
        texts.recognizer.name,
    ]


def _appearance_row(appearance: Appearance) -> list[object]:
    return [
        as_cell(appearance.source_id),
        appearance.track_id,
        as_cell(appearance.text),
        appearance.confidence,
        format_time(appearance.first_at_ns),
        format_time(appearance.last_at_ns),
        *_times_ms(appearance),
        appearance.readings,
        appearance.best_frame_id,
    ]


def _times_ms(appearance: Appearance) -> tuple[float, float]:
    """When it was seen first and last, in the time of its path: a camera has no media time."""
    if appearance.first_ms is None or appearance.last_ms is None:
        return appearance.first_at_ns / 1e6, appearance.last_at_ns / 1e6
    return appearance.first_ms, appearance.last_ms


def as_cell(text: str | None) -> str | None:
    """A text that a spreadsheet shows and does not calculate.

    What a camera reads is anybody's to write: a sign that says ``=HYPERLINK(…)`` must not become a formula on the
    computer of whoever opens the table. Such a text gets an apostrophe in front; numbers such as ``-5`` stay. JSON
    lines are the exact form.
    """
    if not text or text[0] not in "=+-@\t\r\n":
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _only_source(store: DocumentStore, where: Filter, format: Format) -> str:
    if len(where.sources) == 1:
        return where.sources[0]
    names = where.sources or tuple(source.source_id for source in store.sources())
    if len(names) == 1:
        return names[0]
    if not names:
        raise ConfigError(f"there is nothing to make {format.upper()} subtitles of: the store is empty")
    shown = ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
    raise ConfigError(f"{format.upper()} subtitles are of one source: pick it with --source, one of {shown}")


def _write_cues(found: Iterator[Cue], format: Format, out: TextIO) -> int:
    count = 0
    if format == "vtt":
        out.write("WEBVTT\n\n")
    for count, cue in enumerate(found, start=1):
        if format == "srt":
            out.write(f"{count}\n")
        mark = "." if format == "vtt" else ","
        out.write(f"{_clock(cue.start_ms, mark)} --> {_clock(cue.end_ms, mark)}\n")
        escape = _vtt_text if format == "vtt" else _srt_text
        out.write("\n".join(escape(text) for text in cue.texts) + "\n\n")
    return count


def _clock(at_ms: float, mark: str) -> str:
    whole_s, rest_ms = divmod(max(round(at_ms), 0), 1000)
    minutes, seconds = divmod(whole_s, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{seconds:02d}{mark}{rest_ms:03d}"


def _srt_text(text: str) -> str:
    # SRT knows no escapes; only the arrow, which begins a cue, and line breaks, which end one, would do harm.
    return " ".join(text.split()).replace("-->", "→")


def _vtt_text(text: str) -> str:
    return " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class OriginalPictures:
    """The pictures of images and folders: from where they are kept, else from the image files themselves.

    Args:
        kept: asked first, as it holds the frame as it was read; None where nothing is kept.
        root: what relative paths start from; None for the working folder.
    """

    def __init__(self, kept: Pictures | None = None, root: Path | None = None) -> None:
        self._kept = kept
        self._root = root or Path()

    def get(self, info: FrameInfo) -> bytes | None:
        """The encoded image, or None when neither has it."""
        kept = self._kept.get(info) if self._kept else None
        if kept is not None or info.path is None:
            return kept
        try:
            return (self._root / info.path).read_bytes()
        except OSError:
            return None


@dataclass(frozen=True, slots=True)
class BoxesReport:
    """What `export_boxes` did.

    Attributes:
        frames: frames whose lines were cut out.
        crops: crops written.
        without_picture: what the frames are called whose picture is not there any more, or cannot be read.
    """

    frames: int
    crops: int
    without_picture: tuple[str, ...]


def export_boxes(
    store: DocumentStore,
    where: Filter,
    pictures: Pictures,
    out_dir: Path,
    progress: Callable[[int], None] | None = None,
) -> BoxesReport:
    """Cut every text line out of its picture: ``boxes/*.jpg`` and a table ``texts.csv`` that tells where each is from.

    A crop is called after its image and its place in reading order (``sign-002.jpg`` is the third line of
    ``sign.png``), or after its frame's id where the frame is no image file. Running it again writes the same files.

    Args:
        store: where the lines are.
        where: which of them.
        pictures: where the pictures are; `OriginalPictures` for folders of images.
        out_dir: is made where it is missing.
        progress: called with the number of frames done so far.

    Raises:
        SourceError: the folder cannot be written to.
        StoreError: the store is away.
    """
    boxes = out_dir / "boxes"
    frames, crops, missing = 0, 0, []
    names = _Names()
    try:
        boxes.mkdir(parents=True, exist_ok=True)
        with (out_dir / "texts.csv").open("w", encoding="utf-8", newline="") as table:
            writer = csv.writer(table)
            writer.writerow(BOX_COLUMNS)
            for texts in store.scan(where):
                lines = _lines(texts, where)
                picture = _picture(pictures, texts.info) if lines else None
                if lines and picture is None:
                    missing.append(texts.info.path or texts.info.frame_id)
                elif picture is not None:
                    stem = names.of(texts.info)
                    for line in lines:
                        writer.writerow(_box_row(texts, line, picture, boxes, stem))
                    frames, crops = frames + 1, crops + len(lines)
                if progress is not None:
                    progress(frames)
    except OSError as error:
        raise SourceError(f"cannot write to {out_dir}: {error.strerror or error}; give another folder") from error
    return BoxesReport(frames, crops, tuple(missing))


class _Names:
    """Gives every image a name of its own: two folders may both hold a ``1.jpg``."""

    def __init__(self) -> None:
        self._taken: dict[str, str] = {}

    def of(self, info: FrameInfo) -> str:
        if info.path is None:
            return info.frame_id
        stem = Path(info.path).stem or info.frame_id
        if self._taken.setdefault(stem, info.frame_id) != info.frame_id:
            return f"{stem}-{info.frame_id}"
        return stem


def _picture(pictures: Pictures, info: FrameInfo) -> Image | None:
    encoded = pictures.get(info)
    if encoded is None:
        return None
    try:
        return Picture.from_encoded(encoded).array()
    except MalformedRecordError:
        return None


def _box_row(texts: Texts, line: Text, picture: Image, boxes: Path, stem: str) -> list[object]:
    info = texts.info
    # The picture may have been shrunk to be sent or kept; polygons are in the frame's own pixels.
    scale_x, scale_y = picture.shape[1] / info.width_px, picture.shape[0] / info.height_px
    crop = cut(picture, scale_polygon(line.region.polygon, scale_x, scale_y))
    name = f"{stem}-{line.region.line_number:03d}.jpg"
    (boxes / name).write_bytes(encode_jpeg(crop, quality=95))
    return [
        as_cell(info.path),
        info.frame_id,
        info.media_time_ms,
        line.region.line_number,
        as_cell(line.text),
        line.confidence,
        *(side for point in line.region.polygon for side in point),
        f"boxes/{name}",
    ]
