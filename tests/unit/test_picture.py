"""Pictures: encoded and decoded once, sized as they will be seen, refused where no camera makes them."""

import io

import numpy as np
import PIL.Image
import pytest

from ocrstream.errors import MalformedRecordError
from ocrstream.picture import MAX_SIDE_PX, Picture, check_size


def jpeg(width_px: int, height_px: int, orientation: int | None = None) -> bytes:
    image = PIL.Image.new("RGB", (width_px, height_px), (200, 10, 10))
    exif = PIL.Image.Exif()
    if orientation is not None:
        exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif)
    return out.getvalue()


def test_an_array_is_encoded_once_and_decodes_to_its_size() -> None:
    picture = Picture.from_array(np.full((30, 50, 3), 90, np.uint8))
    assert picture.size_wh() == (50, 30)
    encoded = picture.encoded()
    assert picture.encoded(quality=5) is encoded
    again = Picture.from_encoded(encoded)
    assert again.size_wh() == (50, 30)
    assert again.array().shape == (30, 50, 3)
    assert again.array() is again.array()
    assert abs(int(again.array().mean()) - 90) <= 1


@pytest.mark.parametrize("orientation", [None, 1, 3, 6, 8])
def test_the_header_gives_the_size_of_the_upright_picture(orientation: int | None) -> None:
    picture = Picture.from_encoded(jpeg(60, 40, orientation))
    size_wh = picture.size_wh()
    height_px, width_px = picture.array().shape[:2]
    assert size_wh == (width_px, height_px)
    assert size_wh == ((40, 60) if orientation in (6, 8) else (60, 40))


def test_what_is_no_picture_is_said_so() -> None:
    with pytest.raises(MalformedRecordError, match=r"not an image \(5 bytes\)"):
        Picture.from_encoded(b"noise").array()
    with pytest.raises(MalformedRecordError, match=r"not an image \(0 bytes\)"):
        Picture.from_encoded(b"").size_wh()


def test_senseless_sizes_are_refused_before_decoding() -> None:
    out = io.BytesIO()
    PIL.Image.new("1", (20_000, 20_000)).save(out, "PNG")
    with pytest.raises(MalformedRecordError, match=f"at most {MAX_SIDE_PX} pixels a side"):
        Picture.from_encoded(out.getvalue()).array()
    with pytest.raises(MalformedRecordError, match="empty"):
        check_size(0, 100)


def test_only_colour_arrays_are_pictures() -> None:
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
        Picture.from_array(np.zeros((30, 50), np.uint8))
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) uint8"):
        Picture.from_array(np.zeros((0, 50, 3), np.uint8))
