"""Opens the store that the settings name: Elasticsearch where an address is given, the embedded one otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ocrstream.config import Configuration, DataSettings, ElasticsearchSettings
from ocrstream.errors import ConfigError
from ocrstream.storage import DocumentStore
from ocrstream.storage.elastic import ElasticStore
from ocrstream.storage.embedded import FILE_NAME, EmbeddedStore
from ocrstream.storage.frames import FrameStore


@contextmanager
def open_documents(configuration: Configuration, *, create: bool = False) -> Iterator[DocumentStore]:
    """The store of the settings, closed at the end.

    Args:
        configuration: the settings.
        create: make what is missing; where False, a folder that holds no store is a mistake.

    Raises:
        ConfigError: there is no store in the folder.
        DeploymentError: the store is there and cannot be used.
        StoreError: it is away.
    """
    elastic = configuration.section(ElasticsearchSettings)
    if elastic.url:
        store: DocumentStore = ElasticStore(elastic)
    else:
        directory = Path(configuration.section(DataSettings).dir)
        if not create and not (directory / FILE_NAME).exists():
            raise ConfigError(
                f"there is nothing to search in {directory.resolve()} yet. Run `ocrstream run SOURCE` first, "
                "name another folder with --data, or a server with --elasticsearch URL."
            )
        store = EmbeddedStore(directory)
    try:
        store.check()
        yield store
    finally:
        store.close()


def open_frames(configuration: Configuration) -> FrameStore:
    """The folder of pictures beside the embedded store.

    Raises:
        StoreError: it cannot be made.
    """
    settings = configuration.section(DataSettings)
    return FrameStore(
        Path(settings.dir) / "frames", max_bytes=int(settings.frames_gb * 1e9), max_age_s=settings.frames_days * 86_400
    )
