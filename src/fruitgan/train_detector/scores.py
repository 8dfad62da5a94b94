"""What a detector's answers amount to, with how sure one can be of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fruitgan.measures.statistics import auc, binomial_p, wilson


@dataclass(frozen=True, kw_only=True)
class Confusion:
    """Counts of what was judged, by what it is and what it was taken for."""

    generated_as_generated: int
    generated_as_real: int
    real_as_generated: int
    real_as_real: int

    @property
    def right(self) -> int:
        return self.generated_as_generated + self.real_as_real

    @property
    def n(self) -> int:
        return self.right + self.generated_as_real + self.real_as_generated


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Numbers of one judgement. Shares are in [0, 1]."""

    accuracy: float
    interval: tuple[float, float]
    """95% (Wilson) of the accuracy."""
    auc: float
    p_value: float
    """How probable at least this accuracy is for one who always says what is more frequent."""
    chance: float
    """The accuracy of such a guess: the share of the larger class."""
    n: int
    confusion: Confusion


def judge(logits: NDArray[np.float64], generated: NDArray[np.bool_] | Sequence[bool]) -> Verdict:
    """Logits [n], above 0 for generated, against the truth [n]; both classes must occur.

    Raises:
        ValueError: one class alone.
    """
    truth = np.asarray(generated, dtype=np.bool_)
    said = logits > 0
    confusion = Confusion(
        generated_as_generated=int((truth & said).sum()),
        generated_as_real=int((truth & ~said).sum()),
        real_as_generated=int((~truth & said).sum()),
        real_as_real=int((~truth & ~said).sum()),
    )
    n = len(truth)
    chance = max(int(truth.sum()), int((~truth).sum())) / n
    low, high = wilson(confusion.right, n)
    return Verdict(
        accuracy=confusion.right / n,
        interval=(low, high),
        auc=auc(logits, truth),
        p_value=binomial_p(confusion.right, n, chance),
        chance=chance,
        n=n,
        confusion=confusion,
    )


def log_loss(logits: NDArray[np.float64], generated: NDArray[np.bool_]) -> float:
    """Mean cross entropy in nats: log(1 + exp(-z)) for a generated image, log(1 + exp(z)) for a real one; may be nan."""
    if not np.isfinite(logits).all():
        return math.nan
    return float(np.logaddexp(0, np.where(generated, -logits, logits)).mean())
