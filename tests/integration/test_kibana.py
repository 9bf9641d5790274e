"""Kibana's saved objects do what they say: their fields, filters and aggregations run on the real Elasticsearch.

Kibana itself is in no package registry, so its part is played by the requests that it would send; the script that
brings the objects in talks to a small server that answers as Kibana does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest

from ocrstream.config import ElasticsearchSettings
from ocrstream.geometry import box_polygon
from ocrstream.messages import Appearance, Texts
from ocrstream.storage.elastic import ElasticStore
from ocrstream.storage.embedded import EmbeddedStore
from search.server import PageServer
from search.web import build_app
from tests.documents import NOON_NS, PictureTable, frame, line, picture
from tests.services import free_port
from tests.services.browser import Window

KIBANA = Path(__file__).resolve().parents[2] / "deploy" / "kibana"
SAVED_OBJECTS = [json.loads(text) for text in (KIBANA / "ocrstream.ndjson").read_text(encoding="utf-8").splitlines()]
BY_ID: dict[str, dict[str, Any]] = {saved["id"]: saved for saved in SAVED_OBJECTS}
DATA_VIEW = "kibanaSavedObjectMeta.searchSourceJSON.index"

METRICS = ("count", "sum", "avg", "max")


def of_type(kind: str) -> list[str]:
    return [id for id, saved in BY_ID.items() if saved["type"] == kind]


def attributes(id: str) -> dict[str, Any]:
    found: dict[str, Any] = BY_ID[id]["attributes"]
    return found


def view_of(id: str) -> str:
    """The data view that a search or a visualisation looks at."""
    (view,) = [reference["id"] for reference in BY_ID[id]["references"] if reference["name"] == DATA_VIEW]
    return str(view)


def source_of(id: str) -> dict[str, Any]:
    source: dict[str, Any] = json.loads(attributes(id)["kibanaSavedObjectMeta"]["searchSourceJSON"])
    return source


def appearance(track_id: str, text: str, readings: int, seconds: float) -> Appearance:
    last_at_ns = NOON_NS + round(seconds * 1e9)
    return Appearance(
        track_id,
        "gate",
        text,
        0.9,
        NOON_NS,
        last_at_ns,
        None,
        None,
        "best",
        readings,
        ((0.0, box_polygon(1, 2, 3, 4)),),
        True,
    )


READINGS: list[Texts] = [
    frame("gate", 0, line(0, "GATE B12", 0.91), line(1, "Boarding now", 0.62)),
    frame("gate", 1, line(0, "GATE B12", 0.93), appearances=(appearance("t1", "GATE B12", 3, 8.5),)),
    frame("gate", 2),
    frame("hall", 90, line(0, "Exit", 0.33), appearances=(appearance("t2", "Boarding now", 1, 0.5),)),
]


class Index:
    """Elasticsearch as Kibana sees it, with `READINGS` in it."""

    def __init__(self, url: str, prefix: str) -> None:
        self._url = url
        self._prefix = prefix

    def post(self, view: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask the indices of a data view."""
        pattern = attributes(view)["title"].replace("ocr-", f"{self._prefix}-")
        answer = httpx.post(f"{self._url}/{pattern}/{path}", json=body, timeout=30)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    def fields(self, view: str) -> dict[str, dict[str, Any]]:
        """What Kibana learns of a data view's fields: name -> ``searchable`` and ``aggregatable``."""
        found = self.post(view, "_field_caps?fields=*")["fields"]
        return {name: next(iter(kinds.values())) for name, kinds in found.items()}


@pytest.fixture(scope="module")
def index(elasticsearch_url: str) -> Iterator[Index]:
    prefix = f"kibana{uuid.uuid4().hex[:8]}"
    store = ElasticStore(ElasticsearchSettings(url=elasticsearch_url, prefix=prefix))
    try:
        store.check()
        assert store.write(READINGS).written == len(READINGS)
        index = Index(elasticsearch_url, prefix)
        for view in of_type("index-pattern"):
            index.post(view, "_refresh")
        yield index
        store.drop_before(2**63 - 1)
    finally:
        store.close()


def test_every_reference_leads_somewhere() -> None:
    assert len(BY_ID) == len(SAVED_OBJECTS)
    for saved in SAVED_OBJECTS:
        for reference in saved["references"]:
            assert BY_ID[reference["id"]]["type"] == reference["type"]
    for id in [*of_type("search"), *of_type("visualization")]:
        assert source_of(id)["indexRefName"] == DATA_VIEW
        for condition in source_of(id)["filter"]:
            assert condition["meta"]["indexRefName"] in {reference["name"] for reference in BY_ID[id]["references"]}


def test_there_are_views_of_all_families_a_search_and_a_dashboard() -> None:
    assert {attributes(id)["title"] for id in of_type("index-pattern")} == {
        "ocr-frames-*",
        "ocr-regions-*",
        "ocr-appearances-*",
    }
    assert (len(of_type("search")), len(of_type("dashboard"))) == (1, 1)


def test_the_dashboard_shows_every_visualisation_and_the_search_without_overlap() -> None:
    (dashboard,) = of_type("dashboard")
    shown = {reference["name"]: reference["id"] for reference in BY_ID[dashboard]["references"]}
    panels = json.loads(attributes(dashboard)["panelsJSON"])
    assert {shown[f"{panel['panelIndex']}:{panel['panelRefName']}"] for panel in panels} == {
        *of_type("visualization"),
        *of_type("search"),
    }
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        grid = panel["gridData"]
        cells = {
            (x, y) for x in range(grid["x"], grid["x"] + grid["w"]) for y in range(grid["y"], grid["y"] + grid["h"])
        }
        assert not taken & cells
        taken |= cells
    assert max(x for x, _ in taken) < 48, "Kibana's grid has 48 columns"


@pytest.mark.parametrize("view", of_type("index-pattern"))
def test_the_fields_of_a_data_view_exist(index: Index, view: str) -> None:
    fields = index.fields(view)
    formatted = set(json.loads(attributes(view)["fieldFormatMap"])) | set(json.loads(attributes(view)["fieldAttrs"]))
    assert formatted <= set(fields)
    time_field = attributes(view)["timeFieldName"]
    assert fields[time_field]["type"] == "date_nanos"
    hour = {"gte": "2026-01-01T12:00:00.000Z", "lt": "2026-01-01T13:00:00.000Z", "format": "strict_date_optional_time"}
    found = index.post(view, "_search", {"query": {"range": {time_field: hour}}, "size": 0})
    everything = index.post(view, "_search", {"size": 0})
    assert found["hits"]["total"]["value"] == everything["hits"]["total"]["value"] > 0


@pytest.mark.parametrize("id", of_type("search"))
def test_a_search_shows_its_columns_newest_first(index: Index, id: str) -> None:
    search, fields = attributes(id), index.fields(view_of(id))
    assert {*search["columns"], *(name for name, _ in search["sort"])} <= set(fields)
    assert set(search["grid"]["columns"]) <= set(search["columns"])
    conditions = source_of(id)["filter"]
    assert all(fields[condition["meta"]["key"]]["searchable"] for condition in conditions)
    body = {
        "query": {"bool": {"filter": [condition["query"] for condition in conditions]}},
        "fields": search["columns"],
        "sort": [{name: order} for name, order in search["sort"]],
        "_source": False,
    }
    hits = [hit["fields"] for hit in index.post(view_of(id), "_search", body)["hits"]["hits"]]
    assert [(hit["source_id"], hit["text"], hit["best_confidence"]) for hit in hits] == [
        (["hall"], ["Exit"], [0.33]),
        (["gate"], ["GATE B12"], [0.93]),
        (["gate"], ["GATE B12\nBoarding now"], [0.91]),
    ]


def test_words_typed_into_the_search_find_their_frames(index: Index) -> None:
    # What Kibana makes of `boarding b12` where no field is named.
    query = {"multi_match": {"type": "best_fields", "query": "boarding b12", "lenient": True, "operator": "and"}}
    (hit,) = index.post("ocrstream-frames", "_search", {"query": query})["hits"]["hits"]
    assert hit["_source"]["frame_id"] == READINGS[0].info.frame_id


def request_of(aggregations: list[dict[str, Any]]) -> dict[str, Any]:
    """The request that Kibana sends for a visualisation: buckets one in the other, the metrics in the innermost."""
    metrics = [aggregation for aggregation in aggregations if aggregation["type"] in METRICS]
    innermost = {a["id"]: {a["type"]: {"field": a["params"]["field"]}} for a in metrics if a["type"] != "count"}
    counts = {aggregation["id"] for aggregation in metrics if aggregation["type"] == "count"}
    buckets = [aggregation for aggregation in aggregations if aggregation not in metrics]
    for bucket in reversed(buckets):
        innermost = {bucket["id"]: {**bucket_of(bucket, counts), "aggs": innermost}}
    return {"size": 0, "aggs": innermost}


def bucket_of(aggregation: dict[str, Any], counts: set[str]) -> dict[str, Any]:
    params = aggregation["params"]
    match aggregation["type"]:
        case "terms":
            order = "_count" if params["orderBy"] in counts else params["orderBy"]
            return {"terms": {"field": params["field"], "size": params["size"], "order": {order: params["order"]}}}
        case "date_histogram":
            return {"date_histogram": {"field": params["field"], "fixed_interval": "1m", "min_doc_count": 1}}
        case "histogram":
            return {"histogram": {"field": params["field"], "interval": params["interval"], "min_doc_count": 1}}
        case other:
            raise AssertionError(f"the test does not know the aggregation {other}")


def run_visualisation(index: Index, id: str) -> dict[str, Any]:
    state = json.loads(attributes(id)["visState"])
    fields = index.fields(view_of(id))
    for aggregation in state["aggs"]:
        if aggregation["type"] != "count":
            assert fields[aggregation["params"]["field"]]["aggregatable"], aggregation
    found: dict[str, Any] = index.post(view_of(id), "_search", request_of(state["aggs"]))["aggregations"]
    return found


def test_every_visualisation_is_tested() -> None:
    assert set(of_type("visualization")) == {
        "ocrstream-texts-over-time",
        "ocrstream-sources",
        "ocrstream-texts",
        "ocrstream-confidence",
    }


def test_text_lines_over_time_by_source(index: Index) -> None:
    minutes = run_visualisation(index, "ocrstream-texts-over-time")["2"]["buckets"]
    seen = [
        (minute["key_as_string"], [(source["key"], source["doc_count"]) for source in minute["3"]["buckets"]])
        for minute in minutes
    ]
    assert seen == [("2026-01-01T12:00:00.000Z", [("gate", 3)]), ("2026-01-01T12:01:00.000Z", [("hall", 1)])]


def test_sources(index: Index) -> None:
    sources = run_visualisation(index, "ocrstream-sources")["5"]["buckets"]
    assert [(source["key"], source["doc_count"], source["2"]["value"]) for source in sources] == [
        ("gate", 3, 3),
        ("hall", 1, 1),
    ]
    assert sources[0]["3"]["value"] == pytest.approx(0.92)
    assert sources[0]["4"]["value_as_string"] == "2026-01-01T12:00:02.000Z"


def test_texts_seen_most(index: Index) -> None:
    texts = run_visualisation(index, "ocrstream-texts")["4"]["buckets"]
    assert {text["key"]: text["2"]["value"] for text in texts} == {"GATE B12": 8.5, "Boarding now": 0.5}


def test_confidence_of_the_text_lines(index: Index) -> None:
    steps = run_visualisation(index, "ocrstream-confidence")["2"]["buckets"]
    assert [(round(step["key"], 2), step["doc_count"]) for step in steps] == [(0.3, 1), (0.6, 1), (0.9, 2)]


@pytest.mark.parametrize("view", of_type("index-pattern"))
def test_thumbnails_come_from_the_search_page(view: str) -> None:
    formats = json.loads(attributes(view)["fieldFormatMap"])
    (template,) = [made["params"]["urlTemplate"] for made in formats.values() if made["id"] == "url"]
    assert template == "http://localhost:8077/frames/{{value}}.jpg?w=320"


def test_a_page_on_another_port_of_the_host_may_show_them(window: Window, tmp_path: Path) -> None:
    store, pictures = EmbeddedStore(tmp_path), PictureTable()
    store.check()
    reading = READINGS[0]
    store.write([reading])
    pictures.by_frame[reading.info.frame_id] = picture()
    try:
        with (
            PageServer(build_app(store, pictures), port=0) as server,
            FakeKibana(f"<img src='{address_of(server)}/frames/{reading.info.frame_id}.jpg?w=320'>") as kibana,
        ):
            window.page.goto(kibana.url)
            assert (
                window.page.evaluate("document.images[0].decode().then(() => document.images[0].naturalWidth)") == 320
            )
    finally:
        store.close()


def address_of(server: PageServer) -> str:
    """By name: of two ports of an IP address, a browser does not say that they are of the same site."""
    return server.address.replace("127.0.0.1", "localhost")


class FakeKibana:
    """Answers as Kibana does, and keeps what it was sent; also a context manager.

    Args:
        page: what any GET answers.
    """

    def __init__(self, page: str = "") -> None:
        self.answer: tuple[int, dict[str, Any]] = (200, {"success": True, "successCount": len(SAVED_OBJECTS)})
        self.sent: list[tuple[str, dict[str, str], str]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(200, "text/html", page.encode())

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"])).decode()
                outer.sent.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                self._answer(outer.answer[0], "application/json", json.dumps(outer.answer[1]).encode())

            def _answer(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        self._server = HTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> FakeKibana:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def kibana() -> Iterator[FakeKibana]:
    with FakeKibana() as running:
        yield running


def bring_in(url: str, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the script as the compose file does."""
    return subprocess.run(
        [sys.executable, str(KIBANA / "import_saved_objects.py"), *arguments],
        env={"PATH": os.environ["PATH"], "KIBANA_URL": url, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_the_objects_are_sent_with_the_deployments_own_address(kibana: FakeKibana) -> None:
    done = bring_in(kibana.url, SEARCH_URL="", SEARCH_PORT="9000")
    assert (done.returncode, done.stdout) == (0, "ocrstream.ndjson: 9 objects imported\n")
    ((path, headers, body),) = kibana.sent
    assert path == "/api/saved_objects/_import?overwrite=false"
    assert headers["kbn-xsrf"]
    assert headers["content-type"].startswith("multipart/form-data; boundary=")
    assert "authorization" not in headers
    sent = [json.loads(text) for text in body.splitlines() if text.startswith("{")]
    assert [saved["id"] for saved in sent] == list(BY_ID)
    assert "localhost:8077" not in body
    assert body.count("http://localhost:9000/frames/") == 3


def test_a_public_address_and_credentials_are_taken_from_the_environment(kibana: FakeKibana) -> None:
    bring_in(kibana.url, SEARCH_URL="https://seen.example/", KIBANA_USERNAME="elastic", KIBANA_PASSWORD="secret")
    ((_, headers, body),) = kibana.sent
    assert body.count("https://seen.example/frames/") == 3
    assert headers["authorization"] == "Basic ZWxhc3RpYzpzZWNyZXQ="


def test_what_is_there_already_stays_and_is_no_error(kibana: FakeKibana) -> None:
    there = [{"id": id, "type": "index-pattern", "error": {"type": "conflict"}} for id in of_type("index-pattern")]
    kibana.answer = (200, {"success": False, "successCount": 6, "errors": there})
    done = bring_in(kibana.url)
    assert (done.returncode, done.stdout) == (
        0,
        "ocrstream.ndjson: 6 objects imported, 3 were there and stay as they are\n",
    )


def test_overwrite_puts_the_delivered_version_back(kibana: FakeKibana) -> None:
    assert bring_in(kibana.url, "--overwrite").returncode == 0
    assert kibana.sent[0][0] == "/api/saved_objects/_import?overwrite=true"


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ((503, {"message": "Kibana server is not ready yet"}), "refuses ocrstream.ndjson (503)"),
        (
            (200, {"successCount": 8, "errors": [{"id": "x", "error": {"type": "missing_references"}}]}),
            'could not import: [{"id": "x"',
        ),
    ],
)
def test_a_refusal_is_told_and_tried_again_by_the_engine(
    kibana: FakeKibana, answer: tuple[int, dict[str, Any]], says: str
) -> None:
    kibana.answer = answer
    done = bring_in(kibana.url)
    assert done.returncode == 1
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_kibana_away() -> None:
    done = bring_in(f"http://127.0.0.1:{free_port()}")
    assert done.returncode == 1
    assert "does not answer" in done.stderr
    assert "Traceback" not in done.stderr
