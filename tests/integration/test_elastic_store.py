"""The Elasticsearch store where things go wrong: on a real server, and on a stand-in that answers as told."""

from __future__ import annotations

import json
import socketserver
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import elasticsearch
import pytest

from ocrstream.config import ElasticsearchSettings
from ocrstream.errors import BackpressureError, ConfigError, DeploymentError, StoreError
from ocrstream.geometry import box_polygon
from ocrstream.messages import EngineInfo, FrameInfo, Region, Text, Texts
from ocrstream.query import parse
from ocrstream.storage import Filter, WriteReport, elastic_connection
from ocrstream.storage.elastic import ElasticStore
from ocrstream.storage.elastic_layout import MAPPINGS
from tests.services import free_port
from tests.services.elasticsearch import ElasticsearchServer

ENGINE = EngineInfo("ppocr", "0123456789ab")
DAY = "2026.01.01"


def frame(frame_id: str, *lines: str, generation: int = 1) -> Texts:
    info = FrameInfo("cam", frame_id, 1_767_268_800 * 10**9, 1280, 720, live=True, generation=generation)
    region = Region(0, box_polygon(1.0, 2.0, 30.0, 14.0), 0.5)
    texts = tuple(Text(replace(region, line_number=number), text, 0.9) for number, text in enumerate(lines))
    return Texts(info, ENGINE, ENGINE, texts)


def found(store: ElasticStore, query: str) -> list[str]:
    return sorted(hit.texts.info.frame_id for hit in store.search(parse(query), Filter()).hits)


# On a real server


@pytest.fixture
def prefix() -> str:
    return f"test-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def client(elasticsearch_url: str, prefix: str) -> Iterator[elasticsearch.Elasticsearch]:
    with elasticsearch.Elasticsearch(elasticsearch_url) as client:
        yield client
        names = list(client.indices.get(index=f"{prefix}-*"))
        if names:
            client.indices.delete(index=names)
        client.options(ignore_status=404).indices.delete_index_template(name=f"{prefix}-*")


@pytest.fixture
def store(elasticsearch_url: str, prefix: str, client: elasticsearch.Elasticsearch) -> Iterator[ElasticStore]:
    with closing(ElasticStore(ElasticsearchSettings(url=elasticsearch_url, prefix=prefix))) as store:
        store.check()
        yield store


def ids(client: elasticsearch.Elasticsearch, index: str) -> set[str]:
    client.indices.refresh(index=index)
    return {hit["_id"] for hit in client.search(index=index, size=100)["hits"]["hits"]}


def test_what_is_written_becomes_visible_by_itself(store: ElasticStore) -> None:
    store.write([frame("f1", "gate")])
    waiting = threading.Event()
    for _ in range(600):
        if found(store, "gate"):
            break
        waiting.wait(0.05)
    assert found(store, "gate") == ["f1"]


def test_how_soon_documents_can_be_found_holds_for_indices_that_are_there_already(
    elasticsearch_url: str, store: ElasticStore, client: elasticsearch.Elasticsearch, prefix: str
) -> None:
    def intervals() -> set[str]:
        shown = client.indices.get_settings(index=f"{prefix}-*").values()
        return {each["settings"]["index"]["refresh_interval"] for each in shown}

    store.write([frame("f1", "gate")])
    assert intervals() == {"250ms"}
    with closing(ElasticStore(ElasticsearchSettings(url=elasticsearch_url, prefix=prefix, refresh_ms=80))) as other:
        other.check()
    assert intervals() == {"80ms"}


def test_documents_lie_in_daily_indices_under_ids_of_their_own(
    store: ElasticStore, client: elasticsearch.Elasticsearch, prefix: str
) -> None:
    store.write([frame("f1", "gate", "b12"), frame("f2")])
    assert ids(client, f"{prefix}-frames-{DAY}") == {"f1", "f2"}
    assert ids(client, f"{prefix}-regions-{DAY}") == {"f1-000", "f1-001"}
    store.write([frame("f1", "platform", generation=2)])
    assert ids(client, f"{prefix}-regions-{DAY}") == {"f1-000"}
    region = client.get(index=f"{prefix}-regions-{DAY}", id="f1-000")
    assert region["_version"] == 2
    assert region["_source"] == {
        "frame_id": "f1",
        "source_id": "cam",
        "captured_at": "2026-01-01T12:00:00.000000000Z",
        "media_time_ms": None,
        "path": None,
        "generation": 2,
        "detector": {"name": "ppocr", "weights": "0123456789ab"},
        "recognizer": {"name": "ppocr", "weights": "0123456789ab"},
        "line_number": 0,
        "text": "platform",
        "confidence": 0.9,
        "detector_score": 0.5,
        "polygon": [[1.0, 2.0], [30.0, 2.0], [30.0, 14.0], [1.0, 14.0]],
        "box": {"x0": 1.0, "y0": 2.0, "x1": 30.0, "y1": 14.0},
        "track_id": None,
        "words": [],
    }


def test_the_mapping_is_explicit_and_strict(
    store: ElasticStore, client: elasticsearch.Elasticsearch, prefix: str
) -> None:
    store.write([frame("f1", "gate")])
    for family in ("frames", "regions"):
        (index,) = client.indices.get_mapping(index=f"{prefix}-{family}-*").values()
        assert index["mappings"]["dynamic"] == "strict"
        assert set(index["mappings"]["properties"]) == set(MAPPINGS[family])
    with pytest.raises(elasticsearch.BadRequestError, match="strict"):
        client.index(index=f"{prefix}-frames-{DAY}", document={"surprise": 1})


def test_several_words_find_the_frame_in_kibana_too(
    store: ElasticStore, client: elasticsearch.Elasticsearch, prefix: str
) -> None:
    store.write([frame("f1", "Gate", "B12"), frame("f2", "Gate", "C4")])
    client.indices.refresh(index=f"{prefix}-*")
    answer = client.search(index=f"{prefix}-frames-*", query={"query_string": {"query": "text:(gate AND b12)"}})
    assert [hit["_id"] for hit in answer["hits"]["hits"]] == ["f1"]


def test_a_crash_between_regions_and_frame_is_repaired_by_redelivery(
    store: ElasticStore, client: elasticsearch.Elasticsearch, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write([frame("f1", "a", "b", "c")])
    with monkeypatch.context() as patch:
        patch.setattr(store._server, "bulk", _dying_before_frames(store._server.bulk))
        with pytest.raises(StoreError, match="power cut"):
            store.write([frame("f1", "d", generation=2)])
    stored = store.get("f1")
    assert stored is None or stored.info.generation == 1
    assert store.write([frame("f1", "d", generation=2)]) == WriteReport(written=1)
    assert ids(client, f"{prefix}-regions-{DAY}") == {"f1-000"}
    assert ids(client, f"{prefix}-frames-{DAY}") == {"f1"}
    stored = store.get("f1")
    assert stored is not None
    assert stored.text == "d"


def test_lines_of_a_reading_that_died_and_was_overtaken_go(
    store: ElasticStore, client: elasticsearch.Elasticsearch, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(store._server, "bulk", _dying_before_frames(store._server.bulk))
        with pytest.raises(StoreError, match="power cut"):
            store.write([frame("f1", "a", "b", "c", generation=2)])
    store.write([frame("f1", "d", generation=3)])
    assert store.write([frame("f1", "a", "b", "c", generation=2)]) == WriteReport(outdated=1)
    assert ids(client, f"{prefix}-regions-{DAY}") == {"f1-000"}


def _dying_before_frames(bulk: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def die(actions: list[tuple[int, Any]]) -> Any:
        if any("-frames-" in action.index for _, action in actions):
            raise StoreError("power cut")
        return bulk(actions)

    return die


def test_a_writer_that_is_overtaken_on_the_way_is_outdated(
    store: ElasticStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write([frame("f1", "new", generation=9)])
    monkeypatch.setattr(store, "_stored", lambda batch: ({}, {}))
    assert store.write([frame("f1", "old"), frame("f2", "old")]) == WriteReport(written=1, outdated=1)
    stored = store.get("f1")
    assert stored is None or stored.text == "new"


def test_what_the_server_will_not_take_is_refused_and_the_rest_is_written(store: ElasticStore) -> None:
    too_long = frame("bad", "gate")
    too_long = replace(too_long, info=replace(too_long.info, path="/x" * 20_000))
    report = store.write([frame("f1", "gate"), too_long, frame("f2", "gate")])
    assert report.written == 2
    assert list(report.refused) == [1]
    assert "immense term" in report.refused[1]


def test_check_gives_existing_indices_the_fields_they_lack(
    store: ElasticStore, client: elasticsearch.Elasticsearch, prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.write([frame("f1", "gate")])
    monkeypatch.setitem(MAPPINGS, "frames", {**MAPPINGS["frames"], "colour": {"type": "keyword"}})
    store.check()
    (index,) = client.indices.get_mapping(index=f"{prefix}-frames-*").values()
    assert index["mappings"]["properties"]["colour"] == {"type": "keyword"}
    monkeypatch.setitem(MAPPINGS, "frames", {**MAPPINGS["frames"], "live": {"type": "keyword"}})
    with pytest.raises(DeploymentError, match="live"):
        store.check()


def test_a_server_that_goes_and_comes_back_has_lost_nothing(elasticsearch_server: ElasticsearchServer) -> None:
    settings = ElasticsearchSettings(url=elasticsearch_server.url, timeout_s=20)
    with closing(ElasticStore(settings)) as store:
        store.check()
        store.write([frame("f1", "gate")])
        elasticsearch_server.kill()
        for request in (
            lambda: store.write([frame("f2", "gate")]),
            lambda: found(store, "gate"),
            lambda: store.get("f1"),
            store.sources,
            store.check,
        ):
            with pytest.raises(StoreError, match="does not answer"):
                request()
        elasticsearch_server.start()
        assert store.write([frame("f1", "gate"), frame("f2", "gate")]) == WriteReport(written=2)
        with elasticsearch.Elasticsearch(elasticsearch_server.url) as client:
            client.indices.refresh(index="ocr-*")
        assert found(store, "gate") == ["f1", "f2"]


# On a stand-in


Answer = tuple[int, dict[str, Any]]


class StandIn(socketserver.ThreadingTCPServer):
    """Answers each kind of request with its scripted answers, one after the other; the last one stays."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: dict[str, list[Answer]] = {"/": [(200, {"version": {"number": "8.17.0"}})]}
        self.requests: list[tuple[str, bytes]] = []
        self.product = "Elasticsearch"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def answer(self, path: str, body: bytes) -> Answer:
        self.requests.append((path, body))
        answers = self.answers.get(path, [(200, {"acknowledged": True})])
        return answers.pop(0) if len(answers) > 1 else answers[0]


class _Handler(BaseHTTPRequestHandler):
    server: StandIn

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        status, content = self.server.answer(self.path.split("?")[0], body)
        encoded = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("X-Elastic-Product", self.server.product)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    do_GET = do_POST = do_PUT = _answer  # noqa: N815 the base class's names

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def stand_in() -> Iterator[StandIn]:
    with StandIn() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        server.answers["/_mget"] = [(200, {"docs": []})]
        server.answers["/_bulk"] = [(200, {"errors": False})]
        yield server
        server.shutdown()
        thread.join()


@pytest.fixture
def told(stand_in: StandIn, monkeypatch: pytest.MonkeyPatch) -> Iterator[ElasticStore]:
    monkeypatch.setattr(elastic_connection, "_FIRST_PAUSE_S", 0.001)
    settings = ElasticsearchSettings(url=stand_in.url, username="ocr", password="secret-word", timeout_s=10)
    with closing(ElasticStore(settings)) as store:
        yield store


def error(reason: str, kind: str = "some_exception") -> dict[str, Any]:
    return {"error": {"type": kind, "reason": reason}}


def items(*statuses: int) -> Answer:
    results = [{"index": {"status": s, **(error("not now") if s >= 300 else {})}} for s in statuses]
    return 200, {"errors": any(s >= 300 for s in statuses), "items": results}


@pytest.mark.parametrize("version", ["7.17.9", "9.1.0"])
def test_another_major_version_says_what_to_do(stand_in: StandIn, told: ElasticStore, version: str) -> None:
    stand_in.answers["/"] = [(200, {"version": {"number": version}})]
    with pytest.raises(DeploymentError, match=f"is version {version}; .* version 8"):
        told.check()


def test_another_product_says_so(stand_in: StandIn, told: ElasticStore) -> None:
    stand_in.product = "OpenSearch"
    with pytest.raises(DeploymentError, match="is not Elasticsearch 8"):
        told.check()


@pytest.mark.parametrize(
    ("status", "kind", "part"),
    [
        (401, DeploymentError, "OCRSTREAM_ELASTICSEARCH_PASSWORD"),
        (403, DeploymentError, "manage_index_templates"),
        (404, DeploymentError, "refuses a request"),
        (413, DeploymentError, "client_max_body_size"),
        (429, BackpressureError, "too busy"),
        (500, StoreError, "at the moment"),
        (503, StoreError, "at the moment"),
    ],
)
def test_an_answer_that_lasts_says_what_to_do_and_no_password(
    stand_in: StandIn, told: ElasticStore, status: int, kind: type[Exception], part: str
) -> None:
    told.check()
    stand_in.answers["/_bulk"] = [(status, error("because"))]
    with pytest.raises(kind, match=part) as caught:
        told.write([frame("f1", "gate")])
    assert "secret-word" not in repr(caught.value) + str(caught.value) + repr(told)


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_server_that_is_busy_for_a_moment_is_asked_again(stand_in: StandIn, told: ElasticStore, status: int) -> None:
    stand_in.answers["/_mget"] = [(status, error("busy")), (200, {"docs": []})]
    stand_in.answers["/_bulk"] = [(status, error("busy")), (status, error("busy")), (200, {"errors": False})]
    assert told.write([frame("f1", "gate")]) == WriteReport(written=1)


def test_only_the_items_that_were_too_many_are_sent_again(stand_in: StandIn, told: ElasticStore) -> None:
    stand_in.answers["/_bulk"] = [items(200, 429, 201), items(503), items(200), (200, {"errors": False})]
    assert told.write([frame("f1", "a", "b", "c")]) == WriteReport(written=1)
    bulks = [body.count(b'{"index"') for path, body in stand_in.requests if path == "/_bulk"]
    assert bulks == [3, 1, 1, 1]


def test_items_that_stay_too_many_ask_for_a_pause(stand_in: StandIn, told: ElasticStore) -> None:
    stand_in.answers["/_bulk"] = [items(429)]
    with pytest.raises(BackpressureError) as caught:
        told.write([frame("f1", "a")])
    assert caught.value.retry_after_s > 0


def test_a_refused_line_refuses_its_frame(stand_in: StandIn, told: ElasticStore) -> None:
    stand_in.answers["/_bulk"] = [items(200, 400), (200, {"errors": False})]
    report = told.write([frame("f1", "a"), frame("f2", "b")])
    assert report == WriteReport(written=1, refused={1: "Elasticsearch does not take it: not now"})


def test_a_cluster_out_of_disk_is_a_store_error(stand_in: StandIn, told: ElasticStore) -> None:
    blocked = {"index": {"status": 403, "error": {"type": "cluster_block_exception", "reason": "flood stage"}}}
    stand_in.answers["/_bulk"] = [(200, {"errors": True, "items": [blocked]})]
    with pytest.raises(StoreError, match="flood stage"):
        told.write([frame("f1", "a")])


def test_a_server_that_is_not_there_is_a_store_error() -> None:
    url = f"http://user:secret-word@127.0.0.1:{free_port()}"
    with closing(ElasticStore(ElasticsearchSettings(url=url))) as store:
        for request in (store.check, lambda: store.write([frame("f1", "a")]), lambda: store.get("f1")):
            with pytest.raises(StoreError, match="does not answer") as caught:
                request()
            assert "secret-word" not in str(caught.value)


@pytest.mark.parametrize(
    ("fields", "part"),
    [
        ({"url": "localhost:9200"}, "http://HOST:PORT"),
        ({"url": "http://"}, "http://HOST:PORT"),
        ({"url": "http://host:port"}, "http://HOST:PORT"),
        ({"url": "ftp://user:secret-word@host"}, "http://HOST:PORT"),
        ({"url": "http://host", "prefix": "OCR"}, "small letters"),
        ({"url": "http://host", "prefix": "a*"}, "small letters"),
        ({"url": "https://host", "ca_file": "/missing.pem"}, "no file /missing.pem"),
    ],
)
def test_settings_that_cannot_work_are_told_at_once(fields: dict[str, Any], part: str) -> None:
    with pytest.raises(ConfigError, match=part) as caught:
        ElasticStore(ElasticsearchSettings(**fields))
    assert "secret-word" not in str(caught.value)


def test_a_certificate_file_without_certificate_is_told_at_once(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    settings = ElasticsearchSettings(url="https://localhost:9200", ca_file=str(tmp_path / "ca.pem"))
    with pytest.raises(ConfigError, match="ca_file"):
        ElasticStore(settings)
