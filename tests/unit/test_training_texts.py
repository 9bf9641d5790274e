"""What is drawn for training: letters and their forms, word lists of many languages, and texts of them."""

import json
from pathlib import Path

import numpy as np
import PIL.ImageFont
import pytest

from ocrstream.models.crnn.charset import LATIN, normalise

pytest.importorskip("torch", reason="PyTorch is not installed (extra training)")
pytest.importorskip("onnx", reason="the package onnx is not installed (extra training)")

from training import drawn
from training.folders import read_folder
from training.letters import base_letter, capital, is_marked, lower, upper
from training.synthesis import find_fonts
from training.texts import Texts
from training.word_lists import is_held_out, read_word_lists

KNOWN = frozenset(LATIN)


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """Lists as Debian's packages have them: plain ones, and hunspell's with their tables of endings."""
    folder = tmp_path / "lists"
    folder.mkdir()
    (folder / "american-english").write_text("house\nstreet\nwindow\n")
    (folder / "README.select").write_text("no words\n")
    (folder / "cs_CZ.dic").write_text("3\nžluťoučký/ZQ\tpo:adj\nkůň\nязык/A\n", encoding="utf-8")
    (folder / "cs_CZ.aff").write_text("SET UTF-8\n")
    (folder / "et_EE.dic").write_bytes("2\nšokk/Zab\nšnitsel\n".encode("iso8859-15"))
    (folder / "et_EE.aff").write_bytes(b"\xef\xbb\xbfSET ISO8859-15\n")
    (folder / "tr_TR.dic").write_text("2\nişçi/3\nkadıköylü\n", encoding="utf-8")  # noqa: RUF001
    return folder


def test_letters_know_their_plain_form_and_the_charset_has_both() -> None:
    assert "".join(map(base_letter, "ŁőşĞŘțđøßÞÆž€8")) == "LosGRtdoBPÆz€8"
    letters = set(filter(is_marked, LATIN))
    assert len(letters) == 178
    assert all(base_letter(letter) in LATIN for letter in letters)
    # Each has its other case, but for those that are the same, or two letters, there.
    assert {letter for letter in letters if lower(letter) not in KNOWN or upper(letter) not in KNOWN} == set("ß")


def test_capitals_are_written_as_in_the_language() -> None:
    assert [upper(word) for word in ("giriş", "gate", "łódź", "kadıköy")] == ["GİRİŞ", "GATE", "ŁÓDŹ", "KADIKÖY"]  # noqa: RUF001
    assert [lower(word) for word in ("GİRİŞ", "EXIT", "IŞIK")] == ["giriş", "exit", "ışık"]  # noqa: RUF001
    assert [capital(word) for word in ("içiş", "ÎLE", "š", "")] == ["İçiş", "Île", "Š", ""]


def test_what_is_drawn_alike_is_spelt_alike() -> None:
    assert normalise("Ţară ţ Ĳ ĳ Ŀl ŉ") == "Țară ț IJ ij L·l ’n"  # noqa: RUF001


def test_word_lists_are_read_in_their_own_encoding_without_their_flags(lists: Path) -> None:
    found = read_word_lists([lists, lists / "none"], KNOWN)
    assert found == {
        "american-english": ["house", "street", "window"],
        "cs_CZ": ["žluťoučký", "kůň"],
        "et_EE": ["šokk", "šnitsel"],
        "tr_TR": ["işçi", "kadıköylü"],  # noqa: RUF001
    }


def test_a_long_list_is_read_in_part_and_all_over(lists: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (lists / "long").write_text("".join(f"{'abcdefghij'[number % 10]}x{number}\n" for number in range(100)))
    monkeypatch.setattr("training.word_lists.MOST", 20)
    assert read_word_lists([lists], KNOWN)["long"] == [f"{'af'[place % 2]}x{5 * place}" for place in range(20)]


def test_new_letters_are_written_often_in_both_cases_and_held_out_words_never(lists: Path) -> None:
    held = next(word for number in range(1000) if is_held_out(word := f"wø{number}rd"))
    assert is_held_out(held.upper())
    (lists / "norsk").write_text(f"{held}\nsmør\n")
    texts = Texts(LATIN, ["Gate"], [lists])
    chance = np.random.default_rng(5)
    written = [texts.text(chance) for _ in range(6000)]
    assert 0.35 < sum(any(map(is_marked, text)) for text in written) / len(written) < 0.65
    together = "\n".join(written)
    assert held.casefold() not in together.casefold()
    for expected in ("kůň", "ŽLUŤOUČKÝ", "İŞÇİ", "Šokk", "m²", "„", "zł"):
        assert expected in together
    assert set("ŁłŐő№").issubset(together), "letters that no list has are drawn, too"


def test_a_test_set_is_drawn_of_held_out_words_in_held_out_fonts(
    lists: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [word for number in range(4000) if is_held_out(word := f"n{number}x")]
    (lists / "numbers").write_text("\n".join([*words, "other", "words"]))
    fonts = tmp_path / "fonts"
    fonts.mkdir()
    font = PIL.ImageFont.load_default(20)
    assert isinstance(font, PIL.ImageFont.FreeTypeFont)
    font.path.seek(0)  # type: ignore[union-attr]
    (fonts / "two.ttf").write_bytes(font.path.read())  # type: ignore[union-attr]
    arguments = ["--out", str(tmp_path / "drawn"), "--cache", str(tmp_path / "cache"), "--count", "5"]
    arguments += ["--fonts", str(fonts), "--word-lists", str(lists)]
    with pytest.raises(SystemExit):
        drawn.main(arguments)
    assert "none of these fonts is held out" in capsys.readouterr().err
    monkeypatch.setattr(drawn, "held_out", lambda name: name == "two.ttf")
    assert drawn.main(arguments) == 0
    assert capsys.readouterr().out == "numbers: 5 crops\n", "the other lists have hardly any word to hold out"
    crops = read_folder(tmp_path / "drawn" / "numbers_test").words
    assert len(crops) == 5
    assert {word.lower() for crop in crops for word in crop.text.split()} <= set(words)


def test_the_list_of_fonts_is_made_anew_for_another_charset_or_folder(tmp_path: Path) -> None:
    kept = tmp_path / "fonts.json"
    listed = {"folder": str(tmp_path.resolve()), "charset": "abc", "fonts": [["old.ttf", "abc"]]}
    kept.write_text(json.dumps(listed))
    assert find_fonts(tmp_path, "abc", tmp_path) == [("old.ttf", frozenset("abc"))]
    for folder, charset in ((tmp_path, "abcł"), (tmp_path / "empty", "abc")):
        with pytest.raises(Exception, match="no font with Latin letters"):
            find_fonts(folder, charset, tmp_path)
    assert json.loads(kept.read_text()) == listed, "a mistake leaves the list of before"
