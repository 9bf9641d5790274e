"""3/4  Crops -> Texts: reads the cut-out lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace

from ocrstream.by_source import BySource, Pattern
from ocrstream.config import RecognizerSettings
from ocrstream.lines import put_together
from ocrstream.messages import CROPS, TEXTS, Crop, Crops, EngineInfo, Text, Texts
from ocrstream.metrics import Metrics
from ocrstream.models import EngineOptions, Reading, Recognizer, load_recognizer
from ocrstream.models.asked_for import Engines
from ocrstream.picture import Image
from ocrstream.runner import Flow, Runner
from ocrstream.transport import Transport
from recognizer_consumer.appearing import Sighting
from recognizer_consumer.resuming import Recall, TopicRecall, nothing_is_known
from recognizer_consumer.voting import Ballot

LEAST_VOICE = 0.1
"""Readings less sure than this say nothing; what is surer is voted on, and it is the vote that has to be sure."""

QUIET_S = 10.0
"""A source that sends nothing for so long, while others do, has ended what it showed."""


def prepare(
    settings: RecognizerSettings, is_upstream_idle: Callable[[], bool] = lambda: True, recall: Recall | None = None
) -> Callable[[Transport, Metrics], Runner]:
    """The stage with its engine; what is given back puts it into its loop.

    Args:
        settings: the stage's.
        is_upstream_idle: as in `Runner`.
        recall: what was in view before a start; where none is given, it is taken from the topic of texts.

    Raises:
        EngineError: the recogniser is unknown or cannot be loaded.
    """
    options = EngineOptions(settings.device, settings.threads, settings.weights)
    engines = Engines(settings.engine, lambda name: load_recognizer(name, options))
    # A detected frame has cost much already, so one more than the newest is kept before any is dropped.
    flow = Flow((CROPS,), TEXTS, settings.group, settings.batch, settings.deadline_ms / 1000, keep_live=2)

    def build(transport: Transport, metrics: Metrics) -> Runner:
        knows = recall or TopicRecall(transport)
        stage = RecognizerStage(engines, settings.min_confidence, settings.formats, knows)
        return Runner(stage, flow, transport, metrics, is_upstream_idle=is_upstream_idle)

    return build


class RecognizerStage:
    """Reads the crops of a batch of frames together.

    Args:
        recognizers: the recogniser, and others for frames that ask for another one (a replay may).
        min_confidence: readings below it are not kept, 0 to 1.
        formats: what texts look like, by source or shell-style pattern of sources: a whole text each.
        recall: what was in view before a source was met.
    """

    name = "recognizer"

    def __init__(
        self,
        recognizers: Engines[Recognizer],
        min_confidence: float,
        formats: BySource[Pattern] = (),
        recall: Recall = nothing_is_known,
    ) -> None:
        self._recognizers = recognizers
        self._min_confidence = min_confidence
        self._ballot = Ballot(formats, min_confidence, recall)
        self._last: dict[tuple[str, int], Texts] = {}

    def handle(self, batch: Sequence[Crops]) -> list[Texts]:
        """One `Texts` a frame, in the frames' order; then the last of sources that have gone quiet, to end with.

        Raises:
            MalformedRecordError: a crop cannot be decoded.
            PoisonError: a replay asks for a recogniser that is not installed.
            TransientError: what was in view before cannot be had now.
        """
        results: dict[int, Texts] = {}
        for recognizer, indices in self._recognizers.shared_out(crops.info.recognizer for crops in batch):
            images = [
                [[picture.array() for picture in crop.pictures] for crop in batch[index].crops] for index in indices
            ]
            flat = [image for frame in images for line in frame for image in line]
            readings = iter(recognizer.read(flat) if flat else [])
            for index, frame in zip(indices, images, strict=True):
                crops = batch[index]
                read = [self._read(*each, readings) for each in zip(crops.crops, frame, strict=True)]
                results[index] = self._texts(crops, recognizer.info, read)
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

    def _read(self, crop: Crop, images: Sequence[Image], readings: Iterator[Reading]) -> tuple[Sighting, Text | None]:
        """What a line says to the vote, and what of it is sure enough by itself."""
        # Where its words stand is told by the text's own words from here on.
        region = replace(crop.region, words=())
        unread = Sighting(region, "", 0.0, view=crop.view, fresh=False, before=crop.before)
        if not images:
            return unread, None
        mine = [next(readings) for _ in images]
        place = crop.region.polygon, crop.region.words, images, mine
        voice = put_together(*place, LEAST_VOICE)
        all_sure = all(reading.confidence >= self._min_confidence for reading in mine)
        sure = voice if all_sure and self._min_confidence >= LEAST_VOICE else put_together(*place, self._min_confidence)
        line = None if sure is None else Text(region, sure.text, sure.confidence, sure.words)
        if voice is None:
            return unread, line
        sighting = replace(
            unread,
            text=voice.text,
            confidence=voice.confidence,
            characters=voice.characters,
            fresh=True,
            is_changed=crop.is_changed,
            words=voice.words,
        )
        return sighting, line

    def _texts(self, crops: Crops, recognizer: EngineInfo, read: Sequence[tuple[Sighting, Text | None]]) -> Texts:
        sightings = [sighting for sighting, _ in read]
        appearances = self._ballot.count(crops.info, sightings, recognizer.name, crops.followed_since_ns)
        lines = [line and replace(line, region=self._ballot.known(crops.info, line.region)) for _, line in read]
        if not crops.is_whole:
            # All that was read of a text says it better than this frame alone; where all of it was read, that is all.
            lines = [self._ballot.said_at(crops.info, sighting.region) for sighting, _ in read]
        kept = tuple(line for line in lines if line is not None) if crops.is_kept else ()
        texts = Texts(crops.info, crops.detector, recognizer, kept, appearances, crops.is_kept, picture=crops.picture)
        self._last[crops.info.key, crops.info.generation] = replace(texts, picture=None)
        return texts
