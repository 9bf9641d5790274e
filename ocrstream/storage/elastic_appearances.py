"""Texts over time in Elasticsearch, as what is left of them where frames were read again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ocrstream.messages import FIRST_READING, Appearance, Texts
from ocrstream.storage import elastic_layout as layout
from ocrstream.storage import storable
from ocrstream.storage.elastic_connection import Action, ElasticConnection
from ocrstream.storage.superseding import Cut, Mark, cut_of, cuts_of, part_id, track_of

Version = tuple[int, int]


@dataclass(frozen=True, slots=True)
class _Change:
    """What becomes of one document: its content, or None where it goes; ``index`` is its cause's place in the batch."""

    index: int
    day_ns: int
    appearance: Appearance | None
    version: int


class AppearancePlan:
    """The changes that a batch makes to appearances.

    Args:
        server: where the others are looked up.
        prefix: of the indices.
        winners: the readings of the batch that will be stored as the newest of their frames, by place in the batch.
    """

    def __init__(self, server: ElasticConnection, prefix: str, winners: Mapping[int, Texts]) -> None:
        self._server = server
        self._prefix = prefix
        self._winners = winners
        self._again = {index: texts.info for index, texts in winners.items() if texts.info.generation > FIRST_READING}
        self._is_fresh = False
        self._changes: dict[str, _Change] = {}

    @property
    def reads_again(self) -> bool:
        """Whether the batch holds frames that were read again."""
        return bool(self._again)

    def actions(self, batch: Mapping[int, Texts], versions: Mapping[str, Version]) -> list[tuple[int, Action]]:
        """What is to be done, each with the place in the batch of the reading that it belongs to.

        Args:
            batch: readings, by place.
            versions: of the appearances in it that are stored, by id.
        """
        for index, info in self._again.items():
            for cut in cuts_of(info, self):
                self._take(index, cut)
        newest = _newest(batch, versions)
        cut_at_all = self._any_read_again([appearance for _, appearance in newest.values()])
        for index, appearance in newest.values():
            found = cut_of(appearance, self) if cut_at_all else None
            for part in (appearance,) if found is None else found.parts:
                self._put(index, part, layout.appearance_version(part))
        return [(change.index, self._action(id, change)) for id, change in self._changes.items()]

    def read_again(
        self, source_id: str, generation: int, since_ns: int, until_ns: int, *, last_only: bool = False
    ) -> Iterator[Mark]:
        """See `ocrstream.storage.superseding.History`."""
        mine = {
            info.frame_id: Mark(info.captured_at_ns, storable(info.frame_id), info.generation)
            for info in self._again.values()
            if info.source_id == source_id and since_ns <= info.captured_at_ns <= until_ns
            if info.generation >= generation
        }
        query = _frames_again([source_id], generation, since_ns, until_ns)
        sort = [{"captured_at": "desc"}, {"frame_id": "asc"}]
        stored = (
            self._server.find(layout.FRAMES, query=query, sort=sort, size=1)["hits"]["hits"]
            if last_only
            else self._server.walk(layout.FRAMES, query, sort)
        )
        for hit in stored:
            document = hit["_source"]
            mark = Mark(layout.from_iso(document["captured_at"]), document["frame_id"], document["generation"])
            mine.setdefault(mark.frame_id, mark)
        return iter(sorted(mine.values(), key=lambda mark: mark.captured_at_ns, reverse=True))

    def older(self, source_id: str, generation: int, since_ns: int, until_ns: int) -> list[Appearance]:
        """See `ocrstream.storage.superseding.History`."""
        clauses = [
            {"term": {"source_id": storable(source_id)}},
            {"range": {"generation": {"lt": generation}}},
            {"range": {"last_at": {"gte": layout.to_iso(since_ns)}}},
            {"range": {"first_at": {"lte": layout.to_iso(until_ns)}}},
        ]
        walk = self._server.walk(layout.APPEARANCES, {"bool": {"filter": clauses}}, ["first_at", "track_id"])
        stored = [layout.appearance_of(hit["_source"]) for hit in walk]
        changed = [change.appearance for change in self._changes.values() if change.appearance is not None]
        return [
            *(appearance for appearance in stored if appearance.track_id not in self._changes),
            *(
                appearance
                for appearance in changed
                if appearance.source_id == source_id and appearance.generation < generation
                if appearance.last_at_ns >= since_ns and appearance.first_at_ns <= until_ns
            ),
        ]

    def known(self, appearance: Appearance, behind: Mark) -> Appearance | None:
        """See `ocrstream.storage.superseding.History`."""
        whole_id = storable(appearance.track_id)
        places = {part_id(whole_id, behind.frame_id): behind.captured_at_ns + 1, whole_id: appearance.first_at_ns}
        docs = [
            {"_index": self._day(first_ns), "_id": id} for id, first_ns in places.items() if id not in self._changes
        ]
        stored = (document.get("_source") for document in self._server.mget(docs))
        found = {source["track_id"]: layout.appearance_of(source) for source in stored if source is not None}
        for id in places:
            other = self._changes[id].appearance if id in self._changes else found.get(id)
            if other is not None and other.generation == appearance.generation:
                return other
        return None

    def frame_showing(self, appearance: Appearance) -> str | None:
        """See `ocrstream.storage.superseding.History`."""
        since_ns, until_ns = appearance.first_at_ns, appearance.last_at_ns
        mine = [texts.info.frame_id for texts in self._showing(appearance, since_ns, until_ns)]
        if appearance.best_frame_id in mine:
            return appearance.best_frame_id
        query = {
            "bool": {
                "filter": _sightings(appearance, since_ns, until_ns),
                "should": [{"term": {"frame_id": storable(appearance.best_frame_id)}}],
            }
        }
        sort = [{"_score": "desc"}, {"captured_at": "asc"}]
        hits = self._regions(query=query, sort=sort, size=1)["hits"]["hits"]
        return str(hits[0]["_source"]["frame_id"]) if hits else next(iter(mine), None)

    def readings(self, appearance: Appearance, since_ns: int, until_ns: int) -> int:
        """See `ocrstream.storage.superseding.History`."""
        mine = [texts.info.frame_id for texts in self._showing(appearance, since_ns, until_ns)]
        query = {
            "bool": {
                "filter": _sightings(appearance, since_ns, until_ns),
                "must_not": [{"terms": {"frame_id": [storable(frame_id) for frame_id in mine]}}],
            }
        }
        return len(mine) + int(self._regions(query=query, size=0, track_total_hits=True)["hits"]["total"]["value"])

    def _showing(self, appearance: Appearance, since_ns: int, until_ns: int) -> list[Texts]:
        """The frames of the batch from one time to another with a reading of an appearance's track and generation."""
        source_id, track = appearance.source_id, track_of(appearance)
        return [
            texts
            for texts in self._winners.values()
            if texts.info.source_id == source_id and texts.info.generation == appearance.generation
            if since_ns <= texts.info.captured_at_ns <= until_ns
            if any(line.region.track_id == track for line in texts.lines)
        ]

    def _regions(self, **parameters: Any) -> Any:
        """A search for regions that sees all that earlier batches have written."""
        if not self._is_fresh:
            self._server.refresh(layout.REGIONS)
            self._is_fresh = True
        return self._server.find(layout.REGIONS, **parameters)

    def _any_read_again(self, appearances: Iterable[Appearance]) -> bool:
        """Whether any frame was read again in the time of these; one request where usually nothing was."""
        seen = list(appearances)
        if not seen:
            return False
        if self._again:
            return True
        first_ns, last_ns = min(a.first_at_ns for a in seen), max(a.last_at_ns for a in seen)
        sources = sorted({appearance.source_id for appearance in seen})
        query = _frames_again(sources, min(a.generation for a in seen) + 1, first_ns, last_ns)
        return bool(self._server.find(layout.FRAMES, query=query, size=1, _source=False)["hits"]["hits"])

    def _take(self, index: int, cut: Cut) -> None:
        floor = layout.lowest_appearance_version(cut.generation)
        self._changes[cut.whole.track_id] = _Change(index, cut.whole.first_at_ns, None, floor)
        for part in cut.parts:
            ends_earlier = part.last_at_ns < cut.whole.last_at_ns
            # Above what is stored of the whole, whose last sighting was later.
            self._put(index, part, floor if ends_earlier else layout.appearance_version(part))

    def _put(self, index: int, appearance: Appearance, version: int) -> None:
        self._changes[storable(appearance.track_id)] = _Change(index, appearance.first_at_ns, appearance, version)

    def _action(self, id: str, change: _Change) -> Action:
        document = None if change.appearance is None else layout.appearance_document(change.appearance)
        return Action(self._day(change.day_ns), id, change.version, document)

    def _day(self, first_ns: int) -> str:
        return layout.index_name(self._prefix, layout.APPEARANCES, first_ns)


def _newest(batch: Mapping[int, Texts], versions: Mapping[str, Version]) -> dict[str, tuple[int, Appearance]]:
    """Of each appearance in a batch the latest word, where none later is stored."""
    best = dict(versions)
    newest: dict[str, tuple[int, Appearance]] = {}
    for index, texts in batch.items():
        for appearance in texts.appearances:
            track_id = storable(appearance.track_id)
            if appearance.version >= best.get(track_id, (0, 0)):
                best[track_id] = appearance.version
                newest[track_id] = index, appearance
    return newest


def _frames_again(sources: list[str], generation: int, since_ns: int, until_ns: int) -> dict[str, Any]:
    clauses = [
        {"terms": {"source_id": [storable(source) for source in sources]}},
        {"range": {"generation": {"gte": max(generation, FIRST_READING + 1)}}},
        _captured(since_ns, until_ns),
    ]
    return {"bool": {"filter": clauses}}


def _sightings(appearance: Appearance, since_ns: int, until_ns: int) -> list[dict[str, Any]]:
    return [
        {"term": {"source_id": storable(appearance.source_id)}},
        {"term": {"track_id": storable(track_of(appearance))}},
        {"term": {"generation": appearance.generation}},
        _captured(since_ns, until_ns),
    ]


def _captured(since_ns: int, until_ns: int) -> dict[str, Any]:
    return {"range": {"captured_at": {"gte": layout.to_iso(since_ns), "lte": layout.to_iso(until_ns)}}}
