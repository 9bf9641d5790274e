"""The way of a frame through the program, as a table.

Read it from top to bottom and you have seen the whole of it: a source's frames become crops, crops become texts, texts
become documents. Every arrow is a topic; the key keeps one source's records in order on one partition. ``ocr.replay``
joins at the detector, ``ocr.dead-letters`` takes what a stage could not process.

A stage states its part itself, in the ``build`` of its ``stage.py``, since it also runs without this package
(``python -m detector_consumer``), and stages know nothing of what is above them. A test holds the two together
(``test_the_topology_tells_the_truth``): where a stage takes, gives or calls its group otherwise than here, it fails.
"""

from __future__ import annotations

from dataclasses import dataclass

from ocrstream.messages import CROPS, FRAMES, REPLAY, TEXTS


@dataclass(frozen=True, slots=True)
class Row:
    """One stage: its folder, its command, what it takes and gives, its consumer group and the key of what it gives."""

    folder: str
    command: str
    takes: tuple[str, ...]
    gives: str
    group: str | None
    key: str | None


TOPOLOGY = (
    #   folder                 command       takes             gives        consumer group    key
    Row("producers", "produce", (), FRAMES, None, "source_id"),
    Row("detector_consumer", "detect", (FRAMES, REPLAY), CROPS, "ocr-detector", "source_id"),
    Row("recognizer_consumer", "recognize", (CROPS,), TEXTS, "ocr-recognizer", "source_id"),
    Row("indexer", "index", (TEXTS,), "documents", "ocr-indexer", None),
)
