"""The stages as pure handlers: frames to crops, crops to texts, texts to documents."""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ocrstream_test_engines import make_picture

from detector_consumer.stage import DetectorStage
from detector_consumer.stage import build as build_detector
from indexer.stage import IndexerStage
from indexer.stage import build as build_indexer
from ocrstream.config import DetectorSettings, IndexerSettings, RecognizerSettings
from ocrstream.errors import PoisonError
from ocrstream.geometry import box_polygon
from ocrstream.messages import Appearance, Crops, Frame, FrameInfo, Text, Texts, make_frame_id
from ocrstream.metrics import Metrics
from ocrstream.models import load_detector, load_recognizer
from ocrstream.picture import Picture
from ocrstream.query import parse
from ocrstream.storage import Filter, WriteReport
from ocrstream.storage.embedded import EmbeddedStore
from ocrstream.storage.frames import FrameStore
from ocrstream.transport.memory import MemoryTransport
from ocrstream.wire import decode, encode
from pipeline.topology import TOPOLOGY
from recognizer_consumer.stage import QUIET_S, RecognizerStage
from recognizer_consumer.stage import build as build_recognizer
from recognizer_consumer.voting import LONGEST_PATH, MOST_CANDIDATES, Ballot

SECOND_NS = 1_000_000_000
GATE = ("Gate B12", (40.0, 30.0, 240.0, 74.0))
EXIT = ("Exit", (300.0, 200.0, 420.0, 250.0))


def frame(second: float, *lines: tuple[str, tuple[float, float, float, float]], **changes: Any) -> Frame:
    at_ns = int(second * SECOND_NS)
    info = FrameInfo("hall", make_frame_id("hall", at_ns), at_ns, width_px=640, height_px=360, live=True)
    return Frame(replace(info, **changes), Picture.from_array(make_picture(lines)))


def detector() -> DetectorStage:
    return DetectorStage("blocks", load_detector)


def recognizer(min_confidence: float = 0.3) -> RecognizerStage:
    return RecognizerStage("plain", load_recognizer, min_confidence)


def test_lines_are_cut_out_with_their_place_in_the_frame() -> None:
    (crops,) = detector().handle([frame(1, GATE, EXIT)])
    assert [crop.region.polygon for crop in crops.crops] == [box_polygon(*GATE[1]), box_polygon(*EXIT[1])]
    assert [crop.region.line_number for crop in crops.crops] == [0, 1]
    assert [crop.pictures[0].array().shape for crop in crops.crops] == [(44, 200, 3), (50, 120, 3)]
    assert crops.detector.name == "blocks"
    assert crops.picture is not None


def test_polygons_are_in_the_frames_pixels_where_the_picture_was_shrunk() -> None:
    whole = frame(1, GATE)
    small = cv2.resize(whole.picture.array(), (480, 270), interpolation=cv2.INTER_AREA)
    (crops,) = detector().handle([Frame(whole.info, Picture.from_array(np.asarray(small, np.uint8)))])
    (crop,) = crops.crops
    for (x, y), (expected_x, expected_y) in zip(crop.region.polygon, box_polygon(*GATE[1]), strict=True):
        assert x == pytest.approx(expected_x, abs=2)
        assert y == pytest.approx(expected_y, abs=2)


def test_a_frame_without_text_is_told_of_too() -> None:
    (crops,) = detector().handle([frame(1)])
    (texts,) = recognizer().handle([crops])
    assert texts.lines == ()


def test_batches_keep_the_frames_order_and_each_its_own_crops() -> None:
    frames = [frame(1, GATE), frame(2), frame(3, EXIT, GATE)]
    read = recognizer().handle(detector().handle(frames))
    assert [texts.text for texts in read] == ["Gate B12", "", "Gate B12\nExit"]
    assert [texts.info.frame_id for texts in read] == [f.info.frame_id for f in frames]


def test_a_replay_chooses_its_engines_frame_by_frame() -> None:
    frames = [frame(1, GATE), frame(2, GATE, recognizer="shout", generation=5)]
    read = recognizer().handle(detector().handle(frames))
    assert [texts.text for texts in read] == ["Gate B12", "GATE B12!"]
    assert [texts.recognizer.name for texts in read] == ["plain", "shout"]


def test_an_engine_that_is_not_there_is_said_so() -> None:
    with pytest.raises(PoisonError, match="no recognizer 'psychic'"):
        recognizer().handle(detector().handle([frame(1, GATE, recognizer="psychic")]))
    with pytest.raises(PoisonError, match="no detector 'psychic'"):
        detector().handle([frame(1, GATE, detector="psychic")])


def test_unsure_readings_are_not_kept() -> None:
    crops = detector().handle([frame(1, GATE)])
    assert recognizer(min_confidence=0.96).handle(crops)[0].lines == ()
    assert len(recognizer(min_confidence=0.95).handle(crops)[0].lines) == 1


def test_one_text_over_time_is_one_track_and_one_appearance() -> None:
    finder, reader = detector(), recognizer()
    moved = (GATE[0], (60.0, 36.0, 260.0, 80.0))
    read: list[Texts] = []
    for second, line in ((10.0, GATE), (10.5, GATE), (11.0, moved), (11.5, moved)):
        read += reader.handle(finder.handle([frame(second, line)]))
    read += reader.finish()
    tracks = {line.region.track_id for texts in read for line in texts.lines}
    assert len(tracks) == 1
    last = read[-1].appearances[0]
    assert (last.text, last.readings, last.closed) == ("Gate B12", 4, True)
    assert (last.first_at_ns, last.last_at_ns) == (10 * SECOND_NS, int(11.5 * SECOND_NS))
    assert last.path == (
        (10_000.0, box_polygon(*GATE[1])),
        (10_500.0, box_polygon(*GATE[1])),
        (11_000.0, box_polygon(*moved[1])),
        (11_500.0, box_polygon(*moved[1])),
    )
    assert read[-1].info.frame_id == read[-2].info.frame_id


def test_a_text_that_has_gone_is_closed_and_one_elsewhere_is_another() -> None:
    finder, reader = detector(), recognizer()
    read: list[Texts] = []
    for second, lines in ((1.0, [GATE]), (2.0, [GATE, EXIT]), (5.0, [EXIT])):
        read += reader.handle(finder.handle([frame(second, *lines)]))
    news = {(a.text, a.closed, a.last_at_ns // SECOND_NS) for texts in read for a in texts.appearances}
    assert ("Gate B12", True, 2) in news
    assert ("Exit", False, 2) in news


def test_a_source_that_has_gone_quiet_is_closed_by_the_others() -> None:
    finder, reader = detector(), recognizer()

    def read(source_id: str, taken_s: float) -> list[Texts]:
        taken = frame(1, GATE, source_id=source_id, taken_at_ns=int(taken_s * SECOND_NS))
        return reader.handle(finder.handle([taken]))

    assert len(read("file", 100)) == 1
    assert len(read("camera", 100 + QUIET_S - 1)) == 1
    (seen, closing) = read("camera", 100 + QUIET_S + 1)
    assert seen.info.source_id == "camera"
    assert closing.info.source_id == "file"
    assert [(appearance.text, appearance.closed) for appearance in closing.appearances] == [("Gate B12", True)]
    assert [texts.info.source_id for texts in reader.finish()] == ["camera"]
    assert reader.finish() == []


def test_the_surest_text_wins_the_vote() -> None:
    ballot = Ballot()
    crops = detector().handle([frame(1, GATE)])[0]
    region = crops.crops[0].region
    votes = [("GATE 812", 0.5), ("GATE B12", 0.9), ("GATE 812", 0.3)]
    news = [ballot.count(frame(1 + n * 0.1).info, (Text(region, text, sure),)) for n, (text, sure) in enumerate(votes)]
    assert [appearance.text for found in news for appearance in found] == ["GATE 812", "GATE B12"]
    (last,) = ballot.close("hall", 1)
    assert (last.text, last.confidence, last.readings) == ("GATE B12", 0.9, 3)


def test_a_replay_of_a_part_doubles_and_loses_no_text_over_time(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)

    def read(*seconds: float, **changes: Any) -> None:
        finder, reader, indexer = detector(), recognizer(), IndexerStage(store, None, Metrics())
        for second in seconds:
            indexer.handle(reader.handle(finder.handle([frame(second, GATE, **changes)])))
        indexer.handle(reader.finish())

    read(*(number / 2 for number in range(20)))
    read(*(number / 2 for number in range(8, 13)), generation=5, recognizer="shout")
    spans = [(a.text, a.first_at_ns / SECOND_NS, a.last_at_ns / SECOND_NS) for a in store.appearances(Filter())]
    assert [(text, round(first, 3), round(last, 3)) for text, first, last in spans] == [
        ("Gate B12", 0.0, 4.0),
        ("GATE B12!", 4.0, 6.0),
        ("Gate B12", 6.0, 9.5),
    ]
    store.close()


def votes_of(ballot: Ballot, *texts: str, start_s: float = 1.0) -> list[tuple[str, str, bool]]:
    """Show texts in one place, ten a second; the id, text and end of what the ballot says."""
    region = detector().handle([frame(1, GATE)])[0].crops[0].region
    news: list[Appearance] = []
    for number, text in enumerate(texts):
        news += ballot.count(frame(start_s + number * 0.1).info, (Text(region, text, 0.9),))
    return [(appearance.track_id, appearance.text, appearance.closed) for appearance in news]


def test_another_text_in_the_same_place_is_another_appearance() -> None:
    news = votes_of(Ballot(), "ARRIVALS", "ARRIVALS", "DEPARTURES", "DEPARTURES", "DEPARTURES")
    (first, second) = dict.fromkeys(track_id for track_id, _, _ in news)
    assert second.startswith(f"{first}~")
    assert [(track_id == first, text, closed) for track_id, text, closed in news] == [
        (True, "ARRIVALS", False),
        (True, "ARRIVALS", True),
        (False, "DEPARTURES", False),
    ]


def test_one_wild_reading_is_outvoted() -> None:
    news = votes_of(Ballot(), "ARRIVALS", "ARRIVALS", "|||", "ARRIVALS", "ARRIVAL5")
    assert [(text, closed) for _, text, closed in news] == [("ARRIVALS", False)]


def spans_of(*readings: str | tuple[str, float], every_s: float = 0.25) -> list[tuple[str, int, float, float]]:
    """What the appearances of one place say in the end: text, readings, first and last second."""
    ballot = Ballot()
    region = detector().handle([frame(1, GATE)])[0].crops[0].region
    last: dict[str, Appearance] = {}
    for number, reading in enumerate(readings):
        text, confidence = (reading, 0.95) if isinstance(reading, str) else reading
        news = ballot.count(frame(1 + number * every_s).info, (Text(region, text, confidence),))
        last.update((appearance.track_id, appearance) for appearance in news)
    last.update((appearance.track_id, appearance) for appearance in ballot.close("hall", 1))
    assert all(appearance.closed for appearance in last.values())
    assert sum(appearance.readings for appearance in last.values()) == len(readings)
    return [(a.text, a.readings, a.first_at_ns / SECOND_NS, a.last_at_ns / SECOND_NS) for a in last.values()]


def test_a_clock_gives_one_appearance_for_each_time_it_shows() -> None:
    times = [f"12:30:{second:02d}" for second in range(38, 50)]
    spans = spans_of(*itertools.chain.from_iterable([time] * 3 for time in times))
    assert spans == [(time, 3, 1 + 0.75 * n, 1.5 + 0.75 * n) for n, time in enumerate(times)]


def test_a_steady_change_of_a_letter_is_another_text() -> None:
    assert spans_of("B12", "B12", "B2", "B2", "B2") == [("B12", 2, 1.0, 1.25), ("B2", 3, 1.5, 2.0)]
    there_and_back = spans_of("B12", "B12", "B2", "B2", "B12", "B12")
    assert [text for text, *_ in there_and_back] == ["B12", "B2", "B12"]


@pytest.mark.parametrize(
    "readings",
    [
        ("B12", "B12", "B2", "B12", "B12"),
        ("B12", "B12", ("B2", 0.8), ("B2", 0.95), ("B2", 0.8), "B12", "B12", "B12"),
        ("B12", "B12", "B2", "812", "B2", "B12"),
        (("B1", 0.8), "B12", "B12", "B12"),
        ("B12", "B12", "BI2", "Bl2", "B12"),
        ("B12", "B12", ("B2", 0.8)),
    ],
    ids=["flicker", "unsure", "unsteady", "one at first", "confused letters", "one at last"],
)
def test_misreadings_stay_one_appearance(readings: tuple[str | tuple[str, float], ...]) -> None:
    assert [(text, count) for text, count, _, _ in spans_of(*readings)] == [("B12", len(readings))]


@pytest.mark.parametrize(
    ("readings", "expected"),
    [
        (("T 011", "T 012", "T 012"), [("T 011", 1), ("T 012", 2)]),
        (("T 010", "T 010", "T 011"), [("T 010", 2), ("T 011", 1)]),
        (("T 010", "T 011"), [("T 010", 1), ("T 011", 1)]),
        (("T 010", "T 010", ("T 011", 0.8), "T 011"), [("T 010", 3), ("T 011", 1)]),
        (("T 011", "T 012", "T 011", "T 011"), [("T 011", 4)]),
    ],
    ids=["first", "last", "both", "last, unsure before", "a misreading behind the first"],
)
def test_one_sure_reading_is_enough_where_the_frames_begin_or_end(
    readings: tuple[str | tuple[str, float], ...], expected: list[tuple[str, int]]
) -> None:
    assert [(text, count) for text, count, _, _ in spans_of(*readings)] == expected


def test_a_text_that_changed_in_its_last_frame_only_has_gone_as_what_it_was() -> None:
    ballot = Ballot()
    votes_of(ballot, "T 010", "T 010", "T 011")
    ballot.count(frame(1.3).info, ())
    assert [(last.text, last.readings) for last in ballot.close("hall", 1)] == [("T 010", 3)]


def test_where_a_source_gave_nothing_for_a_while_its_frames_end_and_begin() -> None:
    ballot = Ballot()
    votes_of(ballot, "T 010", "T 010", "T 011")
    news = votes_of(ballot, "T 021", "T 022", "T 022", start_s=9.0)
    assert [text for _, text, closed in news if closed] == ["T 010", "T 011", "T 021"]


def test_a_clock_read_once_a_time_is_voted_on_and_not_lost() -> None:
    (span, last) = spans_of("12:30:41", "12:30:42", "12:30:43", "12:30:44", every_s=1.0)
    assert span[1:] == (3, 1.0, 3.0)
    assert last == ("12:30:44", 1, 4.0, 4.0)


def test_adjoining_replays_and_runs_lose_no_text_at_their_border(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)

    def read(*halves: int, **changes: Any) -> None:
        finder, reader, indexer = detector(), recognizer(), IndexerStage(store, None, Metrics())
        for half in halves:
            clock = (f"T {half // 2:03d}", GATE[1])
            indexer.handle(reader.handle(finder.handle([frame(half / 2, clock, **changes)])))
        indexer.handle(reader.finish())

    read(*range(4, 15))
    read(*range(15, 24))
    assert [(a.text, a.readings) for a in store.appearances(Filter())] == [
        *((f"T {n:03d}", 2) for n in range(2, 7)),
        ("T 007", 1),
        ("T 007", 1),
        *((f"T {n:03d}", 2) for n in range(8, 12)),
    ]
    read(*range(6, 11), generation=5)
    read(*range(11, 15), generation=6)
    for texts in store.scan(Filter()):
        at_ns = texts.info.captured_at_ns
        covering = [a for a in store.appearances(Filter()) if a.first_at_ns <= at_ns <= a.last_at_ns]
        assert [(a.text, a.generation) for a in covering] == [(texts.text, texts.info.generation)]
    assert sum(a.readings for a in store.appearances(Filter())) == 20
    store.close()


def test_a_recogniser_that_is_started_again_replaces_nothing_it_said_before() -> None:
    before = votes_of(Ballot(), "EXIT", "EXIT")
    after = votes_of(Ballot(), "EXIT", "EXIT", start_s=9.0)
    assert before[0][0] != after[0][0]
    assert after[0][0].startswith(before[0][0])


def test_a_sign_that_is_in_view_for_months_takes_no_more_room() -> None:
    ballot = Ballot()
    region = detector().handle([frame(1, GATE)])[0].crops[0].region
    for number in range(2000):
        x = 40.0 + 10.0 * (number % 2)
        moved = replace(region, polygon=box_polygon(x, 30.0, x + 200.0, 74.0))
        text = "GATE B12" if number % 3 != 2 else f"GATE {number}"
        ballot.count(frame(1 + number * 0.1).info, (Text(moved, text, 0.9),))
    (vote,) = ballot._open["hall", 1].votes.values()
    assert len(vote.path) <= LONGEST_PATH
    assert len(vote.candidates) <= MOST_CANDIDATES
    (last,) = ballot.close("hall", 1)
    assert (last.text, last.readings) == ("GATE B12", 2000)
    assert last.path[0][0] == 1000.0
    assert last.path[-1][0] == pytest.approx(1000 + 1999 * 100)
    assert [at_ms for at_ms, _ in last.path] == sorted({at_ms for at_ms, _ in last.path})


class TestIndexer:
    """The last stage, over the real embedded store."""

    def test_documents_are_found_and_pictures_are_kept(self, tmp_path: Path) -> None:
        store, frames, metrics = EmbeddedStore(tmp_path), FrameStore(tmp_path / "f", max_bytes=10**8), Metrics()
        stage = IndexerStage(store, frames, metrics, now_ns=lambda: 3 * SECOND_NS)
        (texts,) = recognizer().handle(detector().handle([frame(1, GATE)]))
        assert stage.handle([texts]) == []
        (hit,) = store.search(parse("gate"), Filter()).hits
        assert hit.texts.lines == texts.lines
        picture = frames.get(texts.info.frame_id, texts.info.captured_at_ns)
        assert picture is not None
        assert Picture.from_encoded(picture).array().shape == (360, 640, 3)
        latency = metrics.latency("indexer.delay")
        assert latency is not None
        assert latency.p50_s == 2.0
        store.close()

    def test_what_the_store_refuses_is_poison(self, tmp_path: Path) -> None:
        class Refusing(EmbeddedStore):
            def write(self, batch: Sequence[Texts]) -> WriteReport:
                return WriteReport(refused={0: "no such field"})

        store = Refusing(tmp_path)
        (texts,) = recognizer().handle(detector().handle([frame(1)]))
        with pytest.raises(PoisonError, match="no such field"):
            IndexerStage(store, None, Metrics()).handle([texts])
        store.close()


def test_the_topology_tells_the_truth(tmp_path: Path) -> None:
    transport, metrics = MemoryTransport(), Metrics()
    store = EmbeddedStore(tmp_path)
    runners = {
        "detector_consumer": build_detector(DetectorSettings(engine="blocks"), transport, metrics),
        "recognizer_consumer": build_recognizer(RecognizerSettings(engine="plain"), transport, metrics),
        "indexer": build_indexer(IndexerSettings(), store, None, transport, metrics),
    }
    rows = {row.folder: row for row in TOPOLOGY}
    for folder, runner in runners.items():
        assert runner.flow.takes == rows[folder].takes
        assert (runner.flow.gives or "documents") == rows[folder].gives
        assert runner.flow.group == rows[folder].group
    for above, below in itertools.pairwise(TOPOLOGY):
        assert above.gives in below.takes
    store.close()


def test_crops_of_a_stage_survive_the_wire() -> None:
    (crops,) = detector().handle([frame(1, GATE, EXIT)])
    again = decode(encode(crops))
    assert isinstance(again, Crops)
    assert recognizer().handle([again])[0].text == "Gate B12\nExit"
