"""Translations of fixed images during training: the sample sheets, and the outputs that the monitor describes."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fruitgan.data.preprocessing import Preprocessing
from fruitgan.data.sources import Source
from fruitgan.errors import DataError
from fruitgan.images import Pixels, bytes_from_unit, signed_from_unit, squared, unit_from_bytes, unit_from_signed
from fruitgan.report.grid import grid
from fruitgan.train_gan.assemble import Datasets, Plan
from fruitgan.train_gan.monitor import describe
from fruitgan.train_gan.trainer import Trainer

SAMPLES_PER_DOMAIN = 4


@torch.inference_mode()
def translate_batch(generator: nn.Module, images: Sequence[Pixels], device: torch.device) -> list[Pixels]:
    """uint8 [S, S, 3] each, through the generator in evaluation mode, which is left as it was found."""
    was_training = generator.training
    generator.eval()
    try:
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float().to(device)
        out = unit_from_signed(generator(signed_from_unit(unit_from_bytes(stacked))))
        return list(bytes_from_unit(out.permute(0, 2, 3, 1).float().cpu().numpy()))
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


class SampleImages:
    """The same images each time. They are read once, so that the folder of the data may go away while the run goes on."""

    def __init__(self, source: Source, datasets: Datasets, trainer: Trainer, plan: Plan) -> None:
        size_px, how = plan.recipe.image_size_px, plan.preprocessing
        self.notes: list[str] = []
        self.samples: dict[str, list[Pixels]] = {}
        """By direction."""
        self.monitored: dict[str, list[Pixels]] = {}
        """By direction; training images, which are there whatever becomes of the others."""
        sides = {"a2b": (source.a, datasets.a), "b2a": (source.b, datasets.b)}
        for direction in trainer.objective.generators:
            domain, dataset = sides[direction]
            places = np.linspace(0, len(dataset) - 1, min(SAMPLES_PER_DOMAIN, len(dataset))).round().astype(int)
            self.monitored[direction] = [squared(dataset.pixels[place], size_px) for place in places]
            self.samples[direction] = _first_images(domain.test or domain.train, size_px, how)
            if not self.samples[direction]:
                self.samples[direction] = self.monitored[direction]
                self.notes.append(
                    f"no image of {domain.name} can be read any more; the samples show training images as decoded"
                )

    def sheet(self, trainer: Trainer) -> Pixels:
        """A grid: rows of source, fake and, with both directions, cycled."""
        generators = {direction: trainer.generator(direction) for direction in self.samples}
        return grid(sample_rows(generators, self.samples, trainer.device))

    def outputs(self, trainer: Trainer) -> dict[str, dict[str, float]]:
        """`monitor.describe` of the outputs, by direction."""
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
