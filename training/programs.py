"""Whole programs that others wrote, to be judged beside this one's engines.

A picture in, its lines out (`PROGRAMS`); or a line's crop in, its text out (`READERS`), as a recogniser.
"""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from collections.abc import Callable, Sequence
from typing import Any

import cv2

from ocrstream.errors import EngineError
from ocrstream.geometry import Polygon, box_polygon, to_polygon
from ocrstream.messages import EngineInfo
from ocrstream.models import Reading
from ocrstream.picture import Image

Program = Callable[[Image], list[tuple[Polygon, str]]]

SPARSE_TEXT, ONE_LINE = "11", "7"
"""Tesseract's page segmentations: as much text as possible in no order, since a photo is no page; and a single line."""


def tesseract(layout: str = SPARSE_TEXT) -> Program:
    """Tesseract as its Debian package installs it, by its command.

    Args:
        layout: its page segmentation.

    Raises:
        EngineError: it is not there.
    """
    command = shutil.which("tesseract")
    if command is None:
        raise EngineError("tesseract is not installed: apt-get install tesseract-ocr")

    def read(picture: Image) -> list[tuple[Polygon, str]]:
        encoded = cv2.imencode(".bmp", picture)[1].tobytes()
        arguments = [command, "stdin", "stdout", "--psm", layout, "tsv"]
        done = subprocess.run(arguments, input=encoded, capture_output=True, check=False)  # noqa: S603
        if done.returncode:
            raise EngineError(f"tesseract failed: {done.stderr.decode(errors='replace').strip()}")
        return parse_table(done.stdout.decode(errors="replace"))

    return read


def parse_table(table: str) -> list[tuple[Polygon, str]]:
    """The words in Tesseract's ``tsv`` output."""
    words = []
    for row in csv.DictReader(io.StringIO(table), delimiter="\t", quoting=csv.QUOTE_NONE):
        text = (row.get("text") or "").strip()
        if text and float(row["conf"]) >= 0:
            left, top, width, height = (float(row[name]) for name in ("left", "top", "width", "height"))
            words.append((box_polygon(left, top, left + width, top + height), text))
    return words


def rapidocr() -> Program:
    """RapidOCR's own pipeline at its default settings."""
    pipeline = _rapidocr()

    def read(picture: Image) -> list[tuple[Polygon, str]]:
        output = pipeline(picture)
        if output.boxes is None:
            return []
        return [(to_polygon(box), text) for box, text in zip(output.boxes, output.txts, strict=True)]

    return read


def _rapidocr() -> Any:
    from rapidocr import RapidOCR

    return RapidOCR(params={"Global.log_level": "error"})


def tesseract_lines() -> Callable[[Image], str]:
    """Tesseract on a crop of one line; raises as `tesseract` does."""
    read = tesseract(ONE_LINE)
    return lambda crop: " ".join(text for _, text in read(crop))


def rapidocr_lines() -> Callable[[Image], str]:
    """RapidOCR's own recognition alone."""
    pipeline = _rapidocr()
    return lambda crop: " ".join(pipeline(crop, use_det=False, use_cls=False, use_rec=True).txts or ())


class Reader:
    """A program as a `ocrstream.models.Recognizer`: it reads crops one by one, and tells nothing of how sure it is.

    Args:
        name: one of `READERS`.

    Raises:
        EngineError: it is not installed.
    """

    def __init__(self, name: str) -> None:
        self.info = EngineInfo(name, "")
        self._read = READERS[name]()

    def read(self, crops: Sequence[Image]) -> list[Reading]:
        """What each crop says; an empty crop says nothing."""
        return [Reading(self._read(crop) if crop.size else "", 1.0) for crop in crops]


PROGRAMS: dict[str, Callable[[], Program]] = {"tesseract": tesseract, "rapidocr": rapidocr}
READERS: dict[str, Callable[[], Callable[[Image], str]]] = {"tesseract": tesseract_lines, "rapidocr": rapidocr_lines}
