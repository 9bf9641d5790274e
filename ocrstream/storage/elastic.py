"""Documents in Elasticsearch 8: the store of the distributed mode. `elastic_layout` says how they lie there."""

from __future__ import annotations

import itertools
import math
import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from ocrstream.config import ElasticsearchSettings
from ocrstream.errors import DeploymentError, QueryError
from ocrstream.messages import Appearance, Texts
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
from ocrstream.storage.elastic_appearances import AppearancePlan
from ocrstream.storage.elastic_connection import SUPPORTED_MAJOR, Action, ElasticConnection

MAX_PAGED_HITS = 10_000
"""Elasticsearch's own ``max_result_window``."""

_DROP_CHUNK = 20

_REFRESH_S = 5.0
"""So long after frames were read again an index that has not been refreshed by itself may not show them yet."""


@dataclass(frozen=True, slots=True)
class _Known:
    """What is there of a frame already."""

    generation: int
    line_numbers: frozenset[int]


@dataclass(slots=True)
class _Plan:
    """What a batch asks of the server; every action with the index in the batch of the reading it belongs to."""

    regions: list[tuple[int, Action]] = field(default_factory=list)
    frames: list[tuple[int, Action]] = field(default_factory=list)
    appearances: list[tuple[int, Action]] = field(default_factory=list)
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
        self._server = ElasticConnection(settings)
        self._read_again_at_s = -math.inf
        self._ready = False
        self._ready_lock = threading.Lock()

    def check(self) -> None:
        """See `DocumentStore.check`; creates the index templates."""
        with self._server.explained():
            version = self._server.version()
            if version.split(".")[0] != str(SUPPORTED_MAJOR):
                raise DeploymentError(
                    f"Elasticsearch at {self._server.shown} is version {version}; this program works with version "
                    f"{SUPPORTED_MAJOR}: upgrade the server"
                )
            for family in layout.FAMILIES:
                template = layout.index_template(
                    self._prefix,
                    family,
                    shards=self._settings.shards,
                    replicas=self._settings.replicas,
                    refresh_ms=self._settings.refresh_ms,
                )
                self._server.client.indices.put_index_template(name=f"{self._prefix}-{family}", **template)
                # Indices that are there already may lack newer fields, or have been made under other settings.
                there = f"{self._prefix}-{family}-*"
                self._server.client.indices.put_mapping(
                    index=there, properties=layout.MAPPINGS[family], allow_no_indices=True
                )
                self._server.client.indices.put_settings(
                    index=there, settings=layout.refreshed(self._settings.refresh_ms), allow_no_indices=True
                )
        self._ready = True

    def close(self) -> None:
        """See `DocumentStore.close`."""
        self._server.close()

    def write(self, batch: Sequence[Texts]) -> WriteReport:
        """See `DocumentStore.write`.

        Regions and appearances go first and the frame's own document last: until that is there the reading does not
        count as stored, and offering it again repairs whatever a crash has left between the two.
        """
        self._make_ready()
        refused = {index: reason for index, texts in enumerate(batch) if (reason := refusal(texts)) is not None}
        accepted = {index: texts for index, texts in enumerate(batch) if index not in refused}
        if not accepted:
            return WriteReport(refused=refused)
        with self._server.explained():
            plan = self._plan(accepted)
            failures = self._server.bulk([*plan.regions, *plan.appearances])
            refused.update({failure.batch_index: failure.reason for failure in failures if not failure.is_outdated})
            outdated = plan.outdated
            for failure in self._server.bulk(
                [(index, action) for index, action in plan.frames if index not in refused]
            ):
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
        with self._server.explained():
            if where.min_confidence > 0:
                return self._search_verified(query, where, limit, offset, by_score)
            found = self._server.find(
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
        for hit in self._server.walk(layout.FRAMES, query, ["source_id", "captured_at", "frame_id"]):
            yield layout.texts_of(hit["_source"])

    def appearances(self, where: Filter) -> Iterator[Appearance]:
        """See `DocumentStore.appearances`."""
        query = {"bool": {"filter": layout.appearance_filter(where)}}
        for hit in self._server.walk(layout.APPEARANCES, query, ["source_id", "first_at", "track_id"]):
            yield layout.appearance_of(hit["_source"])

    def unfinished(self) -> Iterator[Appearance]:
        """See `DocumentStore.unfinished`."""
        query = {"bool": {"filter": [{"term": {"closed": False}}]}}
        for hit in self._server.walk(layout.APPEARANCES, query, ["source_id", "first_at", "track_id"]):
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
        with self._server.explained():
            found = self._server.find(layout.FRAMES, size=0, aggs={"sources": by_source})
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
        with self._server.explained():
            pattern = [f"{self._prefix}-{family}-*" for family in layout.FAMILIES]
            names = self._server.client.indices.get_settings(index=pattern, name="index.uuid", allow_no_indices=True)
            days = {name: match[1] for name in names if (match := daily.fullmatch(name)) is not None}
            doomed = sorted(name for name, day in days.items() if _end_ns(day) <= before_ns)
            for start in range(0, len(doomed), _DROP_CHUNK):
                # By name: clusters are often set not to delete by pattern.
                self._server.client.indices.delete(index=doomed[start : start + _DROP_CHUNK], ignore_unavailable=True)
        return len({days[name] for name in doomed})

    def _make_ready(self) -> None:
        """See to the templates before the first write: without them the server would guess the fields' types."""
        with self._ready_lock:
            if not self._ready:
                self.check()

    def _plan(self, batch: Mapping[int, Texts]) -> _Plan:
        known, versions = self._stored(batch.values())
        plan = _Plan()
        winners: dict[str, int] = {}
        for index, texts in batch.items():
            info = texts.info
            frame_id, generation = storable(info.frame_id), info.generation
            mine = _Known(generation, frozenset(line.region.line_number for line in texts.lines))
            there = known.get(frame_id, _Known(-1, frozenset()))
            if not texts.is_kept:
                continue
            if generation < there.generation:
                plan.outdated.add(index)
                # A writer that died half-way may have left lines of this reading that the newer one has not.
                plan.regions += self._deletions(index, texts, mine, there)
            elif generation > there.generation:
                plan.regions += self._deletions(index, texts, there, mine)
                known[frame_id] = mine
                if frame_id in winners:
                    plan.outdated.add(winners[frame_id])
                winners[frame_id] = index
        for index in winners.values():
            self._plan_frame(plan, index, batch[index])
        changes = AppearancePlan(self._server, self._prefix, {index: batch[index] for index in winners.values()})
        if changes.reads_again:
            self._read_again_at_s = time.monotonic()
        if time.monotonic() - self._read_again_at_s < _REFRESH_S:
            # What appearances are cut by has to be seen, also where it was written just now.
            self._server.refresh(layout.FRAMES, layout.REGIONS, layout.APPEARANCES)
        plan.appearances += changes.actions(batch, versions)
        return plan

    def _deletions(self, index: int, texts: Texts, old: _Known, new: _Known) -> list[tuple[int, Action]]:
        """Delete the lines of the old reading that the new one has not."""
        info = texts.info
        name = layout.index_name(self._prefix, layout.REGIONS, info.captured_at_ns)
        return [
            (index, Action(name, layout.region_id(storable(info.frame_id), number), new.generation, None))
            for number in sorted(old.line_numbers - new.line_numbers)
        ]

    def _plan_frame(self, plan: _Plan, index: int, texts: Texts) -> None:
        info = texts.info
        frame_id, version = storable(info.frame_id), info.generation
        name = layout.index_name(self._prefix, layout.REGIONS, info.captured_at_ns)
        plan.regions += [
            (index, Action(name, layout.region_id(frame_id, number), version, document))
            for number, document in layout.region_documents(texts)
        ]
        name = layout.index_name(self._prefix, layout.FRAMES, info.captured_at_ns)
        plan.frames.append((index, Action(name, frame_id, version, layout.frame_document(texts))))

    def _stored(self, batch: Iterable[Texts]) -> tuple[dict[str, _Known], dict[str, tuple[int, int]]]:
        """What is there of these frames and appearances, read by id and so up to the moment."""
        wanted: dict[tuple[str, str], list[str]] = {}
        for texts in batch:
            name = layout.index_name(self._prefix, layout.FRAMES, texts.info.captured_at_ns)
            wanted[name, storable(texts.info.frame_id)] = ["generation", "lines.line_number"]
            for appearance in texts.appearances:
                name = layout.index_name(self._prefix, layout.APPEARANCES, appearance.first_at_ns)
                wanted[name, storable(appearance.track_id)] = ["generation", "last_at"]
        docs = [{"_index": name, "_id": id, "_source": fields} for (name, id), fields in wanted.items()]
        known: dict[str, _Known] = {}
        versions: dict[str, tuple[int, int]] = {}
        for document in self._server.mget(docs):
            # An index that is not there yet is an error of this document only.
            source = document.get("_source")
            if source is None:
                continue
            if "last_at" in source:
                versions[document["_id"]] = source["generation"], layout.from_iso(source["last_at"])
            else:
                numbers = frozenset(line["line_number"] for line in source.get("lines", ()))
                known[document["_id"]] = _Known(source["generation"], numbers)
        return known, versions

    def _first(self, query: dict[str, Any], sort: list[dict[str, str]]) -> Texts | None:
        with self._server.explained():
            hits = self._server.find(layout.FRAMES, query=query, sort=sort, size=1)["hits"]["hits"]
        return layout.texts_of(hits[0]["_source"]) if hits else None

    def _search_verified(self, query: Query, where: Filter, limit: int, offset: int, by_score: bool) -> Page:
        """Search among lines of enough confidence: the index finds candidates, the matcher looks at their lines."""
        candidates = self._server.walk(
            layout.FRAMES,
            layout.search_query(query.without_exclusions(), where),
            _RANKED if by_score else _NEWEST,
            track_scores=True,
            search_type="dfs_query_then_fetch",
        )
        # One more than asked for tells whether there is more.
        hits = tuple(itertools.islice(_hits(query, where.min_confidence, candidates), offset + limit + 1))
        return Page(hits[offset : offset + limit], len(hits), len(hits) <= offset + limit)


_NEWEST: list[Any] = [{"captured_at": "desc"}, {"frame_id": "asc"}]
_RANKED: list[Any] = [{"_score": "desc"}, *_NEWEST]


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
