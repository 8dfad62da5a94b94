"""A whole CycleGAN step against the paper's, written plainly: separate calls, generators first, then the discriminators."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import cast

import pytest
import torch
import torch.nn.functional as F
from dead_parameters import dead_parameters
from torch import Tensor, nn
from trainings import NaivePool, RandomImages, trainer_of

from fruitgan.data.loader import Batch
from fruitgan.networks.contracts import Discriminator, Generator
from fruitgan.networks.discriminators import patch_70, patch_70_affine
from fruitgan.networks.mobile import Mobile
from fruitgan.networks.resnet import resnet_6
from fruitgan.networks.unet import unet_128
from fruitgan.train_gan.objectives.contracts import Objective
from fruitgan.train_gan.objectives.cyclegan import cyclegan
from fruitgan.train_gan.recipe import Adam, constant, recipes

pytestmark = pytest.mark.usefixtures("repeatable")

WEIGHTS = {"adversarial": 1.0, "cycle": 10.0, "identity": 5.0}
LEARNING_RATE = 2.0**-12  # exact in float32, in which the trainer keeps it


@dataclass
class Textbook:
    """Algorithm and losses as in Zhu et al. 2017, sections 3 to 5 and 7, one network call an image kind."""

    networks: Mapping[str, Generator | Discriminator]
    gan_mode: str
    pool_size: int

    def __post_init__(self) -> None:
        self.pools = {name: NaivePool(self.pool_size) for name in ("pool_a", "pool_b")}
        self.optimisers = {
            kind: torch.optim.Adam(
                [p for name in names for p in self.networks[name].parameters()],
                LEARNING_RATE,
                (0.5, 0.999),
                1e-8,
                foreach=False,
            )
            for kind, names in (
                ("generators", ("generator_ab", "generator_ba")),
                ("discriminators", ("discriminator_a", "discriminator_b")),
            )
        }

    def distance(self, logits: tuple[Tensor, ...], target: float) -> Tensor:
        (single,) = logits
        if self.gan_mode == "lsgan":
            return F.mse_loss(single, torch.full_like(single, target))
        return -(torch.sigmoid(single) if target else 1 - torch.sigmoid(single)).log().mean()

    def shown(self, pool: str, fake: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        if not self.pool_size:
            return fake
        return self.pools[pool].query(fake.detach().clone(), draws[pool])

    def step(self, batch: Batch, *, moving: bool) -> tuple[dict[str, float], dict[str, Tensor]]:
        """All losses by term and gradients by parameter; with `moving` a player moves before the next one's loss is taken."""
        ab, ba = self.networks["generator_ab"], self.networks["generator_ba"]
        judge_a, judge_b = self.networks["discriminator_a"], self.networks["discriminator_b"]
        fake_b, fake_a = ab(batch.a), ba(batch.b)
        terms = {
            "adversarial_ab": self.distance(judge_b(fake_b), 1),
            "adversarial_ba": self.distance(judge_a(fake_a), 1),
            "cycle_a": 10 * F.l1_loss(ba(fake_b), batch.a),
            "cycle_b": 10 * F.l1_loss(ab(fake_a), batch.b),
            "identity_a": 5 * F.l1_loss(ba(batch.a), batch.a),
            "identity_b": 5 * F.l1_loss(ab(batch.b), batch.b),
        }
        gradients = self.descend("generators", terms, moving)
        judging = {}
        for domain, judge, real, fake in (("a", judge_a, batch.a, fake_a), ("b", judge_b, batch.b, fake_b)):
            judged = self.shown(f"pool_{domain}", fake, batch.draws).detach()
            judging[f"discriminator_{domain}"] = 0.5 * (self.distance(judge(real), 1) + self.distance(judge(judged), 0))
        gradients |= self.descend("discriminators", judging, moving)
        return {name: float(term.detach()) for name, term in (terms | judging).items()}, gradients

    def descend(self, player: str, terms: Mapping[str, Tensor], moving: bool) -> dict[str, Tensor]:
        self.optimisers[player].zero_grad()
        torch.autograd.backward(torch.stack(list(terms.values())).sum())
        mine = {id(p) for group in self.optimisers[player].param_groups for p in group["params"]}
        gradients = {
            f"{name}.{key}": p.grad.clone()
            for name, network in self.networks.items()
            for key, p in network.named_parameters()
            if id(p) in mine and p.grad is not None
        }
        if moving:
            self.optimisers[player].step()
        return gradients


NETWORKS: dict[str, tuple[Callable[[], Generator], Callable[[], Discriminator], int]] = {
    "resnet": (lambda: resnet_6(base_channels=2), lambda: patch_70(base_channels=2), 24),
    "unet": (lambda: unet_128(base_channels=2, dropout=0.0), lambda: patch_70_affine(base_channels=2), 128),
    "mobile": (lambda: Mobile(base_channels=4, blocks=2), lambda: patch_70(base_channels=2), 24),
}


def make(kind: str, gan_mode: str, pool_size: int) -> tuple[Objective, Textbook, int]:
    generator, discriminator, side_px = NETWORKS[kind]
    objective = cyclegan(gan_mode=gan_mode, pool_size=pool_size)(generator, discriminator)
    objective.networks.double()
    for parameter in objective.networks.parameters():
        nn.init.normal_(parameter, 0, 0.2)
    for name, weight in objective.weights.items():
        weight.fill_(WEIGHTS[name])
    networks = {name: cast(Generator | Discriminator, copy.deepcopy(network)) for name, network in objective.networks.items()}
    return objective, Textbook(networks, gan_mode, pool_size), side_px


@pytest.mark.parametrize(
    ("kind", "gan_mode", "pool_size", "n"),
    [
        ("resnet", "lsgan", 2, 1),
        ("resnet", "bce", 0, 2),
        ("unet", "lsgan", 0, 1),
        ("mobile", "lsgan", 3, 2),
    ],
)
def test_the_losses_and_gradients_of_a_step_equal_the_papers(kind: str, gan_mode: str, pool_size: int, n: int) -> None:
    objective, textbook, side_px = make(kind, gan_mode, pool_size)
    for seed in range(3 if pool_size else 1):  # at the third the pool is full
        batch = RandomImages(side_px, n=n, dtype=torch.float64).batch(seed, objective.draws)
        objective.networks.zero_grad(set_to_none=True)
        step = objective.prepare(batch, objective.variant(WEIGHTS))
        losses = {}
        for player in objective.players:
            own = [p for name in player.networks for p in objective.networks[name].parameters()]
            terms = player.loss(step)
            torch.autograd.backward(torch.stack(list(terms.values())).sum(), inputs=own)
            losses |= {name: float(term.detach()) for name, term in terms.items()}
        for pool in objective.extras.values():
            pool.settle(torch.ones(()))
        expected_losses, expected = textbook.step(batch, moving=False)
        assert losses == pytest.approx(expected_losses, rel=1e-10)
        found = {name: p.grad for name, p in objective.networks.named_parameters() if p.grad is not None}
        assert found.keys() == expected.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-10, atol=1e-10)


def test_training_with_all_gradients_at_the_same_weights_equals_the_papers_order() -> None:
    objective, textbook, side_px = make("resnet", "lsgan", 2)
    feed = RandomImages(side_px, n=1, dtype=torch.float64)
    adams = dict.fromkeys(("generators", "discriminators"), Adam(learning_rate=LEARNING_RATE))
    recipe = dataclasses.replace(recipes.get("cyclegan"), optimizers=adams, learning_rate=constant(1.0))
    trainer = trainer_of(objective, recipe, feed, 5, log_every=1)
    start = {key: value.clone() for key, value in objective.networks.state_dict().items()}
    for report in trainer.steps(until=5):
        textbook.step(feed.batch(report.step - 1, objective.draws), moving=True)
    for name, network in textbook.networks.items():
        for key, expected in network.named_parameters():
            # A dead parameter's gradient is nothing but rounding, which Adam makes large.
            if key not in dead_parameters(network):
                torch.testing.assert_close(objective.networks[name].get_parameter(key), expected, rtol=0, atol=1e-10)
    moved = [float((value - start[key]).abs().max()) for key, value in objective.networks.state_dict().items()]
    assert max(moved) > 2 * LEARNING_RATE
