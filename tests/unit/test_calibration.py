"""The confidence of a vote: what it is made of, for each engine."""

import pytest

from ocrstream.models import recognizer_names
from recognizer_consumer.calibration import AS_SAID, MOST_COUNTED, OF_ENGINE, Calibration, Evidence, calibration_of

CALIBRATIONS = [AS_SAID, *OF_ENGINE.values()]


def test_each_engine_of_this_program_was_measured() -> None:
    assert {"ppocr", "crnn"} <= set(OF_ENGINE) <= set(recognizer_names())
    assert calibration_of("another") is AS_SAID


@pytest.mark.parametrize("said", [0.1, 0.5, 0.9])
def test_a_single_reading_of_an_engine_that_nobody_measured_is_believed(said: float) -> None:
    assert AS_SAID.probability(Evidence(said, 1, 1.0)) == pytest.approx(said)


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_surer_more_and_agreeing_readings_are_more_likely_right(calibration: Calibration) -> None:
    usual = calibration.probability(Evidence(0.9, 3, 0.9))
    assert 0 < calibration.probability(Evidence(0.8, 3, 0.9)) < usual < calibration.probability(Evidence(0.95, 3, 0.9))
    assert calibration.probability(Evidence(0.9, 2, 0.9)) < usual < calibration.probability(Evidence(0.9, 4, 0.9))
    assert calibration.probability(Evidence(0.9, 3, 0.8)) < usual < calibration.probability(Evidence(0.9, 3, 1.0)) < 1


@pytest.mark.parametrize("calibration", CALIBRATIONS)
def test_nothing_is_certain_and_nothing_impossible(calibration: Calibration) -> None:
    most = calibration.probability(Evidence(1.0, MOST_COUNTED, 1.0))
    assert calibration.probability(Evidence(1.0, 10**9, 1.0)) == most < 1
    assert 0 < calibration.probability(Evidence(0.0, 1, 1e-9)) < 0.01


def test_the_engine_counts() -> None:
    evidence = Evidence(0.93, 1, 1.0)
    assert calibration_of("ppocr").probability(evidence) < 0.6
    assert calibration_of("crnn").probability(evidence) > 0.8
