"""Who asks a store, again and again, what is new: a frame can be searched when a search has found it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from benchmarks.recording import percentiles
from ocrstream.query import parse
from ocrstream.storage import DocumentStore, Filter

LOOK_EVERY_S = 0.02
"""How often the store is asked; a delay can be too long by this and the time of one search."""

PAGE = 1000


class Onlooker(threading.Thread):
    """Searches a store for frames that it has not seen, and notes when each was found.

    Args:
        store: a second reader's.
        sources: whose frames to look for; where none is named there is one only.
        every_s: how long it rests between two looks.
        meanwhile: called at each look.

    Attributes:
        found_at_ns: frame id -> when a search found it.
        captured_at_ns: frame id -> its capture time.
        looked_s: how long it has looked in all.
        cpu_s: what looking has cost, to be left out of the pipeline's account.
    """

    def __init__(
        self,
        store: DocumentStore,
        sources: Sequence[str] = (),
        every_s: float = LOOK_EVERY_S,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(name="onlooker", daemon=True)
        self._store = store
        self._every_s = every_s
        self._meanwhile = meanwhile
        self._done = threading.Event()
        self._filters: list[tuple[str, ...]] = [(source,) for source in sources] or [()]
        self._since_ns: dict[tuple[str, ...], int] = {}
        self.found_at_ns: dict[str, int] = {}
        self.captured_at_ns: dict[str, int] = {}
        self.looked_s = 0.0
        self.cpu_s = 0.0

    def run(self) -> None:
        """Look until told to stop, and once more."""
        began_s = time.perf_counter()
        while not self._done.wait(self._every_s):
            self._look()
        self._look()
        self.looked_s = time.perf_counter() - began_s
        self.cpu_s = time.thread_time()

    def stop(self) -> None:
        """Look a last time and end."""
        self._done.set()
        if self.ident is not None:
            self.join()

    def wait_for_all(self, patience_s: float) -> None:
        """Wait until something of every source was found.

        Raises:
            RuntimeError: the patience is over.
        """
        began_s = time.monotonic()
        while len(self._since_ns) < len(self._filters):
            if time.monotonic() - began_s > patience_s:
                raise RuntimeError(f"of {len(self._filters)} sources {len(self._since_ns)} were found at all")
            time.sleep(self._every_s)

    def figures(self, since_ns: int = 0, until_ns: int | None = None) -> dict[str, Any]:
        """The delays of the frames captured in a time, and those of its last third: whether they build up.

        Raises:
            RuntimeError: no frame was.
        """
        taken = sorted(
            (captured_ns, self.found_at_ns[frame_id])
            for frame_id, captured_ns in self.captured_at_ns.items()
            if captured_ns >= since_ns and (until_ns is None or captured_ns < until_ns)
        )
        if not taken:
            raise RuntimeError("no frame was found")
        delays_s = [(found_ns - captured_ns) / 1e9 for captured_ns, found_ns in taken]
        return {
            "documents": len(delays_s),
            "delay_s": percentiles(delays_s),
            "delay_of_last_third_s": percentiles(delays_s[len(delays_s) * 2 // 3 :]),
        }

    def _look(self) -> None:
        for sources in self._filters:
            # A source is read in the order of its capture times: what is new is later than all that is known.
            page = self._store.search(
                parse(""), Filter(sources, since_ns=self._since_ns.get(sources, 0)), limit=PAGE, newest_first=True
            )
            now_ns = time.time_ns()
            for hit in page.hits:
                info = hit.texts.info
                self.found_at_ns[info.frame_id] = now_ns
                self.captured_at_ns[info.frame_id] = info.captured_at_ns
            if page.hits:
                self._since_ns[sources] = max(hit.texts.info.captured_at_ns for hit in page.hits) + 1
        self._meanwhile()


def frame_rates(counts: Mapping[str, int], seconds: float) -> dict[str, Any]:
    """How many frames came and how many were dropped where, in a time.

    Args:
        counts: the stages' counters.
        seconds: the time in which they counted.
    """
    dropped = {name: count for name, count in counts.items() if name.endswith(".dropped")}
    came = counts.get("producer.frames", 0) + dropped.get("producer.dropped", 0)
    return {
        "frames_in": came,
        "frames_in_per_s": round(came / seconds, 2),
        "frames_seen_per_s": round((came - sum(dropped.values())) / seconds, 2),
        "frames_dropped": sum(dropped.values()),
        "dropped_by": {name.removesuffix(".dropped"): count for name, count in dropped.items()},
    }
