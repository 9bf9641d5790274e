"""3/4  Crops -> Texts: reads the cut-out lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from ocrstream.config import RecognizerSettings
from ocrstream.messages import CROPS, TEXTS, Crops, EngineInfo, Text, Texts
from ocrstream.metrics import Metrics
from ocrstream.models import EngineOptions, Reading, Recognizer, load_recognizer
from ocrstream.models.asked_for import Engines
from ocrstream.runner import Flow, Runner
from ocrstream.transport import Transport
from recognizer_consumer.formats import Pattern
from recognizer_consumer.voting import Ballot, Sighting

QUIET_S = 10.0
"""A source that sends nothing for so long, while others do, has ended what it showed."""


def build(settings: RecognizerSettings, transport: Transport, metrics: Metrics) -> Runner:
    """The stage with its loop.

    Raises:
        EngineError: the recogniser is unknown or cannot be loaded.
    """
    options = EngineOptions(settings.device, settings.threads, settings.weights)
    stage = RecognizerStage(settings.engine, lambda name: load_recognizer(name, options), settings.min_confidence)
    # A detected frame has cost much already, so one more than the newest is kept before any is dropped.
    flow = Flow((CROPS,), TEXTS, settings.group, settings.batch, settings.deadline_ms / 1000, keep_live=2)
    return Runner(stage, flow, transport, metrics)


class RecognizerStage:
    """Reads the crops of a batch of frames together.

    Args:
        engine: the recogniser's name, used for every frame that does not ask for another one (a replay may).
        load: gives the recogniser of a name; called once a name.
        min_confidence: readings below it are not kept, 0 to 1.
        formats: what texts look like, by source or shell-style pattern of sources: a whole text each.
    """

    name = "recognizer"

    def __init__(
        self,
        engine: str,
        load: Callable[[str], Recognizer],
        min_confidence: float,
        formats: Mapping[str, Sequence[Pattern]] | None = None,
    ) -> None:
        self._recognizers = Engines(engine, load)
        self._min_confidence = min_confidence
        self._ballot = Ballot(formats)
        self._last: dict[tuple[str, int], Texts] = {}

    def handle(self, batch: Sequence[Crops]) -> list[Texts]:
        """One `Texts` a frame, in the frames' order; then the last of sources that have gone quiet, to end with.

        Raises:
            MalformedRecordError: a crop cannot be decoded.
            PoisonError: a replay asks for a recogniser that is not installed.
        """
        results: dict[int, Texts] = {}
        for recognizer, indices in self._recognizers.shared_out(crops.info.recognizer for crops in batch):
            images = [crop.picture.array() for index in indices for crop in batch[index].crops]
            readings = iter(recognizer.read(images) if images else [])
            for index in indices:
                mine = [next(readings) for _ in batch[index].crops]
                results[index] = self._texts(batch[index], recognizer.info, mine)
        return [*(results[index] for index in range(len(batch))), *self._close(self._gone_quiet())]

    def finish(self) -> list[Texts]:
        """The last frame of each source once more, with the appearances that end with it."""
        return self._close(list(self._last))

    def _close(self, keys: Iterable[tuple[str, int]]) -> list[Texts]:
        closed = [(self._last.pop(key), self._ballot.close(*key)) for key in keys]
        return [replace(last, appearances=appearances) for last, appearances in closed if appearances]

    def _gone_quiet(self) -> list[tuple[str, int]]:
        """The sources that have sent nothing for long, while others have: a file that has ended, a camera gone off."""
        now_ns = max((last.info.taken_at_ns for last in self._last.values()), default=0)
        return [
            key
            for key, last in self._last.items()
            if last.info.taken_at_ns and now_ns - last.info.taken_at_ns > QUIET_S * 1e9
        ]

    def _texts(self, crops: Crops, recognizer: EngineInfo, readings: list[Reading]) -> Texts:
        sightings = [
            Sighting(crop.region, text, round(min(max(reading.confidence, 0.0), 1.0), 4), characters)
            for crop, reading in zip(crops.crops, readings, strict=True)
            for text, characters in [_single_spaced(reading)]
            if text and reading.confidence >= self._min_confidence
        ]
        appearances = self._ballot.count(crops.info, sightings, recognizer.name)
        lines = tuple(Text(sighting.region, sighting.text, sighting.confidence) for sighting in sightings)
        texts = Texts(crops.info, crops.detector, recognizer, lines, appearances, picture=crops.picture)
        self._last[crops.info.key, crops.info.generation] = replace(texts, picture=None)
        return texts


def _single_spaced(reading: Reading) -> tuple[str, tuple[float, ...]]:
    """A reading's text with single spaces and none around it, and the confidence of each of its characters."""
    text = " ".join(reading.text.split())
    if text == reading.text or len(reading.characters) != len(reading.text):
        return text, reading.characters if text == reading.text else ()
    kept = [
        place
        for place, character in enumerate(reading.text)
        if not character.isspace() or (place and not reading.text[place - 1].isspace())
    ]
    return text, tuple(reading.characters[place] for place in kept[: len(text)])
