"""The judging of what is said of a video: pairs, appearances, linked readings, and the parts that can be left out."""

import json
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import cv2
import numpy as np
import pytest

from benchmarks.camera import packets_in_a_loop
from benchmarks.clips import ALL_KINDS, write_clip
from benchmarks.layers import Clip, Layer, SeenWord, Word
from benchmarks.pairs import appearances, frame_ms, linked, missed_pairs, pairs, said_at, said_words
from benchmarks.parts import PARTS, without
from benchmarks.realtime import Outcome, Readings, find_clips, main, read_with_ocrstream, read_with_rapidocr
from detector_consumer import glancing
from detector_consumer.asking import Asking
from detector_consumer.views import Album, View
from detector_consumer.watching import Watch
from ocrstream.geometry import Polygon, box_polygon
from ocrstream.picture import Image
from recognizer_consumer.consensus import Consensus
from search.timeline import Sighting

HERE = box_polygon(100, 50, 200, 70)


def word(
    text: str, polygon: Polygon = HERE, *, number: int = 1, ignore: bool = False, visible: float = 1.0
) -> SeenWord:
    return SeenWord(Word(number, text, polygon, ignore), visible)


def sighting(text: str, start_ms: float, end_ms: float, polygon: Polygon = HERE) -> Sighting:
    return Sighting(text, 1.0, start_ms, end_ms, ((start_ms, polygon),))


def test_a_word_takes_up_the_part_of_its_line_that_its_letters_do() -> None:
    said = said_words("to Open daily", box_polygon(0, 0, 130, 20))
    assert [(each.word, each.polygon) for each in said] == [
        ("open", box_polygon(30, 0, 70, 20)),
        ("daily", box_polygon(80, 0, 130, 20)),
    ]


@pytest.mark.parametrize(
    ("text", "polygon", "found", "said"),
    [
        ("OPEN", HERE, 1, 1),
        ("OPEN", box_polygon(105, 55, 195, 85), 1, 1),
        ("OPEN", box_polygon(100, 90, 200, 110), 0, 1),
        ("OPER", HERE, 0, 1),
        # The word's own part of the line is guessed too far left; the line lies over the word.
        ("OPEN yesterday", box_polygon(-300, 50, 210, 70), 1, 2),
        ("OP EN", HERE, 0, 0),
    ],
)
def test_a_pair_is_found_where_the_same_word_is_said_in_its_place(
    text: str, polygon: Polygon, found: int, said: int
) -> None:
    counts = pairs([[word("open")]], [said_words(text, polygon)])
    assert (counts.labelled, counts.found, counts.right, counts.said) == (1, found, found, said)


def test_a_word_said_twice_is_wrong_once() -> None:
    counts = pairs([[word("open")]], [said_words("open", HERE) * 2])
    assert (counts.found, counts.said, counts.wrong["open"]) == (1, 2, 1)


@pytest.mark.parametrize(
    "passed_over",
    [
        word("###", ignore=True),
        word("open", visible=0.4),
        word("open", box_polygon(140, 56, 160, 64)),
        word("no"),
    ],
)
def test_what_does_not_count_is_neither_missed_nor_wrong(passed_over: SeenWord) -> None:
    assert pairs([[passed_over]], [[]]).figures()["labelled"] == 0
    assert pairs([[passed_over]], [said_words("anything", HERE)]).figures()["said"] == 0
    elsewhere = said_words("anything", box_polygon(100, 150, 200, 170))
    assert pairs([[passed_over]], [elsewhere]).figures()["said"] == 1


def test_missed_words_are_those_of_which_any_part_is_missing() -> None:
    seen = [word("co-operative store"), word("sale", box_polygon(0, 0, 40, 15))]
    said = said_words("co-operative", HERE) + said_words("sale", box_polygon(0, 0, 40, 15))
    assert missed_pairs(seen, said) == [seen[0]]


def test_an_appearance_says_its_words_along_its_path() -> None:
    path = ((0.0, box_polygon(0, 0, 100, 20)), (1000.0, box_polygon(200, 0, 300, 20)))
    moving = Sighting("open", 1.0, 0.0, 1000.0, path)
    assert said_at([moving], 500.0)[0].polygon == box_polygon(100, 0, 200, 20)
    # Half a frame is forgiven; then it has gone.
    assert said_at([moving], 1010.0)
    assert not said_at([moving], 1020.0)


@pytest.mark.parametrize(
    ("frames", "held", "labelled", "found"),
    [
        (60, [(0, 31)], 1, 1),
        (60, [(0, 25)], 1, 0),
        # Two halves are no appearance that holds.
        (60, [(0, 20), (30, 50)], 1, 0),
        (29, [(0, 29)], 0, 0),
    ],
)
def test_a_word_is_found_where_one_appearance_holds_it_half_its_time(
    frames: int, held: Sequence[tuple[int, int]], labelled: int, found: int
) -> None:
    shown = [sighting("open daily", frame_ms(first), frame_ms(last)) for first, last in held]
    counts = appearances([[word("open")]] * frames, shown)
    assert (counts.labelled, counts.found) == (labelled, found)


def test_an_appearance_is_wrong_where_nothing_says_it_while_it_lasts() -> None:
    labels = [[word("open")]] * 30 + [[word("shut", number=2)]] * 30
    shown = [
        sighting("open", 0.0, frame_ms(29)),
        sighting("open", frame_ms(35), frame_ms(59)),
        sighting("shut", frame_ms(20), frame_ms(59)),
    ]
    counts = appearances(labels, shown)
    assert (counts.said, counts.right, dict(counts.wrong)) == (3, 2, {"open": 1})


def test_an_appearance_in_a_dont_care_region_does_not_count() -> None:
    counts = appearances([[word("###", ignore=True)]] * 30, [sighting("whatever", 0.0, frame_ms(29))])
    assert counts.said == 0


def test_readings_of_one_word_in_one_place_are_linked() -> None:
    there = box_polygon(100, 150, 200, 170)
    nearby = box_polygon(104, 52, 204, 72)
    lines = [[("open", HERE), ("open", there)], [("open", nearby)], [("shut", nearby)]]
    readings = [[said for line in frame for said in said_words(*line)] for frame in lines]
    shown = linked(readings, every=3)
    assert {(each.text, round(each.start_ms), round(each.end_ms), each.path[-1][1]) for each in shown} == {
        ("open", 0, 167, nearby),
        ("open", 0, 67, there),
        ("shut", 200, 267, nearby),
    }


def test_readings_far_apart_are_two_appearances() -> None:
    readings = [said_words("open", HERE), *[[] for _ in range(20)], said_words("open", HERE)]
    assert len(linked(readings, every=1)) == 2
    assert len(linked(readings[:10] + readings[-1:], every=1)) == 1


def readings_of_four() -> Readings:
    lines = [[(HERE, text)] for text in ("zero", "one", "two", "three")]
    return Readings(lines, wall_s=[1.0] * 4, cpu_s=[2.0] * 4, decoding_s=0.5)


def test_what_is_read_of_every_nth_frame_holds_until_the_next() -> None:
    outcome = readings_of_four().outcome(2)
    assert [[each.word for each in said] for said in outcome.said] == [["zero"], ["zero"], ["two"], ["two"]]
    assert (outcome.wall_s, outcome.cpu_s, outcome.every) == (2.5, 4.5, 2)


@pytest.mark.parametrize(("budget_s", "every"), [(100.0, 1), (8.5, 1), (4.5, 2), (4.4, 3), (0.1, 8_000_000)])
def test_every_nth_frame_keeps_to_the_time_of_another(budget_s: float, every: int) -> None:
    assert readings_of_four().every_within(budget_s) == every


def test_readings_are_kept_beside_their_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (video := tmp_path / "still-1.mp4").write_bytes(clip_of(tmp_path, frames=3).read_bytes())
    calls: list[tuple[int, ...]] = []

    def read(picture: Image) -> list[tuple[Polygon, str]]:
        calls.append(picture.shape)
        return [(HERE, "open")]

    monkeypatch.setattr("benchmarks.realtime.rapidocr", lambda: read)
    first = read_with_rapidocr(video)
    assert calls == [(64, 96, 3)] * 3
    assert read_with_rapidocr(video) == first
    assert len(calls) == 3
    assert first.lines == [[(HERE, "open")]] * 3


def test_without_voting_the_surest_reading_counts() -> None:
    def vote() -> str:
        consensus = Consensus()
        for text, confidence in (("OPEN", 0.7), ("OPEN", 0.7), ("OPFN", 0.8)):
            consensus.add(text, confidence)
        return consensus.voted().text

    assert vote() == "OPEN"
    with without("voting"):
        assert vote() == "OPFN"
    assert vote() == "OPEN"


def test_without_the_cache_every_view_is_wanted() -> None:
    view = View(0.5, np.zeros((20, 60), np.float32))
    album = Album()
    assert [album.look("a", view, 0).is_wanted for _ in range(3)] == [True, False, False]
    with without("cache"):
        assert album.look("a", view, 0).is_wanted


@pytest.mark.parametrize("part", [*PARTS, None])
def test_a_part_is_back_when_it_was_left_out(part: str | None) -> None:
    def all_of_them() -> list[object]:
        return [
            Asking.parts,
            vars(glancing)["is_unchanged"],
            Watch._is_time_to_look,
            Album.look,
            Consensus.add,
            Consensus.voted,
        ]

    before = all_of_them()
    with without(part):
        assert (all_of_them() == before) == (part in (None, "following"))
    assert all_of_them() == before


def clip_of(folder: Path, frames: int) -> Path:
    image = np.full((64, 96, 3), 90, np.uint8)
    cv2.putText(image, "open", (8, 40), cv2.FONT_HERSHEY_SIMPLEX, 1.0, (255, 255, 255), 2)
    layer = Layer(image, (Word(1, "open", box_polygon(8, 18, 78, 44), False),), lambda _time_s: np.eye(3))
    write_clip(Clip([layer], (96, 64), frames / 30, seed=1), folder / "made.mp4")
    return folder / "made.mp4"


@pytest.mark.parametrize("part", PARTS)
def test_a_clip_is_read_without_each_part(tmp_path: Path, part: str) -> None:
    engines = {"OCRSTREAM_DETECTOR_ENGINE": "ctpn", "OCRSTREAM_RECOGNIZER_ENGINE": "crnn"}
    with without(part):
        outcome = read_with_ocrstream(clip_of(tmp_path, 6), 6, engines)
    assert [sighting.text.lower() for sighting in outcome.sightings] == ["open"]
    assert all(outcome.said)


def test_of_clips_so_many_frames_are_taken_as_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def read(video: Path, frames: int, settings: dict[str, str]) -> Outcome:
        asked.append(settings["OCRSTREAM_PRODUCER_FPS"])
        return Outcome([[] for _ in range(frames)], [], 1.0, 1.0)

    monkeypatch.setattr("benchmarks.realtime.read_with_ocrstream", read)
    clip = clip_of(tmp_path, frames=5)
    clip.rename(tmp_path / "still-1.mp4")
    clip.with_suffix(".jsonl").rename(tmp_path / "still-1.jsonl")
    for flags in ([], ["--fps", "10"]):
        assert main([str(tmp_path), "--systems", "ocrstream", *flags]) == 0
    assert [float(fps) for fps in asked] == [0, 10]


def test_a_camera_shows_its_clip_again_without_a_jump(tmp_path: Path) -> None:
    sent = list(islice(packets_in_a_loop(clip_of(tmp_path, frames=5)), 12))
    shown_s = sorted(float((packet.pts or 0) * (packet.time_base or 0)) for _, packet, _ in sent[:10])
    assert shown_s == pytest.approx([index / 30 for index in range(10)])
    due_s = [due for due, _, _ in sent]
    assert due_s == sorted(due_s)


def test_clips_are_found_by_kind_where_they_have_labels(tmp_path: Path) -> None:
    for name in ("still-1.mp4", "still-1.jsonl", "pan-1.mp4", "ticker-2.mp4", "ticker-2.jsonl"):
        (tmp_path / name).touch()
    found = find_clips(tmp_path, ["ticker", "pan", "still"])
    assert [video.name for video in found] == ["ticker-2.mp4", "still-1.mp4"]
    with pytest.raises(ValueError, match="no labelled clip of pan: make some"):
        find_clips(tmp_path, ["pan"])
    everything = [video.name for video in find_clips(tmp_path, ALL_KINDS)]
    assert everything == ["still-1.mp4", "ticker-2.mp4", "pan-1.mp4"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--every", "0"], "1 or more"),
        (["--systems", "rapidocr-nth"], "name that among the systems too, or give --every"),
        (["--cameras", "2"], "go with --live SECONDS"),
        (["--distributed"], "go with --live SECONDS"),
        (["--live", "1", "--cameras", "0"], "1 or more"),
        (["--live", "1", "--fps", "5"], "--fps goes with files"),
        (["--kinds", "pan"], "no labelled clip of pan"),
    ],
)
def test_what_cannot_be_measured_is_said(
    tmp_path: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        main([str(tmp_path), *arguments])
    assert said in capsys.readouterr().err


def test_labels_judge_rapidocr_end_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = clip_of(tmp_path, frames=30)
    made.rename(tmp_path / "still-1.mp4")
    made.with_suffix(".jsonl").rename(tmp_path / "still-1.jsonl")
    place = box_polygon(8, 18, 78, 44)
    monkeypatch.setattr("benchmarks.realtime.rapidocr", lambda: lambda _picture: [(place, "open")])
    assert main([str(tmp_path), "--systems", "rapidocr", "rapidocr-nth", "--every", "10"]) == 0
    shown = capsys.readouterr().out
    assert "pairs: recall 1.0, precision 1.0, f 1.0, labelled 30, found 30, said 30, right 30" in shown
    (kept,) = (tmp_path / "rapidocr").iterdir()
    assert len(json.loads(kept.read_text())["lines"]) == 30


def test_of_a_video_without_labels_it_is_told_what_comes_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    made = clip_of(tmp_path, frames=30)
    made.rename(tmp_path / "hall.mp4")
    made.with_suffix(".jsonl").unlink()
    monkeypatch.setattr("benchmarks.realtime.rapidocr", lambda: lambda _picture: [(box_polygon(8, 18, 78, 44), "open")])
    assert main([str(tmp_path), "--systems", "rapidocr", "--words"]) == 0
    shown = capsys.readouterr().out
    assert "1 texts" in shown
    assert "open" in shown
    assert "pairs: " not in shown
