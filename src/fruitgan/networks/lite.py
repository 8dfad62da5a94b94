"""Small generators to be taught by a large one (`fruitgan distill`); both change the source and start as the identity."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan.device import at_least_fp32
from fruitgan.networks.composition import composed
from fruitgan.networks.contracts import Generator, GeneratorParts, SizeRule
from fruitgan.networks.layers import InstanceNorm, initialise
from fruitgan.networks.mobile import SeparableBlock
from fruitgan.networks.reflection import Enlarge, ReflectConv2d, Smooth

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
