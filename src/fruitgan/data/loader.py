"""From two banks to the batch of a step: drawn on the host, gathered and augmented on the device."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from fruitgan import randomness
from fruitgan.data.augment.contracts import Augmentation
from fruitgan.data.batch import Batch
from fruitgan.data.image_dataset import Bank
from fruitgan.data.sampler import Sampler
from fruitgan.images import signed_from_unit, unit_from_bytes

Drawn = Mapping[str, Tensor]
"""What changes from step to step, by name; a tensor's shape and type stay."""


class Feed(Protocol):
    """What a trainer takes its batches from."""

    def batch(self, step: int, draws: Mapping[str, int]) -> Batch: ...

    def reseed(self, seed: int) -> None: ...


@runtime_checkable
class StagedFeed(Feed, Protocol):
    """A feed in two stages, of which the second can be captured together with the step."""

    def drawn(self, step: int, draws: Mapping[str, int]) -> Drawn:
        """On the host: all that the batch of the step after `step` done ones is made of."""

    def made(self, drawn: Drawn) -> Batch:
        """On the device, to which `drawn` was brought: tensor operations alone, which never wait."""


class Inputs:
    """What a step reads its batch from: the batch itself or, where steps are captured, tensors that stay in their places."""

    def __init__(self, feed: Feed, device: torch.device) -> None:
        self.feed = feed
        self.device = device
        self._batch: Batch | None = None
        self._places: dict[str, Tensor] = {}

    def take(self, step: int, draws: Mapping[str, int], *, in_place: bool) -> None:
        """What the step after `step` done ones reads."""
        if not in_place:
            self._batch, self._places = self.feed.batch(step, draws), {}
            return
        drawn = self.feed.drawn(step, draws) if isinstance(self.feed, StagedFeed) else _unmade(self.feed.batch(step, draws))
        if not self._places:
            self._places = {name: torch.empty_like(value, device=self.device) for name, value in drawn.items()}
        for name, value in drawn.items():
            self._places[name].copy_(value, non_blocking=True)

    def batch(self) -> Batch:
        """On the device."""
        if not self._places:
            assert self._batch is not None
            return self._batch
        return self.feed.made(self._places) if isinstance(self.feed, StagedFeed) else _remade(self._places)


def _unmade(batch: Batch) -> Drawn:
    """A batch of a feed without stages as tensors by name; `_remade` is the way back."""
    return {"images/a": batch.a, "images/b": batch.b, **{f"draws/{name}": value for name, value in batch.draws.items()}}


def _remade(drawn: Drawn) -> Batch:
    return Batch(drawn["images/a"], drawn["images/b"], _for_the_objective(drawn))


def _for_the_objective(drawn: Drawn) -> dict[str, Tensor]:
    return {name.removeprefix("draws/"): value for name, value in drawn.items() if name.startswith("draws/")}


class BankFeed:
    """Batches as a pure function of (seed, step).

    Args:
        banks_on_device: keep the decoded images there, so that a step takes nothing but numbers from the host.
    """

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
        banks_on_device: bool = False,
    ) -> None:
        self.banks = {"a": bank_a, "b": bank_b}
        self.on_device = {domain: DeviceBank(bank, device) for domain, bank in self.banks.items()} if banks_on_device else None
        self.sampler = sampler
        self.augmentation = augmentation
        self.image_size_px = image_size_px
        self.seed = seed
        self.device = device

    def batch(self, step: int, draws: Mapping[str, int]) -> Batch:
        """The batch of the step after `step` done ones; `draws` says how many numbers an image the objective wants."""
        return self.made({name: value.to(self.device, non_blocking=True) for name, value in self.drawn(step, draws).items()})

    def drawn(self, step: int, draws: Mapping[str, int]) -> Drawn:
        found: dict[str, Tensor] = {}
        for domain, indices in zip("ab", self.sampler.indices(step), strict=True):
            n = len(indices)
            window = randomness.sample(self.seed, step, 2 * n, f"window/{domain}").reshape(n, 2)
            if self.on_device is None:
                found[f"pixels/{domain}"] = torch.from_numpy(self.banks[domain].gather(indices, window))
            else:
                found[f"places/{domain}"] = torch.from_numpy(self.banks[domain].places(indices, window))
            found[f"augment/{domain}"] = self._numbers(step, n, self.augmentation.draws, f"augment/{domain}")
        for name, count in draws.items():
            found[f"draws/{name}"] = self._numbers(step, n, count, f"objective/{name}")
        # From other memory a copy to a GPU first waits for all that the GPU has still to do.
        return {name: value.pin_memory() for name, value in found.items()} if self.device.type == "cuda" else found

    def made(self, drawn: Drawn) -> Batch:
        a, b = (self._images(domain, drawn) for domain in "ab")
        return Batch(a, b, _for_the_objective(drawn))

    def reseed(self, seed: int) -> None:
        """Draw by another seed from here on."""
        self.seed = seed
        self.sampler.reseed(seed)

    def _images(self, domain: str, drawn: Drawn) -> Tensor:
        if self.on_device is None:
            pixels = drawn[f"pixels/{domain}"]
        else:
            pixels = self.on_device[domain].gather(drawn[f"places/{domain}"])
        images = unit_from_bytes(pixels.permute(0, 3, 1, 2).float())
        return signed_from_unit(self.augmentation.apply(images, drawn[f"augment/{domain}"], self.image_size_px)).contiguous()

    def _numbers(self, step: int, n: int, count: int, stream: str) -> Tensor:
        # Not every device has float64; the largest float32 below 1 keeps rounding from reaching 1.
        numbers = torch.from_numpy(randomness.sample(self.seed, step, n * count, stream).reshape(n, count))
        return numbers.float().clamp(max=1 - 2**-24)


class DeviceBank:
    """A bank's bytes in the memory of a device, gathered there."""

    def __init__(self, bank: Bank, device: torch.device) -> None:
        side = bank.load_size_px
        flat = bank.flat if bank.flat.flags.writeable else bank.flat.copy()  # torch warns of what it might write to
        self._flat = torch.from_numpy(flat).to(device)
        self._rows = torch.arange(side, device=device).view(1, side, 1)
        self._bytes = torch.arange(3 * side, device=device).view(1, 1, 3 * side)

    def gather(self, places: Tensor) -> Tensor:
        """What `Bank.gather` gives for int64 [N, 2] of `Bank.places`: uint8 [N, S, S, 3]."""
        first, step = places.view(-1, 2, 1, 1).unbind(1)  # [N, 1, 1] each
        index = first + self._rows * step + self._bytes  # [N, S, 3 S]
        side = self._rows.shape[1]
        return self._flat[index].view(-1, side, side, 3)
