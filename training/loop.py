"""One training loop for both engines: time-boxed, resumable, logged, evaluated at its end.

A *piece* of training is one call of `run`: it takes `Plan.minutes` of wall time, in which the learning rate warms up
and falls along a cosine, so that every piece ends with weights that are worth keeping. A piece that was cut off
(Ctrl-C, SIGTERM, power) goes on where its last checkpoint stood, and one that was not judged yet is judged; after one
that came to its end, a new one begins.

    class Words:                             # a `Task`: what is trained; the loop knows nothing else of it
        network: nn.Module
        optimizer: torch.optim.Optimizer     # each group's learning rate is scaled by the schedule
        def step(self, progress): ...        # one batch, optimizer.step(); {"loss": ..., "samples": n}
        def evaluate(self): ...              # figures by name, on a validation split; {"words": 0.81}
        def state(self): ...                 # what else must survive (generators, positions): plain values, tensors
        def restore(self, state): ...

    figures = run(Words(...), Plan(out=Path("build/crnn"), minutes=60))

In `out` lie ``checkpoint.pt`` (network, optimiser, generators, task state; replaced whole, never half-written),
``curve.jsonl`` (one line every `Plan.log_s` seconds, one for each evaluation), and nothing else.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import os
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

import torch
from torch import nn

from ocrstream.errors import EngineError, UserError
from training import checkpoints

log = logging.getLogger(__name__)

CHECKPOINT = "checkpoint.pt"
CURVE = "curve.jsonl"


class Task(Protocol):
    """What is trained: a network, its optimiser, and one step of it."""

    @property
    def network(self) -> nn.Module:
        """What is trained."""

    @property
    def optimizer(self) -> torch.optim.Optimizer:
        """Each group's learning rate is its peak, which the loop scales by the schedule."""

    def step(self, progress: float) -> Mapping[str, float]:
        """Train on one batch.

        Args:
            progress: how much of the piece is over, 0 to 1.

        Returns:
            Figures for the curve, averaged between its lines; ``samples`` is added up instead and must be there.
        """

    def evaluate(self) -> Mapping[str, float]:
        """Figures on a split that is not trained on. The network is in evaluation mode, without gradients."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint must keep beside network and optimiser: plain values, containers and tensors."""

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, and where to.

    Attributes:
        out: folder of the checkpoint and the curve, made where it is missing.
        minutes: wall time of the piece, evaluation at its end not counted.
        warmup: share of the piece in which the learning rate rises.
        floor: the learning rate's share at the end.
        checkpoint_s: seconds between checkpoints.
        log_s: seconds between lines of the curve.
        evaluate_s: seconds between evaluations inside the piece; 0 for none but the one at its end.
        note: kept with the piece's lines in the curve, to tell what was changed.
    """

    out: Path
    minutes: float
    warmup: float = 0.03
    floor: float = 0.02
    checkpoint_s: float = 180.0
    log_s: float = 30.0
    evaluate_s: float = 0.0
    note: str = ""


def minutes(text: str) -> float:
    """A piece's length, as a command's flag gives it.

    Raises:
        ValueError: it is no time.
    """
    length = float(text)
    if not 0 < length < math.inf:
        raise ValueError(text)
    return length


def run_command(parser: argparse.ArgumentParser, train: Callable[[], None]) -> None:
    """Run what a training's command does; a user's mistake, and Ctrl-C while it makes ready, end it with a sentence."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    try:
        train()
    except UserError as error:
        parser.exit(2, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"{parser.prog}: stopped before there was anything new; the same command begins again\n")


def heed_only_the_parent(_worker: int = 0) -> None:
    """Let a process that makes batches end where its parent does, and not by a signal to all of them.

    A terminal sends SIGINT, a service's manager SIGTERM, to the whole group: a worker that ends by it would take away
    the batch that the parent waits for before it saves.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        # When Python ends it sends SIGTERM to its children and waits for them, so that one cannot just be ignored.
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()


@contextmanager
def beginning_workers() -> Iterator[None]:
    """Begin processes that make batches in this: until each heeds only its parent, signals wait."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def cpu_precision() -> torch.dtype:
    """What a step is fastest in on this CPU: bfloat16 only where it has units for that, else it is emulated."""
    capabilities = torch.cpu.get_capabilities()
    has_units = any(capabilities.get(name, False) for name in ("amx_bf16", "avx512_bf16", "bf16", "arm_bf16"))
    return torch.bfloat16 if has_units else torch.float32


def autocast(device: torch.device) -> torch.autocast:
    """The context of a forward pass: bfloat16 where this device is faster with it."""
    precision = cpu_precision() if device.type == "cpu" else torch.bfloat16
    return torch.autocast(device.type, torch.bfloat16, enabled=precision is torch.bfloat16)


def rate(progress: float, plan: Plan) -> float:
    """The learning rate's share at a moment of the piece: a linear rise, then half a cosine down to the floor."""
    if progress < plan.warmup:
        return max(progress / plan.warmup, 0.01)
    down = (min(progress, 1.0) - plan.warmup) / (1 - plan.warmup)
    return plan.floor + (1 - plan.floor) * 0.5 * (1 + math.cos(math.pi * down))


def run(task: Task, plan: Plan) -> dict[str, float]:
    """Train for a piece, from the folder's checkpoint where there is one.

    Returns:
        The figures of the evaluation at its end; empty where a signal ended it or that before (its checkpoint is
        written, and a piece whose time was over is judged by the next run).

    Raises:
        EngineError: the folder's checkpoint is damaged or of another network.
    """
    plan.out.mkdir(parents=True, exist_ok=True)
    # The task's own, not the checkpoint's: a piece may be run at another rate than the one before.
    base_rates = [group["lr"] for group in task.optimizer.param_groups]
    position = _resume(task, plan)
    curve = _Curve(plan, position)
    if position.elapsed_s >= plan.minutes * 60:
        log.warning(
            "the piece that was stopped has run for %.1f of %.1f minutes already and is only judged now; "
            "the next run begins another piece", position.elapsed_s / 60, plan.minutes,
        )  # fmt: skip
    with _signals() as stopped:
        _train(task, plan, position, curve, base_rates, stopped)
        _save(task, plan, position)
        if stopped:
            log.info("stopped after %d samples; the same command goes on", position.samples)
            return {}
        try:
            figures = _judge(task, curve)
        except KeyboardInterrupt:
            path = plan.out / CHECKPOINT
            log.info("stopped while judging; the weights are kept in %s, and the same command judges them first", path)
            return {}
        # Only now: a piece that was not judged is, before another one begins.
        position.finished = True
        _save(task, plan, position)
    return figures


def _train(
    task: Task, plan: Plan, position: _Position, curve: _Curve, base_rates: Sequence[float], stopped: list[int]
) -> None:
    """Steps until the piece's time is over, or a signal came."""
    last = time.monotonic()
    saved = logged = evaluated = position.elapsed_s
    while position.elapsed_s < plan.minutes * 60 and not stopped:
        progress = position.elapsed_s / (plan.minutes * 60)
        share = rate(progress, plan)
        for group, base in zip(task.optimizer.param_groups, base_rates, strict=True):
            group["lr"] = base * share
        task.network.train()
        curve.add(task.step(progress))
        now = time.monotonic()
        position.elapsed_s += now - last
        last = now
        position.steps += 1
        if position.elapsed_s - logged >= plan.log_s:
            logged = position.elapsed_s
            curve.write(rate=base_rates[0] * share)
        if plan.evaluate_s and position.elapsed_s - evaluated >= plan.evaluate_s:
            evaluated = position.elapsed_s
            try:
                _judge(task, curve)
            except KeyboardInterrupt:
                stopped.append(signal.SIGINT)
            last = time.monotonic()
        if position.elapsed_s - saved >= plan.checkpoint_s:
            saved = position.elapsed_s
            _save(task, plan, position)


@dataclass(slots=True)
class _Position:
    """Where training stands: steps and samples since the first piece, and this piece's number and seconds."""

    steps: int = 0
    samples: int = 0
    piece: int = 0
    elapsed_s: float = 0.0
    finished: bool = False


class _Curve:
    """Lines of ``curve.jsonl``: means between two lines, and evaluations."""

    def __init__(self, plan: Plan, position: _Position) -> None:
        self._path = plan.out / CURVE
        self._position = position
        self._note = plan.note
        self._sums: dict[str, float] = defaultdict(float)
        self._count = 0
        self._since = time.monotonic()
        self._samples = position.samples

    def add(self, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            if name == "samples":
                self._position.samples += int(value)
            else:
                self._sums[name] += value
        self._count += 1

    def write(self, **more: float) -> None:
        seconds = max(time.monotonic() - self._since, 1e-9)
        means = {name: value / max(self._count, 1) for name, value in self._sums.items()}
        self._append({**means, **more, "samples_per_s": (self._position.samples - self._samples) / seconds})
        self._sums.clear()
        self._count, self._since, self._samples = 0, time.monotonic(), self._position.samples

    def write_evaluation(self, figures: Mapping[str, float]) -> None:
        self._append({f"eval_{name}": value for name, value in figures.items()})
        self._since, self._samples = time.monotonic(), self._position.samples

    def _append(self, figures: Mapping[str, float]) -> None:
        position = self._position
        line: dict[str, object] = {
            "piece": position.piece,
            "minutes": round(position.elapsed_s / 60, 2),
            "steps": position.steps,
            "samples": position.samples,
            **{name: float(f"{value:.5g}") for name, value in figures.items()},
        }
        if self._note:
            line["note"] = self._note
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        log.info("%s", " ".join(f"{name} {value}" for name, value in line.items()))


def _judge(task: Task, curve: _Curve) -> dict[str, float]:
    """Evaluate, and tell it in the curve.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM came. It takes minutes, and there is nothing in it to be cut in two.
    """
    task.network.eval()
    with _handling(signal.default_int_handler), torch.inference_mode():
        # Not before it is so: who is told that Ctrl-C ends it may press it at once.
        log.info("judging, which can take minutes; Ctrl-C ends it, and no weights are lost")
        figures = dict(task.evaluate())
    curve.write_evaluation(figures)
    return figures


def _resume(task: Task, plan: Plan) -> _Position:
    path = plan.out / CHECKPOINT
    if not path.exists():
        return _Position()
    kept = checkpoints.load(path)
    checkpoints.fill(task.network, kept["network"], path)
    try:
        task.optimizer.load_state_dict(kept["optimizer"])
        task.restore(kept["task"])
        torch.set_rng_state(kept["rng"]["cpu"])
        if "cuda" in kept["rng"] and (gpu := _gpu(task)):
            torch.cuda.set_rng_state(kept["rng"]["cuda"], gpu)
        position = _Position(**kept["position"])
    except (KeyError, TypeError, ValueError) as error:
        raise EngineError(f"{path} is no checkpoint to go on from ({error!r}); remove it to begin anew") from error
    if position.finished:
        position.piece, position.elapsed_s, position.finished = position.piece + 1, 0.0, False
    log.info("going on from %s: %d samples", path, position.samples)
    return position


def _gpu(task: Task) -> torch.device | None:
    """The GPU that is trained on, whose generator is the one that counts: each has its own."""
    device = next(task.network.parameters()).device
    return device if device.type == "cuda" else None


def _save(task: Task, plan: Plan, position: _Position) -> None:
    rng = {"cpu": torch.get_rng_state()}
    if gpu := _gpu(task):
        rng["cuda"] = torch.cuda.get_rng_state(gpu)
    checkpoints.save(
        plan.out / CHECKPOINT,
        {
            "network": task.network.state_dict(),
            "optimizer": task.optimizer.state_dict(),
            "task": task.state(),
            "rng": rng,
            "position": {name: getattr(position, name) for name in _Position.__slots__},
        },
    )


@contextmanager
def _signals() -> Iterator[list[int]]:
    """A list that is not empty once SIGINT or SIGTERM came, so that a step is never cut in two."""
    received: list[int] = []

    def note(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    with _handling(note):
        yield received


@contextmanager
def _handling(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """SIGINT and SIGTERM go to this handler."""
    before = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, own in before.items():
            signal.signal(number, own)
