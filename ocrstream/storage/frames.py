"""Pictures of frames on disk, within a limit of size and age.

A picture lies in ``YYYY-MM-DD/HH/FRAME_ID.jpg`` by its capture time (UTC), so that it is found without an index and a
person can look through a day. What goes first is what was *written* first: an old video that was read today is as new
here as today's camera.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from ocrstream.errors import StoreError
from ocrstream.files import UNFINISHED, whole_file

_SAFE_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,199}")

_EVICTION_SLACK = 0.05
"""How much of the limit is made free at once, so that not every picture has to look for the oldest."""

_ABANDONED_AFTER_S = 3600.0
"""A temporary file of this age belongs to a process that has died."""


@dataclass(slots=True)
class _Hour:
    """What one hour's folder holds."""

    size_bytes: int = 0
    oldest_s: float = float("inf")


class FrameStore:
    """Key-frame pictures, the oldest dropped first; safe to share between threads and processes.

    A process counts the folder when it first writes and again after every twentieth of the limit, so that what other
    processes write and drop is seen; several writers can exceed the limit by that much.

    Args:
        directory: where the pictures lie; made when the first is written.
        max_bytes: how much they may take together; 0 keeps none.
        max_age_s: how long a picture is kept after it was written, in seconds; None for as long as there is room.
    """

    def __init__(self, directory: str | Path, *, max_bytes: int, max_age_s: float | None = None) -> None:
        self._directory = Path(directory)
        self._max_bytes = max_bytes
        self._max_age_s = max_age_s
        self._lock = threading.Lock()
        self._hours: dict[Path, _Hour] = {}
        self._total_bytes = 0
        self._bytes_until_recount = 0

    def put(self, frame_id: str, captured_at_ns: int, jpeg: bytes) -> None:
        """Keep a picture; one that is there already stays as it is.

        Args:
            frame_id: whose picture it is.
            captured_at_ns: the frame's capture time, nanoseconds since 1970.
            jpeg: the image file's bytes.

        Raises:
            StoreError: the disk is full or the folder cannot be written to; other pictures are untouched.
        """
        if len(jpeg) > self._max_bytes or self._max_age_s == 0:
            return
        path = self.path_of(frame_id, captured_at_ns)
        with self._lock, self._explained():
            if path.exists():
                return
            if self._bytes_until_recount <= 0:
                self._recount()
            self._make_room(len(jpeg))
            _write_whole(path, jpeg)
            hour = self._hours.setdefault(path.parent, _Hour())
            hour.size_bytes += len(jpeg)
            hour.oldest_s = min(hour.oldest_s, time.time())
            self._total_bytes += len(jpeg)
            self._bytes_until_recount -= len(jpeg)

    def get(self, frame_id: str, captured_at_ns: int) -> bytes | None:
        """A picture's bytes; None where it was never kept, or is gone.

        Raises:
            StoreError: it is there but cannot be read.
        """
        try:
            # A power cut can leave a file without its content.
            return self.path_of(frame_id, captured_at_ns).read_bytes() or None
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise StoreError(f"a picture in {self._directory} cannot be read: {error.strerror}") from error

    def size_bytes(self) -> int:
        """How much the pictures take now, counted on disk."""
        with self._lock, self._explained():
            self._recount()
            return self._total_bytes

    def path_of(self, frame_id: str, captured_at_ns: int) -> Path:
        """Where a picture lies, or would lie."""
        try:
            hour = datetime.fromtimestamp(captured_at_ns // 10**9, UTC).strftime("%Y-%m-%d/%H")
        except (OverflowError, ValueError, OSError):
            hour = "other/00"
        # Ids come from records, which anybody may have written: none may name a file elsewhere.
        if not _SAFE_NAME.fullmatch(frame_id):
            frame_id = hashlib.blake2b(frame_id.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        return self._directory / hour / f"{frame_id}.jpg"

    def _explained(self) -> _Explained:
        return _Explained(self._directory)

    def _recount(self) -> None:
        self._hours = {}
        for folder in _hours_in(self._directory):
            hour = _Hour()
            for written_s, size, path in _pictures_in(folder):
                if UNFINISHED in path.suffixes and written_s < time.time() - _ABANDONED_AFTER_S:
                    path.unlink(missing_ok=True)
                    continue
                hour.size_bytes += size
                hour.oldest_s = min(hour.oldest_s, written_s)
            if hour.size_bytes:
                self._hours[folder] = hour
        self._total_bytes = sum(hour.size_bytes for hour in self._hours.values())
        self._bytes_until_recount = max(int(self._max_bytes * _EVICTION_SLACK), 1)

    def _make_room(self, size_bytes: int) -> None:
        """Drop what is too old, and the oldest while there is too much."""
        expired_s = float("-inf") if self._max_age_s is None else time.time() - self._max_age_s
        if self._total_bytes + size_bytes > self._max_bytes:
            allowed_bytes = int(self._max_bytes * (1 - _EVICTION_SLACK)) - size_bytes
        else:
            allowed_bytes = self._max_bytes
        while self._hours:
            folder, hour = min(self._hours.items(), key=lambda item: item[1].oldest_s)
            if hour.oldest_s >= expired_s and self._total_bytes <= allowed_bytes:
                return
            others_s = min((h.oldest_s for f, h in self._hours.items() if f != folder), default=float("inf"))
            self._drop_from(folder, hour, others_s, expired_s, allowed_bytes)

    def _drop_from(self, folder: Path, hour: _Hour, others_s: float, expired_s: float, allowed_bytes: int) -> None:
        """Drop a folder's oldest pictures until all is well or another folder has older ones."""
        remaining = sorted(_pictures_in(folder))
        freed_bytes = 0
        while remaining:
            written_s, size, path = remaining[0]
            is_well = written_s >= expired_s and self._total_bytes - freed_bytes <= allowed_bytes
            if freed_bytes and (is_well or written_s > others_s):
                break
            path.unlink(missing_ok=True)
            freed_bytes += size
            remaining.pop(0)
        left_bytes = sum(size for _, size, _ in remaining)
        self._total_bytes += left_bytes - hour.size_bytes
        if remaining:
            self._hours[folder] = _Hour(left_bytes, remaining[0][0])
        else:
            del self._hours[folder]
            _remove_if_empty(folder)
            _remove_if_empty(folder.parent)


class _Explained:
    """Turns the operating system's errors into ours, with what to do."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if not isinstance(error, OSError):
            return
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreError(f"the disk that holds {self._directory} is full: make room") from error
        raise StoreError(f"{self._directory} cannot be written to ({error.strerror}): make it writable") from error


def _write_whole(path: Path, content: bytes) -> None:
    with whole_file(path) as beside:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(content)
        except FileNotFoundError:
            # Another process has just removed the empty folder.
            path.parent.mkdir(parents=True, exist_ok=True)
            beside.write_bytes(content)


def _hours_in(directory: Path) -> Iterator[Path]:
    for day in _folders_in(directory):
        yield from _folders_in(day)


def _folders_in(directory: Path) -> list[Path]:
    try:
        with os.scandir(directory) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _pictures_in(folder: Path) -> Iterator[tuple[float, int, Path]]:
    """Write time (seconds since 1970), size and path of every file in a folder."""
    try:
        entries = os.scandir(folder)
    except FileNotFoundError:
        return
    with entries:
        for entry in entries:
            try:
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                continue
            yield status.st_mtime, status.st_size, Path(entry.path)


def _remove_if_empty(folder: Path) -> None:
    try:
        folder.rmdir()
    except OSError as error:
        # Somebody has put a picture there again, or was faster.
        if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOENT):
            raise
