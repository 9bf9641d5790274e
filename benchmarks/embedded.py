"""The pipeline in this process, as ``ocrstream run`` makes it, for those who measure it."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence

from ocrstream.config import Configuration
from ocrstream.storage.embedded import EmbeddedStore
from pipeline.running import Run
from pipeline.status import StatusLine


@contextlib.contextmanager
def embedded_run(folder: str, sources: Sequence[str], settings: Mapping[str, str] | None = None) -> Iterator[Run]:
    """A run that is ready to begin.

    Args:
        folder: its data.
        sources: as on the command line.
        settings: as the environment names them.
    """
    configuration = Configuration(environment={"OCRSTREAM_DATA_DIR": folder, **(settings or {})})
    with contextlib.closing(EmbeddedStore(folder)) as store:
        store.check()
        with Run(configuration, list(sources), store, StatusLine(io.StringIO())) as run:
            yield run
