"""What a web server tells of a recording before it is read, and FFmpeg does not pass on."""

from __future__ import annotations

import base64
import email.utils
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from urllib.parse import unquote, urlsplit, urlunsplit


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """What a server says of a file.

    Attributes:
        modified_ns: when it was changed last, nanoseconds since 1970; None where the server does not tell.
        gives_parts: whether the server says that it sends parts of it.
    """

    modified_ns: int | None
    gives_parts: bool


def ask_web_server(url: str, timeout_s: float) -> WebAnswer | None:
    """Ask for a file's headers; None where there is no good answer, which reading the file then explains.

    Args:
        url: ``http`` or ``https``; may hold user and password.
        timeout_s: how long to wait, in seconds.
    """
    parts = urlsplit(url)
    userinfo, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host, fragment="")), method="HEAD")  # noqa: S310
    if userinfo:
        token = base64.b64encode(unquote(userinfo).encode()).decode()
        # Not sent on where the server names another address.
        request.add_unredirected_header("Authorization", f"Basic {token}")
    try:
        with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310 http(s) only, see above
            headers = response.headers
    except (OSError, ValueError, HTTPException):
        return None
    return WebAnswer(_nanoseconds(headers["Last-Modified"]), headers["Accept-Ranges"] == "bytes")


def _nanoseconds(date: str | None) -> int | None:
    try:
        return int(email.utils.parsedate_to_datetime(date or "").timestamp()) * 10**9
    except (ValueError, OverflowError):
        return None
