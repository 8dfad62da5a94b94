"""`fruitgan list` and `show`: what is registered; a bundle's or a detector's card, the state of a run, what a checkpoint holds.

`list` reads metadata and source texts; it imports nothing of what it lists.
"""

from __future__ import annotations

import inspect
import shutil
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from fruitgan.console import Console, names, options
from fruitgan.errors import DataError, UsageError
from fruitgan.registry import KINDS, OWN_PACKAGE, Entry, Registry, known_kind, suggestion
from fruitgan.settings import RUNS, to_json

LEAST_COLUMNS = 80
CHECKPOINT = "state.json"
MOST_SUMS = 3
"""Of a long list of a card, as of the training images' sums, so many are shown."""


def list_registered(
    kind: str | None = options.argument("KIND", "One kind alone: generators, recipes, ...", **names.completed(lambda: KINDS)),
    json: options.Json = False,
) -> None:
    """Show what is registered, with a line on each; `fruitgan show NAME` says more.

    Example: fruitgan list generators
    """
    console = Console(json=json)
    found = {name: Registry[Any](name).entries() for name in ([known_kind(kind)] if kind else KINDS)}
    if json:  # a summary is looked for in source text: once
        console.result({name: [{**vars(entry), "summary": entry.summary} for entry in it] for name, it in found.items()})
        return
    columns = max(LEAST_COLUMNS, shutil.get_terminal_size().columns) if sys.stdout.isatty() else None
    for name, entries in found.items():
        console.out(f"{name}:" if entries else f"no {name} are registered")
        width = max((len(entry.name) for entry in entries), default=0)
        for entry in entries:
            whose = "" if entry.package == OWN_PACKAGE else f"({entry.package} {entry.version}) "
            line = " ".join(f"{whose}{entry.summary}".split())
            if columns is not None:
                line = textwrap.shorten(line, columns - width - 4, placeholder=" ...", break_on_hyphens=False)
            console.out(f"  {entry.name:{width}}  {line}".rstrip())


def _registered() -> list[str]:
    return [name for kind in KINDS for name in (kind.removesuffix("s"), *Registry[Any](kind).names())]


def show(
    what: str = options.argument(
        "FILE|RUN|NAME",
        "A bundle, a detector, a run, a checkpoint, or a registered name, with or without its kind before it.",
        default=...,
        **names.completed(names.bundles, names.runs(), _registered),
    ),
    name: str | None = options.argument("NAME", "The name, after its kind: recipe fast.", **names.completed(_registered)),
    out: Path | None = options.option("--out DIR", "Where runs are looked for.", "below runs/"),
    json: options.Json = False,
) -> None:
    """Show a registered thing, a bundle's or detector's card, or the state of a run.

    Example: fruitgan show recipe fast
    """
    console = Console(json=json)
    is_kind = any(what in (kind, kind.removesuffix("s")) for kind in KINDS)
    if name is not None or (is_kind and not Path(what).exists()):
        registry = Registry[Any](known_kind(what))
        if name is None:
            raise UsageError(f"which {registry.noun}? Known are {', '.join(registry.names())}")
        _show_registered(registry.owner(name), name, console)
        return
    if out is not None:
        from fruitgan.data.sources import must_be_folder

        must_be_folder(out)
    places = [out / what] if out is not None else sorted(Path("runs").glob(f"*/{what}")) if Path(what).name == what else []
    there = next((path for path in (Path(what), *places) if path.exists()), None)
    if there is not None and (there / CHECKPOINT).is_file():
        _show_checkpoint(there, console)
    elif there is not None and (there / "config.json").is_file():
        _show_run(there, console)
    elif entries := [] if there or _is_bundle(what) else _named(what):
        for entry in entries[:1] if json else entries:  # one object, of the first kind
            _show_registered(entry, what, console)
    else:
        _show_card(what if there is None else str(there), out, console)


def _named(name: str) -> list[Entry]:
    """What is registered by this name, of whichever kind; of `FAMILY:MEMBER` the family."""
    return [entry for kind in KINDS for entry in Registry[Any](kind).entries() if entry.name == name.partition(":")[0]]


def _is_bundle(what: str) -> bool:
    return what in names.bundles() or "@" in what or "/" in what or (":" not in what and bool(Path(what).suffix))


def _show_registered(entry: Entry, name: str, console: Console) -> None:
    """What a registered thing says of itself, and its options with their defaults; a recipe as TOML."""
    if entry.kind == "recipes":
        _show_recipe(name, console)
        return
    thing = Registry[Any](entry.kind).get(name)
    parameters = {} if entry.kind == "commands" or not callable(thing) else inspect.signature(thing).parameters
    defaults = {key: str(one.default) for key, one in parameters.items() if one.default is not inspect.Parameter.empty}
    about = (inspect.getdoc(thing) if callable(thing) else None) or entry.summary
    console.result({**to_json(entry), "about": about, "options": defaults})
    console.out(f"{entry.kind.removesuffix('s')} {name}, from {entry.package} {entry.version} ({entry.target})")
    console.out(about)
    if defaults:
        console.table("", ("option", "default"), list(defaults.items()))


def _show_recipe(name: str, console: Console) -> None:
    import torch

    from fruitgan.train_gan.assemble import make_plan
    from fruitgan.train_gan.estimate import count_work, mean_multiply_adds
    from fruitgan.train_gan.recipe import recipe_toml, recipes
    from fruitgan.train_gan.settings import TrainGanSettings

    recipe = recipes.get(name)
    kinds = count_work(make_plan(TrainGanSettings(recipe=name, precision="fp32"), torch.device("cpu")))
    mean = mean_multiply_adds(kinds)
    console.result({"name": name, **to_json(recipe), "multiply_adds_per_step": mean, "kinds_of_step": to_json(kinds)})
    console.out(recipe_toml(recipe))
    console.out(f"# multiply-adds a step, counted: {mean / 1e9:,.1f} G in the mean")
    for kind in (kind for kind in kinds if kind.share >= 0.0005):  # a last step alone is no share
        console.out(f"# {kind.share:.1%} of the steps: {kind.multiply_adds / 1e9:,.1f} G, {', '.join(kind.weights)}")


def _show_run(path: Path, console: Console) -> None:
    """The state of a run, its settings and how to go on; of a training its losses, of a detector its card."""
    from fruitgan.runs.resume import DETECTOR, look_at
    from fruitgan.runs.run import Run
    from fruitgan.train_detector import settings as of_detectors
    from fruitgan.train_detector.settings import KIND
    from fruitgan.train_gan.monitor import incidents
    from fruitgan.train_gan.settings import read_config

    run, looked = Run(path), look_at(path)
    is_detector = run.config.get("kind") == KIND
    config = to_json(of_detectors.read_config(run) if is_detector else read_config(run))
    entries = [] if is_detector else run.entries()
    last = next((entry for entry in reversed(entries) if entry["losses"]), None)
    card = _detector_card(path / DETECTOR) if (path / DETECTOR).is_file() else None
    state, step = looked["state"], looked["step"]
    found = {"run": str(path), "finished": state == "finished", "step": step, "last": last, "config": config}
    console.result(found | ({"card": card} if is_detector else {}))
    how_long = f"of {config['total_steps']}" if "total_steps" in config else "of a detector's training"
    console.out(f"{path}: {state}, step {step} {how_long}")
    if looked["go_on"]:
        console.out(f"  go on with it: {looked['go_on']}")
    console.table("", ("setting", "value"), list(_flat(config["settings"])))
    for entry_step, text in incidents(entries):
        console.out(f"step {entry_step}: {text}")
    if last:
        console.table("last losses", ("term", "mean"), [(term, round(value, 5)) for term, value in last["losses"].items()])
    if card is not None:
        console.table("", ("card", "value"), list(_flat(card)))


def _show_checkpoint(path: Path, console: Console) -> None:
    from fruitgan.bundle import FILE_NAME
    from fruitgan.settings import read_json

    state = read_json(path / CHECKPOINT)
    about = {key: state.get(key) for key in ("step", "torch", "parts")} if isinstance(state, dict) else {}
    run = path.parent.parent
    console.result({"checkpoint": str(path), "run": str(run), **about})
    console.out(f"{path}: step {about.get('step')} of the run {run}, with torch {about.get('torch')}")
    console.out(f"  holds: {', '.join(map(str, about.get('parts') or ()))}")
    console.out(f"  go on from it as another run: --resume {run.name}@{about.get('step')} --name NEW")
    if (path / FILE_NAME).is_file():
        console.out(f"  translate with it: fruitgan translate photo.jpg --bundle {path / FILE_NAME}")


def _show_card(what: str, out: Path | None, console: Console) -> None:
    """The card of a bundle, or of a detector's file."""
    from fruitgan import bundle

    try:
        path = bundle.locate(what, out or RUNS)
    except UsageError as error:
        near = suggestion(what, sorted({*names.bundles(), *names.runs()(), *_registered()}))
        raise UsageError(f"no file, run, bundle or registered name {what!r}: {near}") from error
    try:
        card = to_json(bundle.load_card(path))
    except DataError:
        if (found := _detector_card(path)) is None:
            raise
        card = found
    console.result({"file": str(path), **card})
    console.out(f"{path}: {path.stat().st_size / 1e6:.2f} MB")
    terms_first = dict(sorted(card.items(), key=lambda entry: isinstance(entry[1], Mapping)))
    console.table("", ("card", "value"), list(_flat(terms_first)))


def _detector_card(path: Path) -> dict[str, Any] | None:
    """A detector's card as JSON; None where the file is none."""
    from fruitgan.train_detector.detector import load_card

    try:
        card: dict[str, Any] = to_json(load_card(path))
    except DataError:
        return None
    return card


def _flat(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Rows of a table of a card's or a run's fields, those of inner tables by their dotted names; what is empty is left out."""
    for key, value in table.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list) and len(value) > MOST_SUMS and all(len(str(entry)) >= 16 for entry in value):
            yield prefix + key, f"{len(value)} sums"
        elif value not in (None, "", []):
            yield prefix + key, ", ".join(map(str, value)) if isinstance(value, list) else str(value)
