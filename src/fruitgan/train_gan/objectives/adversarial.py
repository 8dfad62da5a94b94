"""Adversarial losses, the image replay buffer, and the discriminators' side of an objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan.data.augment.training import MOVING_DRAWS, shifted_and_cut
from fruitgan.device import at_least_fp32
from fruitgan.distributed import ranks
from fruitgan.errors import DataError, UsageError
from fruitgan.networks.contracts import Discriminator
from fruitgan.runs.checkpoint import State

Logits = Sequence[Tensor] | Tensor
"""A map [N, 1, h, w] for each scale."""


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


GAN_MODES = {"lsgan": _squared, "bce": _cross_entropy, "hinge": _hinge}
"""How far a logit map is from a target, 1 real or 0 generated: what a discriminator minimises."""


def _summed(logits: Logits, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """A mean over each map, summed over the scales; a map alone is one scale."""
    scales = (logits,) if isinstance(logits, Tensor) else logits
    return torch.stack([loss(scale) for scale in scales]).sum()


def generator_loss(mode: str, fake: Logits) -> Tensor:
    """The generator wants its images called real; with hinge it maximises its logits, without an end.

    Args:
        mode: `lsgan`, `bce` or `hinge`.
        fake: what the discriminator says of its images; means over maps are summed over scales.
    """
    if mode == "hinge":
        return _summed(fake, lambda logits: -at_least_fp32(logits).mean())
    return _summed(fake, lambda logits: GAN_MODES[mode](logits, 1.0))


def discriminator_loss(mode: str, real: Logits, fake: Logits) -> Tensor:
    """Half the sum over real and generated images; the half slows the discriminator down (Zhu et al. 2017, appendix 7.1).

    `mode` and logits are as of `generator_loss`.
    """
    distance = GAN_MODES[mode]
    return 0.5 * (_summed(real, lambda logits: distance(logits, 1.0)) + _summed(fake, lambda logits: distance(logits, 0.0)))


class ReplayBuffer:
    """Image replay buffer: past fakes that discriminators are trained on again (Shrivastava et al. 2017, section 2.3).

    Holds up to `size` images on their device and decides there: nothing waits for the host.

    Its tensors stay where they are from the first query on, so that a captured step can be repeated.
    While it fills, each image is kept and returned. Then, with probability 1/2, a random kept image is returned and the new
    one takes its place; else the new one is returned and not kept (as the reference: Zhu et al. 2017, section 4).

    After the queries of a step `settle` says whether they count; until then each holds what it replaced.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: Tensor | None = None
        self.count = torch.zeros((), dtype=torch.int64)
        self._count_before = torch.zeros_like(self.count)
        self._undo: list[tuple[Tensor, Tensor]] = []

    def query(self, fakes: Tensor, draws: Tensor) -> Tensor:
        """[N, 3, H, W] fakes and [N, 2] numbers in [0, 1) to the [N, 3, H, W] images to judge.

        The first number decides whether to swap, the second with which; an image may meet one of its own batch.
        """
        fakes = at_least_fp32(fakes.detach())
        if not self.size:
            return fakes
        if self.images is None:
            self.images = fakes.new_zeros((self.size, *fakes.shape[1:]))
        if self.count.device != fakes.device:  # at the first step; a restored buffer comes from the host
            self.images = self.images.to(fakes.device)
            self.count, self._count_before = self.count.to(fakes.device), self._count_before.to(fakes.device)
        if self.images.shape[1:] != fakes.shape[1:] or self.images.dtype != fakes.dtype:
            raise DataError(
                f"the replay buffer holds {list(self.images.shape[1:])}, not {list(fakes.shape[1:])}: another run's"
            )
        if not self._undo:
            self._count_before.copy_(self.count)
        shown = []
        for fake, (swap, which) in zip(fakes, draws, strict=True):
            filling = self.count < self.size
            slot = torch.where(filling, self.count, (which * self.size).long().clamp(max=self.size - 1)).view(1)
            kept = self.images[slot]
            swapping = ~filling & (swap > 0.5)
            shown.append(torch.where(swapping, kept[0], fake))
            self._undo.append((slot, kept))
            self.images.index_copy_(0, slot, torch.where(filling | swapping, fake, kept[0]).unsqueeze(0))
            self.count.add_(filling)
        return torch.stack(shown)

    def settle(self, ok: Tensor) -> None:
        """Keep what was written since the last call if the scalar `ok` is 1, take it back if it is 0."""
        if self.images is None:
            return
        for slot, kept in reversed(self._undo):
            self.images.index_copy_(0, slot, torch.where(ok > 0, self.images[slot], kept))
        self.count.copy_(torch.where(ok > 0, self.count, self._count_before))
        self._undo.clear()

    def state(self) -> State:
        if self.images is None:
            return {"count": 0}
        return {"count": int(self.count), "images": self.images}

    def restore(self, state: State) -> None:
        images = state.get("images")
        filled = 0 if images is None else len(images)
        if not 0 <= state["count"] <= filled or filled not in (0, self.size) or (images is not None and images.ndim != 4):
            raise ValueError(f"{state['count']} images in a replay buffer of {filled} do not fit this one of {self.size}")
        self.images = None if images is None else images.clone()
        self.count = torch.tensor(state["count"])
        self._count_before = torch.zeros_like(self.count)
        self._undo.clear()


class Judges:
    """The discriminators of some domains: what each is shown, and what both sides lose.

    Args:
        networks: with a `discriminator_b` for the domain b.
        gan_mode: the adversarial loss, `lsgan`, `bce` or `hinge`.
        pool_size: of the replay buffer, of past fakes for discriminators to learn from (0: none).
        shift: by up to which share of the side what is shown is moved, always.
        cutout: of which share of the side a square of what is shown is greyed, half the time.

    Raises:
        UsageError: an option is out of its range.
    """

    def __init__(
        self,
        networks: nn.ModuleDict,
        domains: Sequence[str],
        *,
        gan_mode: str = "lsgan",
        pool_size: int = 0,
        shift: float = 0.0,
        cutout: float = 0.0,
    ) -> None:
        if gan_mode not in GAN_MODES:
            raise UsageError(f"the objective's option gan_mode: {gan_mode!r} is not one of {', '.join(GAN_MODES)}")
        if pool_size < 0:
            raise UsageError(f"the objective's option pool_size: {pool_size} is less than 0")
        for name, value, end in (("shift", shift, 0.5), ("cutout", cutout, 1)):
            if not 0 <= value < end:
                raise UsageError(f"the objective's option {name}: {value} is not from 0 to below {end}")
        self.networks, self.gan_mode, self.shift, self.cutout = networks, gan_mode, shift, cutout
        # Their names are those of random streams, and so part of the seed.
        self.replay = {f"pool_{domain}": ReplayBuffer(pool_size) for domain in domains} if pool_size else {}
        self.draws = dict.fromkeys(self.replay, 2)
        """How many random numbers an image they need in each batch, by name."""
        if shift or cutout:
            self.draws |= {f"moved_to_{end}": MOVING_DRAWS for end in ("fool", "learn")}

    def to_judge(self, fakes: Mapping[str, Tensor], draws: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """By domain the fakes that a discriminator learns from, [N, 3, H, W] and detached: these, or past ones among them.

        Every process keeps the fakes of all, so that the buffers are the same everywhere.
        """
        if not self.replay:
            return {domain: fake.detach() for domain, fake in fakes.items()}
        numbers = [draws[f"pool_{domain}"] for domain in fakes]
        found = ranks().gathered(*map(at_least_fp32, fakes.values()), *numbers)
        triples = zip(fakes, found, found[len(fakes) :], strict=False)
        return {domain: ranks().own(self.replay[f"pool_{domain}"].query(images, draws)) for domain, images, draws in triples}

    def fooled(self, domain: str, fake: Tensor, draws: Mapping[str, Tensor]) -> Tensor:
        """The adversarial loss of the generator that made these fakes, [N, 3, H, W] in [-1, 1]."""
        return generator_loss(self.gan_mode, self._discriminator(domain)(self._shown(fake, draws, "fool")))

    def losses(self, step: Any) -> dict[str, Tensor]:
        """The discriminators' terms of a prepared step, with its `batch` and by domain as `judged` the fakes `to_judge`."""
        terms = {}
        for domain, fake in step.judged.items():
            real = step.batch.a if domain == "a" else step.batch.b
            both = torch.cat([self._shown(images.to(real.dtype), step.batch.draws, "learn") for images in (real, fake)])
            on_real, on_fake = zip(*(scale.chunk(2) for scale in self._discriminator(domain)(both)), strict=True)
            terms[f"discriminator_{domain}"] = discriminator_loss(self.gan_mode, on_real, on_fake)
        return terms

    def _discriminator(self, domain: str) -> Discriminator:
        return cast(Discriminator, self.networks[f"discriminator_{domain}"])

    def _shown(self, images: Tensor, draws: Mapping[str, Tensor], end: str) -> Tensor:
        """As a discriminator is shown them, to `fool` it or for it to `learn`: moved and cut as drawn, where that is wanted."""
        if not (self.shift or self.cutout):
            return images
        return shifted_and_cut(images, draws[f"moved_to_{end}"], self.shift, self.cutout)
