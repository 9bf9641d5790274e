"""With ``--overlays leave-out`` what a moving camera writes into its picture is left out once it is known."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from ocrstream_test_engines import make_picture

from ocrstream.geometry import bounding_box
from ocrstream.messages import Crops, Frame, FrameInfo, make_frame_id
from ocrstream.picture import Image, Picture
from ocrstream.storage import Filter
from ocrstream.storage.embedded import EmbeddedStore
from pipeline.cli import main
from tests.e2e.videos import write_video
from tests.unit.test_watching import Rig

FPS = 15
SIZE_WH = (640, 360)
REACH = 90
DATE, SIGN = (20.0, 10.0, 200.0, 46.0), (300.0, 200.0, 430.0, 240.0)


def wall() -> Image:
    """Light everywhere, so that nothing on it is taken for text."""
    size_wh = SIZE_WH[0] + 2 * REACH, SIZE_WH[1] + 2 * REACH
    rng = np.random.default_rng(2)
    picture: Image = np.full((size_wh[1], size_wh[0], 3), 220, np.uint8)
    for x, y, w, h, level in rng.integers([0, 0, 12, 10, 150], [*size_wh, 70, 50, 255], (250, 5)).tolist():
        cv2.rectangle(picture, (x, y), (x + w, y + h), (level, level, level), -1)
    return np.asarray(cv2.GaussianBlur(picture, (3, 3), 0), np.uint8)


def pictures(seconds: float, date: Callable[[float], str], still_s: float = 0.0) -> list[Image]:
    """What a camera in a hand sees, which is put down at the end, with the date written over it."""
    scene, sign = wall(), make_picture([("Gate B12", SIGN)], SIZE_WH)
    (x0, y0, x1, y1), seen = (round(side) for side in SIGN), []
    scene[y0 + REACH : y1 + REACH, x0 + REACH : x1 + REACH] = sign[y0:y1, x0:x1]
    for number in range(round(seconds * FPS)):
        at_s = min(number / FPS, seconds - still_s)
        x, y = REACH + round(40 * math.sin(2 * at_s)), REACH + round(30 * math.sin(3 * at_s))
        picture = scene[y : y + SIZE_WH[1], x : x + SIZE_WH[0]].copy()
        left, top, right, bottom = (round(side) for side in DATE)
        picture[top:bottom, left:right] = make_picture([(date(number / FPS), DATE)], SIZE_WH)[top:bottom, left:right]
        seen.append(picture)
    return seen


def frames(shown: list[Image], begin_s: float = 1.0) -> list[Frame]:
    taken = []
    for number, picture in enumerate(shown):
        at_s = begin_s + number / FPS
        at_ns = round(at_s * 1e9)
        info = FrameInfo("hall", make_frame_id("hall", at_ns), at_ns, *SIZE_WH, live=False, media_time_ms=at_s * 1000)
        taken.append(Frame(info, Picture.from_array(picture)))
    return taken


def date_told(told: list[Crops]) -> list[float]:
    """When the date was in sight."""
    return [
        crops.info.at_ms / 1000
        for crops in told
        for crop in crops.crops
        if bounding_box(crop.region.polygon) == pytest.approx(DATE, abs=3)
    ]


def in_time(at_s: float) -> str:
    return f"28.11. {int(at_s):02d}"


@pytest.mark.parametrize(("settings", "is_left_out"), [({}, False), ({"leaves_out_overlays": True}, True)])
def test_a_date_is_left_out_from_when_it_is_known_to_be_written_over_the_scene(
    settings: dict[str, Any], is_left_out: bool
) -> None:
    rig = Rig(**settings)
    told = rig.show(frames(pictures(8, in_time)))
    last_s = max(date_told(told))
    assert (3.8 < last_s < 6) if is_left_out else (last_s > 8.4)
    signs = [crops for crops in told if len(crops.crops) > (0 if crops.info.at_ms / 1000 > last_s else 1)]
    assert signs[-1].info.at_ms / 1000 > 8
    rig.finish()
    appearances = {a.track_id: a for texts in rig.read() for a in texts.appearances}
    gate = [a for a in appearances.values() if a.text == "Gate B12"]
    assert [(a.first_ms, a.closed) for a in gate] == [(1000, True)]
    dates = sorted((a for a in appearances.values() if a.text.startswith("28.11.")), key=lambda a: a.first_at_ns)
    assert [a.text for a in dates] == [in_time(n) for n in range(len(dates))]
    assert len(dates) == (8 if not is_left_out else int(last_s - 1.01) + 1)
    assert all(a.closed for a in dates)
    assert max(a.last_ms or 0 for a in dates) / 1000 == pytest.approx(last_s, abs=0.6)


def test_what_changes_where_an_overlay_is_left_out_wakes_nobody() -> None:
    asked: list[list[tuple[int, int]]] = []
    for leaves_out in (False, True):
        rig = Rig(leaves_out_overlays=leaves_out)
        shown = frames(pictures(9, lambda at_s: f"{int(at_s * 5):03d} {'xo'[int(at_s * 5) % 2] * 9}", still_s=4))
        rig.show(shown[: 6 * FPS])
        before = len(rig.detector.shown)
        told = rig.show(shown[6 * FPS :])
        asked.append(rig.detector.shown[before:])
        assert bool(date_told(told)) is not leaves_out
    woken, unmoved = asked
    at_date = [size_wh for size_wh in woken if size_wh != SIZE_WH]
    assert len(at_date) > 1
    # What is due is looked at all the same.
    assert not set(at_date) & set(unmoved)
    assert len(unmoved) < len(woken)


def test_after_a_restart_an_overlay_is_learned_again_and_no_appearance_is_doubled() -> None:
    shown = frames(pictures(12, lambda _at_s: "CAM 7"))
    ids = []
    for part in (shown[: 6 * FPS], shown[6 * FPS :]):
        rig = Rig(leaves_out_overlays=True)
        told = rig.show(part)
        begun_s = part[0].info.at_ms / 1000
        assert begun_s + 2.8 < max(date_told(told)) < begun_s + 5
        rig.finish()
        ids += [{a.track_id for texts in rig.read() for a in texts.appearances if a.text == "CAM 7"}]
    assert [len(each) for each in ids] == [1, 1]
    # Frames that are delivered again say the same.
    again = Rig(leaves_out_overlays=True)
    again.show(shown[6 * FPS :])
    again.finish()
    assert {a.track_id for texts in again.read() for a in texts.appearances if a.text == "CAM 7"} == ids[1]


def test_the_command_leaves_overlays_out_where_it_is_told_to(tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4", pictures(8, lambda _at_s: "CAM 7"), fps=FPS)
    engines = ["--detector", "blocks", "--recognizer", "plain", "--no-serve"]
    lasted_s = []
    for overlays in ("keep", "leave-out"):
        data = tmp_path / overlays
        arguments = ["run", str(tmp_path / "clip.mp4"), "--data", str(data), *engines, "--overlays", overlays]
        assert main(arguments) == 0
        store = EmbeddedStore(data)
        texts = {appearance.text: appearance for appearance in store.appearances(Filter())}
        store.close()
        assert set(texts) == {"CAM 7", "Gate B12"}
        assert (texts["Gate B12"].last_ms or 0) > 7500
        lasted_s.append((texts["CAM 7"].last_ms or 0) / 1000)
    assert lasted_s[0] > 7.5
    assert 2.8 < lasted_s[1] < 5
