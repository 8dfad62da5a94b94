"""One test for many attackers: can the strongest of them tell two kinds of images apart?"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fruitgan.randomness import generator

ALPHA = 0.001
PERMUTATIONS = 9999
CHUNK = 500
"""Permutations drawn at a time: a thousand images then take 20 MB."""

Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class MaximumTest:
    """What came out. With p at or below ALPHA the two kinds count as told apart."""

    p_value: float
    aucs: tuple[float, ...]
    """Of each attacker on the tested images."""
    permutations: int

    @property
    def rejects(self) -> bool:
        return self.p_value <= ALPHA


def maximum_test(
    scores: Scores,
    generated: Labels,
    groups: Sequence[Hashable],
    *,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> MaximumTest:
    """The probability of so high a largest AUC if the labels said nothing about the images (Westfall and Young 1993).

    The attackers must have been trained on *other* images. Then, if the two kinds do not differ, the labels of the tested
    images are exchangeable while their scores stay what they are, and the test is exact, however the attackers depend on each
    other: it rejects at p <= alpha with a probability of at most alpha (Phipson and Smyth 2010). Permuted are whole groups:
    each group takes over the labels of another of the same size, in a random order within it.

    Args:
        scores: [A, n], one row an attacker; higher means generated.
        generated: [n]; both kinds must occur.
        groups: of each image; images of one group show one thing.

    Raises:
        ValueError: one kind only.
    """
    positives = int(generated.sum())
    negatives = len(generated) - positives
    if not positives or not negatives:
        raise ValueError("a test needs images of both kinds")
    ranks = _ranks(scores)
    least = positives * (positives + 1) / 2

    def aucs(labels: NDArray[np.float64]) -> NDArray[np.float64]:
        """[B, n] of 0 and 1 to [B, A]: Mann and Whitney's U over the pairs."""
        found: NDArray[np.float64] = (labels @ ranks.T - least) / (positives * negatives)
        return found

    measured = aucs(generated[None].astype(np.float64))[0]
    random = generator(seed, 0, "evaluation/permutations")
    sizes = _by_size(groups)
    as_high = 0
    for start in range(0, permutations, CHUNK):
        labels = _permuted(generated, sizes, min(CHUNK, permutations - start), random)
        as_high += int((aucs(labels).max(axis=1) >= measured.max() - 1e-12).sum())  # ties count against the attackers
    return MaximumTest(
        p_value=(1 + as_high) / (1 + permutations), aucs=tuple(float(auc) for auc in measured), permutations=permutations
    )


def _ranks(scores: Scores) -> Scores:
    from scipy.stats import rankdata

    return np.asarray(rankdata(scores, axis=1), dtype=np.float64)


def _by_size(groups: Sequence[Hashable]) -> list[NDArray[np.int64]]:
    """For each size of groups that occurs the positions of their images, [groups, size]."""
    members: dict[Hashable, list[int]] = {}
    for position, group in enumerate(groups):
        members.setdefault(group, []).append(position)
    by_size: dict[int, list[list[int]]] = {}
    for positions in members.values():
        by_size.setdefault(len(positions), []).append(positions)
    return [np.array(by_size[size], dtype=np.int64) for size in sorted(by_size)]


def _permuted(
    generated: Labels, sizes: Sequence[NDArray[np.int64]], count: int, random: np.random.Generator
) -> NDArray[np.float64]:
    """[count, n] of 0 and 1."""
    labels = np.empty((count, len(generated)))
    for positions in sizes:
        groups, size = positions.shape
        order = random.random((count, groups)).argsort(axis=1)  # [count, groups]: whose labels each group takes over
        taken = generated[positions][order]  # [count, groups, size]
        if size > 1:
            within = random.random(taken.shape).argsort(axis=2)
            taken = np.take_along_axis(taken, within, axis=2)
        labels[:, positions.ravel()] = taken.reshape(count, -1)
    return labels
