"""A real RTSP camera: GStreamer's server in a process of its own, showing a clip of the demo in a loop."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from producers.demo import DemoScene, write_clip
from tests.services import free_port, unavailable

SYSTEM_PYTHON = Path("/usr/bin/python3")
FPS = 15
SIZE_WH = (640, 360)

AS_A_CAMERA = {"preset": "veryfast", "tune": "zerolatency", "x264-params": "sliced-threads=0"}
"""Options of libx264: no frames out of order, and none in several slices, each of which GStreamer sends as a frame."""


class RtspCamera:
    """A camera that can be switched off and on again; always at the same address.

    Args:
        clip: the raw H.264 file it shows.
        account: user and password that it demands; None for neither.
    """

    def __init__(self, clip: Path, account: tuple[str, str] | None = None) -> None:
        self._clip = clip
        self._account = account or ()
        self._port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Its address, without credentials."""
        return f"rtsp://127.0.0.1:{self._port}/camera"

    def url_for(self, user: str, password: str) -> str:
        """Its address with credentials in it."""
        return self.url.replace("//", f"//{user}:{password}@")

    def start(self) -> None:
        """Switch it on; returns when it answers."""
        script = Path(__file__).with_name("rtsp_server.py")
        self._process = subprocess.Popen(
            [SYSTEM_PYTHON, script, str(self._port), self._clip, *self._account],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        if self._process.stdout.readline() != b"ready\n":
            self.stop()
            pytest.fail("the RTSP server did not start")

    def stop(self) -> None:
        """Switch it off, as by pulling the plug."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture(scope="session")
def rtsp_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four seconds of the demo as raw H.264."""
    path = tmp_path_factory.mktemp("rtsp") / "clip.h264"
    write_clip(path, 4, fps=FPS, size_wh=SIZE_WH, options=AS_A_CAMERA)
    return path


@pytest.fixture(scope="session")
def rtsp_scene() -> DemoScene:
    """What the camera looks at."""
    return DemoScene(fps=FPS)


@pytest.fixture
def make_rtsp_camera(rtsp_clip: Path) -> Iterator[Callable[..., RtspCamera]]:
    """A function that makes cameras, switched on; arguments as of `RtspCamera` after the clip, or another ``clip``."""
    _check_gstreamer()
    cameras: list[RtspCamera] = []

    def make(account: tuple[str, str] | None = None, clip: Path | None = None) -> RtspCamera:
        camera = RtspCamera(clip or rtsp_clip, account)
        cameras.append(camera)
        camera.start()
        return camera

    yield make
    for camera in cameras:
        camera.stop()


@pytest.fixture
def rtsp_camera(make_rtsp_camera: Callable[..., RtspCamera]) -> RtspCamera:
    """A camera that is switched on."""
    return make_rtsp_camera()


def _check_gstreamer() -> None:
    probe = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"
    if not SYSTEM_PYTHON.exists() or subprocess.run([SYSTEM_PYTHON, "-c", probe], capture_output=True).returncode:
        unavailable("GStreamer's RTSP server is not installed; tests/services/install.sh installs it")
