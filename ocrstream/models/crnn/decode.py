"""Text out of timesteps, in NumPy: greedy CTC, a beam search, and a lexicon."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ocrstream.models.crnn.charset import BLANK


def greedy(logits: NDArray[np.float32], charset: str) -> str:
    """The best character of each timestep, repeats and then blanks dropped.

    Args:
        logits: ``(T, C)``; anything that grows with probability.
        charset: C - 1 characters, without the blank.
    """
    best = logits.argmax(axis=1)
    kept = best != BLANK
    kept[1:] &= best[1:] != best[:-1]
    return "".join(charset[index - 1] for index in best[kept].tolist())
