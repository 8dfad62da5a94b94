"""Light generators for CPUs: `mobile` and the students of `fruitgan distill`. Untrained, each gives back its source."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan.device import at_least_fp32
from fruitgan.networks.contracts import GeneratorParts, MaskedGenerator, SizeRule
from fruitgan.networks.layers import (
    BilinearUpsample,
    BlurPool,
    InstanceNorm,
    ReflectConv2d,
    composed,
    initialise,
    inner_maps,
    separable_block,
)

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


class _ShuffledGenerator(MaskedGenerator):
    """A generator whose last maps become pixels by a pixel shuffle, smoothed so that no grid shows, and a change of the source.

    The source's own sharpness is added at full size. The last layer starts at zero, so that the untrained output is the input.
    """

    factor: int

    def _finish(self, width: int, maps: int, steps: Sequence[nn.Module]) -> None:
        """The last layers, first weights, and the steps behind which `encode` looks."""
        self.head = ReflectConv2d(width, maps)
        self.smooth = BlurPool()
        self._steps = [*steps]  # a list, in which torch looks for no parts
        self.encode_points = len(self._steps)
        initialise(self)
        nn.init.zeros_(self.head.weight)

    def encode(self, x: Tensor, points: Sequence[int]) -> list[Tensor]:
        return inner_maps(self._steps, x, points)

    def _composed(self, source: Tensor, inner: Tensor) -> GeneratorParts:
        return composed(source, self.smooth(at_least_fp32(F.pixel_shuffle(self.head(inner), self.factor))))


class Mobile(_ShuffledGenerator):
    """Light generator of depthwise separable blocks with image-residual output and soft mask; at rest it is the identity.

    Works at half and quarter size. Points for `encode`: 0 the stem, 1 at a quarter of the size, then each block.
    """

    size_rule = SizeRule(minimum_px=8, multiple_of_px=4)
    factor = 2

    def __init__(self, *, base_channels: int = 32, blocks: int = 6, mask: bool = True) -> None:
        super().__init__()
        c = base_channels
        self.stem = _stem(c, self.factor)
        down = (ReflectConv2d(c, 4 * c, stride=2, bias=False), InstanceNorm(4 * c, affine=True), nn.ReLU(inplace=True))
        self.trunk = nn.Sequential(nn.Sequential(*down), *(separable_block(4 * c) for _ in range(blocks)))
        self.widen = nn.Sequential(nn.Conv2d(4 * c, 4 * c, 1), nn.PixelShuffle(2), BlurPool())
        self.join = nn.Sequential(ReflectConv2d(2 * c, c), nn.ReLU(inplace=True))
        self._finish(c, 16 if mask else 12, [self.stem, *self.trunk])

    def parts(self, x: Tensor) -> GeneratorParts:
        skip = self.stem(x)
        return self._composed(x, self.join(torch.cat([self.widen(self.trunk(skip)), skip], dim=1)))


class Lite(_ShuffledGenerator):
    """Student at a quarter of the size alone: separable blocks between pixel unshuffle and shuffle, image-residual output.

    Points for `encode`: 0 the stem, then each block.
    """

    size_rule = SizeRule(minimum_px=8, multiple_of_px=4)
    factor = 4

    def __init__(self, *, base_channels: int = 96, blocks: int = 8) -> None:
        super().__init__()
        self.trunk = nn.Sequential(_stem(base_channels, self.factor), *(separable_block(base_channels) for _ in range(blocks)))
        self._finish(base_channels, 3 * self.factor**2, list(self.trunk))

    def parts(self, x: Tensor) -> GeneratorParts:
        return self._composed(x, self.trunk(x))


class LiteU(_ShuffledGenerator):
    """Student with a view of the whole: a U of separable convolutions down to a sixteenth, image-residual output.

    Going up, the map is upsampled bilinearly, brought to the level's width and added to what went down there. Points for
    `encode`: 0 to 3 the levels going down, then each block at the bottom.
    """

    size_rule = SizeRule(minimum_px=32, multiple_of_px=16)
    factor = 2

    def __init__(self, *, base_channels: int = 32, blocks: int = 8) -> None:
        super().__init__()
        widths = [base_channels * multiple for multiple in U_WIDTHS]
        downs = [_down(narrow, wide) for narrow, wide in itertools.pairwise(widths)]
        self.downs = nn.ModuleList([_stem(widths[0], self.factor), *downs])
        self.blocks = nn.ModuleList(separable_block(widths[-1]) for _ in range(blocks))
        self.enlarge = BilinearUpsample()
        self.narrow = nn.ModuleList(nn.Conv2d(wide, narrow, 1) for narrow, wide in itertools.pairwise(widths))
        self.refine = nn.ModuleList(separable_block(width) for width in widths[:-1])
        self._finish(widths[0], 3 * self.factor**2, [*self.downs, *self.blocks])

    def parts(self, x: Tensor) -> GeneratorParts:
        levels = self.encode(x, range(self.encode_points))
        inner = levels[-1]
        for level in reversed(range(len(self.narrow))):
            inner = self.refine[level](levels[level] + self.enlarge(self.narrow[level](inner)))
        return self._composed(x, inner)


def _down(narrow: int, wide: int) -> nn.Sequential:
    """Half the size, depthwise, and then wider."""
    return nn.Sequential(
        ReflectConv2d(narrow, narrow, stride=2, groups=narrow, bias=False),
        nn.Conv2d(narrow, wide, 1, bias=False),
        InstanceNorm(wide, affine=True),
        nn.ReLU(inplace=True),
    )
