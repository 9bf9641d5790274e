"""How soon a sign that comes up before a live camera is found by a search.

    python -m benchmarks.newcomers [--signs 30] [--save]

A camera held in the hand, 1080p30, looks at a wall with two signs; every two seconds another one hangs there in place
of the last. It is taken as a live source by the embedded pipeline, as in `benchmarks.camera`. A sign's delay begins
when the camera sends the first picture of it, and ends when a search finds its word: decoding, detecting, reading,
storing and searching are in it. Those of the first seconds, in which the connection begins, are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from benchmarks.camera import camera
from benchmarks.embedded import embedded_run
from benchmarks.environment import environment
from benchmarks.onlooker import LOOK_EVERY_S
from benchmarks.recording import add_save_flag, conclude, percentiles
from ocrstream.picture import Image
from ocrstream.query import parse
from ocrstream.storage import DocumentStore, Filter
from ocrstream.storage.embedded import EmbeddedStore

FPS, EVERY_S = 30, 2.0
BEGINNING_S = 5.0
PATIENCE_S = 3.0
"""After the last sign's time it is waited for so long: five seconds from its first picture on."""

WORDS = (
    *("AMBER", "BASIL", "COPPER", "DRAGON", "EMBER", "FALCON", "GLACIER", "HARBOR", "INDIGO", "JASMINE"),
    *("KETTLE", "LANTERN", "MEADOW", "NECTAR", "OYSTER", "PEPPER", "QUARTZ", "RIBBON", "SADDLE", "TIMBER"),
    *("UMBRELLA", "VELVET", "WALNUT", "YELLOW", "ZEPHYR", "ANCHOR", "BUTTON", "CANDLE", "DESERT", "PILLOW"),
)
"""One a sign; none is another one's beginning."""


def film(path: Path, words: Sequence[str]) -> None:
    """Make the clip: each word's sign for `EVERY_S`, in places that change."""
    chance = np.random.default_rng(7)
    rough = chance.integers(60, 150, (70, 100, 3), dtype=np.uint8)
    wall: Image = np.asarray(cv2.resize(rough, (2200, 1340), interpolation=cv2.INTER_CUBIC), np.uint8)
    _hang(wall, "CENTRAL STATION", 250, 300)
    _hang(wall, "Way out to taxis", 1250, 1150)
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        # A camera's encoder looks at no later picture.
        stream.options = {"preset": "ultrafast", "tune": "zerolatency", "crf": "24"}
        for number, word in enumerate(words):
            scene = wall.copy()
            _hang(scene, f"{word.title()} {100 + 13 * number}", 250 + 830 * (number % 2), 480 + 190 * (number % 3))
            for step in range(round(EVERY_S * FPS)):
                at_s = number * EVERY_S + step / FPS
                x = round(140 + 60 * np.sin(0.9 * at_s) + 9 * np.sin(7.1 * at_s))
                y = round(130 + 45 * np.sin(0.7 * at_s + 1) + 9 * np.sin(8.3 * at_s))
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(scene[y : y + 1080, x : x + 1920]), "bgr24")
                out.mux(stream.encode(frame))
        out.mux(stream.encode(None))


def _hang(scene: Image, text: str, x: int, y: int) -> None:
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 2.2, 5)
    cv2.rectangle(scene, (x - 30, y - height - 30), (x + width + 30, y + 34), (240, 244, 240), -1)
    cv2.putText(scene, text, (x, y), cv2.FONT_HERSHEY_SIMPLEX, 2.2, (40, 30, 20), 5, cv2.LINE_AA)


class _Seeker(threading.Thread):
    """Searches for each word as it comes up, and ends the run when the last is found or its time is over.

    Attributes:
        shown_at_ns: when the first picture of a word's sign was sent, by what `benchmarks.camera.send` prints.
        found_at_ns: when a search found a word.
    """

    def __init__(self, store: DocumentStore, words: Sequence[str], sent: Path) -> None:
        super().__init__(name="seeker", daemon=True)
        self._store, self._words, self._sent = store, words, sent
        self.shown_at_ns: dict[str, int] = {}
        self.found_at_ns: dict[str, int] = {}

    def run(self) -> None:
        """Seek until the last sign has hung long enough."""
        last, unread = self._words[-1], ""
        try:
            with self._sent.open(encoding="ascii") as sent:
                while last not in self.found_at_ns and not self._is_over(last):
                    *lines, unread = (unread + sent.read()).split("\n")
                    self._note(lines)
                    self._look(list(self.shown_at_ns)[-2:])
                    time.sleep(LOOK_EVERY_S)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)

    def _is_over(self, last: str) -> bool:
        until_s = EVERY_S + PATIENCE_S
        return last in self.shown_at_ns and time.time_ns() - self.shown_at_ns[last] > until_s * 1e9

    def _note(self, lines: Sequence[str]) -> None:
        for due, at_ns in map(str.split, lines):
            number = int(float(due) / EVERY_S + 1e-3)
            # The clip begins anew at its end.
            if number < len(self._words):
                self.shown_at_ns.setdefault(self._words[number], int(at_ns))

    def _look(self, words: Sequence[str]) -> None:
        for word in words:
            if word not in self.found_at_ns and self._store.search(parse(word), Filter(), limit=1).hits:
                self.found_at_ns[word] = time.time_ns()


def measure(signs: int) -> dict[str, Any]:
    """Show so many signs; how soon each was found.

    Raises:
        RuntimeError: none was.
    """
    words = WORDS[:signs]
    with tempfile.TemporaryDirectory(prefix="ocrstream-newcomers-") as name:
        folder, sent = Path(name), Path(name) / "sent.txt"
        film(folder / "signs.mp4", words)
        with (
            camera(folder / "signs.mp4", sent) as port,
            contextlib.closing(EmbeddedStore(str(folder / "data"))) as reader,
        ):
            seeker = _Seeker(reader, words, sent)
            with embedded_run(str(folder / "data"), [f"camera=tcp://127.0.0.1:{port}"]) as run:
                seeker.start()
                run.run()
                seeker.join()
    counted = [word for number, word in enumerate(words) if number * EVERY_S >= BEGINNING_S]
    delays_s = [
        (seeker.found_at_ns[word] - seeker.shown_at_ns[word]) / 1e9 for word in counted if word in seeker.found_at_ns
    ]
    if not delays_s:
        raise RuntimeError("no sign was found")
    missed = [word for word in counted if word not in seeker.found_at_ns]
    return {"signs": len(counted), "missed": missed, "delay_s": percentiles(delays_s)}


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and report; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.newcomers", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--signs", type=int, default=len(WORDS), metavar="N", help=f"4 to {len(WORDS)}")
    add_save_flag(parser)
    options = parser.parse_args(argv)
    if not 4 <= options.signs <= len(WORDS):
        parser.error(f"--signs is a number from 4 to {len(WORDS)}")
    circumstances = environment("ocrstream", "onnxruntime", "opencv-python-headless", "av", "numpy")
    conclude("newcomers", circumstances, measure(options.signs), save=options.save)
    return 0


if __name__ == "__main__":
    sys.exit(main())
