"""Every message survives its way over the wire, and every kind of damage is named."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from ocrstream.errors import MalformedRecordError
from ocrstream.geometry import Polygon
from ocrstream.messages import (
    Appearance,
    Crop,
    Crops,
    DeadLetter,
    EngineInfo,
    Frame,
    FrameInfo,
    PictureRef,
    RawRecord,
    Region,
    Sight,
    Text,
    Texts,
    Word,
    key_of,
    make_frame_id,
    timestamp_ms_of,
)
from ocrstream.picture import Picture
from ocrstream.wire import (
    META_HEADER,
    SCHEMA_HEADER,
    appearance_from_json,
    appearance_to_json,
    decode,
    encode,
    texts_from_json,
    texts_to_json,
)

POLYGON: Polygon = ((1.5, 2.0), (40.25, 3.0), (40.0, 12.0), (1.0, 11.0))


def png(width_px: int, height_px: int, shade: int) -> bytes:
    ok, data = cv2.imencode(".png", np.full((height_px, width_px, 3), shade, dtype=np.uint8))
    assert ok
    return data.tobytes()


INFO = FrameInfo(
    source_id="camera é",
    frame_id="f" * 24,
    captured_at_ns=1_700_000_000_123_456_789,
    width_px=50,
    height_px=20,
    live=True,
    media_time_ms=1234.5,
    path="a/b.png",
    segment=3,
    generation=77,
    detector="ctpn",
    recognizer="crnn",
    picture=PictureRef("ocr.frames", 2, 99),
    taken_at_ns=1_700_000_000_200_000_000,
)
FRAME = Frame(INFO, Picture.from_encoded(png(50, 20, 7)))
DETECTOR, RECOGNIZER = EngineInfo("ppocr", "abcdef012345"), EngineInfo("crnn", "543210fedcba")
CROPS = Crops(
    INFO,
    DETECTOR,
    (
        Crop(
            Region(0, POLYGON, 0.75, "track-1"),
            (Picture.from_encoded(png(30, 8, 10)),),
            before=(Sight(3, None, POLYGON), Sight(4, 1.5, POLYGON)),
        ),
        Crop(
            Region(4, POLYGON, 0.5, words=(POLYGON, POLYGON)),
            (Picture.from_encoded(png(9, 31, 20)), Picture.from_encoded(png(12, 31, 30))),
        ),
    ),
)
APPEARANCE = Appearance(
    track_id="track-1",
    source_id="camera é",
    text="GATE B12",
    confidence=0.875,
    first_at_ns=5,
    last_at_ns=9,
    first_ms=None,
    last_ms=4.5,
    best_frame_id="f" * 24,
    readings=3,
    path=((0.5, POLYGON), (4.5, POLYGON)),
    closed=True,
    generation=77,
)
TEXTS = Texts(
    INFO,
    DETECTOR,
    RECOGNIZER,
    (
        Text(
            Region(0, POLYGON, 0.75, "track-1"),
            "GATE B12",
            0.9,
            (Word("GATE", POLYGON, 0.9), Word("B12", POLYGON, 0.8)),
        ),
        Text(Region(2, POLYGON, 0.5), "“日本” \u0000", 0.25),
    ),
    (APPEARANCE,),
)


def test_a_frame_goes_and_comes_back() -> None:
    record = encode(FRAME)
    assert record.value == png(50, 20, 7)
    assert record.headers[SCHEMA_HEADER] == b"frame/1"
    back = decode(record)
    assert isinstance(back, Frame)
    assert back.info == INFO
    assert back.info.taken_at_ns == INFO.taken_at_ns
    assert back.picture.size_wh() == (50, 20)


def test_a_frame_of_pixels_is_sent_as_jpeg() -> None:
    pixels = np.full((20, 50, 3), 200, dtype=np.uint8)
    record = encode(Frame(INFO, Picture.from_array(pixels)))
    assert record.value[:2] == b"\xff\xd8"
    back = decode(record)
    assert isinstance(back, Frame)
    assert back.picture.array().shape == (20, 50, 3)
    assert abs(int(back.picture.array()[0, 0, 0]) - 200) < 5


def test_optional_fields_stay_empty() -> None:
    bare = FrameInfo("s", "f", 1, 50, 20, live=False)
    back = decode(encode(Frame(bare, FRAME.picture)))
    assert isinstance(back, Frame)
    assert back.info == bare
    assert back.info.picture is None


def test_crops_go_and_come_back_each_with_its_own_picture() -> None:
    back = decode(encode(CROPS))
    assert isinstance(back, Crops)
    assert (back.info, back.detector) == (INFO, DETECTOR)
    assert [crop.region for crop in back.crops] == [crop.region for crop in CROPS.crops]
    assert [crop.pictures[0].size_wh() for crop in back.crops] == [(30, 8), (9, 31)]
    assert [int(crop.pictures[0].array()[0, 0, 0]) for crop in back.crops] == [10, 20]


def test_a_frame_without_text_is_crops_without_any() -> None:
    empty = Crops(INFO, DETECTOR, ())
    assert encode(empty).value == b""
    assert decode(encode(empty)) == empty


def test_texts_go_and_come_back() -> None:
    record = encode(TEXTS)
    assert META_HEADER not in record.headers
    assert decode(record) == TEXTS
    assert texts_from_json(json.loads(json.dumps(texts_to_json(TEXTS)))) == TEXTS
    assert TEXTS.text == "GATE B12\n“日本” \u0000"


def test_an_appearance_goes_and_comes_back() -> None:
    assert appearance_from_json(json.loads(json.dumps(appearance_to_json(APPEARANCE)))) == APPEARANCE
    assert APPEARANCE.version == (77, 9)


def test_a_dead_letter_keeps_the_record_untouched() -> None:
    record = RawRecord("key", b"\x00\xff", {SCHEMA_HEADER: b"frame/9", "x": b"\x80"}, 123)
    letter = DeadLetter("ocr.frames", 3, 14, "detector", "unknown schema", "Traceback …", record)
    assert decode(encode(letter)) == letter
    assert (key_of(letter), timestamp_ms_of(letter)) == ("key", 123)


def test_key_and_timestamp() -> None:
    assert key_of(FRAME) == "camera é#3"
    assert replace(INFO, segment=None).key == "camera é"
    assert encode(TEXTS).key == "camera é#3"
    assert timestamp_ms_of(FRAME) == 1_700_000_000_123


def test_frame_ids_tell_frames_apart() -> None:
    assert make_frame_id("a", 1) == make_frame_id("a", 1)
    assert len(make_frame_id("a", 1)) == 24
    assert len({make_frame_id("a", 1), make_frame_id("a", 2), make_frame_id("b", 1), make_frame_id("a", 1, 2)}) == 4
    assert make_frame_id("ab", "c") != make_frame_id("a", "bc")


def with_meta(record: RawRecord, **changes: Any) -> RawRecord:
    """The record with other metadata; a name like ``frame__live`` reaches inside, None-like ``...`` removes."""
    meta = json.loads(record.headers[META_HEADER]) if META_HEADER in record.headers else json.loads(record.value)
    for name, value in changes.items():
        *outer, last = name.split("__")
        target = meta
        for part in outer:
            target = target[int(part)] if part.isdigit() else target[part]
        if value is ...:
            del target[last]
        else:
            target[last] = value
    dumped = json.dumps(meta).encode()
    if META_HEADER in record.headers:
        return replace(record, headers={**record.headers, META_HEADER: dumped})
    return replace(record, value=dumped)


def with_header(record: RawRecord, name: str, value: bytes | None) -> RawRecord:
    headers = {**record.headers, name: value}
    return replace(record, headers={key: content for key, content in headers.items() if content is not None})


FRAME_RECORD, CROPS_RECORD, TEXTS_RECORD = encode(FRAME), encode(CROPS), encode(TEXTS)
LETTER_RECORD = encode(DeadLetter("ocr.frames", 3, 14, "detector", "why", "", RawRecord("k", b"v", {}, 1)))

DAMAGED: dict[str, tuple[RawRecord, str]] = {
    "no schema": (with_header(FRAME_RECORD, SCHEMA_HEADER, None), "no ocr-schema header: it was not written by"),
    "later schema": (with_header(FRAME_RECORD, SCHEMA_HEADER, b"frame/2"), "unknown schema 'frame/2'; this version"),
    "schema of bytes": (with_header(FRAME_RECORD, SCHEMA_HEADER, b"\xff"), "unknown schema"),
    "no metadata": (with_header(FRAME_RECORD, META_HEADER, None), "no ocr-meta header"),
    "no JSON": (with_header(FRAME_RECORD, META_HEADER, b"{"), "the metadata is not JSON"),
    "no UTF-8": (with_header(FRAME_RECORD, META_HEADER, b'{"a": "\xff"}'), "the metadata is not JSON"),
    "deep JSON": (with_header(FRAME_RECORD, META_HEADER, b"[" * 200_000), "the metadata is not JSON"),
    "a list": (with_header(FRAME_RECORD, META_HEADER, b"[]"), "JSON list, not an object"),
    "texts of no JSON": (replace(TEXTS_RECORD, value=b"\x00"), "the metadata is not JSON"),
    "no source": (with_meta(FRAME_RECORD, source_id=...), "'source_id' of frame/1 should be a string, got None"),
    "empty source": (with_meta(FRAME_RECORD, source_id=""), "'source_id' of frame/1 should have 1 to 200"),
    "long id": (with_meta(FRAME_RECORD, frame_id="x" * 201), "'frame_id' of frame/1 should have 1 to 200"),
    "text for time": (with_meta(FRAME_RECORD, captured_at_ns="1"), "'captured_at_ns' of frame/1 should be a whole"),
    "fractional time": (with_meta(FRAME_RECORD, captured_at_ns=1.5), "'captured_at_ns' of frame/1 should be a whole"),
    "negative time": (with_meta(FRAME_RECORD, captured_at_ns=-1), "should be 0 to 9223372036854775807, got -1"),
    "time beyond 2262": (with_meta(FRAME_RECORD, captured_at_ns=2**63), "should be 0 to 9223372036854775807"),
    "live as number": (with_meta(FRAME_RECORD, live=1), "'live' of frame/1 should be true or false, got 1"),
    "width as truth": (with_meta(FRAME_RECORD, width_px=True), "'width_px' of frame/1 should be a whole number"),
    "empty frame": (with_meta(FRAME_RECORD, width_px=0), "the image is empty"),
    "giant frame": (with_meta(FRAME_RECORD, height_px=20_000), "50x20000 pixels; at most 16384 a side"),
    "endless time": (with_meta(FRAME_RECORD, media_time_ms=float("inf")), "'media_time_ms' of frame/1 should be fin"),
    "time beyond all numbers": (with_meta(FRAME_RECORD, media_time_ms=10**400), "'media_time_ms' of frame/1 should be"),
    "long schema": (with_header(FRAME_RECORD, SCHEMA_HEADER, b"x" * 10**6), "; this version reads frame/1"),
    "generation 0": (with_meta(FRAME_RECORD, generation=0), "'generation' of frame/1 should be 1 to"),
    "picture reference": (with_meta(FRAME_RECORD, picture=7), "frame/1.picture should be an object, got 7"),
    "picture offset": (with_meta(FRAME_RECORD, picture__offset=-1), "'offset' of frame/1.picture should be 0 to"),
    "no image": (replace(FRAME_RECORD, value=b"GIF, honestly"), "not an image (13 bytes)"),
    "empty image": (replace(FRAME_RECORD, value=b""), "not an image (0 bytes)"),
    "crops without frame": (with_meta(CROPS_RECORD, frame=...), "crops/1.frame should be an object, got None"),
    "crops no list": (with_meta(CROPS_RECORD, crops={}), "'crops' of crops/1 should be a list"),
    "crop of no object": (with_meta(CROPS_RECORD, crops=[3]), "crops/1.crops[0] should be an object, got 3"),
    "crops cut off": (replace(CROPS_RECORD, value=CROPS_RECORD.value[:-1]), "the crops' images are cut off at byte"),
    "bytes left over": (replace(CROPS_RECORD, value=CROPS_RECORD.value + b"xy"), "2 bytes follow the last crop's"),
    "crop of no bytes": (
        with_meta(CROPS_RECORD, crops__0__bytes=[0]),
        "'bytes' of crops/1.crops[0] should hold whole numbers",
    ),
    "word without an image": (
        with_meta(CROPS_RECORD, crops__0__words=[POLYGON, POLYGON]),
        "line 0 has 1 images for 2 words",
    ),
    "crop no image": (replace(CROPS_RECORD, value=b"-" * len(CROPS_RECORD.value)), "not an image"),
    "three points": (
        with_meta(CROPS_RECORD, crops__1__polygon=[[0, 0], [1, 0], [1, 1]]),
        "polygon of crops/1.crops[1]: a polygon has four finite points, got shape (3, 2)",
    ),
    "points of text": (
        with_meta(CROPS_RECORD, crops__0__polygon=["a", "b", "c", "d"]),
        "polygon of crops/1.crops[0]",
    ),
    "ragged points": (with_meta(CROPS_RECORD, crops__0__polygon=[[0], [1, 2], 3, 4]), "polygon of crops/1.crops[0]"),
    "many points": (
        with_meta(CROPS_RECORD, crops__0__polygon=[[0, 0]] * 10_000),
        "got shape (10000, 2): [[0.0, 0.0],",
    ),
    "points beyond all numbers": (
        with_meta(CROPS_RECORD, crops__0__polygon=[[10**400, 0]] * 4),
        "polygon of crops/1.crops[0]: int too large",
    ),
    "score over 1": (with_meta(CROPS_RECORD, crops__0__detector_score=1.01), "'detector_score' of crops/1.crops[0]"),
    "confidence": (with_meta(TEXTS_RECORD, lines__1__confidence=-0.1), "'confidence' of texts/1.lines[1] should be 0"),
    "text no string": (with_meta(TEXTS_RECORD, lines__0__text=None), "'text' of texts/1.lines[0] should be a string"),
    "a line twice": (with_meta(TEXTS_RECORD, lines__1__line_number=0), "the lines' numbers should rise"),
    "engine without name": (with_meta(TEXTS_RECORD, detector__name=""), "'name' of texts/1.detector should have 1 to"),
    "path of the track": (
        with_meta(TEXTS_RECORD, appearances__0__path=[[1.0]]),
        "field 'path' of texts/1.appearances[0] should be [time, polygon] pairs",
    ),
    "endless path": (
        with_meta(TEXTS_RECORD, appearances__0__path=[[float("nan"), POLYGON]]),
        "field 'path' of texts/1.appearances[0] should be [time, polygon] pairs",
    ),
    "path beyond all numbers": (
        with_meta(TEXTS_RECORD, appearances__0__path=[[10**400, POLYGON]]),
        "field 'path' of texts/1.appearances[0] should be [time, polygon] pairs",
    ),
    "readings": (with_meta(TEXTS_RECORD, appearances__0__readings=0), "'readings' of texts/1.appearances[0] should"),
    "letter's offset": (with_meta(LETTER_RECORD, offset="x"), "'offset' of dead-letter/1 should be a whole number"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_record_says_what_is_wrong(kind: str) -> None:
    record, message = DAMAGED[kind]
    with pytest.raises(MalformedRecordError) as caught:
        decode(record)
    assert message in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("depth", range(900, 1010, 5))
def test_lists_within_lists_are_damage_at_every_depth(depth: int) -> None:
    nested = b'{"width_px": ' + b"[" * depth + b"]" * depth + b"}"
    with pytest.raises(MalformedRecordError):
        decode(with_header(FRAME_RECORD, META_HEADER, nested))


def test_half_characters_travel_as_question_marks() -> None:
    info = replace(FRAME.info, source_id="caf\udce9", path="caf\udce9.png")
    frame = decode(encode(replace(FRAME, info=info)))
    assert isinstance(frame, Frame)
    assert (frame.info.source_id, frame.info.path) == ("caf?", "caf?.png")
    assert make_frame_id("caf\udce9") != make_frame_id("caf\udce8")


def test_damaged_documents_say_what_is_wrong() -> None:
    with pytest.raises(MalformedRecordError, match=r"field 'lines' of texts/1 should be a list"):
        texts_from_json({})
    with pytest.raises(MalformedRecordError, match="appearance: field 'track_id' of appearance should be a string"):
        appearance_from_json({})


def test_a_picture_cut_in_the_middle_is_found_when_it_is_decoded() -> None:
    whole = png(50, 20, 7)
    frame = decode(replace(FRAME_RECORD, value=whole[: len(whole) // 2]))
    assert isinstance(frame, Frame)
    with pytest.raises(MalformedRecordError, match="damaged"):
        frame.picture.array()
