"""What a moving camera writes into its picture is told from what it sees, and from what moves by itself."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import cv2
import numpy as np
import pytest

from detector_consumer.motion import Grey, MotionEstimator
from detector_consumer.overlays import LEAST_S, Overlays
from ocrstream.by_source import Zone
from ocrstream.geometry import Box, Polygon, box_polygon

SIZE = (480, 270)
FPS = 15
SCALE = 0.5
"""Lines are told in a frame twice as large as its small picture."""
REACH = 140
"""So far the wall goes on beyond the frame, on each side."""

Path = Callable[[float], tuple[float, float]]
"""Where a camera looks at a time, in pixels from the wall's middle."""

CAPTION: Box = (20, 14, 140, 28)
SIGN: Box = (200, 120, 290, 136)


def wall(seed: int = 1) -> Grey:
    """A wall with something on it everywhere."""
    rng = np.random.default_rng(seed)
    size = (SIZE[0] + 2 * REACH, SIZE[1] + 2 * REACH)
    coarse = rng.uniform(100, 210, (size[1] // 12, size[0] // 12)).astype(np.float32)
    picture = np.clip(cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC), 0, 255).astype(np.uint8)
    for x, y, w, h, level in rng.integers([0, 0, 8, 8, 60], [*size, 40, 30, 240], (200, 5)).tolist():
        cv2.rectangle(picture, (x, y), (x + w, y + h), level, -1)
    return np.asarray(cv2.GaussianBlur(picture, (3, 3), 0), np.uint8)


def write(picture: Grey, box: Box, text: str, light: int = 250, dark: int = 10) -> None:
    """Letters with an outline, as cameras write them; the wall is seen between them."""
    x0, y0, _, y1 = (round(side) for side in box)
    scale = (y1 - y0) / 22
    place = (x0 + 1, y1 - 2)
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, dark, 3, cv2.LINE_AA)
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, light, 1, cv2.LINE_AA)


def moved(box: Box, x: float, y: float) -> Box:
    return box[0] + x, box[1] + y, box[2] + x, box[3] + y


def shaking(at_s: float) -> tuple[float, float]:
    return 40 * math.sin(2 * at_s), 25 * math.sin(3 * at_s)


def one_way(at_s: float) -> tuple[float, float]:
    return -120 + 40 * at_s, 0.0


def resting(_at_s: float) -> tuple[float, float]:
    return 0.0, 0.0


class Camera:
    """Films a wall with a sign on it, writes a caption over it, and has its overlays learned."""

    def __init__(self, path: Path, *, scene: Grey | None = None) -> None:
        self.overlays = Overlays()
        self.estimator, self.before = MotionEstimator(), np.zeros((0, 0), np.uint8)
        self.path, self.scene = path, wall() if scene is None else scene
        write(self.scene, moved(SIGN, REACH, REACH), "PLATFORM 7")
        self.frames = 0

    def film(
        self,
        seconds: float,
        caption: Callable[[float], str] = lambda _at_s: "2026-11-28 12:04",
        others: Callable[[Grey, float], Sequence[Box]] = lambda _picture, _at_s: (),
        *,
        is_cut: bool = False,
    ) -> list[tuple[Zone, ...]]:
        """Film on; the zones after each frame.

        Args:
            seconds: for how long.
            caption: what is written over the frame at a time; nothing where it is empty.
            others: draws what else there is, and tells where its lines are.
            is_cut: whether there is a cut before.
        """
        zones = []
        for _ in range(round(seconds * FPS)):
            at_s = self.frames / FPS
            picture, lines = self._frame(at_s, caption(at_s))
            lines += others(picture, at_s)
            noise = np.random.default_rng(self.frames).normal(0, 1.5, picture.shape)
            grey = np.clip(picture + noise, 0, 255).astype(np.uint8)
            motion = None if is_cut or not self.frames else self.estimator.estimate(self.before, grey)
            is_cut = False
            self.overlays.see(grey, motion, SCALE, [doubled(line) for line in lines], round(at_s * 1e9))
            zones.append(self.overlays.zones)
            self.before, self.frames = grey, self.frames + 1
        return zones

    def _frame(self, at_s: float, caption: str) -> tuple[Grey, list[Box]]:
        x, y = self.path(at_s)
        matrix = np.array([[1, 0, -REACH - x], [0, 1, -REACH - y]], np.float64)
        picture = cv2.warpAffine(self.scene, matrix, SIZE).astype(np.uint8)
        lines = [moved(SIGN, -x, -y)]
        if caption:
            write(picture, CAPTION, caption)
            lines.append(CAPTION)
        return picture, lines


def doubled(box: Box) -> Polygon:
    return box_polygon(*(side / SCALE for side in box))


def holds(zone: Zone, box: Box) -> bool:
    """Whether a zone lies around a box of the small picture, and not much further."""
    x0, y0, x1, y1 = (zone[0][0] * SIZE[0], zone[0][1] * SIZE[1], zone[2][0] * SIZE[0], zone[2][1] * SIZE[1])
    inside = x0 <= box[0] and y0 <= box[1] and x1 >= box[2] and y1 >= box[3]
    height = box[3] - box[1]
    return inside and x1 - x0 < box[2] - box[0] + 3 * height and y1 - y0 < 2.5 * height


def test_a_caption_that_stays_while_the_scene_goes_by_is_learned_and_what_moves_is_not() -> None:
    def ticker(picture: Grey, at_s: float) -> list[Box]:
        box = moved((0, 230, 120, 246), 460 - 60 * at_s, 0)
        picture[225:252] = 60
        write(picture, box, "DELAYED 20 MIN")
        return [box]

    zones = Camera(shaking).film(6, others=ticker)
    first = next(number for number, found in enumerate(zones) if found)
    assert LEAST_S <= first / FPS < 5
    (zone,) = zones[-1]
    assert holds(zone, CAPTION)


def test_before_a_camera_at_rest_nothing_is_learned() -> None:
    assert not any(Camera(resting).film(6))


def test_a_pan_in_one_direction_is_enough_where_all_of_the_frame_goes_along() -> None:
    (zone,) = Camera(one_way).film(5.5)[-1]
    assert holds(zone, CAPTION)


def test_digits_that_change_are_the_same_overlay() -> None:
    zones = Camera(shaking).film(9, lambda at_s: f"28.11. 12:04:{10 + int(at_s):02d}")
    (zone,) = zones[-1]
    assert holds(zone, CAPTION)
    assert sum(before != after for before, after in pairwise(zones)) == 1


def test_a_large_thing_that_passes_by_makes_no_overlay_of_a_sign_on_the_wall() -> None:
    train = wall(7)

    def passing(picture: Grey, at_s: float) -> list[Box]:
        # It fills most of the picture, there and back, and is taken for the scene.
        left = round(100 + 90 * math.sin(1.3 * at_s))
        picture[60:, :] = train[60 : SIZE[1], left : left + SIZE[0]]
        write(picture, SIGN, "TRACK 12")
        return []

    camera = Camera(resting)
    camera.scene = wall(3)
    # The caption stands on the wall above; nothing there goes along.
    assert not any(camera.film(10, others=passing))


def test_what_a_camera_follows_is_no_overlay() -> None:
    plate = np.full((60, 150), 200, np.uint8)
    write(plate, (20, 20, 130, 38), "MILK 24")

    def vehicle(picture: Grey, at_s: float) -> list[Box]:
        # Whoever follows it by hand keeps it in the middle, a few pixels here and there.
        x, y = 160 + 3 * math.sin(2.1 * at_s), 100 + 2 * math.sin(3.3 * at_s)
        matrix = np.array([[1, 0, x], [0, 1, y]], np.float64)
        cv2.warpAffine(plate, matrix, SIZE, dst=picture, borderMode=cv2.BORDER_TRANSPARENT)
        return [moved((20, 20, 130, 38), x, y)]

    assert not any(Camera(one_way).film(5.5, lambda _at_s: "", vehicle))
    assert not any(Camera(shaking).film(6, lambda _at_s: "", vehicle))


def test_an_overlay_outlives_a_cut_but_no_time_that_goes_back_and_no_other_size() -> None:
    camera = Camera(shaking)
    known = camera.film(5)[-1]
    assert len(known) == 1
    camera.scene = wall(5)
    assert set(camera.film(1, is_cut=True)) == {known}
    smaller = camera.before[:200]
    for grey, at_s in ((smaller, 6.0), (camera.before, 1.0)):
        assert camera.overlays.see(grey, None, SCALE, [], round(at_s * 1e9))
        assert camera.overlays.zones == ()
        camera = Camera(shaking)
        assert len(camera.film(5)[-1]) == 1


def test_an_overlay_that_is_no_longer_there_is_forgotten_when_the_camera_moves() -> None:
    camera = Camera(shaking)
    assert len(camera.film(5)[-1]) == 1
    camera.path = resting
    assert len(camera.film(5, lambda _at_s: "")[-1]) == 1
    camera.path = shaking
    assert camera.film(6, lambda _at_s: "")[-1] == ()


@pytest.mark.parametrize("seed", [11])
def test_the_same_frames_give_the_same_zones(seed: int) -> None:
    first, second = (Camera(shaking, scene=wall(seed)).film(4.5) for _ in range(2))
    assert first == second
    assert len(first[-1]) == 1
