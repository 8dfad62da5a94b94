"""What a detector's training tells on its way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Round:
    """One epoch, or one strength of the penalty that a regression was tried with. Losses are cross entropies in nats."""

    number: int
    train_loss: float
    train_accuracy: float
    val_loss: float
    val_accuracy: float
    is_best: bool
    """Whether the loss on the choosing images was lower than in any round before."""
    seconds: float
    penalty: float | None = None
    """Of a regression: 1 / C, the weight of the squared coefficients."""


OnRound = Callable[[Round], bool | None]
"""Told of each round; True ends the training."""
