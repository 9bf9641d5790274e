"""Video files of every kind, read by the real decoder process."""

from __future__ import annotations

import datetime
import itertools
import json
import logging
import os
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import psutil
import pytest

from ocrstream.config import ProducerSettings
from ocrstream.errors import SourceError
from ocrstream.messages import Frame, FrameInfo
from ocrstream.picture import Image
from producers.demo import DemoScene, write_clip
from producers.sources import Source, open_sources
from tests.e2e.commands import ocrstream

FPS, SECONDS = 15, 2
SIZE_WH = (320, 180)

CONTAINERS = {
    "mp4": "libx264",
    "mkv": "libx264",
    "ts": "libx264",
    "flv": "libx264",
    "avi": "mpeg4",
    "webm": "libvpx",
    "mov": "mjpeg",
}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one clip of the demo in each container, ``clip.SUFFIX``."""
    folder = tmp_path_factory.mktemp("clips")
    for suffix, codec in CONTAINERS.items():
        write_clip(folder / f"clip.{suffix}", SECONDS, fps=FPS, codec=codec, size_wh=SIZE_WH)
    return folder


@pytest.fixture(scope="module")
def scene() -> DemoScene:
    return DemoScene(fps=FPS)


def small(image: Image) -> np.ndarray:
    return cv2.resize(image, SIZE_WH, interpolation=cv2.INTER_AREA).astype(int)


def open_one(path: Path | str, **settings: Any) -> Source:
    (source,) = open_sources([str(path)], ProducerSettings(**settings))
    return source


def read(source: Source, after: FrameInfo | None = None) -> list[Frame]:
    try:
        return list(source.frames(threading.Event(), after))
    finally:
        source.close()


def decoders() -> list[psutil.Process]:
    """The decoder processes of this one."""
    return [child for child in psutil.Process().children() if "producers.decoder_process" in child.cmdline()]


def times(frames: Sequence[Frame]) -> list[float | None]:
    return [frame.info.media_time_ms for frame in frames]


def write_frames(path: Path, at_ms: Sequence[float], images: Iterator[Image], **stream_settings: object) -> None:
    """A lossless video with a frame at each of these times."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(str(stream_settings.pop("codec", "ffv1")), rate=1000)
        assert isinstance(stream, av.VideoStream)
        stream.time_base = Fraction(1, 1000)
        for name, value in stream_settings.items():
            setattr(stream, name, value)
        for number, (time_ms, image) in enumerate(zip(at_ms, images, strict=False)):
            if number == 0:
                stream.height, stream.width = image.shape[:2]
                stream.pix_fmt = str(stream_settings.get("pix_fmt", "bgr0"))
            frame = av.VideoFrame.from_ndarray(image, format="bgr24").reformat(format=stream.pix_fmt)
            frame.pts, frame.time_base = round(time_ms), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def greys(count: int, size_wh: tuple[int, int] = (64, 48)) -> Iterator[Image]:
    """Plain images, each 10 brighter than the one before."""
    for number in range(count):
        yield np.full((size_wh[1], size_wh[0], 3), 10 * number, dtype=np.uint8)


@pytest.mark.parametrize("suffix", CONTAINERS)
def test_every_frame_of_every_container(clips: Path, scene: DemoScene, suffix: str) -> None:
    source = open_one(clips / f"clip.{suffix}")
    assert source.total_ms == pytest.approx(SECONDS * 1000, abs=150)
    frames = read(source)
    assert len(frames) == FPS * SECONDS
    assert times(frames) == pytest.approx([index * 1000 / FPS for index in range(len(frames))], abs=1.1)
    assert len({frame.info.frame_id for frame in frames}) == len(frames)
    for index in (0, 11, 29):
        assert np.abs(frames[index].picture.array() - small(scene.render(index))).mean() < 12
    info = frames[3].info
    assert (info.source_id, info.width_px, info.height_px, info.live, info.segment) == ("clip", *SIZE_WH, False, None)
    assert info.captured_at_ns - frames[0].info.captured_at_ns == pytest.approx(200e6, abs=1.1e6)


@pytest.mark.parametrize(
    ("suffix", "settings"),
    [*((suffix, {}) for suffix in CONTAINERS), ("mp4", {"fps": 4.0}), ("mp4", {"every": 3}), ("ts", {"fps": 4.0})],
)
def test_a_file_goes_on_behind_any_frame(clips: Path, suffix: str, settings: dict[str, float]) -> None:
    frames = [frame.info for frame in read(open_one(clips / f"clip.{suffix}", **settings))]
    for index in (0, len(frames) // 2, len(frames) - 1):
        rest = read(open_one(clips / f"clip.{suffix}", **settings), after=frames[index])
        assert [frame.info for frame in rest] == frames[index + 1 :]


def test_a_frame_of_another_file_of_that_name_is_not_gone_on_behind(
    clips: Path, caplog: pytest.LogCaptureFixture
) -> None:
    frames = read(open_one(clips / "clip.mp4"))
    assert caplog.text == ""
    assert len(read(open_one(clips / "clip.mkv"), after=frames[16].info)) == len(frames)
    assert "clip: another source was read under this name before" in caplog.text
    assert "give this one another name (NAME=SOURCE)" in caplog.text


def test_a_run_says_where_a_file_goes_on_and_what_has_changed(clips: Path, tmp_path: Path) -> None:
    def run(path: Path, *options: str) -> str:
        engines = "--detector", "blocks", "--recognizer", "plain"
        return ocrstream("run", f"clip={path}", "--no-serve", "--data", tmp_path, *engines, *options).stderr

    assert "clip: " not in run(clips / "clip.mp4", "--end", "1", "--fps", "2")
    said = run(clips / "clip.mp4", "--fps", "2", "--resize", "160x90")
    assert "clip: goes on behind what was read before, 0.5 s; what lies before stays as it was read" in said
    assert "clip: its frames were 320x180 before and are 160x90 from here on" in said
    said = run(clips / "clip.mkv", "--fps", "2")
    assert "clip: another source was read under this name before" in said
    assert "clip: another source was read under this name before" in run(Path("demo:?seconds=0.1&fps=10"))


def test_the_frames_behind_are_the_right_pictures(clips: Path, scene: DemoScene) -> None:
    frames = read(open_one(clips / "clip.mp4"))
    rest = read(open_one(clips / "clip.mp4"), after=frames[16].info)
    assert np.abs(rest[3].picture.array() - small(scene.render(20))).mean() < 12


def test_the_choice_of_frames(clips: Path) -> None:
    clip = clips / "clip.mp4"
    assert times(read(open_one(clip, every=10))) == pytest.approx([0, 666.667, 1333.333])
    assert times(read(open_one(clip, fps=2))) == pytest.approx([0, 533.333, 1000, 1533.333])
    part = open_one(clip, start="0.5", end="0:01.0")
    assert (part.start_ms, part.total_ms) == (500, 500)
    assert times(read(part)) == pytest.approx([533.333 + index * 1000 / FPS for index in range(7)], abs=0.01)


def test_segments_share_a_file_without_gap_or_overlap(clips: Path) -> None:
    settings = ProducerSettings(segments=3, fps=6)
    whole = read(open_one(clips / "clip.mp4", fps=6))
    parts = [read(source) for source in open_sources([str(clips / "clip.mp4")], settings)]
    assert all(parts)
    assert [frame.info.frame_id for part in parts for frame in part] == [frame.info.frame_id for frame in whole]
    assert [frame.info.key for part in parts for frame in part[:1]] == ["clip#0", "clip#1", "clip#2"]
    again = open_sources([str(clips / "clip.mp4")], settings)
    rest = [read(source, after=part[0].info) for source, part in zip(again, parts, strict=True)]
    assert [frame.info for part in rest for frame in part] == [frame.info for part in parts for frame in part[1:]]


def test_a_segment_ignores_where_another_one_stopped(clips: Path) -> None:
    settings = ProducerSettings(segments=2)
    first, second = (read(source) for source in open_sources([str(clips / "clip.mp4")], settings))
    again = open_sources([str(clips / "clip.mp4")], settings)
    try:
        assert len(list(again[0].frames(threading.Event(), second[-1].info))) == len(first)
    finally:
        for source in again:
            source.close()


def test_a_variable_frame_rate(tmp_path: Path) -> None:
    at_ms = [0, 40, 100, 500, 520, 1700]
    write_frames(tmp_path / "vfr.mkv", at_ms, greys(6))
    frames = read(open_one(tmp_path / "vfr.mkv"))
    assert times(frames) == at_ms
    assert [int(frame.picture.array().mean().round()) for frame in frames] == [0, 10, 20, 30, 40, 50]


@pytest.mark.parametrize("pix_fmt", ["gray", "yuv444p", "yuv422p10le", "bgra", "gray16le"])
def test_pixel_formats(tmp_path: Path, pix_fmt: str) -> None:
    write_frames(tmp_path / "odd.mkv", [0, 40, 80], greys(3, (63, 47)), pix_fmt=pix_fmt)
    frames = read(open_one(tmp_path / "odd.mkv"))
    assert [frame.picture.array().shape for frame in frames] == [(47, 63, 3)] * 3
    assert frames[2].picture.array().mean() == pytest.approx(20, abs=2)


def test_colours_keep_their_order(tmp_path: Path) -> None:
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    image[:, :, 0] = 200
    write_frames(tmp_path / "blue.mkv", [0], iter([image]))
    (frame,) = read(open_one(tmp_path / "blue.mkv"))
    assert frame.picture.array()[10, 10].tolist() == [200, 0, 0]


def test_a_region_scaled_down(tmp_path: Path) -> None:
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    image[8:24, 16:48] = 255
    write_frames(tmp_path / "box.mkv", [0], iter([image]))
    (whole,) = read(open_one(tmp_path / "box.mkv", roi="16,8,32,16"))
    assert whole.picture.array().shape == (16, 32, 3)
    assert whole.picture.array().min() == 255
    (frame,) = read(open_one(tmp_path / "box.mkv", roi="8,8,40,16", resize="20x20"))
    assert (frame.info.width_px, frame.info.height_px) == (20, 8)
    assert frame.picture.array()[:, :3].max() < 20
    assert frame.picture.array()[:, 6:].min() > 235
    (frame,) = read(open_one(tmp_path / "box.mkv", resize="1000x24"))
    assert frame.picture.array().shape == (24, 32, 3)


def turned(path: Path, quarter: str) -> Path:
    """The same MP4 with a rotation written into its track's matrix."""
    matrices = {"90": [0, 1, -1, 0], "180": [-1, 0, 0, -1], "270": [0, -1, 1, 0]}
    a, b, c, d = (value * 0x10000 & 0xFFFFFFFF for value in matrices[quarter])
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 40
    for offset, value in ((0, a), (4, b), (12, c), (16, d)):
        content[place + offset : place + offset + 4] = value.to_bytes(4, "big")
    target = path.with_name(f"turned{quarter}.mp4")
    target.write_bytes(content)
    return target


@pytest.mark.parametrize(("quarter", "corner"), [("90", (0, -1)), ("180", (-1, -1)), ("270", (-1, 0))])
def test_rotation_is_honoured(tmp_path: Path, quarter: str, corner: tuple[int, int]) -> None:
    image = np.zeros((48, 64, 3), dtype=np.uint8)
    image[:16, :16] = 255
    write_frames(tmp_path / "upright.mp4", [0, 40], iter([image, image]), codec="libx264", pix_fmt="yuv420p")
    frames = read(open_one(turned(tmp_path / "upright.mp4", quarter)))
    expected = (48, 64) if quarter == "180" else (64, 48)
    array = frames[0].picture.array()
    assert array.shape[:2] == expected == (frames[0].info.height_px, frames[0].info.width_px)
    rows = slice(0, 8) if corner[0] == 0 else slice(-8, None)
    columns = slice(0, 8) if corner[1] == 0 else slice(-8, None)
    assert array[rows, columns].min() > 180
    assert array.mean() < 60


def test_the_containers_own_time_is_the_capture_time(tmp_path: Path) -> None:
    path = tmp_path / "dated.mp4"
    with av.open(str(path), "w") as container:
        container.metadata["creation_time"] = "2024-05-06T07:08:09.000000Z"
        stream = container.add_stream("mpeg4", rate=10)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for image in greys(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="bgr24")))
        container.mux(stream.encode(None))
    recorded = datetime.datetime(2024, 5, 6, 7, 8, 9, tzinfo=datetime.UTC)
    expected = [int(recorded.timestamp()) * 10**9 + index * 100_000_000 for index in range(3)]
    assert [frame.info.captured_at_ns for frame in read(open_one(path))] == expected


def test_the_same_content_elsewhere_has_the_same_ids(clips: Path, tmp_path: Path) -> None:
    copy = tmp_path / "other name.mp4"
    copy.write_bytes((clips / "clip.mp4").read_bytes())
    os.utime(copy, (1_700_000_000, 1_700_000_000))
    (source,) = open_sources([f"clip={copy}"], ProducerSettings())
    copied, original = read(source), read(open_one(clips / "clip.mp4"))
    assert [frame.info.frame_id for frame in copied] == [frame.info.frame_id for frame in original]
    assert copied[0].info.captured_at_ns == 1_700_000_000 * 10**9


def test_damage_in_the_middle_is_skipped_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "damaged.avi"
    write_clip(path, 1, fps=20, codec="mjpeg", size_wh=SIZE_WH)
    content = bytearray(path.read_bytes())
    starts = [place for place in range(len(content) - 3) if content[place : place + 3] == b"\xff\xd8\xff"]
    assert len(starts) == 20
    content[starts[8] : starts[9] - 8] = bytes(starts[9] - 8 - starts[8])
    path.write_bytes(content)
    source = open_one(path)
    events: list[tuple[str, int]] = []
    source.progress.on_event = lambda event, amount: events.append((event, amount))
    frames = read(source)
    assert len(frames) == 19
    assert events == [("skipped", 1)]


@pytest.mark.parametrize("suffix", ["mkv", "ts", "avi", "flv"])
def test_noise_in_the_middle_does_not_end_a_file(clips: Path, tmp_path: Path, suffix: str) -> None:
    content = bytearray((clips / f"clip.{suffix}").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 3000] = np.random.default_rng(1).bytes(3000)
    path = tmp_path / f"noise.{suffix}"
    path.write_bytes(content)
    frames = read(open_one(path))
    assert 15 <= len(frames) <= 30
    assert frames[-1].info.media_time_ms is not None
    assert frames[-1].info.media_time_ms > 1700
    assert all(b > a for a, b in itertools.pairwise(time for time in times(frames) if time is not None))


@pytest.mark.parametrize("suffix", ["mkv", "flv"])
def test_a_file_that_is_cut_off_is_read_as_far_as_it_goes(
    tmp_path: Path, suffix: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = tmp_path / f"whole.{suffix}"
    write_clip(whole, 6, fps=10, size_wh=SIZE_WH)
    cut = tmp_path / f"cut.{suffix}"
    content = whole.read_bytes()
    cut.write_bytes(content[: len(content) // 3])
    with caplog.at_level(logging.WARNING):
        frames = read(open_one(cut))
    assert 8 <= len(frames) <= 35
    assert "cut off" in caplog.text


def test_a_decoder_that_is_killed_is_replaced_and_nothing_is_lost(clips: Path) -> None:
    expected = [frame.info for frame in read(open_one(clips / "clip.mkv"))]
    source = open_one(clips / "clip.mkv")
    events: list[str] = []
    source.progress.on_event = lambda event, amount: events.append(event)
    seen = []
    for frame in source.frames(threading.Event()):
        seen.append(frame.info)
        if len(seen) == 12:
            (decoder,) = decoders()
            decoder.kill()
            decoder.wait()
    assert seen == expected
    assert events == ["reconnects"]


def test_a_decoder_that_hangs_is_killed_and_replaced(clips: Path) -> None:
    source = open_one(clips / "clip.mkv", timeout_s=0.5)
    frames = source.frames(threading.Event())
    seen = [next(frames).info]
    (decoder,) = decoders()
    decoder.suspend()
    seen += [frame.info for frame in frames]
    assert seen == [frame.info for frame in read(open_one(clips / "clip.mkv"))]
    assert not decoder.is_running()


def test_no_decoder_outlives_its_parent(clips: Path) -> None:
    program = (
        "import sys, threading\n"
        "from producers.sources import open_sources\n"
        "from ocrstream.config import ProducerSettings\n"
        "(source,) = open_sources([sys.argv[1]], ProducerSettings())\n"
        "frames = source.frames(threading.Event()); next(frames)\n"
        "sys.stdout.write('reading\\n'); sys.stdout.flush(); threading.Event().wait()\n"
    )
    parent = subprocess.Popen([sys.executable, "-c", program, str(clips / "clip.mp4")], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    assert parent.stdout.readline() == b"reading\n"
    children = psutil.Process(parent.pid).children()
    assert len(children) == 1
    parent.kill()
    parent.communicate()
    gone, alive = psutil.wait_procs(children, timeout=20)
    assert (len(gone), alive) == (1, [])


def test_a_stop_ends_it_and_its_process(clips: Path) -> None:
    source = open_one(clips / "clip.mp4")
    stop = threading.Event()
    frames = source.frames(stop)
    next(frames)
    stop.set()
    assert len(list(frames)) <= 1
    assert decoders() == []


READ_STDIN = """
import json, sys, threading, zlib
from producers.sources import open_sources
from ocrstream.config import ProducerSettings
(source,) = open_sources(["-"], ProducerSettings())
for frame in source.frames(threading.Event()):
    info = frame.info
    print(json.dumps([info.source_id, info.media_time_ms, info.width_px, zlib.crc32(frame.picture.encoded())]))
"""


@pytest.mark.parametrize("kind", ["ts", "mkv", "jpegs"])
def test_standard_input(clips: Path, scene: DemoScene, kind: str) -> None:
    if kind == "jpegs":
        images = [cv2.imencode(".jpg", small(scene.render(index)))[1].tobytes() for index in range(30)]
        content = b"".join(images)
    else:
        content = (clips / f"clip.{kind}").read_bytes()
    result = subprocess.run([sys.executable, "-c", READ_STDIN], input=content, capture_output=True, check=True)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    assert len(rows) == 30
    assert {(row[0], row[2]) for row in rows} == {("stdin", SIZE_WH[0])}
    if kind == "jpegs":
        assert [row[3] for row in rows] == [zlib.crc32(image) for image in images]
    assert all(b[1] > a[1] for a, b in itertools.pairwise(rows))


def test_nothing_on_standard_input() -> None:
    result = subprocess.run(
        [sys.executable, "-c", READ_STDIN], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    assert result.returncode == 1
    assert "SourceError: -: it cannot be read as a video" in result.stderr


def test_an_index_at_the_end_on_standard_input(clips: Path) -> None:
    content = (clips / "clip.mp4").read_bytes()
    assert content.index(b"mdat") < content.index(b"moov")
    with subprocess.Popen(["cat", str(clips / "clip.mp4")], stdout=subprocess.PIPE) as cat:
        result = subprocess.run([sys.executable, "-c", READ_STDIN], stdin=cat.stdout, capture_output=True, text=True)
    assert result.returncode == 1
    assert "name the file instead, or convert it with -movflags +faststart" in result.stderr


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("missing.mp4", None, "there is no such file"),
        ("empty.mp4", b"", "the file is empty"),
        ("text.mp4", b"this is no video at all\n" * 100, "cannot be read as a video"),
        ("noise.mkv", np.random.default_rng(1).bytes(5000), "cannot be read as a video"),
    ],
)
def test_files_that_are_no_videos(tmp_path: Path, name: str, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        open_one(tmp_path / name)


def test_a_video_that_was_cut_before_its_index(clips: Path, tmp_path: Path) -> None:
    (tmp_path / "cut.mp4").write_bytes((clips / "clip.mp4").read_bytes()[:20_000])
    with pytest.raises(SourceError, match="cannot be read as a video"):
        open_one(tmp_path / "cut.mp4")


def test_sound_without_a_picture(tmp_path: Path) -> None:
    path = tmp_path / "sound.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        assert isinstance(stream, av.AudioStream)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(SourceError, match="sound but no picture"):
        open_one(path)


def test_settings_that_do_not_fit_the_file(clips: Path) -> None:
    with pytest.raises(SourceError, match=r"2\.0 seconds long, so nothing is left from --start 1:00 on"):
        open_one(clips / "clip.mp4", start="1:00")
    with pytest.raises(SourceError, match="the region 300,0,100,50 reaches outside the frame of 320x180 pixels"):
        open_one(clips / "clip.mp4", roi="300,0,100,50")


def test_an_image_added_before_the_others_is_read_by_the_next_run(tmp_path: Path) -> None:
    shots, data = tmp_path / "shots", tmp_path / "data"
    shots.mkdir()

    def run_after_adding(*names: str) -> str:
        for value, name in enumerate(names):
            cv2.imwrite(str(shots / name), np.full((48, 64, 3), 40 * value, dtype=np.uint8))
        engines = ("--detector", "blocks", "--recognizer", "plain")
        return ocrstream("run", shots, "--no-serve", "--data", data, *engines).stderr

    assert "3 frames in" in run_after_adding("b1.png", "b2.png", "b3.png")
    said = run_after_adding("a0.png")
    assert "1 frame in" in said
    assert "read before; to read it" not in said
    assert "shots: all of it was read before; to read it with other options" in run_after_adding()
