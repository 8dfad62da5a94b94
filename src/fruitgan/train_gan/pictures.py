"""Pictures of a run: the samples that it leaves, and the outputs that its watch looks at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fruitgan.data.decode import decode
from fruitgan.data.image_dataset import ImageDataset
from fruitgan.data.sources import Source
from fruitgan.errors import DataError
from fruitgan.images import Pixels
from fruitgan.report.grid import fit_square, grid, png_bytes
from fruitgan.train_gan.assemble import Banks
from fruitgan.train_gan.monitor import describe
from fruitgan.train_gan.samples import sample_rows, translate_batch
from fruitgan.train_gan.trainer import Trainer

SAMPLES_PER_DOMAIN = 4


class Pictures:
    """The same images each time. They are read once, so that the folder of the data may go away while the run goes on."""

    def __init__(self, source: Source, banks: Banks, trainer: Trainer, size_px: int) -> None:
        self.notes: list[str] = []
        self.samples: dict[str, list[Pixels]] = {}
        """By direction."""
        self.watched: dict[str, list[Pixels]] = {}
        """By direction; training images, which are there whatever becomes of the others."""
        for direction, domain, bank in (("a2b", source.a, banks.a), ("b2a", source.b, banks.b)):
            if direction not in trainer.objective.generators:
                continue
            self.watched[direction] = _spread(bank, size_px)
            self.samples[direction] = _first_images(domain.test or domain.train, size_px)
            if not self.samples[direction]:
                self.samples[direction] = self.watched[direction]
                self.notes.append(
                    f"no image of {domain.name} can be read any more; the samples show training images as decoded"
                )

    def sheet(self, trainer: Trainer) -> bytes:
        """A PNG file: rows of source, fake and, with both directions, cycled."""
        generators = {direction: trainer.generator(direction) for direction in trainer.objective.generators}
        return png_bytes(grid(sample_rows(generators, self.samples, trainer.device)))

    def outputs(self, trainer: Trainer) -> dict[str, dict[str, float]]:
        """By direction what `watch.describe` tells of the outputs."""
        return {
            direction: describe(images, translate_batch(trainer.generator(direction), images, trainer.device))
            for direction, images in self.watched.items()
        }


def _first_images(paths: tuple[Path, ...], size_px: int) -> list[Pixels]:
    """The first that can be read."""
    images: list[Pixels] = []
    for path in paths:
        if len(images) == SAMPLES_PER_DOMAIN:
            break
        try:
            images.append(fit_square(decode(path).pixels, size_px))
        except DataError:
            continue
    return images


def _spread(bank: ImageDataset, size_px: int) -> list[Pixels]:
    """Images from the first to the last, evenly."""
    places = np.linspace(0, len(bank) - 1, min(SAMPLES_PER_DOMAIN, len(bank))).round().astype(int)
    return [fit_square(bank.image(int(place)), size_px) for place in places]
