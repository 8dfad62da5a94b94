"""A recipe is a value: all that decides what a training computes, and why; read from a name, a TOML file and changed fields."""

from __future__ import annotations

import json
import math
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from fruitgan.errors import UsageError
from fruitgan.images import Fit
from fruitgan.registry import Registry
from fruitgan.settings import Precision, from_json, read_toml, to_json

Pairing = Literal["random-b", "zip", "passes"]
Resample = Literal["nearest", "bilinear", "bicubic", "lanczos"]
PARTS = ("objective", "generator", "discriminator", "augmentation")
LENGTHS = ("steps", "epochs")
"""Of these the one given last counts."""
PLAIN_RATES = 0.1
"""A constant below this is a learning rate, and no factor on one."""


@dataclass(frozen=True)
class Clock:
    """Where training stands: steps done and to do in all, and how many make an epoch."""

    step: int
    total_steps: int
    steps_per_epoch: int


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How a number changes during training: `start` up to the share `begin` of it, then to `end` at the share `finish`.

    With `unit` "epoch" the value changes between epochs alone, and one epoch past the last would be the first at `end`: with
    start 1, end 0, begin 1/2 and 200 epochs that is the reference's 1 - max(0, e + 1 - 100) / 101, e from 0.
    """

    start: float
    end: float
    begin: float = 0.0
    finish: float = 1.0
    shape: Literal["linear", "cosine"] = "linear"
    unit: Literal["step", "epoch"] = "step"

    def __post_init__(self) -> None:
        if not 0 <= self.begin <= self.finish <= 1:
            raise UsageError(f"schedule: begin {self.begin} and finish {self.finish} must rise within 0 to 1")
        if min(self.start, self.end) < 0:
            raise UsageError(f"schedule: from {self.start:g} to {self.end:g}; 0 or more is needed")

    def at(self, clock: Clock) -> float:
        """The value for the step that follows `clock.step` done ones."""
        if self.unit == "epoch":
            epochs = max(1, math.ceil(clock.total_steps / clock.steps_per_epoch))  # the last one may be cut off
            first, last = math.ceil(epochs * self.begin), math.ceil(epochs * self.finish)
            share = max(0, clock.step // clock.steps_per_epoch + 1 - first) / (last - first + 1)
        else:
            past, length = clock.step / max(1, clock.total_steps) - self.begin, self.finish - self.begin
            share = max(0.0, past / length) if length else float(past >= 0)
        share = min(1.0, share)
        if self.shape == "cosine":
            share = (1 - math.cos(math.pi * share)) / 2
        return self.start + (self.end - self.start) * share


def constant(value: float) -> Schedule:
    return Schedule(start=value, end=value)


def until(share: float, value: float) -> Schedule:
    """`value` for the first `share` of the training, then 0."""
    return Schedule(start=value, end=0.0, begin=share, finish=share)


@dataclass(frozen=True, kw_only=True)
class Part:
    """A registered thing by name, with the options that differ from its defaults."""

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Adam:
    """Kingma & Ba 2015, algorithm 1, for one player."""

    learning_rate: float = 2e-4
    beta_1: float = 0.5
    beta_2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate <= 1:
            raise UsageError(f"learning_rate {self.learning_rate:g}: expected more than 0 and at most 1, such as 2e-4")
        if not (0 <= self.beta_1 < 1 and 0 <= self.beta_2 < 1 and self.epsilon > 0):
            raise UsageError("optimizer: beta_1 and beta_2 are at least 0 and below 1, epsilon is more than 0")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What `train-gan --recipe` names. Durations are in epochs or, where `steps` is set, in steps."""

    summary: str = ""
    why: Mapping[str, str] = field(default_factory=dict)
    """Reasons by field, for people."""
    objective: Part
    generator: Part
    discriminator: Part
    augmentation: Part
    weights: Mapping[str, Schedule]
    """The objective's loss weights over the training."""
    optimizers: Mapping[str, Adam]
    """By player."""
    learning_rate: Schedule
    """A factor on every optimiser's learning rate."""
    ema_decay: float | None = None
    """Limit of the decay of the generators' exponential moving average; None: the last weights are the result."""
    pairing: Pairing
    resample: Resample
    fit: Fit
    image_size_px: int
    batch_size: int
    epochs: int | None = None
    steps: int | None = None
    precision: Precision = "fp32"

    def __post_init__(self) -> None:
        for name in ("image_size_px", "batch_size", *LENGTHS):
            if (value := getattr(self, name)) is not None and value < 1:
                raise UsageError(f"{name} {value}: 1 or more is needed")
        if self.ema_decay is not None and not 0 <= self.ema_decay < 1:
            raise UsageError(f"ema_decay {self.ema_decay:g}: at least 0 and below 1, or none")

    def total_steps(self, steps_per_epoch: int) -> int:
        return self.steps if self.steps is not None else (self.epochs or 1) * steps_per_epoch


recipes: Registry[Recipe] = Registry("recipes")


def resolve_recipe(
    name: str, changes: Mapping[str, str], learning_rate: float | None = None, cycle_weight: str | None = None
) -> tuple[str, Recipe]:
    """A recipe by name or from a TOML file, changed field by field, with its name.

    Args:
        name: a registered name, or the path of a .toml file, which may begin with `extends = "NAME"`.
        changes: values by the dotted names of fields, as typed: `weights.cycle` to `5`.
        learning_rate: of the first player, the generators; the others keep their ratio to it.
        cycle_weight: `5`, or `8:2` for a weight that falls linearly.

    Raises:
        UsageError: an unknown name or field, or a value of another type.
        DataError: the file cannot be read.
    """
    if name.endswith(".toml"):
        file = read_toml(Path(name))
        base = file.pop("extends", None)
        table = {} if base is None else to_json(recipes.get(str(base)))
        for path, value in _leaves(file):
            _put(table, path, value, name)
        name = Path(name).stem
    else:
        table, base = to_json(recipes.get(name)), name
    try:
        recipe = from_json(Recipe, table, "recipe")
    except UsageError as error:
        hint = "" if base is not None else '; or begin the file with extends = "fast" and give what differs'
        raise UsageError(f"{name}.toml: {error}{hint}") from error
    return name, changed_recipe(recipe, changes, learning_rate, cycle_weight)


def changed_recipe(
    recipe: Recipe, changes: Mapping[str, Any], learning_rate: float | None = None, cycle_weight: str | None = None
) -> Recipe:
    """The recipe with changes on top, as `resolve_recipe` says; a field that changed loses its reason.

    Raises:
        UsageError: an unknown field, or a value of another type.
    """
    before = to_json(recipe)
    table = to_json(recipe)
    for key, text in changes.items():
        what = f"--set {key}={text}"
        _put(table, tuple(key.split(".")), _toml_value(text) if isinstance(text, str) else text, what)
        try:
            from_json(Recipe, table, "recipe")
        except UsageError as error:
            raise UsageError(f"{what}: {error}") from error
    if cycle_weight is not None:
        table["weights"]["cycle"] = _typed_weight(cycle_weight)
    if learning_rate is not None:
        rates = table["optimizers"].values()
        factor = learning_rate / next(iter(rates))["learning_rate"]
        for adam in rates:
            adam["learning_rate"] *= factor
    table["why"] = {field: why for field, why in table["why"].items() if table.get(field) == before.get(field)}
    return from_json(Recipe, table, "recipe")


def changed_fields(before: Recipe, now: Recipe) -> dict[str, str]:
    """`0.0001 instead of 0.0002` by the dotted names of the fields that differ; reasons and summary apart."""

    def flat(recipe: Recipe) -> dict[str, Any]:
        table = {name: value for name, value in to_json(recipe).items() if name not in ("summary", "why")}
        table["weights"] = {name: _short(weight) for name, weight in table["weights"].items()}
        return {".".join(path): value for path, value in _leaves(table)}

    old, new = flat(before), flat(now)
    return {
        name: f"{_inline(new.get(name))} instead of {_inline(old.get(name))}"
        for name in {**old, **new}
        if old.get(name) != new.get(name)
    }


def _typed_weight(text: str) -> dict[str, float]:
    start, _, end = text.partition(":")
    try:
        weight = {"start": float(start), "end": float(end or start)}
    except ValueError:
        weight = {"start": math.nan, "end": math.nan}
    if not all(math.isfinite(value) and value >= 0 for value in weight.values()):
        raise UsageError(f"--cycle-weight {text}: expected a number such as 5, or two such as 8:2 for a weight that falls")
    return weight


def _toml_value(text: str) -> Any:
    """A value as typed: what TOML reads in it, else the text itself; `none` is nothing."""
    import tomllib

    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _is_schedule(path: tuple[str, ...]) -> bool:
    return path == ("learning_rate",) or (len(path) == 2 and path[0] == "weights")


def _leaves(table: Mapping[str, Any], above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """The values of a recipe's file by path, a part's name before its options."""
    for key in sorted(table, key=lambda key: key != "name"):
        path, value = (*above, key), table[key]
        if isinstance(value, Mapping) and not _is_schedule(path):
            yield from _leaves(value, path)
        else:
            yield path, value


def _put(table: dict[str, Any], path: tuple[str, ...], value: Any, what: str) -> None:
    """Set a field of a recipe's table; whether a recipe has such a field is for `from_json` to say."""
    if len(path) == 1 and path[0] in PARTS and isinstance(value, str):
        path = (*path, "name")
    if path == ("learning_rate",) and isinstance(value, float) and value < PLAIN_RATES:
        raise UsageError(f"{what}: this is a factor over time, from 1 to 0; for the rate itself give --learning-rate {value:g}")
    if _is_schedule(path) and isinstance(value, Mapping):
        value = {"end": value.get("start"), **value}
    elif _is_schedule(path):
        value = {"start": value, "end": value}
    *above, last = path
    node = table
    for name in above:
        node = node.setdefault(name, {})
        if not isinstance(node, dict):
            raise UsageError(f"{what}: {name} has no fields")
    if last == "name" and node.get("name") != value:
        node["options"] = {}  # the recipe's options belong to the recipe's own choice
    if path[0] in LENGTHS:
        table.update(dict.fromkeys(LENGTHS))
    node[last] = value


def recipe_toml(recipe: Recipe) -> str:
    """The TOML file that gives this recipe to `--recipe FILE.toml`, with its reasons as comments."""
    lines = [f"summary = {json.dumps(recipe.summary)}"]
    tables: list[str] = []
    for name, value in to_json(recipe).items():
        why = textwrap.wrap(recipe.why.get(name, ""), 100, initial_indent="# ", subsequent_indent="# ")
        if name in ("summary", "why"):
            continue
        if value is None:
            lines += why
        elif name in PARTS:
            options = [f"options = {_inline(value['options'])}"] if value["options"] else []
            tables += ["", *why, f"[{name}]", f"name = {json.dumps(value['name'])}", *options]
        elif name == "weights":
            tables += ["", *why, "[weights]", *(f"{key} = {_inline(_short(weight))}" for key, weight in value.items())]
        elif name == "optimizers":
            tables += ["", *why]
            for player, adam in value.items():
                tables += [f"[optimizers.{player}]", *(f"{key} = {number}" for key, number in adam.items())]
        else:
            lines += [*why, f"{name} = {_inline(_short(value))}"]
    return "\n".join([*lines, *tables]) + "\n"


def _short(value: Any) -> Any:
    """A schedule without its defaults, or as a number where it is constant; anything else as it is."""
    if not isinstance(value, Mapping):
        return value
    schedule = from_json(Schedule, value)
    if schedule == constant(schedule.start):
        return schedule.start
    defaults = {field.name: field.default for field in fields(Schedule)}
    return {key: entry for key, entry in value.items() if entry != defaults[key]}


def _inline(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{ " + ", ".join(f"{key} = {_inline(entry)}" for key, entry in value.items()) + " }" if value else "{}"
    return json.dumps(value)
