"""The main job in one process, as a user runs it: a source in, a search over its frames out."""

import signal
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ocrstream_test_engines import make_picture

from ocrstream.messages import Appearance
from ocrstream.picture import Image
from ocrstream.storage.embedded import EmbeddedStore
from tests.documents import frame
from tests.e2e.commands import json_lines, ocrstream, running, until
from tests.e2e.videos import write_video
from tests.services.rtsp import AS_A_CAMERA, RtspCamera

PAIR = ("--detector", "blocks", "--recognizer", "plain")
ENGINES = (*PAIR, "--read", "all")


def pictures(count: int) -> list[Image]:
    """A clip that shows a running number and a sign that is there in its second half."""
    found = []
    for number in range(count):
        lines = [(f"number {number:03d}", (40.0, 30.0, 340.0, 80.0))]
        if number >= count // 2:
            lines.append(("Gate B12", (40.0, 200.0, 340.0, 250.0)))
        found.append(make_picture(lines))
    return found


def regions(data: Path) -> list[dict[str, Any]]:
    return json_lines(ocrstream("export", "--data", data).stdout)


def identities(data: Path) -> Counter[tuple[str, int, str]]:
    return Counter((r["frame_id"], r["line_number"], r["text"]) for r in regions(data) if r["kind"] == "region")


def signs(data: Path) -> list[tuple[float, float]]:
    """From when to when the sign was there, each time."""
    found = json_lines(ocrstream("export", "--kind", "appearances", "--data", data).stdout)
    return [(sign["first_ms"], sign["last_ms"]) for sign in found if sign["text"] == "Gate B12"]


def test_the_demo_is_found_by_search(tmp_path: Path) -> None:
    data = tmp_path / "data"
    ocrstream("run", "demo:?seconds=4&fps=1&live=0", "--no-serve", "--data", data)
    (best, *_) = json_lines(ocrstream("search", "boarding", "--data", data, "--json").stdout)
    assert best["source"] == "demo"
    found = [line for line in best["lines"] if line["matches"]]
    assert "boarding" in found[0]["text"].lower()
    assert found[0]["confidence"] > 0.8
    shown = ocrstream("search", "boarding", "--data", data).stdout
    assert "demo" in shown
    assert ".jpg" in shown
    assert "Nothing found" in ocrstream("search", "zebra", "crossing", "--data", data, expect=1).stderr


def test_a_live_source_is_searchable_while_it_runs_and_ctrl_c_ends_cleanly(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running("run", "hall=demo:", "--no-serve", "--data", data) as run:
        until(lambda: (data / "documents.db").exists(), "the store")

        def found() -> bool:
            hits = ocrstream("search", "--source", "hall", "--limit", "1", "--json", "--data", data).stdout
            return bool(hits)

        until(found, "a frame of the running camera")
        said = run.end(signal.SIGINT)
    assert "finishing what was taken in" in said
    assert "Traceback" not in said


def test_a_camera_that_goes_off_and_on_again_is_read_on(
    tmp_path: Path, make_rtsp_camera: Callable[..., RtspCamera]
) -> None:
    clip, data = tmp_path / "clip.h264", tmp_path / "data"
    write_video(clip, pictures(60), fps=15, codec="libx264", options=AS_A_CAMERA)
    camera = make_rtsp_camera(clip=clip)
    with running("run", f"hall={camera.url}", "--no-serve", "--data", data, *ENGINES) as run:

        def shown_since(at_ns: int) -> bool:
            asked = ("search", "gate", "--newest", "--limit", "1", "--json", "--data", data)
            hits = json_lines(ocrstream(*asked, expect=None).stdout)
            return bool(hits) and hits[0]["captured_at_ns"] > at_ns

        until(lambda: shown_since(0), "a frame of the camera")
        camera.stop()
        run.say("cannot be reached")
        switched_on_ns = time.time_ns()
        camera.start()
        until(lambda: shown_since(switched_on_ns), "a frame after the camera came back")
        said = run.end(signal.SIGINT)
    assert "Traceback" not in said


def test_a_second_signal_ends_at_once_and_says_nothing_of_faults(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mkv"
    write_video(clip, pictures(400), fps=25)
    with running("run", clip, "--no-serve", "--data", tmp_path / "data", "--read", "all") as run:
        run.say("| dropped 0")
        run.process.send_signal(signal.SIGINT)
        run.say("stopping")
        said = run.end(signal.SIGINT, expect=130)
    assert "WARNING" not in said
    assert "ERROR" not in said


def test_a_file_ends_by_itself_and_a_second_run_doubles_nothing(tmp_path: Path) -> None:
    clip, data = tmp_path / "clip.mkv", tmp_path / "data"
    write_video(clip, pictures(20), fps=10)
    said = ocrstream("run", clip, "--no-serve", "--data", data, *ENGINES).stderr
    assert "done: 20 frames in, 20 read, 0 dropped, 30 texts" in said
    first = identities(data)
    assert sorted(text for _, _, text in first.elements()) == sorted(
        [f"number {number:03d}" for number in range(20)] + ["Gate B12"] * 10
    )
    ocrstream("run", clip, "--no-serve", "--data", data, *ENGINES)
    assert identities(data) == first


def test_subtitles_tell_what_stood_there_and_when(tmp_path: Path) -> None:
    clip, data = tmp_path / "clip.mkv", tmp_path / "data"
    gate, exit_ = (make_picture([(text, (40.0, 30.0, 340.0, 80.0))]) for text in ("Gate B12", "Exit here"))
    write_video(clip, [gate] * 50 + [exit_] * 50, fps=25)
    engines = (*ENGINES[:-1], "new")
    said = ocrstream("run", clip, "--no-serve", "--data", data, *engines).stderr
    assert "done: 100 frames in, 100 read, 0 dropped" in said
    assert len(regions(data)) < 20
    subtitles = ocrstream("export", "--format", "srt", "--source", "clip", "--data", data).stdout
    (first, second) = subtitles.strip().split("\n\n")
    assert first.splitlines()[0::2] == ["1", "Gate B12"]
    assert second.splitlines()[0::2] == ["2", "Exit here"]
    (began, changed), (began_again, ended) = (
        [_seconds(time_) for time_ in cue.splitlines()[1].split(" --> ")] for cue in (first, second)
    )
    assert began == 0
    assert changed == began_again == pytest.approx(2.0, abs=0.2)
    assert 3.9 < ended <= 5.0


def _seconds(time_: str) -> float:
    hours, minutes, seconds = time_.replace(",", ".").split(":")
    return int(hours) * 3600 + int(minutes) * 60 + float(seconds)


def test_a_file_killed_half_way_goes_on_where_it_stopped(tmp_path: Path) -> None:
    clip, data, whole = tmp_path / "clip.mkv", tmp_path / "data", tmp_path / "whole"
    # The sign is there from the beginning to the end.
    write_video(clip, pictures(800)[400:], fps=25)
    with running("run", clip, "--no-serve", "--data", data, *ENGINES) as run:
        until(lambda: (data / "documents.db").exists(), "the store")
        # Looked at from here: a command takes so long to start that all may have been read meanwhile.
        with closing(EmbeddedStore(data)) as store:
            until(lambda: any(source.frames > 20 for source in store.sources()), "some frames")
        run.kill()
    before = identities(data)
    assert 0 < len(before) < 800
    said = ocrstream("run", clip, "--no-serve", "--data", data, *ENGINES).stderr
    assert "goes on behind what was read before" in said
    ocrstream("run", clip, "--no-serve", "--data", whole, *ENGINES)
    assert identities(data) == identities(whole)
    assert len(identities(data)) == 800
    assert signs(data) == signs(whole)
    assert len(signs(data)) == 1


def test_a_run_closes_what_its_own_sources_have_left_open_and_no_others(tmp_path: Path) -> None:
    clip, data = tmp_path / "clip.mkv", tmp_path / "data"
    write_video(clip, pictures(2), fps=10)
    with closing(EmbeddedStore(data)) as store:
        for source_id in ("clip", "hall"):
            texts = frame(source_id, 0.0, "GATE")
            at_ns, frame_id = texts.info.captured_at_ns, texts.info.frame_id
            left_open = Appearance(
                f"{frame_id}-000",
                source_id,
                "GATE",
                0.9,
                at_ns,
                at_ns,
                None,
                None,
                frame_id,
                1,
                ((at_ns / 1e6, texts.lines[0].region.polygon),),
                closed=False,
            )
            store.write([replace(texts, appearances=(left_open,))])
        ocrstream("run", f"clip={clip}", "--no-serve", "--data", data, *ENGINES)
        assert [appearance.source_id for appearance in store.unfinished()] == ["hall"]


def test_a_replay_with_another_engine_supersedes_what_was_read(tmp_path: Path) -> None:
    clip, data = tmp_path / "clip.mkv", tmp_path / "data"
    write_video(clip, pictures(20), fps=10)
    ocrstream("run", f"hall={clip}", "--no-serve", "--data", data, *ENGINES)
    before = regions(data)
    old = tmp_path / "old.jsonl"
    ocrstream("export", "--data", data, "-o", old)
    ocrstream("replay", "--source", "hall", "--data", data, "--detector", "blocks", "--recognizer", "shout")
    after = regions(data)
    assert [(r["frame_id"], r["line_number"]) for r in after] == [(r["frame_id"], r["line_number"]) for r in before]
    assert [r["text"] for r in after] == [r["text"].upper() + "!" for r in before]
    assert {r["recognizer"] for r in after} == {"shout"}
    # An older reading that comes late changes nothing.
    ocrstream("import", old, "--data", data)
    assert regions(data) == after


def test_a_replay_of_nothing_says_so(tmp_path: Path) -> None:
    clip, data = tmp_path / "clip.mkv", tmp_path / "data"
    write_video(clip, pictures(2), fps=10)
    ocrstream("run", f"hall={clip}", "--no-serve", "--data", data, *ENGINES)
    said = ocrstream("replay", "--source", "hall", "--since", "2100-01-01", "--data", data, *PAIR, expect=1).stderr
    assert "No frame of that source and time is kept" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "nowhere.mp4"], "nowhere.mp4"),
        (["search", "x"], "there is nothing to search in"),
        (["search", '"x'], "quot"),
        (["run", "demo:", "--detector", "psychic"], "there is no detector 'psychic'; installed: "),
        (["run", "demo:", "--fps", "fast"], "--fps: expected a number, got 'fast'"),
        (["detect"], "which Kafka? Give --kafka HOST:PORT"),
        (["read", "nowhere.png"], "nowhere.png"),
    ],
)
def test_a_mistake_gets_one_sentence(tmp_path: Path, arguments: list[str], message: str) -> None:
    if arguments[0] in ("run", "search"):
        arguments = [*arguments, "--data", str(tmp_path / "data")]
    said = ocrstream(*arguments, expect=2).stderr
    assert message in said
    assert len(said.splitlines()) <= 2, said
