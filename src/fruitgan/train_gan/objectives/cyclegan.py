"""CycleGAN: two generators, two discriminators, adversarial, cycle-consistency and identity losses (Zhu et al. 2017)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from fruitgan.data.loader import Batch
from fruitgan.device import at_least_fp32
from fruitgan.networks.contracts import Discriminator, Generator, MaskedGenerator
from fruitgan.train_gan.objectives.adversarial import Judges
from fruitgan.train_gan.objectives.contracts import Objective, ObjectiveFactory, Player, Replay

MASK_WEIGHTS = ("mask_roughness", "mask_area")


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


def mask_roughness(mask: Tensor) -> Tensor:
    """Total variation, the mean over neighbours down plus the mean over neighbours across of |difference|; [N, 1, H, W].

    Rudin et al. 1992, equation 2.2, in its anisotropic form: edges cost their length, halos and speckles more.
    """
    mask = at_least_fp32(mask)
    return mask.diff(dim=-2).abs().mean() + mask.diff(dim=-1).abs().mean()


def mask_area(mask: Tensor) -> Tensor:
    """Mean of a mask: changing pixels costs, so that the background stays the source's."""
    return at_least_fp32(mask).mean()


def translated(generator: Generator, images: Tensor, variant: frozenset[str], n: int) -> tuple[Tensor, Tensor | None]:
    """The images, and the first n masks [n, 1, H, W] where the variant has losses of theirs and the generator has masks."""
    if variant.isdisjoint(MASK_WEIGHTS) or not isinstance(generator, MaskedGenerator):
        return generator(images), None
    parts = generator.parts(images)
    return parts.image, None if parts.mask is None else parts.mask[:n]


def mask_terms(masks: Mapping[str, Tensor | None], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weighted terms of the masks by direction (`ab`), of those that are there."""
    terms = {}
    for direction, mask in masks.items():
        if mask is not None:
            terms[f"mask_roughness_{direction}"] = weights["mask_roughness"] * mask_roughness(mask)
            terms[f"mask_area_{direction}"] = weights["mask_area"] * mask_area(mask)
    return terms


@dataclass(frozen=True)
class CycleStep:
    """One step's images, each [N, 3, H, W] in [-1, 1], made once for all players; the batch for the numbers drawn."""

    batch: Batch
    fake_a: Tensor
    fake_b: Tensor
    cycled_a: Tensor
    cycled_b: Tensor
    same_a: Tensor | None
    same_b: Tensor | None
    mask_a: Tensor | None
    mask_b: Tensor | None
    """[N, 1, H, W] in [0, 1], of the fakes."""
    judged: Mapping[str, Tensor]
    """What discriminators learn from, by domain."""


class CycleGAN(Objective):
    """`generator_ab` and `generator_ba` with adversarial, cycle and identity losses; `discriminator_b` judges domain b.

    `judging` are the options of `Judges`.

    Every network treats images one by one, so calls are batched: a generator's fake and identity images, a discriminator's real
    and generated images.
    """

    def __init__(
        self,
        make_generator: Callable[[], Generator],
        make_discriminator: Callable[[], Discriminator],
        *,
        mask_losses: bool = False,
        **judging: Any,
    ) -> None:
        self.networks = nn.ModuleDict(
            {
                "generator_ab": make_generator(),
                "generator_ba": make_generator(),
                "discriminator_a": make_discriminator(),
                "discriminator_b": make_discriminator(),
            }
        )
        self.judges = Judges(self.networks, "ab", **judging)
        self.players = (
            Player("generators", ("generator_ab", "generator_ba"), self._generators_loss),
            Player("discriminators", ("discriminator_a", "discriminator_b"), self.judges.losses),
        )
        self.generators = {"a2b": "generator_ab", "b2a": "generator_ba"}
        weights = ("adversarial", "cycle", "identity") + MASK_WEIGHTS * mask_losses
        self.weights = {name: torch.ones(()) for name in weights}
        self.extras: Mapping[str, Replay] = self.judges.replay
        self.draws = self.judges.draws

    def prepare(self, batch: Batch, variant: frozenset[str]) -> CycleStep:
        n = len(batch.a)
        ab, ba = (cast(Generator, self.networks[name]) for name in ("generator_ab", "generator_ba"))
        identity = "identity" in variant
        to_b, mask_b = translated(ab, torch.cat([batch.a, batch.b]) if identity else batch.a, variant, n)
        to_a, mask_a = translated(ba, torch.cat([batch.b, batch.a]) if identity else batch.b, variant, n)
        fake_b, fake_a = to_b[:n], to_a[:n]
        return CycleStep(
            batch=batch,
            fake_a=fake_a,
            fake_b=fake_b,
            cycled_a=ba(fake_b),
            cycled_b=ab(fake_a),
            same_a=to_a[n:] if identity else None,
            same_b=to_b[n:] if identity else None,
            mask_a=mask_a,
            mask_b=mask_b,
            judged=self.judges.to_judge({"a": fake_a, "b": fake_b}, batch.draws),
        )

    def _generators_loss(self, step: CycleStep) -> dict[str, Tensor]:
        weights, real, draws = self.weights, step.batch, step.batch.draws
        terms = {}
        for direction, domain, fake in (("ab", "b", step.fake_b), ("ba", "a", step.fake_a)):
            terms[f"adversarial_{direction}"] = weights["adversarial"] * self.judges.fooled(domain, fake, draws)
        terms["cycle_a"] = cycle_loss(real.a, step.cycled_a, weights["cycle"])
        terms["cycle_b"] = cycle_loss(real.b, step.cycled_b, weights["cycle"])
        if step.same_a is not None and step.same_b is not None:
            terms["identity_a"] = identity_loss(real.a, step.same_a, weights["identity"])
            terms["identity_b"] = identity_loss(real.b, step.same_b, weights["identity"])
        return terms | mask_terms({"ab": step.mask_b, "ba": step.mask_a}, weights)


def cyclegan(
    *,
    gan_mode: str = "lsgan",
    pool_size: int = 50,
    mask_losses: bool = False,
    shift: float = 0.0,
    cutout: float = 0.0,
) -> ObjectiveFactory:
    """CycleGAN's losses: adversarial (`lsgan`, `bce`, `hinge`), cycle, identity; a replay buffer of `pool_size`.

    `mask_losses` adds the weights mask_roughness and mask_area on the masks of generators that have them; `shift` moves what
    discriminators are shown by up to this share of the side, and `cutout` greys a square of this share half the time.
    """
    return functools.partial(
        CycleGAN, gan_mode=gan_mode, pool_size=pool_size, mask_losses=mask_losses, shift=shift, cutout=cutout
    )
