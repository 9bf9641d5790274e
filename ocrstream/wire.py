"""How messages look as records: on Kafka, in the dead letters' files, in exports.

==========  ===============  ======================================================================
message     topic            record value
==========  ===============  ======================================================================
Frame       ``ocr.frames``   the encoded image itself, so that any Kafka tool can show it
            ``ocr.replay``   the same, for frames that are to be read again
Crops       ``ocr.crops``    the crops' encoded images one after the other; all crops of one frame
Texts       ``ocr.texts``    the metadata, JSON
DeadLetter  ``ocr.dead-      the value of the record that could not be processed, untouched
            letters``
==========  ===============  ======================================================================

Every record carries the header ``ocr-schema`` (``frame/1``, ``crops/1``, …) and, but for Texts, ``ocr-meta`` with the
metadata as JSON. Key = the message's ``key`` (the source), timestamp = capture time. ``docs/messages.md`` is the
reference for people who read or write these topics with other programs.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from ocrstream.errors import MalformedRecordError
from ocrstream.fields import Fields
from ocrstream.geometry import polygon_of
from ocrstream.messages import (
    FIRST_READING,
    Appearance,
    Crop,
    Crops,
    DeadLetter,
    EngineInfo,
    Frame,
    FrameInfo,
    Message,
    PictureRef,
    RawRecord,
    Region,
    Sight,
    Text,
    Texts,
    Word,
    key_of,
    timestamp_ms_of,
)
from ocrstream.picture import Picture, check_size

SCHEMA_HEADER = "ocr-schema"
META_HEADER = "ocr-meta"

_DAMAGE = (ValueError, OverflowError, RecursionError)
"""What reading a damaged value can raise: wrong ones, numbers beyond all bounds, lists within lists without end."""


def encode(message: Message) -> RawRecord:
    """The record of a message; pictures that are still arrays are encoded here."""
    schema, meta, value = _ENCODERS[type(message)](message)
    headers = {SCHEMA_HEADER: schema.encode()}
    if value is None:
        value = _dump(meta)
    else:
        headers[META_HEADER] = _dump(meta)
    if isinstance(message, DeadLetter):
        headers |= {f"original-{name}": content for name, content in message.record.headers.items()}
    return RawRecord(key_of(message), value, headers, timestamp_ms_of(message))


def decode(record: RawRecord) -> Message:
    """The message of a record.

    Raises:
        MalformedRecordError: it is no record of this program; the message names the header or field that is wrong.
    """
    schema = record.headers.get(SCHEMA_HEADER)
    if schema is None:
        raise MalformedRecordError(f"the record has no {SCHEMA_HEADER} header: it was not written by ocrstream")
    name = schema.decode("utf-8", "replace")
    decoder = _DECODERS.get(name)
    if decoder is None:
        raise MalformedRecordError(f"unknown schema {name!r:.80}; this version reads {', '.join(_DECODERS)}")
    raw_meta = record.value if name == "texts/1" else record.headers.get(META_HEADER)
    if raw_meta is None:
        raise MalformedRecordError(f"the record has no {META_HEADER} header")
    try:
        meta = json.loads(raw_meta)
    except (ValueError, RecursionError) as error:
        raise MalformedRecordError(f"the metadata is not JSON: {error}") from error
    if not isinstance(meta, dict):
        raise MalformedRecordError(f"the metadata is a JSON {type(meta).__name__}, not an object")
    try:
        return decoder(Fields(meta, name), record)
    except _DAMAGE as error:
        raise MalformedRecordError(f"{name}: {error}") from error


def frame_to_json(info: FrameInfo) -> dict[str, Any]:
    """A frame's identity as a JSON object; `frame_from_json` takes it back."""
    meta: dict[str, Any] = {
        "source_id": info.source_id,
        "frame_id": info.frame_id,
        "captured_at_ns": info.captured_at_ns,
        "width_px": info.width_px,
        "height_px": info.height_px,
        "live": info.live,
        "media_time_ms": info.media_time_ms,
        "path": info.path,
        "segment": info.segment,
        "generation": info.generation,
        "detector": info.detector,
        "recognizer": info.recognizer,
        "taken_at_ns": info.taken_at_ns,
    }
    if info.picture is not None:
        meta["picture"] = {
            "topic": info.picture.topic,
            "partition": info.picture.partition,
            "offset": info.picture.offset,
        }
    return meta


def frame_from_json(meta: Mapping[str, Any]) -> FrameInfo:
    """A frame's identity from the object that `frame_to_json` makes.

    Raises:
        MalformedRecordError: a field is missing or of the wrong kind; the message names it.
    """
    try:
        return _frame_info(Fields(meta, "frame"))
    except _DAMAGE as error:
        raise MalformedRecordError(f"frame: {error}") from error


def texts_to_json(texts: Texts) -> dict[str, Any]:
    """The metadata of `Texts` as a JSON object; `texts_from_json` takes it back."""
    return {
        "frame": frame_to_json(texts.info),
        "detector": _engine_meta(texts.detector),
        "recognizer": _engine_meta(texts.recognizer),
        "lines": [
            {
                **_region_meta(line.region),
                "text": line.text,
                "confidence": line.confidence,
                "words": words_to_json(line.words),
            }
            for line in texts.lines
        ],
        "appearances": [appearance_to_json(appearance) for appearance in texts.appearances],
        "kept": texts.is_kept,
    }


def texts_from_json(meta: Mapping[str, Any]) -> Texts:
    """`Texts` from the object that `texts_to_json` makes.

    Raises:
        MalformedRecordError: a field is missing or of the wrong kind; the message names it.
    """
    try:
        return _decode_texts(Fields(meta, "texts/1"), None)
    except _DAMAGE as error:
        raise MalformedRecordError(f"texts/1: {error}") from error


def words_to_json(words: Sequence[Word]) -> list[dict[str, Any]]:
    """A line's words as JSON has them; `words_from_json` takes them back."""
    return [{"text": word.text, "confidence": word.confidence, "polygon": word.polygon} for word in words]


def words_from_json(words: Sequence[Mapping[str, Any]]) -> tuple[Word, ...]:
    """What `words_to_json` made, which nobody has touched since."""
    return tuple(Word(word["text"], polygon_of(word["polygon"]), word["confidence"]) for word in words)


def appearance_to_json(appearance: Appearance) -> dict[str, Any]:
    """An appearance as a JSON object; `appearance_from_json` takes it back."""
    return {
        "track_id": appearance.track_id,
        "source_id": appearance.source_id,
        "text": appearance.text,
        "confidence": appearance.confidence,
        "first_at_ns": appearance.first_at_ns,
        "last_at_ns": appearance.last_at_ns,
        "first_ms": appearance.first_ms,
        "last_ms": appearance.last_ms,
        "best_frame_id": appearance.best_frame_id,
        "readings": appearance.readings,
        "path": [[at_ms, polygon] for at_ms, polygon in appearance.path],
        "closed": appearance.closed,
        "generation": appearance.generation,
    }


def appearance_from_json(meta: Mapping[str, Any]) -> Appearance:
    """An appearance from the object that `appearance_to_json` makes.

    Raises:
        MalformedRecordError: a field is missing or of the wrong kind; the message names it.
    """
    try:
        return _appearance(Fields(meta, "appearance"))
    except _DAMAGE as error:
        raise MalformedRecordError(f"appearance: {error}") from error


def _dump(meta: Mapping[str, Any]) -> bytes:
    # Half characters, as in a file name of another encoding, have no UTF-8 and become question marks.
    return json.dumps(meta, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def _engine_meta(engine: EngineInfo) -> dict[str, str]:
    return {"name": engine.name, "weights": engine.weights}


def _region_meta(region: Region) -> dict[str, Any]:
    return {
        "line_number": region.line_number,
        "polygon": region.polygon,
        "detector_score": region.detector_score,
        "track_id": region.track_id,
    }


def _crop_meta(crop: Crop, images: Sequence[bytes]) -> dict[str, Any]:
    return {
        **_region_meta(crop.region),
        "words": crop.region.words,
        "view": crop.view,
        "changed": crop.is_changed,
        "before": [asdict(sight) for sight in crop.before],
        "bytes": [len(image) for image in images],
    }


def _encode_frame(message: Frame) -> tuple[str, dict[str, Any], bytes | None]:
    return "frame/1", frame_to_json(message.info), message.picture.encoded()


def _encode_crops(message: Crops) -> tuple[str, dict[str, Any], bytes | None]:
    # Crops are small and their letters must not suffer twice, so they travel at a higher quality than frames.
    images = [[picture.encoded(quality=95) for picture in crop.pictures] for crop in message.crops]
    meta = {
        "frame": frame_to_json(message.info),
        "detector": _engine_meta(message.detector),
        "crops": [_crop_meta(crop, mine) for crop, mine in zip(message.crops, images, strict=True)],
        "kept": message.is_kept,
        "whole": message.is_whole,
        "followed_since_ns": message.followed_since_ns,
    }
    return "crops/1", meta, b"".join(image for mine in images for image in mine)


def _encode_texts(message: Texts) -> tuple[str, dict[str, Any], bytes | None]:
    return "texts/1", texts_to_json(message), None


def _encode_dead_letter(message: DeadLetter) -> tuple[str, dict[str, Any], bytes | None]:
    meta = {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "stage": message.stage,
        "reason": message.reason,
        "traceback": message.traceback,
    }
    return "dead-letter/1", meta, message.record.value


def _frame_info(fields: Fields) -> FrameInfo:
    width_px, height_px = fields.whole("width_px"), fields.whole("height_px")
    check_size(width_px, height_px)
    picture = None
    if fields._meta.get("picture") is not None:
        ref = fields.inner("picture")
        picture = PictureRef(ref.string("topic"), ref.whole("partition"), ref.whole("offset"))
    return FrameInfo(
        source_id=fields.identifier("source_id"),
        frame_id=fields.identifier("frame_id"),
        captured_at_ns=fields.whole("captured_at_ns"),
        width_px=width_px,
        height_px=height_px,
        live=fields.flag("live"),
        media_time_ms=fields.optional_number("media_time_ms"),
        path=fields.optional_string("path"),
        segment=fields.optional_whole("segment"),
        generation=fields.whole("generation", lowest=FIRST_READING),
        detector=fields.optional_string("detector"),
        recognizer=fields.optional_string("recognizer"),
        picture=picture,
        taken_at_ns=fields.whole("taken_at_ns") if "taken_at_ns" in fields._meta else 0,
    )


def _engine(fields: Fields) -> EngineInfo:
    return EngineInfo(fields.identifier("name"), fields.string("weights"))


def _region(fields: Fields) -> Region:
    return Region(
        fields.whole("line_number"),
        fields.polygon("polygon"),
        fields.share("detector_score"),
        fields.optional_string("track_id"),
    )


def _sight(fields: Fields) -> Sight:
    return Sight(fields.whole("at_ns"), fields.optional_number("media_time_ms"), fields.polygon("polygon"))


def _word(fields: Fields) -> Word:
    return Word(fields.string("text"), fields.polygon("polygon"), fields.share("confidence"))


def _appearance(fields: Fields) -> Appearance:
    return Appearance(
        track_id=fields.identifier("track_id"),
        source_id=fields.identifier("source_id"),
        text=fields.string("text"),
        confidence=fields.share("confidence"),
        first_at_ns=fields.whole("first_at_ns"),
        last_at_ns=fields.whole("last_at_ns"),
        first_ms=fields.optional_number("first_ms"),
        last_ms=fields.optional_number("last_ms"),
        best_frame_id=fields.identifier("best_frame_id"),
        readings=fields.whole("readings", lowest=1),
        path=fields.path("path"),
        closed=fields.flag("closed"),
        generation=fields.whole("generation", lowest=FIRST_READING),
    )


def _decode_frame(fields: Fields, record: RawRecord | None) -> Frame:
    assert record is not None
    info = _frame_info(fields)
    picture = Picture.from_encoded(record.value)
    picture.size_wh()
    return Frame(info, picture)


def _decode_crops(fields: Fields, record: RawRecord | None) -> Crops:
    assert record is not None
    info, detector = _frame_info(fields.inner("frame")), _engine(fields.inner("detector"))
    crops, start = [], 0
    for item in fields.items("crops"):
        pictures = []
        for length in item.wholes("bytes"):
            if start + length > len(record.value):
                raise ValueError(f"the crops' images are cut off at byte {len(record.value)}")
            picture = Picture.from_encoded(record.value[start : start + length])
            picture.size_wh()
            pictures.append(picture)
            start += length
        region = replace(_region(item), words=item.polygons("words"))
        if pictures and len(pictures) != (len(region.words) or 1):
            raise ValueError(f"line {region.line_number} has {len(pictures)} images for {len(region.words)} words")
        before = tuple(map(_sight, item.items("before")))
        crops.append(Crop(region, tuple(pictures), item.share("view"), item.flag("changed"), before))
    if start != len(record.value):
        raise ValueError(f"{len(record.value) - start} bytes follow the last crop's image")
    since_ns = fields.whole("followed_since_ns")
    return Crops(info, detector, tuple(crops), fields.flag("kept"), fields.flag("whole"), since_ns)


def _decode_texts(fields: Fields, record: RawRecord | None) -> Texts:  # noqa: ARG001 the decoders' common form
    lines = tuple(
        Text(_region(item), item.string("text"), item.share("confidence"), tuple(map(_word, item.items("words"))))
        for item in fields.items("lines")
    )
    if [line.region.line_number for line in lines] != sorted({line.region.line_number for line in lines}):
        raise ValueError("the lines' numbers should rise")
    return Texts(
        info=_frame_info(fields.inner("frame")),
        detector=_engine(fields.inner("detector")),
        recognizer=_engine(fields.inner("recognizer")),
        lines=lines,
        appearances=tuple(_appearance(item) for item in fields.items("appearances")),
        is_kept=fields.flag("kept"),
    )


def _decode_dead_letter(fields: Fields, record: RawRecord | None) -> DeadLetter:
    assert record is not None
    prefix = "original-"
    original = {name[len(prefix) :]: value for name, value in record.headers.items() if name.startswith(prefix)}
    return DeadLetter(
        topic=fields.string("topic"),
        partition=fields.whole("partition"),
        offset=fields.whole("offset"),
        stage=fields.string("stage"),
        reason=fields.string("reason"),
        traceback=fields.string("traceback"),
        record=replace(record, headers=original),
    )


_ENCODERS: dict[type, Callable[[Any], tuple[str, dict[str, Any], bytes | None]]] = {
    Frame: _encode_frame,
    Crops: _encode_crops,
    Texts: _encode_texts,
    DeadLetter: _encode_dead_letter,
}
_DECODERS: dict[str, Callable[[Fields, RawRecord | None], Message]] = {
    "frame/1": _decode_frame,
    "crops/1": _decode_crops,
    "texts/1": _decode_texts,
    "dead-letter/1": _decode_dead_letter,
}
