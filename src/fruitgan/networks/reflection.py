"""Layers that look beyond the image's edges, with gradients of their own on a CPU: torch's take several times as long there."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan.device import without_autocast


class Reflect(nn.Module):
    """A border of the image's own mirrored pixels: [N, C, H, W] to [N, C, H + 2 border, W + 2 border]; H and W above it."""

    def __init__(self, border: int) -> None:
        super().__init__()
        self.border = border

    def forward(self, x: Tensor) -> Tensor:
        if _has_own_gradient(x):
            bordered: Tensor = cast(Any, _Reflection).apply(x, self.border)  # typed in some versions of torch alone
            return bordered
        return F.pad(x, (self.border,) * 4, mode="reflect")

    def extra_repr(self) -> str:
        return str(self.border)


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


class Smooth(nn.Module):
    """[1, 2, 1] in both directions, reflected at the edges, at every `stride`th pixel: [N, C, H, W] to [N, C, H / s, W / s].

    H and W are multiples of the stride.

    Behind a pixel shuffle it takes away the finest grid, which the shuffle's neighbouring outputs, each with weights of its
    own, would leave (Odena et al. 2016). With stride 2 it is a halving that takes away before what a stride would fold back as
    false patterns (Zhang 2019, section 3.2; the filter is the same).
    """

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        if _has_own_gradient(x):
            smoothed: Tensor = cast(Any, _Smoothing).apply(x)
            return smoothed[..., :: self.stride, :: self.stride]
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        return F.avg_pool2d(F.avg_pool2d(x, 2, stride=1), 2, stride=self.stride)  # two means of 2 x 2 make [1, 2, 1]

    def extra_repr(self) -> str:
        return f"stride={self.stride}"


class Enlarge(nn.Module):
    """Twice the size, bilinear: [N, C, H, W] to [N, C, 2 H, 2 W]; beyond an edge its pixels go on.

    Odena et al. 2016: enlarged first and convolved then, every output pixel gets the same number of weights, which a
    transposed convolution does not give; its checkerboard has no place to come from.
    """

    def forward(self, x: Tensor) -> Tensor:
        if _has_own_gradient(x):
            enlarged: Tensor = cast(Any, _Enlarging).apply(x)
            return enlarged
        return _twice_the_size(x)


def _twice_the_size(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=False)


def _has_own_gradient(x: Tensor) -> bool:
    return x.device.type == "cpu" and not torch.compiler.is_compiling()


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


class _Smoothing(torch.autograd.Function):
    """`Smooth` on whole rows and columns in place: on a CPU a fifth of the time of pooling or padding with their gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _weighted(_weighted(x, -1), -2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _weighted_transposed(_weighted_transposed(gradients[0], -2), -1)


def _weighted(x: Tensor, axis: int) -> Tensor:
    """Half of each place and a quarter of both neighbours along the axis; beyond an edge lies the one before it."""
    last = x.shape[axis] - 1
    out = x * 0.5
    out.narrow(axis, 1, last).add_(x.narrow(axis, 0, last), alpha=0.25)
    out.narrow(axis, 0, last).add_(x.narrow(axis, 1, last), alpha=0.25)
    out.narrow(axis, 0, 1).add_(x.narrow(axis, 1, 1), alpha=0.25)
    out.narrow(axis, last, 1).add_(x.narrow(axis, last - 1, 1), alpha=0.25)
    return out


def _weighted_transposed(gradient: Tensor, axis: int) -> Tensor:
    """What `_weighted` passes back: inside the same, and what the edges took of the ones before them goes there."""
    last = gradient.shape[axis] - 1
    out = gradient * 0.5
    out.narrow(axis, 1, last).add_(gradient.narrow(axis, 0, last), alpha=0.25)
    out.narrow(axis, 0, last).add_(gradient.narrow(axis, 1, last), alpha=0.25)
    out.narrow(axis, 1, 1).add_(gradient.narrow(axis, 0, 1), alpha=0.25)
    out.narrow(axis, last - 1, 1).add_(gradient.narrow(axis, last, 1), alpha=0.25)
    return out


class _Enlarging(torch.autograd.Function):
    """`Enlarge`: along each axis a pixel gets back three quarters of its own two, a quarter of the next two."""

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
