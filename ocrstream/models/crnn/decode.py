"""Text out of timesteps, in NumPy: greedy CTC, a beam search, and the choice from a lexicon.

Probabilities come from the logits divided by a temperature, which is fitted on a validation split (Guo et al., On
Calibration of Modern Neural Networks, 2017, section 4.2) and stored with the weights.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray
from rapidfuzz.distance import Levenshtein

from ocrstream.models import Reading
from ocrstream.models.crnn.charset import BLANK

Floats = NDArray[np.float32]

LEXICON_DISTANCE = 3
"""Only words this close to the greedy text are weighed (the paper's delta, section 2.3.3)."""

_IMPOSSIBLE = -np.inf


def log_softmax(logits: Floats, temperature: float = 1.0) -> Floats:
    """The logarithm of each class's probability, ``(T, C)``."""
    scaled = logits / np.float32(temperature)
    scaled = scaled - scaled.max(axis=1, keepdims=True)
    normal: Floats = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
    return normal


def greedy(logits: Floats, charset: str) -> str:
    """The best character of each timestep, repeats and then blanks dropped.

    Args:
        logits: ``(T, C)``; anything that grows with probability.
        charset: C - 1 characters, without the blank.
    """
    best = logits.argmax(axis=1)
    return "".join(charset[index - 1] for index in best[_kept(best)].tolist())


def greedy_reading(logits: Floats, charset: str, temperature: float = 1.0) -> Reading:
    """The greedy text with its confidences.

    A character's confidence is its probability at the surest of its timesteps. A word's is the product of its
    characters', and the text's the mean of its words': the share of its words that should be right.

    Args:
        logits: ``(T, C) float32``.
        charset: C - 1 characters, without the blank.
        temperature: what the logits are divided by.
    """
    best = logits.argmax(axis=1)
    log_sure = log_softmax(logits, temperature).max(axis=1)
    kept = _kept(best)
    characters = [charset[index - 1] for index in best[kept].tolist()]
    first = next((place for place, character in enumerate(characters) if character != " "), None)
    if first is None:
        return Reading("", 0.0)
    last = len(characters) - next(place for place, character in enumerate(characters[::-1]) if character != " ")
    # From one character to the next: the steps that repeat it count, the blanks after it do not.
    starts = np.flatnonzero(kept)
    inside = np.where(best != BLANK, log_sure, _IMPOSSIBLE)
    sure = np.exp(np.maximum.reduceat(inside, starts))
    text = "".join(characters[first:last])
    confidences = tuple(min(float(value), 1.0) for value in sure[first:last])
    return _reading(text, confidences)


def with_numbers(logits: Floats, charset: str) -> Floats:
    """The same logits, where numbers are read as what they must be: on clocks, boards and in a camera's own dates.

    A zero with a stroke is a zero: in a word that holds digits, Ø is no letter, and what speaks for either speaks for
    the zero. And where digits are as wide as a colon or a point, no space follows a colon between two digits, and none
    goes before either.

    Args:
        logits: ``(T, C) float32``; they are not written to.
        charset: C - 1 characters, without the blank.
    """
    best = logits.argmax(axis=1)
    digits = [charset.index(character) + 1 for character in "0123456789" if character in charset]
    strokes = [charset.index(character) + 1 for character in "Øø" if character in charset]
    zero, space, colon = (charset.find(character) + 1 or None for character in "0 :")
    marks = [charset.index(character) + 1 for character in ":.," if character in charset]
    if not np.isin(best, [*strokes, *marks, *([zero] if zero else [])]).any():
        return logits
    changed = logits.copy()

    def move(steps: NDArray[np.intp], origins: Sequence[int], to: int) -> None:
        both = np.array([*origins, to])
        changed[steps, to] = np.logaddexp.reduce(logits[steps][:, both], axis=1)
        changed[steps[:, None], np.array(origins)] = _IMPOSSIBLE

    if zero and strokes:
        words = np.cumsum(best == space) if space else np.zeros(len(best))
        is_number = np.isin(words, words[np.isin(best, digits)])
        move(np.flatnonzero(is_number & np.isin(best, [*strokes, zero])), strokes, zero)
    if space:
        numerals, starts = [*digits, *strokes], np.flatnonzero(_kept(best))
        for before, one, two, after in zip(starts, starts[1:], starts[2:], starts[3:], strict=False):
            if best[before] not in numerals or best[after] not in numerals:
                continue
            if best[one] == colon and best[two] == space:
                gap = np.arange(two, after)
            elif best[one] == space and best[two] in marks:
                gap = np.arange(one, two)
            else:
                continue
            move(gap[best[gap] == space], [space], BLANK)
    return changed


def _kept(best: NDArray[np.intp]) -> NDArray[np.bool_]:
    kept: NDArray[np.bool_] = best != BLANK
    kept[1:] &= best[1:] != best[:-1]
    return kept


def _reading(text: str, characters: Sequence[float]) -> Reading:
    """A reading by the confidence of each of its characters; of a word that is their product."""
    start, words = 0, []
    for word in text.split(" "):
        if word:
            words.append(math.prod(characters[start : start + len(word)]))
        start += len(word) + 1
    return Reading(text, sum(words) / len(words), tuple(characters), tuple(words) if len(words) > 1 else ())


def beam_search(logits: Floats, charset: str, beams: int = 10, temperature: float = 1.0) -> list[tuple[str, float]]:
    """The likeliest texts, best first, each with the logarithm of its probability over all its paths.

    Prefix search (Graves et al., 2006, section 3.2) that follows the best prefixes only.

    Args:
        logits: ``(T, C) float32``.
        charset: C - 1 characters, without the blank.
        beams: prefixes followed.
        temperature: what the logits are divided by.
    """
    log_probability = log_softmax(logits, temperature).astype(np.float64)
    # Each prefix with the logarithms of ending in a blank and of ending in its last character.
    prefixes: dict[tuple[int, ...], tuple[float, float]] = {(): (0.0, _IMPOSSIBLE)}
    for step in log_probability:
        candidates = np.argpartition(-step, min(beams, len(step) - 1))[: beams + 1]
        grown: dict[tuple[int, ...], list[float]] = defaultdict(lambda: [_IMPOSSIBLE, _IMPOSSIBLE])
        for prefix, (in_blank, in_character) in prefixes.items():
            both = float(np.logaddexp(in_blank, in_character))
            same = grown[prefix]
            same[0] = float(np.logaddexp(same[0], both + step[BLANK]))
            if prefix:
                same[1] = float(np.logaddexp(same[1], in_character + step[prefix[-1]]))
            for index in candidates.tolist():
                if index == BLANK:
                    continue
                # The same character again is a new one only after a blank.
                before = in_blank if prefix and index == prefix[-1] else both
                longer = grown[(*prefix, index)]
                longer[1] = float(np.logaddexp(longer[1], before + step[index]))
        ranked = sorted(grown.items(), key=lambda item: -float(np.logaddexp(item[1][0], item[1][1])))
        prefixes = {prefix: (ends[0], ends[1]) for prefix, ends in ranked[:beams]}
    return [
        ("".join(charset[index - 1] for index in prefix), float(np.logaddexp(*ends)))
        for prefix, ends in prefixes.items()
    ]


def beam_reading(logits: Floats, charset: str, beams: int = 10, temperature: float = 1.0) -> Reading:
    """The likeliest text with its confidences.

    They are the greedy reading's, whose characters it has but for a few. Of those its confidence is the share of the
    probability of all texts that were followed to the end which those have that say so, too.

    Args:
        logits: ``(T, C) float32``.
        charset: C - 1 characters, without the blank.
        beams: prefixes followed, 1 or more.
        temperature: what the logits are divided by.
    """
    reading = greedy_reading(logits, charset, temperature)
    followed = [(text.strip(), weight) for text, weight in beam_search(logits, charset, beams, temperature)]
    text = followed[0][0]
    if not text or text == reading.text:
        return reading
    weights = np.array([weight for _, weight in followed])
    shares = np.exp(weights - np.logaddexp.reduce(weights))
    sure = _said(text, zip(shares.tolist(), (other for other, _ in followed), strict=True))
    for block in Levenshtein.editops(text, reading.text).as_matching_blocks():
        sure[block.a : block.a + block.size] = reading.characters[block.b : block.b + block.size]
    return _reading(text, sure)


def _said(text: str, shares: Iterable[tuple[float, str]]) -> list[float]:
    """For each character of a text, the probability of those texts that have it, too, aligned by edit distance."""
    said = np.zeros(len(text))
    for share, other in shares:
        for block in Levenshtein.editops(text, other).as_matching_blocks():
            said[block.a : block.a + block.size] += share
    sure: list[float] = np.minimum(said, 1.0).tolist()
    return sure


def log_likelihood(log_probability: Floats, labels: Sequence[int]) -> float:
    """The logarithm of a labelling's probability over all its paths (the same paper's forward variables, section 4.1).

    Args:
        log_probability: ``(T, C)``, of `log_softmax`.
        labels: class indices, without blanks; minus infinity where they do not fit into T steps.
    """
    extended = np.full(2 * len(labels) + 1, BLANK)
    extended[1::2] = labels
    emitted = log_probability[:, extended].astype(np.float64)
    # A path may skip the blank between two characters that differ.
    skips = np.zeros(len(extended), dtype=bool)
    skips[2:] = (extended[2:] != BLANK) & (extended[2:] != extended[:-2])
    forward = np.full(len(extended), _IMPOSSIBLE)
    forward[:2] = emitted[0, :2]
    for step in emitted[1:]:
        moved = forward.copy()
        moved[1:] = np.logaddexp(moved[1:], forward[:-1])
        moved[2:] = np.where(skips[2:], np.logaddexp(moved[2:], forward[:-2]), moved[2:])
        forward = moved + step
    return float(np.logaddexp.reduce(forward[-2:]))


def choose(logits: Floats, charset: str, lexicon: Iterable[str], temperature: float = 1.0) -> Reading | None:
    """The word of a lexicon that is likeliest, among those near the greedy text; nothing where none is near.

    Near is what shares at least half of the letters: where nothing is read there is no word.

    Args:
        logits: ``(T, C) float32``.
        charset: C - 1 characters, without the blank.
        lexicon: words; those with characters that the charset lacks are passed over.
        temperature: what the logits are divided by.

    Returns:
        The word as it is written there (in capitals, say). Its confidence is its probability among those weighed: the
        words that are near, and what was read; a character's is that of all those which say so, too.
    """
    read = greedy(logits, charset)
    index = {character: place + 1 for place, character in enumerate(charset)}
    near = [word for word in lexicon if word and _is_near(read.casefold(), word.casefold())]
    written = dict.fromkeys(form for word in near for form in (word, word.upper(), word.lower(), word.capitalize()))
    words = [word for word in written if all(character in index for character in word)]
    if not words:
        return None
    # Or the only word that is near would be certain, whatever stands there.
    weighed = [*words, read] if read not in words else words
    log_probability = log_softmax(logits, temperature)
    weights = np.array([log_likelihood(log_probability, [index[character] for character in word]) for word in weighed])
    best = int(weights[: len(words)].argmax())
    if weights[best] == _IMPOSSIBLE:
        return None
    shares = np.exp(weights - np.logaddexp.reduce(weights))
    sure = _said(words[best], zip(shares.tolist(), weighed, strict=True))
    return Reading(words[best], float(shares[best]), tuple(sure))


def _is_near(read: str, word: str) -> bool:
    most = min(LEXICON_DISTANCE, len(read) // 2, len(word) // 2)
    return Levenshtein.distance(read, word, score_cutoff=most) <= most
