"""Formats by source, and the nearest text that has one."""

import re
import time

import pytest

from recognizer_consumer.formats import Edit, Formats, confusions, nearest_match

PLATFORM, CLOCK = re.compile(r"[A-Z]\d\d"), re.compile(r"\d\d:\d\d")


def near(text: str, *patterns: re.Pattern[str]) -> str | None:
    edits = [Edit(1.0, *confusion) for confusion in confusions(text)]
    return nearest_match(text, edits, patterns)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("B12", "B12"), ("Bl2", "B12"), ("BO5", "B05"), ("B1O", "B10"), ("l1:3O", "11:30"), ("|2:05", "12:05")],
)
def test_what_is_confused_is_read_as_the_format_has_it(text: str, expected: str) -> None:
    assert near(text, PLATFORM, CLOCK) == expected


@pytest.mark.parametrize("text", ["EXIT", "B7", "B712", ""], ids=["other", "short", "long", "none"])
def test_what_is_not_near_a_format_is_left_alone(text: str) -> None:
    assert near(text, PLATFORM, re.compile(r"\d+")) is None


def test_not_every_character_was_confused() -> None:
    assert near("SOS", re.compile(r"\d+")) is None
    assert near("SO5", re.compile(r"\d+")) == "505"


def test_two_letters_are_confused_with_one_and_one_with_two() -> None:
    assert near("corner", re.compile("comer")) == "comer"
    assert near("comer", re.compile("corner")) == "corner"
    assert near("vvest", re.compile("west")) == "west"


def test_what_another_reading_had_is_taken_before_a_confusion() -> None:
    edits = [Edit(1.0, *confusion) for confusion in confusions("O12")]
    assert nearest_match("O12", [*edits, Edit(0.2, 0, 1, "B")], [re.compile(r"[B0]12")]) == "B12"
    assert nearest_match("O12", [*edits, Edit(1.2, 0, 1, "B")], [re.compile(r"[B0]12")]) == "012"


def test_a_text_that_has_one_of_its_formats_stays_as_it_is() -> None:
    assert near("I1", re.compile(r"\d\d"), re.compile(r"[A-Z]\d")) == "I1"


def test_formats_hold_for_the_sources_that_they_name() -> None:
    formats = Formats({"platform-*": [PLATFORM], "platform-7": [CLOCK], "Hall": []})
    assert formats.of("platform-1") == (PLATFORM,)
    assert formats.of("platform-7") == (PLATFORM, CLOCK)
    assert formats.of("hall") == ()


def test_a_text_of_hundreds_of_confusions_is_given_up_in_time() -> None:
    began_s = time.process_time()
    assert near("lO0S5" * 100, PLATFORM) is None
    assert time.process_time() - began_s < 5
