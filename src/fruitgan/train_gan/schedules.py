"""How a number moves during training: pure functions of the step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from fruitgan.errors import UsageError


@dataclass(frozen=True)
class Clock:
    """Where training stands: steps done and to do in all, and how many make an epoch."""

    step: int
    total_steps: int
    steps_per_epoch: int


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """`start` up to the share `begin` of the training, then towards `end`, which is reached at the share `finish`.

    With `unit` "epoch" the value changes between epochs alone, and one epoch past the last would be the first at `end`: with
    start 1, end 0, begin 1/2 and 200 epochs that is the reference's 1 - max(0, e + 1 - 100) / 101, e from 0.

    With `every` above 1 it is lazy: `every` times the value at the first of so many steps, 0 at the others, so that the mean
    over them is the value (Karras et al. 2020, StyleGAN2, section 3.1). What weighs 0 is not computed.
    """

    start: float
    end: float
    begin: float = 0.0
    finish: float = 1.0
    shape: Literal["linear", "cosine"] = "linear"
    unit: Literal["step", "epoch"] = "step"
    every: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.begin <= self.finish <= 1:
            raise UsageError(f"schedule: begin {self.begin} and finish {self.finish} must rise within 0 to 1")
        if self.every < 1:
            raise UsageError(f"schedule: every {self.every} steps is less than every step")

    def at(self, clock: Clock) -> float:
        """The value for the step that follows `clock.step` done ones."""
        if clock.step % self.every:
            return 0.0
        share = self._epoch_share(clock) if self.unit == "epoch" else self._step_share(clock)
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.every * (self.start + (self.end - self.start) * share)

    def _step_share(self, clock: Clock) -> float:
        progress = clock.step / max(1, clock.total_steps)
        if progress < self.begin:
            return 0.0
        length = self.finish - self.begin
        return min(1.0, (progress - self.begin) / length) if length else 1.0

    def _epoch_share(self, clock: Clock) -> float:
        epochs = max(1, round(clock.total_steps / clock.steps_per_epoch))
        first, last = round(epochs * self.begin), round(epochs * self.finish)
        past = clock.step // clock.steps_per_epoch + 1 - first
        return min(1.0, max(0, past) / (last - first + 1))


def constant(value: float) -> Schedule:
    return Schedule(start=value, end=value)


def until(share: float, value: float) -> Schedule:
    """`value` for the first `share` of the training, then 0."""
    return Schedule(start=value, end=0.0, begin=share, finish=share)
