"""Cameras that come, go, hang and refuse: a real RTSP server, and small HTTP ones."""

from __future__ import annotations

import base64
import itertools
import logging
import os
import queue
import socket
import socketserver
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from ocrstream.config import ProducerSettings
from ocrstream.errors import SourceError
from ocrstream.messages import Frame, FrameInfo
from producers.demo import DemoScene, write_clip
from producers.sources import Source, open_sources
from producers.web_server import WebAnswer, ask_web_server
from tests.e2e.videos import write_video
from tests.services import free_port
from tests.services.rtsp import FPS, SIZE_WH, RtspCamera


class Watcher:
    """Reads a live source in a thread of its own, as a producer does."""

    def __init__(self, url: str, **settings: Any) -> None:
        (self.source,) = open_sources([url], ProducerSettings(**settings))
        self.stop = threading.Event()
        self.frames: queue.Queue[Frame] = queue.Queue()
        self.events: queue.Queue[str] = queue.Queue()
        self.error: Exception | None = None
        self.source.progress.on_event = lambda event, amount: self.events.put(event)
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            for frame in self.source.frames(self.stop):
                self.frames.put(frame)
        except SourceError as error:
            self.error = error
        finally:
            self.source.close()

    def await_event(self, name: str) -> None:
        while self.events.get(timeout=60) != name:
            pass

    def take(self, count: int) -> list[Frame]:
        return [self.frames.get(timeout=60) for _ in range(count)]


@contextmanager
def watching(url: str, **settings: Any) -> Iterator[Watcher]:
    watcher = Watcher(url, **settings)
    watcher.thread.start()
    try:
        yield watcher
    finally:
        watcher.stop.set()
        watcher.thread.join(timeout=30)
        assert not watcher.thread.is_alive()


def first_frame(source: Source) -> Frame:
    frames = source.frames(threading.Event())
    try:
        return next(iter(frames))
    finally:
        source.close()


def test_a_camera_that_is_switched_off_and_on_again(
    rtsp_camera: RtspCamera, rtsp_scene: DemoScene, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with watching(rtsp_camera.url, timeout_s=5) as watcher:
        before = watcher.take(10)
        rtsp_camera.stop()
        watcher.await_event("reconnects")
        watcher.frames.queue.clear()
        rtsp_camera.start()
        after = watcher.take(10)
    infos = [frame.info for frame in (*before, *after)]
    assert all(info.live and info.media_time_ms is None for info in infos)
    assert all(b.captured_at_ns > a.captured_at_ns for a, b in itertools.pairwise(infos))
    assert len({info.frame_id for info in infos}) == len(infos)
    seen = after[5].picture.array().astype(int)
    shown = [cv2.resize(rtsp_scene.render(index), SIZE_WH, interpolation=cv2.INTER_AREA) for index in range(0, 4 * FPS)]
    assert min(np.abs(seen - image).mean() for image in shown) < 8
    outages = [
        record.getMessage() for record in caplog.records if "tried again until it is there" in record.getMessage()
    ]
    assert len(outages) == 1
    assert "is back after" in caplog.text


def test_a_camera_that_is_off_at_first_is_waited_for(make_rtsp_camera: Callable[..., RtspCamera]) -> None:
    camera = make_rtsp_camera()
    camera.stop()
    with watching(camera.url, timeout_s=5) as watcher:
        watcher.await_event("reconnects")
        camera.start()
        assert watcher.take(1)[0].info.width_px == SIZE_WH[0]


def test_wrong_credentials_are_told_and_never_shown(
    make_rtsp_camera: Callable[..., RtspCamera], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    camera = make_rtsp_camera(("viewer", "right"))
    for url in (camera.url, camera.url_for("viewer", "wrongsecret")):
        (source,) = open_sources([url], ProducerSettings())
        with pytest.raises(SourceError, match="the server refuses user or password") as raised:
            first_frame(source)
        assert "wrongsecret" not in str(raised.value) + caplog.text + repr(source)
        assert raised.value.__cause__ is None
    (source,) = open_sources([camera.url_for("viewer", "right")], ProducerSettings())
    frame = first_frame(source)
    assert frame.info.width_px == SIZE_WH[0]
    assert "right" not in frame.info.source_id


def test_a_path_that_is_not_there_is_told(rtsp_camera: RtspCamera) -> None:
    (source,) = open_sources([rtsp_camera.url + "-two"], ProducerSettings())
    with pytest.raises(SourceError, match="the server has no such stream"):
        first_frame(source)


def test_a_camera_that_hangs_is_given_up_and_opened_again() -> None:
    connected: queue.Queue[None] = queue.Queue()
    release = threading.Event()

    class Silent(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            connected.put(None)
            release.wait()

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Silent) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            with watching(f"rtsp://127.0.0.1:{server.server_address[1]}/camera", timeout_s=0.5) as watcher:
                connected.get(timeout=60)
                watcher.await_event("reconnects")
                connected.get(timeout=60)
        finally:
            release.set()
            server.shutdown()
            thread.join()


def test_a_stream_that_stops_in_the_middle_is_opened_again() -> None:
    with serving(jpegs(3), hang=True) as url, watching(url, timeout_s=1) as watcher:
        watcher.take(2)
        watcher.await_event("reconnects")
        watcher.take(2)


def test_a_stop_ends_the_wait_for_a_camera() -> None:
    with watching(f"rtsp://127.0.0.1:{free_port()}/camera") as watcher:
        watcher.await_event("reconnects")
    assert watcher.error is None


def jpegs(count: int) -> list[bytes]:
    return [cv2.imencode(".jpg", np.full((48, 64, 3), 20 * number, np.uint8))[1].tobytes() for number in range(count)]


@contextmanager
def serving(images: list[bytes], *, hang: bool = False, status: int = 200) -> Iterator[str]:
    """An MJPEG camera: the images over and over, or once and then silence."""
    closing = threading.Event()

    class Camera(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if status != 200:
                self.send_error(status)
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
            self.end_headers()
            try:
                for image in images if hang else itertools.cycle(images):
                    head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(image)}\r\n\r\n"
                    self.wfile.write(head.encode() + image + b"\r\n")
                    if closing.wait(0.02):
                        return
                closing.wait()
            except OSError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            """A camera does not write into the tests' output."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Camera) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/video"
        finally:
            closing.set()
            server.shutdown()
            thread.join()


def test_an_mjpeg_streams_own_bytes_are_passed_on() -> None:
    images = jpegs(5)
    with serving(images) as url, watching(url) as watcher:
        frames = watcher.take(8)
    assert all(frame.picture.encoded() in images for frame in frames)
    assert len({frame.picture.encoded() for frame in frames}) >= 3
    assert {(frame.info.width_px, frame.info.height_px, frame.info.live) for frame in frames} == {(64, 48, True)}


def test_an_mjpeg_stream_is_decoded_where_a_part_is_asked_for() -> None:
    with serving(jpegs(1)) as url, watching(url, roi="0,0,32,48", resize="16x100") as watcher:
        (frame,) = watcher.take(1)
    assert frame.picture.array().shape == (24, 16, 3)


def test_a_slow_reader_loses_the_oldest_frames_of_a_live_source() -> None:
    with serving(jpegs(12)) as url:
        (source,) = open_sources([url], ProducerSettings(roi="0,0,64,48"))
        dropped = threading.Event()
        source.progress.on_event = lambda event, amount: dropped.set() if event == "dropped" else None
        frames = source.frames(threading.Event())
        first = next(frames)
        # While nobody reads, more frames come than are kept.
        threading.Event().wait(0.5)
        later = [next(frames) for _ in range(6)]
        source.close()
    assert dropped.is_set()
    assert later[1].info.captured_at_ns - first.info.captured_at_ns > 0.2e9


@pytest.mark.parametrize(
    ("status", "message"),
    [(401, "refuses user or password"), (403, "refuses user or password"), (404, "no such stream")],
)
def test_http_refusals_are_told(status: int, message: str) -> None:
    with serving([], status=status) as url:
        (source,) = open_sources([url.replace("//", "//user:topsecret@") + "?token=abcdef"], ProducerSettings())
        with pytest.raises(SourceError, match=message) as raised:
            first_frame(source)
    assert "topsecret" not in str(raised.value)
    assert "abcdef" not in str(raised.value)


def test_a_busy_http_camera_is_tried_again() -> None:
    with serving([], status=503) as url, watching(url) as watcher:
        watcher.await_event("reconnects")
    assert watcher.error is None


def test_a_web_page_is_no_camera() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            page = b"<html><body>This is a page, and no video.</body></html>" * 50
            self.send_response(200)
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page)

        def log_message(self, *_: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        (source,) = open_sources([f"http://127.0.0.1:{server.server_address[1]}/"], ProducerSettings())
        try:
            with pytest.raises(SourceError, match="cannot be read as a video"):
                first_frame(source)
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def serving_folder(folder: Path) -> Iterator[str]:
    class Files(SimpleHTTPRequestHandler):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *_: object) -> None:
            """Silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Files) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()


def read_all(url: str, after: FrameInfo | None = None) -> list[FrameInfo]:
    (source,) = open_sources([f"clip={url}"], ProducerSettings())
    assert not source.live
    assert source.total_ms == pytest.approx(2000, abs=150)
    try:
        return [frame.info for frame in source.frames(threading.Event(), after)]
    finally:
        source.close()


def test_a_recording_on_a_web_server_is_read_like_a_file(tmp_path: Path) -> None:
    # This server cannot seek, so going on behind a frame means reading up to it.
    write_clip(tmp_path / "clip.mkv", 2, fps=FPS, size_wh=SIZE_WH)
    with serving_folder(tmp_path) as address:
        infos = read_all(f"{address}/clip.mkv")
        assert [info.media_time_ms for info in infos] == pytest.approx([i * 1000 / FPS for i in range(30)], abs=1)
        assert read_all(f"{address}/clip.mkv", after=infos[9]) == infos[10:]


def test_a_recording_on_a_web_server_was_taken_when_the_server_says(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mkv"
    write_clip(clip, 2, fps=FPS, size_wh=SIZE_WH)
    os.utime(clip, (1_700_000_000, 1_700_000_000))
    with serving_folder(tmp_path) as address:
        infos = read_all(f"{address}/clip.mkv")
        assert infos[0].captured_at_ns == 1_700_000_000 * 10**9
        os.utime(clip, (1_800_000_000, 1_800_000_000))
        assert read_all(f"{address}/clip.mkv", after=infos[9]) == infos[10:]


def test_a_recording_whose_server_tells_no_time_was_taken_when_it_was_read() -> None:
    class Answer(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            asked.append((self.path, self.headers["Authorization"]))
            self.send_response(200)
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Last-Modified", "in spring")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Silent."""

    asked: list[tuple[str, str]] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Answer) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            answer = ask_web_server(f"http://me:p%40ss@127.0.0.1:{server.server_address[1]}/a.mp4?key=1", 5)
        finally:
            server.shutdown()
            thread.join()
    assert answer == WebAnswer(modified_ns=None, gives_parts=True)
    assert asked == [("/a.mp4?key=1", "Basic " + base64.b64encode(b"me:p@ss").decode())]
    assert ask_web_server(f"http://127.0.0.1:{free_port()}/a.mp4", 5) is None


def test_an_mp4_whose_index_a_server_cannot_jump_to_is_explained(tmp_path: Path) -> None:
    images = iter(np.random.default_rng(1).integers(0, 255, (20, 480, 640, 3), dtype=np.uint8))
    # Larger than what FFmpeg would read on through to get there.
    write_video(tmp_path / "clip.mp4", images, fps=10, codec="libx264", options={"qp": "0"})
    with serving_folder(tmp_path) as address, pytest.raises(SourceError, match=r"only as a whole.*faststart"):
        read_all(f"{address}/clip.mp4")


def test_an_hls_recording_is_read_like_a_file(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.m3u8", 2, fps=FPS, size_wh=SIZE_WH)
    with serving_folder(tmp_path) as address:
        infos = read_all(f"{address}/clip.m3u8")
    assert [info.media_time_ms for info in infos] == pytest.approx([i * 1000 / FPS for i in range(30)], abs=0.1)


def test_an_hls_playlist_without_an_end_is_live(tmp_path: Path) -> None:
    write_clip(tmp_path / "clip.m3u8", 2, fps=FPS, size_wh=SIZE_WH)
    playlist = (tmp_path / "clip.m3u8").read_text()
    (tmp_path / "clip.m3u8").write_text(playlist.replace("#EXT-X-ENDLIST", ""))
    with serving_folder(tmp_path) as address, watching(f"{address}/clip.m3u8") as watcher:
        assert watcher.source.live
        assert watcher.take(1)[0].info.width_px == SIZE_WH[0]


def test_a_host_that_does_not_exist_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(SourceError, match="there is no host 'camara'"):
        open_sources(["rtsp://user:secret@camara/live"], ProducerSettings())
