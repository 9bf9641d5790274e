"""Sources: what frames come from, behind one protocol, and how each is found from what the user wrote."""

from __future__ import annotations

import logging
import socket
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import PurePosixPath
from typing import Protocol
from urllib.parse import urlsplit

from ocrstream.config import ProducerSettings
from ocrstream.errors import SourceError
from ocrstream.messages import Frame, FrameInfo
from producers.demo import DemoSource
from producers.images import ImageFiles, find_images
from producers.progress import Progress
from producers.specs import KNOWN, STREAM_SCHEMES, SourceSpec, parse_source, parse_sources
from producers.video import LiveStream, VideoFile

__all__ = ["SOURCES_HELP", "Source", "SourceSpec", "open_source", "open_sources", "parse_source", "parse_sources"]

SOURCES_HELP = f"{KNOWN}; NAME=SOURCE gives it a name"


VIDEO_SUFFIXES = (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".flv", ".ts", ".mpg", ".mpeg", ".ogv", ".wmv")

log = logging.getLogger(__name__)


class Source(Protocol):
    """Something that gives frames.

    Attributes:
        source_id: its name.
        live: whether time does not wait for it; then the oldest frames are dropped when nobody takes them.
        segment: which part of a file it reads; None for all of it.
        start_ms: where in a file it begins, in media time.
        total_ms: the length of what is read, where it is known.
        total_frames: the number of images in a folder; None for anything else.
        progress: how far it is, and whom to tell what happens.
    """

    source_id: str
    live: bool
    segment: int | None
    progress: Progress

    @property
    def start_ms(self) -> float: ...  # noqa: D102 see Attributes
    @property
    def total_ms(self) -> float | None: ...  # noqa: D102
    @property
    def total_frames(self) -> int | None: ...  # noqa: D102

    def frames(
        self, stop: threading.Event, after: FrameInfo | None = None, known: Callable[[str], bool] | None = None
    ) -> Iterator[Frame]:
        """Yield frames until the source ends or ``stop`` is set (then within a second).

        Args:
            stop: set by anyone who wants it to end.
            after: a frame of an earlier run: a file goes on behind it, with the ids its frames would have had.
            known: whether an earlier run read the frame of this id: of images, exactly the others are read. Images have
                no order that could be gone on in, since some may be added anywhere.

        Raises:
            SourceError: it cannot be read (any more), and trying again would not help.
        """

    def close(self) -> None:
        """Let go of files and processes; safe to call twice."""


def open_source(spec: SourceSpec, settings: ProducerSettings) -> Source:
    """Open one source, whole.

    Raises:
        SourceError: it cannot be read, as far as can be known before its first frame.
        ConfigError: a setting of the producer cannot be read.
    """
    if spec.scheme == "demo":
        return DemoSource(spec, settings)
    if spec.url == "-" or _is_remote_file(spec):
        return VideoFile(spec, settings)
    if spec.scheme == "camera" or spec.scheme in STREAM_SCHEMES:
        _check_host(spec)
        recording = _open_recorded_playlist(spec, settings)
        if recording is not None:
            return recording
        if settings.start or settings.end or settings.segments > 1:
            log.warning("%s: --start, --end and --segments are for files; it is read as it comes", spec.shown)
        return LiveStream(spec, settings)
    images = find_images(spec)
    if images is not None:
        return ImageFiles(spec, settings, *images)
    _check_file(spec)
    return VideoFile(spec, settings)


def open_sources(texts: Sequence[str], settings: ProducerSettings) -> list[Source]:
    """Open several sources as the user wrote them; a file that is cut into segments gives one source for each.

    Raises:
        SourceError: one cannot be read, or two have the same name; those already open are closed.
        ConfigError: a setting of the producer cannot be read.
    """
    opened: list[Source] = []
    try:
        for spec in parse_sources(texts):
            source = open_source(spec, settings)
            opened += source.parts() if isinstance(source, VideoFile) else [source]
    except BaseException:
        for source in opened:
            source.close()
        raise
    return opened


def _is_remote_file(spec: SourceSpec) -> bool:
    """Whether an address is that of a recording on a web server, which can wait, and not of a stream."""
    path = PurePosixPath(urlsplit(spec.shown).path)
    return spec.scheme in ("http", "https") and path.suffix.lower() in VIDEO_SUFFIXES


def _open_recorded_playlist(spec: SourceSpec, settings: ProducerSettings) -> VideoFile | None:
    """An HLS playlist that has an end and can wait; None for one that is live, or not there now."""
    if not urlsplit(spec.shown).path.lower().endswith(".m3u8"):
        return None
    try:
        source = VideoFile(spec, settings)
    except SourceError:
        return None
    if source.total_ms is None:
        source.close()
        return None
    return source


def _check_file(spec: SourceSpec) -> None:
    """Say at once what is wrong with a path."""
    try:
        status = spec.path.stat()
    except FileNotFoundError:
        raise SourceError(f"{spec.shown}: there is no such file; a source is {KNOWN}") from None
    except (OSError, ValueError) as error:
        raise SourceError(f"{spec.shown}: it cannot be read: {getattr(error, 'strerror', error)}") from None
    if stat.S_ISREG(status.st_mode) and status.st_size == 0:
        raise SourceError(f"{spec.shown}: the file is empty")


def _check_host(spec: SourceSpec) -> None:
    """Tell a mistyped host name at once; a name server that is away is a passing matter."""
    if spec.scheme in ("camera", "udp", "rtp"):
        return
    host = urlsplit(spec.shown).hostname
    try:
        socket.getaddrinfo(host, None)
    except socket.gaierror as error:
        if error.errno == socket.EAI_NONAME:
            raise SourceError(f"{spec.shown}: there is no host {host!r}; check its spelling") from None
        log.warning("%s: the name of the host cannot be looked up now: %s", spec.shown, error.strerror)
    except (UnicodeError, ValueError):
        raise SourceError(f"{spec.shown}: {host!r} is no host name; check its spelling") from None
