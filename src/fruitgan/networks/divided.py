"""Dropout and batch norm over the whole batch, for networks of which each process is given its rows alone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from fruitgan.distributed import ranks
from fruitgan.errors import UsageError


class DividedDropout(nn.Dropout):
    """The mask is drawn for the whole batch, so that a row's does not depend on the number of processes."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.p:
            return x
        # Drawn and applied as torch does on a CPU, to the bit; its kernel for GPUs draws in another order.
        whole = torch.empty((ranks().whole_length(len(x)), *x.shape[1:]), dtype=x.dtype, device=x.device)
        return x * ranks().own(whole.bernoulli_(1 - self.p).div_(1 - self.p))


class DividedBatchNorm1d(nn.BatchNorm1d):
    """Means and variances are the whole batch's."""

    def forward(self, x: Tensor) -> Tensor:
        return _normed(self, x) if self.training and ranks().world > 1 else super().forward(x)


class DividedBatchNorm2d(nn.BatchNorm2d):
    """Means and variances are the whole batch's."""

    def forward(self, x: Tensor) -> Tensor:
        return _normed(self, x) if self.training and ranks().world > 1 else super().forward(x)


DIVIDED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Dropout: DividedDropout,
    nn.BatchNorm1d: DividedBatchNorm1d,
    nn.BatchNorm2d: DividedBatchNorm2d,
}


def divide(network: nn.Module) -> None:
    """Let the layers of a network that look at the whole batch do so on every process.

    Raises:
        UsageError: there are several processes, and one of its layers is of a kind that this is not known of.
    """
    for module in network.modules():
        if (kind := DIVIDED.get(type(module))) is not None:
            module.__class__ = kind
        elif isinstance(module, (_BatchNorm, _DropoutNd)) and type(module) not in DIVIDED.values() and ranks().is_group:
            name = type(module).__name__
            raise UsageError(f"its layer {name} looks at the whole batch, of which a process has a part; use one process")


class _SumOverRanks(torch.autograd.Function):
    """The sum over all processes, with gradients: each process' loss depends on every process' numbers."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        total = x.clone()
        ranks().add([total])
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        ranks().add([total])
        return total


def _normed(norm: _BatchNorm, x: Tensor) -> Tensor:
    """Ioffe & Szegedy 2015, algorithm 1, of [n, C, ...]; also where this process has no row of a small batch."""
    along, shape = [0, *range(2, x.ndim)], (1, -1, *(1 for _ in x.shape[2:]))
    count = x.new_full((1,), x.numel() / x.shape[1])
    sums: Tensor = _SumOverRanks.apply(torch.cat([x.sum(along), count]))
    count = sums[-1].detach()
    mean = sums[:-1] / count
    centred = x - mean.view(shape)
    variance: Tensor = _SumOverRanks.apply(centred.square().sum(along)) / count
    with torch.no_grad():
        if norm.running_mean is not None and norm.running_var is not None and norm.num_batches_tracked is not None:
            norm.num_batches_tracked.add_(1)
            weight = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
            norm.running_mean.lerp_(mean, weight)
            norm.running_var.lerp_(variance * count / (count - 1), weight)
    y = centred * torch.rsqrt(variance + norm.eps).view(shape)
    return y * norm.weight.view(shape) + norm.bias.view(shape) if norm.affine else y
