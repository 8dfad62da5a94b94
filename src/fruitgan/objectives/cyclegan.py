"""CycleGAN: two generators, two discriminators, and the wish to come back (Zhu et al. 2017)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fruitgan.errors import UsageError
from fruitgan.models.contracts import Discriminator, Generator
from fruitgan.objectives.adversarial import DISTANCES, discriminator_loss, generator_loss
from fruitgan.objectives.contracts import Batch, Objective, ObjectiveFactory, Player
from fruitgan.objectives.replay import ReplayPool


def cycle_loss(real: Tensor, cycled: Tensor, weight: Tensor | float) -> Tensor:
    """How far a there-and-back translation lands from its start, as weighted mean absolute error.

    Zhu et al. 2017, equation 2. Both images are [N, 3, H, W] in [-1, 1].
    """
    return weight * (cycled - real).abs().mean()


def identity_loss(real: Tensor, same: Tensor, weight: Tensor | float) -> Tensor:
    """How much a generator changes an image that is already of its target domain, as weighted mean absolute error.

    Zhu et al. 2017, section 5.2. Both images are [N, 3, H, W] in [-1, 1].
    """
    return weight * (same - real).abs().mean()


@dataclass(frozen=True)
class CycleStep:
    """One step's images, each [N, 3, H, W] in [-1, 1], made once for all players."""

    real_a: Tensor
    real_b: Tensor
    fake_a: Tensor
    fake_b: Tensor
    cycled_a: Tensor
    cycled_b: Tensor
    same_a: Tensor | None
    same_b: Tensor | None
    judged_a: Tensor
    judged_b: Tensor


class CycleGAN(Objective):
    """`generator_ab` and `generator_ba` with adversarial, cycle and identity losses; `discriminator_b` judges domain b.

    The calls are batched where the mathematics allow it (every network treats images one by one): a generator's fake and
    identity images in one call, a discriminator's real and generated images in one call.
    """

    def __init__(
        self,
        make_generator: Callable[[], Generator],
        make_discriminator: Callable[[], Discriminator],
        *,
        gan_mode: str,
        pool_size: int,
    ) -> None:
        self.networks = nn.ModuleDict(
            {
                "generator_ab": make_generator(),
                "generator_ba": make_generator(),
                "discriminator_a": make_discriminator(),
                "discriminator_b": make_discriminator(),
            }
        )
        self.players = (
            Player("generators", ("generator_ab", "generator_ba"), self._generators_loss),
            Player("discriminators", ("discriminator_a", "discriminator_b"), self._discriminators_loss),
        )
        self.generators = {"a2b": "generator_ab", "b2a": "generator_ba"}
        self.weights = {name: torch.ones(()) for name in ("adversarial", "cycle", "identity")}
        self.pools = {name: ReplayPool(pool_size) for name in ("pool_a", "pool_b")} if pool_size else {}
        self.extras = self.pools
        self.draws = dict.fromkeys(self.pools, 2)
        self.gan_mode = gan_mode

    def prepare(self, batch: Batch, variant: frozenset[str]) -> CycleStep:
        ab, ba = self.networks["generator_ab"], self.networks["generator_ba"]
        if "identity" in variant:
            fake_b, same_b = ab(torch.cat([batch.a, batch.b])).chunk(2)
            fake_a, same_a = ba(torch.cat([batch.b, batch.a])).chunk(2)
        else:
            fake_b, fake_a, same_a, same_b = ab(batch.a), ba(batch.b), None, None
        return CycleStep(
            real_a=batch.a,
            real_b=batch.b,
            fake_a=fake_a,
            fake_b=fake_b,
            cycled_a=ba(fake_b),
            cycled_b=ab(fake_a),
            same_a=same_a,
            same_b=same_b,
            judged_a=self._judged("pool_a", fake_a, batch.draws),
            judged_b=self._judged("pool_b", fake_b, batch.draws),
        )

    def _judged(self, pool: str, fake: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        return self.pools[pool].query(fake, draws[pool]) if pool in self.pools else fake.detach()

    def _generators_loss(self, step: CycleStep) -> dict[str, Tensor]:
        weights = self.weights
        terms = {
            "adversarial_ab": weights["adversarial"]
            * generator_loss(self.gan_mode, self.networks["discriminator_b"](step.fake_b)),
            "adversarial_ba": weights["adversarial"]
            * generator_loss(self.gan_mode, self.networks["discriminator_a"](step.fake_a)),
            "cycle_a": cycle_loss(step.real_a, step.cycled_a, weights["cycle"]),
            "cycle_b": cycle_loss(step.real_b, step.cycled_b, weights["cycle"]),
        }
        if step.same_a is not None and step.same_b is not None:
            terms["identity_a"] = identity_loss(step.real_a, step.same_a, weights["identity"])
            terms["identity_b"] = identity_loss(step.real_b, step.same_b, weights["identity"])
        return terms

    def _discriminators_loss(self, step: CycleStep) -> dict[str, Tensor]:
        terms = {}
        for domain, real, judged in (("a", step.real_a, step.judged_a), ("b", step.real_b, step.judged_b)):
            maps = self.networks[f"discriminator_{domain}"](torch.cat([real, judged.to(real.dtype)]))
            halves = [scale.chunk(2) for scale in maps]
            terms[f"discriminator_{domain}"] = discriminator_loss(
                self.gan_mode, [half[0] for half in halves], [half[1] for half in halves]
            )
        return terms


def cyclegan(*, gan_mode: str = "lsgan", pool_size: int = 50) -> ObjectiveFactory:
    """CycleGAN's losses: adversarial (`lsgan` or `bce`), cycle, identity; a pool of past fakes to judge (0: none)."""
    if gan_mode not in DISTANCES:
        raise UsageError(f"objective cyclegan, option gan_mode: {gan_mode!r} is not one of {', '.join(DISTANCES)}")
    if pool_size < 0:
        raise UsageError(f"objective cyclegan, option pool_size: {pool_size} is less than 0")
    return functools.partial(CycleGAN, gan_mode=gan_mode, pool_size=pool_size)
