"""The CRNN networks in PyTorch: crops in, logits out (Shi et al., An End-to-End Trainable Neural Network, 2015).

Two profiles. `OriginalCrnn` is the released network, value by value, under its own tensor names. `LightCrnn` is ours:
light convolutions and one recurrent layer, any width, and batches whose crops do not see each other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from ocrstream.models.crnn.preprocess import STEP_PX

ORIGINAL_HEIGHT_PX = 32
"""The only height at which the released network's convolutions leave one row."""

_BLOCKS = (
    (96, 96, True), (96, 96, False), (96, 96, False),
    (96, 192, False), (192, 192, True), (192, 192, False), (192, 192, True), (192, 192, False), (192, 192, True),
    (192, 192, False),
    (192, 384, False), (384, 384, True), (384, 384, False),
)  # fmt: skip
"""Channels in, channels out, and whether channels are weighed, of each block; more channels out halve the rows."""


def light_steps(width_px: int) -> int:
    """Timesteps of `LightCrnn` for a crop of this width, a multiple of 4."""
    return width_px // STEP_PX


class LightCrnn(nn.Module):
    """Depthwise convolutions, one bidirectional LSTM, one linear layer: 4.1 million parameters.

    The convolutions are laid out as in PP-OCRv6's small recogniser, so that training can begin from them.

    Args:
        classes: characters and the blank.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.stem = _Stem()
        self.blocks = nn.ModuleList(_Block(*block) for block in _BLOCKS)
        self.lstm = nn.LSTM(_BLOCKS[-1][1], 256, bidirectional=True, batch_first=True)
        self.output = nn.Linear(512, classes)

    def forward(self, crops: Tensor, widths_px: Tensor | None = None) -> Tensor:
        """Logits of each timestep.

        Args:
            crops: ``(N, 1, 48, W) float in [-1, 1]``, W a multiple of 4; right of its width a crop may hold anything.
            widths_px: ``(N,) int64`` on the CPU, multiples of 4, the widest W; without it every crop is W wide.

        Returns:
            ``(N, W // 4, classes)``; a crop's steps after `light_steps` of its width mean nothing.
        """
        return self.read(self.look(crops, widths_px), widths_px)

    def look(self, crops: Tensor, widths_px: Tensor | None = None) -> Tensor:
        """The features of each column, ``(N, T, 384)``, see `forward`."""
        x = self.stem(crops, widths_px)  # (N, 96, 12, W / 4)
        mask = None if widths_px is None else _Mask(widths_px // STEP_PX, x)
        for block in self.blocks:
            x = block(x, mask)
        features: Tensor = x.mean(dim=2).transpose(1, 2)  # (N, 384, 3, W / 4) to (N, T, 384)
        return features

    def read(self, features: Tensor, widths_px: Tensor | None = None) -> Tensor:
        """The logits of these features, see `forward`."""
        if widths_px is None:
            hidden, _ = self.lstm(features)
        else:
            packed = pack_padded_sequence(features, widths_px // STEP_PX, batch_first=True, enforce_sorted=False)
            hidden, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=features.shape[1])
        logits: Tensor = self.output(hidden)  # (N, T, classes)
        return logits


class _Mask:
    """Zero right of each crop's width, which is what a convolution would see there if the crop were alone."""

    def __init__(self, widths: Tensor, like: Tensor) -> None:
        self._widths = widths.to(like.device)
        columns = torch.arange(like.shape[3], device=like.device)
        self._kept = (columns < self._widths[:, None])[:, None, None, :]

    def __call__(self, x: Tensor) -> Tensor:
        return x * self._kept

    def mean(self, x: Tensor) -> Tensor:
        """The mean of each channel over a crop's own columns, ``(N, C, 1, 1)``; x is masked."""
        return x.sum((2, 3), keepdim=True) / (x.shape[2] * self._widths)[:, None, None, None]


class _Stem(nn.Module):
    """A quarter of the height and width, by two ways that meet again."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 48, 3, 2, 1)
        self.left = nn.Conv2d(48, 24, 2)
        self.right = nn.Conv2d(24, 48, 2)
        self.joined = nn.Conv2d(96, 48, 3, 2, 1)
        self.last = nn.Conv2d(48, 96, 1)

    def forward(self, crops: Tensor, widths_px: Tensor | None) -> Tensor:
        """``(N, 1, 48, W)`` to ``(N, 96, 12, W / 4)``."""
        if widths_px is not None:
            crops = _Mask(widths_px, crops)(crops)
        x = torch.relu(self.first(crops))  # (N, 48, 24, W / 2)
        mask = _same if widths_px is None else _Mask(widths_px // 2, x)
        x = mask(x)
        # Windows of 2x2 at every place: one row below and one column at the right are missing.
        pooled = torch.max_pool2d(_beyond(x), 2, 1)
        y = mask(torch.relu(self.left(_beyond(x))))
        y = mask(torch.relu(self.right(_beyond(y))))
        x = torch.relu(self.joined(torch.cat([pooled, y], 1)))  # (N, 48, 12, W / 4)
        return torch.relu(self.last(x))


class _Block(nn.Module):
    """What is where by one 3x3 convolution a channel, then what it is by two over all channels."""

    def __init__(self, inputs: int, outputs: int, weighed: bool) -> None:
        super().__init__()
        halves = outputs != inputs
        self._residual = not halves
        self.spatial = nn.Conv2d(inputs, inputs, 3, (2 if halves else 1, 1), 1, groups=inputs)
        self.weighing = _Weighing(inputs) if weighed else None
        self.expand = nn.Conv2d(inputs, 2 * inputs, 1)
        self.project = nn.Conv2d(2 * inputs, outputs, 1)

    def forward(self, x: Tensor, mask: _Mask | None) -> Tensor:
        x = self.spatial(x if mask is None else mask(x))
        if self.weighing is not None:
            x = self.weighing(x, mask)
        y: Tensor = self.project(nn.functional.gelu(self.expand(x)))
        return x + y if self._residual else y


class _Weighing(nn.Module):
    """Each channel times a weight that all of the crop decides (Hu et al., Squeeze-and-Excitation, 2018)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(channels, channels // 4, 1)
        self.up = nn.Conv2d(channels // 4, channels, 1)

    def forward(self, x: Tensor, mask: _Mask | None) -> Tensor:
        mean = x.mean((2, 3), keepdim=True) if mask is None else mask.mean(mask(x))
        return x * nn.functional.hardsigmoid(self.up(torch.relu(self.down(mean))))


def _same(x: Tensor) -> Tensor:
    return x


def _beyond(x: Tensor) -> Tensor:
    """With a row of zeros below and a column of them at the right."""
    return nn.functional.pad(x, (0, 1, 0, 1))


class OriginalCrnn(nn.Module):
    """The released network ``CRNN(imgH=32, nc=1, nclass=37, nh=256)``: 8.3 million parameters.

    Its state dict has the released one's names: ``cnn.conv0.weight``, ``rnn.1.embedding.bias`` and so on.

    Args:
        classes: characters and the blank.
    """

    def __init__(self, classes: int = 37) -> None:
        super().__init__()
        self.cnn = nn.Sequential()
        inputs = 1
        for index, outputs in enumerate((64, 128, 256, 256, 512, 512, 512)):
            last = index == 6
            self.cnn.add_module(f"conv{index}", nn.Conv2d(inputs, outputs, 2 if last else 3, padding=0 if last else 1))
            if index in (2, 4, 6):
                self.cnn.add_module(f"batchnorm{index}", nn.BatchNorm2d(outputs))
            self.cnn.add_module(f"relu{index}", nn.ReLU())
            if index in (0, 1):
                self.cnn.add_module(f"pooling{index}", nn.MaxPool2d(2, 2))
            elif index in (3, 5):
                self.cnn.add_module(f"pooling{index // 2 + 1}", nn.MaxPool2d((2, 2), (2, 1), (0, 1)))
            inputs = outputs
        self.rnn = nn.Sequential(_Recurrent(512, 256, 256), _Recurrent(256, 256, classes))

    def forward(self, crops: Tensor) -> Tensor:
        """Logits of each timestep.

        Args:
            crops: ``(N, 1, 32, W) float in [-1, 1]``, all of one width.

        Returns:
            ``(N, W // 4 + 1, classes)``.
        """
        features = self.cnn(crops).squeeze(2).transpose(1, 2)  # (N, T, 512)
        logits: Tensor = self.rnn(features)
        return logits


class _Recurrent(nn.Module):
    """A bidirectional LSTM and a linear layer, named as in the released files."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.rnn = nn.LSTM(inputs, hidden, bidirectional=True, batch_first=True)
        self.embedding = nn.Linear(2 * hidden, outputs)

    def forward(self, sequence: Tensor) -> Tensor:
        output: Tensor = self.embedding(self.rnn(sequence)[0])
        return output
