"""A recipe is a value: everything that decides what a training computes, and why."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from fruitgan.device import Precision
from fruitgan.registry import Registry
from fruitgan.train_gan.schedules import Schedule

Pairing = Literal["random-b", "zip", "passes"]
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]


@dataclass(frozen=True, kw_only=True)
class Part:
    """A registered thing by name, with the options that differ from its defaults."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Kingma & Ba 2015, algorithm 1, for one player."""

    learning_rate: float = 2e-4
    beta_1: float = 0.5
    beta_2: float = 0.999
    epsilon: float = 1e-8


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What `train-gan --recipe` names. Durations are in epochs or, where `steps` is set, in steps."""

    summary: str
    why: Mapping[str, str]
    """Reasons by field, for people."""
    objective: Part
    generator: Part
    discriminator: Part
    augmentation: Part
    weights: Mapping[str, Schedule]
    """The objective's loss weights over the training."""
    optimizers: Mapping[str, Adam]
    """By player."""
    learning_rate: Schedule
    """A factor on every optimiser's learning rate."""
    averaging: float | None
    """Limit of the averaging factor of the generators' moving averages; None: the last weights are the result."""
    pairing: Pairing
    resample: Resample
    fit: Literal["squash", "cover"]
    image_size_px: int
    batch_size: int
    epochs: int | None = None
    steps: int | None = None
    precision: Precision = "fp32"

    def total_steps(self, steps_per_epoch: int) -> int:
        return self.steps if self.steps is not None else (self.epochs or 1) * steps_per_epoch


recipes: Registry[Recipe] = Registry("recipes")
