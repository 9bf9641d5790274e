"""4/4  Texts -> documents: what was read becomes searchable, and its picture is kept."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from ocrstream.config import IndexerSettings
from ocrstream.errors import PoisonError
from ocrstream.messages import FIRST_READING, TEXTS, Message, Texts
from ocrstream.metrics import Metrics
from ocrstream.runner import Flow, Runner
from ocrstream.storage import DocumentStore
from ocrstream.storage.frames import FrameStore
from ocrstream.transport import Transport


def build(
    settings: IndexerSettings, store: DocumentStore, frames: FrameStore | None, transport: Transport, metrics: Metrics
) -> Runner:
    """The stage with its loop; ``frames`` is None where Kafka keeps the pictures."""
    stage = IndexerStage(store, frames, metrics)
    # What was read is never dropped.
    flow = Flow((TEXTS,), None, settings.group, settings.batch, settings.deadline_ms / 1000, keep_live=sys.maxsize)
    return Runner(stage, flow, transport, metrics)


class IndexerStage:
    """Writes readings into a document store.

    Args:
        store: where documents go.
        frames: where the pictures that come along go; None where Kafka keeps them.
        metrics: delay, texts and the position of each source are noted here.
        now_ns: the clock that delays are measured with.
    """

    name = "indexer"

    def __init__(
        self,
        store: DocumentStore,
        frames: FrameStore | None,
        metrics: Metrics,
        now_ns: Callable[[], int] = time.time_ns,
    ) -> None:
        self._store = store
        self._frames = frames
        self._metrics = metrics
        self._now_ns = now_ns
        self._counted: dict[str, tuple[str, int]] = {}

    def handle(self, batch: Sequence[Texts]) -> list[Message]:
        """Store a batch; nothing follows from it.

        Raises:
            PoisonError: the store will never take one of them.
            StoreError: the store is away or full.
            BackpressureError: the store asks for a pause.
        """
        if self._frames is not None:
            # Pictures first: a document never points at a picture that is still to come.
            for texts in batch:
                if texts.picture is not None and texts.is_kept:
                    self._frames.put(texts.info.frame_id, texts.info.captured_at_ns, texts.picture.encoded())
        report = self._store.write(batch)
        if report.refused:
            raise PoisonError(
                "; ".join(f"{batch[index].info.frame_id}: {why}" for index, why in report.refused.items())
            )
        self._metrics.add("indexer.outdated", report.outdated)
        self._note(batch)
        return []

    def finish(self) -> list[Message]:
        """Nothing is held back."""
        return []

    def _note(self, batch: Sequence[Texts]) -> None:
        now_ns = self._now_ns()
        for texts in batch:
            info = texts.info
            if self._counted.get(info.key) == (info.frame_id, info.generation):
                # The recogniser sends a source's last frame once more, with the appearances that end with it.
                continue
            self._counted[info.key] = info.frame_id, info.generation
            self._metrics.add("indexer.frames", source_id=info.source_id)
            self._metrics.add("indexer.texts", len(texts.lines), source_id=info.source_id)
            if info.media_time_ms is not None:
                self._metrics.set("indexer.media_time_ms", info.media_time_ms, source_id=info.key)
            since_ns = info.captured_at_ns if info.live else info.taken_at_ns
            if since_ns and texts.is_kept and info.generation == FIRST_READING:
                self._metrics.observe("indexer.delay", (now_ns - since_ns) / 1e9)
