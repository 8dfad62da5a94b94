"""`fruitgan export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from fruitgan.console import Console, options
from fruitgan.console.signals import stopped_at_once


def export(
    bundle: Annotated[
        str | None,
        typer.Argument(
            metavar="[FILE|NAME|RUN]", help="What to export.", show_default="the newest run here, else the one that ships"
        ),
    ] = None,
    format: Annotated[Literal["onnx"], typer.Option("--format", help="For which runtime.")] = "onnx",
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            metavar="DOMAIN",
            show_default="a model for each",
            help="One direction alone: orange or apple, as the bundle names them.",
        ),
    ] = None,
    direction: Annotated[
        Literal["a2b", "b2a"] | None,
        typer.Option("--direction", show_default="a model for each", help="The same by letters."),
    ] = None,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Where the models go.")] = Path("exported"),
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace models that are there.")] = False,
    config: options.Config = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
) -> None:
    """Write a bundle's generators as ONNX models, checked against torch."""
    from fruitgan.translate.export_job import ExportModelSettings, export_model

    settings = ExportModelSettings(bundle=bundle, format=format, to=to, direction=direction, output=output, overwrite=overwrite)
    console = Console(json=json, quiet=quiet)
    with stopped_at_once("stopped; every model is whole or not there"), console.events(unit="model") as on_progress:
        result = export_model(settings, on_progress)
    console.result(result)
    for model in result.models:
        console.out(model.path)
    rows = [
        (model.to, parity.images, f"{parity.width_px} x {parity.height_px}", parity.largest, round(parity.mean, 6))
        for model in result.models
        for parity in model.parity
    ]
    console.table("grey levels from torch", ("to", "images", "size", "largest", "mean"), rows)
