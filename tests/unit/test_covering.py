"""Somebody walks past signs: they stay where they are and say what they said."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from detector_consumer.covering import COVERED_S, bands, cover
from detector_consumer.motion import Grey, Motion
from detector_consumer.tracking import Tracker
from detector_consumer.tracks import Followed
from ocrstream.geometry import Polygon, bounding_box, box_polygon
from ocrstream.messages import Region

KEY = ("hall", 0)
SIZE_WH = (480, 270)
SIGN = (200.0, 100.0, 320.0, 116.0)


def at_ns(number: int) -> int:
    return round((100 + number / 30) * 1e9)


def wall(shift: int = 0) -> Grey:
    rng = np.random.default_rng(3)
    coarse = cv2.resize(rng.uniform(80, 200, (54, 120)).astype(np.float32), (600, 270))
    return np.ascontiguousarray(np.clip(coarse, 0, 255).astype(np.uint8)[:, shift : shift + SIZE_WH[0]])


def with_sign(picture: Grey, text: str = "PLATFORM 12", box: tuple[float, ...] = SIGN, plate: int = 235) -> Grey:
    x0, y0, x1, y1 = map(round, box)
    drawn = picture.copy()
    drawn[y0:y1, x0:x1] = plate
    size = (y1 - y0) / 32
    ink = 20 if plate > 128 else 240
    cv2.putText(drawn, text, (x0 + 4, y1 - 4), cv2.FONT_HERSHEY_SIMPLEX, size, ink, 1, cv2.LINE_AA)
    return drawn


def with_walker(picture: Grey, x: float, level: int = 45) -> Grey:
    drawn = picture.copy()
    cv2.ellipse(drawn, (round(x), 170), (26, 110), 0, 0, 360, level, -1)
    return drawn


def noisy(picture: Grey, number: int) -> Grey:
    grains = np.random.default_rng(number).normal(0, 2, picture.shape)
    return np.clip(picture + grains, 0, 255).astype(np.uint8)


def begun(picture: Grey, box: tuple[float, ...] = SIGN) -> Tracker:
    tracker = Tracker()
    tracker.advance(KEY, picture, 1.0, None, at_ns(0))
    tracker.associate(KEY, "f0", [region(box)], at_ns(0))
    return tracker


def region(box: tuple[float, ...], number: int = 0) -> Region:
    x0, y0, x1, y1 = box
    return Region(number, box_polygon(x0, y0, x1, y1), 0.9)


def covered(before: Grey, now: Grey, box: tuple[float, ...] = SIGN) -> tuple[bool, bool]:
    """Whether a line is covered, and whether it is clear."""
    x0, y0, x1, y1 = box
    corners = np.array([box_polygon(x0, y0, x1, y1)])
    found = cover(bands(before, corners), bands(now, corners))
    return bool(found.is_covered[0]), bool(found.is_clear[0])


@pytest.mark.parametrize(
    ("x", "plate"), [(200, 235), (230, 235), (260, 235), (300, 235), (320, 235), (200, 55), (230, 55), (260, 55)]
)
def test_a_walker_covers_a_sign_also_one_as_dark_as_he_is(x: int, plate: int) -> None:
    sign = with_sign(wall(), plate=plate)
    assert covered(noisy(sign, 1), noisy(with_walker(sign, x), 2)) == (True, False)


def test_a_walker_beside_a_sign_leaves_it_clear() -> None:
    sign = with_sign(wall())
    assert covered(noisy(sign, 1), noisy(with_walker(sign, 120), 2)) == (False, True)


@pytest.mark.parametrize("text", ["PLATFORM 13", "PLATFORM 41", "DELAYED", ""])
def test_another_text_on_a_sign_covers_nothing(text: str) -> None:
    assert covered(noisy(with_sign(wall()), 1), noisy(with_sign(wall(), text), 2)) == (False, True)


def test_other_light_covers_nothing() -> None:
    sign = with_sign(wall())
    for gain in (0.9, 1.05):
        lit = np.clip(sign * gain, 0, 255).astype(np.uint8)
        assert covered(noisy(sign, 1), noisy(lit, 2))[0] is False


def test_text_that_changes_before_a_picture_that_moves_is_not_covered() -> None:
    before, now = with_sign(wall(0), "12:04:55"), with_sign(wall(40), "12:05:10")
    assert covered(noisy(before, 1), noisy(now, 2))[0] is False


def test_a_sign_is_followed_and_seen_while_somebody_walks_past() -> None:
    sign = with_sign(wall())
    tracker = begun(sign)
    tracks: list[Followed] = []
    was_covered: set[bool] = set()
    for number in range(1, 180):
        picture = noisy(with_walker(sign, 2.2 * number), number)
        tracks = tracker.advance(KEY, picture, 1.0, Motion.none(), at_ns(number))
        assert [track.track_id for track in tracks] == ["f0-000"]
        assert bounding_box(tracks[0].polygon) == pytest.approx(SIGN, abs=1.0)
        is_behind = 200 - 26 < 2.2 * number < 320 + 26
        was_covered.add(tracks[0].is_covered and is_behind)
        if not 200 - 40 < 2.2 * number < 320 + 40 + 0.3 * 30 * 2.2:
            assert (tracks[0].is_covered, tracks[0].is_visible) == (False, True)
    assert was_covered == {True, False}
    assert not tracks[0].is_covered


def test_pieces_that_are_found_beside_him_are_the_sign() -> None:
    sign = with_sign(wall())
    tracker = begun(sign)
    for number in range(1, 60):
        tracks = tracker.advance(
            KEY, noisy(with_walker(sign, 150 + 2 * number), number), 1.0, Motion.none(), at_ns(number)
        )
    x = 150 + 2 * 59
    assert tracks[0].is_covered
    pieces = [region((SIGN[0], SIGN[1], x - 22, SIGN[3])), region((x + 22, SIGN[1], SIGN[2], SIGN[3]), 1)]
    found = tracker.associate(KEY, "f59", pieces, at_ns(59))
    assert [track.track_id for track in found] == ["f0-000", "f0-000"]
    (track,) = tracker.tracks(KEY)
    assert bounding_box(track.polygon) == pytest.approx(SIGN, abs=1.0)
    assert track.is_covered


def test_what_stays_in_front_for_long_is_taken_as_it_is() -> None:
    sign = with_sign(wall())
    tracker = begun(sign)
    for number in range(1, round(30 * (COVERED_S + 2))):
        picture = noisy(with_walker(sign, min(120 + 3 * number, 300)), number)
        (track,) = tracker.advance(KEY, picture, 1.0, Motion.none(), at_ns(number))
        if number == 90:
            assert track.is_covered
    assert not track.is_covered


def test_a_sign_that_comes_nearer_is_not_covered_by_itself() -> None:
    def box(number: int) -> tuple[float, ...]:
        grown = 1 + 0.006 * number
        return 260 - 60 * grown, 108 - 8 * grown, 260 + 60 * grown, 108 + 8 * grown

    def shown(number: int) -> Grey:
        x0, y0, x1, y1 = box(number)
        plate = with_sign(np.full((270, 480), 128, np.uint8))[100:116, 200:320]
        place = np.array([[(x1 - x0) / 120, 0, x0], [0, (y1 - y0) / 16, y0]])
        picture = wall()
        return np.asarray(cv2.warpAffine(plate, place, SIZE_WH, picture, borderMode=cv2.BORDER_TRANSPARENT), np.uint8)

    tracker, times_covered = begun(shown(0), box(0)), 0
    for number in range(1, 60):
        (track,) = tracker.advance(KEY, noisy(shown(number), number), 1.0, Motion.none(), at_ns(number))
        times_covered += track.is_covered
        if number % 10 == 0:
            (track,) = tracker.associate(KEY, f"f{number}", [region(box(number))], at_ns(number))
            assert (track.track_id, track.is_covered) == ("f0-000", False)
    assert times_covered <= 10
    assert bounding_box(track.polygon) == pytest.approx(box(59), abs=6)


def placed(x: float) -> Polygon:
    return box_polygon(SIGN[0] + x, SIGN[1], SIGN[2] + x, SIGN[3])


def test_a_camera_that_shakes_sees_it_all_the_same() -> None:
    def camera(number: int) -> float:
        return 6 * math.sin(number / 6)

    sign = with_sign(wall())
    tracker = begun(sign)
    for number in range(1, 150):
        matrix = np.array([[1, 0, camera(number)], [0, 1, 0]], np.float64)
        scene = with_walker(sign, 2.2 * number)
        picture = cv2.warpAffine(scene, matrix, SIZE_WH, borderMode=cv2.BORDER_REPLICATE).astype(np.uint8)
        motion = Motion(np.array([[1, 0, camera(number) - camera(number - 1)], [0, 1, 0]], np.float64))
        tracks = tracker.advance(KEY, noisy(picture, number), 1.0, motion, at_ns(number))
        assert [track.track_id for track in tracks] == ["f0-000"]
        if tracks[0].is_visible:
            assert bounding_box(tracks[0].polygon) == pytest.approx(bounding_box(placed(camera(number))), abs=2.0)
    assert tracks[0].is_visible


def is_told_covered(*pictures: Grey, every: int = 1) -> bool:
    """Whether a sign counts as covered after it has looked like the first picture, and then like these."""
    tracker = begun(pictures[0])
    for number, picture in enumerate(pictures[1:], start=1):
        tracker.advance(KEY, noisy(picture, number), 1.0, Motion.none(), at_ns(number * every))
    (track,) = tracker.tracks(KEY)
    return track.is_covered


def on_a_plate(text: str, length_px: int) -> Grey:
    """A sign's text on a plate that reaches above and below it, and so far along it."""
    x0, y0, _, y1 = map(round, SIGN)
    drawn = wall()
    drawn[y0 - 12 : y1 + 12, x0 - 8 : x0 + length_px] = 235
    cv2.putText(drawn, text, (x0 + 4, y1 - 4), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 20, 1, cv2.LINE_AA)
    return drawn


def test_a_plate_that_becomes_shorter_with_its_text_covers_nothing() -> None:
    long, short = on_a_plate("PLATFORM 12", 128), on_a_plate("PLATFORM", 96)
    # In one picture it is as if somebody stood there.
    assert covered(noisy(long, 1), noisy(short, 2)) == (True, False)
    assert not is_told_covered(*[long] * 10, *[short] * 10)
    assert is_told_covered(*[long] * 10, *[with_walker(long, 380 - 6 * number) for number in range(12)])


def test_what_walks_into_a_sign_covers_it_however_seldom_it_is_seen() -> None:
    sign = with_sign(wall())
    assert is_told_covered(*[sign] * 4, *[with_walker(sign, 390 - 36 * number) for number in range(3)], every=6)


def test_where_the_letters_that_are_left_are_others_nothing_is_covered() -> None:
    assert covered(noisy(on_a_plate("PLATFORM 12", 128), 1), noisy(on_a_plate("EXIT ONLY", 96), 2)) == (False, True)
