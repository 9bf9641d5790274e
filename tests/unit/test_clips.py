"""The clips' labels lie where their words are, whatever moves."""

import json
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from benchmarks.clips import DemoClip, load_labels, main, make_clip, write_clip
from benchmarks.kinds import KINDS

SIZE = (320, 180)
MAGENTA, GREEN = (255, 0, 255), (0, 255, 0)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Photos whose words are magenta blocks and whose don't-care regions are green ones, on grey."""
    folder, lines = tmp_path / "photos", []
    folder.mkdir()
    for number in range(12):
        image = np.full((180, 320, 3), 128, np.uint8)
        boxes = [(100, 50, 180, 80, False), (110, 100, 190, 130, False), (200, 60, 240, 80, True)]
        regions = []
        for place, (x0, y0, x1, y1, ignore) in enumerate(boxes):
            cv2.rectangle(image, (x0, y0), (x1 - 1, y1 - 1), GREEN if ignore else MAGENTA, -1)
            text = "###" if ignore else f"word{number}{place}"
            regions.append({"poly": [[x0, y0], [x1, y0], [x1, y1], [x0, y1]], "text": text, "ignore": ignore})
        cv2.imwrite(str(folder / f"{number}.png"), image)
        lines.append(json.dumps({"image": f"{number}.png", "regions": regions}))
    (folder / "gt.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_labels_lie_on_their_words_in_every_frame(photos: Path, kind: str) -> None:
    clip = make_clip(kind, photos, SIZE, 4.0, seed=3)
    checked = 0
    for index, picture in enumerate(clip.pictures()):
        assert picture.shape == (180, 320, 3)
        for word, visible in clip.words(index):
            if visible < 0.99 or word.text.startswith("#") != word.ignore:
                continue
            x, y = np.mean(word.polygon, axis=0)
            blue, green, red = picture[int(y), int(x)].astype(int)
            assert (green > red + 60) if word.ignore else (red > green + 60 and blue > green + 60), (index, word)
            checked += 1
    assert checked > len(clip)


def test_the_words_of_the_built_in_camera_are_where_its_ink_is() -> None:
    clip, ids = DemoClip(3.0, seed=2), {}
    pictures = list(clip.pictures())
    assert len(pictures) == len(clip) == 90
    for index in (0, 89):
        words = {seen.word.text: seen for seen in clip.words(index)}
        for text in ("Telephone", "ORBIT", "DEPARTURES"):
            (left, top), (right, _), (_, bottom), _ = words[text].word.polygon
            assert np.ptp(pictures[index][int(top) : int(bottom), int(left) : int(right)].mean(axis=2)) > 60
            assert words[text].visible == 1.0
        ids[index] = {text: words[text].word.id for text in ("Telephone", "ORBIT", "DEPARTURES")}
    assert ids[0] == ids[89]
    partly = [seen for index in range(90) for seen in clip.words(index) if seen.visible < 1]
    assert partly, "the ticker comes into the frame"


def test_the_built_in_camera_needs_no_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path), "--kind", "demo", "--seconds", "0.2"]) == 0
    assert len(load_labels(tmp_path / "demo-1.jsonl")) == 6
    with pytest.raises(SystemExit):
        main([str(tmp_path), "--kind", "demo", "--kind", "still"])
    assert "DATA_DIR is missing" in capsys.readouterr().err


def test_a_word_is_as_visible_as_what_is_in_front_of_it_lets(photos: Path) -> None:
    clip = make_clip("still", photos, SIZE, 6.0, seed=3)
    visible = [seen.visible for index in range(len(clip)) for seen in clip.words(index) if seen.word.id == 1]
    assert visible[0] == visible[-1] == 1.0
    assert min(visible, default=1.0) < 0.7


def test_a_word_that_leaves_the_frame_is_seen_in_part_and_then_not_at_all(photos: Path) -> None:
    clip = make_clip("pan", photos, SIZE, 6.0, seed=3)
    visible = {index: seen.visible for index in range(len(clip)) for seen in clip.words(index) if seen.word.id == 1}
    assert visible[0] == 1.0
    last = max(visible)
    assert 0 < visible[last] < 0.5
    assert last < len(clip) - 1


def test_a_word_keeps_its_id_and_another_never_gets_it(photos: Path) -> None:
    clip = make_clip("slides", photos, SIZE, 9.0, seed=3)
    texts: dict[int, set[str]] = {}
    for index in range(len(clip)):
        for seen in clip.words(index):
            texts.setdefault(seen.word.id, set()).add(seen.word.text)
    assert len(texts) == 9
    assert all(len(of_one) == 1 for of_one in texts.values())


def test_the_same_seed_makes_the_same_clip_and_another_another(photos: Path) -> None:
    first, again, other = (next(make_clip("handheld", photos, SIZE, 1.0, seed).pictures()) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_the_files_hold_every_frame_and_its_labels(photos: Path, tmp_path: Path) -> None:
    clip = make_clip("traffic", photos, SIZE, 1.0, seed=1)
    video = tmp_path / "out.mp4"
    labels = load_labels(write_clip(clip, video))
    assert labels == [clip.words(index) for index in range(30)]
    with av.open(video) as container:
        frames = [frame.to_ndarray(format="bgr24") for frame in container.decode(video=0)]
    assert len(frames) == 30
    first = next(clip.pictures()).astype(int)
    assert np.abs(cv2.blur(frames[0], (9, 9)).astype(int) - cv2.blur(first.astype(np.uint8), (9, 9))).mean() < 6


def test_a_mistake_is_told_in_a_sentence(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), str(tmp_path / "out")])
    assert "holds no gt.jsonl" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(photos), str(tmp_path / "out"), "--size", "321x180"])
    assert "write it as 1280x720" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="too few photos"):
        main([str(photos), str(tmp_path / "out"), "--kind", "slides", "--seconds", "80", "--size", "320x180"])


def test_the_command_makes_what_it_is_asked_for(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    asked = ["--kind", "still", "--kind", "ticker", "--seconds", "0.5", "--size", "320x180", "--seed", "7"]
    assert main([str(photos), str(out), *asked]) == 0
    assert sorted(path.name for path in out.iterdir()) == [
        f"{kind}-7.{ending}" for kind in ("still", "ticker") for ending in ("jsonl", "mp4")
    ]
    assert "15 frames, 2 words" in capsys.readouterr().out
