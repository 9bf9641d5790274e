"""The camera's motion is told to a fraction of a pixel, whatever moves by itself and however the light changes."""

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from detector_consumer.motion import Grey, Motion, MotionEstimator, evened, remaining_motion, shrink
from ocrstream.picture import Image, Picture

SIZE = (426, 240)
MARGIN = 60
CORNERS = np.array([[20.0, 20.0], [400.0, 20.0], [400.0, 220.0], [20.0, 220.0]])


def wall(seed: int = 1) -> Grey:
    """A wall with posters and text, larger than the picture by a margin on each side."""
    rng = np.random.default_rng(seed)
    picture = np.full((SIZE[1] + 2 * MARGIN, SIZE[0] + 2 * MARGIN), 150, np.uint8)
    for _ in range(60):
        x, y = rng.integers(0, picture.shape[1]), rng.integers(0, picture.shape[0])
        w, h = rng.integers(12, 70, 2)
        cv2.rectangle(picture, (int(x), int(y)), (int(x + w), int(y + h)), int(rng.integers(20, 240)), -1)
        cv2.putText(picture, f"A{x}b", (int(x), int(y)), cv2.FONT_HERSHEY_SIMPLEX, 0.5, int(rng.integers(0, 255)), 1)
    return np.asarray(cv2.GaussianBlur(picture, (3, 3), 0), np.uint8)


def view(matrix: NDArray[np.float64], seed: int = 1) -> Grey:
    """The wall as a camera sees it whose motion since the unmoved view is this matrix."""
    placed = matrix.copy()
    placed[:, 2] -= matrix[:, :2] @ np.array([MARGIN, MARGIN])
    return np.asarray(cv2.warpAffine(wall(seed), placed, SIZE, flags=cv2.INTER_CUBIC), np.uint8)


def noisy(grey: Grey, seed: int, sigma: float = 1.5) -> Grey:
    noise = np.random.default_rng(seed).normal(0, sigma, grey.shape)
    return np.clip(np.round(grey + noise), 0, 255).astype(np.uint8)


def turned(degrees: float, zoom: float, dx: float, dy: float) -> NDArray[np.float64]:
    matrix = np.asarray(cv2.getRotationMatrix2D((SIZE[0] / 2, SIZE[1] / 2), degrees, zoom), np.float64)
    matrix[:, 2] += dx, dy
    return matrix


UNMOVED = turned(0, 1, 0, 0)


@pytest.mark.parametrize(
    ("degrees", "zoom", "dx", "dy"),
    [
        (0, 1, 0.3, -0.2),
        (0, 1, 6.5, 2.0),
        (0, 1, -24.0, 3.0),
        (1.5, 1, 2.0, 0.0),
        (0, 1.04, 0.0, 0.0),
        (-2.0, 0.97, 4.0, -3.0),
    ],
)
def test_shift_turn_and_zoom_are_told_to_a_fraction_of_a_pixel(
    degrees: float, zoom: float, dx: float, dy: float
) -> None:
    matrix = turned(degrees, zoom, dx, dy)
    motion = MotionEstimator().estimate(noisy(view(UNMOVED), 1), noisy(view(matrix), 2))
    assert motion is not None
    assert not motion.is_still
    assert np.abs(motion.move(CORNERS) - (CORNERS @ matrix[:, :2].T + matrix[:, 2])).max() < 0.25


@pytest.mark.parametrize(("dx", "dy"), [(-55, 4), (50, 30), (-90, 0)])
def test_a_leap_of_the_camera_is_no_cut(dx: float, dy: float) -> None:
    matrix = turned(0, 1, dx, dy)
    # The view is moved half the way to each side, so that both lie on the wall.
    motion = MotionEstimator().estimate(
        view(turned(0, 1, -dx / 2, -dy / 2)), noisy(view(turned(0, 1, dx / 2, dy / 2)), 1)
    )
    assert motion is not None
    assert np.abs(motion.move(CORNERS) - (CORNERS @ matrix[:, :2].T + matrix[:, 2])).max() < 0.3


def test_errors_do_not_add_up_to_a_pixel_over_a_second_of_shaking() -> None:
    estimator = MotionEstimator()
    points, before = CORNERS, view(UNMOVED)
    for index in range(1, 31):
        at = turned(1.0 * np.sin(index / 5), 1, 4 * np.sin(index / 4), 3 * np.sin(index / 3))
        now = noisy(view(at), index)
        motion = estimator.estimate(before, now)
        assert motion is not None
        points, before = motion.move(points), now
    assert np.abs(points - (CORNERS @ at[:, :2].T + at[:, 2])).max() < 0.8


def test_a_camera_at_rest_is_exactly_still_in_noise() -> None:
    estimator, before = MotionEstimator(), noisy(view(UNMOVED), 0)
    for index in range(1, 6):
        now = noisy(view(UNMOVED), index)
        motion = estimator.estimate(before, now)
        assert motion is not None
        assert motion.is_still
        assert np.array_equal(motion.move(CORNERS), CORNERS)
        before = now


def test_a_creeping_camera_is_not_taken_for_one_at_rest() -> None:
    motion = MotionEstimator().estimate(noisy(view(UNMOVED), 1), noisy(view(turned(0, 1, 0.08, 0)), 2))
    assert motion is not None
    assert motion.matrix[0, 2] == pytest.approx(0.08, abs=0.03)


@pytest.mark.parametrize(("gain", "offset"), [(1.3, 0), (0.7, 0), (0.8, 40), (1.0, -25)])
def test_another_exposure_is_no_motion_and_no_cut(gain: float, offset: float) -> None:
    grey = view(UNMOVED)
    brighter = np.clip(grey * gain + offset, 0, 255).astype(np.uint8)
    motion = MotionEstimator().estimate(grey, brighter)
    assert motion is not None
    assert np.abs(motion.move(CORNERS) - CORNERS).max() < 0.1


@pytest.mark.parametrize("camera", [UNMOVED, turned(0, 1, 3.0, -2.0)])
def test_what_passes_by_is_not_the_camera(camera: NDArray[np.float64]) -> None:
    before, now = view(UNMOVED), view(camera)
    passing = wall(2)[:150, :170]
    before[60:210, 40:210] = passing
    now[60:210, 49:219] = passing
    motion = MotionEstimator().estimate(before, now)
    assert motion is not None
    assert np.abs(motion.move(CORNERS) - (CORNERS @ camera[:, :2].T + camera[:, 2])).max() < 0.3


def test_another_picture_is_a_cut_and_the_next_frame_is_not() -> None:
    estimator = MotionEstimator()
    other = view(UNMOVED, seed=7)
    assert estimator.estimate(view(UNMOVED), other) is None
    motion = estimator.estimate(other, noisy(other, 1))
    assert motion is not None
    assert motion.is_still


def test_a_picture_of_another_size_is_a_cut() -> None:
    grey = view(UNMOVED)
    assert MotionEstimator().estimate(grey, grey[:-8]) is None


def test_a_blank_wall_rests_and_a_picture_after_it_is_a_cut() -> None:
    blank: Grey = np.full((SIZE[1], SIZE[0]), 90, np.uint8)
    estimator = MotionEstimator()
    motion = estimator.estimate(noisy(blank, 1), noisy(blank, 2))
    assert motion is not None
    assert motion.is_still
    assert estimator.estimate(noisy(blank, 2), view(UNMOVED)) is None


def test_the_answer_does_not_lean_on_frames_from_before() -> None:
    first, second, third = (view(turned(0, 1, 3.0 * index, 0)) for index in range(3))
    warm = MotionEstimator()
    warm.estimate(first, second)
    after, fresh = warm.estimate(second, third), MotionEstimator().estimate(second, third)
    assert after is not None
    assert fresh is not None
    assert np.abs(after.move(CORNERS) - fresh.move(CORNERS)).max() < 0.1


@pytest.mark.parametrize(
    ("size", "small", "factor"),
    [((1920, 1080), (480, 270), 4), ((1280, 720), (426, 240), 3), ((854, 480), (427, 240), 2), ((300, 3), (300, 3), 1)],
)
def test_the_small_picture_covers_whole_blocks_of_the_frame(
    size: tuple[int, int], small: tuple[int, int], factor: int
) -> None:
    picture: Image = np.zeros((size[1], size[0], 3), np.uint8)
    picture[:, : 8 * factor] = 200
    greys = shrink(Picture.from_array(picture))
    grey = greys.small
    assert grey.shape == (small[1], small[0])
    assert greys.small_factor == factor
    assert (grey[:, :8] == 200).all()
    assert (grey[:, 8:] == 0).all()


@pytest.mark.parametrize(
    ("size", "fine", "small"),
    [
        ((1920, 1080), (960, 540), (480, 270)),
        ((1280, 720), (640, 360), (426, 240)),
        ((1024, 576), (512, 288), (512, 288)),
        ((3840, 2160), (960, 540), (480, 270)),
        ((2600, 1000), (866, 333), (520, 200)),
        ((640, 361), (640, 361), (640, 361)),
        ((500, 2), (500, 2), (500, 2)),
    ],
)
def test_both_copies_show_the_frame_at_their_factor(
    size: tuple[int, int], fine: tuple[int, int], small: tuple[int, int]
) -> None:
    rng = np.random.default_rng(4)
    picture: Image = np.repeat(rng.integers(0, 255, (size[1], size[0], 1)), 3, axis=2).astype(np.uint8)
    greys = shrink(Picture.from_array(picture))
    for copy, factor, wanted in (
        (greys.fine, greys.fine_factor, fine),
        (greys.small, greys.small_factor, small),
    ):
        assert (copy.shape[1], copy.shape[0]) == wanted
        whole = picture[: wanted[1] * factor, : wanted[0] * factor, 0].astype(float)
        means = whole.reshape(wanted[1], factor, wanted[0], factor).mean(axis=(1, 3))
        assert np.abs(copy - means).max() <= 1.5


@pytest.mark.parametrize("size", [(1920, 1080), (1280, 720), (1283, 725), (3840, 2160)])
def test_a_jpeg_is_made_small_without_decoding_all_of_it(size: tuple[int, int]) -> None:
    scene = cv2.resize(view(UNMOVED), size, interpolation=cv2.INTER_CUBIC)
    encoded = Picture.from_array(np.repeat(scene[..., None], 3, axis=2).astype(np.uint8), 95).encoded()
    whole, reduced = Picture.from_encoded(encoded), Picture.from_encoded(encoded)
    whole.array()
    expected, greys = shrink(whole), shrink(reduced)
    assert reduced.reduced_grey(greys.fine_factor) is not None, "it is still not decoded"
    assert (greys.fine_factor, greys.small_factor) == (expected.fine_factor, expected.small_factor)
    for copy, wanted in ((greys.fine, expected.fine), (greys.small, expected.small)):
        assert copy.shape == wanted.shape
        assert np.abs(copy.astype(int) - wanted).mean() < 1.0


def test_a_motion_scales_with_the_pictures() -> None:
    motion = Motion(turned(3, 1.1, 4, -2))
    # Edges, not pixel centres, are what lies over each other in pictures of two sizes.
    larger = (CORNERS + 0.5) * 2.5 - 0.5
    assert motion.scaled(2.5).move(larger) == pytest.approx((motion.move(CORNERS) + 0.5) * 2.5 - 0.5)


@pytest.mark.parametrize(("degrees", "zoom", "dx", "dy"), [(0, 1, 0.4, -0.3), (0.1, 1, 0, 0.2), (0, 1.003, -0.3, 0)])
def test_the_remaining_motion_is_told_in_spite_of_what_changed(
    degrees: float, zoom: float, dx: float, dy: float
) -> None:
    matrix = turned(degrees, zoom, dx, dy)
    before, now = view(UNMOVED), view(matrix)
    now[50:120, 60:160] = 90
    known: Grey = np.full_like(before, 255)
    known[:, :40] = 0
    motion = remaining_motion(evened(noisy(before, 1)), evened(noisy(now, 2)), known)
    assert np.abs(motion.move(CORNERS) - (CORNERS @ matrix[:, :2].T + matrix[:, 2])).max() < 0.4


def test_no_motion_remains_between_different_pictures_or_where_nothing_is_known() -> None:
    before, now = evened(view(UNMOVED)), evened(view(turned(0, 1, 0.5, 0)))
    assert remaining_motion(before, now, np.zeros_like(before)).is_still
    other = evened(view(UNMOVED, seed=9))
    motion = remaining_motion(before, other, np.full_like(before, 255))
    assert np.abs(motion.move(CORNERS) - CORNERS).max() < 4


def test_the_small_picture_takes_the_mean_of_a_block() -> None:
    picture: Image = np.zeros((1080, 1920, 3), np.uint8)
    picture[::2] = 200
    assert (shrink(Picture.from_array(picture)).small == 100).all()


def test_a_sliver_of_a_picture_is_made_small_too() -> None:
    greys = shrink(Picture.from_array(np.zeros((2, 4000, 3), np.uint8)))
    assert greys.small.shape == (1, 2000)
    assert greys.small_factor == 2
    motion = MotionEstimator().estimate(greys.small, greys.small.copy())
    assert motion is not None
    assert motion.is_still


def test_evened_pictures_are_alike_under_another_light() -> None:
    grey = view(UNMOVED)
    light = np.linspace(0.75, 1.0, SIZE[0])
    darker = np.round(grey * light + 10).astype(np.uint8)
    assert cv2.absdiff(evened(grey), evened(darker)).mean() < 4
    assert cv2.absdiff(grey, darker).mean() > 10


def test_evened_keeps_noise_on_a_plain_wall_small() -> None:
    even = evened(noisy(np.full((120, 200), 90, np.uint8), 1, sigma=1.0))
    assert even.std() < 4
    assert even.mean() == pytest.approx(128, abs=1)


def test_none_is_the_identity() -> None:
    assert Motion.none().is_still
    assert not Motion(np.array([[1, 0, 1e-9], [0, 1, 0]])).is_still
