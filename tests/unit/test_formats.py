"""Formats by source, and the nearest text that has one."""

import time

import pytest
import regex

from ocrstream.by_source import of_source
from recognizer_consumer.formats import Edit, confusions, nearest_match

PLATFORM, CLOCK = regex.compile(r"[A-Z]\d\d"), regex.compile(r"\d\d:\d\d")


def near(text: str, *patterns: regex.Pattern[str]) -> str | None:
    return nearest_match(text, confusions(text), patterns)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B12", "B12"),
        ("Bl2", "B12"),
        ("BO5", "B05"),
        ("B1O", "B10"),
        ("8l2", "B12"),
        ("BZ2", "B22"),
        ("l1:3O", "11:30"),
        ("|2:05", "12:05"),
        ("007", "O07"),
    ],
)
def test_what_is_confused_is_read_as_the_format_has_it(text: str, expected: str) -> None:
    assert near(text, PLATFORM, CLOCK) == expected


@pytest.mark.parametrize("text", ["EXIT", "X7", "X712", ""], ids=["other", "short", "long", "none"])
def test_what_is_not_near_a_format_is_left_alone(text: str) -> None:
    assert near(text, PLATFORM, regex.compile(r"\d+")) is None


def test_not_every_character_was_confused() -> None:
    assert near("SOS", regex.compile(r"\d+")) is None
    assert near("SO5", regex.compile(r"\d+")) == "505"


def test_two_letters_are_confused_with_one_and_one_with_two() -> None:
    assert near("corner", regex.compile("comer")) == "comer"
    assert near("comer", regex.compile("corner")) == "corner"
    assert near("vvest", regex.compile("west")) == "west"


def test_spaces_come_and_go_and_may_have_been_dashes() -> None:
    date = regex.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d")
    assert near("2027 -03 14 10:21", date) == "2027-03-14 10:21"
    assert near("1O :21", CLOCK) == "10:21"
    assert near("KX 4471", regex.compile(r"[A-Z]{2}\d{4}")) == "KX4471"


def test_what_another_reading_had_is_taken_before_a_confusion() -> None:
    edits = confusions("O12")
    assert nearest_match("O12", [*edits, Edit(0.2, 0, 1, "B")], [regex.compile(r"[B0]12")]) == "B12"
    assert nearest_match("O12", [*edits, Edit(1.2, 0, 1, "B")], [regex.compile(r"[B0]12")]) == "012"


def test_a_text_that_has_one_of_its_formats_stays_as_it_is() -> None:
    assert near("I1", regex.compile(r"\d\d"), regex.compile(r"[A-Z]\d")) == "I1"


def test_formats_hold_for_the_sources_that_they_name() -> None:
    formats = ("platform-*", (PLATFORM,)), ("platform-7", (CLOCK,)), ("Hall", (CLOCK,))
    assert of_source(formats, "platform-1") == (PLATFORM,)
    assert of_source(formats, "platform-7") == (PLATFORM, CLOCK)
    assert of_source(formats, "hall") == ()


def test_a_text_of_hundreds_of_confusions_is_given_up_in_time() -> None:
    began_s = time.process_time()
    assert near("lO0S5" * 100, PLATFORM) is None
    assert time.process_time() - began_s < 5


def test_a_format_that_takes_for_ever_is_passed_over_and_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    endless = regex.compile(r"(?:(.)|(..)|(...))*\1\2\3[!?]")
    for text in ("Minister opens new bridge in Northport", "Storm expected on Friday in the south"):
        assert near(text, endless) is None
    (record,) = caplog.records
    assert "takes too long" in record.getMessage()
    assert near("Bl2", PLATFORM) == "B12"
