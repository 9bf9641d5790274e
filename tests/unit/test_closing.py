"""Texts over time whose recogniser was killed while they were in view."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from ocrstream_test_engines import make_picture

from indexer.closing import Closing, close_every_minute
from ocrstream.errors import StoreError
from ocrstream.messages import Appearance, Crop, Crops, Region
from ocrstream.models import load_recognizer
from ocrstream.models.asked_for import Engines
from ocrstream.picture import Picture
from ocrstream.storage import Filter
from ocrstream.storage.embedded import EmbeddedStore
from recognizer_consumer.stage import RecognizerStage
from tests.documents import DETECTOR, NOON_NS, frame, line


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    with closing(EmbeddedStore(tmp_path)) as store:
        yield store


class Stream:
    """A line in one place, seen four times a second, and the recogniser that reads it into a store."""

    def __init__(self, store: EmbeddedStore) -> None:
        self._store = store
        self._second = 0.0
        self.start_again()

    def start_again(self) -> None:
        """A new recogniser that knows nothing of the one before, as after more than a minute."""
        self._recognizer = RecognizerStage(Engines("plain", load_recognizer), 0.3)

    def show(self, *texts: str) -> None:
        for text in texts:
            texts_ = frame("cam", self._second, line(0, text, track_id="t0"))
            region: Region = texts_.lines[0].region
            crops = Crops(texts_.info, DETECTOR, (Crop(region, (picture_of(text),)),))
            self._store.write(self._recognizer.handle([crops]))
            self._second += 0.25

    def end(self) -> None:
        self._store.write(self._recognizer.finish())


def picture_of(text: str) -> Picture:
    picture = make_picture([(text, (0.0, 0.0, 240.0, 40.0))])
    return Picture.from_array(picture[:40, :240].copy())


def spans(store: EmbeddedStore) -> list[tuple[str, int, float, float, bool]]:
    def to_s(at_ns: int) -> float:
        return (at_ns - NOON_NS) / 1e9

    found = store.appearances(Filter())
    return [(a.text, a.readings, to_s(a.first_at_ns), to_s(a.last_at_ns), a.closed) for a in found]


def test_what_a_killed_recogniser_left_open_is_closed_with_all_its_readings(store: EmbeddedStore) -> None:
    stream = Stream(store)
    stream.show(*["GATE B12"] * 7)
    assert spans(store) == [("GATE B12", 5, 0.0, 1.0, False)]
    assert Closing(store).look(begun={"cam"}) == 1
    assert spans(store) == [("GATE B12", 7, 0.0, 1.5, True)]
    (appearance,) = store.appearances(Filter())
    assert appearance.path[-1][0] == (NOON_NS + 1_500_000_000) / 1e6


def test_a_text_that_was_surely_read_last_is_one_of_its_own(store: EmbeddedStore) -> None:
    Stream(store).show(*["GATE B12"] * 6, "GATE B13")
    assert Closing(store).look(begun={"cam"}) == 1
    assert spans(store) == [("GATE B12", 6, 0.0, 1.25, True), ("GATE B13", 1, 1.5, 1.5, True)]
    first, last = store.appearances(Filter())
    assert last.track_id.startswith("t0~")
    assert last.best_frame_id != first.best_frame_id


def test_what_another_run_has_open_is_left_alone(store: EmbeddedStore) -> None:
    Stream(store).show("GATE B12")
    look = Closing(store)
    assert look.look(begun={"hall"}) == 0
    assert [closed for *_, closed in spans(store)] == [False]
    # Unless it stays silent for a minute.
    assert look.look() == 1


def test_each_reading_belongs_to_one_appearance_where_a_recogniser_was_started_again(store: EmbeddedStore) -> None:
    stream = Stream(store)
    stream.show(*["GATE B12"] * 7)
    stream.start_again()
    stream.show(*["GATE B12"] * 5)
    look = Closing(store)
    assert look.look() == 0
    stream.show(*["GATE B12"] * 5)
    assert look.look() == 1
    stream.end()
    assert spans(store) == [("GATE B12", 7, 0.0, 1.5, True), ("GATE B12", 10, 1.75, 4.0, True)]


def test_what_is_still_spoken_of_stays_open_and_one_closed_too_soon_opens_again(store: EmbeddedStore) -> None:
    stream, look = Stream(store), Closing(store)
    stream.show(*["GATE B12"] * 5)
    assert look.look() == 0
    stream.show(*["GATE B12"] * 4)
    assert look.look() == 0
    assert look.look() == 1
    assert [closed for *_, closed in spans(store)] == [True]
    stream.show(*["GATE B12"] * 4)
    assert spans(store) == [("GATE B12", 13, 0.0, 3.0, False)]
    stream.end()
    assert spans(store) == [("GATE B12", 13, 0.0, 3.0, True)]
    assert look.look(begun={"cam"}) == 0


def test_a_store_that_is_away_is_looked_at_again(
    store: EmbeddedStore, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Stream(store).show("GATE B12")
    stop, unfinished = threading.Event(), store.unfinished
    looks: list[str] = []

    def away_at_first() -> Iterator[Appearance]:
        looks.append("look")
        if len(looks) == 1:
            raise StoreError("gone fishing")
        return unfinished()

    monkeypatch.setattr(store, "unfinished", away_at_first)
    monkeypatch.setattr(stop, "wait", lambda _: stop.set() if len(looks) == 2 else None)
    with caplog.at_level(logging.INFO):
        close_every_minute(store, stop, begun={"cam"})
    assert "open texts could not be closed: gone fishing" in caplog.text
    assert [closed for *_, closed in spans(store)] == [True]


def test_one_whose_best_frame_is_gone_is_left_to_retention(store: EmbeddedStore) -> None:
    Stream(store).show("GATE B12")
    (appearance,) = store.appearances(Filter())
    best = store.get(appearance.best_frame_id)
    assert best is not None
    store.write([replace(best, appearances=(replace(appearance, best_frame_id="gone", last_at_ns=NOON_NS + 1),))])
    assert Closing(store).look(begun={"cam"}) == 0
