"""`fruitgan train-detector`: real and generated images in, a classifier and how often it is right out."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from fruitgan.console import Bar, Console, options
from fruitgan.console.signals import INTERRUPTED, PoliteStop
from fruitgan.errors import Stopped

if TYPE_CHECKING:
    from fruitgan.train_detector.settings import Event, TrainDetectorResult, TrainDetectorSettings

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
        Literal["grouped", "seed"] | None,
        typer.Option(
            help="grouped: split by source image, judged on images that chose nothing. seed: as the lab report, which leaks.",
            show_default="grouped",
            rich_help_panel=options.DATA_PANEL,
        ),
    ] = None,
    detector: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="small-cnn, seed-cnn (the lab report's), spectrum, ...",
            show_default="small-cnn",
            rich_help_panel=DETECTOR_PANEL,
        ),
    ] = None,
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
    epochs: Annotated[
        int | None,
        typer.Option(min=1, metavar="N", help="At most so many.", show_default="100", rich_help_panel=DETECTOR_PANEL),
    ] = None,
    patience: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="N",
            help="Stop after so many epochs without a gain.",
            show_default="10",
            rich_help_panel=DETECTOR_PANEL,
        ),
    ] = None,
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
    resume: Annotated[
        str | None,
        typer.Option(
            metavar="[RUN]",
            help="Go on with a run; without a name with the newest unfinished.",
            rich_help_panel=options.OUTPUT_PANEL,
        ),
    ] = None,
    seed: options.Seed = None,
    gpu: options.Gpu = None,
    device: options.Device = None,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    json: options.Json = False,
    config: options.Config = None,
) -> None:
    """Train a classifier of real against generated images, and judge it."""
    console = Console(json=json, quiet=quiet)
    from fruitgan.train_detector.settings import TrainDetectorSettings

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
        resume=resume,
        seed=seed,
        gpu=gpu,
        device=device,
        threads=options.parse_threads(threads),
    )
    _train(settings, console)


def _train(settings: TrainDetectorSettings, console: Console) -> None:
    from fruitgan.train_detector.checkpoint import NothingToJudge
    from fruitgan.train_detector.job import train_detector as job
    from fruitgan.train_detector.resume import resume_line

    with PoliteStop() as stop, ExitStack() as stack:
        telling = _Telling(console, stop, stack)
        try:
            result = job(settings, telling)
        except NothingToJudge:
            assert telling.run is not None
            console.result({"run": str(telling.run), "rounds": 0, "finished": False})
            line = resume_line(telling.run, settings)
            raise Stopped(f"stopped in the first epoch, saved; go on with: {line}", stop.exit_code) from None
        except KeyboardInterrupt:
            raise Stopped(_left_at_once(telling.run, settings), INTERRUPTED) from None
    console.result(result)
    _show(result, console)
    if not result.finished:
        line = resume_line(result.run, settings)
        raise Stopped(f"stopped, saved, the best weights so far judged; go on with: {line}", stop.exit_code)


def _left_at_once(run: Path | None, settings: TrainDetectorSettings) -> str:
    """What to say after a second Ctrl-C."""
    from fruitgan.train_detector.resume import resume_line

    if run is None:
        return "stopped at once, before the first epoch; nothing was changed"
    return f"stopped at once; what was saved last stays; go on with: {resume_line(run, settings)}"


class _Telling:
    """What a person sees while it trains: a bar, a line an epoch where there is none, and what the number will mean."""

    def __init__(self, console: Console, stop: PoliteStop, stack: ExitStack) -> None:
        self.console = console
        self.stop = stop
        self.stack = stack
        self.bar: Bar | None = None
        self.run: Path | None = None
        self.warned = False

    def __call__(self, event: Event) -> bool:
        from fruitgan.train_detector.settings import Loading, Rounded, Started

        match event:
            case Loading(done, total):
                if self.stop.signal is not None:
                    raise Stopped("stopped before the first epoch; nothing was changed", self.stop.exit_code)
                self._bar(total, "loading", "img").update(done)
                if done == total:
                    self._close()
            case Started(run, done, rounds, train, choose, judge, notes, warnings):
                self.run = run
                for warning in warnings:
                    self.console.warn(warning)
                for note in notes:
                    self.console.say(f"note: {note}")
                self.console.say(f"{run}: {train} images train, {choose} choose, {judge} judge")
                if done:
                    self.console.say(f"going on after epoch {done}")
                self._bar(rounds, "training", "epoch", done)
            case Rounded(round_):
                what = "epoch" if round_.penalty is None else "trial"
                best = ", the best so far" if round_.is_best else ""
                self.console.say(
                    f"{what} {round_.number}: loss {round_.train_loss:.4f}, on the choosing images {round_.val_loss:.4f} "
                    f"({round_.val_accuracy:.1%} right){best}"
                )
                self._bar(0, "training", "epoch").update(round_.number)
                if round_.seconds > SLOW_EPOCH_SECONDS and not self.warned:
                    self.warned = True
                    self.console.warn(
                        f"an epoch takes {round_.seconds:.0f} seconds; a smaller --image-size or --detector small-cnn is "
                        "faster; Ctrl-C saves, and judges the best weights so far"
                    )
        return self.stop.signal is not None

    def _bar(self, total: int, label: str, unit: str, start: int = 0) -> Bar:
        if self.bar is None:
            self.bar = self.stack.enter_context(self.console.bar(total, label, unit, start))
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
    metrics = "metrics.json, " if result.finished else ""
    console.out(f"{result.run}: detector.safetensors, {metrics}report.html")
