"""Adam and the averaged weights, as the trainer runs them, against naive loops in float64."""

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
from fruitgan.train_gan import ema
from fruitgan.train_gan.ema import EMA, PlayerAdam
from fruitgan.train_gan.objectives.contracts import Objective, Player
from fruitgan.train_gan.recipe import Adam, Schedule, recipes
from fruitgan.train_gan.trainer import Trainer

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


def springs_trainer(steps: int, averaging: float | None) -> Trainer:
    recipe = dataclasses.replace(
        recipes.get("fast"),
        weights={"pull": Schedule(start=2.0, end=3.0)},
        optimizers={"points": ADAM},
        learning_rate=Schedule(start=1.0, end=0.0),
        ema_decay=averaging,
    )
    return trainer_of(Springs(), recipe, Numbers(), steps, log_every=10)


def test_a_step_of_the_trainer_is_a_step_of_adam() -> None:
    trainer = springs_trainer(20, None)
    points = trainer.objective.networks["generator_ab"].get_parameter("p")
    for report, expected in zip(trainer.steps(20), naive_adam(20), strict=True):
        assert points.tolist() == pytest.approx(expected, rel=1e-7, abs=1e-7)
        assert report.learning_rate == pytest.approx(ADAM.learning_rate * (21 - report.step) / 20)


def test_averaged_weights_follow_those_of_the_trainer() -> None:
    trainer = springs_trainer(20, 0.6)
    average = list(START)
    for n, (_, weights) in enumerate(zip(trainer.steps(20), naive_adam(20), strict=True)):
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
