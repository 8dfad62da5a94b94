"""Translations of fixed images during training: the sample sheets, what the monitor is shown, and KID on held-out images."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from fruitgan.data.groups import held_out, perceptual_hash
from fruitgan.data.image_dataset import DecodeSettings, ImageDataset, cached_dataset
from fruitgan.data.preprocessing import Preprocessing
from fruitgan.data.sources import Domain, Source
from fruitgan.engines.contracts import LARGE_PIXELS
from fruitgan.errors import DataError
from fruitgan.files import file_sha256
from fruitgan.images import Pixels, bytes_from_unit, signed_from_unit, squared, unit_from_bytes, unit_from_signed
from fruitgan.measures.contracts import MINIMUM_IMAGES, Features, Values, features
from fruitgan.measures.distances import kernel_distance
from fruitgan.measures.features import rows
from fruitgan.progress import OnProgress
from fruitgan.report.page import grid
from fruitgan.train_gan.assemble import Datasets, shown_size_px
from fruitgan.train_gan.settings import Plan
from fruitgan.train_gan.trainer import Trainer

SAMPLES_PER_DOMAIN = 4
JUDGE = "random"
"""Features without trained weights: no discriminator's backbone can share them, and the curves of all recipes compare."""
UNTRANSLATED = "untranslated"
HELD_OUT_SHARE = 10
LOOK_PX = 64
"""The size at which pictures are compared: more than their hashes see, and the same whatever a run trains at."""
BATCH = 8
LEAST_CONTRAST = 2 / 255  # less than that among the inputs says nothing of the outputs


@torch.inference_mode()
def translate_batch(generator: nn.Module, images: Sequence[Pixels], device: torch.device) -> list[Pixels]:
    """uint8 [S, S, 3] each, through the generator in evaluation mode, which is left as it was found."""
    was_training = generator.training
    generator.eval()
    try:
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        at_once, made = max(1, LARGE_PIXELS // stacked[0, 0].numel()), list[Pixels]()  # they may be larger than a step's
        for start in range(0, len(stacked), at_once):
            part = stacked[start : start + at_once].float().to(device)
            out = unit_from_signed(generator(signed_from_unit(unit_from_bytes(part))))
            made += list(bytes_from_unit(out.permute(0, 2, 3, 1).float().cpu().numpy()))
        return made
    finally:
        generator.train(was_training)


def sample_rows(
    generators: Mapping[str, nn.Module], sources: Mapping[str, Sequence[Pixels]], device: torch.device
) -> list[list[Pixels]]:
    """For each direction and each of its sources a row: source, fake and, with both directions, cycled.

    `generators` and `sources` are by direction (`a2b`, `b2a`).
    """
    rows = []
    for direction, images in sources.items():
        columns = [list(images), translate_batch(generators[direction], images, device)]
        if (back := {"a2b": "b2a", "b2a": "a2b"}[direction]) in generators:
            columns.append(translate_batch(generators[back], columns[-1], device))
        rows += [list(row) for row in zip(*columns, strict=True)]
    return rows


def describe(sources: Sequence[Pixels], fakes: Sequence[Pixels]) -> dict[str, float]:
    """What can be told from some inputs and their outputs, all uint8 [S, S, 3].

    - `changed`: mean absolute difference of an output from its input, on [0, 1].
    - `variety`: how much outputs differ from one another, as a multiple of how much inputs do (deviation over the images,
      mean over pixels); absent where the inputs are alike.
    - `likeness`: correlation of all values of the outputs with those of the inputs; absent where either are one colour.
    """
    x, y = (unit_from_bytes(np.stack(images).astype(np.float64)) for images in (sources, fakes))
    found = {"changed": float(np.abs(y - x).mean())}
    if (among := x.std(axis=0).mean()) >= LEAST_CONTRAST:
        found["variety"] = float(y.std(axis=0).mean() / among)
    if min(x.std(), y.std()) >= LEAST_CONTRAST:
        found["likeness"] = float(np.corrcoef(x.ravel(), y.ravel())[0, 1])
    return {name: round(value, 4) for name, value in found.items()}


class SampleImages:
    """The same images each time. They are read once, so that the folder of the data may go away while the run goes on."""

    def __init__(self, source: Source, datasets: Datasets, trainer: Trainer, plan: Plan) -> None:
        size_px, how = shown_size_px(plan, trainer.objective), plan.preprocessing
        self.notes: list[str] = []
        self.samples: dict[str, list[Pixels]] = {}
        """By direction."""
        self.monitored: dict[str, list[Pixels]] = {}
        """By direction; training images, which are there whatever becomes of the others."""
        sides = {"a2b": (source.a, datasets.a), "b2a": (source.b, datasets.b)}
        for direction in trainer.objective.generators:
            domain, dataset = sides[direction]
            places = np.linspace(0, len(dataset) - 1, min(SAMPLES_PER_DOMAIN, len(dataset))).round().astype(int)
            self.monitored[direction] = [squared(dataset.pixels[place], plan.recipe.image_size_px) for place in places]
            self.samples[direction] = _first_images(domain.test or domain.train, size_px, how)
            if not self.samples[direction]:
                self.samples[direction] = [squared(dataset.pixels[place], size_px) for place in places]
                self.notes.append(
                    f"no image of {domain.name} can be read any more; the samples show training images as decoded"
                )

    def sheet(self, trainer: Trainer) -> Pixels:
        """A grid: rows of source, fake and, with both directions, cycled."""
        generators = {direction: trainer.generator(direction) for direction in self.samples}
        return grid(sample_rows(generators, self.samples, trainer.device))

    def outputs(self, trainer: Trainer) -> dict[str, dict[str, float]]:
        """`describe` of the outputs, by direction."""
        return {
            direction: describe(images, translate_batch(trainer.generator(direction), images, trainer.device))
            for direction, images in self.monitored.items()
        }


def _first_images(paths: tuple[Path, ...], size_px: int, how: Preprocessing) -> list[Pixels]:
    """The first that can be read."""
    images: list[Pixels] = []
    for path in paths:
        with contextlib.suppress(DataError):
            images.append(how.squared(how.decode(path).pixels, size_px))
        if len(images) == SAMPLES_PER_DOMAIN:
            break
    return images


def hold_out(source: Source, plan: Plan, size_px: int, tell: OnProgress) -> tuple[Source, tuple[ImageDataset, ImageDataset]]:
    """The source without a tenth of each domain's training images, and these, decoded at this size.

    Which they are depends on the files' contents alone; near-duplicates are held out together or not at all.

    Raises:
        DataError: a domain has too few images for that.
    """
    kept, held = [], []
    resample = Image.Resampling[plan.recipe.resample.upper()]
    decoding = DecodeSettings(load_size_px=size_px, how=plan.preprocessing, resample=resample)
    for domain in (source.a, source.b):
        paths = _held_out(domain, plan, tell)
        dataset, _ = cached_dataset(sorted(paths), decoding, what=f"decoding {domain.name}", tell=tell)
        held.append(dataset)
        kept.append(dataclasses.replace(domain, train=tuple(path for path in domain.train if path not in paths)))
    return dataclasses.replace(source, a=kept[0], b=kept[1]), (held[0], held[1])


def _held_out(domain: Domain, plan: Plan, tell: OnProgress) -> set[Path]:
    decoding = DecodeSettings(load_size_px=LOOK_PX, how=plan.preprocessing, resample=Image.Resampling.LANCZOS)
    small, _ = cached_dataset(domain.train, decoding, what=f"comparing {domain.name}", tell=tell)
    contents = [file_sha256(path) for path in small.names]
    looks = list(zip(contents, map(perceptual_hash, small.pixels), strict=True))
    chosen = held_out(looks, HELD_OUT_SHARE, MINIMUM_IMAGES)
    paths = {path for path, content in zip(small.names, contents, strict=True) if content in chosen}
    if not MINIMUM_IMAGES <= len(paths) <= len(small) / 2:
        raise DataError(
            f"--evaluate-every: KID needs {MINIMUM_IMAGES} or more images of {domain.name} that are kept out of training and "
            f"unlike those that stay, which are no fewer; of {len(small)} images no such part can be chosen"
        )
    return paths


class HeldOutKid:
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
