"""The pieces that several networks are made of."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn

MATMUL_SIDE_PX = 4
MATMUL_WEIGHTS = 1 << 19


class InstanceNorm(nn.Module):
    """Each map of each image to mean 0 and variance 1 (biased), then scaled and shifted where `affine`.

    Ulyanov et al. 2016, equation 4, with the statistics of the image at hand in training and after. [N, C, H, W] to the same;
    a 1 x 1 map becomes its offset, where torch's own layer raises in training: the reference UNet needs it.
    """

    def __init__(self, channels: int, *, affine: bool = False, eps: float = 1e-5) -> None:
        super().__init__()
        self.channels = channels
        self.eps = eps
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

    def extra_repr(self) -> str:
        return f"{self.channels}, affine={self.weight is not None}"


class Halving(nn.Conv2d):
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


class Doubling(nn.ConvTranspose2d):
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


def initialise(network: nn.Module, std: float = 0.02) -> None:
    """The reference's start: weights of convolutions N(0, std), affine scales N(1, std), every bias and offset 0."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, std)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, InstanceNorm) and module.weight is not None and module.bias is not None:
            nn.init.normal_(module.weight, 1.0, std)
            nn.init.zeros_(module.bias)


def biases_before_norm(network: nn.Module) -> frozenset[str]:
    """Names of the biases that an instance norm right behind their convolution takes away again."""
    dead = set()
    for path, module in network.named_modules():
        if isinstance(module, nn.Sequential):
            children = list(module.named_children())
            for (name, child), (_, follower) in itertools.pairwise(children):
                if (
                    isinstance(child, (nn.Conv2d, nn.ConvTranspose2d))
                    and child.bias is not None
                    and isinstance(follower, InstanceNorm)
                ):
                    dead.add(".".join(part for part in (path, name, "bias") if part))
    return frozenset(dead)
