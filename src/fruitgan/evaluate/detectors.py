"""The attackers of an evaluation: controls first, then the contest, then the one test of whether anything was told apart."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import torch

from fruitgan.data.labelled import LabelledImage
from fruitgan.errors import DataError, UsageError
from fruitgan.evaluate.detector_results import AttackerResult, DetectorResult, JudgedImage, judged_images, result_of
from fruitgan.measures.contracts import Features
from fruitgan.measures.features import Pictures, extract
from fruitgan.measures.statistics import MaximumTest
from fruitgan.networks.contracts import Detector, LinearDetector, detectors
from fruitgan.train_detector.calibration import balanced_accuracy, judge
from fruitgan.train_detector.detector import (
    BATCH_SIZE,
    LabelledImageDataset,
    choose_detector,
    open_image_dataset,
    sizes_of,
    squashed,
)
from fruitgan.train_detector.fit import FitSettings
from fruitgan.train_detector.protocols import grouped_folds, half_split
from fruitgan.train_detector.regression import Logistic, features_of, finite, logistic
from fruitgan.train_detector.two_sample_test import (
    Candidate,
    CrossValidation,
    FeatureCandidate,
    PixelCandidate,
    cross_validation,
    two_sample_test,
)

FOLDS = 5
QUICK_FOLDS = 3
EPOCHS = 20
PATIENCE = 6
LEAST_PER_CLASS = 10
DEFAULT_ATTACKERS = ("spectrum", "logistic", "small-cnn")
"""Those that finish in minutes on a CPU."""
QUICK_ATTACKERS = ("spectrum", "logistic")
ALL = "all"
FAMILIES = ("torchvision", "timm")
"""Named with a network of theirs, or not at all."""

OnStep = Callable[[str, int, int], None]


def attackers_named(names: Sequence[str], quick: bool) -> tuple[str, ...]:
    """The names meant: none stands for the default, `all` for every registered detector.

    Raises:
        UsageError: an unknown name, or one twice.
    """
    if not names:
        return QUICK_ATTACKERS if quick else DEFAULT_ATTACKERS
    if ALL in names:
        if len(names) > 1:
            raise UsageError(f"--attackers {','.join(names)}: {ALL} stands alone")
        rest = [name for name in detectors.names() if name not in (*DEFAULT_ATTACKERS, *FAMILIES)]
        return (*DEFAULT_ATTACKERS, *rest)
    for name in names:
        detectors.owner(name)
    if len(set(names)) < len(names):
        raise UsageError(f"--attackers {','.join(names)}: one of them is named twice")
    return tuple(names)


def need(images: Sequence[LabelledImage], least: int = LEAST_PER_CLASS) -> str | None:
    """What is missing for a detector to be trained here; None if nothing is."""
    counts = Counter(image.generated for image in images)
    if min(counts[True], counts[False]) >= least:
        return None
    return (
        f"a detector trained on the spot needs at least {least} images of each class, "
        f"found {counts[True]} generated and {counts[False]} real ones"
    )


@dataclass
class Attacking:
    """A set of images and who attacks it. Use as `with`: the decoded images are let go at its end."""

    images: Sequence[LabelledImage]
    names: Sequence[str]
    device: torch.device
    seed: int
    quick: bool
    tell: OnStep
    backends: Sequence[Features] = ()
    """What `logistic` looks at, each for itself; features that were computed before come from the cache."""
    pictures: Pictures = field(default_factory=Pictures)

    def __enter__(self) -> Attacking:
        self.stack = ExitStack()
        self.fitting = FitSettings(epochs=EPOCHS, patience=PATIENCE, seed=self.seed)
        self.sizes = sizes_of(self.images)
        return self

    def __exit__(self, *error: object) -> None:
        self.stack.close()

    def attackers(self, images: Sequence[LabelledImage]) -> list[Candidate]:
        """One a name, and of `logistic` one a backend, on these images.

        Raises:
            UsageError: a detector that does not take images of their size.
            DataError: an image cannot be decoded.
            FruitganError: features are not finite.
        """
        albums: dict[int, LabelledImageDataset] = {}
        found: list[Candidate] = []
        for name in self.names:
            if detectors.get(name) is logistic:
                found += [self._on_backend(f"{name}:{backend.name}", backend, images) for backend in self.backends]
            else:
                found.append(self._on_pixels(name, images, albums))
        return found

    def _on_backend(self, name: str, backend: Features, images: Sequence[LabelledImage]) -> FeatureCandidate:
        paths = [image.path for image in images]
        label = f"features {backend.name}"
        seen = extract(backend, paths, self.device, lambda done: self.tell(label, done, len(paths)), read=self.pictures)
        return FeatureCandidate(
            name, lambda: Logistic(backend.name, backend), backend.prepare, finite(seen.values, name), self.device
        )

    def _on_pixels(self, name: str, images: Sequence[LabelledImage], albums: dict[int, LabelledImageDataset]) -> Candidate:
        """`albums` are those of these images that are open already, by their size."""
        choice = choose_detector(name, {}, None, self.sizes)
        with torch.device("meta"):
            network: Detector = detectors.build(choice)
        size_px = network.image_size_px
        if size_px not in albums:
            albums[size_px] = self.stack.enter_context(
                open_image_dataset(images, size_px, on_progress=partial(self.tell, f"reading at {size_px} px"))
            )
            if albums[size_px].broken:
                path, reason = albums[size_px].broken[0]
                raise DataError(f"{path}: {reason}")
        album = albums[size_px]
        if not isinstance(network, LinearDetector):
            return PixelCandidate(name, choice, album, self.fitting, self.device)
        everything = np.arange(len(album), dtype=np.int64)
        seen = features_of(detectors.build(choice).to(self.device), album, everything, self.device, BATCH_SIZE)
        return FeatureCandidate(name, lambda: detectors.build(choice), partial(squashed, side_px=size_px), seen, self.device)

    def contest(self, attackers: Sequence[Candidate]) -> tuple[DetectorResult, tuple[AttackerResult, ...], CrossValidation]:
        """The strongest by nested grouped cross-validation, all of them in the same folds, and the one test.

        Raises:
            DataError: too few different things.
        """
        began = time.monotonic()
        images = self.images
        generated = np.array([image.generated for image in images])
        groups = [image.group for image in images]
        folds = grouped_folds(images, QUICK_FOLDS if self.quick else FOLDS, self.seed)
        found = cross_validation(
            attackers, folds, generated, lambda name, done, total: self.tell(f"detector {name}", done, total)
        )
        test = two_sample_test(
            attackers,
            half_split(images, self.seed),
            generated,
            groups,
            self.seed,
            lambda name, done, total: self.tell(f"testing {name}", done, total),
        )
        truth = generated[found.judged]
        size_px = next(attacker.image_size_px for attacker in attackers if attacker.name == found.name)
        chosen = {name: found.chosen.count(name) for name in found.logits}
        protocol = (
            f"trained here in {len(folds)} folds by source image, each judging what the others taught; in each the attacker "
            "that did best on inner images was taken; classes balanced"
        )
        detector = result_of(
            found.name,
            found.strongest,
            truth,
            [groups[i] for i in found.judged],
            protocol=protocol,
            image_size_px=size_px,
            p_value=test.p_value,
            chosen=chosen,
            seed=self.seed,
            seconds=time.monotonic() - began,
        )
        return detector, tuple(self._table(attackers, found, test, truth)), found

    def _table(
        self,
        attackers: Sequence[Candidate],
        found: CrossValidation,
        test: MaximumTest,
        truth: np.ndarray[tuple[int], np.dtype[np.bool_]],
    ) -> list[AttackerResult]:
        rows = []
        for attacker, held_out in zip(attackers, test.aucs, strict=True):
            logits = found.logits[attacker.name]
            verdict = judge(logits, truth)
            rows.append(
                AttackerResult(
                    name=attacker.name,
                    image_size_px=attacker.image_size_px,
                    accuracy=verdict.accuracy,
                    interval=verdict.interval,
                    auc=verdict.auc,
                    balanced_accuracy=balanced_accuracy(logits, truth),
                    held_out_auc=held_out,
                    chosen_folds=found.chosen.count(attacker.name),
                    seconds=round(attacker.seconds, 3),
                )
            )
        return rows

    def judged(self, found: CrossValidation) -> tuple[JudgedImage, ...]:
        return judged_images([self.images[i] for i in found.judged], found.strongest)
