"""The loop that trains: its schedule, what it logs, and that it goes on where it was."""

import json
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ocrstream.errors import EngineError

torch = pytest.importorskip("torch", reason="PyTorch is not installed (extra training)")

from training import checkpoints, loop  # noqa: E402


class Line:
    """Learns y = 3 x - 1 from chance, and can be stopped at a step."""

    def __init__(self, stop_at: int = 10**9, stop_evaluation_by: int = 0) -> None:
        self.network = torch.nn.Linear(1, 1)
        self.optimizer = torch.optim.AdamW(self.network.parameters(), lr=0.3)
        self.seen = 0
        self.rates: list[float] = []
        self._stop_at = stop_at
        self._stop_evaluation_by = stop_evaluation_by

    def step(self, progress: float) -> Mapping[str, float]:
        assert self.network.training
        x = torch.rand(16, 1)
        loss = ((self.network(x) - 3 * x + 1) ** 2).mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.seen += 16
        self.rates.append(self.optimizer.param_groups[0]["lr"])
        if self.seen == 16 * self._stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"loss": float(loss.detach()), "samples": 16}

    def evaluate(self) -> Mapping[str, float]:
        assert not self.network.training
        assert torch.is_inference_mode_enabled()
        if self._stop_evaluation_by:
            os.kill(os.getpid(), self._stop_evaluation_by)
        return {"weight": float(self.network.weight), "bias": float(self.network.bias)}

    def state(self) -> dict[str, Any]:
        return {"seen": self.seen}

    def restore(self, state: dict[str, Any]) -> None:
        self.seen = state["seen"]


@pytest.mark.parametrize("units", ["amx_bf16", "avx512_bf16", ""])
def test_a_cpu_computes_in_what_it_is_fast_in(units: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True, "amx_bf16": False, units: True})
    assert loop.cpu_precision() == (torch.bfloat16 if units else torch.float32)
    with loop.autocast(torch.device("cpu")):
        assert (torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == torch.bfloat16) == bool(units)


def plan(out: Path, **changes: Any) -> loop.Plan:
    return loop.Plan(**{"out": out, "minutes": 0.02, "log_s": 0.1, "checkpoint_s": 0.2, **changes})


def lines_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / loop.CURVE).read_text().splitlines()]


def test_a_piece_learns_is_logged_and_is_evaluated_at_its_end(tmp_path: Path) -> None:
    torch.manual_seed(1)
    task = Line()
    figures = loop.run(task, plan(tmp_path, note="first"))
    assert figures == pytest.approx({"weight": 3, "bias": -1}, abs=0.2)
    lines = lines_of(tmp_path)
    assert lines[-1]["eval_weight"] == pytest.approx(figures["weight"], rel=1e-3)
    assert {"piece", "minutes", "steps", "samples", "loss", "rate", "samples_per_s", "note"} == lines[0].keys()
    assert lines[-1]["samples"] == task.seen
    assert lines[0]["loss"] > lines[-2]["loss"]
    assert max(task.rates) <= 0.3
    assert task.rates[-1] < 0.05 < max(task.rates)


def test_the_rate_rises_and_then_falls() -> None:
    given = loop.Plan(Path(), 1, warmup=0.1, floor=0.02)
    rates = [loop.rate(progress, given) for progress in (0, 0.05, 0.1, 0.3, 0.55, 0.8, 1.0)]
    assert rates == pytest.approx([0.01, 0.5, 1.0, 0.885, 0.51, 0.135, 0.02], abs=0.01)


def test_a_piece_that_was_cut_off_goes_on_where_it_was(tmp_path: Path) -> None:
    stopped = Line(stop_at=5)
    assert loop.run(stopped, plan(tmp_path, minutes=60)) == {}
    kept = checkpoints.load(tmp_path / loop.CHECKPOINT)
    assert (kept["position"]["steps"], kept["position"]["samples"], kept["position"]["finished"]) == (5, 80, False)
    again = Line(stop_at=6)
    loop.run(again, plan(tmp_path, minutes=60))
    assert again.seen == 96, "one step more"
    weight = checkpoints.load(tmp_path / loop.CHECKPOINT)["network"]["weight"]
    assert float(weight) != float(kept["network"]["weight"])


def test_going_on_is_the_same_as_not_having_stopped(tmp_path: Path) -> None:
    def weights(*stops: int) -> list[float]:
        out = tmp_path / "-".join(map(str, stops))
        torch.manual_seed(3)
        for stop in stops:
            # A generator that stands elsewhere, as a new process's would.
            task = Line(stop_at=stop)
            loop.run(task, plan(out, minutes=10**9, warmup=0.0))
            torch.manual_seed(99)
        return [float(value) for value in task.network.state_dict().values()]

    # The seed decides the first weights too, so both begin alike.
    assert weights(4, 9) == pytest.approx(weights(9), abs=1e-6)


def test_the_generator_of_the_gpu_in_use_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gpu, given = torch.device("cuda:1"), []
    states = {gpu: torch.tensor([7])}
    monkeypatch.setattr(loop, "_gpu", lambda _task: gpu)
    monkeypatch.setattr(torch.cuda, "get_rng_state", states.__getitem__)
    monkeypatch.setattr(torch.cuda, "set_rng_state", lambda state, device: given.append((state.tolist(), device)))
    loop.run(Line(stop_at=1), plan(tmp_path))
    assert given == []
    loop.run(Line(stop_at=2), plan(tmp_path))
    assert given == [([7], gpu)]
    monkeypatch.undo()
    # On to a machine without one.
    assert loop.run(Line(stop_at=3), plan(tmp_path)) == {}
    assert "cuda" not in checkpoints.load(tmp_path / loop.CHECKPOINT)["rng"]


def test_a_stopped_piece_that_is_given_less_time_than_it_had_is_only_judged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopped = Line(stop_at=5)
    assert loop.run(stopped, plan(tmp_path, minutes=60)) == {}
    again = Line()
    assert loop.run(again, plan(tmp_path, minutes=1e-9)).keys() == {"weight", "bias"}
    assert again.seen == stopped.seen
    assert "minutes already and is only judged now" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_piece_that_is_stopped_while_it_is_judged_is_judged_by_the_next_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, number: int
) -> None:
    caplog.set_level("INFO")
    before = signal.getsignal(number)
    stopped = Line(stop_evaluation_by=number)
    assert loop.run(stopped, plan(tmp_path)) == {}
    assert "judging, which can take minutes" in caplog.text
    assert f"weights are kept in {tmp_path / loop.CHECKPOINT}, and the same command judges them first" in caplog.text
    assert not any("eval_weight" in line for line in lines_of(tmp_path))
    assert signal.getsignal(number) == before
    kept = checkpoints.load(tmp_path / loop.CHECKPOINT)["network"]
    again = Line()
    assert loop.run(again, plan(tmp_path)) == {name: float(value) for name, value in kept.items()}
    assert again.seen == stopped.seen
    assert lines_of(tmp_path)[-1]["piece"] == 0
    third = Line()
    loop.run(third, plan(tmp_path))
    assert lines_of(tmp_path)[-1]["piece"] == 1
    assert third.seen > stopped.seen


def test_judging_can_be_stopped_as_soon_as_it_is_told(tmp_path: Path) -> None:
    class Hasty(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("judging"):
                os.kill(os.getpid(), signal.SIGTERM)

    hasty = Hasty()
    loop.log.addHandler(hasty)
    loop.log.setLevel(logging.INFO)
    try:
        assert loop.run(Line(), plan(tmp_path, minutes=0.001)) == {}
    finally:
        loop.log.removeHandler(hasty)
        loop.log.setLevel(logging.NOTSET)
    assert not checkpoints.load(tmp_path / loop.CHECKPOINT)["position"]["finished"]


def test_a_piece_that_is_stopped_while_it_is_judged_on_its_way_goes_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stopped = Line(stop_evaluation_by=signal.SIGINT)
    assert loop.run(stopped, plan(tmp_path, minutes=60, evaluate_s=0.01)) == {}
    assert f"stopped after {stopped.seen} samples; the same command goes on" in caplog.text
    again = Line(stop_at=stopped.seen // 16 + 2)
    loop.run(again, plan(tmp_path, minutes=60))
    assert again.seen == stopped.seen + 32


def test_after_a_piece_a_new_one_begins(tmp_path: Path) -> None:
    loop.run(Line(), plan(tmp_path))
    loop.run(Line(), plan(tmp_path, minutes=0.005))
    first, *_, last = lines_of(tmp_path)
    assert (first["piece"], last["piece"]) == (0, 1)
    assert last["samples"] > first["samples"]


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    loop.run(Line(), plan(tmp_path, minutes=0.001))
    other = Line()
    other.network = torch.nn.Linear(2, 1)
    with pytest.raises(EngineError, match=r"checkpoint.pt is of another network"):
        loop.run(other, plan(tmp_path))


@pytest.mark.parametrize("content", [b"", b"nonsense", b"broken\n", b"PK\x03\x04"])
def test_a_damaged_checkpoint_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / loop.CHECKPOINT).write_bytes(content)
    with pytest.raises(EngineError, match=r"cannot be read .*remove it to begin anew"):
        loop.run(Line(), plan(tmp_path))


def test_a_checkpoint_to_begin_from_is_none_to_go_on_from(tmp_path: Path) -> None:
    checkpoints.save(tmp_path / loop.CHECKPOINT, {"network": Line().network.state_dict()})
    with pytest.raises(EngineError, match=r"is no checkpoint to go on from .*'optimizer'.*; remove it to begin anew"):
        loop.run(Line(), plan(tmp_path))


def test_a_checkpoint_is_split_and_joined_by_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoints.save(checkpoint, {"network": Line().network.state_dict()})
    assert checkpoints.main(["split", str(checkpoint), str(tmp_path / "parts")]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'parts' / 'checkpoint.pt.000'} and 0 more\n"
    assert checkpoints.main(["join", str(tmp_path / "parts" / "checkpoint.pt.000"), str(tmp_path / "whole.pt")]) == 0
    assert (tmp_path / "whole.pt").read_bytes() == checkpoint.read_bytes()
    for arguments in (["split", str(tmp_path / "none"), str(tmp_path)], ["join", str(checkpoint), str(tmp_path / "x")]):
        with pytest.raises(SystemExit):
            checkpoints.main(arguments)


def split_in_four(tmp_path: Path) -> tuple[Path, list[Path]]:
    path = tmp_path / "checkpoint.pt"
    checkpoints.save(path, {"network": {"weight": torch.rand(1000)}})
    return path, checkpoints.split(path, tmp_path / "parts", part_bytes=path.stat().st_size // 4 + 1)


def test_a_checkpoint_splits_and_joins(tmp_path: Path) -> None:
    path, parts = split_in_four(tmp_path)
    assert [part.name for part in parts] == [f"checkpoint.pt.{number:03d}" for number in range(4)]
    assert max(part.stat().st_size for part in parts) == path.stat().st_size // 4 + 1
    checkpoints.join(parts[0], tmp_path / "joined.pt")
    assert (tmp_path / "joined.pt").read_bytes() == path.read_bytes()
    with pytest.raises(EngineError, match="not the first part"):
        checkpoints.join(parts[1], tmp_path / "joined.pt")


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ((1,), r"of the parts up to .*checkpoint\.pt\.003 there is no checkpoint\.pt\.001$"),
        ((1, 2), r"there is no checkpoint\.pt\.001, checkpoint\.pt\.002$"),
        ((3,), r"checkpoint\.pt\.000 to checkpoint\.pt\.002 are no whole .* may have been a checkpoint\.pt\.003, or"),
    ],
)
def test_a_part_that_is_missing_is_told_and_nothing_is_written(
    tmp_path: Path, missing: tuple[int, ...], sentence: str
) -> None:
    _, parts = split_in_four(tmp_path)
    for number in missing:
        parts[number].unlink()
    joined = tmp_path / "joined.pt"
    joined.write_bytes(b"what was there")
    with pytest.raises(EngineError, match=sentence):
        checkpoints.join(parts[0], joined)
    assert joined.read_bytes() == b"what was there"
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint.pt", "parts", "joined.pt"}


def test_a_part_that_is_damaged_is_told(tmp_path: Path) -> None:
    _, parts = split_in_four(tmp_path)
    damaged = bytearray(parts[1].read_bytes())
    middle = len(damaged) // 2
    damaged[middle : middle + 16] = bytes(255 - byte for byte in damaged[middle : middle + 16])
    parts[1].write_bytes(damaged)
    with pytest.raises(EngineError, match="one of them is damaged"):
        checkpoints.join(parts[0], tmp_path / "elsewhere" / "joined.pt")
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_split_leaves_no_part_of_a_larger_one_behind(tmp_path: Path) -> None:
    path, parts = split_in_four(tmp_path)
    (other := tmp_path / "parts" / "checkpoint.pt.old").touch()
    assert checkpoints.split(path, tmp_path / "parts") == parts[:1]
    assert {part.name for part in (tmp_path / "parts").iterdir()} == {parts[0].name, other.name}
