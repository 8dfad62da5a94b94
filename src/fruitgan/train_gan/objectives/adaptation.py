"""How strongly a discriminator's images are changed, decided by how sure it is of the real ones (Karras et al. 2020, ADA)."""

from __future__ import annotations

import torch
from torch import Tensor

from fruitgan.runs.checkpoint import State

EVERY_STEPS = 4  # Karras et al. 2020, appendix D
IMAGES_TO_FULL = 50_000  # real images in which the strength could go from 0 to 1; 500,000 there, for trainings 100 times longer
STRONGEST = 0.8


class AdaptiveStrength:
    """The probability p of each change; on its device, where nothing waits for the host.

    With r the mean sign of the real images' logits about the line between real and generated, over EVERY_STEPS steps:
    p <- clip(p + sign(r - target) EVERY_STEPS n / IMAGES_TO_FULL, 0, STRONGEST), n real images a step. Karras et al. 2020,
    section 3.1, r_t of equation 1.
    """

    def __init__(self, target: float) -> None:
        self.target = target
        self._values = torch.zeros(3)  # p, the sum of r, the steps in it
        self._before = torch.zeros(3)

    def on(self, device: torch.device) -> Tensor:
        """The strength now, a scalar."""
        if self._values.device != device:  # at the first step; a restored one comes from the host
            self._values, self._before = self._values.to(device), self._before.to(device)
        return self._values[0]

    @torch.no_grad()
    def observe(self, certainty: Tensor, images: int) -> None:
        """Take in a step's r, a scalar in [-1, 1], found on so many real images."""
        p, total, steps = self._values.unbind()
        total, steps = total + certainty, steps + 1
        due = steps >= EVERY_STEPS
        way = torch.sign(total / steps - self.target) * (EVERY_STEPS * images / IMAGES_TO_FULL)
        p = torch.where(due, (p + way).clamp(0.0, STRONGEST), p)
        self._values.copy_(torch.stack([p, torch.where(due, 0.0, total), torch.where(due, 0.0, steps)]))

    @torch.no_grad()
    def settle(self, ok: Tensor) -> None:
        """Keep what was taken in since the last call if the scalar `ok` is 1, forget it if it is 0."""
        self._values.copy_(torch.where(ok > 0, self._values, self._before))
        self._before.copy_(self._values)

    def state(self) -> State:
        return {"values": self._values}

    def restore(self, state: State) -> None:
        values = state["values"]
        if values.shape != (3,) or not bool(((values >= -EVERY_STEPS) & (values <= EVERY_STEPS)).all()):
            raise ValueError("it is no strength of changes")
        self._values = values.clone().float()
        self._before = self._values.clone()
