"""Everything FFmpeg opens: video files, which wait and are never dropped, and live streams, which do neither."""

from __future__ import annotations

import datetime
import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import NoReturn

from ocrstream.config import ProducerSettings
from ocrstream.errors import SourceError
from ocrstream.messages import Frame, FrameInfo, make_frame_id, source_key
from producers.cameras import find_camera
from producers.decoder import Arrival, Decoder, DecoderError, Opened
from producers.decoding import Request
from producers.fingerprint import fingerprint
from producers.progress import Progress
from producers.resuming import say_place
from producers.sampling import Span, View
from producers.specs import SourceSpec
from producers.web_server import WebAnswer, ask_web_server

log = logging.getLogger(__name__)

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 30.0
"""Between attempts to reach a live source again; doubled each time, and shortened by up to half at random, so that
many readers of one camera server do not all come back at once."""

RESTARTS_OF_A_FILE = 3
"""So often a decoder that hangs or crashes at the same place of a file is started again."""

REFUSALS_OF_A_KNOWN_CAMERA = 5
"""A camera that was reached before may refuse its password or path while it restarts, but not for ever."""


class VideoFile:
    """A video that is read at the reader's own pace: a file, one on a web server, or standard input.

    Frame ids come from the file's content and the frame's media time, capture times from the time the container or the
    file system has for the file (a web server: when it was changed last), so every run gives the same frames. Where
    nobody knows that time, it is when the file was first read.

    Args:
        spec: its name and address.
        settings: which frames are taken.
        span: the part that is read; None for what the settings ask for.
        segment: the number of that part.
        origin: what is known of the file already, by another of its parts.
    """

    live = False
    total_frames: int | None = None

    def __init__(
        self,
        spec: SourceSpec,
        settings: ProducerSettings,
        span: Span | None = None,
        segment: int | None = None,
        origin: _Origin | None = None,
    ) -> None:
        self.source_id = spec.source_id
        self.segment = segment
        self.progress = Progress(position_ms=0.0)
        self._spec = spec
        self._settings = settings
        self._span = span or Span.of(settings)
        self._request = _request_for_file(spec, settings)
        self._decoder: Decoder | None = None
        self._opened: Opened | None = None
        self._recorded_at_ns: int | None = None
        self._origin = origin or (_Origin.of_stream() if _is_pipe(spec) else _Origin.of_file(spec, settings.timeout_s))
        if not _is_pipe(spec):
            self._open_now()

    @property
    def total_ms(self) -> float | None:
        """The length of what is read; None where the container does not tell."""
        if self._opened is None or self._opened.duration_ms is None:
            return None
        return max(min(self._span.end_ms, self._opened.duration_ms) - self._span.start_ms, 0.0)

    @property
    def start_ms(self) -> float:
        """Where in the file reading begins."""
        return self._span.start_ms

    def parts(self) -> list[VideoFile]:
        """The file as the segments that the settings ask for; itself where it cannot be cut."""
        count = self._settings.segments
        length_ms = self._opened.duration_ms if self._opened is not None else None
        if count == 1 or length_ms is None:
            if count > 1:
                log.warning("%s: its length is not known, so it is read in one piece", self.source_id)
            return [self]
        self.close()
        spans = self._span.parts(count, length_ms, self._settings.fps)
        # Asked of the server once: all parts have the same times.
        return [VideoFile(self._spec, self._settings, span, number, self._origin) for number, span in enumerate(spans)]

    def frames(
        self,
        stop: threading.Event,
        after: FrameInfo | None = None,
        known: Callable[[str], bool] | None = None,  # noqa: ARG002 of images
    ) -> Iterator[Frame]:
        """Yield frames to the end; see `Source.frames`."""
        behind_ms = self._place_of(after)
        if after is not None and behind_ms is not None:
            # What has no time of its own, or a new one (copied, touched), keeps the one that it was begun with.
            self._recorded_at_ns = after.captured_at_ns - round(behind_ms * 1e6)
        began_ms, said = behind_ms, False
        restarts = 0
        try:
            while not stop.is_set():
                try:
                    for arrival in self._arrivals(stop, behind_ms):
                        if not said:
                            said = True
                            say_place(source_key(self.source_id, self.segment), after, began_ms)
                        restarts, behind_ms = 0, arrival.media_ms
                        self.progress.position_ms = behind_ms - self._span.start_ms
                        yield self._frame(arrival)
                except DecoderError as error:
                    restarts += 1
                    self._check_restart(error, restarts, behind_ms)
                else:
                    if not stop.is_set():
                        self._check_end(behind_ms)
                    return
        finally:
            self.close()

    def close(self) -> None:
        """End the decoder process."""
        if self._decoder is not None:
            self._decoder.kill()
            self._decoder = None

    def _open_now(self) -> None:
        try:
            self._open(threading.Event())
        except DecoderError as error:
            self.close()
            self._refuse(error)
        assert self._opened is not None
        length_ms = self._opened.duration_ms
        if length_ms is not None and self._span.start_ms >= length_ms:
            self.close()
            raise SourceError(
                f"{self._spec.shown}: it is {length_ms / 1000:.1f} seconds long, so nothing is left "
                f"from --start {self._settings.start} on"
            )

    def _open(self, stop: threading.Event) -> Decoder:
        if self._decoder is None:
            self._decoder = Decoder(
                self._request,
                self.progress,
                jpeg_quality=self._settings.jpeg_quality,
                stdin=self._spec.url == "-",
            )
            self._opened = self._decoder.open(stop)
        return self._decoder

    def _arrivals(self, stop: threading.Event, behind_ms: float | None) -> Iterator[Arrival]:
        try:
            decoder = self._open(stop)
            end_ms = None if math.isinf(self._span.end_ms) else self._span.end_ms
            decoder.begin(self._span.start_ms, end_ms, behind_ms)
            while (arrival := decoder.read(stop)) is not None:
                yield arrival
        finally:
            self.close()

    def _place_of(self, after: FrameInfo | None) -> float | None:
        """Where in this file a frame of an earlier run is; None where it is another segment's or another file's."""
        if after is None or after.media_time_ms is None or after.segment != self.segment:
            return None
        return after.media_time_ms if after.frame_id == self._frame_id(after.media_time_ms) else None

    def _frame_id(self, media_ms: float) -> str:
        return make_frame_id(self.source_id, self._origin.fingerprint, f"{media_ms:.3f}")

    def _frame(self, arrival: Arrival) -> Frame:
        if self._recorded_at_ns is None:
            self._recorded_at_ns = self._origin.recorded_at_ns(self._opened)
        width_px, height_px = arrival.picture.size_wh()
        info = FrameInfo(
            source_id=self.source_id,
            frame_id=self._frame_id(arrival.media_ms),
            captured_at_ns=self._recorded_at_ns + round(arrival.media_ms * 1e6),
            width_px=width_px,
            height_px=height_px,
            live=False,
            media_time_ms=arrival.media_ms,
            segment=self.segment,
        )
        return Frame(info, arrival.picture)

    def _check_restart(self, error: DecoderError, restarts: int, behind_ms: float | None) -> None:
        """Let it be started again, or say that it cannot be read."""
        if _is_pipe(self._spec) or error.reason not in ("timeout", "crashed", "away") or restarts > RESTARTS_OF_A_FILE:
            self._refuse(error)
        self.progress.count("reconnects")
        place = "its beginning" if behind_ms is None else f"{behind_ms / 1000:.1f} s"
        log.warning("%s: reading stopped at %s (%s); starting again there", self.source_id, place, error)

    def _check_end(self, last_ms: float | None) -> None:
        """Warn when the file ends before it should."""
        if self._opened is None or self._opened.duration_ms is None or last_ms is None:
            return
        due_ms = min(self._span.end_ms, self._opened.duration_ms)
        gap_ms = 1000 / self._settings.fps if self._settings.fps else 0.0
        if last_ms + max(2000.0, due_ms * 0.02) + gap_ms * self._settings.every < due_ms:
            log.warning(
                "%s: the file ends at %.1f s of %.1f s: it is cut off, and what was there has been read",
                self.source_id,
                last_ms / 1000,
                due_ms / 1000,
            )

    def _refuse(self, error: DecoderError) -> NoReturn:
        web = self._origin.web
        if web is not None and not web.gives_parts and error.reason in ("away", "nonsense", "no-picture"):
            raise SourceError(
                f"{self._spec.shown}: it cannot be read as a video ({self._spec.scrub(str(error))}). The server sends "
                "files only as a whole, and of those an MP4 whose index is at its end cannot be read: download it and "
                "name the file, or convert it with -movflags +faststart"
            ) from None
        raise SourceError(_explain(self._spec, error)) from None


class LiveStream:
    """A camera or stream: its newest frames, with the clock's time, for as long as it is wanted.

    What happens when it cannot be reached: an answer that will not change by itself (wrong credentials, no such path,
    not a video) is a `SourceError` at the first attempt, so that a typing error is told at once. No answer at all is
    warned of and tried again for ever, so that a program with several cameras survives one that is off; also where it
    was never reached. Once it was reached, everything is tried again, but a camera that keeps refusing its password or
    path ends too.

    Args:
        spec: its name and address.
        settings: which frames are taken.
    """

    live = True
    segment: int | None = None
    total_ms: float | None = None
    total_frames: int | None = None
    start_ms = 0.0

    def __init__(self, spec: SourceSpec, settings: ProducerSettings) -> None:
        self.source_id = spec.source_id
        self.progress = Progress()
        self._spec = spec
        self._jpeg_quality = settings.jpeg_quality
        self._request = _request_for_stream(spec, settings)
        self._decoder: Decoder | None = None
        self._last_ns = 0
        self._reached = False
        self._refusals = 0

    def frames(
        self,
        stop: threading.Event,
        after: FrameInfo | None = None,  # noqa: ARG002 live
        known: Callable[[str], bool] | None = None,  # noqa: ARG002 of images
    ) -> Iterator[Frame]:
        """Yield frames until ``stop``; see `Source.frames`. Nothing can be gone on behind."""
        outage = _Outage(self.source_id)
        while not stop.is_set():
            try:
                for arrival in self._arrivals(stop):
                    self._reached, self._refusals = True, 0
                    outage.is_over()
                    yield self._frame(arrival)
                error = DecoderError("away", "the stream ended")
            except DecoderError as failure:
                error = failure
            if stop.is_set():
                return
            self._check_refusal(error)
            outage.goes_on(_explain(self._spec, error))
            if stop.wait(outage.pause_s()):
                return
            self.progress.count("reconnects")

    def close(self) -> None:
        """End the decoder process."""
        if self._decoder is not None:
            self._decoder.kill()
            self._decoder = None

    def _arrivals(self, stop: threading.Event) -> Iterator[Arrival]:
        try:
            self._decoder = decoder = Decoder(self._request, self.progress, jpeg_quality=self._jpeg_quality)
            if decoder.open(stop) is None:
                return
            decoder.begin()
            while (arrival := decoder.read(stop)) is not None:
                yield arrival
        finally:
            self.close()

    def _check_refusal(self, error: DecoderError) -> None:
        refused = error.reason in ("credentials", "not-found", "forbidden", "unusable", "no-picture")
        # A web page where a stream should be stays one; a camera that hangs up in the middle of a sentence does not.
        if not refused and not (error.reason == "nonsense" and self._spec.scheme in ("http", "https", "camera")):
            return
        self._refusals += 1
        if not self._reached or self._refusals >= REFUSALS_OF_A_KNOWN_CAMERA:
            raise SourceError(_explain(self._spec, error)) from None

    def _frame(self, arrival: Arrival) -> Frame:
        # Two frames never share a time, since the time is the frame's identity.
        self._last_ns = at_ns = max(arrival.at_ns, self._last_ns + 1)
        width_px, height_px = arrival.picture.size_wh()
        info = FrameInfo(
            source_id=self.source_id,
            frame_id=make_frame_id(self.source_id, at_ns),
            captured_at_ns=at_ns,
            width_px=width_px,
            height_px=height_px,
            live=True,
        )
        return Frame(info, arrival.picture)


class _Outage:
    """The time a live source is away: told of once, with growing pauses between attempts."""

    def __init__(self, source_id: str) -> None:
        self._source_id = source_id
        self._began_s: float | None = None
        self._pause_s = FIRST_PAUSE_S

    def goes_on(self, why: str) -> None:
        """An attempt failed."""
        if self._began_s is None:
            self._began_s = time.monotonic()
            log.warning("%s (it is tried again until it is there)", why)

    def is_over(self) -> None:
        """A frame came."""
        if self._began_s is not None:
            log.info("%s: is back after %.1f s", self._source_id, time.monotonic() - self._began_s)
            self._began_s, self._pause_s = None, FIRST_PAUSE_S

    def pause_s(self) -> float:
        """How long to wait before the next attempt."""
        pause_s = self._pause_s * random.uniform(0.5, 1.0)  # noqa: S311 no secret
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S)
        return pause_s


@dataclass(frozen=True)
class _Origin:
    """What a file is, for good: the same content has the same fingerprint wherever it lies.

    Attributes:
        fingerprint: what identifies it.
        fallback_ns: when it was recorded, where the container does not tell.
        web: what the server says of it; None for what lies on none, and where the server does not answer.
    """

    fingerprint: str
    fallback_ns: int
    web: WebAnswer | None = None

    @classmethod
    def of_file(cls, spec: SourceSpec, timeout_s: float) -> _Origin:
        if spec.scheme in ("http", "https"):
            web = ask_web_server(spec.url, timeout_s)
            told_ns = web.modified_ns if web is not None else None
            return cls(spec.shown.partition("?")[0], time.time_ns() if told_ns is None else told_ns, web)
        try:
            return cls(fingerprint(spec.path), max(spec.path.stat().st_mtime_ns, 0))
        except OSError as error:
            raise SourceError(f"{spec.shown}: it cannot be read: {error.strerror}") from error

    @classmethod
    def of_stream(cls) -> _Origin:
        """Of what can be read once only: this run is its identity."""
        now_ns = time.time_ns()
        return cls(str(now_ns), now_ns)

    def recorded_at_ns(self, opened: Opened | None) -> int:
        """When its first frame was taken, as far as anybody knows."""
        told = opened.creation_time if opened is not None else None
        try:
            recorded = datetime.datetime.fromisoformat(told or "")
        except ValueError:
            return self.fallback_ns
        recorded = recorded if recorded.tzinfo else recorded.replace(tzinfo=datetime.UTC)
        # Cameras whose clock was never set say 1904 or 1970.
        return int(recorded.timestamp()) * 10**9 if recorded.year >= 1990 else self.fallback_ns


def _is_pipe(spec: SourceSpec) -> bool:
    return spec.url == "-" or (spec.scheme in ("", "file") and spec.path.is_fifo())


def _request_for_file(spec: SourceSpec, settings: ProducerSettings) -> Request:
    view = View.of(settings)
    request = Request("", roi=view.roi, limit_wh=view.limit_wh, fps=settings.fps, every=settings.every)
    if spec.url == "-":
        return replace(request, url="pipe:0")
    if spec.scheme in ("http", "https"):
        return replace(request, url=spec.url, timeout_s=settings.timeout_s, options={"reconnect": "1"})
    # A pipe may be silent for as long as it likes; a file's disk may not.
    timeout_s = 0.0 if _is_pipe(spec) else settings.timeout_s
    return replace(request, url=f"file:{os.path.abspath(spec.path)}", timeout_s=timeout_s)  # noqa: PTH100 as typed


def _request_for_stream(spec: SourceSpec, settings: ProducerSettings) -> Request:
    view = View.of(settings)
    url, form = spec.url, None
    # Without a limit FFmpeg measures the frame rate of a stream for five seconds before it gives the first frame.
    options = {"fpsprobesize": "0", "flags": "low_delay"}
    if spec.scheme == "camera":
        url, form, device_options = find_camera(spec)
        options |= device_options
    elif spec.scheme in ("rtsp", "rtsps"):
        options["rtsp_flags"] = "prefer_tcp"
    return Request(
        url,
        format=form,
        options=options,
        timeout_s=settings.timeout_s,
        live=True,
        roi=view.roi,
        limit_wh=view.limit_wh,
        fps=settings.fps,
        every=settings.every,
    )


def _explain(spec: SourceSpec, error: DecoderError) -> str:
    """A failure as a sentence for the user, without credentials."""
    remote = "://" in spec.shown
    why = spec.scrub(str(error))
    about_pipes = (
        "; an MP4 whose index is at its end cannot be read from a pipe: name the file instead, "
        "or convert it with -movflags +faststart"
        if _is_pipe(spec)
        else ""
    )
    check_network = "check that it is switched on, its address and the network"
    advice = {
        "credentials": f"the server refuses user or password; write them as {spec.scheme}://USER:PASSWORD@HOST/… "
        "(special characters in them as %XX)",
        "not-found": "the server has no such stream; check the path behind the host" if remote else "it is not there",
        "forbidden": "reading it is not allowed; check its permissions",
        "unusable": f"it cannot be read as a video: {why}",
        "nonsense": f"it cannot be read as a video: {why}; check that it is one, and whole{about_pipes}",
        "no-picture": f"it cannot be read as a video: {why}{about_pipes}",
        "timeout": f"{why}; {check_network if remote else 'check the disk or device'}",
        "away": f"it cannot be reached: {why}; {check_network}" if remote else f"it cannot be read: {why}",
        "crashed": f"{why}; it may be damaged: convert it with another program first",
    }
    return f"{spec.shown}: {advice[error.reason]}"
