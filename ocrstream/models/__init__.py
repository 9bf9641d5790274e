"""The engines: what finds text lines in pictures and what reads them; batch in, batch out.

Two protocols, found by name through the entry-point groups ``ocrstream.detectors`` and ``ocrstream.recognizers``; a
third party adds an engine by naming a factory there. A factory takes `EngineOptions` and raises `EngineError`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, Protocol

from ocrstream.errors import EngineError
from ocrstream.geometry import Polygon
from ocrstream.messages import EngineInfo
from ocrstream.picture import Image

DETECTORS = "ocrstream.detectors"
RECOGNIZERS = "ocrstream.recognizers"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How an engine runs.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        threads: inference threads; 0 fits them to the cores this process may use.
        weights: a file of weights in place of the engine's own, or a shipped one's name; empty for its own.

    Raises:
        EngineError: the device is none of these.
    """

    device: str = "cpu"
    threads: int = 0
    weights: str = ""

    def __post_init__(self) -> None:
        if not re.fullmatch(r"cpu|cuda(:(0|[1-9][0-9]{0,5}))?", self.device):
            raise EngineError(f"{self.device!r} is no device: use cpu, cuda or cuda:N")


@dataclass(frozen=True, slots=True)
class TextLine:
    """A text line that a detector found.

    Attributes:
        polygon: four points in the picture's pixels.
        score: how sure it is, 0 to 1.
        words: where each of the line's words stands, in their order, likewise; empty where the detector does not tell.
    """

    polygon: Polygon
    score: float
    words: tuple[Polygon, ...] = ()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a recogniser read.

    Attributes:
        text: may be empty.
        confidence: 0 to 1.
        characters: the confidence of each of the text's characters, 0 to 1; empty where an engine does not tell.
        words: likewise of each of its words, where it has several: as far as an engine's confidence of a word is
            another than its characters' mean.
    """

    text: str
    confidence: float
    characters: tuple[float, ...] = ()
    words: tuple[float, ...] = ()


class Margin(NamedTuple):
    """How much more than a text recognisers want to see, in text heights.

    Attributes:
        along: at each of its ends.
        across: above and below.
    """

    along: float
    across: float


NO_MARGIN = Margin(0.0, 0.0)


class Detector(Protocol):
    """Finds text lines.

    Attributes:
        info: what it is.
        margin: what is to be cut out around its polygons to be read.
    """

    info: EngineInfo
    margin: Margin

    def detect(self, pictures: Sequence[Image]) -> list[list[TextLine]]:
        """The text lines of each picture, in reading order, in its own pixels.

        Args:
            pictures: ``(H, W, 3) uint8 BGR`` each; sizes may differ.
        """


class Recognizer(Protocol):
    """Reads text lines."""

    info: EngineInfo

    def read(self, crops: Sequence[Image]) -> list[Reading]:
        """What each crop says. A crop's reading does not depend on its neighbours in the batch.

        Args:
            crops: ``(H, W, 3) uint8 BGR`` each, upright; sizes may differ.
        """


def detector_names() -> list[str]:
    """The detectors that are installed."""
    return sorted(entry_points(group=DETECTORS).names)


def recognizer_names() -> list[str]:
    """The recognisers that are installed."""
    return sorted(entry_points(group=RECOGNIZERS).names)


def load_detector(name: str, options: EngineOptions | None = None) -> Detector:
    """Load a detector by name.

    Raises:
        EngineError: not installed, weights missing or damaged, or its device is not there.
    """
    detector: Detector = _load(DETECTORS, "detector", name, options or EngineOptions())
    return detector


def load_recognizer(name: str, options: EngineOptions | None = None) -> Recognizer:
    """Load a recogniser by name.

    Raises:
        EngineError: not installed, weights missing or damaged, or its device is not there.
    """
    recognizer: Recognizer = _load(RECOGNIZERS, "recognizer", name, options or EngineOptions())
    return recognizer


def _load(group: str, kind: str, name: str, options: EngineOptions) -> Any:
    found: dict[str, EntryPoint] = {entry.name: entry for entry in entry_points(group=group)}
    if name not in found:
        raise EngineError(f"there is no {kind} {name!r}; installed: {', '.join(sorted(found)) or 'none'}")
    try:
        factory = found[name].load()
    except ImportError as error:
        raise EngineError(f"the {kind} {name!r} cannot be loaded: {error}") from error
    return factory(options)
