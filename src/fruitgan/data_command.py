"""The command `fruitgan data`: check or split a data set, fetch or list named sets, draw fruit."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from fruitgan.console import Console, names, options
from fruitgan.console.options import argument, option
from fruitgan.errors import UsageError

if TYPE_CHECKING:
    from fruitgan.data_job import CheckResult

app = typer.Typer(help="Look at image data, cut a test split off, fetch a named set, draw fruit.", no_args_is_help=True)

SHOWN_PATHS = 5


@app.command("check")
def check_data(
    what: str | None = argument("NAME|DIR", "The same as --data.", **options.SET_NAMES),
    data: options.Data = None,
    data_a: options.DataA = None,
    data_b: options.DataB = None,
    domains: options.Domains = None,
    background: options.Background = None,
    value_range: options.ValueRange = None,
    fit: options.Fit = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Report what a data set or folder holds and what is wrong with it.

    Example: fruitgan data check apple2orange
    """
    given = locals()
    from fruitgan import data_job
    from fruitgan.data.preprocessing import AS_USUAL

    console = Console(json=json, quiet=quiet)
    if what is not None and (data_a is not None or data_b is not None):
        raise UsageError(f"{what}: give a name or a folder, or --data-a and --data-b, not both")
    # What is typed as an argument wins over FRUITGAN_DATA.
    read: dict[str, Any] = {"data": what or data, "preprocessing": AS_USUAL.asked(background, value_range, fit)}
    _show(console, console.run(data_job.check, options.settings_of(data_job.CheckSettings, given, **read)))


def _show(console: Console, result: CheckResult) -> None:
    rows = [
        (
            f"{report.split} {report.domain}",
            report.images,
            len(report.broken),
            report.distinct,
            _range(report.width_px),
            _range(report.height_px),
            _counts(report.formats),
            _counts(report.modes),
            len(report.greyscale),
        )
        for report in result.splits
    ]
    columns = ("split", "images", "broken", "distinct", "width px", "height px", "formats", "modes", "greyscale")
    console.table(result.source, columns, rows)
    console.out("")
    for report in result.splits:
        for broken in report.broken:
            console.out(f"broken: {broken.path}: {broken.reason}")
    for duplicates in result.duplicates[:SHOWN_PATHS]:
        console.out("duplicates: " + ", ".join(str(path) for path in duplicates.files))
    if len(result.duplicates) > SHOWN_PATHS:
        console.out(f"and {len(result.duplicates) - SHOWN_PATHS} more such groups (--json names all)")
    for note in result.notes:
        console.out(f"note: {note}")
    for problem in result.problems:
        console.out(f"problem: {problem}")
    if not result.problems:
        console.out("nothing is wrong with these data")


@app.command("split")
def split_data(
    out: Path = option("--out DIR", "The folder to make.", default=...),
    folder: Path | None = argument("DIR", "A folder with one folder a domain, or with trainA and trainB."),
    data_a: Path | None = option("--data-a DIR", "A folder of images of domain a, instead of DIR."),
    data_b: Path | None = option("--data-b DIR", "A folder of images of domain b, instead of DIR."),
    test_fraction: float = option("--test-fraction 0..1", "How much is cut off.", default=0.1),
    copy: bool = option("--copy", "Copy the files; else they are linked to.", default=False),
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Cut a test split off by content, near-duplicates kept together: trainA, trainB, testA, testB.

    Example: fruitgan data split pictures --out mydata
    """
    from fruitgan import data_job

    settings = options.settings_of(data_job.SplitSettings, locals())
    console = Console(json=json, quiet=quiet)
    result = console.run(data_job.split, settings, "stopped; nothing was written")
    console.out(str(result.out))
    console.table(
        "", ("split", "domain", "images"), [(s, result.domains[s.endswith("B")], n) for s, n in result.images.items()]
    )
    if result.groups:
        console.say(f"{result.grouped} images are in {result.groups} groups of near-duplicates, each kept on one side")
    a, b = (shlex.quote(text) for text in (str(result.out), ",".join(result.domains)))
    console.say(f"train on it with: fruitgan train-gan --data {a} --domains {b}")
    for broken in result.broken:
        console.warn(f"left out: {broken.path}: {broken.reason}")


@app.command("fetch")
def fetch_set(
    name: str = argument(
        "NAME|hf:USER/NAME", "A set of `fruitgan data list`, or of the Hub.", default=..., **names.registered("datasets")
    ),
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Have a named set in the cache: downloaded, checked and unpacked, or drawn.

    Example: fruitgan data fetch apple2orange
    """
    from fruitgan.data_job import fetch

    console = Console(json=json, quiet=quiet)
    result = console.run(fetch, name, "stopped; the same command begins again")
    console.say(f"{result.name}: " + ", ".join(f"{count} in {split}" for split, count in result.images.items()))
    console.out(str(result.folder))


@app.command("list")
def list_sets(json: options.Json = False) -> None:
    """Show the named sets, and which of them are here.

    Example: fruitgan data list
    """
    from fruitgan.data.sources import known_sets

    console = Console(json=json)
    found = known_sets()
    console.result({"datasets": found})
    rows = [
        (
            entry.name,
            ", ".join(entry.domains or ()),
            {True: "here", False: "", None: "unavailable"}[entry.is_present],
            entry.package,
            entry.summary or entry.problem,
        )
        for entry in found
    ]
    console.table("", ("name", "domains", "in the cache", "package", "what"), rows)


@app.command("draw")
def draw_fruit(
    out: Path = argument("DIR", "The folder to make.", default=...),
    count: int = option("--count", "Training images of each fruit.", default=200, min=1),
    test_count: int = option("--test-count", "Test images of each fruit.", default=50, min=0),
    image_size: int = option("--image-size PIXELS", "Side of the square images.", default=128),
    seed: int = option("--seed", "Which pictures are drawn.", default=0, min=0),
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Draw apples and oranges into a new folder that every `--data` takes.

    Example: fruitgan data draw fruit --count 50
    """
    from fruitgan.demo.dataset import DrawSettings, draw

    console = Console(json=json, quiet=quiet)
    settings = DrawSettings(out=out, train_count=count, test_count=test_count, size_px=image_size, seed=seed)
    result = console.run(draw, settings, "stopped; nothing was written")
    console.out(str(result.folder))


def _range(sides: tuple[int, int] | None) -> str:
    if sides is None:
        return "-"
    return str(sides[0]) if sides[0] == sides[1] else f"{sides[0]}-{sides[1]}"


def _counts(counts: dict[str, int]) -> str:
    if len(counts) <= 1:
        return "".join(counts)
    return ", ".join(f"{name} {count}" for name, count in counts.items())
