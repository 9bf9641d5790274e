"""Drops documents that are past their time, a whole day at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from ocrstream.errors import StoreError
from ocrstream.storage import DocumentStore

log = logging.getLogger(__name__)

DAY_NS = 86_400 * 1_000_000_000
EVERY_S = 3600.0


def enforce(store: DocumentStore, days: int, now_ns: Callable[[], int] = time.time_ns) -> int:
    """Drop what was captured more than so many days ago; returns how many days' documents went.

    Args:
        store: where the documents are.
        days: how many days are kept, at least 1.
        now_ns: the clock.

    Raises:
        StoreError: the store is away.
    """
    return store.drop_before(now_ns() - days * DAY_NS)


def enforce_hourly(store: DocumentStore, days: int, stop: threading.Event) -> None:
    """Drop what is past its time now and every hour, until told to stop; an hour that fails is made good by the next.

    Does nothing where ``days`` is 0, which keeps everything.
    """
    while days > 0 and not stop.is_set():
        try:
            dropped = enforce(store, days)
            if dropped:
                log.info("retention: %d days of documents dropped, %d days are kept", dropped, days)
        except StoreError as error:
            log.warning("retention: %s; trying again in an hour", error)
        stop.wait(EVERY_S)
