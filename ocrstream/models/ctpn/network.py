"""This project's CTPN: a picture in, one fixed-width slice of text at every cell out.

The idea is that of Tian et al., Detecting Text in Natural Image with Connectionist Text Proposal Network, 2016: slices
of fixed width, each predicting where its text's top and bottom lie (section 3.1), a recurrent layer along each row of
the feature map that shares what the slices know (section 3.2), and side-refinement (section 3.3). What differs: slices
are 4 pixels wide instead of 16, top and bottom are regressed without anchors, every slice also predicts its text's two
ends and its tilt, and a feature pyramid brings the recurrent layer's result down to the fine grid.

Two profiles share everything but the backbone: ``light`` for CPUs, ``vgg16`` for GPUs.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from ocrstream.models.ctpn.slices import OUTPUTS

BACKBONES = {
    "light": ((128, 256, 512, 1024), 96),
    "vgg16": ((256, 512, 512, 512), 256),
}
"""Channels at strides 4, 8, 16 and 32, and the pyramid's."""


class ConvNorm(nn.Sequential):
    """A convolution without bias, batch normalisation, and a ReLU unless told otherwise."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, activate: bool = True) -> None:
        layers: list[nn.Module] = [
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([nn.ReLU(inplace=True)] if activate else []))


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut (He et al., 2016), the normalisation folded into the biases.

    The stride is the first convolution's, as in the first release of such networks.
    """

    def __init__(self, inputs: int, middle: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(inputs, middle, 1, stride)
        self.conv = nn.Conv2d(middle, middle, 3, padding=1)
        self.expand = nn.Conv2d(middle, outputs, 1)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, features: Tensor) -> Tensor:
        """``(N, C, H, W)`` to ``(N, C', H / stride, W / stride)``."""
        inner = torch.relu_(self.conv(torch.relu_(self.reduce(features))))
        return torch.relu_(self.expand(inner).add_(self.shortcut(features)))


class LightBackbone(nn.Module):
    """A residual network of 50 layers at half the usual width.

    Plain convolutions are the fastest kind on a CPU, in training (bfloat16) and in use (float32, int8) alike; without
    layers of normalisation it also trains well in small batches.
    """

    def __init__(self) -> None:
        super().__init__()
        (at4, at8, at16, at32), _ = BACKBONES["light"]
        self.stem = nn.Conv2d(3, 64, 7, 2, 3)
        self.stage4 = _stage(64, at4, blocks=3, stride=1)
        self.stage8 = _stage(at4, at8, blocks=4, stride=2)
        self.stage16 = _stage(at8, at16, blocks=6, stride=2)
        self.stage32 = _stage(at16, at32, blocks=3, stride=2)

    def lowest(self, count: int) -> list[nn.Module]:
        """The first parts, which training leaves as they are: edges and strokes are the same in every picture."""
        return [self.stem, self.stage4, self.stage8, self.stage16, self.stage32][:count]

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """``(N, 3, H, W)`` to the features at strides 4, 8, 16 and 32."""
        # Padded at the bottom and right only, where zeros change nothing: features are not negative.
        stem = functional.max_pool2d(functional.pad(torch.relu_(self.stem(picture)), (0, 1, 0, 1)), 3, 2)
        at4 = self.stage4(stem)
        at8 = self.stage8(at4)
        at16 = self.stage16(at8)
        return at4, at8, at16, self.stage32(at16)


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    first = Bottleneck(inputs, outputs // 4, outputs, stride)
    return nn.Sequential(first, *(Bottleneck(outputs, outputs // 4, outputs, 1) for _ in range(blocks - 1)))


class VggBackbone(nn.Module):
    """The thirteen convolutions of VGG16 (Simonyan and Zisserman, 2015, configuration D), named as Caffe does."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 64, 64), (64, 128, 128), (128, 256, 256, 256), (256, 512, 512, 512), (512, 512, 512, 512))
        self.blocks = nn.ModuleList(
            nn.ModuleDict(
                {
                    f"conv{block}_{layer}": nn.Conv2d(inputs, outputs, 3, padding=1)
                    for layer, (inputs, outputs) in enumerate(pairwise(row), 1)
                }
            )
            for block, row in enumerate(widths, 1)
        )

    def lowest(self, count: int) -> list[nn.Module]:
        """The first blocks, which training leaves as they are, the original two."""
        return list(self.blocks)[:count]

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """``(N, 3, H, W)`` to the features at strides 4, 8, 16 and 32."""
        features, outputs = picture, []
        for block in self.blocks:
            if block is not self.blocks[0]:
                features = functional.max_pool2d(features, 2)
            assert isinstance(block, nn.ModuleDict)
            for convolution in block.values():
                features = torch.relu_(convolution(features))
            outputs.append(features)
        return *outputs[2:], functional.max_pool2d(features, 2)


class RowRecurrence(nn.Module):
    """Two LSTMs along each row of a feature map, added to it (CTPN, section 3.2)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(channels, channels // 2, bidirectional=True)
        self.merge = nn.Conv2d(channels, channels, 1)

    def forward(self, features: Tensor) -> Tensor:
        """``(N, C, H, W)`` to the same shape; rows know nothing of each other."""
        count, channels, height, width = features.shape
        # (N, C, H, W) -> (W, N * H, C): time runs along the row, every row is a sequence.
        rows = features.permute(3, 0, 2, 1).reshape(width, count * height, channels)
        rows = self.lstm(rows)[0]
        context = rows.reshape(width, count, height, channels).permute(1, 3, 2, 0)
        merged: Tensor = self.merge(context)
        return merged + features


class Ctpn(nn.Module):
    """Backbone, pyramid with the recurrent layer at stride 16, and head at stride 4."""

    def __init__(self, profile: str = "light") -> None:
        super().__init__()
        (at4, at8, at16, at32), width = BACKBONES[profile]
        self.backbone = LightBackbone() if profile == "light" else VggBackbone()
        self.lateral32 = ConvNorm(at32, width, 1, activate=False)
        self.lateral16 = ConvNorm(at16, width, 1, activate=False)
        self.recurrence = RowRecurrence(width)
        self.smooth16 = ConvNorm(width, width)
        self.lateral8 = ConvNorm(at8, width, 1, activate=False)
        self.smooth8 = ConvNorm(width, width)
        head = max(64, width // 2)
        self.narrow8 = ConvNorm(width, head, 1, activate=False)
        self.lateral4 = ConvNorm(at4, head, 1, activate=False)
        self.smooth4 = ConvNorm(head, head)
        self.head = nn.Conv2d(head, len(OUTPUTS), 1)
        if self.head.bias is not None:
            # Few cells are text: the score begins near its share of them.
            nn.init.constant_(self.head.bias[0:1], -3.0)

    def forward(self, picture: Tensor) -> Tensor:
        """The raw output.

        Args:
            picture: ``(N, 3, H, W) float32 BGR``, 0 to 255 less `slices.MEAN_BGR`, H and W multiples of 32.

        Returns:
            ``(N, 6, H / 4, W / 4)``, channels as in `slices.OUTPUTS`.
        """
        at4, at8, at16, at32 = self.backbone(picture)
        merged = torch.relu_(self.lateral16(at16).add_(_doubled(self.lateral32(at32))))
        merged = self.smooth16(self.recurrence(merged))
        merged = self.smooth8(torch.relu_(self.lateral8(at8).add_(_doubled(merged))))
        merged = self.smooth4(torch.relu_(self.lateral4(at4).add_(_doubled(self.narrow8(merged)))))
        output: Tensor = self.head(merged)
        return output


def _doubled(features: Tensor) -> Tensor:
    return functional.interpolate(features, scale_factor=2.0, mode="nearest")


def parameter_count(modules: Sequence[nn.Module]) -> int:
    """How many numbers training has to find."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())
