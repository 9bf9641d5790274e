"""What the built-in camera looks at: a station hall with signs, a departure board, a train, a ticker and a clock.

`DemoScene` renders any frame on its own, the same for the same seed, and knows exactly where each text is in it; so
the demo, the tests and the benchmarks share one camera with a ground truth.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import NamedTuple

import cv2
import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import NDArray

from ocrstream.geometry import Box, Polygon, box_polygon, to_polygon
from ocrstream.picture import Image

WIDTH_PX, HEIGHT_PX = 1280, 720
FPS = 30.0

SIGN_PERIOD_S = 6.0
"""A new sign comes down this often; every third one says BOARDING, the first one does."""

_MARGIN_PX = 40
_CANVAS_WH = (WIDTH_PX + 2 * _MARGIN_PX, HEIGHT_PX + 2 * _MARGIN_PX)
_NOISE_SIGMA = 3.5
_NOISE_SHIFT_PX = 64
_SLIDE_PERIOD_S = 5.0
_TRAIN_PERIOD_S = 11.0
_TRAIN_SPEED_PX_S = 210.0
_TICKER_SPEED_PX_S = 120.0
_DESCENT_S = 0.6

Colour = tuple[int, int, int]
"""RGB, 0 to 255."""


class TruthLine(NamedTuple):
    """One text of one frame.

    Attributes:
        text: as it is written.
        polygon: around its ink, in frame pixels; parts may lie outside the frame.
        visible: the share of the polygon's area that can be seen, above 0 and up to 1.
    """

    text: str
    polygon: Polygon
    visible: float


@dataclass(frozen=True)
class _Sprite:
    """A pre-drawn part of the scene.

    Attributes:
        image: ``(H, W, 4) uint8 BGRX``: OpenCV warps four channels in 2 ms where three take 5.
        mask: ``(H, W) uint8``, 255 where the sprite covers what is behind it; None for all of it.
        texts: each text with the box of its ink, in the sprite's pixels.
    """

    image: Image
    mask: NDArray[np.uint8] | None
    texts: tuple[tuple[str, Box], ...]


class _Placed(NamedTuple):
    """A sprite at its place on the canvas, seen only through ``window`` (``x0, y0, x1, y1``)."""

    sprite: _Sprite
    x: int
    y: int
    window: tuple[int, int, int, int]


class DemoScene:
    """The scene in front of the built-in camera.

    Args:
        seed: decides the order of the signs, the shake and the noise.
        fps: frames a second; frame ``i`` shows the time ``i / fps``.
        clock_s: what the clock on the wall shows at frame 0, seconds since midnight.
    """

    def __init__(self, seed: int = 1, fps: float = FPS, clock_s: float = 9 * 3600 + 41 * 60) -> None:
        rng = np.random.default_rng(seed)
        self.seed = seed
        self.fps = fps
        self._clock_s = clock_s
        self._hall = _draw_hall()
        self._slides = [_draw_slide(*slide) for slide in _SLIDES]
        self._boarding = [_draw_sign("BOARDING", detail, _AMBER, _INK) for detail in _BOARDING_DETAILS]
        self._signs = [_draw_sign(*_SIGNS[i]) for i in rng.permutation(len(_SIGNS))]
        self._rod = _Drawing(6, _SIGN_Y, (92, 96, 102)).sprite()
        self._trains = [_draw_train(*train) for train in _TRAINS]
        self._ticker = _draw_ticker(_TICKER)
        self._digits = {character: _draw_digit(character) for character in "0123456789:"}
        self._phases = rng.uniform(0, 2 * math.pi, 5)
        self._brighter, self._darker = _draw_noise(rng)

    def render(self, index: int) -> Image:
        """Draw frame ``index``: ``(720, 1280, 3) uint8 BGR``."""
        canvas = self._hall.image.copy()
        for placed in self._placed(index / self.fps):
            _paste(canvas, placed)
        shake = self._shake(index / self.fps)
        frame = cv2.cvtColor(cv2.warpAffine(canvas, shake, (WIDTH_PX, HEIGHT_PX)), cv2.COLOR_BGRA2BGR)
        # The noise repeats itself only after 64 * 64 frames, and costs two saturating additions.
        y, x = (index * 29) % _NOISE_SHIFT_PX, (index * 41 + index // _NOISE_SHIFT_PX) % _NOISE_SHIFT_PX
        area = np.s_[y : y + HEIGHT_PX, x : x + WIDTH_PX]
        cv2.add(frame, self._brighter[area], dst=frame)
        cv2.subtract(frame, self._darker[area], dst=frame)
        return frame.astype(np.uint8, copy=False)

    def truth(self, index: int) -> list[TruthLine]:
        """Every text that can be seen in frame ``index``, wholly or in part."""
        shake = self._shake(index / self.fps)
        lines = []
        for placed in [_Placed(self._hall, 0, 0, (0, 0, *_CANVAS_WH)), *self._placed(index / self.fps)]:
            for text, (x0, y0, x1, y1) in placed.sprite.texts:
                box = (x0 + placed.x, y0 + placed.y, x1 + placed.x, y1 + placed.y)
                polygon = _warp(box, shake)
                visible = _visible_share(box, polygon, placed.window, shake)
                if visible > 0:
                    lines.append(TruthLine(text, to_polygon(polygon), visible))
        return lines

    def _placed(self, time_s: float) -> list[_Placed]:
        """The moving parts at a time, back to front; none covers another's text."""
        everywhere = (0, 0, *_CANVAS_WH)
        placed = [_Placed(self._slides[int(time_s / _SLIDE_PERIOD_S) % len(self._slides)], *_SLIDE_XY, everywhere)]
        placed += self._placed_clock(time_s)
        placed += self._placed_sign(time_s)
        train = self._trains[int(time_s / _TRAIN_PERIOD_S) % len(self._trains)]
        train_x = int((time_s % _TRAIN_PERIOD_S) * _TRAIN_SPEED_PX_S) - train.image.shape[1]
        placed.append(_Placed(train, train_x, _TRAIN_Y, everywhere))
        return placed + self._placed_ticker(time_s)

    def _placed_sign(self, time_s: float) -> list[_Placed]:
        number, phase_s = divmod(time_s, SIGN_PERIOD_S)
        turn, place = divmod(int(number), 3)
        if place == 0:
            sign = self._boarding[turn % len(self._boarding)]
        else:
            sign = self._signs[(turn * 2 + place - 1) % len(self._signs)]
        down = min(phase_s, SIGN_PERIOD_S - phase_s, _DESCENT_S) / _DESCENT_S
        hidden_y = _MARGIN_PX - sign.image.shape[0] - 10
        eased = down * down * (3 - 2 * down)
        y = round(hidden_y + (_SIGN_Y - hidden_y) * eased)
        below_ceiling = (0, _MARGIN_PX + 22, *_CANVAS_WH)
        rod_y = y - self._rod.image.shape[0]
        rods = [_Placed(self._rod, _SIGN_CENTRE_X + dx, rod_y, below_ceiling) for dx in (-180, 174)]
        return [_Placed(sign, _SIGN_CENTRE_X - sign.image.shape[1] // 2, y, below_ceiling), *rods]

    def _placed_clock(self, time_s: float) -> list[_Placed]:
        now = int(self._clock_s + time_s) % 86_400
        x, y = _CLOCK_XY
        placed, ink = [], []
        for character in f"{now // 3600:02}:{now // 60 % 60:02}:{now % 60:02}":
            digit = self._digits[character]
            placed.append(_Placed(replace(digit, texts=()), x, y, (0, 0, *_CANVAS_WH)))
            ink.append((character, x, digit.texts[0][1]))
            x += digit.image.shape[1]
        start, end = ink[0][1] + ink[0][2][0], ink[-1][1] + ink[-1][2][2]
        top, bottom = min(box[1] for _, _, box in ink), max(box[3] for _, _, box in ink)
        text = "".join(character for character, _, _ in ink)
        # The clock is one text to a reader, so its truth is one box over all of its digits.
        last = placed[-1]
        box = (start - last.x, top, end - last.x, bottom)
        placed[-1] = last._replace(sprite=replace(last.sprite, texts=((text, box),)))
        return placed

    def _placed_ticker(self, time_s: float) -> list[_Placed]:
        x0, y0, x1, y1 = _TICKER_WINDOW
        length = self._ticker.image.shape[1]
        x = x1 - int(time_s * _TICKER_SPEED_PX_S) % length  # where the strip begins; behind its end it begins again
        return [_Placed(self._ticker, x - length * turn, y0, (x0, y0, x1, y1)) for turn in (0, 1)]

    def _shake(self, time_s: float) -> NDArray[np.float64]:
        """The hand's movement: ``(2, 3)``, canvas pixels to frame pixels."""
        a, b, c, d, e = self._phases
        turn = 2 * math.pi * time_s
        dx = 5.0 * math.sin(0.55 * turn + a) + 1.5 * math.sin(1.7 * turn + b)
        dy = 4.0 * math.sin(0.70 * turn + c) + 1.5 * math.sin(2.1 * turn + d)
        matrix = cv2.getRotationMatrix2D((_CANVAS_WH[0] / 2, _CANVAS_WH[1] / 2), 0.3 * math.sin(0.4 * turn + e), 1.0)
        shift = np.array([[0, 0, dx - _MARGIN_PX], [0, 0, dy - _MARGIN_PX]], dtype=np.float64)
        return np.add(matrix, shift, dtype=np.float64)


def _paste(canvas: Image, placed: _Placed) -> None:
    """Copy the part of a sprite that is on the canvas and in its window."""
    height, width = placed.sprite.image.shape[:2]
    x0, y0 = max(placed.x, placed.window[0]), max(placed.y, placed.window[1])
    x1, y1 = min(placed.x + width, placed.window[2]), min(placed.y + height, placed.window[3])
    if x1 <= x0 or y1 <= y0:
        return
    part = np.s_[y0 - placed.y : y1 - placed.y, x0 - placed.x : x1 - placed.x]
    if placed.sprite.mask is None:
        canvas[y0:y1, x0:x1] = placed.sprite.image[part]
    else:
        cv2.copyTo(placed.sprite.image[part], placed.sprite.mask[part], canvas[y0:y1, x0:x1])


def _warp(box: Box, shake: NDArray[np.float64]) -> NDArray[np.float64]:
    """The four corners of a canvas box in frame pixels, ``(4, 2)``."""
    # Boxes count pixel edges, warpAffine counts pixel centres: half a pixel apart.
    corners = np.array(box_polygon(*box)) - 0.5
    return corners @ shake[:, :2].T + shake[:, 2] + 0.5


def _visible_share(
    box: Box, polygon: NDArray[np.float64], window: tuple[int, int, int, int], shake: NDArray[np.float64]
) -> float:
    clipped = (max(box[0], window[0]), max(box[1], window[1]), min(box[2], window[2]), min(box[3], window[3]))
    if clipped[0] >= clipped[2] or clipped[1] >= clipped[3]:
        return 0.0
    frame = np.array(box_polygon(0, 0, WIDTH_PX, HEIGHT_PX), dtype=np.float32)
    area, _ = cv2.intersectConvexConvex(_warp(clipped, shake).astype(np.float32), frame)
    whole = cv2.contourArea(polygon.astype(np.float32))
    return min(round(float(area) / whole, 4), 1.0)


def _draw_noise(rng: np.random.Generator) -> tuple[Image, Image]:
    """Sensor noise as what it adds and what it takes, each a little larger than a frame."""
    shape = (HEIGHT_PX + _NOISE_SHIFT_PX, WIDTH_PX + _NOISE_SHIFT_PX, 3)
    noise = rng.standard_normal(shape, dtype=np.float32) * _NOISE_SIGMA
    return noise.clip(0, 255).astype(np.uint8), (-noise).clip(0, 255).astype(np.uint8)


class _Drawing:
    """A sprite being drawn, at twice its size so that edges come out smooth; coordinates are the sprite's own."""

    _SCALE = 2

    def __init__(self, width_px: int, height_px: int, colour: Colour) -> None:
        self._image = PIL.Image.new("RGB", (width_px * self._SCALE, height_px * self._SCALE), colour)
        self._draw = PIL.ImageDraw.Draw(self._image)
        self._texts: list[tuple[str, Box]] = []

    def rectangle(self, box: tuple[float, float, float, float], colour: Colour, radius: float = 0) -> None:
        """A filled rectangle, its corners rounded."""
        scaled = [value * self._SCALE - (1 if place > 1 else 0) for place, value in enumerate(box)]
        self._draw.rounded_rectangle(scaled, radius=radius * self._SCALE, fill=colour)

    def polygon(self, points: list[tuple[float, float]], colour: Colour) -> None:
        """A filled polygon."""
        self._draw.polygon([(x * self._SCALE, y * self._SCALE) for x, y in points], fill=colour)

    def text(self, text: str, x: float, y: float, size: float, colour: Colour, *, anchor: str = "lm") -> None:
        """A text at an anchor of Pillow's."""
        font = PIL.ImageFont.load_default(size * self._SCALE)
        assert isinstance(font, PIL.ImageFont.FreeTypeFont), "Pillow was built without FreeType"
        place = (x * self._SCALE, y * self._SCALE)
        # The built-in font has one weight; a stroke makes large letters as heavy as those on real signs.
        stroke = 1 if size >= 30 else 0
        self._draw.text(place, text, fill=colour, font=font, anchor=anchor, stroke_width=stroke)
        # Pillow's bounding boxes begin at the pen, left of the ink; the mask shows where the ink is.
        mask, (left, top) = font.getmask2(text, "L", anchor=anchor, stroke_width=stroke)
        x0, y0, x1, y1 = mask.getbbox()
        x0, x1 = ((place[0] + left + value) / self._SCALE for value in (x0, x1))
        y0, y1 = ((place[1] + top + value) / self._SCALE for value in (y0, y1))
        self._texts.append((text, (x0, y0, x1, y1)))

    def sprite(self, mask_radius: float | None = None) -> _Sprite:
        """The finished sprite; with a radius its corners let the background through."""
        rgb = np.asarray(self._image.reduce(self._SCALE))
        image = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA).astype(np.uint8, copy=False)
        mask = None
        if mask_radius is not None:
            shape = PIL.Image.new("L", self._image.size)
            box = (0, 0, shape.width - 1, shape.height - 1)
            PIL.ImageDraw.Draw(shape).rounded_rectangle(box, radius=mask_radius * self._SCALE, fill=255)
            mask = np.where(np.asarray(shape.reduce(self._SCALE)) > 127, 255, 0).astype(np.uint8)
        return _Sprite(image, mask, tuple(self._texts))


_INK: Colour = (24, 26, 30)
_WHITE: Colour = (245, 246, 248)
_AMBER: Colour = (250, 190, 20)
_GREEN: Colour = (0, 122, 84)
_BLUE: Colour = (18, 82, 160)
_RED: Colour = (176, 32, 42)
_NAVY: Colour = (12, 24, 48)
_LED_BLACK: Colour = (14, 14, 16)

_SLIDE_XY = (_MARGIN_PX + 60, _MARGIN_PX + 122)
_CLOCK_XY = (_MARGIN_PX + 62, _MARGIN_PX + 40)
_SIGN_CENTRE_X, _SIGN_Y = _MARGIN_PX + 962, _MARGIN_PX + 92
_TRAIN_Y = _MARGIN_PX + 522
_TICKER_WINDOW = (0, _MARGIN_PX + 650, _CANVAS_WH[0], _MARGIN_PX + 698)

_BOARDING_DETAILS = ("GATE B12 LISBON", "GATE C4 OSLO", "GATE A27 TOKYO")
_SIGNS = (
    ("GATE B12", "LISBON 10:25", _AMBER, _INK),
    ("EXIT", "CITY CENTRE AND TAXIS", _GREEN, _WHITE),
    ("PLATFORM 9", "TRAINS TO THE NORTH", _BLUE, _WHITE),
    ("GATE C4", "OSLO 11:05", _AMBER, _INK),
    ("LAST CALL", "FLIGHT KX 318 CAIRO", _RED, _WHITE),
    ("BAGGAGE", "BELTS 1 TO 6", _BLUE, _WHITE),
)
_SLIDES = (
    (
        "DEPARTURES",
        (("LISBON", "10:25", "B12"), ("OSLO", "11:05", "C4"), ("CAIRO", "11:20", "A3"), ("TOKYO", "12:40", "A27")),
    ),
    (
        "ARRIVALS",
        (("VIENNA", "09:50", "B2"), ("DUBLIN", "10:05", "C11"), ("NAIROBI", "10:30", "A8"), ("LIMA", "10:55", "A19")),
    ),
    (
        "TRAINS",
        (
            ("AIRPORT EXPRESS", "09:58", "9"),
            ("HARBOUR", "10:04", "2"),
            ("OLD TOWN", "10:12", "5"),
            ("ZOO", "10:20", "7"),
        ),
    ),
)
_TRAINS = (("EXPRESS 427", "CITY LINE", _RED), ("REGIO 58", "COAST LINE", _GREEN))
_TICKER = (
    "Please keep your luggage with you at all times",
    "Security control takes about 12 minutes",
    "Free water at fountains on level 2",
    "Weather in Lisbon 24 degrees",
)


def _draw_hall() -> _Sprite:
    """What never moves: wall, floor, lamps, posters with small print, and the frames of board, clock and ticker."""
    width, height = _CANVAS_WH
    m = _MARGIN_PX
    drawing = _Drawing(width, height, (196, 200, 204))
    floor_y = m + 505
    for row in range(0, floor_y, 4):
        shade = 1.0 - 0.22 * abs(row - floor_y * 0.45) / floor_y
        drawing.rectangle((0, row, width, row + 4), (int(206 * shade), int(210 * shade), int(214 * shade)))
    for row in range(floor_y, height, 4):
        depth = (row - floor_y) / (height - floor_y)
        drawing.rectangle(
            (0, row, width, row + 4), (int(122 - 34 * depth), int(118 - 32 * depth), int(112 - 30 * depth))
        )
    for x in range(-400, width + 400, 90):
        spread = (x - width / 2) * 2.2 + width / 2
        drawing.polygon([(x, floor_y), (x + 2, floor_y), (spread + 6, height), (spread, height)], (104, 100, 95))
    drawing.rectangle((0, 0, width, m + 22), (58, 62, 68))
    for x in range(m + 40, width, 200):
        drawing.rectangle((x, m + 6, x + 110, m + 14), (255, 250, 226), radius=4)
    for x in (m + 668, m + 1250):
        drawing.rectangle((x, m + 22, x + 22, floor_y), (168, 172, 177))
        drawing.rectangle((x + 16, m + 22, x + 22, floor_y), (146, 150, 155))
    drawing.rectangle((_CLOCK_XY[0] - 12, _CLOCK_XY[1] - 8, _CLOCK_XY[0] + 224, _CLOCK_XY[1] + 56), _INK, radius=8)
    x, y = _SLIDE_XY
    drawing.rectangle((x - 10, y - 10, x + 590, y + 370), (30, 32, 36), radius=10)
    _draw_posters(drawing)
    drawing.rectangle((0, _TRAIN_Y + 96, width, _TRAIN_Y + 104), (70, 66, 62))
    drawing.rectangle((0, _TICKER_WINDOW[1] - 5, width, _TICKER_WINDOW[3] + 5), _LED_BLACK)
    return drawing.sprite()


def _draw_posters(drawing: _Drawing) -> None:
    x, y = _MARGIN_PX + 712, _MARGIN_PX + 318
    drawing.rectangle((x, y, x + 250, y + 172), _WHITE, radius=4)
    drawing.rectangle((x, y, x + 250, y + 48), (58, 92, 70), radius=4)
    drawing.text("LOST PROPERTY", x + 125, y + 24, 24, _WHITE, anchor="mm")
    for row, text in enumerate(("Level 2, next to the lifts", "Open 07:00 to 21:00", "Telephone 555 0142")):
        drawing.text(text, x + 16, y + 74 + row * 34, 18, _INK)
    x += 290
    drawing.rectangle((x, y, x + 220, y + 172), (236, 226, 198), radius=4)
    drawing.text("CAFE ORBIT", x + 110, y + 38, 30, (122, 52, 22), anchor="mm")
    for row, (item, price) in enumerate((("Espresso", "2.40"), ("Cappuccino", "3.20"), ("Croissant", "2.80"))):
        drawing.text(item, x + 18, y + 82 + row * 30, 17, _INK)
        drawing.text(price, x + 202, y + 82 + row * 30, 17, _INK, anchor="rm")


def _draw_slide(title: str, rows: tuple[tuple[str, str, str], ...]) -> _Sprite:
    drawing = _Drawing(580, 360, _NAVY)
    drawing.rectangle((0, 0, 580, 68), (20, 44, 88))
    drawing.text(title, 24, 34, 40, _WHITE)
    for number, (place, hour, gate) in enumerate(rows):
        y = 104 + number * 66
        if number % 2 == 0:
            drawing.rectangle((0, y - 33, 580, y + 33), (17, 33, 64))
        drawing.text(hour, 24, y, 32, _AMBER)
        drawing.text(place, 140, y, 32, _WHITE)
        drawing.text(gate, 556, y, 32, _AMBER, anchor="rm")
    return drawing.sprite()


def _draw_sign(title: str, detail: str, ground: Colour, ink: Colour) -> _Sprite:
    drawing = _Drawing(490, 190, ground)
    drawing.rectangle((0, 0, 490, 190), ink, radius=16)
    drawing.rectangle((5, 5, 485, 185), ground, radius=12)
    drawing.text(title, 245, 76, 76, ink, anchor="mm")
    drawing.text(detail, 245, 148, 32, ink, anchor="mm")
    return drawing.sprite(mask_radius=16)


def _draw_train(name: str, line: str, colour: Colour) -> _Sprite:
    drawing = _Drawing(640, 100, (228, 230, 233))
    drawing.rectangle((0, 62, 640, 100), colour)
    drawing.rectangle((0, 94, 640, 100), (40, 40, 44))
    for x in (24, 88, 500, 564):
        drawing.rectangle((x, 12, x + 52, 50), (52, 66, 82), radius=6)
    drawing.text(name, 320, 32, 42, _INK, anchor="mm")
    drawing.text(line, 320, 78, 22, _WHITE, anchor="mm")
    return drawing.sprite(mask_radius=14)


def _draw_ticker(messages: tuple[str, ...]) -> _Sprite:
    height = _TICKER_WINDOW[3] - _TICKER_WINDOW[1]
    gap_px, size = 120, 30
    widths = [math.ceil(PIL.ImageFont.load_default(size).getlength(text)) for text in messages]
    drawing = _Drawing(sum(widths) + gap_px * len(messages), height, _LED_BLACK)
    x = 20.0
    for text, width in zip(messages, widths, strict=True):
        drawing.text(text, x, height / 2, size, (255, 176, 64))
        x += width + gap_px
    return drawing.sprite()


def _draw_digit(character: str) -> _Sprite:
    drawing = _Drawing(16 if character == ":" else 30, 48, _INK)
    drawing.text(character, 8 if character == ":" else 15, 24, 46, (255, 92, 64), anchor="mm")
    return drawing.sprite()
