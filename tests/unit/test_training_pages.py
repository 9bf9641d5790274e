"""Pages that are drawn: every word is where its label says, layouts of every kind, and what judges engines on pages."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import PIL.ImageFont
import pytest
from numpy.typing import NDArray

from ocrstream.geometry import box_polygon, to_polygon
from ocrstream.models import NO_MARGIN, Reading, TextLine
from ocrstream.models.crnn.charset import LATIN
from ocrstream.picture import Image
from training import evaluate, page_reading
from training.folders import Region
from training.pages import PagePainter
from training.synthesis import find_fonts
from training.texts import Texts
from training.writing import Font, Page, Pens, ink_on, luminance, plain


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One font, and word lists."""
    folder = tmp_path_factory.mktemp("pages")
    font = PIL.ImageFont.load_default(20)
    assert isinstance(font, PIL.ImageFont.FreeTypeFont)
    font.path.seek(0)  # type: ignore[union-attr]
    (folder / "DejaVuOne.ttf").write_bytes(font.path.read())  # type: ignore[union-attr]
    (folder / "dict").mkdir()
    (folder / "dict" / "american-english").write_text("house\nriver's\nstreet\nno\nplatform\n")
    return folder


@pytest.fixture(scope="module")
def fonts(folder: Path) -> list[Font]:
    return find_fonts(folder, LATIN, folder / "cache")


@pytest.fixture(scope="module")
def texts(folder: Path) -> Texts:
    return Texts(LATIN, [], folder / "dict")


def differs(picture: Image, ground: int) -> NDArray[np.bool_]:
    return np.asarray(np.abs(picture.astype(int) - ground).max(axis=2) > 40)


def test_what_is_written_lies_in_its_box_and_nothing_else_does(fonts: list[Font]) -> None:
    page = Page(np.full((80, 240, 3), 250, np.uint8))
    pen = Pens(fonts).pen(0, 24, (0, 0, 0), np.random.default_rng(1))
    end = page.write(["no", "Type", "\u4e00", "7"], 20, 40, pen)
    assert [region.text for region in page.regions] == ["no", "Type", "7"]
    ink = differs(page.picture, 250)
    assert 100 < end < 240
    for region in page.regions:
        (x0, y0), (x1, y1) = region.quad.min(axis=0).astype(int), region.quad.max(axis=0).astype(int)
        assert ink[y0:y1, x0:x1].any()
        ink[y0:y1, x0:x1] = False
    assert not ink.any()
    no, typed, seven = (region.quad for region in page.regions)
    # All reach up to the capitals' height, and only what goes below the line is lower.
    assert no[0, 1] == pytest.approx(typed[0, 1], abs=1)
    assert seven[2, 1] == pytest.approx(no[2, 1], abs=1)
    assert typed[2, 1] > no[2, 1] + 3


def test_nothing_is_written_over_text_nor_beyond_an_end(fonts: list[Font]) -> None:
    there = Region(np.array(box_polygon(100, 0, 160, 60), np.float32), "there", False)
    page = Page(np.full((80, 240, 3), 250, np.uint8), [there])
    pen = Pens(fonts).pen(0, 24, (0, 0, 0), np.random.default_rng(1))
    page.write(["street", "street", "street"], 0, 40, pen)
    assert [region.text for region in page.regions] == ["there", "street"]
    page.write(["no", "no"], 165, 40, pen, right=200)
    assert len(page.regions) == 3
    assert not page.board((90, 10, 120, 20), (0, 0, 0))
    assert page.board((0, 60, 50, 79), (0, 0, 0))
    assert (page.picture[:60, 100:160] == 250).all()


def test_ink_can_be_told_from_its_ground() -> None:
    random = np.random.default_rng(3)
    for _ in range(200):
        ground = tuple(random.integers(0, 256, 3).tolist())
        assert abs(luminance(ink_on(ground, random)) - luminance(ground)) > 40


def test_pages_are_of_the_seed_and_their_words_where_their_labels_say(texts: Texts, fonts: list[Font]) -> None:
    painter = PagePainter(texts, fonts)
    backdrop = np.full((192, 192, 3), 120, np.uint8)
    there = Region(np.array(box_polygon(20, 20, 90, 40), np.float32), "there", False)
    kept, empty, words = 0, 0, 0
    for seed in range(80):
        picture, regions = painter.paint(backdrop, [there], np.random.default_rng(seed))
        again, _ = painter.paint(backdrop, [there], np.random.default_rng(seed))
        np.testing.assert_array_equal(picture, again)
        assert picture.shape == (192, 192, 3)
        assert picture.dtype == np.uint8
        kept += any(region.text == "there" for region in regions)
        for region in (region for region in regions if region.text != "there"):
            (x0, y0), (x1, y1) = region.quad.min(axis=0), region.quad.max(axis=0)
            if x0 < 0 or y0 < 0 or x1 > 192 or y1 > 192 or y1 - y0 < 8:
                continue
            piece = picture[int(y0) : int(y1) + 1, int(x0) : int(x1) + 1].astype(int)
            words += 1
            # Dots and dashes have little ink; in everything else something stands out.
            empty += bool(np.ptp(piece, axis=(0, 1)).max() < 25)
    assert 1 <= kept < 40
    assert words > 300
    assert empty < 0.02 * words
    assert (backdrop == 120).all()


def test_running_text_is_mostly_words(texts: Texts) -> None:
    words = texts.sentence(np.random.default_rng(5), 400)
    assert len(words) == 400
    assert all(word and " " not in word for word in words)
    assert sum(word.strip(".,:;?!'s").lower() in {"house", "river", "street", "no", "platform"} for word in words) > 200


# The yardstick


class Seeing:
    """Finds what a page says where it says it; every third word is not seen."""

    margin = NO_MARGIN

    def __init__(self, pages: Sequence[page_reading.DrawnPage]) -> None:
        self._pages = pages
        self.read_next: list[str] = []

    def detect(self, pictures: Sequence[Image]) -> list[list[TextLine]]:
        found = []
        for picture in pictures:
            page = next(page for page in self._pages if np.array_equal(page.picture, picture))
            places = iter(page.places)
            for words in page.lines:
                quads = [next(places) for _ in words]
                seen = [index for index in range(len(words)) if index % 3 != 2]
                polygons = tuple(to_polygon(quads[index]) for index in seen)
                self.read_next += [words[index] for index in seen]
                found.append(TextLine(polygons[0], 0.9, polygons if len(polygons) > 1 else ()))
        return [found]

    def read(self, crops: Sequence[Image]) -> list[Reading]:
        texts, self.read_next = self.read_next[: len(crops)], self.read_next[len(crops) :]
        return [Reading(text, 0.9) for text in texts]


def test_pages_are_always_the_same_and_of_one_size(texts: Texts, fonts: list[Font]) -> None:
    page, again = (page_reading.draw_page(24, 1, texts, fonts) for _ in range(2))
    np.testing.assert_array_equal(page.picture, again.picture)
    assert page.lines == again.lines
    assert sum(map(len, page.lines)) == len(page.places) > 40
    assert len({len(line) for line in page.lines}) > 2
    heights = [np.ptp(place[:, 1]) for place in page.places]
    assert 15 < np.median(heights) < 26
    assert page_reading.draw_page(200, 0, texts, fonts).lines


def test_figures_count_words_and_whole_lines(texts: Texts, fonts: list[Font]) -> None:
    pages = [page_reading.draw_page(48, number, texts, fonts) for number in range(2)]
    seeing = Seeing(pages)
    report = page_reading.judge(seeing, seeing, pages, 0.5)  # type: ignore[arg-type]
    lines = [line for page in pages for line in page.lines]
    words = sum(map(len, lines))
    seen = sum(len(line) - len(line) // 3 for line in lines)
    assert report["lines"] == len(lines)
    assert report["lines_right"] == sum((Counter(map(len, lines)))[count] for count in (1, 2))
    assert report["read"]["recall"] == pytest.approx(seen / words, abs=1e-3)
    assert report["read"]["precision"] == 1.0
    assert report["found"]["recall"] == pytest.approx(seen / words, abs=1e-3)


def test_engines_are_judged_size_by_size(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Blind:
        def detect(self, pictures: Sequence[Image]) -> list[list[TextLine]]:
            return [[] for _ in pictures]

        def read(self, crops: Sequence[Image]) -> list[Reading]:
            return [Reading("", 0.0) for _ in crops]

    blind = Blind()
    monkeypatch.setattr(
        page_reading,
        "load_engines",
        lambda *_: evaluate.Engines({"blind": blind}, {"crnn": blind}, {}),  # type: ignore[dict-item]
    )
    options = ["--detector", "blind", "--fonts", str(folder), "--word-lists", str(folder / "dict")]
    options += ["--cache", str(folder / "cache"), "--pages", "1", "--sizes", "24", "48"]
    assert page_reading.main([*options, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["blind"]["24"]["read"]["recall"] == 0
    assert report["blind"]["24"]["lines"] > report["blind"]["48"]["lines"] > 3
    assert page_reading.main(options) == 0
    assert "0 of" in capsys.readouterr().out
    assert page_reading.main([*options[:2], "--cache", str(folder / "other"), "--fonts", str(folder / "dict")]) == 2
    assert "no font with Latin letters" in capsys.readouterr().err


def test_plain_fonts_are_told_by_their_names(fonts: list[Font]) -> None:
    assert plain([*fonts, ("/x/Ornaments.ttf", frozenset("a"))]) == fonts
