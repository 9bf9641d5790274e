import itertools
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image as PilImage
from PIL import ImageDraw, ImageFont

from detector_consumer.views import (
    ON_ITS_WAY_S,
    RESTLESS_S,
    Album,
    Look,
    View,
    is_clearly_better,
    is_same_picture,
    news,
    sharpness,
    straightness,
    view_of,
)
from ocrstream.geometry import Polygon, box_polygon
from ocrstream.picture import Image

TIME = "08:15:42 GHB"
SUPERSAMPLED = 4


def line(
    text: str = TIME,
    height_px: int = 24,
    shift: tuple[float, float] = (0, 0),
    gain: float = 1.0,
    offset: float = 0.0,
    noise: float = 0.0,
    quality: int = 95,
    blur: tuple[float, float] = (0.5, 0.5),
    seed: int = 0,
) -> Image:
    """A crop of a line as a camera sees it: shifted and blurred before it becomes pixels, compressed after."""
    font = ImageFont.load_default(height_px * 0.9 * SUPERSAMPLED)
    width_px = round(height_px * 0.55 * len(text))
    canvas = PilImage.new("L", (width_px * SUPERSAMPLED, height_px * SUPERSAMPLED), 60)
    place = ((2 + shift[0]) * SUPERSAMPLED, (-0.5 + shift[1]) * SUPERSAMPLED)
    ImageDraw.Draw(canvas).text(place, text, fill=200, font=font)
    sigma_x, sigma_y = (sigma * SUPERSAMPLED for sigma in blur)
    light = cv2.GaussianBlur(np.asarray(canvas, np.float32), (0, 0), sigmaX=sigma_x, sigmaY=sigma_y)
    grey = cv2.resize(light, (width_px, height_px), interpolation=cv2.INTER_AREA) * gain + offset
    crop = grey[..., None] + np.random.default_rng(seed).normal(0, noise, (height_px, width_px, 3))
    pixels = np.clip(crop, 0, 255).astype(np.uint8)
    jpeg = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return np.asarray(cv2.imdecode(jpeg, cv2.IMREAD_COLOR), np.uint8)


def box_of(crop: Image) -> Polygon:
    return box_polygon(0, 0, crop.shape[1], crop.shape[0])


def view(crop: Image, *, is_whole: bool = True) -> View:
    return view_of(crop, box_of(crop), is_whole=is_whole)


def sharp(crop: Image) -> float:
    return sharpness(np.asarray(cv2.cvtColor(crop, cv2.COLOR_BGR2GRAY), np.uint8))


HARMLESS = [
    {},
    {"noise": 5.0},
    {"quality": 50},
    {"gain": 0.7, "offset": 15.0},
    {"gain": 1.25},
    {"shift": (0.5, 0.0)},
    {"shift": (-1.0, 0.5)},
    {"shift": (0.4, -0.9)},
    {"blur": (0.8, 0.8)},
    {"blur": (0.8, 0.5), "noise": 3.0, "quality": 70, "gain": 0.85, "shift": (0.6, -0.4)},
]


@pytest.mark.parametrize("height_px", [12, 16, 24, 40])
@pytest.mark.parametrize("change", HARMLESS, ids=str)
def test_light_noise_compression_blur_and_small_shifts_are_no_news(change: dict[str, Any], height_px: int) -> None:
    first, then = view(line(height_px=height_px, noise=2)), view(line(height_px=height_px, seed=1, **change))
    assert is_same_picture(first, then)
    assert is_same_picture(then, first)


@pytest.mark.parametrize("height_px", [12, 16, 24, 40])
@pytest.mark.parametrize("change", HARMLESS, ids=str)
def test_one_changed_digit_of_twelve_is_news(change: dict[str, Any], height_px: int) -> None:
    first = view(line(height_px=height_px, noise=2))
    for then in ("08:15:43 GHB", "08:16:42 GHB", "08:15:42 GMB"):
        assert not is_same_picture(first, view(line(then, height_px, seed=1, **change)))


def test_every_next_second_of_a_clock_is_news() -> None:
    seconds = [f"08:15:{second:02d} GHB" for second in range(60)]
    views = [view(line(text, 20, noise=3, quality=80, seed=n)) for n, text in enumerate(seconds)]
    found = [not is_same_picture(before, now) for before, now in itertools.pairwise(views)]
    assert sum(found) >= 57


def test_another_text_is_all_news() -> None:
    assert news(view(line("DEPARTURES")), view(line("ARRIVALS  "))) > 0.5


def test_a_plain_background_is_no_news_however_noisy() -> None:
    padded = line("GATE          ", noise=6)
    assert is_same_picture(view(padded), view(line("GATE          ", noise=6, seed=1)))


def test_a_line_of_other_proportions_is_another_picture_unless_the_frame_cuts_it_off() -> None:
    crop = line("ARRIVALS HALL B")
    part = crop[:, : crop.shape[1] * 2 // 3]
    assert not is_same_picture(view(crop), view(part))
    assert is_same_picture(view(crop), view(part, is_whole=False))
    assert is_same_picture(view(crop), view(crop[:, crop.shape[1] // 3 :], is_whole=False))
    assert is_same_picture(view(crop), view(crop[: crop.shape[0] // 2], is_whole=False))
    # Coming in, it shows more from time to time.
    assert not is_same_picture(view(part, is_whole=False), view(crop))
    other = line("DEPARTURES LEVEL 2")
    assert not is_same_picture(view(part, is_whole=False), view(other[:, : part.shape[1]], is_whole=False))
    # What was read whole is not read again in part.
    assert is_same_picture(view(crop), view(other[:, : part.shape[1]], is_whole=False))


def test_crops_of_a_pixel_can_be_compared() -> None:
    dot = view(np.full((1, 1, 3), 9, np.uint8))
    assert dot.score == 0
    assert is_same_picture(dot, dot)
    flat = view(np.full((20, 100, 3), 120, np.uint8))
    assert is_same_picture(flat, flat)
    assert not is_same_picture(flat, view(line("GATE", 20)[:, :100]))


def test_larger_is_better_up_to_where_it_does_not_matter() -> None:
    scores = [view(line(height_px=height)).score for height in (10, 16, 26, 40)]
    assert scores == sorted(scores)
    assert all(is_clearly_better(view(line(height_px=b)), view(line(height_px=a))) for a, b in ((10, 16), (16, 26)))
    assert not is_clearly_better(view(line(height_px=22)), view(line(height_px=20)))
    assert not is_clearly_better(view(line(height_px=90)), view(line(height_px=44)))


def test_sharper_is_better_whichever_way_it_is_blurred() -> None:
    crisp = sharp(line(height_px=32))
    for blur in ((1.5, 1.5), (2.5, 0.5), (0.5, 2.5)):
        assert sharp(line(height_px=32, blur=blur)) < 0.75 * crisp
    falling = [sharp(line(height_px=32, blur=(blur, blur))) for blur in (0.5, 1.0, 1.5, 2.0, 3.0)]
    assert falling == sorted(falling, reverse=True)
    assert is_clearly_better(view(line()), view(line(blur=(2.0, 2.0))))


@pytest.mark.parametrize("blur", [0.5, 2.0])
def test_noise_and_light_do_not_make_a_crop_sharp(blur: float) -> None:
    calm = sharp(line(height_px=32, blur=(blur, blur)))
    assert sharp(line(height_px=32, blur=(blur, blur), noise=4)) == pytest.approx(calm, abs=0.15)
    assert sharp(line(height_px=32, blur=(blur, blur), gain=0.6)) == pytest.approx(calm, abs=0.15)
    assert sharp(np.clip(np.random.default_rng(0).normal(120, 3, (32, 200, 3)), 0, 255).astype(np.uint8)) < 0.2


def test_straightness_of_shapes_known_by_hand() -> None:
    assert straightness(box_polygon(5, 5, 105, 25)) == pytest.approx(1)
    turned = ((0.0, 0.0), (60.0, 80.0), (44.0, 92.0), (-16.0, 12.0))
    assert straightness(turned) == pytest.approx(1)
    sheared = ((20.0, 0.0), (120.0, 0.0), (100.0, 20.0), (0.0, 20.0))
    assert straightness(sheared) == pytest.approx(np.sin(np.pi / 4))
    aside = ((0.0, 0.0), (100.0, 10.0), (100.0, 30.0), (0.0, 40.0))
    assert straightness(aside) == pytest.approx(0.5)
    assert straightness(((3.0, 3.0),) * 4) == 0


def test_a_whole_line_from_the_front_is_better_than_a_cut_one_from_the_side() -> None:
    crop = line()
    whole = view(crop)
    assert is_clearly_better(whole, view(crop, is_whole=False))
    width, height = crop.shape[1], crop.shape[0]
    aside = ((0.0, 0.0), (float(width), 8.0), (float(width), height - 4.0), (0.0, float(height)))
    assert is_clearly_better(whole, view_of(crop, aside))


LOOK_NS = 100_000_000


def looks(*views: View, album: Album | None = None, since: int = 0) -> list[Look]:
    """What an album makes of looks at one line, ten a second."""
    album = album or Album()
    return [album.look("t", each, (since + number) * LOOK_NS) for number, each in enumerate(views)]


def test_an_album_wants_what_is_new_and_nothing_twice() -> None:
    album = Album()
    same = [view(line(noise=3, seed=number, shift=(number % 3 * 0.3, 0))) for number in range(20)]
    assert looks(*same, album=album) == [Look.CHANGED] + [Look.SAME] * 19
    assert album.look("t2", same[0], 0).is_wanted


def test_an_album_wants_each_time_a_clock_shows_once_and_at_once() -> None:
    texts = [f"08:15:{second} GHB" for second in (42, 43, 44) for _ in range(5)]
    seen = looks(*(view(line(text, noise=2, seed=n)) for n, text in enumerate(texts)))
    assert [number for number, look in enumerate(seen) if look is Look.CHANGED] == [0, 5, 10]
    assert {look for number, look in enumerate(seen) if number % 5} == {Look.SAME}


def test_what_changes_soon_after_it_was_sent_is_waited_for_to_rest() -> None:
    seen = looks(*(view(line(text)) for text in (TIME, "ARRIVALS", "DEPARTED", "DEPARTED", "DEPARTED")))
    assert seen == [Look.CHANGED, Look.RESTLESS, Look.RESTLESS, Look.CHANGED, Look.SAME]


def dissolving(*texts: str, steps: int) -> list[View]:
    """Texts of one length, each of which becomes the next one in so many looks; the last one then stands."""
    seen = []
    for before, after in itertools.pairwise(line(text).astype(float) for text in texts):
        shares = (number / steps for number in range(steps))
        seen += [view(np.asarray(before * (1 - share) + after * share, np.uint8)) for share in shares]
    return [*seen, *[view(line(texts[-1]))] * 5]


def test_what_dissolves_is_sent_when_it_has_come_to_rest() -> None:
    seen = looks(*dissolving("ARRIVALS", "DEPARTED", steps=6))
    assert seen[0] is Look.CHANGED
    assert seen[4:] == [*[Look.RESTLESS] * 3, Look.CHANGED, *[Look.SAME] * 3]


def test_what_dissolves_on_and_on_is_not_waited_for_all_the_time() -> None:
    seen = looks(*dissolving("ARRIVALS", "DEPARTED", "PLATFORM", "BOARDING", "TERMINAL", "CANCELED", steps=6))
    sent = [number for number, look in enumerate(seen) if look is Look.CHANGED]
    assert len(sent) >= 3
    assert 10 * ON_ITS_WAY_S <= np.mean(np.diff(sent)) <= 10 * ON_ITS_WAY_S + 5


def test_a_longer_line_is_looked_at_twice_before_it_is_sent() -> None:
    seen = looks(*(view(line(text)) for text in ["GATE"] * 6 + ["GATE B12 AND C3"] * 4))
    assert [number for number, look in enumerate(seen) if look is Look.CHANGED] == [0, 7]
    assert seen[6] is Look.RESTLESS


def test_an_album_seldom_wants_who_walks_by() -> None:
    def look(left: int | None, seed: int) -> View:
        crop = line(noise=2, seed=seed).copy()
        if left is not None:
            coat = np.random.default_rng(9).integers(0, 90, (crop.shape[0], 60, 3), dtype=np.uint8)
            crop[:, left : left + 60] = cv2.GaussianBlur(coat, (0, 0), 2)[:, : crop.shape[1] - left]
        return view(crop)

    album = Album()
    assert looks(look(None, 0), album=album) == [Look.CHANGED]
    passing = looks(*(look(left, 1 + left) for left in range(0, 150, 20)), album=album, since=1)
    assert sum(each.is_wanted for each in passing) <= len(passing) / (10 * RESTLESS_S)


def test_an_album_wants_a_picture_that_never_rests_so_often() -> None:
    letters = np.random.default_rng(0).choice(list("ABCDEFGHKLMNPRSTUVXYZ"), (10, 8))
    seen = looks(*(view(line("".join(row))) for row in letters))
    assert [number for number, look in enumerate(seen) if look is Look.CHANGED] == [0, 3, 6, 9]
    assert RESTLESS_S == 0.3


def test_an_album_wants_a_clearly_better_look() -> None:
    heights = [14, 15, 16, 17, 18, 20, 22, 24, 27, 30, 34, 38, 44, 50]
    seen = looks(*(view(line(height_px=height)) for height in heights))
    assert seen[0] is Look.CHANGED
    assert set(seen[1:]) == {Look.SAME, Look.BETTER}
    assert 2 <= seen.count(Look.BETTER) <= 4


def test_an_album_forgets_what_it_is_told_to() -> None:
    album = Album()
    look = view(line())
    assert [album.look(track, look, 0).is_wanted for track in ("t1", "t2")] == [True, True]
    album.keep({"t1"})
    assert [album.look(track, look, 0).is_wanted for track in ("t1", "t2")] == [False, True]
