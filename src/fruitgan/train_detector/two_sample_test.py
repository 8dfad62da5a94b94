"""Classifier two-sample tests (C2ST): nested cross-validation of several detectors, and one permutation test of them all."""

from __future__ import annotations

import time
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
from fruitgan.train_detector.fit import fit
from fruitgan.train_detector.protocols import Indices, Split
from fruitgan.train_detector.regression import store, trials
from fruitgan.train_detector.settings import FitSettings

AUGMENT = "part-mirror"
"""For detectors that take images of any size: a quarter of the work an epoch."""

Logits = NDArray[np.float64]
Truth = NDArray[np.bool_]
Prepare = Callable[[Pixels], Pixels]
OnFit = Callable[[str, int, int], None]
"""Called with the name of the detector that is about to be trained, how many trainings are done, and how many there are."""


@dataclass(frozen=True)
class FittedCandidate:
    """A trained candidate."""

    detector: Detector
    prepare: Prepare
    """An image of any size to the detector's input."""
    val_loss: float
    """In nats; the lowest wins."""
    logits: Callable[[Indices], Logits]
    """Of the images with these numbers."""


@dataclass
class PixelCandidate:
    """A detector that is trained on the images themselves."""

    name: str
    choice: Choice
    dataset: LabelledImageDataset
    settings: FitSettings
    device: torch.device
    seconds: float = 0.0
    """Spent on training so far."""
    trained_on: str = ""

    def __post_init__(self) -> None:
        with torch.device("meta"):
            network: Detector = detectors.build(self.choice)
        if network.takes_any_size:
            self.settings = replace(self.settings, augment=AUGMENT)
        self.image_size_px = network.image_size_px

    def learn(self, split: Split, generated: Truth) -> FittedCandidate:
        """Train on `split.train`, select by the loss on `split.val`; `generated` are the labels of the whole set."""
        began = time.monotonic()
        dataset = replace(self.dataset, generated=generated)
        detector, best = fit(self.choice, dataset, split, self.settings, self.device)
        self.seconds += time.monotonic() - began
        return FittedCandidate(
            detector,
            partial(squashed, side_px=self.image_size_px),
            best.val_loss,
            lambda indices: dataset.logits(detector, indices, self.device),
        )


@dataclass
class FeatureCandidate:
    """A logistic regression on features that were computed once for all of its trainings."""

    name: str
    build: Callable[[], LinearDetector]
    """Gives a detector on these features, to be filled in."""
    prepare: Prepare
    features: NDArray[np.float64]
    """[N, D], of the whole set."""
    device: torch.device
    trained_on: str = ""
    """The data that the features' weights were trained on."""
    seconds: float = 0.0
    """Spent on fitting so far."""

    def __post_init__(self) -> None:
        self.image_size_px = self.build().image_size_px

    def learn(self, split: Split, generated: Truth) -> FittedCandidate:
        """As `PixelCandidate.learn`."""
        began = time.monotonic()
        seen = self.features
        best = min(
            trials(seen[split.train], generated[split.train], seen[split.val], generated[split.val]),
            key=lambda trial: trial.round.val_loss,
        )
        detector = self.build().to(self.device)
        store(detector, best.regression)
        self.seconds += time.monotonic() - began
        return FittedCandidate(
            detector.eval(), self.prepare, best.round.val_loss, lambda indices: best.regression.logits(seen[indices])
        )


Candidate = PixelCandidate | FeatureCandidate
"""A detector that can be trained on any part of one set of images, with any labels."""


@dataclass(frozen=True)
class CrossValidation:
    """Held-out logits: n images, each tested once, by candidates that were trained on nothing of its group."""

    judged: Indices
    """[n] numbers of images, ascending."""
    logits: dict[str, Logits]
    """[n] by candidate."""
    strongest: Logits
    """[n]: of the candidate that was chosen in each image's fold."""
    chosen: tuple[str, ...]
    """By fold."""
    winners: tuple[FittedCandidate, ...]
    """By fold."""
    fold: Indices
    """[n]: the fold in which each image was tested."""

    @property
    def name(self) -> str:
        """The candidate that was chosen most often; of several the first."""
        return max(self.logits, key=self.chosen.count)


def cross_validation(
    candidates: Sequence[Candidate], folds: Sequence[Split], generated: Truth, on_fit: OnFit = lambda *_: None
) -> CrossValidation:
    """Nested cross-validation: in each fold the candidate with the lowest validation loss is chosen; all are tested."""
    judged = np.sort(np.concatenate([split.test for split in folds]))
    place = {int(index): position for position, index in enumerate(judged)}
    logits = {candidate.name: np.empty(len(judged)) for candidate in candidates}
    strongest, fold = np.empty(len(judged)), np.empty(len(judged), dtype=np.int64)
    chosen: list[str] = []
    winners: list[FittedCandidate] = []
    total = len(folds) * len(candidates)
    for number, split in enumerate(folds):
        rows = np.array([place[int(index)] for index in split.test])
        best: tuple[Candidate, FittedCandidate] | None = None
        for turn, candidate in enumerate(candidates):
            on_fit(candidate.name, number * len(candidates) + turn, total)
            fitted = candidate.learn(split, generated)
            logits[candidate.name][rows] = fitted.logits(split.test)
            if best is None or fitted.val_loss < best[1].val_loss:
                best = candidate, fitted  # the others' weights are let go
        assert best is not None
        chosen.append(best[0].name)
        winners.append(best[1])
        strongest[rows], fold[rows] = logits[best[0].name][rows], number
    on_fit(candidates[-1].name, total, total)
    return CrossValidation(judged, logits, strongest, tuple(chosen), tuple(winners), fold)


def two_sample_test(
    candidates: Sequence[Candidate],
    split: Split,
    generated: Truth,
    groups: Sequence[str],
    seed: int,
    on_fit: OnFit = lambda *_: None,
) -> MaximumTest:
    """One permutation test of all candidates: trained on a half of the groups, they score the other, whose labels are permuted.

    In cross-validation each image trains the candidates that score the others, and labels permuted over such scores reject far
    too often; so one half trains and the other tests, and never the other way round.
    """
    scores = []
    for number, candidate in enumerate(candidates):
        on_fit(candidate.name, number, len(candidates))
        scores.append(candidate.learn(split, generated).logits(split.test))
    on_fit(candidates[-1].name, len(candidates), len(candidates))
    return maximum_test(np.stack(scores), generated[split.test], [groups[i] for i in split.test], seed=seed)
