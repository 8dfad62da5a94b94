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
    training_dir: Annotated[
        Path | None,
        typer.Option(
            "--training-dir",
            metavar="DIR",
            help="Real images that the generator was trained on; with them comes nearest-training.",
            rich_help_panel=options.DATA_PANEL,
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            "--detector",
            metavar="FILE|NAME|none",
            show_default="the strongest attacker",
            help="Whose accuracy is measured: a trained detector's file or run, one that is trained on the spot, or none.",
        ),
    ] = None,
    attackers: Annotated[
        list[str] | None,
        typer.Option(
            "--attackers",
            metavar="NAME|all",
            show_default="spectrum, logistic and small-cnn",
            help="Detectors to train on the spot, of which the strongest counts; several with commas. With --quick, small-cnn "
            "is left out.",
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        typer.Option(
            "--features",
            metavar="NAME",
            show_default="fruit-embed, random and colour",
            help="What images are described by; several with commas, the first gives the headline numbers. "
            "Any network with its weights: torchvision:resnet50, timm:NAME.",
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics",
            metavar="NAME",
            show_default="those that take seconds",
            help="Which numbers; several with commas, or all. `fruitgan list metrics` names them.",
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        typer.Option(
            "--weights",
            metavar="[NAME=]FILE",
            show_default="fetched",
            help="The weights of inception, torchvision:NAME or timm:NAME where they lie here; once for each.",
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
    from fruitgan.workflows.evaluate.settings import DEFAULT_FEATURES, DEFAULT_METRICS, takes_weights

    chosen = _names(features) or DEFAULT_FEATURES
    settings = EvaluateSettings(
        fake_dir=fake_dir,
        real_dir=real_dir,
        source_dir=source_dir,
        training_dir=training_dir,
        detector=detector,
        attackers=_names(attackers),
        features=chosen,
        metrics=_names(metrics) or DEFAULT_METRICS,
        weights=_weights(weights or [], [name for name in chosen if takes_weights(name)]),
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


def _weights(given: list[str], takers: list[str]) -> dict[str, Path]:
    """`NAME=FILE` by name; a file alone belongs to the only features that take one.

    Raises:
        UsageError: it is not clear whose weights they are, or one has two files.
    """
    found: dict[str, Path] = {}
    for text in given:
        name, equals, file = text.partition("=")
        if not equals or name not in takers:
            if len(takers) != 1:
                whose = " or ".join(takers) or "none of the --features"
                raise UsageError(f"--weights {text}: whose? {whose} can take weights; write NAME=FILE")
            name, file = takers[0], text
        if name in found:
            raise UsageError(f"--weights {text}: {name} has a file already")
        found[name] = Path(file)
    return found


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
    from fruitgan.report.evaluation import claim_sentence, detector_meaning, figure, meaning, number_rows

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
        if row.says_more:
            console.out(meaning(row))
    for claim in values["claims"]:
        console.out(claim_sentence(claim))
    for name, reason in result.not_measured.items():
        console.say(f"no {name}: it {reason}" if reason.startswith("needs") else f"no {name}: {reason}")
    if result.r_withheld:
        console.out(f"No R: {result.r_withheld}.")
    if values["detector"]:
        console.out(detector_meaning(values["detector"]))
    else:
        console.out(f"No detector: {result.withheld}.")
    console.out(str(result.report))
