"""`fruitgan train-detector`: real and generated images in, a classifier and how often it is right out."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fruitgan.commands import options
from fruitgan.commands.signals import PoliteStop
from fruitgan.console import Bar, Console
from fruitgan.errors import Stopped, UsageError

if TYPE_CHECKING:
    from fruitgan.workflows.train_detector.settings import Event, TrainDetectorResult

DETECTOR_PANEL = "Detector and training"
SLOW_EPOCH_SECONDS = 60


def train_detector(
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="A folder with predicted (generated) and origins (real), as export-dataset makes it.",
            rich_help_panel=options.DATA_PANEL,
        ),
    ] = None,
    protocol: Annotated[
        Literal["grouped", "seed"],
        typer.Option(
            help="grouped: split by source image, judged on images that chose nothing. seed: as the lab report, which leaks.",
            rich_help_panel=options.DATA_PANEL,
        ),
    ] = "grouped",
    detector: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="small-cnn, seed-cnn (the lab report's), spectrum, ...", rich_help_panel=DETECTOR_PANEL
        ),
    ] = "small-cnn",
    detector_option: Annotated[
        list[str] | None,
        typer.Option(metavar="KEY=VALUE", help="An option of the detector: base_channels=24.", rich_help_panel=DETECTOR_PANEL),
    ] = None,
    augment: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="How training images are varied.",
            show_default="what the detector suggests",
            rich_help_panel=DETECTOR_PANEL,
        ),
    ] = None,
    image_size: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            show_default="the detector's, no larger than the images",
            help="Side at which the images are looked at.",
            rich_help_panel=DETECTOR_PANEL,
        ),
    ] = None,
    epochs: Annotated[int, typer.Option(min=1, metavar="N", help="At most so many.", rich_help_panel=DETECTOR_PANEL)] = 100,
    patience: Annotated[
        int, typer.Option(min=1, metavar="N", help="Stop after so many epochs without a gain.", rich_help_panel=DETECTOR_PANEL)
    ] = 10,
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size",
            "-b",
            min=2,
            metavar="N",
            show_default="64, or fewer for 16 steps an epoch",
            help="Images a step.",
            rich_help_panel=DETECTOR_PANEL,
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the run.",
            show_default="from the data and the detector",
            rich_help_panel=options.OUTPUT_PANEL,
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="The folder of the run folders.", rich_help_panel=options.OUTPUT_PANEL)
    ] = Path("runs/train-detector"),
    seed: options.Seed = None,
    gpu: options.Gpu = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
    config: options.Config = None,
) -> None:
    """Train a classifier of real against generated images, and judge it."""
    console = Console(json=json, quiet=quiet)
    if data is None:
        raise UsageError(
            "which images? Give --data DIR, a folder with predicted and origins (fruitgan export-dataset makes one)"
        )
    from fruitgan.workflows.train_detector import TrainDetectorSettings
    from fruitgan.workflows.train_detector import train_detector as job

    settings = TrainDetectorSettings(
        data=data,
        detector=detector,
        detector_options=options.pairs("--detector-option", detector_option),
        protocol=protocol,
        augment=augment,
        image_size=image_size,
        epochs=epochs,
        patience=patience,
        batch_size=batch_size,
        name=name,
        out=out,
        seed=seed or 0,
        gpu=gpu,
        device=device,
    )
    with PoliteStop() as stop, ExitStack() as stack:
        result = job(settings, _Telling(console, stop, stack))
    console.result(result)
    _show(result, console)
    if stop.exit_code:
        raise typer.Exit(stop.exit_code)


class _Telling:
    """What a person sees while it trains: a bar, a line an epoch where there is none, and what the number will mean."""

    def __init__(self, console: Console, stop: PoliteStop, stack: ExitStack) -> None:
        self.console = console
        self.stop = stop
        self.stack = stack
        self.bar: Bar | None = None
        self.warned = False

    def __call__(self, event: Event) -> bool:
        from fruitgan.workflows.train_detector.settings import Loading, Rounded, Started

        match event:
            case Loading(done, total):
                if self.stop.signal is not None:
                    raise Stopped("stopped before the first epoch; nothing was made", self.stop.exit_code)
                self._bar(total, "loading", "img").update(done)
                if done == total:
                    self._close()
            case Started(run, rounds, train, choose, judge, notes, warnings):
                for warning in warnings:
                    self.console.warn(warning)
                for note in notes:
                    self.console.say(f"note: {note}")
                self.console.say(f"{run}: {train} images train, {choose} choose, {judge} judge")
                self._bar(rounds, "training", "epoch")
            case Rounded(round_):
                what = "epoch" if round_.penalty is None else "trial"
                best = ", the best so far" if round_.is_best else ""
                self.console.say(
                    f"{what} {round_.number}: loss {round_.train_loss:.4f}, on the choosing images {round_.choose_loss:.4f} "
                    f"({round_.choose_accuracy:.1%} right){best}"
                )
                self._bar(0, "training", "epoch").update(round_.number)
                if round_.seconds > SLOW_EPOCH_SECONDS and not self.warned:
                    self.warned = True
                    self.console.warn(
                        f"an epoch takes {round_.seconds:.0f} seconds; a smaller --image-size or --detector small-cnn is "
                        "faster, Ctrl-C ends the training and judges the best weights so far"
                    )
        return self.stop.signal is not None

    def _bar(self, total: int, label: str, unit: str) -> Bar:
        if self.bar is None:
            self.bar = self.stack.enter_context(self.console.bar(total, label, unit))
        return self.bar

    def _close(self) -> None:
        self.stack.close()
        self.bar = None


def _show(result: TrainDetectorResult, console: Console) -> None:
    low, high = result.interval
    right = result.confusion.right
    rows = [
        ("accuracy", f"{result.accuracy:.2%} ({right} of {result.n}; 95% interval {low:.1%} to {high:.1%})"),
        ("AUC", f"{result.auc:.4f}"),
        ("always the more frequent answer", f"{result.chance:.2%} (p = {result.p_value:.2g})"),
        (
            "generated",
            f"{result.confusion.generated_as_generated} recognised, {result.confusion.generated_as_real} passed as real",
        ),
        ("real", f"{result.confusion.real_as_real} recognised, {result.confusion.real_as_generated} taken for generated"),
    ]
    rows += [
        (
            f"fakes of {part.split} sources",
            f"{part.found:.2%} of {part.n} recognised ({part.interval[0]:.1%} to {part.interval[1]:.1%})",
        )
        for part in result.parts
    ]
    console.table(f"{result.detector}, {result.protocol} protocol", ("what", "on the judged images"), rows)
    if result.protocol == "seed":
        console.out("  reads too high: the judged images chose the weights (--protocol grouped does not)")
    if not result.finished:
        console.say("stopped early; the best weights so far were judged and saved")
    console.out(f"{result.run}: detector.safetensors, metrics.json, report.html")
