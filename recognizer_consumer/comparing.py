"""What a reading says beside what stands in its place: the same text, more or less of it, or another one.

The rules are told in `recognizer_consumer.voting`, which acts on the answers.
"""

from __future__ import annotations

from enum import Enum, auto
from math import prod
from statistics import fmean

from rapidfuzz.distance import Levenshtein

from ocrstream.folding import are_alike, folded_text
from ocrstream.geometry import Polygon, polygon_size_wh
from ocrstream.messages import FrameInfo
from recognizer_consumer.appearing import OpenAppearance, Sighting, Waiting, are_steady
from recognizer_consumer.likeness import is_part, is_unlike, lacks_letters

ALONE_S = 0.6
"""Of a source whose frames are so far apart a text may be in one of them only."""

LIKELY = 0.85
"""A reading of a changed picture, which then stands, is another text if it is so sure of what differs; two that say the
same are together less unsure than either."""

BETTER_VIEW = 1.25
"""A view whose score is so many times the best one's so far, or that is so many times as high, is clearly better."""

NEARER = 1.08
"""A sign that comes nearer is read a little better each time: that is so many times as high as it was before."""

FEW = 2
"""But what was steadily read is corrected in so many letters at most by a reading that is sure of them."""

STRETCH = 1.15
"""Where a place's proportions change more than so, it shows more of a line, or less, than before."""

HALF = 0.5
"""Or, where a reading has more letters, by this share of what they should take more."""

HIDDEN = 2
"""So many characters less are read of a line of which something hides a part; one less may be a text that has changed,
unless it is a letter of a longer text."""

KNOWN_S = 1.0
"""What was read of a line for so long was all there was of it."""


def is_another(vote: OpenAppearance, first: Sighting, second: Sighting, *, has_rested: bool) -> bool:
    """Whether two readings in a row, neither of which agrees with the vote, are another text in its place.

    Args:
        vote: what stood there.
        first: a reading.
        second: the next one, or the same again where its text stands there as last read.
        has_rested: whether both are of one picture, which is another one than that of what stood there.
    """
    if all(is_unlike(reading.text, vote.winner().text) for reading in (first, second)):
        return True
    if has_rested and are_alike(first.text, second.text):
        return _are_sure(vote, first) if second is first else _are_sure(vote, first, second)
    return vote.steady is not None and are_steady(first, second)


def may_be_another(vote: OpenAppearance, line: Sighting) -> bool:
    """Whether a second reading like this one could make another text of it; see `is_another`."""
    return _are_sure(vote, line, line)


def _are_sure(vote: OpenAppearance, *readings: Sighting) -> bool:
    """Whether readings are sure of what differs from the vote, all of them together."""
    return prod(1 - _sureness_where_it_differs(each, vote.winner().text) for each in readings) <= 1 - LIKELY


def _sureness_where_it_differs(line: Sighting, text: str) -> float:
    """The mean confidence, 0 to 1, of the characters of a reading that are others than a text's, but for spaces."""
    sure = line.characters if len(line.characters) == len(line.text) else (line.confidence,) * len(line.text)
    sure = tuple(each for each, character in zip(sure, line.text, strict=True) if character != " ")
    edits = Levenshtein.opcodes(text.replace(" ", ""), line.text.replace(" ", ""))
    # Where a character of the text is missing, the neighbours tell how well the place could be read.
    places = [
        place
        for edit in edits
        if edit.tag != "equal"
        for place in (
            range(edit.dest_start, edit.dest_end)
            if edit.dest_end > edit.dest_start
            else range(max(edit.dest_start - 1, 0), min(edit.dest_start + 1, len(sure)))
        )
    ]
    return fmean(sure[place] for place in places) if places else line.confidence


class Growth(Enum):
    """How much of the text that stands in a place a reading shows."""

    LESS = auto()
    AS_MUCH = auto()
    """Or that is not told: it may be another text."""
    MORE = auto()


def growth(vote: OpenAppearance, info: FrameInfo, line: Sighting) -> Growth:
    """Whether a reading shows more or less of the same text than the last one that counts.

    A word comes into view, or a line leaves or is hidden in part: then its place is longer or shorter in proportion
    to its height, and what is read is the beginning or the end of what was read before, or goes on with that. Where
    something hides a part of a line, a word's middle too, its place may be known to be as long as before. A line
    that the frame's edge has cut off may grow by little. What was read of any other for some time was all of it:
    what is longer then is another text (a price, a counter), and so is a line that grows by a word, as that word
    was not there before; but where the picture has not changed, it was.
    """
    assert vote.before is not None
    stretch = _proportions(line.region.polygon) / _proportions(vote.before[1].region.polygon)
    before, now = folded_text(vote.winner().text), folded_text(line.text)
    if stretch > 1 / STRETCH and len(now) > len(before):
        if vote.may_come_in():
            # The letter at the cut is read as what is left of it.
            return Growth.MORE if is_part(before, now, torn=1) else Growth.AS_MUCH
        is_known = vote.is_settled and info.captured_at_ns - vote.trail.first.captured_at_ns >= KNOWN_S * 1e9
        # What stands in the place of another text may have been cut off where that ended, by no more than a letter.
        least = min(STRETCH, 1 + HALF * (len(now) / max(len(before), 1) - 1))
        grows = stretch >= least and not is_known and now.count(" ") == before.count(" ")
        if stretch >= least and not line.is_changed and vote.waiting is None:
            # The picture is the same, and more of it was found.
            grows = _sureness_where_it_differs(line, vote.winner().text) >= LIKELY
        return Growth.MORE if grows and is_part(before, now) else Growth.AS_MUCH
    least = 1 if stretch <= 1 / STRETCH else HIDDEN
    # Spaces come and go from one reading to the next.
    is_less = _letters(before) - _letters(now) >= least and is_part(now, before)
    is_less = is_less or lacks_letters(line.text, vote.winner().text)
    return Growth.LESS if is_less and stretch < STRETCH else Growth.AS_MUCH


def _letters(text: str) -> int:
    return len(text) - text.count(" ")


def _proportions(polygon: Polygon) -> float:
    width, height = polygon_size_wh(polygon)
    return max(width, 1.0) / max(height, 1.0)


class Correction(Enum):
    """What a reading that differs a little is to what was read before of the same text."""

    NONE = auto()
    """No correction: it may be another text."""
    NEARER = auto()
    """It is to be voted on: it was seen from a little nearer."""
    BETTER = auto()
    """It counts in place of what was read before: it comes from a clearly better view."""


def correction(vote: OpenAppearance, line: Sighting) -> Correction:
    """Whether a reading that differs corrects what was read from worse views."""
    text = vote.winner().text
    is_shorter = len(folded_text(line.text)) <= len(folded_text(text)) - HIDDEN
    if vote.waiting is not None or is_shorter or vote.agrees(line.text) or is_unlike(line.text, text):
        return Correction.NONE
    if vote.steady is not None and _differs_much(vote, line):
        return Correction.NONE
    assert vote.before is not None
    stretch = _proportions(line.region.polygon) / _proportions(vote.before[1].region.polygon)
    if not 1 / STRETCH < stretch < STRETCH:
        return Correction.NONE
    length, height = polygon_size_wh(line.region.polygon)
    before_length, _ = polygon_size_wh(vote.before[1].region.polygon)
    # What the detector has just found a little higher, and no longer, is no nearer.
    nearer = min(height / max(vote.tallest_px, 1.0), length / max(before_length, 1.0))
    if line.view >= BETTER_VIEW * vote.clearest or nearer >= BETTER_VIEW:
        return Correction.BETTER
    # A word more is no letter that could not be read before.
    is_longer = folded_text(line.text).count(" ") > folded_text(text).count(" ")
    return Correction.NEARER if nearer >= NEARER and not is_longer else Correction.NONE


def _differs_much(vote: OpenAppearance, line: Sighting) -> bool:
    """Whether a reading is sure that more than a few letters are others."""
    edits = Levenshtein.distance(folded_text(line.text), folded_text(vote.winner().text))
    return edits > FEW and _are_sure(vote, line)


def stood_alone(vote: OpenAppearance, waiting: Waiting, info: FrameInfo) -> bool:
    """Whether a sure text that waits for a second reading gets none because frames are far apart.

    Where a source gives one frame a second, a clock says another time in each.
    """
    waited_s = (info.captured_at_ns - waiting.trail.last.captured_at_ns) / 1e9
    differs = _sureness_where_it_differs(waiting.line, vote.winner().text)
    return vote.steady is not None and waited_s >= ALONE_S and differs >= LIKELY
