"""How engines are judged: each protocol under its name, so that a figure always says what it measures."""

from __future__ import annotations

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from ocrstream.geometry import Polygon
from training.letters import is_marked

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
        unwanted = [region for region, skip in zip(regions, ignored, strict=True) if skip]
        counted = [index for index, quad in enumerate(detections) if not _lies_in(quad, unwanted)]
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


SPLIT_WORTH = 0.8
"""DetEval: what a region counts that several detections cover, against 1 for one detection or for a shared one."""

REGION_SHARE, DETECTION_SHARE = 0.8, 0.4
"""DetEval: how much of a region must be covered, and how much of a detection must be region."""


@dataclass(slots=True)
class DetEval:
    """ICDAR13's protocol (Wolf and Jolion, 2006) on quadrilaterals: one to many and many to one are allowed.

    A detection that covers several words (a line) counts fully, a word in several pieces counts 0.8.

    Attributes:
        labelled: regions that count.
        detected: detections that count.
        found: their worth to recall.
        right: their worth to precision.
    """

    labelled: int = 0
    detected: int = 0
    found: float = 0.0
    right: float = 0.0

    def add(self, detections: Sequence[Quad], regions: Sequence[Quad], ignored: Sequence[bool]) -> None:
        """Count one photo; arguments as of `IcdarIou.add`."""
        wanted = [region for region, skip in zip(regions, ignored, strict=True) if not skip]
        unwanted = [region for region, skip in zip(regions, ignored, strict=True) if skip]
        counted = [quad for quad in detections if not _lies_in(quad, unwanted)]
        self.labelled += len(wanted)
        self.detected += len(counted)
        if not wanted or not counted:
            return
        shared = np.array([[intersection(region, quad) for quad in counted] for region in wanted])
        of_region = shared / np.maximum([[area(region)] for region in wanted], 1e-6)
        of_detection = shared / np.maximum([area(quad) for quad in counted], 1e-6)
        free_regions, free_detections = set(range(len(wanted))), set(range(len(counted)))
        good = (of_region >= REGION_SHARE) & (of_detection >= DETECTION_SHARE)
        for region, quad in zip(*np.nonzero(good), strict=True):
            if good[region].sum() == 1 and good[:, quad].sum() == 1:
                self._count({int(region)}, {int(quad)}, 1.0, free_regions, free_detections)
        for region in sorted(free_regions):
            pieces = {quad for quad in free_detections if of_detection[region, quad] >= DETECTION_SHARE}
            if len(pieces) > 1 and of_region[region, list(pieces)].sum() >= REGION_SHARE:
                self._count({region}, pieces, SPLIT_WORTH, free_regions, free_detections)
        for quad in sorted(free_detections):
            covered = {region for region in free_regions if of_region[region, quad] >= REGION_SHARE}
            if covered and of_detection[list(covered), quad].sum() >= DETECTION_SHARE:
                self._count(covered, {quad}, 1.0, free_regions, free_detections)

    def _count(
        self, regions: set[int], detections: set[int], worth: float, free_regions: set[int], free_detections: set[int]
    ) -> None:
        self.found += worth * len(regions)
        self.right += worth * len(detections)
        free_regions -= regions
        free_detections -= detections

    def figures(self) -> dict[str, float]:
        """``recall``, ``precision`` and ``f``, 0 to 1."""
        return recall_precision_f(self.found, self.labelled, self.right, self.detected)


MIN_LETTERS = 3
"""Searchable words have three letters or digits, or more."""


def words_of(text: str) -> list[str]:
    """The words that can be searched: lower case, runs of three or more letters and digits."""
    return re.findall(f"[0-9a-z]{{{MIN_LETTERS},}}", text.lower())


@dataclass(slots=True)
class SearchableWords:
    """What matters to who searches: whether a photo is found by the words in it, and only by those.

    Each word counts once a photo. Words in lines whose middle lies in a don't-care region do not count.

    Attributes:
        labelled: words that can be found.
        found: those of them that were.
        read: words that an engine gave.
        right: those of them that are labelled.
    """

    labelled: int = 0
    found: int = 0
    read: int = 0
    right: int = 0

    def add(self, lines: Sequence[tuple[Polygon, str]], wanted: Set[str], ignored: Sequence[Quad]) -> Set[str]:
        """Count one photo.

        Args:
            lines: an engine's output: where it is and what it says.
            wanted: the labelled words, as `words_of` gives them.
            ignored: the don't-care regions.

        Returns:
            The labelled words that were found.
        """
        found = wanted & {word for _, text in lines for word in words_of(text)}
        judged = {word for polygon, text in lines if not _middle_in(polygon, ignored) for word in words_of(text)}
        self.labelled += len(wanted)
        self.found += len(found)
        self.read += len(judged)
        self.right += len(judged & wanted)
        return found

    def figures(self) -> dict[str, float]:
        """``recall``, ``precision`` and ``f``, 0 to 1."""
        return recall_precision_f(self.found, self.labelled, self.right, self.read)


@dataclass(slots=True)
class Recognition:
    """Share of crops read without a mistake, in percent: of their letters and digits alone, and to the character.

    Attributes:
        crops: those judged.
        right: those whose letters a to z and digits are right.
        exact: those that are right to the character.
        marked: letters beyond a to z in the labels.
        marked_right: those of them that stand in the reading where they should.
    """

    crops: int = 0
    right: int = 0
    exact: int = 0
    marked: int = 0
    marked_right: int = 0

    def add(self, text: str, label: str) -> None:
        """Count one crop; labels without a letter or digit are not for this protocol."""
        wanted = _letters(label)
        if not wanted:
            return
        self.crops += 1
        self.right += _letters(text) == wanted
        self.exact += text.strip() == label.strip()
        if any(map(is_marked, label)):
            self.marked += sum(map(is_marked, label))
            alike = (step for step in Levenshtein.opcodes(label, text) if step.tag == "equal")
            self.marked_right += sum(sum(map(is_marked, label[step.src_start : step.src_end])) for step in alike)

    def figures(self) -> dict[str, float]:
        """``words`` (lower-case letters and digits) and ``exact`` (case and punctuation too), in percent.

        Where labels have them, also ``marked``: the share of the letters beyond a to z that were read as they are.
        """
        count = max(self.crops, 1)
        figures = {"words": round(100 * self.right / count, 2), "exact": round(100 * self.exact / count, 2)}
        return figures | ({"marked": round(100 * self.marked_right / self.marked, 2)} if self.marked else {})


def _letters(text: str) -> str:
    return re.sub("[^0-9a-z]", "", text.lower())


def _lies_in(quad: Quad, regions: Sequence[Quad]) -> bool:
    return any(intersection(quad, region) > IGNORED_SHARE * max(area(quad), 1e-6) for region in regions)


def _middle_in(polygon: Polygon, regions: Sequence[Quad]) -> bool:
    middle = (sum(x for x, _ in polygon) / 4, sum(y for _, y in polygon) / 4)
    return any(cv2.pointPolygonTest(region, middle, False) >= 0 for region in regions)
