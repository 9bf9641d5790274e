from __future__ import annotations

import itertools
import threading

import cv2
import numpy as np
import pytest

from ocrstream.config import ProducerSettings
from ocrstream.errors import SourceError
from ocrstream.geometry import bounding_box
from ocrstream.messages import Frame, FrameInfo
from producers.demo import RECORDED_AT_NS, DemoScene, DemoSource
from producers.specs import parse_source


def recording(options: str = "seconds=2", settings: ProducerSettings | None = None) -> DemoSource:
    return DemoSource(parse_source(f"demo:?live=0&{options}"), settings or ProducerSettings())


def read(source: DemoSource, after: FrameInfo | None = None) -> list[Frame]:
    return list(source.frames(threading.Event(), after))


@pytest.fixture(scope="module")
def scene() -> DemoScene:
    return DemoScene(seed=7)


def test_the_same_seed_gives_the_same_frame_and_another_seed_another(scene: DemoScene) -> None:
    again, other = DemoScene(seed=7).render(31), DemoScene(seed=8).render(31)
    assert again.shape == (720, 1280, 3)
    np.testing.assert_array_equal(scene.render(31), again)
    assert np.abs(other.astype(int) - again).mean() > 1


def test_boarding_is_there_in_the_first_seconds_and_again(scene: DemoScene) -> None:
    def shown(second: float) -> set[str]:
        return {line.text for line in scene.truth(int(second * 30)) if line.visible == 1}

    assert "BOARDING" in shown(1.5)
    assert "BOARDING" not in shown(8)
    assert "BOARDING" in shown(19.5)
    assert {"DEPARTURES", "09:41:01", "GATE B12 LISBON"} <= shown(1.5)


def test_the_clock_and_the_slide_change(scene: DemoScene) -> None:
    texts = [{line.text for line in scene.truth(int(second * 30))} for second in (1, 6)]
    assert "09:41:01" in texts[0] - texts[1]
    assert {"09:41:06", "ARRIVALS"} <= texts[1]
    assert "DEPARTURES" in texts[0] - texts[1]


@pytest.mark.parametrize("index", [0, 45, 200, 333, 1000])
def test_the_polygons_enclose_the_ink_and_nothing_beyond(scene: DemoScene, index: int) -> None:
    frame = cv2.cvtColor(scene.render(index), cv2.COLOR_BGR2GRAY).astype(int)
    for text, polygon, visible in scene.truth(index):
        if visible < 1:
            continue
        x0, y0, x1, y1 = (round(value) for value in bounding_box(polygon))
        if min(x0, y0) < 6 or x1 > 1274 or y1 > 714:
            continue
        ground = np.median(frame[y0 - 4 : y1 + 4, x0 - 4 : x1 + 4])
        ink = np.argwhere(np.abs(frame[y0 - 5 : y1 + 5, x0 - 5 : x1 + 5] - ground) > 60)
        (top, left), (bottom, right) = ink.min(axis=0) - 5, ink.max(axis=0) - 4
        height, width = y1 - y0, x1 - x0
        edges = (left, top, right - width, bottom - height)
        assert all(abs(edge) <= 2 for edge in edges), (text, edges)


def test_the_visible_share_grows_as_a_sign_comes_down(scene: DemoScene) -> None:
    shares = [
        next((line.visible for line in scene.truth(index) if line.text == "BOARDING"), 0.0) for index in range(30)
    ]
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert any(0 < share < 1 for share in shares)
    assert all(after >= before - 1e-6 for before, after in itertools.pairwise(shares))


def test_the_hand_shakes(scene: DemoScene) -> None:
    corners = [next(line.polygon[0] for line in scene.truth(i) if line.text == "CAFE ORBIT") for i in range(0, 60, 5)]
    steps = [np.hypot(b[0] - a[0], b[1] - a[1]) for a, b in itertools.pairwise(corners)]
    assert 0.3 < max(steps) < 8


def test_a_recording_gives_the_same_frames_in_every_run() -> None:
    first, second = read(recording("seconds=0.2")), read(recording("seconds=0.2"))
    assert [frame.info for frame in first] == [frame.info for frame in second]
    assert len({frame.info.frame_id for frame in first}) == 6
    assert [frame.info.media_time_ms for frame in first] == [0.0, 33.333, 66.667, 100.0, 133.333, 166.667]
    assert first[3].info.captured_at_ns == RECORDED_AT_NS + 100_000_000
    assert not first[0].info.live


def test_a_recording_goes_on_behind_a_frame() -> None:
    frames = [frame.info for frame in read(recording("seconds=0.3"))]
    assert [frame.info for frame in read(recording("seconds=0.3"), after=frames[4])] == frames[5:]
    assert len(read(recording("seconds=0.3&seed=2"), after=frames[4])) == 9


def test_a_recording_says_where_it_goes_on_or_that_it_is_another(caplog: pytest.LogCaptureFixture) -> None:
    info = read(recording("seconds=1&fps=4"))[2].info
    with caplog.at_level("INFO"):
        read(recording("seconds=1&fps=4"), after=info)
    assert "demo: goes on behind what was read before, 0.5 s" in caplog.text
    assert "another source" not in caplog.text
    assert len(read(recording("seconds=1&fps=4&seed=2"), after=info)) == 4
    assert "demo: another source was read under this name before" in caplog.text


def test_a_recording_shows_what_the_scene_shows() -> None:
    frames = read(recording("seconds=0.1&seed=3"))
    np.testing.assert_array_equal(frames[2].picture.array(), DemoScene(seed=3).render(2))


def test_a_part_of_it_and_a_smaller_size() -> None:
    settings = ProducerSettings(roi="640,0,640,360", resize="320x320", fps=2)
    frames = read(recording(settings=settings))
    assert [frame.info.media_time_ms for frame in frames] == [0, 500, 1000, 1500]
    assert (frames[0].info.width_px, frames[0].info.height_px) == (320, 180)
    assert frames[0].picture.array().shape == (180, 320, 3)


def test_live_frames_have_the_clocks_time_and_drop_what_nobody_took() -> None:
    source = DemoSource(parse_source("demo:?seconds=0.4&fps=100"), ProducerSettings())
    dropped: list[int] = []
    source.progress.on_event = lambda event, amount: dropped.append(amount)
    stop = threading.Event()
    infos = []
    for frame in source.frames(stop):
        infos.append(frame.info)
        if len(infos) == 2:
            threading.Event().wait(0.1)
    assert all(info.live and info.media_time_ms is None for info in infos)
    assert all(b.captured_at_ns > a.captured_at_ns for a, b in itertools.pairwise(infos))
    assert sum(dropped) > 0
    assert len(infos) + sum(dropped) <= 40


def test_a_stop_ends_it() -> None:
    source = DemoSource(parse_source("demo:"), ProducerSettings())
    stop = threading.Event()
    frames = source.frames(stop)
    next(frames)
    stop.set()
    assert list(frames) == []


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("demo:?colour=1", "unknown option 'colour' of the demo; known: seconds, fps, seed, live"),
        ("demo:?fps=fast", "fps should be a number, got 'fast'"),
        ("demo:?fps=0", "fps 1 to 240"),
        ("demo:seed=2", "begin with a question mark"),
    ],
)
def test_options_that_cannot_be_read(url: str, message: str) -> None:
    with pytest.raises(SourceError, match=message.replace("?", r"\?")):
        DemoSource(parse_source(url), ProducerSettings())


def test_a_region_outside_the_scene() -> None:
    with pytest.raises(SourceError, match="outside the frame of 1280x720 pixels"):
        recording(settings=ProducerSettings(roi="1200,0,100,100"))
