"""The loop. It trains and yields; it prints nothing and saves nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from fruitgan import randomness
from fruitgan.device import Precision, autocast
from fruitgan.errors import FruitganError
from fruitgan.models.contracts import Generator
from fruitgan.objectives.contracts import Objective, State, Stateful
from fruitgan.training.averaging import Average
from fruitgan.training.feed import Feed
from fruitgan.training.optimizer import PlayerAdam
from fruitgan.training.recipe import Recipe
from fruitgan.training.schedules import Clock


class LossNotFinite(FruitganError):
    """A loss or a gradient became infinite or not a number; the weights are those before."""


@dataclass(frozen=True)
class StepReport:
    """What a step tells. `losses` (means by term since the last report of losses) only every `log_every` steps."""

    step: int
    learning_rate: float
    losses: Mapping[str, float] | None


class Trainer:
    """Trains an objective by a recipe, one step after another, each a function of (seed, step, state).

    A step whose loss or gradient is not finite changes nothing; that is decided on the device, and learned here when losses are
    logged.

    Args:
        total_steps: of the whole training; schedules are shares of it.
    """

    def __init__(
        self,
        objective: Objective,
        recipe: Recipe,
        feed: Feed,
        *,
        total_steps: int,
        steps_per_epoch: int,
        seed: int,
        device: torch.device,
        precision: Precision,
        log_every: int,
    ) -> None:
        objective.to(device)
        self.objective = objective
        self.recipe = recipe
        self.feed = feed
        self.total_steps = total_steps
        self.steps_per_epoch = steps_per_epoch
        self.seed = seed
        self.device = device
        self.precision = precision
        self.log_every = log_every
        self.step = 0
        networks = objective.networks
        self.optimizers = {
            player.name: PlayerAdam(
                [p for name in player.networks for p in networks[name].parameters()], recipe.optimizers[player.name]
            )
            for player in objective.players
        }
        generators = {name: networks[name] for name in objective.generators.values()}
        self.average = Average(generators, recipe.averaging) if recipe.averaging is not None else None
        self._buffers = list(networks.buffers())
        self._sums: dict[str, Tensor] = {}
        self._since_log = 0
        self._left_out = torch.zeros((), device=device)

    def generator(self, direction: str) -> Generator:
        """What a user gets: the averaged generator, or the trained one where the recipe has no averaging."""
        name = self.objective.generators[direction]
        return cast(Generator, self.average.networks[name] if self.average else self.objective.networks[name])

    def steps(self, until: int) -> Iterator[StepReport]:
        """Train up to `until` steps in all and tell of each.

        Raises:
            LossNotFinite: at a step that logs, naming the terms.
        """
        self.objective.networks.train()
        while self.step < until:
            yield self._one_step()

    def _one_step(self) -> StepReport:
        learning_rate, weights = self._fill_scalars()
        torch.manual_seed(randomness.torch_seed(self.seed, self.step, "dropout"))
        batch = self.feed.batch(self.step, self.objective.draws)
        losses: dict[str, Tensor] = {}
        buffers = [buffer.clone() for buffer in self._buffers]  # a forward moves them: spectral norm's vectors, running means
        with autocast(self.device, self.precision):
            prepared = self.objective.prepare(batch, self.objective.variant(weights))
        for player in self.objective.players:
            with autocast(self.device, self.precision):
                terms = player.loss(prepared)
            total = torch.stack(list(terms.values())).sum()
            torch.autograd.backward(total, inputs=self.optimizers[player.name].parameters)
            losses |= {name: loss.detach() for name, loss in terms.items()}
        ok = self._all_finite(list(losses.values()))
        for buffer, before in zip(self._buffers, buffers, strict=True):
            buffer.copy_(torch.where(ok > 0, buffer, before))
        self._apply(ok)
        for name, loss in losses.items():
            self._sums[name] = self._sums.get(name, torch.zeros_like(loss)) + loss
        self._left_out += 1 - ok
        self._since_log += 1
        self.step += 1
        logged = self._logged() if self.step % self.log_every == 0 or self.step == self.total_steps else None
        return StepReport(self.step, learning_rate, logged)

    def _fill_scalars(self) -> tuple[float, dict[str, float]]:
        """Put this step's values where the step reads them; the first player's learning rate, and the loss weights."""
        clock = Clock(self.step, self.total_steps, self.steps_per_epoch)
        weights = {name: schedule.at(clock) for name, schedule in self.recipe.weights.items()}
        for name, value in weights.items():
            self.objective.weights[name].fill_(value)
        factor = self.recipe.learning_rate.at(clock)
        for optimizer in self.optimizers.values():
            optimizer.learning_rate.fill_(factor * optimizer.settings.learning_rate)
        return factor * self.recipe.optimizers[self.objective.players[0].name].learning_rate, weights

    @torch.no_grad()
    def _all_finite(self, losses: list[Tensor]) -> Tensor:
        """1 if every loss and every gradient is finite, else 0, as a scalar on the device."""
        gradients = [gradient for optimizer in self.optimizers.values() for gradient in optimizer.gradients]
        # A norm is not finite where an element is not (or overflows, which is as good a reason to leave the step out).
        norms = torch.stack(torch._foreach_norm(gradients)).sum()
        return torch.isfinite(norms + torch.stack(losses).sum()).float()

    def _apply(self, ok: Tensor) -> None:
        for optimizer in self.optimizers.values():
            optimizer.step(ok)
        for extra in self.objective.extras.values():
            extra.settle(ok)
        if self.average is not None:
            self.average.update(ok)

    def _logged(self) -> dict[str, float]:
        self.confirm()
        losses = {name: float(total) / self._since_log for name, total in self._sums.items()}
        self._sums = {}
        self._since_log = 0
        return losses

    def confirm(self) -> None:
        """Look whether a step was left out since the last look; call it before anything is saved.

        Raises:
            LossNotFinite: naming the terms that were not finite.
        """
        if not float(self._left_out):
            return
        wrong = [name for name, total in self._sums.items() if not torch.isfinite(total)]
        terms = ", ".join(wrong) if wrong else "a gradient"
        raise LossNotFinite(
            f"not finite in the last {self._since_log} steps before step {self.step}: {terms}; no such step is kept; "
            "start anew with --precision fp32 or another --seed"
        )

    def stateful(self) -> dict[str, Stateful]:
        """Every part that influences the next step, by name."""
        parts: dict[str, Stateful] = {"trainer": self}
        parts |= {f"network.{name}": NetworkState(network) for name, network in self.objective.networks.items()}
        parts |= {f"optimizer.{name}": optimizer for name, optimizer in self.optimizers.items()}
        parts |= {f"extra.{name}": extra for name, extra in self.objective.extras.items()}
        if self.average is not None:
            parts["average"] = self.average
        return parts

    def state(self) -> State:
        return {"step": self.step, "since_log": self._since_log} | {f"sum.{name}": v for name, v in self._sums.items()}

    def restore(self, state: State) -> None:
        self.step = state["step"]
        self._since_log = state["since_log"]
        self._sums = {k.removeprefix("sum."): v.to(self.device) for k, v in state.items() if k.startswith("sum.")}


class NetworkState:
    """A network as a part of a checkpoint."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def state(self) -> State:
        return dict(self.network.state_dict())

    def restore(self, state: State) -> None:
        self.network.load_state_dict(state)
