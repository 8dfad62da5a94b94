"""CycleGAN: two generators, two discriminators, adversarial, cycle-consistency and identity losses (Zhu et al. 2017)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from fruitgan.data.augment.training import DRAWS, MOVING_DRAWS, mildly_changed, shifted_and_cut
from fruitgan.data.loader import Batch
from fruitgan.device import at_least_fp32
from fruitgan.errors import UsageError
from fruitgan.networks.contracts import Discriminator, Generator, MaskedGenerator
from fruitgan.runs.checkpoint import State
from fruitgan.train_gan.objectives.adversarial import GAN_MODES, discriminator_loss, generator_loss
from fruitgan.train_gan.objectives.contracts import Objective, ObjectiveFactory, Player, Replay
from fruitgan.train_gan.objectives.replay_buffer import ReplayBuffer

MASK_WEIGHTS = ("mask_roughness", "mask_area")
EVERY_STEPS = 4  # Karras et al. 2020, appendix D
IMAGES_TO_FULL = 50_000  # real images in which the strength could go from 0 to 1; 500,000 there, for trainings 100 times longer
STRONGEST = 0.8


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


class AdaptiveStrength:
    """The probability p of each change; on its device, where nothing waits for the host.

    With r the mean sign of the real images' logits about the line between real and generated, over EVERY_STEPS steps:
    p <- clip(p + sign(r - target) EVERY_STEPS n / IMAGES_TO_FULL, 0, STRONGEST), n real images a step. Karras et al. 2020,
    section 3.1, r_t of equation 1.
    """

    def __init__(self, target: float) -> None:
        self.target = target
        self._values = torch.zeros(3)  # p, the sum of r, the steps in it
        self._before = torch.zeros(3)

    def on(self, device: torch.device) -> Tensor:
        """The strength now, a scalar."""
        if self._values.device != device:  # at the first step; a restored one comes from the host
            self._values, self._before = self._values.to(device), self._before.to(device)
        return self._values[0]

    @torch.no_grad()
    def observe(self, certainty: Tensor, images: int) -> None:
        """Take in a step's r, a scalar in [-1, 1], found on so many real images."""
        p, total, steps = self._values.unbind()
        total, steps = total + certainty, steps + 1
        due = steps >= EVERY_STEPS
        way = torch.sign(total / steps - self.target) * (EVERY_STEPS * images / IMAGES_TO_FULL)
        p = torch.where(due, (p + way).clamp(0.0, STRONGEST), p)
        self._values.copy_(torch.stack([p, torch.where(due, 0.0, total), torch.where(due, 0.0, steps)]))

    @torch.no_grad()
    def settle(self, ok: Tensor) -> None:
        """Keep what was taken in since the last call if the scalar `ok` is 1, forget it if it is 0."""
        self._values.copy_(torch.where(ok > 0, self._values, self._before))
        self._before.copy_(self._values)

    def state(self) -> State:
        return {"values": self._values}

    def restore(self, state: State) -> None:
        values = state["values"]
        if values.shape != (3,) or not bool(((values >= -EVERY_STEPS) & (values <= EVERY_STEPS)).all()):
            raise ValueError("it is no strength of changes")
        self._values = values.clone().float()
        self._before = self._values.clone()


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
    judged_a: Tensor
    judged_b: Tensor


class CycleGAN(Objective):
    """`generator_ab` and `generator_ba` with adversarial, cycle and identity losses; `discriminator_b` judges domain b.

    Every network treats images one by one, so calls are batched: a generator's fake and identity images, a discriminator's real
    and generated images.
    """

    def __init__(
        self,
        make_generator: Callable[[], Generator],
        make_discriminator: Callable[[], Discriminator],
        *,
        gan_mode: str,
        pool_size: int,
        mask_losses: bool,
        augment_target: float,
        shift: float,
        cutout: float,
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
        weights = ("adversarial", "cycle", "identity") + MASK_WEIGHTS * mask_losses
        self.weights = {name: torch.ones(()) for name in weights}
        # Their names are those of random streams, and so part of the seed.
        self.replay = {name: ReplayBuffer(pool_size) for name in ("pool_a", "pool_b")} if pool_size else {}
        self.strength = AdaptiveStrength(augment_target) if augment_target else None
        self.extras: Mapping[str, Replay] = {**self.replay, **({"strength": self.strength} if self.strength else {})}
        self.draws = dict.fromkeys(self.replay, 2)
        self.shift, self.cutout = shift, cutout
        if self.strength:
            self.draws |= {"shown_to_fool": DRAWS, "shown_to_learn": DRAWS}
        if shift or cutout:
            self.draws |= {f"moved_to_{end}": MOVING_DRAWS for end in ("fool", "learn")}
        self.gan_mode = gan_mode

    def prepare(self, batch: Batch, variant: frozenset[str]) -> CycleStep:
        n = len(batch.a)
        ab, ba = (cast(Generator, self.networks[name]) for name in ("generator_ab", "generator_ba"))
        masked = not variant.isdisjoint(MASK_WEIGHTS)
        identity = "identity" in variant
        to_b, mask_b = _translated(ab, torch.cat([batch.a, batch.b]) if identity else batch.a, masked)
        to_a, mask_a = _translated(ba, torch.cat([batch.b, batch.a]) if identity else batch.b, masked)
        fake_b, fake_a = to_b[:n], to_a[:n]
        return CycleStep(
            batch=batch,
            fake_a=fake_a,
            fake_b=fake_b,
            cycled_a=ba(fake_b),
            cycled_b=ab(fake_a),
            same_a=to_a[n:] if identity else None,
            same_b=to_b[n:] if identity else None,
            mask_a=None if mask_a is None else mask_a[:n],
            mask_b=None if mask_b is None else mask_b[:n],
            judged_a=self._judged("pool_a", fake_a, batch.draws),
            judged_b=self._judged("pool_b", fake_b, batch.draws),
        )

    def _judged(self, name: str, fake: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """The fakes that a discriminator is trained on: from the replay buffer, if there is one."""
        return self.replay[name].query(fake, draws[name]) if name in self.replay else fake.detach()

    def _discriminator(self, domain: str) -> Discriminator:
        return cast(Discriminator, self.networks[f"discriminator_{domain}"])

    def _shown(self, images: Tensor, draws: Mapping[str, Tensor], end: str) -> Tensor:
        """As a discriminator is shown them, to `fool` it or for it to `learn`: changed as drawn, where that is wanted."""
        if self.strength is not None:
            images = mildly_changed(images, draws[f"shown_to_{end}"], self.strength.on(images.device))
        if self.shift or self.cutout:
            images = shifted_and_cut(images, draws[f"moved_to_{end}"], self.shift, self.cutout)
        return images

    def _generators_loss(self, step: CycleStep) -> dict[str, Tensor]:
        weights, real, draws = self.weights, step.batch, step.batch.draws
        terms = {}
        for direction, domain, fake in (("ab", "b", step.fake_b), ("ba", "a", step.fake_a)):
            logits = self._discriminator(domain)(self._shown(fake, draws, "fool"))
            terms[f"adversarial_{direction}"] = weights["adversarial"] * generator_loss(self.gan_mode, logits)
        terms["cycle_a"] = cycle_loss(real.a, step.cycled_a, weights["cycle"])
        terms["cycle_b"] = cycle_loss(real.b, step.cycled_b, weights["cycle"])
        if step.same_a is not None and step.same_b is not None:
            terms["identity_a"] = identity_loss(real.a, step.same_a, weights["identity"])
            terms["identity_b"] = identity_loss(real.b, step.same_b, weights["identity"])
        for direction, mask in (("ab", step.mask_b), ("ba", step.mask_a)):
            if mask is not None:
                terms[f"mask_roughness_{direction}"] = weights["mask_roughness"] * mask_roughness(mask)
                terms[f"mask_area_{direction}"] = weights["mask_area"] * mask_area(mask)
        return terms

    def _discriminators_loss(self, step: CycleStep) -> dict[str, Tensor]:
        terms, certain, draws = {}, [], step.batch.draws
        for domain, real, judged in (("a", step.batch.a, step.judged_a), ("b", step.batch.b, step.judged_b)):
            judged = judged.to(real.dtype)
            on_real, on_fake = self._both_judged(domain, self._shown(real, draws, "learn"), self._shown(judged, draws, "learn"))
            terms[f"discriminator_{domain}"] = discriminator_loss(self.gan_mode, on_real, on_fake)
            certain += [torch.sign(scale.detach() - GAN_MODES[self.gan_mode].undecided).mean() for scale in on_real]
        if self.strength is not None:
            self.strength.observe(torch.stack(certain).mean(), 2 * len(step.batch.a))
        return terms

    def _both_judged(self, domain: str, real: Tensor, fake: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """The logit maps of real and of generated images."""
        halves = [scale.chunk(2) for scale in self._discriminator(domain)(torch.cat([real, fake]))]
        return [half[0] for half in halves], [half[1] for half in halves]


def _translated(generator: Generator, images: Tensor, masked: bool) -> tuple[Tensor, Tensor | None]:
    """The images, and their masks where they are asked for and the generator has them."""
    if not (masked and isinstance(generator, MaskedGenerator)):
        return generator(images), None
    parts = generator.parts(images)
    return parts.image, parts.mask


def cyclegan(
    *,
    gan_mode: str = "lsgan",
    pool_size: int = 50,
    mask_losses: bool = False,
    augment_target: float = 0.0,
    shift: float = 0.0,
    cutout: float = 0.0,
) -> ObjectiveFactory:
    """CycleGAN's losses: adversarial (`lsgan`, `bce`, `hinge`), cycle, identity; a replay buffer of `pool_size`.

    `mask_losses` adds the weights mask_roughness and mask_area on the masks of generators that have them; `augment_target`
    augments what discriminators are shown, so strongly that their mean sign on real images stays there (0: not at all; 0.6 in
    Karras et al. 2020); `shift` moves what they are shown by up to this share of the side, always, and `cutout` greys a square
    of this share of the side, half the time.
    """
    if gan_mode not in GAN_MODES:
        raise UsageError(f"objective cyclegan, option gan_mode: {gan_mode!r} is not one of {', '.join(GAN_MODES)}")
    if pool_size < 0:
        raise UsageError(f"objective cyclegan, option pool_size: {pool_size} is less than 0")
    if not 0 <= augment_target < 1:
        raise UsageError(f"objective cyclegan, option augment_target: {augment_target} is not within 0 to 1")
    if not 0 <= shift < 0.5 or not 0 <= cutout < 1:
        raise UsageError(f"objective cyclegan: shift {shift} is not within 0 to 0.5, or cutout {cutout} not within 0 to 1")
    return functools.partial(
        CycleGAN,
        gan_mode=gan_mode,
        pool_size=pool_size,
        mask_losses=mask_losses,
        augment_target=augment_target,
        shift=shift,
        cutout=cutout,
    )
