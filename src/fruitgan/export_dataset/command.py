"""`fruitgan export-dataset`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from fruitgan.console import Console, options
from fruitgan.console.options import option

SHOWN_PATHS = 5


def export_dataset(
    data: options.Data = None,
    data_a: options.DataA = None,
    data_b: options.DataB = None,
    domains: options.Domains = None,
    background: options.Background = None,
    value_range: options.ValueRange = None,
    fit: options.Fit = None,
    bundle: options.Bundle = None,
    to: options.To = None,
    direction: options.Direction = None,
    out: Path = option("--out DIR", "The dataset folder.", default=Path("dataset")),
    count: int | None = option(
        "--count",
        "Images of each class: test images first, then training images, flagged in the manifest.",
        "the test images that both classes have",
        min=1,
    ),
    origins: Literal["target", "source"] = option(
        "--origins", "The real images: of the domain that is imitated, or the sources of the fakes.", default="target"
    ),
    image_size: int | None = option("--image-size PIXELS", "Side of the square images.", "the bundle's", min=1),
    format: Literal["png", "webp", "jpg"] = option(
        "--format", "Kind of the files: png and webp keep every bit, jpg (95) does not.", default="png"
    ),
    overwrite: bool = option("--overwrite", "Replace another dataset in the folder.", default=False),
    engine: options.Engine = "auto",
    gpu: options.Gpu = None,
    device: options.Device = None,
    shard: options.Shard = None,
    ray: options.Ray = None,
    config: options.Config = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Write generated and real images as a dataset that gives nothing away but what they show.

    Example: fruitgan export-dataset --data apple2orange --count 900
    """
    from fruitgan.data.sources import check_name
    from fruitgan.export_dataset import job

    if data is not None:
        check_name(data)  # before anything is imported that takes seconds
    settings = options.settings_of(job.ExportSettings, locals())
    console = Console(json=json, quiet=quiet)
    stopped = "stopped; every image is whole, and the same command does the rest"
    result = console.run(job.export_dataset, settings, stopped, unit="img")
    for broken in result.left_out.unreadable[:SHOWN_PATHS]:
        console.warn(f"left out: {broken.path}: {broken.reason}")
    if (more := len(result.left_out.unreadable) - SHOWN_PATHS) > 0:
        console.warn(f"and {more} more that cannot be decoded (--json names all)")
    for warning in result.warnings:
        console.warn(warning)
    columns = ("folder", "images", "of test", "of training")
    rows = [
        (f"{result.dataset}/{name}", number, result.splits[name].get("test", 0), result.splits[name].get("train", 0))
        for name, number in (("predicted", result.predicted), ("origins", result.origins))
    ]
    console.table(f"{result.bundle} to {result.target}, {result.image_size_px} px, {result.format}", columns, rows)
    console.say(f"{result.made} images made, {result.kept} were there already, in {result.seconds:.1f} s")
    if not result.finished:
        console.say("this is a part: after the last part, the same command without --shard writes the manifest")
