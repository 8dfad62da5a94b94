"""Adversarial losses on the logit maps of a discriminator."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from fruitgan.device import at_least_fp32, without_autocast

GanMode = Literal["lsgan", "bce"]
Logits = Sequence[Tensor]


def _squared(logits: Tensor, target: float) -> Tensor:
    """Mean of (D - target)^2: Mao et al. 2017, equation 2, with targets 1 and 0; Zhu et al. 2017, section 4."""
    return (at_least_fp32(logits) - target).square().mean()


def _cross_entropy(logits: Tensor, target: float) -> Tensor:
    """Mean of -log sigmoid(D), or of -log(1 - sigmoid(D)): Goodfellow et al. 2014, equation 1, in the non-saturating form."""
    logits = at_least_fp32(logits)
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


UNDECIDED = {"lsgan": 0.5, "bce": 0.0}
"""The logit that lies between real and generated."""

DISTANCES: dict[str, Callable[[Tensor, float], Tensor]] = {"lsgan": _squared, "bce": _cross_entropy}


def distance_to(mode: str, logits: Logits, target: float) -> Tensor:
    """How far the logits are from `target` (1 real, 0 generated): a mean over each map, summed over the scales."""
    return torch.stack([DISTANCES[mode](scale, target) for scale in logits]).sum()


def generator_loss(mode: str, fake: Logits) -> Tensor:
    """The generator wants its images called real."""
    return distance_to(mode, fake, 1.0)


def discriminator_loss(mode: str, real: Logits, fake: Logits) -> Tensor:
    """Half the sum over real and generated images; the half slows the discriminator down (Zhu et al. 2017, appendix 7.1)."""
    return 0.5 * (distance_to(mode, real, 1.0) + distance_to(mode, fake, 0.0))


def gradient_penalty(discriminator: Callable[[Tensor], Logits], real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """How steep the discriminator is between real and generated images: the mean over images of |grad s(x)|^2.

    At x = mix real + (1 - mix) fake, [N, 3, H, W], with a mix for each image, [N, 1] in [0, 1]; s is the mean of an image's
    logits, summed over the scales. Gulrajani et al. 2017 (equation 3) for the points, Mescheder et al. 2018 (equation 9) for
    the centre 0, Torbunov et al. 2023 (UVCGAN v2) for both with this loss; a weight of 1 on images in [0, 1] is 4 on [-1, 1].
    In float32 at least, whatever the autocast around it.
    """
    with without_autocast(real.device):
        real, fake = at_least_fp32(real.detach()), at_least_fp32(fake.detach())
        x = torch.lerp(fake, real, mix.to(real).view(-1, 1, 1, 1)).requires_grad_()
        total = torch.stack([scale.mean((1, 2, 3)).sum() for scale in discriminator(x)]).sum()
        (gradient,) = torch.autograd.grad(total, x, create_graph=True)
        return gradient.square().sum((1, 2, 3)).mean()
