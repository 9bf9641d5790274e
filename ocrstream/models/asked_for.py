"""The engines that frames ask for: a replay may name another one than the stage's own."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from ocrstream.errors import EngineError, PoisonError

E = TypeVar("E")


class Engines(Generic[E]):
    """Engines of one kind, each loaded once.

    Args:
        default: the name of the one that is meant where none is asked for; it is loaded at once.
        load: gives the engine of a name.

    Raises:
        EngineError: the default is unknown or cannot be loaded.
    """

    def __init__(self, default: str, load: Callable[[str], E]) -> None:
        self._default = default
        self._load = load
        self._loaded: dict[str, E] = {default: load(default)}

    def shared_out(self, asked_for: Iterable[str | None]) -> list[tuple[E, list[int]]]:
        """Each engine with the places of those in a batch that it is to work on.

        Args:
            asked_for: the engine that each asks for; None for the default.

        Raises:
            PoisonError: one of them is not installed.
        """
        places: dict[str, list[int]] = {}
        for place, name in enumerate(asked_for):
            places.setdefault(name or self._default, []).append(place)
        return [(self._engine(name), mine) for name, mine in places.items()]

    def _engine(self, name: str) -> E:
        if name not in self._loaded:
            try:
                self._loaded[name] = self._load(name)
            except EngineError as error:
                raise PoisonError(f"it asks for an engine that this process has not: {error}") from error
        return self._loaded[name]
