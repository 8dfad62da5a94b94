"""CUT, contrastive unpaired translation: one generator, and content kept place by place (Park et al. 2020).

PatchNCE: features of an output must tell at which place of its source they belong.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fruitgan.data.loader import Batch
from fruitgan.device import at_least_fp32, without_autocast
from fruitgan.errors import UsageError
from fruitgan.networks.contracts import Discriminator, Encoder, Generator
from fruitgan.train_gan.objectives.adversarial import Judges
from fruitgan.train_gan.objectives.contracts import Objective, ObjectiveFactory, Player
from fruitgan.train_gan.objectives.cyclegan import MASK_WEIGHTS, mask_terms, translated

SPREAD_POINTS = 5  # as many as the authors' code has of a ResNet-9 (0, 4, 8, 12 and 16 of its layers)
CONTRASTS = {"nce": "a", "identity_nce": "b"}
"""The domain whose images are compared with their outputs, by loss weight."""
FEATURES = 256
STD = 0.02
LEAST_LENGTH = 1e-3
"""Shorter features are not made as long as 1. They come from places where all of a map is 0, as ReLUs leave it; with torch's
1e-12 such a place has a gradient of 1e12 at the start, when the biases are 0 too."""


def patch_nce(queries: Tensor, keys: Tensor, temperature: float) -> Tensor:
    """Mean cross entropy of finding the one place of a source that a feature of its output belongs to.

    [N, P, C] queries q of the outputs and keys k of the sources, both of length 1; with t the temperature, the mean over images
    and places i of -log(exp(q_i k_i / t) / sum_j exp(q_i k_j / t)): Park et al. 2020, equation 2, for one of the layers of
    equation 3, the negatives all from the same image. In float32 at least, whatever the autocast around it.
    """
    with without_autocast(queries.device):
        likeness = at_least_fp32(queries) @ at_least_fp32(keys).transpose(1, 2) / temperature  # [N, P, P]
        return (likeness.logsumexp(2) - likeness.diagonal(dim1=1, dim2=2)).mean()


def drawn_places(draws: Tensor, places: int) -> Tensor:
    """From [N, P] numbers in [0, 1) as many different ones of `places` (P or more), int64 [N, P].

    The places are divided into P runs, equally long but for one place, and each number chooses within its run.
    """
    borders = torch.arange(draws.shape[1] + 1, device=draws.device) * places // draws.shape[1]
    return borders[:-1] + (draws * borders.diff()).long()


class Projection(nn.Module):
    """For each of some inner maps a perceptron of two layers, from its C features at a place to FEATURES of length 1.

    H_l of Park et al. 2020, equation 3; as in the authors' code weights start as N(0, STD) and biases at 0.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__()
        self.perceptrons = nn.ModuleList(
            nn.Sequential(nn.Linear(count, FEATURES), nn.ReLU(), nn.Linear(FEATURES, FEATURES)) for count in channels
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, 0.0, STD)
                nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor], draws: Tensor) -> list[Tensor]:
        """Maps [N, C, h, w] to features of length 1 at P places of each, [N, P, FEATURES]; at all where h w is less.

        `draws`, [N, maps, P] in [0, 1), decide the places: the same numbers are the same places.
        """
        return [
            self._features(perceptron, inner.flatten(2), draws[:, index, : inner[0, 0].numel()])
            for index, (perceptron, inner) in enumerate(zip(self.perceptrons, maps, strict=True))
        ]

    @staticmethod
    def _features(perceptron: nn.Module, inner: Tensor, draws: Tensor) -> Tensor:
        places = drawn_places(draws, inner.shape[2]).unsqueeze(1).expand(-1, inner.shape[1], -1)  # [N, C, P]
        features = perceptron(inner.gather(2, places).transpose(1, 2))  # [N, P, FEATURES]
        return F.normalize(at_least_fp32(features), dim=2, eps=LEAST_LENGTH)


def channels_of(generator: Encoder, points: Sequence[int]) -> list[int]:
    """How many channels the generator's inner maps have at these points, found without computing them."""
    side_px = cast(Generator, generator).size_rule.padded(1)
    without_data = cast(Encoder, copy.deepcopy(cast(Generator, generator)).to("meta"))
    return [inner.shape[1] for inner in without_data.encode(torch.zeros((1, 3, side_px, side_px), device="meta"), points)]


def points_of(generator: Generator, asked: tuple[int, ...]) -> tuple[int, ...]:
    """The generator's inner maps to contrast: those asked for, else some spread evenly over them all.

    Raises:
        UsageError: it does not have them, or no inner maps to read.
    """
    if not isinstance(generator, Encoder):
        raise UsageError("the objective cut reads a generator's inner maps, which this one does not offer (encode)")
    last = generator.encode_points - 1
    if max(asked, default=0) > last:
        raise UsageError(f"the objective's option points: {max(asked)} is not one of this generator's, 0 to {last}")
    count = min(SPREAD_POINTS, generator.encode_points)
    return asked or tuple(round(index * last / max(1, count - 1)) for index in range(count))


@dataclass(frozen=True)
class CutStep:
    """One step's images, each [N, 3, H, W] in [-1, 1], made once for both players; the batch for the numbers drawn."""

    batch: Batch
    fake_b: Tensor
    mask_b: Tensor | None
    """[N, 1, H, W] in [0, 1], of the fakes."""
    judged: Mapping[str, Tensor]
    """What the discriminator learns from, by domain."""
    contrasts: Mapping[str, tuple[Tensor, Tensor]]
    """Sources and outputs, by loss weight."""


class CUT(Objective):
    """`generator_ab` with adversarial and PatchNCE losses, the latter together with `projection`; `discriminator_b` judges.

    Park et al. 2020, equation 5, with the mean over the layers and half the sum over the domains, as the authors' code has it:
    adversarial + nce / 2 NCE(a, G(a)) + identity_nce / 2 NCE(b, G(b)).
    """

    def __init__(
        self,
        make_generator: Callable[[], Generator],
        make_discriminator: Callable[[], Discriminator],
        *,
        points: tuple[int, ...],
        positions: int,
        temperature: float,
        mask_losses: bool,
        **judging: Any,
    ) -> None:
        generator = make_generator()
        self.points = points_of(generator, points)
        self.temperature = temperature
        self.networks = nn.ModuleDict(
            {
                "generator_ab": generator,
                "discriminator_b": make_discriminator(),
                "projection": Projection(channels_of(cast(Encoder, generator), self.points)),
            }
        )
        self.judges = Judges(self.networks, "b", **judging)
        self.players = (
            Player("generators", ("generator_ab", "projection"), self._generator_loss),
            Player("discriminators", ("discriminator_b",), self.judges.losses),
        )
        self.generators = {"a2b": "generator_ab"}
        weights = ("adversarial", *CONTRASTS) + MASK_WEIGHTS * mask_losses
        self.weights = {name: torch.ones(()) for name in weights}
        self.extras = self.judges.replay
        self.draws = self.judges.draws | dict.fromkeys(CONTRASTS, len(self.points) * positions)

    def prepare(self, batch: Batch, variant: frozenset[str]) -> CutStep:
        n = len(batch.a)
        identity = "identity_nce" in variant
        sources = torch.cat([batch.a, batch.b]) if identity else batch.a
        outputs, mask = translated(self._generator, sources, variant, n)
        fake_b = outputs[:n]
        contrasts = {"nce": (batch.a, fake_b), "identity_nce": (batch.b, outputs[n:])}
        return CutStep(
            batch=batch,
            fake_b=fake_b,
            mask_b=mask,
            judged=self.judges.to_judge({"b": fake_b}, batch.draws),
            contrasts={name: pair for name, pair in contrasts.items() if name in variant},
        )

    @property
    def _generator(self) -> Generator:
        return cast(Generator, self.networks["generator_ab"])

    def _generator_loss(self, step: CutStep) -> dict[str, Tensor]:
        weights, draws = self.weights, step.batch.draws
        terms = {"adversarial_ab": weights["adversarial"] * self.judges.fooled("b", step.fake_b, draws)}
        for name, (sources, outputs) in step.contrasts.items():
            terms[f"{name}_{CONTRASTS[name]}"] = weights[name] / 2 * self._contrast(sources, outputs, draws[name])
        return terms | mask_terms({"ab": step.mask_b}, weights)

    def _contrast(self, sources: Tensor, outputs: Tensor, draws: Tensor) -> Tensor:
        """NCE(x, G(x)) of [N, 3, H, W] each, the mean over the points; [N, points * positions] numbers draw the places."""
        numbers = draws.view(len(draws), len(self.points), -1)
        queries = self._features(outputs, numbers)
        with torch.no_grad():
            keys = self._features(sources, numbers)
        losses = [patch_nce(query, key, self.temperature) for query, key in zip(queries, keys, strict=True)]
        return torch.stack(losses).mean()

    def _features(self, images: Tensor, numbers: Tensor) -> list[Tensor]:
        encoder = cast(Encoder, self._generator)
        found: list[Tensor] = self.networks["projection"](encoder.encode(images, self.points), numbers)
        return found


def cut(
    *,
    points: str = "",
    positions: int = 256,
    temperature: float = 0.07,
    gan_mode: str = "lsgan",
    pool_size: int = 0,
    mask_losses: bool = False,
    shift: float = 0.0,
    cutout: float = 0.0,
) -> ObjectiveFactory:
    """CUT's losses, from domain a to b alone: adversarial, and PatchNCE of a's images and of b's (`identity_nce`).

    Features of an output are compared with its source's at the generator's inner maps `points` ("0,2,4"; spread evenly where
    that is empty), at so many random `positions` of each; `temperature` divides their likeness. The others are `cyclegan`'s.
    """
    try:
        numbers = tuple(int(point) for point in points.split(",")) if points else ()
    except ValueError as error:
        raise UsageError(f"the objective's option points: {points!r} is no list of numbers such as 0,2,4") from error
    if min(numbers, default=0) < 0 or len(set(numbers)) < len(numbers):
        raise UsageError(f"the objective's option points: {points} are not different from 0 on")
    if positions < 2:
        raise UsageError(f"the objective's option positions: {positions} is less than 2, which leaves no negatives")
    if temperature <= 0:
        raise UsageError(f"the objective's option temperature: {temperature} is not above 0")
    return functools.partial(
        CUT,
        points=numbers,
        positions=positions,
        temperature=temperature,
        mask_losses=mask_losses,
        gan_mode=gan_mode,
        pool_size=pool_size,
        shift=shift,
        cutout=cutout,
    )
