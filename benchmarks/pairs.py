"""What a video's reading is worth: whether each word is said to be there in each frame in which it is there.

Two figures, each as recall, precision and F:

Pairs
    A (word, frame) pair is a labelled word in one frame. It is found where a system says the same word (lower case,
    three letters or digits and more) at that frame's time in that place: the middle of what was said lies in the word's
    polygon, grown by half its height, or the word's middle in the line that was said. A pair counts from half of the
    word in sight and 10 px of height on. What is said where a word is that does not count (don't-care regions, words
    that are hidden or small) is neither right nor wrong.

Appearances
    A labelled word that counts for a second and more is found where one appearance holds it for at least half of that
    time. A word of an appearance is wrong where nothing labelled says it while the appearance lasts.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from benchmarks.layers import FPS, SeenWord
from ocrstream.geometry import Polygon, polygon_size_wh, to_polygon
from search.timeline import Sighting
from training.protocols import recall_precision_f, words_of

LEAST_VISIBLE = 0.5
LEAST_HEIGHT_PX = 10.0
LEAST_S = 1.0
LEAST_SHARE = 0.5
"""An appearance holds a word that it says for this share of the time the word is there."""

GROWN = 0.5
"""So much of its height is a labelled word's polygon grown on all sides."""

LONGEST_GAP_S = 0.5
"""Readings of one text in one place that are further apart than this, and than two readings, are two appearances."""


class Said(NamedTuple):
    """A word that is said of a frame.

    Attributes:
        word: as it is compared.
        polygon: where it is: the part of its line that its letters take up.
        line: the whole line's polygon.
    """

    word: str
    polygon: Polygon
    line: Polygon


@dataclass(slots=True)
class Counts:
    """What was there, what was said, and how much of each the other confirms."""

    labelled: int = 0
    found: int = 0
    said: int = 0
    right: int = 0
    missed: Counter[str] = field(default_factory=Counter)
    wrong: Counter[str] = field(default_factory=Counter)

    def figures(self) -> dict[str, float]:
        """``recall``, ``precision``, ``f`` and the four counts."""
        counts = {"labelled": self.labelled, "found": self.found, "said": self.said, "right": self.right}
        return {**recall_precision_f(self.found, self.labelled, self.right, self.said), **counts}

    def __iadd__(self, other: Counts) -> Counts:
        self.labelled += other.labelled
        self.found += other.found
        self.said += other.said
        self.right += other.right
        self.missed += other.missed
        self.wrong += other.wrong
        return self


def frame_ms(index: int) -> float:
    """The media time of a clip's frame."""
    return index * 1000 / FPS


def said_words(text: str, polygon: Polygon) -> list[Said]:
    """The words of a line, each with the part of the line's polygon that its letters take up."""
    lowered, at, said = text.lower(), 0, []
    top_left, top_right, bottom_right, bottom_left = np.array(polygon)
    for word in words_of(text):
        at = lowered.index(word, at)
        begin, end = at / len(lowered), (at + len(word)) / len(lowered)
        at += len(word)
        top, bottom = top_right - top_left, bottom_right - bottom_left
        corners = [
            top_left + begin * top,
            top_left + end * top,
            bottom_left + end * bottom,
            bottom_left + begin * bottom,
        ]
        said.append(Said(word, to_polygon(np.array(corners)), polygon))
    return said


def said_at(sightings: Iterable[Sighting], at_ms: float) -> list[Said]:
    """What appearances say at a frame's time."""
    half_ms = 500 / FPS
    return [
        said
        for sighting in sightings
        if sighting.start_ms - half_ms <= at_ms <= sighting.end_ms + half_ms
        for said in said_words(sighting.text, sighting.polygon_at(at_ms))
    ]


def counts_as_pair(seen: SeenWord) -> bool:
    """Whether a word of a frame has to be found there."""
    word = seen.word
    return (
        not word.ignore
        and seen.visible >= LEAST_VISIBLE
        and polygon_size_wh(word.polygon)[1] >= LEAST_HEIGHT_PX
        and bool(words_of(word.text))
    )


def pairs(labels: Sequence[Sequence[SeenWord]], said: Sequence[Sequence[Said]]) -> Counts:
    """Judge what is said of each frame.

    Args:
        labels: the words of each frame.
        said: what a system says of each of these frames.
    """
    counts = Counts()
    for seen, here in zip(labels, said, strict=True):
        _judge_frame(seen, here, counts)
    return counts


def missed_pairs(seen: Sequence[SeenWord], said: Sequence[Said]) -> list[SeenWord]:
    """The words of a frame that have to be found there and are not."""
    left = list(said)
    return [each for each in seen if counts_as_pair(each) and not _take(each, left, Counts())]


def appearances(labels: Sequence[Sequence[SeenWord]], sightings: Sequence[Sighting]) -> Counts:
    """Judge appearances: each labelled word that is long enough in sight, and each word that is said."""
    counts, half_ms = Counts(), 500 / FPS
    times_ms: dict[int, list[float]] = defaultdict(list)
    texts: dict[int, str] = {}
    for index, seen in enumerate(labels):
        for each in filter(counts_as_pair, seen):
            times_ms[each.word.id].append(frame_ms(index))
            texts[each.word.id] = each.word.text
    spans = [(set(words_of(sighting.text)), sighting) for sighting in sightings]
    for word_id, there_ms in times_ms.items():
        if len(there_ms) < LEAST_S * FPS:
            continue
        for word in words_of(texts[word_id]):
            held = [
                sum(one.start_ms - half_ms <= at_ms <= one.end_ms + half_ms for at_ms in there_ms)
                for said, one in spans
                if word in said
            ]
            is_found = max(held, default=0) >= LEAST_SHARE * len(there_ms)
            counts.labelled += 1
            counts.found += is_found
            counts.missed[word] += not is_found
    for _, sighting in spans:
        _judge_sighting(labels, sighting, counts)
    return counts


def linked(readings: Sequence[Sequence[Said]], every: int) -> list[Sighting]:
    """Join what was read of frames to appearances: the same word again where it was before.

    Args:
        readings: of frames 0, ``every``, 2 · ``every``, …
        every: what is read holds until the next frame that is read.
    """
    longest_ms = max(LONGEST_GAP_S * 1000, 2 * frame_ms(every))
    ended: list[Sighting] = []
    running: list[Sighting] = []
    for number, words in enumerate(readings):
        at_ms = frame_ms(number * every)
        ended += [one for one in running if at_ms - one.path[-1][0] > longest_ms]
        running = [one for one in running if at_ms - one.path[-1][0] <= longest_ms]
        free = list(running)
        for word, polygon, _ in words:
            before = next((one for one in free if one.text == word and _meet(one.path[-1][1], polygon)), None)
            path = (*(before.path if before else ()), (at_ms, polygon))
            if before is not None:
                free.remove(before)
                running.remove(before)
            running.append(Sighting(word, 1.0, path[0][0], at_ms + frame_ms(every - 1), path))
    return ended + running


def _judge_frame(seen: Sequence[SeenWord], said: Sequence[Said], counts: Counts) -> None:
    left = list(said)
    for each in filter(counts_as_pair, seen):
        _take(each, left, counts)
    passed_over = [_grown(each.word.polygon) for each in seen if not counts_as_pair(each)]
    wrong = [each for each in left if not any(_holds(region, each.polygon) for region in passed_over)]
    counts.said += len(wrong) + len(said) - len(left)
    counts.right += len(said) - len(left)
    counts.wrong.update(each.word for each in wrong)


def _take(seen: SeenWord, left: list[Said], counts: Counts) -> bool:
    """Take out of what was said what says a labelled word; whether all of it was."""
    is_found = True
    for label in said_words(seen.word.text, seen.word.polygon):
        word = label.word
        match = next((each for each in left if each.word == word and _is_there(label, each)), None)
        counts.labelled += 1
        if match is None:
            is_found = False
            counts.missed[word] += 1
        else:
            left.remove(match)
            counts.found += 1
    return is_found


def _judge_sighting(labels: Sequence[Sequence[SeenWord]], sighting: Sighting, counts: Counts) -> None:
    first = max(round(sighting.start_ms * FPS / 1000), 0)
    last = min(round(sighting.end_ms * FPS / 1000), len(labels) - 1)
    labelled = {
        word
        for seen in labels[first : last + 1]
        for each in seen
        if not each.word.ignore
        for word in words_of(each.word.text)
    }
    middle = (first + last) // 2
    passed_over = [_grown(each.word.polygon) for each in labels[middle] if not counts_as_pair(each)]
    for said in said_words(sighting.text, sighting.polygon_at(frame_ms(middle))):
        if said.word in labelled:
            counts.said += 1
            counts.right += 1
        elif not any(_holds(region, said.polygon) for region in passed_over):
            counts.said += 1
            counts.wrong[said.word] += 1


def _is_there(label: Said, said: Said) -> bool:
    # Where a line's text lacks a word, the others' parts of the line are guessed wrong.
    return _holds(_grown(label.polygon), said.polygon) or _holds(np.array(said.line, np.float32), label.polygon)


def _grown(polygon: Polygon) -> NDArray[np.float32]:
    """A polygon whose sides are moved outwards, ``(4, 2) float32``."""
    corners = np.array(polygon, np.float64)
    by = GROWN * polygon_size_wh(polygon)[1]
    along = corners[1] - corners[0] + corners[2] - corners[3]
    down = corners[3] - corners[0] + corners[2] - corners[1]
    along *= by / max(float(np.hypot(*along)), 1e-6)
    down *= by / max(float(np.hypot(*down)), 1e-6)
    return np.asarray(corners + np.stack([-along - down, along - down, along + down, -along + down]), np.float32)


def _holds(region: NDArray[np.float32], polygon: Polygon) -> bool:
    x, y = np.mean(polygon, axis=0)
    return cv2.pointPolygonTest(region, (float(x), float(y)), measureDist=False) >= 0


def _meet(before: Polygon, now: Polygon) -> bool:
    return _holds(_grown(before), now)
