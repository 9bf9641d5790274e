"""How far a source has come and what happened to it, for the counters and the progress bar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

Event = Literal["dropped", "reconnects", "skipped"]
"""Frames lost to a slow reader (live), times it was opened again, frames or images that could not be decoded."""


@dataclass
class Progress:
    """Written by a source while it is read.

    Attributes:
        position_ms: how far into ``total_ms`` it is; None where a source has no time of its own.
        position_frames: how far into ``total_frames`` it is.
        on_event: called with each event and how often it happened; the `Producer` sets it.
    """

    position_ms: float | None = None
    position_frames: int = 0
    on_event: Callable[[Event, int], None] | None = field(default=None, repr=False)

    def count(self, event: Event, amount: int = 1) -> None:
        """Tell of an event."""
        if amount and self.on_event is not None:
            self.on_event(event, amount)
