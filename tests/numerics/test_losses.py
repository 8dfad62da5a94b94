"""Losses against naive loops over Python's own floats."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from fruitgan.errors import UsageError
from fruitgan.networks.discriminators import patch_70
from fruitgan.networks.mobile import Mobile
from fruitgan.train_gan.objectives.adversarial import discriminator_loss, generator_loss
from fruitgan.train_gan.objectives.cyclegan import cycle_loss, cyclegan, identity_loss


def numbers(x: Tensor) -> list[float]:
    return [float(value) for value in x.flatten()]


def squared(logit: float, target: float) -> float:
    return (logit - target) ** 2


def cross_entropy(logit: float, target: float) -> float:
    probability = 1 / (1 + math.exp(-logit))
    return -(target * math.log(probability) + (1 - target) * math.log(1 - probability))


def naive(distance: Callable[[float, float], float], maps: list[Tensor], target: float) -> float:
    """The mean over each map, summed over the scales."""
    return sum(sum(distance(logit, target) for logit in numbers(scale)) / scale.numel() for scale in maps)


MODES = [("lsgan", squared), ("bce", cross_entropy)]


def logit_maps(seed: int) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn((2, 1, side, side + 1), generator=random, dtype=torch.float64) * 3 for side in (5, 2)]


@pytest.mark.parametrize(("mode", "distance"), MODES)
def test_adversarial_losses_equal_naive_loops(mode: str, distance: Callable[[float, float], float]) -> None:
    real, fake = logit_maps(1), logit_maps(2)
    assert float(generator_loss(mode, fake)) == pytest.approx(naive(distance, fake, 1), rel=1e-12)
    expected = (naive(distance, real, 1) + naive(distance, fake, 0)) / 2
    assert float(discriminator_loss(mode, real, fake)) == pytest.approx(expected, rel=1e-12)


def test_hinge_losses_equal_naive_loops() -> None:
    real, fake = logit_maps(1), logit_maps(2)
    assert float(generator_loss("hinge", fake)) == pytest.approx(naive(lambda d, _: -d, fake, 1), rel=1e-12)
    expected = naive(lambda d, _: max(0.0, 1 - d), real, 1) + naive(lambda d, _: max(0.0, 1 + d), fake, 0)
    assert float(discriminator_loss("hinge", real, fake)) == pytest.approx(expected / 2, rel=1e-12)


def test_cross_entropy_stays_finite_where_the_naive_formula_does_not() -> None:
    far = [torch.tensor([[[[-800.0, 800.0]]]])]
    assert float(generator_loss("bce", far)) == 400
    assert float(discriminator_loss("bce", far, far)) == 400


@pytest.mark.parametrize(("mode", "distance"), MODES)
def test_bf16_logits_are_averaged_in_full_precision(mode: str, distance: Callable[[float, float], float]) -> None:
    fake = [scale.bfloat16() for scale in logit_maps(2)]
    loss = generator_loss(mode, fake)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(naive(distance, fake, 1), rel=1e-5)
    assert generator_loss("hinge", fake).dtype == discriminator_loss("hinge", fake, fake).dtype == torch.float32


@pytest.mark.parametrize("loss", [cycle_loss, identity_loss])
def test_reconstruction_losses_equal_naive_loops(loss: Callable[[Tensor, Tensor, float], Tensor]) -> None:
    random = torch.Generator().manual_seed(3)
    real, made = (torch.rand((2, 3, 5, 4), generator=random, dtype=torch.float64) * 2 - 1 for _ in range(2))
    differences = [abs(a - b) for a, b in zip(numbers(real), numbers(made), strict=True)]
    assert float(loss(real, made, 10.0)) == pytest.approx(10 * sum(differences) / len(differences), rel=1e-12)
    assert float(loss(real, real, 10.0)) == 0


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ({"gan_mode": "wgan"}, "gan_mode: 'wgan' is not one of"),
        ({"pool_size": -1}, "pool_size: -1"),
        ({"shift": 0.5}, "shift: 0.5"),
    ],
)
def test_an_unknown_loss_or_an_option_out_of_its_range_is_refused(option: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        cyclegan(**option)(lambda: Mobile(base_channels=4), lambda: patch_70(base_channels=4))
