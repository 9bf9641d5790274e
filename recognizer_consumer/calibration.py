"""How likely a voted text is right, by engine: of what is said with 0.9, nine in ten are to be right.

Engines differ in what they mean by a confidence: half of what ``ppocr`` reads with 0.93 is right, and most of what
``crnn`` reads so. Hence a rule for each, of the same form, fitted by `benchmarks.calibration`.

How many readings there are tells nothing: they are of the same sign, mostly of the same view of it, and make the same
mistakes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

SUREST = 0.99
"""No recogniser is so much surer than this that it would tell anything."""


class Evidence(NamedTuple):
    """What tells how likely a voted text is right.

    Attributes:
        log_odds: the mean of its readings' log odds, see `log_odds`.
        agreement: the mean share, above 0 and up to 1, that its characters have of what was voted in their places.
    """

    log_odds: float
    agreement: float


class Calibration(NamedTuple):
    """A constant, and weights of the mean log odds and of the agreement's logarithm: the log odds of being right."""

    constant: float
    of_log_odds: float
    of_agreement: float

    def probability(self, evidence: Evidence) -> float:
        """How likely a text is right, 0 to 1."""
        sum_ = self.constant + self.of_log_odds * evidence.log_odds + self.of_agreement * math.log(evidence.agreement)
        return _probability(sum_)

    def reading_for(self, probability: float) -> float:
        """The confidence, to three places, of readings that agree and are so likely right together; both 0 to 1."""
        return round(_probability((log_odds(probability) - self.constant) / self.of_log_odds), 3)


AS_SAID = Calibration(0.0, 1.0, 3.0)
"""For engines that nobody has measured: a single reading is believed, the rest counts about as for the others."""

OF_ENGINE: Mapping[str, Calibration] = {
    "ppocr": Calibration(-3.29, 1.16, 0.51),
    "crnn": Calibration(0.76, 0.86, 7.59),
}
"""As ``python -m benchmarks.calibration`` fits them, on clips of ICDAR 2015's training photos. Words of one or two
characters are not among them: the photos' labels leave such words out, so that these would all seem wrong."""


def calibration_of(engine: str) -> Calibration:
    """The calibration of an engine by its name."""
    return OF_ENGINE.get(engine, AS_SAID)


def _probability(odds: float) -> float:
    """What has these log odds."""
    return 1.0 / (1.0 + math.exp(-odds))


def log_odds(confidence: float) -> float:
    """The log odds of a confidence, 0 to 1, which is taken for no surer than `SUREST`, in either way."""
    bounded = min(max(confidence, 1.0 - SUREST), SUREST)
    return math.log(bounded / (1.0 - bounded))
