"""Going on with a run: what may change and what may not, and what is told of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fruitgan.errors import UsageError
from fruitgan.runs.resume import keep_environment, resume_command
from fruitgan.runs.run import CONFIG, Run, training_config
from fruitgan.settings import to_json, typed
from fruitgan.train_gan.assemble import Plan
from fruitgan.train_gan.settings import FIXED, Habits, TrainGanResult, TrainGanSettings

MACHINE = ("deterministic", "threads")
"""With the same of these the same machine computes the same bits: a resumed run keeps them, unless it is told otherwise."""


def merged_settings(settings: TrainGanSettings, run: Run) -> TrainGanSettings:
    """The run's settings with what may change taken from the new ones.

    Raises:
        UsageError: something that decides the mathematics was given another value, or the run another name.
    """
    stored = stored_settings(run)
    if settings.name not in (None, run.path.name):
        raise UsageError(f"--name {settings.name} with --resume: {run.path} keeps its name; leave out one of the two")
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
    machine: dict[str, Any] = {name: getattr(settings, name) or getattr(stored, name) for name in MACHINE}
    return dataclasses.replace(settings, **fixed, **habits, **machine, steps=length.steps, epochs=length.epochs)


def stored_settings(run: Run) -> TrainGanSettings:
    """The settings that the run was made with, or last went on with."""
    return typed(TrainGanSettings, training_config(run)["settings"], run.path / CONFIG)


def extends(run: Run, settings: TrainGanSettings, result: TrainGanResult) -> bool:
    """Whether the settings ask for more steps than the finished run has."""
    steps = settings.steps
    if steps is None and settings.epochs is not None:
        steps = settings.epochs * int(run.config["steps_per_epoch"])
    return steps is not None and steps > result.step


def resumed_plan(run: Run, settings: TrainGanSettings) -> Plan:
    """The plan of the run, so that a recipe that changed since does not change it; its length may be the new one's."""
    plan = typed(Plan, run.config["plan"], run.path / CONFIG)
    if settings.steps is None and settings.epochs is None:
        return plan
    recipe = dataclasses.replace(plan.recipe, steps=settings.steps, epochs=settings.epochs)
    return dataclasses.replace(plan, recipe=recipe)


def absolute(data: str | None) -> str | None:
    """A folder's whole path, so that a run can go on from another folder; a set's name stays."""
    return str(Path(data).resolve()) if data is not None and Path(data).exists() else data


def resume_line(run: Path, settings: TrainGanSettings) -> str:
    """The command that goes on with a run where this one was asked to compute."""
    device = ("--gpu", settings.gpu) if settings.gpu is not None else ("--device", settings.device)
    return resume_command(run, [word for word in device if word is not None] if device[1] is not None else [])


def take_up(
    run: Run, settings: TrainGanSettings, plan: Plan, total_steps: int, step: int, here: Mapping[str, Any]
) -> list[str]:
    """Keep in the run's folder with what it goes on, and where; what of that is new, in sentences.

    Args:
        settings: merged.
        step: where it goes on.
        here: the `environment` of this sitting.
    """
    config = run.config
    stored = stored_settings(run)
    merged = {name: getattr(settings, name) for name in (*dataclasses.asdict(Habits()), *MACHINE, "steps", "epochs")}
    kept = {"total_steps": total_steps, "plan": to_json(plan), "settings": to_json(dataclasses.replace(stored, **merged))}
    notes = list(_changes(stored, settings))
    if total_steps != config["total_steps"]:
        notes.append(f"{total_steps} steps instead of {config['total_steps']}, over which the schedules are now drawn")
    if config | kept != config:
        run.write_config(config | kept)
    return ([f"goes on with {', '.join(notes)}"] if notes else []) + keep_environment(run, step, here)


def _changes(stored: TrainGanSettings, settings: TrainGanSettings) -> Iterator[str]:
    before, now = (dataclasses.asdict(Habits.of(each)) for each in (stored, settings))
    for name, value in now.items():
        if value != before[name]:
            yield f"--{name.replace('_', '-')} {value} instead of {before[name]}"
    if settings.deterministic and not stored.deterministic:
        yield "--deterministic"
