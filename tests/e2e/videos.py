"""Makes video files for the tests."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av

from ocrstream.picture import Image


def write_video(
    path: Path, pictures: Iterable[Image], fps: int, codec: str = "mpeg4", options: dict[str, str] | None = None
) -> None:
    """Encode ``(H, W, 3) uint8 BGR`` pictures as a video; the container is chosen by the path's ending."""
    with av.open(path, "w") as container:
        stream: av.VideoStream | None = None
        for number, picture in enumerate(pictures):
            if stream is None:
                added = container.add_stream(codec, rate=fps, options=options or {})
                assert isinstance(added, av.VideoStream)
                stream = added
                stream.height, stream.width = picture.shape[:2]
                stream.pix_fmt = "yuv420p"
                stream.bit_rate = 8_000_000
            frame = av.VideoFrame.from_ndarray(picture, format="bgr24")
            frame.pts, frame.time_base = number, Fraction(1, fps)
            container.mux(stream.encode(frame))
        if stream is not None:
            container.mux(stream.encode(None))
