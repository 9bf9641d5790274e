"""How surely votes are right, and the rule of `recognizer_consumer.calibration` that says so best.

    python -m benchmarks.calibration CLIPS_DIR [--recognizer crnn] [--detector ctpn] [--kinds still …]

CLIPS_DIR holds what `benchmarks.clips` makes; a rule that is to be shipped is fitted on clips of photos and seeds that
nothing else is measured on. Each vote is judged after each of its readings by the labels of that frame, as in
`benchmarks.pairs`; the votes of one appearance together weigh as much as their text has words. The table of the fit is
cross-validated: a clip's votes are judged by the rule that the other clips give.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks.clips import ALL_KINDS, load_labels
from benchmarks.environment import environment
from benchmarks.layers import FPS, SeenWord
from benchmarks.pairs import pairs, said_words
from benchmarks.realtime import find_clips, read_with_ocrstream
from benchmarks.recording import add_save_flag, conclude
from ocrstream.errors import OcrstreamError
from ocrstream.geometry import Polygon
from ocrstream.messages import FrameInfo
from recognizer_consumer.appearing import OpenAppearance, Sighting
from recognizer_consumer.calibration import Calibration, Evidence, calibration_of

BOUNDS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0)
FOLDS = 6

RIDGE = 0.01
"""Of so many votes' weight is the belief that no evidence tells anything: without it a fit may not end."""

MOST_STEPS = 50


class Vote(NamedTuple):
    """What the readings of an appearance said together at a time."""

    appearance_id: str
    frame: int
    polygon: Polygon
    text: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Judged:
    """Votes that say words which can be judged.

    Attributes:
        evidence: ``(N, 3)``: 1, the mean log odds, the logarithm of the agreement; what a calibration weighs.
        right: ``(N,)``, the share of each one's words that are right, 0 to 1.
        weight: ``(N,)``.
        clip: ``(N,)``, the number of the clip each is from.
    """

    evidence: NDArray[np.float64]
    right: NDArray[np.float64]
    weight: NDArray[np.float64]
    clip: NDArray[np.int64]

    def part(self, chosen: NDArray[np.bool_]) -> Judged:
        """Some of them."""
        return Judged(self.evidence[chosen], self.right[chosen], self.weight[chosen], self.clip[chosen])


@contextmanager
def noted_votes() -> Iterator[list[Vote]]:
    """All votes of appearances of video files, after each reading that is counted meanwhile."""
    votes: list[Vote] = []
    add = OpenAppearance.add

    def noting(appearance: OpenAppearance, info: FrameInfo, line: Sighting) -> None:
        add(appearance, info, line)
        frame = round((info.media_time_ms or 0.0) * FPS / 1000)
        text, evidence = appearance.winner().text, appearance.consensus.evidence()
        votes.append(Vote(appearance.appearance_id, frame, line.region.polygon, text, evidence))

    with patch.object(OpenAppearance, "add", noting):
        yield votes


def judge(votes: Sequence[Sequence[Vote]], labels: Sequence[Sequence[Sequence[SeenWord]]]) -> Judged:
    """Judge the votes of clips by their frames' labels.

    Raises:
        ValueError: there is none that could be judged.
    """
    evidence, right, weight, clips = [], [], [], []
    for clip, (mine, seen) in enumerate(zip(votes, labels, strict=True)):
        counts = [pairs([seen[vote.frame]], [said_words(vote.text, vote.polygon)]) for vote in mine]
        judged = [(vote, count) for vote, count in zip(mine, counts, strict=True) if count.said]
        of_appearance = Counter(vote.appearance_id for vote, _ in judged)
        for vote, count in judged:
            evidence.append((1.0, vote.evidence.log_odds, np.log(vote.evidence.agreement)))
            right.append(count.right / count.said)
            weight.append(count.said / of_appearance[vote.appearance_id])
            clips.append(clip)
    if not evidence:
        raise ValueError("nothing was read of these clips that has three letters or digits and more")
    return Judged(np.array(evidence), np.array(right), np.array(weight), np.array(clips))


def fit(judged: Judged) -> Calibration:
    """The rule under which these votes are most likely: logistic regression, by Newton's method."""
    evidence, weights = judged.evidence, np.zeros(judged.evidence.shape[1])
    for _ in range(MOST_STEPS):
        said = _probability(weights, evidence)
        slope = evidence.T @ (judged.weight * (judged.right - said)) - RIDGE * weights
        bend = (evidence.T * (judged.weight * said * (1 - said))) @ evidence + RIDGE * np.eye(len(weights))
        step = np.linalg.solve(bend, slope)
        weights = weights + step
        if np.abs(step).max() < 1e-8:
            break
    return Calibration(*(round(float(weight), 2) for weight in weights))


def said_by(calibration: Calibration, judged: Judged) -> NDArray[np.float64]:
    """How likely a calibration says each vote is right, ``(N,)``, 0 to 1."""
    return _probability(np.array(calibration), judged.evidence)


def cross_validated(judged: Judged) -> NDArray[np.float64]:
    """The same by the rules that votes of other clips give."""
    said = np.full(len(judged.right), 0.5)
    for fold in range(FOLDS):
        mine = judged.clip % FOLDS == fold
        if mine.any() and not mine.all():
            said[mine] = said_by(fit(judged.part(~mine)), judged.part(mine))
    return said


def reliability(said: NDArray[np.float64], judged: Judged) -> dict[str, dict[str, float]]:
    """For each range of what was said: how many words' votes lie in it, what was said, and what was right."""
    table = {}
    for low, high in itertools.pairwise(BOUNDS):
        inside = (said >= low) & ((said < high) | (high == BOUNDS[-1]))
        if weight := float(judged.weight[inside].sum()):
            table[f"{low:.2f}-{high:.2f}"] = {
                "words": round(weight, 1),
                "said": round(float((said * judged.weight)[inside].sum()) / weight, 3),
                "right": round(float((judged.right * judged.weight)[inside].sum()) / weight, 3),
            }
    return table


def surprise(said: NDArray[np.float64], judged: Judged) -> float:
    """The mean negative logarithm of how likely it was said to be what it is: the lower the better."""
    bounded = np.clip(said, 1e-6, 1 - 1e-6)
    losses = judged.right * np.log(bounded) + (1 - judged.right) * np.log(1 - bounded)
    return round(float(-(losses * judged.weight).sum() / judged.weight.sum()), 4)


def _probability(weights: NDArray[np.float64], evidence: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 / (1 + np.exp(-evidence @ weights)), np.float64)


def measure(videos: Sequence[Path], detector: str, recognizer: str) -> dict[str, Any]:
    """Read clips, and fit a rule to the votes on them.

    Raises:
        ValueError: as in `judge`.
    """
    settings = {
        "OCRSTREAM_DETECTOR_ENGINE": detector,
        "OCRSTREAM_DETECTOR_READ": "new",
        "OCRSTREAM_RECOGNIZER_ENGINE": recognizer,
        # What is not sure enough to be told is to be judged, too.
        "OCRSTREAM_RECOGNIZER_MIN_CONFIDENCE": "0",
    }
    votes, labels = [], []
    for video in videos:
        seen = load_labels(video.with_suffix(".jsonl"))
        with noted_votes() as mine:
            read_with_ocrstream(video, len(seen), settings)
        print(f"{video.name}: {len(mine)} votes", flush=True)
        votes.append(mine)
        labels.append(seen)
    judged = judge(votes, labels)
    now = said_by(calibration_of(recognizer), judged)
    fitted = cross_validated(judged)
    return {
        "now": {"surprise": surprise(now, judged), "rule": str(calibration_of(recognizer))},
        "now, said and right": reliability(now, judged),
        "fitted": {"surprise": surprise(fitted, judged), "rule": str(fit(judged))},
        "fitted, said and right": reliability(fitted, judged),
    }


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, fit and report; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.calibration",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("clips", type=Path, metavar="CLIPS_DIR", help="what benchmarks.clips made")
    parser.add_argument("--recognizer", default="crnn", help="the engine whose votes these are")
    parser.add_argument("--detector", default="ctpn", help="what finds the lines")
    parser.add_argument("--kinds", nargs="+", choices=ALL_KINDS, default=list(ALL_KINDS), help="only these kinds")
    add_save_flag(parser)
    options = parser.parse_args(argv)
    circumstances = environment("ocrstream", "onnxruntime", "numpy")
    try:
        figures = measure(find_clips(options.clips, options.kinds), options.detector, options.recognizer)
    except ValueError as error:
        parser.error(str(error))
    except OcrstreamError as error:
        sys.exit(str(error))
    conclude(f"calibration-{options.recognizer}", circumstances, figures, save=options.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
