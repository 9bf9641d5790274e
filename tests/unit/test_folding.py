"""The tokeniser and the folding that both stores share."""

import unicodedata

import pytest

from ocrstream.folding import MAX_TOKEN_LENGTH, are_alike, fold, folded_text


def exact_of(text: str) -> list[str]:
    return [token.exact for token in fold(text)]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Café", "cafe"),
        ("Cafe\u0301", "café"),
        ("STRASSE", "Straße"),
        ("Łódź", "lodz"),
        ("GYŐRŰ", "gyoru"),
        ("Đurđevac", "durdevac"),
        ("Iași și Țara", "iasi si tara"),
        ("ŞİŞLİ", "şişli"),
        ("KÖRFEZ Kadıköy", "korfez kadikoy"),  # noqa: RUF001 the dotless i is the case
        ("Děčín Plzeň Ještěd", "decin plzen jested"),
        ("Šiauliai Ąžuolų ėjimas", "siauliai azuolu ejimas"),
        ("Ķēniņš", "kenins"),
        ("Þingvellir Eŋ Ħamrun Ŧ", "thingvellir en hamrun t"),
        ("STRAẞE", "strasse"),
        ("SMØRREBRØD", "smorrebrod"),
        ("B0ARD1NG", "boarding"),
        ("|NFO", "info"),
        ("5TATION", "station"),
        ("modern", "modem"),
        ("WELCOME", "vvelcome"),
        ("GATE", "ＧＡＴＥ"),  # noqa: RUF001 full-width letters are the case
        ("ﬁre", "fire"),
        ("Ⅻ", "xii"),
        ("İstanbul", "ISTANBUL"),
        ("ısı", "isi"),  # noqa: RUF001 the dotless i is the case
        ("٣", "3"),
        ("ガ", "ｶﾞ"),
        ("boar\u00adding", "boarding"),
        ("שָׁלוֹם", "שלום"),
    ],
)
def test_what_looks_or_reads_alike_folds_alike(one: str, other: str) -> None:
    assert folded_text(one) == folded_text(other) != ""


def test_different_words_stay_different() -> None:
    words = ["gate", "gale", "cafe", "b12", "b13", "東", "京", "क", "कि", "ж", "я"]
    assert len({folded_text(word) for word in words}) == len(words)


def test_tokens_know_their_place_in_the_text() -> None:
    text = "  Gate: B-12, 10:30 «Zürich»"
    assert [text[t.start : t.end] for t in fold(text)] == ["Gate", "B", "12", "10", "30", "Zürich"]
    assert exact_of(text) == ["gate", "b", "12", "10", "30", "zürich"]


def test_decomposed_accents_are_inside_the_token() -> None:
    text = unicodedata.normalize("NFD", "Zürich!")
    (token,) = fold(text)
    assert (token.start, token.end, token.exact) == (0, 7, "zürich")


def test_scripts_without_spaces_give_one_token_a_character() -> None:
    assert [t.folded for t in fold("東京駅Gate2番線")] == ["東", "京", "駅", "gate2", "番", "線"]
    assert [t.folded for t in fold("서울역")] == ["서", "울", "역"]
    assert [(t.start, t.end) for t in fold("a東b")] == [(0, 1), (1, 2), (2, 3)]


def test_a_bar_is_a_letter_inside_a_word_and_nothing_alone() -> None:
    assert folded_text("F|RE") == folded_text("fire")
    assert [t.folded for t in fold("a | b || c")] == ["a", "b", "c"]


def test_the_folded_beginning_of_a_word_begins_the_folded_word() -> None:
    for word in ["morning", "mwrnvvi", "Straße", "œuvre", "W1LM"]:
        for end in range(1, len(word)):
            assert folded_text(word).startswith(folded_text(word[:end])), word[:end]


@pytest.mark.parametrize("text", ["", " ", "&", "…", "🚪🚪", "\x00", "\ud800", "\u200b", "\u0301", "|", "\ufe0f"])
def test_what_has_no_letter_gives_no_token(text: str) -> None:
    assert fold(text) == ()


@pytest.mark.parametrize(
    ("text", "other", "is_alike"),
    [
        ("B0AT", "boat", True),
        ("CAM 03", "CAM03", True),
        ("10 .25", "10.25", True),
        ("B1", "B2", False),
        ("&", "+", False),
    ],
)
def test_alike_is_what_a_recogniser_confuses(text: str, other: str, is_alike: bool) -> None:
    assert are_alike(text, other) is is_alike


def test_odd_characters_only_part_words() -> None:
    assert [t.folded for t in fold("a\x00b\ud800c🚪d\ne")] == ["a", "b", "c", "d", "e"]


def test_a_run_without_end_is_cut() -> None:
    tokens = fold("x" * 10_000)
    assert [len(t.folded) for t in tokens] == [MAX_TOKEN_LENGTH] * 100
    assert (tokens[1].start, tokens[1].end) == (100, 200)


def test_every_character_can_be_folded() -> None:
    for code in range(0x3000):
        for token in fold(chr(code)):
            assert token.folded
            assert " " not in token.folded + token.exact
            assert '"' not in token.folded + token.exact
