"""Texts over time in SQLite, as what is left of them where frames were read again; all in the store's transaction."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator

from ocrstream.messages import FIRST_READING, Appearance, FrameInfo
from ocrstream.storage import storable
from ocrstream.storage.embedded_layout import APPEARANCE_COLUMNS, WRITE_APPEARANCE, appearance_of, appearance_row
from ocrstream.storage.superseding import Cut, Mark, cut_of, cuts_of, part_id, track_of


def write_appearance(connection: sqlite3.Connection, appearance: Appearance) -> None:
    """Write an appearance where none of a later version is there; only what no later reading has taken the place of."""
    cut = cut_of(appearance, _History(connection))
    parts = (appearance,) if cut is None else cut.parts
    connection.executemany(WRITE_APPEARANCE, map(appearance_row, parts))


def supersede(connection: sqlite3.Connection, info: FrameInfo) -> None:
    """Take what a frame that was read again says anew out of the appearances of earlier readings."""
    for cut in cuts_of(info, _History(connection)):
        _put(connection, cut)


def _put(connection: sqlite3.Connection, cut: Cut) -> None:
    connection.execute("DELETE FROM appearances WHERE track_id = ?", (storable(cut.whole.track_id),))
    connection.executemany(WRITE_APPEARANCE, map(appearance_row, cut.parts))


class _History:
    """See `ocrstream.storage.superseding.History`."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def read_again(
        self, source_id: str, generation: int, since_ns: int, until_ns: int, *, last_only: bool = False
    ) -> Iterator[Mark]:
        rows = self._connection.execute(
            # The first condition is that of the index `frames_read_again`.
            "SELECT captured_at_ns, frame_id, generation FROM frames "  # noqa: S608 a constant
            f"WHERE generation > {FIRST_READING} AND generation >= ? AND source_id = ? "
            "AND captured_at_ns BETWEEN ? AND ? ORDER BY captured_at_ns DESC LIMIT ?",
            (generation, storable(source_id), since_ns, until_ns, 1 if last_only else -1),
        )
        return (Mark(*row) for row in rows)

    def older(self, source_id: str, generation: int, since_ns: int, until_ns: int) -> list[Appearance]:
        rows = self._connection.execute(
            f"SELECT {APPEARANCE_COLUMNS} FROM appearances "  # noqa: S608 only names of the layout
            "WHERE source_id = ? AND first_at_ns <= ? AND last_at_ns >= ? AND generation < ?",
            (storable(source_id), until_ns, since_ns, generation),
        ).fetchall()
        return [appearance_of(row) for row in rows]

    def known(self, appearance: Appearance, behind: Mark) -> Appearance | None:
        whole_id = storable(appearance.track_id)
        ids = part_id(whole_id, behind.frame_id), whole_id
        row = self._connection.execute(
            f"SELECT {APPEARANCE_COLUMNS} FROM appearances "  # noqa: S608 only names of the layout
            "WHERE track_id IN (?, ?) AND generation = ? ORDER BY track_id = ? DESC LIMIT 1",
            (*ids, appearance.generation, ids[0]),
        ).fetchone()
        return None if row is None else appearance_of(row)

    def frame_showing(self, appearance: Appearance) -> str | None:
        where = _where(appearance, appearance.first_at_ns, appearance.last_at_ns)
        best = self._connection.execute(
            f"SELECT frame_id FROM frames f WHERE frame_id = ? AND {_WHERE}",  # noqa: S608 a constant
            (storable(appearance.best_frame_id), *where),
        ).fetchone()
        shown = (
            best
            or self._connection.execute(
                f"SELECT frame_id FROM frames f JOIN regions r ON r.frame = f.id WHERE {_WHERE} "  # noqa: S608 likewise
                "AND track_id = ? ORDER BY captured_at_ns LIMIT 1",
                (*where, storable(track_of(appearance))),
            ).fetchone()
        )
        return None if shown is None else str(shown["frame_id"])

    def readings(self, appearance: Appearance, since_ns: int, until_ns: int) -> int:
        found = self._connection.execute(
            f"SELECT count(*) FROM frames f JOIN regions r ON r.frame = f.id WHERE {_WHERE} "  # noqa: S608 a constant
            "AND track_id = ?",
            (*_where(appearance, since_ns, until_ns), storable(track_of(appearance))),
        )
        return int(found.fetchone()[0])


_WHERE = "source_id = ? AND captured_at_ns BETWEEN ? AND ? AND generation = ?"


def _where(appearance: Appearance, since_ns: int, until_ns: int) -> tuple[str, int, int, int]:
    return storable(appearance.source_id), since_ns, until_ns, appearance.generation
