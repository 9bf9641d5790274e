"""How documents lie in Elasticsearch: index names, mappings, documents and queries; pure, no server needed.

=====================================  ======================================  ======================
index                                  one document is                         its id
=====================================  ======================================  ======================
``PREFIX-frames-YYYY.MM.DD``           an analysed frame with all its lines    ``FRAME``
``PREFIX-regions-YYYY.MM.DD``          a text line in a frame                  ``FRAME-NNN``
``PREFIX-appearances-YYYY.MM.DD``      a text over time                        ``TRACK``
=====================================  ======================================  ======================

The day is the capture time's (an appearance's: of its first sighting), UTC, so that a document's index and id follow
from the reading alone. Only what every Elasticsearch has is used: no scripts, no ingest, no analysis plug-in; the
folding is this program's own, and ``folded`` is split at blanks only.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ocrstream.folding import folded_text
from ocrstream.geometry import bounding_box, polygon_of
from ocrstream.messages import Appearance, EngineInfo, FrameInfo, PictureRef, Region, Text, Texts
from ocrstream.query import And, Fuzzy, Node, Not, Or, Phrase, Query
from ocrstream.storage import EXACT_BONUS, Filter, storable, storable_or_none
from ocrstream.wire import words_from_json, words_to_json

FRAMES, REGIONS, APPEARANCES = FAMILIES = ("frames", "regions", "appearances")

TEMPLATE_PRIORITY = 200
MAX_PREFIX_EXPANSIONS = 1_000

_KEYWORD = {"type": "keyword"}
_TIME = {"type": "date_nanos"}
# Aggregated and shown, hardly ever searched for: column values do, and the points would cost a third of the indexing.
_NUMBER = {"type": "float", "index": False}
_WHOLE = {"type": "integer"}
_LONG = {"type": "long"}
_FLAG = {"type": "boolean"}
_AS_IT_IS = {"type": "object", "enabled": False}
_ENGINE = {"properties": {"name": _KEYWORD, "weights": _KEYWORD}}
_TEXT = {
    "text": {"type": "text", "analyzer": "standard"},
    "folded": {"type": "text", "analyzer": "whitespace"},
}

MAPPINGS: dict[str, dict[str, Any]] = {
    FRAMES: {
        **_TEXT,
        "frame_id": _KEYWORD,
        "source_id": _KEYWORD,
        "captured_at": _TIME,
        "media_time_ms": {"type": "double"},
        "path": _KEYWORD,
        "segment": _LONG,
        "live": _FLAG,
        "width_px": _WHOLE,
        "height_px": _WHOLE,
        "generation": _LONG,
        "asked_detector": _KEYWORD,
        "asked_recognizer": _KEYWORD,
        "detector": _ENGINE,
        "recognizer": _ENGINE,
        "picture": {"properties": {"topic": _KEYWORD, "partition": _LONG, "offset": _LONG}},
        "line_count": _WHOLE,
        "best_confidence": {"type": "double"},
        "lines": _AS_IT_IS,
    },
    REGIONS: {
        **_TEXT,
        "frame_id": _KEYWORD,
        "source_id": _KEYWORD,
        "captured_at": _TIME,
        "media_time_ms": {"type": "double"},
        "path": _KEYWORD,
        "line_number": {"type": "integer", "index": False},
        "confidence": {"type": "float"},
        "detector_score": _NUMBER,
        "polygon": _NUMBER,
        "box": {"properties": {"x0": _NUMBER, "y0": _NUMBER, "x1": _NUMBER, "y1": _NUMBER}},
        "track_id": _KEYWORD,
        "words": _AS_IT_IS,
        "generation": _LONG,
        "detector": _ENGINE,
        "recognizer": _ENGINE,
    },
    APPEARANCES: {
        **_TEXT,
        # As a whole too, so that Kibana can count which texts were seen most.
        "text": {**_TEXT["text"], "fields": {"keyword": {**_KEYWORD, "ignore_above": 256}}},
        "track_id": _KEYWORD,
        "source_id": _KEYWORD,
        "confidence": {"type": "double"},
        "first_at": _TIME,
        "last_at": _TIME,
        "duration_s": _NUMBER,
        "first_ms": {"type": "double"},
        "last_ms": {"type": "double"},
        "best_frame_id": _KEYWORD,
        "readings": _LONG,
        "path": _AS_IT_IS,
        "closed": _FLAG,
        "generation": _LONG,
    },
}


def mapping(family: str) -> dict[str, Any]:
    """A family's mapping: explicit, and strict so that a mistake is an error and not a new field."""
    # What is folded can be folded again from the text, so it is indexed and not kept.
    return {"dynamic": "strict", "_source": {"excludes": ["folded"]}, "properties": MAPPINGS[family]}


def index_template(prefix: str, family: str, *, shards: int, replicas: int, refresh_ms: int) -> dict[str, Any]:
    """The composable index template of a family's daily indices.

    Args:
        prefix: the names' first part.
        family: which documents.
        shards: primary shards of each index.
        replicas: copies of each shard.
        refresh_ms: after so long what was written can be searched.
    """
    return {
        "index_patterns": [f"{prefix}-{family}-*"],
        "priority": TEMPLATE_PRIORITY,
        "template": {
            "settings": {
                "number_of_shards": shards,
                "number_of_replicas": replicas,
                **refreshed(refresh_ms),
            },
            "mappings": mapping(family),
        },
    }


def refreshed(every_ms: int) -> dict[str, str]:
    """The index setting that lets what was written be found so soon, also where nobody has searched for a while."""
    return {"index.refresh_interval": f"{every_ms}ms"}


def index_name(prefix: str, family: str, time_ns: int) -> str:
    """The daily index of a time, nanoseconds since 1970."""
    return f"{prefix}-{family}-{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y.%m.%d}"


def region_id(frame_id: str, line_number: int) -> str:
    """The document id of a line."""
    return f"{frame_id}-{line_number:03d}"


def frame_document(texts: Texts) -> dict[str, Any]:
    """A frame with all its lines; `texts_of` takes it back."""
    info = texts.info
    document = {
        **_origin(texts),
        "segment": info.segment,
        "live": info.live,
        "width_px": info.width_px,
        "height_px": info.height_px,
        "asked_detector": storable_or_none(info.detector),
        "asked_recognizer": storable_or_none(info.recognizer),
        "text": storable(texts.text),
        "folded": " ".join(filter(None, (folded_text(line.text) for line in texts.lines))),
        "line_count": len(texts.lines),
        "best_confidence": max((line.confidence for line in texts.lines), default=None),
        "lines": [
            {
                "line_number": line.region.line_number,
                "text": storable(line.text),
                "confidence": line.confidence,
                "detector_score": line.region.detector_score,
                "polygon": line.region.polygon,
                "track_id": storable_or_none(line.region.track_id),
                "words": _words(line),
            }
            for line in texts.lines
        ],
    }
    if info.picture is not None:
        picture = info.picture
        document["picture"] = {
            "topic": storable(picture.topic),
            "partition": picture.partition,
            "offset": picture.offset,
        }
    return document


def region_documents(texts: Texts) -> list[tuple[int, dict[str, Any]]]:
    """A frame's lines, each with its number."""
    origin = _origin(texts)
    documents = []
    for line in texts.lines:
        x0, y0, x1, y1 = bounding_box(line.region.polygon)
        document = {
            **origin,
            "line_number": line.region.line_number,
            "text": storable(line.text),
            "folded": folded_text(line.text),
            "confidence": line.confidence,
            "detector_score": line.region.detector_score,
            "polygon": line.region.polygon,
            "box": {"x0": x0, "y0": y0, "x1": x1, "y1": y1},
            "track_id": storable_or_none(line.region.track_id),
            "words": _words(line),
        }
        documents.append((line.region.line_number, document))
    return documents


def _words(line: Text) -> list[dict[str, Any]]:
    return [{**word, "text": storable(word["text"])} for word in words_to_json(line.words)]


def appearance_document(appearance: Appearance) -> dict[str, Any]:
    """A text over time; `appearance_of` takes it back."""
    return {
        "track_id": storable(appearance.track_id),
        "source_id": storable(appearance.source_id),
        "text": storable(appearance.text),
        "folded": folded_text(appearance.text),
        "confidence": appearance.confidence,
        "first_at": to_iso(appearance.first_at_ns),
        "last_at": to_iso(appearance.last_at_ns),
        "duration_s": (appearance.last_at_ns - appearance.first_at_ns) / 1e9,
        "first_ms": appearance.first_ms,
        "last_ms": appearance.last_ms,
        "best_frame_id": storable(appearance.best_frame_id),
        "readings": appearance.readings,
        "path": appearance.path,
        "closed": appearance.closed,
        "generation": appearance.generation,
    }


def texts_of(source: Mapping[str, Any]) -> Texts:
    """The reading that `frame_document` made a document of (without appearances)."""
    picture = source.get("picture")
    info = FrameInfo(
        source_id=source["source_id"],
        frame_id=source["frame_id"],
        captured_at_ns=from_iso(source["captured_at"]),
        width_px=source["width_px"],
        height_px=source["height_px"],
        live=source["live"],
        media_time_ms=source["media_time_ms"],
        path=source["path"],
        segment=source["segment"],
        generation=source["generation"],
        detector=source["asked_detector"],
        recognizer=source["asked_recognizer"],
        picture=PictureRef(picture["topic"], picture["partition"], picture["offset"]) if picture else None,
    )
    lines = tuple(
        Text(
            Region(line["line_number"], polygon_of(line["polygon"]), line["detector_score"], line["track_id"]),
            line["text"],
            line["confidence"],
            words_from_json(line["words"]),
        )
        for line in source["lines"]
    )
    return Texts(info, EngineInfo(**source["detector"]), EngineInfo(**source["recognizer"]), lines)


def appearance_of(source: Mapping[str, Any]) -> Appearance:
    """The appearance that `appearance_document` made a document of."""
    return Appearance(
        track_id=source["track_id"],
        source_id=source["source_id"],
        text=source["text"],
        confidence=source["confidence"],
        first_at_ns=from_iso(source["first_at"]),
        last_at_ns=from_iso(source["last_at"]),
        first_ms=source["first_ms"],
        last_ms=source["last_ms"],
        best_frame_id=source["best_frame_id"],
        readings=source["readings"],
        path=tuple((at_ms, polygon_of(points)) for at_ms, points in source["path"]),
        closed=source["closed"],
        generation=source["generation"],
    )


def appearance_version(appearance: Appearance) -> int:
    """An appearance's `version` as one number below 2**63, rising with generation, then with the last sighting.

    Generations are small numbers or milliseconds since 1970 and keep 31 bits as seconds since 2017; the last sighting
    keeps 32 bits as seconds since 1970. What falls into the same second is told apart by reading the stored version
    before writing, so that only two writers within one second could get in each other's way.
    """
    last_at_s = appearance.last_at_ns // 10**9
    return lowest_appearance_version(appearance.generation) | min(max(last_at_s, 0), 2**32 - 1)


def lowest_appearance_version(generation: int) -> int:
    """What every `appearance_version` of this generation is at least, and every one of an earlier generation below."""
    if generation >= 1000:
        generation = 1000 + max(0, generation // 1000 - 1_483_228_800)
    return min(generation, 2**31 - 1) << 32


def frame_filter(where: Filter) -> list[dict[str, Any]]:
    """The filter clauses for frames."""
    clauses = _source_clauses(where)
    limits = {}
    if where.since_ns is not None:
        limits["gte"] = to_iso(where.since_ns)
    if where.until_ns is not None:
        limits["lt"] = to_iso(where.until_ns)
    if limits:
        clauses.append({"range": {"captured_at": limits}})
    if where.min_confidence > 0:
        clauses.append({"range": {"best_confidence": {"gte": where.min_confidence}}})
    return clauses


def appearance_filter(where: Filter) -> list[dict[str, Any]]:
    """The filter clauses for appearances: those that overlap the time."""
    clauses = _source_clauses(where)
    if where.since_ns is not None:
        clauses.append({"range": {"last_at": {"gte": to_iso(where.since_ns)}}})
    if where.until_ns is not None:
        clauses.append({"range": {"first_at": {"lt": to_iso(where.until_ns)}}})
    if where.min_confidence > 0:
        clauses.append({"range": {"confidence": {"gte": where.min_confidence}}})
    return clauses


def search_query(query: Query, where: Filter) -> dict[str, Any]:
    """A query and a filter in Elasticsearch's query language; frames that hold the words as typed score higher."""
    clauses: dict[str, Any] = {"filter": frame_filter(where)}
    if not query.is_ranked:
        clauses["filter"].append(_folded_clause(query.root))
        return {"bool": clauses}
    clauses["must"] = [_folded_clause(query.root)]
    exact = _exact_clause(query.root)
    if exact is not None:
        clauses["should"] = [{"constant_score": {"filter": exact, "boost": EXACT_BONUS}}]
    return {"bool": clauses}


def to_iso(time_ns: int) -> str:
    """Nanoseconds since 1970 as Elasticsearch writes ``date_nanos``; times it cannot hold become its first or last."""
    time_ns = max(0, min(time_ns, 2**63 - 1))
    return f"{datetime.fromtimestamp(time_ns // 10**9, UTC):%Y-%m-%dT%H:%M:%S}.{time_ns % 10**9:09d}Z"


def from_iso(text: str) -> int:
    """Nanoseconds since 1970 from what `to_iso` made."""
    seconds = int(datetime.fromisoformat(f"{text[:19]}+00:00").timestamp())
    return seconds * 10**9 + int(text[20:29])


def _origin(texts: Texts) -> dict[str, Any]:
    info = texts.info
    return {
        "frame_id": storable(info.frame_id),
        "source_id": storable(info.source_id),
        "captured_at": to_iso(info.captured_at_ns),
        "media_time_ms": info.media_time_ms,
        "path": storable_or_none(info.path),
        "generation": info.generation,
        "detector": {"name": storable(texts.detector.name), "weights": storable(texts.detector.weights)},
        "recognizer": {"name": storable(texts.recognizer.name), "weights": storable(texts.recognizer.weights)},
    }


def _source_clauses(where: Filter) -> list[dict[str, Any]]:
    return [{"terms": {"source_id": [storable(source) for source in where.sources]}}] if where.sources else []


def _folded_clause(node: Node) -> dict[str, Any]:
    match node:
        case Phrase((token,), prefix=False):
            return {"term": {"folded": token}}
        case Phrase((token,), prefix=True):
            return {"prefix": {"folded": token}}
        case Phrase():
            return _phrase_clause("folded", " ".join(node.tokens), node.prefix)
        case Fuzzy(token):
            # Rewritten so, every near word counts and not only the fifty nearest.
            how = {"value": token, "fuzziness": node.max_distance, "transpositions": True, "rewrite": "constant_score"}
            return {"fuzzy": {"folded": how}}
        case Not(inner):
            return {"bool": {"must_not": [_folded_clause(inner)]}}
        case And(()):
            return {"match_all": {}}
        case And(nodes):
            return {"bool": {"must": [_folded_clause(part) for part in nodes]}}
        case Or(nodes):
            return {"bool": {"should": [_folded_clause(part) for part in nodes], "minimum_should_match": 1}}


def _exact_clause(node: Node) -> dict[str, Any] | None:
    """Frames that hold the wanted words as they were typed; None where that is unclear."""
    match node:
        case Phrase((_,), (exact,), prefix=True):
            return {"prefix": {"text": exact}}
        case Phrase():
            return _phrase_clause("text", storable(node.written) or " ".join(node.exact), node.prefix)
        case Fuzzy():
            return _phrase_clause("text", node.exact, False)
        case Not():
            return None
        case And(nodes):
            # What is excluded is excluded already, folded.
            parts = [_exact_clause(part) for part in nodes if not isinstance(part, Not)]
            return {"bool": {"must": parts}} if parts and None not in parts else None
        case Or(nodes):
            kept = [part for part in map(_exact_clause, nodes) if part is not None]
            return {"bool": {"should": kept, "minimum_should_match": 1}} if kept else None


def _phrase_clause(field: str, text: str, prefix: bool) -> dict[str, Any]:
    if prefix:
        return {"match_phrase_prefix": {field: {"query": text, "max_expansions": MAX_PREFIX_EXPANSIONS}}}
    return {"match_phrase": {field: {"query": text}}}
