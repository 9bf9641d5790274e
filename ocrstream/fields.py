"""A JSON object that came from elsewhere, read field by field."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ocrstream.geometry import Polygon, to_polygon
from ocrstream.messages import MAX_ID_LENGTH


class Fields:
    """Reads typed fields out of a JSON object.

    Every method raises a `ValueError` that names the field where it is missing or of another kind.

    Args:
        meta: the object.
        where: what it is called in messages.
    """

    def __init__(self, meta: Mapping[str, Any], where: str) -> None:
        self._meta = meta
        self._where = where

    def _get(self, name: str, kinds: tuple[type, ...], what: str) -> Any:
        value = self._meta.get(name)
        # bool is an int to Python, and never one to us.
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"field {name!r} of {self._where} should be {what}, got {value!r:.80}")
        return value

    def _optional(self, name: str, read: Callable[[str], Any]) -> Any:
        return None if self._meta.get(name) is None else read(name)

    def string(self, name: str) -> str:
        """Text."""
        return str(self._get(name, (str,), "a string"))

    def identifier(self, name: str) -> str:
        """Text that is not empty and no longer than an id may be."""
        value = self.string(name)
        if not 0 < len(value) <= MAX_ID_LENGTH:
            raise ValueError(f"field {name!r} of {self._where} should have 1 to {MAX_ID_LENGTH} characters")
        return value

    def whole(self, name: str, lowest: int = 0, highest: int = 2**63 - 1) -> int:
        """A whole number, within bounds."""
        value = int(self._get(name, (int,), "a whole number"))
        if not lowest <= value <= highest:
            raise ValueError(f"field {name!r} of {self._where} should be {lowest} to {highest}, got {value}")
        return value

    def number(self, name: str) -> float:
        """A number that is not infinite, and is one."""
        try:
            value = float(self._get(name, (int, float), "a number"))
        except OverflowError:
            value = math.inf
        if not math.isfinite(value):
            raise ValueError(f"field {name!r} of {self._where} should be finite, got {value}")
        return value

    def share(self, name: str) -> float:
        """A number of 0 to 1."""
        value = self.number(name)
        if not 0 <= value <= 1:
            raise ValueError(f"field {name!r} of {self._where} should be 0 to 1, got {value}")
        return value

    def flag(self, name: str) -> bool:
        """True or false."""
        return bool(self._get(name, (bool,), "true or false"))

    def optional_string(self, name: str) -> str | None:
        """Text; None where there is none."""
        value: str | None = self._optional(name, self.string)
        return value

    def optional_number(self, name: str) -> float | None:
        """A number; None where there is none."""
        value: float | None = self._optional(name, self.number)
        return value

    def optional_whole(self, name: str) -> int | None:
        """A whole number from 0 on; None where there is none."""
        value: int | None = self._optional(name, self.whole)
        return value

    def items(self, name: str) -> list[Fields]:
        """The objects of a list."""
        values = self._get(name, (list,), "a list")
        return [self._inner(value, f"{self._where}.{name}[{index}]") for index, value in enumerate(values)]

    def inner(self, name: str) -> Fields:
        """An object within this one."""
        return self._inner(self._meta.get(name), f"{self._where}.{name}")

    def polygon(self, name: str) -> Polygon:
        """Four points."""
        return _polygon(self._get(name, (list, tuple), "four points"), f"{name} of {self._where}")

    def polygons(self, name: str) -> tuple[Polygon, ...]:
        """A list of four points each."""
        values = self._get(name, (list, tuple), "a list")
        return tuple(_polygon(value, f"{name} of {self._where}") for value in values)

    def wholes(self, name: str) -> list[int]:
        """A list of whole numbers from 1 on."""
        values = self._get(name, (list,), "a list")
        if any(not isinstance(value, int) or isinstance(value, bool) or value < 1 for value in values):
            raise ValueError(f"field {name!r} of {self._where} should hold whole numbers from 1 on, got {values!r:.80}")
        return list(values)

    def path(self, name: str) -> tuple[tuple[float, Polygon], ...]:
        """A list of times, in milliseconds, each with four points."""
        entries = self._get(name, (list, tuple), "a list")
        try:
            return tuple((_finite(float(at_ms)), _polygon(points, name)) for at_ms, points in entries)
        except (TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"field {name!r} of {self._where} should be [time, polygon] pairs: {error}") from error

    @staticmethod
    def _inner(value: Any, where: str) -> Fields:
        if not isinstance(value, dict):
            raise ValueError(f"{where} should be an object, got {value!r:.80}")  # noqa: TRY004 decode() catches it
        return Fields(value, where)


def _finite(value: float) -> float:
    if not math.isfinite(value):
        raise ValueError(f"{value} is no time")
    return value


def _polygon(points: Any, where: str) -> Polygon:
    try:
        return to_polygon(points)
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError(f"{where}: {error}") from error
