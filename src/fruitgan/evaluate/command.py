"""The command `fruitgan evaluate`: its options, and its results for a person."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fruitgan.console import Console, names, options
from fruitgan.console.options import option
from fruitgan.errors import GateFailed, UsageError
from fruitgan.registry import Registry

if TYPE_CHECKING:
    from fruitgan.evaluate.results import EvaluateResult

HEADLINES = 5
"""So many numbers are printed; the report, and --verbose, have all."""
OF_BUNDLES = ("data", "domains", "to", "count", "image_size")
"""Options for what the bundles of --compare make."""
of_gates, of_compare = (functools.partial(option, panel=panel) for panel in ("Gates", "Side by side"))


def evaluate(
    context: options.Context,
    fake_dir: str | None = options.of_data(
        "--fake-dir DIR|ADDRESS",
        "The generated images: a folder, an address (s3://bucket/fakes) or tar shards, as are the other images.",
        False,
    ),
    further: list[str] | None = options.argument("RUN", "More of them after --compare RUN.", hidden=True),
    real_dir: str | None = options.of_data("--real-dir DIR|ADDRESS", "The real images.", "origins beside the fakes"),
    source_dir: str | None = options.of_data(
        "--source-dir DIR|ADDRESS", "What the generated images were made of; with it comes R."
    ),
    training_dir: str | None = options.of_data(
        "--training-dir DIR|ADDRESS", "Real images that trained the generator; with them comes nearest-training."
    ),
    background: options.Background = None,
    value_range: options.ValueRange = None,
    fit: options.Fit = None,
    detector: str | None = option(
        "--detector FILE|NAME|none",
        "The detector whose accuracy is measured: a file or run, a name to train it here, or none.",
        "the strongest of --attackers",
        **names.one_of("detector", names.runs("train-detector"), lambda: [*Registry[Any]("detectors").names(), "none"]),
    ),
    attackers: list[str] | None = option(
        "--attackers NAME|all",
        "Detectors to train here, of which the strongest counts; several with commas. With --quick, small-cnn is left out.",
        "spectrum, npr, efficientnet-lite1, logistic and small-cnn",
        **names.registered("detectors", "all", several=True),
    ),
    features: list[str] | None = option(
        "--features NAME",
        "Features of images; several with commas, the first gives the headline numbers. Any network with its weights: "
        "torchvision:resnet50, timm:NAME, clip, dinov2:vit-b-14, inception.",
        "fruit-embed, random and colour",
        **names.registered("features", several=True),
    ),
    metrics: list[str] | None = option(
        "--metrics NAME",
        "Which numbers; several with commas, or all. `fruitgan list metrics` names them.",
        "those that take seconds",
        **names.registered("metrics", "all", several=True),
    ),
    weights: list[str] | None = option(
        "--weights [NAME=]FILE",
        "A file with the weights of one of --features (inception, torchvision:NAME, timm:NAME, clip:NAME, dinov2:NAME, "
        "efficientnet-lite1); once for each.",
        "fetched",
    ),
    quick: bool = option(
        "--quick", "Fewer resamples, three folds, no small-cnn, no robustness, no learning curve: coarser.", default=False
    ),
    fail_above: list[str] | None = of_gates(
        "--fail-above NUMBER=BOUND",
        "Exit code 5 if a number, as in evaluation.json, is higher: kid=0.05 (5.0 in the tables), r=0.8, accuracy=0.9.",
    ),
    fail_below: list[str] | None = of_gates("--fail-below NUMBER=BOUND", "Exit code 5 if a number is lower."),
    compare: list[str] | None = of_compare(
        "--compare RUN",
        "Generators side by side, as in --compare RUN1 RUN2: bundles, runs, exported datasets or folders of images; held "
        "against the first, or against --fake-dir.",
    ),
    data: str | None = of_compare(
        "--data NAME|DIR|hf:USER/NAME", "What the bundles of --compare translate, and the real images."
    ),
    domains: str | None = of_compare("--domains A,B", "What the two domains of --data are called."),
    to: str | None = of_compare("--to DOMAIN", "The domain that the bundles of --compare translate to.", "the bundle's second"),
    count: int | None = of_compare(
        "--count N", "Images of each class that the bundles of --compare make.", "the test images", min=1
    ),
    image_size: int | None = of_compare(
        "--image-size PIXELS", "Side of the images that the bundles of --compare make.", "the bundles', or the smaller", min=1
    ),
    out: Path | None = options.of_output(
        "--out DIR", "Where evaluation.json and report.html go, anew.", "runs/evaluate/<folder>"
    ),
    seed: options.Seed = None,
    gpu: options.Gpu = None,
    device: options.Device = None,
    threads: options.Threads = None,
    ray: options.Ray = None,
    config: options.Config = None,
    verbose: bool = options.of_output("--verbose", "All numbers, and what they mean, as in the report.", default=False),
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Measure how realistic generated images are.

    Example: fruitgan evaluate --fake-dir dataset/predicted
    """
    given = locals()
    if not compare:
        given = options.without_environment(context, given, OF_BUNDLES)
    bounds = _bounds("--fail-above", fail_above or []), _bounds("--fail-below", fail_below or [])
    runs = _runs(given)
    from fruitgan.evaluate import settings as choices

    _check_places([folder for folder in (fake_dir, real_dir) if folder is not None], runs if compare else (), given["data"])
    from fruitgan.evaluate.compare import compare as compare_job
    from fruitgan.evaluate.job import evaluate as job

    settings = options.settings_of(
        choices.EvaluateSettings,
        given,
        fake_dir=fake_dir or runs[0],
        weights=_weights(weights or [], features or choices.DEFAULT_FEATURES),
        fail_above=bounds[0],
        fail_below=bounds[1],
    )
    console = Console(json=json, quiet=quiet)
    if len(runs) > 1:
        job = functools.partial(compare_job, options.settings_of(choices.CompareSettings, given, runs=runs))
    result = console.run(job, settings, "stopped; the same command begins again", unit="step")
    values = result.as_json()
    _show(console, result, values, verbose)
    if result.failed_gates:
        raise GateFailed("; ".join(str(gate) for gate in result.failed_gates))


def _check_places(folders: list[str], runs: tuple[str, ...], data: str | None) -> None:
    """What the job would refuse after seconds of imports, refused at once."""
    from fruitgan.bundle import locate
    from fruitgan.data.remote import at_hand, is_elsewhere
    from fruitgan.data.sources import check_name, must_be_folder

    for folder in folders:
        if not is_elsewhere(folder):
            must_be_folder(at_hand(folder))
    for run in runs:
        if not (Path(run).is_dir() or is_elsewhere(run)):
            locate(run)
    if data is not None:
        check_name(data)


def _runs(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Whose images are judged; more than one is a comparison. Raises: UsageError."""
    fake_dir, compare, further = given["fake_dir"], given["compare"] or [], given["further"] or []
    runs = tuple(([] if fake_dir is None else [fake_dir]) + compare + further)
    if compare and len(runs) < 2:
        raise UsageError(f"--compare {runs[0]}: with what? Give at least two, as in --compare RUN1 RUN2")
    if further and not compare:
        raise UsageError(f"{further[0]}: give a folder of generated images with --fake-dir, or several runs after --compare")
    if not runs:
        raise UsageError("give the generated images with --fake-dir DIR, or several runs with --compare RUN1 RUN2")
    for name in OF_BUNDLES:
        if given[name] is not None and not compare:
            raise UsageError(f"--{name.replace('_', '-')}: belongs to --compare")
    return runs


def _weights(given: list[str], features: Sequence[str]) -> dict[str, Path]:
    """`NAME=FILE` by name; a file alone belongs to the only features of ours that take one. Raises: UsageError."""
    from fruitgan.evaluate.settings import takes_weights

    found: dict[str, Path] = {}
    for text in given:
        name, _, file = text.partition("=")
        if name not in features:
            takers = list(filter(takes_weights, features))
            if len(takers) != 1:
                whose = " or ".join(takers) or "none of the --features"
                raise UsageError(f"--weights {text}: whose? {whose} can take weights; write NAME=FILE")
            name, file = takers[0], text
        if name in found:
            raise UsageError(f"--weights {text}: {name} has a file already")
        found[name] = Path(file)
    return found


def _bounds(option: str, given: list[str]) -> dict[str, float]:
    """`kid=0.05` by name. Raises: UsageError if it is not of that form, or has one name twice."""
    bounds = options.pairs(option, given, "kid=0.05")
    if len(bounds) < len(given):
        raise UsageError(f"{option}: one bound for a number, not two")
    try:
        found = {name: float(bound) for name, bound in bounds.items()}
    except ValueError:
        found = {"": math.nan}
    if not all(map(math.isfinite, found.values())):
        raise UsageError(f"{option} {' '.join(given)}: expected numbers as bounds, such as kid=0.05")
    return found


def _show(console: Console, result: EvaluateResult, values: dict[str, Any], verbose: bool) -> None:
    """The result for people: leaks first, since they change what the numbers mean; at the end the verdict, numbers, report."""
    from fruitgan.evaluate import wording

    for warning in result.warnings:
        console.warn(warning)
    for leak in result.leaks:
        console.warn(f"leak ({leak.kind}): {leak.detail}")
    rows = wording.number_rows(values)
    if verbose:
        _explain(console, result, values, wording.meanings(rows).values())
    for each in values["compare"]:
        for note in each["notes"]:
            console.say(note)
        heads = ("number", each["first"], each["run"], "difference", "95% interval", "p", "test")
        title = f"{each['run']} against {each['first']}, {each['n_sources']:,} sources"
        console.table(title, heads, wording.compare_rows(each))
        console.out(wording.claim_sentence(each["claim"]))
    first = next((each["first"] for each in values["compare"]), None)
    console.out((f"{first}: " if first is not None else "") + wording.verdict(values))
    cells = [(row.title, *row.texts, row.judge, row.images) for row in rows]
    if not verbose:
        headline = [cell for cell, row in zip(cells, rows, strict=True) if row.says_more and row.features == rows[0].features]
        cells = headline + [cell for cell in cells if cell not in headline]
    if detector := values["detector"]:
        name, count = wording.detector_name(values), detector["n"]
        name += wording.SHARED if detector.get("shares_training") else ""
        interval, guessing = wording.percent_interval(detector["interval"]), f"{detector['majority_baseline']:.0%} by guessing"
        cells.insert(
            0, ("test accuracy", f"{detector['accuracy']:.1%}", interval, "", name, f"{count:,} test images, {guessing}")
        )
    columns = ("number", "value", "95% interval", "real against real", "features", "images")
    console.table(first or "", columns, cells if verbose else cells[:HEADLINES])
    for each in values["compare"]:
        console.out(f"{each['run']} by itself: {each['report']}")
    console.out(str(result.report))


def _explain(console: Console, result: EvaluateResult, values: Mapping[str, Any], meanings: Iterable[str]) -> None:
    """What the numbers mean and what they cannot say, as the report has it."""
    from fruitgan.evaluate import wording

    for note in result.notes:
        console.say(note)
    for name, reason in result.not_measured.items():
        console.say(f"no {name}: it {reason}" if reason.startswith("needs") else f"no {name}: {reason}")
    for sentence in meanings:
        console.out(sentence)
    for claim in values["claims"]:
        console.out(wording.claim_sentence(claim))
    if result.r_withheld:
        console.out(f"No R: {result.r_withheld}.")
    if values["detector"]:
        console.out(wording.detector_details(values))
    console.out(wording.trained_against_sentence(values))
