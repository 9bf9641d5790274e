import io
import socket
from collections.abc import Iterator
from pathlib import Path

import httpx
import numpy as np
import PIL.Image
import pytest
from starlette.datastructures import QueryParams
from starlette.types import ASGIApp, Receive, Scope, Send

from ocrstream.errors import ConfigError, DeploymentError, OcrstreamError, QueryError, StoreError
from ocrstream.messages import Appearance
from ocrstream.metrics import Metrics
from ocrstream.picture import encode_jpeg
from ocrstream.storage import Filter, Hit, Page
from ocrstream.storage.embedded import EmbeddedStore
from search.asking import Asked, format_time, parse_time, read_parameters
from search.server import PageServer
from search.showing import Piece, cut, fold, format_media_time
from search.web import Status, build_app
from tests.documents import NOON_NS, PictureTable, frame, line, picture


class FlakyStore(EmbeddedStore):
    """A store that can be away."""

    away: OcrstreamError | None = None

    def search(self, *arguments: object, **options: object) -> Page:
        self._check()
        return super().search(*arguments, **options)  # type: ignore[arg-type]

    def get(self, frame_id: str):  # type: ignore[no-untyped-def]
        self._check()
        return super().get(frame_id)

    def _check(self) -> None:
        if self.away:
            raise self.away


class Stage:
    """One server for all tests of this module: starting and stopping takes longer than a test."""

    def __init__(self) -> None:
        self.app: ASGIApp | None = None
        self.server = PageServer(self._serve, port=0)
        self.client = httpx.Client(base_url=self.server.address)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self.app is not None
        await self.app(scope, receive, send)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage()
    with made.server, made.client:
        yield made


class Site:
    """A page being served, and what it is served from."""

    def __init__(self, stage: Stage, directory: Path) -> None:
        self.store = FlakyStore(directory)
        self.store.check()
        self.pictures = PictureTable()
        self.metrics = Metrics()
        self.status = Status(frames_in=1200, frames_read=300, frames_dropped=7, delay_s=0.25, texts_per_s=12.5)
        self.server = stage.server
        self._client = stage.client
        stage.app = build_app(self.store, self.pictures, self.metrics, lambda: self.status)

    def get(self, address: str, **headers: str) -> httpx.Response:
        return self._client.get(address, headers=headers)


@pytest.fixture
def site(stage: Stage, tmp_path: Path) -> Iterator[Site]:
    made = Site(stage, tmp_path)
    yield made
    made.store.close()


GATE = frame("camera:hall", 1, "GATE B12", line(1, "BOARDING now", 0.62))
CAFE = frame("cafe.mp4", 2, "CAFE ORBIT", "Espresso 2.40", media=True)


def texts_of(answer: httpx.Response) -> list[list[str]]:
    return [[each["text"] for each in hit["lines"]] for hit in answer.json()["hits"]]


def test_api_search_gives_documented_fields(site: Site) -> None:
    site.store.write([GATE, CAFE])
    answer = site.get("/api/search?q=gate").json()
    assert (answer["query"], answer["total"], answer["total_is_exact"]) == ("gate", 1, True)
    hit = answer["hits"][0]
    assert hit["source"] == "camera:hall"
    assert hit["captured_at"] == "2026-01-01T12:00:01.000000000Z"
    assert hit["media_time_ms"] is None
    assert hit["picture"] == f"/frames/{GATE.info.frame_id}.jpg"
    assert hit["lines"][0] == {
        "line_number": 0,
        "text": "GATE B12",
        "confidence": 0.9,
        "detector_score": 0.75,
        "polygon": [[100, 50], [300, 50], [300, 90], [100, 90]],
        "track_id": None,
        "words": [],
        "matches": [[0, 4]],
    }
    assert hit["detector"] == {"name": "ppocr", "weights": "0123456789ab"}
    assert site.metrics.count("search.queries") == 1


def test_empty_query_gives_the_newest_first(site: Site) -> None:
    site.store.write([GATE, CAFE])
    assert texts_of(site.get("/api/search")) == [["CAFE ORBIT", "Espresso 2.40"], ["GATE B12", "BOARDING now"]]


@pytest.mark.parametrize(
    ("parameters", "found"),
    [
        ("q=boarding&min_confidence=0.7", 0),
        ("q=boarding&min_confidence=0.6", 1),
        ("source=cafe.mp4", 1),
        ("source=cafe.mp4&source=camera:hall", 2),
        ("since=2026-01-01T12:00:02Z", 1),
        ("until=2026-01-01T13:00:02%2B01:00", 1),
        ("since=&until=&min_confidence=&source=", 2),
    ],
)
def test_api_filters(site: Site, parameters: str, found: int) -> None:
    site.store.write([GATE, CAFE])
    assert site.get(f"/api/search?{parameters}").json()["total"] == found


@pytest.mark.parametrize(
    ("parameters", "complaint"),
    [
        ("page=0", "page is a whole number from 1"),
        ("page=1e9", "page is a whole number"),
        ("limit=101", "limit is a whole number from 1 to 100"),
        ("page=101&limit=100", "from 1 to 100"),
        ("min_confidence=90", "0 to 1"),
        ("min_confidence=nan", "0 to 1"),
        ("since=yesterday", "is not a time"),
        ("since=2026-01-02&until=2026-01-01", "the first must be the earlier"),
        ("sort=worst", "sort is best or newest"),
        ("q=" + "x" * 501, "at most 500"),
        ("q=%22open", "quote"),
        ("source=" + "x" * 201, "200 characters"),
    ],
)
def test_bad_parameters_are_explained(site: Site, parameters: str, complaint: str) -> None:
    answer = site.get(f"/api/search?{parameters}")
    assert answer.status_code == 400
    assert complaint in answer.json()["error"]
    page = site.get(f"/?{parameters}")
    assert page.status_code == 400
    assert "cannot be understood" in page.text


def test_page_shows_what_was_found_where(site: Site) -> None:
    site.store.write([GATE, CAFE])
    page = site.get("/?q=b12").text
    assert "GATE <mark>B12</mark>" in page
    assert '<polygon class="found" points="100,50 300,50 300,90 100,90" data-line="0"/>' in page
    assert '<polygon points="100,110 300,110 300,150 100,150" data-line="1"/>' in page
    assert 'datetime="2026-01-01T12:00:01.000000000Z" title="2026-01-01 12:00:01 UTC"' in page
    assert "CAFE" not in page


def test_what_was_read_is_never_markup(site: Site) -> None:
    site.store.write([frame("<b>cam</b>", 0, '<script>alert("x")</script> & "quotes"')])
    for address in ("/", "/?q=script", "/?q=%3Cscript%3Ealert", "/frame/" + frame("<b>cam</b>", 0).info.frame_id):
        page = site.get(address).text
        assert "<script>alert" not in page
        assert "<b>cam" not in page
    assert "&lt;<mark>script</mark>&gt;" in site.get("/?q=script").text


def test_every_answer_has_the_security_headers(site: Site) -> None:
    for address in (
        "/",
        "/api/search",
        "/static/page.css",
        "/favicon.ico",
        "/frame/none",
        "/?page=x",
        "/frames/none.jpg",
    ):
        headers = site.get(address).headers
        assert headers["content-security-policy"].startswith("default-src 'none'; img-src 'self'")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"


def test_no_page_needs_inline_script_or_style(site: Site) -> None:
    site.store.write([GATE])
    for address in ("/", "/?q=gate", "/?q=nothing", f"/frame/{GATE.info.frame_id}"):
        page = site.get(address).text
        assert " style=" not in page
        assert " onclick=" not in page
        assert page.count("<script") == page.count('<script src="/static/')
        assert "http://" not in page.replace("http://www.w3.org", "")


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("127.0.0.1:99", 200),
        ("[::1]:8077", 200),
        ("page.localhost", 200),
        ("attacker.example", 421),
        ("127.0.0.1.attacker.example", 421),
        ("", 421),
    ],
)
def test_only_loopback_names_are_answered_on_loopback(site: Site, host: str, status: int) -> None:
    assert site.get("/healthz", Host=host).status_code == status


@pytest.mark.parametrize(
    "address", ["/static/../web.py", "/static/%2e%2e/web.py", "/frames/..%2f..%2fetc%2fpasswd.jpg", "/frame/../../etc"]
)
def test_no_path_leads_out(site: Site, address: str) -> None:
    with socket.create_connection(("127.0.0.1", int(site.server.address.rpartition(":")[2]))) as raw:
        raw.sendall(f"GET {address} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode())
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 404")


def test_away_store_is_said_and_recovered_from(site: Site) -> None:
    site.store.write([GATE])
    site.store.away = StoreError("Elasticsearch cannot be reached at http://es:9200")
    for address in ("/", "/api/search", "/healthz"):
        answer = site.get(address)
        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "5"
        assert "Elasticsearch cannot be reached at http://es:9200" in answer.text
    assert '<meta http-equiv="refresh" content="5">' in site.get("/").text
    site.store.away = None
    assert "GATE B12" in site.get("/").text
    assert site.get("/healthz").text == "ok\n"


def test_store_that_cannot_be_used_is_explained(site: Site) -> None:
    site.store.away = DeploymentError("documents.sqlite is damaged: move it away")
    assert site.get("/").status_code == 500
    assert "documents.sqlite is damaged: move it away" in site.get("/").text
    assert site.get("/healthz").json() == {"error": "documents.sqlite is damaged: move it away"}


def test_picture_is_passed_on_and_scaled_down(site: Site) -> None:
    site.store.write([GATE])
    site.pictures.by_frame[GATE.info.frame_id] = stored = picture()
    address = f"/frames/{GATE.info.frame_id}.jpg"
    whole = site.get(address)
    assert whole.content == stored
    assert whole.headers["content-type"] == "image/jpeg"
    assert "immutable" in whole.headers["cache-control"]
    # Widths are rounded up to the next of a few, and nothing is ever enlarged.
    for asked, width_px in ((100, 160), (320, 320), (640, 640), (1900, 640), (99999, 640)):
        with PIL.Image.open(io.BytesIO(site.get(f"{address}?w={asked}").content)) as scaled:
            assert scaled.size == (width_px, width_px * 9 // 16)
    for bad in ("0", "-1", "x", "999999", "٣"):
        assert site.get(f"{address}?w={bad}").status_code == 400


def test_png_becomes_a_jpeg(site: Site) -> None:
    site.store.write([GATE])
    png = io.BytesIO()
    PIL.Image.fromarray(np.full((360, 640, 4), (200, 30, 30, 255), np.uint8)).save(png, "PNG")
    site.pictures.by_frame[GATE.info.frame_id] = png.getvalue()
    answer = site.get(f"/frames/{GATE.info.frame_id}.jpg")
    with PIL.Image.open(io.BytesIO(answer.content)) as image:
        assert (image.format, image.size) == ("JPEG", (640, 360))
        assert image.getpixel((5, 5))[0] > 190  # type: ignore[index]


def test_picture_that_is_gone_has_a_placeholder(site: Site) -> None:
    site.store.write([GATE])
    address = f"/frames/{GATE.info.frame_id}.jpg?w=320"
    gone = site.get(address)
    assert (gone.status_code, gone.headers["content-type"]) == (404, "image/svg+xml")
    assert 'viewBox="0 0 640 360"' in gone.text
    assert "no longer kept" in gone.text
    assert gone.headers["cache-control"] == "no-store"
    site.pictures.by_frame[GATE.info.frame_id] = b"\xff\xd8 not really"
    assert "damaged" in site.get(address).text
    site.pictures.away = StoreError("Kafka cannot be reached")
    away = site.get(address)
    assert (away.status_code, "Kafka cannot be reached" in away.text) == (503, True)


@pytest.mark.parametrize("appearance_id", ["t1", "t1~f0", "t1+f0", "t1~f0+f1"])
def test_frame_page_shows_all_that_is_known(site: Site, appearance_id: str) -> None:
    sign = line(0, "GATE B1Z", 0.6, track_id="t1")
    seen = Appearance(
        appearance_id,
        "camera:hall",
        "GATE B12",
        0.95,
        NOON_NS,
        NOON_NS + 4 * 10**9,
        None,
        None,
        "f",
        9,
        (),
        closed=True,
    )
    shown = frame("camera:hall", 1, sign, "other line", appearances=(seen,))
    site.store.write([shown])
    page = site.get(f"/frame/{shown.info.frame_id}?q=gate").text
    assert "<mark>GATE</mark> B1Z" in page
    assert 'seen for 4.0 s, 9 readings, together: <q dir="auto">GATE B12</q>' in page
    assert "60 %" in page
    assert f'href="/api/frames/{shown.info.frame_id}"' in page
    assert "since=2026-01-01T11%3A59%3A31.000000000Z&amp;until=2026-01-01T12%3A00%3A31.000000000Z" in page
    assert site.get(f"/api/frames/{shown.info.frame_id}").json()["lines"][1]["text"] == "other line"


def test_unknown_things_are_not_found(site: Site) -> None:
    assert site.get("/frame/unknown").status_code == 404
    assert "is not stored" in site.get("/frame/unknown").text
    assert site.get("/api/frames/unknown").json() == {"error": "The frame unknown is not stored (or no longer)."}
    assert site.get("/no/such/page").status_code == 404


def test_sources_and_status(site: Site) -> None:
    site.store.write([GATE, frame("camera:hall", 5)])
    assert site.get("/api/sources").json() == {
        "sources": [
            {
                "source": "camera:hall",
                "frames": 2,
                "first_at": "2026-01-01T12:00:01.000000000Z",
                "last_at": "2026-01-01T12:00:05.000000000Z",
            }
        ]
    }
    assert site.get("/status").json() == {
        "frames_in": 1200,
        "frames_read": 300,
        "frames_dropped": 7,
        "delay_s": 0.25,
        "texts_per_s": 12.5,
    }


def test_no_result_suggests_what_to_change(site: Site) -> None:
    site.store.write([GATE])
    page = site.get("/?q=gat+zeppelin&source=camera:hall").text
    assert 'href="/?q=gat~+zeppelin~&amp;source=camera%3Ahall"' in page
    assert 'href="/?q=gat+zeppelin"' in page
    assert "Nothing has been read yet" not in page


def test_empty_store_tells_how_to_begin(site: Site) -> None:
    assert "ocrstream run demo:" in site.get("/").text


def test_pages_follow_one_another(site: Site) -> None:
    site.store.write([frame("cam", second * 60, f"word{second}") for second in range(7)])
    first = site.get("/?limit=3").text
    assert "page 1 of 3" in first
    assert 'rel="next" href="/?page=2&amp;limit=3"' in first
    assert 'rel="prev"' not in first
    last = site.get("/?limit=3&page=3").text
    assert "page 3 of 3" in last
    assert 'rel="next"' not in last
    assert "word0" in last
    assert "back to the first" in site.get("/?limit=3&page=4").text


def test_page_without_pipeline_has_no_status(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)
    with PageServer(build_app(store, PictureTable()), port=0) as server:
        assert httpx.get(f"{server.address}/status").status_code == 404
        assert 'id="status"' not in httpx.get(server.address).text
    store.close()


def test_port_that_is_taken_is_explained(site: Site) -> None:
    port = int(site.server.address.rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"port {port} is taken on 127.0.0.1: give another with --port"):
        PageServer(build_app(site.store, site.pictures), port=port)


def test_address_of_another_machine_is_explained(site: Site) -> None:
    with pytest.raises(ConfigError, match="--host"):
        PageServer(build_app(site.store, site.pictures), host="203.0.113.7", port=0)
    with pytest.raises(ConfigError, match="no address of this machine"):
        PageServer(build_app(site.store, site.pictures), host="no such host", port=0)


def test_server_frees_its_port(site: Site) -> None:
    with PageServer(build_app(site.store, site.pictures), port=0) as server:
        port = int(server.address.rpartition(":")[2])
    with PageServer(build_app(site.store, site.pictures), port=port) as again:
        assert httpx.get(f"{again.address}/healthz").status_code == 200


def test_server_that_never_started_can_be_stopped(site: Site) -> None:
    PageServer(build_app(site.store, site.pictures), port=0).stop()


def test_another_address_answers_to_any_name(site: Site) -> None:
    with PageServer(build_app(site.store, site.pictures), host="0.0.0.0", port=0) as server:
        assert server.address.startswith("http://localhost:")
        answer = httpx.get(f"{server.address}/healthz", headers={"Host": "search.example"})
        assert answer.status_code == 200


DOCUMENTATION = Path(__file__).parents[2] / "docs" / "api.md"

NOW_NS = 1_800_000_000_000_000_000


@pytest.mark.parametrize(
    ("text", "at_ns"),
    [
        ("now", NOW_NS),
        ("90s", NOW_NS - 90 * 10**9),
        ("15m", NOW_NS - 900 * 10**9),
        ("1h ago", NOW_NS - 3600 * 10**9),
        ("7 d", NOW_NS - 7 * 86_400 * 10**9),
        ("9999999w", 0),
        ("2026-01-01T12:00:00Z", NOON_NS),
        ("2026-01-01 13:00:00.25+01:00", NOON_NS + 250_000_000),
        ("2026-01-01T12:00:00.000001Z", NOON_NS + 1000),
        ("1969-01-01T00:00:00Z", 0),
    ],
)
def test_times_as_people_write_them(text: str, at_ns: int) -> None:
    assert parse_time(text, NOW_NS) == at_ns


@pytest.mark.parametrize("text", ["", "soon", "12:00", "2026-13-01", "5 parsecs", "0001-01-01T00:00:00+14:00x"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(QueryError, match="is not a time"):
        parse_time(text, NOW_NS)


def test_format_time_keeps_every_nanosecond() -> None:
    assert format_time(NOON_NS + 1) == "2026-01-01T12:00:00.000000001Z"
    assert format_time(0) == "1970-01-01T00:00:00.000000000Z"


def test_parameters_come_back_in_the_address() -> None:
    address = "/?q=gate+b12&source=a%26b&source=c&since=1h&sort=newest&min_confidence=0.8&page=3"
    asked = read_parameters(QueryParams(address[2:]))
    assert asked == Asked("gate b12", ("a&b", "c"), "1h", "", 0.8, "newest", 3)
    assert asked.address() == address
    assert asked.address(page=1, sources=(), sort="", min_confidence=0.0, since="") == "/?q=gate+b12"
    assert Asked().address() == "/"
    assert asked.filter(NOW_NS) == Filter(("a&b", "c"), NOW_NS - 3600 * 10**9, None, 0.8)


def test_the_last_value_that_is_not_empty_counts() -> None:
    assert read_parameters(QueryParams("since=1h&since=")).since == "1h"
    assert read_parameters(QueryParams("since=1h&since=15m")).since == "15m"


@pytest.mark.parametrize(
    ("spans", "pieces"),
    [
        ((), [("GATE B12", False)]),
        (((0, 4),), [("GATE", True), (" B12", False)]),
        (((5, 8), (0, 4)), [("GATE", True), (" ", False), ("B12", True)]),
        (((0, 6), (4, 8)), [("GATE B12", True)]),
        (((0, 4), (1, 2)), [("GATE", True), (" B12", False)]),
        (((5, 99),), [("GATE ", False), ("B12", True)]),
    ],
)
def test_cut(spans: tuple[tuple[int, int], ...], pieces: list[tuple[str, bool]]) -> None:
    assert cut("GATE B12", spans) == tuple(Piece(*piece) for piece in pieces)


def hits(*frames_s: float, text: str = "GATE", source: str = "cam") -> list[Hit]:
    return [Hit(frame(source, at_s, text), 1.0, {0: ((0, 4),)}) for at_s in frames_s]


def test_fold_puts_alike_neighbours_together() -> None:
    cards = fold([*hits(20, 0, 100, 10), *hits(21, text="GATE 2"), *hits(22, source="other")])
    assert [card.texts.info.captured_at_ns - NOON_NS for card in cards] == [20e9, 100e9, 21e9, 22e9]
    assert [other.info.captured_at_ns - NOON_NS for other in cards[0].others] == [0, 10e9]
    first, last = cards[0].first_and_last
    assert (first.info.captured_at_ns - NOON_NS, last.info.captured_at_ns - NOON_NS) == (0, 20e9)


def test_fold_leaves_browsing_alone() -> None:
    assert len(fold([Hit(frame("cam", second, "SAME"), 0.0, {}) for second in range(3)])) == 3


def test_fold_hides_lines_below_the_confidence() -> None:
    (card,) = fold([Hit(GATE, 1.0, {0: ((0, 4),)})], min_confidence=0.7)
    assert [shown.line.text for shown in card.lines] == ["GATE B12"]


@pytest.mark.parametrize(
    ("ms", "shown"), [(0, "0:00.0"), (59_999, "0:59.9"), (61_250, "1:01.2"), (3_723_400, "1:02:03.4")]
)
def test_media_time(ms: float, shown: str) -> None:
    assert format_media_time(ms) == shown


def test_exif_rotation_is_honoured(site: Site) -> None:
    site.store.write([GATE])
    turned = io.BytesIO()
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    with PIL.Image.open(io.BytesIO(encode_jpeg(np.zeros((200, 400, 3), np.uint8)))) as image:
        image.save(turned, "JPEG", exif=exif)
    site.pictures.by_frame[GATE.info.frame_id] = turned.getvalue()
    with PIL.Image.open(io.BytesIO(site.get(f"/frames/{GATE.info.frame_id}.jpg?w=160").content)) as scaled:
        assert scaled.size == (160, 320)


def test_every_field_of_the_api_is_documented(site: Site) -> None:
    site.store.write([GATE])
    answer = site.get("/api/search?q=gate").json()
    hit = answer["hits"][0]
    told = DOCUMENTATION.read_text(encoding="utf-8")
    names = {
        *answer,
        *hit,
        *hit["lines"][0],
        *site.get("/api/sources").json()["sources"][0],
        *site.get("/status").json(),
    }
    assert [name for name in sorted(names) if f"`{name}`" not in told] == []
