"""The command line: every command is listed, explains itself, and ends a mistake with a sentence."""

import argparse
import io
import logging

import pytest

from ocrstream.errors import ConfigError, OcrstreamError, StoreError
from ocrstream.metrics import Metrics
from ocrstream.process import execute
from pipeline.cli import COMMANDS, main
from pipeline.status import Gauge, Status, StatusLine, describe, summarise
from pipeline.topology import TOPOLOGY

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


def status(**changes: float | None) -> Status:
    values = {
        "frames_in": 900, "read": 90, "dropped": 810, "texts": 400, "frames_in_per_s": 30.0, "read_per_s": 3.0,
        "texts_per_s": 12.5, "delay_s": 0.42, "dead_letters": 0, "share_done": None, "left_s": None,
    }  # fmt: skip
    return Status(**{**values, **changes})  # type: ignore[arg-type]


def test_a_camera_shows_its_delay_and_a_file_its_progress() -> None:
    assert describe(status()) == ("in 900 (30.0/s) | read 90 (3.0/s) | dropped 810 | delay 0.42 s | texts 400 (12.5/s)")
    assert describe(status(share_done=0.45, left_s=3725, dead_letters=2)) == (
        "[#########-----------]  45% | 1:02:05 left | in 900 (30.0/s) | read 90 (3.0/s) | dropped 810 | "
        "texts 400 (12.5/s) | set aside 2"
    )


def test_the_end_is_summed_up() -> None:
    assert summarise(status()) == "done: 900 frames in, 90 read, 810 dropped, 400 texts"
    assert summarise(status(dead_letters=2)).endswith("400 texts, 2 set aside (ocrstream dead-letters)")


def test_the_gauge_counts_what_the_stages_count() -> None:
    metrics = Metrics()
    shares = iter([0.5, 0.75])
    gauge = Gauge(metrics, [lambda: next(shares)])
    metrics.add("producer.frames", 10)
    metrics.add("detector.dropped", 3, source_id="hall")
    metrics.add("transport.dropped", 2, source_id="hall")
    metrics.add("indexer.frames", 5)
    metrics.add("indexer.texts", 8)
    metrics.add("recognizer.dead_letters", 1)
    metrics.observe("indexer.delay", 0.25)
    first = gauge.read()
    assert (first.frames_in, first.read, first.dropped, first.texts, first.dead_letters) == (10, 5, 5, 8, 1)
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


def test_a_log_file_gets_the_status_now_and_then_and_no_control_characters() -> None:
    log = io.StringIO()
    line = StatusLine(log)
    for number in range(100):
        line.show(f"status {number}")
    line.finish("done")
    assert log.getvalue() == "status 0\ndone\n"
