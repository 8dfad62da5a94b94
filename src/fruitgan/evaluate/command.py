"""The command `fruitgan evaluate`: its options, and its results for a person."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fruitgan.console import Console, names, options
from fruitgan.console.signals import stopped_at_once
from fruitgan.errors import GateFailed, UsageError
from fruitgan.registry import Registry

if TYPE_CHECKING:
    from fruitgan.evaluate.results import EvaluateResult

HEADLINES = 5
"""So many numbers are printed; the report, and --verbose, have all."""
DATA, OUTPUT, GATES, COMPARE = options.DATA_PANEL, options.OUTPUT_PANEL, "Gates", "Side by side"


def _option(usage: str, text: str, panel: str | None = None, shown: str | bool = True, **rest: Any) -> Any:
    """An option as it is typed, `--name VALUE`, with its help."""
    name, metavar = usage.split(" ", 1)
    return typer.Option(name, metavar=metavar, help=text, rich_help_panel=panel, show_default=shown, **rest)


def evaluate(
    fake_dir: Annotated[Path | None, _option("--fake-dir DIR", "The generated images.", DATA, False)] = None,
    further: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="More of them after --compare RUN.", hidden=True)
    ] = None,
    real_dir: Annotated[Path | None, _option("--real-dir DIR", "The real images.", DATA, "origins beside the fakes")] = None,
    source_dir: Annotated[
        Path | None, _option("--source-dir DIR", "What the generated images were made of; with it comes R.", DATA)
    ] = None,
    training_dir: Annotated[
        Path | None,
        _option("--training-dir DIR", "Real images that trained the generator; with them comes nearest-training.", DATA),
    ] = None,
    background: options.Background = None,
    value_range: options.ValueRange = None,
    fit: options.Fit = None,
    detector: Annotated[
        str | None,
        _option(
            "--detector FILE|NAME|none",
            "The detector whose accuracy is measured: a file or run, a name to train it here, or none.",
            shown="the strongest of --attackers",
            **names.completed(names.runs("train-detector"), lambda: [*Registry[Any]("detectors").names(), "none"]),
        ),
    ] = None,
    attackers: Annotated[
        list[str] | None,
        _option(
            "--attackers NAME|all",
            "Detectors to train here, of which the strongest counts; several with commas. With --quick, small-cnn is left out.",
            shown="spectrum, npr, efficientnet-lite1, logistic and small-cnn",
            **names.registered("detectors", "all", several=True),
        ),
    ] = None,
    features: Annotated[
        list[str] | None,
        _option(
            "--features NAME",
            "Features of images; several with commas, the first gives the headline numbers. Any network with its weights: "
            "torchvision:resnet50, timm:NAME, clip, dinov2:vit-b-14, inception.",
            shown="fruit-embed, random and colour",
            **names.registered("features", several=True),
        ),
    ] = None,
    metrics: Annotated[
        list[str] | None,
        _option(
            "--metrics NAME",
            "Which numbers; several with commas, or all. `fruitgan list metrics` names them.",
            shown="those that take seconds",
            **names.registered("metrics", "all", several=True),
        ),
    ] = None,
    weights: Annotated[
        list[str] | None,
        _option(
            "--weights [NAME=]FILE",
            "The weights of inception, torchvision:NAME or timm:NAME where they lie here; once for each.",
            shown="fetched",
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer resamples and folds: coarser intervals, the same numbers.")
    ] = False,
    fail_above: Annotated[
        list[str] | None,
        _option("--fail-above NUMBER=BOUND", "Exit code 5 if a number is higher: kid=0.05, r=0.8, accuracy=0.9.", GATES),
    ] = None,
    fail_below: Annotated[
        list[str] | None, _option("--fail-below NUMBER=BOUND", "Exit code 5 if a number is lower.", GATES)
    ] = None,
    compare: Annotated[
        list[str] | None,
        _option(
            "--compare RUN",
            "Generators side by side, as in --compare RUN1 RUN2: bundles, runs, exported datasets or folders of images; held "
            "against the first, or against --fake-dir.",
            COMPARE,
        ),
    ] = None,
    data: Annotated[
        str | None, _option("--data NAME|DIR", "What the bundles of --compare translate, and the real images.", COMPARE)
    ] = None,
    domains: Annotated[str | None, _option("--domains A,B", "What the two domains of --data are called.", COMPARE)] = None,
    to: Annotated[
        str | None,
        _option("--to DOMAIN", "The domain that the bundles of --compare translate to.", COMPARE, "the bundle's second"),
    ] = None,
    count: Annotated[
        int | None,
        _option("--count N", "Images of each class that the bundles of --compare make.", COMPARE, "the test images", min=1),
    ] = None,
    image_size: Annotated[
        int | None,
        _option(
            "--image-size PIXELS",
            "Side of the images that the bundles of --compare make.",
            COMPARE,
            "the bundles', or the smaller",
            min=1,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        _option("--out DIR", "Where evaluation.json and report.html go, anew.", OUTPUT, "runs/evaluate/<folder>"),
    ] = None,
    seed: options.Seed = None,
    gpu: options.Gpu = None,
    device: options.Device = None,
    threads: options.Threads = None,
    ray: options.Ray = None,
    config: options.Config = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", help="All numbers, and what they mean, as in the report.", rich_help_panel=OUTPUT)
    ] = False,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Measure how realistic generated images are.

    Example: fruitgan evaluate --fake-dir dataset/predicted
    """
    bounds = _bounds("--fail-above", fail_above or []), _bounds("--fail-below", fail_below or [])
    runs = _runs(
        fake_dir,
        compare or [],
        further or [],
        {"--data": data, "--domains": domains, "--to": to, "--count": count} | {"--image-size": image_size},
    )
    from fruitgan.data.sources import parse_domains
    from fruitgan.evaluate import settings as choices

    _check_places([folder for folder in (fake_dir, real_dir) if folder is not None], runs if compare else (), data)
    from fruitgan.evaluate.compare import compare as compare_job
    from fruitgan.evaluate.job import evaluate as job

    chosen = _names(features) or choices.DEFAULT_FEATURES
    settings = choices.EvaluateSettings(
        fake_dir=fake_dir or Path(runs[0]),
        real_dir=real_dir,
        source_dir=source_dir,
        training_dir=training_dir,
        background=background,
        value_range=value_range,
        fit=fit,
        detector=detector,
        attackers=_names(attackers),
        features=chosen,
        metrics=_names(metrics) or choices.DEFAULT_METRICS,
        weights=_weights(weights or [], [name for name in chosen if choices.takes_weights(name)]),
        quick=quick,
        ray=ray,
        out=out,
        fail_above=bounds[0],
        fail_below=bounds[1],
        seed=seed or 0,
        gpu=gpu,
        device=device,
        threads=options.parse_threads(threads),
    )
    console = Console(json=json, quiet=quiet)
    with stopped_at_once("stopped; the same command begins again"), console.events("step") as on_progress:
        if len(runs) > 1:
            sides = choices.CompareSettings(
                runs=runs, data=data, domains=parse_domains(domains), to=to, count=count, image_size=image_size
            )
            result = compare_job(sides, settings, on_progress)
        else:
            result = job(settings, on_progress)
    values = result.as_json()
    console.result(values)
    _show(console, result, values, verbose)
    if result.failed_gates:
        raise GateFailed("; ".join(str(gate) for gate in result.failed_gates))


def _check_places(folders: list[Path], runs: tuple[str, ...], data: str | None) -> None:
    """What the job would refuse after seconds of imports, refused at once."""
    from fruitgan.bundle import locate
    from fruitgan.data.sources import check_name, must_be_folder

    for folder in folders:
        must_be_folder(folder)
    for run in runs:
        if not Path(run).is_dir():
            locate(run)
    if data is not None:
        check_name(data)


def _runs(fake_dir: Path | None, compare: list[str], further: list[str], of_bundles: Mapping[str, object]) -> tuple[str, ...]:
    """Whose images are judged; more than one is a comparison. Raises: UsageError."""
    runs = tuple(([] if fake_dir is None else [str(fake_dir)]) + compare + further)
    if compare and len(runs) < 2:
        raise UsageError(f"--compare {runs[0]}: with what? Give at least two, as in --compare RUN1 RUN2")
    if further and not compare:
        raise UsageError(f"{further[0]}: give a folder of generated images with --fake-dir, or several runs after --compare")
    if not runs:
        raise UsageError("give the generated images with --fake-dir DIR, or several runs with --compare RUN1 RUN2")
    for option, value in of_bundles.items():
        if value is not None and not compare:
            raise UsageError(f"{option}: belongs to --compare")
    return runs


def _names(given: list[str] | None) -> tuple[str, ...]:
    """Names that were given one by one or with commas between."""
    return tuple(name.strip() for text in given or [] for name in text.split(","))


def _weights(given: list[str], takers: list[str]) -> dict[str, Path]:
    """`NAME=FILE` by name; a file alone belongs to the only features that take one. Raises: UsageError."""
    found: dict[str, Path] = {}
    for text in given:
        name, _, file = text.partition("=")
        if name not in takers:
            if len(takers) != 1:
                whose = " or ".join(takers) or "none of the --features"
                raise UsageError(f"--weights {text}: whose? {whose} can take weights; write NAME=FILE")
            name, file = takers[0], text
        if name in found:
            raise UsageError(f"--weights {text}: {name} has a file already")
        found[name] = Path(file)
    return found


def _bounds(option: str, given: list[str]) -> dict[str, float]:
    """`kid=0.05` by name; Raises: UsageError if it is not of that form, or has one name twice."""
    bounds: dict[str, float] = {}
    for text in given:
        name, _, bound = (part.strip() for part in text.partition("="))
        if name in bounds:
            raise UsageError(f"{option} {text}: {name} has a bound already")
        try:
            bounds[name] = float(bound)
        except ValueError:
            raise UsageError(f"{option} {text}: expected a number's name and its bound, such as kid=0.05") from None
    return bounds


def _show(console: Console, result: EvaluateResult, values: dict[str, Any], verbose: bool) -> None:
    """The result for people: leaks first, since they change what the numbers mean; at the end the verdict, numbers, report."""
    from fruitgan.evaluate import wording

    for warning in result.warnings:
        console.warn(warning)
    for leak in result.leaks:
        console.warn(f"leak ({leak.kind}): {leak.detail}")
    rows = wording.number_rows(values)
    if verbose:
        _explain(console, result, values)
    for each in values["compare"]:
        for note in each["notes"]:
            console.say(note)
        heads = ("number", each["first"], each["run"], "difference", "95% interval", "p", "test")
        title = f"{each['run']} against {each['first']}, {each['n_sources']:,} sources"
        console.table(title, heads, wording.compare_rows(each))
        console.out(wording.claim_sentence(each["claim"]))
    console.out(wording.verdict(values))
    cells = [(row.title, *row.texts, row.judge, row.images) for row in rows]
    if not verbose:
        headline = [cell for cell, row in zip(cells, rows, strict=True) if row.says_more and row.features == rows[0].features]
        cells = headline + [cell for cell in cells if cell not in headline]
    if detector := values["detector"]:
        interval, majority = wording.percent_interval(detector["interval"]), f"{detector['majority_baseline']:.0%}"
        name = detector["name"] + (wording.SHARED if detector.get("shares_training") else "")
        cells.insert(
            0, ("test accuracy", f"{detector['accuracy']:.1%}", interval, majority, name, f"{detector['n']:,} test images")
        )
    columns = ("number", "value", "95% interval", "real against real", "features", "images")
    console.table("", columns, cells if verbose else cells[:HEADLINES])
    console.out(str(result.report))


def _explain(console: Console, result: EvaluateResult, values: Mapping[str, Any]) -> None:
    """What the numbers mean and what they cannot say, as the report has it."""
    from fruitgan.evaluate import wording

    for note in result.notes:
        console.say(note)
    for name, reason in result.not_measured.items():
        console.say(f"no {name}: it {reason}" if reason.startswith("needs") else f"no {name}: {reason}")
    for sentence in wording.meanings(wording.number_rows(values)).values():
        console.out(sentence)
    for claim in values["claims"]:
        console.out(wording.claim_sentence(claim))
    if result.r_withheld:
        console.out(f"No R: {result.r_withheld}.")
    if values["detector"]:
        console.out(wording.detector_details(values))
    console.out(wording.trained_against_sentence(values))
