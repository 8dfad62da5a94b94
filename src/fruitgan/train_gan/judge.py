"""KID during training: a part of the training images is held out, and the generators are judged on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from fruitgan.data.groups import held_out, perceptual_hash
from fruitgan.data.image_dataset import DecodeSettings, ImageDataset, cached_dataset
from fruitgan.data.sources import Domain, Source
from fruitgan.errors import DataError
from fruitgan.files import file_sha256
from fruitgan.images import Pixels
from fruitgan.measures.contracts import MINIMUM_IMAGES, Features, Values, features
from fruitgan.measures.distances import kernel_distance
from fruitgan.measures.features import rows
from fruitgan.progress import OnProgress
from fruitgan.train_gan.assemble import Plan
from fruitgan.train_gan.samples import translate_batch
from fruitgan.train_gan.trainer import Trainer

JUDGE = "random"
"""Features without trained weights: no discriminator's backbone can share them, and the curves of all recipes compare."""
UNTRANSLATED = "untranslated"
HELD_OUT_SHARE = 10
LOOK_PX = 64
"""The size at which pictures are compared: more than their hashes see, and the same whatever a run trains at."""
BATCH = 8


def hold_out(source: Source, plan: Plan, tell: OnProgress) -> tuple[Source, tuple[ImageDataset, ImageDataset]]:
    """The source without a tenth of each domain's training images, and these, decoded at the training size.

    Which they are depends on the files' contents alone; near-duplicates are held out together or not at all.

    Raises:
        DataError: a domain has too few images for that.
    """
    kept, held = [], []
    for domain in (source.a, source.b):
        paths = _held_out(domain, plan, tell)
        decoding = DecodeSettings(load_size_px=plan.recipe.image_size_px, how=plan.preprocessing, resample=_resample(plan))
        dataset, _ = cached_dataset(sorted(paths), decoding, what=f"decoding {domain.name}", tell=tell)
        held.append(dataset)
        kept.append(dataclasses.replace(domain, train=tuple(path for path in domain.train if path not in paths)))
    return dataclasses.replace(source, a=kept[0], b=kept[1]), (held[0], held[1])


def _resample(plan: Plan) -> Image.Resampling:
    return Image.Resampling[plan.recipe.resample.upper()]


def _held_out(domain: Domain, plan: Plan, tell: OnProgress) -> set[Path]:
    decoding = DecodeSettings(load_size_px=LOOK_PX, how=plan.preprocessing, resample=Image.Resampling.LANCZOS)
    small, _ = cached_dataset(domain.train, decoding, what=f"comparing {domain.name}", tell=tell)
    contents = [file_sha256(path) for path in small.names]
    chosen = held_out(contents, [perceptual_hash(pixels) for pixels in small.pixels], HELD_OUT_SHARE, MINIMUM_IMAGES)
    paths = {path for path, content in zip(small.names, contents, strict=True) if content in chosen}
    if not MINIMUM_IMAGES <= len(paths) <= len(small) / 2:
        raise DataError(
            f"--evaluate-every: KID needs {MINIMUM_IMAGES} or more images of {domain.name} that are kept out of training and "
            f"unlike those that stay, which are no fewer; of {len(small)} images no such part can be chosen"
        )
    return paths


class Judge:
    """KID of fakes of the held-out images to those of the other domain, on the features `random`; draws nothing at random."""

    def __init__(self, held: Sequence[ImageDataset], device: torch.device) -> None:
        self._device = device
        self._features: Features = features.build(features.choose(JUDGE))
        self._sources = {"a2b": held[0].pixels, "b2a": held[1].pixels}
        a, b = (self._described(list(pictures)) for pictures in self._sources.values())
        self._reals = {"a2b": b, "b2a": a}
        self._untranslated = kernel_distance(a, b)

    def __call__(self, trainer: Trainer) -> dict[str, float]:
        """KID by direction, and as `untranslated` that of the images as they are: what doing nothing scores."""
        found = {UNTRANSLATED: self._untranslated}
        for direction in trainer.objective.generators:
            generator, fakes = trainer.generator(direction), list[Pixels]()
            for batch in np.array_split(self._sources[direction], -(-len(self._sources[direction]) // BATCH)):
                fakes += translate_batch(generator, list(batch), self._device)
            found[direction] = kernel_distance(self._reals[direction], self._described(fakes))
        return {name: round(value, 6) for name, value in found.items()}

    def _described(self, pictures: list[Pixels]) -> Values:
        return np.stack(list(rows(self._features, pictures, self._device, BATCH, lambda pixels: pixels))).astype(np.float64)
