"""The training loop: takes steps and yields a report of each; it prints nothing and saves nothing."""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.profiler import record_function

from fruitgan import randomness
from fruitgan.data.loader import BatchBuffer, Loader
from fruitgan.device import autocast, memory_format_of
from fruitgan.distributed import ranks
from fruitgan.errors import FruitganError
from fruitgan.networks.backbones import frozen_sums
from fruitgan.networks.contracts import Generator
from fruitgan.networks.divided import divide
from fruitgan.runs.checkpoint import State, Stateful
from fruitgan.settings import Precision
from fruitgan.train_gan.cuda_graphs import CudaGraphs, StepRunner
from fruitgan.train_gan.ema import EMA, PlayerAdam
from fruitgan.train_gan.objectives.contracts import Objective
from fruitgan.train_gan.recipe import Clock, Recipe

STAGE = "fruitgan: "
"""How the names of a step's stages begin in a profile."""


def stage(name: str) -> record_function:
    """Name a part of the step for the profiler, in a `with`."""
    return record_function(STAGE + name)


class LossNotFinite(FruitganError):
    """A loss or a gradient became infinite or not a number; the weights are those before.

    Args:
        step: at which it was found.
        among_steps: within how many last steps it was found.
        terms: of the losses; none where a gradient alone was not finite.
        rollbacks: how often the run had gone back before.
    """

    is_everywhere = True

    def __init__(self, step: int, among_steps: int, terms: Sequence[str], rollbacks: int) -> None:
        self.step = step
        self.terms = tuple(terms) or ("a gradient",)
        before = f"the run has gone back {rollbacks} times already; " if rollbacks else ""
        super().__init__(
            f"not finite in the last {among_steps} steps before step {step}: {', '.join(self.terms)}; no such step is kept; "
            f"{before}start anew with --precision fp32 or another --seed"
            + ("" if rollbacks else ", or go on from the last checkpoint with --resume and --on-nan rollback")
        )


@dataclass(frozen=True)
class StepReport:
    """A step's number and learning rate; `losses` (means by term since the last report with losses) every `log_every` steps."""

    step: int
    learning_rate: float
    losses: Mapping[str, float] | None


@dataclass(eq=False)
class Trainer:
    """Trains an objective by a recipe, one step after another, each a function of (seed, step, state).

    A step whose loss or gradient is not finite changes nothing; that is decided on the device, and known here when losses are
    logged.
    """

    objective: Objective
    recipe: Recipe
    loader: Loader
    _: KW_ONLY
    total_steps: int
    """Of the whole training; schedules are shares of it."""
    steps_per_epoch: int
    seed: int
    device: torch.device
    precision: Precision
    log_every: int
    capture: CudaGraphs | None = None
    """What makes a step repeatable without launching it anew; None: every step runs as it is."""
    note: str | None = None
    """Why no steps are captured although they were to be; None: nothing to note."""

    def __post_init__(self) -> None:
        networks = self.objective.networks
        self.objective.to(self.device)
        networks.to(memory_format=memory_format_of(self.device))
        divide(networks)
        self.step = 0
        self.rollbacks: list[dict[str, Any]] = []
        self.optimizers = {
            player.name: PlayerAdam(
                [p for name in player.networks for p in networks[name].parameters()], self.recipe.optimizers[player.name]
            )
            for player in self.objective.players
        }
        generators = {name: networks[name] for name in self.objective.generators.values()}
        self.ema = EMA(generators, self.recipe.ema_decay) if self.recipe.ema_decay is not None else None
        kept = networks.state_dict(keep_vars=True)
        self._buffers = [buffer for name, buffer in networks.named_buffers() if name in kept]  # a backbone's are frozen
        self._inputs = BatchBuffer(self.loader, self.device)
        self._sums: dict[str, Tensor] = {}
        self._counts: collections.Counter[str] = collections.Counter()
        self._terms: dict[frozenset[str], tuple[str, ...]] = {}
        self._run = StepRunner(self._work, self.capture, self._recover)
        self._since_log = 0
        self._left_out = torch.zeros((), device=self.device)

    def generator(self, direction: str) -> Generator:
        """What a user gets: the EMA generator, or the trained one where the recipe has no EMA."""
        name = self.objective.generators[direction]
        return cast(Generator, self.ema.networks[name] if self.ema else self.objective.networks[name])

    @property
    def learning_rate(self) -> float:
        """Of the first player in the next step."""
        factor = self.recipe.learning_rate.at(Clock(self.step, self.total_steps, self.steps_per_epoch))
        return factor * self.recipe.optimizers[self.objective.players[0].name].learning_rate

    def draw_anew(self, rollbacks: list[dict[str, Any]]) -> None:
        """From here on draw by the seed of so many rollbacks; the state keeps them, as JSON values."""
        self.rollbacks = rollbacks
        self.loader.reseed(self._seed)

    @property
    def _seed(self) -> int:
        return randomness.another_seed(self.seed, len(self.rollbacks))

    @property
    def _gradients(self) -> list[Tensor]:
        return [gradient for optimizer in self.optimizers.values() for gradient in optimizer.gradients]

    def steps(self, until: int) -> Iterator[StepReport]:
        """Train up to `until` steps in all, and report each.

        Raises:
            LossNotFinite: at a step that logs, naming the terms.
        """
        self.objective.networks.train()
        while self.step < until:
            yield self._one_step()

    def _one_step(self) -> StepReport:
        clock = Clock(self.step, self.total_steps, self.steps_per_epoch)
        weights = {name: self.recipe.weights[name].at(clock) for name in self.objective.weights}
        for name, value in weights.items():
            self.objective.weights[name].fill_(value)
        if self.ema is not None:
            self.ema.begin_step()
        learning_rate = self.learning_rate
        for optimizer in self.optimizers.values():
            optimizer.learning_rate.fill_(self.recipe.learning_rate.at(clock) * optimizer.settings.learning_rate)
        torch.manual_seed(randomness.torch_seed(self._seed, self.step, "dropout"))
        with stage("draw"):
            self._inputs.load(self.step, self.objective.draws, in_place=self._run.keeps_inputs_in_place)
        variant = self.objective.variant(weights)
        self._run(variant)
        self._counts.update(self._terms[variant])
        self._since_log += 1
        self.step += 1
        logged = self._logged() if self.step % self.log_every == 0 or self.step == self.total_steps else None
        return StepReport(self.step, learning_rate, logged)

    def _work(self, variant: frozenset[str]) -> None:
        """The step on the device: reads and writes tensors that stay in their places, and never waits for the device."""
        losses: dict[str, Tensor] = {}
        buffers = self._flat_buffers()  # a forward moves them: spectral norm's vectors, running means
        with stage("batch"):
            batch = self._inputs.batch()
        with stage("images forward"), autocast(self.device, self.precision):
            prepared = self.objective.prepare(batch, variant)
        for player in self.objective.players:
            with stage(f"{player.name} loss"), autocast(self.device, self.precision):
                terms = player.loss(prepared)
            with stage(f"{player.name} backward"):
                total = torch.stack(list(terms.values())).sum()
                torch.autograd.backward(total, inputs=self.optimizers[player.name].parameters)
            losses |= {name: loss.detach() for name, loss in terms.items()}
        if ranks().is_group:
            with stage("all-reduce"):
                losses = self._averaged(losses)
        with stage("all finite"):
            ok = self._all_finite(list(losses.values()))
        if self._buffers:
            kept = torch.where(ok > 0, self._flat_buffers(), buffers)
            parts = torch.split(kept, [buffer.numel() for buffer in self._buffers])
            torch._foreach_copy_(self._buffers, [part.view_as(old) for part, old in zip(parts, self._buffers, strict=True)])
        with stage("optimise"):
            for optimizer in self.optimizers.values():
                optimizer.step(ok)
        for extra in self.objective.extras.values():
            extra.settle(ok)
        if self.ema is not None:
            with stage("ema"):
                self.ema.update(ok)
        for name, loss in losses.items():
            if name not in self._sums:
                self._sums[name] = torch.zeros_like(loss)
            self._sums[name].add_(loss)
        self._left_out.add_(1 - ok)
        self._terms[variant] = tuple(losses)

    def _flat_buffers(self) -> Tensor:
        """All buffers behind one another, since a kernel for each of `fruit`'s sixty would take longer than its work."""
        return torch.cat([torch.zeros(0, device=self.device), *(buffer.flatten() for buffer in self._buffers)])

    @torch.no_grad()
    def _averaged(self, losses: dict[str, Tensor]) -> dict[str, Tensor]:
        """The losses as means over all processes' images, and the gradients with them, by one all-reduce."""
        means = torch.stack(list(losses.values()))
        parts = [*self._gradients, means]
        ranks().add(parts)
        torch._foreach_div_(parts, ranks().world)
        return dict(zip(losses, means.unbind(), strict=True))

    def _recover(self, reason: str) -> None:
        """Take back what half a step may have left behind on the host."""
        self.note = f"training without CUDA graphs, more slowly: this step cannot be captured ({reason})"
        for optimizer in self.optimizers.values():
            optimizer.drop_gradients()
        for extra in self.objective.extras.values():
            extra.restore(extra.state())

    @torch.no_grad()
    def _all_finite(self, losses: list[Tensor]) -> Tensor:
        """1 if every loss and every gradient is finite, else 0, as a scalar on the device."""
        # A norm is not finite where an element is not (or overflows, which is as good a reason to leave the step out).
        norms = torch.stack(torch._foreach_norm(self._gradients)).sum()
        return torch.isfinite(norms + torch.stack(losses).sum()).float()

    def _logged(self) -> dict[str, float]:
        self.confirm()
        losses = {name: float(self._sums[name]) / count for name, count in self._counts.items()}
        for total in self._sums.values():
            total.zero_()
        self._counts.clear()
        self._since_log = 0
        return losses

    def confirm(self) -> None:
        """Look whether a step was left out since the last look; call it before anything is saved.

        Raises:
            LossNotFinite: naming the terms that were not finite.
        """
        if not float(self._left_out):
            return
        wrong = [name for name in self._counts if not torch.isfinite(self._sums[name])]
        raise LossNotFinite(self.step, self._since_log, wrong, len(self.rollbacks))

    def stateful(self) -> dict[str, Stateful]:
        """Every part that influences the next step, by name."""
        parts: dict[str, Stateful] = {"trainer": self}
        parts |= {f"network.{name}": NetworkState(network) for name, network in self.objective.networks.items()}
        parts |= {f"optimizer.{name}": optimizer for name, optimizer in self.optimizers.items()}
        parts |= {f"extra.{name}": extra for name, extra in self.objective.extras.items()}
        if self.ema is not None:
            parts["ema"] = self.ema
        return parts

    def state(self) -> State:
        sums = {f"sum.{name}": self._sums[name] for name in self._counts}
        counts = dict(self._counts)
        return {"step": self.step, "since_log": self._since_log, "rollbacks": self.rollbacks, "counts": counts} | sums

    def restore(self, state: State) -> None:
        sums = {k.removeprefix("sum."): v.to(self.device).view(()) for k, v in state.items() if k.startswith("sum.")}
        counts = state.get("counts", dict.fromkeys(sums, state["since_log"]))
        rollbacks = state.get("rollbacks", [])
        # All of it before the first is taken over: what is refused leaves a trainer that another state can be restored to.
        if not set(counts) <= set(sums) or any(type(n) is not int or n < 1 for n in counts.values()):
            raise ValueError("the sums of its losses do not fit their counts")
        if not all(set(rollback) == {"from_step", "to_step", "terms"} for rollback in rollbacks):
            raise ValueError("what it says of going back is not understood")
        if min(state["step"], state["since_log"]) < 0:
            raise ValueError("it counts fewer steps than none")
        self.step = state["step"]
        self._since_log = state["since_log"]
        self._left_out.zero_()
        if rollbacks != self.rollbacks:
            self.draw_anew(rollbacks)
        self._sums, self._counts = sums, collections.Counter(counts)
        self._run.forget()


class NetworkState:
    """A network as a part of a checkpoint."""

    def __init__(self, network: nn.Module) -> None:
        self.network = network

    def state(self) -> State:
        """Its weights, and the sums of frozen ones, which are kept elsewhere."""
        return dict(self.network.state_dict()) | frozen_sums(self.network)

    def restore(self, state: State) -> None:
        for name, sha256 in frozen_sums(self.network).items():
            if state[name] != sha256:
                raise ValueError(f"the weights of {name} were others (sha256 {state[name][:12]}, now {sha256[:12]})")
        self.network.load_state_dict({name: value for name, value in state.items() if isinstance(value, Tensor)})
