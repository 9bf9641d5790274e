from __future__ import annotations

from pathlib import Path

import pytest

from ocrstream.config import ProducerSettings
from ocrstream.errors import SourceError
from producers.sources import open_sources, parse_source, parse_sources


@pytest.mark.parametrize(
    ("text", "source_id", "url"),
    [
        ("camera:0", "camera-0", "camera:0"),
        ("camera:/dev/video2", "camera-video2", "camera:/dev/video2"),
        ("demo:", "demo", "demo:"),
        ("demo:?seed=2&live=0", "demo", "demo:?seed=2&live=0"),
        ("-", "stdin", "-"),
        ("clips/gate.mp4", "gate", "clips/gate.mp4"),
        ("/data/My clip (1).final.mkv", "My-clip-1-.final", "/data/My clip (1).final.mkv"),
        ("file:///data/a%20b.mp4", "a-b", "file:///data/a%20b.mp4"),
        ("photos/*.jpg", "photos", "photos/*.jpg"),
        ("rtsp://10.0.0.5:8554/live/1", "10.0.0.5-8554-live-1", "rtsp://10.0.0.5:8554/live/1"),
        ("gate=rtsp://host/live?profile=2", "gate", "rtsp://host/live?profile=2"),
        ("North door = camera:1", "North door", "camera:1"),
        ("http://host/video?id=3", "host-video", "http://host/video?id=3"),
    ],
)
def test_names_and_addresses(text: str, source_id: str, url: str) -> None:
    spec = parse_source(text)
    assert (spec.source_id, spec.url) == (source_id, url)


def test_a_file_whose_name_looks_like_a_named_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a=b.mp4").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    assert parse_source("a=b.mp4").url == "a=b.mp4"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("rtsp://admin:hunter22@cam/live", "rtsp://cam/live"),
        ("rtsp://admin:p@ss:w0rd@cam/live", "rtsp://cam/live"),
        ("http://cam/video?user=bob&password=hunter22&size=1", "http://cam/video?user=…&password=…&size=1"),
        ("https://cam/x?access_token=hunter22", "https://cam/x?access_token=…"),
    ],
)
def test_credentials_are_nowhere_but_in_the_url(url: str, shown: str) -> None:
    spec = parse_source(url)
    assert spec.shown == shown
    visible = f"{spec!r} {spec.source_id} {spec.shown}"
    assert not any(secret in visible for secret in ("hunter22", "admin", "bob", "w0rd"))


def test_messages_of_others_are_scrubbed() -> None:
    spec = parse_source("rtsp://admin:h%40nter22@cam/live?token=abcdef")
    message = (
        "[Errno 5] failed: 'rtsp://admin:h%40nter22@cam/live?token=abcdef' (password h@nter22, token abcdef), "
        "see http://root:other@elsewhere/"
    )
    scrubbed = spec.scrub(message)
    assert not any(secret in scrubbed for secret in ("h%40nter22", "h@nter22", "abcdef", "root", "other@"))
    assert "rtsp://cam/live" in scrubbed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "a source is missing"),
        ("name=", "there is no such file"),
        ("gopher://host/", "gopher:// is not known; a source is a file or folder, camera:0"),
        ("rtsp:///live", "the address names no host; it should look like rtsp://HOST/PATH"),
    ],
)
def test_what_is_no_source(text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        open_sources([text], ProducerSettings())


def test_two_sources_need_two_names() -> None:
    assert [spec.source_id for spec in parse_sources(["a=demo:", "b=demo:"])] == ["a", "b"]
    with pytest.raises(SourceError, match=r"2 sources are called 'demo' .*name them: first=demo: second="):
        parse_sources(["demo:", "demo:?seed=2"])
    with pytest.raises(SourceError, match="a source is missing"):
        parse_sources([])


def test_a_camera_that_is_not_there() -> None:
    with pytest.raises(SourceError, match=r"camera:97: /dev/video97 is not there; "):
        open_sources(["camera:97"], ProducerSettings())
    with pytest.raises(SourceError, match="a camera has a number"):
        open_sources(["camera:front"], ProducerSettings())
    with pytest.raises(SourceError, match=r"colour=1: a camera takes size=1280x720, fps=30"):
        open_sources(["camera:0?colour=1"], ProducerSettings())


def test_sources_already_open_are_closed_when_one_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    closed = []
    monkeypatch.setattr("producers.demo.DemoSource.close", lambda source: closed.append(source.source_id))
    with pytest.raises(SourceError, match="no such file"):
        open_sources(["demo:", "missing.mp4"], ProducerSettings())
    assert closed == ["demo"]
