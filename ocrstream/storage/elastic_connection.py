"""The line to an Elasticsearch server: requests made again while it is busy, and its errors as this program's own.

What is asked is `elastic`'s business; the client is imported here only.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import ssl
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import elastic_transport
import elasticsearch

from ocrstream.config import ElasticsearchSettings
from ocrstream.errors import BackpressureError, ConfigError, DeploymentError, StoreError

SUPPORTED_MAJOR = 8

_CHUNK_DOCUMENTS = 2_000
_CHUNK_BYTES = 4_000_000
_PAGE = 500

_ATTEMPTS = 6
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 3.0
_BUSY, _AWAY = 429, (502, 503, 504)

_PREFIX = re.compile(r"[a-z0-9][a-z0-9_.-]{0,99}")


@dataclass(frozen=True, slots=True)
class Action:
    """One line of a bulk request: a document to index, or to delete where there is none."""

    index: str
    id: str
    version: int
    document: Mapping[str, Any] | None

    def encoded(self) -> bytes:
        """As bulk requests have it."""
        verb = "delete" if self.document is None else "index"
        head = {"_index": self.index, "_id": self.id, "version": self.version, "version_type": "external_gte"}
        lines = _dump({verb: head})
        return lines if self.document is None else lines + b"\n" + _dump(self.document)


@dataclass(frozen=True, slots=True)
class Failure:
    """An action that was not carried out: a higher version is there, or it can never be."""

    batch_index: int
    is_outdated: bool
    reason: str


class ElasticConnection:
    """A server and the indices of one prefix on it; safe to share between threads.

    Args:
        settings: where the server is and what the indices are called; nothing is sent before the first use.

    Attributes:
        shown: the address as it may be shown.
        client: Elasticsearch's own, for what is asked once and without patience.

    Raises:
        ConfigError: the address or the prefix cannot be used.
    """

    def __init__(self, settings: ElasticsearchSettings) -> None:
        self.shown, self.client = _client(settings)
        self._prefix = settings.prefix
        self._closing = threading.Event()

    def close(self) -> None:
        """Let go, and let nobody wait for a busy server any longer."""
        self._closing.set()
        self.client.close()

    def version(self) -> str:
        """The server's version."""
        answer = self.client.info()
        try:
            return str(answer["version"]["number"])
        except (KeyError, TypeError) as error:
            raise self._no_elasticsearch() from error

    def _no_elasticsearch(self) -> DeploymentError:
        return DeploymentError(
            f"what answers at {self.shown} is not Elasticsearch {SUPPORTED_MAJOR}: correct --elasticsearch"
        )

    def mget(self, docs: Sequence[Mapping[str, Any]]) -> list[Any]:
        """Documents by index and id, up to the moment; one without ``_source`` is not there."""
        return list(self._patiently(self.client.mget, docs=docs)["docs"]) if docs else []

    def bulk(self, actions: Sequence[tuple[int, Action]]) -> list[Failure]:
        """Carry out actions, those the server is too busy for again and again.

        Returns:
            Those that a higher version or a wrong document stood against.

        Raises:
            BackpressureError: the server stays too busy.
            StoreError: it went away, or answers that it cannot at the moment.
        """
        failures: list[Failure] = []
        for chunk in _chunks(actions):
            pending = chunk
            for pause_s in self._pauses():
                answer = self._patiently(
                    self.client.bulk,
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
                    raise BackpressureError(f"Elasticsearch at {self.shown} is too busy to index", _LONGEST_PAUSE_S)
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

    def find(self, family: str, **parameters: Any) -> Any:
        """One search; an answer from some of the shards only is an error.

        Made again for some seconds while the server cannot answer: the shard of an index that was just made, as each
        midnight, is not there at once.
        """
        index = f"{self._prefix}-{family}-*"
        return self._patiently(self.client.search, index=index, allow_partial_search_results=False, **parameters)

    def refresh(self, *families: str) -> None:
        """Let searches see all that was written."""
        index = [f"{self._prefix}-{family}-*" for family in families]
        self._patiently(self.client.indices.refresh, index=index, allow_no_indices=True, ignore_unavailable=True)

    def walk(self, family: str, query: dict[str, Any], sort: list[Any], **parameters: Any) -> Iterator[Any]:
        """All hits in a total order, a page at a time; nothing is held open on the server."""
        after: dict[str, Any] = {}
        while True:
            with self.explained():
                found = self.find(
                    family, query=query, sort=sort, size=_PAGE, track_total_hits=False, **parameters, **after
                )
            hits = found["hits"]["hits"]
            yield from hits
            if len(hits) < _PAGE:
                return
            after = {"search_after": hits[-1]["sort"]}

    @contextlib.contextmanager
    def explained(self) -> Iterator[None]:
        """Turn the client's errors into ours, with what to do; never with a password in them."""
        try:
            yield
        except elasticsearch.UnsupportedProductError as error:
            raise self._no_elasticsearch() from error
        except elasticsearch.ApiError as error:
            raise self._explanation(error) from error
        except elastic_transport.TlsError as error:
            raise DeploymentError(
                f"no secure connection to {self.shown} ({_short(error)}): name the authority that signed the "
                "server's certificate in OCRSTREAM_ELASTICSEARCH_CA_FILE"
            ) from error
        except elasticsearch.TransportError as error:
            raise StoreError(
                f"Elasticsearch at {self.shown} does not answer: {_short(error)}; check the address, and that it runs"
            ) from error

    def _explanation(self, error: elasticsearch.ApiError) -> Exception:
        status, reason = error.status_code, _reason_of(error.body)
        if status == 401:
            return DeploymentError(
                f"Elasticsearch at {self.shown} refuses the credentials: set OCRSTREAM_ELASTICSEARCH_USERNAME and "
                "OCRSTREAM_ELASTICSEARCH_PASSWORD, or OCRSTREAM_ELASTICSEARCH_API_KEY"
            )
        if status == 403:
            return DeploymentError(
                f"Elasticsearch at {self.shown} does not allow this ({reason}): give the user the cluster privileges "
                f"monitor and manage_index_templates, and all privileges on {self._prefix}-*"
            )
        if status == _BUSY:
            return BackpressureError(f"Elasticsearch at {self.shown} is too busy: {reason}", _LONGEST_PAUSE_S)
        if status == 413:
            return DeploymentError(
                f"what stands before Elasticsearch at {self.shown} takes no requests of {_CHUNK_BYTES // 10**6} MB: "
                "raise its limit (nginx: client_max_body_size)"
            )
        if status >= 500:
            return StoreError(f"Elasticsearch at {self.shown} cannot answer at the moment ({status}): {reason}")
        return DeploymentError(f"Elasticsearch at {self.shown} refuses a request ({status}): {reason}")


# One for all: json.dumps would make a new one for every document.
_ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


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


def _chunks(actions: Sequence[tuple[int, Action]]) -> Iterator[list[tuple[int, Action, bytes]]]:
    chunk: list[tuple[int, Action, bytes]] = []
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


def _failure_of(batch_index: int, action: Action, outcome: Mapping[str, Any]) -> Failure | None:
    """What an item's result means for its reading; None where all is well."""
    status = outcome["status"]
    error = outcome.get("error", {})
    if status < 300 or (status == 404 and action.document is None):
        return None
    reason = _reason_of({"error": error})
    if status == 409:
        return Failure(batch_index, True, reason)
    if status == 400:
        return Failure(batch_index, False, f"Elasticsearch does not take it: {reason}")
    if status in (401, 403) and "block" not in str(error.get("type")):
        raise DeploymentError(f"Elasticsearch does not allow writing to {action.index}: {reason}")
    raise StoreError(f"Elasticsearch could not write to {action.index} ({status}): {reason}")


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
