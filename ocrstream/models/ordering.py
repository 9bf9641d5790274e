"""The order in which a person reads what a detector found."""

from __future__ import annotations

from collections.abc import Sequence

from ocrstream.geometry import bounding_box
from ocrstream.models import TextLine


def in_reading_order(lines: Sequence[TextLine]) -> list[TextLine]:
    """Rows from top to bottom, each from left to right; in a row middles are closer than half a line's height."""
    boxes = {id(line): bounding_box(line.polygon) for line in lines}
    rows: list[list[TextLine]] = []
    for line in sorted(lines, key=lambda line: boxes[id(line)][1] + boxes[id(line)][3]):
        _, top, _, bottom = boxes[id(line)]
        if rows:
            _, row_top, _, row_bottom = boxes[id(rows[-1][-1])]
            if abs(top + bottom - row_top - row_bottom) < min(bottom - top, row_bottom - row_top):
                rows[-1].append(line)
                continue
        rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda line: boxes[id(line)][0])]
