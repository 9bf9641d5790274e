from __future__ import annotations

import datetime
import logging
import os
import struct
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import PIL.Image
import pytest

from ocrstream.config import ProducerSettings
from ocrstream.errors import SourceError
from ocrstream.messages import Frame
from producers.sources import Source, open_sources


def write(path: Path, value: int = 100, size_wh: tuple[int, int] = (40, 30)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((size_wh[1], size_wh[0], 3), value, dtype=np.uint8))
    return path


def open_one(path: Path | str, settings: ProducerSettings | None = None) -> Source:
    (source,) = open_sources([str(path)], settings or ProducerSettings())
    return source


def read(source: Source, known: Callable[[str], bool] | None = None) -> list[Frame]:
    return list(source.frames(threading.Event(), known=known))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number, name in enumerate(["10.png", "2.jpg", "a/1.png", "A2.jpeg", ".hidden/1.png", "1.PNG"]):
        write(tmp_path / "shots" / name, 10 * number)
    (tmp_path / "shots" / "notes.txt").write_text("no image")
    return tmp_path / "shots"


def test_a_folder_in_natural_order_with_its_sub_folders(folder: Path) -> None:
    source = open_one(folder)
    frames = read(source)
    assert [Path(str(frame.info.path)).relative_to(folder).as_posix() for frame in frames] == [
        "1.PNG",
        "2.jpg",
        "10.png",
        "a/1.png",
        "A2.jpeg",
    ]
    assert (source.source_id, source.total_frames, source.live, source.progress.position_frames) == (
        "shots",
        5,
        False,
        5,
    )
    assert [int(frame.picture.array().mean().round()) for frame in frames] == [50, 10, 0, 20, 30]


def test_the_files_own_bytes_are_passed_on(folder: Path) -> None:
    (frame,) = read(open_one(folder / "2.jpg"))
    assert frame.picture.encoded() == (folder / "2.jpg").read_bytes()
    assert (frame.info.width_px, frame.info.height_px, frame.info.media_time_ms) == (40, 30, None)


def test_a_part_is_cut_out_and_encoded_anew(folder: Path) -> None:
    (frame,) = read(open_one(folder / "2.jpg", ProducerSettings(roi="0,0,20,30", resize="10x100")))
    assert frame.picture.array().shape == (15, 10, 3)
    assert frame.picture.encoded() != (folder / "2.jpg").read_bytes()


def test_a_glob(folder: Path) -> None:
    frames = read(open_one(f"{folder}/**/*.png"))
    assert [Path(str(frame.info.path)).relative_to(folder).as_posix() for frame in frames] == ["10.png", "a/1.png"]


def test_every_nth_image(folder: Path) -> None:
    frames = read(open_one(folder, ProducerSettings(every=2)))
    assert [Path(str(frame.info.path)).name for frame in frames] == ["1.PNG", "10.png", "A2.jpeg"]


def test_exactly_the_images_that_are_not_known_are_read(folder: Path) -> None:
    before = {frame.info.frame_id for frame in read(open_one(folder))}
    source = open_one(folder)
    assert read(source, before.__contains__) == []
    assert source.progress.position_frames == 5
    write(folder / "0.jpg", 150)
    write(folder / "2.jpg", 200)
    os.utime(folder / "0.jpg", ns=(0, 1))
    frames = read(open_one(folder), before.__contains__)
    assert [Path(str(frame.info.path)).name for frame in frames] == ["0.jpg", "2.jpg"]


def test_all_images_are_read_whatever_was_the_last_one(folder: Path) -> None:
    last = read(open_one(folder))[-1].info
    assert len(list(open_one(folder).frames(threading.Event(), last))) == 5


def test_ids_follow_content_and_place_in_the_folder(folder: Path, tmp_path: Path) -> None:
    before = {frame.info.frame_id for frame in read(open_one(folder))}
    moved = folder.rename(tmp_path / "elsewhere")
    (source,) = open_sources([f"shots={moved}"], ProducerSettings())
    assert {frame.info.frame_id for frame in read(source)} == before
    write(moved / "2.jpg", 77)
    assert len({frame.info.frame_id for frame in read(source)} & before) == 4


def test_damaged_images_in_a_folder_are_skipped_and_counted(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    (folder / "3.jpg").write_bytes(b"not an image")
    (folder / "4.jpg").write_bytes(b"")
    (folder / "5.png").write_bytes((folder / "10.png").read_bytes()[:60])
    source = open_one(folder)
    events: list[tuple[str, int]] = []
    source.progress.on_event = lambda event, amount: events.append((event, amount))
    with caplog.at_level(logging.WARNING):
        assert len(read(source)) == 5
    assert events == [("skipped", 1)] * 3
    assert all(name in caplog.text for name in ("3.jpg", "4.jpg", "5.png"))


def test_the_only_image_left_by_every_may_be_damaged(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    write(folder / "1.PNG").write_bytes(b"not an image")
    assert read(open_one(folder, ProducerSettings(every=6))) == []
    assert "a damaged image is skipped" in caplog.text


def huge_png(width: int, height: int) -> bytes:
    """A PNG that says it is huge, in a few bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("empty.png", b"", "the file is empty"),
        ("text.jpg", b"hello", "not an image"),
        ("wide.png", huge_png(20_000, 100), "20000x100 pixels; at most 16384 a side"),
        ("huge.png", huge_png(20_000, 20_000), "at most 16384 pixels a side and 100 megapixels are read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_one_image_that_cannot_be_read(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=message):
        open_one(tmp_path / name)


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the folder and its sub-folders hold no images"):
        open_one(tmp_path)
    (tmp_path / "clip.mp4").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"it matches no images .* give videos one by one"):
        open_one(f"{tmp_path}/*.mp4")


def test_the_cameras_own_time_is_the_capture_time(tmp_path: Path) -> None:
    exif = PIL.Image.Exif()
    details = exif.get_ifd(0x8769)
    details[0x9003], details[0x9011], details[0x9291] = "2024:05:06 07:08:09", "+02:00", "25"
    PIL.Image.new("RGB", (20, 10)).save(tmp_path / "dated.jpg", exif=exif)
    (frame,) = read(open_one(tmp_path / "dated.jpg"))
    taken = datetime.datetime(2024, 5, 6, 5, 8, 9, tzinfo=datetime.UTC)
    assert frame.info.captured_at_ns == int(taken.timestamp()) * 10**9 + 250_000_000


def test_without_it_the_files_time_is(folder: Path) -> None:
    os.utime(folder / "10.png", ns=(0, 1_700_000_000_123_456_789))
    (frame,) = read(open_one(folder / "10.png"))
    assert frame.info.captured_at_ns == 1_700_000_000_123_456_789


def test_a_turned_photo_is_put_upright(tmp_path: Path) -> None:
    image = PIL.Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 10, 20))
    exif = PIL.Image.Exif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    (frame,) = read(open_one(tmp_path / "turned.jpg"))
    array = frame.picture.array()
    assert array.shape == (40, 20, 3) == (frame.info.height_px, frame.info.width_px, 3)
    assert array[:8].min() > 200
    assert array[14:].max() < 50


def test_a_transparent_image_lies_on_white(tmp_path: Path) -> None:
    pixels = np.zeros((10, 20, 4), dtype=np.uint8)
    pixels[:, :5, 3] = 255
    PIL.Image.fromarray(pixels).save(tmp_path / "glass.png")
    (frame,) = read(open_one(tmp_path / "glass.png"))
    array = frame.picture.array()
    assert (array[:, :5].max(), array[:, 5:].min()) == (0, 255)


MODES_OF = {
    "png": ("L", "1", "P", "I;16"),
    "jpg": ("L", "CMYK"),
    "tif": ("L", "1", "P", "CMYK", "I;16"),
    "gif": ("L", "1", "P"),
    "webp": ("L",),
    "bmp": ("L", "1", "P"),
}


@pytest.mark.parametrize(("suffix", "mode"), [(suffix, mode) for suffix, modes in MODES_OF.items() for mode in modes])
def test_pixel_formats(tmp_path: Path, suffix: str, mode: str) -> None:
    if mode == "I;16":
        image = PIL.Image.fromarray(np.full((10, 20), 65_535, dtype=np.uint16))
    else:
        image = PIL.Image.new("RGB", (20, 10), "white").convert(mode)
    path = tmp_path / f"odd.{suffix}"
    image.save(path)
    (frame,) = read(open_one(path))
    assert frame.picture.array().shape == (10, 20, 3)
    assert frame.picture.array().min() > 240
