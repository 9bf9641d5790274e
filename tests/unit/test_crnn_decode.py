"""CTC decoding against a reading of its definition that goes through every path."""

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from ocrstream.models.crnn.charset import BLANK, LATIN, ORIGINAL, normalise
from ocrstream.models.crnn.decode import (
    beam_reading,
    beam_search,
    choose,
    greedy,
    greedy_reading,
    log_likelihood,
    log_softmax,
    with_numbers,
)

CHARSET = "ab c"


def as_logits(path: str, charset: str) -> NDArray[np.float32]:
    """Logits whose best path is this one, ``-`` for the blank."""
    logits = np.zeros((len(path), len(charset) + 1), dtype=np.float32)
    for step, character in enumerate(path):
        logits[step, BLANK if character == "-" else charset.index(character) + 1] = 9.0
    return logits


def texts_of_all_paths(logits: NDArray[np.float32]) -> dict[str, float]:
    """Each text's probability: the sum over every path that collapses to it, which is CTC's definition."""
    probability = np.exp(log_softmax(logits)).astype(np.float64)
    texts: dict[str, float] = {}
    for path in itertools.product(range(logits.shape[1]), repeat=logits.shape[0]):
        text = "".join(CHARSET[index - 1] for index, _ in itertools.groupby(path) if index != BLANK)
        weight = float(np.prod([probability[step, index] for step, index in enumerate(path)]))
        texts[text] = texts.get(text, 0.0) + weight
    return texts


@pytest.fixture
def logits() -> NDArray[np.float32]:
    return np.random.default_rng(7).normal(0, 2, (6, 5)).astype(np.float32)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        # From the released program's own page, and what its users saw.
        ("a-----v--a-i-l-a-bb-l-ee--", "available"),
        ("a-----v--a-i-l-a-bb-l-e---", "available"),
        ("--------------------------", ""),
        ("aaaaaaaa", "a"),
        ("aa-aa", "aa"),
        ("6mmm66688dzq", "6m68dzq"),
    ],
)
def test_greedy_drops_repeats_and_then_blanks(path: str, text: str) -> None:
    assert greedy(as_logits(path, ORIGINAL), ORIGINAL) == text
    assert greedy_reading(as_logits(path, ORIGINAL), ORIGINAL).text == text


def test_a_reading_has_a_confidence_for_each_of_its_characters_and_words() -> None:
    logits = as_logits(" a-bb - c ", CHARSET)
    logits[3:5] = 0
    logits[3, 2], logits[4, 2] = 1.0, 2.0
    reading = greedy_reading(logits, CHARSET)
    assert reading.text == "ab  c"
    sure = np.exp(9) / (np.exp(9) + 4)
    unsure = [np.exp(x) / (np.exp(x) + 4) for x in (1.0, 2.0)]
    assert reading.characters == pytest.approx((sure, unsure[1], sure, sure, sure), rel=1e-5)
    words = (sure * unsure[1], sure)
    assert reading.confidence == pytest.approx(np.mean(words), rel=1e-3)


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("ØØ-9:2-Ø", "09:20"),
        ("B-Ø-7", "B07"),
        ("Ø-s-t -9", "Øst 9"),
        ("1-2 -S-ø", "12 Sø"),
        ("Øø01", "01"),
        ("09:  4-Ø", "09:40"),
        ("a: 4", "a: 4"),
        ("9 :4", "9:4"),
        ("1: 2 :3: 4", "1:2:3:4"),
        ("R 10 .25", "R 10.25"),
        ("1, 2 .a", "1, 2 .a"),
    ],
)
def test_numbers_are_read_as_what_they_must_be(path: str, text: str) -> None:
    for charset in {LATIN, LATIN if " " in path else LATIN.replace(" ", "")}:
        assert greedy_reading(with_numbers(as_logits(path, charset), charset), charset).text == text


def test_a_zero_with_a_stroke_is_as_sure_as_both_its_readings_together() -> None:
    charset = "0Ø9"
    logits = as_logits("Ø9", charset)
    logits[0] = [0.0, 2.0, 2.1, 0.0]
    assert greedy_reading(logits, charset).text == "Ø9"
    reading = greedy_reading(with_numbers(logits, charset), charset)
    odds = np.exp(2) + np.exp(2.1)
    assert reading.characters[0] == pytest.approx(odds / (odds + 2), rel=1e-5)
    logits[0] = [0.0, 2.1, 2.0, 0.0]
    assert greedy_reading(with_numbers(logits, charset), charset).characters[0] == pytest.approx(reading.characters[0])
    assert np.array_equal(with_numbers(logits, "abc"), logits), "a charset without that letter"


def test_a_temperature_changes_confidences_and_no_text() -> None:
    logits = as_logits("aa-b", CHARSET) / np.float32(3)
    cold, warm = greedy_reading(logits, CHARSET, 0.5), greedy_reading(logits, CHARSET, 2.0)
    assert cold.text == warm.text == "ab"
    assert cold.confidence > greedy_reading(logits, CHARSET).confidence > warm.confidence


@pytest.mark.parametrize("path", ["---", "   ", "- -"])
def test_nothing_is_read_without_confidence(path: str) -> None:
    reading = greedy_reading(as_logits(path, CHARSET), CHARSET)
    assert (reading.text, reading.confidence, reading.characters) == ("", 0.0, ())


def test_the_likelihood_of_a_text_is_the_sum_over_all_its_paths(logits: NDArray[np.float32]) -> None:
    for text, probability in texts_of_all_paths(logits).items():
        labels = [CHARSET.index(character) + 1 for character in text]
        assert log_likelihood(log_softmax(logits), labels) == pytest.approx(np.log(probability), abs=1e-4)


def test_a_text_that_does_not_fit_is_impossible(logits: NDArray[np.float32]) -> None:
    assert log_likelihood(log_softmax(logits), [1] * 4) == -np.inf, "four alike need three blanks between: seven steps"
    assert log_likelihood(log_softmax(logits), [1, 2] * 3) > -np.inf


def test_a_wide_beam_finds_the_likeliest_text_and_its_probability(logits: NDArray[np.float32]) -> None:
    texts = texts_of_all_paths(logits)
    likeliest = max(texts, key=lambda text: texts[text])
    text, weight = beam_search(logits, CHARSET, beams=500)[0]
    assert text == likeliest
    assert weight == pytest.approx(np.log(texts[likeliest]), abs=1e-4)


def test_a_beams_reading_tells_how_sure_it_is_of_each_character() -> None:
    # "B" and "8" share the first step's probability with a blank, then comes a sure "1".
    steps = np.array([[0.4, 0.35, 0.25, 0.0], [0.4, 0.35, 0.25, 0.0], [0.01, 0.0, 0.0, 0.99]], dtype=np.float32)
    logits = np.log(np.maximum(steps, 1e-6)).astype(np.float32)
    assert greedy_reading(logits, "B81").text == "1"
    reading = beam_reading(logits, "B81", beams=8)
    assert reading.text == "B1"
    first, second = reading.characters
    assert second == pytest.approx(0.99, abs=0.01)
    # Of all that can stand there: B twice, or beside a blank, against 8 likewise, both, and neither.
    assert first == pytest.approx((0.35**2 + 2 * 0.35 * 0.4 + 2 * 0.35 * 0.25) / 1.0, abs=0.02)
    assert reading.confidence == pytest.approx(first * second)
    sure = np.log(np.array([[0.02, 0.96, 0.01, 0.01]], dtype=np.float32))
    assert beam_reading(sure, "B81", beams=4) == greedy_reading(sure, "B81")


def test_a_beam_finds_what_greedy_cannot() -> None:
    # Two steps: the best path is blank, blank; but three paths write "a", and together they weigh more.
    logits = np.log(np.array([[0.6, 0.4], [0.6, 0.4]], dtype=np.float32))
    assert greedy(logits, "a") == ""
    ((text, weight), *_) = beam_search(logits, "a", beams=3)
    assert (text, round(float(np.exp(weight)), 4)) == ("a", 0.64)


def test_a_lexicon_is_chosen_from_by_likelihood() -> None:
    logits = as_logits("-h-o-u-s-c-", ORIGINAL)
    logits[9, ORIGINAL.index("e") + 1] = 8.0
    house = choose(logits, ORIGINAL, ["mouse", "house", "horse", "Haus", ""])
    assert house is not None
    assert house.text == "house"
    # What was read is weighed too: a word that stands there less likely is not certain, by its last letter.
    assert 0.0 < house.confidence < 0.5
    assert house.characters == pytest.approx([1, 1, 1, 1, house.confidence], abs=0.01)
    surely = as_logits("-h-o-u-s-e-", ORIGINAL)
    chosen = [choose(surely, ORIGINAL, words) for words in (["mouse", "house"], ["HOUSE"])]
    assert [each and (each.text, each.confidence > 0.9) for each in chosen] == [("house", True)] * 2
    assert choose(logits, ORIGINAL, ["elephant"]) is None


def test_a_lexicon_makes_no_word_of_nothing_and_none_of_a_longer_text() -> None:
    assert choose(as_logits("-----", ORIGINAL), ORIGINAL, ["ok", "at", ""]) is None
    assert choose(as_logits("g-a-t-e-b-1-2-", ORIGINAL), ORIGINAL, ["gate", "a"]) is None


def test_the_charset_has_each_character_once_and_the_space() -> None:
    assert len(set(LATIN)) == len(LATIN) == 305
    assert " " in LATIN
    assert normalise("Cafe\u0301\u00a0 du  Monde\u2212") == "Café du Monde\u2013"
