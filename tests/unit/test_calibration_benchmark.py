"""The fit of a vote's confidence: what is judged, what is fitted, and what its tables say."""

import numpy as np
import pytest

from benchmarks.calibration import (
    Judged,
    Vote,
    cross_validated,
    fit,
    judge,
    noted_votes,
    reliability,
    said_by,
    surprise,
)
from benchmarks.layers import SeenWord, Word
from ocrstream.geometry import box_polygon
from ocrstream.messages import FrameInfo, Region
from recognizer_consumer.appearing import Sighting
from recognizer_consumer.calibration import Calibration, Evidence
from recognizer_consumer.voting import Ballot

HERE = box_polygon(100, 50, 200, 70)
SURE, UNSURE = Evidence(2.0, 1.0), Evidence(-1.0, 0.5)


def word(text: str, *, ignore: bool = False) -> SeenWord:
    return SeenWord(Word(1, text, HERE, ignore), 1.0)


def drawn(count: int, truth: Calibration, seed: int = 1) -> Judged:
    """Votes that are right as often as a calibration says."""
    rng = np.random.default_rng(seed)
    evidence = np.column_stack([np.ones(count), rng.normal(1.0, 2.0, count), -rng.exponential(0.3, count)])
    likely = 1 / (1 + np.exp(-evidence @ np.array(truth)))
    return Judged(evidence, (rng.random(count) < likely).astype(float), np.ones(count), np.arange(count) % 12)


def test_a_vote_is_judged_by_its_frames_labels_and_an_appearance_weighs_as_much_as_it_has_words() -> None:
    votes = [
        Vote("a", 0, HERE, "open", SURE),
        Vote("a", 1, HERE, "open", SURE),
        Vote("b", 1, HERE, "shut daily", UNSURE),
        Vote("c", 1, HERE, "no", SURE),
    ]
    judged = judge([votes], [[[word("open")], [word("shut")]]])
    assert judged.right.tolist() == [1.0, 0.0, 0.5]
    assert judged.weight.tolist() == [0.5, 0.5, 2.0]
    assert judged.evidence[2].tolist() == [1.0, -1.0, np.log(0.5)]


def test_where_nothing_can_be_judged_that_is_said() -> None:
    with pytest.raises(ValueError, match="three letters"):
        judge([[Vote("a", 0, HERE, "open", SURE)]], [[[word("###", ignore=True)]]])


def test_a_fit_finds_the_rule_that_made_the_votes() -> None:
    truth = Calibration(-0.5, 0.8, 2.0)
    assert fit(drawn(20_000, truth)) == pytest.approx(truth, abs=0.12)


def test_a_fit_ends_where_everything_was_right() -> None:
    judged = drawn(50, Calibration(30.0, 0.0, 0.0))
    assert judged.right.all()
    assert said_by(fit(judged), judged).min() > 0.9


def test_what_is_cross_validated_is_not_judged_by_itself() -> None:
    judged = drawn(600, Calibration(0.0, 1.0, 2.0))
    # The votes of one clip are all wrong: the others know nothing of that.
    judged.right[judged.clip == 0] = 0.0
    mine = judged.clip == 0
    assert cross_validated(judged)[mine].mean() > said_by(fit(judged), judged)[mine].mean()
    assert surprise(said_by(fit(judged), judged), judged) < surprise(cross_validated(judged), judged)


def test_the_table_tells_what_was_said_and_what_was_right() -> None:
    judged = Judged(np.ones((4, 3)), np.array([1.0, 0.0, 1.0, 1.0]), np.array([1.0, 1.0, 2.0, 1.0]), np.zeros(4, int))
    assert reliability(np.array([0.62, 0.68, 0.97, 1.0]), judged) == {
        "0.60-0.70": {"words": 2.0, "said": 0.65, "right": 0.5},
        "0.95-1.00": {"words": 3.0, "said": 0.98, "right": 1.0},
    }


def test_votes_are_noted_after_each_reading() -> None:
    ballot = Ballot()
    with noted_votes() as votes:
        for frame, text in enumerate(("0PEN", "OPEN", "OPEN")):
            at_ns = 10**18 + frame * 10**9 // 30
            info = FrameInfo("f", f"frame-{frame}", at_ns, 640, 360, live=False, media_time_ms=frame * 1000 / 30)
            ballot.count(info, [Sighting(Region(0, HERE, 0.9, "frame-0-000"), text, 0.5 + frame / 10)])
    assert [(vote.frame, vote.text) for vote in votes] == [(0, "0PEN"), (1, "OPEN"), (2, "OPEN")]
    assert votes[0].evidence.agreement == 1.0
    assert votes[0].evidence.log_odds < votes[1].evidence.log_odds < votes[2].evidence.log_odds
    assert {vote.appearance_id for vote in votes} == {"frame-0-000"}
