"""What a CRNN can write, and the one place that knows where the CTC blank is."""

from __future__ import annotations

import unicodedata

BLANK = 0
"""The CTC blank's index in the network's output; character i of the charset is at i + 1."""

ORIGINAL = "0123456789abcdefghijklmnopqrstuvwxyz"
"""The released network's characters: case-folded, no space, no punctuation."""

_ASCII = "".join(map(chr, range(0x21, 0x7F)))
_ACCENTED = "ÀÁÂÃÄÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÕÖØÙÚÛÜÝŒŸ" + "ßàáâãäåæçèéêëìíîïñòóôõöøùúûüýÿœ"
_SIGNS = "€£¥§°©®™«»¿¡\u2013\u2014\u2018\u2019“”…•·\u00d7"

_FURTHER = (
    "ĀāĂăĄąĆćĈĉĊċČčĎďĐđĒēĖėĘęĚěĜĝĞğĠġĢģĤĥĦħĪīĮįİıĴĵĶķĹĺĻļĽľŁłŃńŅņŇňŊŋŌōŐőŔŕŖŗŘřŚśŜŝŞşŠšŤťŦŧŪūŬŭŮůŰűŲųŴŵŶŷŹźŻżŽžȘșȚțẞ"
    "ÐÞðþ"
)
_FURTHER_SIGNS = "„\u201a\u2039\u203aªº²³½№±₺"

LATIN = _ASCII + _ACCENTED + _SIGNS + " " + _FURTHER + _FURTHER_SIGNS
"""Our network's characters: the letters of Europe's languages in Latin script, digits, punctuation, and the space."""

_SAME = str.maketrans(
    {
        "\u00a0": " ",
        "\u202f": " ",
        "\u2212": "\u2013",
        "\u00b4": "'",
        "\u02bc": "\u2019",
        "\u2010": "-",
        "\u2011": "-",
        "\ufb01": "fi",
        "\ufb02": "fl",
        # Letters that are drawn as two, and Romanian's t, which fonts draw with a comma whichever is written.
        "\u0132": "IJ",
        "\u0133": "ij",
        "\u013f": "L·",
        "\u0140": "l·",
        "\u0149": "\u2019n",
        "\u0162": "\u021a",
        "\u0163": "\u021b",
    }
)


def normalise(text: str) -> str:
    """A label in the charset's spelling: composed accents, single spaces, one form of each dash and quote."""
    return " ".join(unicodedata.normalize("NFC", text.translate(_SAME)).split())
