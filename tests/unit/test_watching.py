"""What the detector's stage looks at of a source, what it sends on to be read, and what it keeps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import Any

import cv2
import numpy as np
import pytest
from ocrstream_test_engines import BlocksDetector, make_picture

from detector_consumer import stage as stage_module
from detector_consumer import tracking
from detector_consumer.asking import EXAMINE_AFTER_S, EXAMINE_LOST_S
from detector_consumer.gating import EXAMINE_EVERY_S
from detector_consumer.glancing import FOLLOW_AFTER_S
from detector_consumer.retracing import MOMENT_S
from detector_consumer.stage import DetectorStage
from detector_consumer.turns import READ_AGAIN_S
from detector_consumer.views import JUMP_NEWS, RESTLESS_LOOKS, RESTS_NEWS
from detector_consumer.watching import (
    KEEP_AFTER_S,
    LOOK_AFTER_S,
    TELL_AFTER_S,
    Watch,
)
from ocrstream.errors import MalformedRecordError
from ocrstream.geometry import Box, bounding_box, box_polygon
from ocrstream.messages import Crops, Frame, FrameInfo, Texts, make_frame_id
from ocrstream.models import EngineOptions, TextLine, load_recognizer
from ocrstream.models.asked_for import Engines
from ocrstream.picture import Image, Picture, encode_jpeg
from recognizer_consumer.stage import RecognizerStage

FRAME_S = 1 / 30
SIZE_WH = (640, 360)
WHOLE = (0.0, 0.0, 640.0, 360.0)
GATE = ("Gate B12", (40.0, 30.0, 240.0, 74.0))
EXIT = ("Exit", (300.0, 200.0, 420.0, 250.0))


class Watched(BlocksDetector):
    """The detector ``blocks``, which remembers the sizes of what it was shown."""

    def __init__(self) -> None:
        super().__init__(EngineOptions())
        self.shown: list[tuple[int, int]] = []

    def detect(self, pictures: Sequence[Image]) -> list[list[TextLine]]:
        self.shown += [(picture.shape[1], picture.shape[0]) for picture in pictures]
        return super().detect(pictures)


class Rig:
    """A detector's stage, and what came out of it so far."""

    def __init__(self, detector: Watched | None = None, **settings: Any) -> None:
        self.detector = detector or Watched()
        self.stage = DetectorStage("blocks", lambda _name: self.detector, **settings)
        self.told: list[Crops] = []

    def show(self, frames: Iterable[Frame]) -> list[Crops]:
        """Show frames one by one; what was told of them."""
        told = [crops for each in frames for crops in self.stage.handle([each])]
        self.told += told
        return told

    def finish(self) -> list[Crops]:
        """End, and take what is still told."""
        ended = self.stage.finish()
        self.told += ended
        return ended

    def read(self) -> list[Texts]:
        """What a recogniser makes of all that was told."""
        reader = RecognizerStage(Engines("plain", load_recognizer), 0.3)
        return [*(texts for crops in self.told for texts in reader.handle([crops])), *reader.finish()]


def frame(at_s: float, *lines: tuple[str, Box], source_id: str = "hall", noise: float = 0.0, **changes: Any) -> Frame:
    at_ns = round(at_s * 1e9)
    picture = make_picture(lines, SIZE_WH)
    if noise:
        grains = np.random.default_rng(at_ns).normal(0.0, noise, picture.shape)
        picture = np.clip(picture + grains, 0, 255).astype(np.uint8)
    info = FrameInfo(source_id, make_frame_id(source_id, at_ns), at_ns, *SIZE_WH, live=False, media_time_ms=at_s * 1000)
    return Frame(replace(info, **changes), Picture.from_array(picture))


def still(start_s: float, end_s: float, *lines: tuple[str, Box], **changes: Any) -> list[Frame]:
    """Frames at 30 a second of the same lines, the last one before the end."""
    count = round((end_s - start_s) / FRAME_S)
    return [frame(start_s + number * FRAME_S, *lines, **changes) for number in range(count)]


def at_s(crops: Crops) -> float:
    return round(crops.info.captured_at_ns / 1e9, 2)


def sent_at_s(told: Iterable[Crops]) -> list[float]:
    """When anything was sent to be read."""
    return [at_s(crops) for crops in told if any(crop.pictures for crop in crops.crops)]


def as_told(told: Iterable[Crops]) -> list[tuple[Any, ...]]:
    """All that was told, in a form that can be compared."""
    return [
        (crops.info.frame_id, crops.is_kept, [(crop.region, len(crop.pictures), crop.view) for crop in crops.crops])
        for crops in told
    ]


def test_a_still_text_is_sent_seldom_and_otherwise_as_last_read() -> None:
    rig = Rig()
    told = rig.show(still(1, 4, GATE))
    assert rig.detector.shown == [SIZE_WH]
    sent = sent_at_s(told)
    assert sent[0] == 1.0
    assert len(sent) <= len(told) / 10
    assert all(np.diff(np.diff(sent)) > 0)
    in_sight = [crop for crops in told for crop in crops.crops]
    assert len(in_sight) > len(sent)
    assert {crop.region.track_id for crop in in_sight} == {told[0].crops[0].region.track_id}
    assert {crop.region.polygon for crop in in_sight} == {box_polygon(*GATE[1])}
    assert all(crops.is_kept for crops in told if at_s(crops) in sent)
    told_at_s = [at_s(crops) for crops in told if crops.crops]
    assert max(np.diff(told_at_s)) <= TELL_AFTER_S + FRAME_S


def test_what_is_seen_as_last_read_says_so_in_its_frame_and_makes_its_appearance_last() -> None:
    rig = Rig()
    rig.show(still(1, 4, GATE))
    rig.finish()
    read = rig.read()
    assert {texts.text for texts in read if texts.is_kept} == {"Gate B12"}
    assert all(not texts.lines for texts in read if not texts.is_kept)
    (appearance,) = {a.track_id: a for texts in read for a in texts.appearances}.values()
    assert (appearance.text, appearance.closed) == ("Gate B12", True)
    assert appearance.readings == len(sent_at_s(rig.told))
    assert (appearance.first_at_ns, appearance.last_at_ns) == (
        rig.told[0].info.captured_at_ns,
        rig.told[-1].info.captured_at_ns,
    )


def test_a_text_that_changes_in_its_place_is_sent_again_at_once() -> None:
    rig = Rig()
    told = rig.show(
        [each for second in range(1, 4) for each in still(second, second + 1, (f"T {second:03d}", GATE[1]))]
    )
    sent = sent_at_s(told)
    for second in (2, 3):
        first = min(at for at in sent if at >= second)
        assert first - second <= LOOK_AFTER_S + 2 * FRAME_S
    assert len({crop.region.track_id for crops in told for crop in crops.crops}) == 1
    changed = [at_s(crops) for crops in told for crop in crops.crops if crop.pictures and crop.is_changed]
    assert changed == [min(at for at in sent if at >= second) for second in (1, 2, 3)]
    rig.finish()
    last = {a.track_id: a.text for texts in rig.read() for a in texts.appearances}
    assert list(last.values()) == ["T 001", "T 002", "T 003"]


def test_a_text_is_there_until_the_frame_before_another_one_stands_there_or_none() -> None:
    rig = Rig()
    frames = [*still(1, 2.9, GATE, EXIT), *still(2.9, 4.1, ("Lift 999", GATE[1]), EXIT), *still(4.1, 6, EXIT)]
    rig.show(frames)
    rig.finish()
    last = {a.track_id: a for texts in rig.read() for a in texts.appearances}
    spans = {a.text: (a.first_at_ns / 1e9, a.last_at_ns / 1e9) for a in last.values()}
    assert spans["Gate B12"][1] == pytest.approx(2.9 - FRAME_S, abs=LOOK_AFTER_S)
    assert spans["Lift 999"][0] == pytest.approx(2.9, abs=LOOK_AFTER_S + 2 * FRAME_S)
    assert spans["Lift 999"][1] == pytest.approx(4.1 - FRAME_S, abs=1.5 * FRAME_S)
    assert spans["Exit"][1] == pytest.approx(6 - FRAME_S, abs=1e-3)


def test_frames_that_show_nothing_new_are_passed_over_and_count_as_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    followed: list[float] = []
    advance = tracking.Tracker.advance

    def noted(tracker: tracking.Tracker, *step: Any) -> Any:
        followed.append(step[-1] / 1e9)
        return advance(tracker, *step)

    monkeypatch.setattr(tracking.Tracker, "advance", noted)
    rig = Rig()
    rig.show([*still(1, 3, GATE, EXIT, noise=2), *still(3, 4, EXIT, noise=2)])
    rig.finish()
    assert len(followed) < 90 / 2
    assert max(np.diff(followed)) < FOLLOW_AFTER_S + 1.5 * FRAME_S
    # The frame before the one in which a text has gone was passed over.
    assert not any(3 - 1.5 * FRAME_S < at < 3 - 0.5 * FRAME_S for at in followed)
    last = {a.text: a.last_at_ns / 1e9 for texts in rig.read() for a in texts.appearances}
    assert last["Gate B12"] == pytest.approx(3 - FRAME_S, abs=0.1 * FRAME_S)


def test_what_changes_after_a_rest_is_sent_at_once() -> None:
    for rest_s in (2.0, 2.0 + FRAME_S, 2.0 + 2 * FRAME_S):
        rig = Rig()
        told = rig.show([*still(1, 1 + rest_s, GATE), *still(1 + rest_s, 5, ("Lift 999", GATE[1]))])
        changed_at_s = [at_s(crops) for crops in told for crop in crops.crops if crop.pictures and crop.is_changed]
        assert changed_at_s[1] == round(1 + rest_s, 2)


def test_a_batch_with_a_thread_beside_says_what_frames_say_one_by_one() -> None:
    def moving() -> list[Frame]:
        places = [(40.0 + max(number - 10, 0), 30.0, 240.0 + max(number - 10, 0), 74.0) for number in range(45)]
        shown = [frame(1 + number * FRAME_S, (GATE[0], place), EXIT) for number, place in enumerate(places)]
        return [each for pair in zip(shown, still(1, 2.5, EXIT, source_id="other"), strict=True) for each in pair]

    alone = Rig()
    alone.show(moving())
    together = Rig(beside=ThreadPoolExecutor(max_workers=1))
    frames = moving()
    for start in range(0, len(frames), 7):
        together.told += together.stage.handle(frames[start : start + 7])
    assert sorted(as_told(together.told)) == sorted(as_told(alone.told))


def test_a_text_that_has_changed_after_a_long_time_is_soon_read_again() -> None:
    rig = Rig()
    told = rig.show([*still(1, 9, GATE), *still(9, 12, ("Gate C34", GATE[1]))])
    changed, again = [at for at in sent_at_s(told) if at >= 9][:2]
    assert changed - 9 <= LOOK_AFTER_S + 2 * FRAME_S
    assert again - changed == pytest.approx(READ_AGAIN_S, abs=2 * LOOK_AFTER_S)


def test_what_can_be_read_worst_is_read_again_first() -> None:
    heights_px = (33, 40, 34, 39, 35)
    lines = [
        (f"Gate {height_px}", (20.0, 10.0 + 50 * row, 200.0, 10.0 + 50 * row + height_px))
        for row, height_px in enumerate(heights_px)
    ]
    told = Rig().show(still(1, 3, *lines))
    sent = [{number for number, crop in enumerate(crops.crops) if crop.pictures} for crops in told]
    first, again, later = [numbers for numbers in sent if numbers][:3]
    assert first == set(range(5))
    assert (again, later) == ({0, 2, 4}, {1, 3})


def test_a_new_text_is_found_by_looking_at_its_part_only() -> None:
    rig = Rig()
    told = rig.show([*still(1, 2, GATE), *still(2, 3, GATE, EXIT)])
    assert rig.detector.shown[0] == SIZE_WH
    (part_wh,) = rig.detector.shown[1:]
    assert part_wh[0] * part_wh[1] < 0.5 * SIZE_WH[0] * SIZE_WH[1]
    first = next(crops for crops in told if len(crops.crops) == 2)
    assert at_s(first) - 2 <= EXAMINE_AFTER_S
    known, new = first.crops
    assert (known.region.track_id, known.region.line_number) == (told[0].crops[0].region.track_id, 0)
    assert known.pictures == ()
    assert (new.region.polygon, len(new.pictures)) == (box_polygon(*EXIT[1]), 1)
    assert new.region.track_id == f"{first.info.frame_id}-000"


def test_where_something_changes_in_vain_keeps_nobody_from_looking_elsewhere() -> None:
    """A fan turns all the time; a banner that stands for half a second far from it is found all the same."""
    menu = ("Menu", (40.0, 280.0, 180.0, 330.0))

    def shown(at_s: float, *lines: tuple[str, Box]) -> Frame:
        frame_ = frame(at_s, menu, EXIT, *lines)
        picture = frame_.picture.array().copy()
        cv2.line(
            picture,
            (560, 300),
            (560 + round(40 * np.cos(9 * at_s)), 300 + round(40 * np.sin(9 * at_s))),
            (170, 170, 170),
            5,
        )
        return Frame(frame_.info, Picture.from_array(picture))

    rig = Rig()
    rig.show(shown(1 + n * FRAME_S) for n in range(150))
    asked = len(rig.detector.shown)
    rig.show(shown(6 + n * FRAME_S) for n in range(30))
    assert len(rig.detector.shown) - asked <= 2, "it is asked seldom by now"
    told = rig.show(shown(7 + n * FRAME_S, *[GATE][: 7 <= 7 + n * FRAME_S < 7.5]) for n in range(30))
    found = [crops for crops in told if len(crops.crops) == 3]
    assert found
    assert at_s(found[0]) <= 7 + EXAMINE_AFTER_S + 2 * FRAME_S


def test_short_captions_in_one_place_are_all_found_beside_a_clock() -> None:
    captions = ["Stand back", "Mind gap", "No smoking", "Last call", "Please wait"]
    begins_s = [round(2 + 2.1 * number, 2) for number in range(len(captions))]

    def shown(number: int) -> Frame:
        now_s = number * FRAME_S
        standing = [
            (caption, GATE[1]) for caption, at in zip(captions, begins_s, strict=True) if at <= now_s < at + 0.6
        ]
        return frame(now_s, (f"T {100 + int(now_s)}", EXIT[1]), *standing)

    rig = Rig()
    rig.show(map(shown, range(30, 400)))
    rig.finish()
    texts = {appearance.text for texts in rig.read() for appearance in texts.appearances}
    assert set(captions) <= texts, sorted(texts)


def test_a_line_that_something_covers_is_not_sent() -> None:
    def shown(number: int) -> Frame:
        frame_ = frame(1 + number * FRAME_S, GATE, EXIT)
        picture = frame_.picture.array().copy()
        x = 20 + 4 * number
        cv2.rectangle(picture, (x - 30, 0), (x + 30, 180), (170, 180, 170), -1)
        return Frame(frame_.info, Picture.from_array(picture))

    rig = Rig()
    rig.show(still(0, 1, GATE, EXIT))
    gate = rig.told[0].crops[0].region.track_id
    told = rig.show(shown(number) for number in range(40))
    sent = [crop for crops in told for crop in crops.crops if crop.pictures and crop.is_changed]
    assert not sent
    assert {crop.region.track_id for crops in told for crop in crops.crops} <= {
        gate, rig.told[0].crops[1].region.track_id
    }  # fmt: skip


def test_where_a_line_is_lost_is_looked_at_soon() -> None:
    def with_cloud(each: Frame) -> Frame:
        picture = each.picture.array().copy()
        left = 60 + round(each.info.captured_at_ns / 1e9 * 300) % 400
        picture[280:340, left : left + 100] = 180
        return replace(each, picture=Picture.from_array(picture))

    rig = Rig()
    # What moves is no text: the detector is asked less and less often.
    asked_at_s = [0.0]
    for each in map(with_cloud, still(1, 10, GATE)):
        asked = len(rig.detector.shown)
        rig.show([each])
        now_s = each.info.captured_at_ns / 1e9
        if len(rig.detector.shown) > asked:
            asked_at_s.append(now_s)
        elif now_s > 5 and EXAMINE_LOST_S < now_s - asked_at_s[-1] < 2 * EXAMINE_LOST_S:
            break
    usual_s = asked_at_s[-1] - asked_at_s[-2]
    assert usual_s > 2 * EXAMINE_AFTER_S
    told = rig.show(map(with_cloud, still(now_s + FRAME_S, now_s + 5 * FRAME_S, ("Exit C42", GATE[1]))))
    assert sent_at_s(told)
    assert now_s + 5 * FRAME_S < asked_at_s[-1] + usual_s / 1.5
    rig.finish()
    assert "Exit C42" in {line.text for texts in rig.read() for line in texts.lines}


def test_a_text_that_was_found_and_not_taken_for_what_it_is_is_looked_at_once_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    rig.show(still(1, 2, GATE))
    # As where its picture looks half like the one before.
    monkeypatch.setattr(tracking, "_is_to_remember", lambda track, is_piece: track.reference is None)
    changed = still(2, 3, ("OPENS SOON", GATE[1]))
    while len(rig.detector.shown) == 1:
        rig.show([changed.pop(0)])
    monkeypatch.undo()
    rig.show(changed)
    (last,) = rig.finish()
    assert len(last.crops) == 1


class Shortsighted(Watched):
    """Sees the first half of each block only, in its first look."""

    def detect(self, pictures: Sequence[Image]) -> list[list[TextLine]]:
        lines = super().detect(pictures)
        return lines if len(self.shown) > 1 else [[_half(line) for line in each] for each in lines]


def _half(line: TextLine) -> TextLine:
    x0, y0, x1, y1 = bounding_box(line.polygon)
    return replace(line, polygon=box_polygon(x0, y0, (x0 + x1) / 2, y1))


@pytest.mark.parametrize("has_grown", [False, True])
def test_what_was_overlooked_of_a_line_is_no_change(has_grown: bool) -> None:
    rig = Rig(Watched() if has_grown else Shortsighted())
    x0, y0, x1, y1 = GATE[1]
    before = (GATE[0], (x0, y0, (x0 + x1) / 2, y1)) if has_grown else GATE
    rig.show(still(1, 2, before, noise=2.0))
    # Until the detector looks at all of it again.
    rig.show(still(2, 2 + EXAMINE_EVERY_S, GATE, noise=2.0))
    sent = [crop for crops in rig.told for crop in crops.crops if crop.pictures]
    is_longer = [bounding_box(crop.region.polygon)[2] > 200 for crop in sent]
    assert not is_longer[0]
    assert sent[is_longer.index(True)].is_changed == has_grown


def test_a_text_that_has_gone_is_no_longer_in_sight() -> None:
    rig = Rig()
    told = rig.show([*still(1, 2, GATE, EXIT, noise=3), *still(2, 3, EXIT, noise=3)])
    gate, exit_ = (crop.region.track_id for crop in told[0].crops)
    in_sight = {at_s(crops): [crop.region.track_id for crop in crops.crops] for crops in told if crops.crops}
    assert all(gate in ids for at, ids in in_sight.items() if at < 1.95)
    later = [ids for at, ids in in_sight.items() if at > 2.1]
    assert later
    assert all(ids == [exit_] for ids in later)


def test_where_a_moving_text_is_is_told_on_its_way() -> None:
    rig = Rig()
    places = [(40.0 + 4 * number, 30.0, 240.0 + 4 * number, 74.0) for number in range(45)]
    told = rig.show(frame(1 + number * FRAME_S, (GATE[0], place)) for number, place in enumerate(places))
    rows = [(number, crop) for number, crops in enumerate(told) for crop in crops.crops]
    assert len({crop.region.track_id for _, crop in rows}) == 1
    assert len(rows) > len(places) / 3
    for number, crop in rows:
        assert bounding_box(crop.region.polygon) == pytest.approx(places[number], abs=3)
    assert sum(not crops.is_kept for crops in told if crops.crops) > len(rows) / 2


def test_a_frame_is_kept_at_least_so_often_and_one_without_text_too() -> None:
    rig = Rig()
    told = rig.show([*still(1, 5, GATE), *still(5, 9, noise=2)])
    kept = [at_s(crops) for crops in told if crops.is_kept]
    assert kept[0] == 1.0
    assert max(np.diff(kept)) <= KEEP_AFTER_S + FRAME_S
    assert any(crops.is_kept and not crops.crops for crops in told)
    assert len(kept) < len(told) / 8


def test_the_end_keeps_the_last_frame_once() -> None:
    rig = Rig()
    told = rig.show(still(1, 1.5, GATE))
    assert not told[-1].is_kept
    (last,) = rig.finish()
    assert (last.info, last.is_kept) == (told[-1].info, True)
    assert [crop.region.track_id for crop in last.crops] == [told[0].crops[0].region.track_id]
    assert last.picture is not None
    assert rig.finish() == []


def test_the_end_tells_nothing_of_a_frame_that_was_kept() -> None:
    rig = Rig()
    rig.show([frame(1, GATE)])
    assert rig.finish() == []


@pytest.mark.parametrize(
    "changes", [{"path": "photos/a.jpg", "media_time_ms": None}, {"generation": 5}], ids=["image", "replay"]
)
def test_images_and_replays_are_read_whole(changes: dict[str, Any]) -> None:
    rig = Rig()
    told = rig.show(still(1, 1.2, GATE, EXIT, **changes))
    assert rig.detector.shown == [SIZE_WH] * len(told)
    assert all(crops.is_kept and [len(crop.pictures) for crop in crops.crops] == [1, 1] for crops in told)
    assert rig.finish() == []


def test_with_read_all_every_frame_is_read_whole() -> None:
    rig = Rig(reads_all=True)
    told = rig.show(still(1, 1.2, GATE, EXIT))
    assert rig.detector.shown == [SIZE_WH] * len(told)
    assert all(crops.is_kept and [len(crop.pictures) for crop in crops.crops] == [1, 1] for crops in told)


UPPER_LEFT = (("ha*", (((0.0, 0.0), (0.5, 0.0), (0.5, 0.3), (0.0, 0.3)),)),)
"""Holds the middle of GATE and not that of EXIT."""


@pytest.mark.parametrize("reads_all", [False, True], ids=["new", "all"])
def test_what_lies_in_a_mask_is_left_out_of_the_sources_it_is_for(reads_all: bool) -> None:
    rig = Rig(reads_all=reads_all, masks=UPPER_LEFT)
    rig.show([each for source_id in ("hall", "door") for each in still(1, 1.5, GATE, EXIT, source_id=source_id)])
    seen = {(crops.info.source_id, bounding_box(crop.region.polygon)) for crops in rig.told for crop in crops.crops}
    assert seen == {("hall", EXIT[1]), ("door", GATE[1]), ("door", EXIT[1])}


def test_what_changes_in_a_mask_wakes_nobody_and_what_moves_into_it_is_out_of_sight() -> None:
    rig = Rig(masks=UPPER_LEFT)
    rig.show([*still(1, 2, EXIT), *still(2, 3, GATE, EXIT)])
    assert rig.detector.shown == [SIZE_WH]
    rig = Rig(masks=UPPER_LEFT)
    places = [(400.0 - 6 * number, 30.0, 600.0 - 6 * number, 74.0) for number in range(60)]
    told = rig.show(frame(1 + number * FRAME_S, (GATE[0], place)) for number, place in enumerate(places))
    middles = [(number, bounding_box(crop.region.polygon)) for number, crops in enumerate(told) for crop in crops.crops]
    assert len(middles) > 5
    assert all((x0 + x1) / 2 > 320 and number < 32 for number, (x0, _, x1, _) in middles)


def test_two_sources_in_a_batch_are_followed_as_if_they_were_alone() -> None:
    halls = [*still(1, 1.8, GATE), *still(1.8, 2.5, GATE, EXIT)]
    doors = [*still(1, 2.2, EXIT, source_id="door"), *still(2.2, 2.5, ("Shut", EXIT[1]), source_id="door")]
    alone = [as_told(Rig().show(frames)) for frames in (halls, doors)]
    together = DetectorStage("blocks", lambda _name: Watched())
    told = [crops for batch in zip(halls, doors, strict=True) for crops in together.handle(list(batch))]
    assert [as_told(each for each in told if each.info.source_id == name) for name in ("hall", "door")] == alone


def test_frames_of_a_source_in_one_batch_are_seen_one_after_the_other() -> None:
    frames = [*still(1, 1.8, GATE), *still(1.8, 2.6, GATE, EXIT)]
    one_by_one = as_told(Rig().show(frames))
    stage = DetectorStage("blocks", lambda _name: Watched())
    told = [crops for start in range(0, len(frames), 5) for crops in stage.handle(frames[start : start + 5])]
    assert as_told(told) == one_by_one


def coming_in(count: int) -> list[Frame]:
    """A ticker that runs in from the right; its first letters are there in the first frame."""
    frames = []
    for number in range(count):
        x0 = 560 - 8 * number
        wide = make_picture([("Gate B12", (x0, 30, x0 + 200, 74))], (860, 360))
        each = frame(1 + number * FRAME_S)
        frames.append(Frame(each.info, Picture.from_array(np.ascontiguousarray(wide[:, :640]))))
    return frames


def test_a_text_that_comes_in_is_read_when_all_of_it_is_there() -> None:
    rig = Rig()
    # The picture's right edge cuts it off until frame 15.
    told = rig.show(coming_in(40))
    (track_id,) = {crop.region.track_id for crops in told for crop in crops.crops}
    sent = [(number, crop) for number, crops in enumerate(told) for crop in crops.crops if crop.pictures]
    first, crop = sent[0]
    assert 15 <= first < 15 + 2 * EXAMINE_AFTER_S / FRAME_S
    assert crop.pictures[0].array().shape[1] == pytest.approx(200, abs=3)
    rig.finish()
    appearances = {a.track_id: a for texts in rig.read() for a in texts.appearances}
    # It has been there since its first letters were.
    assert [(track, a.text, a.first_ms) for track, a in appearances.items()] == [(track_id, "Gate B12", 1000)]


def test_what_was_coming_in_is_looked_at_and_read_at_the_end() -> None:
    rig = Rig()
    told = rig.show(coming_in(9))
    assert not sent_at_s(told)
    asked = len(rig.detector.shown)
    (last,) = rig.finish()
    assert len(rig.detector.shown) > asked
    (crop,) = last.crops
    assert crop.region.track_id == told[0].crops[0].region.track_id
    # From where it is to the frame's edge.
    assert crop.pictures[0].array().shape[1] == pytest.approx(80 + 8 * 8, abs=3)


def test_a_detector_that_fails_at_the_end_takes_nothing_away(caplog: pytest.LogCaptureFixture) -> None:
    rig = Rig(Failing(0))
    rig.show(coming_in(9))
    assert isinstance(rig.detector, Failing)
    rig.detector.times = 1
    (last,) = rig.finish()
    assert [len(crop.pictures) for crop in last.crops] == [1]
    assert "at the end of hall" in caplog.text


@pytest.mark.parametrize("restless", [RESTLESS_LOOKS - 1, RESTLESS_LOOKS])
def test_where_a_picture_has_come_to_rest_the_detector_looks_once_more(
    monkeypatch: pytest.MonkeyPatch, restless: int
) -> None:
    rig = Rig()
    rig.show(still(1, 2, GATE, noise=1))
    assert rig.detector.shown == [SIZE_WH]
    lately = iter([(RESTS_NEWS + JUMP_NEWS) / 2] * restless)
    is_same = iter([False] * restless)
    monkeypatch.setattr("detector_consumer.views.is_same_picture", lambda *_: next(is_same, True))
    monkeypatch.setattr("detector_consumer.views.news", lambda *_: next(lately))
    rig.show(still(2, 4, GATE, noise=1))
    assert [size < SIZE_WH for size in rig.detector.shown[1:]] == [True] * (restless == RESTLESS_LOOKS)


class LateDetector(Watched):
    """Sees nothing in the first picture."""

    def detect(self, pictures: Sequence[Image]) -> list[list[TextLine]]:
        is_first = not self.shown
        found = super().detect(pictures)
        return [[] for _ in pictures] if is_first else found


def test_a_line_that_reaches_out_of_a_part_is_looked_for_in_the_whole_frame() -> None:
    rig = Rig(LateDetector())
    place = (60.0, 150.0, 600.0, 200.0)
    before, after = ("A line of which only the end 1", place), ("A line of which only the end 2", place)
    told = rig.show([*still(1, 2, before, noise=1), *still(2, 3, after, noise=1)])
    first, part, again = rig.detector.shown[:3]
    assert (first, again) == (SIZE_WH, SIZE_WH)
    assert part[0] < 400
    lines = [crop for crops in told for crop in crops.crops if crop.pictures]
    assert bounding_box(lines[0].region.polygon) == pytest.approx(place, abs=1)
    rig.finish()
    assert {texts.text for texts in rig.read() if texts.lines} == {after[0]}


def test_a_watch_asks_for_the_whole_frame_where_a_line_touches_a_parts_edge() -> None:
    watch = Watch()
    asked = [watch.see(each.info, each.picture) for each in still(1, 1.1, GATE)]
    assert [each is not None for each in asked] == [True, False, False]
    first = asked[0]
    assert first is not None
    assert first.parts == [WHOLE]
    assert first.take([[TextLine(box_polygon(*GATE[1]), 0.9)]])
    watch.found(first)
    later = frame(1.5, GATE, EXIT)
    examination = watch.see(later.info, later.picture)
    assert examination is not None
    ((left, top, right, bottom),) = examination.parts
    assert left <= EXIT[1][0]
    assert right >= EXIT[1][2]
    assert (right - left) * (bottom - top) < 0.4 * WHOLE[2] * WHOLE[3]
    assert [each.shape for each in examination.pictures] == [(bottom - top, right - left, 3)]
    inside = TextLine(box_polygon(10, 10, 60, 40), 0.9)
    cut_off = TextLine(box_polygon(10, 10, right - left, 40), 0.9)
    assert not examination.take([[inside, cut_off]])
    assert examination.parts == [WHOLE]
    assert examination.take([[TextLine(box_polygon(*place), 0.9) for _, place in (GATE, EXIT)]])
    watch.found(examination)
    (crops,) = watch.tell(Watched(), later.picture)
    assert [crop.region.polygon for crop in crops.crops] == [box_polygon(*GATE[1]), box_polygon(*EXIT[1])]


def test_a_cut_and_time_that_goes_back_begin_afresh() -> None:
    rig = Rig()
    rig.show(still(10, 10.5, GATE))
    before = {crop.region.track_id for crops in rig.told for crop in crops.crops}
    rig.show(still(3, 3.2, GATE))
    assert rig.detector.shown == [SIZE_WH, SIZE_WH]
    after = {crop.region.track_id for crops in rig.told for crop in crops.crops if at_s(crops) < 4}
    assert len(after) == 1
    assert not after & before
    other = [(text, (x0 + 90, y0 + 90, x1 + 90, y1 + 90)) for text, (x0, y0, x1, y1) in (("Slide", GATE[1]), EXIT)]
    told = rig.show(still(3.2, 3.4, *other))
    assert rig.detector.shown[2] == SIZE_WH
    assert {len(crops.crops) for crops in told if crops.is_kept} == {2}


class WordsDetector(Watched):
    """Says of each line that its left half and its right half are words."""

    def detect(self, pictures: Sequence[Image]) -> list[list[TextLine]]:
        return [[replace(line, words=_halves(line)) for line in lines] for lines in super().detect(pictures)]


def _halves(line: TextLine) -> tuple[Any, ...]:
    x0, y0, x1, y1 = bounding_box(line.polygon)
    return box_polygon(x0, y0, (x0 + x1) / 2, y1), box_polygon((x0 + x1) / 2, y0, x1, y1)


def test_a_lines_words_move_with_it_and_are_cut_out_one_by_one() -> None:
    rig = Rig(WordsDetector())
    frames = [frame(1 + n * FRAME_S, (GATE[0], (40.0 + 4 * n, 30.0, 240.0 + 4 * n, 74.0))) for n in range(30)]
    told = rig.show(frames)
    sent = [(number, crop) for number, crops in enumerate(told) for crop in crops.crops if crop.pictures]
    assert len(sent) >= 2
    assert {len(crop.pictures) for _, crop in sent} == {2}
    number, crop = sent[-1]
    left, right = (bounding_box(word) for word in crop.region.words)
    assert left == pytest.approx((40 + 4 * number, 30, 140 + 4 * number, 74), abs=3)
    assert right == pytest.approx((140 + 4 * number, 30, 240 + 4 * number, 74), abs=3)


def test_of_too_many_sources_the_one_silent_for_longest_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage_module, "MOST_WATCHES", 2)
    rig = Rig()
    for second, source_id in enumerate("abca"):
        rig.show([frame(1 + second / 10, GATE, source_id=source_id)])
    assert rig.detector.shown == [SIZE_WH] * 4
    rig.show([frame(1.35, GATE, source_id="c")])
    assert rig.detector.shown == [SIZE_WH] * 4
    assert [crops.info.source_id for crops in rig.finish()] == ["c"]


class Later(Executor):
    """Does what it is given when it is told to."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.waiting.append((future, partial(fn, *args, **kwargs)))
        return future

    def work(self) -> None:
        """Do all that waits."""
        while self.waiting:
            future, work = self.waiting.pop(0)
            try:
                future.set_result(work())
            except RuntimeError as error:
                future.set_exception(error)


def moving(start: int, end: int, **changes: Any) -> list[Frame]:
    """GATE on its way to the right, and EXIT at rest."""
    x0, y0, x1, y1 = GATE[1]
    return [
        frame(1 + n * FRAME_S, (GATE[0], (x0 + 4 * n, y0, x1 + 4 * n, y1)), EXIT, **changes) for n in range(start, end)
    ]


def test_a_live_source_is_followed_while_the_detector_looks_and_what_it_finds_is_carried_to_the_present() -> None:
    later = Later()
    rig = Rig(aside=later)
    told = rig.show(moving(0, 9, live=True))
    assert len(later.waiting) == 1
    assert rig.detector.shown == []
    # Nothing is known of them yet, not even that there is no text.
    assert not any(crops.crops or crops.is_kept for crops in told)
    later.work()
    (crops,) = rig.show(moving(9, 10, live=True))
    assert rig.detector.shown == [SIZE_WH]
    gate, exit_ = (crop.region for crop in crops.crops)
    assert {region.track_id for region in (gate, exit_)} == {f"{crops.info.frame_id}-00{n}" for n in (0, 1)}
    assert bounding_box(gate.polygon) == pytest.approx((40 + 4 * 9, 30, 240 + 4 * 9, 74), abs=2)
    assert bounding_box(exit_.polygon) == pytest.approx(EXIT[1], abs=1)
    assert crops.is_kept
    assert all(crop.pictures for crop in crops.crops)


def test_a_line_that_is_found_late_was_there_since_it_came_up() -> None:
    later = Later()
    rig = Rig(aside=later)
    rig.show(still(1, 2, EXIT, live=True))
    later.work()
    for now in still(2, 4, EXIT, GATE, live=True):
        rig.show([now])
        if at_s(rig.told[-1]) > 2.7:
            later.work()
    rig.finish()
    told = [crop for crops in rig.told for crop in crops.crops]
    (before,) = [crop.before for crop in told if crop.before and crop.region.polygon[0][0] == GATE[1][0]]
    assert [bounding_box(sight.polygon) for sight in before] == [pytest.approx(GATE[1], abs=1)] * len(before)
    ended = {a.track_id: a for texts in rig.read() for a in texts.appearances}.values()
    (gate,) = (appearance for appearance in ended if appearance.text == GATE[0])
    assert gate.first_at_ns / 1e9 == pytest.approx(2.0, abs=MOMENT_S + FRAME_S)
    assert gate.first_at_ns >= 2e9 - 1
    assert gate.path[0][0] == gate.first_ms
    assert len(gate.path) == 2, "it stood still"


def test_a_late_answer_leaves_the_same_behind_as_an_early_one() -> None:
    frames = moving(0, 12)

    def told(answered_at: int) -> Crops:
        watch, engine = Watch(), Watched()
        for number, each in enumerate(frames):
            examination = watch.see(each.info, each.picture)
            if examination is not None:
                asked = examination
            if number == answered_at:
                assert asked.take(engine.detect(asked.pictures))
                watch.found(asked)
        return watch.tell(engine, each.picture)[-1]

    early, late = (told(answered_at).crops for answered_at in (0, 11))
    assert [crop.region.track_id for crop in early] == [f"{frames[0].info.frame_id}-00{n}" for n in (0, 1)]
    assert [crop.region.track_id for crop in late] == [f"{frames[11].info.frame_id}-00{n}" for n in (0, 1)]
    assert [crop.region.polygon for crop in late] == [crop.region.polygon for crop in early]
    assert [crop.view for crop in late] == [crop.view for crop in early]


def test_what_the_detector_finds_of_the_scene_before_a_cut_is_nothing_to_the_next() -> None:
    later = Later()
    rig = Rig(aside=later)
    rig.show(still(1, 1.2, GATE, live=True))
    other = [(text, (x0 + 90, y0 + 90, x1 + 90, y1 + 90)) for text, (x0, y0, x1, y1) in (("Slide", GATE[1]), EXIT)]
    rig.show(still(1.2, 1.4, *other, live=True))
    later.work()
    told = rig.show(still(1.4, 1.5, *other, live=True))
    assert not any(crops.crops for crops in told)
    later.work()
    (crops,) = rig.show([frame(1.5, *other, live=True)])
    assert rig.detector.shown == [SIZE_WH, SIZE_WH]
    assert len(crops.crops) == 2


def test_files_wait_for_the_detector_and_are_read_alike_whoever_does_the_work() -> None:
    frames = [*still(1, 1.8, GATE), *still(1.8, 2.5, GATE, EXIT)]
    with ThreadPoolExecutor(max_workers=1) as aside:
        assert as_told(Rig(aside=aside).show(frames)) == as_told(Rig().show(frames))


def test_the_end_waits_for_the_detector() -> None:
    with ThreadPoolExecutor(max_workers=1) as aside:
        rig = Rig(aside=aside)
        rig.show([frame(1, GATE, live=True)])
        rig.finish()
    assert [len(crops.crops) for crops in rig.told if crops.is_kept] == [1]


class Failing(Watched):
    """Fails so many times before it works."""

    def __init__(self, times: int) -> None:
        super().__init__()
        self.times = times

    def detect(self, pictures: Sequence[Image]) -> list[list[TextLine]]:
        self.times -= 1
        if self.times >= 0:
            raise RuntimeError("out of memory")
        return super().detect(pictures)


def test_a_detector_that_fails_aside_is_asked_again_of_the_next_frame() -> None:
    later = Later()
    rig = Rig(Failing(1), aside=later)
    rig.show(still(1, 1.2, GATE, live=True))
    later.work()
    rig.stage._aside = Now()
    _, crops = rig.show(still(1.2, 1.26, GATE, live=True))
    assert [crop.region.track_id for crop in crops.crops] == [f"{crops.info.frame_id}-000"]
    assert rig.detector.shown == [SIZE_WH]


def test_a_detector_that_fails_for_good_fails_the_frames() -> None:
    rig = Rig(Failing(1000), aside=Now())
    rig.show([frame(1 + number * FRAME_S, GATE, live=True) for number in (0, 1)])
    for number in range(2, 5):
        with pytest.raises(RuntimeError, match="out of memory"):
            rig.show([frame(1 + number * FRAME_S, GATE, live=True)])


class Now(Later):
    """Does what it is given at once."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = super().submit(fn, *args, **kwargs)
        self.work()
        return future


def test_a_damaged_picture_takes_nothing_from_the_other_sources() -> None:
    rig = Rig()
    good, bad = frame(0.0, GATE), frame(0.0, source_id="yard")
    bad = replace(bad, picture=Picture.from_encoded(b"\xff\xd8\xff no picture"))
    with pytest.raises(MalformedRecordError, match="not an image"):
        rig.stage.handle([good, bad])
    # As the runner does: record by record.
    (crops,) = rig.show([good])
    assert [bounding_box(crop.region.polygon) for crop in crops.crops] == [pytest.approx(GATE[1], abs=1)]


def test_an_encoded_frame_is_decoded_as_a_whole_only_where_it_is_looked_at() -> None:
    rig = Rig()
    larger = [(each, cv2.resize(each.picture.array(), None, fx=2, fy=2)) for each in still(0.0, 1.0, GATE)]
    shown = [replace(each, picture=Picture.from_encoded(encode_jpeg(array.astype(np.uint8)))) for each, array in larger]
    told = rig.show(shown)
    whole = [each.picture.reduced_grey(2) is None for each in shown]
    assert whole[0], "the detector looked at it"
    assert 1 < sum(whole) < len(shown) / 2
    assert all(is_whole for is_whole, crops in zip(whole, told, strict=True) if any(c.pictures for c in crops.crops))
