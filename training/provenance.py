"""How weights came about: what a run began from, and the trainings before it, as a card tells them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ocrstream.errors import EngineError
from ocrstream.models.weights import read_card
from training.loop import CHECKPOINT


def origin(out: Path, record: str, settings: dict[str, Any], start: Path | None, initial: str = "") -> dict[str, Any]:
    """What a run began from, to be kept in its folder: of one that goes on, what was kept there when it began.

    Args:
        out: the run's folder.
        record: the file in it that tells of the run.
        settings: of the piece that begins now, as its record tells them.
        start: the weight file it begins from, where it does.
        initial: the name of the file of its backbone's first weights, likewise.

    Returns:
        ``start``, ``initial`` and ``before``, see `history`; ``pieces``: the settings of earlier pieces where they were
        others.

    Raises:
        EngineError: the record is damaged.
    """
    path = out / record
    if not (out / CHECKPOINT).exists() or not path.exists():
        return {"start": start.name if start else "", "initial": initial, "before": history(start) if start else []}
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        known = {name: kept[name] for name in ("start", "initial", "before")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EngineError(
            f"{path} does not tell what this run began from ({error!r}): begin in an empty folder"
        ) from error
    others: list[dict[str, Any]] = []
    for earlier in (*kept.get("pieces", []), kept["settings"]):
        if earlier not in (settings, *others):
            others.append(earlier)
    return {**known, "pieces": others} if others else known


def history(weights: Path) -> list[dict[str, Any]]:
    """How weights came about, by their card: one entry a training, the first first; empty where they have no card."""
    try:
        training = dict(read_card(weights).card.get("training", {}))
    except EngineError:
        return []
    before: list[dict[str, Any]] = training.pop("before", [])
    return [*before, training] if training else before
