"""The command `fruitgan detect`: pictures in, a line of CSV each: real or generated, and how probable it is."""

from __future__ import annotations

import csv
import io
from typing import Annotated

import typer

from fruitgan.console import Console, options
from fruitgan.console.signals import stopped_at_once
from fruitgan.errors import DataError


def detect(
    pictures: Annotated[
        list[str], typer.Argument(metavar="PICTURE|FOLDER...", help="Files, folders or globs.", show_default=False)
    ],
    detector: Annotated[
        str | None,
        typer.Option(metavar="FILE|RUN", help="What judges.", show_default="the newest run of train-detector here"),
    ] = None,
    recursive: Annotated[bool, typer.Option("--recursive", "-r", help="Include subfolders.")] = False,
    gpu: options.Gpu = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
    config: options.Config = None,
) -> None:
    """Say of each picture whether it is real or generated, with a calibrated probability."""
    from fruitgan.train_detector.detect_job import DetectSettings
    from fruitgan.train_detector.detect_job import detect as job

    console = Console(json=json, quiet=quiet)
    settings = DetectSettings(pictures=tuple(pictures), recursive=recursive, detector=detector, gpu=gpu, device=device)
    with stopped_at_once("stopped; nothing was written"), console.events("img") as on_progress:
        result = job(settings, on_progress)
    console.result(result)
    console.out("file,verdict,probability,outside")
    for found in result.pictures:
        line = io.StringIO()
        row = (found.file, "generated" if found.generated else "real", f"{found.probability:.4f}", "; ".join(found.outside))
        csv.writer(line, lineterminator="").writerow(row)
        console.out(line.getvalue())
    strange = sum(bool(found.outside) for found in result.pictures)
    if strange:
        console.warn(f"{strange} of {len(result.pictures)} pictures are unlike what the detector was trained on (see outside)")
    for remark in result.skipped:
        console.say(f"skipped: {remark.path}: {remark.reason}")
    for remark in result.failed:
        console.warn(f"{remark.path}: {remark.reason}")
    if result.failed:
        raise DataError(f"{len(result.failed)} of {len(result.failed) + len(result.pictures)} pictures could not be judged")
