"""The search page and its JSON API: server-rendered, read-only, nothing from any other host.

======================  ==========================================================
address                 what it gives
======================  ==========================================================
``/``                   the search page; parameters as in `search.asking`
``/frame/{id}``         one frame with all its lines
``/frames/{id}.jpg``    its picture; ``?w=`` scales it down
``/api/search``         hits as JSON, same parameters as the page
``/api/frames/{id}``    one frame as JSON
``/api/sources``        what the store holds of each source
``/status``             counts of the running pipeline, where there is one
``/healthz``            200 while the store answers, else 503
======================  ==========================================================
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path

import jinja2
import PIL.Image
import PIL.ImageOps
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.templating import Jinja2Templates
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ocrstream.errors import DeploymentError, MalformedRecordError, QueryError, TransientError
from ocrstream.messages import Appearance, Texts
from ocrstream.metrics import Metrics
from ocrstream.picture import Picture
from ocrstream.query import Query
from ocrstream.storage import DocumentStore, Filter, Page, Pictures
from ocrstream.storage.superseding import track_of
from search.asking import DEEPEST_FRAME, NS_PER_S, Asked, format_time, read_parameters
from search.showing import Spans, fold, format_media_time, frame_json, hit_json, lines_of

HERE = Path(__file__).parent
RETRY_AFTER_S = 5

WIDTHS_PX = (160, 320, 480, 640, 960, 1280, 1920)
"""Widths that pictures are scaled to; others are rounded up, so that caches stay small and nobody can ask for more."""

QUICK_RANGES = (("any time", ""), ("15 min", "15m"), ("1 hour", "1h"), ("24 hours", "24h"), ("7 days", "7d"))

CONFIDENCES = ((0.0, "any"), (0.5, "≥ 50 %"), (0.7, "≥ 70 %"), (0.8, "≥ 80 %"), (0.9, "≥ 90 %"), (0.95, "≥ 95 %"))

SECURITY_HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    # Not same-origin: Kibana, on another port of the same host, shows the frames' pictures.
    "Cross-Origin-Resource-Policy": "same-site",
}


@dataclass(frozen=True, slots=True)
class Status:
    """What the running pipeline has done so far.

    Attributes:
        frames_in: frames the sources gave.
        frames_read: frames whose text is searchable.
        frames_dropped: frames of live sources that were given up to stay live.
        delay_s: from capture to searchable, in seconds; None before the first frame.
        texts_per_s: text lines read a second, of late.
    """

    frames_in: int
    frames_read: int
    frames_dropped: int
    delay_s: float | None
    texts_per_s: float


def build_app(
    store: DocumentStore,
    pictures: Pictures,
    metrics: Metrics | None = None,
    status: Callable[[], Status] | None = None,
) -> Starlette:
    """The page and the API over a store.

    Args:
        store: what is searched; it may be away for a time, the page says so and recovers.
        pictures: where the frames' pictures come from.
        metrics: counts requests (``search.queries``) and their duration (``search.query``).
        status: the running pipeline's counts, for the status strip; None where the page runs by itself.
    """
    site = _Site(store, pictures, metrics or Metrics(), status)
    routes = [
        Route("/", site.search_page, name="search"),
        Route("/frame/{frame_id}", site.frame_page, name="frame"),
        Route("/frames/{frame_id}.jpg", site.picture, name="picture"),
        Route("/api/search", site.search_json),
        Route("/api/frames/{frame_id}", site.frame_json),
        Route("/api/sources", site.sources_json),
        Route("/status", site.status_json),
        Route("/healthz", site.health),
        Route("/favicon.ico", _icon),
        Mount("/static", StaticFiles(directory=HERE / "static"), name="static"),
    ]
    return Starlette(
        routes=routes,
        middleware=[Middleware(_SecurityHeaders)],
        exception_handlers={
            QueryError: site.on_query_error,
            TransientError: site.on_away,
            DeploymentError: site.on_unusable,
            HTTPException: site.on_http_error,
        },
    )


class _Site:
    """The request handlers; they run on worker threads, as the store blocks."""

    def __init__(
        self, store: DocumentStore, pictures: Pictures, metrics: Metrics, status: Callable[[], Status] | None
    ) -> None:
        self._store = store
        self._pictures = pictures
        self._metrics = metrics
        self._status = status
        self._templates = Jinja2Templates(env=_environment(has_status=status is not None))

    def search_page(self, request: Request) -> Response:
        asked = read_parameters(request.query_params)
        page = self._search(asked)
        cards = fold(page.hits, asked.min_confidence)
        context = {
            "asked": asked,
            "sources": self._store.sources(),
            "page": page,
            "cards": cards,
            "folded": len(page.hits) - len(cards),
            "pages": _pages(page, asked),
            "fuzzy": _fuzzier(asked.q),
        }
        return self._templates.TemplateResponse(request, "search.html", context)

    def frame_page(self, request: Request) -> Response:
        asked = read_parameters(request.query_params)
        texts = self._frame(request)
        context = {
            "asked": asked,
            "texts": texts,
            "lines": lines_of(texts, _matches(asked.query(), texts) if asked.q else {}),
            "seen": self._seen(texts),
            "around": _around(texts),
        }
        return self._templates.TemplateResponse(request, "frame.html", context)

    def picture(self, request: Request) -> Response:
        texts = self._frame(request)
        width_px = _width(request.query_params.get("w", ""))
        try:
            encoded = self._pictures.get(texts.info)
            if encoded is None:
                return _placeholder(texts, "The picture is no longer kept", HTTPStatus.NOT_FOUND)
            body = _jpeg(encoded, width_px)
        except TransientError as error:
            return _placeholder(texts, str(error), HTTPStatus.SERVICE_UNAVAILABLE)
        except MalformedRecordError:
            return _placeholder(texts, "The picture is damaged", HTTPStatus.NOT_FOUND)
        # A frame's picture never changes, whatever is read in it later.
        return Response(body, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=604800, immutable"})

    def search_json(self, request: Request) -> Response:
        asked = read_parameters(request.query_params)
        page = self._search(asked)
        answer = {
            "query": asked.q,
            "total": page.total,
            "total_is_exact": page.total_is_exact,
            "page": asked.page,
            "limit": asked.limit,
            "hits": [hit_json(hit) for hit in page.hits],
        }
        return JSONResponse(answer)

    def frame_json(self, request: Request) -> Response:
        return JSONResponse(frame_json(self._frame(request)))

    def sources_json(self, _request: Request) -> Response:
        sources = [
            {
                "source": source.source_id,
                "frames": source.frames,
                "first_at": format_time(source.first_at_ns),
                "last_at": format_time(source.last_at_ns),
            }
            for source in self._store.sources()
        ]
        return JSONResponse({"sources": sources})

    def status_json(self, _request: Request) -> Response:
        if self._status is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, "This page runs without a pipeline: it has no status")
        return JSONResponse(asdict(self._status()))

    def health(self, _request: Request) -> Response:
        # Any read will do; `check` would create what is missing, which is not a probe's business.
        self._store.get("healthz")
        return PlainTextResponse("ok\n")

    def on_query_error(self, request: Request, error: Exception) -> Response:
        return self._refuse(request, HTTPStatus.BAD_REQUEST, "That search cannot be understood", str(error))

    def on_away(self, request: Request, error: Exception) -> Response:
        response = self._refuse(request, HTTPStatus.SERVICE_UNAVAILABLE, "The search is away for a moment", str(error))
        response.headers["Retry-After"] = str(RETRY_AFTER_S)
        return response

    def on_unusable(self, request: Request, error: Exception) -> Response:
        return self._refuse(request, HTTPStatus.INTERNAL_SERVER_ERROR, "The store cannot be used as it is", str(error))

    def on_http_error(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        title = "There is no such page" if error.status_code == HTTPStatus.NOT_FOUND else error.detail
        response = self._refuse(request, HTTPStatus(error.status_code), title, error.detail)
        response.headers.update(error.headers or {})
        return response

    def _refuse(self, request: Request, status: HTTPStatus, title: str, reason: str) -> Response:
        path = request.url.path
        if path.startswith("/api/") or path in ("/status", "/healthz"):
            return JSONResponse({"error": reason}, status)
        context = {
            "asked": Asked(q=request.query_params.get("q", "")[:500]),
            "title": title,
            "reason": reason,
            "status": status,
            "retry_after_s": RETRY_AFTER_S if status == HTTPStatus.SERVICE_UNAVAILABLE else None,
        }
        return self._templates.TemplateResponse(request, "message.html", context, status_code=status)

    def _search(self, asked: Asked) -> Page:
        started = time.perf_counter()
        page = self._store.search(
            asked.query(),
            asked.filter(time.time_ns()),
            limit=asked.limit,
            offset=asked.offset,
            newest_first=asked.newest_first,
        )
        self._metrics.add("search.queries")
        self._metrics.observe("search.query", time.perf_counter() - started)
        return page

    def _frame(self, request: Request) -> Texts:
        frame_id = request.path_params["frame_id"]
        texts = self._store.get(frame_id) if len(frame_id) <= 200 else None
        if texts is None:
            raise HTTPException(HTTPStatus.NOT_FOUND, f"The frame {frame_id[:40]} is not stored (or no longer).")
        return texts

    def _seen(self, texts: Texts) -> dict[str, Appearance]:
        """What is known of the frame's lines over time, by track."""
        tracks = {line.region.track_id for line in texts.lines if line.region.track_id is not None}
        if not tracks:
            return {}
        at_ns = texts.info.captured_at_ns
        now_there = self._store.appearances(Filter((texts.info.source_id,), at_ns, at_ns + 1))
        return {track: appearance for appearance in now_there if (track := track_of(appearance)) in tracks}


async def _icon(_request: Request) -> Response:
    """The icon where browsers look for it by themselves, beside answers that are no HTML."""
    return FileResponse(HERE / "static" / "icon.svg")


def _environment(*, has_status: bool) -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(HERE / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {
        "rfc3339": format_time,
        "utc": lambda at_ns: format_time(at_ns)[:19].replace("T", " ") + " UTC",
        "media_time": format_media_time,
        "percent": lambda share: f"{share * 100:.0f} %",
        "count": lambda number: f"{number:,}",
    }
    environment.globals |= {
        "has_status": has_status,
        "quick_ranges": QUICK_RANGES,
        "confidences": CONFIDENCES,
        "thumbnail_px": 640,
    }
    return environment


@dataclass(frozen=True, slots=True)
class _Pages:
    """The addresses of the pages beside this one; None where there is none."""

    previous: str | None
    next: str | None
    last: int


def _pages(page: Page, asked: Asked) -> _Pages:
    reachable = min(page.total, DEEPEST_FRAME // asked.limit * asked.limit)
    last = max(-(-reachable // asked.limit), 1)
    return _Pages(
        previous=asked.address(page=asked.page - 1) if asked.page > 1 else None,
        next=asked.address(page=asked.page + 1) if asked.page < last else None,
        last=last,
    )


def _fuzzier(q: str) -> str | None:
    """The same words with a tilde each, where the query is nothing but words."""
    words = q.split()
    if not words or "OR" in words or not all(word.isalnum() for word in words):
        return None
    return " ".join(f"{word}~" for word in words)


def _matches(query: Query, texts: Texts) -> dict[int, Spans]:
    found = query.match([line.text for line in texts.lines]) or {}
    return {texts.lines[index].region.line_number: spans for index, spans in found.items()}


def _around(texts: Texts) -> str:
    """The address of what was seen half a minute before and after."""
    at_ns = texts.info.captured_at_ns
    since, until = (format_time(max(at_ns + shift_s * NS_PER_S, 0)) for shift_s in (-30, 30))
    return Asked(sources=(texts.info.source_id,), since=since, until=until).address()


def _width(text: str) -> int | None:
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or len(text) > 5 or int(text) < 1:
        raise QueryError(f"w is a width in pixels, not {text[:40]!r}")
    return next((width_px for width_px in WIDTHS_PX if width_px >= int(text)), WIDTHS_PX[-1])


def _jpeg(encoded: bytes, width_px: int | None) -> bytes:
    """A picture as JPEG, at most so wide; a JPEG that needs no scaling is passed on as it is.

    Raises:
        MalformedRecordError: it is no picture, or a damaged one.
    """
    stored_width_px, _ = Picture.from_encoded(encoded).size_wh()
    if encoded.startswith(b"\xff\xd8") and (width_px is None or stored_width_px <= width_px):
        return encoded
    try:
        with PIL.Image.open(io.BytesIO(encoded)) as opened:
            if width_px is not None:
                # Lets the JPEG decoder skip detail that scaling would throw away.
                opened.draft("RGB", (width_px, width_px))
            upright = PIL.ImageOps.exif_transpose(opened).convert("RGB")
    except (OSError, ValueError, SyntaxError) as error:
        raise MalformedRecordError(f"the picture is damaged: {error}") from error
    if width_px is not None:
        upright.thumbnail((width_px, upright.height))
    out = io.BytesIO()
    upright.save(out, "JPEG", quality=85)
    return out.getvalue()


_PLACEHOLDER = jinja2.Environment(autoescape=True).from_string(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {{ w }} {{ h }}" width="{{ w }}" height="{{ h }}">'
    '<rect width="100%" height="100%" fill="#80808026"/>'
    '<text x="50%" y="50%" text-anchor="middle" fill="#888" font-family="sans-serif" font-size="{{ w / 28 }}">'
    "{{ text }}</text></svg>"
)


def _placeholder(texts: Texts, text: str, status: HTTPStatus) -> Response:
    """What stands where a picture was: browsers show it although the status says that it is not there."""
    image = _PLACEHOLDER.render(w=texts.info.width_px, h=texts.info.height_px, text=text[:60])
    return Response(image, status, {"Cache-Control": "no-store"}, "image/svg+xml")


class _SecurityHeaders:
    """Puts the security headers on every answer, and keeps answers out of caches unless they say otherwise."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(SECURITY_HEADERS)
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        await self._app(scope, receive, send_with_headers)
