"""How engines are judged: each protocol under its name, so that a figure always says what it measures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

Quad = NDArray[np.float32]
"""``(4, 2) float32``, x then y, in pixels."""

MIN_IOU = 0.5
"""ICDAR15: two regions match above this intersection over union."""

IGNORED_SHARE = 0.5
"""ICDAR15: a detection with more than this share of its area in a don't-care region does not count."""


def area(quad: Quad) -> float:
    """A quadrilateral's area in square pixels."""
    return float(abs(cv2.contourArea(quad)))


def intersection(a: Quad, b: Quad) -> float:
    """Area that two convex quadrilaterals share, in square pixels."""
    if (a.max(axis=0) < b.min(axis=0)).any() or (b.max(axis=0) < a.min(axis=0)).any():
        return 0.0
    return float(cv2.intersectConvexConvex(a, b)[0])


@dataclass(slots=True)
class IcdarIou:
    """ICDAR15's detection protocol: IoU above 0.5, one to one, detections in don't-care regions left out.

    Attributes:
        labelled: regions that count.
        detected: detections that count.
        matched: pairs of both.
    """

    labelled: int = 0
    detected: int = 0
    matched: int = 0

    def add(self, detections: Sequence[Quad], regions: Sequence[Quad], ignored: Sequence[bool]) -> None:
        """Count one photo.

        Args:
            detections: what the engine found, the surest first.
            regions: the photo's labelled regions.
            ignored: for each region, whether it is a don't-care region.
        """
        areas = [area(quad) for quad in detections]
        counted = [
            index
            for index, quad in enumerate(detections)
            if not any(
                skip and intersection(quad, region) > IGNORED_SHARE * max(areas[index], 1e-6)
                for region, skip in zip(regions, ignored, strict=True)
            )
        ]
        free = set(counted)
        for region, skip in zip(regions, ignored, strict=True):
            if skip:
                continue
            self.labelled += 1
            for index in (index for index in counted if index in free):
                shared = intersection(detections[index], region)
                if shared > MIN_IOU * (areas[index] + area(region) - shared):
                    free.discard(index)
                    self.matched += 1
                    break
        self.detected += len(counted)

    def figures(self) -> dict[str, float]:
        """``recall``, ``precision`` and ``f``, 0 to 1."""
        return recall_precision_f(self.matched, self.labelled, self.matched, self.detected)


def recall_precision_f(found: float, labelled: float, right: float, detected: float) -> dict[str, float]:
    """The three figures from counts; what nothing counts in is 0."""
    recall, precision = found / max(labelled, 1), right / max(detected, 1)
    return {
        "recall": round(recall, 4),
        "precision": round(precision, 4),
        "f": round(2 * recall * precision / max(recall + precision, 1e-9), 4),
    }
