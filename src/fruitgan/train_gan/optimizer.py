"""Adam for one player, decided on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.adam import adam

from fruitgan.runs.checkpoint import State
from fruitgan.train_gan.recipe import Adam


class PlayerAdam:
    """Kingma & Ba 2015, algorithm 1, by torch's fused kernels.

    They are called without torch's optimiser class, whose making alone imports torch's compiler (seconds, before the first
    step), and which offers neither the learning rate nor the verdict on the step from the device without a back door.
    """

    def __init__(self, parameters: Sequence[Tensor], settings: Adam) -> None:
        self.parameters = list(parameters)
        self.settings = settings
        device = self.parameters[0].device
        self.learning_rate = torch.zeros((), device=device)
        """Filled before each step."""
        self.counts = [torch.zeros((), device=device) for _ in self.parameters]
        self.means = [torch.zeros_like(p) for p in self.parameters]
        self.squares = [torch.zeros_like(p) for p in self.parameters]

    @property
    def gradients(self) -> list[Tensor]:
        return [p.grad for p in self.parameters if p.grad is not None]

    @torch.no_grad()
    def step(self, ok: Tensor) -> None:
        """Move by the gradients if the scalar `ok` is 1, change nothing if it is 0; then forget the gradients."""
        moved = [index for index, p in enumerate(self.parameters) if p.grad is not None]
        adam(
            [self.parameters[index] for index in moved],
            self.gradients,
            [self.means[index] for index in moved],
            [self.squares[index] for index in moved],
            [],
            [self.counts[index] for index in moved],
            fused=True,
            found_inf=1 - ok,
            amsgrad=False,
            beta1=self.settings.beta_1,
            beta2=self.settings.beta_2,
            lr=self.learning_rate,
            weight_decay=0.0,
            eps=self.settings.epsilon,
            maximize=False,
        )
        self.forget_gradients()

    def forget_gradients(self) -> None:
        for p in self.parameters:
            p.grad = None

    def state(self) -> State:
        """The counts and means of each parameter; without momentum the mean of the gradients is the last one, and left out."""
        named = {"step": self.counts, "exp_avg_sq": self.squares} | ({"exp_avg": self.means} if self.settings.beta_1 else {})
        return {f"{index}.{key}": value for key, values in named.items() for index, value in enumerate(values)}

    def restore(self, state: State) -> None:
        for key, value in self.state().items():
            value.copy_(state[key])
