"""What an objective promises to the trainer: networks, players with their losses, and what must be kept between steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from fruitgan.data.loader import Batch
from fruitgan.networks.contracts import Discriminator, Generator
from fruitgan.registry import Registry
from fruitgan.runs.checkpoint import Stateful


@dataclass(frozen=True)
class Player:
    """Networks that are updated together, and what they minimise.

    `loss` takes what `prepare` gave and returns terms by name, each a scalar already weighted; their sum is minimised over the
    player's own networks. No two players' losses share a graph: what another player made is detached.
    """

    name: str
    networks: tuple[str, ...]
    loss: Callable[[Any], Mapping[str, Tensor]]


class Replay(Stateful, Protocol):
    """An extra that is written to during `prepare` and told afterwards whether the step counted."""

    def settle(self, ok: Tensor) -> None:
        """Keep what was written since the last call if the scalar `ok` is 1, take it back if it is 0."""


class Objective(ABC):
    """Which networks play, what each minimises. All players' gradients are taken at the same weights, then all move.

    Where the fakes are made once for all players, as here, that is the same mathematics as the paper's one after another: what
    the discriminators are judged on was made, and detached, before the generators moved.
    """

    networks: nn.ModuleDict
    players: tuple[Player, ...]
    generators: Mapping[str, str]
    """The network's name by direction: what is averaged, sampled and bundled."""
    weights: Mapping[str, Tensor]
    """Loss weights by name, scalars on the device, filled by the trainer before each step from the recipe's schedules."""
    extras: Mapping[str, Replay]
    draws: Mapping[str, int]
    """How many random numbers an image it needs in each batch, by name."""

    def variant(self, weights: Mapping[str, float]) -> frozenset[str]:
        """Which parts of the step are needed at these weights; the same variant is the same computation."""
        return frozenset(name for name, weight in weights.items() if weight != 0)

    @abstractmethod
    def prepare(self, batch: Batch, variant: frozenset[str]) -> Any:
        """Run the generators once for all players."""

    def to(self, device: torch.device) -> None:
        self.networks.to(device)
        self.weights = {name: weight.to(device) for name, weight in self.weights.items()}


ObjectiveFactory = Callable[[Callable[[], Generator], Callable[[], Discriminator]], Objective]
"""Given makers of fresh networks, the objective. What an objective's builder (keyword options) returns."""

objectives: Registry[Callable[..., ObjectiveFactory]] = Registry("objectives")
