"""The benchmark counts searchable words as its protocol says."""

import json
from pathlib import Path

import numpy as np

from benchmarks.accuracy import Engine, ReadText, compare
from ocrstream.geometry import box_polygon
from ocrstream.picture import encode_jpeg
from training.folders import read_folder
from training.protocols import words_of


def region(text: str, left: int, ignore: bool = False) -> dict[str, object]:
    return {"poly": [[left, 0], [left + 20, 0], [left + 20, 10], [left, 10]], "text": text, "ignore": ignore}


def engine(*lines: ReadText) -> Engine:
    return lambda picture: list(lines)


def test_words_are_runs_of_three_letters_or_digits() -> None:
    assert words_of("Gate B12: it's OPEN-24") == ["gate", "b12", "open"]


def test_two_engines_are_judged_on_the_same_photos(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(encode_jpeg(np.zeros((20, 100, 3), dtype=np.uint8)))
    labels = [region("Gate", 0), region("B12", 20), region("B12", 40), region("to", 60), region("###", 80, ignore=True)]
    (tmp_path / "gt.jsonl").write_text(json.dumps({"image": "photo.jpg", "regions": labels}) + "\n")
    result = compare(
        read_folder(tmp_path).photos,
        {
            # The don't-care region's text does not count against precision; "extra" does.
            "good": engine((box_polygon(0, 0, 40, 10), "GATE b12"), (box_polygon(82, 2, 98, 9), "blurred")),
            "poor": engine((box_polygon(0, 0, 20, 10), "gate extra")),
        },
    )
    expected = {"labelled": 2, "found": 2, "read": 2, "recall": 1.0, "precision": 1.0, "f": 1.0}
    assert {name: result["good"][name] for name in expected} == expected
    assert result["good"]["only_here"] == ["photo.jpg:b12"]
    expected = {"labelled": 2, "found": 1, "read": 2, "recall": 0.5, "precision": 0.5, "f": 0.5}
    assert {name: result["poor"][name] for name in expected} == expected
    assert result["poor"]["only_here"] == []
