"""From two banks to the batch of a step: gathered, sent to the device, augmented as drawn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fruitgan import randomness
from fruitgan.augment.contracts import Augmentation
from fruitgan.data.bank import Bank
from fruitgan.data.sampler import Sampler
from fruitgan.images import signed_from_unit, unit_from_bytes
from fruitgan.objectives.contracts import Batch


class Feed(Protocol):
    """What a trainer takes its batches from."""

    def batch(self, step: int, draws: Mapping[str, int]) -> Batch: ...

    def reseed(self, seed: int) -> None: ...


class BankFeed:
    """Batches as a pure function of (seed, step)."""

    def __init__(
        self,
        bank_a: Bank,
        bank_b: Bank,
        sampler: Sampler,
        augmentation: Augmentation,
        *,
        image_size_px: int,
        seed: int,
        device: torch.device,
    ) -> None:
        self.banks = {"a": bank_a, "b": bank_b}
        self.sampler = sampler
        self.augmentation = augmentation
        self.image_size_px = image_size_px
        self.seed = seed
        self.device = device

    def batch(self, step: int, draws: Mapping[str, int]) -> Batch:
        """The batch of the step after `step` done ones; `draws` says how many numbers an image the objective wants."""
        indices_a, indices_b = self.sampler.indices(step)
        a, b = self._images("a", step, indices_a), self._images("b", step, indices_b)
        n = len(indices_a)
        numbers = {name: self._device_numbers(step, n, count, f"objective/{name}") for name, count in draws.items()}
        return Batch(a, b, numbers)

    def reseed(self, seed: int) -> None:
        """Draw by another seed from here on."""
        self.seed = seed
        self.sampler.reseed(seed)

    def _images(self, domain: str, step: int, indices: NDArray[np.int64]) -> Tensor:
        n = len(indices)
        window = randomness.sample(self.seed, step, 2 * n, f"window/{domain}").reshape(n, 2)
        pixels = torch.from_numpy(self.banks[domain].gather(indices, window)).to(self.device)
        images = unit_from_bytes(pixels.permute(0, 3, 1, 2).float())
        numbers = self._numbers(step, n, self.augmentation.draws, f"augment/{domain}")
        return signed_from_unit(self.augmentation.apply(images, numbers, self.image_size_px)).contiguous()

    def _device_numbers(self, step: int, n: int, count: int, stream: str) -> Tensor:
        # Not every device has float64; the largest float32 below 1 keeps rounding from reaching 1.
        return self._numbers(step, n, count, stream).float().clamp(max=1 - 2**-24).to(self.device)

    def _numbers(self, step: int, n: int, count: int, stream: str) -> Tensor:
        return torch.from_numpy(randomness.sample(self.seed, step, n * count, stream).reshape(n, count))
