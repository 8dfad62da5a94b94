"""What share of the generated images reads as the target: a classifier of real sources against real images of the target."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fruitgan.data.labelled import LabelledImage
from fruitgan.errors import DataError
from fruitgan.evaluate.detector_results import ReadingResult
from fruitgan.evaluate.sources import Sources
from fruitgan.images import Pixels, from_pillow, to_pillow
from fruitgan.measures.contracts import Features
from fruitgan.measures.features import Pictures, extract
from fruitgan.measures.statistics import wilson
from fruitgan.train_detector.calibration import balanced_accuracy
from fruitgan.train_detector.protocols import grouped_folds
from fruitgan.train_detector.regression import Regression, trials

FOLDS = 5
LEAST_PER_CLASS = 20

OnStep = Callable[[str, int, int], None]


class Grey(Features):
    """A backend that is shown every picture without its colours."""

    def __init__(self, backend: Features) -> None:
        super().__init__()
        self.backend = backend
        self.name = f"{backend.name}-grey"
        self.version = backend.version
        self.dimensions = backend.dimensions
        self.resize = f"grey, {backend.resize}"

    def prepare(self, pixels: Pixels) -> Pixels:
        return self.backend.prepare(from_pillow(to_pillow(pixels).convert("L")))

    def forward(self, images: Tensor) -> Tensor:
        seen: Tensor = self.backend(images)
        return seen


def read_as_target(
    backend: Features,
    reals: Sequence[LabelledImage],
    fakes: Sequence[LabelledImage],
    sources: Sources,
    pictures: Pictures,
    device: torch.device,
    seed: int,
    tell: OnStep,
) -> tuple[ReadingResult, ...]:
    """Once with the pictures as they are and once in grey, where colour alone cannot decide; empty where images are too few.

    A logistic regression on the backend's features learns sources against real images in grouped folds; each generated image is
    read by the one that has not seen its source.

    Raises:
        DataError: an image cannot be decoded.
    """
    if min(len(reals), len(fakes), len(sources.paths)) < LEAST_PER_CLASS:
        return ()
    groups = [fake.group for fake in fakes] if sources.paired else [f"source {i}" for i in range(len(sources.paths))]
    images = [LabelledImage(path, False, group, "", "") for path, group in zip(sources.paths, groups, strict=True)]
    images += [LabelledImage(real.path, True, real.group, "", "") for real in reals]
    found = []
    for view, seen_by in (("as they are", backend), ("grey", Grey(backend))):

        def described(paths: Sequence[Path], what: str, seen_by: Features = seen_by) -> NDArray[np.float64]:
            label = f"reading {what} images, {seen_by.name}"
            return extract(seen_by, paths, device, lambda done: tell(label, done, len(paths)), read=pictures).values

        known = described([image.path for image in images], "real")
        new = described([fake.path for fake in fakes], "generated")
        try:
            found.append(_reading(view, seen_by.name, images, known, fakes, new, seed))
        except DataError:  # too few different things for the folds
            return ()
    return tuple(found)


def _reading(
    view: str,
    features: str,
    images: Sequence[LabelledImage],
    known: NDArray[np.float64],
    fakes: Sequence[LabelledImage],
    new: NDArray[np.float64],
    seed: int,
) -> ReadingResult:
    is_target = np.array([image.generated for image in images])
    folds = grouped_folds(images, FOLDS, seed)
    models: list[Regression] = []
    logits = np.full(len(images), np.nan)
    fold_of: dict[str, int] = {}
    for number, parts in enumerate(folds):
        trained = trials(known[parts.train], is_target[parts.train], known[parts.val], is_target[parts.val])
        models.append(min(trained, key=lambda trial: trial.val_loss).regression)
        logits[parts.test] = models[-1].logits(known[parts.test])
        fold_of |= {images[i].group: number for i in parts.test}
    judged = ~np.isnan(logits)
    # A source that was left out to balance the classes taught no fold.
    places = np.array([fold_of.get(fake.group, zlib.crc32(fake.group.encode()) % FOLDS) for fake in fakes])
    said = np.empty(len(fakes))
    for number, model in enumerate(models):
        said[places == number] = model.logits(new[places == number])
    hits = int((said > 0).sum())
    low, high = wilson(hits, len(fakes))
    return ReadingResult(
        view=view,
        features=features,
        share=hits / len(fakes),
        interval=(low, high),
        n=len(fakes),
        sources_share=float((logits[judged & ~is_target] > 0).mean()),
        reals_share=float((logits[judged & is_target] > 0).mean()),
        accuracy=balanced_accuracy(logits[judged], is_target[judged]),
        n_known=int(judged.sum()),
    )
