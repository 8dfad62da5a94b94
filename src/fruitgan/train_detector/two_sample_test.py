"""Classifier two-sample tests (C2ST): nested cross-validation of several detectors, and one permutation test of them all.

And changes of images (compression, blur, resizing, cropping, noise) that test how robust such a detector is.
"""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from fruitgan.images import Pixels, resize
from fruitgan.measures.statistics import MaximumTest, maximum_test
from fruitgan.networks.contracts import Detector, LinearDetector, detectors
from fruitgan.progress import OnProgress, Progress, silent
from fruitgan.randomness import generator
from fruitgan.registry import Choice
from fruitgan.train_detector.detector import LabelledImageDataset, squashed
from fruitgan.train_detector.fit import fit
from fruitgan.train_detector.protocols import Indices, Split
from fruitgan.train_detector.regression import cross_fitted, store
from fruitgan.train_detector.settings import FitSettings

AUGMENT = "part-mirror"
"""For detectors that take images of any size: a quarter of the work an epoch."""

Logits = NDArray[np.float64]
Truth = NDArray[np.bool_]
Prepare = Callable[[Pixels], Pixels]


class FittedCandidate(NamedTuple):
    detector: Detector
    prepare: Prepare
    """An image of any size to the detector's input."""
    val_loss: float
    """In nats; the lowest wins."""
    logits: Callable[[Indices], Logits]
    """Of the images with these numbers."""


@dataclass
class Candidate:
    """A detector that can be trained on any part of one set of images, with any labels."""

    name: str
    image_size_px: int
    fit: Callable[[Split, Truth], FittedCandidate]
    """Trains on `split.train` and selects by the loss on `split.val`, a regression on both (see `cross_fitted`); the labels are
    those of the whole set."""
    features: NDArray[np.float64] | None = None
    """[N, D] of the whole set, where it is a regression on these."""
    trained_on: str = ""
    """The data that the features' weights were trained on."""
    seconds: float = 0.0
    """Spent on training so far."""

    def learn(self, split: Split, generated: Truth) -> FittedCandidate:
        began = time.monotonic()
        fitted = self.fit(split, generated)
        self.seconds += time.monotonic() - began
        return fitted


def pixel_candidate(
    name: str, choice: Choice, dataset: LabelledImageDataset, settings: FitSettings, device: torch.device
) -> Candidate:
    """A detector that is trained on the images themselves."""
    with torch.device("meta"):
        network: Detector = detectors.build(choice)
    if network.takes_any_size:
        settings = replace(settings, augment=AUGMENT)

    def learn(split: Split, generated: Truth) -> FittedCandidate:
        labelled = replace(dataset, generated=generated)
        detector, best = fit(choice, labelled, split, settings, device)
        prepare = partial(squashed, side_px=network.image_size_px)
        return FittedCandidate(detector, prepare, best.val_loss, lambda indices: labelled.logits(detector, indices, device))

    return Candidate(name, network.image_size_px, learn)


def feature_candidate(
    name: str,
    build: Callable[[], LinearDetector],
    prepare: Prepare,
    features: NDArray[np.float64],
    groups: Sequence[str],
    device: torch.device,
    trained_on: str = "",
) -> Candidate:
    """A logistic regression on features that were computed once for all of its trainings.

    `build` gives a detector on these features, to be filled in.
    """

    def learn(split: Split, generated: Truth) -> FittedCandidate:
        regression, val_loss = cross_fitted(features, generated, groups, split)
        detector = build().to(device)
        store(detector, regression)
        return FittedCandidate(detector.eval(), prepare, val_loss, lambda indices: regression.logits(features[indices]))

    return Candidate(name, build().image_size_px, learn, features, trained_on)


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
    candidates: Sequence[Candidate], folds: Sequence[Split], generated: Truth, tell: OnProgress = silent, what: str = "detector"
) -> CrossValidation:
    """Nested cross-validation: in each fold the candidate with the lowest validation loss is chosen; all are tested.

    `tell` hears of each candidate that is about to be trained; the event is called `what` and its name.
    """
    judged = np.sort(np.concatenate([split.test for split in folds]))
    logits = {candidate.name: np.empty(len(judged)) for candidate in candidates}
    strongest, fold = np.empty(len(judged)), np.empty(len(judged), dtype=np.int64)
    chosen: list[str] = []
    winners: list[FittedCandidate] = []
    total = len(folds) * len(candidates)
    for number, split in enumerate(folds):
        rows = np.searchsorted(judged, split.test)
        best: tuple[Candidate, FittedCandidate] | None = None
        for turn, candidate in enumerate(candidates):
            tell(Progress(f"{what} {candidate.name}", number * len(candidates) + turn, total))
            fitted = candidate.learn(split, generated)
            logits[candidate.name][rows] = fitted.logits(split.test)
            if best is None or fitted.val_loss < best[1].val_loss:
                best = candidate, fitted  # the others' weights are let go
        assert best is not None
        chosen.append(best[0].name)
        winners.append(best[1])
        strongest[rows], fold[rows] = logits[best[0].name][rows], number
    tell(Progress(f"{what} {candidates[-1].name}", total, total))
    return CrossValidation(judged, logits, strongest, tuple(chosen), tuple(winners), fold)


def two_sample_test(
    candidates: Sequence[Candidate],
    split: Split,
    generated: Truth,
    groups: Sequence[str],
    seed: int,
    tell: OnProgress = silent,
    what: str = "testing",
) -> MaximumTest:
    """One permutation test of all candidates: trained on a half of the groups, they score the other, whose labels are permuted.

    In cross-validation each image trains the candidates that score the others, and labels permuted over such scores reject far
    too often; so one half trains and the other tests, and never the other way round.
    """
    scores, total = [], len(candidates)
    for number, candidate in enumerate(candidates):
        tell(Progress(f"{what} {candidate.name}", number, total))
        scores.append(candidate.learn(split, generated).logits(split.test))
    tell(Progress(f"{what} {candidates[-1].name}", total, total))
    return maximum_test(np.stack(scores), generated[split.test], [groups[i] for i in split.test], seed=seed)


@dataclass(frozen=True)
class Change:
    name: str
    amount: float
    apply: Callable[[Pixels, int], Pixels]
    """uint8 [H, W, 3] to the same (a crop is smaller); the number makes noise another for each image."""


def _jpeg(quality: float, pixels: Pixels, _: int) -> Pixels:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.array(Image.open(io.BytesIO(file.getvalue())))


def _blur(sigma_px: float, pixels: Pixels, _: int) -> Pixels:
    # Pillow blurs with three boxes, whose joint spread is that of the Gaussian.
    return np.array(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma_px)))


def _resize(scale: float, pixels: Pixels, _: int) -> Pixels:
    height, width = pixels.shape[:2]
    small = resize(pixels, round(scale * height), round(scale * width), Image.Resampling.BICUBIC)
    return resize(small, height, width, Image.Resampling.BICUBIC)


def _crop(share: float, pixels: Pixels, _: int) -> Pixels:
    height, width = (round(share * side) for side in pixels.shape[:2])
    top, left = (pixels.shape[0] - height) // 2, (pixels.shape[1] - width) // 2
    return pixels[top : top + height, left : left + width]


def _noise(sigma: float, pixels: Pixels, number: int) -> Pixels:
    noise = sigma * generator(0, number, "evaluation/noise").standard_normal(pixels.shape, dtype=np.float32)
    noisy: Pixels = np.rint(np.clip(pixels + noise, 0, 255)).astype(np.uint8)
    return noisy


CHANGES = (
    Change("none", 0, lambda pixels, _: pixels),
    *(Change("jpeg", quality, partial(_jpeg, quality)) for quality in (95, 75, 50, 30)),
    *(Change("blur", sigma_px, partial(_blur, sigma_px)) for sigma_px in (1, 2, 3)),
    *(Change("resize", scale, partial(_resize, scale)) for scale in (0.75, 0.5)),
    Change("crop", 0.875, partial(_crop, 0.875)),
    Change("noise", 4, partial(_noise, 4)),
)
"""Of the images at their own size, before the detector's resizing; the crop is what 224 px are of 256."""
