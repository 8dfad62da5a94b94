"""How a step moves weights: Adam for each player, and the exponential moving average (EMA) of generator weights."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.optim.adam import adam

from fruitgan.runs.checkpoint import State
from fruitgan.train_gan.recipe import Adam

MOVES_ANYWAY = ("mps",)
"""Where torch's fused Adam takes no notice of `found_inf`, so that what does not count is taken back."""


class PlayerAdam:
    """Kingma & Ba 2015, algorithm 1, by torch's fused kernels.

    They are called without torch's optimiser class, whose making alone imports torch's compiler (seconds, before the first
    step), and which takes neither the learning rate nor whether the step counts from the device.
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
        """Move by the gradients if the scalar `ok` is 1, change nothing if it is 0; then drop the gradients."""
        kept = [*self.parameters, *self.means, *self.squares] if ok.device.type in MOVES_ANYWAY else []
        before = [tensor.clone() for tensor in kept]
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
        for tensor, old in zip(kept, before, strict=True):
            tensor.copy_(torch.where(ok > 0, tensor, old))
        self.drop_gradients()

    def drop_gradients(self) -> None:
        for p in self.parameters:
            p.grad = None

    def state(self) -> State:
        """The counts and means of each parameter; without momentum the mean of the gradients is the last one, and left out."""
        named = {"step": self.counts, "exp_avg_sq": self.squares} | ({"exp_avg": self.means} if self.settings.beta_1 else {})
        return {f"{index}.{key}": value for key, values in named.items() for index, value in enumerate(values)}

    def restore(self, state: State) -> None:
        for key, value in self.state().items():
            value.copy_(state[key])


def decay_after(updates: int, ema_decay: float) -> float:
    """min(ema_decay, (1 + n) / (10 + n)) after n updates: the ramp forgets the untrained start."""
    return min(ema_decay, (1 + updates) / (10 + updates))


class EMA:
    """Exponential moving average of networks' weights (Yazici et al. 2019; Karras et al. 2018); buffers are copied.

    Each step: `begin_step()`, the optimisers' steps, `update(ok)`. `networks` then has the averages.
    """

    def __init__(self, networks: Mapping[str, nn.Module], ema_decay: float) -> None:
        self.networks = {name: copy.deepcopy(network).requires_grad_(False).eval() for name, network in networks.items()}
        self.ema_decay = ema_decay
        self.updates = 0
        """Steps averaged over, those that did not count included."""
        self._averaged: list[Tensor] = [p for name in networks for p in self.networks[name].parameters()]
        self._trained: list[Tensor] = [p for network in networks.values() for p in network.parameters()]
        self._buffers: list[Tensor] = [b for name in networks for b in self.networks[name].buffers()]
        self._trained_buffers: list[Tensor] = [b for network in networks.values() for b in network.buffers()]
        self._weight = torch.zeros((), dtype=self._averaged[0].dtype, device=self._averaged[0].device)

    def begin_step(self) -> None:
        """Put this step's weight where `update` reads it; outside of what is captured and repeated."""
        self._weight.fill_(1 - decay_after(self.updates, self.ema_decay))
        self.updates += 1

    @torch.no_grad()
    def update(self, ok: Tensor) -> None:
        """averaged <- averaged + (1 - decay) ok (trained - averaged); `ok` is a scalar, 0 where the step does not count."""
        if not self.updates:
            raise RuntimeError("begin_step() comes before update(): it says how much the step counts")
        weight = ok.to(self._weight.dtype) * self._weight
        # Not _foreach_lerp_: that reads the weight back to the host.
        ways = torch._foreach_sub(self._trained, self._averaged)
        torch._foreach_mul_(ways, weight)
        torch._foreach_add_(self._averaged, ways)
        if self._buffers:
            torch._foreach_copy_(self._buffers, self._trained_buffers)

    def state(self) -> State:
        state: State = {"updates": self.updates}
        for name, network in self.networks.items():
            state |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
        return state

    def restore(self, state: State) -> None:
        if state["updates"] < 0:
            raise ValueError("it counts fewer updates than none")
        self.updates = state["updates"]
        for name, network in self.networks.items():
            prefix = f"{name}."
            network.load_state_dict({key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)})
