import itertools
import math

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from detector_consumer import flow
from detector_consumer.matching import match, overlap, overlaps
from detector_consumer.motion import Grey, Motion
from detector_consumer.tracking import MISSES, MISSES_IN_SIGHT, Tracker
from detector_consumer.tracks import Followed
from ocrstream.geometry import Polygon, bounding_box, box_polygon, scale_polygon, to_polygon
from ocrstream.messages import GONE_AFTER_S, FrameInfo, Region

KEY = ("hall", 0)
SIZE_WH = (480, 270)
LINE = box_polygon(0, 0, 90, 16)
"""Where the letters are on a `sign`."""


def at_ns(number: int, fps: float = 30) -> int:
    return round((100 + number / fps) * 1e9)


def wall(seed: int = 0) -> Grey:
    """A background with something on it everywhere."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.uniform(90, 160, (18, 32)).astype(np.float32), SIZE_WH, interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse, 0, 255).astype(np.uint8)


def sign(text: str = "GATE B12") -> Grey:
    """A line of text, in its own pixels."""
    plate = np.full((16, 90), 230, np.uint8)
    cv2.putText(plate, text, (4, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 20, 1, cv2.LINE_AA)
    return plate


def placing(x: float, y: float, scale: float = 1.0, degrees: float = 0.0) -> NDArray[np.float64]:
    """From a sign's pixels to a picture's, ``(2, 3)``."""
    cosine, sine = scale * math.cos(math.radians(degrees)), scale * math.sin(math.radians(degrees))
    return np.array([[cosine, -sine, x], [sine, cosine, y]])


def with_sign(picture: Grey, place: NDArray[np.float64], plate: Grey | None = None) -> Grey:
    drawn = picture.copy()
    cv2.warpAffine(sign() if plate is None else plate, place, SIZE_WH, drawn, borderMode=cv2.BORDER_TRANSPARENT)
    return drawn


def placed(place: NDArray[np.float64], line: Polygon = LINE) -> Polygon:
    return to_polygon(np.array(line) @ place[:, :2].T + place[:, 2])


def noisy(picture: Grey, number: int) -> Grey:
    rng = np.random.default_rng(number)
    return np.clip(picture * (1 + 0.05 * math.sin(number / 9)) + rng.normal(0, 2, picture.shape), 0, 255).astype(
        np.uint8
    )


def regions(*polygons: Polygon) -> list[Region]:
    return [Region(number, polygon, 0.9) for number, polygon in enumerate(polygons)]


def iou(a: Polygon, b: Polygon) -> float:
    return overlap(np.array(a), np.array(b)).iou


def begun(picture: Grey, *polygons: Polygon) -> tuple[Tracker, list[Followed]]:
    """A tracker that knows lines since frame 0."""
    tracker = Tracker()
    assert tracker.advance(KEY, picture, 1.0, None, at_ns(0)) == []
    return tracker, tracker.associate(KEY, "f0", regions(*polygons), at_ns(0))


def test_a_line_goes_with_a_camera_that_shakes_and_zooms() -> None:
    def camera(number: int) -> NDArray[np.float64]:
        turned = cv2.getRotationMatrix2D((240, 135), 2 * math.sin(number / 5), 1 + 0.01 * number)
        shift = [[0, 0, 9 * math.sin(number / 3)], [0, 0, 6 * math.sin(number / 4)]]
        return np.add(turned, shift, dtype=np.float64)

    scene, place = wall(), placing(180, 120, 1.2, 8)
    scene = with_sign(scene, place)

    def seen(number: int) -> Grey:
        return noisy(
            cv2.warpAffine(scene, camera(number), SIZE_WH, borderMode=cv2.BORDER_REFLECT).astype(np.uint8), number
        )

    def truth(number: int) -> Polygon:
        matrix = camera(number)
        return to_polygon(np.array(placed(place)) @ matrix[:, :2].T + matrix[:, 2])

    tracker, (first,) = begun(seen(0), truth(0))
    for number in range(1, 31):
        step = np.vstack([camera(number), [0, 0, 1]]) @ np.linalg.inv(np.vstack([camera(number - 1), [0, 0, 1]]))
        (track,) = tracker.advance(KEY, seen(number), 1.0, Motion(step[:2]), at_ns(number))
        assert track.track_id == first.track_id
        assert track.is_visible
        assert iou(track.polygon, truth(number)) > 0.88


@pytest.mark.parametrize(
    ("speed", "growth"), [((-5.3, 0.0), 0.0), ((0.0, -3.0), 0.0), ((-3.1, 0.4), 0.012), ((0.0, 0.0), 0.02)]
)
def test_a_line_goes_its_own_way_against_a_wall_that_stands_still(speed: tuple[float, float], growth: float) -> None:
    def place(number: int) -> NDArray[np.float64]:
        return placing(230 + speed[0] * number, 180 + speed[1] * number, 1 + growth * number)

    tracker, _ = begun(with_sign(wall(), place(0)), placed(place(0)))
    for number in range(1, 31):
        picture = noisy(with_sign(wall(), place(number)), number)
        (track,) = tracker.advance(KEY, picture, 1.0, Motion.none(), at_ns(number))
        assert iou(track.polygon, placed(place(number))) > 0.85
        assert track.is_visible
    assert track.moved_px == pytest.approx(math.hypot(*speed), abs=1.5)


def test_a_line_at_rest_rests() -> None:
    place = placing(100, 60)
    tracker, (first,) = begun(noisy(with_sign(wall(), place), 0), placed(place))
    for number in range(1, 61):
        (track,) = tracker.advance(KEY, noisy(with_sign(wall(), place), number), 1.0, Motion.none(), at_ns(number))
    assert track.polygon == pytest.approx(np.array(first.polygon), abs=0.5)
    assert track.fit > 0.95


def test_polygons_are_in_the_frames_own_pixels() -> None:
    def place(number: int) -> NDArray[np.float64]:
        return placing(200 - 4 * number, 100)

    tracker = Tracker()
    tracker.advance(KEY, with_sign(wall(), place(0)), 0.25, None, at_ns(0))
    tracker.associate(KEY, "f0", regions(scale_polygon(placed(place(0)), 4, 4)), at_ns(0))
    for number in range(1, 11):
        (track,) = tracker.advance(KEY, with_sign(wall(), place(number)), 0.25, Motion.none(), at_ns(number))
    assert iou(track.polygon, scale_polygon(placed(place(10)), 4, 4)) > 0.9
    assert track.moved_px == pytest.approx(16, abs=1)


def test_who_walks_by_hides_a_line_and_does_not_take_it_along() -> None:
    place = placing(200, 120)
    cloth = np.random.default_rng(5).integers(0, 90, (200, 130), dtype=np.uint8)
    cloth = cv2.GaussianBlur(cloth, (0, 0), 2).astype(np.uint8)

    def seen(number: int) -> Grey:
        picture = with_sign(wall(), place)
        left = 40 + 4 * number
        picture[70:, left : left + 130] = cloth[:, : SIZE_WH[0] - left]
        return noisy(picture, number)

    tracker, (first,) = begun(seen(0), placed(place))
    tracks = [tracker.advance(KEY, seen(n), 1.0, Motion.none(), at_ns(n))[0] for n in range(1, 75)]
    assert {track.track_id for track in tracks} == {first.track_id}
    assert min(iou(track.polygon, placed(place)) for track in tracks) > 0.8
    shown = [track.is_visible for track in tracks]
    assert [value for value, _ in itertools.groupby(shown)] == [True, False, True]
    assert shown.count(False) > 20


def test_what_is_hidden_for_long_has_gone() -> None:
    place = placing(200, 120)
    tracker, _ = begun(with_sign(wall(), place), placed(place))
    known = [tracker.advance(KEY, wall(), 1.0, Motion.none(), at_ns(number)) for number in range(1, 90)]
    assert not any(track.is_visible for tracks in known for track in tracks)
    assert [len(tracks) for tracks in known] == [1] * int(GONE_AFTER_S * 30) + [0] * (89 - int(GONE_AFTER_S * 30))


def test_what_leaves_the_frame_has_ended() -> None:
    tracker, _ = begun(with_sign(wall(), placing(60, 100)), placed(placing(60, 100)))
    lasted, is_whole = 0, []
    for number in range(1, 40):
        picture = with_sign(wall(), placing(60 - 5 * number, 100))
        for track in tracker.advance(KEY, picture, 1.0, Motion.none(), at_ns(number)):
            lasted = number
            is_whole.append(track.is_whole)
            x0, _, x1, _ = bounding_box(track.polygon)
            assert 0 <= x0 < x1 <= SIZE_WH[0]
    # Its right end is at 150 - 5 n.
    assert 25 <= lasted <= 29
    assert is_whole.index(False) in {11, 12, 13}


def test_what_comes_in_is_whole_when_all_of_it_was_found() -> None:
    def coming(number: int) -> tuple[Grey, Polygon]:
        """A sign that the left edge cuts off until frame 9, and what a detector finds of it."""
        place = placing(-45 + 5 * number, 100)
        return with_sign(wall(), place), to_polygon(np.maximum(np.array(placed(place)), 0))

    tracker, found = begun(coming(0)[0], coming(0)[1])
    assert not found[0].is_whole
    for number in range(1, 16):
        (track,) = tracker.advance(KEY, coming(number)[0], 1.0, Motion.none(), at_ns(number))
        # It has long left the edge, but what is known of it is still its end: the rest may reach up to the edge.
        assert not track.is_whole
        assert track.has_come_in == (number > 1)
        assert bounding_box(track.polygon) == pytest.approx((0, 100, 45 + 5 * number, 116), abs=2)
    (track,) = tracker.associate(KEY, "f15", regions(coming(15)[1]), at_ns(15))
    assert (track.track_id, track.is_whole, track.has_come_in) == ("f0-000", True, False)
    assert bounding_box(track.polygon) == pytest.approx((30, 100, 120, 116), abs=1)


def test_what_is_known_of_a_line_is_told_also_where_the_frame_does_not_show_it() -> None:
    def place(number: int) -> NDArray[np.float64]:
        return placing(20 - 3 * number, 100)

    tracker, (line,) = begun(with_sign(wall(), place(0)), placed(place(0)))
    assert line.known == line.polygon
    for number in range(1, 20):
        (track,) = tracker.advance(KEY, with_sign(wall(), place(number)), 1.0, Motion.none(), at_ns(number))
    assert bounding_box(track.known) == pytest.approx((-37, 100, 53, 116), abs=2)
    assert bounding_box(track.polygon) == pytest.approx((0, 100, 53, 116), abs=2)


@pytest.mark.parametrize("is_told", [True, False])
def test_how_fast_a_line_runs_that_has_begun_tells_where_it_is_next(is_told: bool) -> None:
    place = placing(300, 100)
    tracker, (line,) = begun(with_sign(wall(), place), placed(place))
    if is_told:
        tracker.note_speed(KEY, line.track_id, np.array([-1500.0, 0.0]))
    then = placing(250, 100)
    (track,) = tracker.advance(KEY, with_sign(wall(), then), 1.0, Motion.none(), at_ns(1))
    assert (iou(track.polygon, placed(then)) > 0.85) == is_told


def test_what_is_left_of_a_line_is_one_where_another_text_has_come_up_in_the_rest() -> None:
    plate, other = sign("10:10 ROME"), sign("10:10 ROME")
    other[:, 45:] = sign("DUBLIN XX")[:, :45]
    place = placing(100, 100)
    tracker, (line,) = begun(with_sign(wall(), place, plate), placed(place))
    picture = with_sign(wall(), place, other)
    tracker.advance(KEY, picture, 1.0, Motion.none(), at_ns(1))
    left, right = box_polygon(100, 100, 140, 116), box_polygon(143, 100, 190, 116)
    found = tracker.associate(KEY, "f1", regions(left, right), at_ns(1))
    assert [track.track_id for track in found] == ["f1-000", line.track_id]
    assert [bounding_box(track.polygon) for track in tracker.tracks(KEY)] == [bounding_box(right), bounding_box(left)]


@pytest.mark.parametrize("ending", ["cut", "older", "gap", "size"])
def test_tracks_do_not_outlive(ending: str) -> None:
    picture = with_sign(wall(), placing(100, 100))
    tracker, _ = begun(picture, placed(placing(100, 100)))
    assert len(tracker.advance(KEY, picture, 1.0, Motion.none(), at_ns(1))) == 1
    number = {"older": 0, "gap": 100}.get(ending, 2)
    smaller = picture[:200] if ending == "size" else picture
    assert tracker.advance(KEY, smaller, 1.0, None if ending == "cut" else Motion.none(), at_ns(number)) == []
    (track,) = tracker.associate(KEY, "next", regions(placed(placing(100, 100))), at_ns(number))
    assert track.track_id == "next-000"


def test_ids_are_those_of_the_frame_and_line_a_track_began_in() -> None:
    first, second = box_polygon(10, 10, 100, 30), box_polygon(10, 60, 100, 80)
    third = box_polygon(200, 60, 300, 80)

    def ids() -> list[list[str]]:
        tracker, tracks = begun(wall(), first, second)
        tracker.advance(KEY, wall(), 1.0, Motion.none(), at_ns(1))
        then = tracker.associate(KEY, "f1", regions(third, second, first), at_ns(1))
        return [[track.track_id for track in found] for found in (tracks, then)]

    assert ids() == [["f0-000", "f0-001"], ["f1-000", "f0-001", "f0-000"]]
    assert ids() == ids()
    # Another source, and a replay of the same one, know nothing of it.
    tracker, _ = begun(wall(), first)
    for key in (("stairs", 0), ("hall", 7)):
        assert tracker.tracks(key) == []
        assert tracker.associate(key, "f9", regions(first), at_ns(1))[0].track_id == "f9-000"


def split_in_two(picture: Grey) -> tuple[list[str], list[Followed]]:
    """The tracks of what is found where there was one line, and those that are known then, in another picture."""
    tracker, _ = begun(wall(), box_polygon(100, 100, 300, 120))
    for number in (1, 2):
        tracker.advance(KEY, picture, 1.0, Motion.none(), at_ns(number))
    found = regions(box_polygon(100, 100, 165, 120), box_polygon(175, 100, 300, 120))
    ids = [track.track_id for track in tracker.associate(KEY, "f2", found, at_ns(2))]
    return ids, tracker.tracks(KEY)


def test_of_a_line_that_splits_the_larger_part_keeps_the_track() -> None:
    changed = cv2.addWeighted(wall(0), 0.6, wall(1), 0.4, 0).astype(np.uint8)
    ids, known = split_in_two(changed)
    assert ids == ["f2-000", "f0-000"]
    assert [bounding_box(track.polygon)[0] for track in known] == [175, 100]


def test_pieces_that_the_detector_finds_of_a_line_that_is_there_as_before_are_that_line() -> None:
    ids, (track,) = split_in_two(wall())
    assert ids == ["f0-000", "f0-000"]
    assert bounding_box(track.polygon) == (100, 100, 300, 120)


@pytest.mark.parametrize("is_as_before", [True, False])
def test_a_line_found_without_its_last_letter_is_whole_where_it_looks_as_before(is_as_before: bool) -> None:
    whole, piece = box_polygon(100, 100, 190, 116), box_polygon(100, 100, 168, 116)
    before, now = (with_sign(wall(), placing(100, 100), sign(text)) for text in ("KX 4471M", "KX 447"))
    tracker, _ = begun(before, whole)
    tracker.advance(KEY, before if is_as_before else now, 1.0, Motion.none(), at_ns(1))
    (found,) = tracker.associate(KEY, "f1", regions(piece), at_ns(1))
    assert bounding_box(found.polygon)[2] == pytest.approx(190 if is_as_before else 168, abs=1)


def test_a_line_that_is_found_without_its_last_digit_is_that_line() -> None:
    picture = wall()
    cv2.putText(picture, "TERMINAL 1", (104, 113), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 20, 1, cv2.LINE_AA)
    whole, piece = box_polygon(100, 100, 196, 116), box_polygon(100, 100, 182, 116)
    tracker, (first,) = begun(picture, whole)
    tracker.advance(KEY, picture, 1.0, Motion.none(), at_ns(1))
    (found,) = tracker.associate(KEY, "f1", regions(piece), at_ns(1))
    assert (found.track_id, bounding_box(found.polygon)) == (first.track_id, bounding_box(whole))


def test_a_shorter_text_in_the_place_of_a_line_is_no_piece_of_it() -> None:
    long, short = box_polygon(100, 100, 190, 116), box_polygon(100, 100, 148, 116)
    before, now = (with_sign(wall(), placing(100, 100), sign(text)) for text in ("LISBON 9", "OSLO"))
    tracker, _ = begun(before, long)
    for number in range(1, 4):
        # What replaces it moves, too, as what hides a line does.
        tracker.advance(KEY, noisy(now if number % 2 else before, number), 1.0, Motion.none(), at_ns(number))
    (found,) = tracker.associate(KEY, "f3", regions(short), at_ns(3))
    assert found.polygon == short
    (track,) = [
        track for track in tracker.advance(KEY, noisy(now, 4), 1.0, Motion.none(), at_ns(4)) if track.is_visible
    ]
    assert iou(track.polygon, short) > 0.8


@pytest.mark.parametrize("left", [0.0, 0.02])
def test_a_text_that_has_dissolved_into_a_shorter_one_ends_where_that_ends(left: float) -> None:
    long, short = box_polygon(100, 100, 190, 116), box_polygon(100, 100, 148, 116)
    before, after = (with_sign(wall(), placing(100, 100), sign(text)).astype(float) for text in ("LISBON 9", "OSLO"))

    def dissolving(share: float) -> Grey:
        return noisy(np.asarray(before * share + after * (1 - share), np.uint8), round(100 * share))

    tracker, _ = begun(dissolving(1), long)
    for number in range(1, 46):
        tracker.advance(KEY, dissolving(max(1 - number / 40, left)), 1.0, Motion.none(), at_ns(number))
        if number == 32:
            # A mixture, in which the short text is the stronger already.
            tracker.associate(KEY, "f32", regions(long), at_ns(number))
    (found,) = tracker.associate(KEY, "f45", regions(short), at_ns(45))
    assert bounding_box(found.polygon)[2] == pytest.approx(148, abs=2)


def test_another_text_found_in_the_place_of_a_line_is_remembered_though_it_is_restless() -> None:
    place = placing(200, 120)
    tracker, _ = begun(with_sign(wall(), place), placed(place))

    def flickering(number: int) -> Grey:
        grains = np.random.default_rng(number).normal(0, 25, (16, 90))
        plate = np.clip(np.bitwise_not(sign("MXWVZK&")) + grains, 0, 255).astype(np.uint8)
        return with_sign(wall(), place, plate)

    for number in (1, 2):
        (track,) = tracker.advance(KEY, flickering(number), 1.0, Motion.none(), at_ns(number))
    assert not track.is_visible
    tracker.associate(KEY, "f2", regions(placed(place)), at_ns(2))
    for number in (3, 4):
        (track,) = tracker.advance(KEY, flickering(number), 1.0, Motion.none(), at_ns(number))
        assert track.track_id == "f0-000"
        assert track.is_visible


def test_a_line_that_was_lost_a_little_off_is_put_back() -> None:
    tracker, (first,) = begun(with_sign(wall(), placing(200, 120)), placed(placing(200, 120)))
    blank = np.full_like(wall(), 128)
    (track,) = tracker.advance(KEY, blank, 1.0, Motion.none(), at_ns(1))
    assert not track.is_visible
    # Its points can tell nothing where there was nothing to see.
    there = placing(202, 121.5)
    (track,) = tracker.advance(KEY, with_sign(wall(), there), 1.0, Motion.none(), at_ns(2))
    assert (track.track_id, track.is_visible) == (first.track_id, True)
    assert _distance(track.polygon, placed(there)) < 0.8


def test_what_was_known_of_a_piece_ends_when_the_whole_is_there_as_before() -> None:
    whole, piece = box_polygon(100, 100, 300, 120), box_polygon(175, 100, 300, 120)
    tracker, _ = begun(wall(), whole, piece)
    tracker.advance(KEY, wall(), 1.0, Motion.none(), at_ns(1))
    (track,) = tracker.associate(KEY, "f1", regions(piece), at_ns(1))
    assert (track.track_id, track.polygon) == ("f0-000", whole)
    assert [track.track_id for track in tracker.tracks(KEY)] == ["f0-000"]


def test_of_lines_that_merge_the_larger_keeps_the_track_and_the_other_ends() -> None:
    tracker, _ = begun(wall(), box_polygon(100, 100, 165, 120), box_polygon(175, 100, 300, 120))
    (track,) = tracker.associate(KEY, "f1", regions(box_polygon(100, 100, 300, 120)), at_ns(1))
    assert (track.track_id, track.polygon) == ("f0-001", box_polygon(100, 100, 300, 120))
    assert [known.track_id for known in tracker.tracks(KEY)] == ["f0-001"]


def test_a_small_line_on_a_tall_one_is_another() -> None:
    tracker, _ = begun(wall(), box_polygon(100, 100, 300, 180))
    (track,) = tracker.associate(KEY, "f1", regions(box_polygon(120, 150, 280, 170)), at_ns(1))
    assert track.track_id == "f1-000"


def test_a_line_that_comes_into_the_frame_grows() -> None:
    tracker, _ = begun(with_sign(wall(), placing(450, 100)), box_polygon(450, 100, 480, 116))
    for number in range(1, 16):
        tracker.advance(KEY, with_sign(wall(), placing(450 - 4 * number, 100)), 1.0, Motion.none(), at_ns(number))
    found = regions(box_polygon(390, 100, 480, 116))
    (track,) = tracker.associate(KEY, "f15", found, at_ns(15))
    assert (track.track_id, track.polygon) == ("f0-000", found[0].polygon)


@pytest.mark.parametrize("bit", [box_polygon(468, 105, 480, 122), box_polygon(446, 96, 468, 136)])
def test_a_bit_of_a_line_ends_when_the_line_is_found_that_it_belongs_to(bit: Polygon) -> None:
    word = box_polygon(400, 100, 466, 132)
    tracker, (first, _) = begun(wall(), word, bit)
    whole = box_polygon(400, 100, 480, 132)
    assert [track.track_id for track in tracker.associate(KEY, "f1", regions(whole), at_ns(1))] == [first.track_id]
    assert [track.track_id for track in tracker.tracks(KEY)] == [first.track_id]


def test_a_text_that_changes_in_its_place_keeps_its_track() -> None:
    place = placing(200, 120)
    tracker, _ = begun(with_sign(wall(), place), placed(place))
    changed = with_sign(wall(), place, sign("EXIT 704"))
    fits = [tracker.advance(KEY, changed, 1.0, Motion.none(), at_ns(number))[0].fit for number in (1, 2)]
    assert max(fits) < 0.9
    (track,) = tracker.associate(KEY, "f2", regions(placed(place)), at_ns(2))
    assert track.track_id == "f0-000"
    (track,) = tracker.advance(KEY, changed, 1.0, Motion.none(), at_ns(3))
    assert track.fit > 0.95


def test_trembling_places_are_smoothed() -> None:
    place = placing(200, 120)
    picture, rng = with_sign(wall(), place), np.random.default_rng(3)
    tracker = Tracker()
    tracker.advance(KEY, picture, 1.0, None, at_ns(0))
    off: list[tuple[float, float]] = []
    for number in range(40):
        tracker.advance(KEY, picture, 1.0, Motion.none(), at_ns(number))
        found = to_polygon(np.array(placed(place)) + rng.normal(0, 1, (4, 2)))
        (track,) = tracker.associate(KEY, f"f{number}", regions(found), at_ns(number))
        assert track.track_id == "f0-000"
        off.append((_distance(found, placed(place)), _distance(track.polygon, placed(place))))
    found_off, track_off = np.mean(off[5:], axis=0)
    assert track_off < 0.6 * found_off


def test_what_has_faded_much_is_doubted_until_it_is_found_so_again() -> None:
    scene, place = wall(), placing(180, 120)
    whole = with_sign(scene, place)

    def faded(share: float) -> Grey:
        return cv2.addWeighted(whole, share, scene, 1 - share, 0).astype(np.uint8)

    def found(number: int, share: float) -> bool:
        for each in (number - 1, number):
            tracker.advance(KEY, faded(share), 1.0, Motion(np.eye(2, 3)), at_ns(each))
        (track,) = tracker.associate(KEY, f"f{number}", regions(placed(place)), at_ns(number))
        return track.is_doubted

    tracker, (first,) = begun(whole, placed(place))
    assert not first.is_doubted
    assert not found(10, 0.8)
    assert found(20, 0.2)
    # It may be that the light is another one.
    assert [found(30 + 10 * number, 0.2) for number in range(5)][-1] is False


def test_what_is_looked_for_in_vain_ends_but_only_where_was_looked() -> None:
    left, right = placing(50, 120), placing(300, 120)
    picture = with_sign(with_sign(wall(), left), right)
    tracker, _ = begun(picture, placed(left), placed(right))
    alive = []
    for number in range(1, MISSES_IN_SIGHT + 1):
        tracker.advance(KEY, picture, 1.0, Motion.none(), at_ns(number))
        tracker.associate(KEY, f"f{number}", [], at_ns(number), lambda polygon: polygon[0][0] > 200)
        alive.append([track.track_id for track in tracker.tracks(KEY)])
    assert alive == [["f0-000", "f0-001"]] * (MISSES_IN_SIGHT - 1) + [["f0-000"]]


def test_what_is_looked_for_in_vain_where_something_else_is_found_is_doubted_and_ends_soon() -> None:
    # What was found of two texts while one dissolved into the other, and the text that stays.
    piece, text = placing(200, 120), placing(130, 120)
    picture = with_sign(wall(), piece)
    tracker, _ = begun(picture, placed(piece))
    alive = []
    for number in range(1, MISSES + 1):
        tracker.advance(KEY, picture, 1.0, Motion.none(), at_ns(number))
        tracker.associate(KEY, f"f{number}", regions(placed(text)), at_ns(number))
        alive.append([track.is_doubted for track in tracker.tracks(KEY) if track.track_id == "f0-000"])
    assert alive == [[True]] * (MISSES - 1) + [[]]


def test_a_new_line_too_quick_for_its_own_points_goes_with_its_neighbour() -> None:
    # The small one's letters are lost in one jump; the large one above it, on the same car, is seen to move.
    small = np.full((8, 12), 200, np.uint8)
    small[2:6, 3:9:2] = 40

    def seen(number: int) -> Grey:
        picture = with_sign(wall(), placing(300 - 14 * number, 100, 2))
        return with_sign(picture, placing(300 - 14 * number, 140), small)

    def truth(number: int) -> Polygon:
        return box_polygon(300 - 14 * number, 140, 312 - 14 * number, 148)

    tracker, _ = begun(seen(0), placed(placing(300, 100, 2)), truth(0))
    for number in range(1, 6):
        _, track = tracker.advance(KEY, seen(number), 1.0, Motion.none(), at_ns(number))
    assert iou(track.polygon, truth(5)) > 0.6


def test_lines_are_followed_without_pictures_by_their_boxes() -> None:
    tracker = Tracker()

    def ids(second: float, *polygons: Polygon) -> list[str | None]:
        info = FrameInfo("hall", f"hall@{second}", round(second * 1e9), 640, 360, live=True)
        return [region.track_id for region in tracker.follow(info, regions(*polygons))]

    gate, moved, away = box_polygon(40, 40, 240, 80), box_polygon(60, 36, 260, 80), box_polygon(40, 200, 240, 240)
    assert ids(10, gate) == ["hall@10-000"]
    assert ids(11, moved, away) == ["hall@10-000", "hall@11-001"]
    assert ids(11.5) == []
    assert ids(12, moved) == ["hall@10-000"]
    assert ids(15, moved) == ["hall@15-000"]
    assert ids(10, gate) == ["hall@10-000"]


def test_overlap_tells_parts_from_neighbours() -> None:
    line = np.array(box_polygon(0, 0, 100, 20))
    part = overlap(line, np.array(box_polygon(0, 0, 40, 20)))
    assert part == pytest.approx((0.4, 1.0, 1.0))
    assert part.is_part
    beside = overlap(line, np.array(box_polygon(90, 0, 190, 20)))
    assert beside == pytest.approx((10 / 190, 0.1, 1.0))
    assert not beside.is_one_line
    assert overlap(line, np.array(box_polygon(200, 0, 300, 20))).iou == 0


def test_pairing_the_closest_first_finds_what_an_optimal_assignment_finds() -> None:
    rng = np.random.default_rng(0)
    compared = 0
    for _ in range(200):
        # Lines of a page, some of them close together, found again with trembling corners and some missing.
        known = np.array([box_polygon(x, y, x + 80, y + 14) for x in (0, 84) for y in (0, 16, 34)], float)
        order = rng.permutation(6)[: rng.integers(3, 7)]
        found = known[order] + rng.normal(0, 2.0, (len(order), 4, 2)) + rng.normal(0, 1.5, 2)
        pairs = overlaps(found, known)
        best = max(
            itertools.permutations(range(6), len(order)),
            key=lambda tracks: sum(
                pairs[key].iou for key in enumerate(tracks) if key in pairs and pairs[key].is_one_line
            ),
        )
        matched = match(pairs)
        assert matched == {line: track for line, track in enumerate(best) if (line, track) in pairs and line in matched}
        compared += len(matched)
        assert all(order[line] == track for line, track in matched.items())
    assert compared > 800


def test_a_patch_is_what_lies_under_the_line() -> None:
    ramp = np.tile(np.arange(200, dtype=np.uint8), (100, 1))
    corners = np.array(
        [box_polygon(10, 10, 90, 26), box_polygon(150, 10, 230, 26), box_polygon(50, 40, 130, 56)], float
    )
    seen = flow.patches(ramp, corners)
    columns = 10 + (np.arange(flow.PATCH_COLUMNS) + 0.5) * 80 / flow.PATCH_COLUMNS
    first = seen.levels[0].reshape(flow.PATCH_ROWS, flow.PATCH_COLUMNS)
    assert first == pytest.approx(np.tile(columns, (flow.PATCH_ROWS, 1)), abs=0.6)
    assert seen.levels[2] - seen.levels[0] == pytest.approx(np.full(seen.levels.shape[1], 40), abs=1.1)
    assert seen.inside[0].all()
    assert seen.inside[1].mean() == pytest.approx(49 / 80, abs=0.03)
    # The same ramp elsewhere is as like as can be; one that falls is the contrary.
    assert flow.fit(seen, seen) == pytest.approx([1, 1, 1])
    turned = flow.patches(ramp, corners[:, [1, 0, 3, 2]])
    assert flow.fit(seen, turned)[[0, 2]] == pytest.approx([-1, -1], abs=0.02)


def test_of_a_patch_a_part_is_what_lies_within_it() -> None:
    corners = np.array([box_polygon(10, 10, 90, 26), box_polygon(100, 40, 180, 56)], float)
    parts = np.array([box_polygon(30, 8, 50, 30), box_polygon(90, 48, 200, 70)], float)
    seen = flow.patches(wall(), corners)
    within = flow.within(seen, corners, parts)
    columns, rows = (
        each.reshape(2, flow.PATCH_ROWS, flow.PATCH_COLUMNS).any(axis=axis).sum(axis=1)
        for each, axis in ((within.inside, 1), (within.inside, 2))
    )
    assert columns.tolist() == [flow.PATCH_COLUMNS / 4, flow.PATCH_COLUMNS]
    assert rows.tolist() == [flow.PATCH_ROWS, flow.PATCH_ROWS / 2]
    assert (within.levels == seen.levels).all()


def test_what_is_out_of_the_picture_has_no_motion() -> None:
    outside = np.array([box_polygon(600, 10, 700, 30)], float)
    moved = flow.follow(wall(), wall(1), outside, outside + 3)
    assert moved.support == pytest.approx([0])
    assert moved.corners == pytest.approx(outside + 3)


def _distance(a: Polygon, b: Polygon) -> float:
    return float(np.mean([math.dist(p, q) for p, q in zip(a, b, strict=True)]))
