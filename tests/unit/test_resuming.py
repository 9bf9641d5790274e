"""Texts that go on after nobody looked: a start, a rebalance, a gap in a source's time."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocrstream.geometry import Polygon, bounding_box, box_polygon
from ocrstream.messages import TEXTS, Appearance, FrameInfo, RawRecord, Region, Texts, make_frame_id
from ocrstream.storage.embedded import EmbeddedStore
from ocrstream.storage.superseding import track_of
from ocrstream.transport.memory import MemoryTransport
from ocrstream.wire import encode
from recognizer_consumer.appearing import Sighting
from recognizer_consumer.resuming import IN_PART_S, TAKEN_UP_S, Recall, StoreRecall, TopicRecall, nothing_is_known
from recognizer_consumer.voting import Ballot
from tests.documents import DETECTOR, RECOGNIZER

SIGN = box_polygon(40.0, 30.0, 240.0, 74.0)
ELSEWHERE = box_polygon(400.0, 30.0, 600.0, 74.0)
BOARD = box_polygon(40.0, 200.0, 300.0, 244.0)
NOW_S = 1_800_000_000.0


def at(second: float, **changes: Any) -> FrameInfo:
    at_ns = round((NOW_S + second) * 1e9)
    return replace(FrameInfo("hall", make_frame_id("hall", at_ns), at_ns, 640, 360, live=True), **changes)


def seen(track_id: str, text: str = "", *, where: Polygon = SIGN, sure: float = 0.95) -> Sighting:
    """A line that is read, or seen as last read where no text is given."""
    return Sighting(Region(0, where, 0.9, track_id), text, sure if text else 0.0, fresh=bool(text), is_changed=False)


class Watching:
    """A source in view, and what was said of its texts last; a recogniser knows of the others before it by recall."""

    def __init__(self, recall: Recall | None = None) -> None:
        self.last_words: dict[str, Appearance] = {}
        self._recall = recall or (lambda _info: self.last_words.values())
        self.ballot = Ballot(recall=self._recall)

    def start_again(self) -> None:
        self.ballot = Ballot(recall=self._recall)

    def show(self, start_s: float, *frames: tuple[Sighting, ...], since_ns: int = 0) -> None:
        """Ten frames a second."""
        for number, lines in enumerate(frames):
            self.hear(self.ballot.count(at(start_s + number / 10), lines, "crnn", since_ns))

    def end(self) -> None:
        self.hear(self.ballot.close("hall", 1))

    def hear(self, news: tuple[Appearance, ...]) -> None:
        self.last_words.update((appearance.track_id, appearance) for appearance in news)

    def spans(self) -> list[tuple[str, str, float, float]]:
        self.end()
        return [
            (track_of(a), a.text, round(a.first_at_ns / 1e9 - NOW_S, 1), round(a.last_at_ns / 1e9 - NOW_S, 1))
            for a in self.last_words.values()
        ]


def test_a_recogniser_that_is_started_again_goes_on_with_what_is_in_view() -> None:
    watching = Watching()
    watching.show(0, (seen("t1", "GATE B12"),), *[(seen("t1"),)] * 20)
    (before,) = watching.last_words.values()
    watching.start_again()
    # The detector sends no crop again of what it has sent: nothing but its track is seen.
    watching.show(9.8, (), (), (seen("t1"),), (seen("t1"),))
    assert watching.spans() == [("t1", "GATE B12", 0.0, 10.1)]
    (after,) = watching.last_words.values()
    assert replace(after, last_at_ns=before.last_at_ns, path=before.path, closed=False) == before
    assert after.path == ((at(0).at_ms, SIGN), (at(10.1).at_ms, SIGN))


def test_its_lines_say_what_is_known_of_them_at_once() -> None:
    watching = Watching()
    watching.show(0, (seen("t1", "GATE B12"),))
    watching.start_again()
    line = seen("t1")
    watching.show(5, (line,))
    said = watching.ballot.said_at(at(5), line.region)
    assert said is not None
    assert said.text == "GATE B12"


def test_a_line_that_a_detector_follows_under_a_new_name_goes_on_under_the_old_one() -> None:
    watching = Watching()
    watching.show(0, (seen("t1", "GATE B12"), seen("t2", "Exit", where=BOARD)))
    watching.start_again()
    lines = seen("n7", "Exit", where=BOARD), seen("n8", "GATE B12")
    watching.show(10, lines, lines)
    assert [watching.ballot.known(at(10), line.region).track_id for line in lines] == ["t2", "t1"]
    assert watching.spans() == [("t1", "GATE B12", 0.0, 10.1), ("t2", "Exit", 0.0, 10.1)]


def test_a_reading_that_is_unsure_may_be_what_stood_there() -> None:
    watching = Watching()
    watching.show(0, (seen("t1", "GATE B12"),))
    watching.start_again()
    watching.show(10, (seen("n1", "GATF R12", sure=0.6),), (seen("n1", "GATE B12"),))
    watching.start_again()
    # Nor does a space make another text of it.
    watching.show(10.1, (seen("m1", "GATEB12"),))
    assert watching.spans() == [("t1", "GATE B12", 0.0, 10.1)]


def test_another_text_is_another_one() -> None:
    watching = Watching()
    watching.show(0, (seen("t1", "GATE B12"),))
    watching.start_again()
    watching.show(10, (seen("n1", "GATE B13"),))
    assert watching.spans() == [("t1", "GATE B12", 0.0, 0.0), ("n1", "GATE B13", 10.0, 10.0)]


def test_what_said_something_else_meanwhile_has_gone() -> None:
    watching = Watching()
    watching.show(0, (seen("t1", "Thank you"),))
    watching.start_again()
    watching.show(10, (seen("n1", "Roadmap 2031"),), (seen("n2", "Thank you"),))
    assert watching.spans() == [
        ("t1", "Thank you", 0.0, 0.0), ("n1", "Roadmap 2031", 10.0, 10.0), ("n2", "Thank you", 10.1, 10.1)
    ]  # fmt: skip


def test_what_comes_long_after_looking_has_begun_again_comes_anew() -> None:
    watching = Watching()
    watching.show(0, (seen("t1", "GATE B12"), seen("t2", "Exit", where=BOARD)))
    watching.start_again()
    empty_frames = round(10 * TAKEN_UP_S)
    watching.show(10, (seen("n2", "Exit", where=BOARD),), *[()] * empty_frames, (seen("n1", "GATE B12"),))
    assert [track for track, text, *_ in watching.spans() if text == "GATE B12"] == ["t1", "n1"]


def test_the_same_text_elsewhere_is_another_one() -> None:
    watching = Watching()
    watching.show(0, (seen("t1", "Exit"),))
    watching.start_again()
    watching.show(10, (seen("n1", "Exit", where=BOARD),))
    assert len(watching.spans()) == 2


def van(second: float) -> Polygon:
    """Where a van's sign is that drives past at 90 px a second."""
    return box_polygon(40.0 + 90 * second, 30.0, 240.0 + 90 * second, 74.0)


def driving(track_id: str, start: float, end: float) -> list[tuple[Sighting, ...]]:
    tenths = range(round(10 * start), round(10 * end))
    return [(seen(track_id, "VAN 4821" if n == tenths[0] else "", where=van(n / 10)),) for n in tenths]


@pytest.mark.parametrize("way_px", [0, 30, -30, 120])
def test_a_line_that_has_moved_on_meanwhile_goes_on(way_px: int) -> None:
    watching = Watching()
    watching.show(0, *driving("t1", 0, 1.5))
    watching.start_again()
    there = box_polygon(*np.add(bounding_box(van(2.6)), (way_px, 0, way_px, 0)))
    watching.show(2.6, (seen("t2", "VAN 4821", where=there),), since_ns=7)
    is_it = abs(way_px) < 100
    assert [span[:2] for span in watching.spans()] == [("t1", "VAN 4821")] + [("t2", "VAN 4821")] * (not is_it)


@pytest.mark.parametrize("way_px", [0, 100])
def test_a_line_that_comes_out_from_behind_something_on_its_way_goes_on(way_px: int) -> None:
    watching = Watching()
    watching.show(0, *driving("t1", 0, 1.5), *[()] * 8)
    watching.show(2.3, *driving("t2", 2.3 + way_px / 90, 3.0 + way_px / 90))
    spans = watching.spans()
    assert spans[0] == ("t1", "VAN 4821", 0.0, 1.4 if way_px else 2.9)
    assert len(spans) == (2 if way_px else 1)


def test_more_is_read_of_a_line_that_has_come_in_meanwhile() -> None:
    watching = Watching()
    coming = [box_polygon(440.0 - 20 * n, 200.0, 640.0, 244.0) for n in range(8)]
    watching.show(0, *[(seen("t1", "Weather: rain" if n == 7 else "", where=place),) for n, place in enumerate(coming)])
    watching.start_again()
    there = box_polygon(440.0 - 20 * 17, 200.0, 640.0, 244.0)
    watching.show(1.7, (seen("t2", "Weather: rain from the west", where=there),), since_ns=7)
    assert [span[:2] for span in watching.spans()] == [("t1", "Weather: rain from the west")]


@pytest.mark.parametrize("came_over_the_edge", [True, False])
def test_a_word_that_comes_in_after_a_start_belongs_to_the_line_that_was_read_twice(came_over_the_edge: bool) -> None:
    # Of what had come over the frame's edge more may come; what stood there whole says something new.
    watching = Watching()
    x1 = 639.0 if came_over_the_edge else 600.0
    places = [box_polygon(440.0 - 20 * n, 200.0, x1, 244.0) for n in range(12)]
    read = [seen("t1", "Library" if n % 5 == 0 else "", where=place) for n, place in enumerate(places)]
    watching.show(0, *[(each,) for each in read])
    watching.start_again()
    longer = replace(seen("t2", "Library closed", where=box_polygon(200.0, 200.0, 630.0, 244.0)), is_changed=True)
    watching.show(1.2, (seen("t2", where=places[-1]),), since_ns=7)
    watching.show(2.0, (longer,), *[(replace(longer, fresh=False),)] * 4, since_ns=7)
    texts = [span[1] for span in watching.spans()]
    assert texts == (["Library closed"] if came_over_the_edge else ["Library", "Library closed"])


def test_a_text_whose_place_was_that_of_a_longer_one_goes_on() -> None:
    watching = Watching()
    watching.show(0, (seen("t1", "Next Steps", where=box_polygon(90.0, 90.0, 620.0, 144.0)),))
    watching.start_again()
    watching.show(0.1, (seen("t2", "Next Steps", where=box_polygon(94.0, 88.0, 484.0, 146.0)),), since_ns=7)
    assert [span[:2] for span in watching.spans()] == [("t1", "Next Steps")]


def test_what_had_gone_before_does_not_go_on() -> None:
    watching = Watching()
    watching.show(0, (seen("t1", "GATE B12"), seen("t2", "Exit", where=BOARD)))
    watching.show(5, *[(seen("t2", where=BOARD),)] * 50)
    watching.start_again()
    watching.show(12, (seen("n1", "GATE B12"), seen("n2", "Exit", where=BOARD)))
    assert [(text, first_s) for _, text, first_s, _ in watching.spans()] == [
        ("GATE B12", 0.0),
        ("Exit", 0.0),
        ("GATE B12", 12.0),
    ]


def test_nobody_knows_what_was_there_longer_than_a_minute_ago() -> None:
    watching = Watching()
    watching.show(0, (seen("t1", "GATE B12"),))
    watching.start_again()
    watching.show(61, (seen("t1", "GATE B12"),))
    assert len(watching.spans()) == 2


def test_what_is_in_view_before_and_after_a_gap_goes_on() -> None:
    watching = Watching(nothing_is_known)
    watching.show(0, (seen("t1", "GATE B12"), seen("t2", "Exit", where=BOARD)))
    watching.show(20, (seen("n1", "GATE B12"),))
    assert watching.spans() == [("t1", "GATE B12", 0.0, 20.0), ("t2", "Exit", 0.0, 0.0)]


def test_a_line_that_another_detector_follows_from_now_on_goes_on() -> None:
    watching = Watching(nothing_is_known)
    watching.show(0, (seen("t1", "GATE B12"),), (seen("t1"),), (seen("n1", "GATE B12"),), (seen("n1"),))
    assert watching.spans() == [("t1", "GATE B12", 0.0, 0.3)]


def test_two_lines_never_go_on_as_one() -> None:
    watching = Watching(nothing_is_known)
    both = seen("n1", "GATE B12"), seen("n2", "GATE B12")
    watching.show(0, (seen("t1", "GATE B12"),), both)
    assert [watching.ballot.known(at(0.1), line.region).track_id for line in both] == ["t1", "n2"]
    # The line that was lost is found again.
    watching.show(0.2, (seen("t1", "GATE B12"), *both))
    names = {watching.ballot.known(at(0.2), line.region).track_id for line in (seen("t1"), *both)}
    assert names == {"t1", "n1", "n2"}


def test_a_text_that_changed_just_before_goes_on_as_the_later_one() -> None:
    watching = Watching()
    changed = replace(seen("t1", "GATE C40"), is_changed=True)
    watching.show(0, (seen("t1", "GATE B12"),), *[(seen("t1"),)] * 5, *[(changed,)] * 5)
    watching.start_again()
    watching.show(10, (seen("t1"),), (seen("t1"),))
    assert [(text, first_s, last_s) for _, text, first_s, last_s in watching.spans()] == [
        ("GATE B12", 0.0, 0.5),
        ("GATE C40", 0.6, 10.1),
    ]


def test_a_file_that_goes_on_reads_some_of_it_again() -> None:
    def of_file(second: float) -> FrameInfo:
        return at(second, live=False, media_time_ms=second * 1000)

    watching = Watching()
    for tenth in range(48):
        watching.hear(watching.ballot.count(of_file(10 + tenth / 10), (seen("t1", "GATE B12" if not tenth else ""),)))
    # What came into view in those last frames, too.
    watching.hear(watching.ballot.count(of_file(14.6), (seen("t1"), seen("t2", "Exit", where=BOARD))))
    watching.start_again()
    for tenth in range(20):
        text, other = ("GATE B12", "Exit") if not tenth else ("", "")
        lines = (seen("n1", text), seen("n2", other, where=BOARD))
        watching.hear(watching.ballot.count(of_file(14.2 + tenth / 10), lines))
    spans = {text: (track_id, first_s, last_s) for track_id, text, first_s, last_s in watching.spans()}
    assert spans == {"GATE B12": ("t1", 10.0, 16.1), "Exit": ("t2", 14.6, 16.1)}


def test_another_detector_needs_a_while_to_find_the_lines_again() -> None:
    watching = Watching(nothing_is_known)
    watching.show(0, (seen("t1", "GATE B12"),), since_ns=1)
    # Frames come all the time, and for longer than a text may be lost there is nothing in them.
    watching.show(0.2, *[()] * 30, (seen("n1", "GATE B12"),), since_ns=2)
    assert watching.spans() == [("t1", "GATE B12", 0.0, 3.2)]


def test_a_recogniser_and_a_detector_that_are_started_again_together_go_on() -> None:
    asked: list[float] = []

    def recall(info: FrameInfo) -> list[Appearance]:
        asked.append(info.captured_at_ns / 1e9 - NOW_S)
        return list(watching.last_words.values())

    watching = Watching(recall)
    watching.show(0, (seen("t1", "GATE B12"),), since_ns=1)
    watching.start_again()
    watching.show(20, *[()] * 40, (seen("n1", "GATE B12"),), since_ns=2)
    assert asked[-1] == pytest.approx(20, abs=0.1), "about the time before its first frame"
    assert watching.spans() == [("t1", "GATE B12", 0.0, 24.0)]


def test_a_recogniser_goes_on_with_what_the_one_before_knew_under_another_name() -> None:
    watching = Watching()
    watching.show(0, (seen("t1", "GATE B12"), seen("t2", "Exit", where=BOARD)), since_ns=1)
    # First the detector is started again, then the recogniser: lines under new names, and nobody reads them again.
    watching.show(0.1, *[(seen("n1", "GATE B12"), seen("n2", "Exit", where=BOARD))] * 2, since_ns=2)
    watching.start_again()
    watching.show(0.3, *[(seen("n1"), seen("n2", where=BOARD), seen("n3", where=ELSEWHERE))] * 15, since_ns=2)
    assert watching.spans() == [("t1", "GATE B12", 0.0, 1.7), ("t2", "Exit", 0.0, 1.7)]


def test_what_was_in_view_goes_on_also_if_somebody_looked_meanwhile_and_found_nothing() -> None:
    for recalls in (False, True):
        watching = Watching(None if recalls else nothing_is_known)
        watching.show(0, (seen("t1", "GATE B12"),), since_ns=1)
        if recalls:
            watching.start_again()
        watching.show(6, (), since_ns=2)
        watching.show(16, (), (), (seen("n1", "GATE B12"),), since_ns=2)
        assert watching.spans() == [("t1", "GATE B12", 0.0, 16.2)]


def test_of_a_line_that_comes_in_more_is_read_afterwards() -> None:
    def ticker(left: float, right: float) -> Polygon:
        return box_polygon(left, 30.0, right, 74.0)

    watching = Watching()
    watching.show(0, (seen("t1", "STORM WARNING FOR", where=ticker(340.0, 640.0)),))
    watching.start_again()
    # It is not read before more of it has come in.
    unread = seen("n1", where=ticker(330.0, 640.0))
    watching.show(0.1, (unread,), (seen("n1", "STORM WARNING FOR THE COAST", where=ticker(130.0, 620.0)),))
    assert watching.spans() == [("t1", "STORM WARNING FOR THE COAST", 0.0, 0.2)]


LEFT, RIGHT = box_polygon(40.0, 200.0, 180.0, 244.0), box_polygon(240.0, 200.0, 300.0, 244.0)
"""What of `BOARD` can be seen beside somebody who stands before it."""


def test_what_can_be_seen_of_a_line_beside_somebody_who_stands_before_it_goes_on_as_all_of_it() -> None:
    watching = Watching()
    watching.show(0, (seen("t1", "Departs 14:35", where=BOARD),), *[(seen("t1", where=BOARD),)] * 10)
    watching.start_again()
    read = seen("n1", "Departs 14", where=LEFT), seen("n2", ":35", where=RIGHT)
    held = [(seen("n1", where=LEFT), seen("n2", where=RIGHT))] * 5
    # They are read again and again while the picture rests.
    watching.show(5, read, *held, read, *held, read, *held, read)
    assert watching.ballot.said_at(at(6.8), read[0].region) is not None
    assert {each.text for each in watching.last_words.values()} == {"Departs 14:35"}
    whole = seen("n3", "Departs 14:35", where=BOARD)
    watching.show(7, (whole,), *[(seen("n3", where=BOARD),)] * 5)
    assert watching.spans() == [("t1", "Departs 14:35", 0.0, 7.5)]
    (after,) = watching.last_words.values()
    assert {polygon for _, polygon in after.path} == {BOARD}


def test_what_is_less_of_a_line_for_long_after_a_start_is_another_text() -> None:
    watching = Watching()
    watching.show(0, (seen("t1", "Departs 14:35", where=BOARD),), *[(seen("t1", where=BOARD),)] * 10)
    watching.start_again()
    for second in range(5, 45):
        watching.show(second, (seen("n1", "Departs 14", where=LEFT),), *[(seen("n1", where=LEFT),)] * 9)
    (before, later) = watching.spans()
    assert before[:3] == ("t1", "Departs 14:35", 0.0)
    assert later[1] == "Departs 14"
    assert later[2] > 5 + IN_PART_S - 2


def test_it_is_asked_what_was_in_view_where_somebody_can_know() -> None:
    asked = []

    def recall(info: FrameInfo) -> list[Appearance]:
        asked.append(info)
        return []

    def asks(info: FrameInfo, line: Sighting) -> bool:
        asked.clear()
        Ballot(recall=recall).count(info, (line,))
        return bool(asked)

    line = seen("t1", "GATE B12")
    assert asks(at(0), line)
    assert asks(at(0, media_time_ms=60_000.0), line)
    # Segments are read side by side.
    assert not asks(at(0, media_time_ms=60_000.0, segment=3), line)
    assert asks(at(0, media_time_ms=40.0), line)
    assert not asks(at(0, media_time_ms=0.0), line), "a file's beginning"
    assert not asks(at(0), Sighting(Region(0, SIGN, 0.9), "GATE B12", 0.9)), "nothing is followed there"


def said(second: float, text: str, *, generation: int = 1) -> Texts:
    info = replace(at(second), generation=generation)
    ballot = Ballot()
    appearances = ballot.count(info, (seen(f"{text}-{generation}", text),))
    return Texts(info, DETECTOR, RECOGNIZER, (), appearances)


def test_a_store_recalls_a_source_and_generation(tmp_path: Path) -> None:
    with closing(EmbeddedStore(tmp_path)) as store:
        store.write([said(0, "long ago"), said(100, "GATE B12"), said(101, "Exit", generation=2)])
        found = [appearance.text for appearance in StoreRecall(store)(at(110))]
    assert found == ["GATE B12"]


def test_a_topic_recalls_what_was_said_last() -> None:
    transport = MemoryTransport(partitions=2, capacity=100)
    now_s = time.time() - NOW_S
    for texts in (said(now_s - 2, "GATE B12"), said(now_s - 1, "Exit", generation=2)):
        transport.publish(TEXTS, texts)
    (open_,) = said(now_s - 2, "GATE B12").appearances
    later = replace(said(now_s - 1, "GATE B12"), appearances=(replace(open_, readings=7),))
    transport.publish(TEXTS, later)
    # What came after the frame that is asked about, such as those in which a new detector found nothing yet.
    for second in range(20):
        transport.publish(TEXTS, replace(said(now_s + second, "later"), appearances=()))
    # A record that nobody can read is the indexer's to set aside.
    damaged = encode(later)
    transport.publish(TEXTS, RawRecord(damaged.key, b"nonsense", damaged.headers, damaged.timestamp_ms))
    recall = TopicRecall(transport)
    assert [(each.text, each.readings) for each in recall(at(now_s))] == [("GATE B12", 7)]
    assert [each.text for each in TopicRecall(transport)(replace(at(now_s), generation=2))] == ["Exit"]
    assert list(recall(replace(at(now_s), source_id="street"))) == []
    transport.close()
