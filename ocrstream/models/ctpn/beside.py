"""Single characters beside a word: of the ``7`` in ``Gate 7`` the network is never as sure as of a word.

A leaf or a stroke alone looks as much like a character as a character does. Right before or behind a word that is
sure, as high as it and on its line, it hardly is anything else.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ocrstream.models.ctpn.decode import NO_WORDS, DecodeRule, Words, decode, side_by_side
from ocrstream.models.ctpn.joining import Strokes, following

CELL_SCORE = 0.2
"""A faint cell is text above this. What more than that keeps apart from its neighbours is looked for at the rule's own
score, too."""

WORD_SCORE = 0.3
"""A faint word counts from this mean of its cells' scores on."""

LENGTHS = 0.15, 1.3
"""How long a character or two are, in text heights, from and to."""

COVERED = 0.3
"""Of which so much lies under known words is a piece of them."""


def decode_with_faint(output: NDArray[np.float32], rule: DecodeRule) -> tuple[Words, Words]:
    """The words in a network's output, and what may be single characters there, words and pieces of them among it.

    Args:
        output: ``(6, h, w) float32``, as of `decode`.
        rule: the words' own thresholds.
    """
    fainter = replace(rule, word_score=min(WORD_SCORE, rule.word_score))
    found = decode(output, fainter)
    faint = side_by_side(found, decode(output, replace(fainter, cell_score=min(CELL_SCORE, rule.cell_score))))
    strokes = Strokes.of(faint.quads)
    shortest, longest = LENGTHS
    length = np.linalg.norm(strokes.end - strokes.start, axis=1)
    is_short = (length >= shortest * strokes.height) & (length <= longest * strokes.height)
    return found.of(found.scores >= rule.word_score), faint.of(is_short)


def with_those_beside(words: Words, candidates: Words) -> Words:
    """Words, and those of the candidates that stand right before or behind one.

    Args:
        words: of one picture.
        candidates: of the same, as `decode_with_faint` gives them; where they lie over each other, the surest counts.
    """
    if not len(words.quads):
        return words
    alone = candidates.of(candidates.share_under(words) <= COVERED)
    chosen = NO_WORDS
    for index in np.argsort(-alone.scores, kind="stable"):
        candidate = alone.of(np.array([index]))
        if candidate.share_under(chosen)[0] <= COVERED:
            chosen = side_by_side(chosen, candidate)
    known = len(words.quads)
    nexts = following(Strokes.of(side_by_side(words, chosen).quads))
    beside = [after - known for before, after in nexts.items() if before < known <= after]
    beside += [before - known for before, after in nexts.items() if after < known <= before]
    return side_by_side(words, chosen.of(np.array(sorted(set(beside)), dtype=np.intp)))
