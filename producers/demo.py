"""The built-in camera ``demo:`` as a source, and its picture as a video file."""

from __future__ import annotations

import datetime
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from urllib.parse import parse_qsl

import av
import cv2
import numpy as np

from ocrstream.config import ProducerSettings
from ocrstream.errors import SourceError
from ocrstream.messages import Frame, FrameInfo, make_frame_id
from ocrstream.picture import Picture
from producers.images import cut_out
from producers.progress import Progress
from producers.resuming import say_place
from producers.sampling import Sampler, View
from producers.scene import FPS, HEIGHT_PX, SIGN_PERIOD_S, WIDTH_PX, DemoScene, TruthLine
from producers.specs import SourceSpec

__all__ = ["FPS", "HEIGHT_PX", "SIGN_PERIOD_S", "WIDTH_PX", "DemoScene", "DemoSource", "TruthLine", "write_clip"]

RECORDED_AT_NS = int(datetime.datetime(2026, 1, 1, 9, 41, tzinfo=datetime.UTC).timestamp()) * 10**9
"""When the demo was taken that is not live: its capture times are the same in every run."""

_OPTIONS = {"seconds": 0.0, "fps": FPS, "seed": 1.0, "live": 1.0}
_RECORDED_SECONDS = 20.0
_ENCODER_OPTIONS = {"libx264": {"preset": "veryfast"}}


class DemoSource:
    """The demo, live at its own pace or as fast as it is read.

    The options stand in the address, as in ``demo:?seconds=20&fps=30&seed=1&live=0``: ``seconds`` ends it (a live one
    runs for ever without), and ``live=0`` makes a recording of it: never dropped, with the same capture times in every
    run.

    Raises:
        SourceError: an option is unknown or out of range.
    """

    segment: int | None = None
    total_frames: int | None = None
    start_ms = 0.0

    def __init__(self, spec: SourceSpec, settings: ProducerSettings) -> None:
        options = _read_options(spec)
        self.source_id = spec.source_id
        self.live = bool(options["live"])
        seconds = options["seconds"] or (0.0 if self.live else _RECORDED_SECONDS)
        self.total_ms = seconds * 1000 if seconds else None
        self.progress = Progress(position_ms=0.0)
        self._settings = settings
        self._seed, self._fps = int(options["seed"]), options["fps"]
        self._end = round(seconds * self._fps) if seconds else None
        self._view = View.of(settings)
        self._view.output_wh(WIDTH_PX, HEIGHT_PX)

    def frames(
        self,
        stop: threading.Event,
        after: FrameInfo | None = None,
        known: Callable[[str], bool] | None = None,  # noqa: ARG002 of images
    ) -> Iterator[Frame]:
        """Yield frames until the end or `stop`; a recording goes on behind ``after``."""
        now = datetime.datetime.now().astimezone()
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        wall_s = (now - midnight).total_seconds()
        scene = DemoScene(self._seed, self._fps, wall_s) if self.live else DemoScene(self._seed, self._fps)
        sampler = Sampler(self._settings.fps, self._settings.every)
        for index in self._paced(stop) if self.live else self._recorded(after):
            if stop.is_set():
                return
            time_ms = index * 1000 / self._fps
            self.progress.position_ms = time_ms
            if sampler.takes(time_ms):
                self.progress.position_frames += 1
                yield self._frame(scene, index)

    def close(self) -> None:
        """There is nothing to let go of."""

    def _paced(self, stop: threading.Event) -> Iterator[int]:
        """Frame numbers in real time; those that nobody was there for are dropped and counted."""
        started_s = time.monotonic()
        index = 0
        while self._end is None or index < self._end:
            ahead_s = started_s + index / self._fps - time.monotonic()
            if ahead_s > 0 and stop.wait(ahead_s):
                return
            # A reader that is up to three frames late catches up; a later one loses the oldest.
            newest = int((time.monotonic() - started_s) * self._fps)
            if self._end is not None:
                newest = min(newest, self._end)
            if newest - index > 3:
                self.progress.count("dropped", newest - index)
                index = newest
                if index == self._end:
                    return
            yield index
            index += 1

    def _recorded(self, after: FrameInfo | None) -> Iterator[int]:
        first, place_ms = 0, None
        if after is not None and after.media_time_ms is not None:
            last = round(after.media_time_ms * self._fps / 1000)
            if after.frame_id == self._recorded_id(last):
                first, place_ms = last + 1, after.media_time_ms
        assert self._end is not None
        if first < self._end:
            say_place(self.source_id, after, place_ms)
        yield from range(first, self._end)

    def _recorded_id(self, index: int) -> str:
        return make_frame_id(self.source_id, "demo", self._seed, f"{self._fps:g}", index)

    def _frame(self, scene: DemoScene, index: int) -> Frame:
        image = cut_out(scene.render(index), self._view)
        media_ms = round(index * 1000 / self._fps, 3)
        if self.live:
            at_ns = time.time_ns()
            frame_id = make_frame_id(self.source_id, at_ns)
        else:
            at_ns = RECORDED_AT_NS + round(media_ms * 1e6)
            frame_id = self._recorded_id(index)
        info = FrameInfo(
            source_id=self.source_id,
            frame_id=frame_id,
            captured_at_ns=at_ns,
            width_px=image.shape[1],
            height_px=image.shape[0],
            live=self.live,
            media_time_ms=None if self.live else media_ms,
        )
        return Frame(info, Picture.from_array(image, self._settings.jpeg_quality))


def write_clip(
    path: str | Path,
    seconds: float,
    *,
    seed: int = 1,
    fps: float = FPS,
    codec: str = "libx264",
    size_wh: tuple[int, int] = (WIDTH_PX, HEIGHT_PX),
    options: Mapping[str, str] | None = None,
) -> DemoScene:
    """Write the first seconds of the demo to a video file.

    Args:
        path: the file; its suffix decides the container.
        seconds: how much of the scene.
        seed: the scene's.
        fps: frames a second.
        codec: an encoder of FFmpeg's: ``libx264``, ``mpeg4``, ``mjpeg``, ``libvpx``, …
        size_wh: frame size; smaller than the scene scales it.
        options: the encoder's; ``{"preset": "veryfast"}`` for libx264 where not given.

    Returns:
        The scene that was written, for its truth (in pixels of 1280x720).
    """
    scene = DemoScene(seed, fps)
    rate = Fraction(fps).limit_denominator(1001)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height = size_wh
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.gop_size = max(round(fps), 1)
        stream.bit_rate = 4_000_000
        stream.options = dict(options if options is not None else _ENCODER_OPTIONS.get(codec, {}))
        for index in range(round(seconds * fps)):
            image = scene.render(index)
            if size_wh != (WIDTH_PX, HEIGHT_PX):
                image = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
            frame = av.VideoFrame.from_ndarray(image, format="bgr24")
            frame.pts, frame.time_base = index, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return scene


def _read_options(spec: SourceSpec) -> dict[str, float]:
    options = dict(_OPTIONS)
    rest = spec.url.partition(":")[2]
    if rest and not rest.startswith("?"):
        raise SourceError(f"{spec.shown}: options of the demo begin with a question mark, as in demo:?seed=2")
    for name, value in parse_qsl(rest[1:], keep_blank_values=True):
        if name not in options:
            raise SourceError(f"{spec.shown}: unknown option {name!r} of the demo; known: {', '.join(options)}")
        try:
            options[name] = float(value)
        except ValueError:
            raise SourceError(f"{spec.shown}: {name} should be a number, got {value!r}") from None
    if not (0 <= options["seconds"] <= 1e6 and 1 <= options["fps"] <= 240 and 0 <= options["seed"] <= 2**32):
        raise SourceError(f"{spec.shown}: seconds should be 0 to 1000000, fps 1 to 240, seed 0 to {2**32}")
    return options
