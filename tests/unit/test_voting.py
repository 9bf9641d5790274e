"""Appearances over time: which readings of a track belong to one text, and what is told of it."""

import itertools
from dataclasses import replace

import pytest
import regex

from ocrstream.geometry import Polygon, box_polygon
from ocrstream.messages import Appearance, FrameInfo, Region, Text, Word, make_frame_id
from recognizer_consumer.appearing import LONGEST_PATH, Sighting
from recognizer_consumer.likeness import lacks_letters
from recognizer_consumer.voting import MOST_OPEN, Ballot

SECOND_NS = 1_000_000_000
POLYGON = box_polygon(40.0, 30.0, 240.0, 74.0)


def at(second: float) -> FrameInfo:
    at_ns = round(second * SECOND_NS)
    return FrameInfo("hall", make_frame_id("hall", at_ns), at_ns, width_px=640, height_px=360, live=True)


REGION = Region(0, POLYGON, 0.9, f"{at(1).frame_id}-000")


def test_the_surest_text_wins_the_vote() -> None:
    ballot = Ballot()
    votes = [("GATE 812", 0.5), ("GATE B12", 0.9), ("GATE 812", 0.3)]
    news = [ballot.count(at(1 + n * 0.1), (Text(REGION, text, sure),)) for n, (text, sure) in enumerate(votes)]
    assert [appearance.text for found in news for appearance in found] == ["GATE 812", "GATE B12"]
    (last,) = ballot.close("hall", 1)
    assert (last.text, last.readings) == ("GATE B12", 3)


def votes_of(ballot: Ballot, *texts: str, start_s: float = 1.0) -> list[tuple[str, str, bool]]:
    """Show texts in one place, ten a second; the id, text and end of what the ballot says."""
    news: list[Appearance] = []
    for number, text in enumerate(texts):
        news += ballot.count(at(start_s + number * 0.1), (Text(REGION, text, 0.9),))
    return [(appearance.track_id, appearance.text, appearance.closed) for appearance in news]


def test_another_text_in_the_same_place_is_another_appearance() -> None:
    news = votes_of(Ballot(), "ARRIVALS", "ARRIVALS", "DEPARTURES", "DEPARTURES", "DEPARTURES")
    (first, second) = dict.fromkeys(track_id for track_id, _, _ in news)
    assert second.startswith(f"{first}~")
    assert [(track_id == first, text, closed) for track_id, text, closed in news] == [
        (True, "ARRIVALS", False),
        (True, "ARRIVALS", True),
        (False, "DEPARTURES", False),
    ]


def test_one_wild_reading_is_outvoted() -> None:
    news = votes_of(Ballot(), "ARRIVALS", "ARRIVALS", "|||", "ARRIVALS", "ARRIVAL5")
    assert [(text, closed) for _, text, closed in news] == [("ARRIVALS", False)]


def spans_of(*readings: str | tuple[str, float], every_s: float = 0.25) -> list[tuple[str, int, float, float]]:
    """What the appearances of one place say in the end: text, readings, first and last second."""
    ballot = Ballot()
    last: dict[str, Appearance] = {}
    for number, reading in enumerate(readings):
        text, confidence = (reading, 0.95) if isinstance(reading, str) else reading
        news = ballot.count(at(1 + number * every_s), (Text(REGION, text, confidence),))
        last.update((appearance.track_id, appearance) for appearance in news)
    last.update((appearance.track_id, appearance) for appearance in ballot.close("hall", 1))
    assert all(appearance.closed for appearance in last.values())
    assert sum(appearance.readings for appearance in last.values()) == len(readings)
    return [(a.text, a.readings, a.first_at_ns / SECOND_NS, a.last_at_ns / SECOND_NS) for a in last.values()]


def test_a_clock_gives_one_appearance_for_each_time_it_shows() -> None:
    times = [f"12:30:{second:02d}" for second in range(38, 50)]
    spans = spans_of(*itertools.chain.from_iterable([time] * 3 for time in times))
    assert spans == [(time, 3, 1 + 0.75 * n, 1.5 + 0.75 * n) for n, time in enumerate(times)]


def test_a_steady_change_of_a_letter_is_another_text() -> None:
    assert spans_of("B12", "B12", "B2", "B2", "B2") == [("B12", 2, 1.0, 1.25), ("B2", 3, 1.5, 2.0)]
    there_and_back = spans_of("B12", "B12", "B2", "B2", "B12", "B12")
    assert [text for text, *_ in there_and_back] == ["B12", "B2", "B12"]


@pytest.mark.parametrize(
    "readings",
    [
        ("B12", "B12", "B2", "B12", "B12"),
        ("B12", "B12", ("B2", 0.8), ("B2", 0.95), ("B2", 0.8), "B12", "B12", "B12"),
        ("B12", "B12", "B2", "812", "B2", "B12"),
        (("B1", 0.8), "B12", "B12", "B12"),
        ("B12", "B12", "BI2", "Bl2", "B12"),
        ("B12", "B12", ("B2", 0.8)),
    ],
    ids=["flicker", "unsure", "unsteady", "one at first", "confused letters", "one at last"],
)
def test_misreadings_stay_one_appearance(readings: tuple[str | tuple[str, float], ...]) -> None:
    assert [(text, count) for text, count, _, _ in spans_of(*readings)] == [("B12", len(readings))]


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        (("T 011", "T 012", "T 012"), [("T 011", 1), ("T 012", 2)]),
        (("T 010", "T 010", "T 011"), [("T 010", 2), ("T 011", 1)]),
        (("T 010", "T 011"), [("T 010", 1), ("T 011", 1)]),
        (("T 010", "T 010", ("T 011", 0.8), "T 011"), [("T 010", 3), ("T 011", 1)]),
        (("T 011", "T 012", "T 011", "T 011"), [("T 011", 4)]),
    ],
    ids=["first", "last", "both", "last, unsure before", "a misreading behind the first"],
)
def test_one_sure_reading_is_enough_where_the_frames_begin_or_end(
    readings: tuple[str | tuple[str, float], ...], expected: list[tuple[str, int]]
) -> None:
    assert [(text, count) for text, count, _, _ in spans_of(*readings)] == expected


def test_a_text_that_changed_in_its_last_frame_only_has_gone_as_what_it_was() -> None:
    ballot = Ballot()
    votes_of(ballot, "T 010", "T 010", "T 011")
    ballot.count(at(1.3), ())
    assert [(last.text, last.readings) for last in ballot.close("hall", 1)] == [("T 010", 3)]


def test_where_a_source_gave_nothing_for_a_while_its_frames_end_and_begin() -> None:
    ballot = Ballot()
    votes_of(ballot, "T 010", "T 010", "T 011")
    news = votes_of(ballot, "T 021", "T 022", "T 022", start_s=9.0)
    assert [text for _, text, closed in news if closed] == ["T 010", "T 011", "T 021"]


def test_a_clock_read_once_a_time_is_voted_on_and_not_lost() -> None:
    (span, last) = spans_of("12:30:41", "12:30:42", "12:30:43", "12:30:44", every_s=0.3)
    assert span[1:] == (3, 1.0, 1.6)
    assert last == ("12:30:44", 1, 1.9, 1.9)


def test_a_clock_in_a_frame_a_second_says_another_time_in_each() -> None:
    times = [f"12:30:{second}" for second in range(41, 46)]
    assert spans_of(*times, every_s=1.0) == [(time, 1, 1.0 + n, 1.0 + n) for n, time in enumerate(times)]
    unsure = spans_of("12:30:41", ("12:30:42", 0.8), ("12:30:43", 0.8), "12:30:41", every_s=1.0)
    assert unsure == [("12:30:41", 4, 1.0, 4.0)]


def test_a_recogniser_that_is_started_again_replaces_nothing_it_said_before() -> None:
    before = votes_of(Ballot(), "EXIT", "EXIT")
    after = votes_of(Ballot(), "EXIT", "EXIT", start_s=9.0)
    assert before[0][0] != after[0][0]
    assert after[0][0].startswith(before[0][0])


def test_a_sign_that_is_in_view_for_months_takes_no_more_room() -> None:
    ballot = Ballot()
    for number in range(2000):
        x = 40.0 + 10.0 * (number % 2)
        moved = replace(REGION, polygon=box_polygon(x, 30.0, x + 200.0, 74.0))
        text = "GATE B12" if number % 3 != 2 else f"GATE {100 + number}"
        ballot.count(at(1 + number * 0.1), (Text(moved, text, 0.9),))
    (vote,) = ballot._open["hall", 1].votes.values()
    assert len(vote.trail.path) <= LONGEST_PATH
    (last,) = ballot.close("hall", 1)
    assert (last.text, last.readings) == ("GATE B12", 2000)
    assert last.path[0][0] == 1000.0
    assert last.path[-1][0] == pytest.approx(1000 + 1999 * 100)
    assert [at_ms for at_ms, _ in last.path] == sorted({at_ms for at_ms, _ in last.path})


class Place:
    """One place that is looked at, and what its appearances say in the end."""

    def __init__(self, formats: dict[str, list[regex.Pattern[str]]] | None = None) -> None:
        self.ballot = Ballot(tuple((name, tuple(patterns)) for name, patterns in (formats or {}).items()))
        self._last: dict[str, Appearance] = {}

    def read(
        self,
        second: float,
        text: str,
        confidence: float = 0.95,
        view: float = 1.0,
        *,
        is_changed: bool = True,
        polygon: Polygon = REGION.polygon,
    ) -> None:
        region = replace(REGION, polygon=polygon)
        self._count(second, Sighting(region, text, confidence, view=view, is_changed=is_changed))

    def said(self, second: float) -> str | None:
        """What a document of this time says."""
        text = self.ballot.said_at(at(second), REGION)
        return None if text is None else text.text

    def still_there(self, *seconds: float, dx: float = 0.0) -> None:
        """Seen as last read, each time so far to the right of the last time."""
        for number, second in enumerate(seconds, start=1):
            moved = box_polygon(40.0 + dx * number, 30.0, 240.0 + dx * number, 74.0)
            self._count(second, Sighting(replace(REGION, polygon=moved), "", 0.0, fresh=False))

    def told(self) -> list[Appearance]:
        self._take(self.ballot.close("hall", 1))
        return list(self._last.values())

    def spans(self) -> list[tuple[str, int, float, float]]:
        return [(a.text, a.readings, a.first_at_ns / SECOND_NS, a.last_at_ns / SECOND_NS) for a in self.told()]

    def _count(self, second: float, line: Sighting) -> None:
        self._take(self.ballot.count(at(second), [line]))

    def _take(self, news: tuple[Appearance, ...]) -> None:
        self._last.update((appearance.track_id, appearance) for appearance in news)


def test_a_line_that_is_there_as_last_read_lasts_and_moves_without_a_vote() -> None:
    place = Place()
    place.read(1.0, "GATE B12")
    place.still_there(1.5, 2.0, 2.5, dx=10.0)
    place.read(3.0, "GATE B12")
    (seen,) = place.told()
    assert (seen.text, seen.readings, seen.first_at_ns, seen.last_at_ns) == ("GATE B12", 2, SECOND_NS, 3 * SECOND_NS)
    assert [(at_ms, polygon[0][0]) for at_ms, polygon in seen.path] == [
        (1000.0, 40.0),
        (1500.0, 50.0),
        (2000.0, 60.0),
        (2500.0, 70.0),
        (3000.0, 40.0),
    ]


def test_a_line_that_is_there_as_last_read_is_not_closed_and_is_sent_again_now_and_then() -> None:
    place = Place()
    place.read(1.0, "GATE B12")
    news = [place.ballot.count(at(1 + n / 4), [Sighting(REGION, "", 0.0, fresh=False)]) for n in range(1, 25)]
    sent = [(appearance.closed, appearance.last_at_ns / SECOND_NS) for told in news for appearance in told]
    assert sent == [(False, float(second)) for second in range(2, 8)]


def test_a_line_that_is_there_as_last_read_of_which_nothing_is_known_is_passed_over() -> None:
    place = Place()
    place.still_there(1.0, 1.5)
    assert place.told() == []
    assert place.ballot.said_at(at(1.5), REGION) is None


def test_a_clock_that_is_read_once_a_time_and_then_stands_is_an_appearance_for_each_time() -> None:
    place = Place()
    for second in range(41, 45):
        place.read(second, f"12:30:{second}")
        place.still_there(*(second + n / 10 for n in range(1, 10)))
    assert place.spans() == [(f"12:30:{second}", 1, second, second + 0.9) for second in range(41, 45)]


def test_a_slide_that_is_read_once_and_then_stands_is_another_appearance() -> None:
    place = Place()
    place.read(1.0, "ARRIVALS", 0.7)
    place.still_there(1.1, 1.2, 1.3)
    place.read(1.4, "DEPARTURES", 0.7)
    place.still_there(1.5, 1.6)
    assert place.spans() == [("ARRIVALS", 1, 1.0, 1.3), ("DEPARTURES", 1, 1.4, 1.6)]


@pytest.mark.parametrize("held_s", [0.1, 0.5], ids=["passing", "unsure"])
def test_a_misreading_that_does_not_stand_or_is_unsure_is_outvoted(held_s: float) -> None:
    place = Place()
    place.read(1.0, "B12")
    place.read(1.1, "B12")
    place.read(1.2, "B2", 0.95 if held_s < 0.2 else 0.8)
    place.still_there(1.2 + held_s)
    place.read(2.0, "B12")
    assert place.spans() == [("B12", 4, 1.0, 2.0)]


def test_a_clearly_better_view_corrects_what_was_read_from_worse_ones() -> None:
    place = Place()
    place.read(1.0, "GATE B2", view=0.3)
    place.still_there(1.3, 1.6)
    place.read(2.0, "GATE B12", view=0.8)
    place.still_there(2.3, 2.6)
    assert place.spans() == [("GATE B12", 2, 1.0, 2.6)]


@pytest.mark.parametrize(("times", "expected"), [(1.12, "one"), (1.0, "several")])
def test_a_sign_that_comes_nearer_is_read_better_and_better(times: float, expected: str) -> None:
    place = Place()
    for number, text in enumerate(["SPEED UIMIT 80", "SPEED UMIT 80", "SPEED LIMIT 80", "SPEED LIMIT 80"]):
        height = 40 * times**number
        polygon = box_polygon(40.0, 30.0, 40.0 + 6 * height, 30.0 + height)
        view = 0.3 * times**number
        place.read(1 + number / 2, text, view=view, polygon=polygon)
        place.read(1.3 + number / 2, text, view=view, polygon=polygon, is_changed=False)
    told = place.spans()
    assert (len(told) == 1) == (expected == "one")
    assert told[-1][0] == "SPEED LIMIT 80"


def test_a_place_that_is_found_a_little_higher_and_no_longer_is_no_nearer() -> None:
    place = Place()
    for number, (text, height) in enumerate([("Room B", 47), ("Room B", 47), ("Room C", 51.5), ("Room C", 51.5)]):
        place.read(
            1 + number / 2, text, polygon=box_polygon(40.0, 30.0, 275.0, 30.0 + height), is_changed=number % 2 == 0
        )
    assert [text for text, *_ in place.spans()] == ["Room B", "Room C"]


@pytest.mark.parametrize("sure", [0.97, 0.7])
def test_another_word_in_letters_that_make_the_place_larger_is_no_nearer_view(sure: float) -> None:
    place = Place()
    for second in (1.0, 1.3, 1.6):
        place.read(second, "Left door")
    larger = replace(REGION, polygon=box_polygon(40.0, 26.0, 274.0, 77.0))
    characters = (*(sure,) * 5, *(0.97,) * 5)
    for second, is_changed in ((2.0, True), (2.3, False), (2.6, False)):
        sighting = Sighting(larger, "Right door", 0.95, characters, is_changed=is_changed)
        place.ballot.count(at(second), [sighting])
    texts = [text for text, *_ in place.spans()]
    assert (texts == ["Left door", "Right door"]) is (sure > 0.9)


def test_a_little_nearer_there_is_no_word_more() -> None:
    place = Place()
    for number, (text, height) in enumerate(
        [("Platform", 40), ("Platform", 40), ("Platform 7", 46), ("Platform 7", 46)]
    ):
        place.read(1 + number / 2, text, polygon=box_polygon(40.0, 30.0, 40.0 + 5 * height, 30.0 + height))
    assert [text for text, *_ in place.spans()] == ["Platform", "Platform 7"]


def test_a_view_that_is_not_better_corrects_nothing() -> None:
    place = Place()
    place.read(1.0, "GATE B2", view=0.7)
    place.still_there(1.3, 1.6)
    place.read(2.0, "GATE B12", view=0.8)
    place.still_there(2.3, 2.6)
    assert [text for text, *_ in place.spans()] == ["GATE B2", "GATE B12"]


def test_a_split_flap_that_turns_is_one_text_and_then_the_other() -> None:
    place = Place()
    for second in (1.0, 1.1, 1.2):
        place.read(second, "PARIS 1430")
    for number, turning in enumerate(("QBTKZ 7XP1", "RGOLV 9CD2", "MXIUA 3KF0", "ROEXZ 8WQ5")):
        place.read(1.3 + number / 10, turning, 0.5)
    for second in (1.7, 1.8, 1.9):
        place.read(second, "ROMA 1455")
    assert [text for text, *_ in place.spans()] == ["PARIS 1430", "ROMA 1455"]


def test_a_slide_that_fades_in_is_one_appearance() -> None:
    place = Place()
    for second, text, confidence in ((1.0, "SAIE", 0.4), (1.1, "PLATFQ", 0.5), (1.2, "PLATFORM 9", 0.97)):
        place.read(second, text, confidence)
    place.still_there(1.3, 1.4, 1.5)
    assert place.spans() == [("PLATFORM 9", 3, 1.0, 1.5)]


def test_readings_that_are_wrong_in_different_places_are_right_together() -> None:
    place = Place()
    for number, text in enumerate(("DEPARTUPES", "DFPARTURES", "DEPAFTURES", "DEPARTURE")):
        place.read(1 + number / 10, text, 0.8)
    assert place.spans() == [("DEPARTURES", 4, 1.0, 1.3)]


def test_a_text_that_changed_in_its_last_frames_is_an_appearance_of_its_own_though_it_was_read_once() -> None:
    place = Place()
    place.read(1.0, "T 010")
    place.read(1.1, "T 010")
    place.read(1.2, "T 011")
    place.still_there(1.3)
    assert place.spans() == [("T 010", 2, 1.0, 1.1), ("T 011", 1, 1.2, 1.3)]


def test_what_is_said_of_a_line_is_what_its_readings_say_together() -> None:
    place = Place()
    for number, text in enumerate(("DEPARTUPES", "DFPARTURES", "DEPARTURES", "DEPAFTURES")):
        place.read(1 + number / 10, text, 0.8, is_changed=False)
    assert place.said(1.3) == "DEPARTURES"


@pytest.mark.parametrize("confidence", [0.97, 0.6], ids=["sure", "unsure"])
def test_what_is_said_of_a_line_whose_picture_has_changed_is_what_was_read_of_it_since(confidence: float) -> None:
    place = Place()
    for second in (1.0, 1.1, 1.2):
        place.read(second, "12:30:41")
    place.read(1.3, "12:30:42", confidence)
    assert place.said(1.3) == "12:30:42"
    place.still_there(1.4)
    assert place.said(1.4) == "12:30:42"


def test_another_reading_of_the_same_picture_is_a_misreading() -> None:
    place = Place()
    place.read(1.0, "T 011")
    place.read(1.3, "T 017", 0.93, is_changed=False)
    assert place.said(1.3) == "T 011"
    place.still_there(1.4, 1.5, 1.6)
    assert place.said(1.6) == "T 011"
    assert place.spans() == [("T 011", 2, 1.0, 1.6)]


@pytest.mark.parametrize(("confidence", "texts"), [(0.95, ["Annual meeting", "Budget"]), (0.6, ["Annual meeting"])])
def test_two_sure_readings_that_say_something_else_are_no_misreadings(confidence: float, texts: list[str]) -> None:
    place = Place()
    for number in range(4):
        place.read(1 + number, "Annual meeting", is_changed=number == 0)
    for number in range(2):
        place.read(5 + number, "Budget", confidence=confidence, is_changed=False)
    assert [text for text, *_ in place.spans()] == texts


def test_a_changed_picture_that_is_read_surely_and_stands_is_another_text_whatever_was_before() -> None:
    place = Place()
    place.read(1.0, "T 011", 0.6)
    place.still_there(1.3, 1.6)
    place.read(2.0, "T 012", 0.93)
    place.still_there(2.1, 2.2, 2.3)
    assert place.spans() == [("T 011", 1, 1.0, 1.6), ("T 012", 1, 2.0, 2.3)]


def test_a_changed_picture_is_another_text_where_what_differs_is_sure() -> None:
    def spans(sure_of_last: float) -> list[str]:
        place = Place()
        place.read(1.0, "TOWER 1")
        place.still_there(1.3, 1.6)
        sure = (0.99,) * 6 + (sure_of_last,)
        place.ballot.count(at(2.0), [Sighting(REGION, "TOWER 2", 0.95, sure)])
        place.still_there(2.1, 2.2, 2.3)
        return [text for text, *_ in place.spans()]

    assert spans(0.97) == ["TOWER 1", "TOWER 2"]
    assert spans(0.5) == ["TOWER 1"]


def test_two_readings_of_a_changed_picture_make_up_for_what_neither_is_sure_of() -> None:
    def spans(*readings: tuple[str, float]) -> list[str]:
        place = Place()
        for second in (1.0, 1.3, 1.6):
            place.read(second, "Room B")
        for number, (text, sure) in enumerate(readings):
            sighting = Sighting(REGION, text, 0.93, (0.99,) * 5 + (sure,), is_changed=number == 0)
            place.ballot.count(at(2.0 + number / 2), [sighting])
            place.still_there(2.1 + number / 2, 2.3 + number / 2)
        return [text for text, *_ in place.spans()]

    assert spans(("Room C", 0.79), ("Room C", 0.78)) == ["Room B", "Room C"]
    assert spans(("Room C", 0.79), ("Room B", 0.78)) == ["Room B"]
    assert spans(("Room C", 0.55), ("Room C", 0.55)) == ["Room B"]


def test_the_words_of_a_line_move_with_it() -> None:
    ballot = Ballot()
    words = (Word("GATE", box_polygon(40, 30, 150, 74), 0.9), Word("B12", box_polygon(160, 30, 240, 74), 0.9))
    ballot.count(at(1.0), [Sighting(REGION, "GATE B12", 0.9, words=words)])
    moved = replace(REGION, polygon=box_polygon(140.0, 40.0, 340.0, 84.0))
    ballot.count(at(1.1), [Sighting(moved, "", 0.0, fresh=False)])
    said = ballot.said_at(at(1.1), moved)
    assert said is not None
    assert [(word.text, word.polygon) for word in said.words] == [
        ("GATE", box_polygon(140, 40, 250, 84)),
        ("B12", box_polygon(260, 40, 340, 84)),
    ]
    assert {word.confidence for word in said.words} == {said.confidence}


def test_what_is_not_sure_enough_is_not_said() -> None:
    ballot = Ballot(min_confidence=0.5)
    ballot.count(at(1.0), [Sighting(REGION, "EXIT", 0.3)])
    assert ballot.said_at(at(1.0), REGION) is None
    assert ballot.said_at(at(1.0), replace(REGION, track_id=None)) is None


def test_a_frame_that_was_overtaken_is_a_vote_and_no_step_back() -> None:
    place = Place()
    place.read(1.0, "EXIT")
    place.still_there(1.5, dx=20.0)
    place.read(1.2, "EXIT")
    (seen,) = place.told()
    assert (seen.readings, seen.last_at_ns) == (2, 1_500_000_000)
    assert [at_ms for at_ms, _ in seen.path] == [1000.0, 1500.0]


def test_the_confidence_of_each_character_counts() -> None:
    ballot = Ballot()
    ballot.count(at(1.0), [Sighting(REGION, "GATE 812", 0.9, (0.99,) * 5 + (0.3, 0.99, 0.99))])
    ballot.count(at(1.1), [Sighting(REGION, "GATE B12", 0.8, (0.8,) * 8)])
    assert [appearance.text for appearance in ballot.close("hall", 1)] == ["GATE B12"]


def test_a_format_of_the_source_is_preferred() -> None:
    place = Place({"ha*": [regex.compile(r"[A-Z]\d\d")], "street": [regex.compile(r"\d+")]})
    place.read(1.0, "BlO")
    assert [appearance.text for appearance in place.told()] == ["B10"]


@pytest.mark.parametrize(
    ("text", "whole", "hides"),
    [
        ("TATION ROAD", "STATION ROAD", True),
        ("EXIT WT", "EXIT WEST", True),
        ("EXIT WE", "Exit West", True),
        ("STATION", "STATION ROAD", False),
        ("B12", "AB12", False),
        ("Gate 15", "Gate 1205", False),
        ("EXIT WEST", "EXIT WEST", False),
        ("EXIT WEST", "EXIT WT", False),
        ("EXIT EAST", "EXIT NORTH EASTERN", False),
    ],
)
def test_letters_that_something_hides_are_told_from_another_text(text: str, whole: str, hides: bool) -> None:
    assert lacks_letters(text, whole) is hides


def test_a_space_tells_nothing_of_how_surely_another_text_stands_there() -> None:
    place = Place()
    for second in (1.0, 1.3):
        place.read(second, "18C", 0.95)
    for second, is_changed in ((2.0, True), (2.3, False)):
        line = Sighting(REGION, "19 C", 0.84, (1.0, 1.0, 0.69, 0.69), is_changed=is_changed)
        place._count(second, line)
    assert [appearance.text for appearance in place.told()] == ["18C", "19 C"]


def test_somebody_who_walks_by_makes_no_other_text_of_a_sign() -> None:
    readings = ["STATION ROAD", "STATION ROAD", "TATION ROAD", "ATION ROAD", "STATI ROAD", "STATION RO", "STATION ROAD"]
    ballot = Ballot()
    last: dict[str, Appearance] = {}
    for number, text in enumerate(readings):
        last |= {told.track_id: told for told in ballot.count(at(1 + number * 0.3), (Text(REGION, text, 0.95),))}
    last |= {told.track_id: told for told in ballot.close("hall", 1)}
    ((text, count, last_ns),) = [(told.text, told.readings, told.last_at_ns) for told in last.values()]
    assert (text, count) == ("STATION ROAD", 3), "what is left of it is no vote"
    assert last_ns == at(1 + 6 * 0.3).captured_at_ns


def test_a_source_with_ever_new_lines_takes_no_more_room() -> None:
    ballot = Ballot()
    closed: list[Appearance] = []
    for number in range(3):
        lines = [Text(replace(REGION, track_id=f"{number}-{line}"), f"EXIT {number}", 0.9) for line in range(MOST_OPEN)]
        closed += [told for told in ballot.count(at(1 + number / 10), lines) if told.closed]
    assert [appearance.track_id.partition("-")[0] for appearance in closed] == ["0"] * MOST_OPEN + ["1"] * MOST_OPEN
    assert len(ballot.close("hall", 1)) == MOST_OPEN


def shown(text: str, x0: float, x1: float, *, confidence: float = 0.95) -> Sighting:
    """A reading of a line that takes up so much of its row, 44 px high."""
    return Sighting(replace(REGION, polygon=box_polygon(x0, 30.0, x1, 74.0)), text, confidence)


def told_of(*lines: Sighting, every_s: float = 0.3) -> list[tuple[str, float, float]]:
    ballot = Ballot()
    last: dict[str, Appearance] = {}
    for number, line in enumerate(lines):
        last.update((each.track_id, each) for each in ballot.count(at(1 + number * every_s), [line]))
        still_there = replace(line, fresh=False)
        last.update((each.track_id, each) for each in ballot.count(at(1.25 + number * every_s), [still_there]))
    last.update((each.track_id, each) for each in ballot.close("hall", 1))
    return [(a.text, a.first_at_ns / SECOND_NS, a.last_at_ns / SECOND_NS) for a in last.values()]


def test_a_word_that_comes_into_view_is_the_whole_word_from_the_beginning() -> None:
    lines = shown("Pass", 540, 640), shown("Passag", 490, 640), shown("Passages", 440, 640), shown("Passages", 400, 600)
    assert told_of(*lines) == [("Passages", 1.0, 2.15)]


def test_a_line_that_leaves_goes_on_saying_what_it_said() -> None:
    lines = shown("Mind the gap", 10, 310), shown("nd the gap", 0, 250), shown("the gap", 0, 180), shown("gap", 0, 80)
    assert told_of(*lines) == [("Mind the gap", 1.0, 2.15)]


def test_a_line_whose_beginning_has_left_says_what_it_said_though_it_is_read_again() -> None:
    lines = shown("Mind the gap", 10, 310), shown("the gap", 0, 230), shown("the gap", 30, 210)
    again = replace(shown("the gap", 12, 190), is_changed=False)
    assert [text for text, *_ in told_of(*lines, again)] == ["Mind the gap"]


def test_a_line_that_grows_by_a_word_is_another_text() -> None:
    lines = shown("Specials", 240, 440), shown("Specials SALE", 240, 560)
    assert told_of(*lines) == [("Specials", 1.0, 1.25), ("Specials SALE", 1.3, 1.55)]


@pytest.mark.parametrize(("confidence", "text"), [(0.95, "Track 1"), (0.5, "Track")])
def test_a_word_that_was_overlooked_belongs_to_its_line(confidence: float, text: str) -> None:
    known = [shown("Track", 240, 440) for _ in range(8)]
    more = replace(shown("Track 1", 240, 500, confidence=confidence), is_changed=False)
    assert told_of(*known, more) == [(text, 1.0, 3.65)]


def test_a_word_that_has_come_up_beside_another_is_news_though_it_is_read_again() -> None:
    more = shown("SOLD OUT", 240, 560)
    lines = shown("SOLD", 240, 400), more, replace(more, is_changed=False)
    assert told_of(*lines) == [("SOLD", 1.0, 1.25), ("SOLD OUT", 1.3, 1.85)]


def test_a_line_that_comes_in_is_the_whole_line_from_the_beginning_though_it_grows_by_words() -> None:
    lines = shown("Please kf", 500, 640), shown("Please keep", 400, 600), shown("Please keep clear of", 300, 640)
    whole = shown("Please keep clear of the doors", 100, 560)
    assert told_of(*lines, whole) == [("Please keep clear of the doors", 1.0, 2.15)]
    # From the left, its end comes first.
    lines = shown("doors", 0, 120), shown("f the doors", 0, 260), shown("clear of the doors", 20, 460)
    assert told_of(*lines) == [("clear of the doors", 1.0, 1.85)]


def test_a_line_that_has_come_in_says_something_new_when_it_grows_once_more() -> None:
    # It was seen at the edge, and read when it had left it.
    cut = replace(shown("", 540, 640), fresh=False)
    assert told_of(cut, shown("Spec", 480, 580), shown("Specials", 300, 500), shown("Specials SALE", 200, 520)) == [
        ("Specials", 1.0, 1.85),
        ("Specials SALE", 1.9, 2.15),
    ]


def test_a_word_that_is_found_when_a_line_has_just_come_in_belongs_to_it() -> None:
    coming = shown("Mus", 560, 640), shown("Museum", 480, 600), shown("Museum of", 420, 560)
    later = [shown("Museum of", 410 - 10 * number, 550 - 10 * number) for number in range(3)]
    assert told_of(*coming, *later, shown("Museum of Art", 360, 600)) == [("Museum of Art", 1.0, 3.05)]


def test_a_line_that_was_known_before_the_edge_cut_it_off_is_known_afterwards() -> None:
    known = [shown("No parking", x0, x0 + 300) for x0 in (300, 310, 340)]
    misread = shown("No parl king", 320, 620, confidence=0.8)
    assert told_of(*known, misread, known[1]) == [("No parking", 1.0, 2.45)]


def test_another_text_in_the_place_of_a_line_that_was_cut_off_is_another_text() -> None:
    lines = shown("12:04", 560, 640), shown("13:57 Lyon", 440, 620)
    assert told_of(*lines) == [("12:04", 1.0, 1.25), ("13:57 Lyon", 1.3, 1.55)]


def test_a_part_of_a_text_in_the_same_room_is_another_text() -> None:
    assert told_of(shown("12 min", 40, 240), shown("2 min", 40, 240)) == [("12 min", 1.0, 1.25), ("2 min", 1.3, 1.55)]


def test_a_text_that_has_become_shorter_is_another_one_when_it_is_read_so_again() -> None:
    whole, rest = shown("Gate B12", 40, 240), shown("Gate", 40, 140)
    again = replace(rest, is_changed=False)
    assert [text for text, *_ in told_of(whole, rest)] == ["Gate B12"]
    assert [text for text, *_ in told_of(whole, rest, again, again)] == ["Gate B12", "Gate"]


def test_what_is_left_of_a_passing_text_takes_its_place() -> None:
    ballot = Ballot()
    rest = replace(shown("Gate", 40, 140), is_changed=False)
    for second, line in ((1.0, shown("Gate B12", 40, 240, confidence=0.5)), (1.1, rest), (1.2, rest)):
        ballot.count(at(second), [line])
    assert [(last.text, last.readings) for last in ballot.close("hall", 1)] == [("Gate", 2)]


def test_what_is_left_of_a_text_has_to_be_read_twice_in_a_picture_that_rests() -> None:
    ballot = Ballot()
    whole, rest = shown("MEETING POINT", 40, 240), replace(shown("MEETING POI", 40, 240), is_changed=False)
    told: list[str] = []
    # Somebody who goes may still hide its last letters when it is read next.
    for second, line in ((1.0, whole), (1.3, whole), (3.0, rest), (3.3, whole), (3.6, rest)):
        told += [each.text for each in ballot.count(at(second), [line])]
    assert set(told) == {"MEETING POINT"}
    told += [each.text for each in ballot.count(at(3.9), [rest])]
    assert told[-1] == "MEETING POI"


def test_a_counter_that_has_stood_a_while_and_grows_says_something_new() -> None:
    short, long = shown("A1", 100, 160), shown("A10", 100, 200)
    stands = [replace(short, is_changed=False)] * 3
    assert told_of(short, *stands, long) == [("A1", 1.0, 2.15), ("A10", 2.2, 2.45)]
    # A word that grows at once was not seen as a whole.
    assert [text for text, *_ in told_of(short, long)] == ["A10"]


def test_a_counter_that_is_cut_off_where_its_last_number_ended_is_no_other_number() -> None:
    stands = [replace(shown("Visitors 99", 100, 320), is_changed=False)] * 4
    cut, whole = shown("Visitors 10", 100, 320), shown("Visitors 100", 100, 340)
    # The first number has ended when another one is read.
    assert [text for text, *_ in told_of(*stands, cut, whole)] == ["Visitors 99", "Visitors 100"]


def test_a_long_line_that_comes_in_grows_by_a_letter() -> None:
    lines = (
        shown("Minister opens new bridge in Northp", 300, 640),
        shown("Minister opens new bridge in Northport", 260, 630),
    )
    assert told_of(*lines) == [("Minister opens new bridge in Northport", 1.0, 1.55)]


def test_what_is_left_of_a_line_that_something_hides_in_part_is_no_other_text() -> None:
    whole = shown("STATION HOTEL", 40, 340)
    hidden = [shown(text, 40, 340) for text in ("SON HOTEL", "ON HOTEL", "STATION A")]
    assert [text for text, *_ in told_of(whole, *hidden, whole)] == ["STATION HOTEL"]
    # What stands there for long, at rest, is all there is.
    rests = replace(hidden[0], is_changed=False)
    assert [text for text, *_ in told_of(whole, hidden[0], rests)] == ["STATION HOTEL", "SON HOTEL"]


def test_a_reading_with_less_spaces_is_not_what_is_left_of_a_line() -> None:
    first = shown("Mus eum of Moderm Art", 40, 340, confidence=0.8)
    ballot = Ballot()
    for number, line in enumerate([first] + [shown("Museum of Modern Art", 40, 340)] * 4):
        ballot.count(at(1 + number * 0.3), [line])
    assert [(last.text, last.readings) for last in ballot.close("hall", 1)] == [("Museum of Modern Art", 5)]


def test_what_differs_surely_on_the_whole_is_another_text() -> None:
    place = Place()
    place.read(1.0, "Gate B15")
    place.still_there(1.3, 1.6)
    sure = (0.99,) * 6 + (0.73, 0.99)
    place.ballot.count(at(2.0), [Sighting(REGION, "Gate C07", 0.95, sure)])
    place.still_there(2.1, 2.2, 2.3)
    assert [text for text, *_ in place.spans()] == ["Gate B15", "Gate C07"]
