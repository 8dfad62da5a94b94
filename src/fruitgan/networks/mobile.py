"""A light generator for CPUs that starts as the identity and says where it changes something."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan.device import at_least_fp32
from fruitgan.networks.contracts import Generator, GeneratorParts, SizeRule
from fruitgan.networks.layers import Enlarge, InstanceNorm, ReflectConv2d, Smooth, composed, initialise


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


U_WIDTHS = (1, 2, 4, 6)
"""Of the levels of `lite-u`, as multiples of the width: a half, a quarter, an eighth and a sixteenth of the size."""


def _stem(channels: int, factor: int) -> nn.Sequential:
    """Squares of `factor` px side by side as channels, and a first look at them."""
    return nn.Sequential(
        nn.PixelUnshuffle(factor),
        ReflectConv2d(3 * factor**2, channels, bias=False),
        InstanceNorm(channels, affine=True),
        nn.ReLU(inplace=True),
    )


def _head(channels: int, factor: int) -> ReflectConv2d:
    return ReflectConv2d(channels, 3 * factor**2)


class LiteGenerator(Generator):
    """Works at one size alone, a quarter's; points for `encode`: 0 the stem, then each block."""

    size_rule = SizeRule(minimum_px=8, multiple_of_px=4)
    FACTOR = 4

    def __init__(self, base_channels: int, blocks: int) -> None:
        super().__init__()
        self.trunk = nn.ModuleList([_stem(base_channels, self.FACTOR), *(SeparableBlock(base_channels) for _ in range(blocks))])
        self.head = _head(base_channels, self.FACTOR)
        self.smooth = Smooth()
        self.encode_points = len(self.trunk)
        initialise(self)
        nn.init.zeros_(self.head.weight)

    def parts(self, x: Tensor) -> GeneratorParts:
        inner = x
        for layer in self.trunk:
            inner = layer(inner)
        return composed(x, self.smooth(at_least_fp32(F.pixel_shuffle(self.head(inner), self.FACTOR))))

    def encode(self, x: Tensor, points: Sequence[int]) -> list[Tensor]:
        maps = []
        for layer in self.trunk[: max(points) + 1]:
            x = layer(x)
            maps.append(x)
        return [maps[point] for point in points]


class LiteUGenerator(Generator):
    """A U of depthwise separable convolutions: a half, a quarter, an eighth, a sixteenth of the size, and up again.

    Going up, the map is enlarged bilinearly, brought to the level's width and added to what went down there. Points for
    `encode`: 0 to 3 the levels going down, then each block at the bottom.
    """

    size_rule = SizeRule(minimum_px=32, multiple_of_px=16)
    FACTOR = 2

    def __init__(self, base_channels: int, blocks: int) -> None:
        super().__init__()
        widths = [base_channels * multiple for multiple in U_WIDTHS]
        downs = [_down(narrow, wide) for narrow, wide in itertools.pairwise(widths)]
        self.downs = nn.ModuleList([_stem(widths[0], self.FACTOR), *downs])
        self.blocks = nn.ModuleList(SeparableBlock(widths[-1]) for _ in range(blocks))
        self.enlarge = Enlarge()
        self.narrow = nn.ModuleList(nn.Conv2d(wide, narrow, 1) for narrow, wide in itertools.pairwise(widths))
        self.refine = nn.ModuleList(SeparableBlock(width) for width in widths[:-1])
        self.head = _head(widths[0], self.FACTOR)
        self.smooth = Smooth()
        self.encode_points = len(self.downs) + blocks
        initialise(self)
        nn.init.zeros_(self.head.weight)

    def parts(self, x: Tensor) -> GeneratorParts:
        levels = self.encode(x, range(self.encode_points))
        inner = levels[-1]
        for level in reversed(range(len(self.narrow))):
            inner = self.refine[level](levels[level] + self.enlarge(self.narrow[level](inner)))
        return composed(x, self.smooth(at_least_fp32(F.pixel_shuffle(self.head(inner), self.FACTOR))))

    def encode(self, x: Tensor, points: Sequence[int]) -> list[Tensor]:
        maps = []
        for layer in [*self.downs, *self.blocks][: max(points) + 1]:
            x = layer(x)
            maps.append(x)
        return [maps[point] for point in points]


def _down(narrow: int, wide: int) -> nn.Sequential:
    """Half the size, depthwise, and then wider."""
    return nn.Sequential(
        ReflectConv2d(narrow, narrow, stride=2, groups=narrow, bias=False),
        nn.Conv2d(narrow, wide, 1, bias=False),
        InstanceNorm(wide, affine=True),
        nn.ReLU(inplace=True),
    )


def lite(*, base_channels: int = 96, blocks: int = 8) -> LiteGenerator:
    """Student at a quarter of the size alone: separable blocks between pixel unshuffle and shuffle, image-residual output."""
    return LiteGenerator(base_channels, blocks)


def lite_u(*, base_channels: int = 32, blocks: int = 8) -> LiteUGenerator:
    """Student with a view of the whole: a U of separable convolutions down to a sixteenth, image-residual output."""
    return LiteUGenerator(base_channels, blocks)
