"""Going on with a run: what may change and what may not."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fruitgan.errors import UsageError
from fruitgan.settings import from_json
from fruitgan.training.run import Run
from fruitgan.workflows.train_gan.assemble import Plan
from fruitgan.workflows.train_gan.settings import FIXED, Habits, TrainGanSettings


def merged_settings(settings: TrainGanSettings, run: Run) -> TrainGanSettings:
    """The run's settings with what may change taken from the new ones.

    Raises:
        UsageError: something that decides the mathematics was given another value.
    """
    stored = from_json(TrainGanSettings, run.config["settings"], f"{run.path}/config.json")
    for name in FIXED:
        new, old = getattr(settings, name), getattr(stored, name)
        if name == "data":
            new = absolute(new)
        elif isinstance(new, Path):
            new = new.resolve()
        if name == "precision" and new == "auto":  # the run has what the machine's choice was when it began
            continue
        if new not in (None, {}) and new != old:
            option = name.replace("_", "-")
            raise UsageError(f"--{option} cannot change in a resumed run ({run.path} has {old}); start a new one for {new}")
    fixed = {name: getattr(stored, name) for name in FIXED}
    asked_length = settings.steps is not None or settings.epochs is not None
    length = settings if asked_length else stored
    habits = dataclasses.asdict(Habits.of(settings, stored))
    deterministic = settings.deterministic or stored.deterministic
    return dataclasses.replace(
        settings, **fixed, **habits, deterministic=deterministic, steps=length.steps, epochs=length.epochs
    )


def extends(run: Run, settings: TrainGanSettings, result: Mapping[str, Any]) -> bool:
    """Whether the settings ask for more steps than the finished run has."""
    steps = settings.steps
    if steps is None and settings.epochs is not None:
        steps = settings.epochs * int(run.config["steps_per_epoch"])
    return steps is not None and steps > int(result["step"])


def resumed_plan(run: Run, settings: TrainGanSettings) -> Plan:
    """The plan of the run, so that a recipe that changed since does not change it; its length may be the new one's."""
    plan = from_json(Plan, run.config["plan"], f"{run.path}/config.json")
    if settings.steps is None and settings.epochs is None:
        return plan
    recipe = dataclasses.replace(plan.recipe, steps=settings.steps, epochs=settings.epochs)
    return dataclasses.replace(plan, recipe=recipe)


def absolute(data: str | None) -> str | None:
    """A folder's whole path, so that a run can go on from another folder; a set's name stays."""
    return str(Path(data).resolve()) if data is not None and Path(data).exists() else data
