"""Which images a step sees, as a pure function of (seed, step)."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from fruitgan import randomness
from fruitgan.errors import DataError, UsageError

Pairing = Literal["random-b", "zip", "passes"]

Indices = NDArray[np.int64]


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
