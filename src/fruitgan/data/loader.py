"""The data loader: from two image datasets to a step's batch, sampled on the host, gathered and augmented on the device."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fruitgan import randomness
from fruitgan.data.augment import Augmentation
from fruitgan.data.image_dataset import ImageDataset
from fruitgan.distributed import ranks
from fruitgan.errors import DataError, UsageError
from fruitgan.images import signed_from_unit, unit_from_bytes

Pairing = Literal["random-b", "zip", "passes"]

Indices = NDArray[np.int64]

HostBatch = Mapping[str, Tensor]
"""All that a step's batch is made of, by name; the tensors' shapes and types are the same at every step."""


@dataclass(frozen=True)
class Batch:
    """One step's images on the device, augmented, and the random numbers that the objective asked for.

    `a` and `b` are [N, 3, S, S] in [-1, 1]; each of `draws` is [N, k], uniform in [0, 1).
    """

    a: Tensor
    b: Tensor
    draws: Mapping[str, Tensor] = field(default_factory=dict)


class Sampler:
    """Draws the images of each step from two domains of `n_a` and `n_b` images.

    - `random-b` (Zhu et al. 2017, the authors' code): an epoch is max(n_a, n_b) items in a fresh random order; item i is
      image i % n_a of domain a with a uniformly random image of domain b.
    - `zip` (the TensorFlow tutorial): an epoch is min(n_a, n_b) items; both domains in fresh random orders.
    - `passes`: each domain runs through its own endless sequence of random orders, so that every image of a domain is
      seen equally often; an epoch is max(n_a, n_b) items.

    An epoch has ceil(items / batch_size) steps. In `random-b` and `zip` the last batch of an epoch, if short, is filled
    from the start of the next epoch's order, which that epoch then shows again; in `passes` nothing is repeated: batches
    run on across the end of a pass.
    """

    def __init__(self, n_a: int, n_b: int, batch_size: int, seed: int, pairing: Pairing) -> None:
        """Raises: DataError if a domain is empty, UsageError for a batch size below 1 or an unknown pairing."""
        if n_a < 1 or n_b < 1:
            raise DataError(f"domain {'a' if n_a < 1 else 'b'} has no images: training needs at least one of each")
        if batch_size < 1:
            raise UsageError(f"a batch size of {batch_size} is too small: use 1 or more")
        if pairing not in get_args(Pairing):
            raise UsageError(f"no pairing named {pairing!r}: known are {', '.join(get_args(Pairing))}")
        self.n_a, self.n_b = n_a, n_b
        self.batch_size = batch_size
        self.seed = seed
        self.pairing = pairing
        self.epoch_items = min(n_a, n_b) if pairing == "zip" else max(n_a, n_b)
        self._orders: dict[str, tuple[int, Indices]] = {}

    def reseed(self, seed: int) -> None:
        """Draw by another seed from here on."""
        self.seed = seed
        self._orders.clear()

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.epoch_items // self.batch_size)

    def indices(self, step: int) -> tuple[Indices, Indices]:
        """The image numbers int64 [N] of both domains in step `step`, counted from 0."""
        if self.pairing == "passes":
            first = step * self.batch_size
            return self._walk("passes/a", self.n_a, self.n_a, first), self._walk("passes/b", self.n_b, self.n_b, first)
        epoch, within = divmod(step, self.steps_per_epoch)
        span = self.epoch_items
        first = epoch * span + within * self.batch_size
        if self.pairing == "zip":
            return self._walk("zip/a", self.n_a, span, first), self._walk("zip/b", self.n_b, span, first)
        items = self._walk("random-b/items", span, span, first)
        random_b = randomness.generator(self.seed, step, "random-b/b").integers(self.n_b, size=self.batch_size)
        return items % self.n_a, random_b.astype(np.int64)

    def _walk(self, stream: str, n: int, span: int, first: int) -> Indices:
        """A batch from item `first` of an endless sequence: the first `span` of each random order of 0..n-1, in turn."""
        parts: list[Indices] = []
        missing = self.batch_size
        while missing > 0:
            number, start = divmod(first, span)
            part = self._order(stream, number, n)[start : min(start + missing, span)]
            parts.append(part)
            first += len(part)
            missing -= len(part)
        return np.concatenate(parts)

    def _order(self, stream: str, number: int, n: int) -> Indices:
        """The stream's random order with the given number; the last one is kept, which saves time and changes nothing."""
        kept = self._orders.get(stream)
        if kept is None or kept[0] != number:
            kept = (number, randomness.permutation(self.seed, number, n, stream))
            self._orders[stream] = kept
        return kept[1]


class Loader(ABC):
    """What a trainer takes its batches from, in two stages, of which the second can be captured with the step (CUDA graphs)."""

    @abstractmethod
    def batch(self, step: int, draws: Mapping[str, int]) -> Batch:
        """The batch of the step after `step` done ones; `draws` says how many numbers an image the objective wants."""

    def host_batch(self, step: int, draws: Mapping[str, int]) -> HostBatch:
        """The first stage, on the host: here all of it."""
        batch = self.batch(step, draws)
        return {"a": batch.a, "b": batch.b, **{f"draws/{name}": value for name, value in batch.draws.items()}}

    def device_batch(self, host_batch: HostBatch) -> Batch:
        """The second stage, from tensors on the device: tensor operations alone, which never wait."""
        return Batch(host_batch["a"], host_batch["b"], _draws_of(host_batch))

    def reseed(self, seed: int) -> None:  # noqa: B027 - where nothing is drawn by a seed, that changes nothing
        """Draw by another seed from here on."""


class BatchLoader(Loader):
    """Batches as a pure function of (seed, step); of several processes each gets its rows of what is drawn for all.

    Args:
        images_on_device: keep the decoded images there, so that a step takes nothing but numbers from the host.
    """

    def __init__(
        self,
        images_a: ImageDataset,
        images_b: ImageDataset,
        sampler: Sampler,
        augmentation: Augmentation,
        *,
        image_size_px: int,
        device: torch.device,
        images_on_device: bool = False,
    ) -> None:
        self.images = {"a": images_a, "b": images_b}
        self.on_device: dict[str, Tensor] | None = None
        if images_on_device:
            # Copied where it cannot be written, of which torch would warn.
            arrays = {name: np.require(images.pixels, requirements="W") for name, images in self.images.items()}
            self.on_device = {name: torch.from_numpy(pixels).to(device) for name, pixels in arrays.items()}
        self.sampler = sampler
        self.augmentation = augmentation
        self.image_size_px = image_size_px
        self.device = device
        noise = randomness.sample(0, 0, 3 * image_size_px**2, "dither").reshape(3, image_size_px, image_size_px)
        self._dither = torch.from_numpy((noise - 0.5) / 255).float().to(device)

    def batch(self, step: int, draws: Mapping[str, int]) -> Batch:
        host_batch = self.host_batch(step, draws)
        return self.device_batch({name: value.to(self.device, non_blocking=True) for name, value in host_batch.items()})

    def host_batch(self, step: int, draws: Mapping[str, int]) -> HostBatch:
        found: dict[str, Tensor] = {}
        for domain, indices in zip("ab", self.sampler.indices(step), strict=True):
            n = len(indices)
            own = indices[ranks().share(n)]
            if self.on_device is None:
                found[f"pixels/{domain}"] = torch.from_numpy(self.images[domain].pixels[own])
            else:
                found[f"indices/{domain}"] = torch.from_numpy(own)
            found[f"augment/{domain}"] = self._numbers(step, n, self.augmentation.draws, f"augment/{domain}")
        for name, count in draws.items():
            found[f"draws/{name}"] = self._numbers(step, n, count, f"objective/{name}")
        # From other memory a copy to a GPU first waits for all that the GPU has still to do.
        return {name: value.pin_memory() for name, value in found.items()} if self.device.type == "cuda" else found

    def device_batch(self, host_batch: HostBatch) -> Batch:
        a, b = (self._augmented(domain, host_batch) for domain in "ab")
        return Batch(a, b, _draws_of(host_batch))

    def reseed(self, seed: int) -> None:
        self.sampler.reseed(seed)

    def _augmented(self, domain: str, host_batch: HostBatch) -> Tensor:
        if self.on_device is None:
            pixels = host_batch[f"pixels/{domain}"]
        else:
            pixels = self.on_device[domain][host_batch[f"indices/{domain}"]]
        images = unit_from_bytes(pixels.permute(0, 3, 1, 2).float())
        images = self.augmentation.apply(images, host_batch[f"augment/{domain}"], self.image_size_px)
        return signed_from_unit(self._varied(images)).contiguous()

    def _varied(self, images: Tensor) -> Tensor:
        """The images, [N, 3, S, S] in [0, 1]; those of one colour (crops of a background) with noise of half a grey level.

        An instance norm divides the rounding errors of a constant map by sqrt(eps), once a layer, so that the gradients of one
        such image reach infinity, where exactly they are 0.
        """
        is_plain = (images.amax(dim=(2, 3)) - images.amin(dim=(2, 3))).amax(dim=1).view(-1, 1, 1, 1) < 0.5 / 255
        return torch.where(is_plain, (images + self._dither.to(images.dtype)).clamp(0, 1), images)

    def _numbers(self, step: int, n: int, count: int, stream: str) -> Tensor:
        # Not every device has float64; the largest float32 below 1 keeps rounding from reaching 1.
        numbers = randomness.sample(self.sampler.seed, step, n * count, stream).reshape(n, count)[ranks().share(n)]
        return torch.from_numpy(numbers).float().clamp(max=1 - 2**-24)


class BatchBuffer:
    """Where a step reads its batch: the batch itself or, where steps are captured, tensors that stay in their places."""

    def __init__(self, loader: Loader, device: torch.device) -> None:
        self.loader = loader
        self.device = device
        self._batch: Batch | None = None
        self._places: dict[str, Tensor] = {}

    def load(self, step: int, draws: Mapping[str, int], *, in_place: bool) -> None:
        """Fetch what the step after `step` done ones reads."""
        if not in_place:
            self._batch, self._places = self.loader.batch(step, draws), {}
            return
        host_batch = self.loader.host_batch(step, draws)
        if not self._places:
            self._places = {name: torch.empty_like(value, device=self.device) for name, value in host_batch.items()}
        for name, value in host_batch.items():
            self._places[name].copy_(value, non_blocking=True)

    def batch(self) -> Batch:
        """The batch on the device."""
        if not self._places:
            assert self._batch is not None
            return self._batch
        return self.loader.device_batch(self._places)


def _draws_of(host_batch: HostBatch) -> dict[str, Tensor]:
    """The numbers for the objective."""
    return {name.removeprefix("draws/"): value for name, value in host_batch.items() if name.startswith("draws/")}
