"""How likely a voted text is right, by engine: of what is said with 0.9, nine in ten are to be right.

Engines differ in what they mean by a confidence: half of what ``ppocr`` reads with 0.93 is right, and nearly all that
``crnn`` reads so. Hence a rule for each, of the same form.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

SUREST = 0.99
"""No recogniser is so much surer than this that it would tell anything."""

MOST_COUNTED = 8
"""Further readings of the same sign make the same mistakes."""


class Evidence(NamedTuple):
    """What tells how likely a voted text is right.

    Attributes:
        confidence: the mean of its characters', 0 to 1.
        readings: how many there are, from 1.
        agreement: the mean share, above 0 and up to 1, that its characters have of what was voted in their places.
    """

    confidence: float
    readings: int
    agreement: float

    def logarithms(self) -> tuple[float, float, float]:
        """The log odds that the confidence gives, and the logarithms of readings and agreement."""
        confidence = min(max(self.confidence, 1.0 - SUREST), SUREST)
        readings = min(self.readings, MOST_COUNTED)
        return math.log(confidence / (1.0 - confidence)), math.log(readings), math.log(self.agreement)


class Calibration(NamedTuple):
    """Weights of the evidence's logarithms, and a constant: their sum is the log odds of being right."""

    constant: float
    of_confidence: float
    of_readings: float
    of_agreement: float

    def probability(self, evidence: Evidence) -> float:
        """How likely a text is right, 0 to 1."""
        confidence, readings, agreement = evidence.logarithms()
        log_odds = self.constant + self.of_confidence * confidence
        log_odds += self.of_readings * readings + self.of_agreement * agreement
        return 1.0 / (1.0 + math.exp(-log_odds))


AS_SAID = Calibration(0.0, 1.0, 0.7, 3.5)
"""For engines that nobody has measured: a single reading is believed, the rest counts about as for the others."""

OF_ENGINE: Mapping[str, Calibration] = {
    "ppocr": Calibration(-3.3, 1.2, 0.7, 4.5),
    "crnn": Calibration(-0.2, 1.0, 0.6, 2.8),
}
"""Logistic regressions on words of clips (`benchmarks.clips`, of ICDAR 2015's training photos), read 1 to 24 times each
with the engines' own weights. Votes of one or two characters are not among them: the photos' labels leave such words
out, so that these would all seem wrong."""


def calibration_of(engine: str) -> Calibration:
    """The calibration of an engine by its name."""
    return OF_ENGINE.get(engine, AS_SAID)
