"""The trainer: what a step changes, what it tells, and what cannot make a difference."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from trainings import RandomImages, differences, everything, trainer_of

from fruitgan.networks.contracts import discriminators, generators
from fruitgan.train_gan.objectives.contracts import Player
from fruitgan.train_gan.objectives.cyclegan import cyclegan
from fruitgan.train_gan.recipe import Adam, Schedule, constant, recipes, until
from fruitgan.train_gan.trainer import LossNotFinite, Trainer

CPU = torch.device("cpu")
COUNTERS = {"trainer/step", "trainer/since_log", "trainer/counts", "ema/updates"}


PLAIN: dict[str, Any] = {
    "weights": {"adversarial": constant(1.0), "cycle": Schedule(start=8.0, end=2.0), "identity": until(0.35, 5.0)},
    "optimizers": {"generators": Adam(beta_2=0.99), "discriminators": Adam(beta_2=0.99)},
}
"""Not what a recipe says at the moment: one weight that ends, and one rate for all."""


def make_trainer(
    *,
    generator: str = "mobile",
    discriminator: str = "patch-70",
    side_px: int = 24,
    total_steps: int = 100,
    log_every: int = 100,
    bad: set[int] | None = None,
    **recipe: Any,
) -> Trainer:
    light = {"base_channels": 4} | ({"blocks": 1} if generator == "mobile" else {})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        objective = cyclegan(pool_size=3)(
            lambda: generators.get(generator)(**light), lambda: discriminators.get(discriminator)(base_channels=4)
        )
    changed = dataclasses.replace(recipes.get("fast"), **{**PLAIN, **recipe})
    return trainer_of(objective, changed, RandomImages(side_px, bad), total_steps, log_every=log_every)


def train(trainer: Trainer, until_step: int) -> list[Any]:
    return list(trainer.steps(until_step))


# What a step changes


def test_a_step_changes_every_part() -> None:
    trainer = make_trainer()
    train(trainer, 1)
    before = everything(trainer)
    train(trainer, 2)
    changed = {key.split("/")[0] for key in differences(before, everything(trainer))}
    assert changed == set(trainer.stateful())
    assert {part.split(".")[0] for part in changed} == {"trainer", "network", "optimizer", "extra", "ema"}


Poison = Callable[[dict[str, Tensor], Tensor], dict[str, Tensor]]


def not_a_number(terms: dict[str, Tensor], _: Tensor) -> dict[str, Tensor]:
    name = next(iter(terms))
    return {**terms, name: terms[name] * torch.nan}


def infinite(terms: dict[str, Tensor], _: Tensor) -> dict[str, Tensor]:
    name = next(iter(terms))
    return {**terms, name: terms[name] + torch.inf}


def with_a_gradient_that_is_none(terms: dict[str, Tensor], parameter: Tensor) -> dict[str, Tensor]:
    """The root of 0 is 0, and infinitely steep there."""
    name = next(iter(terms))
    return {**terms, name: terms[name] + (parameter.sum() * 0).abs().sqrt()}


def poisoned(trainer: Trainer, player_name: str, poison: Poison, bad_steps: set[int]) -> None:
    """Let a player's loss be poisoned in the steps that follow so many done ones."""

    def spoil(player: Player) -> Player:
        parameter = next(trainer.objective.networks[player.networks[0]].parameters())

        def loss(prepared: Any) -> Mapping[str, Tensor]:
            terms = dict(player.loss(prepared))
            return poison(terms, parameter) if trainer.step in bad_steps else terms

        return dataclasses.replace(player, loss=loss)

    trainer.objective.players = tuple(
        spoil(player) if player.name == player_name else player for player in trainer.objective.players
    )


@pytest.mark.parametrize(
    ("player", "poison", "bad_step", "named"),
    [
        ("generators", not_a_number, 0, "adversarial_ab"),
        ("discriminators", infinite, 2, "discriminator_a"),
        ("generators", with_a_gradient_that_is_none, 2, "a gradient"),
        ("discriminators", with_a_gradient_that_is_none, 0, "a gradient"),
    ],
)
def test_a_step_that_is_not_finite_changes_nothing_at_all_and_is_named_at_the_next_log_line(
    player: str, poison: Poison, bad_step: int, named: str
) -> None:
    trainer = make_trainer(discriminator="patch-multiscale", side_px=48, log_every=4)
    poisoned(trainer, player, poison, {bad_step})
    train(trainer, bad_step)
    before = everything(trainer)
    train(trainer, bad_step + 1)
    changed = {key for key in differences_of_known(before, everything(trainer)) if not key.startswith("trainer/sum.")}
    assert changed <= COUNTERS
    train(trainer, 3)
    with pytest.raises(LossNotFinite, match=f"the last 4 steps before step 4: {named}; "):
        train(trainer, 4)


def differences_of_known(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """As `differences`, where the pools may have been given their room in between."""
    known = one.keys() & other.keys()
    assert all(not other[key].any() for key in other.keys() - known if key.startswith("extra."))
    return differences({key: one[key] for key in known}, {key: other[key] for key in known})


# What it tells


def test_logged_losses_are_means_since_the_last_log_line() -> None:
    every = [report.losses for report in train(make_trainer(log_every=1, total_steps=8), 8)]
    rarely = [report.losses for report in train(make_trainer(log_every=3, total_steps=8), 8)]
    assert ["identity_a" in losses for losses in every] == [True] * 3 + [False] * 5  # by its schedule
    assert [losses is not None for losses in rarely] == [False, False, True, False, False, True, False, True]
    for group, mean in (((0, 1, 2), rarely[2]), ((3, 4, 5), rarely[5]), ((6, 7), rarely[7])):
        assert mean is not None
        for name in mean:
            assert mean[name] == pytest.approx(sum(every[i][name] for i in group) / len(group), rel=1e-5)


def test_the_result_is_the_averaged_generator_where_there_is_an_average() -> None:
    averaged, last = make_trainer(), make_trainer(ema_decay=None)
    for trainer in (averaged, last):
        train(trainer, 3)
    assert averaged.ema is not None
    assert averaged.generator("b2a") is averaged.ema.networks["generator_ba"]
    assert last.ema is None
    assert last.generator("b2a") is last.objective.networks["generator_ba"]
    assert "ema" in averaged.stateful()
    assert "ema" not in last.stateful()


# What cannot make a difference


def test_no_random_state_of_the_caller_matters() -> None:
    states = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        random.seed(seed)
        trainer = make_trainer(generator="unet-128", side_px=128)  # with dropout
        reports = iter(trainer.steps(2))
        next(reports)
        torch.manual_seed(seed + 10)
        next(reports)
        states.append(everything(trainer))
    assert differences(*states) == []


def test_bf16_trains_with_finite_losses_and_weights_in_full_precision() -> None:
    trainer = make_trainer(log_every=1)
    trainer.precision = "bf16"
    assert all(np.isfinite(list(report.losses.values())).all() for report in train(trainer, 2))
    assert all(p.dtype == torch.float32 for p in trainer.objective.networks.parameters())
