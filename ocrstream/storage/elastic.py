"""Documents in Elasticsearch 8: the store of the distributed mode. `elastic_layout` says how they lie there."""

from __future__ import annotations

import contextlib
import itertools
import json
import random
import re
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import elastic_transport
import elasticsearch

from ocrstream.config import ElasticsearchSettings
from ocrstream.errors import BackpressureError, ConfigError, DeploymentError, QueryError, StoreError
from ocrstream.messages import FIRST_READING, Appearance, Texts
from ocrstream.query import Query
from ocrstream.storage import (
    COUNT_LIMIT,
    DAY_NS,
    Filter,
    Hit,
    Page,
    SourceSummary,
    WriteReport,
    hit_of,
    refusal,
    storable,
)
from ocrstream.storage import elastic_layout as layout

SUPPORTED_MAJOR = 8

MAX_PAGED_HITS = 10_000
"""Elasticsearch's own ``max_result_window``."""

_CHUNK_DOCUMENTS = 2_000
_CHUNK_BYTES = 4_000_000
_PAGE = 500
_DROP_CHUNK = 20

_ATTEMPTS = 6
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 3.0
_BUSY, _AWAY = 429, (502, 503, 504)

_PREFIX = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class _Action:
    """One line of a bulk request: a document to index, or to delete where there is none."""

    index: str
    id: str
    version: int
    document: Mapping[str, Any] | None

    def encoded(self) -> bytes:
        verb = "delete" if self.document is None else "index"
        head = {"_index": self.index, "_id": self.id, "version": self.version, "version_type": "external_gte"}
        lines = _dump({verb: head})
        return lines if self.document is None else lines + b"\n" + _dump(self.document)


@dataclass(frozen=True, slots=True)
class _Failure:
    """An action that was not carried out: a higher version is there, or it can never be."""

    batch_index: int
    is_outdated: bool
    reason: str


@dataclass(frozen=True, slots=True)
class _Reading:
    """What is there of a frame already."""

    generation: int
    line_numbers: frozenset[int]


@dataclass(slots=True)
class _Plan:
    """What a batch asks of the server; every action with the index in the batch of the reading it belongs to."""

    regions: list[tuple[int, _Action]] = field(default_factory=list)
    frames: list[tuple[int, _Action]] = field(default_factory=list)
    appearances: list[tuple[int, _Action]] = field(default_factory=list)
    outdated: set[int] = field(default_factory=set)


class ElasticStore:
    """A `DocumentStore` on Elasticsearch.

    Args:
        settings: where the server is and what the indices are called; nothing is sent before the first use.

    Raises:
        ConfigError: the address or the prefix cannot be used.
    """

    def __init__(self, settings: ElasticsearchSettings) -> None:
        self._settings = settings
        self._prefix = settings.prefix
        self._shown, self._client = _client(settings)
        self._closing = threading.Event()
        self._ready = False
        self._ready_lock = threading.Lock()

    def check(self) -> None:
        """See `DocumentStore.check`; creates the index templates."""
        with self._explained():
            version = self._version()
            if version.split(".")[0] != str(SUPPORTED_MAJOR):
                raise DeploymentError(
                    f"Elasticsearch at {self._shown} is version {version}; this program works with version "
                    f"{SUPPORTED_MAJOR}: upgrade the server"
                )
            for family in layout.FAMILIES:
                template = layout.index_template(
                    self._prefix, family, shards=self._settings.shards, replicas=self._settings.replicas
                )
                self._client.indices.put_index_template(name=f"{self._prefix}-{family}", **template)
                # Indices that an earlier version of this program has made lack the newer fields.
                self._client.indices.put_mapping(
                    index=f"{self._prefix}-{family}-*", properties=layout.MAPPINGS[family], allow_no_indices=True
                )
        self._ready = True

    def close(self) -> None:
        """See `DocumentStore.close`."""
        self._closing.set()
        self._client.close()

    def write(self, batch: Sequence[Texts]) -> WriteReport:
        """See `DocumentStore.write`.

        Regions go first and the frame's own document last: until that is there the reading does not count as stored,
        and offering it again repairs whatever a crash has left between the two.
        """
        self._make_ready()
        refused = {index: reason for index, texts in enumerate(batch) if (reason := refusal(texts)) is not None}
        accepted = {index: texts for index, texts in enumerate(batch) if index not in refused}
        if not accepted:
            return WriteReport(refused=refused)
        with self._explained():
            plan = self._plan(accepted)
            for failures in (self._bulk(plan.regions), self._bulk(plan.appearances)):
                refused.update({f.batch_index: f.reason for f in failures if not f.is_outdated})
            outdated = plan.outdated
            for failure in self._bulk([(index, action) for index, action in plan.frames if index not in refused]):
                if failure.is_outdated:
                    outdated.add(failure.batch_index)
                else:
                    refused[failure.batch_index] = failure.reason
        outdated -= refused.keys()
        return WriteReport(len(batch) - len(refused) - len(outdated), len(outdated), refused)

    def search(
        self, query: Query, where: Filter, *, limit: int = 20, offset: int = 0, newest_first: bool = False
    ) -> Page:
        """See `DocumentStore.search`.

        Raises:
            QueryError: beyond the first 10,000 hits.
        """
        if offset + limit > MAX_PAGED_HITS:
            raise QueryError(
                f"only the first {MAX_PAGED_HITS:,} hits can be paged through: ask for a source or a time as well"
            )
        by_score = query.is_ranked and not newest_first
        with self._explained():
            if where.min_confidence > 0:
                return self._search_verified(query, where, limit, offset, by_score)
            found = self._find(
                layout.FRAMES,
                query=layout.search_query(query, where),
                sort=_RANKED if by_score else _NEWEST,
                size=limit,
                from_=offset,
                track_total_hits=COUNT_LIMIT,
                track_scores=True,
                search_type="dfs_query_then_fetch",
            )
        total = found["hits"]["total"]
        return Page(tuple(_hits(query, 0.0, found["hits"]["hits"])), total["value"], total["relation"] == "eq")

    def scan(self, where: Filter) -> Iterator[Texts]:
        """See `DocumentStore.scan`; frames written meanwhile may or may not be among them."""
        query = {"bool": {"filter": layout.frame_filter(where)}}
        for hit in self._walk(layout.FRAMES, query, ["source_id", "captured_at", "frame_id"]):
            yield layout.texts_of(hit["_source"])

    def appearances(self, where: Filter) -> Iterator[Appearance]:
        """See `DocumentStore.appearances`."""
        query = {"bool": {"filter": layout.appearance_filter(where)}}
        for hit in self._walk(layout.APPEARANCES, query, ["source_id", "first_at", "track_id"]):
            yield layout.appearance_of(hit["_source"])

    def get(self, frame_id: str) -> Texts | None:
        """See `DocumentStore.get`."""
        return self._first({"term": {"frame_id": storable(frame_id)}}, [{"generation": "desc"}])

    def last_frame(self, source_id: str, segment: int | None = None) -> Texts | None:
        """See `DocumentStore.last_frame`; without a segment, the last frame that belongs to none."""
        clauses: dict[str, Any] = {"filter": [{"term": {"source_id": storable(source_id)}}]}
        if segment is None:
            clauses["must_not"] = [{"exists": {"field": "segment"}}]
        else:
            clauses["filter"].append({"term": {"segment": segment}})
        return self._first({"bool": clauses}, [{"media_time_ms": "desc"}, {"captured_at": "desc"}])

    def sources(self) -> list[SourceSummary]:
        """See `DocumentStore.sources`; the first 10,000."""
        # Top hits and not min and max: those would round nanoseconds to milliseconds.
        ends = {
            name: {"top_hits": {"size": 1, "sort": [{"captured_at": order}], "_source": ["captured_at"]}}
            for name, order in (("first", "asc"), ("last", "desc"))
        }
        by_source = {"terms": {"field": "source_id", "size": 10_000, "order": {"_key": "asc"}}, "aggs": ends}
        with self._explained():
            found = self._find(layout.FRAMES, size=0, aggs={"sources": by_source})
        if "aggregations" not in found:
            return []
        return [
            SourceSummary(bucket["key"], bucket["doc_count"], _end_of(bucket["first"]), _end_of(bucket["last"]))
            for bucket in found["aggregations"]["sources"]["buckets"]
        ]

    def drop_before(self, before_ns: int) -> int:
        """See `DocumentStore.drop_before`."""
        families = "|".join(layout.FAMILIES)
        daily = re.compile(rf"{re.escape(self._prefix)}-(?:{families})-(\d{{4}}\.\d\d\.\d\d)")
        with self._explained():
            pattern = [f"{self._prefix}-{family}-*" for family in layout.FAMILIES]
            names = self._client.indices.get_settings(index=pattern, name="index.uuid", allow_no_indices=True)
            days = {name: match[1] for name in names if (match := daily.fullmatch(name)) is not None}
            doomed = sorted(name for name, day in days.items() if _end_ns(day) <= before_ns)
            for start in range(0, len(doomed), _DROP_CHUNK):
                # By name: clusters are often set not to delete by pattern.
                self._client.indices.delete(index=doomed[start : start + _DROP_CHUNK], ignore_unavailable=True)
        return len({days[name] for name in doomed})

    def _version(self) -> str:
        answer = self._client.info()
        try:
            return str(answer["version"]["number"])
        except (KeyError, TypeError) as error:
            raise self._no_elasticsearch() from error

    def _no_elasticsearch(self) -> DeploymentError:
        return DeploymentError(
            f"what answers at {self._shown} is not Elasticsearch {SUPPORTED_MAJOR}: correct --elasticsearch"
        )

    def _make_ready(self) -> None:
        """See to the templates before the first write: without them the server would guess the fields' types."""
        with self._ready_lock:
            if not self._ready:
                self.check()

    def _plan(self, batch: Mapping[int, Texts]) -> _Plan:
        readings, versions = self._stored(batch.values())
        plan = _Plan()
        winners: dict[str, int] = {}
        superseded: dict[str, tuple[int, int]] = {}
        for index, texts in batch.items():
            info = texts.info
            frame_id, generation = storable(info.frame_id), info.generation
            mine = _Reading(generation, frozenset(line.region.line_number for line in texts.lines))
            there = readings.get(frame_id, _Reading(-1, frozenset()))
            if generation < there.generation:
                plan.outdated.add(index)
                # A writer that died half-way may have left lines of this reading that the newer one has not.
                plan.regions += self._deletions(index, texts, mine, there)
            elif generation > there.generation:
                plan.regions += self._deletions(index, texts, there, mine)
                if there.generation >= FIRST_READING:
                    superseded[frame_id] = index, generation
                readings[frame_id] = mine
                if frame_id in winners:
                    plan.outdated.add(winners[frame_id])
                winners[frame_id] = index
        for index in winners.values():
            self._plan_frame(plan, index, batch[index])
        plan.appearances += self._superseded_appearances(superseded)
        self._plan_appearances(plan, batch, readings, versions)
        return plan

    def _deletions(self, index: int, texts: Texts, old: _Reading, new: _Reading) -> list[tuple[int, _Action]]:
        """Delete the lines of the old reading that the new one has not."""
        info = texts.info
        name = layout.index_name(self._prefix, layout.REGIONS, info.captured_at_ns)
        return [
            (index, _Action(name, layout.region_id(storable(info.frame_id), number), new.generation, None))
            for number in sorted(old.line_numbers - new.line_numbers)
        ]

    def _superseded_appearances(self, frames: Mapping[str, tuple[int, int]]) -> list[tuple[int, _Action]]:
        """Delete what earlier generations said over time where its best frame has a new reading.

        Args:
            frames: frame id -> index in the batch and generation of the new reading.
        """
        query = {"terms": {"best_frame_id": list(frames)}}
        deletions = []
        for hit in self._walk(layout.APPEARANCES, query, ["source_id", "first_at", "track_id"]) if frames else ():
            index, generation = frames[hit["_source"]["best_frame_id"]]
            if hit["_source"]["generation"] < generation:
                version = layout.lowest_appearance_version(generation)
                deletions.append((index, _Action(hit["_index"], hit["_id"], version, None)))
        return deletions

    def _plan_frame(self, plan: _Plan, index: int, texts: Texts) -> None:
        info = texts.info
        frame_id, version = storable(info.frame_id), info.generation
        name = layout.index_name(self._prefix, layout.REGIONS, info.captured_at_ns)
        plan.regions += [
            (index, _Action(name, layout.region_id(frame_id, number), version, document))
            for number, document in layout.region_documents(texts)
        ]
        name = layout.index_name(self._prefix, layout.FRAMES, info.captured_at_ns)
        plan.frames.append((index, _Action(name, frame_id, version, layout.frame_document(texts))))

    def _plan_appearances(
        self,
        plan: _Plan,
        batch: Mapping[int, Texts],
        readings: Mapping[str, _Reading],
        versions: dict[str, tuple[int, int]],
    ) -> None:
        newest: dict[str, tuple[int, Appearance]] = {}
        for index, texts in batch.items():
            for appearance in texts.appearances:
                track_id = storable(appearance.track_id)
                best = readings.get(storable(appearance.best_frame_id))
                if best is not None and best.generation > appearance.generation:
                    continue
                if appearance.version >= versions.get(track_id, (0, 0)):
                    versions[track_id] = appearance.version
                    newest[track_id] = index, appearance
        for track_id, (index, appearance) in newest.items():
            name = layout.index_name(self._prefix, layout.APPEARANCES, appearance.first_at_ns)
            action = _Action(
                name, track_id, layout.appearance_version(appearance), layout.appearance_document(appearance)
            )
            plan.appearances.append((index, action))

    def _stored(self, batch: Iterable[Texts]) -> tuple[dict[str, _Reading], dict[str, tuple[int, int]]]:
        """What is there of these frames and appearances, read by id and so up to the moment."""
        wanted: dict[tuple[str, str], list[str]] = {}
        for texts in batch:
            name = layout.index_name(self._prefix, layout.FRAMES, texts.info.captured_at_ns)
            wanted[name, storable(texts.info.frame_id)] = ["generation", "lines.line_number"]
            for appearance in texts.appearances:
                name = layout.index_name(self._prefix, layout.APPEARANCES, appearance.first_at_ns)
                wanted[name, storable(appearance.track_id)] = ["generation", "last_at"]
                for at_ns in (appearance.first_at_ns, appearance.last_at_ns):
                    name = layout.index_name(self._prefix, layout.FRAMES, at_ns)
                    wanted[name, storable(appearance.best_frame_id)] = ["generation", "lines.line_number"]
        docs = [{"_index": name, "_id": id, "_source": fields} for (name, id), fields in wanted.items()]
        readings: dict[str, _Reading] = {}
        versions: dict[str, tuple[int, int]] = {}
        for document in self._patiently(self._client.mget, docs=docs)["docs"]:
            # An index that is not there yet is an error of this document only.
            source = document.get("_source")
            if source is None:
                continue
            if "last_at" in source:
                versions[document["_id"]] = source["generation"], layout.from_iso(source["last_at"])
            else:
                numbers = frozenset(line["line_number"] for line in source.get("lines", ()))
                readings[document["_id"]] = _Reading(source["generation"], numbers)
        return readings, versions

    def _bulk(self, actions: Sequence[tuple[int, _Action]]) -> list[_Failure]:
        """Carry out actions, those the server is too busy for again and again.

        Returns:
            Those that a higher version or a wrong document stood against.

        Raises:
            BackpressureError: the server stays too busy.
            StoreError: it went away, or answers that it cannot at the moment.
        """
        failures: list[_Failure] = []
        for chunk in _chunks(actions):
            pending = chunk
            for pause_s in self._pauses():
                answer = self._patiently(
                    self._client.bulk,
                    operations=[line for _, _, line in pending],
                    filter_path=["errors", "items.*.status", "items.*.error"],
                )
                if not answer["errors"]:
                    break
                busy = []
                for item, result in zip(pending, answer["items"], strict=True):
                    (outcome,) = result.values()
                    if outcome["status"] == _BUSY or outcome["status"] in _AWAY:
                        busy.append(item)
                    elif failure := _failure_of(item[0], item[1], outcome):
                        failures.append(failure)
                pending = busy
                if not pending:
                    break
                if pause_s is None:
                    raise BackpressureError(f"Elasticsearch at {self._shown} is too busy to index", _LONGEST_PAUSE_S)
                self._closing.wait(pause_s)
        return failures

    def _patiently(self, request: Callable[..., Any], **parameters: Any) -> Any:
        """The answer to a request, made again while the server says that it is too busy."""
        for pause_s in self._pauses():
            try:
                return request(**parameters)
            except elasticsearch.ApiError as error:
                if pause_s is None or error.status_code not in (_BUSY, *_AWAY):
                    raise
            self._closing.wait(pause_s)
        raise AssertionError("the last pause is None")

    def _pauses(self) -> Iterator[float | None]:
        """How long to wait after each attempt, in seconds; None after the last."""
        for attempt in range(_ATTEMPTS - 1):
            if self._closing.is_set():
                break
            # Spread, so that many writers do not come back together.
            yield min(_FIRST_PAUSE_S * 2**attempt, _LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)  # noqa: S311
        yield None

    def _find(self, family: str, **parameters: Any) -> Any:
        """One search; an answer from some of the shards only is an error.

        Made again for some seconds while the server cannot answer: the shard of an index that was just made, as each
        midnight, is not there at once.
        """
        index = f"{self._prefix}-{family}-*"
        return self._patiently(self._client.search, index=index, allow_partial_search_results=False, **parameters)

    def _first(self, query: dict[str, Any], sort: list[dict[str, str]]) -> Texts | None:
        with self._explained():
            hits = self._find(layout.FRAMES, query=query, sort=sort, size=1)["hits"]["hits"]
        return layout.texts_of(hits[0]["_source"]) if hits else None

    def _walk(self, family: str, query: dict[str, Any], sort: list[Any], **parameters: Any) -> Iterator[Any]:
        """All hits in a total order, a page at a time; nothing is held open on the server."""
        after: dict[str, Any] = {}
        while True:
            with self._explained():
                found = self._find(
                    family, query=query, sort=sort, size=_PAGE, track_total_hits=False, **parameters, **after
                )
            hits = found["hits"]["hits"]
            yield from hits
            if len(hits) < _PAGE:
                return
            after = {"search_after": hits[-1]["sort"]}

    def _search_verified(self, query: Query, where: Filter, limit: int, offset: int, by_score: bool) -> Page:
        """Search among lines of enough confidence: the index finds candidates, the matcher looks at their lines."""
        candidates = self._walk(
            layout.FRAMES,
            layout.search_query(query.without_exclusions(), where),
            _RANKED if by_score else _NEWEST,
            track_scores=True,
            search_type="dfs_query_then_fetch",
        )
        # One more than asked for tells whether there is more.
        hits = tuple(itertools.islice(_hits(query, where.min_confidence, candidates), offset + limit + 1))
        return Page(hits[offset : offset + limit], len(hits), len(hits) <= offset + limit)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the client's errors into ours, with what to do; never with a password in them."""
        try:
            yield
        except elasticsearch.UnsupportedProductError as error:
            raise self._no_elasticsearch() from error
        except elasticsearch.ApiError as error:
            raise self._explanation(error) from error
        except elastic_transport.TlsError as error:
            raise DeploymentError(
                f"no secure connection to {self._shown} ({_short(error)}): name the authority that signed the "
                "server's certificate in OCRSTREAM_ELASTICSEARCH_CA_FILE"
            ) from error
        except elasticsearch.TransportError as error:
            raise StoreError(
                f"Elasticsearch at {self._shown} does not answer: {_short(error)}; check the address, and that it runs"
            ) from error

    def _explanation(self, error: elasticsearch.ApiError) -> Exception:
        status, reason = error.status_code, _reason_of(error.body)
        if status == 401:
            return DeploymentError(
                f"Elasticsearch at {self._shown} refuses the credentials: set OCRSTREAM_ELASTICSEARCH_USERNAME and "
                "OCRSTREAM_ELASTICSEARCH_PASSWORD, or OCRSTREAM_ELASTICSEARCH_API_KEY"
            )
        if status == 403:
            return DeploymentError(
                f"Elasticsearch at {self._shown} does not allow this ({reason}): give the user the cluster privileges "
                f"monitor and manage_index_templates, and all privileges on {self._prefix}-*"
            )
        if status == _BUSY:
            return BackpressureError(f"Elasticsearch at {self._shown} is too busy: {reason}", _LONGEST_PAUSE_S)
        if status == 413:
            return DeploymentError(
                f"what stands before Elasticsearch at {self._shown} takes no requests of {_CHUNK_BYTES // 10**6} MB: "
                "raise its limit (nginx: client_max_body_size)"
            )
        if status >= 500:
            return StoreError(f"Elasticsearch at {self._shown} cannot answer at the moment ({status}): {reason}")
        return DeploymentError(f"Elasticsearch at {self._shown} refuses a request ({status}): {reason}")


# One for all: json.dumps would make a new one for every document.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))

_NEWEST: list[Any] = [{"captured_at": "desc"}, {"frame_id": "asc"}]
_RANKED: list[Any] = [{"_score": "desc"}, *_NEWEST]


def _client(settings: ElasticsearchSettings) -> tuple[str, elasticsearch.Elasticsearch]:
    """The address as it may be shown, and the client."""
    if not _PREFIX.fullmatch(settings.prefix):
        raise ConfigError(
            "elasticsearch.prefix: an index name has small letters, digits, '-', '_' and '.', and begins with a letter "
            f"or digit; got {settings.prefix!r}"
        )
    try:
        address = urlsplit(settings.url)
        port = address.port or (443 if address.scheme == "https" else 9200)
    except ValueError:
        address, port = urlsplit(""), 0
    if address.scheme not in ("http", "https") or not address.hostname:
        raise ConfigError("elasticsearch.url: expected http://HOST:PORT or https://HOST:PORT")
    host = f"[{address.hostname}]" if ":" in address.hostname else address.hostname
    shown = f"{address.scheme}://{host}:{port}{address.path.rstrip('/')}"
    options: dict[str, Any] = {}
    if settings.api_key:
        options["api_key"] = settings.api_key
    elif settings.username or address.username:
        user = settings.username or unquote(address.username or "")
        options["basic_auth"] = user, settings.password or unquote(address.password or "")
    if settings.ca_file and address.scheme == "https":
        options["ssl_context"] = _trusting(settings.ca_file)
    # Trying again is this module's business: it knows which requests may be repeated, and says what happened.
    client = elasticsearch.Elasticsearch(shown, request_timeout=settings.timeout_s, max_retries=0, **options)
    return shown, client


def _trusting(ca_file: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca_file)
    except FileNotFoundError as error:
        raise ConfigError(f"elasticsearch.ca_file: there is no file {ca_file}") from error
    except OSError as error:
        raise ConfigError(f"elasticsearch.ca_file: {ca_file} holds no certificate (PEM): {error}") from error


def _dump(value: Mapping[str, Any]) -> bytes:
    return _ENCODER.encode(value).encode()


def _chunks(actions: Sequence[tuple[int, _Action]]) -> Iterator[list[tuple[int, _Action, bytes]]]:
    chunk: list[tuple[int, _Action, bytes]] = []
    size = 0
    for index, action in actions:
        line = action.encoded()
        if chunk and (len(chunk) >= _CHUNK_DOCUMENTS or size + len(line) > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append((index, action, line))
        size += len(line)
    if chunk:
        yield chunk


def _failure_of(batch_index: int, action: _Action, outcome: Mapping[str, Any]) -> _Failure | None:
    """What an item's result means for its reading; None where all is well."""
    status = outcome["status"]
    error = outcome.get("error", {})
    if status < 300 or (status == 404 and action.document is None):
        return None
    reason = _reason_of({"error": error})
    if status == 409:
        return _Failure(batch_index, True, reason)
    if status == 400:
        return _Failure(batch_index, False, f"Elasticsearch does not take it: {reason}")
    if status in (401, 403) and "block" not in str(error.get("type")):
        raise DeploymentError(f"Elasticsearch does not allow writing to {action.index}: {reason}")
    raise StoreError(f"Elasticsearch could not write to {action.index} ({status}): {reason}")


def _hits(query: Query, min_confidence: float, found: Iterable[Any]) -> Iterator[Hit]:
    for document in found:
        hit = hit_of(query, layout.texts_of(document["_source"]), min_confidence, document["_score"] or 0.0)
        if hit is not None:
            yield hit


def _end_of(top: Mapping[str, Any]) -> int:
    return layout.from_iso(top["hits"]["hits"][0]["_source"]["captured_at"])


def _end_ns(day: str) -> int:
    """When a day of an index name ends, nanoseconds since 1970; never for what is no day."""
    try:
        start = datetime.strptime(day, "%Y.%m.%d").replace(tzinfo=UTC)
    except ValueError:
        return 2**63
    return int(start.timestamp()) * 10**9 + DAY_NS


def _reason_of(body: Any) -> str:
    """The reason in an error's body, with what caused it."""
    error = body.get("error") if isinstance(body, Mapping) else None
    if not isinstance(error, Mapping):
        return str(error or "no reason given")[:300]
    cause = error.get("caused_by")
    reasons = [error.get("reason"), *([cause.get("reason")] if isinstance(cause, Mapping) else [])]
    return ": ".join(str(reason)[:200] for reason in reasons)


def _short(error: elasticsearch.TransportError) -> str:
    return str(error.message)[:300]
