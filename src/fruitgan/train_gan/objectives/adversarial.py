"""Adversarial losses on the logit maps of a discriminator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from fruitgan.device import at_least_fp32

Logits = Sequence[Tensor]


def _squared(logits: Tensor, target: float) -> Tensor:
    """Mean of (D - target)^2: Mao et al. 2017, equation 2, with targets 1 and 0; Zhu et al. 2017, section 4."""
    return (at_least_fp32(logits) - target).square().mean()


def _cross_entropy(logits: Tensor, target: float) -> Tensor:
    """Mean of -log sigmoid(D), or of -log(1 - sigmoid(D)): Goodfellow et al. 2014, equation 1, in the non-saturating form."""
    logits = at_least_fp32(logits)
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def _hinge(logits: Tensor, target: float) -> Tensor:
    """Mean of max(0, 1 - D) for real, of max(0, 1 + D) for generated images: Lim & Ye 2017, equation 7."""
    logits = at_least_fp32(logits)
    return F.relu(1 - logits if target else 1 + logits).mean()


@dataclass(frozen=True)
class GanLoss:
    """One adversarial loss: how far a logit map is from a target, 1 real or 0 generated."""

    distance: Callable[[Tensor, float], Tensor]
    """What a discriminator minimises."""
    undecided: float
    """The logit that lies between real and generated."""
    fool: Callable[[Tensor], Tensor]
    """What a generator minimises."""


GAN_MODES = {
    "lsgan": GanLoss(_squared, 0.5, lambda logits: _squared(logits, 1.0)),
    "bce": GanLoss(_cross_entropy, 0.0, lambda logits: _cross_entropy(logits, 1.0)),
    "hinge": GanLoss(_hinge, 0.0, lambda logits: -at_least_fp32(logits).mean()),
}


def _summed(logits: Logits, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """A mean over each map, summed over the scales."""
    return torch.stack([loss(scale) for scale in logits]).sum()


def generator_loss(mode: str, fake: Logits) -> Tensor:
    """The generator wants its images called real."""
    return _summed(fake, GAN_MODES[mode].fool)


def discriminator_loss(mode: str, real: Logits, fake: Logits) -> Tensor:
    """Half the sum over real and generated images; the half slows the discriminator down (Zhu et al. 2017, appendix 7.1)."""
    distance = GAN_MODES[mode].distance
    return 0.5 * (_summed(real, lambda logits: distance(logits, 1.0)) + _summed(fake, lambda logits: distance(logits, 0.0)))
