"""Documents in one SQLite file (WAL, FTS5): the store of the embedded mode, with nothing to install or start.

==============  =======================================================================================
table           one row is
==============  =======================================================================================
``frames``      an analysed frame
``regions``     a text line in a frame
``appearances`` a text over time
``search``      a frame's words for FTS5: ``folded`` (what queries match) and ``exact`` (what ranks higher)
==============  =======================================================================================

One thread writes at a time, any number read, and other processes may have the file open too. A frame, its regions and
its words change in one transaction, so a reader sees either reading of a frame and never a mixture.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rapidfuzz import process
from rapidfuzz.distance import OSA

from ocrstream.errors import DeploymentError, StoreError
from ocrstream.folding import FOLDING_VERSION, fold
from ocrstream.messages import Appearance, EngineInfo, FrameInfo, PictureRef, Region, Text, Texts
from ocrstream.query import EVERYTHING, And, Fuzzy, Node, Not, Or, Phrase, Query
from ocrstream.storage import (
    COUNT_LIMIT,
    DAY_NS,
    Filter,
    Hit,
    Page,
    SourceSummary,
    WriteReport,
    hit_of,
    refusal,
    storable,
)

FILE_NAME = "documents.db"

SCHEMA_VERSION = 1

_SCHEMA = """
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

_FRAME_COLUMNS = (
    "frame_id, source_id, captured_at_ns, media_time_ms, path, segment, live, width_px, height_px, generation, "
    "asked_detector, asked_recognizer, topic, partition, offset, "
    "detector, detector_weights, recognizer, recognizer_weights, best_confidence"
)
_APPEARANCE_COLUMNS = (
    "track_id, source_id, text, confidence, first_at_ns, last_at_ns, first_ms, last_ms, best_frame_id, readings, "
    "path, closed, generation"
)
_WRITE_APPEARANCE = f"""
INSERT INTO appearances ({_APPEARANCE_COLUMNS}) VALUES ({", ".join("?" * 13)})
ON CONFLICT (track_id) DO UPDATE SET
    source_id = excluded.source_id, text = excluded.text, confidence = excluded.confidence,
    first_at_ns = excluded.first_at_ns, last_at_ns = excluded.last_at_ns,
    first_ms = excluded.first_ms, last_ms = excluded.last_ms, best_frame_id = excluded.best_frame_id,
    readings = excluded.readings, path = excluded.path, closed = excluded.closed, generation = excluded.generation
WHERE (excluded.generation, excluded.last_at_ns) >= (appearances.generation, appearances.last_at_ns)
"""  # noqa: S608 only column names of this module

_BUSY_TIMEOUT_S = 10.0
_CHUNK = 500
_PURGE_CHUNK = 2_000
_MAX_NEAR_WORDS = 1_000


class EmbeddedStore:
    """A `DocumentStore` in a folder.

    Args:
        directory: the data folder; ``documents.db`` lies in it, and is made when it is first needed.
    """

    def __init__(self, directory: str | Path) -> None:
        self._directory = Path(directory)
        self._path = self._directory / FILE_NAME
        self._write_lock = threading.Lock()
        self._writer: sqlite3.Connection | None = None
        self._pool_lock = threading.Lock()
        self._idle_readers: list[sqlite3.Connection] = []
        self._closed = False

    def check(self) -> None:
        """See `DocumentStore.check`."""
        with self._writing() as connection:
            connection.execute("SELECT 1 FROM frames LIMIT 1").fetchone()
        if not _is_writable(self._path):
            raise DeploymentError(f"{self._path} cannot be written to: make it writable, or name another --data folder")

    def close(self) -> None:
        """See `DocumentStore.close`."""
        with self._write_lock, self._pool_lock:
            self._closed = True
            for connection in (*self._idle_readers, *([self._writer] if self._writer else [])):
                connection.close()
            self._idle_readers.clear()
            self._writer = None

    def write(self, batch: Sequence[Texts]) -> WriteReport:
        """See `DocumentStore.write`; the batch is one transaction."""
        refused = {index: reason for index, texts in enumerate(batch) if (reason := refusal(texts)) is not None}
        accepted = [texts for index, texts in enumerate(batch) if index not in refused]
        outdated = 0
        with self._writing() as connection, _transaction(connection):
            known = _generations(connection, [storable(texts.info.frame_id) for texts in accepted])
            for texts in accepted:
                frame_id = storable(texts.info.frame_id)
                row, generation = known.get(frame_id, (None, -1))
                if texts.info.generation < generation:
                    outdated += 1
                elif texts.info.generation > generation:
                    known[frame_id] = _write_frame(connection, texts, row), texts.info.generation
                connection.executemany(_WRITE_APPEARANCE, map(_appearance_row, texts.appearances))
        return WriteReport(len(accepted) - outdated, outdated, refused)

    def search(
        self, query: Query, where: Filter, *, limit: int = 20, offset: int = 0, newest_first: bool = False
    ) -> Page:
        """See `DocumentStore.search`."""
        with self._reading() as connection:
            if where.min_confidence > 0:
                return _search_verified(connection, query, where, limit, offset, newest_first)
            statement = _Statement(connection, query, where)
            total = statement.count(connection)
            rows = statement.rows(connection, newest_first, limit, offset).fetchall()
            return Page(tuple(_hits(connection, query, 0.0, rows)), min(total, COUNT_LIMIT), total <= COUNT_LIMIT)

    def scan(self, where: Filter) -> Iterator[Texts]:
        """See `DocumentStore.scan`; frames written meanwhile may or may not be among them."""
        clause, arguments = _frame_clause(where)
        after: tuple[str, int, int] = ("", -1, -1)
        while True:
            with self._reading() as connection:
                rows = connection.execute(
                    f"SELECT id, {_FRAME_COLUMNS} FROM frames f "  # noqa: S608 only names of this module
                    f"WHERE (source_id, captured_at_ns, id) > (?, ?, ?) AND {clause} "
                    "ORDER BY source_id, captured_at_ns, id LIMIT ?",
                    (*after, *arguments, _CHUNK),
                ).fetchall()
                found = _texts_of(connection, rows)
            yield from found
            if len(rows) < _CHUNK:
                return
            after = rows[-1]["source_id"], rows[-1]["captured_at_ns"], rows[-1]["id"]

    def appearances(self, where: Filter) -> Iterator[Appearance]:
        """See `DocumentStore.appearances`."""
        clause, arguments = _appearance_clause(where)
        after: tuple[str, int, str] = ("", -1, "")
        while True:
            with self._reading() as connection:
                rows = connection.execute(
                    f"SELECT {_APPEARANCE_COLUMNS} FROM appearances "  # noqa: S608 only names of this module
                    f"WHERE (source_id, first_at_ns, track_id) > (?, ?, ?) AND {clause} "
                    "ORDER BY source_id, first_at_ns, track_id LIMIT ?",
                    (*after, *arguments, _CHUNK),
                ).fetchall()
            yield from map(_appearance_of, rows)
            if len(rows) < _CHUNK:
                return
            after = rows[-1]["source_id"], rows[-1]["first_at_ns"], rows[-1]["track_id"]

    def get(self, frame_id: str) -> Texts | None:
        """See `DocumentStore.get`."""
        return self._one("WHERE frame_id = ?", (storable(frame_id),))

    def last_frame(self, source_id: str, segment: int | None = None) -> Texts | None:
        """See `DocumentStore.last_frame`; without a segment, the last frame that belongs to none."""
        return self._one(
            "WHERE source_id = ? AND segment IS ? ORDER BY media_time_ms DESC, captured_at_ns DESC LIMIT 1",
            (storable(source_id), segment),
        )

    def sources(self) -> list[SourceSummary]:
        """See `DocumentStore.sources`."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT source_id, count(*), min(captured_at_ns), max(captured_at_ns) FROM frames GROUP BY source_id "
                "ORDER BY source_id"
            ).fetchall()
        return [SourceSummary(*row) for row in rows]

    def drop_before(self, before_ns: int) -> int:
        """See `DocumentStore.drop_before`."""
        end_ns = before_ns // DAY_NS * DAY_NS
        with self._writing() as connection:
            days = connection.execute(
                f"SELECT captured_at_ns / {DAY_NS} FROM frames WHERE captured_at_ns < ?1 "  # noqa: S608 a constant
                f"UNION SELECT first_at_ns / {DAY_NS} FROM appearances WHERE first_at_ns < ?1",
                (end_ns,),
            ).fetchall()
        while self._purge(end_ns):
            pass
        if days:
            with self._writing() as connection:
                # Stepping through the rows is what gives the pages back.
                connection.execute("PRAGMA incremental_vacuum").fetchall()
        return len(days)

    def _purge(self, end_ns: int) -> bool:
        """Delete some of what is older, a little at a time so that writing goes on; returns whether to go on."""
        with self._writing() as connection, _transaction(connection):
            rows = connection.execute(
                "SELECT id FROM frames WHERE captured_at_ns < ? ORDER BY captured_at_ns LIMIT ?", (end_ns, _PURGE_CHUNK)
            ).fetchall()
            ids = [(row["id"],) for row in rows]
            connection.executemany("DELETE FROM search WHERE rowid = ?", ids)
            connection.executemany("DELETE FROM regions WHERE frame = ?", ids)
            connection.executemany("DELETE FROM frames WHERE id = ?", ids)
            if not ids:
                connection.execute("DELETE FROM appearances WHERE first_at_ns < ?", (end_ns,))
        return bool(ids)

    def _one(self, clause: str, arguments: tuple[Any, ...]) -> Texts | None:
        with self._reading() as connection:
            rows = connection.execute(
                f"SELECT id, {_FRAME_COLUMNS} FROM frames {clause}",  # noqa: S608 only names of this module
                arguments,
            ).fetchall()
            found = _texts_of(connection, rows)
        return found[0] if found else None

    @contextlib.contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._write_lock, _explained(self._path):
            if self._closed:
                raise StoreError(f"{self._path} has been closed")
            if self._writer is None:
                self._writer = self._open()
            yield self._writer

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """A connection in a read transaction of its own, so that all it reads belongs together."""
        if self._writer is None:
            with self._writing():
                pass  # makes or checks the schema before anybody reads
        with _explained(self._path):
            with self._pool_lock:
                connection = self._idle_readers.pop() if self._idle_readers else None
            connection = connection or _connect(self._path)
            try:
                connection.execute("BEGIN")
                yield connection
            finally:
                connection.execute("ROLLBACK")
                with self._pool_lock:
                    keep = not self._closed
                    if keep:
                        self._idle_readers.append(connection)
                if not keep:
                    connection.close()

    def _open(self) -> sqlite3.Connection:
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DeploymentError(
                f"the data folder {self._directory} cannot be made ({error.strerror}): name another with --data"
            ) from error
        connection = _connect(self._path)
        try:
            _prepare(connection, self._path)
        except BaseException:
            connection.close()
            raise
        return connection


def _connect(path: Path) -> sqlite3.Connection:
    # Connections move between threads, one at a time: the lock and the pool see to that.
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    """Make the schema of a new file, or see that an old one's is ours."""
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > SCHEMA_VERSION:
        raise DeploymentError(
            f"{path} was written by a newer ocrstream (schema {version}, this one reads {SCHEMA_VERSION}): update "
            "ocrstream, or name another --data folder"
        )
    if version == 0:
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
    # What `write` returned for survives a power cut, not only a crash.
    connection.execute("PRAGMA synchronous = FULL")
    if version == SCHEMA_VERSION and _folding_version(connection) == FOLDING_VERSION:
        return
    with _transaction(connection):
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if version == 0:
            _create(connection, path)
        elif _folding_version(connection) != FOLDING_VERSION:
            _fold_again(connection)


def _folding_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT version FROM folding").fetchone()[0])


def _create(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
        raise DeploymentError(f"{path} is another program's database: name another --data folder")
    for statement in _SCHEMA.split(";\n"):
        connection.execute(statement)
    connection.execute("INSERT INTO folding VALUES (?)", (FOLDING_VERSION,))
    connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")


def _fold_again(connection: sqlite3.Connection) -> None:
    """Index every frame's words anew: this version of the program folds text in another way."""
    connection.execute("DELETE FROM search")
    for (frame,) in connection.execute("SELECT id FROM frames").fetchall():
        lines = connection.execute("SELECT text FROM regions WHERE frame = ? ORDER BY line_number", (frame,))
        _write_words(connection, frame, [text for (text,) in lines])
    connection.execute("UPDATE folding SET version = ?", (FOLDING_VERSION,))


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # A full disk has rolled back already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into ours, with what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", None) or 0
        match code & 0xFF:
            case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
                raise StoreError(f"{path} is locked by another process; trying again") from error
            case sqlite3.SQLITE_FULL:
                raise StoreError(f"the disk that holds {path} is full: make room") from error
            case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_PERM | sqlite3.SQLITE_AUTH:
                raise DeploymentError(
                    f"{path} cannot be opened or written to ({error}): make it writable, or name another --data folder"
                ) from error
            case sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_CORRUPT:
                raise DeploymentError(
                    f"{path} is not a database of ocrstream, or it is damaged ({error}): move it away or name another "
                    "--data folder"
                ) from error
            case _:
                raise StoreError(f"{path}: {error}") from error


def _is_writable(path: Path) -> bool:
    try:
        with path.open("r+b"):
            return True
    except OSError:
        return False


def _generations(connection: sqlite3.Connection, frame_ids: list[str]) -> dict[str, tuple[int | None, int]]:
    known: dict[str, tuple[int | None, int]] = {}
    for start in range(0, len(frame_ids), _CHUNK):
        chunk = frame_ids[start : start + _CHUNK]
        rows = connection.execute(
            f"SELECT frame_id, id, generation FROM frames WHERE frame_id IN ({_marks(chunk)})",  # noqa: S608 marks
            chunk,
        )
        known.update({row["frame_id"]: (row["id"], row["generation"]) for row in rows})
    return known


def _write_frame(connection: sqlite3.Connection, texts: Texts, row: int | None) -> int:
    """Write a frame, its regions and its words, in place of its earlier reading if there is one."""
    if row is not None:
        connection.execute("DELETE FROM frames WHERE id = ?", (row,))
        connection.execute("DELETE FROM regions WHERE frame = ?", (row,))
        connection.execute("DELETE FROM search WHERE rowid = ?", (row,))
    inserted = connection.execute(
        f"INSERT INTO frames (id, {_FRAME_COLUMNS}) VALUES ({', '.join('?' * 21)})",  # noqa: S608 marks
        (row, *_frame_row(texts)),
    )
    frame = inserted.lastrowid
    assert frame is not None
    lines = [(line, storable(line.text)) for line in texts.lines]
    connection.executemany(
        "INSERT INTO regions VALUES (?, ?, ?, ?, ?, ?, ?)",
        [
            (
                frame,
                line.region.line_number,
                text,
                line.confidence,
                line.region.detector_score,
                json.dumps(line.region.polygon, separators=(",", ":")),
                _storable(line.region.track_id),
            )
            for line, text in lines
        ],
    )
    _write_words(connection, frame, [text for _, text in lines])
    return frame


def _write_words(connection: sqlite3.Connection, frame: int, lines: list[str]) -> None:
    tokens = [token for line in lines for token in fold(line)]
    connection.execute(
        "INSERT INTO search (rowid, folded, exact) VALUES (?, ?, ?)",
        (frame, " ".join(token.folded for token in tokens), " ".join(token.exact for token in tokens)),
    )


def _frame_row(texts: Texts) -> tuple[Any, ...]:
    info, picture = texts.info, texts.info.picture
    return (
        storable(info.frame_id),
        storable(info.source_id),
        info.captured_at_ns,
        info.media_time_ms,
        _storable(info.path),
        info.segment,
        info.live,
        info.width_px,
        info.height_px,
        info.generation,
        _storable(info.detector),
        _storable(info.recognizer),
        *((storable(picture.topic), picture.partition, picture.offset) if picture else (None, None, None)),
        storable(texts.detector.name),
        storable(texts.detector.weights),
        storable(texts.recognizer.name),
        storable(texts.recognizer.weights),
        max((line.confidence for line in texts.lines), default=None),
    )


def _appearance_row(appearance: Appearance) -> tuple[Any, ...]:
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


def _storable(text: str | None) -> str | None:
    return None if text is None else storable(text)


def _texts_of(connection: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> list[Texts]:
    """The frames of these rows with their lines, in the rows' order."""
    lines: dict[int, list[Text]] = {row["id"]: [] for row in rows}
    ids = list(lines)
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        for frame, number, text, confidence, score, polygon, track_id in connection.execute(
            "SELECT frame, line_number, text, confidence, detector_score, polygon, track_id FROM regions "  # noqa: S608
            f"WHERE frame IN ({_marks(chunk)}) ORDER BY frame, line_number",
            chunk,
        ):
            region = Region(number, _polygon(json.loads(polygon)), score, track_id)
            lines[frame].append(Text(region, text, confidence))
    return [
        Texts(
            _info_of(row),
            EngineInfo(row["detector"], row["detector_weights"]),
            EngineInfo(row["recognizer"], row["recognizer_weights"]),
            tuple(lines[row["id"]]),
        )
        for row in rows
    ]


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


def _appearance_of(row: sqlite3.Row) -> Appearance:
    path = tuple((at_ms, _polygon(points)) for at_ms, points in json.loads(row["path"]))
    return Appearance(**{**dict(row), "path": path, "closed": bool(row["closed"])})


def _polygon(points: list[list[float]]) -> Any:
    return tuple((x, y) for x, y in points)


def _marks(values: Sequence[object]) -> str:
    return ", ".join("?" * len(values))


def _frame_clause(where: Filter) -> tuple[str, list[Any]]:
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


def _appearance_clause(where: Filter) -> tuple[str, list[Any]]:
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
    return [f"source_id IN ({_marks(where.sources)})"], [storable(source) for source in where.sources]


def _bounded(time_ns: int) -> int:
    return max(-(2**63), min(time_ns, 2**63 - 1))


class _Statement:
    """A query and a filter as SQL."""

    def __init__(self, connection: sqlite3.Connection, query: Query, where: Filter) -> None:
        clause, filter_arguments = _frame_clause(where)
        self._expression = "" if query.root == EVERYTHING else _folded(connection, query.root)[1]
        self._is_ranked = query.is_ranked
        self._exact = _exact(query.root) if self._is_ranked else ""
        if self._is_ranked:
            self._from = "search JOIN frames f ON f.id = search.rowid"
            self._where, self._arguments = f"search MATCH ? AND {clause}", [self._expression, *filter_arguments]
        elif self._expression:
            self._from = "frames f"
            self._where = f"f.id NOT IN (SELECT rowid FROM search WHERE search MATCH ?) AND {clause}"  # noqa: S608
            self._arguments = [self._expression, *filter_arguments]
        else:
            self._from, self._where, self._arguments = "frames f", clause, filter_arguments

    def count(self, connection: sqlite3.Connection) -> int:
        """How many frames fit, counted to just beyond `COUNT_LIMIT`."""
        found = connection.execute(
            f"SELECT count(*) FROM (SELECT 1 FROM {self._from} WHERE {self._where} LIMIT ?)",  # noqa: S608
            (*self._arguments, COUNT_LIMIT + 1),
        )
        return int(found.fetchone()[0])

    def rows(
        self, connection: sqlite3.Connection, newest_first: bool, limit: int = -1, offset: int = 0
    ) -> sqlite3.Cursor:
        """Rows with ``score`` and ``is_exact``: frames that hold the words unfolded, then BM25, then the newest."""
        score = "-bm25(search)" if self._is_ranked else "0.0"
        exact = "f.id IN (SELECT rowid FROM search WHERE search MATCH ?)" if self._exact else "0"
        order = "f.captured_at_ns DESC, f.id DESC"
        if self._is_ranked and not newest_first:
            order = f"is_exact DESC, score DESC, {order}"
        return connection.execute(
            f"SELECT f.id, {_FRAME_COLUMNS}, {score} AS score, {exact} AS is_exact "  # noqa: S608
            f"FROM {self._from} WHERE {self._where} ORDER BY {order} LIMIT ? OFFSET ?",
            (*([self._exact] if self._exact else []), *self._arguments, limit, offset),
        )


def _search_verified(
    connection: sqlite3.Connection, query: Query, where: Filter, limit: int, offset: int, newest_first: bool
) -> Page:
    """Search among lines of enough confidence: the index finds candidates, the matcher looks at their lines."""
    statement = _Statement(connection, query.without_exclusions(), where)
    rows = statement.rows(connection, newest_first)
    hits: list[Hit] = []
    # One more than asked for tells whether there is more.
    while len(hits) <= offset + limit and (chunk := rows.fetchmany(_CHUNK)):
        hits.extend(_hits(connection, query, where.min_confidence, chunk))
    is_exact = len(hits) <= offset + limit
    return Page(tuple(hits[offset : offset + limit]), len(hits), is_exact)


def _hits(
    connection: sqlite3.Connection, query: Query, min_confidence: float, rows: Sequence[sqlite3.Row]
) -> Iterator[Hit]:
    for texts, row in zip(_texts_of(connection, rows), rows, strict=True):
        hit = hit_of(query, texts, min_confidence, row["score"])
        if hit is not None:
            yield hit


def _folded(connection: sqlite3.Connection, node: Node) -> tuple[bool, str]:
    """A part as an FTS5 expression, and whether frames that match it are meant (or those that do not).

    FTS5 has no NOT without a left side, so exclusions are carried as complements and moved outwards by De Morgan.
    """
    match node:
        case Phrase():
            return True, f"folded : {_quoted(node.tokens, node.prefix)}"
        case Fuzzy(token):
            words = _near_words(connection, token)
            return True, f"folded : ({' OR '.join(_quoted([word]) for word in words)})"
        case Not(inner):
            is_positive, expression = _folded(connection, inner)
            return not is_positive, expression
        case And(nodes):
            wanted, unwanted = _sorted_parts(connection, nodes)
            if not wanted:
                return False, _joined(" OR ", unwanted)
            return True, _without(_joined(" AND ", wanted), unwanted)
        case Or(nodes):
            wanted, unwanted = _sorted_parts(connection, nodes)
            if not unwanted:
                return True, _joined(" OR ", wanted)
            return False, _without(_joined(" AND ", unwanted), wanted)


def _sorted_parts(connection: sqlite3.Connection, nodes: tuple[Node, ...]) -> tuple[list[str], list[str]]:
    parts = [_folded(connection, part) for part in nodes]
    return [e for is_positive, e in parts if is_positive], [e for is_positive, e in parts if not is_positive]


def _joined(operator: str, expressions: list[str]) -> str:
    return f"({operator.join(expressions)})"


def _without(expression: str, unwanted: list[str]) -> str:
    return f"({expression} NOT {_joined(' OR ', unwanted)})" if unwanted else expression


def _quoted(tokens: Sequence[str], prefix: bool = False) -> str:
    content = " ".join(tokens).replace('"', '""')
    return f'"{content}"*' if prefix else f'"{content}"'


def _near_words(connection: sqlite3.Connection, token: str) -> list[str]:
    """The indexed words within the edit distance, nearest first; the word itself where there is none."""
    distance = Fuzzy(token, token).max_distance
    words = connection.execute(
        "SELECT term FROM words WHERE col = 'folded' AND length(term) BETWEEN ? AND ?",
        (len(token) - distance, len(token) + distance),
    )
    near = process.extract(
        token, [word for (word,) in words], scorer=OSA.distance, score_cutoff=distance, limit=_MAX_NEAR_WORDS
    )
    return [word for word, _, _ in near] or [token]


def _exact(node: Node) -> str:
    """The frames that hold the wanted words as they were typed, as an FTS5 expression; empty where that is unclear."""
    match node:
        case Phrase():
            return f"exact : {_quoted(node.exact, node.prefix)}"
        case Fuzzy():
            return f"exact : {_quoted([node.exact])}"
        case Not():
            return ""
        case And(nodes):
            # What is excluded is excluded already, folded.
            parts = [_exact(part) for part in nodes if not isinstance(part, Not)]
            return _joined(" AND ", parts) if parts and all(parts) else ""
        case Or(nodes):
            parts = [part for part in map(_exact, nodes) if part]
            return _joined(" OR ", parts) if parts else ""
