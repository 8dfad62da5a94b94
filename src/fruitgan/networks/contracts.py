"""Contracts and registries of generators, discriminators and detectors. Shapes: N images of H x W pixels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from fruitgan.errors import is_out_of_memory, reason_of
from fruitgan.registry import Registry


@dataclass(frozen=True)
class SizeRule:
    """Which image sizes a network takes: each side at least `minimum_px` and a multiple of `multiple_of_px`."""

    minimum_px: int
    multiple_of_px: int

    def accepts(self, height_px: int, width_px: int) -> bool:
        return all(side >= self.minimum_px and side % self.multiple_of_px == 0 for side in (height_px, width_px))

    def padded(self, side_px: int) -> int:
        """The smallest side that fits and is no shorter than `side_px`."""
        side_px = max(side_px, self.minimum_px)
        return -(-side_px // self.multiple_of_px) * self.multiple_of_px


class Generator(nn.Module, ABC):
    """A translation of images: [N, 3, H, W] float in [-1, 1] to the same."""

    size_rule: SizeRule

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...


class GeneratorParts(NamedTuple):
    """A translated image and the mask by which it was blended with its source."""

    image: Tensor
    """[N, 3, H, W] in [-1, 1]."""
    mask: Tensor | None
    """[N, 1, H, W] in [0, 1]; 1 where the output is all the network's, 0 where it is all the source's. None without one."""


class MaskedGenerator(Generator):
    """A generator that can give the mask by which its output was blended with its source."""

    @abstractmethod
    def parts(self, x: Tensor) -> GeneratorParts:
        """The image and its mask."""

    def forward(self, x: Tensor) -> Tensor:
        return self.parts(x).image


@runtime_checkable
class Encoder(Protocol):
    """A generator whose inner maps can be read, as contrastive objectives need (Park et al. 2020). It is optional."""

    encode_points: int
    """How many inner maps `encode` can give; points are numbered from 0."""

    def encode(self, x: Tensor, points: Sequence[int]) -> list[Tensor]:
        """The inner maps [N, C, h, w] at the given points, in their order; computes no further than it must."""


class Discriminator(nn.Module, ABC):
    """[N, 3, H, W] in [-1, 1] to a tuple of logit maps [N, 1, h, w], one a scale; higher means more real."""

    size_rule: SizeRule

    @abstractmethod
    def forward(self, x: Tensor) -> tuple[Tensor, ...]: ...


@torch.no_grad()
def breach(kind: str, network: nn.Module, side_px: int) -> str | None:
    """What a stranger's generator or discriminator has or gives against its contract; None where all is well."""
    if not isinstance(getattr(network, "size_rule", None), SizeRule):
        return "has no size_rule"
    image, was_training = torch.zeros(1, 3, side_px, side_px), network.training
    try:
        given = network.eval()(image)
    except Exception as error:  # a stranger's network may raise anything
        if is_out_of_memory(error):
            raise
        return f"fails on {list(image.shape)}: {type(error).__name__}: {reason_of(error)}"
    finally:
        network.train(was_training)
    if kind == "generator":
        return None if isinstance(given, Tensor) and given.shape == image.shape else f"gives no {list(image.shape)}"
    is_maps = isinstance(given, tuple) and all(isinstance(logits, Tensor) and logits.ndim == 4 for logits in given)
    return None if is_maps else "gives no tuple of logit maps [N, 1, h, w]"


class Detector(nn.Module, ABC):
    """A classifier of real against generated images: [N, 3, S, S] in [0, 1] to a logit [N], above 0 means generated."""

    image_size_px: int
    """The exact side S it wants."""
    suggested_augmentation: str = "none"
    """Name of the augmentation that it is trained with where nobody asks for another."""

    takes_any_size: bool = False
    """Whether it can be trained on smaller parts of its images, since it averages over the whole of what it is given."""

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor: ...


class LinearDetector(Detector):
    """A logistic regression on fixed features, fitted in closed steps instead of trained by batches.

    With m and s the mean and spread of each of D features over the training images, the logit is w (f - m) / s + b.
    """

    mean: Tensor
    spread: Tensor

    def __init__(self, features: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("spread", torch.ones(features))
        self.linear = nn.Linear(features, 1)

    @abstractmethod
    def features(self, x: Tensor) -> Tensor:
        """[N, 3, S, S] in [0, 1] to [N, D]; each image for itself, nothing in it is trained."""

    def forward(self, x: Tensor) -> Tensor:
        logit: Tensor = self.linear((self.features(x) - self.mean) / self.spread)
        return logit.squeeze(1)


# A builder takes keyword options alone and gives the network, freshly initialised.
generators: Registry[Callable[..., Generator]] = Registry("generators")
discriminators: Registry[Callable[..., Discriminator]] = Registry("discriminators")
detectors: Registry[Callable[..., Detector]] = Registry("detectors")
