"""Documents in one SQLite file (WAL, FTS5): the store of the embedded mode, with nothing to install or start.

One thread writes at a time, any number read, and other processes may have the file open too. A frame, its regions and
its words change in one transaction, so a reader sees either reading of a frame and never a mixture. `embedded_layout`
says how the documents lie there.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ocrstream.errors import DeploymentError, StoreError
from ocrstream.folding import FOLDING_VERSION, fold
from ocrstream.messages import Appearance, Text, Texts
from ocrstream.query import Query
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
from ocrstream.storage.embedded_appearances import supersede, write_appearance
from ocrstream.storage.embedded_layout import (
    APPEARANCE_COLUMNS,
    FRAME_COLUMNS,
    REGION_COLUMNS,
    RENEWALS,
    SCHEMA,
    SCHEMA_VERSION,
    appearance_clause,
    appearance_of,
    frame_clause,
    frame_row,
    line_of,
    marks,
    region_rows,
    texts_of,
)
from ocrstream.storage.embedded_search import Statement

FILE_NAME = "documents.db"

_BUSY_TIMEOUT_S = 10.0
_CHUNK = 500
_PURGE_CHUNK = 2_000


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
                if texts.is_kept and texts.info.generation < generation:
                    outdated += 1
                elif texts.is_kept and texts.info.generation > generation:
                    # First, since what it takes out of appearances is counted.
                    supersede(connection, texts.info)
                    known[frame_id] = _write_frame(connection, texts, row), texts.info.generation
                for appearance in texts.appearances:
                    write_appearance(connection, appearance)
        return WriteReport(len(accepted) - outdated, outdated, refused)

    def search(
        self, query: Query, where: Filter, *, limit: int = 20, offset: int = 0, newest_first: bool = False
    ) -> Page:
        """See `DocumentStore.search`."""
        with self._reading() as connection:
            if where.min_confidence > 0:
                return _search_verified(connection, query, where, limit, offset, newest_first)
            statement = Statement(connection, query, where)
            total = statement.count(connection)
            rows = statement.rows(connection, newest_first, limit, offset).fetchall()
            return Page(tuple(_hits(connection, query, 0.0, rows)), min(total, COUNT_LIMIT), total <= COUNT_LIMIT)

    def scan(self, where: Filter) -> Iterator[Texts]:
        """See `DocumentStore.scan`; frames written meanwhile may or may not be among them."""
        clause, arguments = frame_clause(where)
        after: tuple[str, int, int] = ("", -1, -1)
        while True:
            with self._reading() as connection:
                rows = connection.execute(
                    f"SELECT id, {FRAME_COLUMNS} FROM frames f "  # noqa: S608 only names of this module
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
        return self._appearances(*appearance_clause(where))

    def unfinished(self) -> Iterator[Appearance]:
        """See `DocumentStore.unfinished`."""
        return self._appearances("closed = 0", [])

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
                # Not `execute`: that takes only the first step of this pragma, which gives back a single page.
                connection.executescript("PRAGMA incremental_vacuum;")
        return len(days)

    def _appearances(self, clause: str, arguments: list[Any]) -> Iterator[Appearance]:
        after: tuple[str, int, str] = ("", -1, "")
        while True:
            with self._reading() as connection:
                rows = connection.execute(
                    f"SELECT {APPEARANCE_COLUMNS} FROM appearances "  # noqa: S608 only names of this module
                    f"WHERE (source_id, first_at_ns, track_id) > (?, ?, ?) AND {clause} "
                    "ORDER BY source_id, first_at_ns, track_id LIMIT ?",
                    (*after, *arguments, _CHUNK),
                ).fetchall()
            yield from map(appearance_of, rows)
            if len(rows) < _CHUNK:
                return
            after = rows[-1]["source_id"], rows[-1]["first_at_ns"], rows[-1]["track_id"]

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
                f"SELECT id, {FRAME_COLUMNS} FROM frames {clause}",  # noqa: S608 only names of this module
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
        elif version < SCHEMA_VERSION:
            _renew(connection, version)
        if _folding_version(connection) != FOLDING_VERSION:
            _fold_again(connection)


def _folding_version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("SELECT version FROM folding").fetchone()[0])


def _create(connection: sqlite3.Connection, path: Path) -> None:
    if connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone():
        raise DeploymentError(f"{path} is another program's database: name another --data folder")
    for statement in SCHEMA.split(";\n"):
        connection.execute(statement)
    connection.execute("INSERT INTO folding VALUES (?)", (FOLDING_VERSION,))
    _renew(connection, 1)


def _renew(connection: sqlite3.Connection, version: int) -> None:
    """Give a store of this schema what the later ones have."""
    for later in sorted(RENEWALS):
        if later > version:
            for statement in RENEWALS[later]:
                connection.execute(statement)
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
    # Asked, not tried: closing any handle on the file would drop the locks that SQLite holds on it in this process, and
    # the next process that closes the database would take its log away under us.
    return os.access(path, os.W_OK)


def _generations(connection: sqlite3.Connection, frame_ids: list[str]) -> dict[str, tuple[int | None, int]]:
    known: dict[str, tuple[int | None, int]] = {}
    for start in range(0, len(frame_ids), _CHUNK):
        chunk = frame_ids[start : start + _CHUNK]
        rows = connection.execute(
            f"SELECT frame_id, id, generation FROM frames WHERE frame_id IN ({marks(chunk)})",  # noqa: S608 marks
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
        f"INSERT INTO frames (id, {FRAME_COLUMNS}) VALUES ({', '.join('?' * 21)})",  # noqa: S608 marks
        (row, *frame_row(texts)),
    )
    frame = inserted.lastrowid
    assert frame is not None
    connection.executemany(
        "INSERT INTO regions VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        region_rows(frame, texts),
    )
    _write_words(connection, frame, [storable(line.text) for line in texts.lines])
    return frame


def _write_words(connection: sqlite3.Connection, frame: int, lines: list[str]) -> None:
    tokens = [token for line in lines for token in fold(line)]
    connection.execute(
        "INSERT INTO search (rowid, folded, exact) VALUES (?, ?, ?)",
        (frame, " ".join(token.folded for token in tokens), " ".join(token.exact for token in tokens)),
    )


def _texts_of(connection: sqlite3.Connection, rows: Sequence[sqlite3.Row]) -> list[Texts]:
    """The frames of these rows with their lines, in the rows' order."""
    lines: dict[int, list[Text]] = {row["id"]: [] for row in rows}
    ids = list(lines)
    for start in range(0, len(ids), _CHUNK):
        chunk = ids[start : start + _CHUNK]
        for row in connection.execute(
            f"SELECT {REGION_COLUMNS} FROM regions WHERE frame IN ({marks(chunk)}) "  # noqa: S608 only names and marks
            "ORDER BY frame, line_number",
            chunk,
        ):
            lines[row["frame"]].append(line_of(row))
    return [texts_of(row, lines[row["id"]]) for row in rows]


def _search_verified(
    connection: sqlite3.Connection, query: Query, where: Filter, limit: int, offset: int, newest_first: bool
) -> Page:
    """Search among lines of enough confidence: the index finds candidates, the matcher looks at their lines."""
    statement = Statement(connection, query.without_exclusions(), where)
    with contextlib.closing(statement.rows(connection, newest_first)) as rows:
        chunks = iter(lambda: rows.fetchmany(_CHUNK), [])
        found = (_hits(connection, query, where.min_confidence, chunk) for chunk in chunks)
        # One more than asked for tells whether there is more.
        hits = tuple(itertools.islice(itertools.chain.from_iterable(found), offset + limit + 1))
    return Page(hits[offset : offset + limit], len(hits), len(hits) <= offset + limit)


def _hits(
    connection: sqlite3.Connection, query: Query, min_confidence: float, rows: Sequence[sqlite3.Row]
) -> Iterator[Hit]:
    for texts, row in zip(_texts_of(connection, rows), rows, strict=True):
        hit = hit_of(query, texts, min_confidence, row["score"])
        if hit is not None:
            yield hit
