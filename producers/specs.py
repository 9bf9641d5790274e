"""What the user wrote for a source: its name, its address, and how to show it without its credentials."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from ocrstream.errors import SourceError

STREAM_SCHEMES = ("rtsp", "rtsps", "rtmp", "rtmps", "http", "https", "udp", "rtp", "srt", "tcp")
KNOWN = "a file or folder, camera:0, demo:, - (standard input), or an address that begins with " + ", ".join(
    f"{scheme}://" for scheme in STREAM_SCHEMES
)

_NAMED = re.compile(r"(?P<name>[^\s=/:?#&][^=/:?#&]*)=(?P<url>.+)", re.DOTALL)
_NAME = re.compile(r"\w[\w .-]{0,99}")
_USERINFO = re.compile(r"(?P<scheme>[a-zA-Z][a-zA-Z0-9+.-]*://)[^/\s'\"]*@")
_SECRET_KEY = re.compile(r"pass|pwd|token|secret|auth|key|sig|user|login|account|credential", re.IGNORECASE)
_SECRET_VALUE = re.compile(
    rf"(?P<key>[?&;][^=&;\s'\"]*(?:{_SECRET_KEY.pattern})[^=&;\s'\"]*=)[^&;\s'\"]+", re.IGNORECASE
)


@dataclass(frozen=True)
class SourceSpec:
    """One source as it was asked for.

    Attributes:
        source_id: its name.
        url: where it is; may hold credentials, so it is never shown, logged or stored.
        shown: the same without them.
    """

    source_id: str
    url: str = field(repr=False)
    shown: str

    @property
    def scheme(self) -> str:
        """``camera``, ``demo``, ``rtsp``, …; empty for a path or standard input."""
        match = re.match(r"(camera|demo)(?=:)|[a-zA-Z][a-zA-Z0-9+.-]+(?=://)", self.url)
        return match[0].lower() if match else ""

    @property
    def path(self) -> Path:
        """The path of a file, folder or glob."""
        return Path(unquote(self.url[len("file://") :])) if self.scheme == "file" else Path(self.url).expanduser()

    def scrub(self, message: str) -> str:
        """A message of somebody else's, FFmpeg's say, without this source's credentials."""
        message = message.replace(self.url, self.shown)
        for secret in self._secrets():
            message = message.replace(secret, "…")
        return without_credentials(message)

    def _secrets(self) -> list[str]:
        """The password and the secret query values, as written and decoded, longest first."""
        if not self.scheme or "://" not in self.url:
            return []
        userinfo, _, _ = _authority(self.url).rpartition("@")
        secrets = {userinfo, userinfo.partition(":")[2]}
        query = self.url.partition("?")[2]
        secrets |= {value for key, value in parse_qsl(query) if _SECRET_KEY.search(key)}
        secrets |= {unquote(secret) for secret in secrets} | {quote(secret, safe="") for secret in secrets}
        # A secret of one or two letters would blot out half of every message and is none.
        return sorted((secret for secret in secrets if len(secret) > 2), key=len, reverse=True)


def without_credentials(text: str) -> str:
    """A text whose addresses have lost user, password and secret query values."""
    return _SECRET_VALUE.sub(r"\g<key>…", _USERINFO.sub(r"\g<scheme>", text))


def parse_source(text: str) -> SourceSpec:
    """Read ``NAME=URL`` or ``URL``.

    Without a name a source is called after what it is: a file's or folder's own name, ``camera-0``, ``demo``,
    ``stdin``, or a stream's host and path. A name never holds credentials.

    Raises:
        SourceError: it is empty, or a kind of address that is not known.
    """
    text = text.strip()
    match = None if Path(text).exists() else _NAMED.fullmatch(text)
    name, url = (match["name"].strip(), match["url"].strip()) if match else ("", text)
    if not url:
        raise SourceError(f"a source is missing: name {KNOWN}")
    spec = SourceSpec(name, url, without_credentials(url))
    if spec.scheme not in ("", "file", "camera", "demo", *STREAM_SCHEMES):
        raise SourceError(f"{spec.shown}: {spec.scheme}:// is not known; a source is {KNOWN}")
    if spec.scheme in STREAM_SCHEMES and not _host(url):
        raise SourceError(f"{spec.shown}: the address names no host; it should look like {spec.scheme}://HOST/PATH")
    if name and not _NAME.fullmatch(name):
        raise SourceError(f"{name!r} cannot be a source's name: up to 100 letters, digits, spaces and . - _")
    return spec if name else SourceSpec(_derived_id(spec), url, spec.shown)


def parse_sources(texts: Sequence[str]) -> list[SourceSpec]:
    """Read several sources, each with a name of its own.

    Raises:
        SourceError: none is given, one cannot be read, or two have the same name.
    """
    if not texts:
        raise SourceError(f"a source is missing: name {KNOWN}")
    specs = [parse_source(text) for text in texts]
    for source_id, count in Counter(spec.source_id for spec in specs).items():
        if count > 1:
            shown = " and ".join(spec.shown for spec in specs if spec.source_id == source_id)
            raise SourceError(
                f"{count} sources are called {source_id!r} ({shown}); name them: first={specs[0].shown} second=…"
            )
    return specs


def _authority(url: str) -> str:
    return re.split(r"[/?#]", url.partition("://")[2], maxsplit=1)[0]


def _host(url: str) -> str:
    return _authority(url).rpartition("@")[2]


def _derived_id(spec: SourceSpec) -> str:
    if spec.url == "-":
        return "stdin"
    if spec.scheme == "camera":
        return _as_name("camera-" + (spec.url.partition(":")[2].partition("?")[0] or "0").removeprefix("/dev/"))
    if spec.scheme == "demo":
        return "demo"
    if spec.scheme in STREAM_SCHEMES:
        return _as_name(_host(spec.url) + "-" + urlsplit(spec.shown).path)
    path = spec.path
    if any(character in path.name for character in "*?["):
        path = path.parent
    return _as_name(path.name if path.is_dir() else path.stem) or _as_name(path.resolve().name) or "images"


def _as_name(text: str) -> str:
    return re.sub(r"[^\w.]+", "-", text).strip("-.")[:100]
