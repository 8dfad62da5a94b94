"""How surely, and how well, one property tells two kinds of images apart."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fruitgan import randomness
from fruitgan.measures.statistics import binomial_p

Truth = NDArray[np.bool_]
DEPTH = 3
FEWEST_IN_A_LEAF = 5


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A property's test."""

    p_value: float
    accuracy: float
    """Mean share of both kinds told right by who looks at this alone (on images that the rule was not made from)."""


def categories(values: Sequence[Hashable], generated: Truth) -> Rule:
    """A property without order: Fisher's exact test of its most telling value, times the number of values."""
    from scipy.stats import fisher_exact

    kinds = sorted(set(values), key=repr)
    if len(kinds) < 2:
        return Rule(p_value=1.0, accuracy=0.5)
    counts = np.array([[sum(v == kind for v in _of(values, side)) for kind in kinds] for side in (generated, ~generated)])
    totals = counts.sum(axis=1)
    place = int(np.argmax(np.abs(counts[0] / totals[0] - counts[1] / totals[1])))
    table = np.stack([counts[:, place], totals - counts[:, place]], axis=1)
    p_value = min(1.0, float(fisher_exact(table).pvalue) * len(kinds))
    codes = np.array([kinds.index(value) for value in values])
    return Rule(p_value=p_value, accuracy=_cross_validated(codes[:, None] == np.arange(len(kinds)), generated))


def numbers(values: Sequence[float], generated: Truth) -> Rule:
    """A property with order: Mann and Whitney's test."""
    from scipy.stats import mannwhitneyu

    column = np.asarray(values, dtype=np.float64)
    if np.ptp(column) == 0:
        return Rule(p_value=1.0, accuracy=0.5)
    p_value = float(mannwhitneyu(column[generated], column[~generated]).pvalue)
    return Rule(p_value=p_value, accuracy=_cross_validated(column[:, None], generated))


def table(columns: NDArray[np.float64], generated: Truth, seed: int = 0) -> Rule:
    """Many properties together, [n, D]: a small tree learns from one half, and its answers on the other half are counted."""
    order = randomness.permutation(seed, 0, len(generated), "leaks/halves")
    learn, judge = _balanced(order[: len(order) // 2], generated), _balanced(order[len(order) // 2 :], generated)
    if min(len(learn), len(judge)) < 2 * FEWEST_IN_A_LEAF:
        return Rule(p_value=1.0, accuracy=0.5)
    right = _tree(columns[learn], generated[learn]).predict(columns[judge]) == generated[judge]
    return Rule(p_value=binomial_p(int(right.sum()), len(judge)), accuracy=float(right.mean()))


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjusted so that any false alarm at all is as improbable as one of a single test (Holm 1979)."""
    order = np.argsort(p_values)
    adjusted = np.empty(len(p_values))
    highest = 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = highest
    return [float(value) for value in adjusted]


def _of(values: Sequence[Hashable], side: Truth) -> list[Hashable]:
    return [value for value, is_mine in zip(values, side, strict=True) if is_mine]


def _balanced(indices: NDArray[np.int64], generated: Truth) -> NDArray[np.int64]:
    """As many of each kind, in their order."""
    sides = [indices[generated[indices]], indices[~generated[indices]]]
    least = min(map(len, sides))
    return np.concatenate([side[:least] for side in sides])


def _cross_validated(columns: NDArray[np.generic], generated: Truth) -> float:
    """Balanced accuracy of a small tree in five folds."""
    from sklearn.metrics import balanced_accuracy_score
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    least = int(min(generated.sum(), (~generated).sum()))
    if least < 2:
        return 0.5
    folds = StratifiedKFold(min(5, least), shuffle=True, random_state=0)
    said = cross_val_predict(_model(), columns, generated, cv=folds)
    return float(balanced_accuracy_score(generated, said))


def _model() -> Any:
    from sklearn.tree import DecisionTreeClassifier

    return DecisionTreeClassifier(max_depth=DEPTH, min_samples_leaf=FEWEST_IN_A_LEAF, class_weight="balanced", random_state=0)


def _tree(columns: NDArray[np.float64], generated: Truth) -> Any:
    return _model().fit(columns, generated)
