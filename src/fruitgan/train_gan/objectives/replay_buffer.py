"""Image replay buffer: past fakes that discriminators are trained on again (Shrivastava et al. 2017, section 2.3)."""

from __future__ import annotations

import torch
from torch import Tensor

from fruitgan.device import at_least_fp32
from fruitgan.errors import DataError
from fruitgan.runs.checkpoint import State


class ReplayBuffer:
    """Holds up to `size` images on their device and decides there: nothing waits for the host.

    Its tensors stay where they are from the first query on, so that a captured step can be repeated.

    While it fills, each image is kept and returned. Then, with probability 1/2, a random kept image is returned and the new
    one takes its place; else the new one is returned and not kept (as the reference: Zhu et al. 2017, section 4).
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.images: Tensor | None = None
        self.count = torch.zeros((), dtype=torch.int64)
        self._count_before = torch.zeros_like(self.count)
        self._undo: list[tuple[Tensor, Tensor]] = []

    def query(self, fakes: Tensor, draws: Tensor) -> Tensor:
        """[N, 3, H, W] fakes and [N, 2] numbers in [0, 1) to the [N, 3, H, W] images to judge.

        The first number decides whether to swap, the second with which; an image may meet one of its own batch.
        """
        fakes = at_least_fp32(fakes.detach())
        if self.images is None:
            self.images = fakes.new_zeros((self.size, *fakes.shape[1:]))
        if self.count.device != fakes.device:  # at the first step; a restored buffer comes from the host
            self.images = self.images.to(fakes.device)
            self.count, self._count_before = self.count.to(fakes.device), self._count_before.to(fakes.device)
        if self.images.shape[1:] != fakes.shape[1:] or self.images.dtype != fakes.dtype:
            raise DataError(
                f"the replay buffer holds {list(self.images.shape[1:])}, not {list(fakes.shape[1:])}: another run's"
            )
        if not self._undo:
            self._count_before.copy_(self.count)
        shown = []
        for fake, (swap, which) in zip(fakes, draws, strict=True):
            filling = self.count < self.size
            slot = torch.where(filling, self.count, (which * self.size).long().clamp(max=self.size - 1)).view(1)
            kept = self.images[slot]
            swapping = ~filling & (swap > 0.5)
            shown.append(torch.where(swapping, kept[0], fake))
            self._undo.append((slot, kept))
            self.images.index_copy_(0, slot, torch.where(filling | swapping, fake, kept[0]).unsqueeze(0))
            self.count.add_(filling)
        return torch.stack(shown)

    def settle(self, ok: Tensor) -> None:
        """Keep what was written since the last call if the scalar `ok` is 1, take it back if it is 0."""
        if self.images is None:
            return
        for slot, kept in reversed(self._undo):
            self.images.index_copy_(0, slot, torch.where(ok > 0, self.images[slot], kept))
        self.count.copy_(torch.where(ok > 0, self.count, self._count_before))
        self._undo.clear()

    def state(self) -> State:
        if self.images is None:
            return {"count": 0}
        return {"count": int(self.count), "images": self.images}

    def restore(self, state: State) -> None:
        images = state.get("images")
        filled = 0 if images is None else len(images)
        if not 0 <= state["count"] <= filled or filled not in (0, self.size) or (images is not None and images.ndim != 4):
            raise ValueError(f"{state['count']} images in a replay buffer of {filled} do not fit this one of {self.size}")
        self.images = None if images is None else images.clone()
        self.count = torch.tensor(state["count"])
        self._count_before = torch.zeros_like(self.count)
        self._undo.clear()
