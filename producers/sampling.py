"""Which frames of a source are taken, and which part of them: pure arithmetic on times and sizes."""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass

from ocrstream.config import ProducerSettings
from ocrstream.errors import ConfigError, SourceError

_TIME = re.compile(r"(?:(?:(\d+):)?(\d{1,2}):)?(\d+(?:\.\d*)?)")
_SIZE = re.compile(r"(\d+)\s*[xX]\s*(\d+)")


def parse_time_ms(text: str, setting: str) -> float | None:
    """Read a time of ``--start`` or ``--end``.

    Args:
        text: seconds (``90``, ``90.5``), ``M:SS`` or ``H:MM:SS``; empty for none.
        setting: what is being read, for the message.

    Returns:
        Milliseconds, or None for an empty text.

    Raises:
        ConfigError: it is no time.
    """
    if not text.strip():
        return None
    match = _TIME.fullmatch(text.strip())
    if match is None:
        raise ConfigError(f"{setting}: {text!r} is no time; write seconds (90.5) or H:MM:SS (0:01:30.5)")
    hours, minutes, seconds = match.groups()
    return (int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)) * 1000


@dataclass(frozen=True, slots=True)
class Span:
    """The part of a file that is read, in milliseconds of media time: from ``start_ms`` up to before ``end_ms``."""

    start_ms: float = 0.0
    end_ms: float = math.inf

    @classmethod
    def of(cls, settings: ProducerSettings) -> Span:
        """What ``--start`` and ``--end`` ask for.

        Raises:
            ConfigError: one is no time, or the end is not behind the start.
        """
        start_ms = parse_time_ms(settings.start, "--start") or 0.0
        end_ms = parse_time_ms(settings.end, "--end")
        if end_ms is not None and end_ms <= start_ms:
            raise ConfigError(f"--end {settings.end} is not behind --start {settings.start or 0}: nothing is left")
        return cls(start_ms, math.inf if end_ms is None else end_ms)

    def parts(self, count: int, length_ms: float, fps: float) -> list[Span]:
        """Cut the span of a file of that length into so many parts of about the same length.

        With a frame rate cap the cuts lie on its grid, so that the parts take the same frames as the whole.
        """
        end_ms = min(self.end_ms, length_ms)
        cuts = [self.start_ms + (end_ms - self.start_ms) * number / count for number in range(1, count)]
        if fps:
            cuts = [math.ceil(cut * fps / 1000) * 1000 / fps for cut in cuts]
        edges = [self.start_ms, *cuts, self.end_ms]
        return [Span(start, end) for start, end in itertools.pairwise(edges) if start < end]


class Sampler:
    """Takes every Nth frame, and of those at most so many a second.

    The rate is kept on a grid of equal cells that begins at time 0: the first frame in a cell is taken. So the choice
    depends on a frame's time alone, and a file that is resumed in the middle gives the frames it would have given.

    Args:
        fps: at most this many a second; 0 for no limit.
        every: every how manieth frame.
    """

    def __init__(self, fps: float = 0.0, every: int = 1) -> None:
        self._fps = fps
        self._every = every
        self._seen = 0
        self._cell: int | None = None

    def takes(self, time_ms: float) -> bool:
        """Whether the next frame, of this time, is taken."""
        number, self._seen = self._seen, self._seen + 1
        if number % self._every:
            return False
        if not self._fps:
            return True
        # The grain keeps a frame whose time was rounded just below a cell's edge on its own side of it.
        cell = math.floor(time_ms * self._fps / 1000 + 1e-4)
        taken = cell != self._cell
        self._cell = cell
        return taken


@dataclass(frozen=True, slots=True)
class View:
    """The part of a frame that is looked at, and how large it may be.

    Attributes:
        roi: ``(x, y, width, height)`` in pixels of the upright frame; None for all of it.
        limit_wh: the size it is scaled down to fit into, aspect kept; None for any. Nothing is scaled up.
    """

    roi: tuple[int, int, int, int] | None = None
    limit_wh: tuple[int, int] | None = None

    @classmethod
    def of(cls, settings: ProducerSettings) -> View:
        """What ``--roi`` and ``--resize`` ask for.

        Raises:
            ConfigError: one cannot be read.
        """
        roi = limit_wh = None
        if settings.roi.strip():
            numbers = settings.roi.split(",")
            if len(numbers) != 4 or not all(number.strip().isdecimal() for number in numbers):
                raise ConfigError(f"--roi: expected X,Y,WIDTH,HEIGHT in pixels (0,0,640,360), got {settings.roi!r}")
            x, y, width, height = map(int, numbers)
            roi = (x, y, width, height)
        if settings.resize.strip():
            match = _SIZE.fullmatch(settings.resize.strip())
            if match is None:
                raise ConfigError(f"--resize: expected WIDTHxHEIGHT in pixels (1280x720), got {settings.resize!r}")
            limit_wh = (int(match[1]), int(match[2]))
        if (roi and 0 in roi[2:]) or (limit_wh and 0 in limit_wh):
            raise ConfigError(f"{'--resize' if limit_wh and 0 in limit_wh else '--roi'}: the size is empty")
        return cls(roi, limit_wh)

    @property
    def is_whole(self) -> bool:
        """Whether frames are taken as they come."""
        return self.roi is None and self.limit_wh is None

    def box(self, width_px: int, height_px: int) -> tuple[int, int, int, int]:
        """The part that is looked at in a frame of that size, ``(x, y, width, height)``.

        Raises:
            SourceError: it does not lie in the frame.
        """
        if self.roi is None:
            return 0, 0, width_px, height_px
        x, y, width, height = self.roi
        if x + width > width_px or y + height > height_px:
            raise SourceError(
                f"the region {x},{y},{width},{height} reaches outside the frame of {width_px}x{height_px} pixels; "
                "give --roi as X,Y,WIDTH,HEIGHT inside it"
            )
        return self.roi

    def output_wh(self, width_px: int, height_px: int) -> tuple[int, int]:
        """The size of what is taken from a frame of that size.

        Raises:
            SourceError: the region does not lie in the frame.
        """
        _, _, width, height = self.box(width_px, height_px)
        if self.limit_wh is None:
            return width, height
        scale = min(self.limit_wh[0] / width, self.limit_wh[1] / height, 1.0)
        return max(round(width * scale), 1), max(round(height * scale), 1)
