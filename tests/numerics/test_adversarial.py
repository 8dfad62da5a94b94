"""Adversarial losses against naive loops over Python's own floats, the replay buffer against one over a list."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor
from trainings import NaivePool

from fruitgan.errors import UsageError
from fruitgan.networks.discriminators import patch_70
from fruitgan.networks.mobile import Mobile
from fruitgan.train_gan.objectives.adversarial import ReplayBuffer, discriminator_loss, generator_loss
from fruitgan.train_gan.objectives.cyclegan import cyclegan


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


KEEP, UNDO = torch.ones(()), torch.zeros(())


def fakes(step: int, n: int) -> Tensor:
    """Images that are all different, and say which they are."""
    return (step * 100 + torch.arange(n, dtype=torch.float32)).view(n, 1, 1, 1).expand(n, 3, 2, 2).clone()


def kept(pool: ReplayBuffer) -> list[float]:
    assert pool.images is not None
    return [float(image.mean()) for image in pool.images[: int(pool.count)]]


@pytest.mark.parametrize("n", [1, 3, 4])
@pytest.mark.parametrize("size", [1, 4, 50])
def test_the_pool_shows_and_keeps_what_the_plain_loop_does(size: int, n: int) -> None:
    random = torch.Generator().manual_seed(size * 10 + n)
    pool, naive = ReplayBuffer(size), NaivePool(size)
    older = 0
    for step in range(80):
        draws = torch.rand((n, 2), generator=random, dtype=torch.float64)
        current = fakes(step, n)
        shown = pool.query(current, draws)
        pool.settle(KEEP)
        assert torch.equal(shown, naive.query(current, draws))
        assert kept(pool) == [float(image.mean()) for image in naive.images]
        older += int((shown != current).flatten(1).any(1).sum())
    if size > n:
        assert older > 0.3 * (80 * n - size)


@pytest.mark.parametrize("n", [1, 3])
@pytest.mark.parametrize("bad_steps", [{0}, {1, 2, 5}, set(range(10, 20))])
def test_a_step_that_does_not_count_leaves_no_trace(n: int, bad_steps: set[int]) -> None:
    random = torch.Generator().manual_seed(1)
    pool, naive = ReplayBuffer(4), NaivePool(4)
    for step in range(30):
        draws = torch.rand((n, 2), generator=random)
        draws[:, 1] /= 3  # few places, so that images of one batch meet each other
        before = [image.clone() for image in naive.images]
        shown = pool.query(fakes(step, n), draws)
        assert torch.equal(shown, naive.query(fakes(step, n), draws))
        pool.settle(UNDO if step in bad_steps else KEEP)
        if step in bad_steps:
            naive.images = before
        assert kept(pool) == [float(image.mean()) for image in naive.images]


def test_two_queries_before_the_verdict_are_taken_back_together() -> None:
    pool = ReplayBuffer(3)
    pool.query(fakes(0, 1), torch.zeros(1, 2))
    pool.settle(KEEP)
    for step in (1, 2):
        pool.query(fakes(step, 2), torch.full((2, 2), 0.9))
    pool.settle(UNDO)
    assert kept(pool) == [0.0]


def test_a_new_image_replaces_a_kept_one_for_the_highest_draw_too() -> None:
    pool = ReplayBuffer(2)
    pool.query(fakes(0, 2), torch.zeros(2, 2))
    pool.settle(KEEP)
    assert float(pool.query(fakes(1, 1), torch.ones(1, 2)).mean()) == 1.0
    assert kept(pool) == [0.0, 100.0]


def test_the_pool_is_detached_and_keeps_full_precision() -> None:
    pool = ReplayBuffer(2)
    shown = pool.query(fakes(0, 1).bfloat16().requires_grad_(), torch.zeros(1, 2))
    assert not shown.requires_grad
    assert shown.dtype == torch.float32


def test_an_untouched_pool_has_a_state_of_its_own() -> None:
    pool = ReplayBuffer(3)
    assert pool.state() == {"count": 0}
    pool.settle(UNDO)
    pool.restore({"count": 0})
    assert torch.equal(pool.query(fakes(0, 1), torch.zeros(1, 2)), fakes(0, 1))


def test_a_map_alone_is_one_scale() -> None:
    logits = torch.randn(4, 1, 5, 5)
    assert generator_loss("lsgan", logits) == generator_loss("lsgan", [logits])
    assert discriminator_loss("hinge", logits, logits) == discriminator_loss("hinge", [logits], [logits])


def test_a_pool_of_none_shows_what_it_is_given() -> None:
    fakes = torch.randn(2, 3, 4, 4)
    assert torch.equal(ReplayBuffer(0).query(fakes, torch.rand(2, 2)), fakes)
