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

Over all but the last lie motion blur, slow changes of exposure and sensor noise (`benchmarks.layers`), and over all
compression.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

from benchmarks.kinds import KINDS, Photos
from benchmarks.layers import FPS, Clip, SeenWord, Size, Word, visible_share
from ocrstream.geometry import to_polygon
from ocrstream.lines import place_words
from ocrstream.picture import Image
from producers.scene import HEIGHT_PX, WIDTH_PX, DemoScene

DEMO = "demo"
ALL_KINDS = (*KINDS, DEMO)


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
                if visible := visible_share(np.array(polygon), self.size):
                    key = line.text, copies[line.text], number
                    word = Word(self._ids.setdefault(key, len(self._ids) + 1), text, polygon, ignore=False)
                    seen.append(SeenWord(word, visible))
        return seen


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
