"""What a person asks for: times as they are typed, and the parameters of the page's and the API's addresses.

=================  ====================================================================================
parameter          what it takes
=================  ====================================================================================
``q``              the query, see `ocrstream.query`; empty means everything
``source``         a source's name; may be repeated
``since``          a time (see `parse_time`): captured at or after
``until``          a time: captured before
``min_confidence`` 0 to 1: only lines read at least this surely
``sort``           ``best`` (default with a query) or ``newest`` (default without one)
``page``           from 1
``limit``          frames a page, 1 to 100
=================  ====================================================================================
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from urllib.parse import urlencode

from starlette.datastructures import QueryParams

from ocrstream.errors import QueryError
from ocrstream.messages import MAX_ID_LENGTH
from ocrstream.query import Query, parse
from ocrstream.storage import Filter

NS_PER_S = 1_000_000_000
PAGE_SIZE = 48
MAX_PAGE_SIZE = 100
MAX_QUERY_LENGTH = 500
MAX_SOURCES = 50
DEEPEST_FRAME = 10_000
"""Elasticsearch answers no page beyond this frame; nobody reads that far either, a narrower time serves better."""

_UNITS_S = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_AGO = re.compile(r"(\d{1,7})\s*(s|min|m|h|d|w)(?:\s+ago)?", re.IGNORECASE)


def parse_time(text: str, now_ns: int) -> int:
    """A point in time as people write it, in nanoseconds since 1970 UTC.

    Args:
        text: ``2026-11-22``, ``2026-11-22T21:30``, ``2026-11-22 21:30:05.5+01:00``, ``…Z``; without a zone it is this
            machine's local time. Or how long ago: ``90s``, ``15m``, ``1h``, ``7d``, ``2w``; or ``now``.
        now_ns: what ``now`` and ``ago`` count from.

    Raises:
        QueryError: none of these.
    """
    text = text.strip()
    if text.lower() == "now":
        return now_ns
    ago = _AGO.fullmatch(text)
    if ago:
        return max(now_ns - int(ago[1]) * _UNITS_S[ago[2].lower()] * NS_PER_S, 0)
    try:
        moment = datetime.fromisoformat(text).astimezone(UTC)
    except (ValueError, OverflowError, OSError) as error:
        raise QueryError(
            f"{text[:60]!r} is not a time. Write 2026-11-22T21:30, 2026-11-22T21:30:00Z, or how long ago: 15m, 1h, 7d."
        ) from error
    since_1970 = moment - datetime(1970, 1, 1, tzinfo=UTC)
    whole_s = since_1970.days * 86_400 + since_1970.seconds
    return max(whole_s * NS_PER_S + since_1970.microseconds * 1000, 0)


def format_time(at_ns: int) -> str:
    """RFC 3339 in UTC with all nine digits of the nanoseconds: ``2026-11-22T21:30:00.000000001Z``."""
    whole_s, rest_ns = divmod(at_ns, NS_PER_S)
    return f"{datetime.fromtimestamp(whole_s, UTC):%Y-%m-%dT%H:%M:%S}.{rest_ns:09d}Z"


@dataclass(frozen=True, slots=True)
class Asked:
    """The parameters of one search, checked; ``since`` and ``until`` stay as they were written, to be shown again."""

    q: str = ""
    sources: tuple[str, ...] = ()
    since: str = ""
    until: str = ""
    min_confidence: float = 0.0
    sort: str = ""
    page: int = 1
    limit: int = PAGE_SIZE

    @property
    def newest_first(self) -> bool:
        """Whether the newest frames come first; without a query no other order makes sense."""
        return self.sort == "newest" or not self.q

    @property
    def is_filtered(self) -> bool:
        """Whether anything but the query narrows the search."""
        return bool(self.sources or self.since or self.until or self.min_confidence)

    @property
    def offset(self) -> int:
        """How many frames lie before this page."""
        return (self.page - 1) * self.limit

    def query(self) -> Query:
        """The parsed query.

        Raises:
            QueryError: it cannot be understood.
        """
        return parse(self.q)

    def filter(self, now_ns: int) -> Filter:
        """The frames that are meant.

        Raises:
            QueryError: a time cannot be understood, or they are the wrong way round.
        """
        since_ns = parse_time(self.since, now_ns) if self.since else None
        until_ns = parse_time(self.until, now_ns) if self.until else None
        if since_ns is not None and until_ns is not None and since_ns >= until_ns:
            raise QueryError(f"nothing lies between {self.since} and {self.until}: the first must be the earlier one")
        return Filter(self.sources, since_ns, until_ns, self.min_confidence)

    def address(self, path: str = "/", **changes: object) -> str:
        """The address that asks for this, with some parameters changed; what is at its default is left out."""
        asked = replace(self, **changes)  # type: ignore[arg-type]
        pairs: list[tuple[str, str]] = [("q", asked.q)] if asked.q else []
        pairs += [("source", source) for source in asked.sources]
        pairs += [(name, value) for name in ("since", "until", "sort") if (value := getattr(asked, name))]
        if asked.min_confidence:
            pairs.append(("min_confidence", f"{asked.min_confidence:g}"))
        pairs += [("page", str(asked.page))] if asked.page > 1 else []
        pairs += [("limit", str(asked.limit))] if asked.limit != PAGE_SIZE else []
        return f"{path}?{urlencode(pairs)}" if pairs else path


def read_parameters(given: QueryParams) -> Asked:
    """The parameters of an address; those that are unknown are left alone, as browsers and trackers add their own.

    Raises:
        QueryError: a value does not fit; the message names the parameter.
    """
    q = _last(given, "q")
    if len(q) > MAX_QUERY_LENGTH:
        raise QueryError(f"the query has {len(q)} characters; at most {MAX_QUERY_LENGTH} are read")
    sources = tuple(dict.fromkeys(source for source in given.getlist("source") if source))
    if len(sources) > MAX_SOURCES or any(len(source) > MAX_ID_LENGTH for source in sources):
        raise QueryError(f"at most {MAX_SOURCES} sources can be named, of {MAX_ID_LENGTH} characters each")
    sort = _last(given, "sort")
    if sort not in ("", "best", "newest"):
        raise QueryError(f"sort is best or newest, not {sort[:40]!r}")
    limit = _whole(given, "limit", PAGE_SIZE, MAX_PAGE_SIZE)
    return Asked(
        q=q,
        sources=sources,
        since=_last(given, "since"),
        until=_last(given, "until"),
        min_confidence=_share(given, "min_confidence"),
        sort="newest" if sort == "newest" else "",
        page=_whole(given, "page", 1, DEEPEST_FRAME // limit),
        limit=limit,
    )


def _last(given: QueryParams, name: str) -> str:
    """The last value that is not empty: a form sends empty fields along."""
    values = [value.strip() for value in given.getlist(name) if value.strip()]
    return values[-1] if values else ""


def _whole(given: QueryParams, name: str, default: int, highest: int) -> int:
    text = _last(given, name)
    if not text:
        return default
    if not re.fullmatch(r"[0-9]{1,9}", text) or not 1 <= int(text) <= highest:
        raise QueryError(f"{name} is a whole number from 1 to {highest}, not {text[:40]!r}")
    return int(text)


def _share(given: QueryParams, name: str) -> float:
    text = _last(given, name)
    if not text:
        return 0.0
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise QueryError(f"{name} is a number from 0 to 1, such as 0.8, not {text[:40]!r}")
    return value
