"""Keeping a detector's training, so that it can be stopped, or killed, and gone on with."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from fruitgan.errors import FruitganError, UsageError
from fruitgan.networks.contracts import Detector
from fruitgan.runs.checkpoint import Checkpoints
from fruitgan.settings import from_json, to_json
from fruitgan.stateful import State, Stateful
from fruitgan.train_detector.epochs import Round

COST_OF_SAVING = 0.05
"""The share of the time that saving may take: a detector may be small and its steps quick, or have 500 MB of weights."""


class NothingToJudge(FruitganError):
    """Asked to stop before there was a first round."""


class History:
    """The rounds so far, and the detector's weights after the best of them."""

    def __init__(self) -> None:
        self.rounds: list[Round] = []
        self.weights: dict[str, Tensor] = {}
        """On the host: a second copy of 540 MB is not to fill a GPU."""

    @property
    def best(self) -> Round | None:
        return next((found for found in reversed(self.rounds) if found.is_best), None)

    def is_gain(self, val_loss: float) -> bool:
        return self.best is None or val_loss < self.best.val_loss

    def add(self, found: Round, detector: Detector) -> None:
        self.rounds.append(found)
        if found.is_best:
            self.weights = {name: tensor.detach().to("cpu", copy=True) for name, tensor in detector.state_dict().items()}

    def give_best(self, detector: Detector) -> Round:
        """Load the best weights.

        Raises:
            NothingToJudge: there is no round yet.
        """
        if self.best is None:
            raise NothingToJudge("stopped before the end of the first epoch; there is nothing to judge yet")
        detector.load_state_dict(self.weights)
        return self.best

    def state(self) -> State:
        return {"rounds": to_json(self.rounds)} | {f"best.{name}": tensor for name, tensor in self.weights.items()}

    def restore(self, state: State) -> None:
        try:
            rounds = [from_json(Round, entry, "a round") for entry in state["rounds"]]
        except UsageError as error:
            raise ValueError(str(error)) from error
        weights = {key.removeprefix("best."): value for key, value in state.items() if key.startswith("best.")}
        if [found.number for found in rounds] != list(range(1, len(rounds) + 1)) or bool(rounds) != bool(weights):
            raise ValueError("its rounds do not follow each other")
        if rounds and not rounds[0].is_best:
            raise ValueError("its rounds have no best one")
        self.rounds, self.weights = rounds, weights


class OptimizerState:
    """One of torch's optimisers as a part of a checkpoint; it has no state before its first step."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer

    def state(self) -> State:
        moments: Mapping[int, Mapping[str, Tensor]] = self.optimizer.state_dict()["state"]
        return {f"{index}.{key}": value for index, kept in moments.items() for key, value in kept.items()}

    def restore(self, state: State) -> None:
        moments: dict[int, dict[str, Any]] = {}
        for name, value in state.items():
            index, _, key = name.partition(".")
            moments.setdefault(int(index), {})[key] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})


class Keeper:
    """Told of a training's state; this one keeps nothing, and lets it run to its end."""

    def take_up(self, parts: Mapping[str, Stateful], history: History) -> None:
        """Called before the first step: the parts, with the history among them, may be restored to an earlier state."""

    def ends(self, step: int, parts: Mapping[str, Stateful]) -> bool:
        """Called after each step within a round: whether to stop here."""
        return False

    def keep(self, step: int, parts: Mapping[str, Stateful], *, is_end: bool) -> None:
        """Called after each round, and where the training stops."""


class CheckpointKeeper(Keeper):
    """Saves checkpoints, and goes on from the newest: after each round, and within long ones by time."""

    def __init__(
        self,
        checkpoints: Checkpoints,
        every_seconds: float,
        *,
        on_taken_up: Callable[[Sequence[Round], int, Sequence[str]], None],
        on_step: Callable[[], bool],
    ) -> None:
        """With `every_seconds` 0 each step is saved, whatever that costs.

        `on_taken_up` is told of the rounds that are done, the step, and what was noticed; `on_step` says whether to stop.
        """
        self.checkpoints = checkpoints
        self.every_seconds = every_seconds
        self.on_taken_up = on_taken_up
        self.on_step = on_step
        self.saved_step = 0
        self.saved_at = time.monotonic()
        self.pause_seconds = 0.0
        """After which saving takes no more than its share of the time."""

    def take_up(self, parts: Mapping[str, Stateful], history: History) -> None:
        self.saved_step, notes = self.checkpoints.restore_newest(parts)
        self.on_taken_up(history.rounds, self.saved_step, notes)

    def ends(self, step: int, parts: Mapping[str, Stateful]) -> bool:
        stop = self.on_step()
        if stop or time.monotonic() - self.saved_at >= max(self.every_seconds, self.pause_seconds):
            self._save(step, parts)
        return stop

    def keep(self, step: int, parts: Mapping[str, Stateful], *, is_end: bool) -> None:
        if is_end or time.monotonic() - self.saved_at >= self.pause_seconds:
            self._save(step, parts)

    def _save(self, step: int, parts: Mapping[str, Stateful]) -> None:
        if step == self.saved_step:
            return
        began = time.monotonic()
        self.checkpoints.save(step, parts)
        self.saved_step, self.saved_at = step, time.monotonic()
        self.pause_seconds = (self.saved_at - began) / COST_OF_SAVING if self.every_seconds else 0.0
