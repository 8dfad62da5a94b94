"""ResNet generators: the CycleGAN paper's (Zhu et al. 2017, appendix 7.2; Johnson et al. 2016), and one without aliasing."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from fruitgan.networks.contracts import Generator, GeneratorParts, MaskedGenerator, SizeRule
from fruitgan.networks.layers import (
    NORMS,
    BilinearUpsample,
    BlurPool,
    InstanceNorm,
    Reflect,
    ReflectConv2d,
    Residual,
    composed,
    initialise,
    inner_maps,
    separable_block,
)


def plain_block(channels: int, norm: str = "instance", dropout: float = 0.0) -> Residual:
    """Two reflected 3 x 3 convolutions, each with its norm, the first with ReLU and perhaps dropout."""
    bias = norm != "batch"
    first, second = ([Reflect(1), nn.Conv2d(channels, channels, 3, bias=bias), NORMS[norm](channels)] for _ in range(2))
    between = [nn.ReLU(inplace=True), *([nn.Dropout(dropout)] if dropout else [])]
    return Residual(*first, *between, *second)


class ResNetGenerator(Generator):
    """Stem at full size, two strided convolutions, `blocks` residual blocks at a quarter, two transposed convolutions, tanh.

    With `antialias` (CUT's, Park et al. 2020) blur pooling halves the maps and bilinear upsampling doubles them instead.
    Points for `encode`: 0 after the stem, 1 and 2 after the strided convolutions, then one after each block.
    """

    size_rule = SizeRule(minimum_px=8, multiple_of_px=4)

    def __init__(
        self,
        base_channels: int,
        blocks: int,
        block: Callable[[int], nn.Module] = plain_block,
        norm: str = "instance",
        antialias: bool = False,
    ) -> None:
        super().__init__()
        c, bias = base_channels, norm != "batch"

        def normed(convolution: nn.Conv2d | nn.ConvTranspose2d) -> list[nn.Module]:
            return [convolution, NORMS[norm](convolution.out_channels), nn.ReLU(inplace=True)]

        def down(n: int) -> list[nn.Module]:
            layers = normed(nn.Conv2d(n, 2 * n, 3, stride=1 if antialias else 2, padding=1, bias=bias))
            return [*layers, BlurPool(stride=2)] if antialias else layers

        def up(n: int) -> list[nn.Module]:
            if antialias:
                return [BilinearUpsample(), *normed(nn.Conv2d(n, n // 2, 3, padding=1, bias=bias))]
            return normed(nn.ConvTranspose2d(n, n // 2, 3, stride=2, padding=1, output_padding=1, bias=bias))

        stem = nn.Sequential(Reflect(3), *normed(nn.Conv2d(3, c, 7, bias=bias)))
        downs, ups = ([nn.Sequential(*step(n)) for n in widths] for step, widths in ((down, (c, 2 * c)), (up, (4 * c, 2 * c))))
        self.encoder = nn.Sequential(stem, *downs, *(block(4 * c) for _ in range(blocks)))
        self.decoder = nn.Sequential(*ups, Reflect(3), nn.Conv2d(c, 3, 7), nn.Tanh())
        self.encode_points = len(self.encoder)
        initialise(self)

    def forward(self, x: Tensor) -> Tensor:
        image: Tensor = self.decoder(self.encoder(x))
        return image

    def encode(self, x: Tensor, points: Sequence[int]) -> list[Tensor]:
        return inner_maps(self.encoder, x, points)


def _normed(channels_in: int, channels_out: int, kernel_px: int = 3) -> list[nn.Module]:
    """Reflected convolution that keeps the size, affine instance norm; no bias, which the norm would take away."""
    return [ReflectConv2d(channels_in, channels_out, kernel_px, bias=False), InstanceNorm(channels_out, affine=True)]


class AntialiasedGenerator(MaskedGenerator):
    """ResNet with blur pooling and bilinear upsampling; with `residual` it changes the source, where `mask` says.

    Stem at full size, two blurred poolings, `blocks` residual blocks at a quarter, two bilinear upsamplings. With `residual`
    the output is `composed` of the source and the last layer's maps, which start at 0, so that the untrained output is the
    input; without, it is the tanh of them. `mask` adds the map that says where the change counts.
    Points for `encode`: 0 after the stem, 1 and 2 after the poolings, then one after each block.
    """

    size_rule = SizeRule(minimum_px=8, multiple_of_px=4)

    def __init__(self, *, base_channels: int = 56, blocks: int = 9, residual: bool = True, mask: bool = True) -> None:
        super().__init__()
        c = base_channels
        self.residual = residual
        stem = nn.Sequential(*_normed(3, c, 7), nn.ReLU(inplace=True))
        downs = [nn.Sequential(*_normed(n, 2 * n), nn.ReLU(inplace=True), BlurPool(stride=2)) for n in (c, 2 * c)]
        ups = [nn.Sequential(BilinearUpsample(), *_normed(n, n // 2), nn.ReLU(inplace=True)) for n in (4 * c, 2 * c)]
        residuals = (Residual(*_normed(4 * c, 4 * c), nn.ReLU(inplace=True), *_normed(4 * c, 4 * c)) for _ in range(blocks))
        self.encoder = nn.Sequential(stem, *downs, *residuals)
        self.decoder = nn.Sequential(*ups)
        self.head = ReflectConv2d(c, 4 if mask and residual else 3, 7)
        self.encode_points = len(self.encoder)
        initialise(self)
        if residual:
            nn.init.zeros_(self.head.weight)

    def parts(self, x: Tensor) -> GeneratorParts:
        maps = self.head(self.decoder(self.encoder(x)))
        return composed(x, maps) if self.residual else GeneratorParts(torch.tanh(maps), None)

    def encode(self, x: Tensor, points: Sequence[int]) -> list[Tensor]:
        return inner_maps(self.encoder, x, points)


def resnet_9(*, base_channels: int = 64) -> ResNetGenerator:
    """ResNet generator with 9 residual blocks, the CycleGAN paper's for 256 px and more."""
    return ResNetGenerator(base_channels, blocks=9)


def resnet_6(*, base_channels: int = 64) -> ResNetGenerator:
    """ResNet generator with 6 residual blocks, the CycleGAN paper's for 128 px."""
    return ResNetGenerator(base_channels, blocks=6)


def junyanz_resnet(
    *, base_channels: int = 64, blocks: int = 9, norm: str = "instance", dropout: float = 0.0, antialias: bool = False
) -> ResNetGenerator:
    """ResNet in every form of pytorch-CycleGAN-and-pix2pix: `norm` instance or batch; CUT's with `antialias`."""
    block = functools.partial(plain_block, norm=norm, dropout=dropout)
    return ResNetGenerator(base_channels, blocks, block, norm, antialias)


def mobile_resnet(*, base_channels: int = 32, blocks: int = 9) -> ResNetGenerator:
    """Student shaped as the paper's ResNet, its blocks depthwise separable (as in Li et al. 2020, GAN Compression)."""
    return ResNetGenerator(base_channels, blocks, separable_block)
