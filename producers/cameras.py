"""Cameras of this machine: ``camera:0``, with a size and a frame rate asked for where wanted."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from urllib.parse import parse_qsl

from ocrstream.errors import SourceError
from producers.specs import SourceSpec

_DEVICES = Path("/dev")


def find_camera(spec: SourceSpec) -> tuple[str, str, dict[str, str]]:
    """What FFmpeg needs to open a camera: ``camera:0``, ``camera:/dev/video2``, ``camera:0?size=1920x1080&fps=30``.

    Returns:
        The device, FFmpeg's name of the kind of device, and its options.

    Raises:
        SourceError: it is not there, may not be used, or an option is unknown.
    """
    number, _, query = spec.url.partition(":")[2].partition("?")
    options = _options(spec, query)
    if sys.platform == "darwin":
        return f"{number or 0}:none", "avfoundation", options
    device = Path(number) if number.startswith("/") else _DEVICES / f"video{number or 0}"
    if not number.startswith("/") and number and not number.isdecimal():
        raise SourceError(f"{spec.shown}: a camera has a number, as in camera:0, or a device, as in camera:/dev/video0")
    if not device.exists():
        there = sorted(f"camera:{path.name[5:]}" for path in _DEVICES.glob("video[0-9]*"))
        hint = f"there is {', '.join(there)}" if there else "no camera is connected to this machine (or container)"
        raise SourceError(f"{spec.shown}: {device} is not there; {hint}")
    return str(device), "v4l2", options


def _options(spec: SourceSpec, query: str) -> dict[str, str]:
    # Webcams reach large sizes only as JPEG, and the driver takes the nearest it has of everything that is asked for.
    options = {"video_size": "1280x720", "framerate": "30", "input_format": "mjpeg"}
    for name, value in parse_qsl(query, keep_blank_values=True):
        if name == "size" and re.fullmatch(r"\d+x\d+", value):
            options["video_size"] = value
        elif name == "fps" and re.fullmatch(r"\d+(\.\d+)?", value):
            options["framerate"] = value
        elif name == "format" and re.fullmatch(r"\w+", value):
            options["input_format"] = value
        else:
            raise SourceError(f"{spec.shown}: {name}={value}: a camera takes size=1280x720, fps=30 and format=mjpeg")
    return options
