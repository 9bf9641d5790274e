"""Train the recogniser: ``python -m training.crnn --data DIR --out DIR --minutes N``, see docs/training.md."""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ocrstream.errors import ConfigError, EngineError
from ocrstream.models.crnn.charset import LATIN
from ocrstream.models.crnn.decode import greedy
from ocrstream.models.crnn.network import LightCrnn
from ocrstream.models.crnn.onnx_file import LIGHT, read_state
from ocrstream.models.torch_network import find_device
from ocrstream.models.weights import to_path
from training import checkpoints, loop
from training.augmentation import is_too_long, upright
from training.batches import Batch, Batches, Mixture, Seen
from training.bounds import check
from training.ctc import ctc_loss
from training.initial import load_first_convolutions, with_charset
from training.provenance import origin
from training.synthesis import FONTS, Font, Renderer, find_fonts
from training.texts import Texts
from training.word_lists import WORD_LISTS
from training.words import BACKGROUND, STORED_HEIGHT_PX, Sample, Split, held_out, load, protocol

SET_WEIGHTS = {"svt_train": 3.0, "iiit5k_train": 2.0, "icdar2015_train": 1.5, "icdar2015_train:lines": 1.5}
SET_WEIGHTS |= {f"spelt_{name}": weight for name, weight in SET_WEIGHTS.items()}
"""Small and clean sets are seen more often than a large one, lines of small print as often as its words."""

RUN = "run.json"
"""What `RecognizerTask.describe` tells, in the folder of a run."""

_TOLD = (
    *("device", "seed", "rate", "backbone_share", "columns", "real_share", "skip", "strength", "reuse", "frozen"),
    "repeat",
)
"""The settings that a card tells: paths of a machine are none of its."""


log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Settings:
    """What is trained on and how.

    Attributes:
        data: folders of training data.
        cache: folder for crops and the list of fonts.
        device: ``cpu`` or ``cuda``.
        seed: of all chance.
        rate: peak learning rate.
        backbone_share: the convolutions' learning rate as a share of it: they know much to begin with.
        columns: pixel columns a batch.
        real_share: share of real crops.
        skip: sets that are not trained on; they still validate.
        strength: of the augmentation, 0 to 1.
        reuse: visits of a drawn sample.
        frozen: parts of the convolutions, the stem and then its blocks, that stay as they are: most of the arithmetic
            of a step is on its way back through them.
        repeat: visits of what the convolutions made of a batch, where all of them stay as they are.
        workers: processes that make batches; 0 makes them in the training process.
        fonts: folder of fonts.
        word_lists: folders of word lists.
    """

    data: tuple[Path, ...]
    cache: Path
    device: str = "cpu"
    seed: int = 1
    rate: float = 6e-4
    backbone_share: float = 0.15
    columns: int = 12288
    real_share: float = 0.55
    skip: tuple[str, ...] = ()
    strength: float = 1.0
    reuse: float = 1.0
    frozen: int = 0
    repeat: float = 1.0
    workers: int = 0
    fonts: Path = FONTS
    word_lists: tuple[Path, ...] = WORD_LISTS

    def __post_init__(self) -> None:
        """Raises `ConfigError` where they mean nothing."""
        check(self, seed=(0, 2**63), rate=(0, 1), backbone_share=(0, 100), columns=(STORED_HEIGHT_PX, 2**24))
        check(self, real_share=(0, 1), strength=(0, 1), reuse=(1, 1e6), frozen=(0, 100), repeat=(1, 1e6))
        check(self, workers=(0, 1024))


class RecognizerTask:
    """`LightCrnn` under CTC, as the loop wants it.

    Args:
        network: starts from its weights.
        settings: data and optimisation.
    """

    def __init__(self, network: LightCrnn, settings: Settings) -> None:
        self.network: torch.nn.Module = network
        self._network = network
        self._settings = settings
        self._device = find_device(settings.device)
        network.to(self._device).to(memory_format=torch.channels_last)
        for part in (network.stem, *network.blocks)[: settings.frozen]:
            part.requires_grad_(False)
        frozen = settings.frozen > len(network.blocks)
        self._seen = Seen(settings.repeat, settings.seed) if frozen and settings.repeat > 1 else None
        looking = [*network.stem.parameters(), *network.blocks.parameters()]
        reading = [*network.lstm.parameters(), *network.output.parameters()]
        groups = [
            {"params": looking, "lr": settings.rate * settings.backbone_share},
            {"params": reading, "lr": settings.rate},
        ]
        self.optimizer = torch.optim.AdamW(groups, weight_decay=0.01, fused=self._device.type == "cuda")
        self._split: Split | None = None
        self._renderer: Renderer | None = None
        self._batches: Iterator[Batch] | None = None
        self._visits = 0

    def step(self, progress: float) -> Mapping[str, float]:  # noqa: ARG002
        """One batch, see `loop.Task`. A batch whose gradients are not finite changes nothing."""
        if self._batches is None:
            self._batches = self._stream()
        if self._seen is not None and self._seen.wants_again():
            features, batch = self._seen.again()
            logits = self._read(features)
        else:
            batch = next(self._batches)
            logits = self._look_and_read(batch)
        loss = ctc_loss(logits, batch.targets.to(self._device), batch.lengths)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        finite = bool(torch.isfinite(norm))
        if finite:
            self.optimizer.step()
        return {"loss": float(loss.detach()), "skipped": float(not finite), "samples": len(batch.lengths)}

    def _look_and_read(self, batch: Batch) -> Tensor:
        inputs = _to_input(batch.crops.to(self._device, non_blocking=True))
        if self._seen is None:
            with loop.autocast(self._device):
                logits: Tensor = self.network(inputs)
            return logits
        with torch.no_grad(), loop.autocast(self._device):
            features = self._network.look(inputs)
        self._seen.keep(features, batch)
        return self._read(features)

    def _read(self, features: Tensor) -> Tensor:
        with loop.autocast(self._device):
            return self._network.read(features.to(self._device).float())

    def evaluate(self) -> Mapping[str, float]:
        """Words and lines read right on the validation split, by set, by the protocol and by the letter, in percent."""
        figures: dict[str, float] = {}
        for name, samples in self._data().validation.items():
            texts = read_samples(self.network, samples, self._device)
            figures[name] = percent(protocol(text) == protocol(s.text) for text, s in zip(texts, samples, strict=True))
            figures[f"{name}_exact"] = percent(text == s.text for text, s in zip(texts, samples, strict=True))
        words = [value for name, value in figures.items() if not name.endswith("_exact") and ":" not in name]
        return {"mean": sum(words) / len(words), **figures} if words else figures

    def state(self) -> dict[str, Any]:
        """How often a stream of batches was begun, so that the next one is another."""
        return {"visits": self._visits, "charset": LATIN}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave.

        Raises:
            EngineError: the checkpoint writes other characters.
        """
        if state["charset"] != LATIN:
            raise EngineError("the checkpoint is of another charset: begin in an empty folder")
        self._visits = int(state["visits"])

    def prepare(self) -> None:
        """Cut crops and look at fonts, where the cache has none yet, and load word lists: no time of a piece's.

        Raises:
            ConfigError: a set that is to be skipped is none of the data's.
            SourceError: there is no data, no font, or no word list.
        """
        self._check_skipped()
        for name, samples in self._data().train.items():
            long = [sample.text for sample in samples if name != BACKGROUND and is_too_long(sample)]
            if long:
                log.warning(
                    "%d of %d labels of %s are longer than the network can read, as %.80r, and are set aside",
                    len(long), len(samples), name, long[0],
                )  # fmt: skip
        if not self._data().validation:
            log.warning("nothing is kept for validation: a picture is by its name, about one of 16")
        self._drawing()

    def _check_skipped(self) -> None:
        names = {name.partition(":")[0] for part in (self._data().train, self._data().validation) for name in part}
        names.discard(BACKGROUND)
        wrong = sorted(set(self._settings.skip) - names)
        if wrong:
            raise ConfigError(
                f"there is no set {', '.join(map(repr, wrong))} to skip: the sets of the data are "
                f"{', '.join(sorted(names))}"
            )

    def describe(self) -> dict[str, Any]:
        """What is trained on and how, as it goes into a card: settings, and how many samples each set has."""
        split = self._data()
        settings = {name: getattr(self._settings, name) for name in _TOLD}
        counts = {name: len(samples) for name, samples in sorted(split.train.items())}
        validation = {name: len(samples) for name, samples in sorted(split.validation.items())}
        weights = {name: weight for name, weight in SET_WEIGHTS.items() if name in counts}
        return {"settings": settings, "weights": weights, "train": counts, "validation": validation}

    def _data(self) -> Split:
        if self._split is None:
            self._split = load(self._settings.data, LATIN, self._settings.cache)
        return self._split

    def _fonts(self) -> list[Font]:
        found = find_fonts(self._settings.fonts, LATIN, self._settings.cache)
        # Those that are held out are for measuring on, see `training.drawn`.
        return [font for font in found if not held_out(Path(font[0]).name)] or found

    def _drawing(self) -> Renderer:
        if self._renderer is None:
            train = self._data().train
            labels = [sample.text for name, samples in train.items() if name != BACKGROUND for sample in samples]
            backgrounds = [sample.grey for sample in train.get(BACKGROUND, [])]
            self._renderer = Renderer(Texts(LATIN, labels, self._settings.word_lists), self._fonts(), backgrounds)
        return self._renderer

    def _stream(self) -> Iterator[Batch]:
        settings = self._settings
        left_out = (BACKGROUND, *settings.skip)
        train = {name: each for name, each in self._data().train.items() if name.partition(":")[0] not in left_out}
        mixture = Mixture(train, SET_WEIGHTS, self._drawing().sample, settings.real_share, reuse=settings.reuse)
        self._visits += 1
        batches = Batches(mixture, LATIN, settings.columns, settings.seed * 1000 + self._visits, settings.strength)
        if not settings.workers:
            return iter(batches)
        pinned = self._device.type == "cuda"
        loader = DataLoader(
            batches,
            None,
            num_workers=settings.workers,
            pin_memory=pinned,
            prefetch_factor=8,
            worker_init_fn=_begin_worker,
        )
        with loop.beginning_workers():
            return iter(loader)


def _one_thread() -> None:
    """A crop is too small to share out between threads, and there is a worker for each core."""
    cv2.setNumThreads(1)


def _begin_worker(_worker: int) -> None:
    _one_thread()
    loop.heed_only_the_parent()


def _to_input(crops: Tensor) -> Tensor:
    """``(N, 48, W) uint8`` as the network's input."""
    scaled = crops.unsqueeze(1).float().mul_(2 / 255).sub_(1)
    return scaled.contiguous(memory_format=torch.channels_last)


def read_samples(network: torch.nn.Module, samples: Sequence[Sample], device: torch.device) -> list[str]:
    """Greedy readings of samples as they are, batched by width."""
    crops = [upright(sample) for sample in samples]
    texts = [""] * len(samples)
    order = sorted((crop.shape[1], index) for index, crop in enumerate(crops) if crop is not None)
    for _, group in itertools.groupby(order, key=lambda entry: entry[0]):
        same = [index for _, index in group]
        for part in (same[start : start + 64] for start in range(0, len(same), 64)):
            pixels = torch.stack([torch.from_numpy(crops[index]) for index in part]).to(device)
            with loop.autocast(device):
                logits = network(_to_input(pixels)).float().cpu().numpy()
            for index, row in zip(part, logits, strict=True):
                texts[index] = greedy(row, LATIN)
    return texts


def percent(outcomes: Iterator[bool]) -> float:
    """The share of true ones."""
    known = list(outcomes)
    return 100 * sum(known) / max(len(known), 1)


def initial(path: Path | None) -> LightCrnn:
    """The network to start from: a weight file or checkpoint of ours, PP-OCRv6's recogniser, or chance."""
    network = LightCrnn(len(LATIN) + 1)
    if path is None:
        return network
    if path.name.startswith("PP-OCR"):
        load_first_convolutions(network, path)
        return network
    if path.suffix == ".onnx":
        state, description = read_state(path)
        if description.profile != LIGHT:
            raise EngineError(f"{path} is of the profile {description.profile!r}: training begins from {LIGHT!r}")
        state = with_charset(state, description.charset, LATIN)
        checkpoints.fill(network, {name: torch.from_numpy(array) for name, array in state.items()}, path)
        return network
    checkpoints.fill(
        network, {name: tensor.float() for name, tensor in checkpoints.load(path)["network"].items()}, path
    )
    return network


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m training.crnn", description="Train the recogniser crnn.")
    parser.add_argument("--data", type=Path, action="append", required=True, help="folder of training data; may repeat")
    parser.add_argument("--out", type=Path, required=True, help="folder of the checkpoint and the curve")
    parser.add_argument(
        "--minutes",
        type=loop.minutes,
        required=True,
        help="length of this piece of training; preparing crops, fonts and word lists does not count",
    )
    parser.add_argument(
        "--start", help="weights to begin from where --out has no checkpoint yet: a file, or a shipped one's name"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    parser.add_argument("--threads", type=int, default=0, help="threads of PyTorch on the CPU; 0: all cores")
    parser.add_argument(
        "--workers", type=int, help="processes that make batches (default: 0 on cpu, cores - 1 on cuda)"
    )
    parser.add_argument("--cache", type=Path, help="folder for cut crops (default: OUT/cache)")
    parser.add_argument("--rate", type=float, default=6e-4, help="peak learning rate")
    parser.add_argument("--backbone-share", type=float, default=0.15, help="the convolutions' rate as a share of it")
    parser.add_argument("--columns", type=int, help="pixel columns a batch (default: 12288 on cpu, 65536 on cuda)")
    parser.add_argument("--real", type=float, default=0.55, help="share of real crops")
    parser.add_argument("--skip", action="append", default=[], metavar="SET", help="set that is not trained on")
    parser.add_argument("--strength", type=float, default=1.0, help="of the augmentation")
    parser.add_argument("--reuse", type=float, help="visits of a drawn sample (default: 1 on cpu, 6 on cuda)")
    parser.add_argument("--freeze", type=int, default=0, help="parts of the convolutions, from the stem on, that stay")
    parser.add_argument(
        "--repeat", type=float, default=1.0, help="visits of a batch's features where all convolutions are frozen"
    )
    parser.add_argument("--seed", type=int, default=1, help="of all chance")
    parser.add_argument("--fonts", type=Path, default=FONTS, help=f"folder of fonts (default: {FONTS})")
    parser.add_argument("--word-lists", type=Path, action="append", help="folder of word lists; may repeat")
    parser.add_argument("--evaluate-minutes", type=float, default=15.0, help="between evaluations; 0: at the end only")
    parser.add_argument("--note", default="", help="kept in the curve")
    options = parser.parse_args(arguments)
    loop.run_command(parser, lambda: _train(options))
    return 0


def _train(options: argparse.Namespace) -> None:
    check(options, threads=(0, 1024), evaluate_minutes=(0, 1e6))
    _one_thread()
    if options.threads:
        torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    start = to_path(options.start) if options.start else None
    task = RecognizerTask(initial(start), _settings(options))
    log.info("making crops, fonts and word lists ready, which takes minutes where the cache has none yet")
    task.prepare()
    options.out.mkdir(parents=True, exist_ok=True)
    told = task.describe()
    told |= origin(options.out, RUN, told["settings"], start)
    (options.out / RUN).write_text(json.dumps(told, indent=1), encoding="utf-8")
    plan = loop.Plan(
        out=options.out, minutes=options.minutes, evaluate_s=options.evaluate_minutes * 60, note=options.note
    )
    loop.run(task, plan)


def _settings(options: argparse.Namespace) -> Settings:
    cuda = options.device.startswith("cuda")
    cores = len(os.sched_getaffinity(0))
    return Settings(
        data=tuple(options.data),
        cache=options.cache or options.out / "cache",
        device=options.device,
        seed=options.seed,
        rate=options.rate,
        backbone_share=options.backbone_share,
        columns=(65536 if cuda else 12288) if options.columns is None else options.columns,
        real_share=options.real,
        skip=tuple(options.skip),
        strength=options.strength,
        reuse=(6.0 if cuda else 1.0) if options.reuse is None else options.reuse,
        frozen=options.freeze,
        repeat=options.repeat,
        workers=(max(cores - 1, 1) if cuda else 0) if options.workers is None else options.workers,
        fonts=options.fonts,
        word_lists=tuple(options.word_lists or WORD_LISTS),
    )


if __name__ == "__main__":
    raise SystemExit(main())
