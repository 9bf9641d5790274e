"""Batches for CTC: real and drawn samples mixed, all crops of a batch of one width, so that nothing is padded."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from ocrstream.models.crnn.preprocess import HEIGHT_PX
from training.augmentation import augment
from training.words import Sample

Grey = NDArray[np.uint8]


class Batch(NamedTuple):
    """Crops of one width and their labels; a tuple, which PyTorch's loader can put into pinned memory.

    Attributes:
        crops: ``(N, 48, W) uint8``.
        targets: all labels one after the other, ``int64``, character i of the charset as i + 1.
        lengths: ``(N,) int64``.
    """

    crops: Tensor
    targets: Tensor
    lengths: Tensor


class Mixture:
    """Draws samples: real ones by the weight of their set, drawn ones out of a pool that is renewed all the time.

    Args:
        real: samples by set.
        weights: how often a sample of a set is taken, against 1 for a set not named.
        draw: makes a new sample.
        real_share: share of real samples, 0 to 1.
        pool: drawn samples that are kept.
        reuse: how many visits a drawn sample gets on average before a new one takes its place.
    """

    def __init__(
        self,
        real: Mapping[str, Sequence[Sample]],
        weights: Mapping[str, float],
        draw: Callable[[Generator], Sample],
        real_share: float,
        pool: int = 2000,
        reuse: float = 1.0,
    ) -> None:
        self._real = [sample for samples in real.values() for sample in samples]
        each = [np.full(len(samples), weights.get(name, 1.0)) for name, samples in real.items()]
        self._until = np.cumsum(np.concatenate(each)) if self._real else np.zeros(0)
        self._draw = draw
        self._real_share = real_share if self._real else 0.0
        self._pool: list[Sample] = []
        self._pool_size = pool
        self._reuse = reuse

    def sample(self, rng: Generator) -> Sample:
        """One sample, not yet augmented."""
        if rng.random() < self._real_share:
            place = int(np.searchsorted(self._until, rng.random() * self._until[-1], side="right"))
            return self._real[min(place, len(self._real) - 1)]
        if self._reuse <= 1:
            return self._draw(rng)
        if len(self._pool) < self._pool_size or rng.random() < 1 / self._reuse:
            fresh = self._draw(rng)
            if len(self._pool) < self._pool_size:
                self._pool.append(fresh)
            else:
                self._pool[int(rng.integers(0, self._pool_size))] = fresh
            return fresh
        return self._pool[int(rng.integers(0, self._pool_size))]


class Batches(IterableDataset[Batch]):
    """An endless stream of batches; each worker of a `torch.utils.data.DataLoader` makes others.

    Args:
        mixture: where samples come from.
        charset: what the labels are written in.
        columns: pixel columns of a batch: its width times its crops.
        seed: of everything that is left to chance here.
        strength: of the augmentation.
    """

    def __init__(self, mixture: Mixture, charset: str, columns: int, seed: int, strength: float = 1.0) -> None:
        self._mixture = mixture
        self._index = {character: index + 1 for index, character in enumerate(charset)}
        self._columns = columns
        self._seed = seed
        self._strength = strength
        self.set_aside = 0

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        rng = np.random.default_rng((self._seed, 0 if worker is None else worker.id))
        waiting: dict[int, list[tuple[Grey, str]]] = defaultdict(list)
        while True:
            sample = self._mixture.sample(rng)
            crop = augment(sample, rng, self._strength)
            if crop is None:
                # No width that the network reads has enough timesteps for this label.
                self.set_aside += 1
                continue
            same = waiting[crop.shape[1]]
            same.append((crop, sample.text))
            if len(same) >= max(self._columns // crop.shape[1], 4):
                yield self.batch(same)
                waiting[crop.shape[1]] = []

    def batch(self, crops: Sequence[tuple[Grey, str]]) -> Batch:
        """Crops of one width and their texts, as tensors."""
        pixels = np.stack([crop for crop, _ in crops])
        targets = [self._index[character] for _, text in crops for character in text]
        return Batch(
            torch.from_numpy(pixels).view(len(crops), HEIGHT_PX, -1),
            torch.tensor(targets, dtype=torch.int64),
            torch.tensor([len(text) for _, text in crops], dtype=torch.int64),
        )


class Seen:
    """What frozen convolutions made of the last batches, most of a step's work, so that it is done once for several.

    Args:
        visits: of each batch on average, 1 or more.
        seed: of the choice.
        capacity: batches that are kept, in half precision.
    """

    def __init__(self, visits: float, seed: int, capacity: int = 150) -> None:
        self._visits = visits
        self._chance = np.random.default_rng(seed)
        self._capacity = capacity
        self._kept: list[tuple[Tensor, Batch]] = []

    def wants_again(self) -> bool:
        """Whether an old batch's turn has come; at the beginning, while there are few, it is a new one's."""
        return len(self._kept) * 5 >= self._capacity and self._chance.random() > 1 / self._visits

    def again(self) -> tuple[Tensor, Batch]:
        """The features of an old batch, ``(N, T, C) float16``, and the batch."""
        return self._kept[int(self._chance.integers(0, len(self._kept)))]

    def keep(self, features: Tensor, batch: Batch) -> None:
        """Keep a new one, in place of any where all places are taken."""
        entry = features.to("cpu", torch.float16), batch
        if len(self._kept) < self._capacity:
            self._kept.append(entry)
        else:
            self._kept[int(self._chance.integers(0, self._capacity))] = entry
