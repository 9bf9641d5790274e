"""The CRNN networks in PyTorch: crops in, logits out (Shi et al., An End-to-End Trainable Neural Network, 2015).

Two profiles. `OriginalCrnn` is the released network, value by value, under its own tensor names. `LightCrnn` is ours:
one convolution and one recurrent layer less, any width, and batches whose crops do not see each other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

HEIGHT_PX = 32
"""The only height at which the convolutions leave one row."""


def light_steps(width_px: int) -> int:
    """Timesteps of `LightCrnn` for a crop of this width, a multiple of 4."""
    return width_px // 4 + 1


class LightCrnn(nn.Module):
    """Six convolutions, one bidirectional LSTM, one linear layer: 4.9 million parameters.

    Args:
        classes: characters and the blank.
    """

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(1, 64, 3, padding=1)
        self.conv1 = nn.Conv2d(64, 128, 3, padding=1)
        self.conv2 = nn.Conv2d(128, 256, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(256)
        self.conv3 = nn.Conv2d(256, 256, 3, padding=1)
        self.conv4 = nn.Conv2d(256, 512, 3, padding=1)
        self.norm4 = nn.BatchNorm2d(512)
        self.conv5 = nn.Conv2d(512, 512, 2)
        self.norm5 = nn.BatchNorm2d(512)
        self.lstm = nn.LSTM(512, 256, bidirectional=True, batch_first=True)
        self.output = nn.Linear(512, classes)

    def forward(self, crops: Tensor, widths_px: Tensor | None = None) -> Tensor:
        """Logits of each timestep.

        Args:
            crops: ``(N, 1, 32, W) float in [-1, 1]``, W a multiple of 4; right of its width a crop may hold anything.
            widths_px: ``(N,) int64`` on the CPU, multiples of 4, the widest W; without it every crop is W wide.

        Returns:
            ``(N, W // 4 + 1, classes)``; a crop's steps after `light_steps` of its width mean nothing.
        """
        half, quarter = (None, None) if widths_px is None else (widths_px // 2, widths_px // 4)
        x = _masked(crops, widths_px)  # (N, 1, 32, W)
        x = _masked(torch.max_pool2d(torch.relu(self.conv0(x)), 2), half)  # (N, 64, 16, W / 2)
        x = _masked(torch.max_pool2d(torch.relu(self.conv1(x)), 2), quarter)  # (N, 128, 8, W / 4)
        x = _masked(torch.relu(self.norm2(self.conv2(x))), quarter)
        x = _masked(torch.relu(self.conv3(x)), quarter)
        # Each of these two pools adds a column: windows 2 wide at every column, with one of padding on both sides.
        x = torch.max_pool2d(x, (2, 2), (2, 1), (0, 1))  # (N, 256, 4, W / 4 + 1)
        x = _masked(x, None if quarter is None else quarter + 1)
        x = _masked(torch.relu(self.norm4(self.conv4(x))), None if quarter is None else quarter + 1)
        x = torch.max_pool2d(x, (2, 2), (2, 1), (0, 1))  # (N, 512, 2, W / 4 + 2)
        x = torch.relu(self.norm5(self.conv5(x)))  # (N, 512, 1, W / 4 + 1)
        sequence = x.squeeze(2).transpose(1, 2)  # (N, T, 512)
        if quarter is None:
            hidden, _ = self.lstm(sequence)
        else:
            packed = pack_padded_sequence(sequence, quarter + 1, batch_first=True, enforce_sorted=False)
            hidden, _ = pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=sequence.shape[1])
        logits: Tensor = self.output(hidden)  # (N, T, classes)
        return logits


def _masked(x: Tensor, widths: Tensor | None) -> Tensor:
    """Zero right of each crop's width, which is what a convolution would see there if the crop were alone."""
    if widths is None:
        return x
    columns = torch.arange(x.shape[3], device=x.device)
    return x * (columns < widths.to(x.device)[:, None])[:, None, None, :]


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
