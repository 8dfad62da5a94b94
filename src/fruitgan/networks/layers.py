"""Layers that several networks share. Some have gradients of their own on a CPU, where torch's take several times as long."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import _SpectralNorm
from torch.nn.utils.parametrize import register_parametrization

from fruitgan.device import at_least_fp32, without_autocast
from fruitgan.networks.contracts import GeneratorParts

MATMUL_SIDE_PX = 4
MATMUL_WEIGHTS = 1 << 19
START_DEVIATION = 0.02


class InstanceNorm(nn.Module):
    """Each map of each image to mean 0 and variance 1 (biased), then scaled and shifted where `affine`.

    Ulyanov et al. 2016, equation 4, with the statistics of the image at hand in training and after. [N, C, H, W] to the same;
    a 1 x 1 map becomes its offset, where torch's own layer raises in training: the reference UNet needs it.
    """

    eps = 1e-5

    def __init__(self, channels: int, *, affine: bool = False) -> None:
        super().__init__()
        self.channels = channels
        self.weight = nn.Parameter(torch.ones(channels)) if affine else None
        self.bias = nn.Parameter(torch.zeros(channels)) if affine else None

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-2:] == (1, 1):
            # Exactly nothing is left. The kernels would leave their rounding times 316 (1 / sqrt(eps)): noise to train on.
            nothing = x - x
            if self.weight is None or self.bias is None:
                return nothing
            return nothing * self.weight.view(-1, 1, 1) + self.bias.view(-1, 1, 1)
        # One group a channel is the same formula, and torch's group norm has the faster kernels on a CPU.
        return torch.group_norm(x, self.channels, self.weight, self.bias, self.eps, False)


def frozen_batch_norm(channels: int) -> nn.Module:
    """Batch norm by statistics and an affine part that never change (Ioffe & Szegedy 2015, algorithm 2, line 11).

    In training too: statistics of a batch would let its images change each other.
    """
    from torchvision.ops import FrozenBatchNorm2d  # few networks have it, and torchvision takes long to import

    norm: nn.Module = FrozenBatchNorm2d(channels)
    return norm


NORMS: dict[str, Callable[[int], nn.Module]] = {"instance": InstanceNorm, "batch": frozen_batch_norm}
"""The norms of the reference code. Behind `batch`, which shifts by itself, its convolutions have no bias."""


class Downsample(nn.Conv2d):
    """Convolution 4 x 4 of stride 2 and padding 1: [N, C, H, W] with even H and W to [N, C', H/2, W/2]."""

    def __init__(self, channels_in: int, channels_out: int, *, bias: bool) -> None:
        super().__init__(channels_in, channels_out, 4, stride=2, padding=1, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        if not _better_as_matmul(x, self.weight):
            return super().forward(x)
        n, _, height, width = x.shape
        patches = F.unfold(x, 4, padding=1, stride=2).transpose(1, 2).flatten(0, 1)  # [N L, 16 C]
        out = F.linear(patches, self.weight.flatten(1), self.bias)  # [N L, C']
        return out.view(n, -1, self.out_channels).transpose(1, 2).reshape(n, -1, height // 2, width // 2)


class Upsample(nn.ConvTranspose2d):
    """Transposed convolution 4 x 4 of stride 2 and padding 1: [N, C, H, W] to [N, C', 2 H, 2 W]."""

    def __init__(self, channels_in: int, channels_out: int, *, bias: bool) -> None:
        super().__init__(channels_in, channels_out, 4, stride=2, padding=1, bias=bias)

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        if not _better_as_matmul(x, self.weight):
            return super().forward(x, output_size)
        patches = self.weight.flatten(1).t() @ x.flatten(2)  # [N, 16 C', L]
        out = F.fold(patches, (2 * x.shape[-2], 2 * x.shape[-1]), 4, padding=1, stride=2)
        return out if self.bias is None else out + self.bias.view(-1, 1, 1)


def _better_as_matmul(x: Tensor, weight: Tensor) -> bool:
    """Whether a strided 4 x 4 convolution is faster as one matrix product between unfolding and folding.

    On a CPU the convolution kernels bring the weights into another order at every call, which costs more than the product
    itself where the weights are many and the positions few. From 8 px on the convolution is faster (docs/performance.md).
    """
    few = max(x.shape[-2:]) <= MATMUL_SIDE_PX and weight.numel() >= MATMUL_WEIGHTS
    return few and x.device.type == "cpu" and not torch.compiler.is_compiling()


def initialise(network: nn.Module) -> None:
    """The reference's start: weights of convolutions N(0, 0.02), affine scales N(1, 0.02), every bias and offset 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, START_DEVIATION)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, InstanceNorm) and module.weight is not None and module.bias is not None:
            nn.init.normal_(module.weight, 1.0, START_DEVIATION)
            nn.init.zeros_(module.bias)


class Residual(nn.Module):
    """x plus what the layers make of it: [N, C, H, W] to the same."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.layers(x)
        return out


def separable_block(channels: int) -> Residual:
    """Twice a depthwise 3 x 3 and a pointwise convolution, with affine instance norms and a ReLU between.

    Howard et al. 2017 (MobileNets), section 3.1, for the factoring.
    """
    first, second = (
        [
            ReflectConv2d(channels, channels, groups=channels, bias=False),
            nn.Conv2d(channels, channels, 1, bias=False),
            InstanceNorm(channels, affine=True),
        ]
        for _ in range(2)
    )
    return Residual(*first, nn.ReLU(inplace=True), *second)


def inner_maps(layers: Iterable[nn.Module], x: Tensor, points: Sequence[int]) -> list[Tensor]:
    """The outputs of the layers with the given numbers, in that order; x goes through the layers one by one up to the last."""
    maps = []
    for layer in itertools.islice(layers, max(points) + 1):
        x = layer(x)
        maps.append(x)
    return [maps[point] for point in points]


class Reflect(nn.Module):
    """A border of the image's own mirrored pixels: [N, C, H, W] to [N, C, H + 2 border, W + 2 border]; H and W above it."""

    def __init__(self, border: int) -> None:
        super().__init__()
        self.border = border

    def forward(self, x: Tensor) -> Tensor:
        if _has_own_gradient(x):
            return _apply(_Reflection, x, self.border)
        return F.pad(x, (self.border,) * 4, mode="reflect")


class ReflectConv2d(nn.Conv2d):
    """Convolution of an odd kernel behind a reflected border of half of it: [N, C, H, W] to [N, C', H / stride, W / stride].

    H and W are multiples of the stride.
    """

    def __init__(
        self, channels_in: int, channels_out: int, kernel_px: int = 3, *, stride: int = 1, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__(channels_in, channels_out, kernel_px, stride=stride, groups=groups, bias=bias)
        self.reflect = Reflect(kernel_px // 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.reflect(x))


class BlurPool(nn.Module):
    """[1, 2, 1] in both directions, reflected at the edges, at every `stride`th pixel: [N, C, H, W] to [N, C, H / s, W / s].

    H and W are multiples of the stride. Behind a pixel shuffle it removes the finest grid, which neighbouring outputs with
    weights of their own would leave (Odena et al. 2016); with stride 2 it halves without aliasing (Zhang 2019, section 3.2).
    """

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if _has_own_gradient(x):
            return _apply(_Blurring, x)[..., :: self.stride, :: self.stride]
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.avg_pool2d(F.avg_pool2d(x, 2, stride=1), 2, stride=self.stride)  # two means of 2 x 2 make [1, 2, 1]


class BilinearUpsample(nn.Module):
    """Twice the size, bilinear: [N, C, H, W] to [N, C, 2 H, 2 W]; beyond an edge its pixels go on.

    Odena et al. 2016: enlarged first and convolved then, every output pixel gets the same number of weights, which a
    transposed convolution does not give; its checkerboard has no place to come from.
    """

    def forward(self, x: Tensor) -> Tensor:
        if _has_own_gradient(x):
            return _apply(_BilinearUpsampling, x)
        return _twice_the_size(x)


def _twice_the_size(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _has_own_gradient(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


def _apply(function: Any, *inputs: Any) -> Tensor:
    """`torch.autograd.Function.apply`, which has types in some versions of torch alone."""
    return cast(Tensor, function.apply(*inputs))


class _Reflection(torch.autograd.Function):
    """`Reflect`: what came back from the border is added, row by row and column by column, to the pixels that it mirrored."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, border: int) -> Tensor:
        ctx.border = border
        # An autocast has this done in fp32, between two copies: five times as long for the same numbers.
        with without_autocast(x.device):
            return F.pad(x, (border,) * 4, mode="reflect")

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        gradient, border = gradients[0], ctx.border
        for axis in (-2, -1):
            side = gradient.shape[axis] - 2 * border
            # A copy, since others may hold the gradient; a dense one, since what comes next would copy it again.
            inner = gradient.narrow(axis, border, side).clone(memory_format=torch.contiguous_format)
            inner.narrow(axis, 1, border).add_(gradient.narrow(axis, 0, border).flip(axis))
            inner.narrow(axis, side - 1 - border, border).add_(gradient.narrow(axis, side + border, border).flip(axis))
            gradient = inner
        return gradient, None


class _Blurring(torch.autograd.Function):
    """`BlurPool` on whole rows and columns in place: on a CPU a fifth of the time of pooling or padding with gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _weighted(_weighted(x, -1), -2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _weighted(_weighted(gradients[0], -2, backward=True), -1, backward=True)


def _weighted(x: Tensor, axis: int, *, backward: bool = False) -> Tensor:
    """Half of each place and a quarter of both neighbours along the axis; beyond an edge lies the place before it.

    `backward` passes a gradient on: what an edge took twice of the place before it goes there.
    """
    last = x.shape[axis] - 1
    out = x * 0.5
    out.narrow(axis, 1, last).add_(x.narrow(axis, 0, last), alpha=0.25)
    out.narrow(axis, 0, last).add_(x.narrow(axis, 1, last), alpha=0.25)
    for edge, inner in ((0, 1), (last, last - 1)):
        into, of = (inner, edge) if backward else (edge, inner)
        out.narrow(axis, into, 1).add_(x.narrow(axis, of, 1), alpha=0.25)
    return out


class _BilinearUpsampling(torch.autograd.Function):
    """`BilinearUpsample`: along each axis a pixel gets back three quarters of its own two, a quarter of the next two."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _twice_the_size(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _halved(_halved(gradients[0], -2), -1)


def _halved(gradient: Tensor, axis: int) -> Tensor:
    """What twice as many places along the axis pass back."""
    pairs: Tensor = cast(Any, gradient).unflatten(axis, (-1, 2))  # typed in some versions of torch alone
    even, odd = pairs.unbind(axis)  # a pixel's own two
    last = even.shape[axis] - 1
    out = (even + odd).mul_(0.75)
    out.narrow(axis, 0, last).add_(even.narrow(axis, 1, last), alpha=0.25)
    out.narrow(axis, 0, 1).add_(even.narrow(axis, 0, 1), alpha=0.25)
    out.narrow(axis, 1, last).add_(odd.narrow(axis, 0, last), alpha=0.25)
    out.narrow(axis, last, 1).add_(odd.narrow(axis, last, 1), alpha=0.25)
    return out


class SpectralNorm(_SpectralNorm):
    """torch's W / sigma(W) (Miyato et al. 2018, equation 8 and algorithm 1), in full precision whatever the autocast around it.

    A GPU's autocast would have sigma in bf16, and with it every weight off by up to 0.4%.
    """

    def forward(self, weight: Tensor) -> Tensor:
        with without_autocast(weight.device):
            return super().forward(weight)


def spectral_norm(network: nn.Module) -> None:
    """Let the weight of each convolution be divided by its largest singular value from here on."""
    for convolution in [module for module in network.modules() if isinstance(module, nn.Conv2d)]:
        register_parametrization(convolution, "weight", SpectralNorm(convolution.weight))


LIMIT = 0.97  # the source is held inside the range of tanh, whose inverse would be infinite at 1
MASK_START = 1.0  # sigmoid(1) = 0.73: at the start the network's picture counts for most


def composed(source: Tensor, maps: Tensor) -> GeneratorParts:
    """[N, 3, H, W] in [-1, 1] and the last layer's [N, 3 or 4, H, W] to the output, with a mask where there is a fourth map.

    With h the three colour maps, x the source and m = sigmoid(fourth map + 1), y = tanh(h + atanh(clip(x, -0.97, 0.97))) is the
    changed picture and m y + (1 - m) x the output (Mejjati et al. 2018, equation 1, with the source as the background).
    At h = 0 the output differs from x by the clipping alone: a last layer that starts at zero starts as the identity.
    """
    x, maps = at_least_fp32(source), at_least_fp32(maps)
    changed = torch.tanh(maps[:, :3] + torch.atanh(x.clamp(-LIMIT, LIMIT)))
    if maps.shape[1] == 3:
        return GeneratorParts(changed, None)
    mask = torch.sigmoid(maps[:, 3:] + MASK_START)
    return GeneratorParts(torch.lerp(x, changed, mask), mask)
