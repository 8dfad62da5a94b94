"""A light generator for CPUs that starts as the identity and says where it changes something."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan.device import at_least_fp32
from fruitgan.networks.composition import composed
from fruitgan.networks.contracts import Generator, GeneratorParts, SizeRule
from fruitgan.networks.layers import InstanceNorm, initialise
from fruitgan.networks.reflection import ReflectConv2d, Smooth


class SeparableBlock(nn.Module):
    """x plus twice a depthwise 3 x 3 and a pointwise convolution of it, with affine instance norms and a ReLU between.

    Howard et al. 2017 (MobileNets), section 3.1, for the factoring.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for half in range(2):
            layers += [
                ReflectConv2d(channels, channels, groups=channels, bias=False),
                nn.Conv2d(channels, channels, 1, bias=False),
                InstanceNorm(channels, affine=True),
            ]
            if half == 0:
                layers.append(nn.ReLU(inplace=True))
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


class MobileGenerator(Generator):
    """Works at half and quarter size; its last layer starts at zero, so that the untrained output is the input.

    The output is `composed` of what the last layer says and of the source.
    What each pixel shuffle gives is smoothed, so that no grid shows; the source's own sharpness is added at full size.
    Points for `encode`: 0 the stem, 1 the halving, then each block.
    """

    size_rule = SizeRule(minimum_px=8, multiple_of_px=4)

    def __init__(self, base_channels: int, blocks: int, mask: bool) -> None:
        super().__init__()
        c = base_channels
        self.stem = nn.Sequential(
            nn.PixelUnshuffle(2),
            ReflectConv2d(12, c, bias=False),
            InstanceNorm(c, affine=True),
            nn.ReLU(inplace=True),
        )
        self.trunk = nn.ModuleList(
            [
                nn.Sequential(
                    ReflectConv2d(c, 4 * c, stride=2, bias=False),
                    InstanceNorm(4 * c, affine=True),
                    nn.ReLU(inplace=True),
                ),
                *(SeparableBlock(4 * c) for _ in range(blocks)),
            ]
        )
        self.widen = nn.Sequential(nn.Conv2d(4 * c, 4 * c, 1), nn.PixelShuffle(2), Smooth())
        self.join = nn.Sequential(ReflectConv2d(2 * c, c), nn.ReLU(inplace=True))
        self.head = ReflectConv2d(c, 16 if mask else 12)
        self.smooth = Smooth()
        self.encode_points = 2 + blocks
        initialise(self)
        nn.init.zeros_(self.head.weight)

    def parts(self, x: Tensor) -> GeneratorParts:
        skip = self.stem(x)
        inner = skip
        for layer in self.trunk:
            inner = layer(inner)
        joined = self.join(torch.cat([self.widen(inner), skip], dim=1))
        return composed(x, self.smooth(at_least_fp32(F.pixel_shuffle(self.head(joined), 2))))

    def encode(self, x: Tensor, points: Sequence[int]) -> list[Tensor]:
        maps = [self.stem(x)]
        for layer in self.trunk[: max(points)]:
            maps.append(layer(maps[-1]))
        return [maps[point] for point in points]


def mobile(*, base_channels: int = 32, blocks: int = 6, mask: bool = True) -> MobileGenerator:
    """Light generator of depthwise separable blocks with image-residual output and soft mask; at rest it is the identity."""
    return MobileGenerator(base_channels, blocks, mask)
