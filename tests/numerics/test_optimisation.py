"""Adam and the averaged weights, as the trainer runs them, against naive loops in float64; schedules against formulas."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trainings import trainer_of

from fruitgan.data.loader import Batch, Loader
from fruitgan.errors import UsageError
from fruitgan.train_gan import ema
from fruitgan.train_gan.ema import EMA, PlayerAdam
from fruitgan.train_gan.objectives.contracts import Objective, Player
from fruitgan.train_gan.recipe import Adam, Clock, Schedule, constant, recipes, until

START = [0.5, -2.0, 3.0]


class Points(nn.Module):
    """A few numbers to be moved."""

    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(START, dtype=torch.float64))


class Springs(Objective):
    """One player that pulls each number towards the batch's: the sum of (p - a)^2 b."""

    def __init__(self) -> None:
        self.networks = nn.ModuleDict({"generator_ab": Points()})
        self.players = (Player("points", ("generator_ab",), self.loss),)
        self.generators = {"a2b": "generator_ab"}
        self.weights = {"pull": torch.ones(())}
        self.extras = {}
        self.draws = {}

    def prepare(self, batch: Batch, variant: frozenset[str]) -> Batch:
        return batch

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        points = self.networks["generator_ab"].get_parameter("p")
        return {"pull": self.weights["pull"] * ((points - batch.a) ** 2 * batch.b).sum()}


class Numbers(Loader):
    """A feed of three targets and three strengths a step."""

    def batch(self, step: int, draws: Mapping[str, int]) -> Batch:
        random = np.random.default_rng(step)
        return Batch(torch.from_numpy(random.normal(size=3)), torch.from_numpy(random.random(3)))


ADAM = Adam(learning_rate=0.03, beta_1=0.5, beta_2=0.99, epsilon=1e-2)  # an epsilon large enough to show where it stands


def naive_adam(steps: int) -> list[list[float]]:
    """Kingma & Ba 2015, algorithm 1, number by number; the weights after each step."""
    p, m, v = list(START), [0.0] * 3, [0.0] * 3
    course = []
    for step in range(steps):
        batch = Numbers().batch(step, {})
        # The trainer keeps rates and loss weights in float32.
        rate = float(np.float32(ADAM.learning_rate * (1 - step / steps)))
        pull = float(np.float32(2 + step / steps))
        for i in range(3):
            gradient = 2 * pull * float(batch.b[i]) * (p[i] - float(batch.a[i]))
            m[i] = ADAM.beta_1 * m[i] + (1 - ADAM.beta_1) * gradient
            v[i] = ADAM.beta_2 * v[i] + (1 - ADAM.beta_2) * gradient**2
            m_hat = m[i] / (1 - ADAM.beta_1 ** (step + 1))
            v_hat = v[i] / (1 - ADAM.beta_2 ** (step + 1))
            p[i] -= rate * m_hat / (math.sqrt(v_hat) + ADAM.epsilon)
        course.append(list(p))
    return course


def test_a_step_of_the_trainer_is_a_step_of_adam_and_its_averaged_weights_follow() -> None:
    recipe = dataclasses.replace(
        recipes.get("fast"),
        weights={"pull": Schedule(start=2.0, end=3.0)},
        optimizers={"points": ADAM},
        learning_rate=Schedule(start=1.0, end=0.0),
        ema_decay=0.6,
    )
    trainer = trainer_of(Springs(), recipe, Numbers(), 20, log_every=10)
    points, average = trainer.objective.networks["generator_ab"].get_parameter("p"), list(START)
    for n, (report, weights) in enumerate(zip(trainer.steps(20), naive_adam(20), strict=True)):
        assert points.tolist() == pytest.approx(weights, rel=1e-7, abs=1e-7)
        assert report.learning_rate == pytest.approx(ADAM.learning_rate * (20 - n) / 20)
        factor = min(0.6, (1 + n) / (10 + n))
        average = [factor * old + (1 - factor) * new for old, new in zip(average, weights, strict=True)]
        assert trainer.generator("a2b").get_parameter("p").tolist() == pytest.approx(average, rel=1e-7, abs=1e-7)
        assert not trainer.generator("a2b").training


def test_an_average_equals_a_naive_loop_and_takes_buffers_over() -> None:
    torch.manual_seed(0)
    networks = {"one": nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2)).double(), "other": nn.Linear(2, 1).double()}
    average = EMA(networks, 0.999)
    expected = {f"{n}.{key}": p.detach().clone() for n, net in networks.items() for key, p in net.named_parameters()}
    for n in range(12):
        counts = n % 4 != 2
        for network in networks.values():
            for parameter in network.parameters():
                nn.init.normal_(parameter)
        networks["one"](torch.randn(4, 1, 3, 3, dtype=torch.float64))
        average.begin_step()
        average.update(torch.tensor(float(counts)))
        if counts:
            factor = min(0.999, (1 + n) / (10 + n))
            for name, network in networks.items():
                for key, parameter in network.named_parameters():
                    old = expected[f"{name}.{key}"]
                    expected[f"{name}.{key}"] = factor * old + (1 - factor) * parameter.detach()
        for name, network in average.networks.items():
            for key, parameter in network.named_parameters():
                torch.testing.assert_close(parameter, expected[f"{name}.{key}"], rtol=1e-6, atol=1e-7)
                assert not parameter.requires_grad
        assert torch.equal(average.networks["one"].get_buffer("1.running_mean"), networks["one"].get_buffer("1.running_mean"))


@pytest.mark.parametrize("is_finite", [True, False])
def test_a_step_that_is_not_finite_changes_nothing_where_adam_moves_anyway(
    is_finite: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    fused: Callable[..., None] = torch._fused_adam_

    def deaf(*lists: Any, found_inf: Tensor, **options: Any) -> None:
        fused(*lists, found_inf=None, **options)

    def moved(gradient: float, ok: float) -> list[Tensor]:
        parameter = torch.nn.Parameter(torch.ones(3))
        optimizer = PlayerAdam([parameter], Adam())
        optimizer.learning_rate.fill_(0.1)
        for value, counts in ((0.5, 1.0), (gradient, ok)):
            parameter.grad = torch.full((3,), value)
            optimizer.step(torch.tensor(counts))
        return [parameter.detach(), *optimizer.means, *optimizer.squares, *optimizer.counts]

    expected = moved(2.0 if is_finite else float("nan"), float(is_finite))
    monkeypatch.setattr(torch, "_fused_adam_", deaf)
    monkeypatch.setattr(ema, "MOVES_ANYWAY", ("cpu",))
    for found, right in zip(moved(2.0 if is_finite else float("nan"), float(is_finite)), expected, strict=True):
        assert torch.equal(found, right)
        assert torch.isfinite(found).all()


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
    assert [values[10 * epoch] for epoch in range(5)] == pytest.approx([1, 1, 1, 2 / 3, 1 / 3])
    assert schedule.at(Clock(3, 5, 1000)) == 1


@pytest.mark.parametrize("total", [1, 9, 10, 11, 14, 15, 24, 26, 99, 101])
def test_no_step_of_a_schedule_in_epochs_is_at_its_end_and_the_first_are_at_its_start(total: int) -> None:
    schedule = recipes.get("cyclegan").learning_rate
    values = [schedule.at(Clock(step, total, 10)) for step in range(total)]
    assert values[: max(1, total // 2)] == [1.0] * max(1, total // 2)
    assert min(values) > 0
    assert values == sorted(values, reverse=True)


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


def test_an_average_without_its_weight_is_refused() -> None:
    with pytest.raises(RuntimeError, match="begin_step"):
        EMA({"net": nn.Linear(1, 1)}, 0.9).update(torch.ones(()))
