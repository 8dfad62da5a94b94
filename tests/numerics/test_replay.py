"""The replay pool against the reference's own rule, written as a plain loop over a list."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from trainings import NaivePool

from fruitgan.train_gan.objectives.adversarial import ReplayBuffer

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
