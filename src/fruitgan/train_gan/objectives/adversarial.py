"""Adversarial losses, and the discriminators' side of an objective: what they are shown and what both sides lose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan.data.augment.training import DRAWS, MOVING_DRAWS, mildly_changed, shifted_and_cut
from fruitgan.device import at_least_fp32
from fruitgan.errors import UsageError
from fruitgan.networks.contracts import Discriminator
from fruitgan.runs.checkpoint import State
from fruitgan.train_gan.objectives.contracts import Replay
from fruitgan.train_gan.objectives.replay_buffer import ReplayBuffer

EVERY_STEPS = 4  # Karras et al. 2020, appendix D
IMAGES_TO_FULL = 50_000  # real images in which the strength could go from 0 to 1; 500,000 there, for trainings 100 times longer
STRONGEST = 0.8
Logits = Sequence[Tensor]


def _squared(logits: Tensor, target: float) -> Tensor:
    """Mean of (D - target)^2: Mao et al. 2017, equation 2, with targets 1 and 0; Zhu et al. 2017, section 4."""
    return (at_least_fp32(logits) - target).square().mean()


def _cross_entropy(logits: Tensor, target: float) -> Tensor:
    """Mean of -log sigmoid(D), or of -log(1 - sigmoid(D)): Goodfellow et al. 2014, equation 1, in the non-saturating form."""
    logits = at_least_fp32(logits)
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))


def _hinge(logits: Tensor, target: float) -> Tensor:
    """Mean of max(0, 1 - D) for real, of max(0, 1 + D) for generated images: Lim & Ye 2017, equation 7."""
    logits = at_least_fp32(logits)
    return F.relu(1 - logits if target else 1 + logits).mean()


@dataclass(frozen=True)
class GanLoss:
    """One adversarial loss: how far a logit map is from a target, 1 real or 0 generated."""

    distance: Callable[[Tensor, float], Tensor]
    """What a discriminator minimises."""
    undecided: float
    """The logit that lies between real and generated."""
    fool: Callable[[Tensor], Tensor]
    """What a generator minimises."""


GAN_MODES = {
    "lsgan": GanLoss(_squared, 0.5, lambda logits: _squared(logits, 1.0)),
    "bce": GanLoss(_cross_entropy, 0.0, lambda logits: _cross_entropy(logits, 1.0)),
    "hinge": GanLoss(_hinge, 0.0, lambda logits: -at_least_fp32(logits).mean()),
}


def _summed(logits: Logits, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """A mean over each map, summed over the scales."""
    return torch.stack([loss(scale) for scale in logits]).sum()


def generator_loss(mode: str, fake: Logits) -> Tensor:
    """The generator wants its images called real."""
    return _summed(fake, GAN_MODES[mode].fool)


def discriminator_loss(mode: str, real: Logits, fake: Logits) -> Tensor:
    """Half the sum over real and generated images; the half slows the discriminator down (Zhu et al. 2017, appendix 7.1)."""
    distance = GAN_MODES[mode].distance
    return 0.5 * (_summed(real, lambda logits: distance(logits, 1.0)) + _summed(fake, lambda logits: distance(logits, 0.0)))


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


@dataclass(frozen=True, kw_only=True)
class Judging:
    """How discriminators judge: the options that the adversarial objectives have in common."""

    gan_mode: str
    """The adversarial loss: `lsgan`, `bce` or `hinge`."""
    pool_size: int
    """The size of the replay buffer, of past fakes for discriminators to learn from (0: none)."""
    augment_target: float
    """The mean sign on real images that decides how strongly what is shown is changed (0: not at all)."""
    shift: float
    """By up to which share of the side what is shown is moved, always."""
    cutout: float
    """Of which share of the side a square is greyed, half the time."""

    def __post_init__(self) -> None:
        if self.gan_mode not in GAN_MODES:
            raise UsageError(f"the objective's option gan_mode: {self.gan_mode!r} is not one of {', '.join(GAN_MODES)}")
        if self.pool_size < 0:
            raise UsageError(f"the objective's option pool_size: {self.pool_size} is less than 0")
        for name, end in (("augment_target", 1), ("shift", 0.5), ("cutout", 1)):
            if not 0 <= (value := getattr(self, name)) < end:
                raise UsageError(f"the objective's option {name}: {value} is not from 0 to below {end}")


class Judges:
    """The discriminators of some domains: what each is shown, and what both sides lose.

    Args:
        networks: with a `discriminator_b` for the domain b.
    """

    def __init__(self, networks: nn.ModuleDict, domains: Sequence[str], how: Judging) -> None:
        self.networks, self.how = networks, how
        # Their names are those of random streams, and so part of the seed.
        self.replay = {f"pool_{domain}": ReplayBuffer(how.pool_size) for domain in domains} if how.pool_size else {}
        self.strength = AdaptiveStrength(how.augment_target) if how.augment_target else None
        self.extras: Mapping[str, Replay] = {**self.replay, **({"strength": self.strength} if self.strength else {})}
        self.draws = dict.fromkeys(self.replay, 2)
        """How many random numbers an image they need in each batch, by name."""
        if self.strength:
            self.draws |= {"shown_to_fool": DRAWS, "shown_to_learn": DRAWS}
        if how.shift or how.cutout:
            self.draws |= {f"moved_to_{end}": MOVING_DRAWS for end in ("fool", "learn")}

    def to_judge(self, domain: str, fake: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """The fakes that the discriminator learns from, [N, 3, H, W] and detached: these, or past ones among them."""
        pool = self.replay.get(f"pool_{domain}")
        return fake.detach() if pool is None else pool.query(fake, draws[f"pool_{domain}"])

    def fooled(self, domain: str, fake: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """The adversarial loss of the generator that made these fakes, [N, 3, H, W] in [-1, 1]."""
        return generator_loss(self.how.gan_mode, self._discriminator(domain)(self._shown(fake, draws, "fool")))

    def losses(self, pairs: Mapping[str, tuple[Tensor, Tensor]], draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The discriminators' terms, from the real images of each domain and the fakes `to_judge`, each [N, 3, H, W]."""
        terms, certain = {}, []
        for domain, (real, fake) in pairs.items():
            fake = fake.to(real.dtype)
            on_real, on_fake = self._both_judged(domain, self._shown(real, draws, "learn"), self._shown(fake, draws, "learn"))
            terms[f"discriminator_{domain}"] = discriminator_loss(self.how.gan_mode, on_real, on_fake)
            certain += [torch.sign(scale.detach() - GAN_MODES[self.how.gan_mode].undecided).mean() for scale in on_real]
        if self.strength is not None:
            self.strength.observe(torch.stack(certain).mean(), sum(len(real) for real, _ in pairs.values()))
        return terms

    def _discriminator(self, domain: str) -> Discriminator:
        return cast(Discriminator, self.networks[f"discriminator_{domain}"])

    def _shown(self, images: Tensor, draws: Mapping[str, Tensor], end: str) -> Tensor:
        """As a discriminator is shown them, to `fool` it or for it to `learn`: changed as drawn, where that is wanted."""
        if self.strength is not None:
            images = mildly_changed(images, draws[f"shown_to_{end}"], self.strength.on(images.device))
        if self.how.shift or self.how.cutout:
            images = shifted_and_cut(images, draws[f"moved_to_{end}"], self.how.shift, self.how.cutout)
        return images

    def _both_judged(self, domain: str, real: Tensor, fake: Tensor) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """The logit maps of real and of generated images."""
        halves = [scale.chunk(2) for scale in self._discriminator(domain)(torch.cat([real, fake]))]
        return [half[0] for half in halves], [half[1] for half in halves]
