"""The gate opens for what changed, came into view or is due, and for nothing else."""

import io
from collections.abc import Iterator
from fractions import Fraction

import av
import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
import pytest
from numpy.typing import NDArray

from detector_consumer.gating import Changes, Gate, GateSettings, Why, draw
from detector_consumer.motion import MotionEstimator, shrink
from ocrstream.picture import Image, Picture

WIDTH, HEIGHT, FPS = 640, 352, 30
MARGIN = 64
NOISE = np.random.default_rng(0).standard_normal((HEIGHT + 97, WIDTH + 97, 3), dtype=np.float32)
TILE_PX = 32
ROWS, COLUMNS = HEIGHT // TILE_PX, WIDTH // TILE_PX


def hall(seed: int = 1, wide: int = WIDTH) -> Image:
    """A hall with posters, text and plain walls, larger than the frame by a margin on each side."""
    rng = np.random.default_rng(seed)
    size = (wide + 2 * MARGIN, HEIGHT + 2 * MARGIN)
    picture: Image = np.full((size[1], size[0], 3), (150, 155, 160), np.uint8)
    for _ in range(size[0] // 20):
        x, y, w, h = (int(value) for value in rng.integers([0, 0, 20, 15], [size[0], size[1], 110, 70]))
        cv2.rectangle(picture, (x, y), (x + w, y + h), [int(value) for value in rng.integers(30, 230, 3)], -1)
        cv2.putText(picture, f"Exit {x}", (x, y + 12), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (20, 20, 20), 1)
    return np.asarray(cv2.GaussianBlur(picture, (3, 3), 0), np.uint8)


def with_clock(picture: Image, text: str, x: int = 360, y: int = 200) -> Image:
    """A clock whose digits are 8 px high, as those 16 px high in a 1080p frame are in its fine copy."""
    drawn = PIL.Image.fromarray(picture)
    pen = PIL.ImageDraw.Draw(drawn)
    pen.rectangle((x - 6, y - 5, x + 48, y + 14), fill=(20, 22, 26))
    pen.text((x, y), text, fill=(225, 225, 225), font=PIL.ImageFont.load_default(11))
    return np.asarray(drawn)


def seen(picture: Image, dx: float = 0.0, dy: float = 0.0, degrees: float = 0.0, zoom: float = 1.0) -> Image:
    """What a camera sees that was moved against the scene."""
    matrix = cv2.getRotationMatrix2D((WIDTH / 2 + MARGIN, HEIGHT / 2 + MARGIN), degrees, zoom)
    matrix[:, 2] += np.array([dx - MARGIN, dy - MARGIN])
    return np.asarray(cv2.warpAffine(picture, matrix, (WIDTH, HEIGHT), flags=cv2.INTER_AREA), np.uint8)


def noisy(picture: Image, seed: int, sigma: float = 2.0) -> Image:
    """Sensor noise: another piece of one large field for each seed, which is much quicker than drawing it anew."""
    rng = np.random.default_rng(seed)
    y, x = rng.integers(0, 97, 2)
    height, width = picture.shape[:2]
    noise = NOISE[y : y + height, x : x + width] * np.float32(sigma)
    return np.clip(np.round(picture + noise), 0, 255).astype(np.uint8)


def through_h264(pictures: list[Image]) -> Iterator[Image]:
    """The pictures as a camera would send them: with a key frame every third of a second, which makes them pump."""
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "28", "preset": "veryfast", "g": "10"})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for index, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = index, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as source:
        for frame in source.decode(video=0):
            yield np.asarray(frame.to_ndarray(format="bgr24"), np.uint8)


class Watcher:
    """A gate with all that leads up to it, and the time."""

    def __init__(self, settings: GateSettings | None = None) -> None:
        self.gate = Gate(settings)
        self._estimator = MotionEstimator()
        self._before: NDArray[np.uint8] | None = None
        self.index = 0

    def look(self, picture: Image) -> Changes:
        greys = shrink(Picture.from_array(picture))
        motion = None if self._before is None else self._estimator.estimate(self._before, greys.small)
        changes = self.gate.look(greys, motion, round(self.index * 1e9 / FPS))
        self._before = greys.small
        self.index += 1
        return changes

    def know(self, picture: Image, sigma: float = 2.0) -> None:
        """See a scene, and have it examined, until the gate has learnt how it flickers."""
        for seed in range(8):
            self.look(noisy(picture, 1000 + seed, sigma))
            self.gate.examined()


def tiles_around(x: float, y: float, width: float, height: float) -> NDArray[np.bool_]:
    tiles = np.zeros((ROWS, COLUMNS), bool)
    tiles[int(y) // 32 : int(y + height) // 32 + 1, int(x) // 32 : int(x + width) // 32 + 1] = True
    return tiles


def test_everything_is_new_until_it_was_examined() -> None:
    watcher, picture = Watcher(), seen(hall())
    for seed in range(3):
        changes = watcher.look(noisy(picture, seed))
        assert changes.why.shape == (ROWS, COLUMNS)
        assert (changes.why == Why.NEW).all()
        assert changes.share == 1.0
    watcher.gate.examined()
    assert watcher.look(noisy(picture, 9)).share == 0.0


def test_noise_opens_nothing() -> None:
    watcher, picture = Watcher(), seen(hall())
    watcher.know(picture, sigma=4.0)
    assert max(watcher.look(noisy(picture, seed, sigma=4.0)).share for seed in range(40)) == 0.0


def test_compression_opens_nothing() -> None:
    watcher, picture = Watcher(), seen(hall())
    shares = []
    for index, frame in enumerate(through_h264([noisy(picture, seed) for seed in range(60)])):
        shares.append(watcher.look(frame).share)
        if index < 15:
            watcher.gate.examined()
    assert max(shares[15:]) < 0.01
    assert np.mean(shares[15:]) < 0.001


def test_pictures_of_changing_jpeg_quality_open_nothing() -> None:
    watcher, picture = Watcher(), seen(hall())
    shares = []
    for index in range(40):
        _, data = cv2.imencode(".jpg", noisy(picture, index), [cv2.IMWRITE_JPEG_QUALITY, (85, 70, 80)[index % 3]])
        shares.append(watcher.look(np.asarray(cv2.imdecode(data, cv2.IMREAD_COLOR), np.uint8)).share)
        if index < 10:
            watcher.gate.examined()
    assert max(shares[10:]) < 0.01
    assert np.mean(shares[10:]) < 0.001


def test_slow_changes_of_exposure_open_nothing() -> None:
    watcher, picture = Watcher(), seen(hall())
    watcher.know(picture)
    for index in range(60):
        darker = picture * (1 - 0.3 * index / 60) + 10 * index / 60
        assert watcher.look(noisy(darker.astype(np.uint8), index)).share < 0.01


def test_a_small_changed_digit_opens_its_tile_alone() -> None:
    watcher, picture = Watcher(), hall()
    watcher.know(seen(with_clock(picture, "09:41:05")))
    found = [watcher.look(noisy(seen(with_clock(picture, "09:41:06")), seed)).tiles for seed in range(3)]
    digit = tiles_around(360 + 36 - MARGIN, 200 - MARGIN, 8, 12)
    assert (found[2] & digit).any()
    assert not (found[2] & ~digit).any()


def test_a_small_changed_digit_opens_its_tile_beside_a_masked_zone() -> None:
    watcher, picture = Watcher(GateSettings(masks=(((0, 0), (1, 0), (1, 0.2), (0, 0.2)),))), hall()
    watcher.know(seen(with_clock(picture, "09:41:05")))
    found = [watcher.look(noisy(seen(with_clock(picture, "09:41:06")), seed)).tiles for seed in range(3)]
    assert (found[2] & tiles_around(360 + 36 - MARGIN, 200 - MARGIN, 8, 12)).any()


def test_a_small_changed_digit_opens_its_tile_in_a_shaking_hand() -> None:
    watcher, picture = Watcher(), hall()
    quiet, opened = [], []
    for index in range(60):
        text = "09:41:05" if index < 40 else "09:41:06"
        dx, dy = 6 * np.sin(index / 6), 4 * np.sin(index / 5)
        frame = noisy(seen(with_clock(picture, text), dx, dy, degrees=0.4 * np.sin(index / 7)), index)
        changes = watcher.look(frame)
        clock = tiles_around(350 - MARGIN + dx, 190 - MARGIN + dy, 60, 30)
        if index < 15:
            watcher.gate.examined()
        elif index < 40:
            quiet.append(changes.share)
        elif index < 49:
            opened.append(bool((changes.tiles & clock).any()))
    assert np.mean(quiet) < 0.02
    assert any(opened)


def grains(picture: Image, seed: int) -> Image:
    """A picture in which a codec has drawn a few places a little otherwise."""
    drawn = picture.copy()
    for x, y in np.random.default_rng(seed).integers([16, 16], [WIDTH - 16, HEIGHT - 16], (6, 2)).tolist():
        drawn[y : y + 3, x : x + 3] = np.clip(drawn[y : y + 3, x : x + 3].astype(int) + 9, 0, 255)
    return drawn


def test_what_is_looked_at_in_vain_here_and_there_opens_less_and_less() -> None:
    plain: Image = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)

    def opened(*, learns: bool) -> list[int]:
        watcher = Watcher()
        watcher.know(plain, sigma=0.2)
        counts = []
        for seed in range(20):
            for _ in range(2):
                changes = watcher.look(grains(plain, seed))
            counts.append(int(changes.tiles.sum()))
            if changes.tiles.any():
                watcher.gate.examined(changes.tiles)
                if learns:
                    watcher.gate.in_vain()
        return counts

    assert sum(opened(learns=True)[3:]) < 0.1 * sum(opened(learns=False)[3:])


def test_text_opens_where_noise_was_looked_at_in_vain() -> None:
    watcher, picture = Watcher(), seen(hall())
    watcher.look(picture)
    watcher.gate.examined()
    for seed in range(10):
        for _ in range(2):
            watcher.look(grains(picture, seed))
        watcher.gate.examined()
        watcher.gate.in_vain()
    clock = np.asarray(seen(with_clock(hall(), "09:41:05")), np.uint8)
    watcher.look(clock)
    assert (watcher.look(clock).tiles & tiles_around(360 - MARGIN, 200 - MARGIN, 40, 12)).any()


def test_slow_change_adds_up() -> None:
    watcher, picture = Watcher(), seen(hall())
    written = picture.copy()
    cv2.putText(written, "PLATFORM", (200, 200), cv2.FONT_HERSHEY_SIMPLEX, 0.8, (10, 10, 10), 2)
    watcher.know(picture)
    shares = []
    for index in range(90):
        fading = cv2.addWeighted(picture, 1 - index / 90, written, index / 90, 0)
        changes = watcher.look(noisy(np.asarray(fading, np.uint8), index))
        shares.append(changes.share)
    word = tiles_around(195, 180, 140, 25)
    assert shares[3] == 0.0
    assert (changes.tiles & word).sum() >= 4
    assert not (changes.tiles & ~word).any()


def test_what_went_back_to_how_it_was_is_quiet_again() -> None:
    watcher, picture = Watcher(), hall()
    watcher.know(seen(picture))
    passing = [watcher.look(noisy(seen(with_clock(picture, "12:00:00")), seed)) for seed in range(3)]
    assert passing[-1].share > 0
    assert [watcher.look(noisy(seen(picture), seed)) for seed in range(4)][-1].share == 0.0


def test_a_pan_opens_what_comes_in_and_coming_back_opens_nothing() -> None:
    watcher, picture = Watcher(), hall(wide=WIDTH + 100)
    watcher.know(seen(picture))
    for index in range(1, 26):
        changes = watcher.look(noisy(seen(picture, dx=-4.0 * index), index))
    assert (changes.why[2:-2, -3:] == Why.NEW).mean() > 0.6
    assert changes.tiles[:, : COLUMNS - 5].mean() < 0.05
    watcher.gate.examined()
    shares = [watcher.look(noisy(seen(picture, dx=-4.0 * index), index)).share for index in range(24, -1, -1)]
    assert np.mean(shares) < 0.03


def test_a_long_pan_keeps_what_it_knows() -> None:
    watcher, picture = Watcher(), hall(wide=WIDTH + 1200)
    watcher.know(seen(picture))
    shares = []
    for index in range(1, 101):
        changes = watcher.look(noisy(seen(picture, dx=-10.0 * index), index))
        shares.append(changes.share)
        if index % 5 == 0:
            watcher.gate.examined(changes.tiles)
    # A tile and a half come in between two examinations, over and over.
    assert 0.01 < np.mean(shares) < 0.15


def test_a_zoom_is_followed() -> None:
    watcher, picture = Watcher(), hall()
    watcher.know(seen(picture))
    shares = []
    for index in range(1, 61):
        changes = watcher.look(noisy(seen(picture, zoom=1 + index / 120), index))
        shares.append(changes.share)
        if index % 15 == 0:
            watcher.gate.examined(changes.tiles)
    assert np.mean(shares) < 0.25


def test_a_cut_makes_everything_new() -> None:
    watcher = Watcher()
    watcher.know(seen(hall()))
    assert (watcher.look(seen(hall(seed=5))).why == Why.NEW).all()


def test_what_was_not_examined_for_long_is_due() -> None:
    watcher, picture = Watcher(GateSettings(examine_every_s=1.0)), seen(hall())
    watcher.know(picture)
    left = np.zeros((ROWS, COLUMNS), bool)
    left[:, :5] = True
    for seed in range(28):
        assert watcher.look(noisy(picture, seed)).share == 0.0
    watcher.gate.examined(left)
    for _ in range(3):
        changes = watcher.look(noisy(picture, 1))
    assert (changes.why[~left] == Why.DUE).all()
    assert (changes.why[left] == Why.QUIET).all()


def test_only_what_was_examined_is_quiet() -> None:
    watcher, picture = Watcher(), seen(hall())
    watcher.look(picture)
    some = np.zeros((ROWS, COLUMNS), bool)
    some[2:4, 3:9] = True
    watcher.gate.examined(some)
    assert np.array_equal(watcher.look(noisy(picture, 1)).tiles, ~some)


def test_a_masked_zone_is_never_looked_at() -> None:
    zone = ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0))
    watcher, picture = Watcher(GateSettings(examine_every_s=0.5, masks=(zone,))), seen(hall())
    for index in range(40):
        frame = noisy(picture, index)
        if index > 10:
            frame[100:200, 50 + WIDTH // 2 : 250 + WIDTH // 2] = 255 * (index % 2)
        changes = watcher.look(frame)
        assert not changes.tiles[:, COLUMNS // 2 :].any()
        if index == 5:
            watcher.gate.examined()
    assert (changes.why[:, : COLUMNS // 2] == Why.DUE).all()


def test_a_masked_zone_stays_where_it_is_when_the_camera_moves() -> None:
    zone = ((0.0, 0.0), (1.0, 0.0), (1.0, 0.5), (0.0, 0.5))
    watcher, picture = Watcher(GateSettings(masks=(zone,))), hall()
    for index in range(12):
        changes = watcher.look(noisy(seen(picture, dx=-3.0 * index), index))
        assert not changes.tiles[: ROWS // 2 - 1].any()
        assert changes.tiles[ROWS // 2 + 1 : -1].mean() > 0.9


@pytest.mark.parametrize("size", [(320, 200), (1300, 40), (33, 31), (2, 2)])
def test_frames_of_any_size_are_looked_at(size: tuple[int, int]) -> None:
    watcher = Watcher()
    watcher.look(seen(hall()))
    picture = np.asarray(cv2.resize(hall(), size, interpolation=cv2.INTER_AREA), np.uint8)
    changes = watcher.look(picture)
    assert changes.share == 1.0
    watcher.gate.examined()
    assert watcher.look(picture).share == 0.0


def test_a_frame_from_before_the_last_one_starts_afresh() -> None:
    watcher, picture = Watcher(), seen(hall())
    watcher.know(picture)
    watcher.index = 0
    assert watcher.look(picture).share == 1.0


def test_nothing_can_be_examined_before_a_frame_was_looked_at() -> None:
    with pytest.raises(ValueError, match="no frame was looked at"):
        Gate().examined()


def test_tiles_of_another_layout_are_refused() -> None:
    watcher = Watcher()
    watcher.look(seen(hall()))
    with pytest.raises(ValueError, match=r"expected \(11, 20\) tiles"):
        watcher.gate.examined(np.ones((3, 4), bool))


def changes_of(*rows: list[int]) -> Changes:
    return Changes(np.array(rows, np.uint8), 64, (250, 180))


def test_boxes_lie_around_groups_of_tiles_within_the_frame() -> None:
    changes = changes_of([3, 3, 0, 0], [0, 0, 0, 0], [0, 0, 1, 2])
    assert sorted(changes.boxes()) == [(0, 0, 128, 64), (128, 128, 250, 180)]
    assert changes.share == pytest.approx(4 / 12)


def test_a_text_that_is_followed_explains_the_change_under_it_and_nothing_else() -> None:
    changes = changes_of([3, 3, 3, 0], [2, 1, 0, 0], [0, 0, 0, 3])
    left = changes.unexplained_by([((0, 0), (140, 0), (140, 130), (0, 130))])
    assert left.why.tolist() == [[0, 0, 3, 0], [2, 1, 0, 0], [0, 0, 0, 3]]


def test_the_decisions_are_painted_over_the_frame() -> None:
    picture: Image = np.full((180, 250, 3), 100, np.uint8)
    painted = draw(picture, changes_of([3, 0, 0, 2], [0, 0, 0, 0], [0, 1, 0, 0]))
    assert (picture == 100).all()
    assert painted[100, 100].tolist() == [50, 50, 50]
    assert painted[30, 30].tolist() == [100, 100, 100]
    edges = [painted[30, 1], painted[30, 193], painted[150, 65]]
    assert [int(np.argmax(edge)) for edge in edges] == [2, 0, 2]
    assert edges[0][1] < 100 < edges[2][1]
