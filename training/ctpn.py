"""Trains the detector: ``python -m training.ctpn --minutes M --device cpu|cuda --data DIR [--data DIR …] --out DIR``.

Goes on from the checkpoint in ``--out`` where there is one. The photos of every data folder at and below
``--data`` are taken (`training.folders`); the last of each folder are kept for validation and never trained on.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, IterableDataset

from ocrstream.errors import ConfigError, SourceError
from ocrstream.models.ctpn.decode import DecodeRule
from ocrstream.models.ctpn.looking import find_words
from ocrstream.models.ctpn.network import BACKBONES, Ctpn
from ocrstream.models.ctpn.slices import INPUT_STEP_PX, MEAN_BGR
from ocrstream.models.torch_network import find_device, load_state
from ocrstream.models.weights import to_path
from training.bounds import check
from training.folders import read_folders
from training.initial import load_backbone, start_state
from training.loop import Plan, autocast, beginning_workers, heed_only_the_parent, minutes, run, run_command
from training.pages import PagePainter
from training.photos import PhotoCache
from training.protocols import IcdarIou
from training.provenance import origin
from training.scenes import NO_TEXT, TEXT, Scene, SceneMaker
from training.signs import SignPainter
from training.synthesis import FONTS

log = logging.getLogger(__name__)

VALIDATION_PHOTOS = 60
"""Of each data folder, at its end; at most a tenth of it."""

EVALUATED_PHOTOS = 40
"""Of these, evenly spread: enough to see where training goes."""

RECORD = "settings.json"
"""What a run is made of, in its folder."""

HARD_NEGATIVES = 3
"""Of the cells without text, the worst three for each cell with text are learned from (Liao et al., 2020, 3.6)."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a training run is made of; written beside its checkpoint.

    Attributes:
        profile: the network's.
        size_px: side of the scenes.
        batch: scenes a step.
        frozen: how many of the backbone's first parts (the stem and four stages, or the blocks) stay as they are.
        rate: AdamW's learning rate at its highest.
        backbone_share: the backbone's learning rate as a share of that.
        decay: AdamW's weight decay.
        average: the share of the old in the moving average of the weights, a step.
        painted: the share of photos' scenes into which signs are drawn.
        pages: the share of scenes that are drawn pages.
        seed: of everything random.
    """

    profile: str = "light"
    size_px: int = 320
    batch: int = 8
    frozen: int = 2
    rate: float = 1.5e-3
    backbone_share: float = 0.25
    decay: float = 0.02
    average: float = 0.998
    painted: float = 0.0
    pages: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        """Raises `ConfigError` where they mean nothing."""
        if self.profile not in BACKBONES:
            raise ConfigError(f"there is no profile {self.profile!r}: it is one of {', '.join(BACKBONES)}")
        check(self, size_px=(INPUT_STEP_PX, 4096), batch=(1, 4096), frozen=(0, 100), rate=(0, 1), decay=(0, 1))
        check(self, backbone_share=(0, 100), average=(0, 1), painted=(0, 1), pages=(0, 1), seed=(0, 2**63))
        if self.size_px % INPUT_STEP_PX:
            raise ConfigError(f"size px is {self.size_px}, and has to be a multiple of {INPUT_STEP_PX}")


class Scenes(IterableDataset[tuple[NDArray[Any], ...]]):
    """Scenes without end, from a number on; each worker makes every n-th."""

    def __init__(self, maker: SceneMaker, first: int) -> None:
        self._maker = maker
        self._first = first

    def __iter__(self) -> Iterator[tuple[NDArray[Any], ...]]:
        # OpenCV's own threads would fight those of the network.
        cv2.setNumThreads(0)
        worker = torch.utils.data.get_worker_info()
        number, step = (self._first + worker.id, worker.num_workers) if worker else (self._first, 1)
        while True:
            scene: Scene = self._maker.scene(number)
            yield scene.picture, scene.score, scene.geometry, scene.known
            number += step


class CtpnTask:
    """What `training.loop` trains.

    Args:
        settings: the run's.
        caches: the photos.
        initial: ONNX file of the backbone's initial weights; without one it begins from noise.
        device: ``cpu`` or ``cuda``.
        workers: processes that make scenes; 0 makes them in this one.
        painter: draws signs into a share of the scenes.
        pager: draws pages in place of a share of them.
        start: a weight file of ours to begin from.

    Raises:
        EngineError: the weights to begin from cannot be read, or are of another profile.
    """

    def __init__(
        self,
        settings: Settings,
        caches: Sequence[PhotoCache],
        initial: Path | None,
        device: str,
        workers: int,
        painter: SignPainter | None = None,
        start: Path | None = None,
        pager: PagePainter | None = None,
    ) -> None:
        torch.manual_seed(settings.seed)
        # A detector's activations are full of numbers too small to matter, and slow to compute with.
        torch.set_flush_denormal(True)
        self._settings = settings
        self._device = find_device(device)
        network = Ctpn(settings.profile)
        if start:
            load_state(network, start_state(start, settings.profile))
        elif initial:
            load_backbone(network.backbone, initial)
        for module in network.backbone.lowest(settings.frozen):
            module.requires_grad_(False)
        self.network: nn.Module = network.to(self._device).to(memory_format=torch.channels_last)
        self.average = AveragedModel(self.network, avg_fn=_moving_average(settings.average), use_buffers=True)
        self.optimizer: torch.optim.Optimizer = torch.optim.AdamW(_groups(network, settings))
        kept = [min(VALIDATION_PHOTOS, len(cache) // 10) for cache in caches]
        allowed = [range(len(cache) - count) for cache, count in zip(caches, kept, strict=True)]
        shares = [float(len(indices)) for indices in allowed]
        self._maker = SceneMaker(
            list(zip(caches, shares, strict=True)),
            allowed,
            settings.size_px,
            settings.seed,
            painter,
            settings.painted,
            pager,
            settings.pages,
        )
        self._validation = [
            (cache, np.linspace(len(cache) - count, len(cache) - 1, min(count, EVALUATED_PHOTOS), dtype=int).tolist())
            for cache, count in zip(caches, kept, strict=True)
        ]
        self._workers = workers
        self._number = 0
        self._batches: Iterator[list[Tensor]] | None = None

    def compile(self) -> None:
        """Let PyTorch fuse what lies between the convolutions; the averaged copy stays as it is."""
        assert isinstance(self.network, Ctpn)
        for module in (self.network.backbone, self.network.smooth8, self.network.smooth4):
            module.compile()

    def step(self, progress: float) -> Mapping[str, float]:
        """One batch. One whose gradients are not finite changes nothing."""
        del progress
        if self._batches is None:
            loader = DataLoader(
                Scenes(self._maker, self._number),
                batch_size=self._settings.batch,
                num_workers=self._workers,
                pin_memory=self._device.type == "cuda",
                worker_init_fn=heed_only_the_parent,
            )
            with beginning_workers():
                self._batches = iter(loader)
        picture, score, geometry, known = (part.to(self._device, non_blocking=True) for part in next(self._batches))
        self._number += len(picture)
        with autocast(self._device):
            output = self.network(to_input(picture))
        parts = losses(output.float(), score, geometry.float(), known)
        loss = parts["score"] + parts["dice"] + parts["height"] + parts["ends"] + parts["slope"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), 5.0)
        finite = bool(torch.isfinite(norm))
        if finite:
            self.optimizer.step()
            self.average.update_parameters(self.network)
        return {
            "samples": len(picture),
            "skipped": float(not finite),
            **{name: float(value.detach()) for name, value in parts.items()},
        }

    def evaluate(self) -> Mapping[str, float]:
        """ICDAR15's protocol on the photos kept back, with the averaged weights."""
        figures: dict[str, float] = {}
        self.average.eval()
        network = _InTraining(self.average, self._device)
        if not any(indices for _, indices in self._validation):
            log.warning("nothing is kept for validation: a set of photos gives a tenth of them, of ten photos one")
        for cache, indices in ((cache, indices) for cache, indices in self._validation if indices):
            protocol = IcdarIou()
            for index in indices:
                (words,) = find_words(network, [cache.photo(index)], DecodeRule())
                quads = [words.quads[place].astype(np.float32) for place in np.argsort(-words.scores)]
                regions = cache.regions(index)
                protocol.add(quads, [region.quad for region in regions], [region.ignore for region in regions])
            figures |= {f"{cache.name}_{name}": value for name, value in protocol.figures().items()}
        return figures

    def state(self) -> dict[str, Any]:
        """The averaged weights, and how many scenes were seen."""
        return {"average": self.average.state_dict(), "number": self._number}

    def restore(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.average.load_state_dict(state["average"])
        self._number = state["number"]


class _InTraining:
    """Weights in training, run as `ocrstream.models.ctpn.looking` wants to."""

    weights = ""

    def __init__(self, network: nn.Module, device: torch.device) -> None:
        self._network = network
        self._device = device

    def metadata(self, key: str) -> str:
        """Nothing: there is no file yet."""
        raise KeyError(key)

    def run_each(self, tensors: Iterable[NDArray[np.float32]]) -> Iterator[NDArray[np.float32]]:
        """The outputs for several inputs, in their order."""
        for tensor in tensors:
            with autocast(self._device):
                output = self._network(torch.from_numpy(tensor).to(self._device))
            yield output.float().cpu().numpy()


def _moving_average(most: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    """An exponential average that forgets what it began from: the share of the old grows with the steps."""

    def mix(old: Tensor, new: Tensor, count: Tensor | int) -> Tensor:
        share = min(most, (1 + float(count)) / (10 + float(count)))
        return new if not old.is_floating_point() else torch.lerp(new, old, share)

    return mix


def _groups(network: Ctpn, settings: Settings) -> list[dict[str, Any]]:
    """The optimiser's groups: the backbone learns slower, biases and norms do not decay."""
    groups = []
    # What is frozen is in them too and stays as it is, so that the next piece may freeze more of it or less.
    learning = list(network.named_parameters())
    for in_backbone in (True, False):
        for decays in (True, False):
            parameters = [
                parameter
                for name, parameter in learning
                if name.startswith("backbone.") == in_backbone and (parameter.ndim > 1) == decays
            ]
            rate = settings.rate * (settings.backbone_share if in_backbone else 1.0)
            groups.append({"params": parameters, "lr": rate, "weight_decay": settings.decay if decays else 0.0})
    return groups


def to_input(pictures: Tensor) -> Tensor:
    """``(N, H, W, 3) uint8 BGR`` to the network's input, ``(N, 3, H, W) float32``, channels last."""
    mean = torch.tensor(MEAN_BGR, device=pictures.device).view(1, 3, 1, 1)
    return pictures.permute(0, 3, 1, 2).float() - mean


def losses(output: Tensor, score: Tensor, geometry: Tensor, known: Tensor) -> dict[str, Tensor]:
    """The parts of the loss.

    Args:
        output: ``(N, 6, h, w) float32``, the network's.
        score: ``(N, h, w) uint8``, see `training.scenes.Scene`.
        geometry: ``(N, 5, h, w) float32``.
        known: ``(N, h, w) uint8``.
    """
    logits = output[:, 0]
    text, empty = score == TEXT, score == NO_TEXT
    errors = functional.binary_cross_entropy_with_logits(logits, text.float(), reduction="none")
    positives = text.sum().clamp(min=64)
    hardest = torch.topk(errors[empty], min(int(positives) * HARD_NEGATIVES, int(empty.sum()))).values
    balanced = (errors[text].sum() + hardest.sum()) / (positives + len(hardest))
    probability = torch.sigmoid(logits) * (text | empty)
    overlap = (probability * text).sum()
    dice = 1 - 2 * overlap / (probability.sum() + text.sum() + 1)

    has_geometry, near_end = known > 0, known == 2
    distances = output[:, 1:5].clamp(-5, 5)
    height = _overlap_loss(distances[:, 0:2], geometry[:, 0:2], has_geometry)
    ends = functional.smooth_l1_loss(distances[:, 2:4], geometry[:, 2:4], reduction="none", beta=0.2).sum(dim=1)
    ends = (ends * near_end).sum() / near_end.sum().clamp(min=64)
    slope = functional.smooth_l1_loss(output[:, 5], geometry[:, 4], reduction="none", beta=0.1)
    slope = (slope * has_geometry).sum() / has_geometry.sum().clamp(min=64)
    return {"score": 3 * balanced, "dice": dice, "height": height, "ends": ends, "slope": slope}


def _overlap_loss(logs: Tensor, target_logs: Tensor, where: Tensor) -> Tensor:
    """``-log(IoU)`` of two intervals around a cell, given as distances to both sides: the same at every scale."""
    ours, theirs = logs.exp(), target_logs.exp()
    shared = torch.minimum(ours, theirs).sum(dim=1)
    whole = torch.maximum(ours, theirs).sum(dim=1)
    return ((whole / shared).log() * where).sum() / where.sum().clamp(min=64)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train for a while."""
    parser = argparse.ArgumentParser(prog="python -m training.ctpn", description=__doc__)
    parser.add_argument("--data", type=Path, action="append", required=True, help="folder with data folders")
    parser.add_argument("--initial", type=Path, help="ONNX file with the backbone's initial weights")
    parser.add_argument(
        "--start", help="weights of ours to begin from, a file or a shipped one's name, where --out has no checkpoint"
    )
    parser.add_argument("--fonts", type=Path, default=FONTS, help="folder with fonts for signs that are drawn")
    parser.add_argument("--out", type=Path, required=True, help="where the checkpoint and the curve lie")
    parser.add_argument("--cache", type=Path, help="where decoded photos are kept (default: OUT/cache)")
    parser.add_argument("--minutes", type=minutes, required=True, help="how long this piece takes")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--workers", type=int, help="processes that make scenes (default: 0 on cpu, else all cores)")
    parser.add_argument("--evaluate-minutes", type=float, default=0, help="between evaluations; 0: at the end only")
    parser.add_argument("--floor", type=float, default=0.02, help="the learning rate's share at the end of the piece")
    parser.add_argument(
        "--compile", action="store_true", help="fuse operations first: a fifth faster; needs a C++ compiler"
    )
    parser.add_argument("--note", default="", help="kept in the curve: what is new in this piece")
    told = dict(re.findall(r"^ {8}(\w+): (.+)\.$", Settings.__doc__ or "", re.MULTILINE))
    for name, default in asdict(Settings()).items():
        described = f"{told[name]} (default: {default})"
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default, help=described)
    options = parser.parse_args(arguments)
    run_command(parser, lambda: _train(options))


def _train(options: argparse.Namespace) -> None:
    check(options, workers=(0, 1024), evaluate_minutes=(0, 1e6), floor=(0, 1))
    settings = Settings(**{name: getattr(options, name) for name in asdict(Settings())})
    start = to_path(options.start) if options.start else None
    folders = [folder for data in options.data for folder in read_folders(data) if folder.photos]
    if not folders:
        raise SourceError(f"no photos below {', '.join(map(str, options.data))}: a set of them has a gt.jsonl")
    log.info("making photos and fonts ready, which takes minutes where %s has none yet", options.cache or options.out)
    caches = [PhotoCache(folder, options.cache or options.out / "cache") for folder in folders]
    workers = options.workers if options.workers is not None else _workers(options.device)
    cache = options.cache or options.out / "cache"
    regions = [region for folder in folders for photo in folder.photos for region in photo.regions]
    labels = [region.text for region in regions if not region.ignore]
    painter = SignPainter.with_fonts(options.fonts, labels, cache, settings.seed) if settings.painted else None
    pager = PagePainter.with_fonts(options.fonts, labels, cache) if settings.pages else None
    task = CtpnTask(settings, caches, options.initial, options.device, workers, painter, start, pager)
    if options.compile:
        task.compile()
    options.out.mkdir(parents=True, exist_ok=True)
    told, initial = asdict(settings), options.initial.name if options.initial else ""
    content = {
        "settings": told,
        **origin(options.out, RECORD, told, start, initial),
        "data": {folder.name: len(folder.photos) for folder in folders},
    }
    (options.out / RECORD).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    plan = Plan(
        options.out,
        options.minutes,
        floor=options.floor,
        evaluate_s=options.evaluate_minutes * 60,
        note=options.note,
    )
    run(task, plan)


def _workers(device: str) -> int:
    return 0 if device == "cpu" else len(os.sched_getaffinity(0))


if __name__ == "__main__":
    main()
