"""Two detectors' answers to the same questions: who is right more often, and whether that may be chance."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fruitgan.measures.statistics import Interval, bootstrap_interval


@dataclass(frozen=True, kw_only=True)
class PairedShares:
    """The share of right answers of a second one, less that of a first one, over n questions that both answered."""

    first: float
    second: float
    difference: float
    interval: Interval
    """95%, by the bootstrap over groups of questions."""
    p_value: float
    """McNemar's test, exact and two-sided."""
    only_first: int
    """How many only the first got right."""
    only_second: int
    n: int


def mcnemar_p(only_first: int, only_second: int) -> float:
    """How probable at least so uneven a split of the questions that one alone got right is, were it a coin's (McNemar 1947).

    The exact binomial form; where both are right or wrong together it says nothing, and p is 1.
    """
    from scipy.stats import binomtest

    odd = only_first + only_second
    return 1.0 if not odd else float(binomtest(only_first, odd, 0.5).pvalue)


def paired_shares(
    first: NDArray[np.bool_],
    second: NDArray[np.bool_],
    groups: Sequence[Hashable] | int | None = None,
    *,
    resamples: int = 1000,
    seed: int = 0,
) -> PairedShares:
    """From [n] of whether each was right, in the same order.

    Raises:
        ValueError: no questions, or not as many of the one as of the other.
    """
    if len(first) != len(second) or not len(first):
        raise ValueError(f"{len(first)} and {len(second)} answers are no pairs")
    gains = second.astype(np.float64) - first.astype(np.float64)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    return PairedShares(
        first=float(first.mean()),
        second=float(second.mean()),
        difference=float(gains.mean()),
        interval=bootstrap_interval(
            lambda drawn: float(gains[drawn].mean()),
            len(first) if groups is None else groups,
            resamples=resamples,
            seed=seed,
        ),
        p_value=mcnemar_p(only_first, only_second),
        only_first=only_first,
        only_second=only_second,
        n=len(first),
    )
