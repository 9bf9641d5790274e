"""The confidence of a vote: what it is made of, for each engine."""

import math

import pytest

from ocrstream.models import recognizer_names
from recognizer_consumer.calibration import (
    AS_SAID,
    OF_ENGINE,
    SUREST,
    Calibration,
    Evidence,
    calibration_of,
    log_odds,
)

CALIBRATIONS = [AS_SAID, *OF_ENGINE.values()]


def evidence(confidence: float, agreement: float = 1.0) -> Evidence:
    return Evidence(log_odds(confidence), agreement)


def test_each_engine_of_this_program_was_measured() -> None:
    assert {"ppocr", "crnn"} <= set(OF_ENGINE) <= set(recognizer_names())
    assert calibration_of("another") is AS_SAID


@pytest.mark.parametrize("said", [0.1, 0.5, 0.9])
def test_a_single_reading_of_an_engine_that_nobody_measured_is_believed(said: float) -> None:
    assert AS_SAID.probability(evidence(said)) == pytest.approx(said)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_surer_and_agreeing_readings_are_more_likely_right(calibration: Calibration) -> None:
    usual = calibration.probability(evidence(0.9, 0.9))
    assert 0 < calibration.probability(evidence(0.8, 0.9)) < usual < calibration.probability(evidence(0.95, 0.9))
    assert calibration.probability(evidence(0.9, 0.8)) < usual < calibration.probability(evidence(0.9, 1.0)) < 1


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_nothing_is_certain_and_nothing_impossible(calibration: Calibration) -> None:
    assert calibration.probability(evidence(1.0)) == calibration.probability(evidence(SUREST)) < 1
    assert 0 < calibration.probability(evidence(0.0, 1e-9)) < 0.01


def test_log_odds_of_shares_known_by_hand() -> None:
    assert log_odds(0.5) == 0
    assert log_odds(0.75) == pytest.approx(math.log(3))
    assert log_odds(0.25) == -log_odds(0.75)


def test_the_engine_counts() -> None:
    assert calibration_of("ppocr").probability(evidence(0.93)) < 0.7
    assert calibration_of("crnn").probability(evidence(0.93)) > 0.8
