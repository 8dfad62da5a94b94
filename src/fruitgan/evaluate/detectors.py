"""Detectors trained for an evaluation (a C2ST): nested cross-validation, the one test, robustness, and depth."""

from __future__ import annotations

import os
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fruitgan import randomness
from fruitgan.data.labelled import LabelledImage
from fruitgan.errors import UsageError
from fruitgan.evaluate.results import DetectorResult, Row
from fruitgan.evaluate.settings import ALL, NETWORK_FAMILIES, Tell
from fruitgan.images import Pixels
from fruitgan.measures.contracts import Features, squashing
from fruitgan.measures.features import Pictures, extract
from fruitgan.measures.statistics import auc, auc_interval, placements
from fruitgan.networks.contracts import Detector, LinearDetector, detectors
from fruitgan.parallel import in_order
from fruitgan.progress import Progress
from fruitgan.train_detector import two_sample_test as c2st
from fruitgan.train_detector.calibration import average_precision, calibration, judge, roc_points
from fruitgan.train_detector.detector import (
    BATCH_SIZE,
    LabelledImageDataset,
    answers,
    choose_detector,
    open_image_dataset,
    sizes_of,
    squashed,
)
from fruitgan.train_detector.protocols import Indices, grouped_folds, half_split
from fruitgan.train_detector.regression import Logistic, cross_fitted, features_of, finite, logistic
from fruitgan.train_detector.settings import FitSettings
from fruitgan.train_detector.two_sample_test import CHANGES, Candidate, CrossValidation, Logits, Truth

FOLDS = 5
QUICK_FOLDS = 3
EPOCHS = 20
PATIENCE = 6
QUICK_DETECTORS = ("spectrum", "npr", "efficientnet-lite1", "logistic")
DEFAULT_DETECTORS = (*QUICK_DETECTORS, "small-cnn")
"""Those that finish in minutes on a CPU."""
CHANGED = 100
"""Test images of each class that are changed: the intervals of the rows are then 5 points to each side or less at 85%."""
SHARES = (0.125, 0.25, 0.5, 1.0)
"""Of the training images, for the learning curve."""
LEAST_PART = 4
"""Images of each class in the smallest part."""
ROC_FALSE = np.linspace(0, 1, 51)
"""The shares of real images taken for generated at which the folds' ROC curves are averaged (Fawcett 2006, section 8.1)."""


def detectors_named(names: Sequence[str], quick: bool) -> tuple[str, ...]:
    """The names meant: none stands for the default, `all` for every registered detector.

    Raises:
        UsageError: an unknown name, or one twice.
    """
    if not names:
        return QUICK_DETECTORS if quick else DEFAULT_DETECTORS
    if ALL in names:
        if len(names) > 1:
            raise UsageError(f"--attackers {','.join(names)}: {ALL} stands alone")
        rest = [name for name in detectors.names() if name not in (*DEFAULT_DETECTORS, *NETWORK_FAMILIES)]
        return (*DEFAULT_DETECTORS, *rest)
    for name in names:
        detectors.owner(name)
    if len(set(names)) < len(names):
        raise UsageError(f"--attackers {','.join(names)}: one of them is named twice")
    return tuple(names)


def fold_mean(statistic: Callable[[Logits, Truth], Any], logits: Logits, generated: Truth, fold: Indices) -> Any:
    """Mean of a number, or of a row of them, over the folds: each had a detector, and so a scale of logits, of its own.

    Folds without images of both classes count for nothing.

    Raises:
        ValueError: no fold has both.
    """
    parts = [fold == number for number in np.unique(fold)]
    values = [statistic(logits[part], generated[part]) for part in parts if len(set(generated[part])) == 2]
    if not values:
        raise ValueError("no fold has images of both classes")
    return np.mean(values, axis=0).tolist()


def result_of(
    logits: Logits, images: Sequence[LabelledImage], fold: Indices, *, p_value: float, began: float, **named: Any
) -> DetectorResult:
    """All numbers of the logits [n] that the detectors of each fold gave its images.

    `began` is when they were, by the monotonic clock; `named` are the result's name, protocol, image_size_px and resize.
    """
    generated, groups = np.array([image.generated for image in images]), [image.group for image in images]
    pooled = calibration(logits, generated)
    roc = fold_mean(lambda z, truth: np.interp(ROC_FALSE, *roc_points(z, truth)), logits, generated, fold)
    area, placed = fold_mean(auc, logits, generated, fold), np.empty(len(logits))
    for part in (fold == number for number in np.unique(fold)):
        placed[part] = placements(logits[part], generated[part])
    return DetectorResult(
        **vars(judge(logits, generated, groups)) | {"p_value": p_value, "auc": area},
        **named,
        auc_interval=auc_interval(area, placed, generated, groups),
        average_precision=fold_mean(average_precision, logits, generated, fold),
        calibration=replace(pooled, error=fold_mean(lambda z, truth: calibration(z, truth).error, logits, generated, fold)),
        roc=tuple(roc),
        seconds=round(time.monotonic() - began, 3),
    )


def scores(logits: Logits, generated: Truth, fold: Indices, groups: Sequence[str]) -> Row:
    """Accuracy with its interval over all images, and AUC as the mean over the folds."""
    verdict = judge(logits, generated, groups)
    return {"accuracy": verdict.accuracy, "interval": verdict.interval, "auc": fold_mean(auc, logits, generated, fold)}


def judged_images(images: Sequence[LabelledImage], logits: Logits) -> list[Row]:
    """The detector's answer on each image."""
    pairs = zip(images, logits, strict=True)
    return [{"file": image.path.name, "generated": image.generated, "logit": float(logit)} for image, logit in pairs]


@dataclass
class TwoSampleTest:
    """A set of images and the detectors to train on it."""

    images: Sequence[LabelledImage]
    names: Sequence[str]
    device: torch.device
    seed: int
    quick: bool
    tell: Tell
    backends: Sequence[Features] = ()
    """What `logistic` looks at, each for itself; features that were computed before come from the cache."""
    pictures: Pictures = field(default_factory=Pictures)

    def __post_init__(self) -> None:
        self.datasets: dict[int, LabelledImageDataset] = {}
        self.resizes: dict[str, str] = {}
        """By a detector's name, how every image is brought to its size."""
        self.strides: dict[str, dict[int, slice]] = {}
        """By the name of a detector on a backbone, where each stride's features stand."""
        self.sizes = sizes_of(self.images)
        self.generated = np.array([image.generated for image in self.images])
        self.groups = [image.group for image in self.images]

    def detectors(self) -> list[Candidate]:
        """One a name, and of `logistic` one a backend.

        Raises:
            UsageError: a detector that does not take images of their size.
            DataError: an image cannot be decoded.
            FruitganError: features are not finite.
        """
        found: list[Candidate] = []
        for name in self.names:
            if detectors.get(name) is logistic:
                others = [backend for backend in self.backends if backend.name not in self.names]
                found += [self._on_backend(f"{name}:{backend.name}", backend) for backend in others]
            else:
                found.append(self._on_pixels(name))
        return found

    def _on_backend(self, name: str, backend: Features) -> Candidate:
        paths = [image.path for image in self.images]
        label = f"features {backend.name}"
        seen = extract(backend, paths, self.device, what=label, tell=self.tell, read=self.pictures)
        self.resizes[name] = backend.resize
        if columns := getattr(backend, "columns", None):
            self.strides[name] = columns()
        values, build = finite(seen.values, name), lambda: Logistic(backend)
        return c2st.feature_candidate(name, build, backend.prepare, values, self.groups, self.device, backend.trained_on)

    def _on_pixels(self, name: str) -> Candidate:
        choice = choose_detector(name, {}, None, self.sizes)
        with torch.device("meta"):
            network: Detector = detectors.build(choice)
        if isinstance(network, Logistic):  # its features come from the cache; those asked for may have weights of the user's
            asked = [backend for backend in self.backends if backend.name == network.backend.name]
            return self._on_backend(name, asked[0] if asked else detectors.build(choice).backend)
        size_px = network.image_size_px
        self.resizes[name] = squashing(size_px)
        if size_px not in self.datasets:
            what, how = f"reading at {size_px} px", self.pictures.how
            self.datasets[size_px] = open_image_dataset(self.images, size_px, how=how, what=what, tell=self.tell)
        dataset = self.datasets[size_px]
        if not isinstance(network, LinearDetector):
            fitting = FitSettings(epochs=EPOCHS, patience=PATIENCE, seed=self.seed)
            return c2st.pixel_candidate(name, choice, dataset, fitting, self.device)
        everything, built = np.arange(len(dataset), dtype=np.int64), detectors.build(choice).to(self.device)
        told = partial(Progress, f"features {name}", total=len(dataset))
        seen = features_of(built, dataset, everything, self.device, on_done=lambda count: self.tell(told(count)))
        build, prepare = partial(detectors.build, choice), partial(squashed, side_px=size_px)
        return c2st.feature_candidate(name, build, prepare, seen, self.groups, self.device)

    def cross_validate(self, trained: Sequence[Candidate]) -> tuple[DetectorResult, list[Row], CrossValidation]:
        """The strongest by nested grouped cross-validation, all of them in the same folds, and the one test.

        Raises:
            DataError: too few different things.
        """
        began = time.monotonic()
        self.folds = folds = grouped_folds(self.images, QUICK_FOLDS if self.quick else FOLDS, self.seed)
        found = c2st.cross_validation(trained, folds, self.generated, self.tell)
        half = half_split(self.images, self.seed)
        test = c2st.two_sample_test(trained, half, self.generated, self.groups, self.seed, self.tell)
        truth, groups = self._truth(found)
        detector = result_of(
            found.strongest,
            [self.images[i] for i in found.judged],
            found.fold,
            name=found.name,
            protocol=f"trained here in {len(folds)} folds by source image; in each fold the detector of the lowest loss on "
            "inner validation images classified the outer ones, which had taught it nothing; classes balanced",
            image_size_px=next(one.image_size_px for one in trained if one.name == found.name),
            resize=self.resizes[found.name],
            p_value=test.p_value,
            began=began,
        )
        rows = [
            {"name": one.name, **scores(found.logits[one.name], truth, found.fold, groups)}
            | {"image_size_px": one.image_size_px, "resize": self.resizes[one.name], "held_out_auc": held_out_auc}
            | {"chosen_folds": found.chosen.count(one.name), "seconds": round(one.seconds, 3), "trained_on": one.trained_on}
            for one, held_out_auc in zip(trained, test.aucs, strict=True)
        ]
        return detector, rows, found

    def robustness(self, found: CrossValidation) -> list[Row]:
        """Up to `CHANGED` test images of each class after each change, each before the detector of its fold.

        Raises:
            DataError: an image cannot be decoded.
        """
        truth, groups = self._truth(found)
        kinds = [np.flatnonzero(truth == label) for label in (False, True)]
        kept = [rows[randomness.permutation(self.seed, 0, len(rows), "evaluate/robustness")[:CHANGED]] for rows in kinds]
        chosen = np.sort(np.concatenate(kept))
        logits = np.empty((len(CHANGES), len(chosen)))
        done = 0
        for number, winner in enumerate(found.winners):
            rows = np.flatnonzero(found.fold[chosen] == number)
            for start in range(0, len(rows), BATCH_SIZE):
                piece = rows[start : start + BATCH_SIZE]
                paths = [self.images[found.judged[chosen[row]]].path for row in piece]
                seen = [changed for _, changed in in_order(partial(self._changed, prepare=winner.prepare), paths)]
                for place in range(len(CHANGES)):
                    logits[place, piece] = answers(winner.detector, [changed[place] for changed in seen], self.device)
                done += len(piece)
                self.tell(Progress("robustness", done, len(chosen)))
        truth, fold, groups = truth[chosen], found.fold[chosen], [groups[i] for i in chosen]
        results = []
        for change, row in zip(CHANGES, logits, strict=True):
            # Of a change of one class alone a detector that is biased to it makes much: it takes the change for the class.
            one_sided = [judge(np.where(truth == label, row, logits[0]), truth).accuracy for label in (False, True)]
            results.append(
                {"name": found.name, "change": change.name, "amount": change.amount, **scores(row, truth, fold, groups)}
                | {"accuracy_reals_changed": one_sided[0], "accuracy_generated_changed": one_sided[1]}
                | {"average_precision": fold_mean(average_precision, row, truth, fold), "n": len(truth)}
            )
        return results

    def learning_curve(self, trained: Sequence[Candidate], found: CrossValidation) -> list[Row]:
        """The strongest detector in the same folds, trained on parts of their training images, and on all of them."""
        strongest = next(one for one in trained if one.name == found.name)
        truth, groups = self._truth(found)
        rows = []
        for share in SHARES:
            folds = [
                replace(split, train=self._part(split.train, share), val=self._part(split.val, share)) for split in self.folds
            ]
            logits = found.logits[found.name]
            if share < 1:
                what = f"{share:.0%} of the training images:"
                logits = c2st.cross_validation([strongest], folds, self.generated, self.tell, what).logits[found.name]
            images = round(np.mean([len(split.train) + len(split.val) for split in folds]))
            rows.append({"name": found.name, "n_training": images, **scores(logits, truth, found.fold, groups)})
        return rows

    def by_depth(self, trained: Sequence[Candidate], found: CrossValidation) -> list[Row]:
        """A regression, in the same folds, on a backbone's features of one stride at a time: what gives the images away."""
        (truth, groups), rows = self._truth(found), list[Row]()
        for candidate in trained:
            for stride, part in self.strides.get(candidate.name, {}).items():
                assert candidate.features is not None
                seen, logits = candidate.features[:, part], np.empty(len(truth))
                for number, split in enumerate(self.folds):
                    regression, _ = cross_fitted(seen, self.generated, self.groups, split)
                    logits[found.fold == number] = regression.logits(seen[split.test])
                    self.tell(Progress(f"{candidate.name} at stride {stride}", number + 1, len(self.folds)))
                rows.append({"name": candidate.name, "stride": stride, **scores(logits, truth, found.fold, groups)})
        return rows

    def _truth(self, found: CrossValidation) -> tuple[Truth, list[str]]:
        """Whether each judged image is generated, and its group."""
        return self.generated[found.judged], [self.groups[i] for i in found.judged]

    def _part(self, indices: Indices, share: float) -> Indices:
        """This share of the images of each class, group by group in random order."""
        order = sorted(indices, key=lambda i: (zlib.crc32(f"{self.seed} {self.groups[i]}".encode()), i))
        kinds = [[i for i in order if self.generated[i] == label] for label in (False, True)]
        return np.sort(np.concatenate([kind[: max(LEAST_PART, round(share * len(kind)))] for kind in kinds]))

    def _changed(self, path: Path, prepare: Callable[[Pixels], Pixels]) -> list[Pixels]:
        """The picture after every change, as the detector wants it."""
        pixels = self.pictures(path)
        number = zlib.crc32(os.fsencode(path.name))
        return [prepare(change.apply(pixels, number)) for change in CHANGES]
