"""The pieces that several networks are made of."""

from __future__ import annotations

import itertools

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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


class Smooth(nn.Module):
    """[1, 2, 1] in both directions, reflected at the edges: [N, C, H, W] to the same.

    Behind a pixel shuffle it takes away the finest grid, which the shuffle's neighbouring outputs, each with weights of its
    own, would leave (Odena et al. 2016; the filter as in Zhang 2019, section 3.2).
    """

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1, 1, 1), mode="reflect")
        # Two means of 2 x 2 make [1, 2, 1]: faster on a CPU than a convolution of one channel.
        return F.avg_pool2d(F.avg_pool2d(x, 2, stride=1), 2, stride=1)


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
