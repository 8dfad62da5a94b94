"""The training report: one self-contained page with samples, curves and settings."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from fruitgan.bundle import FILE_NAME as BUNDLE
from fruitgan.registry import OWN_PACKAGE
from fruitgan.report.page import render, sample_sheets, thousands
from fruitgan.runs.resume import resume_command
from fruitgan.runs.run import Run
from fruitgan.train_gan.curves import Story, kid_panels, loss_panels, rate_panels, reach
from fruitgan.train_gan.monitor import incidents
from fruitgan.train_gan.recipe import PARTS, Part, recipe_toml
from fruitgan.train_gan.settings import Plan, RunConfig

SHORT_HASH = 12
Rows = list[tuple[str, str]]


def training_report(
    run: Path,
    config: RunConfig,
    entries: Sequence[Mapping[str, Any]],
    result: Mapping[str, Any],
    both_ways: bool = True,
    written: datetime | None = None,
    gates: Sequence[Sequence[str]] = (),
) -> str:
    """The page as HTML text, of about 3 MB at most.

    Args:
        entries: the lines of the log, none yet perhaps.
        result: the job's result as JSON values.
        both_ways: whether there is a generator for each direction.
        written: now, of a training that goes on, whose page loads itself anew; None: it has ended.
        gates: of a student beside its teacher: name, value, limit, outcome and how it was measured.
    """
    story = Story(config)
    finished, last = bool(result["finished"]), int(result["step"])
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
        resume_command=resume_command(run) + (f" --steps {2 * story.total_steps}" if finished else ""),
        incidents=incidents(entries),
        samples=sample_sheets(run / "samples"),
        panels=[*kid_panels(entries, story), *loss_panels(entries, story), *rate_panels(entries, story)],
        smoothing=2 * reach(len(entries)) + 1,
        log_steps=entries[0]["step"] if entries else 0,
        story=story,
        settings=[
            ("Training", _training_rows(config)),
            ("Data", _data_rows(config)),
            ("Result", [("weights, SHA-256", result["weights_sha256"][:SHORT_HASH])]),
        ],
        recipe=_recipe(config.plan),
        environment=_environment(run),
    )


def _training_rows(config: RunConfig) -> Rows:
    plan = config.plan
    rows = [
        ("recipe", f"{plan.recipe_name}: {plan.recipe.summary}"),
        ("length", f"{thousands(config.total_steps)} steps; {thousands(config.steps_per_epoch)} steps are an epoch"),
        ("precision", plan.precision),
        ("random seed", str(plan.seed)),
    ]
    if config.settings.init_from:
        known = f", SHA-256 {config.init_sha256[:SHORT_HASH]}" if config.init_sha256 else ""
        rows.append(("started from", f"{Path(config.settings.init_from).name}{known}"))
    if teacher := _teacher(config):
        rows.append(("teacher", teacher))
    return rows


def _recipe(plan: Plan) -> str:
    """The recipe as the TOML file that repeats it, with all options of its parts."""
    choices = {kind: getattr(plan, kind) for kind in PARTS}
    parts: dict[str, Any] = {kind: Part(name=choice.name, options=choice.options) for kind, choice in choices.items()}
    packages = {f"{choice.package} {choice.version}" for choice in choices.values() if choice.package != OWN_PACKAGE}
    needs = [f"# needs {package}\n" for package in sorted(packages)]
    return "".join([*needs, recipe_toml(replace(plan.recipe, why={}, **parts))])


def _teacher(config: RunConfig) -> str | None:
    """The name of the run or bundle that a student imitates."""
    if not config.settings.teacher:
        return None
    path = Path(config.settings.teacher)
    return path.parent.name if path.name == BUNDLE else path.stem


def _data_rows(config: RunConfig) -> Rows:
    settings = config.settings
    # Folder names alone: a report is passed on, and where its maker keeps files is nobody's business.
    folders = [Path(place).name for place in (settings.data, settings.data_a, settings.data_b) if place]
    counts = ", ".join(f"{thousands(n)} {name}" for n, name in zip(config.training_images, config.domains, strict=True))
    if held := config.held_out_images:
        counts += f"; for KID alone {thousands(held[0])} and {thousands(held[1])}"
    return [
        ("data", " and ".join(folders)),
        ("training images", counts),
        ("fingerprint", " / ".join(part[:SHORT_HASH] for part in config.data_fingerprint.split("/"))),
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
