"""The query language: what is understood, and what it matches."""

import random

import pytest

from ocrstream.errors import QueryError
from ocrstream.query import EVERYTHING, And, Fuzzy, Not, Or, Phrase, parse

SIGN = ["Gate B12", "München → Zürich", "BOARDING 10:30", "", "東京駅"]


def word(text: str) -> Phrase:
    return Phrase((text,), (text,))


def test_a_query_becomes_a_tree() -> None:
    assert parse('gate -bus OR "a b" pl*').root == Or(
        (And((word("gate"), Not(word("bus")))), And((Phrase(("a", "b"), ("a", "b")), Phrase(("pl",), ("pl",), True))))
    )
    assert parse("(a OR b) gate~").root == And((Or((word("a"), word("b"))), Fuzzy("gate", "gate")))
    assert parse("-(a b)").root == Not(And((word("a"), word("b"))))
    assert parse("10:30").root == Phrase(("lo", "3o"), ("10", "30"))
    assert parse("B-12*").root == Phrase(("b", "l2"), ("b", "12"), True)
    assert parse("“a b”").root == Phrase(("a", "b"), ("a", "b"))
    assert parse("bed-breakfast~").root == And((Fuzzy("bed", "bed"), Fuzzy("breakfast", "breakfast")))


@pytest.mark.parametrize("text", ["", "   ", "*", " * "])
def test_an_empty_query_is_everything(text: str) -> None:
    query = parse(text)
    assert query.root == EVERYTHING
    assert not query.is_ranked
    assert query.match([]) == {}
    assert query.match(SIGN) == {}


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ('"gate b12', "closing quote"),
        ("(gate", "never closed"),
        ("gate OR", "both sides"),
        ("OR gate", "both sides"),
        ("gate OR OR b12", "both sides"),
        ("&&&", "no letter or digit"),
        ('""', "no letter or digit"),
        (")", "no letter or digit"),
        ("-", "no letter or digit"),
        ("🚪", "no letter or digit"),
        ("x" * 1001, "1001 characters"),
        ("(" * 30 + "a" + ")" * 30, "nested"),
    ],
)
def test_what_cannot_be_understood_says_why(text: str, part: str) -> None:
    with pytest.raises(QueryError, match=part):
        parse(text)


@pytest.mark.parametrize("text", ["gate & b12", "gate - b12", "gate ) b12", "gate -- b12", "gate () b12"])
def test_punctuation_beside_words_is_ignored(text: str) -> None:
    assert parse(text).root == And((word("gate"), Phrase(("bl2",), ("b12",))))


def test_lower_case_or_and_quoted_or_are_words() -> None:
    assert parse("or").root == word("or")
    assert parse('"OR"').root == word("or")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("gate", {0: ((0, 4),)}),
        ("GATE zurich", {0: ((0, 4),), 1: ((10, 16),)}),
        ("b12 gate", {0: ((0, 4), (5, 8))}),
        ('"gate b12"', {0: ((0, 8),)}),
        ('"b12 munchen"', {0: ((5, 8),), 1: ((0, 7),)}),
        ('"b12 gate"', None),
        ("gate -boarding", None),
        ("gate -closed", {0: ((0, 4),)}),
        ("-closed", {}),
        ("closed OR 10:30", {2: ((9, 14),)}),
        ("gate OR b12", {0: ((0, 4), (5, 8))}),
        ("board*", {2: ((0, 8),)}),
        ("boardnig~", {2: ((0, 8),)}),
        ("bordnig~", {2: ((0, 8),)}),
        ("brdnig~", None),
        ("gete~", {0: ((0, 4),)}),
        ("gat~", {0: ((0, 4),)}),
        ("ge~", None),
        ("BI2", {0: ((5, 8),)}),
        ("3O", {2: ((12, 14),)}),
        ("京駅", {4: ((1, 3),)}),
        ("駅京", None),
        ('"10:30 東京"', {2: ((9, 14),), 4: ((0, 2),)}),
        ("(closed OR gate) -(b13 OR b14)", {0: ((0, 4),)}),
        ("gate gate", {0: ((0, 4),)}),
        ("platform", None),
    ],
)
def test_matching(text: str, expected: dict[int, tuple[tuple[int, int], ...]] | None) -> None:
    assert parse(text).match(SIGN) == expected


def test_a_line_that_does_not_count_parts_a_phrase() -> None:
    query = parse('"gate b12"')
    assert query.match(["gate", None, "b12"]) is None
    assert query.match(["gate", "", "b12"]) == {0: ((0, 4),), 2: ((0, 3),)}
    assert parse("gate").match([None]) is None


def test_only_branches_that_fit_are_marked() -> None:
    assert parse("gate closed OR boarding").match(SIGN) == {2: ((0, 8),)}


def test_the_wider_query_finds_all_that_the_query_finds_in_fewer_lines() -> None:
    assert parse("gate -closed").without_exclusions().root == word("gate")
    assert parse("-closed").without_exclusions().root == EVERYTHING
    assert parse("gate OR -closed").without_exclusions().root == EVERYTHING
    assert parse("(gate OR bus) -closed").without_exclusions().root == Or((word("gate"), word("bus")))


@pytest.mark.parametrize(
    ("text", "expected"),
    [("gate", True), ("-gate", False), ("gate -bus", True), ("gate OR -bus", False), ("-(-gate)", True), ("", False)],
)
def test_whether_there_is_something_to_rank_by(text: str, expected: bool) -> None:
    assert parse(text).is_ranked is expected


def test_no_text_breaks_the_parser() -> None:
    generator = random.Random(7)
    pieces = ['"', "(", ")", "-", "OR", "*", "~", " ", "gate", "b12", "東京", "“", "\x00", "\ud800", "é"]
    for _ in range(3000):
        text = "".join(generator.choices(pieces, k=generator.randrange(12)))
        try:
            query = parse(text)
        except QueryError:
            continue
        found = query.match(SIGN)
        assert found is None or all(0 <= a < b <= len(SIGN[n]) for n, spans in found.items() for a, b in spans)
