import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from indexer.importing import ImportReport, Problem, import_regions
from ocrstream.errors import BackpressureError, ConfigError, SourceError
from ocrstream.geometry import box_polygon
from ocrstream.messages import Appearance, PictureRef, Texts
from ocrstream.picture import encode_jpeg
from ocrstream.storage import Filter, WriteReport
from ocrstream.storage.embedded import EmbeddedStore
from search.export import BOX_COLUMNS, REGION_COLUMNS, OriginalPictures, as_cell, export, export_boxes
from search.timeline import Cue, Sighting, cues, timeline
from tests.documents import NOON_NS, PictureTable, appearance, frame, line, picture


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EmbeddedStore]:
    made = EmbeddedStore(tmp_path / "data")
    yield made
    made.close()


@pytest.fixture
def other(tmp_path: Path) -> Iterator[EmbeddedStore]:
    made = EmbeddedStore(tmp_path / "other")
    yield made
    made.close()


def exported(store: EmbeddedStore, format: Any = "jsonl", where: Filter | None = None, kind: Any = "regions") -> str:
    out = io.StringIO(newline="")
    export(store, where or Filter(), format, out, kind=kind)
    return out.getvalue()


def records(store: EmbeddedStore, where: Filter | None = None, kind: Any = "regions") -> list[dict[str, Any]]:
    return [json.loads(record) for record in exported(store, where=where, kind=kind).splitlines()]


SIGN = frame("cam", 1, "GATE B12", line(1, "naïve “text” 中文, =1+1\t\u2028", 0.5, track_id="t-7"))
EMPTY = frame("cam", 2)
MOVIE = frame("film.mp4", 3, "TITLE", media=True)
PHOTO = frame("photos", 4, "EXIT", path="photos/a.jpg")


def test_jsonl_has_one_region_a_line_with_its_fields(store: EmbeddedStore) -> None:
    store.write([SIGN])
    first, second = records(store)
    assert first == {
        "kind": "region",
        "source": "cam",
        "frame_id": SIGN.info.frame_id,
        "captured_at": "2026-01-01T12:00:01.000000000Z",
        "captured_at_ns": NOON_NS + 10**9,
        "media_time_ms": None,
        "path": None,
        "width_px": 640,
        "height_px": 360,
        "live": True,
        "segment": None,
        "generation": 1,
        "detector": "ppocr",
        "detector_weights": "0123456789ab",
        "recognizer": "crnn",
        "recognizer_weights": "ba9876543210",
        "asked_detector": None,
        "asked_recognizer": None,
        "picture": None,
        "lines_in_frame": 2,
        "line_number": 0,
        "text": "GATE B12",
        "confidence": 0.9,
        "detector_score": 0.75,
        "polygon": [[100, 50], [300, 50], [300, 90], [100, 90]],
        "track_id": None,
        "words": [],
    }
    assert (second["text"], second["track_id"]) == ("naïve “text” 中文, =1+1\t\u2028", "t-7")


def test_media_time_and_path_are_given_where_they_are(store: EmbeddedStore) -> None:
    store.write([MOVIE, PHOTO])
    assert [(r["media_time_ms"], r["path"]) for r in records(store)] == [(3000.0, None), (None, "photos/a.jpg")]


def test_frames_without_text_are_records_of_their_own(store: EmbeddedStore) -> None:
    store.write([SIGN, EMPTY])
    assert [r["kind"] for r in records(store)] == ["region", "region", "frame"]
    assert records(store)[2]["lines_in_frame"] == 0


def test_filter_keeps_to_confidence_time_and_source(store: EmbeddedStore) -> None:
    store.write([SIGN, EMPTY, MOVIE])
    assert [(r["text"], r["lines_in_frame"]) for r in records(store, Filter(("cam",), min_confidence=0.6))] == [
        ("GATE B12", 1)
    ]
    assert [r["text"] for r in records(store, Filter(since_ns=NOON_NS + 3 * 10**9))] == ["TITLE"]


def test_export_and_import_give_the_same_frames(store: EmbeddedStore, other: EmbeddedStore) -> None:
    odd = frame("cam", 9, line(2, "gap in the numbers"), generation=1_700_000_000_000)
    odd = replace(odd, info=replace(odd.info, segment=3, detector="ppocr", picture=PictureRef("ocr.frames", 2, 77)))
    store.write([SIGN, EMPTY, MOVIE, PHOTO, odd])
    jsonl = exported(store)
    report = import_regions(io.StringIO(jsonl), other)
    assert report == ImportReport(frames=5, regions=5)
    assert list(other.scan(Filter())) == list(store.scan(Filter()))
    assert import_regions(io.StringIO(jsonl), other).refused == 0
    assert list(other.scan(Filter())) == list(store.scan(Filter()))
    assert exported(other) == jsonl


TRACK = Appearance(
    "t-7", "cam", "GATE B12", 0.93, NOON_NS, NOON_NS + 5 * 10**9, None, None, SIGN.info.frame_id, 12,
    ((1.5, box_polygon(1, 2, 3, 4)), (2.5, box_polygon(2, 3, 4, 5))), closed=True,
)  # fmt: skip


def test_appearances_go_out_and_come_back(store: EmbeddedStore, other: EmbeddedStore) -> None:
    store.write([replace(SIGN, appearances=(TRACK,))])
    (record,) = records(store, kind="appearances")
    assert record["kind"] == "appearance"
    assert {name: record[name] for name in ("source", "track_id", "text", "confidence", "readings")} == {
        "source": "cam",
        "track_id": "t-7",
        "text": "GATE B12",
        "confidence": 0.93,
        "readings": 12,
    }
    # A camera has no media time: these are in the time of its path.
    assert (record["first_ms"], record["last_ms"]) == (NOON_NS / 1e6, NOON_NS / 1e6 + 5000)
    assert record["path"] == [[1.5, [[1, 2], [3, 2], [3, 4], [1, 4]]], [2.5, [[2, 3], [4, 3], [4, 5], [2, 5]]]]
    lines = [*exported(store).splitlines(), *exported(store, kind="appearances").splitlines()]
    assert import_regions(lines, other) == ImportReport(frames=1, regions=2, appearances=1)
    assert list(other.appearances(Filter())) == [TRACK]
    assert list(other.scan(Filter())) == list(store.scan(Filter()))


def test_appearance_without_its_frame_is_reported(store: EmbeddedStore, other: EmbeddedStore) -> None:
    store.write([replace(SIGN, appearances=(TRACK,))])
    report = import_regions(exported(store, kind="appearances").splitlines(), other)
    assert report.problems == [
        Problem(1, f"its frame {SIGN.info.frame_id} is not in the store: import the regions of cam first")
    ]


def changed(store: EmbeddedStore, **fields: Any) -> list[str]:
    """The exported lines of a frame, the second changed, between two good frames."""
    before, after = frame("cam", 0, "BEFORE"), frame("cam", 5, "AFTER")
    store.write([before, SIGN, after])
    lines = exported(store).splitlines()
    record = {name: value for name, value in (json.loads(lines[2]) | fields).items() if value != "(gone)"}
    return [*lines[:2], json.dumps(record), *lines[3:]]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"text": 7}, "field 'text' should be a string, got 7"),
        ({"text": "(gone)"}, "field 'text' should be a string, got None"),
        ({"source": ""}, "field 'source' should have 1 to 200 characters"),
        ({"confidence": 1.5}, "field 'confidence' should be 0 to 1, got 1.5"),
        ({"polygon": [[0, 0], [1, 1]]}, "polygon: a polygon has four finite points"),
        ({"captured_at_ns": "noon"}, "field 'captured_at_ns' should be a whole number, got 'noon'"),
        ({"detector": "(gone)"}, "field 'detector' should be a string, got None"),
        ({"recognizer_weights": 5}, "field 'recognizer_weights' should be a string, got 5"),
        ({"frame_id": "../../etc/passwd"}, "field 'frame_id' should be letters and digits"),
        ({"width_px": 0}, "the image is empty"),
        ({"kind": "sandwich"}, "field 'kind' should be region, frame or appearance, got 'sandwich'"),
        ({"picture": "frames"}, "field 'picture' should be [topic, partition, offset]"),
        ({"lines_in_frame": "two"}, "field 'lines_in_frame' should be a whole number"),
    ],
)
def test_malformed_line_is_named_and_its_frame_left_out(
    store: EmbeddedStore, other: EmbeddedStore, fields: dict[str, Any], reason: str
) -> None:
    report = import_regions(changed(store, **fields), other)
    assert report.frames == 2
    assert [texts.text for texts in other.scan(Filter())] == ["BEFORE", "AFTER"]
    assert report.problems[0].line == 3
    assert reason in report.problems[0].reason
    assert report.problems[1].line == 2
    assert "left out" in report.problems[1].reason
    assert str(report.problems[0]).startswith("line 3: ")


@pytest.mark.parametrize(
    "junk", ["{", "[1, 2]", '"text"', "null", "[" * 100_000, "\x00", '{"a": "\udce9"}', '{"kind": "region"}']
)
def test_junk_between_frames_harms_nothing(store: EmbeddedStore, other: EmbeddedStore, junk: str) -> None:
    store.write([SIGN, MOVIE])
    lines = exported(store).splitlines()
    report = import_regions(["", lines[0], lines[1], junk, lines[2], "  "], other)
    assert (report.frames, report.regions, report.refused) == (2, 3, 1)
    assert report.problems[0].line == 4


def test_file_that_was_cut_off_stores_whole_frames_only(store: EmbeddedStore, other: EmbeddedStore) -> None:
    store.write([frame("cam", 0, "FIRST"), SIGN])
    report = import_regions(exported(store).splitlines()[:2], other)
    assert [texts.text for texts in other.scan(Filter())] == ["FIRST"]
    assert "should have 2 lines next to each other, not 1" in report.problems[0].reason


def test_lines_of_a_frame_that_repeat_are_reported(store: EmbeddedStore, other: EmbeddedStore) -> None:
    store.write([SIGN])
    first, second = exported(store).splitlines()
    report = import_regions([first, first, second], other)
    assert report.frames == 0
    assert report.problems[0] == Problem(2, "line_number 0 does not follow the one before it")


def test_an_older_reading_never_replaces_a_newer_one(store: EmbeddedStore, other: EmbeddedStore) -> None:
    store.write([SIGN])
    newer = replace(frame("cam", 1, "READ AGAIN", generation=5))
    other.write([newer])
    assert import_regions(exported(store).splitlines(), other).outdated == 1
    assert [texts.text for texts in other.scan(Filter())] == ["READ AGAIN"]


def test_import_waits_when_the_store_asks_for_it(store: EmbeddedStore, tmp_path: Path) -> None:
    class BusyStore(EmbeddedStore):
        asked = 0

        def write(self, batch: Sequence[Texts]) -> WriteReport:
            self.asked += 1
            if self.asked < 3:
                raise BackpressureError("busy", retry_after_s=0.5 * self.asked)
            return super().write(batch)

    store.write([SIGN])
    busy, pauses = BusyStore(tmp_path / "busy"), list[float]()
    assert import_regions(exported(store).splitlines(), busy, pause=pauses.append).frames == 1
    assert pauses == [0.5, 1.0]
    busy.close()


def test_many_frames_are_imported_in_batches(store: EmbeddedStore, other: EmbeddedStore) -> None:
    store.write([frame("cam", number, f"word{number}") for number in range(450)])
    assert import_regions(exported(store).splitlines(), other).frames == 450
    assert other.sources()[0].frames == 450


def test_csv_of_regions(store: EmbeddedStore) -> None:
    store.write([SIGN, EMPTY, PHOTO])
    rows = list(csv.DictReader(io.StringIO(exported(store, "csv"), newline="")))
    assert [row["text"] for row in rows] == ["GATE B12", "naïve “text” 中文, =1+1\t\u2028", "EXIT"]
    assert float(rows[0]["x0_px"]) == 100
    assert [float(rows[2][name]) for name in ("x2_px", "y2_px")] == [300, 90]
    assert (rows[2]["path"], rows[2]["media_time_ms"]) == ("photos/a.jpg", "")


def test_csv_of_appearances(store: EmbeddedStore) -> None:
    store.write([replace(SIGN, appearances=(TRACK,))])
    (row,) = csv.DictReader(io.StringIO(exported(store, "csv", kind="appearances"), newline=""))
    assert (row["text"], row["last_at"], row["readings"]) == ("GATE B12", "2026-01-01T12:00:05.000000000Z", "12")


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("GATE", "GATE"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+cmd|' /C calc'!A0", "'+cmd|' /C calc'!A0"),
        ("-5 °C", "'-5 °C"),
        ("-5.20", "-5.20"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("", ""),
        (None, None),
    ],
)
def test_no_cell_is_a_formula(text: str | None, cell: str | None) -> None:
    assert as_cell(text) == cell


def test_unknown_formats_are_refused(store: EmbeddedStore) -> None:
    with pytest.raises(ConfigError, match="cannot export regions as xml: give jsonl, csv, srt, vtt"):
        exported(store, "xml")
    with pytest.raises(ConfigError, match="regions or appearances"):
        exported(store, "jsonl", kind="frames")


def test_srt_merges_what_stays_and_never_overlaps(store: EmbeddedStore) -> None:
    frames = [frame("film.mp4", number / 2, media=True) for number in range(6)]
    low = line(1, "WORLD").region.polygon
    news = (appearance("WORLD", frames[2], frames[4], low), appearance("HELLO", frames[1], frames[3]))
    store.write([*frames[:5], replace(frames[5], appearances=news)])
    assert exported(store, "srt") == (
        "1\n00:00:00,500 --> 00:00:01,000\nHELLO\n\n"
        "2\n00:00:01,000 --> 00:00:02,000\nHELLO\nWORLD\n\n"
        "3\n00:00:02,000 --> 00:00:02,500\nWORLD\n\n"
    )


def shown(store: EmbeddedStore, source_id: str, at_s: float, text: str, until_s: float, **changes: Any) -> None:
    """Store a frame with a text, and one without it."""
    first = frame(source_id, at_s, text, **changes)
    store.write([replace(first, appearances=(appearance(text, first, first),)), frame(source_id, until_s, **changes)])


def test_vtt_escapes_and_srt_keeps_its_arrows_apart(store: EmbeddedStore) -> None:
    shown(store, "film.mp4", 3661, "a <b> & --> c", 3661.25, media=True)
    assert exported(store, "vtt") == ("WEBVTT\n\n01:01:01.000 --> 01:01:01.250\na &lt;b&gt; &amp; --&gt; c\n\n")
    assert exported(store, "srt") == "1\n01:01:01,000 --> 01:01:01,250\na <b> & → c\n\n"


def test_live_subtitles_start_with_the_first_frame(store: EmbeddedStore) -> None:
    store.write([frame("cam", 100)])
    shown(store, "cam", 101, "NOW", 101.4)
    assert exported(store, "srt") == "1\n00:00:01,000 --> 00:00:01,400\nNOW\n\n"


def test_the_last_text_stays_as_long_as_a_frame(store: EmbeddedStore) -> None:
    frames = [frame("film.mp4", at_s, media=True) for at_s in (0, 0.04, 0.08)]
    news = (appearance("THE", frames[0], frames[1]), appearance("END", frames[2], frames[2]))
    store.write([*frames[:2], replace(frames[2], appearances=news)])
    assert exported(store, "srt") == (
        "1\n00:00:00,000 --> 00:00:00,080\nTHE\n\n2\n00:00:00,080 --> 00:00:00,120\nEND\n\n"
    )


def test_the_only_text_is_held_for_a_second_and_the_last_no_longer(store: EmbeddedStore) -> None:
    only, later = frame("film.mp4", 0, media=True), frame("film.mp4", 5, media=True)
    store.write([replace(only, appearances=(appearance("END", only, only),))])
    assert "00:00:00,000 --> 00:00:01,000" in exported(store, "srt")
    store.write([replace(later, appearances=(appearance("END", later, later),))])
    assert "00:00:05,000 --> 00:00:06,000" in exported(store, "srt")


def test_a_text_is_held_from_where_it_was_last_seen_though_no_frame_was_kept_there(store: EmbeddedStore) -> None:
    kept = [frame("film.mp4", at_s, media=True) for at_s in (0, 1.5, 3, 4.5)]
    seen = [frame("film.mp4", at_s, media=True) for at_s in (1.2, 3.1)]
    news = (appearance("SOON", kept[0], seen[0]), appearance("HELD", kept[1], seen[1]))
    store.write([*kept[:3], replace(kept[3], appearances=news)])
    spans = [(s.text, s.start_ms, s.end_ms) for s in timeline(store, "film.mp4").sightings]
    assert spans == [("SOON", 0, 1500), ("HELD", 1500, 4100)]
    assert timeline(store, "film.mp4").frames == 4


def test_a_timeline_keeps_to_the_time_and_confidence_asked_for(store: EmbeddedStore) -> None:
    frames = [frame("film.mp4", at_s, media=True) for at_s in range(7)]
    places = [box_polygon(10 * step, 0, 10 * step + 10, 10) for step in range(7)]
    news = (
        appearance("LONG", frames[0], frames[6], *places),
        appearance("BEFORE", frames[0], frames[1]),
        appearance("UNSURE", frames[3], frames[4], confidence=0.5),
    )
    store.write([*frames[:6], replace(frames[6], appearances=news)])
    where = Filter(since_ns=NOON_NS + 2 * 10**9, until_ns=NOON_NS + 5 * 10**9, min_confidence=0.6)
    seen = timeline(store, "film.mp4", where)
    (long,) = seen.sightings
    assert (long.text, long.start_ms, round(long.end_ms, 3)) == ("LONG", 2000, 6000)
    assert long.polygon_at(2500) == box_polygon(25, 0, 35, 10)
    assert seen.frames == 3
    live = [frame("cam", at_s) for at_s in range(4)]
    store.write([*live[:3], replace(live[3], appearances=(appearance("ON", live[0], live[3], *places[:2]),))])
    (on,) = timeline(store, "cam", Filter(since_ns=NOON_NS + 10**9)).sightings
    assert (on.start_ms, on.end_ms) == (0, 3000)
    assert on.polygon_at(0.5)[0][0] == pytest.approx(10 / 3, abs=0.1)


def test_what_says_nothing_is_no_sighting(store: EmbeddedStore) -> None:
    only = frame("film.mp4", 0, media=True)
    store.write([replace(only, appearances=(appearance("  ", only, only),))])
    assert timeline(store, "film.mp4").sightings == ()


def test_subtitles_are_of_one_source(store: EmbeddedStore) -> None:
    with pytest.raises(ConfigError, match="the store is empty"):
        exported(store, "srt")
    store.write([SIGN, replace(MOVIE, appearances=(appearance("TITLE", MOVIE, MOVIE),))])
    with pytest.raises(ConfigError, match=r"pick it with --source, one of cam, film\.mp4"):
        exported(store, "srt")
    assert "TITLE" in exported(store, "vtt", Filter(("film.mp4",)))


def test_a_sighting_moves_with_its_text(store: EmbeddedStore) -> None:
    places = (box_polygon(0, 0, 10, 10), box_polygon(100, 0, 110, 10))
    first, last = (frame("film.mp4", at_s, media=True) for at_s in (0, 1))
    store.write([first, replace(last, appearances=(appearance("GATE", first, last, *places),))])
    (sighting,) = timeline(store, "film.mp4").sightings
    assert (sighting.text, sighting.confidence, sighting.start_ms, sighting.end_ms) == ("GATE", 0.9, 0, 2000)
    assert sighting.polygon_at(500) == box_polygon(50, 0, 60, 10)
    assert sighting.polygon_at(-1) == places[0]
    assert sighting.polygon_at(1000) == sighting.polygon_at(9000) == places[1]


def test_what_was_voted_counts_and_not_what_a_frame_says(store: EmbeddedStore) -> None:
    first, last = (frame("film.mp4", at_s, text, media=True) for at_s, text in ((0, "GATE 812"), (1, "GATE B12")))
    store.write([first, replace(last, appearances=(appearance("GATE B12", first, last),))])
    assert [sighting.text for sighting in timeline(store, "film.mp4").sightings] == ["GATE B12"]


def test_timeline_forgets_what_a_replay_superseded(store: EmbeddedStore) -> None:
    for text, generation in (("OLD", 1), ("NEW", 9)):
        read = frame("film.mp4", 0, text, media=True, generation=generation)
        store.write([replace(read, appearances=(appearance(text, read, read),))])
    assert [sighting.text for sighting in timeline(store, "film.mp4").sightings] == ["NEW"]


def test_the_same_text_twice_at_once_is_two_sightings_and_one_cue(store: EmbeddedStore) -> None:
    first, last, empty = (frame("film.mp4", at_s, media=True) for at_s in (0, 0.5, 1))
    low, high = (
        replace(appearance("EXIT", first, last, box_polygon(100, y, 300, y + 40)), track_id=f"{y}") for y in (110, 50)
    )
    store.write([first, last, replace(empty, appearances=(low, high))])
    seen = timeline(store, "film.mp4").sightings
    assert [(s.start_ms, s.end_ms, s.polygon_at(0)[0]) for s in seen] == [(0, 1000, (100, 50)), (0, 1000, (100, 110))]
    assert list(cues(seen)) == [Cue(0, 1000, ("EXIT",))]


def test_cues_read_top_to_bottom() -> None:
    low, high = (
        Sighting(text, 1.0, 0, 100, ((0.0, box_polygon(0, y, 10, y + 10)),)) for text, y in (("low", 90), ("high", 10))
    )
    assert list(cues((low, high))) == [Cue(0, 100, ("high", "low"))]


def test_boxes_are_cut_out_and_can_be_traced(store: EmbeddedStore, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    pixels = np.full((360, 640, 3), 128, np.uint8)
    pixels[50:90, 100:300] = (0, 0, 255)
    (tmp_path / "photos" / "a.jpg").write_bytes(encode_jpeg(pixels))
    gone = frame("photos", 6, "LOST", path="photos/gone.jpg")
    store.write([PHOTO, gone, frame("photos", 7, path="photos/blank.jpg")])
    out = tmp_path / "out"
    report = export_boxes(store, Filter(), OriginalPictures(root=tmp_path), out)
    assert (report.frames, report.crops, report.without_picture) == (1, 1, ("photos/gone.jpg",))
    with (out / "texts.csv").open(newline="", encoding="utf-8") as table:
        (row,) = csv.DictReader(table)
    assert (row["path"], row["line_number"], row["text"], row["crop"]) == (
        "photos/a.jpg", "0", "EXIT", "boxes/a-000.jpg",
    )  # fmt: skip
    assert [float(row[name]) for name in ("x0_px", "y0_px", "x2_px", "y2_px")] == [100, 50, 300, 90]
    with PIL.Image.open(out / "boxes" / "a-000.jpg") as crop:
        assert crop.size == (200, 40)
        red, green, _ = crop.getpixel((100, 20))  # type: ignore[misc]
        assert red > 240
        assert green < 20


def test_pictures_that_were_shrunk_are_cut_at_the_same_place(store: EmbeddedStore, tmp_path: Path) -> None:
    store.write([SIGN])
    pictures = PictureTable()
    pictures.by_frame[SIGN.info.frame_id] = picture(320, 180)
    assert export_boxes(store, Filter(), OriginalPictures(pictures), tmp_path / "out").crops == 2
    with PIL.Image.open(tmp_path / "out" / "boxes" / f"{SIGN.info.frame_id}-000.jpg") as crop:
        assert crop.size == (100, 20)


def test_images_of_one_name_keep_apart(store: EmbeddedStore, tmp_path: Path) -> None:
    first, second = frame("a", 0, "ONE", path="a/1.jpg"), frame("b", 1, "TWO", path="b/1.png")
    store.write([first, second])
    pictures = PictureTable()
    pictures.by_frame = {texts.info.frame_id: picture() for texts in (first, second)}
    export_boxes(store, Filter(), pictures, tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out" / "boxes").iterdir())
    assert names == sorted(["1-000.jpg", f"1-{second.info.frame_id}-000.jpg"])


def test_folder_that_cannot_be_written_is_explained(store: EmbeddedStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="give another folder"):
        export_boxes(store, Filter(), PictureTable(), tmp_path / "file" / "out")


def test_every_field_is_documented(store: EmbeddedStore) -> None:
    store.write([replace(SIGN, appearances=(TRACK,))])
    told = (Path(__file__).parents[2] / "docs" / "export.md").read_text(encoding="utf-8")
    names = {*records(store)[0], *records(store, kind="appearances")[0], *REGION_COLUMNS, *BOX_COLUMNS}
    corners = {name for name in names if name[1:] in ("0_px", "1_px", "2_px", "3_px")}
    assert [name for name in sorted(names - corners) if f"`{name}`" not in told] == []
