"""The vote on one line: alignment, weights, confidence, and that it is better than what it votes on."""

import random
import string
from collections import Counter

import pytest
import regex

from recognizer_consumer.consensus import LONGEST_TEXT, MOST_LETTERS, ROOM, Consensus

Read = tuple[str, float, tuple[float, ...], float]
"""A reading: text, confidence, that of each character, and the view's score."""


def voted(*readings: tuple[str, float]) -> str:
    consensus = Consensus()
    for text, confidence in readings:
        consensus.add(text, confidence)
    return consensus.voted().text


def test_readings_that_are_wrong_in_different_places_are_right_together() -> None:
    assert voted(("BOARDlNG", 0.8), ("B0ARDING", 0.8), ("BOARDING 1", 0.8), ("OARDING", 0.8)) == "BOARDING"


def test_characters_that_most_readings_lack_are_left_out() -> None:
    assert voted(("GATE B12", 0.9), ("GATE. B12", 0.9), ("|GATE B12", 0.9)) == "GATE B12"


def test_a_reading_of_half_the_line_does_not_cut_it() -> None:
    assert voted(("DEPARTURES", 0.9), ("TURES", 0.9), ("DEPARTURES", 0.9), ("DEPA", 0.9)) == "DEPARTURES"


def test_readings_that_disagree_on_a_character_agree_that_there_is_one() -> None:
    assert voted(("B12", 0.9), ("812", 0.8), ("R12", 0.8), ("12", 0.9), ("12", 0.9)) == "B12"


def test_an_unsure_majority_says_less_than_a_sure_reading() -> None:
    assert voted(("GATE 812", 0.5), ("GATE B12", 0.9), ("GATE 812", 0.3)) == "GATE B12"


def test_the_characters_own_confidence_counts() -> None:
    consensus = Consensus()
    consensus.add("ABC", 0.7, (0.99, 0.2, 0.99))
    consensus.add("XYC", 0.7, (0.2, 0.99, 0.99))
    assert consensus.voted().text == "AYC"


def test_a_good_view_says_more() -> None:
    consensus = Consensus()
    consensus.add("GATE 812", 0.9, view=0.2)
    consensus.add("GATE 812", 0.9, view=0.2)
    consensus.add("GATE B12", 0.9, view=0.9)
    assert consensus.voted().text == "GATE B12"


def test_nothing_was_said_of_nothing() -> None:
    assert Consensus().voted() == ("", 0.0)


def test_confidence_falls_with_disagreement_and_is_no_higher_for_the_same_often() -> None:
    once, often, disputed = Consensus(), Consensus(), Consensus()
    once.add("EXIT", 0.95)
    for number in range(10):
        often.add("EXIT", 0.95)
        disputed.add("EXIT" if number % 2 else "EX17", 0.95)
    assert disputed.voted().confidence < once.voted().confidence
    assert often.voted().confidence == pytest.approx(once.voted().confidence)


def test_confidence_is_that_of_all_readings_and_not_of_the_surest() -> None:
    consensus = Consensus()
    for confidence in (0.9, 0.2, 0.2):
        consensus.add("SALE", confidence)
    assert 0.2 < consensus.voted().confidence < 0.5


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        (["B1O"], "B10"),
        (["B112", "B12", "B112"], "B12"),
        (["812", "812", "B12"], "B12"),
        (["EXIT"], "EXIT"),
        (["712"], "712"),
    ],
    ids=["confused", "another reading's none", "another reading's", "nothing like it", "never read"],
)
def test_a_near_neighbour_with_the_format_is_preferred(readings: list[str], expected: str) -> None:
    consensus = Consensus()
    for text in readings:
        consensus.add(text, 0.9)
    assert consensus.voted(patterns=[regex.compile(r"[A-Z]\d\d")]).text == expected


def test_a_vote_takes_no_more_room_however_many_readings_there_are() -> None:
    rng = random.Random(3)
    consensus = Consensus()
    for number in range(3000):
        text = "DEPARTURES" if number % 2 else "".join(rng.choices(string.printable, k=rng.randint(1, 12)))
        consensus.add(text, 0.9)
    assert len(consensus._columns) <= ROOM + 2 * 12
    assert max(len(column.letters) for column in consensus._columns) <= MOST_LETTERS
    assert consensus.voted().text == "DEPARTURES"


def test_a_scrap_of_a_long_line_takes_nothing_from_it() -> None:
    line = "".join(string.ascii_letters + string.digits) * 3
    assert voted((line, 0.9), ("x", 0.9), (line, 0.9)) == line


def test_a_reading_that_is_longer_than_any_line_is_cut() -> None:
    consensus = Consensus()
    consensus.add("x" * (LONGEST_TEXT + 100), 0.9, (0.9,) * (LONGEST_TEXT + 100))
    consensus.add("x" * LONGEST_TEXT + "y", 0.9)
    assert consensus.voted().text == "x" * LONGEST_TEXT


LETTERS = string.ascii_uppercase + string.digits


def noisy_readings(truth: str, count: int, rng: random.Random) -> list[Read]:
    """What an unreliable recogniser makes of a text: lost, added and wrong characters, half of the wrong ones confused
    the same way each time; its confidence knows a little of what it got wrong."""
    like = {letter: rng.choice(LETTERS) for letter in LETTERS}
    readings = []
    for _ in range(count):
        view = rng.uniform(0.3, 1.0)
        rate = 0.30 * (1.3 - view)
        text, sure = "", []
        for letter in truth:
            chance = rng.random()
            if chance < 0.25 * rate:
                continue
            wrong = chance < rate
            text += letter if not wrong else like[letter] if rng.random() < 0.5 else rng.choice(LETTERS)
            sure.append(rng.betavariate(4, 2) if wrong else rng.betavariate(8, 1.5))
            if rng.random() < 0.15 * rate:
                text += rng.choice(LETTERS)
                sure.append(rng.betavariate(3, 3))
        if text:
            readings.append((text, sum(sure) / len(sure), tuple(sure), view))
    return readings


def right_shares(texts: int, count: int, seed: int) -> dict[str, float]:
    """How many of so many texts are right by the surest reading, by the vote on whole texts, and by this one."""
    rng = random.Random(seed)
    right: Counter[str] = Counter()
    for _ in range(texts):
        truth = "".join(rng.choices(LETTERS, k=rng.randint(4, 14)))
        readings = noisy_readings(truth, count, rng)
        consensus, whole = Consensus(), Counter[str]()
        for text, confidence, characters, view in readings:
            consensus.add(text, confidence, characters, view)
            whole[text] += confidence  # type: ignore[assignment]
        right["surest"] += max(readings, key=lambda read: read[1])[0] == truth
        right["whole"] += whole.most_common(1)[0][0] == truth
        right["vote"] += consensus.voted().text == truth
    return {name: right[name] / texts for name in ("surest", "whole", "vote")}


@pytest.mark.parametrize("count", [3, 6, 12])
def test_the_vote_is_better_than_the_surest_reading_and_than_a_vote_on_whole_texts(count: int) -> None:
    shares = right_shares(150, count, seed=count)
    assert shares["vote"] >= shares["surest"] + 0.1
    assert shares["vote"] >= shares["whole"] + 0.1


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        (("A TASTE", "ATASTE", "A TASTE", "A TASTE"), "A TASTE"),
        (("A TASTE", "ATASTE"), "A TASTE"),
        (("ATASTE", "ATASTE", "A TASTE"), "ATASTE"),
    ],
)
def test_a_space_is_voted_on_like_a_letter(readings: tuple[str, ...], expected: str) -> None:
    assert voted(*((text, 0.9) for text in readings)) == expected
