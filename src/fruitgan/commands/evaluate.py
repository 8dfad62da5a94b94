"""`fruitgan evaluate`."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fruitgan.commands import options
from fruitgan.commands.signals import stopped_at_once
from fruitgan.console import Bar, Console
from fruitgan.errors import GateFailed, UsageError

if TYPE_CHECKING:
    from fruitgan.workflows.evaluate import EvaluateResult
    from fruitgan.workflows.evaluate.settings import EvaluateProgress

GATES_PANEL = "Gates"


def evaluate(
    fake_dir: Annotated[
        Path,
        typer.Option(
            "--fake-dir", metavar="DIR", help="The generated images.", show_default=False, rich_help_panel=options.DATA_PANEL
        ),
    ],
    real_dir: Annotated[
        Path | None,
        typer.Option(
            "--real-dir",
            metavar="DIR",
            show_default="origins beside the fakes",
            help="The real images.",
            rich_help_panel=options.DATA_PANEL,
        ),
    ] = None,
    source_dir: Annotated[
        Path | None,
        typer.Option(
            "--source-dir",
            metavar="DIR",
            help="What the generated images were made of; with it comes R.",
            rich_help_panel=options.DATA_PANEL,
        ),
    ] = None,
    detector: Annotated[
        str,
        typer.Option(
            "--detector",
            metavar="FILE|NAME|none",
            help="Whose accuracy is measured: a trained detector's file or run, or one that is trained on the spot.",
        ),
    ] = "spectrum",
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--features",
            metavar="NAME",
            show_default="random and colour",
            help="What images are described by; several with commas, the first gives the headline numbers.",
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option("--metrics", metavar="NAME", show_default="kid and fid", help="Which distances; several with commas."),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            "--weights",
            metavar="FILE",
            show_default="fetched",
            help="The weights of --features inception, where they lie here.",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer resamples and folds: coarser intervals, the same numbers.")
    ] = False,
    fail_above: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-above",
            metavar="NUMBER=BOUND",
            help="Leave with exit code 5 if a number is higher: kid=0.05, r=0.8, accuracy=0.9.",
            rich_help_panel=GATES_PANEL,
        ),
    ] = None,
    fail_below: Annotated[
        list[str] | None,
        typer.Option(
            "--fail-below",
            metavar="NUMBER=BOUND",
            help="Leave with exit code 5 if a number is lower.",
            rich_help_panel=GATES_PANEL,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="DIR",
            show_default="runs/evaluate/<folder>",
            help="Where evaluation.json and report.html go; earlier ones are replaced.",
            rich_help_panel=options.OUTPUT_PANEL,
        ),
    ] = None,
    seed: options.Seed = None,
    gpu: options.Gpu = None,
    device: options.Device = None,
    config: options.Config = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Say how real generated images are."""
    bounds = _bounds("--fail-above", fail_above or []), _bounds("--fail-below", fail_below or [])
    from fruitgan.workflows.evaluate import EvaluateSettings
    from fruitgan.workflows.evaluate import evaluate as run
    from fruitgan.workflows.evaluate.settings import DEFAULT_FEATURES, DEFAULT_METRICS

    settings = EvaluateSettings(
        fake_dir=fake_dir,
        real_dir=real_dir,
        source_dir=source_dir,
        detector=detector,
        features=_names(features) or DEFAULT_FEATURES,
        metrics=_names(metrics) or DEFAULT_METRICS,
        weights=weights,
        quick=quick,
        out=out,
        fail_above=bounds[0],
        fail_below=bounds[1],
        seed=seed or 0,
        gpu=gpu,
        device=device,
    )
    console = Console(json=json, quiet=quiet)
    with stopped_at_once("stopped; the same command begins again"), ExitStack() as stack:
        result = run(settings, _Progress(console, stack))
    values = result.as_json()
    console.result(values)
    _show(console, result, values)
    if result.failed_gates:
        raise GateFailed("; ".join(str(gate) for gate in result.failed_gates))


def _names(given: list[str] | None) -> tuple[str, ...]:
    """Names that were given one by one or with commas between."""
    return tuple(name.strip() for text in given or [] for name in text.split(","))


def _bounds(option: str, given: list[str]) -> dict[str, float]:
    """`kid=0.05` by name.

    Raises:
        UsageError: not of that form, or one name twice.
    """
    bounds: dict[str, float] = {}
    for text in given:
        name, equals, bound = text.partition("=")
        name = name.strip()
        try:
            value = float(bound)
        except ValueError:
            equals = ""
            value = 0.0
        if not equals or not name:
            raise UsageError(f"{option} {text}: expected a number's name and its bound, such as kid=0.05")
        if name in bounds:
            raise UsageError(f"{option} {text}: {name} has a bound already")
        bounds[name] = value
    return bounds


class _Progress:
    """A bar for each part of the work."""

    def __init__(self, console: Console, stack: ExitStack) -> None:
        self.console = console
        self.stack = stack
        self.what = ""
        self.bar: Bar | None = None

    def __call__(self, progress: EvaluateProgress) -> None:
        if progress.what != self.what:
            self.stack.close()
            self.what = progress.what
            self.bar = self.stack.enter_context(self.console.bar(progress.total, progress.what, unit="step"))
        assert self.bar is not None
        self.bar.update(progress.done)


def _show(console: Console, result: EvaluateResult, values: dict[str, Any]) -> None:
    """The result for people: leaks first, since they change what the numbers mean."""
    from fruitgan.report.evaluation import detector_meaning, figure, meaning, number_rows

    for warning in result.warnings:
        console.warn(warning)
    for leak in result.leaks:
        console.warn(f"leak ({leak.kind}): {leak.detail}")
    for note in result.notes:
        console.say(note)
    rows = number_rows(values)
    cells = [
        (
            row.title,
            figure(row.value),
            f"{figure(row.low)} to {figure(row.high)}",
            "" if row.floor is None else f"{figure(row.floor[1])} to {figure(row.floor[2])}",
            row.features,
            row.images,
        )
        for row in rows
    ]
    if result.detector is not None:
        low, high = result.detector.interval
        cells.append(
            (
                "detector accuracy",
                f"{result.detector.accuracy:.1%}",
                f"{low:.1%} to {high:.1%}",
                f"{result.detector.chance:.0%}",
                result.detector.name,
                f"{result.detector.n:,} judged",
            )
        )
    console.table("", ("number", "value", "95% interval", "real against real", "features", "images"), cells)
    for row in rows:
        console.out(meaning(row))
    if result.r_withheld:
        console.out(f"No R: {result.r_withheld}.")
    if values["detector"]:
        console.out(detector_meaning(values["detector"]))
    else:
        console.out(f"No detector: {result.withheld}.")
    console.out(str(result.report))
