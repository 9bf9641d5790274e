"""The command line: every command is listed, explains itself, and ends a mistake with a sentence."""

import argparse
import io
import logging
import os
import re
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ocrstream import process
from ocrstream.errors import ConfigError, OcrstreamError, StoreError
from ocrstream.metrics import Metrics
from ocrstream.process import execute
from ocrstream.storage.embedded import EmbeddedStore
from pipeline import running
from pipeline.cli import COMMANDS, main
from pipeline.running import follow, share_searchable
from pipeline.status import Gauge, RunStatus, StatusLine, count_of, describe, describe_within, summarise
from pipeline.topology import TOPOLOGY
from producers.progress import Progress
from tests.documents import appearance, frame

NAMES = [command.name for _, commands in COMMANDS for command in commands]


def test_without_a_command_every_command_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    shown = capsys.readouterr().out
    for name in NAMES:
        assert f"\n  {name} " in shown


@pytest.mark.parametrize("name", NAMES)
def test_every_command_explains_itself(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: ocrstream {name} " in capsys.readouterr().out


def test_every_stage_has_its_command() -> None:
    assert [row.command for row in TOPOLOGY] == ["produce", "detect", "recognize", "index"]
    assert {row.command for row in TOPOLOGY} < set(NAMES)


@pytest.mark.parametrize(
    ("error", "code"), [(ConfigError("no such key"), 2), (StoreError("disk full"), 3), (OcrstreamError("odd"), 1)]
)
def test_an_error_is_a_sentence_and_an_exit_code(
    error: OcrstreamError, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def work(arguments: argparse.Namespace) -> int:
        raise error

    assert execute(work, argparse.Namespace()) == code
    assert capsys.readouterr().err == f"ocrstream: {error}\n"


def test_an_output_on_a_full_disk_is_a_sentence(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(process, "_let_go_of_output", lambda: None)

    def work(arguments: argparse.Namespace) -> int:
        with Path("/dev/full").open("w") as full:
            full.write("text")
        return 0

    assert execute(work, argparse.Namespace()) == 3
    assert "the output cannot be written: the disk is full" in capsys.readouterr().err


def status(**changes: float | None) -> RunStatus:
    values = {
        "frames_in": 900, "read": 90, "dropped": 810, "texts": 400, "frames_in_per_s": 30.0, "read_per_s": 3.0,
        "texts_per_s": 12.5, "delay_s": 0.42, "dead_letters": 0, "share_done": None, "left_s": None,
    }  # fmt: skip
    return RunStatus(**{**values, **changes})  # type: ignore[arg-type]


def test_a_camera_shows_its_delay_and_a_file_its_progress() -> None:
    assert describe(status()) == ("in 900 (30.0/s) | read 90 (3.0/s) | dropped 810 | delay 0.42 s | texts 400 (12.5/s)")
    assert describe(status(share_done=0.45, left_s=3725, dead_letters=2)) == (
        "[#########-----------]  45% | 1:02:05 left | in 900 (30.0/s) | read 90 (3.0/s) | dropped 810 | "
        "texts 400 (12.5/s) | set aside 2"
    )


def test_a_narrow_terminal_gets_every_number_and_no_bar() -> None:
    file = status(share_done=0.45, left_s=3725)
    assert describe_within(file, 200) == describe(file)
    without_bar = " 45% | 1:02:05 left | in 900 (30.0/s) | read 90 (3.0/s) | dropped 810 | texts 400 (12.5/s)"
    assert describe_within(file, len(without_bar)) == without_bar
    assert describe_within(file, 79) == " 45% | 1:02:05 left | in 900 | read 90 | dropped 810 | texts 400 (12.5/s)"
    assert describe_within(file, 70) == " 45% | 1:02:05 left | in 900 | read 90 | dropped 810 | texts 400"
    assert describe_within(status(), 79) == "in 900 | read 90 | dropped 810 | delay 0.42 s | texts 400 (12.5/s)"


def test_the_end_is_summed_up() -> None:
    assert summarise(status()) == "done: 900 frames in, 90 read, 810 dropped, 400 texts"
    assert summarise(status(dead_letters=2)).endswith("400 texts, 2 set aside (ocrstream dead-letters)")


def test_the_gauge_counts_what_the_stages_count() -> None:
    metrics = Metrics()
    shares = iter([0.5, 0.75])
    gauge = Gauge(metrics, [lambda: next(shares)])
    metrics.add("producer.frames", 10)
    metrics.add("producer.dropped", 4, source_id="hall")
    metrics.add("detector.dropped", 3, source_id="hall")
    metrics.add("transport.dropped", 2, source_id="hall")
    metrics.add("indexer.frames", 5)
    metrics.add("indexer.texts", 8)
    metrics.add("recognizer.dead_letters", 1)
    metrics.observe("indexer.delay", 0.25)
    first = gauge.read()
    assert (first.frames_in, first.read, first.dropped, first.texts, first.dead_letters) == (14, 5, 9, 8, 1)
    assert (first.delay_s, first.share_done, first.left_s) == (0.25, 0.5, None)
    second = gauge.read()
    assert second.share_done == 0.75
    assert second.left_s is not None


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_the_status_stays_on_the_last_line_of_a_terminal_and_messages_pass_above_it() -> None:
    terminal = Terminal()
    line = StatusLine(terminal)
    line.setFormatter(logging.Formatter("%(message)s"))
    line.show("one")
    line.handle(logging.LogRecord("x", logging.INFO, "", 0, "a message", None, None))
    line.show("two")
    line.finish("done")
    assert terminal.getvalue() == "\r\x1b[2Kone\r\x1b[2Ka message\none\r\x1b[2Ktwo\r\x1b[2Kdone\n"


def test_a_log_file_gets_the_status_now_and_then_and_no_control_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    log = io.StringIO()
    line = StatusLine(log)
    for number in range(200):
        monkeypatch.setattr("pipeline.status.time.monotonic", lambda: 1000 + number * 0.5)  # noqa: B023 used at once
        line.show(f"status at {number * 0.5:g} s")
    line.finish("done")
    assert log.getvalue() == "status at 5 s\nstatus at 35 s\nstatus at 65 s\nstatus at 95 s\ndone\n"


def test_a_query_that_begins_with_a_minus_needs_two_dashes_before_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["search", "gate", "-boarding"])
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert "write -- before a query that begins with a minus: ocrstream search -- -boarding" in said


@pytest.mark.parametrize("arguments", [["search", "--bording"], ["doctor", "-x"]])
def test_an_unknown_flag_is_named(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(arguments)
    assert f"unrecognized arguments: {arguments[-1]}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "engine", "sentence"),
    [
        ("detect", "ctpn", r"device|PyTorch"),
        ("recognize", "crnn", r"device|PyTorch"),
        ("recognize", "ppocr", r"ppocr runs on the CPU only, not on 'cuda:99'"),
        ("detect", "abacus", r"there is no detector 'abacus'"),
    ],
)
def test_an_engine_that_cannot_be_had_is_told_before_kafka_is_asked(
    command: str, engine: str, sentence: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("no broker is asked for this")

    monkeypatch.setattr(process, "KafkaTransport", connect)
    kind = "detector" if command == "detect" else "recognizer"
    assert main([command, "--kafka", "127.0.0.1:9", f"--{kind}", engine, "--device", "cuda:99"]) == 2
    assert re.search(sentence, capsys.readouterr().err)


def test_one_thing_is_not_told_of_as_many() -> None:
    assert [count_of(number, "frame") for number in (0, 1, 2)] == ["0 frames", "1 frame", "2 frames"]


class Run:
    """An embedded pipeline of which only the counters move: ``steps[n]`` is done in the n-th wait."""

    def __init__(self, *steps: Callable[["Run"], object]) -> None:
        self.metrics = Metrics()
        self.steps = list(steps)
        self.asked: list[str] = []

    def wait(self, timeout_s: float | None = None) -> bool:
        if self.steps:
            self.steps.pop(0)(self)
            return False
        return True

    def drain(self) -> None:
        self.asked.append("drain")

    def abort(self) -> None:
        self.asked.append("abort")

    def follow(self, **options: str) -> None:
        follow(self, Gauge(self.metrics), StatusLine(io.StringIO()), **options)  # type: ignore[arg-type]


def signalled(number: int) -> Callable[[Run], object]:
    return lambda run: os.kill(os.getpid(), number)


def counted(name: str, amount: int = 1) -> Callable[[Run], object]:
    return lambda run: run.metrics.add(name, amount)


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("first", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_drains_and_a_second_one_ends_at_once(first: int, second: int) -> None:
    run = Run(signalled(first), counted("indexer.frames"), signalled(second), counted("indexer.frames"))
    with pytest.raises(KeyboardInterrupt):
        run.follow()
    assert run.asked == ["drain", "abort"]
    assert len(run.steps) == 1


def test_draining_ends_when_nothing_moves_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "DRAIN_PATIENCE_S", 0.0)
    retry = counted("indexer.retries")
    run = Run(counted("producer.frames", 7), counted("indexer.frames", 4), signalled(signal.SIGTERM), *[retry] * 9)
    with pytest.raises(
        StoreError, match=r"^the store takes nothing; 3 frames taken in were not stored; read them again$"
    ):
        run.follow(advice="; read them again")
    assert run.asked == ["drain", "abort"]
    assert len(run.steps) == 8


def test_draining_lasts_as_long_as_something_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "DRAIN_PATIENCE_S", 0.0)
    run = Run(counted("producer.frames"), signalled(signal.SIGTERM), *[counted("indexer.frames")] * 9)
    run.follow()
    assert run.asked == ["drain"]


def test_without_a_stop_a_store_that_takes_nothing_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "DRAIN_PATIENCE_S", 0.0)
    run = Run(*[counted("indexer.retries")] * 9)
    run.follow()
    assert run.asked == []


def source(**changes: Any) -> Any:
    values = {"source_id": "hall", "segment": None, "live": False, "start_ms": 0.0, "total_ms": None}
    return SimpleNamespace(**{**values, "total_frames": None, "progress": Progress(), **changes})


def test_a_file_is_as_far_as_it_can_be_searched() -> None:
    part = source(segment=1, start_ms=10_000.0, total_ms=10_000.0, progress=Progress(position_ms=9000.0))
    metrics = Metrics()
    assert share_searchable(part, metrics) == 0
    metrics.set("indexer.media_time_ms", 99_000.0, source_id="hall#2")
    metrics.set("indexer.media_time_ms", 12_500.0, source_id="hall#1")
    assert share_searchable(part, metrics) == 0.25
    metrics.set("indexer.media_time_ms", 20_001.0, source_id="hall#1")
    assert share_searchable(part, metrics) == 1


def test_a_folder_is_as_far_as_its_images_are_stored_or_damaged() -> None:
    folder, metrics = source(total_frames=10, progress=Progress(position_frames=8)), Metrics()
    metrics.add("producer.frames", 7, source_id="hall")
    assert share_searchable(folder, metrics) == 0
    metrics.add("indexer.frames", 3, source_id="hall")
    metrics.add("indexer.frames", 5, source_id="other")
    metrics.add("producer.skipped", 1, source_id="hall")
    assert share_searchable(folder, metrics) == 0.4
    assert share_searchable(folder, metrics, stored=2) == 0.6
    assert share_searchable(folder, metrics, stored=100) == 0.8


def test_a_camera_has_no_end() -> None:
    assert share_searchable(source(live=True), Metrics()) is None
    demo = source(live=True, total_ms=4000.0, progress=Progress(position_ms=1000.0))
    assert share_searchable(demo, Metrics()) == 0.25


@pytest.fixture
def data(tmp_path: Path) -> Path:
    store = EmbeddedStore(tmp_path / "data")
    texts = frame("film.mp4", 3, "TITLE", media=True)
    store.write([replace(texts, appearances=(appearance("TITLE", texts, texts),))])
    store.close()
    return tmp_path / "data"


@pytest.mark.parametrize(
    ("format", "said"), [("srt", "1 cue exported.\n"), ("vtt", "1 cue exported.\n"), ("csv", "1 region exported.\n")]
)
def test_an_export_says_what_it_wrote(
    format: str, said: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(["export", "--format", format, "-o", str(out), "--data", str(data)]) == 0
    assert capsys.readouterr().err == said
    assert "TITLE" in out.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out"]


def test_an_import_counts_as_people_do(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    exported = tmp_path / "out.jsonl"
    main(["export", "-o", str(exported), "--data", str(data)])
    exported.write_text(exported.read_text() + "{}\n")
    capsys.readouterr()
    assert main(["import", str(exported), "--data", str(tmp_path / "other")]) == 1
    assert capsys.readouterr().err.endswith(
        "1 frame with 1 region and 0 appearances stored, 0 left unchanged since a later reading is there, "
        "1 line not taken.\n"
    )


def test_an_export_onto_a_full_disk_says_so(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "-o", "/dev/full", "--data", str(data)]) == 3
    assert capsys.readouterr().err == (
        "ocrstream: /dev/full cannot be written to its end: No space left on device; make room, or give another place "
        "with -o\n"
    )


def test_an_export_that_fails_leaves_the_file_of_before(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(store: object, where: object, format: str, out: io.TextIOBase, kind: str) -> int:
        out.write("half")
        raise StoreError("away")

    monkeypatch.setattr("pipeline.documents.export", fail)
    out = tmp_path / "out.jsonl"
    out.write_text("before")
    assert main(["export", "-o", str(out), "--data", str(data)]) == 3
    assert out.read_text() == "before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "out.jsonl"]
