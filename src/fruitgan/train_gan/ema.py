"""Averaged generators: smoother than the last step's (Yazici et al. 2019; Karras et al. 2018)."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from fruitgan.runs.checkpoint import State


def averaging_factor(updates: int, limit: float) -> float:
    """min(limit, (1 + n) / (10 + n)): after n updates; the ramp forgets the untrained start."""
    return min(limit, (1 + updates) / (10 + updates))


class Average:
    """An exponential moving average of networks' weights; buffers are taken over as they are."""

    def __init__(self, networks: Mapping[str, nn.Module], limit: float) -> None:
        self.networks = {name: copy.deepcopy(network).requires_grad_(False).eval() for name, network in networks.items()}
        self.limit = limit
        self.updates = 0
        """Steps taken over, those that did not count included."""
        self._mine: list[Tensor] = [p for name in networks for p in self.networks[name].parameters()]
        self._theirs: list[Tensor] = [p for network in networks.values() for p in network.parameters()]
        self._buffers = [
            pair
            for name, network in networks.items()
            for pair in zip(self.networks[name].buffers(), network.buffers(), strict=True)
        ]

        self._weight = torch.zeros((), dtype=self._mine[0].dtype, device=self._mine[0].device)

    def begin_step(self) -> None:
        """Put this step's weight where `update` reads it; outside of what is captured and repeated."""
        self._weight.fill_(1 - averaging_factor(self.updates, self.limit))
        self.updates += 1

    @torch.no_grad()
    def update(self, ok: Tensor) -> None:
        """w <- w + (1 - factor) ok (theirs - w); `ok` is a scalar, 0 where the step does not count."""
        weight = ok.to(self._weight.dtype) * self._weight
        # Not _foreach_lerp_: that reads the weight back to the host.
        ways = torch._foreach_sub(self._theirs, self._mine)
        torch._foreach_mul_(ways, weight)
        torch._foreach_add_(self._mine, ways)
        for mine, theirs in self._buffers:
            mine.copy_(theirs)

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
