"""Engines are judged side by side, by every protocol that the labels allow."""

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
from ocrstream_test_engines import make_picture

from ocrstream.geometry import box_polygon
from training.evaluate import main


def write_photos(folder: Path) -> None:
    boxes = {"Gate B12": (40, 30, 240, 74), "Exit": (300, 30, 420, 74), "x": (40, 200, 120, 244)}
    cv2.imwrite(str(folder / "photo.png"), make_picture(list(boxes.items())))
    regions = [
        {"poly": box_polygon(*box), "text": text, "ignore": text == "x"}
        for text, box in {**boxes, "unseen": (300, 200, 400, 240)}.items()
    ]
    (folder / "gt.jsonl").write_text(json.dumps({"image": "photo.png", "regions": regions}) + "\n")


def test_photos_are_judged_by_all_protocols(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_photos(tmp_path)
    engines = ["--detector", "blocks", "--recognizer", "plain", "--recognizer", "shout"]
    assert main([*engines, "--data", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["photos"] == 1
    assert sorted(report["pairs"]) == ["blocks + plain", "blocks + shout"]
    # Three found of which one is not to count; three to find, one of which is not there.
    detector = report["detectors"]["blocks"]
    for protocol in ("icdar15_iou", "icdar13_deteval"):
        assert detector[protocol] == {"recall": 0.6667, "precision": 1.0, "f": 0.8}
    pair = report["pairs"]["blocks + plain"]
    # gate, b12 and exit of these and unseen.
    assert pair["searchable_words"] == {"recall": 0.75, "precision": 1.0, "f": 0.8571}
    # "Gate B12" is one label, of which neither of the two words that the line is cut into is half and more.
    assert pair["icdar15_iou_words_read"]["precision"] < 1
    assert set(pair["time"]) == {"p50_ms", "p99_ms"}
    assert report["recognizers"]["plain"]["words"] == 66.67
    assert report["recognizers"]["plain"]["crops"] == 3
    # It shouts: right but for its case and its "!".
    assert report["recognizers"]["shout"] == {**report["recognizers"]["shout"], "words": 66.67, "exact": 0.0}


def test_of_photos_that_are_labelled_in_part_only_recall_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photos(tmp_path)
    engines = ["--detector", "blocks", "--recognizer", "plain"]
    assert main([*engines, "--data", str(tmp_path), "--recall-only", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["detectors"]["blocks"]["icdar15_iou"] == {"recall": 0.6667}
    assert report["pairs"]["blocks + plain"]["searchable_words"] == {"recall": 0.75}
    assert report["recognizers"]["plain"]["words"] == 66.67


def test_crops_are_judged_and_shown_as_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), make_picture([("Gate", (0, 0, 120, 44))], (120, 44)))
    (tmp_path / "gt.tsv").write_text("a.png\tGate\na.png\tgat3\n")
    assert main(["--recognizer", "plain", "--data", str(tmp_path)]) == 0
    output = capsys.readouterr().out
    assert "recognizer plain" in output
    assert "50.0" in output
    assert main(["--recognizer", "plain", "--data", str(tmp_path), "--limit", "1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recognizers"]["plain"]["exact"] == 100.0


def test_other_programs_are_judged_on_crops_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = np.full((52, 232, 3), 255, np.uint8)
    cv2.putText(picture, "Station", (20, 40), cv2.FONT_HERSHEY_SIMPLEX, 1.5, (0, 0, 0), 3)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    (tmp_path / "gt.tsv").write_text("a.png\tStation\n")
    # What stands in for it says as Tesseract would how it is asked, and says the same of everything.
    command = tmp_path / "tesseract"
    row = "5\\t1\\t1\\t1\\t1\\t{}\\t8\\t4\\t90\\t40\\t96\\t{}\\n"
    head = "level page_num block_num par_num line_num word_num left top width height conf text".replace(" ", "\\t")
    command.write_text(
        f'#!/bin/sh\n[ "$*" = "stdin stdout --psm 7 tsv" ] || exit 1\ncat > /dev/null\n'
        f"printf '{head}\\n{row.format(1, 'Station')}'\n"
    )
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert main(["--recognizer", "tesseract", "--recognizer", "rapidocr", "--data", str(tmp_path), "--json"]) == 0
    judged = json.loads(capsys.readouterr().out)["recognizers"]
    assert {name: figures["exact"] for name, figures in judged.items()} == {"tesseract": 100.0, "rapidocr": 100.0}


def test_a_detector_cannot_be_judged_on_crops(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "gt.tsv").write_text("")
    assert main(["--detector", "blocks", "--data", str(tmp_path)]) == 2
    assert "has no labels for these engines" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "nothing to judge"),
        (["--detector", "nobody"], "there is no detector 'nobody'"),
        (["--detector", "blocks"], "has neither a gt.jsonl nor a gt.tsv"),
        (["--recognizer", "tesseract"], "tesseract is not installed"),
        (["--recognizer", "crnn", "--threads", "-3"], "threads is -3, and has to be from 0 to"),
        (["--recognizer", "crnn", "--min-confidence", "7"], "min confidence is 7, and has to be from 0 to 1"),
    ],
)
def test_mistakes_get_a_sentence(
    arguments: list[str],
    sentence: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main([*arguments, "--data", str(tmp_path)]) == 2
    assert sentence in capsys.readouterr().err


def test_a_limit_is_a_number_of_1_or_more(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--detector", "blocks", "--data", str(tmp_path), "--limit", "0"])
    assert "a number of 1 or more, not '0'" in capsys.readouterr().err
