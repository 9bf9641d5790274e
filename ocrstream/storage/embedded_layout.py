"""How documents lie in SQLite: the schema, rows from documents and documents from rows; pure, no file needed.

==============  =======================================================================================
table           one row is
==============  =======================================================================================
``frames``      an analysed frame
``regions``     a text line in a frame
``appearances`` a text over time
``search``      a frame's words for FTS5: ``folded`` (what queries match) and ``exact`` (what ranks higher)
``words``       a word that FTS5 holds, for near misses
``folding``     the version of the folding that made the words
==============  =======================================================================================
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Mapping, Sequence
from typing import Any

from ocrstream.geometry import polygon_of
from ocrstream.messages import FIRST_READING, Appearance, EngineInfo, FrameInfo, PictureRef, Region, Text, Texts
from ocrstream.storage import Filter, storable, storable_or_none
from ocrstream.wire import words_from_json, words_to_json

SCHEMA_VERSION = 3

SCHEMA = """
CREATE TABLE frames (
    id INTEGER PRIMARY KEY,
    frame_id TEXT NOT NULL UNIQUE,
    source_id TEXT NOT NULL,
    captured_at_ns INTEGER NOT NULL,
    media_time_ms REAL,
    path TEXT,
    segment INTEGER,
    live INTEGER NOT NULL,
    width_px INTEGER NOT NULL,
    height_px INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    asked_detector TEXT,
    asked_recognizer TEXT,
    topic TEXT,
    partition INTEGER,
    offset INTEGER,
    detector TEXT NOT NULL,
    detector_weights TEXT NOT NULL,
    recognizer TEXT NOT NULL,
    recognizer_weights TEXT NOT NULL,
    best_confidence REAL
) STRICT;
CREATE INDEX frames_by_source ON frames (source_id, captured_at_ns);
CREATE INDEX frames_by_time ON frames (captured_at_ns);
CREATE INDEX frames_by_place ON frames (source_id, segment, media_time_ms, captured_at_ns);
CREATE TABLE regions (
    frame INTEGER NOT NULL,
    line_number INTEGER NOT NULL,
    text TEXT NOT NULL,
    confidence REAL NOT NULL,
    detector_score REAL NOT NULL,
    polygon TEXT NOT NULL,
    track_id TEXT,
    PRIMARY KEY (frame, line_number)
) STRICT, WITHOUT ROWID;
CREATE TABLE appearances (
    track_id TEXT PRIMARY KEY,
    source_id TEXT NOT NULL,
    text TEXT NOT NULL,
    confidence REAL NOT NULL,
    first_at_ns INTEGER NOT NULL,
    last_at_ns INTEGER NOT NULL,
    first_ms REAL,
    last_ms REAL,
    best_frame_id TEXT NOT NULL,
    readings INTEGER NOT NULL,
    path TEXT NOT NULL,
    closed INTEGER NOT NULL,
    generation INTEGER NOT NULL
) STRICT;
CREATE INDEX appearances_by_source ON appearances (source_id, first_at_ns);
CREATE INDEX appearances_by_time ON appearances (first_at_ns);
CREATE TABLE folding (version INTEGER NOT NULL) STRICT;
CREATE VIRTUAL TABLE search USING fts5 (folded, exact, tokenize = "ascii tokenchars '|'");
CREATE VIRTUAL TABLE words USING fts5vocab (search, col);
"""

RENEWALS: Mapping[int, tuple[str, ...]] = {
    2: (
        # Found by this, the few frames that were read again cost the writing of all others nothing.
        "CREATE INDEX IF NOT EXISTS frames_read_again ON frames (source_id, captured_at_ns) "
        f"WHERE generation > {FIRST_READING}",
        "CREATE INDEX IF NOT EXISTS appearances_unfinished ON appearances (source_id, first_at_ns) WHERE closed = 0",
        "DROP INDEX IF EXISTS appearances_by_best_frame",
    ),
    3: ("ALTER TABLE regions ADD COLUMN words TEXT NOT NULL DEFAULT '[]'",),
}
"""What makes a schema of the one before it; the first is `SCHEMA`."""

FRAME_COLUMNS = (
    "frame_id, source_id, captured_at_ns, media_time_ms, path, segment, live, width_px, height_px, generation, "
    "asked_detector, asked_recognizer, topic, partition, offset, "
    "detector, detector_weights, recognizer, recognizer_weights, best_confidence"
)
REGION_COLUMNS = "frame, line_number, text, confidence, detector_score, polygon, track_id, words"
APPEARANCE_COLUMNS = (
    "track_id, source_id, text, confidence, first_at_ns, last_at_ns, first_ms, last_ms, best_frame_id, readings, "
    "path, closed, generation"
)
WRITE_APPEARANCE = f"""
INSERT INTO appearances ({APPEARANCE_COLUMNS}) VALUES ({", ".join("?" * 13)})
ON CONFLICT (track_id) DO UPDATE SET
    source_id = excluded.source_id, text = excluded.text, confidence = excluded.confidence,
    first_at_ns = excluded.first_at_ns, last_at_ns = excluded.last_at_ns,
    first_ms = excluded.first_ms, last_ms = excluded.last_ms, best_frame_id = excluded.best_frame_id,
    readings = excluded.readings, path = excluded.path, closed = excluded.closed, generation = excluded.generation
WHERE (excluded.generation, excluded.last_at_ns) >= (appearances.generation, appearances.last_at_ns)
"""  # noqa: S608 only column names of this module


def frame_row(texts: Texts) -> tuple[Any, ...]:
    """The row of a frame, in the order of `FRAME_COLUMNS`."""
    info, picture = texts.info, texts.info.picture
    return (
        storable(info.frame_id),
        storable(info.source_id),
        info.captured_at_ns,
        info.media_time_ms,
        storable_or_none(info.path),
        info.segment,
        info.live,
        info.width_px,
        info.height_px,
        info.generation,
        storable_or_none(info.detector),
        storable_or_none(info.recognizer),
        *((storable(picture.topic), picture.partition, picture.offset) if picture else (None, None, None)),
        storable(texts.detector.name),
        storable(texts.detector.weights),
        storable(texts.recognizer.name),
        storable(texts.recognizer.weights),
        max((line.confidence for line in texts.lines), default=None),
    )


def appearance_row(appearance: Appearance) -> tuple[Any, ...]:
    """The row of an appearance, in the order of `APPEARANCE_COLUMNS`."""
    return (
        storable(appearance.track_id),
        storable(appearance.source_id),
        storable(appearance.text),
        appearance.confidence,
        appearance.first_at_ns,
        appearance.last_at_ns,
        appearance.first_ms,
        appearance.last_ms,
        storable(appearance.best_frame_id),
        appearance.readings,
        json.dumps(appearance.path, separators=(",", ":")),
        appearance.closed,
        appearance.generation,
    )


def region_rows(frame: int, texts: Texts) -> list[tuple[Any, ...]]:
    """The rows of a frame's lines, in the order of `REGION_COLUMNS`."""
    return [
        (
            frame,
            line.region.line_number,
            storable(line.text),
            line.confidence,
            line.region.detector_score,
            json.dumps(line.region.polygon, separators=(",", ":")),
            storable_or_none(line.region.track_id),
            storable(json.dumps(words_to_json(line.words), ensure_ascii=False, separators=(",", ":"))),
        )
        for line in texts.lines
    ]


def texts_of(row: sqlite3.Row, lines: Sequence[Text]) -> Texts:
    """The reading of a frame's row and its lines (without appearances)."""
    detector = EngineInfo(row["detector"], row["detector_weights"])
    recognizer = EngineInfo(row["recognizer"], row["recognizer_weights"])
    return Texts(_info_of(row), detector, recognizer, tuple(lines))


def line_of(row: sqlite3.Row) -> Text:
    """The line of a region's row."""
    region = Region(row["line_number"], polygon_of(json.loads(row["polygon"])), row["detector_score"], row["track_id"])
    return Text(region, row["text"], row["confidence"], words_from_json(json.loads(row["words"])))


def _info_of(row: sqlite3.Row) -> FrameInfo:
    picture = None if row["topic"] is None else PictureRef(row["topic"], row["partition"], row["offset"])
    return FrameInfo(
        source_id=row["source_id"],
        frame_id=row["frame_id"],
        captured_at_ns=row["captured_at_ns"],
        width_px=row["width_px"],
        height_px=row["height_px"],
        live=bool(row["live"]),
        media_time_ms=row["media_time_ms"],
        path=row["path"],
        segment=row["segment"],
        generation=row["generation"],
        detector=row["asked_detector"],
        recognizer=row["asked_recognizer"],
        picture=picture,
    )


def appearance_of(row: sqlite3.Row) -> Appearance:
    """The appearance of a row."""
    path = tuple((at_ms, polygon_of(points)) for at_ms, points in json.loads(row["path"]))
    return Appearance(**{**dict(row), "path": path, "closed": bool(row["closed"])})


def marks(values: Sequence[object]) -> str:
    """As many question marks as there are values."""
    return ", ".join("?" * len(values))


def frame_clause(where: Filter) -> tuple[str, list[Any]]:
    """A filter on frames as SQL, with its arguments."""
    clauses, arguments = _source_clause(where)
    if where.since_ns is not None:
        clauses.append("captured_at_ns >= ?")
        arguments.append(_bounded(where.since_ns))
    if where.until_ns is not None:
        clauses.append("captured_at_ns < ?")
        arguments.append(_bounded(where.until_ns))
    if where.min_confidence > 0:
        clauses.append("best_confidence >= ?")
        arguments.append(where.min_confidence)
    return " AND ".join(clauses) or "TRUE", arguments


def appearance_clause(where: Filter) -> tuple[str, list[Any]]:
    """A filter on appearances as SQL, with its arguments: those that overlap the time."""
    clauses, arguments = _source_clause(where)
    if where.since_ns is not None:
        clauses.append("last_at_ns >= ?")
        arguments.append(_bounded(where.since_ns))
    if where.until_ns is not None:
        clauses.append("first_at_ns < ?")
        arguments.append(_bounded(where.until_ns))
    if where.min_confidence > 0:
        clauses.append("confidence >= ?")
        arguments.append(where.min_confidence)
    return " AND ".join(clauses) or "TRUE", arguments


def _source_clause(where: Filter) -> tuple[list[str], list[Any]]:
    if not where.sources:
        return [], []
    return [f"source_id IN ({marks(where.sources)})"], [storable(source) for source in where.sources]


def _bounded(time_ns: int) -> int:
    return max(-(2**63), min(time_ns, 2**63 - 1))
