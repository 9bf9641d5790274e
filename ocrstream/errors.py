"""Everything that can go wrong, as one tree; the class decides what happens next.

::

    OcrstreamError
    ├── UserError                  what was asked cannot be done: message for a person, exit code 2
    │   ├── ConfigError            unknown key, value out of range, conflicting options
    │   ├── SourceError            file missing, not a video, camera not there, wrong credentials
    │   ├── EngineError            unknown engine, weights missing or damaged, device not there
    │   ├── QueryError             a search that cannot be understood
    │   └── DeploymentError        a server that is there but cannot be used: version, rights, limits
    ├── TransientError             may work later: retried with backoff, nothing is committed
    │   ├── TransportError         Kafka away, a send not confirmed
    │   └── StoreError             Elasticsearch away, disk full, database locked
    ├── BackpressureError          the receiver asks for a pause: wait, then offer the same records again
    └── PoisonError                this record can never be processed: dead letter, and the stream goes on
        └── MalformedRecordError   not a record of this program, or a damaged one
"""


class OcrstreamError(Exception):
    """Anything this program raises on purpose."""


class UserError(OcrstreamError):
    """What was asked cannot be done; the message says what to do instead."""


class ConfigError(UserError):
    """A setting is unknown, out of range, or in conflict with another."""


class SourceError(UserError):
    """A source cannot be opened or read, and trying again will not help."""


class EngineError(UserError):
    """An engine is unknown, its weights are missing or damaged, or its device is not there."""


class QueryError(UserError):
    """A search that cannot be understood."""


class DeploymentError(UserError):
    """A server answers but cannot be used as it is: wrong version, missing rights, too small a limit."""


class TransientError(OcrstreamError):
    """May work later: the runner retries with backoff and commits nothing meanwhile."""


class TransportError(TransientError):
    """The transport is away, or a record was not confirmed."""


class TransportClosedError(TransportError):
    """This process closed the transport itself, to end at once: there is nothing to wait for."""


class StoreError(TransientError):
    """The document store or the disk cannot take documents at the moment."""


class BackpressureError(OcrstreamError):
    """The receiver asks for a pause.

    Attributes:
        retry_after_s: how long to wait before the same records are offered again, in seconds.
    """

    def __init__(self, message: str, retry_after_s: float = 1.0) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class PoisonError(OcrstreamError):
    """A record that can never be processed; it is set aside as a dead letter."""


class MalformedRecordError(PoisonError):
    """Bytes that are not a record of this program, or a damaged one."""
