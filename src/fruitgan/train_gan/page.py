"""The training report: one self-contained page with samples, curves and settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from fruitgan.bundle import FILE_NAME as BUNDLE
from fruitgan.report.grid import sample_sheets
from fruitgan.report.page import render, thousands
from fruitgan.runs.run import CONFIG, Run
from fruitgan.train_gan.assemble import read_plan
from fruitgan.train_gan.curves import Story, in_words, kid_panels, loss_panels, reach, schedule_panels
from fruitgan.train_gan.monitor import incidents
from fruitgan.train_gan.recipe import PARTS, Pairing, Recipe

SHORT_HASH = 12
PAIRINGS: dict[Pairing, str] = {
    "random-b": "an epoch passes through the larger domain; partners are drawn at random",
    "zip": "both domains in random orders; the smaller one ends the epoch",
    "passes": "each domain in random orders of its own, so that every image of it is seen equally often",
}

Rows = list[tuple[str, str]]


def training_report(
    run: Path,
    config: Mapping[str, Any],
    entries: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any],
    both_ways: bool = True,
    written: datetime | None = None,
    gates: Sequence[Sequence[str]] = (),
) -> str:
    """The page as HTML text, of about 3 MB at most.

    Args:
        config: as in `config.json`.
        entries: the lines of the log, none yet perhaps.
        result: the job's result as JSON values.
        both_ways: whether there is a generator for each direction.
        written: now, of a training that goes on, whose page loads itself anew; None: it has ended.
        gates: of a student beside its teacher: name, value, limit, outcome and how it was measured.
    """
    story = story_of(config)
    finished, last = bool(result["finished"]), int(result["step"])
    resume = f"fruitgan train-gan --resume {shlex.quote(str(run))}"
    return render(
        "training.html",
        name=run.name,
        domains=story.domains,
        finished=finished,
        step=last,
        total_steps=story.total_steps,
        images=int(result["images"]),
        epochs=last / max(1, story.steps_per_epoch),
        seconds=float(result["seconds"]),
        images_per_second=result["images"] / result["seconds"] if result["seconds"] else None,
        bundle=Path(result["bundle"]).name,
        run_path=str(run),
        translate_command=f"fruitgan translate photo.jpg --bundle {shlex.quote(str(run))}",
        other_domain=shlex.quote(story.domains[0]),
        both_ways=both_ways,
        written=None if written is None else f"{written:%Y-%m-%d %H:%M:%S}",
        gates=gates,
        teacher=_teacher(config),
        resume_command=resume + (f" --steps {2 * story.total_steps}" if finished else ""),
        incidents=incidents(entries),
        samples=sample_sheets(run / "samples"),
        losses=[*kid_panels(entries, story), *loss_panels(entries, story)],
        schedules=schedule_panels(entries, story),
        smoothing=2 * reach(len(entries)) + 1,
        log_steps=entries[0]["step"] if entries else 0,
        story=story,
        settings=[
            ("Training", _training_rows(config, story)),
            ("Networks", [(kind, _choice(config["plan"][kind])) for kind in PARTS]),
            ("Data", _data_rows(config, story.recipe)),
            ("Result", [("weights, SHA-256", result["weights_sha256"][:SHORT_HASH])]),
        ],
        environment=_environment(run),
    )


def story_of(config: Mapping[str, Any]) -> Story:
    plan = read_plan(config["plan"], Path(CONFIG))
    a, b = config["domains"]
    return Story(
        recipe=plan.recipe,
        objective=plan.objective,
        discriminator=plan.discriminator,
        domains=(a, b),
        total_steps=plan.recipe.total_steps(config["steps_per_epoch"]),
        steps_per_epoch=config["steps_per_epoch"],
    )


def _training_rows(config: Mapping[str, Any], story: Story) -> Rows:
    plan, recipe = config["plan"], story.recipe
    rows = [
        ("recipe", f"{plan['recipe_name']}: {recipe.summary}"),
        ("length", f"{thousands(story.total_steps)} steps; {thousands(story.steps_per_epoch)} steps are an epoch"),
        ("batch size", str(recipe.batch_size)),
        ("image size", f"{recipe.image_size_px} x {recipe.image_size_px} px"),
        ("precision", plan["precision"]),
        ("random seed", str(plan["seed"])),
    ]
    for player, adam in recipe.optimizers.items():
        rate = in_words(recipe.learning_rate, adam.learning_rate)
        told = f"Adam, betas {adam.beta_1:g} and {adam.beta_2:g}, epsilon {adam.epsilon:g}; learning rate {rate}"
        rows.append((f"optimiser of the {player}", told))
    rows += [(f"weight of {name}", in_words(schedule)) for name, schedule in recipe.weights.items()]
    rows.append(("EMA of weights", "none" if recipe.ema_decay is None else f"decay up to {recipe.ema_decay:g}"))
    if config["settings"].get("init_from"):
        rows.append(("started from", Path(config["settings"]["init_from"]).name))
    if teacher := _teacher(config):
        rows.append(("teacher", teacher))
    return rows


def _teacher(config: Mapping[str, Any]) -> str | None:
    """The name of the run or bundle that a student imitates."""
    teacher = config["settings"].get("teacher")
    if not teacher:
        return None
    path = Path(teacher)
    return path.parent.name if path.name == BUNDLE else path.stem


def _choice(choice: Mapping[str, Any]) -> str:
    def plain(value: Any) -> str:
        if isinstance(value, bool):
            return "on" if value else "off"
        return f"{value:.6g}" if isinstance(value, float) else str(value)

    options = ", ".join(f"{name} {plain(value)}" for name, value in choice["options"].items())
    package = "" if choice["package"] == "fruitgan" else f" from {choice['package']} {choice['version']}"
    return f"{choice['name']}{package}" + (f" ({options})" if options else "")


def _data_rows(config: Mapping[str, Any], recipe: Recipe) -> Rows:
    settings = config["settings"]
    # Folder names alone: a report is passed on, and where its maker keeps files is nobody's business.
    folders = [Path(settings[key]).name for key in ("data", "data_a", "data_b") if settings.get(key)]
    counts = ", ".join(f"{thousands(n)} {name}" for n, name in zip(config["training_images"], config["domains"], strict=True))
    if held := config.get("held_out_images"):
        counts += f"; for KID alone {thousands(held[0])} and {thousands(held[1])}"
    return [
        ("data", " and ".join(folders)),
        ("training images", counts),
        ("resized by", f"{recipe.fit}, {recipe.resample}"),
        ("pairing", PAIRINGS[recipe.pairing]),
        ("fingerprint", " / ".join(part[:SHORT_HASH] for part in config["data_fingerprint"].split("/"))),
    ]


def _environment(run: Path) -> Rows:
    """What `environment.json` says; nothing where it is missing or torn, which is no reason to give no report."""
    found = Run(run).environment
    if not found:
        return []
    packages, later = found.pop("packages", {}), found.pop("later", [])
    words = {name.replace("_", " "): str(value) for name, value in found.items() if value is not None}
    words["packages"] = ", ".join(f"{name} {version}" for name, version in packages.items())
    for segment in later:
        where = f"{segment.get('gpu') or segment.get('cpu')}, torch {segment['packages'].get('torch')}"
        words[f"from step {thousands(segment['from_step'])} on"] = where
    return list(words.items())
