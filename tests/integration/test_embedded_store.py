"""The embedded store where things go wrong: other processes, damage, a full disk."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from ocrstream.errors import DeploymentError, StoreError
from ocrstream.geometry import box_polygon
from ocrstream.messages import EngineInfo, FrameInfo, Region, Text, Texts
from ocrstream.query import parse
from ocrstream.storage import Filter, embedded
from ocrstream.storage.embedded import FILE_NAME, EmbeddedStore
from ocrstream.storage.embedded_layout import SCHEMA_VERSION

ENGINE = EngineInfo("ppocr", "0123456789ab")


def frame(frame_id: str, text: str = "gate") -> Texts:
    info = FrameInfo("cam", frame_id, 1_767_268_800 * 10**9, 1280, 720, live=True)
    return Texts(info, ENGINE, ENGINE, (Text(Region(0, box_polygon(1.0, 2.0, 3.0, 4.0), 0.5), text, 0.9),))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with closing(EmbeddedStore(tmp_path)) as store:
        yield store


def found(store: EmbeddedStore, query: str = "gate") -> list[str]:
    return sorted(hit.texts.info.frame_id for hit in store.search(parse(query), Filter(), limit=1000).hits)


def test_another_process_reads_and_writes_beside_this_one(store: EmbeddedStore, tmp_path: Path) -> None:
    store.write([frame("f1")])
    program = f"""
from tests.integration.test_embedded_store import *
with closing(EmbeddedStore({str(tmp_path)!r})) as store:
    assert "f1" in found(store)
    for n in range(20):
        store.write([frame(f"other{{n}}")])
"""
    other = subprocess.Popen([sys.executable, "-c", program])
    for n in range(20):
        store.write([frame(f"mine{n}")])
    assert other.wait(timeout=60) == 0
    assert len(found(store)) == 41


def test_another_process_that_comes_and_goes_leaves_the_log_to_this_one(store: EmbeddedStore, tmp_path: Path) -> None:
    store.check()
    store.write([frame("f1")])
    program = f"""
from tests.integration.test_embedded_store import *
with closing(EmbeddedStore({str(tmp_path)!r})) as store:
    store.check()
    assert found(store) == ["f1"]
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    assert (tmp_path / f"{FILE_NAME}-wal").exists()
    store.write([frame("f2")])
    assert found(store) == ["f1", "f2"]


def test_threads_share_a_store(store: EmbeddedStore) -> None:
    def work(name: str) -> None:
        for n in range(10):
            store.write([frame(f"{name}{n}")])
            assert f"{name}{n}" in found(store)
            assert sum(1 for _ in store.scan(Filter())) > n

    threads = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found(store)) == 40


def test_a_killed_writer_leaves_whole_batches(tmp_path: Path) -> None:
    program = f"""
import os
from tests.integration.test_embedded_store import *
store = EmbeddedStore({str(tmp_path)!r})
for n in range(10_000):
    store.write([frame(f"{{n}}a"), frame(f"{{n}}b")])
    if n == 5:
        os.write(1, b"written")
"""
    writer = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    with writer.stdout:
        assert writer.stdout.read(7) == b"written"
        writer.kill()
        writer.wait(timeout=60)
    with closing(EmbeddedStore(tmp_path)) as store:
        ids = [texts.info.frame_id for texts in store.scan(Filter())]
    assert len(ids) >= 12
    assert {name[:-1] + "a" for name in ids} == {name for name in ids if name.endswith("a")}
    assert len(ids) % 2 == 0


def test_a_lock_held_by_another_is_a_store_error_and_loses_nothing(
    store: EmbeddedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "_BUSY_TIMEOUT_S", 0.01)
    store.write([frame("f1")])
    with closing(sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="locked by another process"):
            store.write([frame("f2")])
        assert found(store) == ["f1"]
        other.execute("ROLLBACK")
    store.write([frame("f2")])
    assert found(store) == ["f1", "f2"]


def test_a_full_disk_is_a_store_error_and_loses_nothing(store: EmbeddedStore) -> None:
    store.write([frame("f1")])
    with store._writing() as connection:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreError, match="full: make room"):
        store.write([frame(f"big{n}", "gate " * 2000) for n in range(50)])
    assert found(store) == ["f1"]
    with store._writing() as connection:
        connection.execute("PRAGMA max_page_count = 1000000")
    store.write([frame("f2")])
    assert found(store) == ["f1", "f2"]


def test_a_newer_schema_says_what_to_do(tmp_path: Path) -> None:
    with closing(EmbeddedStore(tmp_path)) as store:
        store.check()
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    with closing(EmbeddedStore(tmp_path)) as store, pytest.raises(DeploymentError, match="newer ocrstream"):
        store.check()


@pytest.mark.parametrize(
    "content", [b"this is a text file, not a database\n" * 50, b"SQLite format 3\x00" + b"\xff" * 4096]
)
def test_what_is_no_database_says_so_and_is_left_alone(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    with closing(EmbeddedStore(tmp_path)) as store, pytest.raises(DeploymentError, match="not a database of ocrstream"):
        store.check()
    assert (tmp_path / FILE_NAME).read_bytes() == content


def test_a_store_of_the_first_schema_is_brought_up_to_date(tmp_path: Path) -> None:
    with closing(EmbeddedStore(tmp_path)) as store:
        store.write([frame("f1")])
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("DROP INDEX frames_read_again")
        connection.execute("CREATE INDEX appearances_by_best_frame ON appearances (best_frame_id)")
        connection.execute("ALTER TABLE regions DROP COLUMN words")
        connection.execute("PRAGMA user_version = 1")
    with closing(EmbeddedStore(tmp_path)) as store:
        assert found(store) == ["f1"]
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (SCHEMA_VERSION,)
        names = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'index'")}
    assert "frames_read_again" in names
    assert "appearances_by_best_frame" not in names


def test_another_programs_database_is_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    with closing(EmbeddedStore(tmp_path)) as store, pytest.raises(DeploymentError, match="another program's"):
        store.write([frame("f1")])


def test_a_folder_that_cannot_be_made_says_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = EmbeddedStore(tmp_path / "file" / "data")
    with closing(store), pytest.raises(DeploymentError, match="name another with --data"):
        store.check()


def test_a_file_that_may_only_be_read_says_so(store: EmbeddedStore) -> None:
    store.write([frame("f1")])
    with store._writing() as connection:
        connection.execute("PRAGMA query_only = ON")
    with pytest.raises(DeploymentError, match="make it writable"):
        store.write([frame("f2")])
    assert found(store) == ["f1"]


def test_another_folding_folds_what_is_there_again(
    store: EmbeddedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write([frame("f1", "Gate B12")])
    with store._writing() as connection:
        connection.execute("UPDATE search SET folded = 'nonsense'")
    assert found(store) == []
    monkeypatch.setattr(embedded, "FOLDING_VERSION", 99)
    with closing(EmbeddedStore(tmp_path)) as newer:
        assert found(newer) == ["f1"]
        assert found(newer, '"gate b12"') == ["f1"]


def test_room_is_given_back_after_retention(store: EmbeddedStore, tmp_path: Path) -> None:
    store.write([frame(f"f{n}", f"gate {n} " * 200) for n in range(300)])
    with store._writing() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    before = (tmp_path / FILE_NAME).stat().st_size
    assert store.drop_before(2**62) == 1
    with store._writing() as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    assert (tmp_path / FILE_NAME).stat().st_size < before / 4
    assert found(store) == []


def test_a_closed_store_says_so(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    store.write([frame("f1")])
    store.close()
    store.close()
    with pytest.raises(StoreError, match="has been closed"):
        store.write([frame("f2")])
