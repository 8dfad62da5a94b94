"""`fruitgan show`: a bundle's card, a run's state, or what a recipe sets and why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from fruitgan.console import Console, options
from fruitgan.errors import UsageError
from fruitgan.settings import to_json


def show(
    what: Annotated[str, typer.Argument(metavar="FILE|RUN|recipe", help="A bundle, a run, or the word recipe and its name.")],
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="The recipe's name.", show_default=False)] = None,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Where runs are looked for.")] = Path("runs/train-gan"),
    json: options.Json = False,
) -> None:
    """Show a bundle's card, a run's state, or what a recipe sets and why."""
    console = Console(json=json)
    if what == "recipe":
        _show_recipe(name, console)
        return
    if name is not None:
        raise UsageError(f"show {what} {name}: only a recipe has a second word; did you mean show recipe {name}?")
    run = next((path for path in (Path(what), out / what) if (path / "config.json").is_file()), None)
    if run is not None:
        _show_run(run, console)
    else:
        _show_bundle(what, out, console)


def _show_recipe(name: str | None, console: Console) -> None:
    import torch

    from fruitgan.train_gan.assemble import make_plan
    from fruitgan.train_gan.estimate import count_work, mean_multiply_adds
    from fruitgan.train_gan.recipe import recipe_toml, recipes
    from fruitgan.train_gan.settings import TrainGanSettings

    if name is None:
        raise UsageError(f"which recipe? Known are {', '.join(recipes.names())}")
    recipe = recipes.get(name)
    kinds = count_work(make_plan(TrainGanSettings(recipe=name, precision="fp32"), torch.device("cpu")))
    mean = mean_multiply_adds(kinds)
    console.result({"name": name, **to_json(recipe), "multiply_adds_per_step": mean, "kinds_of_step": to_json(kinds)})
    console.out(recipe_toml(recipe))
    console.out(f"# multiply-adds a step, counted: {mean / 1e9:,.1f} G in the mean")
    for kind in kinds:
        console.out(f"# {kind.share:.1%} of the steps: {kind.multiply_adds / 1e9:,.1f} G, {', '.join(kind.weights)}")


def _show_run(path: Path, console: Console) -> None:
    from fruitgan.runs.resume import resume_command
    from fruitgan.runs.run import Run, training_config
    from fruitgan.train_gan.monitor import incidents

    run = Run(path)
    config, result, entries = training_config(run), run.result, run.entries()
    last = next((entry for entry in reversed(entries) if entry["losses"]), None)
    step = run.saved_step
    console.result({"run": str(path), "finished": result is not None, "step": step, "last": last, "config": config})
    console.out(f"{path}: {'finished' if result else 'not finished'}, step {step} of {config['total_steps']}")
    if result is None:
        console.out(f"  go on with it: {resume_command(path)}")
    console.table("", ("setting", "value"), list(_flat({k: v for k, v in config["settings"].items() if v not in (None, {})})))
    for entry_step, text in incidents(entries):
        console.out(f"step {entry_step}: {text}")
    if last:
        console.table("last losses", ("term", "mean"), [(term, round(value, 5)) for term, value in last["losses"].items()])


def _show_bundle(what: str, out: Path, console: Console) -> None:
    from fruitgan import bundle

    path = bundle.locate(what, out)
    card = to_json(bundle.load_card(path))
    console.result({"file": str(path), **card})
    console.out(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    console.table("", ("card", "value"), [row for row in _flat(card) if row[1] != ""])


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + key, _brief(value)


def _brief(value: Any) -> str:
    """A value of a setting in one short line."""
    if isinstance(value, Mapping) and "name" in value and "options" in value:
        return " ".join([value["name"], *(f"{key}={entry}" for key, entry in value["options"].items())])
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {_brief(entry)}" for key, entry in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
