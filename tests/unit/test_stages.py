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
from detector_consumer.stage import prepare as prepare_detector
from indexer.stage import IndexerStage
from indexer.stage import build as build_indexer
from ocrstream.by_source import read_patterns, read_zones
from ocrstream.config import DetectorSettings, IndexerSettings, RecognizerSettings
from ocrstream.errors import PoisonError
from ocrstream.geometry import box_polygon
from ocrstream.messages import Crops, EngineInfo, Frame, FrameInfo, Texts, make_frame_id
from ocrstream.metrics import Metrics
from ocrstream.models import Detector, Margin, Reading, load_detector, load_recognizer
from ocrstream.models.asked_for import Engines
from ocrstream.picture import Image, Picture
from ocrstream.query import parse
from ocrstream.storage import Filter, WriteReport
from ocrstream.storage.embedded import EmbeddedStore
from ocrstream.storage.frames import FrameStore
from ocrstream.transport.memory import MemoryTransport
from ocrstream.wire import decode, encode
from pipeline.topology import TOPOLOGY
from recognizer_consumer.stage import QUIET_S, RecognizerStage
from recognizer_consumer.stage import prepare as prepare_recognizer

SECOND_NS = 1_000_000_000
GATE = ("Gate B12", (40.0, 30.0, 240.0, 74.0))
EXIT = ("Exit", (300.0, 200.0, 420.0, 250.0))


def frame(second: float, *lines: tuple[str, tuple[float, float, float, float]], **changes: Any) -> Frame:
    at_ns = int(second * SECOND_NS)
    info = FrameInfo("hall", make_frame_id("hall", at_ns), at_ns, width_px=640, height_px=360, live=True)
    return Frame(replace(info, **changes), Picture.from_array(make_picture(lines)))


def detector(*, reads_all: bool = False) -> DetectorStage:
    return DetectorStage("blocks", load_detector, reads_all=reads_all)


def recognizer(min_confidence: float = 0.3) -> RecognizerStage:
    return RecognizerStage(Engines("plain", load_recognizer), min_confidence)


@pytest.mark.parametrize("reads_all", [True, False])
def test_what_the_detector_wants_cut_out_around_a_line_is_no_part_of_its_place(reads_all: bool) -> None:
    def wide(name: str) -> Detector:
        found = load_detector(name)
        found.margin = Margin(along=0.5, across=0.25)
        return found

    (crops,) = DetectorStage("blocks", wide, reads_all=reads_all).handle([frame(1, GATE)])
    assert crops.crops[0].region.polygon == box_polygon(*GATE[1])
    assert crops.crops[0].pictures[0].array().shape == (44 + 22, 200 + 44, 3)


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


def test_a_frame_that_is_read_whole_says_only_what_was_read_in_it() -> None:
    """Unlike one of which only what is new is read, it takes nothing over from the frames or images before it."""

    class Fading:
        info = EngineInfo("fading", "0")

        def __init__(self) -> None:
            self.confidences = iter((0.95, 0.2))

        def read(self, crops: Sequence[Image]) -> list[Reading]:
            confidence = next(self.confidences)
            return [Reading("Gate B12", confidence) for _ in crops]

    found = detector(reads_all=True).handle([frame(1, GATE), frame(1.1, GATE)])
    engine = Fading()
    stage = RecognizerStage(Engines("fading", lambda _name: engine), 0.3)
    assert [len(stage.handle([crops])[0].lines) for crops in found] == [1, 0]


def test_each_characters_confidence_and_the_sources_formats_count_in_the_vote() -> None:
    class Unsure:
        """Reads the first crop well but for one letter, the others badly but for it, with too many spaces."""

        info = EngineInfo("unsure", "0" * 12)

        def __init__(self) -> None:
            self._readings = [
                Reading(" GATE  81O", 0.9, (0.9, *(0.99,) * 4, 0.9, 0.9, 0.2, 0.99, 0.99)),
                Reading("GATE B1O", 0.7, (0.7,) * 8),
            ]

        def read(self, crops: Sequence[Image]) -> list[Reading]:
            return [self._readings.pop(0) for _ in crops]

    engine, finder = Unsure(), detector(reads_all=True)
    stage = RecognizerStage(Engines("unsure", lambda _name: engine), 0.3, read_patterns({"h*": [r"GATE [A-Z]\d\d"]}))
    for second in (1.0, 1.1):
        stage.handle(finder.handle([frame(second, GATE)]))
    assert [appearance.text for appearance in stage.finish()[0].appearances] == ["GATE B10"]


def test_formats_and_masks_come_from_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    formats = read_patterns({"h*": [r"GATE [A-Z]\d\d"]})
    masks = read_zones({"hall": [[[0.4, 0.5], [1, 0.5], [1, 1], [0.4, 1]]]})
    transport, metrics = MemoryTransport(), Metrics()
    finder = prepare_detector(DetectorSettings(engine="blocks", masks=masks, read="all"))(transport, metrics)
    (crops,) = finder._stage.handle([frame(1, GATE, EXIT)])
    assert isinstance(crops, Crops)
    assert [crop.region.polygon for crop in crops.crops] == [box_polygon(*GATE[1])]

    class Misread:
        """Reads a digit as a letter."""

        info = EngineInfo("misread", "0" * 12)

        def read(self, crops: Sequence[Image]) -> list[Reading]:
            return [Reading("GATE Bl2", 0.7, (*(0.99,) * 6, 0.3, 0.99)) for _ in crops]

    monkeypatch.setattr("recognizer_consumer.stage.load_recognizer", lambda _name, _options: Misread())
    reader = prepare_recognizer(RecognizerSettings(engine="misread", formats=formats))(transport, metrics)
    reader._stage.handle([crops])
    (last,) = reader._stage.finish()
    assert isinstance(last, Texts)
    assert [appearance.text for appearance in last.appearances] == ["GATE B12"]


def test_one_text_over_time_is_one_track_and_one_appearance() -> None:
    finder, reader = detector(reads_all=True), recognizer()
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
    finder, reader = detector(reads_all=True), recognizer()
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


def test_adjoining_replays_and_runs_lose_no_text_at_their_border(tmp_path: Path) -> None:
    store = EmbeddedStore(tmp_path)

    def read(*halves: int, **changes: Any) -> None:
        finder, reader = detector(reads_all=True), recognizer()
        indexer = IndexerStage(store, None, Metrics())
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
        "detector_consumer": prepare_detector(DetectorSettings(engine="blocks"))(transport, metrics),
        "recognizer_consumer": prepare_recognizer(RecognizerSettings(engine="plain"))(transport, metrics),
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
