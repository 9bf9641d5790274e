"""Clips with exact labels: a virtual camera looks at annotated photos.

    python -m benchmarks.clips DATA_DIR OUT_DIR [--kind still …] [--seconds 20] [--size 1280x720] [--seed 1]

DATA_DIR holds ``gt.jsonl``, see `benchmarks.accuracy`. Of each kind two files are made, ``KIND-SEED.mp4`` (H.264) and
``KIND-SEED.jsonl``, one line a frame: ``{"frame", "media_time_ms", "words": [{"id", "text", "poly", "ignore",
"visible"}]}`` with the polygon in the frame's pixels and the visible share of its area. A word keeps its id as long as
it is seen. The photos stay under their own terms, so OUT_DIR belongs outside the repository.

========= =================================================================================
still     a fixed camera; somebody walks through the picture
handheld  the same in a hand that shakes
pan       from one photo to the next, with a rest at each, and a zoom at the end
ticker    words running through a band below a photo
slides    a photo every four seconds, by a cut or a fade
traffic   pieces of photos that come nearer and pass by
demo      the built-in camera, which needs no photos and is always 1280x720
========= =================================================================================

Over all but the last lie motion blur (a shutter of half a frame), slow changes of exposure and sensor noise, and over
all compression.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import av
import cv2
import numpy as np
from numpy.typing import NDArray

from ocrstream.geometry import Polygon, clip_polygon, to_polygon
from ocrstream.lines import place_words
from ocrstream.picture import Image
from producers.scene import HEIGHT_PX, WIDTH_PX, DemoScene

FPS = 30
SHUTTER_S = 1 / 60
EXPOSURES = 3
"""A frame is the mean of so many pictures, spread over the time the shutter is open."""

NOISE_SIGMA = 3.0
MARGIN = 1.12
"""A photo is so much larger than the frame, so that a shaking hand stays within it."""

Matrix = NDArray[np.float64]
"""``(3, 3)``, from a layer's pixels to the frame's."""

Size = tuple[int, int]
"""Width and height, in pixels."""


class Word(NamedTuple):
    """A labelled word: of a photo, of a layer or of a frame, whose pixels its polygon is in."""

    id: int
    text: str
    polygon: Polygon
    ignore: bool


class SeenWord(NamedTuple):
    """A word of one frame, and the share of its area that can be seen, above 0 and up to 1."""

    word: Word
    visible: float


@dataclass(frozen=True, slots=True)
class Layer:
    """A flat picture in front of the camera.

    Attributes:
        image: what is on it.
        words: its labels, in its own pixels.
        place: where it is at a time in seconds; None while it is not there.
        opacity: how much of it is there at a time, 0 to 1.
    """

    image: Image
    words: tuple[Word, ...]
    place: Callable[[float], Matrix | None]
    opacity: Callable[[float], float] = lambda _time_s: 1.0


@dataclass(frozen=True, slots=True)
class Clip:
    """What the camera sees, back to front, and for how long."""

    layers: Sequence[Layer]
    size: Size
    seconds: float
    seed: int
    fps: int = FPS

    def __len__(self) -> int:
        return round(self.seconds * self.fps)

    def pictures(self) -> Iterator[Image]:
        """Every frame, ``(H, W, 3) uint8 BGR``."""
        rng = np.random.default_rng(self.seed)
        width, height = self.size
        noise = rng.normal(0, NOISE_SIGMA, (height + 64, width + 64, 3)).astype(np.float32)
        phase = rng.uniform(0, 2 * math.pi)
        for index in range(len(self)):
            time_s = index / self.fps
            light = np.zeros((height, width, 3), np.float32)
            for step in range(EXPOSURES):
                light += self._seen_at(time_s + SHUTTER_S * (step / (EXPOSURES - 1) - 0.5))
            gain = (1 + 0.05 * math.sin(phase + time_s / 1.3)) / EXPOSURES
            y, x = rng.integers(0, 64, 2)
            picture = light * gain + noise[y : y + height, x : x + width]
            yield np.clip(picture, 0, 255).astype(np.uint8)

    def words(self, index: int) -> list[SeenWord]:
        """The words of a frame, wholly or in part."""
        time_s = index / self.fps
        places = [layer.place(time_s) for layer in self.layers]
        seen = []
        for depth, (layer, place) in enumerate(zip(self.layers, places, strict=True)):
            if place is None or layer.opacity(time_s) < 0.5:
                continue
            above = [
                _moved(_outline(other.image), other_place)
                for other, other_place in zip(self.layers[depth + 1 :], places[depth + 1 :], strict=True)
                if other_place is not None and other.opacity(time_s) >= 0.5
            ]
            for word in layer.words:
                corners = _moved(np.array(word.polygon), place)
                if visible := _visible_share(corners, self.size, above):
                    seen.append(SeenWord(word._replace(polygon=to_polygon(corners)), visible))
        return seen

    def _seen_at(self, time_s: float) -> Image:
        canvas: Image = np.zeros((self.size[1], self.size[0], 3), np.uint8)
        for layer in self.layers:
            place, opacity = layer.place(time_s), layer.opacity(time_s)
            if place is None or opacity <= 0:
                continue
            below = canvas.copy() if opacity < 1 else canvas
            cv2.warpPerspective(layer.image, place, self.size, dst=canvas, borderMode=cv2.BORDER_TRANSPARENT)
            if opacity < 1:
                canvas = cv2.addWeighted(canvas, opacity, below, 1 - opacity, 0).astype(np.uint8)
        return canvas


def _visible_share(corners: Matrix, size: Size, above: Sequence[Matrix] = ()) -> float:
    """How much of a polygon is in a frame, and not under others, 0 to 1."""
    area = cv2.contourArea(corners.astype(np.float32))
    frame = _outline_of(*size).astype(np.float32)
    inside, part = cv2.intersectConvexConvex(corners.astype(np.float32), frame)
    if area <= 0 or inside <= 0:
        return 0.0
    covered = sum(cv2.intersectConvexConvex(part, other.astype(np.float32))[0] for other in above)
    return round(float(np.clip((inside - covered) / area, 0, 1)), 3)


class DemoClip:
    """What the built-in camera sees; its words are as wide as the letters of their line let expect."""

    size: Size = (WIDTH_PX, HEIGHT_PX)
    fps = FPS

    def __init__(self, seconds: float, seed: int) -> None:
        self._scene = DemoScene(seed, FPS)
        self._count = round(seconds * FPS)
        self._ids: dict[tuple[str, int, int], int] = {}

    def __len__(self) -> int:
        return self._count

    def pictures(self) -> Iterator[Image]:
        """Every frame, ``(H, W, 3) uint8 BGR``."""
        return map(self._scene.render, range(self._count))

    def words(self, index: int) -> list[SeenWord]:
        """The words of a frame, wholly or in part."""
        seen = []
        copies: Counter[str] = Counter()
        for line in self._scene.truth(index):
            copies[line.text] += 1
            for number, (text, polygon) in enumerate(place_words(line.text, line.polygon)):
                # The ticker runs through a window as wide as the frame, and nothing else is cut off by anything.
                if visible := _visible_share(np.array(polygon), self.size):
                    key = line.text, copies[line.text], number
                    word = Word(self._ids.setdefault(key, len(self._ids) + 1), text, polygon, ignore=False)
                    seen.append(SeenWord(word, visible))
        return seen


class Photos:
    """Annotated photos in an order of chance; every word that is taken gets an id of its own."""

    def __init__(self, folder: Path, rng: np.random.Generator) -> None:
        entries = [json.loads(line) for line in (folder / "gt.jsonl").read_text(encoding="utf-8").splitlines()]
        readable = [entry for entry in entries if sum(map(_is_readable, entry["regions"])) >= 2]
        order = rng.permutation(len(readable))
        self._folder, self._ids = folder, count(1)
        self._entries = iter([readable[place] for place in order])

    def next(self, size: Size) -> tuple[Image, tuple[Word, ...]]:
        """The next photo, so large that it covers a size, and cut to it around its middle."""
        entry = next(self._entries, None)
        if entry is None:
            sys.exit("there are too few photos with two readable words for these clips; make fewer or shorter ones")
        image = cv2.imread(str(self._folder / entry["image"]))
        if image is None:
            sys.exit(f"{self._folder / entry['image']} cannot be read as a picture")
        scale = max(size[0] / image.shape[1], size[1] / image.shape[0])
        fit = _scaling(scale, -(image.shape[1] * scale - size[0]) / 2, -(image.shape[0] * scale - size[1]) / 2)
        fitted = cv2.warpAffine(image, fit[:2], size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
        words = tuple(
            Word(next(self._ids), region["text"], to_polygon(_moved(np.array(region["poly"], float), fit)), ignore)
            for region in entry["regions"]
            for ignore in [bool(region["ignore"])]
        )
        return fitted.astype(np.uint8), words


def still(photos: Photos, size: Size, rng: np.random.Generator, seconds: float) -> list[Layer]:
    """A fixed camera; somebody walks through the picture."""
    return [_backdrop(photos, size), _passer_by(size, rng, seconds)]


def handheld(photos: Photos, size: Size, rng: np.random.Generator, seconds: float) -> list[Layer]:
    """The same in a hand that shakes."""
    phases = rng.uniform(0, 2 * math.pi, 7)

    def shake(time_s: float) -> Matrix:
        def sway(slow_hz: float, quick_hz: float, at: int) -> float:
            slow = math.sin(2 * math.pi * slow_hz * time_s + phases[at])
            return 0.7 * slow + 0.3 * math.sin(2 * math.pi * quick_hz * time_s + phases[at + 1])

        reach = size[1] * 0.03
        turned = cv2.getRotationMatrix2D(
            (size[0] / 2, size[1] / 2), 1.2 * sway(0.31, 1.7, 0), 1 + 0.012 * sway(0.23, 1.1, 5)
        )
        matrix = np.vstack([turned, [0, 0, 1]])
        matrix[0, 2] += reach * sway(0.4, 2.3, 2)
        matrix[1, 2] += reach * sway(0.37, 2.9, 4)
        return matrix

    return [_seen_through(layer, shake) for layer in still(photos, size, rng, seconds)]


def pan(photos: Photos, size: Size, _rng: np.random.Generator, seconds: float) -> list[Layer]:
    """From one photo to the next, with a rest at each, and a zoom at the end."""
    rest_s, move_s, zoom_s = 1.5, 4.0, min(3.0, seconds / 4)
    stops = max(2, round((seconds - zoom_s) / (rest_s + move_s)) + 1)

    def camera(time_s: float) -> Matrix:
        turn, since_s = divmod(min(time_s, (stops - 1) * (rest_s + move_s)), rest_s + move_s)
        share = min(max(since_s - rest_s, 0) / move_s, 1)
        eased = share * share * (3 - 2 * share)
        zoom = 1 + 0.5 * max(0.0, time_s - (seconds - zoom_s)) / zoom_s
        towards = _scaling(zoom, size[0] / 2 * (1 - zoom), size[1] / 2 * (1 - zoom))
        return towards @ _scaling(1, -(turn + eased) * size[0], 0)

    layers = []
    for stop in range(stops):
        image, words = photos.next(size)
        layers.append(_seen_through(Layer(image, words, _resting(_scaling(1, stop * size[0], 0))), camera))
    return layers


def ticker(photos: Photos, size: Size, _rng: np.random.Generator, seconds: float) -> list[Layer]:
    """Words running through a band below a photo."""
    height, speed_px_s = size[1] // 14, size[0] // 8
    band_height = height * 2
    pieces: list[Image] = []
    words: list[Word] = []
    x, end = size[0], size[0] + speed_px_s * seconds
    while x < end:
        image, labelled = photos.next(size)
        for word in labelled:
            piece = None if word.ignore or len(word.text) < 3 else _straightened(image, word.polygon, height)
            if piece is None:
                continue
            top, width = (band_height - height) // 2, piece.shape[1]
            box = [[x, top], [x + width, top], [x + width, top + height], [x, top + height]]
            words.append(word._replace(polygon=to_polygon(np.array(box, float))))
            pieces.append(piece)
            x += width + height
    band: Image = np.full((band_height, x, 3), 40, np.uint8)
    for piece, word in zip(pieces, words, strict=True):
        left, upper = (int(value) for value in word.polygon[0])
        band[upper : upper + piece.shape[0], left : left + piece.shape[1]] = piece
    y = size[1] - band_height - size[1] // 20
    running = Layer(band, tuple(words), lambda time_s: _scaling(1, -speed_px_s * time_s, y))
    return [_backdrop(photos, size), running]


def slides(photos: Photos, size: Size, _rng: np.random.Generator, seconds: float) -> list[Layer]:
    """A photo every four seconds, by a cut or a fade."""
    each_s, fade_s = 4.0, 0.6
    layers = []
    for number in range(math.ceil(seconds / each_s)):
        image, words = photos.next(size)
        begin_s, is_cut = number * each_s, number % 2 == 0

        def place(time_s: float, begin_s: float = begin_s) -> Matrix | None:
            return np.eye(3) if begin_s <= time_s < begin_s + each_s + fade_s else None

        def opacity(time_s: float, begin_s: float = begin_s, is_cut: bool = is_cut) -> float:
            return 1.0 if is_cut else min(max((time_s - begin_s) / fade_s, 0.0), 1.0)

        layers.append(Layer(image, words, place, opacity))
    # The first one is there when the shutter opens, before time 0.
    return [replace(layers[0], place=lambda time_s: np.eye(3) if time_s < each_s + fade_s else None), *layers[1:]]


def traffic(photos: Photos, size: Size, rng: np.random.Generator, seconds: float) -> list[Layer]:
    """Pieces of photos that come nearer and pass by."""
    layers = [_backdrop(photos, size)]
    every_s, pass_s = 3.0, 4.0
    for number in range(math.ceil(seconds / every_s)):
        image, words = photos.next(size)
        piece, inside = _piece_around(image, words, rng)
        begin_s, y = number * every_s, size[1] * rng.uniform(0.15, 0.6)

        def place(time_s: float, begin_s: float = begin_s, y: float = y, wide: int = piece.shape[1]) -> Matrix | None:
            share = (time_s - begin_s) / pass_s
            if not 0 <= share <= 1:
                return None
            scale = 0.8 + 0.7 * share
            return _scaling(scale, size[0] - share * (size[0] + wide * 1.5), y + size[1] * 0.1 * share)

        layers.append(Layer(piece, inside, place))
    return layers


KINDS: dict[str, Callable[[Photos, Size, np.random.Generator, float], list[Layer]]] = {
    "still": still,
    "handheld": handheld,
    "pan": pan,
    "ticker": ticker,
    "slides": slides,
    "traffic": traffic,
}


DEMO = "demo"
ALL_KINDS = (*KINDS, DEMO)


def make_clip(kind: str, folder: Path, size: Size, seconds: float, seed: int) -> Clip:
    """A clip of one kind; the same for the same photos, size, length and seed."""
    # Each kind shows other photos.
    rng = np.random.default_rng([seed, list(KINDS).index(kind)])
    return Clip(KINDS[kind](Photos(folder, rng), size, rng, seconds), size, seconds, seed)


def write_clip(clip: Clip | DemoClip, video: Path) -> Path:
    """Write a clip's video, and its labels beside it; returns the labels' path."""
    labels = video.with_suffix(".jsonl")
    with av.open(video, "w") as container, labels.open("w", encoding="utf-8") as lines:
        stream = container.add_stream("libx264", rate=clip.fps, options={"crf": "26", "preset": "veryfast"})
        stream.width, stream.height = clip.size
        stream.pix_fmt = "yuv420p"
        for index, picture in enumerate(clip.pictures()):
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = index, Fraction(1, clip.fps)
            container.mux(stream.encode(frame))
            lines.write(json.dumps(_as_label(clip, index), ensure_ascii=False) + "\n")
        container.mux(stream.encode(None))
    return labels


def load_labels(path: Path) -> list[list[SeenWord]]:
    """The words of each frame, as `write_clip` wrote them."""
    frames = []
    for line in path.read_text(encoding="utf-8").splitlines():
        found = json.loads(line)["words"]
        frames.append(
            [SeenWord(Word(w["id"], w["text"], to_polygon(w["poly"]), w["ignore"]), w["visible"]) for w in found]
        )
    return frames


def _as_label(clip: Clip | DemoClip, index: int) -> dict[str, Any]:
    words = [
        {"id": word.id, "text": word.text, "poly": word.polygon, "ignore": word.ignore, "visible": visible}
        for word, visible in clip.words(index)
    ]
    return {"frame": index, "media_time_ms": round(index * 1000 / clip.fps, 3), "words": words}


def _backdrop(photos: Photos, size: Size) -> Layer:
    wide: Size = (round(size[0] * MARGIN), round(size[1] * MARGIN))
    image, words = photos.next(wide)
    return Layer(image, words, _resting(_scaling(1, -(wide[0] - size[0]) / 2, -(wide[1] - size[1]) / 2)))


def _passer_by(size: Size, rng: np.random.Generator, seconds: float) -> Layer:
    width, height = size[0] // 9, round(size[1] * 0.8)
    cloth = cv2.GaussianBlur(rng.integers(20, 90, (height, width, 3), dtype=np.uint8), (0, 0), 6).astype(np.uint8)
    crossing_s = min(5.0, seconds)

    def place(time_s: float) -> Matrix | None:
        share = (time_s - (seconds - crossing_s) / 2) / crossing_s
        return _scaling(1, share * (size[0] + width) - width, size[1] - height) if 0 <= share <= 1 else None

    return Layer(cloth, (), place)


def _resting(there: Matrix) -> Callable[[float], Matrix | None]:
    return lambda _time_s: there


def _seen_through(layer: Layer, camera: Callable[[float], Matrix]) -> Layer:
    def place(time_s: float) -> Matrix | None:
        there = layer.place(time_s)
        return None if there is None else camera(time_s) @ there

    return replace(layer, place=place)


def _straightened(image: Image, polygon: Polygon, height: int) -> Image | None:
    """A word's own picture, upright and of a height; None where it is too small or too wide to be shown so."""
    (ax, ay), (bx, by), _, (dx, dy) = polygon
    wide, high = math.dist((ax, ay), (bx, by)), math.dist((ax, ay), (dx, dy))
    if high < height / 3 or not 0.5 < wide / max(high, 1) < 20:
        return None
    width = round(wide / high * height)
    corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)
    matrix = cv2.getPerspectiveTransform(np.array(polygon, np.float32), corners)
    return cv2.warpPerspective(image, matrix, (width, height), flags=cv2.INTER_AREA).astype(np.uint8)


def _piece_around(image: Image, words: Sequence[Word], rng: np.random.Generator) -> tuple[Image, tuple[Word, ...]]:
    """A part of a photo around one of its readable words, with the words that lie in it wholly."""
    readable = [word for word in words if not word.ignore and len(word.text) >= 3]
    middle = np.mean(readable[int(rng.integers(len(readable)))].polygon, axis=0) if readable else [0, 0]
    height, width = image.shape[:2]
    wide, high = width * 2 // 5, height * 2 // 5
    x = int(np.clip(middle[0] - wide / 2, 0, width - wide))
    y = int(np.clip(middle[1] - high / 2, 0, height - high))
    inside = []
    for word in words:
        corners = np.array(word.polygon) - [x, y]
        within = (corners >= 0).all() and (corners <= [wide, high]).all()
        touches = cv2.intersectConvexConvex(corners.astype(np.float32), _outline_of(wide, high).astype(np.float32))[0]
        if within or touches > 0:
            # What the cut runs through can be read in part at most.
            shown = clip_polygon(to_polygon(corners), wide, high)
            inside.append(word._replace(polygon=shown, ignore=word.ignore or not within))
    return image[y : y + high, x : x + wide].copy(), tuple(inside)


def _is_readable(region: dict[str, Any]) -> bool:
    return not region["ignore"] and len(region["text"]) >= 3


def _scaling(scale: float, x: float, y: float) -> Matrix:
    return np.array([[scale, 0, x], [0, scale, y], [0, 0, 1]], float)


def _outline(image: Image) -> Matrix:
    return _outline_of(image.shape[1], image.shape[0])


def _outline_of(width: int, height: int) -> Matrix:
    return np.array([[0, 0], [width, 0], [width, height], [0, height]], float)


def _moved(corners: Matrix, matrix: Matrix) -> Matrix:
    moved = np.hstack([corners, np.ones((len(corners), 1))]) @ matrix.T
    there: Matrix = moved[:, :2] / moved[:, 2:]
    return there


def _size(text: str) -> Size:
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit()) or int(width) % 2 or int(height) % 2:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it as 1280x720, both even")
    return int(width), int(height)


def main(argv: Sequence[str] | None = None) -> int:
    """Make the clips; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.clips", description="Clips with exact labels.")
    parser.add_argument(
        "data",
        type=Path,
        nargs="?",
        metavar="DATA_DIR",
        help="annotated photos, with a gt.jsonl; not for the kind demo",
    )
    parser.add_argument("out", type=Path, metavar="OUT_DIR", help="where the clips go; outside the repository")
    parser.add_argument("--kind", action="append", choices=ALL_KINDS, help="only these kinds; can be repeated")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of each clip")
    parser.add_argument("--size", type=_size, default=(1280, 720), help="size of the frames")
    parser.add_argument("--seed", type=int, default=1, help="decides photos, order and movements")
    arguments = parser.parse_args(argv)
    kinds = arguments.kind or ALL_KINDS
    if set(kinds) != {DEMO}:
        if arguments.data is None:
            parser.error("DATA_DIR is missing: all kinds but demo are made of photos")
        if not (arguments.data / "gt.jsonl").is_file():
            parser.error(f"{arguments.data} holds no gt.jsonl")
    arguments.out.mkdir(parents=True, exist_ok=True)
    for kind in kinds:
        clip: Clip | DemoClip
        if kind == DEMO:
            clip = DemoClip(arguments.seconds, arguments.seed)
        else:
            clip = make_clip(kind, arguments.data, arguments.size, arguments.seconds, arguments.seed)
        video = arguments.out / f"{kind}-{arguments.seed}.mp4"
        labels = write_clip(clip, video)
        ids = {seen.word.id for words in load_labels(labels) for seen in words if not seen.word.ignore}
        print(f"{video}: {len(clip)} frames, {len(ids)} words")
    return 0


if __name__ == "__main__":
    sys.exit(main())
