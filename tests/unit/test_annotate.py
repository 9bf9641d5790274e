from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from ocrstream_test_engines import BACKGROUND, make_picture

from ocrstream.errors import ConfigError, SourceError
from ocrstream.geometry import box_polygon
from ocrstream.storage.embedded import EmbeddedStore
from pipeline.cli import main
from search.annotate import Annotated, annotate, draw
from tests.documents import appearance, frame

ENGINES = ["--detector", "blocks", "--recognizer", "plain"]

FRAME_TIMES_MS = [0, 40, 120, 400, 440, 1000, 1960, 2000]
"""Uneven, as a phone records it."""


def write_video(path: Path, size_wh: tuple[int, int] = (320, 180), *, sound: bool = False) -> None:
    """A grey video with the frames of FRAME_TIMES_MS and, on request, two seconds of sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25)
        assert isinstance(video, av.VideoStream)
        video.width, video.height = size_wh
        video.pix_fmt = "yuv420p"
        video.codec_context.time_base = Fraction(1, 1000)
        audio = container.add_stream("aac", rate=44_100, layout="mono") if sound else None
        for at_ms in FRAME_TIMES_MS:
            picture = av.VideoFrame.from_ndarray(np.full((*size_wh[::-1], 3), 128, np.uint8), format="bgr24")
            picture.pts, picture.time_base = at_ms, Fraction(1, 1000)
            container.mux(video.encode(picture))
        container.mux(video.encode(None))
        if audio is not None:
            assert isinstance(audio, av.AudioStream)
            for number in range(86):
                samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                samples.sample_rate, samples.pts, samples.time_base = 44_100, number * 1024, Fraction(1, 44_100)
                container.mux(audio.encode(samples))
            container.mux(audio.encode(None))


def read_video(path: Path) -> dict[int, np.ndarray]:
    """The pictures of a video by their time in milliseconds."""
    with av.open(str(path)) as container:
        start = container.streams.video[0].start_time or 0
        assert start == 0
        return {
            round(float(each.pts * each.time_base) * 1000): each.to_ndarray(format="bgr24")
            for each in container.decode(video=0)
            if each.pts is not None and each.time_base is not None
        }


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    made = EmbeddedStore(tmp_path / "data")
    yield made
    made.close()


BOX = box_polygon(200, 160, 400, 240)
"""In frames of 640x360; in the video of 320x180 it is 100, 80 to 200, 120."""


def store_sign(store: EmbeddedStore, first_ms: int, last_ms: int) -> None:
    """A sign from one time to another; every frame was kept."""
    frames = {at_ms: frame("clip", at_ms / 1000, media=True) for at_ms in FRAME_TIMES_MS}
    news = (appearance("GATE", frames[first_ms], frames[last_ms], BOX),)
    store.write([*list(frames.values())[:-1], replace(frames[FRAME_TIMES_MS[-1]], appearances=news)])


def is_drawn(picture: np.ndarray, x: int, y: int) -> bool:
    """Whether a box's edge is at a place (colours bleed a little in 4:2:0)."""
    return bool(np.abs(picture[y - 1 : y + 2, x - 1 : x + 2].astype(int) - 128).max() > 40)


def test_boxes_are_drawn_where_and_when_text_was(tmp_path: Path, store: EmbeddedStore) -> None:
    write_video(tmp_path / "clip.mp4")
    store_sign(store, 40, 120)
    done: list[float] = []
    report = annotate(tmp_path / "clip.mp4", store, tmp_path / "out.mp4", "clip", progress=done.append)
    assert report == Annotated(frames=8, texts=1, codec="libx264", has_sound=False)
    pictures = read_video(tmp_path / "out.mp4")
    assert list(pictures) == FRAME_TIMES_MS
    assert {picture.shape for picture in pictures.values()} == {(180, 320, 3)}
    left = [at_ms for at_ms, picture in pictures.items() if is_drawn(picture, 100, 100)]
    bottom = [at_ms for at_ms, picture in pictures.items() if is_drawn(picture, 150, 120)]
    assert left == bottom == [40, 120]
    assert not is_drawn(pictures[40], 250, 100)
    # The label stands above the box.
    assert is_drawn(pictures[40], 103, 70)
    assert done == sorted(done)
    assert 0.9 < done[-1] <= 1.0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "data", "out.mp4"]


def test_boxes_move_along_the_path_of_a_track(tmp_path: Path, store: EmbeddedStore) -> None:
    write_video(tmp_path / "clip.mp4")
    right = box_polygon(400, 160, 600, 240)
    first, last = (frame("clip", at_s, media=True) for at_s in (0.0, 0.8))
    store.write([first, replace(last, appearances=(appearance("GATE", first, last, BOX, right),))])
    annotate(tmp_path / "clip.mp4", store, tmp_path / "out.mkv", "clip")
    pictures = read_video(tmp_path / "out.mkv")
    assert is_drawn(pictures[0], 100, 100)
    # Half-way at 400 ms: 50 px further right; at the end it stands still.
    assert is_drawn(pictures[400], 150, 100)
    assert not is_drawn(pictures[400], 100, 100)
    assert is_drawn(pictures[1000], 200, 100)
    # Held for a second after the last sighting, as no frame that was read since tells otherwise.
    assert not is_drawn(pictures[2000], 200, 100)


def test_sound_comes_along(tmp_path: Path, store: EmbeddedStore) -> None:
    write_video(tmp_path / "clip.mp4", sound=True)
    store_sign(store, 40, 40)
    assert annotate(tmp_path / "clip.mp4", store, tmp_path / "out.mp4", "clip").has_sound
    with av.open(str(tmp_path / "out.mp4")) as container:
        packets = [packet for packet in container.demux(audio=0) if packet.size]
    with av.open(str(tmp_path / "clip.mp4")) as container:
        before = [packet for packet in container.demux(audio=0) if packet.size]
    assert [bytes(packet) for packet in packets] == [bytes(packet) for packet in before]


def test_odd_sizes_stay(tmp_path: Path, store: EmbeddedStore) -> None:
    write_video(tmp_path / "clip.avi", (321, 181))
    store_sign(store, 40, 40)
    annotate(tmp_path / "clip.avi", store, tmp_path / "out.mp4", "clip")
    assert next(iter(read_video(tmp_path / "out.mp4").values())).shape == (181, 321, 3)


def test_what_cannot_be_done_is_explained(tmp_path: Path, store: EmbeddedStore) -> None:
    clip, out = tmp_path / "clip.mp4", tmp_path / "out.mp4"
    write_video(clip)
    with pytest.raises(ConfigError, match="nothing of 'clip' is stored: read it first"):
        annotate(clip, store, out, "clip")
    store_sign(store, 40, 40)
    with pytest.raises(ConfigError, match=r"ends in \.mp4"):
        annotate(clip, store, tmp_path / "out.gif", "clip")
    with pytest.raises(ConfigError, match="is the video itself"):
        annotate(clip, store, clip, "clip")
    with pytest.raises(SourceError, match="is not there"):
        annotate(tmp_path / "missing.mp4", store, out, "clip")
    with pytest.raises(SourceError, match="there is no folder"):
        annotate(clip, store, tmp_path / "no" / "folder" / "out.mp4", "clip")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(SourceError, match="cannot annotate"):
        annotate(tmp_path / "text.mp4", store, out, "clip")
    write_video(tmp_path / "square.mp4", (180, 180))
    with pytest.raises(ConfigError, match="640x360, the video's are 180x180"):
        annotate(tmp_path / "square.mp4", store, out, "clip")
    with pytest.raises(SourceError, match="only video files"):
        annotate(tmp_path, store, out, "clip")
    assert not out.exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("text", ["GATE B12", "Größe €", "候機室", "게이트", "Выход", ""])
def test_texts_of_many_scripts_are_drawn(text: str) -> None:
    image = np.full((200, 400, 3), 128, np.uint8)
    draw(image, box_polygon(50, 100, 350, 150), text)
    letters = int((image[60:98] > 200).all(axis=2).sum())
    assert (letters > 20) == bool(text)


@pytest.mark.parametrize("corner", [(-50, -50), (350, 180), (-50, 180), (350, -50)])
def test_labels_stay_in_the_picture(corner: tuple[int, int]) -> None:
    image = np.full((200, 400, 3), 128, np.uint8)
    x, y = corner
    draw(image, box_polygon(x, y, x + 100, y + 40), "A LONG LABEL")
    assert int((image > 200).all(axis=2).sum()) > 50


def test_the_command_leaves_nothing_but_the_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "tmp").mkdir()
    write_video(tmp_path / "clip.mp4")
    assert main(["annotate", "clip.mp4", "-o", "out.mp4", *ENGINES]) == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.mp4", "out.mp4", "tmp"]
    assert list((tmp_path / "tmp").iterdir()) == []


def test_the_command_keeps_what_it_reads_in_a_folder_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / "clip.mp4")
    assert main(["annotate", "clip.mp4", "-o", "out.mp4", "--data", "ocrstream-data", *ENGINES]) == 0
    store = EmbeddedStore(tmp_path / "ocrstream-data")
    assert [source.source_id for source in store.sources()] == ["clip"]
    store.close()


def write_pictures(path: Path, pictures: list[np.ndarray]) -> None:
    """A video of 25 pictures a second, hardly compressed."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=25, options={"crf": "10"})
        assert isinstance(video, av.VideoStream)
        video.height, video.width = pictures[0].shape[:2]
        video.pix_fmt = "yuv420p"
        for picture in pictures:
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="bgr24")))
        container.mux(video.encode(None))


def test_the_gates_decisions_can_be_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    gate = ("Gate B12", (40.0, 30.0, 240.0, 74.0))
    before, after = make_picture([gate]), make_picture([gate, ("Exit", (300.0, 200.0, 420.0, 250.0))])
    write_pictures(tmp_path / "clip.mp4", [before] * 30 + [after] * 20)
    assert main(["annotate", "clip.mp4", "-o", "out.mp4", "--debug", "gate", *ENGINES]) == 0
    pictures = list(read_video(tmp_path / "out.mp4").values())
    assert len(pictures) == 50
    # Beside the sign that comes, in a tile that it touches, and far from all texts: dimmed where nobody has to look.
    beside, away = (
        [
            at
            for at, picture in enumerate(pictures)
            if abs(float(picture[y : y + 8, x : x + 8].mean()) - BACKGROUND) < 10
        ]
        for x, y in ((436, 240), (552, 330))
    )
    assert away == [0]
    assert beside[0] == 0
    assert beside[1] in (30, 31)
    assert len(beside) <= 4
    assert abs(float(pictures[20][330:338, 552:560].mean()) - BACKGROUND / 2) < 10
    # A changed tile's frame is red.
    blue, green, red = pictures[beside[1]][200:248, 444:450].reshape(-1, 3).astype(int).T
    assert (red - np.maximum(blue, green)).max() > 60


def test_a_gate_that_does_not_exist_is_not_drawn(tmp_path: Path) -> None:
    with pytest.raises(SystemExit):
        main(["annotate", "clip.mp4", "-o", "out.mp4", "--debug", "door"])
