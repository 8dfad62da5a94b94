"""UNet generators (Ronneberger et al. 2015; Isola et al. 2017): the TensorFlow CycleGAN tutorial's, and pix2pix's own.

The tutorial's has a dead bottleneck, kept because the reference has it: at its nominal size the innermost map is 1 x 1, and
instance norm turns a 1 x 1 map into its offset, the same for every image. What it knows of an image passes through the skips.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from fruitgan.networks.contracts import Generator, SizeRule
from fruitgan.networks.layers import NORMS, Downsample, InstanceNorm, Upsample, initialise, inner_maps

SLOPE = 0.3  # Keras' default for LeakyReLU, which the tutorial uses; the paper has 0.2.


class UNetGenerator(Generator):
    """`depth` downsamplings, as many upsamplings, each joined with the map of its size from the way down, tanh.

    Each is a convolution 4 x 4 of stride 2, transposed going up, an affine instance norm (but for the first) and a ReLU, leaky
    going down; the first three going up have dropout.

    Points for `encode`: 0 to depth - 1, after each downsampling.
    """

    def __init__(self, depth: int, base_channels: int, dropout: float) -> None:
        super().__init__()
        widths = [base_channels * min(2**level, 8) for level in range(depth)]
        self.downs = nn.ModuleList()
        for level, (channels_in, width) in enumerate(itertools.pairwise([3, *widths])):
            norms = [InstanceNorm(width, affine=True)] if level else []
            self.downs.append(nn.Sequential(Downsample(channels_in, width, bias=False), *norms, nn.LeakyReLU(SLOPE)))
        self.ups = nn.ModuleList()
        for level in reversed(range(1, depth)):
            joined, width = 1 if level == depth - 1 else 2, widths[level - 1]
            layers = [Upsample(joined * widths[level], width, bias=False), InstanceNorm(width, affine=True)]
            dropouts = [nn.Dropout(dropout)] if dropout and level >= depth - 3 else []  # in the first three
            self.ups.append(nn.Sequential(*layers, *dropouts, nn.ReLU()))
        self.head = nn.Sequential(Upsample(2 * base_channels, 3, bias=True), nn.Tanh())
        self.encode_points = depth
        self.size_rule = SizeRule(minimum_px=2**depth, multiple_of_px=2**depth)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for down in self.downs:
            x = down(x)
            skips.append(x)
        for up, skip in zip(self.ups, skips[-2::-1], strict=True):
            x = torch.cat([up(x), skip], dim=1)
        image: Tensor = self.head(x)
        return image

    def encode(self, x: Tensor, points: Sequence[int]) -> list[Tensor]:
        return inner_maps(self.downs, x, points)


class Pix2PixUNet(Generator):
    """UNet of pytorch-CycleGAN-and-pix2pix: `depth` 8 for 256 px, 7 for 128 px; `norm` instance or batch.

    Maps are activated before a layer, not behind it. The innermost map has no norm; dropout stands behind the norms of the
    maps of 8 `base_channels`, but for the innermost.
    """

    def __init__(self, *, base_channels: int = 64, depth: int = 8, norm: str = "instance", dropout: float = 0.0) -> None:
        super().__init__()
        widths, bias = [base_channels * min(2**level, 8) for level in range(depth)], norm != "batch"
        self.downs = nn.ModuleList([Downsample(3, widths[0], bias=bias)])
        for level in range(1, depth):
            layers = [nn.LeakyReLU(0.2), Downsample(widths[level - 1], widths[level], bias=bias)]
            self.downs.append(nn.Sequential(*layers, *([NORMS[norm](widths[level])] if level < depth - 1 else [])))
        self.ups = nn.ModuleList()
        for level in reversed(range(1, depth)):
            joined = 1 if level == depth - 1 else 2  # what came up stands behind what went down
            layers = [nn.ReLU(), Upsample(joined * widths[level], widths[level - 1], bias=bias), NORMS[norm](widths[level - 1])]
            self.ups.append(nn.Sequential(*layers, *([nn.Dropout(dropout)] if dropout and 4 <= level < depth - 1 else [])))
        self.head = nn.Sequential(nn.ReLU(), Upsample(2 * base_channels, 3, bias=True), nn.Tanh())
        self.size_rule = SizeRule(minimum_px=2**depth, multiple_of_px=2**depth)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for down in self.downs:
            x = down(x)
            maps.append(x)
        x = maps.pop()
        for up in self.ups:
            x = torch.cat([maps.pop(), up(x)], dim=1)
        image: Tensor = self.head(x)
        return image


def unet_256(*, base_channels: int = 64, dropout: float = 0.5) -> UNetGenerator:
    """UNet generator for sides that are multiples of 256 px, with the reference's dead bottleneck."""
    return UNetGenerator(8, base_channels, dropout)


def unet_128(*, base_channels: int = 64, dropout: float = 0.5) -> UNetGenerator:
    """UNet generator for sides that are multiples of 128 px, one level less than `unet-256`."""
    return UNetGenerator(7, base_channels, dropout)
