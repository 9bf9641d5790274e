"""Ends the texts over time that nobody will end any more: their recogniser was killed while they were in view.

A recogniser says a text's last word when it has gone, and a word every second before. What it knew dies with it, and a
new one takes up what is still in view (`recognizer_consumer.resuming`). What is open and not heard of for a minute is
over: it is closed here, up to its last reading that is stored. Should its recogniser be alive after all, and only slow,
its next word opens it again. Whoever begins to read a source anew need not wait for that minute.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterator
from dataclasses import replace

from ocrstream.errors import BackpressureError, StoreError
from ocrstream.folding import are_alike
from ocrstream.messages import GONE_AFTER_S, LONGEST_GAP_S, SURE, Appearance, Text, Texts
from ocrstream.storage import DocumentStore, Filter
from ocrstream.storage.superseding import track_of

log = logging.getLogger(__name__)


class Closing:
    """Ends open appearances that have not changed from one look to the next.

    Args:
        store: where they are.
    """

    def __init__(self, store: DocumentStore) -> None:
        self._store = store
        self._seen: dict[str, tuple[int, int]] = {}

    def look(self, begun: Collection[str] = ()) -> int:
        """Close what has not changed since the last look; returns how many.

        Args:
            begun: sources that have just been begun anew: whoever opened texts of theirs runs no more.

        Raises:
            StoreError: the store is away.
            BackpressureError: the store asks for a pause.
        """
        unfinished = {appearance.track_id: appearance for appearance in self._store.unfinished()}
        over = [a for id, a in unfinished.items() if a.source_id in begun or self._seen.get(id) == a.version]
        self._seen = {id: a.version for id, a in unfinished.items()}
        count = 0
        for appearance in over:
            frame = self._store.get(appearance.best_frame_id)
            # Without its best frame it has been dropped, or is about to be.
            if frame is not None:
                self._store.write([replace(frame, appearances=self._closed(appearance))])
                count += 1
        return count

    def _closed(self, appearance: Appearance) -> tuple[Appearance, ...]:
        """The appearance with the readings behind the last word on it.

        The last of them is one of its own where it surely says something else, as where any recogniser ends.
        """
        unsaid = list(self._unsaid(appearance))
        last = None
        if unsaid and unsaid[-1][1].confidence >= SURE and not are_alike(unsaid[-1][1].text, appearance.text):
            last = _alone(appearance, *unsaid.pop())
        for texts, line in unsaid:
            info = texts.info
            appearance = replace(
                appearance,
                last_at_ns=info.captured_at_ns,
                last_ms=info.media_time_ms,
                readings=appearance.readings + 1,
                path=(*appearance.path, (info.at_ms, line.region.polygon)),
            )
        closed = replace(appearance, closed=True)
        return (closed,) if last is None else (closed, last)

    def _unsaid(self, appearance: Appearance) -> Iterator[tuple[Texts, Text]]:
        """The stored readings of a track behind the last word on its appearance, up to where another one goes on."""
        mine, last_ns = track_of(appearance), appearance.last_at_ns
        # A recogniser speaks every second; what it read since has no longer gap than a track may have.
        until_ns = last_ns + round(2 * GONE_AFTER_S * 1e9)
        where = Filter((appearance.source_id,), last_ns + 1, until_ns)
        for other in self._store.appearances(replace(where, since_ns=last_ns)):
            goes_on = other.last_at_ns > last_ns and other.track_id != appearance.track_id
            if goes_on and track_of(other) == mine and other.generation == appearance.generation:
                where = replace(where, until_ns=min(other.first_at_ns, where.until_ns or until_ns))
        for texts in self._store.scan(where):
            for line in texts.lines:
                if line.region.track_id == mine and texts.info.generation == appearance.generation:
                    yield texts, line


def _alone(appearance: Appearance, texts: Texts, line: Text) -> Appearance:
    """One reading of the same track as an appearance, called as the recogniser would have called it."""
    info = texts.info
    return replace(
        appearance,
        track_id=f"{track_of(appearance)}~{info.frame_id}",
        text=line.text,
        confidence=line.confidence,
        first_at_ns=info.captured_at_ns,
        last_at_ns=info.captured_at_ns,
        first_ms=info.media_time_ms,
        last_ms=info.media_time_ms,
        best_frame_id=info.frame_id,
        readings=1,
        path=((info.at_ms, line.region.polygon),),
        closed=True,
    )


def close_every_minute(store: DocumentStore, stop: threading.Event, begun: Collection[str] = ()) -> None:
    """Look now and every minute until told to stop; a look that fails is made good by the next.

    Args:
        store: where the appearances are.
        stop: ends it.
        begun: the sources that this process has just begun, as in the embedded mode; see `Closing.look`.
    """
    closing = Closing(store)
    while not stop.is_set():
        try:
            count = closing.look(begun)
            begun = ()
            if count:
                log.info(
                    "closed %d texts over time that an earlier run left open; what is still in view goes on", count
                )
        except (StoreError, BackpressureError) as error:
            log.warning("open texts could not be closed: %s; trying again in a minute", error)
        stop.wait(LONGEST_GAP_S)
