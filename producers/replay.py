"""Sends frames through again, for a better model: from Kafka by record time, or from the embedded frame store.

A replayed frame is the same frame with a higher generation, so what is read now supersedes what was read then. It
travels on ``ocr.replay`` and may name the engines that are to read it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from ocrstream.errors import MalformedRecordError
from ocrstream.messages import FRAMES, REPLAY, Frame
from ocrstream.metrics import Metrics
from ocrstream.picture import Picture
from ocrstream.storage import DocumentStore, Filter
from ocrstream.storage.frames import FrameStore
from ocrstream.transport import Transport

log = logging.getLogger(__name__)

FLUSH_EVERY = 32


@dataclass(frozen=True, slots=True)
class Reprocessing:
    """How frames are to be read again.

    Attributes:
        generation: of the new readings: the replay's start in milliseconds since 1970.
        detector: the engine to use; None means the consumers' own.
        recognizer: likewise.
    """

    generation: int
    detector: str | None = None
    recognizer: str | None = None

    def of(self, frame: Frame) -> Frame:
        """The frame as it is sent again."""
        info = replace(frame.info, generation=self.generation, detector=self.detector, recognizer=self.recognizer)
        return Frame(info, frame.picture)


def frames_in_transport(transport: Transport, where: Filter) -> Iterator[Frame]:
    """The frames of a time that ``ocr.frames`` still keeps.

    Raises:
        TransportError: the broker is away.
    """
    for delivery in transport.read(FRAMES, where.since_ns, where.until_ns):
        try:
            frame = delivery.open()
        except MalformedRecordError as error:
            log.warning("left out: %s[%d]@%d: %s", delivery.topic, delivery.partition, delivery.offset, error)
            continue
        if isinstance(frame, Frame) and (not where.sources or frame.info.source_id in where.sources):
            yield frame


def frames_in_store(store: DocumentStore, pictures: FrameStore, where: Filter, metrics: Metrics) -> Iterator[Frame]:
    """The frames of a filter whose pictures are still kept; the others are counted as ``replay.gone``.

    Raises:
        StoreError: the store is away.
    """
    for texts in store.scan(where):
        jpeg = pictures.get(texts.info.frame_id, texts.info.captured_at_ns)
        if jpeg is None:
            metrics.add("replay.gone")
            continue
        yield Frame(texts.info, Picture.from_encoded(jpeg))


def send(
    frames: Iterable[Frame], how: Reprocessing, transport: Transport, metrics: Metrics, stop: threading.Event
) -> None:
    """Publish frames to ``ocr.replay`` until they end or the event is set; counted as ``producer.frames``.

    Raises:
        TransportError: the broker is away; what was counted has arrived.
    """
    unconfirmed = 0
    for frame in frames:
        if stop.is_set():
            break
        transport.publish(REPLAY, how.of(frame))
        unconfirmed += 1
        if unconfirmed == FLUSH_EVERY:
            transport.flush()
            metrics.add("producer.frames", unconfirmed)
            unconfirmed = 0
    transport.flush()
    metrics.add("producer.frames", unconfirmed)
