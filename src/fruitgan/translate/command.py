"""`fruitgan translate`, `fruitgan export` and `fruitgan import`."""

from __future__ import annotations

import functools
import sys
from pathlib import Path
from typing import Literal

from fruitgan.console import Console, options
from fruitgan.console.options import argument, option
from fruitgan.errors import FruitganError, UsageError


def translate(
    sources: list[str] = argument("PICTURE", "Files, folders, globs, or - for standard input.", default=...),
    bundle: options.Bundle = None,
    to: options.To = None,
    direction: options.Direction = None,
    output: str | None = option("--output,-o FILE|DIR|-", "A file for one image, or a folder.", "translated"),
    format: Literal["png", "jpg", "webp", "tif", "gif"] | None = option(
        "--format", "Kind of the files written.", "png, or as they came with --frames all"
    ),
    scale: str = option(
        "--scale auto|native|N",
        "auto: large pictures at the training size; native: each at its own; N: shorter side N px.",
        default="auto",
    ),
    recursive: bool = option("--recursive,-r", "Include subfolders; the tree is kept.", default=False),
    overwrite: bool = option(
        "--overwrite", "Make every result anew, whatever is in its place; else only what is missing.", default=False
    ),
    strength: float = option("--strength 0..1", "How much of the change: 0 is the source, 1 all.", default=1.0, min=0, max=1),
    compare: bool = option("--compare", "Source and result side by side.", default=False),
    contact_sheet: bool = option(
        "--contact-sheet", "Beside the results a page of sources and results, contact-sheet.png.", default=False
    ),
    frames: Literal["first", "all"] = option(
        "--frames", "Of an animation or a stack of pages: the first, or all into one file.", default="first"
    ),
    keep_metadata: Literal["none", "basic", "all"] = option(
        "--keep-metadata", "basic: date, resolution, sRGB profile; all: camera, author and place (GPS) too.", default="basic"
    ),
    value_range: str | None = option(
        "--value-range LOW,HIGH", "Of more than 8 bits: the values that are black and white.", "the bundle's"
    ),
    engine: options.Engine = "auto",
    gpu: options.Gpu = None,
    device: options.Device = None,
    precision: Literal["auto", "fp32", "bf16"] = options.of_machine(
        "--precision", "Arithmetic of the generator; auto is fp32.", default="auto"
    ),
    shard: options.Shard = None,
    ray: options.Ray = None,
    config: options.Config = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Turn images into images of the other domain: apples into oranges.

    Example: fruitgan translate photo.jpg --to orange
    """
    from fruitgan.translate import job
    from fruitgan.translate.plan import STREAM

    settings = options.settings_of(job.TranslateSettings, locals())
    if output == STREAM or (output is None and settings.sources == (STREAM,)):
        if json:
            raise UsageError("standard output cannot hold both the image and --json; give a file or a folder with -o")
        if sys.stdout.isatty():
            raise UsageError("a terminal cannot show the image's bytes; send them on (> FILE), or give -o FILE")
    console = Console(json=json, quiet=quiet)
    # Either stream may be missing, as where a service runs the command.
    stdin, stdout = getattr(sys.stdin, "buffer", None), getattr(sys.stdout, "buffer", None)
    stopped = "stopped; every result is whole, and the same command does the rest"
    result = console.run(functools.partial(job.translate, stdin=stdin, stdout=stdout), settings, stopped, unit="img")
    for path in result.outputs:
        if path != STREAM:
            console.out(_in_one_line(path))
    if result.contact_sheet:
        console.out(_in_one_line(result.contact_sheet))
    if (kept := len(result.outputs) - result.translated) > 0:
        console.say(f"{result.translated} results made, {kept} were there already")
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
        elif not lines and result.skipped:
            first, *rest = result.skipped
            lines = [f"{_in_one_line(first.path)}: {first.reason}" + (f" (as are {len(rest)} others)" if rest else "")]
        error = FruitganError("".join(lines) or "none of what was given is an image")
        error.exit_code = result.exit_code
        raise error


def _in_one_line(text: str) -> str:
    """A name may hold a line break; who reads the lines must not take it for two (--json has names as they are)."""
    return text.replace("\n", "\\n").replace("\r", "\\r")


def export(
    bundle: str | None = argument(options.BUNDLE, "What to export.", options.BUNDLE_DEFAULT, **options.BUNDLE_NAMES),
    format: Literal["onnx", "junyanz"] = option(
        "--format", "onnx, or weights for pytorch-CycleGAN-and-pix2pix (of its generators).", default="onnx"
    ),
    dtype: Literal["fp32", "fp16", "int8"] = option(
        "--dtype",
        "Of a model's weights: fp16 halves its size, int8 makes it a third; how much the pictures change is measured and said.",
        default="fp32",
    ),
    pictures: Path | None = option("--pictures FILE|DIR", "On which each model is compared with torch.", "drawn fruit"),
    to: options.To = None,
    direction: Literal["a2b", "b2a"] | None = option("--direction", options.DIRECTION_HELP, "a model for each"),
    output: Path = option("--output,-o DIR", "Where the models go.", default=Path("exported")),
    overwrite: bool = option("--overwrite", "Replace models that are there.", default=False),
    config: options.Config = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Write a bundle's generators as ONNX models, checked against torch, or as weights for the reference code.

    Example: fruitgan export apple2orange -o models
    """
    from fruitgan.translate import export_job

    settings = options.settings_of(export_job.ExportModelSettings, locals())
    console = Console(json=json, quiet=quiet)
    result = console.run(export_job.export_model, settings, "stopped; every model is whole or not there", unit="model")
    for model in result.models:
        console.out(model.path)
        for line in ("from models import networks; import safetensors.torch", *model.load) if model.load else ():
            console.say(f"  {line}")
    if settings.format == "junyanz":
        console.say(f"  fruitgan import takes them back with --image-size {result.image_size_px}")
    rows = [
        (model.to, made["picture"], f"{made['width_px']} x {made['height_px']}", made["largest"], round(made["mean"], 6))
        for model in result.models
        for made in model.parity
    ]
    if rows:
        console.table("grey levels from torch", ("to", "picture", "size", "largest", "mean"), rows)


def import_checkpoint(
    files: list[Path] = argument("FILE.pth", "Generator from A to B, and perhaps the one back.", default=...),
    architecture: Literal["resnet-9", "resnet-6", "unet-256", "unet-128", "cut-resnet"] = option(
        "--architecture NAME", "resnet-9, resnet-6, unet-256, unet-128, or cut-resnet, which is CUT's.", default=...
    ),
    domains: str = option("--domains A,B", "The names of the two domains: horse,zebra.", default=...),
    output: Path = option("--output,-o FILE.safetensors", "The bundle to write.", default=...),
    image_size: int | None = option(
        "--image-size PIXELS",
        "Side of its training images (`fruitgan export` prints it).",
        "256; unet-128: 128",
        min=1,
        max=options.LARGEST_IMAGE_PX,
    ),
    overwrite: bool = option("--overwrite", "Replace a bundle that is there.", default=False),
    config: options.Config = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Make a bundle of generators that pytorch-CycleGAN-and-pix2pix or CUT trained.

    Example: fruitgan import latest_net_G.pth --architecture resnet-9 --domains horse,zebra -o zebra.safetensors
    """
    from fruitgan.translate import export_job

    settings = options.settings_of(export_job.ImportSettings, locals(), image_size_px=image_size)
    console = Console(json=json, quiet=quiet)
    result = console.run(export_job.import_checkpoint, settings, "stopped; no bundle was written", unit="generator")
    console.out(str(result.bundle))
    generator = ", ".join(f"{name} {value}" for name, value in result.generator.options.items())
    console.say(f"{result.generator.name} ({generator}), weights in {result.weights_dtype}")
    rows = [(way, found["largest"], round(found["mean"], 6)) for way, found in result.half_precision.items()]
    console.table("grey levels that half precision makes", ("direction", "largest", "mean"), rows)
