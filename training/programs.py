"""Whole programs that others wrote, to be judged beside this one's engines: a picture in, its lines out."""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
from collections.abc import Callable
from typing import Any

import cv2

from ocrstream.errors import EngineError
from ocrstream.geometry import Polygon, box_polygon, to_polygon
from ocrstream.picture import Image

Program = Callable[[Image], list[tuple[Polygon, str]]]

SPARSE_TEXT = "11"
"""Tesseract's page segmentation that looks for as much text as possible in no order: a photo is no page."""


def tesseract() -> Program:
    """Tesseract as its Debian package installs it, by its command.

    Raises:
        EngineError: it is not there.
    """
    command = shutil.which("tesseract")
    if command is None:
        raise EngineError("tesseract is not installed: apt-get install tesseract-ocr")

    def read(picture: Image) -> list[tuple[Polygon, str]]:
        encoded = cv2.imencode(".bmp", picture)[1].tobytes()
        arguments = [command, "stdin", "stdout", "--psm", SPARSE_TEXT, "tsv"]
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
    from rapidocr import RapidOCR

    pipeline: Any = RapidOCR(params={"Global.log_level": "error"})

    def read(picture: Image) -> list[tuple[Polygon, str]]:
        output = pipeline(picture)
        if output.boxes is None:
            return []
        return [(to_polygon(box), text) for box, text in zip(output.boxes, output.txts, strict=True)]

    return read


PROGRAMS: dict[str, Callable[[], Program]] = {"tesseract": tesseract, "rapidocr": rapidocr}
