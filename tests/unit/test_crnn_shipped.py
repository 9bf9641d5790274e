"""The shipped weights read: rendered words and lines, with spaces, case, digits and accents."""

from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import pytest

from ocrstream.errors import EngineError
from ocrstream.models import EngineOptions, Recognizer, load_recognizer
from ocrstream.models.crnn import CrnnRecognizer
from ocrstream.picture import Image


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return load_recognizer("crnn", EngineOptions(threads=1))


ACCENTS = Path("/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf")
"""Pillow's own font has hardly any accents; this one is in Debian's fonts-dejavu-core."""


def render(text: str, size_px: int = 40, ink: int = 20, ground: int = 235, font_file: Path | None = None) -> Image:
    font = PIL.ImageFont.truetype(font_file, size_px) if font_file else PIL.ImageFont.load_default(size_px)
    left, top, right, bottom = (round(side) for side in font.getbbox(text))
    image = PIL.Image.new("RGB", (right - left + 8, bottom - top + 8), (ground,) * 3)
    PIL.ImageDraw.Draw(image).text((4 - left, 4 - top), text, (ink,) * 3, font)
    return np.asarray(image)[:, :, ::-1].copy()


@pytest.mark.parametrize(
    "text", ["Boarding", "EXIT", "Gate 12", "Flight to Reykjavik", "departure", "2026", "WELCOME HOME"]
)
def test_words_and_lines_are_read(recognizer: Recognizer, text: str) -> None:
    (reading,) = recognizer.read([render(text)])
    assert reading.text == text
    assert reading.confidence > 0.5
    assert len(reading.characters) == len(text)


@pytest.mark.skipif(not ACCENTS.exists(), reason="the font DejaVu Sans is not installed (fonts-dejavu-core)")
@pytest.mark.parametrize(
    "text",
    ["Łódź", "GŁÓWNA", "Győr", "Škoda", "náměstí", "Plzeň", "Çıkış", "Târgu", "Žižkov", "Rīga"],  # noqa: RUF001
)
def test_letters_of_all_europe_are_read(recognizer: Recognizer, text: str) -> None:
    assert recognizer.read([render(text, font_file=ACCENTS)])[0].text == text


def test_light_on_dark_and_small_is_read_too(recognizer: Recognizer) -> None:
    crops = [render("Platform", ink=230, ground=40), render("Platform", size_px=18), render("Platform", ground=110)]
    assert [reading.text for reading in recognizer.read(crops)] == ["Platform"] * 3


def test_confidence_tells_what_can_be_read(recognizer: Recognizer) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (32, 120, 3), dtype=np.uint8)
    clear, nothing = recognizer.read([render("Station"), noise])
    assert clear.confidence > 0.8
    assert nothing.confidence < 0.4


def test_a_lexicon_and_a_beam_read_what_greedy_reads(recognizer: Recognizer) -> None:
    crop = render("Terminal")
    with_words = CrnnRecognizer(EngineOptions(threads=1), lexicon=["Terminus", "Terminal", "Germinal"])
    assert with_words.read([crop])[0].text == "Terminal"
    assert CrnnRecognizer(EngineOptions(threads=1), beams=5).read([crop])[0].text == "Terminal"
    with pytest.raises(EngineError, match="0 prefixes or more, not -3"):
        CrnnRecognizer(EngineOptions(threads=1), beams=-3)
    with pytest.raises(EngineError, match="a lexicon is a list of words"):
        CrnnRecognizer(EngineOptions(threads=1), lexicon="Terminal")


def test_the_engine_tells_its_weights(recognizer: Recognizer) -> None:
    assert recognizer.info.name == "crnn"
    assert len(recognizer.info.weights) == 12
