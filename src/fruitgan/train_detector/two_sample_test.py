"""Several detectors as attackers of one set of images: the strongest is chosen on inner images and judged on outer ones."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from fruitgan.images import Pixels
from fruitgan.measures.statistics import MaximumTest, maximum_test
from fruitgan.networks.contracts import Detector, LinearDetector, detectors
from fruitgan.registry import Choice
from fruitgan.train_detector.detector import LabelledImageDataset, squashed
from fruitgan.train_detector.fit import FitSettings, fit
from fruitgan.train_detector.protocols import Indices, Split
from fruitgan.train_detector.regression import store, trials

PARTS = "part-mirror"
"""How those are trained that can be: a quarter of the work an epoch."""

Logits = NDArray[np.float64]
Truth = NDArray[np.bool_]
Prepare = Callable[[Pixels], Pixels]
OnFit = Callable[[str, int, int], None]
"""Told of an attacker that is about to be trained, and the how manieth of how many trainings it is."""


@dataclass(frozen=True)
class FittedCandidate:
    """A trained attacker."""

    detector: Detector
    prepare: Prepare
    """A picture of any size as the detector wants it."""
    val_loss: float
    """Of the choosing images, in nats; the lowest wins."""
    logits: Callable[[Indices], Logits]
    """Of the images with these numbers."""


class Candidate(ABC):
    """Who can learn from any part of one set of images, and with any labels."""

    name: str
    image_size_px: int
    seconds: float = 0.0
    """Spent so far."""

    def learn(self, parts: Split, generated: Truth) -> FittedCandidate:
        """Train on `parts.train`, and stop or choose by `parts.val`; `generated` are the labels of the whole set."""
        began = time.monotonic()
        learned = self._learn(parts, generated)
        self.seconds += time.monotonic() - began
        return learned

    @abstractmethod
    def _learn(self, parts: Split, generated: Truth) -> FittedCandidate: ...


@dataclass
class PixelCandidate(Candidate):
    """A detector that is trained on an album's pictures."""

    name: str
    choice: Choice
    album: LabelledImageDataset
    settings: FitSettings
    device: torch.device

    def __post_init__(self) -> None:
        with torch.device("meta"):
            network: Detector = detectors.build(self.choice)
        if network.takes_any_size:
            self.settings = replace(self.settings, augment=PARTS)
        self.image_size_px = network.image_size_px

    def _learn(self, parts: Split, generated: Truth) -> FittedCandidate:
        album = self.album.labelled(generated)
        fitted = fit(self.choice, album, parts, self.settings, device=self.device)
        return FittedCandidate(
            fitted.detector,
            partial(squashed, side_px=self.image_size_px),
            fitted.best.val_loss,
            lambda indices: fitted.logits(album, indices),
        )


@dataclass
class FeatureCandidate(Candidate):
    """A logistic regression on features that were computed once for all of its trainings."""

    name: str
    build: Callable[[], LinearDetector]
    """Gives a detector on these features, to be filled in."""
    prepare: Prepare
    features: NDArray[np.float64]
    """[N, D], of the whole set."""
    device: torch.device

    def __post_init__(self) -> None:
        self.image_size_px = self.build().image_size_px

    def _learn(self, parts: Split, generated: Truth) -> FittedCandidate:
        seen = self.features
        best = min(
            trials(seen[parts.train], generated[parts.train], seen[parts.val], generated[parts.val]),
            key=lambda trial: trial.val_loss,
        )
        detector = self.build().to(self.device)
        store(detector, best.regression)
        return FittedCandidate(
            detector.eval(), self.prepare, best.val_loss, lambda indices: best.regression.logits(seen[indices])
        )


@dataclass(frozen=True)
class CrossValidation:
    """Who attacked how well. n images are judged, each once, by attackers that saw nothing of its group."""

    judged: Indices
    """[n] numbers of images, ascending."""
    logits: dict[str, Logits]
    """[n] by attacker."""
    strongest: Logits
    """[n]: of the attacker that was chosen in each image's fold."""
    chosen: tuple[str, ...]
    """By fold."""
    winners: tuple[FittedCandidate, ...]
    """By fold."""
    fold: Indices
    """[n]: the fold that judged each image."""

    @property
    def name(self) -> str:
        """The attacker that was chosen most often; of several the first."""
        return max(self.logits, key=self.chosen.count)


def cross_validation(
    attackers: Sequence[Candidate], folds: Sequence[Split], generated: Truth, on_fit: OnFit | None = None
) -> CrossValidation:
    """Train every attacker in every fold; there the lowest loss on the choosing images says which is the strongest."""
    judged = np.sort(np.concatenate([parts.test for parts in folds]))
    place = {int(index): position for position, index in enumerate(judged)}
    logits = {attacker.name: np.empty(len(judged)) for attacker in attackers}
    strongest, fold = np.empty(len(judged)), np.empty(len(judged), dtype=np.int64)
    chosen: list[str] = []
    winners: list[FittedCandidate] = []
    total = len(folds) * len(attackers)
    for number, parts in enumerate(folds):
        rows = np.array([place[int(index)] for index in parts.test])
        best: tuple[Candidate, FittedCandidate] | None = None
        for attacker in attackers:
            if on_fit is not None:
                on_fit(attacker.name, number * len(attackers) + attackers.index(attacker), total)
            learned = attacker.learn(parts, generated)
            logits[attacker.name][rows] = learned.logits(parts.test)
            if best is None or learned.val_loss < best[1].val_loss:
                best = attacker, learned  # the others' weights are let go
        assert best is not None
        chosen.append(best[0].name)
        winners.append(best[1])
        strongest[rows], fold[rows] = logits[best[0].name][rows], number
    if on_fit is not None:
        on_fit(attackers[-1].name, total, total)
    return CrossValidation(judged, logits, strongest, tuple(chosen), tuple(winners), fold)


def two_sample_test(
    attackers: Sequence[Candidate],
    half: Split,
    generated: Truth,
    groups: Sequence[str],
    seed: int,
    on_fit: OnFit | None = None,
) -> MaximumTest:
    """The one test of all attackers: trained on one half of the groups, each judges the other, whose labels are permuted.

    In cross-validation each image teaches the attackers that judge the others, and labels permuted over such scores reject far
    too often; so one half teaches and the other judges, and never the other way round.
    """
    scores = []
    for number, attacker in enumerate(attackers):
        if on_fit is not None:
            on_fit(attacker.name, number, len(attackers))
        scores.append(attacker.learn(half, generated).logits(half.test))
    if on_fit is not None:
        on_fit(attackers[-1].name, len(attackers), len(attackers))
    return maximum_test(np.stack(scores), generated[half.test], [groups[i] for i in half.test], seed=seed)
