"""How every benchmark sums up its values, prints them and keeps them."""

from __future__ import annotations

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(__file__).resolve().parent / "results"


def percentiles(values: Sequence[float], shares: Sequence[int] = (50, 95, 99)) -> dict[str, float]:
    """Percentiles of a measurement's values, never their mean alone.

    Args:
        values: one a batch, frame or round; at least one.
        shares: which percentiles, 0 to 100.

    Returns:
        ``{"p50": …, "max": …, "count": …}``, interpolated between neighbours, with three decimals.
    """
    found = {f"p{share}": round(float(np.percentile(values, share)), 3) for share in shares}
    return {**found, "max": round(max(values), 3), "count": len(values)}


def median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    """The median over the rounds of ours/theirs within a round: what slows a whole round down cancels out."""
    return round(float(np.median([mine / other for mine, other in zip(ours, theirs, strict=True)])), 3)


def add_save_flag(parser: argparse.ArgumentParser) -> None:
    """Give a benchmark its ``--save``."""
    parser.add_argument("--save", action="store_true", help=f"keep the figures as a file in {RESULTS.name}/ too")


def conclude(name: str, environment: Mapping[str, Any], figures: Mapping[str, Any], *, save: bool) -> None:
    """Print a benchmark's figures under their circumstances, and keep them where that is asked for.

    Args:
        name: the benchmark; first part of the file's name, before the date and the commit.
        environment: what `benchmarks.environment.environment` said before the run.
        figures: the results, as JSON takes them.
        save: whether to keep them.
    """
    report = {"environment": environment, "figures": figures}
    print("\n".join(as_lines(report)))
    if save:
        RESULTS.mkdir(exist_ok=True)
        day, commit = environment["date"][:10], environment["commit"]
        # Another run of the same commit, with other options, is not to take the place of the first.
        numbered = (f"{name}-{day}-{commit}{f'-{count}' if count else ''}.json" for count in itertools.count())
        path = next(path for path in map(RESULTS.joinpath, numbered) if not path.exists())
        path.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
        print(f"kept as {path}")


def as_lines(value: Mapping[str, Any], indent: str = "") -> list[str]:
    """Nested figures for people: a line for each, and one line for what holds no further level."""
    lines = []
    for name, inner in value.items():
        if isinstance(inner, Mapping) and any(isinstance(item, (Mapping, list)) for item in inner.values()):
            lines += [f"{indent}{name}:", *as_lines(inner, f"{indent}  ")]
        elif isinstance(inner, Mapping) and indent:
            lines.append(f"{indent}{name}: " + ", ".join(f"{key} {item}" for key, item in inner.items()))
        elif isinstance(inner, Mapping):
            lines += [f"{name}:", *as_lines(inner, "  ")]
        elif isinstance(inner, list) and not any(isinstance(item, (Mapping, list)) for item in inner):
            lines.append(f"{indent}{name}: {' '.join(map(str, inner))}")
        elif isinstance(inner, list):
            lines += [f"{indent}{name}:", *(f"{indent}  {_row(item)}" for item in inner)]
        else:
            lines.append(f"{indent}{name}: {inner}")
    return lines


def _row(item: Any) -> str:
    if not isinstance(item, Mapping):
        return str(item)
    return ", ".join(f"{key} {_row(value)}" for key, value in item.items())
