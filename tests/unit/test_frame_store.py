"""Pictures on disk within their limits."""

import os
from pathlib import Path

import pytest

from ocrstream.errors import StoreError
from ocrstream.storage.frames import FrameStore

HOUR_NS = 3600 * 10**9
NOON_NS = 1_767_268_800 * 10**9  # 2026-01-01 12:00 UTC


def written_at(directory: Path, frame_id: str, seconds: float) -> None:
    (path,) = directory.rglob(f"{frame_id}.jpg")
    os.utime(path, (seconds, seconds))


def kept(directory: Path) -> set[str]:
    return {path.stem for path in directory.rglob("*.jpg")}


def test_a_picture_comes_back_as_it_went_in(tmp_path: Path) -> None:
    store = FrameStore(tmp_path / "frames", max_bytes=1000)
    store.put("a1", NOON_NS, b"picture")
    assert store.get("a1", NOON_NS) == b"picture"
    assert store.get("a1", NOON_NS + HOUR_NS) is None
    assert store.get("b1", NOON_NS) is None
    assert (tmp_path / "frames/2026-01-01/12/a1.jpg").read_bytes() == b"picture"
    assert not list(tmp_path.rglob("*.part*"))


def test_the_same_picture_again_changes_nothing(tmp_path: Path) -> None:
    store = FrameStore(tmp_path, max_bytes=10)
    for _ in range(5):
        store.put("a", NOON_NS, b"12345")
    assert store.size_bytes() == 5


def test_what_was_written_first_goes_first_wherever_it_was_captured(tmp_path: Path) -> None:
    store = FrameStore(tmp_path, max_bytes=100)
    # Capture times run backwards: the imported old video came last.
    for index in range(10):
        store.put(f"f{index}", NOON_NS - index * HOUR_NS, b"x" * 10)
        written_at(tmp_path, f"f{index}", 1000.0 + index)
    assert FrameStore(tmp_path, max_bytes=100).size_bytes() == 100
    restarted = FrameStore(tmp_path, max_bytes=100)
    restarted.put("new", NOON_NS - 100 * HOUR_NS, b"x" * 10)
    # Room is made with a slack of 5 %: 11 pictures have to fit into 95 bytes.
    assert kept(tmp_path) == {f"f{index}" for index in range(2, 10)} | {"new"}
    assert restarted.size_bytes() == 90
    assert not (tmp_path / "2026-01-01/12").exists()


def test_the_oldest_go_in_order_also_where_folders_are_mixed(tmp_path: Path) -> None:
    store = FrameStore(tmp_path, max_bytes=100)
    for index in range(10):
        store.put(f"f{index}", NOON_NS + (index % 2) * HOUR_NS, b"x" * 10)
        written_at(tmp_path, f"f{index}", 1000.0 + index)
    FrameStore(tmp_path, max_bytes=60).put("new", NOON_NS, b"x" * 10)
    assert kept(tmp_path) == {f"f{index}" for index in range(6, 10)} | {"new"}


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    store = FrameStore(tmp_path, max_bytes=1000, max_age_s=60)
    store.put("old", NOON_NS, b"x")
    store.put("young", NOON_NS, b"x")
    written_at(tmp_path, "old", 1000.0)
    FrameStore(tmp_path, max_bytes=1000, max_age_s=60).put("new", NOON_NS, b"x")
    assert kept(tmp_path) == {"young", "new"}


@pytest.mark.parametrize("store_limits", [{"max_bytes": 0}, {"max_bytes": 3}, {"max_bytes": 100, "max_age_s": 0.0}])
def test_limits_that_leave_no_room_keep_nothing(tmp_path: Path, store_limits: dict[str, float]) -> None:
    store = FrameStore(tmp_path, max_bytes=int(store_limits["max_bytes"]), max_age_s=store_limits.get("max_age_s"))
    store.put("a", NOON_NS, b"1234")
    assert store.get("a", NOON_NS) is None
    assert kept(tmp_path) == set()


def test_two_processes_share_the_folder(tmp_path: Path) -> None:
    one, other = FrameStore(tmp_path, max_bytes=100), FrameStore(tmp_path, max_bytes=100)
    for index in range(20):
        one.put(f"a{index}", NOON_NS, b"x" * 10)
        other.put(f"b{index}", NOON_NS, b"x" * 10)
    assert one.size_bytes() <= 110


@pytest.mark.parametrize("frame_id", ["../../evil", "a/b", "", ".", "\x00", "\ud800", "é" * 300])
def test_no_id_reaches_another_file(tmp_path: Path, frame_id: str) -> None:
    store = FrameStore(tmp_path / "frames", max_bytes=100)
    store.put(frame_id, NOON_NS, b"x")
    assert store.get(frame_id, NOON_NS) == b"x"
    assert [path.parent for path in tmp_path.rglob("*.jpg")] == [tmp_path / "frames/2026-01-01/12"]


def test_an_abandoned_temporary_file_goes_and_an_empty_picture_is_none(tmp_path: Path) -> None:
    hour = tmp_path / "2026-01-01/12"
    hour.mkdir(parents=True)
    (hour / ".dead.part.jpg").write_bytes(b"x" * 50)
    os.utime(hour / ".dead.part.jpg", (1000.0, 1000.0))
    (hour / "cut.jpg").touch()
    store = FrameStore(tmp_path, max_bytes=100)
    assert store.size_bytes() == 0
    assert not (hour / ".dead.part.jpg").exists()
    assert store.get("cut", NOON_NS) is None


def test_a_full_disk_is_a_store_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FrameStore(tmp_path, max_bytes=100)
    store.put("a", NOON_NS, b"x")

    def full(path: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StoreError, match="full: make room"):
        store.put("b", NOON_NS, b"x")
    assert store.get("a", NOON_NS) == b"x"
    assert kept(tmp_path) == {"a"}


def test_a_folder_that_is_a_file_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "frames").write_text("not a folder")
    store = FrameStore(tmp_path / "frames", max_bytes=100)
    assert store.get("a", NOON_NS) is None
    with pytest.raises(StoreError, match="cannot be written to"):
        store.put("a", NOON_NS, b"x")
