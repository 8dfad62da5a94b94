"""`fruitgan translate`, `fruitgan export` and `fruitgan import`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from fruitgan.console import Console, names, options
from fruitgan.console.signals import stopped_at_once
from fruitgan.errors import FruitganError, UsageError


def translate(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="PICTURE...", help="Files, folders, globs, or - for standard input.", show_default=False),
    ],
    bundle: options.Bundle = None,
    to: options.To = None,
    direction: options.Direction = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE|DIR|-", show_default="translated", help="A file for one image, or a folder."
        ),
    ] = None,
    format: Annotated[
        Literal["png", "jpg", "webp", "tif", "gif"] | None,
        typer.Option("--format", show_default="png, or as they came with --frames all", help="Kind of the files written."),
    ] = None,
    scale: Annotated[
        str,
        typer.Option(
            "--scale", metavar="auto|native|N", help="Large images at the training size, all as they are, or N px a side."
        ),
    ] = "auto",
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Include subfolders; the tree is kept.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Make every result anew, whatever is in its place; else only what is missing.")
    ] = False,
    strength: Annotated[
        float, typer.Option("--strength", min=0, max=1, metavar="0..1", help="How much of the change: 0 is the source, 1 all.")
    ] = 1.0,
    compare: Annotated[bool, typer.Option("--compare", help="Source and result side by side.")] = False,
    contact_sheet: Annotated[
        bool, typer.Option("--contact-sheet", help="Beside the results a page of sources and results, contact-sheet.png.")
    ] = False,
    frames: Annotated[
        Literal["first", "all"],
        typer.Option("--frames", help="Of an animation or a stack of pages: the first, or all into one file."),
    ] = "first",
    keep_metadata: Annotated[
        Literal["none", "basic", "all"],
        typer.Option("--keep-metadata", help="basic: date, resolution, sRGB profile; all: camera, author and place (GPS) too."),
    ] = "basic",
    value_range: Annotated[
        str | None,
        typer.Option("--value-range", metavar="LOW,HIGH", show_default="the bundle's", help="Of deep greys: black and white."),
    ] = None,
    engine: options.Engine = "auto",
    gpu: options.Gpu = None,
    device: options.Device = None,
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        typer.Option("--precision", help="Arithmetic of the generator; auto is fp32.", rich_help_panel=options.MACHINE_PANEL),
    ] = "auto",
    shard: options.Shard = None,
    ray: options.Ray = None,
    config: options.Config = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Turn images into images of the other domain: apples into oranges.

    Example: fruitgan translate photo.jpg --to orange
    """
    given = locals()
    from fruitgan.data.parallel import parse_shard
    from fruitgan.translate.job import TranslateSettings
    from fruitgan.translate.job import translate as run
    from fruitgan.translate.plan import STREAM

    settings = options.settings_of(TranslateSettings, given, sources=tuple(sources), shard=parse_shard(shard))
    if output == STREAM or (output is None and settings.sources == (STREAM,)):
        if json:
            raise UsageError("standard output cannot hold both the image and --json; give a file or a folder with -o")
        if sys.stdout.isatty():
            raise UsageError("a terminal cannot show the image's bytes; send them on (> FILE), or give -o FILE")
    console = Console(json=json, quiet=quiet)
    with (
        stopped_at_once("stopped; every result is whole, and the same command does the rest"),
        console.events("img") as on_progress,
    ):
        # Either stream may be missing, as where a service runs the command.
        result = run(
            settings, on_progress, stdin=getattr(sys.stdin, "buffer", None), stdout=getattr(sys.stdout, "buffer", None)
        )
    console.result(result.as_json())
    for path in result.outputs:
        if path != STREAM:
            console.out(_in_one_line(path))
    if result.contact_sheet:
        console.out(_in_one_line(result.contact_sheet))
    for remark in result.notes:
        console.say(f"note: {_in_one_line(remark.path)}: {remark.reason}")
    for remark in result.skipped:
        console.say(f"skipped: {_in_one_line(remark.path)}: {remark.reason}")
    if result.exit_code:
        lines = [f"{_in_one_line(remark.path)}: {_in_one_line(remark.reason)}" for remark in result.failed]
        if len(lines) > 1:
            for line in lines:
                console.warn(line)
            lines = [f"{len(lines)} images failed, as said above; {len(result.outputs)} are translated"]
        error = FruitganError("".join(lines) or "none of what was given is an image")
        error.exit_code = result.exit_code
        raise error


def _in_one_line(text: str) -> str:
    """A name may hold a line break; who reads the lines must not take it for two (--json has names as they are)."""
    return text.replace("\n", "\\n").replace("\r", "\\r")


def export(
    bundle: Annotated[
        str | None,
        typer.Argument(
            metavar=f"[{options.BUNDLE}]",
            help="What to export.",
            show_default=options.BUNDLE_DEFAULT,
            **names.completed(names.bundles, names.runs("train-gan")),
        ),
    ] = None,
    format: Annotated[
        Literal["onnx", "junyanz"],
        typer.Option("--format", help="A model, or weights for pytorch-CycleGAN-and-pix2pix (of the generators that it has)."),
    ] = "onnx",
    dtype: Annotated[
        Literal["fp32", "fp16", "int8"],
        typer.Option("--dtype", help="A model's numbers: half of the size, or a third; what it costs is measured and said."),
    ] = "fp32",
    pictures: Annotated[
        Path | None,
        typer.Option(metavar="FILE|DIR", show_default="drawn fruit", help="What models are compared with torch on."),
    ] = None,
    to: options.To = None,
    direction: Annotated[
        Literal["a2b", "b2a"] | None,
        typer.Option("--direction", show_default="a model for each", help="The same as --to, by the letters of the domains."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the models go.")] = Path("exported"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace models that are there.")] = False,
    config: options.Config = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Write a bundle's generators as ONNX models, checked against torch, or as weights for the reference code.

    Example: fruitgan export apple2orange -o models
    """
    given = locals()
    from fruitgan.translate.export_job import ExportModelSettings, export_model

    settings = options.settings_of(ExportModelSettings, given)
    console = Console(json=json, quiet=quiet)
    with stopped_at_once("stopped; every model is whole or not there"), console.events(unit="model") as on_progress:
        result = export_model(settings, on_progress)
    console.result(result)
    for model in result.models:
        console.out(model.path)
        for line in ("from models import networks; import safetensors.torch", *model.load) if model.load else ():
            console.say(f"  {line}")
    rows = [
        (model.to, made["picture"], f"{made['width_px']} x {made['height_px']}", made["largest"], round(made["mean"], 6))
        for model in result.models
        for made in model.parity
    ]
    if rows:
        console.table("grey levels from torch", ("to", "picture", "size", "largest", "mean"), rows)


def import_checkpoint(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE.pth...", show_default=False, help="Generator from A to B, and perhaps the one back."),
    ],
    architecture: Annotated[
        Literal["resnet-9", "resnet-6", "unet-256", "unet-128", "cut-resnet"],
        typer.Option("--architecture", help="Which generator it is; cut-resnet is CUT's."),
    ],
    domains: Annotated[str, typer.Option("--domains", metavar="A,B", help="The names of the two domains: horse,zebra.")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE.safetensors", help="The bundle to write.")],
    image_size: Annotated[
        int | None,
        typer.Option(metavar="PIXELS", min=1, max=8192, show_default="256; unet-128: 128", help="Of its training images."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a bundle that is there.")] = False,
    config: options.Config = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Make a bundle of generators that pytorch-CycleGAN-and-pix2pix or CUT trained.

    Example: fruitgan import latest_net_G.pth --architecture resnet-9 --domains horse,zebra -o zebra.safetensors
    """
    given = locals()
    from fruitgan.data.sources import parse_domains
    from fruitgan.translate.import_job import ImportSettings
    from fruitgan.translate.import_job import import_checkpoint as run

    read = {"files": tuple(files), "domains": parse_domains(domains), "image_size_px": image_size}
    settings = options.settings_of(ImportSettings, given, **read)
    console = Console(json=json, quiet=quiet)
    with stopped_at_once("stopped; no bundle was written"), console.events(unit="generator") as on_progress:
        result = run(settings, on_progress)
    console.result(result)
    console.out(str(result.bundle))
    generator = ", ".join(f"{name} {value}" for name, value in result.generator.options.items())
    console.say(f"{result.generator.name} ({generator}), weights in {result.weights_dtype}")
    rows = [(way, found["largest"], round(found["mean"], 6)) for way, found in result.half_precision.items()]
    console.table("grey levels that half precision makes", ("direction", "largest", "mean"), rows)
