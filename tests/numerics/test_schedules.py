"""Schedules against the formulas of the papers and of the recipes."""

from __future__ import annotations

import math

import pytest

from fruitgan.errors import UsageError
from fruitgan.train_gan.ema import decay_after
from fruitgan.train_gan.recipe import Clock, Schedule, constant, recipes, until

STEPS_PER_EPOCH = 1019  # the oranges of apple2orange, a step each


def reference_factor(epoch: int, constant_epochs: int = 100, falling_epochs: int = 100) -> float:
    """The authors' code, with epochs counted from 0."""
    return 1.0 - max(0, epoch + 1 - constant_epochs) / float(falling_epochs + 1)


@pytest.mark.parametrize("epochs", [2, 10, 60, 200])
def test_every_epoch_has_the_factor_of_the_authors_code(epochs: int) -> None:
    schedule = recipes.get("cyclegan").learning_rate
    for epoch in range(epochs):
        found = schedule.at(Clock(epoch * 7 + 3, epochs * 7, 7))
        assert found == pytest.approx(reference_factor(epoch, epochs // 2, epochs // 2), rel=1e-12)


def test_a_training_that_ends_within_an_epoch_still_falls_at_its_epochs() -> None:
    schedule = recipes.get("cyclegan").learning_rate
    values = [schedule.at(Clock(step, 50, 10)) for step in range(50)]
    assert [values[10 * epoch] for epoch in range(5)] == pytest.approx([1, 1, 3 / 4, 2 / 4, 1 / 4])
    assert schedule.at(Clock(3, 5, 1000)) > 0


@pytest.mark.parametrize("total", [4000, 1000, 20_000])
def test_schedules_move_with_the_share_of_the_training(total: int) -> None:
    cycle, rate = Schedule(start=8.0, end=2.0), Schedule(start=1.0, end=0.02, begin=0.6)
    for step in range(0, total, total // 100):
        share, clock = step / total, Clock(step, total, 255)
        assert cycle.at(clock) == pytest.approx(8 - 6 * share)
        assert rate.at(clock) == pytest.approx(1 - 0.98 * max(0.0, share - 0.6) / 0.4)
    last = rate.at(Clock(total - 1, total, 255))
    assert last == pytest.approx(0.02, abs=0.98 / 0.4 / total * 1.01)


def test_a_cosine_begins_and_ends_flat() -> None:
    schedule = Schedule(start=10.0, end=2.0, begin=0.2, finish=0.7, shape="cosine")
    for step in range(101):
        share = min(1, max(0, (step / 100 - 0.2) / 0.5))
        assert schedule.at(Clock(step, 100, 10)) == pytest.approx(10 - 8 * (1 - math.cos(math.pi * share)) / 2)


def test_constant_and_until_are_what_they_say() -> None:
    assert {constant(3.0).at(Clock(step, 10, 2)) for step in range(11)} == {3.0}
    assert [until(0.5, 3.0).at(Clock(step, 10, 2)) for step in range(10)] == [3.0] * 5 + [0.0] * 5


@pytest.mark.parametrize(("begin", "finish"), [(-0.1, 1), (0.5, 0.4), (0, 1.1)])
def test_a_schedule_that_does_not_rise_within_0_to_1_is_refused(begin: float, finish: float) -> None:
    with pytest.raises(UsageError, match="must rise within 0 to 1"):
        Schedule(start=1.0, end=0.0, begin=begin, finish=finish)


def test_the_ema_decay_ramps_up_to_its_limit() -> None:
    assert decay_after(0, 0.999) == 1 / 10
    assert decay_after(90, 0.999) == 91 / 100
    assert decay_after(8990, 0.999) == pytest.approx(0.999)
    assert decay_after(8992, 0.999) == decay_after(10**6, 0.999) == 0.999
