"""A text line and its words: what of it is read, and where each word that was read stands.

Where the detector found the line's words, each is read by itself: recognisers read more of them right than of whole
lines. A line that was found whole is read whole, and cut into words at the spaces that the recogniser saw.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.cropping import cut
from ocrstream.geometry import Polygon, grown_polygon, polygon_part, polygon_size_wh, to_polygon
from ocrstream.messages import Word
from ocrstream.models import NO_MARGIN, Margin, Reading
from ocrstream.picture import Image

NARROW, WIDE = frozenset("iIl1jtfr.,:;'!|()[]-"), frozenset("mwMW@%")
NARROW_WIDTH, WIDE_WIDTH, SPACE_WIDTH = 0.55, 1.5, 0.6
"""How wide a letter is against the usual one: enough to know about where a space is."""

NEAR = 0.4
"""Words this near to each other, in line heights, may be one that the detector cut apart."""

WITHIN_NUMBERS = tuple(".,:-/")
MARKED = tuple(":-/")
"""What may stand between two digits of a number, and what of it no word ends with otherwise."""

REACH = 0.75
"""A gap is looked for this far from where the space should be, in line heights."""


@dataclass(frozen=True, slots=True)
class LineReading:
    """What a line says.

    Attributes:
        text: never empty.
        confidence: 0 to 1: its words' mean, a letter as much as the other.
        characters: the confidence of each of its characters, 0 to 1.
        words: where it has more than one, what they say and where they stand.
    """

    text: str
    confidence: float
    characters: tuple[float, ...]
    words: tuple[Word, ...]


def cut_line(picture: Image, polygon: Polygon, words: Sequence[Polygon], margin: Margin) -> list[Image]:
    """What of a line is read: one crop a word, or one of the whole line where its words are not known.

    Args:
        picture: ``(H, W, 3) uint8 BGR``.
        polygon: the line's, in the picture's pixels, clockwise from the text's top-left.
        words: its words', likewise; may be empty.
        margin: the detector's.
    """
    places = words or (polygon,)
    if margin != NO_MARGIN:
        places = [_with_margin(place, margin) for place in places]
    return [cut(picture, place) for place in places]


def _with_margin(place: Polygon, margin: Margin) -> Polygon:
    height_px = polygon_size_wh(place)[1]
    return grown_polygon(place, margin.along * height_px, margin.across * height_px)


def put_together(
    polygon: Polygon,
    words: Sequence[Polygon],
    crops: Sequence[Image],
    readings: Sequence[Reading],
    min_confidence: float = 0.0,
) -> LineReading | None:
    """What a line says by the readings of its crops; nothing where none is sure enough, or no letter or digit is read.

    Args:
        polygon: the line's, as in `cut_line`.
        words: likewise.
        crops: what `cut_line` gave, of any size.
        readings: what each of them says.
        min_confidence: words below it are left out, 0 to 1.
    """
    kept: list[Word] = []
    sureness: list[float] = []
    for place, crop, reading in zip(words or (polygon,), crops, readings, strict=True):
        if reading.confidence < min_confidence:
            continue
        for piece, text, confidence, characters in _words(crop, place, reading):
            if kept and _are_one_number(kept[-1], text, piece):
                # The mark between them may have been read of both.
                twice = int(text[0] == kept[-1].text[-1] and not text[0].isdigit())
                kept[-1] = _joined(kept[-1], Word(text[twice:], piece, _share(confidence)))
                sureness += characters[twice:]
                continue
            kept.append(Word(text, piece, _share(confidence)))
            # Between two words stands a space, as sure as the less sure of its neighbours.
            sureness += [min(sureness[-1], characters[0]), *characters] if sureness else characters
    text = " ".join(word.text for word in kept)
    # Edges and leaves are read as dots and strokes, for which nobody searches.
    if not any(map(str.isalnum, text)):
        return None
    letters = [len(word.text) for word in kept]
    sure = sum(word.confidence * count for word, count in zip(kept, letters, strict=True)) / sum(letters)
    if len(words) < 2 and len(readings) == 1:
        sure = readings[0].confidence
    return LineReading(text, _share(sure), tuple(sureness), tuple(kept) if len(kept) > 1 else ())


def _are_one_number(before: Word, text: str, place: Polygon) -> bool:
    """Whether a word goes on with a time, a date, a price or the like, that was cut apart at one of its marks."""
    end, start = before.text[-2:], text[:2]
    begins_with_mark = start[:1] in WITHIN_NUMBERS and start[1:].isdigit()
    if end[-1:].isdigit():
        goes_on = begins_with_mark
    else:
        is_marked = end[1:] in MARKED and start[:1].isdigit()
        goes_on = end[:1].isdigit() and (is_marked or (begins_with_mark and end[1:] == start[0]))
    if not goes_on:
        return False
    gap = (np.array(place[0]) + place[3] - before.polygon[1] - before.polygon[2]) / 2
    return float(np.linalg.norm(gap)) < NEAR * polygon_size_wh(before.polygon)[1]


def _joined(before: Word, after: Word) -> Word:
    """Two words as one."""
    (a, _, _, d), (_, b, c, _) = before.polygon, after.polygon
    letters = len(before.text), len(after.text)
    sure = (before.confidence * letters[0] + after.confidence * letters[1]) / sum(letters)
    return Word(before.text + after.text, (a, b, c, d), _share(sure))


def _words(crop: Image, place: Polygon, reading: Reading) -> Iterator[tuple[Polygon, str, float, list[float]]]:
    """The words of a reading, each with its place, its confidence and its characters'."""
    characters = list(reading.characters) or [reading.confidence] * len(reading.text)
    pieces = cut_into_words(crop, place, reading.text)
    start = 0
    for number, (piece, word) in enumerate(pieces):
        start = reading.text.index(word, start)
        mine = characters[start : start + len(word)]
        if len(pieces) == 1:
            confidence = reading.confidence
        else:
            confidence = reading.words[number] if reading.words else sum(mine) / len(mine)
        yield piece, word, confidence, mine
        start += len(word)


def _share(value: float) -> float:
    return round(min(max(value, 0.0), 1.0), 4)


def cut_into_words(crop: Image, polygon: Polygon, text: str) -> list[tuple[Polygon, str]]:
    """The words of a line, each with its part of the line's polygon.

    About where each space is follows from the letters; the cut is made at the emptiest place near it.

    Args:
        crop: the line's pixels, upright: ``(h, w, 3) uint8 BGR``.
        polygon: the line's, clockwise from the text's top-left, in any picture's pixels.
        text: what it says, with its spaces.
    """
    words = text.split()
    if len(words) < 2:
        return [(polygon, word) for word in words]
    ink = _ink(crop)
    reach = max(1, round(REACH * crop.shape[0]))
    cuts = [0.0]
    for expected in _expected_spaces(words):
        middle = round(expected * len(ink))
        low, high = max(0, middle - reach), min(len(ink), middle + reach + 1)
        distance = np.abs(np.arange(low, high) - middle) / reach
        # A little dearer with the distance, so that of equal gaps the nearest is taken.
        place = low + int(np.argmin(ink[low:high] + 0.2 * distance))
        cuts.append(max((place + 0.5) / len(ink), cuts[-1]))
    cuts.append(1.0)
    return [(polygon_part(polygon, start, end), word) for start, end, word in zip(cuts, cuts[1:], words, strict=False)]


def place_words(
    text: str, polygon: Polygon, known: Sequence[Polygon] = (), was: Polygon | None = None
) -> list[tuple[str, Polygon]]:
    """The words of a line that was read before, each with its place where the line is now.

    Args:
        text: what it says, with its spaces.
        polygon: the line's, clockwise from the text's top-left.
        known: where words stood when it was read; where these are as many, they move with the line, and otherwise the
            letters' widths tell about where each word is.
        was: the line's polygon then.
    """
    words = text.split()
    if was is not None and len(words) == len(known):
        return list(zip(words, carry(known, was, polygon), strict=True))
    if len(words) < 2:
        return [(word, polygon) for word in words]
    cuts = [0.0, *_expected_spaces(words), 1.0]
    return [(word, polygon_part(polygon, start, end)) for word, start, end in zip(words, cuts, cuts[1:], strict=False)]


def carry(places: Sequence[Polygon], was: Polygon, now: Polygon) -> list[Polygon]:
    """Polygons that lie in a line, moved and warped with it.

    Args:
        places: where they were.
        was: the line's polygon then.
        now: and now.
    """
    if not places or was == now:
        return list(places)
    warp = cv2.getPerspectiveTransform(np.array(was, np.float32), np.array(now, np.float32))
    moved = cv2.perspectiveTransform(np.array(places, np.float32).reshape(1, -1, 2), warp)
    return [to_polygon(corners) for corners in np.asarray(moved, np.float64).reshape(-1, 4, 2)]


def _expected_spaces(words: list[str]) -> list[float]:
    """The middle of each space, as a share of the line's length."""
    widths = [sum(_width(letter) for letter in word) for word in words]
    total = sum(widths) + SPACE_WIDTH * (len(words) - 1)
    ends = np.cumsum(widths)[:-1] + SPACE_WIDTH * (np.arange(len(words) - 1) + 0.5)
    return [float(end / total) for end in ends]


def _width(letter: str) -> float:
    if letter in NARROW:
        return NARROW_WIDTH
    return WIDE_WIDTH if letter in WIDE else 1.0


def _ink(crop: Image) -> NDArray[np.float64]:
    """How much happens in each column, ``(w,)``, 0 to 1: the spread of its values from top to bottom."""
    grey = crop.mean(axis=2)
    inner = grey[len(grey) // 8 : max(len(grey) - len(grey) // 8, 1)]
    spread = inner.std(axis=0)
    return np.asarray(spread / max(float(spread.max()), 1e-6), dtype=np.float64)
